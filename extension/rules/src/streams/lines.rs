//! What paid invoices bill: lines that are one, made one, and what money back leaves of each.

use std::collections::BTreeMap;

use super::OutOfRange;
use super::facts::{CameBack, Facts, Line, Payment, Period, StreamKey};
use super::intervals::is_about;
use super::share::{Share, share, whole};
use super::succession::{StreamId, Streams};
use crate::calendar::Span;
use crate::catalog::{NoPaymentRequired, PriceKind, ReversalPolicy};

/// A line of a stream: all lines of one item, price, period and direction on one invoice.
#[derive(Debug)]
pub(super) struct Billed<'a> {
    /// One of the lines that it is made of.
    pub(super) line: &'a Line,
    /// Its invoice.
    pub(super) payment: &'a Payment,
    /// Its item.
    pub(super) item: StreamKey,
    /// The stream of that item.
    pub(super) stream: StreamId,
    /// How many units.
    pub(super) quantity: i128,
    /// Cents, before discounts unless it is a proration.
    pub(super) amount: i128,
    /// Cents that discounts take of `amount`.
    pub(super) discount: i128,
    /// Whether it takes back: a negative amount, or it names the lines that it credits.
    pub(super) is_credit: bool,
    /// Whether it is a whole line: it opens a period of its price's whole credits.
    pub(super) is_whole: bool,
    /// Whether it moves credits at all; if not, it is a trial, a gift, or ignored by policy.
    pub(super) counts: bool,
    /// Stripe's interval of its price, else the catalog's.
    pub(super) interval: Span,
}

impl Billed<'_> {
    /// What it bills for.
    pub(super) fn period(&self) -> Period {
        self.line.period
    }

    /// Whether it is a plan's, not a recurring pack's.
    pub(super) fn is_plan(&self) -> bool {
        self.line.terms.kind == PriceKind::Plan
    }

    /// Of a plan in parts: how long a part is.
    pub(super) fn drip(&self) -> Option<Span> {
        self.line.terms.drip.filter(|_| self.is_plan())
    }

    /// Whether a period that it is the first line of opens: a plan's charge that still stands.
    pub(super) fn opens_periods(&self) -> bool {
        self.counts && self.is_plan() && !self.is_credit && !self.payment.is_reversed_whole()
    }

    /// Whether a discount brought it to 0.
    pub(super) fn is_free(&self) -> bool {
        self.amount == self.discount
    }

    /// The credits of all its units, for one interval or one part.
    pub(super) fn credits(&self) -> i128 {
        i128::from(self.line.terms.credits.0) * self.quantity
    }
}

/// The lines of all streams that moved money or were discounted to 0, in a fixed order.
pub(super) fn billed<'a>(facts: &'a Facts, streams: &Streams) -> Result<Vec<Billed<'a>>, OutOfRange> {
    let mut alike: BTreeMap<_, Vec<&Line>> = BTreeMap::new();
    for line in facts.lines.iter().filter(|line| line.is_of_a_stream() && !is_replaced(line, facts)) {
        let what = (&line.payment, &line.subscription, &line.item, &line.price, line.period);
        alike.entry((what, line.is_proration, line.is_credit())).or_default().push(line);
    }
    let payments = by_id(facts);
    let mut billed = Vec::with_capacity(alike.len());
    for lines in alike.into_values() {
        let line = lines[0];
        let item = StreamKey {
            subscription: line.subscription.clone().unwrap_or_default(),
            item: line.item.clone(),
        };
        let (Some(&payment), Some(stream)) = (payments.get(line.payment.as_str()), streams.id(&item)) else {
            continue;
        };
        let sum = |of: fn(&Line) -> i64| lines.iter().map(|line| i128::from(of(line))).sum::<i128>();
        let (amount, discount) = (sum(|line| line.amount.0), sum(|line| line.discount.0));
        let (interval, is_credit) = (line.interval.unwrap_or(line.terms.every), line.is_credit());
        let is_charge = !line.is_proration && amount > 0 && !is_credit;
        let is_pack = line.terms.kind == PriceKind::Pack;
        let mut one = Billed {
            line,
            payment,
            item,
            stream,
            quantity: sum(|line| line.quantity.max(0)),
            amount,
            discount,
            is_credit,
            is_whole: is_charge && (is_pack || is_about(line.period, interval)?),
            counts: true,
            interval,
        };
        one.counts = counts(&one, facts.no_payment_required);
        billed.push(one);
    }
    Ok(billed)
}

