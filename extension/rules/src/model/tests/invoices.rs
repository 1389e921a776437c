//! Scenarios of what an invoice's lines are worth: 41 to 46, 54, 56, 76, 77.

use serde_json::{Value, json};

use super::super::Step;
use super::stripe::*;

const P: (i64, i64) = (START, START + MONTH);

fn item(line: Value, item: &str, quantity: i64) -> Value {
    with(line, json!({"subscription_item": item, "quantity": quantity}))
}

#[test]
fn scenario_41_two_plans_or_a_plan_and_seats_are_streams_of_their_own() {
    let pro = |period| line("price_pro", 10_000, period);
    let max = |period| item(line("price_max", 30_000, period), "si_2", 1);
    let seats = |period| item(line("price_seat", 3_000, period), "si_3", 3);
    for lines in [vec![pro(P), max(P)], vec![max(P), pro(P)]] {
        assert_eq!(after(&catalog(), &[(START, pays("in_1", START, lines))]).balance, 40_000);
    }
    let next = (P.1, P.1 + MONTH);
    let steps = [
        (START, pays("in_1", START, vec![pro(P), seats(P)])),
        (START, spend(11_000)),
        (P.1, pays("in_2", P.1, vec![seats(next)])),
    ];
    // The seats' renewal leaves nothing of the seats before, and the plan's own as it was.
    assert_eq!(after(&catalog(), &steps[..1]).balance, 13_000);
    assert_eq!(after(&catalog(), &steps).balance, 3_000);
    let few = [(START, steps[0].1.clone()), (START, spend(4_000)), steps[2].clone()];
    assert_eq!(after(&catalog(), &few).balance, 6_000 + 3_000);
}

#[test]
fn scenario_42_an_odd_line_never_blocks_the_others() {
    let metered =
        json!({"price": {"id": "price_tshirt", "recurring": {"interval": "month", "usage_type": "metered"}}});
    let odd = [
        with(item(line("price_tshirt", 500, P), "si_2", 5_000_000), metered),
        with(line("price_x", 100, P), json!({"price": null})),
        with(line("price_x", 100, P), json!({"price": null, "pricing": {"type": "price_details"}})),
        with(line("price_once", 100, P), json!({"price": {"id": "price_once", "type": "one_time"}})),
    ];
    for odd in odd {
        let books =
            after(&catalog(), &[(START, pays("in_1", START, vec![line("price_pro", 10_000, P), odd]))]);
        assert_eq!(books.balance, 10_000);
    }
}

#[test]
fn scenario_43_an_unknown_recurring_price_grants_once_the_catalog_knows_it() {
    let lines = vec![line("price_pro", 10_000, P), item(line("price_new", 7_000, P), "si_2", 1)];
    let steps = [(START, pays("in_1", START, lines))];
    assert_eq!(after(&catalog(), &steps).balance, 10_000);
    let mut known = catalog();
    known["plans"][1]["prices"] = json!(["price_max", "price_new"]);
    assert_eq!(after(&known, &steps).balance, 40_000);
}

#[test]
fn scenario_44_an_extended_trial_gives_its_credits_once_in_every_order() {
    let trialing = |at: i64, until: i64| {
        let state =
            with(subscription(&[("si_1", "price_pro", 1)], (at, until)), json!({"status": "trialing"}));
        says(at, &state)
    };
    let first = START + 14 * DAY;
    let (extended, until) = (START + 5 * DAY, START + 25 * DAY);
    for same_second in [0, 60] {
        let steps = [
            trialing(START, first),
            pays("in_1", START, vec![line("price_pro", 0, (START, first))]),
            trialing(extended, until),
            pays("in_2", extended + same_second, vec![line("price_pro", 0, (extended, until))]),
        ];
        let now = extended + same_second;
        assert_eq!(in_every_order(&catalog(), now, &steps), [(0, 0)]);
        assert_eq!(in_every_order(&catalog_with(json!({"trial_credits": 300})), now, &steps), [(300, 0)]);
        // Replayed months afterwards, the trial is over.
        let late = now + 5 * MONTH;
        assert_eq!(in_every_order(&catalog_with(json!({"trial_credits": 300})), late, &steps), [(0, 0)]);
    }
}

