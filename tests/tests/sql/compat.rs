//! compat/public.sql: the names that existing apps call and read, each as PostgREST calls it, with the rows it leaves.

use std::fs;
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};
use stripe_credits_tests::refunds::bought;
use stripe_credits_tests::server_copy::repository;
use stripe_credits_tests::subscription::{PRO, renewal, subscription};
use stripe_credits_tests::{ANN, BOB, Connection, Database, paid_pack, user};
use uuid::Uuid;

/// What such an app has: its users, and what it shows of them. The tables belong to a role without rights on the books.
const APP: &str = "
    create schema auth;
    create table auth.users (id uuid primary key, email varchar(255));
    create type public.plan_status as enum ('none', 'active', 'past_due', 'canceled');
    create table public.profiles (
        id bigint generated always as identity primary key, user_id uuid unique,
        subscription_status public.plan_status, subscription_tier text, credits_balance integer);
    create table public.users (id uuid primary key, credits_balance integer not null default 0, name text);
    alter table public.profiles enable row level security;
    alter table public.users enable row level security;
    alter table auth.users enable row level security;
    alter schema auth owner to authenticator;
    alter table auth.users owner to authenticator;
    alter table public.profiles owner to authenticator;
    alter table public.users owner to authenticator;
    -- As Supabase's.
    alter default privileges in schema public grant all on functions to anon, authenticated, service_role;
    alter default privileges in schema public grant all on tables to anon, authenticated, service_role;
";

fn script(name: &str) -> String {
    let text = fs::read_to_string(repository().join("compat").join(name)).expect("a script");
    format!("begin; {text}; commit")
}

/// A database with an app in it, and the names over the books.
fn app() -> Database {
    let db = Database::with_catalog();
    let mut c = db.connect();
    c.run(APP);
    for (id, name) in [(ANN, "ann"), (BOB, "bob")] {
        c.run(&format!(
            "insert into public.profiles (user_id) values ('{id}');
             insert into public.users (id, name) values ('{id}', '{name}');
             insert into auth.users values ('{id}', '{name}@example.com')"
        ));
    }
    c.run(&script("public.sql"));
    db
}

/// A server's connection through PostgREST.
fn service(db: &Database) -> Connection {
    let mut c = db.connect();
    c.run("set session authorization service_role; set request.jwt.claims = '{\"role\": \"service_role\"}'");
    c
}

/// A user's connection through PostgREST.
fn client(db: &Database, id: Uuid) -> Connection {
    let mut c = db.connect();
    c.run(&format!("set role authenticated; set request.jwt.claims = '{{\"sub\": \"{id}\"}}'"));
    c
}

/// Calls a function by the names of its arguments, as PostgREST does.
fn rpc(c: &mut Connection, name: &str, arguments: &Value) -> Value {
    c.one(&format!("select to_jsonb(public.{name}({}))", named(arguments)), &[])
}

fn named(arguments: &Value) -> String {
    let arguments = arguments.as_object().expect("arguments by name").iter();
    let text = |value: &Value| match value {
        Value::String(text) => format!("'{text}'"),
        Value::Object(_) => format!("'{value}'"),
        other => other.to_string(),
    };
    let arguments = arguments.map(|(name, value)| format!("{name} => {}", text(value)));
    arguments.collect::<Vec<_>>().join(", ")
}

/// What the app shows of a user: status, tier and balance in profiles, the balance in users.
fn shown(c: &mut Connection, id: Uuid) -> String {
    c.one(
        "select concat_ws(' ', p.subscription_status, p.subscription_tier, p.credits_balance, u.credits_balance)
         from public.profiles p join public.users u on u.id = p.user_id where p.user_id = $1",
        &[&id],
    )
}

/// Ann signs up as the app does it.
fn sign_up(c: &mut Connection, id: Uuid) {
    c.run(&format!("insert into auth.users values ('{id}', 'new@example.com')"));
}

