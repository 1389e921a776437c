//! Every grant that the facts give: what it holds, when it begins, when it lapses.

use std::collections::BTreeMap;

use super::catalog::Worth;
use super::facts::{Session, SessionLine};
use super::lay::{self, Entry};
use super::lines::{self, Kind, Line, Sold, World};
use super::number::{Fraction, floor, ratio, whole};
use super::periods::{Origin, Period};
use super::subscription::{self, Stream};

/// Which of the three balances a grant is counted in, in draw order: "subscription before promotional before purchased".
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[expect(missing_docs, reason = "they are the product's")]
pub enum Pool {
    Subscription,
    Promotional,
    Purchased,
}

/// What a grant is of.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Key {
    /// A period of a stream, or one part of it.
    Period {
        /// The subscription's item.
        stream: Stream,
        /// Of a recurring pack.
        is_purchased: bool,
        /// Of a credit that found no period.
        is_below_zero: bool,
        /// The period's start.
        start: i64,
        /// The period's end.
        end: i64,
        /// The part's start, of a period in parts.
        part: Option<i64>,
    },
    /// The packs of one price that a payment bought once.
    Pack {
        /// One of the payment's names.
        payment: String,
        /// The price.
        price: String,
    },
    /// The trial credits.
    Trial,
    /// The first purchase's bonus, for this invoice.
    Bonus {
        /// The invoice.
        invoice: String,
    },
    /// What the app gave, by its request id.
    Gift {
        /// The request id.
        request_id: String,
    },
    /// The signup's credits.
    Signup,
    /// A month of the free plan, counted from the signup.
    Free {
        /// 0 for the first.
        month: i64,
    },
}

#[derive(Debug, Clone)]
pub(super) struct Grant {
    pub(super) key: Key,
    pub(super) pool: Pool,
    pub(super) entries: Vec<Entry>,
    pub(super) starts: i64,
    /// The end of the period or part.
    pub(super) ends: Option<i64>,
    /// When it was first paid: "one whose start is not after its paid_at has begun".
    pub(super) paid_at: i64,
    /// When what is left of it lapses, whenever it was paid.
    pub(super) expires: Option<i64>,
    /// The end of a period that the next renewal resets.
    pub(super) resets: Option<i64>,
    /// The ends of this part and of those that follow it.
    pub(super) part_ends: Vec<i64>,
    /// At most the share of its time until then stays of what a whole discount paid.
    pub(super) free_until: Option<i64>,
    /// Its place among the lines of its invoice.
    pub(super) place: usize,
}

impl Grant {
    pub(super) fn new(key: Key, pool: Pool, at: i64, worth: Fraction) -> Grant {
        Grant {
            key,
            pool,
            entries: vec![Entry { paid_at: at, worth, is_free_whole: false }],
            starts: at,
            ends: None,
            paid_at: at,
            expires: None,
            resets: None,
            part_ends: Vec::new(),
            free_until: None,
            place: 0,
        }
    }

    /// "Rounding is down, once, over the sum of a grant."
    pub(super) fn worth(&self) -> i64 {
        self.worth_paid_before(i64::MAX)
    }

    pub(super) fn worth_paid_before(&self, time: i64) -> i64 {
        let paid: Vec<&Entry> = self.entries.iter().filter(|entry| entry.paid_at < time).collect();
        let sum = paid.iter().fold(whole(0), |sum, entry| sum + &entry.worth);
        let (Some(until), Some(ends)) = (self.free_until, self.ends) else { return floor(&sum) };
        // "A period whose whole line a discount brought to 0: at most the share of its time that has run stays when the
        // next period of its item opens, whatever the credit line says."
        let run = ratio((until - self.starts).clamp(0, ends - self.starts), ends - self.starts);
        let most = paid.iter().fold(whole(0), |sum, entry| match entry.is_free_whole {
            true => sum + &entry.worth * &run,
            false if entry.worth > whole(0) => sum + &entry.worth,
            false => sum,
        });
        floor(if most < sum { &most } else { &sum })
    }

    /// "At its start or when it was first paid, whichever is later."
    pub(super) fn opens_at(&self) -> i64 {
        self.starts.max(self.paid_at)
    }

    pub(super) fn has_lapsed(&self, now: i64) -> bool {
        self.expires.is_some_and(|expires| expires <= now)
    }

    /// Whether what comes back to it is lost.
    pub(super) fn is_over(&self, now: i64) -> bool {
        self.has_lapsed(now) || self.part_ends.first().is_some_and(|end| *end <= now)
    }

