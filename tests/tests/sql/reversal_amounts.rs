//! What part of a payment is reversed: sessions of several items, currencies, charges that are not known yet, events with little or
//! malformed content.

use serde_json::{Value, json};
use stripe_credits_tests::permutations::{in_every_order, nothing, orders};
use stripe_credits_tests::refunds::{bought, charge, dispute, failed, refund, refunded};
use stripe_credits_tests::{ANN, Database, catalog_of_packs, fetched_lines, paid_pack, session};

// Amounts and currencies.

#[test]
fn a_partial_refund_of_several_items_leaves_of_each_its_part_rounded_down() {
    let db = Database::new();
    let mut c = db.connect();
    c.load_catalog(&catalog_of_packs(&json!([
        {"key": "a", "credits": 7, "prices": ["price_a"]},
        {"key": "b", "credits": 11, "prices": ["price_b"]},
        {"key": "c", "credits": 13, "prices": ["price_c"]},
    ])));
    let bare = session("cs_1").of(ANN).with("amount_total", 999);
    let lines = fetched_lines(&bare, &[("price_a", 1), ("price_b", 1), ("price_c", 1)]);
    assert_eq!(c.apply_fetched(&bare.completed("evt_1"), &lines).credits, 31);
    // What is left of each grant is rounded down (rule 7), so that no grant holds more than was paid for.
    for (n, upto) in [32, 33, 64, 65, 500, 998, 999].into_iter().enumerate() {
        c.apply(&charge("pi_1", 999, upto).event(&format!("evt_c{n}"), "charge.refunded"));
        let left: i64 = [7, 11, 13].into_iter().map(|credits| credits * (999 - upto) / 999).sum();
        assert_eq!(c.balance(ANN), left, "{upto} of 999");
    }
    assert_eq!(c.balance_and_debt(ANN), (0, 0));
}

#[test]
fn two_packs_in_one_session_are_reversed_as_one_payment() {
    let db = Database::new();
    let mut c = db.connect();
    c.load_catalog(&catalog_of_packs(&json!([
        {"key": "small", "credits": 100, "prices": ["price_small"]},
        {"key": "big", "credits": 900, "prices": ["price_big"]},
    ])));
    let both = session("cs_1").of(ANN).lines(&[("price_small", 1), ("price_big", 1)]);
    assert_eq!(c.reconcile(&both, ANN).credits, 1000);
    c.spend(ANN, 50, "job-1");
    assert_eq!(c.apply(&refunded("re_1", "pi_1", 950)).credits, -950);
    assert_eq!(c.balance_and_debt(ANN), (0, 0), "50 were spent, 950 taken from both");
    assert_eq!(c.apply(&refunded("re_2", "pi_1", 50)).debt, Some(50));
    assert_eq!(c.apply(&failed("re_1", "pi_1", 950)).credits, 950);
    assert_eq!(c.balance_and_debt(ANN), (900, 0));
}

#[test]
fn a_currency_without_minor_units_is_whole_numbers_like_every_other() {
    let db = Database::with_catalog();
    let mut c = db.connect();
    let yen = paid_pack("cs_1", ANN).with("currency", "jpy").with("amount_total", 1500);
    c.apply(&yen.completed("evt_1"));
    let part = refund("re_1", "pi_1", 500).with("currency", "jpy");
    assert_eq!(c.apply(&part.event("evt_2", "refund.created")).credits, -167);
    let rest = refund("re_2", "pi_1", 1000).with("currency", "jpy");
    assert_eq!(c.apply(&rest.event("evt_3", "refund.created")).credits, -333);
    assert_eq!(c.balance_and_debt(ANN), (0, 0));
}

#[test]
fn a_refund_in_another_currency_than_the_sessions_waits_for_what_was_charged_in_it() {
    let db = Database::with_catalog();
    let mut c = db.connect();
    c.buy(ANN, "cs_1");
    let part = refund("re_1", "pi_1", 230).with("currency", "eur").event("evt_1", "refund.created");
    assert_eq!(c.apply(&part).summary(), "parked unknown_charge");
    assert_eq!(c.balance_and_debt(ANN), (500, 0));
    let count = charge("pi_1", 920, 230).with("currency", "eur").event("evt_2", "charge.refunded");
    assert_eq!(c.apply(&count).credits, -125, "a quarter of what was charged");
    assert_eq!(c.apply(&part).summary(), "already_applied");
    assert_eq!(c.inbox("evt_1").as_deref(), Some("already_applied"));
    in_every_order(
        &Database::with_catalog(),
        |c| c.buy(ANN, "cs_1"),
        &[part.clone(), count.clone()],
        (375, 0),
    );
    in_every_order(&Database::with_catalog(), nothing, &[bought("cs_1", ANN), part, count], (375, 0));
}

