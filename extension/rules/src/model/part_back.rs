//! Which part of a payment came back (rule 5).

use std::collections::BTreeSet;

use super::facts::Facts;
use super::number::{Fraction, ratio, whole};
use super::reversals::{CreditNote, Refund};

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
    let mut counted = 0;
    for (id, charge) in facts.charges.iter().filter(|(id, _)| names.contains(*id)) {
        let was_included = |refund: &&&Refund| {
            let is_of_charge = refund.charge.as_ref().is_none_or(|of| of == id);
            let failed_later = refund.failed_at.is_some_and(|failed| failed >= charge.refunded_at);
            is_of_charge && refund.created <= charge.refunded_at && failed_later
        };
        let failed: i64 = its.iter().filter(was_included).map(|refund| refund.amount).sum();
        counted += (charge.refunded - failed).max(0);
    }
    live.max(counted)
}

/// Disputes count "at most what was left of the charge; in another currency one counts whole".
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
    its.map(|note| amount(note, facts)).sum()
}

/// "Issued and not void: `pre_payment_amount` + (`post_payment_amount` − Σ refunds' amounts); older shape: `total`
/// if its type is pre_payment, else `total` − the amount of its `refund`."
fn amount(note: &CreditNote, facts: &Facts) -> i64 {
    if note.is_void {
        return 0;
    }
    let refund = note.refund.as_ref().and_then(|id| facts.refunds.get(id));
    let refunded = note.refunded.unwrap_or(refund.map_or(0, |refund| refund.amount));
    if note.pre_payment.is_some() || note.post_payment.is_some() {
        return note.pre_payment.unwrap_or(0) + note.post_payment.unwrap_or(0) - refunded;
    }
    if note.is_pre_payment { note.total } else { note.total - refunded }
}
