//! Postgres: one function a statement, one round trip each. Statements are unnamed and there is no session state, so
//! this works behind pgbouncer in transaction mode.
//!
//! Statements run in transactions of their own, at READ COMMITTED whatever the database's default is: the functions of
//! Stripe's doors refuse a stricter level (rule 15). Beginning and committing costs no round trip of its own.
//!
//! Connections are to a primary that takes writes (`target_session_attrs`); one that turns out not to be is replaced.
//! A statement waits for each lock for a moment only, then it gives its connection back and tries again as one of those
//! that may wait longer: at most half of the pool, so that however many accounts are locked, the other half serves
//! everyone else. The events of one customer or user wait for a few connections only.
//!
//! Every statement may be repeated, because the database's functions are idempotent. So a lost connection and a
//! conflict with another transaction are retried here, at once; the caller handles every other error.

pub(crate) mod catalog;
mod credits;
mod events;
mod explain;
pub(crate) mod operations;
pub(crate) mod outbox;
mod users;

use std::sync::Arc;
use std::time::Duration;

use deadpool_postgres::{
    Client, Manager, ManagerConfig, Pool, PoolError, RecyclingMethod, Runtime, Status, Timeouts,
};
use thiserror::Error;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::timeout;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::{FromSqlOwned, ToSql, Type};
use tokio_postgres::{Row, SimpleQueryMessage};
use tokio_postgres_rustls::MakeRustlsConnect;

use crate::config::DatabaseConfig;
use crate::limits::{Party, Turn, Turns};
use crate::telemetry::with_causes;
use crate::tls;

/// How long a request waits for a free connection.
const POOL_WAIT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long opening a connection may take, including TLS and authentication.
const POOL_CREATE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long applying an event may take: longer than it waits for locks, shorter than Stripe's own time-out.
const EVENT_TIMEOUT: Duration = Duration::from_secs(20);
/// How long reading for a user's request may take.
const READ_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a probe or a scrape may take, and wait for the connection of probes.
const PROBE_TIMEOUT: Duration = Duration::from_secs(2);
/// The connections by which events are claimed and read for the app.
const OUTBOX_POOL_SIZE: usize = 1;
/// The connections of probes and scrapes.
const PROBE_POOL_SIZE: usize = 1;
/// Of the pool, the events of one customer may use this part, those of one user, and those that name neither, such as
/// refunds: two of the default's eight connections each. So one locked account leaves a quarter to everyone else.
const POOL_PART_OF_A_PARTY: usize = 4;
/// How long a statement waits for each lock before it gives its connection to others.
const FIRST_LOCK_TIMEOUT: Duration = Duration::from_millis(100);
/// Of the pool, statements that wait for locks longer than that may use this part.
const POOL_PART_OF_WAITERS: usize = 2;
/// How long a statement waits to become one of those, without a connection.
const WAITER_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a cancel request may take.
const CANCEL_TIMEOUT: Duration = Duration::from_secs(1);
/// The maximum number of retries after serialization failures and deadlocks.
const MAX_CONFLICT_RETRIES: u32 = 5;
/// The maximum number of retries after a lost connection.
const MAX_RECONNECTS: u32 = 1;

/// A pool of connections, opened when needed and replaced when broken.
pub(crate) struct Database {
    pool: Pool,
    /// Answers probes also while every other connection is in use.
    probes: Pool,
    /// Tells the app, and waits for nothing that webhooks need.
    outbox: Pool,
    tls: MakeRustlsConnect,
    /// What begins a transaction that gives way to others.
    begin: String,
    /// What begins one that waits for locks as long as is configured.
    begin_waiting: String,
    /// As many permits as there may be of the latter.
    waiters: Semaphore,
    events: Arc<Turns>,
}

/// What the database says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Readiness {
    /// The installed version of the extension.
    pub(crate) version: Option<String>,
    /// Whether it is a standby, or takes no writes for another reason.
    pub(crate) is_read_only: bool,
    /// Whether this role may apply events.
    pub(crate) may_apply: bool,
    /// The livemode of the settings; none before a catalog is loaded.
    pub(crate) livemode: Option<bool>,
}

