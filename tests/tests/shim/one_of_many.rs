//! One user, one fault or one stranger keeps nobody else waiting.

use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use stripe_credits_tests::refunds::refunded;
use stripe_credits_tests::shim::{Ended, Setup, Shim, deliver, until};
use stripe_credits_tests::subscription::subscription;
use stripe_credits_tests::{ANN, BOB, Connection, Database, Event, catalog, paid_pack, session, user};
use xtask::cluster::{Cluster, StopMode};

use crate::database_away::{DATABASE, books, cluster};

/// What nobody else needs to wait for: shorter than any lock is waited for here.
const PROMPT: Duration = Duration::from_secs(5);

fn pack(n: usize, owner: uuid::Uuid) -> Event {
    paid_pack(&format!("cs_{n}"), owner).completed(&format!("evt_{n}"))
}

fn assert_prompt<T>(what: &str, work: impl FnOnce() -> T) -> T {
    let since = Instant::now();
    let result = work();
    assert!(since.elapsed() < PROMPT, "{what} took {:?}", since.elapsed());
    result
}

/// Locks a user's account, as an app does that holds `spend_credits` open.
fn spending(database: &Database, owner: uuid::Uuid) -> Connection {
    let mut app = database.connect();
    app.run("begin");
    assert_eq!(app.call("spend_credits($1, 1, 'job')", &[&owner]).summary(), "applied");
    app
}

/// The connections of the shim that wait for a lock now.
fn waiting(books: &mut Connection) -> i64 {
    books.one(
        "select count(*) from pg_stat_activity where datname = current_database()
             and application_name = 'stripe-credits' and wait_event_type = 'Lock'",
        &[],
    )
}

/// Delivers all of these at once, does something else while they wait, and returns their answers.
fn meanwhile(address: SocketAddr, events: &[Event], work: impl FnOnce()) -> Vec<String> {
    thread::scope(|scope| {
        let deliveries: Vec<_> = events
            .iter()
            .map(|event| scope.spawn(move || deliver(address, event).expect("an answer").summary()))
            .collect();
        work();
        deliveries.into_iter().map(|delivery| delivery.join().expect("a delivery")).collect()
    })
}

#[test]
fn one_locked_account_keeps_nobody_else_waiting_whatever_its_events_name() {
    let database = Database::with_catalog();
    let shim = Setup::serve(&database.url()).with("DATABASE_LOCK_TIMEOUT", "15").start();
    let mut books = database.connect();
    let of_customer =
        |n: usize| session(&format!("cs_{n}")).metadata("price_id", "price_pack").with("customer", "cus_ann");
    assert_eq!(
        shim.deliver(&paid_pack("cs_0", ANN).with("customer", "cus_ann").completed("evt_0")).status,
        200
    );
    // By her user id, by her customer, and refunds, which name neither.
    let mut events: Vec<Event> = (1..=10).map(|n| pack(n, ANN)).collect();
    events.extend((11..=20).map(|n| of_customer(n).completed(&format!("evt_{n}"))));
    events.extend((1..=10).map(|n| refunded(&format!("re_{n}"), "pi_0", 10 * n)));
    let app = spending(&database, ANN);
    let mut most = 0;
    let answers = meanwhile(shim.address(), &events, || {
        until("her events wait", || waiting(&mut books) >= 3);
        for n in 100..120 {
            let answer = assert_prompt("a delivery of Bob's", || shim.deliver(&pack(n, BOB)));
            assert_eq!(answer.summary(), "200 applied");
            assert_eq!(assert_prompt("/readyz", || shim.ops("/readyz")).status, 200);
            most = most.max(waiting(&mut books));
        }
        drop(app);
    });
    // Two for the user, two for the customer, two for what names neither, of eight connections.
    assert!((1..=6).contains(&most), "{most} connections waited");
    assert!(
        answers.iter().all(|answer| answer.starts_with("200") || answer == "503 database_locked"),
        "{answers:?}"
    );
    for event in &events {
        until("Stripe's next attempt is taken", || shim.deliver(event).status == 200);
    }
    assert_eq!(books.balance(BOB), 20 * 500);
}

