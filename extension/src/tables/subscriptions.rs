//! Table `subscriptions`: the latest known state of each.

use stripe_credits_rules::amount::Credits;
use stripe_credits_rules::plan;
use stripe_credits_rules::subscription::{FREE, Plan, Status, SubscriptionState};
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
    pub(crate) lot_limit: Option<Credits>,
}

impl KnownSubscription {
    /// Without an owner and a plan.
    pub(crate) fn new(state: SubscriptionState) -> KnownSubscription {
        KnownSubscription {
            user: None,
            customer_id: None,
            state,
            tier: FREE.into(),
            rank: None,
            lot_limit: None,
        }
    }

    /// Whether anything but `as_of` differs.
    pub(crate) fn differs(&self, other: &KnownSubscription) -> bool {
        let state = SubscriptionState { as_of: other.state.as_of, ..self.state.clone() };
        KnownSubscription { state, ..self.clone() } != *other
    }

    /// Sets what the catalog says of its plan.
    pub(crate) fn set_plan(&mut self, plan: &Plan) {
        self.tier = plan.tier();
        self.rank = plan.rank();
        self.lot_limit = plan.lot_limit();
    }
}

/// The columns that [`subscription`] reads, in its order.
macro_rules! columns {
    () => {
        "user_id, customer_id, as_of, status, price_id, quantity, current_period_start, current_period_end, \
         trial_end, cancel_at_period_end, ended_at, tier, rank, lot_limit"
    };
}

/// The known state of a subscription. The caller holds its lock, so that an absent row stays absent.
pub(crate) fn find(sql: &mut Sql, subscription_id: &str) -> Option<KnownSubscription> {
    const BY_ID: &str =
        concat!("select ", columns!(), " from billing.subscriptions where subscription_id = $1");
    sql.query_opt(BY_ID, &[subscription_id.into()]).map(|mut row| subscription(&mut row))
}

/// The subscriptions to a price and their ids, in the order of their users.
pub(crate) fn to_price(sql: &mut Sql, price_id: &str) -> Vec<(String, KnownSubscription)> {
    const BY_PRICE: &str = concat!(
        "select subscription_id, ",
        columns!(),
        " from billing.subscriptions where price_id = $1 order by user_id, subscription_id"
    );
    let rows = sql.query(BY_PRICE, &[price_id.into()]);
    rows.map(|mut row| (row.get(), subscription(&mut row))).collect()
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
            cancel_at: None,
            trial_end: row.get_opt(),
            cancel_at_period_end: row.get(),
            ended_at: row.get_opt(),
        },
        tier: row.get(),
        rank: row.get_opt(),
        lot_limit: row.get_opt(),
    }
}

/// Saves the state of a subscription. The caller holds its lock.
pub(crate) fn save(sql: &mut Sql, subscription_id: &str, known: &KnownSubscription, event_id: &str) {
    let KnownSubscription { user, customer_id, state, tier, rank, lot_limit } = known;
    sql.execute(
        "insert into billing.subscriptions as s
             (subscription_id, user_id, customer_id, price_id, tier, rank, lot_limit, status, quantity,
              current_period_start, current_period_end, trial_end, cancel_at_period_end, ended_at, as_of,
              stripe_event_id, created_at, updated_at)
         values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $17)
         on conflict (subscription_id) do update set
             (user_id, customer_id, price_id, tier, rank, lot_limit, status, quantity, current_period_start,
              current_period_end, trial_end, cancel_at_period_end, ended_at, as_of, stripe_event_id, updated_at)
             = (excluded.user_id, excluded.customer_id, excluded.price_id, excluded.tier, excluded.rank,
                excluded.lot_limit, excluded.status, excluded.quantity, excluded.current_period_start,
                excluded.current_period_end, excluded.trial_end, excluded.cancel_at_period_end, excluded.ended_at,
                excluded.as_of, excluded.stripe_event_id, excluded.updated_at)",
        &[
            subscription_id.into(),
            user.map(uuid_datum).into(),
            customer_id.as_deref().into(),
            state.price_id.as_deref().into(),
            tier.as_str().into(),
            (*rank).into(),
            lot_limit.map(|limit| limit.0).into(),
            state.status.as_str().into(),
            state.quantity.get().into(),
            timestamp(state.period.0).into(),
            timestamp(state.period.1).into(),
            state.trial_end.map(timestamp).into(),
            state.cancel_at_period_end.into(),
            state.ended_at.map(timestamp).into(),
            timestamp(state.as_of).into(),
            event_id.into(),
            timestamp(clock()).into(),
        ],
    );
}

/// A user's subscriptions, as the rules of lots read them. The caller holds the account's lock.
pub(crate) fn of_user(sql: &mut Sql, user: Uuid) -> Vec<plan::SubscribedPlan> {
    let rows = sql.query(
        "select subscription_id, price_id, lot_limit, as_of, ended_at, cancel_at_period_end or ended_at is not null
         from billing.subscriptions where user_id = $1",
        &[uuid_datum(user).into()],
    );
    rows.map(|mut row| plan::SubscribedPlan {
        id: row.get(),
        price_id: row.get_opt(),
        lot_limit: row.get_opt(),
        as_of: row.get(),
        ended_at: row.get_opt(),
        ends: row.get(),
    })
    .collect()
}

/// The tier and the status of a user by all of their subscriptions. The caller holds the account's lock.
pub(crate) fn tier(sql: &mut Sql, user: Uuid) -> (String, String) {
    let naming_tier = Status::NAMING_TIER.map(Status::as_str).to_vec();
    let row = sql.query_opt(
        "select case when s.names_tier then s.tier end, s.status
         from (
             select *, status = any ($2) as names_tier
             from billing.subscriptions where user_id = $1
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
