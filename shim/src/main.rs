//! `stripe-credits`, the shim: it verifies Stripe's webhooks and hands them to `billing.apply_stripe_event`. It
//! verifies, carries, maps the outcome to a status and logs; no rule of money lives here.
//!
//! A webhook passes [`serve`], [`routes`], [`signature`], [`event`], [`delivery`] and [`database`]; [`outcome`] is
//! what Postgres answered, and [`fetch`] gets from [`stripe`] what Postgres asks for. A request of the app passes
//! [`auth`] instead of the signature. [`commands`] are what an operator runs.
//!
//! A module uses only the modules below it in this list; tests/arrows.rs checks that.

mod serve;
mod routes;
mod commands;
mod app;
mod response;
mod delivery;
mod fetch;
mod cache;
mod endpoint;
mod streams;
mod mirror;
mod error;
mod database;
mod batches;
mod statements;
mod plans;
mod stripe;
mod auth;
mod event;
mod outcome;
mod signature;
mod metrics;
mod status;
mod connections;
mod limits;
mod config;
mod body;
mod tls;
mod telemetry;
mod clock;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use hyper::Uri;

use crate::commands::backfill::{self, Run};
use crate::commands::doctor::{self, Doctor};
use crate::commands::explain::{self, Explain};
use crate::commands::mirror::{self as mirror_commands, Init};
use crate::commands::send_test_event::{self, SendTestEvent};
use crate::commands::{
    books_check, catalog_check, catalog_draft, catalog_push, events, ready, replay, run_due, sweep,
    webhooks_check, webhooks_create,
};
use crate::config::{DatabaseConfig, Environment, PushConfig, ServeConfig};
use crate::error::{EXIT_USAGE, Error};

/// For commands that read Stripe's API.
const EXIT_HELP: &str = "\
Reads Stripe's API with STRIPE_SECRET_KEY, below its rate limit. It is safe to repeat, also during live traffic.

Exit status: 0 success, 1 something printed on stdout needs a person, 64 wrong usage or configuration, 65 wrong input,
69 Stripe or the database is unavailable: run it again";

/// For commands that need only the database.
const EXIT_HELP_OF_DATABASE: &str = "\
Exit status: 0 success, 1 something printed on stdout needs a person, 64 wrong usage or configuration, 65 wrong input,
69 the database is unavailable: run it again";

/// For the command that asks a running shim.
const EXIT_HELP_OF_READY: &str =
    "Exit status: 0 ready, 64 wrong configuration, 69 not ready, or no shim answers";

/// Carries Stripe's webhooks to the Postgres extension `stripe_credits`.
#[derive(Parser)]
#[command(name = "stripe-credits", version, after_help = config::HELP)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Serve webhooks and the routes of the app's users, and to operators /healthz, /readyz and /metrics
    Serve,
    /// Ask a running `serve` whether it would apply a delivery now: /readyz of OPS_LISTEN, for health checks
    #[command(after_help = EXIT_HELP_OF_READY)]
    Ready,
    /// Load or check the catalog
    #[command(subcommand)]
    Catalog(CatalogCommand),
    /// Apply recent events that the database lacks; to be scheduled, for example by cron
    #[command(after_help = EXIT_HELP)]
    Sweep {
        /// A time (2026-01-31, 2026-01-31T12:00Z) or an age (3 days, 12h) [default: the start of the last sweep, or 3
        /// days ago]
        #[arg(long)]
        since: Option<String>,
    },
    /// Post what is due by time, like billing.run_due(); to be scheduled too
    RunDue,
    /// Apply Stripe's refunds, disputes, subscriptions and paid invoices that the database lacks
    #[command(after_help = EXIT_HELP)]
    Backfill {
        /// Leaves out refunds, disputes and invoices made before a time (2026-01-31, 2026-01-31T12:00Z) or an age (90
        /// days), and starts over if the last run was stopped
        #[arg(long, value_name = "TIME")]
        since: Option<String>,
        /// Only print what it would do
        #[arg(long)]
        dry_run: bool,
    },
    /// Apply one event again, from Stripe or from the inbox
    #[command(after_help = EXIT_HELP)]
    Replay {
        /// Stripe's `evt_…`, or the id of a row of billing.stripe_events
        event_id: String,
    },
    /// Look at everything: the configuration, the database, the clocks, the endpoint, the portal, the catalog, the books and
    /// the scheduled jobs
    #[command(after_help = EXIT_HELP)]
    Doctor(Doctor),
    /// Print what was made of an event, of an object of Stripe's or of a user's payments, and why
    Explain(Explain),
    /// Serve only the console for support, on a port of this machine; it asks for a SERVICE_TOKEN
    Console {
        /// The address, of loopback [default: a free port of 127.0.0.1]
        #[arg(long, default_value = "127.0.0.1:0", hide_default_value = true, value_parser = loopback)]
        listen: SocketAddr,
    },
    /// List, or deliver again, what could not be delivered to EVENTS_URL
    #[command(subcommand)]
    Events(EventsCommand),
    /// Make or check the mirror: each account's credits in the app's own database
    #[command(subcommand)]
    Mirror(MirrorCommand),
    /// Make or check the webhook endpoints in Stripe
    #[command(subcommand)]
    Webhooks(WebhooksCommand),
    /// Prove the books
    #[command(subcommand)]
    Books(BooksCommand),
    /// For development: sign a checkout.session.completed event and post it to a running shim
    SendTestEvent(SendTestEvent),
}

