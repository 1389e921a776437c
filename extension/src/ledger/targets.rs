//! Posts the difference between what grants hold and what they should hold.

use std::collections::BTreeMap;

use pgrx::datum::{DatumWithOid, TimestampWithTimeZone};
use stripe_credits_rules::amount::Credits;
use stripe_credits_rules::calendar::Time;
use stripe_credits_rules::lot::Pool;
use stripe_credits_rules::reason::Reason;
use stripe_credits_rules::streams::facts::{GrantKey, Period, StreamKey};
use stripe_credits_rules::streams::{FormerTarget, State, Target};
use uuid::Uuid;

use super::{Account, Origin, TransactionType, earliest};
use crate::pg::convert::{timestamp, uuid_datum};
use crate::pg::sql::{Row, Sql};

/// What an operation is about: it decides the type of the ledger rows. Of several causes the last one here counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Cause {
    /// Time, a subscription's state, credits that were given back.
    Time,
    /// Something that was paid for.
    Payment,
    /// Money that came back, or did not come back after all.
    Reversal,
    /// A subscription that moves to another user.
    Move,
}

/// A grant as it is posted.
#[derive(Debug, Clone)]
pub(super) struct GrantRow {
    pub(super) id: i64,
    pub(super) key: GrantKey,
    pub(super) pool: Pool,
    pub(super) made_after: i64,
    pub(super) held: Held,
}

/// What a grant holds, and until when.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Held {
    pub(super) amount: i64,
    pub(super) drawn: Credits,
    moved: i64,
    remaining: i64,
    pending: i64,
    set_aside: i64,
    expired: i64,
    pub(super) owed: i64,
    /// Of a payment that depends on no other fact: what it bought, before money came back.
    pub(super) bought: Option<Credits>,
    /// Of a subscription that moved to another user: what was drawn by then.
    pub(super) kept: Option<Credits>,
    pub(super) available_from: Option<Time>,
    pub(super) expires_at: Option<Time>,
    priority_at: Option<Time>,
    closed_at: Option<Time>,
    needed_by: Option<Time>,
}

impl Held {
    /// What a grant should hold. What a settlement gave back to it after its time can be spent, so that it has no end
    /// then.
    fn of(target: &Target, bought: Option<Credits>, now: Time) -> Held {
        let pending = target.state == State::ToCome;
        let stays = !pending && target.remaining > Credits::ZERO;
        Held {
            amount: target.worth.0,
            drawn: target.drawn,
            moved: target.moved.0,
            remaining: if pending { 0 } else { target.remaining.0 },
            pending: if pending { target.remaining.0 } else { 0 },
            set_aside: target.set_aside.0,
            expired: target.expired.0,
            owed: target.owed.0,
            bought,
            kept: None,
            available_from: Some(target.available_from),
            expires_at: target.expires_at.filter(|at| !stays || *at > now),
            priority_at: target.priority_at,
            closed_at: target.closed_at,
            needed_by: target.needed_by,
        }
    }

    /// What a grant holds whose facts are gone, and from which nothing was drawn.
    fn nothing(&self) -> Held {
        Held { drawn: self.drawn, available_from: self.available_from, ..Held::default() }
    }

    /// What a grant holds whose subscription moved to another user. What came back to it since can be spent, or expired.
    pub(super) fn kept_by(&self, target: &FormerTarget) -> Held {
        let (amount, moved) = (target.worth.0, self.moved);
        let unspent = (amount - self.drawn.0 - moved).max(0);
        let expired = self.expired.min(unspent);
        let beyond = |worth: i64| (self.drawn.0 + moved - worth).max(0);
        let remaining = unspent - expired;
        let expires_at = if remaining > 0 { self.expires_at } else { target.expires_at };
        Held {
            amount,
            drawn: self.drawn,
            moved,
            remaining,
            expired,
            owed: beyond(amount).min(beyond(target.worth_unreversed.0)),
            kept: self.kept,
            available_from: self.available_from,
            expires_at,
            priority_at: expires_at,
            ..Held::default()
        }
    }

    /// What such a grant holds if nothing was drawn of it, or if no fact of the other user's is about it.
    pub(super) fn without_facts(&self) -> Held {
        let kept = self.kept.unwrap_or_default().0;
        let amount = self.amount.clamp(0, kept);
        let unspent = (amount - self.drawn.0 - self.moved).max(0);
        let expired = self.expired.min(unspent);
        let (remaining, pending, set_aside) = (unspent - expired, 0, 0);
        Held {
            amount,
            remaining,
            pending,
            set_aside,
            expired,
            closed_at: None,
            needed_by: None,
            ..self.clone()
        }
    }

