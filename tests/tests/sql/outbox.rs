//! What the app is told: a row of the outbox in the transaction that caused it, in the order of each user's account, and
//! none where there is nothing to tell.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use stripe_credits_tests::plans::{Clocked, clock_at, plan_database};
use stripe_credits_tests::refunds::{dispute, failed, refunded};
use stripe_credits_tests::seeds::Rng;
use stripe_credits_tests::subscription::{PRO, invoice, line, month, period, subscription};
use stripe_credits_tests::told::catalog_with_low_credits;
use stripe_credits_tests::{ANN, BOB, Connection, Database, catalog, paid_pack, session, user};
use uuid::Uuid;

/// Whose rows are about no user.
const NOBODY: Uuid = Uuid::nil();

fn low(thresholds: &[i64]) -> Database {
    let db = Database::new();
    db.connect().load_catalog(&catalog_with_low_credits(thresholds));
    db
}

fn texts<'a>(data: &'a Value, keys: &[&str]) -> Vec<&'a str> {
    keys.iter().map(|key| data.pointer(key).and_then(Value::as_str).unwrap_or("(none)")).collect()
}

// What is told.

#[test]
fn a_purchase_tells_what_it_granted_and_the_account_after_it() {
    let db = Database::with_catalog();
    let mut c = db.connect();
    let pack = paid_pack("cs_1", ANN);
    assert_eq!(c.apply(&pack.completed("evt_1")).summary(), "applied");
    assert_eq!(c.apply(&pack.completed("evt_1")).summary(), "already_applied");
    assert_eq!(c.reconcile(&pack, ANN).summary(), "already_applied");
    assert_eq!(c.told(ANN), ["credits.granted"], "once, by whatever way it came");
    let data = &c.told_data(ANN, "credits.granted")[0];
    assert_eq!(data["credits"], 500);
    assert_eq!(data["transactions"].as_array().map(Vec::len), Some(1));
    let row = &data["transactions"][0];
    let keys = ["/transaction_type", "/pool", "/stripe_event_id", "/stripe_checkout_session_id"];
    assert_eq!(texts(row, &keys), ["purchase", "purchased", "evt_1", "cs_1"]);
    assert_eq!((&row["transaction_id"], &row["amount"]), (&json!(1), &json!(500)));
    let account = json!({
        "subscription_tier": "free", "subscription_status": "none", "credits_balance": 500,
        "subscription_credits_balance": 0, "purchased_credits_balance": 500, "promotional_credits_balance": 0,
        "debt": 0,
    });
    assert_eq!(data["account"], account);
}

#[test]
fn what_is_given_is_told_and_what_is_spent_returned_or_reserved_is_not() {
    let db = Database::with_catalog();
    let mut c = db.connect();
    c.sign_up(ANN);
    c.grant(ANN, 50, "gift");
    c.import_balance(ANN, "purchased", 100, "old system");
    c.adjust(ANN, 5, "up");
    assert_eq!(c.told(ANN), ["credits.granted"; 4]);
    assert_eq!(
        c.told_data(ANN, "credits.granted").iter().map(|data| data["credits"].as_i64()).sum::<Option<i64>>(),
        Some(655)
    );
    c.spend(ANN, 10, "job");
    c.refund_spend(ANN, "job", "back", None);
    c.reserve(ANN, 10, "hold");
    c.commit(ANN, "hold", Some(4));
    c.adjust(ANN, -1, "down");
    assert_eq!(c.spend(ANN, 10_000, "too much").summary(), "rejected insufficient_credits");
    assert_eq!(c.told(ANN).len(), 4);
}

#[test]
fn what_is_rolled_back_was_not_told() {
    let db = Database::with_catalog();
    let mut c = db.connect();
    c.run("begin");
    c.buy(ANN, "cs_1");
    assert_eq!(c.told(ANN).len(), 1);
    c.run("rollback");
    assert!(c.told(ANN).is_empty());
    c.buy(ANN, "cs_1");
    assert_eq!(c.one::<i64>("select last_outbox_id from billing.accounts", &[]), 1);
}

