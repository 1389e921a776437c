//! The credits of each period: what every line adds to a grant or takes from it, and when each period opens.

use std::collections::{BTreeMap, BTreeSet};

use num_traits::Zero;

use super::OutOfRange;
use super::facts::{Facts, GrantKey, Payment, Period};
use super::lines::{Billed, by_id};
use super::periods::{Home, Periods};
use super::share::{Share, floor, whole};
use super::succession::{StreamId, Streams};
use crate::amount::Credits;
use crate::calendar::Time;
use crate::lot::Pool;

/// The most credits that one grant may be worth or have drawn, so that sums of a few such numbers fit a bigint.
pub(super) const MAX_HELD: i64 = i64::MAX / 8;

/// One grant, as its facts make it: nothing drawn yet.
#[derive(Debug, Clone)]
pub(super) struct Lot {
    pub(super) key: GrantKey,
    pub(super) pool: Pool,
    /// Its stream and period, if it has one.
    pub(super) of: Option<(StreamId, Period)>,
    /// When it can be spent from.
    pub(super) begins: Time,
    /// When its own time is over.
    pub(super) ends: Option<Time>,
    /// When the next renewal resets it.
    pub(super) resets_at: Option<Time>,
    /// What each payment adds or takes back, and when it was paid.
    paid: Vec<(Time, Share)>,
    /// The sum as it would be without reversals that are forgiven.
    unreversed: Share,
    /// When the first of its payments became known.
    pub(super) known_at: Option<Time>,
    /// The payments, by when they were paid.
    pub(super) payments: BTreeSet<(Time, String)>,
}

impl Lot {
    pub(super) fn new(key: GrantKey, pool: Pool, begins: Time) -> Lot {
        let (of, ends, resets_at, known_at) = (None, None, None, None);
        let (paid, unreversed, payments) = (Vec::new(), Share::zero(), BTreeSet::new());
        Lot { key, pool, of, begins, ends, resets_at, paid, unreversed, known_at, payments }
    }

    /// Adds credits that were paid at a time, or takes them back.
    pub(super) fn add(&mut self, at: Time, counted: Share, unreversed: Share) {
        self.paid.push((at, counted));
        self.unreversed += unreversed;
    }

    /// Adds what a payment is worth here, by the part of it that came back.
    pub(super) fn add_paid(&mut self, payment: &Payment, exact: Share, counted: Share) {
        let unreversed = if payment.came_back.is_forgiven() { exact } else { counted.clone() };
        self.add(payment.paid_at, counted, unreversed);
        self.known_at =
            Some(self.known_at.map_or(payment.known_at, |known_at| known_at.min(payment.known_at)));
        self.payments.insert((payment.paid_at, payment.id.clone()));
    }

    /// What it is worth: rounded down, once.
    pub(super) fn worth(&self) -> Result<i64, OutOfRange> {
        self.rounded(&self.sum(|_| true))
    }

    /// What was paid for it before a time.
    pub(super) fn worth_before(&self, at: Time) -> Result<i64, OutOfRange> {
        self.rounded(&self.sum(|paid_at| paid_at < at))
    }

    /// Whether its period starts before the horizon, or, of the trial, its time.
    pub(super) fn is_sealed(&self, horizon: Time) -> bool {
        match (&self.key, self.of) {
            (_, Some((_, period))) => period.start < horizon,
            (GrantKey::Trial, None) => self.begins < horizon,
            _ => false,
        }
    }

    /// What it would be worth without reversals that are forgiven.
    pub(super) fn worth_unreversed(&self) -> Result<i64, OutOfRange> {
        self.rounded(&self.unreversed)
    }

    /// Whether one of these payments paid for it.
    pub(super) fn is_paid_by(&self, payments: &[String]) -> bool {
        self.payments.iter().any(|(_, id)| payments.contains(id))
    }

    /// When it was last paid for.
    pub(super) fn last_paid_at(&self) -> Option<Time> {
        self.paid.iter().map(|(at, _)| *at).max()
    }

    fn sum(&self, counts: impl Fn(Time) -> bool) -> Share {
        self.paid.iter().filter(|(at, _)| counts(*at)).map(|(_, share)| share).sum()
    }

    fn rounded(&self, share: &Share) -> Result<i64, OutOfRange> {
        let fits = |credits: &i64| credits.checked_abs().is_some_and(|credits| credits <= MAX_HELD);
        floor(share).filter(fits).ok_or_else(|| OutOfRange::Credits(self.key.clone()))
    }
}

