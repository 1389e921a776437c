//! `stripe-credits backfill`: applies what Stripe has and the books lack.

use std::thread;
use std::time::Duration;

use serde_json::{Value, json};
use stripe_credits_tests::app::command;
use stripe_credits_tests::fake_stripe::{FakeStripe, Fault};
use stripe_credits_tests::refunds::{dispute, refund};
use stripe_credits_tests::shim::{Ended, Setup};
use stripe_credits_tests::subscription::{
    Invoice, MAX, PRO, Subscription, invoice_payment, month, period, renewal, subscribing, subscription,
};
use stripe_credits_tests::{ANN, BOB, Database, catalog, session, user};

/// So many subscriptions, and as many invoices: more than a hundred pages.
const MANY: usize = 5_050;
/// The memory that a command may take, however much Stripe has, in kilobytes.
const FLAT_KILOBYTES: u64 = 64 * 1024;

fn backfill(database: &Database, stripe: &FakeStripe) -> Ended {
    command(&["backfill"], database, stripe).run()
}

/// The invoice with the payment that paid it, as the list shows it that is asked to expand them.
fn paid_by(invoice: Invoice, payment_intent: &str) -> Value {
    let payment = json!({"type": "payment_intent", "payment_intent": payment_intent});
    let payments = json!({"object": "list", "has_more": false,
        "data": [{"object": "invoice_payment", "status": "paid", "payment": payment}]});
    invoice.with("payments", payments).json().clone()
}

fn knows(stripe: &FakeStripe, subscriptions: &[Subscription], invoices: Vec<Value>) {
    let subscriptions = subscriptions.iter().map(|subscription| subscription.json().clone()).collect();
    stripe.knows_list("/v1/subscriptions", subscriptions);
    stripe.knows_list("/v1/invoices", invoices);
}

fn of(user: uuid::Uuid, name: &str, price_id: &str) -> Subscription {
    subscription(&format!("sub_{name}"), price_id).of(user).with("customer", format!("cus_{name}"))
}

fn paid(user: uuid::Uuid, name: &str, n: u32) -> Invoice {
    renewal(&format!("in_{name}_{n}"), &format!("sub_{name}"), PRO, n)
        .of(user)
        .with("customer", format!("cus_{name}"))
}

#[test]
fn a_backfill_grants_what_was_paid_and_a_second_one_writes_nothing() {
    let database = Database::with_catalog();
    let stripe = FakeStripe::start();
    let plan = of(ANN, "ann", "price_pro").during(period(1));
    knows(&stripe, &[plan], vec![paid(ANN, "ann", 1).json().clone(), paid(ANN, "ann", 0).json().clone()]);
    let first = backfill(&database, &stripe);
    assert_eq!(first.code, Some(0), "{first:?}");
    assert_eq!(
        first.stdout,
        "refunds: 0 listed, 0 applied, 0 left for a person\n\
         disputes: 0 listed, 0 applied, 0 left for a person\n\
         subscriptions: 1 listed, 1 applied, 0 left for a person\n\
         invoices: 2 listed, 2 applied (+10000 credits), 0 left for a person\n"
    );
    let mut books = database.connect();
    assert_eq!((books.balance(ANN), books.tier(ANN).as_str()), (10_000, "pro active"));
    let cursors = "select count(*) from billing.cursors";
    assert_eq!(books.one::<i64>(cursors, &[]), 0, "one that came to its end leaves none");

    let (ledger, inbox) = (books.ledger(ANN), books.everything()["stripe_events"].clone());
    let second = backfill(&database, &stripe);
    assert_eq!(second.code, Some(0), "{second:?}");
    assert!(second.stdout.contains("invoices: 2 listed, 0 applied, 0 left"), "{second:?}");
    assert_eq!(books.ledger(ANN), ledger);
    let again = books.everything()["stripe_events"].clone();
    assert_eq!(again.len(), inbox.len(), "what came to nothing leaves no copy: {again:#?}");
}

