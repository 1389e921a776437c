//! What a customer or a merchant subscribes to: beginnings, prices, quantities, items.

use super::account::Stripe;
use super::line::Line;
use super::months::DAY;
use super::price::Price;
use super::subscription::{BillingMode, Item, Status, Subscription};

/// Stripe's `proration_behavior`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Proration {
    /// Time already begun is neither credited nor charged.
    None,
    /// Credits and charges wait for the next invoice.
    Create,
    /// Credits and charges are invoiced at once.
    Invoice,
}

/// Stripe's `billing_cycle_anchor` of a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Anchor {
    /// Periods stay as they are.
    Unchanged,
    /// Periods begin anew.
    Now,
}

/// How a subscription begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// With a whole paid period.
    Paid,
    /// With so many days of trial.
    Trial(i64),
    /// With a part of a period, up to a billing anchor so many days ahead; Stripe calls its line a proration.
    Part(i64),
    /// The same, and Stripe does not call its line a proration.
    UnflaggedPart(i64),
}

impl Stripe {
    /// Subscribes to these prices and quantities. `false` if Stripe would refuse: classic billing has one interval.
    pub(super) fn subscribe(
        &mut self,
        mode: BillingMode,
        items: &[(&'static str, i64)],
        start: Start,
        percent_off: i64,
    ) -> bool {
        let prices: Vec<(&'static Price, i64)> =
            items.iter().map(|(price, quantity)| (self.price(price), *quantity)).collect();
        let mixed = prices.iter().any(|(price, _)| price.months != prices[0].0.months);
        if prices.is_empty() || (mixed && mode == BillingMode::Classic) {
            return false;
        }
        let id = self.next_id("sub");
        let now = self.now;
        let items = prices.into_iter().map(|(price, quantity)| self.new_item(price, quantity)).collect();
        self.subscriptions.push(Subscription {
            id,
            mode,
            status: if matches!(start, Start::Trial(_)) { Status::Trialing } else { Status::Active },
            items,
            created: now,
            anchor: now,
            trial_end: None,
            percent_off,
            cancel_at_period_end: false,
            cancel_at: None,
            canceled_at: None,
            ended_at: None,
            voids_invoices: false,
            pending: Vec::new(),
            last_event_at: None,
        });
        let index = self.subscriptions.len() - 1;
        let lines = self.first_lines(index, start);
        if self.would_fail(&lines) {
            self.subscriptions[index].status = Status::Incomplete;
        }
        self.tell_subscription(index, "created");
        self.bill(index, lines, "subscription_create");
        true
    }

    fn first_lines(&mut self, index: usize, start: Start) -> Vec<Line> {
        let (now, months) = (self.now, self.settings.months);
        let subscription = &mut self.subscriptions[index];
        let (ahead, flagged) = match start {
            Start::Paid => {
                subscription.move_anchor(now, None, months);
                return self.lines.all_whole(subscription);
            }
            Start::Trial(days) => {
                subscription.trial_end = Some(now + days * DAY);
                subscription.move_anchor(now, subscription.trial_end, months);
                return self.lines.all_whole(subscription);
            }
            Start::Part(days) => (now + days * DAY, true),
            Start::UnflaggedPart(days) => (now + days * DAY, false),
        };
        subscription.move_anchor(now, Some(ahead), months);
        let items = 0..subscription.items.len();
        items.map(|item| self.lines.first_part(subscription, item, flagged)).collect()
    }

    fn new_item(&mut self, price: &'static Price, quantity: i64) -> Item {
        let id = self.next_id("si");
        Item { id, price, quantity, start: self.now, end: self.now, charges: Vec::new() }
    }

    /// Changes an item's price and quantity. `false` if nothing changes, or Stripe would refuse.
    pub(super) fn change(
        &mut self,
        index: usize,
        item: usize,
        (price, quantity): (&'static Price, i64),
        proration: Proration,
        anchor: Anchor,
    ) -> bool {
        let subscription = &self.subscriptions[index];
        let of = &subscription.items[item];
        let same = of.price.id == price.id && of.quantity == quantity;
        let mixes = of.price.months != price.months && subscription.items.len() > 1;
        if (same && anchor == Anchor::Unchanged) || price.months == 0 {
            return false;
        }
        match subscription.mode {
            BillingMode::Classic if mixes => return false,
            BillingMode::Classic => self.change_classic(index, item, (price, quantity), proration, anchor),
            BillingMode::Flexible => {
                self.change_flexible(index, item, (price, quantity), proration, anchor);
            }
        }
        true
    }

    /// Classic: a new interval moves the anchor whatever was asked, and a moved anchor bills whole periods at once.
    fn change_classic(
        &mut self,
        index: usize,
        item: usize,
        (price, quantity): (&'static Price, i64),
        proration: Proration,
        anchor: Anchor,
    ) {
        let (now, months) = (self.now, self.settings.months);
        let subscription = &self.subscriptions[index];
        let is_trial = subscription.status == Status::Trialing;
        let prorates = proration != Proration::None && !is_trial;
        let moves =
            !is_trial && (anchor == Anchor::Now || subscription.items[item].price.months != price.months);
        let all: Vec<usize> = (0..subscription.items.len()).collect();
        let credited = if moves { all.as_slice() } else { &[item] };
        let mut lines = if prorates { self.credit_lines(index, credited) } else { Vec::new() };
        self.set_item(index, item, price, quantity);
        if moves {
            let subscription = &mut self.subscriptions[index];
            subscription.move_anchor(now, None, months);
            lines.extend(self.lines.all_whole(subscription));
        } else if prorates {
            lines.extend(self.charge_lines(index, &[item]));
        }
        self.tell_subscription(index, "updated");
        self.bill_or_keep(index, lines, if moves { Proration::Invoice } else { proration });
    }

    /// Flexible: a new anchor bills a whole period of what changes with it, at once; of what does not, the time between
    /// the old end and the new one. A new interval keeps the anchor.
    fn change_flexible(
        &mut self,
        index: usize,
        item: usize,
        (price, quantity): (&'static Price, i64),
        proration: Proration,
        anchor: Anchor,
    ) {
        let (now, months) = (self.now, self.settings.months);
        let subscription = &self.subscriptions[index];
        let is_trial = subscription.status == Status::Trialing;
        let of = &subscription.items[item];
        let same = of.price.id == price.id && of.quantity == quantity;
        let new_interval = of.price.months != price.months;
        let prorates = proration != Proration::None && !is_trial;
        let ends: Vec<i64> = subscription.items.iter().map(|item| item.end).collect();
        let mut lines = if prorates && !same { self.credit_lines(index, &[item]) } else { Vec::new() };
        self.set_item(index, item, price, quantity);
        let moves = anchor == Anchor::Now && !is_trial;
        if moves {
            let subscription = &mut self.subscriptions[index];
            subscription.move_anchor(now, None, months);
            if !same {
                lines.push(self.lines.whole(subscription, item));
            }
            for (other, end) in ends.into_iter().enumerate() {
                if prorates && (same || other != item) {
                    lines.extend(self.lines.charge(subscription, other, end.max(now)));
                }
            }
        } else if !is_trial {
            if new_interval {
                self.align(index, item);
            }
            if prorates {
                lines.extend(self.charge_lines(index, &[item]));
            }
        }
        self.tell_subscription(index, "updated");
        self.bill_or_keep(index, lines, if moves && !same { Proration::Invoice } else { proration });
    }

    fn set_item(&mut self, index: usize, item: usize, price: &'static Price, quantity: i64) {
        let item = &mut self.subscriptions[index].items[item];
        (item.price, item.quantity) = (price, quantity);
    }

    /// Flexible: an item's period at the anchor, by its interval.
    fn align(&mut self, index: usize, item: usize) {
        let (now, months, short_by) = (self.now, self.settings.months, self.settings.short_by);
        let subscription = &mut self.subscriptions[index];
        let price = subscription.items[item].price;
        let (start, end) = subscription.period_of(price, now, months, short_by);
        (subscription.items[item].start, subscription.items[item].end) = (start, end);
        if subscription.mode == BillingMode::Flexible {
            subscription.forget_cancellation_date();
        }
    }

    /// Invoices the lines at once, or keeps them for the next invoice. In a trial there are none.
    pub(super) fn bill_or_keep(&mut self, index: usize, lines: Vec<Line>, proration: Proration) {
        if proration == Proration::Invoice {
            self.bill(index, lines, "subscription_update");
        } else {
            self.subscriptions[index].pending.extend(lines);
        }
    }

    /// Adds an item. `false` if Stripe would refuse: classic billing has one interval.
    pub(super) fn add_item(
        &mut self,
        index: usize,
        price: &'static Price,
        quantity: i64,
        proration: Proration,
    ) -> bool {
        let subscription = &self.subscriptions[index];
        let mixes = subscription.items[0].price.months != price.months;
        if price.months == 0 || (mixes && subscription.mode == BillingMode::Classic) {
            return false;
        }
        let item = self.push_item(index, price, quantity);
        let prorates = proration != Proration::None && self.subscriptions[index].status != Status::Trialing;
        let lines = if prorates { self.charge_lines(index, &[item]) } else { Vec::new() };
        self.tell_subscription(index, "updated");
        self.bill_or_keep(index, lines, proration);
        true
    }

    fn push_item(&mut self, index: usize, price: &'static Price, quantity: i64) -> usize {
        let item = self.new_item(price, quantity);
        self.subscriptions[index].items.push(item);
        let item = self.subscriptions[index].items.len() - 1;
        self.align(index, item);
        item
    }

    /// Removes an item. `false` if it is the only one.
    pub(super) fn remove_item(&mut self, index: usize, item: usize, proration: Proration) -> bool {
        if self.subscriptions[index].items.len() < 2 {
            return false;
        }
        let prorates = proration != Proration::None && self.subscriptions[index].status != Status::Trialing;
        let lines = if prorates { self.credit_lines(index, &[item]) } else { Vec::new() };
        self.subscriptions[index].items.remove(item);
        self.tell_subscription(index, "updated");
        self.bill_or_keep(index, lines, proration);
        true
    }

    /// Another item takes over from one, as a schedule's next phase does: one update, one credit, one charge. `false` if
    /// Stripe would refuse.
    pub(super) fn replace_item(
        &mut self,
        index: usize,
        item: usize,
        price: &'static Price,
        proration: Proration,
    ) -> bool {
        let of = &self.subscriptions[index].items[item];
        if price.months == 0 || of.price.months != price.months {
            return false;
        }
        let quantity = of.quantity;
        let prorates = proration != Proration::None && self.subscriptions[index].status != Status::Trialing;
        let mut lines = if prorates { self.credit_lines(index, &[item]) } else { Vec::new() };
        let new = self.push_item(index, price, quantity);
        self.subscriptions[index].items.swap_remove(item);
        debug_assert_eq!(new, self.subscriptions[index].items.len());
        if prorates {
            lines.extend(self.charge_lines(index, &[item]));
        }
        self.tell_subscription(index, "updated");
        self.bill_or_keep(index, lines, proration);
        true
    }
}
