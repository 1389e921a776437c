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
use stripe_credits_rules::top_up::TopUpState;

use crate::pg::convert::time;
use crate::pg::json::{Json, JsonText};

/// The length of a text that people read, such as a description.
const MAX_DESCRIPTION_BYTES: usize = 4_096;
/// The length of a JSON document as text: an event, what was fetched, a catalog.
const MAX_DOCUMENT_BYTES: usize = 16 << 20;
/// The number of documents of one call. Each event takes several locks, and the server's table of locks is shared by all.
const MAX_BATCH: usize = 100;
/// The length of a ledger row's metadata as text.
const MAX_METADATA_BYTES: usize = 64 << 10;
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

/// A text that is not blank, and short enough for a key.
pub(crate) fn named(value: Option<String>, argument: &str) -> String {
    text(value, MAX_ID_BYTES, argument)
}

/// A text that is short enough for a key, or null.
pub(crate) fn named_if_given(value: Option<String>, argument: &str) -> Option<String> {
    value.map(|value| named(Some(value), argument))
}

/// A text that is not blank, for people to read.
pub(crate) fn described(value: Option<String>, argument: &str) -> String {
    text(value, MAX_DESCRIPTION_BYTES, argument)
}

fn text(value: Option<String>, limit: usize, argument: &str) -> String {
    let value = required(value, argument);
    at_most(&value, limit, argument);
    if value.trim().is_empty() {
        raise_invalid(&format!("{argument} must not be blank"), &format!("{argument} = {value:?}"));
    }
    value
}

/// A text for people to read, or null.
pub(crate) fn described_if_given<'a>(value: Option<&'a String>, argument: &str) -> Option<&'a str> {
    value.inspect(|value| at_most(value, MAX_DESCRIPTION_BYTES, argument)).map(String::as_str)
}

/// Raises 22023 for a text that is too long. The detail has its length only, since the text may be of any length.
fn at_most(value: &str, limit: usize, argument: &str) {
    if value.len() > limit {
        let detail = format!("{argument} has {} bytes", value.len());
        raise_invalid(&format!("{argument} must be at most {limit} bytes"), &detail);
    }
}

/// A JSON document as text, not longer than [`MAX_DOCUMENT_BYTES`].
pub(crate) fn document_text(value: Option<String>, argument: &str) -> String {
    let value = required(value, argument);
    if value.len() > MAX_DOCUMENT_BYTES {
        raise_too_large(MAX_DOCUMENT_BYTES, argument);
    }
    value
}

/// Up to [`MAX_BATCH`] JSON documents as texts, each not longer than [`MAX_DOCUMENT_BYTES`].
pub(crate) fn document_texts(value: Option<Vec<Option<String>>>, argument: &str) -> Vec<String> {
    let values = required(value, argument);
    if values.len() > MAX_BATCH {
        raise_invalid(
            &format!("{argument} must be at most {MAX_BATCH} documents"),
            &format!("{argument} has {}", values.len()),
        );
    }
    values.into_iter().map(|value| document_text(value, argument)).collect()
}

/// A JSON document, whose text is not longer than [`MAX_DOCUMENT_BYTES`].
pub(crate) fn document(value: Option<Json>, argument: &str) -> JsonText {
    JsonText::within(required(value, argument), MAX_DOCUMENT_BYTES)
        .unwrap_or_else(|| raise_too_large(MAX_DOCUMENT_BYTES, argument))
}

/// The same, or null.
pub(crate) fn document_if_given(value: Option<Json>, argument: &str) -> Option<JsonText> {
    value.map(|value| document(Some(value), argument))
}

/// A webhook's body that serde has read and that is an argument of this name, as a JSON document. Raises 22023 if its text
/// is longer than [`MAX_DOCUMENT_BYTES`] as jsonb writes it.
pub(crate) fn document_of_body(body: String, argument: &str) -> JsonText {
    JsonText::from_body(body, MAX_DOCUMENT_BYTES)
        .unwrap_or_else(|| raise_too_large(MAX_DOCUMENT_BYTES, argument))
}

/// Metadata to store, if there are any: whoever reads them makes a text of them, so that it is bounded too.
pub(crate) fn metadata(value: Option<Json>, argument: &str) -> Option<Json> {
    let value = value?;
    if value.is_longer_than(MAX_METADATA_BYTES) {
        raise_too_large(MAX_METADATA_BYTES, argument);
    }
    (!value.is_empty_object()).then_some(value)
}

/// Raises 22023, not 54000: it is the caller's fault, and PostgREST answers class 54 with 500.
fn raise_too_large(limit: usize, argument: &str) -> ! {
    raise_invalid(
        &format!("{argument} must be at most {limit} bytes as text"),
        "a number such as 1e1000 is as long as all of its digits",
    )
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
    let value = named(value, argument);
    Pool::parse(&value).unwrap_or_else(|| {
        raise_invalid(
            &format!("{argument} must be subscription, purchased or promotional"),
            &format!("{argument} = {value:?}"),
        )
    })
}

/// A state in which an attempt to pay a top-up may leave it.
pub(crate) fn end_of_top_up(value: Option<String>, argument: &str) -> TopUpState {
    let value = named(value, argument);
    let is_end =
        |state: &TopUpState| matches!(state, TopUpState::Paid | TopUpState::Failed | TopUpState::Canceled);
    TopUpState::parse(&value).filter(is_end).unwrap_or_else(|| {
        raise_invalid(
            &format!("{argument} must be paid, failed or canceled"),
            &format!("{argument} = {value:?}"),
        )
    })
}

/// A valid catalog document.
pub(crate) fn catalog_document(catalog: Option<Json>, argument: &str) -> Catalog {
    catalog::read(document(catalog, argument).text()).unwrap_or_else(|fault| {
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
