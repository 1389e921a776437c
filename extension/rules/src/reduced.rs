//! An event without what it says of a person: of each object the fields that the rules read, wherever they are nested,
//! and of metadata the keys that they read. What is left is read as the same event.
//!
//! A list of what is kept, and not of what goes: a field that Stripe adds later is not kept by accident.

use serde_json::{Map, Value};

use crate::payment_intent::TOP_UP_ID;

/// The fields that the rules read, of any object.
const FIELDS: &[&str] = &[
    "account",
    "amount",
    "amount_received",
    "amount_refunded",
    "amount_total",
    "api_version",
    "as_of",
    "balance_transactions",
    "cancel_at",
    "cancel_at_period_end",
    "canceled_at",
    "charge",
    "charges",
    "client_reference_id",
    "created",
    "credited_items",
    "currency",
    "current_period_end",
    "current_period_start",
    "customer",
    "customer_account",
    "data",
    "discount",
    "discount_amounts",
    "discounts",
    "end",
    "ended_at",
    "frozen_time",
    "has_more",
    "id",
    "interval",
    "interval_count",
    "invoice",
    "invoice_item_details",
    "items",
    "latest_charge",
    "line_items",
    "lines",
    "livemode",
    "metadata",
    "mode",
    "object",
    "objects",
    "paid",
    "paid_at",
    "parent",
    "pause_collection",
    "payment",
    "payment_intent",
    "payment_status",
    "payments",
    "period",
    "plan",
    "post_payment_amount",
    "pre_payment_amount",
    "price",
    "price_details",
    "pricing",
    "product",
    "proration",
    "proration_details",
    "quantity",
    "quantity_decimal",
    "recurring",
    "refund",
    "refunds",
    "start",
    "status",
    "status_transitions",
    "subscription",
    "subscription_details",
    "subscription_item",
    "subscription_item_details",
    "test_clock",
    "total",
    "total_discount_amounts",
    "trial_end",
    "type",
    "url",
    "usage_type",
];

/// The keys of metadata that the rules read.
const METADATA_KEYS: &[&str] = &[
    "user_id",
    "userId",
    "supabase_user_id",
    "price_id",
    "pack",
    "quantity",
    "fixed_lines",
    "credits",
    TOP_UP_ID,
];

/// The text of an event, or of what was fetched about one, without everything that the rules do not read. `None` if it
/// is no JSON that can be written again: a number beyond what a float holds, for instance.
#[must_use]
pub fn reduced(json: &str) -> Option<String> {
    let mut value: Value = serde_json::from_str(json).ok()?;
    reduce(&mut value, FIELDS);
    Some(value.to_string())
}

fn reduce(value: &mut Value, kept: &[&str]) {
    match value {
        Value::Object(fields) => reduce_fields(fields, kept),
        Value::Array(values) => values.iter_mut().for_each(|value| reduce(value, kept)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

fn reduce_fields(fields: &mut Map<String, Value>, kept: &[&str]) {
    fields.retain(|name, _| kept.contains(&name.as_str()));
    for (name, value) in fields {
        reduce(value, if name == "metadata" { METADATA_KEYS } else { FIELDS });
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use serde_json::json;

    use super::*;
    use crate::event;
    use crate::fetched::Fetched;

    /// The texts of a folder of the corpus.
    fn corpus(folder: &str) -> Vec<String> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus").join(folder);
        let files = fs::read_dir(folder).expect("the corpus is there");
        files.map(|file| fs::read_to_string(file.expect("a file").path()).expect("a text")).collect()
    }

    #[test]
    fn a_reduced_event_is_read_as_the_same() {
        let events = corpus("events");
        assert!(!events.is_empty());
        for text in events {
            let reduced = reduced(&text).expect("JSON");
            assert_eq!(event::read(&reduced), event::read(&text), "{text}");
            assert!(reduced.len() <= text.len());
        }
    }

    #[test]
    fn what_was_fetched_is_read_as_the_same() {
        let answers = corpus("fetched");
        assert!(!answers.is_empty());
        for text in answers {
            let reduced = reduced(&text).expect("JSON");
            assert_eq!(
                format!("{:?}", Fetched::read(&reduced)),
                format!("{:?}", Fetched::read(&text)),
                "{text}"
            );
        }
    }

    #[test]
    fn nothing_of_a_person_is_left() {
        let object = json!({
            "id": "cs_1", "object": "checkout.session", "customer": { "id": "cus_1", "email": "Ann@Secret", "name": "Ann Secret" },
            "customer_details": { "email": "Ann@Secret", "address": { "line1": "Secret Street" }, "phone": "Secret" },
            "customer_email": "Ann@Secret", "shipping": { "name": "Ann Secret" }, "custom_fields": [{ "text": "Secret" }],
            "metadata": { "user_id": "u", "note": "Secret", "status": "Secret", "pack": "small" },
            "line_items": { "data": [{ "description": "Secret", "price": { "id": "price_1", "nickname": "Secret" } }] },
            "billing_details": { "name": "Secret" }, "receipt_email": "Secret", "description": "Secret",
            "evidence": { "customer_name": "Secret" }, "hosted_invoice_url": "Secret",
        });
        let event = json!({ "id": "evt_1", "data": { "object": object, "previous_attributes": { "email": "Secret" } } });
        let text = reduced(&event.to_string()).expect("JSON");
        assert!(!text.contains("Secret"), "{text}");
        let kept: Value = serde_json::from_str(&text).expect("JSON");
        assert_eq!(kept["data"]["object"]["customer"], json!({ "id": "cus_1" }));
        assert_eq!(kept["data"]["object"]["metadata"], json!({ "user_id": "u", "pack": "small" }));
        assert_eq!(reduced(&text), Some(text), "what is reduced stays as it is");
    }
}
