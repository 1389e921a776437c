//! Reversals of a subscription's invoices: which payment intent paid which invoice, known before and after
//! the refund and the invoice, in both shapes, in part and whole, across renewals.

use stripe_credits_tests::permutations::{in_every_order, nothing};
use stripe_credits_tests::refunds::{charge, dispute, refund};
use stripe_credits_tests::subscription::{MAX, PRO, ROLL, invoice_payment, month, renewal, subscription};
use stripe_credits_tests::{ANN, Connection, Database, Event, paid_pack};

fn subscribe(c: &mut Connection, price_id: &str) {
    let outcome = c.apply(&subscription("sub_1", price_id).of(ANN).created("evt_created"));
    assert_eq!(outcome.summary(), "applied");
}

/// A refund of so many cents of what `pi_n` paid.
fn refunded(n: u32, cents: i64) -> Event {
    refund(&format!("re_{n}_{cents}"), &format!("pi_{n}"), cents)
        .event(&format!("evt_re_{n}_{cents}"), "refund.created")
}

/// The n-th month of pro paid by `pi_n`, by its events in either shape.
fn paid(n: u32, older: bool) -> Vec<Event> {
    let bill = renewal(&format!("in_{n}"), "sub_1", PRO, n);
    let (evt, pi) = (format!("evt_paid_{n}"), format!("pi_{n}"));
    if older {
        vec![bill.older().with("payment_intent", pi).paid(&evt)]
    } else {
        vec![bill.paid(&evt), invoice_payment(&format!("evt_by_{n}"), &format!("in_{n}"), &pi)]
    }
}

/// Two paid periods of the plan pro, and what comes beside them.
fn two_periods_and(event: Event) -> Vec<Event> {
    [paid(0, true), paid(1, true), vec![event]].concat()
}

#[test]
fn scenario_30b_the_first_invoice_refunded_after_renewal_leaves_6000_in_both_orders() {
    for older in [true, false] {
        for refund_first in [true, false] {
            let db = Database::with_catalog();
            let mut c = db.connect();
            subscribe(&mut c, "price_pro");
            for event in paid(0, older) {
                c.apply(&event);
            }
            c.spend(ANN, 4_000, "job-1");
            let (mut last, refunded) = (paid(1, older), refunded(0, 10_000));
            last.insert(if refund_first { 0 } else { last.len() }, refunded);
            for event in &last {
                c.apply(event);
            }
            assert_eq!(
                c.agreed_balance_and_debt(ANN),
                (6_000, 0),
                "older {older}, refund first {refund_first}: {:?}",
                c.ledger(ANN)
            );
            for event in &last {
                assert_eq!(c.apply(event).credits, 0);
            }
            assert_eq!(c.agreed_balance_and_debt(ANN), (6_000, 0));
        }
    }
}

#[test]
fn scenario_30b_undone_the_refund_gives_back_what_settled_it() {
    for refund_first in [true, false] {
        let db = Database::with_catalog();
        let mut c = db.connect();
        subscribe(&mut c, "price_pro");
        for event in paid(0, false) {
            c.apply(&event);
        }
        c.spend(ANN, 4_000, "job-1");
        let mut events = paid(1, false);
        events.insert(usize::from(!refund_first), refunded(0, 10_000));
        for event in &events {
            c.apply(event);
        }
        assert_eq!(c.agreed_balance_and_debt(ANN), (6_000, 0));
        let failed = refund("re_0_10000", "pi_0", 10_000)
            .with("status", "failed")
            .event("evt_failed", "refund.failed");
        c.apply(&failed);
        assert_eq!(
            c.agreed_balance_and_debt(ANN),
            (10_000, 0),
            "refund first {refund_first}: {:?}",
            c.ledger(ANN)
        );
    }
}

