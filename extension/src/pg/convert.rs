//! Between the rules' types and Postgres's.

use pgrx::datum::TimestampWithTimeZone;
use pgrx::pg_sys;
use pgrx::prelude::*;
use stripe_credits_rules::calendar::{Span, Time};
use uuid::Uuid;

/// Postgres counts microseconds from 2000-01-01, Unix from 1970-01-01.
const POSTGRES_EPOCH_MICROSECONDS: i64 = 946_684_800_000_000;

pub(crate) fn timestamp(time: Time) -> TimestampWithTimeZone {
    TimestampWithTimeZone::try_from(time.timestamp_micros() - POSTGRES_EPOCH_MICROSECONDS)
        .unwrap_or_else(|_| panic!("{time} is outside Postgres's calendar"))
}

/// `None` for an infinite timestamp.
pub(crate) fn time(timestamp: TimestampWithTimeZone) -> Option<Time> {
    let microseconds = pg_sys::TimestampTz::from(timestamp).checked_add(POSTGRES_EPOCH_MICROSECONDS)?;
    Time::from_timestamp_micros(microseconds)
}

/// The wall clock. An operation reads it once, after it has locked the account, so that the ledger's times are in the order of
/// its rows.
pub(crate) fn clock() -> Time {
    // SAFETY: it reads the system clock and has no preconditions.
    let now = unsafe { pg_sys::GetCurrentTimestamp() };
    Time::from_timestamp_micros(now + POSTGRES_EPOCH_MICROSECONDS).expect("the clock is within the calendar")
}

pub(crate) fn span(interval: &Interval) -> Span {
    match u32::try_from(interval.months()) {
        Ok(months) if months > 0 => Span::Months(months),
        _ => Span::Days(u32::try_from(interval.days()).unwrap_or_default()),
    }
}

pub(crate) fn uuid_datum(uuid: Uuid) -> pgrx::Uuid {
    pgrx::Uuid::from_bytes(*uuid.as_bytes())
}

pub(crate) fn uuid(datum: pgrx::Uuid) -> Uuid {
    Uuid::from_bytes(*datum.as_bytes())
}
