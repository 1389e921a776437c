//! `catalog draft`: a first catalog from the prices on sale at Stripe, on stdout.
//!
//! An amount of money never becomes an amount of credits. Credits are what the metadata `credits` of the price or of its
//! product say; where neither does, a text stands in their place, which names the plan or pack and its price, and which
//! `catalog push` refuses.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;
use serde_json::{Value, json};
use stripe_credits_rules::amount::MAX_CREDITS;
use stripe_credits_rules::calendar::Span;

use crate::commands::repair::each_page;
use crate::config::{Environment, StripeConfig, StripeMode};
use crate::error::Error;
use crate::stripe::client::StripeClient;
use crate::stripe::objects::Recurring;
use crate::stripe::pages::Pages;

/// The metadata that say what a price or a product is worth.
const CREDITS: &str = "credits";
/// What a key is when a product's name has no letter of ASCII in it.
const NAMELESS: &str = "product";

/// <https://docs.stripe.com/api/prices/object>, with its product expanded.
#[derive(Debug, Deserialize)]
struct Price {
    id: String,
    currency: String,
    /// Minor units; none if it is tiered or the buyer chooses.
    unit_amount: Option<i64>,
    recurring: Option<Recurring>,
    #[serde(default)]
    metadata: BTreeMap<String, String>,
    product: Product,
}

#[derive(Debug, Deserialize)]
struct Product {
    id: String,
    #[serde(default)]
    name: String,
    #[serde(default)]
    metadata: BTreeMap<String, String>,
}

/// A plan or a pack to be.
#[derive(Debug)]
struct Offer {
    /// Sorted by interval, the shortest first.
    prices: Vec<Price>,
    /// The interval of the first price; none for a pack.
    every: Option<Span>,
}

/// Prints the document, and on stderr what a person has to look at.
pub(crate) async fn run(environment: &Environment) -> Result<(), Error> {
    let config = StripeConfig::read(environment)?;
    let stripe = StripeClient::with_retries(&config);
    let mut prices: Vec<Price> = Vec::new();
    let pages = Pages::of(&stripe, "/v1/prices?active=true&expand[]=data.product".to_owned(), None);
    each_page(pages, async |page| {
        for listed in page.objects {
            prices.push(listed.object.read()?);
        }
        Ok(())
    })
    .await?;
    let (document, notes) = draft(prices, config.mode == StripeMode::Live);
    println!("{document:#}");
    for note in notes {
        eprintln!("{note}");
    }
    Ok(())
}

/// The document, and a note for each thing in it to look at.
fn draft(prices: Vec<Price>, is_live: bool) -> (Value, Vec<String>) {
    let mut notes = Vec::new();
    let is_metered = |price: &Price| price.recurring.as_ref().is_some_and(Recurring::is_metered);
    let (metered, sold): (Vec<_>, Vec<_>) = prices.into_iter().partition(is_metered);
    for price in &metered {
        notes.push(format!("{}  is metered: usage grants nothing, so it is in not_credits", price.id));
    }
    let (mut plans, mut packs, mut keys) = (Vec::new(), Vec::new(), BTreeSet::new());
    for offer in offers(sold) {
        let key = key(&offer.product().name, &mut keys);
        let credits = offer.credits().unwrap_or_else(|| {
            notes.push(format!("{key}  has no credits yet: write how many"));
            json!(format!("FILL IN how many credits {key} has for {}", offer.costs()))
        });
        let prices: Vec<Value> = offer.prices.iter().map(|price| offer.entry(price)).collect();
        let name = &offer.product().name;
        let entry = json!({"key": key, "name": name, "credits": credits, "prices": prices});
        if offer.every.is_some() { plans.push(entry) } else { packs.push(entry) }
    }
    let not_credits: Vec<&str> = metered.iter().map(|price| price.id.as_str()).collect();
    let document = json!({"livemode": is_live, "plans": plans, "packs": packs, "not_credits": not_credits});
    (document, notes)
}

/// The prices of a product that have one worth together, by product: a month, and the years that come in months, are one
/// plan.
fn offers(mut prices: Vec<Price>) -> Vec<Offer> {
    let days = |price: &Price| match every(price) {
        Some(Span::Months(months)) => months.saturating_mul(30),
        Some(Span::Days(days)) => days,
        None => 0,
    };
    prices.sort_by(|a, b| (&a.product.id, days(a), &a.id).cmp(&(&b.product.id, days(b), &b.id)));
    let mut offers: Vec<Offer> = Vec::new();
    for price in prices {
        let fits = |offer: &&mut Offer| offer.takes(&price);
        match offers.iter_mut().find(fits) {
            Some(offer) => offer.prices.push(price),
            None => offers.push(Offer { every: every(&price), prices: vec![price] }),
        }
    }
    offers
}

/// How often a price is billed; none if it is sold once.
fn every(price: &Price) -> Option<Span> {
    price.recurring.as_ref().and_then(Recurring::span)
}

/// The credits that metadata name, if the catalog takes them.
fn credits_of(metadata: &BTreeMap<String, String>) -> Option<i64> {
    metadata.get(CREDITS)?.trim().parse().ok().filter(|credits| (1..=MAX_CREDITS).contains(credits))
}

