//! Table `stripe_events`, the inbox: every event as it was received, with what came of it.

use pgrx::prelude::*;
use stripe_credits_rules::calendar::Time;
use stripe_credits_rules::event::{self, Event, Malformed};
use stripe_credits_rules::reason::Reason;
use stripe_credits_rules::reduced::reduced;

use crate::outcome::Outcome;
use crate::pg::convert::{clock, timestamp, uuid_datum};
use crate::pg::json::JsonText;
use crate::pg::sql::{Row, Sql};

/// The reasons for which an event is parked until its customer is linked to a user, or one of its subscriptions is known, as SQL.
macro_rules! customers_reasons {
    () => {
        "('unknown_user', 'identity_conflict', 'unfetched', 'shape')"
    };
}

/// A parked event.
pub(crate) struct ParkedEvent {
    pub(crate) event_id: String,
    pub(crate) payload: String,
    pub(crate) fetched: Option<String>,
    /// Its user, unless it is parked because that is not known.
    pub(crate) user: Option<uuid::Uuid>,
}

/// Records a delivery, after everything else, so that no event is marked as seen before it had its effect. What was applied
/// stays applied, even if a redelivery under other settings has another outcome. Returns whether the event was parked before.
///
/// A first delivery is one insert: an upsert would have to compile, each time, what it does about a second one.
pub(crate) fn record(
    sql: &mut Sql,
    event: &Event,
    payload: &JsonText,
    fetched: Option<&JsonText>,
    outcome: &Outcome,
) -> bool {
    let details = outcome.details_json();
    let arguments = [
        event.id.as_str().into(),
        event.event_type.as_str().into(),
        timestamp(event.created).into(),
        event.api_version.as_deref().into(),
        event.livemode.into(),
        event.account.as_deref().into(),
        event.object_id.as_deref().into(),
        event.customer_id.as_deref().into(),
        payload.into(),
        fetched.into(),
        outcome.verdict.as_str().into(),
        outcome.verdict.reason().map(Reason::as_str).into(),
        details.into(),
        outcome.user.map(uuid_datum).into(),
        timestamp(clock()).into(),
    ];
    let inserted = sql.execute(
        "insert into billing.stripe_events
             (event_id, type, created, api_version, livemode, account, object_id, customer_id, payload, fetched,
              outcome, reason, details, user_id, first_received_at, last_received_at, judged_at, applied_at)
         values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $15, $15,
             case when $11 = 'applied' then $15 end)
         on conflict (event_id) do nothing",
        &arguments,
    );
    if inserted > 0 {
        return false;
    }
    // The subselect has the statement's snapshot, and so reads the row as it was.
    let mut row = sql.query_one(
        "update billing.stripe_events e set
             (outcome, reason, details) = (
                 select case when e.outcome = 'applied' then e.outcome else $11 end,
                     case when e.outcome = 'applied' then e.reason else $12 end,
                     case when e.outcome = 'applied' then e.details else $13 end),
             user_id = coalesce($14, e.user_id),
             applied_at = coalesce(e.applied_at, case when $11 = 'applied' then $15 end),
             (type, created, api_version, livemode, account, object_id, customer_id, payload)
                 = ($2, $3, $4, $5, $6, $7, $8, $9),
             fetched = case when $10::text = '{}' then coalesce(e.fetched, $10) else coalesce($10, e.fetched) end,
             attempts = e.attempts + 1,
             last_received_at = $15,
             judged_at = $15
         where e.event_id = $1
         returning (select b.outcome from billing.stripe_events b where b.event_id = e.event_id) = 'parked'",
        &arguments,
    );
    row.get_opt().unwrap_or_default()
}

/// Whether an event is in the inbox.
pub(crate) fn contains(sql: &mut Sql, event_id: &str) -> bool {
    sql.query_opt("select from billing.stripe_events where event_id = $1", &[event_id.into()]).is_some()
}

/// What Stripe answered about an event at an earlier delivery, if it was asked.
pub(crate) fn fetched(sql: &mut Sql, event_id: &str) -> Option<String> {
    sql.query_opt(
        "select fetched::text from billing.stripe_events where event_id = $1 and fetched::text <> '{}'",
        &[event_id.into()],
    )
    .map(|mut row| row.get())
}

