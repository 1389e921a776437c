//! Scenarios of credit packs, from the session's first event to the ledger row, on real connections.

use stripe_credits_tests::concurrency::{blocked, together};
use stripe_credits_tests::stripe::CREATED;
use stripe_credits_tests::{
    ANN, BOB, Connection, Database, Event, Session, catalog, event, fetched_lines, nothing_fetched,
    paid_pack, session,
};

use serde_json::{Value, json};

/// The catalog with its packs replaced: price and credits each.
fn selling(packs: &[(&str, i64)]) -> Value {
    let mut catalog = catalog();
    catalog["packs"] = packs
        .iter()
        .map(|(price, credits)| json!({"key": format!("pack_of_{price}"), "credits": credits, "prices": [price]}))
        .collect();
    catalog
}

/// The database's clock in Unix seconds, as Stripe would stamp a session that is made now.
fn now(c: &mut Connection, rounding: &str) -> i64 {
    c.one(&format!("select {rounding}(extract(epoch from clock_timestamp()))::bigint"), &[])
}

#[test]
fn scenario_01_signup_called_twice_grants_500_promotional_once() {
    let db = Database::with_catalog();
    let mut c = db.connect();
    let first = c.sign_up(ANN);
    assert_eq!((first.summary().as_str(), first.credits), ("applied", 500));
    assert_eq!(first.remaining_promotional, Some(500));
    let second = c.sign_up(ANN);
    assert_eq!((second.summary().as_str(), second.credits), ("already_applied", 0));
    assert_eq!(second.remaining_total, Some(500));
    assert_eq!(c.ledger(ANN), ["signup 500"]);
    assert_eq!(c.balance(ANN), 500);
}

#[test]
fn scenario_01_signup_on_ten_connections_at_once_grants_once() {
    let db = Database::with_catalog();
    let outcomes = together(&db, vec![|c: &mut Connection| c.sign_up(ANN).summary(); 10]);
    assert_eq!(outcomes.iter().filter(|outcome| *outcome == "applied").count(), 1, "{outcomes:?}");
    assert_eq!(db.connect().ledger(ANN), ["signup 500"]);
}

#[test]
fn scenario_01_signup_before_the_first_catalog_is_rejected_and_may_try_again() {
    let db = Database::new();
    let mut c = db.connect();
    let before = c.everything();
    assert_eq!(c.sign_up(ANN).summary(), "rejected no_catalog");
    assert_eq!(c.everything(), before);
    c.load_catalog(&catalog());
    assert_eq!(c.sign_up(ANN).summary(), "applied");
    assert_eq!(c.balance(ANN), 500);
}

#[test]
fn scenario_02_paid_pack_delivered_three_times_at_once_grants_once() {
    let db = Database::with_catalog();
    let delivered = paid_pack("cs_1", ANN).with("customer", "cus_1").completed("evt_1");
    let mut outcomes = together(&db, vec![|c: &mut Connection| c.apply(&delivered).summary(); 3]);
    outcomes.sort();
    assert_eq!(outcomes, ["already_applied", "already_applied", "applied"]);
    let mut c = db.connect();
    assert_eq!(c.ledger(ANN), ["purchase 500"]);
    assert_eq!(c.balance(ANN), 500);
    assert_eq!(c.inbox("evt_1").as_deref(), Some("applied"));
    assert_eq!(c.one::<i32>("select attempts from billing.stripe_events where event_id = 'evt_1'", &[]), 3);
}

#[test]
fn scenario_02_the_second_delivery_waits_for_the_first_and_finds_it_applied() {
    let db = Database::with_catalog();
    let delivered = paid_pack("cs_1", ANN).completed("evt_1");
    let (first, second) = blocked(&db, |c| c.apply(&delivered), |c| c.apply(&delivered));
    assert_eq!((first.summary().as_str(), first.credits), ("applied", 500));
    assert_eq!((second.summary().as_str(), second.credits), ("already_applied", 0));
    assert_eq!(second.remaining_total, Some(500));
    assert_eq!(db.connect().ledger(ANN), ["purchase 500"]);
}

#[test]
fn scenario_02_a_ledger_row_names_event_session_and_payment_intent() {
    let db = Database::with_catalog();
    let mut c = db.connect();
    c.apply(&paid_pack("cs_1", ANN).completed("evt_1"));
    let row: String = c.one(
        "select concat_ws(' ', stripe_event_id, stripe_checkout_session_id, stripe_payment_intent_id, pool,
                description, balance_after) from billing.credit_transactions",
        &[],
    );
    assert_eq!(row, "evt_1 cs_1 pi_1 purchased 500 credits 500");
    let payment: String = c.one(
        "select concat_ws(' ', source_id, source_type, user_id, amount_total, currency, paid_at is not null)
         from billing.payments",
        &[],
    );
    assert_eq!(payment, format!("cs_1 checkout_session {ANN} 1000 usd t"));
    assert_eq!(
        c.column::<String>("select name || ' ' || source_id from billing.payment_names order by 1", &[]),
        ["cs_1 cs_1", "pi_1 cs_1"]
    );
}

