//! `cargo xtask install`: the extension as users get it, into a Postgres of theirs.

use std::path::PathBuf;

use clap::Args;
use xtask::build::{Flavour, build};
use xtask::extension::{self, Target};
use xtask::stages::Stages;
use xtask::{Result, cluster, install};

#[derive(Args)]
pub(crate) struct Arguments {
    /// Describes the Postgres [default: of Debian's newest one with headers]
    #[arg(long, value_name = "FILE")]
    pg_config: Option<PathBuf>,
}

/// Builds with optimizations, installs the extension and prints where the shim is.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let mut stages = Stages::default();
    stages.run("tools: apt packages", install::tools)?;
    let target = Target::of(arguments.pg_config.clone().unwrap_or_else(cluster::pg_config))?;
    let built = stages.run("build", || build(Flavour::Release, &target))?;
    extension::install(&extension::files(&built.library)?, &target)?;
    stages.summarize();
    println!("installed for Postgres {}; the shim is {}", target.major, built.shim.display());
    Ok(())
}
