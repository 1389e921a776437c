//! The fields of Stripe's objects that the rules read, and nothing else, in both shapes of its API. Only this crate
//! sees them; [`MAX_ID_BYTES`] is everyone's.
//!
//! Fields that Stripe may leave out or set to null are options. A field of another type than Stripe's makes the whole
//! object malformed, which is an outcome, not an error; what an object may lack without being unreadable is read by
//! [`fields`] instead: metadata, an invoice's lines and amounts, a subscription's items.

pub(crate) mod fields;

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use crate::user::{METADATA_KEYS, UserNames};

use self::fields::Fields;

/// The longest id, key or name that is kept, in bytes. Stripe's ids are at most 255 characters, and ids are keys of
/// the tables.
pub const MAX_ID_BYTES: usize = 255;

/// An event's envelope. `data.object` is read once its type is known.
#[derive(Debug, Deserialize)]
pub(crate) struct EventEnvelope<'a> {
    /// `evt_…`.
    pub id: String,
    /// Such as `checkout.session.completed`.
    #[serde(rename = "type")]
    pub event_type: String,
    /// Unix seconds. Several events have the same second, so it does not order them.
    pub created: i64,
    /// The API version that shaped `data.object`.
    pub api_version: Option<String>,
    pub livemode: bool,
    /// The connected account that the event belongs to.
    pub account: Option<String>,
    #[serde(borrow)]
    pub data: EventData<'a>,
}

/// The `data` of an event.
#[derive(Debug, Deserialize)]
pub(crate) struct EventData<'a> {
    /// The object as it was when the event was created.
    #[serde(borrow)]
    pub object: &'a RawValue,
}

/// The fields that Stripe's objects share.
#[derive(Debug, Deserialize)]
pub(crate) struct AnyObject {
    /// A few objects, such as an upcoming invoice, have none.
    pub id: Option<String>,
    /// Such as `checkout.session` or `list`.
    pub object: Option<String>,
    pub customer: Option<Expandable>,
    /// In Accounts v2 the customer is an account: `acct_…`.
    pub customer_account: Option<Expandable>,
    /// Only lists have one: the path that they were read from.
    pub url: Option<String>,
}

/// <https://docs.stripe.com/api/test_clocks/object>
#[derive(Debug, Deserialize)]
pub(crate) struct TestClockObject {
    /// `clock_…`.
    pub id: String,
    /// Unix seconds.
    pub frozen_time: i64,
}

/// <https://docs.stripe.com/api/checkout/sessions/object>, without what [`fields`] reads.
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
    #[expect(dead_code, reason = "an object with another type here is malformed")]
    pub livemode: bool,
    /// None if the buyer is a guest.
    pub customer: Option<Expandable>,
    /// In Accounts v2 the customer is an account: `acct_…`.
    pub customer_account: Option<Expandable>,
    /// In mode `subscription`: an id, or the object if it was expanded.
    #[serde(borrow)]
    pub subscription: Option<&'a RawValue>,
    /// Of a subscription, or of a pack that was sold with an invoice: an id, or the object if it was expanded.
    #[serde(borrow)]
    pub invoice: Option<&'a RawValue>,
    /// None if nothing had to be paid.
    pub payment_intent: Option<Expandable>,
    /// Anything that the buyer's link carried.
    pub client_reference_id: Option<String>,
    /// Minor units, tax and discounts included: what was paid, which never decides what it is worth.
    pub amount_total: Option<i64>,
    /// Lower-case ISO code.
    pub currency: Option<String>,
    /// What the app's server wrote when it created the session.
    #[serde(default)]
    pub metadata: Option<Metadata>,
    /// A list, if it was expanded.
    #[serde(borrow)]
    pub line_items: Option<&'a RawValue>,
}

/// The texts of an object's metadata. Stripe stores nothing else; metadata of another kind, in objects that Stripe did
/// not write, is as good as none.
#[derive(Debug, Default)]
pub(crate) struct Metadata(BTreeMap<String, String>);

impl Metadata {
    /// The text under a key.
    #[must_use]
    pub(crate) fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key).map(String::as_str)
    }
}

impl<'de> Deserialize<'de> for Metadata {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut metadata = BTreeMap::new();
        // Of several with one key the last counts, also if it is no text.
        for (key, text) in Fields::of(<&RawValue>::deserialize(deserializer)?).texts() {
            match text {
                Some(text) => metadata.insert(key.to_owned(), text),
                None => metadata.remove(key),
            };
        }
        Ok(Metadata(metadata))
    }
}

/// A reference that Stripe writes as an id, or as the object if it was expanded.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub(crate) enum Expandable {
    /// `"cus_…"`.
    Id(String),
    /// `{"id": "cus_…", …}`.
    Object { id: String },
}

