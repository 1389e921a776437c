//! What a change of plan shows is what it then posts: the preview, the change, and the webhooks of what Stripe made of it.

use serde_json::{Value, json};
use stripe_credits_tests::app::app;
use stripe_credits_tests::fake_stripe::FakeStripe;
use stripe_credits_tests::plans::{CLOCK, clock_at, plan_catalog_with};
use stripe_credits_tests::refunds::refunded;
use stripe_credits_tests::shim::{Shim, unix_now};
use stripe_credits_tests::subscription::{invoice, line, months_after, subscription};
use stripe_credits_tests::{ANN, Connection, Database, event, paid_pack};

const DAY: i64 = 86_400;
const SUBSCRIPTION: &str = "/v1/subscriptions/sub_1";

/// A user with a subscription that began fifteen days ago, at Stripe and in the books.
struct Subscribed {
    shim: Shim,
    books: Connection,
    stripe: FakeStripe,
    _database: Database,
}

/// What a change does to a balance, by the answer to a request.
#[derive(Debug, PartialEq, Eq)]
struct Shown {
    direction: String,
    credits_now: i64,
    credits_after: i64,
    debt_after: i64,
}

impl Shown {
    fn of(answer: &Value) -> Shown {
        let number = |name: &str| answer[name].as_i64().unwrap_or_else(|| panic!("no {name}: {answer}"));
        Shown {
            direction: answer["direction"].as_str().unwrap_or_default().to_owned(),
            credits_now: number("credits_now"),
            credits_after: number("credits_after"),
            debt_after: number("debt_after"),
        }
    }
}

/// The order in which the webhooks of a change come.
#[derive(Debug, Clone, Copy)]
enum First {
    Status,
    Invoice,
}

/// Subscribes to so many of a price, with these policies of all plans.
fn subscribed(bought: (&str, i64), policies: &Value) -> Subscribed {
    subscribed_by(None, bought, policies)
}

/// The same, by a test clock that stands at a time or by none.
fn subscribed_by(clock: Option<i64>, (price, quantity): (&str, i64), policies: &Value) -> Subscribed {
    let stripe = FakeStripe::start();
    stripe.sells(&[
        ("price_pro", "prod_pro", 10_000, "month"),
        ("price_max", "prod_max", 30_000, "month"),
        ("price_roll", "prod_roll", 1_000, "month"),
        ("price_seat", "prod_seat", 1_000, "month"),
        ("price_pro_year", "prod_pro", 120_000, "year"),
        ("price_max_year", "prod_max", 360_000, "year"),
    ]);
    let database = Database::new();
    let mut books = database.connect();
    let mut catalog = plan_catalog_with(policies);
    let max = catalog["plans"].as_array_mut().and_then(|plans| plans.last_mut()).expect("plans");
    max["prices"] = json!(["price_max", { "id": "price_max_year", "drip": "1 month" }]);
    books.load_catalog(&catalog);
    let shim = app(&database, &stripe).start();

    let start = unix_now().cast_signed() - 15 * DAY;
    let at_stripe = stripe.object(&format!("/v1/prices/{price}")).expect("it is sold");
    let cents = at_stripe["unit_amount"].as_i64().expect("cents") * quantity;
    let months = if at_stripe["recurring"]["interval"] == "year" { 12 } else { 1 };
    let period = (start, months_after(start, months));
    let mut object =
        subscription("sub_1", price).of(ANN).items(&[(price, quantity)]).during(period).json().clone();
    object["items"]["data"][0]["price"] = at_stripe;
    object["created"] = json!(start);
    object["test_clock"] = json!(clock.map(|_| CLOCK));
    stripe.knows_subscription(object.clone());
    let created = event("evt_created", "customer.subscription.created", object).with("created", start);
    let billed = line(price, cents, period).quantity(quantity).item("si_1").of_subscription("sub_1");
    let first = invoice("in_0", "sub_1").of(ANN).line(billed).paid_at(start);
    let first = first.with("test_clock", clock.map(|_| CLOCK));
    assert_eq!(shim.deliver(&created).summary(), "200 applied");
    assert_eq!(shim.deliver(&first.paid("evt_first")).summary(), "200 applied");
    if let Some(frozen_time) = clock {
        let object = json!({"id": CLOCK, "object": "test_helpers.test_clock", "frozen_time": frozen_time});
        stripe.knows_at(&format!("/v1/test_helpers/test_clocks/{CLOCK}"), object);
        assert_eq!(shim.deliver(&clock_at(frozen_time)).summary(), "200 applied");
    }
    Subscribed { shim, books, stripe, _database: database }
}

