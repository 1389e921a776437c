//! What the app is told: events posted to its endpoint, signed, in order and at least once, and streamed to its pages.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use http_body_util::{BodyExt as _, Full};
use hyper::body::{Bytes, Incoming};
use hyper::header::LOCATION;
use hyper::{Request, Response};
use serde_json::{Value, json};
use standardwebhooks::Webhook;
use stripe_credits_tests::app::{ORIGIN, as_service, without_stripe};
use stripe_credits_tests::http_server::HttpServer;
use stripe_credits_tests::seeds::Rng;
use stripe_credits_tests::shim::{Setup, Shim, unix_now, until};
use stripe_credits_tests::tokens::{Signer, claims, token};
use stripe_credits_tests::wire::{self, Answer, Wire};
use stripe_credits_tests::{ANN, BOB, Database, paid_pack, session, user};
use uuid::Uuid;

const SECRET: &str = concat!("whsec_", "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw");
const OLD_SECRET: &str = concat!("whsec_", "b2xkZXItdGhhbi10aGUtb3RoZXItb25l");

/// The app's endpoint: verifies each event by the published library, keeps it and answers as it is told to.
pub(crate) struct Receiver {
    server: HttpServer,
    shared: Arc<Mutex<Received>>,
}

#[derive(Default)]
struct Received {
    events: Vec<Value>,
    /// The statuses of the answers to come; 200 when there are none left.
    answers: Vec<u16>,
    /// How long each answer takes.
    pause: Duration,
}

impl Receiver {
    pub(crate) fn start() -> Receiver {
        let shared = Arc::new(Mutex::new(Received::default()));
        let kept = shared.clone();
        let server = HttpServer::start(move |request: Request<Incoming>| {
            let kept = kept.clone();
            async move { Ok::<_, Infallible>(receive(request, &kept).await) }
        });
        Receiver { server, shared }
    }

    fn will_answer(&self, statuses: &[u16]) {
        self.shared.lock().expect("nobody panicked").answers = statuses.iter().rev().copied().collect();
    }

    pub(crate) fn events(&self) -> Vec<Value> {
        self.shared.lock().expect("nobody panicked").events.clone()
    }

    /// The events, once there are so many.
    fn wait_for(&self, count: usize) -> Vec<Value> {
        until("the app is told", || self.events().len() >= count);
        self.events()
    }
}

async fn receive(request: Request<Incoming>, kept: &Mutex<Received>) -> Response<Full<Bytes>> {
    let (head, body) = request.into_parts();
    let body = body.collect().await.expect("the shim sends all of it").to_bytes();
    for secret in [SECRET, OLD_SECRET] {
        let webhook = Webhook::new(secret).expect("a secret");
        webhook.verify(&body, &head.headers).unwrap_or_else(|fault| panic!("{fault}: {:?}", head.headers));
        assert!(webhook.verify(b"{}", &head.headers).is_err());
    }
    assert_eq!((head.method.as_str(), head.uri.path()), ("POST", "/events"));
    let event: Value = serde_json::from_slice(&body).expect("JSON");
    assert_eq!(event["id"].as_str(), head.headers["webhook-id"].to_str().ok());
    let (status, pause) = {
        let mut kept = kept.lock().expect("nobody panicked");
        kept.events.push(event);
        (kept.answers.pop().unwrap_or(200), kept.pause)
    };
    tokio::time::sleep(pause).await;
    Response::builder()
        .status(status)
        .header(LOCATION, "/elsewhere")
        .body(Full::new(Bytes::from_static(b"thanks")))
        .expect("an answer")
}

/// A shim that tells this receiver.
pub(crate) fn telling(setup: Setup, receiver: &Receiver) -> Setup {
    setup
        .with("EVENTS_URL", &format!("{}/events", receiver.server.origin()))
        .with("EVENTS_SECRET", &format!("{SECRET},{OLD_SECRET}"))
}

fn command(arguments: &[&str], database: &Database) -> Setup {
    Setup::command(arguments).with("DATABASE_URL", &as_service(database))
}

fn count(database: &Database, state: &str) -> i64 {
    database.connect().one("select count(*) from billing.outbox where state = $1", &[&state])
}

// The endpoint.

