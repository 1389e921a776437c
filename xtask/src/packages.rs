//! Debian packages and tarballs from a tree of files, byte for byte the same each time.
//!
//! What would differ from run to run is set: times are those of the last commit, or SOURCE_DATE_EPOCH; owners are root;
//! names are in order.

use std::fs::{self, File, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime};

use tempfile::TempDir;

use crate::extension::VERSION;
use crate::workspace::root;
use crate::{Error, Result, process};

const MAINTAINER: &str = "The authors of stripe_credits <stripe-credits@packages.invalid>";
/// The file with the packages' hashes, as sha256sum writes and checks it.
pub const SUMS: &str = "SHA256SUMS";
/// A file's modes: as everybody may read it, run it, or only root and its group read it.
pub const READABLE: u32 = 0o644;
/// See [`READABLE`].
pub const EXECUTABLE: u32 = 0o755;
/// See [`READABLE`].
pub const PRIVATE: u32 = 0o640;

/// What a package's control file says of it, beside what is the same for all.
#[derive(Clone, Debug)]
pub struct Control {
    /// Its name.
    pub package: String,
    /// Debian's own part of the version: 1 for the first packages of a version of ours.
    pub revision: u32,
    /// What it needs, beside the libraries that its programs are linked to.
    pub depends: Vec<String>,
    /// One line of at most 60 characters, without an article and a full stop.
    pub summary: &'static str,
    /// A paragraph.
    pub description: &'static str,
}

/// Files as they will lie below `/`.
#[derive(Debug)]
pub struct Tree {
    folder: TempDir,
    epoch: SystemTime,
}

impl Tree {
    /// An empty one.
    pub fn new() -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("stripe-credits-package-").tempdir();
        let folder = folder.map_err(Error::file("the temporary folder"))?;
        set_mode(folder.path(), EXECUTABLE)?;
        Ok(Self { folder, epoch: epoch()? })
    }

    /// Adds a file.
    pub fn add(&self, path: &str, contents: &[u8], mode: u32) -> Result<()> {
        let file = self.folder.path().join(path);
        let mut parent = self.folder.path().to_owned();
        for name in Path::new(path).parent().into_iter().flat_map(Path::components) {
            parent.push(name);
            if !parent.exists() {
                fs::create_dir(&parent).map_err(Error::file(&parent))?;
                set_mode(&parent, EXECUTABLE)?;
            }
        }
        fs::write(&file, contents).map_err(Error::file(&file))?;
        set_mode(&file, mode)
    }

    /// Adds a file of the repository.
    pub fn copy(&self, path: &str, source: &str, mode: u32) -> Result<()> {
        let source = root().join(source);
        self.add(path, &fs::read(&source).map_err(Error::file(source))?, mode)
    }

    /// Adds a library or a program without its symbol tables.
    pub fn add_stripped(&self, path: &str, program: &[u8], mode: u32) -> Result<()> {
        self.add(path, program, mode)?;
        process::run(Command::new("strip").arg("--strip-unneeded").arg(self.folder.path().join(path)))
    }

    /// Makes the Debian package in a folder; `programs` are those in it whose libraries it depends on. Returns its path.
    pub fn debian_package(self, control: &Control, programs: &[&str], to: &Path) -> Result<PathBuf> {
        let document = format!("usr/share/doc/{}", control.package);
        self.copy(&format!("{document}/copyright"), "packaging/debian/copyright", READABLE)?;
        self.copy(&format!("{document}/changelog"), "CHANGELOG.md", READABLE)?;
        // Without the original's name and time.
        let changelog = self.folder.path().join(document).join("changelog");
        process::run(Command::new("gzip").args(["-9", "--no-name"]).arg(changelog))?;
        let depends = [control.depends.clone(), self.libraries(programs)?].concat().join(", ");
        let architecture = process::output(Command::new("dpkg").arg("--print-architecture"))?;
        let architecture = architecture.trim_end();
        let Control { package, revision, summary, description, .. } = control;
        let version = format!("{VERSION}-{revision}");
        let size = self.kilobytes()?;
        let text = format!(
            "Package: {package}\nVersion: {version}\nArchitecture: {architecture}\nMaintainer: {MAINTAINER}\n\
             Installed-Size: {size}\nDepends: {depends}\nSection: database\nPriority: optional\n\
             Description: {summary}\n {description}\n"
        );
        self.add("DEBIAN/control", text.as_bytes(), READABLE)?;
        self.set_times()?;
        let file = to.join(format!("{package}_{version}_{architecture}.deb"));
        let mut command = Command::new("dpkg-deb");
        command.env("SOURCE_DATE_EPOCH", seconds(self.epoch).to_string());
        command
            .args(["--root-owner-group", "-Zxz", "-z3", "--threads-max=1", "--build"])
            .arg(self.folder.path());
        process::output(command.arg(&file))?;
        Ok(file)
    }

    /// Makes the tarball `NAME.tar.gz` in a folder, with everything below a folder NAME. Returns its path.
    pub fn tarball(self, name: &str, to: &Path) -> Result<PathBuf> {
        let (archive, file) = (to.join(format!("{name}.tar")), to.join(format!("{name}.tar.gz")));
        let mut tar = Command::new("tar");
        tar.args(["--create", "--sort=name", "--owner=root:0", "--group=root:0", "--format=gnu"]);
        tar.arg(format!("--mtime=@{}", seconds(self.epoch))).arg(format!("--transform=s,^[.],{name},"));
        process::run(tar.arg("--file").arg(&archive).arg("-C").arg(self.folder.path()).arg("."))?;
        process::run(Command::new("gzip").args(["--no-name", "--force"]).arg(&archive))?;
        Ok(file)
    }

    /// What programs need of libraries, as Debian's own tool reads it from them.
    fn libraries(&self, programs: &[&str]) -> Result<Vec<String>> {
        let scratch = tempfile::tempdir().map_err(Error::file("the temporary folder"))?;
        let debian = scratch.path().join("debian");
        fs::create_dir(&debian).map_err(Error::file(&debian))?;
        // It insists on the control file of a source package.
        let control = debian.join("control");
        fs::write(&control, "Source: stripe-credits\n\nPackage: stripe-credits\nArchitecture: any\n")
            .map_err(Error::file(control))?;
        let mut command = Command::new("dpkg-shlibdeps");
        command.current_dir(scratch.path()).arg("-O");
        command.args(programs.iter().map(|program| self.folder.path().join(program)));
        let answer = process::output(&mut command)?;
        let list = answer.trim_end().strip_prefix("shlibs:Depends=").unwrap_or_default();
        Ok(list.split(", ").map(str::to_owned).collect())
    }

    fn kilobytes(&self) -> Result<u64> {
        let answer = process::output(
            Command::new("du").args(["-k", "-s", "--apparent-size"]).arg(self.folder.path()),
        )?;
        let number = answer.split_whitespace().next().and_then(|number| number.parse().ok());
        number.ok_or_else(|| Error::Unmet(format!("du answered {answer}")))
    }

    fn set_times(&self) -> Result<()> {
        for path in everything_in(self.folder.path())? {
            let file = File::open(&path).map_err(Error::file(&path))?;
            file.set_modified(self.epoch).map_err(Error::file(&path))?;
        }
        Ok(())
    }
}

