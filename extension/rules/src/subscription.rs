//! What is known of a subscription (rule 6): a state with the time as of which it is Stripe's word, which is not when its
//! event was made, since that has whole seconds only.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use serde_json::value::RawValue;
use uuid::Uuid;

use crate::amount::{Credits, Quantity};
use crate::calendar::{self, Time};
use crate::catalog::{Item, Kind, PlanChange, Price};
use crate::stripe::{self, Expandable, check_id, metadata_user, parse};
use crate::text_enum::text_enum;

/// A subscription's facts, as one object said them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subscription {
    /// `sub_…`.
    pub id: String,
    /// Who pays.
    pub customer_id: Option<String>,
    /// The user that the app's server wrote into the metadata.
    pub metadata_user: Option<Uuid>,
    /// What it subscribes to.
    pub items: Vec<(String, Quantity)>,
    /// Stripe's status.
    pub status: Status,
    /// The current period; `None` where the object does not say.
    pub period: Option<(Time, Time)>,
    /// When its trial ends or ended.
    pub trial_end: Option<Time>,
    /// Whether it ends with the period.
    pub cancel_at_period_end: bool,
    /// When it ended.
    pub ended_at: Option<Time>,
    /// As of when Stripe says all this.
    pub as_of: Time,
}

text_enum! {
    /// Stripe's statuses of a subscription, in the order in which a tie of two is broken: what is worth less to the user
    /// first, what is final last.
    Status {
        /// The first payment has not come yet.
        Incomplete => "incomplete",
        /// Nobody tries to collect any more.
        Unpaid => "unpaid",
        /// A trial ended without a payment method.
        Paused => "paused",
        /// A payment failed, and is tried again.
        PastDue => "past_due",
        /// In its trial.
        Trialing => "trialing",
        /// In good standing.
        Active => "active",
        /// The first payment never came.
        IncompleteExpired => "incomplete_expired",
        /// Over.
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

/// Reads a subscription's object as it was at a time.
pub(crate) fn read(object: &RawValue, as_of: Time) -> Result<Subscription, String> {
    let said: stripe::Subscription = parse(object)?;
    check_id("data.object.id", Some(&said.id))?;
    let status = Status::parse(&said.status)
        .ok_or_else(|| format!("data.object: status {:?} is none of Stripe's", said.status))?;
    let said_items = said.items.map_or_else(Vec::new, |items| items.data);
    let own = said.current_period_start.zip(said.current_period_end);
    let of_items =
        || said_items.iter().find_map(|item| item.current_period_start.zip(item.current_period_end));
    let period = match own.or_else(of_items) {
        Some((start, end)) => Some((
            time("current_period_start", Some(start))?.unwrap_or_default(),
            time("current_period_end", Some(end))?.unwrap_or_default(),
        )),
        None => None,
    };
    let canceled_at = time("canceled_at", said.canceled_at)?;
    // What is not over has no end, whatever else the object carries.
    let ended_at = if status.is_final() {
        Some(time("ended_at", said.ended_at)?.or(canceled_at).unwrap_or(as_of))
    } else {
        None
    };
    let mut items = Vec::new();
    for item in said_items {
        if let Some(price) = item.price.or(item.plan) {
            let quantity = item.quantity.unwrap_or(1);
            if quantity != 0 {
                let quantity = Quantity::new(quantity).ok_or("data.object: quantity is out of range")?;
                items.push((price.into_id(), quantity));
            }
        }
    }
    Ok(Subscription {
        id: said.id,
        customer_id: said.customer.map(Expandable::into_id),
        metadata_user: metadata_user(&said.metadata.unwrap_or_default()),
        items,
        status,
        period,
        trial_end: time("trial_end", said.trial_end)?,
        cancel_at_period_end: said.cancel_at_period_end == Some(true),
        ended_at,
        as_of,
    })
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

/// What a subscription subscribes to, as the catalog sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Plan {
    /// One of the catalog's plans: of several items, the one of the highest rank.
    Known(Box<Price>, Quantity),
    /// A price that the catalog does not know.
    Unknown(String, Quantity),
    /// Nothing but things that are no plan: none of our business.
    None,
}

impl Subscription {
    /// Its items, as what a catalog is asked for.
    #[must_use]
    pub fn priced(&self) -> Vec<Item> {
        self.items.iter().map(|(price_id, _)| Item::Price(price_id.clone())).collect()
    }

    /// Which plan it is, by the prices in force.
    #[must_use]
    pub fn plan(&self, prices: &BTreeMap<Item, Price>) -> Plan {
        let known = |price_id: &String| prices.get(&Item::Price(price_id.clone()));
        let plans = self.items.iter().filter_map(|(price_id, quantity)| Some((known(price_id)?, *quantity)));
        let best = plans
            .filter(|(price, _)| price.kind == Kind::Plan)
            .max_by(|(a, n), (b, m)| (a.rank, &a.price_id, n).cmp(&(b.rank, &b.price_id, m)));
        if let Some((price, quantity)) = best {
            return Plan::Known(Box::new(price.clone()), quantity);
        }
        match self.items.iter().filter(|(price_id, _)| known(price_id).is_none()).min() {
            Some((price_id, quantity)) => Plan::Unknown(price_id.clone(), *quantity),
            None => Plan::None,
        }
    }
}

impl Plan {
    /// What a price sells, as something that is subscribed to.
    #[must_use]
    pub fn of(price: Price, quantity: Quantity) -> Plan {
        match price.kind {
            Kind::Plan => Plan::Known(Box::new(price), quantity),
            Kind::Pack | Kind::NotCredits => Plan::None,
        }
    }

    /// What people read as the user's tier.
    #[must_use]
    pub fn tier(&self) -> String {
        match self {
            Plan::Known(price, _) => price.key.clone(),
            Plan::Unknown(price_id, _) => format!("Unknown ({price_id})"),
            Plan::None => FREE.to_owned(),
        }
    }

    /// Its rank, by the catalog.
    #[must_use]
    pub fn rank(&self) -> Option<i32> {
        match self {
            Plan::Known(price, _) => Some(price.rank),
            _ => None,
        }
    }

    /// The price, and how many of it.
    #[must_use]
    pub fn priced(&self) -> (Option<&str>, Quantity) {
        match self {
            Plan::Known(price, quantity) => (Some(&price.price_id), *quantity),
            Plan::Unknown(price_id, quantity) => (Some(price_id), *quantity),
            Plan::None => (None, Quantity::ONE),
        }
    }

    /// The most that a lot of the plan before may hold from now on: what exceeds the new plan's amount is set aside at
    /// once, unless the plan leaves that to the next renewal.
    #[must_use]
    pub fn lot_limit(&self) -> Option<Credits> {
        match self {
            Plan::Known(price, quantity) if price.plan_change == PlanChange::Reset => {
                price.credits.times(*quantity)
            }
            _ => None,
        }
    }
}

/// The tier of a user without a plan.
pub const FREE: &str = "free";

/// A subscription's state as it is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct State {
    /// As of when Stripe says all this.
    pub as_of: Time,
    /// Stripe's status.
    pub status: Status,
    /// What it subscribes to.
    pub price_id: Option<String>,
    /// How many of it.
    pub quantity: Quantity,
    /// The current period.
    pub period: (Time, Time),
    /// When its trial ends or ended.
    pub trial_end: Option<Time>,
    /// Whether it ends with the period.
    pub cancel_at_period_end: bool,
    /// When it ended.
    pub ended_at: Option<Time>,
}

/// What a state that was said does to the one that is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Joined {
    /// The same again.
    Same,
    /// Older than what is known, or after its end.
    Stale,
    /// It is what is known now.
    Newer,
    /// Another one of the same second: which of them came later, only Stripe can say.
    Tie,
}

