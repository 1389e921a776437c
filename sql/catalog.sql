-- The catalog: what prices are worth, and the policies.

create table billing.settings (
    singleton boolean primary key default true check (singleton),
    livemode boolean not null,
    stripe_account text,
    begins_at timestamptz,
    signup_credits billing.credits not null,
    reversal_policy billing.reversal_policy not null,
    no_payment_required text not null check (no_payment_required in ('grant', 'ignore')),
    user_namespace uuid,
    free_plan_key text,
    free_plan_name text,
    free_plan_credits billing.credits,
    free_plan_every interval,
    low_credits jsonb not null,
    expiring_days integer check (expiring_days > 0),
    auto_top_up jsonb,
    loaded_at timestamptz not null,
    distributed boolean not null default false,
    check (num_nulls(free_plan_key, free_plan_name, free_plan_credits, free_plan_every) in (0, 4))
);
comment on table billing.settings is
'One row: the settings of the whole install. Written by load_catalog; before that, every event is parked.';
comment on column billing.settings.livemode is
'Whether this ledger records real money. Events of the other mode are ignored.';
comment on column billing.settings.stripe_account is
'The connected account whose events are applied; null: only events without an account.';

comment on column billing.settings.begins_at is
'Payments made before this time are ignored, before_books: they were credited elsewhere. Null: all payments count.';
comment on column billing.settings.user_namespace is
'The namespace in which texts that are not UUIDs name users, by UUID version 5; null: only UUIDs name users.';
comment on column billing.settings.low_credits is
'The balances of which the app is told: {"default": [100, 10], "plans": {"pro": [1000]}}, highest first.';
comment on column billing.settings.expiring_days is
'How many days ahead the app is told that credits expire; null: never.';
comment on column billing.settings.auto_top_up is
'What is bought for users who allow it, when their credits run low: {"pack", "price_id", "credits", "below", "at_most"}; null: '
'nothing.';

comment on column billing.settings.distributed is
'Set by a DBA who has distributed the tables by Citus, whose nodes log in to each other as the owner role: that it may is '
'no fault then. Not written by load_catalog.';

create table billing.prices (
    price_id billing.identifier not null,
    names text not null check (names in ('price', 'product')),
    valid_from timestamptz not null,
    kind text not null check (kind in ('plan', 'pack', 'not_credits')),
    key text not null,
    name text not null,
    credits billing.credits not null,
    rank integer not null,
    every interval not null check (every > interval '0'),
    drip interval check (drip > interval '0'),
    renewal text not null check (renewal in ('reset', 'rollover')),
    max_rollover billing.credits not null,
    plan_change text not null check (plan_change in ('reset', 'keep')),
    cancellation text not null check (cancellation in ('keep', 'expire')),
    trial_credits billing.credits not null,
    first_purchase_bonus billing.credits not null,
    expires_after interval check (expires_after > interval '0'),
    retired boolean not null,
    primary key (price_id, valid_from)
);
comment on table billing.prices is
'The catalog, effective-dated: a Stripe price is worth what the row in force said when it was bought. Written only '
'by load_catalog.';
comment on column billing.prices.price_id is
'The id of a Stripe price, or of a product that stands for all of its prices.';
comment on column billing.prices.names is
'What price_id names: a price, or a product, of which every price is meant that has no row of its own.';
comment on column billing.prices.every is
'The billing interval that the credits are for, used where Stripe''s objects do not say it.';
comment on column billing.prices.retired is
'No longer sold. If it is paid for after all, it grants what this row says.';

create table billing.price_amounts (
    price_id billing.identifier primary key,
    currency text,
    unit_amount bigint,
    recurring_interval text,
    interval_count integer,
    read_at timestamptz not null
);
comment on table billing.price_amounts is
'What the catalog''s prices cost at Stripe, as `stripe-credits catalog push` read it: to be shown. What a payment is worth '
'never depends on it.';
comment on column billing.price_amounts.unit_amount is
'In the currency''s smallest unit; null if one number does not say it, as for tiers.';
comment on column billing.price_amounts.recurring_interval is
'day, week, month or year; null if it is sold once.';

