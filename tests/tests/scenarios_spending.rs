//! Scenarios of credits that are spent, held, and lapse: what is drawn first, what comes back, and what time alone does.

use serde_json::{Value, json};
use stripe_credits_tests::chance::Chance;
use stripe_credits_tests::concurrency::{blocked, blocked_until, together};
use stripe_credits_tests::{ANN, BOB, Connection, Database, catalog, paid_pack, user};
use uuid::Uuid;

/// Buys `price_pack`.
fn buy(c: &mut Connection, user: Uuid, session_id: &str) {
    let event = paid_pack(session_id, user).completed(&format!("evt_{session_id}"));
    assert_eq!(c.apply(&event).said(), "applied");
}

/// A grant of the subscription pool, as a paid invoice would leave it; the books stay consistent.
fn subscription_grant(c: &mut Connection, user: Uuid, amount: i64, source_id: &str, lapses_at: Option<&str>) {
    let lapses_at = lapses_at.unwrap_or("null");
    let mut t = c.transaction().expect("a transaction");
    t.execute("select billing.sync_user_credits($1)", &[&user]).expect("an account");
    t.execute(
        &format!(
            "with account as (
                 update billing.accounts set last_grant_id = last_grant_id + 1,
                     last_transaction_id = last_transaction_id + 1,
                     subscription_credits = subscription_credits + $2, next_due_at = least(next_due_at, {lapses_at})
                 where user_id = $1 returning *
             ), lot as (
                 insert into billing.credit_grants
                     (user_id, id, source_id, item, pool, amount, remaining, lapses_at, created_at)
                 select user_id, last_grant_id, $3::text, 'price_pro', 'subscription', $2, $2, {lapses_at}, now()
                 from account
             )
             insert into billing.credit_transactions
                 (user_id, id, operation_id, transaction_type, amount, grant_id, pool, balance_after, created_at)
             select user_id, last_transaction_id, last_transaction_id, 'subscription_grant', $2, last_grant_id,
                 'subscription', subscription_credits + purchased_credits + promotional_credits - debt, now()
             from account"
        ),
        &[&user, &amount, &source_id],
    )
    .expect("a grant by hand");
    t.commit().expect("a commit");
}

/// Balance and debt as an outcome says them.
fn left(outcome: &stripe_credits_tests::Outcome) -> (i64, i64) {
    (outcome.remaining_total.expect("a total"), outcome.debt.expect("a debt"))
}

// Spending.

#[test]
fn scenario_25_a_spend_takes_what_lapses_tomorrow_before_what_was_bought() {
    let db = Database::with_catalog();
    let mut c = db.connect();
    buy(&mut c, ANN, "cs_1");
    c.grant_for_days(ANN, 200, "gift", 1);
    let spent = c.spend(ANN, 300, "job-1");
    assert_eq!((spent.said().as_str(), spent.credits, left(&spent)), ("applied", -300, (400, 0)));
    assert_eq!((spent.remaining_promotional, spent.remaining_purchased), (Some(0), Some(400)));
    assert_eq!(c.request(ANN, "job-1"), ["spend -200 of gift", "spend -100 of cs_1"]);
    assert_eq!(c.ledger(ANN), ["purchase 500", "grant 200", "spend -200", "spend -100"]);
    assert_eq!(c.balance(ANN), 400);
}

#[test]
fn scenario_26_a_request_counts_once_and_contradicts_itself_with_another_amount() {
    let db = Database::with_catalog();
    let mut c = db.connect();
    buy(&mut c, ANN, "cs_1");
    assert_eq!(c.spend(ANN, 300, "job-1").said(), "applied");
    let before = c.everything();
    let again = c.spend(ANN, 300, "job-1");
    assert_eq!((again.said().as_str(), again.credits, left(&again)), ("already_applied", 0, (200, 0)));
    assert_eq!(c.spend(ANN, 299, "job-1").said(), "rejected conflict");
    assert_eq!(c.spend(ANN, 10_000, "job-1").said(), "rejected conflict", "not insufficient_credits");
    assert_eq!(c.everything(), before, "neither leaves a trace");
    assert_eq!(c.ledger(ANN), ["purchase 500", "spend -300"]);
}

#[test]
fn scenario_26_a_request_that_took_from_several_grants_is_one_request() {
    let db = Database::with_catalog();
    let mut c = db.connect();
    for session in ["cs_1", "cs_2", "cs_3"] {
        buy(&mut c, ANN, session);
    }
    assert_eq!(c.spend(ANN, 1200, "job-1").said(), "applied");
    assert_eq!(c.spend(ANN, 1200, "job-1").said(), "already_applied");
    assert_eq!(c.spend(ANN, 500, "job-1").said(), "rejected conflict", "the amount of its first row alone");
    assert_eq!(c.balance(ANN), 300);
}

#[test]
fn scenario_26_a_request_id_is_the_users_own() {
    let db = Database::with_catalog();
    let mut c = db.connect();
    buy(&mut c, ANN, "cs_1");
    buy(&mut c, BOB, "cs_2");
    assert_eq!(c.spend(ANN, 300, "job-1").said(), "applied");
    assert_eq!(c.spend(BOB, 200, "job-1").said(), "applied");
    assert_eq!((c.balance(ANN), c.balance(BOB)), (200, 300));
}

