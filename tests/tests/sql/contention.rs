//! Every entry point at once: no deadlock, no failure, and the books end as if one call had come after the other.

use stripe_credits_tests::concurrency::{blocked_until, together};
use stripe_credits_tests::connection::Fault;
use stripe_credits_tests::{ANN, BOB, Connection, Database, catalog, paid_pack, session};

const CONNECTIONS: usize = 8;

type Call = Box<dyn Fn(&mut Connection) -> Result<(), Fault> + Send + Sync>;

fn outcome(call: &'static str) -> Call {
    Box::new(move |c| c.try_call(call, &[]).map(|_| ()))
}

fn rows(query: &'static str) -> Call {
    Box::new(move |c| c.query(query, &[]).map(|_| ()).map_err(Fault::from))
}

/// Packs of two users and three customers, with and without a user, through every entry point, and all upkeep.
fn calls() -> Vec<Call> {
    let mut calls: Vec<Call> = Vec::new();
    for n in 1..=6 {
        let user = if n % 2 == 0 { ANN } else { BOB };
        let customer = format!("cus_{}", n % 2);
        let named = paid_pack(&format!("cs_{n}"), user).with("customer", customer.as_str());
        let unowned = session(&format!("cs_unowned_{n}"))
            .metadata("price_id", "price_pack")
            .with("customer", customer.as_str());
        let unknown = paid_pack(&format!("cs_new_{n}"), user)
            .metadata("price_id", "price_new")
            .with("customer", customer.as_str());
        for session in [named.clone(), unowned, unknown] {
            let event = session.completed(&format!("evt_{}", session.id()));
            calls.push(Box::new(move |c| c.try_call("apply_stripe_event($1)", &[event.json()]).map(|_| ())));
        }
        calls.push(Box::new(move |c| {
            c.try_call("reconcile_checkout_session($1, $2)", &[named.json(), &user]).map(|_| ())
        }));
        let (session, intent) = (format!("cs_{n}"), format!("pi_{n}"));
        calls.push(Box::new(move |c| {
            c.try_call(
                "apply_stripe_credit_pack_purchase($1, 500, 'evt_direct', $2, $3, $4, 'price_pack')",
                &[&user, &session, &intent, &customer],
            )
            .map(|_| ())
        }));
        let request = format!("thanks-{n}");
        calls.push(Box::new(move |c| c.try_call("grant_credits($1, 7, $2)", &[&user, &request]).map(|_| ())));
        calls.push(Box::new(move |c| c.try_call("grant_signup_credits($1)", &[&user]).map(|_| ())));
    }
    calls.push(Box::new(|c| c.try_call("attribute('cus_0', $1)", &[&ANN]).map(|_| ())));
    calls.push(Box::new(|c| c.try_call("attribute('cus_1', $1)", &[&BOB]).map(|_| ())));
    calls.push(Box::new(|c| c.try_call("attribute('cs_unowned_2', $1)", &[&ANN]).map(|_| ())));
    calls.push(Box::new(|c| {
        let mut wanted = catalog();
        wanted["packs"][0]["prices"] = serde_json::json!(["price_pack", "price_new"]);
        c.query("select * from billing.load_catalog($1)", &[&wanted]).map(|_| ()).map_err(Fault::from)
    }));
    calls.push(rows("select * from billing.retry_parked()"));
    calls.push(rows("select billing.run_due()"));
    calls.push(rows("select billing.prune_stripe_events('1 day')"));
    calls.push(rows("select * from billing.validate_credits_consistency()"));
    calls.push(rows("select billing.credit_system_metrics()"));
    calls.push(Box::new(|c| {
        c.query("select billing.sync_user_credits($1)", &[&ANN]).map(|_| ()).map_err(Fault::from)
    }));
    calls.push(outcome("explain_event('{\"id\": \"evt_x\"}')"));
    calls
}

/// The same shuffle in every run.
fn shuffled(length: usize, seed: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..length).collect();
    let mut state = u64::try_from(seed).expect("small") + 0x9e37_79b9_7f4a_7c15;
    for last in (1..length).rev() {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let other = usize::try_from(state >> 33).expect("31 bits") % (last + 1);
        order.swap(last, other);
    }
    order
}

