//! The rules of money once more, by somebody who has read only their text: plain, slow, and sharing no code with the rest of the
//! crate. Tests compare the rules and the database with it.
//!
//! One customer's history goes in, step by step: what Stripe sends, and what the app calls. All facts are kept; after each
//! step everything is computed anew from all of them. The one thing that is noted as it happens is from which grant a
//! spend, a reservation or a debt was drawn.
//!
//! In reading order: [`json`], [`number`] and [`catalog`] read; [`facts`], [`invoice`], [`subscription`] and [`reversals`]
//! keep what Stripe said; [`lines`] judges each paid line, [`periods`] finds the period that it opens or changes, [`lay`]
//! says what it is worth there, and [`grants`] adds up; [`closings`] and [`status`] set aside; [`view`] is all of it at one
//! moment; [`ledger`] draws, settles and counts what is left.

mod json;
mod number;
mod catalog;
mod facts;
mod invoice;
mod subscription;
mod reversals;
mod lines;
mod periods;
mod lay;
mod grants;
mod closings;
mod status;
mod view;
mod ledger;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use catalog::Catalog;
use facts::Facts;
use grants::Grant;
pub use grants::{Key, Pool};
use ledger::{Balance, Cause, Ledger};
use number::whole;
pub use subscription::Stream;
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

