//! Scenarios of credits that were spent before they were taken back: owed, settled by what comes next, given back when the
//! reversal is undone; or written off, if the catalog's policy is to forgive.

use serde_json::{Value, json};
use stripe_credits_tests::permutations::{in_every_order, nothing, orders};
use stripe_credits_tests::refunds::{bought, charge, failed, refund, refunded};
use stripe_credits_tests::{ANN, Connection, Database, catalog};

// 30: what was spent is owed.

#[test]
fn scenario_30_what_was_spent_is_debt_and_a_failed_refund_returns_what_settled_it() {
    let db = Database::with_catalog();
    let mut c = db.connect();
    c.buy(ANN, "cs_1");
    c.spend(ANN, 300, "job-1");
    let reversed = c.apply(&refunded("re_1", "pi_1", 1000));
    assert_eq!((reversed.summary().as_str(), reversed.credits, reversed.debt), ("applied", -500, Some(300)));
    assert_eq!(c.balance_and_debt(ANN), (0, 300));
    assert_eq!(c.spend(ANN, 1, "job-2").summary(), "rejected insufficient_credits");
    c.buy(ANN, "cs_2");
    assert_eq!(c.balance_and_debt(ANN), (200, 0));
    let undone = c.apply(&failed("re_1", "pi_1", 1000));
    assert_eq!((undone.summary().as_str(), undone.credits, undone.debt), ("applied", 500, Some(0)));
    assert_eq!(c.balance_and_debt(ANN), (700, 0));
    assert_eq!(c.grants(ANN), ["cs_1 200", "cs_2 500"]);
    assert_eq!(c.spend(ANN, 700, "job-2").summary(), "applied");
}

#[test]
fn scenario_30_refund_and_its_failure_in_every_order_before_and_after_the_purchases() {
    let db = Database::with_catalog();
    let events = [
        bought("cs_1", ANN),
        bought("cs_2", ANN),
        refunded("re_1", "pi_1", 1000),
        failed("re_1", "pi_1", 1000),
    ];
    in_every_order(&db, nothing, &events, (1000, 0));
    in_every_order(&db, nothing, &events[..3], (500, 0));
}

#[test]
fn scenario_30_after_a_spend_refund_failure_and_new_pack_in_every_order() {
    let db = Database::with_catalog();
    let spent = |c: &mut Connection| {
        c.buy(ANN, "cs_1");
        assert_eq!(c.spend(ANN, 300, "job-1").summary(), "applied");
    };
    let events = [refunded("re_1", "pi_1", 1000), failed("re_1", "pi_1", 1000), bought("cs_2", ANN)];
    in_every_order(&db, spent, &events, (700, 0));
    let unfailed = [events[0].clone(), events[2].clone(), refunded("re_2", "pi_2", 400)];
    in_every_order(&db, spent, &unfailed, (0, 0));
}

#[test]
fn scenario_30_a_spend_between_any_two_events_ends_the_same_if_it_overdraws_nothing() {
    let db = Database::with_catalog();
    let mut c = db.connect();
    let events = [refunded("re_1", "pi_1", 1000), failed("re_1", "pi_1", 1000), bought("cs_2", ANN)];
    let mut refused = 0;
    for order in orders(4) {
        c.run("begin");
        c.buy(ANN, "cs_1");
        let mut spent = 0;
        for step in &order {
            match events.get(*step) {
                Some(event) => {
                    c.apply(event);
                }
                None => spent = -c.spend(ANN, 300, "job-1").credits,
            }
        }
        refused += usize::from(spent == 0);
        assert_eq!(c.balance(ANN) - c.debt(ANN), 1000 - spent, "order {order:?}: {:?}", c.ledger(ANN));
        assert_eq!(c.debt(ANN), 0);
        c.run("rollback");
    }
    assert!(refused > 0, "after the refund there is nothing to spend");
}

#[test]
fn scenario_30_a_refund_that_is_canceled_counts_as_if_it_had_never_been() {
    let db = Database::with_catalog();
    let pending = refund("re_1", "pi_1", 1000).with("status", "pending").event("evt_1", "refund.created");
    let canceled = refund("re_1", "pi_1", 1000).with("status", "canceled").event("evt_2", "refund.updated");
    let mut c = db.connect();
    c.buy(ANN, "cs_1");
    assert_eq!(c.apply(&pending).credits, -500, "pending is live");
    assert_eq!(c.apply(&canceled).credits, 500);
    assert_eq!(c.apply(&pending).summary(), "already_applied", "it came late");
    assert_eq!(c.balance_and_debt(ANN), (500, 0));
    in_every_order(&Database::with_catalog(), |c| c.buy(ANN, "cs_1"), &[pending, canceled], (500, 0));
}

