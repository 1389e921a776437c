//! `security_selfcheck()` sees every tampering with the installation and names what was tampered with.

use stripe_credits_tests::{ANN, Connection, Database, paid_pack};

/// A tampering: what it is, the statements, and what the check has to name. Each runs in a transaction in which the
/// role `intruder` exists, and is undone by its rollback.
struct Tampering(&'static str, &'static str, &'static [&'static str]);

const TAMPERINGS: &[Tampering] = &[
    // EXECUTE on service functions.
    Tampering(
        "EXECUTE on a service function for PUBLIC",
        "grant execute on function billing.spend_credits(uuid, bigint, text, text, jsonb) to public",
        &["PUBLIC: EXECUTE on function billing.spend_credits(uuid,bigint,text,text,jsonb)"],
    ),
    Tampering(
        "EXECUTE on a service function for anon",
        "grant execute on function billing.run_due(integer) to anon",
        &["anon: EXECUTE on function billing.run_due(integer)"],
    ),
    Tampering(
        "EXECUTE on a service function for authenticated",
        "grant execute on function billing.apply_stripe_event(jsonb, jsonb) to authenticated",
        &["authenticated: EXECUTE on function billing.apply_stripe_event(jsonb,jsonb)"],
    ),
    Tampering(
        "EXECUTE on a service function for another role",
        "grant execute on function billing.grant_credits(uuid, bigint, text, text, timestamptz) to intruder",
        &["intruder: EXECUTE on function billing.grant_credits("],
    ),
    Tampering(
        "EXECUTE on every service function for another role, but no right to read",
        "grant execute on all functions in schema billing to intruder",
        &["intruder: EXECUTE on function billing.apply_stripe_event(jsonb,jsonb)"],
    ),
    Tampering(
        "EXECUTE on the function that makes all others",
        "grant execute on function billing.apply_stripe_event(jsonb, jsonb) to intruder",
        &["intruder: EXECUTE on function billing.apply_stripe_event(jsonb,jsonb)"],
    ),
    Tampering(
        "EXECUTE on an internal function for the service role",
        "grant execute on function billing.settle_account(uuid) to service_role",
        &["service_role: EXECUTE on function billing.settle_account(uuid)"],
    ),
    Tampering(
        "EXECUTE on a client's function for anon",
        "grant execute on function billing.my_credits() to anon",
        &["anon: EXECUTE on function billing.my_credits()"],
    ),
    // What default privileges give.
    Tampering(
        "functions for another name",
        "grant execute on function billing.my_credits() to intruder",
        &["intruder: EXECUTE on function billing.my_credits()"],
    ),
    Tampering(
        "tables for another name",
        "grant select on all tables in schema billing to intruder",
        &["intruder: SELECT on table billing.stripe_events"],
    ),
    Tampering(
        "TRUNCATE on tables for another name",
        "grant truncate on billing.payments to intruder",
        &["intruder: TRUNCATE on table billing.payments"],
    ),
    Tampering(
        "the schema for another name",
        "grant usage on schema billing to intruder",
        &["intruder: USAGE on schema billing"],
    ),
    Tampering(
        "a right that may be passed on",
        "grant usage on schema billing to authenticated with grant option",
        &["authenticated: USAGE with grant option on schema billing"],
    ),
    // The schema.
    Tampering(
        "CREATE on the schema for the service role",
        "grant create on schema billing to service_role",
        &["service_role: CREATE on schema billing"],
    ),
    Tampering(
        "CREATE on the schema for the owner role of the tables",
        "grant create on schema billing to stripe_credits_owner",
        &["stripe_credits_owner: CREATE on schema billing"],
    ),
    Tampering(
        "CREATE on the schema for PUBLIC",
        "grant create on schema billing to public",
        &["PUBLIC: CREATE on schema billing"],
    ),
    Tampering(
        "the schema given to another owner",
        "alter schema billing owner to intruder",
        &["schema billing: owner intruder"],
    ),
    Tampering(
        "the schema given to the owner role of the tables",
        "alter schema billing owner to stripe_credits_owner",
        &["schema billing: owner stripe_credits_owner"],
    ),
    // Planted objects.
    Tampering(
        "a planted function with our name and other argument types",
        "create function billing.spend_credits(uuid, integer, text) returns int language sql return 1",
        &["function billing.spend_credits(uuid,integer,text): not installed by the extension"],
    ),
    Tampering(
        "a planted table",
        "create table billing.notes (n int)",
        &["table billing.notes: not installed by the extension"],
    ),
    // Table rights for a client role.
    Tampering("INSERT", "grant insert on billing.credit_transactions to authenticated", &["INSERT on table billing.credit_transactions"]),
    Tampering("UPDATE", "grant update on billing.credit_grants to authenticated", &["UPDATE on table billing.credit_grants"]),
    Tampering("DELETE", "grant delete on billing.payments to authenticated", &["DELETE on table billing.payments"]),
    Tampering("TRUNCATE", "grant truncate on billing.accounts to authenticated", &["TRUNCATE on table billing.accounts"]),
    Tampering("REFERENCES", "grant references on billing.accounts to authenticated", &["REFERENCES on table billing.accounts"]),
    Tampering("TRIGGER", "grant trigger on billing.accounts to authenticated", &["TRIGGER on table billing.accounts"]),
    Tampering("SELECT", "grant select on billing.stripe_events to authenticated", &["SELECT on table billing.stripe_events"]),
    Tampering(
        "a right on a column",
        "grant update (remaining) on billing.credit_grants to service_role",
        &["service_role: UPDATE on column billing.credit_grants.remaining"],
    ),
    // Columns, and whether rows survive a crash.
    Tampering(
        "NOT NULL dropped",
        "alter table billing.credit_transactions alter column amount drop not null",
        &["column billing.credit_transactions.amount: ", "not null"],
    ),
    Tampering(
        "a default",
        "alter table billing.accounts alter column debt set default -5",
        &["column billing.accounts.debt: ", "default '-5'"],
    ),
    Tampering(
        "a column added",
        "alter table billing.payments add column more text",
        &["column billing.payments.more: not installed by the extension"],
    ),
    Tampering(
        "a ledger that is not logged",
        "set local stripe_credits.allow_drop = on;
         alter table billing.credit_transactions set unlogged",
        &["table billing.credit_transactions: ", "unlogged: empty after a crash"],
    ),
    // Row level security.
    Tampering(
        "row level security disabled",
        "alter table billing.credit_grants disable row level security",
        &["table billing.credit_grants: ", "row security off"],
    ),
    Tampering(
        "a policy dropped",
        "drop policy readers on billing.accounts",
        &["policy readers on billing.accounts: missing"],
    ),
    Tampering(
        "a policy widened",
        "alter policy readers on billing.credit_transactions using (true)",
        &["policy readers on billing.credit_transactions: r t {0} true; installed: "],
    ),
    Tampering(
        "a policy for another role",
        "alter policy readers on billing.credit_transactions to authenticated",
        &["policy readers on billing.credit_transactions: "],
    ),
    Tampering(
        "a policy added",
        "create policy mine on billing.accounts for all using (true) with check (true)",
        &["policy mine on billing.accounts: not installed"],
    ),
    // Views and what shares the ledger's rows.
    Tampering(
        "a view without security_invoker",
        "alter view billing.user_credits reset (security_invoker)",
        &["view billing.user_credits: "],
    ),
    Tampering(
        "a view with security_invoker off",
        "alter view billing.user_credits set (security_invoker = false)",
        &["view billing.user_credits: ", "security_invoker=false"],
    ),
    Tampering(
        "a view with another definition",
        "do $$ begin
             execute 'create or replace view billing.user_payments with (security_invoker = true) as '
                 || replace(pg_get_viewdef('billing.user_payments'::regclass), 'amount_total AS amount',
                     'amount_total * 2 AS amount');
         end $$",
        &["view billing.user_payments: Postgres "],
    ),
    Tampering(
        "a view over the ledger",
        "create view public.peek as select * from billing.credit_transactions",
        &["view public.peek reads billing.credit_transactions"],
    ),
    Tampering(
        "a view over the view",
        "create view public.peek as select * from billing.user_credits",
        &["view public.peek reads billing.user_credits"],
    ),
    Tampering(
        "a materialized view",
        "create materialized view public.peek as select * from billing.credit_transactions",
        &["view public.peek reads billing.credit_transactions"],
    ),
    Tampering(
        "a rule on the ledger",
        "create rule swallow as on insert to billing.credit_transactions do instead nothing",
        &["rule swallow on billing.credit_transactions: not installed"],
    ),
    Tampering(
        "a parent of the ledger",
        "create table public.parent (like billing.credit_transactions);
         alter table billing.credit_transactions inherit public.parent",
        &["billing.credit_transactions inherits from public.parent"],
    ),
    Tampering(
        "a partition that is the ledger",
        "create table public.parent (like billing.credit_transactions) partition by list (user_id);
         alter table public.parent attach partition billing.credit_transactions default",
        &["billing.credit_transactions inherits from public.parent"],
    ),
    Tampering(
        "a child of the ledger",
        "create table public.child () inherits (billing.credit_transactions)",
        &["public.child inherits from billing.credit_transactions"],
    ),
    // The append-only triggers.
    Tampering(
        "the append-only trigger dropped",
        "drop trigger append_only on billing.credit_transactions",
        &["trigger append_only on billing.credit_transactions: missing"],
    ),
    Tampering(
        "the trigger for rows dropped",
        "drop trigger append_only_rows on billing.credit_transactions",
        &["trigger append_only_rows on billing.credit_transactions: missing"],
    ),
    Tampering(
        "the append-only trigger disabled",
        "alter table billing.credit_transactions disable trigger append_only",
        &["trigger append_only on billing.credit_transactions: ", "enabled D; installed"],
    ),
    Tampering(
        "the append-only trigger enabled in origin mode only",
        "alter table billing.credit_transactions enable trigger append_only_rows",
        &["trigger append_only_rows on billing.credit_transactions: ", "enabled O; installed"],
    ),
    Tampering(
        "the append-only trigger set to replica",
        "alter table billing.credit_transactions enable replica trigger append_only",
        &["trigger append_only on billing.credit_transactions: ", "enabled R; installed"],
    ),
    Tampering(
        "the trigger's function replaced",
        "create or replace function billing.refuse_ledger_change() returns trigger
         language plpgsql set search_path = pg_catalog, pg_temp as 'begin return old; end'",
        &["function billing.refuse_ledger_change(): "],
    ),
    Tampering(
        "the trigger made to run another function",
        "create function public.nothing() returns trigger language plpgsql as 'begin return old; end';
         create or replace trigger append_only before update or delete or truncate on billing.credit_transactions
             for each statement execute function public.nothing()",
        &["trigger append_only on billing.credit_transactions: ", "public.nothing()"],
    ),
    Tampering(
        "another trigger",
        "create function public.nothing() returns trigger language plpgsql as 'begin return null; end';
         create trigger swallow before insert on billing.stripe_events for each row execute function public.nothing()",
        &["trigger swallow on billing.stripe_events: not installed"],
    ),
    Tampering(
        "another rule",
        "create rule swallow as on insert to billing.payments do instead nothing",
        &["rule swallow on billing.payments: not installed"],
    ),
    // The drop guard.
    Tampering(
        "the drop guard disabled",
        "alter event trigger stripe_credits_drop_guard disable",
        &["event trigger stripe_credits_drop_guard: ", "enabled D; installed"],
    ),
    Tampering(
        "the drop guard in origin mode only",
        "alter event trigger stripe_credits_drop_guard enable",
        &["event trigger stripe_credits_drop_guard: ", "enabled O; installed"],
    ),
    Tampering(
        "the drop guard dropped",
        "set local stripe_credits.allow_drop = on;
         alter extension stripe_credits drop event trigger stripe_credits_drop_guard;
         drop event trigger stripe_credits_drop_guard",
        &["event trigger stripe_credits_drop_guard: missing"],
    ),
    Tampering(
        "the rewrite guard disabled",
        "alter event trigger stripe_credits_rewrite_guard disable",
        &["event trigger stripe_credits_rewrite_guard: "],
    ),
    // Functions.
    Tampering(
        "another search_path",
        "alter function billing.run_due(integer) set search_path = public, pg_catalog",
        &["function billing.run_due(integer): "],
    ),
    Tampering(
        "no search_path",
        "alter function billing.run_due(integer) reset search_path",
        &["function billing.run_due(integer): ", "volatile, {plan_cache_mode=force_generic_plan,enable_seqscan=off,jit=off}, body"],
    ),
    Tampering(
        "another owner",
        "alter function billing.run_due(integer) owner to intruder",
        &["function billing.run_due(integer): owner intruder"],
    ),
    Tampering(
        "an owner who is the installer",
        "alter function billing.run_due(integer) owner to current_user",
        &["function billing.run_due(integer): owner installer"],
    ),
    Tampering(
        "a body in another language",
        "create or replace function billing.run_due(p_limit integer default 500) returns bigint
         language plpgsql security definer set search_path = pg_catalog, pg_temp as 'begin return 0; end'",
        &["function billing.run_due(integer): ", "plpgsql"],
    ),
    Tampering(
        "a function that was SECURITY INVOKER",
        "alter function billing.balances_by(uuid, timestamptz) security definer",
        &["function billing.balances_by(uuid,timestamp with time zone): "],
    ),
    Tampering(
        "current_user_id() replaced",
        "create or replace function billing.current_user_id() returns uuid
         language sql stable security definer set search_path = pg_catalog, pg_temp
         as 'select ''c0de0000-0000-4000-8000-000000000002''::uuid'",
        &["function billing.current_user_id(): "],
    ),
    Tampering(
        "is_service() replaced",
        "create or replace function billing.is_service() returns boolean
         language sql stable set search_path = pg_catalog, pg_temp as 'select true'",
        &["function billing.is_service(): "],
    ),
    Tampering(
        "current_user_id() with another search_path",
        "alter function billing.current_user_id() set search_path = public",
        &["function billing.current_user_id(): ", "search_path=public"],
    ),
    Tampering(
        "is_service() with another search_path",
        "alter function billing.is_service() set search_path = public",
        &["function billing.is_service(): ", "search_path=public"],
    ),
    Tampering(
        "refuse_ledger_change() with another search_path",
        "alter function billing.refuse_ledger_change() set search_path = public",
        &["function billing.refuse_ledger_change(): ", "search_path=public"],
    ),
    // Constraints.
    Tampering(
        "a primary key dropped",
        "alter table billing.payments drop constraint payments_pkey",
        &["constraint payments_pkey on billing.payments: missing"],
    ),
    Tampering(
        "a unique key dropped",
        "alter table billing.credit_grants drop constraint credit_grants_user_id_source_id_item_key",
        &["constraint credit_grants_user_id_source_id_item_key on billing.credit_grants: missing"],
    ),
    Tampering(
        "a CHECK dropped",
        "alter table billing.reservations drop constraint reservations_status_check",
        &["constraint reservations_status_check on billing.reservations: missing"],
    ),
    Tampering(
        "a domain's CHECK dropped",
        "alter domain billing.credits drop constraint credits_check",
        &["constraint credits_check on billing.credits: missing"],
    ),
    Tampering(
        "a CHECK loosened",
        "alter table billing.settings drop constraint settings_singleton_check;
         alter table billing.settings add constraint settings_singleton_check check (true)",
        &["constraint settings_singleton_check on billing.settings: CHECK (true); installed"],
    ),
    // The owner role.
    Tampering("LOGIN", "alter role stripe_credits_owner login", &["stripe_credits_owner may log in"]),
    Tampering(
        "LOGIN and more where the tables are distributed",
        "update billing.settings set distributed = true;
         alter role stripe_credits_owner login createdb",
        &["stripe_credits_owner has CREATEDB"],
    ),
    Tampering("members", "grant stripe_credits_owner to authenticated", &["stripe_credits_owner has the member authenticated"]),
    Tampering("memberships", "grant intruder to stripe_credits_owner", &["stripe_credits_owner is a member of intruder"]),
    Tampering("SUPERUSER", "alter role stripe_credits_owner superuser", &["stripe_credits_owner is a superuser"]),
    Tampering("BYPASSRLS", "alter role stripe_credits_owner bypassrls", &["stripe_credits_owner has BYPASSRLS"]),
    Tampering("CREATEROLE", "alter role stripe_credits_owner createrole", &["stripe_credits_owner has CREATEROLE"]),
    Tampering("CREATEDB", "alter role stripe_credits_owner createdb", &["stripe_credits_owner has CREATEDB"]),
    Tampering("REPLICATION", "alter role stripe_credits_owner replication", &["stripe_credits_owner has REPLICATION"]),
    // Client roles.
    Tampering("service_role for anon", "grant service_role to anon", &["anon: is a member of service_role"]),
    Tampering("service_role for authenticated", "grant service_role to authenticated", &["authenticated: is a member of service_role"]),
    Tampering(
        "service_role for authenticated through another role",
        "grant service_role to intruder; grant intruder to authenticated",
        &["authenticated: is a member of service_role"],
    ),
    Tampering("a client with BYPASSRLS", "alter role authenticated bypassrls", &["authenticated: is a superuser or has BYPASSRLS"]),
    Tampering("a client that is SUPERUSER", "alter role anon superuser", &["anon: is a superuser or has BYPASSRLS"]),
    Tampering(
        "a client with pg_read_all_data",
        "grant pg_read_all_data to authenticated",
        &["authenticated: is a member of pg_read_all_data"],
    ),
    Tampering(
        "a client with pg_write_all_data",
        "grant pg_write_all_data to anon",
        &["anon: is a member of pg_write_all_data"],
    ),
    // Postgres has it from version 17 on; before, a role may not be named so.
    Tampering(
        "a client with pg_maintain",
        "do $$ begin
             if exists (select from pg_roles where rolname = 'pg_maintain') then
                 grant pg_maintain to authenticated;
             else
                 set local allow_system_table_mods = on; update pg_authid set rolname = 'pg_maintain' where rolname = 'intruder';
                 grant pg_maintain to authenticated;
             end if;
         end $$",
        &["authenticated: is a member of pg_maintain"],
    ),
    Tampering(
        "a client of another name with BYPASSRLS",
        "create role other_service; select billing.grant_access('intruder', 'other_service'); alter role intruder bypassrls",
        &["intruder: is a superuser or has BYPASSRLS"],
    ),
    // Owners.
    Tampering(
        "a table of another owner",
        "alter table billing.accounts owner to intruder",
        &["table billing.accounts: owner intruder"],
    ),
    Tampering(
        "a view of another owner",
        "alter view billing.user_credits owner to intruder",
        &["view billing.user_credits: owner intruder"],
    ),
    Tampering(
        "an invoker's function of another owner",
        "alter function billing.is_service() owner to intruder",
        &["function billing.is_service(): owner intruder"],
    ),
    // Settings.
    Tampering(
        "the database's isolation",
        "do $$ begin execute format('alter database %I set default_transaction_isolation = serializable',
             current_database()); end $$",
        &["database test_", "default_transaction_isolation = serializable"],
    ),
    Tampering(
        "the session's isolation",
        "set default_transaction_isolation = 'repeatable read'",
        &["this session: default_transaction_isolation = repeatable read"],
    ),
    Tampering(
        "a role's isolation",
        "alter role intruder set default_transaction_isolation = 'repeatable read'",
        &["role intruder: default_transaction_isolation = repeatable read"],
    ),
    Tampering(
        "the session's session_replication_role",
        "set session_replication_role = replica",
        &["this session: session_replication_role = replica"],
    ),
    Tampering(
        "the database's session_replication_role",
        "do $$ begin execute format('alter database %I set session_replication_role = local', current_database()); end $$",
        &["database test_", "session_replication_role = local"],
    ),
];

