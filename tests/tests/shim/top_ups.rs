//! Auto top-up at a Stripe of our own: a request is paid once, whatever crashes at whatever step, and a payment that fails stops it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};
use stripe_credits_tests::app::{SERVICE_TOKEN, app, without_stripe};
use stripe_credits_tests::fake_stripe::payments::{AUTHENTICATION, DECLINED, SLOW};
use stripe_credits_tests::fake_stripe::{FakeStripe, Fault, RecordedRequest, Stop};
use stripe_credits_tests::seeds::Rng;
use stripe_credits_tests::shim::{Shim, deliver_until_taken, unix_now, until};
use stripe_credits_tests::top_ups::{customer, customer_of, top_up_database};
use stripe_credits_tests::{ANN, Connection, Database, user};
use uuid::Uuid;

use crate::database_away::Enough;

/// What the pack costs, in cents.
const CENTS: i64 = 1999;

/// A Stripe that sells the pack, and has Ann as a customer with this card.
fn stripe_with(card: Option<&str>) -> FakeStripe {
    let stripe = FakeStripe::start();
    stripe.sells_once("price_pack", CENTS);
    stripe.knows_customer(&customer(ANN), card, &[]);
    stripe
}

/// Ann has 40 credits and allows auto top-up, so that a pack is requested.
fn requested(card: Option<&str>) -> (Database, FakeStripe) {
    let (db, stripe) = (top_up_database("100 per day"), stripe_with(card));
    db.connect().allow_top_ups(ANN, 40);
    (db, stripe)
}

/// Delivers everything that happened at Stripe.
fn deliver_all(shim: &Shim, stripe: &FakeStripe) {
    for event in stripe.events() {
        deliver_until_taken(|| shim.address(), &event);
    }
}

/// A shim that is killed at this step; then Stripe answers again.
fn kill_at(stop: Stop, db: &Database, stripe: &FakeStripe) {
    stripe.stop(stop);
    let mut shim = app(db, stripe).start();
    until("the step is reached", || stripe.is_stopped());
    shim.kill();
    stripe.recover();
}

fn wait_for(c: &mut Connection, user: Uuid, states: &[&str]) {
    until(&format!("the top-ups are {states:?}"), || c.top_ups(user) == states);
}

fn statuses(stripe: &FakeStripe) -> Vec<String> {
    let intents = stripe.payment_intents();
    intents.iter().map(|intent| intent["status"].as_str().expect("a status").to_owned()).collect()
}

/// The lines of what was asked.
fn asked(stripe: &FakeStripe) -> Vec<String> {
    stripe.asked().iter().map(RecordedRequest::line).collect()
}

#[test]
fn a_request_is_paid_by_the_saved_card_off_session_and_its_event_grants() {
    let (db, stripe) = requested(Some("pm_visa"));
    let shim = app(&db, &stripe).start();
    let mut c = db.connect();
    wait_for(&mut c, ANN, &["paid"]);
    assert_eq!(c.balance(ANN), 40, "the credits come with the event");
    assert_eq!(
        asked(&stripe),
        [
            "GET /v1/prices/price_pack".to_owned(),
            format!("GET /v1/customers/{}", customer(ANN)),
            "POST /v1/payment_intents".to_owned(),
            "POST /v1/payment_intents/pi_made_1/confirm".to_owned(),
        ]
    );
    let posts = stripe.asked();
    let (made, confirmed) = (&posts[2], &posts[3]);
    let form = made.form();
    let field = |name: &str| form.get(name).map(String::as_str);
    assert_eq!((field("amount"), field("currency")), (Some("1999"), Some("usd")), "the amount is Stripe's");
    assert_eq!((field("customer"), field("payment_method")), (Some(customer(ANN).as_str()), Some("pm_visa")));
    assert_eq!((field("metadata[price_id]"), field("metadata[quantity]")), (Some("price_pack"), Some("1")));
    assert_eq!(field("metadata[user_id]"), Some(ANN.to_string().as_str()));
    assert_eq!(field("metadata[top_up_id]"), Some(format!("{ANN}_2").as_str()));
    assert_eq!(field("confirm"), None, "nothing is charged before the request names it");
    assert_eq!(confirmed.form().get("off_session").map(String::as_str), Some("true"));
    assert!(made.idempotency_key.is_some() && confirmed.idempotency_key != made.idempotency_key);

    deliver_all(&shim, &stripe);
    deliver_all(&shim, &stripe);
    assert_eq!((c.balance(ANN), c.top_ups(ANN)), (540, vec!["succeeded".to_owned()]));
    assert_eq!(c.ledger(ANN), ["grant 40", "purchase 500"]);
    assert_eq!(c.told(ANN), ["credits.granted", "top_up.requested", "credits.granted", "top_up.succeeded"]);
    let row: Value = c.one("select to_jsonb(t) from billing.top_ups t", &[]);
    assert_eq!(
        (&row["amount"], &row["currency"], &row["customer_id"]),
        (&json!(CENTS), &json!("usd"), &json!(customer(ANN)))
    );
    let line = &shim.logged(1, |line| line["message"] == "top_up")[0];
    assert_eq!((&line["result"], &line["payment_intent_id"]), (&json!("paid"), &json!("pi_made_1")));
    assert_eq!(shim.metric("stripe_credits_top_ups_total", &[("result", "paid")]), 1);
    assert!(c.faults().is_empty());
}

