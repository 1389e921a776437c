//! Idempotency keys: what Stripe is to do once carries the same key each time it is sent.

use hyper::body::Bytes;
use hyper::header::HeaderMap;
use sha2::{Digest as _, Sha256};
use thiserror::Error;
use uuid::Uuid;

use crate::stripe::client::Answer;
use crate::stripe::form::Form;

/// The header in which an app's client may send a key of its own, as Stripe's is named.
pub(crate) const HEADER: &str = "idempotency-key";
/// The longest such key, in bytes; Stripe's own limit.
const MAX_KEY_BYTES: usize = 255;
/// How long a change to an object keeps its key, in seconds. Stripe repeats what came of a key for a day, a declined
/// card and its own failures included; a person who tries again by then means it.
const CHANGE_SECONDS: u64 = 60;

/// A client's own key that Stripe would refuse.
#[derive(Debug, PartialEq, Eq, Error)]
#[error("Idempotency-Key must be 1 to 255 characters of ASCII")]
pub(crate) struct MalformedKey;

/// For what a client asks: with a key of the client's own the same each time the same user asks for the same, else a
/// new one. A key is worth nothing to another user.
pub(crate) fn of_request(headers: &HeaderMap, user: Uuid, form: &Form) -> Result<String, MalformedKey> {
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

/// For a change to an object, as it was at a time of Stripe's clock. Two clicks are one change; a change back, and
/// the same change again, are three, and so is one that is tried again a minute after it failed.
pub(crate) fn of_change(object: &Answer, form: &Form) -> String {
    let minute = object.as_of / CHANGE_SECONDS;
    digest(&[object.object.get(), &minute.to_string(), &form.encode()])
}

/// For what may be done again.
pub(crate) fn fresh() -> String {
    Uuid::new_v4().to_string()
}

fn digest(parts: &[&str]) -> String {
    let mut digest = Sha256::new();
    for part in parts {
        // With its length a part cannot run into the next one.
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
        of_request(&headers, user, &Form::default().with("price", price))
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
        let fresh = || of_request(&none, ANN, &Form::default()).unwrap();
        assert_ne!(fresh(), fresh());
    }

    #[test]
    fn a_change_keeps_its_key_for_a_minute_and_as_long_as_its_object_is_the_same() {
        let key = |object: &str, as_of| {
            let object = serde_json::from_str(object).unwrap();
            of_change(&Answer { object, as_of }, &Form::default().with("price", "p"))
        };
        let first = key(r#"{"id":"sub_1"}"#, 600);
        assert_eq!(key(r#"{"id":"sub_1"}"#, 659), first);
        assert_ne!(key(r#"{"id":"sub_1"}"#, 660), first);
        assert_ne!(key(r#"{"id":"sub_1","latest_invoice":"in_2"}"#, 600), first);
    }

    #[test]
    fn a_key_that_stripe_would_refuse_is_refused() {
        for wrong in [String::new(), "k".repeat(MAX_KEY_BYTES + 1), "\u{e9}".to_owned()] {
            assert_eq!(keyed(&wrong, ANN, "p"), Err(MalformedKey), "{wrong:?}");
        }
    }

    proptest! {
        #[test]
        fn no_two_lists_of_parts_run_together(a in ".{0,8}", b in ".{0,8}", c in ".{0,8}", d in ".{0,8}") {
            prop_assert_eq!(digest(&[&a, &b]) == digest(&[&c, &d]), (a, b) == (c, d));
        }
    }
}
