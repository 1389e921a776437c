//! Refunds, disputes and credit notes: what an event about one of them takes back from a payment, or gives back to it.

use std::collections::BTreeSet;

use stripe_credits_rules::event::Event;
use stripe_credits_rules::fetched::Fetched;
use stripe_credits_rules::invoice::{self, InvoicePayment};
use stripe_credits_rules::name::Name;
use stripe_credits_rules::reason::Reason;
use stripe_credits_rules::reversal::{self, Reversals};
use stripe_credits_rules::verdict::Verdict;
use stripe_credits_rules::worth::NoGrant;
use uuid::Uuid;

use crate::ledger::{Accounts, Origin};
use crate::outcome::Outcome;
use crate::payment;
use crate::pg::sql::Sql;
use crate::tables::payments::{self, Joined, Known, Payment};
use crate::tables::{invoice_lines, ownership, reversals};

/// Merges a payment's reversals with what is known of them, and posts the difference. If it is not known which payment a
/// payment intent or a charge is, Stripe is asked once: newer invoices do not name their payment intents.
pub(crate) fn apply(
    sql: &mut Sql,
    event: &Event,
    incoming: &Reversals,
    fetched: Option<&Fetched>,
    known: impl FnOnce(&mut Sql, &[Name]) -> Known,
) -> Outcome {
    let mut names = incoming.names();
    let payment_name = names.first().map(|name| name.id);
    merge(sql, payment_name, incoming);
    let Some(payment_name) = payment_name else {
        return Outcome::ignored(Reason::UnknownPayment);
    };
    if let Some(fetched) = fetched {
        names.extend(names.clone().iter().flat_map(|name| fetched.names_of(name.id)));
        let of_it = fetched.charges().iter().filter(|charge| is_named(&names, &charge.names()));
        of_it.for_each(|charge| merge(sql, Some(payment_name), charge));
    }
    let known = known(sql, &names);
    let joined = payment::join(sql, &known, None, &names);
    if let Some(payment) = &joined.payment {
        let payment_intent_id = incoming.payment_intent_id.as_deref();
        return settle(sql, event, payment, &joined.duplicates, payment_intent_id, Verdict::AlreadyApplied);
    }
    let nothing_to_ask = fetched.is_some()
        || payments::is_linked(sql, payment_name)
        || reversals::was_fetched(sql, payment_name);
    match (&incoming.payment_intent_id, &incoming.charge_id) {
        (Some(id), _) if !nothing_to_ask => NoGrant::NeedsFetch(vec![invoice::payments_path(id)]).into(),
        (None, Some(id)) if !nothing_to_ask => NoGrant::NeedsFetch(vec![reversal::charge_path(id)]).into(),
        _ => Outcome::ignored(Reason::UnknownPayment),
    }
}

fn merge(sql: &mut Sql, payment_name: Option<&str>, incoming: &Reversals) {
    for reversal in &incoming.reversals {
        reversals::merge(sql, payment_name, reversal);
    }
}

fn is_named(names: &[Name], others: &[Name]) -> bool {
    others.iter().any(|other| names.contains(other))
}

/// Records what paid which invoice, and posts what is known to reverse it.
pub(crate) fn invoice_paid_by(
    sql: &mut Sql,
    event: &Event,
    incoming: &InvoicePayment,
    known: &Known,
) -> Outcome {
    let Joined { payment, duplicates, is_new, .. } = payment::join(sql, known, None, &incoming.names());
    let verdict = if is_new { Verdict::Applied } else { Verdict::AlreadyApplied };
    let payment_intent_id = incoming.payment_intent_id.as_deref();
    match payment {
        Some(payment) => settle(sql, event, &payment, &duplicates, payment_intent_id, verdict),
        // The invoice itself comes later, or granted nothing.
        None => Outcome::of(verdict),
    }
}

/// Posts what a payment's reversals take back by now, and takes back what was granted for duplicates of it.
pub(crate) fn settle(
    sql: &mut Sql,
    event: &Event,
    payment: &Payment,
    duplicates: &[Payment],
    payment_intent_id: Option<&str>,
    unchanged: Verdict,
) -> Outcome {
    let of_payment = payment::origin(payment);
    let payment_intent_id = payment_intent_id.or(of_payment.payment_intent_id);
    let origin = Origin { event_id: Some(&event.id), payment_intent_id, ..of_payment };
    // Its lines may count in several accounts, and former users of its subscriptions keep what they drew.
    let mut users: BTreeSet<Uuid> = BTreeSet::from([payment.user]);
    users.extend(invoice_lines::users(sql, &payment.source_id).into_iter().map(|(user, _)| user));
    users.extend(ownership::former_users_of_payment(sql, &payment.source_id));
    users.extend(duplicates.iter().map(|duplicate| duplicate.user));
    let mut accounts = Accounts::open(sql, &users);
    payment::take_back(sql, &event.id, duplicates, &mut accounts);
    let mut is_known = true;
    for account in accounts.iter_mut() {
        account.learn_as_of_event(event.created);
        is_known &= account.touch_reversals(sql, &payment.source_id, &origin);
    }
    // It fits: what comes back was held before.
    let _ = accounts.settle(sql, &origin);
    let verdict = match is_known {
        false => Verdict::Parked(Reason::UnknownCharge),
        true if accounts.is_changed() => Verdict::Applied,
        true => unchanged,
    };
    accounts.close(sql, verdict, payment.user)
}