#[test]
fn scenario_03_two_event_ids_for_one_session_grant_once() {
    let db = Database::with_catalog();
    let mut c = db.connect();
    let paid = paid_pack("cs_1", ANN);
    assert_eq!(c.apply(&paid.completed("evt_1")).summary(), "applied");
    let other = c.apply(&paid.event("evt_2", "checkout.session.async_payment_succeeded"));
    assert_eq!((other.summary().as_str(), other.credits), ("already_applied", 0));
    assert_eq!(c.ledger(ANN), ["purchase 500"]);
    assert_eq!(c.inbox("evt_2").as_deref(), Some("already_applied"));
}

#[test]
fn scenario_03_two_event_ids_for_one_session_with_both_transactions_open_grant_once() {
    let db = Database::with_catalog();
    let paid = paid_pack("cs_1", ANN).with("customer", "cus_1");
    let (first, second) = blocked(
        &db,
        |c| c.apply(&paid.completed("evt_1")).summary(),
        |c| c.apply(&paid.completed("evt_2")).summary(),
    );
    assert_eq!((first.as_str(), second.as_str()), ("applied", "already_applied"));
    assert_eq!(db.connect().ledger(ANN), ["purchase 500"]);
}

#[test]
fn scenario_04_a_reconcile_that_races_the_webhook_sees_the_new_balance_either_way() {
    let paid = paid_pack("cs_1", ANN).with("customer", "cus_1");
    for reconcile_first in [true, false] {
        let db = Database::with_catalog();
        let webhook = |c: &mut Connection| c.apply(&paid.completed("evt_1"));
        let reconcile = |c: &mut Connection| c.reconcile(&paid, ANN);
        let (first, second) =
            if reconcile_first { blocked(&db, reconcile, webhook) } else { blocked(&db, webhook, reconcile) };
        assert_eq!((first.summary().as_str(), first.remaining_total), ("applied", Some(500)));
        assert_eq!((second.summary().as_str(), second.remaining_total), ("already_applied", Some(500)));
        assert_eq!(db.connect().ledger(ANN), ["purchase 500"]);
    }
}

#[test]
fn scenario_05_another_users_reconcile_writes_nothing_and_the_owner_is_credited() {
    let db = Database::with_catalog();
    let mut c = db.connect();
    let paid = paid_pack("cs_1", ANN).with("customer", "cus_1").with("client_reference_id", BOB.to_string());
    let before = c.everything();
    let refused = c.reconcile(&paid, BOB);
    assert_eq!(refused.summary(), "rejected not_owner");
    assert_eq!((refused.credits, refused.remaining_total, refused.user_id), (0, None, None));
    assert_eq!(c.everything(), before, "a refusal leaves no trace");
    assert_eq!(c.reconcile(&paid, ANN).summary(), "applied");
    assert_eq!(c.inbox("reconcile_credit_pack:cs_1").as_deref(), Some("applied"));
    let after = c.everything();
    assert_eq!(c.reconcile(&paid, BOB).summary(), "rejected not_owner");
    assert_eq!(c.everything(), after);
    assert_eq!(c.ledger(ANN), ["purchase 500"]);
    assert_eq!(c.ledger(BOB), [""; 0]);
}

#[test]
fn scenario_05_a_reconcile_never_attributes_a_session_that_names_no_user() {
    let db = Database::with_catalog();
    let mut c = db.connect();
    let unowned = session("cs_1").metadata("price_id", "price_pack").with("customer", "cus_1");
    let before = c.everything();
    assert_eq!(c.reconcile(&unowned, ANN).summary(), "rejected no_owner");
    assert_eq!(c.everything(), before);
    c.apply(&unowned.completed("evt_1"));
    assert_eq!(c.reconcile(&unowned, ANN).summary(), "rejected no_owner");
    assert_eq!(c.inbox("evt_1").as_deref(), Some("parked unknown_user"));
    c.attribute("cus_1", ANN);
    let reconciled = c.reconcile(&unowned, ANN);
    assert_eq!((reconciled.summary().as_str(), reconciled.remaining_total), ("already_applied", Some(500)));
}

#[test]
fn scenario_06_an_unpaid_session_grants_once_when_it_is_paid_three_days_later() {
    let db = Database::with_catalog();
    let mut c = db.connect();
    let unpaid = paid_pack("cs_1", ANN).with("payment_status", "unpaid");
    assert_eq!(c.apply(&unpaid.completed("evt_1")).summary(), "ignored unpaid");
    assert_eq!((c.balance(ANN), c.ledger(ANN).len()), (0, 0));
    let succeeded = unpaid
        .with("payment_status", "paid")
        .event("evt_2", "checkout.session.async_payment_succeeded")
        .with("created", CREATED + 3 * 86_400);
    for expected in ["applied", "already_applied", "already_applied"] {
        assert_eq!(c.apply(&succeeded).summary(), expected);
    }
    assert_eq!(c.ledger(ANN), ["purchase 500"]);
    assert_eq!(c.inbox("evt_1").as_deref(), Some("ignored unpaid"));
}

