-- The names that existing apps call and read, in schema public, over the books in schema billing.
--
-- For apps that kept credits in tables of their own and now move to stripe_credits (docs/adopting.md). Load it once the
-- app's own objects of these names are out of the way, as the superuser that installed the extension:
--
--   psql -v ON_ERROR_STOP=1 --single-transaction -f compat/public.sql
--
-- Everything is made by plain CREATE, so that nothing of the app's is replaced. compat/public-remove.sql takes all of it
-- away again; to load a newer version, or after a change of the columns of profiles or users, remove and load again.
-- Load it again after a restore too: pg_dump leaves out the triggers on billing.accounts, which the extension owns.
--
--   for the app's server (service roles only)     admin_apply_stripe_credit_pack_purchase, apply_stripe_subscription_state,
--                                                 apply_stripe_subscription_canceled, consume_credits, reserve_credits,
--                                                 commit_reserved_credits, release_reserved_credits,
--                                                 refund_consumed_credits, add_subscription_credits,
--                                                 add_purchased_credits, increment_credits, sync_user_credits
--   for clients, their own rows                   views user_credits and credit_transactions
--   kept up to date, if they exist                profiles and users: subscription_status, subscription_tier,
--                                                 credits_balance; whatever columns there are
--   signup credits, if auth.users exists          a trigger on it
--
-- A business failure is {"ok": false, "reason": …}, as the originals answered; functions that answered a number raise.

set local search_path = pg_catalog, pg_temp;

-- Answers.

create function public.stripe_credits_answer(o billing.outcome) returns jsonb
language sql immutable set search_path = pg_catalog, pg_temp
as $$
    select jsonb_strip_nulls(jsonb_build_object(
        'ok', o.ok,
        'already_applied', o.already_applied,
        'reason', case o.reason
            when 'unknown_reservation' then 'missing_reservation'
            when 'unknown_spend' then 'missing_reservation'
            when 'reservation_ended' then 'invalid_reservation_state'
            else o.reason end,
        'tier', o.tier,
        'remaining_monthly', o.remaining_subscription,
        'remaining_bonus', o.remaining_purchased + o.remaining_promotional))
$$;
comment on function public.stripe_credits_answer(billing.outcome) is
'An outcome as the functions of compat/public.sql answer it: remaining_monthly is the subscription pool, remaining_bonus '
'the purchased and the promotional one.';

create function public.stripe_credits_refusal(
    p_user_id uuid, p_amount bigint default 1, p_request_id text default ' '
) returns jsonb
language sql immutable set search_path = pg_catalog, pg_temp
as $$
    -- As billing's own limit: 10^12.
    select jsonb_build_object('ok', false, 'reason', r.reason)
    from (
        select case when p_user_id is null then 'missing_user_id'
            when p_request_id is null then 'missing_request_id'
            when p_amount between 1 and 1000000000000 then null
            else 'invalid_amount' end as reason
    ) r
    where r.reason is not null
$$;
comment on function public.stripe_credits_refusal(uuid, bigint, text) is
'What a call without a user, a request id or a possible amount is answered; null if it has them.';

-- Stripe's side.

create function public.admin_apply_stripe_credit_pack_purchase(
    p_user_id uuid, p_amount bigint, p_event_id text, p_checkout_session_id text,
    p_payment_intent_id text default null, p_customer_id text default null, p_price_id text default null,
    p_pack text default null
) returns jsonb
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp
as $$
declare
    v_session constant text := nullif(btrim(p_checkout_session_id), '');
    v_answer jsonb := public.stripe_credits_refusal(p_user_id, p_amount);
begin
    if v_answer is null and v_session is null then
        v_answer := jsonb_build_object('ok', false, 'reason', 'missing_checkout_session_id');
    end if;
    if v_answer is null then
        select public.stripe_credits_answer(o) into v_answer
        from billing.apply_stripe_credit_pack_purchase(
            p_user_id, p_amount, coalesce(nullif(btrim(p_event_id), ''), 'compat:' || v_session), v_session,
            nullif(btrim(p_payment_intent_id), ''), nullif(btrim(p_customer_id), ''), nullif(btrim(p_price_id), ''),
            nullif(btrim(p_pack), '')) o;
    end if;
    return v_answer;
