//! Redis keeps what was read, for speed and for people who look. Nothing depends on it, whatever becomes of it.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use stripe_credits_tests::app::app;
use stripe_credits_tests::fake_redis::{Behaviour, FakeRedis};
use stripe_credits_tests::fake_stripe::FakeStripe;
use stripe_credits_tests::shim::{Setup, Shim, unix_now, until};
use stripe_credits_tests::{ANN, BOB, Connection, Database, paid_pack};

/// Long enough that nothing runs out in a test.
const MAX_AGE: &str = "600";

fn with_redis(database: &Database, stripe: &FakeStripe, redis: &FakeRedis) -> Setup {
    app(database, stripe).with("REDIS_URL", &redis.url())
}

fn balance(shim: &Shim) -> Value {
    let answer = shim.get_as(ANN, "/credits");
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.json()["credits_balance"].clone()
}

fn spend(books: &mut Connection, amount: i64, request: &str) {
    let outcome = books.call("spend_credits($1, $2, $3)", &[&ANN, &amount, &request]);
    assert_eq!(outcome.outcome, "applied");
}

#[test]
fn a_commit_caches_balances_and_a_marker_with_expiry_and_no_answer_comes_from_them() {
    let (database, stripe, redis) = (Database::with_catalog(), FakeStripe::start(), FakeRedis::start());
    let shim = with_redis(&database, &stripe, &redis).start();
    let mut books = database.connect();
    assert_eq!(shim.deliver(&paid_pack("cs_1", ANN).completed("evt_1")).summary(), "200 applied");
    let (kept, seconds) = redis.kept(&format!("credits:{ANN}")).expect("kept before the answer");
    let kept: Value = serde_json::from_str(&kept).expect("JSON");
    assert_eq!((&kept["credits"]["credits_balance"], seconds), (&json!(500), Some(60)));
    assert_eq!(redis.kept("processed:evt_1"), Some(("applied".to_owned(), Some(86_400))));

    stripe.knows_session(paid_pack("cs_2", ANN).json().clone());
    let back = shim.post_as(ANN, "/reconcile-stripe-credit-pack", &json!({"session_id": "cs_2"}));
    assert_eq!(back.summary(), "200 applied");
    assert!(redis.kept("processed:reconcile_credit_pack:cs_2").is_some());
    let kept: Value =
        serde_json::from_str(&redis.kept(&format!("credits:{ANN}")).expect("kept").0).expect("JSON");
    assert_eq!(kept["credits"]["credits_balance"], 1000);

    spend(&mut books, 300, "job-1");
    assert_eq!(balance(&shim), 700);
    assert_eq!(redis.count("GETRANGE"), 0);
    assert!(shim.metric("stripe_credits_redis_calls_total", &[("result", "ok")]) >= 2);
}

#[test]
fn a_cached_balance_is_served_up_to_its_maximum_age_and_a_commit_shows_at_once() {
    let (database, stripe, redis) = (Database::with_catalog(), FakeStripe::start(), FakeRedis::start());
    let shim = with_redis(&database, &stripe, &redis).with("CREDITS_MAX_AGE", MAX_AGE).start();
    let mut books = database.connect();
    assert_eq!(balance(&shim), 0);
    assert_eq!(redis.kept(&format!("credits:{ANN}")).expect("kept").1, Some(600));
    assert_eq!(shim.deliver(&paid_pack("cs_1", ANN).completed("evt_1")).summary(), "200 applied");
    assert_eq!(balance(&shim), 500);
    let whole = shim.get_as(ANN, "/credits").json();
    spend(&mut books, 300, "job-1");
    assert_eq!(shim.get_as(ANN, "/credits").json(), whole, "a change by SQL shows when its time is over");
    assert_eq!(shim.deliver(&paid_pack("cs_2", ANN).completed("evt_2")).summary(), "200 applied");
    assert_eq!(balance(&shim), 700);

    // Emptied, it is filled again.
    spend(&mut books, 100, "job-2");
    redis.flush();
    assert_eq!(balance(&shim), 600);
    assert!(redis.kept(&format!("credits:{ANN}")).is_some());
}

#[test]
fn what_redis_says_that_cannot_be_is_not_believed() {
    let (database, stripe, redis) = (Database::with_catalog(), FakeStripe::start(), FakeRedis::start());
    let shim = with_redis(&database, &stripe, &redis).with("CREDITS_MAX_AGE", MAX_AGE).start();
    database.connect().grant(ANN, 7, "gift");
    let lie = |at: u64, credits: Value| json!({"at": at, "credits": credits}).to_string();
    for lie in [
        String::new(),
        "OK".to_owned(),
        "{}".to_owned(),
        lie(unix_now(), json!({"user_id": BOB, "credits_balance": 1_000_000})),
        lie(unix_now() - 601, json!({"user_id": ANN, "credits_balance": 1_000_000})),
        lie(unix_now() + 60, json!({"user_id": ANN, "credits_balance": 1_000_000})),
        lie(unix_now(), json!({"user_id": ANN, "credits_balance": "a million"})),
        lie(unix_now(), json!([1_000_000])),
        // Believable in every way, but not signed.
        lie(unix_now(), json!({"user_id": ANN, "credits_balance": 1_000_000})),
        "x".repeat(1 << 20),
    ] {
        redis.behave(Behaviour::Lying(lie.clone()));
        assert_eq!(balance(&shim), 7, "{}", &lie[..lie.len().min(100)]);
    }
}

