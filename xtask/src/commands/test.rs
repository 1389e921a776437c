//! `cargo xtask test`: every test, those without Postgres first.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use clap::Args;
use tempfile::TempDir;
use xtask::cluster::{Cluster, Options, PG_BIN_VARIABLE, pg_bin};
use xtask::stages::Stages;
use xtask::workspace::{Flavour, build_shim, cargo};
use xtask::{Error, Result, install, process};

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
    stages.run("tools: apt packages, cargo-pgrx", install::tools)?;
    let browser = stages.run("tools of the browser's tests", install::browser)?;
    let promtool = stages.run("tools of the alerts' tests: promtool", install::promtool)?;
    if arguments.cargo_test.is_empty() {
        stages.run("tests of the rules, the shim and xtask", || self_contained(&scratch))?;
    }
    stages.run("extension: build and install", || install::extension(Flavour::Dev))?;
    let shim = stages.run("shim: build", || build_shim(Flavour::Dev))?;
    let cluster = stages.run("cluster: make and start", start_cluster)?;
    let built = Built { shim: &shim, browser: &browser, promtool: &promtool };
    stages.run("integration tests", || integration(&cluster, &built, &scratch, &arguments.cargo_test))?;
    stages.summarize();
    Ok(())
}

fn self_contained(scratch: &Scratch) -> Result<()> {
    let mut command = cargo_test(scratch);
    command.args(SELF_CONTAINED.iter().flat_map(|name| ["--package", name]));
    process::run_group(&mut command)
}

fn start_cluster() -> Result<Cluster> {
    let cluster = Cluster::start(Options { max_connections: MAX_CONNECTIONS, ..Options::default() })?;
    cluster.create_database(TEMPLATE)?;
    Ok(cluster)
}

/// Adds the variables by which the tests crate finds the cluster and the shim.
pub(crate) fn with_cluster<'a>(command: &'a mut Command, cluster: &Cluster, shim: &Path) -> &'a mut Command {
    command
        .env("STRIPE_CREDITS_TEST_URL", cluster.server_url())
        .env("STRIPE_CREDITS_TEMPLATE", TEMPLATE)
        .env("STRIPE_CREDITS_SHIM", shim)
        .env(PG_BIN_VARIABLE, pg_bin())
}

/// What the integration tests start.
struct Built<'a> {
    shim: &'a Path,
    browser: &'a Path,
    promtool: &'a Path,
}

fn integration(cluster: &Cluster, built: &Built, scratch: &Scratch, arguments: &[String]) -> Result<()> {
    let mut command = cargo_test(scratch);
    command.args(["--package", "stripe_credits_tests"]);
    if !arguments.iter().any(|argument| argument.starts_with("--test")) {
        // If a test is named, cargo would link the library's tests too, of which there are none.
        command.arg("--tests");
    }
    command.args(arguments);
    command.env("STRIPE_CREDITS_BROWSER", built.browser).env("STRIPE_CREDITS_PROMTOOL", built.promtool);
    process::run_group(with_cluster(&mut command, cluster, built.shim))
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
