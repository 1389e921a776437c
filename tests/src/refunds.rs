//! Builders of what Stripe sends about reversals: charges, refunds, disputes.

use serde_json::{Value, json};
use uuid::Uuid;

use crate::connection::Connection;
use crate::stripe::{CREATED, Event, event, paid_pack};

/// The event of a `price_pack` bought with `cs_name` and paid by `pi_name`.
pub fn bought(session_id: &str, user: Uuid) -> Event {
    paid_pack(session_id, user).completed(&format!("evt_{session_id}"))
}

/// A refund's event under its own id.
pub fn refunded(refund_id: &str, payment_intent: &str, amount: i64) -> Event {
    refund(refund_id, payment_intent, amount).event(&format!("evt_{refund_id}"), "refund.created")
}

/// The event of that refund's failure.
pub fn failed(refund_id: &str, payment_intent: &str, amount: i64) -> Event {
    refund(refund_id, payment_intent, amount)
        .with("status", "failed")
        .event(&format!("evt_{refund_id}_failed"), "refund.failed")
}

impl Connection {
    /// Buys `price_pack`: see [`bought`].
    pub fn buy(&mut self, user: Uuid, session_id: &str) {
        assert_eq!(self.apply(&bought(session_id, user)).summary(), "applied");
    }
}

/// One of Stripe's objects.
#[derive(Debug, Clone, PartialEq)]
pub struct Object(Value);

/// A refund that succeeded, in usd.
pub fn refund(refund_id: &str, payment_intent: &str, amount: i64) -> Object {
    Object(json!({
        "id": refund_id,
        "object": "refund",
        "amount": amount,
        "charge": charge_id(payment_intent),
        "created": CREATED,
        "currency": "usd",
        "payment_intent": payment_intent,
        "status": "succeeded",
    }))
}

/// A payment intent's charge with its own count of what was refunded of it, in the newer shape: without a list.
pub fn charge(payment_intent: &str, charged: i64, refunded: i64) -> Object {
    Object(json!({
        "id": charge_id(payment_intent),
        "object": "charge",
        "amount": charged,
        "amount_refunded": refunded,
        "created": CREATED,
        "currency": "usd",
        "payment_intent": payment_intent,
        "refunded": refunded == charged,
    }))
}

/// A dispute, in usd.
pub fn dispute(dispute_id: &str, payment_intent: &str, amount: i64, status: &str) -> Object {
    Object(json!({
        "id": dispute_id,
        "object": "dispute",
        "amount": amount,
        "charge": charge_id(payment_intent),
        "created": CREATED,
        "currency": "usd",
        "payment_intent": payment_intent,
        "status": status,
    }))
}

fn charge_id(payment_intent: &str) -> String {
    payment_intent.replacen("pi_", "ch_", 1)
}

impl Object {
    /// An object from its JSON.
    pub fn new(json: Value) -> Object {
        Object(json)
    }

    /// With fields left out.
    #[must_use]
    pub fn without(mut self, fields: &[&str]) -> Object {
        let object = self.0.as_object_mut().expect("Stripe's objects are objects");
        object.retain(|field, _| !fields.contains(&field.as_str()));
        self
    }

    /// With a field set.
    #[must_use]
    pub fn with(mut self, field: &str, value: impl Into<Value>) -> Object {
        self.0[field] = value.into();
        self
    }

    /// With the list of its refunds inside, as charges of older versions of the API have it.
    #[must_use]
    pub fn listing(self, refunds: &[Object]) -> Object {
        let data: Vec<&Value> = refunds.iter().map(Object::json).collect();
        let list = json!({ "object": "list", "has_more": false, "data": data });
        self.with("refunds", list)
    }

    /// The object.
    pub fn json(&self) -> &Value {
        &self.0
    }

    /// An event about it.
    #[must_use]
    pub fn event(&self, event_id: &str, event_type: &str) -> Event {
        event(event_id, event_type, self.0.clone())
    }
}
