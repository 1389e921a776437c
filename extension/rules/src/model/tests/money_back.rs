//! Scenarios of money that comes back, and of spends that do: 51, 53, 55, 78 to 80.

use serde_json::{Value, json};

use super::super::{Customer, Key, Outcome, Step};
use super::stripe::*;

const P: (i64, i64) = (START, START + MONTH);

fn pro(id: &str, at: i64) -> Step {
    pays(id, at, vec![line("price_pro", 10_000, (at, at + MONTH))])
}

#[test]
fn scenario_51_the_portal_cancels_by_cancel_at() {
    let catalog = catalog_with(json!({"cancellation": "expire"}));
    let end = START + 20 * DAY;
    let canceled = with(
        subscription(&[("si_1", "price_pro", 1)], P),
        json!({"cancel_at": end, "cancel_at_period_end": false}),
    );
    let steps =
        [(START, pro("in_1", START)), (START + DAY, says(START + DAY, &canceled)), (end - 1, Step::Look)];
    assert_eq!(after(&catalog, &steps).balance, 10_000);
    let later = [&steps[..], &[(end, Step::Look)]].concat();
    assert_eq!(after(&catalog, &later).balance, 0);
}

#[test]
fn scenario_53_one_invoice_paid_by_two_charges() {
    let two = with(
        invoice("in_1", START, vec![line("price_pro", 10_000, P)]),
        json!({"payment_intent": null, "charge": null}),
    );
    let payment = |number: i64, amount: i64| {
        let payment = json!({
            "id": format!("inpay_{number}"), "object": "invoice_payment", "invoice": "in_1", "status": "paid",
            "amount_paid": amount, "payment": {"type": "payment_intent", "payment_intent": format!("pi_{number}")},
        });
        Step::Deliver(event("invoice_payment.paid", START, &payment))
    };
    let refunded = |number: i64, amount: i64| {
        let charge = json!({
            "id": format!("ch_{number}"), "object": "charge", "payment_intent": format!("pi_{number}"),
            "amount": amount, "amount_refunded": amount, "currency": "usd",
        });
        Step::Deliver(event("charge.refunded", START + 60, &charge))
    };
    let events = [paid(&two), payment(1, 6_000), payment(2, 4_000), refunded(1, 6_000), refunded(2, 4_000)];
    assert_eq!(in_every_order(&catalog(), START + 60, &events), [(0, 0)]);
    let part = [(START, events[0].clone()), (START, events[1].clone()), (START + 60, events[3].clone())];
    assert_eq!(after(&catalog(), &part).balance, 4_000);
    let by_charge = [pro("in_1", START), refund("re_1", START + 60, 10_000, json!({"charge": "ch_in_1"}))];
    assert_eq!(in_every_order(&catalog(), START + 60, &by_charge), [(0, 0)]);
}

#[test]
fn scenario_55_a_spend_is_given_back_last_drawn_first() {
    let pack = json!({
        "id": "cs_1", "object": "checkout.session", "mode": "payment", "payment_status": "paid", "created": START,
        "amount_total": 1_000, "currency": "usd", "payment_intent": "pi_1", "metadata": {"price_id": "price_pack", "fixed_lines": "true"},
    });
    let mut customer = Customer::new(&catalog());
    let expires = Step::Gift { request_id: "gift".into(), amount: 200, expires_at: Some(START + MONTH) };
    customer.apply(START, &Step::Deliver(event("checkout.session.completed", START, &pack)));
    customer.apply(START, &expires);
    customer.apply(START, &Step::Spend { request_id: "spend".into(), amount: 300 });
    let refund = |request_id: &str, amount| Step::RefundSpend {
        spend_request_id: "spend".into(),
        request_id: request_id.into(),
        amount,
    };
    let left = |customer: &Customer| {
        let books = customer.books();
        let of = |is: fn(&Key) -> bool| {
            books.grants.iter().filter(|held| is(&held.key)).map(|held| held.left).sum::<i64>()
        };
        (of(|key| matches!(key, Key::Pack { .. })), of(|key| matches!(key, Key::Gift { .. })))
    };
    assert_eq!(left(&customer), (400, 0));
    assert_eq!(customer.apply(START, &refund("first", Some(150))), Outcome::Applied);
    assert_eq!(customer.apply(START, &refund("first", Some(150))), Outcome::AlreadyApplied);
    assert_eq!(left(&customer), (500, 50));
    assert_eq!(customer.apply(START, &refund("more", Some(151))), Outcome::Rejected);
    assert_eq!(customer.apply(START, &refund("rest", None)), Outcome::Applied);
    assert_eq!(left(&customer), (500, 200));
    assert_eq!(customer.apply(START, &refund("again", None)), Outcome::Rejected);
}

#[test]
fn scenario_78_a_credit_note_of_2020_counts_once() {
    let note = |refund: Value| {
        let note = json!({
            "id": "cn_1", "object": "credit_note", "invoice": "in_1", "status": "issued", "type": "post_payment",
            "total": 4_000, "refund": refund,
        });
        Step::Deliver(event("credit_note.created", START + 60, &note))
    };
    let alone = [pro("in_1", START), note(Value::Null)];
    assert_eq!(in_every_order(&catalog(), START + 60, &alone), [(6_000, 0)]);
    let refund = refund("re_1", START + 60, 4_000, json!({"payment_intent": "pi_in_1", "charge": "ch_in_1"}));
    let with_refund = [pro("in_1", START), note("re_1".into()), refund];
    assert_eq!(in_every_order(&catalog(), START + 60, &with_refund), [(6_000, 0)]);
}

#[test]
fn scenario_79_a_part_is_of_the_total_whatever_the_balance_paid() {
    let balance = json!({"amount_due": 4_000, "amount_paid": 4_000, "starting_balance": -6_000});
    let steps = [
        (START, paid(&with(invoice("in_1", START, vec![line("price_pro", 10_000, P)]), balance))),
        (START, refund("re_1", START, 5_000, json!({"payment_intent": "pi_in_1"}))),
    ];
    assert_eq!(after(&catalog(), &steps).balance, 5_000);
}

#[test]
fn scenario_80_a_pause_keeps_the_credits_and_resumes_by_the_lines() {
    let state = |at: i64, status: &str, period| {
        let state = with(subscription(&[("si_1", "price_pro", 1)], period), json!({"status": status}));
        (at, says(at, &state))
    };
    let pause = START + 3 * DAY;
    let paused = [
        state(START, "active", P),
        (START, pro("in_1", START)),
        (START + DAY, spend(4_000)),
        state(pause, "paused", P),
    ];
    let books = after(&catalog(), &paused);
    assert_eq!((books.balance, books.tier.as_str()), (6_000, "free"));
    // Resumed as it was.
    let unchanged = [&paused[..], &[state(pause + DAY, "active", P)]].concat();
    let books = after(&catalog(), &unchanged);
    assert_eq!((books.balance, books.tier.as_str()), (6_000, "pro"));
    // Resumed with a new anchor, whose whole line is paid.
    let anchor = START + 40 * DAY;
    let resumed =
        [&paused[..], &[state(anchor, "active", (anchor, anchor + MONTH)), (anchor, pro("in_2", anchor))]]
            .concat();
    let books = after(&catalog(), &resumed);
    assert_eq!((books.balance, books.tier.as_str()), (10_000, "pro"));
}
