//! When something is set aside or expires, and of which grants (rule 7).

use std::collections::BTreeMap;

use super::downgrade::limit;
use super::facts::{Facts, GrantKey, Period, SubscriptionState};
use super::lines::Billed;
use super::lots::{Lot, Lots, PeriodOpening};
use super::succession::{StreamId, Streams};
use crate::calendar::Time;
use crate::lot::Pool;

/// Why credits go. At one time they go in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Cause {
    /// A grant's own time is over.
    Ended,
    /// A later period opened.
    Opened,
    /// Its subscription was canceled, under `cancellation: expire`.
    Canceled,
    /// The plan went down by status alone.
    WentDown,
}

/// One moment at which at most so many credits of some grants, taken together, stay.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Sweep {
    pub(super) at: Time,
    pub(super) cause: Cause,
    /// When it became known that this happens: what was drawn before that stands before it.
    pub(super) known_at: Time,
    /// Whether it has happened although its time has not come by the database's clock.
    pub(super) is_due: bool,
    /// The grants, in the order in which they keep what stays.
    pub(super) grants: Vec<GrantKey>,
    pub(super) stays: i128,
    /// The grants of the period that opened, and of later ones: from these was drawn while an earlier one was not known.
    pub(super) instead: Vec<GrantKey>,
}

impl Sweep {
    /// One that nothing stays at.
    fn new(at: Time, cause: Cause, known_at: Time, grants: Vec<GrantKey>) -> Sweep {
        Sweep { at, cause, known_at, is_due: false, grants, stays: 0, instead: Vec::new() }
    }

    /// Whether it has happened by now.
    pub(super) fn has_come(&self, now: Time) -> bool {
        self.at <= now || self.is_due
    }
}

/// All sweeps, past and to come, in order.
pub(super) fn sweeps(facts: &Facts, billed: &[Billed], streams: &Streams, lots: &Lots) -> Vec<Sweep> {
    let canceled = Cancellations::of(facts, billed, streams);
    let mut sweeps = endings(lots);
    for (&(stream, period), lines) in &lots.periods {
        if let Some(opening) = lines.opening {
            sweeps.push(opened(stream, period, opening, lots, &canceled));
        }
        let own = || grants_of(lots, stream, period);
        if let Some((at, known_at)) = canceled.expiry(stream, period, lots) {
            sweeps.push(Sweep::new(at, Cause::Canceled, known_at, own().collect()));
        }
        if let Some(limit) = limit(facts, billed, streams, stream, period) {
            // Of each part at most so much stays, not of all of them together.
            sweeps.extend(own().map(|grant| Sweep {
                stays: limit.stays,
                ..Sweep::new(limit.at, Cause::WentDown, limit.known_at, vec![grant])
            }));
        }
    }
    sweeps
        .sort_by(|one, other| (one.at, one.cause, &one.grants).cmp(&(other.at, other.cause, &other.grants)));
    sweeps
}

/// The subscription grants of a period.
fn grants_of(lots: &Lots, stream: StreamId, period: Period) -> impl Iterator<Item = GrantKey> {
    lots.lots
        .values()
        .filter(move |lot| lot.of == Some((stream, period)) && lot.pool == Pool::Subscription)
        .map(|lot| lot.key.clone())
}

/// Grants whose own time ends. What is paid for a part after its end stays until the end of the part that runs then.
fn endings(lots: &Lots) -> Vec<Sweep> {
    let mut ends: BTreeMap<(StreamId, Period), Vec<Time>> = BTreeMap::new();
    for lot in lots.lots.values() {
        if let (Some(of), Some(end)) = (lot.of, lot.ends) {
            ends.entry(of).or_default().push(end);
        }
    }
    let mut sweeps = Vec::new();
    for lot in lots.lots.values() {
        let Some(end) = lot.ends else { continue };
        let of_period = lot.of.and_then(|of| ends.get(&of)).into_iter().flatten();
        let mut times: Vec<Time> = of_period.copied().filter(|time| *time > end).chain([end]).collect();
        times.sort_unstable();
        times.dedup();
        let over = |at| Sweep::new(at, Cause::Ended, Time::MIN_UTC, vec![lot.key.clone()]);
        sweeps.extend(times.into_iter().map(over));
    }
    sweeps
}

