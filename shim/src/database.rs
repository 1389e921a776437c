//! Postgres: one function a question, one round trip each. Statements are unnamed and no session state is kept, so
//! this works behind pgbouncer in transaction mode.
//!
//! Every statement here may be run again (the database's functions are idempotent), so a lost connection and a
//! conflict with another transaction are retried here, at once; everything else is the caller's to answer.

use std::time::Duration;

use deadpool_postgres::{Client, Manager, ManagerConfig, Pool, PoolError, RecyclingMethod, Runtime, Status};
use serde_json::Value;
use tokio::time::timeout;
use tokio_postgres::Row;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres_rustls::MakeRustlsConnect;
use uuid::Uuid;

use crate::config::DatabaseConfig;
use crate::error::{Error, with_causes};
use crate::event::Event;
use crate::outcome::Outcome;
use crate::tls;

/// How long a request waits for a connection to come free.
const POOL_WAIT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a new connection may take, with its TLS handshake and password.
const POOL_CREATE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long an event may take: longer than any lock it waits for, shorter than Stripe's patience.
const EVENT_TIMEOUT: Duration = Duration::from_secs(20);
/// How long a catalog may take: it applies every event that was parked for want of it.
const CATALOG_TIMEOUT: Duration = Duration::from_mins(10);
/// How long what an app asks for may take: a person waits.
const READ_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a probe or a scrape may take.
const PROBE_TIMEOUT: Duration = Duration::from_secs(2);
/// How long the server is given to take a cancel request.
const CANCEL_TIMEOUT: Duration = Duration::from_secs(1);
/// How often a statement is run again after a serialization failure or a deadlock.
const MAX_CONFLICT_RETRIES: u32 = 5;
/// How often a statement is run again after its connection was lost.
const MAX_RECONNECTS: u32 = 1;

/// A pool of connections, opened as they are needed and replaced when they break.
pub(crate) struct Database {
    pool: Pool,
    tls: MakeRustlsConnect,
}

/// What loading a catalog did to one price.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct PriceChange {
    pub(crate) price_id: String,
    pub(crate) change: String,
}

/// A price of the catalog.
#[derive(Debug)]
pub(crate) struct CatalogPrice {
    pub(crate) price_id: String,
    /// `plan`, `pack` or `not_credits`.
    pub(crate) kind: String,
    /// Whose price it is, such as `pro`.
    pub(crate) key: String,
    pub(crate) is_retired: bool,
}

/// What the catalog says of a price that is on sale.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Offer {
    pub(crate) kind: OfferKind,
    /// Whether a change to it grants its whole amount at once.
    pub(crate) change_resets: bool,
}

/// What a price buys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum OfferKind {
    Pack,
    Plan,
}

impl Database {
    /// Prepares the pool; nothing is opened yet, so the database may be away.
    pub(crate) fn new(config: &DatabaseConfig) -> Result<Self, Error> {
        let tls = tls::postgres_connector(config.postgres.get_ssl_mode());
        // Fast: a connection that closed is noticed without asking the server at every checkout.
        let recycling = ManagerConfig { recycling_method: RecyclingMethod::Fast };
        let manager = Manager::from_config(config.postgres.clone(), tls.clone(), recycling);
        let pool = Pool::builder(manager)
            .max_size(config.pool_size)
            .wait_timeout(Some(POOL_WAIT_TIMEOUT))
            .create_timeout(Some(POOL_CREATE_TIMEOUT))
            .runtime(Runtime::Tokio1)
            .build()
            .map_err(|fault| Error::Internal(fault.to_string()))?;
        Ok(Self { pool, tls })
    }

    /// Applies an event as it came.
    pub(crate) async fn apply_stripe_event(&self, event: &Event) -> Result<Outcome, Error> {
        let sql = "select json_strip_nulls(to_json(answer))::text
            from billing.apply_stripe_event(($1::text)::jsonb) as answer";
        self.outcome(sql, &[event.text()]).await
    }

