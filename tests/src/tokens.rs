//! User tokens, valid and invalid, built by hand, and a server of the public keys.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http_body_util::Full;
use hyper::body::Bytes;
use hyper::{Response, StatusCode};
use ring::rand::SystemRandom;
use ring::rsa::PublicKeyComponents;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _, RSA_PKCS1_SHA256, RsaKeyPair,
};
use ring::{digest, hmac};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::http_server::HttpServer;
use crate::shim::unix_now;

/// The shared secret of HS256, unless a test says otherwise.
pub const JWT_SECRET: &str = "a-secret-of-the-tests-with-at-least-32-bytes";
/// `aud` of the tokens.
pub const AUDIENCE: &str = "authenticated";
/// `iss` of the tokens.
pub const ISSUER: &str = "https://auth.test/v1";
/// A key of these tests only: ring cannot generate RSA keys.
const RSA_KEY: &[u8] = include_bytes!("../keys/rsa_of_the_tests.pk8");

/// A key that signs tokens, with its `kid`.
pub enum Signer {
    /// HS256.
    Secret(String),
    /// ES256.
    Ec(String, Box<EcdsaKeyPair>),
    /// RS256.
    Rsa(String, Box<RsaKeyPair>),
}

/// The claims of a token that is valid for an hour.
pub fn claims(user: Uuid) -> Value {
    json!({
        "sub": user.to_string(), "exp": unix_now() + 3600, "iat": unix_now(), "aud": AUDIENCE, "iss": ISSUER,
        "role": "authenticated", "email": format!("{}@users.test", user.simple()),
    })
}

/// A valid token of a user, signed with [`JWT_SECRET`].
pub fn token(user: Uuid) -> String {
    Signer::secret().sign(&claims(user))
}

/// A token from its parts: header, claims and signature.
pub fn token_of(header: &Value, claims: &Value, sign: impl FnOnce(&[u8]) -> Vec<u8>) -> String {
    let encoded = |part: &Value| URL_SAFE_NO_PAD.encode(part.to_string());
    let message = format!("{}.{}", encoded(header), encoded(claims));
    let signature = URL_SAFE_NO_PAD.encode(sign(message.as_bytes()));
    format!("{message}.{signature}")
}

impl Signer {
    /// The shared secret.
    pub fn secret() -> Signer {
        Signer::Secret(JWT_SECRET.to_owned())
    }

    /// A new key on the curve P-256.
    pub fn ec(id: &str) -> Signer {
        let random = SystemRandom::new();
        let algorithm = &ECDSA_P256_SHA256_FIXED_SIGNING;
        let key = EcdsaKeyPair::generate_pkcs8(algorithm, &random).expect("a key");
        let key = EcdsaKeyPair::from_pkcs8(algorithm, key.as_ref(), &random).expect("a key as made");
        Signer::Ec(id.to_owned(), Box::new(key))
    }

    /// The key of 2048 bits.
    pub fn rsa(id: &str) -> Signer {
        Signer::Rsa(
            id.to_owned(),
            Box::new(RsaKeyPair::from_pkcs8(RSA_KEY).expect("a key in the repository")),
        )
    }

    /// The token with these claims.
    pub fn sign(&self, claims: &Value) -> String {
        self.sign_as(&self.header(), claims)
    }

    /// The token with this header, which may be wrong.
    pub fn sign_as(&self, header: &Value, claims: &Value) -> String {
        token_of(header, claims, |message| self.signature(message))
    }

    /// The header of this signer's tokens.
    pub fn header(&self) -> Value {
        match self {
            Signer::Secret(_) => json!({"alg": "HS256", "typ": "JWT"}),
            Signer::Ec(id, _) => json!({"alg": "ES256", "typ": "JWT", "kid": id}),
            Signer::Rsa(id, _) => json!({"alg": "RS256", "typ": "JWT", "kid": id}),
        }
    }

    /// The public key, as a server of keys shows it.
    pub fn jwk(&self) -> Value {
        let number = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        match self {
            Signer::Secret(_) => panic!("a secret is not shown"),
            Signer::Ec(id, key) => {
                // An uncompressed point: a 4, then x and y.
                let (x, y) = key.public_key().as_ref()[1..].split_at(32);
                json!({
                    "kty": "EC", "use": "sig", "alg": "ES256", "kid": id, "crv": "P-256", "x": number(x), "y": number(y),
                })
            }
            Signer::Rsa(id, key) => {
                let PublicKeyComponents { n, e } = PublicKeyComponents::<Vec<u8>>::from(key.public());
                json!({"kty": "RSA", "use": "sig", "alg": "RS256", "kid": id, "n": number(&n), "e": number(&e)})
            }
        }
    }

    /// The public key's bytes, which a forger would use as an HS256 secret.
    pub fn public_bytes(&self) -> Vec<u8> {
        match self {
            Signer::Secret(_) => panic!("a secret is not shown"),
            Signer::Ec(_, key) => key.public_key().as_ref().to_vec(),
            Signer::Rsa(_, key) => key.public_key().as_ref().to_vec(),
        }
    }

    fn signature(&self, message: &[u8]) -> Vec<u8> {
        let random = SystemRandom::new();
        match self {
            Signer::Secret(secret) => hs256(secret.as_bytes(), message),
            Signer::Ec(_, key) => key.sign(&random, message).expect("a signature").as_ref().to_vec(),
            Signer::Rsa(_, key) => {
                let mut signature = vec![0; key.public().modulus_len()];
                key.sign(&RSA_PKCS1_SHA256, &random, message, &mut signature).expect("a signature");
                signature
            }
        }
    }
}

