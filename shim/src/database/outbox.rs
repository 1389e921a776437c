//! The outbox: what the app is to be told, claimed, ended and read on connections of its own, so that no webhook waits
//! for one.

use serde::Serialize;
use serde_json::value::RawValue;
use tokio_postgres::Row;
use uuid::Uuid;

use crate::database::{Database, DatabaseError, READ_TIMEOUT, column};
use crate::status::WaitingEvents;

/// How long a claimed row is this shim's: longer than a delivery may take, with its end recorded.
const LEASE_SECONDS: u32 = 60;
/// How many rows of one user a read for streams returns; the next read goes on after them.
const ROWS_PER_USER: u32 = 100;
/// How many dead rows are listed.
const MAX_LISTED: u32 = 1000;

/// The columns of [`event`], of a row `o`.
const EVENT: &str = r#"o.user_id::text, o.id, o.type,
    to_char(o.created_at at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'), o.data::text"#;

/// What the app is told: the body of a delivery, and the data of a stream.
#[derive(Debug, Serialize)]
pub(crate) struct AppEvent {
    /// The same however often it is delivered; without a dot, as Standard Webhooks wants it.
    pub(crate) id: String,
    pub(crate) r#type: String,
    pub(crate) timestamp: String,
    /// Whom it is about; none of a payment that is parked.
    pub(crate) user_id: Option<Uuid>,
    pub(crate) data: Box<RawValue>,
    /// Its place among its user's events.
    #[serde(skip)]
    pub(crate) number: i64,
}

/// An event that this shim is to deliver.
#[derive(Debug)]
pub(crate) struct Claimed {
    pub(crate) event: AppEvent,
    pub(crate) attempts: i32,
    /// How long ago it happened.
    pub(crate) age_seconds: f64,
}

/// What came of an attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Attempt {
    Delivered,
    /// To be tried again after so many seconds; `None`: never.
    Failed {
        error: String,
        retry_after_seconds: Option<u64>,
    },
}

impl Database {
    /// Claims up to so many events, of each user the first that is due.
    pub(crate) async fn claim_events(&self, limit: usize) -> Result<Vec<Claimed>, DatabaseError> {
        let sql = format!(
            "select {EVENT}, o.attempts, extract(epoch from clock_timestamp() - o.created_at)::float8
             from billing.claim_outbox(($1::text)::integer, make_interval(secs => {LEASE_SECONDS})) o"
        );
        let rows = self.told(&sql, &[&limit.to_string()]).await?;
        let claimed =
            |row| Ok(Claimed { event: event(row)?, attempts: column(row, 5)?, age_seconds: column(row, 6)? });
        rows.iter().map(claimed).collect()
    }

