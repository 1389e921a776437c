-- The tables and the function of server.mjs: what is claimed, balances, a ledger.
create schema peer;
create table peer.claims (
    object_id text primary key,
    event_id text not null,
    created_at timestamptz not null default now()
);
create table peer.accounts (
    user_id uuid primary key,
    balance bigint not null default 0
);
create table peer.ledger (
    id bigint generated always as identity primary key,
    user_id uuid not null,
    amount bigint not null,
    balance_after bigint not null,
    event_id text,
    session_id text,
    created_at timestamptz not null default now()
);
create index on peer.ledger (user_id, created_at);

create function peer.apply(p_user uuid, p_credits bigint, p_event_id text, p_session_id text) returns bigint
language plpgsql as $$
declare
    v_balance bigint;
begin
    insert into peer.claims (object_id, event_id) values (p_session_id, p_event_id) on conflict do nothing;
    if not found then
        return null;
    end if;
    insert into peer.accounts as a (user_id, balance) values (p_user, p_credits)
    on conflict (user_id) do update set balance = a.balance + excluded.balance
    returning balance into v_balance;
    insert into peer.ledger (user_id, amount, balance_after, event_id, session_id)
    values (p_user, p_credits, v_balance, p_event_id, p_session_id);
    return v_balance;
end
$$;
