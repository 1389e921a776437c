//! A paid invoice: its lines become facts, and the accounts that they count in are settled.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};
use stripe_credits_rules::calendar::Time;
use stripe_credits_rules::catalog::{Item, Price};
use stripe_credits_rules::invoice::{Invoice, InvoiceLine};
use stripe_credits_rules::reason::Reason;
use stripe_credits_rules::verdict::Verdict;
use stripe_credits_rules::worth::NoGrant;
use stripe_credits_rules::worth::invoice::{self as rules, PassedOver, Sorted};
use uuid::Uuid;

use crate::ledger::{self, Accounts, Cause, Origin};
use crate::outcome::Outcome;
use crate::payment;
use crate::pg::sql::Sql;
use crate::tables::payments::{self, Payment, PaymentFacts, SourceType};
use crate::tables::{
    catalog, invoice_lines, invoices, ownership, subscription_items, subscriptions, test_clocks,
};

/// A paid invoice, as an event or a call brings it.
pub(crate) struct Paid<'a> {
    pub(crate) event_id: &'a str,
    pub(crate) invoice: &'a Invoice,
    pub(crate) lines: Vec<InvoiceLine>,
    pub(crate) sorted: Sorted,
    pub(crate) paid_at: Time,
    /// When Stripe's listing of the lines was so; `None` if a call names the line.
    pub(crate) listed_at: Option<Time>,
    /// Whether it is a call that names no invoice.
    pub(crate) is_direct: bool,
    /// Payments that turned out to be this one: what was granted for them is taken back.
    pub(crate) duplicates: &'a [Payment],
}

/// Sorts an invoice's lines by the catalog.
///
/// # Errors
/// A [`NoGrant`] if none of them is ours.
pub(crate) fn sort(sql: &mut Sql, lines: &[InvoiceLine], paid_at: Time) -> Result<Sorted, NoGrant> {
    let mut priced = Vec::with_capacity(lines.len());
    // Hundreds of lines may bill one price.
    let mut found: BTreeMap<(Item, Time), Option<Price>> = BTreeMap::new();
    for line in lines {
        let (item, at) = (rules::item(line), line.period.map_or(paid_at, |(start, _)| start));
        let price = found
            .entry((item.clone(), at))
            .or_insert_with(|| catalog::prices_in_force(sql, [&item], at).remove(&item));
        let price = price.clone();
        priced.push((line.clone(), price));
    }
    let sorted = rules::sort(&priced, &mut |price_id| subscription_items::is_metered(sql, price_id))?;
    if !sorted.price_ids.is_empty() {
        Ok(sorted)
    } else if sorted.is_odd {
        Err(NoGrant::Parked(Reason::Shape, Vec::new()))
    } else if !sorted.unknown.is_empty() {
        Err(NoGrant::Parked(Reason::UnknownPrice, sorted.unknown))
    } else {
        Err(NoGrant::Ignored(sorted.nothing()))
    }
}