/// What anybody may wait for while others' accounts are locked.
const ANSWER: Duration = Duration::from_secs(1);

#[test]
fn ten_locked_accounts_with_ten_deliveries_each_leave_connections_to_everyone_else() {
    let database = Database::with_catalog();
    let shim = Setup::serve(&database.url()).with("DATABASE_LOCK_TIMEOUT", "15").start();
    let mut books = database.connect();
    let owners: Vec<uuid::Uuid> = (100..110).map(user).collect();
    for owner in &owners {
        books.sign_up(*owner);
    }
    let apps: Vec<Connection> = owners.iter().map(|owner| spending(&database, *owner)).collect();
    let events: Vec<Event> = (0..100).map(|n| pack(1000 + n, owners[n % owners.len()])).collect();
    // As many as the machine runs clients for: each answers within the time that a purchase's page waits.
    let answers = meanwhile(shim.address(), &events, || {
        until("their events wait", || waiting(&mut books) >= 4);
        let mut longest = Duration::ZERO;
        for n in 0..20 {
            let since = Instant::now();
            assert_eq!(shim.deliver(&pack(n, BOB)).summary(), "200 applied");
            longest = longest.max(since.elapsed());
        }
        assert!(longest < ANSWER, "a delivery of Bob's took {longest:?}");
        drop(apps);
    });
    assert!(
        answers.iter().all(|answer| answer == "200 applied" || answer == "503 database_locked"),
        "{answers:?}"
    );
    for event in &events {
        until("Stripe's next attempt is taken", || shim.deliver(event).status == 200);
    }
    assert_eq!(books.balance(owners[0]), 500 + 10 * 500, "what the app spent was rolled back");
}

#[test]
fn a_probe_is_answered_while_every_connection_is_in_use() {
    let database = Database::with_catalog();
    let shim = Setup::serve(&database.url())
        .with("DATABASE_POOL_SIZE", "1")
        .with("DATABASE_LOCK_TIMEOUT", "15")
        .start();
    let mut books = database.connect();
    books.sign_up(ANN);
    let app = spending(&database, ANN);
    let answers = meanwhile(shim.address(), &[pack(1, ANN)], || {
        until("the only connection waits", || waiting(&mut books) == 1);
        assert_eq!(assert_prompt("/readyz", || shim.ops("/readyz")).status, 200);
        let metrics = assert_prompt("/metrics", || shim.ops("/metrics"));
        assert!(
            metrics.body.contains("stripe_credits_parked_events{reason=\"unknown_user\"} 0"),
            "{}",
            metrics.body
        );
        drop(app);
    });
    assert_eq!(answers, ["200 applied"]);
}

/// The example's catalog with one more pack.
fn catalog_with_new_pack() -> Value {
    let mut catalog = catalog();
    let mut pack = catalog["packs"][0].clone();
    pack["key"] = "new".into();
    pack["prices"] = json!(["price_new"]);
    catalog["packs"].as_array_mut().expect("packs").push(pack);
    catalog
}

fn park(books: &mut Connection, events: usize) {
    for n in 0..events {
        let unknown = paid_pack(&format!("cs_p{n}"), user(n as u128)).metadata("price_id", "price_new");
        assert_eq!(books.apply(&unknown.completed(&format!("evt_p{n}"))).summary(), "parked unknown_price");
    }
}

fn push(database: &Database, document: &Value) -> Ended {
    Setup::command(&["catalog", "push", "-"])
        .with("DATABASE_URL", &database.url())
        .with_stdin(&document.to_string())
        .run()
}

fn parked(books: &mut Connection) -> i64 {
    books.one("select count(*) from billing.stripe_events where outcome = 'parked'", &[])
}

