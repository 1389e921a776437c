//! An invoice's facts: what it bills, and which payment intents paid it.

use serde_json::value::RawValue;

use crate::amount::{MinorUnits, Quantity};
use crate::calendar::{self, Time};
use crate::catalog::Item;
use crate::stripe::{self, Expandable, check_id, metadata_user, parse};
use crate::user::UserNames;

/// An invoice's facts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Invoice {
    /// `in_…`: the key of the payment.
    pub id: String,
    /// None for a pack's own invoice, or one written by hand.
    pub subscription_id: Option<String>,
    /// `cus_…`.
    pub customer_id: Option<String>,
    /// The user that the app's server wrote into its metadata, or into the subscription's.
    pub metadata_user: UserNames,
    /// By whichever payment, or marked as paid by hand.
    pub paid: bool,
    /// When it was paid; if that is missing, when it was created.
    pub paid_at: Time,
    /// Whether it bills a change within a period rather than a period.
    pub mid_period: bool,
    /// Tax and discounts included.
    pub total: Option<MinorUnits>,
    /// The currency of `total`.
    pub currency: Option<String>,
    /// Those that paid it, as far as the object carries them.
    pub payment_intent_ids: Vec<String>,
    /// The lines that bill something; `None` unless the object carries all lines.
    pub lines: Option<Vec<InvoiceLine>>,
}

/// A line that bills something: not a credit for unused time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InvoiceLine {
    /// The key of its price.
    pub item: Item,
    /// At least one.
    pub quantity: Quantity,
    /// Whether it costs something.
    pub charge: Charge,
    /// The billed period: start, end.
    pub period: (Time, Time),
}

/// Whether a line costs something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Charge {
    /// It does.
    Money,
    /// It does not, after a discount of 100 %.
    Discounted,
    /// It does not, before any discount: a trial, or a price of 0.
    Nothing,
}

/// Which payment intent paid which invoice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InvoicePayment {
    /// `in_…`.
    pub invoice_id: String,
    /// `pi_…`.
    pub payment_intent_id: String,
}

/// Reads an invoice's object, from an event created at `event_created`.
pub(crate) fn read(object: &RawValue, event_created: Time) -> Result<Invoice, String> {
    let invoice: stripe::InvoiceObject = parse(object)?;
    check_id("data.object.id", Some(&invoice.id))?;
    let of_parent = invoice.parent.and_then(|parent| match parent.parent_type.as_deref() {
        Some("subscription_details") | None => parent.subscription_details,
        Some(_) => None,
    });
    let details = of_parent.or(invoice.subscription_details);
    let (of_details, details_metadata) = match details {
        Some(details) => (details.subscription, details.metadata),
        None => (None, None),
    };
    let subscription_id = invoice.subscription.or(of_details).map(Expandable::into_id);
    check_id("data.object.subscription", subscription_id.as_deref())?;
    let paid_at = invoice.status_transitions.and_then(|transitions| transitions.paid_at).or(invoice.created);
    let paid_at = match paid_at {
        Some(seconds) => calendar::from_unix(seconds).ok_or("data.object: paid_at is not a time")?,
        None => event_created,
    };
    let [own, of_details] =
        [invoice.metadata, details_metadata].map(|metadata| metadata_user(&metadata.unwrap_or_default()));
    let payments = invoice.payments.into_iter().flat_map(|payments| payments.data);
    let expanded = payments.filter_map(|payment| payment.payment?.payment_intent);
    let mut payment_intent_ids: Vec<String> =
        invoice.payment_intent.into_iter().chain(expanded).map(Expandable::into_id).collect();
    payment_intent_ids.dedup();
    for payment_intent_id in &payment_intent_ids {
        check_id("data.object.payment_intent", Some(payment_intent_id))?;
    }
    Ok(Invoice {
        id: invoice.id,
        subscription_id,
        customer_id: invoice.customer.map(Expandable::into_id),
        metadata_user: own.then(of_details),
        // Older objects have both fields, the oldest only `paid`.
        paid: invoice.status.map_or(invoice.paid == Some(true), |status| status == "paid"),
        paid_at,
        mid_period: matches!(invoice.billing_reason.as_deref(), Some("subscription_update" | "manual")),
        total: invoice.total.map(MinorUnits),
        currency: invoice.currency,
        payment_intent_ids,
        lines: invoice.lines.and_then(complete),
    })
}

/// The lines of a list that bill something, if this page is all of it and each has a price, an amount and a period.
pub(crate) fn complete(list: stripe::List<stripe::InvoiceLineObject>) -> Option<Vec<InvoiceLine>> {
    if list.has_more {
        return None;
    }
    let billing = list
        .data
        .into_iter()
        .filter(|line| line.amount.is_none_or(|amount| amount >= 0) && line.quantity != Some(0));
    billing
        .map(|line| {
            let discounts: i64 = line.discount_amounts.iter().flatten().map(|discount| discount.amount).sum();
            let period = line.period?;
            let priced = line.pricing.and_then(|pricing| pricing.price_details?.price);
            Some(InvoiceLine {
                item: Item::Price(priced.or(line.price).or(line.plan)?.into_id()),
                quantity: Quantity::new(line.quantity.unwrap_or(1))?,
                charge: match line.amount? {
                    0 => Charge::Nothing,
                    amount if discounts >= amount => Charge::Discounted,
                    _ => Charge::Money,
                },
                period: (calendar::from_unix(period.start)?, calendar::from_unix(period.end)?),
            })
        })
        .collect()
}

/// Reads an invoice payment's object; `None` if it lacks the invoice, or the payment is no payment intent.
pub(crate) fn read_payment(object: &RawValue) -> Result<Option<InvoicePayment>, String> {
    let payment: stripe::InvoicePaymentObject = parse(object)?;
    let paid_by = payment.payment.and_then(|payment| payment.payment_intent);
    let (Some(invoice), Some(payment_intent)) = (payment.invoice, paid_by) else { return Ok(None) };
    let (invoice_id, payment_intent_id) = (invoice.into_id(), payment_intent.into_id());
    check_id("data.object.invoice", Some(&invoice_id))?;
    check_id("data.object.payment.payment_intent", Some(&payment_intent_id))?;
    Ok(Some(InvoicePayment { invoice_id, payment_intent_id }))
}

/// The path that lists an invoice's lines.
#[must_use]
pub fn lines_path(invoice_id: &str) -> String {
    format!("/v1/invoices/{invoice_id}/lines?limit=100")
}

/// The path of invoices' payments, and the url of their lists.
pub(crate) const PAYMENTS: &str = "/v1/invoice_payments";

/// The path that lists which invoices a payment intent paid.
#[must_use]
pub fn payments_path(payment_intent_id: &str) -> String {
    format!("{PAYMENTS}?payment[type]=payment_intent&payment[payment_intent]={payment_intent_id}&limit=100")
}

/// The invoice whose lines the list of this url contains.
pub(crate) fn of_lines(url: &str) -> Option<&str> {
    url.strip_prefix("/v1/invoices/")?.strip_suffix("/lines")
}
