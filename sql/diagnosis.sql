-- Functions for operators: does the ledger agree, what came of a session, how is the system doing.

-- Rule 14, in parts: what is wrong in the books, by user; place orders the faults of a user. A ledger row is checked
-- against the row before it, so that two changes that make up for each other show, each where it was made.
create function billing.ledger_faults() returns table (user_id uuid, place bigint, fault text)
language sql stable security definer set search_path = pg_catalog, pg_temp
as $$
    with chain as (
        select t.user_id, t.id, t.amount, t.balance_after,
            lag(t.id, 1, 0::bigint) over w as previous_id, lag(t.balance_after, 1, 0::bigint) over w as balance_before,
            t.recorded_at, lag(t.recorded_at) over w as recorded_before, lead(t.id) over w is null as is_last
        from billing.credit_transactions t
        window w as (partition by t.user_id order by t.id)
    )
    select c.user_id, c.id, format('ledger row %s follows row %s', c.id, c.previous_id)
    from chain c where c.id <> c.previous_id + 1
    union all
    select t.user_id, t.id, format('ledger row %s is of operation %s, which begins later', t.id, t.operation_id)
    from billing.credit_transactions t where t.operation_id > t.id
    union all
    select t.user_id, t.id, format('ledger row %s names a pool and no grant, or a grant and no pool', t.id)
    from billing.credit_transactions t where (t.grant_id is null) <> (t.pool is null)
    union all
    select c.user_id, c.id, format('ledger row %s: its balance_after is %s, but %s + %s is %s', c.id, c.balance_after,
        c.balance_before, c.amount, c.balance_before + c.amount)
    from chain c where c.balance_after <> c.balance_before + c.amount
    union all
    select c.user_id, c.id,
        format('ledger row %s: it was recorded at %s, but the row before it at %s', c.id, c.recorded_at, c.recorded_before)
    from chain c where c.recorded_at <= c.recorded_before
    union all
    select c.user_id, c.id, format('ledger row %s: it was recorded at %s, but the account''s last row at %s', c.id,
        c.recorded_at, a.last_recorded_at)
    from chain c join billing.accounts a using (user_id)
    where c.is_last and c.recorded_at > a.last_recorded_at
    union all
    select user_id, l.id, format('the last ledger row is %s, by the account it is %s', coalesce(l.id, 0),
        coalesce(a.last_transaction_id, 0))
    from (select c.user_id, c.id from chain c where c.is_last) l
    full join billing.accounts a using (user_id)
    where coalesce(l.id, 0) <> coalesce(a.last_transaction_id, 0)
    union all
    select t.user_id, t.id, format('ledger row %s: grant %s does not exist', t.id, t.grant_id)
    from billing.credit_transactions t
    left join billing.credit_grants g on g.user_id = t.user_id and g.id = t.grant_id
    where t.grant_id is not null and g.id is null
    union all
    select t.user_id, t.id, format('ledger row %s is of pool %s, its grant %s of pool %s', t.id, t.pool, g.id, g.pool)
    from billing.credit_transactions t
    join billing.credit_grants g on g.user_id = t.user_id and g.id = t.grant_id
    where g.pool <> t.pool
    union all
    -- What was paid for has its payment, and that is the user's, or bills a subscription of the user.
    select t.user_id, t.id,
        case when count(p.source_id) = 0
            then format('ledger row %s: payment %s does not exist', t.id,
                coalesce(t.stripe_checkout_session_id, t.stripe_invoice_id, t.stripe_payment_intent_id))
            else format('ledger row %s: payment %s belongs to user %s', t.id, min(p.source_id), min(p.user_id::text))
        end
    from billing.credit_transactions t
    join billing.credit_grants g on g.user_id = t.user_id and g.id = t.grant_id
    left join billing.payments p
        on p.source_id in (g.source_id, t.stripe_checkout_session_id, t.stripe_invoice_id) and p.paid_at is not null
    where t.transaction_type in ('purchase', 'subscription_grant', 'bonus')
        and num_nonnulls(t.stripe_checkout_session_id, t.stripe_invoice_id, t.stripe_payment_intent_id) > 0
    group by t.user_id, t.id
    -- An invoice may also bill another user's subscription, and a subscription may have moved since.
    having not coalesce(bool_or(p.user_id = t.user_id
        or exists (
            select from billing.invoice_lines l
            left join billing.subscription_moves m
                on m.subscription_id in (l.subscription_id, p.subscription_id)
            where l.source_id = p.source_id and t.user_id in (l.user_id, m.from_user))), false)
