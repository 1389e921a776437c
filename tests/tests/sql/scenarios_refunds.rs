//! Scenarios of refunds: in part and whole, in any order, with stale counts, before and after what they reverse.

use serde_json::json;
use stripe_credits_tests::concurrency::{blocked, together};
use stripe_credits_tests::permutations::{in_every_order, nothing};
use stripe_credits_tests::refunds::{bought, charge, failed, refund, refunded};
use stripe_credits_tests::{ANN, Connection, Database, Event, catalog_of_packs, paid_pack, session};

// 29: partial refunds.

#[test]
fn scenario_29_three_uneven_refunds_and_a_stale_count_take_the_pack_and_never_more() {
    let db = Database::with_catalog();
    let mut c = db.connect();
    c.buy(ANN, "cs_1");
    let count = |id: &str, amount| charge("pi_1", 1000, amount).event(id, "charge.refunded");
    assert_eq!(c.apply(&refunded("re_1", "pi_1", 333)).credits, -167);
    assert_eq!(c.apply(&count("evt_c1", 333)).summary(), "already_applied");
    assert_eq!(c.apply(&refunded("re_2", "pi_1", 333)).credits, -166);
    assert_eq!(c.apply(&refunded("re_3", "pi_1", 334)).credits, -167);
    assert_eq!(c.apply(&count("evt_c3", 1000)).summary(), "already_applied");
    assert_eq!(c.apply(&count("evt_c2", 666)).summary(), "already_applied", "stale, and smaller");
    assert_eq!(c.balance_and_debt(ANN), (0, 0));
    assert_eq!(c.ledger(ANN), ["purchase 500", "reversal -167", "reversal -166", "reversal -167"]);
    let origin: Vec<String> = c.column(
        "select concat_ws(' ', stripe_event_id, stripe_checkout_session_id, stripe_payment_intent_id, pool)
         from billing.credit_transactions where transaction_type = 'reversal' order by id limit 1",
        &[],
    );
    assert_eq!(origin, ["evt_re_1 cs_1 pi_1 purchased"]);
}

#[test]
fn scenario_29_refunds_and_counts_in_every_order_after_the_purchase() {
    let db = Database::with_catalog();
    let refunds =
        [("re_1", 333), ("re_2", 333), ("re_3", 334)].map(|(id, amount)| refunded(id, "pi_1", amount));
    in_every_order(&db, |c| c.buy(ANN, "cs_1"), &refunds, (0, 0));
    let counts =
        [333, 666, 1000].map(|n| charge("pi_1", 1000, n).event(&format!("evt_{n}"), "charge.refunded"));
    in_every_order(&db, |c| c.buy(ANN, "cs_1"), &counts, (0, 0));
    in_every_order(&db, |c| c.buy(ANN, "cs_1"), &counts[..2], (167, 0));
    in_every_order(&db, |c| c.buy(ANN, "cs_1"), &refunds[..2], (167, 0));
    let mixed: Vec<Event> = refunds.into_iter().chain(counts.into_iter().take(2)).collect();
    in_every_order(&db, |c| c.buy(ANN, "cs_1"), &mixed, (0, 0));
}

#[test]
fn scenario_29_refunds_counts_and_the_purchase_itself_in_every_order() {
    let db = Database::with_catalog();
    let events = [
        bought("cs_1", ANN),
        refunded("re_1", "pi_1", 333),
        refunded("re_2", "pi_1", 333),
        charge("pi_1", 1000, 333).event("evt_stale", "charge.refunded"),
        charge("pi_1", 1000, 666).event("evt_count", "charge.refunded"),
    ];
    in_every_order(&db, nothing, &events, (167, 0));
}

