//! Tables `customers` and `customer_accounts`: which Stripe customer is which user, and which account of Accounts v2 is which
//! customer.

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
pub(crate) fn users(sql: &mut Sql, customer_ids: Vec<String>) -> Vec<Uuid> {
    let rows = sql
        .query("select user_id from billing.customers where customer_id = any($1)", &[customer_ids.into()]);
    rows.map(|mut row| row.get()).collect()
}

/// Whether a server linked a customer to the user: one whom only a buyer's link names could be another person.
pub(crate) fn has_server_link(sql: &mut Sql, user: Uuid) -> bool {
    let link = "select from billing.customers where user_id = $1 and source = 'server' limit 1";
    sql.query_opt(link, &[uuid_datum(user).into()]).is_some()
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
    let former = known.map(|known| known.user).filter(|former| *former != merged.user);
    let changed = known.is_none() || former.is_some();
    // The read model shows a user's latest customer: it may be another one now, also if the link is only newer. Whether there
    // is an account that shows it is not asked: that would take its lock, and one that is made at this moment would be missed.
    sql.execute(
        "with changed as (
             insert into billing.read_changes (user_id)
             select u.user_id from unnest(array[$2, $5]) u (user_id)
             where u.user_id is not null and ($6 or exists (
                 select from billing.customers c where c.user_id = $2 and c.customer_id <> $1))
         )
         insert into billing.customers (customer_id, user_id, source, as_of) values ($1, $2, $3, $4)
         on conflict (customer_id) do update
             set (user_id, source, as_of) = (excluded.user_id, excluded.source, excluded.as_of)",
        &[
            customer_id.into(),
            uuid_datum(merged.user).into(),
            merged.source.as_str().into(),
            timestamp(merged.as_of).into(),
            former.map(uuid_datum).into(),
            changed.into(),
        ],
    );
    changed
}

/// Records that a customer and an account are the same, as an object states that names both.
pub(crate) fn record_account(sql: &mut Sql, customer_id: &str, account_id: &str) {
    sql.execute(
        "insert into billing.customer_accounts as a (customer_id, account_id) values ($1, $2)
         on conflict (customer_id) do update set account_id = excluded.account_id
             where a.account_id <> excluded.account_id",
        &[customer_id.into(), account_id.into()],
    );
}

/// The other names of a customer: the account that it is, or the customers that an account is.
pub(crate) fn other_names(sql: &mut Sql, customer_id: &str) -> Vec<String> {
    let rows = sql.query(
        "select account_id::text from billing.customer_accounts where customer_id = $1
         union
         select customer_id from billing.customer_accounts where account_id = $1
         order by 1",
        &[customer_id.into()],
    );
    rows.map(|mut row| row.get()).collect()
}
