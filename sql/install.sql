-- What has to stand before anything else: a schema that nobody prepared for us, an owner that cannot log in, the answer's type.

-- Whoever could create objects in schema billing before us could put a function or an operator in the way of ours
-- (CVE-2022-2625), so the schema must be empty and in the hands of the installer or another superuser.
-- Until that is proved, nothing is looked up in it.
set local search_path = pg_catalog, pg_temp;
do $$
declare
    v_schema pg_catalog.pg_namespace;
begin
    select n.* into strict v_schema from pg_catalog.pg_namespace n where n.nspname = 'billing';
    if v_schema.nspowner <> (select r.oid from pg_catalog.pg_roles r where r.rolname = current_user)
        and not (select r.rolsuper from pg_catalog.pg_roles r where r.oid = v_schema.nspowner)
    then
        raise exception 'schema billing belongs to %, not to the installer', v_schema.nspowner::pg_catalog.regrole
            using errcode = 'duplicate_schema', hint = 'Drop or rename the schema, then CREATE EXTENSION again.';
    end if;
    if exists (
        select from pg_catalog.pg_depend d
        where d.refclassid = 'pg_catalog.pg_namespace'::pg_catalog.regclass and d.refobjid = v_schema.oid
            and d.classid <> 'pg_catalog.pg_extension'::pg_catalog.regclass)
    then
        raise exception 'schema billing is not empty'
            using errcode = 'duplicate_schema', hint = 'Drop or rename the schema, then CREATE EXTENSION again.';
    end if;
end
$$;

set local search_path = billing, pg_temp;

-- Tables, view and SECURITY DEFINER functions belong to this role, so that none of them runs with a superuser's rights.
do $$
begin
    if not exists (select from pg_catalog.pg_roles r where r.rolname = 'stripe_credits_owner') then
        create role stripe_credits_owner nologin;
    end if;
end
$$;

create type billing.outcome as (
    ok boolean,
    outcome text,
    already_applied boolean,
    reason text,
    user_id uuid,
    credits bigint,
    remaining_subscription bigint,
    remaining_purchased bigint,
    remaining_promotional bigint,
    remaining_total bigint,
    debt bigint,
    tier text,
    subscription_status text,
    to_fetch jsonb,
    details jsonb
);

-- What the columns of several tables hold. Domains, because Postgres compiles a domain's check once a connection, and a
-- table's CHECK anew for every statement that writes to it: those were half of the work of a spend.
create domain billing.credits as bigint check (value >= 0);
create domain billing.movement as bigint check (value <> 0);
create domain billing.ordinal as bigint check (value > 0);
create domain billing.identifier as text check (value <> '');
create domain billing.pool as text check (value in ('subscription', 'purchased', 'promotional'));
create domain billing.transaction_type as text check (value in (
    'purchase', 'subscription_grant', 'signup', 'bonus', 'grant', 'spend', 'reservation', 'release', 'expiry', 'set_aside',
    'restore', 'reversal', 'reinstatement', 'debt_settlement'));
create domain billing.event_outcome as text check (value in (
    'applied', 'already_applied', 'ignored', 'parked', 'rejected', 'needs_fetch'));

-- A text argument that names something, as error.rs checks it for the functions in Rust.
create function billing.require_named(p_value text, p_argument text) returns void
language plpgsql immutable set search_path = pg_catalog, pg_temp
as $$
begin
    if p_value is null then
        raise exception '% must not be null', p_argument
            using errcode = 'null_value_not_allowed', detail = format('%s = NULL', p_argument);
    elsif p_value !~ '\S' then
        raise exception '% must not be blank', p_argument
            using errcode = 'invalid_parameter_value', detail = format('%s = %L', p_argument, p_value);
    end if;
end
$$;
