//! Why an outcome is what it is: the closed list of words that `outcome.reason`, logs and metrics share.

use crate::text_enum::text_enum;

text_enum! {
    /// Why something was ignored, parked or rejected.
    Reason {
        // Ignored: recorded, no effect, judged again when delivered again.
        /// The event's livemode is not the settings'.
        Livemode => "livemode",
        /// The event is of an account that is not the settings'.
        Account => "account",
        /// The rules read nothing from events of this type.
        EventType => "event_type",
        /// The session's mode grants nothing by itself: a subscription's credits come from its paid invoices.
        Mode => "mode",
        /// Not paid yet, or never: what tells of the payment is waited for.
        Unpaid => "unpaid",
        /// The delayed payment failed.
        PaymentFailed => "payment_failed",
        /// The session expired before it was paid.
        Expired => "expired",
        /// Nothing had to be paid, and the catalog grants nothing for that.
        NoPaymentRequired => "no_payment_required",
        /// An invoice of no subscription: a pack's own, or one written by hand.
        NoSubscription => "no_subscription",
        /// A subscription's state that is older than what is known of it, or came after its end.
        Stale => "stale",
        /// A paid invoice that bills nothing: only credits for unused time.
        NothingBilled => "nothing_billed",
        /// Every line is in the catalog's `not_credits`.
        NotCredits => "not_credits",
        /// A trial for which the catalog grants nothing.
        Trial => "trial",
        /// A change of plan whose credits come with the next renewal.
        AtRenewal => "at_renewal",
        /// Nothing of ours is known to have been paid by what is reversed. It is kept: should the payment come, it is netted.
        UnknownPayment => "unknown_payment",
        // Parked: kept, applied by itself once what it lacked is known.
        /// No catalog has been loaded.
        NoCatalog => "no_catalog",
        /// A price that the catalog does not know as a pack.
        UnknownPrice => "unknown_price",
        /// Nobody knows yet whose it is.
        UnknownUser => "unknown_user",
        /// A buyer's client_reference_id contradicts the customer's tie.
        IdentityConflict => "identity_conflict",
        /// What was charged is not known yet, so neither is the part of it that is reversed.
        UnknownCharge => "unknown_charge",
        /// Stripe was to be asked and could not be.
        Unfetched => "unfetched",
        /// Stripe was asked, and the object still lacks what the rules need.
        Shape => "shape",
        // Rejected: refused for good, recorded where there is an event to record.
        /// Not a Stripe event, or one whose fields have other types than Stripe's.
        Malformed => "malformed",
        /// The same payment or request was applied for another user or with other content.
        Conflict => "conflict",
        /// The session belongs to somebody else.
        NotOwner => "not_owner",
        /// The session names nobody.
        NoOwner => "no_owner",
        /// Worth more credits than an account can hold.
        OutOfRange => "out_of_range",
        /// The account has fewer credits than that.
        InsufficientCredits => "insufficient_credits",
        /// There is no such reservation.
        UnknownReservation => "unknown_reservation",
        /// The reservation was released, or ran out.
        ReservationEnded => "reservation_ended",
        /// More than was reserved.
        ExceedsReservation => "exceeds_reservation",
    }
}
