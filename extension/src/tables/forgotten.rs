//! Table `forgotten_users`: of whose events only what the rules read is kept. Whether there are any is kept per connection.

use uuid::Uuid;

use crate::pg::cached::Cached;
use crate::pg::convert::{clock, timestamp, uuid_datum};
use crate::pg::sql::Sql;

thread_local! {
    static ANY: Cached<bool> = const { Cached::new() };
}

/// Records a user, and returns whether they were not recorded before.
pub(crate) fn insert(sql: &mut Sql, user: Uuid) -> bool {
    let inserted = sql.execute(
        "insert into billing.forgotten_users (user_id, forgotten_at) values ($1, $2) on conflict do nothing",
        &[uuid_datum(user).into(), timestamp(clock()).into()],
    );
    inserted > 0
}

/// Whether an event is a forgotten user's: by its outcome's user, or else by its customer's link. The caller holds the catalog's
/// lock, for which [`insert`]'s caller waits.
pub(crate) fn includes(sql: &mut Sql, user: Option<Uuid>, customer_id: Option<&str>) -> bool {
    if user.is_none() && customer_id.is_none() || !is_anybody_forgotten(sql) {
        return false;
    }
    sql.query_opt(
        "select from billing.forgotten_users f
         where f.user_id in ($1, (select c.user_id from billing.customers c where c.customer_id = $2))",
        &[user.map(uuid_datum).into(), customer_id.into()],
    )
    .is_some()
}

fn is_anybody_forgotten(sql: &mut Sql) -> bool {
    let read = || {
        let mut row = sql.query_one(
            "select 'billing.forgotten_users'::regclass::oid, exists (select from billing.forgotten_users)",
            &[],
        );
        Some((row.get(), row.get()))
    };
    ANY.with(|cached| cached.get(read)).is_some_and(|any| *any)
}
