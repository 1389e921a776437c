//! The shim's start and its ends, wanted or not, and what it says of itself meanwhile.

use std::collections::BTreeSet;
use std::net::{SocketAddr, TcpListener};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use stripe_credits_tests::fake_stripe::{self, FakeStripe, Fault};
use stripe_credits_tests::shim::{SECRET, Setup, Shim, deliver, deliver_until_taken, until, webhook};
use stripe_credits_tests::subscription::{invoice, line, period, subscription};
use stripe_credits_tests::wire::Wire;
use stripe_credits_tests::{
    ANN, BOB, Connection, Database, Event, catalog, paid_pack, session, user, waits_for,
};

const SENDERS: usize = 8;

/// The payment of one sender.
fn payment(sender: usize, n: usize) -> Event {
    let name = format!("{sender}_{n}");
    // Two senders a user, so that they wait for each other's locks.
    paid_pack(&format!("cs_{name}"), user(10 + sender as u128 / 2)).completed(&format!("evt_{name}"))
}

/// What became of deliveries while the shim went away under them.
struct Load {
    /// Answered 200, by event id.
    taken: BTreeSet<String>,
    /// Cut or refused on the way.
    lost: Vec<Event>,
}

/// Sends payments from several threads, one after the other each, until the shim is gone; `end` ends it once enough
/// were answered.
fn load_until_the_end(address: SocketAddr, end: impl FnOnce()) -> Load {
    let load = Mutex::new(Load { taken: BTreeSet::new(), lost: Vec::new() });
    thread::scope(|scope| {
        for sender in 0..SENDERS {
            let load = &load;
            scope.spawn(move || {
                for n in 0.. {
                    let event = payment(sender, n);
                    let answer = deliver(address, &event);
                    let mut load = load.lock().expect("no sender panics while it holds this");
                    let Ok(answer) = answer else {
                        load.lost.push(event);
                        return;
                    };
                    assert_eq!(answer.summary(), "200 applied", "{}", event.id());
                    load.taken.insert(event.id().to_owned());
                }
            });
        }
        until("100 payments were taken", || load.lock().expect("as above").taken.len() >= 100);
        end();
    });
    load.into_inner().expect("as above")
}

fn granted(books: &mut Connection) -> BTreeSet<String> {
    let rows: Vec<String> = books.column("select stripe_event_id from billing.credit_transactions", &[]);
    let events: BTreeSet<String> = rows.iter().cloned().collect();
    assert_eq!(rows.len(), events.len(), "an event was granted twice");
    events
}

/// Whatever was answered 200 is in the ledger; and once "Stripe" has sent the rest to the next shim, each payment is there
/// exactly once.
fn assert_nothing_is_lost(database: &Database, load: &Load) {
    let mut books = database.connect();
    let before = granted(&mut books);
    let missing: Vec<_> = load.taken.difference(&before).collect();
    assert!(missing.is_empty(), "answered 200 and not in the ledger: {missing:?}");
    assert_eq!(load.lost.len(), SENDERS);

    let next = Setup::serve(&database.url()).start();
    for event in &load.lost {
        deliver_until_taken(|| next.address(), event);
    }
    let mut all = load.taken.clone();
    all.extend(load.lost.iter().map(|event| event.id().to_owned()));
    assert_eq!(granted(&mut books), all);
    let sum: i64 = books.one("select sum(amount)::bigint from billing.credit_transactions", &[]);
    assert_eq!(sum, 500 * i64::try_from(all.len()).expect("a few hundred"));
}

#[test]
fn sigterm_under_load_loses_nothing_and_ends_with_0() {
    let database = Database::with_catalog();
    let mut shim = Setup::serve(&database.url()).start();
    let load = load_until_the_end(shim.address(), || shim.ask_to_stop());
    assert!(shim.ended().success());
    until("the log is read to its end", || shim.log().iter().any(|line| line["message"] == "stopped"));
    assert_nothing_is_lost(&database, &load);
}

#[test]
fn scenario_38_sigkill_of_the_shim_under_load_loses_nothing() {
    let database = Database::with_catalog();
    let mut shim = Setup::serve(&database.url()).start();
    let address = shim.address();
    let load = load_until_the_end(address, || shim.kill());
    assert_nothing_is_lost(&database, &load);
}

