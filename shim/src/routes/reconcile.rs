//! `POST /reconcile-stripe-credit-pack` and `/reconcile-stripe-checkout`: a browser came back from Stripe, and its
//! purchase does not wait for the webhook. Whose the session is, and what it is worth, the database decides.

use hyper::StatusCode;
use serde::Deserialize;

use crate::app::App;
use crate::error::Error;
use crate::fetch;
use crate::outcome::{NO_CATALOG, Outcome, UNKNOWN_PRICE, Verdict};
use crate::routes::user::{Asked, Reply, Subject};
use crate::stripe::client::{Answer, StripeError};

/// The longest session id taken, in bytes; Stripe's are under a hundred.
const MAX_SESSION_ID_BYTES: usize = 255;

/// What was bought.
#[derive(Clone, Copy)]
enum Checkout {
    Pack,
    Subscription,
}

#[derive(Deserialize)]
struct Body {
    #[serde(alias = "sessionId")]
    session_id: String,
}

impl Checkout {
    fn mode(self) -> &'static str {
        match self {
            Self::Pack => "payment",
            Self::Subscription => "subscription",
        }
    }

    fn path(self, session_id: &str) -> String {
        let expansions = match self {
            Self::Pack => "expand[]=line_items",
            Self::Subscription => "expand[]=line_items&expand[]=subscription&expand[]=invoice",
        };
        format!("/v1/checkout/sessions/{session_id}?{expansions}")
    }

    /// The id under which the database keeps what it was told.
    fn event_id(self, session_id: &str) -> String {
        match self {
            Self::Pack => format!("reconcile_credit_pack:{session_id}"),
            Self::Subscription => format!("reconcile:{session_id}"),
        }
    }
}

/// Reconciles the checkout of a pack.
pub(crate) async fn pack(app: &App, asked: &Asked, subject: &mut Subject) -> Result<Reply, Error> {
    answer(app, Checkout::Pack, asked, subject).await
}

/// Reconciles the checkout of a subscription.
pub(crate) async fn subscription(app: &App, asked: &Asked, subject: &mut Subject) -> Result<Reply, Error> {
    answer(app, Checkout::Subscription, asked, subject).await
}

/// Applies what Stripe says of the session now, for the user who asks.
async fn answer(app: &App, checkout: Checkout, asked: &Asked, subject: &mut Subject) -> Result<Reply, Error> {
    let Body { session_id } = asked.read()?;
    if !is_session_id(&session_id) {
        return Err(Error::NotASession);
    }
    subject.session_id = Some(session_id.clone());
    let session = session(app, checkout, &session_id).await?;
    let outcome = apply(app, checkout, asked, &session_id, &session).await?;
    app.after_commit(&outcome, &checkout.event_id(&session_id)).await;
    Ok(Reply::outcome(status(&outcome), &outcome))
}

/// Only what can stand in a path: whatever else a client sends never reaches Stripe.
fn is_session_id(text: &str) -> bool {
    let is_word = |text: &str| text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    text.len() <= MAX_SESSION_ID_BYTES
        && text.strip_prefix("cs_").is_some_and(|rest| !rest.is_empty() && is_word(rest))
}

/// The session as Stripe has it now, if it is of the mode that is reconciled here.
async fn session(app: &App, checkout: Checkout, session_id: &str) -> Result<Answer, Error> {
    #[derive(Deserialize)]
    struct Session {
        id: String,
        mode: String,
    }
    let answer = app.stripe()?.get(&checkout.path(session_id)).await.map_err(|error| match error {
        StripeError::NotFound => Error::UnknownSession,
        error => Error::Gateway(error),
    })?;
    let session: Session = answer.read().map_err(Error::Gateway)?;
    if session.id != session_id {
        return Err(Error::Gateway(StripeError::Malformed("it is another session".to_owned())));
    }
    if session.mode != checkout.mode() {
        return Err(Error::WrongMode(checkout.mode()));
    }
    Ok(answer)
}

async fn apply(
    app: &App,
    checkout: Checkout,
    asked: &Asked,
    session_id: &str,
    session: &Answer,
) -> Result<Outcome, Error> {
    let user = asked.user.id();
    let outcome = app.database.reconcile_checkout_session(session.object.get(), user, session.as_of).await?;
    if outcome.verdict() != Verdict::NeedsFetch {
        return Ok(outcome);
    }
    // It is this user's, or it would have been rejected, and the inbox keeps it: from here on it goes the way of a
    // webhook.
    let fetched = fetch::fetch(app.stripe.as_ref(), outcome.to_fetch()).await.map_err(Error::at_gateway)?;
    Ok(app.database.apply_kept_event(&checkout.event_id(session_id), &fetched).await?)
}

/// What the outcome is for the browser that waits for its credits.
fn status(outcome: &Outcome) -> StatusCode {
    match (outcome.verdict(), outcome.reason()) {
        (Verdict::Rejected, Some("not_owner" | "no_owner")) => StatusCode::FORBIDDEN,
        (Verdict::Rejected, Some("conflict"))
        | (Verdict::Ignored, Some("unpaid" | "payment_failed" | "expired")) => StatusCode::CONFLICT,
        (Verdict::Ignored, Some("mode" | "livemode" | "account")) => StatusCode::BAD_REQUEST,
        (Verdict::Parked, Some(UNKNOWN_PRICE | NO_CATALOG))
        | (Verdict::NeedsFetch | Verdict::Rejected, _) => StatusCode::INTERNAL_SERVER_ERROR,
        // Paid, and nothing more to do for now: not credits of ours, or kept until somebody looks.
        _ => StatusCode::OK,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

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
    fn what_stripe_calls_a_session_is_a_session() {
        assert!(is_session_id("cs_1"));
        assert!(is_session_id("cs_test_a1B2c3D4"));
        for wrong in
            ["", "cs_", "pi_1", "CS_1", "cs_1/line_items", "cs_1?x", "cs_1 ", "cs_\u{e9}", "cs_..", "cs_%2e"]
        {
            assert!(!is_session_id(wrong), "{wrong:?}");
        }
        assert!(!is_session_id(&format!("cs_{}", "1".repeat(MAX_SESSION_ID_BYTES))));
    }

    proptest! {
        #[test]
        fn a_session_id_is_always_one_segment_of_a_path(text in "(cs_)?.{0,40}") {
            if is_session_id(&text) {
                let path = Checkout::Pack.path(&text);
                let uri: hyper::Uri = format!("http://stripe{path}").parse().unwrap();
                prop_assert_eq!(uri.path(), format!("/v1/checkout/sessions/{text}"));
            }
        }
    }
}
