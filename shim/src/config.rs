//! The configuration. All of it comes from the environment and is read before anything is opened; every fault is
//! collected, so that one start names them all.

mod database;
mod environment;
mod urls;
mod values;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::num::NonZeroU32;
use std::time::Duration;

use hyper::Uri;
use hyper::header::HeaderValue;
use secrecy::{SecretSlice, SecretString};
use tracing::Level;

pub(crate) use self::database::PreparedStatements;
use self::database::database_url;
use self::environment::Reader;
pub(crate) use self::environment::{ConfigError, Environment};
pub(crate) use self::urls::ReturnUrl;
use self::urls::{api_base, origins, return_url, server_url};
pub(crate) use self::values::StripeMode;
use self::values::{
    credits_max_age, events_secrets, jwt_secret, listen, log_level, number, number_from, rate, redis_url,
    service_tokens, stripe_key, switch, webhook_secrets,
};
use crate::tls::DatabaseTls;

/// The variables, for `--help`.
pub(crate) const HELP: &str = "\
Environment:
  DATABASE_URL           postgres://user:password@host/database; sslmode=disable, prefer (encrypted when the server
                         can, its certificate not checked), verify-ca (whichever host it names) or verify-full and
                         require (certificate checked); sslrootcert, sslcert and sslkey name PEM files
  STRIPE_WEBHOOK_SECRET  whsec_…; several, separated by commas, during a rotation
  STRIPE_SECRET_KEY      sk_… or rk_…, to fetch what an event lacks and for the routes of the app's users; without it
                         such an event is parked and those routes answer 500
  STRIPE_API_BASE        default https://api.stripe.com
  STRIPE_USER_REQUESTS_PER_SECOND
                         the requests a second that the routes of the app's users may send to Stripe, all together; the
                         rest of Stripe's limit is for webhooks. Default 60 with a live key, 15 with a test key
  USER_REQUESTS_PER_MINUTE
                         the requests a minute that one user may make of the routes that ask Stripe; default 60
  JWT_SECRET             the secret of user tokens signed with HS256, at least 32 bytes
  JWKS_URL               the public keys of user tokens signed with ES256 or RS256; without either variable the routes
                         of the app's users answer 500
  JWT_AUDIENCE           the aud that a token must have; default: Supabase's tokens must have authenticated, others any
  JWT_ISSUER             the iss that a token must have; default: any
  JWT_ROLE               the role that a token must have; default authenticated, Supabase's of users who signed in. For
                         other identity providers * takes any token, with or without a role
  SERVICE_TOKEN          what the app's own servers send as bearer token to /service/…, at least 32 characters; several,
                         separated by commas, during a rotation; without it those routes do not exist
  CORS_ORIGINS           the origins whose pages may read the app's routes, such as https://app.example; several,
                         separated by commas
  CHECKOUT_SUCCESS_URL   the page to which Stripe returns a buyer, with session_id and credits_checkout=success (a pack)
                         or checkout=success (a plan) in its query
  CHECKOUT_CANCEL_URL    the page to which Stripe returns a buyer who canceled
  PORTAL_RETURN_URL      the page to which Stripe's billing portal returns a user
  REDIS_URL              redis://… or rediss://…, optional: caches a user's credits after each purchase, and writes a
                         marker of each event for operators
  CREDITS_MAX_AGE        the maximum age, in seconds, of credits that GET /credits answers from Redis; default 0: it
                         always reads the database. A spend shows after that time at the latest
  EVENTS_URL             the app's endpoint that is told what happens, by POST; https, or http to a loopback host
  EVENTS_SECRET          whsec_ and base64, required with EVENTS_URL: signs by Standard Webhooks; several, separated by
                         commas, during a rotation
  CONSOLE                on: the console for support at /console of OPS_LISTEN, for whoever has a SERVICE_TOKEN; default
                         off
  MIRROR_DATABASE_URL    the app's own database, written as DATABASE_URL: keeps each account's credits up to date in a
                         table there, made by `stripe-credits mirror init`
  MIRROR_LEDGER_ROWS     how many of each user's last ledger rows the mirror has, up to 1000; default 0
  LISTEN                 address and port, default 127.0.0.1:8787; port 0 takes a free one and logs it
  OPS_LISTEN             the same for operators: /healthz, /readyz and /metrics, default 127.0.0.1:8788
  DATABASE_POOL_SIZE     default 8, and one more for probes
  DATABASE_LOCK_TIMEOUT  how long, in seconds, a statement waits for a lock of another transaction before the request is
                         answered 503; default 2
  MAX_CONNECTIONS        HTTP connections at once, default 2048
  LOG_LEVEL              error, warn, info (default), debug or trace
  …_FILE                 for DATABASE_URL, STRIPE_WEBHOOK_SECRET, STRIPE_SECRET_KEY, JWT_SECRET, SERVICE_TOKEN,
                         EVENTS_SECRET, MIRROR_DATABASE_URL and REDIS_URL: the file that holds the value, such as a container's secret";

