//! Scenarios of subscriptions: the first purchase, renewals, plan changes, trials, coupons, from Stripe's events to the
//! ledger's rows.

use serde_json::{Value, json};
use stripe_credits_tests::permutations::orders;
use stripe_credits_tests::stripe::CREATED;
use stripe_credits_tests::subscription::{
    Invoice, MAX, PRO, ROLL, Subscription, fetched, half_time, invoice, line, month, months_after, period,
    renewal, subscribing, subscription,
};
use stripe_credits_tests::{ANN, BOB, Connection, Database, catalog, event, nothing_fetched, paid_pack};

/// ANN subscribes to pro in month 0 and pays for it.
fn subscribe_to_pro(c: &mut Connection) {
    assert_eq!(
        c.apply(&subscription("sub_1", "price_pro").of(ANN).created("evt_created")).summary(),
        "applied"
    );
    assert_eq!(c.apply(&renewal("in_0", "sub_1", PRO, 0).paid("evt_paid_0")).summary(), "applied");
    assert_eq!((c.balance(ANN), c.tier(ANN)), (10_000, "pro active".into()));
}

// 13b, 13c.

#[test]
fn scenario_13b_a_pack_and_its_own_invoice_in_both_shapes_and_orders_grant_once() {
    let bought = paid_pack("cs_1", ANN).with("customer", "cus_1").with("invoice", "in_1").completed("evt_1");
    let own = |older: bool| {
        let own = invoice("in_1", "sub_none").line(line("price_pack", 1000, period(0)));
        let own = if older {
            own.older().with("subscription", Value::Null)
        } else {
            own.with("parent", Value::Null)
        };
        own.with("billing_reason", "manual").paid("evt_2")
    };
    for older in [true, false] {
        for session_first in [true, false] {
            let db = Database::with_catalog();
            let mut c = db.connect();
            let own = own(older);
            let events = if session_first { [&bought, &own] } else { [&own, &bought] };
            let outcomes: Vec<String> = events.map(|event| c.twice(event)).to_vec();
            // Of an invoice that names no user the owner is known with its session.
            let expected = if session_first {
                ["applied", "already_applied"]
            } else {
                ["parked unknown_user", "applied"]
            };
            assert_eq!(outcomes, expected);
            assert!(c.inbox("evt_2").is_some_and(|outcome| outcome.ends_with("applied")), "it waits no more");
            assert_eq!(c.ledger(ANN), ["purchase 500"]);
        }
    }
}

#[test]
fn scenario_13c_a_retired_price_still_grants_its_renewals_as_before() {
    let db = Database::with_catalog();
    let mut c = db.connect();
    subscribe_to_pro(&mut c);
    let mut without_pro = catalog();
    without_pro["plans"].as_array_mut().expect("plans").remove(0);
    assert_eq!(c.load_catalog(&without_pro)["price_pro"], "retired");
    assert_eq!(c.tier(ANN), "pro active");
    assert_eq!(c.twice(&renewal("in_1", "sub_1", PRO, 1).paid("evt_paid_1")), "applied");
    let next = subscription("sub_1", "price_pro").of(ANN).during(period(1));
    c.twice(&next.updated("evt_next", month(1)));
    assert_eq!((c.agreed_balance_and_debt(ANN), c.tier(ANN)), ((10_000, 0), "pro active".into()));
    assert_eq!(c.ledger(ANN), ["subscription_grant 10000", "subscription_grant 10000", "set_aside -10000"]);
    let late: i64 = c
        .one("select count(*) from billing.resolve_price('price_pro', now()) where valid_from <= now()", &[]);
    assert_eq!(late, 1, "it resolves to its last row");
}

// 14: the first purchase.

