//! A payment intent's facts: what it took, for which user, and what its metadata say was bought with it.

use serde_json::value::RawValue;

use crate::amount::MinorUnits;
use crate::calendar::{self, Time};
use crate::name::{Name, NameKind};
use crate::session::{LineItem, named_line_item};
use crate::stripe::{self, Expandable, check_id, metadata_user, parse};
use crate::user::UserNames;

/// The key in the metadata of a top-up's payment intent that names the request.
pub const TOP_UP_ID: &str = "top_up_id";

/// A payment intent's facts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PaymentIntent {
    /// `pi_…`.
    pub id: String,
    /// Whether it took the money.
    pub succeeded: bool,
    /// When it was created; its prices are those in force at that time.
    pub created: Time,
    /// `cus_…`.
    pub customer_id: Option<String>,
    /// The user that the app's server wrote into the metadata.
    pub metadata_user: UserNames,
    /// What it took.
    pub amount_received: Option<MinorUnits>,
    /// The currency of `amount_received`.
    pub currency: Option<String>,
    /// What the metadata say was bought.
    pub named: Option<LineItem>,
    /// The invoice that it paid, in older versions of the API.
    pub invoice_id: Option<String>,
    /// The request for a top-up that it pays, by the metadata: see [`crate::top_up::number_of`].
    pub top_up_id: Option<String>,
    /// Its charges, as far as the object names them.
    pub charge_ids: Vec<String>,
}

impl PaymentIntent {
    /// The names of the payment.
    #[must_use]
    pub fn names(&self) -> Vec<Name<'_>> {
        let invoice = self.invoice_id.iter().map(|id| Name { kind: NameKind::Invoice, id });
        let charges = self.charge_ids.iter().map(|id| Name { kind: NameKind::Charge, id });
        [Name { kind: NameKind::PaymentIntent, id: &self.id }]
            .into_iter()
            .chain(invoice)
            .chain(charges)
            .collect()
    }
}

/// Reads a payment intent, from an event created at `event_created`.
pub(crate) fn read(object: &RawValue, event_created: Time) -> Result<PaymentIntent, String> {
    let intent: stripe::PaymentIntentObject = parse(object)?;
    let created = match intent.created {
        Some(seconds) => calendar::from_unix(seconds).ok_or("data.object: created is not a time")?,
        None => event_created,
    };
    let charges = intent.charges.into_iter().flat_map(|charges| charges.data);
    let mut charge_ids: Vec<String> =
        intent.latest_charge.into_iter().chain(charges).map(Expandable::into_id).collect();
    charge_ids.sort();
    charge_ids.dedup();
    for charge_id in &charge_ids {
        check_id("data.object.charges", Some(charge_id))?;
    }
    let invoice_id = intent.invoice.map(Expandable::into_id);
    check_id("data.object.invoice", invoice_id.as_deref())?;
    let metadata = intent.metadata.unwrap_or_default();
    Ok(PaymentIntent {
        id: intent.id,
        succeeded: intent.status == "succeeded",
        created,
        customer_id: stripe::customer_id(intent.customer, intent.customer_account),
        metadata_user: metadata_user(&metadata),
        amount_received: intent.amount_received.map(MinorUnits),
        currency: intent.currency,
        named: named_line_item(|key| metadata.get(key)),
        invoice_id,
        top_up_id: metadata.get(TOP_UP_ID).map(str::to_owned),
        charge_ids,
    })
}
