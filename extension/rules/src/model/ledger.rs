//! What was drawn from which grant, and what is left of each.

use std::collections::{BTreeMap, BTreeSet};

use super::closings::{self, Closing};
use super::facts::Facts;
use super::grants::{Grant, Key, Pool};
use super::view::View;

/// Why credits were drawn.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Cause {
    /// A spend or a reservation, by its request id.
    Request(String),
    /// A debt.
    Settlement,
}

/// "A spend is attributed once, at its time, to what could be spent then, and stays there (unless refunded)."
#[derive(Debug, Clone)]
pub(super) struct Draw {
    pub(super) cause: Cause,
    key: Key,
    /// Below 0: what was given back.
    amount: i64,
    /// How much of it was given back since.
    given_back: i64,
    /// Its time by the facts' own times. "A fact is judged by its own time": what settles a debt is as late as the newest
    /// event that was known; what is given back of it, as the event that undid the debt.
    as_of: i64,
    /// The closings that had come when it was made.
    closed: BTreeSet<String>,
    /// The same of the draw that it gives back; its own for a draw.
    closed_at_first: BTreeSet<String>,
}

#[derive(Debug, Default)]
pub(super) struct Ledger {
    draws: Vec<Draw>,
    /// The own time of the newest event.
    newest: i64,
    /// The own time of the event that came last; none once time has passed or the app has called.
    learned: Option<i64>,
}

/// A grant at one moment.
#[derive(Debug, Clone)]
pub(super) struct Balance {
    pub(super) key: Key,
    pub(super) pool: Pool,
    pub(super) worth: i64,
    pub(super) drawn: i64,
    /// What can be spent of it.
    pub(super) left: i64,
    order: Order,
}

/// "Draws first what would be lost soonest, then subscription before promotional before purchased, then oldest."
type Order = (i64, Pool, i64, usize, Key);

impl Ledger {
    /// The key under which a draw's grant is known now: items took over, and payments got more names.
    fn current(facts: &Facts, takeovers: &super::takeovers::Takeovers, key: &Key) -> Key {
        match key.clone() {
            Key::Period { stream, is_purchased, is_below_zero, start, end, part } => {
                let stream = takeovers.stream(&stream.subscription, stream.item.as_deref());
                Key::Period { stream, is_purchased, is_below_zero, start, end, part }
            }
            Key::Pack { payment, price } => {
                Key::Pack { payment: facts.names(&payment).pop_first().unwrap_or(payment), price }
            }
            other => other,
        }
    }

    /// Lets every draw name its grant as it is known now.
    pub(super) fn rename(&mut self, facts: &Facts) {
        let takeovers = super::takeovers::Takeovers::of(facts);
        for draw in &mut self.draws {
            draw.key = Ledger::current(facts, &takeovers, &draw.key);
        }
    }

    /// An event has come: it is of a time.
    pub(super) fn learn(&mut self, own_time: i64) {
        self.newest = self.newest.max(own_time);
        self.learned = Some(own_time);
    }

    /// Something else has happened.
    pub(super) fn learn_nothing(&mut self) {
        self.learned = None;
    }

    fn drawn(&self, key: &Key) -> i64 {
        self.draws.iter().filter(|draw| draw.key == *key).map(|draw| draw.amount).sum()
    }

    /// What had been drawn of a grant when a closing came. What is given back afterwards stays in addition to what the
    /// closing left, but "to a grant that has lapsed, it lapses".
    fn drawn_before(&self, key: &Key, closing: &Closing) -> i64 {
        let is_before = |draw: &&Draw| {
            let lapses = closing.cause == closings::Cause::PartEnd;
            let closed = if lapses { &draw.closed_at_first } else { &draw.closed };
            closing.ids.iter().all(|id| !closed.contains(id))
        };
        let its = || self.draws.iter().filter(|draw| draw.key == *key);
        let sum = |draws: &mut dyn Iterator<Item = &Draw>| draws.map(|draw| draw.amount).sum::<i64>();
        let is_settlement = |draw: &&Draw| draw.cause == Cause::Settlement;
        let spent = sum(&mut its().filter(|draw| !is_settlement(draw)).filter(is_before));
        // "Order, repetition and races cannot matter": a debt that was none by the facts' own times leaves no trace.
        let settled = sum(&mut its().filter(is_settlement).filter(is_before));
        let stood_then = sum(&mut its().filter(is_settlement).filter(|draw| draw.as_of < closing.at));
        let stands = sum(&mut its().filter(is_settlement));
        spent + settled.min(stood_then.max(stands))
    }

    /// Every grant with what is left of it, in draw order.
    pub(super) fn balances(&self, view: &View) -> Vec<Balance> {
        let kept = self.kept(view);
        let mut balances: Vec<Balance> = Vec::new();
        for grant in &view.grants {
            let drawn = self.drawn(&grant.key);
            let has_lapsed = grant.expires.is_some_and(|expires| expires <= view.now);
            let can_be_spent = grant.has_begun(view.now) && !has_lapsed;
            let left = if can_be_spent { (kept[&grant.key] - drawn).max(0) } else { 0 };
            balances.push(Balance {
                key: grant.key.clone(),
                pool: grant.pool,
                worth: grant.worth(),
                drawn,
                left,
                order: order(grant, view.now),
            });
        }
        balances.sort_by(|a, b| a.order.cmp(&b.order));
        balances
    }

