//! A private Postgres cluster in a temporary folder, on a port of its own, that leaves nothing behind.

use std::fs::{self, Permissions};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::{Duration, Instant};
use std::{env, io, thread};

use postgres::NoTls;
use rustix::process::{Pid, Signal};
use tempfile::TempDir;

use crate::error::command_line;
use crate::signals::{self, POLL};
use crate::{Error, Result, process};

/// The major versions that the extension is built for, the newest first.
pub const MAJORS: [u32; 4] = [18, 17, 16, 15];
/// Names another folder of server programs (initdb, postgres, psql), for other versions of Postgres.
pub const PG_BIN_VARIABLE: &str = "STRIPE_CREDITS_PG_BIN";
/// The superuser of a cluster, and the system's user that runs it when we are root.
const SUPERUSER: &str = "postgres";
/// How long a server may take to start (a crash recovery included) or to stop.
const START_LIMIT: Duration = Duration::from_mins(1);
const STOP_LIMIT: Duration = Duration::from_secs(30);
/// How many more free ports are tried if another program takes the first.
const PORT_ATTEMPTS: u32 = 20;
/// Below Linux's ephemeral ports (from 32768): otherwise an outgoing connection, even a client's to the very port of
/// a stopped server, may hold the port when the server wants it back.
const FIRST_PORT: u16 = 10_240;
const PORT_COUNT: u16 = 22_000;

/// Which failures a committed transaction survives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// A power cut, as in production: what benchmarks must measure.
    Durable,
    /// A crash of Postgres, but not of the machine; several times as fast.
    Fast,
}

/// How a cluster differs from Postgres's own defaults.
#[derive(Clone, Debug)]
pub struct Options {
    /// The folder of initdb and postgres.
    pub pg_bin: PathBuf,
    /// What commits survive.
    pub durability: Durability,
    /// Connections at a time.
    pub max_connections: u32,
    /// Further settings, as in postgresql.conf.
    pub settings: Vec<(String, String)>,
    /// The server's environment, beside a PATH.
    pub environment: Vec<(String, String)>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            pg_bin: pg_bin(),
            durability: Durability::Fast,
            max_connections: 200,
            settings: Vec::new(),
            environment: Vec::new(),
        }
    }
}

/// The folder of the server programs that everything here uses: the one that is named, or else Debian's newest with
/// headers.
#[must_use]
pub fn pg_bin() -> PathBuf {
    let named = env::var_os(PG_BIN_VARIABLE).map(PathBuf::from);
    named.or_else(debians_with_headers).unwrap_or_else(|| debian_pg_bin(MAJORS[0]))
}

/// The pg_config of this Postgres, which builds of the extension need.
#[must_use]
pub fn pg_config() -> PathBuf {
    pg_bin().join("pg_config")
}

/// Whether the environment names the server programs.
pub(crate) fn is_named() -> bool {
    env::var_os(PG_BIN_VARIABLE).is_some()
}

/// The newest of Debian's servers that an extension can be built for here.
pub(crate) fn debians_with_headers() -> Option<PathBuf> {
    let has_headers =
        |major: &u32| Path::new(&format!("/usr/include/postgresql/{major}/server/postgres.h")).exists();
    MAJORS.into_iter().filter(has_headers).find(|&major| is_installed(major)).map(debian_pg_bin)
}

/// Whether Debian's server of this major version is installed.
pub(crate) fn is_installed(major: u32) -> bool {
    debian_pg_bin(major).join("postgres").exists()
}

/// Where Debian, Ubuntu and PGDG keep the programs of a major version.
fn debian_pg_bin(major: u32) -> PathBuf {
    format!("/usr/lib/postgresql/{major}/bin").into()
}

/// How a server is asked to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StopMode {
    /// Sessions are ended, transactions rolled back, everything is written out.
    Fast,
    /// Nothing is written out; the next start recovers from the log.
    Immediate,
}

