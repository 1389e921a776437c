//! Which thresholds a change of a balance crosses. Whatever follows a balance decides by this: no state is needed for
//! "once per crossing", because a change has the balance before it and the balance after it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::amount::Credits;

/// The most thresholds that one plan may have.
pub const MAX_THRESHOLDS: usize = 10;

/// Balances of which the app wants to be told when they fall to one of these or below: 1 or more, highest first.
pub type Thresholds = Vec<Credits>;

/// The thresholds of every user, by the plan that names the user's tier.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct LowCredits {
    /// Of users whose plan has none of its own, and of users without a plan.
    pub default: Thresholds,
    /// By the plan's key; an empty list: nothing is told.
    pub plans: BTreeMap<String, Thresholds>,
}

impl LowCredits {
    /// The thresholds that count for a user of a tier.
    #[must_use]
    pub fn of(&self, tier: &str) -> &[Credits] {
        self.plans.get(tier).unwrap_or(&self.default)
    }
}

/// Whether a balance that was above a threshold is at or below it now.
#[must_use]
pub fn falls_to(threshold: Credits, before: Credits, after: Credits) -> bool {
    before > threshold && after <= threshold
}

/// A fall of a balance to one of its thresholds or below, or to nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Crossing {
    /// To some of its thresholds: those that it crossed, highest first, of which there is one at least.
    Low(Thresholds),
    /// To nothing.
    Exhausted,
}

/// What a change of a balance crosses, if anything. A fall to nothing is only that, whatever it passed on the way.
#[must_use]
pub fn crossing(thresholds: &[Credits], before: Credits, after: Credits) -> Option<Crossing> {
    if falls_to(Credits::ZERO, before, after) {
        return Some(Crossing::Exhausted);
    }
    let crossed = thresholds.iter().copied().filter(|threshold| falls_to(*threshold, before, after));
    let crossed: Thresholds = crossed.collect();
    (!crossed.is_empty()).then_some(Crossing::Low(crossed))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn low(before: i64, after: i64) -> Option<Crossing> {
        crossing(&[Credits(100), Credits(10)], Credits(before), Credits(after))
    }

    #[test]
    fn a_threshold_is_crossed_by_the_fall_to_it_and_again_only_after_a_rise_above_it() {
        assert_eq!(low(101, 100), Some(Crossing::Low(vec![Credits(100)])));
        assert_eq!(low(100, 99), None);
        assert_eq!(low(99, 100), None, "at the threshold it is not above it");
        assert_eq!(low(100, 50), None);
        assert_eq!(low(50, 101), None, "a rise crosses nothing");
        assert_eq!(low(101, 100), Some(Crossing::Low(vec![Credits(100)])));
    }

    #[test]
    fn a_fall_over_several_thresholds_is_one_crossing_and_a_fall_to_nothing_is_only_that() {
        assert_eq!(low(500, 7), Some(Crossing::Low(vec![Credits(100), Credits(10)])));
        assert_eq!(low(500, 0), Some(Crossing::Exhausted));
        assert_eq!(low(1, 0), Some(Crossing::Exhausted));
        assert_eq!(low(0, 0), None);
        assert_eq!(crossing(&[], Credits(3), Credits(0)), Some(Crossing::Exhausted));
        assert_eq!(crossing(&[], Credits(3), Credits(1)), None);
    }

    #[test]
    fn a_plan_has_its_own_thresholds_or_the_default_ones() {
        let thresholds = LowCredits {
            default: vec![Credits(5)],
            plans: BTreeMap::from([("pro".to_owned(), vec![Credits(1000)]), ("max".to_owned(), Vec::new())]),
        };
        assert_eq!(thresholds.of("pro"), [Credits(1000)]);
        assert_eq!(thresholds.of("max"), []);
        assert_eq!(thresholds.of("free"), [Credits(5)]);
    }
}
