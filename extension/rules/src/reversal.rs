//! Refunds, disputes and credit notes (rules 5 and 9): facts that only grow, and what they reverse of a payment is
//! computed from all of them together, so that order, repetition and delay of their events do not matter.

use std::collections::BTreeSet;

use serde_json::value::RawValue;

use crate::amount::MinorUnits;
use crate::calendar::{self, Time};
use crate::name::{Name, NameKind};
use crate::stripe::{self, Expandable, check_id, parse};
use crate::text_enum::text_enum;

/// The reversals of one payment that one event carries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reversals {
    /// What the event calls the payment.
    pub payment_intent_id: Option<String>,
    /// A charge of the payment.
    pub charge_id: Option<String>,
    /// The invoice of a credit note, or of a charge in older versions of the API.
    pub invoice_id: Option<String>,
    /// At least one.
    pub reversals: Vec<Reversal>,
}

impl Reversals {
    /// The names of the payment that they reverse.
    #[must_use]
    pub fn names(&self) -> Vec<Name<'_>> {
        let names = [
            (NameKind::PaymentIntent, &self.payment_intent_id),
            (NameKind::Charge, &self.charge_id),
            (NameKind::Invoice, &self.invoice_id),
        ];
        names.into_iter().filter_map(|(kind, id)| Some(Name { kind, id: id.as_deref()? })).collect()
    }
}

/// The path of a charge.
#[must_use]
pub fn charge_path(charge_id: &str) -> String {
    format!("/v1/charges/{charge_id}")
}

/// Reads a charge, as an event of this time carried it or as Stripe answered it then.
pub(crate) fn read_charge(object: &RawValue, as_of: Time) -> Result<Reversals, String> {
    let charge: stripe::ChargeObject = parse(object)?;
    let mut reversals = vec![Reversal {
        currency: charge.currency,
        charge_id: Some(charge.id.clone()),
        charged: Some(money("amount", charge.amount)?),
        made_at: Some(as_of),
        ..Reversal::new(
            charge.id.clone(),
            ReversalKind::Charge,
            money("amount_refunded", charge.amount_refunded)?,
        )
    }];
    for mut refund in charge.refunds.into_iter().flat_map(|refunds| refunds.data) {
        refund.charge = Some(Expandable::Id(charge.id.clone()));
        reversals.push(of_refund(refund, "charge.refunded", as_of)?);
    }
    collect(charge.payment_intent, Some(Expandable::Id(charge.id)), charge.invoice, reversals)
}

/// Reads a refund as an event of `event_type` carried it at this time, or a list.
pub(crate) fn read_refund(object: &RawValue, event_type: &str, as_of: Time) -> Result<Reversals, String> {
    let mut refund: stripe::RefundObject = parse(object)?;
    let payment_intent = refund.payment_intent.take();
    let reversal = of_refund(refund, event_type, as_of)?;
    let charge = reversal.charge_id.clone().map(Expandable::Id);
    collect(payment_intent, charge, None, vec![reversal])
}

fn of_refund(refund: stripe::RefundObject, event_type: &str, as_of: Time) -> Result<Reversal, String> {
    let failed =
        event_type == "refund.failed" || matches!(refund.status.as_deref(), Some("failed" | "canceled"));
    Ok(Reversal {
        currency: refund.currency,
        charge_id: refund.charge.map(Expandable::into_id),
        made_at: refund.created.and_then(calendar::from_unix),
        undone_at: failed.then_some(as_of),
        ..Reversal::new(refund.id, ReversalKind::Refund, money("amount", refund.amount)?)
    })
}

