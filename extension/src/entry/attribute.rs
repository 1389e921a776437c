//! An operator, or the app's server, says whose a customer or a session is; what was parked for want of that follows.

use stripe_credits_rules::amount::Credits;
use stripe_credits_rules::event::Keys;
use stripe_credits_rules::identity::{Source, Tie};
use stripe_credits_rules::reason::Reason;
use uuid::Uuid;

use crate::entry::event as apply;
use crate::ledger;
use crate::outcome::{Outcome, Verdict};
use crate::pg::convert::clock;
use crate::pg::locks;
use crate::pg::sql::Sql;
use crate::tables::inbox::{self, Waiting};
use crate::tables::{catalog, customers, payments};

/// Ties a customer to a user.
pub(crate) fn customer(sql: &mut Sql, customer_id: &str, user: Uuid) -> Outcome {
    locks::catalog_shared();
    locks::customer(customer_id);
    let waiting = inbox::waiting_for_customer(sql, customer_id);
    apply::lock_waiting(sql, &waiting, &Keys::default());
    let known = customers::tie(sql, customer_id);
    let said = Tie { user, source: Source::Server, as_of: clock() };
    let changed = customers::say(sql, customer_id, known, said);
    attributed(sql, user, changed, &waiting)
}

/// Ties a checkout session to a user, whether it was seen already or not.
pub(crate) fn session(sql: &mut Sql, session_id: &str, user: Uuid) -> Outcome {
    // What a subscription's session began is known by its customer.
    if let Some(customer_id) = inbox::customer_of_subscribing(sql, session_id) {
        return customer(sql, &customer_id, user);
    }
    locks::catalog_shared();
    locks::sources([session_id]);
    let waiting = inbox::waiting_for_session(sql, session_id);
    apply::lock_payment_intents(&waiting);
    let known = payments::of_source(sql, session_id, None);
    if known.as_ref().is_some_and(|payment| payment.paid && payment.user != user) {
        return Outcome::of(Verdict::Rejected(Reason::Conflict));
    }
    if known.as_ref().is_none_or(|payment| !payment.paid) {
        payments::attribute(sql, session_id, user, clock());
    }
    let changed = known.is_none_or(|payment| payment.user != user);
    attributed(sql, user, changed, &waiting)
}

/// Lets what waited follow, and sums up what came of it.
fn attributed(sql: &mut Sql, user: Uuid, changed: bool, waiting: &[Waiting]) -> Outcome {
    let settings = catalog::settings(sql);
    let followed = apply::follow(sql, settings.as_ref(), waiting);
    let verdict = if changed || !followed.is_empty() { Verdict::Applied } else { Verdict::AlreadyApplied };
    let credits = followed.iter().filter_map(|event| event["credits"].as_i64()).sum();
    let outcome = Outcome {
        user: Some(user),
        credits: Credits(credits),
        balances: ledger::balances(sql, user),
        ..Outcome::of(verdict)
    };
    if followed.is_empty() { outcome } else { outcome.with("followed", followed) }
}
