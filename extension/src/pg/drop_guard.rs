//! Refuses whatever would drop or rewrite a table of the extension that holds rows.
//!
//! An object access hook sees every object that a statement drops, by name or by dependency: a table that goes with
//! `DROP EXTENSION plpgsql CASCADE`, with a parent, with a renamed schema or with all that a role owns. A hook needs the
//! library in the session: the event trigger, which fires before every DDL command, is a function of the library, and so
//! loads it. With the library in `session_preload_libraries` the hook does not depend on the event trigger.

#![allow(clippy::cast_ptr_alignment, reason = "Postgres allocates a node as the struct that its tag names")]

use std::cell::Cell;
use std::ffi::{CStr, c_int, c_void};

use pgrx::guc::{GucContext, GucFlags, GucRegistry, GucSetting};
use pgrx::pg_sys::panic::ErrorReportable;
use pgrx::pg_sys::{NodeTag, ObjectAccessType};
use pgrx::prelude::*;
use pgrx::{direct_function_call, spi};

use crate::pg::error::raise;
use crate::pg::sql::connected;

/// The extension's name, as in stripe_credits.control.
const EXTENSION: &CStr = c"stripe_credits";

static ALLOW_DROP: GucSetting<bool> = GucSetting::<bool>::new(false);

thread_local! {
    /// The hook of the library that was loaded before this one.
    static NEXT_HOOK: Cell<pg_sys::object_access_hook_type> = const { Cell::new(None) };
}

/// Defines `stripe_credits.allow_drop` and sets the hook. Called once in a backend, when it loads the library.
pub(crate) fn install() {
    GucRegistry::define_bool_guc(
        c"stripe_credits.allow_drop",
        c"Allows dropping the extension while its tables hold rows.",
        c"Off by default: a DROP would delete every account, grant and ledger row.",
        &ALLOW_DROP,
        GucContext::Suset,
        GucFlags::default(),
    );
    // SAFETY: a backend is one thread, and Postgres reads the hook only between calls of this library.
    unsafe {
        NEXT_HOOK.set(pg_sys::object_access_hook);
        pg_sys::object_access_hook = Some(object_access);
    }
}

/// Postgres calls it for each object that a statement drops, before the object goes.
///
/// # Safety
/// Called by Postgres only, with the arguments of its hook.
#[pg_guard]
unsafe extern "C-unwind" fn object_access(
    access: ObjectAccessType::Type,
    class: pg_sys::Oid,
    object: pg_sys::Oid,
    column: c_int,
    argument: *mut c_void,
) {
    if let Some(next) = NEXT_HOOK.get() {
        // SAFETY: the arguments are passed on as they came.
        unsafe { next(access, class, object, column, argument) };
    }
    // A column of a table has the table's oid, and is refused with it.
    if access == ObjectAccessType::OAT_DROP && class == pg_sys::RelationRelationId {
        refuse_loss(object);
    }
}

/// Tells Postgres the calling convention of `guard_drop`, as PG_FUNCTION_INFO_V1 does in C.
#[allow(unreachable_pub, reason = "Postgres looks it up by its symbol")]
#[unsafe(no_mangle)]
pub extern "C" fn pg_finfo_guard_drop() -> &'static pg_sys::Pg_finfo_record {
    const VERSION_1: pg_sys::Pg_finfo_record = pg_sys::Pg_finfo_record { api_version: 1 };
    &VERSION_1
}

/// The function of the event triggers, in C's calling convention: pgrx declares no event triggers.
///
/// Before a DDL command that it is called for is enough, since that loads the library. It refuses itself what drops
/// nothing: a table that is taken out of the extension, and one that is rewritten.
///
/// # Safety
/// Called by Postgres only.
#[pg_guard]
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn guard_drop(fcinfo: pg_sys::FunctionCallInfo) -> pg_sys::Datum {
    // SAFETY: Postgres calls an event trigger's function with EventTriggerData as its context.
    let (event, statement) = unsafe {
        let context = (*fcinfo).context;
        if context.is_null() || (*context).type_ != NodeTag::T_EventTriggerData {
            raise(
                PgSqlErrorCode::ERRCODE_E_R_I_E_EVENT_TRIGGER_PROTOCOL_VIOLATED,
                "billing.guard_drop() is an event trigger",
                "it was called as a function",
            );
        }
        let data = context.cast::<pg_sys::EventTriggerData>();
        (CStr::from_ptr((*data).event), (*data).parsetree)
    };
    if event == c"table_rewrite" {
        // SAFETY: it has no arguments, and answers the table while an event trigger of this kind runs.
        let table = unsafe { direct_function_call(pg_sys::pg_event_trigger_table_rewrite_oid, &[]) };
        refuse_loss(table.expect("a rewrite has a table"));
    // SAFETY: Postgres hands the parse tree of the statement that fired the trigger.
    } else if unsafe { takes_out_a_member(statement) } {
        member_tables().into_iter().for_each(refuse_loss);
    }
    pg_sys::Datum::from(0)
}

