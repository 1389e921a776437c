//! Scenario 55 and its neighbours: a spend that is given back, in part or whole, once per request id.

use stripe_credits_tests::concurrency::{blocked, together};
use stripe_credits_tests::refunds::refunded;
use stripe_credits_tests::subscription::{PRO, renewal, subscription};
use stripe_credits_tests::{ANN, BOB, Connection, Database};

/// 300 credits spent as `job-1`: 200 of a grant that expires, then 100 of a pack.
fn with_a_spend() -> Database {
    let db = Database::with_catalog();
    let mut c = db.connect();
    c.buy(ANN, "cs_1");
    c.grant_for_days(ANN, 200, "gift", 10);
    assert_eq!(c.spend(ANN, 300, "job-1").summary(), "applied");
    assert_eq!(c.grants(ANN), ["cs_1 400", "grant:gift 0"]);
    db
}

#[test]
fn scenario_55_a_spend_is_given_back_to_what_was_drawn_last_first() {
    let db = with_a_spend();
    let mut c = db.connect();
    let back = c.refund_spend(ANN, "job-1", "refund-1", Some(150));
    assert_eq!((back.summary().as_str(), back.credits, back.balance_and_debt()), ("applied", 150, (550, 0)));
    assert_eq!(c.request(ANN, "refund-1"), ["spend_refund 100 of cs_1", "spend_refund 50 of grant:gift"]);
    let again = c.refund_spend(ANN, "job-1", "refund-1", Some(150));
    assert_eq!((again.summary().as_str(), again.credits), ("already_applied", 0));
    assert_eq!(c.grants(ANN), ["cs_1 500", "grant:gift 50"]);
    let rest = c.refund_spend(ANN, "job-1", "refund-2", None);
    assert_eq!((rest.summary().as_str(), rest.credits, rest.balance_and_debt()), ("applied", 150, (700, 0)));
    assert_eq!(c.request(ANN, "refund-2"), ["spend_refund 150 of grant:gift"]);
    assert_eq!(c.refund_spend(ANN, "job-1", "refund-2", None).summary(), "already_applied");
    assert_eq!(c.grants(ANN), ["cs_1 500", "grant:gift 200"]);
    assert_eq!(
        c.ledger(ANN),
        [
            "purchase 500",
            "grant 200",
            "spend -200",
            "spend -100",
            "spend_refund 100",
            "spend_refund 50",
            "spend_refund 150"
        ]
    );
}

#[test]
fn no_more_is_given_back_than_was_spent() {
    let db = with_a_spend();
    let mut c = db.connect();
    let before = c.everything();
    assert_eq!(c.refund_spend(ANN, "job-1", "refund-1", Some(301)).summary(), "rejected exceeds_spend");
    assert_eq!(c.everything(), before, "it leaves no trace");
    assert_eq!(c.refund_spend(ANN, "job-1", "refund-1", Some(300)).summary(), "applied");
    for amount in [Some(1), None] {
        let more = c.refund_spend(ANN, "job-1", "refund-2", amount);
        assert_eq!(more.summary(), "rejected exceeds_spend", "{amount:?}");
    }
    assert_eq!(c.balance(ANN), 700);
}

#[test]
fn a_refund_of_an_unknown_spend_is_refused() {
    let db = with_a_spend();
    let mut c = db.connect();
    c.reserve(ANN, 10, "held");
    c.reserve(ANN, 10, "released");
    c.release(ANN, "released");
    let before = c.everything();
    for spend in ["job-2", "gift", "held", "released"] {
        let refused = c.refund_spend(ANN, spend, "refund-1", Some(1));
        assert_eq!(refused.summary(), "rejected unknown_spend", "{spend}");
    }
    assert_eq!(c.everything(), before);
    assert_eq!(c.refund_spend(BOB, "job-1", "refund-1", Some(1)).summary(), "rejected unknown_spend");
    assert_eq!(c.one::<i64>("select count(*) from billing.accounts where user_id = $1", &[&BOB]), 0);
}

#[test]
fn a_refunds_request_id_contradicts_itself_and_every_other_kind_of_request() {
    let db = with_a_spend();
    let mut c = db.connect();
    c.spend(ANN, 100, "job-2");
    c.reserve(ANN, 10, "job-3");
    c.refund_spend(ANN, "job-1", "refund-1", Some(50));
    let before = c.everything();
    for (spend, request_id, amount) in [
        ("job-1", "refund-1", Some(51)),
        ("job-2", "refund-1", Some(50)),
        ("job-2", "refund-1", None),
        ("job-1", "job-1", Some(50)),
        ("job-1", "job-2", Some(50)),
        ("job-1", "job-3", Some(50)),
    ] {
        let refused = c.refund_spend(ANN, spend, request_id, amount);
        assert_eq!(refused.summary(), "rejected conflict", "{spend} {request_id} {amount:?}");
    }
    assert_eq!(c.spend(ANN, 50, "refund-1").summary(), "rejected conflict");
    assert_eq!(c.reserve(ANN, 50, "refund-1").summary(), "rejected conflict");
    assert_eq!(c.everything(), before);
    let repeated = c.refund_spend(ANN, "job-1", "refund-1", None);
    assert_eq!(repeated.summary(), "already_applied", "without an amount it is whatever it was");
}

