//! The optional Redis cache: a user's credits as they were read after a commit, with a time to live, and a marker of
//! each event for operators. Nothing is decided by it: a Redis that is down, slow, emptied or wrong costs speed only.
//! Credits are answered from it only if `CREDITS_MAX_AGE` is set, and only up to that age.

mod connection;

use std::fmt::Write as _;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use hmac::{Hmac, KeyInit as _, Mac as _};
use redis::aio::MultiplexedConnection;
use redis::{FromRedisValue, Pipeline, RedisError, pipe};
use secrecy::{ExposeSecret as _, SecretString};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use sha2::Sha256;
use stripe_credits_rules::verdict::VerdictName;
use tokio::time::timeout;
use uuid::Uuid;

use crate::cache::connection::Address;
use crate::clock::unix_now;
use crate::config::RedisConfig;
use crate::database::Database;
use crate::error::Error;
use crate::metrics::CallCounter;
use crate::outcome::Outcome;

/// How long a connection may take, and a reply: the database would have answered by then.
const REDIS_TIMEOUT: Duration = Duration::from_millis(250);
/// How long Redis is not used after a failure, so that each request does not wait for it again.
const PAUSE: Duration = Duration::from_secs(5);
/// The time to live of credits, in seconds, when no request is answered from them.
const CREDITS_SECONDS: u64 = 60;
/// The longest value that is read: a user's credits take a few hundred bytes.
const MAX_VALUE_BYTES: usize = 4096;
/// The time to live of a marker, in seconds.
const MARKER_SECONDS: u64 = 24 * 60 * 60;

/// Redis, and what to do with it.
pub(crate) struct Cache {
    address: Address,
    /// Opened when it is first used, and again after it broke.
    connection: tokio::sync::Mutex<Option<MultiplexedConnection>>,
    signing_key: Hmac<Sha256>,
    credits_max_age: Option<Duration>,
    calls: CallCounter,
    paused_until: Mutex<Option<Instant>>,
}

/// A value of the cache. It contains its time because a time to live can be lost and a clock set back, and is signed
/// with it: what Redis, or whoever writes to it, says otherwise is not believed.
#[derive(Serialize, Deserialize)]
struct CachedCredits<'a> {
    at: u64,
    #[serde(borrow)]
    credits: &'a RawValue,
    /// Of time and credits, which name the user, in hexadecimal digits.
    signature: String,
}

impl Cache {
    /// Prepares a connection. None is opened yet, so Redis may be down.
    pub(crate) fn new(config: &RedisConfig, calls: CallCounter) -> Result<Self, Error> {
        let fault = |fault: RedisError| Error::Internal(fault.category().to_owned());
        Ok(Self {
            signing_key: signing_key(&config.signing_secret),
            address: Address::of(config.url.expose_secret()).map_err(fault)?,
            connection: tokio::sync::Mutex::new(None),
            credits_max_age: config.credits_max_age,
            calls,
            paused_until: Mutex::new(None),
        })
    }

    /// The user's credits, if they may be answered from Redis and are young enough.
    pub(crate) async fn credits(&self, user: Uuid) -> Option<String> {
        let max_age = self.credits_max_age?;
        let mut command = pipe();
        command.cmd("GETRANGE").arg(credits_key(user)).arg(0).arg(MAX_VALUE_BYTES);
        let (text,): (String,) = self.run(&command).await?;
        fresh(&text, &self.signing_key, user, unix_now(), max_age)
    }

    /// Stores credits that were just read, if they may be answered from Redis.
    pub(crate) async fn store_credits(&self, user: Uuid, credits: &str) {
        if self.credits_max_age.is_some() {
            let mut commands = pipe();
            self.add_credits(&mut commands, user, credits);
            let _: Option<()> = self.run(&commands).await;
        }
    }

    /// Forgets the credits that a server of the app has just moved, if they may be answered from Redis.
    pub(crate) async fn forget_credits(&self, user: Uuid) {
        if self.credits_max_age.is_some() {
            let mut command = pipe();
            command.cmd("DEL").arg(credits_key(user)).ignore();
            let _: Option<()> = self.run(&command).await;
        }
    }

