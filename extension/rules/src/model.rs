//! A second, plain implementation of the rules of money, with which tests compare the rules and the database.
//!
//! A person's account here is a list of grants, a list of draws, and what is known of payments and subscriptions. After every
//! operation, what can be spent is counted anew from these. The one thing that is noted as it happens is in which lot's time
//! a draw was made. Nothing here calls the rules, and nothing outside of tests calls this.

mod choice; // which operation comes next, by a number
#[cfg(test)]
mod ledger; // an account that posts by the rules
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

pub use choice::Among;

use crate::catalog::{Cancellation, PlanChange, ReversalPolicy};
use crate::lot::Pool;

/// What one pack of a session is worth.
pub const PACK_CREDITS: i64 = 500;

/// What every pack's session costs, in cents, however many packs it buys.
pub const PACK_CENTS: i64 = 1000;

/// What a trial is worth under every plan.
pub const TRIAL_CREDITS: i64 = 700;

/// How long a billing period is, in seconds.
pub const PERIOD: i64 = 86_400;

/// The plans of the tests' catalog.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "they are the catalog's")]
pub enum Plan {
    Roll,
    Pro,
    Max,
}

impl Plan {
    /// Its key.
    #[must_use]
    pub fn key(self) -> &'static str {
        match self {
            Plan::Roll => "roll",
            Plan::Pro => "pro",
            Plan::Max => "max",
        }
    }

    /// Its price's id.
    #[must_use]
    pub fn price_id(self) -> &'static str {
        match self {
            Plan::Roll => "price_roll",
            Plan::Pro => "price_pro",
            Plan::Max => "price_max",
        }
    }

    /// What a period of it is worth.
    #[must_use]
    pub fn credits(self) -> i64 {
        match self {
            Plan::Roll => 1000,
            Plan::Pro => 10_000,
            Plan::Max => 30_000,
        }
    }

    /// The most that a period of it leaves of those before.
    #[must_use]
    pub fn max_rollover(self) -> i64 {
        match self {
            Plan::Roll => 500,
            Plan::Pro | Plan::Max => 0,
        }
    }
}

/// The policies of a catalog that apply to all its plans.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Policies {
    /// What becomes of credits that were spent before they were taken back.
    pub reversal: ReversalPolicy,
    /// What becomes of credits once their subscription is over.
    pub cancellation: Cancellation,
    /// When a change of plan grants and takes.
    pub plan_change: PlanChange,
}

/// Where a dispute's money is; it only rises.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Money {
    /// Nothing has moved.
    Untouched,
    /// It was taken back.
    Withdrawn,
    /// It was returned.
    Reinstated,
}

/// The state of a subscription.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SubscriptionFacts {
    /// What it subscribes to.
    pub plan: Plan,
    /// The number of its period.
    pub period: i64,
    /// When its trial ends or ended.
    pub trial_end: Option<i64>,
    /// Whether it ends with its period.
    pub cancel_at_period_end: bool,
    /// When it ended.
    pub ended_at: Option<i64>,
}

/// A paid invoice of a subscription.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bill {
    /// `in_…`.
    pub id: String,
    /// The number of the subscription.
    pub subscription: usize,
    /// The plan of its line.
    pub plan: Plan,
    /// What the line bills: from, to.
    pub period: (i64, i64),
    /// Its total, in cents: 0 for a trial.
    pub cents: i64,
    /// Whether it bills a change within a period.
    pub mid_period: bool,
    /// When it was paid.
    pub at: i64,
}

/// What happens.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(missing_docs, reason = "the variants are named by what they are")]
pub enum Operation {
    Buy { session: String, packs: i64 },
    Grant { request: String, amount: i64, expires_at: Option<i64> },
    Spend { request: String, amount: i64 },
    Reserve { request: String, amount: i64 },
    Commit { request: String, amount: Option<i64> },
    Release { request: String },
    RunOut { request: String },
    Expiry { source: String },
    Refund { source: String, refund: String, cents: i64, failed: bool },
    Count { source: String, cents: i64 },
    Dispute { source: String, dispute: String, cents: i64, money: Money },
    Change { subscription: usize, at: i64, facts: SubscriptionFacts },
    Pay(Bill),
}

