//! What plan credits are computed from, read from the tables as far back as a change reaches (rules/streams/horizon.rs).

use std::collections::{BTreeMap, BTreeSet};

use stripe_credits_rules::amount::MinorUnits;
use stripe_credits_rules::calendar::Time;
use stripe_credits_rules::catalog::{Item, NoPaymentRequired, Price, ReversalPolicy};
use stripe_credits_rules::streams::facts::{
    CameBack, Facts, ItemContent, ItemState, Line, Payment, SubscriptionState, Terms,
};
use uuid::Uuid;

use crate::pg::sql::Sql;
use crate::tables::catalog;
use crate::tables::invoice_lines::{self, StoredLine};
use crate::tables::invoices::{self, PaidInvoice};
use crate::tables::subscription_items::{self, Content, StoredItem};
use crate::tables::subscriptions;

/// Facts, and the names of their prices.
pub(super) struct Loaded {
    pub(super) facts: Facts,
    names: BTreeMap<String, String>,
}

impl Loaded {
    /// The name of the price that these payments billed, of several the first one: the description of a ledger row.
    pub(super) fn name(&self, payments: &[String]) -> Option<&str> {
        let lines = self.facts.lines.iter().chain(&self.facts.first_lines);
        let mut of_payments = lines.filter(|line| payments.contains(&line.payment) && line.amount.0 >= 0);
        of_payments.next().and_then(|line| self.names.get(&line.price)).map(String::as_str)
    }
}

/// A user's facts from a horizon on. The caller holds the account's lock.
pub(super) fn load(sql: &mut Sql, user: Uuid, horizon: Time) -> Loaded {
    let settings = catalog::settings(sql);
    let policy = settings.as_ref().map_or(ReversalPolicy::default(), |settings| settings.reversal_policy);
    let mut prices = Prices::default();
    let stored = invoice_lines::since(sql, user, horizon);
    let has_older = invoice_lines::has_older(sql, user, horizon);
    let items = if has_older {
        let since = stored.iter().map(|line| line.period.start).fold(horizon, Time::min);
        subscription_items::of_user_since(sql, user, since)
    } else {
        subscription_items::of_user(sql, user)
    };
    let firsts = if has_older { invoice_lines::firsts_before(sql, user, horizon) } else { Vec::new() };
    let known_at = known_at(stored.iter().chain(&firsts));
    let paid = invoices::find(sql, known_at.keys().map(|id| (*id).to_owned()).collect());
    let discounted: BTreeSet<&str> =
        paid.iter().filter(|paid| paid.is_discounted).map(|paid| paid.source_id.as_str()).collect();
    let lines = lines(sql, &mut prices, &stored, &items, &discounted);
    let first_lines = self::lines(sql, &mut prices, &firsts, &items, &discounted);
    let payments = paid
        .iter()
        .map(|paid| payment(sql, &mut prices, paid, policy, known_at[paid.source_id.as_str()]))
        .collect();
    let subscriptions = subscription_states(sql, user, horizon, has_older);
    let items = items.into_iter().filter_map(|item| item_state(sql, &mut prices, item)).collect();
    let facts = Facts {
        payments,
        lines,
        first_lines,
        subscriptions,
        items,
        singles: Vec::new(),
        former: Vec::new(),
        horizon: has_older.then_some(horizon),
        no_payment_required: settings.map_or(NoPaymentRequired::default(), |all| all.no_payment_required),
    };
    Loaded { facts, names: prices.names }
}

/// The lines whose price the catalog knows and that are not usage-based.
fn lines(
    sql: &mut Sql,
    prices: &mut Prices,
    stored: &[StoredLine],
    items: &[StoredItem],
    discounted: &BTreeSet<&str>,
) -> Vec<Line> {
    let mut lines = Vec::with_capacity(stored.len());
    for line in stored {
        let of_price = items.iter().map(|item| &item.content);
        let mut of_price =
            of_price.filter(|content| !content.is_removed && content.price_id == line.price_id);
        let known_price = of_price.next();
        if line.is_metered || known_price.is_some_and(|content| content.is_metered) {
            continue;
        }
        let Some(price_id) = line.price_id.clone() else { continue };
        let at = in_force_at(line, stored);
        let Some(terms) = prices.terms(sql, line.price_id.as_deref(), line.product_id.as_deref(), at) else {
            continue;
        };
        lines.push(Line {
            payment: line.source_id.clone(),
            subscription: line.subscription_id.clone(),
            item: line.item_id.clone(),
            price: price_id,
            terms,
            quantity: line.quantity.unwrap_or_else(|| quantity_of_item(line, items)),
            amount: line.amount,
            discount: line.discount,
            is_discounted: discounted.contains(line.source_id.as_str()),
            period: line.period,
            is_proration: line.is_proration,
            names_credited: line.names_credited,
            interval: line.interval.or(known_price.and_then(|content| content.interval)),
        });
    }
    lines
}

/// Rule 4: a line is worth what its price was worth when its period began; a proration of a price that was billed in the
/// period it changes, when that period began.
fn in_force_at(line: &StoredLine, all: &[StoredLine]) -> Time {
    let billed = all.iter().filter(|other| {
        !other.is_proration
            && (&other.subscription_id, &other.price_id) == (&line.subscription_id, &line.price_id)
            && other.period.start <= line.period.start
            && line.period.start < other.period.end
    });
    let began = billed.filter(|_| line.is_proration).map(|other| other.period.start).max();
    began.unwrap_or(line.period.start)
}