#[test]
fn scenario_06_an_unpaid_session_whose_payment_fails_grants_nothing() {
    let db = Database::with_catalog();
    let mut c = db.connect();
    let unpaid = paid_pack("cs_1", ANN).with("payment_status", "unpaid");
    assert_eq!(c.apply(&unpaid.completed("evt_1")).summary(), "ignored unpaid");
    let failed = unpaid.event("evt_2", "checkout.session.async_payment_failed");
    assert_eq!(c.apply(&failed).summary(), "ignored payment_failed");
    assert_eq!(c.apply(&unpaid.event("evt_3", "checkout.session.expired")).summary(), "ignored expired");
    assert_eq!((c.balance(ANN), c.ledger(ANN).len()), (0, 0));
}

#[test]
fn scenario_06_complete_is_not_paid_and_a_session_that_does_not_say_is_asked_for() {
    let db = Database::with_catalog();
    let mut c = db.connect();
    let silent = paid_pack("cs_1", ANN).without("payment_status");
    let asked = c.apply(&silent.completed("evt_1"));
    assert_eq!(asked.to_fetch, Some(vec!["/v1/checkout/sessions/cs_1".into()]));
    assert_eq!(c.ledger(ANN), [""; 0]);
    let whole = json!({"as_of": CREATED + 5, "objects": [paid_pack("cs_1", ANN).json()]});
    assert_eq!(c.apply_fetched(&silent.completed("evt_1"), &whole).summary(), "applied");
    assert_eq!(c.ledger(ANN), ["purchase 500"]);
}

#[test]
fn scenario_06_nothing_to_pay_grants_or_not_by_the_catalogs_policy() {
    let free = paid_pack("cs_1", ANN)
        .with("payment_status", "no_payment_required")
        .with("amount_total", 0)
        .with("payment_intent", Value::Null);
    for (policy, expected, balance) in
        [("grant", "applied", 500), ("ignore", "ignored no_payment_required", 0)]
    {
        let db = Database::new();
        let mut c = db.connect();
        let mut catalog = catalog();
        catalog["no_payment_required"] = policy.into();
        c.load_catalog(&catalog);
        assert_eq!(c.apply(&free.completed("evt_1")).summary(), expected);
        assert_eq!(c.balance(ANN), balance);
    }
}

/// A paid pack of a customer without a known user.
fn unowned_pack(session_id: &str) -> Session {
    session(session_id).metadata("price_id", "price_pack").with("customer", "cus_1")
}

#[test]
fn scenario_07_a_later_sessions_metadata_links_the_customer_and_applies_the_parked() {
    let db = Database::with_catalog();
    let mut c = db.connect();
    assert_eq!(c.apply(&unowned_pack("cs_1").completed("evt_1")).summary(), "parked unknown_user");
    assert_eq!(c.ledger(ANN), [""; 0]);
    let linking = c.apply(&paid_pack("cs_2", ANN).with("customer", "cus_1").completed("evt_2"));
    assert_eq!(linking.summary(), "applied");
    assert_eq!(linking.remaining_total, Some(1000), "the answer knows what followed");
    assert_eq!(c.inbox("evt_1").as_deref(), Some("applied"));
    assert_eq!(c.ledger(ANN), ["purchase 500", "purchase 500"]);
    assert_eq!(c.apply(&unowned_pack("cs_1").completed("evt_1")).summary(), "already_applied");
    assert_eq!(c.balance(ANN), 1000);
}

#[test]
fn scenario_07_attributing_the_customer_applies_everything_that_was_parked_for_it() {
    let db = Database::with_catalog();
    let mut c = db.connect();
    for n in 1..=3 {
        c.apply(&unowned_pack(&format!("cs_{n}")).completed(&format!("evt_{n}")));
    }
    c.apply(&unowned_pack("cs_9").with("customer", "cus_other").completed("evt_9"));
    let tied = c.attribute("cus_1", ANN);
    assert_eq!((tied.summary().as_str(), tied.credits, tied.remaining_total), ("applied", 1500, Some(1500)));
    let again = c.attribute("cus_1", ANN);
    assert_eq!((again.summary().as_str(), again.credits), ("already_applied", 0));
    assert_eq!(c.balance(ANN), 1500);
    assert_eq!(c.inbox("evt_9").as_deref(), Some("parked unknown_user"));
}

