//! What an operation tells the app: rows of the outbox, written with the account that they are about.
//!
//! An operation collects what it posts, and saving the account tells it: so what is told is committed with what caused it,
//! in the order of the account's operations. An operation that grants nothing, takes nothing back and crosses no threshold
//! has nothing to tell, and runs no statement for it.

use serde_json::{Map, Value, json};
use stripe_credits_rules::amount::Credits;
use stripe_credits_rules::calendar::{Time, TimeDelta};
use stripe_credits_rules::catalog::ExpiringDays;
use stripe_credits_rules::crossing::Crossing;
use stripe_credits_rules::told::Told;
use uuid::Uuid;

use super::{Account, LedgerRow, TransactionType};
use crate::outcome::Balances;
use crate::pg::convert::{clock, timestamp, uuid_datum};
use crate::pg::sql::Sql;
use crate::tables::{catalog, outbox};

/// What an operation has to tell so far.
#[derive(Default)]
pub(super) struct Telling {
    /// The ledger rows that granted, and what they granted.
    granted: Vec<Value>,
    granted_credits: i64,
    /// The ledger rows of money that came back, or did not come back after all, and their sum.
    reversed: Vec<Value>,
    reversed_credits: i64,
    /// A subscription that changed.
    subscription: Option<Value>,
    /// The tier and the status before they changed.
    former_tier: Option<(String, String)>,
    /// Grants that expire soon.
    expiring: Vec<Value>,
    expiring_credits: i64,
    /// Whether the app drew credits: a spend or a reservation.
    is_drawn: bool,
}

impl Telling {
    /// Collects a ledger row, if the app is told of its kind.
    pub(super) fn post(&mut self, transaction_type: TransactionType, row: &LedgerRow) {
        match transaction_type {
            TransactionType::Purchase
            | TransactionType::SubscriptionGrant
            | TransactionType::Signup
            | TransactionType::Bonus
            | TransactionType::Grant
            | TransactionType::Import
            | TransactionType::Adjustment
                if row.amount > 0 =>
            {
                self.granted.push(transaction(row));
                self.granted_credits += row.amount;
            }
            TransactionType::Spend | TransactionType::Reservation => self.is_drawn = true,
            // Of what one operation takes and gives back, the difference counts.
            TransactionType::Reversal | TransactionType::Reinstatement => {
                self.reversed.push(transaction(row));
                self.reversed_credits += row.amount;
            }
            _ => {}
        }
    }

    /// Whether there is nothing to tell but perhaps of the balance.
    fn is_empty(&self) -> bool {
        self.granted.is_empty()
            && self.reversed.is_empty()
            && self.subscription.is_none()
            && self.former_tier.is_none()
            && self.expiring.is_empty()
    }

    /// What there is to tell, in the order in which it is told, with the data of each but the account.
    fn into_rows(mut self, balances: &Balances) -> Vec<(Told, Map<String, Value>)> {
        let mut rows = Vec::new();
        if self.reversed_credits > 0 {
            self.granted.append(&mut self.reversed);
            self.granted_credits += self.reversed_credits;
        }
        if self.granted_credits > 0 {
            rows.push((Told::CreditsGranted, credits(self.granted_credits, "transactions", self.granted)));
        }
        if self.reversed_credits < 0 {
            rows.push((
                Told::CreditsReversed,
                credits(-self.reversed_credits, "transactions", self.reversed),
            ));
        }
        let now = (balances.tier.as_str(), balances.subscription_status.as_str());
        let former = self.former_tier.filter(|(tier, status)| (tier.as_str(), status.as_str()) != now);
        if self.subscription.is_some() || former.is_some() {
            let previous = former
                .map(|(tier, status)| json!({ "subscription_tier": tier, "subscription_status": status }));
            let data = [("subscription", self.subscription), ("previous", previous)];
            let data = data.into_iter().map(|(key, value)| (key.to_owned(), value.unwrap_or_default()));
            rows.push((Told::SubscriptionChanged, data.collect()));
        }
        if !self.expiring.is_empty() {
            rows.push((Told::CreditsExpiring, credits(self.expiring_credits, "grants", self.expiring)));
        }
        rows
    }
}

