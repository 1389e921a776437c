//! Changes to a subscription: what Stripe is asked for, previews by the same form, schedules, and nothing twice.

use std::sync::Barrier;
use std::thread;

use serde_json::{Value, json};
use stripe_credits_tests::app::{STRIPE_FAULTS, app, subscribe};
use stripe_credits_tests::fake_stripe::{FakeStripe, Fault, RecordedRequest};
use stripe_credits_tests::shim::Shim;
use stripe_credits_tests::stripe::CREATED;
use stripe_credits_tests::wire::Answer;
use stripe_credits_tests::{ANN, BOB, Database, catalog};

const PATH: &str = "/v1/subscriptions/sub_1";
const DAY: i64 = 86_400;
/// A time of Stripe's clock in the subscription's period.
const IN_PERIOD: &str = "Thu, 09 Oct 2025 10:10:20 GMT";
const A_MINUTE_LATER: &str = "Thu, 09 Oct 2025 10:11:20 GMT";

/// Ann's subscription, in the books and at Stripe.
fn subscribed(stripe: &FakeStripe) -> Database {
    subscribed_to(stripe, "price_pro")
}

fn subscribed_to(stripe: &FakeStripe, price: &str) -> Database {
    let database = Database::with_catalog();
    subscribe(&mut database.connect(), ANN, "sub_1");
    stripe.sells(&[
        ("price_pro", "prod_pro", 10_000, "month"),
        ("price_pro_year", "prod_pro", 120_000, "year"),
        ("price_max", "prod_max", 30_000, "month"),
        ("price_roll", "prod_roll", 1_000, "month"),
        ("price_seats", "prod_seats", 500, "month"),
    ]);
    stripe.set_date(IN_PERIOD);
    let mut item = item("si_1", price, 1);
    item["price"] = stripe.object(&format!("/v1/prices/{price}")).expect("it is sold");
    stripe.knows_subscription(at_stripe(&json!([item])));
    database
}

fn at_stripe(items: &Value) -> Value {
    json!({
        "id": "sub_1", "object": "subscription", "status": "active", "customer": "cus_ann", "livemode": false,
        "cancel_at_period_end": false, "cancel_at": null, "latest_invoice": "in_1", "pending_update": null,
        "schedule": null, "test_clock": null, "currency": "usd", "created": CREATED,
        "metadata": {"user_id": ANN}, "items": {"object": "list", "has_more": false, "data": items},
    })
}

fn item(id: &str, price: &str, quantity: u32) -> Value {
    json!({
        "id": id, "object": "subscription_item", "quantity": quantity, "price": {"id": price, "object": "price"},
        "current_period_start": CREATED, "current_period_end": CREATED + 2_592_000,
    })
}

fn change(shim: &Shim, body: &Value) -> Answer {
    shim.post_as(ANN, "/subscription/change", body)
}

/// What was posted, without what was read or previewed.
fn posted(stripe: &FakeStripe) -> Vec<RecordedRequest> {
    let is_preview = |asked: &RecordedRequest| asked.path.ends_with("/create_preview");
    stripe.asked().into_iter().filter(|asked| asked.method == "POST" && !is_preview(asked)).collect()
}

fn previewed(stripe: &FakeStripe) -> Vec<RecordedRequest> {
    stripe.asked().into_iter().filter(|asked| asked.path.ends_with("/create_preview")).collect()
}

/// The changes that were posted, without the metadata that follow them.
fn changes(stripe: &FakeStripe) -> Vec<RecordedRequest> {
    posted(stripe).into_iter().filter(|asked| asked.body.contains("items")).collect()
}

fn fields(asked: &RecordedRequest) -> Vec<(String, String)> {
    asked.form().into_iter().collect()
}

