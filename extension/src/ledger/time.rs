//! What becomes due in an account as time passes.

use stripe_credits_rules::amount::Credits;
use stripe_credits_rules::calendar::{Span, Time};
use stripe_credits_rules::catalog::FreePlan;
use stripe_credits_rules::lot::{NewGrant, Pool};
use stripe_credits_rules::subscription::FREE;

use super::targets::Cause;
use super::{Account, Origin, TransactionType, earliest, shares};
use crate::pg::convert::{timestamp, uuid_datum};
use crate::pg::sql::Sql;
use crate::tables::catalog;
use crate::tables::reservations::{self, Status};

/// Of grants with credits, those whose end is their own: periods and the trial end with the computation of the streams, unless
/// their subscription moved to another user.
macro_rules! ends_by_itself {
    () => {
        concat!(
            "spendable and (stripe_subscription_id is null and (source_id, item) <> ",
            trial!(),
            " or moved_with is not null)"
        )
    };
}

/// The source of the free plan's grants.
const FREE_PLAN: &str = "free_plan";

impl Account {
    /// Posts what is due: expired grants, periods that open or end and their parts, months of the free plan, ended reservations;
    /// in the order of their times and as of them, each followed by what it lets settle. However late this runs, the result is
    /// the same.
    pub(super) fn settle_time(&mut self, sql: &mut Sql) {
        let now = self.now;
        if self.next_due.is_none_or(|due| due > now) {
            return;
        }
        self.operation_id = self.last_transaction_id + 1;
        self.dirty = true;
        // What time causes is of its own time.
        let learned_as_of = self.learned_as_of.take();
        loop {
            self.next_due = self.due(sql);
            let Some(due) = self.next_due.filter(|due| *due <= now) else { break };
            self.now = due.max(self.posted_at).min(now);
            if self.periods_next.is_some_and(|next| next <= due) {
                self.periods_next = None;
                self.touch_streams(due, Cause::Time);
                self.settle_facts(sql, &Origin::default());
            }
            self.expire(sql, due);
            self.grant_free_month(sql, due);
            self.expire_reservations(sql, due);
            self.settle_debt(sql);
        }
        (self.now, self.learned_as_of) = (now, learned_as_of);
    }

    /// When something is due next.
    fn due(&self, sql: &mut Sql) -> Option<Time> {
        const NEXT: &str = concat!(
            "select min(expires_at) from billing.credit_grants where user_id = $1 and ",
            ends_by_itself!()
        );
        let mut row = sql.query_one(NEXT, &[uuid_datum(self.user).into()]);
        let grants = earliest(row.get_opt(), self.periods_next);
        let free = self.free_next.filter(|_| self.balances.tier == FREE);
        earliest(earliest(grants, free), reservations::next_expiry(sql, self.user))
    }

    /// Takes what is left of the grants that expired by a time.
    fn expire(&mut self, sql: &mut Sql, by: Time) {
        const EXPIRED: &str = concat!(
            "select id, pool, remaining from billing.credit_grants where user_id = $1 and expires_at <= $2 and ",
            ends_by_itself!(),
            " order by expires_at, id"
        );
        let expired = shares(sql.query(EXPIRED, &[uuid_datum(self.user).into(), timestamp(by).into()]));
        for share in expired {
            self.draw_from(sql, share, TransactionType::Expiry, &Origin::default());
        }
    }

    /// Returns what the reservations held that expired by a time.
    fn expire_reservations(&mut self, sql: &mut Sql, by: Time) {
        for request_id in reservations::expired_by(sql, self.user, by) {
            let drawn = self.drawn(sql, &request_id);
            self.return_reserved(sql, &request_id, &drawn);
            reservations::end(sql, self.user, &request_id, Status::Expired, Credits::ZERO, self.now);
            self.settle_facts(sql, &Origin::default());
            // The grants that it came from may have expired by then.
            self.expire(sql, by);
        }
    }

    /// Grants the month of the free plan that started by a time.
    fn grant_free_month(&mut self, sql: &mut Sql, by: Time) {
        let Some(start) = self.free_next.filter(|start| *start <= by && self.balances.tier == FREE) else {
            return;
        };
        let free_plan = catalog::settings(sql).and_then(|settings| settings.free_plan);
        let month = free_plan.filter(|plan| plan.credits > Credits::ZERO).zip(self.signed_up_at);
        let next = month.as_ref().and_then(|(plan, anchor)| span_after(*anchor, plan.every, start));
        self.free_next = next;
        let (Some((plan, _)), Some(next)) = (month, next) else { return };
        let name = plan.name.unwrap_or(plan.key);
        let lot = NewGrant {
            expires_at: Some(next),
            ..NewGrant::new(start.to_rfc3339(), name, plan.credits, Pool::Promotional)
        };
        let granted = self.find_grant(sql, FREE_PLAN, &lot.item).is_some();
        if !granted && self.grant(sql, FREE_PLAN, &[lot], TransactionType::Grant, &Origin::default()).is_err()
        {
            // An account that can hold no more gets no free month.
            self.free_next = Some(next);
        }
    }

    /// Continues the months of the free plan with the current one, unless it was granted before.
    pub(super) fn resume_free_plan(&mut self, sql: &mut Sql) {
        let free_plan = catalog::settings(sql).and_then(|settings| settings.free_plan);
        let (Some(anchor), Some(FreePlan { every, .. })) = (self.signed_up_at, free_plan) else { return };
        if self.free_next.is_none_or(|next| next <= self.now) {
            self.free_next = Some(span_under_way(anchor, every, self.now));
        }
        if let Some(next) = self.free_next {
            self.due_at(next);
        }
    }
}

/// The start of the span after the one that starts at `start`, counted from the anchor.
fn span_after(anchor: Time, every: Span, start: Time) -> Option<Time> {
    (1..).map_while(|count| every.times(count)?.after(anchor)).find(|next| *next > start)
}

/// The start of the current span.
fn span_under_way(anchor: Time, every: Span, now: Time) -> Time {
    (1..)
        .map_while(|count| every.times(count)?.after(anchor))
        .take_while(|start| *start <= now)
        .last()
        .unwrap_or(anchor)
}
