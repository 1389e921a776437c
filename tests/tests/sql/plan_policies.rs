//! A plan's policies as catalog data: downgrades, cancellations, yearly prices that drip, coming back.
//! What time alone does is read right before anything has posted it, and posted as it was read, however late.

use serde_json::json;
use stripe_credits_tests::plans::plan_database;
use stripe_credits_tests::refunds::{failed, refund, refunded};
use stripe_credits_tests::stripe::CREATED;
use stripe_credits_tests::subscription::{
    Invoice, MAX, PRO, ROLL, Subscription, database_with, half_time, invoice, invoice_payment, line, month,
    months_after, period, renewal, subscription,
};
use stripe_credits_tests::{ANN, Connection, Database, Event, paid_pack};

const DAY: i64 = 86_400;

/// ANN's subscription to max, paid for in month 0.
fn subscribe_to_max(c: &mut Connection) {
    c.twice(&subscription("sub_1", "price_max").of(ANN).created("evt_created"));
    c.twice(&renewal("in_0", "sub_1", MAX, 0).paid("evt_paid_0"));
    assert_eq!(c.balance(ANN), 30_000);
}

// 19: downgrades.

#[test]
fn scenario_19_a_downgrade_sets_aside_at_once_what_exceeds_the_new_plans_amount() {
    let db = Database::with_catalog();
    let mut c = db.connect();
    subscribe_to_max(&mut c);
    let pro = subscription("sub_1", "price_pro").of(ANN);
    assert_eq!(c.twice(&pro.updated("evt_down", CREATED + DAY)), "applied");
    assert_eq!((c.settled_balance_and_debt(ANN), c.tier(ANN)), ((10_000, 0), "pro active".into()));
    assert_eq!(c.ledger(ANN), ["subscription_grant 30000", "set_aside -20000"]);
    c.twice(&renewal("in_1", "sub_1", PRO, 1).paid("evt_paid_1"));
    c.twice(&pro.during(period(1)).updated("evt_next", month(1)));
    assert_eq!(c.settled_balance_and_debt(ANN), (10_000, 0));
}

#[test]
fn scenario_19_a_downgrade_with_less_left_than_the_new_plans_amount_takes_nothing() {
    let db = Database::with_catalog();
    let mut c = db.connect();
    subscribe_to_max(&mut c);
    c.spend(ANN, 22_000, "job-1");
    c.twice(&subscription("sub_1", "price_pro").of(ANN).updated("evt_down", CREATED + DAY));
    assert_eq!((c.settled_balance_and_debt(ANN), c.ledger(ANN).len()), ((8_000, 0), 2));
}

#[test]
fn scenario_19_a_downgrade_before_its_plans_first_invoice_ends_the_same() {
    let db = Database::with_catalog();
    let mut c = db.connect();
    let created = subscription("sub_1", "price_max").of(ANN).created("evt_created");
    let down = subscription("sub_1", "price_pro").of(ANN).updated("evt_down", CREATED + DAY);
    let paid = renewal("in_0", "sub_1", MAX, 0).of(ANN).paid("evt_paid_0");
    for events in [[&created, &down, &paid], [&down, &paid, &created], [&paid, &down, &created]] {
        c.run("begin");
        for event in events {
            c.twice(event);
        }
        assert_eq!((c.balance_and_debt(ANN), c.tier(ANN)), ((10_000, 0), "pro active".into()));
        c.run("rollback");
    }
}

#[test]
fn scenario_19_under_keep_a_downgrade_by_status_takes_nothing_before_the_renewal() {
    let db = database_with(&json!({"plan_change": "keep"}));
    let mut c = db.connect();
    subscribe_to_max(&mut c);
    let pro = subscription("sub_1", "price_pro").of(ANN);
    c.twice(&pro.updated("evt_down", CREATED + DAY));
    assert_eq!((c.settled_balance_and_debt(ANN), c.tier(ANN)), ((30_000, 0), "pro active".into()));
    c.twice(&renewal("in_1", "sub_1", PRO, 1).paid("evt_paid_1"));
    assert_eq!(c.settled_balance_and_debt(ANN), (10_000, 0));
    assert_eq!(c.ledger(ANN), ["subscription_grant 30000", "subscription_grant 10000", "set_aside -30000"]);
}

