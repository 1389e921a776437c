//! The configuration, all of it from the environment, all of it read before anything is opened. Every fault is
//! collected, so that one start names them all.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use hyper::Uri;
use hyper::header::HeaderValue;
use secrecy::SecretString;
use tracing::Level;

use crate::error::Error;

/// The variables, for `--help`.
pub(crate) const HELP: &str = "\
Environment:
  DATABASE_URL           postgres://user:password@host/database; sslmode=disable, prefer (encrypted when the server
                         can, its certificate not checked) or require (encrypted, certificate checked)
  STRIPE_WEBHOOK_SECRET  whsec_…; several, for a rotation, with commas between
  STRIPE_SECRET_KEY      sk_… or rk_…, to get what an event lacks and for the app's routes; without it such an event is
                         parked and those routes answer 500
  STRIPE_API_BASE        default https://api.stripe.com
  JWT_SECRET             proves the app's tokens of HS256, at least 32 bytes
  JWKS_URL               where the public keys are that prove its tokens of ES256 and RS256; without either variable the
                         app's routes answer 500, but for GET /catalog
  JWT_AUDIENCE           what a token's aud must be or hold, Supabase's is authenticated; default: anything
  JWT_ISSUER             what a token's iss must be; default: anything
  CORS_ORIGINS           https://app.example; several, with commas between: whose pages may read the app's routes
  CHECKOUT_SUCCESS_URL   the app's page that Stripe sends a buyer back to, with session_id and credits_checkout=success
                         (a pack) or checkout=success (a plan) in its query
  CHECKOUT_CANCEL_URL    the same for a buyer who did not buy
  PORTAL_RETURN_URL      the same from Stripe's billing portal
  REDIS_URL              redis://… or rediss://…: keeps what was read of a user's credits after each purchase, and a
                         marker of each event, for people who look; without it nothing is missing
  CREDITS_MAX_AGE        how old, in seconds, the credits may be that GET /credits answers from Redis; default 0: it
                         asks the database each time. A spend shows after that time at the latest
  LISTEN                 address and port, default 127.0.0.1:8787; port 0 takes a free one and logs it
  DATABASE_POOL_SIZE     default 8
  MAX_CONNECTIONS        HTTP connections at once, default 2048
  LOG_LEVEL              error, warn, info (default), debug or trace";

const DEFAULT_STRIPE_API_BASE: &str = "https://api.stripe.com";
const DEFAULT_LISTEN: SocketAddr = SocketAddr::new(IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 8787);
/// Connections to Postgres.
const DEFAULT_POOL_SIZE: usize = 8;
const POOL_SIZE_LIMIT: usize = 1000;
/// HTTP connections at once; further ones wait in the kernel's accept queue.
const DEFAULT_MAX_CONNECTIONS: usize = 2048;
const CONNECTION_LIMIT: usize = 100_000;
/// The shortest secret of HS256, in bytes: as long as its hashes (RFC 7518, 3.2). A shorter one can be guessed from a
/// token.
const MIN_JWT_SECRET_BYTES: usize = 32;
/// The oldest credits that may be answered from Redis, in seconds.
const CREDITS_MAX_AGE_LIMIT: u64 = 3600;
/// How long one attempt to connect to Postgres may take, unless `DATABASE_URL` says otherwise.
const DATABASE_CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// The environment's variables. Values that are not UTF-8 are kept as faults to report.
pub(crate) struct Environment(BTreeMap<String, Option<String>>);

/// One thing wrong with one variable.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Fault {
    variable: &'static str,
    fault: String,
}

/// What `serve` needs.
#[derive(Debug)]
pub(crate) struct ServeConfig {
    pub(crate) database: DatabaseConfig,
    pub(crate) webhook_secrets: Vec<SecretString>,
    pub(crate) stripe: Option<StripeConfig>,
    pub(crate) auth: Option<AuthConfig>,
    pub(crate) cors_origins: Vec<HeaderValue>,
    pub(crate) pages: Pages,
    pub(crate) redis: Option<RedisConfig>,
    pub(crate) listen: SocketAddr,
    pub(crate) max_connections: usize,
    pub(crate) log_level: Level,
}

