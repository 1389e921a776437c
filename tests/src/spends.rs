//! Methods for spends, reservations and `run_due`, and reads of what they leave.

use uuid::Uuid;

use crate::connection::{Connection, Outcome};

impl Connection {
    /// `spend_credits` with its first three arguments.
    pub fn spend(&mut self, user: Uuid, amount: i64, request_id: &str) -> Outcome {
        self.call("spend_credits($1, $2, $3)", &[&user, &amount, &request_id])
    }

    /// `reserve_credits` with its first three arguments.
    pub fn reserve(&mut self, user: Uuid, amount: i64, request_id: &str) -> Outcome {
        self.call("reserve_credits($1, $2, $3)", &[&user, &amount, &request_id])
    }

    /// `commit_reservation`; without an amount, of all of it.
    pub fn commit(&mut self, user: Uuid, request_id: &str, amount: Option<i64>) -> Outcome {
        self.call("commit_reservation($1, $2, $3)", &[&user, &request_id, &amount])
    }

    /// `release_reservation`.
    pub fn release(&mut self, user: Uuid, request_id: &str) -> Outcome {
        self.call("release_reservation($1, $2)", &[&user, &request_id])
    }

    /// `refund_spend`; without an amount, of the rest.
    pub fn refund_spend(
        &mut self,
        user: Uuid,
        spend_request_id: &str,
        request_id: &str,
        amount: Option<i64>,
    ) -> Outcome {
        self.call("refund_spend($1, $2, $3, $4)", &[&user, &spend_request_id, &request_id, &amount])
    }

    /// `adjust_credits`.
    pub fn adjust(&mut self, user: Uuid, amount: i64, request_id: &str) -> Outcome {
        self.call("adjust_credits($1, $2, $3, 'a correction')", &[&user, &amount, &request_id])
    }

    /// `import_balance` without an expiry.
    pub fn import_balance(&mut self, user: Uuid, pool: &str, amount: i64, source: &str) -> Outcome {
        self.call("import_balance($1, $2, $3, $4)", &[&user, &pool, &amount, &source])
    }

    /// `grant_credits` that expire this many days from now.
    pub fn grant_for_days(&mut self, user: Uuid, amount: i64, request_id: &str, days: i32) -> Outcome {
        self.call(
            "grant_credits($1, $2, $3, p_expires_at => statement_timestamp() + make_interval(days => $4))",
            &[&user, &amount, &request_id, &days],
        )
    }

    /// `run_due`: how many accounts it settled.
    pub fn run_due(&mut self) -> i64 {
        self.one("select billing.run_due()", &[])
    }

    /// A user's debt; 0 without an account.
    pub fn debt(&mut self, user: Uuid) -> i64 {
        self.one("select coalesce((select debt from billing.user_credits where user_id = $1), 0)", &[&user])
    }

    /// A user's balance and debt, by a read that posts nothing.
    pub fn balance_and_debt(&mut self, user: Uuid) -> (i64, i64) {
        let read = "select credits_balance, debt from billing.user_credits where user_id = $1";
        self.query_opt(read, &[&user]).expect("it is read").map_or((0, 0), |row| (row.get(0), row.get(1)))
    }

    /// A user's balance and debt by `my_credits()`, which first posts what time has caused.
    pub fn my_credits(&mut self, user: Uuid) -> (i64, i64) {
        self.run(&format!("set request.jwt.claims = '{{\"sub\": \"{user}\"}}'"));
        let row =
            self.query_one("select credits_balance, debt from billing.my_credits()", &[]).expect("a row");
        self.run("reset request.jwt.claims");
        (row.get(0), row.get(1))
    }

    /// A user's balance and debt, which both readers must read alike.
    pub fn agreed_balance_and_debt(&mut self, user: Uuid) -> (i64, i64) {
        let read = self.balance_and_debt(user);
        assert_eq!(self.my_credits(user), read, "my_credits() and the view");
        read
    }

    /// A user's balance and debt, which must be the same whatever posts first what time has caused: `my_credits()`, a sweep,
    /// or a spend of the whole balance.
    pub fn settled_balance_and_debt(&mut self, user: Uuid) -> (i64, i64) {
        let read = self.balance_and_debt(user);
        for posting in ["my_credits", "run_due", "spend"] {
            self.run("begin");
            match posting {
                "my_credits" => assert_eq!(self.my_credits(user), read, "my_credits() and the view"),
                "run_due" => drop(self.run_due()),
                _ => self.spend_all(user, read),
            }
            if posting != "spend" {
                assert_eq!(self.balance_and_debt(user), read, "after {posting}");
                assert_eq!(self.run_due(), 0, "nothing is left to post after {posting}");
            }
            self.run("rollback");
        }
        read
    }

    fn spend_all(&mut self, user: Uuid, (balance, debt): (i64, i64)) {
        if balance > 0 {
            let spent = self.spend(user, balance, "all-of-it");
            assert_eq!((spent.summary().as_str(), spent.remaining_total), ("applied", Some(0)));
            assert_eq!(self.balance_and_debt(user), (0, debt), "after all of it was spent");
        } else {
            assert_eq!(self.spend(user, 1, "anything").summary(), "rejected insufficient_credits");
        }
    }

    /// What remains of each of a user's grants, in the order in which they were made, such as `cs_1 500`.
    pub fn grants(&mut self, user: Uuid) -> Vec<String> {
        self.column(
            "select source_id || ' ' || remaining from billing.credit_grants where user_id = $1 order by id",
            &[&user],
        )
    }

    /// The ledger rows of a request, such as `spend -100 of cs_1`.
    pub fn request(&mut self, user: Uuid, request_id: &str) -> Vec<String> {
        self.column(
            "select format('%s %s of %s', t.transaction_type, t.amount, g.source_id)
             from billing.credit_transactions t join billing.credit_grants g on g.user_id = t.user_id and g.id = t.grant_id
             where t.user_id = $1 and t.request_id = $2 order by t.id",
            &[&user, &request_id],
        )
    }
}