#[test]
fn a_catalog_push_applies_all_that_waited_for_it_batch_by_batch() {
    let database = Database::with_catalog();
    let mut books = database.connect();
    park(&mut books, 70);
    let ended = push(&database, &catalog_with_new_pack());
    assert_eq!((ended.code, parked(&mut books)), (Some(0), 0), "{ended:?}");
    assert!(ended.stdout.contains("\n50 more parked events were judged again\n"), "{ended:?}");
}

#[test]
fn what_a_load_by_sql_left_is_applied_by_the_shim_that_serves() {
    let database = Database::with_catalog();
    let mut books = database.connect();
    park(&mut books, 70);
    let shim = Setup::serve(&database.url()).start();
    books.load_catalog(&catalog_with_new_pack());
    until("all were applied", || parked(&mut books) == 0);
    assert_eq!(books.balance(user(69)), 500);
    assert_eq!(shim.ops("/readyz").status, 200);
}

#[test]
fn a_catalog_push_waits_for_no_locked_account_and_nobody_waits_for_the_push() {
    let database = Database::with_catalog();
    let shim = Setup::serve(&database.url()).start();
    let mut books = database.connect();
    books.sign_up(user(7));
    park(&mut books, 10);
    let app = spending(&database, user(7));
    let ended = assert_prompt("the push", || push(&database, &catalog_with_new_pack()));
    assert_eq!((ended.code, parked(&mut books)), (Some(0), 1), "{ended:?}");
    assert_eq!(assert_prompt("a delivery", || shim.deliver(&pack(1, BOB))).summary(), "200 applied");
    drop(app);
    until("the last was applied", || parked(&mut books) == 0);
}

#[test]
fn a_catalog_push_behind_a_stuck_transaction_gives_way_and_goes_on_after_it() {
    let database = Database::with_catalog();
    let shim = Setup::serve(&database.url()).start();
    let (mut stuck, mut books) = (database.connect(), database.connect());
    stuck.run("begin");
    assert_eq!(stuck.apply(&pack(1, ANN)).summary(), "applied");
    thread::scope(|scope| {
        let push = scope.spawn(|| push(&database, &catalog_with_new_pack()));
        until("the push waits", || waiting(&mut books) > 0);
        for n in 2..6 {
            assert_eq!(assert_prompt("a delivery", || shim.deliver(&pack(n, BOB))).summary(), "200 applied");
        }
        stuck.run("commit");
        let ended = push.join().expect("the push");
        assert_eq!(ended.code, Some(0), "{ended:?}");
    });
}

/// What was committed on the primary is on its standby.
fn follows(primary: &Cluster, standby: &Cluster) {
    let at: String = books(primary).one("select pg_current_wal_lsn()::text", &[]);
    let reached = format!("select pg_last_wal_replay_lsn() >= '{at}'");
    until("the standby has caught up", || books(standby).one::<bool>(&reached, &[]));
}

#[test]
fn a_shim_that_reaches_a_standby_is_not_ready_until_that_is_promoted() {
    let primary = cluster();
    let standby = primary.standby().expect("a standby");
    follows(&primary, &standby);
    let shim = Setup::serve(&standby.url(DATABASE)).start();
    for _ in 0..3 {
        assert_eq!(shim.deliver(&pack(1, ANN)).summary(), "503 database_unavailable");
        assert_eq!(shim.ops("/readyz").status, 503);
    }
    standby.promote().expect("a promotion");
    until("the shim is ready by itself", || shim.ops("/readyz").status == 200);
    assert_eq!(shim.deliver(&pack(1, ANN)).summary(), "200 applied");
    assert_eq!(books(&standby).ledger(ANN), ["purchase 500"]);
}

