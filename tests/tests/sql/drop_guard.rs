//! The books are neither dropped nor rewritten by accident, whichever way the statement goes: by name, by dependency,
//! after a rename, as part of something else.

use stripe_credits_tests::connection::Fault;
use stripe_credits_tests::{ANN, BOB, Connection, Database, paid_pack};

fn with_rows() -> Database {
    let db = Database::with_catalog();
    let mut c = db.connect();
    for (who, name) in [(ANN, "ann"), (BOB, "bob")] {
        c.apply(&paid_pack(&format!("cs_{name}"), who).completed(&format!("evt_{name}")));
    }
    db
}

/// Tries a statement in a transaction that is undone, and answers how it was refused.
fn refused(c: &mut Connection, statement: &str) -> Option<Fault> {
    c.run("begin");
    if statement.contains("other") {
        c.run(PREPARATION);
    }
    let answer = c.attempt(statement);
    c.run("rollback");
    answer.err()
}

/// Statements that would delete the books, or rows or columns of them. Some need other objects: see [`PREPARATION`].
const LOSSES: &[&str] = &[
    "drop extension stripe_credits",
    "drop extension stripe_credits cascade",
    "drop extension if exists stripe_credits",
    "drop extension \"stripe_credits\" cascade",
    "drop extension STRIPE_CREDITS cascade",
    "drop extension if exists nothing, stripe_credits cascade",
    "drop extension plpgsql, stripe_credits cascade",
    "drop/* a comment */extension -- and one more\n stripe_credits",
    "drop schema billing cascade",
    "drop schema \"billing\" cascade",
    "drop schema U&\"b\\0069lling\" cascade",
    "drop schema if exists nothing, billing cascade",
    "drop schema other, billing cascade",
    "do $$ begin execute 'drop ' || 'extension stripe_' || 'credits cascade'; end $$",
    "do $$ begin drop schema billing cascade; end $$",
    // By dependency.
    "drop extension plpgsql cascade",
    "alter extension plpgsql drop language plpgsql; drop language plpgsql cascade",
    // Renamed or moved first, both the ledger and its schema.
    "alter schema billing rename to attic; drop schema attic cascade",
    "alter schema billing rename to attic; drop extension stripe_credits",
    "alter table billing.credit_transactions rename to old_rows; drop extension stripe_credits",
    "alter table billing.credit_transactions rename to old_rows; drop schema billing cascade",
    "alter table billing.credit_transactions set schema other; drop schema other cascade",
    "alter table billing.credit_transactions set schema other; drop schema billing cascade",
    "alter table billing.credit_transactions set schema other; drop extension stripe_credits cascade",
    // Under a parent.
    "alter table billing.credit_transactions inherit other.parent; drop table other.parent cascade",
    "alter table other.partitioned attach partition billing.credit_transactions default; drop table other.partitioned cascade",
    "alter table billing.credit_transactions drop column amount cascade",
    "alter table billing.payments drop column currency cascade",
    // By a type of the app's that a column was changed to; and one column.
    "alter table billing.credit_transactions drop column description cascade",
    "alter table billing.accounts add column note other.note; drop type other.note cascade",
    // Out of the extension.
    "alter extension stripe_credits drop table billing.credit_transactions",
    "alter extension stripe_credits drop function billing.guard_drop()",
    "alter extension stripe_credits drop domain billing.movement",
    // Rewritten, which fires no trigger of the table.
    // Postgres itself refuses to rewrite the columns that a view shows.
    "alter extension stripe_credits drop view billing_fdw.credit_transactions;
     drop view billing_fdw.credit_transactions;
     alter table billing.credit_transactions alter column balance_after type bigint using balance_after + 1 + amount",
    "alter extension stripe_credits drop view billing_fdw.credit_transactions;
     drop view billing_fdw.credit_transactions;
     alter table billing.credit_transactions alter column description type varchar(3) using 'x'",
    "alter table billing.credit_transactions alter column hash type bytea using '\\x00'",
    "alter table billing.payments alter column evidence type varchar using null",
];

