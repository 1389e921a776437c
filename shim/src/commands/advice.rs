//! What an operator can do about an event that was not applied, by its reason.

use stripe_credits_rules::reason::Reason;

/// What the reason means, and what to do; none where the reason's name says all.
pub(crate) fn advice(reason: Reason) -> Option<&'static str> {
    Some(match reason {
        Reason::Livemode => "an event of the other mode; the catalog's livemode says which one counts here",
        Reason::Account => {
            "an event of another account; the catalog's stripe_account says which one counts here"
        }
        Reason::BeforeBooks => "paid before the catalog's begins_at, so it was credited elsewhere",
        Reason::EventType => "the rules read nothing from events of this type",
        Reason::Mode => "a subscription's credits come with its paid invoices, not with its session",
        Reason::Unpaid => "not paid yet; another event follows if it is",
        Reason::NoPaymentRequired | Reason::NothingPaid => {
            "nothing was paid, and the catalog grants nothing for that"
        }
        Reason::NoSubscription => "an invoice without a subscription that sells no pack",
        Reason::Stale => "older than what is known of the subscription",
        Reason::NothingBilled => "it bills nothing except credits for unused time",
        Reason::NothingNamed => {
            "its metadata name no pack and no price; if it sold one, its session or invoice says so"
        }
        Reason::NotCredits => "everything in it is listed in the catalog's not_credits",
        Reason::UnknownPayment => "what it reverses is not known; it counts once that arrives",
        Reason::NoCatalog => "load a catalog: stripe-credits catalog push FILE. It is applied then",
        Reason::UnknownPrice => {
            "add the price to the catalog, and stripe-credits catalog push it. It is applied then"
        }
        Reason::UnknownUser => {
            "neither the metadata nor the customer name a user. Find out whose it is, and select * from \
             billing.attribute('cus_…', user). It is applied then"
        }
        Reason::IdentityConflict => {
            "its client_reference_id names another user than the customer belongs to. Decide, and select * from \
             billing.attribute('cs_…', user)"
        }
        Reason::UnknownCharge => {
            "how much was charged is not known yet; the payment's event or a sweep says so"
        }
        Reason::Unfetched => {
            "data from Stripe is needed: set STRIPE_SECRET_KEY, then stripe-credits replay its event"
        }
        Reason::Shape => "Stripe's object lacks what the rules read; look at details, and report it",
        Reason::Malformed => "not an event of Stripe's, or its fields have other types than Stripe's",
        Reason::Conflict => "the same payment was applied for another user or with other content",
        Reason::OutOfRange => "worth more credits than an account can hold",
        _ => return None,
    })
}