/// What a command needs that asks Stripe and repairs the books.
#[derive(Debug)]
pub(crate) struct RepairConfig {
    pub(crate) database: DatabaseConfig,
    pub(crate) stripe: StripeConfig,
}

/// Where Postgres is, and how many connections to hold.
#[derive(Debug)]
pub(crate) struct DatabaseConfig {
    pub(crate) postgres: tokio_postgres::Config,
    pub(crate) pool_size: usize,
}

/// Where Stripe's API is, and who asks.
#[derive(Debug)]
pub(crate) struct StripeConfig {
    pub(crate) key: SecretString,
    pub(crate) mode: StripeMode,
    pub(crate) base: Uri,
}

/// How the app's tokens are proven: by a secret, by keys at a URL, or, while an app moves from one to the other, by
/// both.
#[derive(Debug)]
pub(crate) struct AuthConfig {
    pub(crate) secret: Option<SecretString>,
    pub(crate) jwks_url: Option<Uri>,
    pub(crate) audience: Option<String>,
    pub(crate) issuer: Option<String>,
}

/// The app's pages that Stripe sends people back to.
#[derive(Debug, Default)]
pub(crate) struct Pages {
    pub(crate) checkout_success: Option<Page>,
    pub(crate) checkout_cancel: Option<Page>,
    pub(crate) portal_return: Option<Page>,
}

/// The address of a page, as a browser takes it: checked, and kept as text because of its fragment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Page(String);

/// Where Redis is, and whether the app may be answered from it.
#[derive(Debug)]
pub(crate) struct RedisConfig {
    pub(crate) url: SecretString,
    /// How old the credits may be that are answered from it; none where they never are.
    pub(crate) credits_max_age: Option<Duration>,
}

/// Whether a Stripe key moves real money.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum StripeMode {
    Live,
    Test,
}

impl ServeConfig {
    /// Reads every variable of `serve`.
    pub(crate) fn read(environment: &Environment) -> Result<Self, Error> {
        let mut reader = Reader::new(environment);
        let database = DatabaseConfig::read_from(&mut reader);
        let webhook_secrets = reader.required("STRIPE_WEBHOOK_SECRET", webhook_secrets);
        let key = reader.optional("STRIPE_SECRET_KEY", stripe_key);
        let stripe = StripeConfig::read_from(&mut reader, key);
        let auth = AuthConfig::read_from(&mut reader);
        let cors_origins = reader.optional("CORS_ORIGINS", origins).unwrap_or_default();
        let pages = Pages::read_from(&mut reader);
        let redis = RedisConfig::read_from(&mut reader);
        let listen = reader.optional("LISTEN", listen).unwrap_or(DEFAULT_LISTEN);
        let max_connections = reader
            .optional("MAX_CONNECTIONS", |text| number(text, CONNECTION_LIMIT))
            .unwrap_or(DEFAULT_MAX_CONNECTIONS);
        let log_level = reader.optional("LOG_LEVEL", log_level).unwrap_or(Level::INFO);

        match (database, webhook_secrets, reader.finish()) {
            (Some(database), Some(webhook_secrets), Ok(())) => Ok(Self {
                database,
                webhook_secrets,
                stripe,
                auth,
                cors_origins,
                pages,
                redis,
                listen,
                max_connections,
                log_level,
            }),
            (_, _, faults) => Err(Error::Configuration(faults.err().unwrap_or_default())),
        }
    }
}

impl RepairConfig {
    /// Reads the variables of a command that asks Stripe and repairs the books.
    pub(crate) fn read(environment: &Environment) -> Result<Self, Error> {
        let mut reader = Reader::new(environment);
        let database = DatabaseConfig::read_from(&mut reader);
        let key = reader.required("STRIPE_SECRET_KEY", stripe_key);
        let stripe = StripeConfig::read_from(&mut reader, key);
        match (database, stripe, reader.finish()) {
            (Some(database), Some(stripe), Ok(())) => Ok(Self { database, stripe }),
            (_, _, faults) => Err(Error::Configuration(faults.err().unwrap_or_default())),
        }
    }
}