/// Credits that were given, whatever became of them.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Grant {
    source: String,
    pool: Pool,
    amount: i64,
    /// To be spent now.
    remaining: i64,
    expired: i64,
    reversed: i64,
    /// When it expires, by itself.
    expires_at: Option<i64>,
    /// It has expired.
    over: bool,
    /// Of a subscription's: which lot it is of.
    lot: Option<usize>,
}

/// Credits that were taken from a grant.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Draw {
    grant: usize,
    amount: i64,
    why: Why,
    time: Moment,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Why {
    /// For good.
    Spent,
    /// By a reservation.
    Held(String),
    /// To settle a debt.
    Settled,
}

/// In which lot's time, and under which of a lesser plan's limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Moment {
    lot: Option<usize>,
    limit: Option<usize>,
}

/// What was paid for one subscription, plan and period end, by however many invoices.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Lot {
    subscription: usize,
    plan: Plan,
    /// From: by its newest invoice. To.
    period: (i64, i64),
    paid_at: i64,
    /// Its invoices' grants.
    grants: Vec<usize>,
}

/// What is known of a payment's money, and what is owed of its credits.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct Payment {
    /// What it costs, once it is known, and what it bought.
    bought: Option<(i64, usize)>,
    refunds: BTreeMap<String, (i64, bool)>,
    counted: i64,
    disputes: BTreeMap<String, (i64, Money)>,
    owed: i64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Request {
    Spent(i64),
    Held { amount: i64 },
    Committed { amount: i64, kept: i64 },
    Ended { amount: i64 },
}

/// One person's books.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Person {
    name: String,
    policies: Policies,
    /// The second in which the person's first subscription can begin.
    starts_at: i64,
    /// The database's time.
    now: i64,
    /// When Stripe spoke last.
    at: i64,
    count: usize,
    bills: usize,
    grants: Vec<Grant>,
    draws: Vec<Draw>,
    payments: BTreeMap<String, Payment>,
    requests: BTreeMap<String, Request>,
    subscriptions: Vec<(SubscriptionFacts, i64)>,
    lots: Vec<Lot>,
    limit: Option<(usize, usize)>,
    limits: usize,
    debt: i64,
}

/// What a person has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Books {
    /// To be spent: by pool, subscription, purchased, promotional.
    pub pools: [i64; 3],
    /// Owed.
    pub debt: i64,
    /// What remains of each grant, by its source, in the order in which they were made.
    pub grants: Vec<(String, i64)>,
    /// The plan, and the status of its subscription.
    pub tier: (String, String),
}

impl Payment {
    /// How many of the granted credits its reversals take back (rule 5).
    fn target(&self, charged: i64, granted: i64) -> i64 {
        let sum = |failed| {
            self.refunds.values().filter(|refund| refund.1 == failed).map(|refund| refund.0).sum::<i64>()
        };
        let refunded = sum(false).max(self.counted - sum(true)).max(0);
        let withdrawn: i64 = self
            .disputes
            .values()
            .filter(|dispute| dispute.1 == Money::Withdrawn)
            .map(|dispute| dispute.0)
            .sum();
        granted * charged.min(refunded + withdrawn) / charged
    }
}

impl Person {
    /// A person without credits. `name` makes the ids that it uses its own; `starts_at` is the second in which the first
    /// subscription can begin, `now` the time by which periods are over.
    #[must_use]
    pub fn new(name: &str, policies: Policies, starts_at: i64, now: i64) -> Person {
        Person {
            name: name.to_owned(),
            policies,
            starts_at,
            now,
            at: starts_at,
            count: 0,
            bills: 0,
            grants: Vec::new(),
            draws: Vec::new(),
            payments: BTreeMap::new(),
            requests: BTreeMap::new(),
            subscriptions: Vec::new(),
            lots: Vec::new(),
            limit: None,
            limits: 0,
            debt: 0,
        }
    }

