//! The plan goes down by status alone (rule 7): a state of the subscription gives an item less than its lines bill.

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

/// What the newest state says of an item.
struct Stated {
    /// Credits × quantity, of one interval or part.
    level: i128,
    /// The same, per month.
    rate: Share,
    /// Whether it is in the subscription's list.
    is_listed: bool,
    /// Since when without a break, and when that became known.
    since: (Time, Time),
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
    let stated = stated_of_stream(facts, subscription, items)?;
    // What a cancellation leaves is the cancellation policy's.
    let is_by_the_end = subscription.is_over && subscription.ended_at.unwrap_or(as_of) <= stated.since.0;
    // A state speaks of the periods that run at its time. What an earlier one set aside is back once they are over, but what
    // one kept until the end of a period is gone then.
    let was_removed = !stated.is_listed && runs(stated.since.0);
    if is_by_the_end || !runs(as_of) && !was_removed {
        return None;
    }
    let own = || billed.iter().filter(|line| line.stream == stream && line.period().start < period.end);
    let standing = || own().filter(|line| line.counts && !line.payment.is_reversed_whole());
    // Charges of 0 bill nothing that a state could fall short of, but they account for what it says.
    let paid = Bill::latest(standing().filter(|line| line.amount != 0))?;
    let accounted = Bill::latest(standing())?;
    if as_of < accounted.start || stated.rate >= paid.rate() || stated.rate >= accounted.rate() {
        return None;
    }
    let known_at = paid.charges.iter().map(|line| line.payment.known_at).min()?.max(stated.since.1);
    if paid.charges.iter().find(|line| line.is_plan())?.line.terms.keeps_on_change {
        let removed = Limit { at: period.end, known_at, stays: 0 };
        return was_removed.then_some(removed);
    }
    runs(as_of).then_some(Limit { at: stated.since.0.max(paid.start), known_at, stays: stated.level })
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

/// What states say of a stream: of the last of its items; lines that name no item are about all items together.
fn stated_of_stream(facts: &Facts, subscription: &SubscriptionState, items: &[StreamKey]) -> Option<Stated> {
    if let Some(item) = items.iter().rev().find_map(|item| item.item.as_deref()) {
        return stated(facts, subscription, item);
    }
    let of_subscription = facts.items.iter().filter(|state| state.subscription == subscription.id);
    let mut all: Vec<&str> = of_subscription.map(|state| state.item.as_str()).collect();
    all.sort_unstable();
    all.dedup();
    let each = all.into_iter().map(|item| stated(facts, subscription, item));
    each.reduce(|sum, one| Some(sum?.and(one?)))?
}

/// What the newest state says of an item; `None` if it names a price that the catalog does not know.
fn stated(facts: &Facts, subscription: &SubscriptionState, item: &str) -> Option<Stated> {
    let mut states: Vec<&ItemState> = facts
        .items
        .iter()
        .filter(|state| state.subscription == subscription.id && state.item == *item)
        .collect();
    states.sort_by_key(|state| state.as_of);
    let Some(newest) = states.last() else {
        // No list ever had it.
        let since = (subscription.listed_since?, subscription.known_at);
        return Some(Stated { level: 0, rate: whole(0), is_listed: false, since });
    };
    let unbroken = states.iter().rev().take_while(|state| is_same(&state.content, &newest.content));
    let (since, known_at) = unbroken.fold((newest.as_of, newest.known_at), |(since, known_at), state| {
        (since.min(state.as_of), known_at.min(state.known_at))
    });
    let (level, rate) = worth_of(&newest.content)?;
    let is_listed = newest.content != ItemContent::Removed;
    Some(Stated { level, rate, is_listed, since: (since, known_at) })
}

impl Stated {
    /// Of two items together.
    fn and(self, other: Stated) -> Stated {
        Stated {
            level: self.level + other.level,
            rate: self.rate + other.rate,
            is_listed: self.is_listed || other.is_listed,
            since: self.since.max(other.since),
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

/// Whether two states of an item say the same: the catalog's terms are no part of what Stripe says.
fn is_same(one: &ItemContent, other: &ItemContent) -> bool {
    match (one, other) {
        (ItemContent::Removed, ItemContent::Removed) => true,
        (
            ItemContent::Listed { price, quantity, .. },
            ItemContent::Listed { price: other_price, quantity: other_quantity, .. },
        ) => price == other_price && quantity == other_quantity,
        _ => false,
    }
}