#[derive(Debug)]
struct Request {
    amount: i64,
    /// When a reservation that is neither committed nor released lapses.
    reserved_until: Option<i64>,
    /// Whether it can no longer be committed or released.
    is_closed: bool,
    is_reservation: bool,
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
            self.end_reservations();
            self.settle();
        }
        self.now = to;
    }

    fn end_reservations(&mut self) {
        let view = self.view();
        for (request_id, request) in &mut self.requests {
            if !request.is_closed && request.reserved_until.is_some_and(|until| until <= view.now) {
                request.is_closed = true;
                let cause = Cause::Request(request_id.clone());
                self.ledger.give_back(&view, &cause, self.ledger.drawn_for(&cause));
            }
        }
    }

    fn deliver(&mut self, event: &Value) -> Outcome {
        // "An event whose livemode is not the settings' is `ignored`."
        if event["livemode"].as_bool().unwrap_or(false) == self.catalog.livemode {
            self.facts.learn(event, self.now);
            self.ledger.rename(&self.facts);
        }
        Outcome::Applied
    }

    /// "Idempotent by request_id. Not enough is `rejected`, `insufficient_credits`, and leaves no trace."
    fn spend(&mut self, request_id: &str, amount: i64, reserved_until: Option<i64>) -> Outcome {
        assert!(amount > 0, "an amount is above 0");
        if let Some(known) = self.requests.get(request_id) {
            let is_same = known.amount == amount && known.is_reservation == reserved_until.is_some();
            return if is_same { Outcome::AlreadyApplied } else { Outcome::Rejected };
        }
        let view = self.view();
        if self.ledger.balances(&view).iter().map(|held| held.left).sum::<i64>() < amount {
            return Outcome::Rejected;
        }
        self.ledger.draw(&view, &Cause::Request(request_id.to_owned()), amount);
        let is_reservation = reserved_until.is_some();
        let request = Request { amount, reserved_until, is_closed: !is_reservation, is_reservation };
        self.requests.insert(request_id.to_owned(), request);
        Outcome::Applied
    }

    fn commit(&mut self, request_id: &str, amount: Option<i64>) -> Outcome {
        let Some(request) = self.requests.get_mut(request_id).filter(|request| !request.is_closed) else {
            return Outcome::Rejected;
        };
        let amount = amount.unwrap_or(request.amount);
        assert!(amount > 0, "an amount is above 0");
        if amount > request.amount {
            return Outcome::Rejected;
        }
        request.is_closed = true;
        let rest = request.amount - amount;
        self.ledger.give_back(&self.view(), &Cause::Request(request_id.to_owned()), rest);
        Outcome::Applied
    }

    fn release(&mut self, request_id: &str) -> Outcome {
        let Some(request) = self.requests.get_mut(request_id).filter(|request| !request.is_closed) else {
            return Outcome::Rejected;
        };
        request.is_closed = true;
        let amount = request.amount;
        self.ledger.give_back(&self.view(), &Cause::Request(request_id.to_owned()), amount);
        Outcome::Applied
    }

    /// "Idempotent by its own request id, never more than was spent."
    fn refund_spend(&mut self, spend: &str, request_id: &str, amount: Option<i64>) -> Outcome {
        let cause = Cause::Request(spend.to_owned());
        let left = self.ledger.drawn_for(&cause);
        if let Some((of, refunded)) = self.refunds.get(request_id) {
            let is_same = of == spend && amount.is_none_or(|amount| amount == *refunded);
            return if is_same { Outcome::AlreadyApplied } else { Outcome::Rejected };
        }
        let amount = amount.unwrap_or(left);
        let is_spent = self.requests.get(spend).is_some_and(|request| request.is_closed);
        if !is_spent || amount > left || left == 0 {
            return Outcome::Rejected;
        }
        assert!(amount > 0, "an amount is above 0");
        self.ledger.give_back(&self.view(), &cause, amount);
        self.refunds.insert(request_id.to_owned(), (spend.to_owned(), amount));
        Outcome::Applied
    }

    fn give(&mut self, request_id: &str, amount: i64, expires: Option<i64>) -> Outcome {
        assert!(amount > 0, "an amount is above 0");
        let key = Key::Gift { request_id: request_id.to_owned() };
        let gift = Grant { expires, ..Grant::new(key, Pool::Promotional, self.now, whole(amount)) };
        if let Some(known) = self.gifts.get(request_id) {
            let is_same = known.worth() == amount && known.expires == expires;
            return if is_same { Outcome::AlreadyApplied } else { Outcome::Rejected };
        }
        self.gifts.insert(request_id.to_owned(), gift);
        Outcome::Applied
    }

    fn sign_up(&mut self) -> Outcome {
        if self.signed_up_at.is_some() {
            return Outcome::AlreadyApplied;
        }
        self.signed_up_at = Some(self.now);
        Outcome::Applied
    }

    /// The credits of the signup, and "a free plan's months: promotional, lapsing after the month".
    fn free_grants(&self) -> Vec<Grant> {
        let Some(at) = self.signed_up_at else { return Vec::new() };
        let signup = whole(self.catalog.signup_credits);
        let mut grants = vec![Grant::new(Key::Signup, Pool::Promotional, at, signup)];
        for month in &self.free_months {
            let start = self.free_month_start(*month);
            let credits = self.catalog.free_plan.as_ref().map_or(0, |plan| plan.credits);
            let grant = Grant::new(Key::Free { month: *month }, Pool::Promotional, start, whole(credits));
            let ends = self.free_month_start(month + 1);
            grants.push(Grant { ends: Some(ends), expires: Some(ends), ..grant });
        }
        grants
    }

    /// A month of the free plan goes to "accounts that called grant_signup_credits and have no paid tier".
    fn note_free_month(&mut self) {
        if let Some(month) = self.free_month()
            && self.view().tier == "free"
        {
            self.free_months.insert(month);
        }
    }

    /// Which month of the free plan runs.
    fn free_month(&self) -> Option<i64> {
        self.catalog.free_plan.as_ref()?;
        self.signed_up_at?;
        (0..).find(|month| self.free_month_start(month + 1) > self.now)
    }

    fn free_month_start(&self, month: i64) -> i64 {
        let plan = self.catalog.free_plan.as_ref().expect("there is a free plan");
        plan.every.after(self.signed_up_at.expect("the user has signed up"), month)
    }
}

impl From<Balance> for Held {
    fn from(balance: Balance) -> Held {
        let Balance { key, pool, worth, drawn, left, .. } = balance;
        Held { key, pool, worth, drawn, left }
    }
}
