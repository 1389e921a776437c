//! The histories of some vectors, as operations.

use crate::simulator::Anchor::{self, Now, Unchanged};
use crate::simulator::BillingMode::{self, Classic, Flexible};
use crate::simulator::BoughtBy::Session;
use crate::simulator::CancelAt::PeriodEndByDate;
use crate::simulator::NoteWay::Credit;
use crate::simulator::Operation::{
    self, AddItem, Buy, Cancel, CancelLater, Change, CreditNote, Dispute, ExtendTrial, Refund, RemoveItem,
    WinDispute,
};
use crate::simulator::Portion::Cents;
use crate::simulator::Proration::{self, Create, Invoice};
use crate::simulator::{Months, Price, Start};

/// What the vectors' catalog sells.
pub(super) const PRICES: &[Price] = &[
    Price { id: "price_pro", cents: 10_000, months: 1, credits: 10_000, part_months: 0 },
    Price { id: "price_max", cents: 30_000, months: 1, credits: 30_000, part_months: 0 },
    Price { id: "price_seat", cents: 1_000, months: 1, credits: 1_000, part_months: 0 },
    Price { id: "price_roll", cents: 1_000, months: 1, credits: 1_000, part_months: 0 },
    Price { id: "price_pro_year", cents: 100_000, months: 12, credits: 120_000, part_months: 1 },
    Price { id: "price_pack", cents: 1_000, months: 0, credits: 500, part_months: 0 },
    Price { id: "price_pack_month", cents: 1_000, months: 1, credits: 500, part_months: 0 },
];

/// One vector's history.
pub(super) struct Story {
    /// The vector's name.
    pub(super) vector: &'static str,
    /// How long its months are.
    pub(super) months: Months,
    /// When it is over, in seconds after the vector's base.
    pub(super) last: i64,
    /// What is done, each so many seconds after the base.
    pub(super) operations: fn() -> Vec<(i64, Operation)>,
}

