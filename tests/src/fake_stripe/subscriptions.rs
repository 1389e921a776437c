//! What the fake does to subscriptions: changes with their invoices, previews of these, schedules. Of billing it knows what
//! the shim asks for: one item changes, prorated by seconds, in the period as it is or from a new anchor.

use std::collections::BTreeMap;

use hyper::StatusCode;
use serde_json::{Value, json};

use super::{Books, Made};
use crate::subscription::{Invoice, Line, invoice, line, months_after};

type Form = BTreeMap<String, String>;

/// A subscription with what a query wants expanded.
pub(super) fn expanded(books: &Books, subscription: &Value, query: &str) -> Value {
    let mut subscription = subscription.clone();
    for (field, list) in [("schedule", "subscription_schedules"), ("latest_invoice", "invoices")] {
        let id = subscription[field].as_str().unwrap_or_default();
        let object = books.objects.get(&format!("/v1/{list}/{id}")).cloned();
        if let Some(object) = object.filter(|_| query.contains(&format!("expand[]={field}"))) {
            subscription[field] = object;
        }
    }
    subscription
}

/// <https://docs.stripe.com/api/subscriptions/update>
pub(super) fn update(books: &mut Books, path: &str, form: &Form, now: i64, made: usize) -> Made {
    let Some(before) = books.objects.get(path).cloned() else {
        return refusal(StatusCode::NOT_FOUND, "resource_missing", "No such subscription");
    };
    let is_managed = !before["schedule"].is_null();
    if is_managed && form.keys().any(|name| !name.starts_with("metadata")) {
        return refusal(
            StatusCode::BAD_REQUEST,
            "",
            "The subscription is managed by a subscription schedule.",
        );
    }
    let is_metadata = |name: &String| name.starts_with("metadata");
    if form.contains_key("payment_behavior") && form.keys().any(is_metadata) {
        let message = "You cannot set `metadata` when `payment_behavior` is `pending_if_incomplete`.";
        return refusal(StatusCode::BAD_REQUEST, "", message);
    }
    let mut after = before.clone();
    for (name, value) in form {
        if let Some(key) = name.strip_prefix("metadata[").and_then(|name| name.strip_suffix(']')) {
            after["metadata"][key] = json!(value);
        }
    }
    if form.get("cancel_at_period_end").is_some_and(|value| value == "true") {
        after["cancel_at_period_end"] = true.into();
        after["cancel_at"] = after["items"]["data"][0]["current_period_end"].clone();
    }
    if form.contains_key("items[0][id]") {
        let now = by_clock(books, &before, now);
        let change = match Change::read(books, &before, &|field| form.get(field), now) {
            Ok(change) => change,
            Err(refusal) => return refusal,
        };
        change.make(books, &mut after, &format!("in_made_{made}"), now);
    }
    books.objects.insert(path.to_owned(), after.clone());
    (StatusCode::OK, expanded(books, &after, "expand[]=latest_invoice"))
}

/// <https://docs.stripe.com/api/invoices/create_preview>
pub(super) fn preview(books: &Books, form: &Form, now: i64, made: usize) -> Made {
    let id = form.get("subscription").map(String::as_str).unwrap_or_default();
    let Some(subscription) = books.objects.get(&format!("/v1/subscriptions/{id}")) else {
        return refusal(StatusCode::NOT_FOUND, "resource_missing", "No such subscription");
    };
    let within = |field: &str| {
        let (outer, inner) = field
            .split_once('[')
            .map_or((field, String::new()), |(outer, inner)| (outer, format!("[{inner}")));
        form.get(&format!("subscription_details[{outer}]{inner}"))
    };
    let now = by_clock(books, subscription, now);
    match Change::read(books, subscription, &within, now) {
        Ok(change) => {
            let preview = change.invoice(&format!("upcoming_in_{made}"), subscription, now);
            (StatusCode::OK, preview.unpaid("draft").json().clone())
        }
        Err(refusal) => refusal,
    }
}