end
$$;
comment on function public.admin_apply_stripe_credit_pack_purchase(
    uuid, bigint, text, text, text, text, text, text) is
'As billing.admin_apply_stripe_credit_pack_purchase, one purchase with its webhook; refuses with invalid_amount, '
'missing_checkout_session_id, missing_user_id or conflict.';

create function public.apply_stripe_subscription_state(
    p_user_id uuid, p_tier text, p_customer_id text, p_subscription_id text, p_price_id text,
    p_cycle_start timestamptz, p_cycle_end timestamptz, p_event_id text, p_invoice_id text default null,
    p_reset_usage boolean default false
) returns jsonb
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp
as $$
declare
    v_answer jsonb := public.stripe_credits_refusal(p_user_id);
begin
    if v_answer is null and (p_cycle_end > p_cycle_start) is not true then
        v_answer := jsonb_build_object('ok', false, 'reason', 'invalid_cycle');
    end if;
    if v_answer is null then
        select public.stripe_credits_answer(o) into v_answer
        from billing.apply_subscription_state(
            p_user_id, p_tier, nullif(btrim(p_customer_id), ''), p_subscription_id, p_price_id, p_cycle_start,
            p_cycle_end, coalesce(nullif(btrim(p_event_id), ''), 'compat:' || p_subscription_id),
            nullif(btrim(p_invoice_id), ''), coalesce(p_reset_usage, false)) o;
    end if;
    return v_answer;
end
$$;
comment on function public.apply_stripe_subscription_state(
    uuid, text, text, text, text, timestamptz, timestamptz, text, text, boolean) is
'As billing.apply_stripe_subscription_state, one subscription with its events; refuses with missing_user_id, '
'invalid_cycle, conflict, unknown_price or no_catalog.';

create function public.apply_stripe_subscription_canceled(
    p_user_id uuid, p_event_id text, p_subscription_id text default null
) returns jsonb
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp
as $$
declare
    v_answer jsonb := public.stripe_credits_refusal(p_user_id);
    v_known billing.subscriptions;
begin
    if v_answer is not null then
        return v_answer;
    end if;
    -- Without an id it is the one that names the user's plan.
    select s.* into v_known from billing.subscriptions s
    where case when nullif(btrim(p_subscription_id), '') is null then s.user_id = p_user_id
        else s.subscription_id = btrim(p_subscription_id) end
    order by s.status in ('active', 'trialing', 'past_due') desc, s.rank desc nulls last, s.as_of desc limit 1;
    if v_known.subscription_id is null or v_known.status in ('canceled', 'incomplete_expired') then
        select jsonb_build_object('ok', true, 'already_applied', true, 'tier', coalesce(max(c.subscription_tier), 'free'),
            'remaining_monthly', coalesce(sum(c.subscription_credits_balance), 0),
            'remaining_bonus', coalesce(sum(c.purchased_credits_balance + c.promotional_credits_balance), 0))
        into v_answer from billing.user_credits c where c.user_id = p_user_id;
    else
        select public.stripe_credits_answer(o) into v_answer
        from billing.apply_subscription_state(
            p_user_id, v_known.tier, v_known.customer_id, v_known.subscription_id, v_known.price_id,
            v_known.current_period_start, v_known.current_period_end,
            coalesce(nullif(btrim(p_event_id), ''), 'compat:' || v_known.subscription_id), p_status => 'canceled') o;
    end if;
    return v_answer;
end
$$;
comment on function public.apply_stripe_subscription_canceled(uuid, text, text) is
'Ends a subscription that is known, by default the one that names the user''s plan; what becomes of its credits is the '
'catalog''s policy. already_applied if there is none, or it has ended. Refuses with missing_user_id or conflict.';

-- The app's side.

create function public.consume_credits(
    p_user_id uuid, p_amount bigint, p_description text default null, p_metadata jsonb default '{}',
    p_request_id uuid default null
) returns jsonb
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp
as $$
declare
    v_answer jsonb := public.stripe_credits_refusal(p_user_id, p_amount);
begin
    if v_answer is null then
        select public.stripe_credits_answer(o) into v_answer
        from billing.spend_credits(
            p_user_id, p_amount, coalesce(p_request_id, gen_random_uuid())::text, p_description, p_metadata) o;
        select v_answer || jsonb_build_object('cycle_end_at', c.cycle_end_at) into v_answer
        from (select) one left join billing.user_credits c on c.user_id = p_user_id;
    end if;
    return v_answer;
