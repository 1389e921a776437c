//! Verifies webhook signatures: the `Stripe-Signature` header, `t=<unix seconds>,v1=<hex>[,v1=<hex>…]`, where each v1
//! is HMAC-SHA256 over the text of t, a dot and the raw body. Only this module makes a [`Verified`].

use hmac::{Hmac, KeyInit as _, Mac as _};
use hyper::HeaderMap;
use hyper::body::Bytes;
use secrecy::{ExposeSecret as _, SecretString};
use sha2::Sha256;
use thiserror::Error;

/// The header that carries the signature.
pub(crate) const SIGNATURE_HEADER: &str = "stripe-signature";
/// The maximum difference between the signed time and the clock, in seconds, in either direction; Stripe's own
/// default.
pub(crate) const TOLERANCE_SECONDS: u64 = 300;
/// The longest header accepted, in bytes: t and sixteen v1 fit.
const MAX_HEADER_BYTES: usize = 2048;
/// The maximum number of v1 signatures; Stripe sends one for each active secret, two during a rotation.
const MAX_V1_SIGNATURES: usize = 16;
/// The length of HMAC-SHA256's output, in bytes.
const MAC_BYTES: usize = 32;

type HmacSha256 = Hmac<Sha256>;

/// A body with a valid signature by one of the configured secrets, within the tolerance.
#[derive(Debug)]
pub(crate) struct Verified(Bytes);

impl Verified {
    /// The body, byte for byte as it was signed.
    pub(crate) fn into_body(self) -> Bytes {
        self.0
    }
}

/// Why a signature was rejected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub(crate) enum SignatureError {
    #[error("the Stripe-Signature header is missing")]
    Missing,
    #[error("there is more than one Stripe-Signature header")]
    DuplicateHeader,
    #[error("the Stripe-Signature header is longer than {MAX_HEADER_BYTES} bytes")]
    TooLong,
    #[error("the Stripe-Signature header is not ASCII")]
    NotAscii,
    #[error("the Stripe-Signature header is not a list of key=value")]
    Malformed,
    #[error("the Stripe-Signature header has no t")]
    MissingTimestamp,
    #[error("the Stripe-Signature header has more than one t")]
    DuplicateTimestamp,
    #[error("t in the Stripe-Signature header is not a number of seconds")]
    MalformedTimestamp,
    #[error("the Stripe-Signature header has no v1")]
    NoSignature,
    #[error("the Stripe-Signature header has more than {MAX_V1_SIGNATURES} v1")]
    TooManySignatures,
    #[error("no v1 in the Stripe-Signature header matches the body")]
    Mismatch,
    #[error("the body was signed more than {TOLERANCE_SECONDS} seconds ago")]
    TooOld,
    #[error("the body was signed more than {TOLERANCE_SECONDS} seconds in the future")]
    TooNew,
}

impl SignatureError {
    /// The failure's name, for metrics and clients.
    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::Missing => "signature_missing",
            Self::DuplicateHeader => "signature_duplicate_header",
            Self::TooLong => "signature_too_long",
            Self::NotAscii => "signature_not_ascii",
            Self::Malformed => "signature_malformed",
            Self::MissingTimestamp => "signature_missing_timestamp",
            Self::DuplicateTimestamp => "signature_duplicate_timestamp",
            Self::MalformedTimestamp => "signature_malformed_timestamp",
            Self::NoSignature => "signature_no_v1",
            Self::TooManySignatures => "signature_too_many_v1",
            Self::Mismatch => "signature_mismatch",
            Self::TooOld => "signature_too_old",
            Self::TooNew => "signature_too_new",
        }
    }
}

/// Refuses a header with which no body can be verified: it is malformed, its time is outside the tolerance, or none of its
/// v1 has the form of a signature. So a stranger's body is not read, unless it was made to look like one of Stripe's.
pub(crate) fn check_header(headers: &HeaderMap, now: u64) -> Result<(), SignatureError> {
    let header = SignatureHeader::of(headers)?;
    if header.signatures.is_empty() {
        return Err(SignatureError::Mismatch);
    }
    header.check_time(now)
}

/// Accepts `body` if one v1 of the header was made with one of `secrets`, within the tolerance of `now`.
pub(crate) fn verify(
    headers: &HeaderMap,
    body: Bytes,
    secrets: &[SecretString],
    now: u64,
) -> Result<Verified, SignatureError> {
    let header = SignatureHeader::of(headers)?;
    if !secrets.iter().any(|secret| header.is_signed_with(secret, &body)) {
        return Err(SignatureError::Mismatch);
    }
    // The time is checked last: only a valid signature makes it trustworthy.
    header.check_time(now)?;
    Ok(Verified(body))
}

