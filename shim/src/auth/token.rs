//! Verifies bearer tokens and reads their user.
//!
//! The token's algorithm selects the kind of key, and a key is only used with its own algorithm: HS256 with the
//! shared secret, ES256 and RS256 with a public key from `JWKS_URL`. So a token that is signed with a public key as
//! an HS256 secret is rejected, and so is an unsigned one.

use std::sync::Arc;
use std::time::Duration;

use hyper::header::{AUTHORIZATION, HeaderMap};
use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{Algorithm, DecodingKey, Header, Validation, decode, decode_header};
use secrecy::{ExposeSecret as _, SecretString};
use serde::Deserialize;
use serde_json::Value;
use uuid::Uuid;

use crate::auth::jwks::Jwks;
use crate::auth::{AuthError, verifier};
use crate::config::AuthConfig;

/// The tolerated difference between the issuer's clock and this one, in seconds.
const LEEWAY_SECONDS: u64 = 30;
/// The `role` of a token that is not said to need one (`JWT_ROLE`).
pub(crate) const ANY_ROLE: &str = "*";
/// The `aud` and `role` of Supabase's tokens of users who signed in.
const SUPABASE_AUDIENCE: &str = "authenticated";
/// What the `iss` of Supabase's tokens ends with.
const SUPABASE_ISSUER_PATH: &str = "/auth/v1";
/// The longest email address accepted, in bytes (RFC 5321's limit of a path).
const MAX_EMAIL_BYTES: usize = 254;

/// A verified token. Only [`Authenticator::authenticate`] makes one.
#[derive(Debug)]
pub(crate) struct Token {
    sub: String,
    email: Option<String>,
    expires_at: u64,
}

/// An authenticated user. Only a [`Token`] makes one.
#[derive(Debug)]
pub(crate) struct User {
    id: Uuid,
    email: Option<String>,
    expires_at: u64,
}

/// The keys that verify tokens, and the claims that tokens must have.
pub(crate) struct Authenticator {
    secret: Option<DecodingKey>,
    jwks: Option<Arc<Jwks>>,
    audience: Option<String>,
    issuer: Option<String>,
    /// [`ANY_ROLE`], or the role that a token must have.
    role: String,
}

/// The claims that are read; the others are only checked.
#[derive(Deserialize)]
struct Claims {
    sub: Option<Value>,
    email: Option<Value>,
    role: Option<Value>,
    exp: Option<Value>,
    iss: Option<Value>,
    aud: Option<Value>,
}

impl Token {
    /// Whom the identity provider names.
    pub(crate) fn sub(&self) -> &str {
        &self.sub
    }

    /// The user, with the id that the token's `sub` means in the database; if it means nobody, the token is of no use.
    pub(crate) fn into_user(self, id: Option<Uuid>) -> Result<User, AuthError> {
        Ok(User { id: id.ok_or(AuthError::Subject)?, email: self.email, expires_at: self.expires_at })
    }
}

impl User {
    /// The user's id.
    pub(crate) fn id(&self) -> Uuid {
        self.id
    }

    /// The token's `email`, if it has one.
    pub(crate) fn email(&self) -> Option<&str> {
        self.email.as_deref()
    }

    /// Until when the token is valid, in seconds since 1970.
    pub(crate) fn expires_at(&self) -> u64 {
        self.expires_at
    }
}

impl Authenticator {
    /// Prepares the keys; those at `JWKS_URL` are fetched when the first token needs them.
    pub(crate) fn new(config: &AuthConfig) -> Self {
        verifier::install();
        let secret = |secret: &SecretString| DecodingKey::from_secret(secret.expose_secret().as_bytes());
        Self {
            secret: config.secret.as_ref().map(secret),
            jwks: config.jwks_url.as_ref().map(|url| Arc::new(Jwks::new(url))),
            audience: config.audience.clone(),
            issuer: config.issuer.clone(),
            role: config.role.clone(),
        }
    }

