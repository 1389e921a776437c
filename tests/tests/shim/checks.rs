//! `stripe-credits catalog check` and `webhooks check`: what Stripe is set up for, beside what is needed.

use serde_json::{Value, json};
use stripe_credits_tests::Database;
use stripe_credits_tests::app::command;
use stripe_credits_tests::fake_stripe::{FakeStripe, Fault};
use stripe_credits_tests::shim::{Ended, Setup};
use stripe_credits_tests::top_ups::top_up_database;

fn price(price_id: &str, billing: &str, active: bool) -> Value {
    json!({"id": price_id, "object": "price", "active": active, "type": billing, "livemode": false})
}

/// The prices of the scenarios' catalog, as Stripe has them.
fn prices() -> Vec<Value> {
    let plans =
        ["price_pro", "price_pro_year", "price_max", "price_roll"].map(|id| price(id, "recurring", true));
    let others = ["price_pack", "price_tshirt"].map(|id| price(id, "one_time", true));
    plans.into_iter().chain(others).collect()
}

fn check_catalog(database: &Database, stripe: &FakeStripe) -> Ended {
    command(&["catalog", "check"], database, stripe).run()
}

#[test]
fn a_catalog_that_is_stripes_is_well() {
    let database = Database::with_catalog();
    let stripe = FakeStripe::start();
    let mut known: Vec<String> =
        database.connect().column("select distinct price_id from billing.prices order by 1", &[]);
    stripe.knows_list("/v1/prices", prices());
    let ended = check_catalog(&database, &stripe);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    known.sort_unstable();
    assert_eq!(
        ended.stdout,
        format!("{} prices in the catalog, {} sold at Stripe\n", known.len(), known.len())
    );
}

#[test]
fn a_price_that_auto_top_up_cannot_charge_is_named() {
    let database = top_up_database("3 per month");
    let stripe = FakeStripe::start();
    let with = |changes: Value| {
        let mut theirs = prices();
        let pack = theirs.iter().position(|price| price["id"] == "price_pack").expect("there");
        let whole = json!({"currency": "usd", "unit_amount": 1000, "billing_scheme": "per_unit"});
        for fields in [whole, changes] {
            theirs[pack]
                .as_object_mut()
                .expect("a price")
                .extend(fields.as_object().expect("fields").clone());
        }
        stripe.knows_list("/v1/prices", theirs);
        check_catalog(&database, &stripe)
    };
    let good = with(json!({"tax_behavior": "inclusive"}));
    assert_eq!(good.code, Some(0), "{good:?}");
    let bad = with(json!({"tax_behavior": "exclusive"}));
    assert_eq!(bad.code, Some(1), "{bad:?}");
    let line = "price_pack  is what auto_top_up sells, and cannot be charged by itself: price_excludes_tax";
    assert!(bad.stdout.contains(line), "{bad:?}");
}

#[test]
fn each_price_on_which_the_two_differ_is_named() {
    let database = Database::with_catalog();
    let stripe = FakeStripe::start();
    let mut theirs = prices();
    let at = |id: &str, all: &[Value]| all.iter().position(|price| price["id"] == id).expect("there");
    theirs.remove(at("price_roll", &prices()));
    let max = at("price_max", &theirs);
    theirs[max] = price("price_max", "recurring", false);
    let pro = at("price_pro", &theirs);
    theirs[pro] = price("price_pro", "one_time", true);
    // In pages: a hundred more than the catalog knows.
    theirs.extend((0..100).map(|n| price(&format!("price_x{n:02}"), "one_time", true)));
    stripe.knows_list("/v1/prices", theirs);
    let ended = check_catalog(&database, &stripe);
    assert_eq!(ended.code, Some(1), "{ended:?}");
    for line in [
        "price_roll  is in the catalog, and Stripe has no such price",
        "price_max  is the plan max in the catalog, and archived at Stripe",
        "price_pro  is the plan pro in the catalog, and one_time at Stripe",
        "price_x99  is sold at Stripe, and the catalog does not know it",
    ] {
        assert!(ended.stdout.lines().any(|other| other == line), "{line}: {}", ended.stdout);
    }
    assert_eq!(ended.stdout.lines().count(), 104, "{}", ended.stdout);
    assert!(ended.stderr.contains("103"), "{ended:?}");
}

