//! `webhooks create` and `catalog draft`: what a new installation needs of Stripe.

use serde_json::{Value, json};
use stripe_credits_rules::event::TYPES;
use stripe_credits_tests::Database;
use stripe_credits_tests::app::command;
use stripe_credits_tests::fake_stripe::{FakeStripe, KEY};
use stripe_credits_tests::shim::{Ended, Setup};

const URL: &str = "https://pay.example/webhooks/stripe";

fn webhooks(stripe: &FakeStripe, arguments: &[&str]) -> Ended {
    Setup::command(&[&["webhooks"], arguments].concat()).with_stripe(stripe).run()
}

#[test]
fn an_endpoint_is_made_once_with_all_types_and_the_version_and_shows_its_secret() {
    let stripe = FakeStripe::start();
    let made = webhooks(&stripe, &["create", "--url", URL]);
    assert_eq!(made.code, Some(0), "{made:?}");
    assert!(
        made.stdout.lines().any(|line| line.starts_with("STRIPE_WEBHOOK_SECRET=whsec_made_")),
        "{made:?}"
    );
    let posted = stripe.asked().into_iter().find(|request| request.method == "POST").expect("it was made");
    let form = posted.form();
    assert_eq!((form["url"].as_str(), form["api_version"].as_str()), (URL, "2025-03-31.basil"));
    assert_eq!(posted.body.matches("enabled_events").count(), TYPES.len());

    let checked = webhooks(&stripe, &["check"]);
    assert_eq!((checked.code, checked.stdout.lines().count()), (Some(0), 1), "{checked:?}");
    assert!(!checked.stdout.contains("whsec"), "{checked:?}");

    let again = webhooks(&stripe, &["create", "--url", URL]);
    assert_eq!((again.code, again.stdout.as_str()), (Some(65), ""), "{again:?}");
    assert!(again.stderr.contains("we_made_") && again.stderr.contains(URL), "{again:?}");
    assert_eq!(stripe.asked().iter().filter(|request| request.method == "POST").count(), 1);
}

#[test]
fn an_endpoint_is_made_only_at_a_url_that_stripe_can_post_to() {
    let stripe = FakeStripe::start();
    for url in ["ftp://pay.example/webhooks/stripe", "pay.example/webhooks/stripe", "/webhooks/stripe"] {
        let ended = webhooks(&stripe, &["create", "--url", url]);
        assert!(matches!(ended.code, Some(64 | 65)), "{ended:?}");
    }
    // With a live key money and names are on the way.
    let live = KEY.replace("sk_test", "sk_live");
    let ended = Setup::command(&["webhooks", "create", "--url", "http://pay.example/webhooks/stripe"])
        .with_stripe(&stripe)
        .with("STRIPE_SECRET_KEY", &live)
        .run();
    assert_eq!(ended.code, Some(65), "{ended:?}");
    assert!(stripe.asked().is_empty());
}

fn price(id: &str, product: &str, interval: Option<&str>, metadata: &Value) -> Value {
    let recurring =
        interval.map(|interval| json!({"interval": interval, "interval_count": 1, "usage_type": "licensed"}));
    json!({
        "id": id, "object": "price", "active": true, "livemode": false, "currency": "usd", "unit_amount": 1000,
        "type": if interval.is_some() { "recurring" } else { "one_time" }, "recurring": recurring, "metadata": metadata,
        "product": {"id": format!("prod_{product}"), "object": "product", "name": product, "metadata": {}},
    })
}

/// A price as Stripe shows it if nothing is expanded.
fn unexpanded(mut price: Value) -> Value {
    price["product"] = price["product"]["id"].clone();
    price
}

#[test]
fn a_draft_is_refused_until_its_credits_are_filled_in_and_then_agrees_with_stripe() {
    let database = Database::new();
    let stripe = FakeStripe::start();
    let prices = vec![
        price("price_m", "Pro", Some("month"), &json!({})),
        price("price_y", "Pro", Some("year"), &json!({})),
        price("price_500", "Top-up", None, &json!({"credits": "500"})),
    ];
    stripe.knows_list("/v1/prices", prices.clone());
    let draft = Setup::command(&["catalog", "draft"]).with_stripe(&stripe).run();
    assert_eq!(draft.code, Some(0), "{draft:?}");
    assert!(draft.stderr.contains("pro  has no credits yet"), "{draft:?}");

    let push =
        |document: &str| command(&["catalog", "push", "-"], &database, &stripe).with_stdin(document).run();
    let refused = push(&draft.stdout);
    assert_eq!(refused.code, Some(65), "{refused:?}");
    assert!(refused.stderr.contains("plans[0].credits"), "{refused:?}");
    assert!(refused.stderr.contains("FILL IN how many credits pro has"), "{refused:?}");

    let mut document: Value = serde_json::from_str(&draft.stdout).expect("JSON");
    document["plans"][0]["credits"] = json!(10_000);
    let pushed = push(&document.to_string());
    assert_eq!(pushed.code, Some(0), "{pushed:?}");
    stripe.knows_list("/v1/prices", prices.into_iter().map(unexpanded).collect());
    let checked = command(&["catalog", "check"], &database, &stripe).run();
    assert_eq!(
        (checked.code, checked.stdout.as_str()),
        (Some(0), "3 prices in the catalog, 3 sold at Stripe\n"),
        "{checked:?}"
    );
    let drip: String = database.connect().one(
        "select concat_ws(' ', kind, credits, every, drip) from billing.prices where price_id = 'price_y'",
        &[],
    );
    assert_eq!(drip, "plan 10000 1 year 1 mon");
}
