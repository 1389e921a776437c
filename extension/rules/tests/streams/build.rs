//! Histories in a few words: invoices, states and spends of one user, by the day.

use stripe_credits_rules::amount::{Credits, MinorUnits};
use stripe_credits_rules::calendar::{Span, Time, from_unix};
use stripe_credits_rules::catalog::{PriceKind, ReversalPolicy};
use stripe_credits_rules::lot::Pool;
use stripe_credits_rules::streams::facts::{
    CameBack, GrantKey, ItemContent, ItemState, Line, Payment, Period, Purpose, Single, SubscriptionState,
    Terms,
};
use stripe_credits_rules::streams::{Target, facts::Facts};

use crate::account::{Account, Balances};

/// 2026-01-01, in Unix seconds.
pub(crate) const BEGINNING: i64 = 1_767_225_600;

/// So many days after the beginning, and a part of a day.
pub(crate) fn day(days: f64) -> Time {
    #[expect(clippy::cast_possible_truncation, reason = "a few days")]
    let seconds = (days * 86_400.0).round() as i64;
    from_unix(BEGINNING + seconds).expect("a time")
}

pub(crate) fn days(from: f64, to: f64) -> Period {
    Period { start: day(from), end: day(to) }
}

/// A date, as in `2026-02-28`.
pub(crate) fn date(text: &str) -> Time {
    let at = format!("{text}T00:00:00Z");
    at.parse().unwrap_or_else(|_| panic!("{text} is a date"))
}

pub(crate) fn dates(from: &str, to: &str) -> Period {
    Period { start: date(from), end: date(to) }
}

/// A price: its id, what it is worth, cents of one unit.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Price {
    pub(crate) id: &'static str,
    pub(crate) terms: Terms,
    pub(crate) cents: i64,
}

const PLAN: Terms = Terms {
    kind: PriceKind::Plan,
    credits: Credits(10_000),
    every: Span::Months(1),
    drip: None,
    max_rollover: Credits::ZERO,
    keeps_on_change: false,
    expires_when_canceled: false,
    trial_credits: Credits::ZERO,
    first_purchase_bonus: Credits::ZERO,
    expires_after: None,
};

const fn plan(id: &'static str, credits: i64) -> Price {
    Price { id, terms: Terms { credits: Credits(credits), ..PLAN }, cents: credits }
}

pub(crate) const PRO: Price = plan("price_pro", 10_000);
pub(crate) const MAX: Price = plan("price_max", 30_000);
pub(crate) const SEAT: Price = plan("price_seat", 1_000);
pub(crate) const ROLL: Price = Price {
    terms: Terms { max_rollover: Credits(500), credits: Credits(1_000), ..PLAN },
    ..plan("price_roll", 1_000)
};
/// A quarter that comes in three months.
pub(crate) const QUARTER_IN_PARTS: Price = Price {
    terms: Terms { every: Span::Months(3), drip: Some(Span::Months(1)), ..PLAN },
    ..plan("price_quarter_in_parts", 30_000)
};
/// A year that comes in twelve months of 10,000.
pub(crate) const YEAR: Price = Price {
    terms: Terms { every: Span::Months(12), drip: Some(Span::Months(1)), ..PLAN },
    ..plan("price_pro_year", 120_000)
};
pub(crate) const PACK: Price = Price {
    id: "price_pack",
    terms: Terms { kind: PriceKind::Pack, credits: Credits(500), ..PLAN },
    cents: 500,
};

impl Price {
    pub(crate) fn keeping(mut self) -> Price {
        self.terms.keeps_on_change = true;
        self
    }

    pub(crate) fn expiring(mut self) -> Price {
        self.terms.expires_when_canceled = true;
        self
    }

    pub(crate) fn with(mut self, change: impl Fn(&mut Terms)) -> Price {
        change(&mut self.terms);
        self
    }
}

/// A paid invoice of `sub_1` until it says otherwise.
#[derive(Debug, Clone)]
pub(crate) struct Invoice {
    pub(crate) payment: Payment,
    pub(crate) lines: Vec<Line>,
}

pub(crate) fn invoice(id: &str, paid: f64) -> Invoice {
    let payment = Payment {
        id: id.to_owned(),
        paid_at: day(paid),
        came_back: CameBack::NOTHING,
        credited: MinorUnits(0),
        charged: MinorUnits(0),
        direct: false,
        known_at: Time::default(),
    };
    Invoice { payment, lines: Vec::new() }
}

