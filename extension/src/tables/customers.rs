//! Table `customers`: which Stripe customer is which user.

use stripe_credits_rules::identity::{CustomerLink, LinkSource};
use uuid::Uuid;

use crate::pg::convert::{clock, timestamp, uuid_datum};
use crate::pg::sql::Sql;

/// The customer's tie. Read under the customer's lock, its absence stays true until the end of the transaction.
pub(crate) fn tie(sql: &mut Sql, customer_id: &str) -> Option<CustomerLink> {
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

/// Links a customer to a user by a server's statement of now. Answers whether that changed the user.
pub(crate) fn link_by_server(sql: &mut Sql, customer_id: &str, user: Uuid) -> bool {
    let known = tie(sql, customer_id);
    say(sql, customer_id, known, CustomerLink { user, source: LinkSource::Server, as_of: clock() })
}

/// Joins what was said to what is known. Answers whether the customer is another user than before.
pub(crate) fn say(sql: &mut Sql, customer_id: &str, known: Option<CustomerLink>, said: CustomerLink) -> bool {
    let joined = CustomerLink::merge(known, said);
    if Some(joined) == known {
        return false;
    }
    sql.execute(
        "insert into billing.customers (customer_id, user_id, source, as_of) values ($1, $2, $3, $4)
         on conflict (customer_id) do update
             set (user_id, source, as_of) = (excluded.user_id, excluded.source, excluded.as_of)",
        &[
            customer_id.into(),
            uuid_datum(joined.user).into(),
            joined.source.as_str().into(),
            timestamp(joined.as_of).into(),
        ],
    );
    known.is_none_or(|known| known.user != joined.user)
}
