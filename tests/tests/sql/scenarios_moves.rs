//! Scenario 52: a subscription moves to another user, with what is left of it and what is to come.

use serde_json::json;
use stripe_credits_tests::concurrency::together;
use stripe_credits_tests::connection::Fault;
use stripe_credits_tests::permutations::{Step, common_end, nothing, orders_with_repeats};
use stripe_credits_tests::plans::{Api, Clocked, credited, plan_database};
use stripe_credits_tests::refunds::{failed, refund, refunded};
use stripe_credits_tests::seeds::Rng;
use stripe_credits_tests::stripe::{CREATED, paid_pack};
use stripe_credits_tests::subscription::{
    Invoice, Line, PRO, QUARTER, SEAT, Subscription, YEAR, fetched, invoice, invoice_payment, line, month,
    period, subscribing, subscription,
};
use stripe_credits_tests::{ANN, BOB, Connection, Database, Event, user};
use uuid::Uuid;

/// A day in seconds.
const DAY: i64 = 86_400;

/// The third user.
const CAT: Uuid = user(3);

/// A database with the plans' catalog.
fn plans() -> Database {
    plan_database(&json!({}))
}

/// A user's subscription to pro, by its metadata.
fn pro(user: Uuid) -> Subscription {
    subscription("sub_1", "price_pro").of(user).items(&[("price_pro", 1)]).during(period(0))
}

/// The paid invoice of a month of pro, with a copy of the metadata that named ANN.
fn paid(n: u32) -> Invoice {
    billed(&format!("in_{n}"), month(n), whole(PRO, period(n)))
}

fn whole((price_id, cents): (&str, i64), span: (i64, i64)) -> Line {
    line(price_id, cents, span).item("si_1")
}

fn billed(invoice_id: &str, at: i64, line: Line) -> Invoice {
    invoice(invoice_id, "sub_1").of(ANN).line(line).paid_at(at)
}

/// The refund of so many cents of an invoice, and the event that says what paid it.
fn money_back(n: u32, cents: i64) -> [Event; 2] {
    let (invoice_id, intent) = (format!("in_{n}"), format!("pi_{n}"));
    [
        invoice_payment(&format!("evt_by_{n}"), &invoice_id, &intent),
        refund(&format!("re_{n}"), &intent, cents).event(&format!("evt_re_{n}"), "refund.created"),
    ]
}

/// ANN's first month of pro, of which she spent some.
fn ann_spent(c: &mut Connection, api: Api, credits: i64) {
    c.twice(&api.state(&pro(ANN), CREATED));
    c.twice(&api.paid(&paid(0)));
    if credits > 0 {
        assert!(c.spend(ANN, credits, "job").ok);
    }
}

/// ANN's month of pro, which may run now.
fn ann_began(c: &mut Connection, span: (i64, i64)) {
    c.twice(&pro(ANN).during(span).updated("evt_a", span.0));
    c.twice(&billed("in_0", span.0, whole(PRO, span)).paid("evt_in_0"));
}

/// ANN spends, or reserves, under the request `job`.
fn ann_draws(c: &mut Connection, credits: i64, held: bool) {
    let drawn = if held { c.reserve(ANN, credits, "job") } else { c.spend(ANN, credits, "job") };
    assert!(drawn.ok);
}

/// Balance, debt and tier of a user.
fn account(c: &mut Connection, user: Uuid) -> (i64, i64, String) {
    let (balance, debt) = c.balance_and_debt(user);
    (balance, debt, c.tier(user))
}

fn has(balance: i64, debt: i64, tier: &str) -> (i64, i64, String) {
    (balance, debt, tier.to_owned())
}

/// Whose the subscription's row is, and its lines.
fn owners(c: &mut Connection) -> Vec<Uuid> {
    c.column(
        "select user_id from billing.subscriptions union select user_id from billing.invoice_lines
         union select user_id from billing.payments order by 1",
        &[],
    )
}

/// The sums of the rows of this type in all books together: 0 if what leaves one comes to another.
fn transferred(c: &mut Connection) -> i64 {
    c.one(
        "select coalesce(sum(amount), 0)::bigint from billing.credit_transactions where transaction_type = 'transfer'",
        &[],
    )
}

#[test]
fn scenario_52_the_metadata_move_a_subscription_before_its_renewal() {
    for api in Api::BOTH {
        let db = plans();
        let mut c = db.connect();
        ann_spent(&mut c, api, 4_000);
        assert_eq!(c.twice(&api.state(&pro(BOB), CREATED + 60)), "applied");
        assert_eq!(account(&mut c, ANN), has(0, 0, "free none"));
        assert_eq!(account(&mut c, BOB), has(6_000, 0, "pro active"));
        assert_eq!(c.ledger(ANN), ["subscription_grant 10000", "spend -4000", "transfer -6000"]);
        assert_eq!(c.ledger(BOB), ["transfer 6000"]);
        assert_eq!((c.periods(ANN), c.periods(BOB)), (vec!["si_1 4000".into()], vec!["si_1 6000".into()]));
        assert_eq!(owners(&mut c), [BOB]);
        // The renewal's copy of the metadata is from before the move.
        assert_eq!(c.twice(&api.paid(&paid(1))), "applied");
        assert_eq!(account(&mut c, ANN), has(0, 0, "free none"));
        assert_eq!(account(&mut c, BOB), has(10_000, 0, "pro active"));
        assert_eq!(c.ledger(BOB)[1..], ["subscription_grant 10000", "set_aside -6000"]);
        assert_eq!(owners(&mut c), [BOB]);
    }
}

