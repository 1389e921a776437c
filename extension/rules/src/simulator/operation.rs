//! What can be done at Stripe, as data: histories are lists of operations, made by hand or from numbers.

use super::account::Stripe;
use super::change::{Anchor, Proration, Start};
use super::ending::CancelAt;
use super::months::DAY;
use super::payment::{InvoiceStatus, Payment};
use super::price::Price;
use super::reversal::{NoteWay, Reversal, ReversalKind};
use super::subscription::{BillingMode, Status, Subscription};

/// How much of a payment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Portion {
    /// So many cents.
    Cents(i64),
    /// A third of it.
    Third,
    /// All that is left.
    Whole,
}

/// What goes up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Up {
    /// The price of the first item, if the other one is worth as much a month and is not paid more often.
    To(&'static str),
    /// The quantity of the first item, by so many.
    By(i64),
}

/// How a pack is bought.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BoughtBy {
    /// A checkout session.
    Session,
    /// An invoice of its own.
    Invoice,
}

/// Something that a customer or a merchant does at Stripe.
///
/// Subscriptions, items and payments are named by their place among those that the operation can be done to, counted
/// around: every operation means something in every history, so that histories shrink well.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(missing_docs, reason = "the fields are the operation's objects")]
pub enum Operation {
    /// The clock runs, in seconds.
    Wait(i64),
    /// The clock runs to a minute after a subscription's next renewal.
    Renew {
        subscription: usize,
    },
    /// The same, and the card fails there; the invoice is paid so many days later.
    RenewLate {
        subscription: usize,
        days: i64,
    },
    Subscribe {
        mode: BillingMode,
        items: Vec<(&'static str, i64)>,
        start: Start,
        percent_off: i64,
    },
    /// An item's price or quantity changes; without either, only the anchor moves.
    Change {
        subscription: usize,
        item: usize,
        price: Option<&'static str>,
        quantity: Option<i64>,
        proration: Proration,
        anchor: Anchor,
    },
    /// An item's price or quantity goes up, and nothing goes down.
    GoUp {
        subscription: usize,
        way: Up,
        proration: Proration,
        anchor: Anchor,
    },
    AddItem {
        subscription: usize,
        price: &'static str,
        quantity: i64,
        proration: Proration,
    },
    RemoveItem {
        subscription: usize,
        item: usize,
        proration: Proration,
    },
    /// Another item takes over.
    ReplaceItem {
        subscription: usize,
        item: usize,
        price: &'static str,
        proration: Proration,
    },
    ExtendTrial {
        subscription: usize,
        days: i64,
    },
    EndTrial {
        subscription: usize,
    },
    Cancel {
        subscription: usize,
        proration: Proration,
    },
    CancelLater {
        subscription: usize,
        when: CancelAt,
    },
    /// A cancellation that is to come is taken back.
    Keep {
        subscription: usize,
    },
    /// Invoices are voided from now on.
    PauseCollection {
        subscription: usize,
    },
    ResumeCollection {
        subscription: usize,
    },
    Pause {
        subscription: usize,
    },
    Resume {
        subscription: usize,
        anchor: Anchor,
        proration: Proration,
    },
    Buy {
        price: &'static str,
        quantity: i64,
        by: BoughtBy,
    },
    /// The card fails from now on.
    CardFails,
    CardWorks,
    /// An open invoice is paid.
    Pay {
        invoice: usize,
    },
    Refund {
        payment: usize,
        portion: Portion,
    },
    FailRefund {
        refund: usize,
    },
    Dispute {
        payment: usize,
        portion: Portion,
    },
    WinDispute {
        dispute: usize,
    },
    LoseDispute {
        dispute: usize,
    },
    CreditNote {
        invoice: usize,
        portion: Portion,
        way: NoteWay,
    },
}

impl Stripe {
    /// Does it, some seconds after what was done before. `false` if there was nothing to do it to, or Stripe would refuse
    /// it; then only the clock has moved.
    pub fn apply(&mut self, operation: &Operation) -> bool {
        match operation {
            Operation::Wait(seconds) => self.wait_until(self.now + seconds, operation),
            Operation::Renew { subscription } => self.wait_for_renewal(*subscription, operation),
            Operation::RenewLate { subscription, days } => {
                let could_pay = std::mem::replace(&mut self.card_works, false);
                let renewed = self.wait_for_renewal(*subscription, operation);
                self.card_works = could_pay;
                if renewed {
                    self.wait_until(self.now + days * DAY, operation);
                    self.advance(self.now + self.settings.seconds_between);
                    self.happens(format!("{operation:?}: paid"), Stripe::pay_all);
                }
                renewed
            }
            _ => {
                self.advance(self.now + self.settings.seconds_between);
                self.happens(format!("{operation:?}"), |stripe| stripe.perform(operation))
            }
        }
    }

