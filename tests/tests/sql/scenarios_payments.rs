//! Scenarios 46 to 50, 53, 61, 62, 78 and 79: one payment under all of its names, its lines, and what comes back of it.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use stripe_credits_tests::payments::{
    credit_note, invoice_payment, older_credit_note, pack_invoice, payment_intent_of, top_up,
};
use stripe_credits_tests::permutations::{Step, common_end, in_every_order, nothing, orders_with_repeats};
use stripe_credits_tests::plans::{CLOCK, plan_catalog};
use stripe_credits_tests::refunds::{Object, charge, dispute, refund};
use stripe_credits_tests::stripe::{CREATED, session};
use stripe_credits_tests::subscription::{self, line, months_after, subscription};
use stripe_credits_tests::{
    ANN, Connection, Database, Event, catalog, fetched_lines, nothing_fetched, paid_pack,
};

/// What Stripe lists for a payment intent: these sessions, and these invoices.
fn behind(payment_intent: &str, sessions: &[&Value], invoices: &[&str]) -> Value {
    let paid: Vec<Value> =
        invoices.iter().map(|invoice| invoice_payment(invoice, payment_intent).json().clone()).collect();
    let list =
        |url: &str, data: Value| json!({ "object": "list", "url": url, "has_more": false, "data": data });
    json!({ "as_of": CREATED + 60, "objects": [
        list("/v1/checkout/sessions", json!(sessions)), list("/v1/invoice_payments", json!(paid)),
    ] })
}

fn bought() -> Event {
    paid_pack("cs_1", ANN).with("invoice", "in_1").completed("evt_cs_1")
}

fn invoiced() -> Event {
    pack_invoice("in_1", &[("price_pack", 1)])
        .with("metadata", json!({ "user_id": ANN.to_string() }))
        .event("evt_in_1", "invoice.paid")
}

fn all_refunded() -> Event {
    refund("re_1", "pi_1", 1000).event("evt_re_1", "refund.created")
}

fn succeeded(intent: &Object) -> Event {
    intent.event("evt_pi_1", "payment_intent.succeeded")
}

#[test]
fn scenario_46_a_pack_invoice_that_a_credit_note_writes_off_grants_nothing() {
    let db = Database::with_catalog();
    let written_off = credit_note("cn_1", "in_1", 1000)
        .with("pre_payment_amount", 1000)
        .with("post_payment_amount", 0)
        .with("type", "pre_payment");
    let events = [written_off.event("evt_cn_1", "credit_note.created"), invoiced()];
    in_every_order(&db, nothing, &events, (0, 0));
    let older = older_credit_note("cn_1", "in_1", 1000, None).with("type", "pre_payment");
    in_every_order(&db, nothing, &[older.event("evt_cn_1", "credit_note.created"), invoiced()], (0, 0));
}

#[test]
fn scenario_46_a_void_credit_note_takes_nothing() {
    let db = Database::with_catalog();
    let note = credit_note("cn_1", "in_1", 1000);
    let voided = note.clone().with("status", "void").event("evt_void", "credit_note.voided");
    let events = [note.event("evt_cn_1", "credit_note.created"), voided, invoiced()];
    in_every_order(&db, nothing, &events, (500, 0));
}

#[test]
fn scenario_47_stripes_lines_are_what_the_buyer_made_of_them() {
    for (metadata, lines, credits) in [
        ("1", vec![("price_pack", 3)], 1500),
        ("3", vec![("price_pack", 1)], 500),
        ("1", vec![("price_pack", 1), ("price_extra", 1)], 1200),
    ] {
        let db = Database::new();
        let mut c = db.connect();
        let mut sold = catalog();
        let extra = json!({"key": "extra", "credits": 700, "prices": ["price_extra"]});
        sold["packs"].as_array_mut().expect("packs").push(extra);
        c.load_catalog(&sold);
        let paid = paid_pack("cs_1", ANN).metadata("quantity", metadata);
        let changed = paid.clone().changeable();
        assert_eq!(c.apply(&changed.completed("evt_1")).summary(), "needs_fetch");
        let answer = fetched_lines(&changed, &lines);
        assert_eq!(c.apply_fetched(&changed.completed("evt_1"), &answer).credits, credits);
        assert_eq!(c.balance_and_debt(ANN), (credits, 0));
        assert_eq!(
            c.apply_fetched(&changed.completed("evt_1"), &nothing_fetched()).summary(),
            "already_applied"
        );
        let fixed = paid_pack("cs_2", ANN).metadata("quantity", metadata);
        let quantity: i64 = metadata.parse().expect("a number");
        assert_eq!(c.apply(&fixed.completed("evt_2")).credits, 500 * quantity);
    }
}

