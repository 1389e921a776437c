//! The browser that comes back applies its own purchase, by the same function as the webhook, and no other user's.

use std::sync::Barrier;
use std::thread;

use serde_json::{Value, json};
use stripe_credits_tests::app::{STRIPE_FAULTS, app};
use stripe_credits_tests::fake_stripe::{FakeStripe, Fault};
use stripe_credits_tests::shim::{Shim, deliver, unix_now};
use stripe_credits_tests::wire::Answer;
use stripe_credits_tests::{ANN, BOB, Connection, Database, Session, catalog, paid_pack, session};
use uuid::Uuid;

const PACK: &str = "/reconcile-stripe-credit-pack";
const SUBSCRIPTION: &str = "/reconcile-stripe-checkout";

fn reconcile(shim: &Shim, user: Uuid, session_id: &str) -> Answer {
    shim.post_as(user, PACK, &json!({"session_id": session_id}))
}

/// A paid session that names its price in the line items only.
fn bare(session_id: &str, user: Uuid) -> Session {
    session(session_id).of(user)
}

/// A session of mode subscription, with its subscription and its invoice by their ids.
fn subscribed(session_id: &str, user: Uuid) -> Session {
    session(session_id)
        .of(user)
        .with("mode", "subscription")
        .with("payment_intent", Value::Null)
        .with("subscription", "sub_1")
        .with("invoice", "in_1")
        .with("customer", "cus_1")
}

fn start(database: &Database, stripe: &FakeStripe) -> Shim {
    app(database, stripe).start()
}

fn has_no_money(books: &mut Connection) -> bool {
    ["accounts", "payments", "customers", "credit_grants", "credit_transactions"]
        .iter()
        .all(|table| books.one::<i64>(&format!("select count(*) from billing.{table}"), &[]) == 0)
}

#[test]
fn a_pack_is_credited_once_with_its_line_items_from_stripe_and_by_stripes_clock() {
    let database = Database::with_catalog();
    let stripe = FakeStripe::start();
    stripe.knows_session(bare("cs_1", ANN).json().clone());
    stripe.knows_line_items_of("cs_1", &[("price_pack", 3)]);
    stripe.set_date("Thu, 02 Aug 2018 10:10:20 GMT");
    let shim = start(&database, &stripe);
    let mut books = database.connect();

    let answer = reconcile(&shim, ANN, "cs_1");
    assert_eq!(answer.summary(), "200 applied");
    let json = answer.json();
    assert_eq!(json["ok"], true);
    assert_eq!(json["credits"], 1500);
    assert_eq!(
        (&json["remaining_total"], &json["remaining_purchased"], &json["remaining_subscription"]),
        (&json!(1500), &json!(1500), &json!(0))
    );
    assert_eq!(books.ledger(ANN), ["purchase 1500"]);
    let asked = stripe.asked();
    assert_eq!(asked.len(), 1);
    assert_eq!(asked[0].line(), "GET /v1/checkout/sessions/cs_1?expand[]=line_items");
    assert_eq!(asked[0].version.as_deref(), Some("2025-03-31.basil"));
    assert_eq!(books.inbox("reconcile_credit_pack:cs_1").as_deref(), Some("applied"));
    let created: i64 =
        books.one("select extract(epoch from created)::bigint from billing.stripe_events", &[]);
    assert_eq!(created, 1_533_204_620, "Stripe's clock, not ours");

    // Both of the names that clients have for it.
    let again = shim.post_as(ANN, PACK, &json!({"sessionId": "cs_1"}));
    assert_eq!((again.summary(), &again.json()["ok"]), ("200 already_applied".to_owned(), &json!(true)));
    assert_eq!(again.json()["remaining_total"], 1500);
    assert_eq!(books.ledger(ANN), ["purchase 1500"]);

    let lines = shim.requests(PACK, 2);
    for line in &lines {
        assert_eq!(
            (&line["payment_intent_id"], &line["price_id"]),
            (&json!("pi_1"), &json!("price_pack")),
            "{line}"
        );
    }
    let line = &lines[0];
    assert_eq!(line["level"], "INFO");
    assert_eq!(line["user_id"], json!(ANN));
    assert_eq!(line["session_id"], "cs_1");
    assert_eq!(line["outcome"], "applied");
    assert_eq!(line["credits"], 1500);
    assert!(line["ms"].as_f64().is_some_and(|ms| ms > 0.0));
    let labels = [("route", PACK), ("outcome", "applied")];
    assert_eq!(shim.metric("stripe_credits_requests_total", &labels), 1);
}