fn named(fields: &[(&str, &str)]) -> Vec<(String, String)> {
    fields.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

fn price_at_stripe(stripe: &FakeStripe) -> Value {
    stripe.object(PATH).expect("the subscription")["items"]["data"][0]["price"]["id"].clone()
}

/// What an answer says beside the credits, which plan_changes.rs holds to what is then posted.
fn without_credits(answer: &Answer) -> Value {
    assert_eq!(answer.status, 200, "{answer:?}");
    let mut json = answer.json();
    for name in ["credits_now", "credits_after", "debt_after"] {
        let value = json.as_object_mut().and_then(|json| json.remove(name));
        assert!(value.is_some_and(|value| value.is_i64()), "{name}: {answer:?}");
    }
    json
}

/// [`IN_PERIOD`], and the beginning of its minute.
const NOW: i64 = 1_760_004_620;
const MINUTE: &str = "1760004600";
const PERIOD_END: i64 = CREATED + 2_592_000;

#[test]
fn an_upgrade_is_billed_at_once_from_a_new_anchor_and_granted_by_the_webhook() {
    let stripe = FakeStripe::start();
    let database = subscribed(&stripe);
    let shim = app(&database, &stripe).start();
    let mut books = database.connect();
    let before = books.everything();
    let answer = change(&shim, &json!({"price_id": "price_max"}));
    assert_eq!(
        without_credits(&answer),
        json!({"ok": true, "status": "changed", "subscription_id": "sub_1", "price_id": "price_max", "quantity": 1,
            "direction": "up", "takes_effect_at": NOW, "billed_at": NOW, "hosted_invoice_url": null})
    );
    let [asked, metadata] = &posted(&stripe)[..] else { panic!("{:?}", stripe.asked()) };
    assert_eq!(asked.line(), format!("POST {PATH}"));
    assert_eq!(
        fields(asked),
        named(&[
            ("billing_cycle_anchor", "now"),
            ("expand[]", "latest_invoice"),
            ("items[0][id]", "si_1"),
            ("items[0][price]", "price_max"),
            ("items[0][quantity]", "1"),
            ("payment_behavior", "pending_if_incomplete"),
            ("proration_behavior", "always_invoice"),
            ("proration_date", MINUTE),
        ])
    );
    assert_eq!((metadata.line(), fields(metadata)), (asked.line(), named(&[("metadata[plan_key]", "max")])));
    assert!(stripe.asked().iter().all(|asked| asked.version.as_deref() == Some("2025-03-31.basil")));
    assert_eq!(price_at_stripe(&stripe), "price_max");
    assert_eq!(books.everything(), before);
}

#[test]
fn the_plans_key_is_written_once_and_the_change_does_not_depend_on_it() {
    let stripe = FakeStripe::start();
    let database = subscribed(&stripe);
    let shim = app(&database, &stripe).start();
    // After the subscription, the price, the preview and the change.
    stripe.fail_after(4, Fault::Failing);
    assert_eq!(change(&shim, &json!({"price_id": "price_max"})).json()["status"], "changed");
    assert_eq!(posted(&stripe).len(), 2);
    stripe.recover();
    stripe.set_date(A_MINUTE_LATER);
    assert_eq!(change(&shim, &json!({"price_id": "price_max", "quantity": 2})).json()["status"], "changed");
    assert_eq!(stripe.object(PATH).expect("the subscription")["metadata"]["plan_key"], "max");
    assert_eq!(change(&shim, &json!({"price_id": "price_max", "quantity": 3})).json()["status"], "changed");
    assert_eq!(posted(&stripe).len(), 5, "it is known by then");
}

#[test]
fn a_longer_interval_is_billed_at_once_also_with_fewer_credits() {
    for (from, to, direction) in
        [("price_pro", "price_pro_year", "same"), ("price_max", "price_pro_year", "down")]
    {
        let stripe = FakeStripe::start();
        let database = subscribed_to(&stripe, from);
        let shim = app(&database, &stripe).start();
        let answer = change(&shim, &json!({"price_id": to})).json();
        assert_eq!(
            (&answer["status"], &answer["direction"]),
            (&json!("changed"), &json!(direction)),
            "{from}"
        );
        let form = changes(&stripe)[0].form();
        assert_eq!((&*form["billing_cycle_anchor"], &*form["proration_behavior"]), ("now", "always_invoice"));
    }
}

#[test]
fn fewer_credits_at_one_interval_cost_nothing_now_and_give_nothing_back() {
    let stripe = FakeStripe::start();
    let database = subscribed_to(&stripe, "price_max");
    let shim = app(&database, &stripe).start();
    let roll = json!({"price_id": "price_roll"});
    let expected = json!({"ok": true, "price_id": "price_roll", "quantity": 1, "direction": "down",
        "takes_effect_at": NOW, "billed_at": PERIOD_END, "currency": "usd", "subtotal": 0, "total": 0,
        "amount_due": 0, "lines": []});
    assert_eq!(without_credits(&shim.post_as(ANN, "/subscription/preview-change", &roll)), expected);
    assert_eq!(previewed(&stripe), []);
    let answer = change(&shim, &roll).json();
    assert_eq!((&answer["status"], &answer["billed_at"]), (&json!("changed"), &json!(PERIOD_END)));
    let asked = posted(&stripe);
    assert_eq!(asked.len(), 1, "{asked:?}");
    assert_eq!(
        fields(&asked[0]),
        named(&[
            ("expand[]", "latest_invoice"),
            ("items[0][id]", "si_1"),
            ("items[0][price]", "price_roll"),
            ("items[0][quantity]", "1"),
            ("metadata[plan_key]", "roll"),
            ("proration_behavior", "none"),
        ])
    );
    assert_eq!(price_at_stripe(&stripe), "price_roll");
    assert_eq!(stripe.object(PATH).expect("the subscription")["latest_invoice"], "in_1");
}

#[test]
fn in_a_trial_nothing_is_billed_before_it_ends() {
    let stripe = FakeStripe::start();
    let database = subscribed(&stripe);
    let mut trial = stripe.object(PATH).expect("the subscription");
    trial["status"] = json!("trialing");
    stripe.knows_subscription(trial);
    let shim = app(&database, &stripe).start();
    for price in ["price_max", "price_pro_year", "price_pro"] {
        let answer = change(&shim, &json!({"price_id": price})).json();
        assert_eq!(
            (&answer["status"], &answer["billed_at"]),
            (&json!("changed"), &json!(PERIOD_END)),
            "{price}"
        );
    }
    assert_eq!(previewed(&stripe), []);
    assert!(posted(&stripe).iter().all(|asked| asked.form()["proration_behavior"] == "none"));
}

#[test]
fn a_change_that_the_card_does_not_pay_is_not_made_and_says_where_to_pay() {
    let stripe = FakeStripe::start();
    let database = subscribed(&stripe);
    let shim = app(&database, &stripe).start();
    stripe.decline_cards();
    let answer = change(&shim, &json!({"price_id": "price_max"}));
    assert_eq!(answer.status, 200);
    let json = answer.json();
    assert_eq!((&json["ok"], &json["status"]), (&json!(false), &json!("payment_required")));
    let url = &json["hosted_invoice_url"];
    assert!(url.as_str().is_some_and(|url| url.starts_with("https://invoice.stripe.test/")));
    assert_eq!(price_at_stripe(&stripe), "price_pro");
    // The same again is the invoice that is open, another choice is another one.
    stripe.set_date(A_MINUTE_LATER);
    let again = change(&shim, &json!({"price_id": "price_max"})).json();
    for name in ["status", "hosted_invoice_url", "credits_now", "credits_after"] {
        assert_eq!(again[name], json[name], "{name}");
    }
    assert_eq!(posted(&stripe).len(), 1);
    let other = change(&shim, &json!({"price_id": "price_max", "quantity": 2})).json();
    assert_eq!(other["status"], "payment_required");
    assert_ne!(&other["hosted_invoice_url"], url);
}

#[test]
fn a_change_to_the_current_plan_bills_nothing_and_another_quantity_is_a_change() {
    let stripe = FakeStripe::start();
    let database = subscribed(&stripe);
    let shim = app(&database, &stripe).start();
    let answer = change(&shim, &json!({"price_id": "price_pro"}));
    assert_eq!((answer.status, &answer.json()["status"]), (200, &json!("unchanged")));
    assert_eq!(posted(&stripe), []);
    assert_eq!((&answer.json()["direction"], &answer.json()["credits_now"]), (&json!("same"), &json!(0)));
    assert_eq!(change(&shim, &json!({"price_id": "price_pro", "quantity": 2})).json()["status"], "changed");
    assert_eq!(posted(&stripe)[0].form()["items[0][quantity]"], "2");
}

#[test]
fn two_clicks_are_one_change_and_a_change_back_and_forth_is_three() {
    let stripe = FakeStripe::start();
    let database = subscribed(&stripe);
    let shim = app(&database, &stripe).start();
    let barrier = Barrier::new(4);
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                barrier.wait();
                assert_eq!(change(&shim, &json!({"price_id": "price_max"})).status, 200);
            });
        }
    });
    let keys = || {
        let mut keys: Vec<_> =
            changes(&stripe).into_iter().filter_map(|asked| asked.idempotency_key).collect();
        assert_eq!(keys.len(), changes(&stripe).len());
        keys.sort();
        keys.dedup();
        keys.len()
    };
    assert_eq!(keys(), 1);
    // Down costs nothing, and up again is another change.
    assert_eq!(change(&shim, &json!({"price_id": "price_pro"})).json()["status"], "changed");
    assert_eq!(change(&shim, &json!({"price_id": "price_max"})).json()["status"], "changed");
    assert_eq!(keys(), 3);
    assert_eq!(price_at_stripe(&stripe), "price_max");
}

