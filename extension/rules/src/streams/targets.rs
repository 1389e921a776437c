//! What every grant should hold: its worth, less what was drawn, less what was swept.

use std::collections::{BTreeMap, BTreeSet};

use super::facts::{Draw, Facts, GrantKey, Purpose};
use super::lots::{Lot, Lots, MAX_HELD};
use super::sweeps::{Cause, Sweep};
use super::{FormerTarget, OutOfRange, State, Target};
use crate::amount::Credits;
use crate::calendar::Time;
use crate::lot::Pool;

/// A draw, and by whom.
#[derive(Debug, Clone, Copy)]
pub(super) struct Drawn<'a> {
    by: Drawer,
    draw: &'a Draw,
}

/// Who drew. Former users come first: what is not told apart is theirs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Drawer {
    /// A former user of the grant's subscription, as an index of [`Facts::former`].
    Former(usize),
    User,
}

/// A grant while the sweeps pass over it.
struct Balance<'a> {
    lot: Lot,
    draws: Vec<Drawn<'a>>,
    worth: i64,
    drawn: i64,
    /// Drawn by the user from later grants while this one was not known; below 0 where it was drawn.
    moved: i64,
    /// When the last period begins from whose grants that was.
    needed_by: Option<Time>,
    set_aside: i64,
    expired: i64,
    /// When its credits expire, by whatever comes first.
    expires_at: Option<Time>,
    /// When something of it last changed.
    changed_at: Option<Time>,
}

/// The draws of grants that are computed, the user's and those of former users.
pub(super) fn drawn<'a>(facts: &'a Facts, draws: &'a [Draw], lots: &Lots) -> Vec<Drawn<'a>> {
    let own = draws.iter().map(|draw| Drawn { by: Drawer::User, draw });
    let former = facts.former.iter().enumerate().flat_map(|(index, former)| {
        let came_with = |draw: &&Draw| match draw.grant {
            GrantKey::Trial | GrantKey::FirstPurchaseBonus => {
                lots.lots.get(&draw.grant).is_none_or(|lot| lot.is_paid_by(&former.payments))
            }
            _ => true,
        };
        former.draws.iter().filter(came_with).map(move |draw| Drawn { by: Drawer::Former(index), draw })
    });
    own.chain(former).filter(|drawn| drawn.draw.is_of(facts, lots)).collect()
}

/// What every grant should hold by `now`, and what former users keep of them.
pub(super) fn targets(
    lots: Vec<Lot>,
    sweeps: &[Sweep],
    draws: &[Drawn],
    now: Time,
) -> Result<(Vec<Target>, Vec<FormerTarget>), OutOfRange> {
    let mut balances = balances(lots, draws)?;
    for (place, sweep) in sweeps.iter().enumerate() {
        if sweep.cause == Cause::Canceled {
            for grant in &sweep.grants {
                balances.entry(grant.clone()).and_modify(|balance| balance.expires_by(sweep.at));
            }
        }
        if sweep.has_come(now) {
            apply(sweep, &sweeps[place + 1..], now, &mut balances)?;
        }
    }
    let (mut targets, mut former) = (Vec::new(), Vec::new());
    for balance in balances.into_values() {
        former.extend(balance.former()?);
        targets.push(balance.target(now)?);
    }
    Ok((targets, former))
}

/// Every grant that a line made or from which something was drawn.
fn balances<'a>(lots: Vec<Lot>, draws: &[Drawn<'a>]) -> Result<BTreeMap<GrantKey, Balance<'a>>, OutOfRange> {
    let mut by_grant: BTreeMap<&GrantKey, Vec<Drawn>> = BTreeMap::new();
    for &drawn in draws {
        by_grant.entry(&drawn.draw.grant).or_default().push(drawn);
    }
    let mut lots: BTreeMap<GrantKey, Lot> = lots.into_iter().map(|lot| (lot.key.clone(), lot)).collect();
    for (&key, draws) in &by_grant {
        if !lots.contains_key(key) {
            lots.insert(key.clone(), worthless(key, draws));
        }
    }
    lots.into_iter()
        .map(|(key, lot)| {
            let draws = by_grant.remove(&key).unwrap_or_default();
            Ok((key, Balance::new(lot, draws)?))
        })
        .collect()
}

