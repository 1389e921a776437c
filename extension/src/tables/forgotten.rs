//! Table `forgotten_users`: of whose events only what the rules read is kept.

use uuid::Uuid;

use crate::pg::convert::{clock, timestamp, uuid_datum};
use crate::pg::sql::Sql;

/// Records a user, and returns whether they were not recorded before.
pub(crate) fn insert(sql: &mut Sql, user: Uuid) -> bool {
    let inserted = sql.execute(
        "insert into billing.forgotten_users (user_id, forgotten_at) values ($1, $2) on conflict do nothing",
        &[uuid_datum(user).into(), timestamp(clock()).into()],
    );
    inserted > 0
}

/// Whether an event is a forgotten user's: by its outcome's user, or else by its customer's link.
pub(crate) fn includes(sql: &mut Sql, user: Option<Uuid>, customer_id: Option<&str>) -> bool {
    if user.is_none() && customer_id.is_none() {
        return false;
    }
    sql.query_opt(
        "select from billing.forgotten_users f
         where f.user_id in ($1, (select c.user_id from billing.customers c where c.customer_id = $2))",
        &[user.map(uuid_datum).into(), customer_id.into()],
    )
    .is_some()
}
