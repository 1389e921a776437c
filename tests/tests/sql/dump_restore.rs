//! Scenario 36: the books survive `pg_dump -Fc` and `pg_restore -j 4` into a new cluster.

use std::path::{Path, PathBuf};
use std::process::Command;

use stripe_credits_tests::database::setting;
use stripe_credits_tests::{
    ANN, BOB, Connection, Database, Event, catalog, fetched_lines, paid_pack, session, user,
};
use xtask::cluster::{Cluster, Options};

/// Roles of other names than Supabase's, given access by `grant_access`.
const OTHER_ROLES: [&str; 2] = ["app_client_of_dump", "app_service_of_dump"];

/// A program of the server's version.
fn program(name: &str) -> Command {
    Command::new(Path::new(&setting("STRIPE_CREDITS_PG_BIN")).join(name))
}

/// Runs a program that must succeed without a word.
fn quietly(command: &mut Command) {
    let output = command.output().expect("the program can be started");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && stderr.is_empty(), "{command:?}: {}: {stderr}", output.status);
}

/// A file that is removed at the end, on panic too.
struct Dump(PathBuf);

impl Dump {
    fn of(url: &str, name: &str) -> Dump {
        let path = std::env::temp_dir().join(format!("stripe_credits_{}_{name}.dump", std::process::id()));
        let dump = Dump(path);
        quietly(program("pg_dump").args(["-Fc", "-f"]).arg(&dump.0).arg(url));
        dump
    }

    /// Restores it into an empty database of a cluster.
    fn restore(&self, cluster: &Cluster) -> Connection {
        cluster
            .connect("postgres")
            .expect("the new cluster takes it")
            .batch_execute("create database restored")
            .expect("the new cluster takes it");
        quietly(program("pg_restore").args(["-j", "4", "-d", &cluster.url("restored")]).arg(&self.0));
        Connection::new(cluster.connect("restored").expect("the new cluster takes it"))
    }
}