#[test]
fn a_backfill_beside_received_events_is_the_same_subscription_and_leaves_no_copy() {
    let database = Database::with_catalog();
    let stripe = FakeStripe::start();
    let mut books = database.connect();
    let plan = of(ANN, "ann", "price_pro");
    books.apply(&plan.created("evt_sub"));
    books.apply(&paid(ANN, "ann", 0).paid("evt_paid"));
    let before = (books.ledger(ANN), books.one::<i64>("select count(*) from billing.stripe_events", &[]));
    knows(&stripe, &[plan], vec![paid(ANN, "ann", 0).json().clone()]);
    assert_eq!(backfill(&database, &stripe).code, Some(0));
    let after = (books.ledger(ANN), books.one::<i64>("select count(*) from billing.stripe_events", &[]));
    assert_eq!(after, before);
    // Stripe's webhooks go on afterwards.
    books.apply(&paid(ANN, "ann", 1).paid("evt_renewed"));
    books.apply(&of(ANN, "ann", "price_pro").during(period(1)).updated("evt_next", books_now(&database)));
    assert_eq!(books.balance(ANN), 10_000);
}

fn books_now(database: &Database) -> i64 {
    database.connect().unix_now() + 1
}

#[test]
fn what_was_paid_back_is_known_before_it_could_be_spent() {
    let database = Database::with_catalog();
    let stripe = FakeStripe::start();
    knows(
        &stripe,
        &[of(ANN, "ann", "price_pro"), of(BOB, "bob", "price_pro")],
        vec![paid_by(paid(ANN, "ann", 0), "pi_ann"), paid_by(paid(BOB, "bob", 0), "pi_bob")],
    );
    let half = refund("re_1", "pi_ann", 5_000).json().clone();
    // Of a pack that was bought before these books began.
    let foreign = refund("re_0", "pi_of_a_pack", 700).json().clone();
    stripe.knows_list("/v1/refunds", vec![half, foreign]);
    stripe.knows_list("/v1/disputes", vec![dispute("du_1", "pi_bob", 10_000, "lost").json().clone()]);
    let ended = backfill(&database, &stripe);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let mut books = database.connect();
    assert_eq!((books.balance(ANN), books.balance(BOB)), (5_000, 0));
    assert_eq!(
        books.column::<String>("select event_id from billing.stripe_events where outcome = 'parked'", &[]),
        Vec::<String>::new()
    );
    // The webhooks of the same objects change nothing afterwards.
    books.apply(&invoice_payment("evt_ip", "in_ann_0", "pi_ann"));
    books.apply(&refund("re_1", "pi_ann", 5_000).event("evt_re", "refund.created"));
    assert_eq!(books.balance(ANN), 5_000);
}

#[test]
fn an_unowned_subscription_gets_the_user_of_its_session_or_attribution() {
    let database = Database::with_catalog();
    let stripe = FakeStripe::start();
    let unowned = |name: &str| {
        subscription(&format!("sub_{name}"), "price_pro").with("customer", format!("cus_{name}"))
    };
    let bill = |name: &str| {
        let invoice = renewal(&format!("in_{name}"), &format!("sub_{name}"), PRO, 0);
        invoice.with("customer", format!("cus_{name}")).json().clone()
    };
    knows(&stripe, &[unowned("known"), unowned("lost")], vec![bill("known"), bill("lost")]);
    let began = subscribing("cs_known", "sub_known", "in_known").with("customer", "cus_known");
    stripe.knows_list(
        "/v1/checkout/sessions",
        vec![began.with("client_reference_id", ANN.to_string()).json().clone()],
    );

    let mut books = database.connect();
    let untouched = books.everything();
    let dry = command(&["backfill", "--dry-run"], &database, &stripe).run();
    assert_eq!(dry.code, Some(1), "{dry:?}");
    assert!(dry.stdout.contains("sub_lost  parked: unknown_user"), "{dry:?}");
    assert!(!dry.stdout.contains("sub_known"), "{dry:?}");
    assert!(dry.stdout.contains("nothing was written"), "{dry:?}");
    assert!(dry.stdout.contains("subscriptions: 2 listed, 1 to be applied, 1 left for a person"), "{dry:?}");
    assert_eq!(books.everything(), untouched);

    let ended = backfill(&database, &stripe);
    assert_eq!(ended.code, Some(1), "{ended:?}");
    let mut left: Vec<&str> = ended.stdout.lines().filter(|line| !line.contains("listed")).collect();
    left.sort_unstable();
    assert_eq!(left, ["in_lost  parked: unknown_user", "sub_lost  parked: unknown_user"]);
    assert_eq!((books.balance(ANN), books.tier(ANN).as_str()), (10_000, "pro active"));
    assert_eq!(
        books.known("sub_lost").as_deref(),
        Some("price_pro pro active"),
        "a row and a tier, without a user"
    );

    books.attribute("cus_lost", BOB);
    assert_eq!((books.balance(BOB), books.tier(BOB).as_str()), (10_000, "pro active"));
    assert_eq!(backfill(&database, &stripe).code, Some(0));
}

