//! What a payment grants, or why it grants nothing.

pub mod session;
pub mod pack_invoice;
pub mod invoice;

use crate::amount::Credits;
use crate::catalog::Item;
use crate::fetched::Fetched;
use crate::reason::Reason;

/// The most credits that one payment may grant: far above any sale, far below what a bigint of balances can hold.
pub const MAX_PAYMENT_CREDITS: Credits = Credits(1_000_000_000_000_000);

/// Why a payment grants nothing, for now or for good.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NoGrant {
    /// There is nothing to grant. It is judged again when more is known.
    Ignored(Reason),
    /// The caller has to fetch these paths from Stripe.
    NeedsFetch(Vec<String>),
    /// It waits for what it lacks; the items are those that the catalog does not know.
    Parked(Reason, Vec<Item>),
    /// Refused for good.
    Rejected(Reason),
}

/// What to do if an event lacks something: fetch it from Stripe, or park the event if that was tried.
#[must_use]
pub fn fetch_or_park(fetched: Option<&Fetched>, path: String) -> NoGrant {
    match fetched {
        None => NoGrant::NeedsFetch(vec![path]),
        Some(answer) if !answer.was_fetched() => NoGrant::Parked(Reason::Unfetched, Vec::new()),
        Some(_) => NoGrant::Parked(Reason::Shape, Vec::new()),
    }
}

/// Worth more credits than an account can hold.
const OUT_OF_RANGE: NoGrant = NoGrant::Rejected(Reason::OutOfRange);
