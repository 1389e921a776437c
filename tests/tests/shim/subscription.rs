//! Changes to a subscription: billed at once and made only if paid, previewed by the same form, and never twice.

use std::sync::Barrier;
use std::thread;

use serde_json::{Value, json};
use stripe_credits_tests::app::{STRIPE_FAULTS, app, subscribe};
use stripe_credits_tests::fake_stripe::{FakeStripe, Fault, RecordedRequest};
use stripe_credits_tests::shim::Shim;
use stripe_credits_tests::stripe::CREATED;
use stripe_credits_tests::wire::Answer;
use stripe_credits_tests::{ANN, BOB, Database, catalog};

const PATH: &str = "/v1/subscriptions/sub_1";

/// Ann's subscription, in the books and at Stripe.
fn subscribed(stripe: &FakeStripe) -> Database {
    let database = Database::with_catalog();
    subscribe(&mut database.connect(), ANN, "sub_1");
    stripe.knows_subscription(at_stripe(&json!([item("si_1", "price_pro", 1)])));
    database
}

fn at_stripe(items: &Value) -> Value {
    json!({
        "id": "sub_1", "object": "subscription", "status": "active", "customer": "cus_ann", "livemode": false,
        "cancel_at_period_end": false, "cancel_at": null, "latest_invoice": "in_1", "pending_update": null,
        "metadata": {"user_id": ANN}, "items": {"object": "list", "has_more": false, "data": items},
    })
}

fn item(id: &str, price: &str, quantity: u32) -> Value {
    json!({
        "id": id, "object": "subscription_item", "quantity": quantity, "price": {"id": price, "object": "price"},
        "current_period_start": CREATED, "current_period_end": CREATED + 2_592_000,
    })
}

fn change(shim: &Shim, body: &Value) -> Answer {
    shim.post_as(ANN, "/subscription/change", body)
}

/// What was posted, without what was read.
fn posted(stripe: &FakeStripe) -> Vec<RecordedRequest> {
    stripe.asked().into_iter().filter(|asked| asked.method == "POST").collect()
}

fn price_at_stripe(stripe: &FakeStripe) -> Value {
    stripe.object(PATH).expect("the subscription")["items"]["data"][0]["price"]["id"].clone()
}

#[test]
fn an_upgrade_is_billed_at_once_from_a_new_anchor_and_granted_by_the_webhook() {
    let stripe = FakeStripe::start();
    let database = subscribed(&stripe);
    let shim = app(&database, &stripe).start();
    let mut books = database.connect();
    let before = books.everything();
    let answer = change(&shim, &json!({"price_id": "price_max"}));
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(
        answer.json(),
        json!({"ok": true, "status": "changed", "subscription_id": "sub_1", "price_id": "price_max", "quantity": 1,
            "hosted_invoice_url": null})
    );
    let asked = &posted(&stripe)[0];
    assert_eq!(asked.line(), format!("POST {PATH}"));
    assert_eq!(asked.version.as_deref(), Some("2025-03-31.basil"));
    let form = asked.form();
    let fields: Vec<(&str, &str)> = form.iter().map(|(name, value)| (&**name, &**value)).collect();
    assert_eq!(
        fields,
        [
            ("billing_cycle_anchor", "now"),
            ("expand[]", "latest_invoice"),
            ("items[0][id]", "si_1"),
            ("items[0][price]", "price_max"),
            ("items[0][quantity]", "1"),
            ("payment_behavior", "pending_if_incomplete"),
            ("proration_behavior", "always_invoice"),
        ]
    );
    assert_eq!(price_at_stripe(&stripe), "price_max");
    assert_eq!(books.everything(), before);
}

#[test]
fn under_keep_the_period_goes_on() {
    let stripe = FakeStripe::start();
    let database = subscribed(&stripe);
    let mut document = catalog();
    document["plans"][1]["plan_change"] = json!("keep");
    database.connect().load_catalog(&document);
    let shim = app(&database, &stripe).start();
    assert_eq!(change(&shim, &json!({"price_id": "price_max"})).status, 200);
    let form = posted(&stripe)[0].form();
    assert!(!form.contains_key("billing_cycle_anchor"), "{form:?}");
    assert_eq!(form["proration_behavior"], "always_invoice");
}

#[test]
fn a_change_that_the_card_does_not_pay_is_not_made_and_says_where_to_pay() {
    let stripe = FakeStripe::start();
    let database = subscribed(&stripe);
    let shim = app(&database, &stripe).start();
    stripe.decline_cards();
    let answer = change(&shim, &json!({"price_id": "price_max"}));
    assert_eq!(answer.status, 200);
    let json = answer.json();
    assert_eq!((&json["ok"], &json["status"]), (&json!(false), &json!("payment_required")));
    assert!(
        json["hosted_invoice_url"]
            .as_str()
            .is_some_and(|url| url.starts_with("https://invoice.stripe.test/"))
    );
    assert_eq!(price_at_stripe(&stripe), "price_pro");
}

