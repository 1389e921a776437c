//! `POST /webhooks/stripe`: what each delivery is answered, and what it leaves in the books.

use std::sync::Barrier;
use std::thread;

use serde_json::{Value, json};
use stripe_credits_tests::shim::{SECRET, Setup, Shim, deliver, signature, unix_now, until, v1, webhook};
use stripe_credits_tests::wire::{head, request};
use stripe_credits_tests::{ANN, BOB, Database, Event, catalog, paid_pack, session};

fn start(database: &Database) -> Shim {
    Setup::serve(&database.url()).start()
}

fn body(event: &Event) -> Vec<u8> {
    event.json().to_string().into_bytes()
}

/// Runs `attempt` with the time of day, again if the second changed meanwhile, since its result would be about neither.
fn within_one_second<T>(attempt: impl Fn(u64) -> T) -> T {
    loop {
        let now = unix_now();
        let result = attempt(now);
        if unix_now() == now {
            return result;
        }
    }
}

#[test]
fn a_paid_pack_is_applied_once_and_the_same_delivery_again_says_so() {
    let database = Database::with_catalog();
    let shim = start(&database);
    let mut books = database.connect();
    let event = paid_pack("cs_1", ANN).completed("evt_1");

    let first = shim.deliver(&event);
    assert_eq!(first.summary(), "200 applied");
    assert_eq!(first.headers["content-type"], "application/json");
    let outcome = first.json();
    assert_eq!(outcome["ok"], true);
    assert_eq!(outcome["credits"], 500);
    assert_eq!(outcome["remaining_total"], 500);
    assert_eq!(outcome["user_id"], ANN.to_string());
    assert_eq!(books.ledger(ANN), ["purchase 500"]);

    let second = shim.deliver(&event);
    assert_eq!(second.summary(), "200 already_applied");
    assert_eq!(second.json()["credits"], 0);
    assert_eq!(books.ledger(ANN), ["purchase 500"]);
    assert_eq!(books.balance(ANN), 500);
    let row: (String, String) = {
        let row = books
            .query_one(
                "select stripe_event_id, stripe_checkout_session_id from billing.credit_transactions",
                &[],
            )
            .expect("one ledger row");
        (row.get(0), row.get(1))
    };
    assert_eq!(row, ("evt_1".to_owned(), "cs_1".to_owned()));
    assert_eq!(books.one::<i32>("select attempts from billing.stripe_events", &[]), 2);
}

#[test]
fn scenario_02_three_deliveries_at_once_on_three_connections_grant_once() {
    let database = Database::with_catalog();
    let shim = start(&database);
    let event = paid_pack("cs_1", ANN).completed("evt_1");

    let barrier = Barrier::new(3);
    let mut outcomes: Vec<String> = thread::scope(|scope| {
        let deliveries: Vec<_> = (0..3)
            .map(|_| {
                scope.spawn(|| {
                    let mut wire = shim.connect();
                    let request = webhook(&body(&event));
                    barrier.wait();
                    wire.send(&request).expect("the shim reads");
                    wire.answer().expect("the shim answers").summary()
                })
            })
            .collect();
        deliveries.into_iter().map(|delivery| delivery.join().expect("an answer")).collect()
    });
    outcomes.sort();
    assert_eq!(outcomes, ["200 already_applied", "200 already_applied", "200 applied"]);
    let mut books = database.connect();
    assert_eq!(books.ledger(ANN), ["purchase 500"]);
    assert_eq!(books.balance(ANN), 500);
}

#[test]
fn scenario_03_two_event_ids_of_one_session_grant_once() {
    let database = Database::with_catalog();
    let shim = start(&database);
    let session = paid_pack("cs_1", ANN);
    assert_eq!(shim.deliver(&session.completed("evt_1")).summary(), "200 applied");
    let other = session.event("evt_2", "checkout.session.async_payment_succeeded");
    assert_eq!(shim.deliver(&other).summary(), "200 already_applied");
    assert_eq!(database.connect().ledger(ANN), ["purchase 500"]);
}

