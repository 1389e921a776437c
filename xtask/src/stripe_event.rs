//! What Stripe sends when somebody has bought something, and how Stripe signs it.

use std::fmt::Write as _;
use std::time::{SystemTime, UNIX_EPOCH};

use hmac::{Hmac, KeyInit as _, Mac as _};
use serde_json::json;
use sha2::Sha256;
use uuid::Uuid;

/// The header that carries the signature.
pub const SIGNATURE_HEADER: &str = "Stripe-Signature";
/// The version of Stripe's API that shapes the events.
const API_VERSION: &str = "2025-09-30.clover";
/// The price of what is bought, in cents; what it is worth in credits is the catalog's word alone.
const AMOUNT_CENTS: u32 = 1000;

/// An event as it goes over the wire.
#[derive(Clone, Debug)]
pub struct Event {
    /// `evt_…`.
    pub id: String,
    /// The checkout session that was paid, `cs_test_…`.
    pub session_id: String,
    /// The JSON text; a signature is over these very bytes.
    pub body: String,
}

impl Event {
    /// A paid `checkout.session.completed` for one of `price`, with ids of its own.
    #[must_use]
    pub fn checkout_completed(user: Uuid, price: &str) -> Self {
        let tag = Uuid::new_v4().simple().to_string();
        let (id, session_id) = (format!("evt_{tag}"), format!("cs_test_{tag}"));
        let now = unix_now();
        let body = json!({
            "id": id,
            "object": "event",
            "api_version": API_VERSION,
            "created": now,
            "livemode": false,
            "pending_webhooks": 1,
            "request": {"id": null, "idempotency_key": null},
            "type": "checkout.session.completed",
            "data": {"object": {
                "id": session_id,
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
                "metadata": {"user_id": user, "price_id": price, "quantity": "1"},
            }},
        });
        Self { id, session_id, body: body.to_string() }
    }

    /// An event of `event_type` about a refund of this whole purchase, as far as the refund has come.
    #[must_use]
    pub fn refund(&self, event_type: &str, status: &str) -> Self {
        let tag = self.session_id.trim_start_matches("cs_test_");
        let id = format!("evt_{}", Uuid::new_v4().simple());
        let body = json!({
            "id": id,
            "object": "event",
            "api_version": API_VERSION,
            "created": unix_now(),
            "livemode": false,
            "pending_webhooks": 1,
            "request": {"id": null, "idempotency_key": null},
            "type": event_type,
            "data": {"object": {
                "id": format!("re_{tag}"),
                "object": "refund",
                "amount": AMOUNT_CENTS,
                "charge": format!("ch_{tag}"),
                "created": unix_now(),
                "currency": "usd",
                "payment_intent": format!("pi_{tag}"),
                "status": status,
            }},
        });
        Self { id, session_id: self.session_id.clone(), body: body.to_string() }
    }

    /// The value of [`SIGNATURE_HEADER`], signed now.
    #[must_use]
    pub fn signature(&self, secret: &str) -> String {
        sign(secret, unix_now(), self.body.as_bytes())
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