/// A line without a quantity bills that of its item, as it was when the line's period began.
fn quantity_of_item(line: &StoredLine, items: &[StoredItem]) -> i64 {
    let own = || {
        let states = items.iter().filter(|state| Some(&state.item_id) == line.item_id.as_ref());
        states.filter(|state| !state.content.is_removed)
    };
    let then = own().rfind(|state| state.seen_at <= line.period.start);
    then.or_else(|| own().next()).map_or(1, |state| state.content.quantity)
}

/// Of each payment of these lines: when the first of them became known.
fn known_at<'a>(lines: impl Iterator<Item = &'a StoredLine>) -> BTreeMap<&'a str, Time> {
    let mut known: BTreeMap<&str, Time> = BTreeMap::new();
    for line in lines {
        known
            .entry(&line.source_id)
            .and_modify(|known_at| *known_at = line.known_at.min(*known_at))
            .or_insert(line.known_at);
    }
    known
}

fn payment(
    sql: &mut Sql,
    prices: &mut Prices,
    paid: &PaidInvoice,
    policy: ReversalPolicy,
    known_at: Time,
) -> Payment {
    let came_back = CameBack {
        amount: paid.reversed,
        of: paid.charged.unwrap_or(MinorUnits(0)),
        policy: paid.policy.unwrap_or(policy),
    };
    let is_part = came_back.amount.0 > 0 && came_back.amount < came_back.of;
    let (credited, charged) =
        if is_part { credited_and_charged(sql, prices, &paid.source_id) } else { (0, 0) };
    Payment {
        id: paid.source_id.clone(),
        paid_at: paid.paid_at,
        came_back,
        credited: MinorUnits(credited),
        charged: MinorUnits(charged),
        direct: paid.is_direct,
        known_at,
    }
}

/// Rule 5: the sum of an invoice's credit lines of catalog prices, as a number above 0, and that of all its other lines after
/// discounts.
fn credited_and_charged(sql: &mut Sql, prices: &mut Prices, source_id: &str) -> (i64, i64) {
    let (mut credited, mut charged) = (0i64, 0i64);
    for line in invoice_lines::of_payment(sql, source_id) {
        let is_credit = line.amount.0 < 0 || line.names_credited;
        let (price, product) = (line.price_id.as_deref(), line.product_id.as_deref());
        if is_credit && prices.terms(sql, price, product, line.period.start).is_some() {
            credited = credited.saturating_sub(line.amount.0);
        } else {
            charged = charged.saturating_add(line.amount.0 - line.discount.0);
        }
    }
    (credited, charged)
}

fn subscription_states(sql: &mut Sql, user: Uuid, horizon: Time, has_older: bool) -> Vec<SubscriptionState> {
    let known = subscriptions::of_user(sql, user);
    let several = known.len() > 1;
    known
        .into_iter()
        .map(|(id, known)| SubscriptionState {
            as_of: known.seen_at,
            listed_since: known.listed_since,
            is_over: known.state.status.is_final(),
            ended_at: known.state.ended_at,
            ends_at: known.state.ends_at(),
            // It is needed only to decide which of several subscriptions began later.
            first_period_start: (several && has_older)
                .then(|| invoice_lines::first_period_before(sql, user, &id, horizon))
                .flatten(),
            known_at: known.known_at,
            id,
        })
        .collect()
}

fn item_state(sql: &mut Sql, prices: &mut Prices, state: StoredItem) -> Option<ItemState> {
    let Content { price_id, product_id, quantity, interval, is_metered, is_removed } = state.content;
    let content = if is_removed {
        ItemContent::Removed
    } else if is_metered {
        return None;
    } else {
        let terms = prices.terms(sql, price_id.as_deref(), product_id.as_deref(), state.seen_at);
        ItemContent::Listed { price: price_id.unwrap_or_default(), terms, quantity, interval }
    };
    Some(ItemState {
        subscription: state.subscription_id,
        item: state.item_id,
        as_of: state.seen_at,
        content,
        known_at: state.known_at,
    })
}

/// What prices are worth. However many times a price is asked about, it is looked up once for each time between two changes
/// of its row.
#[derive(Default)]
struct Prices {
    /// When the rows change that an item is looked up in.
    changes: BTreeMap<Item, Vec<Time>>,
    /// By item, and how many of those changes had been by then.
    found: BTreeMap<(Item, usize), Option<Terms>>,
    names: BTreeMap<String, String>,
}

impl Prices {
    /// By price, else by product, as in force at a time; `None` if the catalog knows neither.
    fn terms(
        &mut self,
        sql: &mut Sql,
        price_id: Option<&str>,
        product_id: Option<&str>,
        at: Time,
    ) -> Option<Terms> {
        let item = Item::line(price_id?.to_owned(), product_id.map(str::to_owned));
        let changes = self
            .changes
            .entry(item.clone())
            .or_insert_with(|| catalog::changes_of(sql, price_id, product_id));
        let key = (item, changes.partition_point(|change| *change <= at));
        if let Some(known) = self.found.get(&key) {
            return *known;
        }
        let price = catalog::prices_in_force(sql, [&key.0], at).remove(&key.0);
        let terms = price.as_ref().map(Terms::from);
        if let (Some(Price { name, .. }), Some(id)) = (price, price_id) {
            self.names.insert(id.to_owned(), name);
        }
        self.found.insert(key, terms);
        terms
    }
}
