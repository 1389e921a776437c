//! Trials, cancellations and pauses.

use super::account::Stripe;
use super::change::{Anchor, Proration};
use super::line::Line;
use super::months::DAY;
use super::subscription::Status;

/// When a cancellation takes effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CancelAt {
    /// At the period's end, by Stripe's flag.
    PeriodEnd,
    /// At the period's end, by its date; Stripe's portal does so.
    PeriodEndByDate,
    /// So many days ahead, wherever that is in a period.
    Days(i64),
}

impl Stripe {
    /// A trial is given or made longer; a running period's time is credited.
    pub(super) fn extend_trial(&mut self, index: usize, days: i64) {
        let (now, months) = (self.now, self.settings.months);
        let all: Vec<usize> = (0..self.subscriptions[index].items.len()).collect();
        let is_trial = self.subscriptions[index].status == Status::Trialing;
        let mut lines = if is_trial { Vec::new() } else { self.credit_lines(index, &all) };
        let subscription = &mut self.subscriptions[index];
        subscription.status = Status::Trialing;
        subscription.trial_end = Some(now + days * DAY);
        subscription.move_anchor(now, subscription.trial_end, months);
        lines.extend(self.lines.all_whole(subscription));
        self.tell_subscription(index, "updated");
        self.bill(index, lines, "subscription_update");
    }

    /// A trial ends now, and the first period is billed. `false` if there is none.
    pub(super) fn end_trial(&mut self, index: usize) -> bool {
        let (now, months) = (self.now, self.settings.months);
        let subscription = &mut self.subscriptions[index];
        if subscription.status != Status::Trialing {
            return false;
        }
        (subscription.status, subscription.trial_end) = (Status::Active, Some(now));
        subscription.move_anchor(now, None, months);
        let lines = self.lines.all_whole(subscription);
        self.tell_subscription(index, "updated");
        self.bill(index, lines, "subscription_update");
        true
    }

    /// Ends a subscription at once; with proration its unused time is credited and invoiced, with what pends.
    pub(super) fn cancel(&mut self, index: usize, proration: Proration) {
        let all: Vec<usize> = (0..self.subscriptions[index].items.len()).collect();
        let prorates = proration != Proration::None
            && matches!(self.subscriptions[index].status, Status::Active | Status::PastDue);
        let credits = if prorates { self.credit_lines(index, &all) } else { Vec::new() };
        self.end(index);
        let mut lines = std::mem::take(&mut self.subscriptions[index].pending);
        lines.extend(credits);
        if prorates {
            self.bill(index, lines, "manual");
        }
    }

    /// Asks for an end that is to come.
    pub(super) fn cancel_later(&mut self, index: usize, when: CancelAt) {
        let now = self.now;
        let subscription = &mut self.subscriptions[index];
        subscription.cancel_at_period_end = when == CancelAt::PeriodEnd;
        subscription.cancel_at = Some(match when {
            CancelAt::Days(days) => now + days * DAY,
            CancelAt::PeriodEnd | CancelAt::PeriodEndByDate => subscription.last_end(),
        });
        subscription.canceled_at = Some(now);
        self.tell_subscription(index, "updated");
    }

    /// Takes a cancellation back. `false` if there is none.
    pub(super) fn keep(&mut self, index: usize) -> bool {
        let subscription = &mut self.subscriptions[index];
        if subscription.cancel_at.is_none() {
            return false;
        }
        subscription.cancel_at_period_end = false;
        (subscription.cancel_at, subscription.canceled_at) = (None, None);
        self.tell_subscription(index, "updated");
        true
    }

    /// Invoices are voided as they are made, or no longer.
    pub(super) fn void_invoices(&mut self, index: usize, voids: bool) -> bool {
        if self.subscriptions[index].voids_invoices == voids {
            return false;
        }
        self.subscriptions[index].voids_invoices = voids;
        self.tell_subscription(index, "updated");
        true
    }

    /// Pauses a subscription: no time is credited, no invoices are made.
    pub(super) fn pause(&mut self, index: usize) {
        self.subscriptions[index].status = Status::Paused;
        self.tell_subscription(index, "paused");
    }

    /// Resumes a paused subscription: with a whole new period, or with the rest of the one that would be running.
    /// `false` if it is not paused.
    pub(super) fn resume(&mut self, index: usize, anchor: Anchor, proration: Proration) -> bool {
        let (now, months) = (self.now, self.settings.months);
        let subscription = &mut self.subscriptions[index];
        if subscription.status != Status::Paused {
            return false;
        }
        subscription.status = Status::Active;
        let mut lines = Vec::new();
        if anchor == Anchor::Now {
            subscription.move_anchor(now, None, months);
            lines = self.lines.all_whole(subscription);
        } else {
            for item in 0..subscription.items.len() {
                lines.extend(self.resume_item(index, item, proration));
            }
        }
        self.tell_subscription(index, "resumed");
        self.bill_or_keep(index, lines, if anchor == Anchor::Now { Proration::Invoice } else { proration });
        true
    }

    /// An item whose period is over goes on in the one that would be running, and its rest is charged.
    fn resume_item(&mut self, index: usize, item: usize, proration: Proration) -> Option<Line> {
        let (now, months) = (self.now, self.settings.months);
        let subscription = &mut self.subscriptions[index];
        let anchor = subscription.anchor;
        let of = &mut subscription.items[item];
        if of.end > now {
            return None;
        }
        (of.start, of.end) = months.period(anchor, of.price.months, now);
        if proration == Proration::None { None } else { self.lines.charge(subscription, item, now) }
    }
}
