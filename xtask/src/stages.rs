//! What takes long says what it does, and at the end how long each part took.

use std::time::{Duration, Instant};

use crate::{Result, signals};

/// The stages of one command, in order.
#[derive(Debug, Default)]
pub struct Stages(Vec<(&'static str, Duration)>);

impl Stages {
    /// Does one stage, between a line that names it and, when it has succeeded, one that says how long it took.
    pub fn run<T>(&mut self, name: &'static str, work: impl FnOnce() -> Result<T>) -> Result<T> {
        signals::check()?;
        eprintln!("=== {name}");
        let start = Instant::now();
        let result = work()?;
        let took = start.elapsed();
        eprintln!("=== {name}: {:.1} s", took.as_secs_f64());
        self.0.push((name, took));
        Ok(result)
    }

    /// Prints the stages and their times.
    pub fn summarize(&self) {
        let total: Duration = self.0.iter().map(|(_, took)| took).sum();
        eprintln!();
        for (name, took) in self.0.iter().chain([&("in all", total)]) {
            eprintln!("{:>8.1} s  {name}", took.as_secs_f64());
        }
    }
}
