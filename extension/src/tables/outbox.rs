//! Table `outbox`: what the app is told, for `serve` to deliver.

use serde_json::Value;
use sha2::{Digest as _, Sha256};
use stripe_credits_rules::calendar::TimeDelta;
use stripe_credits_rules::told::Told;
use uuid::Uuid;

use crate::pg::convert::{clock, timestamp, uuid_datum};
use crate::pg::json::JsonText;
use crate::pg::sql::Sql;

/// How long a row is kept: longer than all attempts to deliver it together, so that whoever looks once a week can still
/// replay what is dead.
const KEPT_DAYS: i64 = 30;

/// The statement of [`insert_row`], with what it does if the row is there.
macro_rules! insert {
    ($on_conflict:literal) => {
        concat!(
            "insert into billing.outbox (user_id, id, type, data, created_at, next_attempt_at)
             values ($1, $2, $3, $4, $5, $5)",
            $on_conflict
        )
    };
}

/// Inserts a row of a user's. The caller holds the account's lock, and counts the ids.
pub(crate) fn insert(sql: &mut Sql, user: Uuid, id: i64, told: Told, data: &Value) {
    insert_row(sql, insert!(""), user, id, told, data);
}

/// Inserts a row of no user's, unless there is one about the same: `about` says what it is about.
pub(crate) fn insert_once(sql: &mut Sql, told: Told, about: &[&str], data: &Value) {
    insert_row(sql, insert!(" on conflict do nothing"), Uuid::nil(), id_of(told, about), told, data);
}

fn insert_row(sql: &mut Sql, statement: &'static str, user: Uuid, id: i64, told: Told, data: &Value) {
    sql.execute(
        statement,
        &[
            uuid_datum(user).into(),
            id.into(),
            told.as_str().into(),
            (&JsonText::from_written(data.to_string())).into(),
            timestamp(clock()).into(),
        ],
    );
}

/// An id above 0 that is the same for the same texts, and for others, but for one chance in 2⁶³, another.
fn id_of(told: Told, about: &[&str]) -> i64 {
    let mut hash = Sha256::new();
    for text in [told.as_str()].iter().chain(about) {
        hash.update(text.as_bytes());
        // No text of ours or Stripe's has this byte, so that two texts are not one.
        hash.update([0]);
    }
    let digest: [u8; 32] = hash.finalize().into();
    let first = digest.first_chunk().expect("a digest has 32 bytes");
    (i64::from_be_bytes(*first) & i64::MAX).max(1)
}

/// Removes rows that were made longer ago than they are kept, in whatever state: so the table does not grow where nobody is
/// told. Returns how many, at most `limit`.
pub(crate) fn prune(sql: &mut Sql, limit: i64) -> usize {
    let made_before = clock() - TimeDelta::days(KEPT_DAYS);
    sql.execute(
        "delete from billing.outbox o
         using (
             select old.user_id, old.id from billing.outbox old
             where old.created_at < $1 order by old.created_at limit $2 for update skip locked
         ) old
         where o.user_id = old.user_id and o.id = old.id",
        &[timestamp(made_before).into(), limit.into()],
    )
}
