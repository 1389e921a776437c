//! What is known of a subscription (rule 6): its state, and the time as of which Stripe had it in that state. That
//! time has whole seconds, so of two states of one second only Stripe can say which is later.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use serde_json::value::RawValue;

use crate::amount::{MAX_QUANTITY, Quantity};
use crate::calendar::{self, Time};
use crate::catalog::{Item, Price, PriceKind};
use crate::price::{self, LinePrice};
use crate::stripe::fields::Fields;
use crate::stripe::{self, List, check_id, metadata_user, parse};
use crate::text_enum::text_enum;
use crate::user::UserNames;

/// A subscription's facts, from one object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subscription {
    /// `sub_…`.
    pub id: String,
    /// Who pays.
    pub customer_id: Option<String>,
    /// The user that the app's server wrote into the metadata.
    pub metadata_user: UserNames,
    /// What it subscribes to.
    pub items: Vec<SubscriptionItem>,
    /// Whether `items` is all of it: the object carries a list, and the list does not go on.
    pub has_all_items: bool,
    /// Stripe's status.
    pub status: Status,
    /// The current period. Since 2025-03-31 items have periods of their own: then from the earliest start to the latest
    /// end. `None` if neither has one.
    pub period: Option<(Time, Time)>,
    /// When its trial ends or ended.
    pub trial_end: Option<Time>,
    /// When it is set to end.
    pub cancel_at: Option<Time>,
    /// Whether it ends with the period.
    pub cancel_at_period_end: bool,
    /// When it ended.
    pub ended_at: Option<Time>,
    /// The test clock that its customer lives by, if any.
    pub test_clock: Option<String>,
    /// The time at which Stripe had it in this state.
    pub as_of: Time,
}

/// An item of a subscription.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SubscriptionItem {
    /// `si_…`.
    pub id: Option<String>,
    /// `None` if the item lacks it.
    pub price: Option<LinePrice>,
    /// How many; 1 of a metered price, which has none, and where the object has something else than a whole number,
    /// which Stripe does not allow.
    pub quantity: i64,
    /// Its own period, since 2025-03-31.
    pub period: Option<(Time, Time)>,
}

text_enum! {
    /// Stripe's statuses of a subscription. If two states are of the same second, the one whose status stands further
    /// down is taken: what is worth less to the user first, what is final last.
    Status {
        /// The first payment has not arrived yet.
        Incomplete => "incomplete",
        /// Stripe no longer tries to collect.
        Unpaid => "unpaid",
        /// A trial ended without a payment method.
        Paused => "paused",
        /// A payment failed and is retried.
        PastDue => "past_due",
        /// In its trial.
        Trialing => "trialing",
        /// In good standing.
        Active => "active",
        /// The first payment never arrived.
        IncompleteExpired => "incomplete_expired",
        /// It ended.
        Canceled => "canceled",
    }
}

impl Status {
    /// The statuses under which a subscription's plan is the user's tier.
    pub const NAMING_TIER: [Status; 3] = [Status::Active, Status::Trialing, Status::PastDue];

    /// The statuses that no other can follow.
    pub const FINAL: [Status; 2] = [Status::Canceled, Status::IncompleteExpired];

    /// Whether the subscription's plan is the user's tier.
    #[must_use]
    pub fn names_tier(self) -> bool {
        Status::NAMING_TIER.contains(&self)
    }

    /// Whether no other status can follow.
    #[must_use]
    pub fn is_final(self) -> bool {
        Status::FINAL.contains(&self)
    }
}

