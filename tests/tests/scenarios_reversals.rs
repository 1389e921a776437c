//! Scenarios of money that goes back: refunds and disputes in any order, before and after what they reverse, in part and
//! whole, of credits that are there, spent, held or lapsed.

use serde_json::{Value, json};
use stripe_credits_tests::chance::orders;
use stripe_credits_tests::concurrency::{blocked, together, waits_for};
use stripe_credits_tests::money_back::{charge, dispute, refund};
use stripe_credits_tests::{
    ANN, BOB, Connection, Database, Event, catalog, fetched_lines, paid_pack, session,
};
use uuid::Uuid;

/// Buys `price_pack` with `cs_name`, paid by `pi_name`.
fn buy(c: &mut Connection, user: Uuid, session_id: &str) {
    assert_eq!(c.apply(&bought(session_id, user)).said(), "applied");
}

/// The event by which `price_pack` was bought.
fn bought(session_id: &str, user: Uuid) -> Event {
    paid_pack(session_id, user).completed(&format!("evt_{session_id}"))
}

/// A refund's event under its own id.
fn refunded(refund_id: &str, payment_intent: &str, amount: i64) -> Event {
    refund(refund_id, payment_intent, amount).event(&format!("evt_{refund_id}"), "refund.created")
}

/// The failure of that refund.
fn failed(refund_id: &str, payment_intent: &str, amount: i64) -> Event {
    refund(refund_id, payment_intent, amount)
        .with("status", "failed")
        .event(&format!("evt_{refund_id}_failed"), "refund.failed")
}

/// What a user can spend, and what they owe.
fn stands(c: &mut Connection, user: Uuid) -> (i64, i64) {
    let stands = (c.balance(user), c.debt(user));
    assert_eq!(c.reads(user), stands, "every reader reads the same");
    stands
}

/// Plays every order of these events after `before`, each event twice in a row and once more at the end, and compares
/// where ANN stands. Each order is a transaction that is undone; its books are proven before.
fn in_every_order(
    db: &Database,
    before: impl Fn(&mut Connection),
    events: &[Event],
    balance: i64,
    debt: i64,
) {
    let mut c = db.connect();
    let mut first = None;
    for order in orders(events.len()) {
        c.run("begin");
        before(&mut c);
        for event in order.iter().flat_map(|n| [*n, *n]).chain(order.iter().copied()) {
            let said = c.apply(&events[event]);
            assert!(said.outcome != "rejected", "{said:?}");
        }
        assert_eq!((c.balance(ANN), c.debt(ANN)), (balance, debt), "order {order:?}: {:?}", c.ledger(ANN));
        let broken: i64 = c.one("select count(*) from billing.validate_credits_consistency()", &[]);
        assert_eq!(broken, 0, "the books after order {order:?}");
        let end = c.end_state();
        let (one, state) = first.get_or_insert_with(|| (order.clone(), end.clone()));
        assert_eq!(&end, state, "order {order:?} against {one:?}");
        c.run("rollback");
    }
}

fn nothing(_: &mut Connection) {}

// 29: partial refunds.

#[test]
fn scenario_29_three_uneven_refunds_and_a_stale_count_take_the_pack_back_and_never_more() {
    let db = Database::with_catalog();
    let mut c = db.connect();
    buy(&mut c, ANN, "cs_1");
    let count = |id: &str, amount| charge("pi_1", 1000, amount).event(id, "charge.refunded");
    assert_eq!(c.apply(&refunded("re_1", "pi_1", 333)).credits, -166);
    assert_eq!(c.apply(&count("evt_c1", 333)).said(), "already_applied");
    assert_eq!(c.apply(&refunded("re_2", "pi_1", 333)).credits, -167);
    assert_eq!(c.apply(&refunded("re_3", "pi_1", 334)).credits, -167);
    assert_eq!(c.apply(&count("evt_c3", 1000)).said(), "already_applied");
    assert_eq!(c.apply(&count("evt_c2", 666)).said(), "already_applied", "stale, and smaller");
    assert_eq!(stands(&mut c, ANN), (0, 0));
    assert_eq!(c.ledger(ANN), ["purchase 500", "reversal -166", "reversal -167", "reversal -167"]);
    let origin: Vec<String> = c.column(
        "select concat_ws(' ', stripe_event_id, stripe_checkout_session_id, stripe_payment_intent_id, pool)
         from billing.credit_transactions where transaction_type = 'reversal' order by id limit 1",
        &[],
    );
    assert_eq!(origin, ["evt_re_1 cs_1 pi_1 purchased"]);
}

#[test]
fn scenario_29_refunds_and_counts_in_every_order_after_the_purchase() {
    let db = Database::with_catalog();
    let refunds =
        [("re_1", 333), ("re_2", 333), ("re_3", 334)].map(|(id, amount)| refunded(id, "pi_1", amount));
    in_every_order(&db, |c| buy(c, ANN, "cs_1"), &refunds, 0, 0);
    let counts =
        [333, 666, 1000].map(|n| charge("pi_1", 1000, n).event(&format!("evt_{n}"), "charge.refunded"));
    in_every_order(&db, |c| buy(c, ANN, "cs_1"), &counts, 0, 0);
    in_every_order(&db, |c| buy(c, ANN, "cs_1"), &counts[..2], 167, 0);
    in_every_order(&db, |c| buy(c, ANN, "cs_1"), &refunds[..2], 167, 0);
    let mixed: Vec<Event> = refunds.into_iter().chain(counts.into_iter().take(2)).collect();
    in_every_order(&db, |c| buy(c, ANN, "cs_1"), &mixed, 0, 0);
}

#[test]
fn scenario_29_refunds_counts_and_the_purchase_itself_in_every_order() {
    let db = Database::with_catalog();
    let events = [
        bought("cs_1", ANN),
        refunded("re_1", "pi_1", 333),
        refunded("re_2", "pi_1", 333),
        charge("pi_1", 1000, 333).event("evt_stale", "charge.refunded"),
        charge("pi_1", 1000, 666).event("evt_count", "charge.refunded"),
    ];
    in_every_order(&db, nothing, &events, 167, 0);
}

#[test]
fn scenario_29_the_older_shape_lists_its_refunds_in_the_charge_and_means_the_same() {
    let db = Database::with_catalog();
    let [one, two] = [("re_1", 333), ("re_2", 300)].map(|(id, amount)| refund(id, "pi_1", amount));
    let older = [
        charge("pi_1", 1000, 333).listing(std::slice::from_ref(&one)).event("evt_1", "charge.refunded"),
        charge("pi_1", 1000, 633).listing(&[two.clone(), one.clone()]).event("evt_2", "charge.refunded"),
        two.clone().with("status", "failed").event("evt_3", "charge.refund.updated"),
    ];
    in_every_order(&db, |c| buy(c, ANN, "cs_1"), &older, 334, 0);
    let newer = [
        charge("pi_1", 1000, 633).event("evt_2", "charge.refunded"),
        one.event("evt_4", "refund.created"),
        two.event("evt_5", "refund.created"),
        two.with("status", "failed").event("evt_6", "refund.failed"),
    ];
    in_every_order(&db, |c| buy(c, ANN, "cs_1"), &newer, 334, 0);
}

