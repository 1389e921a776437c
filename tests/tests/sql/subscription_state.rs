//! A subscription's state and the order of its snapshots: as of when, two of one second, final ends, missing periods, unknown prices and users, by events and by SQL.

use serde_json::{Value, json};
use stripe_credits_tests::permutations::orders;
use stripe_credits_tests::stripe::CREATED;
use stripe_credits_tests::subscription::{
    PRO, fetched, invoice, line, month, period, renewal, subscribing, subscription,
};
use stripe_credits_tests::{ANN, BOB, Connection, Database, Event, catalog, nothing_fetched};

/// What names a user, and its name in the tests' messages.
type Naming<'a> = (&'a str, Box<dyn Fn(&mut Connection)>);

/// Subscriptions without when anything became known.
fn rows(c: &mut Connection) -> Vec<String> {
    c.subscribed_state().into_iter().filter(|row| row.starts_with("subscription ")).collect()
}

/// The catalog with one more plan, new, of rank 5.
fn with_new_plan() -> Value {
    let mut catalog = catalog();
    let plan = json!({"key": "new", "name": "New", "rank": 5, "credits": 7_000, "prices": ["price_new"]});
    catalog["plans"].as_array_mut().expect("plans").push(plan);
    catalog
}

fn price_of(c: &mut Connection) -> String {
    c.known("sub_1").expect("it is known")
}

const DIRECT: &str =
    "apply_subscription_state($1, 'pro', 'cus_1', 'sub_1', 'price_pro', to_timestamp($2::bigint),
    to_timestamp($3::bigint), 'evt_direct', 'in_0')";

// 21: missing periods.

#[test]
fn an_item_list_that_goes_on_is_fetched() {
    let db = Database::with_catalog();
    let mut c = db.connect();
    let mut event = subscription("sub_1", "price_pro").of(ANN).created("evt_1").json().clone();
    event["data"]["object"]["items"]["has_more"] = true.into();
    event["data"]["object"]["items"]["data"][0]["id"] = "si_1".into();
    let outcome = c.apply_json(&event);
    assert_eq!(outcome.outcome, "needs_fetch");
    let paths = ["/v1/subscriptions/sub_1", "/v1/subscription_items?subscription=sub_1&limit=100"];
    assert_eq!(outcome.to_fetch, Some(paths.map(str::to_owned).to_vec()));
}

#[test]
fn scenario_21_a_subscription_without_a_period_is_fetched_and_stored_with_one() {
    let db = Database::with_catalog();
    let mut c = db.connect();
    let whole = subscription("sub_1", "price_pro").of(ANN);
    let bare = whole.clone().without_period().created("evt_created");
    let asked = c.apply(&bare);
    assert_eq!(asked.summary(), "needs_fetch");
    assert_eq!(asked.to_fetch, Some(vec!["/v1/subscriptions/sub_1".into()]));
    assert_eq!((c.known("sub_1"), c.inbox("evt_created").as_deref()), (None, Some("needs_fetch")));
    assert_eq!(c.apply(&bare).summary(), "needs_fetch", "never short-circuited by its id");
    assert_eq!(c.apply_fetched(&bare, &fetched(CREATED + 3, &[whole.json()])).summary(), "applied");
    let stored: String = c.one(
        "select concat_ws(' ', extract(epoch from current_period_start)::bigint,
                extract(epoch from current_period_end)::bigint, extract(epoch from as_of)::bigint)
         from billing.subscriptions",
        &[],
    );
    assert_eq!(stored, format!("{} {} {}", CREATED, month(1), CREATED + 3));
    assert_eq!(c.tier(ANN), "pro active");
    assert_eq!(c.apply(&bare).summary(), "already_applied");
}