const DEFAULT_JWT_ROLE: &str = "authenticated";
const DEFAULT_STRIPE_API_BASE: &str = "https://api.stripe.com";
const DEFAULT_LISTEN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 8787);
const DEFAULT_OPS_LISTEN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 8788);
/// How long a statement waits for a lock, in seconds. The limit is below the time that an event has in all.
const DEFAULT_LOCK_TIMEOUT_SECONDS: usize = 2;
const LOCK_TIMEOUT_LIMIT_SECONDS: usize = 15;
/// Stripe allows 100 requests a second with a live key, and 25 with a test key.
const DEFAULT_LIVE_USER_REQUESTS_PER_SECOND: NonZeroU32 = NonZeroU32::new(60).expect("above 0");
const DEFAULT_TEST_USER_REQUESTS_PER_SECOND: NonZeroU32 = NonZeroU32::new(15).expect("above 0");
const USER_REQUESTS_PER_SECOND_LIMIT: usize = 10_000;
const DEFAULT_USER_REQUESTS_PER_MINUTE: NonZeroU32 = NonZeroU32::new(60).expect("above 0");
const USER_REQUESTS_PER_MINUTE_LIMIT: usize = 10_000;
/// Connections to Postgres.
const DEFAULT_POOL_SIZE: usize = 8;
const POOL_SIZE_LIMIT: usize = 1000;
/// The ledger rows of each user that the mirror may have.
const MIRROR_LEDGER_ROWS_LIMIT: usize = 1_000;
/// HTTP connections at once; further ones wait in the kernel's accept queue.
const DEFAULT_MAX_CONNECTIONS: usize = 2048;
const CONNECTION_LIMIT: usize = 100_000;

/// What `serve` needs.
#[derive(Debug)]
pub(crate) struct ServeConfig {
    pub(crate) database: DatabaseConfig,
    pub(crate) webhook_secrets: Vec<SecretString>,
    pub(crate) stripe: Option<StripeConfig>,
    pub(crate) auth: Option<AuthConfig>,
    /// What the app's servers may send; none if there are no routes for them.
    pub(crate) service_tokens: Option<Vec<SecretString>>,
    /// Whether operators have the console. There are service tokens then.
    pub(crate) has_console: bool,
    pub(crate) cors_origins: Vec<HeaderValue>,
    pub(crate) return_urls: ReturnUrls,
    pub(crate) redis: Option<RedisConfig>,
    pub(crate) events: Option<EventsConfig>,
    pub(crate) mirror: Option<MirrorConfig>,
    pub(crate) listen: SocketAddr,
    /// Where operators ask: health, readiness, metrics.
    pub(crate) ops_listen: SocketAddr,
    /// The requests of one user to the routes that ask Stripe.
    pub(crate) user_requests_per_minute: NonZeroU32,
    pub(crate) max_connections: usize,
    pub(crate) log_level: Level,
}

/// What a command needs that reads Stripe's lists and repairs the database.
#[derive(Debug)]
pub(crate) struct RepairConfig {
    pub(crate) database: DatabaseConfig,
    pub(crate) stripe: StripeConfig,
}

/// What `catalog push` needs.
#[derive(Debug)]
pub(crate) struct PushConfig {
    pub(crate) database: DatabaseConfig,
    /// For what the prices cost.
    pub(crate) stripe: Option<StripeConfig>,
}

/// Postgres, and the size of the pool of connections to it.
#[derive(Debug)]
pub(crate) struct DatabaseConfig {
    pub(crate) postgres: tokio_postgres::Config,
    pub(crate) tls: DatabaseTls,
    pub(crate) prepared_statements: PreparedStatements,
    pub(crate) pool_size: usize,
    /// How long a statement waits for a lock.
    pub(crate) lock_timeout: Duration,
}

/// The app's own database, in which the accounts are mirrored.
#[derive(Debug)]
pub(crate) struct MirrorConfig {
    pub(crate) postgres: tokio_postgres::Config,
    pub(crate) tls: DatabaseTls,
    pub(crate) prepared_statements: PreparedStatements,
    /// How many of each user's last ledger rows are mirrored.
    pub(crate) ledger_rows: usize,
}

/// Stripe's API and the key for it.
#[derive(Debug)]
pub(crate) struct StripeConfig {
    pub(crate) key: SecretString,
    pub(crate) mode: StripeMode,
    pub(crate) base: Uri,
    /// The requests of all users together.
    pub(crate) user_requests_per_second: NonZeroU32,
}

