//! What refunds and disputes take from an account, what they leave owed, and what their undoing gives back.

use stripe_credits_rules::amount::Credits;
use stripe_credits_rules::catalog::ReversalPolicy;
use stripe_credits_rules::draw;
use stripe_credits_rules::reversal::{self, Books};

use super::{Account, Origin, TransactionType, shares};
use crate::convert::{timestamp, uuid_datum};
use crate::sql::Sql;
use crate::{catalog, payments, reversals};

impl Account {
    /// Posts what a payment's reversals take back beyond what they took, or give back of it (rules 5 and 9). `false` where
    /// what was charged is not known yet, so that they wait.
    pub(crate) fn settle_reversals(&mut self, sql: &mut Sql, source_id: &str, origin: &Origin) -> bool {
        let known = reversals::of_payment(sql, source_id);
        if known.is_empty() {
            return true;
        }
        let (paid, owed) = payments::paid(sql, source_id);
        let part = reversal::part(&paid, &known);
        let policy =
            catalog::settings(sql).map_or(ReversalPolicy::default(), |settings| settings.reversal_policy);
        let books = self.books(sql, source_id);
        // Also where they wait: what is posted is always what is known says, not what was known in between.
        let target = part.map_or(Credits::ZERO, |part| part.of(books.granted));
        let settlement = books.settle(target, policy);
        self.take_back(sql, source_id, Credits(settlement.taken.0 - books.taken.0), origin);
        self.owe(sql, Credits(settlement.owed.0 - owed.0), origin);
        if settlement.owed != owed {
            payments::owe(sql, source_id, settlement.owed);
        }
        part.is_some()
    }

    fn books(&self, sql: &mut Sql, source_id: &str) -> Books {
        let mut rows = sql.run(
            "select coalesce(sum(amount), 0)::bigint,
                    coalesce(sum(lapsed + case when lapses_at <= $3 then reversed else 0 end), 0)::bigint,
                    coalesce(sum(case when lapses_at <= $3 then 0 else reversed end), 0)::bigint,
                    coalesce(sum(remaining), 0)::bigint
             from billing.credit_grants where user_id = $1 and source_id = $2",
            &[uuid_datum(self.user).into(), source_id.into(), timestamp(self.now).into()],
        );
        assert!(rows.next(), "an aggregate has a row");
        Books {
            granted: Credits(rows.must(1)),
            lapsed: Credits(rows.must(2)),
            taken: Credits(rows.must(3)),
            remaining: Credits(rows.must(4)),
        }
    }

    /// Takes this many credits more from a payment's own grants, or gives them back where it is negative.
    fn take_back(&mut self, sql: &mut Sql, source_id: &str, amount: Credits, origin: &Origin) {
        let taking = amount > Credits::ZERO;
        let transaction_type =
            if taking { TransactionType::Reversal } else { TransactionType::Reinstatement };
        // What would be lost soonest is taken first, and given back last.
        let mut grants = shares(sql.run(
            "select id, pool, case when $3 then remaining when lapses_at <= $4 then 0 else reversed end
             from billing.credit_grants where user_id = $1 and source_id = $2 order by lapses_at, draw_rank, id",
            &[uuid_datum(self.user).into(), source_id.into(), taking.into(), timestamp(self.now).into()],
        ));
        if !taking {
            grants.reverse();
        }
        for share in draw::draw(&grants, Credits(amount.0.abs())) {
            let signed = Credits(-amount.0.signum() * share.credits.0);
            self.change(sql, share, signed, transaction_type, origin);
        }
    }

    /// Owes this many credits more, or fewer where it is negative. What was settled of a debt that is undone returns to the
    /// grants that settled it, the latest first.
    fn owe(&mut self, sql: &mut Sql, amount: Credits, origin: &Origin) {
        if amount > Credits::ZERO {
            self.post(sql, Credits(-amount.0), None, TransactionType::Reversal, origin);
        } else if amount < Credits::ZERO {
            let settled = Credits((-amount.0 - self.balances.debt.0).max(0));
            let grants = shares(sql.run(
                "select id, pool, settled from billing.credit_grants where user_id = $1 and settled > 0 order by id desc",
                &[uuid_datum(self.user).into()],
            ));
            for share in draw::draw(&grants, settled) {
                self.change(sql, share, share.credits, TransactionType::DebtSettlement, origin);
                self.post(sql, Credits(-share.credits.0), None, TransactionType::DebtSettlement, origin);
            }
            self.post(sql, Credits(-amount.0), None, TransactionType::Reinstatement, origin);
        }
    }

    /// Settles debt from whatever there is, in draw order.
    pub(super) fn settle_debt(&mut self, sql: &mut Sql) {
        let amount = self.balances.debt.min(self.available());
        if amount > Credits::ZERO {
            let origin = Origin::default();
            assert!(self.take(sql, amount, TransactionType::DebtSettlement, &origin), "it is available");
            self.post(sql, amount, None, TransactionType::DebtSettlement, &origin);
        }
    }
}
