//! The simulator by itself: its money adds up, its events say what its accounts say, and they are Stripe's.

mod bookkeepers; // the properties, on bookkeepers that are right and wrong
mod money; // accounts, invoices, prorations
mod stories; // the histories of some vectors
mod vectors; // events as in the vectors

use proptest::collection::vec;
use proptest::prelude::*;

use super::{Api, BillingMode, Choice, Settings};

/// A random history's choices.
fn choices(most: usize) -> impl Strategy<Value = Vec<Choice>> {
    vec(any::<Choice>(), 1..most)
}

/// Both billing modes, in the shapes that know them, from days all over the year.
fn kinds_of_simulation() -> impl Strategy<Value = (BillingMode, Settings)> {
    let kinds = prop::sample::select(vec![
        (BillingMode::Classic, Api::Older),
        (BillingMode::Classic, Api::Current),
        (BillingMode::Flexible, Api::Current),
    ]);
    (kinds, 0..400_i64).prop_map(|((mode, api), day)| {
        let begins_at = Settings::default().begins_at + day * super::DAY;
        (mode, Settings { begins_at, api, ..Settings::default() })
    })
}
