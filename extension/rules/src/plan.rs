//! What a plan's lots hold (rule 7): one pure function of what is known, whichever of it became known first.
//!
//! A lot is one per subscription, price and line period end, worth the highest quantity paid for it. Of a subscription's
//! lots the newest is current; of all older ones together no more stays than it lets roll over, and the rest is set aside.
//! A new subscription's lots come after those of the user's subscriptions that had ended before it began. So an account's
//! lots form chains, and what a chain holds is one fold along it: what is left of the lots before, as far as it rolls
//! over, and the lot's own worth, without what was drawn in its time.
//!
//! What was drawn in whose time is the one thing that the ledger's rows do not say by themselves. A lot that is not
//! current any more is closed over it. Of lots that become known late, the earlier one takes over what was drawn from
//! later ones in its absence.

use std::collections::BTreeMap;

use crate::amount::Credits;
use crate::calendar::Time;

/// A grant that a subscription's invoice made, as the ledger has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    /// The grant.
    pub id: i64,
    /// The invoice.
    pub source_id: String,
    /// The subscription.
    pub subscription_id: String,
    /// The price.
    pub price_id: String,
    /// What was paid for: from, to.
    pub period: (Time, Time),
    /// When the invoice was paid.
    pub paid_at: Time,
    /// The most that it leaves of the lots before it.
    pub max_rollover: Credits,
    /// Whether it lapses with its period once the subscription is canceled.
    pub expires: bool,
    /// Of one that is a part of its period's credits: when it can be spent from.
    pub available_from: Option<Time>,
    /// When it lapses.
    pub lapses_at: Option<Time>,
    /// Its amount.
    pub granted: Credits,
    /// Of that: to be spent now.
    pub remaining: Credits,
    /// Of that: kept back.
    pub set_aside: Credits,
    /// Of that: to come.
    pub pending: Credits,
    /// Of that: lapsed.
    pub lapsed: Credits,
    /// Of that: taken back.
    pub reversed: Credits,
    /// What is owed of its payment, by all of the payment's grants.
    pub owed: Credits,
    /// What was drawn in its time; `None` while that is now.
    pub consumed: Option<Credits>,
    /// The last row of the ledger that `consumed` counts.
    pub closed_through: Option<i64>,
    /// Whether it became known just now.
    pub is_new: bool,
}

/// Credits that came back to a grant since its account's lots were settled last: a reservation's, or what had settled a
/// debt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Returned {
    /// The grant.
    pub grant_id: i64,
    /// Which row of the ledger had drawn them.
    pub drawn_by: i64,
    /// How many.
    pub credits: Credits,
}

/// A subscription as far as it decides what its lots hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SubscribedPlan {
    /// Its id.
    pub id: String,
    /// What it subscribes to now.
    pub price_id: Option<String>,
    /// The most that a lot may hold that was paid for before it was this plan; `None`: as much as it did.
    pub lot_limit: Option<Credits>,
    /// As of when that is so.
    pub as_of: Time,
    /// When it ended.
    pub ended_at: Option<Time>,
    /// Whether it ends with its period, or has ended.
    pub ends: bool,
}

/// What one grant is to hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Target {
    /// The grant.
    pub id: i64,
    /// To be spent now.
    pub remaining: Credits,
    /// Kept back.
    pub set_aside: Credits,
    /// To come.
    pub pending: Credits,
    /// Lapsed: less than before where its lapse was called off.
    pub lapsed: Credits,
    /// When it lapses.
    pub lapses_at: Option<Time>,
    /// What was drawn in its time; `None` while that is now.
    pub consumed: Option<Credits>,
}

impl From<&Grant> for Target {
    /// What it holds.
    fn from(grant: &Grant) -> Target {
        let Grant { id, remaining, set_aside, pending, lapsed, lapses_at, consumed, .. } = *grant;
        Target { id, remaining, set_aside, pending, lapsed, lapses_at, consumed }
    }
}

impl Grant {
    fn kept(&self) -> i64 {
        self.remaining.0 + self.set_aside.0 + self.pending.0
    }

    /// Spent, held by a reservation, or taken to settle a debt.
    fn drawn(&self) -> i64 {
        self.granted.0 - self.kept() - self.lapsed.0 - self.reversed.0
    }

