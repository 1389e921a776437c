//! `POST /subscription/change`, `/preview-change` and `/cancel`: the user's one subscription, changed at Stripe. The
//! books change when Stripe's webhooks say that it was paid.
//!
//! A change is billed at once and made only if that is paid (`always_invoice`, `pending_if_incomplete`). Where the new
//! plan grants its whole amount at once, its period begins anew, so that the whole amount is paid too.

use serde::Deserialize;
use serde_json::{Value, json};

use crate::app::App;
use crate::database::DatabaseError;
use crate::database::catalog::{Offer, OfferKind};
use crate::error::Error;
use crate::routes::checkout::Choice;
use crate::routes::user::{Asked, Reply, Subject};
use crate::stripe::client::{Answer, StripeError};
use crate::stripe::form::Form;
use crate::stripe::idempotency;

/// What is read of Stripe's subscription.
#[derive(Deserialize)]
struct Subscription {
    id: String,
    status: String,
    items: Items,
    #[serde(default)]
    cancel_at_period_end: bool,
    cancel_at: Option<i64>,
    /// What will be, once the latest invoice is paid.
    pending_update: Option<Value>,
    latest_invoice: Option<Value>,
}

#[derive(Deserialize)]
struct Items {
    data: Vec<Item>,
}

#[derive(Deserialize)]
struct Item {
    id: String,
    price: Price,
    #[serde(default = "one")]
    quantity: u32,
}

#[derive(Deserialize)]
struct Price {
    id: String,
}

fn one() -> u32 {
    1
}

/// A subscription as it is at Stripe, what shall become of it, and how that is billed.
struct Change {
    answer: Answer,
    subscription: Subscription,
    item: Item,
    choice: Choice,
    offer: Offer,
}

/// Changes the plan, or how many of it.
pub(crate) async fn change(app: &App, asked: &Asked, subject: &mut Subject) -> Result<Reply, Error> {
    let change = Change::read(app, asked, subject).await?;
    let Change { subscription, item, choice, .. } = &change;
    if item.price.id == choice.price_id && item.quantity == choice.quantity {
        // Under a new anchor even no change would be billed.
        return Ok(changed(subscription, choice, "unchanged"));
    }
    let form =
        change.form("").with("payment_behavior", "pending_if_incomplete").with("expand[]", "latest_invoice");
    let key = idempotency::of_change(&change.answer, &form);
    let path = format!("/v1/subscriptions/{}", subscription.id);
    let answer = app.stripe()?.post(&path, &form, &key).await.map_err(Error::Gateway)?;
    let after: Subscription = answer.read().map_err(Error::Gateway)?;
    let status = if after.pending_update.is_some() { "payment_required" } else { "changed" };
    Ok(changed(&after, choice, status))
}

/// What a change would cost now; nothing is changed.
pub(crate) async fn preview(app: &App, asked: &Asked, subject: &mut Subject) -> Result<Reply, Error> {
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
    let change = Change::read(app, asked, subject).await?;
    let form = change.form("subscription_details").with("subscription", &change.subscription.id);
    let answer = app
        .stripe()?
        .post("/v1/invoices/create_preview", &form, &idempotency::fresh())
        .await
        .map_err(Error::Gateway)?;
    let invoice: Invoice = answer.read().map_err(Error::Gateway)?;
    let lines: Vec<Value> = invoice
        .lines
        .data
        .iter()
        .map(|line| json!({"description": line.description, "amount": line.amount}))
        .collect();
    let preview = json!({
        "ok": true,
        "price_id": change.choice.price_id,
        "quantity": change.choice.quantity,
        "currency": invoice.currency,
        "subtotal": invoice.subtotal,
        "total": invoice.total,
        "amount_due": invoice.amount_due,
        "lines": lines,
    });
    Ok(Reply::done(preview.to_string()))
}