$$;
comment on function billing.ledger_faults() is
'The part of validate_credits_consistency() about ledger rows: ids count 1, 2, 3, each balance_after follows from the '
'row before, each row was recorded after it, operations begin before their rows end, grants and payments exist and '
'are the user''s.';

create function billing.grant_faults() returns table (user_id uuid, place bigint, fault text)
language sql stable security definer set search_path = pg_catalog, pg_temp
as $$
    with grants as (
        select g.user_id, g.id, g.remaining, g.amount,
            g.remaining + g.pending + g.set_aside + g.expired as held, g.drawn as counted, g.moved, g.settled,
            coalesce(sum(t.amount), 0) as posted,
            coalesce(-sum(t.amount) filter (
                where t.transaction_type in ('spend', 'reservation', 'release', 'spend_refund', 'debt_settlement')
                    or (t.transaction_type = 'adjustment' and t.amount < 0)), 0) as drawn,
            coalesce(-sum(t.amount) filter (where t.transaction_type = 'debt_settlement'), 0) as posted_settled
        from billing.credit_grants g
        left join billing.credit_transactions t on t.user_id = g.user_id and t.grant_id = g.id
        group by g.user_id, g.id
    )
    select g.user_id, g.id, format('grant %s: %s remain, its ledger rows sum to %s', g.id, g.remaining, g.posted)
    from grants g where g.remaining <> g.posted
    union all
    select g.user_id, g.id, format('grant %s: its amount is %s, its parts are %s and %s were drawn', g.id, g.amount,
        g.held, g.drawn)
    from grants g where g.held <> greatest(g.amount - g.drawn - g.moved, 0) or g.counted <> g.drawn
    union all
    select g.user_id, g.id, format('grant %s: %s of it settled debt, by its ledger rows %s', g.id, g.settled,
        g.posted_settled)
    from grants g where g.settled <> g.posted_settled
    union all
    select g.user_id, g.id, format('grant %s: %s were drawn of %s, of which %s settled debt and %s are owed', g.id, g.drawn,
        g.amount, g.settled, g.owed)
    from billing.credit_grants g where g.settled > g.drawn or g.owed > greatest(g.drawn + g.moved - g.amount, 0)
    union all
    select g.user_id, g.id, format('grant %s: by spendable and draw_rank it is drawn as no grant of its pool with %s left',
        g.id, g.remaining)
    from billing.credit_grants g
    where g.spendable <> (g.remaining > 0)
        or g.draw_rank <> array_position(array['subscription', 'promotional', 'purchased'], g.pool::text)
    union all
    select g.user_id, g.id, format('grant %s: its subscription, its item, its period and its part do not go together', g.id)
    from billing.credit_grants g
    where num_nonnulls(g.stripe_subscription_id, g.period_start, g.period_end) not in (0, 3)
        or g.stripe_subscription_id is null and num_nonnulls(g.stripe_item_id, g.part_start) > 0
    union all
    select g.user_id, g.id, format('grant %s: by matters_until, %s, a change would miss it', g.id, g.matters_until)
    from billing.credit_grants g
    where (g.matters_until is not null)
            <> (g.stripe_subscription_id is not null or (g.source_id, g.item) = ('trial', 'trial'))
        or g.matters_until < greatest(g.period_end, g.closed_at, g.needed_by)
        or g.closed_at is null and g.pool <> 'purchased' and g.matters_until <> 'infinity'
    union all
    select g.user_id, g.id, format('grant %s: moved_with and kept do not go together', g.id)
    from billing.credit_grants g where (g.moved_with is null) <> (g.kept is null)
    union all
    select counted.user_id, missing.id, format('grant %s is missing', missing.id)
    from (
        select a.user_id, a.last_grant_id, count(g.id) as grants
        from billing.accounts a left join billing.credit_grants g using (user_id)
        group by a.user_id, a.last_grant_id
    ) counted
    cross join lateral (
        select n as id from generate_series(1, counted.last_grant_id) n
        where not exists (select from billing.credit_grants g where g.user_id = counted.user_id and g.id = n)
    ) missing
    where counted.grants <> counted.last_grant_id
    union all
    select g.user_id, g.id, format('grant %s: by the account the last one is %s', g.id, coalesce(a.last_grant_id, 0))
    from billing.credit_grants g left join billing.accounts a using (user_id)
    where g.id > coalesce(a.last_grant_id, 0)
