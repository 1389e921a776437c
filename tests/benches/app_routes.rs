//! How fast the app's routes and backfill are, as ratios to baselines of the same run. `cargo xtask bench` starts it.

use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use comfy_table::Table;
use serde_json::Value;
use stripe_credits_tests::app::app;
use stripe_credits_tests::fake_stripe::FakeStripe;
use stripe_credits_tests::shim::{Setup, webhook};
use stripe_credits_tests::subscription::{PRO, renewal, subscription};
use stripe_credits_tests::tokens::token;
use stripe_credits_tests::wire::{self, Wire};
use stripe_credits_tests::{Database, paid_pack, user};
use uuid::Uuid;
use xtask::figures::{add, median, table};

/// Length of one measurement, and how often each is taken, turn by turn.
const ROUND: Duration = Duration::from_secs(4);
const ROUNDS: usize = 3;
/// Users whose credits are read, and who buy.
const USERS: usize = 100;
/// Connections at once.
const CONNECTIONS: [usize; 3] = [1, 16, 64];
/// Subscriptions that are backfilled: few, then many.
const SUBSCRIPTIONS: [usize; 2] = [1_000, 10_000];
/// How often backfill asks Stripe at most, a second, and how many objects a page has.
const PAGES_PER_SECOND: f64 = 20.0;
const PAGE: usize = 100;

/// What the shim asks for a user's credits.
const MY_CREDITS: &str = "
    select (select to_json(mine)::text from billing.my_credits() mine where me.claims is not null)
    from (select set_config('request.jwt.claims', json_build_object('sub', $1::text)::text, true) as claims offset 0) me";

fn main() {
    println!("{}", credits());
    println!("{}", reconcile());
    println!("{}", backfill());
}

/// `GET /credits` beside the statement that it runs.
fn credits() -> Table {
    let (database, stripe) = (Database::with_catalog(), FakeStripe::start());
    let mut books = database.connect();
    let users: Vec<Uuid> = (0..USERS).map(|n| user(n as u128)).collect();
    for user in &users {
        books.sign_up(*user);
    }
    let shim = app(&database, &stripe).with("DATABASE_POOL_SIZE", "16").start();
    let requests: Vec<Vec<u8>> = users.iter().map(|user| get(&token(*user))).collect();
    let mut table = table(&["app's requests/s", "connections", "its SQL", "shim", "ratio"]);
    for connections in CONNECTIONS {
        let sql = || {
            rate(
                connections,
                || database.connect(),
                |books, n| drop(books.one::<String>(MY_CREDITS, &[&users[n % USERS].to_string()])),
            )
        };
        let http = || {
            rate(connections, || shim.connect(), |wire, n| ask(wire, &requests[n % USERS], "credits_balance"))
        };
        add(&mut table, "GET /credits", connections, &compare(&[&sql, &http]));
    }
    table
}

/// `POST /reconcile-stripe-credit-pack` beside the webhook of such a purchase.
fn reconcile() -> Table {
    let (database, stripe) = (Database::with_catalog(), FakeStripe::start());
    let shim = app(&database, &stripe).with("DATABASE_POOL_SIZE", "16").start();
    let tokens: Vec<String> = (0..USERS).map(|n| token(user(n as u128))).collect();
    let bought = AtomicUsize::new(0);
    let mut table = table(&["app's requests/s", "connections", "webhook", "reconcile", "ratio"]);
    for connections in CONNECTIONS {
        let session = || {
            let n = bought.fetch_add(1, Ordering::Relaxed);
            (n, paid_pack(&format!("cs_{n}"), user((n % USERS) as u128)))
        };
        let webhooks = || {
            rate(
                connections,
                || shim.connect(),
                |wire, _| {
                    let (n, session) = session();
                    let event = session.completed(&format!("evt_{n}"));
                    ask(wire, &webhook(event.json().to_string().as_bytes()), "\"applied\"");
                },
            )
        };
        let reconciles = || {
            rate(
                connections,
                || shim.connect(),
                |wire, _| {
                    let (n, session) = session();
                    stripe.knows_session(session.json().clone());
                    ask(wire, &reconciling(&tokens[n % USERS], session.id()), "\"applied\"");
                },
            )
        };
        add(
            &mut table,
            "POST /reconcile-stripe-credit-pack",
            connections,
            &compare(&[&webhooks, &reconciles]),
        );
    }
    table
}

