//! What `billing.explain_user`, `explain_id` and `explain_waiting` return, as far as the console shows it. Times are texts in
//! UTC.

use serde::Deserialize;
use serde_json::Value;
use uuid::Uuid;

use crate::routes::console::words::{change, words};

/// Everything of a user.
#[derive(Deserialize)]
pub(crate) struct KnownUser {
    pub(crate) user_id: Uuid,
    /// `None`: nothing was ever posted for them.
    pub(crate) account: Option<Account>,
    pub(crate) forgotten_at: Option<String>,
    pub(crate) customers: Vec<Customer>,
    pub(crate) grants: Vec<Grant>,
    pub(crate) subscriptions: Vec<Subscription>,
    pub(crate) payments: Vec<Payment>,
    pub(crate) reservations: Vec<Reservation>,
    pub(crate) top_ups: Vec<TopUp>,
    pub(crate) waiting: Vec<Event>,
    pub(crate) balances: Vec<Balance>,
    pub(crate) transactions: Vec<Transaction>,
}

/// Everything of an id of Stripe's, or of an e-mail address.
#[derive(Deserialize)]
pub(crate) struct KnownId {
    pub(crate) id: String,
    pub(crate) found: Vec<Found>,
    pub(crate) events: Vec<Event>,
    pub(crate) payment: Option<PaymentOfId>,
    pub(crate) lines: Vec<Line>,
    pub(crate) reversals: Vec<Reversal>,
    pub(crate) transactions: Vec<Transaction>,
}

#[derive(Deserialize)]
pub(crate) struct Account {
    pub(crate) subscription_tier: String,
    pub(crate) subscription_status: String,
    pub(crate) credits_balance: i64,
    pub(crate) subscription_credits_balance: i64,
    pub(crate) purchased_credits_balance: i64,
    pub(crate) promotional_credits_balance: i64,
    pub(crate) debt: i64,
    pub(crate) cycle_end_at: Option<String>,
    pub(crate) auto_top_up: String,
}

#[derive(Deserialize)]
pub(crate) struct Customer {
    pub(crate) customer_id: String,
    pub(crate) source: String,
    pub(crate) as_of: String,
}

#[derive(Deserialize)]
pub(crate) struct Grant {
    pub(crate) id: i64,
    pub(crate) source_id: String,
    pub(crate) item: String,
    pub(crate) pool: String,
    pub(crate) amount: i64,
    pub(crate) drawn: i64,
    pub(crate) remaining: i64,
    pub(crate) pending: i64,
    pub(crate) set_aside: i64,
    pub(crate) expired: i64,
    pub(crate) available_from: Option<String>,
    pub(crate) period_start: Option<String>,
    pub(crate) period_end: Option<String>,
    pub(crate) expires_at: Option<String>,
    pub(crate) drawn_for: Vec<Draw>,
}

/// A ledger row that took from a grant, or gave back to it.
#[derive(Deserialize)]
pub(crate) struct Draw {
    pub(crate) transaction_type: String,
    pub(crate) amount: i64,
    pub(crate) request_id: Option<String>,
    pub(crate) description: Option<String>,
    pub(crate) created_at: String,
}

#[derive(Deserialize)]
pub(crate) struct Subscription {
    pub(crate) subscription_id: String,
    pub(crate) tier: String,
    pub(crate) status: String,
    pub(crate) price_id: Option<String>,
    pub(crate) quantity: i64,
    pub(crate) current_period_end: String,
    pub(crate) cancel_at_period_end: bool,
    pub(crate) as_of: String,
}

#[derive(Deserialize)]
pub(crate) struct Payment {
    pub(crate) source_id: String,
    pub(crate) paid_at: String,
    pub(crate) amount: Option<i64>,
    pub(crate) currency: Option<String>,
    pub(crate) refunded: i64,
    pub(crate) credits: i64,
    pub(crate) description: Option<String>,
    pub(crate) lines: Vec<Line>,
}

/// The payment that an id names.
#[derive(Deserialize)]
pub(crate) struct PaymentOfId {
    pub(crate) paid_at: Option<String>,
    pub(crate) amount_total: Option<i64>,
    pub(crate) currency: Option<String>,
    pub(crate) amount_reversed: i64,
    pub(crate) names: Vec<String>,
}

#[derive(Deserialize)]
pub(crate) struct Line {
    pub(crate) price_id: Option<String>,
    pub(crate) name: Option<String>,
    pub(crate) quantity: Option<i64>,
    pub(crate) amount: Option<i64>,
    pub(crate) discount: Option<i64>,
    pub(crate) currency: Option<String>,
    pub(crate) why: Option<String>,
    pub(crate) worth: Option<i64>,
}

#[derive(Deserialize)]
pub(crate) struct Reversal {
    pub(crate) reversal_id: String,
    pub(crate) kind: String,
    pub(crate) amount: i64,
    pub(crate) currency: Option<String>,
    pub(crate) state: String,
}

#[derive(Deserialize)]
pub(crate) struct Reservation {
    pub(crate) request_id: String,
    pub(crate) amount: i64,
    pub(crate) description: Option<String>,
    pub(crate) expires_at: String,
}

