//! Scenarios of credits that are held: committed for less, released, abandoned, and returned to grants that have expired meanwhile.

use stripe_credits_tests::concurrency::blocked;
use stripe_credits_tests::{ANN, BOB, Connection, Database};

// Reservations.

#[test]
fn scenario_28_a_reservation_committed_for_less_gives_the_rest_back() {
    let db = Database::with_catalog();
    let mut c = db.connect();
    c.buy(ANN, "cs_1");
    let held = c.reserve(ANN, 100, "job-1");
    assert_eq!((held.summary().as_str(), held.credits, held.balance_and_debt()), ("applied", -100, (400, 0)));
    assert_eq!(c.balance(ANN), 400);
    let ended = c.commit(ANN, "job-1", Some(60));
    assert_eq!(
        (ended.summary().as_str(), ended.credits, ended.balance_and_debt()),
        ("applied", 40, (440, 0))
    );
    assert_eq!(c.ledger(ANN), ["purchase 500", "reservation -100", "release 40"]);
    assert_eq!(c.request(ANN, "job-1"), ["reservation -100 of cs_1", "release 40 of cs_1"]);
    assert_eq!(c.commit(ANN, "job-1", Some(60)).summary(), "already_applied");
    assert_eq!(c.commit(ANN, "job-1", Some(61)).summary(), "rejected conflict");
    assert_eq!(c.commit(ANN, "job-1", None).summary(), "rejected conflict");
    assert_eq!(c.release(ANN, "job-1").summary(), "rejected conflict");
    assert_eq!(c.balance(ANN), 440);
}

#[test]
fn scenario_28_an_abandoned_reservation_is_read_as_returned_before_it_is_posted() {
    type Access = fn(&mut Connection);
    let accesses: [(&str, Access); 5] = [
        ("run_due", |c| assert_eq!(c.run_due(), 1)),
        ("a repeated spend", |c| assert_eq!(c.spend(ANN, 1, "job-0").summary(), "already_applied")),
        ("its commit", |c| assert_eq!(c.commit(ANN, "job-1", None).summary(), "rejected reservation_ended")),
        ("its release", |c| assert_eq!(c.release(ANN, "job-1").summary(), "already_applied")),
        ("its repetition", |c| {
            let again = c.reserve(ANN, 100, "job-1");
            assert_eq!(again.summary(), "already_applied");
            assert_eq!(again.details.expect("details")["status"], "expired");
        }),
    ];
    for (access, by) in accesses {
        let db = Database::with_catalog();
        let mut c = db.connect();
        c.buy(ANN, "cs_1");
        c.spend(ANN, 1, "job-0");
        assert_eq!(c.reserve(ANN, 100, "job-1").summary(), "applied");
        assert_eq!(c.balance_and_debt(ANN), (399, 0));
        c.expire_reservation(ANN, "job-1");
        assert_eq!(c.balance_and_debt(ANN), (499, 0), "before {access}");
        assert_eq!(c.balance(ANN), 499, "before {access}");
        assert_eq!(c.ledger(ANN).len(), 3, "nothing has posted it");
        by(&mut c);
        assert_eq!(c.balance_and_debt(ANN), (499, 0), "after {access}");
        assert_eq!(
            c.ledger(ANN),
            ["purchase 500", "spend -1", "reservation -100", "release 100"],
            "{access}"
        );
        assert_eq!(c.run_due(), 0, "after {access} nothing is due");
    }
}

#[test]
fn scenario_28_an_abandoned_reservation_can_be_spent_by_the_next_spend() {
    let db = Database::with_catalog();
    let mut c = db.connect();
    c.buy(ANN, "cs_1");
    c.reserve(ANN, 400, "job-1");
    assert_eq!(c.spend(ANN, 500, "job-2").summary(), "rejected insufficient_credits");
    c.expire_reservation(ANN, "job-1");
    let spent = c.spend(ANN, 500, "job-2");
    assert_eq!(
        (spent.summary().as_str(), spent.credits, spent.balance_and_debt()),
        ("applied", -500, (0, 0))
    );
    assert_eq!(c.ledger(ANN), ["purchase 500", "reservation -400", "release 400", "spend -500"]);
}

#[test]
fn a_reservation_is_committed_whole_by_default_and_leaves_no_row_then() {
    let db = Database::with_catalog();
    let mut c = db.connect();
    c.buy(ANN, "cs_1");
    c.reserve(ANN, 100, "job-1");
    let ended = c.commit(ANN, "job-1", None);
    assert_eq!((ended.summary().as_str(), ended.credits), ("applied", 0));
    assert_eq!(c.commit(ANN, "job-1", None).summary(), "already_applied");
    assert_eq!(c.commit(ANN, "job-1", Some(100)).summary(), "already_applied");
    assert_eq!(c.ledger(ANN), ["purchase 500", "reservation -100"]);
    assert_eq!(c.balance(ANN), 400);
}

