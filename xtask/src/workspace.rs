//! This workspace: where it is, and how the programs in it are built.

use std::env;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::extension::{self, Target};
use crate::{Error, Result, cluster, process};

/// Names the pg_config of the Postgres that pgrx builds for.
const PG_CONFIG_VARIABLE: &str = "PGRX_PG_CONFIG_PATH";

/// How something is built.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flavour {
    /// Quickly: for tests, development and the demo.
    Dev,
    /// As users get it: for packages and measurements.
    Release,
}

/// What a build makes.
#[derive(Clone, Debug)]
pub struct Built {
    /// The extension's library, until the next build, which may be for another Postgres.
    pub library: PathBuf,
    /// The shim.
    pub shim: PathBuf,
}

impl Flavour {
    fn arguments(self) -> &'static [&'static str] {
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

/// Builds the extension for a Postgres, and the shim, at once: Cargo compiles one while the other waits for a part.
pub fn build(flavour: Flavour, target: &Target) -> Result<Built> {
    let mut command = cargo();
    command.env(PG_CONFIG_VARIABLE, &target.pg_config);
    command.args(["build", "--locked", "--package", extension::NAME, "--package", "stripe_credits_shim"]);
    let feature = format!("{}/pg{}", extension::NAME, target.major);
    command.args(["--no-default-features", "--features", &feature]).args(flavour.arguments());
    if flavour == Flavour::Release {
        command.env("CARGO_ENCODED_RUSTFLAGS", without_paths()?);
    }
    process::run(&mut command)?;
    let folder = target_directory()?.join(flavour.folder());
    Ok(Built {
        library: folder.join(format!("lib{}.so", extension::NAME)),
        shim: folder.join("stripe-credits"),
    })
}

/// Compiler flags by which a program says nothing of the machine that built it, and is the same wherever it is built.
fn without_paths() -> Result<String> {
    let home = || env::home_dir().map(|home| home.join(".cargo"));
    let cargo_home = env::var_os("CARGO_HOME").map(PathBuf::from).or_else(home);
    let cargo_home = cargo_home.ok_or_else(|| Error::Unmet("there is no home folder".to_owned()))?;
    let remap = |path: &Path, name: &str| format!("--remap-path-prefix={}={name}", path.display());
    let target = target_directory()?;
    // The last one that fits is taken.
    let flags = [remap(&cargo_home, "cargo"), remap(&root(), "."), remap(&target, "target")];
    // What separates flags there.
    Ok(flags.join("\u{1f}"))
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