    /// Goes on with the names that another one has come to.
    pub fn names_like(&mut self, other: &Person) {
        (self.count, self.bills) = (other.count, other.bills);
    }

    /// What there is.
    #[must_use]
    pub fn books(&self) -> Books {
        let pool =
            |pool| self.grants.iter().filter(|grant| grant.pool == pool).map(|grant| grant.remaining).sum();
        let grants = self.grants.iter().map(|grant| (grant.source.clone(), grant.remaining)).collect();
        Books {
            pools: [Pool::Subscription, Pool::Purchased, Pool::Promotional].map(pool),
            debt: self.debt,
            grants,
            tier: (self.tier().0.to_owned(), self.tier().1.to_owned()),
        }
    }

    fn tier(&self) -> (&'static str, &'static str) {
        match self.subscriptions.last() {
            None => ("free", "none"),
            Some((SubscriptionFacts { ended_at: Some(_), .. }, _)) => ("free", "canceled"),
            Some((facts, _)) => (facts.plan.key(), facts.status()),
        }
    }

    /// Carries out an operation. Returns the outcome that the database should answer.
    ///
    /// # Panics
    /// Where the operation is none that [`Person::choose`] chooses.
    pub fn apply(&mut self, operation: &Operation) -> &'static str {
        let outcome = match operation {
            Operation::Buy { session, packs } => self.buy(session, PACK_CREDITS * packs),
            Operation::Grant { request, amount, expires_at } => {
                self.grant(request, Pool::Promotional, *amount, *expires_at, None);
                "applied"
            }
            Operation::Spend { request, amount } => self.take(request, *amount, &Why::Spent),
            Operation::Reserve { request, amount } => {
                self.take(request, *amount, &Why::Held(request.clone()))
            }
            Operation::Commit { request, amount } => self.commit(request, *amount),
            Operation::Release { request } => self.release(request),
            Operation::RunOut { request } => {
                self.end(request, 0);
                "applied"
            }
            Operation::Expiry { source } => {
                let grant = self.grants.iter_mut().find(|grant| grant.source == *source);
                grant.expect("it was granted").over = true;
                "applied"
            }
            Operation::Refund { source, refund, cents, failed } => self.money_moved(source, |payment| {
                payment.refunds.entry(refund.clone()).or_insert((*cents, *failed)).1 |= failed;
            }),
            Operation::Count { source, cents } => {
                self.money_moved(source, |payment| payment.counted = payment.counted.max(*cents))
            }
            Operation::Dispute { source, dispute, cents, money } => self.money_moved(source, |payment| {
                let known = payment.disputes.entry(dispute.clone()).or_insert((*cents, *money));
                known.1 = known.1.max(*money);
            }),
            Operation::Change { subscription, at, facts } => self.merge(*subscription, *at, *facts),
            Operation::Pay(bill) => self.pay(bill),
        };
        self.settle();
        outcome
    }

    /// What follows every operation: lots hold what they are to hold, what is over expires, and what is there repays.
    fn settle(&mut self) {
        if self.policies.cancellation == Cancellation::Expire {
            for lot in &self.lots {
                let ends = self.subscriptions[lot.subscription].0.ends();
                for grant in &lot.grants {
                    self.grants[*grant].over |= ends && lot.period.1 <= self.now;
                }
            }
        }
        self.share_out();
        for grant in self.grants.iter_mut().filter(|grant| grant.over) {
            grant.expired += grant.remaining;
            grant.remaining = 0;
        }
        let repaid = self.debt.min(self.available());
        self.debt -= repaid;
        self.draw(repaid, &Why::Settled);
    }

    fn available(&self) -> i64 {
        self.grants.iter().map(|grant| grant.remaining).sum()
    }

    /// Rule 8: what would be lost soonest, subscription before promotional before purchased, oldest.
    fn draw(&mut self, amount: i64, why: &Why) {
        let rank = |pool| match pool {
            Pool::Subscription => 1,
            Pool::Promotional => 2,
            Pool::Purchased => 3,
        };
        let mut order: Vec<usize> = (0..self.grants.len()).collect();
        order.sort_by_key(|at| (self.priority_at(*at).unwrap_or(i64::MAX), rank(self.grants[*at].pool), *at));
        let time = Moment { lot: self.chain().last().copied(), limit: self.limit.map(|(_, limit)| limit) };
        let mut left = amount;
        for grant in order {
            let part = left.min(self.grants[grant].remaining);
            if part > 0 {
                self.grants[grant].remaining -= part;
                self.draws.push(Draw { grant, amount: part, why: why.clone(), time });
                left -= part;
            }
        }
        assert_eq!(left, 0, "the caller has looked");
    }

    /// When what is left of a grant is lost: its expiry, or the renewal that resets it.
    fn priority_at(&self, grant: usize) -> Option<i64> {
        let Some(lot) = self.grants[grant].lot.map(|lot| &self.lots[lot]) else {
            return self.grants[grant].expires_at;
        };
        let expires = self.policies.cancellation == Cancellation::Expire;
        let expires = expires && self.subscriptions[lot.subscription].0.ends();
        (expires || lot.plan.max_rollover() == 0).then_some(lot.period.1)
    }

    /// What was drawn of a grant and has not come back.
    fn drawn(&self, grant: usize) -> i64 {
        self.draws.iter().filter(|draw| draw.grant == grant).map(|draw| draw.amount).sum()
    }

    /// What is left of a grant, to be spent or kept back.
    fn kept(&self, at: usize) -> i64 {
        let grant = &self.grants[at];
        grant.amount - self.drawn(at) - grant.reversed - grant.expired
    }

    fn grant(
        &mut self,
        source: &str,
        pool: Pool,
        amount: i64,
        expires_at: Option<i64>,
        lot: Option<usize>,
    ) -> usize {
        let source = source.to_owned();
        self.grants.push(Grant {
            source,
            pool,
            amount,
            remaining: amount,
            expired: 0,
            reversed: 0,
            expires_at,
            over: false,
            lot,
        });
        self.grants.len() - 1
    }
}