#[test]
fn an_unknown_price_has_a_row_and_a_tier_and_is_named_until_the_catalog_knows_it() {
    let database = Database::with_catalog();
    let stripe = FakeStripe::start();
    let bill = renewal("in_new", "sub_new", ("price_new", 5_000), 0).of(ANN).with("customer", "cus_new");
    knows(&stripe, &[of(ANN, "new", "price_new")], vec![bill.json().clone()]);
    let ended = backfill(&database, &stripe);
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(ended.stdout.contains("sub_new  parked: unknown_price price_new"), "{ended:?}");
    assert!(ended.stdout.contains("in_new  parked: unknown_price price_new"), "{ended:?}");
    let mut books = database.connect();
    assert_eq!(books.known("sub_new").as_deref(), Some("price_new Unknown (price_new) active"));
    let mut richer = catalog();
    richer["plans"][0]["prices"].as_array_mut().expect("prices").push(json!("price_new"));
    books.load_catalog(&richer);
    assert_eq!((books.balance(ANN), books.tier(ANN).as_str()), (10_000, "pro active"));
    assert_eq!(backfill(&database, &stripe).code, Some(0));
}

#[test]
fn what_is_not_a_subscriptions_invoice_and_longer_than_a_page_comes_out_right() {
    let database = Database::with_catalog();
    let stripe = FakeStripe::start();
    let long = paid(ANN, "ann", 0).with_more_lines();
    let mut packs = paid(ANN, "ann", 3).json().clone();
    packs.as_object_mut().expect("an object").remove("parent");
    let open = paid(ANN, "ann", 2).unpaid("open");
    knows(&stripe, &[of(ANN, "ann", "price_pro")], vec![long.json().clone(), packs, open.json().clone()]);
    let lines = long.lines()["data"].as_array().expect("lines").clone();
    stripe.knows_invoice_lines("in_ann_0", lines);
    let ended = backfill(&database, &stripe);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(ended.stdout.contains("invoices: 2 listed, 1 applied (+10000 credits)"), "{ended:?}");
    assert_eq!(database.connect().balance(ANN), 10_000);
}

#[test]
fn ten_thousand_objects_are_backfilled_while_webhooks_bring_some_of_the_same() {
    let database = Database::with_catalog();
    let stripe = FakeStripe::start();
    let name = |n: usize| format!("{n}");
    let plans: Vec<Subscription> = (0..MANY).map(|n| of(user(n as u128), &name(n), "price_pro")).collect();
    let bills: Vec<Invoice> = (0..MANY).map(|n| paid(user(n as u128), &name(n), 0)).collect();
    knows(&stripe, &plans, bills.iter().map(|bill| bill.json().clone()).collect());
    let shim = Setup::serve(&database.url()).start();
    stripe.fail_next([Fault::RateLimited, Fault::Failing]);
    let ended = thread::scope(|scope| {
        let running = scope.spawn(|| backfill(&database, &stripe));
        for n in (0..MANY).step_by(60).chain((0..MANY).rev().step_by(80)) {
            assert_eq!(shim.deliver(&bills[n].paid(&format!("evt_paid_{n}"))).status, 200);
            assert_eq!(shim.deliver(&plans[n].created(&format!("evt_sub_{n}"))).status, 200);
        }
        running.join().expect("the backfill ends")
    });
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(ended.stdout.contains(&format!("subscriptions: {MANY} listed")), "{ended:?}");
    assert!(ended.peak_memory < FLAT_KILOBYTES, "page by page, not all at once: {} kB", ended.peak_memory);
    let mut books = database.connect();
    let wrong = "select count(*) from billing.user_credits
        where credits_balance <> 10000 or subscription_tier <> 'pro' or subscription_status <> 'active'";
    assert_eq!(books.one::<i64>(wrong, &[]), 0);
    assert_eq!(
        usize::try_from(books.one::<i64>("select count(*) from billing.subscriptions", &[])),
        Ok(MANY)
    );
    assert_eq!(
        usize::try_from(books.one::<i64>("select count(*) from billing.credit_grants", &[])),
        Ok(MANY)
    );
}