#[test]
fn scenario_26_a_request_on_ten_connections_at_once_is_applied_once() {
    let db = Database::with_catalog();
    buy(&mut db.connect(), ANN, "cs_1");
    let said = together(&db, vec![|c: &mut Connection| c.spend(ANN, 300, "job-1").said(); 10]);
    assert_eq!(said.iter().filter(|said| *said == "applied").count(), 1, "{said:?}");
    assert_eq!(said.iter().filter(|said| *said == "already_applied").count(), 9, "{said:?}");
    assert_eq!(db.connect().ledger(ANN), ["purchase 500", "spend -300"]);
}

#[test]
fn scenario_26_a_request_with_both_transactions_open_counts_once_and_not_at_all_if_the_first_is_undone() {
    let spend = |c: &mut Connection| c.spend(ANN, 300, "job-1").said();
    for (end, second) in [("commit", "already_applied"), ("rollback", "applied")] {
        let db = Database::with_catalog();
        buy(&mut db.connect(), ANN, "cs_1");
        let said = blocked_until(end, &db, spend, spend);
        assert_eq!((said.0.as_str(), said.1.as_str()), ("applied", second));
        assert_eq!(db.connect().ledger(ANN), ["purchase 500", "spend -300"]);
    }
}

#[test]
fn scenario_27_spending_more_than_there_is_takes_nothing_and_may_try_again_after_a_purchase() {
    let db = Database::with_catalog();
    let mut c = db.connect();
    buy(&mut c, ANN, "cs_1");
    let before = c.everything();
    let refused = c.spend(ANN, 501, "job-1");
    assert_eq!((refused.said().as_str(), refused.credits), ("rejected insufficient_credits", 0));
    assert_eq!(left(&refused), (500, 0));
    assert_eq!(c.reserve(ANN, 501, "job-2").said(), "rejected insufficient_credits");
    assert_eq!(c.everything(), before, "no trace");
    buy(&mut c, ANN, "cs_2");
    assert_eq!(c.spend(ANN, 501, "job-1").said(), "applied");
    assert_eq!(c.reserve(ANN, 499, "job-2").said(), "applied", "another amount is no conflict either");
    assert_eq!((c.balance(ANN), c.grants(ANN)), (0, vec!["cs_1 0".to_owned(), "cs_2 0".to_owned()]));
}

#[test]
fn scenario_27_spending_of_a_user_whom_nothing_was_granted_leaves_no_trace() {
    let db = Database::with_catalog();
    let mut c = db.connect();
    let before = c.everything();
    assert_eq!(c.spend(ANN, 1, "job-1").said(), "rejected insufficient_credits");
    assert_eq!(c.reserve(ANN, 1, "job-2").said(), "rejected insufficient_credits");
    assert_eq!(c.commit(ANN, "job-2", None).said(), "rejected unknown_reservation");
    assert_eq!(c.release(ANN, "job-2").said(), "rejected unknown_reservation");
    assert_eq!(c.everything(), before);
}

#[test]
fn scenario_27_all_there_is_can_be_spent_and_then_nothing() {
    let db = Database::with_catalog();
    let mut c = db.connect();
    buy(&mut c, ANN, "cs_1");
    assert_eq!(left(&c.spend(ANN, 500, "job-1")), (0, 0));
    assert_eq!(c.spend(ANN, 1, "job-2").said(), "rejected insufficient_credits");
}

#[test]
fn a_spends_description_and_metadata_are_in_each_of_its_rows_under_one_operation() {
    let db = Database::with_catalog();
    let mut c = db.connect();
    buy(&mut c, ANN, "cs_1");
    buy(&mut c, ANN, "cs_2");
    let metadata = json!({ "model": "large", "tokens": [1, 2], "deep": { "er": null } });
    let call = "spend_credits($1, 700, 'job-1', 'An image', $2)";
    assert_eq!(c.call(call, &[&ANN, &metadata]).said(), "applied");
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
    assert_eq!(again.said(), "already_applied", "words are not content");
}

