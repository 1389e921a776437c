//! The lines that subscriptions make: whole periods, and parts of periods up or down.

use super::line::{Line, LineKind, Source};
use super::months::Months;
use super::price::share;
use super::subscription::{BillingMode, Item, Status, Subscription};

/// Makes lines, numbered one after another.
#[derive(Debug)]
pub(super) struct Lines {
    pub(super) months: Months,
    pub(super) last_number: u32,
}

impl Lines {
    pub(super) fn next_number(&mut self) -> u32 {
        self.last_number += 1;
        self.last_number
    }

    /// The item's whole period; of a trial, a line of 0.
    pub(super) fn whole(&mut self, subscription: &mut Subscription, item: usize) -> Line {
        let is_trial = subscription.status == Status::Trialing;
        let of = &subscription.items[item];
        let amount = if is_trial { 0 } else { of.price.cents * of.quantity };
        let line = Line {
            amount,
            discount: amount * subscription.percent_off / 100,
            amount_at_list: amount,
            ..self.blank(subscription, of, (of.start, of.end), LineKind::Whole)
        };
        if !is_trial {
            subscription.items[item].charges.push(line.clone());
        }
        line
    }

    /// All items' whole periods.
    pub(super) fn all_whole(&mut self, subscription: &mut Subscription) -> Vec<Line> {
        (0..subscription.items.len()).map(|item| self.whole(subscription, item)).collect()
    }

    /// The item's first period, which is shorter than its interval; Stripe may flag it as a proration.
    pub(super) fn first_part(&mut self, subscription: &mut Subscription, item: usize, flagged: bool) -> Line {
        let of = &subscription.items[item];
        let (amount, amount_at_list) = rest(subscription, of, of.start, self.months);
        let line = Line {
            amount,
            amount_at_list,
            is_proration: flagged,
            ..self.blank(subscription, of, (of.start, of.end), LineKind::Charge)
        };
        subscription.items[item].charges.push(line.clone());
        line
    }

    /// The item's period from `since` on, charged by its share of the whole period; nothing if the period is over.
    pub(super) fn charge(
        &mut self,
        subscription: &mut Subscription,
        item: usize,
        since: i64,
    ) -> Option<Line> {
        let of = &subscription.items[item];
        if since >= of.end {
            return None;
        }
        let (amount, amount_at_list) = rest(subscription, of, since, self.months);
        let line = Line {
            amount,
            amount_at_list,
            is_proration: true,
            ..self.blank(subscription, of, (since, of.end), LineKind::Charge)
        };
        subscription.items[item].charges.push(line.clone());
        Some(line)
    }

    /// What of the item's time is to come, given back.
    pub(super) fn credits(&mut self, subscription: &mut Subscription, item: usize, now: i64) -> Vec<Line> {
        let charges = std::mem::take(&mut subscription.items[item].charges);
        let of = &subscription.items[item];
        if subscription.mode == BillingMode::Flexible {
            let running = charges.iter().filter(|charge| charge.end > now);
            return running.map(|charge| self.credit_of(subscription, of, charge, now)).collect();
        }
        if now >= of.end {
            return Vec::new();
        }
        let (amount, amount_at_list) = rest(subscription, of, now, self.months);
        let kind = LineKind::Credit(charges.last().map(|charge| charge.number));
        vec![Line {
            amount: -amount,
            amount_at_list: -amount_at_list,
            is_proration: true,
            ..self.blank(subscription, of, (now, of.end), kind)
        }]
    }

    /// Flexible billing: what of an earlier charge's time is to come, at what it cost.
    fn credit_of(&mut self, subscription: &Subscription, item: &Item, charge: &Line, now: i64) -> Line {
        let start = now.max(charge.start);
        let (part, whole) = (charge.end - start, charge.end - charge.start);
        let as_charged = Item { price: charge.price, quantity: charge.quantity, ..item.clone() };
        let kind = LineKind::Credit(Some(charge.number));
        Line {
            amount: -share(charge.net(), part, whole),
            amount_at_list: -share(charge.amount_at_list, part, whole),
            is_proration: true,
            ..self.blank(subscription, &as_charged, (start, charge.end), kind)
        }
    }

    fn blank(
        &mut self,
        subscription: &Subscription,
        item: &Item,
        (start, end): (i64, i64),
        kind: LineKind,
    ) -> Line {
        let tolerance = self.tolerance(subscription, item, end, &kind);
        Line {
            number: self.next_number(),
            source: Some(Source { subscription: subscription.id.clone(), item: item.id.clone() }),
            price: item.price,
            quantity: item.quantity,
            amount: 0,
            discount: 0,
            amount_at_list: 0,
            start,
            end,
            kind,
            is_proration: false,
            tolerance,
        }
    }

    /// In credits: one for rounding. A prorated line has more: where Stripe and the rules measure its interval by months
    /// of different lengths, that difference; a minute, since what is within a minute of whole is whole; where credits come
    /// in parts, a twelfth of a part, since no month is exactly a twelfth of a year.
    fn tolerance(&self, subscription: &Subscription, item: &Item, end: i64, kind: &LineKind) -> i64 {
        if *kind == LineKind::Whole {
            return 1;
        }
        let by_stripe = item.end - subscription.interval_start(item, self.months);
        let counted_back = end - Months::Calendar.after(end, -item.price.months);
        let credits = item.price.credits * item.quantity;
        let seconds = (by_stripe - counted_back).abs() + 60;
        let parts =
            if item.price.part_months == 0 { 0 } else { item.price.credits_of_part() * item.quantity / 12 };
        2 + share(credits, seconds, counted_back) + parts
    }
}

/// What the rest of an item's period costs, in cents: after discounts, and before them.
fn rest(subscription: &Subscription, item: &Item, since: i64, months: Months) -> (i64, i64) {
    let (part, whole) = (item.end - since, item.end - subscription.interval_start(item, months));
    let list = item.price.cents * item.quantity;
    (share(list * (100 - subscription.percent_off), part, whole * 100), share(list, part, whole))
}
