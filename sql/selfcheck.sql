-- Whether the installation is still as it was made. What it is compared with is recorded by security.sql, in the body
-- of a function and not in rows, which a restore would bring twice.

-- Everything that a rule of access or of the books rests on. Names and texts, no oids: they differ after a restore. Each
-- major version prints a view's definition in its own way, so its version stands before it: after pg_upgrade the two are
-- not comparable until an update of the extension records them anew.
create function billing.present_state() returns table (check_name text, object text, state text)
language sql stable set search_path = pg_catalog, pg_temp
as $$
    with relations as (
        select c.* from pg_class c
        where c.relnamespace in ('billing'::regnamespace, 'billing_fdw'::regnamespace)
            and c.relkind not in ('i', 'I', 'c')
    ), installer as (
        select e.extowner as oid from pg_extension e where e.extname = 'stripe_credits'
    )
    select 'tables and views are as installed',
        case c.relkind when 'r' then 'table ' when 'v' then 'view ' else 'relation ' end || c.oid::regclass,
        format('owner %s, row security %s, options %s%s', c.relowner::regrole,
            case when not c.relrowsecurity then 'off' when c.relforcerowsecurity then 'forced' else 'on' end,
            c.reloptions, case c.relpersistence when 'u' then ', unlogged: empty after a crash' end)
    from relations c
    union all
    select 'columns are as installed', format('column %s.%I', c.oid::regclass, t.attname),
        concat_ws(' ', format_type(t.atttypid, t.atttypmod), case when t.attnotnull then 'not null' end,
            case when t.attgenerated = '' then 'default' else 'generated' end || ' ' || pg_get_expr(d.adbin, c.oid))
    from relations c
    join pg_attribute t on t.attrelid = c.oid and t.attnum > 0 and not t.attisdropped
    left join pg_attrdef d on d.adrelid = c.oid and d.adnum = t.attnum
    where c.relkind = 'r'
    union all
    select 'views are defined as installed', 'view ' || c.oid::regclass,
        format('Postgres %s %s', current_setting('server_version_num')::integer / 10000, md5(pg_get_viewdef(c.oid)))
    from relations c where c.relkind = 'v'
    union all
    select 'policies are as installed', format('policy %I on %s', p.polname, c.oid::regclass),
        concat_ws(' ', p.polcmd, p.polpermissive, p.polroles, pg_get_expr(p.polqual, c.oid),
            pg_get_expr(p.polwithcheck, c.oid))
    from relations c join pg_policy p on p.polrelid = c.oid
    union all
    select 'triggers and rules are as installed', format('trigger %I on %s', t.tgname, c.oid::regclass),
        pg_get_triggerdef(t.oid) || ' enabled ' || t.tgenabled::text
    from relations c join pg_trigger t on t.tgrelid = c.oid and not t.tgisinternal
    -- Those of compat/public.sql run after the row is written (neither BEFORE, 2, nor INSTEAD OF, 64, but FOR EACH ROW,
    -- 1), as somebody who has no right on the books: they can do nothing here that their owner could not do elsewhere.
    where not (c.relname = 'accounts' and t.tgname in ('compat_profiles', 'compat_users') and t.tgtype & 67 = 1
        and t.tgenabled = 'O' and exists (
            select from pg_proc p
            where p.oid = t.tgfoid and p.pronamespace = 'public'::regnamespace and p.prosecdef
                and p.proowner::regrole::text <> 'stripe_credits_owner'
                and 'search_path=pg_catalog, pg_temp' = any (p.proconfig)))
    union all
    select 'triggers and rules are as installed', format('rule %I on %s', r.rulename, c.oid::regclass),
        pg_get_ruledef(r.oid) || ' enabled ' || r.ev_enabled::text
    from relations c join pg_rewrite r on r.ev_class = c.oid and r.rulename <> '_RETURN'
    union all
    select 'triggers and rules are as installed', format('event trigger %I', t.evtname),
        format('on %s %s by %s, enabled %s', t.evtevent, t.evttags, t.evtfoid::regprocedure, t.evtenabled)
    from pg_event_trigger t join pg_proc p on p.oid = t.evtfoid
    where t.evtname like 'stripe\_credits\_%' or p.pronamespace = 'billing'::regnamespace
    union all
    -- Bodies by their digest; of a function in Rust, the body is its symbol.
    select 'functions are as installed', 'function ' || p.oid::regprocedure,
        format('owner %s, %s, %s, %s, %s, body %s',
            case when p.proowner = i.oid then 'installer' else p.proowner::regrole::text end, l.lanname,
            case when p.prosecdef then 'security definer' else 'security invoker' end,
            case p.provolatile when 'i' then 'immutable' when 's' then 'stable' else 'volatile' end,
            coalesce(p.proconfig::text, 'no settings'), md5(concat_ws(' ', p.probin, p.prosrc)))
    from pg_proc p
    join pg_language l on l.oid = p.prolang
    cross join installer i
    -- Its body is this record.
    where p.pronamespace = 'billing'::regnamespace and p.proname <> 'installed_state'
    union all
    -- NOT NULL has rows here from Postgres 18 on only.
    select 'constraints are as installed',
        format('constraint %I on %s', t.conname, coalesce(c.oid::regclass::text, t.contypid::regtype::text)),
        pg_get_constraintdef(t.oid)
    from pg_constraint t
    left join relations c on c.oid = t.conrelid
    where (c.oid is not null or t.connamespace = 'billing'::regnamespace and t.contypid <> 0) and t.contype <> 'n'