/// A grant whose lines are all gone: what was drawn from it is owed.
fn worthless(key: &GrantKey, draws: &[Drawn]) -> Lot {
    let pool = match key {
        GrantKey::Period { pool, .. } => *pool,
        GrantKey::Trial => Pool::Subscription,
        GrantKey::FirstPurchaseBonus => Pool::Promotional,
        GrantKey::Single { .. } => Pool::Purchased,
    };
    let first = draws.iter().map(|drawn| drawn.draw.at).min().unwrap_or_default();
    Lot::new(key.clone(), pool, first)
}

/// Leaves at most what stays of a sweep's grants.
fn apply(
    sweep: &Sweep,
    later: &[Sweep],
    now: Time,
    balances: &mut BTreeMap<GrantKey, Balance>,
) -> Result<(), OutOfRange> {
    let later = || later.iter().filter(|sweep| sweep.has_come(now));
    let mut stays = sweep.stays;
    for grant in &sweep.grants {
        let Some(balance) = balances.get(grant) else { continue };
        let left = balance.left_before(sweep, later())?;
        let left = left - take_over(sweep, grant, left, balances)?;
        let kept = i64::try_from(i128::from(left).min(stays)).unwrap_or(left);
        stays -= i128::from(kept);
        if let Some(balance) = balances.get_mut(grant) {
            balance.sweep(sweep, left - kept);
        }
    }
    Ok(())
}

/// What was drawn from a period and its successors while an earlier period of the stream was not known would have been
/// drawn from that: it is counted there, as if both had been known in their order.
fn take_over(
    sweep: &Sweep,
    grant: &GrantKey,
    left: i64,
    balances: &mut BTreeMap<GrantKey, Balance>,
) -> Result<i64, OutOfRange> {
    let Some(known_at) = balances.get(grant).and_then(|balance| balance.lot.known_at) else { return Ok(0) };
    let (mut taken, mut needed_by) = (0, None);
    for source in &sweep.instead {
        let Some(balance) = balances.get_mut(source) else { continue };
        let credits = balance.spent_before(known_at)?.min(left - taken);
        if credits > 0 {
            balance.moved -= credits;
            taken += credits;
            needed_by = needed_by.max(balance.lot.of.map(|(_, period)| period.start));
        }
    }
    if let Some(balance) = balances.get_mut(grant) {
        balance.moved += taken;
        balance.needed_by = balance.needed_by.max(needed_by);
    }
    Ok(taken)
}

impl<'a> Balance<'a> {
    fn new(lot: Lot, draws: Vec<Drawn<'a>>) -> Result<Balance<'a>, OutOfRange> {
        let worth = lot.worth()?;
        let (expires_at, changed_at) = (lot.ends, lot.last_paid_at());
        Ok(Balance {
            drawn: sum(draws.iter().map(|drawn| drawn.draw), &lot.key)?,
            lot,
            draws,
            worth,
            moved: 0,
            needed_by: None,
            set_aside: 0,
            expired: 0,
            expires_at,
            changed_at,
        })
    }

    fn expires_by(&mut self, at: Time) {
        self.expires_at = Some(self.expires_at.map_or(at, |known| known.min(at)));
    }

    /// What was left of it just before a sweep: of what had been paid for by then, and was not credited before a later sweep.
    /// What is paid after that one is new.
    fn left_before<'b>(
        &self,
        sweep: &Sweep,
        later: impl Iterator<Item = &'b Sweep>,
    ) -> Result<i64, OutOfRange> {
        let spent = self.drawn_where(Purpose::Spend, |draw| draw.stood_before(sweep))?;
        let drawn = spent + self.settled_before(sweep)?;
        let drawn = if sweep.cause.is_final() { drawn - self.given_back_since(sweep) } else { drawn };
        let mut paid = self.worth.min(self.lot.worth_before(sweep.at)?);
        if self.lot.last_paid_at() >= Some(sweep.at) {
            for later in later.filter(|later| later.grants.contains(&self.lot.key)) {
                paid = paid.min(self.lot.worth_before(later.at)?);
            }
        }
        Ok((paid - (drawn + self.moved).max(0) - self.set_aside - self.expired).max(0))
    }

