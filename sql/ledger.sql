-- The tables of a user: accounts, grants, transactions, reservations. Every key begins with user_id, and ids count
-- per user. No foreign keys: pg_restore -j would lose rows to them, and a deleted user's ledger remains;
-- validate_credits_consistency() checks what they would have.

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
    free_next_at timestamptz,
    next_due_at timestamptz,
    last_grant_id bigint not null default 0,
    last_transaction_id bigint not null default 0,
    version bigint not null default 0,
    created_at timestamptz not null,
    updated_at timestamptz not null
) with (fillfactor = 80);
comment on table billing.accounts is
'One row per user, which every operation locks, with the cached balances. Read billing.user_credits instead: it '
'leaves out what has expired since.';
comment on column billing.accounts.free_next_at is
'The start of the free plan''s next month that is not granted yet.';
comment on column billing.accounts.next_due_at is
'When something is due next: an expiry, a drip, the end of a reservation. Reads are right before run_due posts it.';
create index accounts_due on billing.accounts (next_due_at) where next_due_at is not null;

-- Rule 8. In PL/pgSQL, like adds_up below, because that is compiled once per connection: an expression in the table
-- would be compiled for every statement that writes to it.
create function billing.draw_rank(p_pool text) returns smallint
language plpgsql immutable
as $$
begin
    return case p_pool when 'subscription' then 1 when 'promotional' then 2 else 3 end;
end
$$;
comment on function billing.draw_rank(text) is
'Which pool is drawn first of grants with the same priority_at: subscription, then promotional, then purchased.';

create table billing.credit_grants (
    user_id uuid not null,
    id billing.ordinal not null,
    source_id billing.identifier not null,
    item billing.identifier not null,
    pool billing.pool not null,
    amount billing.credits not null,
    remaining billing.credits not null,
    -- Of the amount, what is neither remaining nor spent.
    pending billing.credits not null default 0,
    set_aside billing.credits not null default 0,
    expired billing.credits not null default 0,
    reversed billing.credits not null default 0,
    settled billing.credits not null default 0,
    -- For the index that draws read: it holds no used-up grants, and a draw that leaves something does not change it.
    spendable boolean not null generated always as (remaining > 0) stored,
    draw_rank smallint not null generated always as (billing.draw_rank(pool)) stored,
    available_from timestamptz,
    expires_at timestamptz,
    -- Of a subscription's lot: what was paid for, when, and its price's policies at that time.
    stripe_subscription_id text,
    price_id text,
    period_start timestamptz,
    period_end timestamptz,
    paid_at timestamptz,
    max_rollover billing.credits,
    expires boolean,
    priority_at timestamptz generated always as (
        least(expires_at, case when max_rollover = 0 then period_end end)) stored,
    -- Of a lot that is not current any more: what was drawn while it was, and up to which ledger row.
    consumed billing.credits,
    closed_through bigint,
    created_at timestamptz not null,
    primary key (user_id, id),
    unique (user_id, source_id, item)
) with (fillfactor = 80);
comment on table billing.credit_grants is
'The grants: which user, for what, how many credits, how many remain, when they expire. source_id is the payment or '
'a key of the app, item the price or the purpose.';
comment on column billing.credit_grants.amount is 'Credits granted in all.';
comment on column billing.credit_grants.remaining is 'Credits that can be spent.';
comment on column billing.credit_grants.pending is 'Credits that can be spent from available_from on.';
comment on column billing.credit_grants.set_aside is
'Credits that are kept back, because a newer lot is current or the plan is a lower one. They are restored if that '
'changes.';
comment on column billing.credit_grants.expired is 'Credits that expired unspent.';
comment on column billing.credit_grants.reversed is 'Credits that refunds and disputes took back.';
comment on column billing.credit_grants.settled is 'Credits that settled debt.';
comment on column billing.credit_grants.priority_at is
'When the remaining credits are lost: at their expiry, or at the renewal that resets them. What is lost first is '
'drawn first.';
comment on column billing.credit_grants.consumed is
'Of a subscription''s lot: what was drawn while it was current; null while it is.';

-- The parts of a grant are at most its amount; consumed and closed_through are set together, as are a lot's columns.
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
comment on function billing.adds_up(billing.credit_grants) is 'The CHECK of a grant as a whole.';
alter table billing.credit_grants add check (billing.adds_up(credit_grants));

-- Rule 8: what is lost soonest is drawn first.
create index credit_grants_draw on billing.credit_grants (user_id, priority_at, draw_rank, id) where spendable;
create index credit_grants_lots on billing.credit_grants (user_id) where stripe_subscription_id is not null;
create index credit_grants_pending on billing.credit_grants (user_id, available_from) where pending > 0;

create table billing.credit_transactions (
    user_id uuid not null,
    id billing.ordinal not null,
    operation_id billing.ordinal not null check (operation_id <= id),
    transaction_type billing.transaction_type not null,
    amount billing.movement not null,
    -- Null on the rows of debt.
    grant_id bigint,
    pool billing.pool,
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
comment on table billing.credit_transactions is
'The ledger: append-only, each row a signed amount against one grant. UPDATE, DELETE and TRUNCATE are refused for '
'every role.';
comment on column billing.credit_transactions.operation_id is 'The id of the operation''s first row.';
comment on column billing.credit_transactions.balance_after is 'Σ remaining − debt after this row.';
create index credit_transactions_session on billing.credit_transactions (stripe_checkout_session_id)
    where stripe_checkout_session_id is not null;
create index credit_transactions_request on billing.credit_transactions (user_id, request_id)
    where request_id is not null;
-- What was given back of a spend.
create index credit_transactions_spend_refunds on billing.credit_transactions
    (user_id, (metadata ->> 'spend_request_id')) where transaction_type = 'spend_refund';
create index credit_transactions_created on billing.credit_transactions
    using brin (created_at) with (autosummarize = on);

create function billing.refuse_ledger_change() returns trigger
language plpgsql set search_path = pg_catalog, pg_temp
as $$
begin
    raise exception 'the ledger is append-only: % on billing.credit_transactions is refused', tg_op
        using errcode = 'restrict_violation', hint = 'A correction is a new row: billing.adjust_credits.';
end
$$;
comment on function billing.refuse_ledger_change() is 'Trigger: the ledger is append-only.';

-- A trigger, because privileges do not bind owners and superusers. It fires in replica mode too.
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
comment on table billing.reservations is 'Spends that can still be committed for less, or released.';
create index reservations_held on billing.reservations (user_id, expires_at) where status = 'held';
