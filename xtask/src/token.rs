//! Tokens of the app's users, as Supabase signs them with a shared secret.

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use serde_json::{Value, json};
use sha2::Sha256;
use uuid::Uuid;

use crate::stripe_event::unix_now;

/// How long a token is valid, in seconds.
const VALID_SECONDS: u64 = 3600;

/// A token of a user, signed with HS256 and valid for an hour.
#[must_use]
pub fn hs256(secret: &str, user: Uuid) -> String {
    let encoded = |json: &Value| BASE64_URL_SAFE_NO_PAD.encode(json.to_string());
    let claims = json!({"sub": user, "role": "authenticated", "aud": "authenticated", "exp": unix_now() + VALID_SECONDS});
    let signed = format!("{}.{}", encoded(&json!({"alg": "HS256", "typ": "JWT"})), encoded(&claims));
    // The error is a key of the wrong length, and HMAC takes keys of every length.
    let Ok(mut hmac) = Hmac::<Sha256>::new_from_slice(secret.as_bytes()) else { return signed };
    hmac.update(signed.as_bytes());
    format!("{signed}.{}", BASE64_URL_SAFE_NO_PAD.encode(hmac.finalize().into_bytes()))
}
