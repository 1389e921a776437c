//! A connection with a method for each SQL function, and reads of what a call left in the tables.

use std::collections::BTreeMap;
use std::ops::{Deref, DerefMut};

use postgres::types::ToSql;
use postgres::{Client, Error};
use serde::Deserialize;
use serde_json::Value;
use uuid::Uuid;

use crate::stripe::{Event, Session, nothing_fetched};

/// `billing.outcome`, column by column.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[expect(missing_docs, reason = "they are documented at the type's SQL")]
pub struct Outcome {
    pub ok: bool,
    pub outcome: String,
    pub already_applied: bool,
    pub reason: Option<String>,
    pub user_id: Option<Uuid>,
    pub credits: i64,
    pub remaining_subscription: Option<i64>,
    pub remaining_purchased: Option<i64>,
    pub remaining_promotional: Option<i64>,
    pub remaining_total: Option<i64>,
    pub debt: Option<i64>,
    pub tier: Option<String>,
    pub subscription_status: Option<String>,
    pub to_fetch: Option<Vec<String>>,
    pub details: Option<Value>,
}

impl Outcome {
    /// Outcome and reason in one line, such as `parked unknown_user`.
    pub fn summary(&self) -> String {
        match &self.reason {
            Some(reason) => format!("{} {reason}", self.outcome),
            None => self.outcome.clone(),
        }
    }

    /// The balance and the debt after the call.
    pub fn balance_and_debt(&self) -> (i64, i64) {
        (self.remaining_total.expect("a total"), self.debt.expect("a debt"))
    }
}

/// An error of the server: SQLSTATE, message, DETAIL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// The SQLSTATE.
    pub code: String,
    /// The message.
    pub message: String,
    /// The DETAIL, or nothing.
    pub detail: String,
}

impl From<Error> for Fault {
    fn from(error: Error) -> Fault {
        let fault = error.as_db_error().unwrap_or_else(|| panic!("the server's answer, not {error:?}"));
        Fault {
            code: fault.code().code().to_owned(),
            message: fault.message().to_owned(),
            detail: fault.detail().unwrap_or_default().to_owned(),
        }
    }
}

/// One connection to a test's database. Reads and writes like the client that it holds.
pub struct Connection(Client);

impl Deref for Connection {
    type Target = Client;

    fn deref(&self) -> &Client {
        &self.0
    }
}

impl DerefMut for Connection {
    fn deref_mut(&mut self) -> &mut Client {
        &mut self.0
    }
}

impl Connection {
    /// Wraps an open client.
    pub fn new(client: Client) -> Connection {
        Connection(client)
    }

    /// Statements without an answer.
    pub fn run(&mut self, sql: &str) {
        self.0.batch_execute(sql).unwrap_or_else(|fault| panic!("{sql}: {fault:?}"));
    }

    /// Statements that may be refused.
    ///
    /// # Errors
    /// The server's [`Fault`].
    pub fn attempt(&mut self, sql: &str) -> Result<(), Fault> {
        self.0.batch_execute(sql).map_err(Fault::from)
    }

    /// Statements that must be refused: the error.
    pub fn refusal(&mut self, sql: &str) -> Fault {
        match self.attempt(sql) {
            Ok(()) => panic!("this was not refused: {sql}"),
            Err(fault) => fault,
        }
    }

    /// The one value that a query returns.
    pub fn one<T: for<'a> postgres::types::FromSql<'a>>(
        &mut self,
        sql: &str,
        args: &[&(dyn ToSql + Sync)],
    ) -> T {
        self.0.query_one(sql, args).unwrap_or_else(|fault| panic!("{sql}: {fault:?}")).get(0)
    }

    /// The only column of a query's rows.
    pub fn column<T: for<'a> postgres::types::FromSql<'a>>(
        &mut self,
        sql: &str,
        args: &[&(dyn ToSql + Sync)],
    ) -> Vec<T> {
        self.0
            .query(sql, args)
            .unwrap_or_else(|fault| panic!("{sql}: {fault:?}"))
            .iter()
            .map(|row| row.get(0))
            .collect()
    }

    /// Calls a function that returns one outcome: `call` such as `grant_signup_credits($1)`.
    ///
    /// # Errors
    /// The server's [`Fault`].
    pub fn try_call(&mut self, call: &str, args: &[&(dyn ToSql + Sync)]) -> Result<Outcome, Fault> {
        let row = self
            .0
            .query_one(&format!("select to_jsonb(o) from billing.{call} o"), args)
            .map_err(Fault::from)?;
        let outcome: Outcome = serde_json::from_value(row.get(0)).expect("billing.outcome has these columns");
        let words = outcome.outcome.as_str();
        assert_eq!(outcome.ok, matches!(words, "applied" | "already_applied"), "{outcome:?}");
        assert_eq!(outcome.already_applied, words == "already_applied", "{outcome:?}");
        let reasoned = matches!(words, "ignored" | "parked" | "rejected");
        assert_eq!(outcome.reason.is_some(), reasoned, "{outcome:?}");
        assert_eq!(outcome.to_fetch.is_some(), words == "needs_fetch", "{outcome:?}");
        Ok(outcome)
    }

    /// The same, for a call that must not fail.
    pub fn call(&mut self, call: &str, args: &[&(dyn ToSql + Sync)]) -> Outcome {
        self.try_call(call, args).unwrap_or_else(|fault| panic!("billing.{call}: {fault:?}"))
    }

