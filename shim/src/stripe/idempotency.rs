//! Idempotency keys: a request that Stripe must execute once has the same key each time it is sent.

use hyper::body::Bytes;
use hyper::header::HeaderMap;
use sha2::{Digest as _, Sha256};
use thiserror::Error;
use uuid::Uuid;

use crate::stripe::client::StripeObject;
use crate::stripe::form::Form;

/// The header in which an app's client or server may send its own key; the same name as Stripe's.
pub(crate) const HEADER: &str = "idempotency-key";
/// The longest key, in bytes: Stripe's limit.
const MAX_KEY_BYTES: usize = 255;
/// How long a change to an object keeps its key, in seconds. Stripe repeats the first response to a key for a day,
/// even a declined card or a failure of its own; a user who tries again after this time wants a new attempt.
const CHANGE_SECONDS: u64 = 60;

/// A client's own key that Stripe would reject.
#[derive(Debug, PartialEq, Eq, Error)]
#[error("Idempotency-Key must be 1 to 255 characters of ASCII")]
pub(crate) struct MalformedKey;

/// The key for a client's request. With a key of the client's own it depends on that, the user and the form, so that
/// one user cannot reuse another's key; without one it is new.
pub(crate) fn for_request(headers: &HeaderMap, user: Uuid, form: &Form) -> Result<String, MalformedKey> {
    let Some(value) = headers.get(HEADER) else {
        return Ok(fresh());
    };
    match value.to_str() {
        Ok(key) if !key.is_empty() && key.len() <= MAX_KEY_BYTES => {
            Ok(digest(&[&user.to_string(), key, &form.encode()]))
        }
        _ => Err(MalformedKey),
    }
}

/// The key for a change to an object in its present state. Two clicks are one change; a change, a change back and the
/// first change again are three; a retry a minute after a failure is a new one.
pub(crate) fn for_change(object: &StripeObject, form: &Form) -> String {
    let minute = object.as_of / CHANGE_SECONDS;
    digest(&[object.json.get(), &minute.to_string(), &form.encode()])
}

/// So many attempts to make a top-up's payment intent have one key: as long as Stripe repeats a failure of its own under it, no
/// attempt succeeds.
const ATTEMPTS_PER_KEY: i32 = 5;

/// The key for a top-up's payment intent. Whoever goes on after a crash gets the same one from Stripe, if it is asked for the
/// same; another one does no harm, because only the one that is named first is ever confirmed.
pub(crate) fn for_top_up_intent(top_up_id: &str, form: &Form, attempts: i32) -> String {
    digest(&[top_up_id, &form.encode(), &(attempts / ATTEMPTS_PER_KEY).to_string()])
}

/// The key for a change of the payment intent of a top-up, once in an attempt. Its status says whether a change was made, so
/// that the next attempt needs no answer to this one.
pub(crate) fn for_top_up(top_up_id: &str, change: &str, attempts: i32) -> String {
    digest(&[top_up_id, change, &attempts.to_string()])
}

/// The key for a request that may be executed again.
pub(crate) fn fresh() -> String {
    Uuid::new_v4().to_string()
}

fn digest(parts: &[&str]) -> String {
    let mut digest = Sha256::new();
    for part in parts {
        // The length separates a part from the next.
        digest.update(part.len().to_be_bytes());
        digest.update(part);
    }
    format!("{:x}", Bytes::copy_from_slice(&digest.finalize()))
}

#[cfg(test)]
mod tests {
    use hyper::header::HeaderValue;
    use proptest::prelude::*;

    use super::*;

    const ANN: Uuid = Uuid::from_u128(1);
    const BOB: Uuid = Uuid::from_u128(2);

    fn keyed(key: &str, user: Uuid, price: &str) -> Result<String, MalformedKey> {
        let headers = HeaderMap::from_iter([(
            HEADER.parse().expect("a header's name"),
            HeaderValue::from_str(key).expect("a header's value"),
        )]);
        for_request(&headers, user, &Form::default().with("price", price))
    }

    #[test]
    fn a_clients_key_is_one_key_for_one_user_and_one_content() {
        let key = |key, user, price| keyed(key, user, price).unwrap();
        assert_eq!(key("k", ANN, "p"), key("k", ANN, "p"));
        assert_ne!(key("k", ANN, "p"), key("k", BOB, "p"));
        assert_ne!(key("k", ANN, "p"), key("k", ANN, "q"));
        assert_ne!(key("k", ANN, "p"), key("l", ANN, "p"));
        assert!(key("k", ANN, "p").len() <= MAX_KEY_BYTES);
        let none = HeaderMap::new();
        let fresh = || for_request(&none, ANN, &Form::default()).unwrap();
        assert_ne!(fresh(), fresh());
    }

    #[test]
    fn a_change_keeps_its_key_for_a_minute_and_as_long_as_its_object_is_the_same() {
        let key = |object: &str, as_of| {
            let object = serde_json::from_str(object).unwrap();
            for_change(&StripeObject { json: object, as_of }, &Form::default().with("price", "p"))
        };
        let first = key(r#"{"id":"sub_1"}"#, 600);
        assert_eq!(key(r#"{"id":"sub_1"}"#, 659), first);
        assert_ne!(key(r#"{"id":"sub_1"}"#, 660), first);
        assert_ne!(key(r#"{"id":"sub_1","latest_invoice":"in_2"}"#, 600), first);
    }

    #[test]
    fn a_key_that_stripe_would_reject_is_rejected() {
        for wrong in [String::new(), "k".repeat(MAX_KEY_BYTES + 1), "\u{e9}".to_owned()] {
            assert_eq!(keyed(&wrong, ANN, "p"), Err(MalformedKey), "{wrong:?}");
        }
    }

    proptest! {
        #[test]
        fn different_parts_have_different_digests(a in ".{0,8}", b in ".{0,8}", c in ".{0,8}", d in ".{0,8}") {
            prop_assert_eq!(digest(&[&a, &b]) == digest(&[&c, &d]), (a, b) == (c, d));
        }
    }
}