#[test]
fn scenario_52_the_metadata_move_a_subscription_after_its_renewal() {
    for api in Api::BOTH {
        let db = plans();
        let mut c = db.connect();
        ann_spent(&mut c, api, 4_000);
        c.twice(&api.paid(&paid(1)));
        c.twice(&api.state(&pro(ANN).during(period(1)), month(1)));
        assert!(c.spend(ANN, 1_000, "job-2").ok);
        c.twice(&api.state(&pro(BOB).during(period(1)), month(1) + 60));
        assert_eq!(account(&mut c, ANN), has(0, 0, "free none"));
        assert_eq!(account(&mut c, BOB), has(9_000, 0, "pro active"));
        assert_eq!(transferred(&mut c), 0);
        // A copy of what came before changes nothing.
        assert_eq!(c.apply(&api.paid(&paid(1))).summary(), "already_applied");
        // What the renewal had set aside is BOB's too, should the renewal's money go back.
        for event in money_back(1, 10_000) {
            c.twice(&event);
        }
        assert_eq!(account(&mut c, BOB), has(6_000, 0, "pro active"));
        assert_eq!(account(&mut c, ANN), has(0, 1_000, "free none"));
    }
}

#[test]
fn scenario_52_an_operator_moves_a_subscription_by_hand() {
    let db = plans();
    let mut c = db.connect();
    ann_spent(&mut c, Api::Newer, 4_000);
    let given = c.attribute("sub_1", BOB);
    assert_eq!((given.summary().as_str(), given.user_id, given.credits), ("applied", Some(BOB), 6_000));
    assert_eq!(account(&mut c, ANN), has(0, 0, "free none"));
    assert_eq!(account(&mut c, BOB), has(6_000, 0, "pro active"));
    let before = c.everything();
    assert_eq!(c.attribute("sub_1", BOB).summary(), "already_applied");
    assert_eq!(c.everything()["credit_transactions"], before["credit_transactions"]);
    // The metadata say what they said before: that is no later word.
    c.twice(&Api::Newer.state(&pro(ANN).during(period(1)), month(1)));
    c.twice(&Api::Newer.paid(&paid(1)));
    assert_eq!(account(&mut c, BOB), has(10_000, 0, "pro active"));
    assert_eq!(account(&mut c, ANN), has(0, 0, "free none"));
    // New metadata are.
    c.twice(&Api::Newer.state(&pro(CAT).during(period(1)), month(1) + 60));
    assert_eq!(account(&mut c, CAT), has(10_000, 0, "pro active"));
    assert_eq!(account(&mut c, BOB), has(0, 0, "free none"));
}

#[test]
fn scenario_52_with_a_customer_its_subscriptions_move_that_no_metadata_name() {
    for named in ["cus_1", "cs_1"] {
        let db = plans();
        let mut c = db.connect();
        c.attribute("cus_1", ANN);
        let unnamed = subscription("sub_1", "price_pro").items(&[("price_pro", 1)]).during(period(0));
        c.twice(&unnamed.created("evt_created"));
        c.twice(&Api::Newer.paid(&paid(0)));
        assert!(c.spend(ANN, 4_000, "job").ok);
        let session = subscribing("cs_1", "sub_1", "in_0");
        c.apply(&session.completed("evt_cs"));
        let named_by_metadata = subscription("sub_2", "price_seat").of(CAT).items(&[("price_seat", 1)]);
        c.apply(&named_by_metadata.during(period(0)).created("evt_cat"));
        let seat = line(SEAT.0, SEAT.1, period(0)).item("si_9");
        c.twice(&invoice("in_9", "sub_2").line(seat).paid_at(CREATED).paid("evt_in_9"));
        for (user, other) in [(BOB, ANN), (ANN, BOB)] {
            assert_eq!(c.attribute(named, user).credits, 6_000);
            assert_eq!(account(&mut c, other), has(0, 0, "free none"));
            assert_eq!(account(&mut c, user), has(6_000, 0, "pro active"));
            assert_eq!(account(&mut c, CAT), has(1_000, 0, "seat active"));
            assert_eq!(c.attribute(named, user).summary(), "already_applied");
        }
    }
}

#[test]
fn scenario_52_a_subscription_may_be_attributed_before_anything_of_it_came() {
    let db = plans();
    let mut c = db.connect();
    assert_eq!(c.attribute("sub_1", BOB).summary(), "applied");
    assert_eq!(c.attribute("sub_1", BOB).summary(), "already_applied");
    c.twice(&Api::Newer.paid(&paid(0)));
    c.twice(&Api::Newer.state(&pro(ANN), CREATED));
    assert_eq!(account(&mut c, BOB), has(10_000, 0, "pro active"));
    assert_eq!(account(&mut c, ANN), has(0, 0, "free none"));
}

