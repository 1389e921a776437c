//! Several events of Stripe's in one transaction, with one commit: the locks of all of them, then one event after the other, as
//! if each had come alone.

use std::collections::BTreeSet;

use stripe_credits_rules::catalog::Settings;
use stripe_credits_rules::event::{Event, Keys, Malformed};
use uuid::Uuid;

use super::{
    Delivery, customers_to_lock, finish, judge_delivery, payments_given_away, read_body, reject_malformed,
};
use crate::judge::Caller;
use crate::ledger;
use crate::outcome::Outcome;
use crate::parked;
use crate::pg::locks;
use crate::pg::sql::Sql;
use crate::tables::{catalog, customers, subscriptions};

/// Applies the texts of webhooks' bodies in their order. Returns an outcome each.
pub(crate) fn deliver_texts(sql: &mut Sql, bodies: &[String]) -> Vec<Outcome> {
    let deliveries: Vec<Result<Delivery, Malformed>> =
        bodies.iter().map(|body| read_body(body, "p_events")).collect();
    locks::catalog_shared();
    let settings = catalog::settings(sql);
    let settings = settings.as_ref();
    let read = deliveries.iter().filter_map(|delivery| delivery.as_ref().ok());
    let events: Vec<&Event> = read.filter_map(|(event, _)| event.as_ref().ok()).collect();
    lock_all(sql, &events, settings);
    let mut outcomes = Vec::with_capacity(deliveries.len());
    for delivery in deliveries {
        outcomes.push(match delivery {
            Ok((Ok(event), payload)) => {
                // What an earlier event of the batch wrote is not known from before.
                let judged = judge_delivery(sql, settings, &event, None, Caller::Stripe, None);
                finish(sql, settings, &event, &payload, None, judged)
            }
            Ok((Err(malformed), payload)) => reject_malformed(sql, &malformed, &payload),
            Err(malformed) => Outcome::malformed(&malformed),
        });
    }
    outcomes
}

/// Takes the locks of all events in the order of rule 15, each kind of them sorted, and then those of the accounts that they
/// will most likely be posted in.
fn lock_all(sql: &mut Sql, events: &[&Event], settings: Option<&Settings>) {
    let customer_ids: Vec<&str> = events.iter().flat_map(|event| customers_to_lock(event)).collect();
    let mut keys = Keys::default();
    for event in events {
        let Keys { sources, names } = event.subject.keys();
        keys.sources.extend(sources);
        keys.names.extend(names);
        // Of its own row in the inbox: two batches may hold the same two events in different orders.
        keys.sources.push(&event.id);
    }
    let moving = |sql: &mut Sql| {
        events.iter().flat_map(|event| payments_given_away(sql, settings, &event.subject, None)).collect()
    };
    let known = parked::lock(sql, &customer_ids, &keys, moving);
    let mut users: BTreeSet<Uuid> = known.users().collect();
    let namespace = settings.and_then(|settings| settings.user_namespace);
    let named = events.iter().flat_map(|event| parked::named_users(&event.subject));
    users.extend(named.filter_map(|names| names.user(namespace)));
    users.extend(customers::users(sql, customer_ids.into_iter().map(str::to_owned).collect()));
    users.extend(subscriptions::users(sql, keys.sources.iter().map(|id| (*id).to_owned()).collect()));
    ledger::lock(sql, &users);
}
