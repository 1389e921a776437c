//! Reads are right at every instant: just before and after each change that time alone causes, and long after several of
//! them, `user_credits` shows what posting then gives.

use serde_json::json;
use stripe_credits_tests::plans::{Clocked, plan_catalog};
use stripe_credits_tests::stripe::CREATED;
use stripe_credits_tests::subscription::{
    Invoice, MAX, PRO, ROLL, SEAT, Subscription, YEAR, invoice, line, month, period, subscription,
};
use stripe_credits_tests::{ANN, Connection, Database};

/// How many changes of one history are looked at.
const MOST_CHANGES: usize = 60;

fn plans(fields: &serde_json::Value) -> Database {
    let mut catalog = plan_catalog();
    for (key, value) in fields.as_object().expect("fields") {
        catalog[key] = value.clone();
    }
    let db = Database::new();
    db.connect().load_catalog(&catalog);
    db
}

fn plan_fields(fields: &serde_json::Value) -> serde_json::Value {
    let mut plans = plan_catalog()["plans"].clone();
    for plan in plans.as_array_mut().expect("plans") {
        for (key, value) in fields.as_object().expect("fields") {
            plan[key] = value.clone();
        }
    }
    json!({ "plans": plans })
}

fn subscribed(price_id: &str, span: (i64, i64)) -> Subscription {
    subscription("sub_1", price_id).of(ANN).items(&[(price_id, 1)]).during(span).clocked()
}

/// ANN's paid invoice for these periods of an item.
fn billed(invoice_id: &str, at: i64, (price_id, cents): (&str, i64), spans: &[(i64, i64)]) -> Invoice {
    let lines = spans.iter().map(|span| line(price_id, cents, *span).item("si_1"));
    lines.fold(invoice(invoice_id, "sub_1").of(ANN), Invoice::line).paid_at(at).clocked()
}

/// Pools and debt as the read model shows them.
fn read(c: &mut Connection) -> String {
    c.one(
        "select format('subscription %s purchased %s promotional %s debt %s', subscription_credits_balance,
             purchased_credits_balance, promotional_credits_balance, debt)
         from billing.user_credits where user_id = $1",
        &[&ANN],
    )
}

/// The same as posted.
fn posted(c: &mut Connection) -> String {
    c.one(
        "select format('subscription %s purchased %s promotional %s debt %s', subscription_credits,
             purchased_credits, promotional_credits, debt)
         from billing.accounts where user_id = $1",
        &[&ANN],
    )
}

/// Lets ANN's clock stand at a time, given as SQL; nothing is posted.
fn stand(c: &mut Connection, at: &str) {
    c.run(&format!(
        "update billing.test_clocks set frozen_time = {at} where clock_id =
             (select test_clock from billing.accounts where user_id = '{ANN}')"
    ));
}

/// Reads at a time before anything is posted, and compares with what is posted then, which is rolled back.
fn compare(c: &mut Connection, at: &str, history: &str) {
    c.run("savepoint looked");
    stand(c, at);
    let shown = read(c);
    c.run_due();
    let (after, ledger) = (posted(c), c.ledger(ANN));
    assert_eq!(shown, after, "{history} at {at}: {ledger:?}");
    assert_eq!(read(c), after, "{history} at {at}, posted");
    let (balance, at_clock): (i64, i64) = (
        c.one("select credits_balance - debt from billing.user_credits where user_id = $1", &[&ANN]),
        c.one(&format!("select billing.balance_at($1, {at})"), &[&ANN]),
    );
    assert_eq!(balance, at_clock, "{history} at {at}, by the ledger");
    c.run("rollback to looked");
}

/// Compares around every change that time causes from now on, and once long after all of them.
fn right_at_every_instant(c: &mut Connection, history: &str) {
    compare(c, "timestamptz '2031-01-01'", history);
    for _ in 0..MOST_CHANGES {
        let next: Option<String> =
            c.one("select next_due_at::text from billing.accounts where user_id = $1", &[&ANN]);
        let Some(next) = next else { return };
        let next = format!("timestamptz '{next}'");
        for around in ["- interval '1 microsecond'", "", "+ interval '1 microsecond'", "+ interval '40 days'"]
        {
            compare(c, &format!("({next} {around})"), history);
        }
        stand(c, &next);
        c.run_due();
    }
}

