//! Tables `payments` and `payment_intents`: what was paid, and with which payment intents.

use stripe_credits_rules::amount::MinorUnits;
use stripe_credits_rules::calendar::Time;
use stripe_credits_rules::reversal::Paid;
use uuid::Uuid;

use crate::pg::convert::{timestamp, uuid_datum};
use crate::pg::sql::{Row, Sql};

/// A row of `payments`.
pub(crate) struct Payment {
    /// The `source_id` of its grants: the session or invoice that came first.
    pub(crate) source_id: String,
    pub(crate) source_type: SourceType,
    pub(crate) user: Uuid,
    /// Whether it was applied. An unpaid row only names the user to whom a session was attributed.
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

/// The Stripe object that was paid.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SourceType {
    CheckoutSession,
    Invoice,
    DirectCall,
}

impl SourceType {
    fn parse(text: &str) -> Option<SourceType> {
        [SourceType::CheckoutSession, SourceType::Invoice, SourceType::DirectCall].into_iter().find(|source| source.as_str() == text)
    }

    fn as_str(self) -> &'static str {
        match self {
            SourceType::CheckoutSession => "checkout_session",
            SourceType::Invoice => "invoice",
            SourceType::DirectCall => "direct_call",
        }
    }
}

/// A payment, as its checkout session or invoice describes it.
#[derive(Default)]
pub(crate) struct PaymentFacts<'a> {
    pub(crate) payment_intent_ids: Vec<&'a str>,
    pub(crate) customer_id: Option<&'a str>,
    pub(crate) subscription_id: Option<&'a str>,
    pub(crate) amount_total: Option<MinorUnits>,
    pub(crate) currency: Option<&'a str>,
}

/// The payment with a session's or invoice's id, or else with its payment intent.
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

/// Claims a payment for a user: this row makes it count once. Fills in what an earlier claim did not know.
pub(crate) fn claim(
    sql: &mut Sql,
    source_type: SourceType,
    source_id: &str,
    facts: &PaymentFacts,
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
            facts.customer_id.into(),
            facts.subscription_id.into(),
            facts.amount_total.map(|amount| amount.0).into(),
            facts.currency.into(),
            timestamp(now).into(),
        ],
    );
    for payment_intent_id in &facts.payment_intent_ids {
        // The payment intent may be linked to the invoice of a credit pack, for which nothing is granted.
        sql.execute(
            "insert into billing.payment_intents as i (payment_intent_id, source_id) values ($1, $2)
             on conflict (payment_intent_id) do update set source_id = excluded.source_id
             where not exists (
                 select from billing.payments p where p.source_id = i.source_id and p.paid_at is not null)",
            &[(*payment_intent_id).into(), source_id.into()],
        );
    }
}

/// Links a payment intent to the session or invoice that it paid. Returns whether it was not linked before.
pub(crate) fn link_payment_intent(sql: &mut Sql, source_id: &str, payment_intent_id: &str) -> bool {
    sql.query_opt(
        "insert into billing.payment_intents (payment_intent_id, source_id) values ($1, $2)
         on conflict (payment_intent_id) do nothing returning 1",
        &[payment_intent_id.into(), source_id.into()],
    )
    .is_some()
}

/// Whether it is known what a payment intent paid, even if no credits were granted for that.
pub(crate) fn is_linked(sql: &mut Sql, payment_intent_id: &str) -> bool {
    let linked = "select from billing.payment_intents where payment_intent_id = $1";
    sql.query_opt(linked, &[payment_intent_id.into()]).is_some()
}

/// The payment intents of a session or an invoice. The caller holds its lock.
pub(crate) fn payment_intents(sql: &mut Sql, source_id: &str) -> Vec<String> {
    let rows = sql.query(
        "select payment_intent_id from billing.payment_intents where source_id = $1",
        &[source_id.into()],
    );
    rows.map(|mut row| row.get()).collect()
}

/// Attributes an unpaid session to a user. Must not be called for a paid one, whose row is locked after the account.
pub(crate) fn attribute(sql: &mut Sql, session_id: &str, user: Uuid, now: Time) {
    sql.execute(
        "insert into billing.payments (source_id, source_type, user_id, created_at)
         values ($1, 'checkout_session', $2, $3)
         on conflict (source_id) do update set user_id = excluded.user_id",
        &[session_id.into(), uuid_datum(user).into(), timestamp(now).into()],
    );
}

/// The payment of a payment intent.
pub(crate) fn of_payment_intent(sql: &mut Sql, payment_intent_id: &str) -> Option<Payment> {
    sql.query_opt(
        "select p.source_id, p.source_type, p.user_id, p.paid_at is not null
         from billing.payment_intents i join billing.payments p using (source_id) where i.payment_intent_id = $1",
        &[payment_intent_id.into()],
    )
    .map(payment)
}

/// What was paid.
pub(crate) fn paid(sql: &mut Sql, source_id: &str) -> Paid {
    let row = sql.query_opt(
        "select amount_total, currency from billing.payments where source_id = $1",
        &[source_id.into()],
    );
    row.map_or(Paid::default(), |mut row| Paid { amount: row.get_opt(), currency: row.get_opt() })
}
