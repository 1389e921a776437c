//! Reads of the outbox, and the functions that a shim calls to deliver it.

use serde_json::{Value, json};
use uuid::Uuid;

use crate::connection::Connection;
use crate::stripe::catalog;

/// A row that was claimed: its user, its id, its type and its attempts.
pub type Claimed = (Uuid, i64, String, i32);

/// The example's catalog with these thresholds for users without a plan of their own.
pub fn catalog_with_low_credits(thresholds: &[i64]) -> Value {
    let mut catalog = catalog();
    catalog["low_credits"] = json!(thresholds);
    catalog
}

impl Connection {
    /// The types of what is told of a user, in order; the nil UUID: of no user.
    pub fn told(&mut self, user: Uuid) -> Vec<String> {
        self.column("select type from billing.outbox where user_id = $1 order by id", &[&user])
    }

    /// The data of what is told of a user of one type, in order.
    pub fn told_data(&mut self, user: Uuid, told: &str) -> Vec<Value> {
        self.column(
            "select data from billing.outbox where user_id = $1 and type = $2 order by id",
            &[&user, &told],
        )
    }

    /// `claim_outbox` with a lease of a minute.
    pub fn claim(&mut self, limit: i32) -> Vec<Claimed> {
        let claim = "select user_id, id, type, attempts from billing.claim_outbox($1)";
        let rows = self.query(claim, &[&limit]).expect("it claims");
        rows.iter().map(|row| (row.get(0), row.get(1), row.get(2), row.get(3))).collect()
    }

    /// `finish_outbox` of a row that was delivered.
    pub fn delivered(&mut self, (user, id, _, attempts): &Claimed) -> bool {
        self.one("select billing.finish_outbox($1, $2, $3)", &[user, id, attempts])
    }

    /// `finish_outbox` of a row that could not be delivered, to be tried again after so many seconds; `None`: never.
    pub fn failed(&mut self, (user, id, _, attempts): &Claimed, retry_after: Option<f64>) -> bool {
        let finish = "select billing.finish_outbox($1, $2, $3, 'status 500', make_interval(secs => $4))";
        self.one(finish, &[user, id, attempts, &retry_after])
    }

    /// Lets every pending row's time come.
    pub fn make_outbox_due(&mut self) {
        self.run("update billing.outbox set next_attempt_at = '-infinity' where state = 'pending'");
    }
}
