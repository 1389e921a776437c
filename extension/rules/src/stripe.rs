//! The fields of Stripe's objects that the rules read, and nothing else, in both shapes of its API. Only this crate sees
//! them; [`MAX_ID_BYTES`] is everyone's.
//!
//! Fields that Stripe may leave out or set to null are options; a field of another type than Stripe's makes the whole
//! object malformed, which is an outcome, not an error.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::value::RawValue;
use uuid::Uuid;

/// The longest id, key or name that is kept, in bytes. Stripe's ids are at most 255 characters, and ids are keys of the
/// tables.
pub const MAX_ID_BYTES: usize = 255;

/// An event's envelope. `data.object` is read once its type is known.
#[derive(Debug, Deserialize)]
pub(crate) struct EventEnvelope<'a> {
    /// `evt_…`.
    pub id: String,
    /// Such as `checkout.session.completed`.
    #[serde(rename = "type")]
    pub event_type: String,
    /// Unix seconds; whole seconds only, so it orders nothing by itself.
    pub created: i64,
    /// The API version that shaped `data.object`.
    pub api_version: Option<String>,
    /// Whether real money moved.
    pub livemode: bool,
    /// The connected account the event is of.
    pub account: Option<String>,
    /// What happened to which object.
    #[serde(borrow)]
    pub data: EventData<'a>,
}

/// The `data` of an event.
#[derive(Debug, Deserialize)]
pub(crate) struct EventData<'a> {
    /// The object as it was when the event was made.
    #[serde(borrow)]
    pub object: &'a RawValue,
}

/// What any Stripe object says of itself.
#[derive(Debug, Deserialize)]
pub(crate) struct AnyObject {
    /// Its id; a few objects (an upcoming invoice) have none.
    pub id: Option<String>,
    /// Its type, such as `checkout.session` or `list`.
    pub object: Option<String>,
    /// Whose it is.
    pub customer: Option<Expandable>,
    /// Of a list: the path it was read from.
    pub url: Option<String>,
}

/// <https://docs.stripe.com/api/checkout/sessions/object>
#[derive(Debug, Deserialize)]
pub(crate) struct CheckoutSessionObject<'a> {
    /// `cs_…`.
    pub id: String,
    /// `payment`, `subscription` or `setup`.
    pub mode: String,
    /// `paid`, `unpaid` or `no_payment_required`.
    pub payment_status: Option<String>,
    /// Unix seconds; sessions of 2020 and older have none.
    pub created: Option<i64>,
    /// Whether real money moves.
    #[expect(dead_code, reason = "an object with another type here is malformed")]
    pub livemode: bool,
    /// Who pays; none for a guest.
    pub customer: Option<Expandable>,
    /// What it began, in mode `subscription`: an id, or the object where it was expanded.
    #[serde(borrow)]
    pub subscription: Option<&'a RawValue>,
    /// What was paid by it, in mode `subscription`, or a pack's own invoice: an id, or the object.
    #[serde(borrow)]
    pub invoice: Option<&'a RawValue>,
    /// What pays; none where nothing had to be paid.
    pub payment_intent: Option<Expandable>,
    /// What the buyer's link carried.
    pub client_reference_id: Option<String>,
    /// Minor units, tax and discounts included. Says what was paid, never what it is worth.
    pub amount_total: Option<i64>,
    /// Lower-case ISO code.
    pub currency: Option<String>,
    /// What the app's server wrote when it made the session.
    #[serde(default)]
    pub metadata: Option<Metadata>,
    /// Only where they were expanded.
    pub line_items: Option<List<LineItemObject>>,
}

/// Metadata as Stripe keeps it, strings to strings; other values are read past.
pub(crate) type Metadata = BTreeMap<String, MetadataValue>;

/// One value of a metadata map.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub(crate) enum MetadataValue {
    /// What Stripe stores.
    Text(String),
    /// What only a hand-made object has.
    Other(IgnoredAny),
}

impl MetadataValue {
    /// The text, where it is one.
    #[must_use]
    pub(crate) fn as_text(&self) -> Option<&str> {
        match self {
            MetadataValue::Text(text) => Some(text),
            MetadataValue::Other(_) => None,
        }
    }
}

/// A reference that Stripe writes as an id, or as the object where it was expanded.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub(crate) enum Expandable {
    /// `"cus_…"`.
    Id(String),
    /// `{"id": "cus_…", …}`.
    Object {
        /// The id.
        id: String,
    },
}

impl Expandable {
    /// The id, either way.
    #[must_use]
    pub(crate) fn into_id(self) -> String {
        match self {
            Expandable::Id(id) | Expandable::Object { id } => id,
        }
    }
}

/// A page of a list.
#[derive(Debug, Deserialize)]
pub(crate) struct List<T> {
    /// The page.
    pub data: Vec<T>,
    /// Whether another page follows.
    #[serde(default)]
    pub has_more: bool,
}

