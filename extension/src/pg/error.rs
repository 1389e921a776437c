//! Errors are for calls that are wrong in themselves; a business refusal is an outcome.
//!
//! Only standard SQLSTATEs: a custom one would become XX000 on its way through Rust.

use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;
use stripe_credits_rules::amount::{Credits, MAX_CREDITS};
use stripe_credits_rules::stripe::MAX_ID_BYTES;

/// Raises an ERROR with a SQLSTATE, a message that names the argument, and a DETAIL that names the value.
pub(crate) fn raise(code: PgSqlErrorCode, message: String, detail: String) -> ! {
    ErrorReport::new(code, message, "stripe_credits").set_detail(detail).report(PgLogLevel::ERROR);
    unreachable!("an ERROR does not return")
}

/// The value of an argument that must not be null. Every argument is an Option and checked here: a strict function would
/// answer NULL to NULL, silently.
pub(crate) fn required<T>(value: Option<T>, argument: &str) -> T {
    value.unwrap_or_else(|| {
        raise(
            PgSqlErrorCode::ERRCODE_NULL_VALUE_NOT_ALLOWED,
            format!("{argument} must not be null"),
            format!("{argument} = NULL"),
        )
    })
}

/// A text that names something: not null, not blank, short enough for a key.
pub(crate) fn named(value: Option<String>, argument: &str) -> String {
    let value = required(value, argument);
    let fault = if value.trim().is_empty() {
        format!("{argument} must not be blank")
    } else if value.len() > MAX_ID_BYTES {
        format!("{argument} must be at most {MAX_ID_BYTES} bytes")
    } else {
        return value;
    };
    raise(PgSqlErrorCode::ERRCODE_INVALID_PARAMETER_VALUE, fault, format!("{argument} = {value:?}"))
}

/// A text that names something where it is given at all.
pub(crate) fn named_if_given(value: Option<String>, argument: &str) -> Option<String> {
    value.map(|value| named(Some(value), argument))
}

/// A number of credits to move: 1 to [`MAX_CREDITS`].
pub(crate) fn positive(value: Option<i64>, argument: &str) -> Credits {
    let value = required(value, argument);
    if value <= 0 {
        raise(
            PgSqlErrorCode::ERRCODE_INVALID_PARAMETER_VALUE,
            format!("{argument} must be above 0"),
            format!("{argument} = {value}"),
        );
    }
    if value > MAX_CREDITS {
        raise(
            PgSqlErrorCode::ERRCODE_NUMERIC_VALUE_OUT_OF_RANGE,
            format!("{argument} must be at most {MAX_CREDITS}"),
            format!("{argument} = {value}"),
        );
    }
    Credits(value)
}
