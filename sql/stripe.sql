-- The tables of a Stripe object, keyed by its id.

create table billing.customers (
    customer_id billing.identifier primary key,
    user_id uuid not null,
    source billing.link_source not null,
    as_of timestamptz not null
);
comment on table billing.customers is 'Which user a Stripe customer is, by which source, as of when.';
create index customers_user on billing.customers (user_id);

create table billing.customer_accounts (
    customer_id billing.identifier primary key,
    account_id billing.identifier not null
);
comment on table billing.customer_accounts is
'Which account of Accounts v2 a Stripe customer is, as objects state that name both. Both are linked to one user.';
create index customer_accounts_account on billing.customer_accounts (account_id);

create table billing.subscriptions (
    subscription_id billing.identifier primary key,
    user_id uuid,
    customer_id text,
    price_id text,
    tier text not null,
    rank integer,
    catalog_id text,
    status text not null check (status in (
        'incomplete', 'unpaid', 'paused', 'past_due', 'trialing', 'active', 'incomplete_expired', 'canceled')),
    quantity bigint not null check (quantity > 0),
    current_period_start timestamptz not null,
    current_period_end timestamptz not null,
    trial_end timestamptz,
    cancel_at timestamptz,
    cancel_at_period_end boolean not null,
    ended_at timestamptz check ((ended_at is not null) = (status in ('incomplete_expired', 'canceled'))),
    as_of timestamptz not null,
    seen_at timestamptz not null,
    listed_since timestamptz,
    known_at timestamptz not null,
    stripe_event_id text,
    created_at timestamptz not null,
    updated_at timestamptz not null
);
comment on table billing.subscriptions is 'The latest known state of each Stripe subscription.';
comment on column billing.subscriptions.rank is
'The plan''s rank in the catalog: of several subscriptions, the highest names the account''s tier.';
comment on column billing.subscriptions.catalog_id is
'The row of billing.prices that says so: the price''s, or its product''s.';
comment on column billing.subscriptions.as_of is 'The time of this state by Stripe''s clock. It only rises.';
create index subscriptions_user on billing.subscriptions (user_id);
create index subscriptions_customer on billing.subscriptions (customer_id);

comment on column billing.subscriptions.seen_at is
'As of when the state was so for comparison with periods: as_of, or the time by the customer''s test clock.';
comment on column billing.subscriptions.listed_since is
'As of when the earliest known state with a complete list of items was so, as seen_at.';
comment on column billing.subscriptions.known_at is
'When it became known until when it runs, and since when its list is, in the order of credit_transactions.recorded_at.';

create table billing.subscription_users (
    subscription_id billing.identifier not null,
    as_of timestamptz not null,
    source text not null check (source in ('metadata', 'operator')),
    user_id uuid not null,
    primary key (subscription_id, as_of, source)
);
comment on table billing.subscription_users is
'Which user a subscription was given to, and when: by the metadata of its states, the first and the last that named a user '
'without another in between, or by attribute(). The latest change stands.';

create table billing.subscription_moves (
    subscription_id billing.identifier not null,
    number integer not null check (number > 0),
    from_user uuid not null,
    to_user uuid not null check (to_user <> from_user),
    stripe_event_id text,
    moved_at timestamptz not null,
    primary key (subscription_id, number)
);
comment on table billing.subscription_moves is
'The moves of subscriptions from user to user, numbered per subscription.';
comment on column billing.subscription_moves.moved_at is
'When, in the order of credit_transactions.recorded_at: what was drawn by then stays the former user''s.';
create index subscription_moves_from on billing.subscription_moves (from_user);
create index subscription_moves_to on billing.subscription_moves (to_user);

create table billing.subscription_items (
    item_id billing.identifier not null,
    as_of timestamptz not null,
    seen_at timestamptz not null,
    subscription_id billing.identifier not null,
    -- Null from the state on in which the item is no longer listed.
    price_id text,
    product_id text,
    quantity billing.quantity not null,
    interval interval,
    metered boolean not null,
    removed boolean not null,
    known_at timestamptz not null,
    primary key (subscription_id, item_id, as_of)
);
comment on table billing.subscription_items is
'The states of each subscription item: one row for each change of its content.';
comment on column billing.subscription_items.interval is 'The billing interval of its price, as Stripe names it.';
comment on column billing.subscription_items.known_at is
'When this state became known, in the order of credit_transactions.recorded_at.';
create index subscription_items_metered on billing.subscription_items (price_id) where metered;
-- So that an invoice reads the states since its period, and not those of ten years.
create index subscription_items_seen on billing.subscription_items (subscription_id, item_id, seen_at, as_of);
create index subscription_items_removed on billing.subscription_items (subscription_id, item_id) where removed;

