//! The parsers of every other variable. A fault never repeats the value: most of them are secrets or contain one.

use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::ops::RangeInclusive;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use redis::{ConnectionAddr, ConnectionInfo, IntoConnectionInfo as _};
use secrecy::{SecretSlice, SecretString};
use tracing::Level;

/// The shortest HS256 secret, in bytes: the length of its hashes (RFC 7518, 3.2). A shorter one can be guessed from a
/// token.
const MIN_JWT_SECRET_BYTES: usize = 32;
/// The shortest token of the app's servers, in bytes, so that none can be guessed.
const MIN_SERVICE_TOKEN_BYTES: usize = 32;
/// The longest `CREDITS_MAX_AGE`, in seconds.
const CREDITS_MAX_AGE_LIMIT: u64 = 3600;

/// What a secret of Standard Webhooks begins with, and its length in bytes once decoded.
const EVENTS_SECRET_PREFIX: &str = "whsec_";
const EVENTS_SECRET_BYTES: RangeInclusive<usize> = 24..=64;

/// Whether a Stripe key moves real money.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum StripeMode {
    Live,
    Test,
}

pub(super) fn webhook_secrets(text: &str) -> Result<Vec<SecretString>, String> {
    let secret = |part: &str| match part.trim() {
        "" => Err("holds an empty secret, with which anyone could sign".to_owned()),
        secret => Ok(SecretString::from(secret)),
    };
    text.split(',').map(secret).collect()
}

/// Secrets of Standard Webhooks.
pub(super) fn events_secrets(text: &str) -> Result<Vec<SecretSlice<u8>>, String> {
    let secret = |part: &str| {
        let decoded =
            part.trim().strip_prefix(EVENTS_SECRET_PREFIX).and_then(|text| STANDARD.decode(text).ok());
        let secret = decoded.filter(|secret| EVENTS_SECRET_BYTES.contains(&secret.len()));
        secret.map(SecretSlice::from).ok_or_else(|| {
            let (least, most) = EVENTS_SECRET_BYTES.into_inner();
            format!("is not {EVENTS_SECRET_PREFIX} and the base64 of {least} to {most} random bytes")
        })
    };
    text.split(',').map(secret).collect()
}

pub(super) fn stripe_key(text: &str) -> Result<(SecretString, StripeMode), String> {
    let starts_with = |prefixes: [&str; 2]| prefixes.iter().any(|prefix| text.starts_with(prefix));
    let mode = if starts_with(["sk_live_", "rk_live_"]) {
        StripeMode::Live
    } else if starts_with(["sk_test_", "rk_test_"]) {
        StripeMode::Test
    } else {
        return Err("must begin with sk_test_, sk_live_, rk_test_ or rk_live_".to_owned());
    };
    if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err("holds a character that no Stripe key has".to_owned());
    }
    Ok((SecretString::from(text), mode))
}

pub(super) fn jwt_secret(text: &str) -> Result<SecretString, String> {
    if text.len() < MIN_JWT_SECRET_BYTES {
        return Err(format!(
            "is shorter than {MIN_JWT_SECRET_BYTES} bytes, and so can be guessed from a token"
        ));
    }
    Ok(SecretString::from(text))
}

pub(super) fn service_tokens(text: &str) -> Result<Vec<SecretString>, String> {
    let token = |part: &str| {
        let token = part.trim();
        if token.len() < MIN_SERVICE_TOKEN_BYTES {
            Err(format!("holds a token shorter than {MIN_SERVICE_TOKEN_BYTES} bytes, which can be guessed"))
        } else if !token.bytes().all(|byte| byte.is_ascii_graphic()) {
            Err("holds a character that cannot be sent in an Authorization header".to_owned())
        } else {
            Ok(SecretString::from(token))
        }
    };
    text.split(',').map(token).collect()
}

/// The URL may contain the password.
pub(super) fn redis_url(text: &str) -> Result<SecretString, String> {
    let information = text.into_connection_info();
    match information.as_ref().map(ConnectionInfo::addr) {
        Ok(ConnectionAddr::Tcp(..) | ConnectionAddr::TcpTls { insecure: false, .. }) => {
            Ok(SecretString::from(text))
        }
        _ => Err("is not redis://host:port/0 or rediss://…".to_owned()),
    }
}

pub(super) fn credits_max_age(text: &str) -> Result<Option<Duration>, String> {
    match text.parse() {
        Ok(0) => Ok(None),
        Ok(seconds) if seconds <= CREDITS_MAX_AGE_LIMIT => Ok(Some(Duration::from_secs(seconds))),
        _ => Err(format!("is not a number of seconds from 0 to {CREDITS_MAX_AGE_LIMIT}")),
    }
}

pub(super) fn listen(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| "is not an address and a port, such as 127.0.0.1:8787 or [::]:8787".to_owned())
}

pub(super) fn number(text: &str, max: usize) -> Result<usize, String> {
    number_from(text, 1, max)
}

pub(super) fn number_from(text: &str, min: usize, max: usize) -> Result<usize, String> {
    match text.parse() {
        Ok(number) if (min..=max).contains(&number) => Ok(number),
        _ => Err(format!("is not a number from {min} to {max}")),
    }
}

pub(super) fn rate(text: &str, max: usize) -> Result<NonZeroU32, String> {
    let rate = u32::try_from(number(text, max)?).ok().and_then(NonZeroU32::new);
    rate.ok_or_else(|| format!("is not a number from 1 to {max}"))
}

pub(super) fn log_level(text: &str) -> Result<Level, String> {
    text.parse().map_err(|_| "is not error, warn, info, debug or trace".to_owned())
}
