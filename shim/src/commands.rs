//! The operator's commands, one module each. Several of them share [`repair`] and [`report`].

pub(crate) mod doctor;
pub(crate) mod sweep;
pub(crate) mod backfill;
pub(crate) mod replay;
pub(crate) mod run_due;
pub(crate) mod events;
pub(crate) mod catalog_push;
pub(crate) mod catalog_check;
pub(crate) mod catalog_draft;
pub(crate) mod webhooks_create;
pub(crate) mod webhooks_check;
pub(crate) mod books_check;
pub(crate) mod mirror;
pub(crate) mod explain;
pub(crate) mod ready;
pub(crate) mod send_test_event;
mod exchange;
mod repair;
mod report;
pub(crate) mod advice;