    fn is_part(&self) -> bool {
        self.available_from.is_some()
    }
}

/// What every grant of an account's subscriptions is to hold by `now`, in no particular order. `returned` was returned since
/// that was asked last.
#[must_use]
pub fn settle(
    grants: &[Grant],
    subscriptions: &[SubscribedPlan],
    returned: &[Returned],
    now: Time,
) -> Vec<Target> {
    let known: BTreeMap<&str, &SubscribedPlan> = subscriptions.iter().map(|s| (s.id.as_str(), s)).collect();
    let members: Vec<Member> = grants
        .iter()
        .map(|grant| Member::new(grant, known.get(grant.subscription_id.as_str()).copied(), now))
        .collect();
    let mut of: BTreeMap<&str, Vec<Lot>> = BTreeMap::new();
    for member in members {
        let lots = of.entry(&member.grant.subscription_id).or_default();
        let key = |grant: &Grant| (grant.price_id.clone(), grant.period.1);
        match lots.iter_mut().find(|lot| key(lot.members[0].grant) == key(member.grant)) {
            Some(lot) => lot.members.push(member),
            None => lots.push(Lot { members: vec![member] }),
        }
    }
    for lots in of.values_mut() {
        for lot in lots.iter_mut() {
            lot.members.sort_by_key(|member| {
                (member.grant.period.0, member.grant.source_id.clone(), member.grant.id)
            });
        }
        lots.sort_by_key(|lot| (lot.end(), lot.start(), lot.newest().price_id.clone()));
    }
    share_debts(&mut of);
    let mut targets = Vec::with_capacity(grants.len());
    for mut chain in chains(of, &known) {
        for returned in returned {
            chain.take_return(*returned);
        }
        chain.settle();
        targets.extend(chain.lots.iter().flat_map(|lot| lot.members.iter().map(|member| member.target)));
    }
    targets
}

/// What comes back of a grant that settled debts, by its rows of the ledger in their order, each with what it took, or below
/// nothing what it gave back: the latest that was not given back yet.
#[must_use]
pub fn last_settled(grant_id: i64, settlements: &[(i64, Credits)], credits: Credits) -> Vec<Returned> {
    let mut standing: Vec<Returned> = Vec::new();
    for &(drawn_by, taken) in settlements {
        if taken < Credits::ZERO {
            pop(&mut standing, -taken.0);
        } else {
            standing.push(Returned { grant_id, drawn_by, credits: taken });
        }
    }
    pop(&mut standing, credits.0)
}

/// Takes so many credits from the last of these.
fn pop(standing: &mut Vec<Returned>, credits: i64) -> Vec<Returned> {
    let (mut left, mut popped) = (credits, Vec::new());
    while left > 0
        && let Some(last) = standing.last_mut()
    {
        let taken = left.min(last.credits.0);
        popped.push(Returned { credits: Credits(taken), ..*last });
        (last.credits.0, left) = (last.credits.0 - taken, left - taken);
        if last.credits == Credits::ZERO {
            standing.pop();
        }
    }
    popped
}

/// A grant, and what it is to hold.
struct Member<'a> {
    grant: &'a Grant,
    target: Target,
    /// Of what is owed of its payment: its own part.
    owed: i64,
    phase: Phase,
}

/// Where a grant is in its own time.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// It cannot be spent from yet.
    ToCome,
    /// It can.
    Open,
    /// It has lapsed.
    Over,
}

