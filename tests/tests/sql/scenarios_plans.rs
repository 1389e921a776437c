//! Scenarios of the second table about what an invoice bills: 41 to 46, 51, 53, 54, 56, 61, 63, 69, 76 to 78.

use serde_json::{Value, json};
use stripe_credits_tests::payments::{credit_note, invoice_payment, older_credit_note};
use stripe_credits_tests::permutations::{in_every_order, nothing, orders};
use stripe_credits_tests::plans::{
    Api, Clocked, charged, clock_at, credited, half, plan_catalog, plan_catalog_with, plan_database,
};
use stripe_credits_tests::refunds::{charge, refund};
use stripe_credits_tests::stripe::CREATED;
use stripe_credits_tests::subscription::{
    Invoice, Line, MAX, PRO, SEAT, Subscription, YEAR, invoice, line, month, months_after, period, renewal,
    subscription,
};
use stripe_credits_tests::{ANN, Connection, Database, Event};

/// A database with the plans' catalog.
fn plans() -> Database {
    plan_database(&json!({}))
}

/// A line that bills an item for a period.
fn whole(item_id: &str, (price_id, cents): (&str, i64), quantity: i64, span: (i64, i64)) -> Line {
    line(price_id, cents * quantity, span).quantity(quantity).item(item_id)
}

/// ANN's subscription to these prices, item by item.
fn subscribed(items: &[(&str, i64)]) -> Subscription {
    subscription("sub_1", items[0].0).of(ANN).items(items).during(period(0))
}

/// ANN's paid invoice of her subscription with these lines, made at a time.
fn billed(invoice_id: &str, at: i64, lines: impl IntoIterator<Item = Line>) -> Invoice {
    lines.into_iter().fold(invoice(invoice_id, "sub_1").of(ANN), Invoice::line).paid_at(at)
}

/// Pro's line of ANN's first month.
fn pro() -> Line {
    whole("si_1", PRO, 1, period(0))
}

/// Applies events to an empty database, in both orders of two, each twice.
fn both_orders(db: &Database, events: &[Event; 2], expected: (i64, i64)) {
    in_every_order(db, nothing, events, expected);
}

#[test]
fn scenario_41_two_plans_of_one_subscription_grant_both_in_either_order_of_lines() {
    let db = plans();
    for api in Api::BOTH {
        for flipped in [false, true] {
            let mut lines = [pro(), whole("si_2", MAX, 1, period(0))];
            if flipped {
                lines.reverse();
            }
            let state = api.state(&subscribed(&[("price_pro", 1), ("price_max", 1)]), CREATED);
            both_orders(&db, &[state, api.paid(&billed("in_1", CREATED, lines))], (40_000, 0));
        }
    }
}

#[test]
fn scenario_41_each_item_renews_by_itself() {
    let db = plans();
    let mut c = db.connect();
    let both = subscribed(&[("price_pro", 1), ("price_max", 1)]);
    c.twice(&both.created("evt_created"));
    c.twice(&billed("in_1", CREATED, [pro(), whole("si_2", MAX, 1, period(0))]).paid("evt_1"));
    assert_eq!(c.periods(ANN), ["si_1 10000", "si_2 30000"]);
    c.twice(&billed("in_2", month(1), [whole("si_1", PRO, 1, period(1))]).paid("evt_2"));
    assert_eq!(
        c.ledger(ANN),
        [
            "subscription_grant 10000",
            "subscription_grant 30000",
            "subscription_grant 10000",
            "set_aside -10000"
        ]
    );
    assert_eq!(c.agreed_balance_and_debt(ANN), (40_000, 0));
    c.twice(&billed("in_3", month(1), [whole("si_2", MAX, 1, period(1))]).paid("evt_3"));
    assert_eq!(c.agreed_balance_and_debt(ANN), (40_000, 0));
    assert_eq!(c.periods(ANN), ["si_1 10000", "si_2 30000", "si_1 10000", "si_2 30000"]);
}

#[test]
fn scenario_41_a_plan_and_its_seats_are_granted_beside_each_other() {
    let db = plans();
    for api in Api::BOTH {
        let state = api.state(&subscribed(&[("price_pro", 1), ("price_seat", 3)]), CREATED);
        let lines = [pro(), whole("si_2", SEAT, 3, period(0))];
        both_orders(&db, &[state, api.paid(&billed("in_1", CREATED, lines))], (13_000, 0));
    }
}

