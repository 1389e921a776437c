//! Every real Stripe payload that other projects recorded, through `apply_stripe_event`.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;
use stripe_credits_tests::{Connection, Database, Event, Outcome, catalog, nothing_fetched};

/// The closed list of outcomes.
const OUTCOMES: &[&str] = &["applied", "already_applied", "ignored", "parked", "rejected", "needs_fetch"];

/// The recorded payloads outside of the repository; none if the folder is missing.
fn payloads() -> Vec<(String, Value)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/stripe-events");
    let Ok(entries) = fs::read_dir(&folder) else {
        eprintln!("skipped: {} is not there", folder.display());
        return Vec::new();
    };
    let mut files: Vec<PathBuf> = entries
        .map(|entry| entry.expect("a readable folder").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "json"))
        .collect();
    files.sort();
    assert!(files.len() > 40, "{} has only {} payloads", folder.display(), files.len());
    files
        .into_iter()
        .map(|path| {
            let name = path.file_name().expect("a file").to_string_lossy().into_owned();
            let text = fs::read_to_string(&path).expect("a readable file");
            (name, serde_json::from_str(&text).expect("a payload is JSON"))
        })
        .collect()
}

/// The settings under which an event is ours.
fn settings_of(event: &Value) -> Value {
    let mut settings = catalog();
    settings["livemode"] = event["livemode"].as_bool().unwrap_or_default().into();
    settings["stripe_account"] = event["account"].clone();
    settings
}

/// Whether it is about an object without an id, as a test double wrote it: it could not be stored under an id.
fn nameless(event: &Event) -> bool {
    event.json()["data"]["object"]["id"].is_null()
}

/// Applies an event as the shim does: where Stripe is asked and has nothing, a second time with no answer.
fn delivered(c: &mut Connection, name: &str, event: &Event) -> Outcome {
    let outcome = c.apply(event);
    assert!(OUTCOMES.contains(&outcome.outcome.as_str()), "{name}: {outcome:?}");
    if outcome.outcome != "needs_fetch" {
        return outcome;
    }
    let paths = outcome.to_fetch.expect("needs_fetch names paths");
    assert!(paths.iter().all(|path| path.starts_with("/v1/")), "{name}: {paths:?}");
    let second = c.apply_fetched(event, &nothing_fetched());
    assert_ne!(second.outcome, "needs_fetch", "{name}: a second pass never asks again");
    second
}

/// What is in the tables apart from the inbox's counters and times.
fn end_state(c: &mut Connection) -> Vec<String> {
    let mut state = c.end_state();
    state.extend(c.column::<String>(
        "select concat_ws(' ', event_id, type, outcome, reason, user_id) from billing.stripe_events order by 1",
        &[],
    ));
    state
}

#[test]
fn every_recorded_payload_has_a_definite_outcome_and_is_recorded() {
    let db = Database::new();
    let mut c = db.connect();
    for (name, payload) in payloads() {
        c.run("begin");
        c.load_catalog(&settings_of(&payload));
        let event = Event::received(payload);
        let outcome = delivered(&mut c, &name, &event);
        let may_be_rejected = nameless(&event) && outcome.summary() == "rejected malformed";
        assert!(outcome.outcome != "rejected" || may_be_rejected, "{name}: Stripe sent this: {outcome:?}");
        assert!(!event.id().is_empty(), "{name} has an id");
        let recorded = c.inbox(event.id()).unwrap_or_else(|| panic!("{name} was not recorded"));
        assert_eq!(recorded, outcome.summary(), "{name}");
        let once = end_state(&mut c);
        delivered(&mut c, &name, &event);
        // What was applied says so, however often it comes again.
        assert_eq!(end_state(&mut c), once, "{name}: twice");
        let kept: bool = c.one(
            "select payload::jsonb = $1 from billing.stripe_events where event_id = $2",
            &[event.json(), &event.id()],
        );
        assert!(kept, "{name} is kept as it came");
        let explained = c.explain(&event);
        assert!(OUTCOMES.contains(&explained.outcome.as_str()), "{name}: {explained:?}");
        c.run("rollback");
    }
}

#[test]
fn every_recorded_payload_of_another_mode_or_account_is_ignored() {
    let db = Database::new();
    let mut c = db.connect();
    for (name, payload) in payloads() {
        c.run("begin");
        let mut settings = settings_of(&payload);
        settings["livemode"] = (!settings["livemode"].as_bool().unwrap_or_default()).into();
        c.load_catalog(&settings);
        let event = Event::received(payload.clone());
        let outcome = c.apply(&event).summary();
        if nameless(&event) && outcome == "rejected malformed" {
            c.run("rollback");
            continue;
        }
        assert_eq!(outcome, "ignored livemode", "{name}");
        let mut settings = settings_of(&payload);
        settings["stripe_account"] = "acct_foreign".into();
        c.load_catalog(&settings);
        assert_eq!(c.apply(&event).summary(), "ignored account", "{name}");
        for table in ["accounts", "payments", "customers"] {
            assert_eq!(
                c.one::<i64>(&format!("select count(*) from billing.{table}"), &[]),
                0,
                "{name}: {table}"
            );
        }
        c.run("rollback");
    }
}

#[test]
fn every_recorded_payload_before_the_first_catalog_is_parked_and_judged_by_it() {
    let db = Database::new();
    let mut c = db.connect();
    for (name, payload) in payloads() {
        c.run("begin");
        let event = Event::received(payload.clone());
        let outcome = c.apply(&event).summary();
        if nameless(&event) && outcome == "rejected malformed" {
            c.run("rollback");
            continue;
        }
        assert_eq!(outcome, "parked no_catalog", "{name}");
        c.load_catalog(&settings_of(&payload));
        let judged = c.inbox(event.id()).expect("recorded");
        assert_ne!(judged, "parked no_catalog", "{name}");
        assert!(OUTCOMES.contains(&judged.split(' ').next().unwrap_or_default()), "{name}: {judged}");
        c.run("rollback");
    }
}

#[test]
fn all_recorded_payloads_together_in_one_inbox_leave_consistent_books() {
    let db = Database::with_catalog();
    let mut c = db.connect();
    let payloads = payloads();
    let mut seen = std::collections::BTreeSet::new();
    for (name, payload) in payloads.iter().chain(payloads.iter().rev()) {
        let event = Event::received(payload.clone());
        delivered(&mut c, name, &event);
        seen.insert(event.id().to_owned());
    }
    let kept: i64 = c.one("select count(*) from billing.stripe_events", &[]);
    assert_eq!(kept, i64::try_from(seen.len()).unwrap());
}
