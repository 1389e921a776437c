//! What time alone does to an account.

use stripe_credits_rules::amount::Credits;
use stripe_credits_rules::calendar::Time;

use super::{Account, Origin, TransactionType, earliest, shares};
use crate::convert::{time, timestamp, uuid_datum};
use crate::reservations::{self, Status};
use crate::sql::Sql;

impl Account {
    /// Posts what time alone has caused: reservations that ran out and grants that lapsed, in the order in which they did, each
    /// followed by what it lets settle. However late that is posted, it comes to the same.
    pub(super) fn settle_time(&mut self, sql: &mut Sql) {
        if self.next_due.is_none_or(|due| due > self.now) {
            return;
        }
        self.operation_id = self.last_transaction_id + 1;
        for (request_id, expired_at) in reservations::ran_out(sql, self.user, self.now) {
            self.lapse(sql, expired_at);
            let drawn = self.drawn(sql, &request_id);
            self.put_back(sql, &request_id, &drawn);
            reservations::end(sql, self.user, &request_id, Status::Expired, Credits::ZERO, self.now);
            // What came back to a grant that had lapsed by then.
            self.lapse(sql, expired_at);
            self.settle_debt(sql);
        }
        self.lapse(sql, self.now);
        let mut rows = sql.run(
            "select min(lapses_at) from billing.credit_grants where user_id = $1 and spendable",
            &[uuid_datum(self.user).into()],
        );
        assert!(rows.next(), "an aggregate has a row");
        self.next_due = earliest(rows.get(1).and_then(time), reservations::next_expiry(sql, self.user));
        self.dirty = true;
    }

    /// Takes what is left of the grants that lapsed by a time.
    fn lapse(&mut self, sql: &mut Sql, by: Time) {
        let lapsed = shares(sql.run(
            "select id, pool, remaining from billing.credit_grants
             where user_id = $1 and spendable and lapses_at <= $2 order by lapses_at, id",
            &[uuid_datum(self.user).into(), timestamp(by).into()],
        ));
        for share in lapsed {
            self.draw_from(sql, share, TransactionType::Lapse, &Origin::default());
        }
    }
}