end
$$;
comment on function public.consume_credits(uuid, bigint, text, jsonb, uuid) is
'As billing.spend_credits; without p_request_id every call is another spend. Refuses with invalid_amount, '
'missing_user_id, insufficient_credits or conflict.';

create function public.reserve_credits(
    p_user_id uuid, p_request_id uuid, p_amount bigint, p_feature text default null, p_metadata jsonb default '{}'
) returns jsonb
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp
as $$
declare
    -- The originals had no end. A job that was lost must not keep its credits for ever.
    c_ttl constant interval := '1 day';
    v_answer jsonb := public.stripe_credits_refusal(p_user_id, p_amount, p_request_id::text);
begin
    if v_answer is null then
        select public.stripe_credits_answer(o) into v_answer
        from billing.reserve_credits(p_user_id, p_amount, p_request_id::text, c_ttl, p_feature) o;
    end if;
    if v_answer ->> 'ok' = 'true' then
        select v_answer || jsonb_build_object(
            'reserved_monthly', coalesce(-sum(t.amount) filter (where t.pool = 'subscription'), 0),
            'reserved_bonus', coalesce(-sum(t.amount) filter (where t.pool <> 'subscription'), 0))
        into v_answer from billing.credit_transactions t
        where t.user_id = p_user_id and t.request_id = p_request_id::text and t.transaction_type = 'reservation';
    end if;
    return v_answer;
end
$$;
comment on function public.reserve_credits(uuid, uuid, bigint, text, jsonb) is
'As billing.reserve_credits, for a day; p_metadata is not kept. Refuses with missing_user_id, missing_request_id, '
'invalid_amount, insufficient_credits or conflict.';

create function public.commit_reserved_credits(p_user_id uuid, p_request_id uuid, p_metadata jsonb default '{}')
returns jsonb
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp
as $$
declare
    v_answer jsonb := public.stripe_credits_refusal(p_user_id, p_request_id => p_request_id::text);
begin
    if v_answer is null then
        select public.stripe_credits_answer(o) into v_answer
        from billing.commit_reservation(p_user_id, p_request_id::text) o;
    end if;
    return v_answer;
end
$$;
comment on function public.commit_reserved_credits(uuid, uuid, jsonb) is
'As billing.commit_reservation of the whole amount. Refuses with missing_user_id, missing_request_id, '
'missing_reservation, invalid_reservation_state or conflict.';

create function public.refund_consumed_credits(
    p_user_id uuid, p_request_id uuid, p_reason text default null, p_metadata jsonb default '{}'
) returns jsonb
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp
as $$
declare
    v_answer jsonb := public.stripe_credits_refusal(p_user_id, p_request_id => p_request_id::text);
    v_status text;
begin
    if v_answer is not null then
        return v_answer;
    end if;
    select r.status into v_status from billing.reservations r
    where r.user_id = p_user_id and r.request_id = p_request_id::text;
    if v_status <> 'committed' then
        select public.stripe_credits_answer(o) into v_answer
        from billing.release_reservation(p_user_id, p_request_id::text) o;
    else
        select public.stripe_credits_answer(o) into v_answer
        from billing.refund_spend(p_user_id, p_request_id::text, p_request_id || ':refund') o;
    end if;
    return v_answer;
end
$$;
comment on function public.refund_consumed_credits(uuid, uuid, text, jsonb) is
'Gives back a spend or a committed reservation, once, or releases a reservation; p_reason and p_metadata are not kept. '
'Refuses with missing_user_id, missing_request_id, missing_reservation.';

create function public.release_reserved_credits(
    p_user_id uuid, p_request_id uuid, p_reason text default null, p_metadata jsonb default '{}'
) returns jsonb
language sql volatile security definer set search_path = pg_catalog, pg_temp
as $$
    -- The originals gave back a committed reservation too.
    select public.refund_consumed_credits(p_user_id, p_request_id, p_reason, p_metadata)
$$;
comment on function public.release_reserved_credits(uuid, uuid, text, jsonb) is
'The same as refund_consumed_credits.';

