//! stripe_credits: a Stripe payment becomes credits inside Postgres, exactly once.
//!
//! The SQL files below load in this order and hold all of the data; the modules are in reading order, which is the order
//! of a payment, and each uses only modules further down. The rules of money are the crate `stripe_credits_rules`, which knows no Postgres.
//! "Rule 15" and the like are the numbered rules of docs/rules.md.

#![allow(
    unsafe_code,
    reason = "Postgres is C: its functions and node trees are reached through pgrx::pg_sys"
)]

use pgrx::prelude::*;

mod api; // every function that moves money
mod entry {
    //! What can be called, one transaction each: takes every lock, calls down, records last.
    pub(crate) mod event; // an event, a reconcile, a retry of parked events
    pub(crate) mod direct; // a payment or a subscription's state by an SQL call
    pub(crate) mod attribute; // the user of a customer or a session, by an operator
    pub(crate) mod catalog; // a new catalog, and what it leaves due
    pub(crate) mod forget; // a user to forget
}
mod parked; // parked events, and judging them again
mod judge; // one event: who owns it, what it is worth
mod posting {
    //! One kind of posting, one file, its public functions on top.
    pub(crate) mod pack; // a paid credit pack
    pub(crate) mod subscription; // a subscription's state
    pub(crate) mod invoice; // a subscription's paid invoice
    pub(crate) mod reversal; // refunds, disputes, credit notes
    pub(crate) mod adjustment; // corrections by hand, imported balances
    pub(crate) mod promotion; // credits that are given
    pub(crate) mod top_up; // auto top-up: allowed, paid, failed
    pub(crate) mod spend; // spends, reservations, and what is given back of them
}
mod payment; // the names of a payment, joined
mod ledger; // accounts, credit_grants, credit_transactions: their only writer
mod tables {
    //! SQL and rows of the other tables, no decision.
    pub(crate) mod catalog; // settings, prices
    pub(crate) mod repricings; // repricings: changes of the catalog that are not posted everywhere yet
    pub(crate) mod customers; // customers, customer_accounts
    pub(crate) mod subscriptions; // subscriptions
    pub(crate) mod ownership; // subscription_users, subscription_moves: whose a subscription is, and was
    pub(crate) mod subscription_items; // subscription_items: the states of each item
    pub(crate) mod payments; // payments, payment_names
    pub(crate) mod invoices; // payments: what plan credits depend on
    pub(crate) mod invoice_lines; // invoice_lines: what each invoice bills
    pub(crate) mod read_changes; // read_changes: users of whom the read model changed without their account
    pub(crate) mod test_clocks; // test_clocks: the time by each of Stripe's test clocks
    pub(crate) mod reservations; // reservations
    pub(crate) mod outbox; // outbox: what the app is told
    pub(crate) mod top_ups; // top_ups: packs to be bought by auto top-up
    pub(crate) mod reversals; // reversals: refunds, disputes, credit notes
    pub(crate) mod inbox; // stripe_events
    pub(crate) mod forgotten; // forgotten_users
}
mod outcome; // what a call returns
mod pg {
    //! Between Rust and Postgres.
    pub(crate) mod drop_guard; // refuses to drop or rewrite the tables
    pub(crate) mod sql; // statements and rows
    pub(crate) mod locks; // rule 15
    pub(crate) mod cached; // values kept until a table changes
    pub(crate) mod error; // checks of arguments, and the errors that they raise
    pub(crate) mod json; // jsonb arguments
    pub(crate) mod convert; // the rules' types and Postgres's
}

pgrx::pg_module_magic!(name, version);

extension_sql_file!("../../sql/install.sql", name = "install", bootstrap);
extension_sql_file!("../../sql/catalog.sql", name = "catalog", requires = ["install"]);
extension_sql_file!("../../sql/ledger.sql", name = "ledger", requires = ["catalog"]);
extension_sql_file!("../../sql/outbox.sql", name = "outbox", requires = ["ledger"]);
extension_sql_file!("../../sql/stripe.sql", name = "stripe", requires = ["outbox"]);
extension_sql_file!("../../sql/top_ups.sql", name = "top_ups", requires = ["stripe"]);
extension_sql_file!("../../sql/read_model.sql", name = "read_model", requires = ["top_ups", api::user_id]);
extension_sql_file!("../../sql/mirror.sql", name = "mirror", requires = ["read_model"]);
extension_sql_file!("../../sql/diagnosis.sql", name = "diagnosis", requires = ["mirror", api::worth_faults]);
extension_sql_file!(
    "../../sql/explain.sql",
    name = "explain",
    requires = [
        "diagnosis",
        api::apply_stripe_event,
        api::apply_stripe_event_text,
        api::apply_stripe_credit_pack_purchase,
        api::apply_subscription_state,
        api::settle_account
    ]
);
extension_sql_file!("../../sql/legacy.sql", name = "legacy", requires = ["explain"]);
extension_sql_file!("../../sql/drop_guard.sql", name = "drop_guard", requires = ["legacy"]);
extension_sql_file!("../../sql/selfcheck.sql", name = "selfcheck", requires = ["drop_guard"]);
extension_sql_file!("../../sql/dump.sql", name = "dump", requires = ["selfcheck"]);
extension_sql_file!(
    "../../sql/comments.sql",
    name = "comments",
    requires = [
        "dump",
        api::apply_stripe_events,
        api::attribute,
        api::reconcile_checkout_session,
        api::load_catalog,
        api::retry_parked,
        api::retry_due,
        api::grant_signup_credits,
        api::grant_credits,
        api::spend_credits,
        api::reserve_credits,
        api::commit_reservation,
        api::release_reservation,
        api::refund_spend,
        api::adjust_credits,
        api::import_balance,
        api::set_auto_top_up,
        api::finish_top_up,
        api::run_due,
        api::prune_stripe_events,
        api::forget_user,
        api::sync_user_credits
    ]
);
extension_sql_file!("../../sql/security.sql", name = "security", finalize);

/// Runs once in every backend that loads the library.
#[pg_guard]
extern "C-unwind" fn _PG_init() {
    pg::drop_guard::install();
    pg::cached::listen();
}
