//! Rule 15: whoever decides that something is absent holds the lock its writer takes.
//!
//! Every Stripe door takes its locks in one order, all of them before its first decision, and nothing that can block after
//! the account: catalog → customer → sources (sessions, subscriptions, invoices), sorted → payment intents, sorted → the account's row
//! (ledger.rs). Sources come before payment intents, so that a door that learns a session's payment intent under the
//! session's own lock can still take it in order. Spending locks the account only.
//!
//! All are transaction-level advisory locks, so pgbouncer's transaction mode is fine. Two keys of one hash only wait for
//! each other needlessly.

use std::collections::BTreeSet;

use pgrx::{direct_function_call, pg_sys, prelude::*};

/// The first key of each lock, in the order in which they are taken. "sc" in front keeps them apart from an app's own.
const CATALOG: i32 = 0x7363_0001;
const CUSTOMER: i32 = 0x7363_0002;
const SOURCE: i32 = 0x7363_0003;
const PAYMENT_INTENT: i32 = 0x7363_0004;

/// Keeps the catalog as it is, beside everybody else who does.
pub(crate) fn catalog_shared() {
    take(pg_sys::pg_advisory_xact_lock_shared_int4, CATALOG, 0);
}

/// Keeps every other Stripe door out: with this, no other lock but the account's is needed.
pub(crate) fn catalog_exclusive() {
    take(pg_sys::pg_advisory_xact_lock_int4, CATALOG, 0);
}

/// Whose a customer is stays as it is.
pub(crate) fn customer(customer_id: &str) {
    take(pg_sys::pg_advisory_xact_lock_int4, CUSTOMER, hash(customer_id));
}

/// What is known of these sessions, subscriptions and invoices stays as it is.
pub(crate) fn sources<'a>(source_ids: impl IntoIterator<Item = &'a str>) {
    sorted(SOURCE, source_ids);
}

/// What is known of these payment intents stays as it is.
pub(crate) fn payment_intents<'a>(payment_intent_ids: impl IntoIterator<Item = &'a str>) {
    sorted(PAYMENT_INTENT, payment_intent_ids);
}

fn sorted<'a>(class: i32, ids: impl IntoIterator<Item = &'a str>) {
    let hashes: BTreeSet<i32> = ids.into_iter().map(hash).collect();
    for hash in hashes {
        take(pg_sys::pg_advisory_xact_lock_int4, class, hash);
    }
}

// SAFETY: declared as in Postgres's common/hashfn.h.
unsafe extern "C-unwind" {
    /// Postgres's own hash (common/hashfn.h), the same in every version of this library that may run side by side.
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
