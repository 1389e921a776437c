//! Which part of a payment came back: refunds, disputes and credit notes (rule 5).

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::facts::Facts;
use super::json::{first_id, id, integer, list};
use super::number::{Fraction, ratio, whole};

#[derive(Debug, Clone, Default)]
pub(super) struct Refund {
    payment: Vec<String>,
    charge: Option<String>,
    amount: i64,
    created: i64,
    as_of: i64,
    /// When it was said first to have failed or been canceled.
    failed_at: Option<i64>,
}

impl Refund {
    pub(super) fn learn(&mut self, object: &Value, as_of: i64) {
        self.payment.extend([&object["charge"], &object["payment_intent"]].into_iter().filter_map(id));
        self.charge = id(&object["charge"]).or(self.charge.take());
        if as_of >= self.as_of {
            self.as_of = as_of;
            self.amount = integer(&object["amount"]).unwrap_or(self.amount);
        }
        self.created = integer(&object["created"]).unwrap_or(as_of);
        if ["failed", "canceled"].contains(&object["status"].as_str().unwrap_or_default()) {
            self.failed_at = Some(self.failed_at.map_or(as_of, |known| known.min(as_of)));
        }
    }
}

#[derive(Debug, Clone, Default)]
pub(super) struct Dispute {
    payment: Vec<String>,
    amount: i64,
    currency: Option<String>,
    /// Whether the funds were withdrawn, by the time that said it: "the later `created` deciding".
    funds: BTreeMap<i64, bool>,
    /// The same by status alone, which counts where nothing tells of the funds.
    status: BTreeMap<i64, bool>,
}

impl Dispute {
    /// "By funds, not by status: withdrawn (`funds_withdrawn`, or balance_transactions; without either, a status of
    /// needs_response, under_review, lost) and not reinstated (`funds_reinstated`, won)."
    pub(super) fn learn(&mut self, event: &Value, as_of: i64) {
        let object = &event["data"]["object"];
        self.payment.extend([&object["charge"], &object["payment_intent"]].into_iter().filter_map(id));
        self.amount = integer(&object["amount"]).unwrap_or(self.amount);
        self.currency = object["currency"].as_str().map(str::to_owned).or(self.currency.take());
        let moved = list(&object["balance_transactions"]);
        let status = object["status"].as_str().unwrap_or_default();
        let event_type = event["type"].as_str().unwrap_or_default();
        if event_type == "charge.dispute.funds_withdrawn" {
            self.funds.insert(as_of, true);
        } else if event_type == "charge.dispute.funds_reinstated" || status == "won" {
            self.funds.insert(as_of, false);
        } else if !moved.is_empty() {
            let sum: i64 = moved.iter().filter_map(|transaction| integer(&transaction["amount"])).sum();
            self.funds.insert(as_of, sum < 0);
        } else {
            self.status.insert(as_of, ["needs_response", "under_review", "lost"].contains(&status));
        }
    }

    fn is_withdrawn(&self) -> bool {
        let told = if self.funds.is_empty() { &self.status } else { &self.funds };
        told.last_key_value().is_some_and(|(_, is_withdrawn)| *is_withdrawn)
    }
}

#[derive(Debug, Clone, Default)]
pub(super) struct CreditNote {
    invoice: Option<String>,
    as_of: i64,
    is_void: bool,
    pre_payment: Option<i64>,
    post_payment: Option<i64>,
    total: i64,
    is_pre_payment: bool,
    /// The older shape's one refund.
    refund: Option<String>,
    /// What the newer shape's refunds amount to.
    refunded: Option<i64>,
}

impl CreditNote {
    pub(super) fn learn(&mut self, object: &Value, as_of: i64) {
        self.is_void |= object["status"].as_str() == Some("void");
        if as_of < self.as_of {
            return;
        }
        self.as_of = as_of;
        self.invoice = id(&object["invoice"]);
        self.pre_payment = integer(&object["pre_payment_amount"]);
        self.post_payment = integer(&object["post_payment_amount"]);
        self.total = integer(&object["total"]).or(integer(&object["amount"])).unwrap_or(0);
        self.is_pre_payment = object["type"].as_str() == Some("pre_payment");
        self.refund = first_id(&[&object["refund"]]);
        let refunds = object["refunds"].as_array();
        self.refunded = refunds
            .filter(|refunds| !refunds.is_empty())
            .map(|refunds| refunds.iter().filter_map(|refund| integer(&refund["amount_refunded"])).sum());
    }

