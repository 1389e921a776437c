//! Builders of what Stripe sends: checkout sessions, line items, events.

use serde_json::{Value, json};
use uuid::Uuid;

/// `created` of the tests' sessions and events, unless a test sets another.
pub const CREATED: i64 = 1_760_000_000;

/// The catalog of all scenarios.
pub fn catalog() -> Value {
    serde_json::from_str(include_str!("../../catalog.example.json")).expect("catalog.example.json is JSON")
}

/// The same, with these packs instead of its own.
pub fn catalog_of_packs(packs: &Value) -> Value {
    let mut catalog = catalog();
    catalog["packs"] = packs.clone();
    catalog
}

/// A checkout session's object.
#[derive(Debug, Clone, PartialEq)]
pub struct Session(Value);

/// A paid session in mode payment that names no user, no customer and no lines, and whose buyer cannot change the lines.
pub fn session(session_id: &str) -> Session {
    let name = session_id.trim_start_matches("cs_");
    Session(json!({
        "id": session_id,
        "object": "checkout.session",
        "amount_subtotal": 1000,
        "amount_total": 1000,
        "client_reference_id": null,
        "created": CREATED,
        "currency": "usd",
        "customer": null,
        "livemode": false,
        "metadata": { "fixed_lines": "true" },
        "mode": "payment",
        "payment_intent": format!("pi_{name}"),
        "payment_status": "paid",
        "status": "complete",
    }))
}

/// A paid session for one `price_pack` with the user in its metadata.
pub fn paid_pack(session_id: &str, user: Uuid) -> Session {
    session(session_id).of(user).metadata("price_id", "price_pack")
}

impl Session {
    /// With a field set.
    #[must_use]
    pub fn with(mut self, field: &str, value: impl Into<Value>) -> Session {
        self.0[field] = value.into();
        self
    }

    /// With a field left out.
    #[must_use]
    pub fn without(mut self, field: &str) -> Session {
        self.0.as_object_mut().expect("a session is an object").remove(field);
        self
    }

    /// With an entry in its metadata.
    #[must_use]
    pub fn metadata(mut self, key: &str, value: impl Into<Value>) -> Session {
        self.0["metadata"][key] = value.into();
        self
    }

    /// With lines that the buyer can change on Stripe's page.
    #[must_use]
    pub fn changeable(self) -> Session {
        self.metadata("fixed_lines", Value::Null)
    }

    /// With the user in its metadata, as the app's server writes it.
    #[must_use]
    pub fn of(self, user: Uuid) -> Session {
        self.metadata("user_id", user.to_string())
    }

    /// With its line items expanded: price and quantity each.
    #[must_use]
    pub fn lines(self, lines: &[(&str, i64)]) -> Session {
        let list = line_items(&self, lines);
        self.with("line_items", list)
    }

    /// `cs_…`.
    pub fn id(&self) -> &str {
        self.0["id"].as_str().unwrap_or_default()
    }

    /// The object.
    pub fn json(&self) -> &Value {
        &self.0
    }

    /// Its `checkout.session.completed`.
    #[must_use]
    pub fn completed(&self, event_id: &str) -> Event {
        self.event(event_id, "checkout.session.completed")
    }

    /// An event about it.
    #[must_use]
    pub fn event(&self, event_id: &str, event_type: &str) -> Event {
        event(event_id, event_type, self.0.clone())
    }
}

/// An event.
#[derive(Debug, Clone, PartialEq)]
pub struct Event(Value);

/// An event about an object.
pub fn event(event_id: &str, event_type: &str, object: Value) -> Event {
    let mut event = json!({
        "id": event_id,
        "object": "event",
        "api_version": "2025-09-30.clover",
        "created": CREATED,
        "livemode": false,
        "pending_webhooks": 1,
        "type": event_type,
        "data": {},
    });
    event["data"]["object"] = object;
    Event(event)
}

impl Event {
    /// A whole event as it was received.
    pub fn received(json: Value) -> Event {
        Event(json)
    }

    /// With a field set.
    #[must_use]
    pub fn with(mut self, field: &str, value: impl Into<Value>) -> Event {
        self.0[field] = value.into();
        self
    }

    /// `evt_…`.
    pub fn id(&self) -> &str {
        self.0["id"].as_str().unwrap_or_default()
    }

    /// The whole event.
    pub fn json(&self) -> &Value {
        &self.0
    }
}

/// A page of line items, as Stripe's `/line_items` answers it.
fn line_items(session: &Session, lines: &[(&str, i64)]) -> Value {
    let data: Vec<Value> = lines
        .iter()
        .enumerate()
        .map(|(index, (price, quantity))| {
            json!({
                "id": format!("li_{}", index + 1),
                "object": "item",
                "price": { "id": price, "object": "price" },
                "quantity": quantity,
            })
        })
        .collect();
    json!({
        "object": "list",
        "url": format!("/v1/checkout/sessions/{}/line_items", session.id()),
        "has_more": false,
        "data": data,
    })
}

/// What the shim hands over after fetching a session's line items: price and quantity each.
pub fn fetched_lines(session: &Session, lines: &[(&str, i64)]) -> Value {
    json!({ "as_of": CREATED + 60, "objects": [line_items(session, lines)] })
}

/// What the shim hands over if it cannot ask Stripe.
pub fn nothing_fetched() -> Value {
    json!({})
}
