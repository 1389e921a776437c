//! What each paid line is: opens a period, changes one, is a trial, or counts nothing.

use std::collections::BTreeMap;

use super::catalog::{Catalog, PlanPrice, Worth};
use super::facts::Facts;
use super::invoice::{Invoice, Quantity, RawLine};
use super::number::{Fraction, Span, ratio, whole};
use super::part_back;
use super::subscription::Stream;
use super::takeovers::Takeovers;

/// Everything that is known, and whether money that came back is counted.
pub(super) struct World<'a> {
    pub(super) facts: &'a Facts,
    pub(super) catalog: &'a Catalog,
    pub(super) takeovers: &'a Takeovers,
    /// `forgive` compares with a world in which no money came back.
    pub(super) counts_reversals: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// "Not a proration, amount above 0 before discounts."
    Whole,
    /// A prorated charge.
    Charge,
    Credit,
    /// "Lines of 0 before discounts, not prorated, of quantity above 0": a trial or a gift.
    Trial,
}

/// What a line's price is of.
#[derive(Debug, Clone)]
pub(super) enum Sold {
    Plan(PlanPrice),
    Pack { credits: i64, expires_after: Option<Span> },
}

impl Sold {
    /// What one unit holds: a period's credits, or one part's where the price drips.
    pub(super) fn credits(&self) -> i64 {
        match self {
            Sold::Plan(price) => price.plan.credits,
            Sold::Pack { credits, .. } => *credits,
        }
    }

    pub(super) fn plan(&self) -> Option<&PlanPrice> {
        match self {
            Sold::Plan(price) => Some(price),
            Sold::Pack { .. } => None,
        }
    }
}

/// A line of a plan's or a pack's price on a paid invoice.
#[derive(Debug, Clone)]
pub(super) struct Line {
    pub(super) invoice: String,
    pub(super) invoice_created: i64,
    pub(super) paid_at: i64,
    /// Its place on the invoice.
    pub(super) place: usize,
    /// Its subscription's item, or the subscription alone; `None` where the invoice has no subscription.
    pub(super) stream: Option<Stream>,
    /// The item as the line names it.
    pub(super) item: Option<String>,
    pub(super) price: String,
    pub(super) sold: Sold,
    pub(super) interval: Span,
    pub(super) quantity: i64,
    pub(super) start: i64,
    pub(super) end: i64,
    pub(super) kind: Kind,
    pub(super) is_proration: bool,
    /// Whether a discount brought it to 0.
    pub(super) is_free: bool,
    /// How much of it counts after a part of the money came back; a credit line stands whole.
    pub(super) counts: Fraction,
    /// Whether any of its money stayed.
    pub(super) stands: bool,
}

impl Line {
    pub(super) fn seconds(&self) -> i64 {
        self.end - self.start
    }
}

/// All lines that count.
pub(super) fn lines(world: &World) -> Vec<Line> {
    let mut lines = Vec::new();
    for invoice in world.facts.invoices.values() {
        let Some(paid_at) = invoice.paid_at else { continue };
        let part = part_back(world, &invoice.id);
        let all_came_back = part == whole(1);
        let counts = share_that_counts(world, invoice, &part);
        for group in groups(world, invoice) {
            let Some(mut line) = group.judge(world, invoice, paid_at) else { continue };
            line.stands = !all_came_back;
            if all_came_back {
                line.counts = whole(0);
            } else if line.kind != Kind::Credit {
                line.counts.clone_from(&counts);
            }
            // "All of it came back (part = 1): the payment is as if it had never been, its credit lines too." The period of
            // a whole line is still one, worth nothing, that later credits and charges find.
            if line.stands || line.kind == Kind::Whole {
                lines.push(line);
            }
        }
    }
    lines
}

pub(super) fn part_back(world: &World, name: &str) -> Fraction {
    if world.counts_reversals {
        part_back::part_back(world.facts, &world.facts.names(name))
    } else {
        whole(0)
    }
}

/// "Every other line counts `1 − part × (1 − N ÷ P)`, N the sum of the invoice's credit lines of catalog prices, P of
/// all its other lines after discounts."
fn share_that_counts(world: &World, invoice: &Invoice, part: &Fraction) -> Fraction {
    let is_credit_of_ours = |line: &&RawLine| line.amount < 0 && sold(world.catalog, line).is_some();
    let credits: i64 = invoice.lines.iter().filter(is_credit_of_ours).map(|line| -line.amount).sum();
    let others = invoice.lines.iter().filter(|line| !is_credit_of_ours(line));
    let charges: i64 = others.map(|line| line.amount - line.discount).sum();
    if charges <= 0 {
        return whole(1) - part;
    }
    whole(1) - part * (whole(1) - ratio(credits.min(charges), charges))
}

/// "One odd line never blocks the others": `None` is a line that is passed over.
fn sold(catalog: &Catalog, line: &RawLine) -> Option<Sold> {
    if line.is_metered {
        return None;
    }
    match catalog.worth(line.price.as_deref()?, line.product.as_deref())? {
        Worth::Plan(price) => Some(Sold::Plan(price.clone())),
        Worth::Pack(pack) => Some(Sold::Pack { credits: pack.credits, expires_after: pack.expires_after }),
        Worth::NotCredits => None,
    }
}

