//! Tables `accounts`, `credit_grants` and `credit_transactions`, which only this module writes.
//!
//! An operation opens the account, which locks its row and posts what is due by now; posts its own differences; and closes
//! the account. After every commit, Σ ledger = Σ grants' remaining − debt = cached balance (rule 14).

/// The `source_id` and the `item` of a user's trial as SQL; in the rules it is `GrantKey::Trial`.
macro_rules! trial {
    () => {
        "('trial', 'trial')"
    };
}

/// The same of all grants that a user has once: `GrantKey::Trial` and `GrantKey::FirstPurchaseBonus`.
macro_rules! once_per_user {
    () => {
        concat!("(", trial!(), ", ('first_purchase_bonus', 'first_purchase_bonus'))")
    };
}

mod accounts; // several accounts of one operation
mod time; // what time alone causes: expiries, parts of a period, months of the free plan, ended reservations
mod purchase; // one payment's credits that depend on no other fact
mod streams; // plan credits, as one function of all facts
mod moves; // what former users of its subscriptions had drawn
mod facts; // the facts that they are computed from
mod targets; // the difference between what grants hold and what they should hold
mod debt; // what was drawn beyond worth
mod draws; // spends and reservations
mod audit; // what the books should hold by all facts
mod saving; // the account's row, written
mod telling; // what an operation tells the app
mod top_ups; // the pack that a draw requests
mod chain; // the hash of each ledger row

use pgrx::PgSqlErrorCode;
use serde_json::{Value, json};
use stripe_credits_rules::amount::Credits;
use stripe_credits_rules::calendar::{Time, TimeDelta};
use stripe_credits_rules::draw::Share;
use stripe_credits_rules::lot::{NewGrant, Pool};
use stripe_credits_rules::reason::Reason;
use stripe_credits_rules::subscription::FREE;
use stripe_credits_rules::top_up::Switch;
use stripe_credits_rules::verdict::Verdict;
use uuid::Uuid;

use crate::outcome::{Balances, Outcome};
pub(crate) use accounts::{Accounts, lock};
pub(crate) use audit::worth_faults;
pub(crate) use chain::chain_faults;
use chain::{LedgerRow, RowHash};
pub(crate) use purchase::{Bought, came_back};
use saving::Standing;
pub(crate) use targets::Cause;
use telling::Telling;
pub(crate) use telling::{tell_expiring, tell_of_payment};
pub(crate) use top_ups::told_top_up;

use crate::pg::convert::{clock, timestamp, uuid_datum};
use crate::pg::error::raise;
use crate::pg::json::Json;
use crate::pg::sql::{Row, Sql};
use crate::tables::{reservations, test_clocks};

/// The kind of a ledger row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TransactionType {
    Purchase,
    SubscriptionGrant,
    Signup,
    Bonus,
    Grant,
    Spend,
    Reservation,
    Release,
    Expiry,
    SetAside,
    Restore,
    Reversal,
    Reinstatement,
    DebtSettlement,
    Transfer,
    SpendRefund,
    Adjustment,
    Import,
}

impl TransactionType {
    /// The kinds of rows that a request of the app makes, each under a request id of its own.
    const REQUESTED: [TransactionType; 4] = [
        TransactionType::Spend,
        TransactionType::Reservation,
        TransactionType::SpendRefund,
        TransactionType::Adjustment,
    ];

    fn parse_requested(text: &str) -> Option<TransactionType> {
        TransactionType::REQUESTED.into_iter().find(|requested| requested.as_str() == text)
    }

    fn as_str(self) -> &'static str {
        match self {
            TransactionType::Purchase => "purchase",
            TransactionType::SubscriptionGrant => "subscription_grant",
            TransactionType::Signup => "signup",
            TransactionType::Bonus => "bonus",
            TransactionType::Grant => "grant",
            TransactionType::Spend => "spend",
            TransactionType::Reservation => "reservation",
            TransactionType::Release => "release",
            TransactionType::Expiry => "expiry",
            TransactionType::SetAside => "set_aside",
            TransactionType::Restore => "restore",
            TransactionType::Reversal => "reversal",
            TransactionType::Reinstatement => "reinstatement",
            TransactionType::DebtSettlement => "debt_settlement",
            TransactionType::Transfer => "transfer",
            TransactionType::SpendRefund => "spend_refund",
            TransactionType::Adjustment => "adjustment",
            TransactionType::Import => "import",
        }
    }
}

