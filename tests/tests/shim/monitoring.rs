//! What operators watch: the metrics of the database, the alerts and the dashboard on them, and `books check`.

use std::collections::BTreeSet;
use std::fs;
use std::process::Command;

use serde_json::Value;
use stripe_credits_tests::app::{app, command};
use stripe_credits_tests::database::setting;
use stripe_credits_tests::fake_stripe::FakeStripe;
use stripe_credits_tests::shim::{Shim, until};
use stripe_credits_tests::stripe::{paid_pack, session};
use stripe_credits_tests::{ANN, Database};
use xtask::workspace::root;

fn page(path: &str) -> String {
    let path = root().join(path);
    fs::read_to_string(&path).unwrap_or_else(|fault| panic!("{}: {fault}", path.display()))
}

/// The metrics that an expression or a page names.
fn named(text: &str) -> BTreeSet<String> {
    let is_of_name = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    text.split("stripe_credits_")
        .skip(1)
        .map(|rest| rest.chars().take_while(|c| is_of_name(*c)).collect::<String>())
        .map(|name| format!("stripe_credits_{name}"))
        .collect()
}

/// The names of all samples that a shim shows once everything was counted once.
fn shown(shim: &Shim) -> BTreeSet<String> {
    let text = shim.ops("/metrics").body;
    let samples = text.lines().filter(|line| !line.starts_with('#'));
    samples.filter_map(|line| line.split(['{', ' ']).next()).map(str::to_owned).collect()
}

/// A value that the database's status has, once a scrape has asked for it again.
fn until_metric(shim: &Shim, name: &str, labels: &[(&str, &str)], value: u64) {
    until(&format!("{name} {labels:?} is {value}"), || {
        shim.metric(&format!("stripe_credits_{name}"), labels) == value
    });
}

#[test]
fn alerts_and_dashboard_name_only_metrics_that_the_shim_shows() {
    let database = Database::with_catalog();
    let (stripe, mirror) = (FakeStripe::start(), Database::empty());
    let mut books = database.connect();
    let shim = app(&database, &stripe)
        .with("EVENTS_URL", "http://127.0.0.1:9/")
        .with("EVENTS_SECRET", concat!("whsec_", "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"))
        // It has no tables.
        .with("MIRROR_DATABASE_URL", &mirror.url())
        .start();
    // Each family once: a delivery, a refused one, a user's request, a call of Stripe's, and what the database says.
    shim.deliver(&paid_pack("cs_1", ANN).completed("evt_1"));
    shim.deliver(&session("cs_2").metadata("price_id", "price_pack").completed("evt_2"));
    shim.post(b"{}", &[]);
    shim.get_as(ANN, "/credits");
    shim.deliver(&session("cs_4").of(ANN).completed("evt_4"));
    books.run("update billing.accounts set next_due_at = now() - interval '1 minute'");
    // Paid, and its event has not come.
    books.run(&format!(
        "insert into billing.top_ups (user_id, id, pack, price_id, credits, below, state, payment_intent_id, requested_at,
             next_attempt_at)
         values ('{ANN}', 1, 'pack_500', 'price_pack', 500, 100, 'paid', 'pi_9', now(), now())"
    ));
    assert_eq!(command(&["sweep"], &database, &stripe).run().code, Some(0));
    assert_eq!(command(&["books", "check"], &database, &stripe).run().code, Some(0));
    until_metric(&shim, "books_faults", &[], 0);
    until("everything is shown", || {
        let shown = shown(&shim);
        [
            "last_books_check_timestamp_seconds",
            "told_lag_seconds",
            "mirror_lag_seconds",
            "mirror_failures_total",
        ]
        .iter()
        .all(|name| shown.contains(&format!("stripe_credits_{name}")))
    });

    let shown = shown(&shim);
    let dashboard: Value = serde_json::from_str(&page("monitoring/dashboard.json")).expect("JSON");
    let targets = dashboard["panels"].as_array().expect("panels").iter();
    let targets = targets.flat_map(|panel| panel["targets"].as_array().expect("targets").clone());
    let of_dashboard: String = targets.map(|target| target["expr"].to_string()).collect();
    // The group of the alerts is called as the metrics begin.
    let of_alerts: String =
        page("monitoring/alerts.yml").lines().filter(|line| !line.contains("- name:")).collect();
    assert!(named(&of_alerts).len() >= 14 && named(&of_dashboard).len() >= 14);
    for name in named(&of_alerts).union(&named(&of_dashboard)) {
        assert!(shown.contains(name), "{name} is not among {shown:#?}");
    }
}