/// Reads a subscription's object as it was at `as_of`.
pub(crate) fn read(object: &RawValue, as_of: Time) -> Result<Subscription, String> {
    let subscription: stripe::SubscriptionObject = parse(object)?;
    let fields = Fields::of(object);
    check_id("data.object.id", Some(&subscription.id))?;
    let status = Status::parse(&subscription.status)
        .ok_or_else(|| format!("data.object: status {:?} is none of Stripe's", subscription.status))?;
    let start = time("current_period_start", subscription.current_period_start)?;
    let end = time("current_period_end", subscription.current_period_end)?;
    let canceled_at = time("canceled_at", subscription.canceled_at)?;
    // A subscription that has not ended has no end, whatever else the object carries.
    let ended_at = if status.is_final() {
        Some(time("ended_at", subscription.ended_at)?.or(canceled_at).unwrap_or(as_of))
    } else {
        None
    };
    let list = fields.get("items").and_then(|list| serde_json::from_str::<List<&RawValue>>(list.get()).ok());
    let has_all_items = list.as_ref().is_some_and(|list| !list.has_more);
    let items: Vec<SubscriptionItem> = list.into_iter().flat_map(|list| list.data).map(item).collect();
    Ok(Subscription {
        id: subscription.id,
        customer_id: stripe::customer_id(subscription.customer, subscription.customer_account),
        metadata_user: metadata_user(&subscription.metadata.unwrap_or_default()),
        period: start.zip(end).or_else(|| period_of(&items)),
        items,
        has_all_items,
        status,
        trial_end: time("trial_end", subscription.trial_end)?,
        cancel_at: time("cancel_at", subscription.cancel_at)?,
        cancel_at_period_end: subscription.cancel_at_period_end == Some(true),
        ended_at,
        test_clock: fields.id("test_clock"),
        as_of,
    })
}

/// Reads an item of a subscription.
pub(crate) fn item(object: &RawValue) -> SubscriptionItem {
    let item = Fields::of(object);
    SubscriptionItem {
        id: item.id("id"),
        price: price::read(&item),
        quantity: item.decimal("quantity").unwrap_or(1),
        period: item.period("current_period_start", "current_period_end"),
    }
}

/// From the earliest start to the latest end of the items' own periods.
fn period_of(items: &[SubscriptionItem]) -> Option<(Time, Time)> {
    let periods = || items.iter().filter_map(|item| item.period);
    periods().map(|(start, _)| start).min().zip(periods().map(|(_, end)| end).max())
}

fn time(field: &str, seconds: Option<i64>) -> Result<Option<Time>, String> {
    match seconds {
        None => Ok(None),
        Some(seconds) => match calendar::from_unix(seconds) {
            Some(time) => Ok(Some(time)),
            None => Err(format!("data.object: {field} is not a time")),
        },
    }
}

/// The path of a subscription.
#[must_use]
pub fn path(subscription_id: &str) -> String {
    format!("/v1/subscriptions/{subscription_id}")
}

/// The path of subscriptions' items, and the url of their lists.
pub(crate) const ITEMS: &str = "/v1/subscription_items";

/// The path that lists a subscription's items.
#[must_use]
pub fn items_path(subscription_id: &str) -> String {
    format!("{ITEMS}?subscription={subscription_id}&limit=100")
}

/// The plan of a subscription, by the catalog.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Plan {
    /// One of the catalog's plans: of several items, the one of the highest rank.
    Known {
        /// The item's price. What the catalog says may be of its product.
        price_id: String,
        /// What the catalog says.
        price: Box<Price>,
        /// How many.
        quantity: Quantity,
    },
    /// A price that the catalog does not know.
    Unknown(String, Quantity),
    /// No plan, but packs at an interval. It is kept: a price may turn out to have been listed as a pack by mistake.
    Packs,
    /// Only prices of things that are no credits.
    None,
}

impl Subscription {
    /// With the items that Stripe listed, all of them, where its own list goes on.
    #[must_use]
    pub(crate) fn with_items(self, items: Vec<SubscriptionItem>) -> Subscription {
        let is_of_items = self.period == period_of(&self.items);
        let period = if is_of_items { period_of(&items) } else { self.period };
        Subscription { items, has_all_items: true, period, ..self }
    }

