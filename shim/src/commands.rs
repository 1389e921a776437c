//! The operator's commands, one module each. Several of them share [`repair`] and [`report`].

pub(crate) mod sweep;
pub(crate) mod backfill;
pub(crate) mod replay;
pub(crate) mod run_due;
pub(crate) mod events;
pub(crate) mod catalog_push;
pub(crate) mod catalog_check;
pub(crate) mod webhooks_check;
pub(crate) mod send_test_event;
mod repair;
mod report;
