//! Arguments of any size: none takes memory beyond its own, and each limit is named.

use serde_json::{Value, json};
use stripe_credits_tests::connection::Fault;
use stripe_credits_tests::{ANN, Connection, Database, paid_pack};

/// What a call may add to a backend's peak memory, in bytes.
const MAX_GROWTH: u64 = 100 << 20;
/// What jsonb holds in 12 bytes, and prints in 131,001.
const LONG_NUMBER: &str = "1e131000";
/// Numbers of that kind whose text has 400 MB.
const LONG_NUMBERS: usize = 3_000;

/// A JSON array of short texts that are long numbers.
fn long_numbers() -> String {
    format!("[{}]", vec![LONG_NUMBER; LONG_NUMBERS].join(","))
}

/// The most memory that the backend has had, in bytes.
fn peak(c: &mut Connection) -> u64 {
    let status =
        std::fs::read_to_string(format!("/proc/{}/status", c.pid())).expect("a backend is a process here");
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("its peak is there");
    let kilobytes: u64 = line.trim().trim_end_matches(" kB").parse().expect("a number of kB");
    kilobytes << 10
}

/// Calls a function with a literal, and answers how it was refused; the backend's peak must not show it.
fn refused_cheaply(c: &mut Connection, call: &str) -> Fault {
    let before = peak(c);
    let fault = c.refusal(&format!("select * from billing.{call}"));
    let grown = peak(c) - before;
    assert!(grown < MAX_GROWTH, "{grown} bytes for {}", &call[..call.len().min(80)]);
    fault
}

#[test]
fn metadata_of_long_numbers_take_no_memory_and_are_refused() {
    let db = Database::with_catalog();
    let mut c = db.connect();
    c.grant(ANN, 100, "gift");
    c.spend(ANN, 1, "warm");
    let numbers = long_numbers();
    assert!(numbers.len() < 36_000, "it is a small argument");
    let fault = refused_cheaply(&mut c, &format!("spend_credits('{ANN}', 1, 'job-1', null, '{numbers}')"));
    assert_eq!(fault.code, "22023");
    assert_eq!(fault.message, "p_metadata must be at most 65536 bytes as text");
    assert_eq!(c.balance(ANN), 99);
}

#[test]
fn metadata_up_to_the_limit_are_stored_as_they_are() {
    let db = Database::with_catalog();
    let mut c = db.connect();
    c.grant(ANN, 100, "gift");
    for (n, metadata) in [
        json!({ "note": "x".repeat(65_000) }),
        json!({ "quotes": "\"".repeat(30_000) }),
        json!([1, 2.5, null, true, { "a": [] }]),
        json!("text"),
        json!(7),
    ]
    .into_iter()
    .enumerate()
    {
        c.call("spend_credits($1, 1, $2, null, $3)", &[&ANN, &format!("job-{n}"), &metadata]);
        let stored: Value = c.one(
            "select metadata from billing.credit_transactions where request_id = $1",
            &[&format!("job-{n}")],
        );
        assert_eq!(stored, metadata);
    }
    c.call("spend_credits($1, 1, 'empty', null, '{}')", &[&ANN]);
    c.call("spend_credits($1, 1, 'none', null, null)", &[&ANN]);
    let without: i64 =
        c.one("select count(*) from billing.credit_transactions where request_id in ('empty', 'none') and metadata is null", &[]);
    assert_eq!(without, 2);
    for metadata in [json!({ "note": "x".repeat(66_000) }), json!({ "quotes": "\"".repeat(33_000) })] {
        let fault = c.try_call("spend_credits($1, 1, 'long', null, $2)", &[&ANN, &metadata]).unwrap_err();
        assert_eq!(fault.code, "22023");
    }
}

#[test]
fn stripes_doors_make_no_text_of_long_numbers() {
    let db = Database::with_catalog();
    let mut c = db.connect();
    c.apply(&paid_pack("cs_1", ANN).completed("evt_1"));
    let numbers = long_numbers();
    let event = format!("{{\"id\": \"evt_2\", \"type\": \"customer.created\", \"numbers\": {numbers}}}");
    let paid = paid_pack("cs_3", ANN).completed("evt_3").json().to_string();
    let paid = format!("{{\"numbers\": {numbers}, {}", &paid[1..]);
    for (call, argument) in [
        (format!("apply_stripe_event('{event}')"), "event"),
        (format!("apply_stripe_event('{paid}')"), "event"),
        (format!("apply_stripe_event_text('{paid}')"), "body"),
        (format!("apply_stripe_events(array['{paid}'])"), "p_events"),
        (format!("explain_event('{event}')"), "event"),
        (format!("apply_stripe_event('{{}}', '{numbers}')"), "fetched"),
        (format!("apply_stripe_event_text('{{}}', '{numbers}')"), "fetched"),
        (format!("reconcile_checkout_session('{event}', '{ANN}')"), "session"),
        (format!("load_catalog('{event}')"), "catalog"),
    ] {
        let fault = refused_cheaply(&mut c, &call);
        assert_eq!(fault.code, "22023", "{argument}: {fault:?}");
        assert_eq!(fault.message, format!("{argument} must be at most 16777216 bytes as text"));
    }
    let fault = refused_cheaply(&mut c, &format!("move_cursor('sweep', '{numbers}')"));
    assert_eq!(
        (fault.code.as_str(), fault.message.as_str()),
        ("22023", "p_position must be at most 4096 bytes")
    );
    assert_eq!(c.inbox("evt_3"), None);
}

