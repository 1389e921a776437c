//! A client of Stripe's API: GETs one object by its path, POSTs one form, with time-outs, a size limit and a variant
//! for each kind of failure. Every POST carries an idempotency key, so a caller that got no response may repeat it.

use std::time::Duration;

use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, DATE, HeaderMap, HeaderValue};
use hyper::http::request::Builder;
use hyper::{Method, Request, Response, StatusCode, Uri};
use hyper_rustls::HttpsConnector;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use secrecy::{ExposeSecret as _, SecretString};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;
use stripe_credits_rules::jsonb::storable;
use thiserror::Error;
use tokio::sync::Mutex;
use tokio::time::{Interval, MissedTickBehavior, interval, sleep};

use crate::clock::unix_now;
use crate::config::StripeConfig;
use crate::limits::StripeShare;
use crate::metrics::CallCounter;
use crate::stripe::form::Form;
use crate::stripe::path::is_path;
use crate::telemetry::with_causes;
use crate::tls;

/// The API version of every request, whatever the account's default is.
pub(crate) const STRIPE_VERSION: &str = "2025-03-31.basil";
/// How long a connection may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long one request may take, including the response's body.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// The maximum size of a response, in bytes; a page of a hundred invoices with ten lines each is a fifth of it.
const MAX_RESPONSE_BYTES: usize = 16 * 1024 * 1024;
/// The maximum rate of a client with retries: Stripe allows 25 with a test key, and webhooks need some of them.
const MAX_REQUESTS_PER_SECOND: u32 = 20;
/// The maximum number of attempts of a client with retries.
const MAX_ATTEMPTS: u32 = 8;
/// The delay before the first retry. It doubles with each retry, up to the maximum.
const FIRST_RETRY_DELAY: Duration = Duration::from_millis(500);
const MAX_RETRY_DELAY: Duration = Duration::from_secs(30);

/// A client with one API key.
pub(crate) struct StripeClient {
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
    base: String,
    authorization: HeaderValue,
    calls: CallCounter,
    /// Limits the rate of a client with retries.
    pace: Option<Mutex<Interval>>,
    /// Limits the rate of a client for users' requests, which cannot wait.
    share: Option<StripeShare>,
}

/// An object, and Stripe's clock in seconds since 1970 when it was read.
#[derive(Debug)]
pub(crate) struct StripeObject {
    pub(crate) json: Box<RawValue>,
    pub(crate) as_of: u64,
}

/// Why a request to Stripe failed.
#[derive(Debug, Error)]
pub(crate) enum StripeError {
    #[error("Stripe is unreachable: {0}")]
    Unreachable(String),
    #[error("Stripe did not answer within {} seconds", REQUEST_TIMEOUT.as_secs())]
    Timeout,
    #[error("Stripe's rate limit is reached")]
    RateLimited,
    #[error("users' requests have used up their share of Stripe's rate limit")]
    OverShare,
    #[error("Stripe does not accept STRIPE_SECRET_KEY for this ({0})")]
    Unauthorized(StatusCode),
    #[error("Stripe has no such object")]
    NotFound,
    #[error("Stripe is processing the same request or the same object")]
    Busy,
    #[error("the payment was declined ({0})")]
    Declined(String),
    #[error("Stripe refused the request ({status}, {code})")]
    Refused { status: StatusCode, code: String },
    #[error("Stripe failed ({0})")]
    Failed(StatusCode),
    #[error("Stripe's response was not understood: {0}")]
    Malformed(String),
}

impl StripeError {
    /// Whether the same request may succeed later.
    fn is_transient(&self) -> bool {
        matches!(
            self,
            Self::Unreachable(_) | Self::Timeout | Self::RateLimited | Self::Busy | Self::Failed(_)
        )
    }

    /// The failure's name, for metrics and clients.
    pub(crate) fn label(&self) -> &'static str {
        match self {
            Self::Unreachable(_) => "stripe_unreachable",
            Self::Timeout => "stripe_timeout",
            Self::RateLimited => "stripe_rate_limited",
            Self::OverShare => "stripe_over_share",
            Self::Unauthorized(_) => "stripe_unauthorized",
            Self::NotFound => "stripe_not_found",
            Self::Busy => "stripe_busy",
            Self::Declined(_) => "stripe_declined",
            Self::Refused { .. } => "stripe_refused",
            Self::Failed(_) => "stripe_failed",
            Self::Malformed(_) => "stripe_malformed_answer",
        }
    }
}

