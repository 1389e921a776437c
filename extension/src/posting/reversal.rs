//! Refunds and disputes: what an event about one of them takes back from a payment, or gives back to it.

use stripe_credits_rules::event::Event;
use stripe_credits_rules::fetched::Fetched;
use stripe_credits_rules::invoice::{self, InvoicePayment};
use stripe_credits_rules::reason::Reason;
use stripe_credits_rules::reversal::Reversals;
use stripe_credits_rules::verdict::Verdict;
use stripe_credits_rules::worth::NoGrant;

use crate::ledger::{Account, Origin};
use crate::outcome::Outcome;
use crate::pg::sql::Sql;
use crate::tables::payments::{self, Payment, SourceType};
use crate::tables::reversals;

/// Merges a payment's reversals with what is known of them, and posts the difference. Newer invoices do not name their payment
/// intents: if it is not known what a payment intent paid, Stripe is asked once for its invoices.
pub(crate) fn apply(
    sql: &mut Sql,
    event: &Event,
    incoming: &Reversals,
    fetched: Option<&Fetched>,
) -> Outcome {
    for reversal in &incoming.reversals {
        reversals::merge(sql, incoming, reversal);
    }
    let Some(payment_intent_id) = incoming.payment_intent_id.as_deref() else {
        return Outcome::ignored(Reason::UnknownPayment);
    };
    let answered = fetched.map_or(&[][..], Fetched::invoice_payments);
    for paid in answered.iter().filter(|paid| paid.payment_intent_id == payment_intent_id) {
        payments::link_payment_intent(sql, &paid.invoice_id, payment_intent_id);
    }
    if let Some(payment) = payments::of_payment_intent(sql, payment_intent_id).filter(|payment| payment.paid)
    {
        return settle(sql, event, &payment, payment_intent_id, Verdict::AlreadyApplied);
    }
    let nothing_to_ask = fetched.is_some()
        || payments::is_linked(sql, payment_intent_id)
        || reversals::was_fetched(sql, payment_intent_id);
    if nothing_to_ask {
        Outcome::ignored(Reason::UnknownPayment)
    } else {
        NoGrant::NeedsFetch(vec![invoice::payments_path(payment_intent_id)]).into()
    }
}

/// Records which payment intent paid which invoice, and posts what is known to reverse it.
pub(crate) fn invoice_paid_by(sql: &mut Sql, event: &Event, payment: &InvoicePayment) -> Outcome {
    let InvoicePayment { invoice_id, payment_intent_id } = payment;
    let is_new = payments::link_payment_intent(sql, invoice_id, payment_intent_id);
    let verdict = if is_new { Verdict::Applied } else { Verdict::AlreadyApplied };
    match payments::of_payment_intent(sql, payment_intent_id).filter(|payment| payment.paid) {
        Some(payment) => settle(sql, event, &payment, payment_intent_id, verdict),
        // The invoice itself comes later, or granted nothing.
        None => Outcome::of(verdict),
    }
}

fn settle(
    sql: &mut Sql,
    event: &Event,
    payment: &Payment,
    payment_intent_id: &str,
    unchanged: Verdict,
) -> Outcome {
    let (session_id, invoice_id) = match payment.source_type {
        SourceType::CheckoutSession => (Some(payment.source_id.as_str()), None),
        SourceType::Invoice | SourceType::DirectCall => (None, Some(payment.source_id.as_str())),
    };
    let origin = Origin {
        event_id: Some(&event.id),
        session_id,
        invoice_id,
        payment_intent_id: Some(payment_intent_id),
        ..Origin::default()
    };
    let mut account = Account::open(sql, payment.user);
    let verdict = match account.settle_reversals(sql, &payment.source_id, &origin) {
        false => Verdict::Parked(Reason::UnknownCharge),
        true if account.is_changed() => Verdict::Applied,
        true => unchanged,
    };
    account.close(sql, verdict)
}
