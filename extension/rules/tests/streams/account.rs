//! An account in memory, as a ledger keeps one: facts become known, credits are drawn, debt is settled.

use stripe_credits_rules::amount::Credits;
use stripe_credits_rules::calendar::{Time, TimeDelta};
use stripe_credits_rules::lot::Pool;
use stripe_credits_rules::streams::debt::{draw_order, owed, settle};
use stripe_credits_rules::streams::facts::{Draw, Facts, GrantKey, Purpose};
use stripe_credits_rules::streams::{Holdings, State, holdings};

/// Facts, and what was drawn so far.
#[derive(Debug, Clone)]
pub(crate) struct Account {
    pub(crate) facts: Facts,
    pub(crate) draws: Vec<Draw>,
    settled: Vec<(GrantKey, Credits)>,
    /// The own time of the latest fact.
    newest: Time,
    now: Time,
}

/// What an account shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Balances {
    pub(crate) subscription: i64,
    pub(crate) purchased: i64,
    pub(crate) promotional: i64,
    pub(crate) debt: i64,
}

impl Balances {
    pub(crate) fn balance(self) -> i64 {
        self.subscription + self.purchased + self.promotional
    }

    pub(crate) fn total(self) -> i64 {
        self.balance() - self.debt
    }
}

impl Account {
    pub(crate) fn new(now: Time) -> Account {
        Account {
            facts: Facts::default(),
            draws: Vec::new(),
            settled: Vec::new(),
            newest: Time::MIN_UTC,
            now,
        }
    }

    /// When what becomes known now becomes known: after the last row.
    pub(crate) fn known_at(&self) -> Time {
        self.draws.last().map_or(Time::UNIX_EPOCH, |draw| draw.recorded_at)
    }

    pub(crate) fn now(&self) -> Time {
        self.now
    }

    pub(crate) fn holdings(&self) -> Holdings {
        holdings(&self.facts, &self.draws, self.now).expect("numbers that can be held")
    }

    /// Lets time pass, and settles debt each time that something comes or goes.
    pub(crate) fn pass_to(&mut self, to: Time) {
        while let Some(next) = self.holdings().next_change.filter(|next| *next <= to) {
            assert!(next > self.now, "time goes on");
            self.now = next;
            self.settle(next);
        }
        self.now = to;
    }

    /// Makes the facts what they are known to be now: what became known is of a time.
    pub(crate) fn learn(&mut self, facts: Facts, as_of: Time) {
        self.facts = facts;
        self.newest = self.newest.max(as_of.min(self.now));
        self.settle(as_of.min(self.now));
    }

    /// Settles what is owed, or gives back what is not any more, as of a time.
    pub(crate) fn settle(&mut self, as_of: Time) {
        for (grant, credits) in settle(&self.holdings().targets, &self.settled) {
            let as_of = if credits < Credits::ZERO { as_of } else { self.newest };
            self.draw_as_of(as_of, grant.clone(), credits, Purpose::Settlement);
            self.settled.push((grant, credits));
        }
    }

    /// Spends; `false` if there is less.
    pub(crate) fn spend(&mut self, amount: i64) -> bool {
        let holdings = self.holdings();
        let in_order = draw_order(&holdings.targets);
        if in_order.iter().map(|target| target.remaining.0).sum::<i64>() < amount {
            return false;
        }
        let mut left = amount;
        for target in in_order {
            let credits = target.remaining.0.min(left);
            if credits > 0 {
                self.draw(target.key.clone(), Credits(credits), Purpose::Spend);
                left -= credits;
            }
        }
        true
    }

    /// Draws from a grant, or gives back to it.
    pub(crate) fn draw(&mut self, grant: GrantKey, credits: Credits, purpose: Purpose) {
        self.draw_as_of(self.now, grant, credits, purpose);
    }

    fn draw_as_of(&mut self, as_of: Time, grant: GrantKey, credits: Credits, purpose: Purpose) {
        let recorded_at = self.known_at() + TimeDelta::microseconds(1);
        self.draws.push(Draw { grant, recorded_at, at: self.now, as_of, credits, purpose });
    }

    pub(crate) fn balances(&self) -> Balances {
        let holdings = self.holdings();
        let pool = |pool: Pool| -> i64 {
            let own = holdings.targets.iter().filter(|t| t.pool == pool && t.state == State::Open);
            own.map(|target| target.remaining.0).sum()
        };
        let settled: i64 = self.settled.iter().map(|(_, credits)| credits.0).sum();
        for target in &holdings.targets {
            let drawn = target.drawn.0 + target.moved.0;
            let accounted = drawn + target.set_aside.0 + target.expired.0 + target.remaining.0;
            assert_eq!(accounted, target.worth.0.max(drawn), "{target:?}");
        }
        Balances {
            subscription: pool(Pool::Subscription),
            purchased: pool(Pool::Purchased),
            promotional: pool(Pool::Promotional),
            debt: (owed(&holdings.targets).0 - settled).max(0),
        }
    }
}