#[test]
fn operations_of_different_requests_are_different_operations() {
    let db = Database::with_catalog();
    let mut c = db.connect();
    buy(&mut c, ANN, "cs_1");
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
fn the_draw_order_is_lapse_then_subscription_before_promotional_before_purchased_then_oldest() {
    let db = Database::with_catalog();
    let mut c = db.connect();
    let (soon, later) =
        ("date_trunc('day', now()) + interval '5 days'", "date_trunc('day', now()) + interval '9 days'");
    let gift = |c: &mut Connection, name: &str, at: &str| {
        let call = format!("grant_credits($1, 10, $2, p_expires_at => {at})");
        assert_eq!(c.call(&call, &[&ANN, &name]).said(), "applied");
    };
    // Made in an order that is none of the rules'.
    buy(&mut c, ANN, "cs_old");
    buy(&mut c, ANN, "cs_new");
    gift(&mut c, "gift_later", later);
    c.grant(ANN, 10, "gift_old");
    c.grant(ANN, 10, "gift_new");
    subscription_grant(&mut c, ANN, 10, "in_never", None);
    gift(&mut c, "gift_soon", soon);
    subscription_grant(&mut c, ANN, 10, "in_later", Some(later));
    subscription_grant(&mut c, ANN, 10, "in_soon", Some(soon));
    assert_eq!(c.balance(ANN), 1070);
    assert_eq!(c.spend(ANN, 1070, "job-1").said(), "applied");
    let drawn: Vec<String> = c.request(ANN, "job-1").iter().map(|row| row.replace("spend ", "")).collect();
    let expected = [
        "-10 of in_soon",
        "-10 of gift_soon",
        "-10 of in_later",
        "-10 of gift_later",
        "-10 of in_never",
        "-10 of gift_old",
        "-10 of gift_new",
        "-500 of cs_old",
        "-500 of cs_new",
    ];
    assert_eq!(drawn, expected);
}

#[test]
fn a_pack_that_lapses_is_drawn_before_promotional_credits_that_do_not() {
    let db = Database::with_catalog();
    let mut c = db.connect();
    c.grant(ANN, 100, "gift");
    let mut wanted = catalog();
    wanted["packs"][0]["expires_after"] = json!("1 year");
    c.load_catalog(&wanted);
    // Stripe's times are whole seconds: one that is certainly after the change.
    let created: i64 = c.one("select ceil(extract(epoch from clock_timestamp()))::bigint + 1", &[]);
    let paid = paid_pack("cs_1", ANN).with("created", created);
    assert_eq!(c.apply(&paid.completed("evt_1")).said(), "applied");
    c.spend(ANN, 510, "job-1");
    assert_eq!(c.request(ANN, "job-1"), ["spend -500 of cs_1", "spend -10 of gift"]);
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
        (from..=upto).map(|n| format!("spend -{} of gift-{n}", 1 + n % 3)).collect()
    };
    let sum = |from: i64, upto: i64| -> i64 { (from..=upto).map(|n| 1 + n % 3).sum() };
    // 8 grants are read at first, then 128, then all: on both sides of each.
    let mut first = 1;
    for (request, upto) in [("a", 8), ("b", 17), ("c", 145), ("d", 274), ("e", 999)] {
        assert_eq!(c.spend(ANN, sum(first, upto), request).said(), "applied");
        let (from, to) = (usize::try_from(first).expect("small"), usize::try_from(upto).expect("small"));
        assert_eq!(c.request(ANN, request), in_order(from, to));
        first = upto + 1;
    }
    assert_eq!(c.balance(ANN), 1 + 1000 % 3);
    assert_eq!(c.spend(ANN, 3, "f").said(), "rejected insufficient_credits");
}

// Reservations.

#[test]
fn scenario_28_a_reservation_committed_for_less_gives_the_rest_back() {
    let db = Database::with_catalog();
    let mut c = db.connect();
    buy(&mut c, ANN, "cs_1");
    let held = c.reserve(ANN, 100, "job-1");
    assert_eq!((held.said().as_str(), held.credits, left(&held)), ("applied", -100, (400, 0)));
    assert_eq!(c.balance(ANN), 400);
    let ended = c.commit(ANN, "job-1", Some(60));
    assert_eq!((ended.said().as_str(), ended.credits, left(&ended)), ("applied", 40, (440, 0)));
    assert_eq!(c.ledger(ANN), ["purchase 500", "reservation -100", "release 40"]);
    assert_eq!(c.request(ANN, "job-1"), ["reservation -100 of cs_1", "release 40 of cs_1"]);
    assert_eq!(c.commit(ANN, "job-1", Some(60)).said(), "already_applied");
    assert_eq!(c.commit(ANN, "job-1", Some(61)).said(), "rejected conflict");
    assert_eq!(c.commit(ANN, "job-1", None).said(), "rejected conflict");
    assert_eq!(c.release(ANN, "job-1").said(), "rejected conflict");
    assert_eq!(c.balance(ANN), 440);
}

#[test]
fn scenario_28_an_abandoned_reservation_is_back_before_anything_posted_it_and_then_just_so() {
    type Access = fn(&mut Connection);
    let accesses: [(&str, Access); 5] = [
        ("run_due", |c| assert_eq!(c.run_due(), 1)),
        ("a repeated spend", |c| assert_eq!(c.spend(ANN, 1, "job-0").said(), "already_applied")),
        ("its commit", |c| assert_eq!(c.commit(ANN, "job-1", None).said(), "rejected reservation_ended")),
        ("its release", |c| assert_eq!(c.release(ANN, "job-1").said(), "already_applied")),
        ("its repetition", |c| {
            let again = c.reserve(ANN, 100, "job-1");
            assert_eq!(again.said(), "already_applied");
            assert_eq!(again.details.expect("details")["status"], "expired");
        }),
    ];
    for (access, by) in accesses {
        let db = Database::with_catalog();
        let mut c = db.connect();
        buy(&mut c, ANN, "cs_1");
        c.spend(ANN, 1, "job-0");
        assert_eq!(c.reserve(ANN, 100, "job-1").said(), "applied");
        assert_eq!(c.reads(ANN), (399, 0));
        c.runs_out_now(ANN, "job-1");
        assert_eq!(c.reads(ANN), (499, 0), "before {access}");
        assert_eq!(c.balance(ANN), 499, "before {access}");
        assert_eq!(c.ledger(ANN).len(), 3, "nothing has posted it");
        by(&mut c);
        assert_eq!(c.reads(ANN), (499, 0), "after {access}");
        assert_eq!(
            c.ledger(ANN),
            ["purchase 500", "spend -1", "reservation -100", "release 100"],
            "{access}"
        );
        assert_eq!(c.run_due(), 0, "after {access} nothing is due");
    }
}

