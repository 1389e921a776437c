//! What may be bought, by the catalog alone; what Stripe is asked for it; and that a purchase so made is credited.

use std::collections::BTreeMap;

use proptest::prelude::*;
use serde_json::{Value, json};
use stripe_credits_tests::app::{CANCEL_URL, ORIGIN, RETURN_URL, STRIPE_FAULTS, app, subscribe};
use stripe_credits_tests::fake_stripe::{FakeStripe, Fault, RecordedRequest};
use stripe_credits_tests::shim::Shim;
use stripe_credits_tests::tokens::{Signer, claims, token};
use stripe_credits_tests::wire::Answer;
use stripe_credits_tests::{ANN, BOB, Database, Session, catalog, event, paid_pack, session};

const SESSIONS: &str = "POST /v1/checkout/sessions";

fn start(database: &Database, stripe: &FakeStripe) -> Shim {
    app(database, stripe).start()
}

fn buy(shim: &Shim, body: &Value) -> Answer {
    shim.post_as(ANN, "/checkout", body)
}

/// The form of the only checkout that was begun.
fn asked(stripe: &FakeStripe) -> BTreeMap<String, String> {
    let asked = stripe.asked();
    assert_eq!(asked.len(), 1, "{asked:#?}");
    assert_eq!(asked[0].line(), SESSIONS);
    assert_eq!(asked[0].version.as_deref(), Some("2025-03-31.basil"));
    assert!(asked[0].idempotency_key.as_ref().is_some_and(|key| !key.is_empty()));
    asked[0].form()
}