#[test]
fn a_purchase_is_posted_to_the_apps_endpoint_signed_by_standard_webhooks() {
    let (database, receiver) = (Database::with_catalog(), Receiver::start());
    let shim = telling(without_stripe(&database), &receiver).start();
    let parked = session("cs_2").metadata("price_id", "price_pack").with("customer", "cus_2");
    shim.deliver(&paid_pack("cs_1", ANN).completed("evt_1"));
    shim.deliver(&parked.completed("evt_2"));
    let events = receiver.wait_for(2);
    let of = |told: &str| events.iter().find(|event| event["type"] == told).expect(told);
    let granted = of("credits.granted");
    assert_eq!((&granted["id"], &granted["user_id"]), (&json!(format!("{ANN}_1")), &json!(ANN)));
    assert_eq!(
        (&granted["data"]["credits"], &granted["data"]["account"]["credits_balance"]),
        (&json!(500), &json!(500))
    );
    assert!(granted["timestamp"].as_str().is_some_and(|time| time.ends_with('Z')), "{granted}");
    let parked = of("payment.parked");
    assert_eq!((&parked["user_id"], &parked["data"]["reason"]), (&Value::Null, &json!("unknown_user")));
    until("both are delivered", || count(&database, "delivered") == 2);
    let lines = shim.logged(2, |line| line["message"] == "told");
    assert!(lines.iter().all(|line| line["result"] == "delivered" && line["attempts"] == 1), "{lines:?}");
    assert_eq!(shim.metric("stripe_credits_told_total", &[("result", "delivered")]), 2);
    assert!(!shim.text().contains("MfKQ9r8"), "no secret in the log");
}

#[test]
fn what_the_app_did_not_take_is_tried_again_and_dead_until_it_is_replayed() {
    let (database, receiver) = (Database::with_catalog(), Receiver::start());
    receiver.will_answer(&[500, 302, 503]);
    let shim = telling(without_stripe(&database), &receiver).start();
    let mut books = database.connect();
    books.grant(ANN, 10, "gift");
    receiver.wait_for(1);
    until("it failed", || books.one::<bool>("select last_error is not null from billing.outbox", &[]));
    assert_eq!(
        books.one::<String>("select last_error from billing.outbox", &[]),
        "the endpoint answered 500 Internal Server Error"
    );
    books.make_outbox_due();
    receiver.wait_for(2);
    until("a redirect is not followed", || {
        books.one::<String>("select last_error from billing.outbox", &[]).contains("302 Found")
    });
    books.run("update billing.outbox set attempts = 9");
    books.make_outbox_due();
    until("it is dead", || count(&database, "dead") == 1);
    let listed = command(&["events", "dead"], &database).run();
    let line: Value = serde_json::from_str(&listed.stdout).expect("a line of JSON");
    assert_eq!(
        (listed.code, &line["id"], &line["type"]),
        (Some(1), &json!(format!("{ANN}_1")), &json!("credits.granted"))
    );
    let replayed = command(&["events", "replay"], &database).run();
    assert_eq!((replayed.code, replayed.stdout.as_str()), (Some(0), "1 to be delivered again\n"));
    until("it is delivered", || count(&database, "delivered") == 1);
    let again = command(&["events", "replay", &format!("{ANN}_1")], &database).run();
    assert_eq!((again.code, again.stdout.as_str()), (Some(0), "1 to be delivered again\n"));
    let events = receiver.wait_for(5);
    assert!(events.iter().all(|event| event["id"] == events[0]["id"] && event["data"] == events[0]["data"]));
    assert_eq!(command(&["events", "replay", "evt_1"], &database).run().code, Some(65));
    assert_eq!(command(&["events", "dead"], &database).run().code, Some(0));
    assert_eq!(shim.metric("stripe_credits_told_total", &[("result", "dead")]), 1);
}

#[test]
fn an_endpoint_that_hangs_holds_up_no_webhook_and_no_connection() {
    let (database, receiver) = (Database::with_catalog(), Receiver::start());
    receiver.shared.lock().unwrap().pause = Duration::from_secs(8);
    let shim = telling(without_stripe(&database), &receiver).with("DATABASE_POOL_SIZE", "1").start();
    let mut books = database.connect();
    for n in 0..20 {
        books.grant(user(n), 10, "gift");
    }
    assert_eq!(receiver.wait_for(8).len(), 8, "so many at once");
    let idle =
        "select count(*) from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid()
        and state <> 'idle'";
    assert_eq!(books.one::<i64>(idle, &[]), 0, "none waits in a transaction");
    assert_eq!(shim.deliver(&paid_pack("cs_1", user(99)).completed("evt_1")).status, 200);
}