#[test]
fn scenario_14_first_purchase_in_all_six_orders_grants_once_whatever_names_the_user() {
    let db = Database::with_catalog();
    let mut c = db.connect();
    let ann = ANN.to_string();
    let paid = renewal("in_1", "sub_1", PRO, 0);
    let created = subscription("sub_1", "price_pro");
    let session = subscribing("cs_1", "sub_1", "in_1");
    let named = [
        ("the session's metadata", session.clone().of(ANN), created.clone(), paid.clone()),
        (
            "the session's reference",
            session.clone().with("client_reference_id", ann),
            created.clone(),
            paid.clone(),
        ),
        ("the subscription and its copy", session.clone(), created.clone().of(ANN), paid.clone().of(ANN)),
        ("the subscription alone", session.clone(), created.clone().of(ANN), paid.clone()),
        ("all of them", session.of(ANN), created.of(ANN), paid.of(ANN)),
    ];
    for (by, session, created, paid) in named {
        for older in [false, true] {
            let (created, paid) = if older {
                (created.clone().older(), paid.clone().older())
            } else {
                (created.clone(), paid.clone())
            };
            let events =
                [paid.paid("evt_paid"), created.created("evt_created"), session.completed("evt_session")];
            for order in orders(3) {
                c.run("begin");
                for event in order.iter().chain(&order) {
                    c.apply(&events[*event]);
                }
                let place = format!("named by {by}, older {older}, order {order:?}");
                assert_eq!(c.ledger(ANN), ["subscription_grant 10000"], "{place}");
                assert_eq!(
                    (c.agreed_balance_and_debt(ANN), c.tier(ANN)),
                    ((10_000, 0), "pro active".into()),
                    "{place}"
                );
                assert_eq!(c.known("sub_1").as_deref(), Some("price_pro pro active"), "{place}");
                let waiting: Vec<String> = c.column(
                    "select event_id || ' ' || outcome from billing.stripe_events where outcome = 'parked'",
                    &[],
                );
                assert!(waiting.is_empty(), "{place}: {waiting:?}");
                c.run("rollback");
            }
        }
    }
}

#[test]
fn scenario_14_invoice_paid_and_payment_succeeded_of_one_invoice_grant_once() {
    let db = Database::with_catalog();
    let mut c = db.connect();
    subscribe_to_pro(&mut c);
    let same = renewal("in_0", "sub_1", PRO, 0);
    assert_eq!(c.twice(&same.event("evt_other", "payment_succeeded")), "already_applied");
    assert_eq!(c.twice(&same.older().paid("evt_older")), "already_applied");
    assert_eq!(c.ledger(ANN), ["subscription_grant 10000"]);
}

#[test]
fn scenario_14_the_grants_row_names_event_invoice_period_and_plan() {
    let db = Database::with_catalog();
    let mut c = db.connect();
    subscribe_to_pro(&mut c);
    let row: String = c.one(
        "select concat_ws(' ', stripe_event_id, stripe_invoice_id, pool, description, balance_after)
         from billing.credit_transactions",
        &[],
    );
    assert_eq!(row, "evt_paid_0 in_0 subscription Pro 10000");
    let read: String = c.one(
        "select concat_ws(' ', subscription_tier, subscription_status, subscription_credits_balance,
                monthly_credits_per_cycle, monthly_credits_used, extract(epoch from cycle_start_at)::bigint,
                extract(epoch from cycle_end_at)::bigint, stripe_customer_id, stripe_subscription_id, stripe_price_id)
         from billing.user_credits where user_id = $1",
        &[&ANN],
    );
    let (start, end) = period(0);
    assert_eq!(read, format!("pro active 10000 10000 0 {start} {end} cus_1 sub_1 price_pro"));
    c.spend(ANN, 2_500, "job-1");
    assert_eq!(
        c.one::<i64>("select monthly_credits_used from billing.user_credits where user_id = $1", &[&ANN]),
        2_500
    );
}