#[test]
fn scenario_07_attributing_the_session_applies_it_alone() {
    let db = Database::with_catalog();
    let mut c = db.connect();
    c.apply(&unowned_pack("cs_1").completed("evt_1"));
    c.apply(&unowned_pack("cs_2").completed("evt_2"));
    let tied = c.attribute("cs_1", ANN);
    assert_eq!((tied.summary().as_str(), tied.credits), ("applied", 500));
    assert_eq!(c.inbox("evt_1").as_deref(), Some("applied"));
    assert_eq!(c.inbox("evt_2").as_deref(), Some("parked unknown_user"));
    assert_eq!(c.attribute("cs_1", ANN).summary(), "already_applied");
    assert_eq!(c.attribute("cs_1", BOB).summary(), "rejected conflict");
    assert_eq!(c.ledger(ANN), ["purchase 500"]);
    assert_eq!(c.ledger(BOB), [""; 0]);
}

#[test]
fn scenario_07_a_session_attributed_before_it_is_paid_is_that_users() {
    let db = Database::with_catalog();
    let mut c = db.connect();
    assert_eq!(c.attribute("cs_1", ANN).summary(), "applied");
    assert_eq!(
        c.attribute("cs_1", BOB).summary(),
        "applied",
        "not paid yet: an operator may change his mind"
    );
    assert_eq!(c.apply(&unowned_pack("cs_1").completed("evt_1")).summary(), "applied");
    assert_eq!(c.ledger(BOB), ["purchase 500"]);
    assert_eq!(c.ledger(ANN), [""; 0]);
}

#[test]
fn scenario_07_overlapping_parking_and_linking_session_grant_in_both_orders() {
    let parking = |c: &mut Connection| c.apply(&unowned_pack("cs_1").completed("evt_1")).summary();
    let linking = |c: &mut Connection| {
        let linking = paid_pack("cs_2", ANN).with("customer", "cus_1").completed("evt_2");
        c.apply(&linking).summary()
    };
    for parking_first in [true, false] {
        let db = Database::with_catalog();
        let outcomes =
            if parking_first { blocked(&db, parking, linking) } else { blocked(&db, linking, parking) };
        let expected = if parking_first { "parked unknown_user" } else { "applied" };
        assert_eq!((outcomes.0.as_str(), outcomes.1.as_str()), (expected, "applied"));
        let mut c = db.connect();
        assert_eq!(c.inbox("evt_1").as_deref(), Some("applied"));
        assert_eq!(c.ledger(ANN), ["purchase 500", "purchase 500"]);
    }
}

#[test]
fn scenario_07_overlapping_parking_and_attribute_grant_in_both_orders() {
    let parking = |c: &mut Connection| c.apply(&unowned_pack("cs_1").completed("evt_1")).credits;
    for stripe_id in ["cus_1", "cs_1"] {
        let attributing = |c: &mut Connection| c.attribute(stripe_id, ANN).credits;
        for parking_first in [true, false] {
            let db = Database::with_catalog();
            let credits = if parking_first {
                blocked(&db, parking, attributing)
            } else {
                blocked(&db, attributing, parking)
            };
            assert_eq!(credits, (0, 500), "{stripe_id}, parking first: {parking_first}");
            assert_eq!(db.connect().ledger(ANN), ["purchase 500"]);
        }
    }
}

#[test]
fn scenario_07_overlapping_parking_and_linking_purchase_grant_in_both_orders() {
    let parking = |c: &mut Connection| c.apply(&unowned_pack("cs_1").completed("evt_1")).summary();
    let direct = |c: &mut Connection| {
        c.call(
            "apply_stripe_credit_pack_purchase($1, 500, 'evt_2', 'cs_2', 'pi_2', 'cus_1', 'price_pack')",
            &[&ANN],
        )
        .summary()
    };
    for parking_first in [true, false] {
        let db = Database::with_catalog();
        if parking_first {
            blocked(&db, parking, direct);
        } else {
            blocked(&db, direct, parking);
        }
        let mut c = db.connect();
        assert_eq!(c.inbox("evt_1").as_deref(), Some("applied"));
        assert_eq!(c.balance(ANN), 1000);
    }
}

#[test]
fn scenario_07_a_client_reference_id_against_a_link_parks_and_a_non_uuid_is_no_user() {
    let db = Database::with_catalog();
    let mut c = db.connect();
    c.attribute("cus_1", ANN);
    let link = unowned_pack("cs_1").with("client_reference_id", BOB.to_string());
    assert_eq!(c.apply(&link.completed("evt_1")).summary(), "parked identity_conflict");
    assert_eq!(
        c.apply(&unowned_pack("cs_2").with("client_reference_id", "summer-sale").completed("evt_2"))
            .summary(),
        "applied"
    );
    assert_eq!(c.ledger(ANN), ["purchase 500"]);
    c.attribute("cs_1", BOB);
    assert_eq!(c.ledger(BOB), ["purchase 500"]);
    assert_eq!(c.inbox("evt_1").as_deref(), Some("applied"));
}

