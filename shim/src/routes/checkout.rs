//! `POST /checkout` and `/portal`: pages of Stripe's, made for one user. What may be bought, the catalog says; what is
//! paid, the session's metadata tie to the user.

use serde::Deserialize;
use serde_json::json;

use crate::app::{App, Setting};
use crate::database::catalog::{Offer, OfferKind};
use crate::error::Error;
use crate::routes::user::{Asked, Reply, Subject};
use crate::stripe::form::Form;
use crate::stripe::idempotency;

/// The longest price id taken, in bytes; Stripe's are under a hundred.
const MAX_PRICE_ID_BYTES: usize = 255;
/// The most of one price in one checkout.
const MAX_QUANTITY: u32 = 10_000;

/// What a client names to buy: a price of the catalog's, and how many of it.
#[derive(Deserialize)]
pub(crate) struct Choice {
    #[serde(alias = "priceId")]
    pub(crate) price_id: String,
    #[serde(default = "one")]
    pub(crate) quantity: u32,
}

fn one() -> u32 {
    1
}

impl Choice {
    /// The choice that the request's body makes, and what the catalog says of it.
    pub(crate) async fn read(
        app: &App,
        asked: &Asked,
        subject: &mut Subject,
    ) -> Result<(Self, Offer), Error> {
        let choice: Self = asked.read()?;
        if !(1..=MAX_QUANTITY).contains(&choice.quantity) {
            return Err(Error::MalformedRequest(format!("quantity must be from 1 to {MAX_QUANTITY}")));
        }
        if !is_name(&choice.price_id) {
            return Err(Error::InvalidPrice);
        }
        subject.price_id = Some(choice.price_id.clone());
        let offer = app.database.offer(&choice.price_id).await?.ok_or(Error::InvalidPrice)?;
        Ok((choice, offer))
    }
}

/// Older ids of Stripe's are whatever their maker typed.
fn is_name(price_id: &str) -> bool {
    let is_plain = !price_id.trim().is_empty() && !price_id.contains(char::is_control);
    is_plain && price_id.len() <= MAX_PRICE_ID_BYTES
}

/// Begins a checkout of one price; the client goes to the answer's `url`.
pub(crate) async fn begin(app: &App, asked: &Asked, subject: &mut Subject) -> Result<Reply, Error> {
    #[derive(Deserialize)]
    struct Session {
        id: String,
        url: String,
    }
    let (choice, offer) = Choice::read(app, asked, subject).await?;
    let user = asked.user.id();
    if offer.kind == OfferKind::Plan && app.database.live_subscription(user).await?.is_some() {
        // A second one would be paid beside the first.
        return Err(Error::AlreadySubscribed);
    }
    let customer = app.database.stripe_customer(user).await?;
    let form = checkout_form(app, asked, &choice, offer.kind, customer)?;
    let key = idempotency::of_request(&asked.headers, user, &form)
        .map_err(|fault| Error::MalformedRequest(fault.to_string()))?;
    let answer = app.stripe()?.post("/v1/checkout/sessions", &form, &key).await.map_err(Error::Gateway)?;
    let Session { id, url } = answer.read().map_err(Error::Gateway)?;
    let reply = Reply::done(json!({"ok": true, "session_id": id, "url": url}).to_string());
    subject.session_id = Some(id);
    Ok(reply)
}

fn checkout_form(
    app: &App,
    asked: &Asked,
    choice: &Choice,
    kind: OfferKind,
    customer: Option<String>,
) -> Result<Form, Error> {
    let (user, email) = (asked.user.id(), asked.user.email());
    let (Some(success), Some(cancel)) = (&app.pages.checkout_success, &app.pages.checkout_cancel) else {
        return Err(Setting::CheckoutSuccess.missing());
    };
    let (mode, came_back) = match kind {
        OfferKind::Pack => ("payment", "credits_checkout=success"),
        OfferKind::Plan => ("subscription", "checkout=success"),
    };
    let form = Form::default()
        .with("mode", mode)
        .with("line_items[0][price]", &choice.price_id)
        .with("line_items[0][quantity]", choice.quantity)
        .with("client_reference_id", user)
        .with("metadata[user_id]", user)
        .with("metadata[price_id]", &choice.price_id)
        .with("metadata[quantity]", choice.quantity)
        .with_some("metadata[userEmail]", email)
        .with("success_url", success.with_query(&format!("{came_back}&session_id={{CHECKOUT_SESSION_ID}}")))
        .with("cancel_url", cancel);
    let form = match (customer, email) {
        (Some(customer), _) => form.with("customer", customer),
        (None, email) => form.with_some("customer_email", email),
    };
    Ok(match kind {
        OfferKind::Pack => form.with("invoice_creation[enabled]", true),
        // Its price may change, its user may not.
        OfferKind::Plan => form
            .with("subscription_data[metadata][user_id]", user)
            .with_some("subscription_data[metadata][userEmail]", email),
    })
}

/// Opens Stripe's page on which the user sees invoices and changes cards.
pub(crate) async fn portal(app: &App, asked: &Asked) -> Result<Reply, Error> {
    #[derive(Deserialize)]
    struct Session {
        url: String,
    }
    let customer = app.database.stripe_customer(asked.user.id()).await?.ok_or(Error::NoCustomer)?;
    let page = app.pages.portal_return.as_ref().ok_or_else(|| Setting::PortalReturn.missing())?;
    let form = Form::default().with("customer", customer).with("return_url", page);
    let answer = app
        .stripe()?
        .post("/v1/billing_portal/sessions", &form, &idempotency::fresh())
        .await
        .map_err(Error::Gateway)?;
    let Session { url } = answer.read().map_err(Error::Gateway)?;
    Ok(Reply::done(json!({"ok": true, "url": url}).to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_price_id_that_no_catalog_can_hold_is_none() {
        assert!(is_name("price_1") && is_name("gold plan"));
        assert!(!is_name("") && !is_name(" ") && !is_name("price\0") && !is_name(&"p".repeat(256)));
    }
}
