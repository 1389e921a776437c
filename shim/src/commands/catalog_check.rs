//! `catalog check`: checks that each price of the catalog exists in Stripe with the right billing, that each active
//! price in Stripe is in the catalog, that fixed worth fits what Stripe bills for it, and that auto top-up can charge its price.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde::de::IgnoredAny;
use stripe_credits_rules::amount::Credits;
use stripe_credits_rules::catalog::{Names, PriceKind};

use crate::commands::repair::{Repair, each_page};
use crate::commands::report::Report;
use crate::config::Environment;
use crate::database::Database;
use crate::database::catalog::CatalogPrice;
use crate::error::Error;
use crate::stripe::client::{StripeClient, StripeError};
use crate::stripe::objects;
use crate::stripe::objects::Recurring;
use crate::stripe::pages::Pages;
use crate::stripe::payments;

/// <https://docs.stripe.com/api/prices/object>
#[derive(Deserialize)]
struct StripePrice {
    active: bool,
    /// `recurring` or `one_time`.
    #[serde(rename = "type")]
    billing: String,
    /// `prod_…`.
    product: Option<String>,
    recurring: Option<Recurring>,
    /// Minor units of a piece; none if it is tiered, a fraction of one, or chosen by the buyer.
    unit_amount: Option<i64>,
    /// If it is tiered, and they were expanded.
    tiers: Option<Vec<Tier>>,
    /// Divides quantities before they are multiplied by the amount.
    transform_quantity: Option<IgnoredAny>,
    /// Lets the buyer choose the amount.
    custom_unit_amount: Option<IgnoredAny>,
}

/// For the tier as a whole.
#[derive(Deserialize)]
struct Tier {
    /// Minor units; none of a fraction of one.
    flat_amount: Option<i64>,
    /// The same, with fractions.
    flat_amount_decimal: Option<String>,
}

impl Tier {
    fn has_flat_fee(&self) -> bool {
        let is_not_zero = |decimal: &String| decimal.contains(|digit: char| ('1'..='9').contains(&digit));
        self.flat_amount.is_some_and(|amount| amount != 0)
            || self.flat_amount_decimal.as_ref().is_some_and(is_not_zero)
    }
}

/// Where the catalog and Stripe differ.
pub(crate) struct Comparison {
    /// Each difference, beginning with the price's id.
    pub(crate) differences: Vec<String>,
    /// What is right if it is meant, beginning with the price's id.
    notes: Vec<String>,
    /// How many prices the catalog has, retired ones too.
    pub(crate) known: usize,
    /// How many prices are active at Stripe.
    pub(crate) sold: usize,
}

/// Compares both and prints each difference.
pub(crate) async fn run(environment: &Environment) -> Result<(), Error> {
    let repair = Repair::open(environment).await?;
    repair.needs_catalog().await?;
    let mut report = Report::new();
    let Comparison { differences, notes, known, sold } = compare(&repair.database, &repair.stripe).await?;
    for difference in differences {
        report.finding(&difference);
    }
    for note in notes {
        report.print(&note);
    }
    report.print(&format!("{known} prices in the catalog, {sold} sold at Stripe"));
    report.finish()
}

/// Compares both.
pub(crate) async fn compare(database: &Database, stripe: &StripeClient) -> Result<Comparison, Error> {
    let prices = database.prices().await?;
    let known = prices.len();
    let mut unmatched: BTreeMap<String, CatalogPrice> =
        prices.into_iter().map(|price| (price.price_id.clone(), price)).collect();
    let products = take_products(&mut unmatched);
    let (mut differences, mut notes, mut sold) = (Vec::new(), Vec::new(), 0);
    let mut note = |price_id: &str, difference: Option<String>| {
        differences.extend(difference.map(|difference| format!("{price_id}  {difference}")));
    };
    let pages = Pages::of(stripe, "/v1/prices?active=true&expand[]=data.tiers".to_owned(), None);
    each_page(pages, async |page| {
        for listed in page.objects {
            sold += 1;
            let price: StripePrice = listed.object.read()?;
            let of_product = price.product.as_ref().and_then(|product| products.get(product));
            let own = unmatched.remove(&listed.id);
            let known = own.as_ref().or(of_product);
            let renews = known.filter(|known| is_recurring_pack(known, &price));
            notes.extend(renews.map(|known| recurring_pack(&listed.id, known)));
            let difference = match known {
                Some(known) => difference(known, &price),
                None => Some("is sold at Stripe, and the catalog does not know it".to_owned()),
            };
            note(&listed.id, difference);
        }
        Ok(())
    })
    .await?;
    // The others are archived or missing in Stripe.
    for (price_id, known) in unmatched.into_iter().filter(|(_, known)| !known.is_retired) {
        let found = stripe.get(&format!("{}?expand[]=tiers", objects::path("prices", &price_id))).await;
        let difference = match found {
            Ok(object) => difference(&known, &object.read()?),
            Err(StripeError::NotFound | StripeError::Refused { .. }) => {
                Some("is in the catalog, and Stripe has no such price".to_owned())
            }
            Err(error) => return Err(error.into()),
        };
        note(&price_id, difference);
    }
    if let Some(price_id) = database.auto_top_up_price().await? {
        let fault = match payments::price(stripe, &price_id).await {
            Ok(price) => price.amount().err(),
            // Said above.
            Err(StripeError::NotFound | StripeError::Refused { .. }) => None,
            Err(error) => return Err(error.into()),
        };
        let chargeless =
            |fault| format!("is what auto_top_up sells, and cannot be charged by itself: {fault}");
        note(&price_id, fault.map(|payments::NoAmount(fault)| chargeless(fault)));
    }
    Ok(Comparison { differences, notes, known, sold })
}

