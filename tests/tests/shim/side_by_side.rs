//! An app on a database that takes no extension: a day of it, with everything that the books beside it do for the app.

use serde_json::{Value, json};
use stripe_credits_tests::app::{SERVICE_TOKEN, app};
use stripe_credits_tests::console::Support;
use stripe_credits_tests::fake_stripe::FakeStripe;
use stripe_credits_tests::mirror::{init, until_equal};
use stripe_credits_tests::shim::{Shim, until};
use stripe_credits_tests::tokens::token;
use stripe_credits_tests::top_ups::{catalog_with_top_up, customer, customer_of};
use stripe_credits_tests::{ANN, Connection, Database, paid_pack};

use crate::events::{Receiver, listen, next_event, telling};

/// What the pack costs, in cents.
const CENTS: i64 = 1999;

/// What Ann reads in the app's own database, as its row level security lets her.
fn reads(app: &Database) -> Vec<i64> {
    let mut client: Connection = app.connect_as("authenticated");
    client.run(&format!("set request.jwt.claims = '{{\"sub\": \"{ANN}\"}}'"));
    client.column("select credits_balance from billing_mirror.user_credits", &[])
}

/// The app's server spends, as its edge function would.
fn spends(shim: &Shim, amount: u32, request_id: &str) -> Value {
    let answer = shim.serve("spend", &json!({"user": ANN, "amount": amount, "request_id": request_id}));
    assert_eq!(answer.summary(), "200 applied", "{answer:?}");
    answer.json()["remaining_total"].clone()
}

#[test]
fn a_day_of_an_app_whose_database_takes_no_extension() {
    let (books, own, stripe, receiver) =
        (Database::new(), Database::empty(), FakeStripe::start(), Receiver::start());
    let mut catalog = catalog_with_top_up("3 per month");
    catalog["low_credits"] = json!([300]);
    books.connect().load_catalog(&catalog);
    init(&own.url());
    stripe.sells_once("price_pack", CENTS);
    let customer = customer(ANN);
    stripe.knows_customer(&customer, Some("pm_visa"), &[]);
    let shim = telling(app(&books, &stripe), &receiver)
        .with("SERVICE_TOKEN", SERVICE_TOKEN)
        .with("MIRROR_DATABASE_URL", &own.url())
        .with("CONSOLE", "on")
        .start();
    let told = |told: &str| {
        until(told, || receiver.events().iter().any(|event| event["type"] == told));
        receiver.events().into_iter().find(|event| event["type"] == told).expect("it was told")
    };

    // Ann is signed in, opens a checkout and waits on the page for what she buys.
    let (mut page, _) = listen(&shim, &token(ANN), &[]);
    let opened = shim.post_as(ANN, "/checkout", &json!({"price_id": "price_pack"}));
    assert_eq!(opened.status, 200, "{opened:?}");
    shim.deliver(&customer_of(&customer, ANN));
    let session = opened.json()["session_id"].as_str().expect("an id").to_owned();
    shim.deliver(&paid_pack(&session, ANN).with("customer", customer.as_str()).completed("evt_paid"));
    let (_, shown) = next_event(&mut page);
    assert_eq!((&shown["type"], &shown["data"]["credits"]), (&json!("credits.granted"), &json!(500)));
    until("the app's own database shows it", || reads(&own) == [500]);

    // A spend leaves little, and the app is told so.
    assert_eq!(spends(&shim, 250, "job-1"), 250);
    assert_eq!(told("credits.low")["data"]["threshold"], 300);

    // Ann allows auto top-up; the next spend leaves too little, and her card is charged once.
    let allowed = shim.serve("auto-top-up", &json!({"user": ANN, "enabled": true}));
    assert_eq!(allowed.status, 200, "{allowed:?}");
    assert_eq!(spends(&shim, 200, "job-2"), 50);
    until("the card is charged", || books.connect().top_ups(ANN) == ["paid"]);
    for event in stripe.events() {
        assert_eq!(shim.deliver(&event).status, 200);
    }
    assert_eq!(told("top_up.succeeded")["data"]["credits"], 500);
    until("the app's own database shows it", || reads(&own) == [550]);
    let charged: Vec<Value> = stripe.payment_intents().iter().map(|made| made["amount"].clone()).collect();
    assert_eq!(charged, [CENTS]);

    // One picture was blurred: support finds Ann by what Stripe's receipt says, and gives its credits back.
    let support = Support::signed_in(shim.operators_address(), SERVICE_TOKEN);
    assert!(support.page(&session).contains(&ANN.to_string()));
    let query = format!("{customer}&refund=job-2");
    let form = support.get(&format!("/console?q={query}")).body;
    let fields = support.fill(&form, "/console/refund", &[("amount", "20"), ("reason", "a blurred picture")]);
    assert!(support.press("/console/refund", &fields).contains("Gave back 20 credits of job-2"));
    until_equal(&mut books.connect(), &mut own.connect(), 0);
    assert_eq!(reads(&own), [570]);
    let mut books = books.connect();
    assert_eq!(
        books.ledger(ANN),
        ["purchase 500", "spend -250", "spend -200", "purchase 500", "spend_refund 20"]
    );
    assert_eq!(books.faults(), [""; 0]);
}
