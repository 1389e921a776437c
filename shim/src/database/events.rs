//! Applies events and checkout sessions, and reads the inbox and the commands' cursors.

use serde_json::Value;
use stripe_credits_rules::session::Mode;
use uuid::Uuid;

use crate::batches;
use crate::database::{Database, EVENT_TIMEOUT, READ_TIMEOUT};
use crate::event::Event;
use crate::limits::Party;
use crate::outcome::Outcome;
use crate::statements::{DatabaseError, column};

impl Database {
    /// Applies an event, together with others that wait at the same moment, or else alone.
    pub(crate) async fn apply_stripe_event(&self, event: &Event) -> Result<Outcome, DatabaseError> {
        let _turn = self.turn(event.parties()).await?;
        if let Some(result) = self.deliveries.apply(event.text()).await {
            return result;
        }
        self.outcome_of(batches::ONE, &[event.text()]).await
    }

    /// Applies an event together with the objects fetched for it.
    pub(crate) async fn apply_stripe_event_with(
        &self,
        event: &Event,
        fetched: &str,
    ) -> Result<Outcome, DatabaseError> {
        let sql = "select json_strip_nulls(to_json(result))::text
            from billing.apply_stripe_event_text($1::text, ($2::text)::jsonb) as result";
        self.outcome(event.parties(), sql, &[event.text(), fetched]).await
    }

    /// The outcome that applying an event would have, with the objects fetched for it.
    pub(crate) async fn explain_event(
        &self,
        event: &Event,
        fetched: Option<&str>,
    ) -> Result<Outcome, DatabaseError> {
        let sql = "select json_strip_nulls(to_json(result))::text
            from billing.explain_event(($1::text)::jsonb, nullif($2::text, '')::jsonb) as result";
        self.outcome(event.parties(), sql, &[event.text(), fetched.unwrap_or_default()]).await
    }

    /// The events among these that are not applied: those missing from the inbox, and those whose outcome may change
    /// now.
    pub(crate) async fn unapplied(&self, event_ids: &[String]) -> Result<Vec<String>, DatabaseError> {
        let sql = "select listed.id from json_array_elements_text(($1::text)::json) as listed (id)
            where not exists (select from billing.stripe_events e
                where e.event_id = listed.id and e.outcome in ('applied', 'already_applied'))";
        let ids = Value::from(event_ids).to_string();
        let rows = self.query(sql, &[&ids], READ_TIMEOUT).await?;
        rows.iter().map(|row| column(row, 0)).collect()
    }

    /// The JSON of an event in the inbox.
    pub(crate) async fn inbox_event(&self, event_id: &str) -> Result<Option<String>, DatabaseError> {
        let sql = "select e.payload::text from billing.stripe_events e where e.event_id = $1";
        self.query_optional(sql, &[event_id], READ_TIMEOUT).await
    }

    /// A command's position in Stripe's lists, as JSON; none if it finished or never ran.
    pub(crate) async fn cursor(&self, command: &str) -> Result<Option<String>, DatabaseError> {
        let sql = "select c.position::text from billing.cursors c where c.command = $1";
        self.query_optional(sql, &[command], READ_TIMEOUT).await
    }

    /// Saves a command's position; none removes it.
    pub(crate) async fn move_cursor(
        &self,
        command: &str,
        position: Option<&str>,
    ) -> Result<(), DatabaseError> {
        let sql = "select billing.move_cursor($1, nullif($2::text, '')::jsonb)";
        self.query(sql, &[command, position.unwrap_or_default()], EVENT_TIMEOUT).await.map(drop)
    }

    /// Applies a session as of a time of Stripe's clock; the user must be its owner.
    pub(crate) async fn reconcile_checkout_session(
        &self,
        session: &str,
        user: Uuid,
        as_of: u64,
    ) -> Result<Outcome, DatabaseError> {
        let sql = "select json_strip_nulls(to_json(result))::text
            from billing.reconcile_checkout_session(
                ($1::text)::jsonb, ($2::text)::uuid, to_timestamp(($3::text)::bigint)) as result";
        self.outcome(vec![party(user)], sql, &[session, &user.to_string(), &as_of.to_string()]).await
    }

