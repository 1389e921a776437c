//! What an invoice without a subscription sells: packs, beside whatever else stands on it (rules 3 and 4).

use super::{NoGrant, fetch_or_park};
use crate::amount::{MinorUnits, Quantity};
use crate::calendar::Time;
use crate::catalog::{Item, NoPaymentRequired};
use crate::fetched::Fetched;
use crate::invoice::{self, Invoice, InvoiceLine, LineQuantity};
use crate::reason::Reason;
use crate::session::LineItem;

/// The lines of a paid invoice without a subscription.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Lines {
    /// Those that may be packs.
    pub items: Vec<LineItem>,
    /// Of those, the items whose prices recur: if the catalog does not know one, it has to be asked about.
    pub recurring: Vec<Item>,
    /// When the first of them was billed; `None` if no line says.
    pub sold_at: Option<Time>,
}

/// The lines of a paid invoice that bill something, from the answer of Stripe or from the invoice itself.
///
/// # Errors
/// A [`NoGrant`] if the invoice is not paid, or if its lines are not all known.
pub fn lines(
    invoice: &Invoice,
    policy: NoPaymentRequired,
    fetched: Option<&Fetched>,
) -> Result<Lines, NoGrant> {
    if !invoice.paid {
        // If it lists nothing, nothing says that it will be one of ours.
        let reason = if invoice.lines.is_some() { Reason::Unpaid } else { Reason::NoSubscription };
        return Err(NoGrant::Ignored(reason));
    }
    let answered = fetched.and_then(|fetched| fetched.invoice_lines_of(invoice));
    let Some(lines) = answered.or_else(|| invoice.lines.clone()) else {
        return Err(fetch_or_park(fetched, invoice::lines_path(&invoice.id)));
    };
    let mut known = Lines::default();
    for line in lines.iter().filter(|line| bills(line, policy)) {
        let Some(price) = &line.price else { continue };
        let item = Item::line(price.id.clone(), price.product_id.clone());
        let quantity = match line.quantity {
            LineQuantity::Missing => Some(Quantity::ONE),
            LineQuantity::Whole(quantity) => Quantity::new(quantity),
            LineQuantity::NotWhole => None,
        };
        if line.is_recurring {
            known.recurring.push(item.clone());
        }
        let billed_at = line.period.map(|(start, _)| start);
        known.sold_at = known.sold_at.into_iter().chain(billed_at).min();
        known.items.push(LineItem { item, quantity, named_as: None });
    }
    Ok(known)
}

/// Whether a line bills something that was paid for, or that the catalog gives away.
fn bills(line: &InvoiceLine, policy: NoPaymentRequired) -> bool {
    let Some(MinorUnits(amount)) = line.amount else { return false };
    let is_metered = line.price.as_ref().is_some_and(|price| price.is_metered);
    let is_free = amount <= line.discount.0;
    amount >= 0
        && line.quantity != LineQuantity::Whole(0)
        && !is_metered
        && (!is_free || policy == NoPaymentRequired::Grant)
}
