//! What runs beside the app's calls: how long deliveries and spends wait for upkeep, and whether a session's memory grows with
//! the calls that it makes.

use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use comfy_table::Table;
use postgres::Client;
use serde_json::Value;
use uuid::Uuid;
use xtask::cluster::Cluster;
use xtask::figures::{median, table};
use xtask::stripe_event::Event;
use xtask::{Error, Result, signals, workspace};

use super::status_megabytes;

pub(super) const DATABASE: &str = "bench_upkeep";

/// Accounts, each with a grant that lasts and one that expires.
const ACCOUNTS: u32 = 10_000;
/// Events that wait for a price, and accounts' worth of what is due, for each kind of upkeep.
const WAITING: u32 = 2_000;
/// Calls of what has no end of its own.
const CALLS: u32 = 40;
/// How long deliveries and spends run with nothing beside them.
const ALONE: Duration = Duration::from_secs(5);
/// Calls after which a session's memory is read.
const MEMORY_AFTER: [u32; 3] = [10_000, 100_000, 1_000_000];

/// A call of upkeep; `false` once there is nothing left to do.
type Call<'a> = &'a mut dyn FnMut(&mut Client) -> Result<bool>;

/// How long the longest delivery and the longest spend took while each kind of upkeep ran, and without any.
pub(super) fn upkeep(cluster: &Cluster) -> Result<Table> {
    let mut client = cluster.connect(DATABASE)?;
    prepare(&mut client)?;
    let mut table = table(&[
        "while this runs, ms",
        "calls",
        "longest",
        "delivery: median",
        "longest",
        "spend: median",
        "longest",
    ]);
    let mut row = |name: &str, call: Call| -> Result<()> {
        let Watched { calls, delivery, spend } = watch(cluster, call)?;
        let figures = [
            longest(&calls),
            median(delivery.clone()),
            longest(&delivery),
            median(spend.clone()),
            longest(&spend),
        ];
        let mut cells = vec![name.to_owned(), calls.len().to_string()];
        cells.extend(figures.map(|milliseconds| format!("{milliseconds:.1}")));
        table.add_row(cells);
        Ok(())
    };
    row("nothing", &mut |_| {
        thread::sleep(ALONE);
        Ok(false)
    })?;
    let mut left = CALLS;
    row("load_catalog, one price changed", &mut |client| {
        left -= 1;
        load_catalog(client, i64::from(left) + 1, None)?;
        Ok(left > 0)
    })?;
    let mut left = CALLS;
    row("retry_parked(100), which wait for a price", &mut |client| {
        left -= 1;
        client.execute("select from billing.retry_parked(100)", &[])?;
        Ok(left > 0)
    })?;
    load_catalog(&mut client, 500, Some(WANTED_PRICE))?;
    row("retry_due(20), the price is known", &mut |client| {
        done(client, "select billing.retry_due(20)::bigint")
    })?;
    for limit in [100, 500] {
        expire_soon(&mut client, ACCOUNTS)?;
        let call = format!("select billing.run_due({limit})::bigint");
        row(&format!("run_due({limit}), an expiry each"), &mut |client| done(client, &call))?;
    }
    Ok(table)
}

/// The price that events wait for.
const WANTED_PRICE: &str = "price_wanted";

fn prepare(client: &mut Client) -> Result<()> {
    client.batch_execute(&format!(
        "select count(billing.grant_credits(lpad(n::text, 32, '0')::uuid, 1000000000, 'bench'))
         from generate_series(1, {ACCOUNTS}) n"
    ))?;
    let apply = client.prepare(APPLY)?;
    for n in 1..=WAITING {
        client.execute(&apply, &[&Event::checkout_completed(account(n), WANTED_PRICE).body])?;
    }
    client.batch_execute("vacuum analyze")?;
    Ok(())
}

/// Lets credits of so many accounts expire at the same time, which is past when this returns.
pub(super) fn expire_soon(client: &mut Client, accounts: u32) -> Result<()> {
    client.batch_execute(&format!(
        "select count(billing.grant_credits(lpad(n::text, 32, '0')::uuid, 10, gen_random_uuid()::text, null,
             clock_timestamp() + interval '1 second'))
         from generate_series(1, {accounts}) n;
         select pg_sleep_until(max(next_due_at)) from billing.accounts"
    ))?;
    Ok(())
}

