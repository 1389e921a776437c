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

-- What becomes spendable at some time, spendable already, or given back: in draw order.
create function billing.lots_by(p_user_id uuid, p_now timestamptz)
returns table (
    source_id text, item text, pool text, credits bigint, starts_at timestamptz, ends_at timestamptz, is_back boolean
)
language sql stable strict set search_path = pg_catalog, pg_temp
as $$
    with lots as (
        select g.source_id, g.item, g.pool, g.remaining as credits, '-infinity'::timestamptz as starts_at,
            g.expires_at as ends_at, false as is_back, g.priority_at, g.draw_rank, g.id
        from billing.credit_grants g
        where g.user_id = p_user_id and g.spendable
        union all
        -- Periods, and parts of them.
        select g.source_id, g.item, g.pool, g.pending, g.available_from, g.expires_at, false, g.priority_at, g.draw_rank,
            g.id
        from billing.credit_grants g
        where g.user_id = p_user_id and g.pending > 0
        union all
        -- Expired reservations.
        select g.source_id, g.item, g.pool, -t.amount, r.expires_at, g.expires_at, true, g.priority_at, g.draw_rank, g.id
        from billing.reservations r
        join billing.credit_transactions t
            on t.user_id = r.user_id and t.request_id = r.request_id and t.transaction_type = 'reservation'
        join billing.credit_grants g on g.user_id = t.user_id and g.id = t.grant_id
        where r.user_id = p_user_id and r.status = 'held' and r.expires_at <= p_now
        union all
        -- Months of the free plan, counted from the signup. One that was granted before is not granted again.
        select 'free_plan', '', 'promotional', f.credits, m.start, m.finish, false, m.finish, 2::smallint, 0
        from billing.accounts a
        cross join billing.free_plan() f
        cross join lateral (
            select a.signed_up_at + n * f.every as start, a.signed_up_at + (n + 1) * f.every as finish
            -- Months are longer than 28 of the 30 days that an interval's epoch counts.
            from generate_series(0, ceil(
                extract(epoch from p_now - a.signed_up_at) / extract(epoch from f.every) * 30 / 28)::integer) n
        ) m
        where a.user_id = p_user_id and a.tier = 'free' and m.start between a.free_next_at and p_now
            and not exists (
                select from billing.credit_grants g
                where g.user_id = a.user_id and g.source_id = 'free_plan' and g.expires_at = m.finish)
    )
    select l.source_id, l.item, l.pool, l.credits, l.starts_at, l.ends_at, l.is_back
    from lots l order by l.priority_at, l.draw_rank, l.id
$$;
comment on function billing.lots_by(uuid, timestamptz) is
'What a user has or will have had by a time, in draw order, as far as the caller may read it; part of user_credits. '
'is_back: what an expired reservation returns.';

create function billing.balances_by(p_user_id uuid, p_now timestamptz)
returns table (subscription bigint, purchased bigint, promotional bigint, debt bigint)
language plpgsql stable strict rows 1 set search_path = pg_catalog, pg_temp
as $$
declare
    v_names text[];
    v_pools text[];
    v_credits bigint[];
    v_starts timestamptz[];
    v_ends timestamptz[];
    v_is_back boolean[];
    v_to_set_aside jsonb;
    v_debt bigint;
    v_at timestamptz;
    v_sweep jsonb;
    v_name text;
    v_stays bigint;
    v_taken bigint;
begin
    select a.debt, coalesce(a.to_set_aside, '[]') into v_debt, v_to_set_aside
    from billing.accounts a where a.user_id = p_user_id;
    select coalesce(array_agg(jsonb_build_array(l.source_id, l.item)::text), '{}'), coalesce(array_agg(l.pool), '{}'),
        coalesce(array_agg(l.credits), '{}'), coalesce(array_agg(l.starts_at), '{}'),
        coalesce(array_agg(coalesce(l.ends_at, 'infinity')), '{}'), coalesce(array_agg(l.is_back), '{}')
    into v_names, v_pools, v_credits, v_starts, v_ends, v_is_back
    from billing.lots_by(p_user_id, p_now) l;
    -- Time by time, as posting does: what expires, what periods set aside as they open, what then settles debt.
    for v_at in
        select t.at from unnest(v_starts || v_ends) t (at) where t.at between '0001-01-01' and p_now
        union
        select (s ->> 'at')::timestamptz from jsonb_array_elements(v_to_set_aside) s
        where (s ->> 'at')::timestamptz <= p_now
        order by 1
    loop
        for i in 1 .. cardinality(v_names) loop
            if v_ends[i] <= v_at then
                v_credits[i] := 0;
            end if;
        end loop;
        for v_sweep in
            select s.value from jsonb_array_elements(v_to_set_aside) with ordinality s (value, place)
            where (s.value ->> 'at')::timestamptz = v_at order by s.place
        loop
            v_stays := (v_sweep ->> 'stays')::bigint;
            for v_name in select g.value::text from jsonb_array_elements(v_sweep -> 'grants') g loop
                for i in 1 .. cardinality(v_names) loop
                    if v_names[i] = v_name and not (v_is_back[i] and v_starts[i] >= v_at) then
                        v_credits[i] := least(v_credits[i], v_stays);
                        v_stays := v_stays - v_credits[i];
                    end if;
                end loop;
            end loop;
        end loop;
        for i in 1 .. cardinality(v_names) loop
            if v_starts[i] <= v_at then
                v_taken := least(v_credits[i], v_debt);
                v_credits[i] := v_credits[i] - v_taken;
                v_debt := v_debt - v_taken;
            end if;
        end loop;
    end loop;
    return query
        select coalesce(sum(l.credits) filter (where l.pool = 'subscription'), 0)::bigint,
            coalesce(sum(l.credits) filter (where l.pool = 'purchased'), 0)::bigint,
            coalesce(sum(l.credits) filter (where l.pool = 'promotional'), 0)::bigint, v_debt
        from unnest(v_pools, v_credits, v_starts, v_ends) l (pool, credits, starts_at, ends_at)
        where l.starts_at <= p_now and l.ends_at > p_now;
end
$$;
comment on function billing.balances_by(uuid, timestamptz) is
'What a user''s balances and debt are once everything is posted that time alone has caused by then, as far as the '
'caller may read it; part of user_credits, for accounts in which something is due.';

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
    live.debt,
    coalesce(cycle.customer_id, linked.customer_id) as stripe_customer_id,
    cycle.subscription_id::text as stripe_subscription_id,
    cycle.price_id as stripe_price_id
from billing.accounts a
cross join lateral (
    select case when a.test_clock is null then statement_timestamp() else billing.account_time(a.test_clock) end as at
) now
cross join lateral (
    -- Where nothing is due, the grants say it.
    select coalesce(sum(g.remaining) filter (where g.pool = 'subscription'), 0)::bigint as subscription,
        coalesce(sum(g.remaining) filter (where g.pool = 'purchased'), 0)::bigint as purchased,
        coalesce(sum(g.remaining) filter (where g.pool = 'promotional'), 0)::bigint as promotional, a.debt::bigint as debt
    from billing.credit_grants g
    where g.user_id = a.user_id and g.spendable and (g.expires_at is null or g.expires_at > now.at)
    having (a.next_due_at <= now.at) is not true
    union all
    select b.subscription, b.purchased, b.promotional, b.debt
    from billing.balances_by(case when a.next_due_at <= now.at then a.user_id end, now.at) b
) live
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
        where p.price_id = s.catalog_id order by p.valid_from desc limit 1
    ) p on true
    where s.user_id = a.user_id and s.status in ('active', 'trialing', 'past_due') and s.price_id is not null
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