#[test]
fn scenario_42_an_odd_line_beside_the_plans_is_passed_over_and_recorded() {
    let db = plans();
    let mut c = db.connect();
    let odd = [
        ("not_credits", line("price_calls", 5_000, period(0)).quantity(5_000_000).item("si_2")),
        ("unpriced", line("price_none", 700, period(0)).billed_once().without_price()),
        ("one_time", line("price_setup", 700, period(0)).billed_once()),
    ];
    for api in Api::BOTH {
        for (why, odd) in &odd {
            for lines in [[pro(), odd.clone()], [odd.clone(), pro()]] {
                c.run("begin");
                let paid = api.paid(&billed("in_1", CREATED, lines));
                let outcome = c.apply(&paid);
                assert_eq!((outcome.summary().as_str(), outcome.credits), ("applied", 10_000), "{why}");
                let passed_over = &outcome.details.expect("details")["passed_over"];
                assert_eq!(passed_over[0]["why"], *why);
                assert_eq!(c.apply(&paid).summary(), "already_applied");
                assert_eq!(c.ledger(ANN), ["subscription_grant 10000"]);
                assert_eq!(c.inbox(paid.id()).as_deref(), Some("applied"));
                c.run("rollback");
            }
        }
    }
}

#[test]
fn scenario_43_a_recurring_price_that_the_catalog_does_not_know_waits_alone() {
    for api in Api::BOTH {
        let db = plans();
        let mut c = db.connect();
        let state = api.state(&subscribed(&[("price_pro", 1), ("price_new", 1)]), CREATED);
        let unknown = whole("si_2", ("price_new", 2_000), 1, period(0));
        let paid = api.paid(&billed("in_1", CREATED, [unknown, pro()]));
        let outcome = c.apply(&paid);
        assert_eq!((outcome.summary().as_str(), outcome.credits), ("parked unknown_price", 10_000));
        c.twice(&state);
        let again = c.apply(&paid);
        assert_eq!((again.summary().as_str(), again.credits), ("parked unknown_price", 0));
        assert_eq!(c.ledger(ANN), ["subscription_grant 10000"]);
        let mut catalog = plan_catalog();
        let new = json!({ "key": "new", "credits": 2_000, "prices": ["price_new"] });
        catalog["plans"].as_array_mut().expect("plans").push(new);
        c.load_catalog(&catalog);
        assert_eq!(c.ledger(ANN), ["subscription_grant 10000", "subscription_grant 2000"]);
        assert_eq!(c.inbox(paid.id()).as_deref(), Some("applied"));
        assert_eq!(c.apply(&paid).summary(), "already_applied");
        assert_eq!(c.agreed_balance_and_debt(ANN), (12_000, 0));
    }
}

/// A trial of pro for the first month, which is extended to the second one's end after ten days: states and invoices.
fn extended_trial() -> [Event; 4] {
    let trial = subscribed(&[("price_pro", 1)]).clocked().trial(period(0));
    let extended_at = CREATED + 10 * 86_400;
    let longer = (extended_at, month(2));
    let free = |invoice_id: &str, span: (i64, i64)| {
        billed(invoice_id, span.0, [line("price_pro", 0, span).item("si_1")]).clocked()
    };
    [
        trial.created("evt_created"),
        free("in_0", period(0)).paid("evt_in_0"),
        trial.trial((CREATED, month(2))).updated("evt_extended", extended_at),
        free("in_1", longer).mid_period().paid("evt_in_1"),
    ]
}

#[test]
fn scenario_44_an_extended_trial_grants_nothing_in_every_order_and_replayed() {
    let db = plans();
    in_every_order(&db, |c| drop(c.apply(&clock_at(CREATED + 20 * 86_400))), &extended_trial(), (0, 0));
    let mut c = db.connect();
    for event in extended_trial() {
        c.apply(&event);
    }
    c.twice(&renewal("in_2", "sub_1", PRO, 2).of(ANN).clocked().paid("evt_in_2"));
    c.stand_at(month(2) + 60);
    for event in extended_trial() {
        c.apply(&event);
    }
    assert_eq!(c.agreed_balance_and_debt(ANN), (10_000, 0));
    assert_eq!(c.ledger(ANN), ["subscription_grant 10000"]);
}

#[test]
fn scenario_44_an_extended_trial_grants_its_credits_once_in_every_order() {
    let db = plan_database(&json!({ "trial_credits": 300 }));
    in_every_order(&db, |c| drop(c.apply(&clock_at(CREATED + 20 * 86_400))), &extended_trial(), (300, 0));
}