/// A pack to be bought because the balance ran low.
#[derive(Deserialize)]
pub(crate) struct TopUp {
    pub(crate) pack: String,
    pub(crate) credits: i64,
    pub(crate) state: String,
    pub(crate) reason: Option<String>,
    pub(crate) payment_intent_id: Option<String>,
    pub(crate) requested_at: String,
}

/// An event of the inbox.
#[derive(Deserialize)]
pub(crate) struct Event {
    pub(crate) event_id: String,
    #[serde(rename = "type")]
    pub(crate) event_type: Option<String>,
    pub(crate) object_id: Option<String>,
    pub(crate) customer_id: Option<String>,
    pub(crate) outcome: String,
    pub(crate) reason: Option<String>,
    pub(crate) first_received_at: String,
    /// Of an event that waits.
    pub(crate) waits_seconds: Option<i64>,
    #[serde(default)]
    pub(crate) details: Value,
}

/// The balance at the end of a day.
#[derive(Deserialize)]
pub(crate) struct Balance {
    pub(crate) day: String,
    pub(crate) days_ago: i64,
    pub(crate) balance: i64,
}

#[derive(Deserialize)]
pub(crate) struct Transaction {
    pub(crate) id: i64,
    pub(crate) transaction_type: String,
    pub(crate) amount: i64,
    pub(crate) grant_id: Option<i64>,
    pub(crate) balance_after: i64,
    pub(crate) description: Option<String>,
    #[serde(default)]
    pub(crate) metadata: Value,
    pub(crate) stripe_checkout_session_id: Option<String>,
    pub(crate) stripe_payment_intent_id: Option<String>,
    pub(crate) stripe_invoice_id: Option<String>,
    pub(crate) request_id: Option<String>,
    pub(crate) created_at: String,
}

/// A row of `billing.find_users`.
#[derive(Deserialize)]
pub(crate) struct Found {
    pub(crate) found_as: String,
    pub(crate) user_id: Option<Uuid>,
    pub(crate) customer_id: Option<String>,
    pub(crate) event_id: Option<String>,
}

/// The outcome that an event would have now.
#[derive(Deserialize)]
pub(crate) struct Foreseen {
    outcome: String,
    reason: Option<String>,
    #[serde(default)]
    credits: i64,
}

impl Foreseen {
    /// It in words.
    pub(crate) fn sentence(&self) -> String {
        match &self.reason {
            Some(reason) => format!("{}, {}.", words(&self.outcome), words(reason)),
            None => format!("{}, credits {}.", words(&self.outcome), change(self.credits)),
        }
    }
}

impl KnownUser {
    /// The last ledger row of each request that spent credits: not of a reservation that is held, which its app ends.
    pub(crate) fn refundable(&self) -> Vec<i64> {
        let mut seen: Vec<&str> = self.reservations.iter().map(|held| held.request_id.as_str()).collect();
        let mut refundable = Vec::new();
        for row in self.transactions.iter().filter(|row| row.is_spent()) {
            if let Some(request_id) = row.request_id.as_deref().filter(|id| !seen.contains(id)) {
                seen.push(request_id);
                refundable.push(row.id);
            }
        }
        refundable
    }

    /// Whether there is anything but the id.
    pub(crate) fn is_known(&self) -> bool {
        self.account.is_some()
            || !self.customers.is_empty()
            || !self.payments.is_empty()
            || !self.waiting.is_empty()
    }
}

impl KnownId {
    /// Whether anything of Stripe's has this id.
    pub(crate) fn is_an_object(&self) -> bool {
        !self.events.is_empty() || self.payment.is_some()
    }

    /// The users that were found, each once.
    pub(crate) fn users(&self) -> Vec<Uuid> {
        let mut users: Vec<Uuid> = Vec::new();
        for user in self.found.iter().filter_map(|found| found.user_id) {
            if !users.contains(&user) {
                users.push(user);
            }
        }
        users
    }
}

impl Event {
    /// Whether it was not applied, and may be.
    pub(crate) fn waits(&self) -> bool {
        matches!(self.outcome.as_str(), "parked" | "needs_fetch")
    }

    /// What says whose it is, if that is what it waits for: the customer, or if the buyer contradicts it the object.
    pub(crate) fn attributable(&self) -> Option<&str> {
        let object = self.object_id.as_deref().filter(|id| id.starts_with("cs_") || id.starts_with("sub_"));
        match self.reason.as_deref() {
            Some("unknown_user") => self.customer_id.as_deref().or(object),
            Some("identity_conflict") => object,
            _ => None,
        }
    }

    /// The prices that the catalog lacks.
    pub(crate) fn missing_prices(&self) -> Vec<&str> {
        self.details["missing_prices"].as_array().into_iter().flatten().filter_map(Value::as_str).collect()
    }
}

impl Transaction {
    /// Whether it drew what can be given back.
    pub(crate) fn is_spent(&self) -> bool {
        matches!(self.transaction_type.as_str(), "spend" | "reservation")
    }

    /// Who did it, if a person did.
    pub(crate) fn by(&self) -> Option<&str> {
        self.metadata["by"].as_str()
    }

    /// The payment that it is of.
    pub(crate) fn payment(&self) -> Option<&str> {
        let ids = [&self.stripe_invoice_id, &self.stripe_checkout_session_id, &self.stripe_payment_intent_id];
        ids.into_iter().find_map(|id| id.as_deref())
    }
}
