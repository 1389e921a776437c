//! What a spend or a reservation takes from an account's grants, and what a reservation returns to them.

use stripe_credits_rules::amount::Credits;
use stripe_credits_rules::draw::{self, Share};

use super::{Account, Origin, TransactionType, earliest, shares};
use crate::pg::convert::uuid_datum;
use crate::pg::sql::Sql;

/// How many grants a spend reads at first, and by what it multiplies that where they do not cover it: one live grant
/// covers most spends, and a thousand must not be read for one of them.
const FIRST_GRANTS_READ: i64 = 8;
const GRANTS_READ_GROWTH: i64 = 16;

impl Account {
    /// What a request was applied as before, and its amount in all: it has a row a grant that it drew from.
    pub(crate) fn requested(&self, sql: &mut Sql, request_id: &str) -> Option<(TransactionType, Credits)> {
        let row = sql.query_opt(
            "select transaction_type = 'spend', sum(amount)::bigint from billing.credit_transactions
             where user_id = $1 and request_id = $2 and transaction_type in ('spend', 'reservation') group by 1",
            &[uuid_datum(self.user).into(), request_id.into()],
        );
        row.map(|mut row| {
            let is_spend: bool = row.get();
            let made = if is_spend { TransactionType::Spend } else { TransactionType::Reservation };
            (made, row.get())
        })
    }

    /// Takes credits from the grants in draw order; `false`, and nothing taken, where there are fewer.
    pub(crate) fn take(
        &mut self,
        sql: &mut Sql,
        amount: Credits,
        transaction_type: TransactionType,
        origin: &Origin,
    ) -> bool {
        if amount > self.available() {
            return false;
        }
        let mut grants = FIRST_GRANTS_READ;
        let drawn = loop {
            let in_order = shares(sql.query(
                "select id, pool, remaining from billing.credit_grants where user_id = $1 and spendable
                 order by lost_at, draw_rank, id limit $2",
                &[uuid_datum(self.user).into(), grants.into()],
            ));
            let drawn = draw::draw(&in_order, amount);
            let covered: i64 = drawn.iter().map(|share| share.credits.0).sum();
            if covered == amount.0 {
                break drawn;
            }
            assert!(
                i64::try_from(in_order.len()) == Ok(grants),
                "the grants hold less than the account says"
            );
            grants *= GRANTS_READ_GROWTH;
        };
        for share in drawn {
            self.draw_from(sql, share, transaction_type, origin);
        }
        true
    }

    /// Takes credits from a grant, and posts that.
    pub(super) fn draw_from(
        &mut self,
        sql: &mut Sql,
        share: Share,
        transaction_type: TransactionType,
        origin: &Origin,
    ) {
        // What was spent is what the grant counts nowhere. What reversals take is counted where they are settled.
        let counted = |by| if transaction_type == by { share.credits.0 } else { 0 };
        let updated = sql.execute(
            "update billing.credit_grants set remaining = remaining - $3, lapsed = lapsed + $4, settled = settled + $5
             where user_id = $1 and id = $2",
            &[
                uuid_datum(self.user).into(),
                share.grant_id.into(),
                share.credits.0.into(),
                counted(TransactionType::Lapse).into(),
                counted(TransactionType::DebtSettlement).into(),
            ],
        );
        assert!(updated == 1, "grants are never deleted");
        let grant = Some((share.grant_id, share.pool));
        self.post(sql, Credits(-share.credits.0), grant, transaction_type, origin);
    }

    /// Returns credits to a grant, and posts that. What returns to a grant that has lapsed meanwhile lapses when the
    /// account is closed.
    pub(super) fn return_to(
        &mut self,
        sql: &mut Sql,
        share: Share,
        transaction_type: TransactionType,
        origin: &Origin,
    ) {
        let settled = if transaction_type == TransactionType::DebtSettlement { share.credits.0 } else { 0 };
        let mut row = sql.query_one(
            "update billing.credit_grants set remaining = remaining + $3, settled = settled - $4
             where user_id = $1 and id = $2
             returning lapses_at, stripe_subscription_id is not null",
            &[uuid_datum(self.user).into(), share.grant_id.into(), share.credits.0.into(), settled.into()],
        );
        self.next_due = earliest(self.next_due, row.get_opt());
        // What returns to a lot may not be its to give any more.
        self.lots_touched |= row.get::<bool>();
        self.post(sql, share.credits, Some((share.grant_id, share.pool)), transaction_type, origin);
    }

    /// What a reservation took, in the order in which it did.
    pub(crate) fn drawn(&self, sql: &mut Sql, request_id: &str) -> Vec<Share> {
        shares(sql.query(
            "select grant_id, pool, -amount from billing.credit_transactions
             where user_id = $1 and request_id = $2 and transaction_type = 'reservation' order by id",
            &[uuid_datum(self.user).into(), request_id.into()],
        ))
    }

    /// Returns what a reservation held to the grants it came from, and takes from there what reversals could not take before.
    pub(crate) fn put_back(&mut self, sql: &mut Sql, request_id: &str, back: &[Share]) {
        let origin = Origin { request_id: Some(request_id), ..Origin::default() };
        for share in back {
            self.return_to(sql, *share, TransactionType::Release, &origin);
            self.released(sql, request_id, *share);
        }
        let grants: Vec<i64> = back.iter().map(|share| share.grant_id).collect();
        for source_id in self.sources(sql, grants) {
            self.settle_reversals(sql, &source_id, &origin);
        }
    }

    /// What these grants were made for.
    pub(super) fn sources(&self, sql: &mut Sql, grant_ids: Vec<i64>) -> Vec<String> {
        let rows = sql.query(
            "select distinct source_id from billing.credit_grants where user_id = $1 and id = any ($2)
             order by source_id",
            &[uuid_datum(self.user).into(), grant_ids.into()],
        );
        rows.map(|mut row| row.get()).collect()
    }
}