#[test]
fn a_packs_purchase_is_one_with_its_webhook() {
    let db = app();
    let (mut c, mut books) = (service(&db), db.connect());
    let name = "admin_apply_stripe_credit_pack_purchase";
    let call = json!({"p_user_id": ANN, "p_amount": 500, "p_event_id": "evt_1", "p_checkout_session_id": "cs_1",
        "p_payment_intent_id": "pi_1", "p_customer_id": "cus_1", "p_price_id": "price_pack", "p_pack": "small"});
    let answer = json!({"ok": true, "already_applied": false, "tier": "free", "remaining_monthly": 0,
        "remaining_bonus": 500});
    assert_eq!(rpc(&mut c, name, &call), answer);
    assert_eq!(rpc(&mut c, name, &call)["already_applied"], true);
    assert_eq!(books.apply(&bought("cs_1", ANN)).summary(), "already_applied");
    let refused = |c: &mut Connection, field: &str, value: Value| {
        let mut call = call.clone();
        call[field] = value;
        rpc(c, name, &call)
    };
    for amount in [json!(0), json!(-5), json!(null), json!(1_000_000_000_001_i64)] {
        let answer = refused(&mut c, "p_amount", amount);
        assert_eq!(answer, json!({"ok": false, "reason": "invalid_amount"}));
    }
    for session in [json!(null), json!(" ")] {
        let answer = refused(&mut c, "p_checkout_session_id", session);
        assert_eq!(answer, json!({"ok": false, "reason": "missing_checkout_session_id"}));
    }
    assert_eq!(refused(&mut c, "p_user_id", json!(null))["reason"], "missing_user_id");
    assert_eq!(refused(&mut c, "p_user_id", json!(BOB))["reason"], "conflict");
    assert_eq!(books.ledger(ANN), ["purchase 500"]);
    assert_eq!(shown(&mut books, ANN), "none free 500 500");
}

#[test]
fn a_subscriptions_state_and_its_end() {
    let db = app();
    let (mut c, mut books) = (service(&db), db.connect());
    let state = json!({"p_user_id": ANN, "p_tier": "pro", "p_customer_id": "cus_1", "p_subscription_id": "sub_1",
        "p_price_id": "price_pro", "p_cycle_start": "2026-11-01T00:00:00Z", "p_cycle_end": "2026-12-01T00:00:00Z",
        "p_event_id": "evt_1", "p_invoice_id": "in_1", "p_reset_usage": true});
    let applied = rpc(&mut c, "apply_stripe_subscription_state", &state);
    assert_eq!(applied["tier"], "pro");
    assert_eq!((&applied["ok"], &applied["remaining_monthly"]), (&json!(true), &json!(10_000)));
    assert_eq!(books.ledger(ANN), ["subscription_grant 10000"]);
    assert_eq!(shown(&mut books, ANN), "active pro 10000 10000");
    let mut wrong = state.clone();
    wrong["p_cycle_end"] = json!("2026-10-01T00:00:00Z");
    assert_eq!(rpc(&mut c, "apply_stripe_subscription_state", &wrong)["reason"], "invalid_cycle");
    wrong["p_cycle_end"] = state["p_cycle_end"].clone();
    wrong["p_price_id"] = json!("price_unknown");
    wrong["p_user_id"] = json!(BOB);
    wrong["p_subscription_id"] = json!("sub_9");
    wrong["p_invoice_id"] = json!("in_9");
    assert_eq!(rpc(&mut c, "apply_stripe_subscription_state", &wrong)["reason"], "unknown_price");

    let name = "apply_stripe_subscription_canceled";
    let other = json!({"p_user_id": BOB, "p_event_id": "evt_3", "p_subscription_id": "sub_1"});
    assert_eq!(rpc(&mut c, name, &other)["reason"], "conflict");
    let cancel = json!({"p_user_id": ANN, "p_event_id": "evt_2"});
    let canceled = rpc(&mut c, name, &cancel);
    assert_eq!((&canceled["ok"], &canceled["tier"]), (&json!(true), &json!("free")), "{canceled}");
    let again =
        rpc(&mut c, name, &json!({"p_user_id": ANN, "p_event_id": "evt_2", "p_subscription_id": "sub_1"}));
    assert_eq!((&again["ok"], &again["already_applied"]), (&json!(true), &json!(true)), "{again}");
    assert_eq!(rpc(&mut c, name, &json!({"p_user_id": user(9), "p_event_id": "evt_4"}))["tier"], "free");
    assert_eq!(
        rpc(&mut c, name, &json!({"p_user_id": null, "p_event_id": "evt_4"}))["reason"],
        "missing_user_id"
    );
    assert_eq!(shown(&mut books, ANN), "canceled free 10000 10000", "the catalog's policy keeps them");
}