/// Whether a statement is `ALTER EXTENSION stripe_credits DROP …`, after which the object could be dropped by itself.
///
/// # Safety
/// `statement` is the root of a parse tree that Postgres made.
unsafe fn takes_out_a_member(statement: *mut pg_sys::Node) -> bool {
    /// As the grammar counts: ADD is +1.
    const DROP: c_int = -1;
    // SAFETY: the tag says which struct it is; the grammar always sets the extension's name.
    unsafe {
        (*statement).type_ == NodeTag::T_AlterExtensionContentsStmt && {
            let alter = &*statement.cast::<pg_sys::AlterExtensionContentsStmt>();
            alter.action == DROP && CStr::from_ptr(alter.extname) == EXTENSION
        }
    }
}

fn member_tables() -> Vec<pg_sys::Oid> {
    let members = "select d.objid from pg_catalog.pg_extension e
         join pg_catalog.pg_depend d on d.refclassid = 'pg_catalog.pg_extension'::pg_catalog.regclass
             and d.refobjid = e.oid and d.deptype = 'e'
             and d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass
         where e.extname = 'stripe_credits'";
    connected(|sql| sql.query(members, &[]).map(|mut row| row.get()).collect())
}

/// Raises 55000 if an object is a table of the extension and holds rows, unless the setting allows it.
fn refuse_loss(relation: pg_sys::Oid) {
    if ALLOW_DROP.get() || !is_member_table(relation) {
        return;
    }
    let Some(name) = name_if_it_holds_rows(relation) else { return };
    raise(
        PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
        &format!("{name} holds rows: dropping or rewriting it would destroy the books"),
        "SET stripe_credits.allow_drop = on allows it.",
    );
}

/// Whether an object is a table of the extension, wherever it was moved and however it was renamed. The extension's own
/// scripts may drop and rewrite its tables.
fn is_member_table(relation: pg_sys::Oid) -> bool {
    // SAFETY: they read the catalogs, and a backend's own variables; an oid that is not there answers 0 or null.
    unsafe {
        if !matches!(pg_sys::get_rel_relkind(relation).cast_unsigned(), b'r' | b'p') {
            return false;
        }
        let extension = pg_sys::getExtensionOfObject(pg_sys::RelationRelationId, relation);
        let name = pg_sys::get_extension_name(extension);
        let in_script = pg_sys::creating_extension && pg_sys::CurrentExtensionObject == extension;
        !name.is_null() && CStr::from_ptr(name) == EXTENSION && !in_script
    }
}

/// The name of a table, if it holds rows. It is read as the bootstrap superuser, because row level security would hide
/// the rows from others who may drop it, such as the owner of its schema.
fn name_if_it_holds_rows(table: pg_sys::Oid) -> Option<String> {
    let (mut user, mut context) = (pg_sys::InvalidOid, 0);
    // SAFETY: the pointers are of local variables. If the query raises, the end of the (sub)transaction restores the user.
    unsafe {
        pg_sys::GetUserIdAndSecContext(&raw mut user, &raw mut context);
        let local = pg_sys::SECURITY_LOCAL_USERID_CHANGE.cast_signed();
        pg_sys::SetUserIdAndSecContext(pg_sys::BOOTSTRAP_SUPERUSERID.into(), context | local);
    }
    let (name, holds_rows) = Spi::connect_mut(|client| {
        let names = "select n.nspname::text, c.relname::text from pg_catalog.pg_class c
             join pg_catalog.pg_namespace n on n.oid = c.relnamespace where c.oid = $1";
        let names = client.update(names, Some(1), &[table.into()]).unwrap_or_report().first();
        let (schema, table) = names.get_two::<String, String>().unwrap_or_report();
        let name = spi::quote_qualified_identifier(schema.unwrap_or_default(), table.unwrap_or_default());
        let exists = client.update(&format!("select exists (select from {name})"), Some(1), &[]);
        let holds_rows = exists.unwrap_or_report().first().get_one::<bool>().unwrap_or_report();
        (name, holds_rows.unwrap_or(true))
    });
    // SAFETY: what GetUserIdAndSecContext answered above.
    unsafe { pg_sys::SetUserIdAndSecContext(user, context) };
    holds_rows.then_some(name)
}