#[test]
fn every_metric_and_every_alert_is_in_the_manual() {
    let manual = page("docs/monitoring.md");
    for alert in
        page("monitoring/alerts.yml").lines().filter_map(|line| line.trim().strip_prefix("- alert: "))
    {
        assert!(manual.contains(&format!("`{alert}`")), "{alert}");
    }
    let database = Database::new();
    let shim = app(&database, &FakeStripe::start()).start();
    let text = shim.ops("/metrics").body;
    let families: Vec<_> =
        text.lines().filter_map(|line| line.strip_prefix("# TYPE stripe_credits_")).collect();
    assert!(families.len() > 5, "{text}");
    for family in families {
        let (name, _) = family.split_once(' ').expect("a type");
        assert!(manual.contains(&format!("`{name}")), "{name}");
    }
}

#[test]
fn each_alert_rings_for_what_it_is_for_and_is_silent_otherwise() {
    for arguments in [["check", "rules", "alerts.yml"], ["test", "rules", "alerts.test.yml"]] {
        let promtool = Command::new(setting("STRIPE_CREDITS_PROMTOOL"))
            .args(arguments)
            .current_dir(root().join("monitoring"))
            .output()
            .expect("promtool starts");
        assert!(promtool.status.success(), "{promtool:#?}");
    }
}

#[test]
fn what_waits_is_shown_by_reason_and_age_and_what_is_due_by_its_time() {
    let database = Database::with_catalog();
    let stripe = FakeStripe::start();
    let mut books = database.connect();
    books.sign_up(ANN);
    let shim = app(&database, &stripe).start();
    let parked = |reason, count| until_metric(&shim, "parked_events", &[("reason", reason)], count);
    for reason in ["unknown_user", "unknown_price", "needs_fetch"] {
        parked(reason, 0);
    }
    shim.deliver(&session("cs_1").metadata("price_id", "price_pack").completed("evt_1"));
    shim.deliver(&session("cs_2").of(ANN).metadata("price_id", "price_new").completed("evt_2"));
    // By SQL, without the shim.
    books.apply(&session("cs_3").of(ANN).metadata("price_id", "price_new").completed("evt_3"));
    parked("unknown_user", 1);
    parked("unknown_price", 2);
    let since: i64 = books.one(
        "select floor(extract(epoch from first_received_at))::bigint from billing.stripe_events where event_id = 'evt_1'",
        &[],
    );
    let since = u64::try_from(since).expect("after 1970");
    until_metric(&shim, "oldest_parked_timestamp_seconds", &[("reason", "unknown_user")], since);
    assert!(!shown(&shim).contains("stripe_credits_oldest_due_timestamp_seconds"));
    books.run("update billing.accounts set next_due_at = to_timestamp(1000)");
    until_metric(&shim, "oldest_due_timestamp_seconds", &[], 1000);
}

#[test]
fn a_payment_without_a_user_is_a_warning_in_the_log() {
    let database = Database::with_catalog();
    let shim = app(&database, &FakeStripe::start()).start();
    shim.deliver(&session("cs_1").metadata("price_id", "price_pack").completed("evt_1"));
    let line = &shim.deliveries("evt_1", 1)[0];
    assert_eq!((&line["level"], &line["reason"]), (&"WARN".into(), &"unknown_user".into()));
}

#[test]
fn a_sweep_counts_the_events_that_no_webhook_brought_in_its_time() {
    let database = Database::with_catalog();
    let stripe = FakeStripe::start();
    let now: i64 = database.connect().one("select extract(epoch from now())::bigint", &[]);
    let event = |n: u32, age: i64| {
        let event = paid_pack(&format!("cs_{n}"), ANN).completed(&format!("evt_{n}"));
        event.with("created", now - age).json().clone()
    };
    let shim = app(&database, &stripe).start();
    stripe.knows_list("/v1/events", vec![event(1, 5), event(2, 3600), event(3, 7200)]);
    assert_eq!(command(&["sweep"], &database, &stripe).run().code, Some(0));
    until_metric(&shim, "last_sweep_lost_events", &[], 2);
    assert_eq!(database.connect().balance(ANN), 1500);
    // The next one finds all of them known.
    assert_eq!(command(&["sweep"], &database, &stripe).run().code, Some(0));
    until("the last sweep lost none", || shim.metric("stripe_credits_last_sweep_lost_events", &[]) == 0);
}

#[test]
fn books_check_names_whose_books_differ_and_keeps_how_many() {
    let mut database = Database::with_catalog();
    let stripe = FakeStripe::start();
    let mut books = database.connect();
    books.sign_up(ANN);
    let ended = command(&["books", "check"], &database, &stripe).run();
    assert_eq!((ended.code, ended.stdout.as_str()), (Some(0), "the books are right\n"));

    database.breaks_its_books();
    books.run("update billing.accounts set promotional_credits = 7");
    let ended = command(&["books", "check"], &database, &stripe).run();
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(ended.stdout.starts_with(&format!("{ANN}  ")), "{ended:?}");
    let kept: String =
        books.one("select position::text from billing.cursors where command = 'books check'", &[]);
    assert_eq!(kept, r#"{"faults": 1}"#);
}
