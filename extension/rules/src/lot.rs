//! What a grant should hold, what it does hold, and the difference that the ledger posts.

use crate::amount::Credits;
use crate::calendar::Time;
use crate::text_enum::text_enum;

text_enum! {
    /// The three kinds of credits an account holds.
    Pool {
        /// From paid invoices of a subscription.
        Subscription => "subscription",
        /// Bought as packs.
        Purchased => "purchased",
        /// Given: signup, bonus, free plan, by hand.
        Promotional => "promotional",
    }
}

/// What one grant should hold by everything that is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewGrant {
    /// The price, or the purpose: with the payment's id it names the grant.
    pub item: String,
    /// What people call it: the ledger row's description.
    pub name: String,
    /// How many credits were granted in all.
    pub credits: Credits,
    /// Which pool.
    pub pool: Pool,
    /// When it can be spent from; `None`: at once.
    pub available_from: Option<Time>,
    /// When what is left of it lapses.
    pub lapses_at: Option<Time>,
    /// Of a subscription's lot: what was paid for.
    pub cycle: Option<Cycle>,
}

/// What of a subscription was paid for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cycle {
    /// `sub_…`.
    pub subscription_id: String,
    /// The plan's price.
    pub price_id: String,
    /// The line's period: from.
    pub start: Time,
    /// The line's period: to.
    pub end: Time,
    /// The most that this lot leaves of the lots before it.
    pub max_rollover: Credits,
    /// Whether it lapses with its period once the subscription is canceled.
    pub expires: bool,
    /// When Stripe's invoice was paid.
    pub paid_at: Time,
}

impl NewGrant {
    /// A lot that can be spent from at once and never lapses.
    #[must_use]
    pub fn new(item: String, name: String, credits: Credits, pool: Pool) -> NewGrant {
        NewGrant { item, name, credits, pool, available_from: None, lapses_at: None, cycle: None }
    }
}

/// What one grant was given so far, by the ledger.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExistingGrant {
    /// The grant's item.
    pub item: String,
    /// ExistingGrant so far, spent or not.
    pub credits: Credits,
}

/// The difference between what a payment is worth and what was granted for it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Difference {
    /// What to add, by item; none of them zero.
    pub add: Vec<NewGrant>,
    /// How many credits more were granted than this evidence says: a discrepancy to record, never taken back, since
    /// the evidence that granted them was Stripe's or the caller's word too.
    pub excess: Credits,
}

/// What to post so that a payment's grants hold the most that any evidence of it was worth. Evidence only adds:
/// line items that say more than the metadata did grant the difference, in either order the same total.
///
/// `None` where the totals leave a bigint.
#[must_use]
pub fn difference(held: &[ExistingGrant], worth: &[NewGrant]) -> Option<Difference> {
    let total_held = held.iter().try_fold(Credits::ZERO, |sum, held| sum.checked_add(held.credits))?;
    let total_worth = worth.iter().try_fold(Credits::ZERO, |sum, grant| sum.checked_add(grant.credits))?;
    let mut missing = total_worth.checked_sub(total_held)?;
    if missing <= Credits::ZERO {
        return Some(Difference { add: Vec::new(), excess: Credits(-missing.0) });
    }
    let mut add = Vec::new();
    for grant in worth {
        let holds =
            held.iter().find(|held| held.item == grant.item).map_or(Credits::ZERO, |held| held.credits);
        let credits = grant.credits.checked_sub(holds)?.clamp(Credits::ZERO, missing);
        if credits > Credits::ZERO {
            missing = missing.checked_sub(credits)?;
            add.push(NewGrant { credits, ..grant.clone() });
        }
    }
    Some(Difference { add, excess: Credits::ZERO })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn grants(credits: &[(u8, i64)]) -> Vec<NewGrant> {
        let mut grants: Vec<NewGrant> = Vec::new();
        for &(item, credits) in credits {
            let item = format!("price_{item}");
            if let Some(grant) = grants.iter_mut().find(|grant| grant.item == item) {
                grant.credits.0 += credits;
            } else {
                let (name, credits) = (item.clone(), Credits(credits));
                grants.push(NewGrant::new(item, name, credits, Pool::Purchased));
            }
        }
        grants
    }

    fn post(held: &mut Vec<ExistingGrant>, worth: &[NewGrant]) {
        for grant in difference(held, worth).expect("small numbers").add {
            assert!(grant.credits > Credits::ZERO);
            match held.iter_mut().find(|held| held.item == grant.item) {
                Some(held) => held.credits.0 += grant.credits.0,
                None => held.push(ExistingGrant { item: grant.item, credits: grant.credits }),
            }
        }
    }

    fn total(held: &[ExistingGrant]) -> i64 {
        held.iter().map(|held| held.credits.0).sum()
    }

    proptest! {
        #[test]
        fn in_every_order_and_repetition_a_payment_ends_at_its_best_evidence(
            evidence in proptest::collection::vec(proptest::collection::vec((0..3u8, 0..900i64), 0..4), 1..4),
            order in proptest::collection::vec(any::<prop::sample::Index>(), 0..12),
        ) {
            let best = evidence.iter().map(|e| e.iter().map(|(_, c)| c).sum::<i64>()).max().unwrap_or(0);
            let mut held = Vec::new();
            for at in order {
                post(&mut held, &grants(&evidence[at.index(evidence.len())]));
                prop_assert!(total(&held) <= best);
            }
            for e in &evidence {
                post(&mut held, &grants(e));
            }
            prop_assert_eq!(total(&held), best);
        }
    }
}