#[test]
fn scenario_34_a_change_whose_answer_is_lost_is_made_once_when_it_is_sent_again() {
    let stripe = FakeStripe::start();
    let database = subscribed(&stripe);
    let shim = app(&database, &stripe).start();
    let max = json!({"price_id": "price_max"});
    // Stripe repeats a failure under its key: that is the next test.
    for (fault, expected) in STRIPE_FAULTS.into_iter().filter(|(fault, _)| *fault != Fault::Failing) {
        // After the subscription, the price and the preview, the change fails.
        stripe.fail_after(3, fault);
        assert_eq!(change(&shim, &max).summary(), expected, "{fault:?}");
        stripe.recover();
        stripe.fail(fault);
        assert!(matches!(change(&shim, &max).status, 502 | 503), "{fault:?}");
        stripe.recover();
        assert_eq!(price_at_stripe(&stripe), "price_pro", "{fault:?}");
    }
    assert_eq!(change(&shim, &max).json()["status"], "changed");
    let mut keys: Vec<_> = changes(&stripe).into_iter().filter_map(|asked| asked.idempotency_key).collect();
    assert_eq!(keys.len(), 8);
    keys.dedup();
    assert_eq!(keys.len(), 1, "all were one change");
}

#[test]
fn a_failed_change_can_be_retried_though_stripe_repeats_the_failure_of_a_key() {
    for (fault, expected) in [(Fault::Declined, "402 stripe_declined"), (Fault::Failing, "502 stripe_failed")]
    {
        let stripe = FakeStripe::start();
        let database = subscribed(&stripe);
        let shim = app(&database, &stripe).start();
        let max = json!({"price_id": "price_max"});
        stripe.fail_after(3, fault);
        assert_eq!(change(&shim, &max).summary(), expected);
        stripe.recover();
        assert_eq!(change(&shim, &max).summary(), expected, "the same click");
        // Another card, a minute later.
        stripe.set_date(A_MINUTE_LATER);
        assert_eq!(change(&shim, &max).json()["status"], "changed", "{fault:?}");
        assert_eq!(price_at_stripe(&stripe), "price_max");
    }
}

