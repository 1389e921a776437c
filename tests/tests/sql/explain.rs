//! The operators' functions: what an event would do, what became of a session, how the system does, repair.

use serde_json::{Value, json};
use stripe_credits_tests::{
    ANN, BOB, Connection, Database, Event, catalog, event, fetched_lines, nothing_fetched, paid_pack,
    session, user,
};

#[test]
fn explain_event_answers_what_the_event_then_does_and_writes_nothing() {
    let db = Database::with_catalog();
    let mut c = db.connect();
    c.sign_up(ANN);
    let pack = |name: &str| paid_pack(&format!("cs_{name}"), ANN).with("customer", "cus_1");
    let bare = session("cs_bare").of(ANN);
    let lines = fetched_lines(&bare, &[("price_pack", 3)]);
    let events: Vec<(Event, Option<Value>, &str)> = vec![
        (pack("a").with("payment_status", "unpaid").completed("evt_1"), None, "ignored unpaid"),
        (
            session("cs_x").metadata("price_id", "price_pack").with("customer", "cus_x").completed("evt_2"),
            None,
            "parked unknown_user",
        ),
        (pack("a").completed("evt_3"), None, "applied"),
        (pack("a").completed("evt_3"), None, "already_applied"),
        (pack("a").completed("evt_4"), None, "already_applied"),
        (pack("b").metadata("price_id", "price_new").completed("evt_5"), None, "parked unknown_price"),
        (bare.completed("evt_6"), None, "needs_fetch"),
        (bare.completed("evt_6"), Some(nothing_fetched()), "parked unfetched"),
        (bare.completed("evt_6"), Some(lines), "applied"),
        (pack("a").of(BOB).completed("evt_7"), None, "rejected conflict"),
        (pack("c").metadata("price_id", "price_tshirt").completed("evt_8"), None, "ignored not_credits"),
        (pack("c").completed("evt_9").with("livemode", true), None, "ignored livemode"),
        (
            event("evt_10", "invoice.paid", json!({"id": "in_1", "object": "invoice"})),
            None,
            "ignored no_subscription",
        ),
        (pack("c").completed("evt_11").with("created", "yesterday"), None, "rejected malformed"),
    ];
    for (event, fetched, expected) in events {
        let before = c.everything();
        let explained = c.call("explain_event($1, $2)", &[event.json(), &fetched]);
        assert_eq!(c.everything(), before, "{}: explaining wrote something", event.id());
        assert_eq!(explained.summary(), expected, "{}", event.id());
        let applied = c.call("apply_stripe_event($1, $2)", &[event.json(), &fetched]);
        assert_eq!(explained, applied, "{}", event.id());
    }
}

#[test]
fn explain_event_leaves_the_callers_transaction_as_it_was() {
    let db = Database::with_catalog();
    let mut c = db.connect();
    c.run("begin");
    c.sign_up(ANN);
    assert_eq!(c.explain(&paid_pack("cs_1", ANN).completed("evt_1")).remaining_total, Some(1000));
    c.run("commit");
    assert_eq!(c.ledger(ANN), ["signup 500"]);
    assert_eq!(c.inbox("evt_1"), None);
}

#[test]
fn explain_checkout_session_tells_event_payment_grant_ledger_and_effect() {
    let db = Database::with_catalog();
    let mut c = db.connect();
    let explain = |c: &mut Connection| c.one::<Value>("select billing.explain_checkout_session('cs_1')", &[]);
    let nothing = explain(&mut c);
    assert_eq!(nothing["payment"], Value::Null);
    assert_eq!(
        (&nothing["events"], &nothing["grants"], &nothing["balance_effect"]),
        (&json!([]), &json!([]), &json!(0))
    );
    let paid = paid_pack("cs_1", ANN).with("customer", "cus_1");
    c.apply(&paid.clone().with("payment_status", "unpaid").completed("evt_1"));
    c.apply(&paid.event("evt_2", "checkout.session.async_payment_succeeded"));
    c.reconcile(&paid, ANN);
    c.apply(&paid_pack("cs_2", ANN).completed("evt_3"));
    let explained = explain(&mut c);
    let outcomes: Vec<&str> =
        explained["events"].as_array().unwrap().iter().map(|e| e["outcome"].as_str().unwrap()).collect();
    assert_eq!(outcomes, ["ignored", "applied", "already_applied"]);
    assert_eq!(explained["payment"]["user_id"], ANN.to_string());
    assert_eq!(explained["payment"]["payment_intent_ids"], json!(["pi_1"]));
    assert_eq!(
        (&explained["grants"][0]["amount"], &explained["grants"][0]["remaining"]),
        (&json!(500), &json!(500))
    );
    assert_eq!(explained["transactions"].as_array().unwrap().len(), 1);
    assert_eq!(explained["balance_effect"], 500);
}