#[test]
fn every_text_argument_has_a_limit_that_is_named() {
    let db = Database::with_catalog();
    let mut c = db.connect();
    c.apply(&paid_pack("cs_1", ANN).completed("evt_1"));
    let (id, text) = ("x".repeat(256), "x".repeat(4_097));
    let (at, to) = ("'2026-01-01'", "'2026-02-01'");
    let purchase = |at: usize| {
        let texts: Vec<String> =
            (0..6).map(|n| if n == at { format!("'{id}'") } else { "'a'".to_owned() }).collect();
        format!("apply_stripe_credit_pack_purchase('{ANN}', 1, {})", texts.join(", "))
    };
    let state = |at_position: usize| {
        let text = |n: usize| if n == at_position { format!("'{id}'") } else { "'a'".to_owned() };
        format!(
            "apply_subscription_state('{ANN}', {}, {}, {}, {}, {at}, {to}, {}, {}, false, {})",
            text(0),
            text(1),
            text(2),
            text(3),
            text(4),
            text(5),
            text(6)
        )
    };
    let mut calls: Vec<(String, &str, usize)> = vec![
        (format!("attribute('cs_{id}', '{ANN}')"), "p_stripe_id", 255),
        (format!("user_id('{id}')"), "p_external", 255),
        (format!("resolve_price('{id}')"), "p_price_id", 255),
        (format!("assert_known_price('{id}')"), "p_price_id", 255),
        (format!("explain_checkout_session('{id}')"), "p_session_id", 255),
        (format!("explain_id('{id}')"), "p_id", 255),
        (format!("find_users('{id}')"), "p_text", 255),
        (format!("payment_lines('{id}')"), "p_source_id", 255),
        (format!("move_cursor('{id}', '1')"), "p_command", 255),
        (format!("spend_credits('{ANN}', 1, '{id}')"), "p_request_id", 255),
        (format!("spend_credits('{ANN}', 1, 'a', '{text}')"), "p_description", 4_096),
        (format!("reserve_credits('{ANN}', 1, '{id}')"), "p_request_id", 255),
        (format!("reserve_credits('{ANN}', 1, 'a', '1 hour', '{text}')"), "p_description", 4_096),
        (format!("commit_reservation('{ANN}', '{id}')"), "p_request_id", 255),
        (format!("release_reservation('{ANN}', '{id}')"), "p_request_id", 255),
        (format!("refund_spend('{ANN}', '{id}', 'a')"), "p_spend_request_id", 255),
        (format!("refund_spend('{ANN}', 'a', '{id}')"), "p_request_id", 255),
        (format!("refund_spend('{ANN}', 'a', 'b', 1, '{text}')"), "p_reason", 4_096),
        (format!("refund_spend('{ANN}', 'a', 'b', 1, 'c', '{id}')"), "p_by", 255),
        (format!("grant_credits('{ANN}', 1, '{id}')"), "p_request_id", 255),
        (format!("grant_credits('{ANN}', 1, 'a', '{text}')"), "p_description", 4_096),
        (format!("adjust_credits('{ANN}', 1, '{id}', 'a')"), "p_request_id", 255),
        (format!("adjust_credits('{ANN}', 1, 'a', '{text}')"), "p_reason", 4_096),
        (format!("adjust_credits('{ANN}', 1, 'a', 'b', '{id}')"), "p_by", 255),
        (format!("import_balance('{ANN}', '{id}', 1, 'a')"), "p_pool", 255),
        (format!("import_balance('{ANN}', 'purchased', 1, '{id}')"), "p_source", 255),
    ];
    let names = [
        "p_event_id",
        "p_checkout_session_id",
        "p_payment_intent_id",
        "p_customer_id",
        "p_price_id",
        "p_pack",
    ];
    calls.extend(names.into_iter().enumerate().map(|(n, name)| (purchase(n), name, 255)));
    let names = [
        "p_tier",
        "p_customer_id",
        "p_subscription_id",
        "p_price_id",
        "p_event_id",
        "p_invoice_id",
        "p_status",
    ];
    calls.extend(names.into_iter().enumerate().map(|(n, name)| (state(n), name, 255)));
    for (call, argument, limit) in calls {
        let fault = refused_cheaply(&mut c, &call);
        assert_eq!(fault.code, "22023", "{call}: {fault:?}");
        assert_eq!(fault.message, format!("{argument} must be at most {limit} bytes"), "{call}");
        assert!(fault.detail.len() < 100, "the text itself is not repeated: {fault:?}");
    }
    let most = "x".repeat(255);
    assert_eq!(c.call("spend_credits($1, 1, $2)", &[&ANN, &most]).summary(), "applied");
}
