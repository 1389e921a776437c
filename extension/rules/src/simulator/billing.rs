//! How Stripe bills: invoices from lines, who pays them, and what time alone causes.

use super::account::Stripe;
use super::line::Line;
use super::objects::Objects;
use super::payment::{InvoiceStatus, MINIMUM_CHARGE, Payment, PaymentKind};
use super::settings::Api;
use super::subscription::{BillingMode, Status, Subscription};

impl Stripe {
    /// Makes an invoice of these lines and collects it. In flexible billing what pends rides on it.
    pub(super) fn bill(&mut self, subscription: usize, mut lines: Vec<Line>, billing_reason: &'static str) {
        let of = &mut self.subscriptions[subscription];
        if of.mode == BillingMode::Flexible {
            lines.splice(0..0, std::mem::take(&mut of.pending));
        }
        if lines.is_empty() {
            return;
        }
        let (id, is_discounted) = (of.id.clone(), of.percent_off > 0);
        let invoice = self.new_invoice(Some(id), lines, billing_reason, is_discounted);
        let of = &self.subscriptions[subscription];
        if of.voids_invoices {
            self.payments[invoice].status = InvoiceStatus::Void;
            self.tell_invoice("voided", invoice);
        } else if self.payments[invoice].total < 0
            && of.mode == BillingMode::Flexible
            && of.status == Status::Canceled
        {
            self.payments[invoice].status = InvoiceStatus::Uncollectible;
            self.tell_invoice("marked_uncollectible", invoice);
        } else if !self.collect(invoice) && self.subscriptions[subscription].status == Status::Active {
            self.subscriptions[subscription].status = Status::PastDue;
            self.tell_subscription(subscription, "updated");
        }
    }

    /// An invoice that is not paid yet.
    pub(super) fn new_invoice(
        &mut self,
        subscription: Option<String>,
        lines: Vec<Line>,
        billing_reason: &'static str,
        is_discounted: bool,
    ) -> usize {
        let id = self.next_id("in");
        for line in &lines {
            self.objects.invoice_of_line.insert(line.number, id.clone());
        }
        self.payments.push(Payment {
            id,
            kind: PaymentKind::Invoice,
            subscription,
            total: Payment::total_of(&lines),
            lines,
            billing_reason,
            status: InvoiceStatus::Open,
            created: self.now,
            paid_at: None,
            credit_before: self.credit,
            credit_after: self.credit,
            due: 0,
            back_to_card: 0,
            noted_before: 0,
            noted_after: 0,
            is_discounted,
        });
        self.payments.len() - 1
    }

    /// What the card has to pay of a total: a credit pays first, and less than the minimum becomes part of the balance.
    fn due(&self, total: i64) -> i64 {
        let due = total - self.credit;
        if total >= 0 && due >= MINIMUM_CHARGE { due } else { 0 }
    }

    /// Whether lines of this total could not be paid now.
    pub(super) fn would_fail(&self, lines: &[Line]) -> bool {
        !self.card_works && self.due(Payment::total_of(lines)) > 0
    }

    /// Pays an invoice by the customer's credit and the card. `false` if the card does not work: then it stays open.
    pub(super) fn collect(&mut self, invoice: usize) -> bool {
        let total = self.payments[invoice].total;
        let due = self.due(total);
        self.credit = if due > 0 { 0 } else { self.credit - total };
        let payment = &mut self.payments[invoice];
        (payment.due, payment.credit_after) = (due, self.credit);
        if due > 0 && !self.card_works {
            self.tell_invoice("payment_failed", invoice);
            return false;
        }
        self.settle(invoice);
        true
    }

    /// The card pays what is due, if anything is, and the invoice is paid.
    pub(super) fn settle(&mut self, invoice: usize) {
        let now = self.now;
        let payment = &mut self.payments[invoice];
        (payment.status, payment.paid_at) = (InvoiceStatus::Paid, Some(now));
        self.paid += payment.due;
        self.count_usable(invoice);
        self.tell_invoice("paid", invoice);
        let payment = &self.payments[invoice];
        if payment.due > 0 && self.objects.api == Api::Current {
            self.tell("invoice_payment.paid", &Objects::invoice_payment(payment));
        }
    }

    /// An open invoice is paid after all. `false` if the card still does not work.
    pub(super) fn pay(&mut self, invoice: usize) -> bool {
        if !self.card_works || self.payments[invoice].status != InvoiceStatus::Open {
            return false;
        }
        self.settle(invoice);
        let Some(id) = self.payments[invoice].subscription.clone() else { return true };
        let is_open = |p: &Payment| p.status == InvoiceStatus::Open && p.subscription.as_ref() == Some(&id);
        let others = self.payments.iter().any(is_open);
        let subscription = self.subscriptions.iter().position(|s| s.id == id).expect("it has one");
        let status = self.subscriptions[subscription].status;
        if status == Status::Incomplete || (status == Status::PastDue && !others) {
            self.subscriptions[subscription].status = Status::Active;
            self.tell_subscription(subscription, "updated");
        }
        true
    }

    /// An open invoice is taken back, and the credit that it had used.
    pub(super) fn void(&mut self, invoice: usize) {
        let payment = &mut self.payments[invoice];
        self.credit += payment.credit_before - payment.credit_after;
        payment.status = InvoiceStatus::Void;
        self.tell_invoice("voided", invoice);
    }

