//! What is read of invoices and subscriptions: of payloads that other projects recorded, and of simulated histories in
//! both shapes of Stripe's API.

use std::fs;
use std::path::Path;

use proptest::collection::vec;
use proptest::prelude::*;
use serde_json::Value;
use stripe_credits_rules::event::{self, Subject};
use stripe_credits_rules::invoice::{Invoice, InvoiceLine, LineQuantity};
use stripe_credits_rules::price::LinePrice;
use stripe_credits_rules::simulator::{Api, BillingMode, Choice, EVERYTHING, Settings, history};
use stripe_credits_rules::subscription::{Subscription, SubscriptionItem};

/// The recorded payloads outside of the repository; none if the folder is missing.
fn payloads() -> Vec<(String, Value)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/stripe-events");
    let Ok(entries) = fs::read_dir(&folder) else {
        eprintln!("skipped: {} is not there", folder.display());
        return Vec::new();
    };
    let mut files: Vec<_> = entries.map(|entry| entry.expect("a readable folder").path()).collect();
    files.retain(|path| path.extension().is_some_and(|extension| extension == "json"));
    files.sort();
    let read = |path: &std::path::PathBuf| {
        let text = fs::read_to_string(path).expect("a readable file");
        let name = path.file_name().expect("a file").to_string_lossy().into_owned();
        (name, serde_json::from_str(&text).expect("a payload is JSON"))
    };
    files.iter().map(read).collect()
}

#[test]
fn recorded_invoices_and_subscriptions_are_read_whole() {
    for (name, mut payload) in payloads() {
        // The object decides, so each invoice may stand for a paid one.
        if payload["data"]["object"]["object"] == "invoice" {
            payload["type"] = "invoice.paid".into();
        }
        let object = payload["data"]["object"].clone();
        if object["id"].is_null() {
            continue;
        }
        let Ok(event) = event::read(&payload.to_string()) else { panic!("{name} is malformed") };
        match event.subject {
            Subject::Invoice(invoice) => compare_lines(&name, &object, &invoice),
            Subject::Subscription(subscription) => compare_items(&name, &object, &subscription),
            _ => {}
        }
    }
}

fn compare_lines(name: &str, object: &Value, invoice: &Invoice) {
    let data = object["lines"]["data"].as_array().expect("lines");
    let lines = invoice.lines.as_ref().unwrap_or_else(|| panic!("{name} carries all lines"));
    assert_eq!(lines.len(), data.len(), "{name}");
    assert_eq!(invoice.paid, object["status"] == "paid", "{name}");
    for (json, line) in data.iter().zip(lines) {
        assert_eq!(line.amount.map(|amount| amount.0), json["amount"].as_i64(), "{name}");
        assert_eq!(Some(line.quantity), json["quantity"].as_i64().map(LineQuantity::Whole), "{name}");
        assert_eq!(
            line.period.map(|(start, _)| start.timestamp()),
            json["period"]["start"].as_i64(),
            "{name}"
        );
        let price = line.price.as_ref().map(|price| price.id.as_str());
        assert_eq!(price, json["price"]["id"].as_str(), "{name}");
        if json["price"].is_object() {
            let price = line.price.as_ref().expect("a price");
            assert_eq!(price.interval.is_some(), json["price"]["recurring"].is_object(), "{name}");
            assert_eq!(price.product_id.as_deref(), json["price"]["product"].as_str(), "{name}");
            assert_eq!(line.is_recurring, json["price"]["type"] == "recurring", "{name}");
            assert_eq!(line.item_id.as_deref(), json["subscription_item"].as_str(), "{name}");
        }
    }
}

fn compare_items(name: &str, object: &Value, subscription: &Subscription) {
    let data = object["items"]["data"].as_array().expect("items");
    assert!(subscription.has_all_items, "{name}");
    assert_eq!(subscription.items.len(), data.len(), "{name}");
    assert_eq!(subscription.cancel_at.map(|at| at.timestamp()), object["cancel_at"].as_i64(), "{name}");
    for (json, item) in data.iter().zip(&subscription.items) {
        assert_eq!(item.id.as_deref(), json["id"].as_str(), "{name}");
        assert_eq!(item.quantity, json["quantity"].as_i64().unwrap_or(1), "{name}");
        let price = item.price.as_ref().unwrap_or_else(|| panic!("{name} has a price"));
        assert!(price.interval.is_some() && !price.is_metered, "{name}");
    }
}

/// What is read of a history's invoices and subscriptions, without what only one of the shapes tells.
fn readings(api: Api, choices: &[Choice]) -> Vec<Subject> {
    let settings = Settings { api, ..Settings::default() };
    let happenings = history(settings, BillingMode::Classic, EVERYTHING, choices);
    let events = happenings.into_iter().flat_map(|happening| happening.events);
    let subjects = events.map(|event| event::read(&event.body.to_string()).expect("an event").subject);
    subjects
        .filter_map(|subject| match subject {
            Subject::Invoice(invoice) => Some(Subject::Invoice(Box::new(told_by_both(*invoice)))),
            Subject::Subscription(subscription) => {
                let items = subscription.items.iter().cloned();
                let items = items.map(|item| SubscriptionItem { period: None, ..item }).collect();
                Some(Subject::Subscription(Box::new(Subscription { items, ..*subscription })))
            }
            _ => None,
        })
        .collect()
}

fn told_by_both(invoice: Invoice) -> Invoice {
    let line = |line: InvoiceLine| InvoiceLine {
        price: line.price.map(|price| LinePrice { interval: None, is_metered: false, ..price }),
        ..line
    };
    Invoice {
        payment_intent_ids: Vec::new(),
        charge_ids: Vec::new(),
        lines: invoice.lines.map(|lines| lines.into_iter().map(line).collect()),
        ..invoice
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn a_history_reads_the_same_in_both_shapes(choices in vec(any::<Choice>(), 1..12)) {
        let (older, newer) = (readings(Api::Older, &choices), readings(Api::Current, &choices));
        prop_assert!(!older.is_empty());
        prop_assert_eq!(older, newer);
    }
}