#[test]
fn scenario_29_the_older_shape_lists_its_refunds_in_the_charge_and_means_the_same() {
    let db = Database::with_catalog();
    let [one, two] = [("re_1", 333), ("re_2", 300)].map(|(id, amount)| refund(id, "pi_1", amount));
    let older = [
        charge("pi_1", 1000, 333).listing(std::slice::from_ref(&one)).event("evt_1", "charge.refunded"),
        charge("pi_1", 1000, 633).listing(&[two.clone(), one.clone()]).event("evt_2", "charge.refunded"),
        two.clone().with("status", "failed").event("evt_3", "charge.refund.updated"),
    ];
    in_every_order(&db, |c| c.buy(ANN, "cs_1"), &older, (333, 0));
    let newer = [
        charge("pi_1", 1000, 633).event("evt_2", "charge.refunded"),
        one.event("evt_4", "refund.created"),
        two.event("evt_5", "refund.created"),
        two.with("status", "failed").event("evt_6", "refund.failed"),
    ];
    in_every_order(&db, |c| c.buy(ANN, "cs_1"), &newer, (333, 0));
}

#[test]
fn scenario_29_the_same_refund_on_three_connections_at_once_takes_once() {
    let db = Database::with_catalog();
    db.connect().buy(ANN, "cs_1");
    let outcomes =
        together(&db, vec![|c: &mut Connection| c.apply(&refunded("re_1", "pi_1", 400)).summary(); 3]);
    assert_eq!(outcomes.iter().filter(|outcome| *outcome == "applied").count(), 1, "{outcomes:?}");
    assert_eq!(outcomes.iter().filter(|outcome| *outcome == "already_applied").count(), 2, "{outcomes:?}");
    assert_eq!(db.connect().ledger(ANN), ["purchase 500", "reversal -200"]);
}

#[test]
fn scenario_29_three_refunds_on_three_connections_at_once_all_count() {
    for _ in 0..10 {
        let db = Database::with_catalog();
        db.connect().buy(ANN, "cs_1");
        let works = [("re_1", 333), ("re_2", 333), ("re_3", 334)]
            .map(|(id, amount)| move |c: &mut Connection| c.apply(&refunded(id, "pi_1", amount)).summary());
        assert_eq!(together(&db, works.to_vec()), ["applied", "applied", "applied"]);
        assert_eq!(db.connect().balance_and_debt(ANN), (0, 0));
    }
}

// 31: before the purchase.

#[test]
fn scenario_31_a_refund_before_its_purchase_is_netted_in_both_orders() {
    let db = Database::with_catalog();
    let mut c = db.connect();
    let early = c.deliver(&refunded("re_1", "pi_1", 1000));
    assert_eq!((early.summary().as_str(), early.credits), ("ignored unknown_payment", 0));
    let late = c.apply(&bought("cs_1", ANN));
    assert_eq!((late.summary().as_str(), late.credits, late.remaining_total), ("applied", 0, Some(0)));
    assert_eq!(c.ledger(ANN), [""; 0]);
    assert_eq!(c.apply(&refunded("re_1", "pi_1", 1000)).summary(), "already_applied");
    let events = [bought("cs_1", ANN), refunded("re_1", "pi_1", 1000)];
    in_every_order(&Database::with_catalog(), nothing, &events, (0, 0));
    let part = [bought("cs_1", ANN), refunded("re_1", "pi_1", 300), failed("re_2", "pi_1", 100)];
    in_every_order(&Database::with_catalog(), nothing, &part, (350, 0));
}

#[test]
fn scenario_31_overlapping_refund_and_purchase_are_netted_in_both_orders() {
    let purchase = |c: &mut Connection| c.apply(&bought("cs_1", ANN)).summary();
    let refund = |c: &mut Connection| c.deliver(&refunded("re_1", "pi_1", 1000)).summary();
    let db = Database::with_catalog();
    let outcomes = blocked(&db, purchase, refund);
    assert_eq!((outcomes.0.as_str(), outcomes.1.as_str()), ("applied", "applied"));
    assert_eq!(db.connect().balance_and_debt(ANN), (0, 0));
    let db = Database::with_catalog();
    let outcomes = blocked(&db, refund, purchase);
    assert_eq!((outcomes.0.as_str(), outcomes.1.as_str()), ("ignored unknown_payment", "applied"));
    assert_eq!(db.connect().balance_and_debt(ANN), (0, 0));
    assert_eq!(db.connect().ledger(ANN), [""; 0]);
}

