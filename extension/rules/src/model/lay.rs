//! What each line of a period is worth, and in which part of it.

use std::collections::BTreeMap;

use super::lines::Kind;
use super::number::{Fraction, ratio, whole};
use super::periods::{Part, Period, Placed, parts_of_interval};

/// What one line adds to a grant, or takes from it.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub(super) paid_at: i64,
    pub(super) worth: Fraction,
    /// Whether it is of a whole line that a discount brought to 0.
    pub(super) is_free_whole: bool,
}

/// The entries of each grant of a period: by the part's start, or the one grant of what does not drip.
pub(super) fn entries(period: &Period, parts: &[Part]) -> BTreeMap<Option<i64>, Vec<Entry>> {
    let mut grants: BTreeMap<Option<i64>, Vec<Entry>> = BTreeMap::new();
    for part in parts {
        grants.entry(Some(part.start)).or_default();
    }
    for placed in &period.lines {
        let line = &placed.line;
        let worths = match line.sold.plan().and_then(|price| price.drip) {
            Some(_) if !parts.is_empty() => in_parts(placed, parts),
            _ => vec![(None, at_once(placed))],
        };
        for (part, worth) in worths {
            let is_free_whole = line.kind == Kind::Whole && line.is_free;
            grants.entry(part).or_default().push(Entry { paid_at: line.paid_at, worth, is_free_whole });
        }
    }
    grants
}

fn signed(placed: &Placed, worth: Fraction) -> Fraction {
    if placed.line.kind == Kind::Credit { -worth } else { worth }
}

/// "Worth credits × quantity × its length ÷ the interval of its price." "Where a price drips, `credits` is what one part
/// holds, the period holds that times its number of parts."
fn at_once(placed: &Placed) -> Fraction {
    let line = &placed.line;
    let drip = line.sold.plan().and_then(|price| price.drip);
    let parts = drip.map_or(whole(1), |drip| parts_of_interval(line.interval, drip));
    let full = whole(line.sold.credits()) * whole(line.quantity) * parts * &placed.intervals;
    signed(placed, full * &line.counts)
}

/// "Of a price in parts, for each part the share of that part's time that it covers, the running part included": "of
/// each part, its worth × the share of its time".
fn in_parts(placed: &Placed, parts: &[Part]) -> Vec<(Option<i64>, Fraction)> {
    let line = &placed.line;
    let unit = whole(line.sold.credits()) * whole(line.quantity);
    let mut worths: Vec<(Option<i64>, Fraction)> = Vec::new();
    for part in parts {
        let covered = (line.end.min(part.end) - line.start.max(part.start)).max(0);
        // What opened the period covers all of it.
        let share = if placed.opens { whole(1) } else { ratio(covered, part.end - part.start) };
        worths.push((Some(part.start), &unit * &part.unit * share));
    }
    // "Of a line in parts [money back] takes from the far end."
    let total = worths.iter().fold(whole(0), |sum, (_, worth)| sum + worth);
    let mut back = total * (whole(1) - &line.counts);
    for (_, worth) in worths.iter_mut().rev() {
        let taken = if *worth < back { worth.clone() } else { back.clone() };
        *worth -= &taken;
        back -= taken;
    }
    worths.into_iter().map(|(part, worth)| (part, signed(placed, worth))).collect()
}