impl Expandable {
    /// The id of either form.
    #[must_use]
    pub(crate) fn into_id(self) -> String {
        match self {
            Expandable::Id(id) | Expandable::Object { id } => id,
        }
    }
}

/// <https://docs.stripe.com/api/customers/object>
#[derive(Debug, Deserialize)]
pub(crate) struct CustomerObject {
    /// `cus_…`.
    pub id: String,
    /// The test clock that it lives by, if any.
    pub test_clock: Option<Expandable>,
    /// What the app's server wrote about the customer.
    #[serde(default)]
    pub metadata: Option<Metadata>,
}

/// <https://docs.stripe.com/api/v2/core/accounts/object>: in Accounts v2 a customer is one.
#[derive(Debug, Deserialize)]
pub(crate) struct AccountObject {
    /// `acct_…`.
    pub id: String,
    /// What the app's server wrote about it.
    #[serde(default)]
    pub metadata: Option<Metadata>,
}

/// The path of a customer that is an account: no event says what its metadata are.
#[must_use]
pub(crate) fn account_path(customer_id: &str) -> Option<String> {
    customer_id.starts_with("acct_").then(|| format!("/v2/core/accounts/{customer_id}"))
}

/// The customer of an object: a customer's id, or in Accounts v2 an account's.
pub(crate) fn customer_id(customer: Option<Expandable>, account: Option<Expandable>) -> Option<String> {
    customer.or(account).map(Expandable::into_id)
}

/// A page of a list.
#[derive(Debug, Deserialize)]
pub(crate) struct List<T> {
    pub data: Vec<T>,
    #[serde(default)]
    pub has_more: bool,
}

/// <https://docs.stripe.com/api/charges/object>, as far as refunds go.
#[derive(Debug, Deserialize)]
pub(crate) struct ChargeObject {
    /// `ch_…`.
    pub id: String,
    /// Minor units.
    pub amount: i64,
    /// Minor units refunded so far. Refunds that failed later may be included.
    #[serde(default)]
    pub amount_refunded: i64,
    /// Lower-case ISO code.
    pub currency: Option<String>,
    pub payment_intent: Option<Expandable>,
    /// Until 2025-03-31.
    pub invoice: Option<Expandable>,
    /// Only in older versions of the API.
    pub refunds: Option<List<RefundObject>>,
}

/// <https://docs.stripe.com/api/payment_intents/object>
#[derive(Debug, Deserialize)]
pub(crate) struct PaymentIntentObject {
    /// `pi_…`.
    pub id: String,
    /// Such as `requires_capture` or `succeeded`.
    pub status: String,
    /// Unix seconds.
    pub created: Option<i64>,
    /// Minor units that were taken.
    pub amount_received: Option<i64>,
    /// Lower-case ISO code.
    pub currency: Option<String>,
    pub customer: Option<Expandable>,
    /// In Accounts v2 the customer is an account: `acct_…`.
    pub customer_account: Option<Expandable>,
    /// What the app's server wrote when it created the payment intent.
    #[serde(default)]
    pub metadata: Option<Metadata>,
    /// Until 2025-03-31.
    pub invoice: Option<Expandable>,
    /// Since 2022-11-15.
    pub latest_charge: Option<Expandable>,
    /// Until 2022-11-15.
    pub charges: Option<List<Expandable>>,
}

/// <https://docs.stripe.com/api/refunds/object>
#[derive(Debug, Deserialize)]
pub(crate) struct RefundObject {
    /// `re_…`.
    pub id: String,
    /// Minor units.
    pub amount: i64,
    /// Lower-case ISO code.
    pub currency: Option<String>,
    /// `pending`, `requires_action`, `succeeded`, `failed` or `canceled`.
    pub status: Option<String>,
    /// Unix seconds.
    pub created: Option<i64>,
    pub charge: Option<Expandable>,
    pub payment_intent: Option<Expandable>,
}

/// <https://docs.stripe.com/api/disputes/object>
#[derive(Debug, Deserialize)]
pub(crate) struct DisputeObject {
    /// `dp_…`.
    pub id: String,
    /// Minor units.
    pub amount: i64,
    /// Lower-case ISO code.
    pub currency: Option<String>,
    /// Such as `warning_needs_response`, `needs_response`, `under_review`, `won` or `lost`.
    pub status: String,
    pub charge: Option<Expandable>,
    pub payment_intent: Option<Expandable>,
    /// The movements of the disputed money.
    pub balance_transactions: Option<Vec<DisputeMovement>>,
}

/// A balance transaction of a dispute.
#[derive(Debug, Deserialize)]
pub(crate) struct DisputeMovement {
    /// Minor units of the account's currency: below 0 if the money was withdrawn, above if it was reinstated.
    #[serde(default)]
    pub amount: i64,
    /// Unix seconds.
    pub created: Option<i64>,
}

