//! The public keys that sign the app's tokens: fetched from `JWKS_URL`, kept for a while, fetched again when a token
//! names one that is not among them.

use std::sync::{PoisonError, RwLock};
use std::time::{Duration, Instant};

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
use tokio::time::timeout;

use crate::auth::AuthError;
use crate::telemetry::with_causes;
use crate::tls;

/// How long a connection may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// How long the keys may take to arrive.
const FETCH_TIMEOUT: Duration = Duration::from_secs(5);
/// The largest set read, in bytes; a key takes some hundred.
const MAX_SET_BYTES: usize = 256 * 1024;
/// How old the keys may be: a key that was taken back is good for that long.
const MAX_AGE: Duration = Duration::from_mins(10);
/// How old they may be while their server is away: then a key that was taken back is good for longer, and everybody
/// else is not locked out.
const MAX_AGE_AWAY: Duration = Duration::from_hours(1);
/// How soon they are fetched again, so that tokens with made-up keys cannot make us a nuisance to their server.
const MIN_RENEWAL_INTERVAL: Duration = Duration::from_secs(5);

/// The keys at one URL.
pub(crate) struct Jwks {
    client: Client<HttpsConnector<HttpConnector>, Empty<Bytes>>,
    url: Uri,
    keys: RwLock<Option<Keys>>,
    /// When they were last asked for. Held while they are: one renewal at a time.
    renewal: Mutex<Option<Instant>>,
}

/// A set as it was fetched.
struct Keys {
    keys: Vec<Key>,
    fetched_at: Instant,
}

/// A key, and the one algorithm it is for.
struct Key {
    id: Option<String>,
    algorithm: Algorithm,
    key: DecodingKey,
}

/// What a set says of a token's key.
enum Found {
    Key(DecodingKey),
    /// The key is there, and it is not for this algorithm.
    OtherAlgorithm,
    Nothing,
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

    /// The key that a token names; without a name, the only key of its algorithm.
    pub(crate) async fn key(&self, algorithm: Algorithm, id: Option<&str>) -> Result<DecodingKey, AuthError> {
        match (self.find(algorithm, id, MAX_AGE), self.find(algorithm, id, MAX_AGE_AWAY)) {
            (Some(Found::Key(key)), _) => return Ok(key),
            (Some(Found::OtherAlgorithm), _) => return Err(AuthError::Algorithm),
            // It is old, and good while their server is away: one request finds out whether it is, the others go on.
            (None, Some(Found::Key(_))) => {
                if let Ok(last_attempt) = self.renewal.try_lock() {
                    self.renew(last_attempt).await;
                }
            }
            _ => self.renew(self.renewal.lock().await).await,
        }
        match self.find(algorithm, id, MAX_AGE_AWAY) {
            Some(Found::Key(key)) => Ok(key),
            Some(Found::OtherAlgorithm) => Err(AuthError::Algorithm),
            Some(Found::Nothing) => Err(AuthError::UnknownKey),
            None => Err(AuthError::KeysUnavailable),
        }
    }

    /// None where there are no keys of that age.
    fn find(&self, algorithm: Algorithm, id: Option<&str>, max_age: Duration) -> Option<Found> {
        let keys = self.keys.read().unwrap_or_else(PoisonError::into_inner);
        keys.as_ref().filter(|keys| keys.fetched_at.elapsed() <= max_age).map(|keys| keys.find(algorithm, id))
    }