/// How user JWTs are verified: an HS256 secret, or a JWKS URL for ES256 and RS256; both while an app moves from one
/// to the other.
#[derive(Debug)]
pub(crate) struct AuthConfig {
    pub(crate) secret: Option<SecretString>,
    pub(crate) jwks_url: Option<Uri>,
    pub(crate) audience: Option<String>,
    pub(crate) issuer: Option<String>,
    /// `*` for any.
    pub(crate) role: String,
}

/// The app's pages to which Stripe returns users.
#[derive(Debug, Default)]
pub(crate) struct ReturnUrls {
    pub(crate) checkout_success: Option<ReturnUrl>,
    pub(crate) checkout_cancel: Option<ReturnUrl>,
    pub(crate) portal_return: Option<ReturnUrl>,
}

/// The app's endpoint for what happens.
#[derive(Debug)]
pub(crate) struct EventsConfig {
    pub(crate) url: Uri,
    /// One or more: each signs.
    pub(crate) secrets: Vec<SecretSlice<u8>>,
}

/// Redis, and whether credits may be answered from it.
#[derive(Debug)]
pub(crate) struct RedisConfig {
    pub(crate) url: SecretString,
    /// What cached values are signed with, so that Redis cannot make them up.
    pub(crate) signing_secret: SecretString,
    /// The maximum age of credits that are answered from Redis; none if they never are.
    pub(crate) credits_max_age: Option<Duration>,
}

impl ServeConfig {
    /// Reads every variable of `serve`.
    pub(crate) fn read(environment: &Environment) -> Result<Self, ConfigError> {
        let mut reader = Reader::new(environment);
        let database = DatabaseConfig::read_from(&mut reader);
        let webhook_secrets = reader.required_secret("STRIPE_WEBHOOK_SECRET", webhook_secrets);
        let key = reader.optional_secret("STRIPE_SECRET_KEY", stripe_key);
        let stripe = StripeConfig::read_from(&mut reader, key);
        let auth = AuthConfig::read_from(&mut reader);
        let service_tokens = reader.optional_secret("SERVICE_TOKEN", service_tokens);
        let has_console = reader
            .optional("CONSOLE", |text| match (switch(text)?, &service_tokens) {
                (true, None) => {
                    Err("is on, and whoever uses it signs in with a SERVICE_TOKEN: set one".to_owned())
                }
                (is_on, _) => Ok(is_on),
            })
            .unwrap_or(false);
        let cors_origins = reader.optional("CORS_ORIGINS", origins).unwrap_or_default();
        let return_urls = ReturnUrls::read_from(&mut reader);
        let redis = RedisConfig::read_from(&mut reader, webhook_secrets.as_deref());
        let events = EventsConfig::read_from(&mut reader);
        let mirror = MirrorConfig::read_from(&mut reader, Need::Optional);
        let user_requests_per_minute = reader
            .optional("USER_REQUESTS_PER_MINUTE", |text| rate(text, USER_REQUESTS_PER_MINUTE_LIMIT))
            .unwrap_or(DEFAULT_USER_REQUESTS_PER_MINUTE);
        let ops_listen = reader.optional("OPS_LISTEN", listen).unwrap_or(DEFAULT_OPS_LISTEN);
        let listen = reader.optional("LISTEN", listen).unwrap_or(DEFAULT_LISTEN);
        let max_connections = reader
            .optional("MAX_CONNECTIONS", |text| number(text, CONNECTION_LIMIT))
            .unwrap_or(DEFAULT_MAX_CONNECTIONS);
        let log_level = reader.optional("LOG_LEVEL", log_level).unwrap_or(Level::INFO);

        let config = database.zip(webhook_secrets).map(|(database, webhook_secrets)| Self {
            database,
            webhook_secrets,
            stripe,
            auth,
            service_tokens,
            has_console,
            cors_origins,
            return_urls,
            redis,
            events,
            mirror,
            listen,
            ops_listen,
            user_requests_per_minute,
            max_connections,
            log_level,
        });
        reader.finish(config)
    }
}