/// Sends ANN's pack while her account is locked, and waits until the delivery waits in the database. Answers the
/// connection on which it was sent, and the one that holds the lock.
fn blocked_delivery(database: &Database, shim: &Shim) -> (Wire, Connection) {
    let (mut books, mut locker) = (database.connect(), database.connect());
    assert_eq!(shim.deliver(&paid_pack("cs_0", ANN).completed("evt_0")).summary(), "200 applied");
    locker.run("begin");
    locker.run(&format!("select from billing.accounts where user_id = '{ANN}' for update"));
    let mut wire = shim.connect();
    wire.send(&webhook(paid_pack("cs_1", ANN).completed("evt_1").json().to_string().as_bytes()))
        .expect("the shim reads");
    waits_for(
        &mut books,
        "select exists (select from pg_stat_activity where datname = current_database()
             and application_name = 'stripe-credits' and wait_event_type = 'Lock')",
    );
    (wire, locker)
}

#[test]
fn what_was_taken_before_sigterm_is_finished_and_answered_and_nothing_new_is_taken() {
    let database = Database::with_catalog();
    let mut shim = Setup::serve(&database.url()).start();
    let (mut wire, mut locker) = blocked_delivery(&database, &shim);
    shim.ask_to_stop();
    // The port is free for the next one already.
    until("the port is closed", || TcpListener::bind(shim.address()).is_ok());
    locker.run("commit");
    assert_eq!(wire.answer().expect("the answer is still given").summary(), "200 applied");
    assert_eq!(locker.ledger(ANN), ["purchase 500", "purchase 500"]);
    assert!(shim.ended().success());
}

#[test]
fn sigint_ends_it_like_sigterm() {
    let database = Database::with_catalog();
    let mut shim = Setup::serve(&database.url()).start();
    let sent = std::process::Command::new("kill").args(["-s", "INT", &shim.pid().to_string()]).status();
    assert!(sent.expect("kill can be started").success());
    shim.logged(1, |line| line["message"] == "draining");
    assert!(shim.ended().success());
}

#[test]
fn idle_connections_do_not_hold_up_the_end() {
    let database = Database::with_catalog();
    let mut shim = Setup::serve(&database.url()).start();
    let mut idle: Vec<_> = (0..50).map(|_| shim.connect()).collect();
    for wire in idle.iter_mut().take(25) {
        wire.send(&stripe_credits_tests::wire::request("GET", "/catalog", &[], b"")).expect("the shim reads");
        assert_eq!(wire.answer().expect("an answer").status, 200);
    }
    let since = Instant::now();
    shim.ask_to_stop();
    assert!(shim.ended().success());
    assert!(since.elapsed() < Duration::from_secs(5), "it took {:?}", since.elapsed());
}

#[test]
fn a_delivery_whose_sender_hangs_up_goes_on_to_its_end_and_is_logged() {
    let database = Database::with_catalog();
    let shim = Setup::serve(&database.url()).start();
    let (wire, mut locker) = blocked_delivery(&database, &shim);
    drop(wire);
    locker.run("commit");
    assert_eq!(shim.deliveries("evt_1", 1)[0]["outcome"], "applied");
    assert_eq!(locker.ledger(ANN), ["purchase 500", "purchase 500"]);
}

#[test]
fn a_wrong_configuration_exits_64_and_names_each_fault_and_no_value() {
    let ended = Setup::command(&["serve"])
        .with("DATABASE_URL", "postgres://app:hush1@")
        .with("STRIPE_WEBHOOK_SECRET", "whsec_hush2,,whsec_hush3")
        .with("STRIPE_SECRET_KEY", "pk_test_hush4")
        .with("STRIPE_API_BASE", "http://stripe.example")
        .with("LISTEN", "nowhere")
        .with("MAX_CONNECTIONS", "0")
        .with("DATABASE_POOL_SIZE", "many")
        .with("LOG_LEVEL", "loud")
        .run();
    assert_eq!(ended.code, Some(64), "{ended:?}");
    for variable in [
        "DATABASE_URL",
        "STRIPE_WEBHOOK_SECRET",
        "STRIPE_SECRET_KEY",
        "STRIPE_API_BASE",
        "LISTEN",
        "MAX_CONNECTIONS",
        "DATABASE_POOL_SIZE",
        "LOG_LEVEL",
    ] {
        let lines = ended.stderr.lines().filter(|line| line.trim_start().starts_with(variable)).count();
        assert_eq!(lines, 1, "{variable}: {}", ended.stderr);
    }
    assert!(!ended.stderr.contains("hush") && !ended.stdout.contains("hush"), "{ended:?}");

    let nothing = Setup::command(&["serve"]).run();
    assert_eq!(nothing.code, Some(64));
    assert!(
        nothing.stderr.contains("DATABASE_URL") && nothing.stderr.contains("STRIPE_WEBHOOK_SECRET"),
        "{nothing:?}"
    );
    let empty = Setup::serve("postgres://postgres@127.0.0.1:1/x").with("STRIPE_WEBHOOK_SECRET", "").run();
    assert_eq!(empty.code, Some(64), "an empty secret, with which anyone could sign: {empty:?}");
    assert!(empty.stderr.contains("STRIPE_WEBHOOK_SECRET"), "{empty:?}");
}