#[test]
fn a_forged_signature_is_refused_and_nothing_is_written() {
    let database = Database::with_catalog();
    let shim = start(&database);
    let mut books = database.connect();
    let before = books.everything();
    let body = body(&paid_pack("cs_1", ANN).completed("evt_1"));
    let tampered = String::from_utf8_lossy(&body).replace("evt_1", "evt_2").into_bytes();
    let now = unix_now();
    let good = signature(SECRET, now, &body);

    let forged = signature("whsec_of_a_stranger", now, &body);
    assert_eq!(shim.post(&body, &[&forged]).summary(), "400 signature_mismatch");
    assert_eq!(shim.post(&tampered, &[&good]).summary(), "400 signature_mismatch");
    let moved = good.replace(&now.to_string(), &(now + 1).to_string());
    assert_eq!(shim.post(&body, &[&moved]).summary(), "400 signature_mismatch");
    let v0 = good.replace("v1=", "v0=");
    assert_eq!(shim.post(&body, &[&v0]).summary(), "400 signature_no_v1");
    let upper = good.to_ascii_uppercase().replace("T=", "t=").replace("V1=", "v1=");
    assert_eq!(shim.post(&body, &[&upper]).summary(), "400 signature_mismatch");
    let short = &good[..good.len() - 2];
    assert_eq!(shim.post(&body, &[short]).summary(), "400 signature_mismatch");

    assert_eq!(books.everything(), before);
    assert_eq!(shim.metric("stripe_credits_signature_failures_total", &[]), 6);
    // It was the signature alone.
    assert_eq!(shim.post(&body, &[&good]).summary(), "200 applied");
    assert_eq!(books.ledger(ANN), ["purchase 500"]);
}

#[test]
fn each_of_two_secrets_is_accepted_during_a_rotation_and_a_third_is_not() {
    let database = Database::with_catalog();
    let shim = Setup::serve(&database.url()).with("STRIPE_WEBHOOK_SECRET", "whsec_old, whsec_new").start();
    let mut books = database.connect();
    let signed = |session: &str, secrets: &[&str]| {
        let body = body(&paid_pack(session, ANN).completed(&format!("evt_of_{session}")));
        let now = unix_now();
        let signed = |header: String, secret: &&str| header + ",v1=" + &v1(secret, &now.to_string(), &body);
        shim.post(&body, &[&secrets.iter().fold(format!("t={now}"), signed)]).summary()
    };
    assert_eq!(signed("cs_1", &["whsec_old"]), "200 applied");
    assert_eq!(signed("cs_2", &["whsec_new"]), "200 applied");
    assert_eq!(signed("cs_3", &["whsec_next"]), "400 signature_mismatch");
    // Stripe signs with every secret in force: one that we know is enough, wherever it stands.
    assert_eq!(signed("cs_4", &["whsec_next", "whsec_new"]), "200 applied");
    assert_eq!(signed("cs_5", &["whsec_old", "whsec_next"]), "200 applied");
    assert_eq!(books.balance(ANN), 2000);
    assert_eq!(books.inbox("evt_of_cs_3"), None);
}

#[test]
fn a_signature_counts_for_300_seconds_to_either_side_and_not_for_301() {
    let database = Database::with_catalog();
    let shim = start(&database);
    let event =
        |name: &str, buyer| body(&paid_pack(&format!("cs_{name}"), buyer).completed(&format!("evt_{name}")));
    let at = |body: &[u8], offset: i64| {
        within_one_second(|now| {
            shim.post(body, &[&signature(SECRET, now.saturating_add_signed(offset), body)]).summary()
        })
    };
    let mut books = database.connect();
    let far = event("far", ANN);
    assert_eq!(at(&far, -86_400), "400 signature_too_old");
    assert_eq!(at(&far, 86_400), "400 signature_too_new");
    assert_eq!(books.inbox("evt_far"), None);
    // A second later 301 are 300: an attempt that took so long may have been believed, and is made again.
    let beyond = event("beyond", BOB);
    assert_eq!(at(&beyond, -301), "400 signature_too_old");
    assert_eq!(at(&beyond, 301), "400 signature_too_new");
    let within = event("within", ANN);
    for offset in [-299, 299, -300, 300] {
        let outcome = at(&within, offset);
        assert!(outcome.starts_with("200 "), "{offset}: {outcome}");
    }
    assert_eq!(books.ledger(ANN), ["purchase 500"]);
}