/// Reads a dispute as an event of `event_type` carried it at this time, or a list. The movements of the disputed money
/// decide; the status counts only as far as the object does not list them.
pub(crate) fn read_dispute(object: &RawValue, event_type: &str, as_of: Time) -> Result<Reversals, String> {
    let dispute: stripe::DisputeObject = parse(object)?;
    let mut reversal = Reversal {
        currency: dispute.currency,
        charge_id: dispute.charge.map(Expandable::into_id),
        ..Reversal::new(dispute.id, ReversalKind::Dispute, money("amount", dispute.amount)?)
    };
    for movement in dispute.balance_transactions.into_iter().flatten() {
        let moved_at = movement.created.and_then(calendar::from_unix).unwrap_or(as_of);
        match movement.amount {
            0 => {}
            ..0 => reversal.withdrawn_at = reversal.withdrawn_at.max(Some(moved_at)),
            _ => reversal.reinstated_at = reversal.reinstated_at.max(Some(moved_at)),
        }
    }
    match (event_type, dispute.status.as_str()) {
        ("charge.dispute.funds_withdrawn", _) => {
            reversal.withdrawn_at = reversal.withdrawn_at.max(Some(as_of));
        }
        ("charge.dispute.funds_reinstated", _) => {
            reversal.reinstated_at = reversal.reinstated_at.max(Some(as_of));
        }
        (_, "won") if reversal.reinstated_at.is_none() => reversal.reinstated_at = Some(as_of),
        (_, "needs_response" | "under_review" | "lost") => reversal.disputed_at = Some(as_of),
        _ => {}
    }
    let charge = reversal.charge_id.clone().map(Expandable::Id);
    collect(dispute.payment_intent, charge, None, vec![reversal])
}

/// Reads a credit note as an event of `event_type` carried it at this time. What it gives back by refunds is counted by
/// the refunds themselves.
pub(crate) fn read_credit_note(
    object: &RawValue,
    event_type: &str,
    as_of: Time,
) -> Result<Reversals, String> {
    let note: stripe::CreditNoteObject = parse(object)?;
    let is_void = event_type == "credit_note.voided" || note.status.as_deref() == Some("void");
    let (amount, refund_id) = match (note.pre_payment_amount, note.post_payment_amount) {
        (None, None) => {
            let before_payment = note.note_type.as_deref() == Some("pre_payment");
            let refund_id = note.refund.filter(|_| !before_payment).map(Expandable::into_id);
            (money("total", note.total.or(note.amount).ok_or("data.object: total is missing")?)?, refund_id)
        }
        (before_payment, after_payment) => {
            let refunded = note
                .refunds
                .iter()
                .flatten()
                .try_fold(0_i64, |sum, refund| sum.checked_add(refund.amount_refunded?));
            let by_refunds = refunded.ok_or("data.object: refunds have no sum")?;
            let after_payment =
                (money("post_payment_amount", after_payment.unwrap_or(0))?.0 - by_refunds).max(0);
            let before_payment = money("pre_payment_amount", before_payment.unwrap_or(0))?.0;
            let amount =
                before_payment.checked_add(after_payment).ok_or("data.object: amounts have no sum")?;
            (MinorUnits(amount), None)
        }
    };
    check_id("data.object.refund", refund_id.as_deref())?;
    let reversal = Reversal {
        currency: note.currency,
        refund_id,
        undone_at: is_void.then_some(as_of),
        ..Reversal::new(note.id, ReversalKind::CreditNote, amount)
    };
    collect(None, None, note.invoice, vec![reversal])
}

fn collect(
    payment_intent: Option<Expandable>,
    charge: Option<Expandable>,
    invoice: Option<Expandable>,
    reversals: Vec<Reversal>,
) -> Result<Reversals, String> {
    let [payment_intent_id, charge_id, invoice_id] =
        [payment_intent, charge, invoice].map(|reference| reference.map(Expandable::into_id));
    check_id("data.object.payment_intent", payment_intent_id.as_deref())?;
    check_id("data.object.charge", charge_id.as_deref())?;
    check_id("data.object.invoice", invoice_id.as_deref())?;
    for reversal in &reversals {
        check_id("data.object.id", Some(&reversal.id))?;
    }
    Ok(Reversals { payment_intent_id, charge_id, invoice_id, reversals })
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
        /// One credit note.
        CreditNote => "credit_note",
    }
}

