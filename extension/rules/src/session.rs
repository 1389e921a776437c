//! A checkout session's facts: what was bought, by whom, and whether it is paid.

use serde_json::value::RawValue;
use uuid::Uuid;

use crate::amount::{MinorUnits, Quantity};
use crate::calendar::{self, Time};
use crate::catalog::Item;
use crate::invoice::{self, Invoice};
use crate::stripe::{self, check_id, metadata_user, parse};
use crate::subscription::{self, Subscription};

/// A checkout session's facts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Session {
    /// `cs_…`: the key of the payment.
    pub id: String,
    /// What kind of checkout it is.
    pub mode: Mode,
    /// Whether it is paid; `None` where Stripe's object does not say.
    pub payment: Option<PaymentStatus>,
    /// When it was made; prices count as of then.
    pub created: Time,
    /// Who pays.
    pub customer_id: Option<String>,
    /// What pays.
    pub payment_intent_id: Option<String>,
    /// The user that the app's server wrote into the metadata.
    pub metadata_user: Option<Uuid>,
    /// The user that the buyer's link carried.
    pub client_reference: Option<Uuid>,
    /// What was charged, where the session says so.
    pub amount_total: Option<MinorUnits>,
    /// The currency of `amount_total`.
    pub currency: Option<String>,
    /// The line that the metadata names.
    pub named: Option<LineItem>,
    /// All line items, where the object carries all of them.
    pub lines: Option<Vec<LineItem>>,
    /// In mode `subscription`: what it began, where the object carries it.
    pub subscription: Option<Box<Subscription>>,
    /// In mode `subscription`: what was paid, where the object carries it.
    pub invoice: Option<Box<Invoice>>,
    /// The metadata's `credits`: never believed, compared and recorded.
    pub stated_credits: Option<String>,
}

/// Stripe's session modes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// One payment: a pack.
    Payment,
    /// A subscription, whose invoices grant.
    Subscription,
    /// `setup`, or a mode made since this was written.
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
    /// The money is there.
    Paid,
    /// A 100 % discount, or a price of 0.
    NoPaymentRequired,
    /// Not yet: a delayed payment method, or an open session.
    Unpaid,
    /// A delayed payment that failed.
    Failed,
    /// The session ran out.
    Expired,
}

/// How many of what was bought.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LineItem {
    /// What names the price.
    pub item: Item,
    /// How many.
    pub quantity: Quantity,
}

/// Reads a session as an event of `event_type` carried it, made at `event_created`.
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
        Some(object) => Some(Box::new(invoice::read(&object, event_created)?)),
        None => None,
    };
    let metadata = session.metadata.unwrap_or_default();
    let metadata_user = metadata_user(&metadata);
    let metadata = |key: &str| metadata.get(key).and_then(stripe::MetadataValue::as_text);
    Ok(Session {
        id: session.id,
        mode: Mode::of(&session.mode),
        payment: session.payment_status.as_deref().map(|status| payment_status(status, event_type)),
        created,
        customer_id: session.customer.map(stripe::Expandable::into_id),
        payment_intent_id,
        metadata_user,
        client_reference: session.client_reference_id.and_then(|text| Uuid::try_parse(&text).ok()),
        amount_total: session.amount_total.map(MinorUnits),
        currency: session.currency,
        named: named_line(metadata("price_id"), metadata("pack"), metadata("quantity")),
        lines: session.line_items.and_then(complete),
        subscription,
        invoice,
        stated_credits: metadata("credits").map(str::to_owned),
    })
}

/// The session's own state decides; the event's name only says why an unpaid session is unpaid.
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

/// A quantity that is no quantity names no line: Stripe is asked instead of guessing.
fn named_line(price_id: Option<&str>, pack: Option<&str>, quantity: Option<&str>) -> Option<LineItem> {
    let named = |text: &&str| !text.trim().is_empty();
    let item = match (price_id.filter(named), pack.filter(named)) {
        (Some(price), _) => Item::Price(price.to_owned()),
        (None, Some(pack)) => Item::Pack(pack.to_owned()),
        (None, None) => return None,
    };
    let quantity = quantity.map_or(Some(Quantity::ONE), Quantity::parse)?;
    Some(LineItem { item, quantity })
}

/// The lines of a page, where it is the only one and each line counts something.
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

/// The path whose answer names all line items of a session.
#[must_use]
pub fn line_items_path(session_id: &str) -> String {
    format!("/v1/checkout/sessions/{session_id}/line_items?limit=100")
}

/// The path of a session.
#[must_use]
pub fn path(session_id: &str) -> String {
    format!("/v1/checkout/sessions/{session_id}")
}

/// The session whose line items a list's url names.
pub(crate) fn of_line_items(url: &str) -> Option<&str> {
    url.strip_prefix("/v1/checkout/sessions/")?.strip_suffix("/line_items")
}
