//! Progress of a long command: a line for each stage, and a summary of their times.

use std::time::{Duration, Instant};

use crate::{Result, signals};

/// The stages of one command, in order.
#[derive(Debug, Default)]
pub struct Stages(Vec<(String, Duration)>);

impl Stages {
    /// Runs one stage; prints its name before, and its time after it has succeeded.
    pub fn run<T>(&mut self, name: &str, work: impl FnOnce() -> Result<T>) -> Result<T> {
        signals::check()?;
        eprintln!("=== {name}");
        let start = Instant::now();
        let result = work()?;
        let took = start.elapsed();
        eprintln!("=== {name}: {:.1} s", took.as_secs_f64());
        self.0.push((name.to_owned(), took));
        Ok(result)
    }

    /// Prints the stages and their times.
    pub fn summarize(&self) {
        let total: Duration = self.0.iter().map(|(_, took)| took).sum();
        eprintln!();
        for (name, took) in self.0.iter().chain([&("in all".to_owned(), total)]) {
            eprintln!("{:>8.1} s  {name}", took.as_secs_f64());
        }
    }
}