#[test]
fn scenario_47_stripes_lines_replace_what_the_metadata_said_up_and_down() {
    for (metadata, lines, credits) in [("1", 3, 1500), ("3", 1, 500)] {
        let db = Database::with_catalog();
        let paid = paid_pack("cs_1", ANN).metadata("quantity", metadata).changeable();
        let answer = fetched_lines(&paid, &[("price_pack", lines)]);
        for lines_first in [true, false] {
            let mut c = db.connect();
            c.run("begin");
            let with_lines = |c: &mut Connection| c.apply_fetched(&paid.completed("evt_1"), &answer);
            let without = |c: &mut Connection| c.apply_fetched(&paid.completed("evt_2"), &nothing_fetched());
            let both = if lines_first {
                [with_lines(&mut c), without(&mut c)]
            } else {
                [without(&mut c), with_lines(&mut c)]
            };
            assert_eq!(both[0].summary(), "applied");
            assert_eq!(both[1].summary(), if lines_first { "already_applied" } else { "applied" });
            assert_eq!(c.balance_and_debt(ANN), (credits, 0));
            c.run("rollback");
        }
    }
}

#[test]
fn scenario_47_what_the_lines_take_back_after_it_was_spent_is_owed() {
    let db = Database::with_catalog();
    let mut c = db.connect();
    let paid = paid_pack("cs_1", ANN).metadata("quantity", "3").changeable();
    assert_eq!(c.deliver(&paid.completed("evt_1")).credits, 1500);
    c.call("spend_credits($1, 1200, 'r1')", &[&ANN]);
    let answer = fetched_lines(&paid, &[("price_pack", 1)]);
    assert_eq!(c.apply_fetched(&paid.completed("evt_2"), &answer).summary(), "applied");
    assert_eq!(c.ledger(ANN), ["purchase 1500", "spend -1200", "reversal -300", "reversal -700"]);
    assert_eq!(c.balance_and_debt(ANN), (0, 700));
    assert_eq!(c.apply(&all_refunded()).summary(), "applied");
    assert_eq!(c.balance_and_debt(ANN), (0, 1200), "all that was spent");
    db.check_books();
}

#[test]
fn scenario_48_an_off_session_top_up_grants_once_and_is_refunded() {
    let db = Database::with_catalog();
    let mut c = db.connect();
    let top_up = succeeded(&top_up("pi_1", ANN));
    let asked = c.apply(&top_up);
    assert_eq!(
        asked.to_fetch,
        Some(vec![
            "/v1/checkout/sessions?payment_intent=pi_1&limit=100".into(),
            "/v1/invoice_payments?payment[type]=payment_intent&payment[payment_intent]=pi_1&limit=100".into(),
        ])
    );
    assert_eq!(c.apply_fetched(&top_up, &behind("pi_1", &[], &[])).summary(), "applied");
    assert_eq!(c.apply(&top_up).summary(), "already_applied");
    assert_eq!(c.ledger(ANN), ["purchase 500"]);
    assert_eq!(
        c.one::<String>("select source_type || ' ' || amount_total from billing.payments", &[]),
        "payment_intent 1000"
    );
    let by_its_charge = refund("re_1", "pi_1", 500).with("payment_intent", Value::Null);
    assert_eq!(c.apply(&by_its_charge.event("evt_re_1", "refund.created")).summary(), "applied");
    assert_eq!(c.balance_and_debt(ANN), (250, 0));
    assert_eq!(
        c.apply(&refund("re_2", "pi_1", 500).event("evt_re_2", "refund.created")).summary(),
        "applied"
    );
    assert_eq!(c.ledger(ANN), ["purchase 500", "reversal -250", "reversal -250"]);
    db.check_books();
}

