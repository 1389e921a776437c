//! Plan credits (rules 5, 7 and 9): from facts to what every grant should hold, as one pure function.
//!
//! A *line* is what an invoice bills, a *period* is what a line opens, a *stream* is one subscription item. [`holdings`]
//! answers one [`Target`] for each grant; the ledger posts the difference to what it holds.

use crate::amount::Credits;
use crate::calendar::Time;
use crate::lot::Pool;

pub mod facts;
pub mod horizon;

use facts::{Draw, Facts, GrantKey, Period, StreamKey};

/// What all grants of a user should hold.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Holdings {
    /// One per grant that has a line, or from which something was drawn, by key.
    pub targets: Vec<Target>,
    /// When each period of each stream opens or opened; periods that were reversed whole do not.
    pub openings: Vec<Opening>,
    /// When time alone next changes something: a period opens, a part comes, a grant expires.
    pub next_change: Option<Time>,
}

/// What one grant should hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// The grant.
    pub key: GrantKey,
    /// Where it counts.
    pub pool: Pool,
    /// What its facts are worth: the `amount` of its row. Below 0 if more was credited than was paid.
    pub worth: Credits,
    /// Drawn by spends, reservations and settlements, less what was given back.
    pub drawn: Credits,
    /// Kept back: a later period opened, or the plan went down.
    pub set_aside: Credits,
    /// Gone with its time.
    pub expired: Credits,
    /// What is left: counts in the balance if `state` is [`State::Open`].
    pub remaining: Credits,
    /// Drawn beyond `worth`, without what is forgiven.
    pub owed: Credits,
    /// Where it is in its own time.
    pub state: State,
    /// When it can be spent from.
    pub available_from: Time,
    /// When it expires; `None`: never.
    pub expires_at: Option<Time>,
    /// When what is left would be lost, if that is foreseeable: the draw order (rule 8).
    pub priority_at: Option<Time>,
    /// Since when nothing is left of it that could be set aside or expire; `None` while something is.
    pub closed_at: Option<Time>,
    /// The payments that it counts, the earliest first.
    pub payments: Vec<String>,
}

/// Where a grant is in its own time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Its time has not come.
    ToCome,
    /// It can be spent from.
    Open,
    /// Its time is over.
    Expired,
    /// Its time will not come: credited, refunded, replaced or expired before it began.
    Ended,
}

/// When a period opens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Opening {
    /// The stream: the first of its items, if one took over from another.
    pub stream: StreamKey,
    /// The period.
    pub period: Period,
    /// At its start or when it was first paid, whichever is later.
    pub opened_at: Time,
}

/// Facts that no calendar or bigint can hold.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OutOfRange {
    /// More credits than a bigint holds.
    #[error("grant {0} is worth more than can be held")]
    Credits(GrantKey),
    /// A time past the calendar's end.
    #[error("the interval of a line that ends {0} leaves the calendar")]
    Calendar(Time),
}

/// What every grant should hold by `now`, given the facts that are known and what was drawn so far.
///
/// # Errors
/// [`OutOfRange`] where a number or a time cannot be held.
pub fn holdings(facts: &Facts, draws: &[Draw], now: Time) -> Result<Holdings, OutOfRange> {
    let _ = (facts, draws, now);
    Ok(Holdings::default())
}

/// What is owed of all grants together, before settlements (rule 9).
#[must_use]
pub fn owed(targets: &[Target]) -> Credits {
    Credits(targets.iter().map(|target| target.owed.0).sum())
}