#[test]
fn scenario_28_an_abandoned_reservation_can_be_spent_by_the_next_spend() {
    let db = Database::with_catalog();
    let mut c = db.connect();
    buy(&mut c, ANN, "cs_1");
    c.reserve(ANN, 400, "job-1");
    assert_eq!(c.spend(ANN, 500, "job-2").said(), "rejected insufficient_credits");
    c.runs_out_now(ANN, "job-1");
    let spent = c.spend(ANN, 500, "job-2");
    assert_eq!((spent.said().as_str(), spent.credits, left(&spent)), ("applied", -500, (0, 0)));
    assert_eq!(c.ledger(ANN), ["purchase 500", "reservation -400", "release 400", "spend -500"]);
}

#[test]
fn a_reservation_is_committed_whole_by_default_and_leaves_no_row_then() {
    let db = Database::with_catalog();
    let mut c = db.connect();
    buy(&mut c, ANN, "cs_1");
    c.reserve(ANN, 100, "job-1");
    let ended = c.commit(ANN, "job-1", None);
    assert_eq!((ended.said().as_str(), ended.credits), ("applied", 0));
    assert_eq!(c.commit(ANN, "job-1", None).said(), "already_applied");
    assert_eq!(c.commit(ANN, "job-1", Some(100)).said(), "already_applied");
    assert_eq!(c.ledger(ANN), ["purchase 500", "reservation -100"]);
    assert_eq!(c.balance(ANN), 400);
}

#[test]
fn a_commit_for_less_returns_to_the_grants_that_were_drawn_last() {
    let db = Database::with_catalog();
    let mut c = db.connect();
    buy(&mut c, ANN, "cs_1");
    c.grant(ANN, 50, "gift");
    c.grant_for_days(ANN, 30, "soon", 1);
    assert_eq!(c.reserve(ANN, 200, "job-1").said(), "applied");
    assert_eq!(c.grants(ANN), ["cs_1 380", "gift 0", "soon 0"]);
    assert_eq!(c.commit(ANN, "job-1", Some(45)).credits, 155);
    assert_eq!(c.grants(ANN), ["cs_1 500", "gift 35", "soon 0"], "as a spend of 45 would have left them");
    let mut returned = c.request(ANN, "job-1").split_off(3);
    returned.sort();
    assert_eq!(returned, ["release 120 of cs_1", "release 35 of gift"]);
}

#[test]
fn a_reservations_end_that_cannot_be_is_refused_and_takes_nothing() {
    let db = Database::with_catalog();
    let mut c = db.connect();
    buy(&mut c, ANN, "cs_1");
    c.reserve(ANN, 100, "job-1");
    let before = c.everything();
    assert_eq!(c.commit(ANN, "job-1", Some(101)).said(), "rejected exceeds_reservation");
    assert_eq!(c.commit(ANN, "job-2", None).said(), "rejected unknown_reservation");
    assert_eq!(c.release(ANN, "job-2").said(), "rejected unknown_reservation");
    assert_eq!(
        c.commit(BOB, "job-1", Some(1)).said(),
        "rejected unknown_reservation",
        "it is another user's"
    );
    let annes = |all: std::collections::BTreeMap<String, Vec<String>>| -> Vec<String> {
        let of_ann = |row: &String| row.contains(&ANN.to_string());
        all.into_values().flatten().filter(of_ann).collect()
    };
    assert_eq!(annes(c.everything()), annes(before));
    assert_eq!(c.release(ANN, "job-1").said(), "applied");
    assert_eq!(c.commit(ANN, "job-1", None).said(), "rejected reservation_ended");
}

#[test]
fn a_reservation_released_twice_is_released_once() {
    let db = Database::with_catalog();
    let mut c = db.connect();
    buy(&mut c, ANN, "cs_1");
    c.reserve(ANN, 100, "job-1");
    assert_eq!(c.release(ANN, "job-1").credits, 100);
    let again = c.release(ANN, "job-1");
    assert_eq!((again.said().as_str(), again.credits, left(&again)), ("already_applied", 0, (500, 0)));
    assert_eq!(c.ledger(ANN), ["purchase 500", "reservation -100", "release 100"]);
    let repeated = c.reserve(ANN, 100, "job-1");
    assert_eq!(repeated.said(), "already_applied", "a request id is used once");
    assert_eq!(repeated.details.expect("details")["status"], "released");
    assert_eq!(c.balance(ANN), 500);
}