/// A plan and a seat of so many days ago, paid for; a day after it began the seat is in the subscription's list no more.
fn seat_removed(c: &mut Connection, days_ago: i64) -> (i64, i64) {
    let start = c.unix_now() - days_ago * DAY;
    let span = (start, start + 30 * DAY);
    c.twice(&plan_and_seat(span).updated("evt_begun", start));
    let lines = invoice("in_0", "sub_1").line(line("price_pro", 10_000, span).item("si_1"));
    c.twice(&lines.line(line("price_seat", 1_000, span).item("si_2")).paid_at(start).paid("evt_paid"));
    c.twice(&plan_alone(span).updated("evt_removed", start + DAY));
    span
}

fn plan_and_seat(span: (i64, i64)) -> Subscription {
    subscription("sub_1", "price_pro").of(ANN).items(&[("price_pro", 1), ("price_seat", 1)]).during(span)
}

fn plan_alone(span: (i64, i64)) -> Subscription {
    subscription("sub_1", "price_pro").of(ANN).items(&[("price_pro", 1)]).during(span)
}

#[test]
fn under_keep_a_removed_seat_goes_at_its_periods_end_and_never_comes_back() {
    let db = plan_database(&json!({"plan_change": "keep"}));
    let mut c = db.connect();
    let span = seat_removed(&mut c, 31);
    assert_eq!(c.settled_balance_and_debt(ANN), (10_000, 0));
    c.run_due();
    let gone = ["subscription_grant 10000", "subscription_grant 1000", "set_aside -1000"];
    assert_eq!(c.ledger(ANN), gone);
    c.twice(&plan_alone(span).updated("evt_again", span.1 + 60));
    assert_eq!(
        (c.settled_balance_and_debt(ANN), c.ledger(ANN)),
        ((10_000, 0), gone.map(Into::into).to_vec())
    );
    c.twice(&plan_alone(span).deleted("evt_deleted", span.1 + 120));
    assert_eq!(
        (c.settled_balance_and_debt(ANN), c.ledger(ANN)),
        ((10_000, 0), gone.map(Into::into).to_vec())
    );
}

#[test]
fn what_a_removed_seat_had_set_aside_does_not_come_back_by_a_cancellation() {
    let db = plan_database(&json!({}));
    let mut c = db.connect();
    let span = seat_removed(&mut c, 10);
    let gone = ["subscription_grant 10000", "subscription_grant 1000", "set_aside -1000"];
    assert_eq!(
        (c.settled_balance_and_debt(ANN), c.ledger(ANN)),
        ((10_000, 0), gone.map(Into::into).to_vec())
    );
    c.twice(&plan_alone(span).deleted("evt_deleted", span.0 + 2 * DAY));
    assert_eq!(
        (c.settled_balance_and_debt(ANN), c.ledger(ANN)),
        ((10_000, 0), gone.map(Into::into).to_vec())
    );
}

#[test]
fn what_is_paid_for_an_earlier_period_stays_although_as_much_had_been_credited() {
    let db = Database::with_catalog();
    let mut c = db.connect();
    let half = |cents| line("price_pro", cents, (half_time(0), month(1))).prorated();
    let late = |id, cents, at| invoice(id, "sub_1").line(half(cents)).paid_at(at);
    c.twice(&subscription("sub_1", "price_pro").of(ANN).created("evt_created"));
    c.twice(&renewal("in_0", "sub_1", PRO, 0).paid("evt_paid_0"));
    c.twice(&renewal("in_1", "sub_1", PRO, 1).paid("evt_paid_1"));
    c.twice(&late("in_credit", -5_000, month(1) + DAY).paid("evt_credit"));
    c.twice(&renewal("in_2", "sub_1", PRO, 2).paid("evt_paid_2"));
    assert_eq!(c.settled_balance_and_debt(ANN), (10_000, 0));
    c.twice(&late("in_late", 5_000, month(2) + DAY).paid("evt_late"));
    assert_eq!(c.settled_balance_and_debt(ANN), (15_000, 0));
    assert_eq!(c.ledger(ANN).last().map(String::as_str), Some("subscription_grant 5000"));
    c.twice(&renewal("in_3", "sub_1", PRO, 3).paid("evt_paid_3"));
    assert_eq!(c.settled_balance_and_debt(ANN), (10_000, 0));
}

