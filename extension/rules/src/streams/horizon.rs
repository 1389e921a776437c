//! How far back facts must be loaded, so that an event recomputes a customer's streams and not their history.
//!
//! For a [`horizon`], load into [`Facts`](super::facts::Facts):
//!
//! - all lines whose period ends at the horizon or later, with their payments;
//! - as `first_lines`, of older lines, those of the earliest purchase that still stands, and the earliest line of 0 of a plan
//!   with trial credits;
//! - every subscription, with the start of a plan's first standing charge as `first_period_start`;
//! - of an item that was removed all states, since they say what took over from it and from what it did, which is seen nowhere
//!   else; of any other item the first state, that of the time when the earliest loaded line begins, and the later ones;
//! - the horizon itself;
//! - of packs and gifts those that the event is about;
//! - the draws of all grants whose facts are loaded, and of no others.
//!
//! Post the targets that are not sealed: those without a period, and those whose period starts at the horizon or later.
//! Everything else stands as its row says.

use crate::calendar::Time;

/// A grant of a stream, or the trial, as far as it decides how far back to load.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extent {
    /// The start of its period; of the trial, when it can be spent from.
    pub start: Time,
    /// The end of its period; of the trial, when it expires.
    pub end: Time,
    /// [`Target::closed_at`](super::Target::closed_at).
    pub closed_at: Option<Time>,
    /// [`Target::needed_by`](super::Target::needed_by).
    pub needed_by: Option<Time>,
}

impl Extent {
    /// Whether a fact that changes something from `touched_from` on can change what this grant holds.
    ///
    /// As SQL: `closed_at is null or closed_at >= touched_from or period_end >= touched_from`.
    #[must_use]
    pub fn is_open(&self, touched_from: Time) -> bool {
        self.end >= touched_from || self.closed_at.is_none_or(|closed_at| closed_at >= touched_from)
    }
}

/// The horizon: targets of periods that start before it are sealed.
///
/// `touched_from` is the earliest time that a new fact says something about: the start of a line, also of a payment that
/// was reversed; the `as_of` of a state, and of the state that it is newer than; the start of the period to which something is given back; for what time alone
/// causes, now.
///
/// As SQL: the earliest `period_start` of open grants, and then, until nothing changes, of those with `needed_by >= horizon`.
#[must_use]
pub fn horizon(grants: impl IntoIterator<Item = Extent>, touched_from: Time) -> Time {
    let grants: Vec<Extent> = grants.into_iter().collect();
    let open = grants.iter().filter(|grant| grant.is_open(touched_from)).map(|grant| grant.start);
    let mut horizon = open.fold(touched_from, Time::min);
    loop {
        let needed = grants.iter().filter(|grant| grant.needed_by.is_some_and(|since| since >= horizon));
        let further = needed.map(|grant| grant.start).fold(horizon, Time::min);
        if further == horizon {
            return horizon;
        }
        horizon = further;
    }
}
