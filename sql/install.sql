-- What everything else needs: an empty schema, an owner role that cannot log in, the type of outcomes, domains.

-- A role that could create objects in schema billing beforehand could plant a function or an operator that is called
-- instead of ours (CVE-2022-2625). So the schema must be empty, and belong to the installer or another superuser.
-- Until that is checked, no name is looked up in it.
set local search_path = pg_catalog, pg_temp;
do $$
declare
    v_schema pg_catalog.pg_namespace;
begin
    -- Stripe's JSON is UTF-8: in another encoding a buyer's name would make a paid event unreadable.
    if pg_catalog.getdatabaseencoding() <> 'UTF8' then
        raise exception 'stripe_credits needs a database whose encoding is UTF8, and this one''s is %',
            pg_catalog.getdatabaseencoding()
            using errcode = 'feature_not_supported',
                detail = pg_catalog.format('server_encoding = %s', pg_catalog.getdatabaseencoding()),
                hint = 'CREATE DATABASE … TEMPLATE template0 ENCODING ''UTF8'', and install the extension there.';
    end if;
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

-- Tables, view and SECURITY DEFINER functions belong to this role, so that none has a superuser's rights.
create function billing.owner_role_faults() returns setof text
language sql stable set search_path = pg_catalog, pg_temp
as $$
    select f.fault
    from pg_roles r
    cross join lateral (
        values (r.rolcanlogin, 'may log in'), (r.rolsuper, 'is a superuser'), (r.rolbypassrls, 'has BYPASSRLS'),
            (r.rolcreaterole, 'has CREATEROLE'), (r.rolcreatedb, 'has CREATEDB'),
            (r.rolreplication, 'has REPLICATION')
    ) f (holds, fault)
    where r.rolname = 'stripe_credits_owner' and f.holds
    union all
    select case when m.roleid = r.oid then 'has the member ' || m.member::regrole
        else 'is a member of ' || m.roleid::regrole end
    from pg_roles r join pg_auth_members m on r.oid in (m.roleid, m.member)
    where r.rolname = 'stripe_credits_owner'
    union all
    select 'does not exist' where not exists (select from pg_roles r where r.rolname = 'stripe_credits_owner')
$$;
comment on function billing.owner_role_faults() is
'What makes the role stripe_credits_owner more than an owner of objects; no row if nothing does.';

-- A role is the cluster's: it is there already if another database has the extension, but somebody else may have made
-- it.
do $$
declare
    v_faults text;
begin
    if not exists (select from pg_catalog.pg_roles r where r.rolname = 'stripe_credits_owner') then
        create role stripe_credits_owner nologin;
    end if;
    select pg_catalog.string_agg(f, ', ') into v_faults from billing.owner_role_faults() f;
    if v_faults is not null then
        raise exception 'the role stripe_credits_owner exists, and is not one that may own the books'
            using errcode = 'duplicate_object', detail = pg_catalog.format('stripe_credits_owner %s', v_faults),
                hint = 'ALTER ROLE stripe_credits_owner NOLOGIN (and so on) and REVOKE its memberships, or drop or '
                    'rename it; then CREATE EXTENSION again.';
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
comment on type billing.outcome is
'What a call returns. ok: true for applied and already_applied. outcome: applied, already_applied, ignored, parked, '
'rejected or needs_fetch. reason: why, for ignored, parked and rejected. credits: the net change of the balance. '
'remaining_*: the balances now, by pool. to_fetch: the paths of Stripe''s API to read and hand back as fetched, for '
'needs_fetch. details: postings, prices, discrepancies. Call a function as select * from billing.f(…); (f(…)).* '
'would run it once per column.';

-- Domains, because Postgres compiles a domain's check once per connection, but a table's CHECK and a generated column
-- for every statement that writes to the table: that was half of the work of a spend, and a tenth of a pack's event.
-- What a CHECK of several columns would say, validate_credits_consistency() proves.
create domain billing.credits as bigint check (value >= 0);
comment on domain billing.credits is 'A number of credits.';
create domain billing.movement as bigint check (value <> 0);
comment on domain billing.movement is 'A signed number of credits that moved.';
create domain billing.ordinal as bigint check (value > 0);
comment on domain billing.ordinal is 'The number of a user''s grant, ledger row, top-up or row of the outbox, counted from 1.';
create domain billing.identifier as text check (value <> '');
comment on domain billing.identifier is 'A Stripe id, a price, or a key of the app.';
create domain billing.pool as text check (value in ('subscription', 'purchased', 'promotional'));
comment on domain billing.pool is 'The balance that credits count into.';
create domain billing.transaction_type as text check (value in (
    'purchase', 'subscription_grant', 'signup', 'bonus', 'grant', 'spend', 'reservation', 'release', 'expiry',
    'set_aside', 'restore', 'reversal', 'reinstatement', 'debt_settlement', 'spend_refund', 'adjustment', 'import',
    'transfer'));
