//! A user who is forgotten: the inbox keeps only what the rules read of their events, and the books stay.

use serde_json::{Value, json};
use stripe_credits_tests::subscription::{PRO, renewal, subscription};
use stripe_credits_tests::{ANN, BOB, Connection, Database, Event, paid_pack, session};
use uuid::Uuid;

/// An event whose object says whose it is, in the fields in which Stripe does.
fn personal(event: &Event) -> Value {
    let mut json = event.json().clone();
    let object = json["data"]["object"].as_object_mut().expect("an object");
    for (field, value) in [
        (
            "customer_details",
            json!({"email": "ann@Secret", "name": "Ann Secret", "address": {"line1": "Secret"}}),
        ),
        ("customer_email", json!("ann@Secret")),
        ("billing_details", json!({"name": "Ann Secret", "phone": "Secret"})),
        ("shipping", json!({"name": "Ann Secret"})),
        ("description", json!("for Ann Secret")),
    ] {
        object.insert(field.to_owned(), value);
    }
    if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.insert("nickname".to_owned(), json!("Secret"));
    }
    json
}

fn with_secrets(c: &mut Connection) -> Vec<String> {
    c.column("select event_id from billing.stripe_events e where e::text like '%Secret%' order by 1", &[])
}

fn forget(c: &mut Connection, user: Uuid) -> (String, Value) {
    let outcome = c.call("forget_user($1)", &[&user]);
    (outcome.summary(), outcome.details.expect("details")["events"].clone())
}

#[test]
fn events_of_a_forgotten_user_are_reduced_now_and_later_and_can_be_applied_again() {
    let db = Database::with_catalog();
    let mut c = db.connect();
    let pack =
        |name: &str, who: Uuid| paid_pack(&format!("cs_{name}"), who).with("customer", format!("cus_{name}"));
    let events = [
        pack("ann", ANN).completed("evt_1"),
        subscription("sub_1", "price_pro").of(ANN).with("customer", "cus_ann").created("evt_2"),
        renewal("in_1", "sub_1", PRO, 0).paid("evt_3"),
    ];
    for event in &events {
        assert_eq!(c.apply_json(&personal(event)).summary(), "applied");
    }
    assert_eq!(c.apply_json(&personal(&pack("bob", BOB).completed("evt_bob"))).summary(), "applied");
    let unlinked = session("cs_x").metadata("price_id", "price_pack").with("customer", "cus_x");
    assert_eq!(c.apply_json(&personal(&unlinked.completed("evt_x"))).summary(), "parked unknown_user");
    let (ledger, state) = (c.ledger(ANN), c.end_state());

    assert_eq!(forget(&mut c, ANN), ("applied".to_owned(), json!(3)));
    assert_eq!(with_secrets(&mut c), ["evt_bob", "evt_x"], "others' events stay as they came");
    assert_eq!((c.ledger(ANN), c.end_state()), (ledger.clone(), state.clone()));
    assert_eq!(forget(&mut c, ANN), ("already_applied".to_owned(), json!(0)));

    // From the inbox, and once more from Stripe.
    for event in &events {
        let kept: Value =
            c.one("select payload from billing.stripe_events where event_id = $1", &[&event.id()]);
        assert_eq!(c.apply_json(&kept).summary(), "already_applied");
        assert_eq!(c.apply_json(&personal(event)).summary(), "already_applied");
    }
    assert_eq!((c.ledger(ANN), c.end_state()), (ledger, state));
    assert_eq!(with_secrets(&mut c), ["evt_bob", "evt_x"], "what is sent again is reduced again");

    // What arrives later, by the user and by the customer alone.
    assert_eq!(c.apply_json(&personal(&pack("ann2", ANN).completed("evt_5"))).summary(), "applied");
    let mut of_customer = personal(&pack("ann", ANN).completed("evt_6"));
    of_customer["type"] = json!("invoice.upcoming");
    assert_eq!(c.apply_json(&of_customer).summary(), "ignored event_type");
    assert_eq!(c.attribute("cus_x", ANN).credits, 500, "a customer that turns out to be the user's");
    assert_eq!(with_secrets(&mut c), ["evt_bob"]);
}

#[test]
fn the_books_of_a_forgotten_user_are_those_of_a_replay() {
    let db = Database::with_catalog();
    let mut c = db.connect();
    let pack = paid_pack("cs_1", ANN).with("customer", "cus_1");
    c.apply_json(&personal(&pack.completed("evt_1")));
    forget(&mut c, ANN);
    let kept: Value = c.one("select payload from billing.stripe_events", &[]);
    let elsewhere = Database::with_catalog();
    let mut there = elsewhere.connect();
    assert_eq!(there.apply_json(&kept).summary(), "applied");
    assert_eq!(there.end_state(), c.end_state());
    assert_eq!(there.ledger(ANN), ["purchase 500"]);
}

#[test]
fn a_user_without_events_is_forgotten_before_the_first() {
    let db = Database::with_catalog();
    let mut c = db.connect();
    assert_eq!(forget(&mut c, ANN), ("applied".to_owned(), json!(0)));
    assert_eq!(c.apply_json(&personal(&paid_pack("cs_1", ANN).completed("evt_1"))).summary(), "applied");
    assert_eq!(with_secrets(&mut c), [""; 0]);
    assert_eq!(c.refusal("select billing.forget_user(null)").code, "22004");
    let mut client = db.connect_as("authenticated");
    assert_eq!(client.refusal(&format!("select billing.forget_user('{ANN}')")).code, "42501");
}