impl<'a> Member<'a> {
    fn new(grant: &'a Grant, subscription: Option<&SubscribedPlan>, now: Time) -> Member<'a> {
        let mut target = Target::from(grant);
        if !grant.is_part() {
            let expires = grant.expires && subscription.is_some_and(|subscription| subscription.ends);
            target.lapses_at = expires.then_some(grant.period.1);
            if target.lapses_at.is_none_or(|lapses_at| lapses_at > now) {
                // Its lapse was called off: it is as if it had been set aside.
                target.set_aside.0 += target.lapsed.0;
                target.lapsed = Credits::ZERO;
            }
        }
        let over = target.lapses_at.is_some_and(|lapses_at| lapses_at <= now);
        let to_come = grant.pending > Credits::ZERO || grant.available_from.is_some_and(|from| from > now);
        let phase = match (over, to_come) {
            (true, _) => Phase::Over,
            (false, true) => Phase::ToCome,
            (false, false) => Phase::Open,
        };
        Member { grant, target, owed: 0, phase }
    }

    /// What it was worth in its time: without what has lapsed, or has yet to come.
    fn worth(&self) -> i64 {
        let gone = match self.phase {
            Phase::Open => self.target.lapsed.0,
            Phase::ToCome | Phase::Over => self.grant.kept() + self.grant.lapsed.0,
        };
        self.grant.granted.0 - gone
    }

    /// The same, without what was taken back, and what is owed for it.
    fn unreversed(&self) -> i64 {
        self.worth() - self.grant.reversed.0 - self.owed
    }

    fn keep(&mut self, remaining: i64) {
        self.target.set_aside.0 += self.target.remaining.0 - remaining;
        self.target.remaining = Credits(remaining);
    }
}

/// What was paid for one subscription, price and period end, by however many invoices.
struct Lot<'a> {
    members: Vec<Member<'a>>,
}

impl<'a> Lot<'a> {
    fn newest(&self) -> &Grant {
        self.members.last().expect("a lot has a grant").grant
    }

    fn end(&self) -> Time {
        self.newest().period.1
    }

    fn start(&self) -> Time {
        self.newest().period.0
    }

    fn has_begun(&self) -> bool {
        self.members.iter().any(|member| member.phase != Phase::ToCome)
    }

    fn first_start(&self) -> Time {
        self.members[0].grant.period.0
    }

    /// The highest of what its invoices were worth, each by all of its grants.
    fn highest(&self, worth: fn(&Member<'a>) -> i64) -> i64 {
        let mut by_invoice: BTreeMap<&str, i64> = BTreeMap::new();
        for member in &self.members {
            *by_invoice.entry(&member.grant.source_id).or_default() += worth(member);
        }
        by_invoice.into_values().max().unwrap_or(0)
    }

    /// What of it was drawn and is owed: once repaid, it does not count as drawn.
    fn owed(&self) -> i64 {
        self.members.iter().map(|member| member.owed).sum()
    }

    fn consumed(&self) -> i64 {
        self.members.iter().filter_map(|member| member.target.consumed).map(|consumed| consumed.0).sum()
    }

    /// The limit that a later, lesser plan sets it.
    fn limit(&self, subscription: Option<&SubscribedPlan>) -> Option<i64> {
        let subscription = subscription?;
        let limit = subscription.lot_limit?;
        let paid_at = self.members.iter().map(|member| member.grant.paid_at).max()?;
        let amount = self.members.iter().map(|member| member.grant.granted).max()?;
        (subscription.as_of > paid_at && limit < amount).then_some(limit.0)
    }

    /// Whether what it has yet to give comes: not once the plan is another.
    fn continues(&self, subscription: Option<&SubscribedPlan>) -> bool {
        let newest = self.newest();
        subscription.is_none_or(|subscription| {
            let other = subscription.price_id.as_deref() != Some(newest.price_id.as_str());
            let changed = other && subscription.lot_limit.is_some() && subscription.as_of > newest.paid_at;
            let over = newest.expires && subscription.ended_at.is_some();
            !changed && !over
        })
    }
}

/// Shares what is owed of each payment out among its grants: by what was drawn from them.
fn share_debts(of: &mut BTreeMap<&str, Vec<Lot>>) {
    let mut left: BTreeMap<String, i64> = BTreeMap::new();
    for member in of.values_mut().flatten().flat_map(|lot| lot.members.iter_mut()) {
        let left = left.entry(member.grant.source_id.clone()).or_insert(member.grant.owed.0);
        member.owed = member.grant.drawn().min(*left);
        *left -= member.owed;
    }
}

/// Lots in the order in which one takes over from the other.
struct Chain<'a, 's> {
    lots: Vec<Lot<'a>>,
    /// The subscription of the last one.
    subscription: Option<&'s SubscribedPlan>,
}

/// Joins the lots of subscriptions that ended to those of the one that began next.
fn chains<'a, 's>(
    mut of: BTreeMap<&str, Vec<Lot<'a>>>,
    known: &BTreeMap<&str, &'s SubscribedPlan>,
) -> Vec<Chain<'a, 's>> {
    let first_starts: BTreeMap<String, Time> = of
        .iter()
        .filter_map(|(id, lots)| Some(((*id).to_owned(), lots.iter().map(Lot::first_start).min()?)))
        .collect();
    let next = |id: &str| {
        let ended_at = known.get(id)?.ended_at?;
        let after = |(other, start): &(&String, &Time)| {
            // The second half prevents a cycle if the times are inconsistent.
            **start >= ended_at && (**start, other.as_str()) > (first_starts[id], id)
        };
        first_starts
            .iter()
            .filter(after)
            .min_by_key(|(other, start)| (**start, (*other).clone()))
            .map(|(other, _)| other.clone())
    };
    // Earlier ones first, so that each is whole when it is put in front of the next.
    let mut in_order: Vec<(Time, String)> =
        first_starts.iter().map(|(id, start)| (*start, id.clone())).collect();
    in_order.sort();
    let mut before: BTreeMap<String, Vec<Lot>> = BTreeMap::new();
    let mut chains = Vec::new();
    for (_, id) in in_order {
        let own = of.remove(id.as_str()).unwrap_or_default();
        let mut lots = before.remove(&id).unwrap_or_default();
        lots.extend(own);
        match next(&id) {
            Some(next) => before.entry(next).or_default().extend(lots),
            None => chains.push(Chain { lots, subscription: known.get(id.as_str()).copied() }),
        }
    }
    chains
}

impl Chain<'_, '_> {
    /// What came back does not count as drawn any more in the lot in whose time it was drawn.
    fn take_return(&mut self, returned: Returned) {
        if !self.members().any(|member| member.grant.id == returned.grant_id) {
            return;
        }
        let mut counting: Vec<(i64, &mut Credits)> = self
            .lots
            .iter_mut()
            .flat_map(|lot| &mut lot.members)
            .filter_map(|member| Some((member.grant.closed_through?, member.target.consumed.as_mut()?)))
            .filter(|(through, _)| *through >= returned.drawn_by)
            .collect();
        counting.sort_by_key(|(through, _)| *through);
        let mut left = returned.credits.0;
        for (_, consumed) in counting {
            let less = left.min(consumed.0);
            (consumed.0, left) = (consumed.0 - less, left - less);
        }
    }

