//! The mirror in the app's own database is what the books say, whatever happens to either, to the shims and to the rows.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use serde_json::Value;
use stripe_credits_tests::app::as_service;
use stripe_credits_tests::mirror::{expected, init, mirror, mirrored, until_equal};
use stripe_credits_tests::seeds::Rng;
use stripe_credits_tests::shim::{Ended, Setup, Shim, until};
use stripe_credits_tests::subscription::{PRO, renewal, subscription};
use stripe_credits_tests::{ANN, BOB, Connection, Database, catalog, paid_pack, user};
use uuid::Uuid;
use xtask::cluster::{Cluster, Options, StopMode};

use crate::database_away::{self, DATABASE, Enough};

/// How many ledger rows of each user the mirrors of these tests have.
const ROWS: i64 = 3;

/// Books with a catalog, and a mirror of them.
struct Pair {
    books: Database,
    app: Database,
}

impl Pair {
    fn new() -> Pair {
        let pair = Pair { books: Database::with_catalog(), app: Database::empty() };
        init(&pair.app.url());
        pair
    }

    /// `serve` as the service role, as in production.
    fn setup(&self) -> Setup {
        serve(&as_service(&self.books), &self.app.url())
    }

    fn check(&self, arguments: &[&str]) -> Ended {
        mirror(&[&["check"], arguments].concat(), &as_service(&self.books), &self.app.url())
            .with("MIRROR_LEDGER_ROWS", &ROWS.to_string())
            .run()
    }

    fn until_equal(&self) {
        until_equal(&mut self.books.connect(), &mut self.app.connect(), ROWS);
    }
}

fn serve(books: &str, app: &str) -> Setup {
    Setup::serve(books).with("MIRROR_DATABASE_URL", app).with("MIRROR_LEDGER_ROWS", &ROWS.to_string())
}

fn balance(app: &mut Connection, user: Uuid) -> i64 {
    app.one("select credits_balance from billing_mirror.user_credits where user_id = $1", &[&user])
}

fn lines(messages: &str, shim: &Shim) -> usize {
    shim.log().iter().filter(|line| line["message"] == messages).count()
}

#[test]
fn init_makes_what_is_missing_as_the_owner_of_the_database_and_says_so() {
    let app = Database::empty();
    let mut superuser = app.connect();
    superuser.run(
        "create role mirror_owner login; create role mirror_writer login; create role mirror_client nologin",
    );
    superuser.run(&format!("alter database {} owner to mirror_owner", app.name()));
    let owner = app.url().replace("postgres@", "mirror_owner@");
    let arguments = ["mirror", "init", "--client", "mirror_client", "--writer", "mirror_writer"];
    let run = || Setup::command(&arguments).with("MIRROR_DATABASE_URL", &owner).run();
    let first = run();
    assert_eq!((first.code, &*first.stderr), (Some(0), ""), "{first:?}");
    let what = |ended: &Ended, word: &str| {
        ended
            .stdout
            .lines()
            .filter(|line| line.starts_with(word))
            .map(|line| line[7..].to_owned())
            .collect::<Vec<_>>()
    };
    let made = what(&first, "made");
    assert_eq!((made.len(), what(&first, "there").len()), (16, 0), "{}", first.stdout);
    assert!(made.contains(&"table billing_mirror.user_credits".to_owned()), "{made:?}");
    let second = run();
    assert_eq!((what(&second, "there"), second.code), (made, Some(0)), "{}", second.stdout);

    // The writer may write these two tables, and do nothing else.
    let books = Database::with_catalog();
    books.connect().sign_up(ANN);
    let writer = app.url().replace("postgres@", "mirror_writer@");
    let shim = Setup::serve(&books.url()).with("MIRROR_DATABASE_URL", &writer).start();
    until_equal(&mut books.connect(), &mut superuser, 0);
    drop(shim);
    let mut as_writer = app.connect_as("mirror_writer");
    for wrong in [
        "alter table billing_mirror.user_credits disable row level security",
        "truncate billing_mirror.user_credits",
        "create table billing_mirror.other (a int)",
    ] {
        assert_eq!(as_writer.refusal(wrong).code, "42501", "{wrong}");
    }
    drop(as_writer);
    // Roles are the cluster's, not the database's.
    superuser.run(&format!("alter database {} owner to postgres", app.name()));
    superuser.run(
        "drop owned by mirror_owner, mirror_writer, mirror_client;
         drop role mirror_owner, mirror_writer, mirror_client",
    );
}