fn subscribe(mode: BillingMode, items: &[(&'static str, i64)], percent_off: i64) -> Operation {
    Operation::Subscribe { mode, items: items.to_vec(), start: Start::Paid, percent_off }
}

fn price(item: usize, price: &'static str, proration: Proration, anchor: Anchor) -> Operation {
    Change { subscription: 0, item, price: Some(price), quantity: None, proration, anchor }
}

fn quantity(item: usize, quantity: i64, proration: Proration, anchor: Anchor) -> Operation {
    Change { subscription: 0, item, price: None, quantity: Some(quantity), proration, anchor }
}

pub(super) const STORIES: &[Story] = &[
    Story {
        vector: "plan_and_seats",
        months: Months::Even,
        last: 3_369_840,
        operations: || {
            vec![
                (0, subscribe(Classic, &[("price_pro", 1), ("price_seat", 3)], 0)),
                (691_380, quantity(1, 8, Invoice, Unchanged)),
            ]
        },
    },
    Story {
        vector: "item_added_and_removed",
        months: Months::Even,
        last: 1_209_960,
        operations: || {
            vec![
                (0, subscribe(Classic, &[("price_pro", 1)], 0)),
                (691_380, AddItem { subscription: 0, price: "price_max", quantity: 1, proration: Invoice }),
                (1_123_500, RemoveItem { subscription: 0, item: 1, proration: Invoice }),
            ]
        },
    },
    Story {
        vector: "canceled_prorated_then_again",
        months: Months::Even,
        last: 1_209_900,
        operations: || {
            vec![
                (0, subscribe(Classic, &[("price_pro", 1)], 0)),
                (950_580, Cancel { subscription: 0, proration: Invoice }),
                (1_037_040, subscribe(Classic, &[("price_pro", 1)], 0)),
            ]
        },
    },
    Story {
        vector: "free_month",
        months: Months::Even,
        last: 2_333_040,
        operations: || {
            vec![
                (0, subscribe(Classic, &[("price_pro", 1)], 0)),
                (518_580, ExtendTrial { subscription: 0, days: 20 }),
            ]
        },
    },
    Story {
        vector: "discount_of_half",
        months: Months::Even,
        last: 864_240,
        operations: || {
            vec![
                (0, subscribe(Classic, &[("price_pro", 1)], 50)),
                (777_780, price(0, "price_max", Invoice, Unchanged)),
            ]
        },
    },
    Story {
        vector: "pack_disputed_and_won",
        months: Months::Even,
        last: 300,
        operations: || {
            vec![
                (0, Buy { price: "price_pack", quantity: 1, by: Session }),
                (120, Dispute { payment: 0, portion: Cents(1000) }),
                (180, Buy { price: "price_pack", quantity: 1, by: Session }),
                (300, WinDispute { dispute: 0 }),
            ]
        },
    },
    Story {
        vector: "dispute_beside_balance",
        months: Months::Even,
        last: 3_974_700,
        operations: || {
            vec![
                (0, subscribe(Classic, &[("price_max", 1)], 0)),
                (1_209_780, price(0, "price_pro", Invoice, Unchanged)),
                (3_888_240, price(0, "price_max", Invoice, Now)),
                (3_974_700, Dispute { payment: 1, portion: Cents(24_336) }),
            ]
        },
    },
    Story {
        vector: "recurring_pack",
        months: Months::Even,
        last: 3_888_420,
        operations: || {
            vec![
                (0, subscribe(Classic, &[("price_pack_month", 2)], 0)),
                (1_209_720, quantity(0, 4, Invoice, Unchanged)),
                (1_209_780, quantity(0, 1, Invoice, Unchanged)),
                (1_209_840, quantity(0, 3, Invoice, Unchanged)),
            ]
        },
    },
    Story {
        vector: "life_02",
        months: Months::Even,
        last: 2_682_540,
        operations: || {
            vec![
                (0, subscribe(Classic, &[("price_pro", 1)], 0)),
                (864_120, price(0, "price_max", Invoice, Now)),
                (1_641_840, quantity(0, 5, Invoice, Now)),
                (2_682_420, price(0, "price_pro", Invoice, Now)),
            ]
        },
    },
    Story {
        vector: "life_08",
        months: Months::Even,
        last: 4_846_320,
        operations: || {
            vec![
                (0, subscribe(Classic, &[("price_pro", 1)], 0)),
                (1_901_100, price(0, "price_roll", Invoice, Unchanged)),
                (2_160_360, AddItem { subscription: 0, price: "price_seat", quantity: 3, proration: Create }),
                (2_164_020, RemoveItem { subscription: 0, item: 1, proration: Create }),
                (2_164_140, price(0, "price_pro", Proration::None, Now)),
            ]
        },
    },
    Story {
        vector: "flex_month_year_month",
        months: Months::Calendar,
        last: 4_147_620,
        operations: || {
            vec![
                (0, subscribe(Flexible, &[("price_pro", 1)], 0)),
                (777_780, price(0, "price_pro_year", Invoice, Unchanged)),
                (1_382_700, price(0, "price_max", Invoice, Unchanged)),
            ]
        },
    },
    Story {
        vector: "flex_reset_pending_then_upgrade",
        months: Months::Even,
        last: 3_974_880,
        operations: || {
            vec![
                (0, subscribe(Flexible, &[("price_pro", 1)], 0)),
                (
                    1_036_980,
                    Change {
                        subscription: 0,
                        item: 0,
                        price: None,
                        quantity: None,
                        proration: Create,
                        anchor: Now,
                    },
                ),
                (1_123_440, price(0, "price_max", Invoice, Unchanged)),
            ]
        },
    },
    Story {
        vector: "flex_discount_of_everything",
        months: Months::Calendar,
        last: 4_493_220,
        operations: || {
            vec![
                (0, subscribe(Flexible, &[("price_pro", 1)], 100)),
                (864_180, price(0, "price_max", Invoice, Unchanged)),
                (950_700, price(0, "price_pro_year", Invoice, Unchanged)),
            ]
        },
    },
    Story {
        vector: "flex_canceled_prorated",
        months: Months::Even,
        last: 1_296_300,
        operations: || {
            vec![
                (0, subscribe(Flexible, &[("price_pro", 1)], 0)),
                (864_180, Cancel { subscription: 0, proration: Invoice }),
                (950_640, subscribe(Flexible, &[("price_pro", 1)], 0)),
            ]
        },
    },
    Story {
        vector: "flex_mixed_intervals",
        months: Months::Calendar,
        last: 6_048_360,
        operations: || {
            vec![
                (0, subscribe(Flexible, &[("price_pro_year", 1), ("price_seat", 3)], 0)),
                (691_380, quantity(1, 5, Invoice, Unchanged)),
                (3_369_900, Refund { payment: 2, portion: Cents(2500) }),
            ]
        },
    },
    Story {
        vector: "flex_life_0",
        months: Months::Calendar,
        last: 2_085_180,
        operations: || {
            vec![
                (0, subscribe(Flexible, &[("price_pro", 1)], 0)),
                (1_296_240, CreditNote { invoice: 0, portion: Cents(3333), way: Credit }),
                (1_299_960, CreditNote { invoice: 0, portion: Cents(3333), way: Credit }),
                (1_303_680, AddItem { subscription: 0, price: "price_pro", quantity: 3, proration: Invoice }),
                (2_081_400, Dispute { payment: 1, portion: Cents(2748) }),
                (2_085_060, quantity(0, 2, Invoice, Now)),
            ]
        },
    },
    Story {
        vector: "flex_life_1",
        months: Months::Calendar,
        last: 3_042_960,
        operations: || {
            vec![
                (0, subscribe(Flexible, &[("price_pro", 1)], 0)),
                (90_120, Cancel { subscription: 0, proration: Invoice }),
                (349_380, subscribe(Flexible, &[("price_max", 1)], 0)),
                (353_100, Buy { price: "price_pack", quantity: 3, by: Session }),
                (1_912_140, CancelLater { subscription: 0, when: PeriodEndByDate }),
                (1_915_860, CancelLater { subscription: 0, when: PeriodEndByDate }),
                (3_042_840, subscribe(Flexible, &[("price_max", 1)], 0)),
            ]
        },
    },
];
