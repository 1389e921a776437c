//! The objects of Stripe that a top-up reads and makes; only the fields that are used.

use serde::Deserialize;
use serde_json::Value;

use crate::stripe::client::{StripeClient, StripeError};
use crate::stripe::form::Form;
use crate::stripe::objects::{List, path};

/// <https://docs.stripe.com/api/payment_intents/object>
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct PaymentIntent {
    pub(crate) id: String,
    pub(crate) status: String,
    /// Why the last attempt to pay it failed.
    pub(crate) last_payment_error: Option<PaymentError>,
}

#[derive(Debug, Clone, Deserialize)]
pub(crate) struct PaymentError {
    /// Such as `card_declined` or `authentication_required`.
    pub(crate) code: Option<String>,
}

/// What a price asks for one unit, sold once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Amount {
    /// In the currency's smallest unit.
    pub(crate) amount: i64,
    pub(crate) currency: String,
}

/// Why a price does not say what is to be charged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct NoAmount(pub(crate) &'static str);

/// <https://docs.stripe.com/api/prices/object>
#[derive(Debug, Deserialize)]
pub(crate) struct OneTimePrice {
    active: bool,
    currency: String,
    /// None for tiers, fractions and what the buyer chooses.
    unit_amount: Option<i64>,
    billing_scheme: Option<String>,
    recurring: Option<Value>,
    transform_quantity: Option<Value>,
    /// `exclusive`: tax comes on top of it.
    tax_behavior: Option<String>,
}

impl OneTimePrice {
    /// What one unit costs, if that is a single number of which no tax is missing.
    pub(crate) fn amount(&self) -> Result<Amount, NoAmount> {
        let is_per_unit = self.billing_scheme.as_deref().is_none_or(|scheme| scheme == "per_unit");
        match self.unit_amount {
            _ if !self.active => Err(NoAmount("price_not_active")),
            _ if self.recurring.is_some() => Err(NoAmount("price_is_recurring")),
            _ if self.tax_behavior.as_deref() == Some("exclusive") => Err(NoAmount("price_excludes_tax")),
            Some(amount) if is_per_unit && self.transform_quantity.is_none() && amount > 0 => {
                Ok(Amount { amount, currency: self.currency.clone() })
            }
            _ => Err(NoAmount("price_is_not_one_amount")),
        }
    }
}

/// <https://docs.stripe.com/api/customers/object>
#[derive(Debug, Deserialize)]
struct Customer {
    #[serde(default)]
    deleted: bool,
    invoice_settings: Option<InvoiceSettings>,
}

#[derive(Debug, Deserialize)]
struct InvoiceSettings {
    /// An id unless it was expanded.
    default_payment_method: Option<Value>,
}

#[derive(Debug, Deserialize)]
struct PaymentMethod {
    id: String,
}

/// What a customer can be charged by while not present.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum SavedMethod {
    /// Its id.
    Found(String),
    /// The customer was deleted.
    NoCustomer,
    NoMethod,
}

/// The price's amount as Stripe has it now.
pub(crate) async fn price(stripe: &StripeClient, price_id: &str) -> Result<OneTimePrice, StripeError> {
    stripe.get(&path("prices", price_id)).await?.read()
}

/// The payment method that a customer's invoices are paid by, else the card that was saved last.
pub(crate) async fn saved_method(
    stripe: &StripeClient,
    customer_id: &str,
) -> Result<SavedMethod, StripeError> {
    let at = path("customers", customer_id);
    let customer: Customer = stripe.get(&at).await?.read()?;
    if customer.deleted {
        return Ok(SavedMethod::NoCustomer);
    }
    let default = customer.invoice_settings.and_then(|settings| settings.default_payment_method);
    let default = default.as_ref().and_then(|method| method.as_str().or_else(|| method["id"].as_str()));
    if let Some(default) = default {
        return Ok(SavedMethod::Found(default.to_owned()));
    }
    let cards: List<PaymentMethod> =
        stripe.get(&format!("{at}/payment_methods?type=card&limit=1")).await?.read()?;
    Ok(cards.data.into_iter().next().map_or(SavedMethod::NoMethod, |card| SavedMethod::Found(card.id)))
}

/// Makes a payment intent, which moves no money yet.
pub(crate) async fn create_intent(
    stripe: &StripeClient,
    form: &Form,
    idempotency_key: &str,
) -> Result<PaymentIntent, StripeError> {
    stripe.post("/v1/payment_intents", form, idempotency_key).await?.read()
}

/// A payment intent as it is now.
pub(crate) async fn intent(stripe: &StripeClient, id: &str) -> Result<PaymentIntent, StripeError> {
    stripe.get(&path("payment_intents", id)).await?.read()
}

/// Has a payment intent paid by the method that it names; nobody is there to confirm anything.
pub(crate) async fn confirm(
    stripe: &StripeClient,
    id: &str,
    idempotency_key: &str,
) -> Result<PaymentIntent, StripeError> {
    let form = Form::default().with("off_session", true).with("error_on_requires_action", true);
    stripe.post(&format!("{}/confirm", path("payment_intents", id)), &form, idempotency_key).await?.read()
}

/// Cancels a payment intent, after which nothing can pay it.
pub(crate) async fn cancel(
    stripe: &StripeClient,
    id: &str,
    idempotency_key: &str,
) -> Result<PaymentIntent, StripeError> {
    let form = Form::default().with("cancellation_reason", "abandoned");
    stripe.post(&format!("{}/cancel", path("payment_intents", id)), &form, idempotency_key).await?.read()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_a_price_that_is_one_whole_amount_says_what_is_charged() {
        let amount = |changes: Value| {
            let mut price = json!({
                "active": true, "currency": "usd", "unit_amount": 1000, "billing_scheme": "per_unit", "recurring": null,
                "transform_quantity": null, "tax_behavior": "inclusive", "type": "one_time",
            });
            price.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
            serde_json::from_value::<OneTimePrice>(price).unwrap().amount()
        };
        let ten = Amount { amount: 1000, currency: "usd".to_owned() };
        assert_eq!(amount(json!({})), Ok(ten.clone()));
        assert_eq!(amount(json!({"tax_behavior": "unspecified"})), Ok(ten));
        for (changes, fault) in [
            (json!({"active": false}), "price_not_active"),
            (json!({"recurring": {"interval": "month"}}), "price_is_recurring"),
            (json!({"tax_behavior": "exclusive"}), "price_excludes_tax"),
            (json!({"billing_scheme": "tiered"}), "price_is_not_one_amount"),
            (json!({"unit_amount": null}), "price_is_not_one_amount"),
            (json!({"unit_amount": 0}), "price_is_not_one_amount"),
            (json!({"transform_quantity": {"divide_by": 10}}), "price_is_not_one_amount"),
        ] {
            assert_eq!(amount(changes), Err(NoAmount(fault)), "{fault}");
        }
    }
}
