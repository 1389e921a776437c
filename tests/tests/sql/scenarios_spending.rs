//! Scenarios of credits that are spent: what is drawn first, once per request, and at once with others.

use serde_json::{Value, json};
use stripe_credits_tests::concurrency::{blocked, blocked_until, together};
use stripe_credits_tests::seeds::Rng;
use stripe_credits_tests::{ANN, BOB, Connection, Database, catalog, paid_pack};

/// Credits of the subscription pool.
fn subscription_credits(c: &mut Connection, amount: i64, source: &str, expires_at: Option<&str>) {
    let expires_at = expires_at.unwrap_or("null");
    let import = format!("import_balance($1, 'subscription', $2, $3, {expires_at})");
    assert_eq!(c.call(&import, &[&ANN, &amount, &source]).summary(), "applied");
}

// Spending.

#[test]
fn scenario_25_a_spend_takes_what_expires_tomorrow_before_what_was_bought() {
    let db = Database::with_catalog();
    let mut c = db.connect();
    c.buy(ANN, "cs_1");
    c.grant_for_days(ANN, 200, "gift", 1);
    let spent = c.spend(ANN, 300, "job-1");
    assert_eq!(
        (spent.summary().as_str(), spent.credits, spent.balance_and_debt()),
        ("applied", -300, (400, 0))
    );
    assert_eq!((spent.remaining_promotional, spent.remaining_purchased), (Some(0), Some(400)));
    assert_eq!(c.request(ANN, "job-1"), ["spend -200 of grant:gift", "spend -100 of cs_1"]);
    assert_eq!(c.ledger(ANN), ["purchase 500", "grant 200", "spend -200", "spend -100"]);
    assert_eq!(c.balance(ANN), 400);
}

#[test]
fn scenario_26_a_request_counts_once_and_contradicts_itself_with_another_amount() {
    let db = Database::with_catalog();
    let mut c = db.connect();
    c.buy(ANN, "cs_1");
    assert_eq!(c.spend(ANN, 300, "job-1").summary(), "applied");
    let before = c.everything();
    let again = c.spend(ANN, 300, "job-1");
    assert_eq!(
        (again.summary().as_str(), again.credits, again.balance_and_debt()),
        ("already_applied", 0, (200, 0))
    );
    assert_eq!(c.spend(ANN, 299, "job-1").summary(), "rejected conflict");
    assert_eq!(c.spend(ANN, 10_000, "job-1").summary(), "rejected conflict", "not insufficient_credits");
    assert_eq!(c.everything(), before, "neither leaves a trace");
    assert_eq!(c.ledger(ANN), ["purchase 500", "spend -300"]);
}

#[test]
fn scenario_26_a_request_that_took_from_several_grants_is_one_request() {
    let db = Database::with_catalog();
    let mut c = db.connect();
    for session in ["cs_1", "cs_2", "cs_3"] {
        c.buy(ANN, session);
    }
    assert_eq!(c.spend(ANN, 1200, "job-1").summary(), "applied");
    assert_eq!(c.spend(ANN, 1200, "job-1").summary(), "already_applied");
    assert_eq!(
        c.spend(ANN, 500, "job-1").summary(),
        "rejected conflict",
        "the amount of its first row alone"
    );
    assert_eq!(c.balance(ANN), 300);
}

#[test]
fn scenario_26_a_request_id_is_the_users_own() {
    let db = Database::with_catalog();
    let mut c = db.connect();
    c.buy(ANN, "cs_1");
    c.buy(BOB, "cs_2");
    assert_eq!(c.spend(ANN, 300, "job-1").summary(), "applied");
    assert_eq!(c.spend(BOB, 200, "job-1").summary(), "applied");
    assert_eq!((c.balance(ANN), c.balance(BOB)), (200, 300));
}

#[test]
fn scenario_26_a_request_on_ten_connections_at_once_is_applied_once() {
    let db = Database::with_catalog();
    db.connect().buy(ANN, "cs_1");
    let outcomes = together(&db, vec![|c: &mut Connection| c.spend(ANN, 300, "job-1").summary(); 10]);
    assert_eq!(outcomes.iter().filter(|outcome| *outcome == "applied").count(), 1, "{outcomes:?}");
    assert_eq!(outcomes.iter().filter(|outcome| *outcome == "already_applied").count(), 9, "{outcomes:?}");
    assert_eq!(db.connect().ledger(ANN), ["purchase 500", "spend -300"]);
}

