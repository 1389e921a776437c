//! Auto top-up: one request for a balance that ran low, in the transaction of the draw, and one payment for a request.

use serde_json::json;
use stripe_credits_tests::permutations::orders;
use stripe_credits_tests::refunds::refunded;
use stripe_credits_tests::top_ups::{catalog_with_top_up, customer, customer_of, intent_of, top_up_database};
use stripe_credits_tests::{ANN, BOB, Database, blocked, catalog, together, user};
use uuid::Uuid;

/// The number of a user's last request.
fn last(c: &mut stripe_credits_tests::Connection, user: Uuid) -> (Uuid, i64) {
    (user, c.one("select max(id) from billing.top_ups where user_id = $1", &[&user]))
}

// When a pack is requested.

#[test]
fn a_spend_that_leaves_too_few_credits_requests_a_pack_in_its_transaction() {
    let db = top_up_database("3 per month");
    let mut c = db.connect();
    c.allow_top_ups(ANN, 200);
    assert_eq!(c.spend(ANN, 100, "to 100").summary(), "applied");
    assert!(c.top_ups(ANN).is_empty(), "100 are not fewer than 100");
    c.run("begin");
    c.spend(ANN, 1, "rolled back");
    assert_eq!(c.top_ups(ANN), ["requested"]);
    c.run("rollback");
    assert!(c.top_ups(ANN).is_empty());

    assert_eq!(c.spend(ANN, 1, "to 99").summary(), "applied");
    assert_eq!(c.top_ups(ANN), ["requested"]);
    assert_eq!(c.told(ANN), ["credits.granted", "top_up.requested"]);
    let told = &c.told_data(ANN, "top_up.requested")[0];
    let expected = json!({
        "top_up_id": format!("{ANN}_2"), "pack": "pack_500", "stripe_price_id": "price_pack", "credits": 500,
        "stripe_payment_intent_id": null,
    });
    for (key, value) in expected.as_object().expect("an object") {
        assert_eq!(&told[key], value, "{key}");
    }
    assert_eq!(told["account"]["credits_balance"], 99);
    assert_eq!(c.spend(ANN, 1, "to 99").summary(), "already_applied");
    c.spend(ANN, 98, "to 1");
    c.spend(ANN, 1, "to 0");
    assert_eq!(c.spend(ANN, 1, "too much").summary(), "rejected insufficient_credits");
    assert_eq!(c.top_ups(ANN), ["requested"], "one is open");
    assert!(c.faults().is_empty());
}

#[test]
fn a_reservation_asks_too_and_what_nobody_drew_does_not() {
    let db = top_up_database("3 per month");
    let mut c = db.connect();
    c.allow_top_ups(ANN, 200);
    c.adjust(ANN, -150, "correction");
    assert!(c.top_ups(ANN).is_empty(), "a correction is no use");
    c.reserve(ANN, 10, "job");
    assert_eq!(c.top_ups(ANN), ["requested"], "though it crosses nothing: there are too few");
    c.commit(ANN, "job", Some(5));

    c.allow_top_ups(BOB, 10_000);
    c.buy(BOB, "cs_1");
    c.spend(BOB, 10_000, "all but the pack");
    c.apply(&refunded("re_1", "pi_1", 1000));
    assert_eq!(c.balance(BOB), 0);
    assert!(c.top_ups(BOB).is_empty(), "who got money back is not charged for it");
}

#[test]
fn it_is_off_by_default_and_each_user_is_alone() {
    let db = top_up_database("3 per month");
    let mut c = db.connect();
    c.grant(BOB, 200, "start");
    c.spend(BOB, 200, "all");
    assert!(c.top_ups(BOB).is_empty());
    assert_eq!(c.told(BOB), ["credits.granted", "credits.exhausted"]);
    c.allow_top_ups(ANN, 200);
    c.spend(ANN, 200, "all");
    assert_eq!((c.top_ups(ANN), c.top_ups(BOB)), (vec!["requested".to_owned()], Vec::new()));
    assert_eq!((c.auto_top_up(ANN).as_str(), c.auto_top_up(BOB).as_str()), ("on", "off"));
}