/// Why a statement failed.
#[derive(Debug, Error)]
pub(crate) enum DatabaseError {
    #[error("the database is unreachable: {0}")]
    Unavailable(String),
    #[error("the connection to the database was lost: {}", describe(.0))]
    ConnectionLost(tokio_postgres::Error),
    #[error("the database did not answer within {} seconds", .0.as_secs())]
    Timeout(Duration),
    #[error("the transaction met another one: {}", describe(.0))]
    Conflict(tokio_postgres::Error),
    #[error("another transaction holds what this needs: {0}")]
    Locked(String),
    #[error("the database takes no writes: {0}")]
    ReadOnly(String),
    #[error("the database's role may not apply events: grant it what the service role has")]
    NotAllowed,
    #[error("the database cannot take this: {}", describe(.0))]
    Data(tokio_postgres::Error),
    #[error("the database failed: {}", describe(.0))]
    Failed(tokio_postgres::Error),
    #[error("the database's result was not understood: {0}")]
    UnexpectedAnswer(String),
    #[error("the extension stripe_credits is not installed in this database")]
    ExtensionMissing,
}

impl DatabaseError {
    /// Whether the same statement may succeed later.
    pub(crate) fn is_transient(&self) -> bool {
        matches!(
            self,
            Self::Unavailable(_)
                | Self::ConnectionLost(_)
                | Self::Timeout(_)
                | Self::Conflict(_)
                | Self::Locked(_)
                | Self::ReadOnly(_)
        )
    }

    /// The failure's name, for metrics and clients.
    pub(crate) fn label(&self) -> &'static str {
        match self {
            Self::Unavailable(_) => "database_unavailable",
            Self::ConnectionLost(_) => "database_connection_lost",
            Self::Timeout(_) => "database_timeout",
            Self::Conflict(_) => "database_conflict",
            Self::Locked(_) => "database_locked",
            Self::ReadOnly(_) => "database_read_only",
            Self::NotAllowed => "database_not_allowed",
            Self::Data(_) => "database_data",
            Self::Failed(_) => "database_error",
            Self::UnexpectedAnswer(_) => "unexpected_answer",
            Self::ExtensionMissing => "extension_missing",
        }
    }
}

impl Database {
    /// Prepares the pool. No connection is opened yet, so the database may be down.
    pub(crate) fn new(config: &DatabaseConfig) -> Self {
        let tls = tls::postgres_connector(&config.tls);
        // Fast: a closed connection is noticed without a round trip for every use.
        let recycling = || ManagerConfig { recycling_method: RecyclingMethod::Fast };
        let pool = |size: usize, wait: Duration, create: Duration| {
            let manager = Manager::from_config(config.postgres.clone(), tls.clone(), recycling());
            let timeouts = Timeouts { wait: Some(wait), create: Some(create), recycle: None };
            Pool::builder(manager)
                .max_size(size)
                .timeouts(timeouts)
                .runtime(Runtime::Tokio1)
                .build()
                .expect("a pool with time-outs has a runtime for them")
        };
        // SET LOCAL, because pgbouncer gives the connection to others after the transaction.
        let begin = |lock_timeout: Duration| {
            let lock_timeout = lock_timeout.as_millis();
            format!("begin isolation level read committed; set local lock_timeout = '{lock_timeout}ms'")
        };
        Self {
            pool: pool(config.pool_size, POOL_WAIT_TIMEOUT, POOL_CREATE_TIMEOUT),
            probes: pool(PROBE_POOL_SIZE, PROBE_TIMEOUT, PROBE_TIMEOUT),
            outbox: pool(OUTBOX_POOL_SIZE, POOL_WAIT_TIMEOUT, POOL_CREATE_TIMEOUT),
            begin: begin(FIRST_LOCK_TIMEOUT),
            begin_waiting: begin(config.lock_timeout),
            waiters: Semaphore::new((config.pool_size / POOL_PART_OF_WAITERS).max(1)),
            events: Turns::new((config.pool_size / POOL_PART_OF_A_PARTY).max(1)),
            tls,
        }
    }

    /// Waits until few enough events of these parties are being applied.
    async fn turn(&self, parties: Vec<Party>) -> Result<Turn, DatabaseError> {
        let turn = self.events.take(parties).await;
        turn.ok_or_else(|| DatabaseError::Locked("other events of the same customer or user wait".to_owned()))
    }

    /// A time in seconds since 1970, written as a timestamp or as an interval before now, in any form that Postgres
    /// reads.
    pub(crate) async fn time(&self, written: &str) -> Result<i64, DatabaseError> {
        let is_date =
            written.get(..5).is_some_and(|year| year.ends_with('-') && year[..4].parse::<u16>().is_ok());
        let sql = if is_date {
            "select extract(epoch from ($1::text)::timestamptz)::bigint"
        } else {
            "select extract(epoch from statement_timestamp() - ($1::text)::interval)::bigint"
        };
        self.query_value(sql, &[written], READ_TIMEOUT).await
    }

