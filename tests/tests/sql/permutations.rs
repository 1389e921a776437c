//! Order does not matter: every permutation of a set of deliveries, each of them doubled, ends in the same balances.

use serde_json::{Value, json};
use stripe_credits_tests::permutations::{
    Step, common_end, nothing, orders, orders_of_pairs, orders_with_repeats,
};
use stripe_credits_tests::{
    ANN, Connection, Database, Event, Session, catalog, catalog_of_packs, event, fetched_lines,
    nothing_fetched, paid_pack, session,
};

/// Every order of the steps, each of them twice at any two places.
fn every_order_ends_the_same(db: &Database, steps: &[Step], balance: i64) {
    assert!(steps.len() > 1, "one order proves nothing");
    let read = |c: &mut Connection| (c.balance(ANN), c.end_state(), c.subscribed_state());
    let end = common_end(db, nothing, steps, &orders_of_pairs(steps.len()), read);
    assert_eq!(end.0, balance);
}

fn delivered<'a>(event: Event) -> Step<'a> {
    Box::new(move |c| {
        c.apply(&event);
    })
}

fn answered<'a>(event: Event, fetched: Value) -> Step<'a> {
    Box::new(move |c| {
        c.apply_fetched(&event, &fetched);
    })
}

fn reconciled<'a>(session: Session) -> Step<'a> {
    Box::new(move |c| {
        c.reconcile(&session, ANN);
    })
}

fn attributed(stripe_id: &str) -> Step<'_> {
    Box::new(move |c| {
        c.attribute(stripe_id, ANN);
    })
}

fn loaded<'a>(catalog: Value) -> Step<'a> {
    Box::new(move |c| {
        c.load_catalog(&catalog);
    })
}

#[test]
fn orders_are_counted_as_they_should_be() {
    assert_eq!([1, 2, 3, 4].map(|steps| orders(steps).len()), [1, 2, 6, 24]);
    assert_eq!([1, 2, 3, 4].map(|steps| orders_of_pairs(steps).len()), [1, 6, 90, 2520]);
    let mut pairs = orders_of_pairs(3);
    pairs.sort();
    pairs.dedup();
    assert_eq!(pairs.len(), 90);
    assert_eq!(orders_with_repeats(2), [[1, 1, 0, 0, 1, 0], [0, 0, 1, 1, 0, 1]]);
}

#[test]
fn scenario_02_webhook_and_reconcile_of_one_pack_in_every_order() {
    let db = Database::with_catalog();
    let paid = paid_pack("cs_1", ANN).with("customer", "cus_1");
    let steps = [delivered(paid.completed("evt_1")), reconciled(paid)];
    every_order_ends_the_same(&db, &steps, 500);
}

#[test]
fn scenario_03_two_events_a_reconcile_and_a_direct_call_in_every_order() {
    let db = Database::with_catalog();
    let paid = paid_pack("cs_1", ANN).with("customer", "cus_1");
    let steps = [
        delivered(paid.completed("evt_1")),
        delivered(paid.event("evt_2", "checkout.session.async_payment_succeeded")),
        reconciled(paid),
        Box::new(|c: &mut Connection| {
            c.call(
                "apply_stripe_credit_pack_purchase($1, 500, 'evt_3', 'cs_1', 'pi_1', 'cus_1', 'price_pack')",
                &[&ANN],
            );
        }),
    ];
    every_order_ends_the_same(&db, &steps, 500);
}

#[test]
fn scenario_06_unpaid_then_succeeded_in_every_order() {
    let db = Database::with_catalog();
    let paid = paid_pack("cs_1", ANN).with("customer", "cus_1");
    let unpaid = paid.clone().with("payment_status", "unpaid");
    let steps = [
        delivered(unpaid.completed("evt_1")),
        delivered(paid.event("evt_2", "checkout.session.async_payment_succeeded")),
        reconciled(unpaid),
    ];
    every_order_ends_the_same(&db, &steps, 500);
}

#[test]
fn scenario_06_unpaid_then_failed_in_every_order() {
    let db = Database::with_catalog();
    let unpaid = paid_pack("cs_1", ANN).with("customer", "cus_1").with("payment_status", "unpaid");
    let steps = [
        delivered(unpaid.completed("evt_1")),
        delivered(unpaid.event("evt_2", "checkout.session.async_payment_failed")),
        delivered(unpaid.event("evt_3", "checkout.session.expired")),
    ];
    every_order_ends_the_same(&db, &steps, 0);
}

#[test]
fn scenario_07_an_unowned_pack_and_whatever_names_its_customer_in_every_order() {
    let db = Database::with_catalog();
    let unowned = session("cs_1").metadata("price_id", "price_pack").with("customer", "cus_1");
    let linking = paid_pack("cs_2", ANN).with("customer", "cus_1");
    let steps =
        [delivered(unowned.completed("evt_1")), delivered(linking.completed("evt_2")), attributed("cus_1")];
    every_order_ends_the_same(&db, &steps, 1000);
}

