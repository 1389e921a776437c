-- The tables of a user: accounts, grants, transactions, reservations. Every key begins with user_id, ids count per user,
-- and only the functions of ledger.rs write them. No foreign keys: pg_restore -j would lose rows to them, and a deleted
-- user's books remain; validate_credits_consistency() checks what they would have.

create table billing.accounts (
    user_id uuid primary key,
    -- Σ remaining of the posted grants, by pool.
    subscription_credits billing.credits not null default 0,
    purchased_credits billing.credits not null default 0,
    promotional_credits billing.credits not null default 0,
    debt billing.credits not null default 0,
    tier text not null default 'free',
    subscription_status text not null default 'none',
    signed_up_at timestamptz,
    -- When the free plan's next month begins that was not granted yet.
    free_next_at timestamptz,
    -- When time alone next changes something here: an expiry, a drip, a reservation that runs out.
    next_due_at timestamptz,
    last_grant_id bigint not null default 0,
    last_transaction_id bigint not null default 0,
    version bigint not null default 0,
    created_at timestamptz not null,
    updated_at timestamptz not null
) with (fillfactor = 80);
create index accounts_due on billing.accounts (next_due_at) where next_due_at is not null;

-- Rule 8: of grants that are lost at the same time, which is drawn first. Like adds_up below in PL/pgSQL, which compiles it
-- once a connection: an expression in the table is read anew by every statement that writes to it.
create function billing.draw_rank(p_pool text) returns smallint
language plpgsql immutable
as $$
begin
    return case p_pool when 'subscription' then 1 when 'promotional' then 2 else 3 end;
end
$$;

create table billing.credit_grants (
    user_id uuid not null,
    id billing.ordinal not null,
    -- The payment (checkout session or invoice), or the app's own key.
    source_id billing.identifier not null,
    -- The price, or the purpose.
    item billing.identifier not null,
    pool billing.pool not null,
    amount billing.credits not null,
    remaining billing.credits not null,
    -- Where the rest is, but for what was spent: to come with available_from, kept back while its lot is not current,
    -- expired unspent, taken back by reversals, taken to settle debt.
    pending billing.credits not null default 0,
    set_aside billing.credits not null default 0,
    expired billing.credits not null default 0,
    reversed billing.credits not null default 0,
    settled billing.credits not null default 0,
    -- What the spending index holds. Used-up grants are not in it, and a draw that leaves something changes no index.
    spendable boolean not null generated always as (remaining > 0) stored,
    draw_rank smallint not null generated always as (billing.draw_rank(pool)) stored,
    available_from timestamptz,
    expires_at timestamptz,
    -- Of a subscription's lot: what was paid for, when, and the policies of its price then.
    stripe_subscription_id text,
    price_id text,
    period_start timestamptz,
    period_end timestamptz,
    paid_at timestamptz,
    max_rollover billing.credits,
    expires boolean,
    -- When what is left of it is lost: its expiry, or the renewal that resets it.
    priority_at timestamptz generated always as (
        least(expires_at, case when max_rollover = 0 then period_end end)) stored,
    -- What was drawn in its time, up to which row of the ledger; null while that time is now.
    consumed billing.credits,
    closed_through bigint,
    created_at timestamptz not null,
    primary key (user_id, id),
    unique (user_id, source_id, item)
) with (fillfactor = 80);

-- No more is in a grant's parts than was granted; a lot's time is closed as a whole; what is known of a lot is known whole.
create function billing.adds_up(g billing.credit_grants) returns boolean
language plpgsql immutable
as $$
begin
    return g.remaining + g.pending + g.set_aside + g.expired + g.reversed + g.settled <= g.amount
        and (g.closed_through is null) = (g.consumed is null)
        and num_nulls(g.price_id, g.period_start, g.period_end, g.paid_at, g.max_rollover, g.expires)
            = case when g.stripe_subscription_id is null then 6 else 0 end;
end
$$;
alter table billing.credit_grants add check (billing.adds_up(credit_grants));

-- Rule 8: what would be lost soonest is drawn first.
create index credit_grants_draw on billing.credit_grants (user_id, priority_at, draw_rank, id) where spendable;
create index credit_grants_lots on billing.credit_grants (user_id) where stripe_subscription_id is not null;
create index credit_grants_pending on billing.credit_grants (user_id, available_from) where pending > 0;

create table billing.credit_transactions (
    user_id uuid not null,
    id billing.ordinal not null,
    -- Rows of one operation share the id of its first row.
    operation_id billing.ordinal not null check (operation_id <= id),
    transaction_type billing.transaction_type not null,
    amount billing.movement not null,
    -- Null on the rows of the debt itself, which is no grant's.
    grant_id bigint,
    pool billing.pool,
    -- Σ remaining − debt after this row.
    balance_after bigint not null,
    description text,
    metadata jsonb,
    stripe_event_id text,
    stripe_checkout_session_id text,
    stripe_payment_intent_id text,
    stripe_invoice_id text,
    request_id text,
    created_at timestamptz not null,
    primary key (user_id, id),
    check ((grant_id is null) = (pool is null))
);
create index credit_transactions_session on billing.credit_transactions (stripe_checkout_session_id)
    where stripe_checkout_session_id is not null;
create index credit_transactions_request on billing.credit_transactions (user_id, request_id)
    where request_id is not null;
create index credit_transactions_created on billing.credit_transactions
    using brin (created_at) with (autosummarize = on);

create function billing.refuse_ledger_change() returns trigger
language plpgsql set search_path = pg_catalog, pg_temp
as $$
begin
    raise exception 'the ledger is append-only: % on billing.credit_transactions is refused', tg_op
        using errcode = 'restrict_violation', hint = 'A correction is a new row: billing.grant_credits.';
end
$$;

-- By trigger, not by grant alone: it holds for owners and superusers too, and in replica mode.
create trigger append_only before update or delete or truncate on billing.credit_transactions
    for each statement execute function billing.refuse_ledger_change();
alter table billing.credit_transactions enable always trigger append_only;

create table billing.reservations (
    user_id uuid not null,
    request_id billing.identifier not null,
    amount bigint not null check (amount > 0),
    committed bigint not null default 0 check (committed between 0 and amount),
    status text not null check (status in ('held', 'committed', 'released', 'expired')),
    description text,
    expires_at timestamptz not null,
    created_at timestamptz not null,
    updated_at timestamptz not null,
    primary key (user_id, request_id)
);
create index reservations_held on billing.reservations (user_id, expires_at) where status = 'held';
