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
    -- The account lives by this clock of Stripe's instead of the database's.
    test_clock text,
    periods_next_at timestamptz,
    -- What the next openings of periods leave of earlier ones, for reads: [{"at", "stays", "grants": [[source_id, item]]}].
    to_set_aside jsonb,
    next_due_at timestamptz,
    last_grant_id bigint not null default 0,
    last_transaction_id bigint not null default 0,
    last_hash bytea not null default '',
    last_recorded_at timestamptz not null default 'epoch',
    last_outbox_id bigint not null default 0,
    auto_top_up billing.top_up_switch not null default 'off',
    version bigint not null default 0,
    mirror_due_since timestamptz default clock_timestamp(),
    created_at timestamptz not null,
    updated_at timestamptz not null
) with (fillfactor = 80);
comment on table billing.accounts is
'One row per user, which every operation locks, with the cached balances. Read billing.user_credits instead: it '
'leaves out what has expired since.';
comment on column billing.accounts.last_hash is
'The hash of the last ledger row: the head of the user''s chain.';
comment on column billing.accounts.last_recorded_at is
'When the last ledger row was recorded, or the last fact became known. It only rises, whatever the clock does.';
comment on column billing.accounts.auto_top_up is
'Whether the catalog''s auto_top_up buys packs for the user: on by set_auto_top_up, paused by a payment that failed.';
comment on column billing.accounts.free_next_at is
'The start of the free plan''s next month that is not granted yet.';
comment on column billing.accounts.periods_next_at is
'When time alone may next change what the periods of subscriptions hold.';
comment on column billing.accounts.to_set_aside is
'What time alone will set aside of the grants of periods, in order: at most stays of what is then left of the grants. '
'Null if nothing.';
comment on column billing.accounts.next_due_at is
'When something is due next: an expiry, a drip, the end of a reservation. Reads are right before run_due posts it.';
comment on column billing.accounts.version is
'Rises with each change of what user_credits says of the user, but for what time alone changes until it is posted.';
comment on column billing.accounts.mirror_due_since is
'When the first change happened that the mirror does not have yet; null if it has them all.';
-- Without a mirror the time stays as it is, and so costs no update anything.
create index accounts_mirror_due on billing.accounts (mirror_due_since) where mirror_due_since is not null;
create index accounts_due on billing.accounts (next_due_at) where next_due_at is not null;
create index accounts_test_clock on billing.accounts (test_clock) where test_clock is not null;

create table billing.read_changes (
    user_id uuid not null,
    id uuid not null default gen_random_uuid(),
    primary key (user_id, id)
);
comment on table billing.read_changes is
'Users of whom user_credits changed without their account: by a customer''s link, the catalog or forget_user. run_due '
'gives their accounts a new version and deletes the rows. Without a lock of the account, which may be taken in order only.';

create table billing.test_clocks (
    clock_id billing.identifier primary key,
    -- By the clock's own events.
    frozen_time timestamptz,
    -- The latest time that an object on the clock names: it counts until there is an event of the clock.
    named_time timestamptz
);
comment on table billing.test_clocks is
'What time it is by each of Stripe''s test clocks. Accounts of its customers live by it.';

create function billing.account_time(p_test_clock text) returns timestamptz
language sql stable security definer set search_path = pg_catalog, pg_temp
as $$
    select coalesce(
        (select coalesce(c.frozen_time, c.named_time) from billing.test_clocks c where c.clock_id = p_test_clock),
        statement_timestamp())
$$;
comment on function billing.account_time(text) is
'What time it is for an account: by its test clock, or by the database''s clock if it has none.';