#[test]
fn scenario_07_metadata_wins_over_a_customer_link_and_the_mismatch_is_recorded() {
    let db = Database::with_catalog();
    let mut c = db.connect();
    c.apply(&paid_pack("cs_1", ANN).with("customer", "cus_1").completed("evt_1"));
    let moved = paid_pack("cs_2", BOB).with("customer", "cus_1").with("created", CREATED + 10);
    let outcome = c.apply(&moved.completed("evt_2"));
    assert_eq!(outcome.summary(), "applied");
    assert_eq!(outcome.details.unwrap()["identity_mismatch"]["customer_tied_to"], ANN.to_string());
    assert_eq!((c.balance(ANN), c.balance(BOB)), (500, 500));
    assert_eq!(
        c.one::<String>(
            "select details -> 'identity_mismatch' ->> 'customer_tied_to' from billing.stripe_events
                         where event_id = 'evt_2'",
            &[]
        ),
        ANN.to_string()
    );
}

#[test]
fn scenario_08_an_unknown_price_parks_until_load_catalog_knows_it() {
    let db = Database::with_catalog();
    let mut c = db.connect();
    let bought = session("cs_1").of(ANN).metadata("price_id", "price_new");
    for _ in 0..2 {
        let parked = c.apply(&bought.completed("evt_1"));
        assert_eq!(parked.summary(), "parked unknown_price");
        assert_eq!(parked.details.unwrap()["missing_prices"], json!(["price_new"]));
    }
    assert_eq!(c.balance(ANN), 0);
    let changes = c.load_catalog(&selling(&[("price_pack", 500), ("price_new", 500)]));
    assert_eq!(changes["price_new"], "added");
    assert_eq!(c.inbox("evt_1").as_deref(), Some("applied"));
    assert_eq!(c.ledger(ANN), ["purchase 500"]);
    assert_eq!(c.apply(&bought.completed("evt_1")).summary(), "already_applied");
    c.load_catalog(&selling(&[("price_pack", 500), ("price_new", 500)]));
    assert_eq!(c.ledger(ANN), ["purchase 500"]);
}

#[test]
fn scenario_08_an_event_before_the_first_catalog_is_applied_by_it() {
    let db = Database::new();
    let mut c = db.connect();
    assert_eq!(c.apply(&paid_pack("cs_1", ANN).completed("evt_1")).summary(), "parked no_catalog");
    assert_eq!(
        c.apply(&event("evt_2", "product.created", json!({"id": "cus_1", "object": "customer"}))).summary(),
        "parked no_catalog"
    );
    c.load_catalog(&catalog());
    assert_eq!(c.ledger(ANN), ["purchase 500"]);
    assert_eq!(c.inbox("evt_1").as_deref(), Some("applied"));
    assert_eq!(c.inbox("evt_2").as_deref(), Some("ignored event_type"));
}

#[test]
fn scenario_08_overlapping_parking_and_load_catalog_grant_in_both_orders() {
    let bought = session("cs_1").of(ANN).metadata("price_id", "price_new");
    let parking = |c: &mut Connection| c.apply(&bought.completed("evt_1")).summary();
    let loading = |c: &mut Connection| c.load_catalog(&selling(&[("price_new", 500)]))["price_new"].clone();
    for parking_first in [true, false] {
        let db = Database::with_catalog();
        let outcomes = if parking_first {
            let (parked, loaded) = blocked(&db, parking, loading);
            (loaded, parked)
        } else {
            blocked(&db, loading, parking)
        };
        let expected = if parking_first { "parked unknown_price" } else { "applied" };
        assert_eq!((outcomes.0.as_str(), outcomes.1.as_str()), ("added", expected));
        let mut c = db.connect();
        assert_eq!(c.inbox("evt_1").as_deref(), Some("applied"));
        assert_eq!(c.ledger(ANN), ["purchase 500"]);
    }
}

#[test]
fn scenario_08_an_unknown_price_of_an_unknown_user_waits_for_both_in_either_order() {
    let bought = session("cs_1").with("customer", "cus_1").metadata("price_id", "price_new");
    for user_first in [true, false] {
        let db = Database::with_catalog();
        let mut c = db.connect();
        assert_eq!(c.apply(&bought.completed("evt_1")).summary(), "parked unknown_price");
        let wanted = selling(&[("price_new", 500)]);
        if user_first {
            c.attribute("cus_1", ANN);
            c.load_catalog(&wanted);
        } else {
            c.load_catalog(&wanted);
            assert_eq!(c.inbox("evt_1").as_deref(), Some("parked unknown_user"));
            c.attribute("cus_1", ANN);
        }
        assert_eq!(c.ledger(ANN), ["purchase 500"]);
    }
}