#[test]
fn scenario_30_a_refund_requiring_action_counts_until_its_failed_event() {
    let db = Database::with_catalog();
    let mut c = db.connect();
    c.buy(ANN, "cs_1");
    let waiting = refund("re_1", "pi_1", 1000).with("status", "requires_action");
    assert_eq!(c.apply(&waiting.event("evt_1", "refund.created")).credits, -500);
    let contradicting = refund("re_1", "pi_1", 1000).event("evt_2", "refund.failed");
    assert_eq!(c.apply(&contradicting).credits, 500);
    assert_eq!(c.balance_and_debt(ANN), (500, 0));
    let statusless = refund("re_2", "pi_1", 500).with("status", Value::Null);
    assert_eq!(
        c.apply(&statusless.event("evt_3", "charge.refund.updated")).credits,
        -250,
        "nothing said is live"
    );
}

#[test]
fn scenario_30_a_failed_refund_in_a_count_takes_nothing_and_the_next_one_is_counted() {
    let db = Database::with_catalog();
    let events = [
        refunded("re_1", "pi_1", 400),
        failed("re_1", "pi_1", 400),
        charge("pi_1", 1000, 400).event("evt_count", "charge.refunded"),
        refunded("re_2", "pi_1", 600),
    ];
    in_every_order(&db, |c| c.buy(ANN, "cs_1"), &events, (200, 0));
}

#[test]
fn debt_is_settled_in_draw_order_from_several_grants_and_returns_to_them() {
    let db = Database::with_catalog();
    let mut c = db.connect();
    c.buy(ANN, "cs_1");
    c.spend(ANN, 500, "job-1");
    c.grant(ANN, 50, "never");
    c.grant_for_days(ANN, 40, "later", 9);
    c.grant_for_days(ANN, 30, "soon", 1);
    c.buy(ANN, "cs_2");
    assert_eq!(c.apply(&refunded("re_1", "pi_1", 300)).credits, -150, "half of what there was to give");
    assert_eq!(c.grants(ANN), ["cs_1 0", "grant:never 0", "grant:later 0", "grant:soon 0", "cs_2 470"]);
    let drawn: Vec<String> = c.column(
        "select g.source_id || ' ' || t.amount from billing.credit_transactions t
         join billing.credit_grants g on g.user_id = t.user_id and g.id = t.grant_id
         where t.transaction_type = 'debt_settlement' order by t.id",
        &[],
    );
    assert_eq!(drawn, ["grant:soon -30", "grant:later -40", "grant:never -50", "cs_2 -30"]);
    assert_eq!(c.apply(&failed("re_1", "pi_1", 300)).credits, 150);
    assert_eq!(c.grants(ANN), ["cs_1 0", "grant:never 50", "grant:later 40", "grant:soon 30", "cs_2 500"]);
    assert_eq!(c.balance_and_debt(ANN), (620, 0));
}

#[test]
fn a_debt_is_repaid_by_grants_as_they_come_whatever_they_are_for() {
    let db = Database::with_catalog();
    let mut c = db.connect();
    c.buy(ANN, "cs_1");
    c.spend(ANN, 500, "job-1");
    c.apply(&refunded("re_1", "pi_1", 1000));
    assert_eq!(c.balance_and_debt(ANN), (0, 500));
    let gift = c.grant(ANN, 100, "gift");
    assert_eq!((gift.credits, gift.remaining_total, gift.debt), (100, Some(0), Some(400)));
    assert_eq!(c.balance_and_debt(ANN), (0, 400));
    c.grant_for_days(ANN, 100, "soon", 1);
    assert_eq!(c.purchase(ANN, 250, "evt", "cs_direct").debt, Some(50));
    assert_eq!(c.balance_and_debt(ANN), (0, 50));
    c.sign_up(ANN);
    assert_eq!(c.balance_and_debt(ANN), (450, 0));
}

#[test]
fn what_settled_a_debt_and_expired_meanwhile_does_not_come_back_spendable() {
    let db = Database::with_catalog();
    let mut c = db.connect();
    c.buy(ANN, "cs_1");
    c.spend(ANN, 500, "job-1");
    c.apply(&refunded("re_1", "pi_1", 1000));
    c.grant_for_days(ANN, 100, "gift", 1);
    c.expire_grants(ANN, "grant:gift");
    assert_eq!(c.apply(&failed("re_1", "pi_1", 1000)).summary(), "applied");
    assert_eq!(c.balance_and_debt(ANN), (0, 0));
}

#[test]
fn an_undone_reversal_of_one_payment_pays_the_debt_of_another() {
    let db = Database::with_catalog();
    let mut c = db.connect();
    for session in ["cs_1", "cs_2"] {
        c.buy(ANN, session);
    }
    c.spend(ANN, 1000, "job-1");
    c.apply(&refunded("re_1", "pi_1", 1000));
    c.apply(&refunded("re_2", "pi_2", 1000));
    c.grant(ANN, 600, "gift");
    assert_eq!(c.balance_and_debt(ANN), (0, 400));
    assert_eq!(c.apply(&failed("re_1", "pi_1", 1000)).credits, 500);
    assert_eq!(c.balance_and_debt(ANN), (100, 0));
    assert_eq!(c.apply(&failed("re_2", "pi_2", 1000)).credits, 500);
    assert_eq!(c.balance_and_debt(ANN), (600, 0));
}