#[test]
fn a_signature_header_that_is_not_exactly_one_t_and_some_v1_is_refused() {
    let database = Database::with_catalog();
    let shim = start(&database);
    let mut books = database.connect();
    let before = books.everything();
    let body = body(&paid_pack("cs_1", ANN).completed("evt_1"));
    let now = unix_now();
    let good = signature(SECRET, now, &body);
    let v1_of = |t: &str| v1(SECRET, t, &body);
    for (header, expected) in [
        (format!("t={now},{good}"), "400 signature_duplicate_timestamp"),
        (format!("{good},t={}", now - 1000), "400 signature_duplicate_timestamp"),
        (format!("v1={}", v1_of("")), "400 signature_missing_timestamp"),
        (format!("t=,v1={}", v1_of("")), "400 signature_malformed_timestamp"),
        (format!("t=+{now},v1={}", v1_of(&format!("+{now}"))), "400 signature_malformed_timestamp"),
        (format!("t={now}.0,v1={}", v1_of(&format!("{now}.0"))), "400 signature_malformed_timestamp"),
        (format!("t=-{now},v1={}", v1_of(&format!("-{now}"))), "400 signature_malformed_timestamp"),
        (format!("t={now}"), "400 signature_no_v1"),
        (format!("t={now},v1="), "400 signature_mismatch"),
        ("nonsense".to_owned(), "400 signature_malformed"),
        (String::new(), "400 signature_missing"),
        (format!("{good}{}", ",v1=00".repeat(16)), "400 signature_too_many_v1"),
        (format!("{good},v9={}", "0".repeat(4000)), "400 signature_too_long"),
        (good.replace('v', "\u{1d5}"), "400 signature_not_ascii"),
    ] {
        assert_eq!(shim.post(&body, &[&header]).summary(), expected, "{header}");
    }
    assert_eq!(shim.post(&body, &[]).summary(), "400 signature_missing");
    assert_eq!(shim.post(&body, &[&good, &good]).summary(), "400 signature_duplicate_header");
    assert_eq!(books.everything(), before);
    assert_eq!(shim.post(&body, &[&good]).summary(), "200 applied");
    assert_eq!(books.ledger(ANN), ["purchase 500"]);
}

#[test]
fn a_path_that_is_not_there_is_404_and_a_wrong_method_405_with_the_right_one() {
    let database = Database::with_catalog();
    let shim = start(&database);
    let mut books = database.connect();
    let before = books.everything();
    for path in ["/", "/webhooks", "/webhooks/stripe/", "/webhooks/stripe/x", "/healthz/x"] {
        assert_eq!(shim.get(path).summary(), "404 not_found", "{path}");
    }
    for method in ["GET", "PUT", "DELETE", "OPTIONS", "PATCH"] {
        let answer = shim.ask(method, "/webhooks/stripe", &[], b"");
        assert_eq!(answer.summary(), "405 method_not_allowed", "{method}");
        assert_eq!(answer.headers["allow"], "POST", "{method}");
    }
    // The answer to HEAD has a length and no body.
    let mut wire = shim.connect();
    wire.send(&request("HEAD", "/webhooks/stripe", &[("Connection", "close")], b"")).expect("the shim reads");
    assert!(wire.until_closed().starts_with(b"HTTP/1.1 405 "));
    for path in ["/healthz", "/readyz", "/metrics"] {
        assert_eq!(shim.get(path).summary(), "404 not_found", "{path} is for operators");
        let mut operator = shim.connect_as_operator();
        operator.send(&request("POST", path, &[], b"{}")).expect("the shim reads");
        let answer = operator.answer().expect("the shim answers");
        assert_eq!(answer.summary(), "405 method_not_allowed", "{path}");
        assert_eq!(answer.headers["allow"], "GET", "{path}");
    }
    assert_eq!(books.everything(), before);
}

