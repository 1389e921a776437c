//! Hostile bodies with a valid signature: each gets a clear answer, the server lives on, and only the inbox is written.

use std::collections::BTreeMap;

use serde_json::json;
use stripe_credits_tests::shim::{SECRET, Setup, Shim, signature, unix_now};
use stripe_credits_tests::{ANN, Connection, Database, Event, paid_pack, session, wire};

/// The largest body taken, in bytes.
const MIB: usize = 1024 * 1024;

/// A shim, its books, and what is asserted after every body.
struct Bench {
    shim: Shim,
    books: Connection,
    good: i64,
    // Dropped last: its drop checks the books.
    _database: Database,
}

impl Bench {
    fn new() -> Bench {
        let database = Database::with_catalog();
        let shim = Setup::serve(&database.url()).start();
        Bench { shim, books: database.connect(), good: 0, _database: database }
    }

    /// The body is answered so, and not a row is written.
    fn refuses(&mut self, what: &str, body: &[u8], expected: &str) {
        let before = self.books.everything();
        assert_eq!(self.shim.deliver_bytes(body).summary(), expected, "{what}");
        assert_eq!(self.books.everything(), before, "{what}: something was written");
        self.still_works(what);
    }

    /// The body is answered so, and the inbox holds one row more, which says the same; no other table changed.
    fn records(&mut self, what: &str, body: &[u8], expected: &str) {
        let before = self.books.everything();
        assert_eq!(self.shim.deliver_bytes(body).summary(), expected, "{what}");
        let mut after = self.books.everything();
        let (old, new) = (&before["stripe_events"], after.remove("stripe_events").expect("a table"));
        assert_eq!(new.len(), old.len() + 1, "{what}");
        let others = |tables: &BTreeMap<String, Vec<String>>| {
            let mut tables = tables.clone();
            tables.remove("stripe_events");
            tables
        };
        assert_eq!(after, others(&before), "{what}: something but the record was written");
        let recorded = expected.strip_prefix("200 ").expect("what is recorded is answered 200");
        assert_eq!(self.books.inbox("evt_hostile").as_deref(), Some(recorded), "{what}");
        self.books.run("delete from billing.stripe_events where event_id = 'evt_hostile'");
        self.still_works(what);
    }

    /// A good event is still applied, as if nothing had been.
    fn still_works(&mut self, what: &str) {
        self.good += 1;
        let good =
            paid_pack(&format!("cs_good_{}", self.good), ANN).completed(&format!("evt_good_{}", self.good));
        assert_eq!(self.shim.deliver(&good).summary(), "200 applied", "after {what}");
        assert_eq!(self.books.balance(ANN), 500 * self.good, "after {what}");
    }
}

fn hostile() -> Event {
    paid_pack("cs_hostile", ANN).completed("evt_hostile")
}

/// The event as text, with a piece of it replaced: what serde_json would not write.
fn text(from: &str, to: &str) -> Vec<u8> {
    let text = hostile().json().to_string();
    assert!(text.contains(from), "{from} is not in {text}");
    text.replacen(from, to, 1).into_bytes()
}

/// An event of exactly `size` bytes, filled up within a string of its object.
fn of_size(event_id: &str, size: usize) -> Vec<u8> {
    let event = |filling: usize| {
        let session = paid_pack("cs_large", ANN).with("description", "x".repeat(filling));
        session.completed(event_id).json().to_string().into_bytes()
    };
    let body = event(size - event(0).len());
    assert_eq!(body.len(), size);
    body
}

#[test]
fn a_body_of_exactly_one_mebibyte_is_applied_and_kept_whole() {
    let database = Database::with_catalog();
    let shim = Setup::serve(&database.url()).start();
    let mut books = database.connect();
    assert_eq!(shim.deliver_bytes(&of_size("evt_1", MIB)).summary(), "200 applied");
    let kept: i32 =
        books.one("select length(payload #>> '{data,object,description}') from billing.stripe_events", &[]);
    assert!(usize::try_from(kept).expect("a length") > MIB - 2000);
    let mut spaces = hostile().json().to_string().into_bytes();
    spaces.resize(MIB, b' ');
    assert_eq!(shim.deliver_bytes(&spaces).summary(), "200 applied");
    assert_eq!(books.ledger(ANN), ["purchase 500", "purchase 500"]);
}