#[test]
fn scenario_21_without_an_answer_it_is_parked_and_never_stored_with_nulls() {
    let db = Database::with_catalog();
    let mut c = db.connect();
    let whole = subscription("sub_1", "price_pro").of(ANN);
    let bare = whole.clone().without_period();
    assert_eq!(c.apply_fetched(&bare.created("evt_1"), &nothing_fetched()).summary(), "parked unfetched");
    let lacking = fetched(CREATED + 3, &[bare.json()]);
    assert_eq!(c.apply_fetched(&bare.created("evt_2"), &lacking).summary(), "parked shape");
    let other = fetched(CREATED + 3, &[subscription("sub_other", "price_pro").json()]);
    assert_eq!(c.apply_fetched(&bare.created("evt_3"), &other).summary(), "parked shape");
    assert_eq!((c.known("sub_1"), c.tier(ANN)), (None, "free none".into()));
    assert_eq!(
        c.apply_fetched(&bare.created("evt_1"), &fetched(CREATED + 3, &[whole.json()])).summary(),
        "applied"
    );
    assert_eq!(c.tier(ANN), "pro active");
}

#[test]
fn scenario_21_the_end_of_a_subscription_that_is_known_needs_no_period() {
    let db = Database::with_catalog();
    let mut c = db.connect();
    let whole = subscription("sub_1", "price_pro").of(ANN);
    c.apply(&whole.created("evt_1"));
    assert_eq!(c.apply(&whole.without_period().deleted("evt_2", CREATED + 9)).summary(), "applied");
    assert_eq!((price_of(&mut c), c.tier(ANN)), ("price_pro pro canceled".into(), "free canceled".into()));
}

#[test]
fn both_shapes_of_the_api_leave_the_same_row() {
    let db = Database::with_catalog();
    let mut c = db.connect();
    let newer = subscription("sub_1", "price_pro")
        .of(ANN)
        .trial(period(0))
        .items(&[("price_pro", 2)])
        .during(period(0));
    let mut ends = Vec::new();
    for state in [newer.clone(), newer.older()] {
        c.run("begin");
        assert_eq!(c.apply(&state.created("evt_1")).summary(), "applied");
        ends.push(rows(&mut c));
        assert_eq!(c.apply(&state.event("evt_2", "trial_will_end", CREATED)).summary(), "already_applied");
        c.run("rollback");
    }
    assert_eq!(ends[0], ends[1]);
}

// 22: unknown prices.

#[test]
fn scenario_22_an_unknown_plan_price_is_stored_parked_and_healed_by_load_catalog() {
    let db = Database::with_catalog();
    let mut c = db.connect();
    let state = subscription("sub_1", "price_new").of(ANN);
    let parked = c.apply(&state.created("evt_created"));
    assert_eq!(parked.summary(), "parked unknown_price");
    assert_eq!(
        parked.details.as_ref().map(|details| details["missing_prices"].clone()),
        Some(json!(["price_new"]))
    );
    assert_eq!(price_of(&mut c), "price_new Unknown (price_new) active");
    assert_eq!(c.tier(ANN), "Unknown (price_new) active");
    let paid = renewal("in_0", "sub_1", ("price_new", 7_000), 0).paid("evt_paid");
    assert_eq!(c.apply(&paid).summary(), "parked unknown_price");
    assert_eq!(c.ledger(ANN), [""; 0]);
    db.check_books();
    assert_eq!(c.load_catalog(&with_new_plan())["price_new"], "added");
    assert_eq!((price_of(&mut c), c.tier(ANN)), ("price_new new active".into(), "new active".into()));
    assert_eq!(c.ledger(ANN), ["subscription_grant 7000"]);
    assert_eq!(
        c.inbox("evt_created").as_deref().map(|outcome| outcome.split(' ').next().unwrap()),
        Some("applied")
    );
    assert_eq!(c.inbox("evt_paid").as_deref(), Some("applied"));
    assert_eq!(c.apply(&paid).summary(), "already_applied");
}