/// What is not ok, by rule.
fn faults(c: &mut Connection) -> Vec<String> {
    c.column("select check_name || ': ' || detail from billing.security_selfcheck() where not ok", &[])
}

#[test]
fn every_tampering_is_seen_and_named_and_nothing_is_found_before_and_after() {
    let db = Database::with_catalog();
    let mut c = db.connect();
    c.apply(&paid_pack("cs_1", ANN).completed("evt_1"));
    assert_eq!(faults(&mut c), [""; 0], "clean");
    let mut unseen = Vec::new();
    for Tampering(what, statements, names) in TAMPERINGS {
        c.run("begin; create role intruder");
        c.run(statements);
        let found = faults(&mut c).join("\n");
        if !names.iter().all(|name| found.contains(name)) {
            unseen.push(format!("{what}: {names:?}, but found: {found}"));
        }
        c.run("rollback");
        assert_eq!(faults(&mut c), [""; 0], "clean after: {what}");
    }
    assert!(unseen.is_empty(), "security_selfcheck() did not see:\n{}", unseen.join("\n"));
}

#[test]
fn an_invokers_view_and_an_index_of_the_app_are_no_tampering() {
    let db = Database::new();
    let mut c = db.connect();
    c.run(
        "create view public.credits with (security_invoker = on) as select * from billing.user_credits;
         create index mine on billing.credit_transactions (description);
         create function public.spend_credits() returns int language sql return 1",
    );
    assert_eq!(faults(&mut c), [""; 0]);
}

#[test]
fn an_owner_that_logs_in_is_no_tampering_where_the_tables_are_distributed() {
    let db = Database::with_catalog();
    let mut c = db.connect();
    c.run("begin; update billing.settings set distributed = true; alter role stripe_credits_owner login");
    assert_eq!(faults(&mut c), [""; 0]);
    c.load_catalog(&stripe_credits_tests::catalog());
    assert_eq!(faults(&mut c), [""; 0], "a load of the catalog leaves it");
    c.run("rollback");
}

#[test]
fn each_check_has_a_row_that_says_ok_and_nothing_else() {
    let db = Database::new();
    let mut c = db.connect();
    let rows: Vec<String> =
        c.column("select check_name from billing.security_selfcheck() where ok and detail = ''", &[]);
    let all: i64 = c.one("select count(*) from billing.security_selfcheck()", &[]);
    assert!(rows.len() >= 10, "{rows:?}");
    assert_eq!(i64::try_from(rows.len()).unwrap(), all);
}
