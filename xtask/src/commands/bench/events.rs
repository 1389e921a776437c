//! The events that are applied, of the size of Stripe's.

use serde_json::{Map, Value, json};

use super::pgbench::Script;
use super::{ACCOUNTS, DATABASE};

/// The function of a client that has jsonb.
pub(super) const APPLY: &str = "billing.apply_stripe_event";
/// The shim's, of which the body's text is the argument.
pub(super) const APPLY_TEXT: &str = "billing.apply_stripe_event_text";

/// Fields that Stripe sends and that are not read here.
const ABSENT_FIELDS: u32 = 80;

/// A purchase of one pack by a random user.
pub(super) fn purchase<'a>(name: &'a str, function: &str) -> Script<'a> {
    let session = json!({
        "id": "cs_@n@", "object": "checkout.session", "mode": "payment", "payment_status": "paid", "status": "complete",
        "livemode": false, "created": 1_790_000_000, "customer": null, "payment_intent": "pi_@n@",
        "client_reference_id": null, "amount_total": 1000, "amount_subtotal": 1000, "currency": "usd",
        "success_url": "https://example.com/credits?credits_checkout=success&session_id={CHECKOUT_SESSION_ID}",
        "customer_details": { "email": "someone@example.com", "name": "Someone", "tax_exempt": "none", "tax_ids": [] },
        "payment_method_types": ["card", "link"], "total_details": { "amount_discount": 0, "amount_tax": 0 },
        "metadata": { "user_id": "@user@", "price_id": "price_pack", "quantity": "1", "fixed_lines": "true" },
    });
    script(name, function, "checkout.session.completed", session)
}

/// A random user's new subscription.
pub(super) fn subscription(name: &str) -> Script<'_> {
    let subscription = json!({
        "id": "sub_@n@", "object": "subscription", "status": "active", "livemode": false, "customer": "cus_@user@",
        "cancel_at_period_end": false, "metadata": { "user_id": "@user@" },
        "items": { "object": "list", "has_more": false, "data": [{
            "object": "subscription_item", "price": { "id": "price_pro", "object": "price" }, "quantity": 1,
            "current_period_start": 1_790_000_000, "current_period_end": 1_792_592_000,
        }] },
    });
    script(name, APPLY, "customer.subscription.created", subscription)
}

/// The paid invoice of a random user's subscription.
pub(super) fn invoice(name: &str) -> Script<'_> {
    let invoice = json!({
        "id": "in_@n@", "object": "invoice", "status": "paid", "livemode": false, "customer": "cus_@user@",
        "created": 1_790_000_000, "billing_reason": "subscription_cycle", "currency": "usd", "total": 10_000,
        "parent": { "type": "subscription_details", "subscription_details": {
            "subscription": "sub_@n@", "metadata": { "user_id": "@user@" } } },
        "lines": { "object": "list", "has_more": false, "data": [{
            "object": "line_item", "amount": 10_000, "quantity": 1,
            "pricing": { "type": "price_details", "price_details": { "price": "price_pro" } },
            "period": { "start": 1_790_000_000, "end": 1_792_592_000 },
        }] },
    });
    script(name, APPLY, "invoice.paid", invoice)
}

/// An event about an object, in which @n@ is new each time and @user@ one of the users.
fn script<'a>(name: &'a str, function: &str, event_type: &str, mut object: Value) -> Script<'a> {
    let absent: Map<String, Value> =
        (0..ABSENT_FIELDS).map(|n| (format!("field_that_is_null_{n}"), Value::Null)).collect();
    if let Some(object) = object.as_object_mut() {
        object.extend(absent);
    }
    let event = json!({
        "id": "evt_@n@", "object": "event", "api_version": "2025-09-30.clover", "created": 1_790_000_000,
        "livemode": false, "pending_webhooks": 1, "request": { "id": null, "idempotency_key": null },
        "type": event_type, "data": { "object": object },
    });
    // pgbench takes :word for a variable, in strings too, but puts none into them: no colon may touch what follows it, and
    // the text is cut open where a variable belongs.
    let text = event.to_string().replace("\":", "\": ");
    let text =
        text.replace("@n@", "' || :n::bigint || '").replace("@user@", "' || lpad(:u::text, 32, '0') || '");
    let argument = if function == APPLY_TEXT { "text" } else { "jsonb" };
    let text = format!(
        "\\set n random(1, 9000000000000000)\n\\set u random(1, {ACCOUNTS})\nselect {function}(('{text}')::{argument});\n"
    );
    Script { database: DATABASE, name, text }
}
