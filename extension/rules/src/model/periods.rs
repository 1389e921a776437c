//! Which period of its stream each line opens or changes (rule 7).

use super::lines::{Kind, Line};
use super::number::{Fraction, Span, ratio, whole};
use super::subscription::Stream;

/// What opened a period.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Origin {
    Whole,
    /// A prorated charge of its own.
    Charge,
    /// A credit that found no period: "worth less than nothing".
    Credit,
}

/// "A *period* is what a line opens."
#[derive(Debug, Clone)]
pub(super) struct Period {
    pub(super) stream: Stream,
    /// Whether it is of packs, whose credits are purchased for good.
    pub(super) is_purchased: bool,
    pub(super) start: i64,
    pub(super) end: i64,
    pub(super) origin: Origin,
    pub(super) lines: Vec<Placed>,
}

/// A line in its period.
#[derive(Debug, Clone)]
pub(super) struct Placed {
    pub(super) line: Line,
    /// How many intervals of its price the line is long; a whole line of its interval's length is 1.
    pub(super) intervals: Fraction,
    pub(super) opens: bool,
}

impl Period {
    pub(super) fn seconds(&self) -> i64 {
        self.end - self.start
    }

    pub(super) fn openers(&self) -> impl Iterator<Item = &Line> {
        self.lines.iter().filter(|placed| placed.opens).map(|placed| &placed.line)
    }

    /// "When it was first paid"; nothing if it is reversed whole.
    pub(super) fn first_paid_at(&self) -> Option<i64> {
        self.openers().filter(|line| line.stands).map(|line| line.paid_at).min()
    }

    fn is(&self, line: &Line) -> bool {
        Some(&self.stream) == line.stream.as_ref() && self.is_purchased == line.sold.plan().is_none()
    }

    /// Whether whole lines of this invoice, and of no other, open it.
    fn is_opened_only_by(&self, invoice: &str) -> bool {
        self.origin == Origin::Whole && self.openers().all(|line| line.invoice == invoice)
    }
}

/// All periods of all streams, with every line of a stream in one of them.
pub(super) fn periods(lines: &[Line]) -> Vec<Period> {
    let of_kind = |kind| {
        let its = lines.iter().filter(move |line| line.kind == kind && line.stream.is_some());
        let mut its: Vec<Line> = its.filter(|line| line.seconds() > 0).cloned().collect();
        its.sort_by_key(|line| (line.start, line.end, line.paid_at, line.invoice_created, line.place));
        its
    };
    let mut periods = Vec::new();
    for line in of_kind(Kind::Whole) {
        // A pack's line that is prorated by its dates alone "counts whole, whatever its period".
        let intervals = if line.sold.plan().is_some() { whole_line_intervals(&line) } else { whole(1) };
        open(&mut periods, line, Origin::Whole, intervals);
    }
    for line in of_kind(Kind::Charge) {
        place_charge(&mut periods, line);
    }
    for line in of_kind(Kind::Credit) {
        place_credit(&mut periods, line);
    }
    periods
}

/// "Whole lines of one stream with one start and one end make one period, whatever their prices."
fn open(periods: &mut Vec<Period>, line: Line, origin: Origin, intervals: Fraction) {
    let same = |period: &&mut Period| {
        let is_credit = (period.origin == Origin::Credit, origin == Origin::Credit);
        is_credit.0 == is_credit.1 && period.is(&line) && (period.start, period.end) == (line.start, line.end)
    };
    let known = periods.iter_mut().find(same).map(|period| &mut period.lines);
    let placed = Placed { line, intervals, opens: true };
    match known {
        Some(lines) => lines.push(placed),
        None => periods.push(Period {
            stream: placed.line.stream.clone().expect("a line of a stream"),
            is_purchased: placed.line.sold.plan().is_none(),
            start: placed.line.start,
            end: placed.line.end,
            origin,
            lines: vec![placed],
        }),
    }
}

/// "A line of a plan's price that is shorter or longer than its interval by more than a tenth still opens its period and
/// counts by its length ÷ interval."
fn whole_line_intervals(line: &Line) -> Fraction {
    let interval = line.interval.seconds_before(line.end);
    let differs = (line.seconds() - interval).abs() * 10 > interval;
    if differs { ratio(line.seconds(), interval) } else { whole(1) }
}

/// "Changes the period of its stream that ends when the line ends and does not begin after it; one that a whole line
/// opened comes first, of several the one that began last before the line."
fn period_that_ends_with<'a>(
    periods: impl Iterator<Item = (usize, &'a Period)>,
    line: &Line,
) -> Option<usize> {
    let its =
        periods.filter(|(_, period)| period.is(line) && period.end == line.end && period.start <= line.start);
    its.max_by_key(|(_, period)| (period.origin == Origin::Whole, period.start)).map(|(at, _)| at)
}

fn place_charge(periods: &mut Vec<Period>, line: Line) {
    let found = period_that_ends_with(periods.iter().enumerate(), &line);
    let its = || periods.iter().filter(|period| period.is(&line));
    // "Or starts where a period of its stream ends while no whole line's period ends with it": a period of its own.
    let follows = its().any(|period| period.end == line.start);
    let ends_with_whole = its().any(|period| period.origin == Origin::Whole && period.end == line.end);
    if let Some(at) = found.filter(|_| !follows || ends_with_whole) {
        let intervals =
            intervals_of_own(&periods[at], &line).unwrap_or_else(|| line_intervals(periods, &line));
        periods[at].lines.push(Placed { line, intervals, opens: false });
    } else {
        let intervals = own_intervals(periods, &line);
        open(periods, line, Origin::Charge, intervals);
    }
}