    /// The paths of what this object lacks: the subscription if it has no period, and the items too if their list goes on,
    /// which it does in the fetched object as well.
    #[must_use]
    pub fn lacking_paths(&self) -> Vec<String> {
        match (self.has_all_items, self.period) {
            (true, Some(_)) => Vec::new(),
            (true, None) => vec![path(&self.id)],
            (false, _) => vec![path(&self.id), items_path(&self.id)],
        }
    }

    /// Its prices, as a catalog looks them up.
    #[must_use]
    pub fn priced(&self) -> Vec<Item> {
        self.priced_items().map(|(item, _)| item).collect()
    }

    /// The prices of which it has at least one.
    fn priced_items(&self) -> impl Iterator<Item = (Item, Quantity)> {
        self.items.iter().filter_map(|item| {
            let quantity = Quantity::new(item.quantity.min(MAX_QUANTITY))?;
            let price = item.price.clone()?;
            Some((Item::line(price.id, price.product_id), quantity))
        })
    }

    /// Its plan, by the prices in force.
    #[must_use]
    pub fn plan(&self, prices: &BTreeMap<Item, Price>) -> Plan {
        Plan::of(self.priced_items(), prices)
    }

    /// Its items, as a state keeps them.
    #[must_use]
    pub fn item_contents(&self) -> Vec<ItemContent> {
        let content = |item: &SubscriptionItem| ItemContent {
            item_id: item.id.clone(),
            price_id: item.price.as_ref().map(|price| price.id.clone()),
            quantity: item.quantity,
        };
        let mut contents: Vec<ItemContent> = self.items.iter().map(content).collect();
        contents.sort();
        contents
    }
}

impl Plan {
    /// The plan of a subscription to so many of each item, by the prices in force.
    #[must_use]
    pub fn of(items: impl IntoIterator<Item = (Item, Quantity)>, prices: &BTreeMap<Item, Price>) -> Plan {
        let items: Vec<(Item, Quantity)> = items.into_iter().collect();
        let known = items.iter().filter_map(|(item, quantity)| Some((prices.get(item)?, item, *quantity)));
        let best = known
            .filter(|(price, _, _)| price.kind == PriceKind::Plan)
            .max_by(|(a, item, n), (b, other, m)| (a.rank, item, n).cmp(&(b.rank, other, m)));
        if let Some((price, item, quantity)) = best {
            let price_id = item.name().to_owned();
            return Plan::Known { price_id, price: Box::new(price.clone()), quantity };
        }
        match items.iter().filter(|(item, _)| !prices.contains_key(item)).min() {
            Some((item, quantity)) => Plan::Unknown(item.name().to_owned(), *quantity),
            None if prices.values().any(|price| price.kind == PriceKind::Pack) => Plan::Packs,
            None => Plan::None,
        }
    }

    /// The name of the user's tier.
    #[must_use]
    pub fn tier(&self) -> String {
        match self {
            Plan::Known { price, .. } => price.key.clone(),
            Plan::Unknown(price_id, _) => format!("Unknown ({price_id})"),
            Plan::Packs | Plan::None => FREE.to_owned(),
        }
    }

    /// Its rank, by the catalog.
    #[must_use]
    pub fn rank(&self) -> Option<i32> {
        match self {
            Plan::Known { price, .. } => Some(price.rank),
            _ => None,
        }
    }

    /// The catalog's row of it: its price's, or its product's.
    #[must_use]
    pub fn catalog_id(&self) -> Option<&str> {
        match self {
            Plan::Known { price, .. } => Some(&price.price_id),
            _ => None,
        }
    }

    /// The price, and how many of it.
    #[must_use]
    pub fn priced(&self) -> (Option<&str>, Quantity) {
        match self {
            Plan::Known { price_id, quantity, .. } | Plan::Unknown(price_id, quantity) => {
                (Some(price_id), *quantity)
            }
            Plan::Packs | Plan::None => (None, Quantity::ONE),
        }
    }
}

