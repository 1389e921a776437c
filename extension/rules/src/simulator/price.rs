//! What is sold: Stripe's prices, and the catalog that says what they are worth in credits.

use serde_json::{Value, json};

/// A Stripe price, and what the catalog says that it is worth.
#[derive(Debug, PartialEq, Eq)]
pub struct Price {
    /// Stripe's id.
    pub id: &'static str,
    /// What one unit costs for one interval, in cents.
    pub cents: i64,
    /// The billing interval in months; 0 for a price that is paid once.
    pub months: i32,
    /// What one unit of one interval is worth in credits, all parts of the interval together.
    pub credits: i64,
    /// The months of one part, for a price whose credits come in parts; 0 for all others.
    pub part_months: i32,
}

impl Price {
    /// What `cents` of this price buy, in credits, rounded to the nearest credit.
    #[must_use]
    pub fn worth(&self, cents: i64) -> i64 {
        share(cents, self.credits, self.cents)
    }

    /// What one unit is worth at once, in credits: the first part, or everything.
    #[must_use]
    pub fn credits_of_part(&self) -> i64 {
        if self.part_months == 0 {
            self.credits
        } else {
            self.credits * i64::from(self.part_months) / i64::from(self.months)
        }
    }

    /// Stripe's word for the interval, and how many of them.
    #[must_use]
    pub fn interval(&self) -> (&'static str, i32) {
        if self.months % 12 == 0 { ("year", self.months / 12) } else { ("month", self.months) }
    }
}

/// `amount × part ÷ whole`, rounded to the nearest whole number, halves away from zero.
#[must_use]
pub(super) fn share(amount: i64, part: i64, whole: i64) -> i64 {
    let (product, whole) = (i128::from(amount) * i128::from(part), i128::from(whole));
    let rounded = (2 * product.abs() + whole) / (2 * whole) * product.signum();
    i64::try_from(rounded).unwrap_or(i64::MAX)
}

/// Prices at which a cent is worth a credit, so that money and credits compare exactly.
pub const PRICES: &[Price] = &[
    Price { id: "price_pro", cents: 10_000, months: 1, credits: 10_000, part_months: 0 },
    Price { id: "price_max", cents: 30_000, months: 1, credits: 30_000, part_months: 0 },
    Price { id: "price_seat", cents: 1_000, months: 1, credits: 1_000, part_months: 0 },
    Price { id: "price_roll", cents: 1_000, months: 1, credits: 1_000, part_months: 0 },
    Price { id: "price_quarter", cents: 30_000, months: 3, credits: 30_000, part_months: 0 },
    Price { id: "price_pro_year", cents: 120_000, months: 12, credits: 120_000, part_months: 1 },
    Price { id: "price_pack", cents: 500, months: 0, credits: 500, part_months: 0 },
    Price { id: "price_pack_month", cents: 500, months: 1, credits: 500, part_months: 0 },
];

/// What the catalog does with credits when the plan goes down, ends, or its money goes back; the catalog's own words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Policies {
    /// `reset` or `keep`.
    pub plan_change: &'static str,
    /// `keep` or `expire`.
    pub cancellation: &'static str,
    /// `debt` or `forgive`.
    pub reversal_policy: &'static str,
}

impl Default for Policies {
    fn default() -> Self {
        Policies { plan_change: "reset", cancellation: "keep", reversal_policy: "debt" }
    }
}

/// The catalog document in which [`PRICES`] are worth what they say. No credits are free.
#[must_use]
pub fn catalog(policies: Policies) -> Value {
    let plan = |key: &str, rank: i64, credits: i64, prices: Value| {
        json!({"key": key, "name": key, "rank": rank, "credits": credits, "prices": prices,
               "plan_change": policies.plan_change, "cancellation": policies.cancellation})
    };
    let mut roll = plan("roll", 1, 1_000, json!(["price_roll"]));
    roll["renewal"] = json!("rollover");
    roll["max_rollover"] = json!(500);
    let year = json!({"id": "price_pro_year", "every": "1 year", "drip": "1 month"});
    json!({
        "livemode": false, "stripe_account": null, "signup_credits": 0,
        "reversal_policy": policies.reversal_policy, "no_payment_required": "grant",
        "plans": [
            plan("pro", 1, 10_000, json!(["price_pro", year])),
            plan("max", 2, 30_000, json!(["price_max"])),
            plan("seat", 0, 1_000, json!(["price_seat"])),
            plan("quarter", 1, 30_000, json!([{"id": "price_quarter", "every": "3 months"}])),
            roll,
        ],
        "packs": [{"key": "pack", "name": "pack", "credits": 500, "prices": ["price_pack", "price_pack_month"]}],
    })
}
