//! Table `repricings`: changes of the catalog whose effect on accounts is not posted everywhere yet.

use stripe_credits_rules::calendar::Time;
use uuid::Uuid;

use crate::pg::convert::{clock, timestamp, uuid_datum};
use crate::pg::sql::{Row, Sql};

/// A change of the catalog, and how far its effect is posted. Accounts are looked at in the order of their users.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Repricing {
    /// Its key: repricings are worked off in this order.
    pub(crate) number: i64,
    /// The prices and products that changed.
    pub(crate) changed: Vec<String>,
    /// Of these, the ones that the catalog had never had: lines that it did not know are worth something now.
    pub(crate) added: Vec<String>,
    /// If a free plan is new in the catalog, since when: its months begin then in every account.
    pub(crate) free_plan_since: Option<Time>,
    /// The last user whose account was looked at.
    pub(crate) passed: Option<Uuid>,
    /// Whether every account was looked at.
    pub(crate) is_walked: bool,
    /// Users up to there whose accounts were busy.
    pub(crate) busy: Vec<Uuid>,
}

/// An account, and whether a repricing may concern it.
pub(crate) struct Examined {
    pub(crate) user: Uuid,
    /// Whether one of the user's subscriptions is, or was, to one of the changed prices.
    pub(crate) is_subscribed: bool,
    /// When the earliest period begins that a line of an added price bills.
    pub(crate) lines_from: Option<Time>,
}

impl Examined {
    /// Whether it may.
    pub(crate) fn is_concerned(&self) -> bool {
        self.is_subscribed || self.lines_from.is_some()
    }
}

/// Whether anything is to be worked off.
pub(crate) fn is_due(sql: &mut Sql) -> bool {
    sql.query_opt("select from billing.repricings limit 1", &[]).is_some()
}

/// The repricing that is worked off next. The caller holds the catalog's lock exclusively, here and below.
pub(crate) fn next(sql: &mut Sql) -> Option<Repricing> {
    sql.query_opt(
        "select number, changed, added, free_plan_since, passed, is_walked, busy
         from billing.repricings order by number limit 1",
        &[],
    )
    .map(|mut row| Repricing {
        number: row.get(),
        changed: row.get(),
        added: row.get(),
        free_plan_since: row.get_opt(),
        passed: row.get_opt(),
        is_walked: row.get(),
        busy: row.get(),
    })
}

/// The number of the next one.
pub(crate) fn next_number(sql: &mut Sql) -> i64 {
    sql.query_one("select coalesce(max(number), 0) + 1 from billing.repricings", &[]).get()
}

/// Saves how far one has come.
pub(crate) fn save(sql: &mut Sql, repricing: &Repricing) {
    let Repricing { number, changed, added, free_plan_since, passed, is_walked, busy } = repricing;
    let busy: Vec<pgrx::Uuid> = busy.iter().copied().map(uuid_datum).collect();
    sql.execute(
        "insert into billing.repricings as r
             (number, changed, added, free_plan_since, passed, is_walked, busy, created_at)
         values ($1, $2, $3, $4, $5, $6, $7, $8)
         on conflict (number) do update
             set (passed, is_walked, busy) = (excluded.passed, excluded.is_walked, excluded.busy)",
        &[
            (*number).into(),
            changed.clone().into(),
            added.clone().into(),
            free_plan_since.map(timestamp).into(),
            passed.map(uuid_datum).into(),
            (*is_walked).into(),
            busy.into(),
            timestamp(clock()).into(),
        ],
    );
}

/// Deletes one that is done.
pub(crate) fn delete(sql: &mut Sql, number: i64) {
    sql.execute("delete from billing.repricings where number = $1", &[number.into()]);
}

/// What [`examined`] reads of the users `u`, by the arguments $1 (the changed prices) and $2 (the added ones).
macro_rules! examined_columns {
    () => {
        "u.user_id, exists (
             select from billing.subscriptions s
             where s.user_id = u.user_id and (
                 s.price_id = any ($1) or s.catalog_id = any ($1)
                 or exists (
                     select from billing.subscription_items i
                     where i.subscription_id = s.subscription_id
                         and (i.price_id = any ($1) or i.product_id = any ($1))))),
         (
             select min(l.period_start) from billing.invoice_lines l
             where l.user_id = u.user_id and (l.price_id = any ($2) or l.product_id = any ($2)))"
    };
}

fn examined(mut row: Row) -> Examined {
    Examined { user: row.get(), is_subscribed: row.get(), lines_from: row.get_opt() }
}

/// The next `limit` accounts in the order of their users, each with whether the repricing may concern it.
pub(crate) fn after(sql: &mut Sql, repricing: &Repricing, limit: i64) -> Vec<Examined> {
    const AFTER: &str = concat!(
        "select ",
        examined_columns!(),
        " from (
             select user_id from billing.accounts where $3::uuid is null or user_id > $3 order by user_id limit $4
         ) u
         order by u.user_id"
    );
    let args = [
        repricing.changed.clone().into(),
        repricing.added.clone().into(),
        repricing.passed.map(uuid_datum).into(),
        limit.into(),
    ];
    sql.query(AFTER, &args).map(examined).collect()
}

/// The same of accounts that were busy.
pub(crate) fn of_busy(sql: &mut Sql, busy: &[Uuid], repricing: &Repricing) -> Vec<Examined> {
    const OF_BUSY: &str =
        concat!("select ", examined_columns!(), " from unnest($3::uuid[]) u (user_id) order by u.user_id");
    let busy: Vec<pgrx::Uuid> = busy.iter().copied().map(uuid_datum).collect();
    let args = [repricing.changed.clone().into(), repricing.added.clone().into(), busy.into()];
    sql.query(OF_BUSY, &args).map(examined).collect()
}

/// Whether a user's facts are worth something else by a change of the catalog that is not posted yet.
pub(crate) fn is_pending(sql: &mut Sql, user: Uuid) -> bool {
    sql.query_opt(
        "select from billing.repricings r
         where (not r.is_walked and (r.passed is null or $1 > r.passed) or $1 = any (r.busy))
             and exists (
                 select from billing.invoice_lines l
                 where l.user_id = $1 and (l.price_id = any (r.added) or l.product_id = any (r.added)))
         limit 1",
        &[uuid_datum(user).into()],
    )
    .is_some()
}
