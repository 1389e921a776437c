//! Which periods lines open, and which period each line changes (rule 7).

use std::collections::{BTreeMap, BTreeSet};

use super::OutOfRange;
use super::facts::{Period, StreamKey};
use super::intervals::{counted_back, own_parts, part_count, parts};
use super::lines::Billed;
use super::share::{Share, whole};
use super::succession::{StreamId, Streams};
use crate::calendar::{Span, Time};

/// The periods of all streams.
pub(super) struct Periods<'a> {
    lines: &'a [Billed<'a>],
    /// Those that prorated charges opened.
    own: BTreeMap<(StreamId, Period), Opener>,
}

/// What of a prorated charge decides the parts of the period that it opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Opener {
    interval: Span,
    drip: Option<Span>,
}

impl Opener {
    fn of(billed: &Billed) -> Opener {
        Opener { interval: billed.interval, drip: billed.drip() }
    }
}

/// Where a line counts, and by which time its share is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Home {
    /// The period that it opens or changes.
    pub(super) period: Period,
    /// The interval of its price that ends with it.
    interval: Period,
}

impl<'a> Periods<'a> {
    /// The periods that these lines open.
    pub(super) fn of(lines: &'a [Billed<'a>]) -> Periods<'a> {
        Periods { lines, own: own_periods(lines) }
    }

    /// Where a line counts.
    pub(super) fn home(&self, billed: &Billed) -> Result<Home, OutOfRange> {
        let line = billed.period();
        if billed.is_whole {
            return Ok(Home { period: line, interval: line });
        }
        let interval = self.interval_before(billed)?;
        if self.own.contains_key(&(billed.stream, line)) {
            return Ok(Home { period: line, interval });
        }
        if let Some(period) = self.ending_with(billed) {
            return Ok(Home { period, interval });
        }
        if billed.is_credit
            && let Some((period, alike)) = self.running_at(billed)
            && (line.end <= period.end || billed.drip().is_none())
        {
            let interval = if alike && line.end <= period.end { period } else { interval };
            return Ok(Home { period, interval });
        }
        let same_end =
            self.lines.iter().filter(|other| other.stream == billed.stream && other.period().end == line.end);
        let start = same_end.map(|other| other.period().start).min().unwrap_or(line.start);
        Ok(Home { period: Period { start, end: line.end }, interval })
    }

    /// The windows of the period in which a line has credits, and how many times its units' credits each has.
    pub(super) fn shares(&self, billed: &Billed, home: Home) -> Result<Vec<(Period, Share)>, OutOfRange> {
        let line = billed.period();
        let covered = |(window, held): (Period, Share)| (window, held * window.covered_by(line));
        let ends_with_it = line.end == home.period.end;
        let is_own = self.own.get(&(billed.stream, home.period)) == Some(&Opener::of(billed));
        // A line that ends otherwise is worth its length ÷ interval, also beyond the period, unless it comes in parts.
        if !billed.is_whole && is_own && (ends_with_it || billed.drip().is_some()) {
            let interval =
                if ends_with_it { home.interval } else { counted_back(home.period.end, billed.interval)? };
            let windows = own_parts(home.period, billed.interval, interval, billed.drip())?;
            return Ok(windows.into_iter().map(covered).collect());
        }
        let Some(drip) = billed.drip() else {
            let held = if billed.is_whole {
                whole(1)
            } else {
                super::share::share(line.seconds(), home.interval.seconds())
            };
            return Ok(vec![(home.interval, held)]);
        };
        let windows = parts(home.interval, drip, part_count(billed.interval, drip));
        Ok(windows.into_iter().map(|window| covered((window, whole(1)))).collect())
    }

    /// The item that names a period's grants: of the lines that are the period, a whole one's, the first in its stream.
    pub(super) fn named_by(&self, stream: StreamId, period: Period, streams: &Streams) -> StreamKey {
        let own = self.lines.iter().filter(|line| line.stream == stream && line.period() == period);
        let first = own.min_by_key(|line| {
            (!line.is_whole, line.is_credit, streams.place(&line.item), &line.item, &line.payment.id)
        });
        first.map_or_else(|| streams.items(stream)[0].clone(), |line| line.item.clone())
    }

    /// Whole lines that a line can be about: a credit is for what was billed before, never for a period that a whole line of
    /// its own invoice opens.
    fn whole_lines(&self, of: &Billed) -> impl Iterator<Item = &Billed<'a>> {
        let own_invoice = of.is_credit.then(|| of.payment.id.clone());
        let line = of.period();
        self.lines.iter().filter(move |other| {
            other.is_whole
                && other.period().start <= line.start
                && own_invoice.as_deref() != Some(other.payment.id.as_str())
        })
    }

    /// The interval by which a line's time is measured: that of a period of its subscription which a whole line of the same
    /// interval opened and which ends when the line ends, else counted back from the line's end.
    ///
    /// Months end on one day from several starts (28 February): the latest that began before the line counts, its own
    /// item's first, and one that began with it only if there is no other.
    fn interval_before(&self, billed: &Billed) -> Result<Period, OutOfRange> {
        let line = billed.period();
        let alike = self.whole_lines(billed).filter(|other| {
            other.item.subscription == billed.item.subscription
                && other.period().end == line.end
                && other.interval == billed.interval
        });
        let rank = |other: &Billed| {
            let (start, same_stream) = (other.period().start, other.stream == billed.stream);
            (start < line.start, same_stream, start)
        };
        match alike.max_by_key(|other| rank(other)) {
            Some(found) => Ok(found.period()),
            None => counted_back(line.end, billed.interval),
        }
    }

    /// The period of a line's stream that ends when the line ends and did not begin after it: one that a whole line opened
    /// first, of several the one that began last before the line.
    fn ending_with(&self, billed: &Billed) -> Option<Period> {
        let line = billed.period();
        let last = |periods: &mut dyn Iterator<Item = Period>| {
            periods
                .filter(|period| period.end == line.end)
                .max_by_key(|period| (period.start < line.start, period.start))
        };
        let own_stream = |other: &&Billed| other.stream == billed.stream;
        last(&mut self.whole_lines(billed).filter(own_stream).map(Billed::period))
            .or_else(|| last(&mut self.own_before(billed)))
    }

    /// The period of a credit's stream in which the credit begins, and whether a whole line of the credit's own interval
    /// opened it.
    fn running_at(&self, billed: &Billed) -> Option<(Period, bool)> {
        let begins = |period: &Period| billed.period().start < period.end;
        let own_stream = |other: &&Billed| other.stream == billed.stream;
        let wholes = || self.whole_lines(billed).filter(own_stream);
        let period = wholes().map(Billed::period).chain(self.own_before(billed)).filter(begins).max()?;
        let alike = wholes().any(|other| other.period() == period && other.interval == billed.interval);
        Some((period, alike))
    }

    /// The periods that prorated charges of a line's stream opened, not after the line.
    fn own_before(&self, billed: &Billed) -> impl Iterator<Item = Period> {
        let (stream, start) = (billed.stream, billed.period().start);
        self.own
            .keys()
            .filter(move |(of, period)| *of == stream && period.start <= start)
            .map(|(_, period)| *period)
    }
}

