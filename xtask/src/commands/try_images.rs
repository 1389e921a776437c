//! `cargo xtask try-images`: the Dockerfiles, built by the commands of docs/install.md and started, without an engine and
//! without a registry.
//!
//! buildah builds them. One small Debian with its Postgres stands in for every base image, under their names: that
//! proves the Dockerfiles and what is in the images, not the base images.

use std::fs;
use std::process::Command;

use xtask::debian_root;
use xtask::stages::Stages;
use xtask::workspace::{Flavour, root};
use xtask::{Error, Result, install, process};

use super::package;
use super::try_packages::{DEBIAN_PACKAGES, MAJOR, SUITE, shell_blocks};

/// The base images that the Dockerfiles and the page name.
const BASES: &[&str] = &[
    "docker.io/library/postgres:15-bookworm",
    "docker.io/library/debian:bookworm-slim",
    "gcr.io/distroless/cc-debian12:latest",
    "localhost/supabase/postgres:15.8.1.085",
    "ghcr.io/cloudnative-pg/postgresql:15-standard-bookworm",
];
/// The sections with images.
const SECTIONS: &[&str] = &["## Container images", "## Self-hosted Supabase", "## CloudNativePG"];

/// Builds and starts each image; a signed webhook becomes credits in those with a database.
pub(crate) fn run() -> Result<()> {
    let mut stages = Stages::default();
    stages.run("tools: apt packages", || {
        install::tools()?;
        install::image_builder()
    })?;
    let archive = stages.run("Debian", || debian_root::archive(SUITE, DEBIAN_PACKAGES))?;
    let scratch = tempfile::tempdir().map_err(Error::file("the temporary folder"))?;
    let folder = scratch.path().join("packages");
    package::write(&[MAJOR], Flavour::Dev, 1, &folder, &mut stages)?;

    let page = root().join("docs/install.md");
    let page = fs::read_to_string(&page).map_err(Error::file(page))?;
    let blocks: Vec<String> = SECTIONS.iter().flat_map(|heading| shell_blocks(&page, heading)).collect();
    let builds: Vec<&str> =
        blocks.iter().flat_map(|block| block.lines()).filter(|line| is_build(line)).collect();
    if builds.len() != 5 {
        return Err(Error::Unmet(format!("docs/install.md builds {} images", builds.len())));
    }
    // Debian 12 has only this version.
    let builds = builds.join("\n").replace(":17", ":15").replace(":18", ":15");
    let builds = builds.replace("PG_MAJOR=17", "PG_MAJOR=15").replace("PG_MAJOR=18", "PG_MAJOR=15");
    let builds = builds.replace("target/packages", &folder.display().to_string());

    let script = scratch.path().join("script");
    let bases = BASES.join(" ");
    let text = format!("archive={}\nbases='{bases}'\n{SETUP}\n{builds}\n{STARTS}", archive.display());
    fs::write(&script, text).map_err(Error::file(&script))?;
    let mut command = Command::new("unshare");
    command.args(["--mount", "--net", "--pid", "--fork", "--kill-child", "--mount-proc", "bash"]);
    command.arg(&script).current_dir(root()).env("STORE", scratch.path().join("store"));
    let said = stages.run("build and start the images", || process::output(&mut command))?;
    let credited = said.matches("5f2c0d8e-93a1-4c7b-8d15-2b6f0c1e9a47|500").count();
    if credited != 3 {
        return Err(Error::Unmet(format!("a purchase was credited in {credited} images of 3:\n{said}")));
    }
    stages.summarize();
    Ok(())
}

fn is_build(line: &str) -> bool {
    line.starts_with("docker build ")
}

/// Before the page's commands: the stand-in under all names, and docker as buildah.
const SETUP: &str = r#"set -euo pipefail
ip link set lo up
export STORAGE_DRIVER=vfs BUILDAH_ISOLATION=chroot
b() { buildah --root "$STORE/root" --runroot "$STORE/run" "$@"; }
docker() { test "$1" = build; shift; b bud --pull-never --quiet "$@" > /dev/null; }
stand_in=$(b from scratch)
b add --quiet "$stand_in" "$archive" / > /dev/null
b config --env PATH=/usr/lib/postgresql/15/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin "$stand_in"
b commit --quiet --rm "$stand_in" stand-in > /dev/null
b tag stand-in $bases
"#;

/// After them: each image with a Postgres is started as its own entry point would, and the shim in front of it.
const STARTS: &str = r#"
files=$(b from --pull-never localhost/stripe-credits-extension:15)
mounted=$(b mount "$files")
ls "$mounted/lib/stripe_credits.so" "$mounted/share/extension/stripe_credits.control"
b rm "$files" > /dev/null

shim=$(b from --pull-never localhost/stripe-credits:0.1.0)
port=5500
purchase() { # IMAGE SUPERUSER
    postgres=$(b from --pull-never "localhost/$1")
    port=$((port + 1))
    in_postgres() { b run --user postgres "$postgres" -- "$@"; }
    b run --user root "$postgres" -- install -d -o postgres /data
    in_postgres initdb -D /data -U "$2" --auth=trust > /dev/null
    in_postgres postgres -D /data -p $port -c unix_socket_directories=/data > "$STORE/log" 2>&1 &
    server=$!
    until in_postgres pg_isready -q -h 127.0.0.1 -p $port; do sleep 0.2; done
    if b run --user root "$postgres" -- test -e /docker-entrypoint-initdb.d/10-stripe-credits.sql; then
        in_postgres psql -v ON_ERROR_STOP=1 -q -h 127.0.0.1 -p $port -U "$2" postgres \
            -f /docker-entrypoint-initdb.d/10-stripe-credits.sql
    else
        in_postgres psql -v ON_ERROR_STOP=1 -q -h 127.0.0.1 -p $port -U "$2" -d postgres \
            -c 'create extension stripe_credits'
    fi
    in_shim() {
        b run --env DATABASE_URL="postgres://$url@127.0.0.1:$port/postgres" --env STRIPE_WEBHOOK_SECRET=whsec_test \
            --volume "$PWD/catalog.example.json:/catalog.json:ro" "$shim" -- /usr/bin/stripe-credits "$@"
    }
    url=$2
    in_shim catalog push /catalog.json > /dev/null
    in_shim serve > "$STORE/shim.log" 2>&1 &
    service=$!
    until (exec 3<>/dev/tcp/127.0.0.1/8787) 2>/dev/null; do sleep 0.2; done
    in_shim send-test-event --user 5f2c0d8e-93a1-4c7b-8d15-2b6f0c1e9a47 --price price_pack
    in_postgres psql -qAt -h 127.0.0.1 -p $port -U "$2" postgres \
        -c 'select user_id, credits_balance from billing.user_credits'
    kill $service $server
    wait $service $server || true
    while (exec 3<>/dev/tcp/127.0.0.1/8787) 2>/dev/null; do sleep 0.2; done
    b rm "$postgres" > /dev/null
}
purchase stripe-credits-postgres:15 postgres
purchase stripe-credits-supabase:15 supabase_admin
purchase stripe-credits-cnpg:15 postgres
"#;