#[test]
fn thirty_two_spends_at_once_that_cross_together_request_one_pack() {
    let db = top_up_database("3 per month");
    db.connect().allow_top_ups(ANN, 110);
    let spends = (0..32)
        .map(|n| move |c: &mut stripe_credits_tests::Connection| c.spend(ANN, 3, &format!("job {n}")).ok);
    assert!(together(&db, spends.collect()).into_iter().all(|is_spent| is_spent));
    let mut c = db.connect();
    assert_eq!((c.balance(ANN), c.top_ups(ANN)), (14, vec!["requested".to_owned()]));
    assert_eq!(c.told(ANN), ["credits.granted", "top_up.requested"]);
}

#[test]
fn a_spend_that_leaves_enough_does_what_it_did_without_auto_top_up() {
    let written = |db: &Database| {
        let mut c = db.connect();
        c.grant(ANN, 1000, "start");
        c.spend(ANN, 100, "warm");
        let before = c.everything();
        c.spend(ANN, 100, "job");
        let after = c.everything();
        let tables = after.into_iter().filter(|(table, rows)| before[table] != *rows);
        tables.map(|(table, _)| table).collect::<Vec<_>>()
    };
    let (with, without) = (top_up_database("3 per month"), Database::with_catalog());
    let mut c = with.connect();
    c.apply(&customer_of("cus_1", ANN));
    c.set_auto_top_up(ANN, true);
    assert_eq!(c.top_ups(ANN), ["requested"], "there were too few");
    let request = last(&mut c, ANN);
    assert!(c.finish_top_up(request, None, "canceled", Some("not_needed")));
    assert_eq!(written(&with), written(&without));
}

// Who allows it.

#[test]
fn to_allow_it_takes_a_catalog_that_has_it_and_a_customer_whom_a_server_named() {
    let db = Database::new();
    let mut c = db.connect();
    assert_eq!(c.set_auto_top_up(ANN, true).summary(), "rejected no_catalog");
    c.load_catalog(&catalog());
    assert_eq!(c.set_auto_top_up(ANN, true).summary(), "rejected no_auto_top_up");
    c.load_catalog(&catalog_with_top_up("3 per month"));
    assert_eq!(c.set_auto_top_up(ANN, true).summary(), "rejected no_customer");
    c.apply(
        &stripe_credits_tests::session("cs_1")
            .with("client_reference_id", ANN.to_string())
            .with("customer", "cus_9")
            .completed("evt_9"),
    );
    assert_eq!(
        c.set_auto_top_up(ANN, true).summary(),
        "rejected no_customer",
        "a buyer may write another's id"
    );
    assert_eq!(c.one::<i64>("select count(*) from billing.top_ups", &[]), 0);
    c.apply(&customer_of("cus_1", ANN));
    let outcome = c.set_auto_top_up(ANN, true);
    assert_eq!(
        (outcome.summary().as_str(), &outcome.details.expect("details")["auto_top_up"]),
        ("applied", &json!("on"))
    );
    assert_eq!(c.set_auto_top_up(ANN, true).summary(), "already_applied");
    assert_eq!(c.set_auto_top_up(ANN, false).summary(), "applied");
    assert_eq!(c.set_auto_top_up(ANN, false).summary(), "already_applied");
    assert_eq!(c.set_auto_top_up(BOB, false).summary(), "already_applied", "without an account too");
}

#[test]
fn what_is_too_little_when_it_is_allowed_is_topped_up_at_once_and_once() {
    let db = top_up_database("3 per month");
    let mut c = db.connect();
    c.allow_top_ups(ANN, 40);
    assert_eq!(c.top_ups(ANN), ["requested"]);
    c.set_auto_top_up(ANN, false);
    c.set_auto_top_up(ANN, true);
    assert_eq!(c.top_ups(ANN), ["requested"], "the open one goes on");
}