#[test]
fn a_commit_for_less_returns_to_the_grants_that_were_drawn_last() {
    let db = Database::with_catalog();
    let mut c = db.connect();
    c.buy(ANN, "cs_1");
    c.grant(ANN, 50, "gift");
    c.grant_for_days(ANN, 30, "soon", 1);
    assert_eq!(c.reserve(ANN, 200, "job-1").summary(), "applied");
    assert_eq!(c.grants(ANN), ["cs_1 380", "grant:gift 0", "grant:soon 0"]);
    assert_eq!(c.commit(ANN, "job-1", Some(45)).credits, 155);
    assert_eq!(
        c.grants(ANN),
        ["cs_1 500", "grant:gift 35", "grant:soon 0"],
        "as a spend of 45 would have left them"
    );
    let mut returned = c.request(ANN, "job-1").split_off(3);
    returned.sort();
    assert_eq!(returned, ["release 120 of cs_1", "release 35 of grant:gift"]);
}

#[test]
fn a_reservations_end_that_cannot_be_is_refused_and_takes_nothing() {
    let db = Database::with_catalog();
    let mut c = db.connect();
    c.buy(ANN, "cs_1");
    c.reserve(ANN, 100, "job-1");
    let before = c.everything();
    assert_eq!(c.commit(ANN, "job-1", Some(101)).summary(), "rejected exceeds_reservation");
    assert_eq!(c.commit(ANN, "job-2", None).summary(), "rejected unknown_reservation");
    assert_eq!(c.release(ANN, "job-2").summary(), "rejected unknown_reservation");
    assert_eq!(
        c.commit(BOB, "job-1", Some(1)).summary(),
        "rejected unknown_reservation",
        "it is another user's"
    );
    let annes = |all: std::collections::BTreeMap<String, Vec<String>>| -> Vec<String> {
        let of_ann = |row: &String| row.contains(&ANN.to_string());
        all.into_values().flatten().filter(of_ann).collect()
    };
    assert_eq!(annes(c.everything()), annes(before));
    assert_eq!(c.release(ANN, "job-1").summary(), "applied");
    assert_eq!(c.commit(ANN, "job-1", None).summary(), "rejected reservation_ended");
}

#[test]
fn a_reservation_released_twice_is_released_once() {
    let db = Database::with_catalog();
    let mut c = db.connect();
    c.buy(ANN, "cs_1");
    c.reserve(ANN, 100, "job-1");
    assert_eq!(c.release(ANN, "job-1").credits, 100);
    let again = c.release(ANN, "job-1");
    assert_eq!(
        (again.summary().as_str(), again.credits, again.balance_and_debt()),
        ("already_applied", 0, (500, 0))
    );
    assert_eq!(c.ledger(ANN), ["purchase 500", "reservation -100", "release 100"]);
    let repeated = c.reserve(ANN, 100, "job-1");
    assert_eq!(repeated.summary(), "already_applied", "a request id is used once");
    assert_eq!(repeated.details.expect("details")["status"], "released");
    assert_eq!(c.balance(ANN), 500);
}

#[test]
fn a_request_id_is_a_spends_or_a_reservations_and_never_both() {
    let db = Database::with_catalog();
    let mut c = db.connect();
    c.buy(ANN, "cs_1");
    c.reserve(ANN, 100, "job-1");
    c.spend(ANN, 50, "job-2");
    let before = c.everything();
    assert_eq!(c.spend(ANN, 100, "job-1").summary(), "rejected conflict");
    assert_eq!(c.reserve(ANN, 50, "job-2").summary(), "rejected conflict");
    assert_eq!(c.reserve(ANN, 101, "job-1").summary(), "rejected conflict");
    assert_eq!(c.release(ANN, "job-2").summary(), "rejected unknown_reservation");
    assert_eq!(c.commit(ANN, "job-2", None).summary(), "rejected unknown_reservation");
    assert_eq!(c.everything(), before);
    c.commit(ANN, "job-1", Some(100));
    assert_eq!(c.spend(ANN, 100, "job-1").summary(), "rejected conflict", "after its end too");
    assert_eq!(c.grant(ANN, 7, "job-1").summary(), "applied", "a grant's key is another thing");
    assert_eq!(c.balance(ANN), 357);
}

#[test]
fn a_release_and_a_commit_at_once_end_a_reservation_once() {
    let commit = |c: &mut Connection| c.commit(ANN, "job-1", Some(60)).summary();
    let release = |c: &mut Connection| c.release(ANN, "job-1").summary();
    let db = Database::with_catalog();
    let mut c = db.connect();
    c.buy(ANN, "cs_1");
    c.reserve(ANN, 100, "job-1");
    let outcomes = blocked(&db, commit, release);
    assert_eq!((outcomes.0.as_str(), outcomes.1.as_str()), ("applied", "rejected conflict"));
    assert_eq!(c.balance(ANN), 440);
    let db = Database::with_catalog();
    let mut c = db.connect();
    c.buy(ANN, "cs_1");
    c.reserve(ANN, 100, "job-1");
    let outcomes = blocked(&db, release, commit);
    assert_eq!((outcomes.0.as_str(), outcomes.1.as_str()), ("applied", "rejected reservation_ended"));
    assert_eq!(c.balance(ANN), 500);
}