#[test]
fn money_back_is_told_as_reversed_and_a_reversal_that_is_undone_as_granted() {
    let db = Database::with_catalog();
    let mut c = db.connect();
    c.buy(ANN, "cs_1");
    c.spend(ANN, 300, "job");
    c.apply(&refunded("re_1", "pi_1", 1000));
    assert_eq!(c.told(ANN), ["credits.granted", "credits.reversed", "credits.exhausted"]);
    let reversed = &c.told_data(ANN, "credits.reversed")[0];
    assert_eq!(
        (&reversed["credits"], &reversed["account"]["debt"]),
        (&json!(500), &json!(300)),
        "debt included"
    );
    c.apply(&failed("re_1", "pi_1", 1000));
    assert_eq!(c.told(ANN)[3..], ["credits.granted"]);
    let granted = &c.told_data(ANN, "credits.granted")[1];
    assert_eq!((&granted["credits"], &granted["account"]["debt"]), (&json!(500), &json!(0)));
    assert_eq!(texts(granted, &["/transactions/0/transaction_type"]), ["reinstatement"]);
    let lost = dispute("du_1", "pi_1", 500, "lost").event("evt_lost", "charge.dispute.closed");
    assert_eq!(c.apply(&lost).summary(), "applied");
    assert_eq!(c.told_data(ANN, "credits.reversed")[1]["credits"], 250);
}

#[test]
fn a_subscriptions_life_is_told_as_it_changes() {
    let db = plan_database(&json!({}));
    let mut c = db.connect();
    let pro = subscription("sub_1", PRO.0).of(ANN).during(period(0)).clocked();
    c.apply(&clock_at(month(0)));
    c.apply(&pro.created("evt_1"));
    let paid =
        invoice("in_1", "sub_1").of(ANN).line(line(PRO.0, PRO.1, period(0))).paid_at(month(0)).clocked();
    c.apply(&paid.paid("evt_2"));
    assert_eq!(c.told(ANN), ["subscription.changed", "credits.granted"]);
    let changed = &c.told_data(ANN, "subscription.changed")[0];
    let keys = [
        "/subscription/stripe_subscription_id",
        "/subscription/tier",
        "/subscription/status",
        "/subscription/stripe_price_id",
        "/previous/subscription_tier",
        "/account/subscription_tier",
    ];
    assert_eq!(texts(changed, &keys), ["sub_1", "pro", "active", PRO.0, "free", "pro"]);
    assert_eq!(c.apply(&pro.created("evt_1")).summary(), "already_applied");
    let ending = pro.clone().with("cancel_at_period_end", true);
    c.apply(&ending.updated("evt_3", month(0) + 60));
    let changed = &c.told_data(ANN, "subscription.changed")[1];
    assert_eq!(
        (&changed["subscription"]["cancel_at_period_end"], &changed["previous"]),
        (&json!(true), &Value::Null)
    );
    c.apply(&ending.ended(month(1)).deleted("evt_4", month(1)));
    let changed = &c.told_data(ANN, "subscription.changed")[2];
    assert_eq!(
        texts(changed, &["/previous/subscription_tier", "/account/subscription_tier"]),
        ["pro", "free"]
    );
    assert_eq!(c.told(ANN).len(), 4, "{:?}", c.told(ANN));
}

#[test]
fn a_subscription_that_moves_is_told_to_both_users() {
    let db = plan_database(&json!({}));
    let mut c = db.connect();
    c.apply(&subscription("sub_1", PRO.0).of(ANN).during(period(0)).created("evt_1"));
    assert_eq!(c.attribute("sub_1", BOB).summary(), "applied");
    let (left, came) = (c.told_data(ANN, "subscription.changed"), c.told_data(BOB, "subscription.changed"));
    assert_eq!((left.len(), came.len()), (2, 1));
    assert_eq!(
        texts(&left[1], &["/previous/subscription_tier", "/account/subscription_tier"]),
        ["pro", "free"]
    );
    assert_eq!(left[1]["subscription"], Value::Null, "it is another user's");
    assert_eq!(
        texts(&came[0], &["/subscription/stripe_subscription_id", "/account/subscription_tier"]),
        ["sub_1", "pro"]
    );
}

