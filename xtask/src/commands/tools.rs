//! `cargo xtask tools`: everything that the other commands and the checks need, installed.

use xtask::stages::Stages;
use xtask::{Result, install};

/// Installs what is missing, and prints how long each part took.
pub(crate) fn run() -> Result<()> {
    let mut stages = Stages::default();
    stages.run("tools: apt packages", install::tools)?;
    stages.run("tools of the browser's tests", install::browser)?;
    stages.run("tools of the checks: cargo-deny", install::checkers)?;
    stages.summarize();
    Ok(())
}