#[test]
fn a_refund_and_a_dispute_in_another_currency_in_every_order() {
    let db = Database::with_catalog();
    let events = [
        refund("re_1", "pi_1", 100).with("currency", "eur").event("evt_1", "refund.created"),
        dispute("dp_1", "pi_1", 200, "needs_response")
            .with("currency", "eur")
            .event("evt_2", "charge.dispute.created"),
        charge("pi_1", 1000, 100).with("currency", "eur").event("evt_3", "charge.refunded"),
    ];
    in_every_order(&db, |c| c.buy(ANN, "cs_1"), &events, (350, 0));
}

#[test]
fn a_refund_and_a_dispute_in_another_currency_before_their_charge_in_both_orders() {
    let db = Database::with_catalog();
    let events = [
        refund("re_1", "pi_1", 100).with("currency", "eur").event("evt_1", "refund.created"),
        dispute("dp_1", "pi_1", 200, "needs_response")
            .with("currency", "eur")
            .event("evt_2", "charge.dispute.created"),
    ];
    let mut c = db.connect();
    let ends: Vec<(i64, i64)> = orders(2)
        .into_iter()
        .map(|order| {
            c.run("begin");
            c.buy(ANN, "cs_1");
            for event in order {
                c.apply(&events[event]);
            }
            let end = c.balance_and_debt(ANN);
            c.run("rollback");
            end
        })
        .collect();
    assert_eq!(ends[0], ends[1]);
}

#[test]
fn the_refund_of_a_direct_purchase_without_an_amount_waits_for_its_charge() {
    let db = Database::with_catalog();
    let mut c = db.connect();
    c.call("apply_stripe_credit_pack_purchase($1, 500, 'evt', 'cs_1', 'pi_1')", &[&ANN]);
    let part = refunded("re_1", "pi_1", 400);
    assert_eq!(c.apply(&part).summary(), "parked unknown_charge");
    assert_eq!(c.inbox("evt_re_1").as_deref(), Some("parked unknown_charge"));
    let count = charge("pi_1", 1000, 400).event("evt_c", "charge.refunded");
    assert_eq!(c.apply(&count).credits, -200);
    assert_eq!(c.balance_and_debt(ANN), (300, 0));
    c.run("select from billing.retry_parked()");
    assert_eq!(c.inbox("evt_re_1").as_deref(), Some("already_applied"));
    assert_eq!(c.ledger(ANN), ["purchase 500", "reversal -200"]);
}

#[test]
fn a_direct_purchase_without_an_amount_learns_it_from_its_session() {
    let db = Database::with_catalog();
    let mut c = db.connect();
    c.call("apply_stripe_credit_pack_purchase($1, 500, 'evt', 'cs_1', 'pi_1')", &[&ANN]);
    c.apply(&refunded("re_1", "pi_1", 400));
    let webhook = c.apply(&bought("cs_1", ANN));
    assert_eq!((webhook.summary().as_str(), webhook.credits), ("applied", -200));
    assert_eq!(c.balance_and_debt(ANN), (300, 0));
}

#[test]
fn a_direct_purchase_that_named_no_payment_intent_is_found_once_its_session_does() {
    let db = Database::with_catalog();
    let mut c = db.connect();
    c.purchase(ANN, 500, "evt", "cs_1");
    assert_eq!(c.deliver(&refunded("re_1", "pi_1", 400)).summary(), "ignored unknown_payment");
    assert_eq!(c.apply(&bought("cs_1", ANN)).credits, -200);
}

#[test]
fn a_session_that_cost_nothing_has_nothing_to_refund() {
    let db = Database::with_catalog();
    let mut c = db.connect();
    let free = paid_pack("cs_1", ANN)
        .with("payment_status", "no_payment_required")
        .with("amount_total", 0)
        .with("payment_intent", Value::Null);
    assert_eq!(c.apply(&free.completed("evt_1")).credits, 500);
    assert_eq!(c.deliver(&refunded("re_1", "pi_1", 1000)).summary(), "ignored unknown_payment");
    assert_eq!(c.balance_and_debt(ANN), (500, 0));
}

#[test]
fn a_refund_of_a_tshirts_payment_is_ignored_and_kept() {
    let db = Database::with_catalog();
    let mut c = db.connect();
    c.buy(ANN, "cs_1");
    let tshirt = session("cs_2").of(ANN).lines(&[("price_tshirt", 1)]);
    assert_eq!(c.apply(&tshirt.completed("evt_2")).summary(), "ignored not_credits");
    let outcome = c.deliver(&refunded("re_1", "pi_2", 1000));
    assert_eq!((outcome.summary().as_str(), outcome.credits), ("ignored unknown_payment", 0));
    assert_eq!(c.inbox("evt_re_1").as_deref(), Some("ignored unknown_payment"));
    let kept: Vec<String> =
        c.column("select concat_ws(' ', reversal_id, kind, state, amount) from billing.reversals", &[]);
    assert_eq!(kept, ["re_1 refund live 1000"]);
    assert_eq!(c.balance_and_debt(ANN), (500, 0));
}

