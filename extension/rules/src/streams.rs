//! Plan credits (rules 5, 7 and 9): from facts to what every grant should hold, as one pure function.
//!
//! A *line* is what an invoice bills, a *period* is what a line opens, a *stream* is one subscription item. [`holdings`]
//! answers one [`Target`] for each grant; the ledger posts the difference to what it holds.
//!
//! In the order of a payment:
//!
//! 1. [`facts`]: what is known: lines, payments, states, draws; [`horizon`]: how far back it has to be loaded;
//! 2. `share`, [`intervals`]: exact shares of credits, and the calendar of billing;
//! 3. `succession`: which subscription items are one stream;
//! 4. `lines`: lines that are one, made one, and what money back leaves of each;
//! 5. `periods`: which period each line opens or changes;
//! 6. `lots`, `firsts`: what that makes of each grant, and when each period opens; the trial and the bonus;
//! 7. `downgrade`, `sweeps`: when something is set aside or expires, and of which grants;
//! 8. `targets`: worth, less what was drawn, less what was swept; and of that what former users keep;
//! 9. [`debt`]: what was drawn beyond worth, and from what it is settled.

use std::collections::BTreeMap;

use crate::amount::Credits;
use crate::calendar::Time;
use crate::lot::Pool;

pub mod facts;
pub mod horizon;
mod share;
pub mod intervals;
mod succession;
mod lines;
mod periods;
mod lots;
mod firsts;
mod downgrade;
mod sweeps;
mod targets;
pub mod debt;

use facts::{Draw, Facts, GrantKey, Period, StreamKey};
use lots::Lots;
use succession::Streams;
use sweeps::Sweep;

/// What all grants of a user should hold.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Holdings {
    /// One per grant that has a line, or from which something was drawn, by key.
    pub targets: Vec<Target>,
    /// What former users of subscriptions had drawn of them.
    pub former: Vec<FormerTarget>,
    /// When each period of each stream opens or opened; periods that were reversed whole do not.
    pub openings: Vec<Opening>,
    /// What time alone will set aside, in order, beside what expires with its grant.
    pub to_set_aside: Vec<SetAside>,
    /// When time alone may next change something: a period opens or ends, a part comes, a grant expires.
    pub next_change: Option<Time>,
}

/// A time at which at most so much of what is then left of some grants stays.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SetAside {
    /// When.
    pub at: Time,
    /// The grants, in the order in which they keep what stays.
    pub grants: Vec<GrantKey>,
    /// How much of them together.
    pub stays: Credits,
}

/// What one grant should hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// The grant.
    pub key: GrantKey,
    /// Where it counts.
    pub pool: Pool,
    /// What its facts are worth, without `kept`: the `amount` of its row. Below 0 if more was credited than was paid.
    pub worth: Credits,
    /// What of its facts' worth former users of the subscription had drawn, and keep.
    pub kept: Credits,
    /// Drawn by spends, reservations and settlements, less what was given back.
    pub drawn: Credits,
    /// Drawn from a later period's grants while this one was not known, and counted here instead: below 0 there.
    pub moved: Credits,
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
    /// Since when a period runs whose grants need this one, because of what [`moved`](Target::moved) counts here.
    pub needed_by: Option<Time>,
    /// The payments that it counts, the earliest first.
    pub payments: Vec<String>,
}

/// What a grant of a former user holds: of its facts' worth, what this user had drawn when the subscription left. A later
/// reversal takes it back last.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FormerTarget {
    /// The user, as an index of [`Facts::former`].
    pub former: usize,
    /// The grant.
    pub key: GrantKey,
    /// What it is worth: at most what was drawn until the subscription left.
    pub worth: Credits,
    /// What it would be worth without reversals that are forgiven.
    pub worth_unreversed: Credits,
    /// When credits expire that come back to it: with its period.
    pub expires_at: Option<Time>,
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

/// What every grant should hold by `now`, given the facts that are known and what was drawn so far. Grants of periods that
/// start before the facts' horizon are left out.
///
/// # Errors
/// [`OutOfRange`] where a number or a time cannot be held.
pub fn holdings(facts: &Facts, draws: &[Draw], now: Time) -> Result<Holdings, OutOfRange> {
    let streams = Streams::of(facts);
    let billed = lines::billed(facts, &streams)?;
    let mut lots = lots::lots(&billed, &streams)?;
    lots.add_all(lots::singles(facts)?);
    lots.add_all(firsts::first_purchase(facts));
    lots.add_all(firsts::trial(facts, &streams, &lots));
    if let Some(horizon) = facts.horizon {
        // Older lines are here only for what they say of newer ones: of such periods not all of them are.
        lots.lots.retain(|_, lot| !lot.is_sealed(horizon));
    }
    let sweeps = sweeps::sweeps(facts, &billed, &streams, &lots);
    let openings = openings(&lots, &streams);
    let of_grants = targets::drawn(facts, draws, &lots);
    let (targets, former) = targets::targets(lots.lots.into_values().collect(), &sweeps, &of_grants, now)?;
    let next_change = next_change(&targets, &sweeps, now);
    let to_set_aside = to_set_aside(&targets, &sweeps, now);
    Ok(Holdings { targets, former, openings, to_set_aside, next_change })
}

/// The sweeps to come of grants of which something is left or may be given back, but for those that the grants' own ends
/// tell.
fn to_set_aside(targets: &[Target], sweeps: &[Sweep], now: Time) -> Vec<SetAside> {
    let left: BTreeMap<&GrantKey, &Target> = targets
        .iter()
        .filter(|target| target.remaining > Credits::ZERO || target.drawn > Credits::ZERO)
        .map(|target| (&target.key, target))
        .collect();
    let to_come = sweeps.iter().filter(|sweep| sweep.at > now && !sweep.is_due);
    let of_left = to_come.filter_map(|sweep| {
        let is_told = |target: &Target| target.expires_at.is_some_and(|at| at > now && at <= sweep.at);
        let grants = sweep.grants.iter().filter(|grant| left.get(grant).is_some_and(|left| !is_told(left)));
        let grants: Vec<GrantKey> = grants.cloned().collect();
        let stays = Credits(i64::try_from(sweep.stays).unwrap_or(i64::MAX));
        (!grants.is_empty()).then_some(SetAside { at: sweep.at, grants, stays })
    });
    of_left.collect()
}

fn openings(lots: &Lots, streams: &Streams) -> Vec<Opening> {
    let periods = lots.periods.iter();
    let opened = periods.filter_map(|(&(stream, period), lines)| Some((stream, period, lines.opening?)));
    opened
        .map(|(stream, period, opening)| Opening {
            stream: streams.items(stream)[0].clone(),
            period,
            opened_at: opening.at,
        })
        .collect()
}

/// The next time at which a period, a part or a grant begins or ends.
fn next_change(targets: &[Target], sweeps: &[Sweep], now: Time) -> Option<Time> {
    let own = targets.iter().flat_map(|target| {
        let period_end = match target.key {
            GrantKey::Period { period, .. } => Some(period.end),
            _ => None,
        };
        [Some(target.available_from), target.expires_at, period_end].into_iter().flatten()
    });
    own.chain(sweeps.iter().map(|sweep| sweep.at)).filter(|at| *at > now).min()
}
