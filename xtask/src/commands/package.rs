//! `cargo xtask package`: Debian packages and tarballs of the extension, for each Postgres, and of the shim.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use clap::Args;
use xtask::build::{Built, Flavour, build};
use xtask::extension::{self, File, Folder, VERSION};
use xtask::packages::{self, Control, EXECUTABLE, PRIVATE, READABLE, SUMS, Tree};
use xtask::stages::Stages;
use xtask::workspace::{root, target_directory};
use xtask::{Error, Result, install, pg_binaries, process};

/// The libraries that the extension's may need: libc's, and the one by which Rust unwinds, which comes with it.
const LIBRARIES: &[&str] = &["libc.so.6", "libm.so.6", "libgcc_s.so.1", "ld-linux-x86-64.so.2"];
/// The folder of the repository with what packages have beside the programs.
const UNITS: &str = "packaging/systemd";
const SAMPLE_CATALOG: &str = "catalog.example.json";
const DOCUMENTATION: &[&str] = &["LICENSE", "README.md", "CHANGELOG.md"];

#[derive(Args)]
pub(crate) struct Arguments {
    /// The major versions of Postgres
    #[arg(long, value_delimiter = ',', default_value = "15,16,17,18", value_parser = clap::value_parser!(u32).range(15..=18))]
    pg: Vec<u32>,
    /// Build without optimizations: quickly, for trying the packages
    #[arg(long)]
    dev: bool,
    /// Debian's part of the version: higher for each further build of one version
    #[arg(long, default_value_t = 1)]
    revision: u32,
    /// The folder to write to [default: packages, in the target folder]
    #[arg(long, value_name = "FOLDER")]
    to: Option<PathBuf>,
}

/// Builds everything as users get it, and writes the packages.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let mut stages = Stages::default();
    stages.run("tools: apt packages", install::tools)?;
    let to = match &arguments.to {
        Some(folder) => folder.clone(),
        None => target_directory()?.join("packages"),
    };
    let flavour = if arguments.dev { Flavour::Dev } else { Flavour::Release };
    let written = write(&arguments.pg, flavour, arguments.revision, &to, &mut stages)?;
    stages.summarize();
    for file in written {
        println!("{}", file.display());
    }
    Ok(())
}

/// Builds for these versions of Postgres, and writes the packages to a folder. Returns their paths.
pub(crate) fn write(
    majors: &[u32],
    flavour: Flavour,
    revision: u32,
    to: &Path,
    stages: &mut Stages,
) -> Result<Vec<PathBuf>> {
    fs::create_dir_all(to).map_err(Error::file(to))?;
    packages::remove_others(to, revision)?;
    let mut written = Vec::new();
    for (index, &major) in majors.iter().enumerate() {
        let built = stages.run(&format!("Postgres {major}: build"), || {
            build(flavour, &pg_binaries::target_or_ours(major)?)
        })?;
        written.extend(extension_packages(major, revision, &built, to)?);
        if index == 0 {
            written.extend(shim_packages(revision, &built, to)?);
        }
    }
    let meta = to.join("META.json");
    fs::copy(root().join("META.json"), &meta).map_err(Error::file(&meta))?;
    written.push(meta);
    write_sums(&written, to)?;
    Ok(written)
}

/// The extension as Debian and PGDG lay it out, and as a tarball whose two folders are pg_config's.
fn extension_packages(major: u32, revision: u32, built: &Built, to: &Path) -> Result<[PathBuf; 2]> {
    check_libraries(&built.library)?;
    let files = extension::files(&built.library)?;
    let library_folder = format!("usr/lib/postgresql/{major}/lib");
    let tree = Tree::new()?;
    add_extension(&tree, &files, &library_folder, &format!("usr/share/postgresql/{major}/extension"))?;
    let control = Control {
        package: format!("postgresql-{major}-stripe-credits"),
        revision,
        depends: vec![format!("postgresql-{major}")],
        summary: "Stripe payments become credits inside Postgres",
        description: "Applies each Stripe event in one transaction: late, repeated, in parallel or in any order, with\n \
                      the same balances at the end. After an upgrade: alter extension stripe_credits update",
    };
    let library = format!("{library_folder}/{}.so", extension::NAME);
    let package = tree.debian_package(&control, &[&library], to)?;

    let tree = Tree::new()?;
    add_extension(&tree, &files, "lib", "extension")?;
    add_documentation(&tree)?;
    let name = format!("postgresql-{major}-stripe-credits-{VERSION}-{}-linux", std::env::consts::ARCH);
    Ok([package, tree.tarball(&name, to)?])
}