#[test]
fn a_marker_is_never_asked_for_and_stops_no_payment() {
    let (database, stripe, redis) = (Database::with_catalog(), FakeStripe::start(), FakeRedis::start());
    let shim = with_redis(&database, &stripe, &redis).start();
    redis.keep("processed:evt_1", "applied");
    redis.keep("processed:reconcile_credit_pack:cs_2", "applied");
    stripe.knows_session(paid_pack("cs_2", ANN).json().clone());
    assert_eq!(shim.deliver(&paid_pack("cs_1", ANN).completed("evt_1")).summary(), "200 applied");
    let back = shim.post_as(ANN, "/reconcile-stripe-credit-pack", &json!({"session_id": "cs_2"}));
    assert_eq!(back.summary(), "200 applied");
    assert_eq!(database.connect().ledger(ANN), ["purchase 500", "purchase 500"]);
    assert_eq!((redis.count("GETRANGE"), redis.count("EXISTS")), (0, 0));
}

#[test]
fn a_redis_that_is_gone_or_fails_or_is_slow_costs_some_speed_once_and_nothing_else() {
    for behaviour in [Behaviour::Gone, Behaviour::Failing, Behaviour::Slow(Duration::from_secs(3))] {
        let (database, stripe, redis) = (Database::with_catalog(), FakeStripe::start(), FakeRedis::start());
        redis.behave(behaviour.clone());
        let shim = with_redis(&database, &stripe, &redis).with("CREDITS_MAX_AGE", MAX_AGE).start();
        let since = Instant::now();
        for n in 1..=10 {
            let event = paid_pack(&format!("cs_{n}"), ANN).completed(&format!("evt_{n}"));
            assert_eq!(shim.deliver(&event).summary(), "200 applied", "{behaviour:?}");
            assert_eq!(balance(&shim), 500 * n, "{behaviour:?}");
        }
        // Twenty requests that each waited would take ten seconds.
        assert!(since.elapsed() < Duration::from_secs(5), "{behaviour:?}: {:?}", since.elapsed());
        assert_eq!(shim.ops("/readyz").status, 200, "{behaviour:?}");
        assert!(
            shim.metric("stripe_credits_redis_calls_total", &[("result", "failed")]) >= 1,
            "{behaviour:?}"
        );
        assert_eq!(database.connect().ledger(ANN).len(), 10);

        redis.behave(Behaviour::Good);
        until("Redis is asked again", || {
            balance(&shim);
            redis.kept(&format!("credits:{ANN}")).is_some()
        });
    }
}

/// What the shim and both sides' socket buffers can take of a reply that does not end.
const MAX_TAKEN_BYTES: usize = 16 << 20;

#[test]
fn a_redis_that_answers_without_an_end_fills_no_memory() {
    let (database, stripe, redis) = (Database::with_catalog(), FakeStripe::start(), FakeRedis::start());
    let shim = with_redis(&database, &stripe, &redis).with("CREDITS_MAX_AGE", MAX_AGE).start();
    assert_eq!(balance(&shim), 0);
    redis.behave(Behaviour::Flooding);
    assert_eq!(balance(&shim), 0, "from the books");
    until("the connection is closed", || redis.flooded().is_some());
    let taken = redis.flooded().expect("it ended");
    assert!(taken < MAX_TAKEN_BYTES, "{taken} bytes were taken");
    assert!(shim.metric("stripe_credits_redis_calls_total", &[("result", "failed")]) >= 1);
}

#[test]
fn a_redis_that_breaks_later_takes_nothing_along() {
    let (database, stripe, redis) = (Database::with_catalog(), FakeStripe::start(), FakeRedis::start());
    let shim = with_redis(&database, &stripe, &redis).with("CREDITS_MAX_AGE", MAX_AGE).start();
    assert_eq!(shim.deliver(&paid_pack("cs_1", ANN).completed("evt_1")).summary(), "200 applied");
    assert_eq!(balance(&shim), 500);
    redis.behave(Behaviour::Gone);
    assert_eq!(shim.deliver(&paid_pack("cs_2", ANN).completed("evt_2")).summary(), "200 applied");
    assert_eq!(balance(&shim), 1000);
}

#[test]
fn a_redis_that_is_to_be_encrypted_and_is_not_is_one_that_failed() {
    let (database, stripe, redis) = (Database::with_catalog(), FakeStripe::start(), FakeRedis::start());
    let url = redis.url().replace("redis:", "rediss:");
    let shim = app(&database, &stripe).with("REDIS_URL", &url).with("CREDITS_MAX_AGE", MAX_AGE).start();
    assert_eq!(balance(&shim), 0);
    assert_eq!(shim.metric("stripe_credits_redis_calls_total", &[("result", "failed")]), 1);
    assert!(!shim.text().contains("panic"));
}

#[test]
fn no_password_of_redis_is_in_the_log() {
    let (database, stripe) = (Database::with_catalog(), FakeStripe::start());
    let shim = app(&database, &stripe).with("REDIS_URL", "redis://user:hush-hush@127.0.0.1:1/0").start();
    assert_eq!(shim.deliver(&paid_pack("cs_1", ANN).completed("evt_1")).summary(), "200 applied");
    shim.logged(1, |line| {
        line["level"] == "WARN" && line["message"].as_str().is_some_and(|text| text.starts_with("Redis"))
    });
    assert!(!shim.text().contains("hush-hush"));
    let refused = app(&database, &stripe).with("REDIS_URL", "http://:hush-hush@127.0.0.1").run();
    assert_eq!(refused.code, Some(64));
    assert!(refused.stderr.contains("REDIS_URL: ") && !refused.stderr.contains("hush-hush"), "{refused:?}");
}