    /// A pack is bought in a checkout session.
    pub(super) fn buy_by_session(&mut self, price: &str, quantity: i64) {
        let line = Line::once(self.lines.next_number(), self.price(price), quantity, self.now);
        let payment = Payment {
            id: self.next_id("cs_test"),
            kind: PaymentKind::Session,
            subscription: None,
            total: line.net(),
            billing_reason: "",
            status: InvoiceStatus::Paid,
            created: self.now,
            paid_at: Some(self.now),
            credit_before: self.credit,
            credit_after: self.credit,
            due: line.net(),
            lines: vec![line],
            back_to_card: 0,
            noted_before: 0,
            noted_after: 0,
            is_discounted: false,
        };
        self.paid += payment.due;
        self.tell("checkout.session.completed", &self.objects.session(&payment));
        self.payments.push(payment);
        self.count_usable(self.payments.len() - 1);
    }

    /// A pack is bought by an invoice of its own.
    pub(super) fn buy_by_invoice(&mut self, price: &str, quantity: i64) {
        let line = Line::once(self.lines.next_number(), self.price(price), quantity, self.now);
        let invoice = self.new_invoice(None, vec![line], "manual", false);
        self.collect(invoice);
    }

    pub(super) fn tell_invoice(&mut self, verb: &str, invoice: usize) {
        let object = self.objects.invoice(&self.payments[invoice]);
        self.tell(&format!("invoice.{verb}"), &object);
    }

    /// Moves the clock to `to`; what renews or ends on the way does so at its time.
    pub(super) fn advance(&mut self, to: i64) {
        loop {
            let next =
                |(index, subscription): (usize, &Subscription)| subscription.next_due().map(|at| (at, index));
            let due = self.subscriptions.iter().enumerate().filter_map(next).min();
            let Some((at, subscription)) = due.filter(|(at, _)| *at <= to) else { break };
            self.now = self.now.max(at);
            self.comes_due(subscription, at);
        }
        self.now = self.now.max(to);
    }

    /// A subscription ends, renews, or its first payment has never come.
    fn comes_due(&mut self, index: usize, at: i64) {
        let subscription = &self.subscriptions[index];
        let id = subscription.id.clone();
        if subscription.status == Status::Incomplete {
            self.happens(format!("{id} was never paid"), |stripe| stripe.expire(index));
        } else if subscription.cancel_at == Some(at)
            || (subscription.cancel_at_period_end && subscription.next_end() == at)
        {
            self.happens(format!("{id} ends"), |stripe| stripe.end(index));
        } else {
            self.happens(format!("{id} renews"), |stripe| stripe.renew(index));
        }
    }

    fn expire(&mut self, index: usize) {
        let subscription = &mut self.subscriptions[index];
        (subscription.status, subscription.ended_at) = (Status::IncompleteExpired, Some(self.now));
        let id = subscription.id.clone();
        let is_open = |p: &Payment| p.status == InvoiceStatus::Open && p.subscription.as_ref() == Some(&id);
        let open: Vec<usize> = (0..self.payments.len()).filter(|&i| is_open(&self.payments[i])).collect();
        for invoice in open {
            self.void(invoice);
        }
        self.tell_subscription(index, "updated");
    }

    /// The subscription has ended; what pends of it is never billed.
    pub(super) fn end(&mut self, index: usize) {
        let now = self.now;
        let subscription = &mut self.subscriptions[index];
        (subscription.status, subscription.ended_at) = (Status::Canceled, Some(now));
        subscription.canceled_at.get_or_insert(now);
        self.tell_subscription(index, "deleted");
    }

    /// The items whose periods are over go on, and are billed with what pends.
    fn renew(&mut self, index: usize) {
        let (now, months, short_by) = (self.now, self.settings.months, self.settings.short_by);
        let subscription = &mut self.subscriptions[index];
        if subscription.status == Status::Trialing {
            subscription.status = Status::Active;
        }
        let anchor = subscription.anchor;
        let mut renewing = Vec::new();
        for (index, item) in subscription.items.iter_mut().enumerate() {
            if item.end <= now {
                let end = months.period(anchor, item.price.months, item.end + short_by).1;
                (item.start, item.end) = (item.end, end);
                item.charges.retain(|charge| charge.end > now);
                renewing.push(index);
            }
        }
        if subscription.cancel_at_period_end {
            subscription.cancel_at = Some(subscription.last_end());
        }
        self.tell_subscription(index, "updated");
        let subscription = &mut self.subscriptions[index];
        let mut lines = match subscription.mode {
            BillingMode::Classic => std::mem::take(&mut subscription.pending),
            BillingMode::Flexible => Vec::new(),
        };
        lines.extend(renewing.into_iter().map(|item| self.lines.whole(subscription, item)));
        self.bill(index, lines, "subscription_cycle");
    }

    /// Charges the rest of the running period of each of these items.
    pub(super) fn charge_lines(&mut self, index: usize, items: &[usize]) -> Vec<Line> {
        let (now, subscription) = (self.now, &mut self.subscriptions[index]);
        items.iter().filter_map(|&item| self.lines.charge(subscription, item, now)).collect()
    }

    /// Credits what of these items' time is to come.
    pub(super) fn credit_lines(&mut self, index: usize, items: &[usize]) -> Vec<Line> {
        let (now, subscription) = (self.now, &mut self.subscriptions[index]);
        items.iter().flat_map(|&item| self.lines.credits(subscription, item, now)).collect()
    }
}