#[test]
fn scenario_29_the_same_refund_on_three_connections_at_once_takes_once() {
    let db = Database::with_catalog();
    buy(&mut db.connect(), ANN, "cs_1");
    let said = together(&db, vec![|c: &mut Connection| c.apply(&refunded("re_1", "pi_1", 400)).said(); 3]);
    assert_eq!(said.iter().filter(|said| *said == "applied").count(), 1, "{said:?}");
    assert_eq!(said.iter().filter(|said| *said == "already_applied").count(), 2, "{said:?}");
    assert_eq!(db.connect().ledger(ANN), ["purchase 500", "reversal -200"]);
}

#[test]
fn scenario_29_three_different_refunds_on_three_connections_at_once_take_all_of_them() {
    for _ in 0..10 {
        let db = Database::with_catalog();
        buy(&mut db.connect(), ANN, "cs_1");
        let works = [("re_1", 333), ("re_2", 333), ("re_3", 334)]
            .map(|(id, amount)| move |c: &mut Connection| c.apply(&refunded(id, "pi_1", amount)).said());
        assert_eq!(together(&db, works.to_vec()), ["applied", "applied", "applied"]);
        assert_eq!(stands(&mut db.connect(), ANN), (0, 0));
    }
}

// 30: what was spent is owed.

#[test]
fn scenario_30_what_was_spent_is_debt_and_what_settled_it_comes_back_when_the_refund_fails() {
    let db = Database::with_catalog();
    let mut c = db.connect();
    buy(&mut c, ANN, "cs_1");
    c.spend(ANN, 300, "job-1");
    let reversed = c.apply(&refunded("re_1", "pi_1", 1000));
    assert_eq!((reversed.said().as_str(), reversed.credits, reversed.debt), ("applied", -500, Some(300)));
    assert_eq!(stands(&mut c, ANN), (0, 300));
    assert_eq!(c.spend(ANN, 1, "job-2").said(), "rejected insufficient_credits");
    buy(&mut c, ANN, "cs_2");
    assert_eq!(stands(&mut c, ANN), (200, 0));
    let undone = c.apply(&failed("re_1", "pi_1", 1000));
    assert_eq!((undone.said().as_str(), undone.credits, undone.debt), ("applied", 500, Some(0)));
    assert_eq!(stands(&mut c, ANN), (700, 0));
    assert_eq!(c.grants(ANN), ["cs_1 200", "cs_2 500"]);
    assert_eq!(c.spend(ANN, 700, "job-2").said(), "applied");
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
    in_every_order(&db, nothing, &events, 1000, 0);
    in_every_order(&db, nothing, &events[..3], 500, 0);
}

#[test]
fn scenario_30_with_a_spend_before_them_every_order_of_refund_failure_and_new_pack_comes_to_the_same() {
    let db = Database::with_catalog();
    let spent = |c: &mut Connection| {
        buy(c, ANN, "cs_1");
        assert_eq!(c.spend(ANN, 300, "job-1").said(), "applied");
    };
    let events = [refunded("re_1", "pi_1", 1000), failed("re_1", "pi_1", 1000), bought("cs_2", ANN)];
    in_every_order(&db, spent, &events, 700, 0);
    let unfailed = [events[0].clone(), events[2].clone(), refunded("re_2", "pi_2", 400)];
    in_every_order(&db, spent, &unfailed, 0, 0);
}