    /// Stores a user's credits after a commit, and marks the event as processed.
    pub(crate) async fn after_commit(&self, database: &Database, outcome: &Outcome, event_id: &str) {
        if self.is_paused() {
            return;
        }
        let mut commands = pipe();
        commands.cmd("SET").arg(format!("processed:{event_id}")).arg(outcome.verdict().as_str());
        commands.arg("EX").arg(MARKER_SECONDS).ignore();
        let user = outcome.user_id().and_then(|user| Uuid::try_parse(user).ok());
        if let Some(user) =
            user.filter(|_| matches!(outcome.verdict(), VerdictName::Applied | VerdictName::AlreadyApplied))
        {
            match database.credits(user).await {
                Ok(credits) => self.add_credits(&mut commands, user, &credits),
                // The credits in Redis are older than the commit.
                Err(_) => {
                    commands.cmd("DEL").arg(credits_key(user)).ignore();
                }
            }
        }
        let _: Option<()> = self.run(&commands).await;
    }

    fn add_credits(&self, commands: &mut Pipeline, user: Uuid, credits: &str) {
        let value = cached(credits, &self.signing_key, unix_now());
        if let Some(value) = value {
            let lifetime = self.credits_max_age.map_or(CREDITS_SECONDS, |age| age.as_secs());
            commands.cmd("SET").arg(credits_key(user)).arg(value).arg("EX").arg(lifetime).ignore();
        }
    }

    /// Redis's reply; none while it is paused, and none if it fails or is slow, which pauses it.
    async fn run<T: FromRedisValue>(&self, commands: &Pipeline) -> Option<T> {
        if self.is_paused() {
            return None;
        }
        let answered = async {
            let mut connection = self.connection().await?;
            commands.query_async(&mut connection).await
        };
        // The connection's own time-out starts once it is open; this one includes the opening.
        let fault = match timeout(REDIS_TIMEOUT * 2, answered).await {
            Ok(Ok(reply)) => {
                self.calls.count("ok");
                return Some(reply);
            }
            Ok(Err(fault)) => fault.category().to_owned(),
            Err(_) => "no reply in time".to_owned(),
        };
        self.pause();
        *self.connection.lock().await = None;
        self.calls.count("failed");
        tracing::warn!(fault, "Redis is not used for {} seconds", PAUSE.as_secs());
        None
    }

    /// The open connection, or a new one.
    async fn connection(&self) -> Result<MultiplexedConnection, RedisError> {
        let mut connection = self.connection.lock().await;
        match &*connection {
            Some(open) => Ok(open.clone()),
            None => Ok(connection.insert(self.address.connect(REDIS_TIMEOUT).await?).clone()),
        }
    }

    fn is_paused(&self) -> bool {
        let paused_until = self.paused_until.lock().unwrap_or_else(PoisonError::into_inner);
        paused_until.is_some_and(|until| until > Instant::now())
    }

    fn pause(&self) {
        let mut paused_until = self.paused_until.lock().unwrap_or_else(PoisonError::into_inner);
        *paused_until = Some(Instant::now() + PAUSE);
    }
}

fn credits_key(user: Uuid) -> String {
    format!("credits:{user}")
}

/// The key of the signatures, from a secret that every instance of the shim has, and that signs nothing else with it.
fn signing_key(secret: &SecretString) -> Hmac<Sha256> {
    let mut derived = hmac(secret.expose_secret().as_bytes());
    derived.update(b"cached credits");
    hmac(&derived.finalize().into_bytes())
}

fn hmac(key: &[u8]) -> Hmac<Sha256> {
    Hmac::new_from_slice(key).expect("HMAC takes a key of any length")
}

fn signed(key: &Hmac<Sha256>, at: u64, credits: &str) -> Hmac<Sha256> {
    let mut signature = key.clone();
    signature.update(&at.to_be_bytes());
    signature.update(credits.as_bytes());
    signature
}

