//! Table `customers`: which Stripe customer is which user.

use stripe_credits_rules::identity::{CustomerLink, LinkSource};
use uuid::Uuid;

use crate::pg::convert::{clock, timestamp, uuid_datum};
use crate::pg::sql::Sql;

/// The customer's link to a user. The caller holds the customer's lock, so that an absent link stays absent.
pub(crate) fn find(sql: &mut Sql, customer_id: &str) -> Option<CustomerLink> {
    sql.query_opt(
        "select user_id, source, as_of from billing.customers where customer_id = $1",
        &[customer_id.into()],
    )
    .map(|mut row| CustomerLink {
        user: row.get(),
        source: row.parse(LinkSource::parse),
        as_of: row.get(),
    })
}

/// The users that customers are linked to.
pub(crate) fn users(sql: &mut Sql, customer_ids: &[String]) -> Vec<Uuid> {
    let rows = sql.query(
        "select user_id from billing.customers where customer_id = any($1)",
        &[customer_ids.to_vec().into()],
    );
    rows.map(|mut row| row.get()).collect()
}

/// Links a customer to a user as of now, as the app's server or an operator states it. Returns whether that changed the user.
pub(crate) fn link_by_server(sql: &mut Sql, customer_id: &str, user: Uuid) -> bool {
    let known = find(sql, customer_id);
    link(sql, customer_id, known, CustomerLink { user, source: LinkSource::Server, as_of: clock() })
}

/// Merges an incoming link with the known one. Returns whether that changed the user.
pub(crate) fn link(
    sql: &mut Sql,
    customer_id: &str,
    known: Option<CustomerLink>,
    incoming: CustomerLink,
) -> bool {
    let merged = CustomerLink::merge(known, incoming);
    if Some(merged) == known {
        return false;
    }
    sql.execute(
        "insert into billing.customers (customer_id, user_id, source, as_of) values ($1, $2, $3, $4)
         on conflict (customer_id) do update
             set (user_id, source, as_of) = (excluded.user_id, excluded.source, excluded.as_of)",
        &[
            customer_id.into(),
            uuid_datum(merged.user).into(),
            merged.source.as_str().into(),
            timestamp(merged.as_of).into(),
        ],
    );
    known.is_none_or(|known| known.user != merged.user)
}
