//! Values that were read from tables that hardly ever change, kept per connection until one of these tables does.
//!
//! Postgres tells every connection that a relation changed, as it does for changes of the schema: a trigger on each of the
//! tables asks for that, so a change by hand is heard as well. It is sent at commit, before the locks of the transaction are
//! released. So whoever has waited for the catalog's lock has to listen once before it looks: [`hear_changes`].

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use pgrx::{pg_sys, prelude::*};

thread_local! {
    /// Rises with every change that is heard of.
    static GENERATION: Cell<u64> = const { Cell::new(0) };
    /// The tables that values were read from.
    static TABLES: RefCell<Vec<pg_sys::Oid>> = const { RefCell::new(Vec::new()) };
}

/// A value and the generation in which it was read.
pub(crate) struct Cached<T> {
    kept: RefCell<Option<(u64, Rc<T>)>>,
}

impl<T> Cached<T> {
    pub(crate) const fn new() -> Cached<T> {
        Cached { kept: RefCell::new(None) }
    }

    /// The value, read if it is not kept. `read` returns it with the table that it was read from. Not kept is what is not there,
    /// what changed while it was read, and the first value of a table, whose changes were not listened to before.
    pub(crate) fn get(&self, read: impl FnOnce() -> Option<(pg_sys::Oid, T)>) -> Option<Rc<T>> {
        let generation = GENERATION.get();
        if let Some((kept_in, value)) = &*self.kept.borrow()
            && *kept_in == generation
        {
            return Some(Rc::clone(value));
        }
        let (table, value) = read()?;
        let value = Rc::new(value);
        let was_listened_to = TABLES.with_borrow_mut(|tables| {
            let is_known = tables.contains(&table);
            if !is_known {
                tables.push(table);
            }
            is_known
        });
        if was_listened_to {
            *self.kept.borrow_mut() = Some((generation, Rc::clone(&value)));
        }
        Some(value)
    }
}

/// Listens for changes that other connections committed.
pub(crate) fn hear_changes() {
    // SAFETY: called within a transaction, as it requires.
    unsafe { pg_sys::AcceptInvalidationMessages() };
}

/// Lets this connection hear of changes. Called once per connection.
pub(crate) fn listen() {
    // SAFETY: the callback is a function of this library, which is never unloaded.
    unsafe { pg_sys::CacheRegisterRelcacheCallback(Some(heard), pg_sys::Datum::from(0)) };
}

/// Called by Postgres with the relation that changed; InvalidOid means that any may have.
#[pg_guard]
unsafe extern "C-unwind" fn heard(_argument: pg_sys::Datum, relation: pg_sys::Oid) {
    let is_ours = TABLES.with_borrow(|tables| tables.contains(&relation));
    if is_ours || relation == pg_sys::Oid::INVALID {
        GENERATION.set(GENERATION.get() + 1);
    }
}

/// The function of the tables' triggers, declared in sql/catalog.sql: tells every connection, at commit, that the table changed.
#[pg_trigger(sql = false)]
fn kept_table_changed<'a>(
    trigger: &'a pgrx::PgTrigger<'a>,
) -> Result<Option<PgHeapTuple<'a, pgrx::AllocatedByPostgres>>, pgrx::PgTriggerError> {
    // SAFETY: the relation is open while its trigger runs.
    unsafe { pg_sys::CacheInvalidateRelcacheByRelid(trigger.relid()?) };
    Ok(None)
}