impl StripeObject {
    /// Deserializes the object.
    pub(crate) fn read<T: DeserializeOwned>(&self) -> Result<T, StripeError> {
        // serde's own message would quote the object in the log.
        serde_json::from_str(self.json.get()).map_err(|fault| {
            StripeError::Malformed(format!("a field is not as expected at column {}", fault.column()))
        })
    }
}

impl StripeClient {
    /// Prepares a client; no connection is opened yet.
    pub(crate) fn new(config: &StripeConfig, calls: CallCounter) -> Self {
        Self {
            client: Client::builder(TokioExecutor::new()).build(tls::https_connector(CONNECT_TIMEOUT)),
            base: config.base.to_string().trim_end_matches('/').to_owned(),
            authorization: bearer(&config.key),
            calls,
            pace: None,
            share: None,
        }
    }

    /// A client for users' requests, with their share of Stripe's rate limit: the rest is for webhooks.
    pub(crate) fn for_users(config: &StripeConfig, calls: CallCounter) -> Self {
        Self {
            share: Some(StripeShare::per_second(config.user_requests_per_second)),
            ..Self::new(config, calls)
        }
    }

    /// A client for commands, which make many requests and can wait: it stays below Stripe's rate limit, and retries
    /// GETs after transient failures.
    pub(crate) fn with_retries(config: &StripeConfig) -> Self {
        let mut pace = interval(Duration::from_secs(1) / MAX_REQUESTS_PER_SECOND);
        pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self { pace: Some(Mutex::new(pace)), ..Self::new(config, CallCounter::default()) }
    }

    /// GETs the object at `path`, such as `/v1/checkout/sessions/cs_1/line_items?limit=100`.
    pub(crate) async fn get(&self, path: &str) -> Result<StripeObject, StripeError> {
        let Some(pace) = &self.pace else {
            return self.get_once(path).await;
        };
        let (mut attempt, mut delay) = (1, FIRST_RETRY_DELAY);
        loop {
            pace.lock().await.tick().await;
            match self.get_once(path).await {
                Err(error) if error.is_transient() && attempt < MAX_ATTEMPTS => sleep(delay).await,
                result => return result,
            }
            attempt += 1;
            delay = MAX_RETRY_DELAY.min(delay * 2);
        }
    }

    async fn get_once(&self, path: &str) -> Result<StripeObject, StripeError> {
        self.send(self.request(Method::GET, path)?, Bytes::new()).await
    }

    /// POSTs a form to `path`. For a key that was used within a day Stripe returns the first response again.
    pub(crate) async fn post(
        &self,
        path: &str,
        form: &Form,
        idempotency_key: &str,
    ) -> Result<StripeObject, StripeError> {
        let request = self
            .request(Method::POST, path)?
            .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
            .header("Idempotency-Key", idempotency_key);
        self.send(request, form.encode().into()).await
    }

    fn request(&self, method: Method, path: &str) -> Result<Builder, StripeError> {
        // Stripe has nothing at such a path, and is not asked for it.
        let uri: Option<Uri> = if is_path(path) { format!("{}{path}", self.base).parse().ok() } else { None };
        let uri = uri.ok_or(StripeError::NotFound)?;
        Ok(Request::builder()
            .method(method)
            .uri(uri)
            .header(AUTHORIZATION, self.authorization.clone())
            .header("Stripe-Version", STRIPE_VERSION))
    }

    async fn send(&self, request: Builder, body: Bytes) -> Result<StripeObject, StripeError> {
        if self.share.as_ref().is_some_and(|share| !share.admits()) {
            self.calls.count(StripeError::OverShare.label());
            return Err(StripeError::OverShare);
        }
        let result = match tokio::time::timeout(REQUEST_TIMEOUT, self.exchange(request, body)).await {
            Ok(result) => result,
            Err(_) => Err(StripeError::Timeout),
        };
        self.calls.count(result.as_ref().map_or_else(StripeError::label, |_| "ok"));
        result
    }

    async fn exchange(&self, request: Builder, body: Bytes) -> Result<StripeObject, StripeError> {
        let request =
            request.body(Full::new(body)).map_err(|fault| StripeError::Malformed(fault.to_string()))?;
        let response = self
            .client
            .request(request)
            .await
            .map_err(|error| StripeError::Unreachable(with_causes(&error)))?;
        let status = response.status();
        let as_of = date(response.headers()).unwrap_or_else(unix_now);
        if status == StatusCode::OK {
            return parse(&read(response).await?, as_of);
        }
        // An error whose body cannot be read is still an error.
        let code = if status.is_client_error() {
            error_code(&read(response).await.unwrap_or_default())
        } else {
            String::new()
        };
        Err(failure(status, code))
    }
}