#[test]
fn scenario_26_of_two_overlapping_transactions_of_a_request_exactly_one_counts() {
    let spend = |c: &mut Connection| c.spend(ANN, 300, "job-1").summary();
    for (end, second) in [("commit", "already_applied"), ("rollback", "applied")] {
        let db = Database::with_catalog();
        db.connect().buy(ANN, "cs_1");
        let outcomes = blocked_until(end, &db, spend, spend);
        assert_eq!((outcomes.0.as_str(), outcomes.1.as_str()), ("applied", second));
        assert_eq!(db.connect().ledger(ANN), ["purchase 500", "spend -300"]);
    }
}

#[test]
fn scenario_27_overspending_takes_nothing_and_may_be_retried_after_a_purchase() {
    let db = Database::with_catalog();
    let mut c = db.connect();
    c.buy(ANN, "cs_1");
    let before = c.everything();
    let refused = c.spend(ANN, 501, "job-1");
    assert_eq!((refused.summary().as_str(), refused.credits), ("rejected insufficient_credits", 0));
    assert_eq!(refused.balance_and_debt(), (500, 0));
    assert_eq!(c.reserve(ANN, 501, "job-2").summary(), "rejected insufficient_credits");
    assert_eq!(c.everything(), before, "no trace");
    c.buy(ANN, "cs_2");
    assert_eq!(c.spend(ANN, 501, "job-1").summary(), "applied");
    assert_eq!(c.reserve(ANN, 499, "job-2").summary(), "applied", "another amount is no conflict either");
    assert_eq!((c.balance(ANN), c.grants(ANN)), (0, vec!["cs_1 0".to_owned(), "cs_2 0".to_owned()]));
}

#[test]
fn scenario_27_spending_of_a_user_without_a_grant_leaves_no_trace() {
    let db = Database::with_catalog();
    let mut c = db.connect();
    let before = c.everything();
    assert_eq!(c.spend(ANN, 1, "job-1").summary(), "rejected insufficient_credits");
    assert_eq!(c.reserve(ANN, 1, "job-2").summary(), "rejected insufficient_credits");
    assert_eq!(c.commit(ANN, "job-2", None).summary(), "rejected unknown_reservation");
    assert_eq!(c.release(ANN, "job-2").summary(), "rejected unknown_reservation");
    assert_eq!(c.everything(), before);
}

#[test]
fn scenario_27_all_there_is_can_be_spent_and_then_nothing() {
    let db = Database::with_catalog();
    let mut c = db.connect();
    c.buy(ANN, "cs_1");
    assert_eq!(c.spend(ANN, 500, "job-1").balance_and_debt(), (0, 0));
    assert_eq!(c.spend(ANN, 1, "job-2").summary(), "rejected insufficient_credits");
}

#[test]
fn a_spends_description_and_metadata_are_in_each_of_its_rows_under_one_operation() {
    let db = Database::with_catalog();
    let mut c = db.connect();
    c.buy(ANN, "cs_1");
    c.buy(ANN, "cs_2");
    let metadata = json!({ "model": "large", "tokens": [1, 2], "deep": { "er": null } });
    let call = "spend_credits($1, 700, 'job-1', 'An image', $2)";
    assert_eq!(c.call(call, &[&ANN, &metadata]).summary(), "applied");
    let rows = c
        .query(
            "select description, metadata, operation_id, id, request_id, pool, balance_after,
                 created_at = max(created_at) over () as one_time, stripe_event_id is null
             from billing.credit_transactions where user_id = $1 and transaction_type = 'spend' order by id",
            &[&ANN],
        )
        .expect("the rows");
    assert_eq!(rows.len(), 2);
    for (row, after) in rows.iter().zip([500_i64, 300]) {
        assert_eq!(row.get::<_, String>(0), "An image");
        assert_eq!(row.get::<_, Value>(1), metadata);
        assert_eq!(row.get::<_, i64>(2), rows[0].get::<_, i64>(3), "the operation is its first row's id");
        assert_eq!((row.get::<_, String>(4), row.get::<_, String>(5)), ("job-1".into(), "purchased".into()));
        assert_eq!(row.get::<_, i64>(6), after);
        assert!(row.get::<_, bool>(7) && row.get::<_, bool>(8));
    }
    let again = c.call("spend_credits($1, 700, 'job-1', 'Another word for it')", &[&ANN]);
    assert_eq!(again.summary(), "already_applied", "words are not content");
}

