//! `cargo xtask bench`: how fast, as ratios to a baseline measured in the same run, because machines are noisy.

mod ages;
mod events;
mod http_load;
mod peers;
mod pgbench;
mod processor;
mod upkeep;

use std::fs;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use comfy_table::Table;
use uuid::Uuid;
use xtask::build::Flavour;
use xtask::cluster::{Cluster, Durability, Options};
use xtask::figures::{add, median, table};
use xtask::shim::Shim;
use xtask::stages::Stages;
use xtask::workspace;
use xtask::{Error, Result, install, process};

use self::events::{APPLY, APPLY_TEXT, invoice, purchase, subscription};
use self::pgbench::Script;
use super::test::{TEMPLATE, with_cluster};

const DATABASE: &str = "bench";
/// The database with a full ledger.
const FILLED_DATABASE: &str = "bench_filled";
/// The database with credits that expire.
const DUE_DATABASE: &str = "bench_due";
/// Length of one measurement in seconds, and how often each is taken.
const ROUND_SECONDS: u64 = 4;
const ROUNDS: usize = 3;
/// Users that purchases and spends are spread over.
const ACCOUNTS: u128 = 10_000;
/// Ledger sizes between which the apply rate is compared, in rows.
const SMALL_LEDGER: i64 = 10_000;
const LARGE_LEDGER: i64 = 10_000_000;
/// Live grants of the account that has many.
const MANY_GRANTS: i64 = 1_000;
/// Accounts with credits that expire at the same time.
const DUE_ACCOUNTS: u32 = 100_000;
/// Events that wait for want of a user.
const PARKED_EVENTS: i64 = 50_000;
/// Connections that only stay open, for the memory measurement.
const OPEN_CONNECTIONS: usize = 1_000;

/// What the shim answers to a webhook, and to a spend, that had its effect.
const APPLIED: &str = "\"applied\"";

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Measures only what an invoice costs by the age of its subscription
    #[arg(long)]
    ages: bool,
    /// Measures only who waits for upkeep, and a session's memory
    #[arg(long)]
    upkeep: bool,
    /// Measures only signed webhooks, beside an Express service with stripe-node that does the least
    #[arg(long)]
    peers: bool,
    /// With --peers: measures another build of the shim as well
    #[arg(long, requires = "peers")]
    against: Option<PathBuf>,
}

/// Measures and prints everything, or one part.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let mut stages = Stages::default();
    stages.run("tools: apt packages", install::tools)?;
    let binary = stages.run("build, and install the extension", || install::build(Flavour::Release))?.shim;
    let cluster = stages.run("cluster: make and start", start)?;
    if arguments.ages {
        println!("{}", stages.run("ages of subscriptions", || ages::ages(&cluster))?);
        stages.summarize();
        return Ok(());
    }
    if arguments.upkeep {
        println!("{}", stages.run("waits for upkeep", || upkeep::upkeep(&cluster))?);
        println!("{}", stages.run("a session's memory", || upkeep::session_memory(&cluster))?);
        stages.summarize();
        return Ok(());
    }
    if arguments.peers {
        let peer = stages.run("peer: npm packages", install::peer)?;
        let against = arguments.against.as_deref();
        println!(
            "{}",
            stages.run("webhooks end to end", || peers::peers(&cluster, &binary, against, &peer))?
        );
        stages.summarize();
        return Ok(());
    }
    println!("{}", stages.run("purchases", || purchases(&cluster))?);
    println!("{}", stages.run("subscriptions", || subscriptions(&cluster))?);
    println!("{}", stages.run("ages of subscriptions", || ages::ages(&cluster))?);
    println!("{}", stages.run("spends", || spends(&cluster))?);
    println!("{}", stages.run("processor time", || processor::processor(&cluster))?);
    println!("{}", stages.run("expiries by run_due", || due(&cluster))?);
    println!("{}", stages.run("waits for upkeep", || upkeep::upkeep(&cluster))?);
    println!("{}", stages.run("a session's memory", || upkeep::session_memory(&cluster))?);
    let secret = format!("whsec_{}", Uuid::new_v4().simple());
    let token = Uuid::new_v4().to_string();
    let url = cluster.url(DATABASE);
    let shim = Shim::start(
        &binary,
        &[
            ("DATABASE_URL", &url),
            ("STRIPE_WEBHOOK_SECRET", &secret),
            ("SERVICE_TOKEN", &token),
            ("DATABASE_POOL_SIZE", "16"),
            ("LOG_LEVEL", "info"),
        ],
    )?;
    let idle = resident_megabytes(&shim)?;
    println!("{}", stages.run("webhooks", || webhooks(&cluster, &shim, &secret))?);
    println!("{}", stages.run("the service routes", || service_routes(&cluster, &shim, &token))?);
    println!("{}", stages.run("ledger sizes", || ledger_sizes(&cluster))?);
    println!("{}", stages.run("parked events", || parked(&cluster))?);
    println!("{}", stages.run("memory", || memory(&shim, idle))?);
    drop(shim);
    stages.run("the app's routes and backfill", || app_routes(&cluster, &binary))?;
    stages.summarize();
    Ok(())
}