/// A period of a stream: what was billed and credited for it, and when it opens.
#[derive(Debug, Clone, Default)]
pub(super) struct PeriodLines {
    /// Credits that charges add.
    billed: Share,
    /// Credits that credit lines take back which cover all of it.
    given_back: Share,
    /// Whether its plan's credits expire with a canceled subscription.
    pub(super) expires_when_canceled: bool,
    /// The first payment of it that still counts.
    pub(super) opening: Option<PeriodOpening>,
}

/// How a period opens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct PeriodOpening {
    /// At its start or when it was first paid, whichever is later.
    pub(super) at: Time,
    /// When it was first paid.
    pub(super) paid_at: Time,
    /// When that became known.
    pub(super) known_at: Time,
    /// The most that it leaves of the periods before it.
    pub(super) max_rollover: Credits,
    /// Whether a discount brought its line to 0.
    pub(super) is_free: bool,
}

/// Every grant of the streams, and every period.
#[derive(Debug, Default)]
pub(super) struct Lots {
    pub(super) lots: BTreeMap<GrantKey, Lot>,
    pub(super) periods: BTreeMap<(StreamId, Period), PeriodLines>,
}

/// What the lines of all streams make.
pub(super) fn lots(billed: &[Billed], streams: &Streams) -> Result<Lots, OutOfRange> {
    let (periods, mut lots) = (Periods::of(billed), Lots::default());
    for line in billed.iter().filter(|line| line.counts) {
        let home = periods.home(line)?;
        lots.add(line, home, &periods, streams)?;
    }
    for period in lots.periods.values_mut() {
        // Given back from its start to its end, it displaces nothing, like one that was reversed whole.
        if period.billed > whole(0) && period.billed <= period.given_back {
            period.opening = None;
        }
    }
    lots.end_free_periods();
    Ok(lots)
}

impl Lots {
    /// Adds what a line is worth to the grants of its period.
    fn add(
        &mut self,
        line: &Billed,
        home: Home,
        periods: &Periods,
        streams: &Streams,
    ) -> Result<(), OutOfRange> {
        let shares = periods.shares(line, home)?.into_iter();
        let exact: Vec<_> = shares.map(|(window, held)| (window, held * whole(line.credits()))).collect();
        let counted = line.payment.counted();
        let item = periods.named_by(line.stream, home.period, streams);
        let pool = if line.is_plan() { Pool::Subscription } else { Pool::Purchased };
        let summed = self.periods.entry((line.stream, home.period)).or_default();
        // What money back takes of a charge it takes from the far end of its parts.
        let all: Share = exact.iter().map(|(_, exact)| exact).sum();
        let mut taken = all * (whole(1) - &counted.charge);
        let covers_all = line.period().start <= home.period.start && line.period().end >= home.period.end;
        for (window, exact) in exact.into_iter().rev().filter(|(_, exact)| !exact.is_zero()) {
            let key = GrantKey::Period {
                stream: item.clone(),
                period: home.period,
                part: line.drip().map(|_| window.start),
                pool,
            };
            let lot = self.lots.entry(key.clone()).or_insert_with(|| {
                let begins = window.start.max(home.period.start);
                Lot { of: Some((line.stream, home.period)), ..Lot::new(key, pool, begins) }
            });
            lot.lasts(line, window, home.period);
            if line.is_credit {
                let counted = exact.clone() * &counted.credit;
                if covers_all {
                    summed.given_back += &counted;
                }
                lot.add_paid(line.payment, -exact, -counted);
            } else {
                let gone = taken.clone().min(exact.clone());
                taken -= &gone;
                let counted = exact.clone() - gone;
                summed.billed += &counted;
                lot.add_paid(line.payment, exact, counted);
            }
        }
        if line.opens_periods() {
            summed.expires_when_canceled |= line.line.terms.expires_when_canceled;
            summed.open(line, home.period);
        }
        Ok(())
    }

    /// Adds grants that belong to no period.
    pub(super) fn add_all(&mut self, lots: impl IntoIterator<Item = Lot>) {
        self.lots.extend(lots.into_iter().map(|lot| (lot.key.clone(), lot)));
    }