/// <https://docs.stripe.com/api/credit_notes/object>
#[derive(Debug, Deserialize)]
pub(crate) struct CreditNoteObject {
    /// `cn_…`.
    pub id: String,
    pub invoice: Option<Expandable>,
    /// `issued` or `void`.
    pub status: Option<String>,
    /// `pre_payment` or `post_payment`, in older versions of the API.
    #[serde(rename = "type")]
    pub note_type: Option<String>,
    /// Minor units, tax included. Its `amount` is the same.
    pub total: Option<i64>,
    /// Minor units.
    pub amount: Option<i64>,
    /// Lower-case ISO code.
    pub currency: Option<String>,
    /// Minor units that the open invoice was reduced by; in newer versions of the API.
    pub pre_payment_amount: Option<i64>,
    /// Minor units that were given back after the invoice was paid; in newer versions of the API.
    pub post_payment_amount: Option<i64>,
    /// In older versions of the API.
    pub refund: Option<Expandable>,
    /// In newer versions of the API.
    pub refunds: Option<Vec<CreditNoteRefund>>,
}

/// A refund of a credit note.
#[derive(Debug, Deserialize)]
pub(crate) struct CreditNoteRefund {
    /// Minor units.
    pub amount_refunded: Option<i64>,
}

/// <https://docs.stripe.com/api/subscriptions/object>, without what [`fields`] reads.
#[derive(Debug, Deserialize)]
pub(crate) struct SubscriptionObject {
    /// `sub_…`.
    pub id: String,
    /// Such as `active` or `canceled`.
    pub status: String,
    pub customer: Option<Expandable>,
    /// In Accounts v2 the customer is an account: `acct_…`.
    pub customer_account: Option<Expandable>,
    /// Unix seconds; here until 2025-03-31, on the items since.
    pub current_period_start: Option<i64>,
    /// Unix seconds; here until 2025-03-31, on the items since.
    pub current_period_end: Option<i64>,
    /// Unix seconds.
    pub trial_end: Option<i64>,
    /// Unix seconds: when it is set to end.
    pub cancel_at: Option<i64>,
    pub cancel_at_period_end: Option<bool>,
    /// Unix seconds: when the cancellation was requested.
    pub canceled_at: Option<i64>,
    /// Unix seconds: when it ended.
    pub ended_at: Option<i64>,
    #[serde(default)]
    pub metadata: Option<Metadata>,
}

/// <https://docs.stripe.com/api/invoices/object>, without what [`fields`] reads.
#[derive(Debug, Deserialize)]
pub(crate) struct InvoiceObject {
    /// `in_…`.
    pub id: String,
    /// `draft`, `open`, `paid`, `uncollectible` or `void`; in the oldest versions of the API there is only `paid`.
    pub status: Option<String>,
    /// Until 2025-03-31.
    pub paid: Option<bool>,
    pub customer: Option<Expandable>,
    /// In Accounts v2 the customer is an account: `acct_…`.
    pub customer_account: Option<Expandable>,
    /// Here until 2025-03-31, under `parent` since.
    pub subscription: Option<Expandable>,
    /// Since 2025-03-31.
    pub parent: Option<InvoiceParent>,
    /// The subscription's metadata when the invoice was created; here until 2025-03-31.
    pub subscription_details: Option<SubscriptionDetails>,
    #[serde(default)]
    pub metadata: Option<Metadata>,
}

/// What caused an invoice.
#[derive(Debug, Deserialize)]
pub(crate) struct InvoiceParent {
    /// `subscription_details` or `quote_details`.
    #[serde(rename = "type")]
    pub parent_type: Option<String>,
    pub subscription_details: Option<SubscriptionDetails>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct SubscriptionDetails {
    /// `sub_…`.
    pub subscription: Option<Expandable>,
    /// The subscription's metadata.
    #[serde(default)]
    pub metadata: Option<Metadata>,
}

/// <https://docs.stripe.com/api/invoice-payment/object>
#[derive(Debug, Deserialize)]
pub(crate) struct InvoicePaymentObject {
    pub invoice: Option<Expandable>,
    pub payment: Option<InvoicePaymentBy>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct InvoicePaymentBy {
    /// Of a payment of type `payment_intent`.
    pub payment_intent: Option<Expandable>,
    /// Of a payment of type `charge`: one without a payment intent.
    pub charge: Option<Expandable>,
}

/// Refuses a blank or overlong id; an absent one passes.
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
pub(crate) fn metadata_user(metadata: &Metadata) -> UserNames {
    METADATA_KEYS.into_iter().filter_map(|key| metadata.get(key)).collect()
}
