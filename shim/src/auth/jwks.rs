//! The public keys of user tokens: fetched from `JWKS_URL`, cached, and fetched again when a token names an unknown
//! key. There is one fetch at a time, and nobody waits longer than for one.

use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::body::Bytes;
use hyper::{StatusCode, Uri};
use hyper_rustls::HttpsConnector;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, KeyAlgorithm, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey};
use serde::Deserialize;
use serde_json::Value;
use tokio::sync::{Mutex, MutexGuard};
use tokio::time::{Instant, timeout};

use crate::auth::AuthError;
use crate::telemetry::with_causes;
use crate::tls;

/// How long a connection may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// How long the keys may take to arrive, and a request waits for them.
const FETCH_TIMEOUT: Duration = Duration::from_secs(5);
/// The maximum size of a key set, in bytes; a key takes a few hundred.
const MAX_SET_BYTES: usize = 256 * 1024;
/// The maximum age of the keys, for which a revoked key remains valid.
const MAX_AGE: Duration = Duration::from_mins(10);
/// The maximum age while the key server is down: a revoked key then remains valid for longer, but no user is locked
/// out.
const MAX_AGE_WHILE_DOWN: Duration = Duration::from_hours(1);
/// The minimum interval from the end of a fetch to the next one, so that tokens with invented keys cannot cause a flood of them.
const MIN_RENEWAL_INTERVAL: Duration = Duration::from_secs(5);

/// The keys at one URL.
pub(crate) struct Jwks {
    client: Client<HttpsConnector<HttpConnector>, Empty<Bytes>>,
    url: Uri,
    keys: RwLock<Option<Keys>>,
    /// When the last fetch ended. Locked during a fetch, so that there is one at a time.
    renewal: Mutex<Option<Instant>>,
}

/// A key set.
struct Keys {
    keys: Vec<Key>,
    fetched_at: Instant,
}

/// A key and its only algorithm.
struct Key {
    id: Option<String>,
    algorithm: Algorithm,
    key: DecodingKey,
}

/// The result of looking for a token's key.
enum KeyLookup {
    Found(DecodingKey),
    /// The named key is for another algorithm.
    OtherAlgorithm,
    Unknown,
}

impl Jwks {
    /// Prepares a client; nothing is fetched yet.
    pub(crate) fn new(url: &Uri) -> Self {
        Self {
            client: Client::builder(TokioExecutor::new()).build(tls::https_connector(CONNECT_TIMEOUT)),
            url: url.clone(),
            keys: RwLock::new(None),
            renewal: Mutex::new(None),
        }
    }

    /// The key that a token names; if it names none, the only key of its algorithm.
    pub(crate) async fn key(
        self: &Arc<Self>,
        algorithm: Algorithm,
        id: Option<&str>,
    ) -> Result<DecodingKey, AuthError> {
        match (self.find(algorithm, id, MAX_AGE), self.find(algorithm, id, MAX_AGE_WHILE_DOWN)) {
            (Some(KeyLookup::Found(key)), _) => return Ok(key),
            (Some(KeyLookup::OtherAlgorithm), _) => return Err(AuthError::Algorithm),
            // Too old, but good while the keys are fetched again, and while the key server is down.
            (None, Some(KeyLookup::Found(key))) => {
                self.renew_in_background();
                return Ok(key);
            }
            _ => {
                // Who waits for another's fetch gives up with it.
                if let Ok(last_end) = timeout(FETCH_TIMEOUT, self.renewal.lock()).await {
                    self.renew(last_end).await;
                }
            }
        }
        match self.find(algorithm, id, MAX_AGE_WHILE_DOWN) {
            Some(KeyLookup::Found(key)) => Ok(key),
            Some(KeyLookup::OtherAlgorithm) => Err(AuthError::Algorithm),
            Some(KeyLookup::Unknown) => Err(AuthError::UnknownKey),
            None => Err(AuthError::KeysUnavailable),
        }
    }

    /// None if there are no keys of at most that age.
    fn find(&self, algorithm: Algorithm, id: Option<&str>, max_age: Duration) -> Option<KeyLookup> {
        let keys = self.keys.read().unwrap_or_else(PoisonError::into_inner);
        keys.as_ref().filter(|keys| keys.fetched_at.elapsed() <= max_age).map(|keys| keys.find(algorithm, id))
    }

    /// Fetches the keys without anybody waiting for them, unless they are being fetched.
    fn renew_in_background(self: &Arc<Self>) {
        let keys = self.clone();
        tokio::spawn(async move {
            if let Ok(last_end) = keys.renewal.try_lock() {
                keys.renew(last_end).await;
            }
        });
    }