    /// Whether an event could be applied now, asked on the connection of probes.
    pub(crate) async fn readiness(&self) -> Result<Readiness, DatabaseError> {
        let sql = "select (select x.extversion from pg_catalog.pg_extension x where x.extname = 'stripe_credits'),
                pg_catalog.pg_is_in_recovery() or current_setting('transaction_read_only')::boolean,
                coalesce((
                    select has_schema_privilege(p.pronamespace, 'usage') and has_function_privilege(p.oid, 'execute')
                    from pg_catalog.pg_proc p join pg_catalog.pg_namespace n on n.oid = p.pronamespace
                    where n.nspname = 'billing' and p.proname = 'apply_stripe_event_text'), false)";
        let rows = self.probe(sql).await?;
        let row = rows.first().ok_or_else(|| DatabaseError::UnexpectedAnswer("no row".to_owned()))?;
        let mut readiness = Readiness {
            version: column(row, 0)?,
            is_read_only: column(row, 1)?,
            may_apply: column(row, 2)?,
            livemode: None,
        };
        if readiness.may_apply {
            let rows = self.probe("select s.livemode from billing.settings s").await?;
            readiness.livemode = rows.first().map(|row| column(row, 0)).transpose()?;
        }
        Ok(readiness)
    }

    /// Runs a statement on the connection of probes; a second time if that was lost since the last probe.
    async fn probe(&self, sql: &str) -> Result<Vec<Row>, DatabaseError> {
        match self.query_once(&self.probes, &self.begin, sql, &[], PROBE_TIMEOUT).await {
            Err(DatabaseError::ConnectionLost(_) | DatabaseError::ReadOnly(_)) => {
                self.query_once(&self.probes, &self.begin, sql, &[], PROBE_TIMEOUT).await
            }
            result => result,
        }
    }

    /// The numbers of open, idle and awaited connections.
    pub(crate) fn pool_status(&self) -> Status {
        self.pool.status()
    }

    /// The first column of the only row.
    async fn query_value<T: FromSqlOwned>(
        &self,
        sql: &str,
        parameters: &[&str],
        limit: Duration,
    ) -> Result<T, DatabaseError> {
        let value = self.query_optional(sql, parameters, limit).await?;
        value.ok_or_else(|| DatabaseError::UnexpectedAnswer("no row".to_owned()))
    }

    /// The first column of the first row, if there is a row.
    async fn query_optional<T: FromSqlOwned>(
        &self,
        sql: &str,
        parameters: &[&str],
        limit: Duration,
    ) -> Result<Option<T>, DatabaseError> {
        let rows = self.query(sql, parameters, limit).await?;
        rows.first().map(|row| column(row, 0)).transpose()
    }

    /// Waits until few enough statements wait for locks.
    async fn become_waiter(&self) -> Result<SemaphorePermit<'_>, DatabaseError> {
        let permit = timeout(WAITER_TIMEOUT, self.waiters.acquire()).await;
        let permit = permit.map_err(|_| DatabaseError::Locked("others wait for locks".to_owned()))?;
        Ok(permit.expect("the semaphore is never closed"))
    }

    /// Runs a statement whose parameters are all text, with the retries described above.
    async fn query(
        &self,
        sql: &str,
        parameters: &[&str],
        limit: Duration,
    ) -> Result<Vec<Row>, DatabaseError> {
        let mut waiter = None;
        let mut conflicts = 0;
        let mut reconnects = 0;
        loop {
            let begin = if waiter.is_some() { &self.begin_waiting } else { &self.begin };
            match self.query_once(&self.pool, begin, sql, parameters, limit).await {
                Err(DatabaseError::Locked(_)) if waiter.is_none() => {
                    waiter = Some(self.become_waiter().await?);
                }
                Err(DatabaseError::Conflict(_)) if conflicts < MAX_CONFLICT_RETRIES => conflicts += 1,
                Err(error @ (DatabaseError::ConnectionLost(_) | DatabaseError::ReadOnly(_))) => {
                    // What happened to one connection has most likely happened to the others too.
                    self.pool.retain(|_, _| false);
                    if reconnects == MAX_RECONNECTS {
                        return Err(error);
                    }
                    reconnects += 1;
                }
                result => return result,
            }
        }
    }

    async fn query_once(
        &self,
        pool: &Pool,
        begin: &str,
        sql: &str,
        parameters: &[&str],
        limit: Duration,
    ) -> Result<Vec<Row>, DatabaseError> {
        let client = pool.get().await.map_err(unavailable)?;
        let parameters: Vec<(&(dyn ToSql + Sync), Type)> =
            parameters.iter().map(|value| (value as &(dyn ToSql + Sync), Type::TEXT)).collect();
        let Ok(result) = timeout(limit, in_transaction(&client, begin, sql, &parameters)).await else {
            self.abandon(client).await;
            return Err(DatabaseError::Timeout(limit));
        };
        let error = match result.map_err(classify) {
            // A standby has many ways to refuse: an advisory lock, a transaction id, a row lock.
            Err(DatabaseError::Failed(error)) if !takes_writes(&client).await => {
                DatabaseError::ReadOnly(describe(&error))
            }
            Err(error) => error,
            Ok(rows) => return Ok(rows),
        };
        if matches!(error, DatabaseError::ReadOnly(_)) {
            // Behind a connection pooler it looks sound, and the server at its end may be another one by now.
            drop(Client::take(client));
        }
        Err(error)
    }

    /// Removes a connection with a running statement from the pool and cancels the statement: otherwise each retry of
    /// Stripe's would add one more that waits for the same lock.
    async fn abandon(&self, client: Client) {
        let cancel = client.cancel_token();
        drop(Client::take(client));
        // If this fails too, the server finds the connection closed when the statement ends.
        let _ = timeout(CANCEL_TIMEOUT, cancel.cancel_query(self.tls.clone())).await;
    }
}