/// A cluster, which runs from `start` until it is dropped, unless `stop` or `kill_server` ends it before.
#[derive(Debug)]
pub struct Cluster {
    options: Options,
    folder: TempDir,
    port: u16,
    server: Option<Child>,
}

impl Cluster {
    /// Makes a cluster and starts it; it accepts connections when this returns.
    pub fn start(options: Options) -> Result<Self> {
        let cluster = Self { options, folder: server_folder()?, port: 0, server: None };
        cluster.initdb()?;
        cluster.start_on_a_free_port()
    }

    /// Makes a copy of this cluster that follows it by streaming replication, and starts it: a hot standby with the
    /// same options, on a port of its own.
    pub fn standby(&self) -> Result<Self> {
        let standby = Self { options: self.options.clone(), folder: server_folder()?, port: 0, server: None };
        let mut copy = standby.command("pg_basebackup", "KILL");
        copy.arg("-D").arg(standby.data()).args(["-h", "127.0.0.1", "-p", &self.port.to_string()]);
        // With the WAL written meanwhile, and with the settings of a standby.
        copy.args([
            "-U",
            SUPERUSER,
            "-X",
            "stream",
            "--write-recovery-conf",
            "--checkpoint=fast",
            "--no-sync",
        ]);
        standby.run_to_its_end(copy, "pg_basebackup")?;
        standby.start_on_a_free_port()
    }

    /// Makes a standby a primary; it takes writes when this returns.
    pub fn promote(&self) -> Result<()> {
        let promoted: bool = self.connect("postgres")?.query_one("select pg_promote()", &[])?.get(0);
        if promoted { Ok(()) } else { Err(Error::Unmet("the standby was not promoted in time".to_owned())) }
    }

    fn start_on_a_free_port(mut self) -> Result<Self> {
        for _ in 0..PORT_ATTEMPTS {
            self.port = free_port()?;
            match self.start_again() {
                // Another program took the port first.
                Err(Error::NotServing { log, .. }) if log.contains("Address already in use") => {}
                result => return result.map(|()| self),
            }
        }
        Err(Error::Unmet(format!("{PORT_ATTEMPTS} free ports were each taken before Postgres could listen")))
    }

    /// Starts a stopped or killed server with the same data, on the same port.
    pub fn start_again(&mut self) -> Result<()> {
        self.stop(StopMode::Fast);
        // The log shown for a failed start is of this start.
        let log = self.log_path();
        let log = fs::File::create(&log).map_err(Error::file(&log))?;
        let mut command = self.command("postgres", "INT");
        command.arg("-D").arg(self.data()).args(["-p", &self.port.to_string()]);
        for (name, value) in self.settings() {
            command.args(["-c", &format!("{name}={value}")]);
        }
        self.server = Some(process::serve(stdout_and_stderr(command, log))?);
        self.wait_until_ready().inspect_err(|_| self.stop(StopMode::Immediate))
    }

    /// Stops the server; nothing happens when it is not running.
    pub fn stop(&mut self, mode: StopMode) {
        let Some(mut server) = self.server.take() else { return };
        let signal = match mode {
            StopMode::Fast => Signal::INT,
            StopMode::Immediate => Signal::QUIT,
        };
        process::signal(&server, signal);
        if process::wait_for(&mut server, STOP_LIMIT).is_none() {
            self.server = Some(server);
            self.kill_server();
        }
    }

    /// Ends the server and every session with SIGKILL, as an out-of-memory killer or a power cut would.
    ///
    /// The sessions too: without its postmaster a session would still finish, and commit, what it was doing, and the
    /// next start would find its shared memory in use.
    pub fn kill_server(&mut self) {
        let Some(mut server) = self.server.take() else { return };
        process::kill(&mut server);
        let start = Instant::now();
        let data = self.data();
        loop {
            let sessions = processes_in(&data);
            if sessions.is_empty() || start.elapsed() > STOP_LIMIT {
                return;
            }
            for session in sessions {
                // It may end by itself in between; a pid is not given to another that soon.
                let _ = rustix::process::kill_process(session, Signal::KILL);
            }
            thread::sleep(POLL);
        }
    }

