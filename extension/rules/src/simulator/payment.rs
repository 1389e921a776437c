//! Invoices and checkout sessions: what they bill, how they were paid, and what went back.

use super::line::{Line, LineKind};
use super::price::share;

/// What below is not worth a charge and goes to the customer's balance instead, in cents.
pub(super) const MINIMUM_CHARGE: i64 = 50;

/// Which of Stripe's objects it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PaymentKind {
    /// A checkout session in payment mode.
    Session,
    /// An invoice.
    Invoice,
}

/// An invoice's status.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InvoiceStatus {
    /// It waits for its money.
    Open,
    /// It is settled, whatever by.
    Paid,
    /// It was taken back.
    Void,
    /// Its money was given up.
    Uncollectible,
}

impl InvoiceStatus {
    /// Stripe's word.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            InvoiceStatus::Open => "open",
            InvoiceStatus::Paid => "paid",
            InvoiceStatus::Void => "void",
            InvoiceStatus::Uncollectible => "uncollectible",
        }
    }
}

/// An invoice or a session. Amounts are in cents.
#[derive(Debug, Clone)]
pub struct Payment {
    /// `in_…` or `cs_…`.
    pub id: String,
    /// Which of the two.
    pub kind: PaymentKind,
    /// The subscription that it bills.
    pub subscription: Option<String>,
    /// What it bills.
    pub lines: Vec<Line>,
    /// Why it was made, in Stripe's words.
    pub billing_reason: &'static str,
    /// Its status; a session is paid.
    pub status: InvoiceStatus,
    /// When it was made, in Unix seconds.
    pub created: i64,
    /// When it was paid, in Unix seconds.
    pub paid_at: Option<i64>,
    /// After discounts, before the customer's balance and credit notes.
    pub total: i64,
    /// The customer's credit when it was finalized; below 0 if the customer owed something.
    pub credit_before: i64,
    /// The customer's credit afterwards.
    pub credit_after: i64,
    /// What the card paid, or has to pay while it is open.
    pub due: i64,
    /// What refunds and disputes took back from the card.
    pub back_to_card: i64,
    /// What credit notes took back before it was paid.
    pub noted_before: i64,
    /// What credit notes took back afterwards, but for what went to the card.
    pub noted_after: i64,
    /// Whether it carries a discount.
    pub is_discounted: bool,
}

impl Payment {
    /// What its lines come to.
    #[must_use]
    pub fn total_of(lines: &[Line]) -> i64 {
        lines.iter().map(Line::net).sum()
    }

    /// What came back of its total, by any way.
    #[must_use]
    pub fn back(&self) -> i64 {
        self.back_to_card + self.noted_before + self.noted_after
    }

    /// What can still go back to the card.
    #[must_use]
    pub fn refundable(&self) -> i64 {
        if self.status != InvoiceStatus::Paid {
            return 0;
        }
        (self.due - self.back_to_card).min(self.total - self.back()).max(0)
    }

    /// What a credit note can still take back.
    #[must_use]
    pub fn notable(&self) -> i64 {
        match (self.kind, self.status) {
            (PaymentKind::Invoice, InvoiceStatus::Paid) => (self.total - self.back()).max(0),
            (PaymentKind::Invoice, InvoiceStatus::Open) => self.due.min(self.total - self.back()).max(0),
            _ => 0,
        }
    }

    /// What its money buys, in credits at the prices' rates: its lines, up and down, less what went back. A cent that
    /// goes back takes a cent's worth of what was charged; once all of it is back, it is as if it had never been.
    #[must_use]
    pub fn worth(&self) -> i64 {
        if self.status != InvoiceStatus::Paid || (self.total > 0 && self.back() >= self.total) {
            return 0;
        }
        let (up, down): (Vec<_>, Vec<_>) = self.lines.iter().partition(|line| !line.is_credit());
        let charged: i64 = up.iter().map(|line| line.worth()).sum();
        let credited: i64 = down.iter().map(|line| line.worth()).sum();
        let cents: i64 = up.iter().map(|line| line.net()).sum();
        let back = if cents > 0 { share(charged, self.back(), cents) } else { 0 };
        charged - back + credited
    }

    /// How much of [`Payment::worth`] at most is for periods that begin after `now`, or in parts that may: in credits.
    #[must_use]
    pub fn to_come(&self, now: i64) -> i64 {
        if self.worth() == 0 {
            return 0;
        }
        let later = |line: &&Line| !line.is_credit() && (line.start > now || line.price.part_months > 0);
        self.lines.iter().filter(later).map(Line::worth).sum()
    }

    /// What its lines buy for use at once, in credits: of a price in parts, one part. At least: how much of the running part
    /// a prorated line of such a price covers depends on that part, so each credit counts a part, and a charge beside
    /// credits nothing.
    #[must_use]
    pub fn usable(&self, now: i64) -> i64 {
        let is_credited = |line: &Line| {
            let mut others = self.lines.iter().filter(|other| other.price == line.price);
            others.any(Line::is_credit)
        };
        let of_line = |line: &Line| {
            let part = line.price.credits_of_part() * line.quantity;
            match line.price.part_months {
                _ if line.start > now => 0,
                0 => line.worth(),
                _ if line.kind == LineKind::Charge && is_credited(line) => 0,
                _ => line.worth().clamp(-part, part),
            }
        };
        self.lines.iter().map(of_line).sum()
    }
}