/// Payments, and money that goes back.
impl Person {
    fn buy(&mut self, session: &str, worth: i64) -> &'static str {
        let known = self.payments.entry(session.to_owned()).or_default().bought;
        let missing = worth - known.map_or(0, |(_, grant)| self.grants[grant].amount);
        if missing > 0 {
            if let Some((_, grant)) = known {
                self.grants[grant].amount += missing;
                self.grants[grant].remaining += missing;
            } else {
                let grant = self.grant(session, Pool::Purchased, missing, None, None);
                self.payment(session).bought = Some((PACK_CENTS, grant));
            }
        }
        let changed = self.reverse(session);
        if changed || missing > 0 { "applied" } else { "already_applied" }
    }

    fn payment(&mut self, source: &str) -> &mut Payment {
        self.payments.entry(source.to_owned()).or_default()
    }

    fn money_moved(&mut self, source: &str, what: impl FnOnce(&mut Payment)) -> &'static str {
        let payment = self.payment(source);
        what(payment);
        if payment.bought.is_none() {
            return "ignored unknown_payment";
        }
        if self.reverse(source) { "applied" } else { "already_applied" }
    }

    /// Rules 5 and 9 for one payment. Returns whether the ledger has a row for it.
    fn reverse(&mut self, source: &str) -> bool {
        let Some(payment) = self.payments.get(source) else { return false };
        let Some((charged, at)) = payment.bought.filter(|(charged, _)| *charged > 0) else { return false };
        let (kept, drawn) = (self.kept(at), self.drawn(at));
        let grant = &mut self.grants[at];
        let target = payment.target(charged, grant.amount);
        // What is gone with an expiry counts as given back, and what was taken of it before can no longer return.
        let (gone, taken, there) = if grant.over {
            (grant.amount - drawn - grant.remaining, 0, grant.remaining)
        } else {
            (grant.expired, grant.reversed, kept)
        };
        let back = target.min(gone + taken + there);
        let more = (back - gone).max(0) - taken;
        // What is kept back goes first, and no row tells of it.
        let of_remaining = more - more.clamp(0, (kept - grant.remaining).max(0));
        grant.remaining -= of_remaining;
        grant.reversed += more;
        let owed = match self.policies.reversal {
            ReversalPolicy::Debt => target - back,
            ReversalPolicy::Forgive => 0,
        };
        let more_owed = owed - payment.owed;
        self.payment(source).owed = owed;
        self.debt += more_owed;
        // A debt below nothing was settled: that comes back to what settled it, and may be reversed itself.
        let overpaid = (-self.debt).max(0);
        self.debt = self.debt.max(0);
        for source in self.unsettle(overpaid) {
            self.reverse(&source);
        }
        of_remaining != 0 || more_owed != 0
    }

    /// Gives back what settled debts, the latest grant first. Answers what these were bought by.
    fn unsettle(&mut self, amount: i64) -> BTreeSet<String> {
        let (mut left, mut touched) = (amount, BTreeSet::new());
        for grant in (0..self.grants.len()).rev() {
            let settled = |draw: &&mut Draw| draw.grant == grant && draw.why == Why::Settled;
            for draw in self.draws.iter_mut().rev().filter(settled) {
                let part = left.min(draw.amount);
                (draw.amount, left) = (draw.amount - part, left - part);
                self.grants[grant].remaining += part;
                if part > 0 {
                    touched.insert(self.grants[grant].source.clone());
                }
            }
        }
        assert_eq!(left, 0, "no more comes back than was settled");
        touched
    }
}