#[test]
fn scenario_04_reconcile_races_the_webhook_and_both_see_the_new_balance() {
    let database = Database::with_catalog();
    let stripe = FakeStripe::start();
    let shim = start(&database, &stripe);
    let mut books = database.connect();
    let barrier = Barrier::new(2);
    for n in 1..=100 {
        let session = paid_pack(&format!("cs_{n}"), ANN).with("customer", "cus_ann");
        stripe.knows_session(session.json().clone());
        let event = session.completed(&format!("evt_{n}"));
        let (webhook, browser) = thread::scope(|scope| {
            let webhook = scope.spawn(|| {
                barrier.wait();
                deliver(shim.address(), &event).expect("an answer")
            });
            barrier.wait();
            let browser = reconcile(&shim, ANN, session.id());
            (webhook.join().expect("an answer"), browser)
        });
        let mut outcomes = [webhook.summary(), browser.summary()];
        outcomes.sort();
        assert_eq!(outcomes, ["200 already_applied", "200 applied"], "{n}");
        for answer in [webhook, browser] {
            assert_eq!(answer.json()["remaining_total"], 500 * n, "{n}");
        }
    }
    assert_eq!(books.ledger(ANN), vec!["purchase 500"; 100]);
    assert_eq!(books.balance(ANN), 50_000);
}

#[test]
fn scenario_04_the_browser_reconciles_twice_and_the_webhook_never_comes() {
    let database = Database::with_catalog();
    let stripe = FakeStripe::start();
    stripe.knows_session(paid_pack("cs_1", ANN).json().clone());
    let shim = start(&database, &stripe);
    let mut outcomes: Vec<String> = thread::scope(|scope| {
        let tabs: Vec<_> = (0..8).map(|_| scope.spawn(|| reconcile(&shim, ANN, "cs_1").summary())).collect();
        tabs.into_iter().map(|tab| tab.join().expect("an answer")).collect()
    });
    outcomes.sort();
    assert_eq!(outcomes[..7], ["200 already_applied"; 7]);
    assert_eq!(outcomes[7], "200 applied");
    assert_eq!(database.connect().ledger(ANN), ["purchase 500"]);
}

#[test]
fn a_returning_buyer_does_not_learn_which_user_the_customer_had_before() {
    let database = Database::with_catalog();
    let stripe = FakeStripe::start();
    let shim = start(&database, &stripe);
    let mut books = database.connect();
    let bobs = paid_pack("cs_1", BOB).with("customer", "cus_shared");
    assert_eq!(shim.deliver(&bobs.completed("evt_1")).summary(), "200 applied");
    stripe.knows_session(paid_pack("cs_2", ANN).with("customer", "cus_shared").json().clone());
    let answer = reconcile(&shim, ANN, "cs_2");
    assert_eq!(answer.summary(), "200 applied");
    assert!(!answer.body.contains(&BOB.to_string()), "{}", answer.body);
    assert_eq!(answer.json().get("details"), None);
    assert_eq!((books.balance(ANN), books.balance(BOB)), (500, 500));
}

#[test]
fn a_late_webhook_shows_by_its_age() {
    let database = Database::with_catalog();
    let stripe = FakeStripe::start();
    stripe.knows_session(paid_pack("cs_1", ANN).json().clone());
    let shim = start(&database, &stripe);
    assert_eq!(reconcile(&shim, ANN, "cs_1").summary(), "200 applied");
    let made = unix_now() - 7200;
    let late = paid_pack("cs_1", ANN).completed("evt_1").with("created", made);
    assert_eq!(shim.deliver(&late).summary(), "200 already_applied");
    let age = shim.deliveries("evt_1", 1)[0]["age_s"].as_u64().expect("an age");
    assert!((7200..7300).contains(&age), "{age}");
    assert_eq!(shim.metric("stripe_credits_event_age_seconds_count", &[]), 1);
    assert_eq!(shim.metric("stripe_credits_event_age_seconds_bucket", &[("le", "4096.0")]), 0);
}

