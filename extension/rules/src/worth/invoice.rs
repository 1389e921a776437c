//! Which lines of a paid invoice are ours, and what becomes of the others (rules 3 and 4). What ours are worth is computed
//! from the lines of all of a user's invoices together: [`streams`](crate::streams).

use super::{MAX_PAYMENT_CREDITS, NoGrant, OUT_OF_RANGE, fetch_or_park};
use crate::amount::{Credits, MinorUnits};
use crate::catalog::{Item, Price, PriceKind};
use crate::fetched::Fetched;
use crate::invoice::{Invoice, InvoiceLine, LineQuantity, lines_path};
use crate::reason::Reason;

/// The lines of a paid invoice, from the best source that is known.
///
/// # Errors
/// A [`NoGrant`] if it is not paid, or its lines are not known.
pub fn lines(invoice: &Invoice, fetched: Option<&Fetched>) -> Result<Vec<InvoiceLine>, NoGrant> {
    if !invoice.paid {
        return Err(NoGrant::Ignored(Reason::Unpaid));
    }
    let fetched_lines = fetched.and_then(|fetched| fetched.invoice_lines_of(invoice));
    fetched_lines
        .or_else(|| invoice.lines.clone())
        .ok_or_else(|| fetch_or_park(fetched, lines_path(&invoice.id)))
}

/// The key by which a line's price is looked up.
#[must_use]
pub fn item(line: &InvoiceLine) -> Item {
    let item = |price: &crate::price::LinePrice| Item::line(price.id.clone(), price.product_id.clone());
    line.price.as_ref().map_or(Item::Unpriced, item)
}

/// The lines of an invoice, sorted into those of plans and packs, and others.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Sorted {
    /// The price of each plan or pack that is billed.
    pub price_ids: Vec<String>,
    /// Whether any of these was paid for or credited: not only trials, gifts and what a discount brought to 0.
    pub moves_money: bool,
    /// Recurring prices that were paid for and that the catalog does not know: the event waits for it.
    pub unknown: Vec<Item>,
    /// Whether a line of a plan or a pack lacks what it is computed from: the event waits for somebody to look.
    pub is_odd: bool,
    /// The lines that grant nothing and hold up nothing, and why.
    pub passed_over: Vec<PassedOver>,
}

/// A line that is none of ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PassedOver {
    /// Counted from 1.
    pub line: usize,
    /// Its price, or `(none)`.
    pub price: String,
    /// Why, for people to read: `not_credits`, `unpriced`, `metered`, `one_time`, `nothing_paid`, `no_subscription`.
    pub why: &'static str,
}

/// Sorts the lines of an invoice, each with the price that the catalog has for it. `is_metered` tells whether a
/// subscription item says that a price is usage-based: since Stripe's API of 2025-03-31 lines do not say it.
///
/// # Errors
/// [`Reason::OutOfRange`] if a line is worth more than an account can hold.
pub fn sort(
    lines: &[(InvoiceLine, Option<Price>)],
    is_metered: &mut dyn FnMut(&str) -> bool,
) -> Result<Sorted, NoGrant> {
    let mut sorted = Sorted::default();
    for (number, (line, price)) in (1..).zip(lines) {
        let mut pass_over = |why| {
            let price = item(line).name().to_owned();
            sorted.passed_over.push(PassedOver { line: number, price, why });
        };
        let Some(line_price) = &line.price else {
            pass_over("unpriced");
            continue;
        };
        let metered = line_price.is_metered;
        match price.as_ref() {
            Some(price) if price.kind == PriceKind::NotCredits => pass_over("not_credits"),
            _ if metered || is_metered(&line_price.id) => pass_over("metered"),
            Some(price) if price.kind == PriceKind::Plan && line.subscription_id.is_none() => {
                pass_over("no_subscription");
            }
            Some(price) => sorted.ours(line, price)?,
            None if !line.is_recurring => pass_over("one_time"),
            None if !is_paid_for(line) => pass_over("nothing_paid"),
            None => sorted.unknown.push(item(line)),
        }
    }
    sorted.price_ids.sort();
    sorted.price_ids.dedup();
    sorted.unknown.sort();
    sorted.unknown.dedup();
    Ok(sorted)
}

/// Whether money was paid for a line. Credits for time of an unknown price take nothing back that was granted.
fn is_paid_for(line: &InvoiceLine) -> bool {
    line.amount.is_none_or(|amount| amount > line.discount)
}

impl Sorted {
    /// A line of a plan or a pack.
    fn ours(&mut self, line: &InvoiceLine, price: &Price) -> Result<(), NoGrant> {
        let quantity = match line.quantity {
            LineQuantity::Missing => 1,
            LineQuantity::Whole(quantity) => quantity,
            LineQuantity::NotWhole => {
                self.is_odd = true;
                return Ok(());
            }
        };
        let is_billed_once = price.kind == PriceKind::Pack && line.item_id.is_none();
        if line.amount.is_none() || line.period.is_none() && !is_billed_once {
            self.is_odd = true;
            return Ok(());
        }
        let credits = price.credits.0.checked_mul(quantity).map(Credits).ok_or(OUT_OF_RANGE)?;
        if credits > MAX_PAYMENT_CREDITS {
            return Err(OUT_OF_RANGE);
        }
        let nothing = line.amount == Some(MinorUnits(0)) || line.amount <= Some(line.discount);
        let is_credit = line.names_credited || line.amount < Some(MinorUnits(0));
        self.moves_money |= is_credit || !nothing;
        self.price_ids.push(price.price_id.clone());
        Ok(())
    }

    /// Why an invoice none of whose lines is ours grants nothing.
    #[must_use]
    pub fn nothing(&self) -> Reason {
        if self.passed_over.iter().any(|passed| passed.why == "not_credits") {
            Reason::NotCredits
        } else {
            Reason::NothingBilled
        }
    }
}