    fn draws(&self) -> impl Iterator<Item = &'a Draw> {
        self.draws.iter().map(|drawn| drawn.draw)
    }

    fn draws_by(&self, by: Drawer) -> impl Iterator<Item = &'a Draw> {
        self.draws.iter().filter(move |drawn| drawn.by == by).map(|drawn| drawn.draw)
    }

    /// Who drew from it.
    fn drawers(&self) -> BTreeSet<Drawer> {
        self.draws.iter().map(|drawn| drawn.by).collect()
    }

    /// What had settled a debt before a sweep: as far as that stands, or stood just before the sweep by the facts' own times.
    /// What settled a debt that never was, and was taken for one because a fact was not known, is as if it had never been drawn.
    fn settled_before(&self, sweep: &Sweep) -> Result<i64, OutOfRange> {
        let settled = |counts: &dyn Fn(&Draw) -> bool| self.drawn_where(Purpose::Settlement, counts);
        let stands = settled(&|_| true)?;
        let stood_then = settled(&|draw| draw.as_of < sweep.at)?;
        Ok(settled(&|draw| draw.stood_before(sweep))?.min(stood_then.max(stands)))
    }

    fn drawn_where(&self, purpose: Purpose, counts: impl Fn(&Draw) -> bool) -> Result<i64, OutOfRange> {
        let draws = self.draws().filter(|draw| draw.purpose == purpose);
        sum(draws.filter(|draw| counts(draw)), &self.lot.key)
    }

    /// What the user spent of it before something became known, and is not counted elsewhere. What former users drew stays where
    /// it was when the subscription left them.
    fn spent_before(&self, known_at: Time) -> Result<i64, OutOfRange> {
        let spent = || self.draws_by(Drawer::User).filter(|draw| draw.purpose == Purpose::Spend);
        let before = sum(spent().filter(|draw| draw.recorded_at <= known_at), &self.lot.key)?;
        Ok(before.min(sum(spent(), &self.lot.key)?) + self.moved.min(0))
    }

    /// What a spend gives back to a grant whose time is over is gone with it; to one that was set aside, it stays.
    fn given_back_since(&self, sweep: &Sweep) -> i64 {
        let since = self.draws().filter(|draw| draw.at >= sweep.at && draw.recorded_at > sweep.known_at);
        let back = since.filter(|draw| draw.purpose == Purpose::Spend && draw.credits < Credits::ZERO);
        back.map(|draw| draw.credits.0.saturating_neg()).fold(0, i64::saturating_add)
    }

    fn sweep(&mut self, sweep: &Sweep, credits: i64) {
        if credits == 0 {
            return;
        }
        if sweep.cause.is_final() {
            self.expired += credits;
        } else {
            self.set_aside += credits;
        }
        self.changed_at = self.changed_at.max(Some(sweep.at));
    }

    /// Whether all of it went before its time came, or it was never worth anything: time does not undo that.
    fn ended_before_it_began(&self) -> bool {
        let gone =
            self.changed_at.is_some_and(|at| at <= self.lot.begins) && self.set_aside + self.expired > 0;
        self.draws.is_empty() && (gone || self.worth <= 0)
    }

    /// What of a worth each former user had drawn, and what is left of it for the user. What is missing is missing of the
    /// user's first, then of the last former one's.
    fn split(&self, worth: i64) -> Result<(BTreeMap<Drawer, i64>, i64), OutOfRange> {
        let (mut shares, mut left) = (BTreeMap::new(), worth.max(0));
        for by in self.drawers() {
            if by != Drawer::User {
                let share = self.drawn_by(by)?.clamp(0, left);
                shares.insert(by, share);
                left -= share;
            }
        }
        Ok((shares, left + worth.min(0)))
    }

    fn drawn_by(&self, by: Drawer) -> Result<i64, OutOfRange> {
        sum(self.draws_by(by), &self.lot.key)
    }

    /// What former users keep of it.
    fn former(&self) -> Result<Vec<FormerTarget>, OutOfRange> {
        let (shares, _) = self.split(self.worth)?;
        let (unreversed, _) = self.split(self.lot.worth_unreversed()?)?;
        let of_period =
            self.lot.of.map(|(_, period)| period.end).filter(|_| self.lot.pool == Pool::Subscription);
        let ends = [self.expires_at, of_period].into_iter().flatten().min();
        let target = |(by, share): (Drawer, i64)| match by {
            Drawer::User => None,
            Drawer::Former(former) => Some(FormerTarget {
                former,
                key: self.lot.key.clone(),
                worth: Credits(share),
                worth_unreversed: Credits(unreversed.get(&by).copied().unwrap_or_default()),
                expires_at: ends,
            }),
        };
        Ok(shares.into_iter().filter_map(target).collect())
    }

    fn target(self, now: Time) -> Result<Target, OutOfRange> {
        let Balance { lot, worth, expires_at, .. } = &self;
        let unspent = (worth - self.drawn - self.moved).max(0);
        let (_, own_worth) = self.split(*worth)?;
        let (_, own_unreversed) = self.split(lot.worth_unreversed()?)?;
        let own_drawn = self.drawn_by(Drawer::User)? + self.moved;
        let expired = self.expired.min(unspent);
        let set_aside = self.set_aside.min(unspent - expired);
        let remaining = unspent - expired - set_aside;
        let begun = lot.begins <= now || lot.last_paid_at().is_some_and(|paid_at| lot.begins <= paid_at);
        let is_over = expires_at.is_some_and(|at| at <= now);
        let state = if remaining > 0 && !begun {
            State::ToCome
        } else if remaining == 0 && (!begun || self.ended_before_it_began()) {
            State::Ended
        } else if remaining == 0 && is_over {
            State::Expired
        } else {
            State::Open
        };
        let last_draw = self.draws().map(|draw| draw.at).max();
        let beyond = |worth: i64| (own_drawn - worth).max(0);
        Ok(Target {
            pool: lot.pool,
            worth: Credits(own_worth),
            kept: Credits(worth - own_worth),
            drawn: Credits(own_drawn - self.moved),
            moved: Credits(self.moved),
            set_aside: Credits(set_aside),
            expired: Credits(expired),
            remaining: Credits(remaining),
            owed: Credits(beyond(own_worth).min(beyond(own_unreversed))),
            state,
            available_from: lot.begins,
            expires_at: *expires_at,
            priority_at: [*expires_at, lot.resets_at].into_iter().flatten().min(),
            closed_at: self.changed_at.max(last_draw).filter(|_| remaining == 0),
            needed_by: self.needed_by,
            payments: distinct(&lot.payments),
            key: lot.key.clone(),
        })
    }
}

