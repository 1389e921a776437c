//! The way of one event through the database: read, lock, judge, post, let what waited for it follow, write down.

use serde_json::{Value, json};
use stripe_credits_rules::catalog::Settings;
use stripe_credits_rules::event::{self, Event, Fetched, Malformed, Subject};
use stripe_credits_rules::identity::{self, Claims, Identity};
use stripe_credits_rules::purchase::Refusal;
use stripe_credits_rules::reason::Reason;
use stripe_credits_rules::session::{Item, Session};
use uuid::Uuid;

use crate::inbox::{self, Waiting};
use crate::json::JsonText;
use crate::outcome::{Outcome, Verdict};
use crate::sql::Sql;
use crate::{catalog, customers, ledger, locks, payments, purchase, reversals};

/// Through which door an event came in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Door {
    /// Stripe's word, or what waited for it: whose it is, is for the rules to say.
    Event,
    /// A user's browser came back: it must be that user's, and a refusal leaves no trace.
    Reconcile(Uuid),
}

/// Applies one delivery: the event's text, and what Stripe answered about it, where it was asked.
pub(crate) fn delivery(sql: &mut Sql, payload: &JsonText, fetched: Option<&JsonText>, door: Door) -> Outcome {
    let event = match event::read(payload.text()) {
        Ok(event) => event,
        Err(malformed) => return refuse(sql, &malformed, payload),
    };
    locks::catalog_shared();
    let waiting = lock_event(sql, &event);
    let settings = catalog::settings(sql);
    let mut judged = match fetched.map(|fetched| Fetched::read(fetched.text())).transpose() {
        Ok(answer) => judge(sql, settings.as_ref(), &event, answer.as_ref(), door),
        Err(malformed) => unreadable(&malformed),
    };
    if judged.outcome.verdict == Verdict::NeedsFetch && door == Door::Event {
        // Stripe may have answered an earlier delivery of this event already, which then waited for something else.
        if let Some(Ok(answer)) = inbox::fetched(sql, &event.id).map(|kept| Fetched::read(&kept)) {
            let again = judge(sql, settings.as_ref(), &event, Some(&answer), door);
            if again.outcome.verdict != Verdict::Parked(Reason::Shape) {
                judged = Judged { tied: judged.tied.or(again.tied), ..again };
            }
        }
    }
    let Judged { mut outcome, tied } = judged;
    if door != Door::Event && matches!(outcome.verdict, Verdict::Rejected(_)) {
        return outcome;
    }
    if tied.is_some() {
        outcome = follow_into(sql, settings.as_ref(), &waiting, outcome);
    }
    inbox::record(sql, &event, payload, fetched, &outcome);
    outcome
}

/// An answer of Stripe's that cannot be read is no answer, but the event is paid all the same: it waits.
fn unreadable(answer: &Malformed) -> Judged {
    let outcome = Outcome::of(Verdict::Parked(Reason::Shape)).with("fault", answer.fault.as_str());
    Judged { outcome, tied: None }
}

/// Keeps the refusal where the text carries an id to keep it under.
fn refuse(sql: &mut Sql, malformed: &Malformed, payload: &JsonText) -> Outcome {
    let outcome = refused(malformed);
    inbox::record_malformed(sql, malformed, payload, &outcome);
    outcome
}

pub(crate) fn refused(malformed: &Malformed) -> Outcome {
    Outcome::of(Verdict::Rejected(Reason::Malformed)).with("fault", malformed.fault.as_str())
}

/// Takes the locks of an event and of everything that would follow it. Answers what waits for the event's customer.
fn lock_event(sql: &mut Sql, event: &Event) -> Vec<Waiting> {
    match &event.subject {
        Subject::CheckoutSession(session) => {
            let payment_intent_id = session.payment_intent_id.as_deref();
            lock_payment(sql, session.customer_id.as_deref(), &session.id, payment_intent_id)
        }
        Subject::Reversals(reversals) => {
            locks::payments([], reversals.payment_intent_id.as_deref());
            Vec::new()
        }
        Subject::Other => Vec::new(),
    }
}