/// What Postgres itself refuses, because the object belongs to the extension or something depends on it.
const REFUSED_BY_POSTGRES: &[&str] = &[
    "drop schema billing",
    "drop owned by stripe_credits_owner",
    "drop owned by stripe_credits_owner cascade",
    "drop owned by authenticated, stripe_credits_owner cascade",
    "set local role stripe_credits_owner; drop owned by current_user cascade",
    "set local role stripe_credits_owner; drop owned by current_role cascade",
    "set local session authorization stripe_credits_owner; drop owned by session_user cascade",
    "alter table billing.credit_transactions owner to authenticated; drop owned by authenticated cascade",
    "alter table billing.accounts owner to authenticated; drop owned by authenticated cascade",
    "alter table billing.credit_transactions drop column amount",
    "drop table billing.credit_transactions",
    "drop table billing.credit_transactions cascade",
    "alter table billing.credit_transactions rename to old_rows; drop table billing.old_rows cascade",
    "alter table billing.credit_transactions set schema other; drop table other.credit_transactions cascade",
    "drop domain billing.credits cascade",
    "drop domain billing.movement cascade",
    "drop type billing.outcome cascade",
    "drop event trigger stripe_credits_drop_guard",
    "drop role stripe_credits_owner",
];

/// What the statements that name schema other need.
const PREPARATION: &str = "
    create schema other;
    create table other.parent (like billing.credit_transactions);
    create table other.partitioned (like billing.credit_transactions) partition by list (user_id);
    create type other.note as (text text)";

#[test]
fn the_books_are_not_dropped_while_they_hold_rows() {
    let db = with_rows();
    let mut c = db.connect();
    let before = c.everything();
    let mut unguarded = Vec::new();
    for mode in ["origin", "replica"] {
        for statement in LOSSES {
            // A connection of its own each, so that nothing but the statement itself loads the library.
            let mut c = db.connect();
            c.run(&format!("set session_replication_role = {mode}"));
            let guarded = refused(&mut c, statement).is_some_and(|fault| {
                fault.code == "55000"
                    && fault.message.contains("holds rows")
                    && fault.detail.contains("stripe_credits.allow_drop")
            });
            if !guarded {
                unguarded.push(format!("{mode}: {statement}: {:?}", refused(&mut c, statement)));
            }
        }
        for statement in REFUSED_BY_POSTGRES {
            let fault = refused(&mut c, statement);
            if !fault.as_ref().is_some_and(|fault| ["2BP01", "0A000"].contains(&fault.code.as_str())) {
                unguarded.push(format!("{mode}: {statement}: {fault:?}"));
            }
        }
    }
    assert!(unguarded.is_empty(), "{}", unguarded.join("\n"));
    assert_eq!(c.everything(), before);
}

#[test]
fn a_session_that_has_the_library_is_guarded_without_the_event_trigger() {
    let db = with_rows();
    let mut c = db.connect();
    c.run("alter event trigger stripe_credits_drop_guard disable; load 'stripe_credits'");
    for statement in
        ["drop extension stripe_credits", "drop schema billing cascade", "drop extension plpgsql cascade"]
    {
        assert_eq!(refused(&mut c, statement).expect("the hook refuses").code, "55000", "{statement}");
    }
}

#[test]
fn the_owner_of_the_schema_who_sees_no_row_is_refused_all_the_same() {
    let db = with_rows();
    let mut c = db.connect();
    c.run(
        "alter table billing.credit_transactions force row level security;
         alter table billing.accounts force row level security",
    );
    c.run("alter schema billing owner to authenticated; set session authorization authenticated");
    assert_eq!(refused(&mut c, "drop schema billing cascade").expect("refused").code, "55000");
    let user: String = c.one("select current_user::text", &[]);
    assert_eq!(user, "authenticated", "the check gives no rights away");
}

#[test]
fn one_row_of_any_table_is_enough() {
    for (table, row) in [
        ("cursors", "insert into billing.cursors values ('sweep', '{}', now())"),
        ("test_clocks", "insert into billing.test_clocks values ('clock_1', now(), null)"),
    ] {
        let db = Database::new();
        let mut c = db.connect();
        c.run(row);
        let fault = refused(&mut c, "drop extension stripe_credits").expect("refused");
        assert!(fault.message.contains(table), "{fault:?}");
    }
}

