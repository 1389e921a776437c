-- pg_dump dumps the data of these tables, which belongs to the app and not to the extension. One call per statement,
-- since each registration locks the extension's row.
select pg_catalog.pg_extension_config_dump('billing.settings', '');
select pg_catalog.pg_extension_config_dump('billing.prices', '');
select pg_catalog.pg_extension_config_dump('billing.price_amounts', '');
select pg_catalog.pg_extension_config_dump('billing.repricings', '');
select pg_catalog.pg_extension_config_dump('billing.accounts', '');
select pg_catalog.pg_extension_config_dump('billing.read_changes', '');
select pg_catalog.pg_extension_config_dump('billing.test_clocks', '');
select pg_catalog.pg_extension_config_dump('billing.credit_grants', '');
select pg_catalog.pg_extension_config_dump('billing.credit_transactions', '');
select pg_catalog.pg_extension_config_dump('billing.reservations', '');
select pg_catalog.pg_extension_config_dump('billing.outbox', '');
select pg_catalog.pg_extension_config_dump('billing.top_ups', '');
select pg_catalog.pg_extension_config_dump('billing.customers', '');
select pg_catalog.pg_extension_config_dump('billing.customer_accounts', '');
select pg_catalog.pg_extension_config_dump('billing.subscriptions', '');
select pg_catalog.pg_extension_config_dump('billing.subscription_users', '');
select pg_catalog.pg_extension_config_dump('billing.subscription_moves', '');
select pg_catalog.pg_extension_config_dump('billing.subscription_items', '');
select pg_catalog.pg_extension_config_dump('billing.payments', '');
select pg_catalog.pg_extension_config_dump('billing.invoice_lines', '');
select pg_catalog.pg_extension_config_dump('billing.payment_names', '');
select pg_catalog.pg_extension_config_dump('billing.reversals', '');
select pg_catalog.pg_extension_config_dump('billing.stripe_events', '');
select pg_catalog.pg_extension_config_dump('billing.forgotten_users', '');
select pg_catalog.pg_extension_config_dump('billing.cursors', '');
