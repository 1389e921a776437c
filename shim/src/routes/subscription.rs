//! `POST /subscription/change`, `/subscription/preview-change` and `/subscription/cancel`: change the user's
//! subscription at Stripe. The database changes when the webhooks arrive.
//!
//! More credits, or a longer interval, are billed at once, from a new billing anchor, so that whole credits are wholly
//! paid; the change takes effect only if that is. Fewer credits at one interval take effect at once, cost nothing now and
//! give no money back. A shorter interval waits for the end of the period that was paid for.

mod effect;
mod schedule;
mod change;
mod current;

use serde::Deserialize;
use serde_json::{Value, json};
use stripe_credits_rules::plan_change::Timing;

use self::change::Change;
use self::current::{Current, path};
use self::effect::Effect;
use crate::app::App;
use crate::error::Error;
use crate::routes::request::{LogFields, Reply};
use crate::routes::user::AuthenticatedRequest;
use crate::stripe::client::{StripeError, StripeObject};
use crate::stripe::form::Form;
use crate::stripe::idempotency;
use crate::stripe::objects::Subscription;

/// What became of a change.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Status {
    Changed,
    Unchanged,
    /// It is made when an invoice is paid that is open now.
    PaymentRequired,
    /// It is made when the period ends.
    Scheduled,
}

/// Changes the plan or the quantity.
pub(crate) async fn change(
    app: &App,
    request: &AuthenticatedRequest,
    fields: &mut LogFields,
) -> Result<Reply, Error> {
    let change = Change::read(app, request, fields).await?;
    let user = request.user.id();
    let open = change.current.subscription.latest_invoice.as_ref().filter(|_| change.is_pending());
    if let Some(invoice) = open {
        let effect = match of_json(invoice, change.current.object.as_of) {
            Some(invoice) => Effect::of_invoice(app, user, &change, &invoice).await?,
            None => Effect::none(app, user).await?,
        };
        return Ok(change_reply(&change, &effect, Status::PaymentRequired, Some(invoice)));
    }
    if change.timing == Timing::AtPeriodEnd && !change.is_made() {
        check_goes_on(&change)?;
        schedule::make(app, &change).await?;
        return Ok(change_reply(&change, &Effect::none(app, user).await?, Status::Scheduled, None));
    }
    // The user has thought better of what was scheduled.
    schedule::release(app, &change.current).await?;
    if change.is_made() {
        return Ok(change_reply(&change, &Effect::none(app, user).await?, Status::Unchanged, None));
    }
    let effect = match change.timing {
        Timing::Invoiced => {
            Effect::of_invoice(app, user, &change, &preview_invoice(app, &change).await?).await?
        }
        _ => Effect::of_state(app, user, &change).await?,
    };
    let form = change.form();
    let key = idempotency::for_change(&change.current.object, &form);
    let subscription_path = path(&change.current.subscription.id);
    let object = app.stripe()?.post(&subscription_path, &form, &key).await.map_err(Error::BadGateway)?;
    let after: Subscription = object.read().map_err(Error::BadGateway)?;
    if after.pending_update.is_some() {
        return Ok(change_reply(&change, &effect, Status::PaymentRequired, after.latest_invoice.as_ref()));
    }
    if change.timing == Timing::Invoiced {
        tell_plan(app, &change).await;
    }
    Ok(change_reply(&change, &effect, Status::Changed, None))
}

/// What a change would cost and do now; nothing is changed.
pub(crate) async fn preview(
    app: &App,
    request: &AuthenticatedRequest,
    fields: &mut LogFields,
) -> Result<Reply, Error> {
    let change = Change::read(app, request, fields).await?;
    let user = request.user.id();
    if change.is_made() {
        return Ok(preview_reply(&change, &Effect::none(app, user).await?, None));
    }
    let (effect, invoice) = match change.timing {
        Timing::Invoiced => {
            let invoice = preview_invoice(app, &change).await?;
            (
                Effect::of_invoice(app, user, &change, &invoice).await?,
                Some(invoice.read().map_err(Error::BadGateway)?),
            )
        }
        Timing::Uninvoiced => (Effect::of_state(app, user, &change).await?, None),
        Timing::AtPeriodEnd => {
            check_goes_on(&change)?;
            (Effect::none(app, user).await?, None)
        }
    };
    Ok(preview_reply(&change, &effect, invoice))
}