    fn wait_until(&mut self, to: i64, operation: &Operation) -> bool {
        self.advance(to);
        self.happens(format!("{operation:?}"), |_| true)
    }

    fn wait_for_renewal(&mut self, subscription: usize, operation: &Operation) -> bool {
        let Some(index) = self.nth(subscription, Subscription::is_running) else { return false };
        self.wait_until(self.subscriptions[index].next_end() + 60, operation)
    }

    fn pay_all(&mut self) {
        for invoice in 0..self.payments.len() {
            self.pay(invoice);
        }
    }

    fn perform(&mut self, operation: &Operation) -> bool {
        self.perform_on_subscription(operation)
            .or_else(|| self.perform_on_money(operation))
            .unwrap_or_default()
    }

    /// `None` if the operation is of another kind, or there is nothing to do it to.
    fn perform_on_subscription(&mut self, operation: &Operation) -> Option<bool> {
        let is_running = Subscription::is_running;
        Some(match *operation {
            Operation::Subscribe { mode, ref items, start, percent_off } => {
                self.subscribe(mode, items, start, percent_off)
            }
            Operation::Change { subscription, item, price, quantity, proration, anchor } => {
                let (index, item) = self.nth_item(subscription, item)?;
                let of = &self.subscriptions[index].items[item];
                let to = (price.map_or(of.price, |id| self.price(id)), quantity.unwrap_or(of.quantity));
                self.change(index, item, to, proration, anchor)
            }
            Operation::GoUp { subscription, way, proration, anchor } => {
                let index = self.nth(subscription, is_running)?;
                let of = &self.subscriptions[index].items[0];
                let to = way.from(of.price, of.quantity, self)?;
                self.change(index, 0, to, proration, anchor)
            }
            Operation::AddItem { subscription, price, quantity, proration } => {
                let index = self.nth(subscription, is_running)?;
                self.add_item(index, self.price(price), quantity, proration)
            }
            Operation::RemoveItem { subscription, item, proration } => {
                let (index, item) = self.nth_item(subscription, item)?;
                self.remove_item(index, item, proration)
            }
            Operation::ReplaceItem { subscription, item, price, proration } => {
                let (index, item) = self.nth_item(subscription, item)?;
                self.replace_item(index, item, self.price(price), proration)
            }
            Operation::ExtendTrial { subscription, days } => {
                let index = self.nth(subscription, is_running)?;
                self.extend_trial(index, days);
                true
            }
            Operation::EndTrial { subscription } => {
                let index = self.nth(subscription, is_running)?;
                self.end_trial(index)
            }
            _ => return self.perform_on_end(operation),
        })
    }

    /// Ends and pauses.
    fn perform_on_end(&mut self, operation: &Operation) -> Option<bool> {
        let is_running = Subscription::is_running;
        Some(match *operation {
            Operation::Cancel { subscription, proration } => {
                let index = self.nth(subscription, Subscription::is_alive)?;
                self.cancel(index, proration);
                true
            }
            Operation::CancelLater { subscription, when } => {
                let index = self.nth(subscription, is_running)?;
                self.cancel_later(index, when);
                true
            }
            Operation::Keep { subscription } => {
                let index = self.nth(subscription, is_running)?;
                self.keep(index)
            }
            Operation::PauseCollection { subscription } => {
                let index = self.nth(subscription, is_running)?;
                self.void_invoices(index, true)
            }
            Operation::ResumeCollection { subscription } => {
                let index = self.nth(subscription, is_running)?;
                self.void_invoices(index, false)
            }
            Operation::Pause { subscription } => {
                let index = self.nth(subscription, is_running)?;
                self.pause(index);
                true
            }
            Operation::Resume { subscription, anchor, proration } => {
                let index = self.nth(subscription, |s| s.status == Status::Paused)?;
                self.resume(index, anchor, proration)
            }
            _ => return None,
        })
    }

