//! What a change of the catalog changes in accounts: a batch at once, and the rest while deliveries are applied in between.

use serde_json::{Value, json};
use stripe_credits_tests::plans::plan_catalog;
use stripe_credits_tests::stripe::CREATED;
use stripe_credits_tests::subscription::{self, PRO, invoice, line, months_after, period, subscription};
use stripe_credits_tests::{ANN, BOB, Connection, Database, user};
use uuid::Uuid;

/// How many accounts one transaction updates.
const BATCH: i64 = 20;

/// The catalog in which pro's price was listed as a pack by mistake.
fn wrong_catalog() -> Value {
    let mut wrong = plan_catalog();
    wrong["plans"].as_array_mut().expect("plans").retain(|plan| plan["key"] != "pro");
    wrong["packs"] = json!([{ "key": "pro_pack", "credits": 10_000, "prices": ["price_pro"] }]);
    wrong
}

/// Lets a user subscribe to pro, from a time on at which the catalog will have been corrected.
fn subscribes(c: &mut Connection, n: usize, owner: Uuid) {
    let now = c.unix_now();
    let span = (now + 3600, months_after(now + 3600, 1));
    let state = subscription(&format!("sub_{n}"), "price_pro").of(owner).during(span);
    assert_eq!(c.apply(&state.updated(&format!("evt_{n}"), now)).summary(), "applied");
}

fn on_pro(c: &mut Connection) -> i64 {
    c.one("select count(*) from billing.user_credits where subscription_tier = 'pro'", &[])
}

fn retry_due(c: &mut Connection) -> i64 {
    c.one("select billing.retry_due()", &[])
}

fn repricings(c: &mut Connection) -> i64 {
    c.one("select count(*) from billing.repricings", &[])
}

#[test]
fn load_catalog_updates_a_batch_of_subscribers_and_the_rest_is_due() {
    let db = Database::new();
    let mut c = db.connect();
    c.load_catalog(&wrong_catalog());
    for n in 0..50 {
        subscribes(&mut c, n, user(n as u128));
    }
    // Who does not subscribe is passed over.
    c.sign_up(user(1_000));
    assert_eq!(on_pro(&mut c), 0);
    c.load_catalog(&plan_catalog());
    assert_eq!((on_pro(&mut c), repricings(&mut c)), (BATCH, 1));
    assert_eq!((retry_due(&mut c), on_pro(&mut c)), (BATCH, 2 * BATCH));
    assert_eq!((c.one::<i64>("select billing.run_due()", &[]), on_pro(&mut c)), (11, 50));
    assert_eq!((retry_due(&mut c), repricings(&mut c)), (0, 0));
}

#[test]
fn two_loads_in_a_row_are_worked_off_one_after_the_other() {
    let db = Database::new();
    let mut c = db.connect();
    c.load_catalog(&wrong_catalog());
    for n in 0..30 {
        subscribes(&mut c, n, user(n as u128));
    }
    c.load_catalog(&plan_catalog());
    c.load_catalog(&wrong_catalog());
    assert_eq!(repricings(&mut c), 2);
    while retry_due(&mut c) > 0 {}
    assert_eq!((on_pro(&mut c), repricings(&mut c)), (0, 0), "by the row in force when the period begins");
}

#[test]
fn a_busy_account_holds_up_no_other_and_is_updated_when_it_is_free() {
    let db = Database::new();
    let (mut c, mut busy) = (db.connect(), db.connect());
    c.load_catalog(&wrong_catalog());
    subscribes(&mut c, 1, ANN);
    subscribes(&mut c, 2, BOB);
    busy.run(&format!("begin; select from billing.accounts where user_id = '{ANN}' for update"));
    c.load_catalog(&plan_catalog());
    assert_eq!((c.tier(ANN), c.tier(BOB)), ("free none".into(), "pro active".into()));
    assert_eq!((retry_due(&mut c), repricings(&mut c)), (0, 1), "all that is due is Ann's");
    busy.run("rollback");
    assert_eq!((retry_due(&mut c), c.tier(ANN)), (1, "pro active".into()));
    assert_eq!((retry_due(&mut c), repricings(&mut c)), (0, 0));
}

/// Pro's invoice with a line of a one-time price beside it.
fn with_setup(n: usize, owner: Uuid) -> subscription::Invoice {
    invoice(&format!("in_{n}"), &format!("sub_{n}"))
        .of(owner)
        .line(line(PRO.0, PRO.1, period(0)).item(&format!("si_{n}")))
        .line(line("price_setup", 700, (CREATED, CREATED)).billed_once())
        .paid_at(CREATED)
}

#[test]
fn a_line_that_the_catalog_gets_to_know_is_granted_and_is_no_fault_until_then() {
    let db = Database::new();
    let (mut c, mut busy) = (db.connect(), db.connect());
    c.load_catalog(&plan_catalog());
    for (n, owner) in [(1, ANN), (2, BOB)] {
        assert_eq!(c.apply(&with_setup(n, owner).paid(&format!("evt_{n}"))).summary(), "applied");
    }
    assert_eq!((c.balance(ANN), c.balance(BOB)), (10_000, 10_000), "the odd line is passed over");
    busy.run(&format!("begin; select from billing.accounts where user_id = '{ANN}' for update"));
    let mut wider = plan_catalog();
    wider["packs"]
        .as_array_mut()
        .expect("packs")
        .push(json!({ "key": "setup", "credits": 700, "prices": ["price_setup"] }));
    c.load_catalog(&wider);
    assert_eq!((c.balance(ANN), c.balance(BOB)), (10_000, 10_700));
    assert_eq!(c.faults(), [""; 0], "what is due is no fault");
    busy.run("rollback");
    assert_eq!((retry_due(&mut c), c.balance(ANN)), (1, 10_700));
    assert_eq!(c.ledger(ANN), ["subscription_grant 10000", "purchase 700"]);
    assert_eq!(c.faults(), [""; 0]);
}