    /// Fetches the keys, unless that was just tried, such as by the previous holder of the lock.
    async fn renew(&self, mut last_end: MutexGuard<'_, Option<Instant>>) {
        if last_end.is_some_and(|at| at.elapsed() < MIN_RENEWAL_INTERVAL) {
            return;
        }
        let fetched = timeout(FETCH_TIMEOUT, self.fetch()).await;
        match fetched.unwrap_or_else(|_| Err(format!("no answer within {} seconds", FETCH_TIMEOUT.as_secs())))
        {
            Ok(keys) => *self.keys.write().unwrap_or_else(PoisonError::into_inner) = Some(keys),
            Err(fault) => tracing::error!(fault, "the keys at JWKS_URL could not be fetched"),
        }
        *last_end = Some(Instant::now());
    }

    async fn fetch(&self) -> Result<Keys, String> {
        let response = self.client.get(self.url.clone()).await.map_err(|error| with_causes(&error))?;
        if response.status() != StatusCode::OK {
            return Err(format!("status {}", response.status()));
        }
        let body = Limited::new(response.into_body(), MAX_SET_BYTES).collect().await;
        Keys::parse(&body.map_err(|error| with_causes(&*error))?.to_bytes())
    }
}

impl Keys {
    /// Reads a set and skips the keys that cannot verify a token here. A set without any other is a fault of the server:
    /// it must not throw away keys that are good.
    fn parse(set: &[u8]) -> Result<Self, String> {
        #[derive(Deserialize)]
        struct Set {
            keys: Vec<Value>,
        }
        let set: Set = serde_json::from_slice(set).map_err(|_| "it is no JSON Web Key Set".to_owned())?;
        let keys = set
            .keys
            .into_iter()
            .filter_map(|key| Key::from_jwk(&serde_json::from_value(key).ok()?))
            .collect::<Vec<Key>>();
        if keys.is_empty() {
            return Err("it has no key that can verify a token".to_owned());
        }
        Ok(Self { keys, fetched_at: Instant::now() })
    }

    fn find(&self, algorithm: Algorithm, id: Option<&str>) -> KeyLookup {
        let Some(id) = id else {
            let mut of_algorithm = self.keys.iter().filter(|key| key.algorithm == algorithm);
            return match (of_algorithm.next(), of_algorithm.next()) {
                (Some(only), None) => KeyLookup::Found(only.key.clone()),
                _ => KeyLookup::Unknown,
            };
        };
        let mut named = self.keys.iter().filter(|key| key.id.as_deref() == Some(id)).peekable();
        let is_known = named.peek().is_some();
        match named.find(|key| key.algorithm == algorithm) {
            Some(key) => KeyLookup::Found(key.key.clone()),
            None if is_known => KeyLookup::OtherAlgorithm,
            None => KeyLookup::Unknown,
        }
    }
}

impl Key {
    /// None for a key that is not for signatures or not for a supported algorithm. That includes shared secrets: in a
    /// public set they are no secrets.
    fn from_jwk(jwk: &Jwk) -> Option<Self> {
        let algorithm = match &jwk.algorithm {
            AlgorithmParameters::RSA(_) => Algorithm::RS256,
            AlgorithmParameters::EllipticCurve(key) if key.curve == EllipticCurve::P256 => Algorithm::ES256,
            _ => return None,
        };
        let is_for_algorithm = match jwk.common.key_algorithm {
            None => true,
            Some(KeyAlgorithm::RS256) => algorithm == Algorithm::RS256,
            Some(KeyAlgorithm::ES256) => algorithm == Algorithm::ES256,
            Some(_) => false,
        };
        let is_for_signatures = matches!(jwk.common.public_key_use, None | Some(PublicKeyUse::Signature));
        if !is_for_algorithm || !is_for_signatures {
            return None;
        }
        let key = DecodingKey::from_jwk(jwk).ok()?;
        Some(Self { id: jwk.common.key_id.clone(), algorithm, key })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;
    use tokio::time::{advance, pause, resume};

    use super::*;

    /// A number of the right form; nothing is verified with it.
    const NUMBER: &str = "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU";

    fn rsa(id: &str) -> Value {
        json!({"kty": "RSA", "kid": id, "n": NUMBER, "e": "AQAB"})
    }

    fn ec(id: &str, curve: &str) -> Value {
        json!({"kty": "EC", "kid": id, "crv": curve, "x": NUMBER, "y": NUMBER})
    }

    fn keys(keys: &[Value]) -> Keys {
        Keys::parse(json!({"keys": keys}).to_string().as_bytes()).unwrap()
    }

    fn find(keys: &Keys, algorithm: Algorithm, id: Option<&str>) -> &'static str {
        match keys.find(algorithm, id) {
            KeyLookup::Found(_) => "found",
            KeyLookup::OtherAlgorithm => "other algorithm",
            KeyLookup::Unknown => "nothing",
        }
    }