    /// The connection string of one of its databases, as the superuser.
    #[must_use]
    pub fn url(&self, database: &str) -> String {
        format!("{}{database}", self.server_url())
    }

    /// The same without a database, ending in a slash.
    #[must_use]
    pub fn server_url(&self) -> String {
        format!("postgres://{SUPERUSER}@127.0.0.1:{}/", self.port)
    }

    /// A new connection, as the superuser.
    pub fn connect(&self, database: &str) -> Result<postgres::Client> {
        Ok(postgres::Client::connect(&self.url(database), NoTls)?)
    }

    /// A database with the extension in it, and before it, in the cluster, the roles that Supabase has.
    pub fn create_database(&self, name: &str) -> Result<()> {
        let mut server = self.connect("postgres")?;
        server.batch_execute(
            "do $$
             declare role text;
             begin
                 foreach role in array array['anon', 'authenticated', 'service_role', 'authenticator'] loop
                     if not exists (select from pg_roles where rolname = role) then
                         execute format('create role %I nologin', role);
                     end if;
                 end loop;
             end $$",
        )?;
        server.batch_execute(&format!("create database {name}"))?;
        Ok(self.connect(name)?.batch_execute("create extension stripe_credits")?)
    }

    /// The psql command line for a database.
    #[must_use]
    pub fn psql(&self, database: &str) -> String {
        format!("psql {}", self.url(database))
    }

    /// The folder of its programs.
    #[must_use]
    pub fn pg_bin(&self) -> &Path {
        &self.options.pg_bin
    }

    /// The port on 127.0.0.1, the same for the cluster's whole life.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The postmaster's process id while it runs.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.server.as_ref().map(Child::id)
    }

    /// Its folder, with the data and the log.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The process ids of the server and all of its sessions.
    #[must_use]
    pub fn processes(&self) -> Vec<u32> {
        processes_in(&self.data()).iter().map(|pid| pid.as_raw_nonzero().get().unsigned_abs()).collect()
    }

    /// What the server has written to its log since it was last started.
    #[must_use]
    pub fn log(&self) -> String {
        fs::read_to_string(self.log_path()).unwrap_or_default()
    }

    fn initdb(&self) -> Result<()> {
        let mut command = self.command("initdb", "KILL");
        command.arg("-D").arg(self.data()).args(["-U", SUPERUSER, "--auth=trust", "--encoding=UTF8"]);
        // Never waiting for the disk: a cluster that the power cut catches while it is made is made anew.
        command.args(["--locale=C.UTF-8", "--no-sync"]);
        self.run_to_its_end(command, "initdb")
    }

    /// Runs one of the programs that make a data folder; what it says is in the error if it fails.
    fn run_to_its_end(&self, command: Command, server: &'static str) -> Result<()> {
        let log = self.log_path();
        let log = fs::File::create(&log).map_err(Error::file(&log))?;
        let line = command_line(&command);
        let mut program = process::serve(stdout_and_stderr(command, log))?;
        let failed = |reason| Error::NotServing { server, reason, log: self.log() };
        match process::wait_for(&mut program, START_LIMIT) {
            Some(status) if status.success() => Ok(()),
            Some(status) => Err(failed(format!("`{line}` ended with {status}"))),
            None => {
                process::kill(&mut program);
                Err(failed(format!("`{line}` took more than {} s", START_LIMIT.as_secs())))
            }
        }
    }

    /// Postgres writes `ready` into its pid file. A connection alone would prove less: another server's answer on
    /// this port looks the same.
    fn wait_until_ready(&mut self) -> Result<()> {
        let pid_file = self.data().join("postmaster.pid");
        let start = Instant::now();
        while let Some(server) = &mut self.server {
            let pid = server.id().to_string();
            let reason = if let Some(status) = process::wait_for(server, POLL) {
                self.server = None;
                format!("it ended with {status}")
            } else if is_ready(&fs::read_to_string(&pid_file).unwrap_or_default(), &pid) {
                return Ok(());
            } else if start.elapsed() > START_LIMIT {
                format!("it was not ready after {} s", START_LIMIT.as_secs())
            } else {
                signals::check()?;
                continue;
            };
            return Err(Error::NotServing { server: "Postgres", reason, log: self.log() });
        }
        Ok(())
    }

    fn settings(&self) -> Vec<(String, String)> {
        let connections = self.options.max_connections.to_string();
        let mut settings = vec![
            // No socket in a shared folder, where the name could be another cluster's.
            ("unix_socket_directories", ""),
            ("listen_addresses", "127.0.0.1"),
            ("max_connections", &connections),
            ("timezone", "UTC"),
            ("log_timezone", "UTC"),
        ];
        if self.options.durability == Durability::Fast {
            // Not synchronous_commit: it would lose what was committed just before a crash of Postgres.
            settings.extend([("fsync", "off"), ("full_page_writes", "off")]);
        }
        let settings = settings.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned()));
        settings.chain(self.options.settings.clone()).collect()
    }

    /// One of the server's programs, as the user who may run it, in the cluster's folder.
    fn command(&self, program: &str, death: &str) -> Command {
        let program = self.options.pg_bin.join(program);
        let mut command = process::server_command(&program, server_user(), death);
        command.current_dir(self.folder.path());
        command.envs(self.options.environment.iter().map(|(name, value)| (name, value)));
        command
    }

    fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    fn log_path(&self) -> PathBuf {
        self.folder.path().join("postgres.log")
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        // The folder is removed right after, once nothing writes to it any more.
        self.stop(StopMode::Immediate);
    }
}

