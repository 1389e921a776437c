//! What an event lacks is fetched from Stripe; and what happens while Stripe fails.

use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use stripe_credits_tests::fake_stripe::{FakeStripe, Fault, RecordedRequest};
use stripe_credits_tests::refunds::{charge, refunded};
use stripe_credits_tests::shim::{Setup, Shim, deliver, until};
use stripe_credits_tests::stripe::CREATED;
use stripe_credits_tests::subscription::{PRO, invoice, invoice_payment, renewal, subscription};
use stripe_credits_tests::{ANN, Connection, Database, Event, catalog, session};

/// The API version that the shim asks for, whatever the account's default is.
const VERSION: &str = "2025-03-31.basil";

/// A paid session that names its user but not what was bought.
fn bare(session_id: &str, event_id: &str) -> Event {
    session(session_id).of(ANN).completed(event_id)
}

fn line_items_asked(session_id: &str) -> RecordedRequest {
    RecordedRequest {
        method: "GET".to_owned(),
        path: format!("/v1/checkout/sessions/{session_id}/line_items?limit=100"),
        version: Some(VERSION.to_owned()),
        has_authorization: true,
        idempotency_key: None,
        body: String::new(),
    }
}

fn start(database: &Database, stripe: &FakeStripe) -> Shim {
    Setup::serve(&database.url()).with_stripe(stripe).start()
}

/// Nothing but the event itself and the names in it is there, and it waits.
fn assert_only_kept(books: &mut Connection, event_id: &str) {
    assert_eq!(books.inbox(event_id).as_deref(), Some("needs_fetch"));
    for table in ["accounts", "payments", "customers", "credit_grants", "credit_transactions"] {
        let rows: i64 = books.one(&format!("select count(*) from billing.{table}"), &[]);
        assert_eq!(rows, 0, "{table}");
    }
}

#[test]
fn scenario_09_three_packs_that_only_line_items_name_grant_1500_with_one_request() {
    let database = Database::with_catalog();
    let stripe = FakeStripe::start();
    stripe.knows_line_items("cs_1", &[("price_pack", 3)]);
    stripe.set_date("Thu, 02 Aug 2018 10:10:20 GMT");
    let shim = start(&database, &stripe);
    let mut books = database.connect();

    let answer = shim.deliver(&bare("cs_1", "evt_1"));
    assert_eq!(answer.summary(), "200 applied");
    assert_eq!(answer.json()["credits"], 1500);
    assert_eq!(books.ledger(ANN), ["purchase 1500"]);
    assert_eq!(books.balance(ANN), 1500);
    assert_eq!(stripe.asked(), [line_items_asked("cs_1")]);
    let fetched: Value = books.one("select fetched from billing.stripe_events", &[]);
    assert_eq!(fetched["as_of"], 1_533_204_620, "Stripe's clock, not ours");
    assert_eq!(shim.metric("stripe_credits_stripe_api_calls_total", &[("result", "ok")]), 1);

    assert_eq!(shim.deliver(&bare("cs_1", "evt_1")).summary(), "200 already_applied");
    assert_eq!(books.ledger(ANN), ["purchase 1500"]);
}

#[test]
fn a_refund_of_an_unknown_payment_intent_asks_once_which_invoice_it_paid() {
    let database = Database::with_catalog();
    let stripe = FakeStripe::start();
    let payment = invoice_payment("evt_by", "in_1", "pi_1").json()["data"]["object"].clone();
    stripe.knows_invoice_payments(vec![payment]);
    let shim = start(&database, &stripe);
    let mut books = database.connect();
    shim.deliver(&subscription("sub_1", "price_pro").of(ANN).created("evt_created"));
    shim.deliver(&renewal("in_1", "sub_1", PRO, 0).paid("evt_paid"));

    let refunded = refunded("re_1", "pi_1", 5_000);
    assert_eq!(shim.deliver(&refunded).summary(), "200 applied");
    assert_eq!(books.ledger(ANN), ["subscription_grant 10000", "reversal -5000"]);
    assert_eq!(shim.deliver(&refunded).summary(), "200 already_applied");
    // Stripe has no invoice for the payment of a pack, and that is not asked again.
    let other = charge("pi_2", 1_000, 500).event("evt_count", "charge.refunded");
    for _ in 0..2 {
        assert_eq!(shim.deliver(&other).summary(), "200 ignored unknown_payment");
    }
    let asked: Vec<String> = stripe.asked().into_iter().map(|asked| asked.path).collect();
    let path = "/v1/invoice_payments?payment[type]=payment_intent&payment[payment_intent]=";
    assert_eq!(asked, [format!("{path}pi_1&limit=100"), format!("{path}pi_2&limit=100")]);
}