#[test]
fn credits_are_consumed_once_per_request() {
    let db = app();
    let (mut c, mut books) = (service(&db), db.connect());
    books.grant(ANN, 100, "gift");
    let spend = json!({"p_user_id": ANN, "p_amount": 30, "p_description": "a picture",
        "p_metadata": {"model": "m"}, "p_request_id": user(77)});
    let answer = json!({"ok": true, "already_applied": false, "tier": "free", "remaining_monthly": 0,
        "remaining_bonus": 70, "cycle_end_at": null});
    assert_eq!(rpc(&mut c, "consume_credits", &spend), answer);
    assert_eq!(rpc(&mut c, "consume_credits", &spend)["already_applied"], true);
    for _ in 0..2 {
        let short = json!({"p_user_id": ANN, "p_amount": 10});
        assert_eq!(rpc(&mut c, "consume_credits", &short)["ok"], true);
    }
    let more = json!({"p_user_id": ANN, "p_amount": 51});
    let refused = rpc(&mut c, "consume_credits", &more);
    assert_eq!((&refused["ok"], &refused["reason"]), (&json!(false), &json!("insufficient_credits")));
    assert_eq!(
        (&refused["remaining_monthly"], &refused["remaining_bonus"]),
        (&json!(0), &json!(50)),
        "{refused}"
    );
    let none = json!({"p_user_id": ANN, "p_amount": 0});
    assert_eq!(rpc(&mut c, "consume_credits", &none), json!({"ok": false, "reason": "invalid_amount"}));
    let nobody = json!({"p_user_id": null, "p_amount": 1});
    assert_eq!(rpc(&mut c, "consume_credits", &nobody), json!({"ok": false, "reason": "missing_user_id"}));
    assert_eq!(books.ledger(ANN), ["grant 100", "spend -30", "spend -10", "spend -10"]);
    assert_eq!(shown(&mut books, ANN), "none free 50 50");
}

#[test]
fn reservations_are_committed_released_and_given_back() {
    let db = app();
    let (mut c, mut books) = (service(&db), db.connect());
    books.apply(&renewal("in_1", "sub_1", PRO, 0).of(ANN).paid("evt_1"));
    books.call("spend_credits($1, 9960, 'before')", &[&ANN]);
    books.grant(ANN, 100, "gift");
    let call = |n: u128| json!({"p_user_id": ANN, "p_request_id": user(n)});
    let reserve = |n: u128, amount: i64| {
        let mut call = call(n);
        call["p_amount"] = json!(amount);
        call["p_feature"] = json!("image");
        call
    };
    let held = rpc(&mut c, "reserve_credits", &reserve(51, 60));
    assert_eq!((&held["reserved_monthly"], &held["reserved_bonus"]), (&json!(40), &json!(20)), "{held}");
    assert_eq!((&held["remaining_monthly"], &held["remaining_bonus"]), (&json!(0), &json!(80)));
    let again = rpc(&mut c, "reserve_credits", &reserve(51, 60));
    assert_eq!((&again["already_applied"], &again["reserved_bonus"]), (&json!(true), &json!(20)));
    assert_eq!(rpc(&mut c, "reserve_credits", &reserve(52, 81))["reason"], "insufficient_credits");
    assert_eq!(rpc(&mut c, "reserve_credits", &reserve(52, 0))["reason"], "invalid_amount");
    let nameless = json!({"p_user_id": ANN, "p_request_id": null, "p_amount": 1, "p_feature": "image"});
    assert_eq!(rpc(&mut c, "reserve_credits", &nameless)["reason"], "missing_request_id");

    assert_eq!(rpc(&mut c, "commit_reserved_credits", &call(51))["ok"], true);
    assert_eq!(rpc(&mut c, "commit_reserved_credits", &call(51))["already_applied"], true);
    assert_eq!(rpc(&mut c, "commit_reserved_credits", &call(59))["reason"], "missing_reservation");
    rpc(&mut c, "reserve_credits", &reserve(53, 10));
    assert_eq!(rpc(&mut c, "release_reserved_credits", &call(53))["remaining_bonus"], 80);
    assert_eq!(rpc(&mut c, "commit_reserved_credits", &call(53))["reason"], "invalid_reservation_state");
    // What was committed is given back, once.
    assert_eq!(rpc(&mut c, "refund_consumed_credits", &call(51))["remaining_bonus"], 100);
    assert_eq!(rpc(&mut c, "release_reserved_credits", &call(51))["already_applied"], true);
    // And a spend.
    let spend = json!({"p_user_id": ANN, "p_amount": 5, "p_request_id": user(54)});
    rpc(&mut c, "consume_credits", &spend);
    assert_eq!(rpc(&mut c, "refund_consumed_credits", &call(54))["ok"], true);
    assert_eq!(rpc(&mut c, "refund_consumed_credits", &call(60))["reason"], "missing_reservation");
    assert_eq!(books.balance(ANN), 140);
    let mut ledger = books.ledger(ANN);
    ledger.drain(..3);
    assert_eq!(
        ledger,
        [
            "reservation -40",
            "reservation -20",
            "reservation -10",
            "release 10",
            "spend_refund 20",
            "spend_refund 40",
            "spend -5",
            "spend_refund 5"
        ]
    );
}