/// Each user's events in the order in which they first arrived.
fn first_arrivals(events: &[Value]) -> BTreeMap<String, Vec<i64>> {
    let mut seen = BTreeSet::new();
    let mut arrivals: BTreeMap<String, Vec<i64>> = BTreeMap::new();
    for event in events {
        let id = event["id"].as_str().expect("an id");
        if seen.insert(id.to_owned()) {
            let (user, number) = id.split_once('_').expect("user and number");
            arrivals.entry(user.to_owned()).or_default().push(number.parse().expect("a number"));
        }
    }
    arrivals
}

#[test]
fn shims_that_are_killed_at_any_moment_tell_everything_in_order_at_least_once() {
    const USERS: u128 = 12;
    const EVENTS: i64 = 5;
    let (database, receiver) = (Database::with_catalog(), Receiver::start());
    receiver.shared.lock().unwrap().pause = Duration::from_millis(20);
    let mut rng = Rng::new(13);
    let mut shims: Vec<Shim> =
        (0..2).map(|_| telling(without_stripe(&database), &receiver).start()).collect();
    let mut books = database.connect();
    for number in 0..EVENTS {
        for n in 0..USERS {
            books.grant(user(n), 10, &format!("gift-{number}"));
        }
        let killed = rng.below(2);
        thread::sleep(Duration::from_millis(rng.number() % 200));
        shims[killed].kill();
        shims[killed] = telling(without_stripe(&database), &receiver).start();
        // The lease of what it had is over.
        books.make_outbox_due();
    }
    until("all is delivered", || {
        books.make_outbox_due();
        count(&database, "pending") == 0
    });
    let arrivals = first_arrivals(&receiver.events());
    let expected: Vec<i64> = (1..=EVENTS).collect();
    assert_eq!(arrivals.len(), usize::try_from(USERS).unwrap());
    assert!(arrivals.values().all(|numbers| *numbers == expected), "{arrivals:?}");
}

#[test]
fn a_shim_that_is_asked_to_stop_ends_the_deliveries_that_it_has_begun() {
    let (database, receiver) = (Database::with_catalog(), Receiver::start());
    receiver.shared.lock().unwrap().pause = Duration::from_secs(1);
    let mut shim = telling(without_stripe(&database), &receiver).start();
    database.connect().grant(ANN, 10, "gift");
    receiver.wait_for(1);
    shim.ask_to_stop();
    assert!(shim.ended().success());
    assert_eq!(count(&database, "delivered"), 1);
    assert_eq!(receiver.events().len(), 1);
}

// Streams.

/// A page that listens, with its answer's head.
pub(crate) fn listen(shim: &Shim, token: &str, headers: &[(&str, &str)]) -> (Wire, Answer) {
    let bearer = format!("Bearer {token}");
    let mut wire = shim.connect();
    let headers = [&[("Authorization", bearer.as_str())], headers].concat();
    wire.send(&wire::request("GET", "/events", &headers, b"")).expect("the shim reads");
    let answer = wire.answer().expect("the shim answers");
    (wire, answer)
}

/// The next event of a stream.
pub(crate) fn next_event(wire: &mut Wire) -> (i64, Value) {
    wire.read_until("id: ").expect("an event");
    let number = wire.read_until("\n").expect("its id");
    wire.read_until("data: ").expect("its data");
    let data = wire.read_until("\n").expect("its data");
    (number.trim().parse().expect("a number"), serde_json::from_str(&data).expect("JSON"))
}

