//! PgBouncer in transaction mode on a port of its own: as hosted databases put it before Postgres.

use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::cluster::{free_port, server_folder, server_user};
use crate::{Error, Result, process, signals};

/// Where Debian's package has it; it is looked for on the PATH first.
const DEBIAN_PGBOUNCER: &str = "/usr/sbin/pgbouncer";
/// How long it may take to listen, and how often that is looked at.
const START_LIMIT: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(20);
/// The server's sessions that all clients share.
const SESSIONS: u32 = 3;

/// A running pooler. Dropped, it is killed.
#[derive(Debug)]
pub struct Pooler {
    server: Child,
    address: SocketAddr,
    _folder: TempDir,
}

impl Pooler {
    /// Starts one before this server, to which it connects as `user` without a password. `settings` are lines of its
    /// configuration. It keeps no prepared statements.
    pub fn start(server: SocketAddr, user: &str, settings: &[&str]) -> Result<Self> {
        let program = process::find("pgbouncer").unwrap_or_else(|| PathBuf::from(DEBIAN_PGBOUNCER));
        let folder = server_folder()?;
        let address = SocketAddr::from(([127, 0, 0, 1], free_port()?));
        let write = |name: &str, text: String| -> Result<PathBuf> {
            let path = folder.path().join(name);
            fs::write(&path, text).map_err(Error::file(&path))?;
            Ok(path)
        };
        let users = write("users.txt", format!("\"{user}\" \"\"\n"))?;
        let configuration = format!(
            "[databases]\n* = host={} port={}\n[pgbouncer]\nlisten_addr = {}\nlisten_port = {}\nunix_socket_dir =\n\
             auth_type = trust\nauth_file = {}\npool_mode = transaction\ndefault_pool_size = {SESSIONS}\n{}\n{}\n",
            server.ip(),
            server.port(),
            address.ip(),
            address.port(),
            users.display(),
            if keeps_statements(&program)? { "max_prepared_statements = 0" } else { "" },
            settings.join("\n"),
        );
        let configuration = write("pgbouncer.ini", configuration)?;
        let mut command = process::server_command(&program, server_user(), "KILL");
        command.arg(configuration).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let pooler = Self { server: process::serve(command)?, address, _folder: folder };
        let since = Instant::now();
        while TcpStream::connect(address).is_err() {
            signals::check()?;
            if since.elapsed() > START_LIMIT {
                return Err(Error::Unmet(format!(
                    "PgBouncer did not listen within {} s",
                    START_LIMIT.as_secs()
                )));
            }
            thread::sleep(POLL);
        }
        Ok(pooler)
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

/// Whether a PgBouncer can keep prepared statements: since 1.21.
fn keeps_statements(program: &Path) -> Result<bool> {
    let text = process::output(Command::new(program).arg("--version"))?;
    let mut numbers = text.split([' ', '.', '\n']).filter_map(|word| word.parse::<u32>().ok());
    let version = numbers.next().zip(numbers.next());
    version
        .map(|version| version >= (1, 21))
        .ok_or_else(|| Error::Unmet(format!("PgBouncer's version was not understood: {text}")))
}

impl Drop for Pooler {
    fn drop(&mut self) {
        process::kill(&mut self.server);
    }
}