#[test]
fn scenario_05_another_users_session_is_403_and_its_owner_is_still_credited() {
    let database = Database::with_catalog();
    let stripe = FakeStripe::start();
    let shim = start(&database, &stripe);
    let mut books = database.connect();
    let anns = paid_pack("cs_1", ANN).with("customer", "cus_1");
    let unowned = session("cs_2").metadata("price_id", "price_pack");
    let by_link =
        session("cs_3").with("client_reference_id", ANN.to_string()).metadata("price_id", "price_pack");
    for session in [&anns, &unowned, &by_link] {
        stripe.knows_session(session.json().clone());
    }
    let before = books.everything();
    for (session_id, expected) in [
        ("cs_1", "403 rejected not_owner"),
        ("cs_2", "403 rejected no_owner"),
        ("cs_3", "403 rejected not_owner"),
    ] {
        let answer = reconcile(&shim, BOB, session_id);
        assert_eq!(answer.summary(), expected, "{session_id}");
        assert_eq!(answer.json()["ok"], false);
        // The answer must not reveal the owner of the session.
        assert!(!answer.body.contains(&ANN.to_string()), "{session_id}");
        assert_eq!(books.everything(), before, "{session_id}");
    }
    let line = &shim.requests(PACK, 3)[0];
    assert_eq!((&line["level"], &line["reason"]), (&json!("WARN"), &json!("not_owner")));
    assert_eq!((&line["user_id"], &line["session_id"]), (&json!(BOB), &json!("cs_1")));
    assert_eq!(shim.metric("stripe_credits_requests_total", &[("reason", "not_owner")]), 2);

    assert_eq!(reconcile(&shim, ANN, "cs_1").summary(), "200 applied");
    assert_eq!(shim.deliver(&anns.completed("evt_1")).summary(), "200 already_applied");
    assert_eq!(reconcile(&shim, BOB, "cs_1").summary(), "403 rejected not_owner");
    assert_eq!((books.ledger(ANN), books.ledger(BOB)), (vec!["purchase 500".to_owned()], vec![]));
}

#[test]
fn scenario_05_another_users_subscription_is_403_too() {
    let database = Database::with_catalog();
    let stripe = FakeStripe::start();
    stripe.knows_session(subscribed("cs_1", ANN).json().clone());
    let shim = start(&database, &stripe);
    let mut books = database.connect();
    let before = books.everything();
    let answer = shim.post_as(BOB, SUBSCRIPTION, &json!({"session_id": "cs_1"}));
    assert_eq!(answer.summary(), "403 rejected not_owner");
    assert_eq!(books.everything(), before);
}

#[test]
fn a_subscriptions_session_is_asked_for_with_all_that_grants() {
    let database = Database::with_catalog();
    let stripe = FakeStripe::start();
    stripe.knows_session(subscribed("cs_1", ANN).json().clone());
    let shim = start(&database, &stripe);
    shim.post_as(ANN, SUBSCRIPTION, &json!({"session_id": "cs_1"}));
    assert_eq!(
        stripe.asked()[0].line(),
        "GET /v1/checkout/sessions/cs_1?expand[]=line_items&expand[]=subscription&expand[]=invoice"
    );
}

