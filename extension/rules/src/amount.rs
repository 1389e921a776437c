//! Amounts, and their bounds. Credits and Stripe's minor currency units are different types.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize};

/// The most credits that one price may be worth, or that one call may move.
pub const MAX_CREDITS: i64 = 1_000_000_000_000;

/// The highest quantity of one price in one payment. Times [`MAX_CREDITS`] it still fits a bigint.
pub const MAX_QUANTITY: i64 = 1_000_000;

/// A number of credits: never a float, and not negative if it is what something is worth.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Hash, Serialize)]
#[serde(transparent)]
pub struct Credits(pub i64);

impl Credits {
    /// No credits.
    pub const ZERO: Credits = Credits(0);

    /// The sum, or `None` if it exceeds a bigint.
    #[must_use]
    pub fn checked_add(self, other: Credits) -> Option<Credits> {
        self.0.checked_add(other.0).map(Credits)
    }

    /// The difference, or `None` if it exceeds a bigint.
    #[must_use]
    pub fn checked_sub(self, other: Credits) -> Option<Credits> {
        self.0.checked_sub(other.0).map(Credits)
    }

    /// This many credits for each of `quantity` pieces, or `None` if it exceeds a bigint.
    #[must_use]
    pub fn times(self, quantity: Quantity) -> Option<Credits> {
        self.0.checked_mul(quantity.get()).map(Credits)
    }
}

impl fmt::Display for Credits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// In a catalog, credits are a whole number from 0 to [`MAX_CREDITS`]: not 1.5, not -1, not "500", and not a number
/// so long that a JSON parser would have rounded it.
impl<'de> Deserialize<'de> for Credits {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let n = i64::deserialize(deserializer)?;
        if (0..=MAX_CREDITS).contains(&n) {
            Ok(Credits(n))
        } else {
            Err(serde::de::Error::custom(format_args!("{n} is not from 0 to {MAX_CREDITS} credits")))
        }
    }
}

/// How many pieces of a price were bought: 1 to [`MAX_QUANTITY`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct Quantity(i64);

impl Quantity {
    /// One piece.
    pub const ONE: Quantity = Quantity(1);

    /// `None` outside 1 to [`MAX_QUANTITY`].
    #[must_use]
    pub fn new(n: i64) -> Option<Quantity> {
        (1..=MAX_QUANTITY).contains(&n).then_some(Quantity(n))
    }

    /// As Stripe's metadata carries it: digits only, so `"3"` but not `"3.0"`, `"+3"` or `" 3"`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Quantity> {
        if text.is_empty() || !text.bytes().all(|b| b.is_ascii_digit()) {
            return None;
        }
        text.parse().ok().and_then(Quantity::new)
    }

    /// The number.
    #[must_use]
    pub fn get(self) -> i64 {
        self.0
    }

    /// The sum, or `None` above [`MAX_QUANTITY`].
    #[must_use]
    pub fn checked_add(self, other: Quantity) -> Option<Quantity> {
        Quantity::new(self.0 + other.0)
    }
}

/// An amount of money in the smallest unit of its currency, as Stripe writes it: cents, or whole yen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct MinorUnits(pub i64);
