-- Functions made of functions: what an event would do, and the older name of a purchase.

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

create function billing.admin_apply_stripe_credit_pack_purchase(
    p_user_id uuid, p_amount bigint, p_event_id text, p_checkout_session_id text,
    p_payment_intent_id text default null, p_customer_id text default null, p_price_id text default null,
    p_pack text default null
) returns jsonb
language sql volatile security definer set search_path = pg_catalog, pg_temp
as $$
    select jsonb_build_object(
        'ok', o.ok,
        'already_applied', o.already_applied,
        'remaining_monthly', o.remaining_subscription,
        'remaining_bonus', o.remaining_purchased + o.remaining_promotional,
        'reason', o.reason)
    from billing.apply_stripe_credit_pack_purchase(
        p_user_id, p_amount, p_event_id, p_checkout_session_id, p_payment_intent_id, p_customer_id, p_price_id,
        p_pack) o
$$;
