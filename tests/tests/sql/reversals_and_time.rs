//! Reversals of credits that expire, and reversals concurrent with purchases, spends and releases.

use serde_json::json;
use stripe_credits_tests::concurrency::{blocked, together, waits_for};
use stripe_credits_tests::refunds::{bought, charge, failed, refunded};
use stripe_credits_tests::{ANN, BOB, Connection, Database, catalog_of_packs, session};

// Expiry.

#[test]
fn what_expired_unspent_counts_as_given_back() {
    for swept in [true, false] {
        let db = Database::with_catalog();
        let mut c = db.connect();
        c.buy(ANN, "cs_1");
        c.spend(ANN, 100, "job-1");
        c.expire_grants(ANN, "cs_1");
        if swept {
            c.run_due();
        }
        c.apply(&refunded("re_1", "pi_1", 600));
        assert_eq!(c.balance_and_debt(ANN), (0, 0), "400 expired, 300 are wanted back");
        c.apply(&refunded("re_2", "pi_1", 400));
        assert_eq!(c.balance_and_debt(ANN), (0, 100), "what was spent is owed");
        c.apply(&failed("re_1", "pi_1", 600));
        assert_eq!(c.balance_and_debt(ANN), (0, 0));
        assert_eq!(c.grants(ANN), ["cs_1 0"], "what expired does not come back");
    }
}

/// A database that sells 200 credits for a year and 300 for good, both bought as `cs_1`.
fn short_and_long() -> Database {
    let db = Database::new();
    let mut c = db.connect();
    c.load_catalog(&catalog_of_packs(&json!([
        {"key": "short", "credits": 200, "prices": ["price_short"], "expires_after": "1 year"},
        {"key": "long", "credits": 300, "prices": ["price_long"]},
    ])));
    let created = c.unix_now();
    let both =
        session("cs_1").of(ANN).with("created", created).lines(&[("price_short", 1), ("price_long", 1)]);
    assert_eq!(c.reconcile(&both, ANN).credits, 500);
    db
}

/// The one that expires has expired.
fn short_expiries(c: &mut Connection) {
    c.run(
        "update billing.credit_grants set expires_at = clock_timestamp() - interval '1 millisecond'
         where item = 'price_short';
         update billing.accounts set next_due_at = clock_timestamp() - interval '1 millisecond'",
    );
    assert_eq!(c.run_due(), 1);
}

#[test]
fn a_partly_expired_pack_gives_back_what_is_left_of_it() {
    let db = short_and_long();
    let mut c = db.connect();
    short_expiries(&mut c);
    assert_eq!(c.balance(ANN), 300);
    // A refund takes its part of each of the payment's grants; what expired of one counts as given back there.
    assert_eq!(c.apply(&refunded("re_1", "pi_1", 600)).credits, -180, "six tenths of 300");
    assert_eq!(c.apply(&refunded("re_2", "pi_1", 400)).credits, -120);
    assert_eq!(c.balance_and_debt(ANN), (0, 0));
    assert_eq!(c.apply(&failed("re_2", "pi_1", 400)).credits, 120, "as if it had never been");
    assert_eq!(c.balance_and_debt(ANN), (120, 0));
}

#[test]
fn a_partial_refund_takes_its_part_of_each_so_expiry_before_or_after_is_the_same() {
    let refund = refunded("re_1", "pi_1", 600);
    for expiry_first in [true, false] {
        let db = short_and_long();
        let mut c = db.connect();
        if expiry_first {
            short_expiries(&mut c);
            c.apply(&refund);
        } else {
            c.apply(&refund);
            assert_eq!(c.balance(ANN), 200);
            short_expiries(&mut c);
        }
        assert_eq!(c.balance_and_debt(ANN), (120, 0), "expiry first: {expiry_first}");
    }
}

#[test]
fn a_refund_sent_again_after_an_expiry_changes_nothing() {
    let db = short_and_long();
    let mut c = db.connect();
    for amount in [200, 600] {
        c.run("begin");
        let refund = refunded("re_1", "pi_1", amount);
        c.apply(&refund);
        short_expiries(&mut c);
        let before = c.balance_and_debt(ANN);
        assert_eq!(c.apply(&refund).summary(), "already_applied", "{amount}");
        assert_eq!(c.balance_and_debt(ANN), before);
        c.run("rollback");
    }
}

#[test]
fn a_refund_that_fails_after_the_expiry_gives_nothing_back_to_spend() {
    let db = Database::with_catalog();
    let mut c = db.connect();
    c.buy(ANN, "cs_1");
    c.spend(ANN, 100, "job-1");
    c.apply(&refunded("re_1", "pi_1", 1000));
    assert_eq!(c.balance_and_debt(ANN), (0, 100));
    c.run("update billing.credit_grants set expires_at = clock_timestamp() - interval '1 second'");
    c.apply(&failed("re_1", "pi_1", 1000));
    assert_eq!(c.balance_and_debt(ANN), (0, 0));
}

// At once.

