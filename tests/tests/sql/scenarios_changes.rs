//! Scenarios of the second table about what happens to a plan while it runs: 57 to 59, 64, 67, 71 to 75, 80.

use serde_json::json;
use stripe_credits_tests::permutations::{in_every_order, nothing};
use stripe_credits_tests::plans::{Api, Clocked, charged, credited, half, plan_database};
use stripe_credits_tests::refunds::{failed, refund};
use stripe_credits_tests::stripe::CREATED;
use stripe_credits_tests::subscription::{
    Invoice, Line, MAX, PACK_MONTH, PRO, QUARTER, SEAT, Subscription, YEAR, invoice, line, month,
    months_after, period, subscription,
};
use stripe_credits_tests::{ANN, Connection, Database};

/// A database with the plans' catalog.
fn plans() -> Database {
    plan_database(&json!({}))
}

/// A line that bills ANN's item for a period.
fn whole((price_id, cents): (&str, i64), quantity: i64, span: (i64, i64)) -> Line {
    line(price_id, cents * quantity, span).quantity(quantity).item("si_1")
}

/// ANN's subscription to so many of a price.
fn subscribed(price_id: &str, quantity: i64) -> Subscription {
    subscription("sub_1", price_id).of(ANN).items(&[(price_id, quantity)]).during(period(0))
}

/// ANN's paid invoice of her subscription with these lines of its item, made at a time.
fn billed<const N: usize>(invoice_id: &str, at: i64, lines: [Line; N]) -> Invoice {
    let lines = lines.map(|line| line.item("si_1"));
    lines.into_iter().fold(invoice(invoice_id, "sub_1").of(ANN), Invoice::line).paid_at(at)
}

/// Spends all that ANN has. Returns what she spent so far, less her debt.
fn burn(c: &mut Connection, request_id: &str) -> i64 {
    let (balance, _) = c.balance_and_debt(ANN);
    if balance > 0 {
        c.spend(ANN, balance, request_id);
    }
    let spent: i64 = c.one(
        "select coalesce(-sum(amount), 0)::bigint from billing.credit_transactions where transaction_type = 'spend'",
        &[],
    );
    spent - c.debt(ANN)
}

#[test]
fn scenario_57_toggling_by_new_anchors_never_draws_more_than_was_paid() {
    for api in Api::BOTH {
        let db = plans();
        let mut c = db.connect();
        let (mut before, mut since) = (PRO, period(0));
        let mut paid = billed("in_0", CREATED, [whole(PRO, 1, period(0))]);
        c.twice(&api.state(&subscribed("price_pro", 1), CREATED));
        let mut balance_at_stripe = 0;
        let mut kept = 0;
        for n in 1..=6 {
            c.twice(&api.paid(&paid));
            // What the invoice's total leaves the customer's balance at Stripe to pay is paid by card.
            balance_at_stripe -= paid.json()["total"].as_i64().expect("cents");
            kept -= balance_at_stripe.min(0);
            balance_at_stripe = balance_at_stripe.max(0);
            let drawn = burn(&mut c, &format!("job-{n}"));
            assert!(drawn <= kept, "{drawn} of {kept} after {n} invoices");
            let at = CREATED + 120 * n;
            let next = if before == PRO { MAX } else { PRO };
            let span = (at, months_after(at, 1));
            let credit = credited(before, 1, since, at, paid.id());
            paid = billed(&format!("in_{n}"), at, [credit, whole(next, 1, span)]).mid_period();
            if n < 6 {
                c.twice(&api.state(&subscribed(next.0, 1).during(span), at));
            }
            (before, since) = (next, span);
        }
        // Five changes end with max: $300, but for the minutes that each plan was used.
        assert!((30_000..30_010).contains(&kept), "{kept}");
    }
}

