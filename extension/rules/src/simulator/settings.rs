//! What a simulation is of.

use super::months::Months;
use super::price::{PRICES, Price};

/// Which shape of Stripe's API events have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Api {
    /// 2024-06-20: periods on the subscription, the invoice names its subscription, payment intent and charge.
    Older,
    /// 2025-08-27: periods on the items, an invoice's subscription under `parent`, payments as objects of their own.
    Current,
}

/// What a simulation is of.
#[derive(Debug, Clone)]
pub struct Settings {
    /// When it begins, in Unix seconds.
    pub begins_at: i64,
    /// The shape of its events.
    pub api: Api,
    /// How long a month is.
    pub months: Months,
    /// What is sold.
    pub prices: &'static [Price],
    /// The user that metadata names.
    pub user_id: String,
    /// A part of every id, so that several simulations share a database.
    pub tag: String,
    /// Whether the customer lives by a test clock. Its objects then name it; [`clock_event`](super::clock_event) says its time.
    pub has_test_clock: bool,
    /// How long after the operation before it each operation is, in seconds.
    pub seconds_between: i64,
    /// Whether two events of one subscription may share a second; then Stripe has to be asked which is the newer.
    pub may_share_seconds: bool,
    /// In flexible billing: by how many seconds an item's period ends early when the item joins it.
    pub short_by: i64,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            begins_at: 1_700_000_000,
            api: Api::Current,
            months: Months::Calendar,
            prices: PRICES,
            user_id: "00000000-0000-4000-8000-000000000001".to_owned(),
            tag: "1".to_owned(),
            has_test_clock: false,
            seconds_between: 120,
            may_share_seconds: false,
            short_by: 0,
        }
    }
}
