-- Takes away what compat/public.sql made, and nothing else:
--
--   psql -v ON_ERROR_STOP=1 --single-transaction -f compat/public-remove.sql
--
-- The books in schema billing stay as they are.

do $$
declare
    v_object record;
begin
    for v_object in
        select format('trigger %I on %s', t.tgname, t.tgrelid::regclass) as name
        from pg_catalog.pg_trigger t join pg_catalog.pg_proc p on p.oid = t.tgfoid
        where p.pronamespace = 'public'::regnamespace and t.tgname like 'compat\_%' and p.proname like 'stripe\_credits\_%'
    loop
        execute 'drop ' || v_object.name;
    end loop;
    for v_object in
        select case when c.relname = 'user_credits' then 1 else 0 end as place, 'view ' || c.oid::regclass as name
        from pg_catalog.pg_class c
        where c.relnamespace = 'public'::regnamespace and c.relkind = 'v'
            and c.relname in ('user_credits', 'credit_transactions')
            and c.relowner = 'stripe_credits_owner'::regrole
        union all
        select 2, 'function ' || p.oid::regprocedure
        from pg_catalog.pg_proc p
        where p.pronamespace = 'public'::regnamespace and (p.proname like 'stripe\_credits\_%'
            or p.proowner = 'stripe_credits_owner'::regrole)
        order by 1
    loop
        execute 'drop ' || v_object.name;
    end loop;
end
$$;