#[test]
fn init_prints_the_sql_that_it_would_run() {
    let app = Database::empty();
    let printed = Setup::command(&["mirror", "init", "--print"]).run();
    assert_eq!(printed.code, Some(0), "{printed:?}");
    app.connect().run(&printed.stdout);
    let there = init(&app.url()).stdout;
    assert!(!there.contains("made "), "{there}");
}

#[test]
fn init_that_was_not_run_is_said_by_every_command_and_costs_serve_nothing() {
    let (books, app) = (Database::with_catalog(), Database::empty());
    let check = mirror(&["check"], &books.url(), &app.url()).run();
    books.connect().sign_up(ANN);
    assert_eq!(check.code, Some(64), "{check:?}");
    assert!(check.stderr.contains("stripe-credits mirror init"), "{check:?}");
    let shim = serve(&books.url(), &app.url()).start();
    shim.logged(1, |line| line["message"] == "the mirror is not kept up to date");
    assert_eq!(shim.ops("/readyz").status, 200);
    init(&app.url());
    until_equal(&mut books.connect(), &mut app.connect(), ROWS);
    shim.logged(1, |line| line["message"] == "the mirror is kept up to date again");
}

#[test]
fn a_signed_in_user_reads_their_own_rows_and_writes_none() {
    let pair = Pair::new();
    let mut books = pair.books.connect();
    for user in [ANN, BOB] {
        books.sign_up(user);
    }
    let _shim = pair.setup().start();
    pair.until_equal();
    let mut client = pair.app.connect_as("authenticated");
    let mut seen = |claims: &str| {
        client.run(&format!("set request.jwt.claims = '{claims}'"));
        let credits: Vec<Uuid> = client.column("select user_id from billing_mirror.user_credits", &[]);
        let rows: Vec<Uuid> = client.column("select user_id from billing_mirror.credit_transactions", &[]);
        assert_eq!(credits, rows, "one ledger row each");
        credits
    };
    assert_eq!(seen(&format!("{{\"sub\": \"{ANN}\"}}")), [ANN]);
    assert_eq!(seen(&format!("{{\"sub\": \"{BOB}\"}}")), [BOB]);
    assert_eq!((seen("{}"), seen("")), (vec![], vec![]));
    for wrong in [
        "update billing_mirror.user_credits set credits_balance = 1000000",
        "delete from billing_mirror.credit_transactions",
        "insert into billing_mirror.user_credits select * from billing_mirror.user_credits",
    ] {
        assert_eq!(client.refusal(wrong).code, "42501", "{wrong}");
    }
    assert_eq!(
        pair.app.connect_as("anon").refusal("select * from billing_mirror.user_credits").code,
        "42501"
    );
}

