//! `POST /subscription/change`, `/subscription/preview-change` and `/subscription/cancel`: change the user's
//! subscription at Stripe. The database changes when the webhooks of the payment arrive.
//!
//! A change is billed at once and takes effect only if that is paid (`always_invoice`, `pending_if_incomplete`). If
//! the new plan grants its whole amount at once, a new billing period starts, so that the whole amount is paid too.

use serde::Deserialize;
use serde_json::{Value, json};
use stripe_credits_rules::subscription::Status;

use crate::app::App;
use crate::database::DatabaseError;
use crate::database::catalog::{Offer, OfferKind};
use crate::error::Error;
use crate::routes::checkout::Choice;
use crate::routes::user::{AuthenticatedRequest, LogFields, Reply};
use crate::stripe::client::{StripeError, StripeObject};
use crate::stripe::form::Form;
use crate::stripe::idempotency;

/// Stripe's subscription; only the fields that are used.
#[derive(Deserialize)]
struct StripeSubscription {
    id: String,
    status: String,
    items: ItemList,
    #[serde(default)]
    cancel_at_period_end: bool,
    cancel_at: Option<i64>,
    /// The change that takes effect when the latest invoice is paid.
    pending_update: Option<Value>,
    latest_invoice: Option<Value>,
}

#[derive(Deserialize)]
struct ItemList {
    data: Vec<SubscriptionItem>,
}

#[derive(Deserialize)]
struct SubscriptionItem {
    id: String,
    price: ItemPrice,
    #[serde(default = "one")]
    quantity: u32,
}

#[derive(Deserialize)]
struct ItemPrice {
    id: String,
}

fn one() -> u32 {
    1
}

/// A change of a subscription: its current state at Stripe, the item to change, the choice, and the offer of that.
struct Change {
    object: StripeObject,
    subscription: StripeSubscription,
    item: SubscriptionItem,
    choice: Choice,
    offer: Offer,
}

/// Changes the plan or the quantity.
pub(crate) async fn change(
    app: &App,
    request: &AuthenticatedRequest,
    fields: &mut LogFields,
) -> Result<Reply, Error> {
    let change = Change::read(app, request, fields).await?;
    let Change { subscription, item, choice, .. } = &change;
    if item.price.id == choice.price_id && item.quantity == choice.quantity {
        // With a new billing anchor even this would be billed.
        return Ok(change_reply(subscription, choice, "unchanged"));
    }
    let form =
        change.form("").with("payment_behavior", "pending_if_incomplete").with("expand[]", "latest_invoice");
    let key = idempotency::for_change(&change.object, &form);
    let path = format!("/v1/subscriptions/{}", subscription.id);
    let object = app.stripe()?.post(&path, &form, &key).await.map_err(Error::BadGateway)?;
    let after: StripeSubscription = object.read().map_err(Error::BadGateway)?;
    let status = if after.pending_update.is_some() { "payment_required" } else { "changed" };
    Ok(change_reply(&after, choice, status))
}

/// The cost of a change now; nothing is changed.
pub(crate) async fn preview(
    app: &App,
    request: &AuthenticatedRequest,
    fields: &mut LogFields,
) -> Result<Reply, Error> {
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
    let change = Change::read(app, request, fields).await?;
    let form = change.form("subscription_details").with("subscription", &change.subscription.id);
    let object = app
        .stripe()?
        .post("/v1/invoices/create_preview", &form, &idempotency::fresh())
        .await
        .map_err(Error::BadGateway)?;
    let invoice: Invoice = object.read().map_err(Error::BadGateway)?;
    let lines: Vec<Value> = invoice
        .lines
        .data
        .iter()
        .map(|line| json!({"description": line.description, "amount": line.amount}))
        .collect();
    let body = json!({
        "ok": true,
        "price_id": change.choice.price_id,
        "quantity": change.choice.quantity,
        "currency": invoice.currency,
        "subtotal": invoice.subtotal,
        "total": invoice.total,
        "amount_due": invoice.amount_due,
        "lines": lines,
    });
    Ok(Reply::done(body.to_string()))
}

/// Cancels the subscription at the end of its period; until then it remains usable.
pub(crate) async fn cancel(app: &App, request: &AuthenticatedRequest) -> Result<Reply, Error> {
    let id = app.database.live_subscription(request.user.id()).await?.ok_or(Error::NoSubscription)?;
    let form = Form::default().with("cancel_at_period_end", true);
    let path = subscription_path(&id)?;
    let object =
        app.stripe()?.post(&path, &form, &idempotency::fresh()).await.map_err(|error| match error {
            StripeError::NotFound => Error::NoSubscription,
            error => Error::BadGateway(error),
        })?;
    let after: StripeSubscription = object.read().map_err(Error::BadGateway)?;
    let body = json!({
        "ok": true,
        "subscription_id": after.id,
        "cancel_at_period_end": after.cancel_at_period_end,
        "cancel_at": after.cancel_at,
    });
    Ok(Reply::done(body.to_string()))
}

impl Change {
    /// Reads the choice, and the current state of the subscription at Stripe.
    async fn read(app: &App, request: &AuthenticatedRequest, fields: &mut LogFields) -> Result<Self, Error> {
        let (choice, offer) = Choice::read(app, request, fields).await?;
        if offer.kind != OfferKind::Plan {
            return Err(Error::InvalidPrice);
        }
        let id = app.database.live_subscription(request.user.id()).await?.ok_or(Error::NoSubscription)?;
        let object = app.stripe()?.get(&subscription_path(&id)?).await.map_err(|error| match error {
            StripeError::NotFound => Error::NoSubscription,
            error => Error::BadGateway(error),
        })?;
        let mut subscription: StripeSubscription = object.read().map_err(Error::BadGateway)?;
        if !Status::parse(&subscription.status).is_some_and(Status::names_tier) {
            return Err(Error::NoSubscription);
        }
        let items = std::mem::take(&mut subscription.items.data);
        let item = plan_item(app, items).await?.ok_or(Error::NoSubscription)?;
        Ok(Self { object, subscription, item, choice, offer })
    }

    /// The form of the change; a preview needs its fields within `parent`.
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

/// The item of the plan: the only item, or else the one with a plan's price in the catalog.
async fn plan_item(app: &App, items: Vec<SubscriptionItem>) -> Result<Option<SubscriptionItem>, Error> {
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

fn change_reply(subscription: &StripeSubscription, choice: &Choice, status: &str) -> Reply {
    let invoice = subscription.latest_invoice.as_ref().filter(|_| status == "payment_required");
    let body = json!({
        "ok": status != "payment_required",
        "status": status,
        "subscription_id": subscription.id,
        "price_id": choice.price_id,
        "quantity": choice.quantity,
        // Where the user can complete the payment.
        "hosted_invoice_url": invoice.and_then(|invoice| invoice.get("hosted_invoice_url")),
    });
    Reply::done(body.to_string())
}

/// The id comes from the database, and originally from Stripe, but it still must be one segment of a path.
fn subscription_path(id: &str) -> Result<String, Error> {
    if id.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_') {
        Ok(format!("/v1/subscriptions/{id}"))
    } else {
        Err(DatabaseError::UnexpectedAnswer("the subscription's id is not one of Stripe's".to_owned()).into())
    }
}
