//! What the app gives: gifts, the signup's credits, and the months of a free plan.

use super::grants::{Grant, Key, Pool};
use super::number::whole;
use super::{Customer, Outcome};

impl Customer {
    pub(super) fn give(&mut self, request_id: &str, amount: i64, expires: Option<i64>) -> Outcome {
        assert!(amount > 0, "an amount is above 0");
        let key = Key::Gift { request_id: request_id.to_owned() };
        let gift = Grant { expires, ..Grant::new(key, Pool::Promotional, self.now, whole(amount)) };
        if let Some(known) = self.gifts.get(request_id) {
            let is_same = known.worth() == amount && known.expires == expires;
            return if is_same { Outcome::AlreadyApplied } else { Outcome::Rejected };
        }
        self.gifts.insert(request_id.to_owned(), gift);
        Outcome::Applied
    }

    pub(super) fn sign_up(&mut self) -> Outcome {
        if self.signed_up_at.is_some() {
            return Outcome::AlreadyApplied;
        }
        self.signed_up_at = Some(self.now);
        Outcome::Applied
    }

    /// The credits of the signup, and "a free plan's months: promotional, lapsing after the month".
    pub(super) fn free_grants(&self) -> Vec<Grant> {
        let Some(at) = self.signed_up_at else { return Vec::new() };
        let signup = whole(self.catalog.signup_credits);
        let mut grants = vec![Grant::new(Key::Signup, Pool::Promotional, at, signup)];
        for month in &self.free_months {
            let start = self.free_month_start(*month);
            let credits = self.catalog.free_plan.as_ref().map_or(0, |plan| plan.credits);
            let grant = Grant::new(Key::Free { month: *month }, Pool::Promotional, start, whole(credits));
            let ends = self.free_month_start(month + 1);
            grants.push(Grant { ends: Some(ends), expires: Some(ends), ..grant });
        }
        grants
    }

    /// A month of the free plan goes to "accounts that called grant_signup_credits and have no paid tier".
    pub(super) fn note_free_month(&mut self) {
        if let Some(month) = self.free_month()
            && self.view().tier == "free"
        {
            self.free_months.insert(month);
        }
    }

    /// Which month of the free plan runs.
    pub(super) fn free_month(&self) -> Option<i64> {
        self.catalog.free_plan.as_ref()?;
        self.signed_up_at?;
        let mut month = 0;
        while self.free_month_start(month + 1) <= self.now {
            month += 1;
        }
        Some(month)
    }

    pub(super) fn free_month_start(&self, month: i64) -> i64 {
        let plan = self.catalog.free_plan.as_ref().expect("there is a free plan");
        plan.every.after(self.signed_up_at.expect("the user has signed up"), month)
    }
}