#[test]
fn purchased_credits_of_a_stripe_payment_are_one_with_its_webhook() {
    let db = app();
    let (mut c, mut books) = (service(&db), db.connect());
    let add = |reference: Option<&str>| json!({"target_user_id": ANN, "amount": 500, "ref_id": reference, "description": "500 credits"});
    assert_eq!(rpc(&mut c, "add_purchased_credits", &add(Some("session_cs_test_a1"))), 500);
    assert_eq!(rpc(&mut c, "add_purchased_credits", &add(Some("session_cs_test_a1"))), 500);
    assert_eq!(books.apply(&bought("cs_test_a1", ANN)).summary(), "already_applied");
    // By the payment intent alone, before and after the webhook.
    assert_eq!(rpc(&mut c, "add_purchased_credits", &add(Some("pi_pi_2"))), 1000);
    let session = paid_pack("cs_2", ANN).with("payment_intent", "pi_2");
    assert_eq!(books.apply(&session.completed("evt_2")).summary(), "already_applied");
    let session = paid_pack("cs_3", ANN).with("payment_intent", "pi_3");
    books.apply(&session.completed("evt_3"));
    assert_eq!(rpc(&mut c, "add_purchased_credits", &add(Some("pi_pi_3"))), 1500);
    assert_eq!(rpc(&mut c, "add_purchased_credits", &add(Some("promo-7"))), 2000);
    assert_eq!(rpc(&mut c, "add_purchased_credits", &add(Some("promo-7"))), 2000);
    assert_eq!(rpc(&mut c, "add_purchased_credits", &add(None)), 2500);
    assert_eq!(
        rpc(&mut c, "add_purchased_credits", &add(None)),
        3000,
        "without a reference each call counts"
    );
    assert_eq!(
        books.ledger(ANN),
        ["purchase 500", "purchase 500", "purchase 500", "import 500", "import 500", "import 500"]
    );
    let refusal = c.refusal(&format!("select public.add_purchased_credits('{ANN}', 0)"));
    assert_eq!((refusal.code.as_str(), refusal.message.as_str()), ("P0001", "Amount must be positive: 0"));
    let refusal = c.refusal(&format!("select public.add_purchased_credits('{BOB}', 500, 'session_cs_2')"));
    assert_eq!((refusal.code.as_str(), refusal.message.as_str()), ("P0001", "conflict"));
}

