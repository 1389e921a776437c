//! The commands of the binary, as a person or a script runs them.

use std::fs;
use std::net::TcpListener;
use std::path::PathBuf;

use serde_json::{Value, json};
use stripe_credits_tests::app::{command, without_stripe};
use stripe_credits_tests::fake_stripe::{FakeStripe, Fault};
use stripe_credits_tests::shim::{Ended, SECRET, Setup, Shim};
use stripe_credits_tests::{ANN, Database, catalog, paid_pack};

const EXAMPLE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../catalog.example.json");

/// A file of this test, gone at its end.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str, content: &[u8]) -> Scratch {
        let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("{}_{name}", std::process::id()));
        fs::write(&path, content).expect("cargo's folder for tests can be written");
        Scratch(path)
    }

    fn path(&self) -> &str {
        self.0.to_str().expect("a path in UTF-8")
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        fs::remove_file(&self.0).expect("made above");
    }
}

fn push(database: &Database, document: &str) -> Ended {
    Setup::command(&["catalog", "push", "-"]).with("DATABASE_URL", &database.url()).with_stdin(document).run()
}

/// A `postgres://` URL at which no server listens.
fn nowhere() -> String {
    let port = TcpListener::bind(("127.0.0.1", 0)).expect("a port").local_addr().expect("an address").port();
    format!("postgres://postgres@127.0.0.1:{port}/credits")
}

fn send(shim: &Shim, arguments: &[&str]) -> Ended {
    let url = format!("http://{}/webhooks/stripe", shim.address());
    let arguments = [&["send-test-event", "--url", &url], arguments].concat();
    Setup::command(&arguments).with("STRIPE_WEBHOOK_SECRET", &format!("{SECRET},whsec_of_later")).run()
}

/// The answer that `send-test-event` prints below its status.
fn printed(ended: &Ended) -> Value {
    let (_, body) = ended.stdout.split_once('\n').unwrap_or_else(|| panic!("{ended:?}"));
    serde_json::from_str(body).unwrap_or_else(|fault| panic!("{fault}: {ended:?}"))
}

#[test]
fn catalog_push_loads_a_file_and_a_second_time_changes_nothing() {
    let database = Database::new();
    let mut books = database.connect();
    let again = || Setup::command(&["catalog", "push", EXAMPLE]).with("DATABASE_URL", &database.url()).run();
    let first = again();
    assert_eq!(first.code, Some(0), "{first:?}");
    assert_eq!(first.stderr, "");
    let added: Vec<&str> = first.stdout.lines().filter(|line| line.ends_with(" added")).collect();
    let prices: i64 = books.one("select count(*) from billing.prices", &[]);
    assert_eq!(i64::try_from(added.len()), Ok(prices), "{}", first.stdout);
    assert!(first.stdout.contains("price_pack "), "{}", first.stdout);
    assert!(
        first.stdout.contains(&format!("{prices} added, 0 changed, 0 retired, 0 unchanged")),
        "{}",
        first.stdout
    );

    let before = books.everything();
    let second = again();
    assert_eq!(second.code, Some(0));
    assert!(
        second.stdout.contains(&format!("0 added, 0 changed, 0 retired, {prices} unchanged")),
        "{second:?}"
    );
    assert_eq!(books.everything()["prices"], before["prices"]);
}

