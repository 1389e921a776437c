//! clients/typescript by its own tests, against the real shim and, as supabase-js sees them, the SQL functions.

use std::path::PathBuf;
use std::process::Command;

use serde_json::json;
use stripe_credits_tests::app::{ORIGIN, SERVICE_TOKEN, app};
use stripe_credits_tests::database::setting;
use stripe_credits_tests::fake_stripe::FakeStripe;
use stripe_credits_tests::postgrest::Postgrest;
use stripe_credits_tests::shim::unix_now;
use stripe_credits_tests::tokens::{Signer, token};
use stripe_credits_tests::{ANN, BOB, Database, paid_pack};

const DOCUMENT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../openapi.yaml");

/// A program of the client's packages, in its folder.
fn node(program: &str) -> Command {
    let folder = PathBuf::from(setting("STRIPE_CREDITS_TYPESCRIPT"));
    let mut command = Command::new("node");
    command.arg(folder.join("node_modules").join(program)).current_dir(folder);
    command
}

fn assert_succeeds(command: &mut Command) {
    let ended = command.output().expect("node is installed");
    let text = String::from_utf8_lossy(&ended.stdout);
    assert!(ended.status.success(), "{text}\n{}", String::from_utf8_lossy(&ended.stderr));
    println!("{text}");
}

#[test]
fn the_client_and_its_tests_have_the_types_that_they_say() {
    assert_succeeds(node("typescript/bin/tsc").arg("--noEmit"));
}

#[test]
fn the_client_does_what_it_says_with_the_shim_and_with_supabase_js() {
    let (database, stripe) = (Database::with_catalog(), FakeStripe::start());
    database.connect().grant(ANN, 1000, "gift");
    stripe.knows_session(paid_pack("cs_1", ANN).json().clone());
    stripe.knows_session(paid_pack("cs_2", BOB).json().clone());
    let shim = app(&database, &stripe).with("SERVICE_TOKEN", SERVICE_TOKEN).start();
    let supabase = Postgrest::start(&database);
    let service_key = Signer::secret().sign(&json!({"role": "service_role", "exp": unix_now() + 600}));
    let mut vitest = node("vitest/vitest.mjs");
    // One file after another, because all of them spend of one balance.
    vitest.args(["run", "--no-color", "--no-file-parallelism"]);
    vitest.env("SHIM_URL", format!("http://{}", shim.address())).env("SHIM_ORIGIN", ORIGIN);
    vitest.env("USER_ID", ANN.to_string()).env("USER_TOKEN", token(ANN)).env("SERVICE_TOKEN", SERVICE_TOKEN);
    vitest.env("SUPABASE_URL", supabase.url()).env("SUPABASE_SERVICE_KEY", service_key);
    vitest.env("OPENAPI", DOCUMENT);
    assert_succeeds(&mut vitest);
}