#[test]
fn scenario_31_overlapping_refund_and_direct_purchase_are_netted_in_both_orders() {
    let purchase = |c: &mut Connection| {
        c.call("apply_stripe_credit_pack_purchase($1, 500, 'evt', 'cs_1', 'pi_1')", &[&ANN]).summary()
    };
    let count = charge("pi_1", 1000, 500).event("evt_c", "charge.refunded");
    for purchase_first in [true, false] {
        let db = Database::with_catalog();
        let refund = |c: &mut Connection| c.apply(&count).summary();
        if purchase_first {
            blocked(&db, purchase, refund)
        } else {
            blocked(&db, refund, purchase)
        };
        assert_eq!(db.connect().balance_and_debt(ANN), (250, 0), "purchase first: {purchase_first}");
    }
}

#[test]
fn scenario_31_a_refund_of_an_unowned_session_is_netted_once_it_is_attributed() {
    let unowned = session("cs_1").metadata("price_id", "price_pack").with("customer", "cus_1");
    for by in ["cs_1", "cus_1"] {
        for refund_first in [true, false] {
            let db = Database::with_catalog();
            let mut c = db.connect();
            let mut events = [refunded("re_1", "pi_1", 400), unowned.completed("evt_1")];
            if !refund_first {
                events.reverse();
            }
            let mut outcomes: Vec<String> = events.iter().map(|event| c.deliver(event).summary()).collect();
            outcomes.sort();
            assert_eq!(outcomes, ["ignored unknown_payment", "parked unknown_user"]);
            let healed = c.attribute(by, ANN);
            assert_eq!((healed.summary().as_str(), healed.credits), ("applied", 300), "by {by}");
            assert_eq!(c.ledger(ANN), ["purchase 300"]);
            assert_eq!(c.apply(&refunded("re_1", "pi_1", 400)).summary(), "already_applied");
            assert_eq!(c.balance_and_debt(ANN), (300, 0));
        }
    }
}

#[test]
fn scenario_31_overlapping_refund_and_attribution_are_netted_in_both_orders() {
    let unowned = session("cs_1").metadata("price_id", "price_pack").with("customer", "cus_1");
    for by in ["cs_1", "cus_1"] {
        let refund = |c: &mut Connection| c.apply(&refunded("re_1", "pi_1", 400)).summary();
        let heal = |c: &mut Connection| c.attribute(by, ANN).summary();
        for refund_first in [true, false] {
            let db = Database::with_catalog();
            db.connect().apply(&unowned.completed("evt_1"));
            if refund_first {
                blocked(&db, refund, heal)
            } else {
                blocked(&db, heal, refund)
            };
            assert_eq!(db.connect().balance_and_debt(ANN), (300, 0), "by {by}, refund first: {refund_first}");
        }
    }
}

#[test]
fn scenario_31_a_refund_of_an_unknown_price_is_netted_once_the_catalog_knows_it() {
    let db = Database::with_catalog();
    let mut c = db.connect();
    c.apply(&refunded("re_1", "pi_1", 500));
    let new = session("cs_1").of(ANN).metadata("price_id", "price_new");
    assert_eq!(c.apply(&new.completed("evt_1")).summary(), "parked unknown_price");
    c.load_catalog(&catalog_of_packs(&json!([{"key": "new", "credits": 700, "prices": ["price_new"]}])));
    assert_eq!(c.ledger(ANN), ["purchase 350"]);
}

#[test]
fn scenario_31_line_items_after_a_refund_grant_the_difference_and_take_its_part() {
    let db = Database::with_catalog();
    let paid = paid_pack("cs_1", ANN);
    let with_lines = paid.clone().lines(&[("price_pack", 3)]);
    let events = [paid.completed("evt_1"), with_lines.completed("evt_2"), refunded("re_1", "pi_1", 500)];
    in_every_order(&db, nothing, &events, (750, 0));
}
