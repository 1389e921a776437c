//! `POST /webhooks/stripe`: one delivery, from its body to its answer, its log line and its count.

use std::sync::Arc;
use std::time::{Duration, Instant};

use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use hyper::Request;
use hyper::body::{Body as _, Bytes, Incoming};
use serde::Serialize;
use serde_json::value::RawValue;
use tokio::time::timeout;

use crate::clock::unix_now;
use crate::error::Error;
use crate::event::Event;
use crate::outcome::{Outcome, Verdict};
use crate::serve::{App, Response, error_response, json_response};
use crate::signature;
use crate::stripe_api::StripeError;

/// The largest body taken, in bytes; Stripe's largest events are a tenth of it.
pub(crate) const MAX_BODY_BYTES: usize = 1024 * 1024;
/// How long a body may take to arrive.
pub(crate) const BODY_READ_TIMEOUT: Duration = Duration::from_secs(10);
/// How much of a body that is too large is read and dropped before the refusal, in bytes: a client that writes all
/// before it reads would else see a reset connection instead of a 413.
const MAX_DISCARDED_BYTES: u64 = 8 * 1024 * 1024;
/// The most objects fetched for one event.
const MAX_FETCHES: usize = 16;

/// Answers one delivery.
pub(crate) async fn deliver(app: Arc<App>, request: Request<Incoming>) -> Response {
    let started = Instant::now();
    let event = match receive(&app, request).await {
        Ok(event) => event,
        Err(error) => return report(&app, None, Err(error), started),
    };
    // In a task of its own a delivery goes on to its end, its log line included, when Stripe hangs up.
    let delivery = tokio::spawn(async move {
        let result = apply(&app, &event).await;
        report(&app, Some(&event), result, started)
    });
    delivery.await.unwrap_or_else(|panic| error_response(&Error::Internal(panic.to_string())))
}

/// Reads the body, believes it, and reads its envelope.
async fn receive(app: &App, request: Request<Incoming>) -> Result<Event, Error> {
    let (head, body) = request.into_parts();
    let body = timeout(BODY_READ_TIMEOUT, read(body)).await.map_err(|_| Error::BodyTimeout)??;
    let verified = signature::verify(&head.headers, body, &app.webhook_secrets, unix_now())?;
    Event::parse(verified)
}