    /// Until when something else may depend on a grant: at its end or later, when nothing of it is left, and as long as it is
    /// needed. `None`: it is no period's, nor the trial.
    fn matters_until(&self, key: &GrantKey, pool: Pool) -> Option<TimestampWithTimeZone> {
        let end = match key {
            GrantKey::Period { period, .. } => period.end,
            GrantKey::Trial => self.expires_at.or(self.available_from)?,
            _ => return None,
        };
        // Nothing sets aside what was bought for good, so such a period is closed when it is over.
        let closed_at = self.closed_at.or((pool == Pool::Purchased).then_some(end));
        let until = [Some(end), closed_at, self.needed_by].into_iter().flatten().max();
        let until = until.filter(|_| closed_at.is_some()).map(timestamp);
        Some(until.unwrap_or_else(TimestampWithTimeZone::positive_infinity))
    }

    /// The values of `held_columns!`, for the places of `held_values!`.
    fn args<'a>(&self, key: &GrantKey, pool: Pool) -> Vec<DatumWithOid<'a>> {
        vec![
            self.amount.into(),
            self.moved.into(),
            self.remaining.into(),
            self.pending.into(),
            self.set_aside.into(),
            self.expired.into(),
            self.owed.into(),
            self.bought.map(|bought| bought.0).into(),
            self.kept.map(|kept| kept.0).into(),
            self.available_from.map(timestamp).into(),
            self.expires_at.map(timestamp).into(),
            self.priority_at.map(timestamp).into(),
            self.closed_at.map(timestamp).into(),
            self.needed_by.map(timestamp).into(),
            self.matters_until(key, pool).into(),
        ]
    }

    /// What could be spent of it, sooner or later, if nothing were set aside and nothing expired.
    fn unspent(&self) -> i64 {
        (self.amount - self.drawn.0 - self.moved).max(0)
    }

    /// The rows that lead from what a grant held to this: how many credits, and why.
    fn rows_since(&self, before: &Held, pool: Pool, cause: Cause) -> Vec<(i64, TransactionType)> {
        if cause == Cause::Move {
            let moved = (self.remaining - before.remaining, TransactionType::Transfer);
            return [moved].into_iter().filter(|(credits, _)| *credits != 0).collect();
        }
        let moved = Held { moved: self.moved, ..before.clone() };
        let transfer = moved.unspent() - before.unspent();
        // What became spendable: because it was paid for, or because its time came.
        let come = self.unspent() - moved.unspent() - (self.pending - before.pending);
        let come_type = match (come > 0, cause) {
            (false, _) => TransactionType::Reversal,
            (true, Cause::Reversal) => TransactionType::Reinstatement,
            (true, _) => match pool {
                Pool::Subscription => TransactionType::SubscriptionGrant,
                Pool::Purchased => TransactionType::Purchase,
                Pool::Promotional => TransactionType::Bonus,
            },
        };
        let aside = before.set_aside - self.set_aside;
        let aside_type = if aside > 0 { TransactionType::Restore } else { TransactionType::SetAside };
        let expired = before.expired - self.expired;
        let expired_type = if expired > 0 { TransactionType::Restore } else { TransactionType::Expiry };
        let rows = [
            (come, come_type),
            (transfer, TransactionType::Transfer),
            (aside, aside_type),
            (expired, expired_type),
        ];
        rows.into_iter().filter(|(credits, _)| *credits != 0).collect()
    }
}

/// A grant of a former user that changes.
pub(super) struct FormerChange {
    pub(super) user: Uuid,
    row: GrantRow,
    held: Held,
    rows: Vec<(i64, TransactionType)>,
}

impl FormerChange {
    pub(super) fn new(user: Uuid, row: GrantRow, held: Held, cause: Cause) -> FormerChange {
        let rows = held.rows_since(&row.held, row.pool, cause);
        FormerChange { user, row, held, rows }
    }

    fn added(&self) -> i128 {
        added(&self.rows)
    }
}

/// The columns that say what a grant holds.
macro_rules! held_columns {
    () => {
        "amount, moved, remaining, pending, set_aside, expired, owed, bought, kept, available_from, expires_at, priority_at, \
         closed_at, needed_by, matters_until, spendable"
    };
}

