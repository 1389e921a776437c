//! A checkout session's facts: what was bought, by which user, and whether it is paid.

use serde_json::value::RawValue;

use crate::amount::{MinorUnits, Quantity};
use crate::calendar::{self, Time};
use crate::catalog::Item;
use crate::invoice::{self, Invoice};
use crate::stripe::{self, check_id, metadata_user, parse};
use crate::subscription::{self, Subscription};
use crate::user::UserNames;

/// A checkout session's facts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Session {
    /// `cs_…`: the key of the payment.
    pub id: String,
    /// What it sells.
    pub mode: Mode,
    /// `None` if Stripe's object lacks it.
    pub payment: Option<PaymentStatus>,
    /// When it was created; its prices are those in force at that time.
    pub created: Time,
    /// None if the buyer is a guest.
    pub customer_id: Option<String>,
    /// None if nothing had to be paid.
    pub payment_intent_id: Option<String>,
    /// The user that the app's server wrote into the metadata.
    pub metadata_user: UserNames,
    /// The user in `client_reference_id`, which a buyer can write.
    pub client_reference: UserNames,
    /// The charged amount, tax and discounts included.
    pub amount_total: Option<MinorUnits>,
    /// The currency of `amount_total`.
    pub currency: Option<String>,
    /// The line item that the metadata names.
    pub named: Option<LineItem>,
    /// `None` unless the object carries all of them.
    pub lines: Option<Vec<LineItem>>,
    /// In mode `subscription`: the subscription that it started, if the object carries it.
    pub subscription: Option<Box<Subscription>>,
    /// In mode `subscription`: the first invoice, if the object carries it.
    pub invoice: Option<Box<Invoice>>,
    /// The metadata's `credits`: recorded if it differs from the worth, and never granted.
    pub stated_credits: Option<String>,
}

/// Stripe's session modes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// One payment: a pack.
    Payment,
    /// A subscription, whose invoices grant.
    Subscription,
    /// `setup`, or a mode that this code does not know.
    Other,
}

impl Mode {
    /// The mode that Stripe writes as this text.
    #[must_use]
    pub fn of(text: &str) -> Mode {
        match text {
            "payment" => Mode::Payment,
            "subscription" => Mode::Subscription,
            _ => Mode::Other,
        }
    }

    /// Its text.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Mode::Payment => "payment",
            Mode::Subscription => "subscription",
            Mode::Other => "other",
        }
    }
}

/// Stripe's payment statuses of a session, and why an unpaid one is unpaid.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PaymentStatus {
    /// Paid.
    Paid,
    /// A 100 % discount, or a price of 0.
    NoPaymentRequired,
    /// Not paid yet: a delayed payment method, or an open session.
    Unpaid,
    /// A delayed payment that failed.
    Failed,
    /// The session expired before it was paid.
    Expired,
}

/// What was bought, and how many.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LineItem {
    /// The key of its price.
    pub item: Item,
    /// At least one.
    pub quantity: Quantity,
}

/// Reads a session as an event of `event_type` carried it, created at `event_created`.
pub(crate) fn read(object: &RawValue, event_type: &str, event_created: Time) -> Result<Session, String> {
    let session: stripe::CheckoutSessionObject = parse(object)?;
    let created = match session.created {
        Some(seconds) => calendar::from_unix(seconds).ok_or("data.object: created is not a time")?,
        None => event_created,
    };
    let payment_intent_id = session.payment_intent.map(stripe::Expandable::into_id);
    check_id("data.object.payment_intent", payment_intent_id.as_deref())?;
    let expanded = |object: Option<&'_ RawValue>| {
        object.filter(|object| object.get().starts_with('{')).map(ToOwned::to_owned)
    };
    let subscription = match expanded(session.subscription) {
        Some(object) => Some(Box::new(subscription::read(&object, event_created)?)),
        None => None,
    };
    let invoice = match expanded(session.invoice) {
        Some(object) => Some(Box::new(invoice::read(&object)?)),
        None => None,
    };
    let metadata = session.metadata.unwrap_or_default();
    let metadata_user = metadata_user(&metadata);
    let metadata = |key: &str| metadata.get(key);
    Ok(Session {
        id: session.id,
        mode: Mode::of(&session.mode),
        payment: session.payment_status.as_deref().map(|status| payment_status(status, event_type)),
        created,
        customer_id: stripe::customer_id(session.customer, session.customer_account),
        payment_intent_id,
        metadata_user,
        client_reference: session.client_reference_id.into_iter().collect(),
        amount_total: session.amount_total.map(MinorUnits),
        currency: session.currency,
        named: named_line_item(metadata("price_id"), metadata("pack"), metadata("quantity")),
        lines: session.line_items.and_then(complete),
        subscription,
        invoice,
        stated_credits: metadata("credits").map(str::to_owned),
    })
}

/// The session's own status decides; the event's type only explains why an unpaid session is unpaid.
fn payment_status(status: &str, event_type: &str) -> PaymentStatus {
    match (status, event_type) {
        ("paid", _) => PaymentStatus::Paid,
        ("no_payment_required", "checkout.session.expired") => PaymentStatus::Expired,
        ("no_payment_required", _) => PaymentStatus::NoPaymentRequired,
        (_, "checkout.session.async_payment_failed") => PaymentStatus::Failed,
        (_, "checkout.session.expired") => PaymentStatus::Expired,
        _ => PaymentStatus::Unpaid,
    }
}

/// Metadata with an invalid quantity names no line item: they are fetched from Stripe instead.
fn named_line_item(price_id: Option<&str>, pack: Option<&str>, quantity: Option<&str>) -> Option<LineItem> {
    let named = |text: &&str| !text.trim().is_empty();
    let item = match (price_id.filter(named), pack.filter(named)) {
        (Some(price), _) => Item::Price(price.to_owned()),
        (None, Some(pack)) => Item::Pack(pack.to_owned()),
        (None, None) => return None,
    };
    let quantity = quantity.map_or(Some(Quantity::ONE), Quantity::parse)?;
    Some(LineItem { item, quantity })
}

/// The line items of a list, if this page is all of it and each quantity is valid.
pub(crate) fn complete(list: stripe::List<stripe::LineItemObject>) -> Option<Vec<LineItem>> {
    if list.has_more {
        return None;
    }
    list.data
        .into_iter()
        .filter(|line| line.quantity != Some(0))
        .map(|line| {
            Some(LineItem {
                item: line.price.map_or(Item::Unpriced, |price| Item::Price(price.into_id())),
                quantity: Quantity::new(line.quantity.unwrap_or(1))?,
            })
        })
        .collect()
}

/// The path that lists a session's line items.
#[must_use]
pub fn line_items_path(session_id: &str) -> String {
    format!("/v1/checkout/sessions/{session_id}/line_items?limit=100")
}

/// The path of a session.
#[must_use]
pub fn path(session_id: &str) -> String {
    format!("/v1/checkout/sessions/{session_id}")
}

/// The session whose line items the list of this url contains.
pub(crate) fn of_line_items(url: &str) -> Option<&str> {
    url.strip_prefix("/v1/checkout/sessions/")?.strip_suffix("/line_items")
}