/// The tier of a user without a plan.
pub const FREE: &str = "free";

/// A subscription's state as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SubscriptionState {
    /// The time at which Stripe had it in this state.
    pub as_of: Time,
    /// Stripe's status.
    pub status: Status,
    /// The plan's price.
    pub price_id: Option<String>,
    /// The quantity of that price.
    pub quantity: Quantity,
    /// The current period.
    pub period: (Time, Time),
    /// Its items, in their order.
    pub items: Vec<ItemContent>,
    /// When its trial ends or ended.
    pub trial_end: Option<Time>,
    /// When it is set to end.
    pub cancel_at: Option<Time>,
    /// Whether it ends with the period.
    pub cancel_at_period_end: bool,
    /// When it ended.
    pub ended_at: Option<Time>,
}

/// An item, as far as it tells two states of a subscription apart.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct ItemContent {
    /// `si_…`.
    pub item_id: Option<String>,
    /// Its price.
    pub price_id: Option<String>,
    /// How many.
    pub quantity: i64,
}

/// How an incoming state relates to the known one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Freshness {
    /// The same state.
    Same,
    /// Older than the known state, or after its end.
    Stale,
    /// Later than the known state: it replaces it.
    Newer,
    /// Another state of the same second: only Stripe can say which is later.
    Ambiguous,
}

impl SubscriptionState {
    /// Until when it runs, if it is set to end or is over: the time that is set, or else the end of its period, also if it was
    /// over before.
    #[must_use]
    pub fn ends_at(&self) -> Option<Time> {
        let with_period = self.cancel_at_period_end || self.status.is_final();
        self.cancel_at.or(with_period.then_some(self.period.1))
    }

    /// How `incoming` relates to this, the known state. A final state stays, and is never ambiguous.
    #[must_use]
    pub fn freshness_of(&self, incoming: &SubscriptionState) -> Freshness {
        if self.key() == incoming.key() {
            return if incoming.as_of > self.as_of { Freshness::Newer } else { Freshness::Same };
        }
        match (self.status.is_final(), incoming.status.is_final()) {
            (false, true) => Freshness::Newer,
            (true, true) if (incoming.as_of, incoming.key()) > (self.as_of, self.key()) => Freshness::Newer,
            (true, _) => Freshness::Stale,
            (false, false) => match incoming.as_of.cmp(&self.as_of) {
                Ordering::Less => Freshness::Stale,
                Ordering::Greater => Freshness::Newer,
                Ordering::Equal => Freshness::Ambiguous,
            },
        }
    }

    /// Decides between two ambiguous states if Stripe cannot be asked: the same one every time.
    #[must_use]
    pub fn outranks(&self, other: &SubscriptionState) -> bool {
        self.key() > other.key()
    }

    /// The state without its time, in the order in which ambiguous ones outrank each other.
    fn key(&self) -> impl Ord + '_ {
        let SubscriptionState { as_of: _, status, price_id, quantity, period, .. } = self;
        let ends = (self.cancel_at_period_end, self.cancel_at, self.trial_end, self.ended_at);
        (*status, *period, price_id, *quantity, &self.items, ends)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;
    use crate::calendar::Span;
    use crate::catalog;

    fn facts(object: &Value, as_of: i64) -> Subscription {
        let object = serde_json::value::to_raw_value(object).expect("JSON");
        read(&object, calendar::from_unix(as_of).expect("a time")).expect("a subscription")
    }

    fn object(fields: &Value) -> Value {
        let mut object = json!({
            "id": "sub_1", "object": "subscription", "status": "active", "customer": "cus_1", "metadata": {},
            "items": { "data": [{ "price": { "id": "price_pro" }, "quantity": 1 }] },
        });
        for (key, value) in fields.as_object().expect("an object") {
            object[key] = value.clone();
        }
        object
    }