impl StripeConfig {
    /// Reads the variables of a command that only asks Stripe.
    pub(crate) fn read(environment: &Environment) -> Result<Self, Error> {
        let mut reader = Reader::new(environment);
        let key = reader.required("STRIPE_SECRET_KEY", stripe_key);
        let stripe = Self::read_from(&mut reader, key);
        match (stripe, reader.finish()) {
            (Some(stripe), Ok(())) => Ok(stripe),
            (_, faults) => Err(Error::Configuration(faults.err().unwrap_or_default())),
        }
    }

    fn read_from(reader: &mut Reader, key: Option<(SecretString, StripeMode)>) -> Option<Self> {
        let base = reader
            .optional("STRIPE_API_BASE", api_base)
            .unwrap_or_else(|| Uri::from_static(DEFAULT_STRIPE_API_BASE));
        key.map(|(key, mode)| Self { key, mode, base })
    }
}

impl DatabaseConfig {
    /// Reads the variables of a command that only talks to the database.
    pub(crate) fn read(environment: &Environment) -> Result<Self, Error> {
        let mut reader = Reader::new(environment);
        let database = Self::read_from(&mut reader);
        match (database, reader.finish()) {
            (Some(database), Ok(())) => Ok(database),
            (_, faults) => Err(Error::Configuration(faults.err().unwrap_or_default())),
        }
    }

    fn read_from(reader: &mut Reader) -> Option<Self> {
        let postgres = reader.required("DATABASE_URL", database_url);
        let pool_size = reader
            .optional("DATABASE_POOL_SIZE", |text| number(text, POOL_SIZE_LIMIT))
            .unwrap_or(DEFAULT_POOL_SIZE);
        postgres.map(|postgres| Self { postgres, pool_size })
    }
}

impl AuthConfig {
    fn read_from(reader: &mut Reader) -> Option<Self> {
        let config = Self {
            secret: reader.optional("JWT_SECRET", jwt_secret),
            jwks_url: reader.optional("JWKS_URL", server_url),
            audience: reader.optional("JWT_AUDIENCE", |text| Ok(text.to_owned())),
            issuer: reader.optional("JWT_ISSUER", |text| Ok(text.to_owned())),
        };
        (config.secret.is_some() || config.jwks_url.is_some()).then_some(config)
    }
}

impl Pages {
    fn read_from(reader: &mut Reader) -> Self {
        Self {
            checkout_success: reader.optional("CHECKOUT_SUCCESS_URL", page),
            checkout_cancel: reader.optional("CHECKOUT_CANCEL_URL", page),
            portal_return: reader.optional("PORTAL_RETURN_URL", page),
        }
    }
}

impl RedisConfig {
    fn read_from(reader: &mut Reader) -> Option<Self> {
        let url = reader.optional("REDIS_URL", redis_url);
        let credits_max_age = reader.optional("CREDITS_MAX_AGE", credits_max_age).flatten();
        url.map(|url| Self { url, credits_max_age })
    }
}

impl Page {
    /// The page with more in its query, which stands before the fragment.
    pub(crate) fn with_query(&self, query: &str) -> String {
        let (page, fragment) =
            self.0.split_once('#').map_or((&*self.0, None), |(page, rest)| (page, Some(rest)));
        let separator = if page.contains('?') { '&' } else { '?' };
        let fragment = fragment.map(|fragment| format!("#{fragment}")).unwrap_or_default();
        format!("{page}{separator}{query}{fragment}")
    }
}

impl fmt::Display for Page {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// The secret to sign with, for a command that needs nothing else: the first that `serve` would verify with.
pub(crate) fn read_signing_secret(environment: &Environment) -> Result<SecretString, Error> {
    let mut reader = Reader::new(environment);
    let secrets = reader.required("STRIPE_WEBHOOK_SECRET", webhook_secrets);
    let first = secrets.and_then(|secrets| secrets.into_iter().next());
    first.ok_or(Error::Configuration(reader.faults))
}

impl Environment {
    /// The environment this process was started with.
    pub(crate) fn of_process() -> Self {
        let variables = std::env::vars_os().filter_map(|(name, value)| {
            let name = name.into_string().ok()?;
            Some((name, value.into_string().ok()))
        });
        Self(variables.collect())
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}: {}", self.variable, self.fault)
    }
}