-- Functions that answer a balance, and raise P0001 where they refuse, as the originals did. ref_id makes a call count once;
-- without one every call counts.

create function public.stripe_credits_raise(o billing.outcome) returns void
language plpgsql immutable set search_path = pg_catalog, pg_temp
as $$
begin
    if not o.ok then
        raise exception '%', o.reason using detail = format('user %s has %s credits', o.user_id, o.remaining_total);
    end if;
end
$$;
comment on function public.stripe_credits_raise(billing.outcome) is 'Raises P0001 with the reason of a refusal.';

create function public.add_subscription_credits(
    target_user_id uuid, amount bigint, ref_id text default null, description text default null
) returns bigint
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp
as $$
declare
    v_invoice constant text := substring(ref_id from 'in_[A-Za-z0-9]+$');
    v_outcome billing.outcome;
begin
    if (amount > 0) is not true then
        raise exception 'Amount must be positive: %', amount;
    end if;
    -- What an invoice paid for, the books know already if its webhook came here.
    if not exists (
        select from billing.payment_names n join billing.payments p on p.source_id = n.source_id
        where n.name = v_invoice and p.paid_at is not null)
    then
        select * into v_outcome from billing.import_balance(
            target_user_id, 'subscription', amount, coalesce(ref_id, gen_random_uuid()::text));
        perform public.stripe_credits_raise(v_outcome);
    end if;
    return coalesce((
        select c.subscription_credits_balance from billing.user_credits c where c.user_id = target_user_id), 0);
end
$$;
comment on function public.add_subscription_credits(uuid, bigint, text, text) is
'Adds credits to the subscription pool, once per ref_id, and returns its balance. Of an invoice whose webhook was applied '
'before (ref_id ends with in_…) it adds nothing. The webhook does not know of such a call: let only one of them grant.';

create function public.add_purchased_credits(
    target_user_id uuid, amount bigint, ref_id text default null, description text default null
) returns bigint
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp
as $$
declare
    v_payment constant text := substring(ref_id from '((cs_(test_|live_)?|pi_)[A-Za-z0-9]+)$');
    v_outcome billing.outcome;
begin
    if (amount > 0) is not true then
        raise exception 'Amount must be positive: %', amount;
    end if;
    if v_payment is null then
        select * into v_outcome from billing.import_balance(
            target_user_id, 'purchased', amount, coalesce(ref_id, gen_random_uuid()::text));
    else
        select * into v_outcome from billing.apply_stripe_credit_pack_purchase(
            target_user_id, amount, ref_id, v_payment,
            p_payment_intent_id => case when v_payment like 'pi\_%' then v_payment end);
    end if;
    perform public.stripe_credits_raise(v_outcome);
    return coalesce((
        select c.purchased_credits_balance from billing.user_credits c where c.user_id = target_user_id), 0);
end
$$;
comment on function public.add_purchased_credits(uuid, bigint, text, text) is
'Adds purchased credits, once per ref_id, and returns their balance. If ref_id ends with a checkout session or a payment '
'intent (session_cs_…, pi_pi_…), it is the purchase of that payment, one with its webhook.';

create function public.increment_credits(
    user_id uuid default null, amount bigint default null, ref_id text default null,
    p_user_id uuid default null, p_amount bigint default null, target_user_id uuid default null
) returns bigint
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp
as $$
declare
    v_outcome billing.outcome;
begin
    select * into v_outcome from billing.adjust_credits(
        coalesce(user_id, p_user_id, target_user_id), coalesce(amount, p_amount),
        coalesce(ref_id, gen_random_uuid()::text), 'increment_credits');
    perform public.stripe_credits_raise(v_outcome);
    return v_outcome.remaining_total;
end
$$;
comment on function public.increment_credits(uuid, bigint, text, uuid, bigint, uuid) is
'Adds promotional credits, or takes credits if the amount is negative, and returns the balance; once per ref_id. The user '
'is user_id, p_user_id or target_user_id, the amount amount or p_amount, as apps call it. For what was paid at Stripe use '
'add_purchased_credits.';

-- What apps read. Both views check the rights of whoever reads, as billing's own: clients see their own rows.