#[test]
fn a_shim_that_is_killed_at_any_step_charges_once() {
    let steps = [
        (Stop::Before("GET /v1/prices/price_pack"), 0),
        (Stop::Before("POST /v1/payment_intents"), 0),
        // Stripe made it, and the shim did not learn that.
        (Stop::After("POST /v1/payment_intents"), 1),
        (Stop::Before("/confirm"), 1),
        // Stripe took the money, and the shim did not learn that.
        (Stop::After("/confirm"), 1),
    ];
    for (stop, made) in steps {
        for is_event_first in [false, true] {
            let (db, stripe) = requested(Some("pm_visa"));
            let mut c = db.connect();
            kill_at(stop, &db, &stripe);
            assert_eq!(stripe.payment_intents().len(), made, "{stop:?}");
            let second = app(&db, &stripe).start();
            if is_event_first {
                // Its lease is not over: whatever happened at Stripe is delivered before anybody goes on.
                deliver_all(&second, &stripe);
            }
            c.make_top_ups_due();
            until("it is paid", || ["paid", "succeeded"].contains(&c.top_ups(ANN)[0].as_str()));
            deliver_all(&second, &stripe);
            assert_eq!(c.top_ups(ANN), ["succeeded"], "{stop:?}");
            assert_eq!(statuses(&stripe), ["succeeded"], "{stop:?}: Stripe knows the first by its key");
            assert_eq!(c.ledger(ANN), ["grant 40", "purchase 500"], "{stop:?}");
            assert!(c.faults().is_empty());
        }
    }
}

#[test]
fn a_key_that_stripe_forgot_makes_another_payment_intent_and_no_other_payment() {
    let (db, stripe) = requested(Some("pm_visa"));
    let mut c = db.connect();
    kill_at(Stop::After("POST /v1/payment_intents"), &db, &stripe);
    // The customer's card is another by now, so what is asked for is another thing.
    stripe.knows_customer(&customer(ANN), Some("pm_mastercard"), &[]);
    c.make_top_ups_due();
    let second = app(&db, &stripe).start();
    wait_for(&mut c, ANN, &["paid"]);
    deliver_all(&second, &stripe);
    let mut statuses = statuses(&stripe);
    statuses.sort();
    assert_eq!(statuses, ["requires_confirmation", "succeeded"]);
    assert_eq!(c.ledger(ANN), ["grant 40", "purchase 500"]);
}