/// Reads variables one by one and collects what is wrong with them.
struct Reader<'a> {
    environment: &'a Environment,
    faults: Vec<Fault>,
}

impl<'a> Reader<'a> {
    fn new(environment: &'a Environment) -> Self {
        Self { environment, faults: Vec::new() }
    }

    /// The variable, which must be there; what an empty one means, its parser says.
    fn required<T>(
        &mut self,
        variable: &'static str,
        parse: impl FnOnce(&str) -> Result<T, String>,
    ) -> Option<T> {
        if self.environment.0.contains_key(variable) {
            self.parse(variable, parse)
        } else {
            self.faults.push(Fault { variable, fault: "is not set".to_owned() });
            None
        }
    }

    /// The variable, if it is there; an empty one is not, for that is how compose files leave one out.
    fn optional<T>(
        &mut self,
        variable: &'static str,
        parse: impl FnOnce(&str) -> Result<T, String>,
    ) -> Option<T> {
        match self.environment.0.get(variable) {
            None => None,
            Some(Some(value)) if value.is_empty() => None,
            Some(_) => self.parse(variable, parse),
        }
    }

    fn parse<T>(
        &mut self,
        variable: &'static str,
        parse: impl FnOnce(&str) -> Result<T, String>,
    ) -> Option<T> {
        let value = self.environment.0.get(variable).and_then(Option::as_deref);
        value
            .ok_or_else(|| "is not UTF-8".to_owned())
            .and_then(parse)
            .map_err(|fault| self.faults.push(Fault { variable, fault }))
            .ok()
    }

    fn finish(self) -> Result<(), Vec<Fault>> {
        if self.faults.is_empty() { Ok(()) } else { Err(self.faults) }
    }
}

// A fault never repeats the value: most of them are secrets or hold one.

fn database_url(text: &str) -> Result<tokio_postgres::Config, String> {
    if text.is_empty() {
        return Err("is empty".to_owned());
    }
    let mut config: tokio_postgres::Config = text.parse().map_err(|_| {
        "is not a Postgres connection string; options are those of libpq, sslmode is disable, prefer or require"
            .to_owned()
    })?;
    if config.get_hosts().is_empty() && config.get_hostaddrs().is_empty() {
        return Err("names no host".to_owned());
    }
    if config.get_user().is_none() {
        return Err("names no user".to_owned());
    }
    if config.get_connect_timeout().is_none() {
        config.connect_timeout(DATABASE_CONNECT_TIMEOUT);
    }
    if config.get_application_name().is_none() {
        config.application_name("stripe-credits");
    }
    Ok(config)
}

fn webhook_secrets(text: &str) -> Result<Vec<SecretString>, String> {
    let secret = |part: &str| match part.trim() {
        "" => Err("holds an empty secret, with which anybody could sign".to_owned()),
        secret => Ok(SecretString::from(secret)),
    };
    text.split(',').map(secret).collect()
}

fn stripe_key(text: &str) -> Result<(SecretString, StripeMode), String> {
    let starts_with = |prefixes: [&str; 2]| prefixes.iter().any(|prefix| text.starts_with(prefix));
    let mode = if starts_with(["sk_live_", "rk_live_"]) {
        StripeMode::Live
    } else if starts_with(["sk_test_", "rk_test_"]) {
        StripeMode::Test
    } else {
        return Err("must begin with sk_test_, sk_live_, rk_test_ or rk_live_".to_owned());
    };
    if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err("holds a character that no Stripe key has".to_owned());
    }
    Ok((SecretString::from(text), mode))
}

fn api_base(text: &str) -> Result<Uri, String> {
    match server_url(text)? {
        uri if uri.query().is_some() => Err("must not have a query".to_owned()),
        uri => Ok(uri),
    }
}

