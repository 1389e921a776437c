//! Table `subscriptions`: the latest known state of each.

use stripe_credits_rules::calendar::Time;
use stripe_credits_rules::subscription::{FREE, ItemContent, Plan, Status, SubscriptionState};
use uuid::Uuid;

use crate::pg::convert::{clock, timestamp, uuid_datum};
use crate::pg::sql::{Row, Sql};

/// A row: the latest known state of a subscription, its owner, and what the catalog says of its plan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct KnownSubscription {
    pub(crate) user: Option<Uuid>,
    pub(crate) customer_id: Option<String>,
    pub(crate) state: SubscriptionState,
    pub(crate) tier: String,
    pub(crate) rank: Option<i32>,
    /// The catalog's row of its plan: its price's, or its product's.
    pub(crate) catalog_id: Option<String>,
    /// As of when the state was so, for comparison with periods: by the customer's test clock, if there is one.
    pub(crate) seen_at: Time,
    /// As of when the earliest known state with a complete list of items was so, in the same way.
    pub(crate) listed_since: Option<Time>,
    /// When it became known until when it runs, and since when its list is, in the order of all ledger rows.
    pub(crate) known_at: Time,
}

impl KnownSubscription {
    /// Without an owner and a plan.
    pub(crate) fn new(state: SubscriptionState) -> KnownSubscription {
        KnownSubscription {
            user: None,
            customer_id: None,
            seen_at: state.as_of,
            state,
            tier: FREE.into(),
            rank: None,
            catalog_id: None,
            listed_since: None,
            known_at: clock(),
        }
    }

    /// Whether anything but its times of being known differs.
    pub(crate) fn differs(&self, other: &KnownSubscription) -> bool {
        let state = SubscriptionState { as_of: other.state.as_of, ..self.state.clone() };
        let KnownSubscription { seen_at, listed_since, known_at, .. } = *other;
        KnownSubscription { state, seen_at, listed_since, known_at, ..self.clone() } != *other
    }

    /// Sets its plan, and what the catalog says of it.
    pub(crate) fn set_plan(&mut self, plan: &Plan) {
        let (price_id, quantity) = plan.priced();
        (self.state.price_id, self.state.quantity) = (price_id.map(str::to_owned), quantity);
        self.tier = plan.tier();
        self.rank = plan.rank();
        self.catalog_id = plan.catalog_id().map(str::to_owned);
    }
}

/// The columns that [`subscription`] reads, in its order.
macro_rules! columns {
    () => {
        "user_id, customer_id, as_of, status, price_id, quantity, current_period_start, current_period_end, \
         trial_end, cancel_at, cancel_at_period_end, ended_at, tier, rank, catalog_id, seen_at, listed_since, \
         known_at"
    };
}

/// The known state of a subscription. The caller holds its lock, so that an absent row stays absent.
pub(crate) fn find(sql: &mut Sql, subscription_id: &str) -> Option<KnownSubscription> {
    const BY_ID: &str =
        concat!("select ", columns!(), " from billing.subscriptions where subscription_id = $1");
    let mut known = sql.query_opt(BY_ID, &[subscription_id.into()]).map(|mut row| subscription(&mut row))?;
    known.state.items = listed(sql, subscription_id);
    Some(known)
}

/// Whose a subscription is, if that is known: before its first state, an operator may have said it.
pub(crate) fn user(sql: &mut Sql, subscription_id: &str) -> Option<Uuid> {
    let mut row = sql.query_one(
        "select coalesce(
             (select user_id from billing.subscriptions where subscription_id = $1),
             (select user_id from billing.subscription_users where subscription_id = $1 and source = 'operator'
              order by as_of desc limit 1))",
        &[subscription_id.into()],
    );
    row.get_opt()
}

/// The users of these subscriptions, as far as they are known.
pub(crate) fn users(sql: &mut Sql, subscription_ids: Vec<String>) -> Vec<Uuid> {
    let rows = sql.query(
        "select user_id from billing.subscriptions where subscription_id = any($1) and user_id is not null",
        &[subscription_ids.into()],
    );
    rows.map(|mut row| row.get()).collect()
}

/// A customer's subscriptions that a user has by the customer's link, not by their metadata. The caller holds the customer's lock.
pub(crate) fn of_customer(sql: &mut Sql, customer_id: &str, user: Uuid) -> Vec<String> {
    let rows = sql.query(
        "select subscription_id from billing.subscriptions s
         where customer_id = $1 and user_id = $2
             and not exists (
                 select from billing.subscription_users u
                 where u.subscription_id = s.subscription_id and u.source = 'metadata')
         order by subscription_id",
        &[customer_id.into(), uuid_datum(user).into()],
    );
    rows.map(|mut row| row.get()).collect()
}

/// The customer of a subscription, if that is known.
pub(crate) fn customer(sql: &mut Sql, subscription_id: &str) -> Option<String> {
    let of_subscription = "select customer_id from billing.subscriptions where subscription_id = $1";
    sql.query_opt(of_subscription, &[subscription_id.into()]).and_then(|mut row| row.get_opt())
}

