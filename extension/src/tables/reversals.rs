//! Table `reversals`: what is known of refunds, disputes, credit notes and charges.

use stripe_credits_rules::reversal::{Reversal, ReversalKind};

use crate::pg::convert::{clock, timestamp};
use crate::pg::sql::Sql;

/// Whether Stripe was asked before, for another reversal of the payment with this name: it would answer the same.
pub(crate) fn was_fetched(sql: &mut Sql, name: &str) -> bool {
    let answered = "select from billing.payment_names n
         join billing.payment_names other using (source_id)
         join billing.reversals r on r.payment_name = other.name
         join billing.stripe_events e on e.object_id = r.reversal_id
         where n.name = $1 and e.fetched::text <> '{}' limit 1";
    sql.query_opt(answered, &[name.into()]).is_some()
}

/// Merges a reversal of the payment with this name with what is known of it: in every order of events the same stays.
pub(crate) fn merge(sql: &mut Sql, payment_name: Option<&str>, incoming: &Reversal) {
    sql.execute(
        "insert into billing.reversals as r
             (reversal_id, kind, payment_name, charge_id, refund_id, amount, currency, charged, made_at, undone_at,
              withdrawn_at, reinstated_at, disputed_at, created_at, updated_at)
         values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $14)
         on conflict (reversal_id) do update set
             payment_name = coalesce(r.payment_name, excluded.payment_name),
             charge_id = coalesce(r.charge_id, excluded.charge_id),
             refund_id = coalesce(r.refund_id, excluded.refund_id),
             -- A credit note's rest shrinks as refunds are made for it; everything else only grows.
             amount = case
                 when r.kind <> 'credit_note' then greatest(r.amount, excluded.amount)
                 when excluded.made_at = r.made_at then least(r.amount, excluded.amount)
                 when excluded.made_at > r.made_at then excluded.amount
                 else r.amount end,
             currency = greatest(r.currency, excluded.currency),
             charged = greatest(r.charged, excluded.charged),
             -- Of a charge: of its highest count.
             made_at = case
                 when r.kind = 'charge' and excluded.amount > r.amount then excluded.made_at
                 when r.kind = 'charge' and excluded.amount < r.amount then r.made_at
                 else greatest(r.made_at, excluded.made_at) end,
             undone_at = least(r.undone_at, excluded.undone_at),
             withdrawn_at = greatest(r.withdrawn_at, excluded.withdrawn_at),
             reinstated_at = greatest(r.reinstated_at, excluded.reinstated_at),
             disputed_at = greatest(r.disputed_at, excluded.disputed_at),
             updated_at = excluded.updated_at",
        &[
            incoming.id.as_str().into(),
            incoming.kind.as_str().into(),
            payment_name.into(),
            incoming.charge_id.as_deref().into(),
            incoming.refund_id.as_deref().into(),
            incoming.amount.0.into(),
            incoming.currency.as_deref().into(),
            incoming.charged.map(|charged| charged.0).into(),
            incoming.made_at.map(timestamp).into(),
            incoming.undone_at.map(timestamp).into(),
            incoming.withdrawn_at.map(timestamp).into(),
            incoming.reinstated_at.map(timestamp).into(),
            incoming.disputed_at.map(timestamp).into(),
            timestamp(clock()).into(),
        ],
    );
}

/// The reversals of a payment. The caller holds the locks of its names.
pub(crate) fn of_payment(sql: &mut Sql, source_id: &str) -> Vec<Reversal> {
    let rows = sql.query(
        "select r.reversal_id, r.kind, r.amount, r.currency, r.charge_id, r.charged, r.refund_id, r.made_at,
                r.undone_at, r.withdrawn_at, r.reinstated_at, r.disputed_at
         from billing.payment_names n join billing.reversals r on r.payment_name = n.name
         where n.source_id = $1 order by r.reversal_id",
        &[source_id.into()],
    );
    rows.map(|mut row| Reversal {
        id: row.get(),
        kind: row.parse(ReversalKind::parse),
        amount: row.get(),
        currency: row.get_opt(),
        charge_id: row.get_opt(),
        charged: row.get_opt(),
        refund_id: row.get_opt(),
        made_at: row.get_opt(),
        undone_at: row.get_opt(),
        withdrawn_at: row.get_opt(),
        reinstated_at: row.get_opt(),
        disputed_at: row.get_opt(),
    })
    .collect()
}

/// The payments of which something came back, by a reversal or by the payment's own row.
pub(crate) fn reversed_payments(sql: &mut Sql) -> Vec<String> {
    let rows = sql.query(
        "select n.source_id from billing.payment_names n join billing.reversals r on r.payment_name = n.name
         union
         select p.source_id from billing.payments p where p.amount_reversed <> 0
         order by 1",
        &[],
    );
    rows.map(|mut row| row.get()).collect()
}