fn jwt_secret(text: &str) -> Result<SecretString, String> {
    if text.len() < MIN_JWT_SECRET_BYTES {
        return Err(format!(
            "is shorter than {MIN_JWT_SECRET_BYTES} bytes, and so can be guessed from a token"
        ));
    }
    Ok(SecretString::from(text))
}

/// As browsers write them: a scheme, a host and a port where it is not the scheme's own, in lower case, nothing else.
fn origins(text: &str) -> Result<Vec<HeaderValue>, String> {
    let origin = |part: &str| {
        let origin = part.trim();
        if origin.contains('*') {
            return Err("must name each origin, without *".to_owned());
        }
        let uri = server_url(origin)?;
        let port = uri.port_u16().map(|port| format!(":{port}")).unwrap_or_default();
        let written =
            format!("{}://{}{port}", uri.scheme_str().unwrap_or_default(), uri.host().unwrap_or_default());
        let is_default = matches!(
            (uri.scheme_str(), uri.port_u16()),
            (Some("https"), Some(443)) | (Some("http"), Some(80))
        );
        if written != origin || written.to_ascii_lowercase() != written || is_default {
            return Err("must be origins as browsers send them, such as https://app.example, without a path"
                .to_owned());
        }
        HeaderValue::from_str(origin).map_err(|_| "is not ASCII".to_owned())
    };
    text.split(',').map(origin).collect()
}

fn page(text: &str) -> Result<Page, String> {
    // A Uri has no fragment; a page of an app that routes by it has.
    server_url(text.split('#').next().unwrap_or_default())?;
    if text.bytes().all(|byte| byte.is_ascii_graphic()) {
        Ok(Page(text.to_owned()))
    } else {
        Err("holds a character that must be escaped in a URL".to_owned())
    }
}

/// Its password may stand in it.
fn redis_url(text: &str) -> Result<SecretString, String> {
    match redis::parse_redis_url(text) {
        Some(_) if redis::Client::open(text).is_ok() => Ok(SecretString::from(text)),
        _ => Err("is not redis://host:port/0 or rediss://…".to_owned()),
    }
}

fn credits_max_age(text: &str) -> Result<Option<Duration>, String> {
    match text.parse() {
        Ok(0) => Ok(None),
        Ok(seconds) if seconds <= CREDITS_MAX_AGE_LIMIT => Ok(Some(Duration::from_secs(seconds))),
        _ => Err(format!("is not a number of seconds from 0 to {CREDITS_MAX_AGE_LIMIT}")),
    }
}

/// https anywhere; http only to this machine, where tests and development keep their servers: keys, tokens and
/// session ids would travel in the clear.
fn server_url(text: &str) -> Result<Uri, String> {
    let uri: Uri = text.parse().map_err(|_| "is not a URL".to_owned())?;
    let (Some(scheme), Some(host)) = (uri.scheme_str(), uri.host()) else {
        return Err("is not a URL with a scheme and a host".to_owned());
    };
    match scheme {
        "https" => Ok(uri),
        "http" if is_loopback(host) => Ok(uri),
        "http" => Err("must be https, or http to a loopback host".to_owned()),
        _ => Err("must be https".to_owned()),
    }
}

fn is_loopback(host: &str) -> bool {
    let address = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || address.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

fn listen(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| "is not an address and a port, such as 127.0.0.1:8787 or [::]:8787".to_owned())
}

fn number(text: &str, max: usize) -> Result<usize, String> {
    match text.parse() {
        Ok(number) if (1..=max).contains(&number) => Ok(number),
        _ => Err(format!("is not a number from 1 to {max}")),
    }
}

fn log_level(text: &str) -> Result<Level, String> {
    text.parse().map_err(|_| "is not error, warn, info, debug or trace".to_owned())
}

#[cfg(test)]
mod tests {
    use secrecy::ExposeSecret as _;

    use super::*;

    const DATABASE_URL: (&str, &str) = ("DATABASE_URL", "postgres://app:hush@db/credits");
    const WEBHOOK_SECRET: (&str, &str) = ("STRIPE_WEBHOOK_SECRET", "whsec_hush");

