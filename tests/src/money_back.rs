//! What Stripe would send about money that goes back: charges, refunds, disputes.

use serde_json::{Value, json};

use crate::stripe::{CREATED, Event, event};

/// A charge, a refund or a dispute.
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
