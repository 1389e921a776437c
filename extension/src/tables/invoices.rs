//! Table `payments`, as far as it tells what plan credits depend on: when a payment was made, and what came back of it.

use stripe_credits_rules::amount::MinorUnits;
use stripe_credits_rules::calendar::Time;
use stripe_credits_rules::catalog::ReversalPolicy;
use uuid::Uuid;

use crate::pg::convert::{timestamp, uuid_datum};
use crate::pg::sql::Sql;

/// A row.
pub(crate) struct PaidInvoice {
    pub(crate) source_id: String,
    pub(crate) user: Uuid,
    pub(crate) paid_at: Time,
    pub(crate) is_discounted: bool,
    pub(crate) reversed: MinorUnits,
    pub(crate) charged: Option<MinorUnits>,
    /// `None`: nothing came back yet.
    pub(crate) policy: Option<ReversalPolicy>,
    /// Whether it is a call that names no invoice.
    pub(crate) is_direct: bool,
}

/// The payments with these ids.
pub(crate) fn find(sql: &mut Sql, source_ids: Vec<String>) -> Vec<PaidInvoice> {
    let rows = sql.query(
        "select source_id, user_id, paid_at, discounted, amount_reversed, amount_charged, reversal_policy,
                source_type = 'direct_call'
         from billing.payments where source_id = any ($1) and paid_at is not null order by source_id",
        &[source_ids.into()],
    );
    rows.map(|mut row| PaidInvoice {
        source_id: row.get(),
        user: row.get(),
        paid_at: row.get(),
        is_discounted: row.get(),
        reversed: row.get(),
        charged: row.get_opt(),
        policy: row.parse_opt(ReversalPolicy::parse),
        is_direct: row.get(),
    })
    .collect()
}

/// When a user's latest invoice was paid. Of sessions and calls only that is known when they were applied.
pub(crate) fn newest_paid_at(sql: &mut Sql, user: Uuid) -> Option<Time> {
    let newest = "select paid_at from billing.payments
         where user_id = $1 and source_type = 'invoice' and paid_at is not null order by paid_at desc limit 1";
    sql.query_opt(newest, &[uuid_datum(user).into()]).map(|mut row| row.get())
}

/// What [`record`] found of a claimed invoice.
pub(crate) struct Recorded {
    /// When it was paid, by the earliest word.
    pub(crate) paid_at: Time,
    /// Whether that is earlier than was known.
    pub(crate) is_earlier: bool,
    /// Whether its lines are to be stored: none are known, or this listing is newer. A call's line, listed at no time, gives way
    /// to Stripe's listing.
    pub(crate) is_newer_listing: bool,
}

/// Records when a claimed invoice was paid and whether it is discounted.
pub(crate) fn record(
    sql: &mut Sql,
    source_id: &str,
    paid_at: Time,
    is_discounted: bool,
    listed_at: Option<Time>,
) -> Recorded {
    let mut row = sql.query_one(
        "with before as (select lines_as_of, paid_at from billing.payments where source_id = $1)
         update billing.payments p set paid_at = least(p.paid_at, $2), discounted = p.discounted or $3,
             lines_as_of = greatest(p.lines_as_of, $4)
         from before b where p.source_id = $1
         returning p.paid_at, p.paid_at < b.paid_at,
             coalesce($4 > b.lines_as_of, $4 is not null)
                 or not exists (select from billing.invoice_lines l where l.source_id = $1)",
        &[source_id.into(), timestamp(paid_at).into(), is_discounted.into(), listed_at.map(timestamp).into()],
    );
    Recorded { paid_at: row.get(), is_earlier: row.get(), is_newer_listing: row.get() }
}

/// Records what came back of a payment. Returns the policy as it was decided when something first did.
pub(crate) fn set_came_back(
    sql: &mut Sql,
    source_id: &str,
    reversed: MinorUnits,
    charged: MinorUnits,
    policy: ReversalPolicy,
) -> ReversalPolicy {
    let row = sql.query_opt(
        "update billing.payments set amount_reversed = $2, amount_charged = $3,
             reversal_policy = coalesce(reversal_policy, case when $2 > 0 then $4 end)
         where source_id = $1
         returning coalesce(reversal_policy, $4)",
        &[source_id.into(), reversed.0.into(), charged.0.into(), policy.as_str().into()],
    );
    row.map_or(policy, |mut row| row.parse(ReversalPolicy::parse))
}

/// Takes back the claim of a payment.
pub(crate) fn forget(sql: &mut Sql, source_id: &str) {
    sql.execute("delete from billing.payments where source_id = $1", &[source_id.into()]);
}