impl Subscribed {
    fn ask(&self, path: &str, body: &Value) -> Value {
        let answer = self.shim.post_as(ANN, path, body);
        assert_eq!(answer.status, 200, "{path} {body}: {answer:?}");
        answer.json()
    }

    fn balance_and_debt(&mut self) -> (i64, i64) {
        let debt = self.books.one("select debt from billing.user_credits where user_id = $1", &[&ANN]);
        (self.books.balance(ANN), debt)
    }

    /// What Stripe sends after a change.
    fn deliver(&mut self, first: First) {
        let state = self.stripe.object(SUBSCRIPTION).expect("the subscription");
        let invoice_id = state["latest_invoice"].as_str().unwrap_or_default().to_owned();
        let updated = event("evt_updated", "customer.subscription.updated", state)
            .with("created", unix_now().cast_signed());
        let billed = self.stripe.object(&format!("/v1/invoices/{invoice_id}"));
        let paid = billed.map(|bill| {
            assert_eq!(bill["status"], "paid", "{bill}");
            event(&format!("evt_{invoice_id}"), "invoice.paid", bill)
                .with("created", unix_now().cast_signed())
        });
        let mut events = [Some(updated), paid];
        if matches!(first, First::Invoice) {
            events.reverse();
        }
        for event in events.iter().flatten() {
            let answer = self.shim.deliver(event).summary();
            assert!(matches!(&*answer, "200 applied" | "200 already_applied"), "{answer}: {event:?}");
        }
    }

    /// Previews a change, makes it, delivers its webhooks, and holds all of them to the same. Returns it.
    fn changes(&mut self, price: &str, quantity: i64, first: First) -> Shown {
        let before = self.balance_and_debt();
        let everything = self.books.everything();
        let choice = json!({"price_id": price, "quantity": quantity});
        let preview = self.ask("/subscription/preview-change", &choice);
        let shown = Shown::of(&preview);
        assert_eq!(self.books.everything(), everything, "a preview writes nothing");
        let mut choice = choice.clone();
        choice["proration_date"] = preview["proration_date"].clone();
        let change = self.ask("/subscription/change", &choice);
        assert_eq!(change["status"], "changed", "{change}");
        assert_eq!(Shown::of(&change), shown);
        assert_eq!(self.books.everything(), everything, "the webhooks write");
        self.deliver(first);
        let (balance, debt) = self.balance_and_debt();
        assert_eq!((balance, debt), (shown.credits_after, shown.debt_after), "{preview}");
        assert_eq!(balance - before.0, shown.credits_now, "{preview}");
        shown
    }
}

fn shown(direction: &str, credits_now: i64, credits_after: i64) -> Shown {
    Shown { direction: direction.to_owned(), credits_now, credits_after, debt_after: 0 }
}

#[test]
fn an_upgrade_shows_what_it_posts() {
    for first in [First::Status, First::Invoice] {
        let mut ann = subscribed(("price_pro", 1), &json!({}));
        ann.books.spend(ANN, 1_000, "r1");
        assert_eq!(ann.changes("price_max", 1, first), shown("up", 21_000, 30_000), "{first:?}");
    }
}

