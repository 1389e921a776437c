//! Scenarios of disputes: withdrawn, won, reinstated, lost, in any order, beside refunds and in other currencies.

use stripe_credits_tests::permutations::{in_every_order, nothing};
use stripe_credits_tests::refunds::{bought, charge, dispute, refunded};
use stripe_credits_tests::{ANN, Connection, Database};

// 32: disputes.

#[test]
fn scenario_32_a_dispute_takes_the_pack_and_gives_it_back_when_it_is_won() {
    let db = Database::with_catalog();
    let mut c = db.connect();
    c.buy(ANN, "cs_1");
    let apply = |c: &mut Connection, id: &str, event_type: &str, status: &str| {
        let outcome = c.apply(&dispute("dp_1", "pi_1", 1000, status).event(id, event_type));
        (outcome.summary(), outcome.credits)
    };
    let applied = |credits| ("applied".to_owned(), credits);
    let already = ("already_applied".to_owned(), 0);
    assert_eq!(apply(&mut c, "evt_1", "charge.dispute.created", "needs_response"), applied(-500));
    assert_eq!(apply(&mut c, "evt_2", "charge.dispute.funds_withdrawn", "needs_response"), already);
    assert_eq!(apply(&mut c, "evt_3", "charge.dispute.updated", "under_review"), already);
    assert_eq!(apply(&mut c, "evt_4", "charge.dispute.closed", "won"), applied(500));
    assert_eq!(apply(&mut c, "evt_5", "charge.dispute.funds_reinstated", "won"), already);
    assert_eq!(apply(&mut c, "evt_2", "charge.dispute.funds_withdrawn", "needs_response"), already, "late");
    assert_eq!(c.ledger(ANN), ["purchase 500", "reversal -500", "reinstatement 500"]);
    assert_eq!(c.balance_and_debt(ANN), (500, 0));
}

#[test]
fn scenario_32_withdrawn_won_and_reinstated_in_every_order() {
    let db = Database::with_catalog();
    let about = |id: &str, event_type: &str, status: &str| {
        dispute("dp_1", "pi_1", 1000, status).event(id, event_type)
    };
    let events = [
        about("evt_1", "charge.dispute.created", "needs_response"),
        about("evt_2", "charge.dispute.funds_withdrawn", "under_review"),
        about("evt_3", "charge.dispute.closed", "won"),
        about("evt_4", "charge.dispute.funds_reinstated", "won"),
    ];
    in_every_order(&db, |c| c.buy(ANN, "cs_1"), &events, (500, 0));
    in_every_order(&db, |c| c.buy(ANN, "cs_1"), &events[..2], (0, 0));
    let mut with_purchase = events.to_vec();
    with_purchase.push(bought("cs_1", ANN));
    in_every_order(&db, nothing, &with_purchase, (500, 0));
    let spent = |c: &mut Connection| {
        c.buy(ANN, "cs_1");
        c.spend(ANN, 300, "job-1");
    };
    in_every_order(&db, spent, &events, (200, 0));
    in_every_order(&db, spent, &events[..2], (0, 300));
}

#[test]
fn scenario_32_a_lost_dispute_keeps_what_it_took_in_every_order() {
    let db = Database::with_catalog();
    let events = [
        dispute("dp_1", "pi_1", 600, "needs_response").event("evt_1", "charge.dispute.created"),
        dispute("dp_1", "pi_1", 600, "lost").event("evt_2", "charge.dispute.closed"),
        dispute("dp_1", "pi_1", 600, "warning_needs_response").event("evt_3", "charge.dispute.created"),
    ];
    in_every_order(&db, |c| c.buy(ANN, "cs_1"), &events, (200, 0));
}

#[test]
fn scenario_32_an_inquiry_takes_nothing_until_its_funds_are_withdrawn() {
    let db = Database::with_catalog();
    let mut c = db.connect();
    c.buy(ANN, "cs_1");
    for (n, status) in
        ["warning_needs_response", "warning_under_review", "warning_closed", "prevented"].iter().enumerate()
    {
        let event =
            dispute("dp_1", "pi_1", 1000, status).event(&format!("evt_{n}"), "charge.dispute.updated");
        assert_eq!(
            (c.apply(&event).summary().as_str(), c.balance(ANN)),
            ("already_applied", 500),
            "{status}"
        );
    }
    let withdrawn = dispute("dp_1", "pi_1", 1000, "warning_under_review");
    assert_eq!(c.apply(&withdrawn.event("evt_w", "charge.dispute.funds_withdrawn")).credits, -500);
    assert_eq!(c.ledger(ANN), ["purchase 500", "reversal -500"]);
}

#[test]
fn scenario_32_refund_and_dispute_together_never_take_more_than_was_charged() {
    let db = Database::with_catalog();
    let events = [
        refunded("re_1", "pi_1", 600),
        dispute("dp_1", "pi_1", 1000, "needs_response").event("evt_d", "charge.dispute.created"),
        charge("pi_1", 1000, 600).event("evt_c", "charge.refunded"),
    ];
    in_every_order(&db, |c| c.buy(ANN, "cs_1"), &events, (0, 0));
    let mut won = events.to_vec();
    won.push(dispute("dp_1", "pi_1", 1000, "won").event("evt_w", "charge.dispute.closed"));
    in_every_order(&db, |c| c.buy(ANN, "cs_1"), &won, (200, 0));
}

#[test]
fn scenario_32_two_disputes_of_one_charge_add_up_to_no_more_than_it() {
    let db = Database::with_catalog();
    let about = |id: &str, amount| {
        dispute(id, "pi_1", amount, "needs_response").event(&format!("evt_{id}"), "charge.dispute.created")
    };
    in_every_order(&db, |c| c.buy(ANN, "cs_1"), &[about("dp_1", 300), about("dp_2", 300)], (200, 0));
    in_every_order(&db, |c| c.buy(ANN, "cs_1"), &[about("dp_1", 800), about("dp_2", 800)], (0, 0));
}

#[test]
fn a_dispute_in_another_currency_than_the_charges_counts_whole() {
    let db = Database::with_catalog();
    let foreign = dispute("dp_1", "pi_1", 7, "needs_response").with("currency", "eur");
    let events = [
        foreign.event("evt_d", "charge.dispute.created"),
        charge("pi_1", 1000, 0).event("evt_c", "charge.refunded"),
    ];
    in_every_order(&db, |c| c.buy(ANN, "cs_1"), &events, (0, 0));
}
