//! Credits are spent, or held for a job that may fail. Under the account's lock alone, and once per request id.

use stripe_credits_rules::amount::Credits;
use stripe_credits_rules::calendar::Time;
use stripe_credits_rules::draw::give_back;
use stripe_credits_rules::reason::Reason;
use uuid::Uuid;

use crate::ledger::{self, Account, Origin, TransactionType};
use crate::outcome::{Outcome, Verdict};
use crate::pg::sql::Sql;
use crate::posting::pack::close;
use crate::tables::reservations::{self, Status};

/// Spends credits.
pub(crate) fn spend(sql: &mut Sql, user: Uuid, amount: Credits, origin: &Origin) -> Outcome {
    let request_id = origin.request_id.expect("a spend has a request id");
    let Some(account) = ledger::lock_existing(sql, user) else {
        return nobody(user, Reason::InsufficientCredits);
    };
    if let Some(before) = account.requested(sql, request_id) {
        let same = before == (TransactionType::Spend, Credits(-amount.0));
        return close(sql, account, repeated(same));
    }
    take(sql, account, amount, TransactionType::Spend, origin)
}

/// Holds credits until `lapse` after now.
pub(crate) fn reserve(
    sql: &mut Sql,
    user: Uuid,
    amount: Credits,
    expires_at: impl FnOnce(Time) -> Time,
    origin: &Origin,
) -> Outcome {
    let request_id = origin.request_id.expect("a reservation has a request id");
    let Some(mut account) = ledger::lock_existing(sql, user) else {
        return nobody(user, Reason::InsufficientCredits);
    };
    if let Some(reservation) = reservations::find(sql, user, request_id) {
        let outcome = close(sql, account, repeated(reservation.amount == amount));
        return outcome.with("status", reservation.status.as_str());
    }
    if account.requested(sql, request_id).is_some() {
        return close(sql, account, repeated(false));
    }
    if amount <= account.available() {
        let (now, expires_at) = (account.now(), expires_at(account.now()));
        reservations::hold(sql, user, request_id, amount, origin.description, now, expires_at);
        account.due_at(expires_at);
    }
    take(sql, account, amount, TransactionType::Reservation, origin)
}

/// Ends a reservation with `amount` of it spent, by default all; the rest goes back to the grants it came from.
pub(crate) fn commit(sql: &mut Sql, user: Uuid, request_id: &str, amount: Option<Credits>) -> Outcome {
    let Some(account) = ledger::lock_existing(sql, user) else {
        return nobody(user, Reason::UnknownReservation);
    };
    let Some(reservation) = reservations::find(sql, user, request_id) else {
        return close(sql, account, Verdict::Rejected(Reason::UnknownReservation));
    };
    let amount = amount.unwrap_or(reservation.amount);
    let verdict = match reservation.status {
        Status::Held if amount > reservation.amount => Verdict::Rejected(Reason::ExceedsReservation),
        Status::Held => return end(sql, account, request_id, Status::Committed, amount),
        Status::Committed => repeated(reservation.committed == amount),
        Status::Released | Status::Expired => Verdict::Rejected(Reason::ReservationEnded),
    };
    close(sql, account, verdict)
}

/// Ends a reservation with nothing of it spent.
pub(crate) fn release(sql: &mut Sql, user: Uuid, request_id: &str) -> Outcome {
    let Some(account) = ledger::lock_existing(sql, user) else {
        return nobody(user, Reason::UnknownReservation);
    };
    let verdict = match reservations::find(sql, user, request_id).map(|reservation| reservation.status) {
        Some(Status::Held) => return end(sql, account, request_id, Status::Released, Credits::ZERO),
        Some(Status::Released | Status::Expired) => Verdict::AlreadyApplied,
        Some(Status::Committed) => Verdict::Rejected(Reason::Conflict),
        None => Verdict::Rejected(Reason::UnknownReservation),
    };
    close(sql, account, verdict)
}

fn take(
    sql: &mut Sql,
    mut account: Account,
    amount: Credits,
    transaction_type: TransactionType,
    origin: &Origin,
) -> Outcome {
    if account.take(sql, amount, transaction_type, origin) {
        close(sql, account, Verdict::Applied)
    } else {
        close(sql, account, Verdict::Rejected(Reason::InsufficientCredits))
    }
}

fn end(sql: &mut Sql, mut account: Account, request_id: &str, status: Status, committed: Credits) -> Outcome {
    let back = give_back(&account.drawn(sql, request_id), committed);
    account.put_back(sql, request_id, &back);
    reservations::end(sql, account.user(), request_id, status, committed, account.now());
    close(sql, account, Verdict::Applied)
}

/// A user without an account has nothing, and an answer that says so makes none.
fn nobody(user: Uuid, reason: Reason) -> Outcome {
    Outcome { user: Some(user), ..Outcome::of(Verdict::Rejected(reason)) }
}

/// The same request again: with the same content it was applied already, with other content it contradicts itself.
fn repeated(same: bool) -> Verdict {
    if same { Verdict::AlreadyApplied } else { Verdict::Rejected(Reason::Conflict) }
}