#[test]
fn a_request_id_is_a_spends_or_a_reservations_and_never_both() {
    let db = Database::with_catalog();
    let mut c = db.connect();
    buy(&mut c, ANN, "cs_1");
    c.reserve(ANN, 100, "job-1");
    c.spend(ANN, 50, "job-2");
    let before = c.everything();
    assert_eq!(c.spend(ANN, 100, "job-1").said(), "rejected conflict");
    assert_eq!(c.reserve(ANN, 50, "job-2").said(), "rejected conflict");
    assert_eq!(c.reserve(ANN, 101, "job-1").said(), "rejected conflict");
    assert_eq!(c.release(ANN, "job-2").said(), "rejected unknown_reservation");
    assert_eq!(c.commit(ANN, "job-2", None).said(), "rejected unknown_reservation");
    assert_eq!(c.everything(), before);
    c.commit(ANN, "job-1", Some(100));
    assert_eq!(c.spend(ANN, 100, "job-1").said(), "rejected conflict", "after its end too");
    assert_eq!(c.grant(ANN, 7, "job-1").said(), "applied", "a grant's key is another thing");
    assert_eq!(c.balance(ANN), 357);
}

#[test]
fn a_release_and_a_commit_at_once_end_a_reservation_once() {
    let commit = |c: &mut Connection| c.commit(ANN, "job-1", Some(60)).said();
    let release = |c: &mut Connection| c.release(ANN, "job-1").said();
    let db = Database::with_catalog();
    let mut c = db.connect();
    buy(&mut c, ANN, "cs_1");
    c.reserve(ANN, 100, "job-1");
    let said = blocked(&db, commit, release);
    assert_eq!((said.0.as_str(), said.1.as_str()), ("applied", "rejected conflict"));
    assert_eq!(c.balance(ANN), 440);
    let db = Database::with_catalog();
    let mut c = db.connect();
    buy(&mut c, ANN, "cs_1");
    c.reserve(ANN, 100, "job-1");
    let said = blocked(&db, release, commit);
    assert_eq!((said.0.as_str(), said.1.as_str()), ("applied", "rejected reservation_ended"));
    assert_eq!(c.balance(ANN), 500);
}

#[test]
fn what_returns_to_a_lapsed_grant_is_not_spendable() {
    type End = fn(&mut Connection);
    let ends: [(&str, End); 3] = [
        ("release", |c| assert_eq!(c.release(ANN, "job-1").said(), "applied")),
        ("commit", |c| assert_eq!(c.commit(ANN, "job-1", Some(10)).said(), "applied")),
        ("its time", |c| {
            c.runs_out_now(ANN, "job-1");
            assert_eq!(c.reads(ANN), (0, 0), "the read model says so before anything posted it");
            assert_eq!(c.run_due(), 1);
        }),
    ];
    for (end, by) in ends {
        let db = Database::with_catalog();
        let mut c = db.connect();
        c.grant_for_days(ANN, 100, "gift", 1);
        assert_eq!(c.reserve(ANN, 100, "job-1").said(), "applied");
        c.lapses_now(ANN, "gift");
        by(&mut c);
        assert_eq!((c.balance(ANN), c.grants(ANN)), (0, vec!["gift 0".to_owned()]), "{end}");
        assert_eq!(c.spend(ANN, 1, "job-2").said(), "rejected insufficient_credits", "{end}");
        let back = if end == "commit" { 90 } else { 100 };
        let expected = [
            "grant 100".to_owned(),
            "reservation -100".into(),
            format!("release {back}"),
            format!("lapse -{back}"),
        ];
        assert_eq!(c.ledger(ANN), expected, "{end}");
    }
}

#[test]
fn a_release_that_lapses_at_once_says_that_nothing_came_back() {
    let db = Database::with_catalog();
    let mut c = db.connect();
    buy(&mut c, ANN, "cs_1");
    c.grant_for_days(ANN, 100, "gift", 1);
    c.reserve(ANN, 150, "job-1");
    c.lapses_now(ANN, "gift");
    let released = c.release(ANN, "job-1");
    assert_eq!((released.credits, left(&released)), (50, (500, 0)), "50 of the pack, none of the gift");
}

#[test]
fn a_reservations_time_is_above_nothing_and_at_most_thirty_days() {
    let db = Database::with_catalog();
    let mut c = db.connect();
    buy(&mut c, ANN, "cs_1");
    let reserve = |ttl: &str| format!("reserve_credits($1, 1, '{ttl}', '{ttl}')");
    for ttl in [
        "0",
        "-1 second",
        "-1 microsecond",
        "-1 day",
        "31 days",
        "30 days 1 second",
        "30 days 1 microsecond",
        "2 months",
        "1 year",
        "1 day -24 hours",
        "178000000 years",
    ] {
        let fault = c.try_call(&reserve(ttl), &[&ANN]).expect_err(ttl);
        assert_eq!(fault.code, "22023", "{ttl}: {fault:?}");
        assert!(fault.message.contains("p_ttl"), "{fault:?}");
    }
    for ttl in ["1 microsecond", "30 days", "1 month", "720 hours", "-1 day +25 hours"] {
        assert_eq!(c.call(&reserve(ttl), &[&ANN]).said(), "applied", "{ttl}");
    }
    let null = c.try_call("reserve_credits($1, 1, 'x', null)", &[&ANN]).expect_err("null");
    assert_eq!(null.code, "22004");
    let until: bool = c.one(
        "select expires_at = created_at + interval '30 days' from billing.reservations where request_id = '30 days'",
        &[],
    );
    assert!(until);
    let default = "select expires_at = created_at + interval '15 minutes' from billing.reservations where request_id = 'd'";
    c.reserve(ANN, 1, "d");
    assert!(c.one::<bool>(default, &[]));
}

