//! A subscription, its items and their billing periods.

use super::line::Line;
use super::months::Months;
use super::price::Price;

/// How Stripe bills a subscription; chosen when it is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BillingMode {
    /// All items share one period. A change credits the item's price of the moment, whether it was charged or not.
    Classic,
    /// Each item has its own period. A change credits the earlier charges of the item, and nothing else.
    Flexible,
}

/// Stripe's status of a subscription.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// The first invoice is not paid yet.
    Incomplete,
    /// It never was.
    IncompleteExpired,
    /// Before the first payment.
    Trialing,
    /// As it should be.
    Active,
    /// An invoice is open.
    PastDue,
    /// No invoices are made.
    Paused,
    /// It has ended.
    Canceled,
}

impl Status {
    /// Stripe's word.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Status::Incomplete => "incomplete",
            Status::IncompleteExpired => "incomplete_expired",
            Status::Trialing => "trialing",
            Status::Active => "active",
            Status::PastDue => "past_due",
            Status::Paused => "paused",
            Status::Canceled => "canceled",
        }
    }
}

/// One item of a subscription.
#[derive(Debug, Clone)]
pub struct Item {
    /// `si_…`.
    pub id: String,
    /// What it costs.
    pub price: &'static Price,
    /// How many units.
    pub quantity: i64,
    /// The current period's start, in Unix seconds.
    pub start: i64,
    /// The current period's end, in Unix seconds.
    pub end: i64,
    /// The lines that charged time which is not over or credited yet. Flexible billing credits these.
    pub(super) charges: Vec<Line>,
}

/// A subscription.
#[derive(Debug, Clone)]
pub struct Subscription {
    /// `sub_…`.
    pub id: String,
    /// How it is billed.
    pub mode: BillingMode,
    /// Its status.
    pub status: Status,
    /// What is subscribed to.
    pub items: Vec<Item>,
    /// When it was made, in Unix seconds.
    pub created: i64,
    /// Billing periods are counted from here, in Unix seconds.
    pub anchor: i64,
    /// When the trial ends or ended, in Unix seconds.
    pub trial_end: Option<i64>,
    /// The coupon's, from 0 to 100.
    pub percent_off: i64,
    /// Stripe's flag of that name.
    pub cancel_at_period_end: bool,
    /// When it is to end, in Unix seconds.
    pub cancel_at: Option<i64>,
    /// When its end was asked for, in Unix seconds.
    pub canceled_at: Option<i64>,
    /// When it ended, in Unix seconds.
    pub ended_at: Option<i64>,
    /// Whether invoices are voided as they are made (`pause_collection`).
    pub voids_invoices: bool,
    /// Lines that wait for the next invoice.
    pub(super) pending: Vec<Line>,
    /// The second of its latest event.
    pub(super) last_event_at: Option<i64>,
}

impl Subscription {
    /// Whether it has not ended.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        !matches!(self.status, Status::Canceled | Status::IncompleteExpired)
    }

    /// Whether it can be changed and billed.
    #[must_use]
    pub fn is_running(&self) -> bool {
        matches!(self.status, Status::Trialing | Status::Active | Status::PastDue)
    }

    /// When the first of its items' periods ends, in Unix seconds.
    ///
    /// # Panics
    /// Without an item, which no subscription is.
    #[must_use]
    pub fn next_end(&self) -> i64 {
        self.items.iter().map(|item| item.end).min().expect("it has an item")
    }

    /// When the last of its items' periods ends, in Unix seconds.
    ///
    /// # Panics
    /// Without an item, which no subscription is.
    #[must_use]
    pub fn last_end(&self) -> i64 {
        self.items.iter().map(|item| item.end).max().expect("it has an item")
    }

    /// Where the interval begins whose end is the item's: its period's start, or earlier if its first period is short.
    pub(super) fn interval_start(&self, item: &Item, months: Months) -> i64 {
        months.period(self.anchor, item.price.months, item.end - 1).0
    }

    /// Every item begins a period at `now`, and periods are counted from there; a trial's period ends at `trial_end`.
    pub(super) fn move_anchor(&mut self, now: i64, trial_end: Option<i64>, months: Months) {
        self.anchor = trial_end.unwrap_or(now);
        for item in &mut self.items {
            item.start = now;
            item.end = trial_end.unwrap_or_else(|| months.after(now, item.price.months));
        }
        self.forget_cancellation_date();
    }

    /// The period of an item of this price that is added at `now`; some seconds shorter if asked for.
    pub(super) fn period_of(&self, price: &Price, now: i64, months: Months, short: i64) -> (i64, i64) {
        if self.mode == BillingMode::Classic {
            let first = &self.items[0];
            return (first.start, first.end);
        }
        if let (Status::Trialing, Some(trial_end)) = (self.status, self.trial_end) {
            return (now, trial_end);
        }
        let (start, end) = months.period(self.anchor, price.months, now);
        (start, end - short)
    }

    /// Periods have moved: an end that was asked for by its date need not be a period's end any more. Flexible billing
    /// takes it back; classic billing keeps its flag, and so the new period's end.
    pub(super) fn forget_cancellation_date(&mut self) {
        self.cancel_at = self.cancel_at_period_end.then(|| self.last_end());
    }

    /// When the clock has something to do next, in Unix seconds: an end, a renewal, a first payment that never came.
    pub(super) fn next_due(&self) -> Option<i64> {
        match self.status {
            Status::Canceled | Status::IncompleteExpired => None,
            Status::Paused => self.cancel_at,
            Status::Incomplete => Some(self.created + INCOMPLETE_SECONDS),
            _ => Some(self.cancel_at.map_or(self.next_end(), |at| at.min(self.next_end()))),
        }
    }
}

/// How long Stripe waits for a subscription's first payment.
pub(super) const INCOMPLETE_SECONDS: i64 = 23 * 3600;