/// Lines that are one line: "whole lines of one item, price and period on one invoice", "lines of one item, price,
/// period and direction on one invoice".
struct Group<'a> {
    first: &'a RawLine,
    place: usize,
    is_credit: bool,
    quantity: i64,
    amount: i64,
    discount: i64,
}

fn groups<'a>(world: &World, invoice: &'a Invoice) -> Vec<Group<'a>> {
    let mut groups: Vec<Group> = Vec::new();
    let mut places = BTreeMap::new();
    for (place, line) in invoice.lines.iter().enumerate() {
        // "A credit (negative, or it says which lines it credits)."
        let is_credit = line.amount < 0 || line.amount == 0 && line.is_proration && line.names_credited_items;
        let Some(quantity) = quantity(world, invoice, line) else { continue };
        let key = (
            (&line.subscription, &line.item, &line.price, line.start, line.end),
            (line.is_proration, is_credit, line.is_metered),
        );
        let at = *places.entry(key).or_insert(groups.len());
        if at == groups.len() {
            groups.push(Group { first: line, place, is_credit, quantity: 0, amount: 0, discount: 0 });
        }
        groups[at].quantity += quantity;
        groups[at].amount += line.amount;
        groups[at].discount += line.discount;
    }
    groups
}

/// "A plan's or pack's must be whole; null on a plan's line is the item's, else 1": the item's by the last state that
/// is not newer than the invoice, else by the first.
fn quantity(world: &World, invoice: &Invoice, line: &RawLine) -> Option<i64> {
    match line.quantity {
        Quantity::Whole(quantity) => return Some(quantity),
        Quantity::Odd => return None,
        Quantity::Unsaid => {}
    }
    let states = line.subscription.as_ref().and_then(|id| world.facts.subscriptions.get(id));
    let states = states.map_or(&[][..], Vec::as_slice);
    let state = states.iter().rfind(|state| state.as_of <= invoice.created).or(states.first());
    let item = state.and_then(|state| state.items.iter().find(|item| Some(&item.id) == line.item.as_ref()));
    Some(item.map_or(1, |item| item.quantity))
}

impl Group<'_> {
    fn judge(&self, world: &World, invoice: &Invoice, paid_at: i64) -> Option<Line> {
        let line = self.first;
        let sold = sold(world.catalog, line)?;
        let price = line.price.clone()?;
        let (kind, is_free) = self.kind(world, invoice)?;
        let catalogs = sold.plan().map_or(Span::Months(1), |price| price.every);
        let subscription = line.subscription.as_deref();
        let is_plan = sold.plan().is_some();
        // A pack that names no item was bought once; a plan's line without a subscription has its invoice for one.
        let stream = match (subscription, &line.item) {
            (Some(subscription), item) if is_plan || item.is_some() => Some(subscription),
            (None, _) if is_plan => Some(invoice.id.as_str()),
            _ => None,
        };
        Some(Line {
            invoice: invoice.id.clone(),
            invoice_created: invoice.created,
            paid_at,
            place: self.place,
            stream: stream.map(|subscription| world.takeovers.stream(subscription, line.item.as_deref())),
            item: line.item.clone(),
            interval: line.interval.or_else(|| world.facts.interval(&price)).unwrap_or(catalogs),
            price,
            sold,
            quantity: self.quantity,
            start: line.start,
            end: line.end,
            kind,
            is_proration: line.is_proration,
            is_free,
            counts: whole(1),
            stands: true,
        })
    }

    /// What kind of line it is, and whether a discount brought it to 0; `None` if it counts nothing.
    fn kind(&self, world: &World, invoice: &Invoice) -> Option<(Kind, bool)> {
        let grants_free = world.catalog.grants_unpaid;
        if self.is_credit {
            // A credit of 0 gave no money; it takes back what the policy granted for none.
            return (self.amount < 0 || grants_free).then_some((Kind::Credit, self.amount == 0));
        }
        if self.first.is_proration {
            // "Else a charge of nothing, which follows `no_payment_required` if the invoice or subscription carries a
            // discount and grants nothing otherwise. It is never a trial."
            let is_free = self.amount == 0;
            let grants = !is_free || grants_free && self.is_discounted(world, invoice);
            return grants.then_some((Kind::Charge, is_free));
        }
        if self.amount > 0 {
            // "A line that a discount brought to 0 follows `no_payment_required`."
            let is_free = self.amount <= self.discount;
            return (!is_free || grants_free).then_some((Kind::Whole, is_free));
        }
        (self.quantity > 0).then_some((Kind::Trial, false))
    }

    fn is_discounted(&self, world: &World, invoice: &Invoice) -> bool {
        let subscription = self.first.subscription.as_ref();
        let states = subscription.and_then(|id| world.facts.subscriptions.get(id));
        invoice.has_discount || states.is_some_and(|states| states.iter().any(|state| state.has_discount))
    }
}
