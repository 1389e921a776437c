//! A user's credits, Stripe customer and subscription.

use stripe_credits_rules::stripe::MAX_ID_BYTES;
use stripe_credits_rules::user as rules;
use uuid::Uuid;

use crate::database::{Database, DatabaseError, READ_TIMEOUT, column};

impl Database {
    /// The user that a token's `sub` names; none if it names nobody.
    pub(crate) async fn user_id(&self, sub: &str) -> Result<Option<Uuid>, DatabaseError> {
        if sub.trim().is_empty() || sub.len() > MAX_ID_BYTES || sub.contains('\0') {
            return Ok(None);
        }
        // A UUID is itself in every namespace.
        if let Some(user) = rules::user_id(sub, None) {
            return Ok(Some(user));
        }
        let user: Option<String> =
            self.query_value("select billing.user_id($1)::text", &[sub], READ_TIMEOUT).await?;
        user.map(|user| Uuid::try_parse(&user))
            .transpose()
            .map_err(|fault| DatabaseError::UnexpectedAnswer(fault.to_string()))
    }

    /// The user's tier and balances, as JSON.
    pub(crate) async fn credits(&self, user: Uuid) -> Result<String, DatabaseError> {
        // my_credits() reads the user from the JWT claims. The outer row sets them before the inner query runs, until
        // the end of the statement's transaction.
        let sql = "select (select to_json(mine)::text from billing.my_credits() mine where me.claims is not null)
            from (select set_config('request.jwt.claims', json_build_object('sub', $1::text)::text, true) as claims
                  offset 0) me";
        let credits: Option<String> = self.query_value(sql, &[&user.to_string()], READ_TIMEOUT).await?;
        credits.ok_or_else(|| {
            DatabaseError::UnexpectedAnswer("my_credits() knows nothing of the user".to_owned())
        })
    }

    /// The user's balance and debt now.
    pub(crate) async fn balance(&self, user: Uuid) -> Result<(i64, i64), DatabaseError> {
        let sql =
            "select c.credits_balance, c.debt from billing.user_credits c where c.user_id = ($1::text)::uuid";
        let rows = self.query(sql, &[&user.to_string()], READ_TIMEOUT).await?;
        rows.first().map_or(Ok((0, 0)), |row| Ok((column(row, 0)?, column(row, 1)?)))
    }

    /// The user's Stripe customer, if the link was set by a server: a link from a buyer's URL could show the user
    /// another person's cards.
    pub(crate) async fn stripe_customer(&self, user: Uuid) -> Result<Option<String>, DatabaseError> {
        let sql = "select c.customer_id from billing.customers c
            where c.user_id = ($1::text)::uuid and c.source = 'server'
            order by c.as_of desc, c.customer_id limit 1";
        self.query_optional(sql, &[&user.to_string()], READ_TIMEOUT).await
    }

    /// The subscription that determines the user's tier, if there is one.
    pub(crate) async fn live_subscription(&self, user: Uuid) -> Result<Option<String>, DatabaseError> {
        let sql = "select c.stripe_subscription_id from billing.user_credits c
            where c.user_id = ($1::text)::uuid and c.stripe_subscription_id is not null";
        self.query_optional(sql, &[&user.to_string()], READ_TIMEOUT).await
    }
}