/// The payments, by id.
pub(super) fn by_id(facts: &Facts) -> BTreeMap<&str, &Payment> {
    facts.payments.iter().map(|payment| (payment.id.as_str(), payment)).collect()
}

/// Rule 7, lines and prorations of 0.
fn counts(billed: &Billed, no_payment_required: NoPaymentRequired) -> bool {
    let ignored = no_payment_required == NoPaymentRequired::Ignore;
    if billed.is_credit {
        // Under `ignore` what a discount brought to 0 granted nothing that a credit of 0 could take back.
        return billed.amount < 0 || !ignored;
    }
    if billed.amount == 0 && !(billed.line.is_proration && billed.line.is_discounted) {
        return false;
    }
    !(ignored && billed.is_free())
}

/// A direct call's line gives way to the line of the invoice that it was about, or to an earlier call's.
fn is_replaced(line: &Line, facts: &Facts) -> bool {
    let direct = |id: &str| facts.payments.iter().any(|payment| payment.id == id && payment.direct);
    line.item.is_none()
        && direct(&line.payment)
        && facts
            .lines
            .iter()
            .any(|other| other.replaces(line) && (!direct(&other.payment) || other.payment < line.payment))
}

impl Line {
    /// Rule 7: a negative amount, or it says which lines it credits.
    pub(super) fn is_credit(&self) -> bool {
        self.amount.0 < 0 || self.names_credited
    }

    /// Whether it is a line of a subscription that bills a period. A pack sold once with a plan is not.
    fn is_of_a_stream(&self) -> bool {
        match self.terms.kind {
            PriceKind::Plan => self.subscription.is_some(),
            PriceKind::Pack => self.subscription.is_some() && !self.is_sold_once(),
            PriceKind::NotCredits => false,
        }
    }

    /// Whether it bills a pack that is no item of a subscription.
    pub(super) fn is_sold_once(&self) -> bool {
        self.terms.kind == PriceKind::Pack && self.item.is_none() && !self.is_proration
    }

    /// Whether it is the invoice's line for what a direct call recorded.
    pub(super) fn replaces(&self, call: &Line) -> bool {
        let same =
            (&self.subscription, &self.price, self.period) == (&call.subscription, &call.price, call.period);
        same && !self.is_proration && !self.is_credit()
    }
}

/// What of a payment still counts (rule 5), as shares of 1.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Counted {
    /// Of a charge.
    pub(super) charge: Share,
    /// Of a credit line.
    pub(super) credit: Share,
}

impl Payment {
    /// Rule 5: a payment that came back whole is as if it had never been. Of another one credit lines stand whole, and a
    /// cent given back takes a cent's worth of the charges.
    pub(super) fn counted(&self) -> Counted {
        let part = self.came_back.part();
        if part == whole(1) {
            return Counted { charge: whole(0), credit: whole(0) };
        }
        let (charged, credited) = (i128::from(self.charged.0), i128::from(self.credited.0));
        let paid = if charged > 0 { share((charged - credited).max(0), charged) } else { whole(1) };
        Counted { charge: whole(1) - part * paid, credit: whole(1) }
    }

    /// Whether it is as if it had never been.
    pub(super) fn is_reversed_whole(&self) -> bool {
        self.came_back.part() == whole(1)
    }
}

impl CameBack {
    /// The part of 1 that came back; of a total of 0 or less nothing can.
    pub(super) fn part(self) -> Share {
        match (self.amount.0, self.of.0) {
            (..=0, _) | (_, ..=0) => whole(0),
            (amount, of) => share(amount.min(of), of),
        }
    }

    /// Whether what was drawn before it came back is written off.
    pub(super) fn is_forgiven(self) -> bool {
        self.policy == ReversalPolicy::Forgive
    }
}
