//! Rule 15: what applies something of Stripe's runs at READ COMMITTED, or says that it does not; a database that is not
//! UTF8 is no place for it.

use serde_json::json;
use stripe_credits_tests::database::setting;
use stripe_credits_tests::{ANN, Database, catalog, paid_pack};

#[test]
fn scenario_60_a_call_of_stripes_doors_at_a_stricter_isolation_is_refused() {
    let db = Database::with_catalog();
    let mut c = db.connect();
    let before = c.everything();
    let event = paid_pack("cs_1", ANN).completed("evt_1");
    let session = paid_pack("cs_1", ANN);
    let doors = [
        format!("apply_stripe_event('{}')", event.json()),
        format!("apply_stripe_event_text('{}')", event.json()),
        format!("apply_stripe_events(array['{}'])", event.json()),
        format!("explain_event('{}')", event.json()),
        format!("reconcile_checkout_session('{}', '{ANN}')", session.json()),
        format!("attribute('cs_1', '{ANN}')"),
        format!("attribute('cus_1', '{ANN}')"),
        format!("apply_stripe_credit_pack_purchase('{ANN}', 500, 'evt_1', 'cs_1')"),
        format!(
            "apply_subscription_state('{ANN}', 'pro', 'cus_1', 'sub_1', 'price_pro', '2026-01-01', '2026-02-01', 'evt_1')"
        ),
        format!("load_catalog('{}')", catalog()),
        "retry_parked()".to_owned(),
    ];
    for level in ["repeatable read", "serializable"] {
        for door in &doors {
            c.run(&format!("begin isolation level {level}"));
            let fault = c.refusal(&format!("select * from billing.{door}"));
            c.run("rollback");
            assert_eq!(fault.code, "25001", "{door}: {fault:?}");
            assert_eq!(fault.detail, format!("transaction_isolation = {level}"), "{door}");
            assert!(fault.message.contains("read committed"), "{fault:?}");
        }
    }
    assert_eq!(c.everything(), before);
    c.run("begin isolation level read uncommitted");
    assert_eq!(c.apply(&event).summary(), "applied", "in Postgres this is read committed");
    c.run("commit");
    c.run("begin isolation level serializable");
    assert_eq!(
        c.call("spend_credits($1, 1, 'job-1')", &[&ANN]).summary(),
        "applied",
        "a spend locks its account only"
    );
    c.run("commit");
}

#[test]
fn a_database_whose_encoding_is_not_utf8_is_refused_at_create_extension() {
    let db = Database::empty();
    let mut c = db.connect();
    for encoding in ["SQL_ASCII", "LATIN1"] {
        let name = format!("{}_{}", db.name(), encoding.to_lowercase());
        c.run(&format!(
            "create database {name} template template0 encoding '{encoding}' lc_collate 'C' lc_ctype 'C'"
        ));
        let url = format!("{}/{name}", setting("STRIPE_CREDITS_TEST_URL").trim_end_matches('/'));
        let mut other = postgres::Client::connect(&url, postgres::NoTls).expect("a connection");
        let fault = other.batch_execute("create extension stripe_credits").expect_err("refused");
        drop(other);
        c.run(&format!("drop database {name} with (force)"));
        let fault = fault.as_db_error().expect("the server says so").clone();
        assert_eq!(fault.code().code(), "0A000", "{fault:?}");
        assert!(fault.message().contains("UTF8") && fault.message().contains(encoding), "{fault:?}");
    }
}

#[test]
fn scenario_66_what_jsonb_refuses_of_a_text_is_replaced_and_the_purchase_applied() {
    let db = Database::with_catalog();
    let mut c = db.connect();
    let paid_by = |name: &str, n: u32| {
        let session = paid_pack(&format!("cs_{n}"), ANN).with("customer_details", json!({"name": "NAME"}));
        session.completed(&format!("evt_{n}")).json().to_string().replace("NAME", name)
    };
    let names = [
        (r"Ann\u0000", "Ann\u{fffd}"),
        (r"\ud800Ann", "\u{fffd}Ann"),
        (r"\udc00\ud800", "\u{fffd}\u{fffd}"),
        (r"\ud83d\ude00 \\u0000", "\u{1f600} \\u0000"),
    ];
    for (n, (name, stored)) in (1..).zip(names) {
        let text = paid_by(name, n);
        for expected in ["applied", "already_applied"] {
            assert_eq!(c.call("apply_stripe_event_text($1)", &[&text]).summary(), expected, "{name}");
        }
        let kept: String = c.one(
            "select payload #>> '{data,object,customer_details,name}' from billing.stripe_events where event_id = $1",
            &[&format!("evt_{n}")],
        );
        assert_eq!(kept, stored);
    }
    assert_eq!(c.ledger(ANN), ["purchase 500"; 4]);
    for text in ["", "{", "no json", r#"{"id": "evt_9""#, r#"{"id": "evt_9"} x"#, "[]", "null"] {
        let outcome = c.call("apply_stripe_event_text($1)", &[&text]);
        assert_eq!(outcome.summary(), "rejected malformed", "{text}");
    }
    assert_eq!(c.inbox("evt_9"), None);
}
