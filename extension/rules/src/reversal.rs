//! Refunds and disputes (rules 5 and 9): each is a state that only rises, and what they take back is computed from all of
//! them together, so that it cannot matter in which order, how often or how late they are told.

use serde_json::value::RawValue;

use crate::amount::{Credits, MinorUnits};
use crate::catalog::ReversalPolicy;
use crate::stripe::{self, check_id, parse};
use crate::text_enum::text_enum;

/// What one event says of the reversals of one payment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reversals {
    /// By what the payment is known.
    pub payment_intent_id: Option<String>,
    /// The charge that is reversed.
    pub charge_id: Option<String>,
    /// What is said.
    pub said: Vec<Reversal>,
}

/// Reads the charge of a `charge.refunded` event.
pub(crate) fn read_charge(object: &RawValue) -> Result<Reversals, String> {
    let charge: stripe::ChargeObject = parse(object)?;
    let mut said = vec![Reversal {
        id: charge.id.clone(),
        kind: ReversalKind::Charge,
        state: ReversalState::Live,
        amount: money("amount_refunded", charge.amount_refunded)?,
        currency: charge.currency,
        charged: Some(money("amount", charge.amount)?),
    }];
    for refund in charge.refunds.into_iter().flat_map(|refunds| refunds.data) {
        said.push(of_refund(refund, "charge.refunded")?);
    }
    reversals(charge.payment_intent, Some(charge.id), said)
}

/// Reads a refund as an event of `event_type` carried it, or a list.
pub(crate) fn read_refund(object: &RawValue, event_type: &str) -> Result<Reversals, String> {
    let mut refund: stripe::RefundObject = parse(object)?;
    let (payment_intent, charge) = (refund.payment_intent.take(), refund.charge.take());
    let said = of_refund(refund, event_type)?;
    reversals(payment_intent, charge.map(stripe::Expandable::into_id), vec![said])
}

fn of_refund(refund: stripe::RefundObject, event_type: &str) -> Result<Reversal, String> {
    let failed =
        event_type == "refund.failed" || matches!(refund.status.as_deref(), Some("failed" | "canceled"));
    Ok(Reversal {
        id: refund.id,
        kind: ReversalKind::Refund,
        state: if failed { ReversalState::Undone } else { ReversalState::Live },
        amount: money("amount", refund.amount)?,
        currency: refund.currency,
        charged: None,
    })
}

/// Reads a dispute as an event of `event_type` carried it, or a list. The event's type says what happened to the money if
/// the status does not: an inquiry whose funds were withdrawn.
pub(crate) fn read_dispute(object: &RawValue, event_type: &str) -> Result<Reversals, String> {
    let dispute: stripe::DisputeObject = parse(object)?;
    let state = match (event_type, dispute.status.as_str()) {
        ("charge.dispute.funds_reinstated", _) | (_, "won") => ReversalState::Undone,
        ("charge.dispute.funds_withdrawn", _) | (_, "needs_response" | "under_review" | "lost") => {
            ReversalState::Live
        }
        _ => ReversalState::Inquiry,
    };
    let said = Reversal {
        id: dispute.id,
        kind: ReversalKind::Dispute,
        state,
        amount: money("amount", dispute.amount)?,
        currency: dispute.currency,
        charged: None,
    };
    reversals(dispute.payment_intent, dispute.charge.map(stripe::Expandable::into_id), vec![said])
}

fn reversals(
    payment_intent: Option<stripe::Expandable>,
    charge_id: Option<String>,
    said: Vec<Reversal>,
) -> Result<Reversals, String> {
    let payment_intent_id = payment_intent.map(stripe::Expandable::into_id);
    check_id("data.object.payment_intent", payment_intent_id.as_deref())?;
    check_id("data.object.charge", charge_id.as_deref())?;
    for reversal in &said {
        check_id("data.object.id", Some(&reversal.id))?;
    }
    Ok(Reversals { payment_intent_id, charge_id, said })
}

fn money(field: &str, amount: i64) -> Result<MinorUnits, String> {
    if amount < 0 { Err(format!("data.object: {field} is negative")) } else { Ok(MinorUnits(amount)) }
}

text_enum! {
    /// What a row of `reversals` is about.
    ReversalKind {
        /// One refund.
        Refund => "refund",
        /// A charge's own count of what was refunded of it.
        Charge => "charge",
        /// One dispute.
        Dispute => "dispute",
    }
}