    pub(super) fn has_begun(&self, now: i64) -> bool {
        self.starts <= now.max(self.paid_at)
    }
}

/// The grants of a period.
pub(super) fn of_period(world: &World, period: &Period) -> Vec<Grant> {
    let parts = period.parts();
    let opener = period.openers().max_by_key(|line| line.sold.credits() * line.quantity);
    let plan = opener.and_then(|line| line.sold.plan()).map(|price| &price.plan);
    let expires =
        plan.filter(|plan| plan.expires_on_cancellation).and_then(|_| end_by_cancellation(world, period));
    let paid_at = period.first_paid_at().unwrap_or(period.start);
    let mut grants = Vec::new();
    for (part, entries) in lay::entries(period, &parts) {
        let span = parts.iter().find(|known| Some(known.start) == part);
        let ends = span.map_or(period.end, |part| part.end);
        let resets = plan.is_some_and(|plan| plan.rollover.is_none()).then_some(period.end);
        grants.push(Grant {
            key: Key::Period {
                stream: period.stream.clone(),
                is_purchased: period.is_purchased,
                is_below_zero: period.origin == Origin::Credit,
                start: period.start,
                end: period.end,
                part,
            },
            pool: if period.is_purchased { Pool::Purchased } else { Pool::Subscription },
            entries,
            // "A pack's price as a recurring item grants purchased credits for good."
            starts: if period.is_purchased { paid_at } else { part.unwrap_or(period.start) },
            ends: Some(ends),
            paid_at,
            expires: expires.filter(|_| !period.is_purchased),
            resets: resets.filter(|_| !period.is_purchased),
            part_ends: match part {
                Some(start) => parts.iter().filter(|part| part.start >= start).map(|part| part.end).collect(),
                None => Vec::new(),
            },
            free_until: None,
            place: period.openers().map(|line| line.place).min().unwrap_or(0),
        });
    }
    grants
}

/// "`expire`: they lapse at the period's end, known from the row, `cancel_at` included." A prebilled period that begins
/// after that end still comes.
fn end_by_cancellation(world: &World, period: &Period) -> Option<i64> {
    let newest = subscription::newest(world.facts.subscriptions.get(&period.stream.subscription)?)?;
    let ends = newest.ended_at.is_some() || newest.cancel_at.is_some() || newest.cancels_at_period_end;
    let stream = |item: &str| world.takeovers.stream(&period.stream.subscription, Some(item));
    let item = newest.items.iter().find(|item| stream(&item.id) == period.stream).or(newest.items.first());
    let of_row = newest.cancel_at.or(item.and_then(|item| item.period_end)).unwrap_or(period.end);
    ends.then_some(if period.start >= of_row { period.end } else { of_row })
}

/// What sessions, payment intents and invoices without an item sold once, by the payment and the price.
pub(super) fn packs(world: &World, lines: &[Line]) -> Vec<Grant> {
    let mut grants = BTreeMap::new();
    for names in world.facts.payments() {
        let payment = names.first().expect("a payment has a name");
        let part = lines::part_back(world, payment);
        let bought = bought_once(world, names);
        if !bought.is_empty() {
            for (price, quantity, session) in bought {
                let Some(Worth::Pack(pack)) = world.catalog.worth(&price.0, price.1.as_deref()) else {
                    continue;
                };
                let worth = whole(pack.credits) * whole(quantity) * (whole(1) - &part);
                let expires = pack.expires_after.map(|span| span.after(session.created, 1));
                add_pack(&mut grants, payment, &price.0, session.created, worth, expires);
            }
            continue;
        }
        for line in lines.iter().filter(|line| line.stream.is_none() && names.contains(&line.invoice)) {
            let Sold::Pack { credits, expires_after } = line.sold else { continue };
            if line.kind == Kind::Trial {
                continue;
            }
            let length = if line.is_proration && line.seconds() > 0 {
                ratio(line.seconds(), line.interval.seconds_before(line.end))
            } else {
                whole(1)
            };
            let worth = whole(credits) * whole(line.quantity) * length * &line.counts;
            let worth = if line.kind == Kind::Credit { -worth } else { worth };
            let expires = expires_after.map(|span| span.after(line.paid_at, 1));
            add_pack(&mut grants, payment, &line.price, line.paid_at, worth, expires);
        }
    }
    grants.into_values().collect()
}

fn add_pack(
    grants: &mut BTreeMap<Key, Grant>,
    payment: &str,
    price: &str,
    at: i64,
    worth: Fraction,
    expires: Option<i64>,
) {
    let key = Key::Pack { payment: payment.to_owned(), price: price.to_owned() };
    let grant = Grant { expires, ..Grant::new(key.clone(), Pool::Purchased, at, worth) };
    match grants.get_mut(&key) {
        Some(known) => known.entries.extend(grant.entries),
        None => drop(grants.insert(key, grant)),
    }
}