    /// The outcome of reconciling a session that was applied for this user before, without its balances being old: none if
    /// the books do not say so, and Stripe has to be asked.
    pub(crate) async fn reconciled(
        &self,
        session_id: &str,
        mode: Mode,
        user: Uuid,
    ) -> Result<Option<Outcome>, DatabaseError> {
        // A subscription's session brings nothing more once its invoice was paid.
        let sql = "select json_strip_nulls(json_build_object('ok', true, 'outcome', 'already_applied',
                'already_applied', true, 'user_id', c.user_id, 'credits', 0,
                'remaining_subscription', c.subscription_credits_balance,
                'remaining_purchased', c.purchased_credits_balance,
                'remaining_promotional', c.promotional_credits_balance, 'remaining_total', c.credits_balance,
                'debt', c.debt, 'tier', c.subscription_tier, 'subscription_status', c.subscription_status,
                'details', json_build_object('payment_intent_id', known.session ->> 'payment_intent', 'price_ids',
                    coalesce(nullif(jsonb_path_query_array(known.session, '$.line_items.data[*].price.id'), '[]'),
                        jsonb_build_array(known.session #> '{metadata,price_id}')))))::text
            from billing.user_credits c
            cross join lateral (
                select (e.payload #> '{data,object}')::jsonb as session
                from billing.stripe_events e
                where e.object_id = $1 and e.user_id = c.user_id and e.outcome in ('applied', 'already_applied')
                    and e.payload #>> '{data,object,mode}' = $3
                    and ($3 = 'payment' or exists (
                        select from billing.payments p
                        where p.user_id = c.user_id and p.paid_at is not null and p.source_id = coalesce(
                            e.payload #>> '{data,object,invoice,id}', e.payload #>> '{data,object,invoice}')))
                limit 1) known
            where c.user_id = ($2::text)::uuid";
        let parameters = [session_id, &user.to_string(), mode.as_str()];
        let row: Option<String> = self.query_optional(sql, &parameters, READ_TIMEOUT).await?;
        row.map(Outcome::parse)
            .transpose()
            .map_err(|fault| DatabaseError::UnexpectedAnswer(fault.to_string()))
    }

    /// Applies an event of the inbox together with the objects fetched for it.
    pub(crate) async fn apply_inbox_event(
        &self,
        event_id: &str,
        user: Uuid,
        fetched: &str,
    ) -> Result<Outcome, DatabaseError> {
        let sql = "select json_strip_nulls(to_json(result))::text
            from billing.stripe_events e
            cross join lateral billing.apply_stripe_event(e.payload::jsonb, ($2::text)::jsonb) as result
            where e.event_id = $1";
        self.outcome(vec![party(user)], sql, &[event_id, fetched]).await
    }

    /// Whether jsonb can store the event; it cannot store very deep nesting, for example.
    pub(crate) async fn can_store(&self, event: &Event) -> Result<bool, DatabaseError> {
        match self.query("select ($1::text)::jsonb is not null", &[event.text()], EVENT_TIMEOUT).await {
            Ok(_) => Ok(true),
            Err(DatabaseError::Data(_)) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Judges a batch of the parked events again that are due. Returns how many.
    pub(crate) async fn retry_due(&self) -> Result<i64, DatabaseError> {
        self.query_value("select billing.retry_due()", &[], EVENT_TIMEOUT).await
    }

    /// Posts what is due by time in a batch of accounts. Returns in how many, and how many parked events were due.
    pub(crate) async fn run_due(&self) -> Result<i64, DatabaseError> {
        self.query_value("select billing.run_due()", &[], EVENT_TIMEOUT).await
    }

    pub(super) async fn outcome(
        &self,
        parties: Vec<Party>,
        sql: &str,
        parameters: &[&str],
    ) -> Result<Outcome, DatabaseError> {
        let _turn = self.turn(parties).await?;
        self.outcome_of(sql, parameters).await
    }

    async fn outcome_of(&self, sql: &str, parameters: &[&str]) -> Result<Outcome, DatabaseError> {
        let row: String = self.query_value(sql, parameters, EVENT_TIMEOUT).await?;
        Outcome::parse(row).map_err(|fault| DatabaseError::UnexpectedAnswer(fault.to_string()))
    }
}

/// The party that a user's own requests belong to, and the events that name the user by UUID.
fn party(user: Uuid) -> Party {
    Party::User(user.to_string())
}