    /// Records what came of an attempt to deliver a claimed event.
    pub(crate) async fn finish_event(
        &self,
        claimed: &Claimed,
        attempt: &Attempt,
    ) -> Result<(), DatabaseError> {
        let (error, retry_after) = match attempt {
            Attempt::Delivered => ("", String::new()),
            Attempt::Failed { error, retry_after_seconds } => {
                (error.as_str(), retry_after_seconds.map(|seconds| seconds.to_string()).unwrap_or_default())
            }
        };
        let sql = "select billing.finish_outbox(($1::text)::uuid, ($2::text)::bigint, ($3::text)::integer,
            nullif($4::text, ''), make_interval(secs => nullif($5::text, '')::float8))";
        let AppEvent { user_id, number, .. } = &claimed.event;
        let user_id = user_id.unwrap_or_default().to_string();
        let (number, attempts) = (number.to_string(), claimed.attempts.to_string());
        self.told(sql, &[&user_id, &number, &attempts, error, &retry_after]).await.map(drop)
    }

    /// The events of these users that come after these numbers, in order.
    pub(crate) async fn events_after(&self, after: &[(Uuid, i64)]) -> Result<Vec<AppEvent>, DatabaseError> {
        let array = |items: Vec<String>| format!("{{{}}}", items.join(","));
        let users = array(after.iter().map(|(user, _)| user.to_string()).collect());
        let numbers = array(after.iter().map(|(_, number)| number.to_string()).collect());
        // Of one user no row becomes visible after a later one, so nothing is missed by a number.
        let sql = format!(
            "select {EVENT}
             from unnest(($1::text)::uuid[], ($2::text)::bigint[]) as asked (user_id, after)
             cross join lateral (
                 select * from billing.outbox o where o.user_id = asked.user_id and o.id > asked.after
                 order by o.id limit {ROWS_PER_USER}
             ) o
             order by o.user_id, o.id"
        );
        self.told(&sql, &[&users, &numbers]).await?.iter().map(event).collect()
    }

    /// The number of a user's last event; 0 before the first.
    pub(crate) async fn last_event(&self, user: Uuid) -> Result<i64, DatabaseError> {
        let sql = "select coalesce(
            (select a.last_outbox_id from billing.accounts a where a.user_id = ($1::text)::uuid), 0)";
        let rows = self.told(sql, &[&user.to_string()]).await?;
        rows.first().map_or(Ok(0), |row| column(row, 0))
    }

    /// How many events wait or are dead.
    pub(crate) async fn waiting_events(&self) -> Result<WaitingEvents, DatabaseError> {
        let sql = "select
            (select count(*) from billing.outbox o where o.state = 'pending'),
            (select count(*) from billing.outbox o where o.state = 'dead'),
            (select coalesce(extract(epoch from clock_timestamp() - min(o.created_at)), 0)::float8
             from billing.outbox o where o.state = 'pending')";
        let rows = self.told(sql, &[]).await?;
        let row = rows.first().ok_or_else(|| DatabaseError::UnexpectedAnswer("no row".to_owned()))?;
        Ok(WaitingEvents { pending: column(row, 0)?, dead: column(row, 1)?, oldest_seconds: column(row, 2)? })
    }

    /// The dead events, the latest first, a line of JSON each.
    pub(crate) async fn dead_events(&self) -> Result<Vec<String>, DatabaseError> {
        let sql = format!(
            "select json_build_object('id', o.user_id || '_' || o.id, 'type', o.type, 'created_at', o.created_at,
                 'dead_since', o.ended_at, 'attempts', o.attempts, 'error', o.last_error)::text
             from billing.outbox o where o.state = 'dead' order by o.ended_at desc limit {MAX_LISTED}"
        );
        self.told(&sql, &[]).await?.iter().map(|row| column(row, 0)).collect()
    }

    /// Makes an event pending again, or all that are dead. Returns how many.
    pub(crate) async fn replay_events(&self, event: Option<(Uuid, i64)>) -> Result<i64, DatabaseError> {
        let (user, number) =
            event.map(|(user, number)| (user.to_string(), number.to_string())).unwrap_or_default();
        let sql = "select billing.replay_outbox(nullif($1::text, '')::uuid, nullif($2::text, '')::bigint)";
        let rows = self.told(sql, &[&user, &number]).await?;
        rows.first().map_or(Ok(0), |row| column(row, 0))
    }

    /// Runs a statement on the connections of the outbox; a second time if the connection was lost since the last.
    pub(crate) async fn told(&self, sql: &str, parameters: &[&str]) -> Result<Vec<Row>, DatabaseError> {
        match self.query_once(&self.outbox, &self.begin_waiting, sql, parameters, READ_TIMEOUT).await {
            Err(
                DatabaseError::ConnectionLost(_) | DatabaseError::ReadOnly(_) | DatabaseError::Conflict(_),
            ) => self.query_once(&self.outbox, &self.begin_waiting, sql, parameters, READ_TIMEOUT).await,
            result => result,
        }
    }
}

fn event(row: &Row) -> Result<AppEvent, DatabaseError> {
    let user_id: String = column(row, 0)?;
    let number: i64 = column(row, 1)?;
    let unexpected = |fault: &dyn std::fmt::Display| DatabaseError::UnexpectedAnswer(fault.to_string());
    let data: String = column(row, 4)?;
    Ok(AppEvent {
        id: format!("{user_id}_{number}"),
        r#type: column(row, 2)?,
        timestamp: column(row, 3)?,
        user_id: Some(Uuid::try_parse(&user_id).map_err(|fault| unexpected(&fault))?)
            .filter(|user| !user.is_nil()),
        data: RawValue::from_string(data).map_err(|fault| unexpected(&fault))?,
        number,
    })
}

impl AppEvent {
    /// Its JSON, on one line.
    pub(crate) fn json(&self) -> String {
        serde_json::to_string(self).expect("texts and JSON can be written")
    }

    /// The user and the number in an event's id.
    pub(crate) fn parse_id(id: &str) -> Option<(Uuid, i64)> {
        let (user, number) = id.split_once('_')?;
        Some((Uuid::try_parse(user).ok()?, number.parse().ok().filter(|number| *number > 0)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_events_id_names_its_user_and_its_number() {
        let user = Uuid::from_u128(7);
        assert_eq!(AppEvent::parse_id(&format!("{user}_12")), Some((user, 12)));
        for wrong in [
            "",
            "12",
            "evt_12",
            "00000000-0000-0000-0000-000000000007_",
            "00000000-0000-0000-0000-000000000007_0",
        ] {
            assert_eq!(AppEvent::parse_id(wrong), None, "{wrong}");
        }
    }
}