/// Their values, of which [`Held::args`] are the first arguments of a statement.
macro_rules! held_values {
    () => {
        "$1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $3 > 0"
    };
}

/// The columns that [`grant_row`] reads, in its order.
macro_rules! columns {
    () => {
        "id, source_id, item, pool, stripe_subscription_id, stripe_item_id, period_start, period_end, part_start, \
         made_after, amount, drawn, moved, remaining, pending, set_aside, expired, owed, bought, kept, available_from, \
         expires_at, priority_at, closed_at, needed_by"
    };
}

fn grant_row(mut row: Row) -> GrantRow {
    let id = row.get();
    let (source_id, item): (String, String) = (row.get(), row.get());
    let pool = row.parse(Pool::parse);
    let subscription: Option<String> = row.get_opt();
    let stripe_item: Option<String> = row.get_opt();
    let period: (Option<Time>, Option<Time>) = (row.get_opt(), row.get_opt());
    let part = row.get_opt();
    let key = match (subscription, period) {
        (Some(subscription), (Some(start), Some(end))) => GrantKey::Period {
            stream: StreamKey { subscription, item: stripe_item },
            period: Period { start, end },
            part,
            pool,
        },
        _ => [GrantKey::Trial, GrantKey::FirstPurchaseBonus]
            .into_iter()
            .find(|key| key.source_id() == source_id && key.item() == item)
            .unwrap_or(GrantKey::Single { source_id, item }),
    };
    GrantRow {
        id,
        key,
        pool,
        made_after: row.get(),
        held: Held {
            amount: row.get(),
            drawn: row.get(),
            moved: row.get(),
            remaining: row.get(),
            pending: row.get(),
            set_aside: row.get(),
            expired: row.get(),
            owed: row.get(),
            bought: row.get_opt(),
            kept: row.get_opt(),
            available_from: row.get_opt(),
            expires_at: row.get_opt(),
            priority_at: row.get_opt(),
            closed_at: row.get_opt(),
            needed_by: row.get_opt(),
        },
    }
}