#[test]
fn a_card_that_does_not_pay_stops_it_and_nothing_can_pay_later() {
    for (card, reason) in [(DECLINED, "card_declined"), (AUTHENTICATION, "authentication_required")] {
        // Whether or not the shim lives to see the answer.
        for stop in [None, Some(Stop::After("/confirm")), Some(Stop::After("/cancel"))] {
            let (db, stripe) = requested(Some(card));
            let mut c = db.connect();
            if let Some(stop) = stop {
                kill_at(stop, &db, &stripe);
                c.make_top_ups_due();
            }
            let mut shim = app(&db, &stripe).start();
            wait_for(&mut c, ANN, &[&format!("failed {reason}")]);
            assert_eq!(statuses(&stripe), ["canceled"], "{stop:?}");
            assert_eq!((c.auto_top_up(ANN).as_str(), c.balance(ANN)), ("paused", 40));
            assert_eq!(c.told_data(ANN, "top_up.failed")[0]["reason"], reason);
            c.spend(ANN, 10, "job");
            assert_eq!(c.top_ups(ANN).len(), 1);

            stripe.knows_customer(&customer(ANN), Some("pm_visa"), &[]);
            c.set_auto_top_up(ANN, true);
            wait_for(&mut c, ANN, &[&format!("failed {reason}"), "paid"]);
            deliver_all(&shim, &stripe);
            assert_eq!(c.balance(ANN), 530);
            assert!(c.faults().is_empty());
            shim.kill();
        }
    }
}

#[test]
fn a_customer_without_a_card_stops_it_and_the_newest_card_is_charged() {
    let (db, stripe) = requested(None);
    let mut c = db.connect();
    let shim = app(&db, &stripe).start();
    wait_for(&mut c, ANN, &["failed no_payment_method"]);
    stripe.knows_at(
        &format!("/v1/customers/{}", customer(ANN)),
        json!({"id": customer(ANN), "object": "customer", "deleted": true}),
    );
    c.set_auto_top_up(ANN, true);
    wait_for(&mut c, ANN, &["failed no_payment_method", "failed no_customer"]);
    assert!(stripe.payment_intents().is_empty());
    stripe.knows_customer(&customer(ANN), None, &["pm_newer", "pm_older"]);
    c.set_auto_top_up(ANN, true);
    wait_for(&mut c, ANN, &["failed no_payment_method", "failed no_customer", "paid"]);
    assert_eq!(stripe.payment_intents()[0]["payment_method"], "pm_newer");
    deliver_all(&shim, &stripe);
    assert_eq!(c.balance(ANN), 540);
}

#[test]
fn what_is_no_fault_of_the_users_is_tried_again_and_pauses_nothing() {
    let (db, stripe) = requested(Some("pm_visa"));
    let mut c = db.connect();
    let shim = app(&db, &stripe).start();
    let waits_for = |error: &str, c: &mut Connection| {
        until(&format!("it waits: {error}"), || {
            c.make_top_ups_due();
            c.column::<Option<String>>("select last_error from billing.top_ups", &[])
                == [Some(error.to_owned())]
        });
        assert_eq!((c.top_ups(ANN), c.auto_top_up(ANN)), (vec!["requested".to_owned()], "on".to_owned()));
    };
    let price = stripe.object("/v1/prices/price_pack").expect("a price");
    for (field, value, error) in [
        ("active", json!(false), "price_not_active"),
        ("tax_behavior", json!("exclusive"), "price_excludes_tax"),
        ("billing_scheme", json!("tiered"), "price_is_not_one_amount"),
    ] {
        let mut odd = price.clone();
        odd[field] = value;
        stripe.knows_at("/v1/prices/price_pack", odd);
        waits_for(error, &mut c);
    }
    for (fault, error) in [
        (Fault::Missing, "stripe_not_found"),
        (Fault::Unauthorized, "stripe_unauthorized"),
        (Fault::RateLimited, "stripe_rate_limited"),
        (Fault::Refused, "stripe_refused parameter_invalid_empty"),
        (Fault::Cut, "stripe_unreachable"),
        (Fault::Garbage, "stripe_malformed_answer"),
    ] {
        stripe.fail(fault);
        waits_for(error, &mut c);
    }
    stripe.recover();
    stripe.knows_at("/v1/prices/price_pack", price);
    assert_eq!(shim.metric("stripe_credits_top_ups_waiting", &[]), 1);
    until("it is paid", || {
        c.make_top_ups_due();
        c.top_ups(ANN) == ["paid"]
    });
    deliver_all(&shim, &stripe);
    assert_eq!((statuses(&stripe), c.balance(ANN)), (vec!["succeeded".to_owned()], 540));
}