impl Draw {
    /// Whether it was drawn before a sweep, or before it was known that the sweep happens.
    fn stood_before(&self, sweep: &Sweep) -> bool {
        self.at < sweep.at || self.recorded_at <= sweep.known_at
    }

    /// Whether it is of a grant that is computed: not of one that is sealed.
    pub(super) fn is_of(&self, facts: &Facts, lots: &Lots) -> bool {
        let starts = match &self.grant {
            GrantKey::Period { period, .. } => Some(period.start),
            _ => None,
        };
        match facts.horizon {
            Some(horizon) if self.grant == GrantKey::Trial => {
                lots.lots.contains_key(&self.grant) || self.at >= horizon
            }
            Some(horizon) => starts.is_none_or(|start| start >= horizon),
            None => true,
        }
    }
}

impl Cause {
    /// Whether what goes is gone for good, not set aside.
    fn is_final(self) -> bool {
        matches!(self, Cause::Ended | Cause::Canceled)
    }
}

fn distinct(payments: &BTreeSet<(Time, String)>) -> Vec<String> {
    payments.iter().map(|(_, id)| id.clone()).collect()
}

fn sum<'a>(draws: impl Iterator<Item = &'a Draw>, grant: &GrantKey) -> Result<i64, OutOfRange> {
    let sum: i128 = draws.map(|draw| i128::from(draw.credits.0)).sum();
    let fits = |credits: &i64| credits.checked_abs().is_some_and(|credits| credits <= MAX_HELD);
    i64::try_from(sum).ok().filter(fits).ok_or_else(|| OutOfRange::Credits(grant.clone()))
}
