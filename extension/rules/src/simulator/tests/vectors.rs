//! The simulator sends what the vectors hold: every event of theirs, at its time, with their fields.

use std::collections::BTreeMap;

use serde_json::Value;

use super::stories::{PRICES, STORIES, Story};
use crate::simulator::{Event, Settings, Stripe};
use crate::vectors;

/// Fields in which the vectors simplify what Stripe sends.
const SIMPLIFIED: &[&str] = &[
    "balance_transactions", // empty there
    "canceled_at",          // null there
    "created",              // a subscription's moves with its period there
    "credited_items",       // in classic billing, names made up there
    "description",
    "interval",         // a year is twelve months there
    "interval_count",   // so too
    "start_date",       // as created
    "starting_balance", // only what was used of it there
    "status_transitions",
    "trial_start", // null there
];

/// Events that the vectors leave out.
const LEFT_OUT: &[&str] =
    &["charge.refunded", "charge.dispute.created", "charge.dispute.closed", "invoice.payment_failed"];

#[test]
fn histories_of_the_vectors_send_their_events() {
    let vectors: BTreeMap<String, Value> = vectors::all().into_iter().collect();
    for story in STORIES {
        let vector = &vectors[story.vector];
        let base = vector["base"].as_i64().unwrap_or(1_700_000_000);
        let steps = vector["steps"].as_array().expect("steps");
        let expected: Vec<Value> = steps
            .iter()
            .map(|step| vectors::at_base(&step["deliver"], base))
            .filter(|e| !e.is_null())
            .collect();
        let sent = send(story, base, &expected[0]);
        let types = |events: &[&Value]| {
            events.iter().map(|e| format!("{} {}", e["created"], e["type"])).collect::<Vec<_>>()
        };
        let sent: Vec<&Value> = sent.iter().map(|event| &event.body).collect();
        assert_eq!(types(&sent), types(&expected.iter().collect::<Vec<_>>()), "{}", story.vector);
        let mut names = BTreeMap::new();
        for (event, sent) in expected.iter().zip(&sent) {
            let path = format!("{} {}", story.vector, event["id"]);
            compare(&path, &event["data"]["object"], &sent["data"]["object"], &mut names);
        }
    }
}

/// Plays a story in the vector's shape of the API, for its user.
fn send(story: &Story, base: i64, first: &Value) -> Vec<Event> {
    let object = &first["data"]["object"];
    let api = if first["api_version"] == "2024-06-20" { super::Api::Older } else { super::Api::Current };
    let mut stripe = Stripe::new(Settings {
        begins_at: base,
        api,
        months: story.months,
        prices: PRICES,
        user_id: object["metadata"]["user_id"].as_str().expect("a user").to_owned(),
        seconds_between: 0,
        ..Settings::default()
    });
    for (at, operation) in (story.operations)() {
        stripe.advance(base + at);
        stripe.apply(&operation);
    }
    stripe.advance(base + story.last);
    let included = |event: &Event| !LEFT_OUT.contains(&event.event_type.as_str());
    let happenings = stripe.into_happenings();
    happenings.into_iter().flat_map(|happening| happening.events).filter(included).collect()
}

/// Every field of the vector's is sent, with its value; ids are the same up to a renaming, which `names` keeps.
fn compare(path: &str, expected: &Value, sent: &Value, names: &mut BTreeMap<String, String>) {
    match (expected, sent) {
        (Value::Object(expected), Value::Object(_)) => {
            for (key, value) in expected.iter().filter(|(key, _)| !SIMPLIFIED.contains(&key.as_str())) {
                compare(&format!("{path}.{key}"), value, &sent[key], names);
            }
        }
        (Value::Array(expected), Value::Array(list)) => {
            assert_eq!(expected.len(), list.len(), "{path}: {expected:?} {list:?}");
            for (value, sent) in expected.iter().zip(list) {
                compare(path, value, sent, names);
            }
        }
        (Value::String(expected), Value::String(sent)) if is_id(expected) => {
            let known = names.entry(expected.clone()).or_insert_with(|| sent.clone());
            assert_eq!(known, sent, "{path}: another name of {expected}");
        }
        _ => assert_eq!(expected, sent, "{path}"),
    }
}

fn is_id(text: &str) -> bool {
    let prefixes = [
        "cus_", "sub_", "si_", "in_", "il_", "ii_", "inpay_", "cs_", "pi_", "ch_", "re_", "dp_", "cn_",
        "cbtxn_",
    ];
    prefixes.iter().any(|prefix| text.starts_with(prefix))
}