#[derive(Subcommand)]
enum CatalogCommand {
    /// Load the catalog document FILE and print the change of each price; with STRIPE_SECRET_KEY also read what the prices
    /// cost, for GET /catalog
    Push {
        /// The document, in JSON; `-` reads it from stdin
        file: PathBuf,
    },
    /// Print each price on which the catalog and Stripe differ
    #[command(after_help = EXIT_HELP)]
    Check,
    /// Print a first catalog made from the prices in Stripe; what they are worth is left for you to fill in, unless the
    /// metadata `credits` of a price or a product say it
    Draft,
}

#[derive(Subcommand)]
enum EventsCommand {
    /// Print the events that are dead, a line of JSON each
    #[command(after_help = EXIT_HELP_OF_DATABASE)]
    Dead,
    /// Let `serve` deliver one event again, or all that are dead
    #[command(after_help = EXIT_HELP_OF_DATABASE)]
    Replay {
        /// The event's id, as in its webhook-id, delivered or not [default: every dead event]
        id: Option<String>,
    },
}

#[derive(Subcommand)]
enum MirrorCommand {
    /// Make the tables in MIRROR_DATABASE_URL, their policies and rights, and say what was made; safe to repeat
    Init(Init),
    /// Compare every account with its row in the mirror, and print those that differ
    #[command(after_help = EXIT_HELP_OF_DATABASE)]
    Check {
        /// Also write the rows that differ, fill in those that are missing and remove those of nobody
        #[arg(long)]
        repair: bool,
    },
}

#[derive(Subcommand)]
enum WebhooksCommand {
    /// Make the endpoint, with each event type that is needed, and print its signing secret once
    Create {
        /// Where Stripe posts to, such as `https://pay.example/webhooks/stripe`
        #[arg(long)]
        url: Uri,
    },
    /// Print each event type that is needed and not sent
    #[command(after_help = EXIT_HELP)]
    Check {
        /// The endpoint's URL [default: each that ends with /webhooks/stripe]
        #[arg(long)]
        url: Option<Uri>,
    },
}

#[derive(Subcommand)]
enum BooksCommand {
    /// Compute every grant anew, and print each user whose books differ; the metrics show how many
    Check,
}

/// An address that only this machine reaches: the console speaks no TLS.
fn loopback(text: &str) -> Result<SocketAddr, String> {
    let address = text.parse::<SocketAddr>().map_err(|fault| fault.to_string())?;
    if address.ip().is_loopback() {
        return Ok(address);
    }
    Err("is not of loopback; for others, set CONSOLE=on and put a proxy with TLS before OPS_LISTEN"
        .to_owned())
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
    let environment = Environment::from_process();
    match command {
        Command::Serve => {
            let config = ServeConfig::read(&environment)?;
            let log = telemetry::init(config.log_level);
            serve::run(config, &log, serve::termination()?).await
        }
        Command::Ready => ready::run(&environment).await,
        Command::Catalog(CatalogCommand::Push { file }) => {
            catalog_push::run(&file, &PushConfig::read(&environment)?).await
        }
        Command::Catalog(CatalogCommand::Check) => catalog_check::run(&environment).await,
        Command::Sweep { since } => sweep::run(since.as_deref(), &environment).await,
        Command::RunDue => run_due::run(&DatabaseConfig::read(&environment)?).await,
        Command::Backfill { since, dry_run } => {
            let run = if dry_run { Run::Dry } else { Run::Real };
            backfill::run(since.as_deref(), run, &environment).await
        }
        Command::Replay { event_id } => replay::run(&event_id, &environment).await,
        Command::Catalog(CatalogCommand::Draft) => catalog_draft::run(&environment).await,
        Command::Doctor(arguments) => doctor::run(&arguments, &environment).await,
        Command::Explain(arguments) => explain::run(&arguments, &environment).await,
        Command::Console { listen } => {
            let config = ServeConfig::read_for_console(&environment, listen)?;
            let log = telemetry::init(config.log_level);
            serve::run_console(config, &log, serve::termination()?).await
        }
        Command::Webhooks(WebhooksCommand::Create { url }) => webhooks_create::run(&url, &environment).await,
        Command::Events(EventsCommand::Dead) => events::dead(&DatabaseConfig::read(&environment)?).await,
        Command::Events(EventsCommand::Replay { id }) => {
            events::replay(id.as_deref(), &DatabaseConfig::read(&environment)?).await
        }
        Command::Mirror(MirrorCommand::Init(arguments)) => {
            mirror_commands::init(&arguments, &environment).await
        }
        Command::Mirror(MirrorCommand::Check { repair }) => {
            mirror_commands::check(repair, &environment).await
        }
        Command::Webhooks(WebhooksCommand::Check { url }) => {
            webhooks_check::run(url.as_ref(), &environment).await
        }
        Command::Books(BooksCommand::Check) => books_check::run(&environment).await,
        Command::SendTestEvent(arguments) => send_test_event::run(arguments, &environment).await,
    }
}
