//! What prices are worth and which policies hold, read from the catalog document.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::json::list;
use super::number::Span;

#[derive(Debug, Clone)]
pub(super) struct Plan {
    pub(super) key: String,
    pub(super) rank: i64,
    pub(super) credits: i64,
    /// What stays when a period opens; `None` under `renewal: reset`.
    pub(super) rollover: Option<i64>,
    pub(super) keeps_on_change: bool,
    pub(super) expires_on_cancellation: bool,
    pub(super) trial_credits: i64,
    pub(super) first_purchase_bonus: i64,
}

/// A price of a plan: `credits` is what one part holds where it drips, else what a period holds.
#[derive(Debug, Clone)]
pub(super) struct PlanPrice {
    pub(super) plan: Plan,
    pub(super) every: Span,
    pub(super) drip: Option<Span>,
}

#[derive(Debug, Clone)]
pub(super) struct Pack {
    pub(super) credits: i64,
    pub(super) expires_after: Option<Span>,
}

/// What one price is for.
#[derive(Debug, Clone)]
pub(super) enum Worth {
    Plan(PlanPrice),
    Pack(Pack),
    NotCredits,
}

pub(super) struct FreePlan {
    pub(super) credits: i64,
    pub(super) every: Span,
}

pub(super) struct Catalog {
    /// By price id or product id.
    items: BTreeMap<String, Worth>,
    /// The price of a pack by the pack's key: "a pack's key means its newest price on sale".
    packs: BTreeMap<String, String>,
    pub(super) livemode: bool,
    pub(super) signup_credits: i64,
    pub(super) forgives: bool,
    pub(super) grants_unpaid: bool,
    pub(super) free_plan: Option<FreePlan>,
}

impl Catalog {
    pub(super) fn read(document: &Value) -> Catalog {
        let mut catalog = Catalog {
            items: BTreeMap::new(),
            packs: BTreeMap::new(),
            livemode: document["livemode"].as_bool().unwrap_or(false),
            signup_credits: document["signup_credits"].as_i64().unwrap_or(0),
            forgives: document["reversal_policy"].as_str() == Some("forgive"),
            grants_unpaid: document["no_payment_required"].as_str() != Some("ignore"),
            free_plan: document["free_plan"].is_object().then(|| FreePlan {
                credits: document["free_plan"]["credits"].as_i64().unwrap_or(0),
                every: Span::parse(document["free_plan"]["every"].as_str().unwrap_or("1 month")),
            }),
        };
        for (place, plan) in list(&document["plans"]).iter().enumerate() {
            catalog.add_plan(plan, i64::try_from(place).expect("a short list"));
        }
        for pack in list(&document["packs"]) {
            catalog.add_pack(pack);
        }
        for price in list(&document["not_credits"]) {
            catalog.items.insert(named(price), Worth::NotCredits);
        }
        catalog
    }

    fn add_plan(&mut self, document: &Value, place: i64) {
        let key = document["key"].as_str().expect("a plan has a key").to_owned();
        let rolls_over = document["renewal"].as_str() == Some("rollover");
        let plan = Plan {
            key,
            rank: document["rank"].as_i64().unwrap_or(place),
            credits: document["credits"].as_i64().expect("a plan has credits"),
            rollover: rolls_over.then(|| document["max_rollover"].as_i64().unwrap_or(0)),
            keeps_on_change: document["plan_change"].as_str() == Some("keep"),
            expires_on_cancellation: document["cancellation"].as_str() == Some("expire"),
            trial_credits: document["trial_credits"].as_i64().unwrap_or(0),
            first_purchase_bonus: document["first_purchase_bonus"].as_i64().unwrap_or(0),
        };
        for price in list(&document["prices"]) {
            let drip = price["drip"].as_str().map(Span::parse);
            // "`every` is its billing interval (default 1 month; 1 year where it drips)."
            let usual = if drip.is_some() { "1 year" } else { "1 month" };
            let every = Span::parse(price["every"].as_str().unwrap_or(usual));
            let worth = Worth::Plan(PlanPrice { plan: plan.clone(), every, drip });
            self.items.insert(named(price), worth);
        }
    }

    fn add_pack(&mut self, document: &Value) {
        let pack = Pack {
            credits: document["credits"].as_i64().expect("a pack has credits"),
            expires_after: document["expires_after"].as_str().map(Span::parse),
        };
        for price in list(&document["prices"]) {
            self.items.insert(named(price), Worth::Pack(pack.clone()));
            let key = document["key"].as_str().expect("a pack has a key").to_owned();
            self.packs.entry(key).or_insert(named(price));
        }
    }

    /// "Worth is the catalog's, by price, else by product."
    pub(super) fn worth(&self, price: &str, product: Option<&str>) -> Option<&Worth> {
        self.items.get(price).or_else(|| self.items.get(product?))
    }

    pub(super) fn price_of_pack(&self, key: &str) -> Option<&String> {
        self.packs.get(key)
    }

    /// "Of several items and subscriptions the highest rank" names the tier.
    pub(super) fn tier<'a>(&'a self, prices: impl Iterator<Item = (&'a str, Option<&'a str>)>) -> String {
        let mut plans = BTreeSet::new();
        let mut unknown = None;
        for (price, product) in prices {
            match self.worth(price, product) {
                Some(Worth::Plan(known)) => drop(plans.insert((known.plan.rank, known.plan.key.clone()))),
                Some(_) => {}
                None => unknown = Some(format!("Unknown ({price})")),
            }
        }
        plans.pop_last().map(|(_, key)| key).or(unknown).unwrap_or_else(|| "free".to_owned())
    }
}

/// A price may be an id, or an object with an `id` or a `product`.
fn named(price: &Value) -> String {
    let id = price.as_str().or(price["id"].as_str()).or(price["product"].as_str());
    id.expect("a price has an id or a product").to_owned()
}