#[test]
fn scenario_52_attributing_a_subscription_applies_what_waits_for_its_user() {
    let db = plans();
    let mut c = db.connect();
    let unnamed = invoice("in_0", "sub_1").line(whole(PRO, period(0)));
    assert_eq!(c.apply(&unnamed.paid("evt_in_0")).summary(), "parked unknown_user");
    assert_eq!(c.attribute("sub_1", BOB).credits, 10_000);
    let state = subscription("sub_1", "price_pro").items(&[("price_pro", 1)]).during(period(0));
    assert_eq!(c.twice(&state.created("evt_created")), "applied");
    assert_eq!(account(&mut c, BOB), has(10_000, 0, "pro active"));
}

#[test]
fn scenario_52_a_reversal_takes_what_moved_first_then_what_the_old_user_spent() {
    for (cents, ann, bob) in
        [(3_000, (0, 0), (0, 0)), (5_000, (0, 0), (0, 2_000)), (8_000, (0, 2_000), (0, 3_000))]
    {
        let db = plans();
        let mut c = db.connect();
        ann_spent(&mut c, Api::Newer, 4_000);
        c.twice(&Api::Newer.state(&pro(BOB), CREATED + 60));
        assert!(c.spend(BOB, 3_000, "job").ok);
        for event in money_back(0, cents) {
            c.twice(&event);
        }
        assert_eq!((c.balance_and_debt(ANN), c.balance_and_debt(BOB)), (ann, bob), "{cents}");
        // It did not come back after all.
        let failed =
            refund("re_0", "pi_0", cents).with("status", "failed").event("evt_failed", "refund.failed");
        c.twice(&failed);
        assert_eq!((c.balance_and_debt(ANN), c.balance_and_debt(BOB)), ((0, 0), (3_000, 0)), "{cents}");
    }
}

#[test]
fn scenario_52_a_reversal_before_the_move_comes_to_the_same() {
    let mut ends = Vec::new();
    for moved_first in [true, false] {
        let db = plans();
        let mut c = db.connect();
        ann_spent(&mut c, Api::Newer, 4_000);
        let mut steps = vec![Api::Newer.state(&pro(BOB), CREATED + 60)];
        steps.extend(money_back(0, 8_000));
        if !moved_first {
            steps.rotate_left(1);
        }
        for step in &steps {
            c.twice(step);
        }
        ends.push((c.balance_and_debt(ANN), c.balance_and_debt(BOB), c.periods(ANN), c.periods(BOB)));
    }
    assert_eq!(ends[0], ends[1]);
    assert_eq!((ends[0].0, ends[0].1), ((0, 2_000), (0, 0)));
}

#[test]
fn scenario_52_older_states_move_nothing_back_and_a_newer_one_does() {
    let db = plans();
    let mut c = db.connect();
    ann_spent(&mut c, Api::Newer, 4_000);
    c.twice(&Api::Newer.state(&pro(BOB), CREATED + 60));
    assert!(c.spend(BOB, 1_000, "job").ok);
    c.twice(&Api::Newer.state(&pro(ANN), CREATED + 30));
    assert_eq!(account(&mut c, BOB), has(5_000, 0, "pro active"));
    c.twice(&Api::Newer.state(&pro(ANN), CREATED + 90));
    assert_eq!(account(&mut c, ANN), has(5_000, 0, "pro active"));
    assert_eq!(account(&mut c, BOB), has(0, 0, "free none"));
    assert_eq!((c.periods(ANN), c.periods(BOB)), (vec!["si_1 9000".into()], vec!["si_1 1000".into()]));
    assert!(c.spend(ANN, 2_000, "job-2").ok);
    c.twice(&Api::Newer.state(&pro(CAT), CREATED + 120));
    assert_eq!(account(&mut c, CAT), has(3_000, 0, "pro active"));
    assert_eq!(account(&mut c, ANN), has(0, 0, "free none"));
    assert_eq!(transferred(&mut c), 0);
    // Each owes what they drew: the money was never theirs to keep.
    for event in money_back(0, 10_000) {
        c.twice(&event);
    }
    let debts = [ANN, BOB, CAT].map(|user| c.balance_and_debt(user));
    assert_eq!(debts, [(0, 6_000), (0, 1_000), (0, 0)]);
}

#[test]
fn scenario_52_two_states_of_one_second_that_name_two_users_ask_stripe() {
    for flip in [false, true] {
        let db = plans();
        let mut c = db.connect();
        c.twice(&Api::Newer.paid(&paid(0)));
        let mut events = [pro(ANN).updated("evt_a", CREATED), pro(BOB).updated("evt_b", CREATED)];
        if flip {
            events.reverse();
        }
        assert!(c.apply(&events[0]).ok);
        let asked = c.apply(&events[1]);
        assert_eq!(
            (asked.outcome.as_str(), asked.to_fetch),
            ("needs_fetch", Some(vec!["/v1/subscriptions/sub_1".to_owned()]))
        );
        let now = pro(BOB);
        assert!(c.apply_fetched(&events[1], &fetched(CREATED + 5, &[now.json()])).ok);
        assert_eq!(account(&mut c, BOB), has(10_000, 0, "pro active"));
        assert_eq!(account(&mut c, ANN), has(0, 0, "free none"));
    }
}