#[test]
fn a_page_sees_the_purchase_when_it_lands_and_resumes_after_its_last_event() {
    let database = Database::with_catalog();
    let shim = without_stripe(&database).start();
    let mut books = database.connect();
    books.grant(ANN, 10, "before");
    let (mut page, answer) = listen(&shim, &token(ANN), &[("Origin", ORIGIN)]);
    let headers = ["content-type", "cache-control", "access-control-allow-origin"]
        .map(|name| answer.headers[name].as_str());
    assert_eq!((answer.status, headers), (200, ["text/event-stream", "no-store", ORIGIN]));
    page.read_until("retry: 2000\n\n").expect("how it comes back");
    shim.deliver(&paid_pack("cs_1", ANN).completed("evt_1"));
    books.grant(BOB, 10, "another's");
    let (number, event) = next_event(&mut page);
    assert_eq!(
        (number, &event["type"], &event["data"]["credits"]),
        (2, &json!("credits.granted"), &json!(500)),
        "from now on"
    );
    assert_eq!(event["id"], format!("{ANN}_2"));
    drop(page);
    books.grant(ANN, 10, "meanwhile");
    let (mut page, _) = listen(&shim, &token(ANN), &[("Last-Event-ID", "1")]);
    assert_eq!([next_event(&mut page).0, next_event(&mut page).0], [2, 3]);
    let (mut page, _) = listen(&shim, &token(ANN), &[("Last-Event-ID", "99")]);
    books.grant(ANN, 10, "later");
    assert_eq!(next_event(&mut page).0, 4, "a number that is not there yet hides nothing");
    assert_eq!(listen(&shim, &token(ANN), &[("Last-Event-ID", "evt_1")]).1.status, 400);
    assert_eq!(shim.metric("stripe_credits_event_streams", &[]), 2);
}

#[test]
fn a_long_transaction_hides_no_event_of_a_stream() {
    let database = Database::with_catalog();
    let shim = without_stripe(&database).start();
    let (mut books, mut long) = (database.connect(), database.connect());
    let (mut anns, _) = listen(&shim, &token(ANN), &[]);
    let (mut bobs, _) = listen(&shim, &token(BOB), &[]);
    long.run("begin");
    long.grant(ANN, 10, "long");
    books.grant(BOB, 10, "short");
    assert_eq!(next_event(&mut bobs).0, 1);
    long.run("commit");
    assert_eq!(next_event(&mut anns).0, 1);
}

#[test]
fn a_stream_ends_with_its_token_and_with_the_shim() {
    let database = Database::with_catalog();
    let mut shim = without_stripe(&database).start();
    let mut short = claims(ANN);
    short["exp"] = json!(unix_now() + 2);
    let (mut page, answer) = listen(&shim, &Signer::secret().sign(&short), &[]);
    assert_eq!(answer.status, 200);
    page.read_until("\r\n0\r\n\r\n").expect("the stream ends as it should");
    let (mut page, _) = listen(&shim, &token(ANN), &[]);
    shim.ask_to_stop();
    page.read_until("\r\n0\r\n\r\n").expect("the stream ends as it should");
    assert!(shim.ended().success());
}

#[test]
fn a_user_has_so_many_streams_and_nobody_has_one_without_a_token() {
    let database = Database::with_catalog();
    let shim = without_stripe(&database).start();
    let mut pages: Vec<Wire> = (0..5).map(|_| listen(&shim, &token(ANN), &[]).0).collect();
    let refused = listen(&shim, &token(ANN), &[]).1;
    assert_eq!((refused.status, refused.headers.contains_key("retry-after")), (429, true));
    assert_eq!(listen(&shim, &token(BOB), &[]).1.status, 200);
    pages.pop();
    until("a page that left makes room", || listen(&shim, &token(ANN), &[]).1.status == 200);
    assert_eq!(listen(&shim, "no token", &[]).1.status, 401);
}

#[test]
fn every_users_stream_has_only_their_own_events_in_order() {
    let database = Database::with_catalog();
    let shim = without_stripe(&database).start();
    let users: Vec<Uuid> = (0..6).map(user).collect();
    let pages: Vec<Wire> = users.iter().map(|user| listen(&shim, &token(*user), &[]).0).collect();
    let mut books = database.connect();
    for number in 0..10 {
        for user in &users {
            books.grant(*user, 10, &format!("gift-{number}"));
        }
    }
    for (user, mut page) in users.iter().zip(pages) {
        for number in 1..=10 {
            let (id, event) = next_event(&mut page);
            assert_eq!((id, &event["user_id"]), (number, &json!(user)));
        }
    }
}
