//! What time alone does to an account.

use stripe_credits_rules::amount::Credits;
use stripe_credits_rules::calendar::{Span, Time};
use stripe_credits_rules::catalog::FreePlan;
use stripe_credits_rules::lot::{NewGrant, Pool};
use stripe_credits_rules::subscription::FREE;

use super::{Account, Origin, TransactionType, earliest, shares};
use crate::pg::convert::{timestamp, uuid_datum};
use crate::pg::sql::Sql;
use crate::tables::catalog;
use crate::tables::reservations::{self, Status};

/// Under which source the free plan's months are granted.
const FREE_PLAN: &str = "free_plan";

impl Account {
    /// Posts what time alone has caused: grants that lapsed, parts of a period that have come, free months, reservations
    /// that ran out, in the order in which they did, each followed by what it lets settle. However late that is posted, it
    /// comes to the same.
    pub(super) fn settle_time(&mut self, sql: &mut Sql) {
        if self.next_due.is_none_or(|due| due > self.now) {
            return;
        }
        self.operation_id = self.last_transaction_id + 1;
        self.dirty = true;
        loop {
            self.next_due = self.due(sql);
            let Some(due) = self.next_due.filter(|due| *due <= self.now) else { return };
            self.lapse(sql, due);
            self.drip(sql, due);
            self.settle_lots(sql);
            self.free_month(sql, due);
            self.run_out(sql, due);
            self.settle_debt(sql);
        }
    }

    /// When time next changes something here.
    fn due(&self, sql: &mut Sql) -> Option<Time> {
        let mut row = sql.query_one(
            "select least(
                 (select min(lapses_at) from billing.credit_grants where user_id = $1 and spendable),
                 (select min(available_from) from billing.credit_grants where user_id = $1 and pending > 0))",
            &[uuid_datum(self.user).into()],
        );
        let grants = row.get_opt();
        let free = self.free_next.filter(|_| self.balances.tier == FREE);
        earliest(earliest(grants, free), reservations::next_expiry(sql, self.user))
    }

    /// Takes what is left of the grants that lapsed by a time.
    fn lapse(&mut self, sql: &mut Sql, by: Time) {
        let lapsed = shares(sql.query(
            "select id, pool, remaining from billing.credit_grants
             where user_id = $1 and spendable and lost_at <= $2 and lapses_at <= $2 order by lapses_at, id",
            &[uuid_datum(self.user).into(), timestamp(by).into()],
        ));
        for share in lapsed {
            self.draw_from(sql, share, TransactionType::Lapse, &Origin::default());
        }
    }

    /// Returns what reservations held that ran out by a time.
    fn run_out(&mut self, sql: &mut Sql, by: Time) {
        for request_id in reservations::ran_out(sql, self.user, by) {
            let drawn = self.drawn(sql, &request_id);
            self.put_back(sql, &request_id, &drawn);
            reservations::end(sql, self.user, &request_id, Status::Expired, Credits::ZERO, self.now);
            self.settle_lots(sql);
            // What came back to a grant that had lapsed by then.
            self.lapse(sql, by);
        }
    }

    /// Grants the month of the free plan that has begun by a time.
    fn free_month(&mut self, sql: &mut Sql, by: Time) {
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
            lapses_at: Some(next),
            ..NewGrant::new(start.to_rfc3339(), name, plan.credits, Pool::Promotional)
        };
        let granted = self.granted(sql, FREE_PLAN, &lot.item).is_some();
        if !granted && self.grant(sql, FREE_PLAN, &[lot], TransactionType::Grant, &Origin::default()).is_err()
        {
            // An account that can hold no more gets no free month.
            self.free_next = Some(next);
        }
    }

    /// Sets the free plan's months going, again: with the one that is under way, unless it was granted before.
    pub(super) fn free_again(&mut self, sql: &mut Sql) {
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

/// Where the span after `start` begins, counted from the anchor.
fn span_after(anchor: Time, every: Span, start: Time) -> Option<Time> {
    (1..).map_while(|count| every.times(count)?.after(anchor)).find(|next| *next > start)
}

/// Where the span begins that is under way.
fn span_under_way(anchor: Time, every: Span, now: Time) -> Time {
    (1..)
        .map_while(|count| every.times(count)?.after(anchor))
        .take_while(|start| *start <= now)
        .last()
        .unwrap_or(anchor)
}