#[test]
fn every_kind_of_change_of_the_read_model_is_mirrored() {
    let pair = Pair::new();
    let _shim = pair.setup().start();
    let (mut books, mut app) = (pair.books.connect(), pair.app.connect());
    let mut mirrors = |books: &mut Connection, what: &str, change: &dyn Fn(&mut Connection)| {
        let before = expected(books, ROWS);
        change(books);
        assert_ne!(before, expected(books, ROWS), "{what} changes the read model");
        until(what, || expected(books, ROWS) == mirrored(&mut app));
    };
    mirrors(&mut books, "a sign-up", &|books| drop(books.sign_up(ANN)));
    mirrors(&mut books, "a purchase", &|books| drop(books.apply(&paid_pack("cs_1", ANN).completed("evt_1"))));
    mirrors(&mut books, "a spend", &|books| drop(books.spend(ANN, 20, "job-1")));
    mirrors(&mut books, "a subscription", &|books| {
        books.apply(&subscription("sub_1", "price_pro").of(ANN).created("evt_2"));
        books.apply(&renewal("in_1", "sub_1", PRO, 0).of(ANN).paid("evt_3"));
    });
    mirrors(&mut books, "what a plan's price is worth", &|books| {
        let mut changed = catalog();
        changed["plans"][0]["credits"] = 12_345.into();
        books.load_catalog(&changed);
    });
    mirrors(&mut books, "a customer's link", &|books| {
        books.sign_up(BOB);
        books.attribute("cus_of_bob", BOB);
    });
    mirrors(&mut books, "a customer's link that moves", &|books| drop(books.attribute("cus_of_bob", ANN)));
    mirrors(&mut books, "a subscription that moves", &|books| drop(books.attribute("sub_1", BOB)));
    mirrors(&mut books, "an expiry that nobody posted", &|books| {
        books.call(
            "grant_credits($1, 77, 'short', p_expires_at => clock_timestamp() + interval '0.3 s')",
            &[&BOB],
        );
        let has_expired = "select not exists (
            select from billing.credit_grants where source_id like '%short%' and expires_at > clock_timestamp())";
        until("it has expired", || books.one(has_expired, &[]));
    });
    mirrors(&mut books, "a user to forget", &|books| drop(books.call("forget_user($1)", &[&ANN])));
    books.spend(BOB, 1, "job-2");
    books.grant(ANN, 5, "late");
    pair.until_equal();
    let of_ann: i64 = pair.app.connect().one(
        "select (select count(*) from billing_mirror.user_credits where user_id = $1)
             + (select count(*) from billing_mirror.credit_transactions where user_id = $1)",
        &[&ANN],
    );
    assert_eq!(of_ann, 0, "nothing of a forgotten user");
    let check = pair.check(&[]);
    assert_eq!(check.code, Some(0), "{check:?}");
}

#[test]
fn a_transaction_that_commits_late_is_mirrored_and_keeps_nobody_waiting() {
    let pair = Pair::new();
    let shim = pair.setup().start();
    let (mut early, mut books, mut app) = (pair.books.connect(), pair.books.connect(), pair.app.connect());
    for user in [ANN, BOB] {
        books.grant(user, 100, "start");
    }
    pair.until_equal();
    early.run("begin");
    early.spend(ANN, 30, "job-1");
    for n in 0..3 {
        books.spend(BOB, 1, &format!("job-{n}"));
        until("later transactions are mirrored", || balance(&mut app, BOB) == 99 - n);
    }
    assert_eq!(balance(&mut app, ANN), 100);
    // The books mark what the mirror has a moment later.
    until("what is not committed waits for nothing", || {
        shim.metric("stripe_credits_mirror_pending", &[]) == 0
    });
    early.run("commit");
    until("the late one is mirrored", || balance(&mut app, ANN) == 70);
    pair.until_equal();
}

