//! What an invoice bills.

use super::price::Price;

/// Which kind of line it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LineKind {
    /// A whole period, or a trial's.
    Whole,
    /// What is bought once.
    Once,
    /// A part of a period that is charged.
    Charge,
    /// A part of a period that is given back, and the number of the line that had charged it, if one had.
    Credit(Option<u32>),
}

/// A line of an invoice.
#[derive(Debug, Clone)]
pub struct Line {
    /// Names it, on whatever invoice it ends.
    pub number: u32,
    /// The subscription and its item, but for what is bought once.
    pub(super) source: Option<Source>,
    /// What is billed.
    pub price: &'static Price,
    /// How many units.
    pub quantity: i64,
    /// Cents, as Stripe says: of a whole line before discounts, of a prorated one after them.
    pub amount: i64,
    /// What discounts take off a whole line, in cents.
    pub discount: i64,
    /// Cents before any discount.
    pub amount_at_list: i64,
    /// What is billed from, in Unix seconds.
    pub start: i64,
    /// What is billed to, in Unix seconds.
    pub end: i64,
    /// Which kind of line it is.
    pub kind: LineKind,
    /// Whether Stripe calls it a proration.
    pub is_proration: bool,
    /// By how many credits its worth may be another than its money's share: cents, seconds and months are not the same.
    pub tolerance: i64,
}

/// Where a line comes from.
#[derive(Debug, Clone)]
pub(super) struct Source {
    pub(super) subscription: String,
    pub(super) item: String,
}

impl Line {
    /// What it costs after discounts, in cents.
    #[must_use]
    pub fn net(&self) -> i64 {
        self.amount - self.discount
    }

    /// What it is worth in credits at the prices' rates, whatever discounts took off it.
    #[must_use]
    pub fn worth(&self) -> i64 {
        self.price.worth(self.amount_at_list)
    }

    /// Whether it gives back.
    #[must_use]
    pub fn is_credit(&self) -> bool {
        matches!(self.kind, LineKind::Credit(_))
    }

    /// What one unit of an invoice's or a checkout's pack costs.
    pub(super) fn once(number: u32, price: &'static Price, quantity: i64, now: i64) -> Line {
        let amount = price.cents * quantity;
        Line {
            number,
            source: None,
            price,
            quantity,
            amount,
            discount: 0,
            amount_at_list: amount,
            start: now,
            end: now,
            kind: LineKind::Once,
            is_proration: false,
            tolerance: 1,
        }
    }
}