#[test]
fn scenario_14_an_expanded_reconcile_and_the_webhooks_grant_once_in_every_order() {
    let db = Database::with_catalog();
    let mut c = db.connect();
    let paid = renewal("in_1", "sub_1", PRO, 0);
    let created = subscription("sub_1", "price_pro");
    let expanded = subscribing("cs_1", "sub_1", "in_1")
        .of(ANN)
        .with("subscription", created.json().clone())
        .with("invoice", paid.json().clone());
    let events = [
        paid.paid("evt_paid"),
        created.created("evt_created"),
        subscribing("cs_1", "sub_1", "in_1").of(ANN).completed("evt_session"),
    ];
    for order in orders(4) {
        c.run("begin");
        for step in &order {
            match events.get(*step) {
                Some(event) => c.apply(event),
                None => c.call(
                    "reconcile_checkout_session($1, $2, to_timestamp($3::bigint))",
                    &[expanded.json(), &ANN, &(CREATED + 5)],
                ),
            };
        }
        assert_eq!(c.ledger(ANN), ["subscription_grant 10000"], "order {order:?}");
        assert_eq!((c.balance(ANN), c.tier(ANN)), (10_000, "pro active".into()), "order {order:?}");
        c.run("rollback");
    }
    let before = c.everything();
    let other = c.reconcile(&expanded, BOB);
    assert_eq!(other.summary(), "rejected not_owner");
    assert_eq!(c.everything(), before, "a refusal leaves no trace");
}

// 15: the first payment fails.

#[test]
fn scenario_15_a_failed_first_payment_gives_no_credits_and_no_tier_in_every_order() {
    let db = Database::with_catalog();
    let mut c = db.connect();
    for older in [true, false] {
        let unpaid = renewal("in_1", "sub_1", PRO, 0).unpaid("open");
        let incomplete = subscription("sub_1", "price_pro").status("incomplete");
        let (unpaid, incomplete) =
            if older { (unpaid.older(), incomplete.older()) } else { (unpaid, incomplete) };
        let events = [
            subscribing("cs_1", "sub_1", "in_1").of(ANN).with("payment_status", "unpaid").completed("evt_1"),
            incomplete.created("evt_2"),
            unpaid.event("evt_3", "payment_failed"),
        ];
        for order in orders(3) {
            c.run("begin");
            for event in order.iter().chain(&order) {
                c.apply(&events[*event]);
            }
            assert_eq!(c.ledger(ANN), [""; 0], "older {older}, order {order:?}");
            assert_eq!((c.balance(ANN), c.tier(ANN)), (0, "free incomplete".into()), "order {order:?}");
            c.run("rollback");
        }
    }
}

#[test]
fn scenario_15_a_first_payment_that_succeeds_after_all_grants_once() {
    let db = Database::with_catalog();
    let mut c = db.connect();
    let incomplete = subscription("sub_1", "price_pro").of(ANN).status("incomplete");
    c.twice(&incomplete.created("evt_1"));
    let bill = renewal("in_1", "sub_1", PRO, 0);
    assert_eq!(c.twice(&bill.clone().unpaid("open").event("evt_2", "payment_failed")), "ignored unpaid");
    assert_eq!((c.balance(ANN), c.tier(ANN)), (0, "free incomplete".into()));
    assert_eq!(c.twice(&bill.paid_at(CREATED + 3600).paid("evt_3")), "applied");
    assert_eq!(
        (c.balance(ANN), c.tier(ANN)),
        (10_000, "free incomplete".into()),
        "the status is Stripe's to say"
    );
    c.twice(&incomplete.status("active").updated("evt_4", CREATED + 3600));
    assert_eq!((c.agreed_balance_and_debt(ANN), c.tier(ANN)), ((10_000, 0), "pro active".into()));
    assert_eq!(c.ledger(ANN), ["subscription_grant 10000"]);
}

#[test]
fn scenario_15_what_was_never_paid_ends_without_a_credit() {
    let db = Database::with_catalog();
    let mut c = db.connect();
    let incomplete = subscription("sub_1", "price_pro").of(ANN).status("incomplete");
    c.twice(&incomplete.created("evt_1"));
    let bill = renewal("in_1", "sub_1", PRO, 0);
    for (n, (status, event_type)) in
        [("open", "payment_failed"), ("void", "voided"), ("uncollectible", "marked_uncollectible")]
            .iter()
            .enumerate()
    {
        let event = bill.clone().unpaid(status).event(&format!("evt_bill_{n}"), event_type);
        assert_eq!(c.twice(&event), "ignored unpaid");
    }
    let expired = incomplete.status("incomplete_expired").with("ended_at", CREATED + 82_800);
    c.twice(&expired.updated("evt_5", CREATED + 82_800));
    assert_eq!((c.agreed_balance_and_debt(ANN), c.tier(ANN)), ((0, 0), "free incomplete_expired".into()));
    assert_eq!(c.ledger(ANN), [""; 0]);
}

