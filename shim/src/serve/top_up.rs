//! Auto top-up: claims requests for packs, and has Stripe charge the user's saved payment method for them.
//!
//! Money moves in one step: a payment intent is made, the request names it, and only then is it confirmed. Stripe lets a payment
//! intent succeed once, and a request names one for ever; so whatever crashes between any two steps, whoever goes on, and however
//! often, a request is paid once at most. That needs no idempotency key, which Stripe may forget after a day: keys only keep
//! payment intents that nobody confirms from being made.
//!
//! A request ends as failed or canceled only when its payment intent is canceled at Stripe, so that nothing can pay it later.
//! The credits come with `payment_intent.succeeded`, like those of every payment.

use std::sync::Arc;
use std::time::{Duration, Instant};

use stripe_credits_rules::payment_intent::TOP_UP_ID;
use thiserror::Error;
use tokio::sync::watch;

use crate::app::App;
use crate::config::StripeMode;
use crate::database::DatabaseError;
use crate::database::top_ups::ClaimedTopUp;
use crate::serve::claims;
use crate::stripe::client::{StripeClient, StripeError};
use crate::stripe::form::Form;
use crate::stripe::idempotency;
use crate::stripe::payments::{self, PaymentIntent, SavedMethod};
use crate::telemetry::milliseconds;

/// How many requests are worked on at once: a part of what Stripe allows, which webhooks need too.
const MAX_AT_ONCE: usize = 4;
/// How long to wait after each attempt that came to no end, in seconds; the last of these after each further one. After a day
/// the request is given up, unless Stripe may still take the money.
const RETRY_AFTER_SECONDS: [u64; 6] = [5, 30, 120, 600, 1_800, 3_600];
/// So many steps at Stripe one attempt takes at most: to confirm, to look, to cancel, to look again.
const MAX_STEPS: usize = 6;

/// What an attempt came to.
#[derive(Debug, Clone, PartialEq, Eq)]
enum End {
    /// Stripe took the money.
    Paid,
    /// The user's payment method did not pay: Stripe's code.
    Failed(String),
    /// It is not to be paid any more.
    Canceled(String),
    /// Another attempt has to be made.
    Later(String),
    /// The request has ended meanwhile.
    Gone,
}

/// What to do with a payment intent.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Next {
    Confirm,
    /// Then the request has this end.
    Cancel(End),
    End(End),
}

