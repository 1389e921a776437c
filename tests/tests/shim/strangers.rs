//! Strangers, users who ask too often and operators' tools that stall: each is bounded, and payments are taken meanwhile.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use stripe_credits_tests::app::app;
use stripe_credits_tests::database::setting;
use stripe_credits_tests::fake_stripe::{FakeStripe, Fault};
use stripe_credits_tests::shim::{SECRET, Setup, Shim, deliver, signature, unix_now, until};
use stripe_credits_tests::wire::{Wire, head, request};
use stripe_credits_tests::{ANN, BOB, Database, Event, paid_pack, session, user};
use xtask::process;

/// How long a good delivery may take meanwhile.
const PROMPT: Duration = Duration::from_secs(5);

fn pack(n: usize) -> Event {
    paid_pack(&format!("cs_{n}"), ANN).completed(&format!("evt_{n}"))
}

fn assert_taken(shim: &Shim, n: usize) {
    let since = Instant::now();
    assert_eq!(shim.deliver(&pack(n)).summary(), "200 applied");
    assert!(since.elapsed() < PROMPT, "it took {:?}", since.elapsed());
}

fn reconcile(session_id: &str) -> Value {
    json!({ "session_id": session_id })
}

const RECONCILE: &str = "/reconcile-stripe-credit-pack";

#[test]
fn a_header_that_cannot_be_right_is_refused_before_the_body_is_sent() {
    let database = Database::with_catalog();
    let shim = Setup::serve(&database.url()).start();
    let now = unix_now();
    let hex = "0".repeat(64);
    for (header, expected) in [
        (None, "400 signature_missing"),
        (Some("x".to_owned()), "400 signature_malformed"),
        (Some(format!("v1={hex}")), "400 signature_missing_timestamp"),
        (Some(format!("t={now}")), "400 signature_no_v1"),
        (Some(format!("t={now},v1=00")), "400 signature_mismatch"),
        (Some(format!("t={},v1={hex}", now - 400)), "400 signature_too_old"),
        (Some(format!("t={},v1={hex}", now + 400)), "400 signature_too_new"),
    ] {
        let headers: Vec<(&str, &str)> =
            header.iter().map(|value| ("Stripe-Signature", value.as_str())).collect();
        let mut wire = shim.connect();
        let since = Instant::now();
        let announced = [&headers[..], &[("Content-Length", "100000")]].concat();
        wire.send(&head("POST", "/webhooks/stripe", &announced)).expect("the shim reads");
        assert_eq!(wire.answer().expect("an answer").summary(), expected);
        assert!(since.elapsed() < PROMPT, "{expected}: the body was waited for");
    }
    assert_taken(&shim, 1);
}

#[test]
fn all_bodies_together_have_a_limit_and_an_event_of_usual_size_is_taken_above_it() {
    let database = Database::with_catalog();
    let shim = Setup::serve(&database.url()).start();
    let forged = format!("t={},v1={}", unix_now(), "0".repeat(64));
    let headers = [("Stripe-Signature", forged.as_str()), ("Content-Length", "1000000")];
    let part = vec![b' '; 999_999];
    let mut strangers: Vec<Wire> = Vec::new();
    let mut refused = 0;
    for _ in 0..80 {
        let mut wire = shim.connect();
        wire.send(&head("POST", "/webhooks/stripe", &headers)).expect("the shim reads");
        // It may be refused before it is read to its end.
        let _ = wire.send(&part);
        strangers.push(wire);
    }
    assert_taken(&shim, 1);
    for wire in &mut strangers {
        let answered = wire.until_closed();
        refused += usize::from(String::from_utf8_lossy(&answered).contains("body_no_memory"));
    }
    assert!((10..40).contains(&refused), "{refused} of 80 megabytes were refused, above 64");
    assert_taken(&shim, 2);
}

#[test]
fn who_never_reads_the_answers_is_cut_off() {
    let database = Database::with_catalog();
    let shim = Setup::serve(&database.url()).start();
    let mut stream = TcpStream::connect(shim.address()).expect("the shim listens");
    stream.set_write_timeout(Some(Duration::from_secs(40))).expect("a time above zero");
    let many = request("GET", "/nothing", &[], b"").repeat(1000);
    // Until the shim, whose answers nobody takes, stops reading; and until it gives up.
    let fault = loop {
        if let Err(fault) = stream.write_all(&many) {
            break fault;
        }
    };
    assert!(
        matches!(fault.kind(), std::io::ErrorKind::ConnectionReset | std::io::ErrorKind::BrokenPipe),
        "it was never cut off: {fault}"
    );
    assert_taken(&shim, 1);
}

