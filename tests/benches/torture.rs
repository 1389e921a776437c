//! Everything at once while everything fails. `cargo xtask torture` starts it.

use std::process::ExitCode;
use std::time::Duration;

use stripe_credits_tests::database::setting;
use stripe_credits_tests::torture;
use xtask::signals;

fn main() -> ExitCode {
    let number = |name: &str| setting(name).parse::<u64>().unwrap_or_else(|fault| panic!("{name}: {fault}"));
    let seed = number("STRIPE_CREDITS_TORTURE_SEED");
    let lasts = Duration::from_mins(number("STRIPE_CREDITS_TORTURE_MINUTES"));
    match signals::listen().and_then(|()| torture::run(seed, lasts)) {
        Ok(report) => {
            println!("{report}");
            if report.findings.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Err(error) => {
            eprintln!("torture: {error}");
            ExitCode::FAILURE
        }
    }
}