/// The value to store; none for credits that are no JSON, or too long to be read again.
fn cached(credits: &str, key: &Hmac<Sha256>, at: u64) -> Option<String> {
    let credits: &RawValue = serde_json::from_str(credits).ok()?;
    let signature = hex(&signed(key, at, credits.get()).finalize().into_bytes());
    let value = serde_json::to_string(&CachedCredits { at, credits, signature }).ok()?;
    (value.len() <= MAX_VALUE_BYTES).then_some(value)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn from_hex(text: &str) -> Option<Vec<u8>> {
    let digits = text.as_bytes().chunks(2);
    digits.map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()).collect()
}

/// The credits of a cached value, if it was signed here, they are this user's and younger than `max_age`; none if it is
/// anything else.
fn fresh(text: &str, key: &Hmac<Sha256>, user: Uuid, now: u64, max_age: Duration) -> Option<String> {
    #[derive(Deserialize)]
    struct Credits {
        user_id: Uuid,
        #[serde(rename = "credits_balance")]
        _balance: i64,
    }
    if text.len() > MAX_VALUE_BYTES {
        return None;
    }
    let CachedCredits { at, credits, signature } = serde_json::from_str(text).ok()?;
    signed(key, at, credits.get()).verify_slice(&from_hex(&signature)?).ok()?;
    let owner: Credits = serde_json::from_str(credits.get()).ok()?;
    let is_fresh = now.checked_sub(at).is_some_and(|age| age < max_age.as_secs());
    (is_fresh && owner.user_id == user).then(|| credits.get().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const ANN: Uuid = Uuid::from_u128(1);
    const BOB: Uuid = Uuid::from_u128(2);
    const MAX_AGE: Duration = Duration::from_secs(10);

    fn key() -> Hmac<Sha256> {
        signing_key(&SecretString::from("whsec_test"))
    }

    /// Credits of Ann's as they are stored.
    fn value(at: u64) -> String {
        cached(&format!(r#"{{"user_id":"{ANN}","credits_balance":7,"debt":0}}"#), &key(), at).unwrap()
    }

    fn read(text: &str, user: Uuid, now: u64) -> Option<String> {
        fresh(text, &key(), user, now, MAX_AGE)
    }

    #[test]
    fn cached_credits_are_used_only_up_to_their_maximum_age() {
        let is_fresh = |at, now| read(&value(at), ANN, now).is_some();
        assert!(is_fresh(100, 100) && is_fresh(100, 109));
        assert!(!is_fresh(100, 110) && !is_fresh(100, 99));
    }

    #[test]
    fn a_value_that_redis_made_up_is_ignored() {
        let stored = value(100);
        for (from, to) in [
            (r#""at":100"#, r#""at":105"#),
            (r#""credits_balance":7"#, r#""credits_balance":700"#),
            (r#""signature":""#, r#""signature":"00"#),
        ] {
            let lie = stored.replace(from, to);
            assert!(lie != stored && read(&lie, ANN, 105).is_none(), "{lie}");
        }
        assert!(read(&stored, ANN, 105).is_some());
        assert!(fresh(&stored, &signing_key(&SecretString::from("another")), ANN, 105, MAX_AGE).is_none());
        let long = stored.replace(r#""debt""#, &format!(r#""{}""#, "x".repeat(MAX_VALUE_BYTES)));
        assert!(read(&long, ANN, 105).is_none());
        assert!(cached(&format!(r#"{{"note":"{}"}}"#, "x".repeat(MAX_VALUE_BYTES)), &key(), 1).is_none());
    }

    #[test]
    fn any_other_cached_value_is_ignored() {
        assert!(read(&value(100), BOB, 100).is_none(), "another's");
        for wrong in [
            "",
            "7",
            "null",
            "{}",
            "[]",
            r#"{"at":100}"#,
            r#"{"at":100,"credits":null}"#,
            r#"{"at":100,"credits":{}}"#,
            r#"{"at":"100","credits":{"user_id":"00000000-0000-0000-0000-000000000001","credits_balance":7}}"#,
            r#"{"at":100,"credits":{"user_id":"00000000-0000-0000-0000-000000000001","credits_balance":"7"}}"#,
        ] {
            assert!(read(wrong, ANN, 100).is_none(), "{wrong}");
        }
    }
}
