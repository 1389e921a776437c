//! What refunds and disputes take from an account, what remains owed, and what is given back if they fail.

use stripe_credits_rules::amount::Credits;
use stripe_credits_rules::catalog::ReversalPolicy;
use stripe_credits_rules::draw;
use stripe_credits_rules::lot::Pool;
use stripe_credits_rules::reversal::{self, GrantBalance};

use super::{Account, Origin, TransactionType, earliest, shares};
use crate::pg::convert::{timestamp, uuid_datum};
use crate::pg::sql::Sql;
use crate::tables::{catalog, payments, reversals};

/// A grant of a payment that is reversed.
struct Reversible {
    id: i64,
    pool: Pool,
    granted: Credits,
    expired: Credits,
    reversed: Credits,
    remaining: Credits,
    set_aside: Credits,
    pending: Credits,
    is_to_come: bool,
    is_lot: bool,
    has_expired: bool,
}

impl Reversible {
    /// What reversals took from it, and what they can still take. Of an expired grant, what was set aside, pending or given back
    /// has expired too.
    fn balance(&self) -> GrantBalance {
        let held_back = Credits(self.set_aside.0 + self.pending.0);
        if self.has_expired {
            let expired = Credits(self.expired.0 + self.reversed.0 + held_back.0);
            GrantBalance { expired, reversed: Credits::ZERO, available: self.remaining }
        } else {
            GrantBalance {
                expired: self.expired,
                reversed: self.reversed,
                available: Credits(self.remaining.0 + held_back.0),
            }
        }
    }
}

impl Account {
    /// Posts the difference between what a payment's reversals take back and what they took so far (rules 5 and 9). `false` if
    /// the charged amount is not known yet, so that they wait.
    pub(crate) fn settle_reversals(&mut self, sql: &mut Sql, source_id: &str, origin: &Origin) -> bool {
        let known = reversals::of_payment(sql, source_id);
        let terms = payments::terms(sql, source_id);
        if known.is_empty() && terms.worth.is_none() {
            return true;
        }
        let owed = terms.owed;
        let part = reversal::part(&terms.paid, &known);
        let grants = self.reversible(sql, source_id);
        let granted = Credits(grants.iter().map(|grant| grant.granted.0).sum());
        let worth = terms.worth.unwrap_or(granted);
        let balances: Vec<GrantBalance> = grants.iter().map(Reversible::balance).collect();
        // Also if they wait: what is posted depends on what is known now, not on what was known in between.
        let reversed = part.map_or(Credits::ZERO, |part| part.of(worth));
        let target = Credits(granted.0 - worth.0 + reversed.0);
        let policy = Account::reversal_policy(sql, source_id, terms.policy, target);
        let settlement = reversal::settle(&balances, target, policy);
        for ((grant, before), reversed) in grants.iter().zip(&balances).zip(settlement.reversed) {
            self.take_back(sql, grant, Credits(reversed.0 - before.reversed.0), origin);
        }
        if settlement.owed != owed {
            payments::set_owed(sql, source_id, settlement.owed);
            self.lots_touched = true;
        }
        let returned_to = self.owe(sql, Credits(settlement.owed.0 - owed.0), origin);
        if !returned_to.is_empty() {
            // The payments that it returns to may be reversed too. Each round returns less, so this ends.
            for source_id in self.sources(sql, returned_to) {
                self.settle_reversals(sql, &source_id, origin);
            }
        }
        known.is_empty() || part.is_some()
    }

    /// The policy by which a payment is reversed: the catalog's when something of it was first taken back.
    fn reversal_policy(
        sql: &mut Sql,
        source_id: &str,
        decided: Option<ReversalPolicy>,
        target: Credits,
    ) -> ReversalPolicy {
        if let Some(decided) = decided {
            return decided;
        }
        let policy =
            catalog::settings(sql).map_or(ReversalPolicy::default(), |settings| settings.reversal_policy);
        if target > Credits::ZERO {
            payments::set_policy(sql, source_id, policy);
        }
        policy
    }