/// The grants of a user's periods that start at the horizon or later, the trial if it does too, the first purchase's bonus, and
/// the packs that these payments sold beside plans.
pub(super) fn of_periods(
    sql: &mut Sql,
    user: Uuid,
    horizon: Option<Time>,
    payments: Vec<String>,
) -> Vec<GrantRow> {
    const OF_PERIODS: &str = concat!(
        "select ",
        columns!(),
        " from billing.credit_grants
         where user_id = $1 and matters_until >= $2 and period_start >= $2
             and stripe_subscription_id is not null and moved_with is null
         union all
         select ",
        columns!(),
        // One payment after the other: of all at once, the planner would rather read all grants of the user.
        " from unnest($3) as paid (payment)
         cross join lateral (
             select * from billing.credit_grants
             where user_id = $1 and source_id = paid.payment and stripe_subscription_id is null
                 and ((source_id, item) <> ",
        trial!(),
        " or available_from >= $2) offset 0) g
         order by id"
    );
    let horizon = horizon.map_or_else(TimestampWithTimeZone::negative_infinity, timestamp);
    let mut sources = payments;
    sources.extend([GrantKey::Trial, GrantKey::FirstPurchaseBonus].map(|key| key.source_id().to_owned()));
    sql.query(OF_PERIODS, &[uuid_datum(user).into(), horizon.into(), sources.into()]).map(grant_row).collect()
}

/// The grants that subscriptions left behind with their former users, with the user and the subscription, as [`of_periods`].
pub(super) fn of_former(
    sql: &mut Sql,
    subscription_ids: Vec<String>,
    horizon: Option<Time>,
) -> Vec<(Uuid, String, GrantRow)> {
    const OF_FORMER: &str = concat!(
        "select user_id, moved_with, ",
        columns!(),
        " from billing.credit_grants
         where moved_with = any ($1) and (
             $2::timestamptz is null or period_start >= $2
             or period_start is null and ((source_id, item) <> ",
        trial!(),
        " or available_from >= $2))
         order by user_id, id"
    );
    let rows = sql.query(OF_FORMER, &[subscription_ids.into(), horizon.map(timestamp).into()]);
    rows.map(|mut row| (row.get(), row.get(), grant_row(row))).collect()
}

/// The grants of one payment that depend on no other fact.
pub(super) fn of_payment(sql: &mut Sql, user: Uuid, source_id: &str) -> Vec<GrantRow> {
    const OF_PAYMENT: &str = concat!(
        "select ",
        columns!(),
        " from billing.credit_grants where user_id = $1 and source_id = $2 and bought is not null order by id"
    );
    sql.query(OF_PAYMENT, &[uuid_datum(user).into(), source_id.into()]).map(grant_row).collect()
}

/// A ledger row to append to a grant.
struct Movement {
    credits: i64,
    transaction_type: TransactionType,
    grant_id: i64,
    pool: Pool,
    description: Option<String>,
    invoice_id: Option<String>,
}

/// The invoice that was paid last of those that a period's grant counts.
fn paid_by(target: &Target) -> Option<String> {
    let is_single = matches!(target.key, GrantKey::Single { .. });
    target.payments.last().filter(|_| !is_single).cloned()
}

/// One grant that changes. It is built once: what is checked to fit is what is posted.
pub(super) struct Change {
    /// As it is; `None`: it is to be made.
    row: Option<GrantRow>,
    /// What it should hold; `None` if its facts are gone.
    target: Option<Target>,
    held: Held,
    /// The ledger rows that lead there.
    rows: Vec<(i64, TransactionType)>,
}

impl Change {
    /// The rows that lead there, for a cause.
    fn new(row: Option<GrantRow>, target: Option<Target>, pool: Pool, held: Held, cause: Cause) -> Change {
        let nothing = Held::default();
        let before = row.as_ref().map_or(&nothing, |row| &row.held);
        let rows = held.rows_since(before, pool, cause);
        Change { row, target, held, rows }
    }

    /// The credits that are added, whatever is taken after that.
    fn added(&self) -> i128 {
        added(&self.rows)
    }
}

/// The sum of the rows that add credits.
fn added(rows: &[(i64, TransactionType)]) -> i128 {
    rows.iter().map(|(credits, _)| i128::from((*credits).max(0))).sum()
}

/// The grants that change, by what they hold and what they should hold. A target without a grant is a grant to make. `bought`
/// says what a payment that depends on no other fact bought, and `cause` what changes a grant.
pub(super) fn changes(
    rows: Vec<GrantRow>,
    targets: Vec<Target>,
    now: Time,
    bought: &dyn Fn(&GrantKey) -> Option<Credits>,
    cause: &dyn Fn(&GrantKey) -> Cause,
) -> Vec<Change> {
    let mut wanted: BTreeMap<GrantKey, Target> =
        targets.into_iter().map(|target| (target.key.clone(), target)).collect();
    let mut changes = Vec::new();
    for row in rows {
        let target = wanted.remove(&row.key);
        let bought = bought(&row.key).or(row.held.bought);
        let held = target.as_ref().map_or_else(|| row.held.nothing(), |target| Held::of(target, bought, now));
        if held != row.held {
            let (pool, cause) = (row.pool, cause(&row.key));
            changes.push(Change::new(Some(row), target, pool, held, cause));
        }
    }
    // What was bought is kept although all of it came back before: the money may turn out to have stayed.
    let is_bought = |target: &Target| bought(&target.key).is_some_and(|bought| bought > Credits::ZERO);
    let is_something = |target: &Target| {
        let counts = [target.worth, target.kept, target.moved];
        counts.iter().any(|credits| *credits != Credits::ZERO) || is_bought(target)
    };
    for target in wanted.into_values().filter(is_something) {
        let held = Held::of(&target, bought(&target.key), now);
        let (pool, cause) = (target.pool, cause(&target.key));
        changes.push(Change::new(None, Some(target), pool, held, cause));
    }
    changes
}

impl Account {
    /// Checks that the account can hold what these changes add, its own and those of grants that subscriptions left behind here.
    /// Rows that add come first, so that what is taken makes no room for them.
    ///
    /// # Errors
    /// [`Reason::OutOfRange`] if that would be more than a bigint.
    pub(super) fn check_fits<'a>(
        &self,
        sql: &mut Sql,
        changes: &[Change],
        of_former: impl Iterator<Item = &'a FormerChange>,
    ) -> Result<(), Reason> {
        let added: i128 = changes.iter().map(Change::added).chain(of_former.map(FormerChange::added)).sum();
        if added > 0 && added > i128::from(self.room(sql).0) { Err(Reason::OutOfRange) } else { Ok(()) }
    }

    /// Makes each grant hold its target, created if it is missing, and appends the rows: what comes, then what goes. The caller
    /// checked that the changes fit; `name` describes a row that adds to a grant.
    pub(super) fn post_changes(
        &mut self,
        sql: &mut Sql,
        changes: Vec<Change>,
        name: &dyn Fn(&Target) -> Option<String>,
        origin: &Origin,
    ) {
        let nothing = Held::default();
        let mut movements = Vec::new();
        for Change { row, target, held, rows } in changes {
            let (row, target) = (row.as_ref(), target.as_ref());
            let (grant_id, pool) = match (row, target) {
                (Some(row), _) => {
                    self.update_grant(sql, row, &held);
                    (row.id, row.pool)
                }
                (None, Some(target)) => (self.insert_grant(sql, target, &held), target.pool),
                (None, None) => continue,
            };
            let before = row.map_or(&nothing, |row| &row.held);
            self.is_owed_changed |= held.owed != before.owed;
            let description = target.and_then(name);
            let invoice_id = target.and_then(paid_by);
            movements.extend(rows.into_iter().map(|(credits, transaction_type)| Movement {
                credits,
                transaction_type,
                grant_id,
                pool,
                description: description.clone().filter(|_| credits > 0),
                invoice_id: invoice_id.clone(),
            }));
        }
        movements.sort_by_key(|movement| movement.credits < 0);
        for movement in movements {
            let description = origin.description.or(movement.description.as_deref());
            // What time alone causes is of the payment that was made for it last.
            let invoice_id = origin.invoice_id.or(movement.invoice_id.as_deref());
            let origin = Origin { description, invoice_id, ..*origin };
            let grant = Some((movement.grant_id, movement.pool));
            self.post(sql, Credits(movement.credits), grant, movement.transaction_type, &origin);
        }
    }

    /// Makes a grant that a subscription left behind hold what is left to its former user, and appends the rows. The caller
    /// checked that they fit.
    pub(super) fn post_former(&mut self, sql: &mut Sql, change: &FormerChange, origin: &Origin) {
        let FormerChange { row, held, rows, .. } = change;
        self.update_grant(sql, row, held);
        self.is_owed_changed |= held.owed != row.held.owed;
        for (credits, transaction_type) in rows {
            self.post(sql, Credits(*credits), Some((row.id, row.pool)), *transaction_type, origin);
        }
        self.next_due = earliest(self.next_due, held.expires_at.filter(|_| held.remaining > 0));
    }

    fn update_grant(&mut self, sql: &mut Sql, row: &GrantRow, held: &Held) {
        const UPDATE: &str = concat!(
            "update billing.credit_grants set (",
            held_columns!(),
            ") = (",
            held_values!(),
            ") where user_id = $16 and id = $17"
        );
        let mut args = held.args(&row.key, row.pool);
        args.extend([uuid_datum(self.user).into(), row.id.into()]);
        sql.execute(UPDATE, &args);
        self.dirty = true;
    }

    fn insert_grant(&mut self, sql: &mut Sql, target: &Target, held: &Held) -> i64 {
        const INSERT: &str = concat!(
            "insert into billing.credit_grants (",
            held_columns!(),
            ", user_id, id, source_id, item, pool, draw_rank, drawn, stripe_subscription_id, stripe_item_id, period_start,
                 period_end, part_start, made_after, created_at)
             values (",
            held_values!(),
            ", $16, $17, $18, $19, $20, $21, 0, $22, $23, $24, $25, $26, $27, $28)"
        );
        self.last_grant_id += 1;
        self.dirty = true;
        let (stream, period, part) = match &target.key {
            GrantKey::Period { stream, period, part, .. } => (Some(stream), Some(*period), *part),
            _ => (None, None, None),
        };
        let mut args = held.args(&target.key, target.pool);
        args.extend([
            uuid_datum(self.user).into(),
            self.last_grant_id.into(),
            target.key.source_id().into(),
            target.key.item().into(),
            target.pool.as_str().into(),
            target.pool.draw_rank().into(),
            stream.map(|stream| stream.subscription.as_str()).into(),
            stream.and_then(|stream| stream.item.as_deref()).into(),
            period.map(|period| timestamp(period.start)).into(),
            period.map(|period| timestamp(period.end)).into(),
            part.map(timestamp).into(),
            self.last_transaction_id.into(),
            timestamp(self.now).into(),
        ]);
        sql.execute(INSERT, &args);
        self.last_grant_id
    }
}
