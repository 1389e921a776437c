//! Builders of what Stripe sends about payments beside sessions: payment intents, invoices without a subscription, credit
//! notes.

use serde_json::{Value, json};
use uuid::Uuid;

use crate::refunds::Object;
use crate::stripe::CREATED;

/// A payment intent of $10 that succeeded, off session, for one `price_pack` of this user.
pub fn top_up(payment_intent: &str, user: Uuid) -> Object {
    payment_intent_of(payment_intent)
        .with("metadata", json!({ "user_id": user.to_string(), "price_id": "price_pack", "quantity": "1" }))
}

/// A payment intent of $10 that succeeded and whose metadata say nothing.
pub fn payment_intent_of(payment_intent: &str) -> Object {
    Object::new(json!({
        "id": payment_intent,
        "object": "payment_intent",
        "amount": 1000,
        "amount_received": 1000,
        "created": CREATED,
        "currency": "usd",
        "customer": null,
        "latest_charge": payment_intent.replacen("pi_", "ch_", 1),
        "metadata": {},
        "status": "succeeded",
    }))
}

/// A paid invoice of $10 without a subscription, in the newer shape: it does not say what paid it.
pub fn pack_invoice(invoice_id: &str, lines: &[(&str, i64)]) -> Object {
    let data: Vec<Value> = lines
        .iter()
        .enumerate()
        .map(|(index, (price, quantity))| {
            json!({
                "id": format!("il_{}", index + 1),
                "object": "line_item",
                "amount": 1000 * quantity,
                "period": { "start": CREATED, "end": CREATED },
                "pricing": { "price_details": { "price": price, "product": format!("prod_{price}") } },
                "quantity": quantity,
            })
        })
        .collect();
    Object::new(json!({
        "id": invoice_id,
        "object": "invoice",
        "created": CREATED,
        "currency": "usd",
        "customer": "cus_1",
        "lines": { "object": "list", "has_more": false, "data": data },
        "metadata": {},
        "parent": null,
        "status": "paid",
        "total": 1000,
    }))
}

/// Which payment intent paid which invoice.
pub fn invoice_payment(invoice_id: &str, payment_intent: &str) -> Object {
    Object::new(json!({
        "id": format!("inpay_{invoice_id}"),
        "object": "invoice_payment",
        "invoice": invoice_id,
        "payment": { "type": "payment_intent", "payment_intent": payment_intent },
        "status": "paid",
    }))
}

/// A credit note over an invoice that was paid, in the newer shape, without a refund.
pub fn credit_note(note_id: &str, invoice_id: &str, amount: i64) -> Object {
    Object::new(json!({
        "id": note_id,
        "object": "credit_note",
        "amount": amount,
        "created": CREATED,
        "currency": "usd",
        "invoice": invoice_id,
        "post_payment_amount": amount,
        "pre_payment_amount": 0,
        "refunds": [],
        "status": "issued",
        "total": amount,
        "type": "post_payment",
    }))
}

/// The same in the shape of 2020: `refund` is the only word of what became of the money.
pub fn older_credit_note(note_id: &str, invoice_id: &str, amount: i64, refund: Option<&str>) -> Object {
    credit_note(note_id, invoice_id, amount)
        .without(&["post_payment_amount", "pre_payment_amount", "refunds"])
        .with("refund", refund.map_or(Value::Null, Value::from))
}
