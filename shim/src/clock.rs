//! The current time in Stripe's unit.

use std::time::{SystemTime, UNIX_EPOCH};

/// Seconds since 1970; a clock set before that reads as 0, and every signature is then refused as too new.
pub(crate) fn unix_now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