    #[test]
    fn both_shapes_of_the_api_say_the_same() {
        let older = object(&json!({ "current_period_start": 1000, "current_period_end": 2000 }));
        let newer = object(&json!({ "items": { "data": [{
            "price": { "id": "price_pro" }, "quantity": 1, "current_period_start": 1000, "current_period_end": 2000,
        }] } }));
        let (older, newer) = (facts(&older, 1), facts(&newer, 1));
        assert_eq!(older.period, newer.items[0].period);
        assert_eq!(older.period, newer.period);
        assert_eq!(facts(&object(&json!({})), 1).period, None);
    }

    #[test]
    fn a_subscription_spans_the_periods_of_its_items() {
        let item = |id: &str, start: i64, end: i64| json!({ "id": id, "price": "price_1", "current_period_start": start, "current_period_end": end });
        let items =
            json!({ "data": [item("si_1", 2000, 3000), item("si_2", 1000, 2500), item("si_3", 9, 8)] });
        let read = facts(&object(&json!({ "items": items })), 1);
        assert_eq!(read.period, calendar::from_unix(1000).zip(calendar::from_unix(3000)));
        assert_eq!(read.items[2].period, None, "it ends before it starts");
        let own = json!({ "items": items, "current_period_start": 5, "current_period_end": 6 });
        assert_eq!(facts(&object(&own), 1).period, calendar::from_unix(5).zip(calendar::from_unix(6)));
    }

    #[test]
    fn an_item_is_kept_whatever_it_holds() {
        let price = json!({ "id": "price_pro", "product": "prod_pro", "type": "recurring",
                            "recurring": { "interval": "year", "interval_count": 1, "usage_type": "licensed" } });
        let plan =
            json!({ "id": "price_pro", "product": "prod_pro", "interval": "year", "interval_count": 1 });
        let pro = |quantity| SubscriptionItem {
            id: Some("si_1".into()),
            price: Some(LinePrice {
                id: "price_pro".into(),
                product_id: Some("prod_pro".into()),
                interval: Some(Span::Months(12)),
                is_metered: false,
            }),
            quantity,
            period: None,
        };
        for (item, expected) in [
            (json!({ "id": "si_1", "price": price, "quantity": 3 }), pro(3)),
            (json!({ "id": "si_1", "plan": plan, "quantity": 0 }), pro(0)),
            (json!({ "id": "si_1", "price": price, "quantity": null }), pro(1)),
            (json!({ "id": "si_1", "price": price }), pro(1)),
            (json!({ "id": "si_1", "price": price, "quantity": 2.5 }), pro(1)),
            (json!({ "id": "si_1", "price": price, "quantity": [7], "current_period_end": "x" }), pro(1)),
            (
                json!({ "id": "si_1", "price": [7], "quantity": 2 }),
                SubscriptionItem { price: None, ..pro(2) },
            ),
            (json!(7), SubscriptionItem { id: None, price: None, ..pro(1) }),
        ] {
            let items = json!({ "data": [{ "id": "si_0", "price": "price_max" }, item] });
            let read = facts(&object(&json!({ "items": items })), 1).items;
            assert_eq!((read.len(), &read[1]), (2, &expected), "{item}");
            assert_eq!(read[0].price.as_ref().map(|price| price.id.as_str()), Some("price_max"), "{item}");
        }
    }

    #[test]
    fn what_an_object_lacks_is_fetched() {
        let item = json!({ "id": "si_1", "price": "price_1" });
        let paths = |items: &Value, end: Option<i64>| {
            let fields = json!({ "items": items, "current_period_start": 1, "current_period_end": end });
            facts(&object(&fields), 1).lacking_paths()
        };
        let own = "/v1/subscriptions/sub_1".to_owned();
        let list = "/v1/subscription_items?subscription=sub_1&limit=100".to_owned();
        let whole = json!({ "has_more": false, "data": [item] });
        assert_eq!(paths(&whole, Some(2)), Vec::<String>::new());
        assert_eq!(paths(&whole, None), std::slice::from_ref(&own));
        for items in [json!({ "has_more": true, "data": [item] }), json!(null), json!([item]), json!({})] {
            assert_eq!(paths(&items, Some(2)), [own.clone(), list.clone()], "{items}");
        }
    }