    fn perform_on_money(&mut self, operation: &Operation) -> Option<bool> {
        Some(match *operation {
            Operation::Buy { price, quantity, by } => self.buy(price, quantity, by),
            Operation::CardFails => std::mem::replace(&mut self.card_works, false),
            Operation::CardWorks => !std::mem::replace(&mut self.card_works, true),
            Operation::Pay { invoice } => {
                let index = self.nth_payment(invoice, |p| p.status == InvoiceStatus::Open)?;
                self.pay(index)
            }
            Operation::Refund { payment, portion } => {
                let index = self.nth_payment(payment, |p| p.refundable() > 0)?;
                self.refund(index, portion.of(self.payments[index].due))
            }
            Operation::Dispute { payment, portion } => {
                let index = self.nth_payment(payment, |p| p.refundable() > 0)?;
                self.dispute(index, portion.of(self.payments[index].due))
            }
            Operation::CreditNote { invoice, portion, way } => {
                let index = self.nth_payment(invoice, |p| p.notable() > 0)?;
                self.credit_note(index, portion.of(self.payments[index].total), way)
            }
            Operation::FailRefund { refund } => {
                let index = self.nth_reversal(refund, ReversalKind::Refund)?;
                self.fail_refund(index)
            }
            Operation::WinDispute { dispute } => {
                let index = self.nth_reversal(dispute, ReversalKind::Dispute)?;
                self.close_dispute(index, true)
            }
            Operation::LoseDispute { dispute } => {
                let index = self.nth_reversal(dispute, ReversalKind::Dispute)?;
                self.close_dispute(index, false)
            }
            _ => return None,
        })
    }

    fn buy(&mut self, price: &'static str, quantity: i64, by: BoughtBy) -> bool {
        if self.price(price).months != 0 || !self.card_works {
            return false;
        }
        match by {
            BoughtBy::Session => self.buy_by_session(price, quantity),
            BoughtBy::Invoice => self.buy_by_invoice(price, quantity),
        }
        true
    }

    fn nth(&self, n: usize, fits: impl Fn(&Subscription) -> bool) -> Option<usize> {
        nth(n, &self.subscriptions, fits)
    }

    fn nth_item(&self, subscription: usize, item: usize) -> Option<(usize, usize)> {
        let index = self.nth(subscription, Subscription::is_running)?;
        Some((index, item % self.subscriptions[index].items.len()))
    }

    fn nth_payment(&self, n: usize, fits: impl Fn(&Payment) -> bool) -> Option<usize> {
        nth(n, &self.payments, fits)
    }

    fn nth_reversal(&self, n: usize, kind: ReversalKind) -> Option<usize> {
        nth(n, &self.reversals, |reversal: &Reversal| reversal.kind == kind && !reversal.is_undone)
    }
}

/// The place of the nth element that fits, counted around.
fn nth<T>(n: usize, all: &[T], fits: impl Fn(&T) -> bool) -> Option<usize> {
    let places: Vec<usize> = (0..all.len()).filter(|&i| fits(&all[i])).collect();
    (!places.is_empty()).then(|| places[n % places.len()])
}

impl Up {
    /// The higher price and quantity; `None` if it is not higher.
    fn from(self, price: &'static Price, quantity: i64, stripe: &Stripe) -> Option<(&'static Price, i64)> {
        match self {
            Up::By(units) => Some((price, quantity + units)),
            Up::To(id) => {
                let to = stripe.price(id);
                let worth_as_much =
                    to.credits * i64::from(price.months) >= price.credits * i64::from(to.months);
                (to.id != price.id && to.months >= price.months && worth_as_much).then_some((to, quantity))
            }
        }
    }
}

impl Portion {
    fn of(self, amount: i64) -> i64 {
        match self {
            Portion::Cents(cents) => cents,
            Portion::Third => (amount / 3).max(1),
            Portion::Whole => amount,
        }
    }
}