#[test]
fn scenario_22_in_every_order_with_the_catalog_between_it_comes_to_the_same() {
    let db = Database::with_catalog();
    let mut c = db.connect();
    let created = subscription("sub_1", "price_new").of(ANN).created("evt_created");
    let next = subscription("sub_1", "price_new").of(ANN).status("past_due").updated("evt_next", CREATED + 9);
    let paid = renewal("in_0", "sub_1", ("price_new", 7_000), 0).of(ANN).paid("evt_paid");
    let mut first = None;
    for order in orders(4) {
        c.run("begin");
        for step in order.iter().flat_map(|step| [step, step]) {
            match step {
                0 => drop(c.apply(&created)),
                1 => drop(c.apply(&next)),
                2 => drop(c.apply(&paid)),
                _ => drop(c.load_catalog(&with_new_plan())),
            }
        }
        assert_eq!((c.balance(ANN), c.tier(ANN)), (7_000, "new past_due".into()), "{order:?}");
        let end = c.subscribed_state();
        assert_eq!(first.get_or_insert_with(|| end.clone()), &end, "{order:?}");
        c.run("rollback");
    }
}

#[test]
fn a_retired_price_that_changes_in_the_catalog_changes_what_its_subscribers_tier_is() {
    let db = Database::with_catalog();
    let mut c = db.connect();
    c.apply(&subscription("sub_1", "price_pro").of(ANN).created("evt_1"));
    let mut renamed = catalog();
    renamed["plans"][0]["key"] = "professional".into();
    c.load_catalog(&renamed);
    assert_eq!(
        (price_of(&mut c), c.tier(ANN)),
        ("price_pro pro active".into(), "pro active".into()),
        "a price resolves to what was in force when the period began"
    );
}

#[test]
fn a_subscription_to_a_price_without_credits_is_ignored() {
    let db = Database::with_catalog();
    let mut c = db.connect();
    let state = subscription("sub_1", "price_tshirt").of(ANN);
    assert_eq!(c.apply(&state.created("evt_1")).summary(), "ignored not_credits");
    assert_eq!((c.known("sub_1"), c.tier(ANN)), (None, "free none".into()));
}

#[test]
fn of_several_items_the_plan_of_the_highest_rank_names_the_tier() {
    let db = Database::with_catalog();
    let mut c = db.connect();
    for (n, items) in [
        [("price_pro", 1), ("price_max", 1)],
        [("price_max", 1), ("price_pro", 1)],
        [("price_tshirt", 1), ("price_max", 1)],
    ]
    .into_iter()
    .enumerate()
    {
        c.run("begin");
        let state = subscription("sub_1", "price_pro").of(ANN).items(&items).during(period(0));
        assert_eq!(c.apply(&state.created(&format!("evt_{n}"))).summary(), "applied");
        assert_eq!(c.tier(ANN), "max active");
        c.run("rollback");
    }
}

// Users.

#[test]
fn events_of_an_unknown_user_wait_and_apply_by_themselves_whatever_names_the_user() {
    let db = Database::with_catalog();
    let mut c = db.connect();
    let created = subscription("sub_1", "price_pro").created("evt_created");
    let paid = renewal("in_0", "sub_1", PRO, 0).paid("evt_paid");
    let naming: Vec<Naming> = vec![
        (
            "a session's metadata",
            Box::new(|c| {
                c.apply(&subscribing("cs_1", "sub_1", "in_0").of(ANN).completed("evt_session"));
            }),
        ),
        (
            "the subscription's metadata, later",
            Box::new(|c| {
                c.apply(&subscription("sub_1", "price_pro").of(ANN).updated("evt_named", CREATED + 50));
            }),
        ),
        (
            "the next invoice's copy",
            Box::new(|c| {
                c.apply(&renewal("in_0", "sub_1", PRO, 0).of(ANN).event("evt_copy", "payment_succeeded"));
            }),
        ),
        (
            "attribute of the customer",
            Box::new(|c| {
                assert_eq!(c.attribute("cus_1", ANN).summary(), "applied");
            }),
        ),
        (
            "a pack of the same customer",
            Box::new(|c| {
                c.apply(
                    &stripe_credits_tests::paid_pack("cs_9", ANN)
                        .with("customer", "cus_1")
                        .completed("evt_pack"),
                );
            }),
        ),
        (
            "a direct call",
            Box::new(|c| {
                let (start, end) = period(0);
                c.call(DIRECT, &[&ANN, &start, &end]);
            }),
        ),
    ];
    for (by, name) in naming {
        c.run("begin");
        assert_eq!(c.apply(&created).summary(), "parked unknown_user");
        assert_eq!(c.apply(&paid).summary(), "parked unknown_user");
        assert_eq!(price_of(&mut c), "price_pro pro active", "{by}: the row is written");
        name(&mut c);
        assert_eq!(c.tier(ANN), "pro active", "{by}");
        let granted: Vec<String> =
            c.ledger(ANN).into_iter().filter(|row| row.starts_with("subscription_grant")).collect();
        assert_eq!(granted, ["subscription_grant 10000"], "{by}");
        let waiting: i64 = c.one(
            "select count(*) from billing.stripe_events where outcome in ('parked', 'needs_fetch')",
            &[],
        );
        assert_eq!(waiting, 0, "{by}");
        c.run("rollback");
    }
}