#[test]
fn a_full_refund_its_invoice_payment_and_invoice_in_every_order_leave_nothing() {
    let db = Database::with_catalog();
    for older in [true, false] {
        let mut events = paid(0, older);
        events.push(refunded(0, 10_000));
        in_every_order(&db, |c| subscribe(c, "price_pro"), &events, (0, 0));
        events.push(subscription("sub_1", "price_pro").of(ANN).created("evt_created"));
        in_every_order(&db, nothing, &events, (0, 0));
    }
}

#[test]
fn partial_refunds_and_counts_in_every_order_leave_their_share() {
    let db = Database::with_catalog();
    for older in [true, false] {
        let mut events = paid(0, older);
        events.push(refunded(0, 2_500));
        events.push(charge("pi_0", 10_000, 2_500).event("evt_count", "charge.refunded"));
        in_every_order(&db, |c| subscribe(c, "price_pro"), &events, (7_500, 0));
    }
}

#[test]
fn a_dispute_won_gives_the_periods_credits_back() {
    let db = Database::with_catalog();
    let mut events = paid(0, false);
    events.push(
        dispute("dp_1", "pi_0", 10_000, "needs_response").event("evt_dp_1", "charge.dispute.funds_withdrawn"),
    );
    in_every_order(&db, |c| subscribe(c, "price_pro"), &events, (0, 0));
    events.push(dispute("dp_1", "pi_0", 10_000, "won").event("evt_dp_2", "charge.dispute.funds_reinstated"));
    in_every_order(&db, |c| subscribe(c, "price_pro"), &events, (10_000, 0));
}

#[test]
fn a_refund_of_a_whole_period_leaves_the_other_in_every_order() {
    let db = Database::with_catalog();
    let bill = |n: u32| {
        renewal(&format!("in_{n}"), "sub_1", ROLL, n)
            .older()
            .with("payment_intent", format!("pi_{n}"))
            .paid(&format!("evt_paid_{n}"))
    };
    let events = [bill(0), bill(1), refunded(1, 1_000)];
    in_every_order(&db, |c| subscribe(c, "price_roll"), &events, (1_000, 0));
    let events = [bill(0), bill(1), refunded(0, 1_000)];
    in_every_order(&db, |c| subscribe(c, "price_roll"), &events, (1_000, 0));
}

#[test]
fn a_refund_of_a_whole_renewal_brings_back_what_it_set_aside() {
    let db = Database::with_catalog();
    in_every_order(&db, |c| subscribe(c, "price_pro"), &two_periods_and(refunded(1, 10_000)), (10_000, 0));
}

#[test]
fn a_refund_of_the_first_period_after_its_renewal_takes_nothing_set_aside_unspent() {
    let db = Database::with_catalog();
    in_every_order(&db, |c| subscribe(c, "price_pro"), &two_periods_and(refunded(0, 10_000)), (10_000, 0));
}

#[test]
fn a_refund_of_a_partly_spent_upgrade_is_owed_and_settled_by_the_next_pack() {
    let db = Database::with_catalog();
    let mut c = db.connect();
    subscribe(&mut c, "price_max");
    let bill = renewal("in_0", "sub_1", MAX, 0).older().with("payment_intent", "pi_0").paid("evt_paid_0");
    c.apply(&bill);
    c.spend(ANN, 29_800, "job-1");
    c.apply(&refunded(0, 30_000));
    assert_eq!(c.agreed_balance_and_debt(ANN), (0, 29_800));
    c.apply(&paid_pack("cs_1", ANN).completed("evt_pack"));
    assert_eq!(c.agreed_balance_and_debt(ANN), (0, 29_300));
    c.apply(&subscription("sub_1", "price_max").deleted("evt_deleted", month(1)));
    assert_eq!(c.agreed_balance_and_debt(ANN), (0, 29_300));
}

