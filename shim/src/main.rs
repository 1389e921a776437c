//! `stripe-credits`, the shim: it verifies Stripe's webhooks and hands them to `billing.apply_stripe_event`. It
//! verifies, carries, maps the outcome to a status and logs; no rule of money lives here.
//!
//! The way of a webhook, in reading order: [`serve`] takes the connection, [`webhook`] reads the body,
//! [`signature`] proves who wrote it, [`event`] reads its envelope, [`database`] carries it to Postgres, [`outcome`]
//! is what Postgres answered, and [`fetch`] gets what Postgres asks for from [`stripe_api`].
//!
//! The way of an app's request: [`app_side`] takes it, [`auth`] proves whose it is, with [`jwks`] or a secret, and
//! [`reconcile`], [`credits`], [`catalog`], [`checkout`] or [`subscription`] answer it; [`cors`] says who may read,
//! and [`cache`] keeps what was read, where there is Redis.

mod app_side;
mod auth;
mod body;
mod cache;
mod catalog;
mod checkout;
mod clock;
mod config;
mod cors;
mod credits;
mod database;
mod error;
mod event;
mod fetch;
mod form;
mod health;
mod idempotency;
mod jwks;
mod metrics;
mod outcome;
mod reconcile;
mod ring_verifier;
mod send_test_event;
mod serve;
mod signature;
mod stripe_api;
mod subscription;
mod telemetry;
mod tls;
mod webhook;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::config::{DatabaseConfig, Environment, ServeConfig};
use crate::error::{EXIT_USAGE, Error};
use crate::send_test_event::SendTestEvent;

/// Carries Stripe's webhooks to the Postgres extension `stripe_credits`.
#[derive(Parser)]
#[command(name = "stripe-credits", version, after_help = config::HELP)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Serve POST /webhooks/stripe, the app's routes, GET /healthz, /readyz and /metrics
    Serve,
    /// Make the database's catalog say what a document says
    #[command(subcommand)]
    Catalog(CatalogCommand),
    /// For development: sign a checkout.session.completed event and post it to a running shim
    SendTestEvent(SendTestEvent),
}

#[derive(Subcommand)]
enum CatalogCommand {
    /// Load the catalog document FILE and print what changed, price by price
    Push {
        /// The document, in JSON; `-` reads it from stdin
        file: PathBuf,
    },
}

#[tokio::main]
async fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(usage) => {
            // Help and version are answers, on stdout; everything else is a fault. A closed pipe is neither.
            let _ = usage.print();
            return ExitCode::from(if usage.use_stderr() { EXIT_USAGE } else { 0 });
        }
    };
    match run(cli.command).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("stripe-credits: {error}");
            ExitCode::from(error.exit_code())
        }
    }
}

async fn run(command: Command) -> Result<(), Error> {
    let environment = Environment::of_process();
    match command {
        Command::Serve => {
            let config = ServeConfig::read(&environment)?;
            telemetry::init(config.log_level);
            let listener = serve::listen(config.listen).map_err(Error::Listen)?;
            serve::run(listener, config, serve::termination()?).await
        }
        Command::Catalog(CatalogCommand::Push { file }) => {
            catalog::push(&file, &DatabaseConfig::read(&environment)?).await
        }
        Command::SendTestEvent(arguments) => send_test_event::run(arguments, &environment).await,
    }
}