/// An error if two folders with SHA256SUMS do not have the same files.
pub fn expect_equal(one: &Path, other: &Path) -> Result<()> {
    let sums = |folder: &Path| {
        let file = folder.join(SUMS);
        fs::read_to_string(&file).map_err(Error::file(file))
    };
    let (one, other) = (sums(one)?, sums(other)?);
    if one == other { Ok(()) } else { Err(Error::Unmet(format!("the packages differ:\n{one}\n{other}"))) }
}

/// Removes packages and tarballs of other versions and revisions from a folder: what says `stripe-credits_*.deb`, as the
/// documents and the Dockerfiles do, means one file.
pub fn remove_others(folder: &Path, revision: u32) -> Result<()> {
    let ours = [format!("stripe-credits_{VERSION}-{revision}_"), format!("stripe-credits-{VERSION}-")];
    for entry in fs::read_dir(folder).map_err(Error::file(folder))? {
        let path = entry.map_err(Error::file(folder))?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let is_package =
            name.contains("stripe-credits") && (name.ends_with(".deb") || name.ends_with(".tar.gz"));
        if is_package && !ours.iter().any(|part| name.contains(part)) {
            fs::remove_file(&path).map_err(Error::file(&path))?;
        }
    }
    Ok(())
}

/// The time that all files get.
fn epoch() -> Result<SystemTime> {
    let given = std::env::var("SOURCE_DATE_EPOCH").ok();
    let last_commit =
        || process::output(Command::new("git").args(["log", "-1", "--format=%ct"]).current_dir(root()));
    let text = given.map_or_else(last_commit, Ok)?;
    let epoch = text.trim().parse().map_err(|_| Error::Unmet(format!("SOURCE_DATE_EPOCH is {text:?}")))?;
    Ok(SystemTime::UNIX_EPOCH + Duration::from_secs(epoch))
}

fn seconds(time: SystemTime) -> u64 {
    time.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// A folder and all below it.
fn everything_in(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut paths = vec![folder.to_owned()];
    for entry in fs::read_dir(folder).map_err(Error::file(folder))? {
        let path = entry.map_err(Error::file(folder))?.path();
        if path.is_dir() { paths.extend(everything_in(&path)?) } else { paths.push(path) }
    }
    Ok(paths)
}

/// Sets a file's mode.
pub fn set_mode(path: &Path, mode: u32) -> Result<()> {
    fs::set_permissions(path, Permissions::from_mode(mode)).map_err(Error::file(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packages_of_other_versions_go_and_everything_else_stays() {
        let folder = tempfile::tempdir().unwrap();
        let present = [
            format!("postgresql-15-stripe-credits_{VERSION}-2_amd64.deb"),
            format!("postgresql-18-stripe-credits-{VERSION}-x86_64-linux.tar.gz"),
            format!("stripe-credits-{VERSION}-x86_64-linux.tar.gz"),
            format!("stripe-credits_{VERSION}-2_amd64.deb"),
            "notes-on-stripe-credits.txt".to_owned(),
            "other_0.0.1-1_amd64.deb".to_owned(),
        ];
        let others = [
            format!("stripe-credits_{VERSION}-1_amd64.deb"),
            "postgresql-15-stripe-credits_0.0.9-2_amd64.deb".to_owned(),
            "stripe-credits-0.0.9-x86_64-linux.tar.gz".to_owned(),
        ];
        for name in present.iter().chain(&others) {
            fs::write(folder.path().join(name), "").unwrap();
        }
        remove_others(folder.path(), 2).unwrap();
        let there = |name: &String| folder.path().join(name).exists();
        assert!(present.iter().all(there));
        assert!(!others.iter().any(there));
    }
}
