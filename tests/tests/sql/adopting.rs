//! docs/adopting.md by its own statements: an app with customers and history moves in, goes on, and moves back.

use std::fs;

use serde_json::json;
use stripe_credits_tests::server_copy::repository;
use stripe_credits_tests::subscription::{PRO, renewal};
use stripe_credits_tests::{Connection, Database, catalog, paid_pack};
use uuid::Uuid;

/// The app: 10,000 users, a third of them with a plan, most with credits that they bought, and a function of its own.
const APP: &str = "
    create table public.users (id uuid primary key, email text not null, credits_balance integer not null default 0);
    create table public.profiles (
        user_id uuid primary key, subscription_status text, subscription_tier text, credits_balance integer);
    create table public.user_credits (
        user_id uuid primary key, tier text not null default 'free',
        monthly_credits_per_cycle integer not null default 0, monthly_credits_used integer not null default 0,
        bonus_credits_total integer not null default 0, bonus_credits_used integer not null default 0,
        cycle_start_at timestamptz, cycle_end_at timestamptz, stripe_customer_id text, stripe_subscription_id text,
        stripe_price_id text);
    create table public.credit_transactions (
        id bigint generated always as identity primary key, user_id uuid not null, amount integer not null,
        transaction_type text not null, stripe_event_id text, stripe_session_id text,
        created_at timestamptz not null default now());
    create table public.processed_stripe_events (
        event_id text primary key, processed_at timestamptz not null default now());
    create function public.consume_credits(p_user_id uuid, p_amount integer) returns boolean language plpgsql as $f$
    begin
        update public.user_credits set bonus_credits_used = bonus_credits_used + p_amount
        where user_id = p_user_id and bonus_credits_total - bonus_credits_used >= p_amount;
        return found;
    end $f$;

    insert into public.users (id, email)
    select ('00000000-0000-4000-8000-' || lpad(to_hex(n), 12, '0'))::uuid, 'user' || n || '@example.com'
    from generate_series(1, 10000) n;
    insert into public.user_credits
    select u.id, case when n % 3 = 0 then 'pro' else 'free' end, case when n % 3 = 0 then 10000 else 0 end,
        case when n % 3 = 0 then n * 37 % 10001 else 0 end, n * 13 % 7 * 100, n * 13 % 7 * (n % 100),
        date_trunc('second', now() - interval '10 days'), date_trunc('second', now() + interval '20 days'), 'cus_' || n,
        case when n % 3 = 0 then 'sub_' || n end, case when n % 3 = 0 then 'price_pro' end
    from generate_series(1, 10000) n
    join public.users u on u.id = ('00000000-0000-4000-8000-' || lpad(to_hex(n), 12, '0'))::uuid;
    insert into public.credit_transactions (user_id, amount, transaction_type, stripe_event_id, stripe_session_id)
    select c.user_id, c.bonus_credits_total, 'purchase', 'evt_old_' || substring(stripe_customer_id from 5),
        'cs_old_' || substring(stripe_customer_id from 5)
    from public.user_credits c where c.bonus_credits_total > 0;
    insert into public.processed_stripe_events (event_id) select stripe_event_id from public.credit_transactions;
    update public.users u set credits_balance = c.monthly_credits_per_cycle - c.monthly_credits_used
        + c.bonus_credits_total - c.bonus_credits_used from public.user_credits c where c.user_id = u.id;
    insert into public.profiles
    select u.id, case c.tier when 'pro' then 'active' else 'none' end, c.tier, u.credits_balance
    from public.users u join public.user_credits c on c.user_id = u.id;
    analyze;
";

/// The statements of a step of the page.
fn step(name: &str) -> String {
    let page = fs::read_to_string(repository().join("docs/adopting.md")).expect("the page");
    let marker = format!("<!-- step: {name} -->\n```sql\n");
    let (_, rest) = page.split_once(&marker).unwrap_or_else(|| panic!("the page has no step {name}"));
    rest.split_once("```").expect("the end of the block").0.to_owned()
}

