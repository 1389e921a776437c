//! `DATABASE_URL`: a connection string as libpq reads it, with TLS options that tokio-postgres does not know, and with
//! options of other clients, which are found in strings that were copied from a dashboard.

use std::time::Duration;

use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_postgres::config::{SslMode, TargetSessionAttrs};

use crate::tls::{ClientCertificate, DatabaseTls, Verification};

/// How long one attempt to connect to Postgres may take, unless `DATABASE_URL` says otherwise.
const DATABASE_CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long what was sent to Postgres may go without an acknowledgement, unless `DATABASE_URL` says otherwise: a host that
/// is gone says nothing.
const DATABASE_TCP_TIMEOUT: Duration = Duration::from_secs(10);
/// What Prisma, node-postgres, Vercel and poolers' dashboards add, none of which says how to connect more safely.
const OPTIONS_OF_OTHERS: &[&str] = &[
    "connection_limit",
    "pool_mode",
    "pool_timeout",
    "schema",
    "socket_timeout",
    "statement_cache_size",
    "supa",
    "uselibpqcompat",
    "workaround",
];
/// Of `sslrootcert`: the certificates that the system trusts.
const SYSTEM_ROOTS: &str = "system";

/// Whether statements are prepared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PreparedStatements {
    /// If no pooler gives each transaction another session.
    Detect,
    /// `prepared_statements=true`: a pooler keeps them.
    Always,
    /// `prepared_statements=false`, or Prisma's `pgbouncer=true`, which asks for the same.
    Never,
}

/// The options that are read here and not by tokio-postgres.
#[derive(Debug, Default)]
struct OwnOptions {
    pgbouncer: Option<String>,
    prepared_statements: Option<String>,
    mode: Option<String>,
    root: Option<String>,
    certificate: Option<String>,
    key: Option<String>,
}

