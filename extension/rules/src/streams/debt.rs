//! Debt (rule 9): what was drawn beyond what grants are worth, and from what it is settled.

use super::facts::GrantKey;
use super::{State, Target};
use crate::amount::Credits;
use crate::lot::Pool;

/// What is owed of all grants together, before settlements.
#[must_use]
pub fn owed(targets: &[Target]) -> Credits {
    Credits(targets.iter().map(|target| target.owed.0).fold(0, i64::saturating_add))
}

/// The grants that can be spent from, in draw order (rule 8): what would be lost soonest first, then subscription before
/// promotional before purchased, then the oldest.
#[must_use]
pub fn draw_order(targets: &[Target]) -> Vec<&Target> {
    let open = |target: &&Target| target.state == State::Open && target.remaining > Credits::ZERO;
    let mut in_order: Vec<&Target> = targets.iter().filter(open).collect();
    in_order.sort_by_key(|target| {
        let pool = match target.pool {
            Pool::Subscription => 0,
            Pool::Promotional => 1,
            Pool::Purchased => 2,
        };
        (target.priority_at.is_none(), target.priority_at, pool, target.available_from, &target.key)
    });
    in_order
}

/// What to draw so that the debt is settled as far as it can be, and what to give back of earlier settlements, as amounts
/// below 0, if less is owed than was settled: the latest first.
///
/// `settled` are the settlements so far, in their order, those that were given back among them. To be asked once for
/// each change of the targets.
#[must_use]
pub fn settle(targets: &[Target], settled: &[(GrantKey, Credits)]) -> Vec<(GrantKey, Credits)> {
    let total: i64 = settled.iter().map(|(_, credits)| credits.0).sum();
    let debt = owed(targets).0 - total;
    if debt < 0 { give_back(targets, settled, -debt) } else { take(targets, debt) }
}

fn take(targets: &[Target], mut debt: i64) -> Vec<(GrantKey, Credits)> {
    let mut taken = Vec::new();
    for target in draw_order(targets) {
        let credits = target.remaining.0.min(debt);
        if credits > 0 {
            taken.push((target.key.clone(), Credits(credits)));
            debt -= credits;
        }
    }
    taken
}

fn give_back(targets: &[Target], settled: &[(GrantKey, Credits)], excess: i64) -> Vec<(GrantKey, Credits)> {
    let mut latest: Vec<&GrantKey> = Vec::new();
    for (grant, _) in settled.iter().rev() {
        if !latest.contains(&grant) {
            latest.push(grant);
        }
    }
    let standing = |grant: &GrantKey| {
        let own: i64 = settled.iter().filter(|(known, _)| known == grant).map(|(_, credits)| credits.0).sum();
        let target = targets.iter().find(|target| target.key == *grant);
        let beyond = target.map_or(0, |target| (target.drawn.0 + target.moved.0 - target.worth.0).max(0));
        Standing {
            settled: Credits(own),
            beyond: Credits(beyond),
            owed: target.map_or(Credits::ZERO, |target| target.owed),
        }
    };
    let standings: Vec<Standing> = latest.iter().map(|grant| standing(grant)).collect();
    let back = returned(&standings, Credits(excess)).into_iter();
    let back = latest.into_iter().zip(back).filter(|(_, credits)| *credits > Credits::ZERO);
    back.map(|(grant, credits)| (grant.clone(), Credits(-credits.0))).collect()
}

/// A grant that settled debt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standing {
    /// What of it did, and was not given back.
    pub settled: Credits,
    /// What is drawn of it beyond its worth.
    pub beyond: Credits,
    /// Of that: what is owed, without what is forgiven.
    pub owed: Credits,
}

/// What to give back to each grant if this much more was settled than is owed; the one that settled last comes first.
///
/// What is given back to a grant that is itself drawn beyond its worth repays that first: then less is owed too, and as much
/// more has to be given back.
#[must_use]
pub fn returned(latest_first: &[Standing], excess: Credits) -> Vec<Credits> {
    let mut left = excess.0;
    let give = |standing: &Standing| {
        let Standing { settled, beyond, owed } = standing;
        let forgiven = beyond.0 - owed.0;
        let credits = if left <= forgiven { left } else { left.saturating_add(owed.0) }.clamp(0, settled.0);
        let less_owed = (credits - forgiven).clamp(0, owed.0);
        left -= credits - less_owed;
        Credits(credits)
    };
    latest_first.iter().map(give).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn standings() -> impl Strategy<Value = Vec<Standing>> {
        let one = (0..1000i64, 0..1000i64, 0..1000i64).prop_map(|(settled, owed, forgiven)| Standing {
            settled: Credits(settled),
            beyond: Credits(owed + forgiven),
            owed: Credits(owed),
        });
        proptest::collection::vec(one, 0..5)
    }

    proptest! {
        #[test]
        fn after_it_as_much_is_settled_as_is_owed_unless_nothing_is_settled_any_more(
            standings in standings(),
            beside in 0..1000i64,
        ) {
            let sum = |of: fn(&Standing) -> Credits| standings.iter().map(|one| of(one).0).sum::<i64>();
            let owed_beside = beside;
            let excess = sum(|one| one.settled) - sum(|one| one.owed) - owed_beside;
            let back = returned(&standings, Credits(excess));
            let (mut settled, mut owed) = (0, owed_beside);
            for (one, back) in standings.iter().zip(&back) {
                prop_assert!(*back >= Credits::ZERO && *back <= one.settled);
                settled += one.settled.0 - back.0;
                owed += one.owed.0.min((one.beyond.0 - back.0).max(0));
            }
            if excess <= 0 {
                prop_assert!(back.iter().all(|back| *back == Credits::ZERO));
            } else {
                prop_assert_eq!(settled.max(owed), owed, "no more is settled than is owed");
                prop_assert!(settled == owed || back.last().is_some());
            }
        }
    }
}
