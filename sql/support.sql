-- Functions for support: whose is it, what became of it and why, what waits. The console, `stripe-credits explain` and psql
-- say the same, because all of them show what these return.

-- What a payment bills, line by line, and what each line is worth.
create function billing.payment_lines(p_source_id text) returns jsonb
language plpgsql stable security definer set search_path = pg_catalog, pg_temp
as $$
begin
    perform billing.require_named(p_source_id, 'p_source_id');
    return (
        select coalesce(jsonb_agg(l.line order by l.place), '[]')
        from (
            select l.line as place, jsonb_strip_nulls(jsonb_build_object(
                'price_id', coalesce(l.price_id, l.product_id), 'name', c.name, 'quantity', l.quantity,
                'amount', l.amount, 'discount', nullif(l.discount, 0), 'currency', p.currency,
                'subscription_id', l.subscription_id, 'period_start', l.period_start, 'period_end', l.period_end,
                'why', case
                    when l.price_id is null and l.product_id is null then 'it names no price, and grants nothing'
                    when c.kind is null then 'the catalog does not know this price'
                    when c.kind = 'not_credits' then 'the catalog lists it in not_credits: it grants nothing'
                    when m.metered then 'it is usage-based, and grants nothing'
                    when c.kind = 'plan' and l.subscription_id is null
                        then 'a plan without a subscription grants nothing'
                    else concat(
                        case
                            when c.kind = 'pack' then 'a pack'
                            when l.amount < 0 or l.names_credited
                                then 'gives back time that was billed, and takes that share of the period''s credits'
                            when l.proration then 'pays for part of a period, and grants that share'
                            when l.amount = 0 then 'costs nothing, and grants the plan''s trial credits once'
                            when l.discount >= l.amount
                                then 'a discount took all of it, so the catalog''s no_payment_required decides'
                            else 'pays for a period'
                        end,
                        format(': %s credits', c.credits), ' for each ' || c.drip,
                        case when l.quantity > 1 then ' times ' || l.quantity end, ' by the catalog')
                end,
                -- Whatever the lines of its period came to together.
                'worth', (
                    select sum(g.amount) from billing.credit_grants g
                    where g.user_id = l.user_id and not m.metered and case c.kind
                        when 'plan' then g.stripe_subscription_id = l.subscription_id and g.period_end = l.period_end
                            and g.stripe_item_id is not distinct from l.item_id
                        when 'pack' then g.source_id = l.source_id and g.item in (l.price_id, l.product_id)
                    end))) as line
            from billing.payments p
            join billing.invoice_lines l using (source_id)
            -- Since Stripe's API of 2025-03-31 only the subscription's item says it.
            cross join lateral (
                select l.metered or exists (
                    select from billing.subscription_items i where i.price_id = l.price_id and i.metered) as metered
            ) m
            left join lateral (
                select c.name, c.kind, c.credits, c.drip from billing.prices c
                where c.price_id in (l.price_id, l.product_id)
                order by c.price_id = l.price_id desc, c.valid_from <= p.paid_at desc,
                    case when c.valid_from <= p.paid_at then c.valid_from end desc, c.valid_from
                limit 1
            ) c on true
            where p.source_id = p_source_id
            union all
            select g.id, jsonb_strip_nulls(jsonb_build_object(
                'price_id', g.item, 'name', c.name, 'worth', g.bought,
                'why', case p.evidence
                    when 'lines' then 'what Stripe''s lines, or a direct call, say was bought'
                    when 'metadata' then 'what the session''s metadata say was bought'
                    when 'payment_intent' then 'what the payment intent''s metadata say was bought'
                end))
            from billing.payments p
            join billing.credit_grants g on g.user_id = p.user_id and g.source_id = p.source_id
            left join lateral (
                select c.name from billing.prices c where c.price_id = g.item order by c.valid_from desc limit 1
            ) c on true
            where p.source_id = p_source_id and g.bought is not null
                and not exists (select from billing.invoice_lines l where l.source_id = p_source_id)
        ) l);
end
$$;
comment on function billing.payment_lines(text) is
'What a payment bills, line by line, as an array: the price, its name, quantity and amount, why it is worth what it is, '
'and worth, the credits of the pack, or of the period that the line and others make.
  p_source_id  the source_id of the payment
Errors: 22004 null, 22023 blank or too long.';

