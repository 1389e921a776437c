//! Stripe's API, read only: one object by its path, with time-outs, bounds and every kind of failure told apart.

use std::time::Duration;

use http_body_util::{BodyExt as _, Empty, LengthLimitError, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::header::{AUTHORIZATION, DATE, HeaderMap, HeaderValue};
use hyper::{Request, Response, StatusCode, Uri};
use hyper_rustls::HttpsConnector;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::value::RawValue;
use thiserror::Error;

use crate::clock::unix_now;
use crate::config::StripeConfig;
use crate::error::with_causes;
use crate::tls;

/// The API version whose shapes we ask for, whatever the account's default is.
const STRIPE_VERSION: &str = "2025-03-31.basil";
/// How long a connection may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long one question may take, with its answer's body.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// The largest answer read, in bytes; a page of a hundred line items is a tenth of it.
const MAX_ANSWER_BYTES: usize = 4 * 1024 * 1024;

/// A client with one key.
pub(crate) struct StripeApi {
    client: Client<HttpsConnector<HttpConnector>, Empty<Bytes>>,
    base: String,
    authorization: HeaderValue,
}

/// An object, and Stripe's clock when it was read.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) object: Box<RawValue>,
    pub(crate) as_of: u64,
}

/// Why Stripe gave no object.
#[derive(Debug, Error)]
pub(crate) enum StripeError {
    #[error("Stripe is unreachable: {0}")]
    Unreachable(String),
    #[error("Stripe did not answer within {} seconds", REQUEST_TIMEOUT.as_secs())]
    Timeout,
    #[error("Stripe's rate limit is reached")]
    RateLimited,
    #[error("Stripe does not accept STRIPE_SECRET_KEY for this ({0})")]
    Unauthorized(StatusCode),
    #[error("Stripe has no such object")]
    NotFound,
    #[error("Stripe refused the question ({0})")]
    Refused(StatusCode),
    #[error("Stripe failed ({0})")]
    Failed(StatusCode),
    #[error("Stripe's answer was not understood: {0}")]
    Malformed(String),
}

impl StripeError {
    /// The failure's name, for metrics and clients.
    pub(crate) fn label(&self) -> &'static str {
        match self {
            Self::Unreachable(_) => "stripe_unreachable",
            Self::Timeout => "stripe_timeout",
            Self::RateLimited => "stripe_rate_limited",
            Self::Unauthorized(_) => "stripe_unauthorized",
            Self::NotFound => "stripe_not_found",
            Self::Refused(_) => "stripe_refused",
            Self::Failed(_) => "stripe_failed",
            Self::Malformed(_) => "stripe_malformed_answer",
        }
    }
}

impl StripeApi {
    /// Prepares a client; nothing is opened yet.
    pub(crate) fn new(config: &StripeConfig) -> Self {
        Self {
            client: Client::builder(TokioExecutor::new()).build(tls::https_connector(CONNECT_TIMEOUT)),
            base: config.base.to_string().trim_end_matches('/').to_owned(),
            authorization: bearer(&config.key),
        }
    }

    /// GETs the object at `path`, such as `/v1/checkout/sessions/cs_1/line_items?limit=100`.
    pub(crate) async fn get(&self, path: &str) -> Result<Answer, StripeError> {
        match tokio::time::timeout(REQUEST_TIMEOUT, self.exchange(path)).await {
            Ok(result) => result,
            Err(_) => Err(StripeError::Timeout),
        }
    }

    async fn exchange(&self, path: &str) -> Result<Answer, StripeError> {
        let uri: Uri = format!("{}{path}", self.base)
            .parse()
            .map_err(|_| StripeError::Malformed("the path asked for is not a URL's".to_owned()))?;
        let request = Request::get(uri)
            .header(AUTHORIZATION, self.authorization.clone())
            .header("Stripe-Version", STRIPE_VERSION)
            .body(Empty::new())
            .map_err(|fault| StripeError::Malformed(fault.to_string()))?;
        let response = self
            .client
            .request(request)
            .await
            .map_err(|error| StripeError::Unreachable(with_causes(&error)))?;
        check(response.status())?;
        read(response).await
    }
}

fn bearer(key: &SecretString) -> HeaderValue {
    let mut value = HeaderValue::from_str(&format!("Bearer {}", key.expose_secret()))
        .expect("the configuration lets only keys of printable ASCII through");
    value.set_sensitive(true);
    value
}

fn check(status: StatusCode) -> Result<(), StripeError> {
    match status.as_u16() {
        200 => Ok(()),
        401 | 403 => Err(StripeError::Unauthorized(status)),
        404 => Err(StripeError::NotFound),
        429 => Err(StripeError::RateLimited),
        400..=499 => Err(StripeError::Refused(status)),
        500..=599 => Err(StripeError::Failed(status)),
        _ => Err(StripeError::Malformed(format!("status {status}"))),
    }
}

async fn read(response: Response<Incoming>) -> Result<Answer, StripeError> {
    let as_of = date(response.headers()).unwrap_or_else(unix_now);
    let body = Limited::new(response.into_body(), MAX_ANSWER_BYTES)
        .collect()
        .await
        .map_err(|error| {
            let too_large = error.is::<LengthLimitError>();
            let error = with_causes(&*error);
            if too_large { StripeError::Malformed(error) } else { StripeError::Unreachable(error) }
        })?
        .to_bytes();
    let object: Box<RawValue> =
        serde_json::from_slice(&body).map_err(|fault| StripeError::Malformed(fault.to_string()))?;
    if !object.get().starts_with('{') {
        return Err(StripeError::Malformed("it is not a JSON object".to_owned()));
    }
    Ok(Answer { object, as_of })
}

/// Stripe's clock, in seconds since 1970.
fn date(headers: &HeaderMap) -> Option<u64> {
    let date = httpdate::parse_http_date(headers.get(DATE)?.to_str().ok()?).ok()?;
    date.duration_since(std::time::UNIX_EPOCH).ok().map(|since| since.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stripes_failures_are_told_apart_by_status() {
        let label = |status| match check(StatusCode::from_u16(status).unwrap()) {
            Ok(()) => "ok",
            Err(error) => error.label(),
        };
        assert_eq!(label(200), "ok");
        assert_eq!(label(302), "stripe_malformed_answer");
        assert_eq!(label(400), "stripe_refused");
        assert_eq!(label(401), "stripe_unauthorized");
        assert_eq!(label(403), "stripe_unauthorized");
        assert_eq!(label(404), "stripe_not_found");
        assert_eq!(label(429), "stripe_rate_limited");
        assert_eq!(label(500), "stripe_failed");
        assert_eq!(label(503), "stripe_failed");
    }

    #[test]
    fn stripes_clock_is_its_date_header() {
        let mut headers = HeaderMap::new();
        assert_eq!(date(&headers), None);
        headers.insert(DATE, HeaderValue::from_static("Thu, 02 Aug 2018 10:10:20 GMT"));
        assert_eq!(date(&headers), Some(1_533_204_620));
        headers.insert(DATE, HeaderValue::from_static("yesterday"));
        assert_eq!(date(&headers), None);
    }

    #[test]
    fn the_key_is_not_in_the_header_debugs() {
        let header = bearer(&SecretString::from("sk_test_hush"));
        assert!(!format!("{header:?}").contains("hush"));
    }
}
