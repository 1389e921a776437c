//! Scenario 24: trials, coupons and first purchases: what is granted without money, and once per user.

use serde_json::{Value, json};
use stripe_credits_tests::stripe::CREATED;
use stripe_credits_tests::subscription::{PRO, fetched, invoice, line, month, period, renewal, subscription};
use stripe_credits_tests::{ANN, Database, catalog, nothing_fetched};

/// The catalog with fields of its first plan, pro, set.
fn pro_with(fields: &Value) -> Value {
    let mut catalog = catalog();
    for (field, value) in fields.as_object().expect("fields") {
        catalog["plans"][0][field] = value.clone();
    }
    catalog
}

#[test]
fn scenario_24_a_trial_grants_nothing_by_default_and_the_first_real_invoice_all() {
    let db = Database::with_catalog();
    let mut c = db.connect();
    let trialing = subscription("sub_1", "price_pro").of(ANN).trial(period(0));
    c.twice(&trialing.created("evt_created"));
    let free = invoice("in_0", "sub_1").with("billing_reason", "subscription_create").line(line(
        "price_pro",
        0,
        period(0),
    ));
    assert_eq!(c.twice(&free.paid("evt_free")), "ignored trial");
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
    let trialing = subscription("sub_1", "price_pro").of(ANN).trial(period(0));
    c.twice(&trialing.created("evt_created"));
    let free = invoice("in_0", "sub_1").line(line("price_pro", 0, period(0)));
    assert_eq!(c.twice(&free.paid("evt_free")), "applied");
    assert_eq!(c.agreed_balance_and_debt(ANN), (300, 0));
    c.spend(ANN, 100, "job-1");
    c.twice(&renewal("in_1", "sub_1", PRO, 1).paid("evt_paid_1"));
    assert_eq!(c.agreed_balance_and_debt(ANN), (10_000, 0));
    assert_eq!(
        c.ledger(ANN),
        ["subscription_grant 300", "spend -100", "subscription_grant 10000", "set_aside -200"]
    );
}

#[test]
fn scenario_24_trial_credits_come_once_per_user() {
    let db = Database::new();
    let mut c = db.connect();
    c.load_catalog(&pro_with(&json!({"trial_credits": 300})));
    for (n, sub) in ["sub_1", "sub_2"].into_iter().enumerate() {
        let span = period(u32::try_from(n).expect("small"));
        let trialing = subscription(sub, "price_pro").of(ANN).trial(span);
        c.twice(&trialing.event(&format!("evt_{sub}"), "created", span.0));
        let free = invoice(&format!("in_{sub}"), sub).line(line("price_pro", 0, span)).paid_at(span.0);
        c.twice(&free.paid(&format!("evt_free_{sub}")));
        c.twice(&trialing.deleted(&format!("evt_end_{sub}"), span.0 + 100));
    }
    assert_eq!(c.ledger(ANN), ["subscription_grant 300"]);
    assert_eq!(c.agreed_balance_and_debt(ANN), (300, 0));
}

#[test]
fn scenario_24_a_trial_invoice_before_its_subscription_asks_stripe_about_it() {
    let db = Database::new();
    let mut c = db.connect();
    c.load_catalog(&pro_with(&json!({"trial_credits": 300})));
    let trialing = subscription("sub_1", "price_pro").of(ANN).trial(period(0));
    let free = invoice("in_0", "sub_1").of(ANN).line(line("price_pro", 0, period(0))).paid("evt_free");
    let asked = c.apply(&free);
    assert_eq!(asked.summary(), "needs_fetch");
    assert_eq!(asked.to_fetch, Some(vec!["/v1/subscriptions/sub_1".into()]));
    assert_eq!(c.ledger(ANN), [""; 0]);
    let answer = fetched(CREATED + 5, &[trialing.json()]);
    assert_eq!(c.apply_fetched(&free, &answer).summary(), "applied");
    assert_eq!(c.ledger(ANN), ["subscription_grant 300"]);
}

#[test]
fn scenario_24_a_trial_invoice_parked_unfetched_applies_with_its_subscription() {
    let db = Database::new();
    let mut c = db.connect();
    c.load_catalog(&pro_with(&json!({"trial_credits": 300})));
    let trialing = subscription("sub_1", "price_pro").of(ANN).trial(period(0));
    let free = invoice("in_0", "sub_1").of(ANN).line(line("price_pro", 0, period(0))).paid("evt_free");
    assert_eq!(c.apply_fetched(&free, &nothing_fetched()).summary(), "parked unfetched");
    c.apply(&trialing.created("evt_created"));
    assert_eq!(c.ledger(ANN), ["subscription_grant 300"]);
    assert_eq!(c.inbox("evt_free").as_deref(), Some("applied"));
}

#[test]
fn scenario_24_a_coupon_of_100_percent_grants_and_under_the_other_policy_does_not() {
    for (policy, expected, credits) in
        [("grant", "applied", 10_000), ("ignore", "ignored no_payment_required", 0)]
    {
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
