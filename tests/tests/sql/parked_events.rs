//! What waits costs nobody else: a batch at a time is judged again, no busy account holds it up, and a delivery reads none of
//! what is parked for others.

use std::sync::mpsc::channel;
use std::thread;

use serde_json::Value;
use stripe_credits_tests::subscription::invoice;
use stripe_credits_tests::{ANN, BOB, Connection, Database, catalog, paid_pack, session, user, waits_for};

/// The most parked events that one call judges again.
const BATCH: usize = 20;
/// The same, as the database counts.
const BATCH_ROWS: i64 = 20;

/// A payment for a price that the catalog does not know yet.
fn parked(c: &mut Connection, n: usize, owner: uuid::Uuid) {
    let pack = paid_pack(&format!("cs_{n}"), owner).metadata("price_id", "price_new");
    assert_eq!(c.apply(&pack.completed(&format!("evt_{n}"))).summary(), "parked unknown_price");
}

/// A payment of customer cus_1 that names no user.
fn unowned(c: &mut Connection, n: usize) {
    let pack = session(&format!("cs_{n}")).metadata("price_id", "price_pack").with("customer", "cus_1");
    assert_eq!(c.apply(&pack.completed(&format!("evt_{n}"))).summary(), "parked unknown_user");
}

/// The example's catalog with one more pack, worth 500.
fn catalog_with_new_pack() -> Value {
    let mut catalog = catalog();
    let mut pack = catalog["packs"][0].clone();
    pack["key"] = "new".into();
    pack["prices"] = serde_json::json!(["price_new"]);
    pack["credits"] = 500.into();
    catalog["packs"].as_array_mut().expect("packs").push(pack);
    catalog
}

fn granted(c: &mut Connection) -> i64 {
    c.one("select count(*) from billing.credit_transactions where transaction_type = 'purchase'", &[])
}

fn retry_due(c: &mut Connection) -> i64 {
    c.one("select billing.retry_due()", &[])
}

#[test]
fn load_catalog_applies_a_batch_and_every_upkeep_drains_the_rest() {
    let db = Database::with_catalog();
    let mut c = db.connect();
    for n in 0..4 * BATCH + 10 {
        parked(&mut c, n, user(n as u128));
    }
    c.load_catalog(&catalog_with_new_pack());
    assert_eq!(granted(&mut c), BATCH_ROWS, "by the load itself");
    assert_eq!(retry_due(&mut c), BATCH_ROWS);
    assert_eq!(c.one::<i64>("select billing.run_due()", &[]), BATCH_ROWS);
    assert_eq!(c.one::<i64>("select count(*) from billing.retry_parked($1)", &[&20]), BATCH_ROWS);
    assert_eq!(retry_due(&mut c), 10);
    assert_eq!(granted(&mut c), 4 * BATCH_ROWS + 10);
    assert_eq!((retry_due(&mut c), c.one::<i64>("select billing.run_due()", &[])), (0, 0));
}

#[test]
fn run_due_leaves_parked_events_alone_while_a_delivery_is_applied() {
    let db = Database::with_catalog();
    let (mut c, mut delivery) = (db.connect(), db.connect());
    (0..=BATCH).for_each(|n| parked(&mut c, n, user(n as u128)));
    c.load_catalog(&catalog_with_new_pack());
    delivery.run("begin");
    delivery.apply(&paid_pack("cs_x", BOB).completed("evt_x"));
    assert_eq!(c.one::<i64>("select billing.run_due()", &[]), 0);
    delivery.run("commit");
    c.run("begin isolation level serializable");
    assert_eq!(
        c.one::<i64>("select billing.run_due()", &[]),
        0,
        "nor at a level at which it could miss something"
    );
    c.run("commit");
    assert_eq!(c.one::<i64>("select billing.run_due()", &[]), 1);
}

#[test]
fn a_busy_account_holds_up_neither_the_catalog_nor_what_waits_for_others() {
    let db = Database::with_catalog();
    let (mut c, mut busy) = (db.connect(), db.connect());
    c.sign_up(ANN);
    // More of Ann's than a batch, and older than Bob's.
    (0..BATCH + 5).for_each(|n| parked(&mut c, n, ANN));
    parked(&mut c, 1000, BOB);
    busy.run(&format!("begin; select from billing.accounts where user_id = '{ANN}' for update"));
    c.load_catalog(&catalog_with_new_pack());
    assert_eq!((c.balance(ANN), c.balance(BOB)), (500, 500));
    assert_eq!(retry_due(&mut c), 0, "all that is due is Ann's");
    busy.run("rollback");
    assert_eq!((retry_due(&mut c), retry_due(&mut c), retry_due(&mut c)), (BATCH_ROWS, 5, 0));
    assert_eq!(c.balance(ANN), 500 + 500 * (BATCH_ROWS + 5));
}

