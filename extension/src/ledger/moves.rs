//! Subscriptions that came to an account from another user (rule 6): what those had drawn of its grants, which stays theirs.

use std::collections::BTreeMap;

use stripe_credits_rules::amount::Credits;
use stripe_credits_rules::calendar::Time;
use stripe_credits_rules::streams::FormerTarget;
use stripe_credits_rules::streams::facts::{Draw, Facts, FormerUser, GrantKey, Purpose};
use uuid::Uuid;

use super::draws;
use super::targets::{self, Cause, FormerChange, GrantRow};
use crate::pg::convert::uuid_datum;
use crate::pg::sql::Sql;
use crate::tables::ownership::{self, Move};

/// The moves of the subscriptions that a user has now.
#[derive(Debug, Default)]
pub(super) struct Moves(Vec<Move>);

impl Moves {
    pub(super) fn of_user(sql: &mut Sql, user: Uuid) -> Moves {
        let mut moves = ownership::moves_of_user(sql, user);
        let last: BTreeMap<String, Uuid> =
            moves.iter().map(|one| (one.subscription_id.clone(), one.to)).collect();
        moves.retain(|one| last.get(&one.subscription_id) == Some(&user));
        Moves(moves)
    }

    /// When a subscription left a former user for the last time, and the number of that move.
    fn left(&self, subscription_id: &str, user: Uuid) -> Option<(usize, Time)> {
        let moves = self.0.iter().filter(|one| one.subscription_id == subscription_id).enumerate();
        moves.filter(|(_, one)| one.from == user).last().map(|(number, one)| (number, one.moved_at))
    }
}

/// What a former user keeps of a grant, in one draw.
fn kept(row: &GrantRow) -> Draw {
    let at = row.held.available_from.unwrap_or_default();
    Draw {
        grant: row.key.clone(),
        recorded_at: Time::MIN_UTC,
        at,
        as_of: at,
        credits: row.held.kept.unwrap_or_default(),
        purpose: Purpose::Spend,
    }
}

/// A former user of a subscription that the account has now, and this user's grants of it.
pub(super) struct Former {
    pub(super) user: Uuid,
    subscription_id: String,
    /// When the subscription left.
    left_at: Time,
    pub(super) rows: Vec<GrantRow>,
}

/// Adds to a user's facts what former users of the subscriptions drew of them. Returns those users, in the order of
/// [`Facts::former`].
pub(super) fn add_former(sql: &mut Sql, moves: &Moves, facts: &mut Facts) -> Vec<Former> {
    let former = load(sql, moves, facts.horizon);
    facts.former = former.iter().map(|former| former.facts(sql)).collect();
    former
}

/// The same by what is recorded that they keep, in one draw of each grant.
pub(super) fn add_kept(sql: &mut Sql, moves: &Moves, facts: &mut Facts) -> Vec<Former> {
    let former = load(sql, moves, facts.horizon);
    let kept = former.iter().map(|former| FormerUser {
        draws: former.rows.iter().map(kept).filter(|draw| draw.credits > Credits::ZERO).collect(),
        payments: former.payments(sql),
    });
    facts.former = kept.collect();
    former
}

/// The former users of the account's subscriptions, with their grants from a horizon on; of each subscription, whom it left
/// first comes first.
fn load(sql: &mut Sql, moves: &Moves, horizon: Option<Time>) -> Vec<Former> {
    if moves.0.is_empty() {
        return Vec::new();
    }
    let mut ids: Vec<String> = moves.0.iter().map(|one| one.subscription_id.clone()).collect();
    ids.dedup();
    let mut former: BTreeMap<(String, usize), Former> = BTreeMap::new();
    for (user, subscription_id, row) in targets::of_former(sql, ids, horizon) {
        let Some((number, left_at)) = moves.left(&subscription_id, user) else { continue };
        let of_user = former.entry((subscription_id.clone(), number)).or_insert_with(|| Former {
            user,
            subscription_id,
            left_at,
            rows: Vec::new(),
        });
        of_user.rows.push(row);
    }
    former.into_values().collect()
}