/// Records the rejection of a text that is no event, if it has an id.
pub(crate) fn record_malformed(sql: &mut Sql, malformed: &Malformed, payload: &JsonText, outcome: &Outcome) {
    let Some(event_id) = malformed.event_id.as_deref() else {
        return;
    };
    sql.execute(
        "insert into billing.stripe_events as e
             (event_id, type, payload, outcome, reason, details, first_received_at, last_received_at, judged_at)
         values ($1, $2, $3, $4, $5, $6, $7, $7, $7)
         on conflict (event_id) do update
             set attempts = e.attempts + 1, last_received_at = excluded.last_received_at,
                 judged_at = excluded.judged_at",
        &[
            event_id.into(),
            malformed.event_type.as_deref().into(),
            payload.into(),
            outcome.verdict.as_str().into(),
            outcome.verdict.reason().map(Reason::as_str).into(),
            outcome.details_json().into(),
            timestamp(clock()).into(),
        ],
    );
}

/// Records the new outcome of an event that was judged again without a delivery. Returns whether it was parked before.
pub(crate) fn record_outcome(sql: &mut Sql, event_id: &str, outcome: &Outcome) -> bool {
    let row = sql.query_opt(
        "update billing.stripe_events set outcome = $2, reason = $3, details = $4,
             user_id = coalesce($5, user_id), judged_at = $6,
             applied_at = case when $2 = 'applied' then $6 end
         where event_id = $1
         returning (select b.outcome from billing.stripe_events b where b.event_id = $1) = 'parked'",
        &[
            event_id.into(),
            outcome.verdict.as_str().into(),
            outcome.verdict.reason().map(Reason::as_str).into(),
            outcome.details_json().into(),
            outcome.user.map(uuid_datum).into(),
            timestamp(clock()).into(),
        ],
    );
    row.is_some_and(|mut row| row.get())
}

/// Up to `limit` events that are parked until a customer is linked to a user, or until one of its subscriptions is known, the
/// oldest first. The caller holds the customer's lock.
pub(crate) fn parked_for_customer(sql: &mut Sql, customer_id: &str, limit: i64) -> Vec<ParkedEvent> {
    const PARKED: &str = concat!(
        "select event_id, payload::text, fetched::text, user_id from billing.stripe_events
         where customer_id = $1 and outcome = 'parked' and reason in ",
        customers_reasons!(),
        " order by created, event_id limit $2"
    );
    let rows = sql.query(PARKED, &[customer_id.into(), limit.into()]);
    rows.map(parked_event).collect()
}

/// Makes those events of a customer due that were last judged before a time: [`parked_before`] has them first.
pub(crate) fn make_due(sql: &mut Sql, customer_id: &str, before: Time) {
    const MAKE_DUE: &str = concat!(
        "update billing.stripe_events set judged_at = '-infinity'
         where customer_id = $1 and outcome = 'parked' and judged_at < $2 and reason in ",
        customers_reasons!()
    );
    sql.execute(MAKE_DUE, &[customer_id.into(), timestamp(before).into()]);
}

/// The events that are parked until a session's user is known. The caller holds the session's lock.
pub(crate) fn parked_for_session(sql: &mut Sql, session_id: &str) -> Vec<ParkedEvent> {
    let rows = sql.query(
        "select event_id, payload::text, fetched::text, user_id from billing.stripe_events
         where object_id = $1 and outcome = 'parked' and reason in ('unknown_user', 'identity_conflict')
         order by created, event_id",
        &[session_id.into()],
    );
    rows.map(parked_event).collect()
}

/// The events of these sessions that were ignored because they were not paid. The caller holds the locks of their payment.
pub(crate) fn unpaid(sql: &mut Sql, session_ids: &[String]) -> Vec<ParkedEvent> {
    let rows = sql.query(
        "select event_id, payload::text, fetched::text, user_id from billing.stripe_events
         where object_id = any($1) and outcome = 'ignored' and reason = 'unpaid'
         order by created, event_id",
        &[session_ids.to_vec().into()],
    );
    rows.map(parked_event).collect()
}

/// The customer of a session that started a subscription, if an event of it is known.
pub(crate) fn customer_of_subscription_session(sql: &mut Sql, session_id: &str) -> Option<String> {
    sql.query_opt(
        "select customer_id from billing.stripe_events
         where object_id = $1 and customer_id is not null and payload #>> '{data,object,mode}' = 'subscription' limit 1",
        &[session_id.into()],
    )
    .map(|mut row| row.get())
}