type Bought<'a> = ((String, Option<String>), i64, &'a Session);

/// What the payment's session bought, else its intent behind no session and no invoice: price, product and quantity.
fn bought_once<'a>(world: &'a World, names: &std::collections::BTreeSet<String>) -> Vec<Bought<'a>> {
    let intents = || names.iter().filter_map(|name| world.facts.intents.get(name));
    let sessions = || names.iter().filter_map(|name| world.facts.sessions.get(name));
    for session in sessions().filter(|session| session.is_payment) {
        // "`unpaid` waits, until a session event says paid, or its payment intent `succeeded`."
        let is_paid = session.status == "paid"
            || session.status == "no_payment_required" && world.catalog.grants_unpaid
            || session.status == "unpaid" && intents().any(|intent| intent.has_succeeded);
        if is_paid {
            return lines_of_session(world, session);
        }
    }
    let has_invoice = names.iter().any(|name| world.facts.invoices.contains_key(name));
    if has_invoice || sessions().next().is_some() {
        return Vec::new();
    }
    let paid = intents().filter(|intent| intent.has_succeeded && intent.names_user);
    paid.flat_map(|intent| lines_of_session(world, &intent.bought)).collect()
}

/// "A session's lines are Stripe's"; where none are known, metadata `price_id` or `pack`, times `quantity`, names the
/// line. "A line with an unknown (inline) price is worth what metadata's pack or price says, if it is the only one."
fn lines_of_session<'a>(world: &World, session: &'a Session) -> Vec<Bought<'a>> {
    let pack = session.metadata_pack.as_ref().and_then(|key| world.catalog.price_of_pack(key));
    let named = session.metadata_price.as_ref().or(pack);
    let Some(lines) = &session.lines else {
        return named
            .map(|price| ((price.clone(), None), session.metadata_quantity, session))
            .into_iter()
            .collect();
    };
    let is_known = |line: &SessionLine| {
        line.price.as_ref().is_some_and(|price| world.catalog.worth(price, line.product.as_deref()).is_some())
    };
    if let ([line], Some(named)) = (lines.as_slice(), named)
        && !is_known(line)
    {
        return vec![((named.clone(), None), line.quantity, session)];
    }
    let priced = lines
        .iter()
        .filter_map(|line| Some(((line.price.clone()?, line.product.clone()), line.quantity, session)));
    priced.collect()
}

/// "`trial_credits`, once per user, beside the streams: they lapse with the line": those of the earliest paid invoice
/// that still stands and whose plan gives some.
pub(super) fn trial(lines: &[Line]) -> Option<(Grant, Stream)> {
    let trials = lines.iter().filter_map(|line| {
        let credits =
            line.sold.plan().filter(|_| line.kind == Kind::Trial && line.stands)?.plan.trial_credits;
        (credits > 0).then_some((line, credits))
    });
    let (line, credits) = trials.min_by_key(|(line, _)| order(line))?;
    let grant = Grant::new(Key::Trial, Pool::Subscription, line.paid_at, whole(credits));
    let grant = Grant { starts: line.start, ends: Some(line.end), expires: Some(line.end), ..grant };
    Some((grant, line.stream.clone()?))
}

/// "First-purchase bonus: once per user, by the earliest paid invoice that still stands; a reversal is counted over what
/// stands." "A first invoice discounted to 0 earns no bonus."
pub(super) fn bonus(lines: &[Line]) -> Option<Grant> {
    let is_paid =
        |line: &&Line| matches!(line.kind, Kind::Whole | Kind::Charge) && !line.is_free && line.stands;
    let paid = || lines.iter().filter(|line| line.sold.plan().is_some()).filter(is_paid);
    let first = paid().min_by_key(|line| order(line))?;
    let its = paid().filter(|line| line.invoice == first.invoice);
    let worths =
        its.filter_map(|line| Some(whole(line.sold.plan()?.plan.first_purchase_bonus) * &line.counts));
    let worth = worths.max().filter(|worth| *worth > whole(0))?;
    let key = Key::Bonus { invoice: first.invoice.clone() };
    Some(Grant { place: first.place, ..Grant::new(key, Pool::Promotional, first.paid_at, worth) })
}

fn order(line: &Line) -> (i64, i64, String, usize) {
    (line.paid_at, line.invoice_created, line.invoice.clone(), line.place)
}