/// What caused a ledger row.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Origin<'a> {
    pub(crate) description: Option<&'a str>,
    pub(crate) event_id: Option<&'a str>,
    pub(crate) session_id: Option<&'a str>,
    pub(crate) invoice_id: Option<&'a str>,
    pub(crate) payment_intent_id: Option<&'a str>,
    pub(crate) request_id: Option<&'a str>,
    pub(crate) metadata: Option<Json>,
}

/// An account under its lock.
pub(crate) struct Account {
    user: Uuid,
    /// The time of the operation: the clock is read once, after the lock is taken. While what was due is posted, its time.
    now: Time,
    /// The test clock of Stripe that it lives by instead of the database's (rule 16).
    test_clock: Option<String>,
    /// The time of the last row: rows are in the order of their times.
    posted_at: Time,
    balances: Balances,
    signed_up_at: Option<Time>,
    /// The start of the free plan's next month that is not granted yet.
    free_next: Option<Time>,
    /// When time alone may next change what the periods of subscriptions hold.
    periods_next: Option<Time>,
    /// What time will set aside of periods: reads count it before it is posted.
    to_set_aside: Option<Value>,
    next_due: Option<Time>,
    last_grant_id: i64,
    last_transaction_id: i64,
    /// When the last ledger row was recorded, or this operation began: the order of what becomes known and of the ledger rows of
    /// all accounts. It only rises, whatever the clock does.
    recorded_at: Time,
    last_outbox_id: i64,
    /// Of the last ledger row; empty before the first.
    last_hash: RowHash,
    /// The id of this operation's first row.
    operation_id: i64,
    /// Σ remaining − debt before this operation.
    opened_with: Credits,
    postings: Vec<Value>,
    /// What the app is told when the account is saved.
    telling: Telling,
    /// Whether packs are bought for the user by auto top-up.
    tops_up: bool,
    /// The credits that could be spent when the account was saved last.
    saved_available: Credits,
    dirty: bool,
    /// As it was saved last.
    saved: Standing,
    /// What became known or due that may change what periods hold, and is not computed yet.
    touched: Option<streams::Touch>,
    /// The subscription that is moving to the account or from it.
    moving: Option<String>,
    /// Whether what the grants owe may have changed.
    is_owed_changed: bool,
    /// The own time of what became known, if that is earlier than now.
    learned_as_of: Option<Time>,
}

/// Something that is wrong in the books.
pub(crate) struct Fault {
    pub(crate) user: Uuid,
    /// The id of the grant or the ledger row; 0 if there is none.
    pub(crate) place: i64,
    pub(crate) text: String,
}

/// What a repeated request is compared with.
#[derive(PartialEq, Eq)]
pub(crate) struct Granted {
    pub(crate) pool: Pool,
    pub(crate) amount: Credits,
    pub(crate) expires_at: Option<Time>,
}

/// What a request of the app did, when it was made before.
pub(crate) struct Requested {
    pub(crate) transaction_type: TransactionType,
    /// The sum of its ledger rows: below 0 if it drew.
    pub(crate) credits: Credits,
    /// The spend that it gave back, if it is a refund.
    pub(crate) spend_request_id: Option<String>,
}

/// Posts what is due in a user's account, if anything is.
pub(crate) fn settle_due(sql: &mut Sql, user: Uuid) {
    let due =
        "select from billing.accounts where user_id = $1 and next_due_at <= billing.account_time(test_clock)";
    if sql.query_opt(due, &[uuid_datum(user).into()]).is_some() {
        settle(sql, user);
    }
}

/// Posts what is due in up to `limit` accounts. Returns in how many. Gives a new version to as many accounts of which the read
/// model changed without them; these are not counted.
pub(crate) fn run_due(sql: &mut Sql, limit: i64) -> usize {
    renew_versions(sql, limit);
    let users = due(sql, limit);
    for user in &users {
        settle(sql, *user);
    }
    users.len()
}