#[test]
fn the_books_are_dropped_where_the_setting_allows_it_or_they_are_empty() {
    for empty in [true, false] {
        let db = if empty { Database::new() } else { with_rows() };
        let mut c = db.connect();
        if !empty {
            c.run("set stripe_credits.allow_drop = on");
        }
        for statement in LOSSES {
            // Without CASCADE, other dependents or plpgsql itself may refuse: not the guard.
            if let Some(fault) = refused(&mut c, statement) {
                assert_ne!(fault.code, "55000", "{statement}: {fault:?}");
            }
        }
    }
    let mut db = with_rows();
    db.breaks_its_books();
    let mut c = db.connect();
    c.run("set stripe_credits.allow_drop = on; drop extension stripe_credits; drop schema if exists billing");
    assert_eq!(c.one::<i64>("select count(*) from pg_event_trigger", &[]), 0);
    c.run("reset stripe_credits.allow_drop; create extension stripe_credits");
    assert_eq!(c.one::<i64>("select count(*) from billing.credit_transactions", &[]), 0);
}

#[test]
fn other_objects_and_upkeep_are_not_blocked() {
    let db = with_rows();
    let mut c = db.connect();
    c.run(
        "create schema other; create table other.t (n int); create schema \"Billing\"; create schema billing2;
         create table public.stripe_credits (n int); create table public.billing (n int);
         alter table public.billing alter column n type bigint; alter table public.billing drop column n;
         drop schema other cascade; drop schema \"Billing\", billing2; drop extension if exists nothing;
         drop schema if exists nothing cascade; drop table public.stripe_credits, public.billing;
         begin; drop owned by anon; rollback",
    );
    for upkeep in [
        "create index mine on billing.credit_transactions (description)",
        "drop index billing.mine",
        "reindex index concurrently billing.credit_transactions_pkey",
        "reindex schema billing",
        "vacuum full billing.credit_transactions",
        "cluster billing.credit_transactions using credit_transactions_pkey",
        "create temporary table mine as select * from billing.credit_transactions",
        "drop table mine",
        "refresh materialized view concurrently none",
    ] {
        if let Err(fault) = c.attempt(upkeep) {
            assert_eq!(fault.code, "42P01", "{upkeep}: {fault:?}");
        }
    }
}

#[test]
fn only_a_superuser_may_allow_the_drop() {
    let db = with_rows();
    for role in ["anon", "authenticated", "service_role", "stripe_credits_owner"] {
        // Before the library is loaded anyone may set the name; loading it ignores the value.
        let mut c = db.connect_as(role);
        let _ = c.attempt("set stripe_credits.allow_drop = on");
        c.run("reset role");
        let fault = refused(&mut c, "drop extension stripe_credits cascade").expect("the guard refuses");
        assert_eq!(fault.code, "55000", "{role}: {fault:?}");
        c.run(&format!("set role {role}"));
        let _ = c.attempt("reset stripe_credits.allow_drop");
        assert_eq!(c.refusal("set stripe_credits.allow_drop = on").code, "42501", "{role}");
    }
}

#[test]
fn no_parent_table_is_a_way_to_change_the_ledger() {
    let db = with_rows();
    let mut c = db.connect();
    let before = c.ledger(ANN);
    for (parent, attach) in [
        ("other.parent", "alter table billing.credit_transactions inherit other.parent"),
        (
            "other.partitioned",
            "alter table other.partitioned attach partition billing.credit_transactions default",
        ),
    ] {
        for mode in ["origin", "replica"] {
            for change in [
                format!("update {parent} set amount = 1"),
                format!("update {parent} set description = 'x' where id = 1"),
                format!("delete from {parent}"),
                format!("delete from {parent} using billing.accounts a where a.user_id = {parent}.user_id"),
                format!("truncate {parent}"),
                format!("truncate {parent} cascade"),
                format!(
                    "merge into {parent} t using (values (1)) v(id) on t.id = v.id when matched then delete"
                ),
                format!("with gone as (delete from {parent} returning *) select * from gone"),
            ] {
                let statement = format!("set local session_replication_role = {mode}; {attach}; {change}");
                let fault = refused(&mut c, &statement).unwrap_or_else(|| panic!("{statement}"));
                assert_eq!(fault.code, "23001", "{statement}: {fault:?}");
            }
        }
    }
    // A row that would leave the partition for another one.
    let fault = refused(
        &mut c,
        &format!(
            "alter table other.partitioned attach partition billing.credit_transactions for values in ('{ANN}', '{BOB}');
             create table other.rest partition of other.partitioned default;
             update other.partitioned set user_id = 'c0de0000-0000-4000-8000-00000000000f'"
        ),
    );
    assert_eq!(fault.expect("refused").code, "23001");
    assert_eq!(c.ledger(ANN), before);
}