#[test]
fn a_preview_asks_for_what_a_change_would_do_and_changes_nothing() {
    let stripe = FakeStripe::start();
    let database = subscribed(&stripe);
    let shim = app(&database, &stripe).start();
    let before = stripe.object(PATH);
    let answer = shim.post_as(ANN, "/subscription/preview-change", &json!({"price_id": "price_max"}));
    // Of thirty days a bit more than an hour is over.
    assert_eq!(
        without_credits(&answer),
        json!({
            "ok": true, "price_id": "price_max", "quantity": 1, "currency": "usd",
            "direction": "up", "takes_effect_at": NOW, "billed_at": NOW, "proration_date": NOW - 20,
            "subtotal": 20_018, "total": 20_018, "amount_due": 20_018,
            "lines": [
                {"description": "Unused time", "amount": -9_982},
                {"description": "Remaining time", "amount": 30_000},
            ],
        })
    );
    let asked = &previewed(&stripe)[0];
    assert_eq!(
        fields(asked),
        named(&[
            ("subscription", "sub_1"),
            ("subscription_details[billing_cycle_anchor]", "now"),
            ("subscription_details[items][0][id]", "si_1"),
            ("subscription_details[items][0][price]", "price_max"),
            ("subscription_details[items][0][quantity]", "1"),
            ("subscription_details[proration_behavior]", "always_invoice"),
            ("subscription_details[proration_date]", MINUTE),
        ])
    );
    assert_eq!(posted(&stripe), []);
    assert_eq!(stripe.object(PATH), before);
    stripe.fail_after(1, Fault::Failing);
    let answer = shim.post_as(ANN, "/subscription/preview-change", &json!({"price_id": "price_max"}));
    assert_eq!(answer.summary(), "502 stripe_failed");
}