#[test]
fn scenario_48_an_intent_that_a_session_names_too_counts_once_in_every_order() {
    let db = Database::with_catalog();
    let without_a_key = |c: &mut Connection, event: &Event| {
        let outcome = c.deliver(event);
        assert_ne!(outcome.outcome, "rejected", "{outcome:?}");
    };
    let events = [succeeded(&top_up("pi_1", ANN)), bought(), all_refunded()];
    for refunded in [false, true] {
        let events = &events[..if refunded { 3 } else { 2 }];
        for order in orders_with_repeats(events.len()) {
            let mut c = db.connect();
            c.run("begin");
            for step in &order {
                without_a_key(&mut c, &events[*step]);
            }
            assert_eq!(c.balance_and_debt(ANN), (if refunded { 0 } else { 500 }, 0), "{order:?}");
            c.run("rollback");
        }
    }
}

#[test]
fn scenario_48_an_intent_behind_a_session_or_an_invoice_grants_nothing_with_a_key() {
    let db = Database::with_catalog();
    let session = paid_pack("cs_1", ANN);
    for answer in [behind("pi_1", &[session.json()], &[]), behind("pi_1", &[], &["in_9"])] {
        let mut c = db.connect();
        c.run("begin");
        let intent = succeeded(&top_up("pi_1", ANN));
        assert_eq!(c.apply_fetched(&intent, &answer).summary(), "applied", "what is behind it was not known");
        assert_eq!(c.ledger(ANN), [""; 0]);
        assert_eq!(c.apply(&session.completed("evt_cs_1")).credits, 500);
        assert_eq!(c.apply(&intent).summary(), "already_applied");
        assert_eq!(c.balance_and_debt(ANN), (500, 0));
        c.run("rollback");
    }
}

#[test]
fn scenario_48_an_intent_that_names_nothing_or_has_not_succeeded_grants_nothing() {
    let db = Database::with_catalog();
    let mut c = db.connect();
    assert_eq!(c.apply(&succeeded(&payment_intent_of("pi_1"))).summary(), "ignored nothing_named");
    let waiting = top_up("pi_2", ANN).with("status", "requires_capture");
    assert_eq!(c.apply(&succeeded(&waiting)).summary(), "ignored unpaid");
    let unknown =
        top_up("pi_3", ANN).with("metadata", json!({ "user_id": ANN.to_string(), "price_id": "price_new" }));
    assert_eq!(
        c.deliver(&unknown.event("evt_pi_3", "payment_intent.succeeded")).summary(),
        "parked unknown_price"
    );
    assert_eq!(c.ledger(ANN), [""; 0]);
}

#[test]
fn an_intent_whose_quantity_nobody_can_read_is_kept_and_seen() {
    let db = Database::with_catalog();
    let mut c = db.connect();
    for (n, quantity) in ["1.5", "0", "-1", " 2 ", "99999999999999999999"].into_iter().enumerate() {
        let paid = top_up(&format!("pi_{n}"), ANN).with(
            "metadata",
            json!({ "user_id": ANN.to_string(), "price_id": "price_pack", "quantity": quantity }),
        );
        let event = paid.event(&format!("evt_{n}"), "payment_intent.succeeded");
        assert_eq!(c.deliver(&event).summary(), "parked shape", "{quantity}");
    }
    let shirt = top_up("pi_shirt", ANN).with(
        "metadata",
        json!({ "user_id": ANN.to_string(), "price_id": "price_tshirt", "quantity": "1.5" }),
    );
    let shirt = shirt.event("evt_shirt", "payment_intent.succeeded");
    assert_eq!(c.deliver(&shirt).summary(), "ignored not_credits", "read only if it is credits");
    assert_eq!(c.ledger(ANN), [""; 0]);
}

#[test]
fn an_unpaid_session_is_paid_when_its_payment_intent_succeeds_in_both_orders() {
    let db = Database::with_catalog();
    let unpaid = paid_pack("cs_1", ANN).with("payment_status", "unpaid").completed("evt_cs_1");
    let captured = succeeded(&payment_intent_of("pi_1"));
    in_every_order(&db, nothing, &[unpaid.clone(), captured.clone()], (500, 0));
    let mut c = db.connect();
    assert_eq!(c.apply(&unpaid).summary(), "ignored unpaid");
    let outcome = c.apply(&captured);
    assert_eq!((outcome.summary().as_str(), outcome.credits), ("applied", 500));
    assert_eq!(c.inbox("evt_cs_1").as_deref(), Some("applied"));
    assert_eq!(c.ledger(ANN), ["purchase 500"]);
}