fn add_extension(tree: &Tree, files: &[File], library: &str, extension: &str) -> Result<()> {
    for file in files {
        match file.folder {
            Folder::Library => {
                tree.add_stripped(&format!("{library}/{}", file.name), &file.contents, READABLE)?;
            }
            Folder::Extension => tree.add(&format!("{extension}/{}", file.name), &file.contents, READABLE)?,
        }
    }
    Ok(())
}

/// The shim with its systemd units and its configuration.
fn shim_packages(revision: u32, built: &Built, to: &Path) -> Result<[PathBuf; 2]> {
    let program = fs::read(&built.shim).map_err(Error::file(&built.shim))?;
    let tree = Tree::new()?;
    tree.add_stripped("usr/bin/stripe-credits", &program, EXECUTABLE)?;
    tree.copy("etc/stripe-credits.env", "packaging/stripe-credits.env", PRIVATE)?;
    tree.add("DEBIAN/conffiles", b"/etc/stripe-credits.env\n", READABLE)?;
    for script in ["postinst", "prerm", "postrm"] {
        tree.copy(&format!("DEBIAN/{script}"), &format!("packaging/debian/{script}"), EXECUTABLE)?;
    }
    add_units(&tree, "usr/lib/systemd/system")?;
    tree.copy("usr/share/doc/stripe-credits/catalog.example.json", SAMPLE_CATALOG, READABLE)?;
    let control = Control {
        package: "stripe-credits".to_owned(),
        revision,
        // `passwd` for the postinst's useradd.
        depends: vec!["ca-certificates".to_owned(), "passwd".to_owned()],
        summary: "Stripe's webhooks for the Postgres extension stripe_credits",
        description: "Verifies Stripe's webhooks and hands them to the extension; serves checkout and balances to an app.",
    };
    let package = tree.debian_package(&control, &["usr/bin/stripe-credits"], to)?;

    let tree = Tree::new()?;
    tree.add_stripped("bin/stripe-credits", &program, EXECUTABLE)?;
    tree.copy(SAMPLE_CATALOG, SAMPLE_CATALOG, READABLE)?;
    tree.copy("stripe-credits.env", "packaging/stripe-credits.env", PRIVATE)?;
    add_units(&tree, "systemd")?;
    add_documentation(&tree)?;
    let name = format!("stripe-credits-{VERSION}-{}-linux", std::env::consts::ARCH);
    Ok([package, tree.tarball(&name, to)?])
}

fn add_units(tree: &Tree, folder: &str) -> Result<()> {
    let units = root().join(UNITS);
    for entry in fs::read_dir(&units).map_err(Error::file(&units))? {
        let name = entry.map_err(Error::file(&units))?.file_name().to_string_lossy().into_owned();
        tree.copy(&format!("{folder}/{name}"), &format!("{UNITS}/{name}"), READABLE)?;
    }
    Ok(())
}

fn add_documentation(tree: &Tree) -> Result<()> {
    DOCUMENTATION.iter().try_for_each(|name| tree.copy(name, name, READABLE))
}

/// An error if the library would need others that a Postgres server does not have anyway.
fn check_libraries(library: &Path) -> Result<()> {
    let headers = process::output(Command::new("objdump").arg("--private-headers").arg(library))?;
    let needed = headers.lines().filter_map(|line| line.trim().strip_prefix("NEEDED"));
    match needed.map(str::trim).find(|name| !LIBRARIES.contains(name)) {
        None => Ok(()),
        Some(name) => Err(Error::Unmet(format!("{} needs {name}", library.display()))),
    }
}

fn write_sums(files: &[PathBuf], to: &Path) -> Result<()> {
    let names = files.iter().filter_map(|file| file.file_name());
    let sums = process::output(Command::new("sha256sum").args(names).current_dir(to))?;
    let file = to.join(SUMS);
    fs::write(&file, sums).map_err(Error::file(file))
}
