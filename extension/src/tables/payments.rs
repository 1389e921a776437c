//! Tables `payments` and `payment_intents`: what was paid, and by what names Stripe knows it.

use stripe_credits_rules::amount::{Credits, MinorUnits};
use stripe_credits_rules::calendar::Time;
use stripe_credits_rules::reversal::Paid;
use uuid::Uuid;

use crate::pg::convert::{timestamp, uuid_datum};
use crate::pg::sql::{Row, Sql};

/// A row of `payments`.
pub(crate) struct Payment {
    /// Under which id its grants are: the session or invoice that was seen first.
    pub(crate) source_id: String,
    pub(crate) source_type: SourceType,
    pub(crate) user: Uuid,
    /// Whether it was applied, or only says whose it will be.
    pub(crate) paid: bool,
}

/// Reads `source_id, source_type, user_id, paid_at is not null`.
fn payment(mut row: Row) -> Payment {
    Payment {
        source_id: row.get(),
        source_type: row.parse(SourceType::parse),
        user: row.get(),
        paid: row.get(),
    }
}

/// What makes a payment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SourceType {
    CheckoutSession,
    Invoice,
}

impl SourceType {
    fn parse(text: &str) -> Option<SourceType> {
        [SourceType::CheckoutSession, SourceType::Invoice].into_iter().find(|source| source.as_str() == text)
    }

    fn as_str(self) -> &'static str {
        match self {
            SourceType::CheckoutSession => "checkout_session",
            SourceType::Invoice => "invoice",
        }
    }
}

/// What a checkout session or an invoice says of its payment.
#[derive(Default)]
pub(crate) struct Said<'a> {
    pub(crate) payment_intent_ids: Vec<&'a str>,
    pub(crate) customer_id: Option<&'a str>,
    pub(crate) subscription_id: Option<&'a str>,
    pub(crate) amount_total: Option<MinorUnits>,
    pub(crate) currency: Option<&'a str>,
}

/// The payment that a session or an invoice, or its payment intent names, whichever door brought it first.
pub(crate) fn of_source(sql: &mut Sql, source_id: &str, payment_intent_id: Option<&str>) -> Option<Payment> {
    sql.query_opt(
        "select p.source_id, p.source_type, p.user_id, p.paid_at is not null from billing.payments p
         where p.source_id = $1
            or p.source_id = (select i.source_id from billing.payment_intents i where i.payment_intent_id = $2)
         order by p.paid_at is null, p.source_id = $1 desc limit 1",
        &[source_id.into(), payment_intent_id.into()],
    )
    .map(payment)
}

/// Claims a payment for a user: the row that makes it count once. Learns what an earlier claim did not know.
pub(crate) fn claim(
    sql: &mut Sql,
    source_type: SourceType,
    source_id: &str,
    said: &Said,
    user: Uuid,
    now: Time,
) {
    sql.execute(
        "insert into billing.payments as p (source_id, source_type, user_id, customer_id, subscription_id, amount_total,
             currency, paid_at, created_at)
         values ($1, $2, $3, $4, $5, $6, $7, $8, $8)
         on conflict (source_id) do update set
             user_id = case when p.paid_at is null then excluded.user_id else p.user_id end,
             customer_id = coalesce(p.customer_id, excluded.customer_id),
             subscription_id = coalesce(p.subscription_id, excluded.subscription_id),
             amount_total = coalesce(p.amount_total, excluded.amount_total),
             currency = coalesce(p.currency, excluded.currency),
             paid_at = coalesce(p.paid_at, excluded.paid_at)",
        &[
            source_id.into(),
            source_type.as_str().into(),
            uuid_datum(user).into(),
            said.customer_id.into(),
            said.subscription_id.into(),
            said.amount_total.map(|amount| amount.0).into(),
            said.currency.into(),
            timestamp(now).into(),
        ],
    );
    for payment_intent_id in &said.payment_intent_ids {
        // A pack's own invoice may have been named as what it paid, and is no payment of ours.
        sql.execute(
            "insert into billing.payment_intents as i (payment_intent_id, source_id) values ($1, $2)
             on conflict (payment_intent_id) do update set source_id = excluded.source_id
             where not exists (
                 select from billing.payments p where p.source_id = i.source_id and p.paid_at is not null)",
            &[(*payment_intent_id).into(), source_id.into()],
        );
    }
}

/// Notes which payment intent paid a session or an invoice. Answers whether that is news.
pub(crate) fn paid_by(sql: &mut Sql, source_id: &str, payment_intent_id: &str) -> bool {
    sql.query_opt(
        "insert into billing.payment_intents (payment_intent_id, source_id) values ($1, $2)
         on conflict (payment_intent_id) do nothing returning 1",
        &[payment_intent_id.into(), source_id.into()],
    )
    .is_some()
}

/// Whether it is known what a payment intent paid, be that a payment of ours or not yet.
pub(crate) fn is_tied(sql: &mut Sql, payment_intent_id: &str) -> bool {
    let tied = "select from billing.payment_intents where payment_intent_id = $1";
    sql.query_opt(tied, &[payment_intent_id.into()]).is_some()
}

/// What is known to have paid a session or an invoice. Read under its lock.
pub(crate) fn payment_intents(sql: &mut Sql, source_id: &str) -> Vec<String> {
    let rows = sql.query(
        "select payment_intent_id from billing.payment_intents where source_id = $1",
        &[source_id.into()],
    );
    rows.map(|mut row| row.get()).collect()
}

/// Says whose a session will be once it is paid. Not to be called for a paid one: its row is locked after the account.
pub(crate) fn attribute(sql: &mut Sql, session_id: &str, user: Uuid, now: Time) {
    sql.execute(
        "insert into billing.payments (source_id, source_type, user_id, created_at)
         values ($1, 'checkout_session', $2, $3)
         on conflict (source_id) do update set user_id = excluded.user_id",
        &[session_id.into(), uuid_datum(user).into(), timestamp(now).into()],
    );
}

/// The payment that a payment intent paid.
pub(crate) fn of_payment_intent(sql: &mut Sql, payment_intent_id: &str) -> Option<Payment> {
    sql.query_opt(
        "select p.source_id, p.source_type, p.user_id, p.paid_at is not null
         from billing.payment_intents i join billing.payments p using (source_id) where i.payment_intent_id = $1",
        &[payment_intent_id.into()],
    )
    .map(payment)
}

/// What was paid, and how many of its credits are owed.
pub(crate) fn paid(sql: &mut Sql, source_id: &str) -> (Paid, Credits) {
    let row = sql.query_opt(
        "select amount_total, currency, owed from billing.payments where source_id = $1",
        &[source_id.into()],
    );
    row.map_or((Paid::default(), Credits::ZERO), |mut row| {
        (Paid { amount: row.get_opt(), currency: row.get_opt() }, row.get())
    })
}

/// Notes how many of a payment's credits are owed.
pub(crate) fn owe(sql: &mut Sql, source_id: &str, owed: Credits) {
    sql.execute(
        "update billing.payments set owed = $2 where source_id = $1",
        &[source_id.into(), owed.0.into()],
    );
}
