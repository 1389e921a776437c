//! Credits that are given, not bought: at signup, and by hand.

use stripe_credits_rules::amount::Credits;
use stripe_credits_rules::calendar::Time;
use stripe_credits_rules::lot::{NewGrant, Pool};
use stripe_credits_rules::reason::Reason;
use stripe_credits_rules::verdict::Verdict;
use uuid::Uuid;

use crate::ledger::{Account, Origin, TransactionType};
use crate::outcome::{Outcome, repeated};
use crate::pg::error::raise_past;
use crate::pg::sql::Sql;
use crate::tables::catalog;

/// The source and the item of a user's signup credits.
const SIGNUP: &str = "signup";

/// The item of credits that are granted by hand, and the namespace of their request ids: an app may choose one that is an id
/// of Stripe's too.
const GRANT: &str = "grant";

/// Grants the catalog's signup credits, once per user.
pub(crate) fn signup(sql: &mut Sql, user: Uuid) -> Outcome {
    let Some(settings) = catalog::settings(sql) else {
        return Outcome::rejected(Reason::NoCatalog);
    };
    let mut account = Account::open(sql, user);
    if !account.sign_up() {
        return account.close(sql, Verdict::AlreadyApplied);
    }
    let grant = promotional(SIGNUP, "Signup credits", settings.signup_credits);
    let grants = if grant.credits > Credits::ZERO { vec![grant] } else { Vec::new() };
    match account.grant(sql, SIGNUP, &grants, TransactionType::Signup, &Origin::default()) {
        Ok(()) => account.close(sql, Verdict::Applied),
        Err(reason) => Outcome::rejected(reason),
    }
}

/// A grant by hand.
pub(crate) struct ManualGrant<'a> {
    pub(crate) user: Uuid,
    pub(crate) amount: Credits,
    pub(crate) request_id: &'a str,
    pub(crate) description: Option<&'a str>,
    pub(crate) expires_at: Option<Time>,
}

/// Grants credits by hand, once per request id.
pub(crate) fn grant(sql: &mut Sql, call: &ManualGrant) -> Outcome {
    let mut account = Account::open(sql, call.user);
    let source_id = format!("{GRANT}:{}", call.request_id);
    if let Some(granted) = account.find_grant(sql, &source_id, GRANT) {
        let same = granted.amount == call.amount && granted.expires_at == call.expires_at;
        return account.close(sql, repeated(same));
    }
    if let Some(past) = call.expires_at.filter(|expires_at| *expires_at <= account.now()) {
        raise_past("p_expires_at", &past.to_string());
    }
    let grant = NewGrant { expires_at: call.expires_at, ..promotional(GRANT, "Granted", call.amount) };
    let origin =
        Origin { description: call.description, request_id: Some(call.request_id), ..Origin::default() };
    match account.grant(sql, &source_id, &[grant], TransactionType::Grant, &origin) {
        Ok(()) => account.close(sql, Verdict::Applied),
        Err(reason) => Outcome::rejected(reason),
    }
}

fn promotional(item: &str, name: &str, credits: Credits) -> NewGrant {
    NewGrant::new(item.into(), name.into(), credits, Pool::Promotional)
}
