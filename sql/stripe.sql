-- The tables of a Stripe object, keyed by its id.

create table billing.customers (
    customer_id billing.identifier primary key,
    user_id uuid not null,
    source text not null check (source in ('client_reference', 'server')),
    as_of timestamptz not null
);
create index customers_user on billing.customers (user_id);

create table billing.subscriptions (
    subscription_id billing.identifier primary key,
    user_id uuid,
    customer_id text,
    price_id text,
    tier text not null,
    -- Its plan's, by the catalog: the highest of several names the account's tier.
    rank integer,
    -- The most that a lot may hold from now on that was paid for before it was this plan; null: as much as it did.
    lot_limit billing.credits,
    status text not null check (status in (
        'incomplete', 'unpaid', 'paused', 'past_due', 'trialing', 'active', 'incomplete_expired', 'canceled')),
    quantity bigint not null check (quantity > 0),
    current_period_start timestamptz not null,
    current_period_end timestamptz not null,
    trial_end timestamptz,
    cancel_at_period_end boolean not null,
    ended_at timestamptz check ((ended_at is not null) = (status in ('incomplete_expired', 'canceled'))),
    -- As of when Stripe says all this: it only rises.
    as_of timestamptz not null,
    stripe_event_id text,
    created_at timestamptz not null,
    updated_at timestamptz not null
);
create index subscriptions_user on billing.subscriptions (user_id);
create index subscriptions_customer on billing.subscriptions (customer_id);
create index subscriptions_price on billing.subscriptions (price_id);

-- What was paid. Claiming a row here is what makes a payment count once. A row that is not paid yet says whose a
-- session is: an operator attributed it before it was paid.
create table billing.payments (
    source_id billing.identifier primary key,
    source_type text not null check (source_type in ('checkout_session', 'invoice')),
    user_id uuid not null,
    customer_id text,
    subscription_id text,
    amount_total bigint,
    currency text,
    -- Credits of this payment that were reversed after they had been spent: its share of the account's debt, settled or not.
    owed billing.credits not null default 0,
    paid_at timestamptz,
    created_at timestamptz not null
);
create index payments_user on billing.payments (user_id);

create table billing.payment_intents (
    payment_intent_id billing.identifier primary key,
    source_id billing.identifier not null
);
create index payment_intents_source on billing.payment_intents (source_id);

create table billing.reversals (
    reversal_id billing.identifier primary key,
    kind text not null check (kind in ('refund', 'charge', 'dispute')),
    -- It only rises, in this order.
    state text not null check (state in ('inquiry', 'live', 'undone')),
    payment_intent_id text,
    charge_id text,
    amount bigint not null check (amount >= 0),
    currency text,
    charged bigint check (charged >= 0),
    created_at timestamptz not null,
    updated_at timestamptz not null
);
create index reversals_payment_intent on billing.reversals (payment_intent_id);

-- The inbox: every event as it was received, with what came of it.
create table billing.stripe_events (
    event_id billing.identifier primary key,
    type text,
    created timestamptz,
    api_version text,
    livemode boolean,
    account text,
    object_id text,
    customer_id text,
    payload jsonb not null,
    -- What Stripe answered when it was asked, so that an event parked after the answer need not ask again.
    fetched jsonb,
    outcome billing.event_outcome not null,
    reason text,
    details jsonb,
    user_id uuid,
    attempts integer not null default 1 check (attempts > 0),
    first_received_at timestamptz not null,
    last_received_at timestamptz not null,
    -- When it was last judged: what waits is retried in this order, so that nothing starves.
    judged_at timestamptz not null,
    applied_at timestamptz
);
create index stripe_events_object on billing.stripe_events (object_id);
create index stripe_events_parked_customer on billing.stripe_events (customer_id) where outcome = 'parked';
create index stripe_events_waiting on billing.stripe_events (judged_at)
    where outcome in ('parked', 'needs_fetch');
-- For windows of time at next to no cost a row: the inbox is written in order of arrival.
create index stripe_events_received on billing.stripe_events
    using brin (first_received_at) with (autosummarize = on);

-- How far the shim's commands have come through Stripe's lists, so that the next run goes on there.
create table billing.cursors (
    command billing.identifier primary key,
    position jsonb not null,
    moved_at timestamptz not null
);

create function billing.move_cursor(p_command text, p_position jsonb default null) returns void
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp
as $$
begin
    perform billing.require_named(p_command, 'p_command');
    if p_position is null then
        delete from billing.cursors where command = p_command;
        return;
    end if;
    insert into billing.cursors as c (command, position, moved_at)
    values (p_command, p_position, clock_timestamp())
    on conflict (command) do update set position = excluded.position, moved_at = excluded.moved_at;
end
$$;