/// A database whose catalog writes off what was spent before it was reversed.
fn forgiving() -> Database {
    let db = Database::new();
    let mut wanted = catalog();
    wanted["reversal_policy"] = json!("forgive");
    db.connect().load_catalog(&wanted);
    db
}

#[test]
fn under_the_policy_forgive_what_was_spent_is_written_off() {
    let db = forgiving();
    let mut c = db.connect();
    c.buy(ANN, "cs_1");
    c.spend(ANN, 300, "job-1");
    let reversed = c.apply(&refunded("re_1", "pi_1", 1000));
    assert_eq!((reversed.credits, reversed.debt), (-200, Some(0)));
    assert_eq!(c.balance_and_debt(ANN), (0, 0));
    c.buy(ANN, "cs_2");
    assert_eq!(c.balance_and_debt(ANN), (500, 0), "nothing is owed");
    assert_eq!(c.apply(&failed("re_1", "pi_1", 1000)).credits, 200);
    assert_eq!(c.balance_and_debt(ANN), (700, 0));
}

#[test]
fn under_the_policy_forgive_credits_that_were_held_are_taken_when_they_return() {
    // Nothing of the pack was spent in the end, and all of its money went back.
    let db = forgiving();
    let mut c = db.connect();
    c.buy(ANN, "cs_1");
    c.reserve(ANN, 300, "job-1");
    c.apply(&refunded("re_1", "pi_1", 1000));
    c.release(ANN, "job-1");
    assert_eq!(c.balance_and_debt(ANN), (0, 0));
}

#[test]
fn under_the_policy_forgive_a_repeated_refund_changes_nothing() {
    let db = forgiving();
    let mut c = db.connect();
    c.buy(ANN, "cs_1");
    c.reserve(ANN, 300, "job-1");
    c.apply(&refunded("re_1", "pi_1", 1000));
    c.commit(ANN, "job-1", Some(100));
    let before = c.balance_and_debt(ANN);
    assert_eq!(c.apply(&refunded("re_1", "pi_1", 1000)).summary(), "already_applied");
    assert_eq!(c.balance_and_debt(ANN), before);
}

#[test]
fn a_release_after_a_reversal_lowers_the_debt() {
    let db = Database::with_catalog();
    let mut c = db.connect();
    c.buy(ANN, "cs_1");
    c.reserve(ANN, 300, "job-1");
    c.apply(&refunded("re_1", "pi_1", 1000));
    assert_eq!(c.balance_and_debt(ANN), (0, 300));
    let ended = c.commit(ANN, "job-1", Some(100));
    assert_eq!((ended.summary().as_str(), ended.credits, ended.debt), ("applied", 200, Some(100)));
    assert_eq!(c.balance_and_debt(ANN), (0, 100));
    assert_eq!(c.apply(&refunded("re_1", "pi_1", 1000)).summary(), "already_applied");
    assert_eq!(c.apply(&failed("re_1", "pi_1", 1000)).credits, 500);
    assert_eq!(c.balance_and_debt(ANN), (400, 0));
}

#[test]
fn a_release_after_a_reversal_that_others_settled_gives_back_to_them() {
    let db = Database::with_catalog();
    let mut c = db.connect();
    c.buy(ANN, "cs_1");
    c.reserve(ANN, 300, "job-1");
    c.apply(&refunded("re_1", "pi_1", 1000));
    c.grant(ANN, 500, "gift");
    assert_eq!(c.balance_and_debt(ANN), (200, 0));
    assert_eq!(c.release(ANN, "job-1").credits, 300);
    assert_eq!(c.grants(ANN), ["cs_1 0", "grant:gift 500"]);
}

#[test]
fn an_expired_reservation_of_a_reversed_pack_is_read_as_its_posting_will_leave_it() {
    let db = Database::with_catalog();
    let mut c = db.connect();
    c.buy(ANN, "cs_1");
    c.reserve(ANN, 300, "job-1");
    c.apply(&refunded("re_1", "pi_1", 1000));
    c.expire_reservation(ANN, "job-1");
    let read = c.balance_and_debt(ANN);
    assert_eq!(c.run_due(), 1);
    assert_eq!(c.balance_and_debt(ANN), (0, 0));
    assert_eq!(read, (0, 0), "credits that could not be spent were read as available");
}

#[test]
fn an_expired_reservation_beside_another_packs_debt_is_read_as_it_will_be_posted() {
    let db = Database::with_catalog();
    let mut c = db.connect();
    c.buy(ANN, "cs_1");
    c.spend(ANN, 500, "job-1");
    c.buy(ANN, "cs_2");
    c.reserve(ANN, 500, "job-2");
    c.apply(&refunded("re_1", "pi_1", 600));
    assert_eq!(c.balance_and_debt(ANN), (0, 300));
    c.expire_reservation(ANN, "job-2");
    let read = c.balance_and_debt(ANN);
    assert_eq!(c.run_due(), 1);
    assert_eq!(c.balance_and_debt(ANN), (200, 0));
    assert_eq!(read, (200, 0));
}
