//! What a first purchase's bonus keeps (rule 7): there is one a user, that of the earliest purchase, whichever became
//! known first.

use crate::amount::Credits;

/// A grant that was made as a first purchase's bonus, as the ledger has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bonus {
    /// The grant.
    pub id: i64,
    /// The invoice.
    pub source_id: String,
    /// Its amount.
    pub granted: Credits,
    /// Of that: to be spent now.
    pub remaining: Credits,
    /// Of that: kept back.
    pub set_aside: Credits,
    /// Of that: lapsed.
    pub lapsed: Credits,
    /// Of that: taken back.
    pub reversed: Credits,
}

/// What one of them is to hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Target {
    /// The grant.
    pub id: i64,
    /// To be spent now.
    pub remaining: Credits,
    /// Kept back.
    pub set_aside: Credits,
}

impl Bonus {
    fn kept(&self) -> i64 {
        self.remaining.0 + self.set_aside.0
    }

    fn worth(&self) -> i64 {
        self.granted.0 - self.lapsed.0 - self.reversed.0
    }
}

/// What every bonus is to hold, where `first` is the invoice of the first purchase: all of them together what its own
/// is worth, without what was drawn of any of them. The first one's own grant keeps first.
#[must_use]
pub fn settle(bonuses: &[Bonus], first: &str) -> Vec<Target> {
    let is_first = |bonus: &&Bonus| bonus.source_id == first;
    let worth: i64 = bonuses.iter().filter(is_first).map(Bonus::worth).sum();
    let drawn: i64 = bonuses.iter().map(|bonus| bonus.worth() - bonus.kept()).sum();
    let mut left = (worth - drawn).max(0);
    let mut in_order: Vec<&Bonus> = bonuses.iter().collect();
    in_order.sort_by_key(|bonus| (bonus.source_id != first, bonus.id));
    let mut keep = |bonus: &Bonus| {
        let remaining = bonus.kept().min(left);
        left -= remaining;
        let set_aside = Credits(bonus.kept() - remaining);
        Target { id: bonus.id, remaining: Credits(remaining), set_aside }
    };
    in_order.into_iter().map(&mut keep).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn bonus(id: i64, granted: i64, spent: i64) -> Bonus {
        Bonus {
            id,
            source_id: format!("in_{id}"),
            granted: Credits(granted),
            remaining: Credits(granted - spent),
            set_aside: Credits::ZERO,
            lapsed: Credits::ZERO,
            reversed: Credits::ZERO,
        }
    }

    /// What remains of each, by id.
    fn remain(bonuses: &[Bonus], first: &str) -> Vec<i64> {
        let mut targets = settle(bonuses, first);
        targets.sort_by_key(|target| target.id);
        targets.iter().map(|target| target.remaining.0).collect()
    }

    #[test]
    fn the_only_bonus_of_the_first_purchase_keeps_what_it_has() {
        assert_eq!(remain(&[bonus(1, 500, 200)], "in_1"), [300]);
    }

    #[test]
    fn of_two_the_first_purchases_stands_whichever_was_known_first() {
        assert_eq!(remain(&[bonus(1, 500, 0), bonus(2, 900, 0)], "in_1"), [500, 0]);
        assert_eq!(remain(&[bonus(1, 500, 0), bonus(2, 900, 0)], "in_2"), [0, 900]);
    }

    #[test]
    fn what_was_spent_of_the_other_one_is_missing_from_the_one_that_stands() {
        assert_eq!(remain(&[bonus(1, 500, 200), bonus(2, 900, 0)], "in_2"), [0, 700]);
        // More than it is worth was spent: nothing is left of either.
        assert_eq!(remain(&[bonus(1, 900, 700), bonus(2, 500, 0)], "in_2"), [0, 0]);
    }

    #[test]
    fn a_purchase_before_it_that_grants_no_bonus_leaves_none() {
        assert_eq!(remain(&[bonus(1, 500, 0)], "in_0"), [0]);
    }

    #[test]
    fn what_was_taken_back_of_the_first_is_not_made_up_for_by_the_other() {
        let refunded = Bonus { reversed: Credits(500), remaining: Credits::ZERO, ..bonus(1, 500, 0) };
        assert_eq!(remain(&[refunded, bonus(2, 900, 0)], "in_1"), [0, 0]);
    }

    fn bonuses() -> impl Strategy<Value = Vec<Bonus>> {
        // Granted, and how much of that was spent, set aside and taken back.
        let parts = (0..1000i64, 0..1000i64, 0..1000i64, 0..1000i64);
        proptest::collection::vec(parts, 1..4).prop_map(|all| {
            (1..)
                .zip(all)
                .map(|(id, (remaining, spent, set_aside, reversed))| Bonus {
                    remaining: Credits(remaining),
                    set_aside: Credits(set_aside),
                    reversed: Credits(reversed),
                    ..bonus(id, remaining + spent + set_aside + reversed, 0)
                })
                .collect()
        })
    }

    proptest! {
        #[test]
        fn together_they_keep_no_more_than_the_first_is_worth_and_none_more_than_it_has(
            bonuses in bonuses(), first in 0..4i64,
        ) {
            let first = format!("in_{first}");
            let worth: i64 = bonuses.iter().filter(|b| b.source_id == first).map(Bonus::worth).sum();
            let drawn: i64 = bonuses.iter().map(|b| b.worth() - b.kept()).sum();
            let kept: i64 = bonuses.iter().map(Bonus::kept).sum();
            let remaining: i64 = remain(&bonuses, &first).iter().sum();
            prop_assert_eq!(remaining, (worth - drawn).clamp(0, kept));
            // Every one of them keeps its own credits, here or there, and settling again changes nothing.
            let mut after = bonuses.clone();
            for target in settle(&bonuses, &first) {
                let bonus = after.iter_mut().find(|bonus| bonus.id == target.id).expect("one of them");
                prop_assert_eq!(bonus.kept(), target.remaining.0 + target.set_aside.0);
                prop_assert!(target.remaining >= Credits::ZERO && target.set_aside >= Credits::ZERO);
                (bonus.remaining, bonus.set_aside) = (target.remaining, target.set_aside);
            }
            prop_assert_eq!(settle(&after, &first), settle(&bonuses, &first));
        }
    }
}