#[test]
fn operations_of_different_requests_are_different_operations() {
    let db = Database::with_catalog();
    let mut c = db.connect();
    c.buy(ANN, "cs_1");
    c.spend(ANN, 10, "job-1");
    c.spend(ANN, 10, "job-2");
    c.reserve(ANN, 10, "job-3");
    c.commit(ANN, "job-3", Some(4));
    let operations: Vec<i64> = c.column(
        "select operation_id from billing.credit_transactions where user_id = $1 order by id",
        &[&ANN],
    );
    assert_eq!(operations, [1, 2, 3, 4, 5]);
}

#[test]
fn the_draw_order_is_expiry_then_subscription_promotional_purchased_then_oldest() {
    let db = Database::with_catalog();
    let mut c = db.connect();
    let (soon, later) =
        ("date_trunc('day', now()) + interval '5 days'", "date_trunc('day', now()) + interval '9 days'");
    let gift = |c: &mut Connection, name: &str, at: &str| {
        let call = format!("grant_credits($1, 10, $2, p_expires_at => {at})");
        assert_eq!(c.call(&call, &[&ANN, &name]).summary(), "applied");
    };
    // Made in an order that is none of the rules'.
    c.buy(ANN, "cs_old");
    c.buy(ANN, "cs_new");
    gift(&mut c, "gift_later", later);
    c.grant(ANN, 10, "gift_old");
    c.grant(ANN, 10, "gift_new");
    subscription_credits(&mut c, 10, "in_never", None);
    gift(&mut c, "gift_soon", soon);
    subscription_credits(&mut c, 10, "in_later", Some(later));
    subscription_credits(&mut c, 10, "in_soon", Some(soon));
    assert_eq!(c.balance(ANN), 1070);
    assert_eq!(c.spend(ANN, 1070, "job-1").summary(), "applied");
    let drawn: Vec<String> = c.request(ANN, "job-1").iter().map(|row| row.replace("spend ", "")).collect();
    let expected = [
        "-10 of import:in_soon",
        "-10 of grant:gift_soon",
        "-10 of import:in_later",
        "-10 of grant:gift_later",
        "-10 of import:in_never",
        "-10 of grant:gift_old",
        "-10 of grant:gift_new",
        "-500 of cs_old",
        "-500 of cs_new",
    ];
    assert_eq!(drawn, expected);
}

#[test]
fn a_pack_that_expires_is_drawn_before_promotional_credits_that_do_not() {
    let db = Database::with_catalog();
    let mut c = db.connect();
    c.grant(ANN, 100, "gift");
    let mut wanted = catalog();
    wanted["packs"][0]["expires_after"] = json!("1 year");
    c.load_catalog(&wanted);
    // Stripe's times are whole seconds: one that is certainly after the change.
    let created: i64 = c.one("select ceil(extract(epoch from clock_timestamp()))::bigint + 1", &[]);
    let paid = paid_pack("cs_1", ANN).with("created", created);
    assert_eq!(c.apply(&paid.completed("evt_1")).summary(), "applied");
    c.spend(ANN, 510, "job-1");
    assert_eq!(c.request(ANN, "job-1"), ["spend -500 of cs_1", "spend -10 of grant:gift"]);
}

#[test]
fn a_thousand_live_grants_are_drawn_in_order_as_far_as_a_spend_needs_them() {
    let db = Database::with_catalog();
    let mut c = db.connect();
    c.run(&format!(
        "select count(*) from generate_series(1, 1000) n
         cross join lateral billing.grant_credits('{ANN}', 1 + n % 3, 'gift-' || n) granted"
    ));
    let all: i64 = (1..=1000).map(|n| 1 + n % 3).sum();
    assert_eq!(c.balance(ANN), all);
    let in_order = |from: usize, upto: usize| -> Vec<String> {
        (from..=upto).map(|n| format!("spend -{} of grant:gift-{n}", 1 + n % 3)).collect()
    };
    let sum = |from: i64, upto: i64| -> i64 { (from..=upto).map(|n| 1 + n % 3).sum() };
    // 8 grants are read at first, then 128, then all: on both sides of each.
    let mut first = 1;
    for (request, upto) in [("a", 8), ("b", 17), ("c", 145), ("d", 274), ("e", 999)] {
        assert_eq!(c.spend(ANN, sum(first, upto), request).summary(), "applied");
        let (from, to) = (usize::try_from(first).expect("small"), usize::try_from(upto).expect("small"));
        assert_eq!(c.request(ANN, request), in_order(from, to));
        first = upto + 1;
    }
    assert_eq!(c.balance(ANN), 1 + 1000 % 3);
    assert_eq!(c.spend(ANN, 3, "f").summary(), "rejected insufficient_credits");
}

