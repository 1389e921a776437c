//! `cargo xtask demo`: a short story, played for real and checked at every step.

use std::fs;
use std::path::PathBuf;

use clap::Args;
use xtask::build::Flavour;
use xtask::stages::Stages;
use xtask::{Error, Result, signals};

use super::service::Service;
use super::story::Story;

#[derive(Args)]
pub(crate) struct Arguments {
    /// Leave it running afterwards, until Ctrl-C
    #[arg(long)]
    keep: bool,
    /// Write what was printed to this Markdown file, with placeholders for what differs from run to run
    #[arg(long, value_name = "FILE")]
    transcript: Option<PathBuf>,
}

/// Builds, starts the service and plays the story with it.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let mut stages = Stages::default();
    let service = Service::start(Flavour::Dev, &mut stages)?;
    let transcript = stages.run("the story", || Story::new(&service)?.play())?;
    stages.summarize();
    if let Some(file) = &arguments.transcript {
        fs::write(file, transcript.markdown()).map_err(Error::file(file))?;
    }
    if arguments.keep {
        service.print_ways_in();
        println!("\nCtrl-C ends it and removes everything.");
        signals::wait();
    }
    Ok(())
}