/// So many credits, and what they are.
fn credits(credits: i64, name: &str, rows: Vec<Value>) -> Map<String, Value> {
    Map::from_iter([("credits".to_owned(), credits.into()), (name.to_owned(), rows.into())])
}

/// A ledger row, as the app is told of it: without the texts that the app or an operator wrote.
fn transaction(row: &LedgerRow) -> Value {
    let mut told = json!({
        "transaction_id": row.id,
        "transaction_type": row.transaction_type,
        "amount": row.amount,
        "pool": row.pool,
        "stripe_event_id": row.stripe_event_id,
        "stripe_checkout_session_id": row.stripe_checkout_session_id,
        "stripe_payment_intent_id": row.stripe_payment_intent_id,
        "stripe_invoice_id": row.stripe_invoice_id,
        "request_id": row.request_id,
    });
    told.as_object_mut().expect("an object").retain(|_, value| !value.is_null());
    told
}

/// An account after what is told of it, by the names that `user_credits` has.
fn account(balances: &Balances) -> Value {
    let Balances { subscription, purchased, promotional, debt, tier, subscription_status } = balances;
    json!({
        "subscription_tier": tier,
        "subscription_status": subscription_status,
        "credits_balance": subscription.0 + purchased.0 + promotional.0,
        "subscription_credits_balance": subscription.0,
        "purchased_credits_balance": purchased.0,
        "promotional_credits_balance": promotional.0,
        "debt": debt.0,
    })
}

/// Tells of a payment of a user's, after its account was saved in the same transaction. Nothing without an account.
pub(crate) fn tell_of_payment(
    sql: &mut Sql,
    user: Uuid,
    balances: Option<&Balances>,
    told: Told,
    data: Value,
) {
    let next = "update billing.accounts set last_outbox_id = last_outbox_id + 1 where user_id = $1
         returning last_outbox_id";
    let Some(mut row) = sql.query_opt(next, &[uuid_datum(user).into()]) else { return };
    let Value::Object(mut data) = data else { return };
    data.insert("account".to_owned(), balances.map(account).into());
    outbox::insert(sql, user, row.get(), told, &data.into());
}

/// Of a grant `g`: it expires, and its user was not told so. The condition of the index `credit_grants_expiring`.
macro_rules! untold {
    () => {
        "g.spendable and g.expires_at is distinct from g.told_expires_at and g.source_id <> 'free_plan'"
    };
}

/// Tells of credits that expire within the catalog's `expiring_days`, in up to `limit` accounts that are not busy: once of
/// each expiry. Returns in how many.
pub(crate) fn tell_expiring(sql: &mut Sql, limit: i64) -> usize {
    const USERS: &str = concat!(
        "select user_id from billing.accounts where user_id in (
             select g.user_id from billing.credit_grants g join billing.accounts a using (user_id)
             where ",
        untold!(),
        "    and a.test_clock is null and g.expires_at between $1 and $2
             union all
             select g.user_id from billing.accounts a join billing.credit_grants g using (user_id)
             where ",
        untold!(),
        "    and a.test_clock is not null and g.expires_at > billing.account_time(a.test_clock)
                 and g.expires_at - ($2 - $1) <= billing.account_time(a.test_clock))
         order by user_id limit $3 for update skip locked"
    );
    let Some(days) = catalog::settings(sql).and_then(|settings| settings.expiring_days) else { return 0 };
    let rows =
        sql.query(USERS, &[timestamp(clock()).into(), timestamp(ahead(clock(), days)).into(), limit.into()]);
    let users: Vec<Uuid> = rows.map(|mut row| row.get()).collect();
    for user in &users {
        if let Some(mut account) = Account::open_existing(sql, *user) {
            account.tell_expiring(sql, days);
        }
    }
    users.len()
}

