//! An invoice's facts: what it bills, and what paid it.

use serde_json::value::RawValue;
use uuid::Uuid;

use crate::amount::{MinorUnits, Quantity};
use crate::calendar::{self, Time};
use crate::catalog::Item;
use crate::stripe::{self, Expandable, check_id, metadata_user, parse};

/// An invoice's facts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Invoice {
    /// `in_…`: the key of the payment.
    pub id: String,
    /// What it bills; none for a pack's own invoice, or one written by hand.
    pub subscription_id: Option<String>,
    /// Who pays.
    pub customer_id: Option<String>,
    /// The user that the app's server wrote into its metadata, or the subscription's.
    pub metadata_user: Option<Uuid>,
    /// Whether it is paid, in whichever way.
    pub paid: bool,
    /// When it was paid, or made.
    pub paid_at: Time,
    /// Whether it bills a change within a period, not the period itself.
    pub mid_period: bool,
    /// Tax and discounts included.
    pub total: Option<MinorUnits>,
    /// The currency of `total`.
    pub currency: Option<String>,
    /// What paid it, as far as the object says.
    pub payment_intent_ids: Vec<String>,
    /// Every line that bills something, where the object carries all of them.
    pub lines: Option<Vec<InvoiceLine>>,
}

/// A line that bills something: not a credit for unused time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InvoiceLine {
    /// What names the price.
    pub item: Item,
    /// How many.
    pub quantity: Quantity,
    /// How much money that is.
    pub charge: Charge,
    /// What it bills for: from, to.
    pub period: (Time, Time),
}

/// How much money a line is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Charge {
    /// Something.
    Money,
    /// Nothing, after a discount of 100 %.
    Discounted,
    /// Nothing to begin with: a trial, or a price of 0.
    Nothing,
}

/// What an invoice's payment tells: which payment intent paid which invoice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InvoicePayment {
    /// `in_…`.
    pub invoice_id: String,
    /// `pi_…`.
    pub payment_intent_id: String,
}

/// Reads an invoice's object, from an event made at a time.
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
    let users =
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
        metadata_user: users.into_iter().flatten().next(),
        // Older objects say it twice, the oldest by `paid` alone.
        paid: invoice.status.map_or(invoice.paid == Some(true), |status| status == "paid"),
        paid_at,
        mid_period: matches!(invoice.billing_reason.as_deref(), Some("subscription_update" | "manual")),
        total: invoice.total.map(MinorUnits),
        currency: invoice.currency,
        payment_intent_ids,
        lines: invoice.lines.and_then(complete),
    })
}

/// The lines of a page that bill something, where it is the only page and each says what a line has to say.
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

/// Reads an invoice payment's object; `None` where something else than a payment intent paid, or it does not say what.
pub(crate) fn read_payment(object: &RawValue) -> Result<Option<InvoicePayment>, String> {
    let said: stripe::InvoicePaymentObject = parse(object)?;
    let paid_by = said.payment.and_then(|payment| payment.payment_intent);
    let (Some(invoice), Some(payment_intent)) = (said.invoice, paid_by) else { return Ok(None) };
    let (invoice_id, payment_intent_id) = (invoice.into_id(), payment_intent.into_id());
    check_id("data.object.invoice", Some(&invoice_id))?;
    check_id("data.object.payment.payment_intent", Some(&payment_intent_id))?;
    Ok(Some(InvoicePayment { invoice_id, payment_intent_id }))
}

/// The path whose answer names all lines of an invoice.
#[must_use]
pub fn lines_path(invoice_id: &str) -> String {
    format!("/v1/invoices/{invoice_id}/lines?limit=100")
}

/// The path of invoices' payments, and the url of a list of them.
pub(crate) const PAYMENTS: &str = "/v1/invoice_payments";

/// The path whose answer names the invoices that a payment intent paid.
#[must_use]
pub fn payments_path(payment_intent_id: &str) -> String {
    format!("{PAYMENTS}?payment[type]=payment_intent&payment[payment_intent]={payment_intent_id}&limit=100")
}

/// The invoice whose lines a list's url names.
pub(crate) fn of_lines(url: &str) -> Option<&str> {
    url.strip_prefix("/v1/invoices/")?.strip_suffix("/lines")
}
