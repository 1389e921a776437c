//! Running pgbench, and reading its results.

use std::fs;

use xtask::cluster::{Cluster, pg_bin};
use xtask::figures::median;
use xtask::{Error, Result, process, signals};

use super::{ROUND_SECONDS, ROUNDS};

/// Threads of pgbench: the machine's cores.
const THREADS: usize = 2;

/// One statement to be run again and again.
pub(super) struct Script<'a> {
    /// Where it is run.
    pub(super) database: &'a str,
    /// What the table calls it.
    pub(super) name: &'a str,
    /// pgbench's own language: `\set` lines, then the statement.
    pub(super) text: String,
}

/// Transactions a second of each script at this many clients: the medians of rounds that take turns, so that what else the
/// machine does meets all of them alike.
pub(super) fn compare(cluster: &Cluster, scripts: &[Script], clients: usize) -> Result<Vec<f64>> {
    let mut rates = vec![Vec::new(); scripts.len()];
    for _ in 0..ROUNDS {
        for (script, rates) in scripts.iter().zip(&mut rates) {
            rates.push(run(cluster, script, clients)?);
        }
    }
    Ok(rates.into_iter().map(median).collect())
}

/// Transactions a second of one script in one round.
pub(super) fn run(cluster: &Cluster, script: &Script, clients: usize) -> Result<f64> {
    signals::check()?;
    let folder = tempfile::tempdir().map_err(Error::file("a temporary folder"))?;
    let file = folder.path().join("script.sql");
    fs::write(&file, &script.text).map_err(Error::file(&file))?;
    let mut command = process::server_command(&pg_bin().join("pgbench"), None, "KILL");
    command
        .args(["--no-vacuum", "--protocol=prepared", "--host=127.0.0.1", "--username=postgres"])
        .arg(format!("--port={}", cluster.port()))
        .arg(format!("--client={clients}"))
        .arg(format!("--jobs={}", THREADS.min(clients)))
        .arg(format!("--time={ROUND_SECONDS}"))
        .arg("--file")
        .arg(&file)
        .arg(script.database);
    let answer = process::output(&mut command)?;
    let failed = answer.lines().any(|line| line.contains("failed transactions: ") && !line.contains(": 0 "));
    let rate = answer
        .lines()
        .find_map(|line| line.strip_prefix("tps = ")?.split(' ').next()?.parse().ok())
        .filter(|_| !failed);
    rate.ok_or_else(|| Error::Unmet(format!("pgbench of {} answered:\n{answer}", script.name)))
}