fn start() -> Result<Cluster> {
    let settings = [("shared_buffers", "1GB"), ("max_wal_size", "8GB"), ("checkpoint_timeout", "30min")];
    let cluster = Cluster::start(Options {
        durability: Durability::Durable,
        settings: settings.map(|(name, value)| (name.to_owned(), value.to_owned())).into(),
        ..Options::default()
    })?;
    let catalog = workspace::sample_catalog();
    let document = fs::read_to_string(&catalog).map_err(Error::file(&catalog))?;
    cluster.create_database(ages::DATABASE)?;
    for database in [DATABASE, FILLED_DATABASE, DUE_DATABASE, upkeep::DATABASE] {
        cluster.create_database(database)?;
        let mut client = cluster.connect(database)?;
        client.execute("select from billing.load_catalog(($1::text)::jsonb)", &[&document])?;
    }
    cluster.connect(DATABASE)?.batch_execute(include_str!("bench/baseline.sql"))?;
    Ok(cluster)
}

fn purchases(cluster: &Cluster) -> Result<Table> {
    let mut table = table(&["purchase, transactions/s", "clients", "PL/pgSQL", "extension", "ratio"]);
    let scripts = [
        purchase("baseline", "baseline.purchase"),
        purchase("extension", APPLY),
        purchase("extension, text", APPLY_TEXT),
    ];
    for clients in [1, 8, 32] {
        let rates = pgbench::compare(cluster, &scripts, clients)?;
        let [baseline, ours, text] = rates[..] else { continue };
        add(&mut table, "one event each", clients, &[baseline, ours]);
        add(&mut table, "the same by the shim's call", clients, &[baseline, text]);
    }
    Ok(table)
}

fn subscriptions(cluster: &Cluster) -> Result<Table> {
    let mut table = table(&["event, transactions/s", "clients", "a pack's", "its own", "ratio"]);
    for clients in [1, 8] {
        let scripts = [purchase("pack", APPLY), subscription("subscription"), invoice("invoice")];
        let rates = pgbench::compare(cluster, &scripts, clients)?;
        let [pack, subscription, invoice] = rates[..] else { continue };
        add(&mut table, "a new subscription", clients, &[pack, subscription]);
        add(&mut table, "its paid invoice", clients, &[pack, invoice]);
    }
    Ok(table)
}

/// How long `run_due` takes for many accounts at once, called as cron would, and how much memory its backend takes.
fn due(cluster: &Cluster) -> Result<Table> {
    let mut client = cluster.connect(DUE_DATABASE)?;
    upkeep::expire_soon(&mut client, DUE_ACCOUNTS)?;
    let mut client = cluster.connect(DUE_DATABASE)?;
    let backend: i32 = client.query_one("select pg_backend_pid()", &[])?.get(0);
    let started = Instant::now();
    let mut posted: i64 = 0;
    loop {
        let accounts: i64 = client.query_one("select billing.run_due()", &[])?.get(0);
        if accounts == 0 {
            break;
        }
        posted += accounts;
    }
    let seconds = started.elapsed().as_secs_f64();
    let mut table = table(&["run_due", "accounts", "seconds", "accounts/s", "backend's peak MB"]);
    table.add_row([
        "an expiry each".to_owned(),
        posted.to_string(),
        format!("{seconds:.1}"),
        format!("{:.0}", f64::from(u32::try_from(posted).unwrap_or(u32::MAX)) / seconds),
        format!("{:.0}", status_megabytes(backend.unsigned_abs(), "VmHWM:")?),
    ]);
    Ok(table)
}

