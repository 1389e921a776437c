//! The mirror: each account's read model, kept in plain tables of the app's own database.
//!
//! In the books an account says since when the mirror lacks a change of it. A batch of such accounts is read there, at one
//! moment, written to the mirror, and marked in the books as mirrored unless it has changed since. The mirror takes a row
//! only if its version is higher than the one it has. So whichever of several shims writes last, and wherever one is
//! killed, the newest version wins, and what was not marked is written again.

pub(crate) mod schema;
mod statements;

use std::time::Duration;

use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{Row, error::SqlState};

use crate::config::MirrorConfig;
use crate::database::mirror::Batch;
use crate::database::{Database, DatabaseError};
use crate::error::Error;
use crate::mirror::statements::Sql;
use crate::plans::Plans;
use crate::statements::{Parameter, Statements, column};
use crate::tls;

/// How long one statement may take in the mirror.
const TIMEOUT: Duration = Duration::from_secs(30);
/// How long a statement waits there for a connection, and for one to be opened.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// What begins a transaction in the mirror: whoever holds a row there for longer gets it later.
const BEGIN: &str = "begin isolation level read committed; set local lock_timeout = '5s'";
/// The connections to the mirror.
const POOL_SIZE: usize = 1;
/// How many accounts a batch has, and how many ledger rows it may have with them.
const ACCOUNTS_PER_BATCH: usize = 500;
const LEDGER_ROWS_PER_BATCH: usize = 5_000;

/// The app's database.
pub(crate) struct Mirror {
    statements: Statements,
    sql: Sql,
    /// How many of each user's last ledger rows it has.
    ledger_rows: usize,
}

/// What became of a batch.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Copied {
    /// The accounts that the mirror has now.
    pub(crate) mirrored: i64,
    /// Those of which it had a higher version: it is of a time that the books do not know (a restore, a failover).
    pub(crate) ahead: i64,
    /// Those that it refused, each for itself: a constraint of the app's.
    pub(crate) refused: i64,
    /// Whether more are waiting, most likely.
    pub(crate) is_full: bool,
}

/// An account that the mirror has otherwise than the books.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Difference {
    pub(crate) user: String,
    /// `missing`, `surplus`, or what differs.
    pub(crate) what: String,
    /// In the books; none if the mirror should not have it.
    pub(crate) version: Option<i64>,
    /// In the mirror; none if it has no row.
    pub(crate) mirror_version: Option<i64>,
    /// How long the books have known that the mirror lacks it.
    pub(crate) waits_seconds: Option<f64>,
}

impl Mirror {
    /// Prepares the connection. It is not opened yet, so the mirror may be away.
    pub(crate) fn new(config: &MirrorConfig) -> Self {
        let tls = tls::postgres_connector(&config.tls);
        let plans = Plans::new(config.prepared_statements);
        let timeouts = (CONNECT_TIMEOUT, CONNECT_TIMEOUT);
        Self {
            statements: Statements::new(&config.postgres, &tls, &plans, POOL_SIZE, timeouts),
            sql: Sql::new(),
            ledger_rows: config.ledger_rows,
        }
    }

    /// Copies a batch of the accounts that wait.
    pub(crate) async fn copy_due(&self, database: &Database) -> Result<Copied, Error> {
        database.post_due_for_mirror().await?;
        let limit = self.accounts_per_batch();
        let batch = database.mirror_due(limit, self.ledger_rows).await?;
        if batch.count == 0 {
            return Ok(Copied::default());
        }
        let copied = match self.copy(database, &batch).await {
            Err(Error::Mirror(error)) if concerns_one_account(&error) => {
                self.copy_each(database, &batch).await?
            }
            result => result?,
        };
        Ok(Copied { is_full: usize::try_from(batch.count).is_ok_and(|count| count >= limit), ..copied })
    }

    /// Copies the accounts of a batch that the mirror refused as a whole, so that one does not keep the others.
    async fn copy_each(&self, database: &Database, batch: &Batch) -> Result<Copied, Error> {
        let mut copied = Copied::default();
        for user in batch.users.trim_matches(['{', '}']).split(',') {
            let one = database.mirror_of(&format!("{{{user}}}"), self.ledger_rows).await?;
            match self.copy(database, &one).await {
                Ok(Copied { mirrored, ahead, .. }) => {
                    copied.mirrored += mirrored;
                    copied.ahead += ahead;
                }
                Err(Error::Mirror(error)) if concerns_one_account(&error) => {
                    tracing::warn!(%error, user_id = user, "the mirror refuses an account");
                    copied.refused += 1;
                }
                Err(error) => return Err(error),
            }
        }
        Ok(copied)
    }

    async fn copy(&self, database: &Database, batch: &Batch) -> Result<Copied, Error> {
        let ahead = self.write(&batch.accounts).await?;
        database.mark_mirrored(batch).await?;
        Ok(Copied { mirrored: batch.count - ahead, ahead, ..Copied::default() })
    }

    /// Writes accounts of which the mirror has a lower version or none. Returns of how many it has a higher one.
    async fn write(&self, accounts: &str) -> Result<i64, Error> {
        let rows = self.run(&self.sql.write, &[accounts]).await?;
        rows.first().map_or(Ok(0), |row| read(row, 0))
    }

