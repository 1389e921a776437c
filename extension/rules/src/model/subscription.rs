//! A subscription's states.

use serde_json::Value;

use super::json::{first_id, has_discount, integer, list, quantity, said_quantity};

/// What one event says of a subscription. "Each state of an item is kept, not the newest alone."
#[derive(Debug, Clone)]
pub(super) struct State {
    pub(super) event: String,
    /// The state's time: `event.created`.
    pub(super) as_of: i64,
    /// The same by the account's clock: "comparisons with a period use clock time on both sides".
    pub(super) at: i64,
    pub(super) status: String,
    pub(super) items: Vec<Item>,
    pub(super) is_complete: bool,
    pub(super) cancel_at: Option<i64>,
    pub(super) cancels_at_period_end: bool,
    pub(super) ended_at: Option<i64>,
    pub(super) has_discount: bool,
}

#[derive(Debug, Clone)]
pub(super) struct Item {
    pub(super) id: String,
    pub(super) price: String,
    pub(super) product: Option<String>,
    pub(super) quantity: i64,
    pub(super) period_end: Option<i64>,
}

impl State {
    /// `now` is the clock's time at the delivery, which is the state's time where a test clock is named (rule 16).
    pub(super) fn read(event: &Value, now: i64) -> State {
        let object = &event["data"]["object"];
        let as_of = integer(&event["created"]).unwrap_or(now);
        let items = list(&object["items"]["data"]);
        let has_ended = ["canceled", "incomplete_expired"].contains(&object["status"].as_str().unwrap_or(""));
        let ended_at = integer(&object["ended_at"]).or(integer(&object["canceled_at"]));
        State {
            event: event["id"].as_str().unwrap_or_default().to_owned(),
            as_of,
            at: if object["test_clock"].is_null() { as_of } else { now },
            status: object["status"].as_str().unwrap_or_default().to_owned(),
            items: items.iter().map(|item| Item::read(item, object)).collect(),
            is_complete: object["items"]["has_more"].as_bool() != Some(true),
            cancel_at: integer(&object["cancel_at"]),
            cancels_at_period_end: object["cancel_at_period_end"].as_bool().unwrap_or(false),
            ended_at: has_ended.then_some(ended_at.unwrap_or(as_of)),
            has_discount: has_discount(object),
        }
    }

    /// "`canceled` and `incomplete_expired` are final and never ambiguous", whatever second they share.
    fn rank(&self) -> (i64, bool, &str) {
        (self.as_of, self.ended_at.is_some(), &self.event)
    }
}

impl Item {
    fn read(item: &Value, subscription: &Value) -> Item {
        let price = &item["price"];
        let period_ends = [&item["current_period_end"], &subscription["current_period_end"]];
        Item {
            id: first_id(&[&item["id"]]).unwrap_or_default(),
            price: first_id(&[price, &item["plan"]]).unwrap_or_default(),
            product: first_id(&[&price["product"], &item["plan"]["product"]]),
            quantity: said_quantity(item).and_then(quantity).unwrap_or(1),
            period_end: period_ends.into_iter().find_map(integer),
        }
    }
}

/// Adds a state once, in its place in time.
pub(super) fn learn(states: &mut Vec<State>, state: State) {
    if states.iter().any(|known| known.event == state.event) {
        return;
    }
    states.push(state);
    states.sort_by(|a, b| a.rank().cmp(&b.rank()));
}

/// The newest state; a final one is the last, whatever comes after it.
pub(super) fn newest(states: &[State]) -> Option<&State> {
    states.iter().find(|state| state.ended_at.is_some()).or(states.last())
}

/// A stream: "one subscription item; lines that name none form one stream of their subscription".
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Stream {
    /// The subscription's id.
    pub subscription: String,
    /// The item's id: of items that took over from each other, the first.
    pub item: Option<String>,
}
