//! How the programs of this workspace are built.

use std::env;
use std::path::{Path, PathBuf};

use crate::extension::{self, Target};
use crate::workspace::{PG_CONFIG_VARIABLE, cargo, root, target_directory};
use crate::{Error, Result, process};

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
