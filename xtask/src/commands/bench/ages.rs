//! What an invoice costs by the age of its subscription: the processor time of the server's process, which what else the
//! machine does hardly changes. The ages take turns.

use comfy_table::Table;
use postgres::Client;
use serde_json::{Value, json};
use uuid::Uuid;
use xtask::cluster::Cluster;
use xtask::figures::{median, table};
use xtask::{Error, Result, signals};

use super::processor::microseconds;

/// The database with subscriptions of all ages.
pub(super) const DATABASE: &str = "bench_ages";
/// How old the old subscriptions are, in months, and how many there are of each kind.
const MONTHS: u32 = 120;
const CUSTOMERS: u32 = 20;
/// Invoices of each old subscription that are timed. All periods begin before today.
const INVOICES: u32 = 2;
/// Invoices that are timed together.
const BATCH: usize = 10;
/// Unix time of the first period, in May 2014; every month has 30 days.
const FIRST: u32 = 1_400_000_000;
const MONTH: u32 = 30 * 86_400;

/// What a subscription does.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// It renews every month.
    Monthly,
    /// The same, and the number of its seats changes with every renewal.
    Seats,
    /// It renews every year, and comes in monthly parts.
    Yearly,
}

/// The invoice of a first period against that of a subscription that has run for ten years, by kind.
pub(super) fn ages(cluster: &Cluster) -> Result<Table> {
    let mut client = cluster.connect(DATABASE)?;
    // Ten years of events are made, and processor time is what counts: nothing waits for the disk.
    client.batch_execute("set synchronous_commit = off")?;
    client.execute("select from billing.load_catalog($1)", &[&catalog()])?;
    let kinds =
        [("monthly", Kind::Monthly), ("seats that change", Kind::Seats), ("yearly in parts", Kind::Yearly)];
    let mut table = table(&["an invoice, ms", "first period", "after ten years", "ratio"]);
    for (name, kind) in kinds {
        let subscribers: Vec<Subscriber> = (0..CUSTOMERS).map(|_| Subscriber::new(kind)).collect();
        for subscriber in &subscribers {
            for period in 0..kind.periods() {
                subscriber.change(&mut client, period)?;
                subscriber.pay(&mut client, period)?;
                subscriber.spend(&mut client, period)?;
            }
        }
        client.batch_execute("vacuum analyze")?;
        let (mut first, mut later) = (Vec::new(), Vec::new());
        for period in (kind.periods()..).take(INVOICES as usize) {
            for old in subscribers.chunks(BATCH) {
                signals::check()?;
                let new: Vec<Subscriber> = old.iter().map(|_| Subscriber::new(kind)).collect();
                first.push(time_invoices(&mut client, &new, period)?);
                later.push(time_invoices(&mut client, old, period)?);
            }
        }
        let (first, later) = (median(first), median(later));
        let ratio = later / first;
        table.add_row([name.to_owned(), format!("{first:.2}"), format!("{later:.2}"), format!("{ratio:.2}")]);
    }
    Ok(table)
}

/// Lets subscribers live through a period. Returns what one of their invoices took, in milliseconds.
fn time_invoices(client: &mut Client, subscribers: &[Subscriber], period: u32) -> Result<f64> {
    for subscriber in subscribers {
        subscriber.change(client, period)?;
    }
    let started = microseconds(client)?;
    for subscriber in subscribers {
        subscriber.pay(client, period)?;
    }
    let took = (microseconds(client)? - started) / 1e3;
    for subscriber in subscribers {
        subscriber.spend(client, period)?;
    }
    Ok(took / f64::from(u32::try_from(subscribers.len()).unwrap_or(u32::MAX)))
}

/// A catalog with everything that an event looks for in a user's past.
fn catalog() -> Value {
    json!({
        "livemode": false,
        "plans": [{
            "key": "pro", "credits": 1000, "trial_credits": 100, "first_purchase_bonus": 50,
            "prices": ["price_month", { "id": "price_year", "every": "1 year", "drip": "1 month" }],
        }],
    })
}