/// Postgres refuses to run as root.
fn server_user() -> Option<&'static str> {
    rustix::process::geteuid().is_root().then_some(SUPERUSER)
}

/// A new temporary folder in which the user that runs the servers can read, and make folders of its own.
pub fn server_folder() -> Result<TempDir> {
    let mut parent = env::temp_dir();
    if server_user().is_some() && !is_open_to_all(&parent) {
        // As where root's TMPDIR is root's alone.
        parent = "/tmp".into();
    }
    let folder = tempfile::Builder::new().prefix("stripe-credits-").tempdir_in(&parent);
    let folder = folder.map_err(Error::file(&parent))?;
    if let Some(user) = server_user() {
        process::run(Command::new("chown").arg(format!("{user}:")).arg(folder.path()))?;
        let passable = fs::set_permissions(folder.path(), Permissions::from_mode(0o711));
        passable.map_err(Error::file(folder.path()))?;
    }
    Ok(folder)
}

/// Whether every user may pass through the folder and all above it.
fn is_open_to_all(folder: &Path) -> bool {
    let passable = |path: &Path| fs::metadata(path).is_ok_and(|of| of.permissions().mode() & 0o001 != 0);
    folder.ancestors().all(passable)
}

/// A port of 127.0.0.1 that is free now, and that no outgoing connection will take.
pub fn free_port() -> Result<u16> {
    for _ in 0..PORT_ATTEMPTS {
        // Random, so that clusters started at the same time do not all ask for the same.
        let (random, _) = uuid::Uuid::new_v4().as_u64_pair();
        let port = FIRST_PORT + u16::try_from(random % u64::from(PORT_COUNT)).unwrap_or_default();
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return Ok(port);
        }
    }
    Err(Error::Unmet(format!("no free port in {PORT_ATTEMPTS} attempts")))
}

/// Whether this server's pid file says that it accepts connections.
fn is_ready(pid_file: &str, pid: &str) -> bool {
    let mut lines = pid_file.lines();
    lines.next() == Some(pid) && lines.nth(6).is_some_and(|status| status.trim() == "ready")
}

