//! Exact fractions, and the calendar: months clamp to the month's end, in UTC.

use chrono::{DateTime, Months};

/// An exact fraction of credits, of money or of time. It is rounded once, by [`floor`].
pub(super) type Fraction = num_rational::BigRational;

pub(super) fn whole(number: i64) -> Fraction {
    Fraction::from_integer(number.into())
}

pub(super) fn ratio(numerator: i64, denominator: i64) -> Fraction {
    Fraction::new(numerator.into(), denominator.into())
}

/// "Rounding is down": to the next lower whole number, below zero too.
pub(super) fn floor(number: &Fraction) -> i64 {
    i64::try_from(number.floor().to_integer()).expect("credits fit into 64 bits")
}

/// A length of time as the calendar or the clock counts it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Span {
    Months(i64),
    Days(i64),
}

const DAY: i64 = 86_400;

impl Span {
    /// `"1 month"`, `"30 days"`, `"2 weeks"`, `"1 year"`: the catalog's spelling.
    pub(super) fn parse(text: &str) -> Span {
        let (count, unit) = text.split_once(' ').expect("a count and a unit");
        Span::of(unit.trim_end_matches('s'), count.parse().expect("a whole count")).expect("a unit of time")
    }

    /// Stripe's `interval` and `interval_count`.
    pub(super) fn of(unit: &str, count: i64) -> Option<Span> {
        match unit {
            "day" => Some(Span::Days(count)),
            "week" => Some(Span::Days(count * 7)),
            "month" => Some(Span::Months(count)),
            "year" => Some(Span::Months(count * 12)),
            _ => None,
        }
    }

    /// The time that lies this span, `times` over, after `time`; before it if `times` is negative.
    pub(super) fn after(self, time: i64, times: i64) -> i64 {
        let months = match self {
            Span::Days(days) => return time + days * DAY * times,
            Span::Months(months) => months * times,
        };
        let from = DateTime::from_timestamp(time, 0).expect("a time within the calendar");
        let size = Months::new(u32::try_from(months.abs()).expect("a span within the calendar"));
        let moved = if months < 0 { from.checked_sub_months(size) } else { from.checked_add_months(size) };
        moved.expect("a time within the calendar").timestamp()
    }

    /// "The interval counted back from the line's end by the calendar", in seconds.
    pub(super) fn seconds_before(self, end: i64) -> i64 {
        end - self.after(end, -1)
    }

    /// How many months this is; a month that days are compared with has a twelfth of 365.2425 days.
    pub(super) fn months(self) -> Fraction {
        match self {
            Span::Months(months) => whole(months),
            Span::Days(days) => ratio(days * 1_000_000, 30_436_875),
        }
    }
}
