//! An invoice's facts: what it bills, line by line, and what paid it. Nothing of it is judged here: a line that grants
//! nothing, or that nobody can read, is a fact like the others, and never costs them anything.

use serde_json::value::RawValue;

use crate::amount::MinorUnits;
use crate::calendar::Time;
use crate::name::{Name, NameKind};
use crate::price::{self, LinePrice};
use crate::stripe::fields::Fields;
use crate::stripe::{self, Expandable, List, check_id, metadata_user, parse};
use crate::user::UserNames;

/// An invoice's facts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Invoice {
    /// `in_…`: the key of the payment.
    pub id: String,
    /// Its own; `None` for a pack's own invoice, one written by hand, or one that several subscriptions share.
    pub subscription_id: Option<String>,
    /// `cus_…`.
    pub customer_id: Option<String>,
    /// The user that the app's server wrote into its metadata, or into the subscription's.
    pub metadata_user: UserNames,
    /// By whichever payment, or marked as paid by hand.
    pub paid: bool,
    /// When it was paid, by the object's own word.
    pub paid_at: Option<Time>,
    /// When it was created.
    pub created: Option<Time>,
    /// Tax and discounts included.
    pub total: Option<MinorUnits>,
    /// The currency of `total`.
    pub currency: Option<String>,
    /// Those that paid it or tried to, as far as the object carries them.
    pub payment_intent_ids: Vec<String>,
    /// Those that paid it or tried to, as far as the object carries them.
    pub charge_ids: Vec<String>,
    /// Whether it carries a discount, which its prorations are already net of.
    pub is_discounted: bool,
    /// The test clock that its customer lives by, if any.
    pub test_clock: Option<String>,
    /// Every line, also of nothing or less; `None` unless the object carries all of them.
    pub lines: Option<Vec<InvoiceLine>>,
}

/// What an invoice bills or credits, as its line says it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InvoiceLine {
    /// The line's own, else its invoice's: one invoice may bill several subscriptions.
    pub subscription_id: Option<String>,
    /// `si_…`; `None` for what is no item of a subscription.
    pub item_id: Option<String>,
    /// `None` if what it bills has no price.
    pub price: Option<LinePrice>,
    /// Whether anything about it says that its price recurs.
    pub is_recurring: bool,
    /// How many.
    pub quantity: LineQuantity,
    /// Before tax and discounts, but a proration's after discounts; below 0 for a credit. `None` if the line lacks it.
    pub amount: Option<MinorUnits>,
    /// What discounts take of the amount.
    pub discount: MinorUnits,
    /// What it bills for: start, end. `None` if the line lacks it.
    pub period: Option<(Time, Time)>,
    /// Whether it bills or credits a part of a period.
    pub is_proration: bool,
    /// Whether it says which lines it credits.
    pub names_credited: bool,
}

/// How many of its price a line bills.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LineQuantity {
    /// The line does not say.
    Missing,
    /// A whole number. It may be 0: a flat fee's line.
    Whole(i64),
    /// A fraction, a number that does not fit, or no number.
    NotWhole,
}

/// Which payment intent or charge paid which invoice: one of them at least.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InvoicePayment {
    /// `in_…`.
    pub invoice_id: String,
    /// `pi_…`.
    pub payment_intent_id: Option<String>,
    /// `ch_…` or `py_…`.
    pub charge_id: Option<String>,
}

impl Invoice {
    /// The names of the payment.
    #[must_use]
    pub fn names(&self) -> Vec<Name<'_>> {
        let payment_intents =
            self.payment_intent_ids.iter().map(|id| Name { kind: NameKind::PaymentIntent, id });
        let charges = self.charge_ids.iter().map(|id| Name { kind: NameKind::Charge, id });
        let own = Name { kind: NameKind::Invoice, id: &self.id };
        [own].into_iter().chain(payment_intents).chain(charges).collect()
    }

    /// The subscriptions that it bills: its own, and those that its lines name.
    pub fn subscription_ids(&self) -> impl Iterator<Item = &str> {
        let of_lines = self.lines.iter().flatten().map(|line| &line.subscription_id);
        let mut ids: Vec<&str> =
            [&self.subscription_id].into_iter().chain(of_lines).flatten().map(String::as_str).collect();
        ids.sort_unstable();
        ids.dedup();
        ids.into_iter()
    }
}

impl InvoicePayment {
    /// The names of the payment.
    #[must_use]
    pub fn names(&self) -> Vec<Name<'_>> {
        let invoice = Name { kind: NameKind::Invoice, id: &self.invoice_id };
        let payment_intent =
            self.payment_intent_id.iter().map(|id| Name { kind: NameKind::PaymentIntent, id });
        let charge = self.charge_id.iter().map(|id| Name { kind: NameKind::Charge, id });
        [invoice].into_iter().chain(payment_intent).chain(charge).collect()
    }
}