/// Spends and reservations.
impl Person {
    fn take(&mut self, request: &str, amount: i64, why: &Why) -> &'static str {
        let hold = *why != Why::Spent;
        let same = match self.requests.get(request) {
            None => None,
            Some(Request::Spent(before)) => Some(!hold && *before == amount),
            Some(
                Request::Held { amount: before }
                | Request::Committed { amount: before, .. }
                | Request::Ended { amount: before },
            ) => Some(hold && *before == amount),
        };
        match same {
            Some(true) => return "already_applied",
            Some(false) => return "rejected conflict",
            None if amount > self.available() => return "rejected insufficient_credits",
            None => {}
        }
        self.draw(amount, why);
        let made = if hold { Request::Held { amount } } else { Request::Spent(amount) };
        self.requests.insert(request.to_owned(), made);
        "applied"
    }

    /// Whether what a held request took goes back to where it came from and stays there: nothing of it is of a lot that is
    /// not current, or of a payment that is reversed, and nothing is owed.
    #[must_use]
    pub fn returns_whole(&self, request: &str) -> bool {
        let current = self.chain().last().copied();
        let stays = |draw: &Draw| {
            let grant = &self.grants[draw.grant];
            let reversed = self.payments.get(&grant.source).and_then(|payment| {
                let (charged, _) = payment.bought.filter(|(charged, _)| *charged > 0)?;
                Some(payment.target(charged, grant.amount) > 0)
            });
            (grant.lot.is_none() || grant.lot == current) && self.limit.is_none() && reversed != Some(true)
        };
        let mut held = self.draws.iter().filter(|draw| draw.why == Why::Held(request.to_owned()));
        self.debt == 0 && held.all(stays)
    }

    /// Ends a held request with `kept` of it spent: what was drawn last goes back first.
    fn end(&mut self, request: &str, kept: i64) {
        let Some(Request::Held { amount }) = self.requests.get(request) else { panic!("it is held") };
        let amount = *amount;
        let mut back = amount - kept;
        let mut touched = BTreeSet::new();
        for draw in self.draws.iter_mut().rev().filter(|draw| draw.why == Why::Held(request.to_owned())) {
            let part = back.min(draw.amount);
            (draw.amount, back) = (draw.amount - part, back - part);
            let grant = &mut self.grants[draw.grant];
            grant.remaining += part;
            if part > 0 {
                touched.insert(grant.source.clone());
            }
        }
        for source in touched {
            self.reverse(&source);
        }
        let ended = if kept > 0 { Request::Committed { amount, kept } } else { Request::Ended { amount } };
        self.requests.insert(request.to_owned(), ended);
    }

    fn commit(&mut self, request: &str, amount: Option<i64>) -> &'static str {
        match self.requests.get(request) {
            None | Some(Request::Spent(_)) => "rejected unknown_reservation",
            Some(Request::Ended { .. }) => "rejected reservation_ended",
            Some(Request::Committed { amount: all, kept }) if amount.unwrap_or(*all) == *kept => {
                "already_applied"
            }
            Some(Request::Committed { .. }) => "rejected conflict",
            Some(Request::Held { amount: all }) if amount.unwrap_or(*all) > *all => {
                "rejected exceeds_reservation"
            }
            Some(Request::Held { amount: all }) => {
                let kept = amount.unwrap_or(*all);
                self.end(request, kept);
                "applied"
            }
        }
    }

    fn release(&mut self, request: &str) -> &'static str {
        match self.requests.get(request) {
            None | Some(Request::Spent(_)) => "rejected unknown_reservation",
            Some(Request::Ended { .. }) => "already_applied",
            Some(Request::Committed { .. }) => "rejected conflict",
            Some(Request::Held { .. }) => {
                self.end(request, 0);
                "applied"
            }
        }
    }
}