#[test]
fn strangers_on_every_connection_give_way_to_a_delivery() {
    let database = Database::with_catalog();
    let shim = Setup::serve(&database.url()).with("MAX_CONNECTIONS", "8").start();
    let forged = format!("t={},v1={}", unix_now(), "0".repeat(64));
    let mut strangers: Vec<Wire> = (0..8).map(|_| shim.connect()).collect();
    for (n, wire) in strangers.iter_mut().enumerate() {
        let bytes = match n % 4 {
            0 => Vec::new(),
            1 => b"POST /webhooks/stripe HTTP/1.1\r\nHost: shim".to_vec(),
            2 => head("POST", "/webhooks/stripe", &[("Stripe-Signature", &forged), ("Content-Length", "9")]),
            _ => request("GET", "/catalog", &[], b""),
        };
        wire.send(&bytes).expect("the shim reads");
    }
    for n in 0..4 {
        assert_taken(&shim, n);
    }
}

#[test]
fn users_requests_never_hold_the_last_connection() {
    let database = Database::with_catalog();
    let stripe = FakeStripe::start();
    let shim = app(&database, &stripe).with("MAX_CONNECTIONS", "4").start();
    stripe.fail(Fault::Held);
    thread::scope(|scope| {
        let held: Vec<_> = (1..=3)
            .map(|n| {
                let shim = &shim;
                scope.spawn(move || shim.post_as(user(n), RECONCILE, &reconcile("cs_held")).summary())
            })
            .collect();
        until("Stripe holds three requests", || stripe.asked().len() == 3);
        assert_eq!(shim.post_as(user(4), RECONCILE, &reconcile("cs_held")).summary(), "503 overloaded");
        assert_taken(&shim, 1);
        stripe.release();
        for request in held {
            assert_eq!(request.join().expect("a request"), "400 unknown_session");
        }
    });
}

#[test]
fn a_user_who_asks_without_an_end_is_429_and_others_and_webhooks_are_served() {
    let database = Database::with_catalog();
    let stripe = FakeStripe::start();
    stripe.knows_line_items("cs_9", &[("price_pack", 1)]);
    let shim = app(&database, &stripe).with("USER_REQUESTS_PER_MINUTE", "5").start();
    let ask = |owner| shim.post_as(owner, RECONCILE, &reconcile("cs_unknown"));
    for _ in 0..5 {
        assert_eq!(ask(ANN).summary(), "400 unknown_session");
    }
    let refused = ask(ANN);
    assert_eq!(refused.summary(), "429 too_many_requests");
    let wait: u64 = refused.headers["retry-after"].parse().expect("seconds");
    assert!((1..=12).contains(&wait), "{wait}");
    assert_eq!(stripe.asked().len(), 5, "the sixth did not reach Stripe");
    assert_eq!(ask(BOB).summary(), "400 unknown_session");
    assert_eq!(shim.get_as(ANN, "/credits").status, 200, "what asks Stripe nothing is not counted");
    assert_eq!(shim.deliver(&session("cs_9").of(ANN).completed("evt_9")).summary(), "200 applied");
}

#[test]
fn users_together_leave_webhooks_their_share_of_stripe() {
    let database = Database::with_catalog();
    let stripe = FakeStripe::start();
    stripe.knows_line_items("cs_9", &[("price_pack", 1)]);
    let shim = app(&database, &stripe).with("STRIPE_USER_REQUESTS_PER_SECOND", "1").start();
    let answers: Vec<_> =
        (1..=10).map(|n| shim.post_as(user(n), RECONCILE, &reconcile("cs_unknown"))).collect();
    let refused: Vec<_> = answers.iter().filter(|answer| answer.status == 429).collect();
    assert!(!refused.is_empty() && refused.len() < 10, "{answers:?}");
    assert!(refused.iter().all(|answer| answer.summary() == "429 stripe_over_share"), "{refused:?}");
    assert!(refused.iter().all(|answer| answer.headers.contains_key("retry-after")));
    assert_eq!(shim.deliver(&session("cs_9").of(ANN).completed("evt_9")).summary(), "200 applied");
}

#[test]
fn a_session_that_is_applied_is_answered_from_the_books() {
    let database = Database::with_catalog();
    let stripe = FakeStripe::start();
    let shim = app(&database, &stripe).start();
    let bought = paid_pack("cs_1", ANN);
    stripe.knows_session(bought.json().clone());
    assert_eq!(shim.deliver(&bought.completed("evt_1")).summary(), "200 applied");
    database.connect().call("spend_credits($1, 100, 'job')", &[&ANN]);
    let answer = shim.post_as(ANN, RECONCILE, &reconcile("cs_1"));
    assert_eq!(answer.summary(), "200 already_applied");
    let balances = answer.json();
    assert_eq!(
        (&balances["ok"], &balances["remaining_total"], &balances["tier"]),
        (&json!(true), &json!(400), &json!("free"))
    );
    assert_eq!(stripe.asked(), []);
    // Another user, and the other route, learn no more than Stripe's answer would let them.
    assert_eq!(shim.post_as(BOB, RECONCILE, &reconcile("cs_1")).summary(), "403 rejected not_owner");
    assert_eq!(
        shim.post_as(ANN, "/reconcile-stripe-checkout", &reconcile("cs_1")).summary(),
        "400 wrong_mode"
    );
}

