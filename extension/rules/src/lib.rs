//! The rules of money: Stripe's JSON becomes facts, facts become worth. No Postgres, no I/O, no clock.
//!
//! "Rule 15" and the like are the numbered rules of docs/rules.md.
//!
//! Each module uses only those above it in this order, which `tests/arrows.rs` checks:
//!
//! 1. [`amount`], [`calendar`], [`reason`], [`verdict`], [`crossing`], [`top_up`], [`told`], [`user`], [`jsonb`]: credits
//!    and money, times and spans, what a call answers and why, which thresholds a balance crosses, when a pack is bought for a
//!    user by itself, what an app is told, which user a text names, what Postgres cannot store of a text;
//! 2. [`name`], [`stripe`], [`price`]: the ids of a payment, and the fields of Stripe's objects that the rules read, in both
//!    shapes of its API;
//! 3. [`catalog`], [`price_history`]: what prices are worth and which events are in scope, as data that a founder writes; what
//!    the catalog said at an earlier time;
//! 4. [`subscription`], [`invoice`], [`session`], [`payment_intent`], [`reversal`]: one Stripe object becomes facts;
//! 5. [`event`]: one delivered text becomes an [`event::Event`] with one [`event::Subject`], or is malformed;
//! 6. [`fetched`]: what the caller fetched from Stripe because an event lacks it;
//! 7. [`identity`]: which user a payment belongs to;
//! 8. [`lot`]: the pools, and what a payment bought;
//! 9. [`worth`]: what a checkout session buys ([`worth::session`]), and which lines of an invoice are ours
//!    ([`worth::invoice`]);
//! 10. [`streams`]: what the lines of all of a user's invoices make of each grant, as one function of all facts;
//! 11. [`draw`]: which grants a spend is taken from;
//! 12. [`plan_change`]: which way a customer's change of plan goes, and when it is billed.
//!
//! `model`, which only tests are built with, is a second implementation of the rules, for comparison.
//! `vectors` are histories with the numbers that must stand. `simulator` bills one customer as Stripe does: random histories, and what they must leave.
//!
//! One idea underlies all of it. Facts about a Stripe object only accumulate, its worth is a pure function of the facts, and
//! the ledger posts the difference to what it has posted. So order, repetition and races do not matter: they change when
//! something becomes known, not what is known in the end.

pub mod amount;
pub mod calendar;
mod text_enum;
pub mod reason;
pub mod verdict;
pub mod crossing;
pub mod top_up;
pub mod told;
pub mod name;
pub mod user;
pub mod jsonb;
pub mod stripe;
pub mod price;
pub mod catalog;
pub mod price_history;
pub mod subscription;
pub mod invoice;
pub mod session;
pub mod payment_intent;
pub mod reversal;
pub mod event;
pub mod fetched;
pub mod reduced;
pub mod identity;
pub mod lot;
pub mod worth;
pub mod streams;
pub mod draw;
pub mod plan_change;

#[cfg(any(test, feature = "model"))]
pub mod vectors;
#[cfg(any(test, feature = "model"))]
pub mod model;
#[cfg(any(test, feature = "model"))]
pub mod simulator;
