//! Events that are parked: the locks they need, and judging them again once what they lacked is known.

use serde_json::{Value, json};
use stripe_credits_rules::catalog::Settings;
use stripe_credits_rules::event::{self, Keys, Malformed, Subject};
use stripe_credits_rules::fetched::Fetched;
use stripe_credits_rules::reason::Reason;

use crate::judge::{Caller, Judged, judge};
use crate::ledger;
use crate::outcome::Outcome;
use crate::pg::locks;
use crate::pg::sql::Sql;
use crate::tables::inbox::{self, Waiting};
use crate::tables::payments;

/// Takes the locks of a payment and of the events that are parked for its customer, in rule 15's order. Answers those
/// events.
pub(crate) fn lock_with_parked(sql: &mut Sql, customer_id: Option<&str>, keys: &Keys) -> Vec<Waiting> {
    let waiting = match customer_id {
        Some(customer_id) => {
            locks::customer(customer_id);
            inbox::waiting_for_customer(sql, customer_id)
        }
        None => Vec::new(),
    };
    let subjects = subjects(&waiting);
    let parked: Vec<Keys> = subjects.iter().map(Subject::keys).collect();
    let all = || parked.iter().chain([keys]);
    locks::sources(all().flat_map(|keys| keys.sources.iter().copied()));
    // An invoice's payment intents come by events of their own, which take the invoice's lock.
    let mut of_invoices = Vec::new();
    for invoice_id in all().flat_map(|keys| keys.invoices.iter()) {
        of_invoices.extend(payments::payment_intents(sql, invoice_id));
    }
    let of_invoices = of_invoices.iter().map(String::as_str);
    locks::payment_intents(all().flat_map(|keys| keys.payment_intents.iter().copied()).chain(of_invoices));
    waiting
}

/// Takes the payment intents' locks of the events that are parked for a session. The caller holds the session's lock.
pub(crate) fn lock_payment_intents(waiting: &[Waiting]) {
    let subjects = subjects(waiting);
    locks::payment_intents(subjects.iter().flat_map(|subject| subject.keys().payment_intents));
}

fn subjects(waiting: &[Waiting]) -> Vec<Subject> {
    let events = waiting.iter().filter_map(|waiting| event::read(&waiting.payload).ok());
    events.map(|event| event.subject).collect()
}

/// Judges parked events again. Answers what came of each, for the outcome's details.
pub(crate) fn reapply_parked(sql: &mut Sql, settings: Option<&Settings>, waiting: &[Waiting]) -> Vec<Value> {
    let mut reapplied = Vec::new();
    for waiting in waiting {
        let outcome = rejudge(sql, settings, waiting).outcome;
        reapplied.push(json!({
            "event_id": waiting.event_id,
            "outcome": outcome.verdict.as_str(),
            "reason": outcome.verdict.reason().map(Reason::as_str),
            "user_id": outcome.user,
            "credits": outcome.credits.0,
        }));
    }
    reapplied
}

/// Judges parked events again, and adds what came of them to the outcome of the call that unblocked them.
pub(crate) fn with_reapplied(
    sql: &mut Sql,
    settings: Option<&Settings>,
    waiting: &[Waiting],
    mut outcome: Outcome,
) -> Outcome {
    let reapplied = reapply_parked(sql, settings, waiting);
    if reapplied.is_empty() {
        return outcome;
    }
    outcome.balances = outcome.user.and_then(|user| ledger::balances(sql, user));
    outcome.with("followed", reapplied)
}

/// Judges a parked event by what is known now, then the events that are parked for its customer if that unblocked them. The
/// caller holds the catalog's lock exclusively.
pub(crate) fn retry(sql: &mut Sql, settings: Option<&Settings>, waiting: &Waiting) -> Outcome {
    let Judged { outcome, unblocked } = rejudge(sql, settings, waiting);
    let Some(customer_id) = unblocked else { return outcome };
    let others = inbox::waiting_for_customer(sql, &customer_id);
    with_reapplied(sql, settings, &others, outcome)
}

/// Judges a parked event by what is known now, and records what came of it.
fn rejudge(sql: &mut Sql, settings: Option<&Settings>, waiting: &Waiting) -> Judged {
    let judged =
        match (event::read(&waiting.payload), waiting.fetched.as_deref().map(Fetched::read).transpose()) {
            (Ok(event), Ok(fetched)) => judge(sql, settings, &event, fetched.as_ref(), Caller::Stripe),
            (Err(malformed), _) => Outcome::malformed(&malformed).into(),
            (_, Err(malformed)) => unreadable_answer(&malformed).into(),
        };
    inbox::update(sql, &waiting.event_id, &judged.outcome);
    judged
}

/// The outcome of an event about which Stripe's answer cannot be read: the event itself may be of a payment, so it waits.
pub(crate) fn unreadable_answer(answer: &Malformed) -> Outcome {
    Outcome::parked(Reason::Shape).with("fault", answer.fault.as_str())
}