// At once.

#[test]
fn two_transactions_that_spend_the_last_credits_at_once_succeed_once() {
    for (end, second) in [("commit", "rejected insufficient_credits"), ("rollback", "applied")] {
        let db = Database::with_catalog();
        db.connect().buy(ANN, "cs_1");
        let outcomes = blocked_until(
            end,
            &db,
            |c| c.spend(ANN, 400, "job-1").summary(),
            |c| c.spend(ANN, 400, "job-2").summary(),
        );
        assert_eq!((outcomes.0.as_str(), outcomes.1.as_str()), ("applied", second), "{end}");
        assert_eq!(db.connect().balance(ANN), 100);
    }
}

#[test]
fn a_spend_that_waits_for_a_purchase_sees_its_credits() {
    let db = Database::with_catalog();
    db.connect().buy(ANN, "cs_0");
    let outcomes = blocked(
        &db,
        |c| c.apply(&paid_pack("cs_1", ANN).completed("evt_1")).summary(),
        |c| c.spend(ANN, 1000, "job-1").summary(),
    );
    assert_eq!((outcomes.0.as_str(), outcomes.1.as_str()), ("applied", "applied"));
    assert_eq!(db.connect().balance(ANN), 0);
}

#[test]
fn a_spend_of_a_user_whose_first_purchase_is_not_committed_may_try_again() {
    let db = Database::with_catalog();
    let (mut one, mut other) = (db.connect(), db.connect());
    one.run("begin");
    one.apply(&paid_pack("cs_1", ANN).completed("evt_1"));
    assert_eq!(other.spend(ANN, 500, "job-1").summary(), "rejected insufficient_credits");
    one.run("commit");
    assert_eq!(other.spend(ANN, 500, "job-1").summary(), "applied");
    assert_eq!(other.ledger(ANN), ["purchase 500", "spend -500"]);
}

#[test]
fn the_last_credits_are_spent_by_exactly_one_of_eight_connections_fifty_times() {
    let db = Database::with_catalog();
    let mut c = db.connect();
    for round in 0..50 {
        let gift = format!("gift-{round}");
        c.grant(ANN, 10, &gift);
        let works: Vec<_> = (0..8)
            .map(|n| move |c: &mut Connection| c.spend(ANN, 10, &format!("job-{round}-{n}")).summary())
            .collect();
        let outcomes = together(&db, works);
        assert_eq!(outcomes.iter().filter(|outcome| *outcome == "applied").count(), 1, "{outcomes:?}");
        assert_eq!(c.balance(ANN), 0);
    }
}

#[test]
fn thirty_two_connections_spend_one_account_to_the_last_credit_and_not_below() {
    let db = Database::with_catalog();
    let mut c = db.connect();
    for n in 0..20 {
        c.buy(ANN, &format!("cs_{n}"));
    }
    let works: Vec<_> = (0..32)
        .map(|n| {
            move |c: &mut Connection| -> (i64, i64) {
                let mut rng = Rng::new(n);
                let (mut taken, mut refused) = (0, 0);
                for request in 0..25 {
                    let spent = c.spend(ANN, rng.between(1, 40), &format!("job-{n}-{request}"));
                    match spent.summary().as_str() {
                        "applied" => taken -= spent.credits,
                        "rejected insufficient_credits" => refused += 1,
                        other => panic!("{other}"),
                    }
                    assert!(spent.remaining_total >= Some(0), "{spent:?}");
                }
                (taken, refused)
            }
        })
        .collect();
    let outcomes = together(&db, works);
    let taken: i64 = outcomes.iter().map(|(taken, _)| taken).sum();
    let refused: i64 = outcomes.iter().map(|(_, refused)| refused).sum();
    assert!(refused > 0, "they wanted more than there was");
    let left = c.balance(ANN);
    assert_eq!(taken + left, 10_000);
    assert!((0..40).contains(&left), "{left}: a small spend would still have fit");
    let lowest: i64 =
        c.one("select min(balance_after) from billing.credit_transactions where user_id = $1", &[&ANN]);
    assert!(lowest >= 0);
}