impl Drop for Dump {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// Every right on the schema, its relations, columns and functions, with the owners.
fn rights(c: &mut Connection) -> Vec<String> {
    c.column(
        "select format('schema %s: %s', n.nspowner::regrole, acl.line) from pg_namespace n
         cross join lateral (select array_agg(format('%s %s', a.grantee::regrole, a.privilege_type) order by 1) as line
                             from aclexplode(n.nspacl) a) acl
         where n.nspname = 'billing'
         union all
         select format('%s %s owner %s: %s', c.relkind, c.relname, c.relowner::regrole, (
             select array_agg(format('%s %s', a.grantee::regrole, a.privilege_type) order by 1)
             from aclexplode(c.relacl) a))
         from pg_class c where c.relnamespace = 'billing'::regnamespace and c.relkind in ('r', 'v')
         union all
         select format('%s owner %s: %s', p.oid::regprocedure, p.proowner::regrole, (
             select array_agg(format('%s %s', a.grantee::regrole, a.privilege_type) order by 1)
             from aclexplode(p.proacl) a))
         from pg_proc p where p.pronamespace = 'billing'::regnamespace
         union all
         select format('policy %s on %s: %s %s %s', policyname, tablename, roles, cmd, qual)
         from pg_policies where schemaname = 'billing'
         union all
         select format('row security of %s: %s', relname, relrowsecurity)
         from pg_class where relnamespace = 'billing'::regnamespace and relkind = 'r'
         union all
         select format('trigger %s: %s', tgname, tgenabled) from pg_trigger where tgname = 'append_only'
         union all
         select format('event trigger %s: %s', evtname, evtenabled) from pg_event_trigger
         order by 1",
        &[],
    )
}

fn balances(c: &mut Connection) -> Vec<String> {
    c.column("select u::text from billing.user_credits u order by 1", &[])
}

/// A live install's day: packs of two users, one with Stripe's answer, one parked for a user and one for a price.
fn yesterday() -> Vec<(Event, Option<serde_json::Value>)> {
    let live = |event: Event| event.with("livemode", true);
    let pack = |name: &str, who| {
        paid_pack(&format!("cs_{name}"), who).with("customer", format!("cus_{name}")).with("livemode", true)
    };
    let bare = session("cs_lines").of(BOB).with("livemode", true);
    vec![
        (live(pack("ann", ANN).completed("evt_ann")), None),
        (live(pack("ann2", ANN).metadata("quantity", "3").completed("evt_ann2")), None),
        (live(pack("bob", BOB).completed("evt_bob")), None),
        (
            live(bare.completed("evt_lines")),
            Some(fetched_lines(&bare, &[("price_pack", 2), ("price_tshirt", 1)])),
        ),
    ]
}

fn waiting() -> Vec<Event> {
    let unowned = session("cs_x").metadata("price_id", "price_pack").with("customer", "cus_x");
    let unknown = session("cs_y").metadata("price_id", "price_new").of(ANN);
    vec![
        unowned.with("livemode", true).completed("evt_x").with("livemode", true),
        unknown.with("livemode", true).completed("evt_y").with("livemode", true),
    ]
}

fn lived_in(db: &Database) -> Connection {
    let mut c = db.connect();
    let mut live = catalog();
    live["livemode"] = true.into();
    live["signup_credits"] = 123.into();
    c.load_catalog(&live);
    live["packs"][0]["credits"] = 600.into();
    c.load_catalog(&live);
    c.sign_up(ANN);
    for (event, fetched) in yesterday() {
        let outcome = match &fetched {
            Some(fetched) => c.apply_fetched(&event, fetched),
            None => c.apply(&event),
        };
        assert_eq!(outcome.summary(), "applied");
    }
    for event in waiting() {
        assert_eq!(c.apply(&event).outcome, "parked");
    }
    c.call("grant_credits($1, 40, 'lent', 'lent', clock_timestamp() + interval '1 day')", &[&user(3)]);
    c
}

fn replay(c: &mut Connection) {
    let before = balances(c);
    for (event, fetched) in yesterday() {
        let outcome = match &fetched {
            Some(fetched) => c.apply_fetched(&event, fetched),
            None => c.apply(&event),
        };
        assert_eq!(outcome.summary(), "already_applied", "{}", event.id());
    }
    assert_eq!(balances(c), before);
    assert_eq!(c.one::<i64>("select count(*) from billing.validate_credits_consistency()", &[]), 0);
}

#[test]
fn scenario_36_dump_and_restore_keep_balances_settings_rights_and_applied_events() {
    let db = Database::new();
    let mut here = lived_in(&db);
    let dump = Dump::of(&db.url(), "whole");
    let cluster = Cluster::start(Options::default()).unwrap();
    let roles = "create role anon; create role authenticated; create role service_role; create role authenticator login";
    cluster.connect("postgres").unwrap().batch_execute(roles).unwrap();
    let mut there = dump.restore(&cluster);

    assert_eq!(there.everything(), here.everything(), "every row of every table");
    assert_eq!(balances(&mut there), balances(&mut here));
    assert_eq!(rights(&mut there), rights(&mut here));
    assert!(there.one::<bool>("select bool_and(ok) from billing.security_selfcheck()", &[]));
    assert_eq!(there.one::<i64>("select count(*) from billing.validate_credits_consistency()", &[]), 0);
    assert!(there.one::<bool>("select livemode from billing.settings", &[]));

    replay(&mut there);
    assert_eq!(there.sign_up(ANN).summary(), "already_applied");
    assert_eq!(there.attribute("cus_x", BOB).credits, 500, "what was parked is still healed");
    let ids: Vec<i64> =
        there.column("select id from billing.credit_transactions where user_id = $1 order by id", &[&BOB]);
    assert_eq!(ids, (1..=3).collect::<Vec<i64>>(), "ids go on where they were");
    assert_eq!(there.refusal("delete from billing.credit_transactions").code, "23001");
    assert_eq!(there.refusal("drop schema billing cascade").code, "55000");
}

#[test]
fn scenario_36_a_cluster_without_supabases_roles_loses_no_row_and_reports_nothing() {
    let db = Database::new();
    let mut here = lived_in(&db);
    let dump = Dump::of(&db.url(), "no_roles");
    let cluster = Cluster::start(Options::default()).unwrap();
    let mut there = dump.restore(&cluster);
    assert_eq!(there.everything(), here.everything());
    assert_eq!(balances(&mut there), balances(&mut here));
    replay(&mut there);
    there.run("create role authenticated; create role service_role; select billing.grant_access('authenticated', 'service_role')");
    there.run("set role service_role");
    assert_eq!(there.sign_up(BOB).credits, 123);
}

#[test]
fn scenario_36_rights_given_to_other_roles_come_along() {
    let source = Cluster::start(Options::default()).unwrap();
    let create = OTHER_ROLES.map(|role| format!("create role {role};")).concat();
    source.connect("postgres").unwrap().batch_execute(&create).unwrap();
    source.create_database("origin").unwrap();
    let mut here = Connection::new(source.connect("origin").unwrap());
    let [client, service] = OTHER_ROLES;
    here.run(&format!("select billing.grant_access('{client}', '{service}')"));
    here.load_catalog(&catalog());
    here.sign_up(ANN);
    let dump = Dump::of(&source.url("origin"), "other_roles");
    let target = Cluster::start(Options::default()).unwrap();
    let roles = "create role anon; create role authenticated; create role service_role; create role authenticator login";
    target.connect("postgres").unwrap().batch_execute(&format!("{create}{roles}")).unwrap();
    let mut there = dump.restore(&target);
    assert_eq!(there.everything(), here.everything());
    assert_eq!(rights(&mut there), rights(&mut here));
    there.run(&format!("set role {service}"));
    assert_eq!(there.sign_up(BOB).summary(), "applied");
}

#[test]
fn scenario_36_every_table_is_registered_for_the_dump() {
    let db = Database::new();
    let mut c = db.connect();
    let unregistered: Vec<String> = c.column(
        "select relname::text from pg_class, pg_extension e
         where relnamespace = 'billing'::regnamespace and relkind in ('r', 'S', 'm', 'p')
             and e.extname = 'stripe_credits' and pg_class.oid <> all (coalesce(e.extconfig, '{}'))",
        &[],
    );
    assert_eq!(unregistered, [""; 0], "pg_dump would leave these behind");
    let filtered: Vec<String> =
        c.column("select unnest(extcondition) from pg_extension where extname = 'stripe_credits'", &[]);
    assert!(filtered.iter().all(String::is_empty), "{filtered:?}");
    for (what, query) in [
        (
            "foreign keys: pg_restore -j loses rows to them",
            "select count(*) from pg_constraint
          where connamespace = 'billing'::regnamespace and contype = 'f'",
        ),
        (
            "sequences",
            "select count(*) from pg_class
          where relnamespace = 'billing'::regnamespace and relkind = 'S'",
        ),
        (
            "insert triggers that write: they fire again in COPY",
            "select count(*) from pg_trigger t join pg_class c on c.oid = t.tgrelid
          where c.relnamespace = 'billing'::regnamespace and t.tgtype & 4 <> 0
              and t.tgfoid <> 'billing.kept_table_changed'::regproc",
        ),
        (
            "policies that name a role",
            "select count(*) from pg_policies
          where schemaname = 'billing' and roles <> '{public}'",
        ),
    ] {
        assert_eq!(c.one::<i64>(query, &[]), 0, "{what}");
    }
    let rows = c.everything();
    assert!(rows.values().all(Vec::is_empty), "a row of the script breaks the restore: {rows:?}");
}