/// <https://docs.stripe.com/api/checkout/sessions/line_items>
#[derive(Debug, Deserialize)]
pub(crate) struct LineItemObject {
    /// None for a line that was sold by something older than prices.
    pub price: Option<Expandable>,
    /// Stripe leaves it out for metered prices.
    pub quantity: Option<i64>,
}

/// <https://docs.stripe.com/api/charges/object>, as far as refunds go.
#[derive(Debug, Deserialize)]
pub(crate) struct ChargeObject {
    /// `ch_…`.
    pub id: String,
    /// What was charged, in minor units.
    pub amount: i64,
    /// How much of it was refunded by then; failed refunds may be in it.
    #[serde(default)]
    pub amount_refunded: i64,
    /// Lower-case ISO code.
    pub currency: Option<String>,
    /// What it paid for.
    pub payment_intent: Option<Expandable>,
    /// Only in older versions of the API.
    pub refunds: Option<List<RefundObject>>,
}

/// <https://docs.stripe.com/api/refunds/object>
#[derive(Debug, Deserialize)]
pub(crate) struct RefundObject {
    /// `re_…`.
    pub id: String,
    /// In minor units.
    pub amount: i64,
    /// Lower-case ISO code.
    pub currency: Option<String>,
    /// `pending`, `requires_action`, `succeeded`, `failed` or `canceled`.
    pub status: Option<String>,
    /// What it refunds.
    pub charge: Option<Expandable>,
    /// What had paid.
    pub payment_intent: Option<Expandable>,
}

/// <https://docs.stripe.com/api/disputes/object>
#[derive(Debug, Deserialize)]
pub(crate) struct DisputeObject {
    /// `dp_…`.
    pub id: String,
    /// In minor units.
    pub amount: i64,
    /// Lower-case ISO code.
    pub currency: Option<String>,
    /// Such as `warning_needs_response`, `needs_response`, `under_review`, `won` or `lost`.
    pub status: String,
    /// What is disputed.
    pub charge: Option<Expandable>,
    /// What had paid.
    pub payment_intent: Option<Expandable>,
}

/// <https://docs.stripe.com/api/subscriptions/object>
#[derive(Debug, Deserialize)]
pub(crate) struct SubscriptionObject {
    /// `sub_…`.
    pub id: String,
    /// Such as `active` or `canceled`.
    pub status: String,
    /// Who pays.
    pub customer: Option<Expandable>,
    /// What is subscribed to.
    pub items: Option<List<SubscriptionItemObject>>,
    /// Unix seconds; here until 2025-03-31, on the items since.
    pub current_period_start: Option<i64>,
    /// Unix seconds; here until 2025-03-31, on the items since.
    pub current_period_end: Option<i64>,
    /// Unix seconds.
    pub trial_end: Option<i64>,
    /// Whether it ends with the period.
    pub cancel_at_period_end: Option<bool>,
    /// Unix seconds: when the end was asked for.
    pub canceled_at: Option<i64>,
    /// Unix seconds: when it ended.
    pub ended_at: Option<i64>,
    /// What the app's server wrote.
    #[serde(default)]
    pub metadata: Option<Metadata>,
}

/// <https://docs.stripe.com/api/subscription_items/object>
#[derive(Debug, Deserialize)]
pub(crate) struct SubscriptionItemObject {
    /// What it costs.
    pub price: Option<Expandable>,
    /// What it cost before there were prices.
    pub plan: Option<Expandable>,
    /// None for a metered price.
    pub quantity: Option<i64>,
    /// Unix seconds; since 2025-03-31.
    pub current_period_start: Option<i64>,
    /// Unix seconds; since 2025-03-31.
    pub current_period_end: Option<i64>,
}

/// <https://docs.stripe.com/api/invoices/object>
#[derive(Debug, Deserialize)]
pub(crate) struct InvoiceObject {
    /// `in_…`.
    pub id: String,
    /// `draft`, `open`, `paid`, `uncollectible` or `void`; in the oldest versions of the API there is only `paid`.
    pub status: Option<String>,
    /// Until 2025-03-31.
    pub paid: Option<bool>,
    /// Unix seconds.
    pub created: Option<i64>,
    /// Such as `subscription_cycle`.
    pub billing_reason: Option<String>,
    /// Who pays.
    pub customer: Option<Expandable>,
    /// What it bills; here until 2025-03-31, under `parent` since.
    pub subscription: Option<Expandable>,
    /// What it bills, since 2025-03-31.
    pub parent: Option<InvoiceParent>,
    /// The subscription's metadata when the invoice was made; here until 2025-03-31.
    pub subscription_details: Option<SubscriptionDetails>,
    /// Minor units, tax and discounts included.
    pub total: Option<i64>,
    /// Lower-case ISO code.
    pub currency: Option<String>,
    /// What paid it, until 2025-03-31.
    pub payment_intent: Option<Expandable>,
    /// What paid it, since 2025-03-31, and only where it was expanded.
    pub payments: Option<List<InvoicePaymentObject>>,
    /// What it bills, line by line.
    pub lines: Option<List<InvoiceLineObject>>,
    /// What the app's server wrote.
    #[serde(default)]
    pub metadata: Option<Metadata>,
    /// When it was paid.
    pub status_transitions: Option<StatusTransitions>,
}