impl ServeConfig {
    /// Reads the variables of `console`, which serves nothing else: neither Stripe nor the app's users.
    pub(crate) fn read_for_console(
        environment: &Environment,
        listen: SocketAddr,
    ) -> Result<Self, ConfigError> {
        let mut reader = Reader::new(environment);
        let database = DatabaseConfig::read_from(&mut reader);
        let key = reader.optional_secret("STRIPE_SECRET_KEY", stripe_key);
        let stripe = StripeConfig::read_from(&mut reader, key);
        let service_tokens = reader.required_secret("SERVICE_TOKEN", service_tokens);
        let log_level = reader.optional("LOG_LEVEL", log_level).unwrap_or(Level::INFO);
        let config = database.zip(service_tokens).map(|(database, service_tokens)| Self {
            database,
            webhook_secrets: Vec::new(),
            stripe,
            auth: None,
            service_tokens: Some(service_tokens),
            has_console: true,
            cors_origins: Vec::new(),
            return_urls: ReturnUrls::default(),
            redis: None,
            events: None,
            mirror: None,
            listen,
            ops_listen: listen,
            user_requests_per_minute: DEFAULT_USER_REQUESTS_PER_MINUTE,
            max_connections: DEFAULT_MAX_CONNECTIONS,
            log_level,
        });
        reader.finish(config)
    }
}

impl RepairConfig {
    /// Reads the variables of a command that reads Stripe's lists and repairs the database.
    pub(crate) fn read(environment: &Environment) -> Result<Self, ConfigError> {
        let mut reader = Reader::new(environment);
        let database = DatabaseConfig::read_from(&mut reader);
        let key = reader.required_secret("STRIPE_SECRET_KEY", stripe_key);
        let stripe = StripeConfig::read_from(&mut reader, key);
        reader.finish(database.zip(stripe).map(|(database, stripe)| Self { database, stripe }))
    }
}

impl PushConfig {
    /// Reads the variables of `catalog push`.
    pub(crate) fn read(environment: &Environment) -> Result<Self, ConfigError> {
        let mut reader = Reader::new(environment);
        let database = DatabaseConfig::read_from(&mut reader);
        let key = reader.optional_secret("STRIPE_SECRET_KEY", stripe_key);
        let stripe = StripeConfig::read_from(&mut reader, key);
        reader.finish(database.map(|database| Self { database, stripe }))
    }
}

impl StripeConfig {
    /// Reads the variables of a command that only needs Stripe.
    pub(crate) fn read(environment: &Environment) -> Result<Self, ConfigError> {
        let mut reader = Reader::new(environment);
        let key = reader.required_secret("STRIPE_SECRET_KEY", stripe_key);
        let stripe = Self::read_from(&mut reader, key);
        reader.finish(stripe)
    }

    fn read_from(reader: &mut Reader, key: Option<(SecretString, StripeMode)>) -> Option<Self> {
        let base = reader
            .optional("STRIPE_API_BASE", api_base)
            .unwrap_or_else(|| Uri::from_static(DEFAULT_STRIPE_API_BASE));
        let of_users = reader
            .optional("STRIPE_USER_REQUESTS_PER_SECOND", |text| rate(text, USER_REQUESTS_PER_SECOND_LIMIT));
        key.map(|(key, mode)| {
            let default = match mode {
                StripeMode::Live => DEFAULT_LIVE_USER_REQUESTS_PER_SECOND,
                StripeMode::Test => DEFAULT_TEST_USER_REQUESTS_PER_SECOND,
            };
            Self { key, mode, base, user_requests_per_second: of_users.unwrap_or(default) }
        })
    }
}

impl DatabaseConfig {
    /// Reads the variables of a command that only needs the database.
    pub(crate) fn read(environment: &Environment) -> Result<Self, ConfigError> {
        let mut reader = Reader::new(environment);
        let database = Self::read_from(&mut reader);
        reader.finish(database)
    }

    fn read_from(reader: &mut Reader) -> Option<Self> {
        let database = reader.required_secret("DATABASE_URL", database_url);
        let pool_size = reader
            .optional("DATABASE_POOL_SIZE", |text| number(text, POOL_SIZE_LIMIT))
            .unwrap_or(DEFAULT_POOL_SIZE);
        let lock_timeout = reader
            .optional("DATABASE_LOCK_TIMEOUT", |text| number(text, LOCK_TIMEOUT_LIMIT_SECONDS))
            .unwrap_or(DEFAULT_LOCK_TIMEOUT_SECONDS);
        let lock_timeout = Duration::from_secs(lock_timeout as u64);
        database.map(|(postgres, tls, prepared_statements)| Self {
            postgres,
            tls,
            prepared_statements,
            pool_size,
            lock_timeout,
        })
    }
}

impl AuthConfig {
    fn read_from(reader: &mut Reader) -> Option<Self> {
        let config = Self {
            secret: reader.optional_secret("JWT_SECRET", jwt_secret),
            jwks_url: reader.optional("JWKS_URL", server_url),
            audience: reader.optional("JWT_AUDIENCE", |text| Ok(text.to_owned())),
            issuer: reader.optional("JWT_ISSUER", |text| Ok(text.to_owned())),
            role: reader
                .optional("JWT_ROLE", |text| Ok(text.to_owned()))
                .unwrap_or_else(|| DEFAULT_JWT_ROLE.to_owned()),
        };
        (config.secret.is_some() || config.jwks_url.is_some()).then_some(config)
    }
}

