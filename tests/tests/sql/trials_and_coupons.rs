//! Scenario 24: trials, coupons and first purchases: what is granted without money, and once per user.

use serde_json::{Value, json};
use stripe_credits_tests::stripe::CREATED;
use stripe_credits_tests::subscription::{
    Invoice, MAX, PRO, invoice, line, month, months_after, period, renewal, subscription,
};
use stripe_credits_tests::{ANN, Connection, Database, catalog};

/// The catalog with fields of its first plan, pro, set.
fn pro_with(fields: &Value) -> Value {
    let mut catalog = catalog();
    for (field, value) in fields.as_object().expect("fields") {
        catalog["plans"][0][field] = value.clone();
    }
    catalog
}

const DAY: i64 = 86_400;

/// The 30 days of a trial that runs since ten days.
fn running(c: &mut Connection) -> (i64, i64) {
    let start = c.unix_now() - 10 * DAY;
    (start, start + 30 * DAY)
}

/// The invoice of $0 that Stripe makes when a trial of pro starts.
fn trial_invoice(invoice_id: &str, subscription_id: &str, span: (i64, i64)) -> Invoice {
    invoice(invoice_id, subscription_id)
        .with("billing_reason", "subscription_create")
        .line(line("price_pro", 0, span))
        .paid_at(span.0)
}

#[test]
fn scenario_24_a_trial_grants_nothing_by_default_and_the_first_real_invoice_all() {
    let db = Database::with_catalog();
    let mut c = db.connect();
    let trialing = subscription("sub_1", "price_pro").of(ANN).trial(period(0));
    c.twice(&trialing.created("evt_created"));
    let free = trial_invoice("in_0", "sub_1", period(0));
    assert_eq!(c.twice(&free.paid("evt_free")), "ignored nothing_paid");
    assert_eq!((c.agreed_balance_and_debt(ANN), c.tier(ANN)), ((0, 0), "pro trialing".into()));
    c.twice(&renewal("in_1", "sub_1", PRO, 1).paid("evt_paid_1"));
    c.twice(&trialing.status("active").during(period(1)).updated("evt_active", month(1)));
    assert_eq!((c.agreed_balance_and_debt(ANN), c.tier(ANN)), ((10_000, 0), "pro active".into()));
    assert_eq!(c.ledger(ANN), ["subscription_grant 10000"]);
}

#[test]
fn scenario_24_trial_credits_are_granted_and_reset_by_the_first_real_invoice() {
    let db = Database::new();
    let mut c = db.connect();
    c.load_catalog(&pro_with(&json!({"trial_credits": 300})));
    let span = running(&mut c);
    let trialing = subscription("sub_1", "price_pro").of(ANN).trial(span);
    c.twice(&trialing.event("evt_created", "created", span.0));
    assert_eq!(c.twice(&trial_invoice("in_0", "sub_1", span).paid("evt_free")), "applied");
    assert_eq!(c.settled_balance_and_debt(ANN), (300, 0));
    c.spend(ANN, 100, "job-1");
    c.advance_time(ANN, "21 days");
    assert_eq!(c.settled_balance_and_debt(ANN), (0, 0), "trial credits lapse with their line");
    let first = line("price_pro", 10_000, (span.1, months_after(span.1, 1)));
    c.twice(&invoice("in_1", "sub_1").line(first).paid_at(span.1).paid("evt_paid_1"));
    assert_eq!(c.settled_balance_and_debt(ANN), (10_000, 0));
    assert_eq!(
        c.ledger(ANN),
        ["subscription_grant 300", "spend -100", "expiry -200", "subscription_grant 10000"]
    );
}

#[test]
fn scenario_24_trial_credits_end_when_the_trial_is_cut_short_by_a_paid_period() {
    let db = Database::new();
    let mut c = db.connect();
    c.load_catalog(&pro_with(&json!({"trial_credits": 300})));
    let span = running(&mut c);
    c.twice(&trial_invoice("in_0", "sub_1", span).of(ANN).paid("evt_free"));
    c.spend(ANN, 100, "job-1");
    let cut = span.0 + 5 * DAY;
    let first = line("price_pro", 10_000, (cut, months_after(cut, 1)));
    c.twice(&invoice("in_1", "sub_1").line(first).paid_at(cut).paid("evt_paid_1"));
    assert_eq!(c.settled_balance_and_debt(ANN), (10_000, 0));
    assert_eq!(
        c.ledger(ANN),
        ["subscription_grant 300", "spend -100", "subscription_grant 10000", "expiry -200"]
    );
}

#[test]
fn scenario_24_trial_credits_come_once_per_user() {
    let db = Database::new();
    let mut c = db.connect();
    c.load_catalog(&pro_with(&json!({"trial_credits": 300})));
    let first = running(&mut c);
    for (sub, days_later) in [("sub_1", 0), ("sub_2", 1)] {
        let span = (first.0 + days_later * DAY, first.1 + days_later * DAY);
        let trialing = subscription(sub, "price_pro").of(ANN).trial(span);
        c.twice(&trialing.event(&format!("evt_{sub}"), "created", span.0));
        let free = trial_invoice(&format!("in_{sub}"), sub, span);
        c.twice(&free.paid(&format!("evt_free_{sub}")));
        c.twice(&trialing.deleted(&format!("evt_end_{sub}"), span.0 + 100));
    }
    assert_eq!(c.ledger(ANN), ["subscription_grant 300"]);
    assert_eq!(c.settled_balance_and_debt(ANN), (300, 0));
}