#[test]
fn scenario_49_an_invoice_without_a_subscription_grants_its_packs() {
    let db = Database::with_catalog();
    let mut c = db.connect();
    let with_shirt = pack_invoice("in_1", &[("price_pack", 2), ("price_tshirt", 1), ("price_once", 4)])
        .with("metadata", json!({ "user_id": ANN.to_string() }));
    let outcome = c.apply(&with_shirt.event("evt_1", "invoice.paid"));
    assert_eq!((outcome.summary().as_str(), outcome.credits), ("applied", 1000));
    assert_eq!(c.apply(&with_shirt.event("evt_2", "invoice.payment_succeeded")).summary(), "already_applied");
    assert_eq!(c.ledger(ANN), ["purchase 1000"]);
    assert_eq!(c.one::<String>("select pool from billing.credit_grants", &[]), "purchased");
    let shirt = pack_invoice("in_2", &[("price_tshirt", 1)]);
    assert_eq!(c.apply(&shirt.event("evt_3", "invoice.paid")).summary(), "ignored no_subscription");
    let open = pack_invoice("in_3", &[("price_pack", 1)]).with("status", "open");
    assert_eq!(c.apply(&open.event("evt_4", "invoice.payment_failed")).summary(), "ignored unpaid");
    let unowned = pack_invoice("in_4", &[("price_pack", 1)]).with("customer", "cus_9");
    assert_eq!(c.apply(&unowned.event("evt_5", "invoice.paid")).summary(), "parked unknown_user");
    assert_eq!(c.attribute("cus_9", ANN).credits, 500);
    db.check_books();
}

#[test]
fn scenario_49_a_sessions_own_invoice_is_one_payment_with_it_in_every_order() {
    let db = Database::with_catalog();
    // Which of the two is the payment's key depends on which comes first; what it grants does not.
    for (refunds, expected) in [(vec![], (500, 0)), (vec![all_refunded()], (0, 0))] {
        let events: Vec<Event> = [bought(), invoiced()].into_iter().chain(refunds).collect();
        let apply = |event| -> Step { Box::new(move |c| assert_ne!(c.apply(event).outcome, "rejected")) };
        let steps: Vec<Step> = events.iter().map(apply).collect();
        let orders = orders_with_repeats(steps.len());
        let read = |c: &mut Connection| c.balance_and_debt(ANN);
        assert_eq!(common_end(&db, nothing, &steps, &orders, read), expected);
    }
}

#[test]
fn scenario_49_a_session_and_an_invoice_that_only_their_payment_joins_count_once() {
    let db = Database::with_catalog();
    let session = paid_pack("cs_1", ANN).completed("evt_cs_1");
    let joins = invoice_payment("in_1", "pi_1").event("evt_joins", "invoice_payment.paid");
    let mut c = db.connect();
    for order in [[0, 1, 2], [1, 0, 2], [2, 0, 1], [0, 2, 1], [1, 2, 0], [2, 1, 0]] {
        c.run("begin");
        for step in order {
            c.apply([&session, &invoiced(), &joins][step]);
        }
        assert_eq!(c.balance_and_debt(ANN), (500, 0), "{order:?}");
        assert_eq!(c.apply(&all_refunded()).summary(), "applied");
        assert_eq!(c.balance_and_debt(ANN), (0, 0), "{order:?}");
        c.run("rollback");
    }
}

#[test]
fn scenario_50_an_inline_price_is_worth_the_metadatas_pack_by_both_doors() {
    let paid =
        paid_pack("cs_1", ANN).metadata("price_id", Value::Null).metadata("pack", "pack_500").changeable();
    let inline = fetched_lines(&paid, &[("price_inline", 1)]);
    let reconciled = paid.clone().lines(&[("price_inline", 1)]);
    for webhook_first in [true, false] {
        for with_key in [true, false] {
            let db = Database::with_catalog();
            let mut c = db.connect();
            let answer = if with_key { inline.clone() } else { nothing_fetched() };
            let webhook = |c: &mut Connection| c.apply_fetched(&paid.completed("evt_1"), &answer).summary();
            let reconcile = |c: &mut Connection| c.reconcile(&reconciled, ANN).summary();
            let outcomes = if webhook_first {
                [webhook(&mut c), reconcile(&mut c)]
            } else {
                [reconcile(&mut c), webhook(&mut c)]
            };
            assert_eq!(outcomes, ["applied", "already_applied"]);
            assert_eq!(c.ledger(ANN), ["purchase 500"]);
        }
    }
}

