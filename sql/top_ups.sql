-- Auto top-up: packs that are bought for users whose credits run low, and the functions by which a shim has them paid.
--
-- Money moves in one step only: a shim confirms the payment intent that the request names. A payment intent succeeds at most
-- once, whoever confirms it and however often; and it is named before it is confirmed, the first one that a shim made for the
-- request. So a request is paid once at most, whatever crashes and whatever Stripe still remembers of idempotency keys.

create table billing.top_ups (
    user_id uuid not null,
    -- That of the row of the outbox that tells of the request.
    id billing.ordinal not null,
    pack text not null,
    price_id billing.identifier not null,
    credits billing.credits not null,
    below billing.credits not null,
    state billing.top_up_state not null default 'requested',
    reason text,
    customer_id text,
    payment_intent_id text,
    amount bigint,
    currency text,
    requested_at timestamptz not null,
    attempts integer not null default 0,
    next_attempt_at timestamptz not null,
    ended_at timestamptz,
    last_error text,
    primary key (user_id, id)
) with (fillfactor = 80);
comment on table billing.top_ups is
'Requests to buy a pack for a user by auto top-up, written in the transaction of the spend or reservation that asks for it, or of '
'set_auto_top_up for a user who has too few credits already. serve has them paid; payment_intent.succeeded grants. Of a user at most one is open, requested or paid.';
comment on column billing.top_ups.credits is 'What the pack held when it was requested; what is granted is by the price.';
comment on column billing.top_ups.below is 'A request that is not paid yet is given up once the user has as many credits again.';
comment on column billing.top_ups.reason is 'Why it failed or was canceled: a code of Stripe''s or one of docs/top-up.md.';
comment on column billing.top_ups.customer_id is 'Stripe''s customer who is charged; null before that is known.';
comment on column billing.top_ups.payment_intent_id is
'The only payment intent that may be confirmed for it; null before there is one.';
comment on column billing.top_ups.amount is 'What is charged, in the currency''s smallest unit, by Stripe''s price.';
comment on column billing.top_ups.attempts is 'How often a shim has claimed it.';
comment on column billing.top_ups.next_attempt_at is
'While requested: when it may be claimed. In the future while a shim has it.';
comment on column billing.top_ups.ended_at is 'When its credits were granted, it failed or was canceled.';
comment on column billing.top_ups.last_error is 'Why the last attempt came to no end: a kind of failure or a code of Stripe''s.';
create unique index top_ups_open on billing.top_ups (user_id) where state in ('requested', 'paid');
create index top_ups_due on billing.top_ups (next_attempt_at) where state = 'requested';

create function billing.claim_top_ups(
    p_livemode boolean, p_limit integer default 10, p_lease interval default '5 minutes'
) returns table (
    user_id uuid, id bigint, price_id text, pack text, customer_id text, payment_intent_id text, attempts integer,
    unwanted text
)
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp
as $$
declare
    -- Stripe keeps an idempotency key for a day at least. Nobody expects a payment that late, either.
    c_too_late constant interval := '23 hours';
    v_now constant timestamptz := clock_timestamp();
begin
    perform billing.require_given(p_livemode, 'p_livemode');
    perform billing.require_positive(p_limit, 'p_limit');
    perform billing.require_positive(p_lease, 'p_lease');
    return query
        with due as (
            select t.user_id, t.id from billing.top_ups t
            where t.state = 'requested' and t.next_attempt_at <= v_now
                and exists (select from billing.settings s where s.livemode = p_livemode)
            order by t.next_attempt_at limit p_limit for update skip locked
        ), claimed as (
            update billing.top_ups t set next_attempt_at = v_now + p_lease, attempts = t.attempts + 1
            from due d where t.user_id = d.user_id and t.id = d.id
            returning t.*
        )
        select c.user_id, c.id::bigint, c.price_id::text, c.pack, coalesce(c.customer_id, l.customer_id),
            c.payment_intent_id, c.attempts,
            case when a.auto_top_up <> 'on' or s.auto_top_up is null then 'turned_off'
                when c.requested_at < v_now - c_too_late then 'too_late'
                when a.subscription_credits + a.purchased_credits + a.promotional_credits >= c.below then 'not_needed'
            end
        from claimed c
        join billing.accounts a on a.user_id = c.user_id
        cross join billing.settings s
        -- A customer whom only a buyer's link names could be another person.
        left join lateral (
            select u.customer_id::text from billing.customers u where u.user_id = c.user_id and u.source = 'server'
            order by u.as_of desc, u.customer_id limit 1
        ) l on true
        order by c.requested_at;