#[test]
fn one_byte_more_than_a_mebibyte_is_413_with_a_length_and_in_chunks_and_unfinished() {
    let mut bench = Bench::new();
    let body = of_size("evt_hostile", MIB + 1);
    bench.refuses("1 MiB + 1", &body, "413 body_too_large");
    bench.refuses("4 MiB", &of_size("evt_hostile", 4 * MIB), "413 body_too_large");

    let before = bench.books.everything();
    let signature = signature(SECRET, unix_now(), &body);
    let chunked = [("Stripe-Signature", signature.as_str()), ("Transfer-Encoding", "chunked")];
    for size in [1000, 64 * 1024, MIB] {
        let mut wire = bench.shim.connect();
        wire.send(&wire::head("POST", "/webhooks/stripe", &chunked)).expect("the shim reads");
        wire.send(&wire::chunked(&body, size)).expect("the shim reads");
        assert_eq!(wire.answer().expect("an answer").summary(), "413 body_too_large", "chunks of {size}");
    }
    // A body that is announced as far too large is not read.
    let mut wire = bench.shim.connect();
    let huge = [("Stripe-Signature", signature.as_str()), ("Content-Length", "1000000000000")];
    wire.send(&wire::head("POST", "/webhooks/stripe", &huge)).expect("the shim reads");
    assert_eq!(wire.answer().expect("an answer").summary(), "413 body_too_large");
    assert_eq!(bench.books.everything(), before);
    bench.still_works("chunks");
}

#[test]
fn a_chunked_body_within_the_limit_is_applied() {
    let database = Database::with_catalog();
    let shim = Setup::serve(&database.url()).start();
    let body = of_size("evt_1", MIB);
    let signature = signature(SECRET, unix_now(), &body);
    let headers = [("Stripe-Signature", signature.as_str()), ("Transfer-Encoding", "chunked")];
    let mut wire = shim.connect();
    wire.send(&wire::head("POST", "/webhooks/stripe", &headers)).expect("the shim reads");
    wire.send(&wire::chunked(&body, 777)).expect("the shim reads");
    assert_eq!(wire.answer().expect("an answer").summary(), "200 applied");
    assert_eq!(database.connect().ledger(ANN), ["purchase 500"]);
}

