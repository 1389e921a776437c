//! Tables `subscription_users` and `subscription_moves`: which user a subscription was given to, and the moves that came of it.

use stripe_credits_rules::calendar::Time;
use uuid::Uuid;

use crate::pg::convert::{timestamp, uuid_datum};
use crate::pg::sql::{Row, Sql};

/// What gave a subscription to a user.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Source {
    /// The metadata of a state.
    Metadata,
    /// A call of `attribute()`.
    Operator,
}

impl Source {
    fn as_str(self) -> &'static str {
        match self {
            Source::Metadata => "metadata",
            Source::Operator => "operator",
        }
    }
}

/// Whether the newest state whose metadata named a user was of this time, and named another one. The caller holds the
/// subscription's lock, here and below.
pub(crate) fn contradicts(sql: &mut Sql, subscription_id: &str, as_of: Time, user: Uuid) -> bool {
    sql.query_opt(
        "select from (
             select as_of, user_id from billing.subscription_users
             where subscription_id = $1 and source = 'metadata' order by as_of desc limit 1) newest
         where as_of = $2 and user_id <> $3",
        &[subscription_id.into(), timestamp(as_of).into(), uuid_datum(user).into()],
    )
    .is_some()
}

/// Records that a subscription was given to a user. Of two users at one time the same one stands, whichever comes first.
pub(crate) fn give(sql: &mut Sql, subscription_id: &str, user: Uuid, as_of: Time, source: Source) {
    let added = sql.query_opt(
        "insert into billing.subscription_users as u (subscription_id, as_of, source, user_id) values ($1, $2, $3, $4)
         on conflict (subscription_id, as_of, source) do update set user_id = excluded.user_id
             where u.user_id < excluded.user_id
         returning 1",
        &[subscription_id.into(), timestamp(as_of).into(), source.as_str().into(), uuid_datum(user).into()],
    );
    if added.is_some() {
        // What stands between two that name the same user says nothing more.
        sql.execute(
            "delete from billing.subscription_users u using (
                 select as_of, user_id = lag(user_id) over named and user_id = lead(user_id) over named as is_between
                 from billing.subscription_users where subscription_id = $1 and source = 'metadata'
                 window named as (order by as_of)) n
             where u.subscription_id = $1 and u.source = 'metadata' and u.as_of = n.as_of and n.is_between",
            &[subscription_id.into()],
        );
    }
}

/// When a subscription was last given to a user.
pub(crate) fn last_given(sql: &mut Sql, subscription_id: &str) -> Option<Time> {
    let last = "select max(as_of) from billing.subscription_users where subscription_id = $1";
    sql.query_one(last, &[subscription_id.into()]).get_opt()
}

/// Whom a subscription was given to last, if it was. A state that names the same user as the one before gives nothing: an
/// operator's word stands until the metadata change.
pub(crate) fn user(sql: &mut Sql, subscription_id: &str) -> Option<Uuid> {
    let row = sql.query_opt(
        "select user_id from (
             select user_id, as_of, source, source = 'operator'
                 or lag(user_id) over (partition by source order by as_of) is distinct from user_id as is_change
             from billing.subscription_users where subscription_id = $1) u
         where is_change order by as_of desc, source desc limit 1",
        &[subscription_id.into()],
    );
    row.map(|mut row| row.get())
}

/// The users who have a subscription, or lines of it, but one.
pub(crate) fn others(sql: &mut Sql, subscription_id: &str, user: Uuid) -> Vec<Uuid> {
    let rows = sql.query(
        "select user_id from billing.subscriptions where subscription_id = $1 and user_id <> $2
         union
         select user_id from billing.invoice_lines where subscription_id = $1 and user_id <> $2
         order by 1",
        &[subscription_id.into(), uuid_datum(user).into()],
    );
    rows.map(|mut row| row.get()).collect()
}

