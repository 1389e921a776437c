//! What a user and what support read of one user: payments, and everything on one page.

use serde_json::{Value, json};
use stripe_credits_tests::refunds::refunded;
use stripe_credits_tests::subscription::{PRO, renewal, subscription};
use stripe_credits_tests::{ANN, BOB, Connection, Database, paid_pack, session};

/// The rows of `my_payments`, called by a client who is Ann.
fn my_payments(db: &Database, call: &str) -> Vec<String> {
    let mut client = db.connect_as("authenticated");
    client.run(&format!("set request.jwt.claims = '{{\"sub\": \"{ANN}\"}}'"));
    client.column(
        &format!(
            "select concat_ws(' ', source_id, amount, currency, refunded, credits, description)
             from billing.my_payments({call})"
        ),
        &[],
    )
}

#[test]
fn my_payments_are_the_callers_newest_first_with_what_came_back() {
    let db = Database::with_catalog();
    let mut c = db.connect();
    c.apply(&paid_pack("cs_1", ANN).completed("evt_1"));
    c.apply(&paid_pack("cs_b", BOB).completed("evt_b"));
    c.apply(&paid_pack("cs_2", ANN).with("payment_intent", "pi_2").completed("evt_2"));
    c.apply(&paid_pack("cs_3", ANN).with("payment_status", "unpaid").completed("evt_3"));
    c.attribute("cs_4", ANN);
    c.spend(ANN, 700, "job-1");
    c.apply(&refunded("re_1", "pi_1", 250));
    c.apply(&refunded("re_2", "pi_1", 250));
    assert_eq!(
        my_payments(&db, ""),
        ["cs_2 1000 usd 0 500 500 credits", "cs_1 1000 usd 500 500 500 credits"]
    );
    c.apply(&refunded("re_3", "pi_1", 5000));
    assert_eq!(my_payments(&db, "")[1], "cs_1 1000 usd 1000 500 500 credits", "no more than was paid");
}

#[test]
fn my_payments_name_plans_and_count_their_credits() {
    let db = Database::with_catalog();
    let mut c = db.connect();
    c.apply(&subscription("sub_1", "price_pro").of(ANN).created("evt_1"));
    c.apply(&renewal("in_0", "sub_1", PRO, 0).paid("evt_2"));
    assert_eq!(my_payments(&db, ""), ["in_0 10000 usd 0 10000 Pro"]);
}

#[test]
fn my_payments_come_in_pages_that_leave_none_out() {
    let db = Database::with_catalog();
    let mut c = db.connect();
    for n in 1..=5 {
        c.apply(&paid_pack(&format!("cs_{n}"), ANN).completed(&format!("evt_{n}")));
    }
    c.run("update billing.payments set paid_at = '2026-01-01'::timestamptz + (right(source_id, 1)::int / 2) * interval '1 day'");
    let ids = |call: &str| -> Vec<String> {
        let rows = my_payments(&db, call);
        let mut ids: Vec<String> =
            rows.iter().filter_map(|row| row.split(' ').next()).map(str::to_owned).collect();
        ids.sort();
        ids
    };
    assert_eq!(ids("1"), ["cs_4", "cs_5"], "both of the last moment");
    assert_eq!(ids("1, '2026-01-03'"), ["cs_2", "cs_3"]);
    assert_eq!(ids("1, '2026-01-02'"), ["cs_1"]);
    assert_eq!(ids("1, '2026-01-01'"), [""; 0]);
    assert_eq!(ids("3"), ["cs_2", "cs_3", "cs_4", "cs_5"]);
    assert_eq!(ids("0"), [""; 0]);
    assert_eq!(ids("-5"), [""; 0]);
    assert_eq!(ids("null, null").len(), 5);
}

#[test]
fn explain_user_tells_account_grants_plans_payments_and_what_waits() {
    let db = Database::with_catalog();
    let mut c = db.connect();
    let explain = |c: &mut Connection| c.one::<Value>("select billing.explain_user($1)", &[&ANN]);
    let nothing = explain(&mut c);
    assert_eq!((&nothing["account"], &nothing["waiting"]), (&Value::Null, &json!([])));
    c.apply(&paid_pack("cs_1", ANN).with("customer", "cus_1").completed("evt_1"));
    c.apply(&subscription("sub_1", "price_pro").of(ANN).created("evt_2"));
    c.apply(&renewal("in_0", "sub_1", PRO, 0).paid("evt_3"));
    c.spend(ANN, 10_000, "job-1");
    c.reserve(ANN, 5, "job-2");
    let unpriced = session("cs_2").with("customer", "cus_1").with("payment_status", "paid");
    c.apply(&unpriced.metadata("price_id", "price_new").completed("evt_4"));
    c.apply(&paid_pack("cs_3", BOB).metadata("price_id", "price_new").completed("evt_5"));
    c.refund_spend(ANN, "job-1", "refund-1", Some(100));
    let page = explain(&mut c);
    let ids = |part: &str, key: &str| -> Vec<Value> {
        page[part].as_array().expect("a list").iter().map(|row| row[key].clone()).collect()
    };
    assert_eq!(page["user_id"], json!(ANN));
    assert_eq!(page["account"]["credits_balance"], json!(595));
    assert_eq!(page["account"]["subscription_tier"], json!("pro"));
    assert_eq!(ids("customers", "customer_id"), ["cus_1"]);
    assert_eq!(ids("grants", "remaining"), [100, 495], "those with credits, the newest first");
    assert_eq!(ids("subscriptions", "subscription_id"), ["sub_1"]);
    // The invoice was paid when it says so, long before the session.
    assert_eq!(ids("payments", "source_id"), ["cs_1", "in_0"]);
    assert_eq!(ids("payments", "credits"), [500, 10_000]);
    assert_eq!(ids("reservations", "request_id"), ["job-2"]);
    assert_eq!(ids("waiting", "event_id"), ["evt_4"]);
    assert_eq!(ids("waiting", "reason"), ["unknown_price"]);
    assert_eq!(
        ids("transactions", "transaction_type"),
        ["spend_refund", "reservation", "spend", "subscription_grant", "purchase"]
    );
    assert_eq!(c.refusal("select billing.explain_user(null)").code, "22004");
}

#[test]
fn explain_user_stays_a_page_whatever_a_user_did() {
    let db = Database::with_catalog();
    let mut c = db.connect();
    for n in 0..60 {
        c.grant(ANN, 1, &format!("gift-{n}"));
    }
    let page: Value = c.one("select billing.explain_user($1)", &[&ANN]);
    for part in ["grants", "transactions"] {
        assert_eq!(page[part].as_array().map(Vec::len), Some(50), "{part}");
    }
}
