//! Table `read_changes`: users of whom the read model changed without their account.

use uuid::Uuid;

use crate::pg::convert::uuid_datum;
use crate::pg::sql::Sql;

/// Records that a user's read model changed. Whether there is an account does not matter, and no lock is needed.
pub(crate) fn insert(sql: &mut Sql, user: Uuid) {
    sql.execute("insert into billing.read_changes (user_id) values ($1)", &[uuid_datum(user).into()]);
}
