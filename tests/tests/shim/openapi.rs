//! openapi.yaml against the running shim: schemathesis sends requests that fit it and requests that do not, and every
//! answer has to be one that the document describes. Not `GET /events`, whose answer has no end; events.rs tests it.

use std::process::Command;

use serde_json::json;
use stripe_credits_tests::app::{SERVICE_TOKEN, app};
use stripe_credits_tests::database::setting;
use stripe_credits_tests::fake_stripe::FakeStripe;
use stripe_credits_tests::shim::Shim;
use stripe_credits_tests::tokens::token;
use stripe_credits_tests::{ANN, BOB, Database, catalog, paid_pack};
use tempfile::TempDir;

const DOCUMENT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../openapi.yaml");
const CONFIGURATION: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/openapi/schemathesis.toml");
/// What an answer is checked for. Not that a request which fits is accepted: most prices are not on sale, most sessions
/// not known.
const CHECKS: &str = "not_a_server_error,status_code_conformance,content_type_conformance,\
    response_headers_conformance,response_schema_conformance,negative_data_rejection,missing_required_header,\
    unsupported_method,allow_header_conformance,ignored_auth";
/// Random requests for each route, beside those at the edges of each value.
const EXAMPLES: &str = "25";

/// Checks the routes that are selected by these arguments, at this address.
fn check(url: &str, selection: &[&str]) {
    let folder = TempDir::with_prefix("stripe-credits-openapi-").expect("a temporary folder");
    let mut command = Command::new(setting("STRIPE_CREDITS_SCHEMATHESIS"));
    command.args(["--config-file", CONFIGURATION, "run", DOCUMENT, "--url", url]).args(selection);
    command.args(["--checks", CHECKS, "--max-examples", EXAMPLES, "--phases", "examples,coverage,fuzzing"]);
    // The same requests every time.
    command.args(["--seed", "1", "--generation-database", "none", "--warnings", "off", "--no-color"]);
    command.env("USER_TOKEN", token(ANN)).env("SERVICE_TOKEN", SERVICE_TOKEN);
    let ended = command.current_dir(folder.path()).output().expect("schemathesis starts");
    let text = String::from_utf8_lossy(&ended.stdout);
    assert!(ended.status.success(), "{text}\n{}", String::from_utf8_lossy(&ended.stderr));
    println!("{text}");
}

/// The shim with every route.
fn shim(database: &Database, stripe: &FakeStripe) -> Shim {
    app(database, stripe).with("SERVICE_TOKEN", SERVICE_TOKEN).start()
}

#[test]
fn every_answer_to_users_servers_and_stripe_is_one_that_the_document_describes() {
    let (database, stripe) = (Database::new(), FakeStripe::start());
    let mut document = catalog();
    document["user_namespace"] = json!("6ba7b811-9dad-11d1-80b4-00c04fd430c8");
    let mut books = database.connect();
    books.load_catalog(&document);
    books.grant(ANN, 1_000_000, "gift");
    // One that is hers, and one that is not.
    for (session, buyer) in [("cs_1", ANN), ("cs_2", BOB)] {
        stripe.knows_session(paid_pack(session, buyer).json().clone());
    }
    let shim = shim(&database, &stripe);
    check(
        &format!("http://{}", shim.address()),
        &["--exclude-tag", "operators", "--exclude-path", "/events"],
    );
}

#[test]
fn every_answer_to_operators_is_one_that_the_document_describes() {
    let (database, stripe) = (Database::with_catalog(), FakeStripe::start());
    let shim = shim(&database, &stripe);
    check(&format!("http://{}", shim.operators_address()), &["--include-tag", "operators"]);
}