#[test]
fn a_change_is_prorated_as_its_preview_was_if_that_is_recent() {
    let stripe = FakeStripe::start();
    let database = subscribed(&stripe);
    let shim = app(&database, &stripe).start();
    let at = |date: i64| json!({"price_id": "price_max", "proration_date": date});
    for wrong in [NOW + 1, NOW - 15 * 60 - 1, CREATED - 1, 0] {
        assert_eq!(change(&shim, &at(wrong)).summary(), "409 preview_expired", "{wrong}");
    }
    assert_eq!(change(&shim, &at(-1)).summary(), "400 malformed_request");
    assert_eq!(posted(&stripe), []);
    assert_eq!(change(&shim, &at(NOW - 600)).json()["status"], "changed");
    assert_eq!(previewed(&stripe)[0].form()["subscription_details[proration_date]"], (NOW - 600).to_string());
    assert_eq!(posted(&stripe)[0].form()["proration_date"], (NOW - 600).to_string());
}

#[test]
fn of_several_items_the_chosen_price_is_changed_or_else_the_plan() {
    let stripe = FakeStripe::start();
    let database = subscribed(&stripe);
    let mut document = catalog();
    document["plans"][2]["prices"] = json!(["price_roll", "price_seats"]);
    database.connect().load_catalog(&document);
    let items = json!([item("si_seats", "price_seats", 4), item("si_plan", "price_pro", 1)]);
    stripe.knows_subscription(at_stripe(&items));
    let shim = app(&database, &stripe).start();
    assert_eq!(change(&shim, &json!({"price_id": "price_seats", "quantity": 5})).status, 200);
    assert_eq!(changes(&stripe)[0].form()["items[0][id]"], "si_seats");
    assert_eq!(change(&shim, &json!({"price_id": "price_max"})).status, 200);
    assert_eq!(changes(&stripe)[1].form()["items[0][id]"], "si_plan");

    stripe.knows_subscription(at_stripe(&json!([item("si_a", "price_a", 1), item("si_b", "price_b", 1)])));
    assert_eq!(change(&shim, &json!({"price_id": "price_max"})).summary(), "409 no_subscription");
}

/// Ann's yearly subscription, and the answer to her choice of the same plan by the month.
fn year_to_month(stripe: &FakeStripe, shim: &Shim) -> Value {
    let answer = without_credits(&change(shim, &json!({"price_id": "price_pro"})));
    assert!(!stripe.object(PATH).expect("the subscription")["schedule"].is_null());
    answer
}

#[test]
fn a_shorter_interval_waits_for_the_periods_end_in_one_schedule() {
    let stripe = FakeStripe::start();
    let database = subscribed_to(&stripe, "price_pro_year");
    let shim = app(&database, &stripe).start();
    let preview = shim.post_as(ANN, "/subscription/preview-change", &json!({"price_id": "price_pro"}));
    assert_eq!(
        without_credits(&preview),
        json!({"ok": true, "price_id": "price_pro", "quantity": 1, "direction": "same",
            "takes_effect_at": PERIOD_END, "billed_at": PERIOD_END, "currency": "usd",
            "subtotal": 0, "total": 0, "amount_due": 0, "lines": []})
    );
    assert_eq!((&preview.json()["credits_now"], &preview.json()["credits_after"]), (&json!(0), &json!(500)));
    assert_eq!(posted(&stripe), []);
    let scheduled = json!({"ok": true, "status": "scheduled", "subscription_id": "sub_1", "price_id": "price_pro",
        "quantity": 1, "direction": "same", "takes_effect_at": PERIOD_END, "billed_at": PERIOD_END,
        "hosted_invoice_url": null});
    assert_eq!(year_to_month(&stripe, &shim), scheduled);
    let [made, phases] = &posted(&stripe)[..] else { panic!("{:?}", stripe.asked()) };
    assert_eq!(made.line(), "POST /v1/subscription_schedules");
    assert_eq!(fields(made), named(&[("from_subscription", "sub_1")]));
    let (start, end) = (CREATED.to_string(), PERIOD_END.to_string());
    assert_eq!(
        fields(phases),
        named(&[
            ("end_behavior", "release"),
            ("phases[0][discounts][0][discount]", "di_1"),
            ("phases[0][end_date]", &end),
            ("phases[0][items][0][price]", "price_pro_year"),
            ("phases[0][items][0][quantity]", "1"),
            ("phases[0][start_date]", &start),
            ("phases[1][billing_cycle_anchor]", "phase_start"),
            ("phases[1][discounts][0][discount]", "di_1"),
            ("phases[1][items][0][price]", "price_pro"),
            ("phases[1][items][0][quantity]", "1"),
            ("phases[1][iterations]", "1"),
            ("phases[1][metadata][plan_key]", "pro"),
            ("phases[1][proration_behavior]", "none"),
        ])
    );
    // Asking again, later too, makes no other one.
    stripe.set_date(A_MINUTE_LATER);
    assert_eq!(year_to_month(&stripe, &shim), scheduled);
    assert_eq!(posted(&stripe).len(), 2);
    assert_eq!(price_at_stripe(&stripe), "price_pro_year");
}