#[test]
fn an_invoice_of_more_lines_than_a_page_is_read_page_by_page() {
    let database = Database::with_catalog();
    let stripe = FakeStripe::start();
    let shirts = (0..230).map(|n| (format!("il_{n}"), "price_tshirt"));
    let lines = shirts.chain([("il_plan".to_owned(), "price_pro")]).map(|(id, price)| {
        json!({
            "id": id, "object": "line_item", "amount": 1_000, "quantity": 1,
            "pricing": {"price_details": {"price": price}}, "period": {"start": CREATED, "end": CREATED + 30 * 86_400},
        })
    });
    stripe.knows_invoice_lines("in_1", lines.collect());
    let shim = start(&database, &stripe);
    let paid = invoice("in_1", "sub_1").of(ANN).with_more_lines().paid("evt_1");
    assert_eq!(shim.deliver(&paid).summary(), "200 applied");
    assert_eq!(database.connect().ledger(ANN), ["subscription_grant 10000"]);
    let paths: Vec<String> = stripe.asked().into_iter().map(|asked| asked.path).collect();
    let lines = "/v1/invoices/in_1/lines?limit=100";
    let after = |last: &str| format!("{lines}&starting_after={last}");
    assert_eq!(paths, [lines.to_owned(), after("il_99"), after("il_199")]);
}

#[test]
fn scenario_10_a_pack_beside_a_t_shirt_grants_and_a_t_shirt_alone_is_ignored() {
    let database = Database::with_catalog();
    let stripe = FakeStripe::start();
    stripe.knows_line_items("cs_1", &[("price_tshirt", 2), ("price_pack", 1)]);
    stripe.knows_line_items("cs_2", &[("price_tshirt", 1)]);
    let shim = start(&database, &stripe);
    let mut books = database.connect();
    assert_eq!(shim.deliver(&bare("cs_1", "evt_1")).summary(), "200 applied");
    assert_eq!(shim.deliver(&bare("cs_2", "evt_2")).summary(), "200 ignored not_credits");
    assert_eq!(books.ledger(ANN), ["purchase 500"]);
}

#[test]
fn what_names_its_price_is_never_asked_about() {
    let database = Database::with_catalog();
    let stripe = FakeStripe::start();
    let shim = start(&database, &stripe);
    let named = session("cs_1").of(ANN).metadata("pack", "pack_500").metadata("quantity", "2");
    assert_eq!(shim.deliver(&named.completed("evt_1")).summary(), "200 applied");
    assert_eq!(database.connect().ledger(ANN), ["purchase 1000"]);
    assert_eq!(stripe.asked(), []);
}

#[test]
fn a_session_that_does_not_say_whether_it_is_paid_is_asked_for() {
    let database = Database::with_catalog();
    let stripe = FakeStripe::start();
    let shim = start(&database, &stripe);
    let mut books = database.connect();
    let old = session("cs_1").of(ANN).metadata("price_id", "price_pack").without("payment_status");
    stripe.knows_session(old.clone().with("payment_status", "paid").json().clone());
    assert_eq!(shim.deliver(&old.completed("evt_1")).summary(), "200 applied");
    assert_eq!(books.ledger(ANN), ["purchase 500"]);
    let paths: Vec<String> = stripe.asked().into_iter().map(|asked| asked.path).collect();
    assert_eq!(paths, ["/v1/checkout/sessions/cs_1"]);
}