#[test]
fn a_payment_that_waits_is_told_once_and_again_when_it_is_applied() {
    let db = Database::with_catalog();
    let mut c = db.connect();
    let pack = session("cs_1").metadata("price_id", "price_pack").with("customer", "cus_1");
    for _ in 0..3 {
        assert_eq!(c.apply(&pack.completed("evt_1")).summary(), "parked unknown_user");
    }
    assert_eq!(c.told(NOBODY), ["payment.parked"], "however often Stripe sends it");
    let parked = &c.told_data(NOBODY, "payment.parked")[0];
    let keys = ["/stripe_event_id", "/stripe_object_id", "/stripe_customer_id", "/reason"];
    assert_eq!(texts(parked, &keys), ["evt_1", "cs_1", "cus_1", "unknown_user"]);
    c.attribute("cus_1", ANN);
    assert_eq!(c.told(ANN), ["credits.granted", "payment.applied_late"]);
    let late = &c.told_data(ANN, "payment.applied_late")[0];
    assert_eq!(texts(late, &keys[..3]), ["evt_1", "cs_1", "cus_1"]);
    assert_eq!((&late["credits"], &late["account"]["credits_balance"]), (&json!(500), &json!(500)));
    assert_eq!(c.apply(&pack.completed("evt_1")).summary(), "already_applied");
    assert_eq!((c.told(ANN).len(), c.told(NOBODY).len()), (2, 1));
}

#[test]
fn a_payment_that_waited_is_told_however_it_came_to_be_applied() {
    let db = Database::with_catalog();
    let mut c = db.connect();
    let pack = |n: u128| paid_pack(&format!("cs_{n}"), user(n)).metadata("price_id", "price_new");
    for n in 0..2 {
        assert_eq!(c.apply(&pack(n).completed(&format!("evt_{n}"))).summary(), "parked unknown_price");
    }
    assert_eq!(c.told_data(NOBODY, "payment.parked")[0]["missing_prices"], json!(["price_new"]));
    let mut with_new = catalog();
    with_new["packs"][0]["prices"] = json!(["price_pack", "price_new"]);
    // The second is redelivered after it was reconciled, and before a retry: then there is nothing left to apply.
    c.run("begin");
    c.load_catalog(&with_new);
    assert_eq!(c.told(user(0)), ["credits.granted", "payment.applied_late"], "by the catalog");
    c.run("rollback");
    c.run("update billing.prices set price_id = 'price_new' where price_id = 'price_pack'");
    assert_eq!(c.reconcile(&pack(1), user(1)).summary(), "applied");
    assert_eq!(c.apply(&pack(0).completed("evt_0")).summary(), "applied");
    assert_eq!(c.told(user(0)), ["credits.granted", "payment.applied_late"], "by a redelivery");
    assert_eq!(c.apply(&pack(1).completed("evt_1")).summary(), "already_applied");
    assert_eq!(c.told(user(1)), ["credits.granted", "payment.applied_late"], "by a reconcile");
    assert_eq!(c.told_data(user(1), "payment.applied_late")[0]["credits"], 0, "they were granted before");
}

#[test]
fn credits_that_expire_soon_are_told_once_by_run_due() {
    let db = Database::new();
    let mut c = db.connect();
    let mut catalog = catalog();
    catalog["expiring_days"] = json!(7);
    catalog["free_plan"] = json!({ "key": "free", "credits": 5, "every": "5 days" });
    c.load_catalog(&catalog);
    c.sign_up(ANN);
    c.grant_for_days(ANN, 10, "soon", 3);
    c.grant_for_days(ANN, 20, "sooner", 2);
    c.grant_for_days(ANN, 30, "much later", 40);
    c.grant_for_days(BOB, 40, "later", 8);
    c.run_due();
    assert_eq!(c.run_due(), 0, "once");
    let told = c.told_data(ANN, "credits.expiring");
    assert_eq!(told.len(), 1);
    assert_eq!(told[0]["credits"], 30, "without the free plan's, which the next month replaces");
    let grants = told[0]["grants"].as_array().expect("grants");
    assert_eq!(grants.iter().map(|grant| grant["credits"].as_i64()).collect::<Vec<_>>().len(), 2);
    assert!(grants.iter().all(|grant| grant["expires_at"].is_string() && grant["pool"] == "promotional"));
    assert!(c.told_data(BOB, "credits.expiring").is_empty());
    c.advance_time(BOB, "2 days");
    c.run_due();
    assert_eq!(c.told_data(BOB, "credits.expiring")[0]["credits"], 40, "by the user's own clock");
    c.grant_for_days(ANN, 50, "another", 1);
    assert_eq!(c.run_due(), 1);
    assert_eq!(c.told_data(ANN, "credits.expiring")[1]["credits"], 50, "only what was not told before");
    c.expire_grants(ANN, "grant:another");
    c.run_due();
    assert_eq!(c.told_data(ANN, "credits.expiring").len(), 2);
}