#[test]
fn a_port_that_is_taken_exits_69() {
    let taken = TcpListener::bind(("127.0.0.1", 0)).expect("a port");
    let address = taken.local_addr().expect("an address").to_string();
    let ended = Setup::serve("postgres://postgres@127.0.0.1:1/x").with("LISTEN", &address).run();
    assert_eq!(ended.code, Some(69), "{ended:?}");
    assert!(ended.stderr.contains("cannot listen"), "{ended:?}");
}

#[test]
fn a_stripe_key_of_the_other_mode_than_the_catalogs_exits_64() {
    let database = Database::with_catalog();
    let live_key = Setup::serve(&database.url()).with("STRIPE_SECRET_KEY", "sk_live_hush");
    let ended = live_key.clone().run();
    assert_eq!(ended.code, Some(64), "{ended:?}");
    assert!(ended.stderr.contains("STRIPE_SECRET_KEY") && ended.stderr.contains("livemode"), "{ended:?}");
    assert!(!ended.stderr.contains("hush"), "{ended:?}");

    let mut document = catalog();
    document["livemode"] = true.into();
    database.connect().load_catalog(&document);
    let test_key = Setup::serve(&database.url()).with("STRIPE_SECRET_KEY", "rk_test_hush");
    assert_eq!(test_key.run().code, Some(64));
    assert_eq!(live_key.start().ops("/readyz").status, 200);
}

#[test]
fn a_catalog_of_the_other_mode_pushed_while_it_runs_makes_the_shim_unready() {
    let database = Database::with_catalog();
    let shim = Setup::serve(&database.url()).with("STRIPE_SECRET_KEY", "sk_test_hush").start();
    assert_eq!(shim.ops("/readyz").status, 200);
    let mut document = catalog();
    document["livemode"] = true.into();
    database.connect().load_catalog(&document);
    until("the shim is not ready", || shim.ops("/readyz").summary() == "503 mode_conflict");
}

#[test]
fn port_0_takes_a_free_port_and_logs_it() {
    let database = Database::with_catalog();
    let (one, other) = (Setup::serve(&database.url()).start(), Setup::serve(&database.url()).start());
    assert_ne!(one.address(), other.address());
    let line = &one.logged(1, |line| line["message"] == "listening")[0];
    assert_eq!(line["address"], one.address().to_string());
    assert_ne!(one.address().port(), 0);
    for shim in [&one, &other] {
        assert_eq!(shim.ops("/healthz").json()["ok"], true);
        let ready = shim.ops("/readyz").json();
        assert_eq!((&ready["ready"], &ready["extension"]), (&Value::Bool(true), &Value::from("0.1.0")));
    }
}

#[test]
fn a_new_shim_takes_the_port_that_the_last_one_left_at_once() {
    let database = Database::with_catalog();
    let mut books = database.connect();
    let mut shim = Setup::serve(&database.url()).start();
    let address = shim.address().to_string();
    for n in 0..3 {
        assert_eq!(shim.deliver(&payment(0, n)).summary(), "200 applied");
        // Its end of an open connection stays behind in the kernel for a minute.
        let _open = shim.connect();
        shim.ask_to_stop();
        assert!(shim.ended().success());
        shim = Setup::serve(&database.url()).with("LISTEN", &address).start();
    }
    assert_eq!(granted(&mut books).len(), 3);
}

#[test]
fn it_listens_on_ipv6_too() {
    if TcpListener::bind("[::1]:0").is_err() {
        eprintln!("skipped: this machine has no IPv6");
        return;
    }
    let database = Database::with_catalog();
    let shim = Setup::serve(&database.url()).with("LISTEN", "[::1]:0").start();
    assert!(shim.address().is_ipv6());
    assert_eq!(shim.deliver(&payment(0, 0)).summary(), "200 applied");
    let both = Setup::serve(&database.url()).with("LISTEN", "[::]:0").start();
    let over_ipv4 = SocketAddr::from(([127, 0, 0, 1], both.address().port()));
    assert_eq!(deliver(over_ipv4, &payment(0, 1)).expect("an answer").summary(), "200 applied");
    assert_eq!(granted(&mut database.connect()).len(), 2);
}

