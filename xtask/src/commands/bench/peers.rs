//! `cargo xtask bench --peers`: signed webhooks end to end, beside what people write themselves: bench/peer-node.
//!
//! All services have pools of the same size to databases of the same server, get the same webhooks over the same number of
//! connections, and take turns, so that what else the machine does meets all of them alike.

use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command};
use std::thread;
use std::time::{Duration, Instant};

use comfy_table::presets::ASCII_MARKDOWN;
use uuid::Uuid;
use xtask::cluster::{Cluster, free_port};
use xtask::figures::{median, table};
use xtask::shim::Shim;
use xtask::{Error, Result, process, signals, workspace};

use super::http_load::{self, Load};
use super::{ACCOUNTS, APPLIED, DATABASE, ROUNDS};

/// The database of the peers, and that of another build of the shim.
const PEERS_DATABASE: &str = "bench_peers";
const AGAINST_DATABASE: &str = "bench_against";
/// The connections of each service to Postgres.
const POOL_SIZE: &str = "16";
/// The connections over which webhooks come.
const CONNECTIONS: [usize; 2] = [16, 64];
/// What a pack of the sample catalog is worth: a service without a catalog reads it from the metadata.
const PACK_CREDITS: u32 = 500;
/// How long a peer may take to listen.
const START_LIMIT: Duration = Duration::from_secs(30);
/// How often it is looked at.
const POLL: Duration = Duration::from_millis(50);
/// Clock ticks a second in /proc, on every Linux.
const TICKS_PER_SECOND: f64 = 100.0;

/// A service that takes webhooks.
struct Service {
    name: &'static str,
    address: SocketAddr,
    pid: u32,
    /// In the body of each answer.
    accepted: &'static str,
    _running: Running,
}

/// Ends the service when it is dropped.
enum Running {
    Shim(#[expect(dead_code, reason = "held to be dropped")] Shim),
    Peer(Child),
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Self::Peer(child) = self {
            process::kill(child);
        }
    }
}

/// One round of one service.
struct Round {
    load: Load,
    /// Processor time for an answer, in milliseconds: the service's, and that of Postgres.
    service_ms: f64,
    postgres_ms: f64,
}

/// Measures all services, and returns a table in Markdown with a line on what was measured when.
pub(super) fn peers(cluster: &Cluster, shim: &Path, against: Option<&Path>, peer: &Path) -> Result<String> {
    let secret = format!("whsec_{}", Uuid::new_v4().simple());
    cluster.create_database(PEERS_DATABASE)?;
    let schema = workspace::root().join("bench/peer-node/schema.sql");
    let schema = fs::read_to_string(&schema).map_err(Error::file(&schema))?;
    cluster.connect(PEERS_DATABASE)?.batch_execute(&schema)?;
    let mut services = vec![start_shim("stripe_credits", shim, &cluster.url(DATABASE), &secret)?];
    if let Some(binary) = against {
        load_catalog(cluster, AGAINST_DATABASE)?;
        services.push(start_shim("another build", binary, &cluster.url(AGAINST_DATABASE), &secret)?);
    }
    let database = cluster.url(PEERS_DATABASE);
    services.push(start_peer("Express, a PL/pgSQL function", "fn", peer, &database, &secret)?);
    services.push(start_peer("Express, a transaction of the app", "tx", peer, &database, &secret)?);

    let load_before = load_average()?;
    let mut table = table(&[
        "signed webhooks",
        "connections",
        "webhooks/s",
        "ours ÷ this",
        "p50 ms",
        "p99 ms",
        "our p99 ÷ this",
        "service CPU ms",
        "Postgres CPU ms",
    ]);
    table.load_style(ASCII_MARKDOWN);
    for connections in CONNECTIONS {
        let mut rounds: Vec<Vec<Round>> = services.iter().map(|_| Vec::new()).collect();
        for _ in 0..ROUNDS {
            for (service, rounds) in services.iter().zip(&mut rounds) {
                rounds.push(round(cluster, service, connections, &secret)?);
            }
        }
        let of = |rounds: &[Round], figure: fn(&Round) -> f64| median(rounds.iter().map(figure).collect());
        let (rate, p99) = (|round: &Round| round.load.rate, |round: &Round| milliseconds(round.load.p99));
        let ours = (of(&rounds[0], rate), of(&rounds[0], p99));
        for (service, rounds) in services.iter().zip(&rounds) {
            table.add_row([
                service.name.to_owned(),
                connections.to_string(),
                format!("{:.0}", of(rounds, rate)),
                format!("{:.2}", ours.0 / of(rounds, rate)),
                format!("{:.1}", of(rounds, |round| milliseconds(round.load.p50))),
                format!("{:.1}", of(rounds, p99)),
                format!("{:.2}", ours.1 / of(rounds, p99)),
                format!("{:.2}", of(rounds, |round| round.service_ms)),
                format!("{:.2}", of(rounds, |round| round.postgres_ms)),
            ]);
        }
    }
    Ok(format!(
        "Recorded on {} in commit `{}`; load average {load_before} before, {} after.\n\n{table}",
        answer_of(Command::new("date").arg("+%F"))?,
        answer_of(
            Command::new("git").args(["describe", "--always", "--dirty"]).current_dir(workspace::root())
        )?,
        load_average()?,
    ))
}