/// Loads the sample catalog with a pack of this size, and with one of another price if that is given.
fn load_catalog(client: &mut Client, credits: i64, price: Option<&str>) -> Result<()> {
    let path = workspace::sample_catalog();
    let text = fs::read_to_string(&path).map_err(Error::file(&path))?;
    let mut catalog: Value =
        serde_json::from_str(&text).map_err(|error| Error::Unmet(format!("the sample catalog: {error}")))?;
    let mut pack = catalog["packs"][0].clone();
    if let (Some(price), Some(packs)) = (price, catalog["packs"].as_array_mut()) {
        pack["key"] = "pack_wanted".into();
        pack["prices"] = vec![price].into();
        packs.push(pack);
    }
    catalog["packs"][0]["credits"] = credits.into();
    client.execute("select from billing.load_catalog(($1::text)::jsonb)", &[&catalog.to_string()])?;
    Ok(())
}

fn done(client: &mut Client, call: &str) -> Result<bool> {
    let count: i64 = client.query_one(call, &[])?.get(0);
    Ok(count > 0)
}

/// How long each call took, in milliseconds.
struct Watched {
    calls: Vec<f64>,
    delivery: Vec<f64>,
    spend: Vec<f64>,
}

/// Makes calls of upkeep until nothing is left to do, while one client applies events and another one spends.
fn watch(cluster: &Cluster, call: Call) -> Result<Watched> {
    let (mut client, is_over) = (cluster.connect(DATABASE)?, AtomicBool::new(false));
    thread::scope(|scope| {
        let delivery = scope.spawn(|| {
            repeat(cluster, &is_over, APPLY, |user| Event::checkout_completed(user, "price_pack").body)
        });
        let spend = scope.spawn(|| repeat(cluster, &is_over, SPEND, |user| user.to_string()));
        let calls = timed(|| call(&mut client));
        is_over.store(true, Ordering::Relaxed);
        let ended =
            |figures: thread::ScopedJoinHandle<Result<Vec<f64>>>| figures.join().expect("it does not panic");
        let (delivery, spend) = (ended(delivery)?, ended(spend)?);
        Ok(Watched { calls: calls?, delivery, spend })
    })
}

const APPLY: &str = "select from billing.apply_stripe_event_text($1, null)";
const SPEND: &str = "select from billing.spend_credits(($1::text)::uuid, 1, gen_random_uuid()::text)";

/// Calls a statement for one account after the other.
fn repeat(
    cluster: &Cluster,
    is_over: &AtomicBool,
    statement: &str,
    argument: fn(Uuid) -> String,
) -> Result<Vec<f64>> {
    let mut client = cluster.connect(DATABASE)?;
    let statement = client.prepare(statement)?;
    let mut users = (1..=ACCOUNTS).cycle().map(account);
    timed(|| {
        let user = users.next().expect("it has no end");
        client.execute(&statement, &[&argument(user)])?;
        Ok(!is_over.load(Ordering::Relaxed))
    })
}

/// Repeats something until it says `false`. Returns how long each time took, in milliseconds.
fn timed(mut call: impl FnMut() -> Result<bool>) -> Result<Vec<f64>> {
    let mut figures = Vec::new();
    loop {
        signals::check()?;
        let started = Instant::now();
        let goes_on = call()?;
        figures.push(started.elapsed().as_secs_f64() * 1_000.0);
        if !goes_on {
            return Ok(figures);
        }
    }
}

/// A user by the number of the account.
fn account(n: u32) -> Uuid {
    Uuid::parse_str(&format!("{n:0>32}")).expect("digits")
}

fn longest(figures: &[f64]) -> f64 {
    figures.iter().copied().fold(0.0, f64::max)
}

/// The memory of one session after more and more spends.
pub(super) fn session_memory(cluster: &Cluster) -> Result<Table> {
    let mut client = cluster.connect(DATABASE)?;
    // What is measured is memory, not the disk.
    client.batch_execute("set synchronous_commit = off")?;
    let backend: i32 = client.query_one("select pg_backend_pid()", &[])?.get(0);
    let spend = client.prepare(SPEND)?;
    let mut table = table(&["a session after so many spends", "MB of its own"]);
    let mut made = 0;
    for calls in MEMORY_AFTER {
        for n in made..calls {
            signals::check()?;
            client.execute(&spend, &[&account(n % ACCOUNTS + 1).to_string()])?;
        }
        made = calls;
        let own = status_megabytes(backend.unsigned_abs(), "RssAnon:")?;
        table.add_row([calls.to_string(), format!("{own:.1}")]);
    }
    Ok(table)
}