/// One refund, one dispute, one credit note, or one charge's count of refunds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reversal {
    /// `re_…`, `dp_…`, `cn_…` or `ch_…`.
    pub id: String,
    /// Which of the four.
    pub kind: ReversalKind,
    /// What was refunded or disputed; of a charge, its highest count; of a credit note, what no refund of the new shape
    /// gives back.
    pub amount: MinorUnits,
    /// The currency of `amount`, if the object names it.
    pub currency: Option<String>,
    /// The charge that is reversed.
    pub charge_id: Option<String>,
    /// Of a charge: the amount that it charged.
    pub charged: Option<MinorUnits>,
    /// Of a credit note in the older shape: the refund by which some of `amount` is given back.
    pub refund_id: Option<String>,
    /// Of a refund: when it was created. Of a charge: when Stripe last gave the highest count.
    pub made_at: Option<Time>,
    /// Of a refund: when it failed or was canceled. Of a credit note: when it was voided.
    pub undone_at: Option<Time>,
    /// Of a dispute: when its money was last withdrawn.
    pub withdrawn_at: Option<Time>,
    /// Of a dispute: when its money was last reinstated.
    pub reinstated_at: Option<Time>,
    /// Of a dispute: when its status last meant that the money is withdrawn.
    pub disputed_at: Option<Time>,
}

impl Reversal {
    fn new(id: String, kind: ReversalKind, amount: MinorUnits) -> Reversal {
        Reversal {
            id,
            kind,
            amount,
            currency: None,
            charge_id: None,
            charged: None,
            refund_id: None,
            made_at: None,
            undone_at: None,
            withdrawn_at: None,
            reinstated_at: None,
            disputed_at: None,
        }
    }

    /// What is known of the reversal after `incoming`, in whichever order the two came.
    #[must_use]
    pub fn merge(self, incoming: Reversal) -> Reversal {
        let earliest = |a: Option<Time>, b: Option<Time>| a.into_iter().chain(b).min();
        let (amount, made_at) = match self.kind {
            // Of a charge: when it last gave its highest count.
            ReversalKind::Charge => (self.amount, self.made_at).max((incoming.amount, incoming.made_at)),
            // The rest of a credit note shrinks as refunds are made for it.
            ReversalKind::CreditNote => {
                let latest = |of: &Reversal| (of.made_at, std::cmp::Reverse(of.amount));
                let known = if latest(&incoming) > latest(&self) { &incoming } else { &self };
                (known.amount, known.made_at)
            }
            ReversalKind::Refund | ReversalKind::Dispute => {
                (self.amount.max(incoming.amount), self.made_at.max(incoming.made_at))
            }
        };
        Reversal {
            amount,
            made_at,
            currency: self.currency.max(incoming.currency),
            charge_id: self.charge_id.or(incoming.charge_id),
            charged: self.charged.max(incoming.charged),
            refund_id: self.refund_id.or(incoming.refund_id),
            undone_at: earliest(self.undone_at, incoming.undone_at),
            withdrawn_at: self.withdrawn_at.max(incoming.withdrawn_at),
            reinstated_at: self.reinstated_at.max(incoming.reinstated_at),
            disputed_at: self.disputed_at.max(incoming.disputed_at),
            id: self.id,
            kind: self.kind,
        }
    }

    /// Whether its money is given back. A dispute's is while the last movement took it: a status is never final.
    fn stands(&self) -> bool {
        match self.kind {
            ReversalKind::Refund | ReversalKind::Charge | ReversalKind::CreditNote => {
                self.undone_at.is_none()
            }
            ReversalKind::Dispute => {
                let withdrawn_at = self.withdrawn_at.or(self.disputed_at);
                withdrawn_at.is_some() && withdrawn_at > self.reinstated_at
            }
        }
    }
}