create table billing.credit_grants (
    user_id uuid not null,
    id billing.ordinal not null,
    source_id billing.identifier not null,
    item billing.identifier not null,
    pool billing.pool not null,
    -- Below 0 where more was credited than was paid for.
    amount bigint not null,
    -- Of the amount: what was taken, and where the rest is.
    drawn billing.credits not null default 0,
    moved bigint not null default 0,
    remaining billing.credits not null,
    pending billing.credits not null default 0,
    set_aside billing.credits not null default 0,
    expired billing.credits not null default 0,
    settled billing.credits not null default 0,
    owed billing.credits not null default 0,
    -- For the index that draws read: it holds no used-up grants, and a draw that leaves something does not change it.
    spendable boolean not null,
    draw_rank smallint not null,
    available_from timestamptz,
    expires_at timestamptz,
    priority_at timestamptz,
    -- Of a subscription's period: the item that opened it, and the part.
    stripe_subscription_id text,
    stripe_item_id text,
    period_start timestamptz,
    period_end timestamptz,
    part_start timestamptz,
    -- How far back later facts have to be computed from: rules/streams/horizon.rs.
    closed_at timestamptz,
    needed_by timestamptz,
    matters_until timestamptz,
    -- Of a payment that depends on no other fact: what it bought, before money came back.
    bought billing.credits,
    -- Of a subscription that moved to another user: which one, and what this user had drawn by then.
    moved_with text,
    kept billing.credits,
    made_after bigint not null,
    told_expires_at timestamptz,
    created_at timestamptz not null,
    primary key (user_id, id),
    unique (user_id, source_id, item)
) with (fillfactor = 80);
comment on table billing.credit_grants is
'The grants: which user, for what, how many credits, how many remain, when they expire. source_id is the payment, the '
'subscription or a key of the app; item the price, the period or the purpose.';
comment on column billing.credit_grants.amount is
'What its facts are worth now: rises with what is paid for it, falls with money that comes back.';
comment on column billing.credit_grants.drawn is
'Credits that spends, reservations and settlements of debt took, less what they gave back.';
comment on column billing.credit_grants.moved is
'Credits drawn from a later period while this one was not known, counted here instead; below 0 there.';
comment on column billing.credit_grants.remaining is 'Credits that can be spent.';
comment on column billing.credit_grants.pending is 'Credits that can be spent from available_from on.';
comment on column billing.credit_grants.set_aside is
'Credits that are kept back, because a later period opened or the plan went down. They are restored if that changes.';
comment on column billing.credit_grants.expired is 'Credits that expired unspent.';
comment on column billing.credit_grants.settled is 'Of the drawn credits: what settled debt.';
comment on column billing.credit_grants.owed is
'Credits drawn beyond the amount, settled or not, without what was forgiven.';
comment on column billing.credit_grants.spendable is 'Whether something remains.';
comment on column billing.credit_grants.draw_rank is
'By the pool: of grants with the same priority_at, subscription ones are drawn first, then promotional, then purchased.';
comment on column billing.credit_grants.priority_at is
'When the remaining credits are lost: at their expiry, or at the renewal that resets them. What is lost first is '
'drawn first.';
comment on column billing.credit_grants.closed_at is
'Of a period: since when nothing of it is left; null while something is.';
comment on column billing.credit_grants.matters_until is
'Of a period, or the trial: nothing that concerns only a later time depends on it. For the index by which the grants are found '
'that a change can reach, however many there are.';
comment on column billing.credit_grants.moved_with is
'The subscription that moved to another user, who has a grant of the same source_id and item for what was left.';
comment on column billing.credit_grants.kept is
'What the user had drawn when the subscription moved: the amount is that, as far as the facts are still worth it.';
comment on column billing.credit_grants.made_after is 'The account''s last ledger row before the grant was made.';
comment on column billing.credit_grants.told_expires_at is
'The expiry of which the app was told that it is near: credits.expiring in the outbox.';

-- Rule 8: what is lost soonest is drawn first.
create index credit_grants_draw on billing.credit_grants (user_id, priority_at, draw_rank, id) where spendable;
create index credit_grants_periods on billing.credit_grants (user_id, matters_until) where matters_until is not null;
create index credit_grants_moved on billing.credit_grants (moved_with) where moved_with is not null;
create index credit_grants_expiring on billing.credit_grants (expires_at)
    where spendable and expires_at is distinct from told_expires_at and source_id <> 'free_plan';
create index credit_grants_debt on billing.credit_grants (user_id) where owed > 0 or settled > 0;

create table billing.credit_transactions (
    user_id uuid not null,
    id billing.ordinal not null,
    operation_id billing.ordinal not null,
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
    recorded_at timestamptz not null,
    hash bytea not null,
    primary key (user_id, id)
);
comment on table billing.credit_transactions is
'The ledger: append-only, each row a signed amount against one grant. UPDATE, DELETE and TRUNCATE are refused for '
'every role.';
comment on column billing.credit_transactions.operation_id is 'The id of the operation''s first row.';
comment on column billing.credit_transactions.balance_after is 'Σ remaining − debt after this row.';
comment on column billing.credit_transactions.created_at is
'When it happened: what time causes, when it was due; by the test clock of an account that lives by one.';
comment on column billing.credit_transactions.recorded_at is
'When the row was written. The rows of all accounts and the known_at of facts are in this order.';
comment on column billing.credit_transactions.hash is
'SHA-256 over the row and the hash of the row before it of that user: extension/src/ledger/chain.rs says how.';
create index credit_transactions_session on billing.credit_transactions (stripe_checkout_session_id)
    where stripe_checkout_session_id is not null;
create index credit_transactions_invoice on billing.credit_transactions (stripe_invoice_id)
    where stripe_invoice_id is not null;
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
    -- By its present name: the trigger stays with a table that is renamed or moved.
    raise exception 'the ledger is append-only: % on %.% is refused', tg_op, tg_table_schema, tg_table_name
        using errcode = 'restrict_violation', hint = 'A correction is a new row: billing.adjust_credits.';
end
$$;
comment on function billing.refuse_ledger_change() is 'Trigger: the ledger is append-only.';

-- Triggers, because privileges do not bind owners and superusers. They fire in replica mode too. For each statement,
-- so that one that meets no row is refused too; for each row, because only those fire for an UPDATE or DELETE of a
-- table that the ledger was made a child or a partition of. TRUNCATE of such a parent fires the statement's.
create trigger append_only before update or delete or truncate on billing.credit_transactions
    for each statement execute function billing.refuse_ledger_change();
create trigger append_only_rows before update or delete on billing.credit_transactions
    for each row execute function billing.refuse_ledger_change();
alter table billing.credit_transactions enable always trigger append_only;
alter table billing.credit_transactions enable always trigger append_only_rows;

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
