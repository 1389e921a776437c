//! Refunds and disputes (rules 5 and 9): each has a state that only rises, and what they reverse is computed from all
//! of them together, so that order, repetition and delay of their events do not matter.

use serde_json::value::RawValue;

use crate::amount::{Credits, MinorUnits};
use crate::catalog::ReversalPolicy;
use crate::stripe::{self, check_id, parse};
use crate::text_enum::text_enum;

/// The refunds and disputes of one payment that one event carries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reversals {
    /// The payment that they reverse.
    pub payment_intent_id: Option<String>,
    /// The charge that they reverse.
    pub charge_id: Option<String>,
    /// At least one.
    pub reversals: Vec<Reversal>,
}

/// Reads the charge of a `charge.refunded` event.
pub(crate) fn read_charge(object: &RawValue) -> Result<Reversals, String> {
    let charge: stripe::ChargeObject = parse(object)?;
    let mut reversals = vec![Reversal {
        id: charge.id.clone(),
        kind: ReversalKind::Charge,
        state: ReversalState::Live,
        amount: money("amount_refunded", charge.amount_refunded)?,
        currency: charge.currency,
        charged: Some(money("amount", charge.amount)?),
    }];
    for refund in charge.refunds.into_iter().flat_map(|refunds| refunds.data) {
        reversals.push(of_refund(refund, "charge.refunded")?);
    }
    collect(charge.payment_intent, Some(charge.id), reversals)
}

/// Reads a refund as an event of `event_type` carried it, or a list.
pub(crate) fn read_refund(object: &RawValue, event_type: &str) -> Result<Reversals, String> {
    let mut refund: stripe::RefundObject = parse(object)?;
    let (payment_intent, charge) = (refund.payment_intent.take(), refund.charge.take());
    let reversal = of_refund(refund, event_type)?;
    collect(payment_intent, charge.map(stripe::Expandable::into_id), vec![reversal])
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

/// Reads a dispute as an event of `event_type` carried it, or a list. The event's type says what happened to the money
/// if the status does not: an inquiry whose funds were withdrawn.
pub(crate) fn read_dispute(object: &RawValue, event_type: &str) -> Result<Reversals, String> {
    let dispute: stripe::DisputeObject = parse(object)?;
    let state = match (event_type, dispute.status.as_str()) {
        ("charge.dispute.funds_reinstated", _) | (_, "won") => ReversalState::Undone,
        ("charge.dispute.funds_withdrawn", _) | (_, "needs_response" | "under_review" | "lost") => {
            ReversalState::Live
        }
        _ => ReversalState::Inquiry,
    };
    let reversal = Reversal {
        id: dispute.id,
        kind: ReversalKind::Dispute,
        state,
        amount: money("amount", dispute.amount)?,
        currency: dispute.currency,
        charged: None,
    };
    collect(dispute.payment_intent, dispute.charge.map(stripe::Expandable::into_id), vec![reversal])
}

fn collect(
    payment_intent: Option<stripe::Expandable>,
    charge_id: Option<String>,
    reversals: Vec<Reversal>,
) -> Result<Reversals, String> {
    let payment_intent_id = payment_intent.map(stripe::Expandable::into_id);
    check_id("data.object.payment_intent", payment_intent_id.as_deref())?;
    check_id("data.object.charge", charge_id.as_deref())?;
    for reversal in &reversals {
        check_id("data.object.id", Some(&reversal.id))?;
    }
    Ok(Reversals { payment_intent_id, charge_id, reversals })
}

fn money(field: &str, amount: i64) -> Result<MinorUnits, String> {
    if amount < 0 { Err(format!("data.object: {field} is negative")) } else { Ok(MinorUnits(amount)) }
}

text_enum! {
    /// What a row of `reversals` is about.
    ReversalKind {
        /// One refund.
        Refund => "refund",
        /// A charge, which counts what was refunded of it.
        Charge => "charge",
        /// One dispute.
        Dispute => "dispute",
    }
}

text_enum! {
    /// How far a reversal has come, in rising order: the highest state that any event carried is the one that counts.
    ReversalState {
        /// A dispute that moves no money: an inquiry, or one that was prevented.
        Inquiry => "inquiry",
        /// A refund that is under way or done, a charge's count, a dispute's money withdrawn.
        Live => "live",
        /// A refund that failed or was canceled, a dispute's money reinstated: it reverses nothing.
        Undone => "undone",
    }
}

/// One refund, one dispute, or one charge's count of refunds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reversal {
    /// `re_…`, `dp_…` or `ch_…`.
    pub id: String,
    /// Which of the three.
    pub kind: ReversalKind,
    /// How far it has come.
    pub state: ReversalState,
    /// What was refunded or disputed; of a charge, its highest count.
    pub amount: MinorUnits,
    /// The currency of `amount`, if the object names it.
    pub currency: Option<String>,
    /// Of a charge: the amount that it charged.
    pub charged: Option<MinorUnits>,
}