    /// Fetches the keys, unless that was just tried: by whoever held the lock before us, for one.
    async fn renew(&self, mut last_attempt: MutexGuard<'_, Option<Instant>>) {
        if last_attempt.is_some_and(|at| at.elapsed() < MIN_RENEWAL_INTERVAL) {
            return;
        }
        *last_attempt = Some(Instant::now());
        let fetched = timeout(FETCH_TIMEOUT, self.fetch()).await;
        match fetched.unwrap_or_else(|_| Err(format!("no answer within {} seconds", FETCH_TIMEOUT.as_secs())))
        {
            Ok(keys) => *self.keys.write().unwrap_or_else(PoisonError::into_inner) = Some(keys),
            Err(fault) => tracing::error!(fault, "the keys at JWKS_URL could not be fetched"),
        }
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
    /// Reads a set, and leaves out what no token of ours is signed with.
    fn parse(set: &[u8]) -> Result<Self, String> {
        #[derive(Deserialize)]
        struct Set {
            keys: Vec<Value>,
        }
        let set: Set = serde_json::from_slice(set).map_err(|_| "it is no JSON Web Key Set".to_owned())?;
        let keys =
            set.keys.into_iter().filter_map(|key| Key::of(&serde_json::from_value(key).ok()?)).collect();
        Ok(Self { keys, fetched_at: Instant::now() })
    }

    fn find(&self, algorithm: Algorithm, id: Option<&str>) -> Found {
        let Some(id) = id else {
            let mut of_algorithm = self.keys.iter().filter(|key| key.algorithm == algorithm);
            return match (of_algorithm.next(), of_algorithm.next()) {
                (Some(only), None) => Found::Key(only.key.clone()),
                _ => Found::Nothing,
            };
        };
        let mut named = self.keys.iter().filter(|key| key.id.as_deref() == Some(id)).peekable();
        let is_known = named.peek().is_some();
        match named.find(|key| key.algorithm == algorithm) {
            Some(key) => Found::Key(key.key.clone()),
            None if is_known => Found::OtherAlgorithm,
            None => Found::Nothing,
        }
    }
}

impl Key {
    /// None for a key that is not for signatures, or of another kind than ours. A shared secret in a public set is
    /// one of those: everybody knows it.
    fn of(jwk: &Jwk) -> Option<Self> {
        let algorithm = match &jwk.algorithm {
            AlgorithmParameters::RSA(_) => Algorithm::RS256,
            AlgorithmParameters::EllipticCurve(key) if key.curve == EllipticCurve::P256 => Algorithm::ES256,
            _ => return None,
        };
        let is_for_it = match jwk.common.key_algorithm {
            None => true,
            Some(KeyAlgorithm::RS256) => algorithm == Algorithm::RS256,
            Some(KeyAlgorithm::ES256) => algorithm == Algorithm::ES256,
            Some(_) => false,
        };
        let is_for_signatures = matches!(jwk.common.public_key_use, None | Some(PublicKeyUse::Signature));
        if !is_for_it || !is_for_signatures {
            return None;
        }
        let key = DecodingKey::from_jwk(jwk).ok()?;
        Some(Self { id: jwk.common.key_id.clone(), algorithm, key })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// Numbers of the right form; nothing is verified with them.
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
            Found::Key(_) => "found",
            Found::OtherAlgorithm => "other algorithm",
            Found::Nothing => "nothing",
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
    fn without_a_name_the_only_key_of_the_algorithm_is_meant() {
        let two = keys(&[rsa("a"), rsa("b"), ec("e", "P-256")]);
        assert_eq!(find(&two, Algorithm::RS256, None), "nothing");
        assert_eq!(find(&two, Algorithm::ES256, None), "found");
    }

    #[test]
    fn a_key_of_another_use_algorithm_kind_or_curve_is_left_out() {
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
    fn keys_are_good_for_their_age_and_no_longer() {
        let jwks = Jwks::new(&Uri::from_static("https://nowhere.example/jwks"));
        assert!(jwks.find(Algorithm::RS256, Some("r"), MAX_AGE).is_none());
        let age = Duration::from_secs(1);
        let fetched_at = Instant::now().checked_sub(age).expect("this machine has run for a second");
        *jwks.keys.write().unwrap() = Some(Keys { fetched_at, ..keys(&[rsa("r")]) });
        assert!(jwks.find(Algorithm::RS256, Some("r"), age).is_none());
        assert!(matches!(jwks.find(Algorithm::RS256, Some("r"), MAX_AGE), Some(Found::Key(_))));
    }
}