#[test]
fn an_invoice_paid_by_two_payment_intents_loses_the_part_that_either_refunds() {
    let db = Database::with_catalog();
    let mut events = paid(0, false);
    events.push(invoice_payment("evt_by_other", "in_0", "pi_other"));
    events.push(refund("re_other", "pi_other", 4_000).event("evt_re_other", "refund.created"));
    in_every_order(&db, |c| subscribe(c, "price_pro"), &events, (6_000, 0));
}

#[test]
fn the_invoice_payment_of_a_packs_own_invoice_links_and_changes_nothing() {
    let db = Database::with_catalog();
    let mut c = db.connect();
    c.apply(&paid_pack("cs_1", ANN).with("invoice", "in_own").completed("evt_1"));
    let outcome = c.apply(&invoice_payment("evt_2", "in_own", "pi_1"));
    assert_ne!(outcome.outcome, "rejected", "{outcome:?}");
    c.apply(&refund("re_1", "pi_1", 1_000).event("evt_3", "refund.created"));
    assert_eq!(c.agreed_balance_and_debt(ANN), (0, 0));
    let db = Database::with_catalog();
    let mut c = db.connect();
    c.apply(&invoice_payment("evt_2", "in_own", "pi_1"));
    let outcome = c.apply(&paid_pack("cs_1", ANN).with("invoice", "in_own").completed("evt_1"));
    assert_eq!(outcome.summary(), "applied", "the intent's other name comes first");
    c.apply(&refund("re_1", "pi_1", 1_000).event("evt_3", "refund.created"));
    assert_eq!(c.agreed_balance_and_debt(ANN), (0, 0));
}

#[test]
fn a_refund_before_everything_else_is_kept_and_netted_later() {
    let db = Database::with_catalog();
    let mut c = db.connect();
    let outcome = c.deliver(&refunded(0, 10_000));
    assert_eq!(outcome.summary(), "ignored unknown_payment");
    subscribe(&mut c, "price_pro");
    for event in paid(0, false) {
        c.apply(&event);
    }
    assert_eq!(c.agreed_balance_and_debt(ANN), (0, 0));
    assert_eq!(c.ledger(ANN), ["subscription_grant 10000", "reversal -10000"]);
    assert_eq!(c.apply(&refunded(0, 10_000)).credits, 0);
}

#[test]
fn refunds_of_a_period_that_was_spent_of_and_renewed_in_every_order_owe_the_same() {
    let db = Database::with_catalog();
    let begin = |c: &mut Connection| {
        subscribe(c, "price_pro");
        for event in paid(0, true) {
            c.apply(&event);
        }
        assert_eq!(c.spend(ANN, 4_000, "job-1").summary(), "applied");
    };
    let renewed = || paid(1, true).remove(0);
    for (refunds, expected) in [
        (vec![refunded(0, 5_000)], (10_000, 0)),
        (vec![refunded(0, 8_000)], (8_000, 0)),
        (vec![refunded(0, 10_000), refunded(1, 10_000)], (0, 4_000)),
        (vec![refunded(0, 8_000), refunded(1, 5_000)], (3_000, 0)),
    ] {
        let events: Vec<Event> = refunds.into_iter().chain([renewed()]).collect();
        in_every_order(&db, begin, &events, expected);
    }
}

#[test]
fn failed_refunds_of_rollover_periods_in_every_order_change_nothing() {
    let db = Database::with_catalog();
    let bill = |n: u32| {
        renewal(&format!("in_{n}"), "sub_1", ROLL, n)
            .older()
            .with("payment_intent", format!("pi_{n}"))
            .paid(&format!("evt_paid_{n}"))
    };
    let failed = |n: u32| {
        refund(&format!("re_{n}_1000"), &format!("pi_{n}"), 1_000)
            .with("status", "failed")
            .event(&format!("evt_re_{n}_failed"), "refund.failed")
    };
    let begin = |c: &mut Connection| {
        subscribe(c, "price_roll");
        c.apply(&bill(0));
        assert_eq!(c.spend(ANN, 700, "job-1").summary(), "applied");
    };
    in_every_order(&db, begin, &[bill(1), refunded(0, 1_000)], (300, 0));
    in_every_order(&db, begin, &[bill(1), refunded(0, 1_000), failed(0)], (1_300, 0));
    in_every_order(&db, begin, &[bill(1), refunded(1, 1_000), failed(1)], (1_300, 0));
    // Once the next period has opened they change nothing either.
    let begin_twice = |c: &mut Connection| {
        begin(c);
        c.apply(&bill(1));
        c.apply(&bill(2));
    };
    in_every_order(&db, begin_twice, &[refunded(0, 1_000), failed(0)], (1_500, 0));
}

