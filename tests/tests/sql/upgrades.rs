//! An update ends where a fresh install of the same version begins, with the books as they were.
//!
//! Versions are frozen in sql/releases, as their install scripts were generated. Until there is one, the present
//! version stands in for the released one, and an invented one for the next.

use stripe_credits_tests::connection::Fault;
use stripe_credits_tests::database::broken_invariants;
use stripe_credits_tests::refunds::refunded;
use stripe_credits_tests::server_copy::{PRESENT, ServerCopy, scripts};
use stripe_credits_tests::subscription::{PRO, renewal, subscription};
use stripe_credits_tests::{ANN, BOB, Connection, catalog, paid_pack, user};
use xtask::cluster::Cluster;

use crate::schema_dump::dump;

/// An invented next version.
const NEXT: &str = "99.0.0";
/// What the install script and every update script end with.
const RECORD: &str = "do $$\nbegin\n    perform billing.secure_installation();\nend\n$$;\n";
/// What the next version changes: a column, a function, a table.
const CHANGES: &str = "
    alter table billing.accounts add column nickname text;
    create or replace function billing.free_plan() returns table (credits bigint, every interval)
    language sql stable security definer rows 1 set search_path = pg_catalog, pg_temp
    as 'select s.free_plan_credits, s.free_plan_every from billing.settings s where s.free_plan_credits > 1';
    create function billing.greeting() returns text
    language sql stable security definer set search_path = pg_catalog, pg_temp as 'select ''hello''';
    comment on function billing.greeting() is 'A greeting.';
    create table billing.notes (note text primary key);
    comment on table billing.notes is 'Notes.';
    alter table billing.notes enable row level security;
    create policy readers on billing.notes for select to public using ((select billing.is_service()));
    select pg_catalog.pg_extension_config_dump('billing.notes', '');
";
/// Roles of other names than Supabase's.
const OTHER_ROLES: [&str; 2] = ["app_client", "app_service"];

/// The install script of the next version: the present one with the changes before the record.
fn next_install_script(server: &ServerCopy) -> String {
    let (objects, rest) = server.install_script().split_once(RECORD).map_or_else(
        || panic!("the install script does not end with the record"),
        |(objects, rest)| (objects.to_owned(), rest.to_owned()),
    );
    format!("{objects}{CHANGES}{RECORD}{rest}")
}

/// A new database with this version of the extension.
fn install(cluster: &Cluster, database: &str, version: &str) -> Connection {
    cluster
        .connect("postgres")
        .and_then(|mut c| Ok(c.batch_execute(&format!("create database {database}"))?))
        .expect("a database");
    let mut c = Connection::new(cluster.connect(database).expect("the new database"));
    c.run(&format!("create extension stripe_credits version '{version}'"));
    c
}

/// A cluster with the roles of a Supabase, and those of another app.
fn start(server: &ServerCopy) -> Cluster {
    let cluster = server.start();
    let roles = ["anon", "authenticated", "service_role"].into_iter().chain(OTHER_ROLES);
    let roles: Vec<String> = roles.map(|role| format!("create role {role};")).collect();
    cluster.connect("postgres").and_then(|mut c| Ok(c.batch_execute(&roles.concat())?)).expect("the roles");
    cluster
}

/// Books of every kind: a pack, a plan, spends, a reservation, a refund with debt, something parked.
fn fill(c: &mut Connection) {
    c.load_catalog(&catalog());
    c.sign_up(ANN);
    c.apply(
        &paid_pack("cs_1", ANN).with("customer", "cus_1").with("payment_intent", "pi_1").completed("evt_1"),
    );
    c.apply(&subscription("sub_1", "price_pro").of(BOB).created("evt_2"));
    c.apply(&renewal("in_1", "sub_1", PRO, 0).of(BOB).paid("evt_3"));
    c.call("spend_credits($1, 900, 'job-1')", &[&ANN]);
    c.call("reserve_credits($1, 50, 'job-2')", &[&ANN]);
    c.deliver(&refunded("re_1", "pi_1", 500));
    c.apply(&paid_pack("cs_2", user(3)).metadata("price_id", "price_unknown").completed("evt_5"));
}