-- Whose something is. Names come from what the inbox keeps: see docs/privacy.md.
create function billing.find_users(p_text text)
returns table (found_as text, id text, user_id uuid, customer_id text, event_id text, seen_at timestamptz)
language plpgsql stable security definer rows 10 set search_path = pg_catalog, pg_temp
as $$
declare
    -- E-mail addresses have no index, which every delivery would pay for: of so many of the latest events they are read.
    c_events constant integer := 20000;
    c_windows constant interval[] := '{1 day, 7 days, 30 days, 90 days}';
    c_rows constant integer := 20;
    v_text text;
    v_user uuid;
    v_since timestamptz;
begin
    perform billing.require_named(p_text, 'p_text');
    v_text := btrim(p_text, E' \t\r\n');
    if v_text like '%@%' then
        -- The shortest time with enough events, so that a busy inbox is not sorted by its year.
        for i in 1 .. cardinality(c_windows) loop
            v_since := statement_timestamp() - c_windows[i];
            exit when (
                select count(*) from (
                    select from billing.stripe_events e where e.first_received_at >= v_since limit c_events) e
            ) = c_events;
        end loop;
        return query
            select m.* from (
                select distinct on (coalesce(e.user_id, c.user_id), e.customer_id)
                    'e-mail', v_text, coalesce(e.user_id, c.user_id), e.customer_id, e.event_id::text,
                    e.first_received_at
                from (
                    select e.* from billing.stripe_events e
                    where e.first_received_at >= v_since order by e.first_received_at desc limit c_events
                ) e
                left join billing.customers c on c.customer_id = e.customer_id
                -- Read once: without the offset, the planner would put the cast into each of the conditions.
                cross join lateral (select (e.payload #> '{data,object}')::jsonb offset 0) o (body)
                where lower(v_text) in (lower(o.body #>> '{customer_details,email}'),
                        lower(o.body ->> 'customer_email'), lower(o.body ->> 'email'),
                        lower(o.body ->> 'receipt_email'), lower(o.body #>> '{billing_details,email}'))
                    and not exists (
                        select from billing.forgotten_users f where f.user_id = coalesce(e.user_id, c.user_id))
                order by coalesce(e.user_id, c.user_id), e.customer_id, e.first_received_at desc
            ) m
            order by m.first_received_at desc limit c_rows;
        return;
    end if;
    v_user := billing.user_id(v_text);
    return query
        select m.found_as, v_text, m.user_id, m.customer_id, m.event_id, m.seen_at
        from (
            select 1 as place, 'user' as found_as, v_user as user_id, null::text as customer_id, null::text as event_id,
                null::timestamptz as seen_at
            where exists (select from billing.accounts a where a.user_id = v_user)
                or exists (select from billing.customers c where c.user_id = v_user)
                or exists (select from billing.payments p where p.user_id = v_user)
            union all
            select 2, 'customer', c.user_id, c.customer_id::text, null, c.as_of
            from billing.customers c where c.customer_id = v_text
            union all
            select 3, 'subscription', s.user_id, s.customer_id, null, s.as_of
            from billing.subscriptions s where s.subscription_id = v_text
            union all
            select 4, 'payment', p.user_id, p.customer_id, null, p.paid_at
            from billing.payments p
            where p.source_id = coalesce((
                select n.source_id from billing.payment_names n where n.name = v_text), v_text)
            union all
            select 5, 'money back', p.user_id, p.customer_id, null, r.created_at
            from billing.reversals r
            join billing.payment_names n on n.name = r.payment_name
            join billing.payments p using (source_id)
            where r.reversal_id = v_text
            union all
            (select 6, 'event', coalesce(e.user_id, c.user_id), e.customer_id, e.event_id::text, e.first_received_at
            from billing.stripe_events e
            left join billing.customers c on c.customer_id = e.customer_id
            where v_text in (e.event_id, e.object_id)
            order by e.first_received_at desc, e.event_id limit c_rows)
            union all
            (select 7, 'event', e.user_id, e.customer_id, e.event_id::text, e.first_received_at
            from billing.stripe_events e
            where e.customer_id = v_text and e.outcome = 'parked'
            order by e.first_received_at desc, e.event_id limit c_rows)
        ) m
        order by m.place, m.seen_at desc, m.event_id
        limit c_rows;
end
$$;
comment on function billing.find_users(text) is
'Whose something is, at most 20 rows: found_as says what it is, user_id is null while it is nobody''s.
  p_text  a user, as metadata name it; an id of Stripe''s; or an e-mail address, which is looked for in what the inbox '
'keeps of the latest 20,000 events of the last 90 days. Users that were forgotten are not found by it
Errors: 22004 null, 22023 blank or too long.';

-- Everything known of an id of Stripe's.
create function billing.explain_id(p_id text) returns jsonb
language plpgsql stable security definer set search_path = pg_catalog, pg_temp set timezone = 'UTC'
as $$
declare
    -- Rows of each kind that there may be many of.
    c_rows constant integer := 50;
    v_object_id text;
    v_source_id text;
    v_payment billing.payments;
begin
    perform billing.require_named(p_id, 'p_id');
    v_object_id := coalesce((select e.object_id from billing.stripe_events e where e.event_id = p_id), p_id);
    -- The payment may have been claimed under another of its names.
    v_source_id := coalesce(
        (select n.source_id from billing.payment_names n where n.name = v_object_id),
        (select n.source_id from billing.reversals r join billing.payment_names n on n.name = r.payment_name
            where r.reversal_id = v_object_id),
        v_object_id);
    select * into v_payment from billing.payments p where p.source_id = v_source_id;
    return jsonb_build_object(
        'id', p_id,
        'object_id', v_object_id,
        'found', (select coalesce(jsonb_agg(jsonb_strip_nulls(to_jsonb(f))), '[]') from billing.find_users(p_id) f),
        'events', (
            select coalesce(jsonb_agg(e.event order by e.created, e.event_id), '[]')
            from (
                select e.created, e.event_id, jsonb_build_object(
                    'event_id', e.event_id, 'type', e.type, 'created', e.created, 'object_id', e.object_id,
                    'customer_id', e.customer_id, 'outcome', e.outcome, 'reason', e.reason, 'details', e.details,
                    'user_id', e.user_id, 'attempts', e.attempts, 'first_received_at', e.first_received_at,
                    'applied_at', e.applied_at) as event
                from billing.stripe_events e
                where p_id = e.event_id or e.object_id = v_object_id
                    or (e.outcome = 'parked' and e.customer_id = v_object_id)
                order by e.created desc, e.event_id limit c_rows
            ) e),
        'payment', case when v_payment.source_id is not null then to_jsonb(v_payment) || jsonb_build_object('names', (
            select coalesce(jsonb_agg(n.name order by n.name), '[]')
            from billing.payment_names n where n.source_id = v_source_id)) end,
        'lines', billing.payment_lines(v_source_id),
        'reversals', (
            select coalesce(jsonb_agg(to_jsonb(r) order by r.reversal_id), '[]')
            from billing.payment_names n join billing.reversals r on r.payment_name = n.name
            where n.source_id = v_source_id),
        'customer', (select to_jsonb(c) from billing.customers c where c.customer_id = v_object_id),
        'subscription', (select to_jsonb(s) from billing.subscriptions s where s.subscription_id = v_object_id),
        'items', (
            select coalesce(jsonb_agg(to_jsonb(i) - 'subscription_id' order by i.as_of, i.item_id), '[]')
            from billing.subscription_items i where i.subscription_id = v_object_id),
        'moves', (
            select coalesce(jsonb_agg(to_jsonb(m) - 'subscription_id' order by m.number), '[]')
            from billing.subscription_moves m where m.subscription_id = v_object_id),
        'payments', (
            select coalesce(jsonb_agg(jsonb_build_object(
                'source_id', p.source_id, 'user_id', p.user_id, 'paid_at', p.paid_at,
                'amount_total', p.amount_total, 'amount_reversed', p.amount_reversed, 'currency', p.currency)
                order by p.paid_at, p.source_id), '[]')
            from (
                select p.* from billing.subscriptions s join billing.payments p using (user_id, subscription_id)
                where s.subscription_id = v_object_id order by p.paid_at desc, p.source_id limit c_rows
            ) p),
        'grants', (
            select coalesce(jsonb_agg(to_jsonb(g) - 'spendable' - 'draw_rank' - 'matters_until' order by g.id), '[]')
            from billing.credit_grants g
            where g.user_id = v_payment.user_id and g.source_id = v_source_id),
        'transactions', (
            select coalesce(jsonb_agg(to_jsonb(t) - 'hash' order by t.id), '[]')
            from (
                select t.* from billing.credit_transactions t
                where t.user_id = v_payment.user_id
                    and (v_source_id in (
                            t.stripe_checkout_session_id, t.stripe_invoice_id, t.stripe_payment_intent_id)
                        or t.grant_id in (
                            select g.id from billing.credit_grants g
                            where g.user_id = v_payment.user_id and g.source_id = v_source_id))
                order by t.id desc limit c_rows
            ) t));
end
$$;
comment on function billing.explain_id(text) is
'Everything known of an id of Stripe''s: of an event its row in the inbox and all of its object; of a session, an invoice, a '
'payment intent, a charge, a refund, a dispute or a credit note its payment with its lines, grants and ledger rows; of a '
'subscription its state, items and moves; of a customer the user and what waits. found are the rows of find_users. What is '
'not known is null or empty; of events, a subscription''s payments and ledger rows the latest 50. Times are in UTC.
Errors: 22004 null, 22023 blank or too long.';

create function billing.explain_waiting(p_limit integer default 50) returns jsonb
language plpgsql stable security definer set search_path = pg_catalog, pg_temp set timezone = 'UTC'
as $$
declare
    -- Of more than that, those that were judged last are not looked at.
    c_rows constant integer := 10000;
begin
    perform billing.require_positive(p_limit, 'p_limit');
    return (
        select coalesce(jsonb_agg(jsonb_build_object(
            'event_id', w.event_id, 'type', w.type, 'object_id', w.object_id, 'customer_id', w.customer_id,
            'outcome', w.outcome, 'reason', w.reason, 'attempts', w.attempts, 'user_id', w.user_id,
            'first_received_at', w.first_received_at, 'waits_seconds', w.seconds, 'details', w.details)
            order by w.first_received_at, w.event_id), '[]')
        from (
            select e.*, floor(extract(epoch from statement_timestamp() - e.first_received_at))::bigint as seconds
            from (
                select e.* from billing.stripe_events e
                where e.outcome in ('parked', 'needs_fetch') and e.judged_at >= '-infinity'
                order by e.judged_at limit c_rows
            ) e
            order by e.first_received_at, e.event_id limit p_limit
        ) w);
end
$$;
comment on function billing.explain_waiting(integer) is
'The events that wait, whoever they are of, those that came first: an array. Times are in UTC.
  p_limit  events, by default 50
Errors: 22004 null, 22023 not above 0.';

create function billing.explain_user(p_user_id uuid) returns jsonb
language plpgsql stable security definer set search_path = pg_catalog, pg_temp set timezone = 'UTC'
as $$
declare
    -- Rows of each kind: what support reads of a user is one page.
    c_rows constant integer := 50;
    -- The last ledger rows that are read for what grants were drawn for and for the balance over time.
    c_history constant integer := 1000;
    -- Of these, what is shown of each grant.
    c_draws constant integer := 10;
    v_today date;
begin
    perform billing.require_given(p_user_id, 'p_user_id');
    v_today := billing.account_time((select a.test_clock from billing.accounts a where a.user_id = p_user_id))::date;
    return jsonb_build_object(
        'user_id', p_user_id,
        'account', (
            select to_jsonb(c) || jsonb_build_object(
                'signed_up_at', a.signed_up_at, 'next_due_at', a.next_due_at, 'updated_at', a.updated_at,
                'auto_top_up', a.auto_top_up)
            from billing.user_credits c join billing.accounts a using (user_id) where c.user_id = p_user_id),
        'forgotten_at', (select f.forgotten_at from billing.forgotten_users f where f.user_id = p_user_id),
        'customers', (
            select coalesce(jsonb_agg(to_jsonb(c) - 'user_id' order by c.as_of desc, c.customer_id), '[]')
            from billing.customers c where c.user_id = p_user_id),
        'grants', (
            with history as (
                select t.* from billing.credit_transactions t
                where t.user_id = p_user_id order by t.id desc limit c_history
            ), draws as (
                select t.*, row_number() over (partition by t.grant_id order by t.id desc) as number
                from history t
                where t.transaction_type in (
                        'spend', 'reservation', 'release', 'spend_refund', 'debt_settlement')
                    or t.transaction_type = 'adjustment' and t.amount < 0
            )
            select coalesce(jsonb_agg(to_jsonb(g) - 'user_id' - 'spendable' - 'draw_rank' - 'matters_until'
                || jsonb_build_object('drawn_for', (
                    select coalesce(jsonb_agg(jsonb_strip_nulls(jsonb_build_object(
                        'id', d.id, 'transaction_type', d.transaction_type, 'amount', d.amount,
                        'request_id', d.request_id, 'description', d.description, 'created_at', d.created_at))
                        order by d.id desc), '[]')
                    from draws d where d.grant_id = g.id and d.number <= c_draws))
                order by g.spendable desc, g.id desc), '[]')
            from (
                select * from billing.credit_grants g where g.user_id = p_user_id
                order by g.spendable desc, g.id desc limit c_rows
            ) g),
        'subscriptions', (
            select coalesce(jsonb_agg(to_jsonb(s) - 'user_id' order by s.as_of desc, s.subscription_id), '[]')
            from billing.subscriptions s where s.user_id = p_user_id),
        'moves', (
            select coalesce(jsonb_agg(to_jsonb(m) order by m.moved_at desc, m.subscription_id, m.number), '[]')
            from billing.subscription_moves m where p_user_id in (m.from_user, m.to_user)),
        'payments', (
            select coalesce(jsonb_agg(to_jsonb(p) - 'user_id'
                || jsonb_build_object('lines', billing.payment_lines(p.source_id))
                order by p.paid_at desc, p.source_id), '[]')
            from (
                select * from billing.user_payments p where p.user_id = p_user_id
                order by p.paid_at desc, p.source_id limit c_rows
            ) p),
        'reservations', (
            select coalesce(jsonb_agg(to_jsonb(r) - 'user_id' order by r.expires_at, r.request_id), '[]')
            from billing.reservations r where r.user_id = p_user_id and r.status = 'held'),
        'top_ups', (
            select coalesce(jsonb_agg(to_jsonb(t) - 'user_id' order by t.id desc), '[]')
            from (
                select * from billing.top_ups t where t.user_id = p_user_id order by t.id desc limit c_rows
            ) t),
        -- Events that name the user's customers, or the user, and could not be applied yet.
        'waiting', (
            select coalesce(jsonb_agg(jsonb_build_object(
                'event_id', e.event_id, 'type', e.type, 'object_id', e.object_id, 'customer_id', e.customer_id,
                'outcome', e.outcome, 'reason', e.reason, 'attempts', e.attempts,
                'first_received_at', e.first_received_at, 'waits_seconds',
                floor(extract(epoch from statement_timestamp() - e.first_received_at))::bigint, 'details', e.details)
                order by e.first_received_at, e.event_id), '[]')
            from billing.stripe_events e
            where e.outcome in ('parked', 'needs_fetch') and e.judged_at >= '-infinity'
                and (e.user_id = p_user_id
                    or e.customer_id in (select c.customer_id from billing.customers c where c.user_id = p_user_id))),
        -- At the end of each day on which it changed; of days in UTC, as all times here.
        'balances', (
            select coalesce(jsonb_agg(jsonb_build_object(
                'day', b.day, 'days_ago', v_today - b.day, 'balance', b.balance_after) order by b.day), '[]')
            from (
                select distinct on (t.created_at::date) t.created_at::date as day, t.balance_after
                from (
                    select t.id, t.created_at, t.balance_after from billing.credit_transactions t
                    where t.user_id = p_user_id order by t.id desc limit c_history
                ) t
                order by t.created_at::date desc, t.id desc limit c_rows
            ) b),
        'transactions', (
            select coalesce(jsonb_agg(to_jsonb(t) - 'user_id' - 'hash' order by t.id desc), '[]')
            from (
                select * from billing.credit_transactions t where t.user_id = p_user_id
                order by t.id desc limit c_rows
            ) t));
end
$$;
comment on function billing.explain_user(uuid) is
'What support needs to know of a user, on one page: the balances as user_credits has them (null without an account), '
'customers, grants (those with credits first) with what they were drawn for, subscriptions and their moves, payments with '
'their lines, held reservations, top-ups, what waits (events of the user''s customers that are parked or to be fetched), the balance '
'at the end of each of the last days on which it changed, and the last ledger rows. At most 50 of a kind, 10 draws of a '
'grant, and of the last 1,000 ledger rows. Times are in UTC. Errors: 22004 null.';
