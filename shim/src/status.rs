//! What the database says to a scrape: what waits, what is overdue, and when the scheduled jobs ran last.

use serde::Deserialize;

/// What the metrics say of the database; times are in seconds since 1970, by its clock.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(crate) struct Status {
    /// One for each reason for which something waits.
    pub(crate) waiting: Vec<Waiting>,
    /// When the first account fell due that is due and not posted; none if there is none.
    pub(crate) due_since: Option<i64>,
    pub(crate) sweep: Option<Sweep>,
    pub(crate) books_check: Option<BooksCheck>,
    pub(crate) top_ups: TopUps,
}

/// The events that wait for one reason.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(crate) struct Waiting {
    /// Of parked events their reason; `needs_fetch` of those that wait for an object of Stripe's.
    pub(crate) reason: String,
    pub(crate) events: i64,
    /// When the oldest of them was first received.
    pub(crate) since: i64,
}

/// Top-ups that are requested or paid, and whose credits are not granted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub(crate) struct TopUps {
    pub(crate) waiting: i64,
    /// When the oldest of them was requested.
    pub(crate) since: Option<i64>,
}

/// The events that wait to be delivered to the app.
#[derive(Debug, Clone, Copy)]
pub(crate) struct WaitingEvents {
    pub(crate) pending: i64,
    pub(crate) dead: i64,
    pub(crate) oldest_seconds: f64,
}

/// The last sweep.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(crate) struct Sweep {
    pub(crate) at: i64,
    /// How many events it applied that should have come by webhook long before.
    pub(crate) lost: Option<i64>,
}

/// The last proof of the books.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(crate) struct BooksCheck {
    pub(crate) at: i64,
    /// Users whose books differ.
    pub(crate) faults: i64,
}

/// The accounts that the mirror does not have as they are.
#[derive(Debug, Clone, Copy)]
pub(crate) struct WaitingAccounts {
    pub(crate) count: i64,
    /// How long ago the first change was that the mirror does not have.
    pub(crate) oldest_seconds: f64,
}