/// <https://docs.stripe.com/api/subscription_schedules/create>, with `from_subscription`.
pub(super) fn schedule(books: &mut Books, form: &Form, made: usize) -> Made {
    let id = form.get("from_subscription").map(String::as_str).unwrap_or_default();
    let path = format!("/v1/subscriptions/{id}");
    let Some(mut subscription) = books.objects.get(&path).cloned() else {
        return refusal(StatusCode::NOT_FOUND, "resource_missing", "No such subscription");
    };
    if !subscription["schedule"].is_null() {
        let message = "You cannot migrate a subscription that is already attached to a schedule.";
        return refusal(StatusCode::BAD_REQUEST, "", message);
    }
    let schedule_id = format!("sub_sched_{made}");
    let items = subscription["items"]["data"].as_array().cloned().unwrap_or_default();
    let of_phase: Vec<Value> = items
        .iter()
        .map(|item| {
            json!({"price": item["price"]["id"], "plan": item["price"]["id"], "quantity": item["quantity"],
                   "tax_rates": [], "metadata": {}})
        })
        .collect();
    let schedule = json!({
        "id": schedule_id, "object": "subscription_schedule", "status": "active", "subscription": id,
        "end_behavior": "release",
        "phases": [{
            "start_date": items[0]["current_period_start"], "end_date": items[0]["current_period_end"],
            "items": of_phase, "discounts": [{"coupon": null, "discount": "di_1", "promotion_code": null}],
            "default_tax_rates": [],
        }],
    });
    subscription["schedule"] = json!(schedule_id);
    books.objects.insert(path, subscription);
    books.objects.insert(format!("/v1/subscription_schedules/{schedule_id}"), schedule.clone());
    (StatusCode::OK, schedule)
}

/// <https://docs.stripe.com/api/subscription_schedules/update>
pub(super) fn update_schedule(books: &mut Books, path: &str, form: &Form) -> Made {
    let Some(mut schedule) = books.objects.get(path).cloned() else {
        return refusal(StatusCode::NOT_FOUND, "resource_missing", "No such schedule");
    };
    let field = |name: String| form.get(&name).map_or(Value::Null, |value| number_or_text(value));
    let mut phases: Vec<Value> = Vec::new();
    while let (n, true) =
        (phases.len(), form.contains_key(&format!("phases[{}][items][0][price]", phases.len())))
    {
        let mut items = Vec::new();
        while form.contains_key(&format!("phases[{n}][items][{}][price]", items.len())) {
            let of = |name: &str| field(format!("phases[{n}][items][{}][{name}]", items.len()));
            let item = json!({"price": of("price"), "quantity": of("quantity"), "tax_rates": []});
            items.push(item);
        }
        let start = match phases.last() {
            Some(before) => before["end_date"].clone(),
            None => field(format!("phases[{n}][start_date]")),
        };
        phases.push(json!({
            "start_date": start, "end_date": field(format!("phases[{n}][end_date]")), "items": items,
            "billing_cycle_anchor": field(format!("phases[{n}][billing_cycle_anchor]")),
        }));
    }
    schedule["phases"] = json!(phases);
    books.objects.insert(path.to_owned(), schedule.clone());
    (StatusCode::OK, schedule)
}

/// <https://docs.stripe.com/api/subscription_schedules/release>
pub(super) fn release(books: &mut Books, path: &str) -> Made {
    let Some(schedule) = books.objects.get_mut(path).filter(|schedule| schedule["status"] == "active") else {
        return refusal(StatusCode::BAD_REQUEST, "", "You cannot release a schedule that is not active.");
    };
    schedule["status"] = json!("released");
    let schedule = schedule.clone();
    let of = format!("/v1/subscriptions/{}", schedule["subscription"].as_str().unwrap_or_default());
    if let Some(subscription) = books.objects.get_mut(&of) {
        subscription["schedule"] = Value::Null;
    }
    (StatusCode::OK, schedule)
}

/// A change of one item.
struct Change {
    item: Value,
    price: Value,
    quantity: i64,
    /// From when it credits and charges; none without prorations.
    prorated_from: Option<i64>,
    moves_anchor: bool,
}