$$;
comment on function billing.grant_faults() is
'The part of validate_credits_consistency() about grants: ids count 1, 2, 3, the ledger rows of each sum to what '
'remains of it, its amount is its parts and what was drawn, and its columns say one thing: what was settled and is owed '
'was drawn, it is drawn in its place, and its period and its move are whole.';

create function billing.payment_faults() returns table (user_id uuid, place bigint, fault text)
language sql stable security definer set search_path = pg_catalog, pg_temp
as $$
    -- A pack: what its payment bought, by the best evidence, less the part of the money that came back.
    select p.user_id, 0::bigint, format('payment %s has a worth and no evidence of it, or evidence and no worth', p.source_id)
    from billing.payments p where (p.worth is null) <> (p.evidence is null)
    union all
    select p.user_id, 0::bigint, format('payment %s is worth %s, its grants say that it bought %s', p.source_id, p.worth,
        coalesce(sum(g.bought), 0))
    from billing.payments p
    left join billing.credit_grants g on g.user_id = p.user_id and g.source_id = p.source_id
    where p.worth is not null and p.paid_at is not null
    group by p.source_id
    having coalesce(sum(g.bought), 0) <> p.worth
    union all
    select g.user_id, g.id, format('grant %s: its amount is %s, but it bought %s, of which %s is left', g.id, g.amount,
        g.bought, counted.credits)
    from billing.credit_grants g
    left join billing.payments p on p.source_id = g.source_id and p.worth is not null
    cross join lateral (
        select case
            when p.source_id is null then 0
            when p.amount_charged > 0 then div(
                g.bought::numeric * (p.amount_charged - least(p.amount_reversed, p.amount_charged)), p.amount_charged)
            else g.bought end as credits
    ) counted
    where g.bought is not null and g.amount <> counted.credits
    union all
    -- What was given, not paid for: no fact but its first ledger row says how much.
    select g.user_id, g.id, format('grant %s: its amount is %s, the ledger gave it %s', g.id, g.amount, given.credits)
    from billing.credit_grants g
    cross join lateral (
        select coalesce(sum(t.amount), 0) as credits from billing.credit_transactions t
        where t.user_id = g.user_id and t.grant_id = g.id
            and (t.transaction_type in ('signup', 'grant', 'import')
                or t.transaction_type = 'adjustment' and t.amount > 0)
    ) given
    where g.bought is null and g.stripe_subscription_id is null and g.amount <> given.credits
        and (g.source_id, g.item) not in (('trial', 'trial'), ('first_purchase_bonus', 'first_purchase_bonus'))
        -- A pack on a subscription's invoice counts with the invoice's lines.
        and not exists (select from billing.invoice_lines l where l.source_id = g.source_id)
    union all
    select l.user_id, 0, format('line %s of %s: it was paid at %s, the payment at %s', l.line, l.source_id, l.paid_at,
        p.paid_at)
    from billing.invoice_lines l join billing.payments p using (source_id)
    where l.paid_at is distinct from p.paid_at
    union all
    select l.user_id, 0, format('line %s of %s counts for user %s, its subscription %s is user %s''s', l.line, l.source_id,
        l.user_id, s.subscription_id, s.user_id)
    from billing.invoice_lines l join billing.subscriptions s using (subscription_id)
    where l.user_id <> s.user_id
    union all
    select p.user_id, 0, format('payment %s belongs to user %s, its lines to %s', p.source_id, p.user_id,
        string_agg(distinct l.user_id::text, ', '))
    from billing.payments p
    join billing.invoice_lines l using (source_id)
    left join billing.subscriptions s on s.subscription_id = p.subscription_id
    group by p.source_id, p.user_id, s.user_id
    having not bool_or(l.user_id = p.user_id) and s.user_id is distinct from p.user_id
