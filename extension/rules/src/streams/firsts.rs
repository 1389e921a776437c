//! What a user has once: the trial, and the bonus of the first purchase (rule 7).

use std::collections::BTreeMap;

use super::facts::{Facts, GrantKey, Line, Payment, StreamKey};
use super::lines::by_id;
use super::lots::{Lot, Lots};
use super::share::whole;
use super::succession::Streams;
use crate::amount::Credits;
use crate::catalog::PriceKind;
use crate::lot::Pool;

/// The bonus, by the earliest paid invoice that still stands: a reversal is counted over what stands.
pub(super) fn first_purchase(facts: &Facts) -> Option<Lot> {
    let payments = by_id(facts);
    let purchases = of_subscriptions(facts, &payments)
        .filter(|(line, payment)| {
            !line.is_credit() && line.amount.0 > line.discount.0 && !payment.is_reversed_whole()
        })
        .collect::<Vec<_>>();
    let (_, first) = purchases.iter().min_by_key(|(_, payment)| (payment.paid_at, &payment.id))?;
    let own = purchases
        .iter()
        .filter(|(line, payment)| payment.id == first.id && line.terms.kind == PriceKind::Plan);
    let bonus =
        own.map(|(line, _)| line.terms.first_purchase_bonus).max().filter(|bonus| *bonus > Credits::ZERO)?;
    let mut lot = Lot::new(GrantKey::FirstPurchaseBonus, Pool::Promotional, first.paid_at);
    let exact = whole(bonus.0);
    lot.add_paid(first, exact.clone(), exact * first.counted().charge);
    Some(lot)
}

/// The trial, by the earliest line of 0. It belongs to no stream, and ends with its line or when a paid period of
/// its item opens.
pub(super) fn trial(facts: &Facts, streams: &Streams, lots: &Lots) -> Option<Lot> {
    let payments = by_id(facts);
    let trials = of_subscriptions(facts, &payments).filter(|(line, _)| {
        let is_zero = line.amount.0 == 0 && !line.is_credit() && !line.is_proration && line.quantity > 0;
        let is_trial = is_zero && !is_part_of_a_charge(line, facts);
        is_trial && line.terms.kind == PriceKind::Plan && line.terms.trial_credits > Credits::ZERO
    });
    let (line, payment) = trials.min_by_key(|(line, payment)| {
        (line.period, &line.subscription, &line.item, &payment.id, &line.price)
    })?;
    let item = StreamKey { subscription: line.subscription.clone()?, item: line.item.clone() };
    let stream = streams.id(&item)?;
    let openings = lots
        .periods
        .iter()
        .filter(|((of, _), _)| *of == stream)
        .filter_map(|(_, period)| period.opening)
        .map(|opening| opening.at)
        .filter(|at| *at >= line.period.start);
    let mut lot = Lot::new(GrantKey::Trial, Pool::Subscription, line.period.start);
    lot.ends = openings.chain([line.period.end]).min();
    let credits = whole(line.terms.trial_credits.0);
    lot.add(payment.paid_at, credits.clone(), credits);
    lot.payments.insert((payment.paid_at, payment.id.clone()));
    Some(lot)
}

/// Whether it is one with a line that charges: the units beside their flat fee.
fn is_part_of_a_charge(line: &Line, facts: &Facts) -> bool {
    let what = |of: &Line| {
        let whose = (of.payment.clone(), of.subscription.clone(), of.item.clone());
        (whose, of.price.clone(), of.period, of.is_proration)
    };
    let others = facts.first_lines.iter().chain(&facts.lines);
    others.filter(|other| other.amount.0 > 0).any(|other| what(other) == what(line))
}

/// The lines of subscriptions' invoices, also from before the horizon, with their payments.
fn of_subscriptions<'a>(
    facts: &'a Facts,
    payments: &BTreeMap<&str, &'a Payment>,
) -> impl Iterator<Item = (&'a Line, &'a Payment)> {
    let lines = facts.first_lines.iter().chain(&facts.lines);
    lines
        .filter(|line| line.subscription.is_some() && line.terms.kind != PriceKind::NotCredits)
        .filter_map(|line| Some((line, *payments.get(line.payment.as_str())?)))
}