#[test]
fn scenario_30_a_spend_between_any_two_events_comes_to_the_same_total_while_nothing_overdraws() {
    let db = Database::with_catalog();
    let mut c = db.connect();
    let events = [refunded("re_1", "pi_1", 1000), failed("re_1", "pi_1", 1000), bought("cs_2", ANN)];
    let mut refused = 0;
    for order in orders(4) {
        c.run("begin");
        buy(&mut c, ANN, "cs_1");
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
    buy(&mut c, ANN, "cs_1");
    assert_eq!(c.apply(&pending).credits, -500, "pending is live");
    assert_eq!(c.apply(&canceled).credits, 500);
    assert_eq!(c.apply(&pending).said(), "already_applied", "it came late");
    assert_eq!(stands(&mut c, ANN), (500, 0));
    in_every_order(&Database::with_catalog(), |c| buy(c, ANN, "cs_1"), &[pending, canceled], 500, 0);
}

#[test]
fn scenario_30_a_refund_requiring_action_is_live_and_its_failed_event_decides_though_the_object_says_succeeded()
 {
    let db = Database::with_catalog();
    let mut c = db.connect();
    buy(&mut c, ANN, "cs_1");
    let waiting = refund("re_1", "pi_1", 1000).with("status", "requires_action");
    assert_eq!(c.apply(&waiting.event("evt_1", "refund.created")).credits, -500);
    let contradicting = refund("re_1", "pi_1", 1000).event("evt_2", "refund.failed");
    assert_eq!(c.apply(&contradicting).credits, 500);
    assert_eq!(stands(&mut c, ANN), (500, 0));
    let statusless = refund("re_2", "pi_1", 500).with("status", Value::Null);
    assert_eq!(
        c.apply(&statusless.event("evt_3", "charge.refund.updated")).credits,
        -250,
        "nothing said is live"
    );
}

#[test]
fn scenario_30_a_failed_refund_in_a_count_takes_nothing_and_the_next_refund_is_counted() {
    let db = Database::with_catalog();
    let events = [
        refunded("re_1", "pi_1", 400),
        failed("re_1", "pi_1", 400),
        charge("pi_1", 1000, 400).event("evt_count", "charge.refunded"),
        refunded("re_2", "pi_1", 600),
    ];
    in_every_order(&db, |c| buy(c, ANN, "cs_1"), &events, 200, 0);
}

#[test]
fn debt_is_settled_in_draw_order_from_several_grants_and_returns_to_them() {
    let db = Database::with_catalog();
    let mut c = db.connect();
    buy(&mut c, ANN, "cs_1");
    c.spend(ANN, 500, "job-1");
    c.grant(ANN, 50, "never");
    c.grant_for_days(ANN, 40, "later", 9);
    c.grant_for_days(ANN, 30, "soon", 1);
    buy(&mut c, ANN, "cs_2");
    assert_eq!(c.apply(&refunded("re_1", "pi_1", 300)).credits, -150, "half of what there was to give");
    assert_eq!(c.grants(ANN), ["cs_1 0", "never 0", "later 0", "soon 0", "cs_2 470"]);
    let drawn: Vec<String> = c.column(
        "select g.source_id || ' ' || t.amount from billing.credit_transactions t
         join billing.credit_grants g on g.user_id = t.user_id and g.id = t.grant_id
         where t.transaction_type = 'debt_settlement' order by t.id",
        &[],
    );
    assert_eq!(drawn, ["soon -30", "later -40", "never -50", "cs_2 -30"]);
    assert_eq!(c.apply(&failed("re_1", "pi_1", 300)).credits, 150);
    assert_eq!(c.grants(ANN), ["cs_1 0", "never 50", "later 40", "soon 30", "cs_2 500"]);
    assert_eq!(stands(&mut c, ANN), (620, 0));
}

#[test]
fn a_debt_is_repaid_by_grants_as_they_come_whatever_they_are_for() {
    let db = Database::with_catalog();
    let mut c = db.connect();
    buy(&mut c, ANN, "cs_1");
    c.spend(ANN, 500, "job-1");
    c.apply(&refunded("re_1", "pi_1", 1000));
    assert_eq!(stands(&mut c, ANN), (0, 500));
    let gift = c.grant(ANN, 100, "gift");
    assert_eq!((gift.credits, gift.remaining_total, gift.debt), (100, Some(0), Some(400)));
    assert_eq!(stands(&mut c, ANN), (0, 400));
    c.grant_for_days(ANN, 100, "soon", 1);
    assert_eq!(c.purchase(ANN, 250, "evt", "cs_direct").debt, Some(50));
    assert_eq!(stands(&mut c, ANN), (0, 50));
    c.sign_up(ANN);
    assert_eq!(stands(&mut c, ANN), (450, 0));
}

#[test]
fn what_settled_a_debt_and_lapsed_meanwhile_does_not_come_back_spendable() {
    let db = Database::with_catalog();
    let mut c = db.connect();
    buy(&mut c, ANN, "cs_1");
    c.spend(ANN, 500, "job-1");
    c.apply(&refunded("re_1", "pi_1", 1000));
    c.grant_for_days(ANN, 100, "gift", 1);
    c.lapses_now(ANN, "gift");
    assert_eq!(c.apply(&failed("re_1", "pi_1", 1000)).said(), "applied");
    assert_eq!(stands(&mut c, ANN), (0, 0));
}

#[test]
fn an_undone_reversal_of_one_payment_pays_the_debt_of_another() {
    let db = Database::with_catalog();
    let mut c = db.connect();
    for session in ["cs_1", "cs_2"] {
        buy(&mut c, ANN, session);
    }
    c.spend(ANN, 1000, "job-1");
    c.apply(&refunded("re_1", "pi_1", 1000));
    c.apply(&refunded("re_2", "pi_2", 1000));
    c.grant(ANN, 600, "gift");
    assert_eq!(stands(&mut c, ANN), (0, 400));
    assert_eq!(c.apply(&failed("re_1", "pi_1", 1000)).credits, 500);
    assert_eq!(stands(&mut c, ANN), (100, 0));
    assert_eq!(c.apply(&failed("re_2", "pi_2", 1000)).credits, 500);
    assert_eq!(stands(&mut c, ANN), (600, 0));
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
    buy(&mut c, ANN, "cs_1");
    c.spend(ANN, 300, "job-1");
    let reversed = c.apply(&refunded("re_1", "pi_1", 1000));
    assert_eq!((reversed.credits, reversed.debt), (-200, Some(0)));
    assert_eq!(stands(&mut c, ANN), (0, 0));
    buy(&mut c, ANN, "cs_2");
    assert_eq!(stands(&mut c, ANN), (500, 0), "nothing is owed");
    assert_eq!(c.apply(&failed("re_1", "pi_1", 1000)).credits, 200);
    assert_eq!(stands(&mut c, ANN), (700, 0));
}

#[test]
fn under_the_policy_forgive_credits_that_were_held_are_taken_when_they_return() {
    // Nothing of the pack was spent in the end, and all of its money went back.
    let db = forgiving();
    let mut c = db.connect();
    buy(&mut c, ANN, "cs_1");
    c.reserve(ANN, 300, "job-1");
    c.apply(&refunded("re_1", "pi_1", 1000));
    c.release(ANN, "job-1");
    assert_eq!(stands(&mut c, ANN), (0, 0));
}

#[test]
fn under_the_policy_forgive_a_repeated_refund_changes_nothing() {
    let db = forgiving();
    let mut c = db.connect();
    buy(&mut c, ANN, "cs_1");
    c.reserve(ANN, 300, "job-1");
    c.apply(&refunded("re_1", "pi_1", 1000));
    c.commit(ANN, "job-1", Some(100));
    let before = stands(&mut c, ANN);
    assert_eq!(c.apply(&refunded("re_1", "pi_1", 1000)).said(), "already_applied");
    assert_eq!(stands(&mut c, ANN), before);
}

#[test]
fn a_release_after_a_reversal_lowers_the_debt() {
    let db = Database::with_catalog();
    let mut c = db.connect();
    buy(&mut c, ANN, "cs_1");
    c.reserve(ANN, 300, "job-1");
    c.apply(&refunded("re_1", "pi_1", 1000));
    assert_eq!(stands(&mut c, ANN), (0, 300));
    let ended = c.commit(ANN, "job-1", Some(100));
    assert_eq!((ended.said().as_str(), ended.credits, ended.debt), ("applied", 200, Some(100)));
    assert_eq!(stands(&mut c, ANN), (0, 100));
    assert_eq!(c.apply(&refunded("re_1", "pi_1", 1000)).said(), "already_applied");
    assert_eq!(c.apply(&failed("re_1", "pi_1", 1000)).credits, 500);
    assert_eq!(stands(&mut c, ANN), (400, 0));
}

#[test]
fn a_release_after_a_reversal_that_others_settled_gives_back_to_them() {
    let db = Database::with_catalog();
    let mut c = db.connect();
    buy(&mut c, ANN, "cs_1");
    c.reserve(ANN, 300, "job-1");
    c.apply(&refunded("re_1", "pi_1", 1000));
    c.grant(ANN, 500, "gift");
    assert_eq!(stands(&mut c, ANN), (200, 0));
    assert_eq!(c.release(ANN, "job-1").credits, 300);
    assert_eq!(c.grants(ANN), ["cs_1 0", "gift 500"]);
}

#[test]
fn a_reservation_that_ran_out_is_read_as_its_posting_will_leave_it_though_its_pack_was_reversed() {
    let db = Database::with_catalog();
    let mut c = db.connect();
    buy(&mut c, ANN, "cs_1");
    c.reserve(ANN, 300, "job-1");
    c.apply(&refunded("re_1", "pi_1", 1000));
    c.runs_out_now(ANN, "job-1");
    let read = c.reads(ANN);
    assert_eq!(c.run_due(), 1);
    assert_eq!(c.reads(ANN), (0, 0));
    assert_eq!(read, (0, 0), "what nobody could have spent was read as there");
}

#[test]
fn a_reservation_that_ran_out_under_another_packs_debt_is_read_as_its_posting_will_leave_it() {
    let db = Database::with_catalog();
    let mut c = db.connect();
    buy(&mut c, ANN, "cs_1");
    c.spend(ANN, 500, "job-1");
    buy(&mut c, ANN, "cs_2");
    c.reserve(ANN, 500, "job-2");
    c.apply(&refunded("re_1", "pi_1", 600));
    assert_eq!(stands(&mut c, ANN), (0, 300));
    c.runs_out_now(ANN, "job-2");
    let read = c.reads(ANN);
    assert_eq!(c.run_due(), 1);
    assert_eq!(c.reads(ANN), (200, 0));
    assert_eq!(read, (200, 0));
}

// 31: before the purchase.

#[test]
fn scenario_31_a_refund_before_its_purchase_is_netted_in_both_orders() {
    let db = Database::with_catalog();
    let mut c = db.connect();
    let early = c.deliver(&refunded("re_1", "pi_1", 1000));
    assert_eq!((early.said().as_str(), early.credits), ("ignored unknown_payment", 0));
    let late = c.apply(&bought("cs_1", ANN));
    assert_eq!((late.said().as_str(), late.credits, late.remaining_total), ("applied", 0, Some(0)));
    assert_eq!(c.ledger(ANN), ["purchase 500", "reversal -500"]);
    assert_eq!(c.apply(&refunded("re_1", "pi_1", 1000)).said(), "already_applied");
    let events = [bought("cs_1", ANN), refunded("re_1", "pi_1", 1000)];
    in_every_order(&Database::with_catalog(), nothing, &events, 0, 0);
    let part = [bought("cs_1", ANN), refunded("re_1", "pi_1", 300), failed("re_2", "pi_1", 100)];
    in_every_order(&Database::with_catalog(), nothing, &part, 350, 0);
}

#[test]
fn scenario_31_refund_and_purchase_with_both_transactions_open_are_netted_whoever_is_first() {
    let purchase = |c: &mut Connection| c.apply(&bought("cs_1", ANN)).said();
    let refund = |c: &mut Connection| c.deliver(&refunded("re_1", "pi_1", 1000)).said();
    let db = Database::with_catalog();
    let said = blocked(&db, purchase, refund);
    assert_eq!((said.0.as_str(), said.1.as_str()), ("applied", "applied"));
    assert_eq!(stands(&mut db.connect(), ANN), (0, 0));
    let db = Database::with_catalog();
    let said = blocked(&db, refund, purchase);
    assert_eq!((said.0.as_str(), said.1.as_str()), ("ignored unknown_payment", "applied"));
    assert_eq!(stands(&mut db.connect(), ANN), (0, 0));
    assert_eq!(db.connect().ledger(ANN), ["purchase 500", "reversal -500"]);
}

#[test]
fn scenario_31_refund_and_a_direct_purchase_with_both_transactions_open_are_netted_whoever_is_first() {
    let purchase = |c: &mut Connection| {
        c.call("apply_stripe_credit_pack_purchase($1, 500, 'evt', 'cs_1', 'pi_1')", &[&ANN]).said()
    };
    let count = charge("pi_1", 1000, 500).event("evt_c", "charge.refunded");
    for purchase_first in [true, false] {
        let db = Database::with_catalog();
        let refund = |c: &mut Connection| c.apply(&count).said();
        if purchase_first {
            blocked(&db, purchase, refund)
        } else {
            blocked(&db, refund, purchase)
        };
        assert_eq!(stands(&mut db.connect(), ANN), (250, 0), "purchase first: {purchase_first}");
    }
}

#[test]
fn scenario_31_a_refund_of_a_session_that_names_nobody_yet_is_netted_once_it_is_attributed() {
    let nobodys = session("cs_1").metadata("price_id", "price_pack").with("customer", "cus_1");
    for by in ["cs_1", "cus_1"] {
        for refund_first in [true, false] {
            let db = Database::with_catalog();
            let mut c = db.connect();
            let mut events = [refunded("re_1", "pi_1", 400), nobodys.completed("evt_1")];
            if !refund_first {
                events.reverse();
            }
            let mut said: Vec<String> = events.iter().map(|event| c.deliver(event).said()).collect();
            said.sort();
            assert_eq!(said, ["ignored unknown_payment", "parked unknown_user"]);
            let healed = c.attribute(by, ANN);
            assert_eq!((healed.said().as_str(), healed.credits), ("applied", 300), "by {by}");
            assert_eq!(c.ledger(ANN), ["purchase 500", "reversal -200"]);
            assert_eq!(c.apply(&refunded("re_1", "pi_1", 400)).said(), "already_applied");
            assert_eq!(stands(&mut c, ANN), (300, 0));
        }
    }
}

#[test]
fn scenario_31_a_refund_and_an_attribution_with_both_transactions_open_are_netted_whoever_is_first() {
    let nobodys = session("cs_1").metadata("price_id", "price_pack").with("customer", "cus_1");
    for by in ["cs_1", "cus_1"] {
        let refund = |c: &mut Connection| c.apply(&refunded("re_1", "pi_1", 400)).said();
        let heal = |c: &mut Connection| c.attribute(by, ANN).said();
        for refund_first in [true, false] {
            let db = Database::with_catalog();
            db.connect().apply(&nobodys.completed("evt_1"));
            if refund_first {
                blocked(&db, refund, heal)
            } else {
                blocked(&db, heal, refund)
            };
            assert_eq!(stands(&mut db.connect(), ANN), (300, 0), "by {by}, refund first: {refund_first}");
        }
    }
}

#[test]
fn scenario_31_a_refund_before_a_purchase_of_an_unknown_price_is_netted_once_the_catalog_knows_it() {
    let db = Database::with_catalog();
    let mut c = db.connect();
    c.apply(&refunded("re_1", "pi_1", 500));
    let new = session("cs_1").of(ANN).metadata("price_id", "price_new");
    assert_eq!(c.apply(&new.completed("evt_1")).said(), "parked unknown_price");
    let mut wanted = catalog();
    wanted["packs"] = json!([{"key": "new", "credits": 700, "prices": ["price_new"]}]);
    c.load_catalog(&wanted);
    assert_eq!(c.ledger(ANN), ["purchase 700", "reversal -350"]);
}

#[test]
fn scenario_31_line_items_seen_after_a_refund_grant_the_difference_and_take_its_part() {
    let db = Database::with_catalog();
    let paid = paid_pack("cs_1", ANN);
    let with_lines = paid.clone().lines(&[("price_pack", 3)]);
    let events = [paid.completed("evt_1"), with_lines.completed("evt_2"), refunded("re_1", "pi_1", 500)];
    in_every_order(&db, nothing, &events, 750, 0);
}

// 32: disputes.

#[test]
fn scenario_32_a_dispute_takes_the_pack_and_gives_it_back_when_it_is_won() {
    let db = Database::with_catalog();
    let mut c = db.connect();
    buy(&mut c, ANN, "cs_1");
    let said = |c: &mut Connection, id: &str, event_type: &str, status: &str| {
        let outcome = c.apply(&dispute("dp_1", "pi_1", 1000, status).event(id, event_type));
        (outcome.said(), outcome.credits)
    };
    let applied = |credits| ("applied".to_owned(), credits);
    let already = ("already_applied".to_owned(), 0);
    assert_eq!(said(&mut c, "evt_1", "charge.dispute.created", "needs_response"), applied(-500));
    assert_eq!(said(&mut c, "evt_2", "charge.dispute.funds_withdrawn", "needs_response"), already);
    assert_eq!(said(&mut c, "evt_3", "charge.dispute.updated", "under_review"), already);
    assert_eq!(said(&mut c, "evt_4", "charge.dispute.closed", "won"), applied(500));
    assert_eq!(said(&mut c, "evt_5", "charge.dispute.funds_reinstated", "won"), already);
    assert_eq!(said(&mut c, "evt_2", "charge.dispute.funds_withdrawn", "needs_response"), already, "late");
    assert_eq!(c.ledger(ANN), ["purchase 500", "reversal -500", "reinstatement 500"]);
    assert_eq!(stands(&mut c, ANN), (500, 0));
}

#[test]
fn scenario_32_withdrawn_won_and_reinstated_in_every_order() {
    let db = Database::with_catalog();
    let about = |id: &str, event_type: &str, status: &str| {
        dispute("dp_1", "pi_1", 1000, status).event(id, event_type)
    };
    let events = [
        about("evt_1", "charge.dispute.created", "needs_response"),
        about("evt_2", "charge.dispute.funds_withdrawn", "under_review"),
        about("evt_3", "charge.dispute.closed", "won"),
        about("evt_4", "charge.dispute.funds_reinstated", "won"),
    ];
    in_every_order(&db, |c| buy(c, ANN, "cs_1"), &events, 500, 0);
    in_every_order(&db, |c| buy(c, ANN, "cs_1"), &events[..2], 0, 0);
    let mut with_purchase = events.to_vec();
    with_purchase.push(bought("cs_1", ANN));
    in_every_order(&db, nothing, &with_purchase, 500, 0);
    let spent = |c: &mut Connection| {
        buy(c, ANN, "cs_1");
        c.spend(ANN, 300, "job-1");
    };
    in_every_order(&db, spent, &events, 200, 0);
    in_every_order(&db, spent, &events[..2], 0, 300);
}

#[test]
fn scenario_32_a_lost_dispute_keeps_what_it_took_in_every_order() {
    let db = Database::with_catalog();
    let events = [
        dispute("dp_1", "pi_1", 600, "needs_response").event("evt_1", "charge.dispute.created"),
        dispute("dp_1", "pi_1", 600, "lost").event("evt_2", "charge.dispute.closed"),
        dispute("dp_1", "pi_1", 600, "warning_needs_response").event("evt_3", "charge.dispute.created"),
    ];
    in_every_order(&db, |c| buy(c, ANN, "cs_1"), &events, 200, 0);
}

#[test]
fn scenario_32_an_inquiry_takes_nothing_until_its_funds_are_withdrawn() {
    let db = Database::with_catalog();
    let mut c = db.connect();
    buy(&mut c, ANN, "cs_1");
    for (n, status) in
        ["warning_needs_response", "warning_under_review", "warning_closed", "prevented"].iter().enumerate()
    {
        let event =
            dispute("dp_1", "pi_1", 1000, status).event(&format!("evt_{n}"), "charge.dispute.updated");
        assert_eq!((c.apply(&event).said().as_str(), c.balance(ANN)), ("already_applied", 500), "{status}");
    }
    let withdrawn = dispute("dp_1", "pi_1", 1000, "warning_under_review");
    assert_eq!(c.apply(&withdrawn.event("evt_w", "charge.dispute.funds_withdrawn")).credits, -500);
    assert_eq!(c.ledger(ANN), ["purchase 500", "reversal -500"]);
}

#[test]
fn scenario_32_refund_and_dispute_together_never_take_more_than_was_charged() {
    let db = Database::with_catalog();
    let events = [
        refunded("re_1", "pi_1", 600),
        dispute("dp_1", "pi_1", 1000, "needs_response").event("evt_d", "charge.dispute.created"),
        charge("pi_1", 1000, 600).event("evt_c", "charge.refunded"),
    ];
    in_every_order(&db, |c| buy(c, ANN, "cs_1"), &events, 0, 0);
    let mut won = events.to_vec();
    won.push(dispute("dp_1", "pi_1", 1000, "won").event("evt_w", "charge.dispute.closed"));
    in_every_order(&db, |c| buy(c, ANN, "cs_1"), &won, 200, 0);
}

#[test]
fn scenario_32_two_disputes_of_one_charge_add_up_to_no_more_than_it() {
    let db = Database::with_catalog();
    let about = |id: &str, amount| {
        dispute(id, "pi_1", amount, "needs_response").event(&format!("evt_{id}"), "charge.dispute.created")
    };
    in_every_order(&db, |c| buy(c, ANN, "cs_1"), &[about("dp_1", 300), about("dp_2", 300)], 200, 0);
    in_every_order(&db, |c| buy(c, ANN, "cs_1"), &[about("dp_1", 800), about("dp_2", 800)], 0, 0);
}

#[test]
fn a_dispute_in_another_currency_than_the_charges_counts_whole() {
    let db = Database::with_catalog();
    let foreign = dispute("dp_1", "pi_1", 7, "needs_response").with("currency", "eur");
    let events = [
        foreign.event("evt_d", "charge.dispute.created"),
        charge("pi_1", 1000, 0).event("evt_c", "charge.refunded"),
    ];
    in_every_order(&db, |c| buy(c, ANN, "cs_1"), &events, 0, 0);
}

// Amounts and currencies.

#[test]
fn parts_of_a_session_of_several_items_are_rounded_down_over_all_of_its_grants_together() {
    let db = Database::new();
    let mut c = db.connect();
    let mut wanted = catalog();
    wanted["packs"] = json!([
        {"key": "a", "credits": 7, "prices": ["price_a"]},
        {"key": "b", "credits": 11, "prices": ["price_b"]},
        {"key": "c", "credits": 13, "prices": ["price_c"]},
    ]);
    c.load_catalog(&wanted);
    let bare = session("cs_1").of(ANN).with("amount_total", 999);
    let lines = fetched_lines(&bare, &[("price_a", 1), ("price_b", 1), ("price_c", 1)]);
    assert_eq!(c.apply_fetched(&bare.completed("evt_1"), &lines).credits, 31);
    // floor(31 × part / 999), not the sum of three floors.
    let mut taken = 0;
    for (n, upto) in [32, 33, 64, 65, 500, 998, 999].into_iter().enumerate() {
        c.apply(&charge("pi_1", 999, upto).event(&format!("evt_c{n}"), "charge.refunded"));
        let target = 31 * upto / 999;
        assert!(target >= taken);
        taken = target;
        assert_eq!(c.balance(ANN), 31 - target, "{upto} of 999");
    }
    assert_eq!(stands(&mut c, ANN), (0, 0));
}

#[test]
fn two_packs_in_one_session_are_reversed_as_one_payment() {
    let db = Database::new();
    let mut c = db.connect();
    let mut wanted = catalog();
    wanted["packs"] = json!([
        {"key": "small", "credits": 100, "prices": ["price_small"]},
        {"key": "big", "credits": 900, "prices": ["price_big"]},
    ]);
    c.load_catalog(&wanted);
    let both = session("cs_1").of(ANN).lines(&[("price_small", 1), ("price_big", 1)]);
    assert_eq!(c.reconcile(&both, ANN).credits, 1000);
    c.spend(ANN, 50, "job-1");
    assert_eq!(c.apply(&refunded("re_1", "pi_1", 950)).credits, -950);
    assert_eq!(stands(&mut c, ANN), (0, 0), "50 were spent, 950 taken from both");
    assert_eq!(c.apply(&refunded("re_2", "pi_1", 50)).debt, Some(50));
    assert_eq!(c.apply(&failed("re_1", "pi_1", 950)).credits, 950);
    assert_eq!(stands(&mut c, ANN), (900, 0));
}

#[test]
fn a_currency_without_minor_units_is_whole_numbers_like_every_other() {
    let db = Database::with_catalog();
    let mut c = db.connect();
    let yen = paid_pack("cs_1", ANN).with("currency", "jpy").with("amount_total", 1500);
    c.apply(&yen.completed("evt_1"));
    let part = refund("re_1", "pi_1", 500).with("currency", "jpy");
    assert_eq!(c.apply(&part.event("evt_2", "refund.created")).credits, -166);
    let rest = refund("re_2", "pi_1", 1000).with("currency", "jpy");
    assert_eq!(c.apply(&rest.event("evt_3", "refund.created")).credits, -334);
    assert_eq!(stands(&mut c, ANN), (0, 0));
}

#[test]
fn a_refund_in_another_currency_than_the_sessions_waits_for_what_was_charged_in_it() {
    let db = Database::with_catalog();
    let mut c = db.connect();
    buy(&mut c, ANN, "cs_1");
    let part = refund("re_1", "pi_1", 230).with("currency", "eur").event("evt_1", "refund.created");
    assert_eq!(c.apply(&part).said(), "parked unknown_charge");
    assert_eq!(stands(&mut c, ANN), (500, 0));
    let count = charge("pi_1", 920, 230).with("currency", "eur").event("evt_2", "charge.refunded");
    assert_eq!(c.apply(&count).credits, -125, "a quarter of what was charged");
    assert_eq!(c.apply(&part).said(), "already_applied");
    assert_eq!(c.inbox("evt_1").as_deref(), Some("already_applied"));
    in_every_order(
        &Database::with_catalog(),
        |c| buy(c, ANN, "cs_1"),
        &[part.clone(), count.clone()],
        375,
        0,
    );
    in_every_order(&Database::with_catalog(), nothing, &[bought("cs_1", ANN), part, count], 375, 0);
}

#[test]
fn a_refund_and_a_dispute_in_another_currency_in_every_order() {
    let db = Database::with_catalog();
    let events = [
        refund("re_1", "pi_1", 100).with("currency", "eur").event("evt_1", "refund.created"),
        dispute("dp_1", "pi_1", 200, "needs_response")
            .with("currency", "eur")
            .event("evt_2", "charge.dispute.created"),
        charge("pi_1", 1000, 100).with("currency", "eur").event("evt_3", "charge.refunded"),
    ];
    in_every_order(&db, |c| buy(c, ANN, "cs_1"), &events, 350, 0);
}

#[test]
fn a_refund_and_a_dispute_in_another_currency_end_the_same_in_every_order_before_the_charge_is_known() {
    let db = Database::with_catalog();
    let events = [
        refund("re_1", "pi_1", 100).with("currency", "eur").event("evt_1", "refund.created"),
        dispute("dp_1", "pi_1", 200, "needs_response")
            .with("currency", "eur")
            .event("evt_2", "charge.dispute.created"),
    ];
    let mut c = db.connect();
    let ends: Vec<(i64, i64)> = orders(2)
        .into_iter()
        .map(|order| {
            c.run("begin");
            buy(&mut c, ANN, "cs_1");
            for event in order {
                c.apply(&events[event]);
            }
            let end = stands(&mut c, ANN);
            c.run("rollback");
            end
        })
        .collect();
    assert_eq!(ends[0], ends[1]);
}

#[test]
fn a_direct_purchase_without_an_amount_lets_its_refund_wait_until_a_charge_says_what_was_charged() {
    let db = Database::with_catalog();
    let mut c = db.connect();
    c.call("apply_stripe_credit_pack_purchase($1, 500, 'evt', 'cs_1', 'pi_1')", &[&ANN]);
    let part = refunded("re_1", "pi_1", 400);
    assert_eq!(c.apply(&part).said(), "parked unknown_charge");
    assert_eq!(c.inbox("evt_re_1").as_deref(), Some("parked unknown_charge"));
    let count = charge("pi_1", 1000, 400).event("evt_c", "charge.refunded");
    assert_eq!(c.apply(&count).credits, -200);
    assert_eq!(stands(&mut c, ANN), (300, 0));
    c.run("select from billing.retry_parked()");
    assert_eq!(c.inbox("evt_re_1").as_deref(), Some("already_applied"));
    assert_eq!(c.ledger(ANN), ["purchase 500", "reversal -200"]);
}

#[test]
fn a_direct_purchase_without_an_amount_learns_it_from_its_session() {
    let db = Database::with_catalog();
    let mut c = db.connect();
    c.call("apply_stripe_credit_pack_purchase($1, 500, 'evt', 'cs_1', 'pi_1')", &[&ANN]);
    c.apply(&refunded("re_1", "pi_1", 400));
    let webhook = c.apply(&bought("cs_1", ANN));
    assert_eq!((webhook.said().as_str(), webhook.credits), ("applied", -200));
    assert_eq!(stands(&mut c, ANN), (300, 0));
}

#[test]
fn a_direct_purchase_that_named_no_payment_intent_is_found_once_its_session_does() {
    let db = Database::with_catalog();
    let mut c = db.connect();
    c.purchase(ANN, 500, "evt", "cs_1");
    assert_eq!(c.deliver(&refunded("re_1", "pi_1", 400)).said(), "ignored unknown_payment");
    assert_eq!(c.apply(&bought("cs_1", ANN)).credits, -200);
}

#[test]
fn a_session_that_cost_nothing_has_nothing_to_refund() {
    let db = Database::with_catalog();
    let mut c = db.connect();
    let free = paid_pack("cs_1", ANN)
        .with("payment_status", "no_payment_required")
        .with("amount_total", 0)
        .with("payment_intent", Value::Null);
    assert_eq!(c.apply(&free.completed("evt_1")).credits, 500);
    assert_eq!(c.deliver(&refunded("re_1", "pi_1", 1000)).said(), "ignored unknown_payment");
    assert_eq!(stands(&mut c, ANN), (500, 0));
}

#[test]
fn a_refund_of_a_tshirts_payment_is_ignored_and_kept() {
    let db = Database::with_catalog();
    let mut c = db.connect();
    buy(&mut c, ANN, "cs_1");
    let tshirt = session("cs_2").of(ANN).lines(&[("price_tshirt", 1)]);
    assert_eq!(c.apply(&tshirt.completed("evt_2")).said(), "ignored not_credits");
    let said = c.deliver(&refunded("re_1", "pi_2", 1000));
    assert_eq!((said.said().as_str(), said.credits), ("ignored unknown_payment", 0));
    assert_eq!(c.inbox("evt_re_1").as_deref(), Some("ignored unknown_payment"));
    let kept: Vec<String> =
        c.column("select concat_ws(' ', reversal_id, kind, state, amount) from billing.reversals", &[]);
    assert_eq!(kept, ["re_1 refund live 1000"]);
    assert_eq!(stands(&mut c, ANN), (500, 0));
}

#[test]
fn reversals_that_name_no_payment_intent_are_kept_and_take_nothing() {
    let db = Database::with_catalog();
    let mut c = db.connect();
    buy(&mut c, ANN, "cs_1");
    let events = [
        refund("re_1", "pi_1", 1000).with("payment_intent", Value::Null).event("evt_1", "refund.created"),
        charge("pi_1", 1000, 1000).with("payment_intent", Value::Null).event("evt_2", "charge.refunded"),
        dispute("dp_1", "pi_1", 1000, "lost")
            .with("payment_intent", Value::Null)
            .event("evt_3", "charge.dispute.closed"),
    ];
    for event in &events {
        assert_eq!(c.deliver(event).said(), "ignored unknown_payment");
    }
    assert_eq!(stands(&mut c, ANN), (500, 0));
    assert_eq!(c.one::<i64>("select count(*) from billing.reversals", &[]), 3);
    assert_eq!(c.apply(&refunded("re_1", "pi_1", 1000)).credits, -500, "the refund again, with its name");
}

#[test]
fn an_expanded_payment_intent_is_the_same_payment_intent() {
    let db = Database::with_catalog();
    let mut c = db.connect();
    buy(&mut c, ANN, "cs_1");
    let expanded = refund("re_1", "pi_1", 1000)
        .with("payment_intent", json!({"id": "pi_1", "object": "payment_intent"}));
    assert_eq!(c.apply(&expanded.event("evt_1", "refund.created")).credits, -500);
}

#[test]
fn a_reversal_of_the_other_mode_or_account_takes_nothing() {
    let db = Database::with_catalog();
    let mut c = db.connect();
    buy(&mut c, ANN, "cs_1");
    assert_eq!(c.apply(&refunded("re_1", "pi_1", 1000).with("livemode", true)).said(), "ignored livemode");
    let foreign = refunded("re_2", "pi_1", 1000).with("account", "acct_2");
    assert_eq!(c.apply(&foreign).said(), "ignored account");
    assert_eq!(stands(&mut c, ANN), (500, 0));
    assert_eq!(c.one::<i64>("select count(*) from billing.reversals", &[]), 0);
}

#[test]
fn malformed_reversals_are_rejected_and_take_nothing() {
    let db = Database::with_catalog();
    let mut c = db.connect();
    buy(&mut c, ANN, "cs_1");
    let wrong = [
        refund("re_1", "pi_1", -1).event("evt_1", "refund.created"),
        refund("re_1", "pi_1", 1).with("amount", "1").event("evt_2", "refund.created"),
        refund("re_1", "pi_1", 1).with("amount", 1e30).event("evt_3", "refund.created"),
        refund("", "pi_1", 1).event("evt_4", "refund.created"),
        charge("pi_1", -5, 1).event("evt_5", "charge.refunded"),
        charge("pi_1", 1000, -5).event("evt_6", "charge.refunded"),
        charge("pi_1", 1000, 5).with("refunds", json!([1])).event("evt_7", "charge.refunded"),
        dispute("dp_1", "pi_1", 1, "lost").with("status", 7).event("evt_8", "charge.dispute.closed"),
    ];
    for event in wrong {
        assert_eq!(c.apply(&event).said(), "rejected malformed", "{event:?}");
    }
    assert_eq!(c.one::<i64>("select count(*) from billing.reversals", &[]), 0);
    assert_eq!(stands(&mut c, ANN), (500, 0));
    let most = refund("re_9", "pi_1", i64::MAX).event("evt_9", "refund.created");
    assert_eq!(c.apply(&most).credits, -500, "however much, no more than was charged");
    let again = charge("pi_1", 1000, i64::MAX).event("evt_10", "charge.refunded");
    assert_eq!(c.apply(&again).said(), "already_applied");
}

#[test]
fn explaining_a_refund_says_what_it_would_take_and_writes_nothing() {
    let db = Database::with_catalog();
    let mut c = db.connect();
    buy(&mut c, ANN, "cs_1");
    c.spend(ANN, 300, "job-1");
    let before = c.everything();
    let told = c.explain(&refunded("re_1", "pi_1", 1000));
    assert_eq!((told.said().as_str(), told.credits, told.debt), ("applied", -500, Some(300)));
    assert_eq!(c.everything(), before);
}

// Lapses.

#[test]
fn what_lapsed_unspent_counts_as_given_back() {
    for swept in [true, false] {
        let db = Database::with_catalog();
        let mut c = db.connect();
        buy(&mut c, ANN, "cs_1");
        c.spend(ANN, 100, "job-1");
        c.lapses_now(ANN, "cs_1");
        if swept {
            c.run_due();
        }
        c.apply(&refunded("re_1", "pi_1", 600));
        assert_eq!(stands(&mut c, ANN), (0, 0), "400 lapsed, 300 are wanted back");
        c.apply(&refunded("re_2", "pi_1", 400));
        assert_eq!(stands(&mut c, ANN), (0, 100), "what was spent is owed");
        c.apply(&failed("re_1", "pi_1", 600));
        assert_eq!(stands(&mut c, ANN), (0, 0));
        assert_eq!(c.grants(ANN), ["cs_1 0"], "what lapsed does not come back");
    }
}

/// A database that sells 200 credits for a year and 300 for good, both bought as `cs_1`.
fn short_and_long() -> Database {
    let db = Database::new();
    let mut c = db.connect();
    let mut wanted = catalog();
    wanted["packs"] = json!([
        {"key": "short", "credits": 200, "prices": ["price_short"], "expires_after": "1 year"},
        {"key": "long", "credits": 300, "prices": ["price_long"]},
    ]);
    c.load_catalog(&wanted);
    let created: i64 = c.one("select extract(epoch from clock_timestamp())::bigint", &[]);
    let both =
        session("cs_1").of(ANN).with("created", created).lines(&[("price_short", 1), ("price_long", 1)]);
    assert_eq!(c.reconcile(&both, ANN).credits, 500);
    db
}

/// The short one of the two lapsed.
fn short_lapses(c: &mut Connection) {
    c.run(
        "update billing.credit_grants set lapses_at = clock_timestamp() - interval '1 millisecond'
         where item = 'price_short';
         update billing.accounts set next_due_at = clock_timestamp() - interval '1 millisecond'",
    );
    assert_eq!(c.run_due(), 1);
}

#[test]
fn a_pack_that_partly_lapsed_gives_what_is_left_of_it() {
    let db = short_and_long();
    let mut c = db.connect();
    short_lapses(&mut c);
    assert_eq!(c.balance(ANN), 300);
    assert_eq!(c.apply(&refunded("re_1", "pi_1", 600)).credits, -100, "300 wanted, 200 lapsed");
    assert_eq!(c.apply(&refunded("re_2", "pi_1", 400)).credits, -200);
    assert_eq!(stands(&mut c, ANN), (0, 0));
    assert_eq!(c.apply(&failed("re_2", "pi_1", 400)).credits, 200, "as if it had never been");
    assert_eq!(stands(&mut c, ANN), (200, 0));
}

#[test]
fn a_partial_refund_takes_first_what_would_be_lost_first_so_that_a_lapse_before_or_after_it_is_the_same() {
    let refund = refunded("re_1", "pi_1", 600);
    for lapse_first in [true, false] {
        let db = short_and_long();
        let mut c = db.connect();
        if lapse_first {
            short_lapses(&mut c);
            c.apply(&refund);
        } else {
            c.apply(&refund);
            assert_eq!(c.balance(ANN), 200);
            short_lapses(&mut c);
        }
        assert_eq!(stands(&mut c, ANN), (200, 0), "lapse first: {lapse_first}");
    }
}

#[test]
fn a_refund_told_again_after_a_lapse_changes_nothing() {
    let db = short_and_long();
    let mut c = db.connect();
    for amount in [200, 600] {
        c.run("begin");
        let refund = refunded("re_1", "pi_1", amount);
        c.apply(&refund);
        short_lapses(&mut c);
        let before = stands(&mut c, ANN);
        assert_eq!(c.apply(&refund).said(), "already_applied", "{amount}");
        assert_eq!(stands(&mut c, ANN), before);
        c.run("rollback");
    }
}

#[test]
fn a_refund_that_fails_after_the_lapse_gives_nothing_back_to_spend() {
    let db = Database::with_catalog();
    let mut c = db.connect();
    buy(&mut c, ANN, "cs_1");
    c.spend(ANN, 100, "job-1");
    c.apply(&refunded("re_1", "pi_1", 1000));
    assert_eq!(stands(&mut c, ANN), (0, 100));
    c.run("update billing.credit_grants set lapses_at = clock_timestamp() - interval '1 second'");
    c.apply(&failed("re_1", "pi_1", 1000));
    assert_eq!(stands(&mut c, ANN), (0, 0));
}

// At once.

#[test]
fn refund_purchase_and_spend_at_once_end_in_one_of_the_two_ways_they_can() {
    type Work<'a> = Box<dyn FnOnce(&mut Connection) -> String + Send + 'a>;
    let db = Database::with_catalog();
    let mut spends = 0;
    for round in 0..50 {
        let user = stripe_credits_tests::user(1000 + round);
        let (session, intent) = (format!("cs_{round}"), format!("pi_{round}"));
        let purchase = bought(&session, user);
        let refund = refunded(&format!("re_{round}"), &intent, 1000);
        let works: Vec<Work> = vec![
            Box::new(|c| c.apply(&purchase).said()),
            Box::new(|c| c.apply(&refund).said()),
            Box::new(|c| c.spend(user, 200, "job-1").said()),
            Box::new(|c| c.apply(&refund).said()),
        ];
        let said = together(&db, works);
        let mut c = db.connect();
        let spent = said[2] == "applied";
        spends += usize::from(spent);
        let expected = if spent { (0, 200) } else { (0, 0) };
        assert_eq!(stands(&mut c, user), expected, "round {round}: {said:?} {:?}", c.ledger(user));
    }
    println!("{spends} of 50 spends came between purchase and refund");
}

#[test]
fn a_release_and_a_refund_with_both_transactions_open_end_the_same_whoever_is_first() {
    let release = |c: &mut Connection| c.release(ANN, "job-1").said();
    let refund = |c: &mut Connection| c.apply(&refunded("re_1", "pi_1", 1000)).said();
    for release_first in [true, false] {
        let db = Database::with_catalog();
        let mut c = db.connect();
        buy(&mut c, ANN, "cs_1");
        c.reserve(ANN, 300, "job-1");
        let said = if release_first { blocked(&db, release, refund) } else { blocked(&db, refund, release) };
        assert_eq!((said.0.as_str(), said.1.as_str()), ("applied", "applied"));
        assert_eq!(stands(&mut c, ANN), (0, 0), "release first: {release_first}");
    }
}

#[test]
fn an_attribution_of_a_paid_session_and_a_release_of_its_reversed_credits_do_not_deadlock() {
    // The session was paid by a direct call while its own event is still parked for want of a user.
    let db = Database::with_catalog();
    let (mut c, mut holder) = (db.connect(), db.connect());
    let nobodys = session("cs_1").metadata("price_id", "price_pack");
    assert_eq!(c.apply(&nobodys.completed("evt_1")).said(), "parked unknown_user");
    c.call("apply_stripe_credit_pack_purchase($1, 500, 'evt', 'cs_1', 'pi_1')", &[&ANN]);
    c.reserve(ANN, 300, "job-1");
    c.apply(&charge("pi_1", 1000, 1000).event("evt_c", "charge.refunded"));
    assert_eq!(c.debt(ANN), 300);
    // Somebody holds the account, the release waits for it first, then the attribution.
    holder.run(&format!("begin; select from billing.accounts where user_id = '{ANN}' for update"));
    let (mut one, mut two) = (db.connect(), db.connect());
    let waits = |pid: i32| {
        format!("select exists (select from pg_stat_activity where pid = {pid} and wait_event_type = 'Lock')")
    };
    let (first, second) = (waits(one.pid()), waits(two.pid()));
    std::thread::scope(|scope| {
        let releasing = scope.spawn(move || one.try_call("release_reservation($1, 'job-1')", &[&ANN]));
        waits_for(&mut c, &first);
        let attributing = scope.spawn(move || two.try_call("attribute('cs_1', $1)", &[&ANN]));
        waits_for(&mut c, &second);
        holder.run("commit");
        let released = releasing.join().expect("a thread");
        let attributed = attributing.join().expect("a thread");
        assert_eq!(released.map(|outcome| outcome.said()), Ok("applied".to_owned()));
        assert!(attributed.is_ok(), "{attributed:?}");
    });
    assert_eq!(stands(&mut c, ANN), (0, 0));
}

#[test]
fn two_users_reversals_do_not_wait_for_each_other() {
    let db = Database::with_catalog();
    let (mut one, mut other) = (db.connect(), db.connect());
    buy(&mut one, ANN, "cs_1");
    buy(&mut one, BOB, "cs_2");
    other.run("set lock_timeout = '1s'");
    one.run("begin");
    one.apply(&refunded("re_1", "pi_1", 1000));
    assert_eq!(other.apply(&refunded("re_2", "pi_2", 1000)).said(), "applied");
    one.run("commit");
}

#[test]
fn a_reservation_that_ran_out_before_its_grant_lapsed_repays_a_debt_however_late_that_is_posted() {
    let mut ends = Vec::new();
    for late in [false, true] {
        let db = Database::with_catalog();
        let mut c = db.connect();
        buy(&mut c, ANN, "cs_1");
        c.spend(ANN, 500, "job-1");
        c.grant_for_days(ANN, 100, "gift", 1);
        c.reserve(ANN, 100, "job-2");
        c.apply(&refunded("re_1", "pi_1", 1000));
        assert_eq!(stands(&mut c, ANN), (0, 500));
        c.runs_out_now(ANN, "job-2");
        if !late {
            assert_eq!(c.run_due(), 1);
        }
        c.lapses_now(ANN, "gift");
        c.run_due();
        ends.push(stands(&mut c, ANN));
    }
    assert_eq!(ends, [(0, 400), (0, 400)]);
}