#[test]
fn a_mirror_that_is_away_costs_nothing_but_lag() {
    let books = Database::with_catalog();
    let mut cluster = app_cluster();
    init(&cluster.url("app"));
    let shim = serve(&books.url(), &cluster.url("app")).start();
    let mut connection = books.connect();
    connection.grant(ANN, 100, "start");
    until_equal(&mut connection, &mut app(&cluster), ROWS);
    cluster.stop(StopMode::Immediate);
    connection.spend(ANN, 1, "job-1");
    until("two attempts have failed", || shim.metric("stripe_credits_mirror_failures_total", &[]) >= 2);
    assert_eq!(lines("the mirror is not kept up to date", &shim), 1, "{}", shim.text());
    for n in 0..20 {
        let event = paid_pack(&format!("cs_{n}"), user(100 + n)).completed(&format!("evt_{n}"));
        assert_eq!(shim.deliver(&event).status, 200);
    }
    assert_eq!((shim.ops("/readyz").status, shim.ops("/healthz").status), (200, 200));
    until("the lag is shown", || shim.metric("stripe_credits_mirror_pending", &[]) == 21);
    let lag = || {
        let text = shim.ops("/metrics").body;
        let line = text.lines().find_map(|line| line.strip_prefix("stripe_credits_mirror_lag_seconds "));
        line.expect("it is shown").parse::<f64>().expect("a number")
    };
    let before = lag();
    until("it grows", || lag() > before);
    cluster.start_again().expect("the mirror starts again");
    until_equal(&mut connection, &mut app(&cluster), ROWS);
    shim.logged(1, |line| line["message"] == "the mirror is kept up to date again");
    until("nothing waits", || shim.metric("stripe_credits_mirror_pending", &[]) == 0);
    assert_eq!(shim.metric("stripe_credits_mirror_accounts_total", &[("result", "ahead")]), 0);
}

#[test]
fn an_account_that_the_app_refuses_keeps_no_other_from_being_mirrored() {
    let pair = Pair::new();
    let (mut books, mut app) = (pair.books.connect(), pair.app.connect());
    app.run(&format!(
        "create table users (id uuid primary key);
         insert into users values ('{BOB}');
         alter table billing_mirror.user_credits add foreign key (user_id) references users (id)"
    ));
    let shim = pair.setup().start();
    for user in [ANN, BOB] {
        books.grant(user, 100, "start");
    }
    until("the other is mirrored", || {
        app.column::<Uuid>("select user_id from billing_mirror.user_credits", &[]) == [BOB]
    });
    until("the refusal is counted", || {
        shim.metric("stripe_credits_mirror_accounts_total", &[("result", "refused")]) > 0
    });
    app.run(&format!("insert into users values ('{ANN}')"));
    pair.until_equal();
}

#[test]
fn check_finds_a_changed_a_missing_and_a_surplus_row_and_repairs_them() {
    let pair = Pair::new();
    let mut books = pair.books.connect();
    for n in 1..=8 {
        books.grant(user(n), 100, "start");
        books.spend(user(n), 1, "job-1");
    }
    let shim = pair.setup().start();
    pair.until_equal();
    until("nothing waits", || shim.metric("stripe_credits_mirror_pending", &[]) == 0);
    let right = pair.check(&[]);
    assert_eq!(right.code, Some(0), "{right:?}");
    assert!(right.stdout.contains("8 accounts compared, 0 of them about"), "{right:?}");

    let mut app = pair.app.connect();
    let id = |n| user(n).to_string();
    app.run(&format!(
        "update billing_mirror.user_credits set credits_balance = 7 where user_id = '{}';
         delete from billing_mirror.user_credits where user_id = '{}';
         update billing_mirror.credit_transactions set amount = 8 where user_id = '{}' and id = 2;
         delete from billing_mirror.credit_transactions where user_id = '{}' and id = 1;
         insert into billing_mirror.user_credits
             select '{}', {} from billing_mirror.user_credits where user_id = '{}';
         insert into billing_mirror.credit_transactions
             (user_id, id, operation_id, transaction_type, amount, balance_after, created_at)
             values ('{}', 1, 1, 'spend', -1, 0, now())",
        id(1),
        id(2),
        id(3),
        id(4),
        id(99),
        columns_after_user(&mut pair.app.connect()),
        id(5),
        id(98),
    ));
    let found = pair.check(&[]);
    assert_eq!(found.code, Some(1), "{found:?}");
    let kinds: Vec<(String, String)> = found
        .stdout
        .lines()
        .filter_map(|line| line.split_once("  "))
        .map(|(user, what)| (user.to_owned(), what.split(':').next().unwrap_or_default().to_owned()))
        .collect();
    let expected: Vec<(String, String)> = [
        (1, "other credits"),
        (2, "missing"),
        (3, "other ledger rows"),
        (4, "other ledger rows"),
        (98, "surplus"),
        (99, "surplus"),
    ]
    .map(|(n, what)| (id(n), what.to_owned()))
    .to_vec();
    assert_eq!(kinds, expected, "{found:?}");

    let repaired = pair.check(&["--repair"]);
    assert_eq!(repaired.code, Some(0), "{repaired:?}");
    assert!(
        repaired.stdout.contains("8 accounts compared, 0 of them about to be mirrored, 6 repaired"),
        "{repaired:?}"
    );
    assert_eq!(expected_now(&pair), mirrored(&mut app));
    assert_eq!(pair.check(&[]).code, Some(0));
}

