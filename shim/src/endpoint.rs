//! The app's endpoint for events, `EVENTS_URL`: posts one event, signed by the Standard Webhooks scheme, and says whether
//! it was taken.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Bytes;
use hyper::header::CONTENT_TYPE;
use hyper::{Request, StatusCode, Uri};
use hyper_rustls::HttpsConnector;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use secrecy::{ExposeSecret as _, SecretSlice};
use sha2::Sha256;
use thiserror::Error;
use tokio::time::timeout;

use crate::clock::unix_now;
use crate::config::EventsConfig;
use crate::database::outbox::AppEvent;
use crate::telemetry::with_causes;
use crate::tls;

/// How long a connection may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long the app may take to answer: a handler should take the event and do its work afterwards.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(15);
/// How long, and how many bytes, an answer's body is read, so that its connection can be used again. It says nothing.
const BODY_TIMEOUT: Duration = Duration::from_secs(2);
const MAX_BODY_BYTES: usize = 64 * 1024;

/// The client of the endpoint, with the secrets that sign.
pub(crate) struct Endpoint {
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
    url: Uri,
    secrets: Vec<SecretSlice<u8>>,
}

/// Why an event was not taken.
#[derive(Debug, Error)]
pub(crate) enum EndpointError {
    #[error("the endpoint is unreachable: {0}")]
    Unreachable(String),
    #[error("the endpoint did not answer within {} seconds", REQUEST_TIMEOUT.as_secs())]
    Timeout,
    // A redirect is not followed: it would take what is signed to another address.
    #[error("the endpoint answered {0}")]
    Status(StatusCode),
}

impl Endpoint {
    /// Prepares a client; no connection is opened yet.
    pub(crate) fn new(config: &EventsConfig) -> Self {
        Self {
            client: Client::builder(TokioExecutor::new()).build(tls::https_connector(CONNECT_TIMEOUT)),
            url: config.url.clone(),
            secrets: config.secrets.clone(),
        }
    }

    /// Posts an event. It was taken if the answer is 2xx.
    pub(crate) async fn post(&self, event: &AppEvent) -> Result<(), EndpointError> {
        let (timestamp, body) = (unix_now().to_string(), event.json());
        let request = Request::post(self.url.clone())
            .header(CONTENT_TYPE, "application/json")
            .header("webhook-id", &event.id)
            .header("webhook-signature", self.signatures(&event.id, &timestamp, &body))
            .header("webhook-timestamp", timestamp)
            .body(Full::new(Bytes::from(body)))
            .map_err(|fault| EndpointError::Unreachable(fault.to_string()))?;
        let response = timeout(REQUEST_TIMEOUT, self.client.request(request))
            .await
            .map_err(|_| EndpointError::Timeout)?
            .map_err(|error| EndpointError::Unreachable(with_causes(&error)))?;
        let status = response.status();
        let _ = timeout(BODY_TIMEOUT, Limited::new(response.into_body(), MAX_BODY_BYTES).collect()).await;
        if status.is_success() { Ok(()) } else { Err(EndpointError::Status(status)) }
    }

    /// The header's value: a signature by each secret, so that a receiver may know either during a rotation.
    fn signatures(&self, id: &str, timestamp: &str, body: &str) -> String {
        let sign = |secret: &SecretSlice<u8>| signature(secret.expose_secret(), id, timestamp, body);
        self.secrets.iter().map(sign).collect::<Vec<_>>().join(" ")
    }
}

/// `v1,` and the base64 of HMAC-SHA256 over the id, the timestamp and the body, with dots between.
fn signature(secret: &[u8], id: &str, timestamp: &str, body: &str) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret).expect("a key of any length");
    for part in [id, ".", timestamp, ".", body] {
        mac.update(part.as_bytes());
    }
    format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_signature_is_that_of_the_standards_example() {
        // The example of the Standard Webhooks specification's libraries.
        let secret = STANDARD.decode("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").expect("base64");
        let signed =
            signature(&secret, "msg_p5jXN8AQM9LWM0D4loKWxJek", "1614265330", r#"{"test": 2432232314}"#);
        assert_eq!(signed, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
    }
}