#[test]
fn what_is_no_event_is_400_malformed_body_and_leaves_nothing() {
    let mut bench = Bench::new();
    let good = hostile().json().to_string();
    let bom = format!("\u{feff}{good}").into_bytes();
    let twice = format!("{good}{good}").into_bytes();
    let without = |field: &str| {
        let mut event = hostile().json().clone();
        event.as_object_mut().expect("an object").remove(field);
        event.to_string().into_bytes()
    };
    let with =
        |field: &str, value: serde_json::Value| hostile().with(field, value).json().to_string().into_bytes();
    let cases: Vec<(&str, Vec<u8>)> = vec![
        ("an empty body", Vec::new()),
        ("spaces", b"   ".to_vec()),
        ("not JSON", b"paid, honestly".to_vec()),
        ("half of the JSON", good.as_bytes()[..good.len() / 2].to_vec()),
        ("two events", twice),
        ("a form", b"id=evt_hostile&type=checkout.session.completed".to_vec()),
        ("null", b"null".to_vec()),
        ("a number", b"7".to_vec()),
        ("a string", b"\"evt_hostile\"".to_vec()),
        ("an array", format!("[{good}]").into_bytes()),
        (
            "an array in a struct's order",
            br#"["evt_hostile", "checkout.session.completed", 1, false]"#.to_vec(),
        ),
        ("an empty object", b"{}".to_vec()),
        ("no id", without("id")),
        ("no type", without("type")),
        ("a blank id", with("id", json!("  "))),
        ("an empty id", with("id", json!(""))),
        ("a number as id", with("id", json!(7))),
        ("null as id", with("id", json!(null))),
        ("an id of 300 bytes", with("id", json!("e".repeat(300)))),
        ("NUL in the id", with("id", json!("evt\u{0}hostile"))),
        ("a line break in the type", with("type", json!("a\nb"))),
        ("a lone surrogate in the id", text(r#""evt_hostile""#, r#""evt_\ud800""#)),
        ("two ids", text(r#""id":"evt_hostile""#, r#""id":"evt_hostile","id":"evt_other""#)),
        ("two types", text(r#""type":"checkout"#, r#""type":"x","type":"checkout"#)),
        (
            "two livemodes",
            text(
                r#""livemode":false,"object":"event""#,
                r#""livemode":false,"livemode":true,"object":"event""#,
            ),
        ),
        ("two accounts", text(r#""object":"event""#, r#""object":"event","account":"a","account":null"#)),
        ("two datas", text(r#""object":"event""#, r#""object":"event","data":{}"#)),
        ("a byte order mark", bom),
        ("UTF-16", good.encode_utf16().flat_map(u16::to_le_bytes).collect()),
        ("invalid UTF-8", [&b"{\"id\":\"evt_\xff\xfe"[..], &good.as_bytes()[7..]].concat()),
        ("an overlong NUL", [&b"{\"x\":\"\xc0\x80\","[..], &good.as_bytes()[1..]].concat()),
        ("a comment", format!("/* paid */{good}").into_bytes()),
        ("NaN", text(r#""created":1760000000"#, r#""created":NaN"#)),
        ("a trailing comma", text(r#""object":"event""#, r#""object":"event","#)),
        ("single quotes", good.replace('"', "'").into_bytes()),
    ];
    for (what, body) in cases {
        bench.refuses(what, &body, "400 malformed_body");
    }
}

#[test]
fn scenario_66_a_purchase_is_applied_whatever_characters_its_buyer_typed() {
    let mut bench = Bench::new();
    let pack = r#""price_id":"price_pack""#;
    let cases = [
        ("\\u0000 in the metadata", r#""price_id":"price_pack","note":"\u0000""#),
        ("\\u0000 in a key", r#""price_id":"price_pack","no\u0000te":"x""#),
        ("a lone high surrogate", r#""price_id":"price_pack","note":"\ud800""#),
        ("a lone low surrogate", r#""price_id":"price_pack","note":"\udc00 x""#),
        ("surrogates in the wrong order", r#""price_id":"price_pack","note":"\udc00\ud800""#),
    ];
    for (n, (what, to)) in (1..).zip(cases) {
        let body = String::from_utf8(text(pack, to)).expect("UTF-8").replace("_hostile", &format!("_{n}"));
        assert_eq!(bench.shim.deliver_bytes(body.as_bytes()).summary(), "200 applied", "{what}");
        assert_eq!(bench.books.balance(ANN), 500 * n, "{what}");
        let kept: String = bench.books.one(
            "select payload::jsonb::text from billing.stripe_events where event_id = $1",
            &[&format!("evt_{n}")],
        );
        assert!(kept.contains('\u{fffd}'), "{what}: {kept}");
    }
}

#[test]
fn what_jsonb_cannot_hold_is_recorded_as_rejected_without_its_data() {
    let mut bench = Bench::new();
    let pack = r#""price_id":"price_pack""#;
    let number = format!(r#""price_id":"price_pack","note":1e{}"#, "9".repeat(9));
    bench.records("1e999999999", &text(pack, &number), "200 rejected malformed");
    let deep = format!(r#""price_id":"price_pack","note":{}{}"#, "[".repeat(100_000), "]".repeat(100_000));
    bench.records("100,000-deep arrays", &text(pack, &deep), "200 rejected malformed");
    let deep =
        format!(r#""price_id":"price_pack","note":{}1{}"#, r#"{"a":"#.repeat(100_000), "}".repeat(100_000));
    bench.records("100,000-deep objects", &text(pack, &deep), "200 rejected malformed");

    bench.refuses("100,000 open brackets", "[".repeat(100_000).as_bytes(), "400 malformed_body");
    bench.refuses(
        "100,000 open braces",
        format!(r#"{{"id":"evt_hostile","type":"t","data":{}"#, r#"{"a":"#.repeat(100_000)).as_bytes(),
        "400 malformed_body",
    );
    let whole =
        format!(r#"{{"id":"evt_hostile","type":"t","data":{}{}}}"#, "[".repeat(100_000), "]".repeat(100_000));
    bench.records("nothing but depth", whole.as_bytes(), "200 rejected malformed");
}

#[test]
fn depth_that_jsonb_holds_harms_nothing() {
    let mut bench = Bench::new();
    for depth in [100, 200, 1000, 3000] {
        // Beside what the rules read, and in the place of something that they read.
        let beside = format!(r#""mode":"payment","x":{}{}"#, "[".repeat(depth), "]".repeat(depth));
        let body = String::from_utf8(text(r#""mode":"payment""#, &beside))
            .expect("UTF-8")
            .replace("_hostile", &format!("_{depth}"))
            .into_bytes();
        assert_eq!(bench.shim.deliver_bytes(&body).summary(), "200 applied", "{depth}");
        let within = format!(r#""customer":{}{}"#, "[".repeat(depth), "]".repeat(depth));
        bench.good += 1;
        bench.records(
            &format!("{depth} deep"),
            &text(r#""customer":null"#, &within),
            "200 rejected malformed",
        );
    }
}

#[test]
fn fields_of_other_types_than_stripes_are_recorded_as_rejected() {
    let mut bench = Bench::new();
    for (what, from, to) in [
        ("created as text", r#""created":1760000000,"data""#, r#""created":"now","data""#),
        ("created with a fraction", r#""created":1760000000,"data""#, r#""created":1760000000.5,"data""#),
        (
            "created in 26 digits",
            r#""created":1760000000,"data""#,
            r#""created":99999999999999999999999999,"data""#,
        ),
        (
            "created beyond every calendar",
            r#""created":1760000000,"data""#,
            r#""created":9223372036854775807,"data""#,
        ),
        (
            "livemode as text",
            r#""livemode":false,"object":"event""#,
            r#""livemode":"false","object":"event""#,
        ),
        (
            "amount_total in 26 digits",
            r#""amount_total":1000"#,
            r#""amount_total":99999999999999999999999999"#,
        ),
        ("amount_total with a fraction", r#""amount_total":1000"#, r#""amount_total":10.5"#),
        ("amount_total as 1e400", r#""amount_total":1000"#, r#""amount_total":1e400"#),
        ("amount_total as text", r#""amount_total":1000"#, r#""amount_total":"1000""#),
        ("a session without a mode", r#""mode":"payment","#, ""),
        ("a number as session id", r#""id":"cs_hostile""#, r#""id":7"#),
        ("a blank session id", r#""id":"cs_hostile""#, r#""id":" ""#),
    ] {
        bench.records(what, &text(from, to), "200 rejected malformed");
    }
    let no_data = r#"{"id":"evt_hostile","type":"checkout.session.completed","created":1,"livemode":false}"#;
    bench.records("no data", no_data.as_bytes(), "200 rejected malformed");
    let id_alone = r#"{"id":"evt_hostile","type":"t"}"#;
    bench.records("an id and a type", id_alone.as_bytes(), "200 rejected malformed");
}

#[test]
fn credits_in_the_metadata_are_never_believed_whatever_they_are() {
    let database = Database::with_catalog();
    let shim = Setup::serve(&database.url()).start();
    let mut books = database.connect();
    let credits = [
        json!("99999999999999999999999999"),
        json!("-500"),
        json!("1.5"),
        json!("1e9"),
        json!(""),
        json!(-500),
        json!(1.5),
        json!(u64::MAX),
        json!(null),
        json!(["500"]),
    ];
    for (n, stated) in credits.iter().enumerate() {
        let event = paid_pack(&format!("cs_{n}"), ANN).metadata("credits", stated.clone());
        let answer = shim.deliver(&event.completed(&format!("evt_{n}")));
        assert_eq!(answer.summary(), "200 applied", "{stated}");
        assert_eq!(answer.json()["credits"], 500, "{stated}");
    }
    let as_number =
        text(r#""price_id":"price_pack""#, r#""price_id":"price_pack","credits":99999999999999999999999999"#);
    assert_eq!(shim.deliver_bytes(&as_number).json()["credits"], 500);
    assert_eq!(books.ledger(ANN), vec!["purchase 500"; credits.len() + 1]);
}

#[test]
fn an_invalid_quantity_is_not_guessed_at() {
    let database = Database::with_catalog();
    let shim = Setup::serve(&database.url()).start();
    let mut books = database.connect();
    let quantities = ["99999999999999999999999999", "-3", "1.5", "0", "", "1e3", "three", " 3", "1000001"];
    for (n, quantity) in quantities.iter().enumerate() {
        let event = session(&format!("cs_{n}"))
            .of(ANN)
            .metadata("price_id", "price_pack")
            .metadata("quantity", *quantity)
            .completed(&format!("evt_{n}"));
        assert_eq!(shim.deliver(&event).summary(), "200 parked unfetched", "{quantity:?}");
    }
    assert_eq!(books.ledger(ANN), [""; 0]);
}

#[test]
fn heads_that_are_no_http_are_refused_and_the_server_lives() {
    let mut bench = Bench::new();
    let before = bench.books.everything();
    let long = format!("GET /{} HTTP/1.1\r\n\r\n", "x".repeat(64 * 1024));
    let many = "X-Header: y\r\n".repeat(5000);
    let many = format!("GET /healthz HTTP/1.1\r\n{many}\r\n");
    for (what, bytes) in [
        ("noise", &b"\x00\x01\x02\x03\r\n\r\n"[..]),
        ("a TLS hello", &b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n"[..]),
        ("a long path", long.as_bytes()),
        ("many headers", many.as_bytes()),
        (
            "two lengths",
            &b"POST /webhooks/stripe HTTP/1.1\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabcd"[..],
        ),
        ("a length below zero", &b"POST /webhooks/stripe HTTP/1.1\r\nContent-Length: -1\r\n\r\n"[..]),
        ("an end in the middle of a head", &b"POST /webhooks/stripe HTTP/1.1\r\nContent"[..]),
    ] {
        let mut wire = bench.shim.connect();
        // It may refuse before it has read everything.
        let _ = wire.send(bytes);
        wire.ends_sending();
        let answered = wire.until_closed();
        assert!(
            answered.is_empty() || answered.starts_with(b"HTTP/1.1 4"),
            "{what}: {}",
            String::from_utf8_lossy(&answered)
        );
        bench.still_works(what);
    }
    // A body that ends before its length.
    let mut wire = bench.shim.connect();
    let body = hostile().json().to_string();
    let signature = signature(SECRET, unix_now(), body.as_bytes());
    let length = (body.len() + 10).to_string();
    let headers = [("Stripe-Signature", signature.as_str()), ("Content-Length", length.as_str())];
    wire.send(&wire::head("POST", "/webhooks/stripe", &headers)).expect("the shim reads");
    wire.send(body.as_bytes()).expect("the shim reads");
    wire.ends_sending();
    let answered = wire.until_closed();
    assert!(
        answered.is_empty() || answered.starts_with(b"HTTP/1.1 400"),
        "{}",
        String::from_utf8_lossy(&answered)
    );
    assert_eq!(bench.books.inbox("evt_hostile"), None);
    assert_eq!(bench.books.everything()["settings"], before["settings"]);
}
