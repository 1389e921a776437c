//! What is known of an object of Stripe's, of an event or of a user, and what waits: for `explain` and the console, which show
//! the same as psql.

use serde::de::DeserializeOwned;
use uuid::Uuid;

use crate::database::{Database, DatabaseError, EVENT_TIMEOUT, READ_TIMEOUT};

impl Database {
    /// What support needs to know of a user, by `billing.explain_user`.
    pub(crate) async fn explain_user<T: DeserializeOwned>(&self, user: Uuid) -> Result<T, DatabaseError> {
        self.explain("select billing.explain_user(($1::text)::uuid)::text", &[&user.to_string()]).await
    }

    /// Everything known of an id of Stripe's, or of an e-mail address, by `billing.explain_id`.
    pub(crate) async fn explain_id<T: DeserializeOwned>(&self, id: &str) -> Result<T, DatabaseError> {
        self.explain("select billing.explain_id($1)::text", &[id]).await
    }

    /// The events that wait, whoever they are of, by `billing.explain_waiting`.
    pub(crate) async fn explain_waiting<T: DeserializeOwned>(&self) -> Result<T, DatabaseError> {
        self.explain("select billing.explain_waiting()::text", &[]).await
    }

    /// The outcome that an event of the inbox would have now, with nothing written; none if the inbox lacks it.
    pub(crate) async fn explain_inbox_event<T: DeserializeOwned>(
        &self,
        event_id: &str,
    ) -> Result<Option<T>, DatabaseError> {
        let sql = "select json_strip_nulls(to_json(result))::text
            from billing.stripe_events e
            cross join lateral billing.explain_event(e.payload::jsonb, e.fetched::jsonb) as result
            where e.event_id = $1";
        let json: Option<String> = self.query_optional(sql, &[event_id], EVENT_TIMEOUT).await?;
        json.as_deref().map(parse).transpose()
    }

    async fn explain<T: DeserializeOwned>(&self, sql: &str, parameters: &[&str]) -> Result<T, DatabaseError> {
        let json: String = self.query_value(sql, parameters, READ_TIMEOUT).await?;
        parse(&json)
    }
}

fn parse<T: DeserializeOwned>(json: &str) -> Result<T, DatabaseError> {
    serde_json::from_str(json).map_err(|fault| DatabaseError::UnexpectedAnswer(fault.to_string()))
}
