//! `stripe-credits doctor`: each thing that can be wrong is named with what to do, and nothing else is.

use serde_json::{Value, json};
use stripe_credits_tests::app::app;
use stripe_credits_tests::fake_stripe::{FakeStripe, Fault, KEY};
use stripe_credits_tests::shim::{Ended, SECRET, Setup};
use stripe_credits_tests::stripe::{paid_pack, session};
use stripe_credits_tests::tokens::{JWT_SECRET, Signer, claims, token};
use stripe_credits_tests::{ANN, Database};

const URL: &str = "https://pay.example/webhooks/stripe";

/// A Stripe that is set up for the scenarios' catalog.
fn well_set_up() -> FakeStripe {
    let stripe = FakeStripe::start();
    let price = |id: &str, billing: &str| json!({"id": id, "object": "price", "active": true, "type": billing, "livemode": false});
    let plans = ["price_pro", "price_pro_year", "price_max", "price_roll"].map(|id| price(id, "recurring"));
    let others = ["price_pack", "price_tshirt"].map(|id| price(id, "one_time"));
    stripe.knows_list("/v1/prices", plans.into_iter().chain(others).collect());
    stripe.knows_list("/v1/webhook_endpoints", vec![endpoint("enabled", &["*"])]);
    stripe.knows_list("/v1/billing_portal/configurations", vec![portal(&json!({"enabled": false}))]);
    stripe
}

fn price(id: &str, billing: &str, is_active: bool) -> Value {
    json!({"id": id, "object": "price", "active": is_active, "type": billing, "livemode": false})
}

/// The other prices of the scenarios' catalog.
fn prices_but_pro() -> impl Iterator<Item = Value> {
    let plans = ["price_pro_year", "price_max", "price_roll"].map(|id| price(id, "recurring", true));
    let others = ["price_pack", "price_tshirt"].map(|id| price(id, "one_time", true));
    plans.into_iter().chain(others)
}

fn endpoint(status: &str, enabled_events: &[&str]) -> Value {
    json!({"id": "we_1", "object": "webhook_endpoint", "url": URL, "status": status, "livemode": false,
        "api_version": "2025-03-31.basil", "enabled_events": enabled_events})
}

fn portal(subscription_update: &Value) -> Value {
    json!({"id": "bpc_1", "object": "billing_portal.configuration", "active": true,
        "features": {"subscription_update": subscription_update}})
}

/// The settings of `serve`, for another command.
fn doctor(database: &Database, stripe: &FakeStripe, arguments: &[&str]) -> Setup {
    app(database, stripe).calling(&[&["doctor"], arguments].concat())
}

fn faults(ended: &Ended) -> Vec<&str> {
    ended.stdout.lines().filter_map(|line| line.strip_prefix("FAULT  ")).collect()
}

/// Exactly these faults are named, each with a way out, and no secret is.
fn assert_faults(ended: &Ended, expected: &[&str]) {
    let found = faults(ended);
    let is_expected = found.len() == expected.len()
        && found.iter().all(|fault| expected.iter().any(|expected| fault.contains(expected)));
    assert!(is_expected, "expected {expected:#?}, found {found:#?}");
    assert_eq!(ended.code, Some(i32::from(!expected.is_empty())), "{ended:?}");
    assert_eq!(ended.stdout.matches("\n       do: ").count(), found.len(), "{}", ended.stdout);
    for secret in [KEY, SECRET, JWT_SECRET, "postgres://"] {
        assert!(!ended.stdout.contains(secret) && !ended.stderr.contains(secret), "{ended:?}");
    }
}

/// A database where a sweep has run.
fn swept() -> Database {
    let database = Database::with_catalog();
    database.connect().run("select billing.move_cursor('sweep', '{\"until\": 1}')");
    database
}

#[test]
fn a_shop_where_all_is_well_has_no_fault() {
    let (database, stripe) = (swept(), well_set_up());
    let ended = doctor(&database, &stripe, &["--token", &token(ANN)]).run();
    assert_faults(&ended, &[]);
    for line in [
        "ok     database: reachable, extension ",
        "ok     mode: test",
        "ok     time: Stripe's clock differs",
        "ok     endpoint: https://pay.example/webhooks/stripe  is enabled, and sends all that is needed",
        "ok     portal: bpc_1",
        "ok     catalog: 6 prices in the catalog, 6 sold at Stripe",
        "ok     security: ",
        "ok     books: ",
        "ok     jobs: the last sweep ended 0 min ago",
        &format!("ok     token: accepted, as user {ANN}"),
    ] {
        assert!(ended.stdout.contains(line), "{line}: {}", ended.stdout);
    }
}

#[test]
fn a_wrong_configuration_is_named_variable_by_variable() {
    let ended =
        Setup::command(&["doctor"]).with("STRIPE_SECRET_KEY", "not a key").with("LISTEN", "nowhere").run();
    assert_faults(&ended, &["DATABASE_URL", "STRIPE_WEBHOOK_SECRET", "STRIPE_SECRET_KEY", "LISTEN"]);
}

