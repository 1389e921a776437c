//! `stripe-credits explain`: what was made of an id, and why.

use serde_json::Value;
use stripe_credits_tests::app::command;
use stripe_credits_tests::fake_stripe::FakeStripe;
use stripe_credits_tests::refunds::{bought, refunded};
use stripe_credits_tests::shim::{Ended, Setup};
use stripe_credits_tests::stripe::session;
use stripe_credits_tests::{ANN, Database};

fn explain(database: &Database, arguments: &[&str]) -> Ended {
    command(&[&["explain"], arguments].concat(), database, &FakeStripe::start()).run()
}

fn json(database: &Database, id: &str) -> Value {
    let ended = explain(database, &[id, "--json"]);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    serde_json::from_str(&ended.stdout).expect("JSON")
}

#[test]
fn every_id_of_a_payment_tells_the_whole_payment() {
    let database = Database::with_catalog();
    let mut books = database.connect();
    books.apply(&bought("cs_1", ANN));
    let intent: String =
        books.one("select name from billing.payment_names where kind = 'payment_intent'", &[]);
    let refund = refunded("re_1", &intent, 500);
    books.apply(&refund);
    for id in ["cs_1", &intent, "re_1", refund.id()] {
        let known = json(&database, id);
        assert_eq!(known["payment"]["source_id"], "cs_1", "{id}: {known:#}");
        assert_eq!(known["grants"][0]["amount"], 250, "{id}: {known:#}");
        assert_eq!(known["reversals"][0]["reversal_id"], "re_1", "{id}: {known:#}");
        assert_eq!(known["transactions"].as_array().expect("rows").len(), 2, "{id}: {known:#}");
    }
    let text = explain(&database, &["cs_1"]).stdout;
    for part in
        ["\nevents\n", "checkout.session.completed  applied", "\ngrants\n", "transaction_type=purchase"]
    {
        assert!(text.contains(part), "{part}: {text}");
    }
}

#[test]
fn an_event_that_waits_says_why_and_what_to_do_and_what_would_come_of_it_now() {
    let database = Database::with_catalog();
    let mut books = database.connect();
    books.apply(
        &session("cs_1").metadata("price_id", "price_pack").with("customer", "cus_1").completed("evt_1"),
    );
    let ended = explain(&database, &["evt_1"]);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(
        ended.stdout.contains("evt_1  checkout.session.completed  parked  unknown_user  cs_1"),
        "{ended:?}"
    );
    assert!(ended.stdout.contains("billing.attribute"), "{ended:?}");
    let known = json(&database, "evt_1");
    assert_eq!(known["now"]["reason"], "unknown_user", "{known:#}");
    // By its customer too, and nothing was written by asking.
    assert_eq!(json(&database, "cus_1")["events"][0]["event_id"], "evt_1");
    assert_eq!(books.inbox("evt_1").as_deref(), Some("parked unknown_user"));
    assert!(books.column::<i64>("select count(*) from billing.accounts", &[]) == [0]);
}

#[test]
fn a_user_is_explained_as_support_reads_it_and_an_unknown_id_exits_65() {
    let database = Database::with_catalog();
    let mut books = database.connect();
    books.apply(&bought("cs_1", ANN));
    let known = json(&database, &ANN.to_string());
    assert_eq!(known["account"]["credits_balance"], 500, "{known:#}");
    for id in ["cs_none", "evt_none", "6c1f6a5c-94c1-4d4c-9a70-5a6d6f6f2f10", "'; drop table x"] {
        let ended = explain(&database, &[id]);
        assert_eq!(ended.code, Some(65), "{ended:?}");
    }
    let without = Setup::command(&["explain", "cs_1"]).run();
    assert_eq!(without.code, Some(64), "{without:?}");
}