    /// "Issued and not void: `pre_payment_amount` + (`post_payment_amount` − Σ refunds' amounts); older shape: `total`
    /// if its type is pre_payment, else `total` − the amount of its `refund`."
    fn amount(&self, facts: &Facts) -> i64 {
        if self.is_void {
            return 0;
        }
        let refund = self.refund.as_ref().and_then(|id| facts.refunds.get(id));
        let refunded = self.refunded.unwrap_or(refund.map_or(0, |refund| refund.amount));
        if self.pre_payment.is_some() || self.post_payment.is_some() {
            return self.pre_payment.unwrap_or(0) + self.post_payment.unwrap_or(0) - refunded;
        }
        if self.is_pre_payment { self.total } else { self.total - refunded }
    }
}

/// "Of one payment, `part = (refunds + disputes + credit notes) / charged`, at most 1."
pub(super) fn part_back(facts: &Facts, names: &BTreeSet<String>) -> Fraction {
    // "Nothing known: it waits." "Of a total of 0 or less nothing can come back."
    let Some(charged) = charged(facts, names).filter(|charged| *charged > 0) else { return whole(0) };
    let refunds = refunds(facts, names);
    let back = refunds + disputes(facts, names, charged, refunds) + credit_notes(facts, names);
    ratio(back.clamp(0, charged), charged)
}

/// "The invoice's `total`, the session's amount_total, the intent's amount_received, charge.amount where none is known
/// or in another currency."
fn charged(facts: &Facts, names: &BTreeSet<String>) -> Option<i64> {
    let currency = currency(facts, names);
    let charges = || names.iter().filter_map(|name| facts.charges.get(name));
    if currency.is_some() && charges().any(|charge| charge.currency.is_some() && charge.currency != currency)
    {
        return Some(charges().filter_map(|charge| charge.amount).sum());
    }
    let invoices = names.iter().filter_map(|name| facts.invoices.get(name)?.total);
    let sessions = names.iter().filter_map(|name| facts.sessions.get(name)?.total);
    let intents = names.iter().filter_map(|name| facts.intents.get(name)?.received);
    let known = invoices.chain(sessions).chain(intents).next();
    known.or_else(|| charges().filter_map(|charge| charge.amount).reduce(|a, b| a + b))
}

/// The currency that the payment was asked in.
fn currency(facts: &Facts, names: &BTreeSet<String>) -> Option<String> {
    let invoices = names.iter().filter_map(|name| facts.invoices.get(name)?.currency.clone());
    let sessions = names.iter().filter_map(|name| facts.sessions.get(name)?.currency.clone());
    let intents = names.iter().filter_map(|name| facts.intents.get(name)?.bought.currency.clone());
    invoices.chain(sessions).chain(intents).next()
}

/// "max(Σ live refunds, Σ over charges of each charge's highest cumulative − those failed refunds that the cumulative
/// included)."
fn refunds(facts: &Facts, names: &BTreeSet<String>) -> i64 {
    let its: Vec<&Refund> = facts
        .refunds
        .values()
        .filter(|refund| refund.payment.iter().any(|name| names.contains(name)))
        .collect();
    let live: i64 = its.iter().filter(|refund| refund.failed_at.is_none()).map(|refund| refund.amount).sum();
    let mut told = 0;
    for (id, charge) in facts.charges.iter().filter(|(id, _)| names.contains(*id)) {
        let was_included = |refund: &&&Refund| {
            let is_of_charge = refund.charge.as_ref().is_none_or(|of| of == id);
            let failed_later = refund.failed_at.is_some_and(|failed| failed >= charge.refunded_at);
            is_of_charge && refund.created <= charge.refunded_at && failed_later
        };
        let failed: i64 = its.iter().filter(was_included).map(|refund| refund.amount).sum();
        told += (charge.refunded - failed).max(0);
    }
    live.max(told)
}

/// Disputes count "at most what was left of the charge; in another currency [one] counts whole".
fn disputes(facts: &Facts, names: &BTreeSet<String>, charged: i64, refunds: i64) -> i64 {
    let currency = currency(facts, names);
    let its =
        facts.disputes.values().filter(|dispute| dispute.payment.iter().any(|name| names.contains(name)));
    let withdrawn = its.filter(|dispute| dispute.is_withdrawn()).map(|dispute| {
        let is_other = currency.is_some() && dispute.currency.is_some() && dispute.currency != currency;
        if is_other { charged } else { dispute.amount }
    });
    let amounts = names.iter().filter_map(|name| facts.charges.get(name)?.amount);
    let charge = amounts.reduce(|a, b| a + b).unwrap_or(charged);
    withdrawn.sum::<i64>().min((charge - refunds).max(0))
}

fn credit_notes(facts: &Facts, names: &BTreeSet<String>) -> i64 {
    let notes = facts.credit_notes.values();
    let its = notes.filter(|note| note.invoice.as_ref().is_some_and(|invoice| names.contains(invoice)));
    its.map(|note| note.amount(facts)).sum()
}