#[test]
fn credit_system_metrics_count_what_waits_and_what_happened() {
    let db = Database::with_catalog();
    let mut c = db.connect();
    let metrics = |c: &mut Connection| c.one::<Value>("select billing.credit_system_metrics()", &[]);
    let idle = metrics(&mut c);
    assert_eq!(
        (&idle["events"], &idle["parked_events"], &idle["transactions"]),
        (&json!(0), &json!(0), &json!(0))
    );
    c.apply(&paid_pack("cs_1", ANN).completed("evt_1"));
    c.apply(&paid_pack("cs_1", ANN).completed("evt_1"));
    c.apply(&paid_pack("cs_2", ANN).metadata("price_id", "price_new").completed("evt_2"));
    c.apply(&session("cs_3").metadata("price_id", "price_pack").completed("evt_3"));
    c.apply(&session("cs_4").of(ANN).completed("evt_4"));
    c.apply(&paid_pack("cs_5", ANN).with("payment_status", "unpaid").completed("evt_5"));
    c.apply(&paid_pack("cs_1", BOB).completed("evt_6"));
    let busy = metrics(&mut c);
    for (name, count) in [
        ("events", 6),
        ("events_applied", 1),
        ("events_ignored", 1),
        ("events_rejected", 1),
        ("redeliveries", 1),
        ("parked_events", 2),
        ("needs_fetch_events", 1),
        ("transactions", 1),
        ("credits_granted", 500),
        ("credits_taken", 0),
        ("accounts_due", 0),
    ] {
        assert_eq!(busy[name], count, "{name}: {busy}");
    }
    assert_eq!(busy["parked_by_reason"], json!({"unknown_price": 1, "unknown_user": 1}));
    assert!(busy["oldest_waiting_at"].is_string());
    let other: Value = c.one("select billing.credit_system_metrics('1 microsecond')", &[]);
    assert_eq!(
        (&other["events"], &other["parked_events"]),
        (&json!(0), &json!(2)),
        "what waits, waits whenever it came"
    );
}

#[test]
fn pruning_never_deletes_what_waits_and_a_pruned_event_is_already_applied() {
    let db = Database::with_catalog();
    let mut c = db.connect();
    let applied = paid_pack("cs_1", ANN).completed("evt_applied");
    c.apply(&applied);
    c.apply(&paid_pack("cs_2", ANN).with("payment_status", "unpaid").completed("evt_ignored"));
    c.apply(&paid_pack("cs_1", BOB).completed("evt_rejected"));
    c.apply(
        &session("cs_3").metadata("price_id", "price_pack").with("customer", "cus_3").completed("evt_parked"),
    );
    c.apply(&session("cs_4").of(ANN).completed("evt_needs_fetch"));
    assert_eq!(c.one::<i64>("select billing.prune_stripe_events('1 day')", &[]), 0);
    assert_eq!(c.one::<i64>("select billing.prune_stripe_events('1 microsecond')", &[]), 3);
    let left: Vec<String> = c.column("select event_id from billing.stripe_events order by 1", &[]);
    assert_eq!(left, ["evt_needs_fetch", "evt_parked"]);
    assert_eq!(c.apply(&applied).summary(), "already_applied");
    assert_eq!(c.ledger(ANN), ["purchase 500"]);
    assert_eq!(c.attribute("cus_3", ANN).credits, 500);
}

#[test]
fn retry_parked_judges_the_longest_waiting_first_and_answers_an_outcome_each() {
    let db = Database::with_catalog();
    let mut c = db.connect();
    for n in 1..=3 {
        let unowned =
            session(&format!("cs_{n}")).metadata("price_id", "price_pack").with("customer", "cus_1");
        c.apply(&unowned.completed(&format!("evt_{n}")));
    }
    // A customer link that a restore brought, without the call that would have applied what waits for it.
    c.run(&format!("insert into billing.customers values ('cus_1', '{ANN}', 'server', now())"));
    let retried = |c: &mut Connection, limit: i32| -> Vec<String> {
        c.column(
            "select concat_ws(' ', o.details ->> 'event_id', o.outcome, o.credits) from billing.retry_parked($1) o",
            &[&limit],
        )
    };
    assert_eq!(retried(&mut c, 2), ["evt_1 applied 500", "evt_2 applied 500"]);
    assert_eq!(retried(&mut c, 2), ["evt_3 applied 500"]);
    assert_eq!(retried(&mut c, 2), [""; 0]);
    assert_eq!(c.balance(ANN), 1500);
}

#[test]
fn retry_parked_starves_no_event() {
    let db = Database::with_catalog();
    let mut c = db.connect();
    for n in 1..=3 {
        c.apply(
            &paid_pack(&format!("cs_{n}"), user(n))
                .metadata("price_id", "price_new")
                .completed(&format!("evt_{n}")),
        );
    }
    let mut seen: Vec<String> = Vec::new();
    for _ in 0..3 {
        seen.extend(c.column::<String>("select details ->> 'event_id' from billing.retry_parked(1)", &[]));
    }
    seen.sort();
    assert_eq!(seen, ["evt_1", "evt_2", "evt_3"]);
}

