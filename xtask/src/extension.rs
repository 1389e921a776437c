//! The extension's files: the library, the control file and the SQL, as a Postgres of one major version takes them.
//!
//! This is what `cargo pgrx install` and `cargo pgrx package` do, by the same library, without the minutes that
//! installing cargo-pgrx takes: pgrx writes the schema into a section of the library, and its crate
//! pgrx-sql-entity-graph turns that into SQL.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use object::{Object as _, ObjectSection as _};
use pgrx_sql_entity_graph::{ControlFile, PgrxSql, SqlGraphEntity, section};

use crate::workspace::root;
use crate::{Error, Result, process};

/// The extension, its library and the prefix of its files.
pub const NAME: &str = "stripe_credits";
/// Every crate of the workspace has this version, and `@CARGO_VERSION@` in the control file stands for it.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// A Postgres to build for, described by its pg_config.
#[derive(Clone, Debug)]
pub struct Target {
    /// The program that describes it.
    pub pg_config: PathBuf,
    /// Its major version, such as 15.
    pub major: u32,
}

/// Which of Postgres's folders a file belongs into.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Folder {
    /// pg_config's PKGLIBDIR.
    Library,
    /// The folder `extension` in pg_config's SHAREDIR.
    Extension,
}

/// One file of the extension.
#[derive(Clone, Debug)]
pub struct File {
    /// Where it belongs.
    pub folder: Folder,
    /// Its name there.
    pub name: String,
    /// What is in it.
    pub contents: Vec<u8>,
}

impl Target {
    /// The Postgres that a pg_config describes.
    pub fn of(pg_config: PathBuf) -> Result<Self> {
        let version = process::output(Command::new(&pg_config).arg("--version"))?;
        // `PostgreSQL 15.14 (Debian 15.14-0+deb12u1)`, `PostgreSQL 18beta1`
        let digits =
            version.split(' ').nth(1).unwrap_or_default().split(|c: char| !c.is_ascii_digit()).next();
        let major = digits.and_then(|digits| digits.parse().ok());
        let unreadable = || Error::Unmet(format!("{} has no version: {version}", pg_config.display()));
        Ok(Self { major: major.ok_or_else(unreadable)?, pg_config })
    }

    /// The folder of its programs.
    #[must_use]
    pub fn bin(&self) -> PathBuf {
        self.pg_config.parent().map(Path::to_owned).unwrap_or_default()
    }

    /// Where one of its folders is.
    fn folder(&self, folder: Folder) -> Result<PathBuf> {
        let question = match folder {
            Folder::Library => "--pkglibdir",
            Folder::Extension => "--sharedir",
        };
        let answer = process::output(Command::new(&self.pg_config).arg(question))?;
        let path = PathBuf::from(answer.trim_end());
        Ok(if folder == Folder::Extension { path.join("extension") } else { path })
    }
}

/// All files of the extension, from its built library.
pub fn files(library: &Path) -> Result<Vec<File>> {
    let contents = fs::read(library).map_err(Error::file(library))?;
    let schema = schema(&contents)?;
    let mut files = vec![
        File { folder: Folder::Library, name: format!("{NAME}.so"), contents },
        extension_file(&format!("{NAME}.control"), &control()?),
        extension_file(&format!("{NAME}--{VERSION}.sql"), &schema),
    ];
    for script in upgrade_scripts()? {
        let text = fs::read_to_string(&script).map_err(Error::file(&script))?;
        let name = script.file_name().unwrap_or_default().to_string_lossy().into_owned();
        files.push(extension_file(&name, &text));
    }
    Ok(files)
}

/// Writes the files into the folders of a Postgres, by sudo if they are not ours to write.
pub fn install(files: &[File], target: &Target) -> Result<()> {
    let staging = tempfile::Builder::new().prefix("stripe-credits-install-").tempdir();
    let staging = staging.map_err(Error::file("the temporary folder"))?;
    for file in files {
        let staged = staging.path().join(&file.name);
        fs::write(&staged, &file.contents).map_err(Error::file(&staged))?;
        let folder = target.folder(file.folder)?;
        // install removes the old file first, so that servers that have the old library mapped keep it.
        let mut command = Command::new(if is_writable(&folder) { "install" } else { "sudo" });
        if !is_writable(&folder) {
            command.arg("install");
        }
        process::run(command.args(["-m", "644"]).arg(&staged).arg(folder.join(&file.name)))?;
    }
    Ok(())
}

fn extension_file(name: &str, text: &str) -> File {
    File { folder: Folder::Extension, name: name.to_owned(), contents: text.as_bytes().to_vec() }
}

/// The control file, with the version in it.
fn control() -> Result<String> {
    let path = control_path();
    let text = fs::read_to_string(&path).map_err(Error::file(path))?;
    Ok(text.replace("@CARGO_VERSION@", VERSION))
}

/// The script that `create extension` runs.
fn schema(library: &[u8]) -> Result<String> {
    let failed = |error: &dyn std::fmt::Display| Error::Unmet(format!("the extension's schema: {error}"));
    let object = object::File::parse(library).map_err(|error| failed(&error))?;
    let section = object
        .sections()
        .find(|section| section.name().is_ok_and(section::is_schema_section_name))
        .ok_or_else(|| failed(&"the library has no section with it"))?;
    let section = section.data().map_err(|error| failed(&error))?;
    let control = ControlFile::from_path_with_cargo_version(control_path(), VERSION);
    let mut entities = vec![SqlGraphEntity::ExtensionRoot(control.map_err(|error| failed(&error))?)];
    entities.extend(section::decode_entities(section).map_err(|error| failed(&error))?);
    // The control file names the library, without its version.
    let sql = PgrxSql::build(entities.into_iter(), NAME.to_owned(), false);
    sql.and_then(|sql| sql.to_sql()).map_err(|error| failed(&format!("{error:#}")))
}

/// The scripts of extension/sql, `stripe_credits--FROM--TO.sql`, in the order of their names.
fn upgrade_scripts() -> Result<Vec<PathBuf>> {
    let folder = root().join("extension/sql");
    let entries = fs::read_dir(&folder).map_err(Error::file(&folder))?;
    let mut scripts: Vec<PathBuf> = entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.extension().is_some_and(|extension| extension == "sql"))
        .collect();
    scripts.sort();
    Ok(scripts)
}

fn control_path() -> PathBuf {
    root().join("extension").join(format!("{NAME}.control"))
}

fn is_writable(folder: &Path) -> bool {
    rustix::fs::access(folder, rustix::fs::Access::WRITE_OK).is_ok()
}