/// A charge of the payment, of which everything was refunded, told by its own event.
fn charge_refunded(charge_id: &str, cents: i64) -> Event {
    charge("pi_1", cents, cents).with("id", charge_id).event(&format!("evt_{charge_id}"), "charge.refunded")
}

#[test]
fn scenario_53_two_charges_of_one_payment_are_summed() {
    let db = Database::with_catalog();
    let events = [bought(), charge_refunded("ch_1", 600), charge_refunded("ch_2", 400)];
    in_every_order(&db, nothing, &events, (0, 0));
    in_every_order(&db, nothing, &events[..2], (200, 0));
    let first_by_its_refund = refund("re_1", "pi_1", 600).event("evt_re_1", "refund.created");
    in_every_order(&db, nothing, &[bought(), first_by_its_refund, charge_refunded("ch_2", 400)], (0, 0));
}

#[test]
fn scenario_53_a_refund_that_names_only_its_charge_finds_its_payment_in_every_order() {
    let db = Database::with_catalog();
    let by_charge = refund("re_1", "pi_1", 1000).with("payment_intent", Value::Null);
    let by_charge = by_charge.event("evt_re_1", "refund.created");
    let names_both = succeeded(&payment_intent_of("pi_1"));
    in_every_order(&db, nothing, &[bought(), by_charge.clone(), names_both], (0, 0));
    let mut c = db.connect();
    let asked = c.apply(&by_charge);
    assert_eq!(asked.to_fetch, Some(vec!["/v1/charges/ch_1".into()]));
    c.apply(&bought());
    let answer = json!({ "as_of": CREATED + 60, "objects": [charge("pi_1", 1000, 1000).json()] });
    assert_eq!(c.apply_fetched(&by_charge, &answer).summary(), "applied");
    assert_eq!(c.balance_and_debt(ANN), (0, 0));
    db.check_books();
}

#[test]
fn an_invoice_payment_of_a_charge_names_the_charge_for_the_invoice_in_every_order() {
    let db = Database::with_catalog();
    let invoice = pack_invoice("in_1", &[("price_pack", 1)]).with("metadata", json!({ "user_id": ANN }));
    let paid_by =
        invoice_payment("in_1", "pi_none").with("payment", json!({ "type": "charge", "charge": "ch_1" }));
    let by_charge = refund("re_1", "pi_1", 1000).with("payment_intent", Value::Null);
    let events = [
        invoice.event("evt_in_1", "invoice.paid"),
        paid_by.event("evt_inpay", "invoice_payment.paid"),
        by_charge.event("evt_re_1", "refund.created"),
    ];
    in_every_order(&db, nothing, &events, (0, 0));
    in_every_order(&db, nothing, &events[..2], (500, 0));
}

#[test]
fn a_refund_after_one_that_failed_counts_whole() {
    let db = Database::with_catalog();
    let counted = |event_id: &str, at: i64| {
        charge("pi_1", 1000, 1000).event(event_id, "charge.refunded").with("created", at)
    };
    let failed = refund("re_1", "pi_1", 1000).with("status", "failed");
    let failed = failed.event("evt_failed", "refund.failed").with("created", CREATED + 20);
    in_every_order(&db, nothing, &[bought(), counted("evt_1", CREATED + 10), failed.clone()], (500, 0));
    let again = counted("evt_2", CREATED + 30);
    in_every_order(&db, nothing, &[bought(), counted("evt_1", CREATED + 10), failed, again], (0, 0));
}

/// A dispute's event at a time.
fn disputed(event_type: &str, status: &str, at: i64) -> Event {
    dispute("dp_1", "pi_1", 1000, status)
        .event(&format!("evt_{event_type}_{at}"), &format!("charge.dispute.{event_type}"))
        .with("created", CREATED + at)
}

