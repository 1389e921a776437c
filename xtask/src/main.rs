//! `cargo xtask`: the commands of this repository. Each is a module of [`commands`]; how they install, start and
//! stop things is the library's.

mod commands;

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use xtask::{Error, Result, signals};

use crate::commands::{
    bench, checklist, demo, install, package, test, tools, torture, try_images, try_packages, up,
};

/// What shells expect of a command that Ctrl-C ended.
const EXIT_INTERRUPTED: u8 = 130;

/// Installs what is missing, builds, starts and proves `stripe_credits`
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Watch signed Stripe events become credits in a real Postgres
    Demo(demo::Arguments),
    /// Run every test
    Test(test::Arguments),
    /// Build the extension with optimizations and install it into a Postgres
    Install(install::Arguments),
    /// Make Debian packages and tarballs of the extension and the shim
    Package(package::Arguments),
    /// Install, start, upgrade and remove the packages in a Debian made for that
    TryPackages(try_packages::Arguments),
    /// Build the Dockerfiles on stand-in base images, and start what they make
    TryImages,
    /// Start a cluster and the shim for development, until Ctrl-C
    Up(up::Arguments),
    /// Install what the other commands and the checks need
    Tools,
    /// Play the first twelve scenarios at Stripe, in test mode, with the key in `STRIPE_SECRET_KEY`
    Checklist(checklist::Arguments),
    /// Measure, as ratios to a baseline in the same run
    Bench(bench::Arguments),
    /// Sell and spend while everything fails, and prove the books at the end
    Torture(torture::Arguments),
}

fn main() -> ExitCode {
    match run(Cli::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(Error::Interrupted) => ExitCode::from(EXIT_INTERRUPTED),
        Err(error) => {
            eprintln!("xtask: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Everything that a command started is dropped, and so gone, when this returns.
fn run(command: Command) -> Result<()> {
    signals::listen()?;
    match command {
        Command::Demo(arguments) => demo::run(&arguments),
        Command::Test(arguments) => test::run(&arguments),
        Command::Install(arguments) => install::run(&arguments),
        Command::Package(arguments) => package::run(&arguments),
        Command::TryPackages(arguments) => try_packages::run(&arguments),
        Command::TryImages => try_images::run(),
        Command::Up(arguments) => up::run(&arguments),
        Command::Tools => tools::run(),
        Command::Checklist(arguments) => checklist::run(&arguments),
        Command::Bench(arguments) => bench::run(&arguments),
        Command::Torture(arguments) => torture::run(&arguments),
    }
}