/// What the two databases differ in: schema, bodies, comments, defaults, what the dump carries.
fn differences(updated: &mut Connection, fresh: &mut Connection) -> Vec<String> {
    let mut states = [updated, fresh].map(|c| {
        let mut lines: Vec<String> = dump(c).lines().map(str::to_owned).collect();
        lines.extend(c.column::<String>("select concat_ws(' ', p.*) from billing.present_state() p", &[]));
        lines.extend(c.column::<String>(
            "select concat(pg_describe_object(d.classoid, d.objoid, d.objsubid), ': ', d.description)
             from pg_description d join pg_depend m on m.classid = d.classoid and m.objid = d.objoid
             join pg_extension e on m.refobjid = e.oid and e.extname = 'stripe_credits'
             union all
             select concat('dump: ', t.o::regclass) from pg_extension e, unnest(e.extconfig) t (o)
             where e.extname = 'stripe_credits'",
            &[],
        ));
        // The record is compared by present_state(), and its body names every object.
        lines.sort();
        lines
    });
    let [updated, fresh] = &mut states;
    let gone = fresh.iter().filter(|line| !updated.contains(line)).map(|line| format!("missing: {line}"));
    let new = updated.iter().filter(|line| !fresh.contains(line)).map(|line| format!("left over: {line}"));
    gone.chain(new).collect()
}

/// What `security_selfcheck()` finds.
fn selfcheck(c: &mut Connection) -> Vec<String> {
    c.column("select check_name || ': ' || detail from billing.security_selfcheck() where not ok", &[])
}

/// Installs a version from its script, fills it, updates it to the next one, and compares it with a fresh install of that.
fn differences_after_update(server: &ServerCopy, script: &str, from: &str, to: &str) -> Vec<String> {
    if from != to {
        server.add(&format!("stripe_credits--{from}.sql"), script);
    }
    let cluster = start(server);
    let mut fresh = install(&cluster, "fresh", to);
    if from == to {
        server.add(&format!("stripe_credits--{from}.sql"), script);
    }
    let mut c = install(&cluster, "updated", from);
    let [client, service] = OTHER_ROLES;
    for c in [&mut fresh, &mut c] {
        c.run(&format!("select billing.grant_access('{client}', '{service}')"));
    }
    fill(&mut c);
    let before = c.everything();
    if from != to {
        c.run(&format!("alter extension stripe_credits update to '{to}'"));
    }
    let mut found = differences(&mut c, &mut fresh);
    found.extend(selfcheck(&mut c));
    for (table, rows) in &before {
        let after: i64 = c.one(&format!("select count(*) from billing.{table}"), &[]);
        assert_eq!(usize::try_from(after), Ok(rows.len()), "{table}");
    }
    found.extend(broken_invariants(&mut c));
    // The books go on where they were.
    assert_eq!(c.apply(&paid_pack("cs_1", ANN).completed("evt_1")).summary(), "already_applied");
    assert_eq!((c.balance(ANN), c.balance(BOB)), (0, 10_000));
    assert_eq!(c.call("release_reservation($1, 'job-2')", &[&ANN]).balance_and_debt(), (0, 150));
    assert_eq!(c.apply(&paid_pack("cs_9", ANN).completed("evt_9")).balance_and_debt(), (350, 0));
    assert_eq!(c.inbox("evt_5").as_deref(), Some("parked unknown_price"));
    found
}

#[test]
fn an_update_ends_as_a_fresh_install_of_that_version() {
    let server = ServerCopy::new();
    let script = server.install_script();
    server.add(&format!("stripe_credits--{NEXT}.sql"), &next_install_script(&server));
    server.add(&format!("stripe_credits--{PRESENT}--{NEXT}.sql"), &format!("{CHANGES}{RECORD}"));
    let found = differences_after_update(&server, &script, PRESENT, NEXT);
    assert!(found.is_empty(), "{found:#?}");
}