#[test]
fn scenario_34_while_stripe_fails_it_is_503_nothing_is_half_written_a_retry_works() {
    for (fault, expected) in [
        (Fault::RateLimited, "503 stripe_rate_limited"),
        (Fault::Failing, "503 stripe_failed"),
        (Fault::Unauthorized, "503 stripe_unauthorized"),
        (Fault::Cut, "503 stripe_unreachable"),
        (Fault::CutInBody, "503 stripe_unreachable"),
        (Fault::Garbage, "503 stripe_malformed_answer"),
    ] {
        let database = Database::with_catalog();
        let stripe = FakeStripe::start();
        stripe.knows_line_items("cs_1", &[("price_pack", 3)]);
        stripe.fail(fault);
        let shim = start(&database, &stripe);
        let mut books = database.connect();
        let event = bare("cs_1", "evt_1");
        for _ in 0..2 {
            let answer = shim.deliver(&event);
            assert_eq!(answer.summary(), expected, "{fault:?}");
            assert_eq!(answer.headers["retry-after"], "10", "{fault:?}");
            assert_only_kept(&mut books, "evt_1");
        }
        let line = &shim.deliveries("evt_1", 2)[0];
        assert_eq!(
            (line["level"].as_str(), line["status"].as_u64()),
            (Some("ERROR"), Some(503)),
            "{fault:?}"
        );
        assert!(!answer_mentions_insides(&shim.deliver(&event).body), "{fault:?}");

        stripe.recover();
        assert_eq!(shim.deliver(&event).summary(), "200 applied", "{fault:?}");
        assert_eq!(books.ledger(ANN), ["purchase 1500"], "{fault:?}");
        assert_eq!(shim.deliver(&event).summary(), "200 already_applied", "{fault:?}");
        assert_eq!(books.balance(ANN), 1500, "{fault:?}");
    }
}

/// An answer must show neither keys nor internal addresses.
fn answer_mentions_insides(body: &str) -> bool {
    ["sk_", "127.0.0.1", "/v1/", "hyper"].iter().any(|inside| body.contains(inside))
}

#[test]
fn scenario_34_a_silent_stripe_is_given_up_after_ten_seconds_and_delays_no_others() {
    let database = Database::with_catalog();
    let stripe = FakeStripe::start();
    stripe.knows_line_items("cs_1", &[("price_pack", 3)]);
    stripe.fail(Fault::Silent);
    // One connection to the database: no request may hold it while Stripe is asked.
    let shim = Setup::serve(&database.url()).with_stripe(&stripe).with("DATABASE_POOL_SIZE", "1").start();
    let mut books = database.connect();
    let event = bare("cs_1", "evt_1");
    let since = Instant::now();
    let answer = thread::scope(|scope| {
        let waiting: Vec<_> = (0..4).map(|_| scope.spawn(|| shim.deliver(&event))).collect();
        stripe_credits_tests::shim::until("Stripe was asked four times", || stripe.asked().len() == 4);
        let named = session("cs_2").of(ANN).metadata("price_id", "price_pack");
        assert_eq!(shim.deliver(&named.completed("evt_2")).summary(), "200 applied");
        assert!(since.elapsed() < Duration::from_secs(9), "held up for {:?}", since.elapsed());
        assert!(waiting.iter().all(|waiting| !waiting.is_finished()));
        waiting.into_iter().map(|waiting| waiting.join().expect("an answer")).last().expect("four")
    });
    assert_eq!(answer.summary(), "503 stripe_timeout");
    assert_eq!(answer.headers["retry-after"], "10");
    assert!(since.elapsed() >= Duration::from_secs(10) && since.elapsed() < Duration::from_secs(20));
    assert_eq!(books.inbox("evt_1").as_deref(), Some("needs_fetch"));
    assert_eq!(books.ledger(ANN), ["purchase 500"]);

    stripe.recover();
    assert_eq!(shim.deliver(&event).summary(), "200 applied");
    assert_eq!(books.ledger(ANN), ["purchase 500", "purchase 1500"]);
}

#[test]
fn a_slow_stripe_is_waited_for_and_eight_deliveries_at_once_grant_once() {
    let database = Database::with_catalog();
    let stripe = FakeStripe::start();
    stripe.knows_line_items("cs_1", &[("price_pack", 3)]);
    stripe.fail(Fault::Slow(Duration::from_secs(1)));
    let shim = start(&database, &stripe);
    let event = bare("cs_1", "evt_1");
    let mut outcomes: Vec<String> = thread::scope(|scope| {
        let deliveries: Vec<_> = (0..8)
            .map(|_| scope.spawn(|| deliver(shim.address(), &event).expect("an answer").summary()))
            .collect();
        deliveries.into_iter().map(|delivery| delivery.join().expect("an answer")).collect()
    });
    outcomes.sort();
    assert_eq!(outcomes[..7], ["200 already_applied"; 7]);
    assert_eq!(outcomes[7], "200 applied");
    assert_eq!(database.connect().ledger(ANN), ["purchase 1500"]);
}