#[test]
fn scenario_45_a_trial_that_is_ended_early_and_paid_grants_the_period() {
    let db = plan_database(&json!({ "trial_credits": 300 }));
    let ended_at = CREATED + 10 * 86_400;
    let paid_for = (ended_at, months_after(ended_at, 1));
    for api in Api::BOTH {
        let trial = subscribed(&[("price_pro", 1)]).trial(period(0));
        let active = subscribed(&[("price_pro", 1)]).during(paid_for);
        let events = [
            api.state(&trial, CREATED),
            api.paid(&billed("in_0", CREATED, [line("price_pro", 0, period(0)).item("si_1")])),
            api.state(&active, ended_at),
            api.paid(&billed("in_1", ended_at, [whole("si_1", PRO, 1, paid_for)]).mid_period()),
        ];
        in_every_order(&db, nothing, &events, (10_000, 0));
    }
}

#[test]
fn scenario_45_a_first_invoice_for_an_update_grants_like_any() {
    let db = plans();
    for api in Api::BOTH {
        let state = api.state(&subscribed(&[("price_pro", 1)]), CREATED);
        both_orders(&db, &[state, api.paid(&billed("in_1", CREATED, [pro()]).mid_period())], (10_000, 0));
    }
}

#[test]
fn scenario_46_a_plans_invoice_that_is_written_off_and_paid_grants_nothing() {
    let db = plans();
    let newer = credit_note("cn_1", "in_1", 10_000)
        .with("pre_payment_amount", 10_000)
        .with("post_payment_amount", 0)
        .with("type", "pre_payment");
    let older = older_credit_note("cn_1", "in_1", 10_000, None).with("type", "pre_payment");
    for (api, note) in [(Api::Newer, newer), (Api::Older, older)] {
        let events = [
            api.state(&subscribed(&[("price_pro", 1)]), CREATED),
            note.event("evt_cn_1", "credit_note.created"),
            api.paid(&billed("in_1", CREATED + 60, [pro()])),
        ];
        in_every_order(&db, nothing, &events, (0, 0));
    }
}

#[test]
fn scenario_51_an_end_by_cancel_at_shows_at_once_and_lapses_then() {
    let db = plan_database(&json!({ "cancellation": "expire" }));
    for api in Api::BOTH {
        let mut c = db.connect();
        c.run("begin");
        let active = subscribed(&[("price_pro", 1)]).clocked();
        c.stand_at(CREATED + 60);
        c.twice(&active.created("evt_created"));
        c.twice(&api.paid(&billed("in_1", CREATED, [pro()]).clocked()));
        assert_eq!(ends(&mut c), None);
        c.twice(&api.state(&active.clone().with("cancel_at", month(1)), CREATED + 86_400));
        assert_eq!(ends(&mut c), Some(month(1)));
        c.stand_at(month(1) - 1);
        assert_eq!(c.agreed_balance_and_debt(ANN), (10_000, 0));
        c.stand_at(month(1));
        assert_eq!(c.agreed_balance_and_debt(ANN), (0, 0));
        assert_eq!(c.ledger(ANN), ["subscription_grant 10000", "expiry -10000"]);
        c.twice(&active.deleted("evt_deleted", month(1)));
        assert_eq!(c.agreed_balance_and_debt(ANN), (0, 0));
        c.run("rollback");
    }
}

/// When ANN's only grant expires.
fn ends(c: &mut Connection) -> Option<i64> {
    c.one("select extract(epoch from expires_at)::bigint from billing.credit_grants", &[])
}

#[test]
fn scenario_53_a_plans_invoice_that_two_charges_paid_is_refunded_by_both() {
    let db = plans();
    let refunded = |payment_intent: &str, cents: i64| {
        charge(payment_intent, cents, cents).event(&format!("evt_ch_{payment_intent}"), "charge.refunded")
    };
    let paid_by = |payment_intent: &str| {
        invoice_payment("in_1", payment_intent)
            .with("id", payment_intent.replacen("pi_", "inpay_", 1))
            .event(&format!("evt_{payment_intent}"), "invoice_payment.paid")
    };
    let paid = billed("in_1", CREATED, [pro()]).paid("evt_in_1");
    let first = [paid, paid_by("pi_1"), paid_by("pi_2"), refunded("pi_1", 6_000)];
    in_every_order(&db, nothing, &first, (4_000, 0));
    let second = [first.as_slice(), &[refunded("pi_2", 4_000)]].concat();
    in_every_order(&db, nothing, &second, (0, 0));
}