impl ReturnUrls {
    fn read_from(reader: &mut Reader) -> Self {
        Self {
            checkout_success: reader.optional("CHECKOUT_SUCCESS_URL", return_url),
            checkout_cancel: reader.optional("CHECKOUT_CANCEL_URL", return_url),
            portal_return: reader.optional("PORTAL_RETURN_URL", return_url),
        }
    }
}

impl EventsConfig {
    fn read_from(reader: &mut Reader) -> Option<Self> {
        let url = reader.optional("EVENTS_URL", server_url);
        // Without an endpoint a secret is of no use, and not wrong.
        let secrets = match url {
            Some(_) => reader.required_secret("EVENTS_SECRET", events_secrets),
            None => reader.optional_secret("EVENTS_SECRET", events_secrets),
        };
        url.zip(secrets).map(|(url, secrets)| Self { url, secrets })
    }
}

/// Whether a command works without a setting.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Need {
    Optional,
    Required,
}

impl MirrorConfig {
    /// Reads the variables of a command that only needs the mirror.
    pub(crate) fn read(environment: &Environment) -> Result<Self, ConfigError> {
        let mut reader = Reader::new(environment);
        let mirror = Self::read_from(&mut reader, Need::Required);
        reader.finish(mirror)
    }

    /// The same for a command that needs the books too.
    pub(crate) fn read_with_books(environment: &Environment) -> Result<(DatabaseConfig, Self), ConfigError> {
        let mut reader = Reader::new(environment);
        let database = DatabaseConfig::read_from(&mut reader);
        let mirror = Self::read_from(&mut reader, Need::Required);
        reader.finish(database.zip(mirror))
    }

    fn read_from(reader: &mut Reader, need: Need) -> Option<Self> {
        let url = match need {
            Need::Required => reader.required_secret("MIRROR_DATABASE_URL", database_url),
            Need::Optional => reader.optional_secret("MIRROR_DATABASE_URL", database_url),
        };
        let ledger_rows = reader
            .optional("MIRROR_LEDGER_ROWS", |text| number_from(text, 0, MIRROR_LEDGER_ROWS_LIMIT))
            .unwrap_or_default();
        url.map(|(postgres, tls, prepared_statements)| Self {
            postgres,
            tls,
            prepared_statements,
            ledger_rows,
        })
    }
}

impl RedisConfig {
    fn read_from(reader: &mut Reader, webhook_secrets: Option<&[SecretString]>) -> Option<Self> {
        let url = reader.optional_secret("REDIS_URL", redis_url);
        let credits_max_age = reader.optional("CREDITS_MAX_AGE", credits_max_age).flatten();
        let signing_secret = webhook_secrets?.first()?.clone();
        url.map(|url| Self { url, signing_secret, credits_max_age })
    }
}

/// The first of the secrets that `serve` verifies with, for a command that needs nothing else.
pub(crate) fn read_signing_secret(environment: &Environment) -> Result<SecretString, ConfigError> {
    let mut reader = Reader::new(environment);
    let secrets = reader.required_secret("STRIPE_WEBHOOK_SECRET", webhook_secrets);
    reader.finish(secrets.and_then(|secrets| secrets.into_iter().next()))
}

/// Where this machine reaches the routes of a `serve` with this environment.
pub(crate) fn read_listen(environment: &Environment) -> Result<SocketAddr, ConfigError> {
    read_address(environment, "LISTEN", DEFAULT_LISTEN)
}

/// Where this machine reaches the operators' routes of a `serve` with this environment.
pub(crate) fn read_ops_listen(environment: &Environment) -> Result<SocketAddr, ConfigError> {
    read_address(environment, "OPS_LISTEN", DEFAULT_OPS_LISTEN)
}

/// Whoever listens on every address, as in a container, is reached by loopback's.
fn read_address(
    environment: &Environment,
    variable: &'static str,
    default: SocketAddr,
) -> Result<SocketAddr, ConfigError> {
    let mut reader = Reader::new(environment);
    let mut address = reader.optional(variable, listen).unwrap_or(default);
    match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => address.set_ip(Ipv4Addr::LOCALHOST.into()),
        IpAddr::V6(ip) if ip.is_unspecified() => address.set_ip(Ipv6Addr::LOCALHOST.into()),
        IpAddr::V4(_) | IpAddr::V6(_) => {}
    }
    reader.finish(Some(address))
}

#[cfg(test)]
mod tests {
    use secrecy::ExposeSecret as _;

    use super::*;