#[test]
fn scenario_24_a_trial_invoice_grants_the_same_before_and_after_any_status() {
    let db = Database::new();
    let mut c = db.connect();
    c.load_catalog(&pro_with(&json!({"trial_credits": 300})));
    let span = running(&mut c);
    let free = trial_invoice("in_0", "sub_1", span).of(ANN).paid("evt_free");
    let state = subscription("sub_1", "price_pro").of(ANN).trial(span);
    for status in ["trialing", "active", "incomplete", "past_due", "paused", "canceled"] {
        let told = state.clone().status(status).event("evt_state", "updated", span.0 + DAY);
        for events in [[&free, &told], [&told, &free]] {
            c.run("begin");
            for event in events {
                c.twice(event);
            }
            assert_eq!(c.inbox("evt_free").as_deref(), Some("applied"), "{status}");
            assert_eq!(c.balance_and_debt(ANN), (300, 0), "{status}");
            assert_eq!(c.ledger(ANN), ["subscription_grant 300"], "{status}");
            c.run("rollback");
        }
    }
}

#[test]
fn scenario_24_a_coupon_of_100_percent_grants_and_under_the_other_policy_does_not() {
    for (policy, expected, credits) in [("grant", "applied", 10_000), ("ignore", "ignored nothing_paid", 0)] {
        let db = Database::new();
        let mut c = db.connect();
        let mut catalog = catalog();
        catalog["no_payment_required"] = policy.into();
        c.load_catalog(&catalog);
        c.twice(&subscription("sub_1", "price_pro").of(ANN).created("evt_created"));
        let free = invoice("in_0", "sub_1").line(line("price_pro", 10_000, period(0)).discounted(10_000));
        assert_eq!(free.json()["total"], 0);
        for (id, free) in [("evt_1", free.clone()), ("evt_2", free.older())] {
            let now = c.apply(&free.paid(id)).summary();
            if id == "evt_1" {
                assert_eq!(now, expected);
            }
        }
        assert_eq!(c.agreed_balance_and_debt(ANN), (credits, 0), "{policy}");
    }
}

#[test]
fn scenario_24_a_coupon_inside_a_trials_time_is_no_trial() {
    // The first user's trial and another user's 100 % coupon look alike by their totals only.
    let db = Database::with_catalog();
    let mut c = db.connect();
    c.twice(&subscription("sub_1", "price_pro").of(ANN).trial(period(0)).created("evt_created"));
    let free = invoice("in_0", "sub_1").line(line("price_pro", 10_000, period(0)).discounted(10_000));
    assert_eq!(c.twice(&free.paid("evt_free")), "applied");
    assert_eq!(c.ledger(ANN), ["subscription_grant 10000"]);
}

#[test]
fn the_first_purchases_bonus_comes_once_per_user_with_whichever_invoice_is_first() {
    let db = Database::new();
    let mut c = db.connect();
    c.load_catalog(&pro_with(&json!({"first_purchase_bonus": 700})));
    c.twice(&subscription("sub_1", "price_pro").of(ANN).created("evt_created"));
    c.twice(&renewal("in_0", "sub_1", PRO, 0).paid("evt_paid_0"));
    assert_eq!(c.ledger(ANN), ["subscription_grant 10000", "bonus 700"]);
    c.twice(&renewal("in_1", "sub_1", PRO, 1).paid("evt_paid_1"));
    assert_eq!(c.agreed_balance_and_debt(ANN), (10_700, 0));
    let bonuses = c.ledger(ANN).iter().filter(|row| row.starts_with("bonus")).count();
    assert_eq!(bonuses, 1);
}

#[test]
fn the_first_purchase_is_the_one_that_turns_out_to_be_the_earliest_however_long_ago() {
    let db = Database::new();
    let mut c = db.connect();
    let mut catalog = pro_with(&json!({"first_purchase_bonus": 700}));
    catalog["plans"][1]["first_purchase_bonus"] = json!(100);
    c.load_catalog(&catalog);
    c.twice(&subscription("sub_1", PRO.0).of(ANN).created("evt_created"));
    c.twice(&subscription("sub_2", MAX.0).of(ANN).with("customer", "cus_2").created("evt_created_2"));
    // Neither says when it was paid, so that the earliest event that says it was does.
    let paid_by = |invoice: Invoice, id: &str, at: i64| {
        invoice.with("status_transitions", json!({ "paid_at": null })).paid(id).with("created", at)
    };
    let (pro, max) = (renewal("in_pro", "sub_1", PRO, 0), renewal("in_max", "sub_2", MAX, 0).of(ANN));
    c.twice(&paid_by(pro, "evt_pro", CREATED + 100));
    c.twice(&paid_by(max.clone(), "evt_max", CREATED + 200));
    let year = |n| renewal(&format!("in_{n}"), "sub_1", PRO, n).paid(&format!("evt_{n}"));
    for n in 1..12 {
        c.twice(&year(n));
    }
    let bonus = |c: &mut Connection| {
        let held = "select amount from billing.credit_grants where source_id = 'first_purchase_bonus'";
        c.one::<i64>(held, &[])
    };
    assert_eq!(bonus(&mut c), 700);
    c.twice(&paid_by(max, "evt_max_earlier", CREATED + 50));
    assert_eq!(bonus(&mut c), 100);
    c.twice(&year(12));
    assert_eq!((bonus(&mut c), c.faults()), (100, Vec::new()));
    assert_eq!(c.ledger(ANN).iter().filter(|row| row.starts_with("bonus")).count(), 1);
}
