//! `stripe-credits sweep` and `replay`: events that no webhook delivered.

use std::thread;

use serde_json::{Value, json};
use stripe_credits_tests::app::command;
use stripe_credits_tests::fake_stripe::{FakeStripe, Fault};
use stripe_credits_tests::shim::{Ended, Setup, unix_now};
use stripe_credits_tests::subscription::{PRO, renewal, subscription};
use stripe_credits_tests::{ANN, BOB, Database, Event, catalog, paid_pack, session, user};

/// More events than a hundred pages hold.
const MANY: usize = 10_050;

fn sweep(database: &Database, stripe: &FakeStripe) -> Ended {
    command(&["sweep"], database, stripe).run()
}

fn now() -> i64 {
    i64::try_from(unix_now()).expect("a time")
}

/// A paid pack's event, made now.
fn bought(name: &str, by: uuid::Uuid) -> Event {
    paid_pack(&format!("cs_{name}"), by).completed(&format!("evt_{name}")).with("created", now())
}

fn knows(stripe: &FakeStripe, events: &[Event]) {
    stripe.knows_list("/v1/events", events.iter().map(|event| event.json().clone()).collect());
}

#[test]
fn a_sweep_applies_what_the_inbox_lacks_and_a_second_one_nothing() {
    let database = Database::with_catalog();
    let stripe = FakeStripe::start();
    let mut books = database.connect();
    let (received, lost) = (bought("received", ANN), bought("lost", ANN));
    assert_eq!(books.apply(&received).outcome, "applied");
    let other = paid_pack("cs_x", ANN).event("evt_other", "product.created").with("created", now());
    knows(&stripe, &[lost, received, other]);

    let first = sweep(&database, &stripe);
    assert_eq!(first.code, Some(0), "{first:?}");
    assert_eq!(first.stdout, "events: 2 listed, 1 applied (+500 credits), 0 left for a person\n");
    assert_eq!(first.stderr, "");
    assert_eq!(books.balance(ANN), 1_000);
    assert_eq!(books.inbox("evt_lost").as_deref(), Some("applied"));
    assert_eq!(books.inbox("evt_other"), None, "event types that the rules do not read are not listed");

    let before = books.ledger(ANN);
    let second = sweep(&database, &stripe);
    assert_eq!(second.stdout, "events: 2 listed, 0 applied, 0 left for a person\n");
    assert_eq!(books.ledger(ANN), before);
}

#[test]
fn a_sweep_goes_on_where_the_last_one_began_and_looks_no_further_back() {
    let database = Database::with_catalog();
    let stripe = FakeStripe::start();
    let mut books = database.connect();
    let since = |asked: &str| {
        let (_, rest) = asked.split_once("created[gte]=").unwrap_or_else(|| panic!("{asked}"));
        rest.split('&').next().and_then(|seconds| seconds.parse::<i64>().ok()).expect("seconds")
    };
    let asked = |stripe: &FakeStripe| since(&stripe.asked().last().expect("asked").path);
    let days = 24 * 3600;

    assert_eq!(sweep(&database, &stripe).code, Some(0));
    assert!((now() - 3 * days - asked(&stripe)).abs() < 60, "the first one looks three days back");
    let cursor = "select (position ->> 'until')::bigint from billing.cursors where command = 'sweep'";
    let until: i64 = books.one(cursor, &[]);
    assert!((now() - until).abs() < 60);

    assert_eq!(sweep(&database, &stripe).code, Some(0));
    assert_eq!(asked(&stripe), until - 3600, "and the next one an hour before the last one's begin");

    for (written, back) in [("10 days", 10 * days), ("12h", days / 2)] {
        let ended = command(&["sweep", "--since", written], &database, &stripe).run();
        assert_eq!(ended.code, Some(0), "{ended:?}");
        assert!((now() - back - asked(&stripe)).abs() < 60, "{written}");
    }
    command(&["sweep", "--since", "2026-01-31T12:00Z"], &database, &stripe).run();
    assert_eq!(asked(&stripe), 1_769_860_800);
    let ended = command(&["sweep", "--since", "40 days"], &database, &stripe).run();
    assert!(ended.stdout.contains("Stripe keeps events for 30 days"), "{ended:?}");
    for wrong in ["yesterweek", "2026-13-01", ""] {
        let ended = command(&["sweep", "--since", wrong], &database, &stripe).run();
        assert_eq!(ended.code, Some(64), "{ended:?}");
        assert!(ended.stderr.contains("--since"), "{ended:?}");
    }

    // One that leaves a gap behind the last one's end does not move the cursor over it.
    books.run("select billing.move_cursor('sweep', '{\"until\": 1000}')");
    command(&["sweep", "--since", "1 hour"], &database, &stripe).run();
    assert_eq!(books.one::<i64>(cursor, &[]), 1_000);
}

