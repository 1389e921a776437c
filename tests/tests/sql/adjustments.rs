//! What an operator sets right: corrections by hand, and balances that users bring from another system.

use stripe_credits_tests::concurrency::together;
use stripe_credits_tests::refunds::refunded;
use stripe_credits_tests::subscription::{PRO, renewal, subscription};
use stripe_credits_tests::{ANN, BOB, Connection, Database, user};

// Corrections.

#[test]
fn an_adjustment_above_0_is_promotional_and_counts_once() {
    let db = Database::with_catalog();
    let mut c = db.connect();
    let added = c.adjust(ANN, 70, "ticket-1");
    assert_eq!(
        (added.summary().as_str(), added.credits, added.remaining_promotional),
        ("applied", 70, Some(70))
    );
    assert_eq!(c.adjust(ANN, 70, "ticket-1").summary(), "already_applied");
    assert_eq!(c.ledger(ANN), ["adjustment 70"]);
    let row: String = c.one(
        "select concat_ws('|', description, request_id, pool) from billing.credit_transactions where user_id = $1",
        &[&ANN],
    );
    assert_eq!(row, "a correction|ticket-1|promotional");
    assert_eq!(c.balance(ANN), 70);
}

#[test]
fn an_adjustment_below_0_takes_in_draw_order_but_purchased_credits_last() {
    let db = Database::with_catalog();
    let mut c = db.connect();
    c.apply(&subscription("sub_1", "price_pro").of(ANN).created("evt_1"));
    c.apply(&renewal("in_0", "sub_1", PRO, 0).paid("evt_2"));
    // The pack expires first, so that a spend would draw it first.
    c.buy(ANN, "cs_1");
    c.execute(
        "update billing.credit_grants set (expires_at, priority_at) = (now() + interval '1 day', now() + interval '1 day')
         where source_id = 'cs_1'",
        &[],
    )
    .expect("a superuser may");
    c.run("update billing.accounts set next_due_at = now() + interval '1 day'");
    c.grant(ANN, 30, "gift");
    let taken = c.adjust(ANN, -10_040, "ticket-1");
    assert_eq!((taken.summary().as_str(), taken.credits), ("applied", -10_040));
    assert_eq!(
        (taken.remaining_subscription, taken.remaining_promotional, taken.remaining_purchased),
        (Some(0), Some(0), Some(490))
    );
    assert_eq!(c.ledger(ANN).split_off(3), ["adjustment -10000", "adjustment -30", "adjustment -10"]);
    assert_eq!(c.adjust(ANN, -10_040, "ticket-1").summary(), "already_applied");
    assert_eq!(c.balance(ANN), 490);
}

#[test]
fn an_adjustment_takes_no_more_than_there_is_and_leaves_no_trace_then() {
    let db = Database::with_catalog();
    let mut c = db.connect();
    c.buy(ANN, "cs_1");
    let before = c.everything();
    assert_eq!(c.adjust(ANN, -501, "ticket-1").summary(), "rejected insufficient_credits");
    assert_eq!(c.adjust(BOB, -1, "ticket-1").summary(), "rejected insufficient_credits");
    assert_eq!(c.everything(), before);
    assert_eq!(c.adjust(ANN, -500, "ticket-1").balance_and_debt(), (0, 0));
}

#[test]
fn an_adjustment_settles_debt_first() {
    let db = Database::with_catalog();
    let mut c = db.connect();
    c.buy(ANN, "cs_1");
    c.spend(ANN, 300, "job-1");
    c.apply(&refunded("re_1", "pi_1", 1000));
    assert_eq!(c.agreed_balance_and_debt(ANN), (0, 300));
    assert_eq!(c.adjust(ANN, 310, "ticket-1").balance_and_debt(), (10, 0));
}

#[test]
fn spends_reservations_refunds_and_adjustments_share_their_request_ids() {
    let db = Database::with_catalog();
    let mut c = db.connect();
    c.buy(ANN, "cs_1");
    c.spend(ANN, 10, "spend");
    c.reserve(ANN, 10, "reservation");
    c.refund_spend(ANN, "spend", "refund", Some(5));
    c.adjust(ANN, 10, "more");
    c.adjust(ANN, -10, "less");
    let before = c.everything();
    for taken in ["spend", "reservation", "refund"] {
        for amount in [10, -10, 5] {
            assert_eq!(c.adjust(ANN, amount, taken).summary(), "rejected conflict", "{taken} {amount}");
        }
    }
    for taken in ["more", "less"] {
        assert_eq!(c.adjust(ANN, 11, taken).summary(), "rejected conflict", "{taken}");
        assert_eq!(c.spend(ANN, 10, taken).summary(), "rejected conflict", "{taken}");
        assert_eq!(c.reserve(ANN, 10, taken).summary(), "rejected conflict", "{taken}");
        assert_eq!(c.refund_spend(ANN, "spend", taken, None).summary(), "rejected conflict", "{taken}");
        assert_eq!(c.refund_spend(ANN, taken, "other", None).summary(), "rejected unknown_spend", "{taken}");
    }
    assert_eq!(c.adjust(ANN, -10, "more").summary(), "rejected conflict", "the sign counts");
    assert_eq!(c.everything(), before);
    assert_eq!(c.grant(ANN, 7, "more").summary(), "applied", "a grant's key is another thing");
}

