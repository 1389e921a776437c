//! `cargo xtask demo`: a short story, played for real and checked at every step.

use clap::Args;
use xtask::stages::Stages;
use xtask::workspace::Flavour;
use xtask::{Result, signals};

use super::service::Service;
use super::story::Story;

#[derive(Args)]
pub(crate) struct Arguments {
    /// Leave it running afterwards, until Ctrl-C
    #[arg(long)]
    keep: bool,
}

/// Builds as for users, starts the service and tells the story with it.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let mut stages = Stages::default();
    let service = Service::start(Flavour::Release, &mut stages)?;
    stages.run("the story", || Story::new(&service)?.tell())?;
    stages.summarize();
    if arguments.keep {
        service.print_ways_in();
        println!("\nCtrl-C ends it and removes everything.");
        signals::wait();
    }
    Ok(())
}
