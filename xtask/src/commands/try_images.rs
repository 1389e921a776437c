//! `cargo xtask try-images`: the Dockerfiles, built and started by the commands of docs/install.md, without an engine and
//! without a registry.
//!
//! buildah builds them. One small Debian with its Postgres stands in for the base images, under their names: that
//! proves the Dockerfiles, and what is in the images beside their bases.

use std::fs;
use std::path::Path;
use std::process::Command;

use xtask::build::Flavour;
use xtask::stages::Stages;
use xtask::workspace::root;
use xtask::{Error, Result, debian_root, install, process};

use super::package;
use super::try_packages::{Suite, shell_blocks};

/// What stands in for the base images.
const STAND_IN: Suite = Suite::Bookworm;
/// The base images that the Dockerfiles and the page name, but distroless's.
const BASES: &str = "docker.io/library/postgres:15-bookworm docker.io/library/debian:bookworm-slim \
                     docker.io/supabase/postgres:15.8.1.085 ghcr.io/cloudnative-pg/postgresql:15-standard-bookworm";
/// The page's commands, by section, with the names by which the script calls them.
const SECTIONS: &[(&str, &[&str])] = &[
    ("## Container images", &["build", "up", "purchase"]),
    ("## Self-hosted Supabase", &["supabase_build", "supabase_create"]),
    ("## CloudNativePG", &["extension_build", "cnpg_build"]),
];
const SCRIPT: &str = include_str!("try_images.sh");
/// The first purchase of an image, as psql prints it.
const CREDITED: &str = "5f2c0d8e-93a1-4c7b-8d15-2b6f0c1e9a47 |             500";
/// The images with a database, in each of which there is one.
const DATABASES: usize = 3;

/// Builds and starts each image; a signed webhook becomes credits in those with a database.
pub(crate) fn run() -> Result<()> {
    let mut stages = Stages::default();
    stages.run("tools: apt packages", || {
        install::tools()?;
        install::image_builder()
    })?;
    let archive = stages.run("Debian", || debian_root::archive(STAND_IN.name(), &STAND_IN.packages()))?;
    let scratch = tempfile::tempdir().map_err(Error::file("the temporary folder"))?;
    let checkout = scratch.path().join("checkout");
    let packages = checkout.join("target/packages");
    package::write(&[STAND_IN.postgres()], Flavour::Dev, 1, &packages, &mut stages)?;
    for name in ["packaging", "catalog.example.json"] {
        process::run(Command::new("cp").arg("-r").arg(root().join(name)).arg(&checkout))?;
    }
    let store = scratch.path().join("store");
    fs::create_dir(&store).map_err(Error::file(&store))?;
    let script = scratch.path().join("script");
    let text = script_text(&archive, &store)?;
    fs::write(&script, text).map_err(Error::file(&script))?;

    // What it starts ends with it, and its ports are its own.
    let mut command = Command::new("unshare");
    command.args(["--mount", "--net", "--pid", "--fork", "--kill-child", "--mount-proc", "bash"]);
    command.arg(&script).current_dir(&checkout);
    let said = stages.run("build and start the images", || process::output(&mut command))?;
    let credited = said.matches(CREDITED).count();
    if credited != DATABASES {
        return Err(Error::Unmet(format!(
            "a purchase was credited in {credited} images of {DATABASES}:\n{said}"
        )));
    }
    stages.summarize();
    Ok(())
}

/// The script, with what it finds set before it.
fn script_text(archive: &Path, store: &Path) -> Result<String> {
    let page = root().join("docs/install.md");
    let page = fs::read_to_string(&page).map_err(Error::file(page))?;
    let mut text = format!(
        "archive={}\nstore={}\nmajor={}\nbases='{BASES}'\n",
        archive.display(),
        store.display(),
        STAND_IN.postgres()
    );
    for (heading, names) in SECTIONS {
        let blocks = shell_blocks(&page, heading);
        if blocks.len() != names.len() {
            return Err(Error::Unmet(format!("docs/install.md has {} commands in {heading}", blocks.len())));
        }
        for (name, block) in names.iter().zip(blocks) {
            text.extend(["page_", name, "() {\n", &of_the_stand_in(&block), "}\n"]);
        }
    }
    Ok(text + SCRIPT)
}

/// The stand-in has one version of Postgres.
fn of_the_stand_in(block: &str) -> String {
    let major = STAND_IN.postgres();
    ["17", "18"].iter().fold(block.to_owned(), |block, named| {
        let block = block.replace(&format!(":{named}"), &format!(":{major}"));
        block.replace(&format!("PG_MAJOR={named}"), &format!("PG_MAJOR={major}"))
    })
}