    /// Applies an event together with what was fetched from Stripe for it.
    pub(crate) async fn apply_stripe_event_with(
        &self,
        event: &Event,
        fetched: &str,
    ) -> Result<Outcome, Error> {
        let sql = "select json_strip_nulls(to_json(answer))::text
            from billing.apply_stripe_event(($1::text)::jsonb, ($2::text)::jsonb) as answer";
        self.outcome(sql, &[event.text(), fetched]).await
    }

    /// What applying an event would come to, with what was fetched for it.
    pub(crate) async fn explain_event(&self, event: &Event, fetched: Option<&str>) -> Result<Outcome, Error> {
        let sql = "select json_strip_nulls(to_json(answer))::text
            from billing.explain_event(($1::text)::jsonb, nullif($2::text, '')::jsonb) as answer";
        self.outcome(sql, &[event.text(), fetched.unwrap_or_default()]).await
    }

    /// Those of the events that are not known to be applied: what is missing, and what may come to something else now.
    pub(crate) async fn unapplied(&self, event_ids: &[String]) -> Result<Vec<String>, Error> {
        let sql = "select asked.id from json_array_elements_text(($1::text)::json) as asked (id)
            where not exists (select from billing.stripe_events e
                where e.event_id = asked.id and e.outcome in ('applied', 'already_applied'))";
        let ids = Value::from(event_ids).to_string();
        let rows = self.query(sql, &[&ids], READ_TIMEOUT).await?;
        rows.iter().map(|row| text(row, 0)).collect()
    }

    /// An event that the inbox keeps, as JSON.
    pub(crate) async fn kept_event(&self, event_id: &str) -> Result<Option<String>, Error> {
        let sql = "select e.payload::text from billing.stripe_events e where e.event_id = $1";
        let rows = self.query(sql, &[event_id], READ_TIMEOUT).await?;
        rows.first().map(|row| text(row, 0)).transpose()
    }

    /// How far a command came through Stripe's lists, as JSON; none where it came to their end or never ran.
    pub(crate) async fn cursor(&self, command: &str) -> Result<Option<String>, Error> {
        let sql = "select c.position::text from billing.cursors c where c.command = $1";
        let rows = self.query(sql, &[command], READ_TIMEOUT).await?;
        rows.first().map(|row| text(row, 0)).transpose()
    }

    /// Keeps how far a command has come; none forgets it.
    pub(crate) async fn move_cursor(&self, command: &str, position: Option<&str>) -> Result<(), Error> {
        let sql = "select billing.move_cursor($1, nullif($2::text, '')::jsonb)";
        self.query(sql, &[command, position.unwrap_or_default()], EVENT_TIMEOUT).await.map(drop)
    }

    /// A time that a person wrote, or so long ago, in seconds since 1970; Postgres knows how people write both.
    pub(crate) async fn time(&self, written: &str) -> Result<i64, Error> {
        let is_date =
            written.get(..5).is_some_and(|year| year.ends_with('-') && year[..4].parse::<u16>().is_ok());
        let sql = if is_date {
            "select extract(epoch from ($1::text)::timestamptz)::bigint"
        } else {
            "select extract(epoch from statement_timestamp() - ($1::text)::interval)::bigint"
        };
        let rows = self.query(sql, &[written], READ_TIMEOUT).await?;
        first(&rows)?.try_get(0).map_err(not_understood)
    }

    /// Every price that the catalog knows, as it stands now.
    pub(crate) async fn prices(&self) -> Result<Vec<CatalogPrice>, Error> {
        let sql = "select distinct on (p.price_id) p.price_id, p.kind, p.key, p.retired from billing.prices p
            where p.valid_from <= statement_timestamp() order by p.price_id, p.valid_from desc";
        let rows = self.query(sql, &[], READ_TIMEOUT).await?;
        let price = |row: &Row| {
            Ok(CatalogPrice {
                price_id: text(row, 0)?,
                kind: text(row, 1)?,
                key: text(row, 2)?,
                is_retired: row.try_get(3).map_err(not_understood)?,
            })
        };
        rows.iter().map(price).collect()
    }

