//! One operation on several accounts: all of it or nothing, and their locks in the order of their users.

use std::thread;

use stripe_credits_tests::plans::{Clocked, plan_catalog};
use stripe_credits_tests::refunds::{dispute, refund};
use stripe_credits_tests::stripe::CREATED;
use stripe_credits_tests::subscription::{
    Invoice, MAX, PRO, YEAR, invoice, invoice_payment, line, month, period, subscription,
};
use stripe_credits_tests::{Connection, Database, Event, paid_pack, user, waits_for};
use uuid::Uuid;

/// A day in seconds.
const DAY: i64 = 86_400;

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

/// Gives a user so much that no more than `room` can be added: more than a call may give.
fn fill(c: &mut Connection, owner: Uuid, room: i64) {
    c.run(&format!(
        "with a as (
             update billing.accounts set purchased_credits = purchased_credits + more,
                 last_grant_id = last_grant_id + 1, last_transaction_id = last_transaction_id + 1, last_recorded_at = now()
             from (select {max} - {room} - subscription_credits - purchased_credits - promotional_credits
                   from billing.accounts where user_id = '{owner}') m (more)
             where user_id = '{owner}'
             returning user_id, last_grant_id, last_transaction_id, more
         ), g as (
             insert into billing.credit_grants
                 (user_id, id, source_id, item, pool, amount, remaining, spendable, draw_rank, made_after, created_at)
             select user_id, last_grant_id, 'import:x', 'x', 'purchased', more, more, true, 3, last_transaction_id - 1,
                 now()
             from a
         )
         insert into billing.credit_transactions
             (user_id, id, operation_id, transaction_type, amount, grant_id, pool, balance_after, created_at, recorded_at, hash)
         select user_id, last_transaction_id, last_transaction_id, 'import', more, last_grant_id, 'purchased',
             {max} - {room}, now(), now(), ''
         from a",
        max = i64::MAX
    ));
    let last = c.one("select last_transaction_id from billing.accounts where user_id = $1", &[&owner]);
    c.rehash_from(owner, last);
}