// 16, 17: renewals.

#[test]
fn scenario_16_a_renewal_resets_what_is_left_and_grants_the_whole_amount() {
    let db = Database::with_catalog();
    let mut c = db.connect();
    subscribe_to_pro(&mut c);
    c.spend(ANN, 4_000, "job-1");
    let paid = c.apply(&renewal("in_1", "sub_1", PRO, 1).paid("evt_paid_1"));
    assert_eq!(
        (paid.summary().as_str(), paid.credits, paid.remaining_subscription),
        ("applied", 4_000, Some(10_000))
    );
    c.twice(&renewal("in_1", "sub_1", PRO, 1).paid("evt_paid_1"));
    c.twice(&subscription("sub_1", "price_pro").during(period(1)).updated("evt_next", month(1)));
    assert_eq!(c.agreed_balance_and_debt(ANN), (10_000, 0));
    assert_eq!(
        c.ledger(ANN),
        ["subscription_grant 10000", "spend -4000", "subscription_grant 10000", "set_aside -6000"]
    );
    assert_eq!(c.grants(ANN), ["sub_1 0", "sub_1 10000"]);
}

#[test]
fn scenario_16_the_renewals_state_and_invoice_in_both_orders_come_to_the_same() {
    let db = Database::with_catalog();
    let mut c = db.connect();
    subscribe_to_pro(&mut c);
    c.spend(ANN, 4_000, "job-1");
    let paid = renewal("in_1", "sub_1", PRO, 1).paid("evt_paid_1");
    let next = subscription("sub_1", "price_pro").during(period(1)).updated("evt_next", month(1));
    let mut ends = Vec::new();
    for events in [[&paid, &next], [&next, &paid]] {
        c.run("begin");
        for event in events {
            c.twice(event);
        }
        assert_eq!(c.balance(ANN), 10_000);
        ends.push(c.subscribed_state());
        c.run("rollback");
    }
    assert_eq!(ends[0], ends[1]);
}

#[test]
fn scenario_16_what_was_overspent_into_a_pack_stays_spent_at_the_renewal() {
    let db = Database::with_catalog();
    let mut c = db.connect();
    subscribe_to_pro(&mut c);
    c.apply(&paid_pack("cs_1", ANN).completed("evt_pack"));
    c.spend(ANN, 10_200, "job-1");
    assert_eq!(c.grants(ANN), ["sub_1 0", "cs_1 300"]);
    c.twice(&renewal("in_1", "sub_1", PRO, 1).paid("evt_paid_1"));
    assert_eq!(c.agreed_balance_and_debt(ANN), (10_300, 0));
}

#[test]
fn scenario_16_an_older_invoice_that_comes_after_the_newer_adds_nothing_to_spend() {
    let db = Database::with_catalog();
    let mut c = db.connect();
    c.apply(&subscription("sub_1", "price_pro").of(ANN).during(period(1)).created("evt_created"));
    c.twice(&renewal("in_1", "sub_1", PRO, 1).paid("evt_paid_1"));
    assert_eq!(c.balance(ANN), 10_000);
    c.twice(&renewal("in_0", "sub_1", PRO, 0).paid("evt_paid_0"));
    assert_eq!(c.agreed_balance_and_debt(ANN), (10_000, 0));
    assert_eq!(c.grants(ANN), ["sub_1 10000", "sub_1 0"]);
}

#[test]
fn scenario_16_what_a_reservation_returns_stays_until_the_next_period_opens() {
    for renewed_first in [true, false] {
        let db = Database::with_catalog();
        let mut c = db.connect();
        subscribe_to_pro(&mut c);
        c.reserve(ANN, 4_000, "job-1");
        let paid = renewal("in_1", "sub_1", PRO, 1).paid("evt_paid_1");
        if renewed_first {
            c.twice(&paid);
            assert_eq!(c.balance(ANN), 10_000);
            c.release(ANN, "job-1");
        } else {
            c.release(ANN, "job-1");
            c.twice(&paid);
        }
        let expected = if renewed_first { 14_000 } else { 10_000 };
        assert_eq!(c.agreed_balance_and_debt(ANN), (expected, 0), "renewed first: {renewed_first}");
        c.twice(&renewal("in_2", "sub_1", PRO, 2).paid("evt_paid_2"));
        assert_eq!(c.agreed_balance_and_debt(ANN), (10_000, 0), "renewed first: {renewed_first}");
    }
}