$$;
comment on function billing.payment_faults() is
'The part of validate_credits_consistency() about packs and gifts: the grants of a payment say that it bought what it '
'is worth, the amount of each is that less what came back, and the amount of a gift is what the ledger gave. The lines '
'of a payment say when it was made, count for the user who has their subscription, and the payment is one of theirs.';

create function billing.reservation_faults() returns table (user_id uuid, place bigint, fault text)
language sql stable security definer set search_path = pg_catalog, pg_temp
as $$
    with posted as (
        select t.user_id, t.request_id, min(t.id) as id,
            coalesce(-sum(t.amount) filter (where t.transaction_type = 'reservation'), 0) as drawn,
            coalesce(sum(t.amount) filter (where t.transaction_type = 'release'), 0) as returned
        from billing.credit_transactions t
        where t.transaction_type in ('reservation', 'release')
        group by t.user_id, t.request_id
    )
    select user_id, p.id,
        case when r.amount is null then format('ledger row %s: reservation %s does not exist', p.id, request_id)
            when p.id is null then format('reservation %s has no ledger row', request_id)
            else format('reservation %s: %s held, %s and %s returned, its ledger rows say %s and %s', request_id,
                r.status, r.amount, returned.credits, p.drawn, p.returned)
        end
    from billing.reservations r
    full join posted p using (user_id, request_id)
    cross join lateral (
        select case when r.status <> 'held' then r.amount - r.committed else 0 end as credits
    ) returned
    where r.amount is distinct from p.drawn or returned.credits is distinct from p.returned
$$;
comment on function billing.reservation_faults() is
'The part of validate_credits_consistency() about reservations: each has ledger rows, and they say the same.';

create function billing.outbox_faults() returns table (user_id uuid, place bigint, fault text)
language sql stable security definer set search_path = pg_catalog, pg_temp
as $$
    select o.user_id, o.id, format('outbox row %s is %s, and ended at %s', o.id, o.state, o.ended_at)
    from billing.outbox o where (o.state = 'pending') <> (o.ended_at is null)
    union all
    select o.user_id, o.id, format('outbox row %s: by the account the last one is %s', o.id, coalesce(a.last_outbox_id, 0))
    from billing.outbox o left join billing.accounts a using (user_id)
    where o.user_id <> '00000000-0000-0000-0000-000000000000' and o.id > coalesce(a.last_outbox_id, 0)
$$;
comment on function billing.outbox_faults() is
'The part of validate_credits_consistency() about the outbox: no row is numbered after the account''s last one.';

create function billing.top_up_faults() returns table (user_id uuid, place bigint, fault text)
language sql stable security definer set search_path = pg_catalog, pg_temp
as $$
    select t.user_id, t.id, format('top-up %s is %s, and ended at %s', t.id, t.state, t.ended_at)
    from billing.top_ups t where (t.state in ('requested', 'paid')) <> (t.ended_at is null)
    union all
    select t.user_id, t.id, format('top-up %s is %s, and names no payment intent', t.id, t.state)
    from billing.top_ups t where t.state in ('paid', 'succeeded') and t.payment_intent_id is null
    union all
    select t.user_id, t.id, format('top-up %s: by the account the last one is %s', t.id, coalesce(a.last_outbox_id, 0))
    from billing.top_ups t left join billing.accounts a using (user_id) where t.id > coalesce(a.last_outbox_id, 0)
    union all
    -- A payment counts under one of its names, which need not be this one by now.
    select t.user_id, t.id, format('top-up %s succeeded, but payment intent %s paid for nothing of the user', t.id,
        t.payment_intent_id)
    from billing.top_ups t
    where t.state = 'succeeded' and not exists (
        select from billing.payment_names n join billing.payments p using (source_id)
        where n.name = t.payment_intent_id and p.paid_at is not null and p.user_id = t.user_id)
    union all
    select t.user_id, t.id, format('payment intent %s paid for top-ups %s and %s', t.payment_intent_id, t.id, o.id)
    from billing.top_ups t
    join billing.top_ups o on o.user_id = t.user_id and o.payment_intent_id = t.payment_intent_id and o.id > t.id
