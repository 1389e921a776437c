//! What the mirror is to have: read and marked on a connection of its own, so that no webhook waits for it.

use std::time::Duration;

use tokio_postgres::Row;

use crate::database::{Database, DatabaseError, column};
use crate::status::WaitingAccounts;

/// How long reading or marking a batch may take.
const TIMEOUT: Duration = Duration::from_secs(30);
/// Of the accounts that wait longest, one of so many is taken: then several shims seldom copy the same ones, and whoever
/// copies an account that another copied too does no harm.
const CANDIDATES_PER_ACCOUNT: usize = 4;
/// How many waiting accounts are counted by a scrape: more are as alarming.
const MAX_COUNTED: u32 = 100_000;

/// Accounts as they were at one moment. Users and versions are arrays as Postgres writes them, the accounts an array of JSON.
#[derive(Debug, Clone)]
pub(crate) struct Batch {
    pub(crate) count: i64,
    pub(crate) users: String,
    pub(crate) versions: String,
    pub(crate) accounts: String,
    /// The last user.
    pub(crate) last: Option<String>,
}

impl Database {
    /// Posts what is due by time, if anything is: until then no account's version says what the read model shows.
    pub(crate) async fn post_due_for_mirror(&self) -> Result<(), DatabaseError> {
        let sql = "select case when exists (select from billing.read_changes)
                or exists (
                    select from billing.accounts a
                    where a.next_due_at <= statement_timestamp() and a.test_clock is null)
            then billing.run_due() end";
        self.mirrored(&self.begin, sql, &[]).await.map(drop)
    }

    /// Up to so many of the accounts that the mirror does not have as they are, each with so many ledger rows.
    pub(crate) async fn mirror_due(&self, limit: usize, ledger_rows: usize) -> Result<Batch, DatabaseError> {
        let candidates = limit * CANDIDATES_PER_ACCOUNT;
        let users = format!(
            "select w.user_id
             from (
                 select a.user_id from billing.accounts a
                 where a.mirror_due_since is not null order by a.mirror_due_since limit {candidates}
             ) w
             order by random() limit {limit}"
        );
        self.batch(&users, &[], ledger_rows).await
    }

    /// The next accounts in the order of their users, after one of them or from the first on.
    pub(crate) async fn mirror_page(
        &self,
        after: Option<&str>,
        limit: usize,
        ledger_rows: usize,
    ) -> Result<Batch, DatabaseError> {
        let users = format!(
            "select a.user_id from billing.accounts a
             where $1 = '' or a.user_id > nullif($1, '')::uuid order by a.user_id limit {limit}"
        );
        self.batch(&users, &[after.unwrap_or_default()], ledger_rows).await
    }

    /// The accounts of these users, an array as Postgres writes it.
    pub(crate) async fn mirror_of(&self, users: &str, ledger_rows: usize) -> Result<Batch, DatabaseError> {
        self.batch("select unnest(($1::text)::uuid[])", &[users], ledger_rows).await
    }

    /// Records that the mirror has these accounts.
    pub(crate) async fn mark_mirrored(&self, batch: &Batch) -> Result<(), DatabaseError> {
        // The accounts are locked until the commit, which need not wait for the disk: a mark that a crash undoes is made again.
        let begin = format!("{}; set local synchronous_commit = off", self.begin);
        let sql = "select billing.mark_mirrored(($1::text)::uuid[], ($2::text)::bigint[])";
        self.mirrored(&begin, sql, &[&batch.users, &batch.versions]).await.map(drop)
    }

    /// Lets these users' accounts be mirrored again.
    pub(crate) async fn mirror_again(&self, users: &str) -> Result<(), DatabaseError> {
        let sql = "select billing.mirror_again(($1::text)::uuid[])";
        self.mirrored(&self.begin_waiting, sql, &[users]).await.map(drop)
    }

    /// How many accounts the mirror does not have as they are, and since when.
    pub(crate) async fn waiting_for_mirror(&self) -> Result<WaitingAccounts, DatabaseError> {
        let sql = format!(
            "select (
                select count(*)
                from (select from billing.accounts a where a.mirror_due_since is not null limit {MAX_COUNTED}) w
            ), (
                select coalesce(extract(epoch from clock_timestamp() - min(a.mirror_due_since)), 0)::float8
                from billing.accounts a where a.mirror_due_since is not null)"
        );
        let rows = self.mirrored(&self.begin, &sql, &[]).await?;
        let row = rows.first().ok_or_else(no_row)?;
        Ok(WaitingAccounts { count: column(row, 0)?, oldest_seconds: column(row, 1)? })
    }

    /// The accounts of the users that a query names.
    async fn batch(&self, users: &str, parameters: &[&str], rows: usize) -> Result<Batch, DatabaseError> {
        let sql = format!(
            "select count(*), coalesce(array_agg(r.user_id), '{{}}')::text, coalesce(array_agg(r.version), '{{}}')::text,
                 coalesce(jsonb_agg(to_jsonb(r) || jsonb_build_object(
                     'waits_seconds', extract(epoch from clock_timestamp() - r.due_since))), '[]')::text,
                 (array_agg(r.user_id order by r.user_id desc))[1]::text
             from billing.mirror_rows(array({users}), {rows}) r"
        );
        let rows = self.mirrored(&self.begin, &sql, parameters).await?;
        let row = rows.first().ok_or_else(no_row)?;
        Ok(Batch {
            count: column(row, 0)?,
            users: column(row, 1)?,
            versions: column(row, 2)?,
            accounts: column(row, 3)?,
            last: column(row, 4)?,
        })
    }

    /// Runs a statement on the mirror's connection; a second time if the connection was lost since the last.
    async fn mirrored(&self, begin: &str, sql: &str, parameters: &[&str]) -> Result<Vec<Row>, DatabaseError> {
        match self.query_once(&self.mirror, begin, sql, parameters, TIMEOUT).await {
            Err(
                DatabaseError::ConnectionLost(_) | DatabaseError::ReadOnly(_) | DatabaseError::Conflict(_),
            ) => self.query_once(&self.mirror, begin, sql, parameters, TIMEOUT).await,
            result => result,
        }
    }
}

fn no_row() -> DatabaseError {
    DatabaseError::UnexpectedAnswer("no row".to_owned())
}
