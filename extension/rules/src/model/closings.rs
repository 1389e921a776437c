//! What sets credits aside: a later period that opens, the end of a part, a plan that went down by status alone.

use super::facts::Facts;
use super::grants::{Grant, Key};
use super::lay;
use super::lines::Kind;
use super::lines::World;
use super::number::whole;
use super::periods::{Origin, Period};
use super::subscription;

/// A moment at which of what is left of some grants only so much stays.
#[derive(Debug, Clone)]
pub(super) struct Closing {
    pub(super) at: i64,
    /// By what a draw tells whether it was made before or after.
    pub(super) ids: Vec<String>,
    /// The grants, those first that keep first: "newest first".
    pub(super) grants: Vec<Key>,
    /// How much stays, of all of them together.
    pub(super) stays: i64,
    pub(super) cause: Cause,
}

/// What closes grants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cause {
    /// The end of a part: what is given back afterwards lapses as well.
    PartEnd,
    /// A later period, which ends the parts that had not begun. What is given back afterwards "stays until the next
    /// opening", as does what is paid afterwards.
    Opening,
    /// A limit, which holds for what is paid afterwards as well.
    Limit,
}

impl Closing {
    /// Trial credits "end when a paid period of that item opens".
    pub(super) fn of_trial(at: i64) -> Closing {
        Closing {
            at,
            ids: vec!["end of the trial".to_owned()],
            grants: vec![Key::Trial],
            stays: 0,
            cause: Cause::Limit,
        }
    }
}

/// The closings that parts and openings have brought.
pub(super) fn closings(world: &World, periods: &[Period], grants: &[Grant], now: i64) -> Vec<Closing> {
    let mut closings = Vec::new();
    for grant in grants {
        // "What is left of a month lapses"; "a part that is paid after its end stays until the end of the part that runs
        // then", which is the end of one of the parts that follow it.
        for end in grant.part_ends.iter().filter(|end| **end <= now) {
            closings.push(Closing {
                at: *end,
                ids: vec![format!("end of a part at {end}")],
                grants: vec![grant.key.clone()],
                stays: 0,
                cause: Cause::PartEnd,
            });
        }
    }
    for opening in openings(periods, now) {
        let grants = older_grants(world.facts, periods, grants, &opening);
        closings.push(Closing {
            at: opening.at,
            ids: vec![opening.id.clone()],
            grants,
            stays: opening.rollover,
            cause: Cause::Opening,
        });
    }
    closings
}

/// A period of a plan that has opened.
pub(super) struct Opening<'a> {
    pub(super) period: &'a Period,
    pub(super) at: i64,
    id: String,
    /// "The opening price's `max_rollover` (0 under `renewal: reset`)."
    rollover: i64,
}

/// "When a period opens: at its start or when it was first paid, whichever is later." "One whose start is not after its
/// paid_at has begun, whatever the database's clock says."
pub(super) fn openings(periods: &[Period], now: i64) -> Vec<Opening<'_>> {
    let mut openings = Vec::new();
    for period in periods.iter().filter(|period| !period.is_purchased && period.origin != Origin::Credit) {
        let Some(paid_at) = period.first_paid_at() else { continue };
        if period.start > now.max(paid_at) || was_given_back(period) {
            continue;
        }
        let plans = || period.openers().filter_map(|line| line.sold.plan());
        let item = period.openers().filter_map(|line| line.item.as_deref()).min().unwrap_or_default();
        openings.push(Opening {
            period,
            at: period.start.max(paid_at),
            id: format!("{} {item} {} {}", period.stream.subscription, period.start, period.end),
            rollover: plans().map(|price| price.plan.rollover.unwrap_or(0)).max().unwrap_or(0),
        });
    }
    openings.sort_by_key(|opening| (opening.at, opening.period.start));
    openings
}

/// "A period that credit lines gave back from its start to its end displaces nothing."
fn was_given_back(period: &Period) -> bool {
    let entries = lay::entries(period, &period.parts());
    let worth = entries.values().flatten().fold(whole(0), |sum, entry| sum + &entry.worth);
    let from_start_to_end = period.lines.iter().any(|placed| {
        placed.line.kind == Kind::Credit && (placed.line.start, placed.line.end) == (period.start, period.end)
    });
    worth <= whole(0) && from_start_to_end
}

/// The grants of "the stream's earlier periods", newest first. "Periods with one start do not displace each other."
/// Those of a canceled subscription are older periods of every later subscription: "one whose first period starts after
/// the canceled one's first".
fn older_grants(facts: &Facts, periods: &[Period], grants: &[Grant], opening: &Opening) -> Vec<Key> {
    let later = opening.period;
    let first = |subscription: &str| first_start(periods, subscription);
    let is_older = |key: &Key| {
        let Key::Period { stream, is_purchased: false, start, .. } = key else { return false };
        if stream.subscription == later.stream.subscription {
            return *stream == later.stream && *start < later.start;
        }
        let states = facts.subscriptions.get(&stream.subscription);
        let newest = states.and_then(|states| subscription::newest(states));
        let was_canceled = newest.and_then(|state| state.ended_at).is_some_and(|ended| ended <= opening.at);
        was_canceled
            && *start < later.start
            && first(&stream.subscription) < first(&later.stream.subscription)
    };
    let mut older: Vec<&Grant> = grants.iter().filter(|grant| is_older(&grant.key)).collect();
    older.sort_by_key(|grant| std::cmp::Reverse(grant.starts));
    older.into_iter().map(|grant| grant.key.clone()).collect()
}

fn first_start(periods: &[Period], subscription: &str) -> Option<i64> {
    let its = periods.iter().filter(|period| {
        period.stream.subscription == subscription && !period.is_purchased && period.origin != Origin::Credit
    });
    its.map(|period| period.start).min()
}

/// When the first paid period of the trial's item opened after it.
pub(super) fn end_of_trial(
    openings: &[Opening],
    trial: &Grant,
    stream: &subscription::Stream,
) -> Option<i64> {
    let its = openings.iter().filter(|opening| opening.period.stream == *stream);
    its.filter(|opening| opening.period.start > trial.starts).map(|opening| opening.at).min()
}

/// When the next period of its item opens, for each period of a plan.
pub(super) fn next_opening(openings: &[Opening], period: &Period) -> Option<i64> {
    let its = openings
        .iter()
        .filter(|opening| opening.period.stream == period.stream && opening.period.start > period.start);
    its.map(|opening| opening.at).min()
}
