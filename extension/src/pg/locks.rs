//! Rule 15: before treating a row as absent, take the lock that its inserter takes.
//!
//! Every function that applies something of Stripe's takes its locks in one order, before its first decision, and waits for none
//! after the account's (what a delivery unblocks is judged then if its locks are free, and left due if not): catalog → customers, sorted → sources (sessions, subscriptions, invoices), sorted → names of payments,
//! sorted → the payments that these name, sorted → the account's row (ledger.rs). Sources come before names, because what is parked for a session, and names its payment,
//! is found under the session's lock. A subscription that moves to another user takes its payments with it, so their locks are
//! taken with the other payments'. Several accounts are locked in the order of their users. Spending locks the account only.
//! A batch of events takes the locks of all of them in this same order, and then waits for none but that of an account which
//! no event and no row named before: a circle of such waits is ended by the lock time-out, and the events come one by one.
//!
//! The catalog's lock, the first of them, also checks the transaction's isolation: at a stricter level than READ COMMITTED
//! a decision would be made by the snapshot of before the lock was waited for, and what was committed meanwhile would be
//! missed without a word. What locks the account only needs no such check: there Postgres itself raises 40001, because the
//! row that is locked is the row that was changed.
//!
//! All are transaction-level advisory locks, which work with pgbouncer's transaction mode. Keys with the same hash wait for
//! each other, which is harmless.

use std::collections::BTreeSet;

use pgrx::{direct_function_call, pg_sys, prelude::*};

use crate::pg::cached::hear_changes;
use crate::pg::error::raise;

/// The first key of each lock, in the order in which they are taken. The prefix "sc" keeps them apart from the app's locks.
/// Whoever wants the catalog exclusively queues for [`UPKEEP`] first. So one of them at most stands in front of a delivery,
/// however many there are.
const UPKEEP: i32 = 0x7363_0000;
const CATALOG: i32 = 0x7363_0001;
const CUSTOMER: i32 = 0x7363_0002;
const SOURCE: i32 = 0x7363_0003;
const PAYMENT_NAME: i32 = 0x7363_0004;
const PAYMENT: i32 = 0x7363_0005;

/// Locks the catalog in share mode: it does not change.
pub(crate) fn catalog_shared() {
    require_read_committed();
    take(pg_sys::pg_advisory_xact_lock_shared_int4, CATALOG, 0);
    hear_changes();
}

/// Locks the catalog exclusively if nothing of Stripe's holds it now, and the transaction is at READ COMMITTED. Returns
/// whether it did.
pub(crate) fn try_catalog_exclusive() -> bool {
    stricter_level().is_none() && try_take(CATALOG, 0)
}

/// Locks the catalog exclusively. Everything else of Stripe's locks it in share mode, so that no other lock but the account's
/// is needed.
pub(crate) fn catalog_exclusive() {
    require_read_committed();
    take(pg_sys::pg_advisory_xact_lock_int4, UPKEEP, 0);
    take(pg_sys::pg_advisory_xact_lock_int4, CATALOG, 0);
    hear_changes();
}

/// The transaction's isolation, if it is stricter than READ COMMITTED.
fn stricter_level() -> Option<&'static str> {
    // SAFETY: a backend is one thread, and reads its own transaction's level.
    let level = unsafe { pg_sys::XactIsoLevel };
    match u32::try_from(level) {
        Ok(pg_sys::XACT_REPEATABLE_READ) => Some("repeatable read"),
        Ok(pg_sys::XACT_SERIALIZABLE) => Some("serializable"),
        _ => None,
    }
}

/// Raises 25001 in a transaction at a stricter level than READ COMMITTED.
fn require_read_committed() {
    let Some(name) = stricter_level() else { return };
    raise(
        PgSqlErrorCode::ERRCODE_ACTIVE_SQL_TRANSACTION,
        "what applies something of Stripe's must be called at isolation level read committed: at a stricter one it would \
         miss what was committed while it waited",
        &format!("transaction_isolation = {name}"),
    );
}

/// Locks the links of customers to users.
pub(crate) fn customers<'a>(customer_ids: impl IntoIterator<Item = &'a str>) {
    sorted(CUSTOMER, customer_ids);
}

/// Locks sessions, subscriptions and invoices.
pub(crate) fn sources<'a>(source_ids: impl IntoIterator<Item = &'a str>) {
    sorted(SOURCE, source_ids);
}

/// Locks names of payments.
pub(crate) fn payment_names<'a>(names: impl IntoIterator<Item = &'a str>) {
    sorted(PAYMENT_NAME, names);
}

/// Locks payments by the source that their names point to.
pub(crate) fn payments<'a>(source_ids: impl IntoIterator<Item = &'a str>) {
    sorted(PAYMENT, source_ids);
}

/// The same three for a transaction that holds an account by now, and so must not wait for another lock: each takes what is
/// free, and returns whether all of it was. What was taken is kept until the transaction ends.
pub(crate) fn try_sources<'a>(source_ids: impl IntoIterator<Item = &'a str>) -> bool {
    try_all(SOURCE, source_ids)
}

/// See [`try_sources`].
pub(crate) fn try_payment_names<'a>(names: impl IntoIterator<Item = &'a str>) -> bool {
    try_all(PAYMENT_NAME, names)
}

/// See [`try_sources`].
pub(crate) fn try_payments<'a>(source_ids: impl IntoIterator<Item = &'a str>) -> bool {
    try_all(PAYMENT, source_ids)
}

fn try_all<'a>(class: i32, ids: impl IntoIterator<Item = &'a str>) -> bool {
    ids.into_iter().all(|id| try_take(class, hash(id)))
}

fn sorted<'a>(class: i32, ids: impl IntoIterator<Item = &'a str>) {
    let hashes: BTreeSet<i32> = ids.into_iter().map(hash).collect();
    for hash in hashes {
        take(pg_sys::pg_advisory_xact_lock_int4, class, hash);
    }
}

// SAFETY: declared as in Postgres's common/hashfn.h.
unsafe extern "C-unwind" {
    /// Postgres's own hash (common/hashfn.h): the same in every version of this library, and several may run at once.
    fn hash_bytes(key: *const u8, length: i32) -> u32;
}

fn hash(key: &str) -> i32 {
    let length = i32::try_from(key.len()).expect("jsonb strings are under 256 MB");
    // SAFETY: it reads `length` bytes from the pointer, which are the key's own.
    unsafe { hash_bytes(key.as_ptr(), length) }.cast_signed()
}

fn take(function: unsafe fn(pg_sys::FunctionCallInfo) -> pg_sys::Datum, class: i32, key: i32) {
    // SAFETY: the callers name functions of Postgres that take two int4 and return void.
    unsafe { direct_function_call::<()>(function, &[class.into_datum(), key.into_datum()]) };
}

fn try_take(class: i32, key: i32) -> bool {
    let arguments = [class.into_datum(), key.into_datum()];
    // SAFETY: a function of Postgres that takes two int4 and returns a boolean.
    let taken = unsafe { direct_function_call(pg_sys::pg_try_advisory_xact_lock_int4, &arguments) };
    taken.expect("it never returns null")
}
