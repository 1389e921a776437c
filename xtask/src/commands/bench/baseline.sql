-- What the extension is measured against: the least that a purchase or a spend can cost, without any rule: no catalog, no
-- identity, no grants that expire in an order, no answer to a request that is repeated.

-- A purchase makes the same writes into tables of the same shape.

create schema baseline;
create table baseline.accounts (like billing.accounts including all) with (fillfactor = 80);
create table baseline.payments (like billing.payments including all);
create table baseline.payment_names (like billing.payment_names including all);
create table baseline.credit_grants (like billing.credit_grants including all excluding constraints) with (fillfactor = 80);
create table baseline.credit_transactions (like billing.credit_transactions including all);
create table baseline.stripe_events (like billing.stripe_events including all);
-- It is given the event as jsonb, and stores it as that, compressed by the same method where the server has it.
alter table baseline.stripe_events alter column payload type jsonb;
do $$
begin
    alter table baseline.stripe_events alter column payload set compression lz4;
exception
    when feature_not_supported then null;
end
$$;

create function baseline.purchase(event jsonb) returns bigint
language plpgsql as $$
declare
    session jsonb := event #> '{data,object}';
    v_user uuid := (session #>> '{metadata,user_id}')::uuid;
    account baseline.accounts;
begin
    insert into baseline.accounts as a
        (user_id, purchased_credits, last_grant_id, last_transaction_id, created_at, updated_at)
    values (v_user, 500, 1, 1, now(), now())
    on conflict (user_id) do update set
        purchased_credits = a.purchased_credits + 500, last_grant_id = a.last_grant_id + 1,
        last_transaction_id = a.last_transaction_id + 1, version = a.version + 1, updated_at = now()
    returning * into account;
    insert into baseline.payments
        (source_id, source_type, user_id, customer_id, amount_total, currency, paid_at, created_at)
    values (session ->> 'id', 'checkout_session', v_user, session ->> 'customer',
        (session ->> 'amount_total')::bigint, session ->> 'currency', now(), now());
    insert into baseline.payment_names (name, kind, source_id)
    values (session ->> 'id', 'checkout_session', session ->> 'id'),
        (session ->> 'payment_intent', 'payment_intent', session ->> 'id');
    insert into baseline.credit_grants
        (user_id, id, source_id, item, pool, amount, remaining, spendable, draw_rank, made_after, created_at)
    values (v_user, account.last_grant_id, session ->> 'id', 'price_pack', 'purchased', 500, 500, true, 3,
        account.last_transaction_id - 1, now());
    insert into baseline.credit_transactions
        (user_id, id, operation_id, transaction_type, amount, grant_id, pool, balance_after, description,
         stripe_event_id, stripe_checkout_session_id, stripe_payment_intent_id, created_at, recorded_at, hash)
    values (v_user, account.last_transaction_id, account.last_transaction_id, 'purchase', 500,
        account.last_grant_id, 'purchased', account.purchased_credits, '500 credits', event ->> 'id',
        session ->> 'id', session ->> 'payment_intent', now(), now(), sha256(convert_to(event ->> 'id', 'UTF8')));
    insert into baseline.stripe_events
        (event_id, type, created, api_version, livemode, account, object_id, customer_id, payload, outcome,
         user_id, first_received_at, last_received_at, judged_at, applied_at)
    values (event ->> 'id', event ->> 'type', to_timestamp((event ->> 'created')::bigint),
        event ->> 'api_version', (event ->> 'livemode')::boolean, event ->> 'account', session ->> 'id',
        session ->> 'customer', event, 'applied', v_user, now(), now(), now(), now());
    return account.purchased_credits;
end
$$;

-- A spend in its simplest form: a balance with its guard, and a ledger with unique request ids.
create table baseline.balances (
    user_id uuid primary key,
    balance bigint not null check (balance >= 0),
    updated_at timestamptz not null default now()
) with (fillfactor = 80);
create table baseline.ledger (
    id bigint generated always as identity primary key,
    user_id uuid not null,
    transaction_type text not null check (transaction_type in ('purchase', 'spend', 'refund')),
    amount bigint not null,
    balance_after bigint not null,
    description text,
    metadata jsonb not null default '{}',
    request_id text not null,
    created_at timestamptz not null default now(),
    unique (user_id, request_id)
);
create index ledger_created on baseline.ledger (user_id, created_at);

create function baseline.spend(p_user uuid, p_amount bigint, p_request_id text) returns bigint
language plpgsql as $$
declare
    v_balance bigint;
begin
    update baseline.balances set balance = balance - p_amount, updated_at = now()
    where user_id = p_user and balance >= p_amount
    returning balance into v_balance;
    if not found then
        raise exception 'not enough credits';
    end if;
    insert into baseline.ledger (user_id, transaction_type, amount, balance_after, request_id)
    values (p_user, 'spend', -p_amount, v_balance, p_request_id);
    return v_balance;
end
$$;