fn form(fields: &[(&str, &str)]) -> BTreeMap<String, String> {
    fields.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

#[test]
fn a_pack_is_bought_with_the_metadata_the_rules_read_and_credited_when_paid() {
    let database = Database::with_catalog();
    let stripe = FakeStripe::start();
    let shim = start(&database, &stripe);
    let mut books = database.connect();
    let answer = buy(&shim, &json!({"price_id": "price_pack", "quantity": 3}));
    assert_eq!(answer.status, 200, "{answer:?}");
    let (ann, email) = (ANN.to_string(), format!("{}@users.test", ANN.simple()));
    assert_eq!(
        asked(&stripe),
        form(&[
            ("mode", "payment"),
            ("line_items[0][price]", "price_pack"),
            ("line_items[0][quantity]", "3"),
            ("client_reference_id", &ann),
            ("metadata[user_id]", &ann),
            ("metadata[price_id]", "price_pack"),
            ("metadata[quantity]", "3"),
            ("metadata[fixed_lines]", "true"),
            ("metadata[pack_key]", "pack_500"),
            ("metadata[type]", "credit_pack"),
            ("metadata[userEmail]", &email),
            ("customer_email", &email),
            ("invoice_creation[enabled]", "true"),
            (
                "success_url",
                "https://app.test/billing?tab=credits&credits_checkout=success&session_id={CHECKOUT_SESSION_ID}"
            ),
            ("cancel_url", CANCEL_URL),
        ])
    );
    let session_id = answer.json()["session_id"].as_str().expect("a session id").to_owned();
    assert_eq!(answer.json()["url"], format!("https://checkout.stripe.test/c/pay/{session_id}"));
    assert_eq!(answer.json()["ok"], true);
    assert_eq!(books.balance(ANN), 0);
    let line = &shim.requests("/checkout", 1)[0];
    assert_eq!((&line["user_id"], &line["session_id"]), (&json!(ANN), &json!(session_id)));
    assert_eq!(line["price_id"], "price_pack");
    assert!(!shim.text().contains("@users.test"));

    // Stripe's page, paid: its webhook knows all without a question.
    let path = format!("/v1/checkout/sessions/{session_id}");
    let mut paid = stripe.object(&path).expect("the session that was made");
    paid["payment_status"] = json!("paid");
    paid["status"] = json!("complete");
    paid["payment_intent"] = json!("pi_1");
    paid["customer"] = json!("cus_ann");
    stripe.knows_at(&path, paid.clone());
    let completed = event("evt_1", "checkout.session.completed", paid);
    assert_eq!(shim.deliver(&completed).summary(), "200 applied");
    assert_eq!(stripe.asked().len(), 1);
    let back = shim.post_as(ANN, "/reconcile-stripe-credit-pack", &json!({"session_id": session_id}));
    assert_eq!(back.summary(), "200 already_applied");
    assert_eq!(books.ledger(ANN), ["purchase 1500"]);
    assert_eq!(books.balance(ANN), 1500);
}

#[test]
fn a_plan_is_bought_with_its_user_on_the_subscription() {
    let database = Database::with_catalog();
    let stripe = FakeStripe::start();
    let shim = start(&database, &stripe);
    assert_eq!(buy(&shim, &json!({"priceId": "price_pro"})).status, 200);
    let (ann, email) = (ANN.to_string(), format!("{}@users.test", ANN.simple()));
    assert_eq!(
        asked(&stripe),
        form(&[
            ("mode", "subscription"),
            ("line_items[0][price]", "price_pro"),
            ("line_items[0][quantity]", "1"),
            ("client_reference_id", &ann),
            ("metadata[user_id]", &ann),
            ("metadata[price_id]", "price_pro"),
            ("metadata[quantity]", "1"),
            ("metadata[fixed_lines]", "true"),
            ("metadata[plan_key]", "pro"),
            ("metadata[type]", "subscription"),
            ("metadata[userEmail]", &email),
            ("customer_email", &email),
            ("subscription_data[metadata][user_id]", &ann),
            ("subscription_data[metadata][plan_key]", "pro"),
            ("subscription_data[metadata][userEmail]", &email),
            (
                "success_url",
                "https://app.test/billing?tab=credits&checkout=success&session_id={CHECKOUT_SESSION_ID}"
            ),
            ("cancel_url", CANCEL_URL),
        ])
    );
}

#[test]
fn a_user_without_an_email_address_has_none_in_the_form() {
    let database = Database::with_catalog();
    let stripe = FakeStripe::start();
    let shim = start(&database, &stripe);
    let mut claims = claims(ANN);
    claims["email"] = json!("");
    let body = br#"{"price_id":"price_pack"}"#;
    assert_eq!(shim.bearing("POST", "/checkout", &Signer::secret().sign(&claims), body).status, 200);
    let form = asked(&stripe);
    assert!(!form.contains_key("customer_email") && !form.contains_key("metadata[userEmail]"));
}

#[test]
fn a_known_customer_is_used_again_but_not_one_that_a_buyers_link_claims() {
    let database = Database::with_catalog();
    let stripe = FakeStripe::start();
    let shim = start(&database, &stripe);
    let by_link = session("cs_1")
        .with("client_reference_id", ANN.to_string())
        .with("customer", "cus_of_a_stranger")
        .metadata("price_id", "price_pack");
    assert_eq!(shim.deliver(&by_link.completed("evt_1")).summary(), "200 applied");
    assert_eq!(shim.post_as(ANN, "/portal", &json!({})).summary(), "409 no_customer");
    assert_eq!(buy(&shim, &json!({"price_id": "price_pack"})).status, 200);
    assert!(!asked(&stripe).contains_key("customer"));

    let own = paid_pack("cs_2", ANN).with("customer", "cus_ann");
    assert_eq!(shim.deliver(&own.completed("evt_2")).summary(), "200 applied");
    assert_eq!(buy(&shim, &json!({"price_id": "price_pack"})).status, 200);
    let form = stripe.asked()[1].form();
    assert_eq!(form["customer"], "cus_ann");
    assert!(!form.contains_key("customer_email"), "Stripe takes only one of the two");
}

#[test]
fn scenario_13c_a_price_not_on_sale_is_400_invalid_price_and_stripe_is_not_asked() {
    let database = Database::with_catalog();
    let stripe = FakeStripe::start();
    let shim = start(&database, &stripe);
    let mut books = database.connect();
    let mut document = catalog();
    document["plans"].as_array_mut().expect("plans").remove(1);
    books.load_catalog(&document);
    subscribe(&mut books, ANN, "sub_1");
    let long = "p".repeat(300);
    for price in [
        "price_nowhere",
        "price_max",
        "price_tshirt",
        "",
        " ",
        "price\u{0}",
        "price_pack ",
        "PRICE_PACK",
        &long,
    ] {
        for path in ["/checkout", "/subscription/change", "/subscription/preview-change"] {
            let answer = shim.post_as(ANN, path, &json!({"price_id": price}));
            assert_eq!(answer.summary(), "400 INVALID_PRICE", "{path} {price:?}");
        }
    }
    // A pack is no plan.
    for path in ["/subscription/change", "/subscription/preview-change"] {
        assert_eq!(
            shim.post_as(ANN, path, &json!({"price_id": "price_pack"})).summary(),
            "400 INVALID_PRICE"
        );
    }
    assert_eq!(stripe.asked(), []);
    assert!(shim.metric("stripe_credits_requests_total", &[("reason", "INVALID_PRICE")]) > 0);
    assert_eq!(buy(&shim, &json!({"price_id": "price_pack"})).status, 200);
}

#[test]
fn a_price_that_only_its_product_puts_on_sale_is_sold() {
    let database = Database::new();
    let mut document = catalog();
    document["plans"][0]["prices"] = json!([{"product": "prod_pro"}, "price_pro_old"]);
    document["packs"][0]["prices"] = json!([{"product": "prod_pack"}]);
    let mut books = database.connect();
    books.load_catalog(&document);
    document["plans"][0]["prices"] = json!([{"product": "prod_pro"}]);
    books.load_catalog(&document);
    let stripe = FakeStripe::start();
    stripe.sells(&[
        ("price_pro", "prod_pro", 10_000, "month"),
        ("price_pro_old", "prod_pro", 9_000, "month"),
        ("gold plan", "prod_pro", 20_000, "month"),
        ("price_other", "prod_other", 10_000, "month"),
        ("price_pack_monthly", "prod_pack", 1_000, "month"),
        ("price_archived", "prod_pro", 10_000, "month"),
    ]);
    let once = json!({"id": "price_pack", "object": "price", "active": true, "product": "prod_pack",
        "type": "one_time", "recurring": null});
    stripe.knows_at("/v1/prices/price_pack", once);
    stripe.knows_at("/v1/prices/gold%20plan", stripe.object("/v1/prices/gold plan").expect("it is sold"));
    let mut archived = stripe.object("/v1/prices/price_archived").expect("it was sold");
    archived["active"] = json!(false);
    stripe.knows_at("/v1/prices/price_archived", archived);
    let shim = start(&database, &stripe);
    let modes =
        [("price_pro", "subscription"), ("price_pro_old", "subscription"), ("gold plan", "subscription")];
    for (price, mode) in modes.into_iter().chain([("price_pack", "payment")]) {
        assert_eq!(buy(&shim, &json!({"price_id": price})).status, 200, "{price}");
        let form = stripe.asked().last().expect("asked").form();
        assert_eq!((&*form["mode"], &*form["line_items[0][price]"]), (mode, price));
    }
    let asked = stripe.asked().len();
    for price in
        ["price_other", "price_pack_monthly", "price_archived", "price_nowhere", "../refunds", "price?x"]
    {
        assert_eq!(buy(&shim, &json!({"price_id": price})).summary(), "400 INVALID_PRICE", "{price}");
    }
    let read: Vec<String> = stripe.asked()[asked..].iter().map(RecordedRequest::line).collect();
    assert!(read.iter().all(|line| line.starts_with("GET /v1/prices/") && !line.contains('?')), "{read:?}");
    // What would lead out of its path is not asked.
    assert_eq!(read.len(), 5);
    stripe.fail(Fault::Cut);
    assert_eq!(buy(&shim, &json!({"price_id": "price_pro"})).summary(), "502 stripe_unreachable");
}

#[test]
fn before_there_is_a_catalog_every_price_is_invalid() {
    let database = Database::new();
    let stripe = FakeStripe::start();
    let shim = start(&database, &stripe);
    assert_eq!(buy(&shim, &json!({"price_id": "price_pack"})).summary(), "400 INVALID_PRICE");
}

#[test]
fn an_invalid_quantity_is_400() {
    let database = Database::with_catalog();
    let stripe = FakeStripe::start();
    let shim = start(&database, &stripe);
    for quantity in
        [json!(0), json!(-1), json!(1.5), json!("2"), json!(10_001), json!(1e300), json!(null), json!([1])]
    {
        let answer = buy(&shim, &json!({"price_id": "price_pack", "quantity": quantity}));
        assert_eq!(answer.summary(), "400 malformed_request", "{quantity}");
    }
    assert_eq!(buy(&shim, &json!({"price_id": ["price_pack"]})).summary(), "400 malformed_request");
    assert_eq!(buy(&shim, &json!({})).summary(), "400 malformed_request");
    assert_eq!(stripe.asked(), []);
}

#[test]
fn what_a_client_adds_of_its_own_changes_nothing() {
    let database = Database::with_catalog();
    let stripe = FakeStripe::start();
    let shim = start(&database, &stripe);
    let body = json!({
        "price_id": "price_pack", "user_id": BOB, "userId": BOB, "customer": "cus_of_bob", "mode": "subscription",
        "success_url": "https://evil.test", "cancel_url": "https://evil.test", "credits": 1_000_000,
        "metadata": {"user_id": BOB}, "discounts": [{"coupon": "free"}],
    });
    assert_eq!(buy(&shim, &body).status, 200);
    let form = asked(&stripe);
    let text = format!("{form:?}");
    assert!(
        !text.contains(&BOB.to_string()) && !text.contains("evil") && !text.contains("cus_of_bob"),
        "{text}"
    );
    assert!(!text.contains("coupon") && !text.contains("1000000"), "{text}");
}

#[test]
fn a_user_with_a_plan_can_buy_packs_but_no_second_plan() {
    let database = Database::with_catalog();
    let stripe = FakeStripe::start();
    let shim = start(&database, &stripe);
    subscribe(&mut database.connect(), ANN, "sub_1");
    assert_eq!(buy(&shim, &json!({"price_id": "price_max"})).summary(), "409 already_subscribed");
    assert_eq!(stripe.asked(), []);
    assert_eq!(buy(&shim, &json!({"price_id": "price_pack"})).status, 200);
}

#[test]
fn the_same_key_of_one_user_for_the_same_thing_is_one_checkout() {
    let database = Database::with_catalog();
    let stripe = FakeStripe::start();
    let shim = start(&database, &stripe);
    let with_key = |user, key: &str, body: &Value| {
        let bearer = format!("Bearer {}", token(user));
        let headers = [("Authorization", &*bearer), ("Idempotency-Key", key), ("Origin", ORIGIN)];
        shim.ask("POST", "/checkout", &headers, body.to_string().as_bytes())
    };
    let pack = json!({"price_id": "price_pack"});
    let session = |answer: Answer| answer.json()["session_id"].as_str().expect("a session id").to_owned();
    let first = session(with_key(ANN, "click-1", &pack));
    assert_eq!(session(with_key(ANN, "click-1", &pack)), first);
    assert_ne!(session(with_key(ANN, "click-2", &pack)), first);
    assert_ne!(session(with_key(BOB, "click-1", &pack)), first);
    assert_ne!(session(with_key(ANN, "click-1", &json!({"price_id": "price_pack", "quantity": 2}))), first);
    assert_ne!(session(buy(&shim, &pack)), session(buy(&shim, &pack)));
    for wrong in ["", &"k".repeat(256), "\u{e9}"] {
        assert_eq!(with_key(ANN, wrong, &pack).summary(), "400 malformed_request", "{wrong:?}");
    }
    let keys: Vec<_> = stripe.asked().into_iter().filter_map(|asked| asked.idempotency_key).collect();
    assert!(
        keys.iter().all(|key| !key.contains("click")),
        "a client's key is worth nothing by itself: {keys:?}"
    );
}

#[test]
fn scenario_34_while_stripe_fails_checkout_says_so_and_a_retry_works() {
    let database = Database::with_catalog();
    let stripe = FakeStripe::start();
    let shim = start(&database, &stripe);
    let mut books = database.connect();
    let before = books.everything();
    for (fault, expected) in STRIPE_FAULTS.into_iter().chain([(Fault::Missing, "502 stripe_not_found")]) {
        stripe.fail(fault);
        let answer = buy(&shim, &json!({"price_id": "price_pack"}));
        assert_eq!(answer.summary(), expected, "{fault:?}");
        assert_eq!(answer.status == 503, answer.headers.contains_key("retry-after"), "{fault:?}");
    }
    stripe.recover();
    assert_eq!(buy(&shim, &json!({"price_id": "price_pack"})).status, 200);
    assert_eq!(books.everything(), before, "a checkout that is begun is nothing yet");
    let errors = shim.requests("/checkout", 10);
    assert!(
        errors[5]["error"].as_str().is_some_and(|error| error.contains("parameter_invalid_empty")),
        "{errors:#?}"
    );
}

#[test]
fn the_portal_opens_for_the_own_customer_and_leads_back() {
    let database = Database::with_catalog();
    let stripe = FakeStripe::start();
    let shim = start(&database, &stripe);
    let portal = |user, body: &[u8]| shim.bearing("POST", "/portal", &token(user), body);
    assert_eq!(portal(ANN, b"").summary(), "409 no_customer");
    assert_eq!(stripe.asked(), []);
    let bought: Session = paid_pack("cs_1", ANN).with("customer", "cus_ann");
    assert_eq!(shim.deliver(&bought.completed("evt_1")).summary(), "200 applied");
    for body in [&b""[..], b"{}", b" \n", br#"{"customer":"cus_of_bob","return_url":"https://evil.test"}"#] {
        let answer = portal(ANN, body);
        assert_eq!(answer.status, 200, "{answer:?}");
        assert!(
            answer.json()["url"].as_str().is_some_and(|url| url.starts_with("https://billing.stripe.test/"))
        );
    }
    for asked in stripe.asked() {
        assert_eq!(asked.line(), "POST /v1/billing_portal/sessions");
        assert_eq!(asked.form(), form(&[("customer", "cus_ann"), ("return_url", RETURN_URL)]));
        assert!(asked.idempotency_key.is_some());
    }
    assert_eq!(portal(BOB, b"").summary(), "409 no_customer");
    stripe.fail(Fault::Failing);
    assert_eq!(portal(ANN, b"").summary(), "502 stripe_failed");
}

/// What a client may send: mostly nonsense, sometimes with the right names.
fn bodies() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        Just("\"price_pack\"".to_owned()),
        Just("\"price_pro\"".to_owned()),
        any::<i64>().prop_map(|number| number.to_string()),
        "\"[a-z_\\\\{}&=]{0,20}\"".prop_map(|text| text),
        Just("null".to_owned()),
    ];
    let field = (
        prop_oneof![Just("price_id"), Just("priceId"), Just("quantity"), Just("session_id"), Just("x")],
        leaf,
    )
        .prop_map(|(name, value)| format!("\"{name}\":{value}"));
    prop_oneof![
        prop::collection::vec(field, 0..4).prop_map(|fields| format!("{{{}}}", fields.join(","))),
        ".{0,40}",
    ]
}

#[test]
fn no_body_makes_anything_but_a_checkout_of_what_is_on_sale_or_a_refusal() {
    let database = Database::with_catalog();
    let stripe = FakeStripe::start();
    let shim = start(&database, &stripe);
    let token = token(ANN);
    let config = ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() };
    proptest!(config, |(body in bodies())| {
        let answer = shim.bearing("POST", "/checkout", &token, body.as_bytes());
        prop_assert!(matches!(answer.status, 200 | 400), "{}: {:?}", body, answer);
    });
    for asked in stripe.asked() {
        let form = asked.form();
        assert!(matches!(form["line_items[0][price]"].as_str(), "price_pack" | "price_pro"), "{form:?}");
        assert_eq!(form["metadata[user_id]"], ANN.to_string());
    }
}
