//! Table `subscription_items`: the states of each subscription item, one row for each change of its content.

use stripe_credits_rules::amount::Quantity;
use stripe_credits_rules::calendar::{Span, Time, TimeDelta};
use stripe_credits_rules::catalog::Item;
use stripe_credits_rules::subscription::{Subscription, SubscriptionItem};
use uuid::Uuid;

use crate::pg::convert::{timestamp, uuid_datum};
use crate::pg::sql::{Row, Sql};

/// A row.
#[derive(Debug, Clone)]
pub(crate) struct StoredItem {
    pub(crate) item_id: String,
    pub(crate) subscription_id: String,
    pub(crate) as_of: Time,
    /// The same time for comparison with periods: by the customer's test clock, if there is one.
    pub(crate) seen_at: Time,
    pub(crate) content: Content,
    /// When that became known, in the order of all ledger rows.
    pub(crate) known_at: Time,
}

/// What a complete list says of an item.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Content {
    pub(crate) price_id: Option<String>,
    pub(crate) product_id: Option<String>,
    pub(crate) quantity: i64,
    pub(crate) interval: Option<Span>,
    pub(crate) is_metered: bool,
    pub(crate) is_removed: bool,
}

impl Content {
    fn of(item: &SubscriptionItem) -> Content {
        let price = item.price.as_ref();
        Content {
            price_id: price.map(|price| price.id.clone()),
            product_id: price.and_then(|price| price.product_id.clone()),
            quantity: item.quantity.max(0),
            interval: price.and_then(|price| price.interval),
            is_metered: price.is_some_and(|price| price.is_metered),
            is_removed: false,
        }
    }

    fn removed() -> Content {
        Content { is_removed: true, ..Content::default() }
    }
}

/// What the newest known state of a subscription lists, as a catalog looks it up: the prices of which it has at least one.
pub(crate) fn priced(sql: &mut Sql, subscription_id: &str) -> Vec<(Item, Quantity)> {
    let rows = sql.query(
        "select price_id, product_id, quantity from (
             select distinct on (item_id) * from billing.subscription_items
             where subscription_id = $1 order by item_id, as_of desc) i
         where not removed and price_id is not null and quantity > 0 order by item_id",
        &[subscription_id.into()],
    );
    rows.map(|mut row| (Item::line(row.get(), row.get_opt()), row.get())).collect()
}

/// The columns that [`stored`] reads, in its order.
macro_rules! columns {
    () => {
        "i.item_id, i.subscription_id, i.as_of, i.seen_at, i.price_id, i.product_id, i.quantity, i.interval, i.metered, \
         i.removed, i.known_at"
    };
}

fn stored(mut row: Row) -> StoredItem {
    StoredItem {
        item_id: row.get(),
        subscription_id: row.get(),
        as_of: row.get(),
        seen_at: row.get(),
        content: Content {
            price_id: row.get_opt(),
            product_id: row.get_opt(),
            quantity: row.get(),
            interval: row.get_opt(),
            is_metered: row.get(),
            is_removed: row.get(),
        },
        known_at: row.get(),
    }
}

/// Every state of every item of a user's subscriptions.
pub(crate) fn of_user(sql: &mut Sql, user: Uuid) -> Vec<StoredItem> {
    const OF_USER: &str = concat!(
        "select ",
        columns!(),
        " from billing.subscriptions s join billing.subscription_items i using (subscription_id)
         where s.user_id = $1 order by i.item_id, i.as_of"
    );
    sql.query(OF_USER, &[uuid_datum(user).into()]).map(stored).collect()
}

/// The states that lines from a time on may depend on (rules/streams/horizon.rs): of an item that was removed all, of others the
/// first, that of this time, and the later ones. Of the states between it reads none, however many there are. In their order none
/// is seen before the one before it, as the rules sort them.
pub(crate) fn of_user_since(sql: &mut Sql, user: Uuid, since: Time) -> Vec<StoredItem> {
    const OF_USER_SINCE: &str = concat!(
        // The items, by one probe of the index for each.
        "with recursive item as (
             select s.subscription_id, first.item_id
             from billing.subscriptions s
             cross join lateral (
                 select i.item_id from billing.subscription_items i
                 where i.subscription_id = s.subscription_id order by i.item_id limit 1) first
             where s.user_id = $1
             union all
             select p.subscription_id, next.item_id
             from item p
             cross join lateral (
                 select i.item_id from billing.subscription_items i
                 where i.subscription_id = p.subscription_id and i.item_id > p.item_id order by i.item_id limit 1) next
         )
         select ",
        columns!(),
        " from item
         cross join lateral (
             -- Null: all of them are needed.
             select case when not exists (
                     select from billing.subscription_items r
                     where r.subscription_id = item.subscription_id and r.item_id = item.item_id and r.removed)
                 then (
                     select c.seen_at from billing.subscription_items c
                     where c.subscription_id = item.subscription_id and c.item_id = item.item_id and c.seen_at <= $2
                     order by c.seen_at desc limit 1) end as since
             offset 0) needed
         cross join lateral (
             select * from billing.subscription_items later
             where later.subscription_id = item.subscription_id and later.item_id = item.item_id
                 and later.seen_at >= coalesce(needed.since, '-infinity')
             union all
             select * from (
                 select * from billing.subscription_items i
                 where i.subscription_id = item.subscription_id and i.item_id = item.item_id
                 order by i.seen_at, i.as_of limit 1) first
             where first.seen_at < needed.since
         ) i
         order by i.item_id, i.as_of"
    );
    sql.query(OF_USER_SINCE, &[uuid_datum(user).into(), timestamp(since).into()]).map(stored).collect()
}

