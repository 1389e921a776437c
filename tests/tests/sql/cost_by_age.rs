//! What an invoice costs does not grow with the age of its subscription: counted in rows that Postgres reads, which no other
//! load of the machine changes. `cargo xtask bench --ages` says the same in time.

use std::collections::BTreeMap;

use serde_json::json;
use stripe_credits_tests::plans::{Clocked, plan_database};
use stripe_credits_tests::subscription::{PRO, YEAR, invoice, line, months_after, subscription};
use stripe_credits_tests::{ANN, BOB, Database, Event, user};

/// When the first period begins, so that ten years of them are over: in May 2014.
const BEGAN: i64 = 1_400_000_000;
/// The period whose invoice is the measure: there are some before it that are over.
const YOUNG: u32 = 3;
/// Ten years, in months.
const MONTHS: u32 = 120;
/// Rows of a table that may be read beyond those of the young one: of a small table, the planner reads some index whole. What
/// grows with age grows by a row with each month or part.
const ROOM: i64 = 20;
/// Other users, so that the planner knows that the rows of one are few of many.
const OTHERS: u128 = 50;

/// A subscription that renews, of a user who lives by a test clock: what is spent is spent in its period.
#[derive(Clone, Copy)]
struct Renewing {
    price: (&'static str, i64),
    /// The length of its periods, in months.
    months: u32,
    /// The quantities that its periods take turns with.
    quantities: &'static [i64],
}

const YEARLY: Renewing = Renewing { price: YEAR, months: 12, quantities: &[1] };
/// Its seats change with every renewal, so that each leaves a state of the item.
const SEATS: Renewing = Renewing { price: PRO, months: 1, quantities: &[1, 2] };

impl Renewing {
    fn periods(self) -> u32 {
        MONTHS / self.months
    }

    fn period(self, n: u32) -> (i64, i64) {
        (months_after(BEGAN, n * self.months), months_after(BEGAN, (n + 1) * self.months))
    }

    fn quantity(self, n: u32) -> i64 {
        self.quantities[n as usize % self.quantities.len()]
    }

    /// The state at the start of a period.
    fn state(self, n: u32) -> Event {
        let state = subscription("sub_1", self.price.0).of(ANN).items(&[(self.price.0, self.quantity(n))]);
        state.clocked().during(self.period(n)).updated(&format!("evt_{n}"), self.period(n).0)
    }

    fn paid(self, n: u32) -> Event {
        let amount = self.price.1 * self.quantity(n);
        let line = line(self.price.0, amount, self.period(n)).item("si_1").quantity(self.quantity(n));
        let invoice = invoice(&format!("in_{n}"), "sub_1").of(ANN).line(line).paid_at(self.period(n).0);
        invoice.clocked().paid(&format!("evt_in_{n}"))
    }
}

/// A database whose catalog asks for everything that is looked for in a user's past, with other users in it.
fn database() -> Database {
    let db = plan_database(&json!({ "trial_credits": 300, "first_purchase_bonus": 200 }));
    let mut c = db.connect();
    for number in 1..=OTHERS {
        let (id, period) = (format!("sub_of_{number}"), SEATS.period(0));
        let state = subscription(&id, PRO.0).of(user(1_000 + number)).during(period);
        c.apply(&state.updated(&format!("evt_{id}"), period.0));
        let line = line(PRO.0, PRO.1, period).item(&format!("si_of_{number}"));
        let paid = invoice(&format!("in_of_{number}"), &id).of(user(1_000 + number)).line(line);
        c.apply(&paid.paid_at(period.0).paid(&format!("evt_in_{id}")));
    }
    db
}

/// The rows that Postgres reads of each table to apply an event, with the statistics of a database that is kept.
fn rows_read(db: &Database, event: &Event) -> BTreeMap<String, i64> {
    let mut c = db.connect();
    c.run("vacuum analyze");
    // A table of few pages is read by the page, however few rows of it are asked for.
    c.run("set enable_seqscan = off; set enable_bitmapscan = off; begin");
    assert_eq!(c.apply(event).summary(), "applied");
    let rows = c
        .query(
            "select relname::text, coalesce(seq_tup_read, 0) + coalesce(idx_tup_fetch, 0)
             from pg_stat_xact_user_tables where schemaname = 'billing'",
            &[],
        )
        .expect("the counters");
    c.run("commit");
    rows.into_iter().map(|row| (row.get(0), row.get(1))).collect()
}

/// Lets a subscription live for ten years, and compares what the invoices of a young and of the old one read.
fn compare(db: &Database, renewing: Renewing, what: &str) {
    let mut c = db.connect();
    let mut young = BTreeMap::new();
    for n in 0..renewing.periods() {
        c.apply(&renewing.state(n));
        if n == YOUNG {
            young = rows_read(db, &renewing.paid(n));
        } else {
            c.apply(&renewing.paid(n));
        }
        assert!(c.spend(ANN, 1, &format!("spend-{n}")).ok);
    }
    let last = renewing.periods();
    c.apply(&renewing.state(last));
    let old = rows_read(db, &renewing.paid(last));
    let more: Vec<String> = old
        .iter()
        .filter(|(table, rows)| **rows > young[*table] + ROOM)
        .map(|(table, rows)| format!("{table}: {rows}, not {}", young[table]))
        .collect();
    assert_eq!(more, [""; 0], "rows that are read of an old subscription, {what}");
    assert_eq!(c.faults(), [""; 0]);
}

#[test]
fn an_invoice_after_ten_years_reads_the_rows_of_a_young_ones() {
    for (renewing, what) in [(SEATS, "seats that change"), (YEARLY, "yearly in parts")] {
        compare(&database(), renewing, what);
    }
}

#[test]
fn nor_does_it_beside_another_old_subscription_or_after_a_move() {
    let db = database();
    let mut c = db.connect();
    let other = subscription("sub_2", "price_seat").of(BOB).during(SEATS.period(0)).clocked();
    c.apply(&other.updated("evt_other", BEGAN));
    let line = line("price_seat", 1_000, SEATS.period(0)).item("si_2");
    let paid = invoice("in_other", "sub_2").of(BOB).line(line).paid_at(BEGAN).clocked();
    c.apply(&paid.paid("evt_in_other"));
    // What is left of it would stay, and with it everything since is looked at.
    assert!(c.spend(BOB, 1_000, "spend-other").ok);
    assert_eq!(c.attribute("sub_2", ANN).summary(), "applied");
    compare(&db, SEATS, "beside one that moved");
}