    #[test]
    fn what_a_subscription_is_set_to_do_is_read() {
        let plain = facts(&object(&json!({ "test_clock": null })), 1);
        assert_eq!((plain.cancel_at, plain.test_clock), (None, None));
        let set = json!({ "cancel_at": 2000, "test_clock": { "id": "clock_1" } });
        let set = facts(&object(&set), 1);
        assert_eq!(set.cancel_at, calendar::from_unix(2000));
        assert_eq!(set.test_clock.as_deref(), Some("clock_1"));
    }

    fn stored(facts: &Subscription) -> SubscriptionState {
        SubscriptionState {
            as_of: facts.as_of,
            status: facts.status,
            price_id: Some("price_pro".into()),
            quantity: Quantity::ONE,
            period: facts.period.expect("a period"),
            items: facts.item_contents(),
            trial_end: facts.trial_end,
            cancel_at: facts.cancel_at,
            cancel_at_period_end: facts.cancel_at_period_end,
            ended_at: facts.ended_at,
        }
    }

    #[test]
    fn it_runs_until_the_time_that_is_set_or_its_periods_end_however_it_ends() {
        for (fields, ends_at) in [
            (json!({}), None),
            (json!({ "cancel_at_period_end": true }), Some(30)),
            (json!({ "cancel_at": 20 }), Some(20)),
            (json!({ "cancel_at": 20, "cancel_at_period_end": true }), Some(20)),
            (json!({ "status": "canceled", "ended_at": 10 }), Some(30)),
            (json!({ "status": "canceled", "ended_at": 20, "cancel_at": 20 }), Some(20)),
        ] {
            let mut object = object(&fields);
            (object["current_period_start"], object["current_period_end"]) = (json!(1), json!(30));
            let state = stored(&facts(&object, 1));
            assert_eq!(state.ends_at(), ends_at.and_then(calendar::from_unix), "{fields}");
        }
    }

    #[test]
    fn two_states_of_one_second_that_differ_only_in_items_or_their_end_are_ambiguous() {
        let state = |items: Value, cancel_at: Option<i64>| {
            let object = object(&json!({ "items": { "data": items }, "cancel_at": cancel_at,
                                         "current_period_start": 1, "current_period_end": 2 }));
            stored(&facts(&object, 1))
        };
        let item = |id: &str, quantity: i64| json!({ "id": id, "price": "price_pro", "quantity": quantity });
        let known = state(json!([item("si_1", 1), item("si_2", 1)]), None);
        let turned = state(json!([item("si_2", 1), item("si_1", 1)]), None);
        assert_eq!(known.freshness_of(&turned), Freshness::Same);
        for other in [
            state(json!([item("si_1", 1)]), None),
            state(json!([item("si_1", 1), item("si_2", 2)]), None),
            state(json!([item("si_1", 1), item("si_3", 1)]), None),
            state(json!([item("si_1", 1), item("si_2", 1)]), Some(9)),
        ] {
            assert_eq!(known.freshness_of(&other), Freshness::Ambiguous);
            assert_ne!(known.outranks(&other), other.outranks(&known));
        }
    }

    #[test]
    fn what_is_not_over_has_no_end() {
        let ended = json!({ "status": "canceled", "ended_at": 1500, "canceled_at": 1200 });
        assert_eq!(facts(&object(&ended), 9).ended_at, calendar::from_unix(1500));
        let asked = json!({ "status": "canceled", "canceled_at": 1200 });
        assert_eq!(facts(&object(&asked), 9).ended_at, calendar::from_unix(1200));
        assert_eq!(facts(&object(&json!({ "status": "canceled" })), 9).ended_at, calendar::from_unix(9));
        assert_eq!(facts(&object(&json!({ "status": "active", "ended_at": 1500 })), 9).ended_at, None);
    }