/// The invoices that bill a subscription.
pub(crate) fn payments(sql: &mut Sql, subscription_id: &str) -> Vec<String> {
    let rows = sql.query(
        "select distinct source_id from billing.invoice_lines where subscription_id = $1 order by 1",
        &[subscription_id.into()],
    );
    rows.map(|mut row| row.get()).collect()
}

/// When the earliest line of a subscription begins.
pub(crate) fn start(sql: &mut Sql, subscription_id: &str) -> Option<Time> {
    let start = "select min(period_start) from billing.invoice_lines where subscription_id = $1";
    sql.query_one(start, &[subscription_id.into()]).get_opt()
}

/// The users from whom subscriptions moved that a payment's lines bill.
pub(crate) fn former_users_of_payment(sql: &mut Sql, source_id: &str) -> Vec<Uuid> {
    let rows = sql.query(
        "select distinct m.from_user
         from billing.invoice_lines l join billing.subscription_moves m using (subscription_id)
         where l.source_id = $1",
        &[source_id.into()],
    );
    rows.map(|mut row| row.get()).collect()
}

/// The users from whom a subscription moved.
pub(crate) fn former_users(sql: &mut Sql, subscription_id: &str) -> Vec<Uuid> {
    let rows = sql.query(
        "select distinct from_user from billing.subscription_moves where subscription_id = $1",
        &[subscription_id.into()],
    );
    rows.map(|mut row| row.get()).collect()
}

/// A row of `subscription_moves`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Move {
    pub(crate) subscription_id: String,
    pub(crate) from: Uuid,
    pub(crate) to: Uuid,
    /// In the order of all ledger rows.
    pub(crate) moved_at: Time,
}

fn moved(mut row: Row) -> Move {
    Move { subscription_id: row.get(), from: row.get(), to: row.get(), moved_at: row.get() }
}

/// The moves of every subscription that ever came to a user, in their order.
pub(crate) fn moves_of_user(sql: &mut Sql, user: Uuid) -> Vec<Move> {
    let rows = sql.query(
        "select subscription_id, from_user, to_user, moved_at from billing.subscription_moves
         where subscription_id in (select subscription_id from billing.subscription_moves where to_user = $1)
         order by subscription_id, number",
        &[uuid_datum(user).into()],
    );
    rows.map(moved).collect()
}

/// Records a move, and lets the subscription's facts count in the other user's account: its state, its lines, and the invoices
/// that follow it, with their lines that name no subscription.
pub(crate) fn record_move(sql: &mut Sql, moved: &Move, event_id: Option<&str>) {
    let (id, from, to) = (moved.subscription_id.as_str(), uuid_datum(moved.from), uuid_datum(moved.to));
    sql.execute(
        "insert into billing.subscription_moves
             (subscription_id, number, from_user, to_user, stripe_event_id, moved_at)
         values ($1, (select count(*) + 1 from billing.subscription_moves where subscription_id = $1), $2, $3, $4, $5)",
        &[id.into(), from.into(), to.into(), event_id.into(), timestamp(moved.moved_at).into()],
    );
    // An invoice follows its own subscription, or else the first that its lines name.
    sql.execute(
        "with own as (
             select p.source_id from billing.payments p
             where p.source_id in (select l.source_id from billing.invoice_lines l where l.subscription_id = $1)
                 and coalesce(p.subscription_id, (
                     select min(l.subscription_id) from billing.invoice_lines l where l.source_id = p.source_id)) = $1
         ), paid as (
             update billing.payments p set user_id = $3 from own
             where p.source_id = own.source_id and p.user_id = $2
         )
         update billing.invoice_lines l set user_id = $3
         where l.user_id = $2 and (
             l.subscription_id = $1
             or l.subscription_id is null and l.source_id in (select own.source_id from own))",
        &[id.into(), from.into(), to.into()],
    );
    sql.execute(
        "update billing.subscriptions set user_id = $3 where subscription_id = $1 and user_id = $2",
        &[id.into(), from.into(), to.into()],
    );
}