impl Reversal {
    /// What is known of the reversal after `incoming`.
    #[must_use]
    pub fn merge(self, incoming: Reversal) -> Reversal {
        Reversal {
            state: self.state.max(incoming.state),
            amount: self.amount.max(incoming.amount),
            currency: self.currency.max(incoming.currency),
            charged: self.charged.max(incoming.charged),
            ..self
        }
    }
}

/// The amount of a payment.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Paid {
    /// The session's `amount_total` or the invoice's `total`.
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

/// The part of a payment that its reversals reverse; `None` while the charged amount is unknown, so that they wait.
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

/// Where the credits of one grant are, except what was spent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct GrantBalance {
    /// Lapsed unspent, or reversed before the grant lapsed: counts as given back, and can never return.
    pub lapsed: Credits,
    /// Reversed so far.
    pub reversed: Credits,
    /// Left: to be spent, pending, or set aside.
    pub available: Credits,
}

/// What a payment's reversals do to its credits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settlement {
    /// Reversed of each of its grants.
    pub reversed: Vec<Credits>,
    /// Owed, because it was spent before it was reversed.
    pub owed: Credits,
}

/// Reverses `target` credits of a payment's grants: what lapsed counts, then what is left is taken, from the first
/// grant on. What was spent is owed, or forgiven.
#[must_use]
pub fn settle(grants: &[GrantBalance], target: Credits, policy: ReversalPolicy) -> Settlement {
    let lapsed: i64 = grants.iter().map(|grant| grant.lapsed.0).sum();
    let mut left = (target.0 - lapsed).max(0);
    let reverse = |grant: &GrantBalance| {
        let reversed = left.min(grant.reversed.0 + grant.available.0);
        left -= reversed;
        Credits(reversed)
    };
    let reversed = grants.iter().map(reverse).collect();
    let owed = match policy {
        ReversalPolicy::Debt => Credits(left),
        ReversalPolicy::Forgive => Credits::ZERO,
    };
    Settlement { reversed, owed }
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
    fn a_failed_refund_takes_nothing_even_if_the_charge_counted_it() {
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
    fn if_the_payments_currency_is_not_the_charges_the_charge_decides_or_is_waited_for() {
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
        let balance = |lapsed, available| GrantBalance {
            lapsed: Credits(lapsed),
            reversed: Credits::ZERO,
            available: Credits(available),
        };
        let settled = |grant: GrantBalance, policy| {
            let Settlement { reversed, owed } = settle(&[grant], Credits(500), policy);
            (reversed[0].0, owed.0)
        };
        assert_eq!(settled(balance(0, 200), ReversalPolicy::Debt), (200, 300));
        assert_eq!(settled(balance(0, 200), ReversalPolicy::Forgive), (200, 0));
        assert_eq!(settled(balance(200, 0), ReversalPolicy::Debt), (0, 300));
        assert_eq!(settled(balance(500, 0), ReversalPolicy::Debt), (0, 0));
    }

    fn incoming() -> impl Strategy<Value = Reversal> {
        let kind =
            prop::sample::select(vec![ReversalKind::Refund, ReversalKind::Dispute, ReversalKind::Charge]);
        let state =
            prop::sample::select(vec![ReversalState::Inquiry, ReversalState::Live, ReversalState::Undone]);
        (kind, 0..3u8, state, 0..1200i64).prop_map(|(kind, id, state, amount)| {
            reversal(kind, &format!("{}_{id}", kind.as_str()), state, amount)
        })
    }

    fn merged<'a>(incoming: impl Iterator<Item = &'a Reversal>) -> Vec<Reversal> {
        let mut known: Vec<Reversal> = Vec::new();
        for incoming in incoming {
            match known.iter().position(|known| known.id == incoming.id) {
                Some(at) => {
                    let before = known.swap_remove(at);
                    known.push(before.merge(incoming.clone()));
                }
                None => known.push(incoming.clone()),
            }
        }
        known
    }

    proptest! {
        #[test]
        fn order_and_repetition_of_events_do_not_matter(
            incoming in proptest::collection::vec(incoming(), 1..8),
            granted in 1..100_000i64,
            turn in any::<prop::sample::Index>(),
        ) {
            let mut rotated = incoming.clone();
            rotated.rotate_left(turn.index(incoming.len()));
            let once = target(&paid(1000), &merged(incoming.iter()), granted);
            prop_assert_eq!(once, target(&paid(1000), &merged(rotated.iter().rev().chain(&incoming)), granted));
            prop_assert!(once.is_some_and(|target| (0..=granted).contains(&target)));
        }

        #[test]
        fn settling_again_changes_nothing(
            grants in proptest::collection::vec((0..1000i64, 0..1000i64, 0..1000i64), 1..4), target in 0..4000i64,
        ) {
            let balance = |&(lapsed, _, available): &(i64, i64, i64)| {
                GrantBalance { lapsed: Credits(lapsed), reversed: Credits::ZERO, available: Credits(available) }
            };
            let granted: i64 = grants.iter().map(|(lapsed, spent, available)| lapsed + spent + available).sum();
            let spent: i64 = grants.iter().map(|(_, spent, _)| spent).sum();
            let target = Credits(target.min(granted));
            let before: Vec<GrantBalance> = grants.iter().map(balance).collect();
            let settled = |balances: &[GrantBalance], target| settle(balances, target, ReversalPolicy::Debt);
            let first = settled(&before, target);
            let post = |(balance, reversed): (&GrantBalance, &Credits)| {
                GrantBalance { reversed: *reversed, available: Credits(balance.available.0 + balance.reversed.0 - reversed.0), ..*balance }
            };
            let after: Vec<GrantBalance> = before.iter().zip(&first.reversed).map(post).collect();
            prop_assert!(after.iter().all(|balance| balance.available >= Credits::ZERO));
            prop_assert_eq!(&settled(&after, target), &first);
            // Once all of it has lapsed, nothing can be taken any more, and what is owed stays owed.
            let lapse = |balance: &GrantBalance| GrantBalance {
                lapsed: Credits(balance.lapsed.0 + balance.reversed.0 + balance.available.0), ..GrantBalance::default()
            };
            let over: Vec<GrantBalance> = after.iter().map(lapse).collect();
            prop_assert_eq!(settled(&over, target), Settlement { reversed: vec![Credits::ZERO; over.len()], owed: first.owed });
            // Undone, everything is as before.
            let undone = settled(&after, Credits::ZERO);
            prop_assert_eq!(undone, Settlement { reversed: vec![Credits::ZERO; after.len()], owed: Credits::ZERO });
            // What is owed is as rule 9 says.
            prop_assert_eq!(first.owed.0, (target.0 - (granted - spent)).max(0));
        }
    }
}
