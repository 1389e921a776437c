//! The rules of money: Stripe's JSON becomes facts, facts become worth. No Postgres, no I/O, no clock.
//!
//! In reading order, which is the order of a payment:
//!
//! 1. [`stripe`]: the fields of Stripe's objects that the rules read, in both shapes of its API;
//! 2. [`event`]: one delivered text becomes an [`event::Event`] with one [`event::Subject`], or a refusal, by way of
//!    [`session`], [`subscription`], [`invoice`] and [`reversal`];
//! 3. [`wall`]: whether the event is ours at all;
//! 4. [`identity`]: whose it is;
//! 5. [`catalog`]: what prices are worth, as data that a founder writes;
//! 6. [`purchase`]: what a checkout session is worth, by what is known of it;
//! 7. [`lot`]: what each grant should hold beside what it does hold: the difference that the ledger posts;
//! 8. [`plan`] and [`bonus`]: what a plan's lots, and first purchases' bonuses, leave of each other;
//! 9. [`reversal`]: what refunds and disputes take back;
//! 10. [`draw`]: which grants a spend is taken from.
//!
//! `model`, which only tests are built with, says all of it once more, plainly, to be compared with.
//!
//! One idea carries all of it. What is known of a Stripe object only grows, what it is worth is a pure function of
//! what is known, and the ledger posts the difference to what it already says. So order, repetition and races cannot
//! matter: they change when something becomes known, never what is known in the end.

pub mod stripe;
pub mod event;
pub mod session;
pub mod subscription;
pub mod invoice;
pub mod wall;
pub mod identity;
pub mod catalog;
pub mod purchase;
pub mod lot;
pub mod plan;
pub mod bonus;
pub mod reversal;
pub mod draw;

pub mod reason;
pub mod amount;
pub mod calendar;
mod word;

#[cfg(any(test, feature = "model"))]
pub mod model;

#[cfg(any(test, feature = "model"))]
pub mod simulator;
