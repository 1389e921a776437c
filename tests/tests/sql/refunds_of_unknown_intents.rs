//! Refunds whose payment intent no payment names: Stripe is asked once which invoices it paid, and whatever it answers, what
//! is known in the end is the same in either order.

use serde_json::{Value, json};
use stripe_credits_tests::refunds::{charge, refund};
use stripe_credits_tests::stripe::CREATED;
use stripe_credits_tests::subscription::{PRO, fetched, renewal, subscription};
use stripe_credits_tests::{ANN, Connection, Database, Event, blocked, nothing_fetched, paid_pack};

const ASKED: &str =
    "/v1/invoice_payments?payment[type]=payment_intent&payment[payment_intent]=pi_1&limit=100";

/// A refund of half of what `pi_1` paid, by a pack's price or a plan's.
fn half(cents: i64) -> Event {
    refund("re_1", "pi_1", cents / 2).event("evt_re_1", "refund.created")
}

/// What Stripe answers: `pi_1` paid these invoices.
fn paid(invoices: &[&str]) -> Value {
    let payment = |invoice: &&str| {
        json!({
            "id": "inpay_1", "object": "invoice_payment", "invoice": invoice, "status": "paid",
            "payment": { "type": "payment_intent", "payment_intent": "pi_1" },
        })
    };
    let data: Vec<Value> = invoices.iter().map(payment).collect();
    let list = json!({ "object": "list", "url": "/v1/invoice_payments", "has_more": false, "data": data });
    fetched(CREATED + 60, &[&list])
}

fn asks(c: &mut Connection, event: &Event) {
    let outcome = c.apply(event);
    assert_eq!(outcome.summary(), "needs_fetch");
    assert_eq!(outcome.to_fetch.as_deref(), Some(&[ASKED.to_owned()][..]));
}

/// The plan's first invoice, in the newer shape: it does not say what paid it.
fn bill() -> Event {
    renewal("in_1", "sub_1", PRO, 0).of(ANN).paid("evt_paid")
}

fn subscribed() -> (Database, Connection) {
    let db = Database::with_catalog();
    let mut c = db.connect();
    c.apply(&subscription("sub_1", "price_pro").of(ANN).created("evt_created"));
    (db, c)
}

#[test]
fn a_refund_of_an_unknown_payment_intent_takes_its_part_once_stripe_is_asked() {
    let (db, mut c) = subscribed();
    assert_eq!(c.apply(&bill()).summary(), "applied");
    asks(&mut c, &half(10_000));
    assert_eq!(c.balance_and_debt(ANN), (10_000, 0));
    assert_eq!(c.apply_fetched(&half(10_000), &paid(&["in_1"])).summary(), "applied");
    assert_eq!(c.ledger(ANN), ["subscription_grant 10000", "reversal -5000"]);
    for _ in 0..2 {
        assert_eq!(c.apply(&half(10_000)).summary(), "already_applied");
        assert_eq!(c.apply_fetched(&half(10_000), &paid(&["in_1"])).summary(), "already_applied");
        assert_eq!(c.apply(&bill()).summary(), "already_applied");
    }
    assert_eq!(c.balance_and_debt(ANN), (5_000, 0));
    assert_eq!(c.inbox("evt_re_1").as_deref(), Some("applied"));
    db.check_books();
}

#[test]
fn what_stripe_answered_before_the_invoice_came_is_netted_when_it_does() {
    let (db, mut c) = subscribed();
    asks(&mut c, &half(10_000));
    let answered = c.apply_fetched(&half(10_000), &paid(&["in_1"]));
    assert_eq!(answered.summary(), "ignored unknown_payment");
    // It is known what the payment intent paid: it need not be asked again.
    assert_eq!(c.apply(&half(10_000)).summary(), "ignored unknown_payment");
    let count = charge("pi_1", 10_000, 5_000).event("evt_count", "charge.refunded");
    assert_eq!(c.apply(&count).summary(), "ignored unknown_payment");
    let outcome = c.apply(&bill());
    assert_eq!((outcome.summary().as_str(), outcome.credits), ("applied", 5_000));
    assert_eq!(c.ledger(ANN), ["subscription_grant 5000"]);
    assert_eq!(c.apply(&half(10_000)).summary(), "already_applied");
    assert_eq!(c.inbox("evt_re_1").as_deref(), Some("already_applied"));
    db.check_books();
}