    fn settle(&mut self) {
        // What has yet to begin takes over from nothing.
        let begun = self.lots.iter().rposition(Lot::has_begun);
        let last = begun.unwrap_or(self.lots.len() - 1);
        let limit = self.lots[last].limit(self.subscription);
        let continues = self.lots[last].continues(self.subscription);
        self.hold_back(last, continues);
        self.close(last, limit.is_some());
        let total = self.total(last, limit);
        self.share_out(total);
    }

    /// What is to come comes from the current lot, or one that has yet to begin.
    fn hold_back(&mut self, last: usize, continues: bool) {
        for (index, lot) in self.lots.iter_mut().enumerate() {
            for member in lot.members.iter_mut().filter(|member| member.phase == Phase::ToCome) {
                let Target { set_aside, pending, .. } = &mut member.target;
                let unspent = set_aside.0 + pending.0;
                let comes = index >= last && continues;
                (pending.0, set_aside.0) = if comes { (unspent, 0) } else { (0, unspent) };
            }
        }
    }

    /// Drawn in all.
    fn drawn(&self) -> i64 {
        self.members().map(|member| member.grant.drawn()).sum()
    }

    fn members(&self) -> impl Iterator<Item = &Member<'_>> {
        self.lots.iter().flat_map(|lot| &lot.members)
    }

    /// What no closed lot counts.
    fn uncounted(&self) -> i64 {
        self.drawn() - self.lots.iter().map(Lot::consumed).sum::<i64>()
    }