/// Reads an invoice's object.
pub(crate) fn read(object: &RawValue) -> Result<Invoice, String> {
    let invoice: stripe::InvoiceObject = parse(object)?;
    let fields = Fields::of(object);
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
    let [own, of_details] =
        [invoice.metadata, details_metadata].map(|metadata| metadata_user(&metadata.unwrap_or_default()));
    let lines = fields.get("lines").and_then(|list| serde_json::from_str(list.get()).ok()).and_then(complete);
    let lines = lines.map(|lines| of_subscription(lines, subscription_id.as_deref()));
    Ok(Invoice {
        id: invoice.id,
        customer_id: stripe::customer_id(invoice.customer, invoice.customer_account),
        metadata_user: own.then(of_details),
        // Older objects have both fields, the oldest only `paid`.
        paid: invoice.status.map_or(invoice.paid == Some(true), |status| status == "paid"),
        paid_at: fields.object("status_transitions").time("paid_at"),
        created: fields.time("created"),
        total: fields.integer("total").map(MinorUnits),
        currency: fields.text("currency"),
        payment_intent_ids: names_of_payments(&fields, "payment_intent"),
        charge_ids: names_of_payments(&fields, "charge"),
        is_discounted: fields.get("discount").is_some()
            || ["discounts", "total_discount_amounts"].iter().any(|list| !fields.list(list).is_empty()),
        test_clock: fields.id("test_clock"),
        subscription_id,
        lines,
    })
}

/// The payment intents, or the charges, of an invoice: of the invoice itself until 2025-03-31, of its payments since.
fn names_of_payments(invoice: &Fields, name: &str) -> Vec<String> {
    let payments = invoice.object("payments").list("data");
    let of_payments = payments.into_iter().map(|payment| Fields::of(payment).object("payment").id(name));
    let mut ids = Vec::new();
    for id in [invoice.id(name)].into_iter().chain(of_payments).flatten() {
        if !ids.contains(&id) {
            ids.push(id);
        }
    }
    ids
}

/// Every line of a list, if this page is all of it.
pub(crate) fn complete(list: List<&RawValue>) -> Option<Vec<InvoiceLine>> {
    (!list.has_more).then(|| list.data.into_iter().map(line).collect())
}

/// Lines that name no subscription are of their invoice's.
pub(crate) fn of_subscription(
    mut lines: Vec<InvoiceLine>,
    subscription_id: Option<&str>,
) -> Vec<InvoiceLine> {
    for line in &mut lines {
        line.subscription_id = line.subscription_id.take().or_else(|| subscription_id.map(str::to_owned));
    }
    lines
}

/// Reads a line. Since 2025-03-31 what it is made from says where it belongs.
fn line(object: &RawValue) -> InvoiceLine {
    let line = Fields::of(object);
    let parent = line.object("parent");
    let origin = origin(&parent);
    let item_id = line.id("subscription_item").or_else(|| origin.id("subscription_item"));
    let is_proration = line.flag("proration") || origin.flag("proration");
    let is_of_item = line.text("type").as_deref() == Some("subscription")
        || parent.text("type").as_deref() == Some("subscription_item_details");
    let is_recurring = price::is_recurring(&line) || is_of_item || item_id.is_some() || is_proration;
    let names_credited = |of: &Fields| of.object("proration_details").get("credited_items").is_some();
    let discounts = line.list("discount_amounts");
    let discounts = discounts.into_iter().filter_map(|discount| Fields::of(discount).integer("amount"));
    InvoiceLine {
        subscription_id: line.id("subscription").or_else(|| origin.id("subscription")),
        item_id,
        price: price::read(&line),
        is_recurring,
        quantity: quantity(&line),
        amount: line.integer("amount").map(MinorUnits),
        discount: MinorUnits(discounts.fold(0, i64::saturating_add)),
        period: line.object("period").period("start", "end"),
        is_proration,
        names_credited: names_credited(&line) || names_credited(&origin),
    }
}

/// What a line was made from: the one of the parent's details that its type names, else the one that is there.
fn origin<'a>(parent: &Fields<'a>) -> Fields<'a> {
    let named = parent.text("type");
    let known = ["subscription_item_details", "invoice_item_details", "subscription_details"];
    let mut places = named.as_deref().into_iter().chain(known);
    places.find(|place| parent.get(place).is_some()).map(|place| parent.object(place)).unwrap_or_default()
}

/// How many of its price a line bills. Of a fraction in `quantity_decimal`, `quantity` holds what is left without its
/// decimals: <https://docs.stripe.com/changelog/dahlia/2026-03-25/invoice-items-decimal-quantity>.
pub(crate) fn quantity(line: &Fields) -> LineQuantity {
    let mut places = ["quantity_decimal", "quantity"].into_iter();
    match places.find(|place| line.get(place).is_some()) {
        None => LineQuantity::Missing,
        Some(place) => line.decimal(place).map_or(LineQuantity::NotWhole, LineQuantity::Whole),
    }
}

/// Reads an invoice payment's object; `None` if it lacks the invoice, or was paid by neither a payment intent nor a charge.
pub(crate) fn read_payment(object: &RawValue) -> Result<Option<InvoicePayment>, String> {
    let payment: stripe::InvoicePaymentObject = parse(object)?;
    let (Some(invoice), Some(paid_by)) = (payment.invoice, payment.payment) else { return Ok(None) };
    let invoice_id = invoice.into_id();
    let [payment_intent_id, charge_id] =
        [paid_by.payment_intent, paid_by.charge].map(|id| id.map(Expandable::into_id));
    check_id("data.object.invoice", Some(&invoice_id))?;
    check_id("data.object.payment.payment_intent", payment_intent_id.as_deref())?;
    check_id("data.object.payment.charge", charge_id.as_deref())?;
    let names_payment = payment_intent_id.is_some() || charge_id.is_some();
    Ok(names_payment.then_some(InvoicePayment { invoice_id, payment_intent_id, charge_id }))
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

#[cfg(test)]
mod tests;