/// Works off `read_changes`, except of accounts that are busy now.
fn renew_versions(sql: &mut Sql, limit: i64) {
    if sql.query_opt("select from billing.read_changes limit 1", &[]).is_none() {
        return;
    }
    sql.execute(
        "with locked as (
             select c.user_id, c.id from billing.read_changes c join billing.accounts a using (user_id)
             order by a.user_id limit $1 for update of a, c skip locked
         ), renewed as (
             update billing.accounts a set version = a.version + 1,
                 mirror_due_since = coalesce(a.mirror_due_since, $2)
             where a.user_id in (select l.user_id from locked l)
         )
         delete from billing.read_changes c where (c.user_id, c.id) in (select l.user_id, l.id from locked l)
             -- An account that is made later is not mirrored yet.
             or not exists (select from billing.accounts a where a.user_id = c.user_id)",
        &[limit.into(), timestamp(clock()).into()],
    );
}

/// Opening an account posts what is due, and there is nothing else to post.
fn settle(sql: &mut Sql, user: Uuid) {
    let _ = Account::open_existing(sql, user);
}

fn locked(sql: &mut Sql, user: Uuid) -> Option<Account> {
    let mut row = sql.query_opt(
        "select subscription_credits, purchased_credits, promotional_credits, debt, tier, subscription_status,
                signed_up_at, free_next_at, periods_next_at, next_due_at, last_grant_id, last_transaction_id, last_hash,
                updated_at, test_clock, to_set_aside, last_outbox_id, auto_top_up, last_recorded_at
         from billing.accounts where user_id = $1 for update",
        &[uuid_datum(user).into()],
    )?;
    let now = clock();
    let mut account = Account {
        user,
        now,
        balances: read_balances(&mut row),
        signed_up_at: row.get_opt(),
        free_next: row.get_opt(),
        periods_next: row.get_opt(),
        next_due: row.get_opt(),
        last_grant_id: row.get(),
        last_transaction_id: row.get(),
        last_hash: row.get(),
        posted_at: row.get(),
        test_clock: row.get_opt(),
        to_set_aside: row.get_opt::<Json>().map(Json::value),
        last_outbox_id: row.get(),
        tops_up: row.get::<String>() == Switch::On.as_str(),
        recorded_at: now.max(row.get()),
        operation_id: 0,
        opened_with: Credits::ZERO,
        postings: Vec::new(),
        telling: Telling::default(),
        saved_available: Credits::ZERO,
        dirty: false,
        saved: Standing::default(),
        touched: None,
        moving: None,
        is_owed_changed: false,
        learned_as_of: None,
    };
    if let Some(clock_id) = &account.test_clock {
        account.now = test_clocks::time(sql, clock_id).unwrap_or(account.now);
    }
    (account.saved, account.saved_available) = (account.standing(), account.available());
    Some(account)
}

/// A user's balances now, read without the lock; `None` without an account.
pub(crate) fn balances(sql: &mut Sql, user: Uuid) -> Option<Balances> {
    sql.query_opt(
        "select subscription_credits_balance, purchased_credits_balance, promotional_credits_balance, debt,
                subscription_tier, subscription_status
         from billing.user_credits where user_id = $1",
        &[uuid_datum(user).into()],
    )
    .map(|mut row| read_balances(&mut row))
}

/// Reads the pools, the debt, the tier and the status.
fn read_balances(row: &mut Row) -> Balances {
    Balances {
        subscription: row.get(),
        purchased: row.get(),
        promotional: row.get(),
        debt: row.get(),
        tier: row.get(),
        subscription_status: row.get(),
    }
}

/// Whether another transaction holds the account's lock now.
pub(crate) fn is_busy(sql: &mut Sql, user: Uuid) -> bool {
    let exists = "select from billing.accounts where user_id = $1";
    let free = "select from billing.accounts where user_id = $1 for update skip locked";
    let user = [uuid_datum(user).into()];
    sql.query_opt(exists, &user).is_some() && sql.query_opt(free, &user).is_none()
}

/// Whether anybody has an account.
pub(crate) fn has_accounts(sql: &mut Sql) -> bool {
    sql.query_opt("select from billing.accounts limit 1", &[]).is_some()
}

