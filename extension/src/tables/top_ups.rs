//! Table `top_ups`: requests to buy a pack by auto top-up, for `serve` to have them paid.

use stripe_credits_rules::top_up::{AutoTopUp, TopUpState};
use uuid::Uuid;

use crate::pg::convert::{clock, timestamp, uuid_datum};
use crate::pg::sql::{Row, Sql};

/// A request.
pub(crate) struct TopUp {
    pub(crate) id: i64,
    pub(crate) pack: String,
    pub(crate) price_id: String,
    pub(crate) credits: i64,
    pub(crate) payment_intent_id: Option<String>,
}

/// What speaks against another request for a user.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Hindrance {
    /// One is open.
    Open,
    /// There were as many as the catalog allows.
    Limit,
}

/// What speaks against another request for a user, if anything. The caller holds the account's lock.
pub(crate) fn hindrance(sql: &mut Sql, user: Uuid, top_up: &AutoTopUp) -> Option<Hindrance> {
    let mut row = sql.query_one(
        "select count(*) filter (where t.state in ('requested', 'paid')),
                count(*) filter (where t.requested_at > $2 - $3::interval)
         from billing.top_ups t where t.user_id = $1 and t.state in ('requested', 'paid', 'succeeded')",
        &[uuid_datum(user).into(), timestamp(clock()).into(), top_up.at_most.per.span().to_string().into()],
    );
    let (open, recent): (i64, i64) = (row.get(), row.get());
    match (open, recent >= top_up.at_most.count.into()) {
        (1.., _) => Some(Hindrance::Open),
        (_, true) => Some(Hindrance::Limit),
        (_, false) => None,
    }
}

/// Inserts a request, with the id of the row of the outbox that tells of it. The caller holds the account's lock.
pub(crate) fn insert(sql: &mut Sql, user: Uuid, id: i64, top_up: &AutoTopUp) -> TopUp {
    sql.execute(
        "insert into billing.top_ups (user_id, id, pack, price_id, credits, below, requested_at, next_attempt_at)
         values ($1, $2, $3, $4, $5, $6, $7, $7)",
        &[
            uuid_datum(user).into(),
            id.into(),
            top_up.pack.as_str().into(),
            top_up.price_id.as_str().into(),
            top_up.credits.0.into(),
            top_up.below.0.into(),
            timestamp(clock()).into(),
        ],
    );
    TopUp {
        id,
        pack: top_up.pack.clone(),
        price_id: top_up.price_id.clone(),
        credits: top_up.credits.0,
        payment_intent_id: None,
    }
}

/// Records what became of a request that is not paid yet, if the payment intent that it names is still the one that the caller
/// knows: otherwise another attempt is under way. Returns the request if it was recorded.
pub(crate) fn finish(
    sql: &mut Sql,
    (user, id): (Uuid, i64),
    payment_intent_id: Option<&str>,
    state: TopUpState,
    reason: Option<&str>,
) -> Option<TopUp> {
    let ended_at = (state != TopUpState::Paid).then(|| timestamp(clock()));
    sql.query_opt(
        "update billing.top_ups set state = $3, reason = $4, ended_at = $5
         where user_id = $1 and id = $2 and state = 'requested' and payment_intent_id is not distinct from $6
         returning id, pack, price_id, credits, payment_intent_id",
        &[
            uuid_datum(user).into(),
            id.into(),
            state.as_str().into(),
            reason.into(),
            ended_at.into(),
            payment_intent_id.into(),
        ],
    )
    .map(|mut row| read(&mut row))
}

/// Records that a payment intent paid a request, whatever was known of it before: the money is there. Returns the request
/// unless that was recorded before, or another payment intent is the request's.
pub(crate) fn succeed(sql: &mut Sql, (user, id): (Uuid, i64), payment_intent_id: &str) -> Option<TopUp> {
    sql.query_opt(
        "update billing.top_ups
         set state = 'succeeded', reason = null, ended_at = $4, payment_intent_id = $3
         where user_id = $1 and id = $2 and state <> 'succeeded' and coalesce(payment_intent_id, $3) = $3
         returning id, pack, price_id, credits, payment_intent_id",
        &[uuid_datum(user).into(), id.into(), payment_intent_id.into(), timestamp(clock()).into()],
    )
    .map(|mut row| read(&mut row))
}

fn read(row: &mut Row) -> TopUp {
    TopUp {
        id: row.get(),
        pack: row.get(),
        price_id: row.get(),
        credits: row.get(),
        payment_intent_id: row.get_opt(),
    }
}