/// Takes the locks of a payment, in rule 15's order, and of everything that waits for its customer.
pub(crate) fn lock_payment(
    sql: &mut Sql,
    customer_id: Option<&str>,
    source_id: &str,
    payment_intent_id: Option<&str>,
) -> Vec<Waiting> {
    let waiting = match customer_id {
        Some(customer_id) => {
            locks::customer(customer_id);
            inbox::waiting_for_customer(sql, customer_id)
        }
        None => Vec::new(),
    };
    lock_waiting(&waiting, Some(source_id), payment_intent_id);
    waiting
}

/// Takes the locks of the payments that wait, together with one more.
pub(crate) fn lock_waiting(waiting: &[Waiting], source_id: Option<&str>, payment_intent_id: Option<&str>) {
    let sessions = sessions(waiting);
    locks::payments(
        sessions.iter().map(|session| session.id.as_str()).chain(source_id),
        sessions.iter().filter_map(|session| session.payment_intent_id.as_deref()).chain(payment_intent_id),
    );
}

/// Takes the payment intents' locks of what waits for a session, under the session's lock.
pub(crate) fn lock_payment_intents(waiting: &[Waiting]) {
    let sessions = sessions(waiting);
    locks::payments([], sessions.iter().filter_map(|session| session.payment_intent_id.as_deref()));
}

fn sessions(waiting: &[Waiting]) -> Vec<Session> {
    let subject = |waiting: &Waiting| event::read(&waiting.payload).ok().map(|event| event.subject);
    waiting
        .iter()
        .filter_map(|waiting| match subject(waiting) {
            Some(Subject::CheckoutSession(session)) => Some(*session),
            _ => None,
        })
        .collect()
}

/// Judges what waited for something that is known now. Answers what came of each, for the outcome's details.
pub(crate) fn follow(sql: &mut Sql, settings: Option<&Settings>, waiting: &[Waiting]) -> Vec<Value> {
    let summary = |(waiting, outcome): (&Waiting, Outcome)| {
        json!({
            "event_id": waiting.event_id,
            "outcome": outcome.verdict.as_str(),
            "reason": outcome.verdict.reason().map(Reason::as_str),
            "user_id": outcome.user,
            "credits": outcome.credits.0,
        })
    };
    waiting
        .iter()
        .map(|waiting| (waiting, judge_waiting(sql, settings, waiting).outcome))
        .map(summary)
        .collect()
}

/// Lets what waited follow, and writes what came of it into the outcome of what it waited for.
pub(crate) fn follow_into(
    sql: &mut Sql,
    settings: Option<&Settings>,
    waiting: &[Waiting],
    mut outcome: Outcome,
) -> Outcome {
    let followed = follow(sql, settings, waiting);
    if followed.is_empty() {
        return outcome;
    }
    outcome.balances = outcome.user.and_then(|user| ledger::balances(sql, user));
    outcome.with("followed", followed)
}

/// Judges a parked event by what is known now, and what waited for its customer after it. The caller holds the catalog's
/// lock alone.
pub(crate) fn retry(sql: &mut Sql, settings: Option<&Settings>, waiting: &Waiting) -> Outcome {
    let Judged { outcome, tied } = judge_waiting(sql, settings, waiting);
    let Some(customer_id) = tied else { return outcome };
    let followers = inbox::waiting_for_customer(sql, &customer_id);
    follow_into(sql, settings, &followers, outcome)
}

/// Judges an event that waited, by what is known now, and writes down what came of it.
fn judge_waiting(sql: &mut Sql, settings: Option<&Settings>, waiting: &Waiting) -> Judged {
    let judged =
        match (event::read(&waiting.payload), waiting.fetched.as_deref().map(Fetched::read).transpose()) {
            (Ok(event), Ok(fetched)) => judge(sql, settings, &event, fetched.as_ref(), Door::Event),
            (Err(malformed), _) => Judged { outcome: refused(&malformed), tied: None },
            (_, Err(malformed)) => unreadable(&malformed),
        };
    inbox::update(sql, &waiting.event_id, &judged.outcome);
    judged
}

/// What an event came to.
struct Judged {
    outcome: Outcome,
    /// Its customer, where that is another user than before: what waits for the customer can follow.
    tied: Option<String>,
}