impl State {
    /// How `said` relates to this. What is final stays, and is never a tie.
    #[must_use]
    pub fn hear(&self, said: &State) -> Joined {
        if self.key() == said.key() {
            return if said.as_of > self.as_of { Joined::Newer } else { Joined::Same };
        }
        match (self.status.is_final(), said.status.is_final()) {
            (false, true) => Joined::Newer,
            (true, true) if (said.as_of, said.key()) > (self.as_of, self.key()) => Joined::Newer,
            (true, _) => Joined::Stale,
            (false, false) => match said.as_of.cmp(&self.as_of) {
                Ordering::Less => Joined::Stale,
                Ordering::Greater => Joined::Newer,
                Ordering::Equal => Joined::Tie,
            },
        }
    }

    /// Of two states in a tie, the same one every time.
    #[must_use]
    pub fn wins_tie(&self, other: &State) -> bool {
        self.key() > other.key()
    }

    /// What is said, without as of when.
    #[allow(clippy::type_complexity)]
    fn key(&self) -> (Status, (Time, Time), &Option<String>, Quantity, bool, Option<Time>, Option<Time>) {
        let State { status, period, price_id, quantity, cancel_at_period_end, trial_end, ended_at, .. } =
            self;
        (*status, *period, price_id, *quantity, *cancel_at_period_end, *trial_end, *ended_at)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;
    use crate::catalog;

    fn said(object: &Value, as_of: i64) -> Subscription {
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
        assert_eq!(said(&older, 1), said(&newer, 1));
        assert_eq!(said(&object(&json!({})), 1).period, None);
    }

    #[test]
    fn what_is_not_over_has_no_end() {
        let ended = json!({ "status": "canceled", "ended_at": 1500, "canceled_at": 1200 });
        assert_eq!(said(&object(&ended), 9).ended_at, calendar::from_unix(1500));
        let asked = json!({ "status": "canceled", "canceled_at": 1200 });
        assert_eq!(said(&object(&asked), 9).ended_at, calendar::from_unix(1200));
        assert_eq!(said(&object(&json!({ "status": "canceled" })), 9).ended_at, calendar::from_unix(9));
        assert_eq!(said(&object(&json!({ "status": "active", "ended_at": 1500 })), 9).ended_at, None);
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
            said(&object(&json!({ "items": { "data": items } })), 1).plan(&prices)
        };
        assert_eq!(plan(&["price_pro", "price_max", "price_tshirt"]).tier(), "max");
        assert_eq!(plan(&["price_max", "price_new"]).lot_limit(), Some(Credits(60_000)));
        assert_eq!(plan(&["price_new", "price_tshirt"]).tier(), "Unknown (price_new)");
        assert_eq!(plan(&["price_tshirt"]), Plan::None);
    }