#[test]
fn one_adjustment_on_many_connections_at_once_counts_once() {
    for amount in [100, -100] {
        let db = Database::with_catalog();
        db.connect().buy(ANN, "cs_1");
        let adjust = move |c: &mut Connection| c.adjust(ANN, amount, "ticket-1").summary();
        let outcomes = together(&db, vec![adjust; 16]);
        assert_eq!(outcomes.iter().filter(|outcome| *outcome == "applied").count(), 1, "{outcomes:?}");
        assert_eq!(outcomes.iter().filter(|outcome| *outcome == "already_applied").count(), 15);
        assert_eq!(db.connect().balance(ANN), 500 + amount);
    }
}

#[test]
fn the_reversal_of_a_payment_takes_no_adjustment_or_import_of_its_name() {
    let db = Database::with_catalog();
    let mut c = db.connect();
    c.adjust(ANN, 40, "cs_1");
    c.import_balance(ANN, "purchased", 60, "cs_1");
    c.buy(ANN, "cs_1");
    assert_eq!(c.balance(ANN), 600);
    c.apply(&refunded("re_1", "pi_1", 1000));
    assert_eq!(c.agreed_balance_and_debt(ANN), (100, 0));
}

// Imports.

#[test]
fn a_balance_is_imported_once_per_user_and_source() {
    let db = Database::with_catalog();
    let mut c = db.connect();
    for (pool, remaining) in
        [("subscription", (10, 0, 0)), ("purchased", (10, 10, 0)), ("promotional", (10, 10, 10))]
    {
        let source = format!("old {pool}");
        let imported = c.import_balance(ANN, pool, 10, &source);
        let balances =
            (imported.remaining_subscription, imported.remaining_purchased, imported.remaining_promotional);
        assert_eq!(imported.summary(), "applied");
        assert_eq!(balances, (Some(remaining.0), Some(remaining.1), Some(remaining.2)));
        assert_eq!(c.import_balance(ANN, pool, 10, &source).summary(), "already_applied");
    }
    let before = c.everything();
    assert_eq!(c.import_balance(ANN, "purchased", 11, "old purchased").summary(), "rejected conflict");
    assert_eq!(c.import_balance(ANN, "promotional", 10, "old purchased").summary(), "rejected conflict");
    let lasting = "import_balance($1, 'purchased', 10, 'old purchased', now() + interval '1 day')";
    assert_eq!(c.call(lasting, &[&ANN]).summary(), "rejected conflict");
    assert_eq!(c.everything(), before);
    assert_eq!(c.import_balance(BOB, "purchased", 11, "old purchased").summary(), "applied");
    assert_eq!(c.ledger(ANN), ["import 10", "import 10", "import 10"]);
}

#[test]
fn an_imported_balance_expires_and_may_be_imported_again_without_effect() {
    let db = Database::with_catalog();
    let mut c = db.connect();
    let call = "import_balance($1, 'promotional', 10, 'old', '2999-01-01')";
    assert_eq!(c.call(call, &[&ANN]).summary(), "applied");
    assert_eq!(c.call(call, &[&ANN]).summary(), "already_applied");
    c.expire_grants(ANN, "import:old");
    assert_eq!(c.balance(ANN), 0);
    assert_eq!(c.run_due(), 1);
    assert_eq!(c.ledger(ANN), ["import 10", "expiry -10"]);
}

#[test]
fn one_statement_imports_a_thousand_users_and_again_changes_nothing() {
    let db = Database::with_catalog();
    let mut c = db.connect();
    c.run(
        "create table old_balances (user_id uuid primary key, credits bigint);
         insert into old_balances
         select ('c0de0000-0000-4000-8000-' || lpad(to_hex(n), 12, '0'))::uuid, n from generate_series(0, 1000) n",
    );
    let import = "select o.outcome || ' ' || count(*) || ' ' || sum(o.credits)
         from old_balances b
         cross join lateral billing.import_balance(b.user_id, 'purchased', b.credits, 'old system') o
         where b.credits > 0 group by o.outcome";
    assert_eq!(c.column::<String>(import, &[]), ["applied 1000 500500"]);
    let before = c.everything();
    assert_eq!(c.column::<String>(import, &[]), ["already_applied 1000 0"]);
    assert_eq!(c.everything(), before);
    assert_eq!(c.balance(user(1000)), 1000);
}