#[test]
fn a_session_attributed_by_hand_names_the_user_of_its_subscription() {
    let db = Database::with_catalog();
    let mut c = db.connect();
    let events = [
        subscription("sub_1", "price_pro").created("evt_created"),
        renewal("in_0", "sub_1", PRO, 0).paid("evt_paid"),
        subscribing("cs_1", "sub_1", "in_0").completed("evt_session"),
    ];
    for order in orders(3) {
        c.run("begin");
        for event in &order {
            c.apply(&events[*event]);
        }
        c.attribute("cs_1", ANN);
        assert_eq!((c.balance(ANN), c.tier(ANN)), (10_000, "pro active".into()), "{order:?}");
        c.run("rollback");
    }
}

#[test]
fn a_subscription_stays_its_users_whatever_a_later_customer_link_says() {
    let db = Database::with_catalog();
    let mut c = db.connect();
    c.apply(&subscription("sub_1", "price_pro").of(ANN).created("evt_1"));
    c.attribute("cus_1", BOB);
    c.apply(&subscription("sub_1", "price_pro").during(period(1)).updated("evt_2", month(1)));
    c.apply(&renewal("in_1", "sub_1", PRO, 1).paid("evt_3"));
    assert_eq!((c.balance(ANN), c.balance(BOB)), (10_000, 0));
    assert_eq!((c.tier(ANN), c.tier(BOB)), ("pro active".into(), "free none".into()));
}

// Order.

#[test]
fn older_states_are_stale_and_change_nothing() {
    let db = Database::with_catalog();
    let mut c = db.connect();
    let state = subscription("sub_1", "price_pro").of(ANN);
    c.apply(&state.clone().to("price_max").updated("evt_2", CREATED + 10));
    let before = (rows(&mut c), c.tier(ANN));
    assert_eq!(c.apply(&state.updated("evt_1", CREATED + 9)).summary(), "ignored stale");
    assert_eq!((rows(&mut c), c.tier(ANN)), before);
}

#[test]
fn a_canceled_subscription_is_not_resurrected_by_any_later_state() {
    let db = Database::with_catalog();
    let mut c = db.connect();
    let state = subscription("sub_1", "price_pro").of(ANN);
    for end in [
        state.deleted("evt_end", CREATED + 10),
        state
            .clone()
            .status("incomplete_expired")
            .with("ended_at", CREATED + 10)
            .updated("evt_end", CREATED + 10),
    ] {
        c.run("begin");
        c.apply(&end);
        let before = rows(&mut c);
        for at in [CREATED, CREATED + 10, CREATED + 20] {
            assert_eq!(
                c.apply(&state.updated(&format!("evt_{at}"), at)).summary(),
                "ignored stale",
                "at {at}"
            );
        }
        assert_eq!(rows(&mut c), before);
        assert!(c.tier(ANN).starts_with("free "));
        c.run("rollback");
    }
}

