//! Events as Stripe sends them for a purchase, a refund and a subscription, and Stripe's signature.

use std::fmt::Write as _;
use std::time::{SystemTime, UNIX_EPOCH};

use hmac::{Hmac, KeyInit as _, Mac as _};
use serde_json::{Value, json};
use sha2::Sha256;
use uuid::Uuid;

/// The header that carries the signature.
pub const SIGNATURE_HEADER: &str = "Stripe-Signature";
/// The version of Stripe's API that shapes the events.
const API_VERSION: &str = "2025-09-30.clover";
/// The amount of each purchase, in cents; the catalog alone decides its credits.
const AMOUNT_CENTS: u32 = 1000;

/// An event as it goes over the wire.
#[derive(Clone, Debug)]
pub struct Event {
    /// `evt_…`.
    pub id: String,
    /// The object it is about, such as `cs_test_…`.
    pub object_id: String,
    /// The JSON text; a signature is over these very bytes.
    pub body: String,
}

impl Event {
    /// A paid `checkout.session.completed` for one of `price`, with ids of its own.
    #[must_use]
    pub fn checkout_completed(user: Uuid, price: &str) -> Self {
        let tag = Uuid::new_v4().simple().to_string();
        let now = unix_now();
        let session = json!({
            "id": format!("cs_test_{tag}"),
            "object": "checkout.session",
            "mode": "payment",
            "payment_status": "paid",
            "status": "complete",
            "livemode": false,
            "created": now,
            // A person's customer, the same in every purchase.
            "customer": format!("cus_{}", user.simple()),
            "payment_intent": format!("pi_{tag}"),
            "client_reference_id": null,
            "amount_total": AMOUNT_CENTS,
            "currency": "usd",
            "metadata": {"user_id": user, "price_id": price, "quantity": "1", "fixed_lines": "true"},
        });
        Self::about("checkout.session.completed", now, &session)
    }

    /// An event of `event_type` about a refund of this whole purchase, as far as the refund has come.
    #[must_use]
    pub fn refund(&self, event_type: &str, status: &str) -> Self {
        let tag = self.object_id.trim_start_matches("cs_test_");
        let now = unix_now();
        let refund = json!({
            "id": format!("re_{tag}"),
            "object": "refund",
            "amount": AMOUNT_CENTS,
            "charge": format!("ch_{tag}"),
            "created": now,
            "currency": "usd",
            "payment_intent": format!("pi_{tag}"),
            "status": status,
        });
        Self::about(event_type, now, &refund)
    }

    /// An event about an object, made at a time in Unix seconds.
    fn about(event_type: &str, created: u64, object: &Value) -> Self {
        let id = format!("evt_{}", Uuid::new_v4().simple());
        let body = json!({
            "id": id,
            "object": "event",
            "api_version": API_VERSION,
            "created": created,
            "livemode": false,
            "pending_webhooks": 1,
            "request": {"id": null, "idempotency_key": null},
            "type": event_type,
            "data": {"object": object},
        });
        let object_id = object["id"].as_str().unwrap_or_default().to_owned();
        Self { id, object_id, body: body.to_string() }
    }

    /// The value of [`SIGNATURE_HEADER`], signed now.
    #[must_use]
    pub fn signature(&self, secret: &str) -> String {
        sign(secret, unix_now(), self.body.as_bytes())
    }
}

/// A subscription, and the events that Stripe sends about it.
#[derive(Clone, Debug)]
pub struct Subscription {
    user: Uuid,
    tag: String,
    /// When its first period began, in Unix seconds.
    began: u64,
}

/// A month as this subscription is billed.
const MONTH_SECONDS: u64 = 30 * 86_400;

impl Subscription {
    /// A user's subscription that began a month and a half ago.
    #[must_use]
    pub fn of(user: Uuid) -> Self {
        let tag = Uuid::new_v4().simple().to_string();
        Self { user, tag, began: unix_now() - MONTH_SECONDS * 3 / 2 }
    }