    /// Applies what Stripe says of a session, as of its clock, for the user who must be its owner.
    pub(crate) async fn reconcile_checkout_session(
        &self,
        session: &str,
        user: Uuid,
        as_of: u64,
    ) -> Result<Outcome, Error> {
        let sql = "select json_strip_nulls(to_json(answer))::text
            from billing.reconcile_checkout_session(
                ($1::text)::jsonb, ($2::text)::uuid, to_timestamp(($3::text)::bigint)) as answer";
        self.outcome(sql, &[session, &user.to_string(), &as_of.to_string()]).await
    }

    /// Applies an event that the inbox keeps, together with what was fetched from Stripe for it.
    pub(crate) async fn apply_kept_event(&self, event_id: &str, fetched: &str) -> Result<Outcome, Error> {
        let sql = "select json_strip_nulls(to_json(answer))::text
            from billing.stripe_events kept
            cross join lateral billing.apply_stripe_event(kept.payload, ($2::text)::jsonb) as answer
            where kept.event_id = $1";
        self.outcome(sql, &[event_id, fetched]).await
    }

    /// Tier and balances of a user, as JSON.
    pub(crate) async fn credits(&self, user: Uuid) -> Result<String, Error> {
        // my_credits() asks the settings who it is. The outer row is made before the inner query runs for it, and what
        // it set ends with the statement's transaction.
        let sql = "select (select to_json(mine)::text from billing.my_credits() mine where me.claims is not null)
            from (select set_config('request.jwt.claims', json_build_object('sub', $1::text)::text, true) as claims
                  offset 0) me";
        let rows = self.query(sql, &[&user.to_string()], READ_TIMEOUT).await?;
        let credits: Option<String> = first(&rows)?.try_get(0).map_err(not_understood)?;
        credits.ok_or_else(|| Error::UnexpectedAnswer("my_credits() knows nothing of the user".to_owned()))
    }