#[test]
fn an_empty_answer_is_an_answer_and_the_pack_is_netted_when_it_comes() {
    let db = Database::with_catalog();
    let mut c = db.connect();
    asks(&mut c, &half(1_000));
    assert_eq!(c.apply_fetched(&half(1_000), &paid(&[])).summary(), "ignored unknown_payment");
    // Neither it nor another event of the same payment intent asks again.
    let count = charge("pi_1", 1_000, 500).event("evt_count", "charge.refunded");
    for event in [&half(1_000), &count, &count] {
        assert_eq!(c.apply(event).summary(), "ignored unknown_payment");
    }
    let outcome = c.apply(&paid_pack("cs_1", ANN).completed("evt_cs_1"));
    assert_eq!((outcome.summary().as_str(), outcome.credits), ("applied", 250));
    assert_eq!(c.apply(&half(1_000)).summary(), "already_applied");
    assert_eq!(c.balance_and_debt(ANN), (250, 0));
    db.check_books();
}

#[test]
fn without_a_stripe_key_it_is_kept_and_netted_when_its_purchase_comes() {
    let db = Database::with_catalog();
    let mut c = db.connect();
    for _ in 0..2 {
        asks(&mut c, &half(1_000));
        assert_eq!(c.apply_fetched(&half(1_000), &nothing_fetched()).summary(), "ignored unknown_payment");
    }
    assert_eq!(c.apply(&paid_pack("cs_1", ANN).completed("evt_cs_1")).credits, 250);
    assert_eq!(c.apply(&half(1_000)).summary(), "already_applied");
    db.check_books();
}

#[test]
fn with_stripe_away_its_purchase_nets_the_refund_and_its_retry_changes_nothing() {
    let db = Database::with_catalog();
    let mut c = db.connect();
    asks(&mut c, &half(1_000));
    assert_eq!(c.inbox("evt_re_1").as_deref(), Some("needs_fetch"));
    assert_eq!(c.apply(&paid_pack("cs_1", ANN).completed("evt_cs_1")).credits, 250);
    assert_eq!(c.apply(&half(1_000)).summary(), "already_applied");
    assert_eq!(c.inbox("evt_re_1").as_deref(), Some("already_applied"));
    assert_eq!(c.ledger(ANN), ["purchase 250"]);
}

#[test]
fn the_payment_of_a_packs_own_invoice_is_the_sessions_once_it_comes() {
    let db = Database::with_catalog();
    let mut c = db.connect();
    asks(&mut c, &half(1_000));
    assert_eq!(c.apply_fetched(&half(1_000), &paid(&["in_pack"])).summary(), "ignored unknown_payment");
    let outcome = c.apply(&paid_pack("cs_1", ANN).completed("evt_cs_1"));
    assert_eq!((outcome.summary().as_str(), outcome.credits), ("applied", 250));
    // The same answer again does not move the payment intent to another payment.
    assert_eq!(c.apply_fetched(&half(1_000), &paid(&["in_pack"])).summary(), "already_applied");
    assert_eq!(c.balance_and_debt(ANN), (250, 0));
    db.check_books();
}

#[test]
fn a_refund_of_a_known_payment_asks_nothing() {
    let db = Database::with_catalog();
    let mut c = db.connect();
    c.apply(&paid_pack("cs_1", ANN).completed("evt_cs_1"));
    assert_eq!(c.apply(&half(1_000)).summary(), "applied");
}

#[test]
fn overlapping_answer_and_invoice_are_netted_in_both_orders() {
    let (db, mut c) = subscribed();
    asks(&mut c, &half(10_000));
    let outcomes = blocked(
        &db,
        |c| c.apply_fetched(&half(10_000), &paid(&["in_1"])).summary(),
        |c| c.apply(&bill()).summary(),
    );
    assert_eq!((outcomes.0.as_str(), outcomes.1.as_str()), ("ignored unknown_payment", "applied"));
    assert_eq!(c.balance_and_debt(ANN), (5_000, 0));
    let (db, mut c) = subscribed();
    asks(&mut c, &half(10_000));
    let outcomes = blocked(
        &db,
        |c| c.apply(&bill()).summary(),
        |c| c.apply_fetched(&half(10_000), &paid(&["in_1"])).summary(),
    );
    assert_eq!((outcomes.0.as_str(), outcomes.1.as_str()), ("applied", "applied"));
    assert_eq!(c.balance_and_debt(ANN), (5_000, 0));
    db.check_books();
}

#[test]
fn an_answer_about_another_payment_intent_is_not_believed() {
    let (_db, mut c) = subscribed();
    c.apply(&bill());
    let other = refund("re_2", "pi_2", 5_000).event("evt_re_2", "refund.created");
    assert_eq!(c.apply(&other).summary(), "needs_fetch");
    assert_eq!(c.apply_fetched(&other, &paid(&["in_1"])).summary(), "ignored unknown_payment");
    assert_eq!(c.balance_and_debt(ANN), (10_000, 0));
}