#[test]
fn subscription_credits_increments_and_the_sum() {
    let db = app();
    let (mut c, mut books) = (service(&db), db.connect());
    let add = json!({"target_user_id": ANN, "amount": 200, "ref_id": "invoice_in_7"});
    assert_eq!(rpc(&mut c, "add_subscription_credits", &add), 200);
    assert_eq!(rpc(&mut c, "add_subscription_credits", &add), 200);
    books.apply(&renewal("in_8", "sub_1", PRO, 0).of(ANN).paid("evt_1"));
    let known = json!({"target_user_id": ANN, "amount": 10_000, "ref_id": "invoice_in_8"});
    assert_eq!(rpc(&mut c, "add_subscription_credits", &known), 10_200, "its webhook granted them");
    for (arguments, balance) in [
        (json!({"user_id": BOB, "amount": 40}), 40),
        (json!({"p_user_id": BOB, "p_amount": 2}), 42),
        (json!({"target_user_id": BOB, "amount": -12}), 30),
        (json!({"user_id": BOB, "amount": 5, "ref_id": "promo"}), 35),
        (json!({"user_id": BOB, "amount": 5, "ref_id": "promo"}), 35),
    ] {
        assert_eq!(rpc(&mut c, "increment_credits", &arguments), balance, "{arguments}");
    }
    let refusal = c.refusal(&format!("select public.increment_credits('{BOB}', -36)"));
    assert_eq!((refusal.code.as_str(), refusal.message.as_str()), ("P0001", "insufficient_credits"));
    assert_eq!(books.ledger(BOB), ["adjustment 40", "adjustment 2", "adjustment -12", "adjustment 5"]);

    books.run(&format!("update public.profiles set credits_balance = 7 where user_id = '{BOB}'"));
    books.run(&format!("update public.users set credits_balance = 8 where id = '{BOB}'"));
    assert_eq!(rpc(&mut c, "sync_user_credits", &json!({"target_user_id": BOB})), 35);
    assert_eq!(shown(&mut books, BOB), "none free 35 35");
}

#[test]
fn clients_read_their_own_rows_with_the_columns_they_know() {
    let db = app();
    let mut books = db.connect();
    let paid = paid_pack("cs_1", ANN).with("customer", "cus_ann").with("payment_intent", "pi_1");
    assert_eq!(books.apply(&paid.completed("evt_1")).summary(), "applied");
    books.apply(&subscription("sub_2", "price_pro").of(BOB).created("evt_2"));
    books.apply(&renewal("in_2", "sub_2", PRO, 0).of(BOB).paid("evt_3"));
    let mut server = service(&db);
    rpc(&mut server, "consume_credits", &json!({"p_user_id": ANN, "p_amount": 20, "p_description": "a job"}));

    let mut ann = client(&db, ANN);
    let credits: Value = ann.one("select jsonb_agg(c) from public.user_credits c", &[]);
    let credits = credits.as_array().expect("rows");
    assert_eq!(credits.len(), 1, "{credits:?}");
    for (column, value) in [
        ("user_id", json!(ANN)),
        ("tier", json!("free")),
        ("credits_balance", json!(480)),
        ("bonus_credits_total", json!(500)),
        ("bonus_credits_used", json!(20)),
        ("reserved_bonus", json!(0)),
        ("bonus_granted", json!(false)),
        ("cycle_source", json!("profile_created")),
        ("stripe_customer_id", json!("cus_ann")),
    ] {
        assert_eq!(credits[0][column], value, "{column}");
    }
    let rows: Vec<String> = ann.column(
        "select concat_ws(' ', user_email, transaction_type, pool, amount, credits_added, amount_paid, currency,
             plan_name, stripe_session_id, stripe_payment_intent_id) from public.credit_transactions order by id",
        &[],
    );
    assert_eq!(
        rows,
        [
            "ann@example.com purchase bonus 500 500 1000 usd 500 credits cs_1 pi_1",
            "ann@example.com usage bonus -20 0"
        ]
    );
    let others: i64 = ann.one(
        &format!("select count(*) from public.stripe_credits_payment('{BOB}', 1) p where p is not null"),
        &[],
    );
    assert_eq!(others, 0, "another user's address and payments");
    let all: Vec<String> = server.column(
        "select concat_ws(' ', user_email, amount, amount_paid) from public.credit_transactions order by 1",
        &[],
    );
    assert_eq!(all, ["ann@example.com -20", "ann@example.com 500 1000", "bob@example.com 10000 10000"]);
    let tiers: Vec<String> =
        server.column("select concat_ws(' ', tier, cycle_source) from public.user_credits order by 1", &[]);
    assert_eq!(tiers, ["free profile_created", "pro stripe_subscription"]);
    let mut unsigned = db.connect_as("anon");
    for view in ["user_credits", "credit_transactions"] {
        assert_eq!(unsigned.refusal(&format!("select * from public.{view}")).code, "42501");
    }
}

