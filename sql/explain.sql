-- Functions made of functions: what an event would do, and what a client reads.

create function billing.explain_event(event jsonb, fetched jsonb default null) returns billing.outcome
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp
as $$
declare
    -- Raised only by this function, to roll back what the event wrote.
    c_undo constant text := 'SC000';
    v_outcome billing.outcome;
begin
    begin
        -- The event is applied in a subtransaction that is then rolled back: variables survive, rows do not.
        select * into v_outcome from billing.apply_stripe_event(event, fetched);
        raise exception using errcode = c_undo;
    exception when sqlstate 'SC000' then
        return v_outcome;
    end;
end
$$;
comment on function billing.explain_event(jsonb, jsonb) is
'What apply_stripe_event would return for the same arguments, by the same path, with nothing written. '
'details.postings are the ledger rows that it would append.';

create function billing.my_credits() returns setof billing.user_credits
language sql volatile security definer set search_path = pg_catalog, pg_temp
as $$
    -- What is due is posted first, so that clients, the ledger and the next spend agree.
    select billing.settle_account(billing.current_user_id());
    -- A user without an account reads zeros.
    with me as (select billing.current_user_id() as user_id)
    select c.* from me join billing.user_credits c using (user_id)
    union all
    select me.user_id, 'free', 'none', 0, 0, 0, 0, 0, 0, 0, 0, null, null, 0, null, null, null
    from me
    where me.user_id is not null and not exists (select from billing.accounts a where a.user_id = me.user_id);
$$;
comment on function billing.my_credits() is
'The caller''s row of user_credits, after posting what is due; zeros for a user without grants. The user is the '
'JWT''s sub, never an argument.';
