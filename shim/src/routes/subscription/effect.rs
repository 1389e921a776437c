//! What a change does to the user's balance, before it is made: `billing.explain_event` on the event that will say what
//! the change has done. So what is shown is what is posted.

use serde_json::{Value, json};
use uuid::Uuid;

use crate::app::App;
use crate::clock::unix_now;
use crate::config::StripeMode;
use crate::delivery;
use crate::error::Error;
use crate::event::Event;
use crate::outcome::Outcome;
use crate::routes::subscription::change::Change;
use crate::stripe::client::{StripeError, StripeObject};

/// The beginning of the ids that Stripe gives to previews of invoices, which no invoice has.
const PREVIEW_ID_PREFIX: &str = "upcoming_";

/// What a change does to the balance.
pub(crate) struct Effect {
    /// The change of the balance.
    pub(crate) credits_now: i64,
    /// The balance then.
    pub(crate) credits_after: i64,
    /// The debt then.
    pub(crate) debt_after: i64,
}

impl Effect {
    /// None: nothing happens now.
    pub(crate) async fn none(app: &App, user: Uuid) -> Result<Self, Error> {
        let (credits_after, debt_after) = app.database.balance(user).await?;
        Ok(Self { credits_now: 0, credits_after, debt_after })
    }

    /// The effect of an invoice of the change once it is paid: Stripe's preview of it, or one that is still open.
    pub(crate) async fn of_invoice(
        app: &App,
        user: Uuid,
        change: &Change,
        invoice: &StripeObject,
    ) -> Result<Self, Error> {
        let mut paid: Value = invoice.read().map_err(Error::BadGateway)?;
        // Stripe opens the new period when it makes the preview, which is up to a minute after the proration's date;
        // by a test clock the two are one.
        let is_by_clock = change.current.subscription.test_clock.is_some();
        let paid_at = if is_by_clock { change.current.now } else { change.proration_date.max(invoice.as_of) };
        paid["status"] = json!("paid");
        paid["status_transitions"] = json!({"paid_at": paid_at});
        let has_own_id = paid["id"].as_str().is_some_and(|id| id.starts_with(PREVIEW_ID_PREFIX));
        if !has_own_id {
            paid["id"] = json!(format!("{PREVIEW_ID_PREFIX}in_{}", Uuid::new_v4().simple()));
        }
        let event = event(app, &paid, "invoice.paid", invoice.as_of)?;
        let outcome = delivery::explain(&app.database, app.stripe()?, &event).await;
        Self::read(&outcome.map_err(Error::into_bad_gateway)?, user)
    }

    /// The effect of the subscription's new state, if no invoice comes with it.
    pub(crate) async fn of_state(app: &App, user: Uuid, change: &Change) -> Result<Self, Error> {
        let mut after: Value = change.current.object.read().map_err(Error::BadGateway)?;
        let items = after["items"]["data"].as_array_mut().into_iter().flatten();
        for item in items.filter(|item| item["id"] == change.item().id) {
            item["price"] = match &change.price {
                Some(found) => found.object.read().map_err(Error::BadGateway)?,
                None => json!({"id": change.choice.price_id, "object": "price"}),
            };
            item["plan"] = Value::Null;
            item["quantity"] = change.choice.quantity.into();
        }
        // The database's clock may be behind Stripe's, and what will be true is not posted yet.
        let as_of = change.current.object.as_of.min(unix_now());
        let event = event(app, &after, "customer.subscription.updated", as_of)?;
        // Also if another state of the same second is known, it is this one that will be true.
        let fetched = json!({"as_of": as_of, "objects": [after]}).to_string();
        Self::read(&app.database.explain_event(&event, Some(&fetched)).await?, user)
    }

    /// Reads what explaining an event answered.
    fn read(outcome: &Outcome, user: Uuid) -> Result<Self, Error> {
        let is_users = outcome.user_id().is_some_and(|id| id == user.to_string());
        let (credits_after, debt_after) =
            outcome.balance().filter(|_| is_users).ok_or(Error::NoSubscription)?;
        // While there is a debt, the balance is 0.
        let net_before = credits_after - debt_after - outcome.credits().unwrap_or(0);
        Ok(Self { credits_now: credits_after - net_before.max(0), credits_after, debt_after })
    }
}

fn event(app: &App, object: &Value, event_type: &str, as_of: u64) -> Result<Event, Error> {
    let mode = app.mode.unwrap_or(StripeMode::Test);
    Event::preview(object, event_type, as_of, mode)
        .map_err(|fault| Error::BadGateway(StripeError::Malformed(fault.to_string())))
}