/// Locks up to `limit` accounts that are due, in the order of their users, and skips those that are busy.
fn due(sql: &mut Sql, limit: i64) -> Vec<Uuid> {
    let rows = sql.query(
        "select user_id from billing.accounts
         where next_due_at <= $1 and test_clock is null
             or test_clock is not null and next_due_at <= billing.account_time(test_clock)
         order by user_id limit $2 for update skip locked",
        &[timestamp(clock()).into(), limit.into()],
    );
    rows.map(|mut row| row.get()).collect()
}

/// Starts the months of a free plan that is new since a time, for those of the users who had signed up by then: with the month
/// that was under way, unless it was granted before. Returns the users whose accounts are busy.
pub(crate) fn start_free_plan(sql: &mut Sql, users: &[Uuid], since: Time) -> Vec<Uuid> {
    let users: Vec<pgrx::Uuid> = users.iter().copied().map(uuid_datum).collect();
    let rows = sql.query(
        "with free as (
             select user_id, signed_up_at from billing.accounts where user_id = any ($1) for update skip locked
         ), started as (
             update billing.accounts a set free_next_at = m.start, next_due_at = least(a.next_due_at, m.start)
             from free cross join billing.free_plan() f cross join lateral (
                 select max(free.signed_up_at + n * f.every) as start
                 -- Months are longer than 28 of the 30 days that an interval's epoch counts.
                 from generate_series(0, ceil(
                     extract(epoch from $2 - free.signed_up_at) / extract(epoch from f.every) * 30 / 28)::integer) n
                 where free.signed_up_at + n * f.every <= $2
             ) m
             where a.user_id = free.user_id and m.start is not null
         )
         select u.user_id from unnest($1) u (user_id) where u.user_id not in (select free.user_id from free)",
        &[users.into(), timestamp(since).into()],
    );
    rows.map(|mut row| row.get()).collect()
}

/// Recomputes the cached balances from the grants and the ledger. Returns the balance: Σ remaining − debt.
pub(crate) fn sync(sql: &mut Sql, user: Uuid) -> Credits {
    let account = Account::open(sql, user);
    let mut row = sql.query_one(
        "update billing.accounts a set
             (subscription_credits, purchased_credits, promotional_credits) = (
                 select coalesce(sum(g.remaining) filter (where g.pool = 'subscription'), 0),
                     coalesce(sum(g.remaining) filter (where g.pool = 'purchased'), 0),
                     coalesce(sum(g.remaining) filter (where g.pool = 'promotional'), 0)
                 from billing.credit_grants g where g.user_id = a.user_id),
             last_grant_id = greatest(a.last_grant_id,
                 (select max(g.id) from billing.credit_grants g where g.user_id = a.user_id)),
             (last_transaction_id, last_hash) = (
                 select l.id, l.hash
                 from (
                     select t.id, t.hash from billing.credit_transactions t where t.user_id = a.user_id
                     union all
                     select greatest(a.last_transaction_id, $3), a.last_hash
                 ) l
                 order by l.id desc limit 1),
             last_recorded_at = greatest(a.last_recorded_at,
                 (select max(t.recorded_at) from billing.credit_transactions t where t.user_id = a.user_id)),
             last_outbox_id = greatest(a.last_outbox_id,
                 (select max(o.id) from billing.outbox o where o.user_id = a.user_id),
                 (select max(t.id) from billing.top_ups t where t.user_id = a.user_id)),
             debt = greatest(0,
                 (select coalesce(sum(g.remaining), 0) from billing.credit_grants g where g.user_id = a.user_id)
                 - (select coalesce(sum(t.amount), 0) from billing.credit_transactions t where t.user_id = a.user_id)),
             next_due_at = least(
                 (select min(g.expires_at) from billing.credit_grants g where g.user_id = a.user_id and g.spendable),
                 a.periods_next_at, a.free_next_at,
                 (select min(r.expires_at) from billing.reservations r
                  where r.user_id = a.user_id and r.status = 'held')),
             version = a.version + 1, updated_at = $2,
             mirror_due_since = coalesce(a.mirror_due_since, $4)
         where a.user_id = $1
         returning subscription_credits + purchased_credits + promotional_credits - debt",
        &[
            uuid_datum(user).into(),
            timestamp(account.now).into(),
            account.last_transaction_id.into(),
            timestamp(clock()).into(),
        ],
    );
    row.get()
}