create table billing.payments (
    source_id billing.identifier primary key,
    source_type billing.source_type not null,
    user_id uuid not null,
    customer_id text,
    subscription_id text,
    amount_total bigint,
    currency text,
    worth billing.credits,
    evidence billing.evidence,
    joined_to text,
    paid_at timestamptz,
    discounted boolean not null default false,
    amount_reversed bigint not null default 0,
    amount_charged bigint,
    reversal_policy billing.reversal_policy,
    lines_as_of timestamptz,
    created_at timestamptz not null
);
comment on table billing.payments is
'What was paid, by checkout session, invoice, payment intent or direct call. Claiming a row makes a payment count once. '
'A row without paid_at only names the user to whom an operator attributed the session.';
comment on column billing.payments.worth is 'Of a pack: the credits that the best evidence says were bought.';
comment on column billing.payments.evidence is
'What says so, worst first: a payment intent''s metadata, a session''s metadata, Stripe''s lines or a direct call.';
comment on column billing.payments.joined_to is
'The source_id of the payment that this one turned out to be. It counts there, and grants nothing any more.';
comment on column billing.payments.amount_reversed is
'Of amount_charged, what came back: computed from all reversals together.';
comment on column billing.payments.reversal_policy is
'What becomes of credits that were drawn before they were reversed: the catalog''s policy when something first was.';
comment on column billing.payments.lines_as_of is
'When the listing of its lines was so; null if a direct call named the line, which Stripe''s listing replaces.';
-- By time, so that a user's latest payment is found however many there were.
create index payments_user on billing.payments (user_id, paid_at);

create table billing.invoice_lines (
    source_id billing.identifier not null,
    line billing.counter not null,
    -- Whose account it counts in: the subscription's user, else the payment's.
    user_id uuid not null,
    subscription_id text,
    item_id text,
    price_id text,
    product_id text,
    -- Null: the quantity of the subscription item.
    quantity billing.quantity,
    amount bigint not null,
    discount bigint not null,
    period_start timestamptz not null,
    period_end timestamptz not null,
    proration boolean not null,
    names_credited boolean not null,
    interval interval,
    metered boolean not null,
    paid_at timestamptz not null,
    known_at timestamptz not null,
    primary key (source_id, line)
);
comment on table billing.invoice_lines is
'What each paid invoice bills, line by line: the facts that the credits of plans are computed from.';
comment on column billing.invoice_lines.amount is 'In the currency''s smallest unit, before discounts; below 0: a credit.';
comment on column billing.invoice_lines.discount is 'Of the amount: what discounts take.';
comment on column billing.invoice_lines.names_credited is 'Whether it says which lines it credits.';
comment on column billing.invoice_lines.interval is 'The billing interval of its price, as Stripe names it.';
comment on column billing.invoice_lines.paid_at is
'When its payment was made, as billing.payments says too: an index finds a user''s first purchase by it.';
comment on column billing.invoice_lines.known_at is
'When the line became known, in the order of credit_transactions.recorded_at.';
create index invoice_lines_subscription on billing.invoice_lines (subscription_id, period_start);
create index invoice_lines_periods on billing.invoice_lines (user_id, period_end);
-- What a user has once is found without reading the user's past: the first purchase, and the first line of 0.
create index invoice_lines_purchases on billing.invoice_lines (user_id, paid_at, source_id)
    where subscription_id is not null and not metered and not names_credited and amount > discount;
create index invoice_lines_trials on billing.invoice_lines (user_id, period_start)
    where subscription_id is not null and not metered and not names_credited and not proration and amount = 0;

create table billing.payment_names (
    name billing.identifier primary key,
    kind billing.name_kind not null,
    source_id billing.identifier not null,
    succeeded boolean not null default false
);
comment on table billing.payment_names is
'Every Stripe id of a payment: session, invoice, payment intents, charges. Names of one payment have the same '
'source_id, before the payment is known too: then it is one of them.';
comment on column billing.payment_names.succeeded is
'Of a payment intent: whether it succeeded, by its own event.';
create index payment_names_source on billing.payment_names (source_id);

create table billing.reversals (
    reversal_id billing.identifier primary key,
    kind text not null check (kind in ('refund', 'charge', 'dispute', 'credit_note')),
    payment_name text,
    charge_id text,
    refund_id text,
    amount bigint not null check (amount >= 0),
    currency text,
    charged bigint check (charged >= 0),
    made_at timestamptz,
    undone_at timestamptz,
    withdrawn_at timestamptz,
    reinstated_at timestamptz,
    disputed_at timestamptz,
    state text not null generated always as (
        case
            when kind <> 'dispute' and undone_at is not null then 'undone'
            when kind <> 'dispute' then 'live'
            when coalesce(withdrawn_at, disputed_at) is null and reinstated_at is null then 'inquiry'
            when coalesce(withdrawn_at, disputed_at) > coalesce(reinstated_at, '-infinity') then 'live'
            else 'undone'
        end) stored,
    created_at timestamptz not null,
    updated_at timestamptz not null
);
comment on table billing.reversals is
'What is known of refunds, disputes, credit notes and the refunded amounts of charges. What they take back is '
'computed from all of them together.';
comment on column billing.reversals.payment_name is 'A name of the reversed payment: see payment_names.';
comment on column billing.reversals.refund_id is
'Of a credit note in the older shape: the refund that gives some of its amount back.';
comment on column billing.reversals.amount is
'Minor units. Of a charge its highest count of what was refunded; of a credit note what no refund gives back.';
comment on column billing.reversals.made_at is
'When a refund was made, when a charge last gave its highest count, when a credit note was last seen.';
comment on column billing.reversals.undone_at is 'When a refund failed or was canceled, or a credit note was voided.';
comment on column billing.reversals.withdrawn_at is 'When a dispute''s money was last withdrawn.';
comment on column billing.reversals.reinstated_at is 'When a dispute''s money was last reinstated.';
comment on column billing.reversals.disputed_at is
'When a dispute''s status last meant that its money is withdrawn: it counts while no movement of money is known.';
comment on column billing.reversals.state is
'live while it takes credits back; undone if it does not any more; inquiry if it never did.';
create index reversals_payment on billing.reversals (payment_name);