    /// Of a period that a discount brought to 0 at most the share of its time that has run stays when the next period of its
    /// item opens. The next one is not paid for either, and Stripe's credit line may name less than was granted.
    fn end_free_periods(&mut self) {
        for (&(stream, period), lines) in &self.periods {
            let of_stream = self.periods.range((stream, period)..).take_while(|((of, _), _)| *of == stream);
            let openings = of_stream
                .filter(|((_, next), _)| next.start > period.start)
                .filter_map(|(_, next)| next.opening)
                .map(|opening| opening.at)
                .filter(|at| *at < period.end);
            let is_free = lines.opening.is_some_and(|opening| opening.is_free);
            let Some(next) = openings.min().filter(|_| is_free) else { continue };
            let own = self.lots.values_mut().filter(|lot| lot.of == Some((stream, period)));
            for lot in own.filter(|lot| lot.pool == Pool::Subscription) {
                let window = Period { start: lot.begins, end: lot.ends.unwrap_or(period.end) };
                let run = window.covered_by(Period { start: period.start, end: next });
                let billed: Share =
                    lot.paid.iter().map(|(_, share)| share).filter(|share| **share > whole(0)).sum();
                let over = lot.sum(|_| true) - run * billed;
                if over > whole(0) {
                    lot.add(next, -over.clone(), -over);
                }
            }
        }
    }
}

impl Lot {
    /// When its time is over, and when a renewal resets it, by one of its lines.
    fn lasts(&mut self, line: &Billed, window: Period, period: Period) {
        if !line.is_plan() {
            return;
        }
        let in_parts = line.drip().is_some();
        let resets = line.line.terms.max_rollover == Credits::ZERO;
        if in_parts {
            self.ends = self.ends.max(Some(window.end));
            self.resets_at = self.ends;
        } else if resets {
            self.resets_at = Some(period.end);
        }
    }
}

impl PeriodLines {
    /// Notes a charge. Of several that were paid at one time the one decides that takes least from the customer.
    fn open(&mut self, line: &Billed, period: Period) {
        let paid_at = line.payment.paid_at;
        let opening = PeriodOpening {
            at: period.start.max(paid_at),
            paid_at,
            known_at: line.payment.known_at,
            max_rollover: line.line.terms.max_rollover,
            is_free: line.is_free(),
        };
        self.opening = Some(match self.opening {
            None => opening,
            Some(known) => {
                let rank = |one: &PeriodOpening| (one.at, one.is_free, std::cmp::Reverse(one.max_rollover));
                let first = if rank(&opening) < rank(&known) { opening } else { known };
                PeriodOpening {
                    paid_at: known.paid_at.min(opening.paid_at),
                    known_at: known.known_at.min(opening.known_at),
                    ..first
                }
            }
        });
    }
}

/// Packs that an invoice sells with a plan or without one, and what sessions sold or was given.
pub(super) fn singles(facts: &Facts) -> Result<Vec<Lot>, OutOfRange> {
    let mut lots: BTreeMap<GrantKey, Lot> = BTreeMap::new();
    let payments = by_id(facts);
    for line in facts.lines.iter().filter(|line| line.is_sold_once()) {
        let Some(&payment) = payments.get(line.payment.as_str()) else { continue };
        let ignored = facts.no_payment_required == crate::catalog::NoPaymentRequired::Ignore;
        let is_free = line.amount.0 == line.discount.0 && !line.is_credit();
        if line.amount.0 == 0 && !line.is_credit() || is_free && ignored {
            continue;
        }
        let key = GrantKey::Single { source_id: payment.id.clone(), item: line.price.clone() };
        let lot = lots.entry(key.clone()).or_insert_with(|| Lot::new(key, Pool::Purchased, payment.paid_at));
        if let Some(after) = line.terms.expires_after {
            lot.ends = Some(after.after(payment.paid_at).ok_or(OutOfRange::Calendar(payment.paid_at))?);
        }
        let exact = whole(line.terms.credits.0) * whole(line.quantity.max(0));
        let counted = payment.counted();
        if line.is_credit() {
            lot.add_paid(payment, -exact.clone(), -exact * counted.credit);
        } else {
            lot.add_paid(payment, exact.clone(), exact * counted.charge);
        }
    }
    for single in &facts.singles {
        let key = GrantKey::Single { source_id: single.source_id.clone(), item: single.item.clone() };
        let lot = lots.entry(key.clone()).or_insert_with(|| Lot::new(key, single.pool, single.at));
        let exact = whole(single.credits.0);
        let counted = exact.clone() * (whole(1) - single.came_back.part());
        let unreversed = if single.came_back.is_forgiven() { exact } else { counted.clone() };
        lot.ends = single.expires_at;
        lot.add(single.at, counted, unreversed);
        lot.payments.insert((single.at, single.source_id.clone()));
    }
    Ok(lots.into_values().collect())
}