#[test]
fn one_import_on_many_connections_at_once_counts_once() {
    let db = Database::with_catalog();
    let import = |c: &mut Connection| c.import_balance(ANN, "purchased", 100, "old system").summary();
    let outcomes = together(&db, vec![import; 16]);
    assert_eq!(outcomes.iter().filter(|outcome| *outcome == "applied").count(), 1, "{outcomes:?}");
    assert_eq!(outcomes.iter().filter(|outcome| *outcome == "already_applied").count(), 15);
    assert_eq!(db.connect().balance(ANN), 100);
}

#[test]
fn the_commands_of_the_documentation_do_what_it_says() {
    let db = Database::with_catalog();
    let mut c = db.connect();
    let user = uuid::uuid!("5f2c0d8e-93a1-4c7b-8d15-2b6f0c1e9a47");
    c.run("create table old_balances as select gen_random_uuid() as user_id, n as credits from generate_series(0, 9) n");
    c.buy(user, "cs_1");
    c.spend(user, 100, "job-4711");
    let page = include_str!("../../../docs/operations.md");
    let blocks: Vec<&str> =
        page.split("```sql\n").skip(1).filter_map(|rest| rest.split("```").next()).collect();
    assert!(blocks.len() >= 2, "the page has its commands");
    for _ in 0..2 {
        for block in &blocks {
            c.run(block);
        }
        assert_eq!(
            c.ledger(user),
            ["purchase 500", "spend -100", "spend_refund 100", "adjustment 200", "adjustment -50"]
        );
        let imported =
            "select sum(amount)::bigint from billing.credit_transactions where transaction_type = 'import'";
        assert_eq!(c.one::<i64>(imported, &[]), 45);
    }
}

#[test]
fn wrong_calls_of_an_operator_name_what_is_wrong() {
    let db = Database::with_catalog();
    let mut c = db.connect();
    for (call, code, value) in [
        ("adjust_credits(null, 1, 'r', 'why')", "22004", "p_user_id"),
        ("adjust_credits($1, null, 'r', 'why')", "22004", "p_amount"),
        ("adjust_credits($1, 1, null, 'why')", "22004", "p_request_id"),
        ("adjust_credits($1, 1, 'r', null)", "22004", "p_reason"),
        ("adjust_credits($1, 1, 'r', ' ')", "22023", "p_reason"),
        ("adjust_credits($1, 1, ' ', 'why')", "22023", "p_request_id"),
        ("adjust_credits($1, 0, 'r', 'why')", "22023", "p_amount = 0"),
        ("adjust_credits($1, 1000000000001, 'r', 'why')", "22003", "1000000000001"),
        ("adjust_credits($1, -1000000000001, 'r', 'why')", "22003", "-1000000000001"),
        ("adjust_credits($1, -9223372036854775808, 'r', 'why')", "22003", "-9223372036854775808"),
        ("import_balance(null, 'purchased', 1, 's')", "22004", "p_user_id"),
        ("import_balance($1, null, 1, 's')", "22004", "p_pool"),
        ("import_balance($1, 'purchased', null, 's')", "22004", "p_amount"),
        ("import_balance($1, 'purchased', 1, null)", "22004", "p_source"),
        ("import_balance($1, 'monthly', 1, 's')", "22023", "monthly"),
        ("import_balance($1, 'Purchased', 1, 's')", "22023", "Purchased"),
        ("import_balance($1, 'purchased', 0, 's')", "22023", "p_amount = 0"),
        ("import_balance($1, 'purchased', -1, 's')", "22023", "p_amount = -1"),
        ("import_balance($1, 'purchased', 1, '')", "22023", "p_source"),
        ("import_balance($1, 'purchased', 1, 's', '2001-01-01')", "22023", "2001-01-01"),
        ("import_balance($1, 'purchased', 1, 's', '-infinity')", "22023", "-infinity"),
        ("import_balance($1, 'purchased', 1000000000001, 's')", "22003", "1000000000001"),
    ] {
        let fault = c.try_call(&call.replace("$1", &format!("'{ANN}'")), &[]).expect_err(call);
        assert_eq!(fault.code, code, "{call}: {fault:?}");
        assert!(fault.detail.contains(value), "{call}: {fault:?}");
    }
}
