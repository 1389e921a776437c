//! Builders of what Stripe sends of subscriptions: their state, invoices and invoice payments, in both shapes of its API.
//!
//! Everything is built in the newer shape, of 2025-03-31 and later; `older()` converts it to the shape before.

use chrono::{DateTime, Months};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::connection::Connection;
use crate::database::Database;
use crate::stripe::{CREATED, Event, Session, catalog, event, session};

/// When the n-th month of the tests' subscriptions begins: the first, 0, with [`CREATED`].
pub fn month(n: u32) -> i64 {
    months_after(CREATED, n)
}

/// A time plus so many calendar months.
pub fn months_after(start: i64, n: u32) -> i64 {
    let start = DateTime::from_timestamp(start, 0).expect("a time");
    start.checked_add_months(Months::new(n)).expect("a time").timestamp()
}

/// The n-th month: from, to.
pub fn period(n: u32) -> (i64, i64) {
    (month(n), month(n + 1))
}

/// The middle of the n-th month: prorations from then on are worth exactly half.
pub fn half_time(n: u32) -> i64 {
    month(n).midpoint(month(n + 1))
}

/// A subscription's object.
#[derive(Debug, Clone, PartialEq)]
pub struct Subscription(Value);

/// An active subscription of `cus_1` to one of a price, in its first month, that names no user.
pub fn subscription(subscription_id: &str, price_id: &str) -> Subscription {
    let subscription = Subscription(json!({
        "id": subscription_id,
        "object": "subscription",
        "cancel_at_period_end": false,
        "canceled_at": null,
        "created": CREATED,
        "currency": "usd",
        "customer": "cus_1",
        "ended_at": null,
        "items": { "object": "list", "has_more": false, "data": [] },
        "livemode": false,
        "metadata": {},
        "status": "active",
        "trial_end": null,
        "trial_start": null,
    }));
    subscription.items(&[(price_id, 1)]).during(period(0))
}

impl Subscription {
    /// With a field set.
    #[must_use]
    pub fn with(mut self, field: &str, value: impl Into<Value>) -> Subscription {
        self.0[field] = value.into();
        self
    }

    /// With the user in its metadata, as the app's server writes it.
    #[must_use]
    pub fn of(mut self, user: Uuid) -> Subscription {
        self.0["metadata"]["user_id"] = user.to_string().into();
        self
    }

    /// With these items: price and quantity each.
    #[must_use]
    pub fn items(mut self, items: &[(&str, i64)]) -> Subscription {
        let data = items.iter().enumerate().map(|(index, (price_id, quantity))| {
            json!({
                "id": format!("si_{}", index + 1),
                "object": "subscription_item",
                "price": { "id": price_id, "object": "price" },
                "quantity": quantity,
            })
        });
        self.0["items"]["data"] = data.collect();
        self
    }

    /// To another price, in the same period.
    #[must_use]
    pub fn to(mut self, price_id: &str) -> Subscription {
        self.0["items"]["data"][0]["price"]["id"] = price_id.into();
        self
    }

    /// In another status.
    #[must_use]
    pub fn status(self, status: &str) -> Subscription {
        self.with("status", status)
    }

    /// In another period.
    #[must_use]
    pub fn during(mut self, (start, end): (i64, i64)) -> Subscription {
        for item in self.item_list() {
            (item["current_period_start"], item["current_period_end"]) = (start.into(), end.into());
        }
        self
    }

    /// In its trial.
    #[must_use]
    pub fn trial(self, (start, end): (i64, i64)) -> Subscription {
        let trialing = self.status("trialing").with("trial_start", start).with("trial_end", end);
        trialing.during((start, end))
    }

    /// Canceled, and ended at a time.
    #[must_use]
    pub fn ended(self, at: i64) -> Subscription {
        self.status("canceled").with("canceled_at", at).with("ended_at", at)
    }