#[test]
fn scenario_09_without_lines_stripe_is_asked_and_quantity_3_grants_1500() {
    let db = Database::with_catalog();
    let mut c = db.connect();
    let bare = session("cs_1").of(ANN);
    let asked = c.apply(&bare.completed("evt_1"));
    assert_eq!(asked.summary(), "needs_fetch");
    assert_eq!(asked.to_fetch, Some(vec!["/v1/checkout/sessions/cs_1/line_items?limit=100".into()]));
    assert_eq!(c.inbox("evt_1").as_deref(), Some("needs_fetch"));
    assert_eq!(c.apply(&bare.completed("evt_1")).summary(), "needs_fetch", "never short-circuited by its id");
    let lines = fetched_lines(&bare, &[("price_pack", 3)]);
    let applied = c.apply_fetched(&bare.completed("evt_1"), &lines);
    assert_eq!((applied.summary().as_str(), applied.credits), ("applied", 1500));
    assert_eq!(c.apply_fetched(&bare.completed("evt_1"), &lines).summary(), "already_applied");
    assert_eq!(c.ledger(ANN), ["purchase 1500"]);
    assert_eq!(c.inbox("evt_1").as_deref(), Some("applied"));
}

#[test]
fn scenario_09_a_second_pass_never_asks_again() {
    let db = Database::with_catalog();
    let mut c = db.connect();
    let bare = session("cs_1").of(ANN);
    assert_eq!(c.apply_fetched(&bare.completed("evt_1"), &nothing_fetched()).summary(), "parked unfetched");
    assert_eq!(c.balance(ANN), 0);
    let lines = fetched_lines(&bare, &[("price_pack", 3)]);
    assert_eq!(c.apply_fetched(&bare.completed("evt_1"), &lines).summary(), "applied");
    assert_eq!(c.ledger(ANN), ["purchase 1500"]);
}

#[test]
fn scenario_09_a_page_of_lines_that_is_not_all_of_them_parks_as_shape() {
    let db = Database::with_catalog();
    let mut c = db.connect();
    let bare = session("cs_1").of(ANN);
    let mut page = fetched_lines(&bare, &[("price_pack", 3)]);
    page["objects"][0]["has_more"] = true.into();
    let outcome = c.apply_fetched(&bare.completed("evt_1"), &page);
    assert_eq!(outcome.summary(), "parked shape", "Stripe was asked and answered");
    assert_eq!(c.balance(ANN), 0);
}

#[test]
fn scenario_09_what_stripe_answered_is_kept_for_an_event_that_waits_for_a_price() {
    let db = Database::with_catalog();
    let mut c = db.connect();
    let bare = session("cs_1").of(ANN);
    let lines = fetched_lines(&bare, &[("price_new", 3)]);
    assert_eq!(c.apply_fetched(&bare.completed("evt_1"), &lines).summary(), "parked unknown_price");
    c.load_catalog(&selling(&[("price_new", 500)]));
    assert_eq!(c.ledger(ANN), ["purchase 1500"]);
}

#[test]
fn scenario_09_line_items_beyond_the_metadata_grant_the_difference_in_both_orders() {
    let named = paid_pack("cs_1", ANN);
    let expanded = paid_pack("cs_1", ANN).lines(&[("price_pack", 3)]);
    for metadata_first in [true, false] {
        let db = Database::with_catalog();
        let mut c = db.connect();
        if metadata_first {
            assert_eq!(c.apply(&named.completed("evt_1")).credits, 500);
            assert_eq!(c.reconcile(&expanded, ANN).credits, 1000);
        } else {
            assert_eq!(c.reconcile(&expanded, ANN).credits, 1500);
            let less = c.apply(&named.completed("evt_1"));
            assert_eq!((less.summary().as_str(), less.credits), ("already_applied", 0));
            assert_eq!(less.details.unwrap()["granted_beyond_this_evidence"], 1000);
        }
        assert_eq!(c.balance(ANN), 1500);
    }
}

#[test]
fn scenario_09_metadata_quantity_and_pack_key_name_the_line() {
    let db = Database::with_catalog();
    let mut c = db.connect();
    let three = session("cs_1").of(ANN).metadata("pack", "pack_500").metadata("quantity", "3");
    assert_eq!(c.apply(&three.completed("evt_1")).credits, 1500);
    assert_eq!(c.apply(&paid_pack("cs_2", BOB).metadata("quantity", "2").completed("evt_2")).credits, 1000);
    assert_eq!(c.ledger(ANN), ["purchase 1500"]);
    assert_eq!(c.ledger(BOB), ["purchase 1000"]);
}

#[test]
fn scenario_09_metadata_credits_and_amounts_are_never_worth_anything() {
    let db = Database::with_catalog();
    let mut c = db.connect();
    let boasting = paid_pack("cs_1", ANN).metadata("credits", "1000000").with("amount_total", 99_999_999);
    let outcome = c.apply(&boasting.completed("evt_1"));
    assert_eq!(outcome.credits, 500);
    let recorded = &outcome.details.unwrap()["discrepancy"];
    assert_eq!(*recorded, json!({"metadata_credits": "1000000", "worth": 500}));
    assert_eq!(c.ledger(ANN), ["purchase 500"]);
}