#[test]
fn of_a_committed_reservation_its_committed_part_is_given_back() {
    let db = Database::with_catalog();
    let mut c = db.connect();
    c.buy(ANN, "cs_1");
    c.grant_for_days(ANN, 200, "gift", 10);
    c.reserve(ANN, 300, "job-1");
    c.commit(ANN, "job-1", Some(250));
    assert_eq!(c.grants(ANN), ["cs_1 450", "grant:gift 0"]);
    assert_eq!(c.refund_spend(ANN, "job-1", "refund-1", Some(251)).summary(), "rejected exceeds_spend");
    assert_eq!(c.refund_spend(ANN, "job-1", "refund-1", Some(70)).credits, 70);
    assert_eq!(c.grants(ANN), ["cs_1 500", "grant:gift 20"]);
    assert_eq!(c.refund_spend(ANN, "job-1", "refund-2", None).credits, 180);
    assert_eq!(c.grants(ANN), ["cs_1 500", "grant:gift 200"]);
    assert_eq!(c.commit(ANN, "job-1", Some(250)).summary(), "already_applied");
    assert_eq!(c.release(ANN, "job-1").summary(), "rejected conflict");
}

#[test]
fn what_is_given_back_to_an_expired_grant_expires() {
    let db = with_a_spend();
    let mut c = db.connect();
    c.expire_grants(ANN, "grant:gift");
    let back = c.refund_spend(ANN, "job-1", "refund-1", None);
    assert_eq!((back.summary().as_str(), back.credits, back.balance_and_debt()), ("applied", 100, (500, 0)));
    assert_eq!(c.grants(ANN), ["cs_1 500", "grant:gift 0"]);
    assert_eq!(c.ledger(ANN).split_off(4), ["spend_refund 100", "spend_refund 200", "expiry -200"]);
    assert_eq!(c.refund_spend(ANN, "job-1", "refund-2", None).summary(), "rejected exceeds_spend");
}

#[test]
fn what_is_given_back_to_a_refunded_purchase_repays_its_debt() {
    let db = Database::with_catalog();
    let mut c = db.connect();
    c.buy(ANN, "cs_1");
    c.spend(ANN, 300, "job-1");
    c.apply(&refunded("re_1", "pi_1", 1000));
    assert_eq!(c.agreed_balance_and_debt(ANN), (0, 300));
    let back = c.refund_spend(ANN, "job-1", "refund-1", None);
    assert_eq!((back.summary().as_str(), back.balance_and_debt()), ("applied", (0, 0)));
    assert_eq!(c.agreed_balance_and_debt(ANN), (0, 0), "nothing was paid, nothing is spent, nothing is owed");
}

#[test]
fn what_is_given_back_to_a_plans_period_is_spendable_in_it() {
    let db = Database::with_catalog();
    let mut c = db.connect();
    c.apply(&subscription("sub_1", "price_pro").of(ANN).created("evt_1"));
    c.apply(&renewal("in_0", "sub_1", PRO, 0).paid("evt_2"));
    c.spend(ANN, 4000, "job-1");
    let back = c.refund_spend(ANN, "job-1", "refund-1", Some(1000));
    assert_eq!((back.credits, back.remaining_subscription), (1000, Some(7000)));
}

#[test]
fn one_refund_on_many_connections_at_once_gives_back_once() {
    let db = with_a_spend();
    let mut sorted = together(
        &db,
        vec![|c: &mut Connection| c.refund_spend(ANN, "job-1", "refund-1", Some(150)).summary(); 16],
    );
    sorted.sort_by_key(|outcome| outcome == "applied");
    assert_eq!(sorted.pop().as_deref(), Some("applied"));
    assert!(sorted.iter().all(|outcome| outcome == "already_applied"), "{sorted:?}");
    assert_eq!(db.connect().grants(ANN), ["cs_1 500", "grant:gift 50"]);
}

#[test]
fn many_refunds_of_one_spend_at_once_give_back_no_more_than_was_spent() {
    let db = with_a_spend();
    let outcomes = together(
        &db,
        (0..16)
            .map(|n| {
                move |c: &mut Connection| {
                    c.refund_spend(ANN, "job-1", &format!("refund-{n}"), Some(70)).summary()
                }
            })
            .collect(),
    );
    let applied = outcomes.iter().filter(|outcome| *outcome == "applied").count();
    let refused = outcomes.iter().filter(|outcome| *outcome == "rejected exceeds_spend").count();
    assert_eq!((applied, refused), (4, 12), "{outcomes:?}");
    let mut c = db.connect();
    assert_eq!(c.grants(ANN), ["cs_1 500", "grant:gift 180"]);
    assert_eq!(c.refund_spend(ANN, "job-1", "rest", None).credits, 20);
}

#[test]
fn a_refund_waits_for_the_spend_that_is_open_and_finds_it() {
    let db = Database::with_catalog();
    db.connect().buy(ANN, "cs_1");
    let spend = |c: &mut Connection| c.spend(ANN, 300, "job-1").summary();
    let refund = |c: &mut Connection| c.refund_spend(ANN, "job-1", "refund-1", None).summary();
    assert_eq!(blocked(&db, spend, refund), ("applied".to_owned(), "applied".to_owned()));
    assert_eq!(db.connect().balance(ANN), 500);
}

#[test]
fn wrong_calls_of_refund_spend_name_what_is_wrong() {
    let db = Database::with_catalog();
    let mut c = db.connect();
    for (call, code) in [
        ("refund_spend(null, 's', 'r')", "22004"),
        ("refund_spend($1, null, 'r')", "22004"),
        ("refund_spend($1, 's', null)", "22004"),
        ("refund_spend($1, ' ', 'r')", "22023"),
        ("refund_spend($1, 's', '')", "22023"),
        ("refund_spend($1, 's', 'r', 0)", "22023"),
        ("refund_spend($1, 's', 'r', -5)", "22023"),
        ("refund_spend($1, 's', 'r', 1000000000001)", "22003"),
    ] {
        let fault = c.try_call(&call.replace("$1", &format!("'{ANN}'")), &[]).expect_err(call);
        assert_eq!(fault.code, code, "{call}: {fault:?}");
        assert!(!fault.detail.is_empty(), "{call}: the value is in the DETAIL");
    }
}
