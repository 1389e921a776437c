//! Signatures that Stripe's own libraries made, from their own tests: recorded bytes, secret, time and v1.

use std::fs;
use std::path::Path;

use stripe_credits_tests::Database;
use stripe_credits_tests::shim::{Setup, signature, unix_now};

/// Where the recorded payloads lie, outside of the project.
const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../shared/stripe-events");

struct Golden {
    file: &'static str,
    secret: &'static str,
    v1: &'static str,
}

const TIMESTAMP: u64 = 1_533_204_620;
const GOLDEN: [Golden; 2] = [
    Golden {
        file: "GOLDEN.async_stripe_invoiceitem.json",
        secret: "secret",
        v1: "d7373bc68f4bd320b253cd7461f87af6e1cdf1b4d7db1614d8d1d746972d2d0a",
    },
    Golden {
        file: "GOLDEN.event_test_signature.json",
        secret: "webhook_secret",
        v1: "2220f87ef101a04665f11cdf770523143f875572008577fa0f20882ddb9cc3c7",
    },
];

#[test]
fn a_golden_signature_is_refused_for_its_age_and_its_body_signed_now_is_taken() {
    if !Path::new(FOLDER).is_dir() {
        eprintln!("skipped: {FOLDER} is not there");
        return;
    }
    let database = Database::with_catalog();
    let secrets = GOLDEN.map(|golden| golden.secret).join(",");
    let shim = Setup::serve(&database.url()).with("STRIPE_WEBHOOK_SECRET", &secrets).start();
    let mut books = database.connect();
    let before = books.everything();
    for (count, Golden { file, secret, v1 }) in (1..).zip(&GOLDEN) {
        let body = fs::read(Path::new(FOLDER).join(file)).expect("a golden file");
        let golden = format!("t={TIMESTAMP},v1={v1}");
        assert_eq!(
            signature(secret, TIMESTAMP, &body),
            golden,
            "{file}: our own signer agrees with Stripe's"
        );

        // Refused for its age, which the header tells before a byte of the body is read.
        assert_eq!(shim.post(&body, &[&golden]).summary(), "400 signature_too_old", "{file}");
        // In time, and of no bytes that were signed then.
        let moved = golden.replace(&TIMESTAMP.to_string(), &unix_now().to_string());
        assert_eq!(shim.post(&body, &[&moved]).summary(), "400 signature_mismatch", "{file}");
        for kind in ["signature_too_old", "signature_mismatch"] {
            let counted = shim.metric("stripe_credits_signature_failures_total", &[("kind", kind)]);
            assert_eq!(counted, count, "{file}: {kind}");
        }
        if count == 1 {
            assert_eq!(books.everything(), before, "{file}");
        }

        let now = signature(secret, unix_now(), &body);
        assert_eq!(shim.post(&body, &[&now]).summary(), "200 ignored account", "{file}");
    }
    let line = &shim.logged(2, |line| line["reason"] == "signature_too_old")[0];
    assert_eq!(line["level"], "WARN");
    // Both carry the same made-up id.
    assert_eq!(books.inbox("evt_123").as_deref(), Some("ignored account"));
    assert_eq!(books.one::<i32>("select attempts from billing.stripe_events", &[]), 2);
}
