//! `send-test-event`: for development, signs an event like Stripe and posts it to a running shim.

use std::path::PathBuf;

use clap::Args;
use hyper::header::CONTENT_TYPE;
use hyper::{Method, Request, Uri};
use secrecy::SecretString;
use serde_json::json;
use uuid::Uuid;

use crate::clock::unix_now;
use crate::commands::exchange::print_answer;
use crate::config::{self, Environment};
use crate::error::Error;
use crate::signature::{SIGNATURE_HEADER, sign};

/// The price of the invented session, in cents; credits do not depend on it.
const AMOUNT_TOTAL: u32 = 1000;

/// The arguments.
#[derive(Args)]
pub(crate) struct SendTestEvent {
    /// The URL of the shim's webhook route [default: of `LISTEN` on this machine]
    #[arg(long)]
    url: Option<Uri>,
    /// The user who paid
    #[arg(long, required_unless_present = "file", conflicts_with = "file")]
    user: Option<Uuid>,
    /// The Stripe price bought [default: none, so that the shim fetches the line items from Stripe]
    #[arg(long, conflicts_with = "file")]
    price: Option<String>,
    /// The quantity
    #[arg(long, default_value_t = 1, conflicts_with = "file")]
    quantity: u32,
    /// The event's id [default: a new one]
    #[arg(long, conflicts_with = "file")]
    event_id: Option<String>,
    /// The checkout session's id; the same id is the same payment [default: a new one]
    #[arg(long, conflicts_with = "file")]
    session_id: Option<String>,
    /// Post the bytes of this file instead of an invented event
    #[arg(long)]
    file: Option<PathBuf>,
    /// The secret to sign with [default: the first of `STRIPE_WEBHOOK_SECRET`]
    #[arg(long)]
    secret: Option<SecretString>,
}

/// Posts the event and prints the response; a status other than 2xx is a failure.
pub(crate) async fn run(arguments: SendTestEvent, environment: &Environment) -> Result<(), Error> {
    let body = match &arguments.file {
        Some(file) => {
            std::fs::read(file).map_err(|fault| Error::Input(format!("{}: {fault}", file.display())))?
        }
        None => checkout_session_completed(&arguments).into_bytes(),
    };
    let secret = match arguments.secret {
        Some(secret) => secret,
        None => config::read_signing_secret(environment)?,
    };
    let url = match arguments.url {
        Some(url) => url.to_string(),
        None => format!("http://{}/webhooks/stripe", config::read_listen(environment)?),
    };
    let request = Request::builder()
        .method(Method::POST)
        .header(CONTENT_TYPE, "application/json")
        .header(SIGNATURE_HEADER, sign(&secret, unix_now(), &body));
    print_answer(&url, request, body).await
}

/// A paid session of mode payment, as Stripe would send it.
fn checkout_session_completed(arguments: &SendTestEvent) -> String {
    let new_id = |prefix| format!("{prefix}_{}", Uuid::new_v4().simple());
    let event_id = arguments.event_id.clone().unwrap_or_else(|| new_id("evt_test"));
    let session_id = arguments.session_id.clone().unwrap_or_else(|| new_id("cs_test"));
    let now = unix_now();
    let mut metadata = json!({"user_id": arguments.user});
    if let Some(price) = &arguments.price {
        // Stripe's metadata are strings.
        metadata["price_id"] = json!(price);
        metadata["quantity"] = json!(arguments.quantity.to_string());
        metadata["fixed_lines"] = json!("true");
    }
    json!({
        "id": event_id,
        "object": "event",
        "type": "checkout.session.completed",
        "created": now,
        "livemode": false,
        "data": {"object": {
            "id": session_id,
            "object": "checkout.session",
            "created": now,
            "livemode": false,
            "mode": "payment",
            "status": "complete",
            "payment_status": "paid",
            // Derived from the session, so that two events of one session name one payment.
            "payment_intent": format!("pi_of_{session_id}"),
            "customer": null,
            "client_reference_id": arguments.user,
            "amount_total": AMOUNT_TOTAL,
            "currency": "usd",
            "metadata": metadata,
        }},
    })
    .to_string()
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::event::Event;
    use crate::signature::tests::verified;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        arguments: SendTestEvent,
    }

    #[test]
    fn the_shim_can_read_the_event() {
        let user = "7b0e2f0c-8a3e-4f5e-9a7f-3a1f0c5d2b11";
        let cli = Cli::parse_from([
            "x",
            "--user",
            user,
            "--price",
            "price_a",
            "--quantity",
            "3",
            "--session-id",
            "cs_1",
        ]);
        let text = checkout_session_completed(&cli.arguments);
        let event = Event::parse(verified(text.as_bytes())).unwrap();
        assert_eq!(event.ids().session.as_deref(), Some("cs_1"));
        assert_eq!(event.ids().payment_intent.as_deref(), Some("pi_of_cs_1"));
        assert!(text.contains(&format!(
            r#""metadata":{{"fixed_lines":"true","price_id":"price_a","quantity":"3","user_id":"{user}"}}"#
        )));
    }
}