// 20: cancellation.

#[test]
fn scenario_20_a_cancellation_leaves_the_credits_until_they_are_spent() {
    let db = Database::with_catalog();
    let mut c = db.connect();
    subscribe_to_max(&mut c);
    let state = subscription("sub_1", "price_max").of(ANN);
    c.twice(&state.clone().with("cancel_at_period_end", true).updated("evt_cancel", CREATED + DAY));
    assert_eq!((c.settled_balance_and_debt(ANN), c.tier(ANN)), ((30_000, 0), "max active".into()));
    c.twice(&state.deleted("evt_deleted", month(1)));
    assert_eq!((c.settled_balance_and_debt(ANN), c.tier(ANN)), ((30_000, 0), "free canceled".into()));
    assert_eq!(c.known("sub_1").as_deref(), Some("price_max max canceled"));
    c.spend(ANN, 30_000, "job-1");
    assert_eq!((c.settled_balance_and_debt(ANN), c.ledger(ANN).len()), ((0, 0), 2));
}

/// A subscription to pro that began so many days ago, and its paid invoice.
fn begun(c: &mut Connection, days_ago: i64) -> ((i64, i64), Event) {
    let start = c.unix_now() - days_ago * DAY;
    let span = (start, start + 30 * DAY);
    let created = subscription("sub_1", "price_pro").of(ANN).during(span);
    c.twice(&created.event("evt_created", "created", start));
    let paid = invoice("in_0", "sub_1").line(line("price_pro", 10_000, span)).paid_at(start);
    (span, paid.paid("evt_paid_0"))
}

#[test]
fn scenario_20_under_expire_the_credits_expire_at_the_periods_end() {
    let db = database_with(&json!({"cancellation": "expire"}));
    let mut c = db.connect();
    let (span, paid) = begun(&mut c, 20);
    c.twice(&paid);
    c.apply(&paid_pack("cs_1", ANN).completed("evt_pack"));
    c.spend(ANN, 4_000, "job-1");
    let ends = subscription("sub_1", "price_pro").during(span).with("cancel_at_period_end", true);
    c.twice(&ends.updated("evt_cancel", span.0 + DAY));
    assert_eq!((c.settled_balance_and_debt(ANN), c.tier(ANN)), ((6_500, 0), "pro active".into()));
    c.advance_time(ANN, "11 days");
    assert_eq!(c.settled_balance_and_debt(ANN), (500, 0), "the pack stays");
    assert_eq!(c.run_due(), 1);
    assert_eq!(c.ledger(ANN), ["subscription_grant 10000", "purchase 500", "spend -4000", "expiry -6000"]);
    assert_eq!(c.run_due(), 0);
}

#[test]
fn scenario_20_under_expire_a_late_cancellation_ends_like_an_immediate_one() {
    let db = database_with(&json!({"cancellation": "expire"}));
    for order in [[0, 1, 2], [0, 2, 1], [2, 1, 0], [1, 2, 0]] {
        let mut c = db.connect();
        c.run("begin");
        let (span, paid) = begun(&mut c, 40);
        let ends = subscription("sub_1", "price_pro").of(ANN).during(span);
        let events = [
            paid,
            ends.clone().with("cancel_at_period_end", true).updated("evt_cancel", span.0 + DAY),
            ends.deleted("evt_deleted", span.1),
        ];
        for event in order {
            c.twice(&events[event]);
        }
        assert_eq!((c.balance_and_debt(ANN), c.tier(ANN)), ((0, 0), "free canceled".into()), "{order:?}");
        assert_eq!(c.my_credits(ANN), (0, 0));
        c.run("rollback");
    }
}

