//! Times and spans. Calendar months are counted in UTC and clamp to the month's end, as Stripe's billing does.

use std::fmt;
use std::str::FromStr;

use chrono::{DateTime, Days, Months, Utc};
pub use chrono::{SubsecRound, TimeDelta};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A point in time.
pub type Time = DateTime<Utc>;

/// The longest span a catalog may name, in months: 100 years.
pub const MAX_SPAN_MONTHS: u32 = 1_200;

/// The longest span a catalog may name, in days: 100 years.
pub const MAX_SPAN_DAYS: u32 = 36_525;

/// The most parts that a period comes in: a month's over 100 years, or a day's over three, which is Stripe's longest interval.
/// What a period costs to compute grows with their square.
pub const MAX_PARTS: u32 = 1_200;

/// The last second that Stripe could name, in Unix seconds: the end of the year 9999, well within Postgres's calendar.
pub const MAX_UNIX_SECONDS: i64 = 253_402_300_799;

/// Stripe's Unix seconds as a time; `None` before 1970 or after [`MAX_UNIX_SECONDS`].
#[must_use]
pub fn from_unix(seconds: i64) -> Option<Time> {
    if !(0..=MAX_UNIX_SECONDS).contains(&seconds) {
        return None;
    }
    DateTime::from_timestamp(seconds, 0)
}

/// A span as a catalog names it: `"1 month"`, `"12 months"`, `"30 days"`, `"2 weeks"`, `"1 year"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Span {
    /// Calendar months; a year is twelve of them.
    Months(u32),
    /// Days of 24 hours in UTC; a week is seven of them.
    Days(u32),
}

impl Span {
    /// `count` times this span; `None` if that overflows.
    #[must_use]
    pub fn times(self, count: u32) -> Option<Span> {
        match self {
            Span::Months(n) => n.checked_mul(count).map(Span::Months),
            Span::Days(n) => n.checked_mul(count).map(Span::Days),
        }
    }

    /// Whether it is longer than another, a month having 31 days at most and 28 at least: spans of which that depends
    /// on the month are not.
    #[must_use]
    pub fn is_longer_than(self, other: Span) -> bool {
        match (self, other) {
            (Span::Months(n), Span::Months(m)) | (Span::Days(n), Span::Days(m)) => n > m,
            (Span::Months(n), Span::Days(days)) => n.saturating_mul(28) > days,
            (Span::Days(days), Span::Months(m)) => days > m.saturating_mul(31),
        }
    }

    /// How often a part fits into it at most, a month having 31 days at most and 28 at least.
    #[must_use]
    pub fn most_parts(self, part: Span) -> u32 {
        match (self, part) {
            (Span::Months(n), Span::Months(m)) | (Span::Days(n), Span::Days(m)) => n / m.max(1),
            (Span::Months(n), Span::Days(days)) => n.saturating_mul(31) / days.max(1),
            (Span::Days(days), Span::Months(m)) => days / m.saturating_mul(28).max(1),
        }
    }

    /// The time this long after `start`; `None` past the calendar's end.
    #[must_use]
    pub fn after(self, start: Time) -> Option<Time> {
        match self {
            Span::Months(n) => start.checked_add_months(Months::new(n)),
            Span::Days(n) => start.checked_add_days(Days::new(u64::from(n))),
        }
    }
}

/// Written the way Postgres prints and reads an interval.
impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Span::Months(n) => write!(f, "{n} months"),
            Span::Days(n) => write!(f, "{n} days"),
        }
    }
}

impl FromStr for Span {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let fault =
            || format!("{text:?} is not a span such as \"1 month\", \"30 days\", \"2 weeks\" or \"1 year\"");
        let (count, unit) = text.split_once(' ').ok_or_else(fault)?;
        let count = if count.bytes().all(|b| b.is_ascii_digit()) { count.parse::<u32>().ok() } else { None };
        let (count, most, span): (_, _, fn(u32) -> Span) = match unit.strip_suffix('s').unwrap_or(unit) {
            "day" => (count, MAX_SPAN_DAYS, Span::Days),
            "week" => (count.and_then(|n| n.checked_mul(7)), MAX_SPAN_DAYS, Span::Days),
            "month" => (count, MAX_SPAN_MONTHS, Span::Months),
            "year" => (count.and_then(|n| n.checked_mul(12)), MAX_SPAN_MONTHS, Span::Months),
            _ => return Err(fault()),
        };
        match count {
            Some(n) if n > 0 && n <= most => Ok(span(n)),
            Some(_) => Err(format!("{text:?} is not from 1 day to 100 years")),
            None => Err(fault()),
        }
    }
}

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

impl Serialize for Span {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_span_reads_what_a_founder_writes() {
        assert_eq!("1 month".parse(), Ok(Span::Months(1)));
        assert_eq!("1 year".parse(), Ok(Span::Months(12)));
        assert_eq!("2 weeks".parse(), Ok(Span::Days(14)));
        for wrong in [
            "",
            "month",
            "0 days",
            "-1 days",
            "1.5 months",
            "1  month",
            "1 fortnight",
            "101 years",
            "99999999999 days",
        ] {
            assert!(wrong.parse::<Span>().is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn a_month_after_the_31st_clamps_to_the_months_end() {
        let start = from_unix(1_769_817_600).unwrap(); // 2026-01-31
        assert_eq!(Span::Months(1).after(start).unwrap().to_rfc3339(), "2026-02-28T00:00:00+00:00");
        assert_eq!(Span::Months(2).after(start).unwrap().to_rfc3339(), "2026-03-31T00:00:00+00:00");
    }
}