/// Whether a pack's price is an item of subscriptions, which grants at each renewal (rule 7).
fn is_recurring_pack(known: &CatalogPrice, price: &StripePrice) -> bool {
    let renews = price.recurring.as_ref().is_some_and(|recurring| !recurring.is_metered());
    known.kind == PriceKind::Pack && !known.is_retired && renews
}

fn recurring_pack(price_id: &str, known: &CatalogPrice) -> String {
    let key = &known.key;
    format!(
        "{price_id}  is the pack {key} in the catalog, and recurring at Stripe: each renewal grants credits that do not \
         expire with the period, and /checkout cannot sell it"
    )
}

/// The difference between a price in the catalog and in Stripe; none if they agree. A retired price may differ: it is
/// not sold any more, but still grants.
fn difference(known: &CatalogPrice, price: &StripePrice) -> Option<String> {
    let CatalogPrice { kind, key, .. } = known;
    if known.is_retired || *kind == PriceKind::NotCredits {
        return None;
    }
    // A pack may be an item of a subscription too.
    let is_sold_otherwise = *kind == PriceKind::Plan && price.billing != "recurring";
    let kind = kind.as_str();
    if is_sold_otherwise {
        Some(format!("is the {kind} {key} in the catalog, and {} at Stripe", price.billing))
    } else if !price.active {
        Some(format!("is the {kind} {key} in the catalog, and archived at Stripe"))
    } else {
        let misfits = misfits(known, price);
        (!misfits.is_empty())
            .then(|| format!("is the {kind} {key} in the catalog, and {}", misfits.join(", and ")))
    }
}

/// What of a price at Stripe the fixed worth of the catalog cannot follow.
fn misfits(known: &CatalogPrice, price: &StripePrice) -> Vec<String> {
    let mut misfits = Vec::new();
    let mut misfit = |is_one: bool, what: &str| {
        if is_one {
            misfits.push(what.to_owned());
        }
    };
    let is_metered = price.recurring.as_ref().is_some_and(Recurring::is_metered);
    misfit(is_metered, "metered at Stripe: usage grants nothing");
    let is_a_gift =
        price.billing == "recurring" && price.unit_amount == Some(0) && known.credits > Credits::ZERO;
    misfit(
        is_a_gift,
        "costs nothing at Stripe: a line of 0 is a trial or a gift, and grants trial_credits at most",
    );
    misfit(
        price.tiers.iter().flatten().any(Tier::has_flat_fee),
        "has a tier with a flat fee at Stripe, which is paid whatever the quantity",
    );
    misfit(price.transform_quantity.is_some(), "bills bundles at Stripe (transform_quantity), not pieces");
    misfit(price.custom_unit_amount.is_some(), "lets buyers choose what they pay at Stripe");
    let interval = price.recurring.as_ref().and_then(Recurring::span);
    if let Some(interval) = interval.filter(|_| known.kind == PriceKind::Plan) {
        if interval != known.every {
            misfits.push(format!("billed every {interval} at Stripe, every {} in the catalog", known.every));
        }
        if let Some(drip) = known.drip.filter(|drip| drip.is_longer_than(interval)) {
            misfits.push(format!("its parts of {drip} are longer than its interval at Stripe, {interval}"));
        }
    }
    misfits
}

/// Takes the products that are on sale out of the catalog's rows.
fn take_products(prices: &mut BTreeMap<String, CatalogPrice>) -> BTreeMap<String, CatalogPrice> {
    let is_product = |_: &String, price: &mut CatalogPrice| price.names == Names::Product;
    prices.extract_if(.., is_product).filter(|(_, product)| !product.is_retired).collect()
}

#[cfg(test)]
mod tests {
    use stripe_credits_rules::calendar::Span;

    use super::*;

    #[test]
    fn a_price_has_its_kind_and_is_on_sale_in_both_or_in_neither() {
        let known = |kind, is_retired| CatalogPrice {
            price_id: "price_1".to_owned(),
            kind,
            key: "pro".to_owned(),
            names: Names::Price,
            credits: Credits(100),
            every: Span::Months(1),
            drip: None,
            is_retired,
        };
        let price = |billing: &str, active| {
            let object = serde_json::json!({"active": active, "type": billing});
            serde_json::from_value::<StripePrice>(object).expect("a price")
        };
        assert_eq!(difference(&known(PriceKind::Plan, false), &price("recurring", true)), None);
        assert_eq!(difference(&known(PriceKind::Pack, false), &price("one_time", true)), None);
        assert_eq!(difference(&known(PriceKind::NotCredits, false), &price("one_time", false)), None);
        assert_eq!(difference(&known(PriceKind::Plan, true), &price("one_time", false)), None);
        assert!(difference(&known(PriceKind::Plan, false), &price("one_time", true)).is_some());
        assert_eq!(difference(&known(PriceKind::Pack, false), &price("recurring", true)), None, "an item");
        assert!(difference(&known(PriceKind::Plan, false), &price("recurring", false)).is_some());
    }
}
