//! Exact shares of credits.
//!
//! Big integers, because a grant's sum multiplies denominators: each line brings the seconds of its interval, and each
//! payment of which a part came back two amounts of money. Four such payments in one month would leave an `i128`.

use num_rational::BigRational;
use num_traits::{ToPrimitive, Zero};

/// A number of credits, or a part of one, without rounding.
pub(super) type Share = BigRational;

/// `numerator ÷ denominator`; nothing of nothing is 0.
pub(super) fn share(numerator: impl Into<i128>, denominator: impl Into<i128>) -> Share {
    let denominator = denominator.into();
    if denominator == 0 {
        return Share::zero();
    }
    Share::new(numerator.into().into(), denominator.into())
}

/// A whole number.
pub(super) fn whole(number: impl Into<i128>) -> Share {
    Share::from_integer(number.into().into())
}

/// Rounded down; `None` if it leaves a bigint.
pub(super) fn floor(share: &Share) -> Option<i64> {
    share.floor().to_integer().to_i64()
}