fn spends(cluster: &Cluster) -> Result<Table> {
    let mut client = cluster.connect(DATABASE)?;
    // Every account gets one grant that outlasts the run, account 0 many of them.
    client.batch_execute(&format!(
        "select count(billing.grant_credits(u::text::uuid, 1000000000, 'bench'))
         from (select lpad(n::text, 32, '0') as u from generate_series(1, {ACCOUNTS}) n) users;
         select count(billing.grant_credits('{many}', 1000000000, 'bench-' || n)) from generate_series(1, {MANY_GRANTS}) n;
         insert into baseline.balances (user_id, balance)
         select lpad(n::text, 32, '0')::uuid, 1000000000000 from generate_series(1, {ACCOUNTS}) n;
         analyze",
        many = Uuid::max(),
    ))?;
    let any = format!("\\set u random(1, {ACCOUNTS})\n");
    let spread = "lpad(:u::text, 32, '0')::uuid";
    let hot = format!("'{}'::uuid", Uuid::from_u128(0x1));
    let many = format!("'{}'::uuid", Uuid::max());
    let mut table = table(&["spend, transactions/s", "clients", "PL/pgSQL", "extension", "ratio"]);
    for clients in [1, 8, 32] {
        let scripts = [spend("baseline", &any, spread), spend("billing", &any, spread)];
        add(&mut table, "10,000 accounts", clients, &pgbench::compare(cluster, &scripts, clients)?);
    }
    for clients in [1, 8, 32] {
        let scripts = [spend("baseline", "", &hot), spend("billing", "", &hot)];
        add(&mut table, "one hot account", clients, &pgbench::compare(cluster, &scripts, clients)?);
    }
    let scripts = [spend("billing", "", &hot), spend("billing", "", &many)];
    let rates = pgbench::compare(cluster, &scripts, 1)?;
    add(&mut table, "1,000 live grants, against the extension with one", 1, &rates);
    Ok(table)
}

fn webhooks(cluster: &Cluster, shim: &Shim, secret: &str) -> Result<Table> {
    let direct = purchase("extension", APPLY_TEXT);
    let signed = || http_load::webhook(Uuid::from_u128(Uuid::new_v4().as_u128() % ACCOUNTS), secret);
    through_the_shim(cluster, shim, "signed webhooks", "POST /webhooks/stripe", &direct, &signed)
}

/// Spends by HTTP beside the same spends by SQL, of the accounts that [`spends`] filled.
fn service_routes(cluster: &Cluster, shim: &Shim, token: &str) -> Result<Table> {
    let direct =
        spend("billing", &format!("\\set u random(1, {ACCOUNTS})\n"), "lpad(:u::text, 32, '0')::uuid");
    let call = || {
        let account = 1 + Uuid::new_v4().as_u128() % ACCOUNTS;
        // The digits of an account's number are those of its user, as in SQL.
        http_load::service_spend(Uuid::parse_str(&format!("{account:032}")).unwrap_or_default(), token)
    };
    through_the_shim(cluster, shim, "service routes", "POST /service/spend", &direct, &call)
}

/// The rate and the latency of requests, beside the rate of what they call in the database.
fn through_the_shim(
    cluster: &Cluster,
    shim: &Shim,
    what: &str,
    route: &str,
    direct: &Script,
    request: &(dyn Fn() -> String + Sync),
) -> Result<Table> {
    let mut table = table(&[what, "connections", "pgbench/s", "shim/s", "ratio", "p50 ms", "p99 ms"]);
    for connections in [1, 16, 64] {
        let (mut rates, mut loads) = (Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            rates.push(pgbench::run(cluster, direct, connections)?);
            loads.push(http_load::run(shim.address(), connections, request, APPLIED)?);
        }
        loads.sort_by(|a, b| a.rate.total_cmp(&b.rate));
        let (direct, load) = (median(rates), loads.swap_remove(ROUNDS / 2));
        let milliseconds = |latency: Duration| format!("{:.2}", latency.as_secs_f64() * 1e3);
        table.add_row([
            route.to_owned(),
            connections.to_string(),
            format!("{direct:.0}"),
            format!("{:.0}", load.rate),
            format!("{:.2}", load.rate / direct),
            milliseconds(load.p50),
            milliseconds(load.p99),
        ]);
    }
    Ok(table)
}

