//! Postgres: one function a statement, one round trip each. There is no session state, so this works behind pgbouncer in
//! transaction mode, where no statement is prepared.
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
pub(crate) mod mirror;
pub(crate) mod operations;
pub(crate) mod top_ups;
pub(crate) mod outbox;
mod users;

use std::sync::Arc;
use std::time::Duration;

use deadpool_postgres::Status;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::timeout;
use tokio_postgres::Row;
use tokio_postgres::types::{FromSqlOwned, ToSql, Type};

use crate::batches::Batches;
use crate::config::DatabaseConfig;
use crate::limits::{Party, Turn, Turns};
use crate::plans::Plans;
pub(crate) use crate::statements::DatabaseError;
use crate::statements::{Parameter, Statements, column};
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
/// The connections by which accounts are read for the mirror.
const MIRROR_POOL_SIZE: usize = 1;
/// The connections of probes and scrapes.
const PROBE_POOL_SIZE: usize = 1;
/// Of the pool, the events of one customer may use this part, those of one user, and those that name neither, such as
/// refunds: two of the default's eight connections each. So one locked account leaves a quarter to everyone else.
const POOL_PART_OF_A_PARTY: usize = 4;
/// Of the pool, this part applies deliveries, each connection those that wait at the same moment: twice what the events of
/// one customer or user may use, so that slow ones of theirs leave lanes to everyone else.
const POOL_PART_OF_DELIVERIES: usize = 2;
/// How long a statement waits for each lock before it gives its connection to others.
const FIRST_LOCK_TIMEOUT: Duration = Duration::from_millis(100);
/// Of the pool, statements that wait for locks longer than that may use this part.
const POOL_PART_OF_WAITERS: usize = 2;
/// How long a statement waits to become one of those, without a connection.
const WAITER_TIMEOUT: Duration = Duration::from_secs(5);
/// The maximum number of retries after serialization failures and deadlocks.
const MAX_CONFLICT_RETRIES: u32 = 5;
/// The maximum number of retries after a lost connection.
const MAX_RECONNECTS: u32 = 1;

/// Connections to the database.
pub(crate) struct Database {
    statements: Statements,
    /// Answers probes also while every other connection is in use.
    probes: Statements,
    /// Tells the app, and waits for nothing that webhooks need.
    outbox: Statements,
    /// Reads for the mirror, in the same way. It is opened only if there is a mirror.
    mirror: Statements,
    /// What begins a transaction that gives way to others.
    begin: String,
    /// What begins one that waits for locks as long as is configured.
    begin_waiting: String,
    /// As many permits as there may be of the latter.
    waiters: Semaphore,
    events: Arc<Turns>,
    deliveries: Batches,
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

impl Database {
    /// Prepares the pools. No connection is opened yet, so the database may be down.
    pub(crate) fn new(config: &DatabaseConfig) -> Self {
        let tls = tls::postgres_connector(&config.tls);
        let plans = Plans::new(config.prepared_statements);
        let statements = |size, timeouts| Statements::new(&config.postgres, &tls, &plans, size, timeouts);
        let part = |divisor: usize| (config.pool_size / divisor).max(1);
        let lanes = part(POOL_PART_OF_DELIVERIES);
        let of_pool = statements(config.pool_size, (POOL_WAIT_TIMEOUT, POOL_CREATE_TIMEOUT));
        Self {
            probes: statements(PROBE_POOL_SIZE, (PROBE_TIMEOUT, PROBE_TIMEOUT)),
            outbox: statements(OUTBOX_POOL_SIZE, (POOL_WAIT_TIMEOUT, POOL_CREATE_TIMEOUT)),
            mirror: statements(MIRROR_POOL_SIZE, (POOL_WAIT_TIMEOUT, POOL_CREATE_TIMEOUT)),
            begin: begin(FIRST_LOCK_TIMEOUT),
            begin_waiting: begin(config.lock_timeout),
            waiters: Semaphore::new(part(POOL_PART_OF_WAITERS)),
            events: Turns::new(part(POOL_PART_OF_A_PARTY)),
            deliveries: Batches::start(&of_pool, lanes, begin, EVENT_TIMEOUT),
            statements: of_pool,
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
        self.statements.pool.status()
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
            match self.query_once(&self.statements, begin, sql, parameters, limit).await {
                Err(DatabaseError::Locked(_)) if waiter.is_none() => {
                    waiter = Some(self.become_waiter().await?);
                }
                Err(DatabaseError::Conflict(_)) if conflicts < MAX_CONFLICT_RETRIES => conflicts += 1,
                Err(error @ (DatabaseError::ConnectionLost(_) | DatabaseError::ReadOnly(_))) => {
                    // What happened to one connection has most likely happened to the others too.
                    self.statements.pool.retain(|_, _| false);
                    if reconnects == MAX_RECONNECTS {
                        return Err(error);
                    }
                    reconnects += 1;
                }
                result => return result,
            }
        }
    }

    /// Runs a statement whose parameters are all text, once.
    async fn query_once(
        &self,
        statements: &Statements,
        begin: &str,
        sql: &str,
        parameters: &[&str],
        limit: Duration,
    ) -> Result<Vec<Row>, DatabaseError> {
        let parameters: Vec<Parameter> =
            parameters.iter().map(|value| (value as &(dyn ToSql + Sync), Type::TEXT)).collect();
        statements.run(begin, sql, &parameters, limit).await
    }
}

/// What begins a READ COMMITTED transaction whose statement waits so long for each lock.
fn begin(lock_timeout: Duration) -> String {
    // SET LOCAL, because pgbouncer gives the connection to others after the transaction.
    format!("begin isolation level read committed; set local lock_timeout = '{}ms'", lock_timeout.as_millis())
}