#[test]
fn a_slow_payment_is_waited_for_and_is_no_reason_for_another() {
    let (db, stripe) = requested(Some(SLOW));
    let mut c = db.connect();
    let shim = app(&db, &stripe).start();
    until("it is processing", || statuses(&stripe) == ["processing"]);
    until("that is recorded", || {
        c.one::<i64>("select count(*) from billing.top_ups where last_error = 'processing'", &[]) == 1
    });
    c.spend(ANN, 10, "job");
    c.run("update billing.top_ups set requested_at = requested_at - interval '2 days'");
    c.set_auto_top_up(ANN, false);
    c.run("update billing.top_ups set last_error = null, next_attempt_at = '-infinity'");
    until("late and not wanted any more, it is still waited for", || {
        c.one::<i64>("select count(*) from billing.top_ups where last_error = 'processing'", &[]) == 1
    });
    assert!(!asked(&stripe).iter().any(|line| line.ends_with("/cancel")), "Stripe may still take the money");
    stripe.settle_payment("pi_made_1", i64::try_from(unix_now()).expect("a time"));
    until("it is paid", || {
        c.make_top_ups_due();
        c.top_ups(ANN) == ["paid"]
    });
    deliver_all(&shim, &stripe);
    assert_eq!((c.top_ups(ANN), c.balance(ANN)), (vec!["succeeded".to_owned()], 530));
}

#[test]
fn what_is_not_wanted_any_more_is_canceled_at_stripe_unless_it_was_paid() {
    let (db, stripe) = requested(Some("pm_visa"));
    let mut c = db.connect();
    kill_at(Stop::Before("/confirm"), &db, &stripe);
    c.set_auto_top_up(ANN, false);
    c.make_top_ups_due();
    let second = app(&db, &stripe).start();
    wait_for(&mut c, ANN, &["canceled turned_off"]);
    assert_eq!(statuses(&stripe), ["canceled"]);
    drop(second);

    let (db, stripe) = requested(Some("pm_visa"));
    let mut c = db.connect();
    kill_at(Stop::After("/confirm"), &db, &stripe);
    c.set_auto_top_up(ANN, false);
    c.make_top_ups_due();
    let second = app(&db, &stripe).start();
    wait_for(&mut c, ANN, &["paid"]);
    deliver_all(&second, &stripe);
    assert_eq!(c.balance(ANN), 540, "what was paid is granted");
}

#[test]
fn the_apps_server_allows_it_and_without_a_stripe_key_requests_wait() {
    let (db, stripe) = (top_up_database("3 per month"), stripe_with(Some("pm_visa")));
    let mut c = db.connect();
    let shim = without_stripe(&db).with("SERVICE_TOKEN", SERVICE_TOKEN).start();
    let set = |enabled: bool| {
        let answer = shim.serve("auto-top-up", &json!({"user": ANN, "enabled": enabled}));
        let body: Value = serde_json::from_str(&answer.body).expect("JSON");
        (answer.status, body["outcome"].clone(), body["reason"].clone())
    };
    assert_eq!(set(true), (200, json!("rejected"), json!("no_customer")));
    c.apply(&customer_of(&customer(ANN), ANN));
    assert_eq!(set(true), (200, json!("applied"), Value::Null));
    assert_eq!(set(true), (200, json!("already_applied"), Value::Null));
    assert_eq!(shim.serve("auto-top-up", &json!({"user": ANN})).status, 400);
    assert_eq!(
        shim.serve("auto-top-up", &json!({"user": ANN, "enabled": true, "pack": "other"})).status,
        400
    );
    assert_eq!(shim.metric("stripe_credits_top_ups_waiting", &[]), 1);
    assert_eq!(c.top_ups(ANN), ["requested"]);
    let other = app(&db, &stripe).start();
    wait_for(&mut c, ANN, &["paid"]);
    deliver_all(&other, &stripe);
    assert_eq!(c.top_ups(ANN), ["succeeded"]);
    assert_eq!(set(false), (200, json!("applied"), Value::Null));
}