fn of_subscription(sql: &mut Sql, subscription_id: &str) -> Vec<StoredItem> {
    const OF_SUBSCRIPTION: &str = concat!(
        "select ",
        columns!(),
        " from billing.subscription_items i where i.subscription_id = $1 order by i.item_id, i.as_of"
    );
    sql.query(OF_SUBSCRIPTION, &[subscription_id.into()]).map(stored).collect()
}

/// Whether some item says that a price is usage-based.
pub(crate) fn is_metered(sql: &mut Sql, price_id: &str) -> bool {
    let metered = "select from billing.subscription_items where price_id = $1 and metered limit 1";
    sql.query_opt(metered, &[price_id.into()]).is_some()
}

/// Records what a state with a complete list says of each item, as it was `seen_at`. `newest` is the `as_of` and the `seen_at` of
/// the newest known state. Returns whether anything was new. The caller holds the subscription's lock.
pub(crate) fn record(
    sql: &mut Sql,
    state: &Subscription,
    seen_at: Time,
    newest: (Time, Time),
    known_at: Time,
) -> bool {
    let known = of_subscription(sql, &state.id);
    let listed: Vec<(&str, Content)> =
        state.items.iter().filter_map(|item| Some((item.id.as_deref()?, Content::of(item)))).collect();
    let mut items: Vec<&str> = listed.iter().map(|(item, _)| *item).collect();
    items.extend(known.iter().map(|row| row.item_id.as_str()));
    items.sort_unstable();
    items.dedup();
    let mut changed = false;
    for item in items {
        let content = listed.iter().find(|(id, _)| *id == item).map(|(_, content)| content.clone());
        let states: Vec<&StoredItem> = known.iter().filter(|row| row.item_id == item).collect();
        let before = states.iter().rev().find(|row| row.as_of <= state.as_of);
        let content = match (content, before) {
            // It was not listed before either.
            (None, None) => continue,
            (content, _) => content.unwrap_or_else(Content::removed),
        };
        if before.is_some_and(|before| before.content == content) {
            continue;
        }
        changed = true;
        save(sql, &state.id, item, (state.as_of, seen_at), &content, known_at);
        if state.as_of < newest.0 {
            // It came late: a later state that said the same as the one before left no row of its own.
            let next = next_listing(sql, &state.id, state.as_of).unwrap_or(newest.0);
            if !states.iter().any(|row| row.as_of > state.as_of && row.as_of <= next) {
                let content = before.map_or_else(Content::removed, |before| before.content.clone());
                let next_seen_at = if seen_at == state.as_of {
                    next
                } else if next == newest.0 {
                    newest.1
                } else {
                    // By a test clock it is not known exactly when that was.
                    let later = known.iter().filter(|row| row.as_of > next).map(|row| row.seen_at);
                    seen_at.max(just_before(later.fold(newest.1, Time::min)))
                };
                save(sql, &state.id, item, (next, next_seen_at), &content, known_at);
            }
        }
    }
    changed
}

/// When a state was so that came after later ones, by a test clock: at its time now, but not before the state before it, and just
/// before the one after it at the latest. `newest` is the time of the newest known state.
pub(crate) fn seen_late(
    sql: &mut Sql,
    subscription_id: &str,
    as_of: Time,
    by_clock: Time,
    newest: Time,
) -> Time {
    let mut row = sql.query_one(
        "select max(seen_at) filter (where as_of < $2), min(seen_at) filter (where as_of > $2)
         from billing.subscription_items where subscription_id = $1",
        &[subscription_id.into(), timestamp(as_of).into()],
    );
    let (before, after): (Option<Time>, Option<Time>) = (row.get_opt(), row.get_opt());
    let seen_at = by_clock.min(just_before(after.map_or(newest, |after| after.min(newest))));
    before.map_or(seen_at, |before| before.max(seen_at))
}

/// The last time that Postgres tells from another one and that is before it.
fn just_before(time: Time) -> Time {
    time - TimeDelta::microseconds(1)
}

/// When the next state of a subscription after a time was so, as far as the inbox and the items know.
fn next_listing(sql: &mut Sql, subscription_id: &str, as_of: Time) -> Option<Time> {
    let mut row = sql.query_one(
        "select least(
             (select min(created) from billing.stripe_events
              where object_id = $1 and created > $2 and type like 'customer.subscription.%'),
             (select min(as_of) from billing.subscription_items where subscription_id = $1 and as_of > $2))",
        &[subscription_id.into(), timestamp(as_of).into()],
    );
    row.get_opt()
}

fn save(
    sql: &mut Sql,
    subscription_id: &str,
    item_id: &str,
    (as_of, seen_at): (Time, Time),
    content: &Content,
    known_at: Time,
) {
    sql.execute(
        "insert into billing.subscription_items as i (item_id, as_of, subscription_id, price_id, product_id, quantity,
             interval, metered, removed, known_at, seen_at)
         values ($1, $2, $3, $4, $5, $6, $7::interval, $8, $9, $10, $11)
         on conflict (subscription_id, item_id, as_of) do update set
             (price_id, product_id, quantity, interval, metered, removed)
             = (excluded.price_id, excluded.product_id, excluded.quantity, excluded.interval, excluded.metered,
                excluded.removed)",
        &[
            item_id.into(),
            timestamp(as_of).into(),
            subscription_id.into(),
            content.price_id.as_deref().into(),
            content.product_id.as_deref().into(),
            content.quantity.into(),
            content.interval.map(|interval| interval.to_string()).into(),
            content.is_metered.into(),
            content.is_removed.into(),
            timestamp(known_at).into(),
            timestamp(seen_at).into(),
        ],
    );
}
