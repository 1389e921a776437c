//! Table `invoice_lines`: what each paid invoice bills.

use stripe_credits_rules::amount::MinorUnits;
use stripe_credits_rules::calendar::{Span, Time};
use stripe_credits_rules::invoice::{InvoiceLine, LineQuantity};
use stripe_credits_rules::streams::facts::Period;
use uuid::Uuid;

use crate::pg::convert::{timestamp, uuid_datum};
use crate::pg::sql::{Row, Sql};

/// A row, without its user.
#[derive(Debug, Clone)]
pub(crate) struct StoredLine {
    pub(crate) source_id: String,
    pub(crate) subscription_id: Option<String>,
    pub(crate) item_id: Option<String>,
    pub(crate) price_id: Option<String>,
    pub(crate) product_id: Option<String>,
    /// `None`: the quantity of the subscription item.
    pub(crate) quantity: Option<i64>,
    pub(crate) amount: MinorUnits,
    pub(crate) discount: MinorUnits,
    pub(crate) period: Period,
    pub(crate) is_proration: bool,
    pub(crate) names_credited: bool,
    pub(crate) interval: Option<Span>,
    pub(crate) is_metered: bool,
    /// When the line became known, in the order of all ledger rows.
    pub(crate) known_at: Time,
}

/// That a line's payment did not come back whole. Asked for one line after the other: of a join, the planner would read all
/// payments that did.
macro_rules! stands {
    () => {
        "(
             select p.amount_reversed >= p.amount_charged and p.amount_charged > 0
             from billing.payments p where p.source_id = l.source_id) is not true"
    };
}

/// The columns that [`stored`] reads, in its order.
macro_rules! columns {
    () => {
        "l.source_id, l.subscription_id, l.item_id, l.price_id, l.product_id, l.quantity, l.amount, l.discount, \
         l.period_start, l.period_end, l.proration, l.names_credited, l.interval, l.metered, l.known_at"
    };
}

fn stored(mut row: Row) -> StoredLine {
    StoredLine {
        source_id: row.get(),
        subscription_id: row.get_opt(),
        item_id: row.get_opt(),
        price_id: row.get_opt(),
        product_id: row.get_opt(),
        quantity: row.get_opt(),
        amount: row.get(),
        discount: row.get(),
        period: Period { start: row.get(), end: row.get() },
        is_proration: row.get(),
        names_credited: row.get(),
        interval: row.get_opt(),
        is_metered: row.get(),
        known_at: row.get(),
    }
}

/// Stores the lines of a payment in place of those that are known, each for the user in whose account it counts. A line
/// without a period is billed for the time of its payment. What was known of the payment before stays known since then. The
/// caller holds the lock of the payment.
pub(crate) fn replace(
    sql: &mut Sql,
    source_id: &str,
    lines: &[(Uuid, &InvoiceLine)],
    paid_at: Time,
    known_at: Time,
) {
    let known = sql.query(
        "delete from billing.invoice_lines where source_id = $1 returning known_at",
        &[source_id.into()],
    );
    let known_at = known.map(|mut row| row.get()).fold(known_at, Time::min);
    for (number, (user, line)) in (1i32..).zip(lines) {
        let price = line.price.as_ref();
        let (start, end) = line.period.unwrap_or((paid_at, paid_at));
        let quantity = match line.quantity {
            LineQuantity::Missing => None,
            LineQuantity::Whole(quantity) => Some(quantity.max(0)),
            // Such a line grants nothing: the event parks if its price is ours.
            LineQuantity::NotWhole => Some(0),
        };
        sql.execute(
            "insert into billing.invoice_lines (source_id, line, user_id, subscription_id, item_id, price_id, product_id,
                 quantity, amount, discount, period_start, period_end, proration, names_credited, interval, metered,
                 paid_at, known_at)
             values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15::interval, $16, $17, $18)",
            &[
                source_id.into(),
                number.into(),
                uuid_datum(*user).into(),
                line.subscription_id.as_deref().into(),
                line.item_id.as_deref().into(),
                price.map(|price| price.id.as_str()).into(),
                price.and_then(|price| price.product_id.as_deref()).into(),
                quantity.into(),
                line.amount.map_or(0, |amount| amount.0).into(),
                line.discount.0.into(),
                timestamp(start).into(),
                timestamp(end).into(),
                line.is_proration.into(),
                line.names_credited.into(),
                price.and_then(|price| price.interval).map(|interval| interval.to_string()).into(),
                price.is_some_and(|price| price.is_metered).into(),
                timestamp(paid_at).into(),
                timestamp(known_at).into(),
            ],
        );
    }
}

/// Records that a payment turned out to be made earlier.
pub(crate) fn set_paid_at(sql: &mut Sql, source_id: &str, paid_at: Time) {
    let paid = "update billing.invoice_lines set paid_at = $2 where source_id = $1";
    sql.execute(paid, &[source_id.into(), timestamp(paid_at).into()]);
}

/// Removes the lines of a payment.
pub(crate) fn forget(sql: &mut Sql, source_id: &str) {
    sql.execute("delete from billing.invoice_lines where source_id = $1", &[source_id.into()]);
}

/// The lines of a user whose period ends at a time or later. The caller holds the account's lock, here and below.
pub(crate) fn since(sql: &mut Sql, user: Uuid, horizon: Time) -> Vec<StoredLine> {
    const SINCE: &str = concat!(
        "select ",
        columns!(),
        " from billing.invoice_lines l where l.user_id = $1 and l.period_end >= $2 order by l.source_id, l.line"
    );
    sql.query(SINCE, &[uuid_datum(user).into(), timestamp(horizon).into()]).map(stored).collect()
}