#[test]
fn scenario_08_an_unknown_price_is_500_and_logged_until_a_catalog_push_heals_it() {
    let database = Database::with_catalog();
    let shim = start(&database);
    let mut books = database.connect();
    let event = session("cs_1").of(ANN).metadata("price_id", "price_new").completed("evt_1");

    let answer = shim.deliver(&event);
    assert_eq!(answer.summary(), "500 parked unknown_price");
    assert_eq!(answer.json()["details"]["missing_prices"], json!(["price_new"]));
    let line = &shim.deliveries("evt_1", 1)[0];
    assert_eq!(line["level"], "ERROR");
    assert_eq!(line["price_id"], "price_new");
    assert_eq!(line["outcome"], "parked");
    assert_eq!(line["reason"], "unknown_price");
    assert_eq!(shim.metric("stripe_credits_unknown_price_hits_total", &[]), 1);
    until("the parked events were counted again", || shim.metric("stripe_credits_parked_events", &[]) == 1);
    assert_eq!(books.ledger(ANN), [""; 0]);

    let mut document = catalog();
    document["packs"].as_array_mut().expect("packs").push(json!({
        "key": "pack_new", "name": "A new pack", "credits": 750, "prices": ["price_new"],
    }));
    let push = Setup::command(&["catalog", "push", "-"])
        .with("DATABASE_URL", &database.url())
        .with_stdin(&document.to_string())
        .run();
    assert_eq!(push.code, Some(0), "{push:?}");
    assert!(push.stdout.contains("price_new"), "{push:?}");

    // By itself, before anything comes again.
    assert_eq!(books.ledger(ANN), ["purchase 750"]);
    assert_eq!(books.inbox("evt_1").as_deref(), Some("applied"));
    assert_eq!(shim.deliver(&event).summary(), "200 already_applied");
    assert_eq!(books.ledger(ANN), ["purchase 750"]);
    assert_eq!(books.balance(ANN), 750);
    until("the parked events were counted again", || shim.metric("stripe_credits_parked_events", &[]) == 0);
}

#[test]
fn without_a_catalog_events_are_kept_and_answered_500_so_that_stripe_resends_them() {
    let database = Database::new();
    let shim = start(&database);
    let mut books = database.connect();
    let event = paid_pack("cs_1", ANN).completed("evt_1");
    assert_eq!(shim.deliver(&event).summary(), "500 parked no_catalog");
    assert_eq!(shim.deliveries("evt_1", 1)[0]["level"], "ERROR");
    assert_eq!(books.inbox("evt_1").as_deref(), Some("parked no_catalog"));
    books.load_catalog(&catalog());
    assert_eq!(books.ledger(ANN), ["purchase 500"]);
    assert_eq!(shim.deliver(&event).summary(), "200 already_applied");
    assert_eq!(books.balance(ANN), 500);
}

#[test]
fn scenario_07_an_unknown_user_is_parked_with_200_and_applied_with_its_customer() {
    let database = Database::with_catalog();
    let shim = start(&database);
    let mut books = database.connect();
    let unowned = session("cs_1").with("customer", "cus_1").metadata("price_id", "price_pack");
    assert_eq!(shim.deliver(&unowned.completed("evt_1")).summary(), "200 parked unknown_user");
    assert_eq!(shim.deliveries("evt_1", 1)[0]["level"], "WARN");
    assert_eq!(books.balance(ANN), 0);

    let anns = paid_pack("cs_2", ANN).with("customer", "cus_1");
    let answer = shim.deliver(&anns.completed("evt_2"));
    assert_eq!(answer.summary(), "200 applied");
    assert_eq!(books.balance(ANN), 1000);
    assert_eq!(books.ledger(ANN), ["purchase 500", "purchase 500"]);
    assert_eq!(books.inbox("evt_1").as_deref(), Some("applied"));
    assert_eq!(shim.deliver(&unowned.completed("evt_1")).summary(), "200 already_applied");
    assert_eq!(books.balance(ANN), 1000);
}