#[test]
fn what_returns_to_an_expired_grant_is_not_spendable() {
    type End = fn(&mut Connection);
    let ends: [(&str, End); 3] = [
        ("release", |c| assert_eq!(c.release(ANN, "job-1").summary(), "applied")),
        ("commit", |c| assert_eq!(c.commit(ANN, "job-1", Some(10)).summary(), "applied")),
        ("its time", |c| {
            c.expire_reservation(ANN, "job-1");
            assert_eq!(c.balance_and_debt(ANN), (0, 0), "the read model says so before anything posted it");
            assert_eq!(c.run_due(), 1);
        }),
    ];
    for (end, by) in ends {
        let db = Database::with_catalog();
        let mut c = db.connect();
        c.grant_for_days(ANN, 100, "gift", 1);
        assert_eq!(c.reserve(ANN, 100, "job-1").summary(), "applied");
        c.expire_grants(ANN, "grant:gift");
        by(&mut c);
        assert_eq!((c.balance(ANN), c.grants(ANN)), (0, vec!["grant:gift 0".to_owned()]), "{end}");
        assert_eq!(c.spend(ANN, 1, "job-2").summary(), "rejected insufficient_credits", "{end}");
        let back = if end == "commit" { 90 } else { 100 };
        let expected = [
            "grant 100".to_owned(),
            "reservation -100".into(),
            format!("release {back}"),
            format!("expiry -{back}"),
        ];
        assert_eq!(c.ledger(ANN), expected, "{end}");
    }
}

#[test]
fn a_release_that_expires_at_once_says_that_nothing_came_back() {
    let db = Database::with_catalog();
    let mut c = db.connect();
    c.buy(ANN, "cs_1");
    c.grant_for_days(ANN, 100, "gift", 1);
    c.reserve(ANN, 150, "job-1");
    c.expire_grants(ANN, "grant:gift");
    let released = c.release(ANN, "job-1");
    assert_eq!(
        (released.credits, released.balance_and_debt()),
        (50, (500, 0)),
        "50 of the pack, none of the gift"
    );
}

#[test]
fn a_reservations_time_is_above_nothing_and_at_most_thirty_days() {
    let db = Database::with_catalog();
    let mut c = db.connect();
    c.buy(ANN, "cs_1");
    let reserve = |ttl: &str| format!("reserve_credits($1, 1, '{ttl}', '{ttl}')");
    for ttl in [
        "0",
        "-1 second",
        "-1 microsecond",
        "-1 day",
        "31 days",
        "30 days 1 second",
        "30 days 1 microsecond",
        "2 months",
        "1 year",
        "1 day -24 hours",
        "178000000 years",
    ] {
        let fault = c.try_call(&reserve(ttl), &[&ANN]).expect_err(ttl);
        assert_eq!(fault.code, "22023", "{ttl}: {fault:?}");
        assert!(fault.message.contains("p_ttl"), "{fault:?}");
    }
    for ttl in ["1 microsecond", "30 days", "1 month", "720 hours", "-1 day +25 hours"] {
        assert_eq!(c.call(&reserve(ttl), &[&ANN]).summary(), "applied", "{ttl}");
    }
    let null = c.try_call("reserve_credits($1, 1, 'x', null)", &[&ANN]).expect_err("null");
    assert_eq!(null.code, "22004");
    let until: bool = c.one(
        "select expires_at = created_at + interval '30 days' from billing.reservations where request_id = '30 days'",
        &[],
    );
    assert!(until);
    let default = "select expires_at = created_at + interval '15 minutes' from billing.reservations where request_id = 'd'";
    c.reserve(ANN, 1, "d");
    assert!(c.one::<bool>(default, &[]));
}

#[test]
fn wrong_calls_of_spending_name_what_is_wrong() {
    let db = Database::with_catalog();
    let mut c = db.connect();
    for (call, code) in [
        ("spend_credits(null, 1, 'r')", "22004"),
        ("spend_credits($1, null, 'r')", "22004"),
        ("spend_credits($1, 1, null)", "22004"),
        ("spend_credits($1, 0, 'r')", "22023"),
        ("spend_credits($1, -1, 'r')", "22023"),
        ("spend_credits($1, 1, '  ')", "22023"),
        ("spend_credits($1, 1000000000001, 'r')", "22003"),
        ("reserve_credits($1, 0, 'r')", "22023"),
        ("reserve_credits($1, 1, '')", "22023"),
        ("commit_reservation($1, null)", "22004"),
        ("commit_reservation($1, 'r', 0)", "22023"),
        ("commit_reservation($1, 'r', -1)", "22023"),
        ("release_reservation(null, 'r')", "22004"),
        ("release_reservation($1, ' ')", "22023"),
    ] {
        let with_user = call.replace("$1", &format!("'{ANN}'"));
        let fault = c.try_call(&with_user, &[]).expect_err(call);
        assert_eq!(fault.code, code, "{call}: {fault:?}");
        assert!(!fault.detail.is_empty(), "{call}: the value is in the DETAIL");
    }
    for call in ["run_due(0)", "run_due(-1)", "run_due(null)"] {
        c.refusal(&format!("select billing.{call}"));
    }
}