    /// Closes the lots that are not current, and opens the current one, unless a lesser plan has closed it.
    fn close(&mut self, last: usize, limited: bool) {
        let is_open = |member: &Member| member.target.consumed.is_none();
        let left = self.left(last);
        for index in 0..=last {
            let closed = index < last || limited;
            if !closed {
                if !self.lots[index].members.iter().any(is_open) {
                    let newest = self.lots[index].members.last_mut().expect("a lot has a grant");
                    newest.target.consumed = None;
                }
                continue;
            }
            // What no closed lot counts was drawn in the current lot's time, whatever that was worth.
            let was_current = left == Some(index) || index == last;
            if was_current && !self.lots[index].members.iter().any(is_open) && index < last {
                // A lesser plan had closed it. What was drawn under that was drawn in its time all the same.
                let uncounted = self.uncounted().max(0);
                let newest = self.lots[index].members.last_mut().expect("a lot has a grant");
                newest.target.consumed = newest.target.consumed.map(|before| Credits(before.0 + uncounted));
            }
            while let Some(at) = self.lots[index].members.iter().rposition(is_open) {
                let room = self.room(index);
                let uncounted = self.uncounted().clamp(0, if was_current { i64::MAX } else { room });
                let is_late = self.lots[index].members[at].grant.is_new;
                let taken = if is_late { self.take_over(index, (room - uncounted).max(0)) } else { 0 };
                self.lots[index].members[at].target.consumed = Some(Credits(uncounted + taken));
            }
        }
    }

    /// The lot that was current until something became known just now.
    fn left(&self, last: usize) -> Option<usize> {
        let known = self.lots.iter().enumerate().filter_map(|(index, lot)| {
            let of = &lot.newest().subscription_id;
            let subscription = self.lots.iter().position(|lot| lot.newest().subscription_id == *of);
            let newest = lot.members.iter().rfind(|member| !member.grant.is_new)?.grant;
            lot.has_begun().then_some(((subscription, lot.end(), newest.period.0, &newest.price_id), index))
        });
        known.max().map(|(_, index)| index).filter(|index| *index != last)
    }

    /// The most that may have been drawn in a lot's time and is counted by none yet: what it was worth, and what of the lots
    /// before it stayed.
    fn room(&self, index: usize) -> i64 {
        let mut had = 0;
        for (at, lot) in self.lots[..=index].iter().enumerate() {
            let stayed = if at == 0 { 0 } else { had.clamp(0, lot.newest().max_rollover.0) };
            had = stayed + lot.highest(Member::worth) - lot.consumed();
        }
        had.max(0)
    }

    /// Takes up to `room` of what later lots count: it was drawn from them while this one was not known.
    fn take_over(&mut self, index: usize, room: i64) -> i64 {
        let mut left = room;
        for member in self.lots[index + 1..].iter_mut().flat_map(|lot| lot.members.iter_mut()).rev() {
            if let Some(consumed) = &mut member.target.consumed {
                let taken = consumed.0.clamp(0, left);
                (consumed.0, left) = (consumed.0 - taken, left - taken);
            }
        }
        room - left
    }

    /// What the whole chain has to spend.
    fn total(&self, last: usize, limit: Option<i64>) -> i64 {
        let lots = &self.lots[..=last];
        let mut consumed: Vec<i64> = lots.iter().map(Lot::consumed).collect();
        let mut open = self.drawn() - consumed.iter().sum::<i64>();
        // Less is drawn by now than the closed lots count: what had settled a debt came back.
        for consumed in consumed.iter_mut().rev() {
            let less = (-open).clamp(0, (*consumed).max(0));
            (*consumed, open) = (*consumed - less, open + less);
        }
        let mut carried = 0;
        for (index, (lot, consumed)) in lots.iter().zip(consumed).enumerate() {
            let rolls_over = if index == 0 { carried } else { carried.min(lot.newest().max_rollover.0) };
            carried = rolls_over + lot.highest(Member::unreversed) - consumed + lot.owed();
        }
        (limit.map_or(carried, |limit| carried.min(limit)) - open).max(0)
    }

    /// Shares what there is to spend out among the grants, the newest first.
    fn share_out(&mut self, total: i64) {
        let mut left = total;
        let spendable = self
            .lots
            .iter_mut()
            .flat_map(|lot| lot.members.iter_mut())
            .filter(|member| member.phase == Phase::Open);
        for member in spendable.rev() {
            let remaining = (member.target.remaining.0 + member.target.set_aside.0).min(left);
            left -= remaining;
            member.keep(remaining);
        }
    }
}

#[cfg(test)]
mod tests;
