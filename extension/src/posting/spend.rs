//! Credits are spent, held for a job that may fail, or given back: under the account's lock alone, and once per request id.

use serde_json::json;
use stripe_credits_rules::amount::Credits;
use stripe_credits_rules::calendar::TimeDelta;
use stripe_credits_rules::draw::give_back;
use stripe_credits_rules::reason::Reason;
use stripe_credits_rules::verdict::Verdict;
use uuid::Uuid;

use crate::ledger::{self, Account, Origin, TransactionType};
use crate::outcome::{Outcome, repeated};
use crate::pg::json::Json;
use crate::pg::sql::Sql;
use crate::tables::reservations::{self, Status};

/// A request for credits.
pub(crate) struct Request<'a> {
    pub(crate) user: Uuid,
    pub(crate) amount: Credits,
    pub(crate) request_id: &'a str,
    pub(crate) description: Option<&'a str>,
    pub(crate) metadata: Option<Json>,
}

impl<'a> Request<'a> {
    fn origin(&self) -> Origin<'a> {
        Origin {
            description: self.description,
            request_id: Some(self.request_id),
            metadata: self.metadata,
            ..Origin::default()
        }
    }
}

/// Spends credits.
pub(crate) fn spend(sql: &mut Sql, request: &Request) -> Outcome {
    let Some(mut account) = Account::open_existing(sql, request.user) else {
        return Outcome::no_account(request.user, Reason::InsufficientCredits);
    };
    let (earlier, first) = account.requested_or_first_grant(sql, request.request_id);
    if let Some(earlier) = earlier {
        let same =
            earlier.transaction_type == TransactionType::Spend && earlier.credits.0 == -request.amount.0;
        return account.close(sql, repeated(same));
    }
    let taken = account.spend(sql, request.amount, first, &request.origin());
    account.close(sql, taken_or_insufficient(taken))
}

/// Holds credits for `ttl` from now.
pub(crate) fn reserve(sql: &mut Sql, request: &Request, ttl: TimeDelta) -> Outcome {
    let Request { user, amount, request_id, description, .. } = *request;
    let Some(mut account) = Account::open_existing(sql, user) else {
        return Outcome::no_account(user, Reason::InsufficientCredits);
    };
    if let Some(reservation) = reservations::find(sql, user, request_id) {
        let outcome = account.close(sql, repeated(reservation.amount == amount));
        return outcome.with("status", reservation.status.as_str());
    }
    if account.requested(sql, request_id).is_some() {
        return account.close(sql, repeated(false));
    }
    if amount <= account.available() {
        let expires_at = account.now() + ttl;
        reservations::insert(sql, user, request_id, amount, description, account.now(), expires_at);
        account.due_at(expires_at);
    }
    let taken = account.take(sql, amount, TransactionType::Reservation, &request.origin());
    account.close(sql, taken_or_insufficient(taken))
}

/// Ends a reservation with `amount` of it spent, by default all; the rest goes back to the grants it came from.
pub(crate) fn commit(sql: &mut Sql, user: Uuid, request_id: &str, amount: Option<Credits>) -> Outcome {
    let Some(account) = Account::open_existing(sql, user) else {
        return Outcome::no_account(user, Reason::UnknownReservation);
    };
    let Some(reservation) = reservations::find(sql, user, request_id) else {
        return account.close(sql, Verdict::Rejected(Reason::UnknownReservation));
    };
    let amount = amount.unwrap_or(reservation.amount);
    let verdict = match reservation.status {
        Status::Held if amount > reservation.amount => Verdict::Rejected(Reason::ExceedsReservation),
        Status::Held => return end(sql, account, request_id, Status::Committed, amount),
        Status::Committed => repeated(reservation.committed == amount),
        Status::Released | Status::Expired => Verdict::Rejected(Reason::ReservationEnded),
    };
    account.close(sql, verdict)
}