#[test]
fn two_states_of_one_second_ask_stripe_and_its_answer_stands_in_both_orders() {
    let db = Database::with_catalog();
    let mut c = db.connect();
    let incomplete = subscription("sub_1", "price_pro").of(ANN).status("incomplete").created("evt_1");
    let active = subscription("sub_1", "price_pro").of(ANN).updated("evt_2", CREATED);
    for truth in ["active", "incomplete", "past_due"] {
        let answer = subscription("sub_1", "price_pro").of(ANN).status(truth);
        let mut ends = Vec::new();
        for events in [[&incomplete, &active], [&active, &incomplete]] {
            c.run("begin");
            assert_eq!(c.apply(events[0]).summary(), "applied");
            let asked = c.apply(events[1]);
            assert_eq!(asked.summary(), "needs_fetch");
            assert_eq!(asked.to_fetch, Some(vec!["/v1/subscriptions/sub_1".into()]));
            c.apply_fetched(events[1], &fetched(CREATED + 2, &[answer.json()]));
            assert_eq!(price_of(&mut c), format!("price_pro pro {truth}"));
            ends.push(rows(&mut c));
            for event in events {
                c.apply(event);
            }
            assert_eq!(price_of(&mut c), format!("price_pro pro {truth}"), "the first pass again");
            c.run("rollback");
        }
        assert_eq!(ends[0], ends[1]);
    }
}

#[test]
fn an_answer_of_the_very_second_breaks_the_tie_too() {
    let db = Database::with_catalog();
    let mut c = db.connect();
    let state = subscription("sub_1", "price_pro").of(ANN);
    for truth in ["active", "incomplete"] {
        for events in [["incomplete", "active"], ["active", "incomplete"]] {
            c.run("begin");
            let [first, second] = events.map(|status| state.clone().status(status));
            c.apply(&first.created("evt_1"));
            let answer = fetched(CREATED, &[state.clone().status(truth).json()]);
            c.apply_fetched(&second.updated("evt_2", CREATED), &answer);
            assert_eq!(price_of(&mut c), format!("price_pro pro {truth}"), "{events:?}");
            c.run("rollback");
        }
    }
}

#[test]
fn without_an_answer_a_tie_breaks_the_same_way_in_every_order() {
    let db = Database::with_catalog();
    let mut c = db.connect();
    let state = subscription("sub_1", "price_pro").of(ANN);
    let events: Vec<Event> = vec![
        state.clone().status("incomplete").created("evt_1"),
        state.clone().updated("evt_2", CREATED),
        state.clone().to("price_max").updated("evt_3", CREATED),
        state.with("cancel_at_period_end", true).updated("evt_4", CREATED),
    ];
    let mut first = None;
    for order in orders(4) {
        c.run("begin");
        for event in order.iter().flat_map(|event| [event, event]) {
            let outcome = c.apply_fetched(&events[*event], &nothing_fetched());
            assert!(!["needs_fetch", "rejected"].contains(&outcome.outcome.as_str()), "{outcome:?}");
        }
        let end = rows(&mut c);
        assert_eq!(first.get_or_insert_with(|| end.clone()), &end, "{order:?}");
        assert!(c.tier(ANN).ends_with(" active"), "incomplete and active of one second are active");
        c.run("rollback");
    }
}

#[test]
fn an_answer_that_is_newer_than_an_event_makes_that_event_stale() {
    let db = Database::with_catalog();
    let mut c = db.connect();
    let state = subscription("sub_1", "price_pro").of(ANN);
    let bare = state.clone().without_period().created("evt_1");
    c.apply_fetched(&bare, &fetched(CREATED + 60, &[state.clone().to("price_max").json()]));
    assert_eq!(c.tier(ANN), "max active");
    assert_eq!(c.apply(&state.updated("evt_2", CREATED + 30)).summary(), "ignored stale");
    assert_eq!(c.tier(ANN), "max active");
}

// By SQL.