/// HMAC-SHA256 with any bytes for a key.
pub fn hs256(key: &[u8], message: &[u8]) -> Vec<u8> {
    hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), message).as_ref().to_vec()
}

/// HMAC-SHA512 with any bytes for a key.
pub fn hs512(key: &[u8], message: &[u8]) -> Vec<u8> {
    hmac::sign(&hmac::Key::new(hmac::HMAC_SHA512, key), message).as_ref().to_vec()
}

/// SHA-256 in hex.
pub fn sha256(text: &str) -> String {
    let digest = digest::digest(&digest::SHA256, text.as_bytes());
    digest.as_ref().iter().fold(String::new(), |hex, byte| hex + &format!("{byte:02x}"))
}

/// Shows public keys at a URL, and counts the requests. Dropped, it is gone.
pub struct KeyServer {
    server: HttpServer,
    state: Arc<Mutex<KeyState>>,
}

struct KeyState {
    /// The keys, or nothing while it fails.
    keys: Option<Value>,
    hangs: bool,
    asked: usize,
}

impl KeyServer {
    /// Shows these signers' keys.
    pub fn showing(signers: &[&Signer]) -> KeyServer {
        let state = Arc::new(Mutex::new(KeyState { keys: Some(set(signers)), hangs: false, asked: 0 }));
        let shared = state.clone();
        let server = HttpServer::start(move |_| {
            let shared = shared.clone();
            async move {
                let (hangs, (status, body)) = {
                    let mut state = locked(&shared);
                    state.asked += 1;
                    let answer = match &state.keys {
                        Some(keys) => (StatusCode::OK, keys.to_string()),
                        None => (StatusCode::INTERNAL_SERVER_ERROR, "{}".to_owned()),
                    };
                    (state.hangs, answer)
                };
                if hangs {
                    std::future::pending::<()>().await;
                }
                let mut answer = Response::new(Full::<Bytes>::from(body));
                *answer.status_mut() = status;
                Ok::<_, Infallible>(answer)
            }
        });
        KeyServer { server, state }
    }

    /// The value for `JWKS_URL`.
    pub fn url(&self) -> String {
        self.server.origin() + "/.well-known/jwks.json"
    }

    /// From now on it shows these.
    pub fn show(&self, signers: &[&Signer]) {
        locked(&self.state).keys = Some(set(signers));
    }

    /// From now on it fails.
    pub fn fail(&self) {
        locked(&self.state).keys = None;
    }

    /// From now on it takes requests and answers none.
    pub fn hang(&self) {
        locked(&self.state).hangs = true;
    }

    /// How often it was asked.
    pub fn asked(&self) -> usize {
        locked(&self.state).asked
    }
}

fn set(signers: &[&Signer]) -> Value {
    json!({"keys": signers.iter().map(|signer| signer.jwk()).collect::<Vec<_>>()})
}

fn locked(state: &Mutex<KeyState>) -> MutexGuard<'_, KeyState> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Tokens of a user with one fault each, by its name.
pub fn wrong_tokens(user: Uuid) -> BTreeMap<&'static str, String> {
    let signer = Signer::secret();
    let with = |field: &str, value: Value| {
        let mut claims = claims(user);
        claims[field] = value;
        signer.sign(&claims)
    };
    let without = |field: &str| {
        let mut claims = claims(user);
        claims.as_object_mut().expect("claims are an object").remove(field);
        signer.sign(&claims)
    };
    let header = |alg: &str| json!({"alg": alg, "typ": "JWT"});
    let good = signer.sign(&claims(user));
    let [head, body, signature] = good.split('.').collect::<Vec<_>>()[..] else { panic!("three parts") };
    let mut others = claims(user);
    others["sub"] = json!(Uuid::nil().to_string());
    let other_body = URL_SAFE_NO_PAD.encode(others.to_string());
    BTreeMap::from([
        ("expired", with("exp", json!(unix_now() - 60))),
        ("valid for ever", without("exp")),
        ("an expiry that is no number", with("exp", json!("tomorrow"))),
        ("not valid yet", with("nbf", json!(unix_now() + 3600))),
        ("for another audience", with("aud", json!("anon"))),
        ("for no audience", without("aud")),
        ("of another issuer", with("iss", json!("https://evil.test"))),
        ("of no issuer", without("iss")),
        ("without a user", without("sub")),
        ("of a user whose id is no UUID", with("sub", json!("ann"))),
        ("of a user whose id is a number", with("sub", json!(1))),
        ("signed with another secret", Signer::Secret("x".repeat(40)).sign(&claims(user))),
        ("signed with nothing", token_of(&header("none"), &claims(user), |_| Vec::new())),
        (
            "whose header says that it is not signed",
            token_of(&header("nOnE"), &claims(user), |m| hs256(JWT_SECRET.as_bytes(), m)),
        ),
        ("signed with an empty secret", token_of(&header("HS256"), &claims(user), |m| hs256(b"", m))),
        (
            "signed with a longer hash",
            token_of(&header("HS512"), &claims(user), |m| hs512(JWT_SECRET.as_bytes(), m)),
        ),
        (
            "that names an unknown key",
            token_of(&header("ES256"), &claims(user), |m| hs256(JWT_SECRET.as_bytes(), m)),
        ),
        ("without its signature", format!("{head}.{body}.")),
        ("in two parts", format!("{head}.{body}")),
        ("in four parts", format!("{good}.{signature}")),
        ("with another body", format!("{head}.{other_body}.{signature}")),
        (
            "with a header that must be understood",
            signer.sign_as(&json!({"alg": "HS256", "crit": ["b64"], "b64": false}), &claims(user)),
        ),
        ("no token", "null".to_owned()),
        ("a body that is a list", signer.sign(&json!([user.to_string()]))),
    ])
}