/// `stripe-credits backfill` beside the pages of Stripe's lists, asked for as fast as it may.
fn backfill() -> Table {
    let mut table = table(&["backfill", "subscriptions", "seconds", "pages alone", "ratio", "peak MB"]);
    for count in SUBSCRIPTIONS {
        let (database, stripe) = (Database::with_catalog(), FakeStripe::start());
        let objects = |of: Range<usize>, make: fn(usize) -> Value| of.map(make).collect::<Vec<Value>>();
        stripe.knows_list(
            "/v1/subscriptions",
            objects(0..count, |n| {
                let plan = subscription(&format!("sub_{n}"), "price_pro").of(user(n as u128));
                plan.with("customer", format!("cus_{n}")).json().clone()
            }),
        );
        stripe.knows_list(
            "/v1/invoices",
            objects(0..count, |n| {
                let paid = renewal(&format!("in_{n}"), &format!("sub_{n}"), PRO, 0).of(user(n as u128));
                paid.with("customer", format!("cus_{n}")).json().clone()
            }),
        );
        let started = Instant::now();
        let ended =
            Setup::command(&["backfill"]).with("DATABASE_URL", &database.url()).with_stripe(&stripe).run();
        let seconds = started.elapsed().as_secs_f64();
        assert_eq!(ended.code, Some(0), "{ended:?}");
        let pages = as_f64(2 * count.div_ceil(PAGE)) / PAGES_PER_SECOND;
        table.add_row([
            "with a paid invoice each".to_owned(),
            count.to_string(),
            format!("{seconds:.1}"),
            format!("{pages:.1}"),
            format!("{:.2}", seconds / pages),
            format!("{}", ended.peak_memory / 1024),
        ]);
    }
    table
}

fn get(token: &str) -> Vec<u8> {
    wire::request("GET", "/credits", &[("Authorization", &format!("Bearer {token}"))], b"")
}

fn reconciling(token: &str, session_id: &str) -> Vec<u8> {
    let body = format!("{{\"session_id\": \"{session_id}\"}}");
    let headers = [("Authorization", &*format!("Bearer {token}"))];
    wire::request("POST", "/reconcile-stripe-credit-pack", &headers, body.as_bytes())
}

/// One request and its answer, on a connection that stays open.
fn ask(wire: &mut Wire, request: &[u8], expected: &str) {
    wire.send(request).expect("the shim reads");
    let answer = wire.answer().expect("the shim answers");
    assert!(answer.status == 200 && answer.body.contains(expected), "{answer:?}");
}

/// How often a second something is done over so many connections of their own.
fn rate<C>(connections: usize, open: impl Fn() -> C + Sync, act: impl Fn(&mut C, usize) + Sync) -> f64 {
    let end = Instant::now() + ROUND;
    let done: usize = thread::scope(|scope| {
        let work = |first: usize| {
            let (open, act) = (&open, &act);
            move || {
                let mut connection = open();
                (first..).step_by(connections).take_while(|_| Instant::now() < end).fold(0, |done, n| {
                    act(&mut connection, n);
                    done + 1
                })
            }
        };
        let workers: Vec<_> = (0..connections).map(|first| scope.spawn(work(first))).collect();
        workers.into_iter().map(|worker| worker.join().expect("no worker panics")).sum()
    });
    as_f64(done) / ROUND.as_secs_f64()
}

/// The medians of rounds that take turns, so that what else the machine does meets all of them alike.
fn compare(measures: &[&dyn Fn() -> f64]) -> Vec<f64> {
    let mut rates = vec![Vec::new(); measures.len()];
    for _ in 0..ROUNDS {
        for (measure, rates) in measures.iter().zip(&mut rates) {
            rates.push(measure());
        }
    }
    rates.into_iter().map(median).collect()
}

fn as_f64(count: usize) -> f64 {
    f64::from(u32::try_from(count).expect("counts here are small"))
}