#[test]
fn scenario_53_a_refund_that_names_only_its_charge_finds_the_plans_invoice() {
    let db = plans();
    let by_charge = refund("re_1", "pi_1", 10_000).with("payment_intent", Value::Null);
    let older = billed("in_1", CREATED, [pro()]).older().with("charge", "ch_1");
    both_orders(&db, &[older.paid("evt_in_1"), by_charge.event("evt_re_1", "refund.created")], (0, 0));
}

#[test]
fn scenario_54_graduated_tiers_are_one_line_of_all_their_seats() {
    let db = plans();
    for api in Api::BOTH {
        for flipped in [false, true] {
            let mut tiers = [
                line("price_seat", 5_000, period(0)).quantity(5).item("si_1"),
                line("price_seat", 2_400, period(0)).quantity(3).item("si_1"),
            ];
            if flipped {
                tiers.reverse();
            }
            let state = api.state(&subscribed(&[("price_seat", 8)]), CREATED);
            both_orders(&db, &[state, api.paid(&billed("in_1", CREATED, tiers))], (8_000, 0));
        }
    }
}

#[test]
fn scenario_54_a_flat_fee_pays_for_the_units_on_a_line_of_nothing() {
    let db = plan_database(&json!({ "trial_credits": 300 }));
    for api in Api::BOTH {
        for flipped in [false, true] {
            let mut lines = [
                line("price_seat", 5_000, period(0)).quantity(0).item("si_1"),
                line("price_seat", 0, period(0)).quantity(3).item("si_1"),
            ];
            if flipped {
                lines.reverse();
            }
            let state = api.state(&subscribed(&[("price_seat", 3)]), CREATED);
            both_orders(&db, &[state, api.paid(&billed("in_1", CREATED, lines))], (3_000, 0));
        }
    }
}

#[test]
fn scenario_56_an_invoice_for_pending_items_names_its_subscription_on_its_lines() {
    let db = plans();
    let lines = || {
        [credited(PRO, 1, period(0), half(), "in_1"), charged(MAX, 1, period(0), half())]
            .map(|line| line.item("si_1").of_subscription("sub_1"))
    };
    let newer = billed("in_2", half(), lines()).with("parent", Value::Null);
    let older = billed("in_2", half(), lines()).older().with("subscription", Value::Null);
    for (api, pending) in [(Api::Newer, newer), (Api::Older, older)] {
        let events = [
            api.state(&subscribed(&[("price_pro", 1)]), CREATED),
            api.paid(&billed("in_1", CREATED, [pro()])),
            api.state(&subscribed(&[("price_max", 1)]), half()),
            pending.with("billing_reason", "manual").paid("evt_pending"),
        ];
        in_every_order(&db, nothing, &events, (20_000, 0));
    }
}

#[test]
fn scenario_61_a_request_id_that_is_a_plans_invoice_counts_beside_it() {
    let db = plans();
    let paid = billed("in_1", CREATED, [pro()]).paid("evt_in_1");
    let mut c = db.connect();
    for grant_first in [true, false] {
        c.run("begin");
        if grant_first {
            assert_eq!(c.grant(ANN, 40, "in_1").summary(), "applied");
        }
        assert_eq!(c.twice(&paid), "applied");
        assert!(c.grant(ANN, 40, "in_1").ok);
        assert_eq!(c.balance_and_debt(ANN), (10_040, 0));
        c.run("rollback");
    }
}

/// A year or quarter in monthly parts from each of these ends of months: how many parts, and of how many credits.
fn parts_of(price_id: &str, months: u32, start: &str) -> (i64, i64) {
    let mut catalog = plan_catalog();
    let quarter = json!([{ "id": "price_quarter", "every": "3 months", "drip": "1 month" }]);
    catalog["plans"][3]["prices"] = quarter;
    let db = Database::new();
    let mut c = db.connect();
    c.load_catalog(&catalog);
    let start: i64 = c.one("select extract(epoch from $1::text::timestamptz)::bigint", &[&start]);
    let span = (start, months_after(start, months));
    c.stand_at(start);
    let paid = billed("in_1", start, [line(price_id, 30_000, span).item("si_1")]).clocked();
    c.twice(&paid.paid("evt_in_1"));
    for n in 0..=months {
        c.stand_at(months_after(start, n) + 86_400 * 4);
        c.run_due();
    }
    let row = c
        .query_one("select count(*), sum(amount)::bigint from billing.credit_grants where amount <> 0", &[])
        .expect("a row");
    (row.get(0), row.get(1))
}