impl Invoice {
    fn add(mut self, item: &str, price: Price, quantity: i64, period: Period, amount: i64) -> Invoice {
        self.lines.push(Line {
            payment: self.payment.id.clone(),
            subscription: Some("sub_1".into()),
            item: Some(item.to_owned()),
            price: price.id.to_owned(),
            terms: price.terms,
            quantity,
            amount: MinorUnits(amount),
            discount: MinorUnits(0),
            is_discounted: false,
            period,
            is_proration: false,
            names_credited: false,
            interval: None,
        });
        self
    }

    /// A whole line.
    pub(crate) fn whole(self, item: &str, price: Price, quantity: i64, period: Period) -> Invoice {
        self.add(item, price, quantity, period, price.cents * quantity)
    }

    /// A prorated charge.
    pub(crate) fn charge(self, item: &str, price: Price, quantity: i64, period: Period) -> Invoice {
        let cents = prorated(price, quantity, period);
        self.add(item, price, quantity, period, cents).last(|line| line.is_proration = true)
    }

    /// A prorated credit.
    pub(crate) fn credit(self, item: &str, price: Price, quantity: i64, period: Period) -> Invoice {
        let cents = -prorated(price, quantity, period);
        self.add(item, price, quantity, period, cents).last(|line| line.is_proration = true)
    }

    /// Changes the last line.
    pub(crate) fn last(mut self, change: impl Fn(&mut Line)) -> Invoice {
        change(self.lines.last_mut().expect("a line"));
        self
    }

    /// A discount brings all of its lines to 0: a proration's amount is 0 then, a whole line says the discount.
    pub(crate) fn free(mut self) -> Invoice {
        for line in &mut self.lines {
            line.is_discounted = true;
            if line.is_proration {
                line.names_credited = line.amount.0 < 0;
                line.amount = MinorUnits(0);
            } else {
                line.discount = line.amount;
            }
        }
        self
    }

    pub(crate) fn of(mut self, subscription: &str) -> Invoice {
        for line in &mut self.lines {
            line.subscription = Some(subscription.to_owned());
        }
        self
    }

    pub(crate) fn direct(mut self) -> Invoice {
        self.payment.direct = true;
        for line in &mut self.lines {
            line.item = None;
        }
        self
    }

    fn total(&self) -> i64 {
        self.lines.iter().map(|line| line.amount.0 - line.discount.0).sum()
    }

    /// A part of its total came back.
    pub(crate) fn came_back(&mut self, cents: i64, policy: ReversalPolicy) {
        let of = MinorUnits(self.total());
        self.payment.came_back = CameBack { amount: MinorUnits(cents), of, policy };
        let is_credit = |line: &&Line| line.amount.0 < 0;
        let credited: i64 = self.lines.iter().filter(is_credit).map(|line| -line.amount.0).sum();
        (self.payment.credited, self.payment.charged) = (MinorUnits(credited), MinorUnits(of.0 + credited));
    }
}

/// Cents of a part of a month of 30 days, or of a longer interval in proportion.
fn prorated(price: Price, quantity: i64, period: Period) -> i64 {
    let months = match price.terms.every {
        Span::Months(months) => i64::from(months),
        Span::Days(_) => 1,
    };
    let seconds = (period.end - period.start).num_seconds();
    price.cents * quantity * seconds / (months * 30 * 86_400)
}

/// One user's history.
#[derive(Debug, Clone)]
pub(crate) struct History {
    pub(crate) account: Account,
    pub(crate) invoices: Vec<Invoice>,
    facts: Facts,
}

impl History {
    pub(crate) fn new() -> History {
        History { account: Account::new(day(0.0)), invoices: Vec::new(), facts: Facts::default() }
    }

    fn learn(&mut self, as_of: Time) {
        let mut facts = self.facts.clone();
        for invoice in &self.invoices {
            facts.payments.push(invoice.payment.clone());
            facts.lines.extend(invoice.lines.iter().cloned());
        }
        self.account.learn(facts, as_of);
    }

    /// Changes facts beside the invoices.
    pub(crate) fn know(&mut self, change: impl FnOnce(&mut Facts)) {
        change(&mut self.facts);
        self.learn(self.account.now());
    }

    /// Time goes on to a day.
    pub(crate) fn pass(&mut self, to: f64) {
        self.account.pass_to(day(to));
    }

    pub(crate) fn pass_to(&mut self, to: Time) {
        self.account.pass_to(to);
    }