#[test]
fn scenario_10_a_pack_plus_a_tshirt_grants_the_pack_and_a_tshirt_alone_is_ignored() {
    let db = Database::with_catalog();
    let mut c = db.connect();
    let both = session("cs_1").of(ANN);
    let lines = fetched_lines(&both, &[("price_pack", 1), ("price_tshirt", 2)]);
    let outcome = c.apply_fetched(&both.completed("evt_1"), &lines);
    assert_eq!((outcome.summary().as_str(), outcome.credits), ("applied", 500));
    let tshirt = session("cs_2").of(ANN);
    let lines = fetched_lines(&tshirt, &[("price_tshirt", 1)]);
    assert_eq!(c.apply_fetched(&tshirt.completed("evt_2"), &lines).summary(), "ignored not_credits");
    let named = session("cs_3").of(ANN).metadata("price_id", "price_tshirt");
    assert_eq!(c.apply(&named.completed("evt_3")).summary(), "ignored not_credits");
    assert_eq!(c.ledger(ANN), ["purchase 500"]);
    assert_eq!(c.one::<i64>("select count(*) from billing.payments", &[]), 1);
}

#[test]
fn scenario_10_lines_of_one_price_are_summed_and_an_unknown_price_waits_alone() {
    let db = Database::with_catalog();
    let mut c = db.connect();
    let summed = session("cs_1").of(ANN).lines(&[("price_pack", 1), ("price_pack", 2)]);
    assert_eq!(c.apply(&summed.completed("evt_1")).credits, 1500);
    let unknown = session("cs_2").of(ANN).lines(&[("price_pack", 1), ("price_new", 1)]);
    assert_eq!(c.apply(&unknown.completed("evt_2")).summary(), "parked unknown_price");
    let plan = session("cs_3").of(ANN).lines(&[("price_pro", 1)]);
    assert_eq!(c.apply(&plan.completed("evt_3")).summary(), "parked unknown_price");
    assert_eq!(c.ledger(ANN), ["purchase 1500", "purchase 500"], "the known line is granted at once");
    c.load_catalog(&selling(&[("price_pack", 500), ("price_new", 70)]));
    assert_eq!(c.ledger(ANN), ["purchase 1500", "purchase 500", "purchase 70"]);
}

#[test]
fn scenario_11_tax_and_coupons_change_what_is_paid_not_what_it_is_worth() {
    let db = Database::with_catalog();
    let mut c = db.connect();
    let taxed = paid_pack("cs_1", ANN)
        .with("amount_total", 1200)
        .with("total_details", json!({"amount_tax": 200, "amount_discount": 0}));
    let discounted = paid_pack("cs_2", BOB)
        .with("amount_total", 700)
        .with("total_details", json!({"amount_tax": 0, "amount_discount": 300}));
    assert_eq!(c.apply(&taxed.completed("evt_1")).credits, 500);
    assert_eq!(c.apply(&discounted.completed("evt_2")).credits, 500);
    assert_eq!(c.ledger(ANN), ["purchase 500"]);
    assert_eq!(c.ledger(BOB), ["purchase 500"]);
    let amounts: Vec<i64> = c.column("select amount_total from billing.payments order by 1", &[]);
    assert_eq!(amounts, [700, 1200], "kept for refunds");
}

#[test]
fn scenario_12_a_price_counts_as_of_when_the_session_was_made() {
    let db = Database::new();
    let mut c = db.connect();
    c.load_catalog(&selling(&[("price_pack", 500)]));
    let before = now(&mut c, "floor");
    c.load_catalog(&selling(&[("price_pack", 600)]));
    let after = now(&mut c, "ceil");
    let old = paid_pack("cs_1", ANN).with("created", before).completed("evt_1").with("created", after);
    assert_eq!(c.apply(&old).credits, 500);
    let new = paid_pack("cs_2", BOB).with("created", after).completed("evt_2");
    assert_eq!(c.apply(&new).credits, 600);
    assert_eq!(c.ledger(ANN), ["purchase 500"]);
    assert_eq!(c.ledger(BOB), ["purchase 600"]);
}

#[test]
fn scenario_13_three_packs_for_one_user_at_once_lose_no_update() {
    let db = Database::new();
    let packs = [("price_a", 400), ("price_b", 500), ("price_c", 600)];
    db.connect().load_catalog(&selling(&packs));
    let works = packs
        .map(|(price, credits)| {
            let bought =
                session(&format!("cs_{price}")).of(ANN).with("customer", "cus_1").metadata("price_id", price);
            let delivered = bought.completed(&format!("evt_{price}"));
            move |c: &mut Connection| {
                let outcome = c.apply(&delivered);
                assert_eq!((outcome.summary().as_str(), outcome.credits), ("applied", credits));
                outcome.remaining_total
            }
        })
        .into_iter()
        .collect();
    let balances = together(&db, works);
    assert!(balances.contains(&Some(1500)), "the last one sees all three: {balances:?}");
    let mut c = db.connect();
    assert_eq!(c.balance(ANN), 1500);
    assert_eq!(c.ledger(ANN).len(), 3);
}

