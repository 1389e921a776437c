//! Events in batches: several in one transaction end as the same events one by one, whatever the split and the order, and the
//! locks of a batch are all taken before its first event.

use std::thread;

use serde_json::{Value, json};
use stripe_credits_tests::concurrency::together;
use stripe_credits_tests::connection::Fault;
use stripe_credits_tests::refunds::{bought, charge, refunded};
use stripe_credits_tests::seeds::Rng;
use stripe_credits_tests::subscription::{month, renewal, subscription};
use stripe_credits_tests::{
    ANN, BOB, Connection, Database, Outcome, event, paid_pack, session, user, waits_for,
};

/// Splits and orders of one set of events.
const ROUNDS: u64 = 40;
/// The most events in a batch of the server's.
const MAX_BATCH: usize = 100;

/// `apply_stripe_events`.
fn try_batch(c: &mut Connection, bodies: &[String]) -> Result<Vec<Outcome>, Fault> {
    let sql = "select to_jsonb(o) from billing.apply_stripe_events($1) o";
    let rows = c.query(sql, &[&bodies]).map_err(Fault::from)?;
    Ok(rows.iter().map(|row| serde_json::from_value(row.get(0)).expect("an outcome")).collect())
}

fn batch(c: &mut Connection, bodies: &[String]) -> Vec<Outcome> {
    try_batch(c, bodies).unwrap_or_else(|fault| panic!("apply_stripe_events: {fault:?}"))
}

fn alone(c: &mut Connection, body: &String) -> Outcome {
    c.call("apply_stripe_event_text($1)", &[body])
}

/// Every kind of delivery: of two users and two customers, with and without a user, unpaid, refunded, of a subscription that
/// moves, of another mode, of an unknown price, of no event at all, and one of them twice.
fn deliveries() -> Vec<String> {
    let of_ann = paid_pack("cs_1", ANN).with("customer", "cus_1");
    let unowned = session("cs_3").metadata("price_id", "price_pack").with("customer", "cus_1");
    let unknown = paid_pack("cs_4", BOB).metadata("price_id", "price_new");
    let plan = subscription("sub_1", "price_pro").of(ANN);
    let events = [
        of_ann.clone().with("payment_status", "unpaid").completed("evt_unpaid"),
        of_ann.completed("evt_paid"),
        of_ann.completed("evt_paid"),
        of_ann.event("evt_again", "checkout.session.async_payment_succeeded"),
        refunded("re_1", "pi_1", 400),
        charge("pi_1", 1000, 700).event("evt_charge", "charge.refunded"),
        paid_pack("cs_2", BOB).with("customer", "cus_2").completed("evt_bob"),
        unowned.completed("evt_unowned"),
        unknown.completed("evt_unknown"),
        plan.created("evt_plan"),
        renewal("in_1", "sub_1", ("price_pro", 10_000), 0).of(ANN).paid("evt_invoice"),
        plan.of(BOB).updated("evt_moved", month(0) + 60),
        paid_pack("cs_5", ANN).completed("evt_live").with("livemode", true),
        event("evt_other", "product.created", json!({ "id": "prod_1", "object": "product" })),
    ];
    let mut bodies: Vec<String> = events.iter().map(|event| event.json().to_string()).collect();
    bodies.push("{".to_owned());
    bodies.push(json!({ "id": "evt_bad", "type": "invoice.paid", "created": 1, "data": {} }).to_string());
    bodies
}

/// What a call answered, without the ids of ledger rows and the times in its details.
fn answer(outcome: &Outcome) -> Value {
    let Outcome { user_id, credits, remaining_total, debt, to_fetch, .. } = outcome;
    json!([outcome.summary(), user_id, credits, remaining_total, debt, to_fetch])
}

/// The books and the inbox, row by row, without times and what depends on them.
fn books(c: &mut Connection) -> Vec<String> {
    let mut books = c.end_state();
    books.extend(c.subscribed_state());
    books.extend(c.column::<String>(
        "select concat_ws(' ', user_id, id, transaction_type, amount, pool, balance_after, stripe_event_id)
         from billing.credit_transactions
         union all
         select concat_ws(' ', event_id, outcome, reason, user_id, attempts) from billing.stripe_events
         union all
         select concat_ws(' ', user_id, id, type) from billing.outbox
         order by 1",
        &[],
    ));
    books
}

#[test]
fn a_batch_ends_and_answers_as_the_same_events_one_by_one_in_any_split_and_order() {
    let db = Database::with_catalog();
    let mut c = db.connect();
    let deliveries = deliveries();
    for seed in 0..ROUNDS {
        let mut rng = Rng::new(seed);
        let mut order = deliveries.clone();
        for last in (1..order.len()).rev() {
            order.swap(last, rng.below(last + 1));
        }
        c.run("begin");
        let expected: Vec<Value> = order.iter().map(|body| answer(&alone(&mut c, body))).collect();
        let expected = (expected, books(&mut c));
        c.run("rollback");
        c.run("begin");
        let mut answers = Vec::new();
        let mut rest = order.as_slice();
        while !rest.is_empty() {
            let (now, later) = rest.split_at(1 + rng.below(rest.len()));
            answers.extend(batch(&mut c, now).iter().map(answer));
            rest = later;
        }
        assert_eq!((answers, books(&mut c)), expected, "seed {seed}");
        assert_eq!(c.faults(), [""; 0], "seed {seed}");
        c.run("rollback");
    }
}