/// The periods that prorated charges open: those that find no period of their stream which ends with them, and those that
/// start where one ends while no whole line's period ends with them: the anchor or the interval moved, and they are paid
/// ahead. Charges that were reversed whole open none.
fn own_periods(lines: &[Billed]) -> BTreeMap<(StreamId, Period), Opener> {
    let mut known: BTreeMap<StreamId, KnownPeriods> = BTreeMap::new();
    for line in lines.iter().filter(|line| line.is_whole) {
        known.entry(line.stream).or_default().add(line.period(), true);
    }
    let mut charges: Vec<&Billed> = lines
        .iter()
        .filter(|line| !line.is_credit && !line.is_whole && line.counts && !line.payment.is_reversed_whole())
        .collect();
    charges.sort_by_key(|line| (line.period(), &line.payment.id, &line.line.price));
    let mut own = BTreeMap::new();
    for charge in charges {
        let (period, known) = (charge.period(), known.entry(charge.stream).or_default());
        let (found, by_whole) = known.ending_with(period);
        if !found || (known.ends.contains(&period.start) && !by_whole) {
            known.add(period, false);
            own.insert((charge.stream, period), Opener::of(charge));
        }
    }
    own
}

/// The periods of one stream that are known so far, by their ends.
#[derive(Default)]
struct KnownPeriods {
    ends: BTreeSet<Time>,
    /// End, start, whether a whole line opened it.
    periods: BTreeSet<(Time, Time, bool)>,
}

impl KnownPeriods {
    fn add(&mut self, period: Period, by_whole: bool) {
        self.ends.insert(period.end);
        self.periods.insert((period.end, period.start, by_whole));
    }

    /// Whether a period ends with this one and does not begin after it, and whether a whole line opened one of those.
    fn ending_with(&self, period: Period) -> (bool, bool) {
        let not_after = (period.end, Time::MIN_UTC, false)..=(period.end, period.start, true);
        let ending = self.periods.range(not_after);
        ending.fold((false, false), |(_, whole), (.., by_whole)| (true, whole || *by_whole))
    }
}
