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
alter table billing.price_amounts enable row level security;
alter table billing.accounts enable row level security;
alter table billing.read_changes enable row level security;
alter table billing.test_clocks enable row level security;
alter table billing.credit_grants enable row level security;
alter table billing.credit_transactions enable row level security;
alter table billing.reservations enable row level security;
alter table billing.outbox enable row level security;
alter table billing.top_ups enable row level security;
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
alter table billing.forgotten_users enable row level security;
alter table billing.cursors enable row level security;
alter table billing.customer_accounts enable row level security;
alter table billing.repricings enable row level security;

create policy readers on billing.accounts for select to public
    using ((select billing.current_user_id()) = user_id or (select billing.is_service()));
create policy readers on billing.credit_grants for select to public
    using ((select billing.current_user_id()) = user_id or (select billing.is_service()));
create policy readers on billing.credit_transactions for select to public
    using ((select billing.current_user_id()) = user_id or (select billing.is_service()));
create policy readers on billing.reservations for select to public
    using ((select billing.current_user_id()) = user_id or (select billing.is_service()));
create policy readers on billing.customers for select to public
    using ((select billing.current_user_id()) = user_id or (select billing.is_service()));
create policy readers on billing.subscriptions for select to public
    using ((select billing.current_user_id()) = user_id or (select billing.is_service()));
create policy readers on billing.prices for select to public using (true);
create policy readers on billing.price_amounts for select to public using ((select billing.is_service()));
create policy readers on billing.settings for select to public using ((select billing.is_service()));
create policy readers on billing.subscription_users for select to public using ((select billing.is_service()));
create policy readers on billing.subscription_moves for select to public using ((select billing.is_service()));
create policy readers on billing.subscription_items for select to public using ((select billing.is_service()));
create policy readers on billing.invoice_lines for select to public using ((select billing.is_service()));
create policy readers on billing.read_changes for select to public using ((select billing.is_service()));
create policy readers on billing.test_clocks for select to public using ((select billing.is_service()));
create policy readers on billing.payments for select to public using ((select billing.is_service()));
create policy readers on billing.payment_names for select to public using ((select billing.is_service()));
create policy readers on billing.reversals for select to public using ((select billing.is_service()));
create policy readers on billing.stripe_events for select to public using ((select billing.is_service()));
create policy readers on billing.forgotten_users for select to public using ((select billing.is_service()));
create policy readers on billing.outbox for select to public using ((select billing.is_service()));
create policy readers on billing.top_ups for select to public using ((select billing.is_service()));
create policy readers on billing.cursors for select to public using ((select billing.is_service()));
create policy readers on billing.customer_accounts for select to public using ((select billing.is_service()));
create policy readers on billing.repricings for select to public using ((select billing.is_service()));

-- What grant_access grants. Everything else is internal: run by triggers, or by other functions of the extension.
create function billing.access_rights() returns table (role_kind text, object text, privilege text)
language sql stable set search_path = pg_catalog, pg_temp
as $$
    with members as (
        select d.classid, d.objid
        from pg_extension e join pg_depend d on d.refobjid = e.oid and d.deptype = 'e'
        where e.extname = 'stripe_credits' and d.refclassid = 'pg_extension'::regclass
    ), functions as (
        select 'function ' || p.oid::regprocedure as object, p.proname::text as name
        from members m join pg_proc p on m.classid = 'pg_proc'::regclass and p.oid = m.objid
    ), relations as (
        -- Those of schema billing_fdw have no name here: some are called as one of ours that a client reads.
        select 'table ' || c.oid::regclass as object,
            case when c.relnamespace = 'billing'::regnamespace then c.relname::text end as name
        from members m join pg_class c on m.classid = 'pg_class'::regclass and c.oid = m.objid
        where c.relkind in ('r', 'v')
    )
    select k, 'schema billing', 'USAGE' from unnest(array['client', 'service', 'owner']) k
    union all
    select k, 'schema billing_fdw', 'USAGE' from unnest(array['service', 'owner']) k
    union all
    select 'owner', f.object, 'EXECUTE' from functions f
    union all
    select 'service', r.object, 'SELECT' from relations r
    union all
    select 'client', r.object, 'SELECT' from relations r
    where r.name in ('accounts', 'credit_grants', 'credit_transactions', 'reservations', 'customers', 'subscriptions',
        'prices', 'user_credits')
    union all
    select 'service', f.object, 'EXECUTE' from functions f
    where f.name not in ('guard_drop', 'kept_table_changed', 'refuse_ledger_change', 'require_given', 'require_positive',
        'require_not_negative', 'require_named', 'access_rights', 'grant_access', 'settle_account', 'older_answer',
        'owner_role_faults', 'present_state', 'installed_state', 'set_rights', 'secure_installation', 'access_faults',
        'surroundings_faults')
    union all
    select 'client', f.object, 'EXECUTE' from functions f
    where f.name in ('current_user_id', 'is_service', 'free_plan', 'lots_by', 'balances_by', 'account_time', 'my_credits',
        'my_transactions', 'my_payments')