#[test]
fn what_a_sweep_leaves_is_named_and_makes_it_exit_1() {
    let database = Database::with_catalog();
    let stripe = FakeStripe::start();
    let unknown = session("cs_new").of(ANN).metadata("price_id", "price_new").completed("evt_price");
    let unowned = session("cs_unowned").metadata("price_id", "price_pack").completed("evt_user");
    knows(&stripe, &[unknown.with("created", now()), unowned.with("created", now()), bought("fine", BOB)]);
    let ended = sweep(&database, &stripe);
    assert_eq!(ended.code, Some(1), "{ended:?}");
    let mut lines: Vec<&str> = ended.stdout.lines().collect();
    lines.sort_unstable();
    assert_eq!(
        lines,
        [
            "events: 3 listed, 1 applied (+500 credits), 2 left for a person",
            "evt_price  parked: unknown_price price_new",
            "evt_user  parked: unknown_user",
        ]
    );
    let mut books = database.connect();
    let mut richer = catalog();
    richer["packs"][0]["prices"] = json!(["price_pack", "price_new"]);
    books.load_catalog(&richer);
    assert_eq!((books.balance(ANN), books.balance(BOB)), (500, 500));
    let ended = sweep(&database, &stripe);
    assert_eq!(ended.stdout.lines().count(), 2, "only who bought evt_user is left: {ended:?}");
}

#[test]
fn a_sweep_fetches_what_an_event_lacks_and_judges_an_ignored_one_again() {
    let database = Database::with_catalog();
    let stripe = FakeStripe::start();
    let mut books = database.connect();
    let lines = session("cs_lines").of(ANN);
    stripe.knows_line_items("cs_lines", &[("price_pack", 3)]);
    let live = bought("live", BOB).with("livemode", true);
    assert_eq!(books.apply(&live).reason.as_deref(), Some("livemode"));
    knows(&stripe, &[lines.completed("evt_lines").with("created", now()), bought("live", BOB)]);
    let ended = sweep(&database, &stripe);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert_eq!((books.balance(ANN), books.balance(BOB)), (1_500, 500));
}

#[test]
fn ten_thousand_events_are_swept_while_webhooks_bring_the_same_and_faults_pass() {
    let database = Database::with_catalog();
    let stripe = FakeStripe::start();
    let buyers: Vec<uuid::Uuid> = (0..50).map(user).collect();
    let events: Vec<Event> = (0..MANY).map(|n| bought(&format!("{n}"), buyers[n % buyers.len()])).collect();
    knows(&stripe, &events);
    let shim = Setup::serve(&database.url()).start();
    stripe.fail_next([Fault::RateLimited, Fault::Failing, Fault::Cut]);
    let ended = thread::scope(|scope| {
        let sweeping = scope.spawn(|| sweep(&database, &stripe));
        // Webhooks bring some of the same, from both ends of the list.
        for event in events.iter().step_by(40).chain(events.iter().rev().step_by(70)) {
            assert_eq!(shim.deliver(event).status, 200);
        }
        sweeping.join().expect("the sweep ends")
    });
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(ended.stdout.contains(&format!("events: {MANY} listed")), "{ended:?}");
    let mut books = database.connect();
    for (index, buyer) in buyers.iter().enumerate() {
        let bought = (0..MANY).filter(|n| n % buyers.len() == index).count();
        assert_eq!(books.balance(*buyer), 500 * i64::try_from(bought).expect("a few"), "{index}");
    }
    assert_eq!(
        usize::try_from(books.one::<i64>("select count(*) from billing.credit_transactions", &[])),
        Ok(MANY)
    );
    let pages = stripe.asked().iter().filter(|asked| asked.path.starts_with("/v1/events?")).count();
    assert!(pages <= MANY / 100 + 6, "each page once: {pages}");
}