#[test]
fn an_upgrade_of_a_plan_that_is_almost_spent_shows_what_is_owed_of_it() {
    for first in [First::Status, First::Invoice] {
        let mut ann = subscribed(("price_pro", 1), &json!({}));
        ann.books.spend(ANN, 9_000, "r1");
        let shown = ann.changes("price_max", 1, first);
        // About half of the month stays paid for, and 4,000 more were drawn.
        assert!((25_700..26_300).contains(&shown.credits_after), "{shown:?}");
    }
}

#[test]
fn a_change_to_a_year_in_parts_shows_its_first_part() {
    for first in [First::Status, First::Invoice] {
        let mut ann = subscribed(("price_pro", 1), &json!({}));
        ann.books.spend(ANN, 2_000, "r1");
        assert_eq!(ann.changes("price_pro_year", 1, first), shown("same", 2_000, 10_000), "{first:?}");
    }
}

#[test]
fn a_change_to_a_longer_interval_with_fewer_credits_is_paid_at_once() {
    for first in [First::Status, First::Invoice] {
        let mut ann = subscribed(("price_max", 1), &json!({}));
        assert_eq!(ann.changes("price_pro_year", 1, first), shown("down", -20_000, 10_000), "{first:?}");
    }
}

#[test]
fn a_year_in_parts_that_is_left_for_more_shows_what_it_posts() {
    for to in ["price_max_year", "price_max"] {
        let mut ann = subscribed(("price_pro_year", 1), &json!({}));
        ann.books.spend(ANN, 7_500, "r1");
        let shown = ann.changes(to, 1, First::Status);
        assert!((27_300..27_700).contains(&shown.credits_after), "{to}: {shown:?}");
        assert_eq!(shown.direction, "up");
    }
}

#[test]
fn more_seats_show_what_they_post() {
    let mut ann = subscribed(("price_seat", 1), &json!({}));
    ann.books.spend(ANN, 100, "r1");
    assert_eq!(ann.changes("price_seat", 3, First::Status), shown("up", 2_100, 3_000));
}

#[test]
fn a_downgrade_gives_no_money_back_and_shows_what_stays() {
    let mut ann = subscribed(("price_max", 1), &json!({}));
    assert_eq!(ann.changes("price_pro", 1, First::Status), shown("down", -20_000, 10_000));
    assert_eq!(ann.stripe.object("/v1/invoices/in_made_1"), None);

    let mut ann = subscribed(("price_max", 1), &json!({}));
    ann.books.spend(ANN, 25_000, "r1");
    assert_eq!(ann.changes("price_pro", 1, First::Status), shown("down", 0, 5_000));

    let mut ann = subscribed(("price_seat", 3), &json!({}));
    assert_eq!(ann.changes("price_seat", 2, First::Status), shown("down", -1_000, 2_000));
}

#[test]
fn a_downgrade_under_keep_takes_nothing_before_the_period_ends() {
    let mut ann = subscribed(("price_max", 1), &json!({"plan_change": "keep"}));
    assert_eq!(ann.changes("price_pro", 1, First::Status), shown("down", 0, 30_000));
}

#[test]
fn a_downgrade_and_back_shows_what_comes_back() {
    let mut ann = subscribed(("price_max", 1), &json!({}));
    ann.changes("price_pro", 1, First::Status);
    ann.books.spend(ANN, 4_000, "r1");
    let shown = ann.ask("/subscription/preview-change", &json!({"price_id": "price_max"}));
    assert_eq!(shown["direction"], "up");
    assert!(shown["amount_due"].as_i64().is_some_and(|due| due > 0), "{shown}");
}

#[test]
fn a_debt_is_repaid_by_the_upgrade_as_shown() {
    for first in [First::Status, First::Invoice] {
        let mut ann = subscribed(("price_pro", 1), &json!({}));
        let pack = paid_pack("cs_1", ANN).with("customer", "cus_1");
        assert_eq!(ann.shim.deliver(&pack.completed("evt_pack")).summary(), "200 applied");
        ann.books.spend(ANN, 10_500, "r1");
        assert_eq!(ann.shim.deliver(&refunded("re_1", "pi_1", 1_000)).summary(), "200 applied");
        assert_eq!(ann.balance_and_debt(), (0, 500));
        let shown = ann.changes("price_max", 1, first);
        assert_eq!(shown.credits_now, shown.credits_after);
        // Beside the 500, about 5,000 of the month that is credited were spent.
        assert!((24_200..24_800).contains(&shown.credits_after), "{shown:?}");
    }
}