    fn read(variables: &[(&str, &str)]) -> Result<ServeConfig, Error> {
        ServeConfig::read(&environment(variables))
    }

    fn environment(variables: &[(&str, &str)]) -> Environment {
        let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), Some((*value).to_owned()));
        Environment(variables.iter().map(owned).collect())
    }

    fn faults(variables: &[(&str, &str)]) -> Vec<String> {
        match read(variables) {
            Err(Error::Configuration(faults)) => faults.iter().map(Fault::to_string).collect(),
            other => panic!("not a fault: {other:?}"),
        }
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
            ("CORS_ORIGINS", "https://app.example/"),
            ("CHECKOUT_SUCCESS_URL", "/back"),
            ("CHECKOUT_CANCEL_URL", "app://back"),
            ("PORTAL_RETURN_URL", "http://app.example"),
            ("REDIS_URL", "http://:hush@redis.example"),
            ("CREDITS_MAX_AGE", "-1"),
            ("LISTEN", "8787"),
            ("DATABASE_POOL_SIZE", "0"),
            ("MAX_CONNECTIONS", "many"),
            ("LOG_LEVEL", "loud"),
        ]);
        let variables: Vec<&str> = faults.iter().filter_map(|fault| fault.split(':').next()).collect();
        assert_eq!(
            variables,
            [
                "DATABASE_URL",
                "DATABASE_POOL_SIZE",
                "STRIPE_WEBHOOK_SECRET",
                "STRIPE_SECRET_KEY",
                "STRIPE_API_BASE",
                "JWT_SECRET",
                "JWKS_URL",
                "CORS_ORIGINS",
                "CHECKOUT_SUCCESS_URL",
                "CHECKOUT_CANCEL_URL",
                "PORTAL_RETURN_URL",
                "REDIS_URL",
                "CREDITS_MAX_AGE",
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
    fn http_to_stripe_is_for_loopback_only() {
        for base in ["https://api.stripe.com", "http://127.0.0.1:9", "http://[::1]:9", "http://localhost:9"] {
            assert!(api_base(base).is_ok(), "{base}");
        }
        for base in
            ["http://10.0.0.1", "http://localhost.evil.example", "ftp://127.0.0.1", "stripe", "https://x?y"]
        {
            assert!(api_base(base).is_err(), "{base}");
        }
    }

    #[test]
    fn tokens_are_proven_by_a_secret_or_by_keys_or_by_both() {
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
    fn credits_are_answered_from_redis_only_where_that_is_said() {
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
    fn an_origin_is_what_a_browser_would_send() {
        for good in [
            "https://app.example",
            "http://localhost:5173",
            "https://a.example,https://b.example:8443",
            "http://[::1]:3000",
        ] {
            assert!(origins(good).is_ok(), "{good}");
        }
        for wrong in [
            "*",
            "null",
            "https://app.example/",
            "https://app.example:443",
            "https://App.example",
            "app.example",
            "https://app.example,",
            "https://u@app.example",
            "https://*.app.example",
            "http://app.example",
        ] {
            assert!(origins(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_page_keeps_its_query_and_its_fragment() {
        let back = |page_text| page(page_text).unwrap().with_query("x={Y}");
        assert_eq!(back("https://app.example"), "https://app.example?x={Y}");
        assert_eq!(back("https://app.example/back?a=b"), "https://app.example/back?a=b&x={Y}");
        assert_eq!(back("https://app.example/#/back"), "https://app.example/?x={Y}#/back");
        for wrong in
            ["", "back", "https://app.example/a b", "javascript:alert(1)", "https://app.example/\u{e9}"]
        {
            assert!(page(wrong).is_err(), "{wrong}");
        }
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
    fn debug_shows_no_secret() {
        let variables = [DATABASE_URL, WEBHOOK_SECRET, ("STRIPE_SECRET_KEY", "sk_test_hush")];
        assert!(!format!("{:?}", read(&variables).unwrap()).contains("hush"));
    }
}
