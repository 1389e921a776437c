//! How far back facts must be loaded, so that an event recomputes a customer's streams and not their history.

use crate::calendar::Time;

/// A grant of a stream, as far as it decides how far back to load.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extent {
    /// The start of its period.
    pub start: Time,
    /// The end of its period.
    pub end: Time,
    /// [`Target::closed_at`](super::Target::closed_at).
    pub closed_at: Option<Time>,
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

/// The horizon: lines whose period ends at it or later must be loaded, and targets of periods that start before it are
/// sealed: they stand as their rows say and are not to be posted.
///
/// `touched_from` is the earliest time that a new fact says something about: the start of a line, also of a payment that
/// was reversed; the `as_of` of a state; for a draw, or what time alone causes, the time itself.
#[must_use]
pub fn horizon(grants: impl IntoIterator<Item = Extent>, touched_from: Time) -> Time {
    let open = grants.into_iter().filter(|grant| grant.is_open(touched_from)).map(|grant| grant.start);
    open.min().map_or(touched_from, |start| start.min(touched_from))
}
