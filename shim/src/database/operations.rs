//! What operators watch: what waits, what is overdue, when the scheduled jobs ran last, and whether the books are right.

use std::time::Duration;

use serde::de::DeserializeOwned;
use tokio_postgres::Row;

use crate::database::{Database, DatabaseError, column};
use crate::status::Status;

/// How many waiting events are looked at by a scrape: more are as alarming.
const MAX_COUNTED: u32 = 100_000;
/// How long proving the books and the installation may take: in proportion to the tables' size.
const PROOF_TIMEOUT: Duration = Duration::from_hours(1);

/// The names of the commands that keep in `billing.cursors` when they ran.
pub(crate) const SWEEP: &str = "sweep";
pub(crate) const BOOKS_CHECK: &str = "books check";

/// A user whose books differ, and how.
#[derive(Debug)]
pub(crate) struct BooksFault {
    pub(crate) user_id: String,
    pub(crate) detail: String,
}

/// A rule of access that does not hold any more, and how.
#[derive(Debug)]
pub(crate) struct SecurityFault {
    pub(crate) check: String,
    pub(crate) detail: String,
}

impl Database {
    /// What a scrape reads, on the connection of probes. Whatever the tables' size, it reads at most [`MAX_COUNTED`] rows.
    pub(crate) async fn status(&self) -> Result<Status, DatabaseError> {
        // The comparison with -infinity is always true: the index of what waits is read by it. An account on a test clock is
        // due by that clock, which may stand still.
        let sql = format!(
            "select json_build_object(
                'waiting', (
                    select coalesce(json_agg(w), '[]')
                    from (
                        select e.reason, count(*) as events,
                            floor(extract(epoch from min(e.first_received_at)))::bigint as since
                        from (
                            select case e.outcome when 'needs_fetch' then 'needs_fetch' else e.reason end as reason,
                                e.first_received_at
                            from billing.stripe_events e
                            where e.outcome in ('parked', 'needs_fetch') and e.judged_at >= '-infinity'
                            limit {MAX_COUNTED}
                        ) e
                        group by e.reason
                    ) w),
                'due_since', (
                    select floor(extract(epoch from min(a.next_due_at)))::bigint from billing.accounts a
                    where a.next_due_at <= statement_timestamp() and a.test_clock is null),
                'sweep', (
                    select json_build_object('at', floor(extract(epoch from c.moved_at))::bigint,
                        'lost', c.position -> 'lost')
                    from billing.cursors c where c.command = '{SWEEP}'),
                'books_check', (
                    select json_build_object('at', floor(extract(epoch from c.moved_at))::bigint,
                        'faults', c.position -> 'faults')
                    from billing.cursors c where c.command = '{BOOKS_CHECK}'),
                'top_ups', (
                    select json_build_object('waiting', count(*),
                        'since', floor(extract(epoch from min(t.requested_at)))::bigint)
                    from billing.top_ups t where t.state in ('requested', 'paid')))::text"
        );
        let rows = self.probe(&sql).await?;
        let row = rows.first().ok_or_else(|| DatabaseError::UnexpectedAnswer("no row".to_owned()))?;
        json(row)
    }

    /// The users whose books differ, by `validate_credits_consistency()`.
    pub(crate) async fn books_faults(&self) -> Result<Vec<BooksFault>, DatabaseError> {
        let sql = "select v.user_id::text, v.detail from billing.validate_credits_consistency() v";
        let rows = self.query(sql, &[], PROOF_TIMEOUT).await?;
        let fault = |row: &Row| Ok(BooksFault { user_id: column(row, 0)?, detail: column(row, 1)? });
        rows.iter().map(fault).collect()
    }

    /// The rules of access that do not hold, by `security_selfcheck()`.
    pub(crate) async fn security_faults(&self) -> Result<Vec<SecurityFault>, DatabaseError> {
        let sql = "select s.check_name, s.detail from billing.security_selfcheck() s where not s.ok";
        let rows = self.query(sql, &[], PROOF_TIMEOUT).await?;
        let fault = |row: &Row| Ok(SecurityFault { check: column(row, 0)?, detail: column(row, 1)? });
        rows.iter().map(fault).collect()
    }

    /// The database's clock, in seconds since 1970.
    pub(crate) async fn now(&self) -> Result<i64, DatabaseError> {
        self.time("0 seconds").await
    }
}

/// The first column, which is JSON.
fn json<T: DeserializeOwned>(row: &Row) -> Result<T, DatabaseError> {
    let text: String = column(row, 0)?;
    serde_json::from_str(&text).map_err(|fault| DatabaseError::UnexpectedAnswer(fault.to_string()))
}
