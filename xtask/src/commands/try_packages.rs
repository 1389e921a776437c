//! `cargo xtask try-packages`: the commands of docs/install.md for Debian packages, run in a Debian or an Ubuntu made for
//! that.

use std::fs;
use std::path::Path;

use clap::{Args, ValueEnum};
use xtask::build::Flavour;
use xtask::debian_root::DebianRoot;
use xtask::stages::Stages;
use xtask::workspace::root;
use xtask::{Error, Result, install, packages};

use super::package;

/// The highest exposure that `systemd-analyze security` may find in a unit, of 100.
const EXPOSURE_LIMIT: u32 = 25;
/// Where the page says "in the folder with the packages".
const FOLDER: &str = "srv";

#[derive(Args)]
pub(crate) struct Arguments {
    /// What they are tried in; debootstrap must know it
    #[arg(long, value_enum, default_value = "bookworm")]
    suite: Suite,
}

/// A release of a system with apt.
#[derive(Clone, Copy, ValueEnum)]
pub(crate) enum Suite {
    /// Debian 12
    Bookworm,
    /// Debian 13
    Trixie,
    /// Ubuntu 24.04
    Noble,
}

impl Suite {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Bookworm => "bookworm",
            Self::Trixie => "trixie",
            Self::Noble => "noble",
        }
    }

    /// The major version of its Postgres.
    pub(crate) fn postgres(self) -> u32 {
        match self {
            Self::Bookworm => 15,
            Self::Trixie => 17,
            Self::Noble => 16,
        }
    }

    /// What is in it before.
    pub(crate) fn packages(self) -> [String; 3] {
        ["ca-certificates".to_owned(), format!("postgresql-{}", self.postgres()), "systemd".to_owned()]
    }
}

/// Makes packages, and installs, starts, upgrades and removes them.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let suite = arguments.suite;
    let major = suite.postgres();
    let mut stages = Stages::default();
    stages.run("tools: apt packages", install::tools)?;
    let script = script(major)?;

    let debian = stages.run("Debian", || DebianRoot::new(suite.name(), &suite.packages()))?;
    let scratch = tempfile::tempdir().map_err(Error::file("the temporary folder"))?;
    let (first, again, newer) =
        (scratch.path().join("first"), scratch.path().join("again"), debian.path().join("newer"));
    for (revision, to) in [(1, &first), (1, &again), (2, &newer)] {
        package::write(&[major], Flavour::Dev, revision, to, &mut stages)?;
    }
    packages::expect_equal(&first, &again)?;
    copy(&first, &debian.path().join(FOLDER))?;
    write_systemctl(&debian)?;

    let said = stages.run("install, start, upgrade, remove", || debian.run(&script))?;
    for expected in [
        "200 OK",
        "|             500",
        " faults \n--------\n      0\n",
        "0.1.0-2",
        "removed",
        " kept \n------\n  500\n",
        " doubled \n---------\n    1000\n",
    ] {
        if !said.contains(expected) {
            return Err(Error::Unmet(format!("the commands did not print {expected:?}:\n{said}")));
        }
    }
    stages.summarize();
    Ok(())
}

/// The page's commands, with checks in between.
fn script(major: u32) -> Result<String> {
    let page = root().join("docs/install.md");
    let page = fs::read_to_string(&page).map_err(Error::file(page))?;
    // As the page says of other versions.
    let page = page.replace("postgresql-15", &format!("postgresql-{major}"));
    let packages = shell_blocks(&page, "## Debian packages");
    let tarballs = shell_blocks(&page, "## Tarballs");
    let ([install, create, configure, purchase, upgrade, remove], [tarballs, serve]) =
        (packages.as_slice(), tarballs.as_slice())
    else {
        let found = (packages.len(), tarballs.len());
        return Err(Error::Unmet(format!(
            "docs/install.md has {found:?} commands for packages and tarballs"
        )));
    };
    Ok(format!(
        "cd /{FOLDER}
         pg_ctlcluster {major} main start
         {install}
         systemd-analyze verify /usr/lib/systemd/system/stripe-credits*
         systemd-analyze security --offline=true --threshold={EXPOSURE_LIMIT} \\
             stripe-credits.service stripe-credits-sweep.service stripe-credits-run-due.service >/dev/null
         {create}
         {configure}
         test \"$(stat -c '%a %G' /etc/stripe-credits.env)\" = '640 stripe-credits'
         {purchase}
         cp /newer/*.deb .
         rm *-1_*.deb
         {upgrade}
         systemctl restart stripe-credits.service
         runuser -u stripe-credits -- stripe-credits run-due
         runuser -u postgres -- psql app -c 'select count(*) as faults from billing.validate_credits_consistency()'
         dpkg-query --show '*stripe-credits*'
         # What the package does where systemd runs.
         kill \"$(cat /run/shim.pid)\"
         {remove}
         ! test -e /etc/stripe-credits.env
         ! find / -xdev -path /{FOLDER} -prune -o -path /newer -prune -o -name '*stripe[-_]credits*' -print | grep .
         echo removed
         PATH=/usr/lib/postgresql/{major}/bin:$PATH
         {tarballs}
         stripe-credits --version
         runuser -u postgres -- psql app -c 'select credits_balance as kept from billing.user_credits'
         {serve}
         kill $!
         runuser -u postgres -- psql app -c 'select credits_balance as doubled from billing.user_credits'\n"
    ))
}

/// The fenced shell commands of a section, in order.
pub(crate) fn shell_blocks(page: &str, heading: &str) -> Vec<String> {
    let section = page.split(&format!("{heading}\n")).nth(1).unwrap_or_default();
    let section = section.split("\n## ").next().unwrap_or_default();
    let fenced = section.split("```sh\n").skip(1);
    fenced.filter_map(|rest| rest.split("```").next().map(str::to_owned)).collect()
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    for entry in fs::read_dir(from).map_err(Error::file(from))? {
        let path = entry.map_err(Error::file(from))?.path();
        let target = to.join(path.file_name().unwrap_or_default());
        fs::copy(&path, &target).map_err(Error::file(target))?;
    }
    Ok(())
}

/// There is no systemd in the folder to start services: its command does what the unit says of user and program.
fn write_systemctl(debian: &DebianRoot) -> Result<()> {
    let script = "\
#!/bin/bash
set -eu
unit=/usr/lib/systemd/system/stripe-credits.service
setting() { sed -n \"s/^$1=//p\" $unit; }
if test -e /run/shim.pid; then kill \"$(cat /run/shim.pid)\"; fi
while (exec 3<>/dev/tcp/127.0.0.1/8787) 2>/dev/null; do sleep 0.1; done
set -a; . \"$(setting EnvironmentFile)\"; set +a
setpriv --reuid \"$(setting User)\" --regid \"$(setting User)\" --init-groups $(setting ExecStart) > /var/log/shim &
echo $! > /run/shim.pid
for try in $(seq 100); do
    if (exec 3<>/dev/tcp/127.0.0.1/8787) 2>/dev/null; then exit; fi
    sleep 0.1
done
echo 'the shim does not listen' >&2
exit 1
";
    let tree = debian.path().join("usr/local/bin/systemctl");
    fs::write(&tree, script).map_err(Error::file(&tree))?;
    packages::set_mode(&tree, packages::EXECUTABLE)
}
