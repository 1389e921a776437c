//! Loads a catalog, and applies what it changes for parked events, subscriptions and users without a plan: a batch of each at
//! once, and the rest a batch a transaction, so that deliveries, which wait for the catalog, are applied in between.

use std::collections::BTreeSet;

use stripe_credits_rules::amount::Credits;
use stripe_credits_rules::calendar::Time;
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
use crate::tables::repricings::{self, Repricing};
use crate::tables::{catalog, inbox};

/// The maximum number of accounts of which one transaction asks whether a change of the catalog concerns them.
const EXAMINED_AT_ONCE: i64 = 1_000;

/// Stores a catalog and re-applies events that were parked waiting for it: a batch of them, and the others are due from now
/// on, since they were last judged before it was loaded. Likewise it reprices a batch of accounts, and records that the others
/// are due. Returns how each price changed.
pub(crate) fn load(sql: &mut Sql, document: &Catalog) -> Vec<(String, Change)> {
    locks::catalog_exclusive();
    let known = catalog::settings(sql);
    check_namespace(sql, known.as_ref(), &document.settings);
    let granted_months = known.as_ref().is_some_and(grants_free_months);
    let changes = catalog::load(sql, document);
    parked::retry_before(sql, Some(&document.settings), clock(), parked::BATCH);
    let is_free_plan_new = !granted_months && grants_free_months(&document.settings);
    if let Some(repricing) = repricing(sql, &changes, is_free_plan_new.then(clock)) {
        reprice(sql, repricing);
    }
    changes
}

/// What the changes of prices, and a free plan that is new since a time, make due in accounts, if there are any.
fn repricing(sql: &mut Sql, prices: &[(String, Change)], free_plan_since: Option<Time>) -> Option<Repricing> {
    let ids = |is_meant: fn(Change) -> bool| {
        let meant = prices.iter().filter(|(_, change)| is_meant(*change));
        meant.map(|(price_id, _)| price_id.clone()).collect::<Vec<String>>()
    };
    let changed = ids(|change| change != Change::Unchanged);
    (!changed.is_empty() || free_plan_since.is_some()).then(|| Repricing {
        number: repricings::next_number(sql),
        changed,
        added: ids(|change| change == Change::Added),
        free_plan_since,
        passed: None,
        is_walked: false,
        busy: Vec::new(),
    })
}

/// Judges up to `limit` of those parked events again that a catalog or a call made due, and once there are none, posts what the
/// catalog changed in the next accounts. Returns how many of either: 0 if nothing is due any more that can be posted now.
pub(crate) fn retry_due(sql: &mut Sql, limit: i64) -> usize {
    // Asked every few seconds: the lock, for which every delivery waits, is for when there is something to do.
    if !has_due(sql) {
        return 0;
    }
    locks::catalog_exclusive();
    retry_due_locked(sql, limit)
}

/// Does the same, but only if no delivery is being applied now, and of events no more than a batch. Accounts may be locked by now:
/// what locks several of them holds the catalog's lock too, or waits for none.
pub(crate) fn try_retry_due(sql: &mut Sql, limit: i64) -> usize {
    if has_due(sql) && locks::try_catalog_exclusive() {
        retry_due_locked(sql, limit.min(parked::BATCH))
    } else {
        0
    }
}

fn has_due(sql: &mut Sql) -> bool {
    let has_parked = catalog::loaded_at(sql).is_some_and(|loaded_at| inbox::is_parked_before(sql, loaded_at));
    has_parked || repricings::is_due(sql)
}

fn retry_due_locked(sql: &mut Sql, limit: i64) -> usize {
    let settings = catalog::settings(sql);
    let Some(loaded_at) = catalog::loaded_at(sql) else { return 0 };
    let events = parked::retry_before(sql, settings.as_ref(), loaded_at, limit).len();
    match repricings::next(sql) {
        Some(repricing) if events == 0 => reprice(sql, repricing),
        _ => events,
    }
}

/// Posts what a change of the catalog changes in the next accounts, or in those that were busy, and saves how far that came.
/// Returns how many accounts it looked at that are done.
fn reprice(sql: &mut Sql, mut repricing: Repricing) -> usize {
    let done = if repricing.is_walked {
        let was_busy = std::mem::take(&mut repricing.busy);
        let mut still_busy = start_free_plan(sql, &repricing, &was_busy);
        for account in repricings::of_busy(sql, &was_busy, &repricing) {
            if !subscription::reprice(sql, account.user, account.lines_from) {
                still_busy.insert(account.user);
            }
        }
        repricing.busy = still_busy.into_iter().collect();
        was_busy.len() - repricing.busy.len()
    } else {
        walk(sql, &mut repricing)
    };
    if repricing.is_walked && repricing.busy.is_empty() {
        repricings::delete(sql, repricing.number);
    } else {
        repricings::save(sql, &repricing);
    }
    done
}

/// Looks at the next accounts: up to [`EXAMINED_AT_ONCE`], of which the change may concern [`parked::BATCH`].
fn walk(sql: &mut Sql, repricing: &mut Repricing) -> usize {
    let next = repricings::after(sql, repricing, EXAMINED_AT_ONCE);
    repricing.is_walked = i64::try_from(next.len()).is_ok_and(|found| found < EXAMINED_AT_ONCE);
    let (mut looked_at, mut busy, mut concerned) = (Vec::new(), BTreeSet::new(), 0);
    for account in next {
        if account.is_concerned() {
            if concerned == parked::BATCH {
                repricing.is_walked = false;
                break;
            }
            concerned += 1;
            if !subscription::reprice(sql, account.user, account.lines_from) {
                busy.insert(account.user);
            }
        }
        looked_at.push(account.user);
    }
    busy.extend(start_free_plan(sql, repricing, &looked_at));
    repricing.busy.extend(busy);
    repricing.passed = looked_at.last().copied().or(repricing.passed);
    looked_at.len()
}

/// Starts a new free plan's months in accounts, if the repricing is about one. Returns the users whose accounts are busy.
fn start_free_plan(sql: &mut Sql, repricing: &Repricing, users: &[Uuid]) -> BTreeSet<Uuid> {
    let started = repricing.free_plan_since.map(|since| ledger::start_free_plan(sql, users, since));
    started.into_iter().flatten().collect()
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