$$;
comment on function billing.top_up_faults() is
'The part of validate_credits_consistency() about top-ups: what succeeded was paid, by a payment intent of its own.';

create function billing.balance_faults()
returns table (user_id uuid, stored bigint, calculated bigint, fault text)
language sql stable security definer set search_path = pg_catalog, pg_temp
as $$
    -- Σ ledger = Σ grants' remaining − debt = cached balance, the cached pools are the grants' pools, and the debt is what
    -- the grants owe. If the ledger agrees and the grants do not, the calculated balance is that of the grants.
    with ledger as (
        select t.user_id, sum(t.amount)::bigint as balance,
            coalesce(-sum(t.amount) filter (where t.grant_id is null), 0)::bigint as debt
        from billing.credit_transactions t group by t.user_id
    ), grants as (
        select g.user_id, sum(g.remaining)::bigint as balance,
            array[coalesce(sum(g.remaining) filter (where g.pool = 'subscription'), 0),
                coalesce(sum(g.remaining) filter (where g.pool = 'purchased'), 0),
                coalesce(sum(g.remaining) filter (where g.pool = 'promotional'), 0)]::bigint[] as pools
        from billing.credit_grants g group by g.user_id
    ), owed as (
        select g.user_id, greatest(sum(g.owed) - sum(g.settled), 0)::bigint as debt
        from billing.credit_grants g where g.owed > 0 or g.settled > 0 group by g.user_id
    ), balances as (
        select user_id, a.user_id is not null as has_account, coalesce(o.debt, 0) as owed,
            coalesce(a.subscription_credits + a.purchased_credits + a.promotional_credits - a.debt, 0) as stored,
            coalesce(l.balance, 0) as ledger,
            coalesce(g.balance, 0) - coalesce(a.debt, 0) as granted,
            coalesce(a.debt, 0) as debt,
            coalesce(l.debt, 0) as ledger_debt,
            array[a.subscription_credits, a.purchased_credits, a.promotional_credits]::bigint[] as pools,
            coalesce(g.pools, '{0,0,0}') as granted_pools
        from billing.accounts a
        full join ledger l using (user_id)
        full join grants g using (user_id)
        left join owed o using (user_id)
    )
    select b.user_id, b.stored, case when b.ledger <> b.stored then b.ledger else b.granted end,
        nullif(concat_ws('; ',
            case when not b.has_account then 'there is no account' end,
            case when b.stored <> b.ledger or b.stored <> b.granted then format(
                'the cached balance is %s, the ledger''s %s, the grants'' %s', b.stored, b.ledger, b.granted) end,
            case when b.pools <> b.granted_pools then format(
                'the cached pools are %s, the grants'' %s (subscription, purchased, promotional)', b.pools,
                b.granted_pools) end,
            case when b.debt <> b.ledger_debt then format(
                'the cached debt is %s, the ledger''s %s', b.debt, b.ledger_debt) end,
            case when b.debt <> b.owed then format(
                'the cached debt is %s, but the grants owe %s', b.debt, b.owed) end), '')
    from balances b
$$;
comment on function billing.balance_faults() is
'The part of validate_credits_consistency() about balances: a row per user; fault is null if ledger, grants and the '
'cached balances agree.';

