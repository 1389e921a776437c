//! What has to be on the machine: Debian packages, the extension itself in Postgres's folders, and a browser and checkers
//! for the tests.
//!
//! Each is looked for first: on a machine that has everything, nothing changes and no network is used.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::build::{self, Built, Flavour};
use crate::extension::{self, Target};
use crate::workspace::{cargo, root, target_directory};
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
/// What npm reads, in a folder of the repository and where it installs. The packages are the last that run on Node 18,
/// which is Debian 12's.
const NPM_FILES: &[&str] = &["package.json", "package-lock.json", ".npmrc"];
/// A copy of the lock file, written next to the packages once npm has installed all of them.
const NPM_DONE: &str = "installed-package-lock.json";

/// The TypeScript client.
const TYPESCRIPT_CLIENT: &str = "clients/typescript";

/// What pip reads, and where it installs.
const PIP_REQUIREMENTS: &str = "tests/openapi/requirements.txt";
/// A copy of the requirements, written into the venv once pip has installed all of them.
const PIP_DONE: &str = "installed-requirements.txt";

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

/// Installs what is missing to drive a browser, and returns the folder that has playwright-core and axe-core in it, below the
/// target folder, so that the source tree stays as it is.
pub fn browser() -> Result<PathBuf> {
    let missing = BROWSER_PROGRAMS.iter().filter(|(program, _)| process::find(program).is_none());
    apt_install(&missing.map(|&(_, package)| package.to_owned()).collect::<Vec<_>>())?;
    playwright_core()
}

/// Installs what is missing to test the shim behind a connection pooler. Debian's package starts one on port 6432, which
/// nothing here uses.
pub fn pooler() -> Result<()> {
    if process::find("pgbouncer").is_some() || is_installed("pgbouncer") {
        return Ok(());
    }
    apt_install(&["pgbouncer".to_owned()])
}

/// Installs what is missing to run the service that the shim is compared with, and returns the folder of its server.mjs.
pub fn peer() -> Result<PathBuf> {
    let programs = BROWSER_PROGRAMS.iter().filter(|(program, _)| *program != "chromium");
    let missing = programs.filter(|(program, _)| process::find(program).is_none());
    apt_install(&missing.map(|&(_, package)| package.to_owned()).collect::<Vec<_>>())?;
    let (source, folder) = (root().join("bench/peer-node"), target_directory()?.join("peer-node"));
    npm_ci(&source, &folder)?;
    let server = folder.join("server.mjs");
    fs::copy(source.join("server.mjs"), &server).map_err(Error::file(server))?;
    Ok(folder)
}

/// Builds the TypeScript client in a copy of its folder below the target folder, with what its tests need, and returns
/// the copy.
pub fn typescript_client() -> Result<PathBuf> {
    let folder = target_directory()?.join("typescript");
    npm_ci(&root().join(TYPESCRIPT_CLIENT), &folder)?;
    for inner in ["src", "test", "dist"] {
        // What was renamed or removed must not stay.
        match fs::remove_dir_all(folder.join(inner)) {
            Err(fault) if fault.kind() != ErrorKind::NotFound => {
                return Err(Error::file(folder.join(inner))(fault));
            }
            _ => {}
        }
    }
    process::run(Command::new("cp").arg("-R").arg(root().join(TYPESCRIPT_CLIENT).join(".")).arg(&folder))?;
    process::run(Command::new("npm").args(["run", "--silent", "build"]).current_dir(&folder))?;
    Ok(folder)
}

/// Installs what is missing to check openapi.yaml, in a venv below the target folder, and returns the program.
pub fn schemathesis() -> Result<PathBuf> {
    let has_venv = Command::new("python3").args(["-c", "import ensurepip, venv"]).output();
    if !has_venv.is_ok_and(|answer| answer.status.success()) {
        apt_install(&["python3-venv".to_owned()])?;
    }
    let (requirements, venv) = (root().join(PIP_REQUIREMENTS), target_directory()?.join("schemathesis"));
    let wanted = fs::read(&requirements).map_err(Error::file(&requirements))?;
    let done = venv.join(PIP_DONE);
    if !fs::read(&done).is_ok_and(|installed| installed == wanted) {
        process::run(Command::new("python3").args(["-m", "venv", "--clear"]).arg(&venv))?;
        let mut pip = Command::new(venv.join("bin/pip"));
        pip.args(["install", "--quiet", "--no-input", "--disable-pip-version-check", "--requirement"]);
        process::run(pip.arg(&requirements))?;
        fs::write(&done, wanted).map_err(Error::file(done))?;
    }
    Ok(venv.join("bin/schemathesis"))
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
    let built = build::build(flavour, &target)?;
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
    let folder = target_directory()?.join("browser");
    npm_ci(&root().join("tests/browser"), &folder)?;
    Ok(folder)
}

/// Installs the packages that a folder's lock file names into another folder, unless they are there.
fn npm_ci(source: &Path, folder: &Path) -> Result<()> {
    let lock = source.join("package-lock.json");
    let lock = fs::read(&lock).map_err(Error::file(lock))?;
    let done = folder.join(NPM_DONE);
    if fs::read(&done).is_ok_and(|installed| installed == lock) {
        return Ok(());
    }
    fs::create_dir_all(folder).map_err(Error::file(folder))?;
    for name in NPM_FILES {
        fs::copy(source.join(name), folder.join(name)).map_err(Error::file(folder.join(name)))?;
    }
    // The packages' own scripts could download browsers.
    let flags = ["--ignore-scripts", "--no-audit", "--no-fund", "--no-update-notifier"];
    process::run(Command::new("npm").arg("ci").args(flags).current_dir(folder))?;
    fs::write(&done, lock).map_err(Error::file(done))
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}
