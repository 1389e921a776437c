//! This workspace: where it is, and how the programs in it are built.

use std::env;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::{Error, Result, cluster, process};

/// How something is built.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flavour {
    /// Quickly: for tests and development.
    Dev,
    /// As users get it: for the demo and measurements.
    Release,
}

impl Flavour {
    /// The arguments for Cargo and for cargo-pgrx.
    pub(crate) fn arguments(self) -> &'static [&'static str] {
        match self {
            Self::Dev => &[],
            Self::Release => &["--release"],
        }
    }

    fn folder(self) -> &'static str {
        match self {
            Self::Dev => "debug",
            Self::Release => "release",
        }
    }
}

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
    command.env("PGRX_PG_CONFIG_PATH", cluster::pg_config());
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

/// Builds the shim and returns the path of its binary.
pub fn build_shim(flavour: Flavour) -> Result<PathBuf> {
    process::run(
        cargo().args(["build", "--locked", "--package", "stripe_credits_shim"]).args(flavour.arguments()),
    )?;
    Ok(target_directory()?.join(flavour.folder()).join("stripe-credits"))
}

/// Cargo's target folder.
pub(crate) fn target_directory() -> Result<PathBuf> {
    let metadata =
        process::output(cargo().args(["metadata", "--locked", "--format-version=1", "--no-deps"]))?;
    let metadata: Option<Value> = serde_json::from_str(&metadata).ok();
    metadata
        .and_then(|metadata| metadata.get("target_directory")?.as_str().map(PathBuf::from))
        .ok_or_else(|| Error::Unmet("cargo metadata names no target directory".to_owned()))
}