comment on domain billing.transaction_type is 'The kind of a ledger row.';
create domain billing.event_outcome as text check (value in (
    'applied', 'already_applied', 'ignored', 'parked', 'rejected', 'needs_fetch'));
comment on domain billing.event_outcome is 'What came of an event.';
create domain billing.source_type as text check (value in (
    'checkout_session', 'invoice', 'payment_intent', 'direct_call'));
comment on domain billing.source_type is 'The kind of Stripe object that was paid, or a direct call.';
create domain billing.name_kind as text check (value in ('checkout_session', 'invoice', 'payment_intent', 'charge'));
comment on domain billing.name_kind is 'The kind of Stripe object that names a payment.';
create domain billing.evidence as text check (value in ('payment_intent', 'metadata', 'lines'));
comment on domain billing.evidence is 'What says which packs a payment bought, worst first.';
create domain billing.reversal_policy as text check (value in ('debt', 'forgive'));
comment on domain billing.reversal_policy is 'What becomes of credits that were drawn before they were reversed.';
create domain billing.link_source as text check (value in ('client_reference', 'snapshot', 'server'));
comment on domain billing.link_source is 'What says which user a customer is, weakest first.';
create domain billing.outbox_type as text check (value in (
    'credits.granted', 'credits.reversed', 'credits.low', 'credits.exhausted', 'credits.expiring',
    'subscription.changed', 'payment.parked', 'payment.applied_late',
    'top_up.requested', 'top_up.succeeded', 'top_up.failed', 'top_up.canceled', 'top_up.refused'));
comment on domain billing.outbox_type is 'What the app is told.';
create domain billing.outbox_state as text check (value in ('pending', 'delivered', 'dead'));
comment on domain billing.outbox_state is 'Whether the app was told.';
create domain billing.top_up_switch as text check (value in ('off', 'on', 'paused'));
comment on domain billing.top_up_switch is 'Whether packs are bought for a user by auto top-up.';
create domain billing.top_up_state as text check (value in ('requested', 'paid', 'succeeded', 'failed', 'canceled'));
comment on domain billing.top_up_state is 'What became of a request for a top-up.';
create domain billing.counter as integer check (value > 0);
comment on domain billing.counter is 'A number counted from 1.';
create domain billing.quantity as bigint check (value >= 0);
comment on domain billing.quantity is 'How many units a line or a subscription item bills.';

-- Checks of arguments, as error.rs does them for the functions in Rust.
create function billing.require_given(p_value anyelement, p_argument text) returns void
language plpgsql immutable set search_path = pg_catalog, pg_temp
as $$
begin
    if p_value is null then
        raise exception '% must not be null', p_argument
            using errcode = 'null_value_not_allowed', detail = format('%s = NULL', p_argument);
    end if;
end
$$;
comment on function billing.require_given(anyelement, text) is 'Raises 22004 if an argument is null.';

create function billing.require_positive(p_value anyelement, p_argument text) returns void
language plpgsql immutable set search_path = pg_catalog, pg_temp
as $$
declare
    c_zero constant p_value%type := '0';
begin
    perform billing.require_given(p_value, p_argument);
    if p_value <= c_zero then
        raise exception '% must be above 0', p_argument
            using errcode = 'invalid_parameter_value', detail = format('%s = %s', p_argument, p_value);
    end if;
end
$$;
comment on function billing.require_positive(anyelement, text) is
'Raises 22004 if a number or an interval is null, 22023 if it is not above 0.';

create function billing.require_not_negative(p_value anyelement, p_argument text) returns void
language plpgsql immutable set search_path = pg_catalog, pg_temp
as $$
declare
    c_zero constant p_value%type := '0';
begin
    perform billing.require_given(p_value, p_argument);
    if p_value < c_zero then
        raise exception '% must not be below 0', p_argument
            using errcode = 'invalid_parameter_value', detail = format('%s = %s', p_argument, p_value);
    end if;
end
$$;
comment on function billing.require_not_negative(anyelement, text) is
'Raises 22004 if a number or an interval is null, 22023 if it is below 0.';

create function billing.require_named(p_value text, p_argument text) returns void
language plpgsql immutable set search_path = pg_catalog, pg_temp
as $$
declare
    -- As MAX_ID_BYTES of the rules.
    c_bytes constant integer := 255;
begin
    perform billing.require_given(p_value, p_argument);
    if octet_length(p_value) > c_bytes then
        raise exception '% must be at most % bytes', p_argument, c_bytes
            using errcode = 'invalid_parameter_value',
                detail = format('%s has %s bytes', p_argument, octet_length(p_value));
    elsif p_value !~ '\S' then
        raise exception '% must not be blank', p_argument
            using errcode = 'invalid_parameter_value', detail = format('%s = %L', p_argument, p_value);
    end if;
end
$$;
comment on function billing.require_named(text, text) is
'Raises 22004 if a text argument is null, 22023 if it is blank or longer than 255 bytes.';