    /// The plans and packs on sale, as JSON.
    pub(crate) async fn on_sale(&self) -> Result<String, Error> {
        let sql = "with latest as (
                select distinct on (p.price_id) p.* from billing.prices p
                where p.valid_from <= statement_timestamp() order by p.price_id, p.valid_from desc),
            offers as (
                select l.kind, l.key, l.name, l.credits, l.rank, json_agg(l.price_id order by l.price_id) as prices
                from latest l where not l.retired and l.kind in ('plan', 'pack')
                group by l.kind, l.key, l.name, l.credits, l.rank)
            select json_build_object(
                'plans', coalesce(
                    json_agg(json_build_object('key', o.key, 'name', o.name, 'credits', o.credits, 'rank', o.rank,
                        'prices', o.prices) order by o.rank, o.key) filter (where o.kind = 'plan'), '[]'),
                'packs', coalesce(
                    json_agg(json_build_object('key', o.key, 'name', o.name, 'credits', o.credits,
                        'prices', o.prices) order by o.credits, o.key) filter (where o.kind = 'pack'), '[]'))::text
            from offers o";
        text(first(&self.query(sql, &[], READ_TIMEOUT).await?)?, 0)
    }

    /// What the catalog says of a price; none where it is not on sale.
    pub(crate) async fn offer(&self, price_id: &str) -> Result<Option<Offer>, Error> {
        let sql = "select p.kind, p.plan_change = 'reset' from billing.resolve_price($1) p
            where not p.retired and p.kind in ('plan', 'pack')";
        let rows = self.query(sql, &[price_id], READ_TIMEOUT).await?;
        let Some(row) = rows.first() else { return Ok(None) };
        let kind = if text(row, 0)? == "plan" { OfferKind::Plan } else { OfferKind::Pack };
        Ok(Some(Offer { kind, change_resets: row.try_get(1).map_err(not_understood)? }))
    }

    /// Whether a price is a plan's, on sale or not.
    pub(crate) async fn is_plan(&self, price_id: &str) -> Result<bool, Error> {
        let sql = "select exists (select from billing.prices p where p.price_id = $1 and p.kind = 'plan')";
        let rows = self.query(sql, &[price_id], READ_TIMEOUT).await?;
        first(&rows)?.try_get(0).map_err(not_understood)
    }

    /// The user's customer at Stripe, by the server's own word: what a buyer wrote into a link could lead the user to
    /// somebody else's cards.
    pub(crate) async fn stripe_customer(&self, user: Uuid) -> Result<Option<String>, Error> {
        let sql = "select c.customer_id from billing.customers c
            where c.user_id = ($1::text)::uuid and c.source = 'server'
            order by c.as_of desc, c.customer_id limit 1";
        let rows = self.query(sql, &[&user.to_string()], READ_TIMEOUT).await?;
        rows.first().map(|row| text(row, 0)).transpose()
    }

    /// The user's subscription that names the tier, if one does.
    pub(crate) async fn live_subscription(&self, user: Uuid) -> Result<Option<String>, Error> {
        let sql = "select c.stripe_subscription_id from billing.user_credits c
            where c.user_id = ($1::text)::uuid and c.stripe_subscription_id is not null";
        let rows = self.query(sql, &[&user.to_string()], READ_TIMEOUT).await?;
        rows.first().map(|row| text(row, 0)).transpose()
    }

    /// Whether jsonb can hold the event; some JSON it cannot, such as `\u0000` and what nests too deep.
    pub(crate) async fn can_store(&self, event: &Event) -> Result<bool, Error> {
        match self.query("select ($1::text)::jsonb is not null", &[event.text()], EVENT_TIMEOUT).await {
            Ok(_) => Ok(true),
            Err(Error::Data(_)) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Makes the catalog say what `document` says.
    pub(crate) async fn load_catalog(&self, document: &str) -> Result<Vec<PriceChange>, Error> {
        let sql = "select price_id, change from billing.load_catalog(($1::text)::jsonb)";
        let rows = self.query(sql, &[document], CATALOG_TIMEOUT).await?;
        let change = |row: &Row| Ok(PriceChange { price_id: text(row, 0)?, change: text(row, 1)? });
        rows.iter().map(change).collect()
    }

    /// Whether the settings are of live mode; none while there is no catalog.
    pub(crate) async fn livemode(&self) -> Result<Option<bool>, Error> {
        let rows = self.query("select livemode from billing.settings", &[], PROBE_TIMEOUT).await?;
        rows.first().map(|row| row.try_get(0).map_err(not_understood)).transpose()
    }

    /// The installed version of the extension, if it is installed.
    pub(crate) async fn extension_version(&self) -> Result<Option<String>, Error> {
        let sql = "select extversion from pg_catalog.pg_extension where extname = 'stripe_credits'";
        let rows = self.query(sql, &[], PROBE_TIMEOUT).await?;
        rows.first().map(|row| text(row, 0)).transpose()
    }

    /// How many events are parked.
    pub(crate) async fn parked_events(&self) -> Result<i64, Error> {
        let sql = "select (billing.credit_system_metrics() -> 'parked_events')::bigint";
        let rows = self.query(sql, &[], PROBE_TIMEOUT).await?;
        let parked: Option<i64> = first(&rows)?.try_get(0).map_err(not_understood)?;
        parked.ok_or_else(|| {
            Error::UnexpectedAnswer("credit_system_metrics counts no parked_events".to_owned())
        })
    }

    /// How full the pool is.
    pub(crate) fn pool_status(&self) -> Status {
        self.pool.status()
    }

    async fn outcome(&self, sql: &str, parameters: &[&str]) -> Result<Outcome, Error> {
        let rows = self.query(sql, parameters, EVENT_TIMEOUT).await?;
        Outcome::parse(text(first(&rows)?, 0)?)
    }

    /// Runs a statement whose parameters are all text, again where that may help.
    async fn query(&self, sql: &str, parameters: &[&str], limit: Duration) -> Result<Vec<Row>, Error> {
        let mut conflicts = 0;
        let mut reconnects = 0;
        loop {
            match self.query_once(sql, parameters, limit).await {
                Err(Error::Conflict(_)) if conflicts < MAX_CONFLICT_RETRIES => conflicts += 1,
                Err(Error::ConnectionLost(_)) if reconnects < MAX_RECONNECTS => {
                    reconnects += 1;
                    // What broke one connection has most likely broken its neighbours: start from none.
                    self.pool.retain(|_, _| false);
                }
                result => return result,
            }
        }
    }

    async fn query_once(&self, sql: &str, parameters: &[&str], limit: Duration) -> Result<Vec<Row>, Error> {
        let client = self.pool.get().await.map_err(unavailable)?;
        let parameters: Vec<(&(dyn ToSql + Sync), Type)> =
            parameters.iter().map(|value| (value as &(dyn ToSql + Sync), Type::TEXT)).collect();
        // query_typed names no statement and needs no round trip to learn the parameters' types.
        if let Ok(result) = timeout(limit, client.query_typed(sql, &parameters)).await {
            return result.map_err(classify);
        }
        self.abandon(client).await;
        Err(Error::DatabaseTimeout(limit))
    }

    /// Takes a connection whose statement still runs out of the pool, and asks the server to stop the statement:
    /// else each retry of Stripe's would leave one more of them waiting for the same lock.
    async fn abandon(&self, client: Client) {
        let cancel = client.cancel_token();
        drop(Client::take(client));
        // If this fails as well, the server finds the connection closed when the statement ends.
        let _ = timeout(CANCEL_TIMEOUT, cancel.cancel_query(self.tls.clone())).await;
    }
}

/// Tells apart what may pass, what the data did, and what is wrong with the database or with us.
fn classify(error: tokio_postgres::Error) -> Error {
    let Some(state) = error.code() else {
        return Error::ConnectionLost(error);
    };
    match *state {
        SqlState::T_R_SERIALIZATION_FAILURE | SqlState::T_R_DEADLOCK_DETECTED => Error::Conflict(error),
        SqlState::QUERY_CANCELED | SqlState::LOCK_NOT_AVAILABLE => {
            Error::DatabaseUnavailable(describe(&error))
        }
        // After a failover the old primary may still answer, and refuse to write.
        SqlState::READ_ONLY_SQL_TRANSACTION => Error::ConnectionLost(error),
        // Schema billing, where every function that is called here lives, is the extension's.
        SqlState::INVALID_SCHEMA_NAME => Error::ExtensionMissing,
        _ => match state.code().get(..2) {
            Some("08" | "57") => Error::ConnectionLost(error),
            Some("53" | "58") => Error::DatabaseUnavailable(describe(&error)),
            Some("22" | "54") => Error::Data(error),
            _ => Error::Database(error),
        },
    }
}

/// An error for the log. The server's own is cut down to its message, for its detail may quote what we sent.
pub(crate) fn describe(error: &tokio_postgres::Error) -> String {
    match error.as_db_error() {
        Some(error) => format!("{} (SQLSTATE {})", error.message(), error.code().code()),
        None => with_causes(error),
    }
}

fn unavailable(error: PoolError) -> Error {
    Error::DatabaseUnavailable(match error {
        PoolError::Backend(error) => describe(&error),
        PoolError::Timeout(stage) => format!("{stage:?} timed out in the pool"),
        other => other.to_string(),
    })
}

fn first(rows: &[Row]) -> Result<&Row, Error> {
    rows.first().ok_or_else(|| Error::UnexpectedAnswer("no row".to_owned()))
}

fn text(row: &Row, column: usize) -> Result<String, Error> {
    row.try_get(column).map_err(not_understood)
}

#[allow(clippy::needless_pass_by_value, reason = "the shape map_err asks for")]
fn not_understood(error: tokio_postgres::Error) -> Error {
    Error::UnexpectedAnswer(describe(&error))
}
