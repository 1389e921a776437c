//! A second implementation of the rules of money, written from their text alone: plain, slow, and sharing no code with
//! the rest of the crate. Tests compare the rules and the database with it.
//!
//! One customer's history goes in, step by step: what Stripe sends, and what the app calls. All facts are kept; after
//! each step everything is computed anew from all of them. The one thing that is noted as it happens is from which
//! grant a spend, a reservation or a debt was drawn.
//!
//! In reading order: `number`, `json` and `catalog` read; `invoice`, `subscription`, `reversals` and `facts` keep what
//! Stripe sent; `takeovers` and `part_back` are computed from that; `lines` judges each paid line, `periods` finds the
//! period that it opens or changes, `lay` says what it is worth there, and `grants` adds up; `closings` and `status`
//! set aside; `view` is all of it at one moment; `ledger` draws, settles and counts what is left; `requests` and
//! `promotions` are the app's calls; `users` are several customers among whom subscriptions move.

mod number;
mod json;
mod catalog;
mod invoice;
mod subscription;
mod reversals;
mod facts;
mod takeovers;
mod part_back;
mod lines;
mod periods;
mod lay;
mod grants;
mod closings;
mod status;
mod view;
mod ledger;
mod requests;
mod promotions;
mod users;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use catalog::Catalog;
use facts::Facts;
use grants::Grant;
pub use grants::{Key, Pool};
use ledger::{Balance, Ledger};
use requests::Request;
pub use subscription::Stream;
pub use users::Users;
use view::View;

/// One thing that happens. Times are seconds since 1970.
#[derive(Debug, Clone)]
pub enum Step {
    /// An event comes from Stripe. Every event is taken to be this customer's.
    Deliver(Value),
    /// The app spends.
    Spend {
        /// The app's request id.
        request_id: String,
        /// Credits, above 0.
        amount: i64,
    },
    /// The app reserves.
    Reserve {
        /// The app's request id.
        request_id: String,
        /// Credits, above 0.
        amount: i64,
        /// For how many seconds.
        seconds: i64,
    },
    /// The app commits a reservation, for less if it says an amount.
    Commit {
        /// The reservation's request id.
        request_id: String,
        /// Credits, all of them if it says none.
        amount: Option<i64>,
    },
    /// The app releases a reservation.
    Release {
        /// The reservation's request id.
        request_id: String,
    },
    /// The app gives back a spend, or what is left of it.
    RefundSpend {
        /// The spend's request id.
        spend_request_id: String,
        /// The app's request id.
        request_id: String,
        /// Credits, all that is left of the spend if it says none.
        amount: Option<i64>,
    },
    /// The app gives promotional credits.
    Gift {
        /// The app's request id.
        request_id: String,
        /// Credits, above 0.
        amount: i64,
        /// When they lapse.
        expires_at: Option<i64>,
    },
    /// The user signs up.
    Signup,
    /// Nothing happens but time.
    Look,
}

/// What a step's call answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "they are the product's")]
pub enum Outcome {
    Applied,
    AlreadyApplied,
    Rejected,
}

/// What stands after a step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Books {
    /// What can be spent.
    pub balance: i64,
    /// What is owed: 0 or more.
    pub debt: i64,
    /// The balance of each pool.
    pub subscription: i64,
    /// The balance of each pool.
    pub purchased: i64,
    /// The balance of each pool.
    pub promotional: i64,
    /// The plan's key, `free`, or `Unknown (price_…)`.
    pub tier: String,
    /// Every grant, in draw order.
    pub grants: Vec<Held>,
}

/// A grant after a step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    /// Which grant it is.
    pub key: Key,
    /// In which pool it is counted.
    pub pool: Pool,
    /// What its facts are worth; below 0 if more was credited than was paid.
    pub worth: i64,
    /// What was drawn from it and not given back.
    pub drawn: i64,
    /// What can be spent of it now.
    pub left: i64,
}

/// One customer, from the first step on.
pub struct Customer {
    catalog: Catalog,
    facts: Facts,
    ledger: Ledger,
    requests: BTreeMap<String, Request>,
    refunds: BTreeMap<String, (String, i64)>,
    gifts: BTreeMap<String, Grant>,
    signed_up_at: Option<i64>,
    /// The months in which a free plan's credits were had.
    free_months: BTreeSet<i64>,
    now: i64,
}