fn load_catalog(cluster: &Cluster, database: &str) -> Result<()> {
    cluster.create_database(database)?;
    let catalog = workspace::sample_catalog();
    let document = fs::read_to_string(&catalog).map_err(Error::file(&catalog))?;
    let load = "select from billing.load_catalog(($1::text)::jsonb)";
    cluster.connect(database)?.execute(load, &[&document])?;
    Ok(())
}

fn start_shim(name: &'static str, binary: &Path, database: &str, secret: &str) -> Result<Service> {
    let shim = Shim::start(
        binary,
        &[
            ("DATABASE_URL", database),
            ("STRIPE_WEBHOOK_SECRET", secret),
            ("DATABASE_POOL_SIZE", POOL_SIZE),
            ("LOG_LEVEL", "info"),
        ],
    )?;
    let (address, pid) = (shim.address(), shim.pid());
    Ok(Service { name, address, pid, accepted: APPLIED, _running: Running::Shim(shim) })
}

fn start_peer(
    name: &'static str,
    mode: &str,
    folder: &Path,
    database: &str,
    secret: &str,
) -> Result<Service> {
    let node = process::find("node").ok_or_else(|| Error::Unmet("there is no node".to_owned()))?;
    let address = SocketAddr::from(([127, 0, 0, 1], free_port()?));
    let mut command = process::server_command(&node, None, "KILL");
    command.arg(folder.join("server.mjs")).envs([
        ("DATABASE_URL", database),
        ("MODE", mode),
        ("NODE_ENV", "production"),
        ("POOL", POOL_SIZE),
        ("PORT", &address.port().to_string()),
        ("STRIPE_WEBHOOK_SECRET", secret),
    ]);
    let child = process::serve(command)?;
    let service =
        Service { name, address, pid: child.id(), accepted: "\"received\"", _running: Running::Peer(child) };
    let since = Instant::now();
    while TcpStream::connect(address).is_err() {
        signals::check()?;
        if since.elapsed() > START_LIMIT {
            return Err(Error::Unmet(format!("{name} did not listen within {} s", START_LIMIT.as_secs())));
        }
        thread::sleep(POLL);
    }
    Ok(service)
}

fn round(cluster: &Cluster, service: &Service, connections: usize, secret: &str) -> Result<Round> {
    signals::check()?;
    let request = || {
        let user = Uuid::from_u128(Uuid::new_v4().as_u128() % ACCOUNTS);
        http_load::webhook_for(user, secret, PACK_CREDITS)
    };
    let postgres = || cluster.processes().into_iter().map(processor_seconds).sum::<f64>();
    let before = (processor_seconds(service.pid), postgres());
    let load = http_load::run(service.address, connections, &request, service.accepted)?;
    let answers = f64::from(load.answers.max(1));
    Ok(Round {
        service_ms: (processor_seconds(service.pid) - before.0) * 1e3 / answers,
        postgres_ms: (postgres() - before.1) * 1e3 / answers,
        load,
    })
}

/// The processor time that a process has taken so far, in the kernel and outside; 0 if it has ended.
fn processor_seconds(pid: u32) -> f64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // The name, in parentheses, may hold blanks. The times are the 14th and 15th fields of all, the first after it the third.
    let fields = stat.rsplit_once(") ").map_or("", |(_, fields)| fields);
    let ticks = fields.split(' ').skip(11).take(2).filter_map(|ticks| ticks.parse::<f64>().ok());
    ticks.sum::<f64>() / TICKS_PER_SECOND
}

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

fn load_average() -> Result<String> {
    let path = "/proc/loadavg";
    let averages = fs::read_to_string(path).map_err(Error::file(path))?;
    Ok(averages.split(' ').next().unwrap_or_default().to_owned())
}

fn answer_of(command: &mut Command) -> Result<String> {
    Ok(process::output(command)?.trim().to_owned())
}