impl Account {
    /// Locks a user's account, created if it is missing, and posts what is due.
    #[must_use = "an account that is posted to has to be closed"]
    pub(crate) fn open(sql: &mut Sql, user: Uuid) -> Account {
        Account::open_existing(sql, user).unwrap_or_else(|| {
            sql.execute(
                "insert into billing.accounts (user_id, created_at, updated_at) values ($1, $2, $2)
                 on conflict (user_id) do nothing",
                &[uuid_datum(user).into(), timestamp(clock()).into()],
            );
            Account::open_existing(sql, user)
                .expect("the account was made just now, and accounts are never deleted")
        })
    }

    /// The same for an operation that creates no account.
    #[must_use = "an account that is posted to has to be closed"]
    pub(crate) fn open_existing(sql: &mut Sql, user: Uuid) -> Option<Account> {
        let mut account = locked(sql, user)?;
        account.settle_time(sql);
        account.settle_debt(sql);
        // Saved at once, so that a caller that posts nothing may drop the account.
        account.save(sql);
        account.operation_id = account.last_transaction_id + 1;
        account.opened_with = account.total();
        account.postings.clear();
        Some(account)
    }

    pub(crate) fn now(&self) -> Time {
        self.now
    }

    pub(crate) fn user(&self) -> Uuid {
        self.user
    }

    /// Lets the account live by a test clock, from now on, and posts what is due by it. Returns whether it lived by another or
    /// by none.
    pub(crate) fn live_by(&mut self, sql: &mut Sql, clock_id: &str) -> bool {
        let is_other = self.test_clock.as_deref() != Some(clock_id);
        if is_other {
            self.test_clock = Some(clock_id.to_owned());
            self.posted_at = Time::UNIX_EPOCH;
            self.dirty = true;
        }
        self.now = test_clocks::time(sql, clock_id).unwrap_or(self.now);
        self.settle_time(sql);
        is_other
    }

    /// Records the own time of what becomes known: a debt that it undoes is none as of then.
    pub(crate) fn learn_as_of(&mut self, at: Time) {
        self.learned_as_of = Some(at).filter(|at| *at < self.now);
    }

    /// The same of an event about money that came back: its time is Stripe's own, which no test clock knows.
    pub(crate) fn learn_as_of_event(&mut self, created: Time) {
        if self.test_clock.is_none() {
            self.learn_as_of(created);
        }
    }

    /// A grant, if it was made before.
    pub(crate) fn find_grant(&self, sql: &mut Sql, source_id: &str, item: &str) -> Option<Granted> {
        sql.query_opt(
            "select pool, amount, expires_at from billing.credit_grants
             where user_id = $1 and source_id = $2 and item = $3",
            &[uuid_datum(self.user).into(), source_id.into(), item.into()],
        )
        .map(|mut row| Granted {
            pool: row.parse(Pool::parse),
            amount: row.get(),
            expires_at: row.get_opt(),
        })
    }

    /// Whether this operation has posted anything.
    pub(crate) fn is_changed(&self) -> bool {
        !self.postings.is_empty()
    }

    /// Records that the user signed up; `false` if that was recorded before.
    pub(crate) fn sign_up(&mut self) -> bool {
        if self.signed_up_at.is_some() {
            return false;
        }
        self.signed_up_at = Some(self.now);
        self.free_next = Some(self.now);
        self.due_at(self.now);
        true
    }

    /// Sets tier and status by the user's subscriptions; `false` if they are the same. Without a plan, the months of the free
    /// plan continue.
    pub(crate) fn set_tier(&mut self, sql: &mut Sql, tier: String, subscription_status: String) -> bool {
        let balances = &self.balances;
        if (&balances.tier, &balances.subscription_status) == (&tier, &subscription_status) {
            return false;
        }
        self.keep_former_tier();
        let balances = &mut self.balances;
        (balances.tier, balances.subscription_status, self.dirty) = (tier, subscription_status, true);
        if self.balances.tier == FREE {
            self.resume_free_plan(sql);
        }
        true
    }

