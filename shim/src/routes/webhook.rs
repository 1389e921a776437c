//! `POST /webhooks/stripe`: one delivery of an event, with its log line and its count.

use std::sync::Arc;
use std::time::{Duration, Instant};

use hyper::Request;
use hyper::body::Incoming;
use stripe_credits_rules::verdict::VerdictName;

use crate::app::App;
use crate::body::HeldBody;
use crate::clock::unix_now;
use crate::connections::Connection;
use crate::error::Error;
use crate::event::Event;
use crate::outcome::Outcome;
use crate::response::{Response, error_response, json_response};
use crate::telemetry::milliseconds;
use crate::{delivery, signature};

/// Responds to one delivery.
pub(crate) async fn deliver(app: Arc<App>, request: Request<Incoming>) -> Result<Response, Error> {
    let started = Instant::now();
    let (event, held) = match receive(&app, request).await {
        Ok(received) => received,
        Err(error) => return Ok(report(&app, None, Err(error), started)),
    };
    // In a task of its own, a delivery is finished and logged also if Stripe disconnects.
    let delivery = tokio::spawn(async move {
        let _held = held;
        let result = delivery::apply(&app.database, app.stripe.as_ref(), &event).await;
        if let Ok(outcome) = &result {
            app.after_commit(outcome, event.id()).await;
        }
        report(&app, Some(&event), result, started)
    });
    delivery.await.map_err(|panic| Error::Internal(panic.to_string()))
}

/// Reads the body, verifies its signature and parses the envelope. The body stays counted as held, because the event has
/// its text.
async fn receive(app: &App, request: Request<Incoming>) -> Result<(Event, HeldBody), Error> {
    let (head, incoming) = request.into_parts();
    signature::check_header(&head.headers, unix_now())?;
    let body = app.bodies.read(incoming).await?;
    let verified = signature::verify(&head.headers, body.bytes.clone(), &app.webhook_secrets, unix_now())?;
    if let Some(connection) = head.extensions.get::<Arc<Connection>>() {
        connection.admit_webhook();
    }
    Ok((Event::parse(verified)?, body))
}

/// Counts and logs a delivery, and returns its response.
fn report(app: &App, event: Option<&Event>, result: Result<Outcome, Error>, started: Instant) -> Response {
    let took = started.elapsed();
    count(app, event, &result, took);
    log(event, &result, took);
    match result {
        Ok(outcome) => json_response(outcome.status(), outcome.json().to_owned()),
        Err(error) => error_response(&error),
    }
}

fn count(app: &App, event: Option<&Event>, result: &Result<Outcome, Error>, took: Duration) {
    let (outcome, reason) = match result {
        Ok(outcome) => (outcome.verdict().as_str(), outcome.reason_label()),
        Err(error) => ("error", Some(error.label())),
    };
    app.metrics.delivery(event.map(Event::event_type), outcome, reason, took);
    if let Some(age) = event.and_then(|event| event.age(unix_now())) {
        app.metrics.event_age(Duration::from_secs(age));
    }
    if let Err(Error::Signature(signature)) = result {
        app.metrics.signature_failure(signature.label());
    }
}

/// Logs one line: an error if an operator should look at it at once, a warning if it is the sender's fault, or if it is
/// parked, such as a payment without a user: it may stay so until an operator looks at it.
fn log(event: Option<&Event>, result: &Result<Outcome, Error>, took: Duration) {
    let outcome = result.as_ref().ok();
    let error = result.as_ref().err();
    let status = result.as_ref().map_or_else(Error::status, Outcome::status);
    let price_id = outcome.and_then(Outcome::price_ids);
    let ids = event.map(Event::ids);
    // Shows late webhooks: Stripe's first attempt comes within seconds.
    let age_s = event.and_then(|event| event.age(unix_now()));
    macro_rules! line {
        ($level:ident) => {
            tracing::$level!(
                event_id = event.map(Event::id),
                "type" = event.map(Event::event_type),
                session_id = ids.and_then(|ids| ids.session.as_deref()),
                payment_intent_id = ids.and_then(|ids| ids.payment_intent.as_deref()),
                customer_id = ids.and_then(|ids| ids.customer.as_deref()),
                subscription_id = ids.and_then(|ids| ids.subscription.as_deref()),
                invoice_id = ids.and_then(|ids| ids.invoice.as_deref()),
                price_id,
                user_id = outcome.and_then(Outcome::user_id),
                credits = outcome.and_then(Outcome::credits),
                outcome = outcome.map_or("error", |outcome| outcome.verdict().as_str()),
                reason = outcome.and_then(Outcome::reason_text).or(error.map(Error::label)),
                error = error.map(tracing::field::display),
                status = status.as_u16(),
                age_s,
                ms = milliseconds(took),
                "delivery"
            )
        };
    }
    let is = |verdict| outcome.is_some_and(|outcome| outcome.verdict() == verdict);
    if is(VerdictName::Rejected) || status.is_server_error() {
        line!(error);
    } else if error.is_some() || is(VerdictName::Parked) {
        line!(warn);
    } else {
        line!(info);
    }
}