/// What the newest known state lists.
fn listed(sql: &mut Sql, subscription_id: &str) -> Vec<ItemContent> {
    let rows = sql.query(
        "select item_id, price_id, quantity from (
             select distinct on (item_id) * from billing.subscription_items
             where subscription_id = $1 order by item_id, as_of desc) i
         where not removed order by item_id",
        &[subscription_id.into()],
    );
    rows.map(|mut row| ItemContent { item_id: row.get_opt(), price_id: row.get_opt(), quantity: row.get() })
        .collect()
}

fn subscription(row: &mut Row) -> KnownSubscription {
    KnownSubscription {
        user: row.get_opt(),
        customer_id: row.get_opt(),
        state: SubscriptionState {
            as_of: row.get(),
            status: row.parse(Status::parse),
            price_id: row.get_opt(),
            quantity: row.get(),
            period: (row.get(), row.get()),
            items: Vec::new(),
            trial_end: row.get_opt(),
            cancel_at: row.get_opt(),
            cancel_at_period_end: row.get(),
            ended_at: row.get_opt(),
        },
        tier: row.get(),
        rank: row.get_opt(),
        catalog_id: row.get_opt(),
        seen_at: row.get(),
        listed_since: row.get_opt(),
        known_at: row.get(),
    }
}

/// Saves the state of a subscription. The caller holds its lock.
pub(crate) fn save(sql: &mut Sql, subscription_id: &str, known: &KnownSubscription, event_id: &str) {
    let KnownSubscription {
        user,
        customer_id,
        state,
        tier,
        rank,
        catalog_id,
        seen_at,
        listed_since,
        known_at,
    } = known;
    sql.execute(
        "insert into billing.subscriptions as s
             (subscription_id, user_id, customer_id, price_id, tier, rank, status, quantity, current_period_start,
              current_period_end, trial_end, cancel_at, cancel_at_period_end, ended_at, as_of, seen_at, listed_since,
              known_at, stripe_event_id, created_at, updated_at, catalog_id)
         values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $20, $21)
         on conflict (subscription_id) do update set
             (user_id, customer_id, price_id, tier, rank, status, quantity, current_period_start, current_period_end,
              trial_end, cancel_at, cancel_at_period_end, ended_at, as_of, seen_at, listed_since, known_at,
              stripe_event_id, updated_at, catalog_id)
             = (excluded.user_id, excluded.customer_id, excluded.price_id, excluded.tier, excluded.rank,
                excluded.status, excluded.quantity, excluded.current_period_start, excluded.current_period_end,
                excluded.trial_end, excluded.cancel_at, excluded.cancel_at_period_end, excluded.ended_at,
                excluded.as_of, excluded.seen_at, excluded.listed_since, excluded.known_at, excluded.stripe_event_id,
                excluded.updated_at, excluded.catalog_id)",
        &[
            subscription_id.into(),
            user.map(uuid_datum).into(),
            customer_id.as_deref().into(),
            state.price_id.as_deref().into(),
            tier.as_str().into(),
            (*rank).into(),
            state.status.as_str().into(),
            state.quantity.get().into(),
            timestamp(state.period.0).into(),
            timestamp(state.period.1).into(),
            state.trial_end.map(timestamp).into(),
            state.cancel_at.map(timestamp).into(),
            state.cancel_at_period_end.into(),
            state.ended_at.map(timestamp).into(),
            timestamp(state.as_of).into(),
            timestamp(*seen_at).into(),
            listed_since.map(timestamp).into(),
            timestamp(*known_at).into(),
            event_id.into(),
            timestamp(clock()).into(),
            catalog_id.as_deref().into(),
        ],
    );
}

/// A user's subscriptions by their ids, without their items. The caller holds the account's lock.
pub(crate) fn of_user(sql: &mut Sql, user: Uuid) -> Vec<(String, KnownSubscription)> {
    const OF_USER: &str = concat!(
        "select subscription_id, ",
        columns!(),
        " from billing.subscriptions where user_id = $1 order by subscription_id"
    );
    let rows = sql.query(OF_USER, &[uuid_datum(user).into()]);
    rows.map(|mut row| (row.get(), subscription(&mut row))).collect()
}

/// The tier and the status of a user by all of their subscriptions to plans. The caller holds the account's lock.
pub(crate) fn tier(sql: &mut Sql, user: Uuid) -> (String, String) {
    let naming_tier = Status::NAMING_TIER.map(Status::as_str).to_vec();
    let row = sql.query_opt(
        "select case when s.names_tier then s.tier end, s.status
         from (
             select *, status = any ($2) as names_tier
             from billing.subscriptions where user_id = $1 and price_id is not null
         ) s
         order by s.names_tier desc, case when s.names_tier then s.rank end desc nulls last, s.as_of desc,
             s.subscription_id
         limit 1",
        &[uuid_datum(user).into(), naming_tier.into()],
    );
    row.map_or_else(
        || (FREE.to_owned(), "none".to_owned()),
        |mut row| (row.get_opt().unwrap_or_else(|| FREE.to_owned()), row.get()),
    )
}