#[test]
fn a_stopped_backfill_continues_where_it_was_and_misses_nothing_new() {
    let database = Database::with_catalog();
    let stripe = FakeStripe::start();
    let count: usize = 450;
    let plans: Vec<Subscription> =
        (0..count).map(|n| of(user(n as u128), &format!("{n}"), "price_pro")).collect();
    let bills = |of: std::ops::Range<usize>| -> Vec<Value> {
        of.map(|n| paid(user(n as u128), &format!("{n}"), 0).json().clone()).collect()
    };
    knows(&stripe, &plans, bills(0..count));
    // Refunds, disputes, five pages of subscriptions, and two of five of invoices.
    stripe.fail_after(9, Fault::Unauthorized);
    let stopped = backfill(&database, &stripe);
    assert_eq!(stopped.code, Some(64), "{stopped:?}");
    let mut books = database.connect();
    let position: String =
        books.one("select position ->> 'list' || ' ' || (position ->> 'after') from billing.cursors", &[]);
    assert!(position == "invoices in_99_0" || position == "invoices in_199_0", "{position}");

    // Meanwhile there is a new customer, listed before the position.
    stripe.recover();
    let late = user(1_000);
    let mut all = vec![of(late, "late", "price_max").with("created", books.unix_now())];
    all.extend(plans);
    let bill = renewal("in_late_0", "sub_late", MAX, 0).of(late).with("customer", "cus_late");
    let mut bills_of_all = vec![bill.with("created", books.unix_now()).json().clone()];
    bills_of_all.extend(bills(0..count));
    knows(&stripe, &all, bills_of_all);
    let asked = stripe.asked().len();
    let ended = backfill(&database, &stripe);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(ended.stdout.contains("resuming with the invoices"), "{ended:?}");
    assert_eq!((books.balance(late), books.tier(late).as_str()), (30_000, "max active"));
    assert_eq!(books.one::<i64>("select count(*) from billing.credit_grants", &[]), 451);
    let asked = &stripe.asked()[asked..];
    assert!(
        asked[0].path.contains("/v1/invoices?") && asked[0].path.contains("starting_after=in_"),
        "{asked:?}"
    );
    assert_eq!(books.one::<i64>("select count(*) from billing.cursors", &[]), 0);
}

