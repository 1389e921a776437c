//! Auto top-up: a user allows it, and what became of a payment for it.

use serde_json::Value;
use stripe_credits_rules::payment_intent::PaymentIntent;
use stripe_credits_rules::reason::Reason;
use stripe_credits_rules::told::Told;
use stripe_credits_rules::top_up::{Switch, TopUpState, number_of};
use stripe_credits_rules::verdict::Verdict;
use uuid::Uuid;

use crate::ledger::{self, Account};
use crate::outcome::Outcome;
use crate::pg::sql::Sql;
use crate::tables::{catalog, customers, top_ups};

/// Turns auto top-up on or off for a user. Turned on for a user who has too few credits already, it buys at once.
pub(crate) fn set(sql: &mut Sql, user: Uuid, enabled: bool) -> Outcome {
    let refused = if !enabled {
        None
    } else if catalog::settings(sql).is_none() {
        Some(Reason::NoCatalog)
    } else if catalog::auto_top_up(sql).is_none() {
        Some(Reason::NoAutoTopUp)
    } else if !customers::has_server_link(sql, user) {
        Some(Reason::NoCustomer)
    } else {
        None
    };
    if let Some(reason) = refused {
        return Outcome::no_account(user, reason);
    }
    let account = if enabled { Some(Account::open(sql, user)) } else { Account::open_existing(sql, user) };
    let switch = if enabled { Switch::On } else { Switch::Off };
    let outcome = match account {
        Some(mut account) => {
            let is_changed = account.switch_auto_top_up(sql, switch);
            if is_changed && enabled {
                account.top_up_now(sql);
            }
            account.close(sql, if is_changed { Verdict::Applied } else { Verdict::AlreadyApplied })
        }
        None => Outcome { user: Some(user), ..Outcome::of(Verdict::AlreadyApplied) },
    };
    outcome.with("auto_top_up", switch.as_str())
}

/// What an attempt to have a request paid came to.
pub(crate) struct Ending<'a> {
    pub(crate) user: Uuid,
    /// The request.
    pub(crate) id: i64,
    /// The payment intent that the caller knows to be the request's.
    pub(crate) payment_intent_id: Option<&'a str>,
    /// `paid`, `failed` or `canceled`.
    pub(crate) state: TopUpState,
    /// Why it failed or was canceled.
    pub(crate) reason: Option<&'a str>,
}

/// Records the end of an attempt, and tells the app of one that failed or was canceled. A failure pauses auto top-up.
/// Returns whether it was recorded.
pub(crate) fn finish(sql: &mut Sql, ending: &Ending) -> bool {
    let Ending { user, id, payment_intent_id, state, reason } = *ending;
    let Some(mut account) = Account::open_existing(sql, user) else { return false };
    let Some(top_up) = top_ups::finish(sql, (user, id), payment_intent_id, state, reason) else {
        return false;
    };
    let told = match state {
        TopUpState::Failed => Told::TopUpFailed,
        TopUpState::Canceled => Told::TopUpCanceled,
        TopUpState::Requested | TopUpState::Paid | TopUpState::Succeeded => return true,
    };
    if state == TopUpState::Failed {
        account.switch_auto_top_up(sql, Switch::Paused);
    }
    let outcome = account.close(sql, Verdict::Applied);
    let data = Value::Object(ledger::told_top_up(user, &top_up, reason));
    ledger::tell_of_payment(sql, user, outcome.balances.as_ref(), told, data);
    true
}

/// Ends the request that a payment intent paid, whose outcome this is: in the transaction that grants its credits, whatever
/// `serve` knows by then.
pub(crate) fn succeed(sql: &mut Sql, intent: &PaymentIntent, outcome: &Outcome) {
    let is_granted = matches!(outcome.verdict, Verdict::Applied | Verdict::AlreadyApplied);
    let (Some(top_up_id), Some(user), true) = (&intent.top_up_id, outcome.user, is_granted) else { return };
    let Some(id) = number_of(top_up_id, user) else { return };
    if let Some(top_up) = top_ups::succeed(sql, (user, id), &intent.id) {
        let data = Value::Object(ledger::told_top_up(user, &top_up, None));
        ledger::tell_of_payment(sql, user, outcome.balances.as_ref(), Told::TopUpSucceeded, data);
    }
}