    /// Without any period, as some payloads are.
    #[must_use]
    pub fn without_period(mut self) -> Subscription {
        for item in self.item_list() {
            let item = item.as_object_mut().expect("an item is an object");
            item.remove("current_period_start");
            item.remove("current_period_end");
        }
        self
    }

    /// The same in the older shape: the period on the subscription.
    #[must_use]
    pub fn older(mut self) -> Subscription {
        for field in ["current_period_start", "current_period_end"] {
            let value = self.0["items"]["data"][0].get(field).cloned();
            if let Some(value) = value {
                self.0[field] = value;
            }
        }
        self.without_period()
    }

    fn item_list(&mut self) -> &mut Vec<Value> {
        self.0["items"]["data"].as_array_mut().expect("items are a list")
    }

    /// The object.
    pub fn json(&self) -> &Value {
        &self.0
    }

    /// An event about it, made at a time.
    #[must_use]
    pub fn event(&self, event_id: &str, event_type: &str, created: i64) -> Event {
        event(event_id, &format!("customer.subscription.{event_type}"), self.0.clone())
            .with("created", created)
    }

    /// Its `customer.subscription.created`, made at its start.
    #[must_use]
    pub fn created(&self, event_id: &str) -> Event {
        self.event(event_id, "created", CREATED)
    }

    /// Its `customer.subscription.updated`, made at a time.
    #[must_use]
    pub fn updated(&self, event_id: &str, created: i64) -> Event {
        self.event(event_id, "updated", created)
    }

    /// Its `customer.subscription.deleted`, made at a time.
    #[must_use]
    pub fn deleted(&self, event_id: &str, created: i64) -> Event {
        self.clone().ended(created).event(event_id, "deleted", created)
    }
}

/// A line of an invoice.
#[derive(Debug, Clone, PartialEq)]
pub struct Line(Value);

/// A line that bills one of a price for a period, at so many cents.
pub fn line(price_id: &str, amount: i64, (start, end): (i64, i64)) -> Line {
    Line(json!({
        "object": "line_item",
        "amount": amount,
        "currency": "usd",
        "discount_amounts": [],
        "parent": {
            "type": "subscription_item_details",
            "subscription_item_details": { "proration": false },
            "invoice_item_details": null,
        },
        "period": { "start": start, "end": end },
        "pricing": { "type": "price_details", "price_details": { "price": price_id } },
        "quantity": 1,
    }))
}

impl Line {
    /// With this quantity.
    #[must_use]
    pub fn quantity(mut self, quantity: i64) -> Line {
        self.0["quantity"] = quantity.into();
        self
    }

    /// With a discount of so many cents.
    #[must_use]
    pub fn discounted(mut self, amount: i64) -> Line {
        self.0["discount_amounts"] = json!([{ "amount": amount, "discount": "di_1" }]);
        self
    }

    /// As a proration: an invoice item rather than a subscription's item.
    #[must_use]
    pub fn prorated(mut self) -> Line {
        self.0["parent"] = json!({
            "type": "invoice_item_details",
            "subscription_item_details": null,
            "invoice_item_details": { "proration": true },
        });
        self
    }

    /// Of a subscription's item, which it names.
    #[must_use]
    pub fn item(mut self, item_id: &str) -> Line {
        let mut origin = self.origin().clone();
        origin["subscription_item"] = item_id.into();
        self.0["parent"] = json!({
            "type": "subscription_item_details",
            "subscription_item_details": origin,
            "invoice_item_details": null,
        });
        self
    }

    /// Of a subscription, which it names.
    #[must_use]
    pub fn of_subscription(mut self, subscription_id: &str) -> Line {
        self.origin()["subscription"] = subscription_id.into();
        self
    }

    /// Crediting a line of an earlier invoice, which it names.
    #[must_use]
    pub fn crediting(mut self, invoice_id: &str) -> Line {
        self.origin()["proration_details"] =
            json!({ "credited_items": { "invoice": invoice_id, "invoice_line_items": ["il_1"] } });
        self
    }