#[test]
fn scenario_63_a_clamped_start_or_a_leap_day_makes_no_part_too_many() {
    for start in ["2025-08-31 00:00Z", "2025-11-30 00:00Z", "2023-11-30 10:00Z"] {
        assert_eq!(parts_of("price_quarter", 3, start), (3, 90_000), "{start}");
    }
    for start in ["2025-02-28 00:00Z", "2024-02-29 00:00Z", "2023-02-28 10:00Z"] {
        assert_eq!(parts_of("price_pro_year", 12, start), (12, 120_000), "{start}");
    }
}

#[test]
fn scenario_69_a_year_in_parts_comes_month_by_month_of_a_test_clock() {
    let db = plan_database(&json!({ "cancellation": "expire" }));
    for clock_first in [true, false] {
        let mut c = db.connect();
        c.run("begin");
        let year = (CREATED, month(12));
        let active = subscribed(&[("price_pro_year", 1)]).during(year).clocked();
        if clock_first {
            c.stand_at(CREATED);
        }
        c.twice(&active.created("evt_created"));
        c.twice(&billed("in_1", CREATED, [whole("si_1", YEAR, 1, year)]).clocked().paid("evt_in_1"));
        for n in 0..12 {
            c.stand_at(month(n));
            assert_eq!(c.agreed_balance_and_debt(ANN), (10_000, 0), "month {n}");
            c.spend(ANN, 4_000, &format!("job-{n}"));
            c.stand_at(month(n + 1) - 1);
            assert_eq!(c.agreed_balance_and_debt(ANN), (6_000, 0), "month {n}");
        }
        let ending = active.with("cancel_at_period_end", true).with("cancel_at", month(12));
        c.twice(&ending.updated("evt_ending", CREATED + 90));
        c.stand_at(month(12));
        assert_eq!(c.agreed_balance_and_debt(ANN), (0, 0));
        let month = ["subscription_grant 10000", "spend -4000", "expiry -6000"];
        let mut ledger = c.ledger(ANN);
        ledger.sort();
        let mut expected = month.repeat(12);
        expected.sort_unstable();
        assert_eq!(ledger, expected);
        c.run("rollback");
    }
}

#[test]
fn scenario_69_a_late_state_by_a_test_clock_stays_older_than_those_after_it() {
    let two = || subscribed(&[("price_pro", 2)]).clocked();
    let states = [
        subscribed(&[("price_pro", 1)]).clocked().updated("evt_one", CREATED + 60),
        two().updated("evt_two_again", CREATED + 120),
        subscribed(&[("price_pro", 3)]).clocked().updated("evt_three", CREATED + 180),
        two().updated("evt_two_at_last", CREATED + 240),
    ];
    // Each is known as of another time by the clock.
    for order in orders(states.len()) {
        let db = plan_database(&json!({}));
        let mut c = db.connect();
        c.stand_at(CREATED);
        c.apply(&two().created("evt_created"));
        c.apply(&billed("in_1", CREATED, [whole("si_1", PRO, 2, period(0))]).clocked().paid("evt_in_1"));
        for (days, index) in (1..).zip(&order) {
            c.stand_at(CREATED + days * 86_400);
            c.apply(&states[*index]);
        }
        assert_eq!(c.agreed_balance_and_debt(ANN), (20_000, 0), "{order:?}");
        let out_of_order: i64 = c.one(
            "select count(*) from billing.subscription_items a join billing.subscription_items b
                 using (subscription_id, item_id) where a.as_of < b.as_of and a.seen_at > b.seen_at",
            &[],
        );
        assert_eq!(out_of_order, 0, "{order:?}");
        assert!(c.faults().is_empty(), "{order:?}");
    }
}

