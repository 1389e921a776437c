//! stripe_credits: a Stripe payment becomes credits inside Postgres, exactly once.
//!
//! The SQL files below load in this order and hold all of the data; the modules are in reading order, which is the order
//! of a payment. The rules of money are the crate `stripe_credits_rules`, which knows no Postgres.

#![allow(
    unsafe_code,
    reason = "Postgres is C: its functions and node trees are reached through pgrx::pg_sys"
)]

use pgrx::prelude::*;

// What can be called, and the way of an event.
mod api; // every function that moves money
mod apply; // one event: read, lock, judge, follow, write down
mod purchase; // a paid credit pack, by whichever door
mod state; // a subscription's state, by whichever door
mod invoice; // a subscription's paid invoice, by whichever door
mod attribute; // whose it is, said by hand
mod spending; // spends and reservations
mod locks; // rule 15
// The tables, one module per family.
mod catalog; // settings, prices
mod customers; // customers
mod subscriptions; // subscriptions
mod payments; // payments, payment_intents
mod ledger; // accounts, credit_grants, credit_transactions: their only writer
mod reservations; // reservations
mod reversals; // reversals: refunds and disputes
mod inbox; // stripe_events
mod drop_guard; // the books cannot be dropped by accident
// Between Rust and Postgres.
mod sql;
mod json;
mod outcome;
mod error;
mod convert;

pgrx::pg_module_magic!(name, version);

extension_sql_file!("../../sql/install.sql", name = "install", bootstrap);
extension_sql_file!("../../sql/catalog.sql", name = "catalog", requires = ["install"]);
extension_sql_file!("../../sql/ledger.sql", name = "ledger", requires = ["catalog"]);
extension_sql_file!("../../sql/stripe.sql", name = "stripe", requires = ["ledger"]);
extension_sql_file!("../../sql/read_model.sql", name = "read_model", requires = ["stripe"]);
extension_sql_file!("../../sql/diagnosis.sql", name = "diagnosis", requires = ["read_model"]);
extension_sql_file!(
    "../../sql/explain.sql",
    name = "explain",
    requires = [
        "diagnosis",
        api::apply_stripe_event,
        api::apply_stripe_credit_pack_purchase,
        api::apply_subscription_state,
        api::settle_account
    ]
);
extension_sql_file!("../../sql/drop_guard.sql", name = "drop_guard", requires = ["explain"]);
extension_sql_file!("../../sql/dump.sql", name = "dump", requires = ["drop_guard"]);
extension_sql_file!(
    "../../sql/comments.sql",
    name = "comments",
    requires = [
        "dump",
        api::attribute,
        api::reconcile_checkout_session,
        api::load_catalog,
        api::retry_parked,
        api::grant_signup_credits,
        api::grant_credits,
        api::spend_credits,
        api::reserve_credits,
        api::commit_reservation,
        api::release_reservation,
        api::run_due,
        api::prune_stripe_events,
        api::sync_user_credits
    ]
);
extension_sql_file!("../../sql/security.sql", name = "security", finalize);

/// Runs once in every backend that loads the library.
#[pg_guard]
extern "C-unwind" fn _PG_init() {
    drop_guard::define_setting();
}
