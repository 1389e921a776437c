//! A checkout session's facts: what was bought, by which user, and whether it is paid.

use serde_json::value::RawValue;

use crate::amount::{MinorUnits, Quantity};
use crate::calendar::{self, Time};
use crate::catalog::Item;
use crate::invoice::{self, Invoice, LineQuantity};
use crate::name::{Name, NameKind};
use crate::price;
use crate::stripe::fields::Fields;
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
    /// The session's own invoice, or the first of its subscription.
    pub invoice_id: Option<String>,
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
    /// Whether the app's server states in the metadata that the buyer cannot change the lines.
    pub fixed_lines: bool,
    /// `None` unless the object carries all of them.
    pub lines: Option<Vec<LineItem>>,
    /// In mode `subscription`: the subscription that it started, if the object carries it.
    pub subscription: Option<Box<Subscription>>,
    /// In mode `subscription`: the first invoice, if the object carries it.
    pub invoice: Option<Box<Invoice>>,
    /// The metadata's `credits`: recorded if it differs from the worth, and never granted.
    pub stated_credits: Option<String>,
}

impl Session {
    /// The names of its payment. One that starts a subscription is no payment: its invoices are.
    #[must_use]
    pub fn names(&self) -> Vec<Name<'_>> {
        if self.mode != Mode::Payment {
            return Vec::new();
        }
        let payment_intent =
            self.payment_intent_id.iter().map(|id| Name { kind: NameKind::PaymentIntent, id });
        let invoice = self.invoice_id.iter().map(|id| Name { kind: NameKind::Invoice, id });
        let session = Name { kind: NameKind::CheckoutSession, id: &self.id };
        [session].into_iter().chain(payment_intent).chain(invoice).collect()
    }
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
    /// `None` if it is no whole number, or one out of range.
    pub quantity: Option<Quantity>,
    /// What the metadata call it, if it is the only line: for a price that was made for this session alone.
    pub named_as: Option<Item>,
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
    let invoice_id = match session.invoice {
        Some(reference) if reference.get() != "null" => {
            Some(parse::<stripe::Expandable>(reference)?.into_id())
        }
        _ => None,
    };
    check_id("data.object.invoice", invoice_id.as_deref())?;
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
        invoice_id,
        metadata_user,
        client_reference: session.client_reference_id.into_iter().collect(),
        amount_total: session.amount_total.map(MinorUnits),
        currency: session.currency,
        // With an invalid quantity they name no line item: Stripe's are fetched instead.
        named: named_line_item(metadata).filter(|line| line.quantity.is_some()),
        fixed_lines: metadata("fixed_lines") == Some("true"),
        lines: session.line_items.and_then(|list| serde_json::from_str(list.get()).ok()).and_then(complete),
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

/// What metadata say was bought. A quantity that nobody can read is a fact too.
pub(crate) fn named_line_item<'a>(metadata: impl Fn(&str) -> Option<&'a str>) -> Option<LineItem> {
    let named = |key| metadata(key).filter(|text| !text.trim().is_empty());
    let item = match (named("price_id"), named("pack")) {
        (Some(price), _) => Item::Price(price.to_owned()),
        (None, Some(pack)) => Item::Pack(pack.to_owned()),
        (None, None) => return None,
    };
    let quantity = metadata("quantity").map_or(Some(Quantity::ONE), Quantity::parse);
    Some(LineItem { item, quantity, named_as: None })
}

/// The line items of a list that bill something, if this page is all of it. A quantity that nobody can read is a fact too:
/// it matters only if the line is worth credits.
pub(crate) fn complete(list: stripe::List<&RawValue>) -> Option<Vec<LineItem>> {
    (!list.has_more).then(|| list.data.into_iter().filter_map(line_item).collect())
}

fn line_item(object: &RawValue) -> Option<LineItem> {
    let fields = Fields::of(object);
    let quantity = match invoice::quantity(&fields) {
        LineQuantity::Whole(0) => return None,
        LineQuantity::Whole(quantity) => Quantity::new(quantity),
        LineQuantity::Missing => Some(Quantity::ONE),
        LineQuantity::NotWhole => None,
    };
    let item = price::read(&fields).map_or(Item::Unpriced, |price| Item::line(price.id, price.product_id));
    Some(LineItem { item, quantity, named_as: None })
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

/// The path of sessions, and the url of their lists.
pub(crate) const SESSIONS: &str = "/v1/checkout/sessions";

/// The path that lists the sessions of a payment intent.
#[must_use]
pub fn of_payment_intent_path(payment_intent_id: &str) -> String {
    format!("{SESSIONS}?payment_intent={payment_intent_id}&limit=100")
}

/// The session whose line items the list of this url contains.
pub(crate) fn of_line_items(url: &str) -> Option<&str> {
    url.strip_prefix("/v1/checkout/sessions/")?.strip_suffix("/line_items")
}