#[test]
fn wrong_calls_of_spending_name_what_is_wrong() {
    let db = Database::with_catalog();
    let mut c = db.connect();
    for (call, code) in [
        ("spend_credits(null, 1, 'r')", "22004"),
        ("spend_credits($1, null, 'r')", "22004"),
        ("spend_credits($1, 1, null)", "22004"),
        ("spend_credits($1, 0, 'r')", "22023"),
        ("spend_credits($1, -1, 'r')", "22023"),
        ("spend_credits($1, 1, '  ')", "22023"),
        ("spend_credits($1, 1000000000001, 'r')", "22003"),
        ("reserve_credits($1, 0, 'r')", "22023"),
        ("reserve_credits($1, 1, '')", "22023"),
        ("commit_reservation($1, null)", "22004"),
        ("commit_reservation($1, 'r', 0)", "22023"),
        ("commit_reservation($1, 'r', -1)", "22023"),
        ("release_reservation(null, 'r')", "22004"),
        ("release_reservation($1, ' ')", "22023"),
    ] {
        let with_user = call.replace("$1", &format!("'{ANN}'"));
        let fault = c.try_call(&with_user, &[]).expect_err(call);
        assert_eq!(fault.code, code, "{call}: {fault:?}");
        assert!(!fault.detail.is_empty(), "{call}: the value is in the DETAIL");
    }
    for call in ["run_due(0)", "run_due(-1)", "run_due(null)"] {
        c.refusal(&format!("select billing.{call}"));
    }
}

// Time.

#[test]
fn a_lapse_is_exact_when_read_and_the_sweep_posts_just_that_once() {
    let db = Database::with_catalog();
    let mut c = db.connect();
    buy(&mut c, ANN, "cs_1");
    c.grant_for_days(ANN, 200, "gift", 1);
    c.spend(ANN, 50, "job-1");
    assert_eq!(c.balance(ANN), 650);
    c.lapses_now(ANN, "gift");
    assert_eq!((c.balance(ANN), c.reads(ANN)), (500, (500, 0)), "before anything posted it");
    assert_eq!(c.ledger(ANN).len(), 3);
    assert_eq!(c.run_due(), 1);
    assert_eq!((c.balance(ANN), c.reads(ANN)), (500, (500, 0)));
    let posted = ["purchase 500", "grant 200", "spend -50", "lapse -150"];
    assert_eq!(c.ledger(ANN), posted);
    assert_eq!(c.run_due(), 0, "twice is harmless");
    assert_eq!(c.ledger(ANN), posted);
}

#[test]
fn what_has_lapsed_cannot_be_spent_though_nothing_swept_it() {
    let db = Database::with_catalog();
    let mut c = db.connect();
    c.grant_for_days(ANN, 100, "gift", 1);
    c.lapses_now(ANN, "gift");
    let refused = c.spend(ANN, 1, "job-1");
    assert_eq!((refused.said().as_str(), left(&refused)), ("rejected insufficient_credits", (0, 0)));
    assert_eq!(c.ledger(ANN), ["grant 100", "lapse -100"], "the access posted the lapse");
}

#[test]
fn a_lapse_is_the_tick_of_the_clock_itself() {
    // A grant that lapses by the clock alone, nothing moved: read and spend agree at every instant.
    let db = Database::with_catalog();
    let mut c = db.connect();
    c.call(
        "grant_credits($1, 100, 'gift', p_expires_at => clock_timestamp() + interval '50 milliseconds')",
        &[&ANN],
    );
    let live = "select lapses_at > clock_timestamp() from billing.credit_grants where user_id = $1";
    while c.one::<bool>(live, &[&ANN]) {
        std::thread::yield_now();
    }
    assert_eq!(c.reads(ANN), (0, 0));
    assert_eq!(c.spend(ANN, 1, "job-1").said(), "rejected insufficient_credits");
    assert_eq!(c.ledger(ANN), ["grant 100", "lapse -100"]);
}

#[test]
fn a_lapse_never_touches_another_grant() {
    let db = Database::with_catalog();
    let mut c = db.connect();
    c.grant_for_days(ANN, 100, "first", 1);
    c.grant_for_days(ANN, 100, "second", 2);
    c.grant(ANN, 100, "never");
    c.spend(ANN, 30, "job-1");
    c.lapses_now(ANN, "first");
    assert_eq!(c.balance(ANN), 200);
    assert_eq!(c.run_due(), 1);
    assert_eq!(c.grants(ANN), ["first 0", "second 100", "never 100"]);
    c.lapses_now(ANN, "second");
    assert_eq!(c.balance(ANN), 100);
    assert_eq!(c.run_due(), 1);
    assert_eq!(
        c.ledger(ANN),
        ["grant 100", "grant 100", "grant 100", "spend -30", "lapse -70", "lapse -100"]
    );
}