end
$$;
comment on function billing.claim_top_ups(boolean, integer, interval) is
'Claims requests for top-ups to have them paid, and none that another transaction is claiming. A claimed request is claimed '
'again after p_lease unless it has ended: so what a caller that died had is finished by another.
  p_livemode  the mode of the caller''s key: none is claimed if it is not the settings''
  p_limit     the most requests to claim
  p_lease     longer than an attempt takes
Returns the requests: the customer to charge, the payment intent that an earlier attempt named, and in unwanted why it is not to be '
'paid any more, if so: turned_off, too_late (after 23 hours) or not_needed (the user has enough credits again).
Errors: 22004 null, 22023 not above 0.';

create function billing.name_payment_intent(
    p_user_id uuid, p_id bigint, p_payment_intent_id text, p_customer_id text, p_amount bigint, p_currency text
) returns text
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp
as $$
declare
    v_named text;
begin
    perform billing.require_given(p_user_id, 'p_user_id');
    perform billing.require_given(p_id, 'p_id');
    perform billing.require_positive(p_amount, 'p_amount');
    perform billing.require_named(p_payment_intent_id, 'p_payment_intent_id');
    perform billing.require_named(p_customer_id, 'p_customer_id');
    perform billing.require_named(p_currency, 'p_currency');
    update billing.top_ups t set
        (payment_intent_id, customer_id, amount, currency)
        = (p_payment_intent_id, p_customer_id, p_amount, p_currency)
    where t.user_id = p_user_id and t.id = p_id and t.state = 'requested' and t.payment_intent_id is null;
    select t.payment_intent_id into v_named from billing.top_ups t
    where t.user_id = p_user_id and t.id = p_id and t.state = 'requested';
    return v_named;
end
$$;
comment on function billing.name_payment_intent(uuid, bigint, text, text, bigint, text) is
'Records the payment intent that pays a claimed request, before it is confirmed. The first one stays.
  p_user_id, p_id       the request
  p_payment_intent_id   that was made, and not confirmed
  p_customer_id         whom it charges
  p_amount, p_currency  what it charges
Returns the only one that may be confirmed: this, or one of an earlier call; null if the request has ended. Errors: 22004 null, '
'22023 blank or too long, an amount that is not above 0.';

create function billing.retry_top_up(
    p_user_id uuid, p_id bigint, p_attempts integer, p_error text, p_retry_after interval
) returns boolean
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp
as $$
declare
    v_now constant timestamptz := clock_timestamp();
begin
    perform billing.require_given(p_user_id, 'p_user_id');
    perform billing.require_given(p_id, 'p_id');
    perform billing.require_positive(p_attempts, 'p_attempts');
    perform billing.require_not_negative(p_retry_after, 'p_retry_after');
    perform billing.require_named(p_error, 'p_error');
    update billing.top_ups t set next_attempt_at = v_now + p_retry_after, last_error = p_error
    where t.user_id = p_user_id and t.id = p_id and t.state = 'requested' and t.attempts = p_attempts;
    return found;
end
$$;
comment on function billing.retry_top_up(uuid, bigint, integer, text, interval) is
'Records that an attempt to have a claimed request paid came to no end.
  p_user_id, p_id  the request
  p_attempts       its attempts as claimed: of an attempt that lasted longer than its lease nothing is recorded
  p_error          why
  p_retry_after    when to try again
Returns whether it was recorded. Errors: 22004 null, 22023 a blank error, no attempt or a time below 0.';
