//! Scenario 35 and its neighbours: who may do what, the append-only ledger, the installer's checks.
//!
//! Functions and tables are enumerated from the catalogs, so that whatever is new is covered.

use std::collections::BTreeSet;

use stripe_credits_tests::connection::Fault;
use stripe_credits_tests::subscription::{month, subscription};
use stripe_credits_tests::{ANN, BOB, Connection, Database, paid_pack, session, user};

/// What a client may run: the same list as in sql/security.sql.
const CLIENT_FUNCTIONS: &[&str] = &[
    // What the view reads the time by.
    "billing.account_time(text)",
    // Reads the caller's own rows, like the view that it is part of.
    "billing.balances_by(uuid,timestamp with time zone)",
    "billing.current_user_id()",
    // On every pricing page.
    "billing.free_plan()",
    "billing.is_service()",
    "billing.lots_by(uuid,timestamp with time zone)",
    "billing.my_credits()",
    "billing.my_payments(integer,timestamp with time zone)",
    "billing.my_transactions(integer,bigint)",
];

/// What a client may read, its own rows only (prices: all of them).
const CLIENT_RELATIONS: &[&str] = &[
    "accounts",
    "credit_grants",
    "credit_transactions",
    "customers",
    "prices",
    "reservations",
    "subscriptions",
    "user_credits",
];

/// A database in which Ann and Bob have a row in every table that can be a user's.
fn with_two_users() -> Database {
    let db = Database::with_catalog();
    let mut c = db.connect();
    for (who, name) in [(ANN, "ann"), (BOB, "bob")] {
        c.sign_up(who);
        let paid = paid_pack(&format!("cs_{name}"), who).with("customer", format!("cus_{name}"));
        c.apply(&paid.completed(&format!("evt_{name}")));
        c.call("reserve_credits($1, 1, 'held')", &[&who]);
        c.call("release_reservation($1, 'held')", &[&who]);
        let over =
            subscription(&format!("sub_{name}"), "price_pro").of(who).with("customer", format!("cus_{name}"));
        c.apply(&over.deleted(&format!("evt_{name}_over"), month(1)));
    }
    db
}

/// Every function of the schema: its signature, and a call of it with nulls.
fn functions(c: &mut Connection) -> Vec<(String, String)> {
    let query = "
        select replace(p.oid::regprocedure::text, ', ', ','),
            format('select %s(%s)', p.oid::regproc, array_to_string(array(
                select 'null::' || case t when 'anyelement'::regtype then 'text' else format_type(t, null) end
                from unnest(p.proargtypes::oid[]) t), ', '))
        from pg_proc p where p.pronamespace = 'billing'::regnamespace order by 1";
    c.query(query, &[]).expect("pg_proc can be read").iter().map(|row| (row.get(0), row.get(1))).collect()
}

/// Tables, views, sequences and whatever else can be read.
fn relations(c: &mut Connection) -> Vec<String> {
    c.column(
        "select relname::text from pg_class
         where relnamespace = 'billing'::regnamespace and relkind in ('r', 'v', 'm', 'p', 'f', 'S') order by 1",
        &[],
    )
}

/// Tries a statement in a transaction that is undone, and answers how it was refused.
fn refused(c: &mut Connection, statement: &str) -> Option<Fault> {
    c.run("begin");
    let answer = c.attempt(statement);
    c.run("rollback");
    answer.err()
}

/// Statements that would write a relation, one of each kind.
fn writes(c: &mut Connection, relation: &str) -> Vec<String> {
    let column: String = c.one(
        "select quote_ident(attname) from pg_attribute
         where attrelid = format('billing.%I', $1::text)::regclass and attnum > 0 order by attnum limit 1",
        &[&relation],
    );
    vec![
        format!("insert into billing.{relation} default values"),
        format!("insert into billing.{relation} ({column}) select {column} from billing.{relation}"),
        format!("update billing.{relation} set {column} = {column}"),
        format!("update billing.{relation} set {column} = null where false"),
        format!("delete from billing.{relation}"),
        format!("delete from billing.{relation} where false"),
        format!("truncate billing.{relation}"),
        format!("lock billing.{relation} in access exclusive mode"),
        format!("drop table billing.{relation}"),
        format!("alter table billing.{relation} disable row level security"),
        format!("copy billing.{relation} from '/dev/null'"),
        format!("create policy mine on billing.{relation} using (true)"),
    ]
}

/// Refused for a missing right, or because a view does not allow it.
fn denied(fault: Option<&Fault>) -> bool {
    fault.is_some_and(|fault| match fault.code.as_str() {
        "42501" | "42809" => true,
        "55000" => fault.message.contains("view"),
        _ => false,
    })
}