$$;
comment on function billing.access_rights() is
'The rights of a client role, a service role and the owner role, one a row: on what, which.';

create function billing.grant_access(p_client regrole, p_service regrole) returns void
language plpgsql set search_path = pg_catalog, pg_temp
as $$
declare
    v_grant record;
begin
    perform billing.require_given(p_client, 'p_client');
    perform billing.require_given(p_service, 'p_service');
    if p_client = p_service then
        raise exception 'the client role and the service role must differ'
            using errcode = 'invalid_parameter_value', detail = format('p_client = p_service = %s', p_client);
    end if;
    for v_grant in select * from billing.access_rights() where role_kind in ('client', 'service') loop
        execute format('grant %s on %s to %s', v_grant.privilege, v_grant.object,
            case v_grant.role_kind when 'client' then p_client else p_service end);
    end loop;
end
$$;
comment on function billing.grant_access(regrole, regrole) is
'Grants a client role and a service role what they may do, for installs whose roles are not Supabase''s '
'authenticated and service_role, which CREATE EXTENSION grants to if they exist.
  p_client   reads its own rows, runs the my_… functions
  p_service  runs the service functions, reads every row
To be run by the role that installed the extension. Errors: 22004 null, 22023 the same role twice.';

-- Nobody else keeps any right on any object of the schema.
create function billing.set_rights(p_clients oid[], p_services oid[]) returns void
language plpgsql set search_path = pg_catalog, pg_temp
as $$
declare
    v_right record;
begin
    for v_right in
        select distinct o.object,
            case when a.grantee = 0 then 'public' else a.grantee::regrole::text end as grantee
        from (
            select 'schema ' || n.nspname as object, n.nspowner as owner, n.nspacl as acl
            from pg_namespace n where n.nspname in ('billing', 'billing_fdw')
            union all
            select 'table ' || c.oid::regclass, c.relowner, c.relacl
            from pg_class c
            where c.relnamespace in ('billing'::regnamespace, 'billing_fdw'::regnamespace)
                and c.relkind in ('r', 'v')
            union all
            select 'function ' || p.oid::regprocedure, p.proowner, coalesce(p.proacl, acldefault('f', p.proowner))
            from pg_proc p where p.pronamespace = 'billing'::regnamespace
        ) o
        cross join lateral aclexplode(o.acl) a
        where a.grantee <> o.owner
    loop
        execute format('revoke all on %s from %s cascade', v_right.object, v_right.grantee);
    end loop;
    grant usage on schema billing, billing_fdw to stripe_credits_owner;
    grant execute on all functions in schema billing to stripe_credits_owner;
    for v_right in
        select distinct e.object, e.privilege, r.grantee::regrole as grantee
        from billing.access_rights() e
        join (
            select 'service' as role_kind, s as grantee from unnest(p_services) s
            union all
            select 'client', c from unnest(p_clients) c where c <> all (p_services)
        ) r using (role_kind)
    loop
        execute format('grant %s on %s to %s', v_right.privilege, v_right.object, v_right.grantee);
    end loop;
end
$$;
comment on function billing.set_rights(oid[], oid[]) is
'Gives the owner role, client roles and service roles their rights, and takes from everybody else what default privileges, '
'such as Supabase''s, or an older grant gave; part of secure_installation().';

