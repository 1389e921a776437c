//! A Debian in a folder, made by debootstrap once and kept as an archive below the target folder, in which commands run
//! as root without touching this machine.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use crate::workspace::target_directory;
use crate::{Error, Result, install, process};

/// A copy of it, gone when it is dropped.
#[derive(Debug)]
pub struct DebianRoot(TempDir);

impl DebianRoot {
    /// The smallest Debian of a release, such as `bookworm`, with these packages.
    pub fn new(suite: &str, packages: &[String]) -> Result<Self> {
        let archive = archive(suite, packages)?;
        let folder = tempfile::Builder::new().prefix("stripe-credits-root-").tempdir();
        let folder = folder.map_err(Error::file("the temporary folder"))?;
        process::run(Command::new("tar").arg("-xf").arg(archive).arg("-C").arg(folder.path()))?;
        Ok(Self(folder))
    }

    /// Its `/`.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.0.path()
    }

    /// Runs a bash script in it, which ends at its first failure. What it starts ends with it, and it has no network but
    /// its own loopback.
    pub fn run(&self, script: &str) -> Result<String> {
        let file = self.path().join("root/script");
        let prelude =
            "set -euo pipefail\nip link set lo up\nmount -t proc proc /proc\nmount -t tmpfs tmpfs /run\n";
        fs::write(&file, format!("{prelude}{script}")).map_err(Error::file(file))?;
        let mut command = Command::new("unshare");
        command.args(["--mount", "--net", "--pid", "--fork", "--kill-child", "chroot"]).arg(self.path());
        command.args(["/usr/bin/env", "-i", "HOME=/root", "LANG=C.UTF-8", "DEBIAN_FRONTEND=noninteractive"]);
        command.arg("PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
        process::output(command.args(["bash", "/root/script"]))
    }
}

/// The archive of one, made if it is missing.
pub fn archive(suite: &str, packages: &[String]) -> Result<PathBuf> {
    let folder = target_directory()?.join("roots");
    fs::create_dir_all(&folder).map_err(Error::file(&folder))?;
    let archive = folder.join(format!("{suite}-{}.tar", packages.join("-")));
    if archive.exists() {
        return Ok(archive);
    }
    install::root_maker()?;
    let scratch = tempfile::Builder::new().prefix("stripe-credits-root-").tempdir();
    let scratch = scratch.map_err(Error::file("the temporary folder"))?;
    let mut debootstrap = Command::new("debootstrap");
    debootstrap.args(["--variant=minbase", &format!("--include=iproute2,{}", packages.join(","))]);
    process::output(debootstrap.arg(suite).arg(scratch.path()))?;
    // Complete or not there at all.
    let unfinished = archive.with_extension("unfinished");
    let mut tar = Command::new("tar");
    tar.arg("-cf")
        .arg(&unfinished)
        .arg("--exclude=./var/cache/apt/archives/*.deb")
        .arg("-C")
        .arg(scratch.path());
    process::run(tar.arg("."))?;
    fs::rename(&unfinished, &archive).map_err(Error::file(&archive))?;
    Ok(archive)
}
