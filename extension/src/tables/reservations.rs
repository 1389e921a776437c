//! Table `reservations`: spends that can still be committed for less or released. What each holds is in the ledger.

use stripe_credits_rules::amount::Credits;
use stripe_credits_rules::calendar::Time;
use uuid::Uuid;

use crate::pg::convert::{timestamp, uuid_datum};
use crate::pg::sql::Sql;

/// The state of a reservation, as the column's CHECK lists them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Status {
    Held,
    Committed,
    Released,
    Expired,
}

impl Status {
    fn parse(text: &str) -> Option<Status> {
        [Status::Held, Status::Committed, Status::Released, Status::Expired]
            .into_iter()
            .find(|status| status.as_str() == text)
    }

    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Status::Held => "held",
            Status::Committed => "committed",
            Status::Released => "released",
            Status::Expired => "expired",
        }
    }
}

/// A row.
pub(crate) struct Reservation {
    pub(crate) amount: Credits,
    pub(crate) committed: Credits,
    pub(crate) status: Status,
}

/// A user's reservation. The caller holds the account's lock, here and below.
pub(crate) fn find(sql: &mut Sql, user: Uuid, request_id: &str) -> Option<Reservation> {
    sql.query_opt(
        "select amount, committed, status from billing.reservations where user_id = $1 and request_id = $2",
        &[uuid_datum(user).into(), request_id.into()],
    )
    .map(|mut row| Reservation {
        amount: row.get(),
        committed: row.get(),
        status: row.parse(Status::parse),
    })
}

/// Records that credits are held until a time.
pub(crate) fn insert(
    sql: &mut Sql,
    user: Uuid,
    request_id: &str,
    amount: Credits,
    description: Option<&str>,
    now: Time,
    expires_at: Time,
) {
    sql.execute(
        "insert into billing.reservations
             (user_id, request_id, amount, status, description, expires_at, created_at, updated_at)
         values ($1, $2, $3, 'held', $4, $5, $6, $6)",
        &[
            uuid_datum(user).into(),
            request_id.into(),
            amount.0.into(),
            description.into(),
            timestamp(expires_at).into(),
            timestamp(now).into(),
        ],
    );
}

/// Records how a held reservation ended, and how many credits of it were spent.
pub(crate) fn end(
    sql: &mut Sql,
    user: Uuid,
    request_id: &str,
    status: Status,
    committed: Credits,
    now: Time,
) {
    sql.execute(
        "update billing.reservations set status = $3, committed = $4, updated_at = $5
         where user_id = $1 and request_id = $2",
        &[
            uuid_datum(user).into(),
            request_id.into(),
            status.as_str().into(),
            committed.0.into(),
            timestamp(now).into(),
        ],
    );
}

/// The held reservations of a user that expired by a time, in the order in which they did.
pub(crate) fn expired_by(sql: &mut Sql, user: Uuid, by: Time) -> Vec<String> {
    let rows = sql.query(
        "select request_id from billing.reservations
         where user_id = $1 and status = 'held' and expires_at <= $2 order by expires_at, request_id",
        &[uuid_datum(user).into(), timestamp(by).into()],
    );
    rows.map(|mut row| row.get()).collect()
}

/// How many credits a user's reservations hold.
pub(crate) fn held(sql: &mut Sql, user: Uuid) -> Credits {
    sql.query_one(
        "select coalesce(sum(amount), 0)::bigint from billing.reservations where user_id = $1 and status = 'held'",
        &[uuid_datum(user).into()],
    )
    .get()
}

/// When the next of a user's held reservations expires.
pub(crate) fn next_expiry(sql: &mut Sql, user: Uuid) -> Option<Time> {
    sql.query_one(
        "select min(expires_at) from billing.reservations where user_id = $1 and status = 'held'",
        &[uuid_datum(user).into()],
    )
    .get_opt()
}
