//! Rule 12 by the shim's doors: what was paid before the books began is credited by none of them.

use serde_json::json;
use stripe_credits_tests::app::{app, command};
use stripe_credits_tests::fake_stripe::FakeStripe;
use stripe_credits_tests::shim::unix_now;
use stripe_credits_tests::subscription::{PRO, renewal, subscription};
use stripe_credits_tests::{ANN, Connection, Database, Event, catalog, paid_pack};

/// A database whose books began after the objects of the tests were made.
fn database() -> (Database, Connection) {
    let database = Database::new();
    let mut books = database.connect();
    let mut catalog = catalog();
    catalog["begins_at"] = json!("2026-01-01T00:00:00Z");
    books.load_catalog(&catalog);
    (database, books)
}

/// Stripe has this event, made now.
fn knows(stripe: &FakeStripe, event: Event) {
    let event = event.with("created", unix_now().cast_signed());
    stripe.knows_list("/v1/events", vec![event.json().clone()]);
}

#[test]
fn scenario_68_an_older_session_is_ignored_by_the_shims_doors_too() {
    let (database, mut books) = database();
    let stripe = FakeStripe::start();
    let older = paid_pack("cs_1", ANN);
    knows(&stripe, older.completed("evt_1"));
    stripe.knows_session(older.json().clone());

    let swept = command(&["sweep"], &database, &stripe).run();
    assert_eq!(swept.code, Some(0), "{swept:?}");
    assert_eq!(swept.stdout, "events: 1 listed, 0 applied, 0 left for a person\n");
    assert_eq!(books.inbox("evt_1").as_deref(), Some("ignored before_books"));

    let replayed = command(&["replay", "evt_1"], &database, &stripe).run();
    assert!(replayed.stdout.contains("before_books"), "{replayed:?}");

    let shim = app(&database, &stripe).start();
    let delivered = shim.deliver(&older.completed("evt_2"));
    assert_eq!((delivered.status, &delivered.json()["reason"]), (200, &json!("before_books")));
    let back = shim.post_as(ANN, "/reconcile-stripe-credit-pack", &json!({"session_id": "cs_1"}));
    assert_eq!((back.status, &back.json()["reason"]), (200, &json!("before_books")));
    assert_eq!((books.balance(ANN), books.ledger(ANN).len()), (0, 0));
}

#[test]
fn scenario_68_an_older_invoice_is_ignored_by_the_shims_doors_too() {
    let (database, mut books) = database();
    let stripe = FakeStripe::start();
    let plan = subscription("sub_1", "price_pro").of(ANN);
    let older = renewal("in_1", "sub_1", PRO, 0).of(ANN);
    knows(&stripe, older.paid("evt_1"));
    stripe.knows_list("/v1/subscriptions", vec![plan.json().clone()]);
    stripe.knows_list("/v1/invoices", vec![older.json().clone()]);

    let filled = command(&["backfill"], &database, &stripe).run();
    assert_eq!(filled.code, Some(0), "{filled:?}");
    assert!(filled.stdout.contains("invoices: 1 listed, 0 applied, 0 left"), "{filled:?}");
    let swept = command(&["sweep"], &database, &stripe).run();
    assert_eq!(swept.stdout, "events: 1 listed, 0 applied, 0 left for a person\n");
    let replayed = command(&["replay", "evt_1"], &database, &stripe).run();
    assert!(replayed.stdout.contains("before_books"), "{replayed:?}");
    assert_eq!(books.inbox("evt_1").as_deref(), Some("ignored before_books"));
    assert_eq!((books.balance(ANN), books.ledger(ANN).len()), (0, 0));
    assert_eq!(books.tier(ANN), "pro active", "the subscription itself is known");
}
