//! Stripe's API: its lists, the keys of changes to it, the objects of a top-up and of a change of plan, the client, and the
//! forms and paths that it takes.

pub(crate) mod pages;
pub(crate) mod idempotency;
pub(crate) mod payments;
pub(crate) mod objects;
pub(crate) mod client;
pub(crate) mod form;
pub(crate) mod path;
