//! What has to be on the machine: Debian packages, cargo-pgrx, the extension itself in Postgres's folders, and a
//! browser for the tests.
//!
//! Each is looked for first: on a machine that has everything, nothing changes and no network is used.

use std::fs;
use std::io::ErrorKind;
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
        apt_install(&["python3-venv"])?;
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

fn is_debians(pg_bin: &Path) -> bool {
    pg_bin == Path::new(DEBIAN_PG_BIN)
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}