/// The time so many days after another.
fn ahead(now: Time, days: ExpiringDays) -> Time {
    now + TimeDelta::days(days.get().into())
}

impl Account {
    /// Tells that a subscription of the user's changed.
    pub(crate) fn tell_subscription(&mut self, subscription: Value) {
        (self.telling.subscription, self.dirty) = (Some(subscription), true);
    }

    /// Keeps the tier and the status, which change, for what is told of that.
    pub(super) fn keep_former_tier(&mut self) {
        let Balances { tier, subscription_status, .. } = &self.balances;
        self.telling.former_tier.get_or_insert_with(|| (tier.clone(), subscription_status.clone()));
    }

    /// Tells of the grants that expire within so many days, and saves that they were told.
    fn tell_expiring(&mut self, sql: &mut Sql, days: ExpiringDays) {
        const TELL: &str = concat!(
            "update billing.credit_grants g set told_expires_at = g.expires_at
             where g.user_id = $1 and g.expires_at > $2 and g.expires_at <= $3 and ",
            untold!(),
            " returning g.id, g.pool, g.remaining, g.expires_at"
        );
        let rows = sql.query(
            TELL,
            &[
                uuid_datum(self.user).into(),
                timestamp(self.now).into(),
                timestamp(ahead(self.now, days)).into(),
            ],
        );
        for mut row in rows {
            let (grant_id, pool): (i64, String) = (row.get(), row.get());
            let (credits, expires_at): (i64, Time) = (row.get(), row.get());
            self.telling.expiring_credits += credits;
            self.telling.expiring.push(json!({
                "grant_id": grant_id, "pool": pool, "credits": credits, "expires_at": expires_at.to_rfc3339(),
            }));
            self.dirty = true;
        }
        self.save(sql);
    }

    /// Writes what the operation has to tell since the account was saved last: what it posted, and which threshold the balance
    /// fell to; and requests a top-up, if it drew and too little is left.
    pub(super) fn tell(&mut self, sql: &mut Sql) {
        let (before, after) = (self.saved_available, self.available());
        self.saved_available = after;
        let crossing =
            if after < before { catalog::crossing(sql, &self.balances.tier, before, after) } else { None };
        let telling = std::mem::take(&mut self.telling);
        let is_drawn = telling.is_drawn && after < before;
        if !telling.is_empty() || crossing.is_some() {
            let mut rows = telling.into_rows(&self.balances);
            rows.extend(crossing.map(|crossing| told_crossing(crossing, before)));
            for (told, data) in rows {
                self.tell_row(sql, told, data);
            }
        }
        if self.tops_up && is_drawn {
            self.request_top_up(sql, before, after);
        }
    }

    /// Writes one row, under the account's next id.
    pub(super) fn tell_row(&mut self, sql: &mut Sql, told: Told, mut data: Map<String, Value>) {
        self.last_outbox_id += 1;
        self.dirty = true;
        data.insert("account".to_owned(), account(&self.balances));
        outbox::insert(sql, self.user, self.last_outbox_id, told, &data.into());
    }
}

/// How the app is told of a fall of the balance.
fn told_crossing(crossing: Crossing, before: Credits) -> (Told, Map<String, Value>) {
    let (told, crossed) = match crossing {
        Crossing::Low(crossed) => (Told::CreditsLow, crossed),
        Crossing::Exhausted => (Told::CreditsExhausted, Vec::new()),
    };
    let mut data = Map::from_iter([("balance_before".to_owned(), before.0.into())]);
    if let Some(lowest) = crossed.last() {
        data.insert("threshold".to_owned(), lowest.0.into());
        data.insert("crossed".to_owned(), crossed.iter().map(|threshold| threshold.0).collect());
    }
    (told, data)
}
