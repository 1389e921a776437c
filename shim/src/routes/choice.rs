//! What a client chooses: a price of the catalog, and how many of it.

use serde::Deserialize;
use stripe_credits_rules::stripe::MAX_ID_BYTES;

use crate::app::App;
use crate::database::catalog::{Offer, OfferKind};
use crate::error::Error;
use crate::routes::request::LogFields;
use crate::routes::user::AuthenticatedRequest;
use crate::stripe::client::{StripeError, StripeObject};
use crate::stripe::objects::{self, Price};

/// The maximum quantity in one checkout.
const MAX_QUANTITY: u32 = 10_000;

/// A client's choice of a price and a quantity.
#[derive(Debug, Deserialize)]
pub(crate) struct Choice {
    #[serde(alias = "priceId")]
    pub(crate) price_id: String,
    #[serde(default = "one")]
    pub(crate) quantity: u32,
    /// Of a change of plan: when its preview prorated it, in seconds since 1970.
    pub(crate) proration_date: Option<u64>,
}

fn one() -> u32 {
    1
}

/// A price as Stripe has it.
pub(crate) struct PriceAtStripe {
    pub(crate) object: StripeObject,
    pub(crate) price: Price,
}

impl Choice {
    /// The choice in the request's body.
    pub(crate) fn read(request: &AuthenticatedRequest, fields: &mut LogFields) -> Result<Self, Error> {
        let choice: Self = request.read()?;
        if !(1..=MAX_QUANTITY).contains(&choice.quantity) {
            return Err(Error::MalformedRequest(format!("quantity must be from 1 to {MAX_QUANTITY}")));
        }
        if !is_price_id(&choice.price_id) {
            return Err(Error::InvalidPrice);
        }
        fields.price_id = Some(choice.price_id.clone());
        Ok(choice)
    }

    /// What the catalog sells under the price's own id. None if it may still be a price of a product that is on sale.
    pub(crate) async fn own_offer(&self, app: &App) -> Result<Option<Offer>, Error> {
        let own = app.database.offer(&self.price_id, None).await?;
        match own.filter(|own| !own.is_retired) {
            None if !app.database.sells_products().await? => Err(Error::InvalidPrice),
            own => Ok(own),
        }
    }

    /// The price at Stripe; none if Stripe has no such price.
    pub(crate) async fn at_stripe(&self, app: &App) -> Result<Option<PriceAtStripe>, Error> {
        match app.stripe()?.get(&objects::path("prices", &self.price_id)).await {
            Ok(object) => {
                let price = object.read().map_err(Error::BadGateway)?;
                Ok(Some(PriceAtStripe { object, price }))
            }
            Err(StripeError::NotFound) => Ok(None),
            Err(error) => Err(Error::BadGateway(error)),
        }
    }

    /// What the catalog sells under the product of the price.
    pub(crate) async fn products_offer(&self, app: &App, price: Option<&Price>) -> Result<Offer, Error> {
        let price = price.filter(|price| price.active != Some(false)).ok_or(Error::InvalidPrice)?;
        let offer = app.database.offer(&price.id, price.product.as_deref()).await?;
        let fits = |offer: &Offer| (offer.kind == OfferKind::Plan) == price.recurring.is_some();
        offer.filter(|offer| !offer.is_retired && fits(offer)).ok_or(Error::InvalidPrice)
    }
}

/// Older price ids of Stripe may be any text that an account chose.
fn is_price_id(price_id: &str) -> bool {
    let is_plain = !price_id.trim().is_empty() && !price_id.contains(char::is_control);
    is_plain && price_id.len() <= MAX_ID_BYTES
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_price_id_that_no_catalog_can_contain_is_rejected() {
        assert!(is_price_id("price_1") && is_price_id("gold plan"));
        assert!(
            !is_price_id("")
                && !is_price_id(" ")
                && !is_price_id("price\0")
                && !is_price_id(&"p".repeat(256))
        );
    }
}