/// Cancels the subscription at the end of its period; until then it remains usable.
pub(crate) async fn cancel(app: &App, request: &AuthenticatedRequest) -> Result<Reply, Error> {
    let current = Current::read(app, request.user.id()).await?;
    schedule::release(app, &current).await?;
    let form = Form::default().with("cancel_at_period_end", true);
    let object =
        app.stripe()?.post(&path(&current.subscription.id), &form, &idempotency::fresh()).await.map_err(
            |error| match error {
                StripeError::NotFound => Error::NoSubscription,
                error => Error::BadGateway(error),
            },
        )?;
    let after: Subscription = object.read().map_err(Error::BadGateway)?;
    let body = json!({
        "ok": true,
        "subscription_id": after.id,
        "cancel_at_period_end": after.cancel_at_period_end,
        "cancel_at": after.cancel_at,
    });
    Ok(Reply::done(body.to_string()))
}

/// Only a subscription that goes on can change when its period ends.
fn check_goes_on(change: &Change) -> Result<(), Error> {
    if change.current.subscription.ends() { Err(Error::SubscriptionEnds) } else { Ok(()) }
}

/// Stripe's preview of the invoice that the change makes.
async fn preview_invoice(app: &App, change: &Change) -> Result<StripeObject, Error> {
    let form = change.preview_form();
    let path = "/v1/invoices/create_preview";
    app.stripe()?.post(path, &form, &idempotency::fresh()).await.map_err(Error::BadGateway)
}

/// Writes the new plan into the subscription's metadata. It is for people: without it the change is made all the same.
async fn tell_plan(app: &App, change: &Change) {
    let Some(form) = change.metadata_form() else { return };
    let key = idempotency::for_change(&change.current.object, &form);
    let Ok(stripe) = app.stripe() else { return };
    if let Err(error) = stripe.post(&path(&change.current.subscription.id), &form, &key).await {
        tracing::warn!(%error, "the plan's key is not in the subscription's metadata");
    }
}

/// An object that was expanded in one that was read at a time.
fn of_json(object: &Value, as_of: u64) -> Option<StripeObject> {
    let json = serde_json::value::to_raw_value(object).ok().filter(|_| object.is_object())?;
    Some(StripeObject { json, as_of })
}

/// Stripe's preview of an invoice; only the fields that are shown.
#[derive(Deserialize)]
struct Invoice {
    amount_due: i64,
    currency: String,
    subtotal: i64,
    total: i64,
    lines: Lines,
}

#[derive(Deserialize)]
struct Lines {
    data: Vec<Line>,
}

#[derive(Deserialize)]
struct Line {
    amount: i64,
    description: Option<String>,
}

fn preview_reply(change: &Change, effect: &Effect, invoice: Option<Invoice>) -> Reply {
    let mut body = common(change, effect);
    body["ok"] = json!(true);
    let Some(invoice) = invoice else {
        // Nothing is billed now.
        body["currency"] = json!(change.current.subscription.currency);
        for amount in ["subtotal", "total", "amount_due"] {
            body[amount] = json!(0);
        }
        body["lines"] = json!([]);
        return Reply::done(body.to_string());
    };
    let lines: Vec<Value> = invoice
        .lines
        .data
        .iter()
        .map(|line| json!({"description": line.description, "amount": line.amount}))
        .collect();
    body["currency"] = json!(invoice.currency);
    body["subtotal"] = json!(invoice.subtotal);
    body["total"] = json!(invoice.total);
    body["amount_due"] = json!(invoice.amount_due);
    body["lines"] = json!(lines);
    body["proration_date"] = json!(change.proration_date);
    Reply::done(body.to_string())
}

fn change_reply(change: &Change, effect: &Effect, status: Status, invoice: Option<&Value>) -> Reply {
    let mut body = common(change, effect);
    body["ok"] = json!(status != Status::PaymentRequired);
    body["status"] = json!(status.as_str());
    body["subscription_id"] = json!(change.current.subscription.id);
    // Where the user can complete the payment.
    body["hosted_invoice_url"] = json!(invoice.and_then(|invoice| invoice.get("hosted_invoice_url")));
    Reply::done(body.to_string())
}

/// What both say of a change.
fn common(change: &Change, effect: &Effect) -> Value {
    let now = change.current.now;
    let (takes_effect_at, billed_at) = match change.timing {
        _ if change.is_made() => (None, None),
        Timing::Invoiced => (Some(now), Some(now)),
        Timing::Uninvoiced => (Some(now), Some(change.period_end)),
        Timing::AtPeriodEnd => (Some(change.period_end), Some(change.period_end)),
    };
    json!({
        "price_id": change.choice.price_id,
        "quantity": change.choice.quantity,
        "direction": change.direction.as_str(),
        "credits_now": effect.credits_now,
        "credits_after": effect.credits_after,
        "debt_after": effect.debt_after,
        "takes_effect_at": takes_effect_at,
        "billed_at": billed_at,
    })
}

impl Status {
    fn as_str(self) -> &'static str {
        match self {
            Self::Changed => "changed",
            Self::Unchanged => "unchanged",
            Self::PaymentRequired => "payment_required",
            Self::Scheduled => "scheduled",
        }
    }
}