/// Claims the payment, records its lines, and posts what they change. `known` is an earlier claim of the payment.
pub(crate) fn post(sql: &mut Sql, paid: &Paid, known: Option<&Payment>, owner: Uuid) -> Outcome {
    let Paid { event_id, invoice, .. } = *paid;
    let is_new = known.is_none_or(|known| !known.paid);
    let mut starts: BTreeMap<Uuid, Time> = invoice_lines::users(sql, &invoice.id).into_iter().collect();
    let mut lines = Vec::with_capacity(paid.lines.len());
    let mut users: BTreeMap<&str, Option<Uuid>> = BTreeMap::new();
    for line in &paid.lines {
        let of_subscription = line
            .subscription_id
            .as_deref()
            .and_then(|id| *users.entry(id).or_insert_with(|| subscriptions::user(sql, id)));
        let user = of_subscription.unwrap_or(owner);
        let start = line.period.map_or(paid.paid_at, |(start, _)| start);
        starts.entry(user).and_modify(|first| *first = start.min(*first)).or_insert(start);
        lines.push((user, line));
    }
    if let Some(clock_id) = &invoice.test_clock {
        test_clocks::name(sql, clock_id, paid.paid_at);
    }
    let mut counted: BTreeSet<Uuid> = starts.keys().copied().collect();
    for subscription_id in users.keys() {
        counted.extend(ownership::former_users(sql, subscription_id));
    }
    counted.extend(paid.duplicates.iter().map(|duplicate| duplicate.user));
    let mut accounts = Accounts::open(sql, &counted);
    if let Some(clock_id) = &invoice.test_clock {
        for user in starts.keys() {
            accounts.of(*user).live_by(sql, clock_id);
        }
    }
    let facts = PaymentFacts {
        customer_id: invoice.customer_id.as_deref(),
        subscription_id: invoice.subscription_id.as_deref(),
        amount_total: invoice.total,
        currency: invoice.currency.as_deref(),
        worth: None,
    };
    let source_type = if paid.is_direct { SourceType::DirectCall } else { SourceType::Invoice };
    payments::claim(sql, source_type, &invoice.id, &facts, owner, paid.paid_at);
    let recorded = invoices::record(sql, &invoice.id, paid.paid_at, invoice.is_discounted, paid.listed_at);
    if recorded.is_newer_listing {
        invoice_lines::replace(sql, &invoice.id, &lines, recorded.paid_at, accounts.known_at());
        accounts.renew_versions();
    } else if recorded.is_earlier {
        invoice_lines::set_paid_at(sql, &invoice.id, recorded.paid_at);
    }
    // A refund may have come before its purchase, and its share is known only now that the total is.
    ledger::came_back(sql, &invoice.id);
    let origin = Origin {
        event_id: Some(event_id),
        invoice_id: Some(&invoice.id),
        payment_intent_id: invoice.payment_intent_ids.first().map(String::as_str),
        ..Origin::default()
    };
    for (user, start) in starts {
        let account = accounts.of(user);
        account.touch_streams(start, Cause::Payment);
        account.learn_as_of(paid.paid_at);
    }
    payment::take_back(sql, event_id, paid.duplicates, &mut accounts);
    if let Err(reason) = accounts.settle(sql, &origin) {
        return refuse(sql, &invoice.id, is_new, reason);
    }
    let verdict = verdict(&paid.sorted, is_new, accounts.is_changed());
    let outcomes = accounts.close_each(sql, verdict).into_iter();
    let outcome = outcomes
        .reduce(
            |one, other| if other.user == Some(owner) { one.and_then(other) } else { other.and_then(one) },
        )
        .unwrap_or_else(|| Outcome::of(verdict));
    with_details(outcome, &paid.sorted)
}

fn verdict(sorted: &Sorted, is_new: bool, changed: bool) -> Verdict {
    if sorted.is_odd {
        Verdict::Parked(Reason::Shape)
    } else if !sorted.unknown.is_empty() {
        Verdict::Parked(Reason::UnknownPrice)
    } else if !sorted.moves_money && !changed {
        Verdict::Ignored(Reason::NothingPaid)
    } else if is_new || changed {
        Verdict::Applied
    } else {
        Verdict::AlreadyApplied
    }
}

/// Takes back the facts of an invoice that is worth more than can be held, so that the books stay as they are.
fn refuse(sql: &mut Sql, invoice_id: &str, is_new: bool, reason: Reason) -> Outcome {
    if is_new {
        invoice_lines::forget(sql, invoice_id);
        invoices::forget(sql, invoice_id);
    }
    Outcome::rejected(reason)
}

fn with_details(outcome: Outcome, sorted: &Sorted) -> Outcome {
    let mut outcome = outcome.with("price_ids", sorted.price_ids.clone());
    if !sorted.unknown.is_empty() {
        let missing: Vec<Value> = sorted.unknown.iter().map(|item| item.name().into()).collect();
        outcome = outcome.with("missing_prices", missing);
    }
    if sorted.passed_over.is_empty() {
        return outcome;
    }
    let passed_over = sorted
        .passed_over
        .iter()
        .map(|PassedOver { line, price, why }| json!({ "line": line, "price": price, "why": why }));
    outcome.with("passed_over", passed_over.collect::<Vec<_>>())
}
