-- Who may do what, on one page. Loaded last, when all objects exist.
--
--   stripe_credits_owner   owns tables, view and SECURITY DEFINER functions; cannot log in
--   client role            reads its own rows, runs the my_… functions        (Supabase: authenticated)
--   service role           runs the service functions, reads every row        (Supabase: service_role)
--   anon, PUBLIC           nothing

-- Other roles read the tables and never write them: clients their user's rows, service roles every row.
create function billing.is_service() returns boolean
language sql stable set search_path = pg_catalog, pg_temp
as $$
    select has_function_privilege(current_user, 'billing.apply_stripe_event(jsonb, jsonb)', 'execute')
$$;
comment on function billing.is_service() is
'Whether the caller may run the service functions, and so read every row.';

alter table billing.settings enable row level security;
alter table billing.prices enable row level security;
alter table billing.accounts enable row level security;
alter table billing.test_clocks enable row level security;
alter table billing.credit_grants enable row level security;
alter table billing.credit_transactions enable row level security;
alter table billing.reservations enable row level security;
alter table billing.customers enable row level security;
alter table billing.subscriptions enable row level security;
alter table billing.subscription_users enable row level security;
alter table billing.subscription_moves enable row level security;
alter table billing.subscription_items enable row level security;
alter table billing.payments enable row level security;
alter table billing.invoice_lines enable row level security;
alter table billing.payment_names enable row level security;
alter table billing.reversals enable row level security;
alter table billing.stripe_events enable row level security;
alter table billing.cursors enable row level security;

create policy own_rows on billing.accounts for select to public
    using ((select billing.current_user_id()) = user_id);
create policy own_rows on billing.credit_grants for select to public
    using ((select billing.current_user_id()) = user_id);
create policy own_rows on billing.credit_transactions for select to public
    using ((select billing.current_user_id()) = user_id);
create policy own_rows on billing.reservations for select to public
    using ((select billing.current_user_id()) = user_id);
create policy own_rows on billing.customers for select to public
    using ((select billing.current_user_id()) = user_id);
create policy own_rows on billing.subscriptions for select to public
    using ((select billing.current_user_id()) = user_id);
create policy everyone on billing.prices for select to public using (true);

create policy service on billing.settings for select to public using ((select billing.is_service()));
create policy service on billing.accounts for select to public using ((select billing.is_service()));
create policy service on billing.credit_grants for select to public using ((select billing.is_service()));
create policy service on billing.credit_transactions for select to public using ((select billing.is_service()));
create policy service on billing.reservations for select to public using ((select billing.is_service()));
create policy service on billing.customers for select to public using ((select billing.is_service()));
create policy service on billing.subscriptions for select to public using ((select billing.is_service()));
create policy service on billing.subscription_users for select to public
    using ((select billing.is_service()));
create policy service on billing.subscription_moves for select to public
    using ((select billing.is_service()));
create policy service on billing.subscription_items for select to public
    using ((select billing.is_service()));
create policy service on billing.invoice_lines for select to public using ((select billing.is_service()));
create policy service on billing.test_clocks for select to public using ((select billing.is_service()));
create policy service on billing.payments for select to public using ((select billing.is_service()));
create policy service on billing.payment_names for select to public using ((select billing.is_service()));
create policy service on billing.reversals for select to public using ((select billing.is_service()));
create policy service on billing.stripe_events for select to public using ((select billing.is_service()));
create policy service on billing.cursors for select to public using ((select billing.is_service()));

-- The policies above as Postgres prints them, for security_selfcheck() to compare with.
create function billing.installed_policies() returns table (name text, policy text, rule text)
language sql immutable set search_path = pg_catalog, pg_temp
as $$
    select 'billing.' || t, 'own_rows', '(( SELECT billing.current_user_id() AS current_user_id) = user_id)'
    from unnest(array['accounts', 'credit_grants', 'credit_transactions', 'reservations', 'customers',
        'subscriptions']) t
    union all
    select 'billing.' || t, 'service', '( SELECT billing.is_service() AS is_service)'
    from unnest(array['settings', 'accounts', 'credit_grants', 'credit_transactions', 'reservations', 'customers',
        'subscriptions', 'subscription_users', 'subscription_moves', 'subscription_items', 'invoice_lines',
        'test_clocks', 'payments', 'payment_names', 'reversals', 'stripe_events', 'cursors']) t
    union all
    select 'billing.prices', 'everyone', 'true'