create function billing.validate_credits_consistency()
returns table (user_id uuid, stored_balance bigint, calculated_balance bigint, difference bigint, detail text)
language sql stable security definer set search_path = pg_catalog, pg_temp
as $$
    with balances as materialized (
        select * from billing.balance_faults()
    ), numbered as (
        select f.user_id, f.fault, row_number() over (partition by f.user_id order by f.part, f.place, f.fault) as number
        from (
            select 1 as part, b.user_id, 0::bigint as place, b.fault from balances b where b.fault is not null
            union all
            select 2, l.* from billing.ledger_faults() l
            union all
            select 2, c.* from billing.chain_faults() c
            union all
            select 3, g.* from billing.grant_faults() g
            union all
            select 4, w.* from billing.worth_faults() w
            union all
            select 5, p.* from billing.payment_faults() p
            union all
            select 6, r.* from billing.reservation_faults() r
            union all
            select 7, o.* from billing.outbox_faults() o
            union all
            select 8, t.* from billing.top_up_faults() t
        ) f
    ), details as (
        -- The first faults say where to look; a chain that is cut has as many as rows behind the cut.
        select n.user_id, string_agg(n.fault, '; ' order by n.number) filter (where n.number <= 10)
            || case when count(*) > 10 then format('; and %s more', count(*) - 10) else '' end as detail
        from numbered n group by n.user_id
    )
    select d.user_id, coalesce(b.stored, 0), coalesce(b.calculated, 0), coalesce(b.stored - b.calculated, 0), d.detail
    from details d
    left join balances b on b.user_id = d.user_id
    order by d.user_id
$$;
comment on function billing.validate_credits_consistency() is
'Proves the books. No row if, for every user: Σ ledger = Σ grants'' remaining − debt = cached balance; every ledger '
'row''s balance_after and hash follow from the row before; every grant''s ledger rows sum to what remains of it, its amount is '
'its parts and what was drawn, and is what its facts are worth, all of them computed anew; rows, grants, payments and '
'reservations that one of them names exist. Otherwise a row per user that differs, and detail says what does: up to '
'10 faults. Run it in a transaction of its own, in which it sees one state of the books.';

create function billing.explain_checkout_session(p_session_id text) returns jsonb
language plpgsql stable security definer set search_path = pg_catalog, pg_temp
as $$
declare
    v_source_id text;
begin
    perform billing.require_named(p_session_id, 'p_session_id');
    -- The payment may have been claimed under another of its names.
    v_source_id := coalesce(
        (select n.source_id from billing.payment_names n where n.name = p_session_id), p_session_id);
    return jsonb_build_object(
        'session_id', p_session_id,
        'events', (
            select coalesce(jsonb_agg(jsonb_build_object(
                'event_id', e.event_id, 'type', e.type, 'created', e.created, 'outcome', e.outcome,
                'reason', e.reason, 'user_id', e.user_id, 'attempts', e.attempts,
                'first_received_at', e.first_received_at, 'applied_at', e.applied_at, 'details', e.details)
                order by e.first_received_at, e.event_id), '[]')
            from billing.stripe_events e where e.object_id = p_session_id),
        'payment', (
            select to_jsonb(p) || (
                select jsonb_build_object('names', coalesce(jsonb_agg(n.name order by n.name), '[]'),
                    'payment_intent_ids',
                    coalesce(jsonb_agg(n.name order by n.name) filter (where n.kind = 'payment_intent'), '[]'))
                from billing.payment_names n where n.source_id = p.source_id)
            from billing.payments p where p.source_id = v_source_id),
        'reversals', (
            select coalesce(jsonb_agg(to_jsonb(r) order by r.reversal_id), '[]')
            from billing.payment_names n join billing.reversals r on r.payment_name = n.name
            where n.source_id = v_source_id),
        'grants', (
            select coalesce(jsonb_agg(to_jsonb(g) - 'spendable' - 'draw_rank' - 'matters_until' order by g.id), '[]')
            from billing.payments p
            join billing.credit_grants g on g.user_id = p.user_id and g.source_id = p.source_id
            where p.source_id = v_source_id),
        'transactions', (
            select coalesce(jsonb_agg(to_jsonb(t) order by t.id), '[]')
            from billing.credit_transactions t where t.stripe_checkout_session_id = p_session_id),
        'balance_effect', (
            select coalesce(sum(t.amount), 0)::bigint
            from billing.credit_transactions t where t.stripe_checkout_session_id = p_session_id));