#[test]
fn another_choice_releases_the_schedule() {
    for (choice, status) in [
        (json!({"price_id": "price_pro_year"}), "unchanged"),
        (json!({"price_id": "price_pro_year", "quantity": 2}), "changed"),
        (json!({"price_id": "price_max"}), "changed"),
        (json!({"price_id": "price_roll"}), "scheduled"),
    ] {
        let stripe = FakeStripe::start();
        let database = subscribed_to(&stripe, "price_pro_year");
        let shim = app(&database, &stripe).start();
        year_to_month(&stripe, &shim);
        assert_eq!(change(&shim, &choice).json()["status"], status, "{choice}");
        let released = &posted(&stripe)[2];
        assert!(released.line().ends_with("/release"), "{choice}: {released:?}");
        let schedule = &stripe.object(PATH).expect("the subscription")["schedule"];
        assert_eq!(schedule.is_null(), status != "scheduled", "{choice}");
    }
}

#[test]
fn a_cancellation_releases_the_schedule_and_what_ends_is_not_scheduled() {
    let stripe = FakeStripe::start();
    let database = subscribed_to(&stripe, "price_pro_year");
    let shim = app(&database, &stripe).start();
    year_to_month(&stripe, &shim);
    let canceled = shim.post_as(ANN, "/subscription/cancel", &json!({})).json();
    assert_eq!(canceled["cancel_at_period_end"], true, "{canceled}");
    let made = posted(&stripe).len();
    for path in ["/subscription/change", "/subscription/preview-change"] {
        let answer = shim.post_as(ANN, path, &json!({"price_id": "price_pro"}));
        assert_eq!(answer.summary(), "409 subscription_ends", "{path}");
    }
    assert_eq!(posted(&stripe).len(), made);
}

#[test]
fn clicks_at_once_make_one_schedule() {
    let stripe = FakeStripe::start();
    let database = subscribed_to(&stripe, "price_pro_year");
    let shim = app(&database, &stripe).start();
    let barrier = Barrier::new(4);
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                barrier.wait();
                assert_eq!(change(&shim, &json!({"price_id": "price_pro"})).json()["status"], "scheduled");
            });
        }
    });
    let made = posted(&stripe).into_iter().filter(|asked| asked.path == "/v1/subscription_schedules");
    let mut keys: Vec<_> = made.map(|asked| asked.idempotency_key).collect();
    keys.dedup();
    assert_eq!(keys.len(), 1);
}

#[test]
fn a_schedule_that_was_left_half_made_is_made_anew() {
    let stripe = FakeStripe::start();
    let database = subscribed_to(&stripe, "price_pro_year");
    let shim = app(&database, &stripe).start();
    // After the subscription, the price and the schedule, the phases fail.
    stripe.fail_after(3, Fault::Cut);
    assert_eq!(change(&shim, &json!({"price_id": "price_pro"})).summary(), "502 stripe_unreachable");
    stripe.recover();
    year_to_month(&stripe, &shim);
    let schedule = stripe.object(PATH).expect("the subscription")["schedule"].clone();
    let path = format!("/v1/subscription_schedules/{}", schedule.as_str().expect("an id"));
    let schedule = stripe.object(&path).expect("the schedule");
    assert_eq!(schedule["phases"][1]["items"][0]["price"], "price_pro", "{schedule}");
}

