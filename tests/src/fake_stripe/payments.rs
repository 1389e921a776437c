//! What the fake does to payment intents that charge a saved card: it makes, confirms and cancels them by Stripe's rules of their
//! statuses. What a card does is in its payment method's id: [`DECLINED`], [`AUTHENTICATION`], [`SLOW`]; any other pays.

use std::collections::BTreeMap;

use hyper::StatusCode;
use serde_json::{Value, json};

use super::invoices::{happened, metadata, number};
use super::{Books, FakeStripe, Made};
use crate::stripe::Event;

/// A card that is declined.
pub const DECLINED: &str = "pm_declined";
/// A card whose bank wants to see its holder.
pub const AUTHENTICATION: &str = "pm_authentication";
/// A payment method that pays days later.
pub const SLOW: &str = "pm_slow";

type Form = BTreeMap<String, String>;

impl FakeStripe {
    /// Stripe has this customer, with these saved cards, newest first, and this default for invoices.
    pub fn knows_customer(&self, id: &str, default: Option<&str>, cards: &[&str]) {
        let path = format!("/v1/customers/{id}");
        let customer = json!({
            "id": id, "object": "customer", "livemode": false,
            "invoice_settings": {"default_payment_method": default},
        });
        let cards = cards.iter().map(|card| json!({"id": card, "object": "payment_method", "type": "card"}));
        let mut state = self.state();
        state.books.lists.insert(format!("{path}/payment_methods"), cards.collect());
        state.books.objects.insert(path, customer);
    }

    /// Stripe sells this once, for so many cents.
    pub fn sells_once(&self, price: &str, cents: i64) {
        self.knows_at(
            &format!("/v1/prices/{price}"),
            json!({
                "id": price, "object": "price", "active": true, "currency": "usd", "livemode": false, "product": "prod_pack",
                "type": "one_time", "billing_scheme": "per_unit", "unit_amount": cents, "recurring": null,
                "transform_quantity": null, "tax_behavior": "unspecified", "metadata": {},
            }),
        );
    }

    /// The payment intents that it has.
    #[must_use]
    pub fn payment_intents(&self) -> Vec<Value> {
        let state = self.state();
        let of_path = |(path, object): (&String, &Value)| {
            path.starts_with("/v1/payment_intents/").then(|| object.clone())
        };
        state.books.objects.iter().filter_map(of_path).collect()
    }

    /// The events that happened, oldest first.
    #[must_use]
    pub fn events(&self) -> Vec<Event> {
        let state = self.state();
        let listed = state.books.lists.get("/v1/events").into_iter().flatten();
        listed.rev().cloned().map(Event::received).collect()
    }

    /// A payment that was slow succeeds now.
    pub fn settle_payment(&self, id: &str, now: i64) {
        pay(&mut self.state().books, &format!("/v1/payment_intents/{id}"), now);
    }
}

/// <https://docs.stripe.com/api/payment_intents/create>, without `confirm`.
pub(super) fn create(books: &mut Books, form: &Form, now: i64, made: usize) -> Made {
    let id = format!("pi_made_{made}");
    let intent = json!({
        "id": id, "object": "payment_intent", "livemode": false, "created": now, "status": "requires_confirmation",
        "customer": form.get("customer"), "payment_method": form.get("payment_method"),
        "currency": form.get("currency"), "amount": number(form, "amount"), "amount_received": 0,
        "last_payment_error": null, "latest_charge": null, "metadata": metadata(form),
    });
    books.objects.insert(format!("/v1/payment_intents/{id}"), intent.clone());
    (StatusCode::OK, intent)
}

/// <https://docs.stripe.com/api/payment_intents/confirm>
pub(super) fn confirm(books: &mut Books, path: &str, now: i64) -> Option<Made> {
    let intent = books.objects.get_mut(path)?;
    if intent["status"] != "requires_confirmation" {
        return Some(unexpected_state(intent));
    }
    let code = match intent["payment_method"].as_str() {
        Some(DECLINED) => "card_declined",
        Some(AUTHENTICATION) => "authentication_required",
        Some(SLOW) => {
            intent["status"] = "processing".into();
            return Some((StatusCode::OK, intent.clone()));
        }
        _ => return Some((StatusCode::OK, pay(books, path, now)?)),
    };
    let error = json!({"type": "card_error", "code": code, "message": "Your card was declined."});
    intent["status"] = "requires_payment_method".into();
    intent["payment_method"] = Value::Null;
    intent["last_payment_error"] = error.clone();
    let mut answer = error;
    answer["payment_intent"] = intent.clone();
    Some((StatusCode::PAYMENT_REQUIRED, json!({"error": answer})))
}

/// <https://docs.stripe.com/api/payment_intents/cancel>
pub(super) fn cancel(books: &mut Books, path: &str) -> Option<Made> {
    let intent = books.objects.get_mut(path)?;
    if matches!(intent["status"].as_str(), Some("succeeded" | "canceled" | "processing")) {
        return Some(unexpected_state(intent));
    }
    intent["status"] = "canceled".into();
    Some((StatusCode::OK, intent.clone()))
}

fn pay(books: &mut Books, path: &str, now: i64) -> Option<Value> {
    let intent = books.objects.get_mut(path)?;
    intent["status"] = "succeeded".into();
    intent["amount_received"] = intent["amount"].clone();
    intent["latest_charge"] = path.rsplit('/').next()?.replacen("pi_", "ch_", 1).into();
    let intent = intent.clone();
    happened(books, "payment_intent.succeeded", &intent, now);
    Some(intent)
}

fn unexpected_state(intent: &Value) -> Made {
    let error = json!({
        "type": "invalid_request_error", "code": "payment_intent_unexpected_state", "payment_intent": intent,
        "message": "The PaymentIntent's status does not allow this.",
    });
    (StatusCode::BAD_REQUEST, json!({"error": error}))
}
