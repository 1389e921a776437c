//! Real payloads, from 2017 to today's API, signed, through the shim.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use serde_json::Value;
use stripe_credits_tests::fake_stripe::FakeStripe;
use stripe_credits_tests::shim::{Setup, Shim};
use stripe_credits_tests::{ANN, Database, paid_pack};

/// The folder of the recorded payloads, outside of the repository.
const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../shared/stripe-events");
/// The payloads by their files' names; none where the folder is missing.
fn payloads() -> BTreeMap<String, Vec<u8>> {
    let Ok(folder) = fs::read_dir(Path::new(FOLDER)) else {
        eprintln!("skipped: {FOLDER} is not there");
        return BTreeMap::new();
    };
    let payloads: BTreeMap<String, Vec<u8>> = folder
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "json"))
        .map(|path| {
            let name = path.file_name().expect("a name").to_string_lossy().into_owned();
            (name, fs::read(path).expect("a payload"))
        })
        .collect();
    assert!(payloads.len() >= 60, "only {} payloads", payloads.len());
    payloads
}

/// Delivers all of them twice. Returns each answer; the second is the same as the first, or `already_applied`.
///
/// Definite is every outcome but `needs_fetch`, which is never final, and `rejected`, which would say that a real
/// payload is not understood; only an object without an id, as disputes of 2014 were, may be. Of all that is wrong, only a
/// price that the catalog lacks is worth a retry.
fn deliver_all(shim: &Shim, payloads: &BTreeMap<String, Vec<u8>>) -> BTreeMap<String, String> {
    let deliver = |name: &str, body: &[u8]| {
        let answer = shim.deliver_bytes(body);
        let outcome = answer.json()["outcome"].as_str().unwrap_or_default().to_owned();
        let event: Value = serde_json::from_slice(body).expect("JSON");
        let definite = match outcome.as_str() {
            "applied" | "already_applied" | "ignored" | "parked" => true,
            "rejected" => event["data"]["object"]["id"].is_null(),
            _ => false,
        };
        assert!(definite, "{name}: {}", answer.body);
        let summary = answer.summary();
        assert!(answer.status == 200 || summary == "500 parked unknown_price", "{name}: {summary}");
        summary
    };
    let mut outcomes = BTreeMap::new();
    for (name, body) in payloads {
        let (first, second) = (deliver(name, body), deliver(name, body));
        let expected = if first == "200 applied" { "200 already_applied" } else { &first };
        assert_eq!(second, expected, "{name} again");
        outcomes.insert(name.clone(), second);
    }
    outcomes
}

#[test]
fn every_real_payload_has_a_definite_answer_and_is_recorded_and_grants_nothing() {
    let payloads = payloads();
    let database = Database::with_catalog();
    let shim = Setup::serve(&database.url()).start();
    let mut books = database.connect();
    let outcomes = deliver_all(&shim, &payloads);
    for (name, outcome) in &outcomes {
        let event: Value = serde_json::from_slice(&payloads[name]).expect("JSON");
        let id = event["id"].as_str().expect("an id");
        let inbox = books.inbox(id).unwrap_or_else(|| panic!("{name} is not in the inbox"));
        // Two payloads may share an id, made up when they were recorded; the last one counts.
        let is_recorded = outcome[4..] == inbox;
        let shared = payloads.values().filter(|body| String::from_utf8_lossy(body).contains(id)).count() > 1;
        assert!(is_recorded || shared, "{name}: answered {outcome}, recorded {inbox}");
    }
    let moved: i64 = books.one("select count(*) from billing.credit_transactions", &[]);
    assert_eq!(moved, 0, "none of their prices is in the catalog");

    assert_eq!(shim.deliver(&paid_pack("cs_1", ANN).completed("evt_1")).summary(), "200 applied");
    assert_eq!(books.ledger(ANN), ["purchase 500"]);
}

#[test]
fn every_real_payload_has_a_definite_answer_if_stripe_knows_none_of_the_sessions() {
    let payloads = payloads();
    let database = Database::with_catalog();
    let stripe = FakeStripe::start();
    let shim = Setup::serve(&database.url()).with_stripe(&stripe).start();
    deliver_all(&shim, &payloads);
    for asked in stripe.asked() {
        assert!(asked.path.starts_with("/v1/") && asked.method == "GET", "{asked:?}");
    }
    assert_eq!(shim.deliver(&paid_pack("cs_1", ANN).completed("evt_1")).summary(), "200 applied");
    assert_eq!(database.connect().ledger(ANN), ["purchase 500"]);
}