#[test]
fn scenario_35_anon_reaches_nothing_at_all() {
    let db = with_two_users();
    let mut c = db.connect();
    let (functions, relations) = (functions(&mut c), relations(&mut c));
    assert!(functions.len() > 20 && relations.len() >= 13);
    let mut anon = db.connect_as("anon");
    anon.run(&format!("set request.jwt.claims = '{{\"sub\": \"{ANN}\", \"role\": \"service_role\"}}'"));
    for (signature, call) in functions {
        assert!(denied(refused(&mut anon, &call).as_ref()), "anon ran {signature}");
        let allowed: bool =
            c.one(&format!("select has_function_privilege('anon', '{signature}', 'execute')"), &[]);
        assert!(!allowed, "{signature}");
    }
    for relation in relations {
        assert!(
            denied(refused(&mut anon, &format!("select * from billing.{relation}")).as_ref()),
            "anon read {relation}"
        );
        assert!(denied(
            refused(&mut anon, &format!("select 1 from billing.{relation} where false")).as_ref()
        ));
        for write in writes(&mut c, &relation) {
            let fault = refused(&mut anon, &write);
            assert!(denied(fault.as_ref()), "anon: {write}: {fault:?}");
        }
    }
}

#[test]
fn scenario_35_authenticated_runs_no_service_function() {
    let db = with_two_users();
    let mut c = db.connect();
    let functions = functions(&mut c);
    let before = c.everything();
    let mut client = db.connect_as("authenticated");
    client.run(&format!("set request.jwt.claims = '{{\"sub\": \"{ANN}\"}}'"));
    let mut allowed = BTreeSet::new();
    for (signature, call) in &functions {
        let fault = refused(&mut client, call);
        if CLIENT_FUNCTIONS.contains(&signature.as_str()) {
            assert_eq!(fault, None, "{signature}");
            allowed.insert(signature.as_str());
        } else {
            assert!(denied(fault.as_ref()), "authenticated ran {signature}: {fault:?}");
        }
    }
    assert_eq!(allowed, CLIENT_FUNCTIONS.iter().copied().collect());
    assert_eq!(c.everything(), before);
}

#[test]
fn scenario_35_authenticated_reads_its_own_rows_only() {
    let db = with_two_users();
    let mut c = db.connect();
    let relations = relations(&mut c);
    let mut client = db.connect_as("authenticated");
    client.run(&format!("set request.jwt.claims = '{{\"sub\": \"{ANN}\"}}'"));
    for relation in &relations {
        let select = format!("select count(*) from billing.{relation}");
        if !CLIENT_RELATIONS.contains(&relation.as_str()) {
            assert!(denied(refused(&mut client, &select).as_ref()), "authenticated read {relation}");
            continue;
        }
        if relation == "prices" {
            assert!(client.one::<i64>(&select, &[]) > 0);
            continue;
        }
        let users: Vec<uuid::Uuid> =
            client.column(&format!("select distinct user_id from billing.{relation}"), &[]);
        assert_eq!(users, [ANN], "{relation}");
        let all: i64 = c.one(&format!("select count(distinct user_id) from billing.{relation}"), &[]);
        assert_eq!(all, 2, "Bob has rows in {relation} too");
    }
    assert_eq!(client.one::<i64>("select count(*) from billing.my_transactions()", &[]), 4);
    assert_eq!(client.column::<String>("select source_id from billing.my_payments()", &[]), ["cs_ann"]);
    assert_eq!(client.one::<uuid::Uuid>("select user_id from billing.my_credits()", &[]), ANN);
}

#[test]
fn a_client_has_rights_on_its_own_relations_and_on_none_of_the_same_name_elsewhere() {
    let db = Database::with_catalog();
    let mut c = db.connect();
    let readable: Vec<String> = c.column(
        "select n.nspname || '.' || c.relname from pg_class c join pg_namespace n on n.oid = c.relnamespace
         where n.nspname in ('billing', 'billing_fdw') and c.relkind in ('r', 'v', 'm', 'p', 'f', 'S')
             and has_table_privilege('authenticated', c.oid, 'select') order by 1",
        &[],
    );
    assert_eq!(readable, CLIENT_RELATIONS.iter().map(|name| format!("billing.{name}")).collect::<Vec<_>>());
    let all: i64 =
        c.one("select count(*) from pg_class where relnamespace = 'billing_fdw'::regnamespace", &[]);
    let of_service: i64 = c.one(
        "select count(*) from pg_class where relnamespace = 'billing_fdw'::regnamespace
             and has_table_privilege('service_role', oid, 'select')",
        &[],
    );
    assert!(all == of_service && all >= 3, "{of_service} of {all}");
}

