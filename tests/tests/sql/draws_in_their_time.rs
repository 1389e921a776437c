//! The period in which a plan's credits were drawn: what is spent under one period is never missing from the next, and what comes
//! back comes back to the period in which it was drawn, where it stays until the next one opens. The model test found each of these.

use stripe_credits_tests::refunds::refund;
use stripe_credits_tests::stripe::CREATED;
use stripe_credits_tests::subscription::{
    Invoice, MAX, PRO, ROLL, invoice_payment, month, period, renewal, subscription,
};
use stripe_credits_tests::{ANN, Connection, Database, paid_pack};

const DAY: i64 = 86_400;

fn subscribed(price_id: &str) -> (Database, Connection) {
    let db = Database::with_catalog();
    let mut c = db.connect();
    c.twice(&subscription("sub_1", price_id).of(ANN).created("evt_created"));
    (db, c)
}

fn pay(c: &mut Connection, invoice: &Invoice) {
    let name = invoice.id().trim_start_matches("in_").to_owned();
    c.twice(&invoice_payment(&format!("evt_by_{name}"), invoice.id(), &format!("pi_{name}")));
    assert_eq!(c.twice(&invoice.paid(&format!("evt_paid_{name}"))), "applied");
}

fn refunds(c: &mut Connection, name: &str, cents: i64, status: &str) {
    refunds_at(c, name, cents, status, CREATED);
}

fn refunds_at(c: &mut Connection, name: &str, cents: i64, status: &str, at: i64) {
    let event_type = if status == "failed" { "refund.failed" } else { "refund.updated" };
    let refund = refund(&format!("re_{name}"), &format!("pi_{name}"), cents).with("status", status);
    c.twice(&refund.event(&format!("evt_re_{name}_{status}"), event_type).with("created", at));
}

/// ANN's balance and debt, with the books checked.
fn checked_balance_and_debt(db: &Database, c: &mut Connection) -> (i64, i64) {
    db.check_books();
    c.agreed_balance_and_debt(ANN)
}

#[test]
fn what_was_spent_under_a_lesser_plan_is_not_missing_from_its_renewal() {
    let (db, mut c) = subscribed("price_max");
    pay(&mut c, &renewal("in_0", "sub_1", MAX, 0));
    let pro = subscription("sub_1", "price_pro").of(ANN);
    c.twice(&pro.updated("evt_down", CREATED + DAY));
    c.spend(ANN, 4_000, "job-1");
    assert_eq!(checked_balance_and_debt(&db, &mut c), (6_000, 0));
    pay(&mut c, &renewal("in_1", "sub_1", PRO, 1));
    assert_eq!(checked_balance_and_debt(&db, &mut c), (10_000, 0), "{:?}", c.ledger(ANN));
    c.twice(&pro.during(period(1)).updated("evt_next", month(1)));
    assert_eq!(checked_balance_and_debt(&db, &mut c), (10_000, 0));
}

#[test]
fn what_rolled_over_and_was_spent_is_not_missing_from_the_next_plan() {
    let (db, mut c) = subscribed("price_roll");
    pay(&mut c, &renewal("in_0", "sub_1", ROLL, 0));
    pay(&mut c, &renewal("in_1", "sub_1", ROLL, 1));
    assert_eq!(c.spend(ANN, 1_300, "job-1").summary(), "applied");
    pay(&mut c, &renewal("in_2", "sub_1", PRO, 2));
    assert_eq!(checked_balance_and_debt(&db, &mut c), (10_000, 0), "{:?}", c.ledger(ANN));
}

#[test]
fn what_a_reservation_returns_to_a_swept_period_stays_until_the_next_opening() {
    let (db, mut c) = subscribed("price_roll");
    pay(&mut c, &renewal("in_0", "sub_1", ROLL, 0));
    pay(&mut c, &renewal("in_1", "sub_1", ROLL, 1));
    // From what rolled over, in the second period's time: 1,200 are left of it, of which 500 roll over.
    c.reserve(ANN, 300, "job-held");
    pay(&mut c, &renewal("in_2", "sub_1", ROLL, 2));
    c.spend(ANN, 200, "job-spent");
    assert_eq!(checked_balance_and_debt(&db, &mut c), (1_300, 0));
    // What comes back to a period that was swept meanwhile stays until the next opening (rule 8).
    assert_eq!(c.release(ANN, "job-held").summary(), "applied");
    assert_eq!(checked_balance_and_debt(&db, &mut c), (1_600, 0), "{:?}", c.ledger(ANN));
    pay(&mut c, &renewal("in_3", "sub_1", ROLL, 3));
    assert_eq!(checked_balance_and_debt(&db, &mut c), (1_500, 0), "{:?}", c.ledger(ANN));
}

#[test]
fn what_settled_a_debt_comes_back_and_stays_until_the_next_opening() {
    let (db, mut c) = subscribed("price_pro");
    c.apply(&paid_pack("cs_pack", ANN).completed("evt_pack"));
    pay(&mut c, &renewal("in_0", "sub_1", PRO, 0));
    // The plan's credits are drawn first, so the pack is spent last; its refund is a debt that the next period settles.
    c.spend(ANN, 10_500, "job-1");
    refunds(&mut c, "pack", 1_000, "succeeded");
    pay(&mut c, &renewal("in_1", "sub_1", PRO, 1));
    assert_eq!(checked_balance_and_debt(&db, &mut c), (9_500, 0));
    pay(&mut c, &renewal("in_2", "sub_1", PRO, 2));
    c.spend(ANN, 3_000, "job-2");
    assert_eq!(checked_balance_and_debt(&db, &mut c), (7_000, 0));
    // What was settled comes back (rule 9), to a period that the third one has swept before.
    refunds_at(&mut c, "pack", 1_000, "failed", month(2) + 60);
    assert_eq!(checked_balance_and_debt(&db, &mut c), (7_500, 0), "{:?}", c.ledger(ANN));
    pay(&mut c, &renewal("in_3", "sub_1", PRO, 3));
    assert_eq!(checked_balance_and_debt(&db, &mut c), (10_000, 0), "{:?}", c.ledger(ANN));
}

#[test]
fn what_comes_back_to_a_refunded_period_is_taken_from_it_at_once() {
    let (db, mut c) = subscribed("price_pro");
    c.apply(&paid_pack("cs_spent", ANN).completed("evt_spent"));
    c.spend(ANN, 500, "job-1");
    c.apply(&paid_pack("cs_kept", ANN).completed("evt_kept"));
    pay(&mut c, &renewal("in_0", "sub_1", PRO, 0));
    // The period settles what is owed of the first pack, and once it is refunded itself, the second pack settles that.
    refunds(&mut c, "spent", 400, "succeeded");
    assert_eq!(checked_balance_and_debt(&db, &mut c), (10_300, 0));
    refunds(&mut c, "0", 10_000, "succeeded");
    assert_eq!(c.grants(ANN), ["cs_spent 0", "cs_kept 300", "sub_1 0"]);
    refunds(&mut c, "spent", 400, "failed");
    assert_eq!(checked_balance_and_debt(&db, &mut c), (500, 0));
    assert_eq!(c.grants(ANN), ["cs_spent 0", "cs_kept 500", "sub_1 0"], "{:?}", c.ledger(ANN));
}