/// A shim as a process whose stdout nobody reads, at ports that were free.
fn start_unread(database: &Database) -> (Child, SocketAddr, SocketAddr) {
    let free =
        || TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a port");
    let (address, operators) = (free(), free());
    let mut command = process::server_command(setting("STRIPE_CREDITS_SHIM").as_ref(), None, "KILL");
    command
        .arg("serve")
        .env("DATABASE_URL", database.url())
        .env("STRIPE_WEBHOOK_SECRET", SECRET)
        .env("LISTEN", address.to_string())
        .env("OPS_LISTEN", operators.to_string())
        .stdin(Stdio::null())
        .stdout(Stdio::piped());
    let server = process::serve(command).expect("the shim starts");
    until("it listens", || TcpStream::connect(operators).is_ok());
    (server, address, operators)
}

#[test]
fn a_log_that_nobody_reads_stops_nothing_and_what_it_drops_is_counted() {
    let database = Database::with_catalog();
    let (mut server, address, operators) = start_unread(&database);
    let unsigned = request("POST", "/webhooks/stripe", &[], b"");
    // A pipe holds some 300 lines, and the shim 4,096.
    for _ in 0..3 {
        let mut wire = Wire::open(address);
        for _ in 0..2000 {
            wire.send(&unsigned).expect("the shim reads");
            assert_eq!(wire.answer().expect("an answer").status, 400);
        }
    }
    assert_eq!(deliver(address, &pack(1)).expect("an answer").summary(), "200 applied");
    let mut wire = Wire::open(operators);
    wire.send(&request("GET", "/metrics", &[], b"")).expect("the shim reads");
    let metrics = wire.answer().expect("an answer").body;
    let line = metrics.lines().find(|line| line.starts_with("stripe_credits_log_lines_dropped_total "));
    let dropped: u64 = line.and_then(|line| line.split(' ').next_back()?.parse().ok()).expect("a count");
    assert!(dropped > 1000, "{dropped}");
    let asked = Command::new("kill").args(["-TERM", &server.id().to_string()]).status();
    assert!(asked.expect("kill can be started").success());
    let ended = process::wait_for(&mut server, Duration::from_secs(30));
    let mut log = String::new();
    server.stdout.take().expect("piped above").read_to_string(&mut log).expect("text");
    process::kill(&mut server);
    assert!(ended.is_some_and(|status| status.success()), "{ended:?}");
    assert!(log.lines().count() > 100);
}

/// The shim behind a shell that sets limits of open files first.
fn start_limited(database: &Database, limit: &str) -> xtask::shim::Shim {
    let folder = tempfile::tempdir().expect("a folder");
    let script = folder.path().join("shim");
    let binary = setting("STRIPE_CREDITS_SHIM");
    std::fs::write(&script, format!("#!/bin/sh\n{limit}\nexec {binary} \"$@\"\n")).expect("a file");
    std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755)).expect("the owner may");
    let environment = [("DATABASE_URL", database.url()), ("STRIPE_WEBHOOK_SECRET", SECRET.to_owned())];
    let environment: Vec<(&str, &str)> =
        environment.iter().map(|(name, value)| (*name, value.as_str())).collect();
    xtask::shim::Shim::start(&script, &environment).unwrap_or_else(|error| panic!("{error}"))
}

#[test]
fn the_limit_of_open_files_is_raised_or_the_connections_are_fewer() {
    let database = Database::with_catalog();
    let raised = start_limited(&database, "ulimit -S -n 300");
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", raised.pid())).expect("the shim runs");
    let soft = limits.lines().find_map(|line| line.strip_prefix("Max open files")?.split_whitespace().next());
    assert_eq!(soft, Some("2312"), "2,048 connections, 8 to the database, 256 others");
    assert!(!raised.log().join("").contains("MAX_CONNECTIONS"));

    let limited = start_limited(&database, "ulimit -n 300");
    let log = limited.log();
    let warning = log.iter().find(|line| line.contains("MAX_CONNECTIONS")).expect("a warning");
    assert!(warning.contains(r#""max_connections":36"#), "{warning}");
    // As many as it says, and then one gives way to another.
    let mut open: Vec<Wire> = (0..40).map(|_| Wire::open(limited.address())).collect();
    let signed = signature(SECRET, unix_now(), b"{}");
    open.last_mut()
        .expect("forty")
        .send(&request("POST", "/webhooks/stripe", &[("Stripe-Signature", &signed)], b"{}"))
        .expect("the shim reads");
    assert_eq!(open.last_mut().expect("forty").answer().expect("an answer").summary(), "400 malformed_body");
    assert_eq!(deliver(limited.address(), &pack(1)).expect("an answer").summary(), "200 applied");
}
