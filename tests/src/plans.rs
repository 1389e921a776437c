//! What the scenarios about plans share: their catalog, how Stripe bills changes, both shapes of its API, its test clocks.

use serde_json::{Value, json};

use crate::connection::Connection;
use crate::database::Database;
use crate::stripe::{CREATED, Event, event};
use crate::subscription::{Invoice, Line, Subscription, line, period};

/// The test clock of everything that is [`clocked`](Clocked::clocked).
pub const CLOCK: &str = "clock_1";

/// The catalog: pro 10,000 a month and as a year in monthly parts, max 30,000, seat 1,000, a quarter of 30,000, roll 1,000 with
/// a rollover of 500, a pack of 500 that is sold once and monthly. A cent buys a credit, but of packs half a credit.
pub fn plan_catalog() -> Value {
    json!({
        "livemode": false,
        "plans": [
            { "key": "seat", "rank": 0, "credits": 1_000, "prices": ["price_seat"] },
            {
                "key": "roll", "rank": 0, "credits": 1_000, "prices": ["price_roll"],
                "renewal": "rollover", "max_rollover": 500,
            },
            {
                "key": "pro", "rank": 1, "credits": 10_000,
                "prices": ["price_pro", { "id": "price_pro_year", "drip": "1 month" }],
            },
            {
                "key": "quarter", "rank": 1, "credits": 30_000,
                "prices": [{ "id": "price_quarter", "every": "3 months" }],
            },
            { "key": "max", "rank": 2, "credits": 30_000, "prices": ["price_max"] },
        ],
        "packs": [{ "key": "pack_500", "credits": 500, "prices": ["price_pack", "price_pack_month"] }],
        "not_credits": ["price_tshirt", "price_calls"],
    })
}

/// The same with fields of all of its plans set.
///
/// # Panics
/// If `fields` is not an object.
pub fn plan_catalog_with(fields: &Value) -> Value {
    let mut catalog = plan_catalog();
    for plan in catalog["plans"].as_array_mut().expect("plans") {
        for (field, value) in fields.as_object().expect("fields") {
            plan[field] = value.clone();
        }
    }
    catalog
}

/// A database with [`plan_catalog_with`] these fields.
pub fn plan_database(fields: &Value) -> Database {
    let db = Database::new();
    db.connect().load_catalog(&plan_catalog_with(fields));
    db
}

/// The middle of a period.
pub fn middle((start, end): (i64, i64)) -> i64 {
    start + (end - start) / 2
}

/// The middle of the first month.
pub fn half() -> i64 {
    middle(period(0))
}

/// A proration that charges so many of a price from a time to the end of the interval that it is billed for.
pub fn charged((price_id, cents): (&str, i64), quantity: i64, interval: (i64, i64), from: i64) -> Line {
    let amount = share(cents * quantity, (from, interval.1), interval);
    line(price_id, amount, (from, interval.1)).quantity(quantity).prorated()
}

/// A proration that credits so many of a price that an invoice billed, from a time to the end of the interval.
pub fn credited(
    (price_id, cents): (&str, i64),
    quantity: i64,
    interval: (i64, i64),
    from: i64,
    invoice_id: &str,
) -> Line {
    let amount = -share(cents * quantity, (from, interval.1), interval);
    line(price_id, amount, (from, interval.1)).quantity(quantity).prorated().crediting(invoice_id)
}

/// The share of an amount that a part of an interval is, in whole cents as Stripe rounds: to the nearest.
fn share(cents: i64, part: (i64, i64), interval: (i64, i64)) -> i64 {
    let (part, whole) = (part.1 - part.0, interval.1 - interval.0);
    (2 * cents * part + whole) / (2 * whole)
}

/// The shapes of Stripe's API.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Api {
    /// Before 2025-03-31.
    Older,
    /// Since then.
    Newer,
}

impl Api {
    /// Both.
    pub const BOTH: [Api; 2] = [Api::Older, Api::Newer];

    /// An invoice's `invoice.paid` in this shape.
    #[must_use]
    pub fn paid(self, invoice: &Invoice) -> Event {
        let event_id = format!("evt_{}", invoice.id());
        match self {
            Api::Older => invoice.clone().older().paid(&event_id),
            Api::Newer => invoice.paid(&event_id),
        }
    }

    /// A subscription's `customer.subscription.updated` in this shape, made at a time.
    #[must_use]
    pub fn state(self, subscription: &Subscription, created: i64) -> Event {
        let event_id = format!("evt_state_{created}");
        match self {
            Api::Older => subscription.clone().older().updated(&event_id, created),
            Api::Newer => subscription.updated(&event_id, created),
        }
    }
}

/// What can live by [`CLOCK`].
pub trait Clocked {
    /// With the test clock named.
    #[must_use]
    fn clocked(self) -> Self;
}

impl Clocked for Subscription {
    fn clocked(self) -> Subscription {
        self.with("test_clock", CLOCK)
    }
}

impl Clocked for Invoice {
    fn clocked(self) -> Invoice {
        self.with("test_clock", CLOCK)
    }
}

/// The event that [`CLOCK`] stands at a time.
pub fn clock_at(frozen_time: i64) -> Event {
    let clock = json!({
        "id": CLOCK,
        "object": "test_helpers.test_clock",
        "created": CREATED,
        "frozen_time": frozen_time,
        "livemode": false,
        "name": null,
        "status": "ready",
    });
    event(&format!("evt_clock_{frozen_time}"), "test_helpers.test_clock.ready", clock)
}

impl Connection {
    /// Lets [`CLOCK`] stand at a time.
    pub fn stand_at(&mut self, frozen_time: i64) {
        let outcome = self.apply(&clock_at(frozen_time));
        assert!(outcome.ok, "{outcome:?}");
    }

    /// The amounts of a user's grants of subscriptions, in the order of their times, such as `si_1 10000`.
    pub fn periods(&mut self, user: uuid::Uuid) -> Vec<String> {
        self.column(
            "select format('%s %s', stripe_item_id, amount) from billing.credit_grants
             where user_id = $1 and stripe_subscription_id is not null and amount <> 0
             order by available_from, stripe_item_id, id",
            &[&user],
        )
    }
}