impl Customer {
    /// A customer of whom nothing is known.
    ///
    /// # Panics
    ///
    /// If the document is no catalog.
    #[must_use]
    pub fn new(catalog: &Value) -> Customer {
        Customer {
            catalog: Catalog::read(catalog),
            facts: Facts::default(),
            ledger: Ledger::default(),
            requests: BTreeMap::new(),
            refunds: BTreeMap::new(),
            gifts: BTreeMap::new(),
            signed_up_at: None,
            free_months: BTreeSet::new(),
            now: i64::MIN,
        }
    }

    /// Lets a step happen at a time of the account's clock, which is not before the step before.
    ///
    /// # Panics
    ///
    /// If an amount is not above 0: such calls are errors, not outcomes.
    pub fn apply(&mut self, at: i64, step: &Step) -> Outcome {
        self.advance(at);
        self.ledger.learn_nothing();
        let outcome = match step {
            Step::Deliver(event) => self.deliver(event),
            Step::Spend { request_id, amount } => self.spend(request_id, *amount, None),
            Step::Reserve { request_id, amount, seconds } => {
                self.spend(request_id, *amount, Some(at + seconds))
            }
            Step::Commit { request_id, amount } => self.commit(request_id, *amount),
            Step::Release { request_id } => self.release(request_id),
            Step::RefundSpend { spend_request_id, request_id, amount } => {
                self.refund_spend(spend_request_id, request_id, *amount)
            }
            Step::Gift { request_id, amount, expires_at } => self.give(request_id, *amount, *expires_at),
            Step::Signup => self.sign_up(),
            Step::Look => Outcome::Applied,
        };
        self.settle();
        outcome
    }

    /// What stands after the last step.
    #[must_use]
    pub fn books(&self) -> Books {
        let view = self.view();
        let balances = self.ledger.balances(&view);
        let of = |pool| balances.iter().filter(|held| held.pool == pool).map(|held| held.left).sum();
        Books {
            balance: balances.iter().map(|held| held.left).sum(),
            debt: self.ledger.debt(&view).max(0),
            subscription: of(Pool::Subscription),
            purchased: of(Pool::Purchased),
            promotional: of(Pool::Promotional),
            tier: view.tier,
            grants: balances.into_iter().map(Held::from).collect(),
        }
    }

    fn view(&self) -> View {
        let gifts: Vec<Grant> = self.gifts.values().cloned().chain(self.free_grants()).collect();
        View::of(&self.facts, &self.catalog, &gifts, self.now)
    }

    fn settle(&mut self) {
        self.note_free_month();
        let view = self.view();
        self.ledger.note(&view);
        self.ledger.settle(&view);
    }

    /// Time passes. At each moment at which it alone changes something, debts are settled.
    fn advance(&mut self, to: i64) {
        if self.now == i64::MIN {
            self.now = to;
        }
        assert!(to >= self.now, "time goes on");
        loop {
            let ends = self.requests.values().filter(|request| !request.is_closed);
            let ends = ends.filter_map(|request| request.reserved_until);
            let months = self.free_month().map(|month| self.free_month_start(month + 1));
            let all = self.view().moments().into_iter().chain(ends).chain(months);
            let Some(next) = all.filter(|time| *time <= to && *time > self.now).min() else { break };
            self.now = next;
            self.ledger.learn_nothing();
            self.end_reservations();
            self.settle();
        }
        self.now = to;
    }

    fn deliver(&mut self, event: &Value) -> Outcome {
        // "An event whose livemode is not the settings' is `ignored`."
        if event["livemode"].as_bool().unwrap_or(false) == self.catalog.livemode {
            self.facts.learn(event, self.now);
            self.ledger.learn(facts::own_time(event).unwrap_or(self.now));
            self.ledger.rename(&self.facts);
        }
        Outcome::Applied
    }
}

impl From<Balance> for Held {
    fn from(balance: Balance) -> Held {
        let Balance { key, pool, worth, drawn, left, .. } = balance;
        Held { key, pool, worth, drawn, left }
    }
}