    /// The `checkout.session.completed` that began it: the only one of its events that names the user.
    #[must_use]
    pub fn session(&self) -> Event {
        let session = json!({
            "id": format!("cs_test_{}", self.tag),
            "object": "checkout.session",
            "mode": "subscription",
            "payment_status": "paid",
            "status": "complete",
            "livemode": false,
            "created": self.began,
            "customer": self.customer(),
            "subscription": self.id(),
            "client_reference_id": null,
            "amount_total": AMOUNT_CENTS,
            "currency": "usd",
            "metadata": {"user_id": self.user},
        });
        Event::about("checkout.session.completed", self.began, &session)
    }

    /// Its state, so many months after it began: an event of `event_type`.
    #[must_use]
    pub fn state(&self, event_type: &str, status: &str, price: &str, months: u64) -> Event {
        let start = self.period_start(months);
        let subscription = json!({
            "id": self.id(),
            "object": "subscription",
            "status": status,
            "livemode": false,
            "customer": self.customer(),
            "cancel_at_period_end": false,
            "metadata": {},
            "items": {"object": "list", "has_more": false, "data": [{
                "object": "subscription_item",
                "price": {"id": price, "object": "price"},
                "quantity": 1,
                "current_period_start": start,
                "current_period_end": start + MONTH_SECONDS,
            }]},
        });
        let created = if months == 0 { start } else { unix_now() };
        Event::about(event_type, created, &subscription)
    }

    /// The `invoice.paid` for its period so many months after it began, or with the reason `subscription_update` for a
    /// change to `price` within it, now.
    #[must_use]
    pub fn paid(&self, price: &str, months: u64, billing_reason: &str) -> Event {
        let start = self.period_start(months);
        let from = if billing_reason == "subscription_update" { unix_now() } else { start };
        let invoice = json!({
            "id": format!("in_{}", Uuid::new_v4().simple()),
            "object": "invoice",
            "status": "paid",
            "livemode": false,
            "created": from,
            "billing_reason": billing_reason,
            "customer": self.customer(),
            "currency": "usd",
            "total": AMOUNT_CENTS,
            "metadata": {},
            "parent": {
                "type": "subscription_details",
                "subscription_details": {"subscription": self.id(), "metadata": {}},
            },
            "lines": {"object": "list", "has_more": false, "data": [{
                "object": "line_item",
                "amount": AMOUNT_CENTS,
                "quantity": 1,
                "pricing": {"type": "price_details", "price_details": {"price": price}},
                "period": {"start": from, "end": start + MONTH_SECONDS},
            }]},
        });
        Event::about("invoice.paid", from, &invoice)
    }

    fn id(&self) -> String {
        format!("sub_{}", self.tag)
    }

    fn customer(&self) -> String {
        format!("cus_{}", self.user.simple())
    }

    fn period_start(&self, months: u64) -> u64 {
        self.began + months * MONTH_SECONDS
    }
}

/// Stripe's scheme: HMAC-SHA256 over the timestamp, a dot and the body.
#[must_use]
pub fn sign(secret: &str, timestamp: u64, body: &[u8]) -> String {
    let mut header = format!("t={timestamp},v1=");
    // The error is a key of the wrong length, and HMAC takes keys of every length.
    let Ok(mut hmac) = Hmac::<Sha256>::new_from_slice(secret.as_bytes()) else { return header };
    hmac.update(format!("{timestamp}.").as_bytes());
    hmac.update(body);
    for byte in hmac.finalize().into_bytes() {
        // Writing to a String cannot fail.
        let _ = write!(header, "{byte:02x}");
    }
    header
}

fn unix_now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Made with `printf '1700000000.{"a":1}' | openssl dgst -sha256 -hmac secret`.
    #[test]
    fn the_signature_is_the_one_that_openssl_makes() {
        let expected = "t=1700000000,v1=49f24e537407743fa4a0242bb63b94b9a47ee99cbbe071ccd8a22550ae411686";
        assert_eq!(sign("secret", 1_700_000_000, br#"{"a":1}"#), expected);
    }
}
