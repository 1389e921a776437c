//! How money goes back: refunds, disputes, credit notes.

use super::account::Stripe;
use super::payment::{InvoiceStatus, PaymentKind};
use super::reversal::{NoteWay, Reversal, ReversalKind};

impl Stripe {
    /// Gives `amount` cents, or what is left, back to the card. `false` if nothing is.
    pub(super) fn refund(&mut self, payment: usize, amount: i64) -> bool {
        let amount = amount.min(self.payments[payment].refundable());
        if amount <= 0 {
            return false;
        }
        self.refund_to_card(payment, amount);
        true
    }

    fn refund_to_card(&mut self, payment: usize, amount: i64) -> String {
        let refund = self.new_reversal("re", ReversalKind::Refund, payment, amount);
        self.payments[payment].back_to_card += amount;
        self.returned += amount;
        self.reversals.push(refund.clone());
        self.tell("refund.created", &self.objects.reversal(&refund));
        let refunded = self.refunded(payment);
        self.tell("charge.refunded", &self.objects.charge(&self.payments[payment], refunded));
        refund.id
    }

    /// What refunds that stand took back of a payment.
    fn refunded(&self, payment: usize) -> i64 {
        let id = &self.payments[payment].id;
        let stands = |r: &&Reversal| r.kind == ReversalKind::Refund && !r.is_undone && &r.payment == id;
        self.reversals.iter().filter(stands).map(|refund| refund.amount).sum()
    }

    /// A refund does not arrive, and the money is the merchant's again. `false` if it cannot.
    pub(super) fn fail_refund(&mut self, reversal: usize) -> bool {
        let of_note = self.reversals.iter().any(|r| r.refund.as_ref() == Some(&self.reversals[reversal].id));
        let refund = &mut self.reversals[reversal];
        if refund.kind != ReversalKind::Refund || refund.is_undone || of_note {
            return false;
        }
        (refund.status, refund.is_undone) = ("failed", true);
        let refund = refund.clone();
        self.money_again(&refund);
        self.tell("refund.failed", &self.objects.reversal(&refund));
        true
    }

    fn money_again(&mut self, reversal: &Reversal) {
        let payment = self.payment_of(reversal);
        self.payments[payment].back_to_card -= reversal.amount;
        self.returned -= reversal.amount;
    }

    fn payment_of(&self, reversal: &Reversal) -> usize {
        self.payments.iter().position(|payment| payment.id == reversal.payment).expect("it has a payment")
    }

    /// The bank takes `amount` cents, or what is left, back. `false` if nothing is.
    pub(super) fn dispute(&mut self, payment: usize, amount: i64) -> bool {
        let amount = amount.min(self.payments[payment].refundable());
        if amount <= 0 {
            return false;
        }
        let mut dispute = self.new_reversal("dp", ReversalKind::Dispute, payment, amount);
        dispute.status = "needs_response";
        self.payments[payment].back_to_card += amount;
        self.returned += amount;
        self.tell("charge.dispute.created", &self.objects.reversal(&dispute));
        dispute.is_withdrawn = true;
        self.tell("charge.dispute.funds_withdrawn", &self.objects.reversal(&dispute));
        self.reversals.push(dispute);
        true
    }

    /// The bank decides for the merchant, or for the customer. `false` if there is nothing to decide.
    pub(super) fn close_dispute(&mut self, reversal: usize, is_won: bool) -> bool {
        let dispute = &mut self.reversals[reversal];
        if dispute.kind != ReversalKind::Dispute || dispute.status != "needs_response" {
            return false;
        }
        (dispute.status, dispute.is_undone) = if is_won { ("won", true) } else { ("lost", false) };
        let dispute = dispute.clone();
        if is_won {
            self.money_again(&dispute);
            self.tell("charge.dispute.funds_reinstated", &self.objects.reversal(&dispute));
        }
        self.tell("charge.dispute.closed", &self.objects.reversal(&dispute));
        true
    }

    /// Writes `amount` cents, or what is left, off an invoice: off what is still to pay, or out of what was paid.
    /// `false` if there is nothing to write off.
    pub(super) fn credit_note(&mut self, payment: usize, amount: i64, way: NoteWay) -> bool {
        let of = &self.payments[payment];
        let most = match (of.status, way) {
            (InvoiceStatus::Paid, NoteWay::Card) if of.kind == PaymentKind::Invoice => of.refundable(),
            _ => of.notable(),
        };
        let amount = amount.min(most);
        if amount <= 0 {
            return false;
        }
        if self.payments[payment].status == InvoiceStatus::Open {
            self.note_before_payment(payment, amount);
        } else {
            self.note_after_payment(payment, amount, way);
        }
        true
    }

    fn note_before_payment(&mut self, payment: usize, amount: i64) {
        let note = self.new_reversal("cn", ReversalKind::CreditNoteBefore, payment, amount);
        self.payments[payment].noted_before += amount;
        self.payments[payment].due -= amount;
        self.tell("credit_note.created", &self.objects.reversal(&note));
        self.reversals.push(note);
        if self.payments[payment].due == 0 {
            self.settle(payment);
        }
    }

    fn note_after_payment(&mut self, payment: usize, amount: i64, way: NoteWay) {
        let mut note = self.new_reversal("cn", ReversalKind::CreditNoteAfter, payment, amount);
        note.way = Some(way);
        match way {
            NoteWay::Card => note.refund = Some(self.refund_to_card(payment, amount)),
            NoteWay::Credit => {
                self.payments[payment].noted_after += amount;
                self.credit += amount;
            }
            NoteWay::ByHand => {
                self.payments[payment].noted_after += amount;
                self.returned += amount;
            }
        }
        self.tell("credit_note.created", &self.objects.reversal(&note));
        self.reversals.push(note);
    }

    fn new_reversal(&mut self, prefix: &str, kind: ReversalKind, payment: usize, amount: i64) -> Reversal {
        let status = if kind.object() == "credit_note" { "issued" } else { "succeeded" };
        Reversal {
            id: self.next_id(prefix),
            kind,
            payment: self.payments[payment].id.clone(),
            amount,
            created: self.now,
            status,
            is_withdrawn: false,
            is_undone: false,
            way: None,
            refund: None,
        }
    }
}