fn place_credit(periods: &mut Vec<Period>, line: Line) {
    let is_own = |period: &Period| period.is(&line) && (period.start, period.end) == (line.start, line.end);
    let exact = periods.iter().position(|period| period.origin == Origin::Charge && is_own(period));
    // "A credit never changes a period that a whole line of its own invoice opens."
    let allowed =
        || periods.iter().enumerate().filter(|(_, period)| !period.is_opened_only_by(&line.invoice));
    let paid = || allowed().filter(|(_, period)| period.origin != Origin::Credit);
    if let Some(at) = exact.or_else(|| period_that_ends_with(paid(), &line)) {
        let intervals =
            intervals_of_own(&periods[at], &line).unwrap_or_else(|| line_intervals(periods, &line));
        periods[at].lines.push(Placed { line, intervals, opens: false });
        return;
    }
    // "One that ends with no period of its stream changes the one it begins in, by its length ÷ the interval counted
    // back from its end; one that begins in none makes a period of its own, worth less than nothing."
    let begins_in = |(_, period): &(usize, &Period)| {
        period.is(&line) && period.start <= line.start && line.start < period.end
    };
    let found =
        paid().filter(begins_in).max_by_key(|(_, period)| (period.origin == Origin::Whole, period.start));
    let counted_back = ratio(line.seconds(), line.interval.seconds_before(line.end));
    if let Some((at, _)) = found {
        periods[at].lines.push(Placed { line, intervals: counted_back, opens: false });
    } else {
        let intervals = line_intervals(periods, &line);
        open(periods, line, Origin::Credit, intervals);
    }
}

/// A line with the start and end of the period that a prorated charge opened is as long as that charge.
fn intervals_of_own(period: &Period, line: &Line) -> Option<Fraction> {
    let is_same = (period.start, period.end) == (line.start, line.end);
    let mut openers =
        period.lines.iter().filter(|placed| placed.opens && placed.line.interval == line.interval);
    let opener = openers.next().filter(|_| is_same && period.origin == Origin::Charge)?;
    Some(opener.intervals.clone())
}

/// "Its length ÷ the interval of its price."
fn line_intervals(periods: &[Period], line: &Line) -> Fraction {
    ratio(line.seconds(), interval_seconds(periods, line))
}

/// "The length of a period of its subscription that a whole line of the same interval opened and that ends when the line
/// ends, else the interval counted back from the line's end by the calendar; never the length of a period that is
/// shorter than its interval."
fn interval_seconds(periods: &[Period], line: &Line) -> i64 {
    let back = line.interval.seconds_before(line.end);
    let subscription = line.stream.as_ref().map(|stream| &stream.subscription);
    let its = periods.iter().filter(|period| {
        let is_whole =
            period.origin == Origin::Whole && period.openers().any(|line_| line_.interval == line.interval);
        let is_short = (back - period.seconds()) * 10 > back;
        is_whole && !is_short && Some(&period.stream.subscription) == subscription && period.end == line.end
    });
    its.map(Period::seconds).max().unwrap_or(back)
}

/// "Within 60 s of whole intervals it is whole."
fn own_intervals(periods: &[Period], line: &Line) -> Fraction {
    const TOLERANCE: i64 = 60;
    for count in 1.. {
        let start = line.interval.after(line.end, -count);
        if (start - line.start).abs() <= TOLERANCE {
            return whole(count);
        }
        if start < line.start {
            break;
        }
    }
    line_intervals(periods, line)
}

/// A part of a period: "whole parts from its start until the worth is used up".
#[derive(Debug, Clone)]
pub(super) struct Part {
    pub(super) start: i64,
    pub(super) end: i64,
    /// How much of a whole part it holds; the last one may be smaller.
    pub(super) unit: Fraction,
}

/// How many parts the interval of a line's price has.
pub(super) fn parts_of_interval(interval: Span, drip: Span) -> Fraction {
    interval.months() / drip.months()
}

impl Period {
    /// "A paid year comes in months, counted so that neither a clamped start nor a leap day makes one too many." A
    /// period whose price does not drip has none.
    pub(super) fn parts(&self) -> Vec<Part> {
        let mut openers = self.lines.iter().filter(|placed| placed.opens);
        let dripping = openers.find_map(|placed| Some((placed, placed.line.sold.plan()?.drip?)));
        let Some((placed, drip)) = dripping else { return Vec::new() };
        let mut left = parts_of_interval(placed.line.interval, drip) * &placed.intervals;
        let mut parts: Vec<Part> = Vec::new();
        while left > whole(0) {
            let count = i64::try_from(parts.len()).expect("few parts");
            let start = drip.after(self.start, count);
            let unit = if left < whole(1) { left.clone() } else { whole(1) };
            left -= &unit;
            match parts.last_mut() {
                // No time is left for another part.
                Some(last) if start >= self.end => last.unit += unit,
                _ => parts.push(Part { start, end: drip.after(self.start, count + 1).min(self.end), unit }),
            }
            if start >= self.end {
                // What is left has no part of its own either.
                if let Some(last) = parts.last_mut() {
                    last.unit += std::mem::replace(&mut left, whole(0));
                }
            }
        }
        if let Some(last) = parts.last_mut() {
            last.end = self.end;
        }
        parts
    }
}