/// The header's value for a body sent at `timestamp`.
pub(crate) fn sign(secret: &SecretString, timestamp: u64, body: &[u8]) -> String {
    let mac = keyed(secret, &timestamp.to_string(), body).finalize().into_bytes();
    format!("t={timestamp},v1={:x}", Bytes::copy_from_slice(&mac))
}

/// The parsed header. `timestamp` is the text as sent, because that text is signed.
struct SignatureHeader<'a> {
    timestamp: &'a str,
    seconds: u64,
    signatures: Vec<[u8; MAC_BYTES]>,
}

impl<'a> SignatureHeader<'a> {
    fn of(headers: &'a HeaderMap) -> Result<Self, SignatureError> {
        let mut values = headers.get_all(SIGNATURE_HEADER).iter();
        let value = values.next().ok_or(SignatureError::Missing)?;
        if values.next().is_some() {
            return Err(SignatureError::DuplicateHeader);
        }
        Self::parse(value.as_bytes())
    }

    fn check_time(&self, now: u64) -> Result<(), SignatureError> {
        if self.seconds < now.saturating_sub(TOLERANCE_SECONDS) {
            return Err(SignatureError::TooOld);
        }
        if self.seconds > now.saturating_add(TOLERANCE_SECONDS) {
            return Err(SignatureError::TooNew);
        }
        Ok(())
    }

    fn parse(value: &'a [u8]) -> Result<Self, SignatureError> {
        if value.is_empty() {
            return Err(SignatureError::Missing);
        }
        if value.len() > MAX_HEADER_BYTES {
            return Err(SignatureError::TooLong);
        }
        let text =
            str::from_utf8(value).ok().filter(|text| text.is_ascii()).ok_or(SignatureError::NotAscii)?;

        let mut timestamp = None;
        let mut v1 = Vec::new();
        for item in text.split(',') {
            match item.split_once('=').ok_or(SignatureError::Malformed)? {
                ("t", _) if timestamp.is_some() => return Err(SignatureError::DuplicateTimestamp),
                ("t", digits) => timestamp = Some(digits),
                ("v1", _) if v1.len() == MAX_V1_SIGNATURES => return Err(SignatureError::TooManySignatures),
                ("v1", hex) => v1.push(hex),
                // Other schemes are ignored: Stripe adds some, such as v0 for test events.
                _ => {}
            }
        }

        let timestamp = timestamp.ok_or(SignatureError::MissingTimestamp)?;
        // u64's parser also accepts a plus sign.
        let digits = Some(timestamp).filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
        let seconds = digits.and_then(|text| text.parse().ok()).ok_or(SignatureError::MalformedTimestamp)?;
        if v1.is_empty() {
            return Err(SignatureError::NoSignature);
        }
        let signatures = v1.into_iter().filter_map(decode_hex).collect();
        Ok(Self { timestamp, seconds, signatures })
    }

    fn is_signed_with(&self, secret: &SecretString, body: &[u8]) -> bool {
        let mac = keyed(secret, self.timestamp, body);
        // verify_slice compares in constant time.
        self.signatures.iter().any(|signature| mac.clone().verify_slice(signature).is_ok())
    }
}

/// The MAC of a delivery. The key is the whole text of the secret, its `whsec_` included.
fn keyed(secret: &SecretString, timestamp: &str, body: &[u8]) -> HmacSha256 {
    let mut mac =
        HmacSha256::new_from_slice(secret.expose_secret().as_bytes()).expect("HMAC takes keys of any length");
    mac.update(timestamp.as_bytes());
    mac.update(b".");
    mac.update(body);
    mac
}

/// Exactly 64 lower-case hex digits: Stripe's libraries compare the text, so AB does not match ab.
fn decode_hex(hex: &str) -> Option<[u8; MAC_BYTES]> {
    let digits: &[u8; MAC_BYTES * 2] = hex.as_bytes().try_into().ok()?;
    let mut bytes = [0; MAC_BYTES];
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = hex_digit(pair[0])? << 4 | hex_digit(pair[1])?;
    }
    Some(bytes)
}

fn hex_digit(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    }
}

#[cfg(test)]
pub(crate) mod tests;