#[test]
fn a_change_to_the_current_plan_bills_nothing_and_another_quantity_is_a_change() {
    let stripe = FakeStripe::start();
    let database = subscribed(&stripe);
    let shim = app(&database, &stripe).start();
    let answer = change(&shim, &json!({"price_id": "price_pro"}));
    assert_eq!((answer.status, &answer.json()["status"]), (200, &json!("unchanged")));
    assert_eq!(posted(&stripe), []);
    assert_eq!(change(&shim, &json!({"price_id": "price_pro", "quantity": 2})).json()["status"], "changed");
    assert_eq!(posted(&stripe)[0].form()["items[0][quantity]"], "2");
}

#[test]
fn two_clicks_are_one_change_and_a_change_back_and_forth_is_three() {
    let stripe = FakeStripe::start();
    let database = subscribed(&stripe);
    let shim = app(&database, &stripe).start();
    stripe.set_date("Thu, 02 Aug 2018 10:10:20 GMT");
    let barrier = Barrier::new(4);
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                barrier.wait();
                assert_eq!(change(&shim, &json!({"price_id": "price_max"})).status, 200);
            });
        }
    });
    let keys = || {
        let mut keys: Vec<_> =
            posted(&stripe).into_iter().filter_map(|asked| asked.idempotency_key).collect();
        assert_eq!(keys.len(), posted(&stripe).len());
        keys.sort();
        keys.dedup();
        keys.len()
    };
    assert_eq!(keys(), 1);
    assert_eq!(change(&shim, &json!({"price_id": "price_pro"})).json()["status"], "changed");
    assert_eq!(change(&shim, &json!({"price_id": "price_max"})).json()["status"], "changed");
    assert_eq!(keys(), 3);
    assert_eq!(price_at_stripe(&stripe), "price_max");
}

#[test]
fn scenario_34_a_change_whose_answer_is_lost_is_made_once_when_it_is_sent_again() {
    let stripe = FakeStripe::start();
    let database = subscribed(&stripe);
    let shim = app(&database, &stripe).start();
    let max = json!({"price_id": "price_max"});
    stripe.set_date("Thu, 02 Aug 2018 10:10:20 GMT");
    // Stripe repeats a failure under its key: that is the next test.
    for (fault, expected) in STRIPE_FAULTS.into_iter().filter(|(fault, _)| *fault != Fault::Failing) {
        // Of the two requests the second one fails.
        stripe.fail_after(1, fault);
        assert_eq!(change(&shim, &max).summary(), expected, "{fault:?}");
        stripe.recover();
        stripe.fail(fault);
        assert!(matches!(change(&shim, &max).status, 502 | 503), "{fault:?}");
        stripe.recover();
        assert_eq!(price_at_stripe(&stripe), "price_pro", "{fault:?}");
    }
    assert_eq!(change(&shim, &max).json()["status"], "changed");
    let mut keys: Vec<_> = posted(&stripe).into_iter().filter_map(|asked| asked.idempotency_key).collect();
    assert_eq!(keys.len(), 8);
    keys.dedup();
    assert_eq!(keys.len(), 1, "all were one change");
}

#[test]
fn a_failed_change_can_be_retried_though_stripe_repeats_the_failure_of_a_key() {
    for (fault, expected) in [(Fault::Declined, "402 stripe_declined"), (Fault::Failing, "502 stripe_failed")]
    {
        let stripe = FakeStripe::start();
        let database = subscribed(&stripe);
        let shim = app(&database, &stripe).start();
        let max = json!({"price_id": "price_max"});
        stripe.set_date("Thu, 02 Aug 2018 10:10:20 GMT");
        stripe.fail_after(1, fault);
        assert_eq!(change(&shim, &max).summary(), expected);
        stripe.recover();
        assert_eq!(change(&shim, &max).summary(), expected, "the same click");
        // Another card, a minute later.
        stripe.set_date("Thu, 02 Aug 2018 10:11:20 GMT");
        assert_eq!(change(&shim, &max).json()["status"], "changed", "{fault:?}");
        assert_eq!(price_at_stripe(&stripe), "price_max");
    }
}