#[test]
fn who_turned_it_off_or_is_forgotten_is_not_charged_any_more() {
    let db = top_up_database("3 per month");
    let mut c = db.connect();
    c.allow_top_ups(ANN, 40);
    c.allow_top_ups(BOB, 40);
    c.set_auto_top_up(ANN, false);
    assert_eq!(c.call("forget_user($1)", &[&BOB]).summary(), "applied");
    let claimed = c.claim_top_ups();
    assert_eq!(claimed.len(), 2);
    assert!(claimed.iter().all(|request| request.unwanted.as_deref() == Some("turned_off")), "{claimed:?}");
    for request in claimed {
        assert!(c.finish_top_up((request.user, request.id), None, "canceled", Some("turned_off")));
    }
    assert_eq!(
        (c.top_ups(ANN), c.auto_top_up(ANN)),
        (vec!["canceled turned_off".to_owned()], "off".to_owned())
    );
    assert_eq!(c.told(ANN)[1..], ["top_up.requested", "top_up.canceled"]);
    assert_eq!(c.told_data(ANN, "top_up.canceled")[0]["reason"], "turned_off");
    c.spend(ANN, 1, "job");
    assert_eq!(c.top_ups(ANN).len(), 1);
    assert!(c.faults().is_empty());
}

// How often.

#[test]
fn more_than_the_catalog_allows_are_refused_and_that_is_told_once() {
    let db = top_up_database("2 per week");
    let mut c = db.connect();
    c.allow_top_ups(ANN, 200);
    for (n, paid) in [(1, "pi_1"), (2, "pi_2")] {
        let all = c.balance(ANN);
        c.spend(ANN, all, &format!("all {n}"));
        let request = last(&mut c, ANN);
        assert_eq!(c.name_intent(request, paid).as_deref(), Some(paid));
        let event = intent_of(paid, ANN, request.1).event(&format!("evt_{paid}"), "payment_intent.succeeded");
        assert_eq!(c.deliver(&event).summary(), "applied");
    }
    assert_eq!((c.balance(ANN), c.top_ups(ANN)), (500, vec!["succeeded".to_owned(); 2]));
    c.spend(ANN, 450, "third");
    c.spend(ANN, 10, "fourth");
    assert_eq!(c.top_ups(ANN).len(), 2);
    let refused = c.told_data(ANN, "top_up.refused");
    assert_eq!(refused.len(), 1, "the fourth crossed nothing");
    assert_eq!((&refused[0]["reason"], &refused[0]["at_most"]), (&json!("limit"), &json!("2 per week")));

    c.run("update billing.top_ups set requested_at = requested_at - interval '7 days' where id = (select min(id) from billing.top_ups)");
    c.spend(ANN, 10, "fifth");
    assert_eq!(c.top_ups(ANN), ["succeeded", "succeeded", "requested"], "a week later there is room again");
    assert!(c.faults().is_empty());
}

// What a shim does with it.

#[test]
fn a_request_is_one_shims_for_its_lease_and_names_the_customer_to_charge() {
    let db = top_up_database("3 per month");
    let (mut c, mut other) = (db.connect(), db.connect());
    c.allow_top_ups(ANN, 40);
    assert!(
        c.column::<Uuid>("select user_id from billing.claim_top_ups(true)", &[]).is_empty(),
        "of the other mode"
    );
    let claimed = c.claim_top_ups();
    assert_eq!(claimed.len(), 1);
    let (request, customer) = (&claimed[0], customer(ANN));
    assert_eq!(
        (request.user, request.attempts, request.customer.as_deref()),
        (ANN, 1, Some(customer.as_str()))
    );
    assert_eq!((request.payment_intent.as_deref(), request.unwanted.as_deref()), (None, None));
    assert!(other.claim_top_ups().is_empty());
    c.make_top_ups_due();
    assert_eq!(other.claim_top_ups()[0].attempts, 2);
    let retry = "select billing.retry_top_up($1, $2, $3, 'stripe_timeout', '1 minute')";
    assert!(!c.one::<bool>(retry, &[&ANN, &request.id, &1]), "the first attempt's time is over");
    assert!(c.one::<bool>(retry, &[&ANN, &request.id, &2]));
}