create table billing.stripe_events (
    event_id billing.identifier primary key,
    type text,
    created timestamptz,
    api_version text,
    livemode boolean,
    account text,
    object_id text,
    customer_id text,
    payload json not null,
    fetched json,
    outcome billing.event_outcome not null,
    reason text,
    details jsonb,
    user_id uuid,
    attempts billing.counter not null default 1,
    first_received_at timestamptz not null,
    last_received_at timestamptz not null,
    judged_at timestamptz not null,
    applied_at timestamptz
);
comment on table billing.stripe_events is
'The inbox: every event as it was received, with its outcome. Parked events are applied by themselves once what they '
'lack is known.';
comment on column billing.stripe_events.payload is
'The event''s JSON: of a webhook as Stripe wrote it, with what jsonb refuses replaced. A json and not a jsonb, which would take a '
'seventh of the time that an event takes.';
comment on column billing.stripe_events.fetched is
'Stripe''s answer to needs_fetch, so that an event that was parked after it need not ask again.';
comment on column billing.stripe_events.judged_at is
'When it was last judged. Parked events are retried in this order, so that each gets its turn. A parked event that was '
'judged before the catalog was loaded is due; -infinity makes it due in between.';
-- Compressing an event by the default method takes a tenth of applying it; lz4 a fifth of that. Not every server is built
-- with lz4.
do $$
begin
    alter table billing.stripe_events alter column payload set compression lz4;
    alter table billing.stripe_events alter column fetched set compression lz4;
exception
    when feature_not_supported then null;
end
$$;
create index stripe_events_object on billing.stripe_events (object_id);
-- Each of the two can be read only by a statement that compares its first column. Otherwise each would do for every
-- statement about what waits, and the planner, for which an index that was empty at the last ANALYZE costs nothing to read
-- whole, would choose either.
create index stripe_events_parked_customer on billing.stripe_events (customer_id, created, event_id)
    where outcome = 'parked' and customer_id is not null;
create index stripe_events_waiting on billing.stripe_events (judged_at)
    where outcome in ('parked', 'needs_fetch') and judged_at is not null;
-- BRIN, because the inbox is written in the order of arrival: it costs next to nothing per row.
create index stripe_events_received on billing.stripe_events
    using brin (first_received_at) with (autosummarize = on);

create table billing.forgotten_users (
    user_id uuid primary key,
    forgotten_at timestamptz not null
);
comment on table billing.forgotten_users is
'Users whose events are kept only as far as the rules read them. Written by forget_user.';
create trigger kept_table_changed after insert or update or delete or truncate on billing.forgotten_users
    for each statement execute function billing.kept_table_changed();
alter table billing.forgotten_users enable always trigger kept_table_changed;

create table billing.cursors (
    command billing.identifier primary key,
    position jsonb not null,
    moved_at timestamptz not null
);
comment on table billing.cursors is
'How far the shim''s commands sweep and backfill have come through Stripe''s lists, for their next run, and what books '
'check found last.';

create function billing.move_cursor(p_command text, p_position jsonb default null) returns void
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp
as $$
declare
    -- As stored.
    c_position_bytes constant integer := 4096;
    v_now constant timestamptz := clock_timestamp();
begin
    perform billing.require_named(p_command, 'p_command');
    if pg_column_size(p_position) > c_position_bytes then
        raise exception 'p_position must be at most % bytes', c_position_bytes
            using errcode = 'invalid_parameter_value',
                detail = format('p_position has %s bytes', pg_column_size(p_position));
    end if;
    if p_position is null then
        delete from billing.cursors where command = p_command;
        return;
    end if;
    insert into billing.cursors as c (command, position, moved_at)
    values (p_command, p_position, v_now)
    on conflict (command) do update set position = excluded.position, moved_at = excluded.moved_at;
end
$$;
comment on function billing.move_cursor(text, jsonb) is
'Stores how far a command has come through Stripe''s lists, or what it found.
  p_command   the command: sweep, backfill, books check
  p_position  where its next run continues; null forgets it
Errors: 22004 command is null, 22023 blank, too long, or a position of more than 4,096 bytes.';