#[test]
fn a_preview_asks_for_what_a_change_would_do_and_changes_nothing() {
    let stripe = FakeStripe::start();
    let database = subscribed(&stripe);
    let shim = app(&database, &stripe).start();
    let before = stripe.object(PATH);
    let answer = shim.post_as(ANN, "/subscription/preview-change", &json!({"price_id": "price_max"}));
    assert_eq!(
        answer.json(),
        json!({
            "ok": true, "price_id": "price_max", "quantity": 1, "currency": "usd",
            "subtotal": 20_000, "total": 20_000, "amount_due": 20_000,
            "lines": [
                {"description": "Unused time on Pro", "amount": -10_000},
                {"description": "Remaining time on Max", "amount": 30_000},
            ],
        })
    );
    let asked = &posted(&stripe)[0];
    assert_eq!(asked.line(), "POST /v1/invoices/create_preview");
    let form = asked.form();
    let fields: Vec<(&str, &str)> = form.iter().map(|(name, value)| (&**name, &**value)).collect();
    assert_eq!(
        fields,
        [
            ("subscription", "sub_1"),
            ("subscription_details[billing_cycle_anchor]", "now"),
            ("subscription_details[items][0][id]", "si_1"),
            ("subscription_details[items][0][price]", "price_max"),
            ("subscription_details[items][0][quantity]", "1"),
            ("subscription_details[proration_behavior]", "always_invoice"),
        ]
    );
    assert_eq!(stripe.object(PATH), before);
    stripe.fail_after(1, Fault::Failing);
    let answer = shim.post_as(ANN, "/subscription/preview-change", &json!({"price_id": "price_max"}));
    assert_eq!(answer.summary(), "502 stripe_failed");
}

#[test]
fn of_several_items_the_plan_is_changed() {
    let stripe = FakeStripe::start();
    let database = subscribed(&stripe);
    stripe.knows_subscription(at_stripe(&json!([
        item("si_seats", "price_seats", 4),
        item("si_plan", "price_pro", 1)
    ])));
    let shim = app(&database, &stripe).start();
    assert_eq!(change(&shim, &json!({"price_id": "price_max"})).status, 200);
    assert_eq!(posted(&stripe)[0].form()["items[0][id]"], "si_plan");

    stripe.knows_subscription(at_stripe(&json!([item("si_a", "price_a", 1), item("si_b", "price_b", 1)])));
    assert_eq!(change(&shim, &json!({"price_id": "price_max"})).summary(), "409 no_subscription");
}

#[test]
fn a_cancellation_waits_for_the_periods_end() {
    let stripe = FakeStripe::start();
    let database = subscribed(&stripe);
    let shim = app(&database, &stripe).start();
    let cancel = || shim.post_as(ANN, "/subscription/cancel", &json!({}));
    for _ in 0..2 {
        assert_eq!(
            cancel().json(),
            json!({
                "ok": true, "subscription_id": "sub_1", "cancel_at_period_end": true,
                "cancel_at": CREATED + 2_592_000,
            })
        );
    }
    let asked = posted(&stripe);
    assert_eq!(asked.len(), 2);
    assert_eq!((asked[0].line(), &*asked[0].body), (format!("POST {PATH}"), "cancel_at_period_end=true"));
    // A user may renew in the portal and cancel again the same day: the old answer must not be repeated.
    assert_ne!(asked[0].idempotency_key, asked[1].idempotency_key);
    stripe.fail(Fault::Cut);
    assert_eq!(cancel().summary(), "502 stripe_unreachable");
}

#[test]
fn a_user_without_a_live_subscription_changes_none_not_even_another_users() {
    let stripe = FakeStripe::start();
    let database = subscribed(&stripe);
    let shim = app(&database, &stripe).start();
    let body = json!({"price_id": "price_max", "subscription_id": "sub_1", "customer": "cus_ann"});
    for path in ["/subscription/change", "/subscription/preview-change", "/subscription/cancel"] {
        assert_eq!(shim.post_as(BOB, path, &body).summary(), "409 no_subscription", "{path}");
    }
    assert_eq!(stripe.asked(), []);
    database.connect().run(
        "update billing.subscriptions set status = 'unpaid';
         update billing.accounts set tier = 'free', subscription_status = 'unpaid'",
    );
    assert_eq!(change(&shim, &body).summary(), "409 no_subscription");
    assert_eq!(stripe.asked(), []);
}

#[test]
fn a_subscription_that_has_ended_at_stripe_is_none_whatever_the_books_say() {
    let stripe = FakeStripe::start();
    let database = subscribed(&stripe);
    let shim = app(&database, &stripe).start();
    for status in ["canceled", "incomplete", "incomplete_expired", "unpaid", "paused"] {
        let mut ended = at_stripe(&json!([item("si_1", "price_pro", 1)]));
        ended["status"] = json!(status);
        stripe.knows_subscription(ended);
        assert_eq!(
            change(&shim, &json!({"price_id": "price_max"})).summary(),
            "409 no_subscription",
            "{status}"
        );
    }
    stripe.fail(Fault::Missing);
    assert_eq!(change(&shim, &json!({"price_id": "price_max"})).summary(), "409 no_subscription");
    assert_eq!(shim.post_as(ANN, "/subscription/cancel", &json!({})).summary(), "409 no_subscription");
}