    /// As an item that somebody put on the invoice, which is of no subscription.
    #[must_use]
    pub fn billed_once(mut self) -> Line {
        self.0["parent"] = json!({
            "type": "invoice_item_details",
            "subscription_item_details": null,
            "invoice_item_details": { "invoice_item": "ii_1", "proration": false },
        });
        self
    }

    /// With a text for people.
    #[must_use]
    pub fn described(mut self, text: &str) -> Line {
        self.0["description"] = text.into();
        self
    }

    /// Of a product.
    #[must_use]
    pub fn of_product(mut self, product_id: &str) -> Line {
        self.0["pricing"]["price_details"]["product"] = product_id.into();
        self
    }

    /// Without a price.
    #[must_use]
    pub fn without_price(mut self) -> Line {
        self.0["pricing"] = Value::Null;
        self
    }

    /// What it was made from.
    fn origin(&mut self) -> &mut Value {
        let place = self.0["parent"]["type"].as_str().expect("a parent has a type").to_owned();
        &mut self.0["parent"][place]
    }

    fn older(mut self) -> Line {
        let origin = self.origin().clone();
        let line = self.0.as_object_mut().expect("a line is an object");
        let pricing = line.remove("pricing").expect("a line says what its price is");
        let details = &pricing["price_details"];
        let price = match &details["price"] {
            Value::Null => Value::Null,
            price_id => json!({ "id": price_id, "object": "price", "product": details["product"] }),
        };
        let parent = line.remove("parent").expect("a line has a parent");
        let is_of_item = parent["type"] == "subscription_item_details" && origin["proration"] == false;
        line.insert("price".into(), price);
        line.insert("type".into(), if is_of_item { "subscription" } else { "invoiceitem" }.into());
        for field in ["proration", "proration_details", "subscription", "subscription_item"] {
            line.insert(field.into(), origin[field].clone());
        }
        self
    }
}

/// An invoice's object.
#[derive(Debug, Clone, PartialEq)]
pub struct Invoice(Value);

/// A paid invoice of a subscription of `cus_1`, without any line, that names no user.
pub fn invoice(invoice_id: &str, subscription_id: &str) -> Invoice {
    Invoice(json!({
        "id": invoice_id,
        "object": "invoice",
        "billing_reason": "subscription_cycle",
        "created": CREATED,
        "currency": "usd",
        "customer": "cus_1",
        "lines": {
            "object": "list", "has_more": false, "url": format!("/v1/invoices/{invoice_id}/lines"), "data": [],
        },
        "livemode": false,
        "metadata": {},
        "parent": {
            "type": "subscription_details",
            "quote_details": null,
            "subscription_details": { "subscription": subscription_id, "metadata": {} },
        },
        "status": "paid",
        "status_transitions": { "paid_at": CREATED },
        "total": 0,
    }))
}

/// The paid invoice for the n-th month of a subscription to a price.
pub fn renewal(invoice_id: &str, subscription_id: &str, (price_id, amount): (&str, i64), n: u32) -> Invoice {
    let reason = if n == 0 { "subscription_create" } else { "subscription_cycle" };
    invoice(invoice_id, subscription_id)
        .with("billing_reason", reason)
        .line(line(price_id, amount, period(n)))
        .paid_at(month(n))
}

/// `price_pro` and its amount.
pub const PRO: (&str, i64) = ("price_pro", 10_000);

/// `price_max` and its amount.
pub const MAX: (&str, i64) = ("price_max", 30_000);

/// `price_seat` and its amount.
pub const SEAT: (&str, i64) = ("price_seat", 1_000);

/// `price_quarter` and its amount.
pub const QUARTER: (&str, i64) = ("price_quarter", 30_000);

/// `price_pro_year` and its amount.
pub const YEAR: (&str, i64) = ("price_pro_year", 120_000);

/// `price_pack_month` and its amount.
pub const PACK_MONTH: (&str, i64) = ("price_pack_month", 1_000);

/// `price_roll` and its amount.
pub const ROLL: (&str, i64) = ("price_roll", 1_000);