    /// Whether it could be written now: it has the tables, and lets this role write to them.
    pub(crate) async fn check(&self) -> Result<(), Error> {
        self.write("[]").await.map(drop)
    }

    /// The differences of a page: the accounts after one user up to another, and the rows of the mirror between the two.
    pub(crate) async fn differences(
        &self,
        page: &Batch,
        after: Option<&str>,
        until: Option<&str>,
    ) -> Result<Vec<Difference>, Error> {
        let parameters = [&*page.accounts, after.unwrap_or_default(), until.unwrap_or_default(), ""];
        self.differing(&parameters).await
    }

    /// The differences of these users.
    pub(crate) async fn differences_of(
        &self,
        database: &Database,
        users: &str,
    ) -> Result<(Batch, Vec<Difference>), Error> {
        let accounts = database.mirror_of(users, self.ledger_rows).await?;
        let differences = self.differing(&[&accounts.accounts, "", "", users]).await?;
        Ok((accounts, differences))
    }

    async fn differing(&self, parameters: &[&str]) -> Result<Vec<Difference>, Error> {
        let difference = |row: &Row| {
            Ok(Difference {
                user: read(row, 0)?,
                what: read(row, 1)?,
                version: read(row, 2)?,
                mirror_version: read(row, 3)?,
                waits_seconds: read(row, 4)?,
            })
        };
        self.run(&self.sql.differences, parameters).await?.iter().map(difference).collect()
    }

    /// The next accounts to compare.
    pub(crate) async fn page(&self, database: &Database, after: Option<&str>) -> Result<Batch, Error> {
        Ok(database.mirror_page(after, self.accounts_per_batch(), self.ledger_rows).await?)
    }

    /// Whether a page is not the last one.
    pub(crate) fn is_full(&self, page: &Batch) -> bool {
        usize::try_from(page.count).is_ok_and(|count| count >= self.accounts_per_batch())
    }

    /// Writes accounts whatever version the mirror has of them, as long as that is still the one that was seen. Returns how
    /// many.
    pub(crate) async fn repair(&self, accounts: &Batch, seen: &[&Difference]) -> Result<i64, Error> {
        let version = |seen: &&Difference| {
            seen.mirror_version.map_or_else(|| "NULL".to_owned(), |version| version.to_string())
        };
        let versions: Vec<String> = seen.iter().map(version).collect();
        let versions = format!("{{{}}}", versions.join(","));
        let rows = self.run(&self.sql.repair, &[&accounts.accounts, &users_of(seen), &versions]).await?;
        rows.first().map_or(Ok(0), |row| read(row, 0))
    }

    /// The value of a boolean expression.
    pub(crate) async fn is(&self, expression: &str) -> Result<bool, Error> {
        let rows = self.run(&format!("select ({expression})"), &[]).await?;
        rows.first().map_or(Ok(false), |row| read(row, 0))
    }

    /// Runs a statement, in a transaction of its own.
    pub(crate) async fn run(&self, sql: &str, parameters: &[&str]) -> Result<Vec<Row>, Error> {
        match self.run_once(sql, parameters).await {
            Err(
                DatabaseError::ConnectionLost(_) | DatabaseError::ReadOnly(_) | DatabaseError::Conflict(_),
            ) => self.run_once(sql, parameters).await,
            result => result,
        }
        .map_err(of_mirror)
    }

    async fn run_once(&self, sql: &str, parameters: &[&str]) -> Result<Vec<Row>, DatabaseError> {
        let parameters: Vec<Parameter> =
            parameters.iter().map(|value| (value as &(dyn ToSql + Sync), Type::TEXT)).collect();
        self.statements.run(BEGIN, sql, &parameters, TIMEOUT).await
    }

    fn accounts_per_batch(&self) -> usize {
        (LEDGER_ROWS_PER_BATCH / self.ledger_rows.max(1)).clamp(1, ACCOUNTS_PER_BATCH)
    }
}

/// The users of differences, as an array.
pub(crate) fn users_of(differences: &[&Difference]) -> String {
    let users: Vec<&str> = differences.iter().map(|difference| &*difference.user).collect();
    format!("{{{}}}", users.join(","))
}

fn read<T: tokio_postgres::types::FromSqlOwned>(row: &Row, index: usize) -> Result<T, Error> {
    column(row, index).map_err(Error::Mirror)
}

/// Whether a mirror may refuse an account and take the others: by a constraint or a trigger of the app's, or a domain.
fn concerns_one_account(error: &DatabaseError) -> bool {
    let class =
        |error: &tokio_postgres::Error| error.code().and_then(|code| code.code().get(..2).map(str::to_owned));
    match error {
        DatabaseError::Data(_) => true,
        DatabaseError::Failed(error) => matches!(class(error).as_deref(), Some("23" | "P0")),
        _ => false,
    }
}

/// An error of the mirror's database. A schema or a table that does not exist there was not made.
fn of_mirror(error: DatabaseError) -> Error {
    match error {
        DatabaseError::ExtensionMissing => Error::NoMirror,
        DatabaseError::Failed(error) if error.code() == Some(&SqlState::UNDEFINED_TABLE) => Error::NoMirror,
        error => Error::Mirror(error),
    }
}
