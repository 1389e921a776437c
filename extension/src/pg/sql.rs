//! Statements to Postgres, planned once per connection and kept.
//!
//! Every statement goes out as a writing one. A read-only SPI call would see the caller's snapshot until the transaction
//! has an id, and so miss what was committed while we waited for a lock.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;

use pgrx::datum::{DatumWithOid, FromDatum, IntoDatum};
use pgrx::pg_sys::panic::ErrorReportable;
use pgrx::prelude::*;
use pgrx::spi::{OwnedPreparedStatement, SpiClient, SpiHeapTupleData, SpiTupleTable};

thread_local! {
    /// By the statement's address: each text is one literal of this crate.
    static KEPT: RefCell<HashMap<(usize, usize), Rc<OwnedPreparedStatement>>> = RefCell::default();
}

/// An open SPI connection.
pub(crate) struct Sql<'c, 'conn>(&'c mut SpiClient<'conn>);

/// Opens SPI for the length of one call of ours.
pub(crate) fn connected<R>(work: impl FnOnce(&mut Sql) -> R) -> R {
    Spi::connect_mut(|client| work(&mut Sql(client)))
}

impl<'conn> Sql<'_, 'conn> {
    /// Runs a statement and answers all of its rows.
    pub(crate) fn run(&mut self, sql: &'static str, args: &[DatumWithOid]) -> Rows<'conn> {
        let key = (sql.as_ptr().addr(), sql.len());
        let kept = KEPT.with_borrow(|statements| statements.get(&key).cloned());
        let statement = kept.unwrap_or_else(|| {
            let types: Vec<PgOid> = args.iter().map(|arg| PgOid::from(arg.oid())).collect();
            let statement = Rc::new(self.0.prepare_mut(sql, &types).unwrap_or_report().keep());
            KEPT.with_borrow_mut(|statements| statements.insert(key, Rc::clone(&statement)));
            statement
        });
        Rows { table: self.0.update(&*statement, None, args).unwrap_or_report(), row: None }
    }
}

/// The rows of a statement, read one after the other.
pub(crate) struct Rows<'conn> {
    table: SpiTupleTable<'conn>,
    row: Option<SpiHeapTupleData<'conn>>,
}

impl Rows<'_> {
    /// How many rows the statement answered, or changed.
    pub(crate) fn count(&self) -> usize {
        self.table.len()
    }

    /// Steps to the next row, at first to the first.
    pub(crate) fn next(&mut self) -> bool {
        self.row = self.table.next();
        self.row.is_some()
    }

    /// A column of the current row, counted from 1.
    pub(crate) fn get<T: FromDatum + IntoDatum>(&self, column: usize) -> Option<T> {
        let row = self.row.as_ref().expect("there is a current row");
        row.get(column).unwrap_or_report()
    }

    /// A column that is never null.
    pub(crate) fn must<T: FromDatum + IntoDatum>(&self, column: usize) -> T {
        self.get(column).unwrap_or_else(|| panic!("column {column} is null"))
    }
}
