//! The names of a payment (rule 2): a payment has one row and many ids of Stripe's, and an event that carries two of
//! them joins them.

use crate::text_enum::text_enum;

text_enum! {
    /// What an id names.
    NameKind {
        /// `cs_…`.
        CheckoutSession => "checkout_session",
        /// `in_…`.
        Invoice => "invoice",
        /// `pi_…`.
        PaymentIntent => "payment_intent",
        /// `ch_…` or `py_…`.
        Charge => "charge",
    }
}

/// One of Stripe's ids of a payment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Name<'a> {
    /// What it names.
    pub kind: NameKind,
    /// The id.
    pub id: &'a str,
}
