//! Refuses `DROP EXTENSION`, `DROP SCHEMA` and `DROP OWNED` that would take the books along, by the statement's parse tree.

#![allow(clippy::cast_ptr_alignment, reason = "Postgres allocates a node as the struct that its tag names")]

use std::ffi::c_char;

use pgrx::guc::{GucContext, GucFlags, GucRegistry, GucSetting};
use pgrx::pg_sys::NodeTag;
use pgrx::pg_sys::panic::ErrorReportable;
use pgrx::prelude::*;
use pgrx::spi;

use crate::pg::error::raise;
use crate::pg::sql::{Sql, connected};

static ALLOW_DROP: GucSetting<bool> = GucSetting::<bool>::new(false);

/// Defines `stripe_credits.allow_drop`.
pub(crate) fn define_setting() {
    GucRegistry::define_bool_guc(
        c"stripe_credits.allow_drop",
        c"Allows dropping the extension while its ledger holds rows.",
        c"Off by default: a DROP would delete every account, grant and ledger row.",
        &ALLOW_DROP,
        GucContext::Suset,
        GucFlags::default(),
    );
}

/// Tells Postgres the calling convention of `guard_drop`, as PG_FUNCTION_INFO_V1 does in C.
#[allow(unreachable_pub, reason = "Postgres looks it up by its symbol")]
#[unsafe(no_mangle)]
pub extern "C" fn pg_finfo_guard_drop() -> &'static pg_sys::Pg_finfo_record {
    const VERSION_1: pg_sys::Pg_finfo_record = pg_sys::Pg_finfo_record { api_version: 1 };
    &VERSION_1
}

/// The event trigger's function, in C's calling convention: pgrx declares no event triggers.
#[pg_guard]
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn guard_drop(fcinfo: pg_sys::FunctionCallInfo) -> pg_sys::Datum {
    // SAFETY: Postgres calls an event trigger's function with EventTriggerData as its context.
    let statement = unsafe {
        let context = (*fcinfo).context;
        if context.is_null() || (*context).type_ != NodeTag::T_EventTriggerData {
            raise(
                PgSqlErrorCode::ERRCODE_E_R_I_E_EVENT_TRIGGER_PROTOCOL_VIOLATED,
                "billing.guard_drop() is an event trigger",
                "it was called as a function",
            );
        }
        (*context.cast::<pg_sys::EventTriggerData>()).parsetree
    };
    // SAFETY: Postgres hands the parse tree of the statement that fired the trigger.
    if !ALLOW_DROP.get() && connected(|sql| unsafe { drops_books(sql, statement) }) {
        raise(
            PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
            "the ledger holds rows: dropping stripe_credits would delete the books",
            "SET stripe_credits.allow_drop = on allows it.",
        );
    }
    pg_sys::Datum::from(0)
}

/// Whether a statement drops a ledger that holds rows: with the extension, with its schema under whatever name, or with all
/// that an owner of either owns.
///
/// # Safety
/// `statement` is the root of a parse tree that Postgres made.
unsafe fn drops_books(sql: &mut Sql, statement: *mut pg_sys::Node) -> bool {
    let row = sql.query_opt(
        "select e.oid, n.oid, array[e.extowner, n.nspowner, c.relowner], n.nspname::text
         from pg_catalog.pg_extension e
         join pg_catalog.pg_namespace n on n.oid = e.extnamespace
         join pg_catalog.pg_class c on c.relnamespace = n.oid and c.relname = 'credit_transactions'
         where e.extname = 'stripe_credits'",
        &[],
    );
    let Some(mut row) = row else { return false };
    let (extension, schema): (pg_sys::Oid, pg_sys::Oid) = (row.get(), row.get());
    let (owners, schema_name): (Vec<pg_sys::Oid>, String) = (row.get(), row.get());
    // SAFETY: a node's tag names its struct, which is looked at only as that; the lists hold what the grammar puts there.
    let drops = unsafe {
        match (*statement).type_ {
            NodeTag::T_DropStmt => {
                let drop = &*statement.cast::<pg_sys::DropStmt>();
                let mut names = elements(drop.objects).filter_map(|object| string(object));
                match drop.removeType {
                    pg_sys::ObjectType::OBJECT_EXTENSION => {
                        names.any(|name| pg_sys::get_extension_oid(name, true) == extension)
                    }
                    pg_sys::ObjectType::OBJECT_SCHEMA => {
                        names.any(|name| pg_sys::get_namespace_oid(name, true) == schema)
                    }
                    _ => false,
                }
            }
            NodeTag::T_DropOwnedStmt => {
                let drop = &*statement.cast::<pg_sys::DropOwnedStmt>();
                let mut roles = elements(drop.roles).map(|role| pg_sys::get_rolespec_oid(role.cast(), true));
                roles.any(|role| owners.contains(&role))
            }
            _ => false,
        }
    };
    drops && holds_rows(&schema_name)
}

/// The nodes of a list; Postgres writes an empty one as a null pointer.
///
/// # Safety
/// `list` is null or a list of nodes, and stays one while the iterator is used.
unsafe fn elements(list: *mut pg_sys::List) -> impl Iterator<Item = *mut pg_sys::Node> {
    // SAFETY: it is not null, and so a list, as the caller promises.
    let length = if list.is_null() { 0 } else { unsafe { (*list).length } };
    // SAFETY: every index is below the list's length.
    (0..length).map(move |index| unsafe { pg_sys::list_nth(list, index) }.cast())
}

/// The text of a String node.
///
/// # Safety
/// `node` is a node of a parse tree.
unsafe fn string(node: *mut pg_sys::Node) -> Option<*const c_char> {
    // SAFETY: the tag says that it is a String before it is read as one.
    unsafe {
        ((*node).type_ == NodeTag::T_String).then(|| (*node.cast::<pg_sys::String>()).sval.cast_const())
    }
}

/// Whether the ledger holds rows, by its schema's name of now: somebody may have renamed it.
fn holds_rows(schema: &str) -> bool {
    let ledger = spi::quote_qualified_identifier(schema, "credit_transactions");
    Spi::get_one(&format!("select exists (select from {ledger})")).unwrap_or_report().unwrap_or(true)
}
