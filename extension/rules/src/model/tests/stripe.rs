//! Stripe's events, built as plainly as the scenarios need them.

use std::sync::atomic::{AtomicU64, Ordering};

use serde_json::{Value, json};

use super::super::{Books, Customer, Outcome, Step};

/// November 1st 2023, at midnight: months of 30 days from here end with the calendar's.
pub(super) const START: i64 = 1_698_796_800;
pub(super) const DAY: i64 = 86_400;
pub(super) const MONTH: i64 = 30 * DAY;

/// "Catalog for all", with the fields of `pro` that a scenario changes.
pub(super) fn catalog_with(pro: Value) -> Value {
    let mut catalog = json!({
        "livemode": false,
        "signup_credits": 500,
        "not_credits": ["price_tshirt"],
        "plans": [
            {"key": "pro", "rank": 2, "credits": 10_000,
             "prices": ["price_pro", {"id": "price_pro_year", "drip": "1 month"}]},
            {"key": "max", "rank": 3, "credits": 30_000, "prices": ["price_max"]},
            {"key": "seat", "rank": 1, "credits": 1_000, "prices": ["price_seat"]},
            {"key": "quarter", "rank": 2, "credits": 30_000, "prices": [{"id": "price_quarter", "every": "3 months"}]},
            {"key": "quarter_parts", "rank": 2, "credits": 10_000,
             "prices": [{"id": "price_quarter_parts", "every": "3 months", "drip": "1 month"}]},
            {"key": "roll", "rank": 1, "credits": 1_000, "prices": ["price_roll"], "renewal": "rollover",
             "max_rollover": 500},
        ],
        "packs": [{"key": "pack", "credits": 500, "prices": ["price_pack", "price_pack_month"]}],
    });
    if let Value::Object(fields) = pro {
        for (key, value) in fields {
            catalog["plans"][0][key] = value;
        }
    }
    catalog
}

pub(super) fn catalog() -> Value {
    catalog_with(Value::Null)
}

pub(super) fn event(event_type: &str, created: i64, object: &Value) -> Value {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let number = COUNT.fetch_add(1, Ordering::Relaxed);
    json!({
        "id": format!("evt_{number}"), "object": "event", "type": event_type, "created": created, "livemode": false,
        "data": {"object": object},
    })
}

/// A line of the older shape, of `sub_1`'s item `si_1`.
pub(super) fn line(price: &str, amount: i64, period: (i64, i64)) -> Value {
    json!({
        "id": "il_1", "object": "line_item", "amount": amount, "quantity": 1, "proration": false,
        "period": {"start": period.0, "end": period.1}, "price": {"id": price}, "discount_amounts": [],
        "subscription": "sub_1", "subscription_item": "si_1",
    })
}

/// A prorated line; a negative one names what it credits, as Stripe's do.
pub(super) fn prorated(price: &str, amount: i64, period: (i64, i64)) -> Value {
    let mut line = line(price, amount, period);
    line["proration"] = true.into();
    if amount < 0 {
        line["proration_details"] =
            json!({"credited_items": {"invoice": "in_0", "invoice_line_items": ["il_0"]}});
    }
    line
}

pub(super) fn with(mut object: Value, fields: Value) -> Value {
    let Value::Object(fields) = fields else { panic!("fields") };
    for (key, value) in fields {
        object[key] = value;
    }
    object
}

/// A paid invoice of `sub_1`, whose total is its lines'.
#[expect(clippy::needless_pass_by_value, reason = "tests build the lines in place")]
pub(super) fn invoice(id: &str, paid_at: i64, lines: Vec<Value>) -> Value {
    let of_line = |line: &Value| {
        let discounts = line["discount_amounts"].as_array().into_iter().flatten();
        let discount: i64 = discounts.filter_map(|discount| discount["amount"].as_i64()).sum();
        line["amount"].as_i64().unwrap_or(0) - discount
    };
    json!({
        "id": id, "object": "invoice", "status": "paid", "created": paid_at, "currency": "usd",
        "subscription": "sub_1", "payment_intent": format!("pi_{id}"), "charge": format!("ch_{id}"),
        "total": lines.iter().map(of_line).sum::<i64>(), "discounts": [],
        "status_transitions": {"paid_at": paid_at},
        "lines": {"data": lines, "has_more": false},
    })
}

pub(super) fn paid(invoice: &Value) -> Step {
    let at = invoice["status_transitions"]["paid_at"].as_i64().expect("a time");
    Step::Deliver(event("invoice.paid", at, invoice))
}

/// A paid invoice of these lines.
pub(super) fn pays(id: &str, at: i64, lines: Vec<Value>) -> Step {
    paid(&invoice(id, at, lines))
}

/// `sub_1` as it is to these items (id, price, quantity) in this period.
pub(super) fn subscription(items: &[(&str, &str, i64)], period: (i64, i64)) -> Value {
    let item = |(id, price, quantity): &(&str, &str, i64)| json!({"id": id, "price": {"id": price}, "quantity": quantity});
    json!({
        "id": "sub_1", "object": "subscription", "status": "active", "customer": "cus_1",
        "current_period_start": period.0, "current_period_end": period.1,
        "items": {"data": items.iter().map(item).collect::<Vec<_>>(), "has_more": false},
    })
}

pub(super) fn says(at: i64, subscription: &Value) -> Step {
    Step::Deliver(event("customer.subscription.updated", at, subscription))
}

pub(super) fn spend(amount: i64) -> Step {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    Step::Spend { request_id: format!("spend_{}", COUNT.fetch_add(1, Ordering::Relaxed)), amount }
}

pub(super) fn refund(id: &str, at: i64, amount: i64, names: Value) -> Step {
    let refund =
        json!({"id": id, "object": "refund", "amount": amount, "status": "succeeded", "created": at});
    Step::Deliver(event("refund.created", at, &with(refund, names)))
}

/// What stands after all of it; every step is applied.
pub(super) fn after(catalog: &Value, steps: &[(i64, Step)]) -> Books {
    let mut customer = Customer::new(catalog);
    for (at, step) in steps {
        assert_eq!(customer.apply(*at, step), Outcome::Applied, "{step:?}");
    }
    customer.books()
}

/// What stands after all of it, in every order, each delivered twice.
pub(super) fn in_every_order(catalog: &Value, now: i64, steps: &[Step]) -> Vec<(i64, i64)> {
    let mut orders = vec![Vec::new()];
    for step in steps {
        orders = orders
            .iter()
            .flat_map(|order: &Vec<&Step>| {
                (0..=order.len()).map(|at| {
                    let mut longer = order.clone();
                    longer.insert(at, step);
                    longer
                })
            })
            .collect();
    }
    let mut left: Vec<(i64, i64)> = Vec::new();
    for order in orders {
        let twice: Vec<_> =
            order.iter().flat_map(|step| [*step, *step]).map(|step| (now, step.clone())).collect();
        let books = after(catalog, &twice);
        left.push((books.balance, books.debt));
    }
    left.sort_unstable();
    left.dedup();
    left
}