#[test]
fn a_backfill_since_a_time_leaves_out_older_money_and_no_subscription() {
    let database = Database::with_catalog();
    let stripe = FakeStripe::start();
    let plans = [
        of(ANN, "ann", "price_pro").with("created", month(0)),
        of(BOB, "bob", "price_pro").with("created", month(0)),
    ];
    let made = |invoice: Invoice, created: i64| invoice.with("created", created);
    let bills = [
        paid_by(made(paid(ANN, "ann", 1), month(1)), "pi_ann_1"),
        paid_by(made(paid(BOB, "bob", 1), month(1) - 1), "pi_bob_1"),
        paid_by(made(paid(ANN, "ann", 0), month(0)), "pi_ann_0"),
    ];
    knows(&stripe, &plans, bills.to_vec());
    let half = |id: &str, created: i64| refund(id, "pi_ann_1", 2_500).with("created", created).json().clone();
    stripe.knows_list("/v1/refunds", vec![half("re_2", month(1)), half("re_1", month(1) - 1)]);
    let mut books = database.connect();
    // The same time in two forms, with a run between them that was stopped.
    for (form, stopped) in [("YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"", true), ("YYYY-MM-DD HH24:MI:SS+00", false)] {
        let format = format!("select to_char(to_timestamp({}) at time zone 'utc', '{form}')", month(1));
        let time = books.one::<String>(&format, &[]);
        if stopped {
            stripe.fail_after(3, Fault::Unauthorized);
        }
        let ended = command(&["backfill", "--since", &time], &database, &stripe).run();
        stripe.recover();
        assert_eq!(ended.code, Some(if stopped { 64 } else { 0 }), "{ended:?}");
        if !stopped {
            assert!(
                ended.stdout.contains("refunds: 1 listed") && ended.stdout.contains("invoices: 1 listed"),
                "{ended:?}"
            );
            assert!(ended.stdout.contains("subscriptions: 2 listed"), "{ended:?}");
        }
    }
    assert_eq!((books.balance(ANN), books.balance(BOB)), (7_500, 0));
    assert_eq!((books.tier(ANN).as_str(), books.tier(BOB).as_str()), ("pro active", "pro active"));
    let wrong = command(&["backfill", "--since", "yesteryear"], &database, &stripe).run();
    assert_eq!(wrong.code, Some(64), "{wrong:?}");
}

#[test]
fn a_stopped_backfill_since_a_time_continues_since_that_time() {
    let database = Database::with_catalog();
    let stripe = FakeStripe::start();
    let plans: Vec<Subscription> = (0..150).map(|n| of(user(n), &format!("{n}"), "price_pro")).collect();
    let bill =
        |n: u128, created: i64| paid(user(n), &format!("{n}"), 0).with("created", created).json().clone();
    let bills = (0..150).map(|n| bill(n, if n < 120 { month(1) } else { month(0) })).collect();
    knows(&stripe, &plans, bills);
    // Refunds, disputes, two pages of subscriptions, and one of two of invoices.
    stripe.fail_after(5, Fault::Unauthorized);
    let mut books = database.connect();
    let since = format!("select to_timestamp({})::text", month(1));
    let since = books.one::<String>(&since, &[]);
    let stopped = command(&["backfill", "--since", &since], &database, &stripe).run();
    assert_eq!(stopped.code, Some(64), "{stopped:?}");
    stripe.recover();
    let ended = backfill(&database, &stripe);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(ended.stdout.contains("resuming with the"), "{ended:?}");
    assert_eq!(books.one::<i64>("select count(*) from billing.credit_grants", &[]), 120);
    assert_eq!(books.one::<i64>("select count(*) from billing.subscriptions", &[]), 150);
}

#[test]
fn a_slow_stripe_is_waited_for_and_a_malformed_page_is_reported() {
    let database = Database::with_catalog();
    let stripe = FakeStripe::start();
    knows(&stripe, &[of(ANN, "ann", "price_pro")], vec![paid(ANN, "ann", 0).json().clone()]);
    stripe.fail_next([Fault::Slow(Duration::from_secs(1)), Fault::CutInBody, Fault::Busy]);
    assert_eq!(backfill(&database, &stripe).code, Some(0));
    assert_eq!(database.connect().balance(ANN), 10_000);
    stripe.fail_next([Fault::Garbage]);
    let garbage = backfill(&database, &stripe);
    assert_eq!(garbage.code, Some(69), "{garbage:?}");
    assert!(garbage.stderr.contains("not understood"), "{garbage:?}");
}

#[test]
fn an_ended_subscription_leaves_no_tier_and_what_it_granted_by_policy() {
    let database = Database::with_catalog();
    let stripe = FakeStripe::start();
    let over = of(ANN, "ann", "price_pro").ended(month(1));
    knows(&stripe, &[over], vec![paid(ANN, "ann", 0).json().clone()]);
    assert_eq!(backfill(&database, &stripe).code, Some(0));
    let mut books = database.connect();
    assert_eq!((books.balance(ANN), books.tier(ANN).as_str()), (10_000, "free canceled"));
    // Sessions of packs are not listed: its credits may have been spent long before these books began.
    assert_eq!(books.apply(&session("cs_1").completed("evt_1")).outcome, "needs_fetch");
}
