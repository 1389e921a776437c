//! Hostile content of events: it never raises an error, is rejected or kept with a reason, and grants no more than the
//! catalog says.

use proptest::prelude::*;
use proptest::sample::Index;
use proptest::test_runner::{Config, TestRunner};
use serde_json::{Value, json};
use stripe_credits_tests::{ANN, Connection, Database, Event, Outcome, fetched_lines, paid_pack, session};

/// Applies the text of an event, whatever it is.
fn apply(c: &mut Connection, text: &str) -> Outcome {
    c.call("apply_stripe_event($1::text::jsonb)", &[&text])
}

/// An event's text with one JSON text put in the place of a marker.
fn text_with(event: &Event, marker: &str, hostile: &str) -> String {
    let text = event.json().to_string();
    let quoted = format!("\"{marker}\"");
    assert!(text.contains(&quoted), "{marker} in {text}");
    text.replace(&quoted, hostile)
}

/// Letters that no compression makes shorter.
fn noise(length: usize) -> String {
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let letter = |_| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        char::from(b'a' + u8::try_from(state % 26).expect("below 26"))
    };
    (0..length).map(letter).collect()
}

#[test]
fn what_is_no_event_is_rejected_and_recorded_only_under_an_id() {
    let db = Database::with_catalog();
    let mut c = db.connect();
    let before = c.everything();
    for text in [
        "null",
        "true",
        "7",
        "\"evt_1\"",
        "[]",
        "[{}]",
        "{}",
        "[[[[]]]]",
        r#"{"id": null}"#,
        r#"{"id": ""}"#,
        r#"{"id": "  "}"#,
        r#"{"id": 7}"#,
        r#"{"id": ["evt_1"]}"#,
        r#"{"id": {}}"#,
        r#"{"type": "checkout.session.completed"}"#,
    ] {
        let outcome = apply(&mut c, text);
        assert_eq!((outcome.summary().as_str(), outcome.credits), ("rejected malformed", 0), "{text}");
        assert!(
            outcome.details.is_some_and(|details| details["fault"].is_string()),
            "{text}: says what is wrong"
        );
    }
    let long = format!(r#"{{"id": "{}"}}"#, noise(256));
    assert_eq!(apply(&mut c, &long).summary(), "rejected malformed");
    assert_eq!(c.everything(), before, "nothing to record it under");
    for text in [
        r#"{"id": "evt_1"}"#,
        r#"{"id": "evt_2", "type": "checkout.session.completed"}"#,
        r#"{"id": "evt_4", "type": "x", "created": 1, "livemode": false, "data": {"object": null}}"#,
        r#"{"id": "evt_5", "type": "x", "created": 1, "livemode": false, "data": {"object": []}}"#,
        r#"{"id": "evt_6", "type": "x", "created": 1, "livemode": false, "data": []}"#,
        r#"{"id": "evt_7", "type": "x", "created": 1, "livemode": "false", "data": {"object": {}}}"#,
        r#"{"id": "evt_8", "type": "checkout.session.completed", "created": 1, "livemode": false, "data": {"object": {}}}"#,
    ] {
        let id = &text[8..13];
        for attempts in 1..=2 {
            assert_eq!(apply(&mut c, text).summary(), "rejected malformed", "{text}");
            assert_eq!(c.inbox(id).as_deref(), Some("rejected malformed"), "{text}");
            let counted: i32 =
                c.one("select attempts from billing.stripe_events where event_id = $1", &[&id]);
            assert_eq!(counted, attempts);
        }
    }
    assert_eq!(c.ledger(ANN), [""; 0]);
}

#[test]
fn what_is_no_event_because_of_its_type_is_recorded_under_its_id_too() {
    let db = Database::with_catalog();
    let mut c = db.connect();
    for event_type in ["7", "null", "{}", "[\"x\"]"] {
        let text = format!(
            r#"{{"id": "evt_1", "type": {event_type}, "created": 1, "livemode": false, "data": {{"object": {{}}}}}}"#
        );
        c.run("begin");
        assert_eq!(apply(&mut c, &text).summary(), "rejected malformed");
        assert_eq!(c.inbox("evt_1").as_deref(), Some("rejected malformed"), "{text}");
        c.run("rollback");
    }
}

#[test]
fn what_was_malformed_once_and_comes_again_whole_is_found_by_its_customer() {
    // As after an upgrade that reads more than the version before: the inbox keeps its row, with what it says now.
    let db = Database::with_catalog();
    let mut c = db.connect();
    let whole =
        session("cs_1").metadata("price_id", "price_pack").with("customer", "cus_1").completed("evt_1");
    assert_eq!(c.apply(&whole.clone().with("livemode", "no")).summary(), "rejected malformed");
    assert_eq!(c.apply(&whole).summary(), "parked unknown_user");
    assert_eq!(c.attribute("cus_1", ANN).credits, 500);
    assert_eq!(c.inbox("evt_1").as_deref(), Some("applied"));
}

/// JSON numbers that are valid for no field.
const NUMBERS: &[&str] = &[
    "12345678901234567890123456",
    "-12345678901234567890123456",
    "9223372036854775807",
    "9223372036854775808",
    "-9223372036854775808",
    "18446744073709551616",
    "-1",
    "0",
    "1.5",
    "-0.5",
    "1760000000.0",
    "1e400",
    "-1e400",
    "1e-400",
    "1e5",
    "\"1760000000\"",
    "\"-1\"",
    "true",
    "null",
    "[]",
    "{}",
    "-210866803201",
    "-300000000000",
    "8210266876799",
    "8210266876800",
    "9224318016000",
];

#[test]
fn hostile_numbers_in_every_numeric_field_never_raise_and_grant_at_most_the_pack() {
    let db = Database::with_catalog();
    let mut c = db.connect();
    let pack = || paid_pack("cs_1", ANN).with("customer", "cus_1");
    let places = [
        pack().completed("evt_1").with("created", "@"),
        pack().with("created", "@").completed("evt_1"),
        pack().with("amount_total", "@").completed("evt_1"),
        pack().with("amount_subtotal", "@").completed("evt_1"),
        pack().metadata("quantity", "@").completed("evt_1"),
        pack().metadata("credits", "@").completed("evt_1"),
        pack().completed("evt_1").with("pending_webhooks", "@"),
    ];
    for place in &places {
        for number in NUMBERS {
            let text = text_with(place, "@", number);
            c.run("begin");
            let outcome = apply(&mut c, &text);
            assert!(outcome.credits == 0 || outcome.credits == 500, "{number} in {text}: {outcome:?}");
            let again = apply(&mut c, &text);
            assert_eq!(again.credits, 0, "{text}");
            assert!(c.inbox("evt_1").is_some(), "recorded: {text}");
            db_is_consistent(&mut c);
            c.run("rollback");
        }
    }
}

fn db_is_consistent(c: &mut Connection) {
    assert_eq!(c.one::<i64>("select count(*) from billing.validate_credits_consistency()", &[]), 0);
}

#[test]
fn hostile_quantities_of_line_items_grant_what_they_are_or_nothing() {
    let db = Database::with_catalog();
    let mut c = db.connect();
    let cases = [
        ("0", 0),
        ("-1", 0),
        ("1.5", 0),
        ("1e400", 0),
        ("99999999999999999999", 0),
        ("1000001", 0),
        ("\"3\"", 1500),
        ("null", 500),
        ("1", 500),
        ("1000000", 500_000_000),
        ("true", 0),
        ("[3]", 0),
    ];
    for (quantity, credits) in cases {
        let mut lines = fetched_lines(&session("cs_1"), &[("price_pack", 1)]);
        lines["objects"][0]["data"][0]["quantity"] = "@".into();
        let list = lines["objects"][0].clone();
        let expanded = session("cs_1").of(ANN).with("line_items", list).completed("evt_1");
        let text = text_with(&expanded, "@", quantity);
        c.run("begin");
        assert_eq!(apply(&mut c, &text).credits, credits, "quantity {quantity} expanded");
        db_is_consistent(&mut c);
        c.run("rollback");
        let fetched = lines.to_string().replace("\"@\"", quantity);
        let bare = session("cs_1").of(ANN).completed("evt_1");
        c.run("begin");
        let outcome = c.call("apply_stripe_event($1, $2::text::jsonb)", &[bare.json(), &fetched]);
        assert_eq!(outcome.credits, credits, "quantity {quantity} fetched: {outcome:?}");
        assert_ne!(outcome.outcome, "needs_fetch", "a second pass never asks again");
        db_is_consistent(&mut c);
        c.run("rollback");
    }
}

#[test]
fn hostile_quantities_in_metadata_ask_stripe_instead_of_guessing() {
    let db = Database::with_catalog();
    let mut c = db.connect();
    for quantity in [
        "0",
        "-1",
        "1.5",
        "99999999999999999999",
        "",
        " 3",
        "3 ",
        "+3",
        "3e2",
        "0x3",
        "１",
        "three",
        "1000001",
        "NaN",
    ] {
        let event = paid_pack("cs_1", ANN).metadata("quantity", quantity).completed("evt_1");
        c.run("begin");
        let outcome = c.apply(&event);
        assert_eq!(outcome.summary(), "needs_fetch", "{quantity:?}: {outcome:?}");
        assert_eq!(c.ledger(ANN), [""; 0]);
        c.run("rollback");
    }
    assert_eq!(c.apply(&paid_pack("cs_1", ANN).metadata("quantity", "003").completed("evt_1")).credits, 1500);
}

#[test]
fn many_lines_that_add_up_to_more_than_can_be_held_are_rejected() {
    let db = Database::new();
    let mut c = db.connect();
    let mut catalog = stripe_credits_tests::catalog();
    catalog["packs"][0]["credits"] = 1_000_000_000_000_i64.into();
    c.load_catalog(&catalog);
    let lines = session("cs_1").of(ANN).lines(&[("price_pack", 1_000_000)]);
    assert_eq!(c.apply(&lines.completed("evt_1")).summary(), "rejected out_of_range");
    let lines = session("cs_2").of(ANN).lines(&[("price_pack", 600_000), ("price_pack", 600_000)]);
    assert_eq!(c.apply(&lines.completed("evt_2")).summary(), "rejected out_of_range");
    assert_eq!(c.ledger(ANN), [""; 0]);
}

#[test]
fn deep_nesting_in_read_and_unread_fields_never_raises() {
    let db = Database::with_catalog();
    let mut c = db.connect();
    for depth in [100, 200, 5_000] {
        let deep = format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        let deep_object = format!("{}1{}", "{\"a\":".repeat(depth), "}".repeat(depth));
        for hostile in [&deep, &deep_object] {
            let unread = paid_pack("cs_1", ANN).with("custom_fields", "@").completed("evt_1");
            c.run("begin");
            assert_eq!(apply(&mut c, &text_with(&unread, "@", hostile)).summary(), "applied", "{depth}");
            c.run("rollback");
            for field in
                ["id", "mode", "customer", "payment_intent", "metadata", "line_items", "amount_total"]
            {
                let read = paid_pack("cs_1", ANN).with(field, "@").completed("evt_1");
                c.run("begin");
                let outcome = apply(&mut c, &text_with(&read, "@", hostile));
                assert!(matches!(outcome.credits, 0 | 500), "{field} {depth}: {outcome:?}");
                db_is_consistent(&mut c);
                c.run("rollback");
            }
            let top = paid_pack("cs_1", ANN).completed("evt_1").with("request", "@");
            c.run("begin");
            assert_eq!(apply(&mut c, &text_with(&top, "@", hostile)).summary(), "applied");
            c.run("rollback");
            assert_eq!(apply(&mut c, hostile).summary(), "rejected malformed");
        }
    }
}

#[test]
fn long_texts_in_every_field_never_raise() {
    let db = Database::with_catalog();
    let mut c = db.connect();
    let mut raised = Vec::new();
    for length in [256, 3_000, 100_000] {
        let long = noise(length);
        let pack = || paid_pack("cs_1", ANN).with("customer", "cus_1");
        let places = [
            ("event.type", pack().event("evt_1", &long)),
            ("event.account", pack().completed("evt_1").with("account", long.clone())),
            ("event.api_version", pack().completed("evt_1").with("api_version", long.clone())),
            ("session.id", pack().with("id", long.clone()).completed("evt_1")),
            ("session.customer", pack().with("customer", long.clone()).completed("evt_1")),
            (
                "session.customer without a user",
                session("cs_1")
                    .metadata("price_id", "price_pack")
                    .with("customer", long.clone())
                    .completed("evt_1"),
            ),
            ("session.payment_intent", pack().with("payment_intent", long.clone()).completed("evt_1")),
            ("session.mode", pack().with("mode", long.clone()).completed("evt_1")),
            ("session.payment_status", pack().with("payment_status", long.clone()).completed("evt_1")),
            ("session.currency", pack().with("currency", long.clone()).completed("evt_1")),
            (
                "session.client_reference_id",
                pack().with("client_reference_id", long.clone()).completed("evt_1"),
            ),
            ("metadata.price_id", pack().metadata("price_id", long.clone()).completed("evt_1")),
            ("metadata.pack", session("cs_1").of(ANN).metadata("pack", long.clone()).completed("evt_1")),
            ("metadata.quantity", pack().metadata("quantity", "9".repeat(length)).completed("evt_1")),
            ("metadata.credits", pack().metadata("credits", long.clone()).completed("evt_1")),
            ("metadata.user_id", pack().metadata("user_id", long.clone()).completed("evt_1")),
            (
                "object.id of another type",
                stripe_credits_tests::event(
                    "evt_1",
                    "charge.succeeded",
                    json!({"id": long, "customer": long}),
                ),
            ),
            ("line price", session("cs_1").of(ANN).lines(&[(&long, 1)]).completed("evt_1")),
        ];
        for (place, event) in places {
            c.run("begin");
            match c.try_call("apply_stripe_event($1)", &[event.json()]) {
                Ok(outcome) => {
                    assert!(matches!(outcome.credits, 0 | 500), "{place}: {outcome:?}");
                    db_is_consistent(&mut c);
                }
                Err(fault) => {
                    raised.push(format!("{place} of {length} letters: {} {}", fault.code, fault.message));
                }
            }
            c.run("rollback");
        }
    }
    assert!(raised.is_empty(), "an event's content raised:\n{}", raised.join("\n"));
}

#[test]
fn huge_metadata_is_kept_and_read() {
    let db = Database::with_catalog();
    let mut c = db.connect();
    let mut pack = paid_pack("cs_1", ANN);
    for n in 0..20_000 {
        pack = pack.metadata(&format!("key_{n}"), noise(20));
    }
    assert_eq!(c.apply(&pack.completed("evt_1")).summary(), "applied");
    assert_eq!(c.ledger(ANN), ["purchase 500"]);
}

#[test]
fn of_duplicate_keys_the_last_counts_in_the_database_and_in_the_rules_alike() {
    let db = Database::with_catalog();
    let mut c = db.connect();
    let text = paid_pack("cs_1", ANN).completed("evt_1").json().to_string();
    let doubled = text
        .replacen('{', r#"{"id": "evt_0", "#, 1)
        .replace(r#""payment_status":"paid""#, r#""payment_status":"paid","payment_status":"unpaid""#);
    assert_eq!(apply(&mut c, &doubled).summary(), "ignored unpaid");
    assert_eq!(c.inbox("evt_1").as_deref(), Some("ignored unpaid"));
    assert_eq!(c.inbox("evt_0"), None);
    assert_eq!(c.ledger(ANN), [""; 0]);
}

#[test]
fn hostile_answers_of_stripe_never_raise() {
    let db = Database::with_catalog();
    let mut c = db.connect();
    let bare = session("cs_1").of(ANN).completed("evt_1");
    for fetched in [
        "null",
        "[]",
        "7",
        "\"x\"",
        r#"{"objects": null}"#,
        r#"{"objects": {}}"#,
        r#"{"objects": [null]}"#,
        r#"{"objects": [7]}"#,
        r#"{"objects": [[]]}"#,
        r#"{"objects": [{}]}"#,
        r#"{"as_of": "now", "objects": []}"#,
        r#"{"as_of": 1e400, "objects": []}"#,
        r#"{"as_of": -99999999999999, "objects": []}"#,
        r#"{"objects": [{"object": "list", "url": "/v1/checkout/sessions/cs_1/line_items", "data": null}]}"#,
        r#"{"objects": [{"object": "list", "url": "/v1/checkout/sessions/cs_1/line_items", "data": [null]}]}"#,
        r#"{"objects": [{"object": "list", "url": "/v1/checkout/sessions/cs_1/line_items", "data": []}]}"#,
        r#"{"objects": [{"object": "list", "url": "/v1/checkout/sessions/cs_1/line_items", "data": [{"price": 7}]}]}"#,
        r#"{"objects": [{"object": "list", "url": "/v1/checkout/sessions/cs_2/line_items", "data": [{"price": {"id": "price_pack"}, "quantity": 3}]}]}"#,
        r#"{"objects": [{"object": "checkout.session", "id": "cs_1"}]}"#,
        r#"{"objects": [{"object": "checkout.session", "id": "cs_2", "mode": "payment", "livemode": false, "payment_status": "paid"}]}"#,
    ] {
        c.run("begin");
        let outcome = c.call("apply_stripe_event($1, $2::text::jsonb)", &[bare.json(), &fetched]);
        assert_eq!(outcome.credits, 0, "{fetched}: {outcome:?}");
        assert!(fetched == "null" || outcome.outcome != "needs_fetch", "{fetched}: {outcome:?}");
        assert!(
            c.inbox("evt_1").is_some(),
            "a delivery is recorded, whatever Stripe answered: {fetched}: {outcome:?}"
        );
        c.run("rollback");
    }
}

#[test]
fn hostile_sessions_to_reconcile_are_refused_and_never_raise() {
    let db = Database::with_catalog();
    let mut c = db.connect();
    let before = c.end_state();
    for text in [
        "null",
        "[]",
        "{}",
        "7",
        r#"{"id": "cs_1"}"#,
        r#"{"id": "", "object": "checkout.session"}"#,
        r#"{"id": "in_1", "object": "invoice", "livemode": false, "mode": "payment"}"#,
        r#"{"id": "cs_1", "object": "checkout.session", "livemode": false, "mode": 7}"#,
        r#"{"id": "cs_1", "object": "checkout.session", "livemode": false, "mode": "payment", "metadata": 7}"#,
        r#"{"id": "", "object": "checkout.session", "livemode": false, "mode": "payment", "payment_status": "paid"}"#,
    ] {
        let outcome = c.call("reconcile_checkout_session($1::text::jsonb, $2)", &[&text, &ANN]);
        assert_eq!(outcome.outcome, "rejected", "{text}: {outcome:?}");
    }
    for time in ["infinity", "-infinity", "290000-01-01", "4713-01-01 BC"] {
        c.run("begin");
        let outcome = c.call(
            "reconcile_checkout_session($1, $2, $3::text::timestamptz)",
            &[paid_pack("cs_1", ANN).json(), &ANN, &time],
        );
        assert!(
            matches!(outcome.summary().as_str(), "applied" | "rejected malformed"),
            "{time}: {outcome:?}"
        );
        c.run("rollback");
    }
    assert_eq!(c.end_state(), before);
}

/// The values that a mutation puts in the place of what was there.
fn hostile() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_filter_map("finite", |n| serde_json::Number::from_f64(n).map(Value::Number)),
        "[a-zA-Z0-9_ \"\\\\/.é１-]{0,12}".prop_map(Value::from),
        prop::sample::select(vec![
            "paid",
            "unpaid",
            "no_payment_required",
            "payment",
            "subscription",
            "setup",
            "price_pack",
            "price_tshirt",
            "price_pro",
            "price_new",
            "pack_500",
            "checkout.session",
            "checkout.session.expired",
            "cs_1",
            "cus_1",
            "3",
            "-1",
            "0",
            "",
            " ",
        ])
        .prop_map(Value::from),
        Just(json!([])),
        Just(json!({})),
        Just(json!({"id": "cus_2"})),
        Just(json!([{"id": "li_1", "price": {"id": "price_pack"}, "quantity": 2}])),
    ]
}

/// Every place in a JSON value, as a pointer.
fn places(value: &Value, here: &str, found: &mut Vec<String>) {
    found.push(here.to_owned());
    match value {
        Value::Array(list) => {
            for (index, inner) in list.iter().enumerate() {
                places(inner, &format!("{here}/{index}"), found);
            }
        }
        Value::Object(map) => {
            for (key, inner) in map {
                places(inner, &format!("{here}/{key}"), found);
            }
        }
        _ => {}
    }
}

fn mutate(value: &mut Value, place: Index, remove: bool, hostile: Value) {
    let mut found = Vec::new();
    places(value, "", &mut found);
    let pointer = &found[place.index(found.len())];
    if remove
        && let Some((parent, key)) = pointer.rsplit_once('/')
        && let Some(Value::Object(map)) = value.pointer_mut(parent)
    {
        map.remove(key);
        return;
    }
    if let Some(target) = value.pointer_mut(pointer) {
        *target = hostile;
    }
}

#[test]
fn no_mutation_of_an_event_raises_or_grants_more_than_the_catalog_says() {
    let db = Database::with_catalog();
    let c = std::cell::RefCell::new(db.connect());
    let whole = paid_pack("cs_1", ANN)
        .with("customer", "cus_1")
        .with("client_reference_id", ANN.to_string())
        .metadata("quantity", "2")
        .metadata("credits", "1000")
        .lines(&[("price_pack", 2), ("price_tshirt", 1)])
        .completed("evt_1");
    let answer = fetched_lines(&session("cs_1"), &[("price_pack", 2), ("price_tshirt", 1)]);
    let mutations = prop::collection::vec((any::<Index>(), any::<bool>(), hostile(), any::<bool>()), 1..5);
    let mut runner = TestRunner::new(Config { cases: 1500, failure_persistence: None, ..Config::default() });
    let outcome = runner.run(&(mutations, any::<bool>()), |(mutations, fetch)| {
        let (mut event, mut fetched) = (whole.json().clone(), answer.clone());
        for (place, remove, hostile, in_answer) in mutations {
            mutate(if in_answer { &mut fetched } else { &mut event }, place, remove, hostile);
        }
        let mut c = c.borrow_mut();
        c.run("begin");
        for _ in 0..2 {
            let fetched = fetch.then_some(&fetched);
            let answer = c.try_call("apply_stripe_event($1, $2)", &[&event, &fetched]);
            if answer.is_err() {
                c.run("rollback");
            }
            let outcome = answer.map_err(|fault| TestCaseError::fail(format!("{event}: {fault:?}")))?;
            prop_assert!((0..=2000).contains(&outcome.credits), "{event}: {outcome:?}");
        }
        let total: i64 =
            c.one("select coalesce(sum(amount), 0)::bigint from billing.credit_transactions", &[]);
        // Two pieces named, and a mutated line may name two more of the one pack.
        let inconsistent: i64 = c.one("select count(*) from billing.validate_credits_consistency()", &[]);
        c.run("rollback");
        prop_assert!(total <= 2000 && total % 500 == 0, "{event}: {total} credits");
        prop_assert_eq!(inconsistent, 0);
        Ok(())
    });
    outcome.unwrap();
}
