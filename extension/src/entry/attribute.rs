//! An operator, or the app's server, states which user a customer or a session belongs to.

use stripe_credits_rules::amount::Credits;
use stripe_credits_rules::event::Keys;
use stripe_credits_rules::reason::Reason;
use stripe_credits_rules::verdict::Verdict;
use uuid::Uuid;

use crate::ledger;
use crate::outcome::Outcome;
use crate::parked;
use crate::pg::convert::clock;
use crate::pg::locks;
use crate::pg::sql::Sql;
use crate::tables::inbox::{self, ParkedEvent};
use crate::tables::{catalog, customers, payments};

/// Links a customer to a user, and applies what is parked for the customer.
pub(crate) fn customer(sql: &mut Sql, customer_id: &str, user: Uuid) -> Outcome {
    locks::catalog_shared();
    let judged_from = clock();
    let parked = parked::lock_with_parked(sql, Some(customer_id), &Keys::default());
    let changed = customers::link_by_server(sql, customer_id, user);
    let outcome = attributed(sql, user, changed, &parked);
    parked::leave_the_rest_due(sql, customer_id, &parked, judged_from);
    outcome
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
    attributed(sql, user, changed, &parked)
}

/// Re-applies parked events, and sums up their credits.
fn attributed(sql: &mut Sql, user: Uuid, changed: bool, parked: &[ParkedEvent]) -> Outcome {
    let settings = catalog::settings(sql);
    let reapplied = parked::reapply_parked(sql, settings.as_ref(), parked);
    let verdict = if changed || !reapplied.is_empty() { Verdict::Applied } else { Verdict::AlreadyApplied };
    let credits = reapplied.iter().filter_map(|event| event["credits"].as_i64()).sum();
    let outcome = Outcome {
        user: Some(user),
        credits: Credits(credits),
        balances: ledger::balances(sql, user),
        ..Outcome::of(verdict)
    };
    if reapplied.is_empty() { outcome } else { outcome.with("followed", reapplied) }
}