#[test]
fn catalog_push_reads_what_prices_cost_and_no_credits_depend_on_it() {
    let (database, stripe) = (Database::with_catalog(), FakeStripe::start());
    let price = |id: &str, amount: Value, recurring: Value| {
        let object = json!({"id": id, "object": "price", "currency": "eur", "unit_amount": amount, "recurring": recurring});
        stripe.knows_at(&format!("/v1/prices/{id}"), object);
    };
    price("price_pack", json!(900), Value::Null);
    price(
        "price_pro",
        json!(2900),
        json!({"interval": "month", "interval_count": 1, "usage_type": "licensed"}),
    );
    price("price_max", Value::Null, json!({"interval": "month", "interval_count": 1}));
    let shim = without_stripe(&database).start();
    let amounts = |kind: &str, n: usize| shim.get("/catalog").json()[kind][n]["amounts"].clone();
    let push = |document: &Value| {
        command(&["catalog", "push", "-"], &database, &stripe).with_stdin(&document.to_string()).run()
    };

    let pushed = push(&catalog());
    assert_eq!(pushed.code, Some(0), "{pushed:?}");
    assert!(pushed.stderr.contains("price_roll: Stripe has no such price"), "{pushed:?}");
    let of = |id: &str, amount: Value, interval: Value, count: Value| json!([{"price_id": id, "currency": "eur", "unit_amount": amount, "interval": interval, "interval_count": count}]);
    assert_eq!(amounts("packs", 0), of("price_pack", json!(900), Value::Null, Value::Null));
    assert_eq!(amounts("plans", 1), of("price_pro", json!(2900), json!("month"), json!(1)));
    assert_eq!(amounts("plans", 2), of("price_max", Value::Null, json!("month"), json!(1)), "tiers");
    assert_eq!(amounts("plans", 0), json!([]));

    // Changed at Stripe, and read again; while Stripe is away the catalog is loaded all the same, and shows what was read.
    price("price_pack", json!(1100), Value::Null);
    assert_eq!(push(&catalog()).code, Some(0));
    assert_eq!(amounts("packs", 0)[0]["unit_amount"], 1100);
    stripe.fail(Fault::Unauthorized);
    let away = push(&catalog());
    assert_eq!(away.code, Some(0), "{away:?}");
    assert!(away.stderr.contains("what the prices cost could not be read"), "{away:?}");
    assert_eq!(amounts("packs", 0)[0]["unit_amount"], 1100);
    assert_eq!(shim.deliver(&paid_pack("cs_1", ANN).completed("evt_1")).summary(), "200 applied");
    assert_eq!(database.connect().balance(ANN), 500);
}

#[test]
fn catalog_push_reads_stdin_and_says_what_changed_and_what_is_retired() {
    let database = Database::with_catalog();
    let mut document = catalog();
    document["packs"] = json!([
        {"key": "pack_500", "name": "500 credits", "credits": 600, "prices": ["price_pack"]},
        {"key": "pack_new", "name": "A new pack", "credits": 10, "prices": ["price_new"]},
    ]);
    document["not_credits"] = json!([]);
    let ended = push(&database, &document.to_string());
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let words = |line: &str| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    let lines: Vec<Vec<String>> = ended.stdout.lines().map(words).collect();
    for expected in [["price_new", "added"], ["price_pack", "changed"], ["price_tshirt", "retired"]] {
        assert!(lines.iter().any(|line| *line == expected), "{expected:?}: {}", ended.stdout);
    }
}

#[test]
fn a_faulty_document_exits_65_names_the_path_of_its_fault_and_changes_nothing() {
    let database = Database::with_catalog();
    let mut books = database.connect();
    let before = books.everything();
    let faulty = |pointer: &str, value: Value| {
        let mut document = catalog();
        *document.pointer_mut(pointer).expect("it is in the example") = value;
        document.to_string()
    };
    let mut unknown = catalog();
    unknown["packs"][0]["creditz"] = json!(1);
    for (document, path) in [
        (faulty("/packs/0/credits", json!(-5)), "packs[0].credits"),
        (faulty("/packs/0/credits", json!("500")), "packs[0].credits"),
        (faulty("/packs/0/credits", json!(1.5)), "packs[0].credits"),
        (faulty("/plans/0/renewal", json!("sometimes")), "plans[0].renewal"),
        (faulty("/reversal_policy", json!("shrug")), "reversal_policy"),
        (unknown.to_string(), "packs[0]"),
    ] {
        let ended = push(&database, &document);
        assert_eq!(ended.code, Some(65), "{path}: {ended:?}");
        assert!(ended.stderr.contains(path), "{path}: {}", ended.stderr);
        assert_eq!(ended.stdout, "", "{path}");
    }
    for (document, what) in
        [("{", "half"), ("", "empty"), ("[]", "an array"), ("{\"packs\": \"\\u0000\"}", "NUL")]
    {
        let ended = push(&database, document);
        assert_eq!(ended.code, Some(65), "{what}: {ended:?}");
        assert!(!ended.stderr.is_empty(), "{what}");
    }
    let latin_1 = Scratch::new("latin_1.json", b"{\"signup_credits\": \"\xe9\"}");
    let ended =
        Setup::command(&["catalog", "push", latin_1.path()]).with("DATABASE_URL", &database.url()).run();
    assert_eq!(ended.code, Some(65), "{ended:?}");
    assert!(ended.stderr.contains("UTF-8") && ended.stderr.contains(latin_1.path()), "{}", ended.stderr);
    assert_eq!(books.everything(), before);
}