// Thresholds.

#[test]
fn a_balance_that_falls_is_told_once_a_crossing_and_again_after_it_rose_above() {
    let db = low(&[100, 10]);
    let mut c = db.connect();
    c.grant(ANN, 200, "gift");
    let mut number = 0;
    let mut spend = |c: &mut Connection, amount| {
        number += 1;
        assert_eq!(c.spend(ANN, amount, &format!("job-{number}")).summary(), "applied");
    };
    spend(&mut c, 99);
    assert_eq!(c.told(ANN), ["credits.granted"], "101 are left");
    spend(&mut c, 1);
    spend(&mut c, 1);
    assert_eq!(c.told(ANN)[1..], ["credits.low"]);
    let data = &c.told_data(ANN, "credits.low")[0];
    assert_eq!(
        (&data["threshold"], &data["crossed"], &data["balance_before"]),
        (&json!(100), &json!([100]), &json!(101))
    );
    assert_eq!(data["account"]["credits_balance"], 100);
    c.grant(ANN, 500, "more");
    spend(&mut c, 590);
    assert_eq!(c.told(ANN)[2..], ["credits.granted", "credits.low"], "armed again by the rise");
    let data = &c.told_data(ANN, "credits.low")[1];
    assert_eq!(
        (&data["threshold"], &data["crossed"]),
        (&json!(10), &json!([100, 10])),
        "one of the two at once"
    );
    spend(&mut c, 9);
    assert_eq!(c.told(ANN)[4..], ["credits.exhausted"]);
    assert_eq!(c.spend(ANN, 1, "none").summary(), "rejected insufficient_credits");
    assert_eq!(c.told(ANN).len(), 5);
}

#[test]
fn a_reservation_and_an_expiry_cross_as_a_spend_does() {
    let db = low(&[100]);
    let mut c = db.connect();
    c.grant(ANN, 150, "gift");
    c.reserve(ANN, 60, "hold");
    assert_eq!(c.told(ANN)[1..], ["credits.low"]);
    c.release(ANN, "hold");
    c.reserve(ANN, 60, "again");
    assert_eq!(c.told(ANN)[2..], ["credits.low"], "the release armed it again");
    c.grant_for_days(BOB, 150, "gift", 1);
    c.expire_grants(BOB, "grant:gift");
    assert_eq!(c.told(BOB), ["credits.granted"], "until it is posted");
    c.run_due();
    assert_eq!(c.told(BOB), ["credits.granted", "credits.exhausted"]);
}

#[test]
fn a_renewal_that_sets_aside_what_is_left_crosses_nothing() {
    let db = plan_database(&json!({ "low_credits": [5000] }));
    let mut c = db.connect();
    c.apply(&clock_at(month(0)));
    c.apply(&subscription("sub_1", PRO.0).of(ANN).during(period(0)).clocked().created("evt_1"));
    for n in 0..2 {
        c.apply(&clock_at(month(n)));
        let paid = invoice(&format!("in_{n}"), "sub_1")
            .of(ANN)
            .line(line(PRO.0, PRO.1, period(n)))
            .paid_at(month(n));
        assert_eq!(c.apply(&paid.clocked().paid(&format!("evt_in_{n}"))).summary(), "applied");
        c.run_due();
    }
    assert_eq!(c.balance(ANN), 10_000);
    let told = c.told(ANN);
    assert!(!told.iter().any(|told| told == "credits.low" || told == "credits.exhausted"), "{told:?}");
}

#[test]
fn a_plan_has_thresholds_of_its_own() {
    let mut plans = stripe_credits_tests::plans::plan_catalog()["plans"].clone();
    for plan in plans.as_array_mut().expect("plans") {
        if plan["key"] == "pro" {
            plan["low_credits"] = json!([9000]);
        }
    }
    let mut catalog = stripe_credits_tests::plans::plan_catalog();
    (catalog["low_credits"], catalog["plans"]) = (json!([100]), plans);
    let db = Database::new();
    let mut c = db.connect();
    c.load_catalog(&catalog);
    c.grant(BOB, 20_000, "gift");
    c.grant(ANN, 20_000, "gift");
    c.apply(&subscription("sub_1", PRO.0).of(ANN).during(period(0)).created("evt_1"));
    for user in [ANN, BOB] {
        c.spend(user, 15_000, "job");
    }
    assert_eq!(c.told_data(ANN, "credits.low")[0]["threshold"], 9000);
    assert!(c.told_data(BOB, "credits.low").is_empty());
    c.spend(BOB, 4950, "more");
    assert_eq!(c.told_data(BOB, "credits.low")[0]["threshold"], 100);
}