$$;
comment on function billing.present_state() is
'What security_selfcheck() compares with installed_state(): tables, columns, views, policies, triggers, rules, functions '
'and constraints, each with all that matters of it in a text.';

create function billing.access_faults() returns table (check_name text, fault text)
language sql stable set search_path = pg_catalog, pg_temp
as $$
    with rights as (
        select 'schema ' || n.nspname as object, n.nspowner as owner, a.*
        from pg_namespace n cross join lateral aclexplode(coalesce(n.nspacl, acldefault('n', n.nspowner))) a
        where n.nspname in ('billing', 'billing_fdw')
        union all
        select 'table ' || c.oid::regclass, c.relowner, a.*
        from pg_class c
        cross join lateral aclexplode(coalesce(c.relacl, acldefault('r', c.relowner))) a
        where c.relnamespace in ('billing'::regnamespace, 'billing_fdw'::regnamespace)
            and c.relkind not in ('i', 'I', 'c')
        union all
        select format('column %s.%I', c.oid::regclass, t.attname), c.relowner, a.*
        from pg_class c join pg_attribute t on t.attrelid = c.oid cross join lateral aclexplode(t.attacl) a
        where c.relnamespace in ('billing'::regnamespace, 'billing_fdw'::regnamespace)
        union all
        select 'function ' || p.oid::regprocedure, p.proowner, a.*
        from pg_proc p cross join lateral aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) a
        where p.pronamespace = 'billing'::regnamespace
    ), granted as materialized (
        select r.grantee, case when r.grantee = 0 then 'PUBLIC' else r.grantee::regrole::text end as name, r.object,
            r.privilege_type || case when r.is_grantable then ' with grant option' else '' end as privilege
        from rights r where r.grantee <> r.owner
    ), expected as materialized (
        select e.*, count(*) over (partition by e.role_kind) as rights from billing.access_rights() e
    ), roles as (
        -- A role is what grant_access made it, if it has all of that; PUBLIC and anon are never given anything.
        select g.grantee, g.name, (
                case g.name when 'PUBLIC' then 'nobody' when 'anon' then 'nobody'
                    when 'stripe_credits_owner' then 'owner'
                else (
                    select k.role_kind
                    from (
                        select e.role_kind, e.rights
                        from granted h join expected e using (object, privilege)
                        where h.grantee = g.grantee and e.role_kind <> 'owner'
                        group by e.role_kind, e.rights having count(distinct e.object) = e.rights
                    ) k
                    -- The service role has what a client has too.
                    order by k.rights desc limit 1) end) as role_kind
        from (select distinct grantee, name from granted) g
    )
    select 'only owner, client and service roles have rights', format('%s: %s on %s', g.name, g.privilege, g.object)
    from granted g
    join roles r using (grantee)
    where not exists (
        select from expected e
        where e.role_kind = r.role_kind and e.object = g.object and e.privilege = g.privilege)
    union all
    select 'client roles have no wider rights',
        format('%s: %s', c.rolname, case when w.oid = c.oid then 'is a superuser or has BYPASSRLS'
            else 'is a member of ' || w.oid::regrole end)
    from pg_roles c
    join pg_roles w on pg_has_role(c.oid, w.oid, 'member')
    where (c.rolname in ('anon', 'authenticated') or exists (
            select from roles r where r.grantee = c.oid and r.role_kind = 'client'))
        and (w.rolsuper or w.rolbypassrls or w.rolname = 'stripe_credits_owner'
            or w.rolname in ('pg_read_all_data', 'pg_write_all_data', 'pg_maintain', 'pg_read_server_files',
                'pg_write_server_files', 'pg_execute_server_program')
            or exists (select from roles r where r.grantee = w.oid and r.role_kind = 'service'))
