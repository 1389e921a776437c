//! The free plan: time alone grants each month to users who signed up and have no paid tier, and reads are right before
//! anything has posted it, however late that is.

use serde_json::{Value, json};
use stripe_credits_tests::refunds::refund;
use stripe_credits_tests::subscription::{invoice, line, subscription};
use stripe_credits_tests::{ANN, BOB, Connection, Database, catalog, paid_pack};

const DAY: i64 = 86_400;

/// The catalog with 5 free credits a month, and 500 for signing up.
fn with_free_plan() -> Value {
    let mut catalog = catalog();
    catalog["free_plan"] = json!({"key": "free_tier", "name": "Free", "credits": 5, "every": "1 month"});
    catalog
}

fn database() -> Database {
    let db = Database::new();
    db.connect().load_catalog(&with_free_plan());
    db
}

#[test]
fn a_user_gets_each_months_free_credits_and_loses_what_is_left_of_the_last() {
    let db = database();
    let mut c = db.connect();
    c.sign_up(ANN);
    assert_eq!(c.settled_balance_and_debt(ANN), (505, 0));
    assert_eq!(c.my_credits(ANN), (505, 0));
    assert_eq!(c.ledger(ANN), ["signup 500", "grant 5"]);
    c.advance_time(ANN, "1 month");
    assert_eq!(c.settled_balance_and_debt(ANN), (505, 0), "not 510");
    assert_eq!(c.run_due(), 1);
    assert_eq!(c.ledger(ANN), ["signup 500", "grant 5", "expiry -5", "grant 5"]);
    c.spend(ANN, 3, "job-1");
    c.advance_time(ANN, "1 month");
    assert_eq!(c.settled_balance_and_debt(ANN), (505, 0), "free months are spent first");
}

#[test]
fn months_that_were_never_read_are_not_saved_up() {
    let db = database();
    let mut c = db.connect();
    c.sign_up(ANN);
    c.advance_time(ANN, "7 months");
    assert_eq!(c.settled_balance_and_debt(ANN), (505, 0));
    assert_eq!(c.spend(ANN, 505, "job-1").summary(), "applied");
    assert_eq!(c.spend(ANN, 1, "job-2").summary(), "rejected insufficient_credits");
}

#[test]
fn a_user_who_never_signed_up_gets_no_free_month() {
    let db = database();
    let mut c = db.connect();
    c.apply(&paid_pack("cs_1", BOB).completed("evt_1"));
    c.advance_time(BOB, "2 months");
    c.run_due();
    assert_eq!(c.balance_and_debt(BOB), (500, 0));
}

#[test]
fn a_plan_stops_the_free_months_and_its_end_brings_them_again() {
    let db = database();
    let mut c = db.connect();
    c.sign_up(ANN);
    let now = c.unix_now();
    let span = (now, now + 30 * DAY);
    let state = subscription("sub_1", "price_pro").of(ANN).during(span);
    c.apply(&state.event("evt_created", "created", now));
    c.apply(&invoice("in_1", "sub_1").line(line("price_pro", 10_000, span)).paid_at(now).paid("evt_paid"));
    let before = c.settled_balance_and_debt(ANN).0;
    assert!([10_500, 10_505].contains(&before), "the month that had begun may stay: {before}");
    c.advance_time(ANN, "2 months");
    assert_eq!(c.settled_balance_and_debt(ANN), (10_500, 0), "no free month beside a plan");
    c.apply(&state.deleted("evt_deleted", now + 100));
    assert_eq!((c.settled_balance_and_debt(ANN), c.tier(ANN)), ((10_505, 0), "free canceled".into()));
    c.advance_time(ANN, "1 month");
    assert_eq!(c.settled_balance_and_debt(ANN), (10_505, 0));
}

#[test]
fn a_free_plan_that_is_new_in_the_catalog_reaches_those_who_signed_up_before_it() {
    let db = Database::with_catalog();
    let mut c = db.connect();
    c.sign_up(ANN);
    c.advance_time(ANN, "3 months");
    assert_eq!(c.settled_balance_and_debt(ANN), (500, 0));
    c.load_catalog(&with_free_plan());
    assert_eq!(c.settled_balance_and_debt(ANN), (505, 0));
    c.load_catalog(&catalog());
    c.advance_time(ANN, "2 months");
    assert_eq!(c.settled_balance_and_debt(ANN), (500, 0), "no free plan any more");
}