/// What is told of a history of balances, by the plainest computation: each threshold is armed while the balance is above it.
fn plainly(thresholds: &[i64], balances: &[i64]) -> Vec<String> {
    let mut armed: BTreeMap<i64, bool> =
        thresholds.iter().chain(&[0]).map(|threshold| (*threshold, false)).collect();
    let mut told = Vec::new();
    for balance in balances {
        let mut fired = Vec::new();
        for (threshold, armed) in &mut armed {
            if *balance > *threshold {
                *armed = true;
            } else if std::mem::take(armed) {
                fired.push(*threshold);
            }
        }
        match fired.first() {
            Some(0) => told.push("exhausted".to_owned()),
            Some(lowest) => told.push(format!("low {lowest}")),
            None => {}
        }
    }
    told
}

#[test]
fn any_history_tells_each_crossing_once() {
    let thresholds = [1000, 400, 100, 7];
    let db = low(&thresholds);
    let mut c = db.connect();
    for seed in 0..6 {
        let mut rng = Rng::new(seed);
        let user = user(u128::from(seed) + 100);
        let mut balances = Vec::new();
        for step in 0..80 {
            let id = format!("step-{step}");
            let balance = c.balance(user);
            let of_it = |rng: &mut Rng| if rng.once_in(5) { balance } else { rng.between(1, balance.max(1)) };
            match rng.below(6) {
                choice if balance == 0 && choice != 2 && choice != 3 => {
                    drop(c.grant(user, rng.between(1, 1500), &id));
                }
                0 => drop(c.grant(user, rng.between(1, 1500), &id)),
                1 => drop(c.reserve(user, of_it(&mut rng), &id)),
                2 => drop(c.release(user, &format!("step-{}", rng.below(step + 1)))),
                3 => drop(c.refund_spend(user, &format!("step-{}", rng.below(step + 1)), &id, None)),
                _ => drop(c.spend(user, of_it(&mut rng), &id)),
            }
            balances.push(c.balance(user));
        }
        let told: Vec<String> = c.column(
            "select replace(concat_ws(' ', type, data ->> 'threshold'), 'credits.', '') from billing.outbox
             where user_id = $1 and type in ('credits.low', 'credits.exhausted') order by id",
            &[&user],
        );
        assert!(!told.is_empty());
        assert_eq!(told, plainly(&thresholds, &balances), "seed {seed}: {balances:?}");
    }
}

#[test]
fn a_spend_that_crosses_nothing_does_what_it_did_without_thresholds() {
    let accesses = |db: &Database| {
        let mut c = db.connect();
        c.grant(ANN, 1000, "gift");
        // The first ones of a connection read the settings, which it keeps from then on.
        for n in 0..3 {
            c.spend(ANN, 1, &format!("warm-{n}"));
        }
        c.run("begin");
        let before = table_accesses(&mut c);
        c.spend(ANN, 5, "counted");
        let mut counted = table_accesses(&mut c);
        c.run("commit");
        for (table, count) in &mut counted {
            *count -= before.get(table).unwrap_or(&0);
        }
        counted.retain(|_, count| *count > 0);
        counted
    };
    let without = accesses(&low(&[]));
    assert_eq!(accesses(&low(&[900, 100])), without);
    let tables: Vec<&str> = without.keys().map(String::as_str).collect();
    assert_eq!(tables, ["accounts", "credit_grants", "credit_transactions"], "{without:?}");
}

/// How often each table was read or written by the transactions of this connection that are not reported yet: of an open
/// transaction only the difference counts.
fn table_accesses(c: &mut Connection) -> BTreeMap<String, i64> {
    let counted = "select relname::text, seq_scan + coalesce(idx_scan, 0) + n_tup_ins + n_tup_upd + n_tup_del
         from pg_stat_xact_user_tables where schemaname = 'billing'";
    let rows = c.query(counted, &[]).expect("the statistics");
    rows.iter().map(|row| (row.get(0), row.get(1))).collect()
}

// Delivery.