#[test]
fn what_rolls_over_is_shown() {
    for first in [First::Status, First::Invoice] {
        let mut ann = subscribed(("price_roll", 1), &json!({}));
        let shown = ann.changes("price_roll", 2, first);
        // Of half of the month's credits at most 500; a part of a minute less is credited.
        assert!((2_490..=2_500).contains(&shown.credits_after), "{shown:?}");
    }
}

#[test]
fn a_first_bonus_is_not_shown_again() {
    let mut ann = subscribed(("price_pro", 1), &json!({"first_purchase_bonus": 300}));
    assert_eq!(ann.balance_and_debt(), (10_300, 0));
    assert_eq!(ann.changes("price_max", 1, First::Status), shown("up", 20_000, 30_300));
}

#[test]
fn a_plan_that_only_its_product_puts_on_sale_is_a_change_like_others() {
    let mut catalog = plan_catalog_with(&json!({}));
    catalog["plans"].as_array_mut().and_then(|plans| plans.last_mut()).expect("plans")["prices"] =
        json!([{ "product": "prod_max" }]);
    let mut ann = subscribed(("price_pro", 1), &json!({}));
    ann.books.load_catalog(&catalog);
    ann.books.spend(ANN, 1_000, "r1");
    for wrong in ["price_nowhere", "price_calls", "price_pack"] {
        let answer = ann.shim.post_as(ANN, "/subscription/change", &json!({"price_id": wrong}));
        assert_eq!(answer.summary(), "400 INVALID_PRICE", "{wrong}");
    }
    assert_eq!(ann.changes("price_max", 1, First::Status), shown("up", 21_000, 30_000));

    let mut ann = subscribed(("price_max", 1), &json!({}));
    ann.books.load_catalog(&catalog);
    assert_eq!(ann.changes("price_pro", 1, First::Status), shown("down", -20_000, 10_000));
}

#[test]
fn by_a_test_clock_it_is_the_same() {
    let ahead = unix_now().cast_signed() + 5 * DAY;
    let mut ann = subscribed_by(Some(ahead), ("price_pro", 1), &json!({}));
    ann.books.spend(ANN, 9_000, "r1");
    let up = ann.changes("price_max", 1, First::Status);
    // About two thirds of the month stay paid for.
    assert!((27_000..28_500).contains(&up.credits_after), "{up:?}");

    let mut ann = subscribed_by(Some(ahead), ("price_max", 1), &json!({}));
    assert_eq!(ann.changes("price_pro", 1, First::Status), shown("down", -20_000, 10_000));
}

/// The examples in docs/app.md: the answers of both routes to an upgrade.
#[test]
fn the_examples_of_the_documentation_have_the_fields_of_the_answers() {
    let page = include_str!("../../../docs/app.md");
    let examples: Vec<Value> = page
        .split("```json\n")
        .skip(1)
        .map(|rest| rest.split("```").next().unwrap_or_default())
        .map(|example| serde_json::from_str(example).expect("an example is JSON"))
        .collect();
    let ann = subscribed(("price_pro", 1), &json!({}));
    let choice = json!({"price_id": "price_max"});
    let answers = ["/subscription/preview-change", "/subscription/change"].map(|path| ann.ask(path, &choice));
    let fields = |json: &Value| json.as_object().map(|json| json.keys().cloned().collect::<Vec<_>>());
    assert_eq!(
        examples.iter().map(fields).collect::<Vec<_>>(),
        answers.iter().map(fields).collect::<Vec<_>>()
    );
}
