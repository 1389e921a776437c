//! An operator, or the app's server, states which user a customer, a subscription or a session belongs to.

use std::collections::BTreeSet;

use stripe_credits_rules::amount::Credits;
use stripe_credits_rules::calendar::TimeDelta;
use stripe_credits_rules::event::Keys;
use stripe_credits_rules::reason::Reason;
use stripe_credits_rules::verdict::Verdict;
use uuid::Uuid;

use crate::ledger;
use crate::outcome::Outcome;
use crate::parked::{self, Locked};
use crate::pg::convert::clock;
use crate::pg::locks;
use crate::pg::sql::Sql;
use crate::posting::subscription;
use crate::tables::inbox::{self, ParkedEvent};
use crate::tables::{catalog, customers, ownership, payments, subscriptions};

/// Links a customer to a user, by each of its names, and applies what is parked for it. The customer's subscriptions move that
/// the user has to whom the customer was linked, unless their own metadata name that user.
pub(crate) fn customer(sql: &mut Sql, customer_id: &str, user: Uuid) -> Outcome {
    locks::catalog_shared();
    let judged_from = clock();
    let mut names = customers::other_names(sql, customer_id);
    names.push(customer_id.to_owned());
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    locks::customers(names.iter().copied());
    let mut moving = BTreeSet::new();
    for name in &names {
        let linked = customers::find(sql, name).map(|link| link.user).filter(|linked| *linked != user);
        moving.extend(linked.map_or(Vec::new(), |linked| subscriptions::of_customer(sql, name, linked)));
    }
    let keys = Keys { sources: moving.iter().map(String::as_str).collect(), ..Keys::default() };
    let Locked { parked, .. } = parked::lock_with_parked(sql, &names, &keys, |sql| {
        moving.iter().flat_map(|subscription_id| ownership::payments(sql, subscription_id)).collect()
    });
    let mut changed = false;
    for name in &names {
        changed |= customers::link_by_server(sql, name, user);
    }
    let moved = moving.iter().map(|subscription_id| give(sql, subscription_id, user));
    let moved = moved.reduce(Outcome::and_then);
    let outcome = attributed(sql, user, changed, moved, &parked);
    for name in &names {
        parked::leave_the_rest_due(sql, name, &parked, judged_from);
    }
    outcome
}

/// Gives a subscription to a user, whether it is known or not, and applies what is parked for its customer.
pub(crate) fn subscription(sql: &mut Sql, subscription_id: &str, user: Uuid) -> Outcome {
    locks::catalog_shared();
    let judged_from = clock();
    let customer_id = subscriptions::customer(sql, subscription_id)
        .or_else(|| inbox::customer_of_subscription(sql, subscription_id));
    let keys = Keys { sources: vec![subscription_id], ..Keys::default() };
    let Locked { parked, .. } =
        parked::lock_with_parked(sql, customer_id.as_deref().as_slice(), &keys, |sql| {
            ownership::payments(sql, subscription_id)
        });
    let given = give(sql, subscription_id, user);
    if matches!(given.verdict, Verdict::Rejected(_)) {
        return given;
    }
    let changed = given.verdict == Verdict::Applied;
    let outcome = attributed(sql, user, changed, Some(given), &parked);
    if let Some(customer_id) = customer_id {
        parked::leave_the_rest_due(sql, &customer_id, &parked, judged_from);
    }
    outcome
}

/// Moves a subscription to a user, and records that an operator gave it. That is later than every state that is known, and
/// earlier than a newer one.
fn give(sql: &mut Sql, subscription_id: &str, user: Uuid) -> Outcome {
    let is_new = subscriptions::user(sql, subscription_id) != Some(user);
    let known = subscriptions::find(sql, subscription_id).map(|known| known.state.as_of);
    let last = known.max(ownership::last_given(sql, subscription_id));
    let at = last.map_or(clock(), |last| last + TimeDelta::microseconds(1));
    let outcome = subscription::assign(sql, subscription_id, user);
    if outcome.verdict == Verdict::Rejected(Reason::OutOfRange) {
        return outcome;
    }
    ownership::give(sql, subscription_id, user, at, ownership::Source::Operator);
    if is_new { Outcome { verdict: Verdict::Applied, ..outcome } } else { outcome }
}

/// Links a checkout session to a user, whether the session is known or not, and applies what is parked for it.
pub(crate) fn session(sql: &mut Sql, session_id: &str, user: Uuid) -> Outcome {
    // What a session of mode subscription started is known by its customer.
    if let Some(customer_id) = inbox::customer_of_subscription_session(sql, session_id) {
        return customer(sql, &customer_id, user);
    }
    locks::catalog_shared();
    locks::sources([session_id]);
    let parked = inbox::parked_for_session(sql, session_id);
    parked::lock_payments(sql, session_id, &parked);
    let known = payments::of_source(sql, session_id);
    if known.as_ref().is_some_and(|payment| payment.paid && payment.user != user) {
        return Outcome::rejected(Reason::Conflict);
    }
    if known.as_ref().is_none_or(|payment| !payment.paid) {
        payments::attribute(sql, session_id, user, clock());
    }
    let changed = known.is_none_or(|payment| payment.user != user);
    attributed(sql, user, changed, None, &parked)
}

/// Re-applies parked events, and sums up their credits and those that moved.
fn attributed(
    sql: &mut Sql,
    user: Uuid,
    changed: bool,
    moved: Option<Outcome>,
    parked: &[ParkedEvent],
) -> Outcome {
    let settings = catalog::settings(sql);
    let reapplied = parked::reapply_parked(sql, settings.as_ref(), parked);
    let verdict = if changed || !reapplied.is_empty() { Verdict::Applied } else { Verdict::AlreadyApplied };
    let credits: i64 = reapplied.iter().filter_map(|event| event["credits"].as_i64()).sum();
    let moved = moved.unwrap_or_else(|| Outcome::of(verdict));
    let outcome = Outcome {
        verdict,
        user: Some(user),
        credits: Credits(credits + moved.credits.0),
        balances: ledger::balances(sql, user),
        ..moved
    };
    if reapplied.is_empty() { outcome } else { outcome.with("followed", reapplied) }
}
