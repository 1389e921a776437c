//! Auto top-up: a catalog that has it, users who allow it, and the functions by which a shim has requests paid.

use serde_json::{Value, json};
use uuid::Uuid;

use crate::connection::{Connection, Outcome};
use crate::database::Database;
use crate::refunds::Object;
use crate::stripe::{Event, catalog, event};

/// A request as a shim claims it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClaimedTopUp {
    /// Whose it is.
    pub user: Uuid,
    /// Its number among the user's events.
    pub id: i64,
    /// Whom it charges.
    pub customer: Option<String>,
    /// The only one that may be confirmed.
    pub payment_intent: Option<String>,
    /// How often it was claimed.
    pub attempts: i32,
    /// Why it is not to be paid any more.
    pub unwanted: Option<String>,
}

/// The example's catalog with a pack of 500 for whoever has fewer than 100.
pub fn catalog_with_top_up(at_most: &str) -> Value {
    let mut catalog = catalog();
    catalog["auto_top_up"] = json!({ "pack": "pack_500", "below": 100, "at_most": at_most });
    catalog
}

/// A database with that catalog.
pub fn top_up_database(at_most: &str) -> Database {
    let db = Database::new();
    db.connect().load_catalog(&catalog_with_top_up(at_most));
    db
}

/// The id of a user's customer at Stripe.
pub fn customer(user: Uuid) -> String {
    format!("cus_{}", user.as_u128() & 0xffff_ffff)
}

/// A customer of Stripe's whom the app's server made for this user.
pub fn customer_of(customer_id: &str, user: Uuid) -> Event {
    let customer =
        json!({ "id": customer_id, "object": "customer", "metadata": { "user_id": user.to_string() } });
    event(&format!("evt_{customer_id}"), "customer.created", customer)
}

/// The payment intent that pays a request.
pub fn intent_of(payment_intent: &str, user: Uuid, id: i64) -> Object {
    crate::payments::top_up(payment_intent, user).with(
        "metadata",
        json!({ "user_id": user.to_string(), "price_id": "price_pack", "quantity": "1", "top_up_id": format!("{user}_{id}") }),
    )
}

impl Connection {
    /// `set_auto_top_up`.
    pub fn set_auto_top_up(&mut self, user: Uuid, enabled: bool) -> Outcome {
        self.call("set_auto_top_up($1, $2)", &[&user, &enabled])
    }

    /// A user with so many credits and a customer, who allows auto top-up.
    pub fn allow_top_ups(&mut self, user: Uuid, credits: i64) {
        assert_eq!(self.apply(&customer_of(&customer(user), user)).summary(), "applied");
        self.grant(user, credits, "start");
        assert_eq!(self.set_auto_top_up(user, true).summary(), "applied");
    }

    /// A user's requests, such as `requested` or `failed card_declined`, in order.
    pub fn top_ups(&mut self, user: Uuid) -> Vec<String> {
        let top_ups =
            "select concat_ws(' ', state, reason) from billing.top_ups where user_id = $1 order by id";
        self.column(top_ups, &[&user])
    }

    /// Whether auto top-up is on for a user, off or paused.
    pub fn auto_top_up(&mut self, user: Uuid) -> String {
        self.one("select auto_top_up::text from billing.accounts where user_id = $1", &[&user])
    }

    /// `claim_top_ups` by a shim whose key is a test key.
    pub fn claim_top_ups(&mut self) -> Vec<ClaimedTopUp> {
        let claim = "select user_id, id, customer_id, payment_intent_id, attempts, unwanted from billing.claim_top_ups(false)";
        let rows = self.query(claim, &[]).expect("it claims");
        let claimed = |row: &postgres::Row| ClaimedTopUp {
            user: row.get(0),
            id: row.get(1),
            customer: row.get(2),
            payment_intent: row.get(3),
            attempts: row.get(4),
            unwanted: row.get(5),
        };
        rows.iter().map(claimed).collect()
    }

    /// `name_payment_intent` of $10.
    pub fn name_intent(&mut self, (user, id): (Uuid, i64), payment_intent: &str) -> Option<String> {
        self.one(
            "select billing.name_payment_intent($1, $2, $3, 'cus_1', 1000, 'usd')",
            &[&user, &id, &payment_intent],
        )
    }

    /// `finish_top_up`.
    pub fn finish_top_up(
        &mut self,
        (user, id): (Uuid, i64),
        payment_intent: Option<&str>,
        state: &str,
        reason: Option<&str>,
    ) -> bool {
        self.one(
            "select billing.finish_top_up($1, $2, $3, $4, $5)",
            &[&user, &id, &payment_intent, &state, &reason],
        )
    }

    /// Lets the time of every request come.
    pub fn make_top_ups_due(&mut self) {
        self.run("update billing.top_ups set next_attempt_at = '-infinity' where state = 'requested'");
    }
}