/// When the first of the periods ends that a user's lines bill.
pub(crate) fn first_end(sql: &mut Sql, user: Uuid) -> Option<Time> {
    let first = "select min(period_end) from billing.invoice_lines where user_id = $1";
    sql.query_one(first, &[uuid_datum(user).into()]).get_opt()
}

/// Whether the user has lines whose period ends before a time.
pub(crate) fn has_older(sql: &mut Sql, user: Uuid, horizon: Time) -> bool {
    sql.query_opt(
        "select from billing.invoice_lines where user_id = $1 and period_end < $2 limit 1",
        &[uuid_datum(user).into(), timestamp(horizon).into()],
    )
    .is_some()
}

/// Of a user's lines that [`since`] leaves out: if some price has a bonus, those of the payment that is their first purchase
/// as long as no older one becomes known; and the earliest line of 0 of a plan with trial credits. Each is found by an index,
/// not by reading the past.
pub(crate) fn firsts_before(sql: &mut Sql, user: Uuid, horizon: Time) -> Vec<StoredLine> {
    const FIRSTS: &str = concat!(
        "with first_purchase as (
             select l.source_id
             from billing.invoice_lines l
             where l.user_id = $1 and l.period_end < $2
                 -- As the index says it that has them in this order.
                 and l.subscription_id is not null and not l.metered and not l.names_credited and l.amount > l.discount
                 and exists (select from billing.prices c where c.first_purchase_bonus > 0)
                 and exists (
                     select from billing.prices c
                     where c.price_id in (l.price_id, l.product_id) and c.kind <> 'not_credits')
                 and ",
        stands!(),
        " order by l.paid_at, l.source_id limit 1
         ), first_trial as (
             select l.source_id, l.line
             from billing.invoice_lines l
             where l.user_id = $1 and l.period_end < $2 and l.subscription_id is not null and not l.metered
                 and l.amount = 0 and not l.names_credited and not l.proration and l.quantity is distinct from 0
                 and exists (select from billing.prices c where c.trial_credits > 0)
                 and exists (
                     select from billing.prices c
                     where c.price_id in (l.price_id, l.product_id) and c.trial_credits > 0)
                 and exists (
                     select from billing.prices c
                     where c.price_id in (l.price_id, l.product_id) and c.kind <> 'not_credits')
                 -- The units beside their flat fee are one line with it.
                 and not exists (
                     select from billing.invoice_lines fee
                     where (fee.source_id, fee.price_id, fee.period_start, fee.period_end, fee.subscription_id)
                             = (l.source_id, l.price_id, l.period_start, l.period_end, l.subscription_id)
                         and fee.user_id = l.user_id and fee.item_id is not distinct from l.item_id
                         and not fee.proration and not fee.metered and fee.amount > 0)
             order by l.period_start, l.period_end, l.subscription_id, l.item_id, l.source_id, l.price_id limit 1
         )
         select ",
        columns!(),
        " from (
             select source_id, null::integer as line from first_purchase
             union all
             select source_id, line from first_trial where source_id not in (select source_id from first_purchase)
         ) f
         -- By the payment's id: the planner would read the user's whole past once more.
         cross join lateral (
             select * from billing.invoice_lines i
             where i.source_id = f.source_id and (f.line is null or i.line = f.line) offset 0
         ) l
         where l.user_id = $1 and l.period_end < $2 and l.subscription_id is not null and not l.metered
             and exists (
                 select from billing.prices c
                 where c.price_id in (l.price_id, l.product_id) and c.kind <> 'not_credits')
         order by l.source_id, l.line"
    );
    sql.query(FIRSTS, &[uuid_datum(user).into(), timestamp(horizon).into()]).map(stored).collect()
}

/// All lines of a payment.
pub(crate) fn of_payment(sql: &mut Sql, source_id: &str) -> Vec<StoredLine> {
    const OF_PAYMENT: &str = concat!(
        "select ",
        columns!(),
        " from billing.invoice_lines l where l.source_id = $1 order by l.line"
    );
    sql.query(OF_PAYMENT, &[source_id.into()]).map(stored).collect()
}

/// The users in whose accounts the lines of a payment count, each with the start of the earliest one.
pub(crate) fn users(sql: &mut Sql, source_id: &str) -> Vec<(Uuid, Time)> {
    let rows = sql.query(
        "select user_id, min(period_start) from billing.invoice_lines where source_id = $1
         group by user_id order by user_id",
        &[source_id.into()],
    );
    rows.map(|mut row| (row.get(), row.get())).collect()
}

/// The start of a subscription's first charge of a plan that still stands, by lines from before the horizon.
pub(crate) fn first_period_before(
    sql: &mut Sql,
    user: Uuid,
    subscription_id: &str,
    horizon: Time,
) -> Option<Time> {
    const FIRST_PERIOD: &str = concat!(
        // Its lines in order, so that the first one that counts is the last one that is read.
        "select l.period_start
         from (
             select * from billing.invoice_lines
             where subscription_id = $3 and amount > 0 and not names_credited order by period_start offset 0) l
         where l.user_id = $1 and l.period_end < $2
             and exists (
                 select from billing.prices c
                 where c.price_id in (l.price_id, l.product_id) and c.kind = 'plan')
             and ",
        stands!(),
        " limit 1"
    );
    let args = [uuid_datum(user).into(), timestamp(horizon).into(), subscription_id.into()];
    let row = sql.query_opt(FIRST_PERIOD, &args);
    row.map(|mut row| row.get())
}

/// The start of the earliest line of a payment that counts in an account, if any does.
pub(crate) fn start(sql: &mut Sql, source_id: &str, user: Uuid) -> Option<Time> {
    let mut row = sql.query_one(
        "select min(period_start) from billing.invoice_lines where source_id = $1 and user_id = $2",
        &[source_id.into(), uuid_datum(user).into()],
    );
    row.get_opt()
}
