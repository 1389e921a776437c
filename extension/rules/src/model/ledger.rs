//! What was drawn from which grant, and what is left of each.

use std::collections::{BTreeMap, BTreeSet};

use super::closings::{self, Closing};
use super::facts::Facts;
use super::grants::{Grant, Key, Pool};
use super::takeovers::Takeovers;
use super::view::View;

impl Key {
    /// Names the grant as it is known now: items took over, and payments got more names.
    fn rename(&mut self, facts: &Facts, takeovers: &Takeovers) {
        match self {
            Key::Period { stream, .. } => {
                *stream = takeovers.stream(&stream.subscription, stream.item.as_deref());
            }
            Key::Pack { payment, .. } => {
                if let Some(first) = facts.names(payment).pop_first() {
                    *payment = first;
                }
            }
            _ => {}
        }
    }
}

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
    /// When it was made.
    at: i64,
    /// The same of the draw that it gives back; its own for a draw.
    at_first: i64,
    /// The closings that had come when it was made.
    closed: BTreeSet<String>,
    /// The same of the draw that it gives back; its own for a draw.
    closed_at_first: BTreeSet<String>,
}

impl Draw {
    pub(super) fn key(&self) -> &Key {
        &self.key
    }

    /// What was drawn of a grant and not given back.
    pub(super) fn sum<'a>(draws: impl IntoIterator<Item = &'a Draw>, key: &Key) -> i64 {
        draws.into_iter().filter(|draw| draw.key == *key).map(|draw| draw.amount).sum()
    }

    /// What was given back, as it was drawn; none of what was drawn.
    pub(super) fn undone(&self) -> Option<Draw> {
        let (amount, at, closed) = (-self.amount, self.at_first, self.closed_at_first.clone());
        (amount > 0).then(|| Draw { amount, at, closed, ..self.clone() })
    }

    /// Names its grant as it is known now.
    pub(super) fn rename(&mut self, facts: &Facts, takeovers: &Takeovers) {
        self.key.rename(facts, takeovers);
    }
}

/// What a former user of a subscription keeps of a grant (rule 6).
#[derive(Debug, Clone)]
pub(super) struct Kept {
    worth: i64,
    grant: Grant,
}

impl Kept {
    /// "What a former user's spend or reservation gives back later is that user's until the end of the period."
    pub(super) fn of(grant: &Grant, worth: i64) -> Kept {
        let expires = [grant.expires, grant.ends].into_iter().flatten().min();
        let mut grant = Grant { part_ends: Vec::new(), resets: None, ..grant.clone() };
        grant.expires = if grant.pool == Pool::Purchased { grant.expires } else { expires };
        Kept { worth, grant }
    }

    /// "So is what comes back of a settled debt, which has no end if the period is over", less what was drawn of that.
    fn without_end(&self, draws: &[Draw], lapsed_at: i64) -> i64 {
        let since = draws.iter().filter(|draw| draw.key == self.grant.key && draw.at >= lapsed_at);
        let stays =
            |draw: &&Draw| draw.amount > 0 || draw.cause == Cause::Settlement || draw.at_first >= lapsed_at;
        -since.filter(stays).map(|draw| draw.amount).sum::<i64>()
    }
}

#[derive(Debug, Default)]
pub(super) struct Ledger {
    draws: Vec<Draw>,
    /// What former users of this user's subscriptions had drawn when these left them.
    pub(super) of_others: Vec<Draw>,
    /// What this user keeps of subscriptions that left.
    pub(super) kept: BTreeMap<Key, Kept>,
    /// The closings that have come of other users' grants.
    pub(super) closed_elsewhere: BTreeSet<String>,
    /// Which grants came to the user first: "then oldest".
    came: BTreeMap<Key, usize>,
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
type Order = (i64, Pool, usize, i64, usize, Key);

impl Ledger {
    /// Lets every draw name its grant as it is known now.
    pub(super) fn rename(&mut self, facts: &Facts) {
        let takeovers = Takeovers::of(facts);
        self.draws.iter_mut().for_each(|draw| draw.rename(facts, &takeovers));
        for (mut key, place) in std::mem::take(&mut self.came) {
            key.rename(facts, &takeovers);
            self.came.entry(key).and_modify(|known| *known = place.min(*known)).or_insert(place);
        }
    }

    /// Grants have come to the user.
    pub(super) fn note(&mut self, view: &View) {
        let place = self.came.values().max().map_or(0, |last| last + 1);
        for grant in &view.grants {
            self.came.entry(grant.key.clone()).or_insert(place);
        }
    }

    /// "What would be lost soonest (its expiry, or for a period that the next renewal resets, its end)."
    fn order(&self, grant: &Grant, now: i64) -> Order {
        let part_end = grant.part_ends.iter().copied().find(|end| *end > now);
        let lost_at = [grant.expires, grant.resets, part_end].into_iter().flatten().min();
        let came = self.came.get(&grant.key).copied().unwrap_or(usize::MAX);
        (lost_at.unwrap_or(i64::MAX), grant.pool, came, grant.opens_at(), grant.place, grant.key.clone())
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
        Draw::sum(&self.draws, key)
    }

    /// Draws that were another user's.
    pub(super) fn take_over(&mut self, draws: impl IntoIterator<Item = Draw>) {
        self.draws.extend(draws);
    }

    /// The same by whoever had it.
    fn drawn_by_all(&self, key: &Key) -> i64 {
        self.drawn(key) + Draw::sum(&self.of_others, key)
    }

    /// What was drawn of these grants.
    pub(super) fn draws_of(&self, keys: &BTreeSet<Key>) -> Vec<Draw> {
        self.draws.iter().filter(|draw| keys.contains(&draw.key)).cloned().collect()
    }