#[test]
fn scenario_17_a_renewal_carries_up_to_max_rollover() {
    let db = Database::with_catalog();
    let mut c = db.connect();
    c.twice(&subscription("sub_1", "price_roll").of(ANN).created("evt_created"));
    c.twice(&renewal("in_0", "sub_1", ROLL, 0).paid("evt_paid_0"));
    c.spend(ANN, 200, "job-1");
    c.twice(&renewal("in_1", "sub_1", ROLL, 1).paid("evt_paid_1"));
    assert_eq!(c.agreed_balance_and_debt(ANN), (1_500, 0));
    assert_eq!(
        c.ledger(ANN),
        ["subscription_grant 1000", "spend -200", "subscription_grant 1000", "set_aside -300"]
    );
    c.twice(&renewal("in_2", "sub_1", ROLL, 2).paid("evt_paid_2"));
    assert_eq!(c.agreed_balance_and_debt(ANN), (1_500, 0), "of all older periods together 500");
}

#[test]
fn scenario_17_what_is_below_max_rollover_is_carried_whole() {
    let db = Database::with_catalog();
    let mut c = db.connect();
    c.twice(&subscription("sub_1", "price_roll").of(ANN).created("evt_created"));
    c.twice(&renewal("in_0", "sub_1", ROLL, 0).paid("evt_paid_0"));
    c.spend(ANN, 700, "job-1");
    c.twice(&renewal("in_1", "sub_1", ROLL, 1).paid("evt_paid_1"));
    assert_eq!(c.agreed_balance_and_debt(ANN), (1_300, 0));
    c.spend(ANN, 1_200, "job-2");
    c.twice(&renewal("in_2", "sub_1", ROLL, 2).paid("evt_paid_2"));
    assert_eq!(c.agreed_balance_and_debt(ANN), (1_100, 0));
    assert!(!c.ledger(ANN).iter().any(|row| row.starts_with("set_aside")), "{:?}", c.ledger(ANN));
}

// 18, 18b: upgrades and toggling.

/// What an upgrade from pro to max at half time brings.
struct Upgrade {
    state: Subscription,
    paid: Invoice,
}

/// $100 more for the rest of the period: half of max, less half of pro.
fn prorated_upgrade() -> Upgrade {
    let rest = (half_time(0), month(1));
    let paid = invoice("in_up", "sub_1")
        .mid_period()
        .line(line("price_pro", -5_000, rest).prorated())
        .line(line("price_max", 15_000, rest).prorated())
        .paid_at(rest.0 + 5);
    Upgrade { state: subscription("sub_1", "price_max").of(ANN), paid }
}

/// The same with a new billing anchor: a whole month of max, less half of pro.
fn anchored_upgrade() -> Upgrade {
    let change = half_time(0);
    let span = (change, months_after(change, 1));
    let paid = invoice("in_up", "sub_1")
        .mid_period()
        .line(line("price_pro", -5_000, (change, month(1))).prorated())
        .line(line("price_max", 30_000, span))
        .paid_at(change + 5);
    Upgrade { state: subscription("sub_1", "price_max").of(ANN).during(span), paid }
}

/// So much of pro is spent, then the upgrade comes, its status first. Returns the balance once it is paid.
fn upgraded(c: &mut Connection, upgrade: &Upgrade, spent: i64) -> i64 {
    subscribe_to_pro(c);
    c.spend(ANN, spent, "job-1");
    c.twice(&upgrade.state.updated("evt_up", half_time(0)));
    assert_eq!((c.agreed_balance_and_debt(ANN), c.tier(ANN)), ((10_000 - spent, 0), "max active".into()));
    assert_eq!(c.twice(&upgrade.paid.paid("evt_up_paid")), "applied");
    assert_eq!(c.twice(&upgrade.paid.event("evt_up_succeeded", "payment_succeeded")), "already_applied");
    let (balance, debt) = c.agreed_balance_and_debt(ANN);
    assert_eq!(debt, 0);
    balance
}

