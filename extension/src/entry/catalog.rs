//! Loads a catalog, and applies what it changes for parked events, subscriptions and users without a plan.

use stripe_credits_rules::amount::Credits;
use stripe_credits_rules::catalog::{Catalog, Change, Settings};

use crate::ledger;
use crate::parked;
use crate::pg::convert::clock;
use crate::pg::locks;
use crate::pg::sql::Sql;
use crate::posting::subscription;
use crate::tables::{catalog, inbox};

/// How many parked events are in memory at a time while all of them are judged again.
const PARKED_BATCH: i64 = 1_000;

/// Stores a catalog and re-applies events that were parked waiting for it. Returns how each price changed.
pub(crate) fn load(sql: &mut Sql, document: &Catalog) -> Vec<(String, Change)> {
    locks::catalog_exclusive();
    let granted_months = catalog::settings(sql).is_some_and(|settings| grants_free_months(&settings));
    let changes = catalog::load(sql, document);
    reapply_all(sql, &document.settings);
    for (price_id, _) in changes.iter().filter(|(_, change)| *change != Change::Unchanged) {
        subscription::reprice(sql, price_id);
    }
    if !granted_months && grants_free_months(&document.settings) {
        ledger::start_free_plan(sql);
    }
    changes
}

/// Judges every parked event again, once.
fn reapply_all(sql: &mut Sql, settings: &Settings) {
    let started = clock();
    loop {
        let parked = inbox::parked_before(sql, started, PARKED_BATCH);
        if parked.is_empty() {
            return;
        }
        for parked_event in parked {
            parked::retry(sql, Some(settings), &parked_event);
        }
    }
}

fn grants_free_months(settings: &Settings) -> bool {
    settings.free_plan.as_ref().is_some_and(|plan| plan.credits > Credits::ZERO)
}