async fn read(mut body: Incoming) -> Result<Bytes, Error> {
    if body.size_hint().lower() > MAX_BODY_BYTES as u64 {
        discard(&mut body).await;
        return Err(Error::BodyTooLarge);
    }
    match Limited::new(&mut body, MAX_BODY_BYTES).collect().await {
        Ok(collected) => Ok(collected.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => {
            discard(&mut body).await;
            Err(Error::BodyTooLarge)
        }
        Err(_) => Err(Error::BodyUnreadable),
    }
}

/// Reads what is left of a body and keeps none of it.
async fn discard(body: &mut Incoming) {
    let mut left = MAX_DISCARDED_BYTES;
    if body.size_hint().lower() > left {
        return;
    }
    while let Some(Ok(frame)) = body.frame().await {
        let bytes = frame.data_ref().map_or(0, Bytes::len) as u64;
        let Some(rest) = left.checked_sub(bytes) else {
            return;
        };
        left = rest;
    }
}

/// Has the database apply the event: as it came, or with what Stripe says of it, or as far as it can be stored.
async fn apply(app: &App, event: &Event) -> Result<Outcome, Error> {
    let result = apply_whole(app, event).await;
    let Err(error @ Error::Data(_)) = &result else {
        return result;
    };
    // Only a body that jsonb cannot hold will never do better; any other fault is worth Stripe's retries.
    if app.database.can_store(event).await? {
        return result;
    }
    tracing::error!(event_id = event.id(), %error, "Postgres cannot store this event; recorded without its data");
    app.database.apply_stripe_event(&event.without_data()).await
}

async fn apply_whole(app: &App, event: &Event) -> Result<Outcome, Error> {
    let outcome = app.database.apply_stripe_event(event).await?;
    if outcome.verdict() != Verdict::NeedsFetch {
        return Ok(outcome);
    }
    // The database has recorded the event by now: a failure from here on loses nothing.
    let fetched = fetch(app, outcome.to_fetch()).await?;
    let outcome = app.database.apply_stripe_event_with(event, &fetched).await?;
    if outcome.verdict() == Verdict::NeedsFetch {
        return Err(Error::UnexpectedAnswer("it asks again for what was fetched".to_owned()));
    }
    Ok(outcome)
}

/// What was fetched, for the database: the objects in the order asked for, and Stripe's clock at the last of them.
#[derive(Serialize)]
struct Fetched {
    as_of: u64,
    objects: Vec<Box<RawValue>>,
}

async fn fetch(app: &App, paths: &[String]) -> Result<String, Error> {
    let Some(stripe) = &app.stripe else {
        return Ok("{}".to_owned());
    };
    if paths.len() > MAX_FETCHES {
        return Err(Error::UnexpectedAnswer(format!("it asks for more than {MAX_FETCHES} objects")));
    }
    let mut fetched = Fetched { as_of: unix_now(), objects: Vec::new() };
    for path in paths {
        if !path.starts_with("/v1/") {
            return Err(Error::UnexpectedAnswer("it asks for a path outside of /v1/".to_owned()));
        }
        let answer = stripe.get(path).await;
        app.metrics.stripe_api_call(answer.as_ref().map_or_else(StripeError::label, |_| "ok"));
        match answer {
            Ok(answer) => {
                fetched.as_of = answer.as_of;
                fetched.objects.push(answer.object);
            }
            // What Stripe does not have, the database decides without.
            Err(StripeError::NotFound) => {}
            Err(error) => return Err(error.into()),
        }
    }
    serde_json::to_string(&fetched).map_err(|fault| Error::Internal(fault.to_string()))
}

/// Counts and logs a delivery, and makes its answer.
fn report(app: &App, event: Option<&Event>, result: Result<Outcome, Error>, started: Instant) -> Response {
    let took = started.elapsed();
    app.metrics.delivery(event, &result, took);
    log(event, &result, took);
    match result {
        Ok(outcome) => json_response(outcome.status(), outcome.json().to_owned()),
        Err(error) => error_response(&error),
    }
}

/// One line a delivery. An error is what a person should look at, a warning is a stranger's doing.
fn log(event: Option<&Event>, result: &Result<Outcome, Error>, took: Duration) {
    let outcome = result.as_ref().ok();
    let error = result.as_ref().err();
    let status = result.as_ref().map_or_else(Error::status, Outcome::status);
    let price_id = outcome.and_then(Outcome::price_ids);
    macro_rules! line {
        ($level:ident) => {
            tracing::$level!(
                event_id = event.map(Event::id),
                "type" = event.map(Event::kind),
                session_id = event.and_then(Event::session_id),
                payment_intent_id = event.and_then(Event::payment_intent_id),
                price_id,
                user_id = outcome.and_then(Outcome::user_id),
                credits = outcome.and_then(Outcome::credits),
                outcome = outcome.map_or("error", |outcome| outcome.verdict().label()),
                reason = outcome.and_then(Outcome::reason).or(error.map(Error::label)),
                error = error.map(tracing::field::display),
                status = status.as_u16(),
                ms = milliseconds(took),
                "delivery"
            )
        };
    }
    let rejected = outcome.is_some_and(|outcome| outcome.verdict() == Verdict::Rejected);
    if rejected || status.is_server_error() {
        line!(error);
    } else if error.is_some() {
        line!(warn);
    } else {
        line!(info);
    }
}

/// To the microsecond: people read this.
fn milliseconds(took: Duration) -> f64 {
    (took.as_secs_f64() * 1e6).round() / 1e3
}