// A thousand of them.

/// Users whose balances run low together, again and again.
const USERS: u128 = 50;
const ROUNDS: usize = 20;

/// Kills one of two shims after the other, at random moments, and starts it again.
fn kill_at_random(
    shims: &mut [Shim],
    start: impl Fn() -> Shim,
    rng: &mut Rng,
    is_over: &AtomicBool,
) -> usize {
    let mut kills = 0;
    while !is_over.load(Ordering::Relaxed) {
        thread::sleep(Duration::from_millis(rng.number() % 400));
        let place = rng.below(2);
        shims[place].kill();
        shims[place] = start();
        kills += 1;
    }
    kills
}

#[test]
fn a_thousand_crossings_with_two_shims_that_are_killed_are_a_thousand_payments() {
    let (db, stripe) = (top_up_database("100 per day"), stripe_with(Some("pm_visa")));
    let mut c = db.connect();
    for n in 1..=USERS {
        stripe.knows_customer(&customer(user(n)), Some("pm_visa"), &[]);
        c.allow_top_ups(user(n), 500);
    }
    let start = || app(&db, &stripe).start();
    let mut shims = vec![start(), start()];
    // It takes webhooks and is not killed; what asks Stripe is done by the others.
    let stable = without_stripe(&db).start();
    let is_over = AtomicBool::new(false);
    let kills = thread::scope(|scope| {
        let (start, is_over) = (&start, &is_over);
        let killer = scope.spawn(move || {
            let kills = kill_at_random(&mut shims, start, &mut Rng::new(7), is_over);
            drop(shims);
            kills
        });
        // Ends the kills also when something below panics.
        let enough = Enough(is_over);
        let mut delivered = 0;
        for round in 1..=ROUNDS {
            for n in 1..=USERS {
                assert_eq!(c.spend(user(n), 401, &format!("down {round}")).summary(), "applied");
            }
            let expected = i64::try_from(round).expect("small") * i64::try_from(USERS).expect("small");
            until("the round is granted", || {
                // What a killed shim had is another's at once, and what a living one has is two's.
                c.make_top_ups_due();
                for event in stripe.events().into_iter().skip(delivered) {
                    deliver_until_taken(|| stable.address(), &event);
                    delivered += 1;
                }
                c.one::<i64>("select count(*) from billing.top_ups where state = 'succeeded'", &[])
                    == expected
            });
            for n in 1..=USERS {
                // Back to 500, so that the next round crosses again.
                let more = 500 - c.balance(user(n));
                assert_eq!(more, -99, "user {n}, round {round}");
                assert_eq!(c.spend(user(n), 99, &format!("level {round}")).summary(), "applied");
            }
        }
        drop(enough);
        killer.join().expect("the killer")
    });
    let crossings = u64::try_from(USERS).expect("small") * u64::try_from(ROUNDS).expect("small");
    let succeeded = statuses(&stripe).iter().filter(|status| *status == "succeeded").count();
    assert_eq!((succeeded as u64, crossings), (1000, 1000), "after {kills} kills");
    let others = statuses(&stripe).len() - succeeded;
    assert!(
        statuses(&stripe)
            .iter()
            .all(|status| ["succeeded", "requires_confirmation"].contains(&status.as_str()))
    );
    assert_eq!(
        c.one::<i64>("select count(*) from billing.credit_transactions where transaction_type = 'purchase' and amount = 500", &[]),
        1000
    );
    assert_eq!(c.one::<i64>("select count(*) from billing.top_ups", &[]), 1000);
    assert!(kills > 10, "{kills} kills, {others} payment intents that nobody confirmed");
    assert!(c.faults().is_empty());
}
