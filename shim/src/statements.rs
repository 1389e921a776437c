//! Statements on the connections of a pool: a transaction and a time limit each, and what their errors mean.

use std::sync::Arc;
use std::time::Duration;

use deadpool_postgres::{
    Client, Manager, ManagerConfig, Pool, PoolError, RecyclingMethod, Runtime, Timeouts,
};
use thiserror::Error;
use tokio::time::timeout;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::{FromSqlOwned, ToSql, Type};
use tokio_postgres::{Row, SimpleQueryMessage};
use tokio_postgres_rustls::MakeRustlsConnect;

use crate::plans::{Connector, Plans, is_not_kept, is_outdated};
use crate::telemetry::with_causes;

/// How long a cancel request may take.
const CANCEL_TIMEOUT: Duration = Duration::from_secs(1);
/// How long asking whether a server takes writes may take.
const WRITES_TIMEOUT: Duration = Duration::from_secs(2);

/// A parameter and its type.
pub(crate) type Parameter<'a> = (&'a (dyn ToSql + Sync), Type);

/// Runs statements on connections that are opened when needed and replaced when broken.
#[derive(Clone)]
pub(crate) struct Statements {
    pub(crate) pool: Pool,
    tls: MakeRustlsConnect,
    plans: Arc<Plans>,
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

impl Statements {
    /// Prepares a pool. No connection is opened yet, so the database may be down.
    pub(crate) fn new(
        postgres: &tokio_postgres::Config,
        tls: &MakeRustlsConnect,
        plans: &Arc<Plans>,
        size: usize,
        (wait, create): (Duration, Duration),
    ) -> Self {
        // Fast: a closed connection is noticed without a round trip for every use.
        let recycling = ManagerConfig { recycling_method: RecyclingMethod::Fast };
        let connector = Connector { tls: tls.clone(), plans: plans.clone() };
        let timeouts = Timeouts { wait: Some(wait), create: Some(create), recycle: None };
        let pool = Pool::builder(Manager::from_connect(postgres.clone(), connector, recycling))
            .max_size(size)
            .timeouts(timeouts)
            .runtime(Runtime::Tokio1)
            .build()
            .expect("a pool with time-outs has a runtime for them");
        Self { pool, tls: tls.clone(), plans: plans.clone() }
    }

    /// Runs a statement in a transaction that `begin` begins.
    pub(crate) async fn run(
        &self,
        begin: &str,
        sql: &str,
        parameters: &[Parameter<'_>],
        limit: Duration,
    ) -> Result<Vec<Row>, DatabaseError> {
        let client = self.pool.get().await.map_err(unavailable)?;
        let Ok(result) = timeout(limit, self.in_transaction(&client, begin, sql, parameters)).await else {
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

    /// Runs a statement in a transaction, prepared if that can be.
    async fn in_transaction(
        &self,
        client: &Client,
        begin: &str,
        sql: &str,
        parameters: &[Parameter<'_>],
    ) -> Result<Vec<Row>, tokio_postgres::Error> {
        if !self.plans.are_kept() {
            return unprepared(client, begin, sql, parameters).await;
        }
        match prepared(client, begin, sql, parameters).await {
            // Nothing was done: the statement did not begin.
            Err(error) if is_not_kept(&error) => {
                self.plans.give_up("a connection pooler keeps no prepared statements");
                unprepared(client, begin, sql, parameters).await
            }
            Err(error) if is_outdated(&error) => {
                client.statement_cache.clear();
                unprepared(client, begin, sql, parameters).await
            }
            result => result,
        }
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

/// Runs a statement that the connection has prepared, or prepares it first.
async fn prepared(
    client: &Client,
    begin: &str,
    sql: &str,
    parameters: &[Parameter<'_>],
) -> Result<Vec<Row>, tokio_postgres::Error> {
    let types: Vec<Type> = parameters.iter().map(|(_, kind)| kind.clone()).collect();
    let values: Vec<&(dyn ToSql + Sync)> = parameters.iter().map(|(value, _)| *value).collect();
    let statement = client.prepare_typed_cached(sql, &types).await?;
    in_one_trip(client, begin, client.query(&statement, &values)).await
}

/// The same for a statement without a name.
async fn unprepared(
    client: &Client,
    begin: &str,
    sql: &str,
    parameters: &[Parameter<'_>],
) -> Result<Vec<Row>, tokio_postgres::Error> {
    // query_typed prepares no named statement and needs no round trip for the parameters' types.
    in_one_trip(client, begin, client.query_typed(sql, parameters)).await
}

/// Runs a statement in a transaction. Its three messages are sent at once, in this order: a failed statement makes the commit
/// a rollback.
async fn in_one_trip(
    client: &Client,
    begin: &str,
    statement: impl Future<Output = Result<Vec<Row>, tokio_postgres::Error>>,
) -> Result<Vec<Row>, tokio_postgres::Error> {
    let (started, rows, committed) = tokio::join!(
        biased;
        client.batch_execute(begin),
        statement,
        client.batch_execute("commit"),
    );
    started?;
    let rows = rows?;
    committed?;
    Ok(rows)
}

/// Whether a connection is to a server that takes writes. If that cannot be asked, the error that led here stands.
async fn takes_writes(client: &Client) -> bool {
    let asked = timeout(WRITES_TIMEOUT, client.simple_query("show transaction_read_only")).await;
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

/// A column of a row.
pub(crate) fn column<T: FromSqlOwned>(row: &Row, index: usize) -> Result<T, DatabaseError> {
    row.try_get(index).map_err(|error| DatabaseError::UnexpectedAnswer(describe(&error)))
}