#[test]
fn every_entry_point_on_eight_connections_at_once_ends_as_in_sequence() {
    let calls = calls();
    let alone = Database::with_catalog();
    let mut c = alone.connect();
    for _ in 0..2 {
        for call in &calls {
            call(&mut c).expect("one after the other nothing fails");
        }
    }
    let expected = c.end_state();
    assert_eq!((c.balance(ANN), c.balance(BOB)), (5021, 5021), "9 packs, signup, 3 thanks each");

    let db = Database::with_catalog();
    let works: Vec<_> = (0..CONNECTIONS)
        .map(|seed| {
            let calls = &calls;
            move |c: &mut Connection| -> Vec<Fault> {
                let order = shuffled(calls.len(), seed);
                order.iter().filter_map(|index| calls[*index](c).err()).collect()
            }
        })
        .collect();
    let faults: Vec<Fault> = together(&db, works).concat();
    assert!(faults.is_empty(), "{faults:#?}");
    assert_eq!(db.connect().end_state(), expected);
    let waiting: i64 = db
        .connect()
        .one("select count(*) from billing.stripe_events where outcome in ('parked', 'needs_fetch')", &[]);
    assert_eq!(waiting, 0, "what waited was applied by itself");
}

#[test]
fn purchases_of_different_users_do_not_wait_for_each_other() {
    // Two users, two customers, two sessions: nothing in common, so no lock to wait for.
    let db = Database::with_catalog();
    let (mut one, mut other) = (db.connect(), db.connect());
    other.run("set lock_timeout = '1s'");
    one.run("begin");
    one.apply(&paid_pack("cs_1", ANN).with("customer", "cus_1").completed("evt_1"));
    let beside = other.apply(&paid_pack("cs_2", BOB).with("customer", "cus_2").completed("evt_2"));
    assert_eq!(beside.summary(), "applied");
    one.run("commit");
}

#[test]
fn reading_never_waits_for_a_purchase() {
    let db = Database::with_catalog();
    let (mut one, mut other) = (db.connect(), db.connect());
    other.run("set lock_timeout = '1s'");
    one.run("begin");
    one.apply(&paid_pack("cs_1", ANN).with("customer", "cus_1").completed("evt_1"));
    assert_eq!(other.balance(ANN), 0);
    other.run(&format!("set request.jwt.claims = '{{\"sub\": \"{ANN}\"}}'"));
    assert_eq!(other.one::<i64>("select count(*) from billing.my_transactions()", &[]), 0);
    one.run("commit");
    assert_eq!(other.balance(ANN), 500);
}

#[test]
fn a_first_transaction_that_rolls_back_leaves_the_purchase_to_the_second() {
    let db = Database::with_catalog();
    let paid = paid_pack("cs_1", ANN).with("customer", "cus_1");
    let (first, second) = blocked_until(
        "rollback",
        &db,
        |c| c.apply(&paid.completed("evt_1")).summary(),
        |c| c.apply(&paid.completed("evt_1")).summary(),
    );
    assert_eq!(first, "applied");
    assert_eq!(second, "applied");
    assert_eq!(db.connect().ledger(ANN), ["purchase 500"]);
}

#[test]
fn a_server_process_that_is_killed_in_the_middle_leaves_the_purchase_to_the_retry() {
    let db = Database::with_catalog();
    let paid = paid_pack("cs_1", ANN).with("customer", "cus_1");
    let (mut dying, mut c) = (db.connect(), db.connect());
    dying.run("begin");
    assert_eq!(dying.apply(&paid.completed("evt_1")).summary(), "applied");
    let process = dying.pid();
    assert!(c.one::<bool>("select pg_terminate_backend($1, 10000)", &[&process]));
    assert_eq!((c.inbox("evt_1"), c.balance(ANN)), (None, 0), "nothing is half-written");
    assert_eq!(c.apply(&paid.completed("evt_1")).summary(), "applied");
    assert_eq!(c.ledger(ANN), ["purchase 500"]);
}