#[test]
fn scenario_52_a_year_in_parts_moves_with_its_parts_to_come() {
    let db = plans();
    let mut c = db.connect();
    c.stand_at(CREATED);
    let yearly = |user| {
        let state = subscription("sub_1", YEAR.0).of(user).items(&[(YEAR.0, 1)]);
        state.during((CREATED, month(12))).clocked()
    };
    c.twice(&Api::Newer.state(&yearly(ANN), CREATED));
    c.twice(&Api::Newer.paid(&billed("in_0", CREATED, whole(YEAR, (CREATED, month(12)))).clocked()));
    assert!(c.spend(ANN, 4_000, "job").ok);
    c.stand_at(month(1));
    assert_eq!(c.agreed_balance_and_debt(ANN), (10_000, 0));
    assert!(c.spend(ANN, 1_000, "job-2").ok);
    c.twice(&Api::Newer.state(&yearly(BOB), month(1) + 60));
    assert_eq!(c.agreed_balance_and_debt(ANN), (0, 0));
    assert_eq!(c.agreed_balance_and_debt(BOB), (9_000, 0));
    for n in 2..12 {
        c.stand_at(month(n));
        assert_eq!(c.agreed_balance_and_debt(BOB), (10_000, 0), "month {n}");
        assert_eq!(c.agreed_balance_and_debt(ANN), (0, 0), "month {n}");
    }
    // Half of the year comes back, from its far end: what BOB has of it.
    assert!(c.spend(BOB, 10_000, "job").ok);
    for event in money_back(0, 60_000) {
        c.twice(&event);
    }
    assert_eq!((c.balance_and_debt(ANN), c.balance_and_debt(BOB)), ((0, 0), (0, 10_000)));
}

#[test]
fn scenario_52_a_rollover_counts_what_the_old_user_drew() {
    let roll_state = |user, n| {
        let state = subscription("sub_1", "price_roll").of(user).items(&[("price_roll", 1)]);
        state.during(period(n))
    };
    let roll = |user, n| Api::Newer.state(&roll_state(user, n), month(n) + 1);
    let paid = |n| {
        let bill = billed(&format!("in_{n}"), month(n), whole(("price_roll", 1_000), period(n)));
        Api::Newer.paid(&bill)
    };
    for (before, after, expected) in [(300, 0, 1_500), (300, 200, 1_300), (800, 0, 1_200)] {
        // It moves before the renewal, and after it.
        for moved_first in [true, false] {
            let db = plans();
            let mut c = db.connect();
            c.twice(&roll(ANN, 0));
            c.twice(&paid(0));
            assert!(c.spend(ANN, before, "job").ok);
            let moving = roll_state(BOB, 0).updated("evt_move", CREATED + 60);
            if moved_first {
                c.twice(&moving);
            }
            c.twice(&paid(1));
            if after > 0 {
                let spender = if moved_first { BOB } else { ANN };
                assert!(c.spend(spender, after, "job-2").ok);
            }
            if !moved_first {
                c.twice(&moving);
            }
            assert_eq!(c.balance_and_debt(BOB), (expected, 0), "{before} {after} {moved_first}");
            assert_eq!(c.balance_and_debt(ANN), (0, 0));
        }
    }
}

#[test]
fn scenario_52_what_comes_back_of_a_spend_or_a_reservation_is_the_old_users() {
    let db = plans();
    let mut c = db.connect();
    let now = c.unix_now();
    let span = (now - DAY, now + 29 * DAY);
    ann_began(&mut c, span);
    assert!(c.spend(ANN, 4_000, "job").ok);
    assert!(c.reserve(ANN, 1_000, "held").ok);
    c.twice(&pro(BOB).during(span).updated("evt_b", now));
    assert_eq!((c.balance_and_debt(ANN), c.balance_and_debt(BOB)), ((0, 0), (5_000, 0)));
    assert_eq!(c.refund_spend(ANN, "job", "back", Some(500)).remaining_total, Some(500));
    assert_eq!(c.commit(ANN, "held", Some(600)).remaining_total, Some(900));
    assert_eq!(c.settled_balance_and_debt(ANN), (900, 0));
    assert_eq!(c.settled_balance_and_debt(BOB), (5_000, 0));
    // Of the money that comes back the last 4,100 are ANN's: 900 that she has, and 3,200 that she spent.
    for event in money_back(0, 9_100) {
        c.twice(&event);
    }
    assert_eq!((c.balance_and_debt(ANN), c.balance_and_debt(BOB)), ((0, 3_200), (0, 0)));
}

#[test]
fn scenario_52_what_comes_back_after_the_period_lapses() {
    let db = plans();
    let mut c = db.connect();
    ann_spent(&mut c, Api::Newer, 4_000);
    c.twice(&Api::Newer.state(&pro(BOB), CREATED + 60));
    assert_eq!(c.refund_spend(ANN, "job", "back", None).remaining_total, Some(0));
    assert_eq!(c.settled_balance_and_debt(ANN), (0, 0));
    assert_eq!(c.ledger(ANN)[3..], ["spend_refund 4000", "expiry -4000"]);
}