#[test]
fn sweeps_and_spends_at_once_lapse_once_and_overdraw_nothing() {
    for round in 0..20 {
        let db = Database::with_catalog();
        let mut c = db.connect();
        buy(&mut c, ANN, "cs_1");
        c.grant_for_days(ANN, 200, "gift", 1);
        c.lapses_now(ANN, "gift");
        let works: Vec<_> = (0..8)
            .map(|n| {
                move |c: &mut Connection| -> i64 {
                    if n % 2 == 0 {
                        c.run_due();
                        0
                    } else {
                        c.spend(ANN, 150, &format!("job-{n}")).credits
                    }
                }
            })
            .collect();
        let spent: i64 = together(&db, works).iter().sum();
        assert_eq!(spent, -450, "round {round}: three of the four spends");
        assert_eq!(c.balance(ANN), 50);
        let mut ledger = c.ledger(ANN);
        ledger.sort();
        assert_eq!(
            ledger,
            ["grant 200", "lapse -200", "purchase 500", "spend -150", "spend -150", "spend -150"]
        );
    }
}

#[test]
fn run_due_settles_no_more_accounts_than_its_limit_in_the_order_of_their_users() {
    let db = Database::with_catalog();
    let mut c = db.connect();
    let users: Vec<Uuid> = (1..=5).map(user).collect();
    for user in &users {
        c.grant_for_days(*user, 10, "gift", 1);
        c.lapses_now(*user, "gift");
    }
    assert_eq!(c.one::<i64>("select billing.run_due(2)", &[]), 2);
    let lapsed =
        "select user_id from billing.credit_transactions where transaction_type = 'lapse' order by 1";
    assert_eq!(c.column::<Uuid>(lapsed, &[]), users[..2]);
    assert_eq!(c.one::<i64>("select billing.run_due(2)", &[]), 2);
    assert_eq!(c.one::<i64>("select billing.run_due(2)", &[]), 1);
    assert_eq!(c.one::<i64>("select billing.run_due(2)", &[]), 0);
    assert_eq!(c.column::<Uuid>(lapsed, &[]), users);
}

#[test]
fn run_due_leaves_busy_accounts_to_whoever_holds_them() {
    let db = Database::with_catalog();
    let (mut c, mut other) = (db.connect(), db.connect());
    for user in [ANN, BOB] {
        c.grant_for_days(user, 10, "gift", 1);
        c.lapses_now(user, "gift");
    }
    other.run("set lock_timeout = '5s'");
    c.run("begin");
    c.run(&format!("select from billing.accounts where user_id = '{ANN}' for update"));
    assert_eq!(other.run_due(), 1, "BOB's, without waiting for ANN's");
    assert_eq!(other.ledger(BOB), ["grant 10", "lapse -10"]);
    c.run("rollback");
    assert_eq!(other.run_due(), 1);
    assert_eq!(other.ledger(ANN), ["grant 10", "lapse -10"]);
}

#[test]
fn run_due_posts_returns_and_lapses_of_many_accounts_as_each_access_would_have() {
    let db = Database::with_catalog();
    let mut c = db.connect();
    let users: Vec<Uuid> = (1..=20).map(user).collect();
    let mut expected = Vec::new();
    for (n, user) in users.iter().enumerate() {
        c.grant(*user, 100, "keeps");
        c.grant_for_days(*user, 50, "gift", 1);
        c.reserve(*user, 20, "job-1");
        c.reserve(*user, 60, "job-2");
        if n % 2 == 0 {
            c.runs_out_now(*user, "job-1");
        }
        if n % 3 == 0 {
            c.lapses_now(*user, "gift");
        }
        expected.push(c.reads(*user));
    }
    assert!(expected.iter().any(|read| *read != expected[1]), "they differ");
    let due = (0..20).filter(|n| n % 2 == 0 || n % 3 == 0).count();
    assert_eq!(c.run_due(), i64::try_from(due).expect("small"));
    let after: Vec<(i64, i64)> = users.iter().map(|user| c.reads(*user)).collect();
    assert_eq!(after, expected);
}

#[test]
fn the_balance_at_a_time_is_the_ledgers_up_to_then() {
    let db = Database::with_catalog();
    let mut c = db.connect();
    buy(&mut c, ANN, "cs_1");
    c.grant_for_days(ANN, 200, "gift", 1);
    c.spend(ANN, 300, "job-1");
    c.reserve(ANN, 100, "job-2");
    c.commit(ANN, "job-2", Some(60));
    c.grant_for_days(ANN, 70, "soon", 1);
    c.lapses_now(ANN, "soon");
    c.run_due();
    let wrong: Vec<String> = c.column(
        "select format('%s: %s is not %s', at, billing.balance_at($1, at), ledger)
         from (select distinct t.created_at + step as at
               from billing.credit_transactions t, unnest(array['-1 microsecond', '0', '1 microsecond']::interval[]) step
               where t.user_id = $1) times,
             lateral (select coalesce(sum(amount), 0) as ledger from billing.credit_transactions
                      where user_id = $1 and created_at <= at) upto
         where billing.balance_at($1, at) <> ledger",
        &[&ANN],
    );
    assert_eq!(wrong, [""; 0]);
    let at = |c: &mut Connection, time: &str| -> i64 {
        c.one(&format!("select billing.balance_at($1, {time})"), &[&ANN])
    };
    assert_eq!(at(&mut c, "now()"), 340);
    assert_eq!(
        (at(&mut c, "'-infinity'"), at(&mut c, "'infinity'"), at(&mut c, "'1970-01-01'")),
        (0, 340, 0)
    );
    let first = "(select min(created_at) from billing.credit_transactions)";
    assert_eq!(at(&mut c, first), 500);
    assert_eq!(c.one::<i64>("select billing.balance_at($1, now())", &[&BOB]), 0, "nobody's");
}

