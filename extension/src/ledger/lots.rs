//! The lots of a user's subscriptions: rules/plan.rs computes what each should hold, and this posts the difference.

use stripe_credits_rules::amount::Credits;
use stripe_credits_rules::bonus::{self, Bonus};
use stripe_credits_rules::calendar::Time;
use stripe_credits_rules::draw::Share;
use stripe_credits_rules::lot::Pool;
use stripe_credits_rules::plan::{self, Grant, Returned, Target};
use stripe_credits_rules::worth::invoice::TRIAL;

use super::{Account, Origin, TransactionType, earliest};
use crate::pg::convert::{timestamp, uuid_datum};
use crate::pg::sql::Sql;
use crate::tables::subscriptions;

/// The item of a first purchase's bonus.
pub(crate) const FIRST_PURCHASE_BONUS: &str = "first_purchase_bonus";

impl Account {
    /// Records that something became known that may change the lots.
    pub(crate) fn touch_lots(&mut self) {
        self.lots_touched = true;
    }

    /// Settles the lots, if something became known that may change them.
    pub(super) fn settle_lots(&mut self, sql: &mut Sql) {
        if !std::mem::take(&mut self.lots_touched) {
            return;
        }
        let grants = self.lots(sql);
        if grants.is_empty() {
            return;
        }
        self.lots_settled = self.last_grant_id;
        let subscriptions = subscriptions::of_user(sql, self.user);
        let returned = std::mem::take(&mut self.returned);
        for target in plan::settle(&grants, &subscriptions, &returned, self.now) {
            let before = grants.iter().find(|grant| grant.id == target.id).expect("it is one of these");
            if target != Target::from(before) {
                self.apply_target(sql, before, &target);
            }
        }
        self.settle_bonus(sql);
    }

    fn lots(&self, sql: &mut Sql) -> Vec<Grant> {
        let rows = sql.query(
            "select g.id, g.source_id, g.stripe_subscription_id, g.price_id, g.period_start, g.period_end, g.paid_at,
                    g.max_rollover, g.expires, g.available_from, g.expires_at, g.amount, g.remaining, g.set_aside,
                    g.pending, g.expired, g.reversed, coalesce(p.owed, 0), g.consumed, g.closed_through, g.id > $2
             from billing.credit_grants g left join billing.payments p using (source_id)
             where g.user_id = $1 and g.stripe_subscription_id is not null order by g.id",
            &[uuid_datum(self.user).into(), self.lots_settled.into()],
        );
        rows.map(|mut row| Grant {
            id: row.get(),
            source_id: row.get(),
            subscription_id: row.get(),
            price_id: row.get(),
            period: (row.get(), row.get()),
            paid_at: row.get(),
            max_rollover: row.get(),
            expires: row.get(),
            available_from: row.get_opt(),
            expires_at: row.get_opt(),
            granted: row.get(),
            remaining: row.get(),
            set_aside: row.get(),
            pending: row.get(),
            expired: row.get(),
            reversed: row.get(),
            owed: row.get(),
            consumed: row.get_opt(),
            closed_through: row.get_opt(),
            is_new: row.get(),
        })
        .collect()
    }

    /// Posts the difference between what a grant holds and its target.
    fn apply_target(&mut self, sql: &mut Sql, before: &Grant, target: &Target) {
        sql.execute(
            "update billing.credit_grants set remaining = $3, set_aside = $4, pending = $5, expired = $6, expires_at = $7,
                 consumed = $8,
                 closed_through = case when $8 is null then null when $8 <= consumed then closed_through else $9 end
             where user_id = $1 and id = $2",
            &[
                uuid_datum(self.user).into(),
                target.id.into(),
                target.remaining.0.into(),
                target.set_aside.0.into(),
                target.pending.0.into(),
                target.expired.0.into(),
                target.expires_at.map(timestamp).into(),
                target.consumed.map(|consumed| consumed.0).into(),
                self.last_transaction_id.into(),
            ],
        );
        self.next_due = earliest(self.next_due, target.expires_at);
        if target.pending > Credits::ZERO {
            self.next_due = earliest(self.next_due, before.available_from);
        }
        self.dirty = true;
        let grant = (target.id, Pool::Subscription);
        self.post_adjustment(sql, Credits(target.remaining.0 - before.remaining.0), grant, &before.source_id);
    }

    /// Posts what is set aside of a grant, or restored to it.
    fn post_adjustment(&mut self, sql: &mut Sql, change: Credits, grant: (i64, Pool), invoice_id: &str) {
        let transaction_type = match change.0 {
            0 => return,
            ..0 => TransactionType::SetAside,
            _ => TransactionType::Restore,
        };
        let origin = Origin { invoice_id: Some(invoice_id), ..Origin::default() };
        self.post(sql, change, Some(grant), transaction_type, &origin);
    }