fn expected_now(pair: &Pair) -> Vec<String> {
    expected(&mut pair.books.connect(), ROWS)
}

fn columns_after_user(app: &mut Connection) -> String {
    app.one(
        "select string_agg(attname, ', ' order by attnum) from pg_attribute
         where attrelid = 'billing_mirror.user_credits'::regclass and attnum > 1 and not attisdropped",
        &[],
    )
}

#[test]
fn a_mirror_or_books_that_were_restored_from_earlier_are_repaired() {
    let pair = Pair::new();
    let (mut books, mut app) = (pair.books.connect(), pair.app.connect());
    let shim = pair.setup().start();
    for n in 1..=4 {
        books.grant(user(n), 100, "start");
    }
    pair.until_equal();
    app.run(
        "create table backup_credits as table billing_mirror.user_credits;
         create table backup_rows as table billing_mirror.credit_transactions",
    );
    for n in 1..=3 {
        books.spend(user(n), 10, "job-1");
    }
    books.grant(user(5), 100, "start");
    pair.until_equal();
    until("nothing waits", || shim.metric("stripe_credits_mirror_pending", &[]) == 0);
    // The mirror is of an earlier time, and the books do not know.
    app.run(
        "truncate billing_mirror.user_credits, billing_mirror.credit_transactions;
         insert into billing_mirror.user_credits table backup_credits;
         insert into billing_mirror.credit_transactions table backup_rows",
    );
    assert_eq!(pair.check(&[]).code, Some(1));
    assert_eq!(pair.check(&["--repair"]).code, Some(0));
    assert_eq!(expected_now(&pair), mirrored(&mut app));

    // The books are of an earlier time: the mirror knows versions that they do not, and what happens next has the numbers of
    // what was lost.
    app.run("update billing_mirror.user_credits set version = version + 10, credits_balance = 1");
    books.spend(ANN, 5, "job-2");
    until("it is said", || shim.metric("stripe_credits_mirror_accounts_total", &[("result", "ahead")]) > 0);
    assert!(
        lines(
            "the mirror has newer versions than the books, which were restored: stripe-credits mirror check --repair",
            &shim
        ) > 0
    );
    let found = pair.check(&[]);
    assert_eq!(found.code, Some(1), "{found:?}");
    assert_eq!(found.stdout.lines().filter(|line| line.contains("other credits")).count(), 5, "{found:?}");
    assert_eq!(pair.check(&["--repair"]).code, Some(0));
    assert_eq!(expected_now(&pair), mirrored(&mut app));
    books.spend(ANN, 5, "job-3");
    pair.until_equal();
}

