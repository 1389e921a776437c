//! What the app calls: reservations, what is given back late, and the free plan.

use serde_json::{Value, json};

use super::super::{Customer, Outcome, Step};
use super::stripe::*;

const P: (i64, i64) = (START, START + MONTH);

fn reserve(amount: i64) -> Step {
    Step::Reserve { request_id: "reserved".into(), amount, seconds: 900 }
}

fn with_pro(steps: &[(i64, Step)]) -> Customer {
    let mut customer = Customer::new(&catalog());
    customer.apply(START, &pays("in_1", START, vec![line("price_pro", 10_000, P)]));
    for (at, step) in steps {
        assert_eq!(customer.apply(*at, step), Outcome::Applied);
    }
    customer
}

#[test]
fn a_reservation_is_committed_for_less_released_or_runs_out() {
    let commit = Step::Commit { request_id: "reserved".into(), amount: Some(60) };
    let release = Step::Release { request_id: "reserved".into() };
    let left = |steps: &[(i64, Step)]| with_pro(steps).books().balance;
    assert_eq!(left(&[(START, reserve(100))]), 9_900);
    assert_eq!(left(&[(START, reserve(100)), (START + 899, commit.clone())]), 9_940);
    assert_eq!(left(&[(START, reserve(100)), (START + 899, release)]), 10_000);
    assert_eq!(left(&[(START, reserve(100)), (START + 900, Step::Look)]), 10_000);
    let mut late = with_pro(&[(START, reserve(100))]);
    assert_eq!(late.apply(START + 900, &commit), Outcome::Rejected);
}

/// "What it, a release or the end of a reservation gives back to a period that was swept meanwhile stays until the next
/// opening."
#[test]
fn what_is_given_back_to_a_swept_period_stays_until_the_next_opening() {
    let next = (P.1, P.1 + MONTH);
    let renewal = |number: i64, at: i64| {
        (at, pays(&format!("in_{number}"), at, vec![line("price_pro", 10_000, (at, at + MONTH))]))
    };
    let mut steps = vec![(P.1 - 60, reserve(100)), renewal(2, P.1)];
    assert_eq!(with_pro(&steps).books().balance, 10_000);
    steps.push((P.1 + 900, Step::Look));
    assert_eq!(with_pro(&steps).books().balance, 10_100);
    steps.push(renewal(3, next.1));
    assert_eq!(with_pro(&steps).books().balance, 10_000);
}

/// "To a grant that has lapsed, it lapses."
#[test]
fn what_is_given_back_to_a_part_that_is_over_lapses() {
    let year = line("price_pro_year", 100_000, (START, START + 366 * DAY));
    let mut customer = Customer::new(&catalog());
    customer.apply(START, &pays("in_1", START, vec![year]));
    customer.apply(P.1 - 60, &reserve(100));
    customer.apply(P.1 + 900, &Step::Look);
    assert_eq!(customer.books().balance, 10_000);
}

#[test]
fn the_free_plan_gives_each_month_to_whom_has_no_plan() {
    let free = json!({"free_plan": {"key": "free", "credits": 5, "every": "1 month"}, "signup_credits": 0});
    let mut customer = Customer::new(&with(catalog(), free));
    customer.apply(START, &Step::Signup);
    assert_eq!((customer.books().promotional, customer.books().tier.as_str()), (5, "free"));
    customer.apply(START + DAY, &spend(3));
    customer.apply(P.1, &Step::Look);
    assert_eq!(customer.books().promotional, 5);
    let state: Value = subscription(&[("si_1", "price_pro", 1)], (P.1, P.1 + MONTH));
    customer.apply(P.1 + DAY, &says(P.1 + DAY, &state));
    customer.apply(P.1 + 2 * MONTH, &Step::Look);
    assert_eq!((customer.books().promotional, customer.books().tier.as_str()), (0, "pro"));
}

#[test]
fn a_session_and_its_own_invoice_are_one_payment() {
    let session = json!({
        "id": "cs_1", "object": "checkout.session", "mode": "payment", "payment_status": "paid", "created": START,
        "amount_total": 1_000, "currency": "usd", "payment_intent": "pi_1", "invoice": "in_1",
        "metadata": {"price_id": "price_pack", "fixed_lines": "true"},
    });
    let pack = with(line("price_pack", 1_000, P), json!({"subscription": null, "subscription_item": null}));
    let of_session = json!({"subscription": null, "payment_intent": "pi_1"});
    let steps = [
        Step::Deliver(event("checkout.session.completed", START, &session)),
        paid(&with(invoice("in_1", START, vec![pack]), of_session)),
    ];
    assert_eq!(in_every_order(&catalog(), START, &steps), [(500, 0)]);
}

#[test]
fn a_payment_intent_counts_by_its_metadata_and_once_with_its_session() {
    let intent = json!({
        "id": "pi_1", "object": "payment_intent", "status": "succeeded", "amount_received": 1_000, "currency": "usd",
        "created": START, "metadata": {"user_id": "u", "pack": "pack"},
    });
    let intent = Step::Deliver(event("payment_intent.succeeded", START, &intent));
    assert_eq!(in_every_order(&catalog(), START, std::slice::from_ref(&intent)), [(500, 0)]);
    let session = json!({
        "id": "cs_1", "object": "checkout.session", "mode": "payment", "payment_status": "paid", "created": START,
        "amount_total": 1_000, "currency": "usd", "payment_intent": "pi_1",
        "metadata": {"price_id": "price_pack", "fixed_lines": "true"},
    });
    let session = Step::Deliver(event("checkout.session.completed", START, &session));
    let back = refund("re_1", START, 1_000, json!({"payment_intent": "pi_1"}));
    assert_eq!(in_every_order(&catalog(), START, &[intent.clone(), session.clone()]), [(500, 0)]);
    assert_eq!(in_every_order(&catalog(), START, &[intent, session, back]), [(0, 0)]);
}