/// The amount of a payment.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Paid {
    /// The session's `amount_total`, the invoice's `total`, or the payment intent's `amount_received`.
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
    let counts = reversals.iter().filter(|reversal| reversal.kind == ReversalKind::Charge);
    let currency = counts
        .clone()
        .chain(reversals.iter().filter(|reversal| reversal.kind != ReversalKind::Dispute))
        .find_map(|reversal| reversal.currency.as_deref());
    let comparable = match (currency, paid.currency.as_deref()) {
        (Some(reversed), Some(paid)) => reversed == paid,
        _ => true,
    };
    let own = if comparable { paid.amount } else { None };
    if own.is_some_and(|own| own <= MinorUnits(0)) {
        // Nothing was paid, so nothing can come back.
        return Some(Part { reversed: MinorUnits(0), charged: MinorUnits(1) });
    }
    let of_charges = counts.filter_map(|count| count.charged).map(|charged| i128::from(charged.0)).sum();
    let charged = own.map_or(of_charges, |own| i128::from(own.0));
    if charged <= 0 {
        return None;
    }
    let currency = currency.or(paid.currency.as_deref());
    let returned = refunded(reversals) + disputed(reversals, currency, charged) + credited(reversals);
    let whole = i64::try_from(charged).ok()?;
    let reversed = i64::try_from(returned.clamp(0, charged)).ok()?;
    Some(Part { reversed: MinorUnits(reversed), charged: MinorUnits(whole) })
}

/// What refunds gave back of all charges. Refunds that name no charge count beside those that do, but what a charge
/// counts may be the same money.
fn refunded(reversals: &[Reversal]) -> i128 {
    let refunds = reversals.iter().filter(|reversal| reversal.kind == ReversalKind::Refund);
    let live: i128 = refunds.filter(|refund| refund.stands()).map(|refund| i128::from(refund.amount.0)).sum();
    let charge_ids: BTreeSet<&str> =
        reversals.iter().filter_map(|reversal| reversal.charge_id.as_deref()).collect();
    let by_charge: i128 = charge_ids.into_iter().map(|charge_id| refunded_of(charge_id, reversals)).sum();
    live.max(by_charge)
}

/// What refunds gave back of one charge: the most that either the refunds or the charge's own count say. If it is the only one, a
/// refund that names none is of it.
fn refunded_of(charge_id: &str, reversals: &[Reversal]) -> i128 {
    let is_only = reversals.iter().filter_map(|of| of.charge_id.as_deref()).all(|named| named == charge_id);
    let is_of_it = move |of: &Reversal| of.charge_id.as_deref().map_or(is_only, |named| named == charge_id);
    let of = |kind| reversals.iter().filter(move |reversal| reversal.kind == kind && is_of_it(reversal));
    let sum = |refunds: &mut dyn Iterator<Item = &Reversal>| -> i128 {
        refunds.map(|refund| i128::from(refund.amount.0)).sum()
    };
    let live = sum(&mut of(ReversalKind::Refund).filter(|refund| refund.stands()));
    let Some(count) = of(ReversalKind::Charge).next() else { return live };
    // The count has a refund that failed later, and none that was made or had failed before.
    let is_counted = |refund: &&Reversal| {
        let Some(undone_at) = refund.undone_at else { return false };
        count.made_at.is_none_or(|counted_at| {
            counted_at <= undone_at && refund.made_at.is_none_or(|made_at| made_at <= counted_at)
        })
    };
    let failed = sum(&mut of(ReversalKind::Refund).filter(is_counted));
    live.max(i128::from(count.amount.0) - failed)
}

