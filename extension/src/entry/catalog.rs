//! Loads a catalog, and applies what it changes for parked events, subscriptions and users without a plan.

use stripe_credits_rules::amount::Credits;
use stripe_credits_rules::catalog::{Catalog, Change, Settings};
use stripe_credits_rules::user;
use uuid::Uuid;

use crate::ledger;
use crate::parked;
use crate::pg::convert::clock;
use crate::pg::error::raise_invalid;
use crate::pg::locks;
use crate::pg::sql::{Sql, connected};
use crate::posting::subscription;
use crate::tables::catalog;

/// Stores a catalog and re-applies events that were parked waiting for it: a batch of them, and the others are due from now
/// on, since they were last judged before it was loaded. Returns how each price changed.
pub(crate) fn load(sql: &mut Sql, document: &Catalog) -> Vec<(String, Change)> {
    locks::catalog_exclusive();
    let known = catalog::settings(sql);
    check_namespace(sql, known.as_ref(), &document.settings);
    let granted_months = known.as_ref().is_some_and(grants_free_months);
    let changes = catalog::load(sql, document);
    parked::retry_before(sql, Some(&document.settings), clock(), parked::BATCH);
    let is_changed =
        |(price_id, change): &(String, Change)| (*change != Change::Unchanged).then(|| price_id.clone());
    let repriced: Vec<String> = changes.iter().filter_map(is_changed).collect();
    if !repriced.is_empty() {
        subscription::reprice(sql, &repriced);
    }
    if !granted_months && grants_free_months(&document.settings) {
        ledger::start_free_plan(sql);
    }
    changes
}

/// The user that a text names by the settings.
pub(crate) fn user_id(text: &str) -> Option<Uuid> {
    // Policies ask this in each statement of a client: a UUID needs no settings.
    user::user_id(text, None).or_else(|| user::user_id(text, connected(catalog::settings)?.user_namespace))
}

/// Refuses another namespace than the one in which the accounts' users were named: the same texts would name other users,
/// and whoever has paid would have nothing.
fn check_namespace(sql: &mut Sql, known: Option<&Settings>, wanted: &Settings) {
    let named_by = known.and_then(|settings| settings.user_namespace);
    if named_by.is_some() && named_by != wanted.user_namespace && ledger::has_accounts(sql) {
        raise_invalid(
            "the catalog is faulty at user_namespace: it must stay the same once there are accounts",
            "path = user_namespace",
        );
    }
}

fn grants_free_months(settings: &Settings) -> bool {
    settings.free_plan.as_ref().is_some_and(|plan| plan.credits > Credits::ZERO)
}