#[test]
fn a_pack_that_renews_is_right_and_pointed_out_unless_it_is_metered() {
    let database = Database::with_catalog();
    let stripe = FakeStripe::start();
    let mut theirs = prices();
    let pack = theirs.iter().position(|price| price["id"] == "price_pack").expect("there");
    let mut renewing = |usage: &str| {
        theirs[pack] = price("price_pack", "recurring", true);
        theirs[pack]["recurring"] = json!({"interval": "month", "interval_count": 1, "usage_type": usage});
        stripe.knows_list("/v1/prices", theirs.clone());
        check_catalog(&database, &stripe)
    };
    let is = "price_pack  is the pack pack_500 in the catalog, and";
    let well = renewing("licensed");
    assert_eq!(well.code, Some(0), "{well:?}");
    assert!(well.stdout.starts_with(&format!("{is} recurring at Stripe: each renewal grants")), "{well:?}");
    let metered = renewing("metered");
    assert_eq!(metered.code, Some(1), "{metered:?}");
    assert!(
        metered.stdout.starts_with(&format!("{is} metered at Stripe: usage grants nothing\n")),
        "{metered:?}"
    );
}

#[test]
fn what_fixed_worth_cannot_fit_is_named() {
    let database = Database::new();
    let stripe = FakeStripe::start();
    let mut document = stripe_credits_tests::catalog();
    document["plans"][1]["prices"] = json!([{"product": "prod_max"}]);
    document["plans"][2]["prices"] = json!([{"id": "price_roll", "every": "3 months"}]);
    database.connect().load_catalog(&document);
    let monthly = json!({"interval": "month", "interval_count": 1, "usage_type": "licensed"});
    let metered = json!({"interval": "month", "interval_count": 1, "usage_type": "metered"});
    let weekly = json!({"interval": "week", "interval_count": 2, "usage_type": "licensed"});
    let with = |id: &str, billing: &str, fields: Value| {
        let mut price = price(id, billing, true);
        price.as_object_mut().expect("an object").extend(fields.as_object().expect("fields").clone());
        price
    };
    stripe.knows_list(
        "/v1/prices",
        vec![
            with("price_pro", "recurring", json!({"recurring": metered})),
            with("price_pro_year", "recurring", json!({"recurring": weekly})),
            with("price_roll", "recurring", json!({"recurring": monthly})),
            with("price_max_1", "recurring", json!({"recurring": monthly, "product": "prod_max"})),
            with(
                "price_max_2",
                "recurring",
                json!({"recurring": monthly, "product": "prod_max", "tiers": [{"flat_amount": 0}, {"flat_amount": 500}]}),
            ),
            with(
                "price_max_3",
                "recurring",
                json!({
                    "recurring": monthly, "product": "prod_max",
                    "tiers": [{"flat_amount": null, "flat_amount_decimal": "0.5"}],
                }),
            ),
            with(
                "price_max_4",
                "recurring",
                json!({"recurring": monthly, "product": "prod_max", "unit_amount": 0}),
            ),
            with(
                "price_pack",
                "one_time",
                json!({"transform_quantity": {"divide_by": 5, "round": "up"}, "custom_unit_amount": {"minimum": 100}}),
            ),
            price("price_tshirt", "one_time", true),
        ],
    );
    let ended = check_catalog(&database, &stripe);
    assert_eq!(ended.code, Some(1), "{ended:?}");
    let mut findings: Vec<&str> = ended.stdout.lines().filter(|line| line.starts_with("price_")).collect();
    findings.sort_unstable();
    assert_eq!(
        findings,
        [
            "price_max_2  is the plan max in the catalog, and has a tier with a flat fee at Stripe, which is paid whatever \
             the quantity",
            "price_max_3  is the plan max in the catalog, and has a tier with a flat fee at Stripe, which is paid whatever \
             the quantity",
            "price_max_4  is the plan max in the catalog, and costs nothing at Stripe: a line of 0 is a trial or a gift, and \
             grants trial_credits at most",
            "price_pack  is the pack pack_500 in the catalog, and bills bundles at Stripe (transform_quantity), not pieces, \
             and lets buyers choose what they pay at Stripe",
            "price_pro  is the plan pro in the catalog, and metered at Stripe: usage grants nothing",
            "price_pro_year  is the plan pro in the catalog, and billed every 14 days at Stripe, every 12 months in the \
             catalog, and its parts of 1 months are longer than its interval at Stripe, 14 days",
            "price_roll  is the plan roll in the catalog, and billed every 1 months at Stripe, every 3 months in the catalog",
        ]
    );
}