/// A period opens: of what earlier periods of its stream were paid for before, and of what canceled subscriptions left, at
/// most `max_rollover` stays, newest first.
fn opened(
    stream: StreamId,
    period: Period,
    opening: PeriodOpening,
    lots: &Lots,
    canceled: &Cancellations,
) -> Sweep {
    let of_plans = || lots.lots.values().filter(|lot| lot.pool == Pool::Subscription);
    let is_later = |lot: &&Lot| lot.of.is_some_and(|(of, other)| of == stream && other.start >= period.start);
    let is_earlier = |lot: &&Lot| match lot.of {
        Some((of, before)) if of == stream => before.start < period.start,
        Some((of, _)) => canceled.precedes(of, stream, opening.at),
        None => false,
    };
    let mut earlier: Vec<&Lot> = of_plans().filter(is_earlier).collect();
    earlier.sort_by_key(|lot| {
        let end = lot.of.map(|(_, period)| period.end);
        (std::cmp::Reverse((end, lot.begins)), lot.key.clone())
    });
    let keys = |lot: &Lot| lot.key.clone();
    Sweep {
        // A period that starts no later than it was paid has begun: Stripe's clock may be ahead.
        is_due: period.start <= opening.paid_at,
        stays: i128::from(opening.max_rollover.0),
        instead: of_plans().filter(is_later).map(keys).collect(),
        ..Sweep::new(opening.at, Cause::Opened, opening.known_at, earlier.into_iter().map(keys).collect())
    }
}

/// What canceled subscriptions leave.
struct Cancellations<'a> {
    /// Of each stream: its subscription's newest state.
    states: Vec<Option<&'a SubscriptionState>>,
    /// Of each stream: when its subscription's first period started.
    began: Vec<Option<Time>>,
    /// Of each stream: its subscription.
    subscriptions: Vec<&'a str>,
}

impl<'a> Cancellations<'a> {
    fn of(facts: &'a Facts, billed: &[Billed], streams: &'a Streams) -> Cancellations<'a> {
        let subscriptions: Vec<&str> = streams.ids().map(|id| streams.subscription(id)).collect();
        let states: BTreeMap<&str, &SubscriptionState> =
            facts.subscriptions.iter().map(|state| (state.id.as_str(), state)).collect();
        let mut began: BTreeMap<&str, Time> = BTreeMap::new();
        let opening = billed.iter().filter(|line| line.opens_periods());
        let loaded = opening.map(|line| (subscriptions[line.stream], line.period().start));
        let earlier = facts
            .subscriptions
            .iter()
            .filter_map(|state| Some((state.id.as_str(), state.first_period_start?)));
        for (subscription, start) in loaded.chain(earlier) {
            began.entry(subscription).and_modify(|first| *first = start.min(*first)).or_insert(start);
        }
        Cancellations {
            states: subscriptions.iter().map(|id| states.get(id).copied()).collect(),
            began: subscriptions.iter().map(|id| began.get(id).copied()).collect(),
            subscriptions,
        }
    }

    /// When the credits of a period expire, under `cancellation: expire`, and when that became known. A period that was
    /// billed ahead, for a time after the end, still comes and goes with its own time.
    fn expiry(&self, stream: StreamId, period: Period, lots: &Lots) -> Option<(Time, Time)> {
        let state = self.states[stream]?;
        if !lots.periods.get(&(stream, period))?.expires_when_canceled {
            return None;
        }
        let at = state.ends_at?;
        Some((if period.start < at { at } else { period.end }, state.known_at))
    }

    /// Whether a stream's periods are older ones for a period of another stream that opens: its subscription was canceled
    /// by then, and the other one began later.
    fn precedes(&self, earlier: StreamId, stream: StreamId, opened_at: Time) -> bool {
        let Some(state) = self.states[earlier].filter(|state| state.is_over) else { return false };
        self.subscriptions[earlier] != self.subscriptions[stream]
            && state.ended_at.unwrap_or(state.as_of) <= opened_at
            && self.began[earlier].is_some()
            && self.began[stream] > self.began[earlier]
    }
}
