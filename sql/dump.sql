-- The data of these tables is the founder's books, not part of the extension: pg_dump takes it along. One call a
-- statement, since the registration takes the configuration lock of the extension's row each time.
select pg_catalog.pg_extension_config_dump('billing.settings', '');
select pg_catalog.pg_extension_config_dump('billing.prices', '');
select pg_catalog.pg_extension_config_dump('billing.accounts', '');
select pg_catalog.pg_extension_config_dump('billing.credit_grants', '');
select pg_catalog.pg_extension_config_dump('billing.credit_transactions', '');
select pg_catalog.pg_extension_config_dump('billing.reservations', '');
select pg_catalog.pg_extension_config_dump('billing.customers', '');
select pg_catalog.pg_extension_config_dump('billing.subscriptions', '');
select pg_catalog.pg_extension_config_dump('billing.payments', '');
select pg_catalog.pg_extension_config_dump('billing.payment_intents', '');
select pg_catalog.pg_extension_config_dump('billing.reversals', '');
select pg_catalog.pg_extension_config_dump('billing.stripe_events', '');
select pg_catalog.pg_extension_config_dump('billing.cursors', '');
