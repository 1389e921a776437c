//! What an invoice costs by the age of its subscription. Each event is timed by itself, and the ages take turns, so that what
//! else the machine does meets all of them alike.

use std::time::Instant;

use comfy_table::Table;
use postgres::Client;
use serde_json::{Value, json};
use uuid::Uuid;
use xtask::cluster::Cluster;
use xtask::figures::{median, table};
use xtask::{Error, Result, signals};

/// The database with subscriptions of all ages.
pub(super) const DATABASE: &str = "bench_ages";
/// How old the old subscriptions are, in months, and how many there are of each kind.
const MONTHS: u32 = 120;
const CUSTOMERS: u32 = 40;
/// Invoices of each old subscription that are timed. All periods begin before today.
const INVOICES: u32 = 2;
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
    client.execute("select from billing.load_catalog($1)", &[&catalog()])?;
    let kinds =
        [("monthly", Kind::Monthly), ("seats that change", Kind::Seats), ("yearly in parts", Kind::Yearly)];
    let mut table = table(&["an invoice, ms", "first period", "after ten years", "ratio"]);
    for (name, kind) in kinds {
        let subscribers: Vec<Subscriber> = (0..CUSTOMERS).map(|_| Subscriber::new(kind)).collect();
        for subscriber in &subscribers {
            for period in 0..kind.periods() {
                subscriber.live(&mut client, period)?;
            }
        }
        client.batch_execute("vacuum analyze")?;
        let (mut first, mut later) = (Vec::new(), Vec::new());
        for period in (kind.periods()..).take(INVOICES as usize) {
            for subscriber in &subscribers {
                signals::check()?;
                first.push(Subscriber::new(kind).live(&mut client, period)?);
                later.push(subscriber.live(&mut client, period)?);
            }
        }
        let (first, later) = (median(first), median(later));
        let ratio = later / first;
        table.add_row([name.to_owned(), format!("{first:.2}"), format!("{later:.2}"), format!("{ratio:.2}")]);
    }
    Ok(table)
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

/// A user with one subscription.
struct Subscriber {
    kind: Kind,
    user: Uuid,
}

impl Subscriber {
    fn new(kind: Kind) -> Subscriber {
        Subscriber { kind, user: Uuid::new_v4() }
    }

    /// Lives through a period: its state, its paid invoice, a spend. Returns how long the invoice took, in milliseconds.
    fn live(&self, client: &mut Client, period: u32) -> Result<f64> {
        let Subscriber { kind, user } = *self;
        let length = MONTH * kind.months();
        let (start, end) = (FIRST + period * length, FIRST + (period + 1) * length);
        let quantity = if kind == Kind::Seats { 1 + period % 2 } else { 1 };
        let tag = user.simple();
        let subscription = json!({
            "id": format!("sub_{tag}"), "object": "subscription", "status": "active", "livemode": false,
            "customer": format!("cus_{tag}"), "cancel_at_period_end": false, "metadata": { "user_id": user },
            "items": { "object": "list", "has_more": false, "data": [{
                "id": format!("si_{tag}"), "object": "subscription_item", "quantity": quantity,
                "price": { "id": kind.price(), "object": "price" },
                "current_period_start": start, "current_period_end": end,
            }] },
        });
        let invoice = json!({
            "id": format!("in_{tag}_{period}"), "object": "invoice", "status": "paid", "livemode": false,
            "customer": format!("cus_{tag}"), "created": start, "billing_reason": "subscription_cycle",
            "currency": "usd", "total": 10_000, "status_transitions": { "paid_at": start },
            "parent": { "type": "subscription_details", "subscription_details": {
                "subscription": format!("sub_{tag}"), "metadata": { "user_id": user } } },
            "lines": { "object": "list", "has_more": false, "data": [{
                "object": "line_item", "amount": 10_000, "quantity": quantity,
                "parent": { "type": "subscription_item_details", "subscription_item_details": {
                    "proration": false, "subscription": format!("sub_{tag}"),
                    "subscription_item": format!("si_{tag}") } },
                "pricing": { "type": "price_details", "price_details": { "price": kind.price() } },
                "period": { "start": start, "end": end },
            }] },
        });
        deliver(
            client,
            &format!("evt_s_{tag}_{period}"),
            "customer.subscription.updated",
            start,
            &subscription,
        )?;
        let took = deliver(client, &format!("evt_i_{tag}_{period}"), "invoice.paid", start, &invoice)?;
        client.execute(
            "select from billing.spend_credits($1, 10, $2)",
            &[&user, &format!("request-{period}")],
        )?;
        Ok(took)
    }
}

/// Applies an event, and returns how long that took, in milliseconds.
fn deliver(client: &mut Client, id: &str, event_type: &str, created: u32, object: &Value) -> Result<f64> {
    let event = json!({
        "id": id, "object": "event", "api_version": "2025-09-30.clover", "created": created, "livemode": false,
        "pending_webhooks": 1, "type": event_type, "data": { "object": object },
    });
    let started = Instant::now();
    let row = client.query_one("select outcome from billing.apply_stripe_event($1)", &[&event])?;
    let took = started.elapsed().as_secs_f64() * 1e3;
    match row.get(0) {
        "applied" => Ok(took),
        outcome => Err(Error::Unmet(format!("{id} was {outcome}"))),
    }
}
