//! Which operation comes next: anything that can, by a number.

use super::{
    Bill, Money, Operation, PACK_CENTS, PERIOD, Payment, Person, Plan, Request, SubscriptionFacts,
    TRIAL_CREDITS,
};
use crate::catalog::Cancellation;

/// When the n-th day begins by the end of which gifts lapse: after every past period, before every future one.
const GIFTS_LAPSE: i64 = 1_900_000_000;

/// Choices that all come from one number (splitmix64).
struct Dice(u64);

impl Dice {
    fn below(&mut self, length: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^= mixed >> 31;
        usize::try_from(mixed % length as u64).expect("below a usize")
    }

    fn once_in(&mut self, times: usize) -> bool {
        self.below(times) == 0
    }

    fn between(&mut self, least: i64, most: i64) -> i64 {
        least
            + i64::try_from(self.below(usize::try_from(most - least + 1).expect("positive"))).expect("small")
    }

    fn one_of<T: Clone>(&mut self, these: &[T]) -> Option<T> {
        (!these.is_empty()).then(|| these[self.below(these.len())].clone())
    }
}

/// What operations a choice is from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Among {
    /// All of them.
    Everything,
    /// Those that may come at once with each other: no two of Stripe's words of a subscription, nothing of time.
    AtOnce,
}

impl Person {
    /// The operation that a number stands for now; `None` where there is nothing for it.
    #[must_use]
    pub fn choose(&mut self, number: u64, among: Among) -> Option<Operation> {
        let mut dice = Dice(number);
        let dice = &mut dice;
        let kinds = match among {
            Among::Everything => 31,
            Among::AtOnce => 22,
        };
        match dice.below(kinds) {
            0..=1 => Some(self.purchase(dice)),
            2 => Some(self.gift(dice)),
            3..=6 => Some(self.spend(dice)),
            7..=9 => Some(self.reservation(dice)),
            10..=11 => self.committed(dice),
            12 => self.released(dice),
            13 => Some(self.committed_anything(dice)),
            14..=17 => Some(self.refund(dice)),
            18..=19 => Some(self.dispute(dice)),
            20..=21 => Some(self.count(dice)),
            22..=23 => self.held(dice).map(|request| Operation::RunOut { request }),
            24 => self.lapse(dice),
            25..=27 => Some(self.change(dice)),
            _ => self.bill(dice).map(Operation::Pay),
        }
    }

    /// Something new of a subscription.
    #[must_use]
    pub fn choose_of_subscription(&mut self, number: u64) -> Option<Operation> {
        let mut dice = Dice(number);
        if dice.once_in(2) { Some(self.change(&mut dice)) } else { self.bill(&mut dice).map(Operation::Pay) }
    }

    fn fresh(&mut self, prefix: &str) -> String {
        self.count += 1;
        format!("{prefix}_{}{:05}", self.name, self.count)
    }

    /// A pack's session, mostly one that was seen before.
    fn session(&mut self, dice: &mut Dice) -> String {
        let known: Vec<String> =
            self.payments.keys().filter(|source| source.starts_with("cs_")).cloned().collect();
        match dice.one_of(&known) {
            Some(session) if !dice.once_in(6) => session,
            _ => self.fresh("cs"),
        }
    }

    /// Anything that was paid, or will be.
    fn payment_of(&mut self, dice: &mut Dice) -> String {
        // Of what cost nothing, nothing can go back.
        let cost = |payment: &Payment| payment.bought.is_none_or(|(cents, _)| cents > 0);
        let paid = self.payments.iter().filter(|(_, payment)| cost(payment));
        let paid: Vec<String> = paid.map(|(source, _)| source.clone()).collect();
        match dice.one_of(&paid) {
            Some(source) if !dice.once_in(8) => source,
            _ if dice.once_in(2) => self.next_bill(),
            _ => self.fresh("cs"),
        }
    }

    fn next_bill(&self) -> String {
        format!("in_{}b{:04}", self.name, self.bills + 1)
    }

    fn charged(&self, source: &str) -> i64 {
        let bought = self.payments.get(source).and_then(|payment| payment.bought);
        bought.map_or(PACK_CENTS, |(cents, _)| cents).max(1)
    }