#[test]
fn what_is_wrong_at_stripe_is_named_with_what_to_do() {
    let (database, stripe) = (swept(), well_set_up());
    stripe.set_date("Thu, 02 Aug 2018 10:10:20 GMT");
    stripe.knows_list("/v1/webhook_endpoints", vec![endpoint("disabled", &["*"])]);
    let update = json!({"enabled": true, "proration_behavior": "none"});
    stripe.knows_list("/v1/billing_portal/configurations", vec![portal(&update)]);
    let prices = [price("price_pro", "recurring", false), price("price_x", "one_time", true)];
    stripe.knows_list("/v1/prices", prices.into_iter().chain(prices_but_pro()).collect());
    let old = database.connect().one::<i64>("select extract(epoch from now())::bigint - 7200", &[]);
    let event = paid_pack("cs_lost", ANN).completed("evt_lost").with("created", old);
    stripe.knows_list("/v1/events", vec![event.json().clone()]);
    let ended = doctor(&database, &stripe, &[]).run();
    assert_faults(
        &ended,
        &[
            "Stripe's clock differs",
            "is disabled",
            "bpc_1 lets customers change plans",
            "evt_lost has not arrived",
            "price_pro  is the plan pro in the catalog, and archived at Stripe",
            "price_x  is sold at Stripe, and the catalog does not know it",
        ],
    );

    // The other way to set up the portal.
    let update =
        json!({"enabled": true, "proration_behavior": "always_invoice", "billing_cycle_anchor": "now"});
    stripe.knows_list("/v1/billing_portal/configurations", vec![portal(&update)]);
    stripe.knows_list("/v1/webhook_endpoints", vec![]);
    let ended = doctor(&database, &stripe, &[]).run();
    assert!(!faults(&ended).iter().any(|fault| fault.contains("bpc_1")), "{ended:?}");
    assert!(ended.stdout.contains("Stripe has none at …/webhooks/stripe"), "{ended:?}");

    stripe.fail(Fault::Unauthorized);
    let ended = doctor(&database, &stripe, &[]).run();
    assert_faults(&ended, &["Stripe does not accept STRIPE_SECRET_KEY"]);
}

#[test]
fn what_is_wrong_in_the_database_is_named_with_what_to_do() {
    let stripe = well_set_up();
    let mut database = swept();
    database.breaks_its_books();
    let mut books = database.connect();
    books.sign_up(ANN);
    books.apply(&session("cs_1").metadata("price_id", "price_pack").completed("evt_1"));
    books
        .run("update billing.accounts set promotional_credits = 7, next_due_at = now() - interval '3 hours'");
    books.run("select billing.move_cursor('sweep', '{\"until\": 1, \"lost\": 3}')");
    books.run("update billing.cursors set moved_at = now() - interval '5 hours'");
    books.run("grant select on billing.accounts to public");
    let ended = doctor(&database, &stripe, &[]).run();
    assert_faults(
        &ended,
        &[
            "security: not so: only owner, client and service roles have rights",
            &format!("books: {ANN}: "),
            "the last sweep ended 5 h ago",
            "the last sweep applied 3 events",
            "due for 180 min",
            "waiting: 1 events",
        ],
    );
}

#[test]
fn a_database_that_cannot_be_used_is_named_and_stripe_is_still_looked_at() {
    let stripe = well_set_up();
    let ended = doctor(&Database::empty(), &stripe, &[]).run();
    assert_faults(&ended, &["the extension is not installed"]);
    assert!(ended.stdout.contains("ok     endpoint"), "{ended:?}");

    let new = Database::new();
    new.connect().run("select billing.move_cursor('sweep', '{\"until\": 1}')");
    stripe.knows_list("/v1/prices", vec![]);
    assert_faults(&doctor(&new, &stripe, &[]).run(), &["catalog: none is loaded"]);

    let away = doctor(&new, &stripe, &[]).with("DATABASE_URL", "postgres://nobody@127.0.0.1:1/none");
    assert_faults(&away.run(), &["database: the database is unreachable"]);
}

#[test]
fn a_token_that_the_app_would_refuse_is_named_with_the_reason() {
    let (database, stripe) = (swept(), well_set_up());
    let mut other = claims(ANN);
    other["role"] = json!("anon");
    let other = Signer::secret().sign(&other);
    assert_faults(&doctor(&database, &stripe, &["--token", &other]).run(), &["token: the token's role"]);
    let from_stdin = doctor(&database, &stripe, &["--token", "-"]).with_stdin(&format!("{}\n", token(ANN)));
    assert_faults(&from_stdin.run(), &[]);
    assert_faults(&doctor(&database, &stripe, &["--token", "no token"]).run(), &["token: "]);
}