create view public.user_credits with (security_invoker = true) as
select
    c.user_id,
    c.subscription_tier as tier,
    c.subscription_tier,
    c.subscription_status,
    c.credits_balance,
    c.credits_balance as total_credits_balance,
    c.subscription_credits_balance,
    c.purchased_credits_balance,
    c.promotional_credits_balance,
    c.debt,
    c.monthly_credits_per_cycle,
    c.monthly_credits_used,
    c.bonus_credits_total,
    c.bonus_credits_used,
    -- A reservation draws at once: it is in the credits used.
    0::bigint as reserved_monthly,
    0::bigint as reserved_bonus,
    exists (
        select from billing.credit_grants g
        where g.user_id = c.user_id and g.source_id = 'first_purchase_bonus' and g.amount > 0) as bonus_granted,
    c.cycle_start_at,
    c.cycle_end_at,
    case when c.stripe_subscription_id is null then 'profile_created' else 'stripe_subscription' end as cycle_source,
    c.stripe_customer_id,
    c.stripe_subscription_id,
    c.stripe_price_id,
    a.created_at,
    a.updated_at
from billing.user_credits c join billing.accounts a using (user_id);
comment on view public.user_credits is
'billing.user_credits with the columns that existing apps read. tier is the catalog''s key of the plan, free without one.';

-- By the owner of the table with the addresses, whose row security the owner role of the books does not pass.
create function public.stripe_credits_email(p_user_id uuid) returns text
language plpgsql stable security definer set search_path = pg_catalog, pg_temp
as $$
begin
    if to_regclass('auth.users') is not null then
        return (select u.email::text from auth.users u where u.id = p_user_id);
    end if;
    return null;
end
$$;
comment on function public.stripe_credits_email(uuid) is 'A user''s address in auth.users, for credit_transactions.';

create function public.stripe_credits_payment(
    p_user_id uuid, p_transaction_id bigint, out user_email text, out amount_paid bigint, out currency text,
    out plan_name text
) language plpgsql stable security definer set search_path = pg_catalog, pg_temp
as $$
declare
    -- Not current_user, which is this function's owner.
    v_role constant text := case current_setting('role') when 'none' then session_user
        else current_setting('role') end;
begin
    if p_user_id is distinct from billing.current_user_id()
        and not has_function_privilege(v_role, 'billing.apply_stripe_event(jsonb, jsonb)', 'execute')
    then
        return;
    end if;
    user_email := public.stripe_credits_email(p_user_id);
    -- On one row of a payment only, so that sums are what was paid.
    select p.amount, p.currency, p.description into amount_paid, currency, plan_name
    from billing.credit_transactions t
    join billing.user_payments p
        on p.source_id in (t.stripe_checkout_session_id, t.stripe_invoice_id) and p.user_id = t.user_id
    where t.user_id = p_user_id and t.id = p_transaction_id
        and t.transaction_type in ('purchase', 'subscription_grant')
        and not exists (
            select from billing.credit_transactions earlier
            where earlier.user_id = t.user_id and earlier.id < t.id
                and (earlier.stripe_checkout_session_id = p.source_id or earlier.stripe_invoice_id = p.source_id)
                and earlier.transaction_type in ('purchase', 'subscription_grant'));
end
$$;
comment on function public.stripe_credits_payment(uuid, bigint) is
'What was paid for a ledger row, and by whom, for credit_transactions: to the user, and to service roles. Nothing to others.';

create view public.credit_transactions with (security_invoker = true) as
select
    t.user_id,
    t.id,
    p.user_email,
    t.amount,
    greatest(t.amount, 0) as credits_added,
    case t.transaction_type when 'spend' then 'usage' when 'spend_refund' then 'refund'
        else t.transaction_type::text end as transaction_type,
    case when t.pool = 'subscription' then 'monthly' when t.pool is not null then 'bonus' end as pool,
    t.balance_after,
    t.description,
    t.metadata,
    p.amount_paid,
    p.currency,
    p.plan_name,
    coalesce(t.stripe_checkout_session_id, t.stripe_invoice_id) as stripe_session_id,
    t.stripe_event_id,
    t.stripe_checkout_session_id,
    t.stripe_payment_intent_id,
    t.stripe_invoice_id,
    t.request_id,
    t.created_at