    /// The request's bearer token, verified.
    pub(crate) async fn authenticate(&self, headers: &HeaderMap) -> Result<Token, AuthError> {
        let token = bearer(headers)?;
        let header = decode_header(token).map_err(|fault| auth_error(fault.kind()))?;
        if header.crit.is_some() {
            // RFC 7515: a token with a critical extension that is not understood must be rejected.
            return Err(AuthError::Malformed);
        }
        let key = self.key(&header).await?;
        let claims = decode::<Claims>(token, &key, &validation(header.alg))
            .map_err(|fault| auth_error(fault.kind()))?
            .claims;
        self.check(&claims)?;
        let text = |claim: Option<Value>| claim.as_ref().and_then(Value::as_str).map(str::to_owned);
        let sub = text(claims.sub).ok_or(AuthError::Subject)?;
        // The tokens of Supabase users who signed in by phone have an empty one.
        let email = text(claims.email).filter(|email| !email.is_empty() && email.len() <= MAX_EMAIL_BYTES);
        Ok(Token { sub, email, expires_at: claims.exp.as_ref().map_or(0, seconds) })
    }

    async fn key(&self, header: &Header) -> Result<DecodingKey, AuthError> {
        match (header.alg, &self.secret, &self.jwks) {
            (Algorithm::HS256, Some(secret), _) => Ok(secret.clone()),
            (Algorithm::ES256 | Algorithm::RS256, _, Some(jwks)) => {
                jwks.key(header.alg, header.kid.as_deref()).await
            }
            _ => Err(AuthError::Algorithm),
        }
    }

    /// Checks for whom a token is whose signature and time are right. The role comes first: an app's own key of another
    /// role, such as Supabase's of `anon`, often has no audience, and its sender should learn what is wrong with it.
    fn check(&self, claims: &Claims) -> Result<(), AuthError> {
        let role = claims.role.as_ref().and_then(Value::as_str);
        if self.role != ANY_ROLE && role != Some(&self.role) {
            return Err(AuthError::Role);
        }
        let audience = match &self.audience {
            None if is_of_supabase(claims) => Some(SUPABASE_AUDIENCE),
            audience => audience.as_deref(),
        };
        if audience.is_some_and(|audience| !names(claims.aud.as_ref(), audience)) {
            return Err(AuthError::Audience);
        }
        if self.issuer.as_ref().is_some_and(|issuer| !names(claims.iss.as_ref(), issuer)) {
            return Err(AuthError::Issuer);
        }
        Ok(())
    }
}

/// What jsonwebtoken checks: the signature, `exp` and `nbf`.
fn validation(algorithm: Algorithm) -> Validation {
    let mut validation = Validation::new(algorithm);
    validation.leeway = LEEWAY_SECONDS;
    validation.validate_nbf = true;
    validation.validate_aud = false;
    validation.set_required_spec_claims(&["exp"]);
    validation
}

/// A time in whole seconds, however it is written; 0 if it is none.
fn seconds(time: &Value) -> u64 {
    let duration = time.as_f64().and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    time.as_u64().unwrap_or_else(|| duration.map_or(0, |duration| duration.as_secs()))
}

/// Whether Supabase issued a token. It says so itself, but a token that is Supabase's cannot say otherwise.
fn is_of_supabase(claims: &Claims) -> bool {
    let issuer = claims.iss.as_ref().and_then(Value::as_str);
    issuer.is_some_and(|issuer| issuer.trim_end_matches('/').ends_with(SUPABASE_ISSUER_PATH))
}

/// Whether a claim, which is one text or several, has this one.
fn names(claim: Option<&Value>, wanted: &str) -> bool {
    match claim {
        Some(Value::String(one)) => one == wanted,
        Some(Value::Array(several)) => several.iter().any(|one| one.as_str() == Some(wanted)),
        _ => false,
    }
}

/// The only token of the only Authorization header.
pub(crate) fn bearer(headers: &HeaderMap) -> Result<&str, AuthError> {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let value = values.next().ok_or(AuthError::Missing)?;
    if values.next().is_some() {
        return Err(AuthError::Malformed);
    }
    let (scheme, token) =
        value.to_str().ok().and_then(|value| value.split_once(' ')).ok_or(AuthError::Malformed)?;
    if scheme.eq_ignore_ascii_case("bearer") { Ok(token.trim()) } else { Err(AuthError::Malformed) }
}

