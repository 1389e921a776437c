//! What an operator runs; each module is one command, but for the two that several share, [`repair`] and [`report`].

pub(crate) mod sweep;
pub(crate) mod backfill;
pub(crate) mod replay;
pub(crate) mod catalog_push;
pub(crate) mod catalog_check;
pub(crate) mod webhooks_check;
pub(crate) mod send_test_event;
mod repair;
mod report;
