//! `cargo xtask torture`: signed deliveries, spends and refunds from many clients while the shim, the server, its disk,
//! Redis and Stripe fail, and the proof of the books at the end. docs/reliability.md has what it shows.

use xtask::build::Flavour;
use xtask::cluster::{PG_BIN_VARIABLE, pg_bin};
use xtask::stages::Stages;
use xtask::workspace::cargo;
use xtask::{Result, install, process};

/// The seed unless another is given: the same decisions in every run.
const SEED: u64 = 10;

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// How long faults go on, in minutes; each kind comes at least once
    #[arg(long, default_value_t = 1)]
    minutes: u64,
    /// What all decisions follow from: what is sold and spent, and what fails when
    #[arg(long, default_value_t = SEED)]
    seed: u64,
}

/// Builds everything and runs it; an error if anything at all is not as it has to be.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let mut stages = Stages::default();
    stages.run("tools: apt packages", install::tools)?;
    let shim = stages.run("build, and install the extension", || install::build(Flavour::Dev))?.shim;
    // The tests crate has the clients, the Stripe and the Redis for it.
    let mut command = cargo();
    command.args(["bench", "--locked", "--quiet", "--profile", "dev"]);
    command.args(["--package", "stripe_credits_tests", "--bench", "torture"]);
    command
        .env("STRIPE_CREDITS_SHIM", shim)
        .env(PG_BIN_VARIABLE, pg_bin())
        .env("STRIPE_CREDITS_TORTURE_MINUTES", arguments.minutes.to_string())
        .env("STRIPE_CREDITS_TORTURE_SEED", arguments.seed.to_string());
    stages.run("torture", || process::run_group(&mut command))?;
    stages.summarize();
    Ok(())
}