#[test]
fn reversals_that_name_no_payment_intent_are_kept_and_take_nothing() {
    let db = Database::with_catalog();
    let mut c = db.connect();
    c.buy(ANN, "cs_1");
    let events = [
        refund("re_1", "pi_1", 1000).with("payment_intent", Value::Null).event("evt_1", "refund.created"),
        charge("pi_1", 1000, 1000).with("payment_intent", Value::Null).event("evt_2", "charge.refunded"),
        dispute("dp_1", "pi_1", 1000, "lost")
            .with("payment_intent", Value::Null)
            .event("evt_3", "charge.dispute.closed"),
    ];
    for event in &events {
        assert_eq!(c.deliver(event).summary(), "ignored unknown_payment");
    }
    assert_eq!(c.balance_and_debt(ANN), (500, 0));
    assert_eq!(c.one::<i64>("select count(*) from billing.reversals", &[]), 3);
    assert_eq!(c.apply(&refunded("re_1", "pi_1", 1000)).credits, -500, "the refund again, with its name");
}

#[test]
fn an_expanded_payment_intent_is_the_same_payment_intent() {
    let db = Database::with_catalog();
    let mut c = db.connect();
    c.buy(ANN, "cs_1");
    let expanded = refund("re_1", "pi_1", 1000)
        .with("payment_intent", json!({"id": "pi_1", "object": "payment_intent"}));
    assert_eq!(c.apply(&expanded.event("evt_1", "refund.created")).credits, -500);
}

#[test]
fn a_reversal_of_the_other_mode_or_account_takes_nothing() {
    let db = Database::with_catalog();
    let mut c = db.connect();
    c.buy(ANN, "cs_1");
    assert_eq!(c.apply(&refunded("re_1", "pi_1", 1000).with("livemode", true)).summary(), "ignored livemode");
    let foreign = refunded("re_2", "pi_1", 1000).with("account", "acct_2");
    assert_eq!(c.apply(&foreign).summary(), "ignored account");
    assert_eq!(c.balance_and_debt(ANN), (500, 0));
    assert_eq!(c.one::<i64>("select count(*) from billing.reversals", &[]), 0);
}

#[test]
fn malformed_reversals_are_rejected_and_take_nothing() {
    let db = Database::with_catalog();
    let mut c = db.connect();
    c.buy(ANN, "cs_1");
    let wrong = [
        refund("re_1", "pi_1", -1).event("evt_1", "refund.created"),
        refund("re_1", "pi_1", 1).with("amount", "1").event("evt_2", "refund.created"),
        refund("re_1", "pi_1", 1).with("amount", 1e30).event("evt_3", "refund.created"),
        refund("", "pi_1", 1).event("evt_4", "refund.created"),
        charge("pi_1", -5, 1).event("evt_5", "charge.refunded"),
        charge("pi_1", 1000, -5).event("evt_6", "charge.refunded"),
        charge("pi_1", 1000, 5).with("refunds", json!([1])).event("evt_7", "charge.refunded"),
        dispute("dp_1", "pi_1", 1, "lost").with("status", 7).event("evt_8", "charge.dispute.closed"),
    ];
    for event in wrong {
        assert_eq!(c.apply(&event).summary(), "rejected malformed", "{event:?}");
    }
    assert_eq!(c.one::<i64>("select count(*) from billing.reversals", &[]), 0);
    assert_eq!(c.balance_and_debt(ANN), (500, 0));
    let most = refund("re_9", "pi_1", i64::MAX).event("evt_9", "refund.created");
    assert_eq!(c.apply(&most).credits, -500, "however much, no more than was charged");
    let again = charge("pi_1", 1000, i64::MAX).event("evt_10", "charge.refunded");
    assert_eq!(c.apply(&again).summary(), "already_applied");
}

#[test]
fn explaining_a_refund_says_what_it_would_take_and_writes_nothing() {
    let db = Database::with_catalog();
    let mut c = db.connect();
    c.buy(ANN, "cs_1");
    c.spend(ANN, 300, "job-1");
    let before = c.everything();
    let explained = c.explain(&refunded("re_1", "pi_1", 1000));
    assert_eq!(
        (explained.summary().as_str(), explained.credits, explained.debt),
        ("applied", -500, Some(300))
    );
    assert_eq!(c.everything(), before);
}
