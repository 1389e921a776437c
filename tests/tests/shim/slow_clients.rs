//! Clients that are slow, idle or many: each is cut off in time, and none of them keeps a payment waiting.

use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use stripe_credits_tests::shim::{SECRET, Setup, Shim, deliver, signature, unix_now, until, webhook};
use stripe_credits_tests::wire::{Wire, request};
use stripe_credits_tests::{ANN, Database, Event, paid_pack, wire};

/// How long a head, a body, and a connection between two requests may take at the shim.
const LIMIT: Duration = Duration::from_secs(10);
/// How much later than that a loaded machine may notice.
const SLACK: Duration = Duration::from_secs(10);
/// How long a good delivery may take meanwhile.
const PROMPT: Duration = Duration::from_secs(5);

fn pack(n: usize) -> Event {
    paid_pack(&format!("cs_{n}"), ANN).completed(&format!("evt_{n}"))
}

fn assert_cut_in_time(since: Instant) {
    let took = since.elapsed();
    assert!(took + Duration::from_millis(500) > LIMIT, "cut after {took:?} already");
    assert!(took < LIMIT + SLACK, "cut after {took:?} only");
}

/// Sends one byte after the other until something comes back or the connection is gone.
fn drip(wire: &mut Wire, bytes: &[u8]) {
    for byte in bytes {
        if wire.send(&[*byte]).is_err() || !wire.is_silent_for(Duration::from_millis(100)) {
            return;
        }
    }
    panic!("all {} bytes were waited for", bytes.len());
}

/// Connects, and fails if the shim's queue of connections was full: the kernel sends a handshake that it drops again
/// after a second.
fn connect_without_retransmission(shim: &Shim) -> Wire {
    let started = Instant::now();
    let wire = shim.connect();
    assert!(started.elapsed() < Duration::from_secs(1), "one connection waited for {:?}", started.elapsed());
    wire
}

/// The process's open files: its connections, give or take a dozen.
fn open_files(shim: &Shim) -> usize {
    fs::read_dir(format!("/proc/{}/fd", shim.pid())).expect("the shim runs").count()
}

/// The resident memory in kilobytes.
fn resident(shim: &Shim) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", shim.pid())).expect("the shim runs");
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("a line for it");
    line.split_whitespace().nth(1).and_then(|kilobytes| kilobytes.parse().ok()).expect("a number")
}

#[test]
fn a_head_that_never_ends_is_cut_off_whether_it_stalls_or_drips() {
    let database = Database::with_catalog();
    let shim = Setup::serve(&database.url()).start();
    let head = wire::head("POST", "/webhooks/stripe", &[("X-Padding", &"x".repeat(4000))]);
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut stalls = shim.connect();
            let since = Instant::now();
            stalls.send(&head[..20]).expect("the shim reads");
            let answer = stalls.until_closed();
            assert_cut_in_time(since);
            assert!(answer.is_empty() || answer.starts_with(b"HTTP/1.1 408"));
        });
        scope.spawn(|| {
            let mut drips = shim.connect();
            let since = Instant::now();
            drip(&mut drips, &head);
            assert_cut_in_time(since);
        });
        scope.spawn(|| {
            let mut says_nothing = shim.connect();
            let since = Instant::now();
            assert_eq!(says_nothing.until_closed(), b"");
            assert_cut_in_time(since);
        });
        scope.spawn(|| {
            let mut asks_once = shim.connect();
            asks_once.send(&request("GET", "/catalog", &[], b"")).expect("the shim reads");
            assert_eq!(asks_once.answer().expect("an answer").status, 200);
            let since = Instant::now();
            assert_eq!(asks_once.until_closed(), b"");
            assert_cut_in_time(since);
        });
        assert_eq!(shim.deliver(&pack(1)).summary(), "200 applied");
    });
    assert_eq!(shim.deliver(&pack(2)).summary(), "200 applied");
    assert_eq!(database.connect().ledger(ANN), ["purchase 500", "purchase 500"]);
}