#[test]
fn rows_are_claimed_in_the_order_of_each_user_and_once_a_lease() {
    let db = Database::with_catalog();
    let (mut one, mut other) = (db.connect(), db.connect());
    for n in 0..3 {
        one.grant(ANN, 10, &format!("gift-{n}"));
        one.grant(BOB, 10, &format!("gift-{n}"));
    }
    let claimed = one.claim(100);
    assert_eq!(claimed.iter().map(|(_, id, ..)| *id).collect::<Vec<_>>(), [1, 1], "the first of each");
    assert!(other.claim(100).is_empty(), "the others wait for these, and these are claimed");
    let ann = claimed.iter().find(|(user, ..)| *user == ANN).expect("ANN's").clone();
    assert!(one.delivered(&ann));
    assert_eq!(other.claim(100), [(ANN, 2, "credits.granted".to_owned(), 1)]);
    assert!(!one.delivered(&ann), "it was recorded before");
}

#[test]
fn a_failed_delivery_is_tried_again_later_and_holds_up_only_its_own_user() {
    let db = Database::with_catalog();
    let mut c = db.connect();
    c.grant(ANN, 10, "gift-1");
    c.grant(ANN, 10, "gift-2");
    let first = c.claim(100).remove(0);
    assert!(c.failed(&first, Some(3600.0)));
    c.grant(BOB, 10, "gift");
    assert_eq!(c.claim(1), [(BOB, 1, "credits.granted".to_owned(), 1)], "ANN's second was put off");
    c.make_outbox_due();
    let again = c.claim(100);
    assert_eq!(
        again.iter().filter(|(user, ..)| *user == ANN).collect::<Vec<_>>(),
        [&(ANN, 1, first.2.clone(), 2)]
    );
    assert!(!c.failed(&first, None), "what the first attempt says is old by now");
    assert!(c.failed(&(ANN, 1, first.2.clone(), 2), None));
    let dead: String = c
        .one("select state || ': ' || last_error from billing.outbox where user_id = $1 and id = 1", &[&ANN]);
    assert_eq!(dead, "dead: status 500");
    assert_eq!(
        c.claim(100),
        [(ANN, 2, first.2.clone(), 1)],
        "what is dead holds up nothing, and wakes what is next"
    );
    assert_eq!(c.one::<i64>("select billing.replay_outbox()", &[]), 1);
    assert_eq!(c.claim(100), [(ANN, 1, first.2.clone(), 1)]);
    assert!(c.delivered(&(ANN, 1, first.2, 1)));
    assert_eq!(c.one::<i64>("select billing.replay_outbox()", &[]), 0);
    assert_eq!(
        c.one::<i64>("select billing.replay_outbox($1, 1)", &[&ANN]),
        1,
        "by its id also what was delivered"
    );
}

#[test]
fn what_a_dead_shim_had_is_delivered_by_another_after_its_lease() {
    let db = Database::with_catalog();
    let mut c = db.connect();
    c.grant(ANN, 10, "gift");
    let claim = "select attempts from billing.claim_outbox(100, interval '1 millisecond')";
    assert_eq!(c.column::<i32>(claim, &[]), [1]);
    let lapsed = "select next_attempt_at <= clock_timestamp() from billing.outbox";
    while !c.one::<bool>(lapsed, &[]) {}
    assert_eq!(c.column::<i32>(claim, &[]), [2]);
}

#[test]
fn a_long_transaction_hides_nothing_that_comes_after_it() {
    let db = Database::with_catalog();
    let (mut long, mut c) = (db.connect(), db.connect());
    long.run("begin");
    long.grant(ANN, 10, "gift");
    c.grant(BOB, 10, "gift");
    let bob = c.claim(100);
    assert_eq!(bob, [(BOB, 1, "credits.granted".to_owned(), 1)]);
    assert!(c.delivered(&bob[0]));
    long.run("commit");
    assert_eq!(c.claim(100), [(ANN, 1, "credits.granted".to_owned(), 1)], "made before, committed after");
}

#[test]
fn of_one_user_no_row_becomes_visible_before_an_earlier_one() {
    let db = Database::with_catalog();
    db.connect().grant(ANN, 10, "gift");
    let ((), seen) = stripe_credits_tests::concurrency::blocked(
        &db,
        |c| drop(c.grant(ANN, 10, "first")),
        |c| {
            c.grant(ANN, 10, "second");
            c.column::<i64>("select id from billing.outbox where user_id = $1 order by id", &[&ANN])
        },
    );
    assert_eq!(seen, [1, 2, 3]);
}

