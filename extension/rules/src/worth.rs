//! What a payment is worth, and why it is worth nothing.

pub mod session;
pub mod invoice;

use crate::amount::Credits;
use crate::catalog::Item;
use crate::fetched::Fetched;
use crate::reason::Reason;

/// The most credits that one payment may grant: far above any sale, far below what a bigint of balances can hold.
pub const MAX_PAYMENT_CREDITS: Credits = Credits(1_000_000_000_000_000);

/// Why a session grants nothing, so far or at all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NoGrant {
    /// Nothing to grant; judged again when something new is known.
    Ignored(Reason),
    /// Stripe is to be asked for these paths.
    NeedsFetch(Vec<String>),
    /// To be kept until what it lacks is known; the items are what the catalog does not know.
    Parked(Reason, Vec<Item>),
    /// Refused for good.
    Rejected(Reason),
}

/// What to do about something that the event lacks: ask Stripe for it, or where that was done, wait.
#[must_use]
pub fn fetch_or_park(fetched: Option<&Fetched>, path: String) -> NoGrant {
    match fetched {
        None => NoGrant::NeedsFetch(vec![path]),
        Some(answer) if !answer.asked() => NoGrant::Parked(Reason::Unfetched, Vec::new()),
        Some(_) => NoGrant::Parked(Reason::Shape, Vec::new()),
    }
}