#[test]
fn ten_thousand_users_are_mirrored_by_two_shims_and_checked() {
    let pair = Pair::new();
    let mut books = pair.books.connect();
    // As an app imports its balances.
    books.run(
        "select count(*) from generate_series(1, 10000) n
         cross join lateral billing.import_balance(
             ('c0de0000-0000-4000-8000-' || lpad(to_hex(n), 12, '0'))::uuid, 'purchased', n, 'cut-over') i",
    );
    let shims = [pair.setup().start(), pair.setup().start()];
    pair.until_equal();
    let written: u64 = shims
        .iter()
        .map(|shim| shim.metric("stripe_credits_mirror_accounts_total", &[("result", "mirrored")]))
        .sum();
    assert!((10_000..30_000).contains(&written), "each account about once, not once by each shim: {written}");
    let check = pair.check(&[]);
    assert_eq!(check.code, Some(0), "{check:?}");
    assert!(check.stdout.contains("10000 accounts compared"), "{check:?}");
    assert!(check.peak_memory < 100_000, "kilobytes: {}", check.peak_memory);
}

#[test]
fn doctor_looks_at_the_mirror() {
    let pair = Pair::new();
    let doctor = |pair: &Pair| pair.setup().calling(&["doctor"]).run().stdout;
    assert!(
        doctor(&pair).contains("ok     mirror: can be written, and 0 accounts wait for it"),
        "{}",
        doctor(&pair)
    );
    pair.books.connect().run(&format!(
        "insert into billing.accounts (user_id, created_at, updated_at, mirror_due_since)
         values ('{ANN}', now(), now(), now() - interval '1 hour')"
    ));
    assert!(doctor(&pair).contains("FAULT  mirror: 1 accounts wait for it"), "{}", doctor(&pair));
    pair.app.connect().run("drop schema billing_mirror cascade");
    let fault = doctor(&pair);
    assert!(fault.contains("FAULT  mirror: the mirror's tables do not exist"), "{fault}");
}

/// A server of the app's own.
fn app_cluster() -> Cluster {
    let cluster = Cluster::start(Options::default()).expect("a cluster");
    let create = |mut c: postgres::Client| Ok(c.batch_execute("create database app")?);
    cluster.connect("postgres").and_then(create).expect("a database");
    cluster
}

fn app(cluster: &Cluster) -> Connection {
    Connection::new(cluster.connect("app").expect("the mirror is there"))
}

/// An app that gives and spends on and on, whether the database is there or not.
fn spend_at_random(seed: u64, url: &str, is_over: &AtomicBool) {
    let mut rng = Rng::new(seed);
    let mut connection = None;
    let mut n = 0;
    while !is_over.load(Ordering::Relaxed) {
        n += 1;
        let user = user(1 + rng.below(40) as u128);
        let (call, amount) =
            *rng.one_of(&[("grant_credits", 50_i64), ("spend_credits", 7), ("spend_credits", 30)]);
        let sql = format!("select billing.{call}('{user}', {amount}, '{seed}-{n}')");
        let client = match connection.take() {
            Some(client) => Ok(client),
            None => postgres::Client::connect(url, postgres::NoTls),
        };
        connection = client.and_then(|mut client| client.batch_execute(&sql).map(|()| client)).ok();
    }
}

#[test]
fn kills_of_both_servers_and_both_shims_under_load_end_in_an_equal_mirror() {
    let mut servers = (database_away::cluster(), app_cluster());
    init(&servers.1.url("app"));
    let (books_url, app_url) = (servers.0.url(DATABASE), servers.1.url("app"));
    let start = || serve(&books_url, &app_url).start();
    let mut shims = [start(), start()];
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        for seed in 0..4 {
            let (url, is_over) = (&books_url, &is_over);
            scope.spawn(move || spend_at_random(seed, url, is_over));
        }
        // Ends the spends also when something below panics.
        let enough = Enough(&is_over);
        let mut rng = Rng::new(7);
        for _ in 0..12 {
            let before = versions(&servers.1);
            match rng.below(4) {
                0 => {
                    servers.0.kill_server();
                    servers.0.start_again().expect("the books recover");
                }
                1 => {
                    servers.1.kill_server();
                    servers.1.start_again().expect("the mirror recovers");
                }
                one => {
                    shims[one - 2].kill();
                    shims[one - 2] = start();
                }
            }
            until("it goes on", || versions(&servers.1) > before);
        }
        drop(enough);
    });
    let mut books = database_away::books(&servers.0);
    until_equal(&mut books, &mut app(&servers.1), ROWS);
    let check = mirror(&["check"], &books_url, &app_url).with("MIRROR_LEDGER_ROWS", &ROWS.to_string()).run();
    assert_eq!(check.code, Some(0), "{check:?}");
    assert_eq!(books.faults(), [""; 0]);
    let ahead = |shim: &Shim| shim.metric("stripe_credits_mirror_accounts_total", &[("result", "ahead")]);
    let log: Vec<Value> = shims.iter().flat_map(Shim::log).collect();
    assert_eq!(shims.iter().map(ahead).sum::<u64>(), 0, "{log:#?}");
}

