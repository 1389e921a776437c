//! What is known of an object of Stripe's, of an event or of a user: for `explain`, and for whoever shows the same.

use uuid::Uuid;

use crate::database::{Database, DatabaseError, EVENT_TIMEOUT, READ_TIMEOUT};

impl Database {
    /// What support needs to know of a user, as JSON, by `billing.explain_user`.
    pub(crate) async fn explain_user(&self, user: Uuid) -> Result<String, DatabaseError> {
        let sql = "select billing.explain_user(($1::text)::uuid)::text";
        self.query_value(sql, &[&user.to_string()], READ_TIMEOUT).await
    }

    /// Everything known of an id of Stripe's, as JSON: of an event its row in the inbox and all of its object; of a session, an
    /// invoice, a payment intent, a charge, a refund, a dispute or a credit note its payment, grants and ledger rows; of a
    /// subscription its state, items and moves; of a customer the user and what waits. What is not known is null or empty.
    pub(crate) async fn explain_id(&self, id: &str) -> Result<String, DatabaseError> {
        let sql = "with asked as (
                select $1::text as id, coalesce(
                    (select e.object_id from billing.stripe_events e where e.event_id = $1), $1::text) as object_id
            ), named as (
                select a.*, coalesce(
                    (select n.source_id from billing.payment_names n where n.name = a.object_id),
                    (select n.source_id from billing.reversals r join billing.payment_names n on n.name = r.payment_name
                        where r.reversal_id = a.object_id),
                    a.object_id) as source_id
                from asked a
            ), payment as (
                select p.* from named n join billing.payments p using (source_id)
            ), subscription as (
                select s.* from named n join billing.subscriptions s on s.subscription_id = n.object_id
            )
            select json_build_object(
                'id', n.id,
                'object_id', n.object_id,
                'events', (
                    select coalesce(json_agg(json_build_object(
                        'event_id', e.event_id, 'type', e.type, 'created', e.created, 'object_id', e.object_id,
                        'outcome', e.outcome, 'reason', e.reason, 'details', e.details, 'user_id', e.user_id,
                        'attempts', e.attempts, 'first_received_at', e.first_received_at, 'applied_at', e.applied_at)
                        order by e.created, e.event_id), '[]')
                    from billing.stripe_events e
                    where e.event_id = n.id or e.object_id = n.object_id
                        or (e.outcome = 'parked' and e.customer_id = n.object_id)),
                'payment', (
                    select to_jsonb(p) || jsonb_build_object('names', (
                        select coalesce(jsonb_agg(m.name order by m.name), '[]')
                        from billing.payment_names m where m.source_id = p.source_id))
                    from payment p),
                'reversals', (
                    select coalesce(jsonb_agg(to_jsonb(r) order by r.reversal_id), '[]')
                    from billing.payment_names m join billing.reversals r on r.payment_name = m.name
                    where m.source_id = n.source_id),
                'customer', (
                    select to_jsonb(c) from billing.customers c where c.customer_id = n.object_id),
                'subscription', (select to_jsonb(s) from subscription s),
                'items', (
                    select coalesce(jsonb_agg(to_jsonb(i) - 'subscription_id' order by i.as_of, i.item_id), '[]')
                    from billing.subscription_items i where i.subscription_id = n.object_id),
                'moves', (
                    select coalesce(jsonb_agg(to_jsonb(m) - 'subscription_id' order by m.number), '[]')
                    from billing.subscription_moves m where m.subscription_id = n.object_id),
                'payments', (
                    select coalesce(jsonb_agg(jsonb_build_object(
                        'source_id', p.source_id, 'user_id', p.user_id, 'paid_at', p.paid_at,
                        'amount_total', p.amount_total, 'amount_reversed', p.amount_reversed, 'currency', p.currency)
                        order by p.paid_at, p.source_id), '[]')
                    from subscription s join billing.payments p using (user_id, subscription_id)),
                'grants', (
                    select coalesce(jsonb_agg(to_jsonb(g) - 'spendable' - 'draw_rank' order by g.id), '[]')
                    from payment p join billing.credit_grants g using (user_id, source_id)),
                'transactions', (
                    select coalesce(jsonb_agg(to_jsonb(t) - 'hash' order by t.id), '[]')
                    from payment p
                    join billing.credit_transactions t using (user_id)
                    where n.source_id in (t.stripe_checkout_session_id, t.stripe_invoice_id, t.stripe_payment_intent_id)
                        or t.grant_id in (
                            select g.id from billing.credit_grants g
                            where g.user_id = p.user_id and g.source_id = p.source_id)))::text
            from named n";
        self.query_value(sql, &[id], READ_TIMEOUT).await
    }

    /// The outcome, as JSON, that an event of the inbox would have now, with nothing written; none if the inbox lacks it.
    pub(crate) async fn explain_inbox_event(&self, event_id: &str) -> Result<Option<String>, DatabaseError> {
        let sql = "select json_strip_nulls(to_json(result))::text
            from billing.stripe_events e
            cross join lateral billing.explain_event(e.payload, e.fetched) as result
            where e.event_id = $1";
        self.query_optional(sql, &[event_id], EVENT_TIMEOUT).await
    }
}