    /// An invoice becomes known, not before it was paid.
    pub(crate) fn pay(&mut self, mut invoice: Invoice) {
        if self.account.now() < invoice.payment.paid_at {
            self.account.pass_to(invoice.payment.paid_at);
        }
        invoice.payment.known_at = self.account.known_at();
        let paid_at = invoice.payment.paid_at;
        self.invoices.push(invoice);
        self.learn(paid_at);
    }

    /// So many cents of an invoice have come back by now.
    pub(crate) fn refund(&mut self, id: &str, cents: i64, policy: ReversalPolicy) {
        let invoice = self.invoices.iter_mut().find(|invoice| invoice.payment.id == id).expect("paid");
        invoice.came_back(cents, policy);
        self.learn(self.account.now());
    }

    /// `sub_1` becomes what it is as of a day: its items, each with its price and quantity.
    pub(crate) fn state(&mut self, as_of: f64, items: &[(&str, Price, i64)]) {
        self.state_of("sub_1", as_of, items, |_| {});
    }

    pub(crate) fn state_of(
        &mut self,
        subscription: &str,
        as_of: f64,
        items: &[(&str, Price, i64)],
        change: impl FnOnce(&mut SubscriptionState),
    ) {
        let (as_of, known_at) = (day(as_of), self.account.known_at());
        if self.account.now() < as_of {
            self.account.pass_to(as_of);
        }
        let listed_before: Vec<String> = self
            .facts
            .items
            .iter()
            .filter(|state| state.subscription == subscription)
            .map(|state| state.item.clone())
            .collect();
        let gone = listed_before.iter().filter(|item| !items.iter().any(|(listed, ..)| listed == item));
        let mut contents: Vec<(String, ItemContent)> =
            gone.map(|item| (item.clone(), ItemContent::Removed)).collect();
        for (item, price, quantity) in items {
            let (price, terms) = (price.id.to_owned(), Some(price.terms));
            let content = ItemContent::Listed { price, terms, quantity: *quantity, interval: None };
            contents.push(((*item).to_owned(), content));
        }
        let subscription_id = subscription.to_owned();
        self.facts.items.extend(contents.into_iter().map(|(item, content)| ItemState {
            subscription: subscription_id.clone(),
            item,
            as_of,
            content,
            known_at,
        }));
        let before = self.facts.subscriptions.iter().position(|state| state.id == subscription);
        let listed_since = before.and_then(|at| self.facts.subscriptions.remove(at).listed_since);
        let mut state = SubscriptionState {
            id: subscription.to_owned(),
            as_of,
            listed_since: listed_since.or(Some(as_of)),
            is_over: false,
            ended_at: None,
            ends_at: None,
            first_period_start: None,
            known_at,
        };
        change(&mut state);
        self.facts.subscriptions.push(state);
        self.learn(as_of);
    }

    /// A pack by a session.
    pub(crate) fn buy(&mut self, id: &str, credits: i64) {
        let at = self.account.now();
        let (source_id, item, pool) = (id.to_owned(), "price_pack".to_owned(), Pool::Purchased);
        let came_back = CameBack::NOTHING;
        let credits = Credits(credits);
        self.know(|facts| {
            facts.singles.push(Single { source_id, item, pool, credits, at, expires_at: None, came_back });
        });
    }

    pub(crate) fn spend(&mut self, credits: i64) {
        assert!(self.account.spend(credits), "{credits} can be spent");
    }

    /// Gives back what was drawn last.
    pub(crate) fn give_back(&mut self, credits: i64) {
        let last = self.account.draws.last().expect("something was drawn").grant.clone();
        self.account.draw(last, Credits(-credits), Purpose::Spend);
        self.account.settle(self.account.now());
    }

    pub(crate) fn balances(&self) -> Balances {
        self.account.balances()
    }

    /// What can be spent, and what is owed.
    pub(crate) fn stands(&self) -> (i64, i64) {
        let balances = self.balances();
        (balances.balance(), balances.debt)
    }

    pub(crate) fn targets(&self) -> Vec<Target> {
        self.account.holdings().targets
    }

    /// The grants of a period of an item, the first part first.
    pub(crate) fn of_period(&self, item: &str, of: Period) -> Vec<Target> {
        let own = |target: &Target| match &target.key {
            GrantKey::Period { stream, period, .. } => stream.item.as_deref() == Some(item) && *period == of,
            _ => false,
        };
        self.targets().into_iter().filter(own).collect()
    }

    /// What the grants of a period are worth, in order.
    pub(crate) fn worth(&self, item: &str, of: Period) -> Vec<i64> {
        self.of_period(item, of).iter().map(|target| target.worth.0).collect()
    }
}
