//! The browser that comes back from buying a plan: its paid invoice grants, by the same function as the webhooks.

use std::sync::Barrier;
use std::thread;

use serde_json::json;
use stripe_credits_tests::app::app;
use stripe_credits_tests::fake_stripe::FakeStripe;
use stripe_credits_tests::shim::{Shim, deliver};
use stripe_credits_tests::subscription::{
    Invoice, Subscription, invoice, line, period, subscribing, subscription,
};
use stripe_credits_tests::wire::Answer;
use stripe_credits_tests::{ANN, BOB, Database, Session, user};
use uuid::Uuid;

const ROUTE: &str = "/reconcile-stripe-checkout";

/// A first purchase of `price_pro`, paid, as Stripe has it.
fn bought(stripe: &FakeStripe, n: u128, user: Uuid) -> (Session, Subscription, Invoice) {
    let (cs, sub, inv) = (format!("cs_{n}"), format!("sub_{n}"), format!("in_{n}"));
    let customer = format!("cus_{n}");
    let session = subscribing(&cs, &sub, &inv).of(user).with("customer", customer.clone());
    let subscription = subscription(&sub, "price_pro").of(user).with("customer", customer.clone());
    let invoice =
        invoice(&inv, &sub).line(line("price_pro", 10_000, period(0))).of(user).with("customer", customer);
    stripe.knows_session(session.json().clone());
    stripe.knows_line_items_of(&cs, &[("price_pro", 1)]);
    stripe.knows_subscription(subscription.json().clone());
    stripe.knows_invoice(invoice.json().clone());
    (session, subscription, invoice)
}

fn reconcile(shim: &Shim, user: Uuid, session: &Session) -> Answer {
    shim.post_as(user, ROUTE, &json!({"session_id": session.id()}))
}

#[test]
fn a_plan_is_credited_by_the_browser_alone_and_then_by_none_of_the_webhooks() {
    let database = Database::with_catalog();
    let stripe = FakeStripe::start();
    let (session, subscription, invoice) = bought(&stripe, 1, ANN);
    let shim = app(&database, &stripe).start();
    let mut books = database.connect();
    let answer = reconcile(&shim, ANN, &session);
    assert_eq!(answer.summary(), "200 applied", "{answer:?}");
    let json = answer.json();
    assert_eq!((&json["remaining_subscription"], &json["tier"]), (&json!(10_000), &json!("pro")));
    assert_eq!(books.ledger(ANN), ["subscription_grant 10000"]);
    for event in [invoice.paid("evt_1"), subscription.created("evt_2"), session.completed("evt_3")] {
        let outcome = shim.deliver(&event).summary();
        assert!(outcome.starts_with("200 "), "{outcome}");
    }
    assert_eq!(reconcile(&shim, ANN, &session).status, 200);
    assert_eq!(books.ledger(ANN), ["subscription_grant 10000"]);
    assert!(books.inbox("reconcile:cs_1").is_some());
    assert_eq!(shim.get_as(ANN, "/credits").json()["subscription_credits_balance"], 10_000);
    assert_eq!(
        shim.post_as(ANN, "/checkout", &json!({"price_id": "price_max"})).summary(),
        "409 already_subscribed"
    );
}

#[test]
fn scenario_05_another_users_plan_is_403_and_the_owner_is_still_credited() {
    let database = Database::with_catalog();
    let stripe = FakeStripe::start();
    let (session, ..) = bought(&stripe, 1, ANN);
    let shim = app(&database, &stripe).start();
    let mut books = database.connect();
    let before = books.everything();
    assert_eq!(reconcile(&shim, BOB, &session).summary(), "403 rejected not_owner");
    assert_eq!(books.everything(), before);
    assert_eq!(reconcile(&shim, ANN, &session).summary(), "200 applied");
    assert_eq!(books.ledger(ANN), ["subscription_grant 10000"]);
}

#[test]
fn scenario_04_the_browser_races_the_three_webhooks_of_a_first_purchase() {
    let database = Database::with_catalog();
    let stripe = FakeStripe::start();
    let shim = app(&database, &stripe).start();
    let mut books = database.connect();
    for n in 1..=25 {
        let owner = user(100 + n);
        let (session, subscription, invoice) = bought(&stripe, n, owner);
        let events = [
            invoice.paid(&format!("evt_{n}_a")),
            subscription.created(&format!("evt_{n}_b")),
            session.completed(&format!("evt_{n}_c")),
        ];
        let barrier = Barrier::new(4);
        thread::scope(|scope| {
            for event in &events {
                scope.spawn(|| {
                    barrier.wait();
                    let answer = deliver(shim.address(), event).expect("an answer");
                    assert_eq!(answer.status, 200, "{answer:?}");
                });
            }
            barrier.wait();
            let answer = reconcile(&shim, owner, &session);
            assert_eq!(answer.status, 200, "{answer:?}");
            assert_eq!(answer.json()["remaining_total"], 10_000, "{answer:?}");
        });
        assert_eq!(books.ledger(owner), ["subscription_grant 10000"], "{n}");
    }
}
