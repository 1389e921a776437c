//! What a run may not leave behind: locks, descriptors, memory; and in the end processes, ports and folders.

use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use xtask::{Error, Result};

use super::world::{Traces, World};

/// How many more descriptors an idle shim may have than when it was new, those of the pool, of Redis and of Stripe's
/// kept connections among them; and an idle server's postmaster.
const SHIM_DESCRIPTORS: usize = 24;
const POSTMASTER_DESCRIPTORS: usize = 4;
/// How much more memory may be resident, in MB.
const SHIM_MEGABYTES: u64 = 64;
const SESSION_MEGABYTES: u64 = 64;
/// How long idle connections may take to be closed, and processes to end.
const SETTLES: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(200);

/// What the shim and the server hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Held {
    pub(super) shim_descriptors: usize,
    pub(super) shim_megabytes: u64,
    pub(super) postmaster_descriptors: usize,
    /// The private memory of the largest session.
    pub(super) session_megabytes: u64,
}

/// What is held now.
pub(super) fn held(world: &World) -> Result<Held> {
    let postmaster = world.cluster.pid().ok_or_else(|| Error::Unmet("the server does not run".to_owned()))?;
    let sessions = world.cluster.processes();
    Ok(Held {
        shim_descriptors: descriptors(world.shim.pid())?,
        shim_megabytes: megabytes(world.shim.pid(), "RssAnon:"),
        postmaster_descriptors: descriptors(postmaster)?,
        session_megabytes: sessions.iter().map(|pid| megabytes(*pid, "RssAnon:")).max().unwrap_or_default(),
    })
}

/// What is held too much, and the locks that are held at all, once everything is idle.
pub(super) fn held_too_long(world: &World, before: Held) -> Result<(Held, Vec<String>)> {
    let since = Instant::now();
    loop {
        let now = held(world)?;
        let mut found = exceeded(before, now);
        found.extend(locks(world)?);
        if found.is_empty() || since.elapsed() > SETTLES {
            return Ok((now, found));
        }
        thread::sleep(POLL);
    }
}

fn exceeded(before: Held, now: Held) -> Vec<String> {
    let mut found = Vec::new();
    let mut check = |what: &str, before: u64, now: u64, more: u64| {
        if now > before + more {
            found.push(format!("{what}: {before} before, {now} after"));
        }
    };
    let count = |descriptors: usize| descriptors as u64;
    check(
        "the shim's descriptors",
        count(before.shim_descriptors),
        count(now.shim_descriptors),
        count(SHIM_DESCRIPTORS),
    );
    check(
        "the postmaster's descriptors",
        count(before.postmaster_descriptors),
        count(now.postmaster_descriptors),
        count(POSTMASTER_DESCRIPTORS),
    );
    check("the shim's memory in MB", before.shim_megabytes, now.shim_megabytes, SHIM_MEGABYTES);
    check("a session's memory in MB", before.session_megabytes, now.session_megabytes, SESSION_MEGABYTES);
    found
}

/// The locks of all sessions but the one that asks, and transactions that are left open.
fn locks(world: &World) -> Result<Vec<String>> {
    let rows = world.books()?.query(
        "select format('a lock is held: %s %s of %s', l.locktype, l.mode, a.application_name)
         from pg_locks l join pg_stat_activity a using (pid)
         where a.backend_type = 'client backend' and pid <> pg_backend_pid()
         union all
         select format('a transaction is open: %s of %s', state, application_name) from pg_stat_activity
         where state like 'idle in transaction%'
         union all
         select format('a prepared transaction: %s', gid) from pg_prepared_xacts",
        &[],
    )?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}

/// What is still there after everything was dropped.
pub(super) fn left(traces: &Traces) -> Vec<String> {
    let since = Instant::now();
    loop {
        let mut found: Vec<String> = Vec::new();
        let folders = traces.folders.iter().filter(|folder| folder.exists());
        found.extend(folders.map(|folder| format!("the folder {}", folder.display())));
        let processes = traces.processes.iter().filter(|pid| is_ours(**pid, traces));
        found.extend(processes.map(|pid| format!("the process {pid}")));
        let ports = traces.ports.iter().filter(|port| TcpListener::bind(("127.0.0.1", **port)).is_err());
        found.extend(ports.map(|port| format!("the port {port}")));
        if found.is_empty() || since.elapsed() > SETTLES {
            return found;
        }
        thread::sleep(POLL);
    }
}

/// Whether a process of ours has this id, and not another program's that was given it since.
fn is_ours(pid: u32, traces: &Traces) -> bool {
    let process = Path::new("/proc").join(pid.to_string());
    let is_server = fs::read_link(process.join("cwd"))
        .is_ok_and(|cwd| traces.folders.iter().any(|folder| cwd.starts_with(folder)));
    let is_shim = fs::read_link(process.join("exe"))
        .is_ok_and(|exe| exe.file_name().is_some_and(|name| name == "stripe-credits"));
    is_server || is_shim
}

fn descriptors(pid: u32) -> Result<usize> {
    let folder = format!("/proc/{pid}/fd");
    Ok(fs::read_dir(&folder).map_err(Error::file(&folder))?.count())
}

/// A line of a process's status that counts memory; 0 if it has ended.
fn megabytes(pid: u32, line: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let kilobytes: Option<u64> =
        status.lines().find_map(|found| found.strip_prefix(line)?.trim().strip_suffix(" kB")?.parse().ok());
    kilobytes.unwrap_or_default() / 1024
}