$$;
comment on function billing.access_faults() is
'The part of security_selfcheck() about rights: who has any that grant_access did not give, and which client role has '
'them in another way.';

create function billing.surroundings_faults() returns table (check_name text, fault text)
language sql stable set search_path = pg_catalog, pg_temp
as $$
    with relations as (
        select c.oid from pg_class c where c.relnamespace = 'billing'::regnamespace and c.relkind in ('r', 'v')
    )
    -- Citus's nodes talk to each other as the tables' owner.
    select 'the owner role cannot log in, has no attributes and no members', 'stripe_credits_owner ' || f
    from billing.owner_role_faults() f
    where not (f = 'may log in' and exists (select from billing.settings s where s.distributed))
    union all
    select 'the schema belongs to the installer', format('schema %s: owner %s', n.nspname, n.nspowner::regrole)
    from pg_namespace n join pg_extension e on e.extname = 'stripe_credits'
    where n.nspname in ('billing', 'billing_fdw') and n.nspowner <> e.extowner
    union all
    select 'no other object shares the tables'' rows',
        format('%s inherits from %s', i.inhrelid::regclass, i.inhparent::regclass)
    from pg_inherits i
    where i.inhrelid in (select r.oid from relations r) or i.inhparent in (select r.oid from relations r)
    union all
    -- A view with security_invoker gives nobody anything.
    select distinct 'no other object shares the tables'' rows',
        format('view %s reads %s with its owner''s rights', v.oid::regclass, d.refobjid::regclass)
    from pg_depend d
    join pg_rewrite r on d.classid = 'pg_rewrite'::regclass and r.oid = d.objid
    join pg_class v on v.oid = r.ev_class and v.relkind in ('v', 'm')
    where d.refclassid = 'pg_class'::regclass and d.refobjid in (select r.oid from relations r)
        and v.relnamespace <> 'billing'::regnamespace
        and not exists (
            select from pg_options_to_table(v.reloptions) o
            where o.option_name = 'security_invoker' and o.option_value::boolean)
    union all
    select 'settings keep triggers and READ COMMITTED in force', format('%s: %s = %s', s.place, s.name, s.value)
    from (
        select 'this session' as place, n as name, current_setting(n) as value
        from unnest(array['default_transaction_isolation', 'session_replication_role']) n
        union all
        select concat_ws(', ', case when s.setdatabase <> 0 then 'database ' || current_database() end,
                case when s.setrole <> 0 then 'role ' || s.setrole::regrole end),
            split_part(c, '=', 1), split_part(c, '=', 2)
        from pg_db_role_setting s cross join lateral unnest(s.setconfig) c
        where s.setdatabase in (0, (select d.oid from pg_database d where d.datname = current_database()))
    ) s
    where (s.name = 'default_transaction_isolation' and s.value not in ('read committed', 'read uncommitted'))
        or (s.name = 'session_replication_role' and s.value <> 'origin')
$$;
comment on function billing.surroundings_faults() is
'The part of security_selfcheck() about what is around the schema''s objects: the owner role, the schema, tables and '
'views that share rows, settings of the session, the database and roles.';

create function billing.security_selfcheck() returns table (check_name text, ok boolean, detail text)
language sql stable security definer set search_path = pg_catalog, pg_temp
as $$
    with faults (check_name, fault) as (
        select check_name, object || ': ' || case when now.state is null then 'missing'
            when installed.state is null then 'not installed by the extension, ' || now.state
            else now.state || '; installed: ' || installed.state end
        from billing.present_state() now
        full join billing.installed_state() installed using (check_name, object)
        where now.state is distinct from installed.state and not coalesce(
            check_name = 'views are defined as installed'
                and split_part(now.state, ' ', 2) <> split_part(installed.state, ' ', 2), false)
        union all
        select * from billing.access_faults()
        union all
        select * from billing.surroundings_faults()
    ), checks (check_name) as (
        select i.check_name from billing.installed_state() i
        union
        values ('only owner, client and service roles have rights'),
            ('client roles have no wider rights'),
            ('the owner role cannot log in, has no attributes and no members'),
            ('the schema belongs to the installer'),
            ('no other object shares the tables'' rows'),
            ('settings keep triggers and READ COMMITTED in force')
    )
    select c.check_name, count(f.check_name) = 0, coalesce(string_agg(f.fault, E'\n' order by f.fault), '')
    from checks c left join faults f using (check_name)
    group by c.check_name order by c.check_name
$$;
comment on function billing.security_selfcheck() is
'Checks that the installation is as it was made, and that nobody has rights but the owner and the roles that '
'grant_access names: a row per rule, ok, and what breaks it, a line each.';
