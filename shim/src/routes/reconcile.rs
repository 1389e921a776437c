//! `POST /reconcile-stripe-credit-pack` and `/reconcile-stripe-checkout`: apply a checkout session when the browser
//! returns from Stripe, without waiting for the webhook. The database decides who owns the session and what it is
//! worth.

use hyper::StatusCode;
use serde::Deserialize;
use serde_json::Value;
use stripe_credits_rules::event::reconcile_id;
use stripe_credits_rules::reason::Reason;
use stripe_credits_rules::session::Mode;
use stripe_credits_rules::verdict::VerdictName;

use crate::app::App;
use crate::error::Error;
use crate::fetch;
use crate::outcome::Outcome;
use crate::routes::request::{LogFields, Reply};
use crate::routes::user::AuthenticatedRequest;
use crate::stripe::client::{StripeError, StripeObject};
use crate::stripe::path::is_id;

#[derive(Deserialize)]
struct Body {
    #[serde(alias = "sessionId")]
    session_id: String,
}

/// Reconciles the checkout of a pack.
pub(crate) async fn pack(
    app: &App,
    request: &AuthenticatedRequest,
    fields: &mut LogFields,
) -> Result<Reply, Error> {
    reconcile(app, Mode::Payment, request, fields).await
}

/// Reconciles the checkout of a subscription.
pub(crate) async fn subscription(
    app: &App,
    request: &AuthenticatedRequest,
    fields: &mut LogFields,
) -> Result<Reply, Error> {
    reconcile(app, Mode::Subscription, request, fields).await
}

/// Applies the session's current state at Stripe for the user of the request.
async fn reconcile(
    app: &App,
    mode: Mode,
    request: &AuthenticatedRequest,
    fields: &mut LogFields,
) -> Result<Reply, Error> {
    let Body { session_id } = request.read()?;
    if !is_session_id(&session_id) {
        return Err(Error::NotASession);
    }
    fields.session_id = Some(session_id.clone());
    // A page that is loaded again costs none of Stripe's rate limit.
    if let Some(outcome) = app.database.reconciled(&session_id, mode, request.user.id()).await? {
        fields.payment_intent_id = outcome.payment_intent_id().map(str::to_owned);
        fields.price_id = outcome.price_ids();
        return Ok(Reply::outcome(status(&outcome), &outcome));
    }
    let (session, payment_intent_id) = session(app, mode, &session_id).await?;
    fields.payment_intent_id = payment_intent_id;
    let outcome = apply(app, mode, request, &session_id, &session).await?;
    fields.price_id = outcome.price_ids();
    app.after_commit(&outcome, &reconcile_id(mode, &session_id)).await;
    Ok(Reply::outcome(status(&outcome), &outcome))
}

/// The path of the session, with what the database reads of it.
fn session_path(mode: Mode, session_id: &str) -> String {
    let expansions = match mode {
        Mode::Subscription => "expand[]=line_items&expand[]=subscription&expand[]=invoice",
        Mode::Payment | Mode::Other => "expand[]=line_items",
    };
    format!("/v1/checkout/sessions/{session_id}?{expansions}")
}

/// Whether a client's text is a session id. Nothing else gets into a path of Stripe's API.
fn is_session_id(text: &str) -> bool {
    is_id(text) && !text.contains(['.', '-']) && text.strip_prefix("cs_").is_some_and(|rest| !rest.is_empty())
}

/// The session's current state at Stripe, if it has the mode that the route reconciles, and its payment intent.
async fn session(app: &App, mode: Mode, session_id: &str) -> Result<(StripeObject, Option<String>), Error> {
    #[derive(Deserialize)]
    struct Session {
        id: String,
        mode: String,
        payment_intent: Option<Value>,
    }
    let object = app.stripe()?.get(&session_path(mode, session_id)).await.map_err(|error| match error {
        StripeError::NotFound => Error::UnknownSession,
        error => Error::BadGateway(error),
    })?;
    let session: Session = object.read().map_err(Error::BadGateway)?;
    if session.id != session_id {
        return Err(Error::BadGateway(StripeError::Malformed("it is another session".to_owned())));
    }
    if Mode::of(&session.mode) != mode {
        return Err(Error::WrongMode(mode.as_str()));
    }
    // Not expanded, and for the log only.
    let payment_intent = session.payment_intent.as_ref().and_then(Value::as_str).map(str::to_owned);
    Ok((object, payment_intent))
}