/// While the status says pro again, at most pro's amount is there, and all of it once it says max.
fn toggle(c: &mut Connection, max: &Subscription, balance: i64) {
    let pro = max.clone().to("price_pro");
    for (hours, state, expected) in
        [(1, &pro, 10_000), (2, max, balance), (3, &pro, 10_000), (4, max, balance)]
    {
        c.twice(&state.updated(&format!("evt_toggle_{hours}"), half_time(0) + hours * 3_600));
        assert_eq!(c.agreed_balance_and_debt(ANN), (expected, 0), "hour {hours}");
    }
    assert_eq!(c.tier(ANN), "max active");
}

#[test]
fn scenario_18_an_upgrade_is_worth_its_time_once_and_toggling_by_status_the_same() {
    for older in [true, false] {
        let db = Database::with_catalog();
        let mut c = db.connect();
        let Upgrade { state, paid } = prorated_upgrade();
        let upgrade =
            if older { Upgrade { state: state.older(), paid: paid.older() } } else { prorated_upgrade() };
        assert_eq!(upgraded(&mut c, &upgrade, 9_000), 11_000, "older {older}");
        assert_eq!(c.ledger(ANN), ["subscription_grant 10000", "spend -9000", "subscription_grant 10000"]);
        toggle(&mut c, &upgrade.state, 11_000);
        let posted = c.ledger(ANN).split_off(3);
        assert_eq!(posted, ["set_aside -1000", "restore 1000", "set_aside -1000", "restore 1000"]);
    }
}

#[test]
fn scenario_18b_a_new_anchor_takes_back_what_was_drawn_beyond_the_kept_money() {
    for (spent, balance) in [(1_000, 30_000), (9_000, 26_000)] {
        for older in [true, false] {
            let db = Database::with_catalog();
            let mut c = db.connect();
            let Upgrade { state, paid } = anchored_upgrade();
            let upgrade =
                if older { Upgrade { state: state.older(), paid: paid.older() } } else { anchored_upgrade() };
            assert_eq!(upgraded(&mut c, &upgrade, spent), balance, "{spent} spent, older {older}");
            let posted = c.ledger(ANN).split_off(2);
            if spent == 1_000 {
                assert_eq!(posted, ["subscription_grant 30000", "reversal -5000", "set_aside -4000"]);
            } else {
                let settled = ["reversal -4000", "debt_settlement -4000", "debt_settlement 4000"];
                assert_eq!(posted[..2], ["subscription_grant 30000", "reversal -1000"]);
                assert_eq!(posted[2..], settled);
            }
            toggle(&mut c, &upgrade.state, balance);
        }
    }
}

#[test]
fn scenario_18_toggling_down_and_up_gives_back_exactly_what_was_set_aside() {
    let db = Database::with_catalog();
    let mut c = db.connect();
    c.twice(&subscription("sub_1", "price_max").of(ANN).created("evt_created"));
    c.twice(&renewal("in_0", "sub_1", MAX, 0).paid("evt_paid_0"));
    c.spend(ANN, 5_000, "job-1");
    let state = subscription("sub_1", "price_max").of(ANN);
    let (pro, max) = (state.clone().to("price_pro"), state);
    c.twice(&pro.updated("evt_1", CREATED + 100));
    assert_eq!(c.agreed_balance_and_debt(ANN), (10_000, 0));
    c.spend(ANN, 1_000, "job-2");
    c.twice(&max.updated("evt_2", CREATED + 200));
    assert_eq!(c.agreed_balance_and_debt(ANN), (24_000, 0));
    c.twice(&pro.updated("evt_3", CREATED + 300));
    assert_eq!(
        c.agreed_balance_and_debt(ANN),
        (10_000, 0),
        "another downgrade: what exceeds its amount is set aside"
    );
    c.twice(&max.updated("evt_4", CREATED + 400));
    assert_eq!(c.agreed_balance_and_debt(ANN), (24_000, 0));
}

