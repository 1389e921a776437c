//! The types of what an app is told: in `billing.outbox`, in what is posted to the app, and in a page's stream.

use crate::text_enum::text_enum;

text_enum! {
    /// The type of a row of `billing.outbox`. docs/events.md has the data of each.
    Told {
        /// Credits were added: bought, given, or back after a reversal that was undone.
        CreditsGranted => "credits.granted",
        /// Credits were taken back, because money was.
        CreditsReversed => "credits.reversed",
        /// The balance fell to a threshold of the catalog's, or below.
        CreditsLow => "credits.low",
        /// The balance fell to nothing.
        CreditsExhausted => "credits.exhausted",
        /// Credits will expire within the catalog's `expiring_days`.
        CreditsExpiring => "credits.expiring",
        /// A subscription, or the tier or status that it gives its user, changed.
        SubscriptionChanged => "subscription.changed",
        /// A payment was received, and waits for something.
        PaymentParked => "payment.parked",
        /// A payment that had waited was applied.
        PaymentAppliedLate => "payment.applied_late",
        /// A pack is to be bought for a user by auto top-up.
        TopUpRequested => "top_up.requested",
        /// It was paid, and its credits were granted.
        TopUpSucceeded => "top_up.succeeded",
        /// The payment failed, and auto top-up is paused for the user.
        TopUpFailed => "top_up.failed",
        /// It was given up before it was paid.
        TopUpCanceled => "top_up.canceled",
        /// None is requested, because there were as many as the catalog allows.
        TopUpRefused => "top_up.refused",
    }
}
