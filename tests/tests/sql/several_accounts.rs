//! One operation on several accounts: all of it or nothing, and their locks in the order of their users.

use std::thread;

use stripe_credits_tests::plans::plan_catalog;
use stripe_credits_tests::stripe::CREATED;
use stripe_credits_tests::subscription::{Invoice, MAX, PRO, invoice, line, period, subscription};
use stripe_credits_tests::{Connection, Database, paid_pack, user, waits_for};
use uuid::Uuid;

fn low() -> Uuid {
    user(1)
}

fn high() -> Uuid {
    user(2)
}

/// A database in which each of the two has a subscription.
fn two_subscribers() -> Database {
    let db = Database::new();
    let mut c = db.connect();
    c.load_catalog(&plan_catalog());
    for (id, price, owner) in [("sub_low", "price_pro", low()), ("sub_high", "price_max", high())] {
        c.apply(&subscription(id, price).of(owner).during(period(0)).created(&format!("evt_{id}")));
    }
    db
}

/// An invoice that bills both.
fn shared(invoice_id: &str) -> Invoice {
    invoice(invoice_id, "sub_high")
        .line(line(MAX.0, MAX.1, period(0)).item("si_high").of_subscription("sub_high"))
        .line(line(PRO.0, PRO.1, period(0)).item("si_low").of_subscription("sub_low"))
        .paid_at(CREATED)
}

/// Gives a user so much that 5,000 more cannot be held: more than a call may give.
fn fill(c: &mut Connection, owner: Uuid) {
    let almost_all = i64::MAX - 5_000;
    c.run(&format!(
        "insert into billing.credit_grants
             (user_id, id, source_id, item, pool, amount, remaining, spendable, draw_rank, made_after, created_at)
         values ('{owner}', 1, 'import:x', 'x', 'purchased', {almost_all}, {almost_all}, true, 3, 0, now());
         insert into billing.credit_transactions
             (user_id, id, operation_id, transaction_type, amount, grant_id, pool, balance_after, created_at, hash)
         values ('{owner}', 1, 1, 'import', {almost_all}, 1, 'purchased', {almost_all}, now(), '');
         update billing.accounts
         set purchased_credits = {almost_all}, last_grant_id = 1, last_transaction_id = 1
         where user_id = '{owner}'"
    ));
    c.rehash(owner);
}

#[test]
fn an_invoice_that_one_account_cannot_hold_is_posted_to_none() {
    for full in [low(), high()] {
        let db = two_subscribers();
        let mut c = db.connect();
        fill(&mut c, full);
        let before = (c.ledger(low()), c.ledger(high()));
        assert_eq!(c.apply(&shared("in_1").paid("evt_in_1")).summary(), "rejected out_of_range");
        assert_eq!((c.ledger(low()), c.ledger(high())), before, "posted to neither");
        assert_eq!(c.one::<i64>("select count(*) from billing.invoice_lines", &[]), 0);
        assert_eq!(c.faults(), [""; 0]);
    }
}

#[test]
fn a_payment_that_turns_out_to_be_another_is_taken_back_under_locks_in_order() {
    let db = two_subscribers();
    let (mut c, mut busy, mut observer) = (db.connect(), db.connect(), db.connect());
    c.apply(&shared("in_1").paid("evt_in_1"));
    let pack = paid_pack("cs_1", high()).with("payment_intent", "pi_1");
    assert_eq!(c.apply(&pack.completed("evt_cs_1")).credits, 500);
    assert_eq!((c.balance(low()), c.balance(high())), (10_000, 30_500));
    busy.run(&format!("begin; select from billing.accounts where user_id = '{}' for update", low()));
    let pid = c.pid();
    // The invoice names the session's payment: the session was no payment of its own.
    let joins = shared("in_1").with("payment_intent", "pi_1").paid("evt_joins");
    let outcome = thread::scope(|scope| {
        let delivery = scope.spawn(|| c.apply(&joins));
        let is_waiting = format!(
            "select exists (select from pg_stat_activity where pid = {pid} and wait_event_type = 'Lock')"
        );
        waits_for(&mut observer, &is_waiting);
        observer.run(&format!(
            "begin; select from billing.accounts where user_id = '{}' for update nowait; rollback",
            high()
        ));
        busy.run("rollback");
        delivery.join().expect("the delivery")
    });
    assert_eq!(outcome.summary(), "applied");
    assert_eq!((c.balance(low()), c.balance(high())), (10_000, 30_000));
    assert_eq!(c.ledger(high()), ["subscription_grant 30000", "purchase 500", "reversal -500"]);
    assert_eq!(c.faults(), [""; 0]);
}