/// What ANN has after a renewal of a month that still runs, if a spend or a reservation of hers gave back 1,500 of that month
/// before or after the renewal, and BOB had the subscription meanwhile or not.
fn given_back(moves: bool, before: bool, held: bool, bobs_rows: u32) -> (i64, Vec<String>) {
    let db = plans();
    let mut c = db.connect();
    let now = c.unix_now();
    let span = (now - DAY, now + 29 * DAY);
    ann_began(&mut c, span);
    ann_draws(&mut c, 4_000, held);
    if moves {
        c.twice(&pro(BOB).during(span).updated("evt_b", now - 60));
        for n in 0..bobs_rows {
            assert!(c.grant(BOB, 10, &format!("gift-{n}")).ok);
        }
    }
    let give_back = |c: &mut Connection| {
        let back = if held {
            c.commit(ANN, "job", Some(2_500))
        } else {
            c.refund_spend(ANN, "job", "back", Some(1_500))
        };
        assert!(back.ok);
    };
    if before {
        give_back(&mut c);
    }
    let renewed = (now - 30, now - 30 + 30 * DAY);
    c.twice(&billed("in_1", renewed.0, whole(PRO, renewed)).paid("evt_in_1"));
    if !before {
        give_back(&mut c);
    }
    c.twice(&pro(ANN).during(renewed).updated("evt_c", now));
    assert_eq!(broken(&mut c), Vec::<String>::new());
    (c.balance(ANN), c.periods(ANN))
}

#[test]
fn scenario_52_what_is_given_back_counts_in_its_order_when_the_subscription_returns() {
    for (held, bobs_rows) in [(false, 0), (false, 20), (true, 0), (true, 20)] {
        let stays = given_back(false, false, held, bobs_rows);
        // Rule 8: what comes back to a period that was set aside stays until the next one opens.
        assert_eq!(stays.0, 11_500);
        assert_eq!(given_back(true, false, held, bobs_rows), stays, "{held} {bobs_rows}");
        let set_aside = given_back(false, true, held, bobs_rows);
        assert_eq!(set_aside.0, 10_000);
        assert_eq!(given_back(true, true, held, bobs_rows), set_aside, "{held} {bobs_rows}");
    }
}

#[test]
fn scenario_52_what_comes_back_to_a_month_long_past_lapses_too() {
    for held in [false, true] {
        let db = plans();
        let mut c = db.connect();
        ann_spent(&mut c, Api::Newer, 0);
        ann_draws(&mut c, 10_000, held);
        for n in 1..=3 {
            c.twice(&Api::Newer.paid(&paid(n)));
            c.twice(&Api::Newer.state(&pro(ANN).during(period(n)), month(n)));
        }
        c.twice(&Api::Newer.state(&pro(BOB).during(period(3)), month(3) + 60));
        let before = c.ledger(ANN).len();
        if held {
            assert!(c.release(ANN, "job").ok);
        } else {
            assert!(c.refund_spend(ANN, "job", "back", None).ok);
        }
        assert_eq!(c.settled_balance_and_debt(ANN), (0, 0));
        let back = if held { "release 10000" } else { "spend_refund 10000" };
        assert_eq!(c.ledger(ANN)[before..], [back, "expiry -10000"]);
        assert_eq!((c.balance(BOB), broken(&mut c)), (10_000, Vec::new()));
    }
}

#[test]
fn scenario_52_what_comes_back_to_an_earlier_month_ends_with_that_under_expire() {
    for with_end in [false, true] {
        let db = plan_database(&json!({"cancellation": "expire"}));
        let mut c = db.connect();
        let now = c.unix_now();
        let [before, running] = [(now - 31 * DAY, now - DAY), (now - DAY, now + 29 * DAY)];
        ann_began(&mut c, before);
        assert!(c.spend(ANN, 4_000, "job").ok);
        c.twice(&billed("in_1", running.0, whole(PRO, running)).paid("evt_in_1"));
        let state = pro(BOB).during(running).with("cancel_at_period_end", with_end);
        c.twice(&state.updated("evt_b", now));
        assert!(c.refund_spend(ANN, "job", "back", None).ok);
        assert_eq!(c.settled_balance_and_debt(ANN), (0, 0), "{with_end}");
        assert_eq!(c.ledger(ANN)[5..], ["spend_refund 4000", "expiry -4000"]);
        assert_eq!(c.settled_balance_and_debt(BOB), (10_000, 0));
    }
}

#[test]
fn scenario_52_a_debt_stays_with_whom_made_it() {
    let db = plans();
    let mut c = db.connect();
    ann_spent(&mut c, Api::Newer, 9_000);
    for event in money_back(0, 4_000) {
        c.twice(&event);
    }
    assert_eq!(c.balance_and_debt(ANN), (0, 3_000));
    c.twice(&Api::Newer.state(&pro(BOB), CREATED + 60));
    assert_eq!((c.balance_and_debt(ANN), c.balance_and_debt(BOB)), ((0, 3_000), (0, 0)));
    c.twice(&Api::Newer.paid(&paid(1)));
    assert_eq!((c.balance_and_debt(ANN), c.balance_and_debt(BOB)), ((0, 3_000), (10_000, 0)));
    // Who has a debt settles it from what comes.
    assert!(c.spend(BOB, 10_000, "job").ok);
    for event in money_back(1, 2_500) {
        c.twice(&event);
    }
    c.twice(&Api::Newer.paid(&paid(2)));
    assert_eq!((c.balance_and_debt(ANN), c.balance_and_debt(BOB)), ((0, 3_000), (7_500, 0)));
    c.twice(&Api::Newer.state(&pro(ANN).during(period(2)), month(2) + 60));
    assert_eq!((c.balance_and_debt(ANN), c.balance_and_debt(BOB)), ((4_500, 0), (0, 0)));
    // What settled a debt comes back to whom it was taken from if the debt goes.
    let failed = refund("re_1", "pi_1", 2_500).with("status", "failed").event("evt_failed", "refund.failed");
    c.twice(&failed);
    assert_eq!((c.balance_and_debt(ANN), c.balance_and_debt(BOB)), ((4_500, 0), (2_500, 0)));
}

