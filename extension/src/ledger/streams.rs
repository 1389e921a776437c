//! Plan credits: whenever a fact is added or time passes, what each grant of a user's subscriptions should hold is
//! computed anew from the facts (rules/streams.rs), as far back as the change can reach, and the difference is posted.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use stripe_credits_rules::amount::Credits;
use stripe_credits_rules::calendar::Time;
use stripe_credits_rules::lot::Pool;
use stripe_credits_rules::reason::Reason;
use stripe_credits_rules::streams::facts::{Draw, GrantKey, Purpose};
use stripe_credits_rules::streams::horizon::{self, Extent};
use stripe_credits_rules::streams::{SetAside, Target, holdings};

use super::facts::Loaded;
use super::moves::{self, Moves};
use super::targets::{Cause, Change, FormerChange, GrantRow};
use super::{Account, Origin, draws, earliest, facts, targets};
use crate::pg::convert::{timestamp, uuid_datum};
use crate::pg::sql::Sql;

/// What became known, or became due, and is not computed yet.
#[derive(Debug, Clone, Copy)]
pub(super) struct Touch {
    /// The earliest time that it concerns.
    from: Time,
    cause: Cause,
}

/// What the periods of an account should hold, as it was computed and is not posted yet.
pub(super) struct Computed {
    loaded: Loaded,
    pub(super) changes: Vec<Change>,
    /// What that leaves to former users of the account's subscriptions.
    pub(super) of_former: Vec<FormerChange>,
    to_set_aside: Vec<SetAside>,
    next_change: Option<Time>,
}

impl Account {
    /// Records that something became known that may change what periods hold, from a time on.
    pub(crate) fn touch_streams(&mut self, from: Time, cause: Cause) {
        let from = from.min(self.now);
        self.touched = Some(match self.touched {
            Some(known) => Touch { from: known.from.min(from), cause: known.cause.max(cause) },
            None => Touch { from, cause },
        });
    }

    /// Computes what the periods hold, if something became known that may change it, and posts the difference.
    ///
    /// # Errors
    /// [`Reason::OutOfRange`] if that is more than can be held; nothing is posted then.
    pub(super) fn settle_streams(&mut self, sql: &mut Sql, origin: &Origin) -> Result<(), Reason> {
        if let Some(computed) = self.compute_streams(sql)? {
            self.check_fits(sql, &computed.changes, std::iter::empty())?;
            self.post_streams(sql, computed, origin);
        }
        Ok(())
    }

    /// Computes what the periods hold, if something became known that may change it. Posts nothing, so that of several accounts
    /// none changes if one cannot hold it.
    ///
    /// # Errors
    /// [`Reason::OutOfRange`] if a number cannot be held.
    pub(super) fn compute_streams(&mut self, sql: &mut Sql) -> Result<Option<Computed>, Reason> {
        let Some(Touch { from, cause }) = self.touched.take() else { return Ok(None) };
        let horizon = self.horizon(sql, from);
        let mut loaded = facts::load(sql, self.user, horizon);
        let payments: Vec<String> = loaded.facts.payments.iter().map(|payment| payment.id.clone()).collect();
        let rows = targets::of_periods(sql, self.user, loaded.facts.horizon, payments);
        // A trial or a bonus that left with a subscription: the user had it.
        let (left, rows): (Vec<GrantRow>, Vec<GrantRow>) =
            rows.into_iter().partition(|row| row.held.kept.is_some());
        let moves = Moves::of_user(sql, self.user);
        let former = moves::add_former(sql, &moves, &mut loaded.facts);
        let draws = self.draws(sql, &rows);
        let mut held = holdings(&loaded.facts, &draws, self.now).map_err(|_| Reason::OutOfRange)?;
        held.targets.retain(|target| !left.iter().any(|row| row.key == target.key));
        let mut of_former = Vec::new();
        for (index, former) in former.iter().enumerate() {
            let of_user: Vec<_> = held.former.iter().filter(|target| target.former == index).collect();
            of_former.extend(former.changes(&of_user, cause));
        }
        // Of what a move changes, only the grants of the subscription that moves are moved.
        let is_moving = |key: &GrantKey| match key {
            GrantKey::Period { stream, .. } => self.moving.as_ref() == Some(&stream.subscription),
            _ => true,
        };
        let cause_of = |key: &GrantKey| match cause {
            Cause::Move if !is_moving(key) => Cause::Time,
            cause => cause,
        };
        let changes = targets::changes(rows, held.targets, self.now, &|_| None, &cause_of);
        let (to_set_aside, next_change) = (held.to_set_aside, held.next_change);
        Ok(Some(Computed { loaded, changes, of_former, to_set_aside, next_change }))
    }