/// What rises with each change that the mirror gets.
fn versions(server: &Cluster) -> i64 {
    app(server).one("select coalesce(sum(version), 0)::bigint from billing_mirror.user_credits", &[])
}

/// The manual's SQL for one of the two databases.
fn manual(place: &str) -> String {
    let page = std::fs::read_to_string(xtask::workspace::root().join("docs/mirror.md")).expect("the manual");
    let beginning = format!("<!-- run: {place} -->\n```sql\n");
    let blocks = page.split(&beginning).skip(1);
    blocks.map(|block| block.split("```").next().unwrap_or_default()).collect()
}

#[test]
fn the_manuals_sql_for_the_apps_own_database_runs_between_two_servers() {
    let (books_server, app_server) = (database_away::cluster(), app_cluster());
    let mut books = database_away::books(&books_server);
    books.grant(ANN, 100, "start");
    books.grant(BOB, 100, "start");
    books.run(&manual("books"));
    init(&app_server.url("app"));
    let mut app = app(&app_server);
    let port = format!("host '127.0.0.1', port '{}'", books_server.port());
    app.run(
        &manual("app")
            .replace("host 'books.example', port '5432'", &port)
            .replace("password 'change me'", "password 'x'"),
    );
    assert_eq!((balance_of_foreign(&mut app, ANN), balance_of_foreign(&mut app, BOB)), (80, 100));
    assert_eq!(books.ledger(ANN), ["grant 100", "spend -20"]);

    let plan: Vec<String> = app.column(
        &format!("explain (verbose, costs off) select * from books.user_credits where user_id = '{ANN}'"),
        &[],
    );
    assert!(plan.iter().any(|line| line.contains("WHERE ((user_id = ")), "asked of the books: {plan:#?}");
    let sum: String = app.one(
        "select string_agg(transaction_type || ' ' || amount, ', ' order by id) from books.credit_transactions
         where user_id = $1",
        &[&ANN],
    );
    assert_eq!(sum, "grant 100, spend -20");
    let payments: i64 = app.one("select count(*) from books.user_payments", &[]);
    assert_eq!(payments, 0);
    // Signed-in users have no foreign table, and by the function theirs only.
    app.run(&format!(
        "create role authenticated nologin; grant usage on schema books to authenticated;
         set role authenticated; set app.user_id = '{ANN}'"
    ));
    assert!(!app.one::<bool>("select has_table_privilege('books.user_credits', 'select')", &[]));
    assert_eq!(app.refusal("select * from books.user_credits").code, "42704", "nor a user mapping");
    assert_eq!(app.column::<Uuid>("select user_id from public.my_credits()", &[]), [ANN]);
    assert_eq!(app.refusal(&format!("select * from public.spend('{BOB}', 1, 'job-2')")).code, "42501");
    assert!(books.one::<bool>("select bool_and(ok) from billing.security_selfcheck()", &[]));
}

fn balance_of_foreign(app: &mut Connection, user: Uuid) -> i64 {
    app.one("select credits_balance from books.user_credits where user_id = $1", &[&user])
}