#[test]
fn what_is_no_session_or_unknown_or_of_the_other_mode_is_400_and_nothing_is_written() {
    let database = Database::with_catalog();
    let stripe = FakeStripe::start();
    stripe.knows_session(paid_pack("cs_pack", ANN).json().clone());
    stripe.knows_session(subscribed("cs_plan", ANN).json().clone());
    stripe.knows_session(paid_pack("cs_setup", ANN).with("mode", "setup").json().clone());
    let shim = start(&database, &stripe);
    let mut books = database.connect();
    let before = books.everything();
    for route in [PACK, SUBSCRIPTION] {
        for wrong in [
            "",
            "pi_1",
            "cs_",
            "cs_1/line_items",
            "cs_1?expand[]=x",
            "cs_1#",
            "../v1/customers/cus_1",
            "cs_\u{e9}",
        ] {
            let answer = shim.post_as(ANN, route, &json!({"session_id": wrong}));
            assert_eq!(answer.summary(), "400 not_a_session", "{wrong:?}");
        }
        let long = format!("cs_{}", "1".repeat(300));
        assert_eq!(shim.post_as(ANN, route, &json!({"session_id": long})).summary(), "400 not_a_session");
    }
    assert_eq!(stripe.asked(), []);
    assert_eq!(reconcile(&shim, ANN, "cs_nowhere").summary(), "400 unknown_session");
    assert_eq!(reconcile(&shim, ANN, "cs_plan").summary(), "400 wrong_mode");
    assert_eq!(reconcile(&shim, ANN, "cs_setup").summary(), "400 wrong_mode");
    let plan = |id: &str| shim.post_as(ANN, SUBSCRIPTION, &json!({"session_id": id})).summary();
    assert_eq!(plan("cs_nowhere"), "400 unknown_session");
    assert_eq!(plan("cs_pack"), "400 wrong_mode");
    assert_eq!(books.everything(), before);
}

#[test]
fn a_body_that_names_no_session_is_400_and_is_not_in_the_log() {
    let database = Database::with_catalog();
    let stripe = FakeStripe::start();
    let shim = start(&database, &stripe);
    let token = stripe_credits_tests::tokens::token(ANN);
    for body in [
        "",
        "{}",
        "null",
        "[\"cs_1\"]",
        "{\"session_id\":7}",
        "{\"session_id\":null}",
        "{\"session_id\":\"hush-hush\"",
        "{\"session_id\":[\"hush-hush\"]}",
        "{\"session_id\":\"cs_1\",\"sessionId\":\"cs_2\"}",
        "\u{feff}{}",
        "hush-hush",
    ] {
        let answer = shim.bearing("POST", PACK, &token, body.as_bytes());
        assert_eq!(answer.summary(), "400 malformed_request", "{body}");
    }
    let answer = shim.bearing("POST", PACK, &token, b"\xff\xfe");
    assert_eq!(answer.summary(), "400 malformed_request");
    let huge = vec![b' '; 1024 * 1024 + 1];
    assert_eq!(shim.bearing("POST", PACK, &token, &huge).summary(), "413 body_too_large");
    assert!(!shim.text().contains("hush-hush"));
    assert_eq!(stripe.asked(), []);
    let answer = shim.ask("GET", PACK, &[], b"");
    assert_eq!((answer.summary(), &*answer.headers["allow"]), ("405 method_not_allowed".to_owned(), "POST"));
}

#[test]
fn a_session_that_is_not_paid_yet_is_409_and_credited_by_the_same_call_once_it_is() {
    let database = Database::with_catalog();
    let stripe = FakeStripe::start();
    let shim = start(&database, &stripe);
    let mut books = database.connect();
    let open = paid_pack("cs_1", ANN).with("payment_status", "unpaid").with("status", "open");
    stripe.knows_session(open.json().clone());
    assert_eq!(reconcile(&shim, ANN, "cs_1").summary(), "409 ignored unpaid");
    let complete = paid_pack("cs_1", ANN).with("payment_status", "unpaid");
    stripe.knows_session(complete.json().clone());
    assert_eq!(reconcile(&shim, ANN, "cs_1").summary(), "409 ignored unpaid");
    assert!(has_no_money(&mut books));
    stripe.knows_session(paid_pack("cs_1", ANN).json().clone());
    let answer = reconcile(&shim, ANN, "cs_1");
    assert_eq!(
        (answer.summary(), &answer.json()["remaining_total"]),
        ("200 applied".to_owned(), &json!(500))
    );
    assert_eq!(books.ledger(ANN), ["purchase 500"]);
}

