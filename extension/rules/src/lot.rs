//! What a payment should have granted, what it has granted, and the difference that the ledger posts.

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
        /// Granted without a payment: for a signup, as a bonus, by the free plan, or by hand.
        Promotional => "promotional",
    }
}

text_enum! {
    /// What says which packs a payment bought, worst first.
    Evidence {
        /// A payment intent's metadata.
        PaymentIntent => "payment_intent",
        /// A session's metadata.
        Metadata => "metadata",
        /// Stripe's lines, of the session or of its invoice, or a direct call.
        Lines => "lines",
    }
}

/// A grant that should exist by everything that is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewGrant {
    /// Its price or its purpose. Unique within the payment.
    pub item: String,
    /// For people to read: the description of the ledger's row.
    pub name: String,
    /// Its whole amount, spent or not.
    pub credits: Credits,
    /// Where it counts.
    pub pool: Pool,
    /// `None`: at once.
    pub available_from: Option<Time>,
    /// `None`: never.
    pub expires_at: Option<Time>,
    /// The period of a subscription that was paid for, if it is a subscription's.
    pub cycle: Option<Cycle>,
}

/// A paid period of a subscription.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cycle {
    /// `sub_…`.
    pub subscription_id: String,
    /// The plan's price.
    pub price_id: String,
    /// From the line's period.
    pub start: Time,
    /// From the line's period.
    pub end: Time,
    /// The most credits of earlier lots that this lot leaves.
    pub max_rollover: Credits,
    /// Whether it expires at the end of its period if the subscription is canceled.
    pub expires: bool,
    /// When the invoice was paid.
    pub paid_at: Time,
}

impl NewGrant {
    /// A grant that is available at once and never expires.
    #[must_use]
    pub fn new(item: String, name: String, credits: Credits, pool: Pool) -> NewGrant {
        NewGrant { item, name, credits, pool, available_from: None, expires_at: None, cycle: None }
    }
}

/// A grant as the ledger has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExistingGrant {
    /// As in [`NewGrant`].
    pub item: String,
    /// Its whole amount, spent or not.
    pub credits: Credits,
}

/// The difference between what a payment should have granted and what it has granted.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Difference {
    /// What to add to each item, above 0.
    pub add: Vec<NewGrant>,
    /// How many credits more were granted than `worth` accounts for: a discrepancy to record. It is never taken back,
    /// because the evidence for it came from Stripe or the caller too.
    pub excess: Credits,
}

/// What to post so that a payment's grants hold the most that any evidence of it is worth. Evidence only adds: line
/// items that are worth more than the metadata grant the difference, with the same total in either order.
///
/// `None` if the totals exceed a bigint.
#[must_use]
pub fn difference(existing: &[ExistingGrant], worth: &[NewGrant]) -> Option<Difference> {
    let total_existing =
        existing.iter().try_fold(Credits::ZERO, |sum, grant| sum.checked_add(grant.credits))?;
    let total_worth = worth.iter().try_fold(Credits::ZERO, |sum, grant| sum.checked_add(grant.credits))?;
    let mut missing = total_worth.checked_sub(total_existing)?;
    if missing <= Credits::ZERO {
        return Some(Difference { add: Vec::new(), excess: Credits(-missing.0) });
    }
    let mut add = Vec::new();
    for grant in worth {
        let granted = existing
            .iter()
            .find(|existing| existing.item == grant.item)
            .map_or(Credits::ZERO, |existing| existing.credits);
        let credits = grant.credits.checked_sub(granted)?.clamp(Credits::ZERO, missing);
        if credits > Credits::ZERO {
            missing = missing.checked_sub(credits)?;
            add.push(NewGrant { credits, ..grant.clone() });
        }
    }
    Some(Difference { add, excess: Credits::ZERO })
}

/// What to post of a pack's payment, and what it is worth from then on. Better evidence replaces worse, up or down; of
/// equal evidence the one that is worth more stays. So in every order the same is left.
///
/// Returns the difference, and the new worth if it changed; what was granted beyond that worth is for the caller to take
/// back. `None` if the totals exceed a bigint.
#[must_use]
pub fn by_evidence(
    existing: &[ExistingGrant],
    known: Option<(Evidence, Credits)>,
    evidence: Evidence,
    worth: &[NewGrant],
) -> Option<(Difference, Option<Credits>)> {
    let total = worth.iter().try_fold(Credits::ZERO, |sum, grant| sum.checked_add(grant.credits))?;
    if let Some((_, credits)) = known.filter(|known| *known >= (evidence, total)) {
        let excess = credits.checked_sub(total)?.max(Credits::ZERO);
        return Some((Difference { add: Vec::new(), excess }, None));
    }
    let add = difference(existing, worth)?.add;
    Some((Difference { add, excess: Credits::ZERO }, Some(total)))
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

    fn post(existing: &mut Vec<ExistingGrant>, worth: &[NewGrant]) {
        for grant in difference(existing, worth).expect("small numbers").add {
            assert!(grant.credits > Credits::ZERO);
            match existing.iter_mut().find(|existing| existing.item == grant.item) {
                Some(existing) => existing.credits.0 += grant.credits.0,
                None => existing.push(ExistingGrant { item: grant.item, credits: grant.credits }),
            }
        }
    }

    fn total(existing: &[ExistingGrant]) -> i64 {
        existing.iter().map(|existing| existing.credits.0).sum()
    }

    proptest! {
        #[test]
        fn in_every_order_and_repetition_a_payment_ends_at_its_best_evidence(
            evidence in proptest::collection::vec(proptest::collection::vec((0..3u8, 0..900i64), 0..4), 1..4),
            order in proptest::collection::vec(any::<prop::sample::Index>(), 0..12),
        ) {
            let best = evidence.iter().map(|e| e.iter().map(|(_, c)| c).sum::<i64>()).max().unwrap_or(0);
            let mut existing = Vec::new();
            for at in order {
                post(&mut existing, &grants(&evidence[at.index(evidence.len())]));
                prop_assert!(total(&existing) <= best);
            }
            for e in &evidence {
                post(&mut existing, &grants(e));
            }
            prop_assert_eq!(total(&existing), best);
        }
    }
}