    /// How much of each grant's worth is not set aside: after each closing what had been drawn and what stays, and
    /// what was paid for it afterwards ("if above 0"); never more than it is worth.
    fn kept(&self, view: &View) -> BTreeMap<Key, i64> {
        let mut kept: BTreeMap<Key, i64> = BTreeMap::new();
        let mut until: BTreeMap<Key, i64> = BTreeMap::new();
        for closing in &view.closings {
            let mut stays = closing.stays;
            for grant in closing.grants.iter().filter_map(|key| view.grant(key)) {
                let is_limit = closing.cause == closings::Cause::Limit;
                let before = if is_limit { i64::MAX } else { closing.at };
                let known = until.get(&grant.key).copied().unwrap_or(i64::MIN);
                let paid = (grant.worth_paid_before(before) - grant.worth_paid_before(known)).max(0);
                let held = kept.get(&grant.key).copied().unwrap_or(0) + paid;
                let drawn = self.drawn_before(&grant.key, closing);
                // A part whose time had not come has ended.
                let has_ended = closing.cause == closings::Cause::Opening && grant.starts > closing.at;
                let staying = (held - drawn).clamp(0, if has_ended { 0 } else { stays });
                stays -= staying;
                kept.insert(grant.key.clone(), held.min(drawn + staying));
                until.insert(grant.key.clone(), before.max(known));
            }
        }
        let worths = view.grants.iter().map(|grant| {
            let known = until.get(&grant.key).copied().unwrap_or(i64::MIN);
            let paid = (grant.worth() - grant.worth_paid_before(known)).max(0);
            let kept = kept.get(&grant.key).copied().unwrap_or(0) + paid;
            (grant.key.clone(), kept.min(grant.worth()))
        });
        worths.collect()
    }

    /// "debt = Σ over grants max(0, drawn − worth) − what was settled".
    pub(super) fn debt(&self, view: &View) -> i64 {
        let keys: BTreeSet<&Key> = view
            .grants
            .iter()
            .map(|grant| &grant.key)
            .chain(self.draws.iter().map(|draw| &draw.key))
            .collect();
        let missing: i64 = keys.into_iter().map(|key| view.missing(key, self.drawn(key))).sum();
        let settlements = self.draws.iter().filter(|draw| draw.cause == Cause::Settlement);
        missing - settlements.map(|draw| draw.amount).sum::<i64>()
    }

    /// "Debt is settled at once from whatever the user has or gets next, in draw order"; "if the reversal is undone,
    /// what was settled comes back".
    pub(super) fn settle(&mut self, view: &View) {
        loop {
            let debt = self.debt(view);
            let balance: i64 = self.balances(view).iter().map(|balance| balance.left).sum();
            if debt > 0 && balance > 0 {
                self.draw(view, &Cause::Settlement, debt.min(balance));
            } else if debt < 0 {
                self.give_back(view, &Cause::Settlement, -debt);
            } else {
                return;
            }
        }
    }

    /// Draws an amount that is there.
    pub(super) fn draw(&mut self, view: &View, cause: &Cause, amount: i64) {
        let closed: BTreeSet<String> = view.closed().cloned().collect();
        let mut missing = amount;
        for balance in self.balances(view) {
            let amount = balance.left.min(missing);
            if amount > 0 {
                missing -= amount;
                self.draws.push(Draw {
                    cause: cause.clone(),
                    key: balance.key,
                    amount,
                    as_of: self.newest.min(view.now),
                    given_back: 0,
                    closed: closed.clone(),
                    closed_at_first: closed.clone(),
                });
            }
        }
        assert_eq!(missing, 0, "more was drawn than there is");
    }

    /// "Gives back to the grants that were drawn, last drawn first, never more than was spent."
    pub(super) fn give_back(&mut self, view: &View, cause: &Cause, amount: i64) {
        let closed: BTreeSet<String> = view.closed().cloned().collect();
        let mut missing = amount;
        let mut rows = Vec::new();
        for draw in self.draws.iter_mut().rev().filter(|draw| draw.cause == *cause && draw.amount > 0) {
            let amount = (draw.amount - draw.given_back).min(missing);
            if amount > 0 {
                missing -= amount;
                draw.given_back += amount;
                let as_of = self.learned.map_or(view.now, |own_time| own_time.min(view.now));
                let closed = closed.clone();
                rows.push(Draw { amount: -amount, as_of, given_back: 0, closed, ..draw.clone() });
            }
        }
        assert_eq!(missing, 0, "more was given back than was drawn");
        self.draws.extend(rows);
    }

    /// What is drawn for a cause and was not given back.
    pub(super) fn drawn_for(&self, cause: &Cause) -> i64 {
        self.draws.iter().filter(|draw| draw.cause == *cause).map(|draw| draw.amount).sum()
    }
}

/// "What would be lost soonest (its expiry, or for a period that the next renewal resets, its end)."
fn order(grant: &Grant, now: i64) -> Order {
    let part_end = grant.part_ends.iter().copied().find(|end| *end > now);
    let lost_at = [grant.expires, grant.resets, part_end].into_iter().flatten().min();
    (lost_at.unwrap_or(i64::MAX), grant.pool, grant.opens_at(), grant.place, grant.key.clone())
}