#[test]
fn the_later_word_of_a_disputes_money_stands_in_every_order() {
    let db = Database::with_catalog();
    let withdrawn = disputed("funds_withdrawn", "needs_response", 1);
    let reinstated = disputed("funds_reinstated", "won", 2);
    in_every_order(&db, nothing, &[bought(), withdrawn.clone(), reinstated.clone()], (500, 0));
    let again = disputed("funds_withdrawn", "lost", 3);
    in_every_order(&db, nothing, &[bought(), withdrawn, reinstated, again], (0, 0));
}

#[test]
fn a_disputes_status_counts_only_while_no_movement_of_money_is_known() {
    let db = Database::with_catalog();
    in_every_order(&db, nothing, &[bought(), disputed("created", "needs_response", 1)], (0, 0));
    for untouched in ["warning_needs_response", "warning_under_review", "warning_closed", "prevented"] {
        in_every_order(&db, nothing, &[bought(), disputed("updated", untouched, 1)], (500, 0));
    }
    let won = disputed("closed", "won", 2);
    in_every_order(&db, nothing, &[bought(), disputed("created", "needs_response", 1), won], (500, 0));
    let moved = dispute("dp_1", "pi_1", 1000, "under_review").with(
        "balance_transactions",
        json!([{ "amount": -1000, "created": CREATED + 1 }, { "amount": 1000, "created": CREATED + 5 }]),
    );
    in_every_order(&db, nothing, &[bought(), moved.event("evt_dp", "charge.dispute.updated")], (500, 0));
}

#[test]
fn a_dispute_takes_at_most_what_refunds_left_of_its_charge() {
    let db = Database::with_catalog();
    let half = charge("pi_1", 600, 300).event("evt_half", "charge.refunded");
    let of_the_whole_charge =
        dispute("dp_1", "pi_1", 600, "needs_response").event("evt_dp", "charge.dispute.created");
    in_every_order(&db, nothing, &[bought(), half, of_the_whole_charge], (200, 0));
}

#[test]
fn scenario_61_a_request_id_that_is_a_payments_id_counts_beside_it_in_both_orders() {
    let db = Database::with_catalog();
    for grant_first in [true, false] {
        let mut c = db.connect();
        c.run("begin");
        let grant = |c: &mut Connection| {
            for id in ["cs_1", "in_2", "pi_1"] {
                assert_eq!(c.grant(ANN, 40, id).summary(), "applied");
            }
        };
        if grant_first {
            grant(&mut c);
        }
        assert_eq!(c.apply(&bought()).credits, 500);
        let invoice = pack_invoice("in_2", &[("price_pack", 1)])
            .with("metadata", json!({ "user_id": ANN.to_string() }));
        assert_eq!(c.apply(&invoice.event("evt_in_2", "invoice.paid")).credits, 500);
        if !grant_first {
            grant(&mut c);
        }
        assert_eq!(c.apply(&all_refunded()).credits, -500);
        assert_eq!(c.balance_and_debt(ANN), (620, 0));
        c.run("rollback");
    }
}

#[test]
fn scenario_62_a_pack_that_was_listed_as_a_plan_when_it_was_sold_heals() {
    let db = Database::new();
    let mut c = db.connect();
    let mut wrong = catalog();
    wrong["packs"] = json!([]);
    wrong["plans"] = json!([{ "key": "pack_500", "name": "500", "credits": 500, "prices": ["price_pack"] }]);
    c.load_catalog(&wrong);
    let sold_at: i64 = c.one("select ceil(extract(epoch from clock_timestamp()))::bigint", &[]);
    let sold = paid_pack("cs_1", ANN).with("created", sold_at);
    assert_eq!(c.apply(&sold.completed("evt_1")).summary(), "parked unknown_price");
    c.load_catalog(&catalog());
    assert_eq!(c.inbox("evt_1").as_deref(), Some("applied"));
    assert_eq!(c.ledger(ANN), ["purchase 500"]);
}