end
$$;
comment on function billing.explain_checkout_session(text) is
'Everything known of a checkout session: its events with their outcomes, the payment, the reversals, the grants, the '
'ledger rows, the effect on the balance in credits. Errors: 22004 null, 22023 blank or too long.';

create function billing.credit_system_metrics(p_window interval default '1 hour') returns jsonb
language plpgsql stable security definer set search_path = pg_catalog, pg_temp
as $$
declare
    v_since timestamptz;
begin
    perform billing.require_positive(p_window, 'p_window');
    v_since := statement_timestamp() - p_window;
    return (
        -- Everything here reads an index or the window, never the whole inbox or ledger.
        select jsonb_build_object(
            'window', p_window,
            'parked_events', count(*) filter (where w.outcome = 'parked'),
            'needs_fetch_events', count(*) filter (where w.outcome = 'needs_fetch'),
            'oldest_waiting_at', min(w.first_received_at),
            'parked_by_reason', (
                select coalesce(jsonb_object_agg(r.reason, r.n), '{}')
                from (
                    select e.reason, count(*) as n from billing.stripe_events e
                    where e.outcome = 'parked' and e.judged_at >= '-infinity' and e.reason is not null
                    group by e.reason
                ) r))
        -- Everything was judged at some time: said, because the index of what waits is read by that.
        from billing.stripe_events w
        where w.outcome in ('parked', 'needs_fetch') and w.judged_at >= '-infinity'
    ) || (
        select jsonb_build_object(
            'events', count(*),
            'events_applied', count(*) filter (where e.outcome = 'applied'),
            'events_ignored', count(*) filter (where e.outcome = 'ignored'),
            'events_rejected', count(*) filter (where e.outcome = 'rejected'),
            'redeliveries', coalesce(sum(e.attempts - 1), 0))
        from billing.stripe_events e where e.first_received_at >= v_since
    ) || (
        select jsonb_build_object(
            'transactions', count(*),
            'credits_granted', coalesce(sum(t.amount) filter (where t.amount > 0), 0),
            'credits_taken', coalesce(-sum(t.amount) filter (where t.amount < 0), 0))
        from billing.credit_transactions t where t.created_at >= v_since
    ) || (
        select jsonb_build_object('outbox_pending', count(*), 'outbox_oldest_pending_at', min(o.created_at))
        from billing.outbox o where o.state = 'pending'
    ) || jsonb_build_object(
        'outbox_dead', (
            select count(*) from billing.outbox o where o.state = 'dead'),
        'accounts_due', (
            select count(*) from billing.accounts a where a.next_due_at <= statement_timestamp()));
end
$$;
comment on function billing.credit_system_metrics(interval) is
'What waits now and why, and how many events, ledger rows and credits there were within p_window, by default the '
'last hour. Errors: 22004 null, 22023 not above 0.';

create function billing.balance_at(p_user_id uuid, p_at timestamptz) returns bigint
language plpgsql stable security definer set search_path = pg_catalog, pg_temp
as $$
begin
    perform billing.require_given(p_user_id, 'p_user_id');
    perform billing.require_given(p_at, 'p_at');
    -- Rows are in the order in which operations locked the account, so the last row up to then has the balance.
    return coalesce((
        select t.balance_after from billing.credit_transactions t
        where t.user_id = p_user_id and t.created_at <= p_at
        order by t.id desc limit 1), 0);
end
$$;
comment on function billing.balance_at(uuid, timestamptz) is
'A user''s balance, Σ remaining − debt, as of a time, from the ledger alone; 0 before its first row. Errors: 22004 '
'null.';
