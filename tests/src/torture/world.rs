//! What runs: a Postgres whose address can move and whose disk can refuse, the shim, and everything around it.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;
use xtask::cluster::{Cluster, Durability, Options, free_port, server_folder};
use xtask::forwarder::Forwarder;
use xtask::{Error, Result, process};

use crate::connection::Connection;
use crate::fake_redis::FakeRedis;
use crate::fake_stripe::FakeStripe;
use crate::shim::{Setup, Shim};
use crate::stripe::catalog;
use crate::tokens::{AUDIENCE, ISSUER, JWT_SECRET};

/// The app's database, and the role of the shim and of the app's server.
pub(super) const DATABASE: &str = "app";
const ROLE: &str = "app_server";
/// How long the shim may answer `GET /credits` from Redis, in seconds.
const CREDITS_MAX_AGE: &str = "5";
/// The variable that names the file while which exists the disk refuses: see `fsync_fault.c`.
const REFUSE_VARIABLE: &str = "STRIPE_CREDITS_REFUSE_FSYNC";

/// Everything that runs. Dropped, it is gone, the clients before their servers.
pub(super) struct World {
    pub(super) shim: Shim,
    setup: Setup,
    pub(super) forwarder: Forwarder,
    pub(super) cluster: Cluster,
    pub(super) disk: Option<Disk>,
    /// What there was, and must be gone in the end.
    pub(super) traces: Traces,
}

/// Folders, ports and processes.
#[derive(Default)]
pub(super) struct Traces {
    pub(super) folders: Vec<PathBuf>,
    pub(super) ports: Vec<u16>,
    pub(super) processes: Vec<u32>,
}

impl World {
    /// Starts everything, with catalog.example.json loaded.
    pub(super) fn start(stripe: &FakeStripe, redis: &FakeRedis) -> Result<World> {
        let disk = Disk::build()?;
        let environment = disk.as_ref().map(Disk::environment).unwrap_or_default();
        // Durable, because otherwise the server never syncs, and nothing could be refused.
        let options = Options { durability: Durability::Durable, environment, ..Options::default() };
        let cluster = Cluster::start(options)?;
        cluster.create_database(DATABASE)?;
        let mut books = Connection::new(cluster.connect(DATABASE)?);
        books.run(&format!("create role {ROLE} login in role service_role"));
        books.load_catalog(&catalog());
        let forwarder = Forwarder::start(address_of(&cluster))?;
        // A port that no outgoing connection takes while the shim is away.
        let listen = format!("127.0.0.1:{}", free_port()?);
        let setup = Setup::serve(&database_url(&forwarder))
            .with("LISTEN", &listen)
            .with("REDIS_URL", &redis.url())
            .with("CREDITS_MAX_AGE", CREDITS_MAX_AGE)
            .with("JWT_SECRET", JWT_SECRET)
            .with("JWT_AUDIENCE", AUDIENCE)
            .with("JWT_ISSUER", ISSUER)
            .with_stripe(stripe);
        let shim = setup.clone().start();
        let mut world = World { shim, setup, forwarder, cluster, disk, traces: Traces::default() };
        world.trace_cluster();
        world.traces.ports.extend([world.shim.address().port(), world.forwarder.address().port()]);
        world.traces.processes.push(world.shim.pid());
        Ok(world)
    }

    /// Where the app's server finds the database, wherever that is.
    pub(super) fn database_url(&self) -> String {
        database_url(&self.forwarder)
    }

    /// A connection as the superuser that does not go through the forwarder.
    pub(super) fn books(&self) -> Result<Connection> {
        Ok(Connection::new(self.cluster.connect(DATABASE)?))
    }

    /// Starts the shim again where it was.
    pub(super) fn start_shim(&mut self) {
        self.shim = self.setup.clone().start();
        self.traces.processes.push(self.shim.pid());
    }

    /// From now on this is the database's server.
    pub(super) fn replace_cluster(&mut self, cluster: Cluster) {
        self.cluster = cluster;
        self.trace_cluster();
    }

    /// Remembers the server's processes.
    pub(super) fn trace_processes(&mut self) {
        self.traces.processes.extend(self.cluster.processes());
    }

    fn trace_cluster(&mut self) {
        self.traces.folders.push(self.cluster.folder().to_owned());
        self.traces.ports.push(self.cluster.port());
        self.trace_processes();
    }
}

/// Where a server listens.
pub(super) fn address_of(cluster: &Cluster) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], cluster.port()))
}

fn database_url(forwarder: &Forwarder) -> String {
    format!("postgres://{ROLE}@127.0.0.1:{}/{DATABASE}", forwarder.address().port())
}

/// A disk that can refuse to sync: a library that Postgres is started with.
pub(super) struct Disk {
    folder: TempDir,
}

impl Disk {
    /// Compiles the library; `None` on a machine without a C compiler.
    fn build() -> Result<Option<Disk>> {
        let Some(compiler) = ["cc", "clang"].into_iter().find_map(process::find) else { return Ok(None) };
        let folder = server_folder()?;
        let source = folder.path().join("fsync_fault.c");
        fs::write(&source, include_str!("fsync_fault.c")).map_err(Error::file(&source))?;
        let disk = Disk { folder };
        let mut compile = Command::new(compiler);
        compile.args(["-shared", "-fPIC", "-o"]).arg(disk.library()).arg(&source);
        process::run(&mut compile)?;
        Ok(Some(disk))
    }

    /// From now on nothing can be synced.
    pub(super) fn refuse(&self) -> Result<()> {
        let file = self.switch();
        fs::write(&file, "").map_err(Error::file(&file))
    }

    /// It works again.
    pub(super) fn accept(&self) {
        // It is not there if the disk works.
        let _ = fs::remove_file(self.switch());
    }

    fn environment(&self) -> Vec<(String, String)> {
        let text = |path: &Path| path.display().to_string();
        vec![
            ("LD_PRELOAD".to_owned(), text(&self.library())),
            (REFUSE_VARIABLE.to_owned(), text(&self.switch())),
        ]
    }

    fn library(&self) -> PathBuf {
        self.folder.path().join("fsync_fault.so")
    }

    fn switch(&self) -> PathBuf {
        self.folder.path().join("refuse")
    }
}