    const DATABASE_URL: (&str, &str) = ("DATABASE_URL", "postgres://app:hush@db/credits");
    const WEBHOOK_SECRET: (&str, &str) = ("STRIPE_WEBHOOK_SECRET", "whsec_hush");

    fn read(variables: &[(&str, &str)]) -> Result<ServeConfig, ConfigError> {
        ServeConfig::read(&Environment::of(variables))
    }

    fn faults(variables: &[(&str, &str)]) -> Vec<String> {
        let error = read(variables).unwrap_err().to_string();
        let mut lines = error.lines();
        assert_eq!(lines.next(), Some("the configuration is wrong"));
        lines.map(|line| line.trim_start().to_owned()).collect()
    }

    #[test]
    fn two_variables_are_enough() {
        let config = read(&[DATABASE_URL, WEBHOOK_SECRET]).unwrap();
        assert_eq!(config.listen.to_string(), "127.0.0.1:8787");
        assert_eq!((config.database.pool_size, config.max_connections), (8, 2048));
        assert!(config.stripe.is_none() && config.auth.is_none() && config.cors_origins.is_empty());
    }

    #[test]
    fn every_fault_is_named_at_once() {
        let faults = faults(&[
            ("STRIPE_WEBHOOK_SECRET", "whsec_a,,whsec_b"),
            ("STRIPE_SECRET_KEY", "pk_live_hush"),
            ("STRIPE_API_BASE", "http://stripe.example"),
            ("JWT_SECRET", "hush"),
            ("JWKS_URL", "http://keys.example/jwks"),
            ("SERVICE_TOKEN", "hush"),
            ("CONSOLE", "yes"),
            ("CORS_ORIGINS", "https://app.example/"),
            ("CHECKOUT_SUCCESS_URL", "/back"),
            ("CHECKOUT_CANCEL_URL", "app://back"),
            ("PORTAL_RETURN_URL", "http://app.example"),
            ("REDIS_URL", "http://:hush@redis.example"),
            ("CREDITS_MAX_AGE", "-1"),
            ("EVENTS_URL", "http://app.example/events"),
            ("EVENTS_SECRET", "whsec_hush"),
            ("STRIPE_USER_REQUESTS_PER_SECOND", "0"),
            ("USER_REQUESTS_PER_MINUTE", "0"),
            ("LISTEN", "8787"),
            ("OPS_LISTEN", "8788"),
            ("DATABASE_POOL_SIZE", "0"),
            ("DATABASE_LOCK_TIMEOUT", "2s"),
            ("MAX_CONNECTIONS", "many"),
            ("LOG_LEVEL", "loud"),
        ]);
        let variables: Vec<&str> = faults.iter().filter_map(|fault| fault.split(':').next()).collect();
        assert_eq!(
            variables,
            [
                "DATABASE_URL",
                "DATABASE_POOL_SIZE",
                "DATABASE_LOCK_TIMEOUT",
                "STRIPE_WEBHOOK_SECRET",
                "STRIPE_SECRET_KEY",
                "STRIPE_API_BASE",
                "STRIPE_USER_REQUESTS_PER_SECOND",
                "JWT_SECRET",
                "JWKS_URL",
                "SERVICE_TOKEN",
                "CONSOLE",
                "CORS_ORIGINS",
                "CHECKOUT_SUCCESS_URL",
                "CHECKOUT_CANCEL_URL",
                "PORTAL_RETURN_URL",
                "REDIS_URL",
                "CREDITS_MAX_AGE",
                "EVENTS_URL",
                "EVENTS_SECRET",
                "USER_REQUESTS_PER_MINUTE",
                "OPS_LISTEN",
                "LISTEN",
                "MAX_CONNECTIONS",
                "LOG_LEVEL",
            ]
        );
        assert!(!faults.concat().contains("hush"));
    }

    #[test]
    fn an_empty_secret_is_refused_wherever_it_stands() {
        for secrets in ["", " ", ",", "whsec_a,", ",whsec_a", "whsec_a, ,whsec_b"] {
            let faults = faults(&[DATABASE_URL, ("STRIPE_WEBHOOK_SECRET", secrets)]);
            assert!(faults[0].contains("empty secret"), "{secrets:?}");
        }
    }

    #[test]
    fn several_secrets_are_kept_in_order() {
        let config = read(&[DATABASE_URL, ("STRIPE_WEBHOOK_SECRET", "whsec_new, whsec_old")]).unwrap();
        let secrets: Vec<&str> = config.webhook_secrets.iter().map(SecretString::expose_secret).collect();
        assert_eq!(secrets, ["whsec_new", "whsec_old"]);
    }

