-- The older names of two functions, with the older result, for apps that call them already.

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
comment on function billing.older_answer(billing.outcome) is 'An outcome as the older names return it.';

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
comment on function billing.admin_apply_stripe_credit_pack_purchase(
    uuid, bigint, text, text, text, text, text, text) is
'The older name of apply_stripe_credit_pack_purchase, with the older result: {ok, already_applied, '
'remaining_monthly, remaining_bonus, reason}. remaining_monthly is the subscription pool, remaining_bonus the '
'purchased and the promotional one.';

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
comment on function billing.apply_stripe_subscription_state(
    uuid, text, text, text, text, timestamptz, timestamptz, text, text, boolean) is
'The older name of apply_subscription_state, for an active subscription, with the older result: {ok, '
'already_applied, remaining_monthly, remaining_bonus, reason}.';