#[test]
fn an_update_gives_new_functions_to_the_roles_that_grant_access_made() {
    let server = ServerCopy::new();
    server.add(&format!("stripe_credits--{PRESENT}--{NEXT}.sql"), &format!("{CHANGES}{RECORD}"));
    let cluster = start(&server);
    let mut c = install(&cluster, "updated", PRESENT);
    c.run("select billing.grant_access('app_client', 'app_service')");
    // As Supabase does, for whatever a superuser makes.
    c.run("alter default privileges grant execute on functions to anon, authenticated, app_client");
    c.run("alter default privileges grant all on tables to anon, authenticated, app_client");
    c.run(&format!("alter extension stripe_credits update to '{NEXT}'"));
    let may: Vec<String> = c.column(
        "select rolname::text from pg_roles where rolname !~ '^(pg_|postgres|stripe_)'
             and has_function_privilege(oid, 'billing.greeting()', 'execute') order by 1",
        &[],
    );
    assert_eq!(may, ["app_service", "service_role"]);
    let reads: Vec<String> = c.column(
        "select rolname::text from pg_roles where rolname !~ '^(pg_|postgres|stripe_)'
             and has_table_privilege(oid, 'billing.notes', 'select, insert, update, delete') order by 1",
        &[],
    );
    assert_eq!(reads, ["app_service", "service_role"]);
    let clients: Vec<String> = c.column(
        "select rolname::text from pg_roles where rolname !~ '^(pg_|postgres|stripe_)'
             and has_function_privilege(oid, 'billing.my_credits()', 'execute') order by 1",
        &[],
    );
    assert_eq!(clients, ["app_client", "app_service", "authenticated", "service_role"]);
    assert_eq!(selfcheck(&mut c), [""; 0]);
}

#[test]
fn an_update_that_forgets_the_record_is_called_tampering() {
    let server = ServerCopy::new();
    server.add(&format!("stripe_credits--{PRESENT}--{NEXT}.sql"), CHANGES);
    let cluster = start(&server);
    let mut c = install(&cluster, "updated", PRESENT);
    c.run(&format!("alter extension stripe_credits update to '{NEXT}'"));
    let found = selfcheck(&mut c).concat();
    for object in ["billing.free_plan()", "billing.greeting()", "table billing.notes"] {
        assert!(found.contains(object), "{object}: {found}");
    }
    let Fault { code, .. } = c.refusal("select billing.secure_installation()");
    assert_eq!(code, "2BP01", "nobody replaces the record by hand");
}

#[test]
fn every_update_script_ends_with_the_record() {
    for script in scripts("extension/sql") {
        let name = script.file_name().unwrap().to_string_lossy().into_owned();
        let versions = name.strip_prefix("stripe_credits--").and_then(|name| name.strip_suffix(".sql"));
        assert!(versions.is_some_and(|versions| versions.split("--").count() == 2), "{name}");
        let text = std::fs::read_to_string(&script).unwrap();
        assert!(text.ends_with(RECORD), "{name} must end with:\n{RECORD}");
    }
}

/// Bites as soon as a version is frozen: from then on every change of the schema needs a new version and a script.
#[test]
fn every_frozen_version_updates_to_the_present_one() {
    for frozen in scripts("sql/releases") {
        let version = frozen.file_stem().unwrap().to_string_lossy().into_owned();
        let script = std::fs::read_to_string(&frozen).unwrap();
        let found = differences_after_update(&ServerCopy::new(), &script, &version, PRESENT);
        assert!(
            found.is_empty(),
            "{version} does not become {PRESENT}: write extension/sql/stripe_credits--{version}--….sql, as \
             docs/upgrading.md says\n{found:#?}"
        );
    }
}

/// What the test above is for, with an invented frozen version.
#[test]
fn a_schema_change_without_a_script_is_noticed() {
    let server = ServerCopy::new();
    let frozen = next_install_script(&server);
    let found = differences_after_update(&server, &frozen, PRESENT, PRESENT).concat();
    for object in ["nickname text", "greeting()", "free_plan()", "table billing.notes"] {
        assert!(found.contains(object), "{object}: {found}");
    }
}
