//! Auto top-up: the requests to be paid, claimed, named, put off and ended.

use stripe_credits_rules::top_up::id_of;
use tokio_postgres::Row;
use uuid::Uuid;

use crate::database::{Database, DatabaseError, READ_TIMEOUT, column};
use crate::limits::Party;
use crate::outcome::Outcome;

/// How long a claimed request is this shim's: longer than all calls of an attempt together may take. Two attempts at once do no
/// harm, though: Stripe confirms a payment intent once.
const LEASE_SECONDS: u32 = 300;

/// A request that this shim is to have paid.
#[derive(Debug, Clone)]
pub(crate) struct ClaimedTopUp {
    pub(crate) user: Uuid,
    pub(crate) number: i64,
    pub(crate) price_id: String,
    pub(crate) pack: String,
    /// `cus_…`.
    pub(crate) customer_id: Option<String>,
    /// The only one that may be confirmed; none before there is one.
    pub(crate) payment_intent_id: Option<String>,
    pub(crate) attempts: i32,
    /// Why it is not to be paid any more, if so.
    pub(crate) unwanted: Option<String>,
}

impl ClaimedTopUp {
    /// Its id in the metadata of its payment intent, and in what the app is told.
    pub(crate) fn id(&self) -> String {
        id_of(self.user, self.number)
    }
}

impl Database {
    /// Claims up to so many requests whose time has come, if the settings have this mode.
    pub(crate) async fn claim_top_ups(
        &self,
        livemode: bool,
        limit: usize,
    ) -> Result<Vec<ClaimedTopUp>, DatabaseError> {
        let sql = format!(
            "select t.user_id::text, t.id, t.price_id, t.pack, t.customer_id, t.payment_intent_id, t.attempts, t.unwanted
             from billing.claim_top_ups(
                 ($1::text)::boolean, ($2::text)::integer, make_interval(secs => {LEASE_SECONDS})) t"
        );
        let rows = self.told(&sql, &[&livemode.to_string(), &limit.to_string()]).await?;
        rows.iter().map(claimed).collect()
    }

    /// Records the payment intent that pays a request, before it is confirmed. Returns the only one that may be confirmed; none
    /// if the request has ended.
    pub(crate) async fn name_payment_intent(
        &self,
        claimed: &ClaimedTopUp,
        payment_intent_id: &str,
        customer_id: &str,
        (amount, currency): (i64, &str),
    ) -> Result<Option<String>, DatabaseError> {
        let sql = "select billing.name_payment_intent(
            ($1::text)::uuid, ($2::text)::bigint, $3, $4, ($5::text)::bigint, $6)";
        let (user, number) = (claimed.user.to_string(), claimed.number.to_string());
        let parameters = [&user, &number, payment_intent_id, customer_id, &amount.to_string(), currency];
        self.query_value(sql, &parameters, READ_TIMEOUT).await
    }

    /// Puts a request off.
    pub(crate) async fn retry_top_up(
        &self,
        claimed: &ClaimedTopUp,
        error: &str,
        after_seconds: u64,
    ) -> Result<(), DatabaseError> {
        let sql = "select billing.retry_top_up(($1::text)::uuid, ($2::text)::bigint, ($3::text)::integer, $4,
            make_interval(secs => ($5::text)::float8))";
        let (user, number) = (claimed.user.to_string(), claimed.number.to_string());
        let (attempts, after) = (claimed.attempts.to_string(), after_seconds.to_string());
        self.query(sql, &[&user, &number, &attempts, error, &after], READ_TIMEOUT).await.map(drop)
    }

    /// Records that a request is `paid`, or `failed` or `canceled` for a reason. Returns whether it was open, and named this payment
    /// intent.
    pub(crate) async fn finish_top_up(
        &self,
        claimed: &ClaimedTopUp,
        payment_intent_id: Option<&str>,
        state: &str,
        reason: Option<&str>,
    ) -> Result<bool, DatabaseError> {
        let sql = "select billing.finish_top_up(
            ($1::text)::uuid, ($2::text)::bigint, nullif($3::text, ''), $4, nullif($5::text, ''))";
        let (user, number) = (claimed.user.to_string(), claimed.number.to_string());
        let parameters =
            [&user, &number, payment_intent_id.unwrap_or_default(), state, reason.unwrap_or_default()];
        self.query_value(sql, &parameters, READ_TIMEOUT).await
    }

    /// `billing.set_auto_top_up`.
    pub(crate) async fn set_auto_top_up(&self, user: Uuid, enabled: bool) -> Result<Outcome, DatabaseError> {
        let sql = "select to_json(result)::text
            from billing.set_auto_top_up(($1::text)::uuid, ($2::text)::boolean) as result";
        let user = user.to_string();
        self.outcome(vec![Party::User(user.clone())], sql, &[&user, &enabled.to_string()]).await
    }
}

fn claimed(row: &Row) -> Result<ClaimedTopUp, DatabaseError> {
    let user: String = column(row, 0)?;
    Ok(ClaimedTopUp {
        user: Uuid::try_parse(&user).map_err(|fault| DatabaseError::UnexpectedAnswer(fault.to_string()))?,
        number: column(row, 1)?,
        price_id: column(row, 2)?,
        pack: column(row, 3)?,
        customer_id: column(row, 4)?,
        payment_intent_id: column(row, 5)?,
        attempts: column(row, 6)?,
        unwanted: column(row, 7)?,
    })
}