#[test]
fn catalog_push_exits_64_without_file_or_configuration_and_69_without_database() {
    let no_file =
        Setup::command(&["catalog", "push", "/nowhere/catalog.json"]).with("DATABASE_URL", &nowhere()).run();
    assert_eq!(no_file.code, Some(64), "{no_file:?}");
    assert!(no_file.stderr.contains("/nowhere/catalog.json"), "{no_file:?}");
    let no_url = Setup::command(&["catalog", "push", EXAMPLE]).run();
    assert_eq!(no_url.code, Some(64), "{no_url:?}");
    assert!(no_url.stderr.contains("DATABASE_URL"), "{no_url:?}");
    let unreachable = Setup::command(&["catalog", "push", EXAMPLE]).with("DATABASE_URL", &nowhere()).run();
    assert_eq!(unreachable.code, Some(69), "{unreachable:?}");
    assert!(unreachable.stderr.contains("unreachable"), "{unreachable:?}");

    let without = Database::empty();
    let missing = push(&without, &catalog().to_string());
    assert_eq!(missing.code, Some(69), "{missing:?}");
    assert!(missing.stderr.contains("extension stripe_credits is not installed"), "{missing:?}");
}

#[test]
fn run_due_posts_what_is_due_and_then_finds_nothing() {
    let database = Database::with_catalog();
    let mut books = database.connect();
    let shim = Setup::serve(&database.url()).start();
    let user = ANN.to_string();
    send(&shim, &["--user", &user, "--price", "price_pack", "--session-id", "cs_test_due"]);
    books.expire_grants(ANN, "cs_test_due");

    let run_due = || Setup::command(&["run-due"]).with("DATABASE_URL", &database.url()).run();
    let first = run_due();
    assert_eq!(
        (first.code, first.stdout.as_str()),
        (Some(0), "accounts and parked events that were due: 1\n")
    );
    assert_eq!(books.ledger(ANN), ["purchase 500", "expiry -500"]);
    let second = run_due();
    assert_eq!(
        (second.code, second.stdout.as_str()),
        (Some(0), "accounts and parked events that were due: 0\n")
    );
    assert_eq!(Setup::command(&["run-due"]).with("DATABASE_URL", &nowhere()).run().code, Some(69));
}

#[test]
fn wrong_usage_exits_64_and_help_and_version_are_answers() {
    for arguments in
        [&["serf"][..], &[], &["catalog"], &["catalog", "push"], &["send-test-event"], &["serve", "--x"]]
    {
        let ended = Setup::command(arguments).run();
        assert_eq!(ended.code, Some(64), "{arguments:?}: {ended:?}");
        assert!(!ended.stderr.is_empty(), "{arguments:?}");
        assert_eq!(ended.stdout, "", "{arguments:?}");
    }
    let help = Setup::command(&["--help"]).run();
    assert_eq!(help.code, Some(0));
    for word in ["serve", "catalog", "send-test-event", "DATABASE_URL", "STRIPE_WEBHOOK_SECRET", "LISTEN"] {
        assert!(help.stdout.contains(word), "{word}: {}", help.stdout);
    }
    let version = Setup::command(&["--version"]).run();
    assert_eq!((version.code, version.stdout.trim()), (Some(0), "stripe-credits 0.1.0"));
}

#[test]
fn send_test_event_is_taken_by_the_shim_and_once_more_is_the_same_payment() {
    let database = Database::with_catalog();
    let shim = Setup::serve(&database.url()).start();
    let mut books = database.connect();
    let user = ANN.to_string();
    let arguments =
        ["--user", &user, "--price", "price_pack", "--quantity", "2", "--session-id", "cs_test_1"];

    let first = send(&shim, &arguments);
    assert_eq!(first.code, Some(0), "{first:?}");
    assert!(first.stdout.starts_with("200 OK\n"), "{first:?}");
    assert_eq!(printed(&first)["outcome"], "applied");
    assert_eq!(books.ledger(ANN), ["purchase 1000"]);

    let second = send(&shim, &arguments);
    assert_eq!(second.code, Some(0), "{second:?}");
    assert_eq!(printed(&second)["outcome"], "already_applied");
    assert_eq!(books.ledger(ANN), ["purchase 1000"]);

    let another = send(&shim, &["--user", &user, "--price", "price_pack"]);
    assert_eq!(printed(&another)["outcome"], "applied");
    assert_eq!(books.balance(ANN), 1500);

    let unnamed = send(&shim, &["--user", &user]);
    assert_eq!((unnamed.code, &printed(&unnamed)["reason"]), (Some(0), &json!("unfetched")));
}

