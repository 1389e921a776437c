//! Table `reversals`: refunds and disputes, each as far as it has come.

use stripe_credits_rules::reversal::{Reversal, ReversalKind, ReversalState, Reversals};

use crate::pg::convert::{clock, timestamp};
use crate::pg::sql::Sql;

/// Whether Stripe answered another event of this payment intent's already. It says the same again.
pub(crate) fn was_asked(sql: &mut Sql, payment_intent_id: &str) -> bool {
    let asked = "select from billing.reversals r join billing.stripe_events e on e.object_id = r.reversal_id
                 where r.payment_intent_id = $1 and e.fetched <> '{}' limit 1";
    sql.query_opt(asked, &[payment_intent_id.into()]).is_some()
}

/// Merges what is said of a reversal with what is known: everything only rises.
pub(crate) fn merge(sql: &mut Sql, reversals: &Reversals, said: &Reversal) {
    sql.execute(
        "insert into billing.reversals as r
             (reversal_id, kind, state, payment_intent_id, charge_id, amount, currency, charged, created_at, updated_at)
         values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $9)
         on conflict (reversal_id) do update set
             state = case when array_position(array['inquiry', 'live', 'undone'], excluded.state)
                 > array_position(array['inquiry', 'live', 'undone'], r.state) then excluded.state else r.state end,
             payment_intent_id = coalesce(r.payment_intent_id, excluded.payment_intent_id),
             charge_id = coalesce(r.charge_id, excluded.charge_id),
             amount = greatest(r.amount, excluded.amount),
             currency = greatest(r.currency, excluded.currency),
             charged = greatest(r.charged, excluded.charged),
             updated_at = excluded.updated_at",
        &[
            said.id.as_str().into(),
            said.kind.as_str().into(),
            said.state.as_str().into(),
            reversals.payment_intent_id.as_deref().into(),
            reversals.charge_id.as_deref().into(),
            said.amount.0.into(),
            said.currency.as_deref().into(),
            said.charged.map(|charged| charged.0).into(),
            timestamp(clock()).into(),
        ],
    );
}

/// Everything known to reverse a payment. Read under its payment intents' locks.
pub(crate) fn of_payment(sql: &mut Sql, source_id: &str) -> Vec<Reversal> {
    let rows = sql.query(
        "select r.reversal_id, r.kind, r.state, r.amount, r.currency, r.charged
         from billing.payment_intents i join billing.reversals r using (payment_intent_id)
         where i.source_id = $1 order by r.reversal_id",
        &[source_id.into()],
    );
    rows.map(|mut row| Reversal {
        id: row.get(),
        kind: row.parse(ReversalKind::parse),
        state: row.parse(ReversalState::parse),
        amount: row.get(),
        currency: row.get_opt(),
        charged: row.get_opt(),
    })
    .collect()
}