#[test]
fn scenario_13_another_pack_of_one_user_waits_for_the_account_and_loses_no_update() {
    let db = Database::with_catalog();
    let (first, second) = blocked(
        &db,
        |c| c.apply(&paid_pack("cs_1", ANN).completed("evt_1")).remaining_total,
        |c| c.apply(&paid_pack("cs_2", ANN).completed("evt_2")).remaining_total,
    );
    assert_eq!((first, second), (Some(500), Some(1000)));
    assert_eq!(db.connect().balance(ANN), 1000);
}

#[test]
fn scenario_13b_a_packs_own_invoice_is_one_payment_with_its_session_in_both_orders() {
    let paid = paid_pack("cs_1", ANN).with("customer", "cus_1").with("invoice", "in_1").completed("evt_1");
    let invoice = json!({
        "id": "in_1", "object": "invoice", "customer": "cus_1", "status": "paid", "paid": true, "total": 1000,
        "subscription": null, "parent": null, "metadata": {},
        "lines": {"object": "list", "data": [{
            "price": {"id": "price_pack"}, "quantity": 1, "amount": 1000, "period": {"start": CREATED, "end": CREATED},
        }]},
    });
    let invoice = event("evt_2", "invoice.paid", invoice);
    for session_first in [true, false] {
        let db = Database::with_catalog();
        let mut c = db.connect();
        let order: [&Event; 2] = if session_first { [&paid, &invoice] } else { [&invoice, &paid] };
        for event in order {
            c.apply(event);
        }
        assert_eq!(c.ledger(ANN), ["purchase 500"]);
        assert_eq!(c.inbox("evt_2").as_deref(), Some("already_applied"));
    }
}

#[test]
fn scenario_13c_a_retired_pack_still_grants_and_checkout_refuses_it() {
    let db = Database::with_catalog();
    let mut c = db.connect();
    c.run("select billing.assert_known_price('price_pack')");
    let changes = c.load_catalog(&selling(&[]));
    assert_eq!(changes["price_pack"], "retired");
    let refusal = c.refusal("select billing.assert_known_price('price_pack')");
    assert_eq!(refusal.code, "22023");
    assert!(refusal.message.contains("price_pack"), "{refusal:?}");
    let later = now(&mut c, "ceil");
    let paid = paid_pack("cs_1", ANN).with("created", later);
    assert_eq!(c.apply(&paid.completed("evt_1")).credits, 500);
    assert_eq!(c.ledger(ANN), ["purchase 500"]);
}

#[test]
fn scenario_33_livemode_and_foreign_account_are_ignored_recorded_and_judged_again() {
    let db = Database::with_catalog();
    let mut c = db.connect();
    let live = paid_pack("cs_1", ANN)
        .with("livemode", true)
        .with("customer", "cus_1")
        .completed("evt_1")
        .with("livemode", true);
    let foreign =
        paid_pack("cs_2", ANN).with("customer", "cus_2").completed("evt_2").with("account", "acct_foreign");
    for _ in 0..2 {
        assert_eq!(c.apply(&live).summary(), "ignored livemode");
        assert_eq!(c.apply(&foreign).summary(), "ignored account");
    }
    assert_eq!(c.ledger(ANN), [""; 0]);
    for table in ["accounts", "customers", "payments", "payment_names", "credit_grants"] {
        assert_eq!(c.one::<i64>(&format!("select count(*) from billing.{table}"), &[]), 0, "{table}");
    }
    assert_eq!(c.one::<i64>("select count(*) from billing.stripe_events", &[]), 2);
    let mut settings = catalog();
    settings["livemode"] = true.into();
    c.load_catalog(&settings);
    assert_eq!(c.apply(&live).summary(), "applied");
    settings["livemode"] = false.into();
    settings["stripe_account"] = "acct_foreign".into();
    c.load_catalog(&settings);
    assert_eq!(c.apply(&foreign).summary(), "applied");
    let own = paid_pack("cs_3", ANN).completed("evt_3");
    assert_eq!(c.apply(&own).summary(), "ignored account");
    assert_eq!(c.ledger(ANN), ["purchase 500", "purchase 500"]);
}

#[test]
fn scenario_33_a_live_session_stays_outside_a_test_install_by_reconcile_too() {
    let db = Database::with_catalog();
    let mut c = db.connect();
    let live = paid_pack("cs_1", ANN).with("livemode", true);
    assert_eq!(c.reconcile(&live, ANN).summary(), "ignored livemode");
    assert_eq!(c.ledger(ANN), [""; 0]);
}
