//! Checks of arguments. An error is raised only for a call that is wrong in itself; a business rejection is an outcome.
//!
//! Only standard SQLSTATEs: a custom one would become XX000 on its way through Rust.

use pgrx::datum::TimestampWithTimeZone;
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;
use stripe_credits_rules::amount::{Credits, MAX_CREDITS};
use stripe_credits_rules::calendar::{Time, TimeDelta};
use stripe_credits_rules::catalog::{self, Catalog};
use stripe_credits_rules::lot::Pool;
use stripe_credits_rules::stripe::MAX_ID_BYTES;
use stripe_credits_rules::subscription::Status;

use crate::pg::convert::time;
use crate::pg::json::JsonText;

/// How long a reservation may hold credits, in days.
const MAX_RESERVATION_DAYS: i64 = 30;

/// Raises an ERROR with a SQLSTATE, a message that names the argument, and a DETAIL that names the value.
pub(crate) fn raise(code: PgSqlErrorCode, message: &str, detail: &str) -> ! {
    ErrorReport::new(code, message.to_owned(), "stripe_credits").set_detail(detail).report(PgLogLevel::ERROR);
    unreachable!("an ERROR does not return")
}

/// Raises 22023.
pub(crate) fn raise_invalid(message: &str, detail: &str) -> ! {
    raise(PgSqlErrorCode::ERRCODE_INVALID_PARAMETER_VALUE, message, detail)
}

/// The value of an argument that must not be null. Every argument is an Option and checked here, because a strict function
/// would silently return NULL.
pub(crate) fn required<T>(value: Option<T>, argument: &str) -> T {
    let code = PgSqlErrorCode::ERRCODE_NULL_VALUE_NOT_ALLOWED;
    value.unwrap_or_else(|| {
        raise(code, &format!("{argument} must not be null"), &format!("{argument} = NULL"))
    })
}

/// A text that is not null and not blank.
pub(crate) fn text(value: Option<String>, argument: &str) -> String {
    let value = required(value, argument);
    if value.trim().is_empty() {
        raise_invalid(&format!("{argument} must not be blank"), &format!("{argument} = {value:?}"));
    }
    value
}

/// The same, and short enough for a key.
pub(crate) fn named(value: Option<String>, argument: &str) -> String {
    let value = text(value, argument);
    if value.len() > MAX_ID_BYTES {
        let fault = format!("{argument} must be at most {MAX_ID_BYTES} bytes");
        raise_invalid(&fault, &format!("{argument} = {value:?}"));
    }
    value
}

/// The same, or null.
pub(crate) fn named_if_given(value: Option<String>, argument: &str) -> Option<String> {
    value.map(|value| named(Some(value), argument))
}

/// A number of credits to move: 1 to [`MAX_CREDITS`].
pub(crate) fn positive(value: Option<i64>, argument: &str) -> Credits {
    let value = required(value, argument);
    if value <= 0 {
        raise_invalid(&format!("{argument} must be above 0"), &format!("{argument} = {value}"));
    }
    if value > MAX_CREDITS {
        raise_out_of_range(&format!("{argument} must be at most {MAX_CREDITS}"), argument, value);
    }
    Credits(value)
}

/// A number of credits to add, or to take if it is negative: not 0, from -[`MAX_CREDITS`] to [`MAX_CREDITS`].
pub(crate) fn change(value: Option<i64>, argument: &str) -> Credits {
    let value = required(value, argument);
    if value == 0 {
        raise_invalid(&format!("{argument} must not be 0"), &format!("{argument} = 0"));
    }
    if !(-MAX_CREDITS..=MAX_CREDITS).contains(&value) {
        let fault = format!("{argument} must be from -{MAX_CREDITS} to {MAX_CREDITS}");
        raise_out_of_range(&fault, argument, value);
    }
    Credits(value)
}

fn raise_out_of_range(message: &str, argument: &str, value: i64) -> ! {
    let code = PgSqlErrorCode::ERRCODE_NUMERIC_VALUE_OUT_OF_RANGE;
    raise(code, message, &format!("{argument} = {value}"))
}

/// One of the pools.
pub(crate) fn pool(value: Option<String>, argument: &str) -> Pool {
    let value = text(value, argument);
    Pool::parse(&value).unwrap_or_else(|| {
        raise_invalid(
            &format!("{argument} must be subscription, purchased or promotional"),
            &format!("{argument} = {value:?}"),
        )
    })
}

/// A valid catalog document.
pub(crate) fn catalog_document(document: Option<JsonText>, argument: &str) -> Catalog {
    catalog::read(required(document, argument).text()).unwrap_or_else(|fault| {
        raise_invalid(&format!("the catalog is faulty at {fault}"), &format!("path = {}", fault.path))
    })
}

/// One of Stripe's subscription statuses.
pub(crate) fn subscription_status(status: Option<String>, argument: &str) -> Status {
    let status = named(status, argument);
    Status::parse(&status).unwrap_or_else(|| {
        raise_invalid(
            &format!("{argument} must be one of Stripe's subscription statuses"),
            &format!("{argument} = {status:?}"),
        )
    })
}

/// A time and the name of its argument.
type TimeArgument<'a> = (Option<TimestampWithTimeZone>, &'a str);

/// A period: two finite times, the end after the start.
pub(crate) fn period(start: TimeArgument, end: TimeArgument) -> (Time, Time) {
    let (from, to) = (finite(start), finite(end));
    if to <= from {
        raise_invalid(
            &format!("{} must be after {}", end.1, start.1),
            &format!("{} = {from}, {} = {to}", start.1, end.1),
        );
    }
    (from, to)
}

fn finite((at, argument): TimeArgument) -> Time {
    let at = required(at, argument);
    time(at).unwrap_or_else(|| {
        raise_invalid(&format!("{argument} must be finite"), &format!("{argument} = {at}"))
    })
}

/// When a grant expires: never if it is null or infinity.
pub(crate) fn expiry(expires_at: Option<TimestampWithTimeZone>, argument: &str) -> Option<Time> {
    let at = expires_at.filter(|at| *at != TimestampWithTimeZone::positive_infinity())?;
    Some(time(at).unwrap_or_else(|| raise_past(argument, "-infinity")))
}

/// Raises 22023 for an expiry that is not in the future.
pub(crate) fn raise_past(argument: &str, value: &str) -> ! {
    raise_invalid(&format!("{argument} must be in the future"), &format!("{argument} = {value}"))
}

/// A reservation's time to live: above 0, at most [`MAX_RESERVATION_DAYS`]. A month counts 30 days.
pub(crate) fn time_to_live(ttl: Option<Interval>, argument: &str) -> TimeDelta {
    let ttl = required(ttl, argument);
    let days = i64::from(ttl.months()) * 30 + i64::from(ttl.days());
    let ttl = TimeDelta::days(days) + TimeDelta::microseconds(ttl.micros());
    if ttl <= TimeDelta::zero() || ttl > TimeDelta::days(MAX_RESERVATION_DAYS) {
        raise_invalid(
            &format!("{argument} must be above 0 and at most {MAX_RESERVATION_DAYS} days"),
            &format!("{argument} = {ttl}"),
        );
    }
    ttl
}

/// An interval of which no part is negative.
pub(crate) fn not_negative(interval: Option<Interval>, argument: &str) -> Interval {
    let interval = required(interval, argument);
    let (months, days, microseconds) = (interval.months(), interval.days(), interval.micros());
    if months < 0 || days < 0 || microseconds < 0 {
        raise_invalid(
            &format!("{argument} must not be negative"),
            &format!("{argument} = {months} months {days} days {microseconds} microseconds"),
        );
    }
    interval
}