#[test]
fn a_client_reference_id_against_a_customer_link_is_parked_with_200() {
    let database = Database::with_catalog();
    let shim = start(&database);
    let mut books = database.connect();
    let anns = paid_pack("cs_1", ANN).with("customer", "cus_1");
    assert_eq!(shim.deliver(&anns.completed("evt_1")).summary(), "200 applied");
    let claimed = session("cs_2")
        .with("customer", "cus_1")
        .with("client_reference_id", BOB.to_string())
        .metadata("price_id", "price_pack");
    assert_eq!(shim.deliver(&claimed.completed("evt_2")).summary(), "200 parked identity_conflict");
    assert_eq!((books.balance(ANN), books.balance(BOB)), (500, 0));
}

#[test]
fn scenario_33_an_event_of_live_mode_or_of_a_foreign_account_is_ignored_with_200() {
    let database = Database::with_catalog();
    let shim = start(&database);
    let mut books = database.connect();
    let pack = paid_pack("cs_1", ANN);
    let live = pack.clone().with("livemode", true).completed("evt_live").with("livemode", true);
    assert_eq!(shim.deliver(&live).summary(), "200 ignored livemode");
    let foreign = pack.completed("evt_foreign").with("account", "acct_of_another");
    assert_eq!(shim.deliver(&foreign).summary(), "200 ignored account");
    assert_eq!(books.inbox("evt_live").as_deref(), Some("ignored livemode"));
    assert_eq!(books.inbox("evt_foreign").as_deref(), Some("ignored account"));
    assert_eq!(books.ledger(ANN), [""; 0]);
    let payments: i64 = books.one("select count(*) from billing.payments", &[]);
    assert_eq!(payments, 0);
}

#[test]
fn what_grants_nothing_is_ignored_with_200() {
    let database = Database::with_catalog();
    let shim = start(&database);
    let mut books = database.connect();
    let pack = paid_pack("cs_1", ANN);
    for (event, expected) in [
        (pack.clone().with("payment_status", "unpaid").completed("evt_1"), "200 ignored unpaid"),
        (
            pack.clone()
                .with("payment_status", "unpaid")
                .event("evt_2", "checkout.session.async_payment_failed"),
            "200 ignored payment_failed",
        ),
        (
            pack.clone()
                .with("payment_status", "unpaid")
                .with("status", "expired")
                .event("evt_3", "checkout.session.expired"),
            "200 ignored expired",
        ),
        (pack.clone().with("mode", "subscription").completed("evt_4"), "200 ignored mode"),
        (
            session("cs_2").of(ANN).metadata("price_id", "price_tshirt").completed("evt_5"),
            "200 ignored not_credits",
        ),
        (pack.event("evt_6", "product.created"), "200 ignored event_type"),
    ] {
        assert_eq!(shim.deliver(&event).summary(), expected);
        assert_eq!(books.inbox(event.id()).as_deref(), expected.strip_prefix("200 "));
    }
    assert_eq!(books.ledger(ANN), [""; 0]);
    // It was the payment that was missing.
    let paid = pack.event("evt_7", "checkout.session.async_payment_succeeded");
    assert_eq!(shim.deliver(&paid).summary(), "200 applied");
    assert_eq!(books.ledger(ANN), ["purchase 500"]);
}