    /// `load_catalog`: what it did, by price.
    pub fn load_catalog(&mut self, catalog: &Value) -> BTreeMap<String, String> {
        self.0
            .query("select price_id, change from billing.load_catalog($1)", &[catalog])
            .unwrap_or_else(|fault| panic!("load_catalog: {fault:?}"))
            .iter()
            .map(|row| (row.get(0), row.get(1)))
            .collect()
    }

    /// `apply_stripe_event`.
    pub fn apply(&mut self, event: &Event) -> Outcome {
        self.call("apply_stripe_event($1)", &[event.json()])
    }

    /// The same for an event as JSON.
    pub fn apply_json(&mut self, event: &Value) -> Outcome {
        self.call("apply_stripe_event($1)", &[event])
    }

    /// `apply_stripe_event` with what Stripe answered.
    pub fn apply_fetched(&mut self, event: &Event, fetched: &Value) -> Outcome {
        self.call("apply_stripe_event($1, $2)", &[event.json(), fetched])
    }

    /// A delivery as by a shim without a Stripe key: what the first call asks for is not fetched.
    pub fn deliver(&mut self, event: &Event) -> Outcome {
        let outcome = self.apply(event);
        if outcome.outcome == "needs_fetch" { self.apply_fetched(event, &nothing_fetched()) } else { outcome }
    }

    /// `explain_event`.
    pub fn explain(&mut self, event: &Event) -> Outcome {
        self.call("explain_event($1)", &[event.json()])
    }

    /// `reconcile_checkout_session`.
    pub fn reconcile(&mut self, session: &Session, expected: Uuid) -> Outcome {
        self.call("reconcile_checkout_session($1, $2)", &[session.json(), &expected])
    }

    /// `attribute`.
    pub fn attribute(&mut self, stripe_id: &str, user: Uuid) -> Outcome {
        self.call("attribute($1, $2)", &[&stripe_id, &user])
    }

    /// `apply_stripe_credit_pack_purchase` with its first four arguments.
    pub fn purchase(&mut self, user: Uuid, amount: i64, event_id: &str, session_id: &str) -> Outcome {
        self.call(
            "apply_stripe_credit_pack_purchase($1, $2, $3, $4)",
            &[&user, &amount, &event_id, &session_id],
        )
    }

    /// `grant_credits` with its first three arguments.
    pub fn grant(&mut self, user: Uuid, amount: i64, request_id: &str) -> Outcome {
        self.call("grant_credits($1, $2, $3)", &[&user, &amount, &request_id])
    }

    /// `grant_signup_credits`.
    pub fn sign_up(&mut self, user: Uuid) -> Outcome {
        self.call("grant_signup_credits($1)", &[&user])
    }

    /// The process id of this connection's backend.
    pub fn pid(&mut self) -> i32 {
        self.one("select pg_backend_pid()", &[])
    }

    /// What the read model says a user can spend; 0 without an account.
    pub fn balance(&mut self, user: Uuid) -> i64 {
        self.one(
            "select coalesce((select credits_balance from billing.user_credits where user_id = $1), 0)",
            &[&user],
        )
    }

    /// A user's ledger, a row each, such as `purchase 500`.
    pub fn ledger(&mut self, user: Uuid) -> Vec<String> {
        self.column(
            "select transaction_type || ' ' || amount from billing.credit_transactions
             where user_id = $1 order by id",
            &[&user],
        )
    }

    /// What `validate_credits_consistency` finds: the details of each user's faults.
    pub fn faults(&mut self) -> Vec<String> {
        self.column("select concat(user_id, ': ', detail) from billing.validate_credits_consistency()", &[])
    }

    /// The outcome of an event in the inbox, such as `parked unknown_price`; `None` if it is not there.
    pub fn inbox(&mut self, event_id: &str) -> Option<String> {
        self.column(
            "select concat_ws(' ', outcome, reason) from billing.stripe_events where event_id = $1",
            &[&event_id],
        )
        .pop()
    }

    /// The tables of the schema.
    pub fn tables(&mut self) -> Vec<String> {
        self.column(
            "select relname::text from pg_class
             where relnamespace = 'billing'::regnamespace and relkind = 'r' order by 1",
            &[],
        )
    }

    /// Every row of every table, as text: if two of these are equal, nothing was written in between.
    pub fn everything(&mut self) -> BTreeMap<String, Vec<String>> {
        self.tables()
            .into_iter()
            .map(|table| {
                let rows = format!("select t::text from billing.{table} t order by 1");
                (table, self.column(&rows, &[]))
            })
            .collect()
    }

    /// The state of all users without what depends on the order of arrival: balances, debts, grants, ledger sums, customers.
    pub fn end_state(&mut self) -> Vec<String> {
        self.column(
            "select format('account %s: %s/%s/%s debt %s', user_id, subscription_credits, purchased_credits,
                        promotional_credits, debt) from billing.accounts
             union all
             select format('grant %s: %s of %s, expires %s', user_id, sum(remaining), sum(amount),
                        min(extract(epoch from expires_at))) from billing.credit_grants
             where amount <> 0 group by user_id, item
             union all
             select format('ledger %s: %s', user_id, sum(amount)) from billing.credit_transactions
             group by user_id having sum(amount) <> 0
             union all
             select format('payment %s: %s, paid: %s', source_id, user_id, paid_at is not null)
             from billing.payments
             union all
             select format('customer %s: %s', customer_id, user_id) from billing.customers
             order by 1",
            &[],
        )
    }
}