    /// Posts what was computed and checked.
    pub(super) fn post_streams(&mut self, sql: &mut Sql, computed: Computed, origin: &Origin) {
        let Computed { loaded, changes, to_set_aside: all_to_set_aside, next_change, .. } = computed;
        let name = |target: &Target| loaded.name(&target.payments).map(str::to_owned);
        self.post_changes(sql, changes, &name, origin);
        self.is_owed_changed = true;
        let to_set_aside = to_set_aside(&all_to_set_aside);
        self.dirty |= self.periods_next != next_change || self.to_set_aside != to_set_aside;
        self.to_set_aside = to_set_aside;
        self.periods_next = next_change;
        self.next_due = earliest(self.next_due, next_change);
    }

    /// How far back facts are needed: no earlier period can change any more. Reads the grants that matter for what is touched;
    /// if these reach further back, those too that matter for that, until there are no more.
    fn horizon(&self, sql: &mut Sql, touched_from: Time) -> Time {
        let mut since = touched_from;
        loop {
            let horizon = horizon::horizon(self.extents(sql, since), touched_from);
            if horizon >= since {
                return since;
            }
            since = horizon;
        }
    }

    /// The extents of the grants that matter at a time or later.
    fn extents(&self, sql: &mut Sql, since: Time) -> Vec<Extent> {
        const EXTENTS: &str = concat!(
            "select coalesce(period_start, available_from), coalesce(period_end, expires_at, available_from), closed_at,
                    needed_by, pool = 'purchased'
             from billing.credit_grants
             where user_id = $1 and matters_until >= $2 and moved_with is null
                 and (stripe_subscription_id is not null or (source_id, item) = ",
            trial!(),
            ")"
        );
        let rows = sql.query(EXTENTS, &[uuid_datum(self.user).into(), timestamp(since).into()]);
        let extents = rows.map(|mut row| {
            let (start, end) = (row.get(), row.get());
            let (closed_at, needed_by) = (row.get_opt(), row.get_opt());
            // Nothing sets aside what was bought for good, so such a period is closed when it is over.
            let is_for_good: bool = row.get();
            Extent { start, end, closed_at: closed_at.or(is_for_good.then_some(end)), needed_by }
        });
        extents.collect()
    }

    /// What was drawn from these grants. If nothing of a grant is ever set aside and it never expires, only the sum
    /// matters, and the ledger need not be read for it.
    pub(super) fn draws(&self, sql: &mut Sql, grants: &[GrantRow]) -> Vec<Draw> {
        let timeless =
            |grant: &&GrantRow| grant.pool != Pool::Subscription && grant.held.expires_at.is_none();
        let summed = grants.iter().filter(timeless).filter(|grant| grant.held.drawn != Credits::ZERO);
        let mut draws: Vec<Draw> = summed
            .map(|grant| {
                let at = grant.held.available_from.unwrap_or(self.now);
                let (grant, credits) = (grant.key.clone(), grant.held.drawn);
                Draw { grant, recorded_at: at, at, as_of: at, credits, purpose: Purpose::Spend }
            })
            .collect();
        let timed: Vec<&GrantRow> = grants.iter().filter(|grant| !timeless(grant)).collect();
        let Some(after) = timed.iter().map(|grant| grant.made_after).min() else { return draws };
        let keys: BTreeMap<i64, &GrantKey> = timed.iter().map(|grant| (grant.id, &grant.key)).collect();
        draws.extend(draws::of_grants(sql, self.user, (after, None), &keys));
        draws
    }

    /// Records that credits come back to a grant: if it is a period's, what is left of it is computed anew.
    pub(super) fn touch_grant(&mut self, start: Option<Time>) {
        if let Some(start) = start {
            self.touch_streams(start, Cause::Time);
        }
    }
}

/// What reads need to know of what time will set aside, as `billing.accounts.to_set_aside` has it.
fn to_set_aside(all: &[SetAside]) -> Option<Value> {
    let entry = |one: &SetAside| {
        let name = |grant: &GrantKey| json!([grant.source_id(), grant.item()]);
        let grants: Vec<Value> = one.grants.iter().map(name).collect();
        json!({ "at": one.at.to_rfc3339(), "stays": one.stays.0, "grants": grants })
    };
    (!all.is_empty()).then(|| all.iter().map(entry).collect())
}