/// Why an attempt came to no end.
#[derive(Debug, Error)]
enum Fault {
    #[error(transparent)]
    Stripe(#[from] StripeError),
    #[error(transparent)]
    Database(#[from] DatabaseError),
}

/// Has requests paid until it is asked to stop, then ends the attempts that have begun. Without a Stripe key they wait.
pub(super) async fn run(app: Arc<App>, stop: watch::Receiver<bool>) {
    let Some(mode) = app.mode else { return };
    let attempting = app.clone();
    claims::work(
        stop,
        MAX_AT_ONCE,
        |room| claim(&app, mode, room),
        move |claimed| attempt(attempting.clone(), claimed),
    )
    .await;
}

async fn claim(app: &App, mode: StripeMode, room: usize) -> Vec<ClaimedTopUp> {
    app.database.claim_top_ups(mode == StripeMode::Live, room).await.unwrap_or_else(|error| {
        // Deliveries of Stripe's say the same louder.
        tracing::debug!(%error, "top-ups could not be claimed");
        Vec::new()
    })
}

async fn attempt(app: Arc<App>, claimed: ClaimedTopUp) {
    let Some(stripe) = &app.stripe else { return };
    let started = Instant::now();
    let mut claimed = claimed;
    let end = match pay(&app, stripe, &mut claimed).await {
        Ok(end) => end,
        Err(Fault::Stripe(error)) => End::Later(label(&error)),
        Err(Fault::Database(error)) => End::Later(error.label().to_owned()),
    };
    report(&app, &claimed, &end, started.elapsed());
    if let Err(error) = record(&app, &claimed, &end).await {
        // After its lease it is looked at again.
        tracing::warn!(%error, top_up_id = claimed.id(), "what came of a top-up could not be recorded");
    }
}

/// An error for people, without anything that Stripe quotes.
fn label(error: &StripeError) -> String {
    match error {
        StripeError::Refused { code, .. } => format!("{} {code}", error.label()),
        _ => error.label().to_owned(),
    }
}

/// Takes a request as far as it goes. Its payment intent is named in `claimed` from the moment that the database has it.
async fn pay(app: &App, stripe: &StripeClient, claimed: &mut ClaimedTopUp) -> Result<End, Fault> {
    let mut intent = match (&claimed.payment_intent_id, &claimed.unwanted) {
        (Some(id), _) => payments::intent(stripe, id).await?,
        (None, Some(unwanted)) => return Ok(End::Canceled(unwanted.clone())),
        (None, None) => match propose(app, stripe, claimed).await? {
            Ok(intent) => intent,
            Err(end) => return Ok(end),
        },
    };
    claimed.payment_intent_id = Some(intent.id.clone());
    let mut is_tried = false;
    let mut ends_as = None;
    for _ in 0..MAX_STEPS {
        let changed = match next(&intent, claimed.unwanted.as_deref(), is_tried) {
            Next::End(End::Canceled(reason)) => return Ok(ends_as.unwrap_or(End::Canceled(reason))),
            Next::End(end) => return Ok(end),
            Next::Confirm => {
                is_tried = true;
                let key = idempotency::for_top_up(&claimed.id(), "confirm", claimed.attempts);
                payments::confirm(stripe, &intent.id, &key).await
            }
            Next::Cancel(end) => {
                ends_as = Some(end);
                let key = idempotency::for_top_up(&claimed.id(), "cancel", claimed.attempts);
                payments::cancel(stripe, &intent.id, &key).await
            }
        };
        intent = match changed {
            Ok(intent) => intent,
            // Refused, because it is in another state by now, or declined: its state says what to do.
            Err(StripeError::Declined(_) | StripeError::Refused { .. }) => {
                payments::intent(stripe, &intent.id).await?
            }
            Err(error) => return Err(error.into()),
        };
    }
    Ok(End::Later(format!("payment_intent_{}", intent.status)))
}

/// What to do with a payment intent by its status, which is the only truth about its money.
fn next(intent: &PaymentIntent, unwanted: Option<&str>, is_tried: bool) -> Next {
    let error = intent.last_payment_error.as_ref().and_then(|error| error.code.clone());
    match (intent.status.as_str(), unwanted) {
        ("succeeded", _) => Next::End(End::Paid),
        ("processing", _) => Next::End(End::Later("processing".to_owned())),
        ("canceled", None) => match error {
            // An earlier attempt canceled it, and could not record that.
            Some(code) => Next::End(End::Failed(code)),
            None => Next::End(End::Canceled("canceled_at_stripe".to_owned())),
        },
        ("canceled", Some(unwanted)) => Next::End(End::Canceled(unwanted.to_owned())),
        (_, Some(unwanted)) => Next::Cancel(End::Canceled(unwanted.to_owned())),
        ("requires_confirmation", None) if !is_tried => Next::Confirm,
        // Stripe refused the attempt without a word about the card: that is no fault of the user's.
        ("requires_confirmation", None) => Next::End(End::Later("not_confirmed".to_owned())),
        ("requires_action", None) => Next::Cancel(End::Failed("authentication_required".to_owned())),
        (status, None) => Next::Cancel(End::Failed(error.unwrap_or_else(|| status.to_owned()))),
    }
}

/// Makes the payment intent of a request that has none, and has the database name it: the one that is named is the one to
/// confirm. `Err` ends the attempt without one.
async fn propose(
    app: &App,
    stripe: &StripeClient,
    claimed: &ClaimedTopUp,
) -> Result<Result<PaymentIntent, End>, Fault> {
    let Some(customer_id) = &claimed.customer_id else {
        return Ok(Err(End::Failed("no_customer".to_owned())));
    };
    let amount = match payments::price(stripe, &claimed.price_id).await?.amount() {
        Ok(amount) => amount,
        Err(fault) => return Ok(Err(End::Later(fault.0.to_owned()))),
    };
    let method = match payments::saved_method(stripe, customer_id).await? {
        SavedMethod::Found(method) => method,
        SavedMethod::NoCustomer => return Ok(Err(End::Failed("no_customer".to_owned()))),
        SavedMethod::NoMethod => return Ok(Err(End::Failed("no_payment_method".to_owned()))),
    };
    let form = Form::default()
        .with("amount", amount.amount)
        .with("currency", &amount.currency)
        .with("customer", customer_id)
        .with("payment_method", method)
        .with("automatic_payment_methods[enabled]", true)
        .with("automatic_payment_methods[allow_redirects]", "never")
        .with("metadata[user_id]", claimed.user)
        .with("metadata[price_id]", &claimed.price_id)
        .with("metadata[quantity]", 1)
        .with("metadata[pack_key]", &claimed.pack)
        .with("metadata[type]", "auto_top_up")
        .with(format!("metadata[{TOP_UP_ID}]"), claimed.id());
    let key = idempotency::for_top_up_intent(&claimed.id(), &form, claimed.attempts);
    let made = payments::create_intent(stripe, &form, &key).await?;
    let charged = (amount.amount, amount.currency.as_str());
    match app.database.name_payment_intent(claimed, &made.id, customer_id, charged).await? {
        Some(named) if named == made.id => Ok(Ok(made)),
        Some(named) => Ok(Ok(payments::intent(stripe, &named).await?)),
        None => Ok(Err(End::Gone)),
    }
}

async fn record(app: &App, claimed: &ClaimedTopUp, end: &End) -> Result<(), DatabaseError> {
    let intent = claimed.payment_intent_id.as_deref();
    let (state, reason) = match end {
        End::Paid => ("paid", None),
        End::Failed(reason) => ("failed", Some(reason.as_str())),
        End::Canceled(reason) => ("canceled", Some(reason.as_str())),
        End::Later(error) => {
            return app.database.retry_top_up(claimed, error, retry_after(claimed.attempts)).await;
        }
        End::Gone => return Ok(()),
    };
    app.database.finish_top_up(claimed, intent, state, reason).await.map(drop)
}

/// How many seconds to wait after so many attempts.
fn retry_after(attempts: i32) -> u64 {
    let place = usize::try_from(attempts).unwrap_or(0).saturating_sub(1);
    RETRY_AFTER_SECONDS[place.min(RETRY_AFTER_SECONDS.len() - 1)]
}

fn report(app: &App, claimed: &ClaimedTopUp, end: &End, took: Duration) {
    let (result, reason) = match end {
        End::Paid => ("paid", None),
        End::Failed(reason) => ("failed", Some(reason)),
        End::Canceled(reason) => ("canceled", Some(reason)),
        End::Later(reason) => ("later", Some(reason)),
        End::Gone => ("gone", None),
    };
    app.metrics.top_up(result);
    macro_rules! line {
        ($level:ident) => {
            tracing::$level!(
                top_up_id = claimed.id(),
                user_id = %claimed.user,
                price_id = claimed.price_id,
                customer_id = claimed.customer_id,
                payment_intent_id = claimed.payment_intent_id,
                attempts = claimed.attempts,
                result,
                reason,
                ms = milliseconds(took),
                "top_up"
            )
        };
    }
    match end {
        // Whatever Stripe or the price lacks needs somebody to look, unless it passes by itself.
        End::Later(_) if claimed.attempts > 2 => line!(error),
        End::Later(_) | End::Failed(_) => line!(warn),
        End::Paid | End::Canceled(_) | End::Gone => line!(info),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stripe::payments::PaymentError;

    fn intent(status: &str, code: Option<&str>) -> PaymentIntent {
        let error = code.map(|code| PaymentError { code: Some(code.to_owned()) });
        PaymentIntent { id: "pi_1".to_owned(), status: status.to_owned(), last_payment_error: error }
    }

    #[test]
    fn the_status_of_the_payment_intent_says_what_to_do() {
        let failed = |reason: &str| End::Failed(reason.to_owned());
        let canceled = |reason: &str| End::Canceled(reason.to_owned());
        let later = |reason: &str| Next::End(End::Later(reason.to_owned()));
        for (status, code, unwanted, is_tried, expected) in [
            ("requires_confirmation", None, None, false, Next::Confirm),
            ("requires_confirmation", None, None, true, later("not_confirmed")),
            ("requires_confirmation", None, Some("too_late"), false, Next::Cancel(canceled("too_late"))),
            ("succeeded", None, Some("turned_off"), false, Next::End(End::Paid)),
            ("processing", None, Some("turned_off"), false, later("processing")),
            (
                "requires_payment_method",
                Some("card_declined"),
                None,
                true,
                Next::Cancel(failed("card_declined")),
            ),
            ("requires_payment_method", None, None, true, Next::Cancel(failed("requires_payment_method"))),
            ("requires_action", None, None, true, Next::Cancel(failed("authentication_required"))),
            ("canceled", Some("card_declined"), None, false, Next::End(failed("card_declined"))),
            ("canceled", None, None, false, Next::End(canceled("canceled_at_stripe"))),
            ("canceled", None, Some("not_needed"), false, Next::End(canceled("not_needed"))),
        ] {
            assert_eq!(next(&intent(status, code), unwanted, is_tried), expected, "{status} {unwanted:?}");
        }
    }

    #[test]
    fn attempts_go_on_more_and_more_slowly() {
        let waits: Vec<u64> = (1..=8).map(retry_after).collect();
        assert_eq!(waits, [5, 30, 120, 600, 1_800, 3_600, 3_600, 3_600]);
    }
}
