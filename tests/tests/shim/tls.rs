//! TLS to Postgres, Redis and Stripe: who is trusted, and that nobody else is.

use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;
use stripe_credits_tests::app::{app, without_stripe};
use stripe_credits_tests::certificates::{Authority, SignedCertificate, in_front_of};
use stripe_credits_tests::fake_redis::FakeRedis;
use stripe_credits_tests::fake_stripe::FakeStripe;
use stripe_credits_tests::shim::{Setup, Shim, until};
use stripe_credits_tests::{ANN, Connection, Database, paid_pack};
use tempfile::TempDir;
use xtask::cluster::Cluster;

use crate::database_away::{DATABASE, books, cluster};

/// The host that the servers' certificates are for; they listen on 127.0.0.1.
const HOST: &str = "localhost";

/// Lets a server of Postgres speak TLS, too. It writes the files itself, because it accepts no key of another owner.
fn with_tls(cluster: &Cluster, server: &SignedCertificate) {
    let mut postgres = books(cluster);
    for (name, content) in [("server.crt", &server.certificate), ("server.key", &server.key)] {
        let content = STANDARD.encode(content);
        postgres.run(&format!("copy (select '{content}') to program 'umask 077; base64 -d > {name}'"));
    }
    postgres.run("alter system set ssl = on");
    postgres.run("select pg_reload_conf()");
    until("it speaks TLS", || books(cluster).one::<String>("show ssl", &[]) == "on");
}

/// Whether the open connections of the shim are encrypted: all are, none is, or some of each are.
fn encrypted(books: &mut Connection) -> Vec<bool> {
    books.column(
        "select distinct s.ssl from pg_stat_ssl s join pg_stat_activity a using (pid)
         where a.application_name = 'stripe-credits' and a.datname = current_database()",
        &[],
    )
}

#[test]
fn each_sslmode_trusts_whom_it_says_and_encrypts_if_it_says_so() {
    let (ours, others) = (Authority::new(), Authority::new());
    let cluster = cluster();
    with_tls(&cluster, &ours.certificate(HOST));
    let mut books = books(&cluster);
    let port = cluster.port();
    let options = |mode: &str, authority: Option<&Authority>| {
        let root = authority.map(|authority| format!("&sslrootcert={}", authority.file().display()));
        format!("?sslmode={mode}{}", root.unwrap_or_default())
    };
    let right = |mode: &str| options(mode, Some(&ours));
    for (host, options, expected) in [
        (HOST, options("disable", None), Some(false)),
        ("127.0.0.1", options("prefer", None), Some(true)),
        (HOST, options("prefer", Some(&others)), Some(true)),
        // It is not satisfied with just anybody, unlike libpq's.
        (HOST, options("require", None), None),
        (HOST, right("require"), Some(true)),
        (HOST, right("verify-ca"), Some(true)),
        ("127.0.0.1", right("verify-ca"), Some(true)),
        (HOST, options("verify-ca", Some(&others)), None),
        (HOST, right("verify-full"), Some(true)),
        ("127.0.0.1", right("verify-full"), None),
        (HOST, options("verify-full", Some(&others)), None),
        (HOST, options("verify-full", None), None),
    ] {
        let shim = Setup::serve(&format!("postgres://postgres@{host}:{port}/{DATABASE}{options}")).start();
        let ready = shim.ops("/readyz");
        match expected {
            None => assert_eq!(ready.summary(), "503 database_unavailable", "{host} {options}"),
            Some(is_encrypted) => {
                assert_eq!(ready.status, 200, "{host} {options}: {ready:?}");
                assert_eq!(encrypted(&mut books), [is_encrypted], "{host} {options}");
            }
        }
        drop(shim);
        until("its connections are closed", || encrypted(&mut books).is_empty());
    }
}

/// Has Postgres ask everyone who comes by TLS for a certificate of an authority that it trusts.
fn with_client_certificates(cluster: &Cluster, authority: &Authority) {
    let certificate = STANDARD.encode(std::fs::read(authority.file()).expect("its certificate"));
    let rules = STANDARD.encode("hostssl all all all cert\nhostnossl all all all trust\n");
    let mut postgres = books(cluster);
    for (name, content) in [("clients.pem", certificate), ("pg_hba.conf", rules)] {
        postgres.run(&format!("copy (select '{content}') to program 'base64 -d > {name}'"));
    }
    postgres.run("alter system set ssl_ca_file = 'clients.pem'");
    postgres.run("select pg_reload_conf()");
    until("it asks for certificates", || {
        books(cluster)
            .one::<bool>("select setting = 'clients.pem' from pg_settings where name = 'ssl_ca_file'", &[])
    });
}