impl Invoice {
    /// With a field set.
    #[must_use]
    pub fn with(mut self, field: &str, value: impl Into<Value>) -> Invoice {
        self.0[field] = value.into();
        self
    }

    /// With one more line, which its total counts.
    #[must_use]
    pub fn line(mut self, line: Line) -> Invoice {
        let discounts = line.0["discount_amounts"].as_array().expect("a list");
        let discounts: i64 = discounts.iter().filter_map(|discount| discount["amount"].as_i64()).sum();
        let total = self.0["total"].as_i64().unwrap_or(0) + line.0["amount"].as_i64().unwrap_or(0);
        self.0["total"] = (total - discounts).into();
        self.0["lines"]["data"].as_array_mut().expect("lines are a list").push(line.0);
        self
    }

    /// With the user in the invoice's copy of its subscription's metadata.
    #[must_use]
    pub fn of(mut self, user: Uuid) -> Invoice {
        self.0["parent"]["subscription_details"]["metadata"]["user_id"] = user.to_string().into();
        self
    }

    /// Paid, and made, at a time.
    #[must_use]
    pub fn paid_at(mut self, at: i64) -> Invoice {
        self.0["status_transitions"]["paid_at"] = at.into();
        self.with("created", at)
    }

    /// Not paid, in another of Stripe's statuses.
    #[must_use]
    pub fn unpaid(mut self, status: &str) -> Invoice {
        self.0["status_transitions"]["paid_at"] = Value::Null;
        self.with("status", status)
    }

    /// For a change within a period, not for a period itself.
    #[must_use]
    pub fn mid_period(self) -> Invoice {
        self.with("billing_reason", "subscription_update")
    }

    /// With more lines than the object carries.
    #[must_use]
    pub fn with_more_lines(mut self) -> Invoice {
        self.0["lines"]["has_more"] = true.into();
        self
    }

    /// The same in the older shape: the subscription on the invoice, prices and prorations on its lines.
    #[must_use]
    pub fn older(mut self) -> Invoice {
        let lines = self.0["lines"]["data"].as_array().expect("lines are a list");
        self.0["lines"]["data"] = lines.iter().map(|line| Line(line.clone()).older().0).collect();
        let parent = self.0.as_object_mut().and_then(|invoice| invoice.remove("parent"));
        let details = &parent.expect("an invoice has a parent")["subscription_details"];
        self.0["subscription"] = details["subscription"].clone();
        self.0["subscription_details"] = json!({ "metadata": details["metadata"] });
        self.0["paid"] = (self.0["status"] == "paid").into();
        self.0["payment_intent"] = Value::Null;
        self
    }

    /// `in_…`.
    pub fn id(&self) -> &str {
        self.0["id"].as_str().unwrap_or_default()
    }

    /// The object.
    pub fn json(&self) -> &Value {
        &self.0
    }

    /// The list of its lines, as Stripe's `/lines` answers it.
    pub fn lines(&self) -> Value {
        let mut lines = self.0["lines"].clone();
        lines["has_more"] = false.into();
        lines
    }

    /// An event about it, made when it was.
    #[must_use]
    pub fn event(&self, event_id: &str, event_type: &str) -> Event {
        event(event_id, &format!("invoice.{event_type}"), self.0.clone())
            .with("created", self.0["created"].clone())
    }

    /// Its `invoice.paid`.
    #[must_use]
    pub fn paid(&self, event_id: &str) -> Event {
        self.event(event_id, "paid")
    }
}

/// The `invoice_payment.paid` that says which payment intent paid an invoice.
pub fn invoice_payment(event_id: &str, invoice_id: &str, payment_intent: &str) -> Event {
    let payment = json!({
        "id": payment_intent.replacen("pi_", "inpay_", 1),
        "object": "invoice_payment",
        "invoice": invoice_id,
        "livemode": false,
        "payment": { "type": "payment_intent", "payment_intent": payment_intent },
        "status": "paid",
    });
    event(event_id, "invoice_payment.paid", payment)
}

