//! What the fake does to products, customers and invoices without a subscription: it makes them, has them paid by a test
//! card, and lists the events.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::{Books, Posted};

type Form = BTreeMap<String, String>;

/// What a price costs that says nothing else, in cents.
const CENTS: i64 = 1000;

/// Makes or changes what a path of these names; none if it names something else.
pub(super) fn change(books: &mut Books, request: &Posted, form: &Form, made: usize) -> Option<Value> {
    let segments: Vec<&str> = request.path.split('/').skip(1).collect();
    let now = request.now;
    Some(match segments.as_slice() {
        ["v1", "products"] => keep(
            books,
            request.path,
            json!({
                "id": format!("prod_made_{made}"), "object": "product", "name": form.get("name"), "active": true,
            }),
        ),
        ["v1", "prices"] => keep(
            books,
            request.path,
            json!({
                "id": format!("price_made_{made}"), "object": "price", "active": true, "livemode": false,
                "product": form.get("product"), "currency": form.get("currency"), "type": "one_time",
                "unit_amount": number(form, "unit_amount"), "recurring": null, "metadata": {},
            }),
        ),
        ["v1", "customers"] => keep(
            books,
            request.path,
            json!({
                "id": format!("cus_made_{made}"), "object": "customer", "livemode": false, "metadata": metadata(form),
            }),
        ),
        ["v1", "coupons"] => keep(
            books,
            request.path,
            json!({
                "id": format!("coupon_made_{made}"), "object": "coupon", "percent_off": number(form, "percent_off"),
            }),
        ),
        ["v1", "tax_rates"] => keep(
            books,
            request.path,
            json!({
                "id": format!("txr_made_{made}"), "object": "tax_rate", "percentage": number(form, "percentage"),
            }),
        ),
        ["v1", "invoices"] => keep(books, request.path, draft(form, now, made)),
        ["v1", "invoiceitems"] => add_item(books, form, now, made)?,
        ["v1", "invoices", _, "finalize"] => {
            let path = request.path.trim_end_matches("/finalize");
            let invoice = books.objects.get_mut(path)?;
            invoice["status"] = "open".into();
            invoice.clone()
        }
        ["v1", "invoices", _, "pay"] => pay(books, request.path.trim_end_matches("/pay"), now)?,
        ["v1", "payment_intents"] => {
            let intent = json!({
                "id": format!("pi_made_{made}"), "object": "payment_intent", "livemode": false, "created": now,
                "status": "succeeded", "customer": form.get("customer"), "currency": form.get("currency"),
                "amount": number(form, "amount"), "amount_received": number(form, "amount"),
                "latest_charge": format!("ch_made_{made}"), "metadata": metadata(form),
            });
            happened(books, "payment_intent.succeeded", &intent, now);
            keep(books, request.path, intent)
        }
        ["v1", "checkout", "sessions", _, "expire"] => {
            let path = request.path.trim_end_matches("/expire");
            let session = books.objects.get_mut(path)?;
            session["status"] = "expired".into();
            let session = session.clone();
            happened(books, "checkout.session.expired", &session, now);
            session
        }
        _ => return None,
    })
}

/// Whether a request charges a card at once.
pub(super) fn charges_a_card(path: &str) -> bool {
    path == "/v1/payment_intents" || path.ends_with("/pay")
}

/// A buyer pays the session, if one is open at this path.
pub(super) fn pay_session(books: &mut Books, path: &str, now: i64) {
    let Some(session) = books.objects.get_mut(path).filter(|session| session["status"] == "open") else {
        return;
    };
    session["status"] = "complete".into();
    session["payment_status"] = "paid".into();
    session["payment_intent"] = path.replace("/v1/checkout/sessions/cs", "pi").into();
    let session = session.clone();
    happened(books, "checkout.session.completed", &session, now);
}