    fn purchase(&mut self, dice: &mut Dice) -> Operation {
        let session = self.session(dice);
        let over = self.payments.get(&session).and_then(|payment| payment.bought);
        // Of a grant that lapsed, no more is bought than before: more evidence would come with another lapse than it has now.
        let over = over.is_some_and(|(_, grant)| self.grants[grant].over);
        Operation::Buy { session, packs: if over { 1 } else { dice.between(1, 3) } }
    }

    fn gift(&mut self, dice: &mut Dice) -> Operation {
        let lapses_at = dice.once_in(2).then(|| GIFTS_LAPSE + PERIOD * dice.between(1, 20));
        Operation::Grant { request: self.fresh("gift"), amount: dice.between(1, 300), lapses_at }
    }

    /// A request's id, mostly a new one.
    fn request(&mut self, dice: &mut Dice) -> String {
        let known: Vec<String> = self.requests.keys().cloned().collect();
        match dice.one_of(&known) {
            Some(request) if dice.once_in(8) => request,
            _ => self.fresh("job"),
        }
    }

    fn amount(&self, dice: &mut Dice, request: &str) -> i64 {
        match self.requests.get(request) {
            Some(
                Request::Spent(amount)
                | Request::Held { amount }
                | Request::Committed { amount, .. }
                | Request::Ended { amount },
            ) if dice.once_in(2) => *amount,
            // Half of the time so much that it matters to a plan's lots.
            _ if dice.once_in(2) => dice.between(1, 400),
            _ => dice.between(1, (self.available() / 2).max(400)),
        }
    }

    fn spend(&mut self, dice: &mut Dice) -> Operation {
        let request = self.request(dice);
        let amount = self.amount(dice, &request);
        Operation::Spend { request, amount }
    }

    fn reservation(&mut self, dice: &mut Dice) -> Operation {
        let request = self.request(dice);
        let amount = self.amount(dice, &request);
        Operation::Reserve { request, amount }
    }

    fn held(&mut self, dice: &mut Dice) -> Option<String> {
        let held = self.requests.iter().filter(|(_, request)| matches!(request, Request::Held { .. }));
        let held: Vec<String> = held.map(|(id, _)| id.clone()).collect();
        dice.one_of(&held)
    }

    fn committed(&mut self, dice: &mut Dice) -> Option<Operation> {
        let request = self.held(dice)?;
        let amount = (!dice.once_in(3)).then(|| dice.between(1, 200));
        Some(Operation::Commit { request, amount })
    }

    fn committed_anything(&mut self, dice: &mut Dice) -> Operation {
        Operation::Commit { request: self.request(dice), amount: Some(1) }
    }

    fn released(&mut self, dice: &mut Dice) -> Option<Operation> {
        let request = if dice.once_in(4) { self.request(dice) } else { self.held(dice)? };
        Some(Operation::Release { request })
    }

    fn lapse(&mut self, dice: &mut Dice) -> Option<Operation> {
        let live = self.grants.iter().filter(|grant| grant.lot.is_none() && !grant.over);
        let live: Vec<String> = live.map(|grant| grant.source.clone()).collect();
        dice.one_of(&live).map(|source| Operation::Lapse { source })
    }

    fn refund(&mut self, dice: &mut Dice) -> Operation {
        let source = self.payment_of(dice);
        let known: Vec<(String, i64)> = self.payments.get(&source).map_or_else(Vec::new, |payment| {
            payment.refunds.iter().map(|(id, refund)| (id.clone(), refund.0)).collect()
        });
        let charged = self.charged(&source);
        match dice.one_of(&known) {
            Some((refund, cents)) if !dice.once_in(3) => {
                Operation::Refund { source, refund, cents, failed: dice.once_in(2) }
            }
            _ => {
                let cents = if dice.once_in(3) { charged } else { dice.between(1, charged) };
                Operation::Refund { source, refund: self.fresh("re"), cents, failed: dice.once_in(8) }
            }
        }
    }

    fn count(&mut self, dice: &mut Dice) -> Operation {
        let source = self.payment_of(dice);
        let cents = dice.between(0, self.charged(&source));
        Operation::Count { source, cents }
    }

