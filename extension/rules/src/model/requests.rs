//! What the app draws: spends, reservations, and what it gives back of them (rule 8).

use super::ledger::Cause;
use super::{Customer, Outcome};

/// A spend or a reservation.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) amount: i64,
    /// When a reservation that is neither committed nor released lapses.
    pub(super) reserved_until: Option<i64>,
    /// Whether it can no longer be committed or released.
    pub(super) is_closed: bool,
    is_reservation: bool,
}

impl Customer {
    /// "Idempotent by request_id. Not enough is `rejected`, `insufficient_credits`, and leaves no trace."
    pub(super) fn spend(&mut self, request_id: &str, amount: i64, reserved_until: Option<i64>) -> Outcome {
        assert!(amount > 0, "an amount is above 0");
        if let Some(known) = self.requests.get(request_id) {
            let is_same = known.amount == amount && known.is_reservation == reserved_until.is_some();
            return if is_same { Outcome::AlreadyApplied } else { Outcome::Rejected };
        }
        let view = self.view();
        if self.ledger.balances(&view).iter().map(|held| held.left).sum::<i64>() < amount {
            return Outcome::Rejected;
        }
        self.ledger.draw(&view, &Cause::Request(request_id.to_owned()), amount);
        let is_reservation = reserved_until.is_some();
        let request = Request { amount, reserved_until, is_closed: !is_reservation, is_reservation };
        self.requests.insert(request_id.to_owned(), request);
        Outcome::Applied
    }

    pub(super) fn commit(&mut self, request_id: &str, amount: Option<i64>) -> Outcome {
        let Some(request) = self.requests.get_mut(request_id).filter(|request| !request.is_closed) else {
            return Outcome::Rejected;
        };
        let amount = amount.unwrap_or(request.amount);
        assert!(amount > 0, "an amount is above 0");
        if amount > request.amount {
            return Outcome::Rejected;
        }
        request.is_closed = true;
        let rest = request.amount - amount;
        self.ledger.give_back(&self.view(), &Cause::Request(request_id.to_owned()), rest);
        Outcome::Applied
    }

    pub(super) fn release(&mut self, request_id: &str) -> Outcome {
        let Some(request) = self.requests.get_mut(request_id).filter(|request| !request.is_closed) else {
            return Outcome::Rejected;
        };
        request.is_closed = true;
        let amount = request.amount;
        self.ledger.give_back(&self.view(), &Cause::Request(request_id.to_owned()), amount);
        Outcome::Applied
    }

    /// "Idempotent by its own request id, never more than was spent."
    pub(super) fn refund_spend(&mut self, spend: &str, request_id: &str, amount: Option<i64>) -> Outcome {
        let cause = Cause::Request(spend.to_owned());
        let left = self.ledger.drawn_for(&cause);
        if let Some((of, refunded)) = self.refunds.get(request_id) {
            let is_same = of == spend && amount.is_none_or(|amount| amount == *refunded);
            return if is_same { Outcome::AlreadyApplied } else { Outcome::Rejected };
        }
        let amount = amount.unwrap_or(left);
        let is_spent = self.requests.get(spend).is_some_and(|request| request.is_closed);
        if !is_spent || amount > left || left == 0 {
            return Outcome::Rejected;
        }
        assert!(amount > 0, "an amount is above 0");
        self.ledger.give_back(&self.view(), &cause, amount);
        self.refunds.insert(request_id.to_owned(), (spend.to_owned(), amount));
        Outcome::Applied
    }

    /// A reservation that is neither committed nor released in time is given back.
    pub(super) fn end_reservations(&mut self) {
        let view = self.view();
        for (request_id, request) in &mut self.requests {
            if !request.is_closed && request.reserved_until.is_some_and(|until| until <= view.now) {
                request.is_closed = true;
                let cause = Cause::Request(request_id.clone());
                self.ledger.give_back(&view, &cause, self.ledger.drawn_for(&cause));
            }
        }
    }
}