from billing.credit_transactions t
cross join lateral public.stripe_credits_payment(t.user_id, t.id) p;
comment on view public.credit_transactions is
'billing.credit_transactions with the columns and the words that existing apps read: usage for spend, refund for '
'spend_refund, the pools monthly and bonus. credits_added is the amount where it is above 0, amount_paid in the '
'currency''s minor units, on the first row of a payment.';

-- The app's own tables: a writer for each, and a trigger on the accounts that calls it. Both run as the owner of the table,
-- who passes its row security and has no right on the books. A payment never waits long for them, and never fails by them.

do $$
declare
    v_table record;
begin
    for v_table in
        select c.oid::regclass as name, c.relname, c.relowner::regrole as owner, key.attname as key, set.list, set.old,
            set.new
        from pg_class c
        cross join lateral (
            select a.attname from pg_attribute a
            where a.attrelid = c.oid and a.attname in ('user_id', 'id') and a.atttypid = 'uuid'::regtype
                and not a.attisdropped
            order by a.attname desc limit 1
        ) key
        cross join lateral (
            select string_agg(format('%I = %s', a.attname, v.value), ', ') as list,
                string_agg(format('t.%I', a.attname), ', ') as old, string_agg(v.value, ', ') as new
            from pg_attribute a
            join (values ('subscription_status', 'p_status'), ('subscription_tier', 'p_tier'),
                ('credits_balance', 'p_balance')) n (name, value) on n.name = a.attname
            -- Enumerations and integers of the app's, too.
            cross join lateral (select format('%s::%s', n.value, format_type(a.atttypid, a.atttypmod)) as value) v
            where a.attrelid = c.oid and not a.attisdropped
        ) set
        where c.relnamespace = 'public'::regnamespace and c.relname in ('profiles', 'users') and c.relkind in ('r', 'p')
            and set.list is not null
    loop
        execute format(
            'create function public.stripe_credits_write_%s(p_user_id uuid, p_tier text, p_status text, p_balance bigint) '
            'returns void language sql volatile security definer set search_path = pg_catalog, pg_temp '
            'set lock_timeout = ''500ms'' as %L', v_table.relname,
            format(E'\n    update %s t set %s\n    where t.%I = p_user_id and (%s) is distinct from (%s)\n',
                v_table.name, v_table.list, v_table.key, v_table.old, v_table.new));
        execute format(
            'comment on function public.stripe_credits_write_%s(uuid, text, text, bigint) is %L', v_table.relname,
            format('Writes a user''s tier, status and balance into %s.', v_table.name));
        execute format(
            'create function public.stripe_credits_keep_%s() returns trigger '
            'language plpgsql security definer set search_path = pg_catalog, pg_temp as %L', v_table.relname,
            format(E'\nbegin\n'
                '    perform public.stripe_credits_write_%1$s(new.user_id, new.tier, new.subscription_status,\n'
                '        new.subscription_credits + new.purchased_credits + new.promotional_credits);\n'
                '    return null;\n'
                'exception when others then\n'
                '    raise warning ''%2$s of user %% does not show the new balance: %%'', new.user_id, sqlerrm;\n'
                '    return null;\n'
                'end\n', v_table.relname, v_table.name));
        execute format(
            'comment on function public.stripe_credits_keep_%s() is %L', v_table.relname,
            format('Trigger: keeps %s up to date; what fails is logged.', v_table.name));
        execute format('alter function public.stripe_credits_write_%s(uuid, text, text, bigint) owner to %s',
            v_table.relname, v_table.owner);
        execute format('alter function public.stripe_credits_keep_%s() owner to %s', v_table.relname, v_table.owner);
        -- As security_selfcheck() expects it: after the row is written, by a function with other rights than the books'.
        execute format(
            'create trigger compat_%1$s after insert or update on billing.accounts for each row '
            'execute function public.stripe_credits_keep_%1$s()', v_table.relname);
    end loop;
end
$$;

create function public.sync_user_credits(target_user_id uuid) returns bigint
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp
as $$
declare
    v_table text;
    v_balance constant bigint := billing.sync_user_credits(target_user_id);