    fn state() -> impl Strategy<Value = State> {
        let status = prop::sample::select(vec![
            Status::Incomplete,
            Status::PastDue,
            Status::Active,
            Status::IncompleteExpired,
            Status::Canceled,
        ]);
        let price = prop::sample::select(vec!["price_pro", "price_max"]);
        (status, price, 0..4i64, any::<bool>()).prop_map(|(status, price, second, cancel_at_period_end)| {
            State {
                as_of: calendar::from_unix(second).expect("a time"),
                status,
                price_id: Some(price.into()),
                quantity: Quantity::ONE,
                period: (
                    calendar::from_unix(1000).expect("a time"),
                    calendar::from_unix(2000).expect("a time"),
                ),
                trial_end: None,
                cancel_at_period_end,
                ended_at: None,
            }
        })
    }

    /// As state.rs joins them where nobody can ask Stripe.
    fn joined<'a>(said: impl IntoIterator<Item = &'a State>) -> Option<State> {
        said.into_iter().fold(None, |known: Option<State>, said| match &known {
            None => Some(said.clone()),
            Some(before) => match before.hear(said) {
                Joined::Newer => Some(said.clone()),
                Joined::Tie if said.wins_tie(before) => Some(said.clone()),
                Joined::Tie | Joined::Same | Joined::Stale => known,
            },
        })
    }

    proptest! {
        #[test]
        fn in_every_order_and_repetition_the_same_state_is_known_in_the_end(
            said in proptest::collection::vec(state(), 1..6),
            turn in any::<prop::sample::Index>(),
        ) {
            let mut turned = said.clone();
            turned.rotate_left(turn.index(said.len()));
            prop_assert_eq!(joined(&said), joined(&turned));
            prop_assert_eq!(joined(&said), joined(said.iter().rev().chain(&said)));
        }

        #[test]
        fn what_is_final_stays(end in state(), after in proptest::collection::vec(state(), 0..4)) {
            prop_assume!(end.status.is_final());
            let known = joined([&end].into_iter().chain(&after)).expect("something is known");
            prop_assert!(known.status.is_final());
        }
    }
}