#[test]
fn scenario_20_under_expire_a_cancellation_that_is_called_off_keeps_the_credits() {
    let db = database_with(&json!({"cancellation": "expire"}));
    let mut c = db.connect();
    let (span, paid) = begun(&mut c, 20);
    c.twice(&paid);
    let state = subscription("sub_1", "price_pro").of(ANN).during(span);
    c.twice(&state.clone().with("cancel_at_period_end", true).updated("evt_cancel", span.0 + DAY));
    c.twice(&state.updated("evt_stay", span.0 + 2 * DAY));
    c.advance_time(ANN, "11 days");
    assert_eq!(c.settled_balance_and_debt(ANN), (10_000, 0));
    assert_eq!(c.ledger(ANN), ["subscription_grant 10000"]);
}

#[test]
fn scenario_20_under_expire_a_mid_period_cancellation_keeps_credits_to_its_end() {
    let db = database_with(&json!({"cancellation": "expire"}));
    let mut c = db.connect();
    let (span, paid) = begun(&mut c, 20);
    c.twice(&paid);
    let state = subscription("sub_1", "price_pro").of(ANN).during(span);
    c.twice(&state.deleted("evt_deleted", span.0 + 5 * DAY));
    assert_eq!((c.settled_balance_and_debt(ANN), c.tier(ANN)), ((10_000, 0), "free canceled".into()));
    c.advance_time(ANN, "11 days");
    assert_eq!(c.settled_balance_and_debt(ANN), (0, 0));
}

#[test]
fn under_expire_what_settled_a_debt_and_comes_back_stays_when_the_end_is_told_again() {
    let db = database_with(&json!({"cancellation": "expire"}));
    let mut c = db.connect();
    let pack = paid_pack("cs_1", ANN).with("payment_intent", "pi_1");
    c.twice(&pack.completed("evt_pack"));
    assert!(c.spend(ANN, 500, "job").ok);
    c.twice(&refunded("re_1", "pi_1", 1_000));
    let (span, paid) = begun(&mut c, 20);
    c.twice(&paid);
    assert_eq!(c.settled_balance_and_debt(ANN), (9_500, 0));
    let state = subscription("sub_1", "price_pro").of(ANN).during(span).with("cancel_at_period_end", true);
    c.twice(&state.updated("evt_cancel", span.0 + DAY));
    c.advance_time(ANN, "11 days");
    assert_eq!(c.settled_balance_and_debt(ANN), (0, 0));
    // What settled it can be spent, though its grant is over (rule 9).
    c.twice(&failed("re_1", "pi_1", 1_000));
    assert_eq!(c.settled_balance_and_debt(ANN), (500, 0));
    c.twice(&state.deleted("evt_deleted", span.1));
    assert_eq!((c.settled_balance_and_debt(ANN), c.tier(ANN)), ((500, 0), "free canceled".into()));
    let since = c.ledger(ANN).split_off(6);
    assert_eq!(since, ["expiry -9500", "debt_settlement 500", "debt_settlement -500", "reinstatement 500"]);
}

// Coming back.

#[test]
fn a_new_subscriptions_first_lot_sets_aside_what_the_ended_one_left_in_every_order() {
    let db = Database::with_catalog();
    let mut c = db.connect();
    subscribe_to_max(&mut c);
    let deleted = subscription("sub_1", "price_max").deleted("evt_deleted", month(1));
    let created = subscription("sub_2", "price_pro").of(ANN).during(period(2));
    let events = [
        deleted,
        created.event("evt_created_2", "created", month(2)),
        renewal("in_2", "sub_2", PRO, 2).paid("evt_paid_2"),
    ];
    let mut first = None;
    for order in stripe_credits_tests::permutations::orders(3) {
        c.run("begin");
        for event in &order {
            c.twice(&events[*event]);
        }
        assert_eq!((c.balance_and_debt(ANN), c.tier(ANN)), ((10_000, 0), "pro active".into()), "{order:?}");
        let end = c.subscribed_state();
        assert_eq!(first.get_or_insert_with(|| end.clone()), &end, "{order:?}");
        c.run("rollback");
    }
}