#[test]
fn scenario_09_an_event_and_its_payments_other_event_in_one_batch_count_once() {
    let db = Database::with_catalog();
    let mut c = db.connect();
    let paid = paid_pack("cs_1", ANN).with("customer", "cus_1");
    let again = paid.event("evt_2", "checkout.session.async_payment_succeeded");
    let events = [paid.completed("evt_1"), again, paid.completed("evt_1")];
    let bodies: Vec<String> = events.iter().map(|event| event.json().to_string()).collect();
    let outcomes: Vec<String> = batch(&mut c, &bodies).iter().map(Outcome::summary).collect();
    assert_eq!(outcomes, ["applied", "already_applied", "already_applied"]);
    assert_eq!(c.ledger(ANN), ["purchase 500"]);
    assert_eq!(c.inbox("evt_2").as_deref(), Some("already_applied"));
    assert_eq!(batch(&mut c, &[]), []);
}

#[test]
fn a_call_that_is_wrong_applies_none_of_its_events() {
    let db = Database::with_catalog();
    let mut c = db.connect();
    let good = bought("cs_1", ANN).json().to_string();
    // A number that jsonb cannot hold.
    let poison = r#"{"id": "evt_2", "type": "x.y", "created": 1, "data": {"object": {"n": 1e400000}}}"#;
    let fault = try_batch(&mut c, &[good.clone(), poison.to_owned()]).expect_err("it raises");
    assert_eq!(fault.code, "22003", "{fault:?}");
    let fault = try_batch(&mut c, &vec![good.clone(); MAX_BATCH + 1]).expect_err("too many");
    assert_eq!((fault.code.as_str(), fault.detail.as_str()), ("22023", "p_events has 101"));
    assert_eq!(c.refusal("select billing.apply_stripe_events(null)").code, "22004");
    assert_eq!(c.refusal("select billing.apply_stripe_events(array['{}', null])").code, "22004");
    assert_eq!((c.ledger(ANN), c.inbox("evt_cs_1")), (Vec::new(), None));
    assert_eq!(batch(&mut c, &vec![good; MAX_BATCH]).len(), MAX_BATCH);
    assert_eq!(c.ledger(ANN), ["purchase 500"]);
}

#[test]
fn the_accounts_of_a_batch_are_locked_in_their_order_before_its_first_event() {
    let db = Database::with_catalog();
    let (mut app, mut observer, mut batching) = (db.connect(), db.connect(), db.connect());
    observer.sign_up(ANN);
    observer.sign_up(BOB);
    app.run("begin");
    assert_eq!(app.call("spend_credits($1, 1, 'job')", &[&ANN]).summary(), "applied");
    let bodies = [bought("cs_2", BOB), bought("cs_1", ANN)].map(|event| event.json().to_string());
    let pid = batching.pid();
    let answers = thread::scope(|scope| {
        let waiting = scope.spawn(move || batch(&mut batching, &bodies));
        let waits = "select exists (select from pg_stat_activity where wait_event_type = 'Lock' and pid = ";
        waits_for(&mut observer, &format!("{waits}{pid})"));
        // His event is the first, but her account comes before his.
        observer.run("set lock_timeout = '1s'");
        assert_eq!(observer.call("spend_credits($1, 1, 'job')", &[&BOB]).summary(), "applied");
        app.run("commit");
        waiting.join().expect("the batch")
    });
    assert_eq!(answers.iter().map(Outcome::summary).collect::<Vec<_>>(), ["applied", "applied"]);
}

#[test]
fn batches_of_the_same_events_in_every_order_at_once_neither_fail_nor_double() {
    const PACKS: u128 = 12;
    let db = Database::with_catalog();
    let mut c = db.connect();
    for n in 0..PACKS {
        c.sign_up(user(n));
    }
    let before: i64 = c.one("select sum(credits_balance)::bigint from billing.user_credits", &[]);
    let mut bodies: Vec<String> = Vec::new();
    for n in 0..PACKS {
        let name = format!("{n}");
        let paid = paid_pack(&format!("cs_{name}"), user(n)).with("customer", format!("cus_{}", n % 4));
        bodies.push(paid.completed(&format!("evt_{name}")).json().to_string());
        bodies.push(refunded(&format!("re_{name}"), &format!("pi_{name}"), 500).json().to_string());
        let other = event(&format!("evt_o{name}"), "product.created", json!({ "id": "prod_1" }));
        bodies.push(other.json().to_string());
    }
    let works: Vec<_> = (0..8)
        .map(|seed| {
            let mut bodies = bodies.clone();
            let mut rng = Rng::new(seed);
            for last in (1..bodies.len()).rev() {
                bodies.swap(last, rng.below(last + 1));
            }
            move |c: &mut Connection| -> Vec<Fault> {
                bodies.chunks(9).filter_map(|chunk| try_batch(c, chunk).err()).collect()
            }
        })
        .collect();
    let faults = together(&db, works).concat();
    assert!(faults.is_empty(), "{faults:#?}");
    let after: i64 = c.one("select sum(credits_balance)::bigint from billing.user_credits", &[]);
    assert_eq!(after - before, i64::try_from(PACKS).expect("few") * 250);
}
