//! What has to be on the machine: Debian packages, cargo-pgrx, the extension itself in Postgres's folders, and a
//! browser for the tests.
//!
//! Each is looked for first: on a machine that has everything, nothing changes and no network is used.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::cluster::{self, DEBIAN_PG_BIN};
use crate::workspace::{Flavour, cargo, root, target_directory};
use crate::{Error, Result, process};

/// What pgrx needs to build (it reads Postgres's headers with clang, and cargo-pgrx links OpenSSL).
const BUILD_PACKAGES: &[&str] = &["clang", "libclang-dev", "pkg-config", "libssl-dev"];
/// Postgres, unless another one is named. Debian makes a cluster of its own with it, on port 5432, as with any
/// installation of these packages; nothing here uses or touches that one.
const POSTGRES_PACKAGES: &[&str] = &["postgresql-15", "postgresql-server-dev-15"];
/// The same as the crate pgrx in extension/Cargo.toml, as cargo-pgrx itself insists.
const CARGO_PGRX: Tool = Tool { name: "pgrx", version: "0.18.1", arguments: &[] };
/// Reads deny.toml. Built without optimization, which takes a minute instead of several, and without what downloads
/// crates and advisories: it checks what Cargo has resolved.
const CARGO_DENY: Tool =
    Tool { name: "deny", version: "0.20.2", arguments: &["--debug", "--no-default-features"] };

/// The programs that the browser tests run, and their packages. A program that exists is not installed again: Node is
/// often there from elsewhere, and Debian's npm package would conflict with it.
const BROWSER_PROGRAMS: &[(&str, &str)] = &[("chromium", "chromium"), ("node", "nodejs"), ("npm", "npm")];
/// What npm reads, in tests/browser and where it installs. It asks for the last playwright-core that runs on Node 18,
/// which is Debian 12's.
const NPM_FILES: &[&str] = &["package.json", "package-lock.json", ".npmrc"];
/// A copy of the lock file, written next to the packages once npm has installed all of them.
const NPM_DONE: &str = "installed-package-lock.json";

/// A subcommand of Cargo: the crate `cargo-` and its name.
struct Tool {
    name: &'static str,
    version: &'static str,
    /// For `cargo install`.
    arguments: &'static [&'static str],
}

/// Installs what is missing to build and to start everything.
pub fn tools() -> Result<()> {
    packages()?;
    cargo_tool(&CARGO_PGRX)
}

/// Installs what is missing to check the dependencies by deny.toml.
pub fn checkers() -> Result<()> {
    cargo_tool(&CARGO_DENY)
}

/// Installs what is missing to drive a browser, and returns the folder that has playwright-core in it, below the target
/// folder, so that the source tree stays as it is.
pub fn browser() -> Result<PathBuf> {
    let missing = BROWSER_PROGRAMS.iter().filter(|(program, _)| process::find(program).is_none());
    apt_install(&missing.map(|(_, package)| *package).collect::<Vec<_>>())?;
    playwright_core()
}

/// Fetches what is missing to check the alerts, and returns `promtool`. Debian's package would start a Prometheus, so only
/// this one program of it is unpacked, below the target folder.
pub fn promtool() -> Result<PathBuf> {
    let folder = target_directory()?.join("promtool");
    let unpacked = folder.join("usr/bin/promtool");
    let is_there = || unpacked.exists().then(|| unpacked.clone());
    if let Some(program) = process::find("promtool").or_else(is_there) {
        return Ok(program);
    }
    eprintln!("missing: promtool");
    fs::create_dir_all(&folder).map_err(Error::file(&folder))?;
    process::run(apt_get().arg("update"))?;
    process::run(Command::new("apt-get").args(["--quiet", "download", "prometheus"]).current_dir(&folder))?;
    let unpack =
        "dpkg-deb --fsys-tarfile prometheus_*.deb | tar -x ./usr/bin/promtool && rm prometheus_*.deb";
    process::run(Command::new("sh").args(["-c", unpack]).current_dir(&folder))?;
    Ok(unpacked)
}

/// Builds the extension and installs it into Postgres's folders.
pub fn extension(flavour: Flavour) -> Result<()> {
    let mut command = cargo();
    command.current_dir(root().join("extension"));
    command.args(["pgrx", "install", "--pg-config"]).arg(cluster::pg_config()).args(flavour.arguments());
    if is_debians(&cluster::pg_bin()) && !is_root() {
        command.arg("--sudo");
    }
    process::run(&mut command)
}

fn packages() -> Result<()> {
    let mut wanted = BUILD_PACKAGES.to_vec();
    if is_debians(&cluster::pg_bin()) {
        wanted.extend(POSTGRES_PACKAGES);
    }
    wanted.retain(|package| !is_installed(package));
    apt_install(&wanted)
}

fn apt_install(missing: &[&str]) -> Result<()> {
    if missing.is_empty() {
        return Ok(());
    }
    eprintln!("missing: {}", missing.join(", "));
    process::run(apt_get().arg("update"))?;
    process::run(apt_get().args(["install", "--yes", "--no-install-recommends"]).args(missing))
}

/// A package that dpkg does not know is missing too; on a system without dpkg, apt-get fails next.
fn is_installed(package: &str) -> bool {
    let query =
        Command::new("dpkg-query").args(["--show", "--showformat=${db:Status-Status}", package]).output();
    query.is_ok_and(|answer| answer.stdout == b"installed")
}

fn apt_get() -> Command {
    let mut command = Command::new(if is_root() { "env" } else { "sudo" });
    if !is_root() {
        command.arg("env");
    }
    command.args(["DEBIAN_FRONTEND=noninteractive", "apt-get", "--quiet"]);
    command
}

fn cargo_tool(tool: &Tool) -> Result<()> {
    let version = cargo().args([tool.name, "--version"]).output();
    let package = format!("cargo-{}", tool.name);
    let wanted = format!("{package} {}", tool.version);
    if version.is_ok_and(|answer| String::from_utf8_lossy(&answer.stdout).trim() == wanted) {
        return Ok(());
    }
    eprintln!("missing: {wanted} (takes some minutes)");
    let mut command = cargo();
    command.args(["install", &package, "--locked", "--version", tool.version]).args(tool.arguments);
    process::run(&mut command)
}

fn playwright_core() -> Result<PathBuf> {
    let (source, folder) = (root().join("tests/browser"), target_directory()?.join("browser"));
    let lock = source.join("package-lock.json");
    let lock = fs::read(&lock).map_err(Error::file(lock))?;
    let done = folder.join(NPM_DONE);
    if fs::read(&done).is_ok_and(|installed| installed == lock) {
        return Ok(folder);
    }
    fs::create_dir_all(&folder).map_err(Error::file(&folder))?;
    for name in NPM_FILES {
        fs::copy(source.join(name), folder.join(name)).map_err(Error::file(folder.join(name)))?;
    }
    // The packages' own scripts could download browsers.
    let flags = ["--ignore-scripts", "--no-audit", "--no-fund", "--no-update-notifier"];
    process::run(Command::new("npm").arg("ci").args(flags).current_dir(&folder))?;
    fs::write(&done, lock).map_err(Error::file(done))?;
    Ok(folder)
}

fn is_debians(pg_bin: &Path) -> bool {
    pg_bin == Path::new(DEBIAN_PG_BIN)
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}