#[test]
fn the_metrics_have_their_families_and_the_counts_move() {
    let database = Database::with_catalog();
    let stripe = FakeStripe::start();
    let shim = Setup::serve(&database.url()).with_stripe(&stripe).start();
    let event = paid_pack("cs_1", ANN).completed("evt_1");
    let kind = ("type", "checkout.session.completed");
    let deliveries =
        |outcome: &str| shim.metric("stripe_credits_deliveries_total", &[kind, ("outcome", outcome)]);
    let count = |name: &str| shim.metric(&format!("stripe_credits_{name}"), &[]);
    assert_eq!(deliveries("applied"), 0);

    shim.deliver(&event);
    shim.deliver(&event);
    shim.deliver(&session("cs_2").metadata("price_id", "price_pack").completed("evt_2"));
    shim.deliver(&session("cs_3").of(ANN).metadata("price_id", "price_unknown").completed("evt_3"));
    shim.post(b"{}", &[]);
    assert_eq!(deliveries("applied"), 1);
    assert_eq!(deliveries("already_applied"), 1);
    assert_eq!(deliveries("parked"), 2);
    assert_eq!(shim.metric("stripe_credits_deliveries_total", &[("reason", "unknown_user")]), 1);
    assert_eq!(shim.metric("stripe_credits_deliveries_total", &[("reason", "signature_missing")]), 1);
    assert_eq!(shim.metric("stripe_credits_signature_failures_total", &[("kind", "signature_missing")]), 1);
    assert_eq!(count("unknown_price_hits_total"), 1);
    assert_eq!(count("delivery_duration_seconds_count"), 5);
    assert_eq!(shim.metric("stripe_credits_delivery_duration_seconds_bucket", &[("le", "+Inf")]), 5);
    until("the parked events were counted again", || count("parked_events") == 2);
    assert!(count("pool_size") >= 1);
    assert_eq!(count("pool_waiting"), 0);

    shim.deliver(&session("cs_4").of(ANN).completed("evt_4"));
    assert_eq!(shim.metric("stripe_credits_stripe_api_calls_total", &[("result", "stripe_not_found")]), 1);

    let answer = shim.ops("/metrics");
    assert!(answer.headers["content-type"].starts_with("application/openmetrics-text"), "{answer:?}");
    assert!(answer.body.ends_with("# EOF\n"));
    for family in [
        "deliveries",
        "delivery_duration_seconds",
        "signature_failures",
        "stripe_api_calls",
        "unknown_price_hits",
        "parked_events",
        "pool_size",
        "pool_available",
        "pool_waiting",
    ] {
        for word in ["HELP", "TYPE"] {
            let line = format!("# {word} stripe_credits_{family} ");
            assert_eq!(answer.body.matches(&line).count(), 1, "{line}\n{}", answer.body);
        }
    }
}

#[test]
fn a_delivery_of_a_subscription_logs_its_customer_subscription_and_invoice() {
    let database = Database::with_catalog();
    let shim = Setup::serve(&database.url()).start();
    let paid = invoice("in_1", "sub_1").line(line("price_pro", 10_000, period(0))).of(ANN).paid("evt_1");
    let state = subscription("sub_1", "price_pro").of(ANN).created("evt_2");
    for event in [&paid, &state] {
        assert_eq!(shim.deliver(event).status, 200);
        let object = &event.json()["data"]["object"];
        let logged = &shim.deliveries(event.id(), 1)[0];
        assert_eq!(
            (&logged["subscription_id"], &logged["customer_id"]),
            (&json!("sub_1"), &object["customer"]),
            "{logged}"
        );
    }
    assert_eq!(shim.deliveries("evt_1", 1)[0]["invoice_id"], "in_1");
}