#[test]
fn connections_that_were_let_in_by_a_standby_are_replaced_and_answered_503() {
    let primary = cluster();
    let standby = primary.standby().expect("a standby");
    follows(&primary, &standby);
    // As behind a connection pooler: the shim cannot tell which server it will be.
    let any = format!("{}?target_session_attrs=any", standby.url(DATABASE));
    let shim = Setup::serve(&any).with("DATABASE_POOL_SIZE", "2").start();
    let sub = subscription("sub_1", "price_pro").of(ANN).created("evt_sub");
    for event in [&pack(1, ANN), &sub, &refunded("re_1", "pi_1", 100)] {
        let answer = shim.deliver(event);
        assert_eq!(answer.summary(), "503 database_read_only");
        assert!(answer.headers.contains_key("retry-after"));
    }
    assert_eq!(shim.ops("/readyz").summary(), "503 database_read_only");
    standby.promote().expect("a promotion");
    until("the shim is ready by itself", || shim.ops("/readyz").status == 200);
    assert_eq!(shim.deliver(&pack(1, ANN)).summary(), "200 applied");
}

#[test]
fn of_two_hosts_the_one_is_used_that_takes_writes_before_and_after_a_failover() {
    let mut primary = cluster();
    let standby = primary.standby().expect("a standby");
    let hosts = format!("127.0.0.1:{},127.0.0.1:{}", standby.port(), primary.port());
    let shim = Setup::serve(&format!("postgres://postgres@{hosts}/{DATABASE}")).start();
    assert_eq!(shim.deliver(&pack(1, ANN)).summary(), "200 applied");
    follows(&primary, &standby);
    primary.stop(StopMode::Immediate);
    assert_eq!(shim.deliver(&pack(2, ANN)).status, 503);
    assert_eq!(shim.ops("/readyz").status, 503);
    standby.promote().expect("a promotion");
    until("the shim is ready by itself", || shim.ops("/readyz").status == 200);
    assert_eq!(shim.deliver(&pack(2, ANN)).summary(), "200 applied");
    assert_eq!(shim.deliver(&pack(1, ANN)).summary(), "200 already_applied");
    assert_eq!(books(&standby).balance(ANN), 1000);
}

#[test]
fn a_role_that_may_not_apply_events_is_not_ready_and_says_so() {
    let database = Database::with_catalog();
    let mut books = database.connect();
    let role = format!("{}_powerless", database.name());
    books.run(&format!("create role {role} login"));
    let url = database.url().replacen("postgres@", &format!("{role}@"), 1);
    let shim = Setup::serve(&url).start();
    assert_eq!(shim.ops("/readyz").summary(), "503 database_not_allowed");
    books.run(&format!("grant service_role to {role}"));
    until("the shim is ready", || shim.ops("/readyz").status == 200);
    books.run(&format!("revoke service_role from {role}"));
    drop(shim);
    books.run(&format!("drop role {role}"));
}

/// Asks on one connection after the other, so many at once, for a while.
fn ask_again_and_again(shim: &Shim, path: &'static str, clients: usize, while_this: impl FnOnce()) {
    let stop = std::sync::atomic::AtomicBool::new(false);
    thread::scope(|scope| {
        for _ in 0..clients {
            scope.spawn(|| {
                while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                    assert_eq!(shim.ops(path).status, 200);
                }
            });
        }
        while_this();
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
    });
}

#[test]
fn forty_scrapers_and_probes_ask_the_database_once_in_a_while() {
    let database = Database::with_catalog();
    let shim = Setup::serve(&database.url()).start();
    let mut books = database.connect();
    let transactions = |books: &mut Connection| -> i64 {
        books.one("select xact_commit from pg_stat_database where datname = current_database()", &[])
    };
    let before = transactions(&mut books);
    let mut scrapes = 0;
    for path in ["/metrics", "/readyz"] {
        ask_again_and_again(&shim, path, 40, || {
            for n in 0..50 {
                assert_eq!(
                    assert_prompt("a delivery", || shim.deliver(&pack(scrapes + n, ANN))).summary(),
                    "200 applied"
                );
            }
        });
        scrapes += 50;
    }
    // Each delivery is one; a probe is two a second at most, a count one in five, and the books are looked at here.
    let asked = transactions(&mut books) - before;
    assert!(asked < 100 + 150, "{asked} transactions for 100 deliveries");
}