#[test]
fn scenario_62_a_plan_that_was_listed_as_a_pack_when_it_was_billed_heals() {
    let db = Database::new();
    let mut c = db.connect();
    let mut wrong = plan_catalog();
    wrong["plans"] = json!([]);
    wrong["packs"] = json!([{ "key": "pro", "name": "Pro", "credits": 10_000, "prices": ["price_pro"] }]);
    c.load_catalog(&wrong);
    // After the correction: a row counts from when it was loaded.
    let now: i64 = c.one("select ceil(extract(epoch from clock_timestamp()))::bigint + 3600", &[]);
    let span = (now, months_after(now, 1));
    let billed =
        subscription::invoice("in_1", "sub_1").of(ANN).line(line("price_pro", 10_000, span).item("si_1"));
    let state = subscription("sub_1", "price_pro").of(ANN).items(&[("price_pro", 1)]).during(span);
    c.apply(&state.updated("evt_state", now));
    c.apply(&billed.paid_at(now).paid("evt_in_1"));
    let right: BTreeMap<String, String> = c.load_catalog(&plan_catalog());
    assert_eq!(right.get("price_pro").map(String::as_str), Some("changed"), "{right:?}");
    assert_eq!(c.agreed_balance_and_debt(ANN), (10_000, 0));
    // A subscription to a pack alone names no tier, and is kept: it may turn out to be a plan's.
    assert_eq!(c.tier(ANN), "pro active");
    c.apply(&state.updated("evt_next", now + 1));
    assert_eq!(c.tier(ANN), "pro active");
    let pools: Vec<String> =
        c.column("select distinct pool from billing.credit_grants where remaining > 0", &[]);
    assert_eq!(pools, ["subscription"]);
}

#[test]
fn a_subscription_whose_plan_is_known_by_its_product_shows_its_own_price() {
    let db = Database::new();
    let mut c = db.connect();
    let mut by_product = plan_catalog();
    by_product["plans"] =
        json!([{ "key": "pro", "name": "Pro", "credits": 10_000, "prices": [{ "product": "prod_pro" }] }]);
    c.load_catalog(&by_product);
    let price = "price_made_for_it";
    let state = subscription("sub_1", price).of(ANN).items(&[(price, 1)]).during(subscription::period(0));
    let mut created = state.created("evt_1").json().clone();
    created["data"]["object"]["items"]["data"][0]["price"]["product"] = "prod_pro".into();
    assert_eq!(c.apply_json(&created).summary(), "applied");
    let shown = |c: &mut Connection| -> String {
        c.one(
            "select concat_ws(' ', subscription_tier, stripe_price_id, monthly_credits_per_cycle)
             from billing.user_credits where user_id = $1",
            &[&ANN],
        )
    };
    assert_eq!(shown(&mut c), "pro price_made_for_it 10000");
    by_product["plans"][0]["credits"] = 20_000.into();
    c.load_catalog(&by_product);
    assert_eq!(shown(&mut c), "pro price_made_for_it 20000");
}

#[test]
fn a_sessions_line_whose_price_is_known_by_its_product_is_worth_the_products() {
    let db = Database::new();
    let mut c = db.connect();
    let mut by_product = catalog();
    by_product["packs"] = json!([
        { "key": "pack_500", "name": "500", "credits": 500, "prices": [{ "product": "prod_pack" }] }]);
    c.load_catalog(&by_product);
    let sold = session("cs_1").of(ANN).lines(&[("price_made_for_it", 2)]);
    let mut lines = sold.json()["line_items"].clone();
    lines["data"][0]["price"]["product"] = "prod_pack".into();
    let sold = sold.with("line_items", lines);
    assert_eq!(c.apply(&sold.completed("evt_1")).summary(), "applied");
    assert_eq!(c.apply(&sold.completed("evt_again")).summary(), "already_applied");
    assert_eq!(c.ledger(ANN), ["purchase 1000"]);
    // Also where they had to be fetched, and where the product is the whole object.
    let sold = session("cs_2").of(ANN).without("metadata").with("metadata", json!({ "user_id": ANN }));
    let mut fetched = fetched_lines(&sold, &[("price_other", 1)]);
    fetched["objects"][0]["data"][0]["price"]["product"] = json!({ "id": "prod_pack", "object": "product" });
    assert_eq!(c.apply_fetched(&sold.completed("evt_2"), &fetched).summary(), "applied");
    assert_eq!(c.balance_and_debt(ANN), (1_500, 0));
    db.check_books();
}

