-- The tables cannot be dropped or rewritten while they hold rows, not even by dependency. What refuses is a hook in
-- the library (drop_guard.rs), which sees every object that a statement drops; the event trigger loads the library
-- before any DDL command, of whichever kind, so that the hook is there. A sql_drop trigger of the extension would not
-- do: it never fires for DROP EXTENSION, since it is dropped with it.

create function billing.guard_drop() returns event_trigger
language c set search_path = pg_catalog, pg_temp
as 'MODULE_PATHNAME', 'guard_drop';
comment on function billing.guard_drop() is
'Event trigger: refuses to drop or rewrite a table of the extension while it has rows, unless '
'stripe_credits.allow_drop is on.';

create event trigger stripe_credits_drop_guard on ddl_command_start execute function billing.guard_drop();
comment on event trigger stripe_credits_drop_guard is
'Refuses to drop the books by accident; SET stripe_credits.allow_drop = on allows it.';
alter event trigger stripe_credits_drop_guard enable always;

-- ALTER TABLE … ALTER COLUMN … USING changes rows, and fires no trigger of the table.
create event trigger stripe_credits_rewrite_guard on table_rewrite execute function billing.guard_drop();
comment on event trigger stripe_credits_rewrite_guard is
'Refuses to rewrite the books by ALTER TABLE; SET stripe_credits.allow_drop = on allows it.';
alter event trigger stripe_credits_rewrite_guard enable always;