#[test]
fn the_first_payment_intent_that_is_named_is_the_only_one() {
    let db = top_up_database("3 per month");
    let mut c = db.connect();
    c.allow_top_ups(ANN, 40);
    let request = last(&mut c, ANN);
    let named = |c: &mut stripe_credits_tests::Connection, intent: &str| c.name_intent(request, intent);
    let (one, two) = blocked(&db, |c| named(c, "pi_1"), |c| named(c, "pi_2"));
    assert_eq!((one.as_deref(), two.as_deref()), (Some("pi_1"), Some("pi_1")));
    assert!(
        !c.finish_top_up(request, None, "failed", Some("no_payment_method")),
        "it knows of no payment intent"
    );
    assert!(!c.finish_top_up(request, Some("pi_2"), "paid", None));
    assert!(c.finish_top_up(request, Some("pi_1"), "paid", None));
    assert!(
        !c.finish_top_up(request, Some("pi_1"), "failed", Some("card_declined")),
        "what is paid stays so"
    );
    assert_eq!(named(&mut c, "pi_3"), None, "nothing is to be confirmed any more");
    c.spend(ANN, 1, "job");
    assert_eq!(c.top_ups(ANN), ["paid"], "it is open until its credits are there");
}

#[test]
fn an_old_request_and_one_that_is_not_needed_any_more_is_unwanted() {
    let db = top_up_database("3 per month");
    let mut c = db.connect();
    for (n, late) in [(1, false), (2, true)] {
        c.allow_top_ups(user(n), 40);
        if late {
            c.run("update billing.top_ups set requested_at = requested_at - interval '23 hours' where user_id = 'c0de0000-0000-4000-8000-000000000002'");
        }
    }
    c.buy(ANN, "cs_1");
    let claimed = c.claim_top_ups();
    let unwanted =
        |user| claimed.iter().find(|request| request.user == user).expect("claimed").unwanted.clone();
    assert_eq!((unwanted(ANN).as_deref(), unwanted(BOB).as_deref()), (Some("not_needed"), Some("too_late")));
    c.load_catalog(&catalog());
    c.make_top_ups_due();
    assert!(c.claim_top_ups().iter().all(|request| request.unwanted.as_deref() == Some("turned_off")));
}

#[test]
fn a_failure_pauses_it_and_is_told_and_allowing_it_again_tries_again() {
    let db = top_up_database("3 per month");
    let mut c = db.connect();
    c.allow_top_ups(ANN, 40);
    let request = last(&mut c, ANN);
    c.name_intent(request, "pi_1");
    assert!(c.finish_top_up(request, Some("pi_1"), "failed", Some("card_declined")));
    assert_eq!(
        (c.top_ups(ANN), c.auto_top_up(ANN)),
        (vec!["failed card_declined".to_owned()], "paused".to_owned())
    );
    let told = &c.told_data(ANN, "top_up.failed")[0];
    assert_eq!(
        (&told["reason"], &told["stripe_payment_intent_id"]),
        (&json!("card_declined"), &json!("pi_1"))
    );
    c.spend(ANN, 10, "job");
    assert_eq!(c.top_ups(ANN).len(), 1, "it is paused");
    assert_eq!(c.set_auto_top_up(ANN, true).summary(), "applied");
    assert_eq!(c.top_ups(ANN), ["failed card_declined", "requested"]);
    assert!(c.faults().is_empty());
}