#[test]
fn a_busy_account_holds_up_no_event_that_came_before_the_first_catalog() {
    let db = Database::new();
    let (mut c, mut busy) = (db.connect(), db.connect());
    c.grant(ANN, 7, "gift");
    for (n, owner) in [(1, ANN), (2, BOB)] {
        let event = paid_pack(&format!("cs_{n}"), owner).completed(&format!("evt_{n}"));
        assert_eq!(c.apply(&event).summary(), "parked no_catalog");
    }
    busy.run(&format!("begin; select from billing.accounts where user_id = '{ANN}' for update"));
    c.load_catalog(&catalog());
    assert_eq!((c.balance(ANN), c.balance(BOB)), (7, 500));
    busy.run("rollback");
    assert_eq!((retry_due(&mut c), c.balance(ANN)), (1, 507));
}

#[test]
fn what_would_block_every_delivery_waits_for_a_second_only() {
    let db = Database::with_catalog();
    let (mut c, mut stuck) = (db.connect(), db.connect());
    (0..=BATCH).for_each(|n| parked(&mut c, n, user(n as u128)));
    c.load_catalog(&catalog());
    stuck.run("begin");
    stuck.apply(&paid_pack("cs_x", ANN).completed("evt_x"));
    let load = format!("select * from billing.load_catalog('{}')", catalog());
    for call in [&load, "select * from billing.retry_parked()", "select billing.retry_due()"] {
        assert_eq!(c.refusal(call).code, "55P03", "{call}");
    }
    stuck.run("commit");
    c.run(&load);
}

#[test]
fn a_link_applies_a_batch_of_what_waited_for_it_and_the_rest_is_due() {
    for link in ["a delivery", "attribute"] {
        let db = Database::with_catalog();
        let mut c = db.connect();
        (0..BATCH + 15).for_each(|n| unowned(&mut c, n));
        if link == "attribute" {
            assert_eq!(c.attribute("cus_1", ANN).summary(), "applied");
        } else {
            let names_ann = paid_pack("cs_x", ANN).with("customer", "cus_1").completed("evt_x");
            assert_eq!(c.apply(&names_ann).summary(), "applied");
        }
        let more = i64::from(link == "a delivery");
        assert_eq!(granted(&mut c), BATCH_ROWS + more, "{link}");
        assert_eq!((retry_due(&mut c), retry_due(&mut c)), (15, 0), "{link}");
        assert_eq!(c.balance(ANN), 500 * (BATCH_ROWS + 15 + more), "{link}");
    }
}

#[test]
fn what_a_batch_unblocks_counts_as_part_of_it() {
    let db = Database::with_catalog();
    let mut c = db.connect();
    // A user that no catalog knows how to name, and whom the other payments of the customer wait for.
    let named = session("cs_named").metadata("price_id", "price_pack").metadata("user_id", "user_2abc");
    let named = named.with("customer", "cus_1").completed("evt");
    assert_eq!(c.apply(&named).summary(), "parked unknown_user");
    (0..2 * BATCH).for_each(|n| unowned(&mut c, n));
    let mut catalog = catalog();
    catalog["user_namespace"] = "6ba7b811-9dad-11d1-80b4-00c04fd430c8".into();
    c.load_catalog(&catalog);
    assert_eq!(
        granted(&mut c),
        BATCH_ROWS,
        "the one that names the user, and as many others as there was room for"
    );
    while retry_due(&mut c) > 0 {}
    assert_eq!(granted(&mut c), 2 * BATCH_ROWS + 1);
}

#[test]
fn a_delivery_waits_for_one_batch_however_many_drain() {
    let db = Database::with_catalog();
    let (mut c, mut second, mut delivery, mut observer) =
        (db.connect(), db.connect(), db.connect(), db.connect());
    (0..4 * BATCH).for_each(|n| parked(&mut c, n, user(n as u128)));
    c.load_catalog(&catalog_with_new_pack());
    let waiting = |connection: &mut Connection| -> String {
        let pid: i32 = connection.one("select pg_backend_pid()", &[]);
        format!("select exists (select from pg_locks where pid = {pid} and not granted)")
    };
    let (second_waits, delivery_waits) = (waiting(&mut second), waiting(&mut delivery));
    c.run("begin; select billing.retry_due()");
    thread::scope(|scope| {
        // It keeps what it gets until the delivery has been applied.
        let (applied, is_applied) = channel();
        let second = scope.spawn(move || {
            second.run("begin");
            let _ = second.attempt("select billing.retry_due()");
            is_applied.recv().expect("the delivery ends");
            second.run("rollback");
        });
        waits_for(&mut observer, &second_waits);
        let delivery = scope.spawn(move || {
            delivery.run("set lock_timeout = '20s'");
            delivery.apply(&paid_pack("cs_x", BOB).completed("evt_x")).summary()
        });
        waits_for(&mut observer, &delivery_waits);
        c.run("commit");
        assert_eq!(delivery.join().expect("the delivery"), "applied");
        applied.send(()).expect("the second waits for it");
        second.join().expect("the second");
    });
}