/// A connection, and the warnings that the server sends to it.
fn with_warnings(db: &Database) -> (Connection, Arc<Mutex<Vec<String>>>) {
    let warnings = Arc::new(Mutex::new(Vec::new()));
    let heard = warnings.clone();
    let mut config: postgres::Config = db.url().parse().expect("a connection string");
    config.notice_callback(move |notice| heard.lock().expect("the list").push(notice.message().to_owned()));
    let client = config.connect(postgres::NoTls).expect("the server accepts connections");
    (Connection::new(client), warnings)
}

#[test]
fn a_trigger_that_fails_is_logged_and_never_stops_a_payment() {
    let db = app();
    let (mut c, warnings) = with_warnings(&db);
    let heard = || std::mem::take(&mut *warnings.lock().expect("the list")).join("\n");
    c.run("alter table public.profiles add check (credits_balance < 900)");
    assert_eq!(c.apply(&bought("cs_1", ANN)).summary(), "applied");
    assert_eq!((shown(&mut c, ANN), heard()), ("none free 500 500".into(), String::new()));
    assert_eq!(c.apply(&bought("cs_2", ANN)).summary(), "applied");
    assert_eq!(shown(&mut c, ANN), "none free 500 1000", "the other table is still kept");
    let warning = heard();
    assert!(warning.contains("public.profiles of user") && warning.contains("check constraint"), "{warning}");
    // An enumeration without the value, a table that is gone.
    c.run("alter table public.profiles drop constraint profiles_credits_balance_check");
    c.apply(&subscription("sub_1", "price_pro").of(ANN).with("status", "trialing").created("evt_3"));
    assert!(heard().contains("invalid input value for enum"), "trialing is none of the app's states");
    c.run("drop table public.users");
    assert_eq!(c.apply(&bought("cs_3", ANN)).summary(), "applied");
    assert!(heard().contains("does not exist"));
    assert_eq!(c.balance(ANN), 1500);
}

#[test]
fn a_payment_does_not_wait_for_a_row_that_the_app_has_locked() {
    let db = app();
    let (mut c, warnings) = with_warnings(&db);
    let mut app = db.connect();
    app.run(&format!("begin; update public.profiles set subscription_tier = 'x' where user_id = '{ANN}'"));
    assert_eq!(c.apply(&bought("cs_1", ANN)).summary(), "applied");
    assert!(warnings.lock().expect("the list").concat().contains("lock timeout"), "{warnings:?}");
    app.run("rollback");
    assert_eq!(shown(&mut c, ANN), "500", "only users");
    rpc(&mut service(&db), "sync_user_credits", &json!({"target_user_id": ANN}));
    assert_eq!(shown(&mut c, ANN), "none free 500 500");
}

#[test]
fn a_new_user_gets_the_signup_credits_or_is_there_without_them() {
    let db = app();
    let (mut c, warnings) = with_warnings(&db);
    c.run(&format!("insert into public.profiles (user_id) values ('{0}')", user(5)));
    sign_up(&mut c, user(5));
    assert_eq!(c.ledger(user(5)), ["signup 500"]);
    assert_eq!(
        c.one::<i32>("select credits_balance from public.profiles where user_id = $1", &[&user(5)]),
        500
    );
    c.run("begin isolation level repeatable read");
    c.run("revoke execute on function billing.grant_signup_credits(uuid) from stripe_credits_owner");
    c.run("alter function billing.grant_signup_credits(uuid) owner to authenticator");
    sign_up(&mut c, user(6));
    c.run("rollback");
    assert!(
        warnings.lock().expect("the list").concat().contains("no signup credits for user"),
        "{warnings:?}"
    );
}