#[test]
fn shims_that_claim_at_once_share_the_rows() {
    let db = Database::with_catalog();
    let mut c = db.connect();
    for n in 0..60 {
        c.grant(user(n), 10, "gift");
    }
    let claim_all = |c: &mut Connection| {
        let mut mine = Vec::new();
        loop {
            let claimed = c.claim(7);
            if claimed.is_empty() {
                return mine;
            }
            for row in &claimed {
                assert!(c.delivered(row));
            }
            mine.extend(claimed.into_iter().map(|(user, ..)| user));
        }
    };
    let shims = stripe_credits_tests::concurrency::together(&db, vec![claim_all; 4]);
    let mut delivered: Vec<Uuid> = shims.into_iter().flatten().collect();
    delivered.sort();
    assert_eq!(delivered, (0..60).map(user).collect::<Vec<_>>(), "each once");
}

// Upkeep and rights.

#[test]
fn run_due_removes_what_is_old_delivered_or_not() {
    let db = Database::with_catalog();
    let mut c = db.connect();
    for n in 0..3 {
        c.grant(user(n), 10, "gift");
    }
    let claimed = c.claim(1).remove(0);
    c.delivered(&claimed);
    assert_eq!(c.run_due(), 0);
    c.run("update billing.outbox set created_at = created_at - interval '29 days'");
    assert_eq!(c.run_due(), 0);
    c.run("update billing.outbox set created_at = created_at - interval '1 day'");
    assert_eq!(c.one::<i64>("select billing.run_due(2)", &[]), 2, "so many at a time");
    assert_eq!((c.run_due(), c.run_due()), (1, 0));
    c.grant(user(0), 10, "another");
    assert_eq!(c.claim(9), [(user(0), 2, "credits.granted".to_owned(), 1)], "the numbers go on");
}

#[test]
fn clients_read_nothing_of_it_and_services_all() {
    let db = Database::with_catalog();
    db.connect().grant(ANN, 10, "gift");
    let mut client = db.connect_as("authenticated");
    for statement in [
        "select from billing.outbox",
        "select from billing.claim_outbox()",
        "select billing.finish_outbox(null, null, null)",
        "select billing.replay_outbox()",
    ] {
        assert_eq!(client.refusal(statement).code, "42501", "{statement}");
    }
    let mut service = db.connect_as("service_role");
    assert_eq!(service.one::<i64>("select count(*) from billing.outbox", &[]), 1);
    assert_eq!(service.claim(5).len(), 1);
    assert_eq!(service.refusal("delete from billing.outbox").code, "42501");
}

#[test]
fn calls_that_are_wrong_in_themselves_raise() {
    let db = Database::with_catalog();
    let mut c = db.connect();
    for (call, code) in [
        ("claim_outbox(null)", "22004"),
        ("claim_outbox(0)", "22023"),
        ("claim_outbox(1, interval '0')", "22023"),
        ("finish_outbox(null, 1, 1)", "22004"),
        ("replay_outbox(null, 1)", "22004"),
    ] {
        let fault = c.refusal(&format!("select * from billing.{call}"));
        assert_eq!((fault.code.as_str(), fault.detail.is_empty()), (code, false), "{call}");
    }
}

#[test]
fn metrics_say_what_waits_to_be_told_and_sync_repairs_the_numbering() {
    let mut db = Database::with_catalog();
    let mut c = db.connect();
    c.grant(ANN, 10, "gift");
    c.grant(BOB, 10, "gift");
    let claimed = c.claim(1).remove(0);
    c.failed(&claimed, None);
    let metrics: Value = c.one("select billing.credit_system_metrics()", &[]);
    assert_eq!((&metrics["outbox_pending"], &metrics["outbox_dead"]), (&json!(1), &json!(1)));
    assert!(metrics["outbox_oldest_pending_at"].is_string());
    c.run("update billing.accounts set last_outbox_id = 0");
    assert_eq!(c.faults().len(), 2);
    assert!(c.faults()[0].contains("outbox row 1: by the account the last one is 0"), "{:?}", c.faults());
    for user in [ANN, BOB] {
        c.one::<i64>("select billing.sync_user_credits($1)", &[&user]);
    }
    assert!(c.faults().is_empty());
    db.breaks_its_books();
}