-- The end of the install script, and of every script that updates the extension: over every object of the schema, so
-- that no new one can be forgotten.
create function billing.secure_installation() returns void
language plpgsql set search_path = pg_catalog, pg_temp
as $$
declare
    -- An update keeps the roles that grant_access made. Before there is a record of an installation, whoever has rights
    -- has them by default privileges, or by what a schema that was there before grants.
    v_is_update constant boolean := to_regprocedure('billing.installed_state()') is not null;
    v_clients oid[];
    v_services oid[];
    v_object record;
begin
    select coalesce(array_agg(a.grantee) filter (where p.proname = 'my_credits'), '{}'),
        coalesce(array_agg(a.grantee) filter (where p.proname = 'apply_stripe_event'), '{}')
    into v_clients, v_services
    from pg_proc p cross join lateral aclexplode(p.proacl) a
    join pg_roles r on r.oid = a.grantee and r.rolname not in ('anon', 'stripe_credits_owner')
    where p.oid in ('billing.my_credits()'::regprocedure, 'billing.apply_stripe_event(jsonb, jsonb)'::regprocedure)
        and a.grantee <> p.proowner and v_is_update;
    if not v_is_update and (
        select count(*) = 2 from pg_roles r where r.rolname in ('authenticated', 'service_role'))
    then
        v_clients := array['authenticated'::regrole];
        v_services := array['service_role'::regrole];
    end if;

    -- It may have been there before, of another superuser.
    execute format('alter schema billing owner to %I', current_user);
    for v_object in
        select c.oid::regclass as name from pg_class c
        where c.relnamespace in ('billing'::regnamespace, 'billing_fdw'::regnamespace)
            and c.relkind in ('r', 'v')
    loop
        execute format('alter table %s owner to stripe_credits_owner', v_object.name);
    end loop;
    for v_object in
        select p.oid::regprocedure as signature, l.lanname = 'c' as keeps_plans, p.provolatile = 'v' as writes
        from pg_proc p join pg_language l on l.oid = p.prolang
        where p.pronamespace = 'billing'::regnamespace and p.prosecdef
    loop
        if v_object.keeps_plans then
            -- Its statements look rows up by key. Where one takes an array, Postgres guesses it longer than it is, and
            -- would plan the statement anew each time, which takes longer than to run it.
            execute format('alter function %s set plan_cache_mode = force_generic_plan', v_object.signature);
        end if;
        if v_object.keeps_plans and v_object.writes then
            -- A plan that was made while a table was empty would read all of it, also once it has grown: an import of
            -- 10,000 balances in one statement took 2 minutes instead of 8 seconds.
            execute format('alter function %s set enable_seqscan = off', v_object.signature);
            -- Where a small table is read whole all the same, the plan is priced as if that were dear, and Postgres
            -- would compile it: 0.1 s for an invoice.
            execute format('alter function %s set jit = off', v_object.signature);
        end if;
        execute format('alter function %s owner to stripe_credits_owner', v_object.signature);
    end loop;

    -- Only a script of the extension may drop its function, so that nobody replaces the record by calling this one.
    if v_is_update then
        drop function billing.installed_state();
    end if;
    execute format(
        'create function billing.installed_state() returns table (check_name text, object text, state text) '
        'language sql immutable set search_path = pg_catalog, pg_temp as %L', (
            select 'values ' || string_agg(
                format(E'\n    (%L, %L, %L)', s.check_name, s.object, s.state), ',' order by s)
            from billing.present_state() s));
    comment on function billing.installed_state() is
    'What present_state() returned at the end of CREATE or ALTER EXTENSION, for security_selfcheck().';

    perform billing.set_rights(v_clients, v_services);
end
$$;
comment on function billing.secure_installation() is
'Gives every object its owner and its rights, keeping the roles that grant_access made, and records the installation '
'for security_selfcheck(). The last statement of the install script and of each script that updates the extension; '
'outside of these it raises 2BP01.';

do $$
begin
    perform billing.secure_installation();
end
$$;