    /// Makes the grants of something that was given, which no later fact changes.
    ///
    /// # Errors
    /// [`Reason::OutOfRange`] if the account would hold more than a bigint; nothing is written then.
    pub(crate) fn grant(
        &mut self,
        sql: &mut Sql,
        source_id: &str,
        grants: &[NewGrant],
        transaction_type: TransactionType,
        origin: &Origin,
    ) -> Result<(), Reason> {
        let credits = grants.iter().try_fold(Credits::ZERO, |sum, grant| sum.checked_add(grant.credits));
        if !credits.is_some_and(|credits| self.fits(sql, credits)) {
            return Err(Reason::OutOfRange);
        }
        for grant in grants {
            self.last_grant_id += 1;
            sql.execute(
                "insert into billing.credit_grants (user_id, id, source_id, item, pool, amount, remaining, spendable,
                     draw_rank, available_from, expires_at, priority_at, made_after, created_at)
                 values ($1, $2, $3, $4, $5, $6, $6, $6 > 0, $10, $7, $8, $8, $9, $7)",
                &[
                    uuid_datum(self.user).into(),
                    self.last_grant_id.into(),
                    source_id.into(),
                    grant.item.as_str().into(),
                    grant.pool.as_str().into(),
                    grant.credits.0.into(),
                    timestamp(self.now).into(),
                    grant.expires_at.map(timestamp).into(),
                    self.last_transaction_id.into(),
                    grant.pool.draw_rank().into(),
                ],
            );
            self.next_due = earliest(self.next_due, grant.expires_at);
            let origin = Origin { description: origin.description.or(Some(&grant.name)), ..*origin };
            let to = Some((self.last_grant_id, grant.pool));
            self.post(sql, grant.credits, to, transaction_type, &origin);
        }
        Ok(())
    }

    /// Whether the account can be given so many more.
    pub(crate) fn fits(&self, sql: &mut Sql, credits: Credits) -> bool {
        credits <= self.room(sql)
    }

    /// How many more credits the account can be given. What reservations hold keeps its room: they end at their time, and an
    /// account that cannot hold what comes back then could not be opened any more.
    fn room(&self, sql: &mut Sql) -> Credits {
        // A reservation that is held is due sooner or later.
        let held = self.next_due.map_or(Credits::ZERO, |_| reservations::held(sql, self.user));
        Credits(self.space().0 - held.0)
    }

    /// How many more credits the account can hold.
    fn space(&self) -> Credits {
        Credits(i64::MAX - self.available().0)
    }

    /// Records that something changed which the read model shows and the account does not hold.
    pub(crate) fn renew_version(&mut self) {
        self.dirty = true;
    }

    /// The credits that can be spent now.
    pub(crate) fn available(&self) -> Credits {
        Credits(self.total().0 + self.balances.debt.0)
    }

    /// Records that something will be due.
    pub(crate) fn due_at(&mut self, at: Time) {
        (self.next_due, self.dirty) = (earliest(self.next_due, Some(at)), true);
    }

    /// Appends a ledger row and adds it to a balance: that of the grant's pool, or the debt if there is no grant.
    fn post(
        &mut self,
        sql: &mut Sql,
        amount: Credits,
        grant: Option<(i64, Pool)>,
        transaction_type: TransactionType,
        origin: &Origin,
    ) {
        let space = self.space();
        let (balance, change) = match grant {
            Some((_, Pool::Subscription)) => (&mut self.balances.subscription, amount.0),
            Some((_, Pool::Purchased)) => (&mut self.balances.purchased, amount.0),
            Some((_, Pool::Promotional)) => (&mut self.balances.promotional, amount.0),
            None => (&mut self.balances.debt, -amount.0),
        };
        let after = balance.checked_add(Credits(change)).filter(|_| change <= 0 || amount <= space);
        *balance = after.unwrap_or_else(|| raise_too_full(self.user, amount));
        self.last_transaction_id += 1;
        self.recorded_at += TimeDelta::microseconds(1);
        (self.dirty, self.posted_at) = (true, self.posted_at.max(self.now));
        let grant_id = grant.map(|(grant_id, _)| grant_id);
        let pool = grant.map(|(_, pool)| pool.as_str());
        let metadata = origin.metadata.map(Json::bytes);
        let row = LedgerRow {
            user: self.user,
            id: self.last_transaction_id,
            operation_id: self.operation_id,
            transaction_type: transaction_type.as_str(),
            amount: amount.0,
            grant_id,
            pool,
            balance_after: self.total().0,
            description: origin.description,
            metadata: metadata.as_deref(),
            stripe_event_id: origin.event_id,
            stripe_checkout_session_id: origin.session_id,
            stripe_payment_intent_id: origin.payment_intent_id,
            stripe_invoice_id: origin.invoice_id,
            request_id: origin.request_id,
            created_at: self.now,
            recorded_at: self.recorded_at,
        };
        self.last_hash = row.hash(&self.last_hash);
        self.telling.post(transaction_type, &row);
        sql.execute(
            "insert into billing.credit_transactions
                 (user_id, id, operation_id, transaction_type, amount, grant_id, pool, balance_after, description,
                  stripe_event_id, stripe_checkout_session_id, stripe_invoice_id, stripe_payment_intent_id, request_id,
                  metadata, created_at, recorded_at, hash)
             values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18)",
            &[
                uuid_datum(self.user).into(),
                self.last_transaction_id.into(),
                self.operation_id.into(),
                transaction_type.as_str().into(),
                amount.0.into(),
                grant_id.into(),
                pool.into(),
                self.total().0.into(),
                origin.description.into(),
                origin.event_id.into(),
                origin.session_id.into(),
                origin.invoice_id.into(),
                origin.payment_intent_id.into(),
                origin.request_id.into(),
                origin.metadata.into(),
                timestamp(self.now).into(),
                timestamp(self.recorded_at).into(),
                self.last_hash.as_slice().into(),
            ],
        );
        self.postings.push(json!({
            "transaction_id": self.last_transaction_id,
            "transaction_type": transaction_type.as_str(),
            "amount": amount.0,
            "grant_id": grant_id,
            "pool": pool,
        }));
    }

    /// Σ remaining − debt.
    fn total(&self) -> Credits {
        let Balances { subscription, purchased, promotional, debt, .. } = &self.balances;
        Credits(subscription.0 + purchased.0 + promotional.0 - debt.0)
    }

    /// Ends the operation. Returns its outcome, with the account's balances now.
    #[must_use]
    pub(crate) fn close(mut self, sql: &mut Sql, verdict: Verdict) -> Outcome {
        self.settle_facts(sql, &Origin::default());
        // A grant may have expired already.
        self.settle_time(sql);
        self.settle_debt(sql);
        self.save(sql);
        let outcome = Outcome {
            user: Some(self.user),
            credits: Credits(self.total().0 - self.opened_with.0),
            balances: Some(self.balances),
            ..Outcome::of(verdict)
        };
        if self.postings.is_empty() { outcome } else { outcome.with("postings", self.postings) }
    }

    /// Computes what the periods hold and what is owed, if something became known that may change it. What settlements return to a
    /// period is counted there too; what is then still too much returns with the next change.
    pub(crate) fn settle_facts(&mut self, sql: &mut Sql, origin: &Origin) {
        self.settle_touched(sql, origin);
        self.settle_owed(sql, origin);
        if self.touched.is_some() {
            self.settle_touched(sql, origin);
            self.adjust_debt(sql, origin);
        }
    }

    fn settle_touched(&mut self, sql: &mut Sql, origin: &Origin) {
        if self.settle_streams(sql, origin).is_err() {
            // What is posted stands. Whoever posts a new fact settles it first, and refuses one that cannot be held.
            self.periods_next = None;
        }
    }
}

/// Reads a grant's id, its pool and a number of credits.
fn shares<'conn>(rows: impl Iterator<Item = Row<'conn>>) -> Vec<Share> {
    rows.map(|mut row| Share { grant_id: row.get(), pool: row.parse(Pool::parse), credits: row.get() })
        .collect()
}

/// Raises 22003 for credits that come back to an account which has since been given so many that it cannot hold them.
pub(crate) fn raise_too_full(user: Uuid, amount: Credits) -> ! {
    let code = PgSqlErrorCode::ERRCODE_NUMERIC_VALUE_OUT_OF_RANGE;
    raise(code, "the account cannot hold so many credits", &format!("user {user}: {amount} more"))
}

fn earliest(a: Option<Time>, b: Option<Time>) -> Option<Time> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    }
}
