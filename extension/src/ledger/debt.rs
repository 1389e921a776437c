//! Debt (rule 9): what was drawn beyond what grants are worth, less what was settled of it.

use serde_json::json;
use stripe_credits_rules::amount::Credits;
use stripe_credits_rules::calendar::Time;
use stripe_credits_rules::draw::Share;
use stripe_credits_rules::lot::Pool;
use stripe_credits_rules::streams::debt::{self, Standing};

use super::{Account, Origin, TransactionType};
use crate::pg::convert::uuid_datum;
use crate::pg::json::Json;
use crate::pg::sql::Sql;
use crate::tables::invoices;

/// In the metadata of a settlement's row: its time by the facts' own times (rules/streams/facts.rs, `Draw::as_of`), if that
/// is earlier than the row's.
const AS_OF: &str = "as_of";

impl Account {
    /// Makes the debt what the grants say: more if more was drawn than they are worth. If less is owed than was
    /// settled, the settlements return to the grants that they were taken from, the latest first.
    pub(super) fn settle_owed(&mut self, sql: &mut Sql, origin: &Origin) {
        if !std::mem::take(&mut self.is_owed_changed) {
            return;
        }
        // What finds no room returns with the next change.
        let excess = (-self.unsettled(sql)).min(self.room(sql).0);
        for share in self.returned(sql, excess) {
            let of_grant = Origin { metadata: as_of(self.learned_as_of), ..*origin };
            self.return_to(sql, share, TransactionType::DebtSettlement, &of_grant);
            self.post(sql, Credits(-share.credits.0), None, TransactionType::DebtSettlement, origin);
        }
        let unsettled = self.unsettled(sql);
        self.post_debt(sql, unsettled, origin);
    }

    /// Takes no more debt of a subscription that leaves than what was drawn: what was credited beyond what was paid is owed by
    /// whom it comes to, and what settled that here comes back before it moves.
    pub(super) fn leave_debt(&mut self, sql: &mut Sql, subscription_id: &str, origin: &Origin) {
        let less = sql.execute(
            "update billing.credit_grants set owed = greatest(drawn + moved, 0)
             where user_id = $1 and stripe_subscription_id = $2 and amount < 0 and owed > greatest(drawn + moved, 0)",
            &[uuid_datum(self.user).into(), subscription_id.into()],
        );
        if less > 0 {
            self.is_owed_changed = true;
            self.settle_owed(sql, origin);
        }
    }

    /// Posts the debt again, once what settlements returned is counted. If more is still settled than owed, that
    /// returns with the next change.
    pub(super) fn adjust_debt(&mut self, sql: &mut Sql, origin: &Origin) {
        self.is_owed_changed = false;
        let unsettled = self.unsettled(sql);
        self.post_debt(sql, unsettled, origin);
    }

    /// What the grants owe, less what was settled of it.
    fn unsettled(&self, sql: &mut Sql) -> i64 {
        let mut row = sql.query_one(
            "select coalesce(sum(owed) - sum(settled), 0)::bigint from billing.credit_grants
             where user_id = $1 and (owed > 0 or settled > 0)",
            &[uuid_datum(self.user).into()],
        );
        row.get()
    }

    /// Posts the difference to the debt that there is.
    fn post_debt(&mut self, sql: &mut Sql, wanted: i64, origin: &Origin) {
        let change = wanted.max(0) - self.balances.debt.0;
        let transaction_type = match change {
            0 => return,
            ..0 => TransactionType::Reinstatement,
            _ => TransactionType::Reversal,
        };
        self.post(sql, Credits(-change), None, transaction_type, origin);
    }

    /// What returns to the grants that settled debt, the one that did last first; nothing if no more was settled than is owed.
    fn returned(&self, sql: &mut Sql, excess: i64) -> Vec<Share> {
        if excess <= 0 {
            return Vec::new();
        }
        let rows = sql.query(
            "select g.id, g.pool, g.settled, greatest(g.drawn + g.moved - g.amount, 0), g.owed
             from billing.credit_grants g
             cross join lateral (
                 select max(t.id) as last from billing.credit_transactions t
                 where t.user_id = g.user_id and t.id > g.made_after and t.grant_id = g.id
                     and t.transaction_type = 'debt_settlement' and t.amount < 0) t
             where g.user_id = $1 and g.settled > 0 order by t.last desc",
            &[uuid_datum(self.user).into()],
        );
        let (grants, standings): (Vec<(i64, Pool)>, Vec<Standing>) = rows
            .map(|mut row| {
                let grant = (row.get(), row.parse(Pool::parse));
                (grant, Standing { settled: row.get(), beyond: row.get(), owed: row.get() })
            })
            .unzip();
        let back = debt::returned(&standings, Credits(excess)).into_iter();
        let shares = grants.into_iter().zip(back).filter(|(_, credits)| *credits > Credits::ZERO);
        shares.map(|((grant_id, pool), credits)| Share { grant_id, pool, credits }).collect()
    }

    /// Settles debt from the credits there are, in draw order.
    pub(super) fn settle_debt(&mut self, sql: &mut Sql) {
        let amount = self.balances.debt.min(self.available());
        if amount > Credits::ZERO {
            let newest = invoices::newest_paid_at(sql, self.user).filter(|at| *at < self.now);
            let origin = Origin { metadata: as_of(newest), ..Origin::default() };
            assert!(self.take(sql, amount, TransactionType::DebtSettlement, &origin), "it is available");
            self.post(sql, amount, None, TransactionType::DebtSettlement, &Origin::default());
        }
    }
}

/// The metadata of a settlement's row, if it is as of an earlier time than now.
fn as_of(at: Option<Time>) -> Option<Json> {
    at.map(|at| Json::from_text(&json!({ AS_OF: at.to_rfc3339() }).to_string()))
}