/// Ends a reservation with nothing of it spent.
pub(crate) fn release(sql: &mut Sql, user: Uuid, request_id: &str) -> Outcome {
    let Some(account) = Account::open_existing(sql, user) else {
        return Outcome::no_account(user, Reason::UnknownReservation);
    };
    let verdict = match reservations::find(sql, user, request_id).map(|reservation| reservation.status) {
        Some(Status::Held) => return end(sql, account, request_id, Status::Released, Credits::ZERO),
        Some(Status::Released | Status::Expired) => Verdict::AlreadyApplied,
        Some(Status::Committed) => Verdict::Rejected(Reason::Conflict),
        None => Verdict::Rejected(Reason::UnknownReservation),
    };
    account.close(sql, verdict)
}

/// A request to give back what a spend drew.
pub(crate) struct Refund<'a> {
    pub(crate) user: Uuid,
    /// The request id of the spend, or of the committed reservation.
    pub(crate) spend_request_id: &'a str,
    pub(crate) request_id: &'a str,
    /// `None`: whatever is left of the spend.
    pub(crate) amount: Option<Credits>,
    /// The rows' description.
    pub(crate) reason: Option<&'a str>,
    /// Who gives it back, if that is said: kept in the rows' metadata.
    pub(crate) by: Option<&'a str>,
}

/// Gives back what a spend drew, to the grants that it drew from, the last one first.
pub(crate) fn refund(sql: &mut Sql, refund: &Refund) -> Outcome {
    let Refund { user, spend_request_id, request_id, amount, .. } = *refund;
    let Some(mut account) = Account::open_existing(sql, user) else {
        return Outcome::no_account(user, Reason::UnknownSpend);
    };
    if let Some(earlier) = account.requested(sql, request_id) {
        let same = earlier.transaction_type == TransactionType::SpendRefund
            && earlier.spend_request_id.as_deref() == Some(spend_request_id)
            && amount.is_none_or(|amount| amount == earlier.credits);
        return account.close(sql, repeated(same));
    }
    if !is_spent(sql, &account, spend_request_id) {
        return account.close(sql, Verdict::Rejected(Reason::UnknownSpend));
    }
    let spent = account.spent(sql, spend_request_id);
    let left: i64 = spent.iter().map(|share| share.credits.0).sum();
    let amount = amount.unwrap_or(Credits(left));
    if left == 0 || amount.0 > left {
        return account.close(sql, Verdict::Rejected(Reason::ExceedsSpend));
    }
    if !account.fits(sql, amount) {
        ledger::raise_too_full(user, amount);
    }
    let mut back = give_back(&spent, Credits(left - amount.0));
    back.reverse();
    let mut metadata = json!({ "spend_request_id": spend_request_id });
    if let Some(by) = refund.by {
        metadata["by"] = by.into();
    }
    let origin = Origin {
        description: refund.reason,
        request_id: Some(request_id),
        metadata: Some(Json::from_text(&metadata.to_string())),
        ..Origin::default()
    };
    account.return_drawn(sql, &back, TransactionType::SpendRefund, &origin);
    account.close(sql, Verdict::Applied)
}

/// Whether a request spent credits: a spend, or a reservation that was committed.
fn is_spent(sql: &mut Sql, account: &Account, request_id: &str) -> bool {
    match account.requested(sql, request_id).map(|requested| requested.transaction_type) {
        Some(TransactionType::Spend) => true,
        Some(TransactionType::Reservation) => reservations::find(sql, account.user(), request_id)
            .is_some_and(|reservation| reservation.status == Status::Committed),
        _ => false,
    }
}

fn taken_or_insufficient(is_taken: bool) -> Verdict {
    if is_taken { Verdict::Applied } else { Verdict::Rejected(Reason::InsufficientCredits) }
}

fn end(sql: &mut Sql, mut account: Account, request_id: &str, status: Status, committed: Credits) -> Outcome {
    let back = give_back(&account.drawn(sql, request_id), committed);
    account.return_reserved(sql, request_id, &back);
    reservations::end(sql, account.user(), request_id, status, committed, account.now());
    account.close(sql, Verdict::Applied)
}
