//! The configuration, all of it from the environment, all of it read before anything is opened. Every fault is
//! collected, so that one start names them all.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use hyper::Uri;
use secrecy::SecretString;
use tracing::Level;

use crate::error::Error;

/// The variables, for `--help`.
pub(crate) const HELP: &str = "\
Environment:
  DATABASE_URL           postgres://user:password@host/database; sslmode=disable, prefer (encrypted when the server
                         can, its certificate not checked) or require (encrypted, certificate checked)
  STRIPE_WEBHOOK_SECRET  whsec_…; several, for a rotation, with commas between
  STRIPE_SECRET_KEY      sk_… or rk_…, to get what an event lacks; without it such an event is parked
  STRIPE_API_BASE        default https://api.stripe.com
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
    pub(crate) listen: SocketAddr,
    pub(crate) max_connections: usize,
    pub(crate) log_level: Level,
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
        let base = reader
            .optional("STRIPE_API_BASE", api_base)
            .unwrap_or_else(|| Uri::from_static(DEFAULT_STRIPE_API_BASE));
        let listen = reader.optional("LISTEN", listen).unwrap_or(DEFAULT_LISTEN);
        let max_connections = reader
            .optional("MAX_CONNECTIONS", |text| number(text, CONNECTION_LIMIT))
            .unwrap_or(DEFAULT_MAX_CONNECTIONS);
        let log_level = reader.optional("LOG_LEVEL", log_level).unwrap_or(Level::INFO);

        match (database, webhook_secrets, reader.finish()) {
            (Some(database), Some(webhook_secrets), Ok(())) => Ok(Self {
                database,
                webhook_secrets,
                stripe: key.map(|(key, mode)| StripeConfig { key, mode, base }),
                listen,
                max_connections,
                log_level,
            }),
            (_, _, faults) => Err(Error::Configuration(faults.err().unwrap_or_default())),
        }
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

/// https anywhere; http only to this machine, where tests keep their own Stripe: the key would travel in the clear.
fn api_base(text: &str) -> Result<Uri, String> {
    let uri: Uri = text.parse().map_err(|_| "is not a URL".to_owned())?;
    let (Some(scheme), Some(host)) = (uri.scheme_str(), uri.host()) else {
        return Err("is not a URL with a scheme and a host".to_owned());
    };
    match scheme {
        _ if uri.query().is_some() => Err("must not have a query".to_owned()),
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
        assert!(config.stripe.is_none());
    }

    #[test]
    fn every_fault_is_named_at_once() {
        let faults = faults(&[
            ("STRIPE_WEBHOOK_SECRET", "whsec_a,,whsec_b"),
            ("STRIPE_SECRET_KEY", "pk_live_hush"),
            ("STRIPE_API_BASE", "http://stripe.example"),
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
