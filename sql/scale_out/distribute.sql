-- Distributes the tables of a user over the workers of a Citus cluster, so that spends run where the user's rows are.
-- docs/scale.md explains it. No part of the extension: a DBA runs it once, with psql as a superuser on the coordinator,
-- after CREATE EXTENSION stripe_credits on every node and the first load of the catalog, before the first account, with
-- nothing else connected.
--
-- What it does was tried by hand on Citus 14 with Postgres 17; the script itself is not tested. Try it on a copy first.
\set ON_ERROR_STOP on

-- The coordinator connects to the workers as the owner of the tables: let it in there by pg_hba.conf, from the
-- coordinator only, and with a certificate or a password in .pgpass.
select run_command_on_all_nodes('alter role stripe_credits_owner login');

begin;

-- Citus takes no subselect in a policy. Without it these functions run once a row, not once a statement.
alter policy readers on billing.accounts using (billing.current_user_id() = user_id or billing.is_service());
alter policy readers on billing.credit_grants using (billing.current_user_id() = user_id or billing.is_service());
alter policy readers on billing.credit_transactions
    using (billing.current_user_id() = user_id or billing.is_service());
alter policy readers on billing.reservations using (billing.current_user_id() = user_id or billing.is_service());

-- What is read everywhere and rarely written: a copy on every node, so that the views join it where the users are.
select create_reference_table('billing.settings');
select create_reference_table('billing.prices');
select create_reference_table('billing.customers');
select create_reference_table('billing.subscriptions');
select create_reference_table('billing.test_clocks');

-- One user's rows of all of them are on one worker.
select create_distributed_table('billing.accounts', 'user_id');
select create_distributed_table('billing.credit_grants', 'user_id', colocate_with => 'billing.accounts');
select create_distributed_table('billing.credit_transactions', 'user_id', colocate_with => 'billing.accounts');
select create_distributed_table('billing.reservations', 'user_id', colocate_with => 'billing.accounts');
select create_distributed_table('billing.outbox', 'user_id', colocate_with => 'billing.accounts');
select create_distributed_table('billing.top_ups', 'user_id', colocate_with => 'billing.accounts');

-- Payments, their names, lines, reversals and the inbox stay on the coordinator, where Stripe's events are applied.

-- What needs the user's own rows only goes to the user's worker as one call.
select create_distributed_function(f.signature::regprocedure, 'p_user_id', colocate_with => 'billing.accounts')
from (values
    ('billing.spend_credits(uuid, bigint, text, text, jsonb)'),
    ('billing.reserve_credits(uuid, bigint, text, interval, text)'),
    ('billing.commit_reservation(uuid, text, bigint)'),
    ('billing.release_reservation(uuid, text)'),
    ('billing.refund_spend(uuid, text, text, bigint)')) f (signature);

-- For security_selfcheck(), which otherwise names the login of the owner role as a fault. The catalog was loaded before.
update billing.settings set distributed = true;

commit;