$$;
comment on function billing.installed_policies() is 'The policies as installed, for security_selfcheck().';

-- What a client may run. Everything else in the schema that is not internal is a service function.
create function billing.client_functions() returns regprocedure[]
language sql stable set search_path = pg_catalog, pg_temp
as $$
    select array[
        'billing.current_user_id()', 'billing.is_service()', 'billing.free_plan()',
        'billing.unposted(uuid, timestamptz)', 'billing.account_time(text)', 'billing.my_credits()',
        'billing.my_transactions(integer, bigint)', 'billing.my_payments(integer, timestamptz)']::regprocedure[]
$$;
comment on function billing.client_functions() is 'What a client role may run.';

create function billing.grant_access(p_client regrole, p_service regrole) returns void
language plpgsql set search_path = pg_catalog, pg_temp
as $$
declare
    -- Run only by triggers or by the extension.
    c_internal constant text[] := array[
        'guard_drop', 'refuse_ledger_change', 'require_named', 'client_functions', 'installed_policies',
        'grant_access', 'settle_account', 'older_answer', 'draw_rank', 'adds_up'];
    v_function record;
begin
    if p_client is null or p_service is null then
        raise exception '% must not be null', case when p_client is null then 'p_client' else 'p_service' end
            using errcode = 'null_value_not_allowed',
                detail = format('p_client = %L, p_service = %L', p_client, p_service);
    end if;
    if p_client = p_service then
        raise exception 'the client role and the service role must differ'
            using errcode = 'invalid_parameter_value', detail = format('p_client = p_service = %s', p_client);
    end if;
    execute format('grant usage on schema billing to %s, %s', p_client, p_service);
    execute format('grant select on all tables in schema billing to %s', p_service);
    execute format(
        'grant select on billing.accounts, billing.credit_grants, billing.credit_transactions, billing.reservations, '
        'billing.customers, billing.subscriptions, billing.prices, billing.user_credits to %s', p_client);
    for v_function in
        select p.oid::regprocedure as signature, p.oid = any (billing.client_functions()) as client
        from pg_proc p
        where p.pronamespace = 'billing'::regnamespace and p.proname <> all (c_internal)
    loop
        execute format('grant execute on function %s to %s', v_function.signature, p_service);
        if v_function.client then
            execute format('grant execute on function %s to %s', v_function.signature, p_client);
        end if;
    end loop;
end
$$;
comment on function billing.grant_access(regrole, regrole) is
'Grants a client role and a service role what they may do, for installs whose roles are not Supabase''s '
'authenticated and service_role, which CREATE EXTENSION grants to if they exist.
  p_client   reads its own rows, runs the my_… functions
  p_service  runs the service functions, reads every row
To be run by the role that installed the extension. Errors: 22004 null, 22023 the same role twice.';

-- Over every object of the script, so that no new one can be forgotten.
do $$
declare
    v_object record;
    v_role text;
begin
    grant usage on schema billing to stripe_credits_owner;
    for v_object in
        select c.oid::regclass as name from pg_catalog.pg_class c
        where c.relnamespace = 'billing'::regnamespace and c.relkind in ('r', 'v')
    loop
        execute pg_catalog.format('alter table %s owner to stripe_credits_owner', v_object.name);
    end loop;
    for v_object in
        select p.oid::regprocedure as signature, p.prosecdef as definer from pg_catalog.pg_proc p
        where p.pronamespace = 'billing'::regnamespace
    loop
        if v_object.definer then
            execute pg_catalog.format('alter function %s owner to stripe_credits_owner', v_object.signature);
        end if;
        execute pg_catalog.format('revoke all on function %s from public', v_object.signature);
        execute pg_catalog.format('grant execute on function %s to stripe_credits_owner', v_object.signature);
    end loop;
    -- Supabase's default privileges grant new objects to these by name.
    foreach v_role in array array['anon', 'authenticated', 'service_role'] loop
        if exists (select from pg_catalog.pg_roles r where r.rolname = v_role) then
            execute pg_catalog.format('revoke all on schema billing from %I', v_role);
            execute pg_catalog.format('revoke all on all tables in schema billing from %I', v_role);
            execute pg_catalog.format('revoke all on all functions in schema billing from %I', v_role);
        end if;
    end loop;
    if exists (select from pg_catalog.pg_roles r where r.rolname = 'authenticated')
        and exists (select from pg_catalog.pg_roles r where r.rolname = 'service_role')
    then
        perform billing.grant_access('authenticated', 'service_role');
    end if;
end
$$;