#[test]
fn a_sweep_without_stripe_or_a_database_exits_69_and_moves_no_cursor() {
    let database = Database::with_catalog();
    let stripe = FakeStripe::start();
    knows(&stripe, &(0..250).map(|n| bought(&format!("{n}"), ANN)).collect::<Vec<_>>());
    stripe.fail_after(1, Fault::Unauthorized);
    let ended = sweep(&database, &stripe);
    assert_eq!(ended.code, Some(64), "a key that was revoked is the configuration's fault: {ended:?}");
    let mut books = database.connect();
    assert_eq!(books.one::<i64>("select count(*) from billing.cursors", &[]), 0);
    stripe.recover();
    assert_eq!(sweep(&database, &stripe).code, Some(0));
    assert_eq!(books.balance(ANN), 125_000);

    let nowhere = Setup::command(&["sweep"])
        .with("DATABASE_URL", "postgres://postgres@127.0.0.1:1/credits")
        .with_stripe(&stripe)
        .run();
    assert_eq!(nowhere.code, Some(69), "{nowhere:?}");
}

#[test]
fn a_command_without_its_settings_exits_64_and_names_each() {
    for arguments in [&["sweep"][..], &["backfill"], &["replay", "evt_1"], &["catalog", "check"]] {
        let ended = Setup::command(arguments).run();
        assert_eq!(ended.code, Some(64), "{ended:?}");
        assert!(
            ended.stderr.contains("DATABASE_URL") && ended.stderr.contains("STRIPE_SECRET_KEY"),
            "{ended:?}"
        );
    }
    let database = Database::new();
    let stripe = FakeStripe::start();
    let ended = sweep(&database, &stripe);
    assert_eq!(ended.code, Some(64), "{ended:?}");
    assert!(ended.stderr.contains("catalog push"), "without a catalog all would be parked: {ended:?}");
    let database = Database::with_catalog();
    let live = command(&["sweep"], &database, &stripe).with("STRIPE_SECRET_KEY", "sk_live_of_another").run();
    assert_eq!(live.code, Some(64), "{live:?}");
    assert!(live.stderr.contains("livemode"), "{live:?}");
    assert_eq!(stripe.asked(), []);
}

#[test]
fn a_replay_applies_an_event_that_stripe_has_or_that_the_inbox_kept() {
    let database = Database::with_catalog();
    let stripe = FakeStripe::start();
    let mut books = database.connect();
    let replay = |event_id: &str| command(&["replay", event_id], &database, &stripe).run();
    knows(&stripe, &[bought("lost", ANN)]);
    let ended = replay("evt_lost");
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let outcome: Value = serde_json::from_str(&ended.stdout).expect("an outcome");
    assert_eq!((&outcome["outcome"], &outcome["credits"]), (&json!("applied"), &json!(500)));
    let outcome: Value = serde_json::from_str(&replay("evt_lost").stdout).expect("an outcome");
    assert_eq!(outcome["outcome"], "already_applied");
    assert_eq!(books.balance(ANN), 500);

    // Stripe does not have this one any more, and its buyer was unknown.
    let unowned = session("cs_old").metadata("price_id", "price_pack").completed("evt_old");
    assert_eq!(books.apply(&unowned).summary(), "parked unknown_user");
    let ended = replay("evt_old");
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(ended.stdout.contains("unknown_user"), "{ended:?}");
    books.attribute("cs_old", BOB);
    assert_eq!(replay("evt_old").code, Some(0));
    assert_eq!(books.balance(BOB), 500);

    for unknown in ["evt_nowhere", "evt_../prices", "reconcile:cs_nowhere", ""] {
        let ended = replay(unknown);
        assert_eq!(ended.code, Some(65), "{ended:?}");
        assert!(ended.stderr.contains(unknown), "{ended:?}");
    }
}

#[test]
fn a_replayed_renewal_is_the_same_renewal() {
    let database = Database::with_catalog();
    let stripe = FakeStripe::start();
    let mut books = database.connect();
    let plan = subscription("sub_1", "price_pro").of(ANN);
    let paid = renewal("in_1", "sub_1", PRO, 0).paid("evt_paid");
    books.apply(&plan.created("evt_sub"));
    books.apply(&paid);
    knows(&stripe, &[paid]);
    assert_eq!(command(&["replay", "evt_paid"], &database, &stripe).run().code, Some(0));
    assert_eq!(books.balance(ANN), 10_000);
}
