//! Calendar months in UTC, as Stripe counts billing periods.

use chrono::{DateTime, Months as CalendarMonths};

/// A day, in seconds.
pub const DAY: i64 = 86_400;

/// How long a month is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Months {
    /// As long as the calendar says; a day that a month lacks becomes its last.
    Calendar,
    /// 30 days each, for histories whose amounts should not depend on the date.
    Even,
}

impl Months {
    /// The time, in Unix seconds, so many months after `at`, or before it.
    ///
    /// # Panics
    /// Past the calendar's end, which no history reaches.
    #[must_use]
    pub fn after(self, at: i64, months: i32) -> i64 {
        match self {
            Months::Even => at + i64::from(months) * 30 * DAY,
            Months::Calendar => {
                let start = DateTime::from_timestamp(at, 0).expect("a time of the calendar");
                let count = CalendarMonths::new(months.unsigned_abs());
                let moved = if months < 0 {
                    start.checked_sub_months(count)
                } else {
                    start.checked_add_months(count)
                };
                moved.expect("a time of the calendar").timestamp()
            }
        }
    }

    /// The period of so many months around `at`, when periods are counted from `anchor`: [start, end), in Unix seconds.
    /// Before the anchor it is the one that ends at the anchor.
    #[must_use]
    pub fn period(self, anchor: i64, months: i32, at: i64) -> (i64, i64) {
        let mut count = 0;
        while self.after(anchor, count * months) <= at {
            count += 1;
        }
        (self.after(anchor, (count - 1) * months), self.after(anchor, count * months))
    }
}