#[test]
fn scenario_69_a_customers_test_clock_is_read_from_the_customer() {
    let db = Database::with_catalog();
    let mut c = db.connect();
    c.stand_at(CREATED + 60);
    let customer = |event_type: &str, clock: Value| {
        let object = json!({ "id": "cus_1", "object": "customer", "metadata": { "user_id": ANN }, "test_clock": clock });
        Object::new(object).event(&format!("evt_{event_type}"), event_type)
    };
    assert_eq!(c.apply(&customer("customer.created", CLOCK.into())).summary(), "applied");
    assert_eq!(c.apply(&customer("customer.updated", CLOCK.into())).summary(), "already_applied");
    c.call(
        "grant_credits($1, 70, 'gift', null, to_timestamp($2))",
        &[&ANN, &f64::from(i32::try_from(CREATED + 3600).expect("a time"))],
    );
    assert_eq!(c.agreed_balance_and_debt(ANN), (70, 0));
    c.stand_at(CREATED + 3600);
    assert_eq!(c.agreed_balance_and_debt(ANN), (0, 0));
}

#[test]
fn scenario_78_an_older_credit_note_and_its_refund_count_once() {
    let db = Database::with_catalog();
    let joins = invoice_payment("in_1", "pi_1").event("evt_joins", "invoice_payment.paid");
    let half = refund("re_1", "pi_1", 500).event("evt_re_1", "refund.created");
    let refunded =
        older_credit_note("cn_1", "in_1", 500, Some("re_1")).event("evt_cn_1", "credit_note.created");
    in_every_order(&db, nothing, &[invoiced(), joins, half, refunded.clone()], (250, 0));
    in_every_order(&db, nothing, &[invoiced(), refunded], (250, 0));
    let to_balance = older_credit_note("cn_1", "in_1", 500, None).event("evt_cn_1", "credit_note.created");
    in_every_order(&db, nothing, &[invoiced(), to_balance], (250, 0));
}

#[test]
fn scenario_78_a_newer_credit_note_counts_what_its_refunds_do_not() {
    let db = Database::with_catalog();
    let joins = invoice_payment("in_1", "pi_1").event("evt_joins", "invoice_payment.paid");
    let refunds = json!([{ "amount_refunded": 300, "refund": "re_1" }]);
    let note =
        credit_note("cn_1", "in_1", 500).with("refunds", refunds).event("evt_cn_1", "credit_note.created");
    let refunded = refund("re_1", "pi_1", 300).event("evt_re_1", "refund.created");
    in_every_order(&db, nothing, &[invoiced(), joins, note, refunded], (250, 0));
}

#[test]
fn scenario_79_what_came_from_the_customers_balance_is_part_of_what_was_charged() {
    let db = Database::with_catalog();
    let by_balance = pack_invoice("in_1", &[("price_pack", 1)])
        .with("metadata", json!({ "user_id": ANN.to_string() }))
        .with("starting_balance", -600)
        .with("amount_due", 400)
        .event("evt_in_1", "invoice.paid");
    let joins = invoice_payment("in_1", "pi_1").event("evt_joins", "invoice_payment.paid");
    let half = charge("pi_1", 400, 400).event("evt_charge", "charge.refunded");
    let rest = credit_note("cn_1", "in_1", 100).event("evt_cn_1", "credit_note.created");
    in_every_order(&db, nothing, &[by_balance, joins, half, rest], (250, 0));
}

#[test]
fn a_reversals_policy_stays_what_it_was_when_it_was_first_posted() {
    let db = Database::with_catalog();
    let mut c = db.connect();
    c.apply(&bought());
    c.call("spend_credits($1, 500, 'r1')", &[&ANN]);
    let half = |id: &str| refund(id, "pi_1", 500).event(&format!("evt_{id}"), "refund.created");
    c.apply(&half("re_1"));
    assert_eq!(c.balance_and_debt(ANN), (0, 250));
    let mut forgiving = catalog();
    forgiving["reversal_policy"] = "forgive".into();
    c.load_catalog(&forgiving);
    c.apply(&half("re_2"));
    assert_eq!(c.balance_and_debt(ANN), (0, 500));
    assert_eq!(c.one::<String>("select reversal_policy from billing.payments", &[]), "debt");
    db.check_books();
}