#[test]
fn a_rejected_event_is_answered_200_and_logged_as_an_error() {
    let database = Database::with_catalog();
    let shim = start(&database);
    let mut books = database.connect();
    assert_eq!(shim.deliver(&paid_pack("cs_1", ANN).completed("evt_1")).summary(), "200 applied");
    let stolen = paid_pack("cs_1", BOB).completed("evt_2");
    assert_eq!(shim.deliver(&stolen).summary(), "200 rejected conflict");
    let line = &shim.deliveries("evt_2", 1)[0];
    assert_eq!(line["level"], "ERROR");
    assert_eq!(line["reason"], "conflict");
    assert_eq!(line["status"], 200);
    assert_eq!((books.balance(ANN), books.balance(BOB)), (500, 0));
    assert_eq!(books.inbox("evt_2").as_deref(), Some("rejected conflict"));

    let mut document = catalog();
    document["packs"][0]["credits"] = json!(1_000_000_000_000_u64);
    books.load_catalog(&document);
    let huge = session("cs_2")
        .with("created", unix_now() + 60)
        .of(ANN)
        .metadata("price_id", "price_pack")
        .metadata("quantity", "1000000");
    assert_eq!(shim.deliver(&huge.completed("evt_3")).summary(), "200 rejected out_of_range");
    assert_eq!(shim.deliveries("evt_3", 1)[0]["level"], "ERROR");
    assert_eq!(books.ledger(ANN), ["purchase 500"]);
}

#[test]
fn one_connection_carries_many_deliveries_pipelined_ones_too() {
    let database = Database::with_catalog();
    let shim = start(&database);
    let mut wire = shim.connect();
    let requests: Vec<u8> = (0..10)
        .flat_map(|n| webhook(&body(&paid_pack(&format!("cs_{n}"), ANN).completed(&format!("evt_{n}")))))
        .collect();
    wire.send(&requests).expect("the shim reads");
    for n in 0..10 {
        let answer = wire.answer().expect("the shim answers");
        assert_eq!(answer.summary(), "200 applied");
        assert_eq!(answer.json()["remaining_total"], 500 * (n + 1));
    }
    assert_eq!(database.connect().balance(ANN), 5000);
}

#[test]
fn a_sender_that_asks_first_is_told_to_continue_and_then_answered() {
    let database = Database::with_catalog();
    let shim = start(&database);
    let body = body(&paid_pack("cs_1", ANN).completed("evt_1"));
    let (signature, length) = (signature(SECRET, unix_now(), &body), body.len().to_string());
    let headers =
        [("Stripe-Signature", &*signature), ("Content-Length", &*length), ("Expect", "100-continue")];
    let mut wire = shim.connect();
    wire.send(&head("POST", "/webhooks/stripe", &headers)).expect("the shim reads");
    assert_eq!(wire.answer().expect("an answer").status, 100);
    wire.send(&body).expect("the shim reads");
    assert_eq!(wire.answer().expect("an answer").summary(), "200 applied");
    assert_eq!(database.connect().ledger(ANN), ["purchase 500"]);
}

#[test]
fn scenario_13_different_packs_of_one_user_at_once_lose_no_update() {
    let database = Database::with_catalog();
    let shim = start(&database);
    let events: Vec<Event> =
        (0..32).map(|n| paid_pack(&format!("cs_{n}"), ANN).completed(&format!("evt_{n}"))).collect();
    let barrier = Barrier::new(events.len());
    thread::scope(|scope| {
        for event in &events {
            scope.spawn(|| {
                barrier.wait();
                assert_eq!(deliver(shim.address(), event).expect("an answer").summary(), "200 applied");
            });
        }
    });
    let mut books = database.connect();
    assert_eq!(books.balance(ANN), 16_000);
    assert_eq!(books.ledger(ANN).len(), 32);
}

#[test]
fn a_database_without_the_extension_takes_nothing_and_the_shim_says_why() {
    let database = Database::empty();
    let shim = start(&database);
    let ready = shim.ops("/readyz");
    assert_eq!(ready.summary(), "503 extension_missing");
    assert!(ready.headers.contains_key("retry-after"));
    assert_eq!(shim.ops("/healthz").status, 200);
    let answer = shim.deliver(&paid_pack("cs_1", ANN).completed("evt_1"));
    assert_eq!(answer.summary(), "503 extension_missing");
    assert!(answer.headers.contains_key("retry-after"));
    let line: Value = shim.deliveries("evt_1", 1)[0].clone();
    assert_eq!(line["level"], "ERROR");
}