create function billing.store_price_amounts(p_amounts jsonb) returns void
language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
begin
    perform billing.require_given(p_amounts, 'p_amounts');
    if jsonb_typeof(p_amounts) <> 'array' then
        raise exception 'p_amounts must be an array' using errcode = 'invalid_parameter_value',
            detail = format('p_amounts is of type %s', jsonb_typeof(p_amounts));
    end if;
    insert into billing.price_amounts (price_id, currency, unit_amount, recurring_interval, interval_count, read_at)
    select a.id, a.currency, a.unit_amount, a.recurring ->> 'interval', (a.recurring ->> 'interval_count')::integer,
        statement_timestamp()
    from jsonb_to_recordset(p_amounts) a (id text, currency text, unit_amount bigint, recurring jsonb)
    on conflict (price_id) do update set (currency, unit_amount, recurring_interval, interval_count, read_at) =
        (excluded.currency, excluded.unit_amount, excluded.recurring_interval, excluded.interval_count,
            excluded.read_at);
end
$$;
comment on function billing.store_price_amounts(jsonb) is
'Stores what prices cost, for GET /catalog.
  p_amounts  an array of Stripe''s prices: id, currency, unit_amount, recurring
Errors: 22004 null, 22023 not an array.';

create function billing.kept_table_changed() returns trigger
language c set search_path = pg_catalog, pg_temp
as 'MODULE_PATHNAME', 'kept_table_changed_wrapper';
comment on function billing.kept_table_changed() is
'Trigger: tells every connection that what it keeps of the table is old.';

create trigger kept_table_changed after insert or update or delete or truncate on billing.settings
    for each statement execute function billing.kept_table_changed();
alter table billing.settings enable always trigger kept_table_changed;
create trigger kept_table_changed after insert or update or delete or truncate on billing.prices
    for each statement execute function billing.kept_table_changed();
alter table billing.prices enable always trigger kept_table_changed;

create table billing.repricings (
    number bigint primary key check (number > 0),
    changed text[] not null,
    added text[] not null,
    free_plan_since timestamptz,
    passed uuid,
    is_walked boolean not null,
    busy uuid[] not null,
    created_at timestamptz not null
);
comment on table billing.repricings is
'Changes of the catalog that are not posted to every account yet: accounts are looked at in the order of their users, a '
'batch a transaction. Empty but after a load of the catalog.';
comment on column billing.repricings.changed is 'The ids of the prices and products that changed.';
comment on column billing.repricings.added is
'Of these, the ones that the catalog had never had: lines that it did not know are worth something now.';
comment on column billing.repricings.free_plan_since is
'If a free plan was new in the catalog, since when: its months begin then in every account that has signed up.';
comment on column billing.repricings.passed is 'The last user whose account was looked at.';
comment on column billing.repricings.is_walked is 'Whether every account was looked at.';
comment on column billing.repricings.busy is 'Users up to there whose accounts were locked by somebody else.';

create function billing.resolve_price(p_price_id text, p_at timestamptz default now())
returns setof billing.prices
language plpgsql stable security definer set search_path = pg_catalog, pg_temp
as $$
begin
    perform billing.require_named(p_price_id, 'p_price_id');
    perform billing.require_given(p_at, 'p_at');
    return query
        select p.* from billing.prices p
        where p.price_id = p_price_id
        order by p.valid_from <= p_at desc,
            case when p.valid_from <= p_at then p.valid_from end desc,
            p.valid_from
        limit 1;
end
$$;
comment on function billing.resolve_price(text, timestamptz) is
'The row of a price, or of a product in the catalog, in force at p_at, by default now; before its first row, the first. No row for an unknown price. A '
'retired row still says what the price is worth.
Errors: 22004 null, 22023 blank or too long.';

create function billing.assert_known_price(p_price_id text) returns void
language plpgsql stable security definer set search_path = pg_catalog, pg_temp
as $$
begin
    if not exists (select from billing.resolve_price(p_price_id) p where not p.retired) then
        raise exception 'price % is not on sale in the catalog', p_price_id
            using errcode = 'invalid_parameter_value', detail = format('p_price_id = %L', p_price_id),
                hint = 'Add the price to the catalog document and load it with billing.load_catalog.';
    end if;
end
$$;
comment on function billing.assert_known_price(text) is
'Raises 22023 and names the price unless the catalog sells it now. Errors: 22004 null, 22023 blank or too long.';