#[test]
fn send_test_event_posts_a_file_byte_for_byte() {
    let database = Database::with_catalog();
    let shim = Setup::serve(&database.url()).start();
    let pretty =
        serde_json::to_string_pretty(paid_pack("cs_1", ANN).completed("evt_1").json()).expect("JSON");
    let file = Scratch::new("event.json", pretty.as_bytes());
    let ended = send(&shim, &["--file", file.path()]);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert_eq!(database.connect().ledger(ANN), ["purchase 500"]);
    let missing = send(&shim, &["--file", "/nowhere/event.json"]);
    assert_eq!(missing.code, Some(64), "{missing:?}");
}

#[test]
fn send_test_event_says_when_it_was_refused_or_unanswered() {
    let database = Database::with_catalog();
    let shim = Setup::serve(&database.url()).start();
    let user = ANN.to_string();
    let forged = send(&shim, &["--user", &user, "--price", "price_pack", "--secret", "whsec_of_a_stranger"]);
    assert_eq!(forged.code, Some(65), "{forged:?}");
    assert!(forged.stdout.contains("signature_mismatch"), "{forged:?}");
    let unknown = send(&shim, &["--user", &user, "--price", "price_unknown"]);
    assert_eq!(unknown.code, Some(69), "{unknown:?}");
    assert_eq!(printed(&unknown)["reason"], "unknown_price");
    assert_eq!(database.connect().ledger(ANN), [""; 0]);

    let port = TcpListener::bind(("127.0.0.1", 0)).expect("a port").local_addr().expect("an address").port();
    let url = format!("http://127.0.0.1:{port}/webhooks/stripe");
    let unanswered =
        Setup::command(&["send-test-event", "--url", &url, "--user", &user, "--secret", SECRET]).run();
    assert_eq!(unanswered.code, Some(69), "{unanswered:?}");
    assert!(unanswered.stderr.contains(&url), "{unanswered:?}");
    let no_secret = Setup::command(&["send-test-event", "--url", &url, "--user", &user]).run();
    assert_eq!(no_secret.code, Some(64), "{no_secret:?}");
    assert!(no_secret.stderr.contains("STRIPE_WEBHOOK_SECRET"), "{no_secret:?}");
}

#[test]
fn send_test_event_finds_the_shim_where_the_environment_has_it_listen() {
    let database = Database::with_catalog();
    let shim = Setup::serve(&database.url()).start();
    let user = ANN.to_string();
    // As in a container, which listens for others too.
    for address in [shim.address().to_string(), format!("0.0.0.0:{}", shim.address().port())] {
        let arguments = ["send-test-event", "--user", &user, "--price", "price_pack", "--secret", SECRET];
        let ended = Setup::command(&arguments).with("LISTEN", &address).run();
        assert_eq!(ended.code, Some(0), "{address}: {ended:?}");
    }
    assert_eq!(database.connect().balance(ANN), 1000);
    let wrong = Setup::command(&["send-test-event", "--user", &user, "--secret", SECRET]);
    let wrong = wrong.with("LISTEN", "8787").run();
    assert_eq!(wrong.code, Some(64), "{wrong:?}");
}

#[test]
fn ready_says_whether_the_shim_would_apply_a_delivery() {
    let database = Database::with_catalog();
    let shim = Setup::serve(&database.url()).start();
    let ready = |address: &str| Setup::command(&["ready"]).with("OPS_LISTEN", address).run();
    let address = shim.operators_address();
    for address in [address.to_string(), format!("0.0.0.0:{}", address.port())] {
        let ended = ready(&address);
        assert_eq!(ended.code, Some(0), "{ended:?}");
        assert!(ended.stdout.contains(r#""ready":true"#), "{ended:?}");
    }

    let without_database = Setup::serve(&nowhere()).start();
    let unready = ready(&without_database.operators_address().to_string());
    assert_eq!(unready.code, Some(69), "{unready:?}");
    assert!(unready.stdout.starts_with("503"), "{unready:?}");
    drop(shim);
    let unanswered = ready(&address.to_string());
    assert_eq!(unanswered.code, Some(69), "{unanswered:?}");
    assert!(unanswered.stderr.contains("no shim answers"), "{unanswered:?}");
}