#[test]
fn a_free_plan_that_is_new_waits_for_no_account_and_takes_a_batch_of_them_at_once() {
    let db = Database::with_catalog();
    let (mut c, mut busy) = (db.connect(), db.connect());
    c.run(
        "select count(billing.grant_signup_credits(('00000000-0000-4000-8000-' || lpad(n::text, 12, '0'))::uuid))
         from generate_series(1, 1100) n",
    );
    c.sign_up(ANN);
    busy.run(&format!("begin; select from billing.accounts where user_id = '{ANN}' for update"));
    c.load_catalog(&with_free_plan());
    let begun = |c: &mut Connection| -> i64 {
        c.one("select count(*) from billing.accounts where free_next_at is not null", &[])
    };
    let by_the_load = begun(&mut c);
    assert!(
        (999..=1000).contains(&by_the_load),
        "{by_the_load} of a batch, in which the one that is busy may be"
    );
    while c.one::<i64>("select billing.retry_due()", &[]) > 0 {}
    assert_eq!(begun(&mut c), 1100, "all but the one that is busy");
    busy.run("rollback");
    assert_eq!(c.one::<i64>("select billing.retry_due()", &[]), 1);
    assert_eq!(c.agreed_balance_and_debt(ANN), (505, 0), "also by who reads before it is posted");
    while c.run_due() > 0 {}
    assert_eq!(c.agreed_balance_and_debt(ANN), (505, 0));
    assert_eq!(c.one::<i64>("select count(*) from billing.repricings", &[]), 0);
}

#[test]
fn a_free_month_that_began_before_a_new_free_plan_reached_the_account_stays() {
    let db = Database::with_catalog();
    let (mut c, mut busy) = (db.connect(), db.connect());
    c.sign_up(ANN);
    busy.run(&format!("begin; select from billing.accounts where user_id = '{ANN}' for update"));
    c.load_catalog(&with_free_plan());
    busy.run("rollback");
    // Signed up after the load, while the accounts that were there before it still wait.
    c.sign_up(BOB);
    while c.run_due() > 0 {}
    c.run("update billing.repricings set busy = busy || (select array_agg(user_id) from billing.accounts)");
    while c.one::<i64>("select billing.retry_due()", &[]) + c.run_due() > 0 {}
    for user in [ANN, BOB] {
        assert_eq!(c.ledger(user), ["signup 500", "grant 5"]);
    }
}

#[test]
fn a_free_plan_that_is_taken_away_and_brought_back_grants_the_month_once() {
    let db = database();
    let mut c = db.connect();
    c.sign_up(ANN);
    while c.run_due() > 0 {}
    c.load_catalog(&catalog());
    c.load_catalog(&with_free_plan());
    while c.run_due() > 0 {}
    assert_eq!(c.agreed_balance_and_debt(ANN), (505, 0));
    assert_eq!(c.ledger(ANN), ["signup 500", "grant 5"]);
}

#[test]
fn a_debt_takes_of_each_free_month_first() {
    let db = database();
    let mut c = db.connect();
    c.apply(&paid_pack("cs_1", ANN).completed("evt_1"));
    c.spend(ANN, 500, "job-1");
    c.apply(&refund("re_1", "pi_1", 1000).event("evt_2", "refund.created"));
    assert_eq!(c.balance_and_debt(ANN), (0, 500));
    c.load_catalog(&{
        let mut catalog = with_free_plan();
        catalog["signup_credits"] = json!(0);
        catalog
    });
    c.sign_up(ANN);
    assert_eq!(c.settled_balance_and_debt(ANN), (0, 495));
    c.advance_time(ANN, "3 months");
    assert_eq!(
        c.settled_balance_and_debt(ANN),
        (0, 480),
        "each month that came and went was taken by the debt"
    );
}

#[test]
fn zero_free_credits_mean_no_free_plan() {
    let db = Database::new();
    let mut c = db.connect();
    let mut catalog = with_free_plan();
    catalog["free_plan"]["credits"] = json!(0);
    c.load_catalog(&catalog);
    c.sign_up(ANN);
    c.advance_time(ANN, "2 months");
    assert_eq!(c.settled_balance_and_debt(ANN), (500, 0));
    assert_eq!(c.ledger(ANN), ["signup 500"]);
}
