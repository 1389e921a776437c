//! The tools that `cargo xtask` and the integration tests share: how to install what is missing, and how to start
//! (and, above all, end) a Postgres cluster and the shim.
//!
//! Nothing started here outlives its owner. A [`cluster::Cluster`] and a [`shim::Shim`] end their processes and
//! remove their folder when dropped, also after a panic; Ctrl-C is turned into an ordinary early return by
//! [`signals`]; and when the owner dies without a chance to clean up, the kernel signals its processes (see
//! [`process`]).

pub mod cluster; // a private Postgres
pub mod shim; // the shim, as its users run it
pub mod checklist; // the scenarios at Stripe, in test mode
pub mod stripe_event; // what Stripe would post to it, signed
pub mod token; // whom the app says that it is
pub mod http; // how it is posted
mod tls; // how Stripe is asked
pub mod forwarder; // an address that can move and be cut off
pub mod pooler; // PgBouncer before Postgres

pub mod install; // what has to be on the machine for all that
pub mod pg_binaries; // a Postgres of every major version
pub mod build; // how the extension and the shim are built
pub mod extension; // the files that Postgres needs
pub mod workspace; // where this is, and its cargo
pub mod packages; // how files become packages
pub mod debian_root; // a Debian to try them in

pub mod process; // programs that do not outlive us
pub mod signals; // Ctrl-C as an early return
pub mod stages; // progress of long commands
pub mod figures; // medians and tables of measurements

pub mod error;

pub use error::{Error, Result};