/// Lets the subscription end with its period; until then it stays paid for and may be used.
pub(crate) async fn cancel(app: &App, asked: &Asked) -> Result<Reply, Error> {
    let id = app.database.live_subscription(asked.user.id()).await?.ok_or(Error::NoSubscription)?;
    let form = Form::default().with("cancel_at_period_end", true);
    let path = subscription_path(&id)?;
    let answer =
        app.stripe()?.post(&path, &form, &idempotency::fresh()).await.map_err(|error| match error {
            StripeError::NotFound => Error::NoSubscription,
            error => Error::Gateway(error),
        })?;
    let after: Subscription = answer.read().map_err(Error::Gateway)?;
    let canceled = json!({
        "ok": true,
        "subscription_id": after.id,
        "cancel_at_period_end": after.cancel_at_period_end,
        "cancel_at": after.cancel_at,
    });
    Ok(Reply::done(canceled.to_string()))
}

impl Change {
    /// Reads the choice, and the subscription as Stripe has it now.
    async fn read(app: &App, asked: &Asked, subject: &mut Subject) -> Result<Self, Error> {
        let (choice, offer) = Choice::read(app, asked, subject).await?;
        if offer.kind != OfferKind::Plan {
            return Err(Error::InvalidPrice);
        }
        let id = app.database.live_subscription(asked.user.id()).await?.ok_or(Error::NoSubscription)?;
        let answer = app.stripe()?.get(&subscription_path(&id)?).await.map_err(|error| match error {
            StripeError::NotFound => Error::NoSubscription,
            error => Error::Gateway(error),
        })?;
        let mut subscription: Subscription = answer.read().map_err(Error::Gateway)?;
        if !matches!(subscription.status.as_str(), "active" | "trialing" | "past_due") {
            return Err(Error::NoSubscription);
        }
        let items = std::mem::take(&mut subscription.items.data);
        let item = plan_item(app, items).await?.ok_or(Error::NoSubscription)?;
        Ok(Self { answer, subscription, item, choice, offer })
    }

    /// The change itself, its fields within `parent` where a preview wants them there.
    fn form(&self, parent: &str) -> Form {
        let name = |field: &str| match (parent, field.split_once('[')) {
            ("", _) => field.to_owned(),
            (parent, Some((outer, inner))) => format!("{parent}[{outer}][{inner}"),
            (parent, None) => format!("{parent}[{field}]"),
        };
        let form = Form::default()
            .with(name("items[0][id]"), &self.item.id)
            .with(name("items[0][price]"), &self.choice.price_id)
            .with(name("items[0][quantity]"), self.choice.quantity)
            .with(name("proration_behavior"), "always_invoice");
        if self.offer.change_resets { form.with(name("billing_cycle_anchor"), "now") } else { form }
    }
}

/// The item that is the plan: the only one, or the one whose price the catalog has as a plan.
async fn plan_item(app: &App, items: Vec<Item>) -> Result<Option<Item>, Error> {
    if items.len() == 1 {
        return Ok(items.into_iter().next());
    }
    for item in items {
        if app.database.is_plan(&item.price.id).await? {
            return Ok(Some(item));
        }
    }
    Ok(None)
}

fn changed(subscription: &Subscription, choice: &Choice, status: &str) -> Reply {
    let invoice = subscription.latest_invoice.as_ref().filter(|_| status == "payment_required");
    let changed = json!({
        "ok": status != "payment_required",
        "status": status,
        "subscription_id": subscription.id,
        "price_id": choice.price_id,
        "quantity": choice.quantity,
        // Where the user pays what the card did not.
        "hosted_invoice_url": invoice.and_then(|invoice| invoice.get("hosted_invoice_url")),
    });
    Reply::done(changed.to_string())
}

/// The id comes from the books, and they have it from Stripe; it still must be one segment of a path.
fn subscription_path(id: &str) -> Result<String, Error> {
    if id.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_') {
        Ok(format!("/v1/subscriptions/{id}"))
    } else {
        Err(DatabaseError::UnexpectedAnswer("the subscription's id is not one of Stripe's".to_owned()).into())
    }
}
