//! Stripe's API: one object by its path, or one change by its form, with time-outs, bounds and every kind of failure
//! told apart. Every change carries an idempotency key, so whoever does not know what became of it may send it again.

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
use thiserror::Error;
use tokio::sync::Mutex;
use tokio::time::{Interval, MissedTickBehavior, interval, sleep};

use crate::clock::unix_now;
use crate::config::StripeConfig;
use crate::metrics::CallCounter;
use crate::stripe::form::Form;
use crate::telemetry::with_causes;
use crate::tls;

/// The API version whose shapes we ask for, whatever the account's default is.
const STRIPE_VERSION: &str = "2025-03-31.basil";
/// How long a connection may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long one question may take, with its answer's body.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// The largest answer read, in bytes; a page of a hundred invoices with ten lines each is a fifth of it.
const MAX_ANSWER_BYTES: usize = 16 * 1024 * 1024;
/// How often a patient client asks at most, a second: what Stripe allows a test key is 25, and webhooks need some too.
const MAX_QUESTIONS_PER_SECOND: u32 = 20;
/// How often a patient client asks the same question.
const MAX_ATTEMPTS: u32 = 8;
/// How long it waits before it asks again: this at first, twice as long each time, and no longer than the second.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// A client with one key.
pub(crate) struct StripeApi {
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
    base: String,
    authorization: HeaderValue,
    calls: CallCounter,
    /// When it may ask next, where nobody waits for the answer.
    pace: Option<Mutex<Interval>>,
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
    #[error("Stripe works on the same request, or on the same object, just now")]
    Busy,
    #[error("the payment was declined ({0})")]
    Declined(String),
    #[error("Stripe refused the question ({status}, {code})")]
    Refused { status: StatusCode, code: String },
    #[error("Stripe failed ({0})")]
    Failed(StatusCode),
    #[error("Stripe's answer was not understood: {0}")]
    Malformed(String),
}

impl StripeError {
    /// Whether the same question may be answered later.
    fn may_pass(&self) -> bool {
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

impl Answer {
    /// The object's fields that are wanted.
    pub(crate) fn read<T: DeserializeOwned>(&self) -> Result<T, StripeError> {
        // serde's own words would quote the object, and this goes into the log.
        serde_json::from_str(self.object.get()).map_err(|fault| {
            StripeError::Malformed(format!("a field is not as expected at column {}", fault.column()))
        })
    }
}

impl StripeApi {
    /// Prepares a client; nothing is opened yet.
    pub(crate) fn new(config: &StripeConfig, calls: CallCounter) -> Self {
        Self {
            client: Client::builder(TokioExecutor::new()).build(tls::https_connector(CONNECT_TIMEOUT)),
            base: config.base.to_string().trim_end_matches('/').to_owned(),
            authorization: bearer(&config.key),
            calls,
            pace: None,
        }
    }

    /// The same for a command that asks much and has time: it keeps below Stripe's rate limit, and asks again what may
    /// be answered later.
    pub(crate) fn patient(config: &StripeConfig) -> Self {
        let mut pace = interval(Duration::from_secs(1) / MAX_QUESTIONS_PER_SECOND);
        pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self { pace: Some(Mutex::new(pace)), ..Self::new(config, CallCounter::default()) }
    }

    /// GETs the object at `path`, such as `/v1/checkout/sessions/cs_1/line_items?limit=100`.
    pub(crate) async fn get(&self, path: &str) -> Result<Answer, StripeError> {
        let Some(pace) = &self.pace else {
            return self.get_once(path).await;
        };
        let mut pause = FIRST_PAUSE;
        for attempt in 1.. {
            pace.lock().await.tick().await;
            match self.get_once(path).await {
                Err(error) if error.may_pass() && attempt < MAX_ATTEMPTS => sleep(pause).await,
                result => return result,
            }
            pause = LONGEST_PAUSE.min(pause * 2);
        }
        unreachable!("the last attempt answers")
    }

    async fn get_once(&self, path: &str) -> Result<Answer, StripeError> {
        self.ask(self.request(Method::GET, path)?, Bytes::new()).await
    }

    /// POSTs a form to `path`. What was done under the same key within a day is not done again: Stripe says once more
    /// what came of it.
    pub(crate) async fn post(
        &self,
        path: &str,
        form: &Form,
        idempotency_key: &str,
    ) -> Result<Answer, StripeError> {
        let request = self
            .request(Method::POST, path)?
            .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
            .header("Idempotency-Key", idempotency_key);
        self.ask(request, form.encode().into()).await
    }

    fn request(&self, method: Method, path: &str) -> Result<Builder, StripeError> {
        let uri: Uri = format!("{}{path}", self.base)
            .parse()
            .map_err(|_| StripeError::Malformed("the path asked for is not a URL's".to_owned()))?;
        Ok(Request::builder()
            .method(method)
            .uri(uri)
            .header(AUTHORIZATION, self.authorization.clone())
            .header("Stripe-Version", STRIPE_VERSION))
    }

    async fn ask(&self, request: Builder, body: Bytes) -> Result<Answer, StripeError> {
        let result = match tokio::time::timeout(REQUEST_TIMEOUT, self.exchange(request, body)).await {
            Ok(result) => result,
            Err(_) => Err(StripeError::Timeout),
        };
        self.calls.count(result.as_ref().map_or_else(StripeError::label, |_| "ok"));
        result
    }

    async fn exchange(&self, request: Builder, body: Bytes) -> Result<Answer, StripeError> {
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
        // Without its code a refusal is still a refusal.
        let code = if status.is_client_error() {
            refusal_code(&read(response).await.unwrap_or_default())
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

/// The word in which Stripe says why it refused, such as `parameter_missing`. Its message may quote what was sent, so
/// it goes nowhere.
fn refusal_code(body: &[u8]) -> String {
    #[derive(Deserialize)]
    struct Refusal {
        error: Reason,
    }
    #[derive(Deserialize)]
    struct Reason {
        code: Option<String>,
    }
    let code = serde_json::from_slice(body).ok().and_then(|refusal: Refusal| refusal.error.code);
    let is_word = |code: &String| code.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_');
    code.filter(is_word).unwrap_or_else(|| "no code".to_owned())
}

async fn read(response: Response<Incoming>) -> Result<Bytes, StripeError> {
    let body = Limited::new(response.into_body(), MAX_ANSWER_BYTES).collect().await.map_err(|error| {
        let too_large = error.is::<LengthLimitError>();
        let error = with_causes(&*error);
        if too_large { StripeError::Malformed(error) } else { StripeError::Unreachable(error) }
    })?;
    Ok(body.to_bytes())
}

fn parse(body: &[u8], as_of: u64) -> Result<Answer, StripeError> {
    let object: Box<RawValue> =
        serde_json::from_slice(body).map_err(|fault| StripeError::Malformed(fault.to_string()))?;
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
    fn a_patient_client_asks_again_what_may_pass_and_nothing_else() {
        let again = |status| failure(StatusCode::from_u16(status).unwrap(), String::new()).may_pass();
        assert!(again(409) && again(429) && again(500) && again(503));
        assert!(!again(302) && !again(400) && !again(401) && !again(402) && !again(403) && !again(404));
        assert!(StripeError::Timeout.may_pass() && StripeError::Unreachable(String::new()).may_pass());
        assert!(!StripeError::Malformed(String::new()).may_pass());
    }

    #[test]
    fn a_refusal_is_known_by_its_code_and_quotes_nothing() {
        let code = |body: &str| refusal_code(body.as_bytes());
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
