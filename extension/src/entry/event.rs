//! One event of Stripe's in one transaction: read it, lock, judge, re-apply events that it unblocks, record. Several of them in
//! one transaction: batch.rs.

mod batch; // several events in one transaction

use stripe_credits_rules::calendar::Time;
use stripe_credits_rules::catalog::Settings;
use stripe_credits_rules::event::{self, Event, Malformed, Subject};
use stripe_credits_rules::fetched::Fetched;
use stripe_credits_rules::jsonb::storable;
use stripe_credits_rules::name::NameKind;
use stripe_credits_rules::reason::Reason;
use stripe_credits_rules::verdict::Verdict;
use uuid::Uuid;

pub(crate) use batch::deliver_texts;

use crate::judge::{Caller, Judged, judge};
use crate::outcome::Outcome;
use crate::parked;
use crate::pg::convert::clock;
use crate::pg::error::document_of_body;
use crate::pg::json::JsonText;
use crate::pg::locks;
use crate::pg::sql::Sql;
use crate::tables::payments::Known;
use crate::tables::{catalog, forgotten, inbox, ownership, subscriptions};

/// Applies one delivery: the event, and Stripe's answer about it if Stripe was asked.
pub(crate) fn deliver(sql: &mut Sql, payload: &JsonText, fetched: Option<&JsonText>) -> Outcome {
    apply(sql, event::read(payload.text()), payload, fetched, Caller::Stripe)
}

/// The same from the text of a webhook's body, in which what jsonb refuses is replaced. What is stored is the replaced text.
pub(crate) fn deliver_text(sql: &mut Sql, body: &str, fetched: Option<&JsonText>) -> Outcome {
    match read_body(body, "body") {
        Ok((event, payload)) => apply(sql, event, &payload, fetched, Caller::Stripe),
        Err(malformed) => Outcome::malformed(&malformed),
    }
}

/// A webhook's body, read: an event or what is none, and what is recorded of it.
type Delivery = (Result<Event, Malformed>, JsonText);

/// Reads a webhook's body, which is an argument of this name. `Err` is what has no id to record it under.
fn read_body(body: &str, argument: &str) -> Result<Delivery, Malformed> {
    let text = storable(body);
    match event::read(&text) {
        // It may be no JSON at all.
        Err(malformed) if malformed.event_id.is_none() => Err(malformed),
        event => Ok((event, document_of_body(text.into_owned(), argument))),
    }
}

/// Applies a session as Stripe has it now, for the user whose browser came back from it.
pub(crate) fn reconcile(sql: &mut Sql, session: &JsonText, expected: Uuid, as_of: Time) -> Outcome {
    match event::reconciliation(session.text(), as_of) {
        Ok(event) => {
            let payload = JsonText::from_written(event);
            apply(sql, event::read(payload.text()), &payload, None, Caller::Browser { expected })
        }
        Err(malformed) => Outcome::malformed(&malformed),
    }
}

/// Judges up to `limit` parked events again, those that waited longest first, except those of accounts that are busy now.
pub(crate) fn retry_parked(sql: &mut Sql, limit: i64) -> Vec<Outcome> {
    locks::catalog_exclusive();
    let settings = catalog::settings(sql);
    let retried = parked::retry_before(sql, settings.as_ref(), clock(), limit);
    retried.into_iter().map(|(event_id, outcome)| outcome.with("event_id", event_id)).collect()
}

fn apply(
    sql: &mut Sql,
    event: Result<Event, Malformed>,
    payload: &JsonText,
    fetched: Option<&JsonText>,
    caller: Caller,
) -> Outcome {
    let event = match event {
        Ok(event) => event,
        Err(malformed) => return reject_malformed(sql, &malformed, payload),
    };
    locks::catalog_shared();
    let answer = fetched.map(|fetched| Fetched::read(fetched.text())).transpose();
    let settings = catalog::settings(sql);
    let known = lock(sql, &event, answer.as_ref().ok().and_then(Option::as_ref), settings.as_ref());
    let judged = match answer {
        Ok(answer) => judge_delivery(sql, settings.as_ref(), &event, answer.as_ref(), caller, Some(known)),
        Err(malformed) => parked::unreadable_answer(&malformed).into(),
    };
    if caller != Caller::Stripe && matches!(judged.outcome.verdict, Verdict::Rejected(_)) {
        return judged.outcome;
    }
    finish(sql, settings.as_ref(), &event, payload, fetched, judged)
}

