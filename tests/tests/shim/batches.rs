//! Deliveries that come at the same moment are applied together, and each is answered as if it had come alone.

use std::sync::Barrier;
use std::thread;

use serde_json::json;
use stripe_credits_tests::fake_stripe::FakeStripe;
use stripe_credits_tests::refunds::refunded;
use stripe_credits_tests::shim::{Setup, Shim, deliver, until};
use stripe_credits_tests::wire::Answer;
use stripe_credits_tests::{Connection, Database, Event, event, paid_pack, session, user};

/// Deliveries at once.
const CONNECTIONS: usize = 64;

/// Delivers all of these at once. Returns the answers in their order.
fn at_once(shim: &Shim, events: &[Event]) -> Vec<Answer> {
    let barrier = Barrier::new(events.len());
    let barrier = &barrier;
    thread::scope(|scope| {
        let send = |event| {
            barrier.wait();
            deliver(shim.address(), event).expect("an answer")
        };
        let deliveries: Vec<_> = events.iter().map(|event| scope.spawn(move || send(event))).collect();
        deliveries.into_iter().map(|delivery| delivery.join().expect("a delivery")).collect()
    })
}

/// The transactions in which the events with this prefix were recorded.
fn transactions(books: &mut Connection, prefix: &str) -> i64 {
    let sql = "select count(distinct xmin::text) from billing.stripe_events where starts_with(event_id, $1)";
    books.one(sql, &[&prefix])
}

/// What one of the deliveries below is answered, and the user in the answer.
fn delivery(round: usize, n: usize, stripe: &FakeStripe) -> (Event, &'static str, Option<uuid::Uuid>) {
    let owner = user(100 + n as u128);
    let (name, id) = (format!("cs_{round}_{n}"), format!("evt_{round}_{n}"));
    let paid = paid_pack(&name, owner);
    match n % 8 {
        0 => {
            (paid.with("livemode", true).completed(&id).with("livemode", true), "200 ignored livemode", None)
        }
        1 => (paid.metadata("price_id", "price_new").completed(&id), "500 parked unknown_price", Some(owner)),
        2 => (event(&id, "product.created", json!({ "id": "prod_1" })), "200 ignored event_type", None),
        3 => {
            let lines = [("price_pack", 1)];
            stripe.knows_line_items(&name, &lines);
            (paid.changeable().completed(&id), "200 applied", Some(owner))
        }
        4 => {
            let unowned = session(&name).metadata("price_id", "price_pack");
            (unowned.completed(&id), "200 parked unknown_user", None)
        }
        _ => (paid.completed(&id), "200 applied", Some(owner)),
    }
}

#[test]
fn each_of_many_deliveries_at_once_is_answered_its_own_outcome() {
    let database = Database::with_catalog();
    let stripe = FakeStripe::start();
    let shim = Setup::serve(&database.url()).with_stripe(&stripe).start();
    let mut books = database.connect();
    let mut round = 0;
    until("some deliveries share a transaction", || {
        round += 1;
        let deliveries: Vec<_> = (0..CONNECTIONS).map(|n| delivery(round, n, &stripe)).collect();
        let events: Vec<Event> = deliveries.iter().map(|(event, ..)| event.clone()).collect();
        for (answer, (event, expected, owner)) in at_once(&shim, &events).iter().zip(&deliveries) {
            let json = answer.json();
            let reason = json["reason"].as_str().map_or(String::new(), |reason| format!(" {reason}"));
            let said = format!("{} {}{reason}", answer.status, json["outcome"].as_str().unwrap_or_default());
            assert_eq!(said, *expected, "{}", event.id());
            assert_eq!(json["user_id"].as_str(), owner.map(|owner| owner.to_string()).as_deref(), "{said}");
        }
        let recorded = i64::try_from(CONNECTIONS).expect("few");
        transactions(&mut books, &format!("evt_{round}_")) < recorded
    });
    let paid = i64::try_from(round).expect("few") * 500;
    assert_eq!(books.balance(user(105)), paid);
    assert_eq!(books.balance(user(103)), paid, "what was fetched for it was applied");
}

#[test]
fn an_event_that_cannot_be_stored_and_a_locked_account_keep_none_of_the_others_back() {
    let database = Database::with_catalog();
    let shim = Setup::serve(&database.url()).with("DATABASE_LOCK_TIMEOUT", "1").start();
    let mut books = database.connect();
    let locked = user(1);
    books.sign_up(locked);
    let mut app = database.connect();
    app.run("begin");
    assert_eq!(app.call("spend_credits($1, 1, 'job')", &[&locked]).summary(), "applied");
    let mut events: Vec<Event> = (10..50)
        .map(|n: u128| paid_pack(&format!("cs_{n}"), user(n)).completed(&format!("evt_{n}")))
        .collect();
    events.push(paid_pack("cs_locked", locked).completed("evt_locked"));
    // The two halves of one payment, and one event twice.
    events.push(refunded("re_10", "pi_10", 1000));
    events.push(events[1].clone());
    let deep = "[".repeat(50_000) + &"]".repeat(50_000);
    let poison =
        format!(r#"{{"id":"evt_deep","type":"x.y","created":1,"data":{{"object":{{"a":{deep}}}}}}}"#);
    let answers = thread::scope(|scope| {
        let poisoned = scope.spawn(|| shim.deliver_bytes(poison.as_bytes()));
        let answers = at_once(&shim, &events);
        assert_ne!(poisoned.join().expect("a delivery").status, 503);
        answers
    });
    for (answer, event) in answers.iter().zip(&events) {
        let expected = if event.id() == "evt_locked" { 503 } else { 200 };
        assert_eq!(answer.status, expected, "{}: {}", event.id(), answer.body);
    }
    app.run("commit");
    assert_eq!(shim.deliver(&events[40]).summary(), "200 applied");
    until("the refund is taken", || books.balance(user(10)) == 0);
    assert!((11..50).all(|n| books.balance(user(n)) == 500));
}