#[test]
fn a_subscription_by_sql_and_by_events_is_one_and_grants_once_in_every_order() {
    let db = Database::with_catalog();
    let mut c = db.connect();
    let created = subscription("sub_1", "price_pro").of(ANN).created("evt_created");
    let paid = renewal("in_0", "sub_1", PRO, 0).of(ANN).paid("evt_paid");
    let (start, end) = period(0);
    for call in [
        DIRECT,
        "apply_stripe_subscription_state($1, 'pro', 'cus_1', 'sub_1', 'price_pro',
            to_timestamp($2::bigint), to_timestamp($3::bigint), 'evt_direct', 'in_0')",
    ] {
        let mut first = None;
        for order in orders(3) {
            c.run("begin");
            for step in order.iter().flat_map(|step| [step, step]) {
                match step {
                    0 => drop(c.apply(&created)),
                    1 => drop(c.apply(&paid)),
                    _ if call == DIRECT => drop(c.call(call, &[&ANN, &start, &end])),
                    _ => {
                        let answer: Value = c.one(&format!("select billing.{call}"), &[&ANN, &start, &end]);
                        assert_eq!(
                            (&answer["ok"], &answer["remaining_monthly"]),
                            (&json!(true), &json!(10_000))
                        );
                        assert_eq!(answer["remaining_bonus"], 0);
                    }
                }
            }
            assert_eq!(c.ledger(ANN), ["subscription_grant 10000"], "{order:?}");
            assert_eq!(c.tier(ANN), "pro active");
            let end_state = c.subscribed_state();
            assert_eq!(first.get_or_insert_with(|| end_state.clone()), &end_state, "{order:?}");
            c.run("rollback");
        }
    }
}

#[test]
fn a_direct_call_says_what_changed_and_what_the_caller_was_wrong_about() {
    let db = Database::with_catalog();
    let mut c = db.connect();
    let (start, end) = period(0);
    let first = c.call(DIRECT, &[&ANN, &start, &end]);
    assert_eq!(
        (first.summary().as_str(), first.credits, first.tier.as_deref()),
        ("applied", 10_000, Some("pro"))
    );
    let again = c.call(DIRECT, &[&ANN, &start, &end]);
    assert_eq!((again.summary().as_str(), again.credits), ("already_applied", 0));
    let wrong = c.call(
        "apply_subscription_state($1, 'platinum', null, 'sub_1', 'price_pro', to_timestamp($2::bigint),
             to_timestamp($3::bigint), 'evt_2')",
        &[&ANN, &start, &end],
    );
    assert_eq!(wrong.tier.as_deref(), Some("pro"), "the catalog's word");
    let discrepancy = wrong.details.expect("details")["discrepancy"].clone();
    assert_eq!(discrepancy, json!({"p_tier": "platinum", "tier": "pro"}));
}

#[test]
fn a_direct_call_for_another_user_is_a_conflict_and_writes_nothing() {
    let db = Database::with_catalog();
    let mut c = db.connect();
    let (start, end) = period(0);
    c.call(DIRECT, &[&ANN, &start, &end]);
    let before = c.everything();
    assert_eq!(c.call(DIRECT, &[&BOB, &start, &end]).summary(), "rejected conflict");
    let other_sub = DIRECT.replace("sub_1", "sub_2");
    assert_eq!(
        c.call(&other_sub, &[&BOB, &start, &end]).summary(),
        "rejected conflict",
        "the invoice is ANN's"
    );
    assert_eq!(c.everything(), before);
}

#[test]
fn a_direct_call_for_an_unknown_price_is_rejected_and_heals_when_it_is_called_again() {
    let db = Database::with_catalog();
    let mut c = db.connect();
    let (start, end) = period(0);
    let call = DIRECT.replace("price_pro", "price_new");
    assert_eq!(c.call(&call, &[&ANN, &start, &end]).summary(), "rejected unknown_price");
    assert_eq!(c.ledger(ANN), [""; 0]);
    c.load_catalog(&with_new_plan());
    let outcome = c.call(&call, &[&ANN, &start, &end]);
    assert!(outcome.ok, "{outcome:?}");
    assert_eq!((c.ledger(ANN), c.tier(ANN)), (vec!["subscription_grant 7000".into()], "new active".into()));
}