    /// Records what a request returned: a lot that was closed since counts it as drawn in its time.
    pub(super) fn record_returned(&mut self, sql: &mut Sql, request_id: &str, share: Share) {
        if share.pool != Pool::Subscription {
            return;
        }
        let mut row = sql.query_one(
            "select max(id) from billing.credit_transactions
             where user_id = $1 and request_id = $2 and grant_id = $3
                 and transaction_type in ('spend', 'reservation')",
            &[uuid_datum(self.user).into(), request_id.into(), share.grant_id.into()],
        );
        let Share { grant_id, credits, .. } = share;
        self.returned.push(Returned { grant_id, drawn_by: row.get(), credits });
    }

    /// The same for what had settled a debt, before its return is posted.
    pub(super) fn record_unsettled(&mut self, sql: &mut Sql, share: Share) {
        if share.pool != Pool::Subscription {
            return;
        }
        let rows = sql.query(
            "select id, -amount from billing.credit_transactions
             where user_id = $1 and grant_id = $2 and transaction_type = 'debt_settlement' order by id",
            &[uuid_datum(self.user).into(), share.grant_id.into()],
        );
        let settlements: Vec<_> = rows.map(|mut row| (row.get(), row.get())).collect();
        self.returned.extend(plan::last_settled(share.grant_id, &settlements, share.credits));
    }

    /// The credits that other invoices granted for trials: a user has one trial.
    pub(crate) fn other_trials(&self, sql: &mut Sql, invoice_id: &str) -> Credits {
        let mut row = sql.query_one(
            "select coalesce(sum(amount), 0)::bigint from billing.credit_grants
             where user_id = $1 and stripe_subscription_id is not null and source_id <> $2
                 and right(item, length($3)) = $3",
            &[uuid_datum(self.user).into(), invoice_id.into(), TRIAL.into()],
        );
        row.get()
    }

    /// The user's first purchase of a plan: the start of its period, and the invoice.
    pub(crate) fn first_purchase(&self, sql: &mut Sql) -> Option<(Time, String)> {
        sql.query_opt(
            "select period_start, source_id from billing.credit_grants
             where user_id = $1 and stripe_subscription_id is not null and right(item, length($2)) <> $2
             order by period_start, source_id limit 1",
            &[uuid_datum(self.user).into(), TRIAL.into()],
        )
        .map(|mut row| (row.get(), row.get()))
    }

    /// Keeps the bonus of the first purchase only: an earlier purchase may become known after a later one.
    fn settle_bonus(&mut self, sql: &mut Sql) {
        let bonuses = self.bonuses(sql);
        if bonuses.is_empty() {
            return;
        }
        let Some((_, first)) = self.first_purchase(sql) else { return };
        for target in bonus::settle(&bonuses, &first) {
            let before = bonuses.iter().find(|bonus| bonus.id == target.id).expect("it is one of these");
            if target.remaining == before.remaining {
                continue;
            }
            sql.execute(
                "update billing.credit_grants set remaining = $3, set_aside = $4 where user_id = $1 and id = $2",
                &[
                    uuid_datum(self.user).into(),
                    target.id.into(),
                    target.remaining.0.into(),
                    target.set_aside.0.into(),
                ],
            );
            let change = Credits(target.remaining.0 - before.remaining.0);
            self.post_adjustment(sql, change, (target.id, Pool::Promotional), &before.source_id);
        }
    }

    fn bonuses(&self, sql: &mut Sql) -> Vec<Bonus> {
        let rows = sql.query(
            "select id, source_id, amount, remaining, set_aside, expired, reversed
             from billing.credit_grants where user_id = $1 and item = $2 and pool = 'promotional' order by id",
            &[uuid_datum(self.user).into(), FIRST_PURCHASE_BONUS.into()],
        );
        rows.map(|mut row| Bonus {
            id: row.get(),
            source_id: row.get(),
            granted: row.get(),
            remaining: row.get(),
            set_aside: row.get(),
            expired: row.get(),
            reversed: row.get(),
        })
        .collect()
    }

    /// Posts the parts of a period's credits that are available by a time.
    pub(super) fn drip(&mut self, sql: &mut Sql, by: Time) {
        let rows = sql.query(
            "select id, source_id, pending from billing.credit_grants
             where user_id = $1 and pending > 0 and available_from <= $2 order by available_from, id",
            &[uuid_datum(self.user).into(), timestamp(by).into()],
        );
        let due: Vec<(i64, String, Credits)> =
            rows.map(|mut row| (row.get(), row.get(), row.get())).collect();
        // The first part of a period may take over from the period before.
        self.lots_touched |= !due.is_empty();
        for (id, invoice_id, credits) in due {
            sql.execute(
                "update billing.credit_grants set remaining = remaining + pending, pending = 0
                 where user_id = $1 and id = $2",
                &[uuid_datum(self.user).into(), id.into()],
            );
            let origin = Origin { invoice_id: Some(&invoice_id), ..Origin::default() };
            let grant = Some((id, Pool::Subscription));
            self.post(sql, credits, grant, TransactionType::SubscriptionGrant, &origin);
        }
    }
}
