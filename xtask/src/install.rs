//! What has to be on the machine: Debian packages, the extension itself in Postgres's folders, and a browser and checkers
//! for the tests.
//!
//! Each is looked for first: on a machine that has everything, nothing changes and no network is used.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use crate::extension::{self, Target};
use crate::workspace::{self, Built, Flavour, cargo, root, target_directory};
use crate::{Error, Result, cluster, process};

/// What pgrx needs to build: it reads Postgres's headers with clang.
///
/// Postgres comes with them, unless another one is named. Debian makes a cluster of its own with it, on port 5432, as
/// with any installation of its packages; nothing here uses or touches that one.
const BUILD_PACKAGES: &[&str] = &["clang", "libclang-dev"];
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
    let mut wanted: Vec<String> = BUILD_PACKAGES.iter().map(|&package| package.to_owned()).collect();
    if !cluster::is_named() && cluster::debians_with_headers().is_none() {
        wanted.extend(postgres_packages()?);
    }
    wanted.retain(|package| !is_installed(package));
    apt_install(&wanted)
}

/// Installs what is missing to check the dependencies by deny.toml.
pub fn checkers() -> Result<()> {
    cargo_tool(&CARGO_DENY)
}

/// Installs what is missing to drive a browser, and returns the folder that has playwright-core in it, below the target
/// folder, so that the source tree stays as it is.
pub fn browser() -> Result<PathBuf> {
    let missing = BROWSER_PROGRAMS.iter().filter(|(program, _)| process::find(program).is_none());
    apt_install(&missing.map(|&(_, package)| package.to_owned()).collect::<Vec<_>>())?;
    playwright_core()
}

/// pip, by which wheels are fetched; installed if it is missing.
pub(crate) fn pip() -> Result<PathBuf> {
    let find = || process::find("pip3").or_else(|| process::find("pip"));
    if find().is_none() {
        apt_install(&["python3-pip".to_owned()])?;
    }
    find().ok_or_else(|| Error::Unmet("python3-pip brought no pip3".to_owned()))
}

/// Installs what is missing to build container images.
pub fn image_builder() -> Result<()> {
    if process::find("buildah").is_none() {
        apt_install(&["buildah".to_owned()])?;
    }
    Ok(())
}

/// Installs what is missing to make a Debian in a folder.
pub(crate) fn root_maker() -> Result<()> {
    if process::find("debootstrap").is_none() {
        apt_install(&["debootstrap".to_owned()])?;
    }
    Ok(())
}

/// Builds the extension and the shim, and installs the extension into Postgres's folders.
pub fn build(flavour: Flavour) -> Result<Built> {
    let target = Target::of(cluster::pg_config())?;
    let built = workspace::build(flavour, &target)?;
    extension::install(&extension::files(&built.library)?, &target)?;
    Ok(built)
}

/// The server and the headers of the newest version there is: of those installed, or else of those that apt offers.
fn postgres_packages() -> Result<[String; 2]> {
    let mut majors = cluster::MAJORS.to_vec();
    if majors.iter().any(|&major| cluster::is_installed(major)) {
        majors.retain(|&major| cluster::is_installed(major));
    } else {
        process::run(apt_get().arg("update"))?;
        majors.retain(|major| is_offered(&format!("postgresql-{major}")));
    }
    let newest = majors.first().ok_or_else(|| {
        Error::Unmet(format!("apt has none of Postgres {:?}, and none is installed", cluster::MAJORS))
    })?;
    Ok([format!("postgresql-{newest}"), format!("postgresql-server-dev-{newest}")])
}

/// Whether apt can install a package.
fn is_offered(package: &str) -> bool {
    let answer = Command::new("apt-cache").args(["show", "--no-all-versions", package]).output();
    answer.is_ok_and(|answer| answer.status.success() && !answer.stdout.is_empty())
}

fn apt_install(missing: &[String]) -> Result<()> {
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

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}
