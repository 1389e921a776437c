//! `catalog check`: checks that each price of the catalog exists in Stripe with the right billing, and that each
//! active price in Stripe is in the catalog.

use std::collections::BTreeMap;

use serde::Deserialize;
use stripe_credits_rules::catalog::PriceKind;

use crate::commands::repair::{Repair, each_page};
use crate::commands::report::Report;
use crate::config::Environment;
use crate::database::catalog::CatalogPrice;
use crate::error::Error;
use crate::stripe::client::StripeError;
use crate::stripe::pages::Pages;

/// <https://docs.stripe.com/api/prices/object>
#[derive(Deserialize)]
struct StripePrice {
    active: bool,
    /// `recurring` or `one_time`.
    #[serde(rename = "type")]
    billing: String,
}

/// Compares both and prints each difference.
pub(crate) async fn run(environment: &Environment) -> Result<(), Error> {
    let repair = Repair::open(environment).await?;
    repair.needs_catalog().await?;
    let prices = repair.database.prices().await?;
    let total = prices.len();
    let mut unmatched: BTreeMap<String, CatalogPrice> =
        prices.into_iter().map(|price| (price.price_id.clone(), price)).collect();
    let mut report = Report::new();
    let mut sold = 0;
    let pages = Pages::of(&repair.stripe, "/v1/prices?active=true".to_owned(), None);
    each_page(pages, async |page| {
        for listed in page.objects {
            sold += 1;
            let difference = match unmatched.remove(&listed.id) {
                Some(known) => difference(&known, &listed.object.read()?),
                None => Some("is sold at Stripe, and the catalog does not know it".to_owned()),
            };
            if let Some(difference) = difference {
                report.finding(&format!("{}  {difference}", listed.id));
            }
        }
        Ok(())
    })
    .await?;
    // The others are archived or missing in Stripe.
    for (price_id, known) in unmatched.into_iter().filter(|(_, known)| !known.is_retired) {
        let difference = match repair.stripe.get(&format!("/v1/prices/{price_id}")).await {
            Ok(object) => difference(&known, &object.read()?),
            Err(StripeError::NotFound | StripeError::Refused { .. }) => {
                Some("is in the catalog, and Stripe has no such price".to_owned())
            }
            Err(error) => return Err(error.into()),
        };
        if let Some(difference) = difference {
            report.finding(&format!("{price_id}  {difference}"));
        }
    }
    report.print(&format!("{total} prices in the catalog, {sold} sold at Stripe"));
    report.finish()
}

/// The difference between a price in the catalog and in Stripe; none if they agree. A retired price may differ: it is
/// not sold any more, but still grants.
fn difference(known: &CatalogPrice, price: &StripePrice) -> Option<String> {
    let CatalogPrice { kind, key, .. } = known;
    let wanted = match kind {
        PriceKind::Plan => "recurring",
        PriceKind::Pack => "one_time",
        PriceKind::NotCredits => return None,
    };
    let kind = kind.as_str();
    if known.is_retired {
        None
    } else if price.billing != wanted {
        Some(format!("is the {kind} {key} in the catalog, and {} at Stripe", price.billing))
    } else if !price.active {
        Some(format!("is the {kind} {key} in the catalog, and archived at Stripe"))
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_price_has_its_kind_and_is_on_sale_in_both_or_in_neither() {
        let known = |kind, is_retired| CatalogPrice {
            price_id: "price_1".to_owned(),
            kind,
            key: "pro".to_owned(),
            is_retired,
        };
        let price = |billing: &str, active| StripePrice { active, billing: billing.to_owned() };
        assert_eq!(difference(&known(PriceKind::Plan, false), &price("recurring", true)), None);
        assert_eq!(difference(&known(PriceKind::Pack, false), &price("one_time", true)), None);
        assert_eq!(difference(&known(PriceKind::NotCredits, false), &price("one_time", false)), None);
        assert_eq!(difference(&known(PriceKind::Plan, true), &price("one_time", false)), None);
        assert!(difference(&known(PriceKind::Plan, false), &price("one_time", true)).is_some());
        assert!(difference(&known(PriceKind::Pack, false), &price("recurring", true)).is_some());
        assert!(difference(&known(PriceKind::Plan, false), &price("recurring", false)).is_some());
    }
}
