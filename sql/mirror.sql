-- What a database elsewhere reads: views for import by postgres_fdw, and what `serve` copies into the app's own database.

-- Beside schema billing, whose domains another server does not have. A role reads here what it may read there.
create schema billing_fdw;
comment on schema billing_fdw is
'Views for IMPORT FOREIGN SCHEMA: columns of types that every database has. docs/mirror.md shows how.';

create view billing_fdw.user_credits with (security_invoker = true) as
select
    c.user_id,
    c.subscription_tier,
    c.subscription_status,
    c.credits_balance,
    c.subscription_credits_balance,
    c.purchased_credits_balance,
    c.promotional_credits_balance,
    c.monthly_credits_per_cycle::bigint as monthly_credits_per_cycle,
    c.monthly_credits_used::bigint as monthly_credits_used,
    c.bonus_credits_total,
    c.bonus_credits_used,
    c.cycle_start_at,
    c.cycle_end_at,
    c.debt::bigint as debt,
    c.stripe_customer_id::text as stripe_customer_id,
    c.stripe_subscription_id::text as stripe_subscription_id,
    c.stripe_price_id::text as stripe_price_id,
    a.version
from billing.user_credits c
join billing.accounts a on a.user_id = c.user_id;
comment on view billing_fdw.user_credits is
'billing.user_credits, with the account''s version, which rises with each change.';

create view billing_fdw.credit_transactions with (security_invoker = true) as
select
    t.user_id,
    t.id::bigint as id,
    t.operation_id::bigint as operation_id,
    t.transaction_type::text as transaction_type,
    t.amount::bigint as amount,
    t.grant_id,
    t.pool::text as pool,
    t.balance_after,
    t.description,
    t.metadata,
    t.stripe_event_id,
    t.stripe_checkout_session_id,
    t.stripe_payment_intent_id,
    t.stripe_invoice_id,
    t.request_id,
    t.created_at
from billing.credit_transactions t;
comment on view billing_fdw.credit_transactions is 'The ledger, without its hashes.';

create view billing_fdw.user_payments with (security_invoker = true) as
select
    p.user_id,
    p.source_id,
    p.paid_at,
    p.amount::bigint as amount,
    p.currency::text as currency,
    p.refunded::bigint as refunded,
    p.credits,
    p.description
from billing.user_payments p;
comment on view billing_fdw.user_payments is 'billing.user_payments: what was paid for.';

create function billing.mirror_rows(p_user_ids uuid[], p_ledger_rows integer default 0)
returns table (
    user_id uuid, version bigint, is_forgotten boolean, due_since timestamptz, credits jsonb, transactions jsonb
)
language plpgsql stable security definer set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
begin
    perform billing.require_given(p_user_ids, 'p_user_ids');
    perform billing.require_not_negative(p_ledger_rows, 'p_ledger_rows');
    return query
    select a.user_id, a.version, f.user_id is not null,
        -- What is due by time shows in the read model before it is posted and the account's version rises.
        least(a.mirror_due_since, case when a.next_due_at <= billing.account_time(a.test_clock) then a.next_due_at end),
        case when f.user_id is null then (
            select to_jsonb(c) from billing_fdw.user_credits c where c.user_id = a.user_id) end,
        case when f.user_id is null then (
            select coalesce(jsonb_agg(to_jsonb(t) order by t.id), '[]')
            from (
                select l.* from billing_fdw.credit_transactions l
                where l.user_id = a.user_id order by l.id desc limit p_ledger_rows
            ) t) end
    from billing.accounts a
    left join billing.forgotten_users f on f.user_id = a.user_id
    where a.user_id = any (p_user_ids)
    order by a.user_id;
end
$$;
comment on function billing.mirror_rows(uuid[], integer) is
'What the mirror has of each of these users that have an account, in their order.
  p_user_ids     the users
  p_ledger_rows  how many of each user''s last ledger rows
Returns the account''s version; whether the user is forgotten, of whom the mirror has nothing; since when something is due that '
'the mirror does not have; the row of user_credits and those of credit_transactions. Errors: 22004 null, 22023 below 0.';

create function billing.mark_mirrored(p_user_ids uuid[], p_versions bigint[]) returns bigint
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp
as $$
declare
    v_now constant timestamptz := clock_timestamp();
    v_done bigint;
begin
    perform billing.require_given(p_user_ids, 'p_user_ids');
    perform billing.require_given(p_versions, 'p_versions');
    if cardinality(p_user_ids) <> cardinality(p_versions) then
        raise exception 'p_user_ids and p_versions must be of one length'
            using errcode = 'invalid_parameter_value',
                detail = format('p_user_ids = %L, p_versions = %L', p_user_ids, p_versions);
    end if;
    with mirrored as (
        select a.user_id, m.version
        from unnest(p_user_ids, p_versions) m (user_id, version)
        join billing.accounts a using (user_id)
        -- Whoever changes an account waits for nothing here, nor is waited for: a busy one is mirrored again.
        order by a.user_id for update of a skip locked
    ), marked as (
        update billing.accounts a set mirror_due_since = case when a.version <> m.version then
            -- It changed meanwhile, and the mirror may have got the older state last.
            coalesce(a.mirror_due_since, v_now) end
        from mirrored m
        where a.user_id = m.user_id
            and (a.version = m.version) = (a.mirror_due_since is not null)
        returning a.mirror_due_since is null as is_done
    )
    select count(*) into v_done from marked where is_done;
    return v_done;
end
$$;
comment on function billing.mark_mirrored(uuid[], bigint[]) is
'Records that the mirror has accounts in these versions. One that has changed since stays due, or is due again.
  p_user_ids  the users
  p_versions  the version of each, as mirror_rows returned it
Returns how many are not due any more. Errors: 22004 null, 22023 of different lengths.';

create function billing.mirror_again(p_user_ids uuid[]) returns bigint
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp
as $$
declare
    v_now constant timestamptz := clock_timestamp();
    v_due bigint;
begin
    perform billing.require_given(p_user_ids, 'p_user_ids');
    with locked as (
        select a.user_id from billing.accounts a
        where a.user_id = any (p_user_ids) and a.mirror_due_since is null order by a.user_id for update
    ), due as (
        update billing.accounts a set mirror_due_since = v_now from locked l where a.user_id = l.user_id
        returning 1
    )
    select count(*) into v_due from due;
    return v_due;
end
$$;
comment on function billing.mirror_again(uuid[]) is
'Makes accounts due for the mirror, as if they had just changed.
  p_user_ids  the users
Returns how many were not due. Errors: 22004 null.';
