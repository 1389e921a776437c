//! An invoice and its lines, in both shapes of Stripe's API.

use serde_json::Value;

use super::json::{first_id, has_discount, id, integer, interval, is_metered, list, quantity, said_quantity};
use super::number::Span;

#[derive(Debug, Clone, Default)]
pub(super) struct Invoice {
    pub(super) id: String,
    pub(super) created: i64,
    /// When it was paid, by its own word; nothing until an event says that it is paid.
    pub(super) paid_at: Option<i64>,
    own_paid_at: Option<i64>,
    said_paid_at: Option<i64>,
    pub(super) total: Option<i64>,
    pub(super) currency: Option<String>,
    pub(super) has_discount: bool,
    pub(super) lines: Vec<RawLine>,
    listing: Listing,
}

/// How good a listing of lines is: "the complete one stands, then the newer".
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
struct Listing {
    is_complete: bool,
    as_of: i64,
}

/// The quantity that a line says.
#[derive(Debug, Clone, Copy)]
pub(super) enum Quantity {
    Whole(i64),
    /// One that is not whole.
    Odd,
    Unsaid,
}

/// One line as Stripe lists it.
#[derive(Debug, Clone)]
pub(super) struct RawLine {
    pub(super) subscription: Option<String>,
    pub(super) item: Option<String>,
    pub(super) price: Option<String>,
    pub(super) product: Option<String>,
    pub(super) interval: Option<Span>,
    pub(super) is_metered: bool,
    pub(super) quantity: Quantity,
    pub(super) amount: i64,
    pub(super) discount: i64,
    pub(super) start: i64,
    pub(super) end: i64,
    pub(super) is_proration: bool,
    pub(super) names_credited_items: bool,
}

impl Invoice {
    /// "Every Stripe object is kept as facts that only grow": what is known of the invoice, and what one event adds.
    pub(super) fn learn(&mut self, object: &Value, as_of: i64) {
        self.id = id(&object["id"]).unwrap_or_default();
        self.created = integer(&object["created"]).unwrap_or(as_of);
        // "By the object's own word (`status=paid`; older: `paid`)." "paid_at is the invoice's own, else the earliest
        // event that said paid."
        let is_paid = match object["status"].as_str() {
            Some(status) => status == "paid",
            None => object["paid"].as_bool() == Some(true),
        };
        if is_paid {
            self.own_paid_at = integer(&object["status_transitions"]["paid_at"]).or(self.own_paid_at);
            self.said_paid_at = Some(self.said_paid_at.map_or(as_of, |known| known.min(as_of)));
            self.paid_at = self.own_paid_at.or(self.said_paid_at);
        }
        self.total = integer(&object["total"]).or(self.total);
        self.currency = object["currency"].as_str().map(str::to_owned).or(self.currency.take());
        self.has_discount |= has_discount(object);
        let is_complete = object["lines"]["has_more"].as_bool() != Some(true);
        let listing = Listing { is_complete, as_of };
        let is_listed = object["lines"]["data"].is_array();
        if is_listed && (self.lines.is_empty() || listing >= self.listing) {
            self.listing = listing;
            self.lines = list(&object["lines"]["data"]).iter().map(|line| read_line(line, object)).collect();
        }
    }
}

/// "Subscription and item are read per line (the line, its parents), the invoice's own only where a line names none."
fn read_line(line: &Value, invoice: &Value) -> RawLine {
    let parent = &line["parent"];
    let details = match parent["type"].as_str() {
        Some("invoice_item_details") => &parent["invoice_item_details"],
        Some("subscription_item_details") => &parent["subscription_item_details"],
        _ => line,
    };
    let price = &line["price"];
    let newer = &line["pricing"]["price_details"];
    let credited = &details["proration_details"]["credited_items"];
    let amounts = list(&line["discount_amounts"]);
    RawLine {
        subscription: first_id(&[
            &details["subscription"],
            &line["subscription"],
            &invoice["subscription"],
            &invoice["parent"]["subscription_details"]["subscription"],
        ]),
        item: first_id(&[&details["subscription_item"], &line["subscription_item"]]),
        price: first_id(&[&newer["price"], price, &line["plan"]]),
        product: first_id(&[&newer["product"], &price["product"], &line["plan"]["product"]]),
        interval: interval(price).or_else(|| interval(&newer["price"])).or_else(|| interval(&line["plan"])),
        is_metered: is_metered(price) || is_metered(&newer["price"]) || is_metered(&line["plan"]),
        quantity: match said_quantity(line).map(quantity) {
            Some(Some(quantity)) => Quantity::Whole(quantity),
            Some(None) => Quantity::Odd,
            None => Quantity::Unsaid,
        },
        amount: integer(&line["amount"]).unwrap_or(0),
        discount: amounts.iter().filter_map(|amount| integer(&amount["amount"])).sum(),
        start: integer(&line["period"]["start"]).unwrap_or(0),
        end: integer(&line["period"]["end"]).unwrap_or(0),
        is_proration: details["proration"].as_bool().unwrap_or(false),
        names_credited_items: credited.is_object(),
    }
}