text_enum! {
    /// How far a reversal has come, in rising order; what was told last does not matter, only what is highest.
    ReversalState {
        /// A dispute that moves no money: an inquiry, or one that was prevented.
        Inquiry => "inquiry",
        /// A refund that is under way or done, a charge's count, a dispute's money withdrawn.
        Live => "live",
        /// A refund that failed or was canceled, a dispute's money reinstated: as if it had never been.
        Undone => "undone",
    }
}

/// One refund, dispute, or charge's count, as far as it is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reversal {
    /// `re_…`, `dp_…` or `ch_…`.
    pub id: String,
    /// Which of them.
    pub kind: ReversalKind,
    /// How far it has come.
    pub state: ReversalState,
    /// How much was refunded or disputed; of a charge, its highest count.
    pub amount: MinorUnits,
    /// The currency of `amount`, where it is said.
    pub currency: Option<String>,
    /// Of a charge: what it charged.
    pub charged: Option<MinorUnits>,
}

impl Reversal {
    /// What is known once `said` has been heard too.
    #[must_use]
    pub fn join(self, said: Reversal) -> Reversal {
        Reversal {
            state: self.state.max(said.state),
            amount: self.amount.max(said.amount),
            currency: self.currency.max(said.currency),
            charged: self.charged.max(said.charged),
            ..self
        }
    }
}

/// What was paid, as the payment's own object says.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Paid {
    /// The session's amount_total or the invoice's total.
    pub amount: Option<MinorUnits>,
    /// Its currency.
    pub currency: Option<String>,
}

/// The part of a payment that is reversed: `reversed` of `charged`, both in one currency.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Part {
    /// 0 to `charged`.
    pub reversed: MinorUnits,
    /// Above 0.
    pub charged: MinorUnits,
}

/// The part of a payment that its reversals take back; `None` where what was charged is not known yet, so that they wait.
#[must_use]
pub fn part(paid: &Paid, reversals: &[Reversal]) -> Option<Part> {
    let of = |kind| reversals.iter().filter(move |reversal| reversal.kind == kind);
    let sum =
        |kind, state| of(kind).filter(|r| r.state == state).map(|r| i128::from(r.amount.0)).sum::<i128>();
    let charge = of(ReversalKind::Charge).max_by_key(|charge| charge.charged);
    let currency =
        charge.or_else(|| of(ReversalKind::Refund).next()).and_then(|reversal| reversal.currency.as_deref());
    let comparable = match (currency, paid.currency.as_deref()) {
        (Some(reversed), Some(paid)) => reversed == paid,
        _ => true,
    };
    let own = if comparable { paid.amount } else { None };
    let charged = own.or(charge.and_then(|charge| charge.charged)).filter(|charged| charged.0 > 0)?;
    let counted = of(ReversalKind::Charge).map(|charge| i128::from(charge.amount.0)).max().unwrap_or(0);
    let refunded = sum(ReversalKind::Refund, ReversalState::Live)
        .max(counted - sum(ReversalKind::Refund, ReversalState::Undone))
        .max(0);
    let charge_currency = currency.or(paid.currency.as_deref());
    let disputed: i128 = of(ReversalKind::Dispute)
        .filter(|dispute| dispute.state == ReversalState::Live)
        .map(|dispute| {
            let same = dispute.currency.is_none() || dispute.currency.as_deref() == charge_currency;
            i128::from(if same { dispute.amount.0 } else { charged.0 })
        })
        .sum();
    let reversed = (refunded + disputed).clamp(0, i128::from(charged.0));
    Some(Part { reversed: MinorUnits(i64::try_from(reversed).ok()?), charged })
}

impl Part {
    /// How many of the granted credits that is: rounded down, so that parts never take more than the whole.
    #[must_use]
    pub fn of(self, granted: Credits) -> Credits {
        let target = i128::from(granted.0) * i128::from(self.reversed.0) / i128::from(self.charged.0);
        // No more than granted, so it fits.
        i64::try_from(target).map_or(granted, Credits)
    }
}

/// What became of one of a payment's grants, but for what was spent of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Books {
    /// Gone with its lapse, unspent or taken back before: counts as given back, and can never return.
    pub lapsed: Credits,
    /// Taken back by reversals so far.
    pub taken: Credits,
    /// Still there, whether to be spent, to come, or set aside.
    pub kept: Credits,
}

/// Where a payment's reversals leave its credits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settlement {
    /// Taken from each of its grants.
    pub taken: Vec<Credits>,
    /// Spent before it could be taken: owed.
    pub owed: Credits,
}