begin
    foreach v_table in array array['profiles', 'users'] loop
        if to_regprocedure(format('public.stripe_credits_write_%s(uuid, text, text, bigint)', v_table)) is not null then
            execute format(
                'select public.stripe_credits_write_%s(c.user_id, c.subscription_tier, c.subscription_status, '
                'c.credits_balance) from billing.user_credits c where c.user_id = $1', v_table)
            using target_user_id;
        end if;
    end loop;
    return v_balance;
end
$$;
comment on function public.sync_user_credits(uuid) is
'As billing.sync_user_credits; writes profiles and users anew too, where they have the columns.';

create function public.stripe_credits_sign_up() returns trigger
language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
declare
    v_outcome billing.outcome;
begin
    select * into v_outcome from billing.grant_signup_credits(new.id);
    if not v_outcome.ok then
        raise warning 'no signup credits for user %: %', new.id, v_outcome.reason;
    end if;
    return null;
exception when others then
    raise warning 'no signup credits for user %: %', new.id, sqlerrm;
    return null;
end
$$;
comment on function public.stripe_credits_sign_up() is
'Trigger: grants the catalog''s signup credits to a new user; what fails is logged, and the user is there all the same.';

do $$
begin
    if to_regclass('auth.users') is not null then
        create trigger compat_sign_up after insert on auth.users
            for each row execute function public.stripe_credits_sign_up();
    end if;
end
$$;

-- Rights: what is above belongs to the owner role of the books, runs for service roles only, and is read by clients.

do $$
declare
    v_object record;
    v_right record;
begin
    for v_object in
        select 'function ' || p.oid::regprocedure as name, p.proname::text as short, p.proowner as owner,
            coalesce(p.proacl, acldefault('f', p.proowner)) as acl
        from pg_proc p
        where p.pronamespace = 'public'::regnamespace and (p.proname like 'stripe\_credits\_%' or p.proname in (
            'admin_apply_stripe_credit_pack_purchase', 'apply_stripe_subscription_state',
            'apply_stripe_subscription_canceled', 'consume_credits', 'reserve_credits', 'commit_reserved_credits',
            'release_reserved_credits', 'refund_consumed_credits', 'add_subscription_credits', 'add_purchased_credits',
            'increment_credits', 'sync_user_credits'))
        union all
        select 'table ' || c.oid::regclass, c.relname, c.relowner, coalesce(c.relacl, acldefault('r', c.relowner))
        from pg_class c
        where c.relnamespace = 'public'::regnamespace and c.relkind = 'v'
            and c.relname in ('user_credits', 'credit_transactions')
    loop
        for v_right in select distinct a.grantee from aclexplode(v_object.acl) a where a.grantee <> v_object.owner loop
            execute format('revoke all on %s from %s', v_object.name,
                case v_right.grantee when 0 then 'public' else v_right.grantee::regrole::text end);
        end loop;
        if v_object.short not like 'stripe\_credits\_write\_%' and v_object.short not like 'stripe\_credits\_keep\_%'
            and v_object.short <> 'stripe_credits_email'
        then
            execute format('alter %s owner to stripe_credits_owner', v_object.name);
        elsif v_object.short not like 'stripe\_credits\_keep\_%' then
            execute format('grant execute on %s to stripe_credits_owner', v_object.name);
        end if;
        -- Whoever may call billing's functions: as grant_access made it.
        for v_right in
            select distinct a.grantee::regrole as role, p.proname = 'my_credits' as is_client
            from pg_proc p cross join lateral aclexplode(p.proacl) a join pg_roles r on r.oid = a.grantee
            where p.oid in ('billing.my_credits()'::regprocedure,
                    'billing.apply_stripe_event(jsonb, jsonb)'::regprocedure)
                and a.grantee <> p.proowner and r.rolname <> 'stripe_credits_owner'
        loop
            if v_object.name like 'table %' then
                execute format('grant select on %s to %s', v_object.name, v_right.role);
            elsif v_object.short = 'stripe_credits_payment' or v_object.short not like 'stripe\_credits\_%'
                and not v_right.is_client
            then
                execute format('grant execute on %s to %s', v_object.name, v_right.role);
            end if;
        end loop;
    end loop;
    if to_regclass('auth.users') is not null then
        execute format('alter function public.stripe_credits_email(uuid) owner to %s',
            (select c.relowner::regrole from pg_class c where c.oid = 'auth.users'::regclass));
    end if;
end
$$;