#[test]
fn an_invoice_that_one_account_cannot_hold_is_posted_to_none() {
    for full in [low(), high()] {
        let db = two_subscribers();
        let mut c = db.connect();
        fill(&mut c, full, 5_000);
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

#[test]
fn rows_and_facts_of_all_accounts_are_in_one_order_whatever_the_clock_does() {
    let db = two_subscribers();
    let mut c = db.connect();
    c.apply(&shared("in_1").paid("evt_in_1"));
    // A standby took over whose clock is an hour behind.
    c.run(&format!(
        "update billing.accounts set last_recorded_at = now() + interval '1 hour' where user_id = '{}'",
        low()
    ));
    let ahead: String = c.one("select max(last_recorded_at)::text from billing.accounts", &[]);
    assert!(c.spend(low(), 100, "before").ok);
    let renewal = invoice("in_2", "sub_high")
        .line(line(MAX.0, MAX.1, period(1)).item("si_high").of_subscription("sub_high"))
        .line(line(PRO.0, PRO.1, period(1)).item("si_low").of_subscription("sub_low"))
        .paid_at(month(1));
    assert!(c.apply(&renewal.paid("evt_in_2")).ok);
    assert!(c.spend(high(), 100, "after").ok);
    let in_order: bool = c.one(
        "with spent as (
             select (array_agg(recorded_at) filter (where request_id = 'before'))[1] as before,
                 (array_agg(recorded_at) filter (where request_id = 'after'))[1] as after
             from billing.credit_transactions
         )
         select bool_and($1::text::timestamptz < before and before <= l.known_at and l.known_at < after)
         from billing.invoice_lines l, spent where l.source_id = 'in_2'",
        &[&ahead],
    );
    assert!(in_order);
    assert_eq!(c.faults(), [""; 0]);
}

/// A database in which `low` has a month of pro that runs, and is paid.
fn one_subscriber() -> Database {
    let db = Database::new();
    let mut c = db.connect();
    c.load_catalog(&plan_catalog());
    c.sign_up(high());
    let began = running(&mut c);
    c.apply(&pro(low(), "evt_1", began, 0));
    let paid = invoice("in_1", "sub_1").line(line(PRO.0, PRO.1, began).item("si_1")).paid_at(began.0);
    c.apply(&paid.paid("evt_in_1"));
    c.apply(&invoice_payment("evt_by", "in_1", "pi_1"));
    assert_eq!(c.balance(low()), 10_000);
    db
}

/// A month that began yesterday.
fn running(c: &mut Connection) -> (i64, i64) {
    let now = c.unix_now();
    (now - DAY, now + 29 * DAY)
}

/// A state of the subscription at the start of its period, or so many seconds later, whose metadata name an owner.
fn pro(owner: Uuid, event_id: &str, during: (i64, i64), after: i64) -> Event {
    let state = subscription("sub_1", "price_pro").of(owner).items(&[("price_pro", 1)]).during(during);
    state.updated(event_id, during.0 + after)
}

#[test]
fn a_subscription_whose_new_user_cannot_hold_it_stays_until_there_is_room() {
    for by in ["metadata", "an operator"] {
        let db = one_subscriber();
        let mut c = db.connect();
        let span = running(&mut c);
        fill(&mut c, high(), 9_999);
        let before = (c.ledger(low()), c.ledger(high()));
        let moves = |c: &mut Connection, n: i64| match by {
            "metadata" => c.apply(&pro(high(), &format!("evt_moves_{n}"), span, n)).summary(),
            _ => c.attribute("sub_1", high()).summary(),
        };
        assert_eq!(moves(&mut c, 1), "rejected out_of_range", "{by}");
        assert_eq!((c.ledger(low()), c.ledger(high())), before, "{by}: nothing is posted");
        assert_eq!(c.faults(), [""; 0], "{by}");
        assert!(c.spend(high(), 1, "makes room").ok);
        assert_eq!(moves(&mut c, 2), "applied", "{by}");
        assert_eq!((c.balance(low()), c.balance(high())), (0, i64::MAX), "{by}");
        assert_eq!(c.faults(), [""; 0], "{by}");
    }
}

#[test]
fn what_a_former_user_has_no_room_for_comes_back_once_there_is() {
    let db = one_subscriber();
    let mut c = db.connect();
    assert!(c.spend(low(), 4_000, "job").ok);
    let span = running(&mut c);
    c.apply(&pro(high(), "evt_moves", span, 1));
    assert!(c.refund_spend(low(), "job", "undone", None).ok);
    let dispute = |event_id: &str, kind: &str, status: &str| {
        dispute("dp_1", "pi_1", PRO.1, status).event(event_id, &format!("charge.dispute.{kind}"))
    };
    assert_eq!((c.balance(low()), c.balance(high())), (4_000, 6_000));
    c.apply(&dispute("evt_lost", "funds_withdrawn", "needs_response"));
    assert_eq!((c.balance(low()), c.balance(high())), (0, 0));
    fill(&mut c, low(), 3_999);
    let before = (c.ledger(low()), c.ledger(high()));
    c.apply(&dispute("evt_won", "funds_reinstated", "won").with("created", CREATED + 9));
    assert_eq!((c.ledger(low()), c.ledger(high())), before);
    assert!(c.spend(low(), 1, "makes room").ok);
    c.apply(&dispute("evt_closed", "closed", "won").with("created", CREATED + 10));
    assert_eq!((c.balance(low()), c.balance(high())), (i64::MAX, 6_000));
    assert_eq!(c.faults(), [""; 0]);
}

#[test]
fn what_settled_a_debt_returns_as_far_as_there_is_room() {
    let db = one_subscriber();
    let mut c = db.connect();
    assert!(c.spend(low(), 4_000, "job").ok);
    let dispute = |event_id: &str, kind: &str, status: &str| {
        dispute("dp_1", "pi_1", PRO.1, status).event(event_id, &format!("charge.dispute.{kind}"))
    };
    c.apply(&dispute("evt_lost", "funds_withdrawn", "needs_response"));
    c.grant(low(), 4_000, "settles");
    assert_eq!((c.balance(low()), c.debt(low())), (0, 0));
    fill(&mut c, low(), 6_500);
    c.apply(&dispute("evt_won", "funds_reinstated", "won").with("created", CREATED + 9));
    assert_eq!(c.balance(low()), i64::MAX, "6,000 of the plan and 500 of what settled the debt");
    assert!(c.spend(low(), 5_000, "makes room").ok);
    // What found no room returns with the next change of what is owed.
    c.apply(&refund("re_1", "pi_1", 1).event("evt_re", "refund.created"));
    assert_eq!(c.balance(low()), i64::MAX - 5_000 + 3_500 - 1);
    assert_eq!(c.faults(), [""; 0]);
}

#[test]
fn what_is_given_back_and_cannot_be_held_raises_and_changes_nothing() {
    let db = one_subscriber();
    let mut c = db.connect();
    assert!(c.spend(low(), 4_000, "job").ok);
    assert!(c.reserve(low(), 1_000, "held").ok);
    fill(&mut c, low(), 999);
    let before = c.ledger(low());
    for (function, names) in [("refund_spend", "'job', 'undone'"), ("release_reservation", "'held'")] {
        let fault = c.refusal(&format!("select billing.{function}('{}', {names})", low()));
        assert_eq!(fault.code, "22003", "{function}: {fault:?}");
    }
    assert_eq!(c.ledger(low()), before);
    assert_eq!(c.faults(), [""; 0]);
}

#[test]
fn what_is_reserved_keeps_its_room_so_that_it_can_always_come_back() {
    let db = one_subscriber();
    let mut c = db.connect();
    let held = c.balance(low());
    assert!(c.reserve(low(), held, "held").ok);
    fill(&mut c, low(), held);
    let filled = c.ledger(low());
    // Whatever would add credits is refused, and no more is given back of a spend than leaves the room.
    assert_eq!(c.grant(low(), 1, "one more").summary(), "rejected out_of_range");
    assert_eq!(c.adjust(low(), 1, "one more").summary(), "rejected out_of_range");
    assert_eq!(c.import_balance(low(), "purchased", 1, "elsewhere").summary(), "rejected out_of_range");
    assert_eq!(c.apply(&paid_pack("cs_1", low()).completed("evt_1")).summary(), "rejected out_of_range");
    let span = running(&mut c);
    let second = invoice("in_9", "sub_1").line(line(PRO.0, PRO.1, span).item("si_9")).paid_at(span.0);
    assert_eq!(c.apply(&second.paid("evt_in_9")).summary(), "rejected out_of_range");
    assert_eq!(c.ledger(low()), filled);
    assert!(c.spend(low(), 10, "job").ok);
    assert_eq!(c.grant(low(), 10, "as much").summary(), "applied");
    let fault = c.refusal(&format!("select billing.refund_spend('{}', 'job', 'undone')", low()));
    assert_eq!(fault.code, "22003", "{fault:?}");

    // So its end posts, and nothing stands in the way of the account.
    c.expire_reservation(low(), "held");
    assert_eq!(c.run_due(), 1);
    assert_eq!(c.balance(low()), i64::MAX);
    assert!(c.spend(low(), 1, "after").ok);
    assert_eq!(c.faults(), [""; 0]);
}

#[test]
fn a_plans_next_part_that_finds_no_room_beside_a_reservation_closes_no_account() {
    let db = Database::new();
    let mut c = db.connect();
    c.load_catalog(&plan_catalog());
    let year = (CREATED, month(12));
    c.stand_at(CREATED);
    c.apply(&subscription("sub_1", "price_pro_year").of(low()).during(year).clocked().created("evt_sub_1"));
    let paid = invoice("in_1", "sub_1").of(low()).line(line(YEAR.0, YEAR.1, year).item("si_1"));
    c.apply(&paid.paid_at(CREATED).clocked().paid("evt_in_1"));
    let held = c.balance(low());
    assert_eq!(held, 10_000);
    c.stand_at(month(1) - DAY);
    c.run(&format!(
        "select billing.reserve_credits('{}', {held}, 'held', p_ttl => interval '2 days')",
        low()
    ));
    fill(&mut c, low(), held);
    c.stand_at(month(1));
    c.run_due();
    c.stand_at(month(1) + 2 * DAY);
    c.run_due();
    assert!(c.spend(low(), 1, "job").ok, "the account opens");
    assert_eq!(c.faults(), [""; 0]);
}