/// Runs a step and answers its rows, a text each; null is nothing.
fn rows(c: &mut Connection, name: &str) -> Vec<String> {
    let messages = c.simple_query(&step(name)).unwrap_or_else(|fault| panic!("{name}: {fault:?}"));
    let rows = messages.iter().filter_map(|message| match message {
        postgres::SimpleQueryMessage::Row(row) => {
            let fields: Vec<&str> = (0..row.len()).filter_map(|place| row.get(place)).collect();
            Some(fields.join(" "))
        }
        _ => None,
    });
    rows.collect()
}

fn user(n: u32) -> Uuid {
    Uuid::from_u128(0x0000_0000_0000_4000_8000_0000_0000_0000 | u128::from(n))
}

fn compat(c: &mut Connection, script: &str) {
    let text = fs::read_to_string(repository().join("compat").join(script)).expect("a script");
    c.run(&format!("begin; {text}; commit"));
}

/// What the app shows of a user everywhere.
fn shown(c: &mut Connection, n: u32) -> String {
    c.one(
        "select concat_ws(' ', u.credits_balance, p.credits_balance, p.subscription_tier, c.tier)
         from public.users u join public.profiles p on p.user_id = u.id join public.user_credits c on c.user_id = u.id
         where u.id = $1",
        &[&user(n)],
    )
}

/// The old handler and stripe_credits judge the same traffic.
fn run_in_shadow(c: &mut Connection) {
    c.load_catalog(&catalog());
    c.run(&step("shadow tables"));
    let same = paid_pack("cs_same", user(1));
    let unknown = paid_pack("cs_unknown", user(2)).metadata("price_id", "price_of_yesterday");
    let unnamed = paid_pack("cs_unnamed", user(3)).metadata("user_id", "");
    let missed = paid_pack("cs_missed", user(4)).metadata("price_id", "price_of_yesterday");
    for (event, credited) in [
        (same.completed("evt_same"), 500),
        (unknown.completed("evt_unknown"), 300),
        (unnamed.completed("evt_unnamed"), 500),
        (missed.completed("evt_missed"), 0),
    ] {
        let id = event.json()["id"].as_str().expect("an id").to_owned();
        c.execute("insert into shadow.events (event_id, payload) values ($1, $2)", &[&id, event.json()])
            .expect("kept");
        c.execute(
            "insert into public.credit_transactions (user_id, amount, transaction_type, stripe_event_id)
             values ($1, $2, 'purchase', $3)",
            &[&user(1), &credited, &id],
        )
        .expect("credited");
    }
    c.run(&step("shadow judge"));
    c.run(&step("shadow judge"));
    let ids = |rows: Vec<String>| -> Vec<String> {
        rows.iter().map(|row| row.split(' ').next().unwrap_or_default().to_owned()).collect()
    };
    let found = rows(c, "shadow differences");
    assert_eq!(ids(found.clone()), ["evt_unknown", "evt_unnamed", "evt_missed"], "{found:?}");
    for (row, verdict) in found.iter().zip(["unknown_price", "unknown_user", "unknown_price"]) {
        assert!(row.contains(&format!("parked {verdict}")), "{found:?}");
    }
    // What was parked is judged again; here, because the event is another, as with another catalog.
    c.execute(
        "update shadow.events set payload = $1 where event_id = 'evt_missed'",
        &[paid_pack("cs_missed", user(4)).completed("evt_missed").json()],
    )
    .expect("kept");
    c.run(&step("shadow judge"));
    let found = rows(c, "shadow differences");
    assert!(found.iter().any(|row| row.starts_with("evt_missed") && row.contains("applied")), "{found:?}");
    assert_eq!(c.one::<i64>("select count(*) from billing.accounts", &[]), 0, "nothing was written");
    c.run("delete from public.credit_transactions where stripe_session_id is null");
}