/// The customer of a subscription by its events, or by parked ones that are about it too: invoices that bill it.
pub(crate) fn customer_of_subscription(sql: &mut Sql, subscription_id: &str) -> Option<String> {
    let own = "select customer_id from billing.stripe_events where object_id = $1 and customer_id is not null limit 1";
    if let Some(mut row) = sql.query_opt(own, &[subscription_id.into()]) {
        return row.get_opt();
    }
    // Everything was judged at some time: said, because the index of what waits is read by that. Only an event whose text has
    // the id is worth reading.
    let parked = sql.query(
        "select customer_id, payload::text from billing.stripe_events
         where outcome = 'parked' and judged_at >= '-infinity' and customer_id is not null
             and position($1 in payload::text) > 0
         order by created, event_id",
        &[subscription_id.into()],
    );
    parked.into_iter().find_map(|mut row| {
        let (customer_id, payload): (String, String) = (row.get(), row.get());
        let event = event::read(&payload).ok()?;
        event.subject.keys().sources.contains(&subscription_id).then_some(customer_id)
    })
}

/// Whether a parked event was last judged before a time.
pub(crate) fn is_parked_before(sql: &mut Sql, before: Time) -> bool {
    sql.query_opt(
        "select from billing.stripe_events where outcome = 'parked' and judged_at < $1
         order by judged_at limit 1",
        &[timestamp(before).into()],
    )
    .is_some()
}

/// Up to `limit` parked events that were last judged before a time, but none of these users and none of these: those that
/// waited longest, in the order of their users. The caller holds the catalog's lock exclusively.
pub(crate) fn parked_before(
    sql: &mut Sql,
    before: Time,
    limit: i64,
    without_users: &[uuid::Uuid],
    without: &[String],
) -> Vec<ParkedEvent> {
    let without_users: Vec<pgrx::Uuid> = without_users.iter().copied().map(uuid_datum).collect();
    let rows = sql.query(
        "select event_id, payload::text, fetched::text, user_id from (
             select * from billing.stripe_events where outcome = 'parked' and judged_at < $1
                 and (user_id is null or user_id <> all($3)) and event_id <> all($4)
             order by judged_at, event_id limit $2
         ) e
         order by user_id nulls last, created, event_id",
        &[timestamp(before).into(), limit.into(), without_users.into(), without.to_vec().into()],
    );
    rows.map(parked_event).collect()
}

fn parked_event(mut row: Row) -> ParkedEvent {
    ParkedEvent { event_id: row.get(), payload: row.get(), fetched: row.get_opt(), user: row.get_opt() }
}

/// Reduces a user's events to what the rules read: those that were judged as theirs, that are of a customer of theirs, or
/// of a payment of theirs. Returns how many there were to reduce.
pub(crate) fn reduce_events_of(sql: &mut Sql, user: uuid::Uuid) -> i64 {
    let rows = sql.query(
        "select e.event_id, e.payload::text, e.fetched::text from billing.stripe_events e
         where e.user_id = $1
             or e.customer_id in (select c.customer_id from billing.customers c where c.user_id = $1)
             or e.object_id in (
                 select n.name from billing.payments p join billing.payment_names n using (source_id)
                 where p.user_id = $1)",
        &[uuid_datum(user).into()],
    );
    let events: Vec<(String, String, Option<String>)> =
        rows.map(|mut row| (row.get(), row.get(), row.get_opt())).collect();
    let mut changed = 0;
    for (event_id, payload, fetched) in events {
        changed += reduce(sql, &event_id, &payload, fetched.as_deref());
    }
    changed
}

/// What is kept of a forgotten user's event, or of Stripe's answer about it. Of a text that cannot be written again nothing: it
/// is no event that could be applied again.
pub(crate) fn kept(text: &str) -> JsonText {
    JsonText::from_written(reduced(text).unwrap_or_else(|| "{}".to_owned()))
}

/// Reduces an event in the inbox. Returns how many were changed: none if it was reduced before.
pub(crate) fn reduce(sql: &mut Sql, event_id: &str, payload: &str, fetched: Option<&str>) -> i64 {
    let (kept_payload, kept_fetched) = (kept(payload), fetched.map(kept));
    if (kept_payload.text(), kept_fetched.as_ref().map(JsonText::text)) == (payload, fetched) {
        return 0;
    }
    sql.execute(
        "update billing.stripe_events set payload = $2, fetched = $3 where event_id = $1",
        &[event_id.into(), (&kept_payload).into(), kept_fetched.as_ref().into()],
    );
    1
}

/// Deletes the events that were last received longer ago than that, except those that wait for something.
pub(crate) fn prune(sql: &mut Sql, older_than: Interval) -> i64 {
    let mut row = sql.query_one(
        "with pruned as (
             delete from billing.stripe_events
             where last_received_at < statement_timestamp() - $1 and outcome not in ('parked', 'needs_fetch')
             returning 1
         )
         select count(*) from pruned",
        &[older_than.into()],
    );
    row.get()
}
