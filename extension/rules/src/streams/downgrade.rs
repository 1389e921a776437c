//! The plan goes down by status alone (rule 7): a state of the subscription gives an item less than its lines bill.

use std::collections::BTreeMap;

use super::facts::{Facts, ItemContent, ItemState, Period, StreamKey, SubscriptionState, Terms};
use super::intervals::months;
use super::lines::Billed;
use super::share::{Share, whole};
use super::succession::{StreamId, Streams};
use crate::calendar::{Span, Time};

/// From when how much of what is then left of a period, or of each of its parts, stays.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Limit {
    pub(super) at: Time,
    pub(super) known_at: Time,
    pub(super) stays: i128,
}

/// What a state says of a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Stated {
    /// Credits × quantity, of one interval or part.
    level: i128,
    /// The same, per month.
    rate: Share,
    /// Whether it is in the subscription's list.
    is_listed: bool,
}

/// What the states of a subscription said of a stream, in their order.
struct History(Vec<Known>);

/// What one of them said.
struct Known {
    as_of: Time,
    known_at: Time,
    /// `None`: a price that the catalog does not know.
    says: Option<Stated>,
}

/// What limits a period of a stream, if something does.
pub(super) fn limit(
    facts: &Facts,
    billed: &[Billed],
    streams: &Streams,
    stream: StreamId,
    period: Period,
) -> Option<Limit> {
    let items = streams.items(stream);
    let subscription = facts.subscriptions.iter().find(|of| of.id == items[0].subscription)?;
    let as_of = subscription.as_of;
    let runs = |at: Time| (period.start..period.end).contains(&at);
    let history = History::of(facts, subscription, items);
    let newest = history.newest()?;
    let (stated_since, _) = history.since(|stated| stated == newest)?;
    // What a cancellation leaves is the cancellation policy's.
    let is_by_the_end = subscription.is_over && subscription.ended_at.unwrap_or(as_of) <= stated_since;
    // A state speaks of the periods that run at its time. What an earlier one set aside is back once they are over, but what
    // one kept until the end of a period is gone then.
    let was_removed = !newest.is_listed && runs(stated_since);
    if is_by_the_end || !runs(as_of) && !was_removed {
        return None;
    }
    let own = || billed.iter().filter(|line| line.stream == stream && line.period().start < period.end);
    let standing = || own().filter(|line| line.counts && !line.payment.is_reversed_whole());
    // Charges of 0 bill nothing that a state could fall short of, but they account for what it says.
    let paid = Bill::latest(standing().filter(|line| line.amount != 0))?;
    let accounted = Bill::latest(standing())?;
    let bills = paid.rate().min(accounted.rate());
    let is_less = |stated: &Stated| stated.rate < bills;
    if as_of < accounted.start || !is_less(newest) {
        return None;
    }
    // The first of them, also where a later one says more or less: whoever goes down again gets nothing anew.
    let (less_since, less_known_at) = history.since(is_less)?;
    let known_at = paid.charges.iter().map(|line| line.payment.known_at).min()?.max(less_known_at);
    if paid.charges.iter().find(|line| line.is_plan())?.line.terms.keeps_on_change {
        let removed = Limit { at: period.end, known_at, stays: 0 };
        return was_removed.then_some(removed);
    }
    runs(as_of).then_some(Limit { at: less_since.max(paid.start), known_at, stays: newest.level })
}

/// What an item's latest lines bill.
struct Bill<'a> {
    start: Time,
    /// If they are credits only, they bill nothing.
    charges: Vec<&'a Billed<'a>>,
}

impl<'a> Bill<'a> {
    fn latest(lines: impl Iterator<Item = &'a Billed<'a>>) -> Option<Bill<'a>> {
        let lines: Vec<&Billed> = lines.collect();
        let start = lines.iter().map(|line| line.period().start).max()?;
        let latest = |line: &&Billed| line.period().start == start && !line.is_credit;
        Some(Bill { start, charges: lines.into_iter().filter(latest).collect() })
    }

    /// Credits × quantity, per month.
    fn rate(&self) -> Share {
        let rate = |line: &&Billed| whole(line.credits()) / months(line.drip().unwrap_or(line.interval));
        self.charges.iter().map(rate).sum()
    }
}

impl History {
    /// Of a stream, what states say of its items, of which each replaced the one before; lines that name no item are about all
    /// items of the subscription.
    fn of(facts: &Facts, subscription: &SubscriptionState, items: &[StreamKey]) -> History {
        let mut states: Vec<&ItemState> =
            facts.items.iter().filter(|state| state.subscription == subscription.id).collect();
        let named: Vec<&str> = items.iter().filter_map(|item| item.item.as_deref()).collect();
        states.retain(|state| named.is_empty() || named.contains(&state.item.as_str()));
        states.sort_by_key(|state| state.as_of);
        if let (true, Some(since)) = (states.is_empty() && !named.is_empty(), subscription.listed_since) {
            // No list ever had it.
            let says = Stated::of(&ItemContent::Removed);
            return History(vec![Known { as_of: since, known_at: subscription.known_at, says }]);
        }
        let mut now: BTreeMap<&str, Option<Stated>> = BTreeMap::new();
        let mut history = Vec::new();
        for at_once in states.chunk_by(|one, other| one.as_of == other.as_of) {
            now.extend(at_once.iter().map(|state| (state.item.as_str(), Stated::of(&state.content))));
            let says = now.values().cloned().reduce(|sum, one| Some(sum?.and(one?))).flatten();
            let known_at = at_once.iter().map(|state| state.known_at).max().unwrap_or_default();
            history.push(Known { as_of: at_once[0].as_of, known_at, says });
        }
        History(history)
    }

    fn newest(&self) -> Option<&Stated> {
        self.0.last()?.says.as_ref()
    }

    /// Since when the states have said something without a break, and when that became known.
    fn since(&self, is_said: impl Fn(&Stated) -> bool) -> Option<(Time, Time)> {
        let unbroken = self.0.iter().rev().take_while(|known| known.says.as_ref().is_some_and(&is_said));
        unbroken
            .map(|known| (known.as_of, known.known_at))
            .reduce(|one, other| (one.0.min(other.0), one.1.min(other.1)))
    }
}

impl Stated {
    /// `None` if it names a price that the catalog does not know.
    fn of(content: &ItemContent) -> Option<Stated> {
        let (level, rate) = worth_of(content)?;
        Some(Stated { level, rate, is_listed: *content != ItemContent::Removed })
    }

    /// Of two items together.
    fn and(self, other: Stated) -> Stated {
        Stated {
            level: self.level + other.level,
            rate: self.rate + other.rate,
            is_listed: self.is_listed || other.is_listed,
        }
    }
}

/// Credits × quantity of what an item is, and the same per month.
fn worth_of(content: &ItemContent) -> Option<(i128, Share)> {
    match content {
        ItemContent::Removed => Some((0, whole(0))),
        ItemContent::Listed { terms, quantity, interval, .. } => {
            let terms: Terms = (*terms)?;
            let level = i128::from(terms.credits.0) * i128::from((*quantity).max(0));
            let span: Span = terms.drip.or(*interval).unwrap_or(terms.every);
            Some((level, whole(level) / months(span)))
        }
    }
}