/// A history: what happened before time alone goes on.
type History = (&'static str, fn(&mut Connection));

fn play(db: &Database, histories: &[History]) {
    let mut c = db.connect();
    for (name, history) in histories {
        c.run("begin");
        c.stand_at(CREATED);
        history(&mut c);
        right_at_every_instant(&mut c, name);
        c.run("rollback");
    }
}

fn ahead(c: &mut Connection, price: (&'static str, i64), months: u32) {
    c.twice(&subscribed(price.0, period(0)).created("evt_sub"));
    c.twice(&billed("in_0", CREATED, price, &[period(0)]).paid("evt_0"));
    c.stand_at(CREATED + 60);
    let spans: Vec<_> = (1..=months).map(period).collect();
    c.twice(&billed("in_ahead", CREATED + 60, price, &spans).paid("evt_ahead"));
}

#[test]
fn months_that_were_billed_ahead_reset_or_roll_over_when_they_begin() {
    play(
        &plans(&json!({})),
        &[
            ("reset", |c| ahead(c, PRO, 3)),
            ("rollover", |c| ahead(c, ROLL, 3)),
            ("rollover, some spent", |c| {
                ahead(c, ROLL, 2);
                c.spend(ANN, 700, "job");
            }),
            ("a spend of all", |c| {
                ahead(c, PRO, 2);
                c.spend(ANN, 10_000, "job");
            }),
            ("nothing left and nothing to come", |c| {
                c.twice(&subscribed("price_pro", period(0)).created("evt_sub"));
                c.twice(&billed("in_0", CREATED, PRO, &[period(0)]).paid("evt_0"));
                c.spend(ANN, 10_000, "job");
            }),
            ("a reservation over an opening", |c| {
                ahead(c, PRO, 2);
                c.stand_at(month(1) - 5 * 86_400);
                c.call("reserve_credits($1, 4000, 'held', '20 days')", &[&ANN]);
            }),
            ("a pack beside it", |c| {
                ahead(c, PRO, 2);
                c.buy(ANN, "cs_1");
                c.call(
                    "grant_credits($1, 70, 'gift', null, billing.account_time('clock_1') + interval '35 days')",
                    &[&ANN],
                );
            }),
        ],
    );
}

#[test]
fn parts_come_and_go_in_their_time() {
    play(
        &plans(&json!({})),
        &[
            ("a year", |c| {
                c.twice(&subscribed("price_pro_year", (CREATED, month(12))).created("evt_sub"));
                c.twice(&billed("in_0", CREATED, YEAR, &[(CREATED, month(12))]).paid("evt_0"));
                c.spend(ANN, 3_000, "job");
            }),
            ("a year, then another that was billed ahead", |c| {
                c.twice(&billed("in_0", CREATED, YEAR, &[(CREATED, month(12))]).paid("evt_0"));
                c.stand_at(month(11));
                c.twice(&billed("in_1", month(11), YEAR, &[(month(12), month(24))]).paid("evt_1"));
            }),
            ("a year that was paid in its fourth month", |c| {
                c.stand_at(month(3) + 60);
                c.twice(&billed("in_0", month(3), YEAR, &[(CREATED, month(12))]).paid("evt_0"));
            }),
        ],
    );
}

#[test]
fn what_a_debt_takes_of_what_comes_is_taken_when_it_comes() {
    play(
        &plans(&json!({})),
        &[("refunded", |c| {
            ahead(c, PRO, 2);
            c.buy(ANN, "cs_1");
            c.spend(ANN, 10_400, "job");
            c.twice(&stripe_credits_tests::refunds::refunded("re_1", "pi_1", 1_000));
        })],
    );
}

#[test]
fn credits_of_a_canceled_plan_expire_at_its_end() {
    play(
        &plans(&plan_fields(&json!({ "cancellation": "expire", "plan_change": "keep" }))),
        &[
            ("at the period's end", |c| {
                ahead(c, PRO, 1);
                let ends = subscribed("price_pro", period(0)).with("cancel_at_period_end", true);
                c.twice(&ends.updated("evt_end", CREATED + 120));
            }),
            ("a year in its middle", |c| {
                c.twice(&billed("in_0", CREATED, YEAR, &[(CREATED, month(12))]).paid("evt_0"));
                let ends =
                    subscribed("price_pro_year", (CREATED, month(12))).with("cancel_at", month(5) + 9_000);
                c.twice(&ends.updated("evt_end", CREATED + 120));
            }),
            ("a plan that is no longer listed", |c| {
                ahead(c, MAX, 1);
                c.twice(&subscribed("price_seat", period(0)).updated("evt_down", CREATED + 120));
            }),
            ("an item beside it", |c| {
                ahead(c, PRO, 1);
                let seat = line(SEAT.0, SEAT.1, period(1)).item("si_2");
                let seat = invoice("in_seat", "sub_1").of(ANN).line(seat).paid_at(CREATED + 60).clocked();
                c.twice(&seat.paid("evt_seat"));
            }),
        ],
    );
}

#[test]
fn a_trial_ends_with_its_line_or_when_the_paid_period_begins() {
    play(
        &plans(&plan_fields(&json!({ "trial_credits": 300, "first_purchase_bonus": 70 }))),
        &[
            ("a trial", |c| {
                let trial = (CREATED, CREATED + 14 * 86_400);
                c.twice(&billed("in_0", CREATED, (PRO.0, 0), &[trial]).paid("evt_0"));
            }),
            ("a trial and what it becomes, billed ahead", |c| {
                let trial = (CREATED, CREATED + 14 * 86_400);
                c.twice(&billed("in_0", CREATED, (PRO.0, 0), &[trial]).paid("evt_0"));
                let paid = (trial.1 - 86_400, trial.1 - 86_400 + 30 * 86_400);
                c.twice(&billed("in_1", CREATED + 60, PRO, &[paid]).paid("evt_1"));
            }),
        ],
    );
}

#[test]
fn a_free_plans_months_come_and_go() {
    let free = json!({ "key": "free", "name": "Free", "credits": 5, "every": "1 month" });
    let db = plans(&json!({ "free_plan": free, "signup_credits": 500 }));
    let mut c = db.connect();
    for signed_up in ["2026-01-31 12:00", "2026-02-28 12:00", "2026-03-05 12:00"] {
        c.run("begin");
        c.stand_at(CREATED);
        c.twice(&billed("in_0", CREATED, (PRO.0, 0), &[period(0)]).paid("evt_0"));
        stand(&mut c, &format!("timestamptz '{signed_up}+00'"));
        c.sign_up(ANN);
        c.spend(ANN, 3, "job");
        compare(&mut c, "timestamptz '2027-07-01'", signed_up);
        for months in [1, 2, 3, 4, 11] {
            for around in ["-1 microsecond", "0", "3 days"] {
                let at = format!(
                    "(timestamptz '{signed_up}+00' + interval '{months} months' + interval '{around}')"
                );
                compare(&mut c, &at, signed_up);
            }
        }
        c.run("rollback");
    }
}