#[test]
fn a_new_subscription_rolls_over_up_to_its_maximum_of_what_the_ended_one_left() {
    let db = Database::with_catalog();
    let mut c = db.connect();
    c.twice(&subscription("sub_1", "price_roll").of(ANN).created("evt_created"));
    c.twice(&renewal("in_0", "sub_1", ROLL, 0).paid("evt_paid_0"));
    c.spend(ANN, 200, "job-1");
    c.twice(&subscription("sub_1", "price_roll").deleted("evt_deleted", month(1)));
    assert_eq!(c.settled_balance_and_debt(ANN), (800, 0));
    let created = subscription("sub_2", "price_roll").of(ANN).during(period(2));
    c.twice(&created.event("evt_created_2", "created", month(2)));
    c.twice(&renewal("in_2", "sub_2", ROLL, 2).paid("evt_paid_2"));
    assert_eq!(c.settled_balance_and_debt(ANN), (1_500, 0));
}

// 23: yearly prices that drip.

/// A year of pro from `start`, paid for with $1000 then.
fn year(start: i64) -> Invoice {
    invoice("in_year", "sub_year")
        .with("billing_reason", "subscription_create")
        .line(line("price_pro_year", 100_000, (start, months_after(start, 12))))
        .of(ANN)
        .paid_at(start)
}

/// ANN subscribes to a year of pro that began at `start`.
fn subscribe_for_a_year(c: &mut Connection, start: i64) {
    let state = subscription("sub_year", "price_pro_year").of(ANN).during((start, months_after(start, 12)));
    c.twice(&state.event("evt_year_created", "created", start));
    assert_eq!(c.twice(&year(start).paid("evt_year")), "applied");
}

#[test]
fn scenario_23_a_yearly_price_gives_each_months_credits_by_time_alone() {
    let db = Database::with_catalog();
    let mut c = db.connect();
    let start = c.unix_now() - DAY;
    subscribe_for_a_year(&mut c, start);
    assert_eq!((c.settled_balance_and_debt(ANN), c.tier(ANN)), ((10_000, 0), "pro active".into()));
    c.spend(ANN, 4_000, "job-1");
    for months in 1..12 {
        c.advance_time(ANN, "1 month");
        assert_eq!(c.settled_balance_and_debt(ANN), (10_000, 0), "month {months}");
        assert_eq!(c.run_due(), 1);
        assert_eq!(c.run_due(), 0);
        assert_eq!(c.settled_balance_and_debt(ANN), (10_000, 0), "month {months}, posted");
    }
    let ledger = c.ledger(ANN);
    assert_eq!(
        ledger[..5],
        [
            "subscription_grant 10000",
            "spend -4000",
            "subscription_grant 10000",
            "expiry -6000",
            "subscription_grant 10000"
        ]
    );
    assert_eq!(ledger.iter().filter(|row| *row == "subscription_grant 10000").count(), 12);
    c.advance_time(ANN, "1 month");
    assert_eq!(c.settled_balance_and_debt(ANN), (0, 0), "the year is over");
    c.run_due();
    assert_eq!(c.ledger(ANN).iter().filter(|row| *row == "subscription_grant 10000").count(), 12);
}

#[test]
fn scenario_23_however_late_the_invoice_or_sweep_the_current_month_is_granted_once() {
    for months_ago in [0, 1, 5, 11] {
        let db = Database::with_catalog();
        let mut c = db.connect();
        let now = c.unix_now();
        let start =
            (0..400).map(|day| now - day * DAY - 3_600).find(|start| months_after(*start, months_ago) < now);
        let start = (0..400)
            .map(|day| now - day * DAY - 3_600)
            .find(|start| {
                months_after(*start, months_ago) <= now && now < months_after(*start, months_ago + 1)
            })
            .or(start)
            .expect("a day");
        subscribe_for_a_year(&mut c, start);
        assert_eq!(c.settled_balance_and_debt(ANN), (10_000, 0), "{months_ago} months ago");
        c.advance_time(ANN, "1 month");
        let expected = if months_ago == 11 { 0 } else { 10_000 };
        assert_eq!(c.settled_balance_and_debt(ANN), (expected, 0), "{months_ago} months ago, and one later");
        c.advance_time(ANN, "24 months");
        assert_eq!(c.settled_balance_and_debt(ANN), (0, 0));
    }
}

