//! Events that are parked: the locks they need, and judging them again once what they lacked is known.

use std::collections::BTreeSet;

use serde_json::{Value, json};
use stripe_credits_rules::calendar::Time;
use stripe_credits_rules::catalog::Settings;
use stripe_credits_rules::event::{self, Event, Keys, Malformed, Subject};
use stripe_credits_rules::fetched::Fetched;
use stripe_credits_rules::reason::Reason;
use stripe_credits_rules::told::Told;
use stripe_credits_rules::user::UserNames;
use stripe_credits_rules::verdict::Verdict;
use uuid::Uuid;

use crate::judge::{Caller, Judged, judge};
use crate::ledger;
use crate::outcome::Outcome;
use crate::pg::convert::clock;
use crate::pg::locks;
use crate::pg::sql::Sql;
use crate::tables::customers;
use crate::tables::forgotten;
use crate::tables::inbox::{self, ParkedEvent};
use crate::tables::outbox;
use crate::tables::payments::{self, Known};

/// The maximum number of events that one transaction judges again because of one call, with those that they unblock. The others
/// are due: `retry_due`, `run_due` and `retry_parked` judge them, a transaction a batch, and what waits for a batch is served
/// between two. So few, because on a busy machine an event takes some 5 ms, and every delivery waits for the batch.
pub(crate) const BATCH: i64 = 20;
/// The maximum number of events of busy accounts that a batch passes over, beside those that name a busy user.
const MAX_BUSY_EVENTS: usize = 1_000;

/// Takes the locks of a payment, or of several, in rule 15's order. `moving` tells, once the sources are locked, which payments
/// move to another user with their subscriptions. Returns what is known under the payments' names.
pub(crate) fn lock(
    sql: &mut Sql,
    customer_ids: &[&str],
    keys: &Keys,
    moving: impl FnOnce(&mut Sql) -> Vec<String>,
) -> Known {
    locks::customers(customer_ids.iter().copied());
    locks::sources(keys.sources.iter().copied());
    let mut names: Vec<String> = keys.names.iter().map(|name| (*name).to_owned()).collect();
    names.extend(moving(sql));
    lock_names(sql, &names)
}

/// What was read while the locks of a call were taken.
pub(crate) struct Locked {
    /// Events that are parked for its customers.
    pub(crate) parked: Vec<ParkedEvent>,
    /// What is known under the names of its payments, and of theirs.
    pub(crate) known: Known,
}

/// The same for a call that links customers itself: takes the locks of up to [`BATCH`] events that are parked for each of them,
/// too.
pub(crate) fn lock_with_parked(
    sql: &mut Sql,
    customer_ids: &[&str],
    keys: &Keys,
    moving: impl FnOnce(&mut Sql) -> Vec<String>,
) -> Locked {
    locks::customers(customer_ids.iter().copied());
    let of_customers = customer_ids.iter().map(|id| inbox::parked_for_customer(sql, id, BATCH));
    let parked: Vec<ParkedEvent> = of_customers.flatten().collect();
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
    let lock = |sources: &[&str]| {
        locks::payments(sources.iter().copied());
        true
    };
    lock_named(sql, names, lock).expect("who waits has every lock in the end")
}

/// Locks the payments that names are known to name, until no lock brings another to light. `None` if one is not had.
fn lock_named(sql: &mut Sql, names: &[String], lock: impl Fn(&[&str]) -> bool) -> Option<Known> {
    let mut locked: BTreeSet<String> = BTreeSet::new();
    loop {
        let known = payments::known(sql, names.to_owned());
        let sources: Vec<&str> =
            known.sources().into_iter().filter(|source_id| !locked.contains(*source_id)).collect();
        if sources.is_empty() {
            return Some(known);
        }
        if !lock(&sources) {
            return None;
        }
        locked.extend(sources.into_iter().map(str::to_owned));
    }
}

