//! What a customer's change of plan is: up or down by credits per time, and when it is billed and takes effect.
//!
//! The rules of money need none of this: they read what Stripe billed. It decides how the shim asks Stripe for a change, so
//! that no money comes back and whole credits are wholly paid.

use std::cmp::Ordering;

use num_rational::BigRational;

use crate::amount::Credits;
use crate::calendar::Span;
use crate::streams::intervals::months;
use crate::text_enum::text_enum;

/// What so many of a plan's price give, to compare one price with another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Level {
    /// Credits of one interval, or of one part if it comes in parts.
    pub credits: Credits,
    /// How many of the price.
    pub quantity: u32,
    /// How often the price is billed.
    pub interval: Span,
    /// How long a part is, if the price comes in parts.
    pub drip: Option<Span>,
}

text_enum! {
    /// Which way a change goes, by credits per time.
    Direction {
        /// More credits per month than before.
        Up => "up",
        /// Fewer.
        Down => "down",
        /// As many.
        Same => "same",
    }
}

/// When a change takes effect and is billed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Timing {
    /// Now, by an invoice that credits the rest of the old period and bills a whole new one.
    Invoiced,
    /// Now, without an invoice; the next renewal bills the new price.
    Uninvoiced,
    /// When the period that was paid for ends.
    AtPeriodEnd,
}

impl Level {
    fn per_month(self) -> BigRational {
        let credits = i128::from(self.credits.0) * i128::from(self.quantity);
        BigRational::from_integer(credits.into()) / months(self.drip.unwrap_or(self.interval))
    }
}

/// Which way a change goes.
#[must_use]
pub fn direction(from: Level, to: Level) -> Direction {
    match to.per_month().cmp(&from.per_month()) {
        Ordering::Greater => Direction::Up,
        Ordering::Less => Direction::Down,
        Ordering::Equal => Direction::Same,
    }
}

/// When a change takes effect. More credits, or a longer interval, are paid for at once. What was paid for longer than the
/// new price is billed for stays until it ends, and fewer credits at one interval cost nothing until the renewal.
#[must_use]
pub fn timing(from: Level, to: Level) -> Timing {
    let direction = direction(from, to);
    if direction != Direction::Up && from.interval.is_longer_than(to.interval) {
        Timing::AtPeriodEnd
    } else if direction == Direction::Down && !to.interval.is_longer_than(from.interval) {
        Timing::Uninvoiced
    } else {
        Timing::Invoiced
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MONTH: Span = Span::Months(1);
    const YEAR: Span = Span::Months(12);

    fn level(credits: i64, quantity: u32, interval: Span, drip: Option<Span>) -> Level {
        Level { credits: Credits(credits), quantity, interval, drip }
    }

    #[test]
    fn a_change_goes_up_or_down_by_credits_per_month() {
        let pro = level(10_000, 1, MONTH, None);
        for (to, expected) in [
            (level(30_000, 1, MONTH, None), Direction::Up),
            (level(5_000, 1, MONTH, None), Direction::Down),
            (level(5_000, 2, MONTH, None), Direction::Same),
            (level(5_000, 3, MONTH, None), Direction::Up),
            (level(10_000, 1, YEAR, Some(MONTH)), Direction::Same),
            (level(120_000, 1, YEAR, None), Direction::Same),
            (level(10_000, 1, YEAR, None), Direction::Down),
            (level(30_000, 1, Span::Months(3), None), Direction::Same),
            (level(10_000, 1, Span::Days(30), None), Direction::Up),
            (level(i64::MAX, u32::MAX, MONTH, None), Direction::Up),
        ] {
            assert_eq!(direction(pro, to), expected, "{to:?}");
        }
    }

    #[test]
    fn what_is_more_or_longer_is_paid_at_once_and_what_is_shorter_waits() {
        let (pro, pro_year) = (level(10_000, 1, MONTH, None), level(10_000, 1, YEAR, Some(MONTH)));
        let (max, max_year) = (level(30_000, 1, MONTH, None), level(30_000, 1, YEAR, Some(MONTH)));
        for (from, to, expected) in [
            (pro, max, Timing::Invoiced),
            (pro, pro_year, Timing::Invoiced),
            (max, pro_year, Timing::Invoiced),
            (pro_year, max, Timing::Invoiced),
            (pro, pro, Timing::Invoiced),
            (max, pro, Timing::Uninvoiced),
            (max_year, pro_year, Timing::Uninvoiced),
            (pro_year, pro, Timing::AtPeriodEnd),
            (max_year, pro, Timing::AtPeriodEnd),
        ] {
            assert_eq!(timing(from, to), expected, "{from:?} to {to:?}");
        }
    }
}