#[test]
fn scenario_23_each_months_credits_expire_in_turn_when_not_read_for_months() {
    let db = Database::with_catalog();
    let mut c = db.connect();
    let start = c.unix_now() - DAY;
    subscribe_for_a_year(&mut c, start);
    c.advance_time(ANN, "3 months");
    assert_eq!(c.settled_balance_and_debt(ANN), (10_000, 0));
    assert_eq!(c.run_due(), 1);
    assert_eq!(
        c.ledger(ANN),
        [
            "subscription_grant 10000",
            "subscription_grant 10000",
            "expiry -10000",
            "subscription_grant 10000",
            "expiry -10000",
            "subscription_grant 10000",
            "expiry -10000",
        ]
    );
}

#[test]
fn scenario_23_refunded_in_the_second_month_nothing_drips_after() {
    for newer in [true, false] {
        let db = Database::with_catalog();
        let mut c = db.connect();
        let start = c.unix_now() - DAY;
        if newer {
            subscribe_for_a_year(&mut c, start);
            c.twice(&invoice_payment("evt_by", "in_year", "pi_year"));
        } else {
            let paid = year(start).older().with("payment_intent", "pi_year").paid("evt_year");
            c.twice(&paid);
        }
        c.advance_time(ANN, "1 month");
        assert_eq!(c.settled_balance_and_debt(ANN), (10_000, 0));
        let refunded = refund("re_1", "pi_year", 100_000).event("evt_refund", "refund.created");
        assert_eq!(c.twice(&refunded), "applied");
        assert_eq!(c.settled_balance_and_debt(ANN), (0, 0), "newer {newer}");
        for months in 2..14 {
            c.advance_time(ANN, "1 month");
            assert_eq!(c.settled_balance_and_debt(ANN), (0, 0), "month {months}, newer {newer}");
        }
        c.run_due();
        assert_eq!(c.balance_and_debt(ANN), (0, 0));
    }
}

#[test]
fn scenario_23_refunded_in_the_second_month_only_what_was_spent_is_owed() {
    let db = Database::with_catalog();
    let mut c = db.connect();
    let start = c.unix_now() - DAY;
    subscribe_for_a_year(&mut c, start);
    c.twice(&invoice_payment("evt_by", "in_year", "pi_year"));
    c.spend(ANN, 4_000, "job-1");
    c.advance_time(ANN, "1 month");
    c.spend(ANN, 1_000, "job-2");
    c.twice(&refund("re_1", "pi_year", 100_000).event("evt_refund", "refund.created"));
    assert_eq!(c.settled_balance_and_debt(ANN), (0, 5_000));
    c.advance_time(ANN, "3 months");
    assert_eq!(c.settled_balance_and_debt(ANN), (0, 5_000));
    let failed =
        refund("re_1", "pi_year", 100_000).with("status", "failed").event("evt_failed", "refund.failed");
    c.twice(&failed);
    assert_eq!(c.settled_balance_and_debt(ANN), (10_000, 0), "undone: the month under way is there again");
    c.advance_time(ANN, "1 month");
    assert_eq!(c.settled_balance_and_debt(ANN), (10_000, 0));
}

#[test]
fn scenario_23_refunded_before_its_invoice_a_year_never_drips() {
    let db = Database::with_catalog();
    let mut c = db.connect();
    let start = c.unix_now() - DAY;
    c.apply(&refund("re_1", "pi_year", 100_000).event("evt_refund", "refund.created"));
    c.twice(&year(start).older().with("payment_intent", "pi_year").paid("evt_year"));
    assert_eq!(c.settled_balance_and_debt(ANN), (0, 0));
    for _ in 0..3 {
        c.advance_time(ANN, "1 month");
        assert_eq!(c.settled_balance_and_debt(ANN), (0, 0));
    }
}

#[test]
fn scenario_23_a_lesser_plan_limits_each_coming_month_until_it_is_changed_back() {
    let db = Database::with_catalog();
    let mut c = db.connect();
    let start = c.unix_now() - 2 * DAY;
    subscribe_for_a_year(&mut c, start);
    let span = (start, months_after(start, 12));
    let roll = subscription("sub_year", "price_roll").of(ANN).during(span);
    c.twice(&roll.updated("evt_down", start + DAY));
    assert_eq!((c.settled_balance_and_debt(ANN), c.tier(ANN)), ((1_000, 0), "roll active".into()));
    c.advance_time(ANN, "1 month");
    assert_eq!(
        c.settled_balance_and_debt(ANN),
        (1_000, 0),
        "the first month expired, of the second so much stays"
    );
    let back = subscription("sub_year", "price_pro_year").of(ANN).during(span);
    c.twice(&back.updated("evt_back", start + DAY + 60));
    assert_eq!(c.settled_balance_and_debt(ANN), (10_000, 0));
}