/// What an invoice bills.
#[derive(Debug, Deserialize)]
pub(crate) struct InvoiceParent {
    /// `subscription_details` or `quote_details`.
    #[serde(rename = "type")]
    pub parent_type: Option<String>,
    /// Of a subscription's invoice.
    pub subscription_details: Option<SubscriptionDetails>,
}

/// The subscription of an invoice.
#[derive(Debug, Deserialize)]
pub(crate) struct SubscriptionDetails {
    /// `sub_…`.
    pub subscription: Option<Expandable>,
    /// What the app's server wrote to the subscription.
    #[serde(default)]
    pub metadata: Option<Metadata>,
}

/// When an invoice changed its status.
#[derive(Debug, Deserialize)]
pub(crate) struct StatusTransitions {
    /// Unix seconds.
    pub paid_at: Option<i64>,
}

/// <https://docs.stripe.com/api/invoice-line-item/object>
#[derive(Debug, Deserialize)]
pub(crate) struct InvoiceLineObject {
    /// Minor units, before discounts and tax.
    pub amount: Option<i64>,
    /// What is billed, until 2025-03-31.
    pub price: Option<Expandable>,
    /// What is billed, before there were prices.
    pub plan: Option<Expandable>,
    /// What is billed, since 2025-03-31.
    pub pricing: Option<LinePricing>,
    /// None for a metered price.
    pub quantity: Option<i64>,
    /// What is billed for.
    pub period: Option<Period>,
    /// What discounts take off.
    #[serde(default)]
    pub discount_amounts: Option<Vec<DiscountAmount>>,
    /// Whether it bills a part of a period, until 2025-03-31.
    #[expect(dead_code, reason = "an object with another type here is malformed")]
    pub proration: Option<bool>,
    /// Whether it bills a part of a period, since 2025-03-31.
    #[expect(dead_code, reason = "an object with another type here is malformed")]
    pub parent: Option<LineParent>,
}

/// The price of a line.
#[derive(Debug, Deserialize)]
pub(crate) struct LinePricing {
    /// Of a line with a price.
    pub price_details: Option<PriceDetails>,
}

/// The price of a line.
#[derive(Debug, Deserialize)]
pub(crate) struct PriceDetails {
    /// `price_…`.
    pub price: Option<Expandable>,
}

/// Where a line comes from: one of the two.
#[derive(Debug, Deserialize)]
pub(crate) struct LineParent {
    /// A subscription's item.
    #[expect(dead_code, reason = "an object with another type here is malformed")]
    pub subscription_item_details: Option<LineOrigin>,
    /// An invoice item.
    #[expect(dead_code, reason = "an object with another type here is malformed")]
    pub invoice_item_details: Option<LineOrigin>,
}

/// Where a line comes from.
#[derive(Debug, Deserialize)]
pub(crate) struct LineOrigin {
    /// Whether it bills a part of a period.
    #[expect(dead_code, reason = "an object with another type here is malformed")]
    pub proration: Option<bool>,
}

/// What one discount takes off a line.
#[derive(Debug, Deserialize)]
pub(crate) struct DiscountAmount {
    /// Minor units.
    pub amount: i64,
}

/// A span of time, in Unix seconds.
#[derive(Debug, Deserialize)]
pub(crate) struct Period {
    /// From.
    pub start: i64,
    /// To.
    pub end: i64,
}

/// <https://docs.stripe.com/api/invoice-payment/object>
#[derive(Debug, Deserialize)]
pub(crate) struct InvoicePaymentObject {
    /// What it pays.
    pub invoice: Option<Expandable>,
    /// What pays.
    pub payment: Option<InvoicePaymentBy>,
}

/// What pays an invoice.
#[derive(Debug, Deserialize)]
pub(crate) struct InvoicePaymentBy {
    /// `pi_…`; none where something else paid.
    pub payment_intent: Option<Expandable>,
}

pub(crate) fn check_id(field: &str, id: Option<&str>) -> Result<(), String> {
    match id {
        Some(id) if id.trim().is_empty() => Err(format!("{field} is blank")),
        Some(id) if id.len() > MAX_ID_BYTES => Err(format!("{field} is longer than {MAX_ID_BYTES} bytes")),
        _ => Ok(()),
    }
}

/// Reads the object of an event.
pub(crate) fn parse<'a, T: Deserialize<'a>>(object: &'a RawValue) -> Result<T, String> {
    serde_json::from_str(object.get()).map_err(|fault| format!("data.object: {fault}"))
}

/// The user that the app's server wrote into an object's metadata, by one of the keys that apps use.
pub(crate) fn metadata_user(metadata: &Metadata) -> Option<Uuid> {
    let metadata = |key| metadata.get(key).and_then(MetadataValue::as_text);
    ["user_id", "userId", "supabase_user_id"]
        .into_iter()
        .find_map(|key| metadata(key).and_then(|text| Uuid::try_parse(text).ok()))
}