    /// A payment's grants, in draw order.
    fn reversible(&self, sql: &mut Sql, source_id: &str) -> Vec<Reversible> {
        let rows = sql.query(
            "select id, pool, amount, expired, reversed, remaining, set_aside, pending,
                    coalesce(available_from > $3, false), stripe_subscription_id is not null,
                    coalesce(expires_at <= $3, false)
             from billing.credit_grants where user_id = $1 and source_id = $2 order by priority_at, draw_rank, id",
            &[uuid_datum(self.user).into(), source_id.into(), timestamp(self.now).into()],
        );
        rows.map(|mut row| Reversible {
            id: row.get(),
            pool: row.parse(Pool::parse),
            granted: row.get(),
            expired: row.get(),
            reversed: row.get(),
            remaining: row.get(),
            set_aside: row.get(),
            pending: row.get(),
            is_to_come: row.get(),
            is_lot: row.get(),
            has_expired: row.get(),
        })
        .collect()
    }

    /// Takes this many credits more from a grant, or gives them back if the number is negative. Credits that cannot be spent
    /// are taken first, without a ledger row, since they are in no balance.
    fn take_back(&mut self, sql: &mut Sql, grant: &Reversible, amount: Credits, origin: &Origin) {
        if amount == Credits::ZERO {
            return;
        }
        let set_aside = amount.0.clamp(0, grant.set_aside.0);
        let pending = if grant.is_to_come {
            amount.0 - set_aside
        } else {
            (amount.0 - set_aside).clamp(0, grant.pending.0)
        };
        let remaining = amount.0 - set_aside - pending;
        debug_assert!(remaining <= grant.remaining.0, "no more is taken than there is");
        let mut row = sql.query_one(
            "update billing.credit_grants set remaining = remaining - $3, set_aside = set_aside - $4,
                 pending = pending - $5, reversed = reversed + $6
             where user_id = $1 and id = $2
             returning expires_at",
            &[
                uuid_datum(self.user).into(),
                grant.id.into(),
                remaining.into(),
                set_aside.into(),
                pending.into(),
                amount.0.into(),
            ],
        );
        if amount < Credits::ZERO {
            self.next_due = earliest(self.next_due, row.get_opt());
        }
        (self.lots_touched, self.dirty) = (self.lots_touched || grant.is_lot, true);
        let transaction_type = match amount.0 {
            ..0 => TransactionType::Reinstatement,
            _ => TransactionType::Reversal,
        };
        if remaining != 0 {
            self.post(sql, Credits(-remaining), Some((grant.id, grant.pool)), transaction_type, origin);
        }
    }

    /// Adds this many credits to the debt, or removes them if the number is negative. What had settled a debt that is removed
    /// returns to the grants that it was taken from, the latest first. Returns those grants.
    fn owe(&mut self, sql: &mut Sql, amount: Credits, origin: &Origin) -> Vec<i64> {
        let mut returned_to = Vec::new();
        if amount > Credits::ZERO {
            self.post(sql, Credits(-amount.0), None, TransactionType::Reversal, origin);
        } else if amount < Credits::ZERO {
            let settled = Credits((-amount.0 - self.balances.debt.0).max(0));
            let grants = shares(sql.query(
                "select id, pool, settled from billing.credit_grants where user_id = $1 and settled > 0 order by id desc",
                &[uuid_datum(self.user).into()],
            ));
            for share in draw::draw(&grants, settled) {
                self.record_unsettled(sql, share);
                self.return_to(sql, share, TransactionType::DebtSettlement, origin);
                returned_to.push(share.grant_id);
                self.post(sql, Credits(-share.credits.0), None, TransactionType::DebtSettlement, origin);
            }
            self.post(sql, Credits(-amount.0), None, TransactionType::Reinstatement, origin);
        }
        returned_to
    }

    /// Settles debt from the credits there are, in draw order.
    pub(super) fn settle_debt(&mut self, sql: &mut Sql) {
        let amount = self.balances.debt.min(self.available());
        if amount > Credits::ZERO {
            let origin = Origin::default();
            assert!(self.take(sql, amount, TransactionType::DebtSettlement, &origin), "it is available");
            self.post(sql, amount, None, TransactionType::DebtSettlement, &origin);
        }
    }
}
