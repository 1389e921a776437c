//! Which subscription items are one stream.
//!
//! A schedule's phase or the customer portal may replace an item by another one. The new item goes on with the stream of
//! the old one if both changes are in one state of the subscription.

use std::collections::{BTreeMap, BTreeSet};

use super::facts::{Facts, ItemContent, ItemState, StreamKey, Terms};
use super::intervals::months;
use super::share::{Share, whole};
use crate::calendar::Time;
use crate::catalog::PriceKind;

/// The index of a stream in [`Streams`].
pub(super) type StreamId = usize;

/// Every stream, as the chain of its items: each took over from the one before.
#[derive(Debug, Default)]
pub(super) struct Streams {
    chains: Vec<Vec<StreamKey>>,
    places: BTreeMap<StreamKey, (StreamId, usize)>,
}

impl Streams {
    /// The streams of all lines and states.
    pub(super) fn of(facts: &Facts) -> Streams {
        let lines = facts.lines.iter().chain(&facts.first_lines).filter_map(|line| {
            Some(StreamKey { subscription: line.subscription.clone()?, item: line.item.clone() })
        });
        let items = facts.items.iter().map(stream_key);
        let keys: BTreeSet<StreamKey> = lines.chain(items).collect();
        let mut successors = item_successors(facts);
        successors.extend(direct_successors(facts));
        let successors: BTreeMap<&StreamKey, &StreamKey> =
            successors.iter().map(|(old, new)| (old, new)).collect();
        let taken_over: BTreeSet<&StreamKey> = successors.values().copied().collect();
        let mut streams = Streams::default();
        for key in keys.iter().filter(|key| !taken_over.contains(key)) {
            streams.add(std::iter::successors(Some(key), |key| successors.get(key).copied()));
        }
        streams
    }

    fn add<'a>(&mut self, chain: impl Iterator<Item = &'a StreamKey>) {
        let (id, mut items) = (self.chains.len(), Vec::new());
        for key in chain {
            // Two items cannot be followed by one; what nonsense makes of it must still end.
            if self.places.contains_key(key) {
                break;
            }
            self.places.insert(key.clone(), (id, items.len()));
            items.push(key.clone());
        }
        self.chains.push(items);
    }

    /// The stream of an item.
    pub(super) fn id(&self, key: &StreamKey) -> Option<StreamId> {
        self.places.get(key).map(|(id, _)| *id)
    }

    /// How many items of its stream came before this one.
    pub(super) fn place(&self, key: &StreamKey) -> usize {
        self.places.get(key).map_or(0, |(_, place)| *place)
    }

    /// Every stream.
    pub(super) fn ids(&self) -> impl Iterator<Item = StreamId> {
        0..self.chains.len()
    }

    /// The subscription of a stream.
    pub(super) fn subscription(&self, id: StreamId) -> &str {
        &self.chains[id][0].subscription
    }

    /// The items of a stream, the first one first.
    pub(super) fn items(&self, id: StreamId) -> &[StreamKey] {
        &self.chains[id]
    }
}

fn stream_key(state: &ItemState) -> StreamKey {
    StreamKey { subscription: state.subscription.clone(), item: Some(state.item.clone()) }
}

/// Of every item that another one took over from: that one.
fn item_successors(facts: &Facts) -> Vec<(StreamKey, StreamKey)> {
    let mut states: Vec<&ItemState> = facts.items.iter().collect();
    states.sort_by_key(|state| state.as_of);
    let mut listed: BTreeMap<StreamKey, &ItemState> = BTreeMap::new();
    let mut seen: BTreeSet<StreamKey> = BTreeSet::new();
    let (mut gone, mut come): (Changes, Changes) = Default::default();
    for state in states {
        let (key, at) = (stream_key(state), (state.subscription.clone(), state.as_of));
        match state.content {
            ItemContent::Removed => {
                if let Some(before) = listed.remove(&key) {
                    gone.entry(at).or_default().push(before);
                }
            }
            ItemContent::Listed { .. } => {
                if seen.insert(key.clone()) && had_a_list_before(facts, state) {
                    come.entry(at).or_default().push(state);
                }
                listed.insert(key, state);
            }
        }
    }
    gone.into_iter()
        .filter_map(|(at, gone)| Some((gone, come.remove(&at)?)))
        .flat_map(|(gone, come)| paired(gone, come))
        .collect()
}

/// What happened to items in one state of a subscription.
type Changes<'a> = BTreeMap<(String, Time), Vec<&'a ItemState>>;

/// Whether an item was absent from an earlier complete list, so that its first state says that it is new.
fn had_a_list_before(facts: &Facts, state: &ItemState) -> bool {
    let subscription = facts.subscriptions.iter().find(|subscription| subscription.id == state.subscription);
    subscription.and_then(|subscription| subscription.listed_since).is_some_and(|since| since < state.as_of)
}

/// Pairs removed and new items of one state: of one price first, then by how much they are worth.
fn paired(mut gone: Vec<&ItemState>, mut come: Vec<&ItemState>) -> Vec<(StreamKey, StreamKey)> {
    let mut pairs = Vec::new();
    gone.sort_by_key(|state| (std::cmp::Reverse(rate(state)), state.item.clone()));
    come.sort_by_key(|state| (std::cmp::Reverse(rate(state)), state.item.clone()));
    for alike in [same_price, same_kind] {
        gone.retain(|old| {
            let Some(at) = come.iter().position(|new| alike(old, new)) else { return true };
            pairs.push((stream_key(old), stream_key(come.remove(at))));
            false
        });
    }
    pairs
}

fn terms(state: &ItemState) -> Option<(&Terms, i64)> {
    match &state.content {
        ItemContent::Listed { terms: Some(terms), quantity, .. } => Some((terms, *quantity)),
        _ => None,
    }
}

/// Credits per month, only to bring items into an order.
fn rate(state: &ItemState) -> Share {
    terms(state).map_or(whole(0), |(terms, quantity)| {
        whole(i128::from(terms.credits.0) * i128::from(quantity)) / months(terms.drip.unwrap_or(terms.every))
    })
}

fn same_price(old: &ItemState, new: &ItemState) -> bool {
    let price = |state: &ItemState| match &state.content {
        ItemContent::Listed { price, .. } => Some(price.clone()),
        ItemContent::Removed => None,
    };
    price(old) == price(new)
}

/// A pack never goes on with a plan's stream, nor the other way round.
fn same_kind(old: &ItemState, new: &ItemState) -> bool {
    let kind = |state: &ItemState| terms(state).map(|(terms, _)| terms.kind == PriceKind::Pack);
    kind(old) == kind(new)
}

/// A direct call names no item. If an invoice's line replaces the call's, the item goes on with the calls' stream.
fn direct_successors(facts: &Facts) -> Vec<(StreamKey, StreamKey)> {
    let is_direct = |id: &str| facts.payments.iter().any(|payment| payment.direct && payment.id == id);
    let calls = facts.lines.iter().filter(|line| line.item.is_none() && is_direct(&line.payment));
    let mut pairs = BTreeMap::new();
    for call in calls {
        let replacing = facts.lines.iter().filter(|line| line.replaces(call) && !is_direct(&line.payment));
        let item = replacing.filter_map(|line| line.item.clone()).min();
        if let (Some(subscription), Some(item)) = (call.subscription.clone(), item) {
            let calls = StreamKey { subscription: subscription.clone(), item: None };
            pairs.entry(calls).or_insert(StreamKey { subscription, item: Some(item) });
        }
    }
    pairs.into_iter().collect()
}
