//! The HTTP routes.

pub(crate) mod checkout;
pub(crate) mod cors;
pub(crate) mod credits;
pub(crate) mod health;
pub(crate) mod reconcile;
pub(crate) mod subscription;
pub(crate) mod user;
pub(crate) mod webhook;