#[test]
fn scenario_52_what_settled_a_debt_comes_back_until_the_period_ends_or_without_end() {
    for (begins_days_ago, ends) in [(1, true), (40, false)] {
        let db = plans();
        let mut c = db.connect();
        let now = c.unix_now();
        let start = now - begins_days_ago * DAY;
        let span = (start, start + 30 * DAY);
        c.twice(&paid_pack("cs_1", ANN).completed("evt_pack"));
        assert!(c.spend(ANN, 500, "job").ok);
        ann_began(&mut c, span);
        c.twice(&refunded("re_1", "pi_1", 1_000));
        c.twice(&pro(BOB).during(span).updated("evt_b", span.0 + 60));
        assert_eq!((c.balance_and_debt(ANN), c.balance_and_debt(BOB)), ((0, 0), (9_500, 0)));
        c.twice(&failed("re_1", "pi_1", 1_000));
        assert_eq!(c.settled_balance_and_debt(ANN), (500, 0));
        assert_eq!(
            c.column::<Option<i64>>(
                "select extract(epoch from expires_at)::bigint from billing.credit_grants
                 where user_id = $1 and remaining > 0",
                &[&ANN]
            ),
            [ends.then_some(span.1)],
        );
    }
}

#[test]
fn scenario_52_seats_beside_the_plan_move_with_it_and_other_subscriptions_stay() {
    let db = plans();
    let mut c = db.connect();
    let both = |user| {
        let items = [("price_pro", 1), ("price_seat", 3)];
        subscription("sub_1", "price_pro").of(user).items(&items).during(period(0))
    };
    c.twice(&Api::Newer.state(&both(ANN), CREATED));
    let seats = line(SEAT.0, SEAT.1 * 3, period(0)).quantity(3).item("si_2");
    let pack = line("price_pack", 1_000, (CREATED, CREATED)).billed_once();
    c.twice(&Api::Newer.paid(&paid(0).line(seats).line(pack)));
    let quarter = line(QUARTER.0, QUARTER.1, (CREATED, month(3))).item("si_7");
    c.twice(&invoice("in_q", "sub_q").of(ANN).line(quarter).paid_at(CREATED).paid("evt_in_q"));
    let state = subscription("sub_q", QUARTER.0).of(ANN).items(&[(QUARTER.0, 1)]).during((CREATED, month(3)));
    c.twice(&state.updated("evt_q", CREATED));
    assert_eq!(c.balance(ANN), 43_500);
    c.twice(&Api::Newer.state(&both(BOB), CREATED + 60));
    assert_eq!(account(&mut c, ANN), has(30_000, 0, "quarter active"));
    // The pack on the subscription's invoice follows it.
    assert_eq!(account(&mut c, BOB), has(13_500, 0, "pro active"));
    assert_eq!(transferred(&mut c), 0);
    for event in money_back(0, 14_000) {
        c.twice(&event);
    }
    assert_eq!((c.balance_and_debt(ANN), c.balance_and_debt(BOB)), ((30_000, 0), (0, 0)));
}

#[test]
fn scenario_52_a_trial_and_a_bonus_move_as_far_as_they_are_left() {
    let db = plan_database(&json!({ "trial_credits": 300, "first_purchase_bonus": 700 }));
    let mut c = db.connect();
    let now = c.unix_now();
    let (trial, span) = ((now - DAY, now + 3 * DAY), (now + 3 * DAY, now + 33 * DAY));
    let state = |user| pro(user).trial(trial).during(trial);
    c.twice(&state(ANN).updated("evt_a", trial.0));
    c.twice(&billed("in_t", trial.0, whole(("price_pro", 0), trial)).paid("evt_in_t"));
    c.twice(&billed("in_0", now, whole(PRO, span)).paid("evt_in_0"));
    assert_eq!(c.settled_balance_and_debt(ANN), (1_000, 0));
    assert!(c.spend(ANN, 400, "job").ok);
    c.twice(&state(BOB).updated("evt_b", now));
    assert_eq!((c.balance_and_debt(ANN), c.balance_and_debt(BOB)), ((0, 0), (600, 0)));
    for event in money_back(0, 10_000) {
        c.twice(&event);
    }
    // The trial was not paid for; of the bonus ANN had drawn 100.
    assert_eq!((c.balance_and_debt(ANN), c.balance_and_debt(BOB)), ((0, 100), (0, 0)));
}

