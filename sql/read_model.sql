-- The read model: balances at the time of reading, without expired credits, posted or not.

create function billing.current_user_id() returns uuid
language sql stable security definer set search_path = pg_catalog, pg_temp
as $$
    -- After its first use in a pooled session, an unset parameter reads '', not null.
    select case when token.sub ~ '\S' then billing.user_id(token.sub) end
    from (select nullif(current_setting('request.jwt.claims', true), '')::jsonb ->> 'sub') as token (sub)
$$;
comment on function billing.current_user_id() is
'The user of the request: the sub of request.jwt.claims, as Supabase''s auth.uid() reads it, by '
'billing.user_id; null if it names nobody. A role that may run SET '
'can forge it, so client roles are for PostgREST only.';

-- Every client may read it: it is on the pricing page.
create function billing.free_plan() returns table (credits bigint, every interval)
language sql stable security definer rows 1 set search_path = pg_catalog, pg_temp
as $$
    select s.free_plan_credits, s.free_plan_every from billing.settings s where s.free_plan_credits > 0
$$;
comment on function billing.free_plan() is
'What users without a plan get, by the catalog; no row if that is nothing.';

create function billing.unposted(p_user_id uuid, p_now timestamptz)
returns table (pool text, credits bigint, up_to_here bigint)
language sql stable strict rows 1 set search_path = pg_catalog, pg_temp
as $$
    -- Debt is settled from the first of it, also from what has expired since, which is in no pool.
    with due as (
        -- Expired reservations.
        select g.pool, -t.amount as credits, g.expires_at, g.priority_at, g.draw_rank, t.id
        from billing.reservations r
        join billing.credit_transactions t
            on t.user_id = r.user_id and t.request_id = r.request_id and t.transaction_type = 'reservation'
        join billing.credit_grants g on g.user_id = t.user_id and g.id = t.grant_id
        where r.user_id = p_user_id and r.status = 'held' and r.expires_at <= p_now
            and (g.expires_at is null or g.expires_at > p_now)
        union all
        -- Parts of a period's credits.
        select g.pool, g.pending, g.expires_at, g.priority_at, g.draw_rank, g.id
        from billing.credit_grants g
        where g.user_id = p_user_id and g.pending > 0 and g.available_from <= p_now
        union all
        -- Months of the free plan.
        select 'promotional', f.credits, m.start + f.every, m.start + f.every, 2::smallint, 0
        from billing.accounts a
        cross join billing.free_plan() f
        cross join lateral generate_series(a.free_next_at, p_now, f.every) m (start)
        where a.user_id = p_user_id and a.tier = 'free' and a.signed_up_at is not null
    )
    select case when d.expires_at is null or d.expires_at > p_now then d.pool end, d.credits,
        (sum(d.credits) over (
            order by d.expires_at <= p_now desc, d.priority_at, d.draw_rank, d.id))::bigint
    from due d
$$;
comment on function billing.unposted(uuid, timestamptz) is
'What is due at a time for a user and not posted yet, as far as the caller may read it; part of user_credits. Expired '
'reservations, parts of a period''s credits, months of the free plan. up_to_here is the running sum in draw order, '
'of which debt is settled first.';

create view billing.user_credits with (security_invoker = true) as
select
    a.user_id,
    a.tier as subscription_tier,
    a.subscription_status,
    live.subscription + live.purchased + live.promotional as credits_balance,
    live.subscription as subscription_credits_balance,
    live.purchased as purchased_credits_balance,
    live.promotional as promotional_credits_balance,
    coalesce(cycle.credits, 0) as monthly_credits_per_cycle,
    greatest(coalesce(cycle.credits, 0) - live.subscription, 0) as monthly_credits_used,
    bonus.total as bonus_credits_total,
    bonus.total - live.purchased - live.promotional as bonus_credits_used,
    cycle.current_period_start as cycle_start_at,
    cycle.current_period_end as cycle_end_at,
    greatest(a.debt - due.credits, 0)::bigint as debt,
    coalesce(cycle.customer_id, linked.customer_id) as stripe_customer_id,
    cycle.subscription_id::text as stripe_subscription_id,
    cycle.price_id as stripe_price_id