    /// The user's own share of what a grant is worth: without what former users keep of it.
    fn own_worth(&self, grant: &Grant) -> i64 {
        grant.worth() - Draw::sum(&self.of_others, &grant.key).clamp(0, grant.worth().max(0))
    }

    /// Which grants the user has now. "Once per user": who keeps some of a trial or a bonus has had it.
    fn has(&self, grant: &Grant) -> bool {
        let is_bonus = |key: &Key| matches!(key, Key::Bonus { .. });
        let has_had_one = || self.kept.keys().any(is_bonus);
        !(self.kept.contains_key(&grant.key) || is_bonus(&grant.key) && has_had_one())
    }

    /// What had been drawn of a grant when a closing came. What is given back afterwards stays in addition to what the
    /// closing left, but "to a grant that has lapsed, it lapses".
    fn drawn_before(&self, key: &Key, closing: &Closing) -> i64 {
        let is_before = |draw: &&Draw| {
            let lapses = closing.cause == closings::Cause::PartEnd;
            let closed = if lapses { &draw.closed_at_first } else { &draw.closed };
            closing.ids.iter().all(|id| !closed.contains(id))
        };
        let all = || self.draws.iter().chain(&self.of_others);
        let its = || all().filter(|draw| draw.key == *key);
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
        for grant in view.grants.iter().filter(|grant| self.has(grant)) {
            let by_all = self.drawn_by_all(&grant.key);
            let can_be_spent = grant.has_begun(view.now) && !grant.has_lapsed(view.now);
            let left = if can_be_spent { (kept[&grant.key] - by_all).max(0) } else { 0 };
            balances.push(Balance {
                key: grant.key.clone(),
                pool: grant.pool,
                worth: self.own_worth(grant),
                drawn: self.drawn(&grant.key),
                left,
                order: self.order(grant, view.now),
            });
        }
        balances.extend(self.kept.values().map(|kept| self.balance_of_kept(kept, view.now)));
        balances.sort_by(|a, b| a.order.cmp(&b.order));
        balances
    }

    /// What is left of what a former user keeps.
    fn balance_of_kept(&self, kept: &Kept, now: i64) -> Balance {
        let drawn = self.drawn(&kept.grant.key);
        let all = (kept.worth - drawn).max(0);
        let mut grant = kept.grant.clone();
        let lapsed_at = grant.expires.take_if(|expires| *expires <= now);
        Balance {
            key: grant.key.clone(),
            pool: grant.pool,
            worth: kept.worth,
            drawn,
            left: lapsed_at.map_or(all, |at| kept.without_end(&self.draws, at).clamp(0, all)),
            order: self.order(&grant, now),
        }
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
                // Of a grant that is worth less by now, less can stay.
                let held = (kept.get(&grant.key).copied().unwrap_or(0) + paid).min(grant.worth());
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
        let missing: i64 = keys.into_iter().map(|key| self.missing(view, key)).sum();
        let settlements = self.draws.iter().filter(|draw| draw.cause == Cause::Settlement);
        missing - settlements.map(|draw| draw.amount).sum::<i64>()
    }

    /// What was drawn of a grant beyond the user's share of it.
    fn missing(&self, view: &View, key: &Key) -> i64 {
        let drawn = self.drawn(key);
        if let Some(kept) = self.kept.get(key) {
            return (drawn - kept.worth).max(0);
        }
        let of_others = view.grant(key).map_or(0, |grant| grant.worth() - self.own_worth(grant));
        view.missing(key, drawn + of_others)
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
                self.give_back(view, &Cause::Settlement, self.returns(view).max(-debt));
            } else {
                return;
            }
        }
    }

    /// What of the latest settlement only repays what its own grant was drawn beyond its worth: the debt is the same after it.
    fn returns(&self, view: &View) -> i64 {
        let mut settlements = self.draws.iter().rev().filter(|draw| draw.cause == Cause::Settlement);
        let Some(latest) = settlements.find(|draw| draw.amount > draw.given_back) else { return 0 };
        let beyond =
            self.drawn(&latest.key) - view.grant(&latest.key).map_or(0, |grant| self.own_worth(grant));
        let missing = self.missing(view, &latest.key);
        // Of what was forgiven nothing is owed.
        if missing == beyond { missing.min(latest.amount - latest.given_back) } else { 0 }
    }

    /// Draws an amount that is there.
    pub(super) fn draw(&mut self, view: &View, cause: &Cause, amount: i64) {
        let closed: BTreeSet<String> = view.closed().chain(&self.closed_elsewhere).cloned().collect();
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
                    at: view.now,
                    at_first: view.now,
                    closed: closed.clone(),
                    closed_at_first: closed.clone(),
                });
            }
        }
        assert_eq!(missing, 0, "more was drawn than there is");
    }

    /// "Gives back to the grants that were drawn, last drawn first, never more than was spent."
    pub(super) fn give_back(&mut self, view: &View, cause: &Cause, amount: i64) {
        let closed: BTreeSet<String> = view.closed().chain(&self.closed_elsewhere).cloned().collect();
        let mut missing = amount;
        let mut rows = Vec::new();
        for draw in self.draws.iter_mut().rev().filter(|draw| draw.cause == *cause && draw.amount > 0) {
            let amount = (draw.amount - draw.given_back).min(missing);
            if amount > 0 {
                missing -= amount;
                draw.given_back += amount;
                let as_of = self.learned.map_or(view.now, |own_time| own_time.min(view.now));
                let closed = closed.clone();
                let at = view.now;
                rows.push(Draw { amount: -amount, as_of, given_back: 0, at, closed, ..draw.clone() });
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