#[test]
fn scenario_52_an_invoices_copy_of_the_metadata_moves_nothing() {
    let db = plans();
    let mut c = db.connect();
    c.twice(&Api::Newer.state(&pro(BOB), CREATED));
    let paid = c.apply(&Api::Newer.paid(&paid(0)));
    assert_eq!((paid.summary().as_str(), paid.user_id), ("applied", Some(BOB)));
    assert_eq!(account(&mut c, BOB), has(10_000, 0, "pro active"));
    let linked: Uuid = c.one("select user_id from billing.customers", &[]);
    assert_eq!(linked, BOB);
    // Without a state, each invoice is of whom its copy names, until a state says whose they are.
    let one =
        invoice("in_8", "sub_2").of(ANN).line(line(PRO.0, PRO.1, period(0)).item("si_8")).paid_at(CREATED);
    let other = invoice("in_9", "sub_2").of(CAT).line(line(PRO.0, PRO.1, period(1)).item("si_8"));
    c.twice(&one.paid("evt_8"));
    c.twice(&other.paid_at(month(1)).paid("evt_9"));
    assert_eq!((c.balance(ANN), c.balance(CAT)), (10_000, 10_000));
    let state = subscription("sub_2", "price_pro").of(ANN).during(period(1));
    c.twice(&state.updated("evt_2", month(1)));
    assert_eq!((c.balance(ANN), c.balance(CAT)), (10_000, 0));
    assert_eq!(account(&mut c, ANN), has(10_000, 0, "pro active"));
}

#[test]
fn scenario_52_a_change_of_plan_and_a_move_in_one_state() {
    let db = plans();
    let mut c = db.connect();
    ann_spent(&mut c, Api::Newer, 2_000);
    // By status alone at most the new price's credits stay of what moved.
    let seat = subscription("sub_1", "price_seat").of(BOB).items(&[("price_seat", 1)]).during(period(0));
    c.twice(&Api::Newer.state(&seat, CREATED + 60));
    assert_eq!(account(&mut c, ANN), has(0, 0, "free none"));
    assert_eq!(account(&mut c, BOB), has(1_000, 0, "seat active"));
    assert_eq!(c.ledger(BOB), ["transfer 8000", "set_aside -7000"]);
    // And back.
    c.twice(&Api::Newer.state(&pro(ANN), CREATED + 90));
    assert_eq!(account(&mut c, ANN), has(8_000, 0, "pro active"));
    assert_eq!(account(&mut c, BOB), has(0, 0, "free none"));
}

/// Everything that may happen to a subscription whose metadata move, without a spend.
fn moving_facts() -> Vec<Event> {
    let [by, back] = money_back(0, 4_000);
    let change = month(1) + DAY;
    let credit = credited(PRO, 1, period(1), change, "in_1").item("si_1");
    let up = billed("in_up", change, whole(("price_max", 30_000), (change, change + 30 * DAY))).line(credit);
    vec![
        Api::Newer.state(&pro(ANN), CREATED),
        Api::Newer.paid(&paid(0)),
        Api::Newer.state(&pro(BOB).during(period(1)), month(1)),
        Api::Newer.paid(&paid(1)),
        by,
        back,
        Api::Newer.paid(&up.mid_period()),
    ]
}

#[test]
fn scenario_52_states_invoices_and_refunds_in_every_order_end_alike() {
    let db = plans();
    let events = moving_facts();
    // An order of seven has 5,040 permutations: of every six of them all, each at its place among the first.
    for left_out in [1, 3, 5, 6] {
        let events: Vec<&Event> = events
            .iter()
            .enumerate()
            .filter(|(n, _)| *n != left_out && (left_out == 5 || *n != 4))
            .map(|(_, e)| e)
            .collect();
        let steps: Vec<Step> = events
            .iter()
            .map(|event| -> Step {
                Box::new(move |c: &mut Connection| {
                    let outcome = c.apply(event);
                    assert_ne!(outcome.outcome, "rejected", "{outcome:?}");
                })
            })
            .collect();
        let read = |c: &mut Connection| {
            let of = |c: &mut Connection, user| (c.balance_and_debt(user), c.tier(user), c.periods(user));
            (of(c, ANN), of(c, BOB), owners(c))
        };
        let orders: Vec<Vec<usize>> = orders_with_repeats(steps.len())
            .into_iter()
            .step_by(if steps.len() > 4 { 3 } else { 1 })
            .collect();
        let (ann, _, _) = common_end(&db, nothing, &steps, &orders, read);
        assert_eq!(ann, ((0, 0), "free none".to_owned(), Vec::new()));
    }
}

/// What is wrong in the books.
fn broken(c: &mut Connection) -> Vec<String> {
    c.column("select format('%s: %s', user_id, detail) from billing.validate_credits_consistency()", &[])
}

/// A step of a random history: what Stripe or the app's server does, or a user.
enum Happening {
    Stripe(Event),
    /// The present user spends, at most so much, and gets one credit of it back if there is more.
    Spend(i64),
    /// An operator gives the subscription to somebody.
    Attribute(Uuid),
}

/// A history of a rollover plan: renewals, changes of plan, refunds, spends, and moves among three users.
fn history(rng: &mut Rng) -> Vec<Happening> {
    let (mut steps, mut months) = (Vec::new(), 0);
    let state = |owner, months: u32, at| {
        let state = subscription("sub_1", "price_roll").of(owner).items(&[("price_roll", 1)]);
        Happening::Stripe(state.during(period(months)).updated(&format!("evt_{at}"), at))
    };
    let bill = |n: u32| {
        let paid = billed(&format!("in_{n}"), month(n), whole(("price_roll", 1_000), period(n)));
        Happening::Stripe(paid.paid(&format!("evt_in_{n}")))
    };
    steps.extend([state(ANN, 0, CREATED), bill(0)]);
    for step in 1..24 {
        let at = month(months) + step * 60;
        match rng.below(8) {
            0 | 1 => {
                months += 1;
                steps.push(bill(months));
            }
            2 => {
                steps.push(state(*rng.one_of(&[ANN, BOB, CAT]), months, at));
            }
            3 => steps.push(Happening::Attribute(*rng.one_of(&[ANN, BOB, CAT]))),
            4 if rng.once_in(3) => {
                let n = u32::try_from(rng.below(months as usize + 1)).expect("a month");
                let back = money_back(n, rng.between(100, 1_000));
                steps.extend(back.into_iter().map(Happening::Stripe));
            }
            _ => steps.push(Happening::Spend(rng.between(1, 700))),
        }
    }
    steps
}

