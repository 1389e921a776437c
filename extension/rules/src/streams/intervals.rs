//! Billing intervals and the parts of periods, by the calendar.

use chrono::{Datelike, Days, Months, NaiveDate};

use super::OutOfRange;
use super::facts::Period;
use super::share::{Share, share, whole};
use crate::calendar::{MAX_PARTS, Span, Time};

/// By how many seconds a prorated charge may miss whole intervals and still be whole.
pub const WHOLE_WITHIN_SECONDS: i64 = 60;

/// Days of a year, to compare months with days.
const DAYS_OF_A_YEAR: i128 = 365;

impl Period {
    /// How long it is.
    pub(super) fn seconds(self) -> i64 {
        (self.end - self.start).num_seconds()
    }

    /// How many seconds two periods have in common.
    fn seconds_in(self, other: Period) -> i64 {
        let common = self.end.min(other.end) - self.start.max(other.start);
        common.num_seconds().max(0)
    }

    /// Which share of its time another period covers.
    pub(super) fn covered_by(self, other: Period) -> Share {
        share(self.seconds_in(other), self.seconds())
    }
}

/// How many months a span is; of a span in days, by the length of a year.
#[must_use]
pub fn months(span: Span) -> Share {
    match span {
        Span::Months(n) => whole(n),
        Span::Days(n) => share(i128::from(n) * 12, DAYS_OF_A_YEAR),
    }
}

/// The interval that ends with a line, counted back by the calendar.
pub(super) fn counted_back(end: Time, interval: Span) -> Result<Period, OutOfRange> {
    let start = match interval {
        Span::Months(n) => end.checked_sub_months(Months::new(n)),
        Span::Days(n) => end.checked_sub_days(Days::new(n.into())),
    };
    start.map(|start| Period { start, end }).ok_or(OutOfRange::Calendar(end))
}

/// Whether a line's length is its interval, give or take a tenth: months have 28 to 31 days.
pub(super) fn is_about(period: Period, interval: Span) -> Result<bool, OutOfRange> {
    let nominal = counted_back(period.end, interval)?.seconds();
    Ok((nominal * 9 / 10..=nominal * 11 / 10).contains(&period.seconds()))
}

/// How many parts an interval comes in.
pub(super) fn part_count(interval: Span, drip: Span) -> u32 {
    let count = (months(interval) / months(drip)).round().to_integer();
    u32::try_from(count).unwrap_or(MAX_PARTS).clamp(1, MAX_PARTS)
}

/// Splits a period into so many parts, or fewer if it is too short; the last one ends with it.
pub(super) fn parts(period: Period, drip: Span, count: u32) -> Vec<Period> {
    let anchor_day = anchor_day(period);
    let begun = (1..count).map_while(|n| part_start(period.start, drip, n, anchor_day));
    let starts = std::iter::once(period.start).chain(begun.take_while(|start| *start < period.end));
    closed(starts.collect(), period.end)
}

/// The parts of a period that a prorated charge opened, each with how many times a part's credits it holds.
///
/// Within a minute of whole intervals it is whole. Else it is worth its length ÷ interval: whole parts from its start until
/// that is used up.
pub(super) fn own_parts(
    period: Period,
    interval: Span,
    interval_before: Period,
    drip: Option<Span>,
) -> Result<Vec<(Period, Share)>, OutOfRange> {
    let (length, long) = (period.seconds(), interval_before.seconds().max(1));
    let times = u32::try_from((2 * length + long) / (2 * long)).unwrap_or(MAX_PARTS).clamp(1, MAX_PARTS);
    let nominal = if times == 1 {
        long
    } else {
        let intervals = interval.times(times).ok_or(OutOfRange::Calendar(period.end))?;
        counted_back(period.end, intervals)?.seconds()
    };
    let is_whole = (length - nominal).abs() <= WHOLE_WITHIN_SECONDS;
    let Some(drip) = drip else {
        return Ok(vec![(period, if is_whole { whole(times) } else { share(length, long) })]);
    };
    let count = part_count(interval, drip);
    if is_whole {
        let parts = parts(period, drip, count.saturating_mul(times).min(MAX_PARTS));
        return Ok(parts.into_iter().map(|part| (part, whole(1))).collect());
    }
    let mut left = whole(count) * share(length, long);
    let mut parts: Vec<(Period, Share)> = parts_from_start(period, drip)
        .into_iter()
        .map(|part| {
            let held = left.clone().clamp(whole(0), whole(1));
            left -= &held;
            (part, held)
        })
        .collect();
    if let Some((_, held)) = parts.last_mut() {
        *held += left;
    }
    Ok(parts)
}

/// As many parts as begin in a period, counted from its start; the last one ends with it.
fn parts_from_start(period: Period, drip: Span) -> Vec<Period> {
    let day = period.start.day();
    let begun = (1..MAX_PARTS).map_while(|n| part_start(period.start, drip, n, day));
    let starts = std::iter::once(period.start).chain(begun.take_while(|start| *start < period.end));
    closed(starts.collect(), period.end)
}

/// Periods that begin at these times, each ending when the next one begins.
fn closed(starts: Vec<Time>, end: Time) -> Vec<Period> {
    let ends = starts.iter().skip(1).copied().chain([end]).collect::<Vec<_>>();
    starts.into_iter().zip(ends).map(|(start, end)| Period { start, end }).collect()
}

/// When the n-th part after the first begins.
fn part_start(start: Time, drip: Span, n: u32, anchor_day: u32) -> Option<Time> {
    let moved = drip.times(n)?.after(start)?;
    match drip {
        Span::Days(_) => Some(moved),
        Span::Months(_) => moved.with_day(anchor_day.min(days_of_month(moved)?)),
    }
}

/// The day of month that a period's parts begin on: its start's, or its end's if the start was clamped to a shorter month.
fn anchor_day(period: Period) -> u32 {
    let day = period.start.day();
    match days_of_month(period.start) {
        Some(last) if day == last => day.max(period.end.day()),
        _ => day,
    }
}

fn days_of_month(time: Time) -> Option<u32> {
    let first = NaiveDate::from_ymd_opt(time.year(), time.month(), 1)?;
    let next = first.checked_add_months(Months::new(1))?;
    Some(next.pred_opt()?.day())
}