/// A plan that was paid for several months, and a month of max in its place from the second on: `n` renewals.
fn change_to_max(price: (&'static str, i64), months: u32) -> (Subscription, Invoice, Invoice) {
    let span = (CREATED, month(months));
    let paid = billed("in_0", CREATED, [whole(price, 1, span)]).clocked();
    let credit = credited(price, 1, span, month(1), "in_0");
    let change = billed("in_1", month(1), [credit, whole(MAX, 1, period(1))]).clocked().mid_period();
    (subscribed(price.0, 1).during(span).clocked(), paid, change)
}

/// Each month of max after a longer plan is worth its own credits, as long as the longer plan was paid for, and no others come.
fn max_every_month(price: (&'static str, i64), months: u32, at_first: i64) {
    let db = plans();
    for api in Api::BOTH {
        let mut c = db.connect();
        c.run("begin");
        let (state, paid, change) = change_to_max(price, months);
        c.stand_at(CREATED);
        c.twice(&api.state(&state, CREATED));
        c.twice(&api.paid(&paid));
        assert_eq!(c.agreed_balance_and_debt(ANN), (at_first, 0));
        c.stand_at(month(1));
        c.twice(&api.state(&subscribed("price_max", 1).during(period(1)).clocked(), month(1)));
        c.twice(&api.paid(&change));
        assert_eq!(c.agreed_balance_and_debt(ANN), (30_000, 0));
        for n in 2..=months {
            c.stand_at(month(n));
            c.twice(&api.paid(&billed(&format!("in_{n}"), month(n), [whole(MAX, 1, period(n))]).clocked()));
            c.twice(&api.state(&subscribed("price_max", 1).during(period(n)).clocked(), month(n)));
            assert_eq!(c.agreed_balance_and_debt(ANN), (30_000, 0), "month {n}");
        }
        c.stand_at(month(months + 1) - 1);
        assert_eq!(c.agreed_balance_and_debt(ANN), (30_000, 0));
        c.run("rollback");
    }
}

#[test]
fn scenario_58_a_year_in_parts_that_became_a_monthly_plan_never_comes_back() {
    max_every_month(YEAR, 12, 10_000);
}

/// The invoices of [`change_to_max`] and of a renewal, known in every order once the second month of max runs.
fn alike_in_every_order(price: (&'static str, i64), months: u32) {
    let (_, paid, change) = change_to_max(price, months);
    let renewal = billed("in_2", month(2), [whole(MAX, 1, period(2))]).clocked();
    let events = [paid.paid("evt_in_0"), change.paid("evt_in_1"), renewal.paid("evt_in_2")];
    in_every_order(&plans(), |c| c.stand_at(month(2) + 60), &events, (30_000, 0));
}

#[test]
fn scenario_58_the_years_parts_have_ended_in_every_order() {
    alike_in_every_order(YEAR, 12);
}

#[test]
fn scenario_67_a_quarter_and_its_change_end_alike_in_every_order() {
    alike_in_every_order(QUARTER, 3);
}

/// The same where all but one is known at its time: what a lost webhook makes up for is not left beside the renewal.
fn alike_if_one_is_lost(price: (&'static str, i64), months: u32) {
    for lost in 0..3 {
        let db = plans();
        let mut c = db.connect();
        let (_, paid, change) = change_to_max(price, months);
        let renewal = billed("in_2", month(2), [whole(MAX, 1, period(2))]).clocked();
        let events = [paid.paid("evt_in_0"), change.paid("evt_in_1"), renewal.paid("evt_in_2")];
        for (index, event) in events.iter().enumerate() {
            c.stand_at(month(u32::try_from(index).expect("few")));
            if index != lost {
                c.twice(event);
            }
        }
        c.stand_at(month(2) + 60);
        c.twice(&events[lost]);
        assert_eq!(c.agreed_balance_and_debt(ANN), (30_000, 0), "without {lost}: {:?}", c.ledger(ANN));
    }
}

#[test]
fn scenario_58_a_lost_event_of_the_year_leaves_nothing_beside_the_renewal() {
    alike_if_one_is_lost(YEAR, 12);
}

#[test]
fn scenario_67_a_lost_event_of_the_quarter_leaves_nothing_beside_the_renewal() {
    alike_if_one_is_lost(QUARTER, 3);
}

#[test]
fn scenario_30_what_settled_a_refund_that_failed_comes_back_after_its_month() {
    let db = plans();
    let mut c = db.connect();
    c.buy(ANN, "cs_1");
    c.twice(&billed("in_0", CREATED, [whole(PRO, 1, period(0))]).paid("evt_in_0"));
    c.spend(ANN, 10_300, "job");
    c.twice(&refund("re_1", "pi_1", 1_000).event("evt_re", "refund.created"));
    c.twice(&billed("in_1", month(1), [whole(PRO, 1, period(1))]).paid("evt_in_1"));
    assert_eq!(c.agreed_balance_and_debt(ANN), (9_700, 0));
    c.twice(&billed("in_2", month(2), [whole(PRO, 1, period(2))]).paid("evt_in_2"));
    assert_eq!(c.agreed_balance_and_debt(ANN), (10_000, 0));
    c.twice(&failed("re_1", "pi_1", 1_000).with("created", month(2) + 60));
    assert_eq!(c.agreed_balance_and_debt(ANN), (10_500, 0), "{:?}", c.ledger(ANN));
}

#[test]
fn scenario_59_99_seats_for_five_minutes_are_worth_five_minutes() {
    let db = plans();
    for api in Api::BOTH {
        let (up, down) = (half(), half() + 300);
        let events = [
            api.state(&subscribed("price_seat", 1), CREATED),
            api.paid(&billed("in_0", CREATED, [whole(SEAT, 1, period(0))])),
            api.paid(&billed(
                "in_1",
                up,
                [credited(SEAT, 1, period(0), up, "in_0"), charged(SEAT, 100, period(0), up)],
            )),
            api.paid(&billed(
                "in_2",
                down,
                [credited(SEAT, 100, period(0), down, "in_1"), charged(SEAT, 1, period(0), down)],
            )),
        ];
        // 99,000 × 5 minutes ÷ 31 days = 11.09.
        in_every_order(&db, nothing, &events, (1_011, 0));
    }
}

#[test]
fn scenario_64_a_packs_monthly_item_grants_by_time_and_for_good() {
    let db = plans();
    for (later, at_last) in [(0, 1_250), (5, 1_249)] {
        let mut c = db.connect();
        c.run("begin");
        c.twice(&subscribed("price_pack_month", 2).created("evt_created"));
        c.twice(&billed("in_0", CREATED, [whole(PACK_MONTH, 2, period(0))]).paid("evt_0"));
        let changes = [(2, 3, half(), 1_250), (3, 2, half(), 1_000), (2, 3, half() + later, at_last)];
        for (n, (from, to, at, balance)) in (1..).zip(changes) {
            let credit = credited(PACK_MONTH, from, period(0), at, &format!("in_{}", n - 1));
            let charge = charged(PACK_MONTH, to, period(0), at);
            c.twice(&billed(&format!("in_{n}"), at, [credit, charge]).paid(&format!("evt_{n}")));
            assert_eq!(c.agreed_balance_and_debt(ANN), (balance, 0), "after change {n}");
        }
        assert_eq!(c.one::<String>("select distinct pool from billing.credit_grants", &[]), "purchased");
        c.advance_time(ANN, "2 years");
        assert_eq!(c.agreed_balance_and_debt(ANN), (at_last, 0));
        c.run("rollback");
    }
}

#[test]
fn scenario_67_a_monthly_plan_after_a_quarter_gives_its_amount_each_time() {
    max_every_month(QUARTER, 3, 30_000);
}

/// A change from a month of pro to a year of it, at a time, without a new anchor: the year ends with the old anchor's. What
/// each month's end finds.
fn month_to_year(api: Api, at: i64) -> Vec<i64> {
    let db = plans();
    let mut c = db.connect();
    let year = (CREATED, month(12));
    c.stand_at(at);
    c.twice(&api.state(&subscribed("price_pro", 1).clocked(), CREATED));
    c.twice(&api.paid(&billed("in_0", CREATED, [whole(PRO, 1, period(0))]).clocked()));
    let lines = [credited(PRO, 1, period(0), at, "in_0"), charged(YEAR, 1, year, at)];
    c.twice(&api.paid(&billed("in_1", at, lines).clocked().mid_period()));
    c.twice(&api.state(&subscribed("price_pro_year", 1).during(year).clocked(), at));
    let balances = (0..12).map(|n| {
        c.stand_at(months_after(at, n));
        let balance = c.agreed_balance_and_debt(ANN).0;
        if balance > 0 {
            c.spend(ANN, balance, &format!("job-{n}"));
        }
        balance
    });
    let balances = balances.collect();
    c.stand_at(month(13));
    assert_eq!(c.agreed_balance_and_debt(ANN), (0, 0));
    balances
}

#[test]
fn scenario_71_a_year_instead_of_a_month_at_its_start_comes_in_whole_parts() {
    for api in Api::BOTH {
        assert_eq!(month_to_year(api, CREATED + 30), [10_000; 12]);
    }
}

#[test]
fn scenario_71_a_year_instead_of_a_month_in_its_middle_is_worth_its_time() {
    // 120,000 × (365 − 15.5) ÷ 365 = 114,904.1.
    let mut parts = [10_000; 12];
    parts[11] = 4_904;
    for api in Api::BOTH {
        assert_eq!(month_to_year(api, half()), parts);
    }
}

#[test]
fn scenario_72_prorations_of_nothing_under_a_whole_discount_count_as_with_money() {
    for (policy, up, down) in [("grant", 20_000, 10_000), ("ignore", 0, 0)] {
        let mut catalog = stripe_credits_tests::plans::plan_catalog();
        catalog["no_payment_required"] = policy.into();
        let db = Database::new();
        db.connect().load_catalog(&catalog);
        for api in Api::BOTH {
            let discounted = |invoice: Invoice| invoice.with("discounts", json!(["di_1"]));
            let free = |credit: (&str, i64), charge: (&str, i64), id: &str, at: i64, of: &str| {
                let credit = credited((credit.0, 0), 1, period(0), at, of);
                discounted(billed(id, at, [credit, charged((charge.0, 0), 1, period(0), at)]).mid_period())
            };
            let first = billed("in_0", CREATED, [whole(PRO, 1, period(0)).discounted(10_000)]);
            let events = [
                api.paid(&discounted(first)),
                api.paid(&free(PRO, MAX, "in_1", half(), "in_0")),
                api.paid(&free(MAX, PRO, "in_2", half(), "in_1")),
            ];
            in_every_order(&db, nothing, &events[..2], (up, 0));
            in_every_order(&db, nothing, &events, (down, 0));
        }
    }
}

#[test]
fn scenario_73_a_credit_for_what_nobody_paid_is_owed_and_a_loop_gains_nothing() {
    let db = plans();
    for api in Api::BOTH {
        let mut c = db.connect();
        c.run("begin");
        c.twice(&api.state(&subscribed("price_pro", 1), CREATED));
        c.twice(&api.paid(&billed("in_0", CREATED, [whole(PRO, 1, period(0))])));
        assert_eq!(c.spend(ANN, 10_000, "job").outcome, "applied");
        for n in 0..3 {
            let (span, middle) = (period(n), stripe_credits_tests::plans::middle(period(n)));
            c.twice(&api.state(&subscribed("price_max", 1).during(span), middle - 60));
            assert_eq!(c.balance_and_debt(ANN), (0, 0), "a status grants nothing");
            let down = [credited(MAX, 1, span, middle, "in_0"), charged(PRO, 1, span, middle)];
            c.twice(&api.paid(&billed(&format!("in_down_{n}"), middle, down).mid_period()));
            c.twice(&api.state(&subscribed("price_pro", 1).during(span), middle));
            assert_eq!(c.agreed_balance_and_debt(ANN), (0, 10_000), "month {n}");
            let renewed = billed(&format!("in_{}", n + 1), month(n + 1), [whole(PRO, 1, period(n + 1))]);
            c.twice(&api.paid(&renewed));
            assert_eq!(c.agreed_balance_and_debt(ANN), (0, 0), "month {n}");
        }
        c.run("rollback");
    }
}

#[test]
fn scenario_74_an_open_upgrade_that_was_downgraded_is_owed_until_it_is_paid() {
    let db = plans();
    for api in Api::BOTH {
        let mut c = db.connect();
        c.run("begin");
        let up = billed(
            "in_1",
            half(),
            [credited(PRO, 1, period(0), half(), "in_0"), charged(MAX, 1, period(0), half())],
        );
        let down = billed(
            "in_2",
            half() + 60,
            [credited(MAX, 1, period(0), half(), "in_1"), charged(PRO, 1, period(0), half())],
        );
        c.twice(&api.paid(&billed("in_0", CREATED, [whole(PRO, 1, period(0))])));
        c.twice(&up.clone().unpaid("open").event("evt_open", "payment_failed"));
        assert_eq!(c.spend(ANN, 10_000, "job").outcome, "applied");
        c.twice(&api.paid(&down));
        assert_eq!(c.agreed_balance_and_debt(ANN), (0, 10_000));
        c.twice(&api.paid(&up));
        assert_eq!(c.agreed_balance_and_debt(ANN), (0, 0));
        c.twice(
            &stripe_credits_tests::payments::invoice_payment("in_1", "pi_1")
                .event("evt_pi", "invoice_payment.paid"),
        );
        c.twice(&refund("re_1", "pi_1", 10_000).event("evt_re", "refund.created"));
        assert_eq!(c.agreed_balance_and_debt(ANN), (0, 10_000));
        c.run("rollback");
    }
}

#[test]
fn scenario_75_an_item_that_replaces_another_goes_on_with_its_stream() {
    let db = plans();
    for api in Api::BOTH {
        let mut replaced = subscribed("price_max", 1).json().clone();
        replaced["items"]["data"][0]["id"] = "si_2".into();
        let replaced = subscribed("price_max", 1).with("items", replaced["items"].clone());
        let change = invoice("in_1", "sub_1")
            .of(ANN)
            .line(credited(PRO, 1, period(0), half(), "in_0").item("si_1"))
            .line(charged(MAX, 1, period(0), half()).item("si_2"))
            .paid_at(half())
            .mid_period();
        let renewed = line("price_max", 30_000, period(1)).item("si_2");
        let renewed = invoice("in_2", "sub_1").of(ANN).line(renewed).paid_at(month(1));
        let events = [
            api.state(&subscribed("price_pro", 1), CREATED),
            api.paid(&billed("in_0", CREATED, [whole(PRO, 1, period(0))])),
            api.state(&replaced, half()),
            api.paid(&change),
        ];
        in_every_order(&db, nothing, &events, (20_000, 0));
        let mut c = db.connect();
        c.run("begin");
        for event in &events {
            c.twice(event);
        }
        c.twice(&api.paid(&renewed));
        assert_eq!(c.agreed_balance_and_debt(ANN), (30_000, 0));
        assert_eq!(c.ledger(ANN).last().map(String::as_str), Some("set_aside -20000"));
        c.run("rollback");
    }
}

#[test]
fn scenario_80_a_pause_keeps_the_credits_and_a_resumption_goes_by_its_lines() {
    let db = plans();
    for api in Api::BOTH {
        for new_anchor in [false, true] {
            let mut c = db.connect();
            c.run("begin");
            c.twice(&api.state(&subscribed("price_pro", 1), CREATED));
            c.twice(&api.paid(&billed("in_0", CREATED, [whole(PRO, 1, period(0))])));
            c.spend(ANN, 4_000, "job");
            c.twice(&api.state(&subscribed("price_pro", 1).status("paused"), CREATED + 86_400));
            assert_eq!((c.agreed_balance_and_debt(ANN), c.tier(ANN)), ((6_000, 0), "free paused".into()));
            let resumed = if new_anchor { (half(), months_after(half(), 1)) } else { period(0) };
            c.twice(&api.state(&subscribed("price_pro", 1).during(resumed), half()));
            assert_eq!((c.agreed_balance_and_debt(ANN), c.tier(ANN)), ((6_000, 0), "pro active".into()));
            if new_anchor {
                c.twice(&api.paid(&billed("in_1", half(), [whole(PRO, 1, resumed)])));
                assert_eq!(c.agreed_balance_and_debt(ANN), (10_000, 0));
            } else {
                c.twice(&api.paid(&billed("in_1", month(1), [whole(PRO, 1, period(1))])));
                assert_eq!(c.agreed_balance_and_debt(ANN), (10_000, 0));
            }
            c.run("rollback");
        }
    }
}