impl Kind {
    /// How many periods are in [`MONTHS`].
    fn periods(self) -> u32 {
        MONTHS / self.months()
    }

    fn months(self) -> u32 {
        if self == Kind::Yearly { 12 } else { 1 }
    }

    fn price(self) -> &'static str {
        if self == Kind::Yearly { "price_year" } else { "price_month" }
    }
}

/// A user with one subscription, who lives by a test clock: what is spent is spent in its period.
struct Subscriber {
    kind: Kind,
    user: Uuid,
}

impl Subscriber {
    fn new(kind: Kind) -> Subscriber {
        Subscriber { kind, user: Uuid::new_v4() }
    }

    /// A period, from and to.
    fn span(&self, period: u32) -> (u32, u32) {
        let length = MONTH * self.kind.months();
        (FIRST + period * length, FIRST + (period + 1) * length)
    }

    fn quantity(&self, period: u32) -> u32 {
        if self.kind == Kind::Seats { 1 + period % 2 } else { 1 }
    }

    /// The subscription's state when a period begins.
    fn change(&self, client: &mut Client, period: u32) -> Result<()> {
        let (tag, (start, end)) = (self.user.simple(), self.span(period));
        let subscription = json!({
            "id": format!("sub_{tag}"), "object": "subscription", "status": "active", "livemode": false,
            "test_clock": format!("clock_{tag}"),
            "customer": format!("cus_{tag}"), "cancel_at_period_end": false, "metadata": { "user_id": self.user },
            "items": { "object": "list", "has_more": false, "data": [{
                "id": format!("si_{tag}"), "object": "subscription_item", "quantity": self.quantity(period),
                "price": { "id": self.kind.price(), "object": "price" },
                "current_period_start": start, "current_period_end": end,
            }] },
        });
        deliver(
            client,
            &format!("evt_s_{tag}_{period}"),
            "customer.subscription.updated",
            start,
            &subscription,
        )
    }

    /// A period's paid invoice.
    fn pay(&self, client: &mut Client, period: u32) -> Result<()> {
        let (tag, (start, end)) = (self.user.simple(), self.span(period));
        let invoice = json!({
            "id": format!("in_{tag}_{period}"), "object": "invoice", "status": "paid", "livemode": false,
            "test_clock": format!("clock_{tag}"),
            "customer": format!("cus_{tag}"), "created": start, "billing_reason": "subscription_cycle",
            "currency": "usd", "total": 10_000, "status_transitions": { "paid_at": start },
            "parent": { "type": "subscription_details", "subscription_details": {
                "subscription": format!("sub_{tag}"), "metadata": { "user_id": self.user } } },
            "lines": { "object": "list", "has_more": false, "data": [{
                "object": "line_item", "amount": 10_000, "quantity": self.quantity(period),
                "parent": { "type": "subscription_item_details", "subscription_item_details": {
                    "proration": false, "subscription": format!("sub_{tag}"),
                    "subscription_item": format!("si_{tag}") } },
                "pricing": { "type": "price_details", "price_details": { "price": self.kind.price() } },
                "period": { "start": start, "end": end },
            }] },
        });
        deliver(client, &format!("evt_i_{tag}_{period}"), "invoice.paid", start, &invoice)
    }

    /// Some of a period's credits.
    fn spend(&self, client: &mut Client, period: u32) -> Result<()> {
        let spend = "select from billing.spend_credits($1, 10, $2)";
        client.execute(spend, &[&self.user, &format!("request-{period}")])?;
        Ok(())
    }
}

/// Applies an event.
fn deliver(client: &mut Client, id: &str, event_type: &str, created: u32, object: &Value) -> Result<()> {
    let event = json!({
        "id": id, "object": "event", "api_version": "2025-09-30.clover", "created": created, "livemode": false,
        "pending_webhooks": 1, "type": event_type, "data": { "object": object },
    });
    let row = client.query_one("select outcome from billing.apply_stripe_event($1)", &[&event])?;
    match row.get(0) {
        "applied" => Ok(()),
        outcome => Err(Error::Unmet(format!("{id} was {outcome}"))),
    }
}