/// What disputes hold of a payment of this currency and amount: at most what refunds left of their charge.
fn disputed(reversals: &[Reversal], currency: Option<&str>, charged: i128) -> i128 {
    let disputes =
        || reversals.iter().filter(|reversal| reversal.kind == ReversalKind::Dispute && reversal.stands());
    let charge_ids: BTreeSet<Option<&str>> = disputes().map(|dispute| dispute.charge_id.as_deref()).collect();
    let held_of = |charge_id: Option<&str>| -> i128 {
        let amount = |dispute: &Reversal| {
            let same = dispute.currency.is_none() || dispute.currency.as_deref() == currency;
            if same { i128::from(dispute.amount.0) } else { charged }
        };
        let amounts = || disputes().filter(|dispute| dispute.charge_id.as_deref() == charge_id).map(amount);
        let held = amounts().sum();
        let Some(charge_id) = charge_id else { return held };
        let count = reversals
            .iter()
            .find(|reversal| reversal.kind == ReversalKind::Charge && reversal.id == charge_id);
        let whole = count.and_then(|count| count.charged).map(|whole| i128::from(whole.0));
        match whole {
            // A dispute is of no more than its charge: otherwise the two amounts cannot be compared.
            Some(whole) if amounts().all(|amount| amount <= whole) => {
                held.min((whole - refunded_of(charge_id, reversals)).max(0))
            }
            _ => held,
        }
    };
    charge_ids.into_iter().map(held_of).sum()
}

