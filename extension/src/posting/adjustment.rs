//! What an operator sets right: corrections by hand, and the balances that users bring from another system.

use serde_json::json;
use stripe_credits_rules::amount::Credits;
use stripe_credits_rules::calendar::Time;
use stripe_credits_rules::lot::{NewGrant, Pool};
use stripe_credits_rules::reason::Reason;
use stripe_credits_rules::verdict::Verdict;
use uuid::Uuid;

use crate::ledger::{Account, Granted, Origin, TransactionType};
use crate::outcome::{Outcome, repeated};
use crate::pg::error::raise_past;
use crate::pg::json::Json;
use crate::pg::sql::Sql;

/// The item of credits that a correction adds.
const ADJUSTMENT: &str = "adjustment";

/// The item of an imported balance.
const IMPORT: &str = "import";

/// A correction by hand.
pub(crate) struct Adjustment<'a> {
    pub(crate) user: Uuid,
    /// Above 0 it adds promotional credits; below 0 it takes credits, purchased ones last.
    pub(crate) amount: Credits,
    pub(crate) request_id: &'a str,
    pub(crate) reason: &'a str,
    /// Who corrects it, if that is said: kept in the rows' metadata.
    pub(crate) by: Option<&'a str>,
}

/// Adjusts a balance, once per request id.
pub(crate) fn adjust(sql: &mut Sql, call: &Adjustment) -> Outcome {
    let adds = call.amount > Credits::ZERO;
    let account =
        if adds { Some(Account::open(sql, call.user)) } else { Account::open_existing(sql, call.user) };
    let Some(mut account) = account else {
        return Outcome::no_account(call.user, Reason::InsufficientCredits);
    };
    if let Some(earlier) = account.requested(sql, call.request_id) {
        let same = earlier.transaction_type == TransactionType::Adjustment && earlier.credits == call.amount;
        return account.close(sql, repeated(same));
    }
    let origin = Origin {
        description: Some(call.reason),
        request_id: Some(call.request_id),
        metadata: call.by.map(|by| Json::from_text(&json!({ "by": by }).to_string())),
        ..Origin::default()
    };
    if !adds {
        let taken = account.take(sql, Credits(-call.amount.0), TransactionType::Adjustment, &origin);
        let insufficient = Verdict::Rejected(Reason::InsufficientCredits);
        return account.close(sql, if taken { Verdict::Applied } else { insufficient });
    }
    let grant = NewGrant::new(ADJUSTMENT.into(), call.reason.into(), call.amount, Pool::Promotional);
    let source_id = source(ADJUSTMENT, call.request_id);
    match account.grant(sql, &source_id, &[grant], TransactionType::Adjustment, &origin) {
        Ok(()) => account.close(sql, Verdict::Applied),
        Err(reason) => Outcome::rejected(reason),
    }
}

/// A balance that a user has in another system.
pub(crate) struct Import<'a> {
    pub(crate) user: Uuid,
    pub(crate) pool: Pool,
    pub(crate) amount: Credits,
    /// What it is imported from: a user has one import of it.
    pub(crate) source: &'a str,
    pub(crate) expires_at: Option<Time>,
}

/// Imports a balance, once per user and source.
pub(crate) fn import(sql: &mut Sql, call: &Import) -> Outcome {
    let mut account = Account::open(sql, call.user);
    let source_id = source(IMPORT, call.source);
    if let Some(earlier) = account.find_grant(sql, &source_id, IMPORT) {
        let same = earlier == Granted { pool: call.pool, amount: call.amount, expires_at: call.expires_at };
        return account.close(sql, repeated(same));
    }
    if let Some(past) = call.expires_at.filter(|expires_at| *expires_at <= account.now()) {
        raise_past("p_expires_at", &past.to_string());
    }
    let grant = NewGrant {
        expires_at: call.expires_at,
        ..NewGrant::new(IMPORT.into(), format!("Imported from {}", call.source), call.amount, call.pool)
    };
    let origin = Origin { request_id: Some(call.source), ..Origin::default() };
    match account.grant(sql, &source_id, &[grant], TransactionType::Import, &origin) {
        Ok(()) => account.close(sql, Verdict::Applied),
        Err(reason) => Outcome::rejected(reason),
    }
}

/// A grant's source with the caller's key, which may look like a payment's id: a reversal of that payment must not find it.
fn source(kind: &str, key: &str) -> String {
    format!("{kind}:{key}")
}