#[test]
fn a_failure_pauses_nothing_that_was_turned_off_meanwhile() {
    let db = top_up_database("3 per month");
    let mut c = db.connect();
    for (who, is_forgotten) in [(ANN, false), (BOB, true)] {
        c.allow_top_ups(who, 40);
        let (request, intent) = (last(&mut c, who), format!("pi_{is_forgotten}"));
        c.name_intent(request, &intent);
        if is_forgotten {
            assert_eq!(c.call("forget_user($1)", &[&who]).summary(), "applied");
        } else {
            assert_eq!(c.set_auto_top_up(who, false).summary(), "applied");
        }
        assert!(c.finish_top_up(request, Some(&intent), "failed", Some("card_declined")));
        assert_eq!(
            (c.top_ups(who), c.auto_top_up(who)),
            (vec!["failed card_declined".to_owned()], "off".to_owned())
        );
        assert_eq!(c.told_data(who, "top_up.failed").len(), 1);
    }
    assert!(c.faults().is_empty());
}

#[test]
fn what_was_paid_is_granted_once_in_every_order_of_the_event_and_the_shims_word() {
    for order in orders(3) {
        let db = top_up_database("3 per month");
        let mut c = db.connect();
        c.allow_top_ups(ANN, 40);
        let request = last(&mut c, ANN);
        c.name_intent(request, "pi_1");
        let event = intent_of("pi_1", ANN, request.1).event("evt_1", "payment_intent.succeeded");
        let again = intent_of("pi_1", ANN, request.1).event("evt_2", "payment_intent.succeeded");
        for step in &order {
            match step {
                0 => drop(c.deliver(&event)),
                1 => drop(c.finish_top_up(request, Some("pi_1"), "paid", None)),
                _ => drop(c.deliver(&again)),
            }
        }
        assert_eq!((c.balance(ANN), c.top_ups(ANN)), (540, vec!["succeeded".to_owned()]), "{order:?}");
        assert_eq!(c.ledger(ANN), ["grant 40", "purchase 500"], "{order:?}");
        assert_eq!(c.told_data(ANN, "top_up.succeeded").len(), 1, "{order:?}");
        assert!(c.faults().is_empty());
    }
}

#[test]
fn a_payment_counts_whatever_was_known_of_its_request() {
    let db = top_up_database("9 per month");
    let mut c = db.connect();
    c.allow_top_ups(ANN, 40);
    let request = last(&mut c, ANN);
    // As after a restore of a backup that was made before the payment intent was named.
    let paid = |intent: &str, user, id, event: &str| {
        intent_of(intent, user, id).event(event, "payment_intent.succeeded")
    };
    assert_eq!(c.deliver(&paid("pi_1", ANN, request.1, "evt_1")).summary(), "applied");
    assert_eq!((c.balance(ANN), c.top_ups(ANN)), (540, vec!["succeeded".to_owned()]));
    // Another payment intent's metadata name the same request: it is a purchase, and the request stays as it is.
    assert_eq!(c.deliver(&paid("pi_2", ANN, request.1, "evt_2")).summary(), "applied");
    assert_eq!((c.balance(ANN), c.top_ups(ANN).len()), (1040, 1));
    // Of another user's, or of none.
    assert_eq!(c.deliver(&paid("pi_3", BOB, request.1, "evt_3")).summary(), "applied");
    assert_eq!((c.balance(BOB), c.told(BOB)), (500, vec!["credits.granted".to_owned()]));
    assert!(c.faults().is_empty());
}

#[test]
fn everything_of_it_is_on_the_users_page() {
    let db = top_up_database("3 per month");
    let mut c = db.connect();
    c.allow_top_ups(ANN, 40);
    let page: serde_json::Value = c.one("select billing.explain_user($1)", &[&ANN]);
    assert_eq!(
        (&page["account"]["auto_top_up"], &page["top_ups"][0]["state"]),
        (&json!("on"), &json!("requested"))
    );
}

