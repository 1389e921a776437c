//! The functions by which an app's servers move credits, called with the arguments that SQL takes.
//!
//! The arguments go out as one JSON object, which keeps their types and nulls; a call that is wrong in itself fails with
//! [`DatabaseError::Data`].

use serde_json::value::RawValue;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::database::{Database, DatabaseError};
use crate::limits::Party;
use crate::outcome::Outcome;

impl Database {
    /// `billing.spend_credits`; `metadata` is a JSON object.
    pub(crate) async fn spend_credits(
        &self,
        user: Uuid,
        amount: i64,
        request_id: &str,
        description: Option<&str>,
        metadata: Option<&RawValue>,
    ) -> Result<Outcome, DatabaseError> {
        let sql = "select to_json(result)::text
            from json_to_record(($1::text)::json)
                as call (user_id uuid, amount bigint, request_id text, description text)
            cross join lateral billing.spend_credits(
                call.user_id, call.amount, call.request_id, call.description, ($2::text)::jsonb) as result";
        let arguments = json!({
            "user_id": user, "amount": amount, "request_id": request_id, "description": description,
        });
        self.move_credits(user, sql, &[&arguments.to_string(), metadata.map_or("{}", RawValue::get)]).await
    }

    /// `billing.reserve_credits`, for so many seconds.
    pub(crate) async fn reserve_credits(
        &self,
        user: Uuid,
        amount: i64,
        request_id: &str,
        ttl_seconds: i64,
        description: Option<&str>,
    ) -> Result<Outcome, DatabaseError> {
        let sql = "select to_json(result)::text
            from json_to_record(($1::text)::json)
                as call (user_id uuid, amount bigint, request_id text, ttl_seconds bigint, description text)
            cross join lateral billing.reserve_credits(
                call.user_id, call.amount, call.request_id, make_interval(secs => call.ttl_seconds), call.description
            ) as result";
        let arguments = json!({
            "user_id": user, "amount": amount, "request_id": request_id, "ttl_seconds": ttl_seconds,
            "description": description,
        });
        self.move_credits_by(user, sql, &arguments).await
    }

    /// `billing.commit_reservation`; without an amount, of all of it.
    pub(crate) async fn commit_reservation(
        &self,
        user: Uuid,
        request_id: &str,
        amount: Option<i64>,
    ) -> Result<Outcome, DatabaseError> {
        let sql = "select to_json(result)::text
            from json_to_record(($1::text)::json) as call (user_id uuid, request_id text, amount bigint)
            cross join lateral billing.commit_reservation(call.user_id, call.request_id, call.amount) as result";
        let arguments = json!({"user_id": user, "request_id": request_id, "amount": amount});
        self.move_credits_by(user, sql, &arguments).await
    }

    /// `billing.release_reservation`.
    pub(crate) async fn release_reservation(
        &self,
        user: Uuid,
        request_id: &str,
    ) -> Result<Outcome, DatabaseError> {
        let sql =
            "select to_json(result)::text from billing.release_reservation(($1::text)::uuid, $2) as result";
        self.move_credits(user, sql, &[&user.to_string(), request_id]).await
    }

    /// `billing.refund_spend`; without an amount, of the rest. A person gives their name.
    pub(crate) async fn refund_spend(
        &self,
        user: Uuid,
        spend_request_id: &str,
        request_id: &str,
        amount: Option<i64>,
        reason: Option<&str>,
        by: Option<&str>,
    ) -> Result<Outcome, DatabaseError> {
        let sql = "select to_json(result)::text
            from json_to_record(($1::text)::json)
                as call (user_id uuid, spend_request_id text, request_id text, amount bigint, reason text, by text)
            cross join lateral billing.refund_spend(
                call.user_id, call.spend_request_id, call.request_id, call.amount, call.reason, call.by) as result";
        let arguments = json!({
            "user_id": user, "spend_request_id": spend_request_id, "request_id": request_id, "amount": amount,
            "reason": reason, "by": by,
        });
        self.move_credits_by(user, sql, &arguments).await
    }

    /// `billing.adjust_credits`, by a person with this name.
    pub(crate) async fn adjust_credits(
        &self,
        user: Uuid,
        amount: i64,
        request_id: &str,
        reason: &str,
        by: &str,
    ) -> Result<Outcome, DatabaseError> {
        let sql = "select to_json(result)::text
            from json_to_record(($1::text)::json)
                as call (user_id uuid, amount bigint, request_id text, reason text, by text)
            cross join lateral billing.adjust_credits(
                call.user_id, call.amount, call.request_id, call.reason, call.by) as result";
        let arguments = json!({
            "user_id": user, "amount": amount, "request_id": request_id, "reason": reason, "by": by,
        });
        self.move_credits_by(user, sql, &arguments).await
    }

    /// `billing.attribute`: whose a session, a customer or a subscription is.
    pub(crate) async fn attribute(&self, stripe_id: &str, user: Uuid) -> Result<Outcome, DatabaseError> {
        let sql = "select to_json(result)::text from billing.attribute($1, ($2::text)::uuid) as result";
        self.move_credits(user, sql, &[stripe_id, &user.to_string()]).await
    }

    /// `billing.grant_credits`; `expires_at` in any form that Postgres reads, by default never.
    pub(crate) async fn grant_credits(
        &self,
        user: Uuid,
        amount: i64,
        request_id: &str,
        description: Option<&str>,
        expires_at: Option<&str>,
    ) -> Result<Outcome, DatabaseError> {
        let sql = "select to_json(result)::text
            from json_to_record(($1::text)::json)
                as call (user_id uuid, amount bigint, request_id text, description text, expires_at timestamptz)
            cross join lateral billing.grant_credits(
                call.user_id, call.amount, call.request_id, call.description, call.expires_at) as result";
        let arguments = json!({
            "user_id": user, "amount": amount, "request_id": request_id, "description": description,
            "expires_at": expires_at,
        });
        self.move_credits_by(user, sql, &arguments).await
    }

    async fn move_credits_by(
        &self,
        user: Uuid,
        sql: &str,
        arguments: &Value,
    ) -> Result<Outcome, DatabaseError> {
        self.move_credits(user, sql, &[&arguments.to_string()]).await
    }

    /// A call in the user's turn: few wait for one account, also if it is locked.
    async fn move_credits(
        &self,
        user: Uuid,
        sql: &str,
        parameters: &[&str],
    ) -> Result<Outcome, DatabaseError> {
        self.outcome(vec![Party::User(user.to_string())], sql, parameters).await
    }
}