#[test]
fn a_server_that_asks_for_a_certificate_takes_the_clients_own() {
    let (ours, clients, others) = (Authority::new(), Authority::new(), Authority::new());
    let cluster = cluster();
    with_tls(&cluster, &ours.certificate(HOST));
    with_client_certificates(&cluster, &clients);
    let folder = TempDir::new().expect("a folder");
    let file = |name: &str, content: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, content).expect("a file");
        path.display().to_string()
    };
    let options = |name: &str, signed: &SignedCertificate| {
        let certificate = file(&format!("{name}.pem"), &signed.certificate);
        format!("&sslcert={certificate}&sslkey={}", file(&format!("{name}.key"), &signed.key))
    };
    let server = format!(
        "postgres://postgres@{HOST}:{}/{DATABASE}?sslmode=verify-full&sslrootcert={}",
        cluster.port(),
        ours.file().display()
    );
    let refused = "503 database_unavailable";
    for (whose, options, expected) in [
        ("the role's", options("own", &clients.client_certificate("postgres")), "200"),
        ("none", String::new(), refused),
        ("another role's", options("role", &clients.client_certificate("nobody")), refused),
        ("a stranger's", options("strange", &others.client_certificate("postgres")), refused),
    ] {
        let shim = Setup::serve(&format!("{server}{options}")).start();
        let ready = shim.ops("/readyz");
        assert_eq!(ready.summary(), expected, "{whose}: {ready:?}");
    }
}

#[test]
fn a_server_without_tls_is_refused_by_whoever_requires_it() {
    let cluster = cluster();
    let url = |mode: &str| format!("{}?sslmode={mode}", cluster.url(DATABASE));
    for mode in ["require", "verify-ca", "verify-full"] {
        let shim = Setup::serve(&url(mode)).start();
        assert_eq!(shim.ops("/readyz").summary(), "503 database_unavailable", "{mode}");
    }
    assert_eq!(Setup::serve(&url("prefer")).start().ops("/readyz").status, 200);
}

/// Lets a process trust an authority instead of the system's.
fn trusting(setup: Setup, file: &Path) -> Setup {
    setup.with("SSL_CERT_FILE", &file.display().to_string())
}

fn balance(shim: &Shim) -> Value {
    let answer = shim.get_as(ANN, "/credits");
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.json()["credits_balance"].clone()
}

#[test]
fn a_redis_by_tls_is_used_if_its_certificate_is_trusted_and_for_its_host() {
    let (ours, others) = (Authority::new(), Authority::new());
    for (host, trusted, is_used) in [(HOST, &ours, true), ("127.0.0.1", &ours, false), (HOST, &others, false)]
    {
        let (database, stripe, redis) = (Database::with_catalog(), FakeStripe::start(), FakeRedis::start());
        let port = in_front_of(redis.address(), &ours.certificate(HOST)).port();
        let setup = app(&database, &stripe)
            .with("REDIS_URL", &format!("rediss://{host}:{port}"))
            .with("CREDITS_MAX_AGE", "600");
        let shim = trusting(setup, &trusted.file()).start();
        assert_eq!(balance(&shim), 0);
        assert_eq!(redis.kept(&format!("credits:{ANN}")).is_some(), is_used, "{host}");
        let result = if is_used { "ok" } else { "failed" };
        assert!(shim.metric("stripe_credits_redis_calls_total", &[("result", result)]) >= 1, "{host}");
    }
}

#[test]
fn stripe_is_asked_by_tls_if_its_certificate_is_trusted_and_for_its_host() {
    let (ours, others) = (Authority::new(), Authority::new());
    let (database, stripe) = (Database::with_catalog(), FakeStripe::start());
    stripe.knows_session(paid_pack("cs_1", ANN).json().clone());
    let port = in_front_of(stripe.address(), &ours.certificate(HOST)).port();
    let session = serde_json::json!({ "session_id": "cs_1" });
    for (host, trusted, expected) in [
        ("127.0.0.1", &ours, "502 stripe_unreachable"),
        (HOST, &others, "502 stripe_unreachable"),
        (HOST, &ours, "200 applied"),
    ] {
        let setup = without_stripe(&database)
            .with_stripe(&stripe)
            .with("STRIPE_API_BASE", &format!("https://{host}:{port}"));
        let shim = trusting(setup, &trusted.file()).start();
        let answer = shim.post_as(ANN, "/reconcile-stripe-credit-pack", &session);
        assert_eq!(answer.summary(), expected, "{host}");
    }
    assert_eq!(database.connect().ledger(ANN), ["purchase 500"]);
}
