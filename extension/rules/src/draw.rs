//! Which grants a spend is taken from, and which of them get credits back (rule 8).
//!
//! Grants are drawn in the order in which they would be lost: by when they expire, then subscription before promotional
//! before purchased, then oldest first. The index `credit_grants_draw` has that order, so that a spend reads only what
//! it takes.

use crate::amount::Credits;
use crate::lot::Pool;

/// Credits of one grant: what remains of it, or what a spend drew from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Share {
    /// `credit_grants.id`.
    pub grant_id: i64,
    /// The grant's pool.
    pub pool: Pool,
    /// Above 0.
    pub credits: Credits,
}

/// Draws `amount` from grants that are in draw order; all of them, if there are fewer credits.
#[must_use]
pub fn draw(in_order: &[Share], amount: Credits) -> Vec<Share> {
    let mut left = amount;
    let mut taken = Vec::new();
    for share in in_order {
        let credits = Credits(share.credits.0.min(left.0));
        if credits > Credits::ZERO {
            left = Credits(left.0 - credits.0);
            taken.push(Share { credits, ..*share });
        }
    }
    taken
}

/// What to give back to which grant if only `kept` of what was `drawn` is needed. What was drawn last is given back
/// first, so that the rest is what a spend of `kept` would have drawn.
#[must_use]
pub fn give_back(drawn: &[Share], kept: Credits) -> Vec<Share> {
    let mut left = kept;
    let mut back = Vec::new();
    for share in drawn {
        let keep = Credits(share.credits.0.min(left.0));
        left = Credits(left.0 - keep.0);
        let credits = Credits(share.credits.0 - keep.0);
        if credits > Credits::ZERO {
            back.push(Share { credits, ..*share });
        }
    }
    back
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn shares() -> impl Strategy<Value = Vec<Share>> {
        proptest::collection::vec(1..1000i64, 0..8).prop_map(|credits| {
            let share =
                |(id, credits)| Share { grant_id: id, pool: Pool::Purchased, credits: Credits(credits) };
            (1..).zip(credits).map(share).collect()
        })
    }

    fn total(shares: &[Share]) -> i64 {
        shares.iter().map(|share| share.credits.0).sum()
    }

    proptest! {
        #[test]
        fn a_draw_takes_the_amount_from_the_front_and_no_grant_is_overdrawn(live in shares(), amount in 1..5000i64) {
            let taken = draw(&live, Credits(amount));
            prop_assert_eq!(total(&taken), amount.min(total(&live)));
            for (index, share) in taken.iter().enumerate() {
                prop_assert_eq!(share.grant_id, live[index].grant_id);
                let last = index + 1 == taken.len();
                prop_assert!(share.credits == live[index].credits || (last && share.credits < live[index].credits));
            }
        }

        #[test]
        fn what_is_kept_is_what_a_smaller_spend_would_have_taken(
            live in shares(),
            amount in 1..5000i64,
            kept in 0..5000i64,
        ) {
            let drawn = draw(&live, Credits(amount));
            let kept = kept.min(total(&drawn));
            let back = give_back(&drawn, Credits(kept));
            prop_assert_eq!(total(&drawn) - total(&back), kept);
            let mut rest = drawn;
            for share in back {
                let from = rest.iter_mut().find(|from| from.grant_id == share.grant_id).expect("drawn from it");
                from.credits.0 -= share.credits.0;
            }
            rest.retain(|share| share.credits > Credits::ZERO);
            prop_assert_eq!(rest, draw(&live, Credits(kept)));
        }
    }
}