#[test]
fn a_customer_on_a_test_clock_is_prorated_by_it() {
    let stripe = FakeStripe::start();
    let database = subscribed(&stripe);
    let mut clocked = stripe.object(PATH).expect("the subscription");
    clocked["test_clock"] = json!("clock_1");
    stripe.knows_subscription(clocked);
    let frozen = CREATED + 10 * DAY;
    let clock = json!({"id": "clock_1", "object": "test_helpers.test_clock", "frozen_time": frozen});
    stripe.knows_at("/v1/test_helpers/test_clocks/clock_1", clock);
    let shim = app(&database, &stripe).start();
    let preview = shim.post_as(ANN, "/subscription/preview-change", &json!({"price_id": "price_max"})).json();
    assert_eq!(preview["proration_date"], frozen - frozen % 60, "{preview}");
}

#[test]
fn a_subscription_that_stripe_gives_to_another_user_is_not_this_users() {
    let stripe = FakeStripe::start();
    let database = subscribed(&stripe);
    let mut moved = stripe.object(PATH).expect("the subscription");
    moved["metadata"]["user_id"] = json!(BOB);
    stripe.knows_subscription(moved);
    let shim = app(&database, &stripe).start();
    for path in ["/subscription/change", "/subscription/preview-change", "/subscription/cancel"] {
        let answer = shim.post_as(ANN, path, &json!({"price_id": "price_max"}));
        assert_eq!(answer.summary(), "409 no_subscription", "{path}");
    }
    assert_eq!((posted(&stripe), previewed(&stripe)), (vec![], vec![]));
}

#[test]
fn a_cancellation_waits_for_the_periods_end() {
    let stripe = FakeStripe::start();
    let database = subscribed(&stripe);
    let shim = app(&database, &stripe).start();
    let cancel = || shim.post_as(ANN, "/subscription/cancel", &json!({}));
    for _ in 0..2 {
        assert_eq!(
            cancel().json(),
            json!({
                "ok": true, "subscription_id": "sub_1", "cancel_at_period_end": true,
                "cancel_at": PERIOD_END,
            })
        );
    }
    let asked = posted(&stripe);
    assert_eq!(asked.len(), 2);
    assert_eq!((asked[0].line(), &*asked[0].body), (format!("POST {PATH}"), "cancel_at_period_end=true"));
    // A user may renew in the portal and cancel again the same day: the old answer must not be repeated.
    assert_ne!(asked[0].idempotency_key, asked[1].idempotency_key);
    stripe.fail(Fault::Cut);
    assert_eq!(cancel().summary(), "502 stripe_unreachable");
}

#[test]
fn a_user_without_a_live_subscription_changes_none_not_even_another_users() {
    let stripe = FakeStripe::start();
    let database = subscribed(&stripe);
    let shim = app(&database, &stripe).start();
    let body = json!({"price_id": "price_max", "subscription_id": "sub_1", "customer": "cus_ann"});
    for path in ["/subscription/change", "/subscription/preview-change", "/subscription/cancel"] {
        assert_eq!(shim.post_as(BOB, path, &body).summary(), "409 no_subscription", "{path}");
    }
    assert_eq!(stripe.asked(), []);
    database.connect().run(
        "update billing.subscriptions set status = 'unpaid';
         update billing.accounts set tier = 'free', subscription_status = 'unpaid'",
    );
    assert_eq!(change(&shim, &body).summary(), "409 no_subscription");
    assert_eq!(stripe.asked(), []);
}

#[test]
fn a_subscription_that_has_ended_at_stripe_is_none_whatever_the_books_say() {
    let stripe = FakeStripe::start();
    let database = subscribed(&stripe);
    let shim = app(&database, &stripe).start();
    for status in ["canceled", "incomplete", "incomplete_expired", "unpaid", "paused"] {
        let mut ended = at_stripe(&json!([item("si_1", "price_pro", 1)]));
        ended["status"] = json!(status);
        stripe.knows_subscription(ended);
        assert_eq!(
            change(&shim, &json!({"price_id": "price_max"})).summary(),
            "409 no_subscription",
            "{status}"
        );
    }
    stripe.fail(Fault::Missing);
    assert_eq!(change(&shim, &json!({"price_id": "price_max"})).summary(), "409 no_subscription");
    assert_eq!(shim.post_as(ANN, "/subscription/cancel", &json!({})).summary(), "409 no_subscription");
}