#[test]
fn scenario_76_a_metered_line_of_nothing_is_no_trial() {
    let db = Database::new();
    let mut c = db.connect();
    let mut catalog = plan_catalog_with(&json!({ "trial_credits": 300 }));
    catalog["plans"][2]["prices"].as_array_mut().expect("prices").push(json!({ "product": "prod_pro" }));
    c.load_catalog(&catalog);
    let mut usage = subscribed(&[("price_pro", 1), ("price_usage", 1)]).json().clone();
    usage["items"]["data"][1]["price"]["recurring"] =
        json!({ "interval": "month", "interval_count": 1, "usage_type": "metered" });
    // The catalog knows the metered price by its product, and since 2025-03-31 only the item says that it is metered.
    let metered = || line("price_usage", 0, period(0)).quantity(1).item("si_2").of_product("prod_pro");
    let state = subscription("sub_1", "price_pro").of(ANN).with("items", usage["items"].clone());
    let paid = billed("in_1", CREATED, [metered(), pro()]);
    let events = [state.created("evt_created"), paid.paid("evt_in_1")];
    both_orders(&db, &events, (10_000, 0));
    let older = billed("in_1", CREATED, [metered(), pro()]).older();
    both_orders(&db, &[state.clone().older().created("evt_created"), older.paid("evt_in_1")], (10_000, 0));
    // The trial is still there to be had.
    let to_the_future = (CREATED, months_after(CREATED, 1_200));
    let trial = billed("in_2", CREATED, [line("price_max", 0, to_the_future).item("si_9")]);
    c.twice(&state.created("evt_created"));
    c.twice(&paid.paid("evt_in_1"));
    c.twice(&trial.paid("evt_in_2"));
    assert_eq!(c.ledger(ANN), ["subscription_grant 10000", "subscription_grant 300"]);
}

#[test]
fn scenario_77_lines_of_two_subscriptions_and_a_pack_grant_each_its_own() {
    let db = plans();
    for api in Api::BOTH {
        let mut second = subscription("sub_2", "price_max").of(ANN);
        let mut items = second.json()["items"].clone();
        items["data"][0]["id"] = "si_2".into();
        second = second.with("items", items);
        let lines = [
            pro().of_subscription("sub_1"),
            whole("si_2", MAX, 1, period(0)).of_subscription("sub_2"),
            line("price_pack", 1_000, (CREATED, CREATED)).billed_once(),
        ];
        let shared = billed("in_1", CREATED, lines);
        let shared = if api == Api::Newer { shared.with("parent", Value::Null) } else { shared };
        let events = [
            api.state(&subscribed(&[("price_pro", 1)]), CREATED),
            api.state(&second, CREATED + 1),
            api.paid(&shared),
        ];
        in_every_order(&db, nothing, &events, (40_500, 0));
        let mut c = db.connect();
        c.run("begin");
        for event in &events {
            c.apply(event);
        }
        let grants: Vec<String> = c.column(
            "select format('%s %s %s', pool, stripe_subscription_id, remaining) from billing.credit_grants order by 1",
            &[],
        );
        assert_eq!(grants, ["purchased  500", "subscription sub_1 10000", "subscription sub_2 30000"]);
        c.run("rollback");
    }
}

#[test]
fn scenario_78_a_credit_note_over_a_plans_invoice_counts_once_in_both_shapes() {
    let db = plans();
    let paid = billed("in_1", CREATED, [pro()]).paid("evt_in_1");
    let joins = invoice_payment("in_1", "pi_1").event("evt_joins", "invoice_payment.paid");
    let half_back = refund("re_1", "pi_1", 5_000).event("evt_re_1", "refund.created");
    let refunds = json!([{ "amount_refunded": 5_000, "refund": "re_1" }]);
    for (with_refund, without) in [
        (
            older_credit_note("cn_1", "in_1", 5_000, Some("re_1")),
            older_credit_note("cn_1", "in_1", 5_000, None),
        ),
        (credit_note("cn_1", "in_1", 5_000).with("refunds", refunds), credit_note("cn_1", "in_1", 5_000)),
    ] {
        let [with_refund, without] =
            [with_refund, without].map(|note| note.event("evt_cn_1", "credit_note.created"));
        let told_by_both = [paid.clone(), joins.clone(), half_back.clone(), with_refund];
        in_every_order(&db, nothing, &told_by_both, (5_000, 0));
        both_orders(&db, &[paid.clone(), without], (5_000, 0));
    }
}

#[test]
fn a_period_of_more_than_a_hundred_years_is_an_odd_shape() {
    let db = plans();
    let mut c = db.connect();
    // The last second that Stripe could name: 96,000 parts of a month would be computed for every later event.
    let ages = (0, 253_402_300_799);
    for (n, price) in [PRO, YEAR].into_iter().enumerate() {
        let billed =
            invoice(&format!("in_{n}"), &format!("sub_{n}")).of(ANN).line(whole("si_1", price, 1, ages));
        assert_eq!(c.apply(&billed.paid(&format!("evt_{n}"))).summary(), "parked shape", "{price:?}");
    }
    assert_eq!(c.ledger(ANN), [""; 0]);
}