#[test]
fn scenario_35_missing_claims_or_claims_of_no_user_read_nothing() {
    let db = with_two_users();
    let mut client = db.connect_as("authenticated");
    let of_nobody =
        ["", "{}", "{\"sub\": null}", "{\"sub\": \" \"}", "{\"sub\": \"user_2abc\"}", "null", "[]"];
    for claims in [None].into_iter().chain(of_nobody.map(Some)) {
        if let Some(claims) = claims {
            client.run(&format!("set request.jwt.claims = '{claims}'"));
        }
        for relation in CLIENT_RELATIONS.iter().filter(|relation| **relation != "prices") {
            let rows: i64 = client.one(&format!("select count(*) from billing.{relation}"), &[]);
            assert_eq!(rows, 0, "{relation} with claims {claims:?}");
        }
        assert_eq!(client.one::<i64>("select count(*) from billing.my_credits()", &[]), 0);
        assert_eq!(client.one::<i64>("select count(*) from billing.my_transactions()", &[]), 0);
        assert_eq!(client.one::<i64>("select count(*) from billing.my_payments()", &[]), 0);
    }
}

#[test]
fn scenario_35_authenticated_and_service_role_write_no_table() {
    let db = with_two_users();
    let mut c = db.connect();
    let before = c.everything();
    for role in ["authenticated", "service_role"] {
        // Not by SET ROLE, which a superuser's session could take back.
        let mut other = db.connect();
        other.run(&format!("set session authorization {role}"));
        other.run(&format!("set request.jwt.claims = '{{\"sub\": \"{ANN}\"}}'"));
        for relation in relations(&mut c) {
            for write in writes(&mut c, &relation) {
                let fault = refused(&mut other, &write);
                assert!(denied(fault.as_ref()), "{role}: {write}: {fault:?}");
            }
        }
        for statement in [
            "create table billing.mine (n int)",
            "create function billing.mine() returns int language sql return 1",
            "drop schema billing cascade",
            "drop extension stripe_credits cascade",
            "set role stripe_credits_owner",
            "set stripe_credits.allow_drop = on",
            "set session_replication_role = replica",
        ] {
            let fault = refused(&mut other, statement);
            assert!(fault.is_some(), "{role}: {statement}");
        }
    }
    assert_eq!(c.everything(), before);
}

#[test]
fn scenario_35_service_role_runs_the_service_functions_and_reads_every_row() {
    let db = with_two_users();
    let mut c = db.connect();
    let mut service = db.connect_as("service_role");
    assert_eq!(service.sign_up(user(3)).summary(), "applied");
    assert_eq!(service.apply(&paid_pack("cs_3", user(3)).completed("evt_3")).summary(), "applied");
    assert_eq!(service.explain(&paid_pack("cs_4", user(3)).completed("evt_4")).summary(), "applied");
    assert_eq!(service.reconcile(&paid_pack("cs_3", user(3)), user(3)).summary(), "already_applied");
    service.apply(
        &session("cs_5").metadata("price_id", "price_pack").with("customer", "cus_5").completed("evt_5"),
    );
    assert_eq!(service.attribute("cus_5", user(3)).credits, 500);
    assert_eq!(service.balance(user(3)), 1500);
    for relation in relations(&mut c) {
        let count = format!("select count(*) from billing.{relation}");
        assert_eq!(service.one::<i64>(&count, &[]), c.one::<i64>(&count, &[]), "{relation}");
    }
    for (signature, call) in functions(&mut c) {
        let name = signature.trim_start_matches("billing.").split('(').next().unwrap_or_default();
        let fault = refused(&mut service, &call);
        let internal = [
            "guard_drop",
            "kept_table_changed",
            "refuse_ledger_change",
            "require_given",
            "require_positive",
            "require_not_negative",
            "require_named",
            "access_rights",
            "grant_access",
            "settle_account",
            "older_answer",
            "owner_role_faults",
            "present_state",
            "installed_state",
            "set_rights",
            "secure_installation",
            "access_faults",
            "surroundings_faults",
        ]
        .contains(&name);
        assert_eq!(denied(fault.as_ref()), internal, "service_role and {signature}: {fault:?}");
    }
}