#[test]
fn the_balance_at_a_time_falls_below_zero_while_there_is_debt() {
    let db = Database::with_catalog();
    let mut c = db.connect();
    buy(&mut c, ANN, "cs_1");
    c.spend(ANN, 300, "job-1");
    let refund =
        stripe_credits_tests::money_back::refund("re_1", "pi_1", 1000).event("evt_r", "refund.created");
    assert_eq!(c.apply(&refund).said(), "applied");
    assert_eq!(c.one::<i64>("select billing.balance_at($1, now())", &[&ANN]), -300);
    c.grant(ANN, 1000, "gift");
    assert_eq!(c.one::<i64>("select billing.balance_at($1, now())", &[&ANN]), 700);
}

// At once.

#[test]
fn two_transactions_that_spend_the_last_credits_at_once_succeed_once() {
    for (end, second) in [("commit", "rejected insufficient_credits"), ("rollback", "applied")] {
        let db = Database::with_catalog();
        buy(&mut db.connect(), ANN, "cs_1");
        let said = blocked_until(
            end,
            &db,
            |c| c.spend(ANN, 400, "job-1").said(),
            |c| c.spend(ANN, 400, "job-2").said(),
        );
        assert_eq!((said.0.as_str(), said.1.as_str()), ("applied", second), "{end}");
        assert_eq!(db.connect().balance(ANN), 100);
    }
}

#[test]
fn a_spend_that_waits_for_a_purchase_sees_its_credits() {
    let db = Database::with_catalog();
    buy(&mut db.connect(), ANN, "cs_0");
    let said = blocked(
        &db,
        |c| c.apply(&paid_pack("cs_1", ANN).completed("evt_1")).said(),
        |c| c.spend(ANN, 1000, "job-1").said(),
    );
    assert_eq!((said.0.as_str(), said.1.as_str()), ("applied", "applied"));
    assert_eq!(db.connect().balance(ANN), 0);
}

#[test]
fn a_spend_of_a_user_whose_first_purchase_is_not_committed_may_try_again() {
    let db = Database::with_catalog();
    let (mut one, mut other) = (db.connect(), db.connect());
    one.run("begin");
    one.apply(&paid_pack("cs_1", ANN).completed("evt_1"));
    assert_eq!(other.spend(ANN, 500, "job-1").said(), "rejected insufficient_credits");
    one.run("commit");
    assert_eq!(other.spend(ANN, 500, "job-1").said(), "applied");
    assert_eq!(other.ledger(ANN), ["purchase 500", "spend -500"]);
}

#[test]
fn the_last_credits_on_eight_connections_at_once_are_spent_by_exactly_one_fifty_times() {
    let db = Database::with_catalog();
    let mut c = db.connect();
    for round in 0..50 {
        let gift = format!("gift-{round}");
        c.grant(ANN, 10, &gift);
        let works: Vec<_> = (0..8)
            .map(|n| move |c: &mut Connection| c.spend(ANN, 10, &format!("job-{round}-{n}")).said())
            .collect();
        let said = together(&db, works);
        assert_eq!(said.iter().filter(|said| *said == "applied").count(), 1, "{said:?}");
        assert_eq!(c.balance(ANN), 0);
    }
}

#[test]
fn thirty_two_connections_spend_from_one_hot_account_to_the_last_credit_and_not_below() {
    let db = Database::with_catalog();
    let mut c = db.connect();
    for n in 0..20 {
        buy(&mut c, ANN, &format!("cs_{n}"));
    }
    let works: Vec<_> = (0..32)
        .map(|n| {
            move |c: &mut Connection| -> (i64, i64) {
                let mut chance = Chance::new(n);
                let (mut taken, mut refused) = (0, 0);
                for request in 0..25 {
                    let spent = c.spend(ANN, chance.between(1, 40), &format!("job-{n}-{request}"));
                    match spent.said().as_str() {
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
    let said = together(&db, works);
    let taken: i64 = said.iter().map(|(taken, _)| taken).sum();
    let refused: i64 = said.iter().map(|(_, refused)| refused).sum();
    assert!(refused > 0, "they wanted more than there was");
    let left = c.balance(ANN);
    assert_eq!(taken + left, 10_000);
    assert!((0..40).contains(&left), "{left}: a small spend would still have fit");
    let lowest: i64 =
        c.one("select min(balance_after) from billing.credit_transactions where user_id = $1", &[&ANN]);
    assert!(lowest >= 0);
}
