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
/// each change of the targets: what is given back to a grant that is itself drawn beyond its worth repays that first, and
/// what is then still too much comes back with the next change.
#[must_use]
pub fn settle(targets: &[Target], settled: &[(GrantKey, Credits)]) -> Vec<(GrantKey, Credits)> {
    let total: i64 = settled.iter().map(|(_, credits)| credits.0).sum();
    let debt = owed(targets).0 - total;
    if debt < 0 { give_back(settled, -debt) } else { take(targets, debt) }
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

fn give_back(settled: &[(GrantKey, Credits)], mut excess: i64) -> Vec<(GrantKey, Credits)> {
    let standing = |grant: &GrantKey, back: &[(GrantKey, Credits)]| -> i64 {
        let own = settled.iter().chain(back).filter(|(known, _)| known == grant);
        own.map(|(_, credits)| credits.0).sum()
    };
    let mut back: Vec<(GrantKey, Credits)> = Vec::new();
    for (grant, _) in settled.iter().rev() {
        let credits = excess.min(standing(grant, &back));
        if credits > 0 {
            back.push((grant.clone(), Credits(-credits)));
            excess -= credits;
        }
    }
    back
}