#[test]
fn retry_parked_leaves_a_busy_account_for_the_next_time() {
    let db = Database::with_catalog();
    let mut c = db.connect();
    c.sign_up(ANN);
    c.apply(&paid_pack("cs_1", ANN).metadata("price_id", "price_new").completed("evt_1"));
    let mut busy = db.connect();
    busy.run(&format!("begin; select from billing.accounts where user_id = '{ANN}' for update"));
    c.run("set lock_timeout = '10s'");
    assert_eq!(c.one::<i64>("select count(*) from billing.retry_parked()", &[]), 0);
    busy.run("rollback");
    assert_eq!(c.one::<i64>("select count(*) from billing.retry_parked()", &[]), 1);
}

#[test]
fn validate_names_a_broken_cache_and_sync_repairs_it() {
    let db = Database::with_catalog();
    let mut c = db.connect();
    c.apply(&paid_pack("cs_1", ANN).completed("evt_1"));
    c.sign_up(BOB);
    c.run(&format!("update billing.accounts set purchased_credits = 7 where user_id = '{ANN}'"));
    let named = |c: &mut Connection| -> Vec<String> {
        c.column(
            "select concat_ws(' ', user_id, stored_balance, calculated_balance, difference)
             from billing.validate_credits_consistency()",
            &[],
        )
    };
    assert_eq!(named(&mut c), [format!("{ANN} 7 500 -493")]);
    assert_eq!(c.one::<i64>("select billing.sync_user_credits($1)", &[&ANN]), 500);
    assert_eq!(named(&mut c), [""; 0]);
    assert_eq!(c.balance(ANN), 500);
    let before = c.ledger(ANN);
    assert_eq!(c.one::<i64>("select billing.sync_user_credits($1)", &[&ANN]), 500);
    assert_eq!(c.ledger(ANN), before, "where the books agree it changes nothing");
    assert_eq!(c.one::<i64>("select billing.sync_user_credits($1)", &[&user(9)]), 0);
}

#[test]
fn sync_repairs_the_counters_and_the_due_time_too() {
    let db = Database::with_catalog();
    let mut c = db.connect();
    c.call("grant_credits($1, 40, 'lent', 'lent', clock_timestamp() + interval '1 day')", &[&ANN]);
    c.apply(&paid_pack("cs_1", ANN).completed("evt_1"));
    c.run("update billing.accounts set last_grant_id = 0, last_transaction_id = 0, next_due_at = null, version = 0");
    assert_eq!(c.one::<i64>("select billing.sync_user_credits($1)", &[&ANN]), 540);
    assert!(c.one::<bool>("select next_due_at is not null from billing.accounts", &[]));
    assert_eq!(c.grant(ANN, 1, "after").summary(), "applied");
    assert_eq!(c.ledger(ANN), ["grant 40", "purchase 500", "grant 1"]);
}

#[test]
fn validate_names_every_kind_of_broken_books() {
    let db = Database::with_catalog();
    let mut c = db.connect();
    c.apply(&paid_pack("cs_1", ANN).completed("evt_1"));
    c.sign_up(ANN);
    c.sign_up(BOB);
    for breakage in [
        "update billing.accounts set promotional_credits = promotional_credits + 1",
        "update billing.accounts set debt = 1",
        "update billing.accounts set purchased_credits = 0, subscription_credits = 500",
        "update billing.accounts set purchased_credits = 400, promotional_credits = 600",
        "update billing.credit_grants set remaining = remaining - 1 where pool = 'purchased'",
        "update billing.credit_grants set remaining = 0",
        "update billing.credit_grants set pool = 'subscription' where pool = 'purchased'",
        "delete from billing.credit_grants",
        "delete from billing.accounts",
        "insert into billing.credit_transactions
             (user_id, id, operation_id, transaction_type, amount, grant_id, pool, balance_after, created_at, recorded_at, hash)
         select user_id, 99, 99, 'grant', 1, 1, 'purchased', 1001, now(), now(), '' from billing.accounts",
    ] {
        c.run("begin");
        c.run(breakage);
        let named: Vec<uuid::Uuid> =
            c.column("select user_id from billing.validate_credits_consistency()", &[]);
        assert!(named.contains(&ANN), "not seen: {breakage}");
        c.run("rollback");
    }
}

#[test]
fn a_redelivery_under_other_settings_never_takes_back_that_it_was_applied() {
    let db = Database::with_catalog();
    let mut c = db.connect();
    let paid = paid_pack("cs_1", ANN).completed("evt_1");
    c.apply(&paid);
    let mut live = catalog();
    live["livemode"] = true.into();
    c.load_catalog(&live);
    assert_eq!(c.apply(&paid).summary(), "ignored livemode");
    assert_eq!(c.inbox("evt_1").as_deref(), Some("applied"));
    assert_eq!(c.ledger(ANN), ["purchase 500"]);
}