#[test]
fn my_credits_of_a_user_without_an_account_reads_zeros() {
    let db = Database::with_catalog();
    let mut client = db.connect_as("authenticated");
    client.run(&format!("set request.jwt.claims = '{{\"sub\": \"{ANN}\"}}'"));
    let row: String = client.one(
        "select concat_ws(' ', user_id, subscription_tier, subscription_status, credits_balance,
                subscription_credits_balance, purchased_credits_balance, promotional_credits_balance,
                monthly_credits_per_cycle, monthly_credits_used, bonus_credits_total, bonus_credits_used, debt)
         from billing.my_credits()",
        &[],
    );
    assert_eq!(row, format!("{ANN} free none 0 0 0 0 0 0 0 0 0"));
    assert_eq!(db.connect().one::<i64>("select count(*) from billing.accounts", &[]), 0);
}

#[test]
fn my_credits_and_my_transactions_say_what_was_bought() {
    let db = with_two_users();
    let mut client = db.connect_as("authenticated");
    client.run(&format!("set request.jwt.claims = '{{\"sub\": \"{BOB}\"}}'"));
    let row: String = client.one(
        "select concat_ws(' ', credits_balance, purchased_credits_balance, promotional_credits_balance,
                bonus_credits_total, bonus_credits_used, stripe_customer_id) from billing.my_credits()",
        &[],
    );
    assert_eq!(row, "1000 500 500 1000 0 cus_bob");
    let ids = |client: &mut Connection, call: &str| -> Vec<i64> {
        client.column(&format!("select id from billing.my_transactions({call})"), &[])
    };
    assert_eq!(ids(&mut client, ""), [4, 3, 2, 1]);
    assert_eq!(ids(&mut client, "1"), [4]);
    assert_eq!(ids(&mut client, "p_before => 2"), [1]);
    assert_eq!(ids(&mut client, "0"), [0; 0]);
    assert_eq!(ids(&mut client, "-5"), [0; 0]);
    assert_eq!(ids(&mut client, "null, null"), [4, 3, 2, 1]);
}

#[test]
fn grant_access_serves_roles_of_other_names() {
    let db = with_two_users();
    let mut c = db.connect();
    // Roles are the cluster's, so all of this is one transaction that is undone.
    c.run(
        "begin; create role app_client; create role app_service;
           select billing.grant_access('app_client', 'app_service')",
    );
    c.run(&format!("set local request.jwt.claims = '{{\"sub\": \"{ANN}\"}}'; set local role app_client"));
    assert_eq!(c.one::<i64>("select count(*) from billing.accounts", &[]), 1);
    assert_eq!(c.one::<i64>("select credits_balance from billing.my_credits()", &[]), 1000);
    c.run("savepoint before");
    assert_eq!(c.refusal("select billing.run_due()").code, "42501");
    c.run("rollback to before; reset role; set local role app_service");
    assert_eq!(c.one::<i64>("select count(*) from billing.accounts", &[]), 2);
    assert_eq!(c.sign_up(user(3)).summary(), "applied");
    c.run("savepoint before");
    assert_eq!(c.refusal("delete from billing.stripe_events").code, "42501");
    c.run("rollback to before; reset role");
    let failed: Vec<String> =
        c.column("select check_name from billing.security_selfcheck() where not ok", &[]);
    assert_eq!(failed, [""; 0]);
    c.run("savepoint before");
    assert_eq!(c.refusal("select billing.grant_access('app_client', 'app_client')").code, "22023");
    c.run("rollback");
}

#[test]
fn the_ledger_is_append_only_for_superusers_and_replicas_too() {
    let db = with_two_users();
    let mut c = db.connect();
    let before = c.ledger(ANN);
    for mode in ["origin", "replica", "local"] {
        c.run(&format!("set session_replication_role = {mode}"));
        for statement in [
            "update billing.credit_transactions set amount = 1",
            "update billing.credit_transactions set amount = 1 where false",
            "update only billing.credit_transactions set description = 'x' where id = 1",
            "delete from billing.credit_transactions",
            "delete from billing.credit_transactions where false",
            "truncate billing.credit_transactions",
            "truncate billing.accounts, billing.credit_transactions cascade",
            "with gone as (delete from billing.credit_transactions returning *) select * from gone",
            "insert into billing.credit_transactions select * from billing.credit_transactions
             on conflict (user_id, id) do update set amount = 1",
            "merge into billing.credit_transactions t using (values (1)) v(id) on t.id = v.id
             when matched then delete",
            "do $$ begin execute 'delete from billing.credit_transactions'; end $$",
        ] {
            let fault = refused(&mut c, statement).unwrap_or_else(|| panic!("{mode}: {statement}"));
            assert_eq!(fault.code, "23001", "{mode}: {statement}: {fault:?}");
            assert!(fault.message.contains("append-only"), "{fault:?}");
        }
        let fault = refused(&mut c, "drop table billing.credit_transactions cascade").unwrap();
        assert_eq!(fault.code, "2BP01", "a member of the extension");
    }
    c.run("reset session_replication_role");
    assert_eq!(c.ledger(ANN), before);
}