    #[test]
    fn a_service_token_is_long_and_nothing_but_a_token() {
        let (one, two) = ("a".repeat(32), "b".repeat(32));
        let read_tokens = |tokens: &str| read(&[DATABASE_URL, WEBHOOK_SECRET, ("SERVICE_TOKEN", tokens)]);
        let several = read_tokens(&format!("{one}, {two}")).unwrap().service_tokens.unwrap();
        assert_eq!(several.iter().map(SecretString::expose_secret).collect::<Vec<_>>(), [&one, &two]);
        assert!(read(&[DATABASE_URL, WEBHOOK_SECRET]).unwrap().service_tokens.is_none());
        for wrong in
            ["hush", &format!("{one},"), &format!("{one},hush"), &"ä".repeat(32), &format!("{one} {two}")]
        {
            assert!(read_tokens(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn the_console_is_off_unless_it_is_on_and_has_a_token_to_sign_in_with() {
        let token = "a".repeat(32);
        let console = |variables: &[(&str, &str)]| {
            read(&[&[DATABASE_URL, WEBHOOK_SECRET], variables].concat()).map(|config| config.has_console)
        };
        assert!(!console(&[("SERVICE_TOKEN", &token)]).unwrap());
        assert!(!console(&[("SERVICE_TOKEN", &token), ("CONSOLE", "off")]).unwrap());
        assert!(!console(&[("CONSOLE", "off")]).unwrap());
        assert!(console(&[("SERVICE_TOKEN", &token), ("CONSOLE", "on")]).unwrap());
        assert!(console(&[("CONSOLE", "on")]).unwrap_err().to_string().contains("SERVICE_TOKEN"));
    }

    #[test]
    fn a_stripe_keys_mode_is_read_from_its_prefix() {
        let mode = |key| {
            read(&[DATABASE_URL, WEBHOOK_SECRET, ("STRIPE_SECRET_KEY", key)])
                .unwrap()
                .stripe
                .map(|stripe| stripe.mode)
        };
        assert_eq!(mode("sk_live_x"), Some(StripeMode::Live));
        assert_eq!(mode("rk_live_x"), Some(StripeMode::Live));
        assert_eq!(mode("sk_test_x"), Some(StripeMode::Test));
        assert_eq!(mode("rk_test_x"), Some(StripeMode::Test));
        assert_eq!(mode(""), None);
    }

    #[test]
    fn tokens_are_verified_with_a_secret_or_with_keys_or_with_both() {
        let auth = |variables: &[(&str, &str)]| {
            read(&[&[DATABASE_URL, WEBHOOK_SECRET], variables].concat()).unwrap().auth
        };
        let (secret, keys) =
            (("JWT_SECRET", "0123456789abcdef0123456789abcdef"), ("JWKS_URL", "https://keys.example"));
        assert!(auth(&[secret]).is_some_and(|auth| auth.secret.is_some() && auth.jwks_url.is_none()));
        assert!(
            auth(&[keys, ("JWT_SECRET", "")])
                .is_some_and(|auth| auth.secret.is_none() && auth.jwks_url.is_some())
        );
        assert!(auth(&[secret, keys]).is_some_and(|auth| auth.secret.is_some() && auth.jwks_url.is_some()));
        assert!(auth(&[("JWT_AUDIENCE", "authenticated")]).is_none());
    }

    #[test]
    fn credits_are_answered_from_redis_only_if_a_maximum_age_is_set() {
        let redis = |variables: &[(&str, &str)]| {
            read(&[&[DATABASE_URL, WEBHOOK_SECRET], variables].concat())
                .unwrap()
                .redis
                .map(|redis| redis.credits_max_age)
        };
        let url = ("REDIS_URL", "rediss://:hush@redis.example:6380/1");
        assert_eq!(redis(&[]), None);
        assert_eq!(redis(&[("CREDITS_MAX_AGE", "5")]), None);
        assert_eq!(redis(&[url]), Some(None));
        assert_eq!(redis(&[url, ("CREDITS_MAX_AGE", "0")]), Some(None));
        assert_eq!(redis(&[url, ("CREDITS_MAX_AGE", "5")]), Some(Some(Duration::from_secs(5))));
    }

    #[test]
    fn a_database_url_is_read_whole_or_refused_without_its_password() {
        for url in
            ["", "postgres://", "postgres://app@db/x?sslmode=maybe", "mysql://app:hush@db", "postgres://db/x"]
        {
            let faults = faults(&[("DATABASE_URL", url), WEBHOOK_SECRET]);
            assert!(faults[0].starts_with("DATABASE_URL: "), "{url:?}");
            assert!(!faults[0].contains("hush"));
        }
    }

    #[test]
    fn every_secret_may_be_in_a_file_instead() {
        let path = std::env::temp_dir().join(format!("stripe-credits-secret-{}", std::process::id()));
        let file = path.to_str().unwrap();
        for (variable, content) in [
            ("DATABASE_URL", "postgres://app:hush@db/credits"),
            ("STRIPE_WEBHOOK_SECRET", "whsec_hush"),
            ("STRIPE_SECRET_KEY", "sk_test_hush"),
            ("JWT_SECRET", "0123456789abcdef0123456789abcdef"),
            ("SERVICE_TOKEN", "0123456789abcdef0123456789abcdef"),
            ("REDIS_URL", "redis://:hush@redis.example"),
        ] {
            let named = format!("{variable}_FILE");
            let others = [DATABASE_URL, WEBHOOK_SECRET].into_iter().filter(|(name, _)| *name != variable);
            let variables: Vec<(&str, &str)> = others.chain([(&*named, file)]).collect();
            for written in [content.to_owned(), format!("{content}\n"), format!("{content}\r\n")] {
                std::fs::write(&path, written).unwrap();
                let config = read(&variables).unwrap_or_else(|fault| panic!("{variable}: {fault}"));
                let is_read = match variable {
                    "STRIPE_SECRET_KEY" => config.stripe.is_some_and(|it| it.key.expose_secret() == content),
                    "JWT_SECRET" => {
                        config.auth.is_some_and(|it| it.secret.unwrap().expose_secret() == content)
                    }
                    "SERVICE_TOKEN" => {
                        config.service_tokens.is_some_and(|tokens| tokens[0].expose_secret() == content)
                    }
                    "REDIS_URL" => config.redis.is_some_and(|it| it.url.expose_secret() == content),
                    "DATABASE_URL" => config.database.postgres.get_password() == Some(b"hush"),
                    _ => config.webhook_secrets[0].expose_secret() == content,
                };
                assert!(is_read, "{variable}");
            }
            let both: Vec<(&str, &str)> = variables.iter().copied().chain([(variable, content)]).collect();
            assert_eq!(faults(&both), [format!("{variable}: is set, and {named} too")]);
            std::fs::write(&path, "x".repeat(70_000)).unwrap();
            assert!(
                faults(&variables)[0].starts_with(&format!("{variable}: the file of {named} is longer than"))
            );
        }
        std::fs::remove_file(&path).unwrap();
        let faults = faults(&[("DATABASE_URL_FILE", file), WEBHOOK_SECRET]);
        assert!(
            faults[0].starts_with("DATABASE_URL: the file of DATABASE_URL_FILE cannot be read"),
            "{faults:?}"
        );
    }

    #[test]
    fn tokens_need_supabases_role_unless_another_is_set() {
        let role = |variables: &[(&str, &str)]| {
            let secret = ("JWT_SECRET", "0123456789abcdef0123456789abcdef");
            read(&[&[DATABASE_URL, WEBHOOK_SECRET, secret], variables].concat()).unwrap().auth.unwrap().role
        };
        assert_eq!(role(&[]), "authenticated");
        assert_eq!(role(&[("JWT_ROLE", "")]), "authenticated");
        assert_eq!(role(&[("JWT_ROLE", "member")]), "member");
        assert_eq!(role(&[("JWT_ROLE", "*")]), "*");
    }

    #[test]
    fn an_endpoint_for_events_needs_a_secret_of_standard_webhooks() {
        let events = |variables: &[(&str, &str)]| {
            read(&[&[DATABASE_URL, WEBHOOK_SECRET], variables].concat()).map(|config| config.events)
        };
        let url = ("EVENTS_URL", "https://app.example/events");
        let secret = concat!("whsec_", "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw");
        let several = format!("{secret}, {secret}");
        assert!(events(&[]).unwrap().is_none());
        assert!(events(&[("EVENTS_SECRET", secret)]).unwrap().is_none());
        assert_eq!(events(&[url, ("EVENTS_SECRET", secret)]).unwrap().unwrap().secrets.len(), 1);
        assert_eq!(events(&[url, ("EVENTS_SECRET", &several)]).unwrap().unwrap().secrets.len(), 2);
        for wrong in
            ["", "hush", "whsec_", "whsec_aHVzaA==", "whsec_not base64", "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"]
        {
            let fault = events(&[url, ("EVENTS_SECRET", wrong)]).unwrap_err().to_string();
            assert!(fault.contains("EVENTS_SECRET: ") && !fault.contains("hush"), "{fault}");
        }
        assert!(events(&[url]).unwrap_err().to_string().contains("EVENTS_SECRET: is not set"));
    }

    #[test]
    fn debug_shows_no_secret() {
        let variables = [DATABASE_URL, WEBHOOK_SECRET, ("STRIPE_SECRET_KEY", "sk_test_hush")];
        assert!(!format!("{:?}", read(&variables).unwrap()).contains("hush"));
    }
}