/// The cut-over, up to the app that spends again.
fn move_in(c: &mut Connection) {
    let mut document = catalog();
    let begins_at: String =
        c.one("select to_char(now() at time zone 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"')", &[]);
    document["begins_at"] = json!(begins_at);
    c.load_catalog(&document);
    let imported = rows(c, "import");
    assert_eq!(imported.len(), 1, "{imported:?}");
    assert!(imported[0].starts_with("applied "), "{imported:?}");
    let again = rows(c, "import");
    assert!(again.len() == 1 && again[0].starts_with("already_applied "), "{again:?}");
    assert_eq!(rows(c, "subscriptions"), ["applied 3333"]);
    assert_eq!(rows(c, "verify"), [""; 0]);
    c.run(&step("move"));
    compat(c, "public.sql");
    assert_eq!(
        c.one::<i64>("select count(*) from public.user_credits", &[]),
        9_048,
        "all who have credits or a plan"
    );
    let different: i64 = c.one(
        "select count(*) from public.users u left join public.user_credits c on c.user_id = u.id
         where u.credits_balance <> coalesce(c.credits_balance, 0)",
        &[],
    );
    assert_eq!(different, 0);
}

#[test]
fn ten_thousand_users_move_in_and_back_by_the_pages_own_statements() {
    let db = Database::new();
    let mut c = db.connect();
    c.run(APP);
    run_in_shadow(&mut c);
    move_in(&mut c);

    // An old payment by its old event, by another one, and by the user's return: credited before, not again.
    let old = paid_pack("cs_old_3", user(3));
    for event in ["evt_old_3", "evt_again"] {
        assert_eq!(c.apply(&old.completed(event)).summary(), "ignored before_books");
    }
    assert_eq!(c.reconcile(&old, user(3)).summary(), "ignored before_books");
    // Paid a moment before, and seen by neither: listed, credited by hand, listed no more.
    let late = paid_pack("cs_late", user(5));
    assert_eq!(c.apply(&late.completed("evt_late")).summary(), "ignored before_books");
    assert_eq!(rows(&mut c, "late"), [format!("evt_late checkout.session.completed cs_late {}", user(5))]);
    let before = c.balance(user(5));
    assert_eq!(c.purchase(user(5), 500, "evt_late", "cs_late").summary(), "applied");
    assert_eq!((c.balance(user(5)), rows(&mut c, "late")), (before + 500, vec![]));

    // The app goes on: a pack, a renewal, a spend by the old name.
    let now: i64 = c.one("select extract(epoch from now())::bigint + 1", &[]);
    let pack = paid_pack("cs_new", user(1)).with("created", now);
    assert_eq!(c.apply(&pack.completed("evt_new")).summary(), "applied");
    let renewed = renewal("in_new", "sub_3", PRO, 0).of(user(3)).with("customer", "cus_3").paid_at(now);
    c.apply(&renewed.paid("evt_renewed"));
    c.run(&format!("select public.consume_credits(p_user_id => '{}', p_amount => 100)", user(1)));
    for n in [1, 3, 5] {
        let balance = c.balance(user(n));
        let tier = if n == 3 { "pro" } else { "free" };
        assert_eq!(shown(&mut c, n), format!("{balance} {balance} {tier} {tier}"), "user {n}");
    }
    assert_eq!(c.faults(), [""; 0]);

    let books: i64 = c.one("select sum(credits_balance)::bigint from billing.user_credits", &[]);
    compat(&mut c, "public-remove.sql");
    c.run(&step("back"));
    let old: i64 = c.one(
        "select sum(monthly_credits_per_cycle - monthly_credits_used + bonus_credits_total - bonus_credits_used)
         from public.user_credits",
        &[],
    );
    assert_eq!(old, books, "each balance as it was at that moment");
    let seen: i64 = c.one(
        "select count(*) from public.processed_stripe_events where event_id in ('evt_new', 'evt_old_3')",
        &[],
    );
    assert_eq!(seen, 2, "the old handler credits neither again");
    let worked: bool = c.one("select public.consume_credits($1, 1)", &[&user(1)]);
    assert!(worked, "the app's own function is back");
}

/// What makes a cut-over of many users take seconds: no plan is kept that was made for an empty table.
#[test]
fn a_bulk_import_into_empty_tables_reads_each_row_by_its_key() {
    let db = Database::with_catalog();
    let mut c = db.connect();
    c.run(
        "begin; select count(o) from generate_series(1, 500) n
         cross join lateral billing.import_balance(gen_random_uuid(), 'purchased', n, 'old') o",
    );
    let read: Vec<String> = c.column(
        "select relname || ': ' || seq_tup_read from pg_stat_xact_user_tables
         where schemaname = 'billing' and relname not in ('prices', 'settings') and seq_tup_read > 0",
        &[],
    );
    c.run("commit");
    assert_eq!(read, [""; 0], "rows that were read in passing");
}