#[test]
fn direct_calls_set_every_status_and_the_last_one_stands() {
    let db = Database::with_catalog();
    let mut c = db.connect();
    let (start, end) = period(0);
    let call = "apply_subscription_state($1, 'pro', 'cus_1', 'sub_1', 'price_pro', to_timestamp($2::bigint),
        to_timestamp($3::bigint), 'evt_direct', p_status => $4)";
    for (status, tier) in [
        ("incomplete", "free"),
        ("active", "pro"),
        ("past_due", "pro"),
        ("unpaid", "free"),
        ("paused", "free"),
        ("trialing", "pro"),
        ("canceled", "free"),
    ] {
        c.run("update billing.subscriptions set as_of = as_of - interval '1 minute'");
        c.call(call, &[&ANN, &start, &end, &status]);
        assert_eq!(c.tier(ANN), format!("{tier} {status}"));
    }
}

#[test]
fn two_direct_calls_within_one_second_leave_what_the_second_said() {
    let db = Database::with_catalog();
    let mut c = db.connect();
    let (start, end) = period(0);
    let call = "apply_subscription_state($1, 'pro', 'cus_1', 'sub_1', $4, to_timestamp($2::bigint),
        to_timestamp($3::bigint), 'evt_direct', p_status => $5)";
    c.call(call, &[&ANN, &start, &end, &"price_pro", &"active"]);
    c.call(call, &[&ANN, &start, &end, &"price_max", &"past_due"]);
    assert_eq!(c.tier(ANN), "max past_due");
    c.call(call, &[&ANN, &start, &end, &"price_pro", &"incomplete"]);
    assert_eq!(c.tier(ANN), "free incomplete");
}

// Explaining.

#[test]
fn explain_event_writes_nothing_and_shows_what_would_be_posted() {
    let db = Database::with_catalog();
    let mut c = db.connect();
    let state = subscription("sub_1", "price_pro").of(ANN);
    let trial = invoice("in_trial", "sub_9").of(ANN).line(line("price_pro", 0, period(0))).paid("evt_trial");
    let events = [
        (state.clone().without_period().created("evt_0"), "needs_fetch", json!([])),
        (state.created("evt_1"), "applied", json!([])),
        (trial, "ignored nothing_paid", json!([])),
        (renewal("in_0", "sub_1", PRO, 0).paid("evt_2"), "applied", json!(["subscription_grant 10000"])),
        (renewal("in_0", "sub_1", PRO, 0).paid("evt_3"), "already_applied", json!([])),
        (
            renewal("in_1", "sub_1", PRO, 1).paid("evt_4"),
            "applied",
            json!(["subscription_grant 10000", "set_aside -10000"]),
        ),
        (
            state.clone().to("price_roll").updated("evt_5", month(1) + 9),
            "applied",
            json!(["set_aside -9000"]),
        ),
        (state.clone().to("price_new").updated("evt_6", month(1) + 10), "parked unknown_price", json!([])),
        (state.deleted("evt_7", month(2)), "applied", json!(["restore 9000"])),
        (state.updated("evt_8", month(3)), "ignored stale", json!([])),
        (
            renewal("in_9", "sub_1", PRO, 2).unpaid("open").event("evt_9", "payment_failed"),
            "ignored unpaid",
            json!([]),
        ),
    ];
    for (event, expected, postings) in events {
        let before = c.everything();
        let explained = c.explain(&event);
        assert_eq!(c.everything(), before, "{}: explaining wrote something", event.id());
        let applied = c.apply(&event);
        assert_eq!(explained, applied, "{}", event.id());
        assert_eq!(explained.summary(), expected, "{}", event.id());
        let shown = explained.details.as_ref().and_then(|details| details["postings"].as_array().cloned());
        let shown: Vec<String> = shown
            .unwrap_or_default()
            .iter()
            .map(|row| format!("{} {}", row["transaction_type"].as_str().unwrap_or_default(), row["amount"]))
            .collect();
        if event.id() != "evt_7" && event.id() != "evt_6" {
            assert_eq!(json!(shown), postings, "{}", event.id());
        }
    }
}
