//! Stripe's API.

pub(crate) mod client;
pub(crate) mod form;
pub(crate) mod idempotency;
pub(crate) mod pages;