#[test]
fn an_unknown_price_is_500_as_for_the_webhook_and_heals_by_itself() {
    let database = Database::with_catalog();
    let stripe = FakeStripe::start();
    stripe.knows_session(session("cs_1").of(ANN).metadata("price_id", "price_new").json().clone());
    let shim = start(&database, &stripe);
    let mut books = database.connect();
    assert_eq!(reconcile(&shim, ANN, "cs_1").summary(), "500 parked unknown_price");
    let line = &shim.requests(PACK, 1)[0];
    assert_eq!((&line["level"], &line["reason"]), (&json!("ERROR"), &json!("unknown_price")));
    let mut document = catalog();
    document["packs"].as_array_mut().expect("packs").push(json!({
        "key": "pack_new", "name": "A new pack", "credits": 750, "prices": ["price_new"],
    }));
    books.load_catalog(&document);
    assert_eq!(books.ledger(ANN), ["purchase 750"]);
    assert_eq!(reconcile(&shim, ANN, "cs_1").summary(), "200 already_applied");
    assert_eq!(books.ledger(ANN), ["purchase 750"]);
}

#[test]
fn a_price_without_credits_is_200_and_says_so() {
    let database = Database::with_catalog();
    let stripe = FakeStripe::start();
    stripe.knows_session(session("cs_1").of(ANN).metadata("price_id", "price_tshirt").json().clone());
    let shim = start(&database, &stripe);
    let answer = reconcile(&shim, ANN, "cs_1");
    assert_eq!(
        (answer.summary(), &answer.json()["ok"]),
        ("200 ignored not_credits".to_owned(), &json!(false))
    );
    assert_eq!(database.connect().ledger(ANN), [""; 0]);
}

#[test]
fn more_line_items_than_stripe_expands_are_fetched_and_counted() {
    let database = Database::with_catalog();
    let stripe = FakeStripe::start();
    stripe.knows_session(bare("cs_1", ANN).json().clone());
    stripe.knows_line_items_of("cs_1", &[("price_pack", 1); 12]);
    let shim = start(&database, &stripe);
    let mut books = database.connect();

    // Stripe fails just then: the same call does it later.
    stripe.fail_after(1, Fault::Failing);
    assert_eq!(reconcile(&shim, ANN, "cs_1").summary(), "502 stripe_failed");
    assert!(has_no_money(&mut books));
    assert_eq!(books.inbox("reconcile_credit_pack:cs_1").as_deref(), Some("needs_fetch"));
    stripe.recover();

    let answer = reconcile(&shim, ANN, "cs_1");
    assert_eq!((answer.summary(), &answer.json()["credits"]), ("200 applied".to_owned(), &json!(6000)));
    assert_eq!(books.ledger(ANN), ["purchase 6000"]);
    let lines: Vec<String> =
        stripe.asked().iter().map(stripe_credits_tests::fake_stripe::RecordedRequest::line).collect();
    let both = [
        "GET /v1/checkout/sessions/cs_1?expand[]=line_items",
        "GET /v1/checkout/sessions/cs_1/line_items?limit=100",
    ];
    assert_eq!(lines, [both, both].concat());
}

#[test]
fn scenario_34_while_stripe_fails_reconcile_is_502_or_503_and_writes_nothing() {
    let database = Database::with_catalog();
    let stripe = FakeStripe::start();
    let shim = start(&database, &stripe);
    let mut books = database.connect();
    let before = books.everything();
    stripe.knows_session(paid_pack("cs_1", ANN).json().clone());
    for (fault, expected) in STRIPE_FAULTS {
        stripe.fail(fault);
        let answer = reconcile(&shim, ANN, "cs_1");
        assert_eq!(answer.summary(), expected, "{fault:?}");
        assert_eq!(answer.status == 503, answer.headers.contains_key("retry-after"), "{fault:?}");
        for inside in ["sk_", "127.0.0.1", "/v1/", "hyper"] {
            assert!(!answer.body.contains(inside), "{fault:?}: {}", answer.body);
        }
        assert_eq!(books.everything(), before, "{fault:?}");
    }
    let line = &shim.requests(PACK, STRIPE_FAULTS.len())[0];
    assert_eq!((&line["level"], &line["reason"]), (&json!("ERROR"), &json!("stripe_failed")));
    assert_eq!(shim.metric("stripe_credits_stripe_api_calls_total", &[("result", "stripe_unreachable")]), 2);
    stripe.recover();
    assert_eq!(reconcile(&shim, ANN, "cs_1").summary(), "200 applied");
    assert_eq!(books.ledger(ANN), ["purchase 500"]);
}