    fn dispute(&mut self, dice: &mut Dice) -> Operation {
        let source = self.payment_of(dice);
        let known = self
            .payments
            .get(&source)
            .and_then(|payment| payment.disputes.iter().next().map(|(id, dispute)| (id.clone(), dispute.0)));
        let charged = self.charged(&source);
        let (dispute, cents) = known.unwrap_or_else(|| (self.fresh("dp"), dice.between(1, charged)));
        let money = [Money::Untouched, Money::Withdrawn, Money::Reinstated][dice.below(3)];
        Operation::Dispute { source, dispute, cents, money }
    }

    /// The next state of the person's subscription, or of a new one.
    fn change(&mut self, dice: &mut Dice) -> Operation {
        let at = self.at + dice.between(1, 60);
        let plan = [Plan::Roll, Plan::Pro, Plan::Max][dice.below(3)];
        let subscription = self.subscriptions.len().saturating_sub(1);
        let known =
            self.subscriptions.last().map(|(facts, _)| *facts).filter(|facts| facts.ended_at.is_none());
        let Some(known) = known else { return self.begin(dice, plan) };
        // A past period that is over would lapse at once: only its end may make it so, because that is final.
        let is_past = self.starts_at < self.now;
        let may_expire = is_past && self.policies.cancellation == Cancellation::Expire;
        let facts = match dice.below(8) {
            0 => SubscriptionFacts { ended_at: Some(at), trial_end: None, ..known },
            1 if !may_expire => {
                SubscriptionFacts { cancel_at_period_end: !known.cancel_at_period_end, ..known }
            }
            2 => known,
            3 => SubscriptionFacts { trial_end: None, ..known },
            _ => SubscriptionFacts { plan, ..known },
        };
        Operation::Change { subscription, at, facts }
    }

    /// A new subscription, in the period after everything that was.
    fn begin(&mut self, dice: &mut Dice, plan: Plan) -> Operation {
        let period = (self.at - self.starts_at) / PERIOD + 1;
        let at = self.starts_at + PERIOD * period;
        // One trial a person, or the second would be worth nothing.
        let had_one = self.grants.iter().any(|grant| grant.lot.is_some() && grant.amount == TRIAL_CREDITS);
        let trial_end = (!had_one && dice.once_in(3)).then_some(at + PERIOD);
        let facts =
            SubscriptionFacts { plan, period, trial_end, cancel_at_period_end: false, ended_at: None };
        Operation::Change { subscription: self.subscriptions.len(), at, facts }
    }

    /// What is paid next of a subscription: its period, its next one, or a change within it.
    fn bill(&mut self, dice: &mut Dice) -> Option<Bill> {
        let (facts, _) = self.subscriptions.last()?;
        if facts.ended_at.is_some() {
            return None;
        }
        let subscription = self.subscriptions.len() - 1;
        let lots = self.lots.iter().filter(|lot| lot.subscription == subscription);
        let last_end = lots.map(|lot| lot.period.1).max();
        let begins = self.starts_at + PERIOD * facts.period;
        let paid_to = last_end.unwrap_or(begins);
        let mid_period = last_end.is_some() && dice.once_in(2);
        let (plan, trial_end) = (facts.plan, facts.trial_end);
        let plan = if dice.once_in(4) { [Plan::Roll, Plan::Pro, Plan::Max][dice.below(3)] } else { plan };
        let (period, at) = if mid_period {
            let at = self.at + dice.between(1, 60);
            // In the period that is paid for already.
            let start = at.clamp(paid_to - PERIOD, paid_to - 1);
            ((start, paid_to), at)
        } else {
            ((paid_to, paid_to + PERIOD), self.at.max(paid_to) + dice.between(1, 60))
        };
        let id = self.next_bill();
        self.bills += 1;
        let reversed = self.payments.contains_key(&id);
        let trial = trial_end.is_some_and(|end| period.1 <= end) && !mid_period && !reversed;
        let cents = if trial { 0 } else { dice.between(1, 30) * 1000 };
        Some(Bill { id, subscription, plan, period, cents, mid_period, at })
    }
}
