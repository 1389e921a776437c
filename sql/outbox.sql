-- What the app is told: written in the transaction that caused it, and only where there is something to tell.

-- The key begins with user_id, and ids count per user from the account's row, whose lock a transaction holds until it
-- commits. So of one user no row becomes visible after a later one, however long a transaction takes: whoever has read up
-- to an id has missed none before it. Of all users together no id or time says that, and nothing here relies on one: what
-- is to be delivered is found by its state.
create table billing.outbox (
    -- The nil UUID: of no user's account. Those ids are made from the Stripe event's, and have no order.
    user_id uuid not null,
    id billing.ordinal not null,
    type billing.outbox_type not null,
    -- A json and not a jsonb: it is told as it was written, and to convert it would take a fortieth of an event.
    data json not null,
    created_at timestamptz not null,
    state billing.outbox_state not null default 'pending',
    attempts integer not null default 0,
    next_attempt_at timestamptz not null,
    ended_at timestamptz,
    last_error text,
    primary key (user_id, id)
) with (fillfactor = 80);
comment on table billing.outbox is
'What the app is told, written in the transaction that caused it. docs/events.md has the data of each type. serve posts '
'the rows to EVENTS_URL and streams them to their users; run_due removes them 30 days after they were made, in whatever '
'state.';
comment on column billing.outbox.attempts is 'How often a shim has claimed it, to post it.';
comment on column billing.outbox.next_attempt_at is
'While pending: when it may be claimed, unless an earlier row of its user is pending. In the future while a shim has it.';
comment on column billing.outbox.ended_at is 'When it was delivered, or given up.';
comment on column billing.outbox.last_error is 'Why the last attempt failed: a status or a kind of failure, no text of the app''s.';
create index outbox_due on billing.outbox (next_attempt_at) where state = 'pending';
create index outbox_pending on billing.outbox (user_id, id) where state = 'pending';
create index outbox_dead on billing.outbox (ended_at) where state = 'dead';
create index outbox_created on billing.outbox (created_at);

create function billing.claim_outbox(p_limit integer default 100, p_lease interval default '1 minute')
returns table (user_id uuid, id bigint, type text, data json, created_at timestamptz, attempts integer)
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp
as $$
declare
    -- How long a row waits at least that is behind another of its user: the end of that one wakes it before.
    c_behind constant interval := '5 seconds';
    c_nobody constant uuid := '00000000-0000-0000-0000-000000000000';
    v_now constant timestamptz := clock_timestamp();
begin
    perform billing.require_positive(p_limit, 'p_limit');
    perform billing.require_positive(p_lease, 'p_lease');
    return query
        -- No more than p_limit rows are looked at, however many wait behind others: those that do are put off.
        with due as (
            select o.user_id, o.id from billing.outbox o
            where o.state = 'pending' and o.next_attempt_at <= v_now
            order by o.next_attempt_at limit p_limit for update skip locked
        ), ordered as (
            select d.user_id, d.id, d.user_id = c_nobody or d.id = first.id as is_first, first.next_attempt_at
            from due d
            cross join lateral (
                select f.id, f.next_attempt_at from billing.outbox f
                where f.user_id = d.user_id and f.state = 'pending' order by f.id limit 1
            ) first
        ), claimed as (
            update billing.outbox o set
                next_attempt_at = case when r.is_first then v_now + p_lease
                    else greatest(r.next_attempt_at, v_now + c_behind) end,
                attempts = o.attempts + r.is_first::integer
            from ordered r where o.user_id = r.user_id and o.id = r.id
            returning o.*, r.is_first
        )
        select c.user_id, c.id::bigint, c.type::text, c.data, c.created_at, c.attempts
        from claimed c where c.is_first order by c.created_at;
end
$$;
comment on function billing.claim_outbox(integer, interval) is
'Claims rows of the outbox to deliver them: of each user the first that is pending, if its time has come, and none that '
'another transaction is claiming. A claimed row is claimed again after p_lease, unless finish_outbox ended it: so what '
'a caller that died had is delivered by another.
  p_limit  the most rows to claim
  p_lease  longer than a delivery takes
Returns the rows. Errors: 22004 null, 22023 not above 0.';

create function billing.finish_outbox(
    p_user_id uuid, p_id bigint, p_attempts integer, p_error text default null, p_retry_after interval default null
) returns boolean
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp
as $$
declare
    v_now constant timestamptz := clock_timestamp();
    v_state constant text := case when p_error is null then 'delivered' when p_retry_after is null then 'dead'
        else 'pending' end;
begin
    perform billing.require_given(p_user_id, 'p_user_id');
    perform billing.require_given(p_id, 'p_id');
    perform billing.require_positive(p_attempts, 'p_attempts');
    if p_error !~ '\S' then
        raise exception 'p_error must not be blank'
            using errcode = 'invalid_parameter_value', detail = format('p_error = %L', p_error);
    elsif p_retry_after < interval '0' then
        raise exception 'p_retry_after must not be below 0'
            using errcode = 'invalid_parameter_value', detail = format('p_retry_after = %s', p_retry_after);
    end if;
    -- That it arrived is true whoever has claimed it since; that an attempt failed says nothing of a later one.
    update billing.outbox o set
        state = v_state,
        ended_at = case when v_state <> 'pending' then v_now end,
        next_attempt_at = case when v_state = 'pending' then v_now + p_retry_after else o.next_attempt_at end,
        last_error = left(p_error, 500)
    where o.user_id = p_user_id and o.id = p_id and o.state = 'pending'
        and (v_state = 'delivered' or o.attempts = p_attempts);
    if not found then
        return false;
    end if;
    if v_state <> 'pending' then
        -- What waits behind it need not wait longer.
        update billing.outbox o set next_attempt_at = v_now
        where o.user_id = p_user_id and o.state = 'pending' and o.next_attempt_at > v_now and o.attempts = 0
            and o.id = (
                select min(f.id) from billing.outbox f where f.user_id = p_user_id and f.state = 'pending');
    end if;
    return true;
end
$$;
comment on function billing.finish_outbox(uuid, bigint, integer, text, interval) is
'Records what came of an attempt to deliver a claimed row of the outbox.
  p_user_id, p_id  the row
  p_attempts       its attempts as claimed: the failure of an attempt that lasted longer than its lease is not recorded
  p_error          null: it was delivered. Else why not
  p_retry_after    when to try again; null: never, the row is dead until replay_outbox
Returns whether it was recorded. Errors: 22004 null, 22023 attempts or a time below their least, a blank error.';

create function billing.replay_outbox(p_user_id uuid default null, p_id bigint default null) returns bigint
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp
as $$
declare
    v_now constant timestamptz := clock_timestamp();
    v_rows bigint;
begin
    if p_id is not null and p_user_id is null then
        raise exception 'p_user_id must not be null where p_id is given'
            using errcode = 'null_value_not_allowed', detail = format('p_user_id = NULL, p_id = %L', p_id);
    end if;
    update billing.outbox o set state = 'pending', ended_at = null, attempts = 0, next_attempt_at = v_now
    where (p_user_id is null or o.user_id = p_user_id) and (p_id is null or o.id = p_id)
        and (o.state = 'dead' or o.state = 'delivered' and p_id is not null);
    get diagnostics v_rows = row_count;
    return v_rows;
end
$$;
comment on function billing.replay_outbox(uuid, bigint) is
'Makes rows of the outbox pending again: without arguments all that are dead, with a user theirs, with an id that one, '
'also if it was delivered. Returns how many. Errors: 22004 an id without a user.';
