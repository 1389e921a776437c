//! The operator's commands.

pub(crate) mod backfill;
pub(crate) mod catalog_check;
pub(crate) mod catalog_push;
pub(crate) mod repair;
pub(crate) mod replay;
pub(crate) mod report;
pub(crate) mod send_test_event;
pub(crate) mod sweep;
pub(crate) mod webhooks_check;
