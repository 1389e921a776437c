//! This workspace: where it is, and its cargo.

use std::env;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::{Error, Result, cluster, process};

/// Names the pg_config of the Postgres that pgrx builds for.
pub(crate) const PG_CONFIG_VARIABLE: &str = "PGRX_PG_CONFIG_PATH";

/// The repository's root.
#[must_use]
pub fn root() -> PathBuf {
    let xtask = Path::new(env!("CARGO_MANIFEST_DIR"));
    xtask.parent().unwrap_or(xtask).to_owned()
}

/// The sample catalog that the demo sells from.
#[must_use]
pub fn sample_catalog() -> PathBuf {
    root().join("catalog.example.json")
}

/// `cargo`, to be run at the root.
#[must_use]
pub fn cargo() -> Command {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| OsString::from("cargo")));
    command.current_dir(root());
    // Set here, so that no `cargo pgrx init` is needed; .cargo/config.toml does the same for cargo on the command line.
    command.env(PG_CONFIG_VARIABLE, cluster::pg_config());
    // `cargo run` sets variables that describe xtask; build scripts that read them (such as ring's) would run again each
    // time.
    let about_xtask = ["CARGO_PKG_", "CARGO_MANIFEST_", "CARGO_BIN_", "CARGO_CRATE_", "CARGO_PRIMARY_"];
    for (name, _) in env::vars_os() {
        if about_xtask.iter().any(|prefix| name.to_string_lossy().starts_with(prefix)) {
            command.env_remove(name);
        }
    }
    command
}

/// Cargo's target folder.
pub fn target_directory() -> Result<PathBuf> {
    let metadata =
        process::output(cargo().args(["metadata", "--locked", "--format-version=1", "--no-deps"]))?;
    let metadata: Option<Value> = serde_json::from_str(&metadata).ok();
    metadata
        .and_then(|metadata| metadata.get("target_directory")?.as_str().map(PathBuf::from))
        .ok_or_else(|| Error::Unmet("cargo metadata names no target directory".to_owned()))
}
