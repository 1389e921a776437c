//! The rules of money: Stripe's JSON becomes facts, facts become worth. No Postgres, no I/O, no clock.
//!
//! "Rule 15" and the like are the numbered rules of docs/rules.md.
//!
//! The modules stand in an order in which each uses only those above it:
//!
//! 1. [`amount`], [`calendar`], [`reason`], [`verdict`]: credits and money, times and spans, what a call answers and why;
//! 2. [`stripe`]: the fields of Stripe's objects that the rules read, in both shapes of its API;
//! 3. [`catalog`]: what prices are worth and whose events count, as data that a founder writes;
//! 4. [`subscription`], [`invoice`], [`session`], [`reversal`]: one Stripe object becomes facts;
//! 5. [`event`]: one delivered text becomes an [`event::Event`] with one [`event::Subject`], or is malformed;
//! 6. [`fetched`]: what Stripe answered when it was asked for what an event lacks;
//! 7. [`identity`]: which user a payment belongs to;
//! 8. [`lot`]: what each grant should hold beside what it does hold: the difference that the ledger posts;
//! 9. [`worth`]: what a checkout session ([`worth::session`]) or an invoice ([`worth::invoice`]) grants;
//! 10. [`streams`]: what the lines of all of a user's invoices make of each grant, as one function of all facts;
//! 11. [`plan`] and [`bonus`]: what a plan's lots, and first purchases' bonuses, leave of each other;
//! 12. [`draw`]: which grants a spend is taken from.
//!
//! `model`, which only tests are built with, says all of it once more, plainly, to be compared with.
//! `simulator`, beside it, is Stripe's billing of one customer: random histories, with what they must leave.
//!
//! One idea carries all of it. What is known of a Stripe object only grows, what it is worth is a pure function of
//! what is known, and the ledger posts the difference to what it already says. So order, repetition and races cannot
//! matter: they change when something becomes known, never what is known in the end.

pub mod amount;
pub mod calendar;
mod text_enum;
pub mod reason;
pub mod verdict;
pub mod stripe;
pub mod catalog;
pub mod subscription;
pub mod invoice;
pub mod session;
pub mod reversal;
pub mod event;
pub mod fetched;
pub mod identity;
pub mod lot;
pub mod worth;
pub mod streams;
pub mod plan;
pub mod bonus;
pub mod draw;

#[cfg(any(test, feature = "model"))]
pub mod model;
#[cfg(any(test, feature = "model"))]
pub mod model_books;
#[cfg(any(test, feature = "model"))]
pub mod simulator;