/// Runs a statement in a READ COMMITTED transaction. The three messages are sent at once, in this order: a failed
/// statement makes the commit a rollback.
async fn in_transaction(
    client: &Client,
    begin: &str,
    sql: &str,
    parameters: &[(&(dyn ToSql + Sync), Type)],
) -> Result<Vec<Row>, tokio_postgres::Error> {
    let (started, rows, committed) = tokio::join!(
        biased;
        client.batch_execute(begin),
        // query_typed prepares no named statement and needs no round trip for the parameters' types.
        client.query_typed(sql, parameters),
        client.batch_execute("commit"),
    );
    started?;
    let rows = rows?;
    committed?;
    Ok(rows)
}

/// Whether a connection is to a server that takes writes. If that cannot be asked, the error that led here stands.
async fn takes_writes(client: &Client) -> bool {
    let asked = timeout(PROBE_TIMEOUT, client.simple_query("show transaction_read_only")).await;
    let Ok(Ok(messages)) = asked else { return true };
    !messages
        .iter()
        .any(|message| matches!(message, SimpleQueryMessage::Row(row) if row.get(0) == Some("on")))
}

/// Distinguishes transient failures, faults of the data, and faults of the database or the statement.
fn classify(error: tokio_postgres::Error) -> DatabaseError {
    let Some(state) = error.code() else {
        return DatabaseError::ConnectionLost(error);
    };
    match *state {
        SqlState::T_R_SERIALIZATION_FAILURE | SqlState::T_R_DEADLOCK_DETECTED => {
            DatabaseError::Conflict(error)
        }
        SqlState::QUERY_CANCELED => DatabaseError::Unavailable(describe(&error)),
        SqlState::LOCK_NOT_AVAILABLE => DatabaseError::Locked(describe(&error)),
        // After a failover the old primary may still answer, read-only.
        SqlState::READ_ONLY_SQL_TRANSACTION => DatabaseError::ReadOnly(describe(&error)),
        // The schema billing, with every function called here, belongs to the extension.
        SqlState::INVALID_SCHEMA_NAME => DatabaseError::ExtensionMissing,
        _ => match state.code().get(..2) {
            Some("08" | "57") => DatabaseError::ConnectionLost(error),
            Some("53" | "58") => DatabaseError::Unavailable(describe(&error)),
            Some("22" | "54") => DatabaseError::Data(error),
            _ => DatabaseError::Failed(error),
        },
    }
}

/// An error for the log: of a server's error only the message, because its detail may quote what was sent.
pub(crate) fn describe(error: &tokio_postgres::Error) -> String {
    match error.as_db_error() {
        Some(error) => format!("{} (SQLSTATE {})", error.message(), error.code().code()),
        None => with_causes(error),
    }
}

fn unavailable(error: PoolError) -> DatabaseError {
    DatabaseError::Unavailable(match error {
        PoolError::Backend(error) => describe(&error),
        PoolError::Timeout(stage) => format!("{stage:?} timed out in the pool"),
        other => other.to_string(),
    })
}

fn column<T: FromSqlOwned>(row: &Row, index: usize) -> Result<T, DatabaseError> {
    row.try_get(index).map_err(|error| DatabaseError::UnexpectedAnswer(describe(&error)))
}
