//! The pools of an account, and what is granted into them.

use crate::amount::Credits;
use crate::calendar::Time;
use crate::text_enum::text_enum;

text_enum! {
    /// The three kinds of credits an account holds.
    Pool {
        /// From paid invoices of a subscription.
        Subscription => "subscription",
        /// Bought as packs.
        Purchased => "purchased",
        /// Granted without a payment: for a signup, as a bonus, by the free plan, or by hand.
        Promotional => "promotional",
    }
}

impl Pool {
    /// Which pool is drawn first of grants that would be lost at the same time (rule 8): 1, 2 or 3.
    #[must_use]
    pub fn draw_rank(self) -> i16 {
        match self {
            Pool::Subscription => 1,
            Pool::Promotional => 2,
            Pool::Purchased => 3,
        }
    }
}

text_enum! {
    /// What says which packs a payment bought, worst first.
    Evidence {
        /// A payment intent's metadata.
        PaymentIntent => "payment_intent",
        /// A session's metadata.
        Metadata => "metadata",
        /// Stripe's lines, of the session or of its invoice, or a direct call.
        Lines => "lines",
    }
}

/// A grant that should exist by everything that is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewGrant {
    /// Its price or its purpose. Unique within the payment.
    pub item: String,
    /// For people to read: the description of the ledger's row.
    pub name: String,
    /// Its whole amount, spent or not.
    pub credits: Credits,
    /// Where it counts.
    pub pool: Pool,
    /// `None`: never.
    pub expires_at: Option<Time>,
}

impl NewGrant {
    /// A grant that is available at once and never expires.
    #[must_use]
    pub fn new(item: String, name: String, credits: Credits, pool: Pool) -> NewGrant {
        NewGrant { item, name, credits, pool, expires_at: None }
    }
}
