//! `POST /checkout` and `/portal`: open Stripe's checkout page and billing portal for a user. The catalog decides
//! what may be bought; the session's metadata link the payment to the user.

use serde::Deserialize;
use serde_json::json;

use crate::app::{App, Setting};
use crate::database::catalog::{Offer, OfferKind};
use crate::error::Error;
use crate::routes::choice::Choice;
use crate::routes::request::{LogFields, Reply};
use crate::routes::user::AuthenticatedRequest;
use crate::stripe::form::Form;
use crate::stripe::idempotency;

/// Creates a checkout session for one price; the client then opens its `url`.
pub(crate) async fn begin(
    app: &App,
    request: &AuthenticatedRequest,
    fields: &mut LogFields,
) -> Result<Reply, Error> {
    #[derive(Deserialize)]
    struct CheckoutSession {
        id: String,
        url: String,
    }
    let choice = Choice::read(request, fields)?;
    let offer = if let Some(own) = choice.own_offer(app).await? {
        own
    } else {
        let found = choice.at_stripe(app).await?;
        choice.products_offer(app, found.as_ref().map(|found| &found.price)).await?
    };
    let user = request.user.id();
    if offer.kind == OfferKind::Plan && app.database.live_subscription(user).await?.is_some() {
        // Both subscriptions would be billed.
        return Err(Error::AlreadySubscribed);
    }
    let customer = app.database.stripe_customer(user).await?;
    let form = checkout_form(app, request, &choice, &offer, customer)?;
    let key = idempotency::for_request(&request.headers, user, &form)
        .map_err(|fault| Error::MalformedRequest(fault.to_string()))?;
    let session =
        app.stripe()?.post("/v1/checkout/sessions", &form, &key).await.map_err(Error::BadGateway)?;
    let CheckoutSession { id, url } = session.read().map_err(Error::BadGateway)?;
    let reply = Reply::done(json!({"ok": true, "session_id": id, "url": url}).to_string());
    fields.session_id = Some(id);
    Ok(reply)
}

fn checkout_form(
    app: &App,
    request: &AuthenticatedRequest,
    choice: &Choice,
    offer: &Offer,
    customer: Option<String>,
) -> Result<Form, Error> {
    let (user, email) = (request.user.id(), request.user.email());
    let (Some(success), Some(cancel)) = (&app.return_urls.checkout_success, &app.return_urls.checkout_cancel)
    else {
        return Err(Setting::CheckoutSuccess.missing());
    };
    let (mode, return_query, key, bought) = match offer.kind {
        OfferKind::Pack => ("payment", "credits_checkout=success", "metadata[pack_key]", "credit_pack"),
        OfferKind::Plan => ("subscription", "checkout=success", "metadata[plan_key]", "subscription"),
    };
    let form = Form::default()
        .with("mode", mode)
        .with("line_items[0][price]", &choice.price_id)
        .with("line_items[0][quantity]", choice.quantity)
        .with("client_reference_id", user)
        .with("metadata[user_id]", user)
        .with("metadata[price_id]", &choice.price_id)
        .with("metadata[quantity]", choice.quantity)
        // The form lets the buyer change no line, so the metadata name all of them.
        .with("metadata[fixed_lines]", true)
        // For people who look at the payment in Stripe's dashboard.
        .with(key, &offer.key)
        .with("metadata[type]", bought)
        .with_some("metadata[userEmail]", email)
        .with(
            "success_url",
            success.with_query(&format!("{return_query}&session_id={{CHECKOUT_SESSION_ID}}")),
        )
        .with("cancel_url", cancel);
    let form = match (customer, email) {
        (Some(customer), _) => form.with("customer", customer),
        (None, email) => form.with_some("customer_email", email),
    };
    Ok(match offer.kind {
        OfferKind::Pack => form.with("invoice_creation[enabled]", true),
        // A later change of price keeps this metadata, and so the user.
        OfferKind::Plan => form
            .with("subscription_data[metadata][user_id]", user)
            .with("subscription_data[metadata][plan_key]", &offer.key)
            .with_some("subscription_data[metadata][userEmail]", email),
    })
}

/// Creates a session of Stripe's billing portal, where the user sees invoices and changes cards.
pub(crate) async fn portal(app: &App, request: &AuthenticatedRequest) -> Result<Reply, Error> {
    #[derive(Deserialize)]
    struct PortalSession {
        url: String,
    }
    let customer = app.database.stripe_customer(request.user.id()).await?.ok_or(Error::NoCustomer)?;
    let return_url = app.return_urls.portal_return.as_ref().ok_or_else(|| Setting::PortalReturn.missing())?;
    let form = Form::default().with("customer", customer).with("return_url", return_url);
    let session = app
        .stripe()?
        .post("/v1/billing_portal/sessions", &form, &idempotency::fresh())
        .await
        .map_err(Error::BadGateway)?;
    let PortalSession { url } = session.read().map_err(Error::BadGateway)?;
    Ok(Reply::done(json!({"ok": true, "url": url}).to_string()))
}