#[test]
fn scenario_23_a_canceled_year_gives_its_months_until_its_end_under_both_policies() {
    for policy in ["keep", "expire"] {
        let db = database_with(&json!({"cancellation": policy}));
        let mut c = db.connect();
        let start = c.unix_now() - 2 * DAY;
        subscribe_for_a_year(&mut c, start);
        let state = subscription("sub_year", "price_pro_year").of(ANN);
        let state = state.during((start, months_after(start, 12)));
        c.twice(&state.deleted("evt_deleted", start + DAY));
        assert_eq!(
            (c.settled_balance_and_debt(ANN), c.tier(ANN)),
            ((10_000, 0), "free canceled".into()),
            "{policy}"
        );
        c.advance_time(ANN, "1 month");
        assert_eq!(c.settled_balance_and_debt(ANN), (10_000, 0), "{policy}");
        c.advance_time(ANN, "11 months");
        assert_eq!(c.settled_balance_and_debt(ANN), (0, 0), "{policy}");
    }
}

#[test]
fn scenario_23_a_year_that_ends_at_cancel_at_gives_no_month_after_it_under_expire() {
    for (policy, later) in [("keep", 10_000), ("expire", 0)] {
        let db = database_with(&json!({"cancellation": policy}));
        let mut c = db.connect();
        let start = c.unix_now() - 2 * DAY;
        subscribe_for_a_year(&mut c, start);
        let state = subscription("sub_year", "price_pro_year").of(ANN);
        let state = state.during((start, months_after(start, 12)));
        let ends = state.with("cancel_at", months_after(start, 2));
        c.twice(&ends.updated("evt_cancel", start + DAY));
        c.advance_time(ANN, "1 month");
        assert_eq!(c.settled_balance_and_debt(ANN), (10_000, 0), "{policy}");
        c.advance_time(ANN, "1 month");
        assert_eq!(c.settled_balance_and_debt(ANN), (later, 0), "{policy}");
    }
}

#[test]
fn scenario_23_a_renewed_year_takes_over_from_the_last_month_of_the_one_before() {
    let db = Database::with_catalog();
    let mut c = db.connect();
    let now = c.unix_now();
    let start = months_after(now - 380 * DAY, 0);
    subscribe_for_a_year(&mut c, start);
    assert_eq!(c.settled_balance_and_debt(ANN), (0, 0));
    let second = (months_after(start, 12), months_after(start, 24));
    let renewed =
        invoice("in_year_2", "sub_year").line(line("price_pro_year", 100_000, second)).paid_at(second.0);
    c.twice(&renewed.paid("evt_year_2"));
    assert_eq!(c.settled_balance_and_debt(ANN), (10_000, 0));
    c.advance_time(ANN, "1 month");
    assert_eq!(c.settled_balance_and_debt(ANN), (10_000, 0));
}

#[test]
fn scenario_23_a_renewal_paid_early_waits_for_its_start_and_keeps_the_current_month() {
    // A drip is the one thing that waits for its period's start; until then it takes over from nothing.
    let db = Database::with_catalog();
    let mut c = db.connect();
    let now = c.unix_now();
    let start = now - 360 * DAY;
    subscribe_for_a_year(&mut c, start);
    assert_eq!(c.settled_balance_and_debt(ANN), (10_000, 0));
    let second = (months_after(start, 12), months_after(start, 24));
    let renewed = invoice("in_year_2", "sub_year").line(line("price_pro_year", 100_000, second)).paid_at(now);
    c.twice(&renewed.paid("evt_year_2"));
    assert_eq!(c.settled_balance_and_debt(ANN), (10_000, 0), "the month under way stays");
    c.advance_time(ANN, "1 month");
    assert_eq!(c.settled_balance_and_debt(ANN), (10_000, 0));
}
