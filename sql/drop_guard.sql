-- The books cannot be dropped by accident. The function reads the parse tree in Rust (drop_guard.rs): a member's sql_drop
-- trigger never fires, since it is dropped with the extension, and matching the statement's text is easily fooled.

create function billing.guard_drop() returns event_trigger
language c security definer set search_path = pg_catalog, pg_temp
as 'MODULE_PATHNAME', 'guard_drop';

create event trigger stripe_credits_drop_guard on ddl_command_start
    when tag in ('DROP EXTENSION', 'DROP SCHEMA', 'DROP OWNED')
    execute function billing.guard_drop();
alter event trigger stripe_credits_drop_guard enable always;