/// Every process whose working directory is `folder`: the server's own, since Postgres changes into its data.
fn processes_in(folder: &Path) -> Vec<Pid> {
    let Ok(processes) = fs::read_dir("/proc") else { return Vec::new() };
    let pid = |entry: io::Result<fs::DirEntry>| {
        let entry = entry.ok()?;
        let pid = entry.file_name().to_str()?.parse().ok()?;
        let is_here = fs::read_link(entry.path().join("cwd")).ok()? == folder;
        if is_here { Pid::from_raw(pid) } else { None }
    };
    processes.filter_map(pid).collect()
}

fn stdout_and_stderr(mut command: Command, file: fs::File) -> Command {
    if let Ok(same) = file.try_clone() {
        command.stdout(same);
    }
    command.stdin(std::process::Stdio::null()).stderr(file);
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    fn number(client: &mut postgres::Client, query: &str) -> i64 {
        client.query_one(query, &[]).unwrap().get(0)
    }

    #[test]
    fn what_was_committed_survives_a_kill_and_what_was_not_does_not() {
        let mut cluster = Cluster::start(Options::default()).unwrap();
        let mut client = cluster.connect("postgres").unwrap();
        client.batch_execute("create table t(x int); insert into t values (1)").unwrap();
        client.batch_execute("begin; insert into t values (2)").unwrap();

        cluster.kill_server();
        assert!(cluster.connect("postgres").is_err());
        cluster.start_again().unwrap();

        let mut client = cluster.connect("postgres").unwrap();
        assert_eq!(number(&mut client, "select count(*) from t"), 1);
    }

    #[test]
    fn a_promoted_standby_has_what_was_committed_and_takes_writes() {
        let mut primary = Cluster::start(Options::default()).unwrap();
        primary.connect("postgres").unwrap().batch_execute("create table t(x int)").unwrap();
        let standby = primary.standby().unwrap();
        let mut client = primary.connect("postgres").unwrap();
        client.batch_execute("alter system set synchronous_standby_names = '*'").unwrap();
        client.batch_execute("select pg_reload_conf()").unwrap();
        let is_synchronous = "select count(*) from pg_stat_replication where sync_state = 'sync'";
        while number(&mut client, is_synchronous) == 0 {
            thread::sleep(POLL);
        }
        client.batch_execute("insert into t values (1)").unwrap();
        primary.kill_server();

        standby.promote().unwrap();
        let mut client = standby.connect("postgres").unwrap();
        client.batch_execute("insert into t values (2)").unwrap();
        assert_eq!(number(&mut client, "select count(*) from t"), 2);
    }

    #[test]
    fn a_server_outlives_the_thread_that_started_it() {
        let started = thread::spawn(|| Cluster::start(Options::default()).unwrap());
        let cluster = started.join().unwrap();
        assert_eq!(number(&mut cluster.connect("postgres").unwrap(), "select 1::bigint"), 1);
    }

    #[test]
    fn nothing_is_left_after_a_panic() {
        let (sender, receiver) = std::sync::mpsc::channel();
        let panicked = thread::spawn(move || {
            let cluster = Cluster::start(Options::default()).unwrap();
            let facts = (cluster.folder.path().to_owned(), cluster.pid().unwrap(), cluster.port());
            sender.send(facts).unwrap();
            panic!("on purpose");
        });
        assert!(panicked.join().is_err());

        let (folder, pid, port) = receiver.recv().unwrap();
        assert!(!folder.exists());
        assert!(!Path::new(&format!("/proc/{pid}")).exists());
        assert!(TcpListener::bind(("127.0.0.1", port)).is_ok());
    }

    #[test]
    fn a_setting_the_server_refuses_is_reported_with_its_log() {
        let settings = vec![("shared_buffers".to_owned(), "much".to_owned())];
        let error = Cluster::start(Options { settings, ..Options::default() }).unwrap_err();
        assert!(error.to_string().contains("shared_buffers"), "{error}");
    }
}
