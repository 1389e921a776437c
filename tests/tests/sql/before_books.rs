//! Rule 12: what was paid before the books began (`begins_at`) was credited elsewhere, and is by no door credited again.

use serde_json::{Value, json};
use stripe_credits_tests::plans::{charged, credited, half};
use stripe_credits_tests::stripe::CREATED;
use stripe_credits_tests::subscription::{MAX, PRO, SEAT, invoice, month, period, renewal, subscription};
use stripe_credits_tests::{ANN, Connection, Database, Session, catalog, paid_pack};

const DAY: i64 = 86_400;

/// The sample catalog, whose books begin a day after the objects of the tests were made.
fn catalog_since(begins_at: &str) -> Value {
    let mut catalog = catalog();
    catalog["begins_at"] = json!(begins_at);
    catalog
}

/// A time of Stripe's as a catalog writes it.
fn written(c: &mut Connection, unix: i64) -> String {
    c.one(
        &format!("select to_char(to_timestamp({unix}) at time zone 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"')"),
        &[],
    )
}

/// A database whose books begin a day after [`CREATED`].
fn database() -> Database {
    let db = Database::new();
    let mut c = db.connect();
    let begins_at = written(&mut c, CREATED + DAY);
    c.load_catalog(&catalog_since(&begins_at));
    db
}

#[test]
fn scenario_68_a_session_from_before_the_books_is_ignored_by_every_door() {
    let db = database();
    let mut c = db.connect();
    let older = paid_pack("cs_1", ANN).with("customer", "cus_1");
    assert_eq!(c.twice(&older.completed("evt_1")), "ignored before_books");
    assert_eq!(c.reconcile(&older, ANN).summary(), "ignored before_books");
    assert_eq!(c.inbox("evt_1").as_deref(), Some("ignored before_books"));
    assert_eq!((c.balance(ANN), c.ledger(ANN).len()), (0, 0));
    let newer = paid_pack("cs_2", ANN).with("created", CREATED + DAY);
    assert_eq!(c.twice(&newer.completed("evt_2")), "applied", "from the very second on");
    assert_eq!(c.ledger(ANN), ["purchase 500"]);
}

#[test]
fn scenario_68_another_users_older_session_stays_anothers() {
    let db = database();
    let mut c = db.connect();
    let older: Session = paid_pack("cs_1", stripe_credits_tests::BOB);
    assert_eq!(c.reconcile(&older, ANN).summary(), "rejected not_owner");
}

#[test]
fn scenario_68_an_invoice_counts_by_when_it_was_paid() {
    let db = database();
    let mut c = db.connect();
    c.twice(&subscription("sub_1", "price_pro").of(ANN).created("evt_created"));
    let older = renewal("in_0", "sub_1", PRO, 0).paid_at(CREATED + DAY - 1);
    assert_eq!(c.twice(&older.paid("evt_0")), "ignored before_books");
    assert_eq!((c.balance(ANN), c.tier(ANN)), (0, "pro active".into()), "its state is known all the same");
    let late = renewal("in_1", "sub_1", PRO, 0).paid_at(CREATED + DAY);
    assert_eq!(c.twice(&late.paid("evt_1")), "applied");
    assert_eq!(c.ledger(ANN), ["subscription_grant 10000"]);
    let direct = format!(
        "apply_subscription_state('{ANN}', 'pro', 'cus_1', 'sub_2', 'price_pro', to_timestamp({}),
             to_timestamp({}), 'evt_direct', 'in_direct')",
        period(0).0,
        period(0).1,
    );
    c.call(&direct, &[]);
    assert_eq!(
        c.ledger(ANN),
        ["subscription_grant 10000"],
        "a call for a period before the books grants nothing"
    );
}

#[test]
fn scenario_68_ignored_is_not_final() {
    let db = database();
    let mut c = db.connect();
    let session = paid_pack("cs_1", ANN);
    assert_eq!(c.twice(&session.completed("evt_1")), "ignored before_books");
    let begins_at = written(&mut c, CREATED);
    c.load_catalog(&catalog_since(&begins_at));
    assert_eq!(c.twice(&session.completed("evt_1")), "applied", "by changed settings it is judged again");
    assert_eq!(c.ledger(ANN), ["purchase 500"]);
}

#[test]
fn scenario_68_what_was_parked_is_judged_by_when_the_books_begin() {
    let db = Database::new();
    let mut c = db.connect();
    let session = paid_pack("cs_1", ANN);
    assert_eq!(c.twice(&session.completed("evt_1")), "parked no_catalog");
    let begins_at = written(&mut c, month(1));
    c.load_catalog(&catalog_since(&begins_at));
    assert_eq!(c.inbox("evt_1").as_deref(), Some("ignored before_books"));
    assert_eq!(c.ledger(ANN).len(), 0);
}

/// The opening balance stands for what was paid for before; what a credit line gives back of that time was paid for then, and
/// buys what the same invoice charges.
#[test]
fn scenario_68_a_credit_for_time_before_the_books_is_taken_from_the_opening_balance() {
    let db = Database::new();
    let mut c = db.connect();
    let mut document = stripe_credits_tests::plans::plan_catalog();
    document["begins_at"] = json!(written(&mut c, CREATED + DAY));
    c.load_catalog(&document);
    let before = renewal("in_0", "sub_1", PRO, 0).of(ANN);
    assert_eq!(c.twice(&before.paid("evt_0")), "ignored before_books");
    assert_eq!(c.import_balance(ANN, "subscription", 10_000, "cut-over").summary(), "applied");
    let upgrade = invoice("in_1", "sub_1")
        .of(ANN)
        .line(credited(PRO, 1, period(0), half(), "in_0").item("si_1"))
        .line(charged(MAX, 1, period(0), half()).item("si_1"))
        .paid_at(half())
        .mid_period();
    assert_eq!(c.twice(&upgrade.paid("evt_1")), "applied");
    assert_eq!(c.agreed_balance_and_debt(ANN), (20_000, 0), "10,000 − 5,000 + 15,000");
    // A change to less: what the credit is more than the charge is taken from the opening balance.
    let down =
        invoice("in_2", "sub_2").of(ANN).line(credited(PRO, 1, period(0), half(), "in_x").item("si_2"));
    let down = down.line(charged(SEAT, 1, period(0), half()).item("si_2")).paid_at(half()).mid_period();
    assert_eq!(c.twice(&down.paid("evt_2")), "applied");
    assert_eq!(c.agreed_balance_and_debt(ANN), (15_500, 0), "− 5,000 + 500");
}