#[test]
fn nothing_is_executable_that_was_not_safe_and_the_selfcheck_stays_clean() {
    let db = app();
    let mut c = db.connect();
    let open: Vec<String> = c.column(
        "select distinct a.grantee::regrole || ': ' || p.oid::regprocedure
         from pg_proc p cross join lateral aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) a
         where p.pronamespace = 'public'::regnamespace and a.grantee <> p.proowner
             and a.grantee::regrole::text not in ('service_role', 'stripe_credits_owner') order by 1",
        &[],
    );
    assert_eq!(open, ["authenticated: stripe_credits_payment(uuid,bigint)"]);
    let unpinned: Vec<String> = c.column(
        "select p.oid::regprocedure::text from pg_proc p
         where p.pronamespace = 'public'::regnamespace
             and not coalesce('search_path=pg_catalog, pg_temp' = any (p.proconfig), false)",
        &[],
    );
    assert_eq!(unpinned, [""; 0]);
    let superusers: Vec<String> = c.column(
        "select p.oid::regprocedure::text from pg_proc p join pg_roles r on r.oid = p.proowner
         where p.pronamespace = 'public'::regnamespace and p.prosecdef and r.rolsuper",
        &[],
    );
    assert_eq!(superusers, [""; 0], "none runs with a superuser's rights");
    let silent: Vec<String> = c.column(
        "select p.oid::regprocedure::text from pg_proc p
         where p.pronamespace = 'public'::regnamespace and obj_description(p.oid, 'pg_proc') is null",
        &[],
    );
    assert_eq!(silent, [""; 0]);
    assert_eq!(failed_checks(&mut c), "");
}

fn failed_checks(c: &mut Connection) -> String {
    c.one("select coalesce(string_agg(detail, ' '), '') from billing.security_selfcheck() where not ok", &[])
}

#[test]
fn the_selfcheck_still_sees_triggers_that_only_look_like_these() {
    let db = app();
    let mut c = db.connect();
    for tampering in [
        // As the owner of the books.
        "alter function public.stripe_credits_keep_profiles() security invoker",
        "alter function public.stripe_credits_keep_profiles() owner to stripe_credits_owner",
        "alter function public.stripe_credits_keep_profiles() reset search_path",
        // Before the row is written.
        "drop trigger compat_profiles on billing.accounts;
         create trigger compat_profiles before update on billing.accounts for each row
             execute function public.stripe_credits_keep_profiles()",
        "alter table billing.accounts enable always trigger compat_profiles",
        "create trigger compat_other after update on billing.accounts for each row
             execute function public.stripe_credits_keep_profiles()",
        "create trigger compat_profiles after insert on billing.credit_grants for each row
             execute function public.stripe_credits_keep_profiles()",
    ] {
        c.run(&format!("begin; {tampering}"));
        let found = failed_checks(&mut c);
        assert!(found.contains("trigger compat_"), "{tampering}: {found}");
        c.run("rollback");
    }
}

#[test]
fn all_of_it_is_taken_away_and_loaded_again_and_nothing_else() {
    let objects = "select oid::regprocedure::text from pg_proc where pronamespace = 'public'::regnamespace
         union all select oid::regclass::text from pg_class where relnamespace in ('public'::regnamespace, 'auth'::regnamespace)
         union all select tgname from pg_trigger where not tgisinternal order by 1";
    let db = Database::with_catalog();
    let mut c = db.connect();
    c.run(APP);
    c.run("create function public.app_function() returns int language sql return 1");
    let before: Vec<String> = c.column(objects, &[]);
    for _ in 0..2 {
        c.run(&script("public.sql"));
        c.apply(&bought("cs_1", ANN));
        c.run(&script("public-remove.sql"));
        assert_eq!(c.column::<String>(objects, &[]), before);
    }
    assert_eq!(failed_checks(&mut c), "");
}

#[test]
fn an_apps_own_objects_are_never_replaced() {
    let db = Database::with_catalog();
    let mut c = db.connect();
    c.run("create table public.user_credits (user_id uuid, tier text)");
    assert_eq!(c.refusal(&script("public.sql")).code, "42P07");
    c.run("rollback");
    let made: i64 = c.one("select count(*) from pg_proc where pronamespace = 'public'::regnamespace", &[]);
    assert_eq!(made, 0);
}

#[test]
fn an_app_without_any_of_these_tables_has_functions_and_views_all_the_same() {
    let db = Database::with_catalog();
    let mut c = db.connect();
    c.run(&script("public.sql"));
    c.apply(&bought("cs_1", ANN));
    let row: String =
        c.one("select concat_ws(' ', user_email, amount, amount_paid) from public.credit_transactions", &[]);
    assert_eq!(row, "500 1000");
    assert_eq!(rpc(&mut service(&db), "sync_user_credits", &json!({"target_user_id": ANN})), 500);
    assert_eq!(failed_checks(&mut c), "");
}