#[test]
fn scenario_45_a_trial_that_ends_early_is_followed_by_the_whole_period() {
    let early = START + 3 * DAY;
    let update = json!({"billing_reason": "subscription_update"});
    let whole = invoice("in_2", early, vec![line("price_pro", 10_000, (early, early + MONTH))]);
    let steps = [
        (START, pays("in_1", START, vec![line("price_pro", 0, (START, START + 14 * DAY))])),
        (early, paid(&with(whole.clone(), update.clone()))),
    ];
    assert_eq!(after(&catalog_with(json!({"trial_credits": 300})), &steps).balance, 10_000);
    assert_eq!(after(&catalog(), &[(early, paid(&with(whole, update)))]).balance, 10_000);
}

#[test]
fn scenario_46_what_credit_notes_wrote_off_before_it_was_paid_grants_nothing() {
    let note = json!({
        "id": "cn_1", "object": "credit_note", "invoice": "in_1", "status": "issued", "type": "pre_payment",
        "total": 10_000, "pre_payment_amount": 10_000, "post_payment_amount": 0,
    });
    let steps = [
        Step::Deliver(event("credit_note.created", START, &note)),
        pays("in_1", START + 60, vec![line("price_pro", 10_000, P)]),
    ];
    assert_eq!(in_every_order(&catalog(), START + 60, &steps), [(0, 0)]);
}

#[test]
fn scenario_54_tiers_and_a_flat_fee_are_one_line() {
    let tiers =
        vec![item(line("price_seat", 5_000, P), "si_1", 5), item(line("price_seat", 2_400, P), "si_1", 3)];
    assert_eq!(after(&catalog(), &[(START, pays("in_1", START, tiers))]).balance, 8_000);
    let flat = vec![item(line("price_seat", 5_000, P), "si_1", 0), item(line("price_seat", 0, P), "si_1", 4)];
    assert_eq!(after(&catalog(), &[(START, pays("in_1", START, flat))]).balance, 4_000);
}

#[test]
fn scenario_56_an_invoice_may_name_its_subscription_only_on_its_lines() {
    let older =
        with(invoice("in_1", START, vec![line("price_pro", 10_000, P)]), json!({"subscription": null}));
    assert_eq!(after(&catalog(), &[(START, paid(&older))]).balance, 10_000);
    let newer = json!({
        "id": "il_1", "amount": 10_000, "quantity_decimal": "1.0", "period": {"start": P.0, "end": P.1},
        "pricing": {"type": "price_details", "price_details": {"price": "price_pro", "product": "prod_1"}},
        "parent": {
            "type": "subscription_item_details",
            "subscription_item_details": {"proration": false, "subscription": "sub_1", "subscription_item": "si_1"},
        },
    });
    let newer = with(invoice("in_1", START, vec![newer]), json!({"subscription": null}));
    assert_eq!(after(&catalog(), &[(START, paid(&newer))]).balance, 10_000);
}

#[test]
fn scenario_76_a_metered_line_of_nothing_is_no_trial() {
    let metered =
        json!({"price": {"id": "price_pro", "recurring": {"interval": "month", "usage_type": "metered"}}});
    let catalog = catalog_with(json!({"trial_credits": 300}));
    let lines = vec![line("price_max", 30_000, P), with(item(line("price_pro", 0, P), "si_2", 1), metered)];
    let first = pays("in_1", START, lines);
    assert_eq!(after(&catalog, &[(START, first.clone())]).balance, 30_000);
    let trial = with(line("price_pro", 0, P), json!({"subscription": "sub_2", "subscription_item": "si_9"}));
    let steps = [(START, first), (START, pays("in_2", START, vec![trial]))];
    assert_eq!(after(&catalog, &steps).balance, 30_300);
}

#[test]
fn scenario_77_one_invoice_with_lines_of_two_subscriptions_and_a_pack() {
    let max =
        with(line("price_max", 30_000, P), json!({"subscription": "sub_2", "subscription_item": "si_2"}));
    let pack = with(line("price_pack", 1_000, P), json!({"subscription": null, "subscription_item": null}));
    let books =
        after(&catalog(), &[(START, pays("in_1", START, vec![line("price_pro", 10_000, P), max, pack]))]);
    assert_eq!((books.subscription, books.purchased), (40_000, 500));
    let renewed = with(
        line("price_max", 30_000, (P.1, P.1 + MONTH)),
        json!({"subscription": "sub_2", "subscription_item": "si_2"}),
    );
    let steps = [
        (
            START,
            pays(
                "in_1",
                START,
                vec![
                    line("price_pro", 10_000, P),
                    with(
                        line("price_max", 30_000, P),
                        json!({"subscription": "sub_2", "subscription_item": "si_2"}),
                    ),
                ],
            ),
        ),
        (P.1, pays("in_2", P.1, vec![renewed])),
    ];
    assert_eq!(after(&catalog(), &steps).balance, 40_000);
}