impl Former {
    /// What they drew, for the rules.
    fn facts(&self, sql: &mut Sql) -> FormerUser {
        let grants: BTreeMap<i64, &GrantKey> = self.rows.iter().map(|row| (row.id, &row.key)).collect();
        let made_after = self.rows.iter().map(|row| row.made_after).min().unwrap_or_default();
        let mut draws: Vec<Draw> =
            draws::of_grants(sql, self.user, (made_after, Some(self.left_at)), &grants);
        for row in &self.rows {
            // What had moved between periods counts where it counted when the subscription left.
            let by_rows: i64 =
                draws.iter().filter(|draw| draw.grant == row.key).map(|draw| draw.credits.0).sum();
            let elsewhere = row.held.kept.unwrap_or_default().0 - by_rows;
            if elsewhere != 0 {
                draws.push(Draw { credits: Credits(elsewhere), ..kept(row) });
            }
        }
        FormerUser { draws, payments: self.payments(sql) }
    }

    /// The payments of the subscription, if a trial or a bonus left with it.
    fn payments(&self, sql: &mut Sql) -> Vec<String> {
        let came_with = |row: &GrantRow| matches!(row.key, GrantKey::Trial | GrantKey::FirstPurchaseBonus);
        if self.rows.iter().any(came_with) {
            ownership::payments(sql, &self.subscription_id)
        } else {
            Vec::new()
        }
    }

    /// The grants that change, by what they should hold now.
    pub(super) fn changes(
        &self,
        targets: &[&FormerTarget],
        cause: Cause,
    ) -> impl Iterator<Item = FormerChange> {
        self.rows.iter().filter_map(move |row| {
            let target = targets.iter().find(|target| target.key == row.key);
            let held = target.map_or_else(|| row.held.without_facts(), |target| row.held.kept_by(target));
            (held != row.held).then(|| FormerChange::new(self.user, row.clone(), held, cause))
        })
    }
}

/// What the grants of a subscription's periods, and of packs on its invoices, are worth in an account: as much may move, and
/// no more.
pub(super) fn worth(sql: &mut Sql, user: Uuid, subscription_id: &str) -> Credits {
    let payments = ownership::payments(sql, subscription_id);
    let mut row = sql.query_one(
        "select least(coalesce(sum(greatest(amount, 0)), 0), 9223372036854775807)::bigint from billing.credit_grants
         where user_id = $1 and moved_with is null and bought is null
             and (stripe_subscription_id = $2 or source_id = any ($3))",
        &[uuid_datum(user).into(), subscription_id.into(), payments.into()],
    );
    row.get()
}

/// Marks the grants that a subscription leaves behind: those of its periods, of packs on its invoices, and the trial or the
/// bonus that came with it, if something was drawn of that. Those that a former user has again are marked no more.
pub(super) fn mark(sql: &mut Sql, moved: &Move) {
    const MARK: &str = concat!(
        // What comes back to a period of which nothing is left ends with it. Older ones are not computed with the move.
        "update billing.credit_grants g set moved_with = $2, kept = greatest(g.drawn + g.moved, 0),
             (expires_at, priority_at) = (
                 select ends.at, least(g.priority_at, ends.at)
                 from (values (least(g.expires_at, case when g.remaining = 0 and g.pool = 'subscription' then
                     g.period_end end))) ends (at))
         where g.user_id = $1 and g.moved_with is null and (
             g.stripe_subscription_id = $2
             or g.stripe_subscription_id is null and g.bought is null and (
                 g.source_id = any ($3)
                 or g.drawn > 0 and (g.source_id, g.item) in ",
        once_per_user!(),
        " and exists (
                         select from billing.credit_transactions t
                         where t.user_id = g.user_id and t.grant_id = g.id and t.id > g.made_after
                             and t.stripe_invoice_id = any ($3))))"
    );
    let payments = ownership::payments(sql, &moved.subscription_id);
    sql.execute(
        MARK,
        &[uuid_datum(moved.from).into(), moved.subscription_id.as_str().into(), payments.into()],
    );
    sql.execute(
        "update billing.credit_grants set moved_with = null, kept = null where user_id = $1 and moved_with = $2",
        &[uuid_datum(moved.to).into(), moved.subscription_id.as_str().into()],
    );
}
