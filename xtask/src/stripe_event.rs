//! Events as Stripe sends them for a purchase, money that comes back and a subscription, and Stripe's signature.

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

    /// A credit note for so many cents of this paid invoice, given to the customer's balance.
    #[must_use]
    pub fn credit_note(&self, cents: i64) -> Self {
        let now = unix_now();
        let note = json!({
            "id": format!("cn_{}", Uuid::new_v4().simple()),
            "object": "credit_note",
            "status": "issued",
            "livemode": false,
            "created": now,
            "currency": "usd",
            "invoice": self.object_id,
            "total": cents,
            "pre_payment_amount": 0,
            "post_payment_amount": cents,
            "refunds": [],
        });
        Self::about("credit_note.created", now, &note)
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

/// A day, and a month as this subscription is billed.
const DAY_SECONDS: u64 = 86_400;
const MONTH_DAYS: u64 = 30;
/// How many days ago it began: in its second month, so that all of its events are in the past.
const AGE_DAYS: u64 = 57;

/// What an invoice bills of one item of the subscription.
#[derive(Clone, Copy, Debug)]
pub struct Line<'a> {
    /// Which of the subscription's items, from 1.
    pub item: usize,
    /// Its price.
    pub price: &'a str,
    /// Below 0: a credit for unused time.
    pub cents: i64,
    /// Whether it bills the rest of the month, and not the whole month.
    pub is_proration: bool,
}

impl Subscription {
    /// A user's subscription that began 57 days ago.
    #[must_use]
    pub fn of(user: Uuid) -> Self {
        let tag = Uuid::new_v4().simple().to_string();
        Self { user, tag, began: unix_now() - AGE_DAYS * DAY_SECONDS }
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

    /// Its state, so many days after it began, with an item for each of these prices: an event of `event_type`.
    #[must_use]
    pub fn state(&self, event_type: &str, status: &str, prices: &[&str], day: u64) -> Event {
        let (start, end) = self.month(day);
        let items = (1..).zip(prices).map(|(item, price)| {
            json!({
                "id": self.item(item),
                "object": "subscription_item",
                "price": {"id": price, "object": "price"},
                "quantity": 1,
                "current_period_start": start,
                "current_period_end": end,
            })
        });
        let subscription = json!({
            "id": self.id(),
            "object": "subscription",
            "status": status,
            "livemode": false,
            "customer": self.customer(),
            "cancel_at_period_end": false,
            "metadata": {},
            "items": {"object": "list", "has_more": false, "data": items.collect::<Vec<_>>()},
        });
        Event::about(event_type, self.time(day), &subscription)
    }

    /// The `invoice.paid` with these lines, so many days after it began.
    #[must_use]
    pub fn paid(&self, lines: &[Line], day: u64, billing_reason: &str) -> Event {
        let at = self.time(day);
        let billed: Vec<Value> = lines.iter().map(|line| self.line(line, day)).collect();
        let invoice = json!({
            "id": format!("in_{}", Uuid::new_v4().simple()),
            "object": "invoice",
            "status": "paid",
            "livemode": false,
            "created": at,
            "status_transitions": {"paid_at": at},
            "billing_reason": billing_reason,
            "customer": self.customer(),
            "currency": "usd",
            "total": lines.iter().map(|line| line.cents).sum::<i64>(),
            "metadata": {},
            "parent": {
                "type": "subscription_details",
                "subscription_details": {"subscription": self.id(), "metadata": {}},
            },
            "lines": {"object": "list", "has_more": false, "data": billed},
        });
        Event::about("invoice.paid", at, &invoice)
    }

    fn line(&self, line: &Line, day: u64) -> Value {
        let (start, end) = self.month(day);
        let is_credit = line.cents < 0;
        json!({
            "id": format!("il_{}", Uuid::new_v4().simple()),
            "object": "line_item",
            "amount": line.cents,
            "quantity": 1,
            "discount_amounts": [],
            "pricing": {"type": "price_details", "price_details": {"price": line.price}},
            "period": {"start": if line.is_proration { self.time(day) } else { start }, "end": end},
            "parent": {
                "type": "subscription_item_details",
                "subscription_item_details": {
                    "subscription": self.id(),
                    "subscription_item": self.item(line.item),
                    "proration": line.is_proration,
                    "proration_details": {
                        "credited_items": is_credit.then(|| json!({"invoice_line_items": ["il_before"]})),
                    },
                },
            },
        })
    }

    fn id(&self) -> String {
        format!("sub_{}", self.tag)
    }

    fn customer(&self) -> String {
        format!("cus_{}", self.user.simple())
    }

    fn item(&self, item: usize) -> String {
        format!("si_{}_{item}", self.tag)
    }

    /// So many days after it began, in Unix seconds.
    fn time(&self, day: u64) -> u64 {
        self.began + day * DAY_SECONDS
    }

    /// The billed month that a day is in, from and to.
    fn month(&self, day: u64) -> (u64, u64) {
        let first_day = day / MONTH_DAYS * MONTH_DAYS;
        (self.time(first_day), self.time(first_day + MONTH_DAYS))
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

/// Seconds since 1970.
pub(crate) fn unix_now() -> u64 {
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