    #[test]
    fn of_several_items_the_plan_of_the_highest_rank_names_it() {
        let document = r#"{ "livemode": false, "not_credits": ["price_tshirt"], "plans": [
            { "key": "pro", "credits": 10000, "prices": ["price_pro"] },
            { "key": "max", "credits": 30000, "prices": ["price_max"] } ] }"#;
        let catalog = catalog::read(document).expect("a catalog").prices;
        let prices = catalog.into_iter().map(|(id, price)| (Item::Price(id), price)).collect();
        let plan = |ids: &[&str]| {
            let items: Vec<Value> = ids.iter().map(|id| json!({ "price": id, "quantity": 2 })).collect();
            facts(&object(&json!({ "items": { "data": items } })), 1).plan(&prices)
        };
        assert_eq!(plan(&["price_pro", "price_max", "price_tshirt"]).tier(), "max");
        assert_eq!(plan(&["price_new", "price_tshirt"]).tier(), "Unknown (price_new)");
        assert_eq!(plan(&["price_tshirt"]), Plan::None);
        let items = json!([{ "price": "price_max", "quantity": 0 }, { "price": "price_pro", "quantity": 2_000_000 },
                           { "id": "si_1" }]);
        let odd = facts(&object(&json!({ "items": { "data": items } })), 1).plan(&prices);
        assert_eq!(
            (odd.tier().as_str(), odd.priced().1.get()),
            ("pro", MAX_QUANTITY),
            "none of price_max is left"
        );
    }

    fn state() -> impl Strategy<Value = SubscriptionState> {
        let status = prop::sample::select(vec![
            Status::Incomplete,
            Status::PastDue,
            Status::Active,
            Status::IncompleteExpired,
            Status::Canceled,
        ]);
        let price = prop::sample::select(vec!["price_pro", "price_max"]);
        (status, price, 0..4i64, any::<bool>()).prop_map(|(status, price, second, cancel_at_period_end)| {
            SubscriptionState {
                as_of: calendar::from_unix(second).expect("a time"),
                status,
                price_id: Some(price.into()),
                quantity: Quantity::ONE,
                period: (
                    calendar::from_unix(1000).expect("a time"),
                    calendar::from_unix(2000).expect("a time"),
                ),
                items: Vec::new(),
                trial_end: None,
                cancel_at: None,
                cancel_at_period_end,
                ended_at: None,
            }
        })
    }

    /// As the extension merges them if it cannot ask Stripe.
    fn merged<'a>(incoming: impl IntoIterator<Item = &'a SubscriptionState>) -> Option<SubscriptionState> {
        incoming.into_iter().fold(None, |known: Option<SubscriptionState>, incoming| match &known {
            None => Some(incoming.clone()),
            Some(before) => match before.freshness_of(incoming) {
                Freshness::Newer => Some(incoming.clone()),
                Freshness::Ambiguous if incoming.outranks(before) => Some(incoming.clone()),
                Freshness::Ambiguous | Freshness::Same | Freshness::Stale => known,
            },
        })
    }

    proptest! {
        #[test]
        fn in_every_order_and_repetition_the_same_state_is_known_in_the_end(
            states in proptest::collection::vec(state(), 1..6),
            turn in any::<prop::sample::Index>(),
        ) {
            let mut rotated = states.clone();
            rotated.rotate_left(turn.index(states.len()));
            prop_assert_eq!(merged(&states), merged(&rotated));
            prop_assert_eq!(merged(&states), merged(states.iter().rev().chain(&states)));
        }

        #[test]
        fn what_is_final_stays(end in state(), after in proptest::collection::vec(state(), 0..4)) {
            prop_assume!(end.status.is_final());
            let known = merged([&end].into_iter().chain(&after)).expect("something is known");
            prop_assert!(known.status.is_final());
        }
    }
}