#[test]
fn a_session_that_stripe_does_not_have_is_parked_with_200() {
    let database = Database::with_catalog();
    let stripe = FakeStripe::start();
    let shim = start(&database, &stripe);
    let mut books = database.connect();
    let answer = shim.deliver(&bare("cs_1", "evt_1"));
    assert_eq!((answer.status, answer.json()["outcome"].as_str()), (200, Some("parked")), "{}", answer.body);
    assert_eq!(stripe.asked(), [line_items_asked("cs_1")]);
    assert_eq!(shim.metric("stripe_credits_stripe_api_calls_total", &[("result", "stripe_not_found")]), 1);
    assert_eq!(books.ledger(ANN), [""; 0]);

    // What was parked is asked about again when it comes again.
    stripe.knows_line_items("cs_1", &[("price_pack", 1)]);
    assert_eq!(shim.deliver(&bare("cs_1", "evt_1")).summary(), "200 applied");
    assert_eq!(books.ledger(ANN), ["purchase 500"]);
}

#[test]
fn without_a_stripe_key_it_is_parked_unfetched_with_200_until_there_is_one() {
    let database = Database::with_catalog();
    let stripe = FakeStripe::start();
    stripe.knows_line_items("cs_1", &[("price_pack", 3)]);
    let mut books = database.connect();
    let event = bare("cs_1", "evt_1");
    {
        let shim = Setup::serve(&database.url()).with("STRIPE_API_BASE", &stripe.base()).start();
        assert_eq!(shim.deliver(&event).summary(), "200 parked unfetched");
        until("the parked events were counted again", || {
            shim.metric("stripe_credits_parked_events", &[]) == 1
        });
    }
    assert_eq!(stripe.asked(), []);
    assert_eq!(books.inbox("evt_1").as_deref(), Some("parked unfetched"));
    assert_eq!(books.ledger(ANN), [""; 0]);

    let shim = start(&database, &stripe);
    assert_eq!(shim.deliver(&event).summary(), "200 applied");
    assert_eq!(books.ledger(ANN), ["purchase 1500"]);
}

#[test]
fn a_wrong_stripe_key_is_503_until_the_right_one_is_set() {
    let database = Database::with_catalog();
    let stripe = FakeStripe::start();
    stripe.knows_line_items("cs_1", &[("price_pack", 3)]);
    let mut books = database.connect();
    let event = bare("cs_1", "evt_1");
    {
        let shim = Setup::serve(&database.url())
            .with_stripe(&stripe)
            .with("STRIPE_SECRET_KEY", "sk_test_of_another_account")
            .start();
        let answer = shim.deliver(&event);
        assert_eq!(answer.summary(), "503 stripe_unauthorized");
        assert!(answer.headers.contains_key("retry-after"));
        assert!(!shim.text().contains("of_another_account"));
    }
    assert_only_kept(&mut books, "evt_1");
    let shim = start(&database, &stripe);
    assert_eq!(shim.deliver(&event).summary(), "200 applied");
    assert_eq!(books.ledger(ANN), ["purchase 1500"]);
}

#[test]
fn an_unknown_price_in_line_items_is_500_and_heals_without_asking_stripe_again() {
    let database = Database::with_catalog();
    let stripe = FakeStripe::start();
    stripe.knows_line_items("cs_1", &[("price_pack", 1), ("price_new", 2)]);
    let shim = start(&database, &stripe);
    let mut books = database.connect();
    assert_eq!(shim.deliver(&bare("cs_1", "evt_1")).summary(), "500 parked unknown_price");
    assert_eq!(shim.deliveries("evt_1", 1)[0]["price_id"], "price_new");
    let mut document = catalog();
    document["packs"].as_array_mut().expect("packs").push(json!({
        "key": "pack_new", "name": "A new pack", "credits": 40, "prices": ["price_new"],
    }));
    books.load_catalog(&document);
    assert_eq!(books.balance(ANN), 580);
    let mut ledger = books.ledger(ANN);
    ledger.sort();
    assert_eq!(ledger, ["purchase 500", "purchase 80"]);
    assert_eq!(stripe.asked().len(), 1);
}