/// A refund of the first of three periods, after 700 of it were spent, that fails at a time; told after the third opened.
fn after_a_failed_refund(c: &mut Connection, failed_at: i64) -> (i64, i64) {
    subscribe(c, "price_roll");
    pay_rolling(c, 0);
    assert_eq!(c.spend(ANN, 700, "job-1").summary(), "applied");
    c.apply(&refunded(0, 1_000));
    assert_eq!(c.agreed_balance_and_debt(ANN), (0, 700));
    pay_rolling(c, 1);
    assert_eq!(c.agreed_balance_and_debt(ANN), (300, 0));
    pay_rolling(c, 2);
    assert_eq!(c.agreed_balance_and_debt(ANN), (1_300, 0));
    let failed = refund("re_0_1000", "pi_0", 1_000).with("status", "failed");
    c.apply(&failed.event("evt_re_0_failed", "refund.failed").with("created", failed_at));
    c.agreed_balance_and_debt(ANN)
}

fn pay_rolling(c: &mut Connection, n: u32) {
    let bill = renewal(&format!("in_{n}"), "sub_1", ROLL, n).older();
    c.apply(&bill.with("payment_intent", format!("pi_{n}")).paid(&format!("evt_paid_{n}")));
}

#[test]
fn what_settled_a_failed_refund_stays_in_a_swept_period_until_the_next_opening() {
    let db = Database::with_catalog();
    let mut c = db.connect();
    // 300 and 300 were left when the third opened, of which 500 roll over, and 700 are back since.
    let after = after_a_failed_refund(&mut c, month(2) + 60);
    assert_eq!(after, (2_200, 0), "{:?}", c.ledger(ANN));
    pay_rolling(&mut c, 3);
    assert_eq!(c.agreed_balance_and_debt(ANN), (1_500, 0));
}

#[test]
fn a_refund_that_had_failed_before_a_period_opened_leaves_nothing_in_what_is_swept() {
    let db = Database::with_catalog();
    let mut c = db.connect();
    // It failed in the first period: by the facts' own times nothing was owed when the others opened, and 500 roll over.
    let after = after_a_failed_refund(&mut c, month(0) + 60);
    assert_eq!(after, (1_500, 0), "{:?}", c.ledger(ANN));
}

#[test]
fn a_debt_is_settled_at_once_and_the_renewal_after_it_starts_anew() {
    // 30b, one period later: 4,000 of the first period spent, the second paid. What settles the debt is what there is when
    // it becomes known (rule 9): after the renewal the new credits, before it those that the renewal would set aside.
    let db = Database::with_catalog();
    for (refund_first, balance) in [(true, 10_000), (false, 6_000)] {
        let mut c = db.connect();
        c.run("begin");
        subscribe(&mut c, "price_pro");
        c.apply(&paid(0, true)[0]);
        assert_eq!(c.spend(ANN, 4_000, "job-1").summary(), "applied");
        c.apply(&paid(1, true)[0]);
        let mut events = [paid(2, true).remove(0), refunded(0, 10_000)];
        if refund_first {
            events.reverse();
        }
        for event in &events {
            c.apply(event);
        }
        assert_eq!(c.agreed_balance_and_debt(ANN), (balance, 0), "{:?}", c.ledger(ANN));
        c.run("rollback");
    }
}
