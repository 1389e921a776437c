//! Auto top-up: which pack is bought for a user whose credits run low, and how often at most.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::amount::Credits;
use crate::calendar::Span;
use crate::crossing::falls_to;
use crate::text_enum::text_enum;

/// The most top-ups in a span that a catalog may allow.
pub const MAX_TOP_UPS: u32 = 100;

/// The catalog's auto top-up, with what its pack says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AutoTopUp {
    /// The pack's catalog key.
    pub pack: String,
    /// The pack's only price, `price_…`, which says what is charged.
    pub price_id: String,
    /// What the pack holds.
    pub credits: Credits,
    /// Fewer credits than these are too few; above 0 and at most the pack's, so that one top-up is enough.
    pub below: Credits,
    /// How often at most.
    pub at_most: AtMost,
}

impl AutoTopUp {
    /// Whether a draw that left so many credits asks for a top-up. Not only the one that crossed `below` does: a request may
    /// have been impossible then, and what lapsed or was taken back since asks for none itself.
    #[must_use]
    pub fn is_wanted(&self, after: Credits) -> bool {
        after < self.below
    }

    /// Whether a balance fell below `below` by a change: what the app is told once of a top-up that is refused.
    #[must_use]
    pub fn is_crossed(&self, before: Credits, after: Credits) -> bool {
        falls_to(Credits(self.below.0 - 1), before, after)
    }
}

/// So many in any span of a length that ends now, written `"3 per month"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct AtMost {
    /// 1 to [`MAX_TOP_UPS`].
    pub count: u32,
    /// The length of the span.
    pub per: Per,
}

text_enum! {
    /// The length of the span in which top-ups are counted.
    Per {
        /// 24 hours.
        Day => "day",
        /// 7 days.
        Week => "week",
        /// A calendar month, counted back from now.
        Month => "month",
    }
}

impl Per {
    /// Its length.
    #[must_use]
    pub fn span(self) -> Span {
        match self {
            Per::Day => Span::Days(1),
            Per::Week => Span::Days(7),
            Per::Month => Span::Months(1),
        }
    }
}

/// A text that says no number of top-ups in a span.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not such as \"3 per month\": 1 to {MAX_TOP_UPS} per day, week or month")]
pub struct NotAtMost(String);

impl FromStr for AtMost {
    type Err = NotAtMost;

    fn from_str(text: &str) -> Result<AtMost, NotAtMost> {
        let read = || {
            let (count, per) = text.split_once(" per ")?;
            let is_number = count.bytes().all(|byte| byte.is_ascii_digit());
            let count = count.parse().ok().filter(|count| is_number && (1..=MAX_TOP_UPS).contains(count))?;
            Some(AtMost { count, per: Per::parse(per)? })
        };
        read().ok_or_else(|| NotAtMost(text.to_owned()))
    }
}

impl TryFrom<String> for AtMost {
    type Error = NotAtMost;

    fn try_from(text: String) -> Result<AtMost, NotAtMost> {
        text.parse()
    }
}

impl From<AtMost> for String {
    fn from(at_most: AtMost) -> String {
        at_most.to_string()
    }
}

impl fmt::Display for AtMost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} per {}", self.count, self.per.as_str())
    }
}

text_enum! {
    /// Whether packs are bought for a user by auto top-up.
    Switch {
        /// Nothing is bought.
        Off => "off",
        /// A pack is bought when a draw leaves too few credits.
        On => "on",
        /// A payment failed: nothing is bought until it is turned on again.
        Paused => "paused",
    }
}

text_enum! {
    /// What became of a request for a top-up.
    TopUpState {
        /// It is to be paid, or Stripe is being asked.
        Requested => "requested",
        /// Stripe took the money; the credits come with `payment_intent.succeeded`.
        Paid => "paid",
        /// The credits were granted.
        Succeeded => "succeeded",
        /// The payment failed, and auto top-up is paused for the user.
        Failed => "failed",
        /// It was given up before it was paid.
        Canceled => "canceled",
    }
}

/// The id of a request, in the metadata of its payment intent and in what the app is told: its user and its number.
#[must_use]
pub fn id_of(user: uuid::Uuid, number: i64) -> String {
    format!("{user}_{number}")
}

/// The number of a user's request, by its id; `None` if that is no id, or another user's.
#[must_use]
pub fn number_of(top_up_id: &str, user: uuid::Uuid) -> Option<i64> {
    let (named, number) = top_up_id.split_once('_')?;
    let number = number.parse().ok().filter(|number| *number > 0)?;
    (uuid::Uuid::try_parse(named) == Ok(user)).then_some(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_draw_asks_while_there_are_too_few_and_crosses_once() {
        let at_most = AtMost { count: 3, per: Per::Month };
        let (pack, price_id) = ("p".to_owned(), "price".to_owned());
        let top_up = AutoTopUp { pack, price_id, credits: Credits(500), below: Credits(100), at_most };
        assert!(
            !top_up.is_wanted(Credits(100)) && top_up.is_wanted(Credits(99)) && top_up.is_wanted(Credits(0))
        );
        assert!(top_up.is_crossed(Credits(100), Credits(99)) && top_up.is_crossed(Credits(500), Credits(0)));
        assert!(
            !top_up.is_crossed(Credits(99), Credits(98)) && !top_up.is_crossed(Credits(500), Credits(100))
        );
    }

    #[test]
    fn how_often_at_most_is_a_number_and_a_span() {
        let at_most = |text: &str| text.parse::<AtMost>();
        assert_eq!(at_most("3 per month"), Ok(AtMost { count: 3, per: Per::Month }));
        assert_eq!(at_most("100 per day").map(|at_most| at_most.per.span()), Ok(Span::Days(1)));
        assert_eq!(at_most("1 per week").map(|at_most| at_most.to_string()), Ok("1 per week".to_owned()));
        for wrong in [
            "",
            "3",
            "0 per month",
            "101 per day",
            "+3 per day",
            "3 per hour",
            "3  per month",
            "3 per month ",
        ] {
            assert!(at_most(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn a_requests_id_names_its_user_and_its_number() {
        let (ann, bob) = (uuid::Uuid::from_u128(1), uuid::Uuid::from_u128(2));
        assert_eq!(number_of(&id_of(ann, 12), ann), Some(12));
        for wrong in
            [format!("{ann}_12x"), format!("{ann}_0"), format!("{bob}_12"), format!("{ann}"), "_".to_owned()]
        {
            assert_eq!(number_of(&wrong, ann), None, "{wrong}");
        }
    }
}
