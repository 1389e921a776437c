//! examples/return-flow/pricing.html in a real browser: what is on sale, what it costs, and the way to a checkout.

use serde_json::{Value, json};
use stripe_credits_tests::app::{app, command};
use stripe_credits_tests::browser::Browser;
use stripe_credits_tests::fake_stripe::FakeStripe;
use stripe_credits_tests::pages::Pages;
use stripe_credits_tests::shim::until;
use stripe_credits_tests::tokens::token;
use stripe_credits_tests::{ANN, Database, catalog};

#[test]
fn the_pricing_page_shows_what_is_on_sale_and_opens_a_checkout() {
    let (database, stripe, pages) = (Database::with_catalog(), FakeStripe::start(), Pages::start());
    let price = |id: &str, currency: &str, amount: u32, recurring: Value| {
        let object = json!({"id": id, "object": "price", "currency": currency, "unit_amount": amount,
            "recurring": recurring});
        stripe.knows_at(&format!("/v1/prices/{id}"), object);
    };
    price("price_pack", "eur", 900, Value::Null);
    price("price_pro", "usd", 2950, json!({"interval": "month", "interval_count": 1}));
    price("price_pro_year", "jpy", 30_000, json!({"interval": "year", "interval_count": 1}));
    let document = catalog().to_string();
    let pushed = command(&["catalog", "push", "-"], &database, &stripe).with_stdin(&document).run();
    assert_eq!(pushed.code, Some(0), "{pushed:?}");
    let shim = app(&database, &stripe).with("CORS_ORIGINS", &pages.origin()).start();
    pages.configure(&format!("http://{}", shim.address()));
    let browser = Browser::start();
    let tab = browser.tab();
    tab.open(&pages.url("/pricing.html"));

    // Who is not signed in sees it too, and signs in to buy.
    tab.click("Buy 500 credits: €9.00");
    tab.is_at(&pages.url("/sign-in.html?return_to="));
    tab.sign_in(&token(ANN));
    tab.is_at(&pages.url("/pricing.html"));
    until("the page is drawn", || tab.text().contains("500 credits"));
    let text = tab.text();
    for shown in ["Pro", "10,000 credits", "$29.50 a month", "¥30,000 a year", "See the price at checkout"] {
        assert!(text.contains(shown), "{shown}: {text}");
    }
    tab.click("Buy 500 credits: €9.00");
    until("a checkout is opened", || {
        shim.metric("stripe_credits_requests_total", &[("route", "/checkout")]) == 1
    });
    let opened = &shim.requests("/checkout", 1)[0];
    assert_eq!((&opened["user_id"], &opened["price_id"]), (&json!(ANN), &json!("price_pack")));
}