#[test]
fn create_extension_refuses_a_schema_that_is_not_empty() {
    for something in [
        "create table billing.notes (n int)",
        "create view billing.notes as select 1",
        "create function billing.now() returns int language sql return 1",
        "create type billing.behaviour as enum ('good')",
        "create function public.same(int, text) returns bool language sql return true;
         create operator billing.= (leftarg = int, rightarg = text, function = public.same)",
        "create sequence billing.numbers",
        "create collation billing.mine from \"C\"",
        "create domain billing.word as text",
    ] {
        let db = Database::empty();
        let mut c = db.connect();
        c.run("create schema billing");
        c.run(something);
        let fault = c.refusal("create extension stripe_credits");
        assert_eq!(fault.code, "42P06", "{something}: {fault:?}");
        assert!(fault.message.contains("not empty"), "{something}: {fault:?}");
        assert_eq!(
            c.one::<i64>("select count(*) from pg_extension where extname = 'stripe_credits'", &[]),
            0
        );
    }
}

#[test]
fn create_extension_refuses_another_roles_schema_and_takes_the_installers_empty_one() {
    let db = Database::empty();
    let mut c = db.connect();
    c.run("create schema billing authorization authenticated");
    let fault = c.refusal("create extension stripe_credits");
    assert_eq!(fault.code, "42P06", "{fault:?}");
    assert!(fault.message.contains("authenticated"), "{fault:?}");
    c.run("drop schema billing; create schema billing; create extension stripe_credits");
    assert!(c.one::<bool>("select bool_and(ok) from billing.security_selfcheck()", &[]));
}

#[test]
fn create_extension_refuses_an_owner_role_that_is_more_than_an_owner() {
    let db = Database::empty();
    let mut c = db.connect();
    for (what, named) in [
        ("alter role stripe_credits_owner login", "may log in"),
        ("alter role stripe_credits_owner superuser", "is a superuser"),
        ("alter role stripe_credits_owner bypassrls", "has BYPASSRLS"),
        ("alter role stripe_credits_owner createrole", "has CREATEROLE"),
        ("alter role stripe_credits_owner createdb", "has CREATEDB"),
        ("alter role stripe_credits_owner replication", "has REPLICATION"),
        ("grant stripe_credits_owner to authenticated", "has the member authenticated"),
        ("grant pg_write_all_data to stripe_credits_owner", "is a member of pg_write_all_data"),
    ] {
        let fault = refused(&mut c, &format!("{what}; create extension stripe_credits")).expect("refused");
        assert_eq!(fault.code, "42710", "{what}: {fault:?}");
        assert!(fault.detail.contains(named), "{what}: {fault:?}");
    }
    c.run("create extension stripe_credits");
}

#[test]
fn create_extension_clears_what_default_privileges_and_the_schema_gave_to_others() {
    let db = Database::empty();
    let mut c = db.connect();
    // Roles are the cluster's, so all of this is one transaction that is undone.
    c.run(
        "begin; create role intruder; create role installer superuser;
         alter default privileges grant execute on functions to intruder, anon;
         alter default privileges grant all on tables to intruder, authenticated, service_role;
         alter default privileges grant all on schemas to intruder;
         alter default privileges grant all on sequences to intruder;
         create schema billing authorization installer;
         grant all on schema billing to intruder with grant option;
         set local role intruder; grant create on schema billing to anon; reset role;
         create extension stripe_credits",
    );
    let given: Vec<String> = c.column(
        "select detail from billing.security_selfcheck() where not ok
         union all
         select 'schema' where has_schema_privilege('intruder', 'billing', 'usage')
             or has_schema_privilege('anon', 'billing', 'create')
         union all
         select relname from pg_class where relnamespace = 'billing'::regnamespace and relkind in ('r', 'v')
             and has_table_privilege('intruder', oid, 'select, insert, update, delete, truncate, references, trigger')
         union all
         select oid::regprocedure::text from pg_proc where pronamespace = 'billing'::regnamespace
             and has_function_privilege('intruder', oid, 'execute')",
        &[],
    );
    assert_eq!(given, [""; 0]);
    c.run("set local role service_role; select billing.grant_signup_credits(gen_random_uuid()); rollback");
}