/// Rejects what is no event of Stripe's, and records it.
fn reject_malformed(sql: &mut Sql, malformed: &Malformed, payload: &JsonText) -> Outcome {
    let outcome = Outcome::malformed(malformed);
    inbox::record_malformed(sql, malformed, payload, &outcome);
    outcome
}

/// Judges what a delivery unblocked, and records the delivery.
fn finish(
    sql: &mut Sql,
    settings: Option<&Settings>,
    event: &Event,
    payload: &JsonText,
    fetched: Option<&JsonText>,
    judged: Judged,
) -> Outcome {
    let Judged { mut outcome, unblocked } = judged;
    if let Some(customer_id) = unblocked {
        outcome = parked::with_unblocked(sql, settings, &customer_id, outcome);
    }
    let no_effect = matches!(outcome.verdict, Verdict::AlreadyApplied | Verdict::Ignored(_));
    if event.is_backfill() && no_effect && !inbox::contains(sql, &event.id) {
        // Otherwise each run through Stripe's lists would store a copy of everything that Stripe has.
        return outcome;
    }
    let was_parked = if forgotten::includes(sql, outcome.user, event.customer_id.as_deref()) {
        let (payload, fetched) =
            (inbox::kept(payload.text()), fetched.map(|answer| inbox::kept(answer.text())));
        inbox::record(sql, event, &payload, fetched.as_ref(), &outcome)
    } else {
        inbox::record(sql, event, payload, fetched, &outcome)
    };
    if outcome.verdict == Verdict::Parked(Reason::UnknownUser) {
        parked::retry_by_other_names(sql, event);
    }
    parked::tell(sql, event, was_parked, &outcome);
    outcome
}

/// Takes the locks of an event. Returns what is known under the names of its payments.
fn lock(sql: &mut Sql, event: &Event, fetched: Option<&Fetched>, settings: Option<&Settings>) -> Known {
    let customer_ids = customers_to_lock(event);
    let mut keys = event.subject.keys();
    // What Stripe names in its answer is locked as if the events of those objects had come.
    let answered = fetched.map_or(Vec::new(), Fetched::names);
    let sources =
        answered.iter().filter(|name| matches!(name.kind, NameKind::CheckoutSession | NameKind::Invoice));
    keys.sources.extend(sources.map(|name| name.id));
    keys.names.extend(answered.iter().map(|name| name.id));
    parked::lock(sql, &customer_ids, &keys, |sql| payments_given_away(sql, settings, &event.subject, fetched))
}

/// The customers whose links an event is judged by.
fn customers_to_lock(event: &Event) -> Vec<&str> {
    if event.subject.is_of_customer() {
        [&event.customer_id, &event.account_of_customer].into_iter().flatten().map(String::as_str).collect()
    } else {
        Vec::new()
    }
}

/// The payments of a subscription whose state names another user than the one who has it.
fn payments_given_away(
    sql: &mut Sql,
    settings: Option<&Settings>,
    subject: &Subject,
    fetched: Option<&Fetched>,
) -> Vec<String> {
    let Some(state) = subject.subscription() else { return Vec::new() };
    let namespace = settings.and_then(|settings| settings.user_namespace);
    let answer = fetched.and_then(|fetched| fetched.subscription(&state.id));
    let mut named =
        [Some(state), answer].into_iter().flatten().filter_map(|state| state.metadata_user.user(namespace));
    let user = subscriptions::user(sql, &state.id);
    if named.any(|named| Some(named) != user) { ownership::payments(sql, &state.id) } else { Vec::new() }
}

/// Judges a delivery by the answer that came with it, or else by the one that came with an earlier delivery of the same
/// event, which was parked for something else.
fn judge_delivery(
    sql: &mut Sql,
    settings: Option<&Settings>,
    event: &Event,
    answer: Option<&Fetched>,
    caller: Caller,
    known: Option<Known>,
) -> Judged {
    let judged = judge(sql, settings, event, answer, caller, known);
    if judged.outcome.verdict != Verdict::NeedsFetch || caller != Caller::Stripe {
        return judged;
    }
    let Some(Ok(earlier)) = inbox::fetched(sql, &event.id).map(|fetched| Fetched::read(&fetched)) else {
        return judged;
    };
    let again = judge(sql, settings, event, Some(&earlier), caller, None);
    if again.outcome.verdict == Verdict::Parked(Reason::Shape) {
        return judged;
    }
    Judged { unblocked: judged.unblocked.or(again.unblocked), ..again }
}