#[test]
fn a_signed_in_user_sees_their_own_switch_and_can_turn_nothing_on() {
    let db = top_up_database("3 per month");
    let mut c = db.connect();
    c.allow_top_ups(ANN, 40);
    c.grant(BOB, 40, "start");
    let as_ann = format!(
        "begin; set local request.jwt.claims = '{{\"sub\": \"{ANN}\"}}'; set local role authenticated"
    );
    c.run(&as_ann);
    let seen: Vec<String> = c.column("select user_id || ' ' || auto_top_up from billing.accounts", &[]);
    assert_eq!(seen, [format!("{ANN} on")]);
    c.run("rollback");
    for statement in [
        format!("select billing.set_auto_top_up('{ANN}', true)"),
        format!("select billing.finish_top_up('{ANN}', 2, null, 'canceled', 'x')"),
        "select * from billing.claim_top_ups(false)".to_owned(),
        "select * from billing.top_ups".to_owned(),
        format!("update billing.accounts set auto_top_up = 'on' where user_id = '{ANN}'"),
    ] {
        c.run(&as_ann);
        assert_eq!(c.refusal(&statement).code, "42501", "{statement}");
        c.run("rollback");
    }
}

#[test]
fn what_is_changed_behind_its_back_is_found_and_named() {
    let db = top_up_database("3 per month");
    let mut c = db.connect();
    c.allow_top_ups(ANN, 40);
    let request = last(&mut c, ANN);
    c.name_intent(request, "pi_1");
    let event = intent_of("pi_1", ANN, request.1).event("evt_1", "payment_intent.succeeded");
    assert_eq!(c.deliver(&event).summary(), "applied");
    assert!(c.faults().is_empty());
    for (tampering, named) in [
        ("update billing.top_ups set ended_at = null", "top-up 2 is succeeded, and ended at"),
        (
            "update billing.top_ups set payment_intent_id = null",
            "top-up 2 is succeeded, and names no payment intent",
        ),
        (
            "update billing.top_ups set payment_intent_id = 'pi_2'",
            "payment intent pi_2 paid for nothing of the user",
        ),
        ("update billing.top_ups set id = 9", "top-up 9: by the account the last one is"),
        (
            "insert into billing.top_ups select (jsonb_populate_record(t, '{\"id\": 1}')).* from billing.top_ups t",
            "payment intent pi_1 paid for top-ups 1 and 2",
        ),
    ] {
        c.run("begin");
        c.run(tampering);
        let faults = c.faults().join("\n");
        c.run("rollback");
        assert!(faults.contains(named), "{tampering}: {faults}");
    }
}

#[test]
fn a_call_that_is_wrong_in_itself_raises() {
    let db = top_up_database("3 per month");
    let mut c = db.connect();
    for (call, state) in [
        ("set_auto_top_up(null, true)", "22004"),
        ("set_auto_top_up(gen_random_uuid(), null)", "22004"),
        ("finish_top_up(gen_random_uuid(), 1, 'pi_1', 'succeeded')", "22023"),
        ("finish_top_up(gen_random_uuid(), 1, null, 'paid')", "22004"),
        ("finish_top_up(gen_random_uuid(), 1, 'pi_1', 'failed')", "22004"),
        ("finish_top_up(null, 1, 'pi_1', 'failed', 'x')", "22004"),
        ("claim_top_ups(null)", "22004"),
        ("claim_top_ups(true, 0)", "22023"),
        ("name_payment_intent(gen_random_uuid(), 1, ' ', 'cus_1', 1, 'usd')", "22023"),
        ("name_payment_intent(gen_random_uuid(), 1, 'pi_1', 'cus_1', null, 'usd')", "22004"),
        ("retry_top_up(gen_random_uuid(), 1, 1, 'x', '-1 second')", "22023"),
        ("retry_top_up(gen_random_uuid(), 1, 1, null, '1 second')", "22004"),
    ] {
        assert_eq!(c.refusal(&format!("select * from billing.{call}")).code, state, "{call}");
    }
}
