//! Why something was ignored, parked or rejected: the closed list that `outcome.reason`, logs and metrics share.

use crate::text_enum::text_enum;

text_enum! {
    /// Why something was ignored, parked or rejected.
    Reason {
        // Ignored: recorded without effect, judged again if delivered again.
        /// The event's livemode differs from the settings'.
        Livemode => "livemode",
        /// The event's account differs from the settings'.
        Account => "account",
        /// The payment was made before the catalog's `begins_at`: it was credited elsewhere.
        BeforeBooks => "before_books",
        /// The rules read nothing from events of this type.
        EventType => "event_type",
        /// Sessions of this mode grant nothing themselves: a subscription's credits come from its paid invoices.
        Mode => "mode",
        /// Not paid yet, or never. If it is paid, another event follows.
        Unpaid => "unpaid",
        /// The delayed payment failed.
        PaymentFailed => "payment_failed",
        /// The session expired before it was paid.
        Expired => "expired",
        /// Nothing had to be paid, and the catalog grants nothing for that.
        NoPaymentRequired => "no_payment_required",
        /// An invoice without a subscription that sells no pack.
        NoSubscription => "no_subscription",
        /// A state of a subscription that is older than the known one, or that came after its end.
        Stale => "stale",
        /// A paid invoice that bills nothing except credits for unused time.
        NothingBilled => "nothing_billed",
        /// A payment intent whose metadata name no pack and no price: if it sold one, a session or an invoice says so.
        NothingNamed => "nothing_named",
        /// Every line is in the catalog's `not_credits`.
        NotCredits => "not_credits",
        /// A paid invoice of nothing, for which the catalog grants nothing: a trial, a gift, a whole discount.
        NothingPaid => "nothing_paid",
        /// The reversed payment is not known. The reversal is stored, and counts if the payment arrives later.
        UnknownPayment => "unknown_payment",
        // Parked: stored, and applied automatically once the missing part is known.
        /// No catalog has been loaded.
        NoCatalog => "no_catalog",
        /// A price that the catalog does not know, or not as a pack.
        UnknownPrice => "unknown_price",
        /// The user is not known yet.
        UnknownUser => "unknown_user",
        /// The buyer's client_reference_id names another user than the customer is linked to.
        IdentityConflict => "identity_conflict",
        /// The charged amount is not known yet, so neither is the reversed part of it.
        UnknownCharge => "unknown_charge",
        /// Data from Stripe is needed, and the caller could not fetch it.
        Unfetched => "unfetched",
        /// Fetched from Stripe, the object still lacks what the rules need.
        Shape => "shape",
        // Rejected: refused for good, recorded if there is an event to record.
        /// Not a Stripe event, or one whose fields have other types than Stripe's.
        Malformed => "malformed",
        /// The same payment or request was applied for another user or with other content.
        Conflict => "conflict",
        /// The session belongs to another user than the caller.
        NotOwner => "not_owner",
        /// The session names no user.
        NoOwner => "no_owner",
        /// Worth more credits than an account can hold.
        OutOfRange => "out_of_range",
        /// The account has fewer credits than that.
        InsufficientCredits => "insufficient_credits",
        /// No spend and no committed reservation has this id.
        UnknownSpend => "unknown_spend",
        /// More credits than were spent and not given back yet.
        ExceedsSpend => "exceeds_spend",
        /// No reservation has this id.
        UnknownReservation => "unknown_reservation",
        /// The reservation was released, or it expired.
        ReservationEnded => "reservation_ended",
        /// More credits than were reserved.
        ExceedsReservation => "exceeds_reservation",
        /// The catalog has no `auto_top_up`.
        NoAutoTopUp => "no_auto_top_up",
        /// The user is linked to no customer of Stripe's that could be charged.
        NoCustomer => "no_customer",
    }
}