/// A completed session of `cus_1` that began a subscription, and names no user.
pub fn subscribing(session_id: &str, subscription_id: &str, invoice_id: &str) -> Session {
    session(session_id)
        .with("mode", "subscription")
        .with("customer", "cus_1")
        .with("payment_intent", Value::Null)
        .with("subscription", subscription_id)
        .with("invoice", invoice_id)
}

/// What the shim hands over: objects fetched from Stripe, as of a time.
pub fn fetched(as_of: i64, objects: &[&Value]) -> Value {
    json!({ "as_of": as_of, "objects": objects })
}

impl Connection {
    /// A user's tier and subscription status, such as `pro active`.
    pub fn tier(&mut self, user: Uuid) -> String {
        self.one(
            "select coalesce((select subscription_tier || ' ' || subscription_status
                              from billing.user_credits where user_id = $1), 'free none')",
            &[&user],
        )
    }

    /// The row of a subscription, such as `price_pro pro active`; `None` if there is none.
    pub fn known(&mut self, subscription_id: &str) -> Option<String> {
        self.column(
            "select concat_ws(' ', price_id, tier, status) from billing.subscriptions where subscription_id = $1",
            &[&subscription_id],
        )
        .pop()
    }

    /// The state of all users with their subscriptions: balances, debts, tiers, lots to come, rows without their times.
    pub fn subscribed_state(&mut self) -> Vec<String> {
        self.column(
            "select format('account %s: %s/%s/%s debt %s, %s %s', user_id, subscription_credits, purchased_credits,
                        promotional_credits, debt, tier, subscription_status) from billing.accounts
             union all
             select format('lots %s: %s to come, %s expire', user_id, sum(pending),
                        sum(remaining + pending) filter (where expires_at is not null))
             from billing.credit_grants where remaining + pending > 0 group by user_id
             union all
             select format('subscription %s: %s', subscription_id, (to_jsonb(s)
                        - array['as_of', 'seen_at', 'listed_since', 'known_at', 'stripe_event_id', 'created_at', 'updated_at', 'subscription_id'])::text)
             from billing.subscriptions s
             union all
             select format('payment %s: %s, paid: %s', source_id, user_id, paid_at is not null) from billing.payments
             union all
             select format('customer %s: %s', customer_id, user_id) from billing.customers
             union all
             select format('waiting: %s %s %s', event_id, outcome, reason) from billing.stripe_events
             where outcome in ('parked', 'needs_fetch')
             order by 1",
            &[],
        )
    }

    /// Applies an event twice and returns the first outcome, which must not be a rejection; the second must change nothing.
    pub fn twice(&mut self, event: &Event) -> String {
        let first = self.apply(event);
        assert_ne!(first.outcome, "rejected", "{first:?}");
        let before = (self.total_ledger(), self.subscribed_state());
        let second = self.apply(event);
        assert_eq!(second.credits, 0, "{}: {second:?}", event.id());
        assert_eq!((self.total_ledger(), self.subscribed_state()), before, "{} again", event.id());
        first.summary()
    }

    fn total_ledger(&mut self) -> i64 {
        self.one("select count(*) from billing.credit_transactions", &[])
    }

    /// The database's clock in whole Unix seconds.
    pub fn unix_now(&mut self) -> i64 {
        self.one("select floor(extract(epoch from clock_timestamp()))::bigint", &[])
    }
}

/// The scenarios' catalog with fields of all of its plans set.
///
/// # Panics
/// If `fields` is not an object.
pub fn plans_with(fields: &Value) -> Value {
    let mut catalog = catalog();
    for plan in catalog["plans"].as_array_mut().expect("plans") {
        for (field, value) in fields.as_object().expect("fields") {
            plan[field] = value.clone();
        }
    }
    catalog
}

/// A database whose catalog is [`plans_with`] these fields.
pub fn database_with(fields: &Value) -> Database {
    let db = Database::new();
    db.connect().load_catalog(&plans_with(fields));
    db
}