fn bearer(key: &SecretString) -> HeaderValue {
    let mut value = HeaderValue::from_str(&format!("Bearer {}", key.expose_secret()))
        .expect("the configuration lets only keys of printable ASCII through");
    value.set_sensitive(true);
    value
}

fn failure(status: StatusCode, code: String) -> StripeError {
    match status.as_u16() {
        401 | 403 => StripeError::Unauthorized(status),
        402 => StripeError::Declined(code),
        404 => StripeError::NotFound,
        409 => StripeError::Busy,
        429 => StripeError::RateLimited,
        400..=499 => StripeError::Refused { status, code },
        500..=599 => StripeError::Failed(status),
        _ => StripeError::Malformed(format!("status {status}")),
    }
}

/// Stripe's error code, such as `parameter_missing`. The error's message is dropped, because it may quote what was
/// sent.
fn error_code(body: &[u8]) -> String {
    #[derive(Deserialize)]
    struct ErrorBody {
        error: ErrorObject,
    }
    #[derive(Deserialize)]
    struct ErrorObject {
        code: Option<String>,
    }
    let code = serde_json::from_slice(body).ok().and_then(|body: ErrorBody| body.error.code);
    let is_word = |code: &String| code.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_');
    code.filter(is_word).unwrap_or_else(|| "no code".to_owned())
}

async fn read(response: Response<Incoming>) -> Result<Bytes, StripeError> {
    let body = Limited::new(response.into_body(), MAX_RESPONSE_BYTES).collect().await.map_err(|error| {
        let too_large = error.is::<LengthLimitError>();
        let error = with_causes(&*error);
        if too_large { StripeError::Malformed(error) } else { StripeError::Unreachable(error) }
    })?;
    Ok(body.to_bytes())
}

fn parse(body: &[u8], as_of: u64) -> Result<StripeObject, StripeError> {
    let malformed = |fault: &dyn std::fmt::Display| StripeError::Malformed(fault.to_string());
    let text = std::str::from_utf8(body).map_err(|fault| malformed(&fault))?;
    let object: Box<RawValue> = serde_json::from_str(&storable(text)).map_err(|fault| malformed(&fault))?;
    if !object.get().starts_with('{') {
        return Err(StripeError::Malformed("it is not a JSON object".to_owned()));
    }
    Ok(StripeObject { json: object, as_of })
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
    fn failures_are_classified_by_status() {
        let label = |status| failure(StatusCode::from_u16(status).unwrap(), String::new()).label();
        assert_eq!(label(302), "stripe_malformed_answer");
        assert_eq!(label(400), "stripe_refused");
        assert_eq!(label(401), "stripe_unauthorized");
        assert_eq!(label(403), "stripe_unauthorized");
        assert_eq!(label(402), "stripe_declined");
        assert_eq!(label(404), "stripe_not_found");
        assert_eq!(label(409), "stripe_busy");
        assert_eq!(label(429), "stripe_rate_limited");
        assert_eq!(label(500), "stripe_failed");
        assert_eq!(label(503), "stripe_failed");
    }

    #[test]
    fn only_transient_failures_are_retried() {
        let again = |status| failure(StatusCode::from_u16(status).unwrap(), String::new()).is_transient();
        assert!(again(409) && again(429) && again(500) && again(503));
        assert!(!again(302) && !again(400) && !again(401) && !again(402) && !again(403) && !again(404));
        assert!(
            StripeError::Timeout.is_transient() && StripeError::Unreachable(String::new()).is_transient()
        );
        assert!(!StripeError::Malformed(String::new()).is_transient());
    }

    #[test]
    fn an_error_is_reduced_to_its_code() {
        let code = |body: &str| error_code(body.as_bytes());
        assert_eq!(
            code(r#"{"error":{"code":"resource_missing","message":"No such price: 'x'"}}"#),
            "resource_missing"
        );
        for odd in
            ["", "{}", r#"{"error":{}}"#, r#"{"error":{"code":"sk_test_1 Hush"}}"#, r#"{"error":{"code":7}}"#]
        {
            assert_eq!(code(odd), "no code", "{odd}");
        }
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