    #[test]
    fn a_key_is_found_by_its_name_and_only_for_its_own_algorithm() {
        let keys = keys(&[rsa("r"), ec("e", "P-256")]);
        assert_eq!(find(&keys, Algorithm::RS256, Some("r")), "found");
        assert_eq!(find(&keys, Algorithm::ES256, Some("e")), "found");
        assert_eq!(find(&keys, Algorithm::ES256, Some("r")), "other algorithm");
        assert_eq!(find(&keys, Algorithm::RS256, Some("x")), "nothing");
    }

    #[test]
    fn without_a_name_the_only_key_of_the_algorithm_is_used() {
        let two = keys(&[rsa("a"), rsa("b"), ec("e", "P-256")]);
        assert_eq!(find(&two, Algorithm::RS256, None), "nothing");
        assert_eq!(find(&two, Algorithm::ES256, None), "found");
    }

    #[test]
    fn a_key_of_another_use_algorithm_kind_or_curve_is_skipped() {
        let with = |mut key: Value, field: &str, value: &str| {
            key[field] = json!(value);
            key
        };
        for key in [
            with(rsa("k"), "use", "enc"),
            with(rsa("k"), "alg", "PS256"),
            with(rsa("k"), "alg", "ES256"),
            with(rsa("k"), "alg", "HS256"),
            ec("k", "P-384"),
            json!({"kty": "oct", "kid": "k", "k": NUMBER}),
            json!({"kty": "OKP", "kid": "k", "crv": "Ed25519", "x": NUMBER}),
            json!({"kty": "RSA", "kid": "k"}),
            json!("k"),
        ] {
            let keys = keys(&[key.clone(), with(rsa("good"), "use", "sig")]);
            assert_eq!(keys.keys.len(), 1, "{key}");
            assert_eq!(keys.keys[0].id.as_deref(), Some("good"), "{key}");
        }
    }

    #[test]
    fn a_set_without_a_usable_key_is_a_fault() {
        for set in [json!({"keys": []}), json!({"keys": [{"kty": "oct", "kid": "k", "k": NUMBER}]})] {
            assert!(Keys::parse(set.to_string().as_bytes()).is_err(), "{set}");
        }
    }

    /// Whether a set has a key by this name that is of at most that age.
    fn knows(jwks: &Jwks, id: &str, max_age: Duration) -> bool {
        matches!(jwks.find(Algorithm::RS256, Some(id), max_age), Some(KeyLookup::Found(_)))
    }

    /// Keys that were fetched this long ago from a server, and the server, which has not answered since.
    async fn fetched_before(age: Duration) -> (Arc<Jwks>, TcpListener) {
        let server = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let url = format!("http://{}/jwks", server.local_addr().expect("it is bound"));
        let jwks = Arc::new(Jwks::new(&url.parse().expect("a URL")));
        *jwks.keys.write().unwrap() = Some(keys(&[rsa("old")]));
        pause();
        advance(age).await;
        // A paused clock would not wait for the network.
        resume();
        (jwks, server)
    }

    /// Answers one request with a set.
    async fn answer(server: &TcpListener, set: &Value) {
        let (mut stream, _) = server.accept().await.expect("a request");
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await.expect("a head"));
        }
        let body = set.to_string();
        let response = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len());
        stream.write_all(response.as_bytes()).await.expect("it is read");
    }

    #[tokio::test]
    async fn keys_past_their_age_are_used_while_they_are_fetched_again_in_the_background() {
        let (jwks, server) = fetched_before(MAX_AGE + Duration::from_secs(1)).await;
        assert!(!knows(&jwks, "old", MAX_AGE) && knows(&jwks, "old", MAX_AGE_WHILE_DOWN));
        // The server has not even accepted the connection: nobody waits for it.
        assert!(timeout(FETCH_TIMEOUT / 5, jwks.key(Algorithm::RS256, Some("old"))).await.unwrap().is_ok());
        answer(&server, &json!({ "keys": [rsa("new")] })).await;
        while !knows(&jwks, "new", MAX_AGE) {
            tokio::task::yield_now().await;
        }
        let revoked = jwks.key(Algorithm::RS256, Some("old")).await;
        assert!(matches!(revoked, Err(AuthError::UnknownKey)), "{:?}", revoked.err());
    }

    #[tokio::test]
    async fn keys_that_could_not_be_fetched_again_for_too_long_are_used_no_more() {
        let (jwks, server) = fetched_before(MAX_AGE_WHILE_DOWN + Duration::from_secs(1)).await;
        drop(server);
        let lost = jwks.key(Algorithm::RS256, Some("old")).await;
        assert!(matches!(lost, Err(AuthError::KeysUnavailable)), "{:?}", lost.err());
    }
}