/// Takes `target` credits back from a payment's grants: what lapsed counts, then what is there, from the first grant on,
/// and what was spent is owed, or forgiven.
#[must_use]
pub fn settle(grants: &[Books], target: Credits, policy: ReversalPolicy) -> Settlement {
    let lapsed: i64 = grants.iter().map(|grant| grant.lapsed.0).sum();
    let mut left = (target.0 - lapsed).max(0);
    let mut take = |grant: &Books| {
        let taken = left.min(grant.taken.0 + grant.kept.0);
        left -= taken;
        Credits(taken)
    };
    let taken = grants.iter().map(&mut take).collect();
    let owed = match policy {
        ReversalPolicy::Debt => Credits(left),
        ReversalPolicy::Forgive => Credits::ZERO,
    };
    Settlement { taken, owed }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn reversal(kind: ReversalKind, id: &str, state: ReversalState, amount: i64) -> Reversal {
        let charged = (kind == ReversalKind::Charge).then_some(MinorUnits(1000));
        Reversal {
            id: id.into(),
            kind,
            state,
            amount: MinorUnits(amount),
            currency: Some("usd".into()),
            charged,
        }
    }

    fn paid(amount: i64) -> Paid {
        Paid { amount: Some(MinorUnits(amount)), currency: Some("usd".into()) }
    }

    fn target(paid: &Paid, reversals: &[Reversal], granted: i64) -> Option<i64> {
        part(paid, reversals).map(|part| part.of(Credits(granted)).0)
    }

    #[test]
    fn three_uneven_refunds_take_the_whole_and_a_stale_count_changes_nothing() {
        let refund = |id, amount| reversal(ReversalKind::Refund, id, ReversalState::Live, amount);
        let all = [
            refund("a", 333),
            refund("b", 333),
            refund("c", 334),
            reversal(ReversalKind::Charge, "ch", ReversalState::Live, 666),
        ];
        assert_eq!(target(&paid(1000), &all, 500), Some(500));
        assert_eq!(target(&paid(1000), &all[..1], 500), Some(166));
        assert_eq!(target(&paid(1000), &all[3..], 500), Some(333));
    }

    #[test]
    fn a_failed_refund_takes_nothing_even_where_the_charge_counted_it() {
        let failed = reversal(ReversalKind::Refund, "a", ReversalState::Undone, 400);
        let live = reversal(ReversalKind::Refund, "b", ReversalState::Live, 300);
        let count = reversal(ReversalKind::Charge, "ch", ReversalState::Live, 700);
        assert_eq!(target(&paid(1000), &[failed, live, count], 1000), Some(300));
    }

    #[test]
    fn refund_and_dispute_together_never_take_more_than_was_charged() {
        let both = [
            reversal(ReversalKind::Refund, "a", ReversalState::Live, 600),
            reversal(ReversalKind::Dispute, "d", ReversalState::Live, 1000),
        ];
        assert_eq!(target(&paid(1000), &both, 500), Some(500));
    }

    #[test]
    fn an_inquiry_takes_nothing_and_a_reinstated_dispute_gives_back() {
        for state in [ReversalState::Inquiry, ReversalState::Undone] {
            assert_eq!(
                target(&paid(1000), &[reversal(ReversalKind::Dispute, "d", state, 1000)], 500),
                Some(0)
            );
        }
    }

    #[test]
    fn a_dispute_in_another_currency_counts_whole() {
        let dispute = Reversal {
            currency: Some("eur".into()),
            ..reversal(ReversalKind::Dispute, "d", ReversalState::Live, 5)
        };
        assert_eq!(target(&paid(1000), &[dispute], 500), Some(500));
    }

    #[test]
    fn where_the_payments_currency_is_not_the_charges_the_charge_decides_or_is_waited_for() {
        let foreign = Paid { amount: Some(MinorUnits(90_000)), currency: Some("jpy".into()) };
        let refund = reversal(ReversalKind::Refund, "a", ReversalState::Live, 500);
        assert_eq!(target(&foreign, std::slice::from_ref(&refund), 500), None);
        assert_eq!(
            target(&foreign, &[refund, reversal(ReversalKind::Charge, "ch", ReversalState::Live, 500)], 500),
            Some(250)
        );
        assert_eq!(part(&Paid::default(), &[]), None);
        assert_eq!(part(&paid(0), &[]), None);
    }

    #[test]
    fn what_was_spent_is_owed_or_forgiven_and_what_lapsed_counts_as_given_back() {
        let books =
            |lapsed, kept| Books { lapsed: Credits(lapsed), taken: Credits::ZERO, kept: Credits(kept) };
        let settled = |books: Books, policy| {
            let Settlement { taken, owed } = settle(&[books], Credits(500), policy);
            (taken[0].0, owed.0)
        };
        assert_eq!(settled(books(0, 200), ReversalPolicy::Debt), (200, 300));
        assert_eq!(settled(books(0, 200), ReversalPolicy::Forgive), (200, 0));
        assert_eq!(settled(books(200, 0), ReversalPolicy::Debt), (0, 300));
        assert_eq!(settled(books(500, 0), ReversalPolicy::Debt), (0, 0));
    }

    fn said() -> impl Strategy<Value = Reversal> {
        let kind =
            prop::sample::select(vec![ReversalKind::Refund, ReversalKind::Dispute, ReversalKind::Charge]);
        let state =
            prop::sample::select(vec![ReversalState::Inquiry, ReversalState::Live, ReversalState::Undone]);
        (kind, 0..3u8, state, 0..1200i64).prop_map(|(kind, id, state, amount)| {
            reversal(kind, &format!("{}_{id}", kind.as_str()), state, amount)
        })
    }

    fn joined<'a>(said: impl Iterator<Item = &'a Reversal>) -> Vec<Reversal> {
        let mut known: Vec<Reversal> = Vec::new();
        for said in said {
            match known.iter().position(|known| known.id == said.id) {
                Some(at) => {
                    let before = known.swap_remove(at);
                    known.push(before.join(said.clone()));
                }
                None => known.push(said.clone()),
            }
        }
        known
    }

    proptest! {
        #[test]
        fn order_and_repetition_of_what_is_said_do_not_matter(
            said in proptest::collection::vec(said(), 1..8),
            granted in 1..100_000i64,
            turn in any::<prop::sample::Index>(),
        ) {
            let mut turned = said.clone();
            turned.rotate_left(turn.index(said.len()));
            let once = target(&paid(1000), &joined(said.iter()), granted);
            prop_assert_eq!(once, target(&paid(1000), &joined(turned.iter().rev().chain(&said)), granted));
            prop_assert!(once.is_some_and(|target| (0..=granted).contains(&target)));
        }

        #[test]
        fn settling_again_changes_nothing(
            grants in proptest::collection::vec((0..1000i64, 0..1000i64, 0..1000i64), 1..4), target in 0..4000i64,
        ) {
            let books = |&(lapsed, _, kept): &(i64, i64, i64)| {
                Books { lapsed: Credits(lapsed), taken: Credits::ZERO, kept: Credits(kept) }
            };
            let granted: i64 = grants.iter().map(|(lapsed, spent, kept)| lapsed + spent + kept).sum();
            let spent: i64 = grants.iter().map(|(_, spent, _)| spent).sum();
            let target = Credits(target.min(granted));
            let before: Vec<Books> = grants.iter().map(books).collect();
            let settled = |books: &[Books], target| settle(books, target, ReversalPolicy::Debt);
            let first = settled(&before, target);
            let post = |(books, taken): (&Books, &Credits)| {
                Books { taken: *taken, kept: Credits(books.kept.0 + books.taken.0 - taken.0), ..*books }
            };
            let after: Vec<Books> = before.iter().zip(&first.taken).map(post).collect();
            prop_assert!(after.iter().all(|books| books.kept >= Credits::ZERO));
            prop_assert_eq!(&settled(&after, target), &first);
            // Once all of it has lapsed, nothing can be taken any more, and what is owed stays owed.
            let lapse = |books: &Books| Books {
                lapsed: Credits(books.lapsed.0 + books.taken.0 + books.kept.0), ..Books::default()
            };
            let over: Vec<Books> = after.iter().map(lapse).collect();
            prop_assert_eq!(settled(&over, target), Settlement { taken: vec![Credits::ZERO; over.len()], owed: first.owed });
            // Undone, everything is as before.
            let undone = settled(&after, Credits::ZERO);
            prop_assert_eq!(undone, Settlement { taken: vec![Credits::ZERO; after.len()], owed: Credits::ZERO });
            // Owed is what rule 9 says.
            prop_assert_eq!(first.owed.0, (target.0 - (granted - spent)).max(0));
        }
    }
}
