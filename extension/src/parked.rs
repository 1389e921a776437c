//! Events that are parked: the locks they need, and judging them again once what they lacked is known.

use std::collections::BTreeSet;

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
use crate::tables::forgotten;
use crate::tables::inbox::{self, ParkedEvent};
use crate::tables::payments::{self, Known};

/// What was read while the locks of an event were taken.
pub(crate) struct Locked {
    /// The events that are parked for its customer.
    pub(crate) parked: Vec<ParkedEvent>,
    /// What is known under the names of its payments, and of theirs.
    pub(crate) known: Known,
}

/// Takes the locks of a payment and of the events that are parked for its customer, in rule 15's order. `moving` tells, once the
/// sources are locked, which payments move to another user with their subscriptions.
pub(crate) fn lock_with_parked(
    sql: &mut Sql,
    customer_id: Option<&str>,
    keys: &Keys,
    moving: impl FnOnce(&mut Sql) -> Vec<String>,
) -> Locked {
    let parked = match customer_id {
        Some(customer_id) => {
            locks::customer(customer_id);
            inbox::parked_for_customer(sql, customer_id)
        }
        None => Vec::new(),
    };
    let subjects = subjects(&parked);
    let parked_keys: Vec<Keys> = subjects.iter().map(Subject::keys).collect();
    let all = || parked_keys.iter().chain([keys]);
    locks::sources(all().flat_map(|keys| keys.sources.iter().copied()));
    let mut names: Vec<String> =
        all().flat_map(|keys| keys.names.iter().map(|name| (*name).to_owned())).collect();
    names.extend(moving(sql));
    let known = lock_names(sql, &names);
    Locked { parked, known }
}

/// Takes the locks of the payments of events that are parked for a session. The caller holds the session's lock.
pub(crate) fn lock_payments(sql: &mut Sql, session_id: &str, parked: &[ParkedEvent]) {
    let subjects = subjects(parked);
    let names = subjects.iter().flat_map(|subject| subject.keys().names).chain([session_id]);
    let names: Vec<String> = names.map(str::to_owned).collect();
    lock_names(sql, &names);
}

/// Locks names, and then the payments that they are known to name: so two events of one payment wait for each other, whatever
/// each calls it. Who joins names of two payments holds the locks of both, so that what names a payment does not change
/// under its lock; until it is taken it may. Returns what they name.
fn lock_names(sql: &mut Sql, names: &[String]) -> Known {
    locks::payment_names(names.iter().map(String::as_str));
    let mut locked: BTreeSet<String> = BTreeSet::new();
    loop {
        let known = payments::known(sql, names.to_owned());
        let sources: Vec<&str> =
            known.sources().into_iter().filter(|source_id| !locked.contains(*source_id)).collect();
        if sources.is_empty() {
            return known;
        }
        locks::payments(sources.iter().copied());
        locked.extend(sources.into_iter().map(str::to_owned));
    }
}

fn subjects(parked: &[ParkedEvent]) -> Vec<Subject> {
    let events = parked.iter().filter_map(|parked_event| event::read(&parked_event.payload).ok());
    events.map(|event| event.subject).collect()
}

/// Judges parked events again. Returns what came of each, for the outcome's details.
pub(crate) fn reapply_parked(
    sql: &mut Sql,
    settings: Option<&Settings>,
    parked: &[ParkedEvent],
) -> Vec<Value> {
    let mut reapplied = Vec::new();
    for parked_event in parked {
        let outcome = rejudge(sql, settings, parked_event).outcome;
        reapplied.push(json!({
            "event_id": parked_event.event_id,
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
    parked: &[ParkedEvent],
    mut outcome: Outcome,
) -> Outcome {
    let reapplied = reapply_parked(sql, settings, parked);
    if reapplied.is_empty() {
        return outcome;
    }
    outcome.balances = outcome.user.and_then(|user| ledger::balances(sql, user));
    outcome.with("followed", reapplied)
}

/// Judges a parked event by what is known now, and if that unblocks other events of its customer, those too. The caller holds
/// the catalog's lock exclusively.
pub(crate) fn retry(sql: &mut Sql, settings: Option<&Settings>, parked_event: &ParkedEvent) -> Outcome {
    let Judged { outcome, unblocked } = rejudge(sql, settings, parked_event);
    let Some(customer_id) = unblocked else { return outcome };
    let others = inbox::parked_for_customer(sql, &customer_id);
    with_reapplied(sql, settings, &others, outcome)
}

/// Judges a parked event by what is known now, and records what came of it.
fn rejudge(sql: &mut Sql, settings: Option<&Settings>, parked_event: &ParkedEvent) -> Judged {
    let ParkedEvent { event_id, payload, fetched, .. } = parked_event;
    let judged = match (event::read(payload), fetched.as_deref().map(Fetched::read).transpose()) {
        (Ok(event), Ok(fetched)) => judge(sql, settings, &event, fetched.as_ref(), Caller::Stripe, None),
        (Err(malformed), _) => Outcome::malformed(&malformed).into(),
        (_, Err(malformed)) => unreadable_answer(&malformed).into(),
    };
    inbox::record_outcome(sql, event_id, &judged.outcome);
    if forgotten::includes(sql, judged.outcome.user, None) {
        inbox::reduce(sql, event_id, payload, fetched.as_deref());
    }
    judged
}

/// The outcome of an event if Stripe's answer about it cannot be read. It is parked, because it may be a payment.
pub(crate) fn unreadable_answer(answer: &Malformed) -> Outcome {
    Outcome::parked(Reason::Shape).with("fault", answer.fault.as_str())
}
