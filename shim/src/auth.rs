//! The proof of who asks.

pub(crate) mod jwks;
pub(crate) mod token;
pub(crate) mod verifier;