#[test]
fn a_retired_price_may_be_archived_or_gone() {
    let database = Database::with_catalog();
    let stripe = FakeStripe::start();
    let mut books = database.connect();
    let mut smaller = stripe_credits_tests::catalog();
    smaller["packs"] = json!([]);
    books.load_catalog(&smaller);
    stripe
        .knows_list("/v1/prices", prices().into_iter().filter(|price| price["id"] != "price_pack").collect());
    assert_eq!(check_catalog(&database, &stripe).code, Some(0));
}

fn endpoint(url: &str, status: &str, enabled_events: &[&str]) -> Value {
    json!({"id": format!("we_{status}"), "object": "webhook_endpoint", "url": url, "status": status,
        "enabled_events": enabled_events, "livemode": false})
}

fn check_webhooks(stripe: &FakeStripe, arguments: &[&str]) -> Ended {
    Setup::command(&[&["webhooks", "check"], arguments].concat()).with_stripe(stripe).run()
}

#[test]
fn a_complete_endpoint_passes_and_an_incomplete_one_is_named_with_what_it_lacks() {
    let stripe = FakeStripe::start();
    let ours = "https://pay.example/webhooks/stripe";
    stripe.knows_list("/v1/webhook_endpoints", vec![endpoint(ours, "enabled", &["*"])]);
    let ended = check_webhooks(&stripe, &[]);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert_eq!(ended.stdout, format!("we_enabled  {ours}  sends all that is needed\n"));

    let poor = endpoint(ours, "enabled", &["checkout.session.completed", "invoice.paid"]);
    stripe
        .knows_list("/v1/webhook_endpoints", vec![endpoint("https://x.test/hooks", "enabled", &["*"]), poor]);
    let ended = check_webhooks(&stripe, &[]);
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(ended.stdout.contains("does not send charge.refunded"), "{ended:?}");
    assert!(!ended.stdout.contains("does not send invoice.paid"), "{ended:?}");
    assert_eq!(check_webhooks(&stripe, &["--url", "https://x.test/hooks"]).code, Some(0));

    stripe.knows_list("/v1/webhook_endpoints", vec![endpoint(ours, "disabled", &["*"])]);
    let ended = check_webhooks(&stripe, &[]);
    assert_eq!(
        (ended.code, ended.stdout.as_str()),
        (Some(1), &*format!("we_disabled  {ours}  is disabled\n"))
    );
}

#[test]
fn no_endpoint_at_all_is_named_too_and_a_key_that_stripe_refuses_exits_64() {
    let stripe = FakeStripe::start();
    let ended = check_webhooks(&stripe, &[]);
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(ended.stdout.contains("Stripe has no webhook endpoint at …/webhooks/stripe"), "{ended:?}");
    stripe.fail(Fault::Unauthorized);
    let ended = check_webhooks(&stripe, &[]);
    assert_eq!(ended.code, Some(64), "{ended:?}");
    assert!(ended.stderr.contains("STRIPE_SECRET_KEY"), "{ended:?}");
}