/// Takes the locks of a parked event that are free, and returns whether all of them are. It waits for none, so an account may
/// be locked by now.
fn try_lock(sql: &mut Sql, parked_event: &ParkedEvent) -> bool {
    // What cannot be read names nothing.
    let Ok(event) = event::read(&parked_event.payload) else { return true };
    let keys = event.subject.keys();
    let names: Vec<String> = keys.names.iter().map(|name| (*name).to_owned()).collect();
    if !locks::try_sources(keys.sources.iter().copied())
        || !locks::try_payment_names(names.iter().map(String::as_str))
    {
        return false;
    }
    lock_named(sql, &names, |sources| locks::try_payments(sources.iter().copied())).is_some()
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

/// Judges the events again that a delivery unblocked, and adds what came of them to its outcome: up to [`BATCH`] of those whose
/// locks are free. The others become due. The caller holds the customer's lock.
pub(crate) fn with_unblocked(
    sql: &mut Sql,
    settings: Option<&Settings>,
    customer_id: &str,
    outcome: Outcome,
) -> Outcome {
    let judged_from = clock();
    let parked = inbox::parked_for_customer(sql, customer_id, BATCH);
    let (free, held): (Vec<_>, Vec<_>) = parked.into_iter().partition(|event| try_lock(sql, event));
    let is_all = held.is_empty() && !is_full(&free, BATCH);
    let outcome = with_reapplied(sql, settings, &free, outcome);
    leave_due(sql, customer_id, is_all, judged_from);
    outcome
}

/// Makes the events of a customer due that a call unblocked and did not judge, if there may be any beside `parked`.
pub(crate) fn leave_the_rest_due(
    sql: &mut Sql,
    customer_id: &str,
    parked: &[ParkedEvent],
    judged_from: Time,
) {
    leave_due(sql, customer_id, !is_full(parked, BATCH), judged_from);
}

/// The same, unless those that were judged are all that name the customer so, and makes those due that name it otherwise: what
/// links one name to a user links all, but their locks are not held.
fn leave_due(sql: &mut Sql, customer_id: &str, is_all: bool, judged_from: Time) {
    if !is_all {
        inbox::make_due(sql, customer_id, judged_from);
    }
    for other in customers::other_names(sql, customer_id) {
        inbox::make_due(sql, &other, judged_from);
    }
}

/// Makes an event of an unknown user due if its customer has other names: one of them may just have been linked, by who does not
/// hold this one's lock. Whoever judges what is due holds the catalog's lock, and so sees every link.
pub(crate) fn retry_by_other_names(sql: &mut Sql, event: &Event) {
    let Some(customer_id) = event.customer_id.as_deref() else { return };
    if event.account_of_customer.is_none() && !customers::other_names(sql, customer_id).is_empty() {
        inbox::make_due(sql, customer_id, clock());
    }
}

fn is_full(parked: &[ParkedEvent], limit: i64) -> bool {
    count(parked) >= limit
}

fn count<T>(all: &[T]) -> i64 {
    i64::try_from(all.len()).unwrap_or(i64::MAX)
}

/// Judges up to `limit` parked events again that were last judged before a time, with those that they unblock: those that
/// waited longest first, and none of a busy account, for which everything else of Stripe's would wait too. Returns the
/// outcomes by event. The caller holds the catalog's lock exclusively.
pub(crate) fn retry_before(
    sql: &mut Sql,
    settings: Option<&Settings>,
    before: Time,
    limit: i64,
) -> Vec<(String, Outcome)> {
    let mut retried: Vec<(String, Outcome)> = Vec::new();
    let (mut busy_users, mut busy_events) = (Vec::new(), Vec::new());
    let mut room = limit;
    loop {
        let parked = inbox::parked_before(sql, before, room, &busy_users, &busy_events);
        if parked.is_empty() || busy_events.len() > MAX_BUSY_EVENTS {
            return retried;
        }
        for parked_event in parked {
            if room == 0 {
                return retried;
            }
            match likely_user(sql, settings, &parked_event).filter(|user| ledger::is_busy(sql, *user)) {
                None => {
                    room -= 1;
                    let (outcome, unblocked) = retry(sql, settings, &parked_event, room);
                    room -= unblocked;
                    retried.push((parked_event.event_id, outcome));
                }
                Some(user) if parked_event.user.is_some() => busy_users.push(user),
                Some(_) => busy_events.push(parked_event.event_id),
            }
        }
    }
}

/// The user in whose account a parked event will be posted, as far as that can be told before it is judged.
fn likely_user(sql: &mut Sql, settings: Option<&Settings>, parked_event: &ParkedEvent) -> Option<Uuid> {
    if parked_event.user.is_some() {
        return parked_event.user;
    }
    let event = event::read(&parked_event.payload).ok()?;
    let namespace = settings.and_then(|settings| settings.user_namespace);
    let linked = |sql: &mut Sql| customers::find(sql, event.customer_id.as_deref()?).map(|link| link.user);
    named_users(&event.subject).into_iter().find_map(|names| names.user(namespace)).or_else(|| linked(sql))
}

/// The texts by which an event's object names its user, the ones that count more first.
pub(crate) fn named_users(subject: &Subject) -> Vec<&UserNames> {
    match subject {
        Subject::CheckoutSession(session) => vec![&session.metadata_user, &session.client_reference],
        Subject::Subscription(subscription) => vec![&subscription.metadata_user],
        Subject::Invoice(invoice) => vec![&invoice.metadata_user],
        Subject::PaymentIntent(intent) => vec![&intent.metadata_user],
        _ => Vec::new(),
    }
}

/// Judges a parked event by what is known now, and if that unblocks other events of its customer, up to `limit` of those; the
/// rest is due. Returns how many. The caller holds the catalog's lock exclusively.
fn retry(
    sql: &mut Sql,
    settings: Option<&Settings>,
    parked_event: &ParkedEvent,
    limit: i64,
) -> (Outcome, i64) {
    let judged_from = clock();
    let Judged { outcome, unblocked } = rejudge(sql, settings, parked_event);
    let Some(customer_id) = unblocked else { return (outcome, 0) };
    let others = inbox::parked_for_customer(sql, &customer_id, limit);
    let outcome = with_reapplied(sql, settings, &others, outcome);
    leave_due(sql, &customer_id, !is_full(&others, limit), judged_from);
    (outcome, count(&others))
}

/// Judges a parked event by what is known now, and records what came of it.
fn rejudge(sql: &mut Sql, settings: Option<&Settings>, parked_event: &ParkedEvent) -> Judged {
    let ParkedEvent { event_id, payload, fetched, .. } = parked_event;
    let event = event::read(payload);
    let judged = match (&event, fetched.as_deref().map(Fetched::read).transpose()) {
        (Ok(event), Ok(fetched)) => judge(sql, settings, event, fetched.as_ref(), Caller::Stripe, None),
        (Err(malformed), _) => Outcome::malformed(malformed).into(),
        (_, Err(malformed)) => unreadable_answer(&malformed).into(),
    };
    let was_parked = inbox::record_outcome(sql, event_id, &judged.outcome);
    if let Ok(event) = &event {
        tell(sql, event, was_parked, &judged.outcome);
    }
    if forgotten::includes(sql, judged.outcome.user, None) {
        inbox::reduce(sql, event_id, payload, fetched.as_deref());
    }
    judged
}

/// Tells the app of a payment that is parked, once for each reason, and of one that was parked and is not any more.
pub(crate) fn tell(sql: &mut Sql, event: &Event, was_parked: bool, outcome: &Outcome) {
    if !event.subject.is_payment() {
        return;
    }
    let mut data = json!({
        "stripe_event_id": event.id,
        "stripe_event_type": event.event_type,
        "stripe_object_id": event.object_id,
        "stripe_customer_id": event.customer_id,
    });
    match (outcome.verdict, outcome.user) {
        (Verdict::Parked(reason), user) => {
            data["reason"] = reason.as_str().into();
            data["user_id"] = json!(user);
            data["missing_prices"] = outcome.details.get("missing_prices").cloned().unwrap_or_default();
            let object_id = event.object_id.as_deref().unwrap_or(&event.id);
            outbox::insert_once(sql, Told::PaymentParked, &[object_id, reason.as_str()], &data);
        }
        (Verdict::Applied | Verdict::AlreadyApplied, Some(user)) if was_parked => {
            data["credits"] = outcome.credits.0.into();
            ledger::tell_of_payment(sql, user, outcome.balances.as_ref(), Told::PaymentAppliedLate, data);
        }
        _ => {}
    }
}

/// The outcome of an event if Stripe's answer about it cannot be read. It is parked, because it may be a payment.
pub(crate) fn unreadable_answer(answer: &Malformed) -> Outcome {
    Outcome::parked(Reason::Shape).with("fault", answer.fault.as_str())
}
