//! `cargo xtask up`: everything running, for development.

use clap::Args;
use xtask::build::Flavour;
use xtask::stages::Stages;
use xtask::{Result, signals};

use super::service::Service;

#[derive(Args)]
pub(crate) struct Arguments {
    /// Build with optimizations, as for users
    #[arg(long)]
    release: bool,
}

/// Starts the service and keeps it until Ctrl-C.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let flavour = if arguments.release { Flavour::Release } else { Flavour::Dev };
    let service = Service::start(flavour, &mut Stages::default())?;
    service.print_ways_in();
    println!("\nCtrl-C ends it and removes everything.");
    signals::wait();
    Ok(())
}
