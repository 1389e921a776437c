//! What a subscription's states alone do: the tier, and a plan that goes down without an invoice.

use std::collections::BTreeSet;

use super::catalog::Worth;
use super::closings::{Cause, Closing};
use super::grants::{Grant, Key};
use super::lines::{Kind, Line, World};
use super::number::{Fraction, whole};
use super::periods::{Origin, Period};
use super::subscription::{self, State, Stream};

/// "Active, trialing and past_due name the plan, of several items and subscriptions the highest rank; everything else,
/// paused too, is free."
pub(super) fn tier(world: &World) -> String {
    let newest = world.facts.subscriptions.values().filter_map(|states| subscription::newest(states));
    let running = newest.filter(|state| ["active", "trialing", "past_due"].contains(&state.status.as_str()));
    let items = running.flat_map(|state| &state.items);
    world.catalog.tier(items.map(|item| (item.price.as_str(), item.product.as_deref())))
}

/// A stream's plan that went down, or was removed, by status alone.
struct Down {
    /// The unbroken states that say so, the first one first.
    states: Vec<State>,
    /// "At most the new price's credits × quantity stays."
    stays: i64,
    /// "The policy is the billed plan's": whether it keeps what is left until the period ends.
    keeps: bool,
    is_removed: bool,
}

/// The closings of the periods that run: under `plan_change: reset`, "of what is left of the running period, and of each
/// part, when the first of the unbroken states that say so was true, at most the new price's credits × quantity stays".
pub(super) fn limits(world: &World, periods: &[Period], grants: &[Grant], now: i64) -> Vec<Closing> {
    let mut limits = Vec::new();
    for stream in streams(periods) {
        let Some(down) = down(world, periods, &stream).filter(|down| !down.keeps) else { continue };
        let Some(newest) = down.states.last() else { continue };
        // It is the newest state's time by which a period runs: several do after a change of the anchor, and an item that is
        // no longer listed holds 0 of all of them.
        let runs = |period: &&Period| {
            let has_begun = period.first_paid_at().is_some_and(|paid_at| period.start <= now.max(paid_at));
            is_plans(period, &stream) && period.start <= newest.at && newest.at < period.end && has_begun
        };
        let running: BTreeSet<(i64, i64)> =
            periods.iter().filter(runs).map(|period| (period.start, period.end)).collect();
        for grant in grants {
            let Key::Period { stream: its, start, end, is_purchased: false, is_below_zero: false, .. } =
                &grant.key
            else {
                continue;
            };
            let first = down.states[0].at;
            let is_over = grant.ends.is_some_and(|ends| ends <= first);
            if *its != stream || !running.contains(&(*start, *end)) || is_over {
                continue;
            }
            limits.push(Closing {
                at: first,
                ids: down.states.iter().map(|state| state.event.clone()).collect(),
                grants: vec![grant.key.clone()],
                stays: down.stays,
                cause: Cause::Limit,
            });
        }
    }
    limits
}

/// "An item that is no longer in the subscription's complete list: at its period's end under `keep`."
pub(super) fn expires_by_removal(world: &World, periods: &[Period], period: &Period) -> Option<i64> {
    let down = down(world, periods, &period.stream).filter(|down| down.keeps && down.is_removed)?;
    let first = down.states[0].at;
    (period.start <= first && first < period.end).then_some(period.end)
}

fn streams(periods: &[Period]) -> Vec<Stream> {
    let mut streams: Vec<_> = periods.iter().map(|period| period.stream.clone()).collect();
    streams.sort();
    streams.dedup();
    streams
}

fn is_plans(period: &Period, stream: &Stream) -> bool {
    period.stream == *stream && !period.is_purchased && period.origin != Origin::Credit
}

/// "The plan goes down by status alone if the newest state, not older than the item's latest lines, gives the item less
/// (credits × quantity per month; of a dripping price, per part's month) than those lines' charges bill."
fn down(world: &World, periods: &[Period], stream: &Stream) -> Option<Down> {
    stream.item.as_ref()?;
    let states = world.facts.subscriptions.get(&stream.subscription)?;
    let (since, bill, plan_line) = latest_bill(periods, stream)?;
    let says_so = |state: &&State| {
        state.at >= since && gives(world, state, stream).is_some_and(|(per_month, _)| per_month < bill)
    };
    let until = states.iter().position(|state| state.ended_at.is_some()).map_or(states.len(), |at| at + 1);
    let mut unbroken: Vec<State> = states[..until].iter().rev().take_while(says_so).cloned().collect();
    unbroken.reverse();
    let newest = unbroken.last()?;
    let (_, stays) = gives(world, newest, stream)?;
    let keeps = plan_line.sold.plan().is_some_and(|price| price.plan.keeps_on_change);
    let is_removed = its_items(world, newest, stream).next().is_none();
    Some(Down { states: unbroken, stays, keeps, is_removed })
}

/// The latest lines of a stream: since when they bill, what their charges bill a month, and one of the charges. "If they
/// are credits only, they bill 0", and nothing is less. Where invoices of one second bill differently, a state that
/// gives what one of them bills is accounted for.
fn latest_bill<'a>(periods: &'a [Period], stream: &Stream) -> Option<(i64, Fraction, &'a Line)> {
    let its = periods.iter().filter(|period| period.stream == *stream && !period.is_purchased);
    let lines: Vec<&Line> =
        its.flat_map(|period| &period.lines).map(|placed| &placed.line).filter(|line| line.stands).collect();
    let latest = lines.iter().map(|line| (line.start, line.invoice_created)).max()?;
    let latest: Vec<&Line> =
        lines.into_iter().filter(|line| (line.start, line.invoice_created) == latest).collect();
    let bill_of = |invoice: &str| {
        let its = latest.iter().filter(|line| line.invoice == invoice && bills(line));
        its.filter_map(|line| per_month(line)).fold(whole(0), |sum, bill| sum + bill)
    };
    let bill = latest.iter().map(|line| bill_of(&line.invoice)).min()?;
    let charge = latest.iter().filter(|line| bills(line)).max_by_key(|line| line.sold.credits())?;
    Some((charge.start, bill, charge))
}

/// Whether a line is a charge that bills something: a proration of 0 does not.
fn bills(line: &Line) -> bool {
    line.kind == Kind::Whole || line.kind == Kind::Charge && !line.is_free
}

fn per_month(line: &Line) -> Option<Fraction> {
    let price = line.sold.plan()?;
    let span = price.drip.unwrap_or(line.interval);
    Some(whole(price.plan.credits) * whole(line.quantity) / span.months())
}

/// What a state gives a stream: a month, and by the new price itself. "A price that the catalog does not know limits
/// nothing", nor does a list that goes on.
fn gives(world: &World, state: &State, stream: &Stream) -> Option<(Fraction, i64)> {
    let items: Vec<_> = its_items(world, state, stream).collect();
    if items.is_empty() && !state.is_complete {
        return None;
    }
    let (mut per_month, mut stays) = (whole(0), 0);
    for item in items {
        if let Worth::Plan(price) = world.catalog.worth(&item.price, item.product.as_deref())? {
            let span = price.drip.or(world.facts.interval(&item.price)).unwrap_or(price.every);
            let credits = price.plan.credits * item.quantity;
            per_month += whole(credits) / span.months();
            stays += credits;
        }
    }
    Some((per_month, stays))
}

fn its_items<'a>(
    world: &'a World,
    state: &'a State,
    stream: &'a Stream,
) -> impl Iterator<Item = &'a subscription::Item> {
    state.items.iter().filter(|item| world.takeovers.stream(&stream.subscription, Some(&item.id)) == *stream)
}