#[test]
fn a_delivery_that_unblocks_an_event_whose_payment_is_locked_leaves_it_due() {
    let db = Database::with_catalog();
    let (mut c, mut other, mut observer) = (db.connect(), db.connect(), db.connect());
    (1..=2).for_each(|n| unowned(&mut c, n));
    // Another delivery of the first payment, which waits for the customer that the link below has locked.
    c.run("begin");
    let again = session("cs_1").metadata("price_id", "price_pack").completed("evt_again");
    other.run("begin");
    other.apply(&again);
    let names_ann = paid_pack("cs_x", ANN).with("customer", "cus_1").completed("evt_x");
    assert_eq!(c.apply(&names_ann).summary(), "applied");
    c.run("commit");
    other.run("commit");
    assert_eq!(c.balance(ANN), 1000, "its own and the second");
    waits_for(&mut observer, "select billing.retry_due() = 1");
    assert_eq!(c.balance(ANN), 1500);
}

/// How many rows a statement reads of the inbox: index entries of what waits, and rows of the table.
fn rows_read(c: &mut Connection, work: impl FnOnce(&mut Connection)) -> (i64, i64) {
    c.run("begin");
    work(c);
    let index: i64 = c.one(
        "select sum(pg_stat_get_xact_tuples_returned(indexrelid))::bigint from pg_index
         where indrelid = 'billing.stripe_events'::regclass and indpred is not null",
        &[],
    );
    let table: i64 = c.one(
        "select pg_stat_get_xact_tuples_returned(oid) + pg_stat_get_xact_tuples_fetched(oid)
         from pg_class where oid = 'billing.stripe_events'::regclass",
        &[],
    );
    c.run("commit");
    (index, table)
}

#[test]
fn a_delivery_reads_nothing_of_what_is_parked_for_others_whatever_the_planner_knows() {
    for known in ["nothing", "an empty inbox", "what is parked"] {
        let db = Database::with_catalog();
        let mut c = db.connect();
        if known == "an empty inbox" {
            c.run("vacuum analyze billing.stripe_events");
        }
        // 4,000 of as many customers, and 1,000 of one, who has no user either.
        for (count, customer) in [(4_000, "'cus_' || n"), (1_000, "'cus_one'")] {
            c.run(&format!(
                "insert into billing.stripe_events (event_id, type, created, object_id, customer_id, payload, outcome,
                     reason, first_received_at, last_received_at, judged_at)
                 select {customer} || '_evt_' || n, 'invoice.paid', now(), 'in_' || n, {customer},
                     '{{\"object\": \"event\"}}', 'parked', 'unknown_user', now(), now(), now()
                 from generate_series(1, {count}) n"
            ));
        }
        if known == "what is parked" {
            c.run("vacuum analyze billing.stripe_events");
        }
        // A connection of its own, which has planned nothing yet; later deliveries run by its kept plans.
        let mut c = db.connect();
        for n in 0..12 {
            let (event_id, session_id) = (format!("evt_{n}"), format!("cs_{n}"));
            let owned = paid_pack(&session_id, ANN).completed(&event_id);
            let read = rows_read(&mut c, |c| assert_eq!(c.apply(&owned).summary(), "applied"));
            assert_eq!(read.0, 0, "{known}: index entries by a delivery of another user");
            assert!(read.1 <= 4, "{known}: {read:?} rows");

            let of_one = invoice(&format!("in_x{n}"), &format!("sub_x{n}")).with("customer", "cus_one");
            let read = rows_read(&mut c, |c| drop(c.apply(&of_one.paid(&format!("evt_of_one_{n}")))));
            assert_eq!(read.0, 0, "{known}: index entries by a delivery of the customer with 1,000");
            assert!(read.1 <= 4, "{known}: {read:?} rows");
        }
        // What unblocks a customer reads its own, and no other's.
        let read = rows_read(&mut c, |c| drop(c.attribute("cus_7", BOB)));
        assert!(read.0 <= 2, "{known}: {read:?} to unblock one event");
    }
}