#[test]
fn scenario_18_an_upgrades_status_and_invoice_in_both_orders_come_to_the_same() {
    let db = Database::with_catalog();
    let mut c = db.connect();
    subscribe_to_pro(&mut c);
    c.spend(ANN, 9_000, "job-1");
    for (upgrade, balance) in [(prorated_upgrade(), 11_000), (anchored_upgrade(), 26_000)] {
        let state = upgrade.state.updated("evt_up", half_time(0));
        let paid = upgrade.paid.paid("evt_up_paid");
        let mut ends = Vec::new();
        for events in [[&state, &paid], [&paid, &state]] {
            c.run("begin");
            for event in events {
                c.twice(event);
            }
            assert_eq!(c.balance(ANN), balance);
            ends.push(c.subscribed_state());
            c.run("rollback");
        }
        assert_eq!(ends[0], ends[1], "{balance}");
    }
}

#[test]
fn scenario_18_an_upgrade_that_was_not_paid_grants_nothing() {
    let db = Database::with_catalog();
    let mut c = db.connect();
    subscribe_to_pro(&mut c);
    c.spend(ANN, 9_000, "job-1");
    let failed = anchored_upgrade().paid.unpaid("open");
    assert_eq!(c.twice(&failed.event("evt_failed", "payment_failed")), "ignored unpaid");
    let pending = subscription("sub_1", "price_pro").of(ANN).with("pending_update", json!({"expires_at": 1}));
    c.twice(&pending.event("evt_pending", "pending_update_expired", CREATED + 100));
    assert_eq!((c.agreed_balance_and_debt(ANN), c.tier(ANN)), ((1_000, 0), "pro active".into()));
}

#[test]
fn scenario_18_more_of_the_same_plan_is_worth_its_time() {
    let db = Database::with_catalog();
    let mut c = db.connect();
    subscribe_to_pro(&mut c);
    c.spend(ANN, 4_000, "job-1");
    let rest = (half_time(0), month(1));
    let more = invoice("in_more", "sub_1")
        .mid_period()
        .line(line("price_pro", -5_000, rest).prorated())
        .line(line("price_pro", 15_000, rest).quantity(3).prorated())
        .paid_at(rest.0);
    let state = subscription("sub_1", "price_pro").of(ANN).items(&[("price_pro", 3)]).during(period(0));
    c.twice(&state.updated("evt_more", rest.0));
    assert_eq!(c.balance(ANN), 6_000);
    c.twice(&more.paid("evt_more_paid"));
    assert_eq!(c.agreed_balance_and_debt(ANN), (16_000, 0), "10,000 - 5,000 + 15,000 - 4,000");
    c.twice(
        &renewal("in_1", "sub_1", PRO, 1)
            .with("lines", json!({"object": "list", "data": []}))
            .line(line("price_pro", 30_000, period(1)).quantity(3))
            .paid("evt_paid_1"),
    );
    assert_eq!(c.agreed_balance_and_debt(ANN), (30_000, 0));
}

// Other things on an invoice.

#[test]
fn lines_of_one_price_for_one_period_are_one_lot_and_pack_lines_are_purchased() {
    let db = Database::with_catalog();
    let mut c = db.connect();
    c.twice(&subscription("sub_1", "price_pro").of(ANN).created("evt_created"));
    let paid = renewal("in_0", "sub_1", PRO, 0)
        .line(line("price_pack", 1_000, period(0)).quantity(2))
        .line(line("price_pack", 1_000, period(0)))
        .line(line("price_tshirt", 2_000, period(0)));
    c.twice(&paid.paid("evt_paid"));
    assert_eq!(c.ledger(ANN), ["subscription_grant 10000", "purchase 1500"]);
    let pools: String = c.one(
        "select concat_ws(' ', subscription_credits_balance, purchased_credits_balance) from billing.user_credits",
        &[],
    );
    assert_eq!(pools, "10000 1500");
    c.twice(&renewal("in_1", "sub_1", PRO, 1).paid("evt_paid_1"));
    assert_eq!(c.agreed_balance_and_debt(ANN), (11_500, 0), "a renewal takes no pack");
}

