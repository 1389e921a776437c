//! Stripe's API as the checklist uses it: forms in, objects out. The key is only ever a test key.

use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::tls;
use crate::{Error, Result, signals};

/// Where Stripe's API is, unless `STRIPE_API_BASE` says otherwise.
pub const STRIPE: &str = "https://api.stripe.com";
/// The version of the API, the same as the shim's.
const VERSION: &str = "2025-03-31.basil";
/// What a secret key of test mode begins with.
const TEST_KEY: &str = "sk_test_";
/// How long an answer may take.
const ANSWER_LIMIT: Duration = Duration::from_secs(30);
/// How long something may take that Stripe does by itself, such as an event.
const PATIENCE: Duration = Duration::from_mins(1);
/// How often it is asked for meanwhile.
const POLL: Duration = Duration::from_millis(500);

/// A client with a test key.
pub struct Api {
    agent: ureq::Agent,
    base: String,
    authorization: String,
}

impl Api {
    /// A client at `base` with this key, which must be one of test mode.
    pub fn new(base: &str, key: &str) -> Result<Self> {
        if !key.starts_with(TEST_KEY) {
            return Err(Error::Unmet(format!(
                "STRIPE_SECRET_KEY must begin with {TEST_KEY}: this sells and pays, in test mode only"
            )));
        }
        let agent = ureq::Agent::config_builder()
            .timeout_global(Some(ANSWER_LIMIT))
            .http_status_as_error(false)
            .tls_config(tls::config())
            .build()
            .into();
        Ok(Self {
            agent,
            base: base.trim_end_matches('/').to_owned(),
            authorization: format!("Bearer {key}"),
        })
    }

    /// The object at a path.
    pub fn get(&self, path: &str) -> Result<Value> {
        let request = self.agent.get(format!("{}{path}", self.base));
        let request = request.header("Authorization", &self.authorization).header("Stripe-Version", VERSION);
        read(path, request.call()?)
    }

    /// Posts a form; the object that it made or changed.
    pub fn post(&self, path: &str, form: &[(&str, &str)]) -> Result<Value> {
        let request = self.agent.post(format!("{}{path}", self.base));
        let request = request.header("Authorization", &self.authorization).header("Stripe-Version", VERSION);
        read(path, request.send_form(form.iter().copied())?)
    }

    /// The event of a type about an object, once Stripe lists it.
    pub fn event(&self, event_type: &str, object_id: &str) -> Result<Value> {
        self.wait_for(&format!("the event {event_type} of {object_id}"), PATIENCE, || {
            let list = self.get(&format!("/v1/events?limit=100&type={event_type}"))?;
            let events = list["data"].as_array().into_iter().flatten();
            Ok(events.clone().find(|event| event["data"]["object"]["id"] == object_id).cloned())
        })
    }

    /// Asks again and again until there is an answer.
    pub fn wait_for<T>(
        &self,
        what: &str,
        limit: Duration,
        mut ask: impl FnMut() -> Result<Option<T>>,
    ) -> Result<T> {
        let start = Instant::now();
        loop {
            if let Some(answer) = ask()? {
                return Ok(answer);
            }
            if start.elapsed() > limit {
                return Err(Error::Unmet(format!("{what} did not come within {} s", limit.as_secs())));
            }
            signals::check()?;
            thread::sleep(POLL);
        }
    }
}

/// An object, or Stripe's own words of what is wrong.
fn read(path: &str, mut response: ureq::http::Response<ureq::Body>) -> Result<Value> {
    let status = response.status();
    let text = response.body_mut().read_to_string()?;
    let object: Value = serde_json::from_str(&text)
        .map_err(|fault| Error::Unmet(format!("Stripe's answer to {path} is no JSON ({status}): {fault}")))?;
    if status.is_success() {
        return Ok(object);
    }
    let message = object["error"]["message"].as_str().unwrap_or("no message");
    Err(Error::Unmet(format!("Stripe refused {path} ({status}): {message}")))
}
