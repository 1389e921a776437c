-- Functions made of functions: what an event would do, what a client reads, and the older names.

create function billing.explain_event(event jsonb, fetched jsonb default null) returns billing.outcome
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp
as $$
declare
    -- Raised by this function alone, to undo what it only wanted to see.
    c_undo constant text := 'SC000';
    v_outcome billing.outcome;
begin
    begin
        -- The same path as the event itself, in a subtransaction that is then undone: variables survive, rows do not.
        select * into v_outcome from billing.apply_stripe_event(event, fetched);
        raise exception using errcode = c_undo;
    exception when sqlstate 'SC000' then
        return v_outcome;
    end;
end
$$;

-- An outcome in the words of the older names.
create function billing.older_answer(o billing.outcome) returns jsonb
language sql immutable set search_path = pg_catalog, pg_temp
as $$
    select jsonb_build_object(
        'ok', o.ok,
        'already_applied', o.already_applied,
        'remaining_monthly', o.remaining_subscription,
        'remaining_bonus', o.remaining_purchased + o.remaining_promotional,
        'reason', o.reason)
$$;

create function billing.admin_apply_stripe_credit_pack_purchase(
    p_user_id uuid, p_amount bigint, p_event_id text, p_checkout_session_id text,
    p_payment_intent_id text default null, p_customer_id text default null, p_price_id text default null,
    p_pack text default null
) returns jsonb
language sql volatile security definer set search_path = pg_catalog, pg_temp
as $$
    select billing.older_answer(o)
    from billing.apply_stripe_credit_pack_purchase(
        p_user_id, p_amount, p_event_id, p_checkout_session_id, p_payment_intent_id, p_customer_id, p_price_id,
        p_pack) o
$$;

create function billing.apply_stripe_subscription_state(
    p_user_id uuid, p_tier text, p_customer_id text, p_subscription_id text, p_price_id text,
    p_cycle_start timestamptz, p_cycle_end timestamptz, p_event_id text, p_invoice_id text default null,
    p_reset_usage boolean default false
) returns jsonb
language sql volatile security definer set search_path = pg_catalog, pg_temp
as $$
    select billing.older_answer(o)
    from billing.apply_subscription_state(
        p_user_id, p_tier, p_customer_id, p_subscription_id, p_price_id, p_cycle_start, p_cycle_end, p_event_id,
        p_invoice_id, p_reset_usage) o
$$;

create function billing.my_credits() returns setof billing.user_credits
language sql volatile security definer set search_path = pg_catalog, pg_temp
as $$
    -- What is read is posted first, so that clients, the ledger and the next spend agree.
    select billing.settle_account(billing.current_user_id());
    -- A user whom nothing was granted yet reads zeros, not nothing.
    with me as (select billing.current_user_id() as user_id)
    select c.* from me join billing.user_credits c using (user_id)
    union all
    select me.user_id, 'free', 'none', 0, 0, 0, 0, 0, 0, 0, 0, null, null, 0, null, null, null
    from me
    where me.user_id is not null and not exists (select from billing.accounts a where a.user_id = me.user_id);
$$;