#[test]
fn every_delivery_logs_one_line_of_json_with_the_promised_fields() {
    let database = Database::with_catalog();
    let shim = Setup::serve(&database.url()).start();
    let event = paid_pack("cs_1", ANN).completed("evt_1");
    shim.deliver(&event);
    let line = &shim.deliveries("evt_1", 1)[0];
    assert_eq!(line["type"], "checkout.session.completed");
    assert_eq!(line["session_id"], "cs_1");
    assert_eq!(line["payment_intent_id"], "pi_1");
    assert_eq!(line["price_id"], "price_pack");
    assert_eq!(line["user_id"], ANN.to_string());
    assert_eq!(line["credits"], 500);
    assert_eq!(line["outcome"], "applied");
    assert!(line["ms"].as_f64().is_some_and(|ms| ms > 0.0), "{line}");
    assert!(line["timestamp"].is_string() && line["level"] == "INFO", "{line}");
    shim.deliver(&paid_pack("cs_1", BOB).completed("evt_2"));
    assert_eq!(shim.deliveries("evt_2", 1)[0]["reason"], "conflict");
    shim.deliver(&event);
    assert_eq!(shim.deliveries("evt_1", 2)[1]["outcome"], "already_applied");
    shim.post(b"secret body", &["t=1,v1=00"]);
    assert_eq!(shim.logged(1, |line| line["reason"] == "signature_mismatch")[0]["level"], "WARN");
}

#[test]
fn no_secret_and_no_body_is_ever_logged_or_answered_not_even_at_the_finest_level() {
    let database = Database::with_catalog();
    let stripe = FakeStripe::start();
    stripe.knows_line_items("cs_2", &[("price_pack", 1)]);
    let url = database.url().replacen("postgres@", "postgres:hush_password@", 1);
    let secrets = format!("{SECRET},whsec_hush_next");
    let mut shim = Setup::serve(&url)
        .with_stripe(&stripe)
        .with("STRIPE_WEBHOOK_SECRET", &secrets)
        .with("LOG_LEVEL", "trace")
        .start();
    let marked = |session: stripe_credits_tests::Session| {
        session.metadata("note", "body_marker").with("mail", "body_marker")
    };
    let mut answers = Vec::new();
    answers.push(shim.deliver(&marked(paid_pack("cs_1", ANN)).completed("evt_1")));
    answers.push(shim.deliver(&marked(session("cs_2").of(ANN)).completed("evt_2")));
    stripe.fail(Fault::Unauthorized);
    answers.push(shim.deliver(&marked(session("cs_3").of(ANN)).completed("evt_3")));
    answers.push(shim.deliver(&marked(paid_pack("cs_1", BOB)).completed("evt_4")));
    answers.push(
        shim.deliver(&marked(session("cs_5").of(ANN)).completed("evt_5").with("created", "body_marker")),
    );
    answers.push(shim.deliver_bytes(br#"{"id": "evt_6", "type": "t", "data": "body_marker \u0000"}"#));
    answers.push(shim.deliver_bytes(br#"{"id": "evt_7", "body_marker"#));
    answers.push(shim.post(b"body_marker", &["t=1,v1=00"]));
    answers.push(shim.ops("/metrics"));
    let statuses: Vec<u16> = answers.iter().map(|answer| answer.status).collect();
    assert_eq!(statuses, [200, 200, 503, 200, 200, 200, 400, 400, 200]);
    shim.ask_to_stop();
    assert!(shim.ended().success());
    let logged = shim.text();
    assert!(logged.lines().count() > 9, "{logged}");
    for secret in [SECRET, "whsec_hush_next", fake_stripe::KEY, "hush_password", "body_marker"] {
        assert!(!logged.contains(secret), "{secret} is in the log:\n{logged}");
        // The sender of a signed body may read what is wrong with it.
        for answer in answers.iter().filter(|_| secret != "body_marker") {
            assert!(!answer.body.contains(secret), "{secret} is in an answer: {answer:?}");
        }
    }
    assert!(shim.log().iter().all(Value::is_object));
}

#[test]
fn deliveries_beyond_the_pool_wait_their_turn() {
    let database = Database::with_catalog();
    let shim = Setup::serve(&database.url()).with("DATABASE_POOL_SIZE", "1").start();
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        for sender in 0..SENDERS {
            let (shim, stop) = (&shim, &stop);
            scope.spawn(move || {
                for n in 0..10 {
                    assert_eq!(shim.deliver(&payment(sender, n)).summary(), "200 applied");
                }
                stop.store(true, Ordering::Relaxed);
            });
        }
    });
    assert!(stop.into_inner());
    assert!(shim.metric("stripe_credits_pool_size", &[]) <= 1);
    assert_eq!(granted(&mut database.connect()).len(), SENDERS * 10);
}