pub(super) fn database_url(
    text: &str,
) -> Result<(tokio_postgres::Config, DatabaseTls, PreparedStatements), String> {
    if text.is_empty() {
        return Err("is empty".to_owned());
    }
    let mut options = OwnOptions::default();
    let rest = options.take(text).ok_or("holds an option that is not written as libpq reads it")?;
    let mut config: tokio_postgres::Config = rest.parse().map_err(|_| {
        "is not a Postgres connection string, or has an option that libpq does not have".to_owned()
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
    // Nothing here is of use to a standby: it is refused, and of several hosts the next one is asked.
    if !text.contains("target_session_attrs") {
        config.target_session_attrs(TargetSessionAttrs::ReadWrite);
    }
    if config.get_tcp_user_timeout().is_none() {
        config.tcp_user_timeout(DATABASE_TCP_TIMEOUT);
    }
    if config.get_application_name().is_none() {
        config.application_name("stripe-credits");
    }
    let (mode, verification) = options.mode()?;
    config.ssl_mode(mode);
    let tls = DatabaseTls {
        verification,
        roots: options.root.as_deref().filter(|root| *root != SYSTEM_ROOTS).map(roots).transpose()?,
        client: client(options.certificate.as_deref(), options.key.as_deref())?,
    };
    Ok((config, tls, options.prepared_statements()?))
}

impl OwnOptions {
    /// The string without the options that are read here, which are kept, and without those of other clients.
    fn take(&mut self, text: &str) -> Option<String> {
        if text.starts_with("postgres://") || text.starts_with("postgresql://") {
            let Some((url, query)) = text.split_once('?') else { return Some(text.to_owned()) };
            let mut kept = Vec::new();
            for part in query.split('&').filter(|part| !part.is_empty()) {
                let (name, value) = form_urlencoded::parse(part.as_bytes()).next()?;
                if !self.takes(&name, &value) {
                    kept.push(part);
                }
            }
            return Some(if kept.is_empty() { url.to_owned() } else { format!("{url}?{}", kept.join("&")) });
        }
        let mut kept = Vec::new();
        for (part, name, value) in key_values(text)? {
            if !self.takes(name, &value) {
                kept.push(part);
            }
        }
        Some(kept.join(" "))
    }

    /// Whether an option is not for tokio-postgres.
    fn takes(&mut self, name: &str, value: &str) -> bool {
        let option = match name {
            "sslmode" => &mut self.mode,
            "sslrootcert" => &mut self.root,
            "sslcert" => &mut self.certificate,
            "sslkey" => &mut self.key,
            "pgbouncer" => &mut self.pgbouncer,
            "prepared_statements" => &mut self.prepared_statements,
            _ => return OPTIONS_OF_OTHERS.contains(&name),
        };
        // As in libpq, an empty value is none, and the last one counts.
        *option = (!value.is_empty()).then(|| value.to_owned());
        true
    }

    fn prepared_statements(&self) -> Result<PreparedStatements, String> {
        match (self.prepared_statements.as_deref(), self.pgbouncer.as_deref()) {
            (Some("true"), _) => Ok(PreparedStatements::Always),
            (Some("false"), _) | (None, Some("true")) => Ok(PreparedStatements::Never),
            (None, _) => Ok(PreparedStatements::Detect),
            (Some(_), _) => Err("has another prepared_statements than true or false".to_owned()),
        }
    }

    fn mode(&self) -> Result<(SslMode, Verification), String> {
        let wrong = "has another sslmode than disable, allow, prefer, require, verify-ca or verify-full";
        match self.mode.as_deref() {
            Some("disable") => Ok((SslMode::Disable, Verification::None)),
            None | Some("allow" | "prefer") => Ok((SslMode::Prefer, Verification::None)),
            Some("verify-ca") => Ok((SslMode::Require, Verification::Authority)),
            Some("require" | "verify-full") => Ok((SslMode::Require, Verification::Full)),
            Some(_) => Err(wrong.to_owned()),
        }
    }
}

/// The parts of a string such as `host=db user=app password='a b'`, with their names and values.
fn key_values(text: &str) -> Option<Vec<(&str, &str, String)>> {
    let mut parts = Vec::new();
    let mut rest = text.trim_start();
    while !rest.is_empty() {
        let (name, after) = rest.split_once('=')?;
        let padding = after.len() - after.trim_start().len();
        let (value, length) = value_of(&after[padding..])?;
        let end = name.len() + 1 + padding + length;
        parts.push((&rest[..end], name.trim_end(), value));
        rest = rest[end..].trim_start();
    }
    Some(parts)
}

/// The value at the beginning of a text, and its length there: up to a blank, or in single quotes; a backslash escapes.
fn value_of(text: &str) -> Option<(String, usize)> {
    let is_quoted = text.starts_with('\'');
    let mut value = String::new();
    let mut characters = text.char_indices().skip(usize::from(is_quoted));
    while let Some((at, character)) = characters.next() {
        match character {
            '\\' => value.push(characters.next()?.1),
            '\'' if is_quoted => return Some((value, at + 1)),
            blank if blank.is_whitespace() && !is_quoted => return Some((value, at)),
            other => value.push(other),
        }
    }
    (!is_quoted).then_some((value, text.len()))
}

fn roots(path: &str) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates("sslrootcert", path)? {
        roots
            .add(certificate)
            .map_err(|_| "sslrootcert holds a certificate that is no authority's".to_owned())?;
    }
    Ok(roots)
}

fn client(certificate: Option<&str>, key: Option<&str>) -> Result<Option<ClientCertificate>, String> {
    match (certificate, key) {
        (None, None) => Ok(None),
        (Some(certificate), Some(key)) => {
            let key = PrivateKeyDer::from_pem_file(key)
                .map_err(|_| "sslkey names no file with a PEM key that is not encrypted".to_owned())?;
            Ok(Some((certificates("sslcert", certificate)?, key)))
        }
        _ => Err("has one of sslcert and sslkey, which go together".to_owned()),
    }
}

fn certificates(option: &str, path: &str) -> Result<Vec<CertificateDer<'static>>, String> {
    let read: Result<Vec<_>, _> = CertificateDer::pem_file_iter(path).and_then(Iterator::collect);
    read.ok()
        .filter(|certificates| !certificates.is_empty())
        .ok_or_else(|| format!("{option} names no file with PEM certificates"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verification(url: &str) -> Result<(SslMode, Verification), String> {
        database_url(url).map(|(config, tls, _)| (config.get_ssl_mode(), tls.verification))
    }

    #[test]
    fn every_sslmode_of_libpq_is_understood_in_both_notations() {
        for (mode, expected) in [
            ("disable", (SslMode::Disable, Verification::None)),
            ("allow", (SslMode::Prefer, Verification::None)),
            ("prefer", (SslMode::Prefer, Verification::None)),
            ("require", (SslMode::Require, Verification::Full)),
            ("verify-ca", (SslMode::Require, Verification::Authority)),
            ("verify-full", (SslMode::Require, Verification::Full)),
        ] {
            for url in [
                format!("postgres://app:a%20b@db.example:6543/credits?sslmode={mode}&sslrootcert=system"),
                format!("postgresql://app@db.example/credits?application_name=x&sslmode={mode}"),
                format!("host=db.example user=app password='a \\'b' sslmode={mode} dbname=credits"),
                format!("host = db.example user=app sslmode = '{mode}'"),
            ] {
                assert_eq!(verification(&url), Ok(expected), "{url}");
            }
        }
        assert_eq!(verification("postgres://app@db/x"), Ok((SslMode::Prefer, Verification::None)));
        assert!(verification("postgres://app@db/x?sslmode=maybe").is_err());
    }

    #[test]
    fn what_other_clients_add_to_a_copied_string_is_left_out() {
        let copied = "postgresql://app.ref:hush@pooler.example:6543/postgres?pgbouncer=true&connection_limit=1&keepalives=0";
        let (config, _, prepared) = database_url(copied).unwrap();
        assert_eq!(prepared, PreparedStatements::Never);
        assert_eq!((config.get_user(), config.get_dbname()), (Some("app.ref"), Some("postgres")));
        assert!(!config.get_keepalives(), "the other options are read");
        for (options, expected) in [
            ("pgbouncer=true", PreparedStatements::Never),
            ("pgbouncer=true prepared_statements=true", PreparedStatements::Always),
            ("prepared_statements=false", PreparedStatements::Never),
            ("pgbouncer=false", PreparedStatements::Detect),
            ("connection_limit=1", PreparedStatements::Detect),
            (
                "schema=public pool_timeout=3 socket_timeout=9 statement_cache_size=0",
                PreparedStatements::Detect,
            ),
            ("sslmode=require supa=base-pooler.x", PreparedStatements::Detect),
            ("workaround=supabase-pooler.vercel uselibpqcompat=true", PreparedStatements::Detect),
        ] {
            let (.., prepared) = database_url(&format!("host=db user=app {options}")).unwrap();
            assert_eq!(prepared, expected, "{options}");
        }
        assert!(database_url("host=db user=app prepared_statements=maybe").is_err());
        assert!(database_url("postgres://app@db/x?unheard_of=1").is_err());
    }

    #[test]
    fn the_values_of_a_string_are_read_as_libpq_reads_them() {
        let (config, ..) =
            database_url(r"host=db user=app password='it\'s = a \\ b' sslmode=disable").unwrap();
        assert_eq!(config.get_password(), Some(r"it's = a \ b".as_bytes()));
        for wrong in ["host=db user=app password='open", "host=db user", "host=db user=app sslmode"] {
            assert!(database_url(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_certificate_that_cannot_be_read_is_named_by_its_option() {
        for (options, named) in [
            ("sslrootcert=/nowhere.pem", "sslrootcert"),
            ("sslrootcert=/dev/null", "sslrootcert"),
            ("sslcert=/nowhere.pem&sslkey=/nowhere.key", "sslkey"),
            ("sslcert=/nowhere.pem", "sslcert and sslkey"),
        ] {
            let fault = database_url(&format!("postgres://app:hush@db/x?{options}")).unwrap_err();
            assert!(fault.contains(named) && !fault.contains("hush"), "{options}: {fault}");
        }
    }
}