from billing.accounts a
cross join lateral (
    select case when a.test_clock is null then statement_timestamp() else billing.account_time(a.test_clock) end as at
) now
cross join lateral (
    select
        coalesce(sum(c.credits) filter (where c.pool = 'subscription'), 0)::bigint as subscription,
        coalesce(sum(c.credits) filter (where c.pool = 'purchased'), 0)::bigint as purchased,
        coalesce(sum(c.credits) filter (where c.pool = 'promotional'), 0)::bigint as promotional
    from (
        select g.pool, g.remaining as credits
        from billing.credit_grants g
        where g.user_id = a.user_id and g.spendable
            and (g.expires_at is null or g.expires_at > now.at)
        union all
        select u.pool, greatest(least(u.credits, u.up_to_here - a.debt), 0)::bigint
        from billing.unposted(case when a.next_due_at <= now.at then a.user_id end, now.at) u
    ) c
) live
cross join lateral (
    select coalesce(sum(u.credits), 0) as credits
    from billing.unposted(case when a.next_due_at <= now.at then a.user_id end, now.at) u
) due
cross join lateral (
    select coalesce(sum(g.amount), 0)::bigint as total
    from billing.credit_grants g
    where g.user_id = a.user_id and g.pool in ('purchased', 'promotional')
) bonus
left join lateral (
    select s.subscription_id, s.customer_id, s.price_id, s.current_period_start, s.current_period_end,
        p.credits * s.quantity as credits
    from billing.subscriptions s
    left join lateral (
        select p.credits from billing.prices p
        where p.price_id = s.price_id order by p.valid_from desc limit 1
    ) p on true
    where s.user_id = a.user_id and s.status in ('active', 'trialing', 'past_due')
    order by s.rank desc nulls last, s.as_of desc, s.subscription_id
    limit 1
) cycle on true
left join lateral (
    select c.customer_id from billing.customers c
    where c.user_id = a.user_id order by c.as_of desc, c.customer_id limit 1
) linked on true;
comment on view billing.user_credits is
'The read model: what each user has now, without expired credits, posted or not. bonus_* adds purchased and '
'promotional credits; expired credits count as used.';

create function billing.my_transactions(p_limit integer default 50, p_before bigint default null)
returns setof billing.credit_transactions
language sql stable security definer set search_path = pg_catalog, pg_temp
as $$
    select t.* from billing.credit_transactions t
    where t.user_id = billing.current_user_id() and (p_before is null or t.id < p_before)
    order by t.id desc
    limit least(greatest(coalesce(p_limit, 50), 0), 1000)
$$;
comment on function billing.my_transactions(integer, bigint) is
'The caller''s ledger rows, newest first.
  p_limit   rows, at most 1000, by default 50
  p_before  only rows with a smaller id: the last id of the page before';

create view billing.user_payments with (security_invoker = true) as
select
    p.user_id,
    p.source_id::text as source_id,
    p.paid_at,
    p.amount_total as amount,
    p.currency,
    -- Of amount_charged, which is the amount unless only the charge tells it.
    p.amount_reversed as refunded,
    (
        select coalesce(sum(t.amount), 0)::bigint from billing.credit_transactions t
        -- Of any user: its subscription may have moved since.
        where p.source_id in (t.stripe_invoice_id, t.stripe_checkout_session_id)
            and t.transaction_type in ('purchase', 'subscription_grant', 'bonus')
    ) as credits,
    coalesce(
        (
            select string_agg(distinct coalesce((
                select c.name from billing.prices c
                where c.price_id = g.item order by c.valid_from desc limit 1), g.item), ', ')
            from billing.credit_grants g
            where g.user_id = p.user_id and g.source_id = p.source_id
        ), (
            select string_agg(distinct coalesce(c.name, l.price_id), ', ')
            from billing.invoice_lines l
            left join lateral (
                select c.name, c.kind from billing.prices c
                where c.price_id in (l.price_id, l.product_id)
                order by c.price_id = l.price_id desc, c.valid_from desc limit 1
            ) c on true
            where l.source_id = p.source_id and c.kind is distinct from 'not_credits'
        )) as description
from billing.payments p
where p.paid_at is not null;
comment on view billing.user_payments is
'What was paid for, by session or invoice: amount and refunded in the currency''s minor units, refunded by refunds '
'and disputes; credits as granted, spent or not; description by the catalog''s names.';

-- SECURITY DEFINER, as my_transactions, so that clients need no rights on the tables of payments and reversals.
create function billing.my_payments(p_limit integer default 50, p_before timestamptz default null)
returns table (
    source_id text, paid_at timestamptz, amount bigint, currency text, refunded bigint, credits bigint, description text
)
language sql stable security definer set search_path = pg_catalog, pg_temp
as $$
    select p.source_id, p.paid_at, p.amount, p.currency, p.refunded, p.credits, p.description
    from billing.user_payments p
    where p.user_id = billing.current_user_id() and (p_before is null or p.paid_at < p_before)
    order by p.paid_at desc
    -- With ties, so that the next page, which starts before the last paid_at, leaves none out.
    fetch first (least(greatest(coalesce(p_limit, 50), 0), 1000)) rows with ties
$$;
comment on function billing.my_payments(integer, timestamptz) is
'The caller''s payments, newest first: amount and refunded in minor units of the currency, the credits that were '
'granted, what was bought. The user is the JWT''s sub, never an argument.
  p_limit   rows, at most 1000, by default 50; payments of the same moment as the last come with it
  p_before  only payments before this time: the last paid_at of the page before';
