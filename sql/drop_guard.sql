-- The ledger cannot be dropped by accident. The function reads the statement's parse tree (drop_guard.rs): a sql_drop
-- trigger of the extension never fires, since it is dropped with it, and matching the statement's text is unreliable.

create function billing.guard_drop() returns event_trigger
language c security definer set search_path = pg_catalog, pg_temp
as 'MODULE_PATHNAME', 'guard_drop';
comment on function billing.guard_drop() is
'Event trigger: refuses to drop the ledger while it has rows, unless stripe_credits.allow_drop is on.';

create event trigger stripe_credits_drop_guard on ddl_command_start
    when tag in ('DROP EXTENSION', 'DROP SCHEMA', 'DROP OWNED')
    execute function billing.guard_drop();
comment on event trigger stripe_credits_drop_guard is
'Refuses to drop the ledger by accident; SET stripe_credits.allow_drop = on allows it.';
alter event trigger stripe_credits_drop_guard enable always;