/// <https://docs.stripe.com/api/invoices/create>
fn draft(form: &Form, now: i64, made: usize) -> Value {
    json!({
        "id": format!("in_made_{made}"), "object": "invoice", "livemode": false, "status": "draft", "created": now,
        "customer": form.get("customer"), "currency": "usd", "billing_reason": "manual", "metadata": metadata(form),
        "parent": null, "status_transitions": {"paid_at": null}, "total": 0,
        "lines": {"object": "list", "has_more": false, "data": []},
        // Not Stripe's, but what the total is made from.
        "of_the_fake": {"coupon": form.get("discounts[0][coupon]"), "tax_rate": form.get("default_tax_rates[0]")},
    })
}

/// <https://docs.stripe.com/api/invoiceitems/create>
fn add_item(books: &mut Books, form: &Form, now: i64, made: usize) -> Option<Value> {
    let (price_id, invoice) = (form.get("pricing[price]")?, form.get("invoice")?);
    let price = books.objects.get(&format!("/v1/prices/{price_id}"))?.clone();
    let quantity = number(form, "quantity").unwrap_or(1);
    let amount = price["unit_amount"].as_i64().unwrap_or(CENTS) * quantity;
    let percent = |kind: &str, field: &str, books: &Books| {
        let id =
            books.objects.get(&format!("/v1/invoices/{invoice}"))?["of_the_fake"][kind].as_str()?.to_owned();
        books.objects.get(&format!("/v1/{kind}s/{id}"))?[field].as_i64()
    };
    let discount = percent("coupon", "percent_off", books).unwrap_or(0) * amount / 100;
    let tax = percent("tax_rate", "percentage", books).unwrap_or(0) * amount / 100;
    let discounts = if discount > 0 { json!([{"amount": discount, "discount": "di_1"}]) } else { json!([]) };
    let line = json!({
        "id": format!("il_made_{made}"), "object": "line_item", "amount": amount, "currency": "usd", "quantity": quantity,
        "discount_amounts": discounts, "period": {"start": now, "end": now},
        "pricing": {"type": "price_details", "price_details": {"price": price_id, "product": price["product"]}},
        "parent": {
            "type": "invoice_item_details", "subscription_item_details": null,
            "invoice_item_details": {"invoice_item": format!("ii_made_{made}"), "proration": false},
        },
    });
    let invoice = books.objects.get_mut(&format!("/v1/invoices/{invoice}"))?;
    invoice["total"] = (invoice["total"].as_i64().unwrap_or(0) + amount - discount + tax).into();
    invoice["lines"]["data"].as_array_mut()?.push(line);
    Some(json!({"id": format!("ii_made_{made}"), "object": "invoiceitem", "amount": amount}))
}

fn pay(books: &mut Books, path: &str, now: i64) -> Option<Value> {
    let invoice = books.objects.get_mut(path)?;
    invoice["status"] = "paid".into();
    invoice["status_transitions"]["paid_at"] = now.into();
    let mut paid = invoice.clone();
    paid.as_object_mut()?.remove("of_the_fake");
    let lines = paid["lines"]["data"].as_array()?.clone();
    books.lists.insert(format!("{path}/lines"), lines);
    for event_type in ["invoice.paid", "invoice.payment_succeeded"] {
        happened(books, event_type, &paid, now);
    }
    Some(paid)
}

/// Lists an event, newest first.
pub(super) fn happened(books: &mut Books, event_type: &str, object: &Value, now: i64) {
    let events = books.lists.entry("/v1/events".to_owned()).or_default();
    let event = json!({
        "id": format!("evt_made_{}", events.len() + 1), "object": "event", "api_version": "2025-03-31.basil",
        "created": now, "livemode": false, "pending_webhooks": 0, "type": event_type, "data": {"object": object},
        "request": {"id": null, "idempotency_key": null},
    });
    events.insert(0, event);
}

fn keep(books: &mut Books, list: &str, object: Value) -> Value {
    let id = object["id"].as_str().unwrap_or_default();
    books.objects.insert(format!("{list}/{id}"), object.clone());
    object
}

pub(super) fn number(form: &Form, name: &str) -> Option<i64> {
    form.get(name)?.parse().ok()
}

pub(super) fn metadata(form: &Form) -> BTreeMap<&str, &String> {
    let entry = |(name, value)| {
        let name: &String = name;
        Some((name.strip_prefix("metadata[")?.strip_suffix(']')?, value))
    };
    form.iter().filter_map(entry).collect()
}