#[test]
fn scenario_34_a_stripe_that_never_answers_is_502_after_ten_seconds() {
    let database = Database::with_catalog();
    let stripe = FakeStripe::start();
    stripe.knows_session(paid_pack("cs_1", ANN).json().clone());
    stripe.fail(Fault::Silent);
    let shim = start(&database, &stripe);
    assert_eq!(reconcile(&shim, ANN, "cs_1").summary(), "502 stripe_timeout");
    stripe.recover();
    assert_eq!(reconcile(&shim, ANN, "cs_1").summary(), "200 applied");
    assert_eq!(database.connect().ledger(ANN), ["purchase 500"]);
}

#[test]
fn an_answer_about_another_session_is_not_believed() {
    let database = Database::with_catalog();
    let stripe = FakeStripe::start();
    let shim = start(&database, &stripe);
    let mut books = database.connect();
    let before = books.everything();
    for wrong in [paid_pack("cs_2", ANN).json().clone(), json!({"id": "cs_1", "object": "customer"})] {
        stripe.knows_at("/v1/checkout/sessions/cs_1", wrong);
        assert_eq!(reconcile(&shim, ANN, "cs_1").summary(), "502 stripe_malformed_answer");
    }
    assert_eq!(books.everything(), before);
}

#[test]
fn a_live_session_at_a_test_install_is_400() {
    let database = Database::with_catalog();
    let stripe = FakeStripe::start();
    stripe.knows_session(paid_pack("cs_1", ANN).with("livemode", true).json().clone());
    let shim = start(&database, &stripe);
    let answer = reconcile(&shim, ANN, "cs_1");
    assert_eq!(answer.summary(), "400 ignored livemode");
    assert_eq!(database.connect().ledger(ANN), [""; 0]);
}

#[test]
fn the_database_away_is_503_and_a_retry_works() {
    let database = Database::with_catalog();
    let stripe = FakeStripe::start();
    stripe.knows_session(paid_pack("cs_1", ANN).json().clone());
    let shim = start(&database, &stripe);
    let mut books = database.connect();
    let elsewhere = Database::new();
    let name = database.name();
    let allow = |whether: bool| {
        elsewhere.connect().run(&format!("alter database {name} with allow_connections {whether}"));
    };
    allow(false);
    let fresh = app(&database, &stripe).start();
    assert_eq!(reconcile(&fresh, ANN, "cs_1").status, 503);
    allow(true);
    assert_eq!(reconcile(&fresh, ANN, "cs_1").summary(), "200 applied");
    assert_eq!(reconcile(&shim, ANN, "cs_1").summary(), "200 already_applied");
    assert_eq!(books.ledger(ANN), ["purchase 500"]);
}

#[test]
fn scenario_38_a_shim_killed_while_browsers_reconcile_has_granted_each_once() {
    let database = Database::with_catalog();
    let stripe = FakeStripe::start();
    let sessions: Vec<Session> = (0..30).map(|n| paid_pack(&format!("cs_{n}"), ANN)).collect();
    for session in &sessions {
        stripe.knows_session(session.json().clone());
    }
    let mut shim = start(&database, &stripe);
    let address = shim.address();
    let bearer = format!("Bearer {}", stripe_credits_tests::tokens::token(ANN));
    thread::scope(|scope| {
        for session in &sessions {
            let body = json!({"session_id": session.id()}).to_string();
            let request = stripe_credits_tests::wire::request(
                "POST",
                PACK,
                &[("Authorization", &bearer)],
                body.as_bytes(),
            );
            scope.spawn(move || {
                // Whether it is answered before the end is random.
                let wire = stripe_credits_tests::wire::Wire::try_open(address);
                let _ = wire.and_then(|mut wire| wire.send(&request).and_then(|()| wire.answer()));
            });
        }
        stripe_credits_tests::shim::until("some came through", || stripe.asked().len() > 5);
        shim.kill();
    });
    let shim = start(&database, &stripe);
    for session in &sessions {
        let answer = reconcile(&shim, ANN, session.id());
        assert!(answer.summary().ends_with("applied"), "{answer:?}");
    }
    let mut books = database.connect();
    assert_eq!(books.ledger(ANN), vec!["purchase 500"; 30]);
    assert_eq!(books.balance(ANN), 15_000);
}
