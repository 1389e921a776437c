//! `cargo xtask tools`: everything that the checks and the tests need, installed.

use xtask::stages::Stages;
use xtask::{Result, install};

/// Installs what is missing, and prints how long each part took.
pub(crate) fn run() -> Result<()> {
    let mut stages = Stages::default();
    stages.run("tools: apt packages", install::tools)?;
    stages.run("tools of the pooler's tests", install::pooler)?;
    stages.run("tools of the browser's tests", install::browser)?;
    stages.run("the TypeScript client", install::typescript_client)?;
    stages.run("tools of openapi.yaml's test", install::schemathesis)?;
    stages.run("tools of the alerts' tests: promtool", install::promtool)?;
    stages.run("tools of the checks: cargo-deny", install::checkers)?;
    stages.summarize();
    Ok(())
}