/// What credit notes gave back otherwise than by refunds.
fn credited(reversals: &[Reversal]) -> i128 {
    let amount_of = |refund_id: &str| {
        reversals
            .iter()
            .find(|reversal| reversal.kind == ReversalKind::Refund && reversal.id == refund_id)
            .map_or(0, |refund| i128::from(refund.amount.0))
    };
    reversals
        .iter()
        .filter(|reversal| reversal.kind == ReversalKind::CreditNote && reversal.stands())
        .map(|note| {
            let by_refund = note.refund_id.as_deref().map_or(0, amount_of);
            (i128::from(note.amount.0) - by_refund).max(0)
        })
        .sum()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// How far a reversal has come.
    #[derive(Debug, Clone, Copy, PartialEq, PartialOrd)]
    enum State {
        Inquiry,
        Live,
        Undone,
    }

    fn at(second: i64) -> Time {
        calendar::from_unix(1_700_000_000 + second).expect("a time")
    }

    /// A reversal of a payment of 1000 by one charge, in usd.
    fn reversal(kind: ReversalKind, id: &str, state: State, amount: i64) -> Reversal {
        let charged = (kind == ReversalKind::Charge).then_some(MinorUnits(1000));
        let undone_at = (kind != ReversalKind::Dispute && state == State::Undone).then(|| at(0));
        let moved = |moved: State| (kind == ReversalKind::Dispute && state >= moved).then(|| at(0));
        Reversal {
            currency: Some("usd".into()),
            charge_id: Some("ch".into()),
            charged,
            made_at: Some(at(0)),
            undone_at,
            withdrawn_at: moved(State::Live),
            reinstated_at: moved(State::Undone),
            ..Reversal::new(id.into(), kind, MinorUnits(amount))
        }
    }

    fn paid(amount: i64) -> Paid {
        Paid { amount: Some(MinorUnits(amount)), currency: Some("usd".into()) }
    }

    fn target(paid: &Paid, reversals: &[Reversal], granted: i64) -> Option<i64> {
        part(paid, reversals).map(|part| granted * part.reversed.0 / part.charged.0)
    }

    #[test]
    fn three_uneven_refunds_take_the_whole_and_a_stale_count_changes_nothing() {
        let refund = |id, amount| reversal(ReversalKind::Refund, id, State::Live, amount);
        let all = [
            refund("a", 333),
            refund("b", 333),
            refund("c", 334),
            reversal(ReversalKind::Charge, "ch", State::Live, 666),
        ];
        assert_eq!(target(&paid(1000), &all, 500), Some(500));
        assert_eq!(target(&paid(1000), &all[..1], 500), Some(166));
        assert_eq!(target(&paid(1000), &all[3..], 500), Some(333));
    }

    #[test]
    fn a_failed_refund_takes_nothing_even_if_the_charge_counted_it() {
        let failed = reversal(ReversalKind::Refund, "a", State::Undone, 400);
        let live = reversal(ReversalKind::Refund, "b", State::Live, 300);
        let count = reversal(ReversalKind::Charge, "ch", State::Live, 700);
        assert_eq!(target(&paid(1000), &[failed, live, count], 1000), Some(300));
    }

    #[test]
    fn a_failed_refund_that_names_no_charge_is_of_the_payments_only_one() {
        let nameless = |id, state, amount| Reversal {
            charge_id: None,
            ..reversal(ReversalKind::Refund, id, state, amount)
        };
        let failed = nameless("a", State::Undone, 400);
        let count = reversal(ReversalKind::Charge, "ch", State::Live, 400);
        assert_eq!(target(&paid(1000), &[failed.clone(), count.clone()], 1000), Some(0));
        let again = [failed.clone(), nameless("b", State::Live, 250), count.clone()];
        assert_eq!(target(&paid(1000), &again, 1000), Some(250));
        let other = Reversal {
            charge_id: Some("ch_2".to_owned()),
            ..reversal(ReversalKind::Charge, "ch_2", State::Live, 100)
        };
        assert_eq!(target(&paid(1000), &[failed, count, other], 1000), Some(500), "of which is not known");
    }

    #[test]
    fn refund_and_dispute_together_never_take_more_than_was_charged() {
        let both = [
            reversal(ReversalKind::Refund, "a", State::Live, 600),
            reversal(ReversalKind::Dispute, "d", State::Live, 1000),
        ];
        assert_eq!(target(&paid(1000), &both, 500), Some(500));
    }

    #[test]
    fn an_inquiry_takes_nothing_and_a_reinstated_dispute_gives_back() {
        for state in [State::Inquiry, State::Undone] {
            assert_eq!(
                target(&paid(1000), &[reversal(ReversalKind::Dispute, "d", state, 1000)], 500),
                Some(0)
            );
        }
    }

    #[test]
    fn a_dispute_in_another_currency_counts_whole() {
        let dispute =
            Reversal { currency: Some("eur".into()), ..reversal(ReversalKind::Dispute, "d", State::Live, 5) };
        assert_eq!(target(&paid(1000), &[dispute], 500), Some(500));
    }

    #[test]
    fn if_the_payments_currency_is_not_the_charges_the_charge_decides_or_is_waited_for() {
        let foreign = Paid { amount: Some(MinorUnits(90_000)), currency: Some("jpy".into()) };
        let refund = reversal(ReversalKind::Refund, "a", State::Live, 500);
        assert_eq!(target(&foreign, std::slice::from_ref(&refund), 500), None);
        assert_eq!(
            target(&foreign, &[refund, reversal(ReversalKind::Charge, "ch", State::Live, 500)], 500),
            Some(250)
        );
        assert_eq!(part(&Paid::default(), &[]), None);
        assert_eq!(
            part(&paid(0), &[]).map(|part| part.reversed),
            Some(MinorUnits(0)),
            "of nothing, nothing comes back"
        );
    }

    fn incoming() -> impl Strategy<Value = Reversal> {
        let kind = prop::sample::select(vec![
            ReversalKind::Refund,
            ReversalKind::Dispute,
            ReversalKind::Charge,
            ReversalKind::CreditNote,
        ]);
        let state = prop::sample::select(vec![State::Inquiry, State::Live, State::Undone]);
        (kind, 0..3u8, state, 0..1200i64).prop_map(|(kind, id, state, amount)| {
            let state = if kind == ReversalKind::Charge { State::Live } else { state };
            let id =
                if kind == ReversalKind::Charge { "ch".into() } else { format!("{}_{id}", kind.as_str()) };
            reversal(kind, &id, state, amount)
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
    }
}