fn ledger_sizes(cluster: &Cluster) -> Result<Table> {
    let mut table = table(&["apply rate by ledger size", "rows", "transactions/s"]);
    let scripts = [Script { database: FILLED_DATABASE, ..purchase("extension", APPLY) }];
    let mut client = cluster.connect(FILLED_DATABASE)?;
    for rows in [SMALL_LEDGER, LARGE_LEDGER] {
        let present: i64 = client.query_one("select count(*) from billing.credit_transactions", &[])?.get(0);
        // Rows of users of their own, in the shape that purchases leave behind.
        client.execute(
            "insert into billing.credit_transactions
                 (user_id, id, operation_id, transaction_type, amount, grant_id, pool, balance_after,
                  stripe_checkout_session_id, created_at, recorded_at, hash)
             select md5((n % 50000)::text)::uuid, n, n, 'purchase', 500, 1, 'purchased', 500, 'cs_filler_' || n, now(),
                 now(), sha256(int8send(n))
             from generate_series($1::bigint + 1, $2::bigint) n",
            &[&present, &rows],
        )?;
        // VACUUM runs in no transaction, and statements sent together are one.
        client.batch_execute("vacuum analyze billing.credit_transactions")?;
        client.batch_execute("checkpoint")?;
        let size: i64 = client.query_one("select count(*) from billing.credit_transactions", &[])?.get(0);
        let rate = pgbench::compare(cluster, &scripts, 1)?[0];
        table.add_row(["one client".to_owned(), size.to_string(), format!("{rate:.0}")]);
    }
    Ok(table)
}

/// The rate at which a purchase is applied while nothing and while much waits for want of a user: of as many customers,
/// and of one.
fn parked(cluster: &Cluster) -> Result<Table> {
    let mut table = table(&["apply rate by what is parked", "parked", "transactions/s"]);
    let scripts = [Script { database: FILLED_DATABASE, ..purchase("extension", APPLY) }];
    let mut client = cluster.connect(FILLED_DATABASE)?;
    for count in [0, PARKED_EVENTS] {
        for customer in ["'cus_' || n", "'cus_one'"] {
            client.execute(
                &format!(
                    "insert into billing.stripe_events (event_id, type, created, object_id, customer_id, payload,
                         outcome, reason, first_received_at, last_received_at, judged_at)
                     select {customer} || '_evt_' || n, 'invoice.paid', now(), 'in_' || n, {customer}, '{{}}',
                         'parked', 'unknown_user', now(), now(), now()
                     from generate_series(1, $1::bigint / 2) n"
                ),
                &[&count],
            )?;
        }
        // Not analyzed: as right after they came, when the planner still takes the indexes of what waits for empty.
        let rate = pgbench::compare(cluster, &scripts, 1)?[0];
        table.add_row(["one client".to_owned(), count.to_string(), format!("{rate:.0}")]);
    }
    client.batch_execute("delete from billing.stripe_events where outcome = 'parked'")?;
    Ok(table)
}

fn memory(shim: &Shim, idle: f64) -> Result<Table> {
    let connect =
        |_| TcpStream::connect(shim.address()).map_err(|e| Error::Unmet(format!("connection: {e}")));
    let busy = resident_megabytes(shim)?;
    let open = (0..OPEN_CONNECTIONS).map(connect).collect::<Result<Vec<_>>>()?;
    let opened = resident_megabytes(shim)?;
    drop(open);
    let mut table = table(&["the shim's memory", "MB resident"]);
    for (when, megabytes) in
        [("just started", idle), ("after the webhooks", busy), ("with 1,000 more connections open", opened)]
    {
        table.add_row([when.to_owned(), format!("{megabytes:.1}")]);
    }
    Ok(table)
}

/// The measurements that need a Stripe: the tests crate has one of its own.
fn app_routes(cluster: &Cluster, shim: &Path) -> Result<()> {
    cluster.create_database(TEMPLATE)?;
    let mut command = workspace::cargo();
    command.args([
        "bench",
        "--locked",
        "--quiet",
        "--package",
        "stripe_credits_tests",
        "--bench",
        "app_routes",
    ]);
    process::run_group(with_cluster(&mut command, cluster, shim))
}

fn resident_megabytes(shim: &Shim) -> Result<f64> {
    status_megabytes(shim.pid(), "VmRSS:")
}

/// A line of a process's status that counts memory.
fn status_megabytes(pid: u32, line: &str) -> Result<f64> {
    let path = format!("/proc/{pid}/status");
    let status = fs::read_to_string(&path).map_err(Error::file(&path))?;
    let kilobytes: Option<u32> =
        status.lines().find_map(|found| found.strip_prefix(line)?.trim().strip_suffix(" kB")?.parse().ok());
    kilobytes
        .map(|kilobytes| f64::from(kilobytes) / 1024.0)
        .ok_or_else(|| Error::Unmet(format!("{path} has no {line}")))
}

fn spend<'a>(schema: &'a str, set: &str, user: &str) -> Script<'a> {
    let function = if schema == "billing" { "billing.spend_credits" } else { "baseline.spend" };
    let text = format!(
        "{set}\\set n random(1, 9000000000000000)\nselect {function}({user}, 1, 'request-' || :n::bigint);\n"
    );
    Script { database: DATABASE, name: schema, text }
}
