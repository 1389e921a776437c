//! Statements, prepared once per connection.
//!
//! Every statement of a door is run as one that may write. A read-only SPI call sees the caller's snapshot until the
//! transaction has an id, and so would miss what was committed while a lock was waited for. Only what reads without locks
//! wants just that: see [`reading`].

use std::cell::RefCell;
use std::collections::HashMap;
use std::convert::identity;
use std::rc::Rc;

use pgrx::datum::{DatumWithOid, FromDatum, Interval, IntoDatum, TimestampWithTimeZone};
use pgrx::pg_sys::panic::ErrorReportable;
use pgrx::prelude::*;
use pgrx::spi::{OwnedPreparedStatement, SpiClient, SpiHeapTupleData, SpiTupleTable};
use stripe_credits_rules::amount::{Credits, MinorUnits, Quantity};
use stripe_credits_rules::calendar::{Span, Time};
use uuid::Uuid;

use crate::pg::convert::{span, time, uuid};
use crate::pg::json::Json;

thread_local! {
    /// By the statement's address, since each text is one literal of this crate, and by how it is run.
    static PREPARED: RefCell<HashMap<(usize, usize, Access), Rc<OwnedPreparedStatement>>> = RefCell::default();
}

/// An open SPI connection.
pub(crate) struct Sql<'c, 'conn> {
    client: &'c mut SpiClient<'conn>,
    access: Access,
}

/// What a connection's statements see.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Access {
    /// Each sees what was committed before it, and may write.
    Latest,
    /// All see what the caller's statement sees.
    Snapshot,
}

/// Opens SPI for one call.
pub(crate) fn connected<R>(work: impl FnOnce(&mut Sql) -> R) -> R {
    Spi::connect_mut(|client| work(&mut Sql { client, access: Access::Latest }))
}

/// Opens SPI for reading what is consistent without a lock: all statements see one snapshot, unless the transaction has
/// written before. Works on a standby too.
pub(crate) fn reading<R>(work: impl FnOnce(&mut Sql) -> R) -> R {
    Spi::connect_mut(|client| work(&mut Sql { client, access: Access::Snapshot }))
}

impl<'conn> Sql<'_, 'conn> {
    /// Runs a statement and returns how many rows it changed.
    pub(crate) fn execute(&mut self, statement: &'static str, args: &[DatumWithOid]) -> usize {
        self.run(statement, args).len()
    }

    /// Runs a statement to its end and returns its rows.
    pub(crate) fn query(
        &mut self,
        statement: &'static str,
        args: &[DatumWithOid],
    ) -> impl Iterator<Item = Row<'conn>> + use<'conn> {
        self.run(statement, args).map(|tuple| Row { tuple, columns_read: 0 })
    }

    /// The row of a statement that has at most one.
    pub(crate) fn query_opt(&mut self, statement: &'static str, args: &[DatumWithOid]) -> Option<Row<'conn>> {
        self.query(statement, args).next()
    }

    /// The row of a statement that always has one, such as an aggregate.
    pub(crate) fn query_one(&mut self, statement: &'static str, args: &[DatumWithOid]) -> Row<'conn> {
        self.query_opt(statement, args).unwrap_or_else(|| panic!("no row came of: {statement}"))
    }

    fn run(&mut self, statement: &'static str, args: &[DatumWithOid]) -> SpiTupleTable<'conn> {
        let key = (statement.as_ptr().addr(), statement.len(), self.access);
        let prepared = PREPARED.with_borrow(|statements| statements.get(&key).cloned());
        let prepared = prepared.unwrap_or_else(|| {
            let types: Vec<PgOid> = args.iter().map(|arg| PgOid::from(arg.oid())).collect();
            let prepared = match self.access {
                Access::Latest => self.client.prepare_mut(statement, &types),
                Access::Snapshot => self.client.prepare(statement, &types),
            };
            let prepared = Rc::new(prepared.unwrap_or_report().keep());
            PREPARED.with_borrow_mut(|statements| statements.insert(key, Rc::clone(&prepared)));
            prepared
        });
        let answer = match self.access {
            Access::Latest => self.client.update(&*prepared, None, args),
            Access::Snapshot => self.client.select(&*prepared, None, args),
        };
        answer.unwrap_or_report()
    }
}

/// A row, whose columns are read one after the other, in the order of the select list.
pub(crate) struct Row<'conn> {
    tuple: SpiHeapTupleData<'conn>,
    columns_read: usize,
}

impl Row<'_> {
    /// The next column, if it is not null.
    pub(crate) fn get_opt<T: Column>(&mut self) -> Option<T> {
        self.columns_read += 1;
        self.tuple.get(self.columns_read).unwrap_or_report().map(T::from_column)
    }

    /// The next column, which is never null.
    pub(crate) fn get<T: Column>(&mut self) -> T {
        self.get_opt().unwrap_or_else(|| panic!("column {} is null", self.columns_read))
    }

    /// The next column, whose CHECK allows the texts of an enum.
    pub(crate) fn parse<T>(&mut self, parse: fn(&str) -> Option<T>) -> T {
        self.parse_opt(parse).unwrap_or_else(|| panic!("column {} is null", self.columns_read))
    }

    /// The same column, if it is not null.
    pub(crate) fn parse_opt<T>(&mut self, parse: fn(&str) -> Option<T>) -> Option<T> {
        let text: String = self.get_opt()?;
        Some(parse(&text).unwrap_or_else(|| panic!("column {} holds {text:?}", self.columns_read)))
    }
}

/// A type that a column is read as.
pub(crate) trait Column {
    type Datum: FromDatum + IntoDatum;

    fn from_column(datum: Self::Datum) -> Self;
}

macro_rules! columns {
    ($($type:ty = $datum:ty, $convert:expr;)*) => {
        $(impl Column for $type {
            type Datum = $datum;

            fn from_column(datum: $datum) -> $type {
                $convert(datum)
            }
        })*
    };
}

columns! {
    bool = bool, identity;
    i32 = i32, identity;
    i64 = i64, identity;
    String = String, identity;
    pg_sys::Oid = pg_sys::Oid, identity;
    Vec<pg_sys::Oid> = Vec<pg_sys::Oid>, identity;
    Vec<u8> = Vec<u8>, identity;
    Vec<String> = Vec<String>, identity;
    Vec<Uuid> = Vec<pgrx::Uuid>, |uuids: Vec<pgrx::Uuid>| uuids.into_iter().map(uuid).collect();
    Json = Json, identity;
    Credits = i64, Credits;
    MinorUnits = i64, MinorUnits;
    Quantity = i64, |quantity| Quantity::new(quantity).expect("only quantities are written");
    Span = Interval, |interval| span(&interval);
    Time = TimestampWithTimeZone, |timestamp| time(timestamp).expect("only finite times are written");
    Uuid = pgrx::Uuid, uuid;
}