#[test]
fn refund_purchase_and_spend_at_once_end_in_one_of_the_two_ways_they_can() {
    type Work<'a> = Box<dyn FnOnce(&mut Connection) -> String + Send + 'a>;
    let db = Database::with_catalog();
    let mut spends = 0;
    for round in 0..50 {
        let user = stripe_credits_tests::user(1000 + round);
        let (session, intent) = (format!("cs_{round}"), format!("pi_{round}"));
        let purchase = bought(&session, user);
        let refund = refunded(&format!("re_{round}"), &intent, 1000);
        let works: Vec<Work> = vec![
            Box::new(|c| c.apply(&purchase).summary()),
            Box::new(|c| c.apply(&refund).summary()),
            Box::new(|c| c.spend(user, 200, "job-1").summary()),
            Box::new(|c| c.apply(&refund).summary()),
        ];
        let outcomes = together(&db, works);
        let mut c = db.connect();
        let spent = outcomes[2] == "applied";
        spends += usize::from(spent);
        let expected = if spent { (0, 200) } else { (0, 0) };
        assert_eq!(c.balance_and_debt(user), expected, "round {round}: {outcomes:?} {:?}", c.ledger(user));
    }
    println!("{spends} of 50 spends came between purchase and refund");
}

#[test]
fn overlapping_release_and_refund_end_the_same_in_both_orders() {
    let release = |c: &mut Connection| c.release(ANN, "job-1").summary();
    let refund = |c: &mut Connection| c.apply(&refunded("re_1", "pi_1", 1000)).summary();
    for release_first in [true, false] {
        let db = Database::with_catalog();
        let mut c = db.connect();
        c.buy(ANN, "cs_1");
        c.reserve(ANN, 300, "job-1");
        let outcomes =
            if release_first { blocked(&db, release, refund) } else { blocked(&db, refund, release) };
        assert_eq!((outcomes.0.as_str(), outcomes.1.as_str()), ("applied", "applied"));
        assert_eq!(c.balance_and_debt(ANN), (0, 0), "release first: {release_first}");
    }
}

#[test]
fn attributing_a_session_and_releasing_its_reversed_credits_do_not_deadlock() {
    // The session was paid by a direct call while its own event is still parked for want of a user.
    let db = Database::with_catalog();
    let (mut c, mut holder) = (db.connect(), db.connect());
    let unowned = session("cs_1").metadata("price_id", "price_pack");
    assert_eq!(c.apply(&unowned.completed("evt_1")).summary(), "parked unknown_user");
    c.call("apply_stripe_credit_pack_purchase($1, 500, 'evt', 'cs_1', 'pi_1')", &[&ANN]);
    c.reserve(ANN, 300, "job-1");
    c.apply(&charge("pi_1", 1000, 1000).event("evt_c", "charge.refunded"));
    assert_eq!(c.debt(ANN), 300);
    // Another transaction holds the account; the release waits for it first, then the attribution.
    holder.run(&format!("begin; select from billing.accounts where user_id = '{ANN}' for update"));
    let (mut one, mut two) = (db.connect(), db.connect());
    let waits = |pid: i32| {
        format!("select exists (select from pg_stat_activity where pid = {pid} and wait_event_type = 'Lock')")
    };
    let (first, second) = (waits(one.pid()), waits(two.pid()));
    std::thread::scope(|scope| {
        let releasing = scope.spawn(move || one.try_call("release_reservation($1, 'job-1')", &[&ANN]));
        waits_for(&mut c, &first);
        let attributing = scope.spawn(move || two.try_call("attribute('cs_1', $1)", &[&ANN]));
        waits_for(&mut c, &second);
        holder.run("commit");
        let released = releasing.join().expect("a thread");
        let attributed = attributing.join().expect("a thread");
        assert_eq!(released.map(|outcome| outcome.summary()), Ok("applied".to_owned()));
        assert!(attributed.is_ok(), "{attributed:?}");
    });
    assert_eq!(c.balance_and_debt(ANN), (0, 0));
}

#[test]
fn two_users_reversals_do_not_wait_for_each_other() {
    let db = Database::with_catalog();
    let (mut one, mut other) = (db.connect(), db.connect());
    one.buy(ANN, "cs_1");
    one.buy(BOB, "cs_2");
    other.run("set lock_timeout = '1s'");
    one.run("begin");
    one.apply(&refunded("re_1", "pi_1", 1000));
    assert_eq!(other.apply(&refunded("re_2", "pi_2", 1000)).summary(), "applied");
    one.run("commit");
}

#[test]
fn a_reservation_that_expired_before_its_grant_repays_debt_however_late_it_posts() {
    let mut ends = Vec::new();
    for late in [false, true] {
        let db = Database::with_catalog();
        let mut c = db.connect();
        c.buy(ANN, "cs_1");
        c.spend(ANN, 500, "job-1");
        c.grant_for_days(ANN, 100, "gift", 1);
        c.reserve(ANN, 100, "job-2");
        c.apply(&refunded("re_1", "pi_1", 1000));
        assert_eq!(c.balance_and_debt(ANN), (0, 500));
        c.expire_reservation(ANN, "job-2");
        if !late {
            assert_eq!(c.run_due(), 1);
        }
        c.expire_grants(ANN, "grant:gift");
        c.run_due();
        ends.push(c.balance_and_debt(ANN));
    }
    assert_eq!(ends, [(0, 400), (0, 400)]);
}