#[test]
fn a_body_that_never_ends_is_408_whether_it_stalls_or_drips() {
    let database = Database::with_catalog();
    let shim = Setup::serve(&database.url()).start();
    let mut books = database.connect();
    let before = books.everything();
    let body = pack(1).json().to_string();
    let signature = signature(SECRET, unix_now(), body.as_bytes());
    let length = body.len().to_string();
    let of_length = [("Stripe-Signature", signature.as_str()), ("Content-Length", length.as_str())];
    let in_chunks = [("Stripe-Signature", signature.as_str()), ("Transfer-Encoding", "chunked")];
    thread::scope(|scope| {
        for headers in [&of_length, &in_chunks] {
            scope.spawn(|| {
                let mut stalls = shim.connect();
                let since = Instant::now();
                stalls.send(&wire::head("POST", "/webhooks/stripe", headers)).expect("the shim reads");
                assert_eq!(stalls.answer().expect("an answer").summary(), "408 body_timeout");
                assert_cut_in_time(since);
            });
        }
        scope.spawn(|| {
            let mut drips = shim.connect();
            let since = Instant::now();
            drips.send(&wire::head("POST", "/webhooks/stripe", &of_length)).expect("the shim reads");
            drip(&mut drips, body.as_bytes());
            assert_eq!(drips.answer().expect("an answer").summary(), "408 body_timeout");
            assert_cut_in_time(since);
        });
        scope.spawn(|| {
            // Far too large, and slow: a body that is read only to be dropped has the same limit.
            let mut drips = shim.connect();
            let since = Instant::now();
            let headers = [("Stripe-Signature", signature.as_str()), ("Content-Length", "2000000")];
            drips.send(&wire::head("POST", "/webhooks/stripe", &headers)).expect("the shim reads");
            drip(&mut drips, body.as_bytes());
            let outcome = drips.answer().expect("an answer").summary();
            assert_eq!(outcome, "408 body_timeout");
            assert_cut_in_time(since);
        });
    });
    assert_eq!(books.everything(), before);
    assert_eq!(shim.logged(4, |line| line["reason"] == "body_timeout")[0]["level"], "WARN");
    assert_eq!(shim.deliver(&pack(1)).summary(), "200 applied");
    assert_eq!(books.ledger(ANN), ["purchase 500"]);
}

#[test]
fn a_thousand_open_connections_keep_no_payment_waiting() {
    let database = Database::with_catalog();
    let shim = Setup::serve(&database.url()).start();
    let mut books = database.connect();
    assert_eq!(shim.deliver(&pack(0)).summary(), "200 applied");
    let idle = resident(&shim);

    let since = Instant::now();
    let mut connections: Vec<Wire> = (0..1000).map(|_| connect_without_retransmission(&shim)).collect();
    for half in connections.iter_mut().skip(1).step_by(2) {
        half.send(b"POST /webhooks/stripe HTTP/1.1\r\nHost: shim").expect("the shim reads");
    }
    until("the shim holds a thousand connections", || open_files(&shim) >= 1000);
    let full = resident(&shim);
    for n in 1..=50 {
        let started = Instant::now();
        assert_eq!(shim.deliver(&pack(n)).summary(), "200 applied");
        assert!(started.elapsed() < PROMPT, "delivery {n} took {:?}", started.elapsed());
    }
    // All of that while they were open; afterwards they are cut off like every other.
    assert!(open_files(&shim) >= 1000, "held for {:?}", since.elapsed());
    assert!(since.elapsed() < LIMIT, "the deliveries took {:?}", since.elapsed());
    until("the shim has cut them off", || open_files(&shim) < 100);
    eprintln!("resident: {idle} kB idle, {full} kB with 1,000 open connections");
    assert_eq!(books.balance(ANN), 51 * 500);
}

#[test]
fn an_idle_connection_beyond_the_limit_gives_way_and_all_get_their_turn() {
    let database = Database::with_catalog();
    let shim = Setup::serve(&database.url()).with("MAX_CONNECTIONS", "4").start();
    let mut books = database.connect();
    let mut held: Vec<Wire> = (0..4)
        .map(|_| {
            let mut wire = shim.connect();
            wire.send(&request("GET", "/catalog", &[], b"")).expect("the shim reads");
            assert_eq!(wire.answer().expect("an answer").status, 200);
            wire
        })
        .collect();
    let mut waits = shim.connect();
    waits.send(&webhook(pack(1).json().to_string().as_bytes())).expect("the kernel takes it");
    assert_eq!(waits.answer().expect("an answer").summary(), "200 applied");
    assert_eq!(held[0].until_closed(), b"", "the longest idle gave way");
    assert!(held[3].is_silent_for(Duration::from_millis(100)), "no other did");
    drop(waits);

    // Forty more, over the three that are held, all get their turn: who has just come does not give way.
    let events: Vec<Event> = (2..42).map(pack).collect();
    thread::scope(|scope| {
        for event in &events {
            scope.spawn(|| {
                assert_eq!(deliver(shim.address(), event).expect("an answer").summary(), "200 applied");
            });
        }
    });
    assert_eq!(books.balance(ANN), 41 * 500);
}