impl SubscriptionFacts {
    fn ends(&self) -> bool {
        self.cancel_at_period_end || self.ended_at.is_some()
    }

    /// Stripe's status of it.
    #[must_use]
    pub fn status(&self) -> &'static str {
        match (self.ended_at, self.trial_end) {
            (Some(_), _) => "canceled",
            (None, Some(_)) => "trialing",
            (None, None) => "active",
        }
    }
}

/// Subscriptions (rule 7). Their states come in order here.
impl Person {
    fn merge(&mut self, subscription: usize, at: i64, facts: SubscriptionFacts) -> &'static str {
        self.at = self.at.max(at);
        match self.subscriptions.get_mut(subscription) {
            None => self.subscriptions.push((facts, at)),
            Some((known, as_of)) => {
                *as_of = at;
                if *known == facts {
                    return "already_applied";
                }
                *known = facts;
            }
        }
        "applied"
    }

    fn pay(&mut self, bill: &Bill) -> &'static str {
        self.at = self.at.max(bill.at);
        let trial = bill.cents == 0;
        let worth = if trial { TRIAL_CREDITS } else { bill.plan.credits() };
        let same = |lot: &Lot| {
            (lot.subscription, lot.plan, lot.period.1) == (bill.subscription, bill.plan, bill.period.1)
        };
        let lot = self.lots.iter().position(same).unwrap_or(self.lots.len());
        let grant = self.grant(&bill.id, Pool::Subscription, worth, None, Some(lot));
        match self.lots.get_mut(lot) {
            Some(lot) => {
                lot.period.0 = lot.period.0.max(bill.period.0);
                lot.paid_at = lot.paid_at.max(bill.at);
                lot.grants.push(grant);
            }
            None => self.lots.push(Lot {
                subscription: bill.subscription,
                plan: bill.plan,
                period: bill.period,
                paid_at: bill.at,
                grants: vec![grant],
            }),
        }
        self.payment(&bill.id).bought = Some((bill.cents, grant));
        self.reverse(&bill.id);
        "applied"
    }

    /// The lots in their order: each takes over from the one before it.
    fn chain(&self) -> Vec<usize> {
        let mut chain: Vec<usize> = (0..self.lots.len()).collect();
        chain.sort_by_key(|at| {
            let lot = &self.lots[*at];
            (lot.subscription, lot.period.1, lot.period.0, lot.plan.price_id())
        });
        chain
    }

    /// The most that the current lot may hold, where its subscription has come to a lesser plan since it was paid for.
    fn lesser(&self, current: usize) -> Option<i64> {
        let lot = &self.lots[current];
        let (facts, as_of) = &self.subscriptions[lot.subscription];
        let amount = lot.grants.iter().map(|grant| self.grants[*grant].amount).max()?;
        let limit = facts.plan.credits();
        let at_once = self.policies.plan_change == PlanChange::Reset;
        (at_once && *as_of > lot.paid_at && limit < amount).then_some(limit)
    }

    /// What a lot is worth by the best of its invoices: without what was taken back of that, or was drawn and is owed, and
    /// of one that is over, only what was drawn. What is owed does not count as drawn: it is repaid.
    fn stands(&self, lot: &Lot) -> i64 {
        let owed = |grant: usize| self.payments[&self.grants[grant].source].owed;
        let stands = |&at: &usize| {
            let grant = &self.grants[at];
            let worth = if grant.over { self.drawn(at) } else { grant.amount - grant.reversed };
            worth - owed(at)
        };
        let best = lot.grants.iter().map(stands).max().unwrap_or(0);
        best.max(0) + lot.grants.iter().map(|grant| owed(*grant)).sum::<i64>()
    }

    /// What all lots together have to be spent: one after the other, what the one before leaves, as far as it rolls over, and
    /// what the lot itself stands for, without what was drawn in its time.
    fn to_spend(&self, chain: &[usize], lesser: Option<i64>) -> i64 {
        let limit = self.limit.map(|(_, limit)| limit);
        let in_time = |lot: usize, counts: &dyn Fn(Option<usize>) -> bool| -> i64 {
            let from_lots = |draw: &&Draw| self.grants[draw.grant].lot.is_some();
            let counted = |draw: &&Draw| draw.time.lot == Some(lot) && counts(draw.time.limit);
            self.draws.iter().filter(from_lots).filter(counted).map(|draw| draw.amount).sum()
        };
        let mut has = 0;
        for (n, &at) in chain.iter().enumerate() {
            let lot = &self.lots[at];
            let stays = if n == 0 { 0 } else { has.min(lot.plan.max_rollover()) };
            has = stays + self.stands(lot);
            has = match lesser.filter(|_| n + 1 == chain.len()) {
                None => has - in_time(at, &|_| true),
                Some(lesser) => {
                    let before = has - in_time(at, &|drawn_under| drawn_under != limit);
                    before.min(lesser) - in_time(at, &|drawn_under| drawn_under == limit)
                }
            };
        }
        has.max(0)
    }

    /// Shares what there is out among the lots' grants, the newest first.
    fn share_out(&mut self) {
        let chain = self.chain();
        let Some(current) = chain.last().copied() else { return };
        let lesser = self.lesser(current);
        self.limit = match (lesser, self.limit) {
            (None, _) => None,
            (Some(_), Some((lot, limit))) if lot == current => Some((lot, limit)),
            (Some(_), _) => {
                self.limits += 1;
                Some((current, self.limits))
            }
        };
        let mut left = self.to_spend(&chain, lesser);
        for lot in chain.into_iter().rev() {
            for at in self.lots[lot].grants.clone().into_iter().rev() {
                if !self.grants[at].over {
                    let remaining = left.min(self.kept(at));
                    self.grants[at].remaining = remaining;
                    left -= remaining;
                }
            }
        }
    }
}