async fn apply(
    app: &App,
    mode: Mode,
    request: &AuthenticatedRequest,
    session_id: &str,
    session: &StripeObject,
) -> Result<Outcome, Error> {
    let user = request.user.id();
    let outcome = app.database.reconcile_checkout_session(session.json.get(), user, session.as_of).await?;
    if outcome.verdict() != VerdictName::NeedsFetch {
        return Ok(outcome);
    }
    // The session is this user's, or it would have been rejected, and its event is in the inbox: now it can be
    // applied like a webhook's.
    let fetched =
        fetch::fetch(Some(app.stripe()?), outcome.to_fetch()).await.map_err(Error::into_bad_gateway)?;
    Ok(app.database.apply_inbox_event(&reconcile_id(mode, session_id), user, &fetched).await?)
}

/// The HTTP status of the outcome for a browser that waits for its credits.
fn status(outcome: &Outcome) -> StatusCode {
    match (outcome.verdict(), outcome.reason()) {
        (VerdictName::Rejected, Some(Reason::NotOwner | Reason::NoOwner)) => StatusCode::FORBIDDEN,
        (VerdictName::Rejected, Some(Reason::Conflict))
        | (VerdictName::Ignored, Some(Reason::Unpaid | Reason::PaymentFailed | Reason::Expired)) => {
            StatusCode::CONFLICT
        }
        (VerdictName::Ignored, Some(Reason::Mode | Reason::Livemode | Reason::Account)) => {
            StatusCode::BAD_REQUEST
        }
        (VerdictName::Parked, Some(Reason::UnknownPrice | Reason::NoCatalog))
        | (VerdictName::NeedsFetch | VerdictName::Rejected, _) => StatusCode::INTERNAL_SERVER_ERROR,
        // Paid, and the browser can do nothing more: no credits were bought, or the event is parked for an operator.
        _ => StatusCode::OK,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use stripe_credits_rules::stripe::MAX_ID_BYTES;

    use super::*;

    #[test]
    fn every_outcome_has_its_status() {
        for (json, expected) in [
            (r#"{"outcome":"applied"}"#, 200),
            (r#"{"outcome":"already_applied"}"#, 200),
            (r#"{"outcome":"ignored","reason":"not_credits"}"#, 200),
            (r#"{"outcome":"ignored","reason":"no_payment_required"}"#, 200),
            (r#"{"outcome":"parked","reason":"shape"}"#, 200),
            (r#"{"outcome":"parked","reason":"unfetched"}"#, 200),
            (r#"{"outcome":"ignored","reason":"mode"}"#, 400),
            (r#"{"outcome":"ignored","reason":"livemode"}"#, 400),
            (r#"{"outcome":"rejected","reason":"not_owner"}"#, 403),
            (r#"{"outcome":"rejected","reason":"no_owner"}"#, 403),
            (r#"{"outcome":"rejected","reason":"conflict"}"#, 409),
            (r#"{"outcome":"ignored","reason":"unpaid"}"#, 409),
            (r#"{"outcome":"ignored","reason":"expired"}"#, 409),
            (r#"{"outcome":"parked","reason":"unknown_price"}"#, 500),
            (r#"{"outcome":"parked","reason":"no_catalog"}"#, 500),
            (r#"{"outcome":"rejected","reason":"malformed"}"#, 500),
            (r#"{"outcome":"rejected","reason":"out_of_range"}"#, 500),
            (r#"{"outcome":"needs_fetch"}"#, 500),
        ] {
            let outcome = Outcome::parse(json.to_owned()).unwrap();
            assert_eq!(status(&outcome).as_u16(), expected, "{json}");
        }
    }

    #[test]
    fn a_session_id_is_what_stripe_calls_one() {
        assert!(is_session_id("cs_1"));
        assert!(is_session_id("cs_test_a1B2c3D4"));
        for wrong in
            ["", "cs_", "pi_1", "CS_1", "cs_1/line_items", "cs_1?x", "cs_1 ", "cs_\u{e9}", "cs_..", "cs_%2e"]
        {
            assert!(!is_session_id(wrong), "{wrong:?}");
        }
        assert!(!is_session_id(&format!("cs_{}", "1".repeat(MAX_ID_BYTES))));
    }

    proptest! {
        #[test]
        fn a_session_id_is_always_one_segment_of_a_path(text in "(cs_)?.{0,40}") {
            if is_session_id(&text) {
                let path = session_path(Mode::Payment, &text);
                let uri: hyper::Uri = format!("http://stripe{path}").parse().unwrap();
                prop_assert_eq!(uri.path(), format!("/v1/checkout/sessions/{text}"));
            }
        }
    }
}