fn auth_error(fault: &ErrorKind) -> AuthError {
    match fault {
        ErrorKind::ExpiredSignature => AuthError::Expired,
        ErrorKind::ImmatureSignature => AuthError::Immature,
        ErrorKind::InvalidSignature => AuthError::Signature,
        ErrorKind::InvalidAlgorithm | ErrorKind::InvalidAlgorithmName => AuthError::Algorithm,
        ErrorKind::MissingRequiredClaim(_) => AuthError::NoExpiry,
        _ => AuthError::Malformed,
    }
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;
    use hmac::{Hmac, KeyInit as _, Mac as _};
    use hyper::header::HeaderValue;
    use proptest::prelude::*;
    use sha2::Sha256;

    use super::*;

    /// HS256 with [`SECRET`], for user 1, until the year 2286; made with Python's hmac.
    const TOKEN: &str = concat!(
        "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.",
        "eyJzdWIiOiIwMDAwMDAwMC0wMDAwLTAwMDAtMDAwMC0wMDAwMDAwMDAwMDEiLCJleHAiOjk5OTk5OTk5OTksImVtYW",
        "lsIjoiYW5uQHVzZXJzLnRlc3QifQ.",
        "zn8MlbrRXML8FNuCqJwfS4KCnDzDESs64esV8mWlvRY",
    );
    const SECRET: &str = "0123456789abcdef0123456789abcdef";

    fn authenticate(token: &str) -> Result<Token, AuthError> {
        let (secret, jwks_url, audience, issuer) = (Some(SecretString::from(SECRET)), None, None, None);
        let role = ANY_ROLE.to_owned();
        let auth = Authenticator::new(&AuthConfig { secret, jwks_url, audience, issuer, role });
        let value = HeaderValue::from_str(&format!("Bearer {token}")).expect("a header's value");
        let headers = HeaderMap::from_iter([(AUTHORIZATION, value)]);
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        runtime.block_on(auth.authenticate(&headers))
    }

    #[test]
    fn a_good_token_names_its_user() {
        let token = authenticate(TOKEN).unwrap();
        let id = Uuid::from_u128(1);
        assert_eq!(token.sub(), id.to_string());
        let user = token.into_user(Some(id)).unwrap();
        assert_eq!((user.id(), user.email()), (id, Some("ann@users.test")));
        assert!(authenticate(TOKEN).unwrap().into_user(None).is_err(), "a sub that names nobody");
    }

    proptest! {
        #[test]
        fn a_token_that_differs_in_any_character_is_rejected(at in 0..TOKEN.len(), other in "[A-Za-z0-9_.-]") {
            let mut token = TOKEN.to_owned();
            token.replace_range(at..=at, &other);
            prop_assert_eq!(authenticate(&token).is_ok(), token == TOKEN);
        }

        #[test]
        fn an_invented_text_is_not_a_token(text in "[ -~]{0,200}") {
            prop_assert!(authenticate(&text).is_err());
        }
    }

    /// Tokens good and bad: the header, the claims and the key of each.
    const CORPUS: &str = include_str!("corpus.jsonl");

    fn corpus() -> Vec<Value> {
        CORPUS.lines().map(|line| serde_json::from_str(line).expect("a line of the corpus is JSON")).collect()
    }

    /// The token of these parts, signed as the corpus's `key` says.
    fn signed(header: &Value, claims: &Value, key: &str) -> String {
        let message = [header, claims].map(|part| URL_SAFE_NO_PAD.encode(part.to_string())).join(".");
        let hs256 = |key: &[u8]| {
            let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("a key of any length");
            mac.update(message.as_bytes());
            URL_SAFE_NO_PAD.encode(mac.finalize().into_bytes())
        };
        let signature = match key {
            "right" => hs256(SECRET.as_bytes()),
            "other" => hs256(b"fedcba9876543210fedcba9876543210"),
            "empty" => hs256(b""),
            _ => String::new(),
        };
        format!("{message}.{signature}")
    }

    /// Whether a token of these parts may be accepted at all.
    fn may_pass(header: &Value, claims: &Value, key: &str) -> bool {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970");
        let (now, leeway) = (now.as_secs_f64(), 31.0);
        let is_signed = key == "right" && header["alg"] == "HS256" && header["crit"].is_null();
        let is_in_time = claims["exp"].as_f64().is_some_and(|exp| exp >= now - leeway)
            && claims["nbf"].as_f64().is_none_or(|nbf| nbf <= now + leeway);
        is_signed && is_in_time && claims["sub"].is_string()
    }

    #[test]
    fn the_good_tokens_of_the_corpus_pass_and_no_other() {
        for line in corpus() {
            let token = signed(&line["header"], &line["claims"], line["key"].as_str().expect("a key"));
            assert_eq!(authenticate(&token).is_ok(), line["good"] == true, "{line}");
        }
    }

    proptest! {
        /// Header, claims and key of three lines of the corpus, a claim or a field of the header replaced, a byte changed.
        #[test]
        fn a_forged_token_never_passes(
            lines in any::<[prop::sample::Index; 4]>(),
            field in prop::sample::select(vec!["alg", "crit", "kid", "typ", "sub", "exp", "nbf", "aud", "role", "iat"]),
            value in prop::sample::select(vec![
                "null", "true", "0", "-1", "1e400", "9999999999", "9999999999.5", "99999999999999999999", "\"HS256\"",
                "\"none\"", "\"\"", "\"\\u0000\"", "[]", "[\"HS256\"]", "{}", "[[[[[[]]]]]]",
            ]),
            replaced in 0..3,
            edit in prop::option::of((any::<prop::sample::Index>(), "[A-Za-z0-9_.=-]")),
        ) {
            let corpus = corpus();
            let [mut header, mut claims] =
                [(0, "header"), (1, "claims")].map(|(line, part)| lines[line].get(&corpus)[part].clone());
            let key = lines[2].get(&corpus)["key"].as_str().expect("a key");
            let odd = serde_json::from_str::<Value>(value).unwrap_or_default();
            let part = if replaced == 0 { &mut header } else { &mut claims };
            if let (Some(part), 0..=1) = (part.as_object_mut(), replaced) {
                part.insert(field.to_owned(), odd);
            }
            let good = signed(&header, &claims, key);
            let mut token = good.clone();
            if let Some((place, other)) = edit {
                let at = place.index(token.len());
                token.replace_range(at..=at, &other);
            }
            let passes = authenticate(&token).is_ok();
            prop_assert!(!passes || (token == good && may_pass(&header, &claims, key)), "{header} {claims} {key}");
        }

        #[test]
        fn parts_of_different_tokens_never_pass_together(lines in any::<[prop::sample::Index; 3]>()) {
            let good: Vec<String> = corpus().iter().filter(|line| line["good"] == true)
                .map(|line| signed(&line["header"], &line["claims"], "right")).collect();
            let parts: Vec<&str> = (0..3)
                .map(|part| lines[part].get(&good).split('.').nth(part).expect("three parts"))
                .collect();
            let token = parts.join(".");
            prop_assert_eq!(authenticate(&token).is_ok(), good.contains(&token), "{}", token);
        }
    }

    fn headers(values: &[&'static str]) -> HeaderMap {
        values.iter().map(|value| (AUTHORIZATION, HeaderValue::from_static(value))).collect()
    }

    #[test]
    fn a_bearer_token_must_be_alone_in_its_header() {
        assert_eq!(bearer(&headers(&["Bearer a.b.c"])), Ok("a.b.c"));
        assert_eq!(bearer(&headers(&["bearer  a.b.c"])), Ok("a.b.c"));
        assert_eq!(bearer(&headers(&[])), Err(AuthError::Missing));
        for wrong in [&["Basic YTpi"][..], &["Bearer"], &["a.b.c"], &[""], &["Bearer a.b.c", "Bearer a.b.c"]]
        {
            assert_eq!(bearer(&headers(wrong)), Err(AuthError::Malformed), "{wrong:?}");
        }
    }
}