impl Change {
    fn read<'a>(
        books: &Books,
        subscription: &Value,
        field: &impl Fn(&str) -> Option<&'a String>,
        now: i64,
    ) -> Result<Change, Made> {
        let items = subscription["items"]["data"].as_array().expect("a subscription has items");
        let item = items.iter().find(|item| {
            Some(item["id"].as_str().unwrap_or_default()) == field("items[0][id]").map(String::as_str)
        });
        let price_id = field("items[0][price]").map(String::as_str).unwrap_or_default();
        let price = books.objects.get(&format!("/v1/prices/{price_id}"));
        let (Some(item), Some(price)) = (item, price) else {
            return Err(refusal(StatusCode::BAD_REQUEST, "resource_missing", "No such price or item"));
        };
        let date = field("proration_date").and_then(|date| date.parse().ok()).unwrap_or(now);
        let period = period_of(item);
        if !(period.0..=period.1).contains(&date) {
            let message = "`proration_date` has to be in the current period.";
            return Err(refusal(StatusCode::BAD_REQUEST, "invalid_proration_date", message));
        }
        Ok(Change {
            item: item.clone(),
            price: price.clone(),
            quantity: field("items[0][quantity]").and_then(|text| text.parse().ok()).unwrap_or(1),
            prorated_from: (field("proration_behavior").is_some_and(|behavior| behavior != "none"))
                .then_some(date),
            moves_anchor: field("billing_cycle_anchor").is_some_and(|anchor| anchor == "now"),
        })
    }

    /// The invoice of a change that prorates: it credits the rest of the old price, and bills a whole period of the new one or
    /// the rest of this.
    fn invoice(&self, id: &str, subscription: &Value, now: i64) -> Invoice {
        let (item, from) = (&self.item, self.prorated_from.unwrap_or(now));
        let period = period_of(item);
        let of_item = |line: Line| {
            let item_id = item["id"].as_str().unwrap_or_default();
            line.item(item_id).of_subscription(subscription["id"].as_str().unwrap_or_default())
        };
        let old = (&item["price"], item["quantity"].as_i64().unwrap_or(1));
        let (price_id, cents) = cost(old);
        let credited = line(price_id, -share(cents, (from, period.1), period), (from, period.1));
        let credit = of_item(credited.quantity(old.1).prorated()).crediting("in_0").described("Unused time");
        let (price_id, cents) = cost((&self.price, self.quantity));
        let charge = if self.moves_anchor {
            line(price_id, cents, (now, end_of(&self.price, now)))
        } else {
            line(price_id, share(cents, (from, period.1), period), (from, period.1)).prorated()
        };
        let charge = of_item(charge.quantity(self.quantity)).described("Remaining time");
        let bill = invoice(id, subscription["id"].as_str().unwrap_or_default())
            .with("customer", subscription["customer"].clone())
            .with("test_clock", subscription["test_clock"].clone())
            .mid_period()
            .line(credit)
            .line(charge)
            .paid_at(now);
        let total = bill.json()["total"].as_i64().unwrap_or(0);
        let metadata = subscription["metadata"].clone();
        let mut parent = bill.json()["parent"].clone();
        parent["subscription_details"]["metadata"] = metadata;
        bill.with("parent", parent)
            .with("subtotal", total)
            .with("amount_due", total.max(0))
            .with("hosted_invoice_url", format!("https://invoice.stripe.test/{id}"))
    }

    /// Makes the change, if its invoice is paid.
    fn make(&self, books: &mut Books, subscription: &mut Value, invoice_id: &str, now: i64) {
        if self.prorated_from.is_some() {
            let bill = self.invoice(invoice_id, subscription, now);
            let is_declined = books.declines_cards && bill.json()["amount_due"] != 0;
            let bill = if is_declined { bill.unpaid("open") } else { bill };
            books.objects.insert(format!("/v1/invoices/{invoice_id}"), bill.json().clone());
            subscription["latest_invoice"] = json!(invoice_id);
            if is_declined {
                let mut pending = self.item.clone();
                pending["price"] = self.price.clone();
                pending["quantity"] = self.quantity.into();
                subscription["pending_update"] =
                    json!({"subscription_items": [pending], "expires_at": now + 82_800});
                return;
            }
        }
        let items = subscription["items"]["data"].as_array_mut().expect("a subscription has items");
        let item = items.iter_mut().find(|item| item["id"] == self.item["id"]).expect("it is one of them");
        item["price"] = self.price.clone();
        item["quantity"] = self.quantity.into();
        if self.moves_anchor {
            item["current_period_start"] = now.into();
            item["current_period_end"] = end_of(&self.price, now).into();
        }
        subscription["pending_update"] = Value::Null;
    }
}

/// The time by which a subscription is billed: its test clock's, if it has one.
fn by_clock(books: &Books, subscription: &Value, now: i64) -> i64 {
    let id = subscription["test_clock"].as_str().unwrap_or_default();
    let clock = books.objects.get(&format!("/v1/test_helpers/test_clocks/{id}"));
    clock.and_then(|clock| clock["frozen_time"].as_i64()).unwrap_or(now)
}

fn period_of(item: &Value) -> (i64, i64) {
    let time = |field: &str| item[field].as_i64().expect("an item has a period");
    (time("current_period_start"), time("current_period_end"))
}

/// A price's id, and what so many of it cost.
fn cost((price, quantity): (&Value, i64)) -> (&str, i64) {
    (price["id"].as_str().unwrap_or_default(), price["unit_amount"].as_i64().unwrap_or(0) * quantity)
}

/// When a period of a price that begins at a time ends.
fn end_of(price: &Value, start: i64) -> i64 {
    let months = if price["recurring"]["interval"] == "year" { 12 } else { 1 };
    months_after(start, months)
}

/// The share of an amount that a part of a period is.
fn share(amount: i64, part: (i64, i64), period: (i64, i64)) -> i64 {
    amount * (part.1 - part.0) / (period.1 - period.0)
}

fn number_or_text(value: &str) -> Value {
    value.parse::<i64>().map_or_else(|_| json!(value), |number| json!(number))
}

fn refusal(status: StatusCode, code: &str, message: &str) -> Made {
    (status, json!({"error": {"type": "invalid_request_error", "code": code, "message": message}}))
}