#[test]
fn scenario_07_an_unowned_pack_and_its_attributed_session_in_every_order() {
    let db = Database::with_catalog();
    let unowned = session("cs_1").metadata("price_id", "price_pack").with("customer", "cus_1");
    let steps = [
        delivered(unowned.completed("evt_1")),
        delivered(unowned.event("evt_2", "checkout.session.async_payment_succeeded")),
        attributed("cs_1"),
    ];
    every_order_ends_the_same(&db, &steps, 500);
}

#[test]
fn scenario_07_attributing_one_of_two_sessions_of_a_payment_intent_in_every_order() {
    // One payment intent, two sessions: one payment, whichever of them an operator named.
    let db = Database::with_catalog();
    let unowned = session("cs_1").metadata("price_id", "price_pack");
    let twin = session("cs_2").metadata("price_id", "price_pack").with("payment_intent", "pi_1").of(ANN);
    let steps =
        [delivered(unowned.completed("evt_1")), delivered(twin.completed("evt_2")), attributed("cs_1")];
    let mut c = db.connect();
    for order in orders_of_pairs(steps.len()) {
        c.run("begin");
        for step in &order {
            steps[*step](&mut c);
        }
        assert_eq!(c.balance(ANN), 500, "order {order:?}");
        c.run("rollback");
    }
}

#[test]
fn scenario_08_an_unknown_price_and_the_catalog_that_knows_it_in_every_order() {
    let db = Database::with_catalog();
    let wanted = catalog_of_packs(&json!([{"key": "new", "credits": 700, "prices": ["price_new"]}]));
    let bought = session("cs_1").of(ANN).metadata("price_id", "price_new").with("customer", "cus_1");
    let steps = [
        delivered(bought.completed("evt_1")),
        delivered(bought.event("evt_2", "checkout.session.async_payment_succeeded")),
        loaded(wanted),
    ];
    every_order_ends_the_same(&db, &steps, 700);
}

#[test]
fn scenario_08_unknown_price_unknown_user_and_no_catalog_at_all_in_every_order() {
    let db = Database::new();
    let bought = session("cs_1").metadata("price_id", "price_pack").with("customer", "cus_1");
    let steps = [delivered(bought.completed("evt_1")), attributed("cus_1"), loaded(catalog())];
    every_order_ends_the_same(&db, &steps, 500);
}

#[test]
fn scenario_09_a_bare_session_with_and_without_stripes_answer_in_every_order() {
    let db = Database::with_catalog();
    let bare = session("cs_1").of(ANN).with("customer", "cus_1");
    let lines = fetched_lines(&bare, &[("price_pack", 3)]);
    let steps = [
        delivered(bare.completed("evt_1")),
        answered(bare.completed("evt_1"), nothing_fetched()),
        answered(bare.completed("evt_1"), lines),
    ];
    every_order_ends_the_same(&db, &steps, 1500);
}

#[test]
fn scenario_09_metadata_that_says_less_than_the_lines_in_every_order() {
    let db = Database::with_catalog();
    let named = paid_pack("cs_1", ANN).with("customer", "cus_1");
    let steps = [
        delivered(named.completed("evt_1")),
        reconciled(named.clone().lines(&[("price_pack", 3)])),
        answered(named.completed("evt_2"), fetched_lines(&named, &[("price_pack", 2)])),
    ];
    every_order_ends_the_same(&db, &steps, 1500);
}

#[test]
fn scenario_10_a_pack_plus_a_tshirt_and_a_tshirt_alone_in_every_order() {
    let db = Database::with_catalog();
    let both = session("cs_1").of(ANN).with("customer", "cus_1");
    let tshirt = session("cs_2").of(ANN).with("customer", "cus_1");
    let steps = [
        answered(both.completed("evt_1"), fetched_lines(&both, &[("price_pack", 1), ("price_tshirt", 1)])),
        answered(tshirt.completed("evt_2"), fetched_lines(&tshirt, &[("price_tshirt", 1)])),
        reconciled(both.clone().lines(&[("price_tshirt", 1), ("price_pack", 1)])),
    ];
    every_order_ends_the_same(&db, &steps, 500);
}

#[test]
fn scenario_13b_a_pack_and_its_own_invoice_in_every_order() {
    let db = Database::with_catalog();
    let paid = paid_pack("cs_1", ANN).with("customer", "cus_1").with("invoice", "in_1");
    let invoice =
        json!({"id": "in_1", "object": "invoice", "customer": "cus_1", "status": "paid", "paid": true});
    let steps = [delivered(paid.completed("evt_1")), delivered(event("evt_2", "invoice.paid", invoice))];
    every_order_ends_the_same(&db, &steps, 500);
}

#[test]
fn everything_that_can_wait_and_what_it_waits_for_in_every_order() {
    // A session without line items, user or known price, while there is no catalog: four things are missing.
    let db = Database::new();
    let wanted = catalog_of_packs(&json!([{"key": "new", "credits": 700, "prices": ["price_new"]}]));
    let bare = session("cs_1").with("customer", "cus_1");
    let steps = [
        delivered(bare.completed("evt_1")),
        answered(bare.completed("evt_1"), fetched_lines(&bare, &[("price_new", 2)])),
        attributed("cus_1"),
        loaded(wanted),
    ];
    every_order_ends_the_same(&db, &steps, 1400);
}