/// Plays a history, with moves or as if the subscription were ANN's all the time. Returns how it ends.
fn play(c: &mut Connection, history: &[Happening], moves: bool) -> Ending {
    let mut had_debt = false;
    for (n, step) in history.iter().enumerate() {
        match step {
            Happening::Stripe(event) => {
                let mut json = event.json().clone();
                if !moves && !json["data"]["object"]["items"].is_null() {
                    json["data"]["object"]["metadata"]["user_id"] = json!(ANN.to_string());
                }
                let outcome = c.apply_json(&json);
                assert_ne!(outcome.outcome, "rejected", "{outcome:?}");
            }
            Happening::Attribute(user) if moves => assert!(c.attribute("sub_1", *user).ok),
            Happening::Attribute(_) => {}
            Happening::Spend(most) => {
                let owner: Uuid = c.one("select user_id from billing.subscriptions", &[]);
                let amount = c.balance(owner).min(*most);
                if amount > 0 {
                    let request = format!("job-{n}");
                    assert!(c.spend(owner, amount, &request).ok);
                    if amount > 1 {
                        assert!(c.refund_spend(owner, &request, &format!("back-{n}"), Some(1)).ok);
                    }
                }
            }
        }
        had_debt |= c.one::<bool>("select exists (select from billing.accounts where debt > 0)", &[]);
        assert_eq!(broken(c), Vec::<String>::new(), "the books after step {n}");
    }
    Ending {
        worth: c.column(
            "select format('%s %s', item, sum(amount)) from billing.credit_grants
             group by item having sum(amount) <> 0 order by 1",
            &[],
        ),
        in_all: c.one("select sum(remaining)::bigint from billing.credit_grants", &[]),
        had_debt,
    }
}

/// How a history ends, for all users together.
struct Ending {
    /// The amounts of each grant, summed.
    worth: Vec<String>,
    /// What is left.
    in_all: i64,
    had_debt: bool,
}

#[test]
fn scenario_52_random_histories_split_each_grants_worth_and_lose_nothing() {
    let db = plans();
    let mut c = db.connect();
    let (mut compared, mut moved) = (0, 0i64);
    for seed in 0..60 {
        let history = history(&mut Rng::new(seed));
        c.run("begin");
        let by_one = play(&mut c, &history, false);
        c.run("rollback; begin");
        let by_all = play(&mut c, &history, true);
        moved += c.one::<i64>("select count(*) from billing.subscription_moves", &[]);
        // A former user has what they had drawn, as far as it is still paid for, and never more.
        let beyond: i64 = c.one(
            "select count(*) from billing.credit_grants where moved_with is not null and amount not between 0 and kept",
            &[],
        );
        assert_eq!(beyond, 0, "seed {seed}");
        c.run("rollback");
        assert_eq!(by_all.worth, by_one.worth, "seed {seed}");
        // A debt is settled from whatever its user gets, so that it matters who has it.
        if !by_one.had_debt && !by_all.had_debt {
            assert_eq!(by_all.in_all, by_one.in_all, "seed {seed}");
            compared += 1;
        }
    }
    assert!(compared >= 10 && moved >= 60, "{compared} {moved}");
}

#[test]
fn scenario_52_moves_and_spends_of_both_users_at_once_never_deadlock() {
    let db = plans();
    let mut c = db.connect();
    ann_spent(&mut c, Api::Newer, 0);
    for user in [ANN, BOB] {
        c.grant(user, 100_000, "much");
    }
    let works: Vec<_> = (0..8u32)
        .map(|n| {
            move |c: &mut Connection| -> Vec<Fault> {
                let mut faults = Vec::new();
                for step in 0..12u32 {
                    let at = CREATED + 1 + i64::from(step * 8 + n);
                    let (owner, other) = if (step + n) % 2 == 0 { (ANN, BOB) } else { (BOB, ANN) };
                    let event = match n % 4 {
                        0 | 1 => pro(owner).updated(&format!("evt_{n}_{step}"), at),
                        2 => paid(step % 3).paid(&format!("evt_in_{n}_{step}")),
                        _ => money_back(0, 1_000 + i64::from(step))[(step % 2) as usize].clone(),
                    };
                    faults.extend(c.try_call("apply_stripe_event($1)", &[event.json()]).err());
                    for user in [other, owner] {
                        let request = format!("job-{n}-{step}");
                        faults.extend(c.try_call("spend_credits($1, 50, $2)", &[&user, &request]).err());
                    }
                    if n == 0 {
                        faults.extend(c.try_call("attribute('sub_1', $1)", &[&owner]).err());
                    }
                }
                faults
            }
        })
        .collect();
    let faults: Vec<Fault> = together(&db, works).into_iter().flatten().collect();
    assert_eq!(faults, []);
    assert_eq!(broken(&mut c), Vec::<String>::new());
}
