//! What the integration tests share: a database for each test, Stripe's objects and events, the shim as a process, and
//! stand-ins for everything around it.
//!
//! `cargo xtask test` starts the server and makes the template that every test's database is a copy of.
#![allow(
    clippy::missing_panics_doc,
    clippy::must_use_candidate,
    reason = "every helper panics where it cannot do its work: that is how a test fails"
)]

pub mod app; // the app's side: its settings, its users' requests
pub mod browser; // Chromium, as a person uses it
pub mod certificates; // certificate authorities of their own, and TLS in front of a server
pub mod chain; // the hashes of the ledger, computed in SQL
pub mod concurrency; // two transactions open at once
pub mod connection; // the SQL interface by its names, and what it left in the tables
pub mod database; // one per test, dropped at its end
pub mod fake_redis; // a Redis that can be slow, emptied and wrong
pub mod fake_stripe; // a Stripe API to fetch from, faults on demand
pub mod http_server; // what the shim and the browser talk to
pub mod mirror; // the app's own database, compared with the books
pub mod pages; // the app's web server
pub mod payments; // payment intents, invoices of packs, credit notes
pub mod permutations; // steps in every order
pub mod plans; // a catalog of plans, prorations, both shapes of the API, Stripe's test clocks
pub mod postgrest; // Supabase's way to the SQL functions
pub mod refunds; // charges, refunds, disputes
pub mod seeds; // random choices that repeat
pub mod server_copy; // versions of the extension that were never installed
pub mod shim; // the real shim as a process: started, spoken to, ended
pub mod spends; // spends, reservations, upkeep
pub mod stripe; // sessions, line items, events
pub mod subscription; // subscriptions, invoices, what paid them
pub mod time_travel; // time that has passed, without waiting
pub mod told; // the outbox, and its deliveries
pub mod top_ups; // auto top-up
pub mod tokens; // who signs users in: tokens good and bad, the public keys
pub mod wire; // HTTP by hand, for clients that misbehave
pub mod torture; // everything at once while everything fails: `cargo xtask torture`

pub use concurrency::{blocked, together, waits_for};
pub use connection::{Connection, Outcome};
pub use database::Database;
pub use stripe::{
    Event, Session, catalog, catalog_of_packs, event, fetched_lines, nothing_fetched, paid_pack, session,
};

use uuid::Uuid;

/// The n-th user, the same in every run.
pub const fn user(n: u128) -> Uuid {
    Uuid::from_u128(0xc0de_0000_0000_4000_8000_0000_0000_0000 | n)
}

/// The user that most tests are about.
pub const ANN: Uuid = user(1);

/// Another user.
pub const BOB: Uuid = user(2);