impl Offer {
    fn product(&self) -> &Product {
        &self.prices[0].product
    }

    /// Whether another price of the same product is worth the same: with credits of its own only if they are these.
    fn takes(&self, price: &Price) -> bool {
        let comes_in_parts = match (self.every, every(price)) {
            (None, None) => true,
            (Some(Span::Months(part)), Some(Span::Months(whole))) => whole % part == 0,
            (part, whole) => part == whole,
        };
        let own = |price: &Price| credits_of(&price.metadata);
        self.product().id == price.product.id && comes_in_parts && own(&self.prices[0]) == own(price)
    }

    fn credits(&self) -> Option<Value> {
        let first = &self.prices[0];
        credits_of(&first.metadata).or_else(|| credits_of(&first.product.metadata)).map(Value::from)
    }

    /// What its prices cost, for the person who writes how many credits that is.
    fn costs(&self) -> String {
        let cost = |price: &Price| {
            let amount = price.unit_amount.map_or("?".to_owned(), |amount| amount.to_string());
            let every = every(price).map(|every| format!(" every {}", words(every))).unwrap_or_default();
            format!("{amount} {} (minor units){every}, {}", price.currency, price.id)
        };
        self.prices.iter().map(cost).collect::<Vec<_>>().join("; ")
    }

    /// The price as an entry of `prices`: what is billed for longer than the first one comes in parts of that.
    fn entry(&self, price: &Price) -> Value {
        match (self.every, every(price)) {
            (Some(part), Some(whole)) if part != whole => {
                json!({"id": price.id, "every": words(whole), "drip": words(part)})
            }
            (Some(part), _) if part != Span::Months(1) => json!({"id": price.id, "every": words(part)}),
            _ => json!(price.id),
        }
    }
}

/// A span as a catalog writes it, such as `1 month` or `14 days`.
fn words(span: Span) -> String {
    match span {
        Span::Months(1) => "1 month".to_owned(),
        Span::Days(1) => "1 day".to_owned(),
        other => other.to_string(),
    }
}

/// A key from a product's name, such as `pro_plan`, that no other has.
fn key(name: &str, used: &mut BTreeSet<String>) -> String {
    let words: Vec<String> = name
        .split(|c: char| !c.is_ascii_alphanumeric())
        .filter(|word| !word.is_empty())
        .map(str::to_ascii_lowercase)
        .collect();
    let base = if words.is_empty() { NAMELESS.to_owned() } else { words.join("_") };
    let numbered = (2..).map(|number| format!("{base}_{number}"));
    let key = std::iter::once(base.clone()).chain(numbered).find(|key| !used.contains(key));
    let key = key.expect("there is always another number");
    used.insert(key.clone());
    key
}

#[cfg(test)]
mod tests {
    use super::*;

    fn price(id: &str, product: &str, recurring: &Value, metadata: &Value) -> Price {
        serde_json::from_value(json!({
            "id": id, "currency": "usd", "unit_amount": 1000, "recurring": recurring, "metadata": metadata,
            "product": {"id": product, "name": product, "metadata": {}},
        }))
        .expect("a price")
    }

    fn every(interval: &str, count: u32) -> Value {
        json!({"interval": interval, "interval_count": count, "usage_type": "licensed"})
    }

    #[test]
    fn a_product_is_one_plan_whose_year_comes_in_months_and_a_price_with_credits_of_its_own_another() {
        let (document, notes) = draft(
            vec![
                price("price_y", "Pro", &every("year", 1), &json!({})),
                price("price_m", "Pro", &every("month", 1), &json!({})),
                price("price_w", "Pro", &every("week", 2), &json!({"credits": "500"})),
                price("price_p", "Top-up!", &Value::Null, &json!({"credits": "250"})),
                price("price_q", "Top-up!", &Value::Null, &json!({"credits": "1.5"})),
            ],
            true,
        );
        assert_eq!(
            document,
            json!({
                "livemode": true,
                "plans": [
                    {"key": "pro", "name": "Pro", "credits": 500, "prices": [{"id": "price_w", "every": "14 days"}]},
                    {"key": "pro_2", "name": "Pro",
                        "credits": "FILL IN how many credits pro_2 has for 1000 usd (minor units) every 1 month, price_m; \
                         1000 usd (minor units) every 12 months, price_y",
                        "prices": ["price_m", {"id": "price_y", "every": "12 months", "drip": "1 month"}]},
                ],
                "packs": [
                    {"key": "top_up", "name": "Top-up!", "credits": 250, "prices": ["price_p"]},
                    {"key": "top_up_2", "name": "Top-up!",
                        "credits": "FILL IN how many credits top_up_2 has for 1000 usd (minor units), price_q",
                        "prices": ["price_q"]},
                ],
                "not_credits": [],
            })
        );
        assert_eq!(notes.len(), 2, "{notes:?}");
    }

    #[test]
    fn a_key_is_of_a_to_z_and_no_other_has_it() {
        let mut used = BTreeSet::new();
        let mut next = |name: &str| key(name, &mut used);
        assert_eq!(
            ["Pro Plan", "pro-plan", "プロ", ""].map(&mut next),
            ["pro_plan", "pro_plan_2", "product", "product_2"]
        );
    }
}
