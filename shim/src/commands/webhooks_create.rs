//! `webhooks create`: makes the webhook endpoint at Stripe, with the event types that the rules read and the version of the
//! API that every request here names.

use hyper::Uri;
use serde::Deserialize;
use stripe_credits_rules::event::TYPES;

use crate::commands::webhooks_check::{endpoints, exists_in};
use crate::config::{Environment, StripeConfig, StripeMode};
use crate::error::Error;
use crate::stripe::client::{STRIPE_VERSION, StripeClient};
use crate::stripe::form::Form;
use crate::stripe::idempotency;

/// What Stripe answers once, with the secret.
#[derive(Deserialize)]
struct Made {
    id: String,
    secret: String,
}

/// Makes the endpoint, and prints its id and its signing secret, which Stripe never shows by its API again.
pub(crate) async fn run(url: &Uri, environment: &Environment) -> Result<(), Error> {
    let config = StripeConfig::read(environment)?;
    let is_live = config.mode == StripeMode::Live;
    if !matches!(url.scheme_str(), Some("https")) && (is_live || url.scheme_str() != Some("http")) {
        return Err(Error::Document(format!("--url {url}: must begin with https://")));
    }
    let stripe = StripeClient::with_retries(&config);
    if let Some(endpoint) = endpoints(&stripe, Some(url)).await?.first() {
        return Err(Error::Document(format!(
            "{} is at {url} already: `stripe-credits webhooks check` says whether it sends what is needed",
            endpoint.id
        )));
    }
    let mut form = Form::default()
        .with("url", url)
        .with("api_version", STRIPE_VERSION)
        .with("description", "stripe_credits");
    for event_type in TYPES.into_iter().filter(|event_type| exists_in(event_type, is_live)) {
        form = form.with("enabled_events[]", event_type);
    }
    let made: Made = stripe.post("/v1/webhook_endpoints", &form, &idempotency::fresh()).await?.read()?;
    println!("{}  {url}", made.id);
    println!("STRIPE_WEBHOOK_SECRET={}", made.secret);
    eprintln!("This secret is shown once. Keep it where the shim reads it, and nowhere else.");
    Ok(())
}