#[test]
fn an_invoice_with_more_lines_than_it_carries_asks_for_all_of_them() {
    let db = Database::with_catalog();
    let mut c = db.connect();
    c.twice(&subscription("sub_1", "price_pro").of(ANN).created("evt_created"));
    let whole = renewal("in_0", "sub_1", PRO, 0).line(line("price_pack", 1_000, period(0)));
    for missing in [
        renewal("in_0", "sub_1", PRO, 0).with_more_lines(),
        invoice("in_0", "sub_1").with("lines", Value::Null),
    ] {
        c.run("begin");
        let paid = missing.paid("evt_paid");
        let asked = c.apply(&paid);
        assert_eq!(asked.summary(), "needs_fetch");
        assert_eq!(asked.to_fetch, Some(vec!["/v1/invoices/in_0/lines?limit=100".into()]));
        assert_eq!(c.inbox("evt_paid").as_deref(), Some("needs_fetch"));
        assert_eq!(c.apply_fetched(&paid, &nothing_fetched()).summary(), "parked unfetched");
        let answer = fetched(CREATED + 5, &[&whole.lines()]);
        assert_eq!(c.apply_fetched(&paid, &answer).summary(), "applied");
        assert_eq!(c.ledger(ANN), ["subscription_grant 10000", "purchase 500"]);
        assert_eq!(c.apply(&paid).summary(), "already_applied");
        c.run("rollback");
    }
}

#[test]
fn an_invoice_that_only_credits_unused_time_takes_that_time_back() {
    let db = Database::with_catalog();
    let mut c = db.connect();
    subscribe_to_pro(&mut c);
    let rest = (half_time(0), month(1));
    let credit = invoice("in_credit", "sub_1").mid_period().line(line("price_pro", -5_000, rest).prorated());
    assert_eq!(c.twice(&credit.paid_at(rest.0).paid("evt_credit")), "applied");
    assert_eq!(c.agreed_balance_and_debt(ANN), (5_000, 0));
    assert_eq!(c.ledger(ANN), ["subscription_grant 10000", "reversal -5000"]);
}

#[test]
fn an_invoice_whose_copy_names_another_user_follows_its_subscription() {
    let db = Database::with_catalog();
    let mut c = db.connect();
    subscribe_to_pro(&mut c);
    let other = event("evt_bob", "invoice.paid", renewal("in_0", "sub_1", PRO, 0).of(BOB).json().clone());
    let outcome = c.apply(&other);
    assert_eq!((outcome.summary().as_str(), outcome.user_id), ("already_applied", Some(ANN)));
    assert_eq!((c.ledger(ANN).len(), c.ledger(BOB).len()), (1, 0));
}

#[test]
fn two_subscriptions_of_one_user_both_grant_and_the_higher_one_names_the_tier() {
    let db = Database::with_catalog();
    let mut c = db.connect();
    subscribe_to_pro(&mut c);
    let better = subscription("sub_2", "price_max").of(ANN);
    c.twice(&better.created("evt_created_2"));
    c.twice(&renewal("in_max", "sub_2", MAX, 0).paid("evt_paid_max"));
    assert_eq!((c.agreed_balance_and_debt(ANN), c.tier(ANN)), ((40_000, 0), "max active".into()));
    c.twice(&renewal("in_1", "sub_1", PRO, 1).paid("evt_paid_1"));
    assert_eq!(c.agreed_balance_and_debt(ANN), (40_000, 0), "a renewal of one leaves the other alone");
    c.twice(&better.clone().status("past_due").updated("evt_due", CREATED + 100));
    assert_eq!(c.tier(ANN), "max past_due");
    c.twice(&better.clone().status("unpaid").updated("evt_unpaid", CREATED + 200));
    assert_eq!(c.tier(ANN), "pro active");
    c.twice(&better.deleted("evt_deleted", CREATED + 300));
    assert_eq!((c.agreed_balance_and_debt(ANN), c.tier(ANN)), ((40_000, 0), "pro active".into()));
}