fn judge(
    sql: &mut Sql,
    settings: Option<&Settings>,
    event: &Event,
    fetched: Option<&Fetched>,
    door: Door,
) -> Judged {
    let untied = |outcome| Judged { outcome, tied: None };
    let Some(settings) = settings else {
        return untied(Outcome::of(Verdict::Parked(Reason::NoCatalog)));
    };
    if let Some(reason) = settings.wall.refuses(event) {
        return untied(Outcome::of(Verdict::Ignored(reason)));
    }
    match &event.subject {
        Subject::CheckoutSession(session) => judge_session(sql, settings, event, session, fetched, door),
        Subject::Reversals(reversals) => untied(reversals::apply(sql, event, reversals)),
        Subject::Other => untied(Outcome::of(Verdict::Ignored(Reason::EventType))),
    }
}

/// Whose the session is, what its customer's tie becomes, and what it is worth to them.
fn judge_session(
    sql: &mut Sql,
    settings: &Settings,
    event: &Event,
    session: &Session,
    fetched: Option<&Fetched>,
    door: Door,
) -> Judged {
    let tie = session.customer_id.as_deref().and_then(|customer_id| customers::tie(sql, customer_id));
    let known = payments::of_session(sql, &session.id, session.payment_intent_id.as_deref());
    let owner = |paid| known.as_ref().filter(|payment| payment.paid == paid).map(|payment| payment.user);
    let identity = identity::identify(Claims {
        paid_for: owner(true),
        metadata: session.metadata_user,
        attributed: owner(false),
        tie: tie.map(|tie| tie.user),
        client_reference: session.client_reference,
    });
    if let Door::Reconcile(expected) = door {
        // Refused before anything is written: nobody learns or moves anything by naming somebody else's session.
        let reason = match identity {
            Ok(identity) if identity.user == expected => None,
            Err(Reason::UnknownUser) => Some(Reason::NoOwner),
            _ => Some(Reason::NotOwner),
        };
        if let Some(reason) = reason {
            return Judged { outcome: Outcome::of(Verdict::Rejected(reason)), tied: None };
        }
    }
    let said = identity::tie_said(session.metadata_user, session.client_reference, session.created);
    let tied = match (&session.customer_id, said, identity) {
        (Some(customer_id), Some(said), Ok(_)) => {
            customers::say(sql, customer_id, tie, said).then(|| customer_id.clone())
        }
        _ => None,
    };
    let mut outcome = match (purchase::worth(sql, settings, session, fetched), identity) {
        (Ok(lots), Ok(identity)) => purchase::session(sql, event, session, known.as_ref(), identity, &lots),
        (Ok(_), Err(Reason::Conflict)) => Outcome::of(Verdict::Rejected(Reason::Conflict)),
        (Ok(_), Err(reason)) => Outcome::of(Verdict::Parked(reason)),
        // It names no lines, but the payment is in the books: there is nothing to ask Stripe for.
        (Err(Refusal::NeedsFetch(_)), Ok(_)) if owner(true).is_some() => Outcome::of(Verdict::AlreadyApplied),
        (Err(refused), _) => refusal(refused),
    };
    if let Ok(Identity { user, mismatch }) = identity {
        outcome.user = Some(user);
        if outcome.balances.is_none() {
            outcome.balances = ledger::balances(sql, user);
        }
        if let Some(other) = mismatch {
            outcome = outcome.with("identity_mismatch", json!({ "customer_tied_to": other }));
        }
    }
    Judged { outcome, tied }
}

fn refusal(refused: Refusal) -> Outcome {
    match refused {
        Refusal::Ignored(reason) => Outcome::of(Verdict::Ignored(reason)),
        Refusal::NeedsFetch(paths) => Outcome { to_fetch: paths, ..Outcome::of(Verdict::NeedsFetch) },
        Refusal::Parked(reason, unknown) if unknown.is_empty() => Outcome::of(Verdict::Parked(reason)),
        Refusal::Parked(reason, unknown) => {
            let missing: Vec<Value> = unknown.iter().map(|item| name(item).into()).collect();
            Outcome::of(Verdict::Parked(reason)).with("missing_prices", missing)
        }
        Refusal::Rejected(reason) => Outcome::of(Verdict::Rejected(reason)),
    }
}

fn name(item: &Item) -> &str {
    match item {
        Item::Price(name) | Item::Pack(name) => name,
        Item::Unpriced => "(none)",
    }
}
