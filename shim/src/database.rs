//! Postgres: one function a statement, one round trip each. Statements are unnamed and there is no session state, so
//! this works behind pgbouncer in transaction mode.
//!
//! Statements run in transactions of their own, at READ COMMITTED whatever the database's default is: the functions of
//! Stripe's doors refuse a stricter level (rule 15). Beginning and committing costs no round trip of its own.
//!
//! Every statement may be repeated, because the database's functions are idempotent. So a lost connection and a
//! conflict with another transaction are retried here, at once; the caller handles every other error.

pub(crate) mod catalog;
mod events;
mod users;

use std::time::Duration;

use deadpool_postgres::{Client, Manager, ManagerConfig, Pool, PoolError, RecyclingMethod, Runtime, Status};
use thiserror::Error;
use tokio::time::timeout;
use tokio_postgres::Row;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::{FromSqlOwned, ToSql, Type};
use tokio_postgres_rustls::MakeRustlsConnect;

use crate::config::DatabaseConfig;
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
/// How long a probe or a scrape may take.
const PROBE_TIMEOUT: Duration = Duration::from_secs(2);
/// How long a cancel request may take.
const CANCEL_TIMEOUT: Duration = Duration::from_secs(1);
/// The maximum number of retries after serialization failures and deadlocks.
const MAX_CONFLICT_RETRIES: u32 = 5;
/// The maximum number of retries after a lost connection.
const MAX_RECONNECTS: u32 = 1;

/// A pool of connections, opened when needed and replaced when broken.
pub(crate) struct Database {
    pool: Pool,
    tls: MakeRustlsConnect,
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
        matches!(self, Self::Unavailable(_) | Self::ConnectionLost(_) | Self::Timeout(_) | Self::Conflict(_))
    }

    /// The failure's name, for metrics and clients.
    pub(crate) fn label(&self) -> &'static str {
        match self {
            Self::Unavailable(_) => "database_unavailable",
            Self::ConnectionLost(_) => "database_connection_lost",
            Self::Timeout(_) => "database_timeout",
            Self::Conflict(_) => "database_conflict",
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
        let recycling = ManagerConfig { recycling_method: RecyclingMethod::Fast };
        let manager = Manager::from_config(config.postgres.clone(), tls.clone(), recycling);
        let pool = Pool::builder(manager)
            .max_size(config.pool_size)
            .wait_timeout(Some(POOL_WAIT_TIMEOUT))
            .create_timeout(Some(POOL_CREATE_TIMEOUT))
            .runtime(Runtime::Tokio1)
            .build()
            .expect("a pool with time-outs has a runtime for them");
        Self { pool, tls }
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

    /// The installed version of the extension, if it is installed.
    pub(crate) async fn extension_version(&self) -> Result<Option<String>, DatabaseError> {
        let sql = "select extversion from pg_catalog.pg_extension where extname = 'stripe_credits'";
        self.query_optional(sql, &[], PROBE_TIMEOUT).await
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

    /// Runs a statement whose parameters are all text, with the retries described above.
    async fn query(
        &self,
        sql: &str,
        parameters: &[&str],
        limit: Duration,
    ) -> Result<Vec<Row>, DatabaseError> {
        let mut conflicts = 0;
        let mut reconnects = 0;
        loop {
            match self.query_once(sql, parameters, limit).await {
                Err(DatabaseError::Conflict(_)) if conflicts < MAX_CONFLICT_RETRIES => conflicts += 1,
                Err(DatabaseError::ConnectionLost(_)) if reconnects < MAX_RECONNECTS => {
                    reconnects += 1;
                    // What broke one connection has most likely broken the others too.
                    self.pool.retain(|_, _| false);
                }
                result => return result,
            }
        }
    }

    async fn query_once(
        &self,
        sql: &str,
        parameters: &[&str],
        limit: Duration,
    ) -> Result<Vec<Row>, DatabaseError> {
        let client = self.pool.get().await.map_err(unavailable)?;
        let parameters: Vec<(&(dyn ToSql + Sync), Type)> =
            parameters.iter().map(|value| (value as &(dyn ToSql + Sync), Type::TEXT)).collect();
        if let Ok(result) = timeout(limit, in_transaction(&client, sql, &parameters)).await {
            return result.map_err(classify);
        }
        self.abandon(client).await;
        Err(DatabaseError::Timeout(limit))
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
    sql: &str,
    parameters: &[(&(dyn ToSql + Sync), Type)],
) -> Result<Vec<Row>, tokio_postgres::Error> {
    let (begun, rows, committed) = tokio::join!(
        biased;
        client.batch_execute("begin isolation level read committed"),
        // query_typed prepares no named statement and needs no round trip for the parameters' types.
        client.query_typed(sql, parameters),
        client.batch_execute("commit"),
    );
    begun?;
    let rows = rows?;
    committed?;
    Ok(rows)
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
        SqlState::QUERY_CANCELED | SqlState::LOCK_NOT_AVAILABLE => {
            DatabaseError::Unavailable(describe(&error))
        }
        // After a failover the old primary may still answer, read-only.
        SqlState::READ_ONLY_SQL_TRANSACTION => DatabaseError::ConnectionLost(error),
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
