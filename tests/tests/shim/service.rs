//! The routes for an app's own servers: the same calls as by SQL, the same answers, and no way in without the token.

use std::collections::BTreeMap;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use stripe_credits_tests::app::{SERVICE_TOKEN, without_stripe};
use stripe_credits_tests::fake_redis::FakeRedis;
use stripe_credits_tests::shim::{Setup, until};
use stripe_credits_tests::tokens::token;
use stripe_credits_tests::wire::{Answer, head};
use stripe_credits_tests::{ANN, BOB, Connection, Database, catalog, paid_pack, session};

/// The routes that move credits.
const CALLS: [&str; 6] = ["spend", "reserve", "commit", "release", "refund", "grant"];
/// What nobody else needs to wait for.
const PROMPT: Duration = Duration::from_secs(5);

fn with_token(database: &Database) -> Setup {
    without_stripe(database).with("SERVICE_TOKEN", SERVICE_TOKEN)
}

fn path(call: &str) -> String {
    format!("/service/{call}")
}

/// The row that SQL returns for a call with these named arguments, as JSON.
fn by_sql(books: &mut Connection, call: &str) -> Value {
    books.one(&format!("select to_jsonb(r) from billing.{call} r"), &[])
}

fn fault_of(answer: &Answer) -> (u16, String, String) {
    let error = &answer.json()["error"];
    let text = |field: &str| error[field].as_str().unwrap_or_default().to_owned();
    (answer.status, text("code"), text("message"))
}

#[test]
fn every_call_answers_the_row_of_sql_and_writes_the_same_ledger() {
    let (http, sql) = (Database::with_catalog(), Database::with_catalog());
    let shim = with_token(&http).start();
    let (mut http_books, mut books) = (http.connect(), sql.connect());
    let ann = format!("p_user_id => '{ANN}'");
    let steps = [
        // The route, its body without the user, and the same by SQL.
        ("grant", json!({"amount": 100, "request_id": "gift", "description": "a gift"}),
            format!("grant_credits({ann}, p_amount => 100, p_request_id => 'gift', p_description => 'a gift')")),
        ("grant", json!({"amount": 50, "request_id": "until", "expires_at": "2990-01-31T12:00:00Z"}),
            format!("grant_credits({ann}, p_amount => 50, p_request_id => 'until', p_expires_at => '2990-01-31T12:00Z')")),
        ("spend", json!({"amount": 20, "request_id": "job-1", "description": "one \u{201e}picture\u{201c}",
                "metadata": {"model": "x", "n": 1.5}}),
            format!("spend_credits({ann}, p_amount => 20, p_request_id => 'job-1',
                p_description => 'one \u{201e}picture\u{201c}', p_metadata => '{{\"model\": \"x\", \"n\": 1.5}}')")),
        // Again: already applied. With another amount: a conflict. Too many: rejected, and nothing is recorded.
        ("spend", json!({"amount": 20, "request_id": "job-1"}),
            format!("spend_credits({ann}, p_amount => 20, p_request_id => 'job-1')")),
        ("spend", json!({"amount": 21, "request_id": "job-1"}),
            format!("spend_credits({ann}, p_amount => 21, p_request_id => 'job-1')")),
        ("spend", json!({"amount": 1000, "request_id": "job-2"}),
            format!("spend_credits({ann}, p_amount => 1000, p_request_id => 'job-2')")),
        ("reserve", json!({"amount": 30, "request_id": "video"}),
            format!("reserve_credits({ann}, p_amount => 30, p_request_id => 'video')")),
        ("reserve", json!({"amount": 10, "request_id": "song", "ttl_seconds": 3600, "description": "a song"}),
            format!("reserve_credits({ann}, p_amount => 10, p_request_id => 'song', p_ttl => '1 hour', p_description => 'a song')")),
        ("commit", json!({"amount": 25, "request_id": "video"}),
            format!("commit_reservation({ann}, p_request_id => 'video', p_amount => 25)")),
        ("commit", json!({"request_id": "nothing"}),
            format!("commit_reservation({ann}, p_request_id => 'nothing')")),
        ("release", json!({"request_id": "song"}), format!("release_reservation({ann}, p_request_id => 'song')")),
        ("release", json!({"request_id": "video"}), format!("release_reservation({ann}, p_request_id => 'video')")),
        ("refund", json!({"spend_request_id": "job-1", "request_id": "back", "amount": 5}),
            format!("refund_spend({ann}, p_spend_request_id => 'job-1', p_request_id => 'back', p_amount => 5)")),
        ("refund", json!({"spend_request_id": "job-1", "request_id": "back-1", "amount": 1, "reason": "the job failed"}),
            format!("refund_spend({ann}, p_spend_request_id => 'job-1', p_request_id => 'back-1', p_amount => 1,
                p_reason => 'the job failed')")),
        ("refund", json!({"spend_request_id": "video", "request_id": "back-2"}),
            format!("refund_spend({ann}, p_spend_request_id => 'video', p_request_id => 'back-2')")),
        ("refund", json!({"spend_request_id": "job-9", "request_id": "back-3"}),
            format!("refund_spend({ann}, p_spend_request_id => 'job-9', p_request_id => 'back-3')")),
    ];
    let mut seen = BTreeMap::new();
    for (call, mut body, same) in steps {
        body["user"] = json!(ANN);
        let answer = shim.serve(call, &body);
        assert_eq!(answer.status, 200, "{call} {body}: {answer:?}");
        assert_eq!(without_times(answer.json()), without_times(by_sql(&mut books, &same)), "{call} {body}");
        *seen.entry(answer.summary()).or_insert(0) += 1;
    }
    assert_eq!(seen["200 applied"], 10, "{seen:?}");
    assert_eq!((seen["200 already_applied"], seen["200 rejected insufficient_credits"]), (1, 1), "{seen:?}");
    assert_eq!(http_books.ledger(ANN), books.ledger(ANN));
    let described = "select coalesce(string_agg(t.description || t.metadata::text, ' ' order by t.id), '')
        from billing.credit_transactions t";
    assert_eq!(http_books.one::<String>(described, &[]), books.one::<String>(described, &[]));
    let held =
        "select string_agg(r.request_id || ' ' || r.status || ' ' || (r.expires_at - r.created_at), ', '
        order by r.request_id) from billing.reservations r";
    assert_eq!(http_books.one::<String>(held, &[]), books.one::<String>(held, &[]));
    let read = shim.read_credits(&ANN.to_string());
    assert_eq!((read.status, &*read.headers["cache-control"]), (200, "no-store"));
    assert_eq!(read.json()["credits_balance"], json!(books.balance(ANN)));
    assert_eq!(read.json(), shim.get_as(ANN, "/credits").json(), "what the user reads");
}

/// The row without what differs between two databases.
fn without_times(mut row: Value) -> Value {
    if let Some(details) = row["details"].as_object_mut() {
        details.remove("expires_at");
    }
    row
}

#[test]
fn a_call_by_http_and_by_sql_is_one_call() {
    let database = Database::with_catalog();
    let shim = with_token(&database).start();
    let mut books = database.connect();
    books.grant(ANN, 100, "gift");
    let spend = json!({"user": ANN, "amount": 30, "request_id": "job"});
    thread::scope(|scope| {
        let calls: Vec<_> = (0..8).map(|_| scope.spawn(|| shim.serve("spend", &spend).summary())).collect();
        let by_sql = books.spend(ANN, 30, "job").summary();
        let mut outcomes: Vec<String> = calls.into_iter().map(|call| call.join().expect("a call")).collect();
        outcomes.push(format!("200 {by_sql}"));
        assert_eq!(outcomes.iter().filter(|outcome| *outcome == "200 applied").count(), 1, "{outcomes:?}");
        assert_eq!(outcomes.iter().filter(|outcome| *outcome == "200 already_applied").count(), 8);
    });
    assert_eq!(books.ledger(ANN), ["grant 100", "spend -30"]);
}

#[test]
fn an_idempotency_key_is_the_request_id_and_must_agree_with_the_body() {
    let database = Database::with_catalog();
    let shim = with_token(&database).start();
    let mut books = database.connect();
    books.grant(ANN, 100, "gift");
    let bearer = format!("Bearer {SERVICE_TOKEN}");
    let send = |keys: &[&str], body: &Value| {
        let keys = keys.iter().map(|key| ("Idempotency-Key", *key));
        let headers: Vec<_> = [("Authorization", &*bearer)].into_iter().chain(keys).collect();
        shim.ask("POST", "/service/spend", &headers, body.to_string().as_bytes())
    };
    let unnamed = json!({"user": ANN, "amount": 30});
    let named = json!({"user": ANN, "amount": 30, "request_id": "job"});
    assert_eq!(send(&["job"], &unnamed).summary(), "200 applied");
    assert_eq!(send(&["job"], &named).summary(), "200 already_applied");
    assert_eq!(send(&[], &named).summary(), "200 already_applied");
    for (keys, body) in
        [(&["other"][..], &named), (&["job", "job"], &unnamed), (&["j\u{f6}b"], &unnamed), (&[], &unnamed)]
    {
        assert_eq!(send(keys, body).summary(), "400 malformed_request", "{keys:?}");
    }
    assert_eq!(send(&[" "], &unnamed).summary(), "400 invalid_call", "a blank is no request id");
    assert_eq!(books.ledger(ANN), ["grant 100", "spend -30"]);
}

#[test]
fn a_wrong_call_is_400_in_postgress_words_and_writes_nothing() {
    let database = Database::with_catalog();
    let shim = with_token(&database).start();
    let mut books = database.connect();
    books.grant(ANN, 100, "gift");
    let before = books.everything();
    let long = "x".repeat(300);
    for (call, field, value, code, message) in [
        ("spend", "amount", json!(0), "invalid_call", "p_amount must be above 0"),
        ("spend", "amount", json!(-5), "invalid_call", "p_amount must be above 0"),
        ("grant", "amount", json!(i64::MAX), "invalid_call", "p_amount must be at most"),
        ("spend", "request_id", json!(""), "invalid_call", "p_request_id must not be blank"),
        ("spend", "request_id", json!(long), "invalid_call", "p_request_id must be at most 255 bytes"),
        ("spend", "description", json!("a\0b"), "invalid_call", ""),
        ("spend", "metadata", json!({"a": "x".repeat(70_000)}), "invalid_call", "p_metadata must be at most"),
        ("spend", "metadata", json!({"a": "\0"}), "invalid_call", ""),
        ("reserve", "ttl_seconds", json!(-1), "invalid_call", "p_ttl"),
        ("reserve", "ttl_seconds", json!(i64::MAX), "invalid_call", ""),
        ("grant", "expires_at", json!("soon"), "invalid_call", "invalid input syntax for type timestamp"),
        ("grant", "expires_at", json!("1999-01-01T00:00:00Z"), "invalid_call", "p_expires_at"),
        ("refund", "spend_request_id", json!(" "), "invalid_call", "p_spend_request_id must not be blank"),
        ("refund", "reason", json!(" "), "invalid_call", "p_reason must not be blank"),
        ("spend", "user", json!("ann"), "unknown_user", "no UUID"),
        ("spend", "user", json!(""), "unknown_user", "no UUID"),
        ("spend", "amount", json!("5"), "malformed_request", "i64"),
        ("spend", "amount", json!(1.5), "malformed_request", "i64"),
        ("spend", "amount", Value::Null, "malformed_request", "null"),
        ("spend", "metadata", json!([1]), "malformed_request", "metadata is not a JSON object"),
        // Taken for no amount, all of the reservation would be spent.
        ("commit", "ammount", json!(1), "malformed_request", "unknown field `ammount`"),
    ] {
        let mut body = match call {
            "commit" => json!({"user": ANN, "request_id": "job"}),
            "refund" => json!({"user": ANN, "request_id": "job", "spend_request_id": "job-0"}),
            _ => json!({"user": ANN, "request_id": "job", "amount": 5}),
        };
        body[field] = value;
        let (status, found, text) = fault_of(&shim.serve(call, &body));
        assert_eq!((status, &*found), (400, code), "{call} {body}: {text}");
        assert!(text.contains(message), "{call} {body}: {text}");
    }
    for body in ["", "{", "[]", "null", "{\"user\": 7}"] {
        let answer = shim.bearing("POST", "/service/spend", SERVICE_TOKEN, body.as_bytes());
        assert_eq!(answer.summary(), "400 malformed_request", "{body}");
    }
    assert_eq!(shim.read_credits("ann").summary(), "400 unknown_user");
    assert_eq!(shim.read_credits("%ff").summary(), "400 unknown_user");
    assert_eq!(books.everything(), before);
}

#[test]
fn without_a_service_token_there_are_no_routes_and_no_other_opens_them() {
    let database = Database::with_catalog();
    let mut books = database.connect();
    books.grant(ANN, 100, "gift");
    let before = books.everything();
    let body = json!({"user": ANN, "amount": 5, "request_id": "job", "spend_request_id": "job"}).to_string();
    let routes: Vec<(&str, String)> = CALLS
        .iter()
        .map(|call| ("POST", path(call)))
        .chain([("GET", format!("/service/credits/{ANN}"))])
        .collect();
    let closed = without_stripe(&database).start();
    for (method, path) in &routes {
        let answer = closed.bearing(method, path, SERVICE_TOKEN, body.as_bytes());
        assert_eq!(answer.summary(), "404 not_found", "{path}");
    }
    let (old, new) = ("old-token-of-the-tests-0123456789abcdef", "new-token-of-the-tests-0123456789abcdef");
    let shim = without_stripe(&database).with("SERVICE_TOKEN", &format!("{new},{old}")).start();
    for (method, path) in &routes {
        let without = shim.ask(method, path, &[], body.as_bytes());
        assert_eq!((without.status, &*without.headers["www-authenticate"]), (401, "Bearer"), "{path}");
        assert_eq!(without.json(), json!({"code": 401, "message": "Missing Authorization header"}));
        for wrong in [&*token(ANN), SERVICE_TOKEN, &format!("{new},{old}"), &new[1..], &format!("{new}x"), ""]
        {
            let answer = shim.bearing(method, path, wrong, body.as_bytes());
            assert_eq!(answer.status, 401, "{path} {wrong}: {answer:?}");
            if !wrong.is_empty() {
                assert_eq!(answer.json(), json!({"code": 401, "message": "Invalid service token"}));
            }
        }
        let other = if *method == "GET" { "POST" } else { "GET" };
        assert_eq!(shim.bearing(other, path, new, b"").summary(), "405 method_not_allowed", "{path}");
    }
    // Nor does the service token open a user's routes.
    assert_eq!(shim.bearing("GET", "/credits", new, b"").status, 401);
    assert_eq!(books.everything(), before);
    assert!(shim.metric("stripe_credits_requests_total", &[("reason", "service_token")]) >= 28);

    // A stranger's body is not waited for.
    let mut wire = shim.connect();
    let since = Instant::now();
    let announced = [("Authorization", "Bearer x"), ("Content-Length", "100000")];
    wire.send(&head("POST", "/service/spend", &announced)).expect("the shim reads");
    assert_eq!(wire.answer().expect("an answer").status, 401);
    assert!(since.elapsed() < PROMPT);

    for (n, token) in [new, old].into_iter().enumerate() {
        let body = json!({"user": ANN, "amount": 5, "request_id": format!("job-{n}")});
        let answer = shim.bearing("POST", "/service/spend", token, body.to_string().as_bytes());
        assert_eq!(answer.summary(), "200 applied");
    }
    let log = shim.text();
    assert!(
        !log.contains(old) && !log.contains(new) && !log.contains(SERVICE_TOKEN),
        "a token is in the log"
    );
}

#[test]
fn a_user_may_be_any_text_with_a_namespace() {
    let database = Database::new();
    let mut document = catalog();
    document["user_namespace"] = json!("6ba7b811-9dad-11d1-80b4-00c04fd430c8");
    let mut books = database.connect();
    books.load_catalog(&document);
    let pack = session("cs_1").metadata("user_id", "team/7 \u{e4}").metadata("price_id", "price_pack");
    let user = books.apply(&pack.completed("evt_1")).user_id;
    let shim = with_token(&database).start();
    let spent = shim.serve("spend", &json!({"user": "team/7 \u{e4}", "amount": 20, "request_id": "job"}));
    assert_eq!((&*spent.summary(), &spent.json()["user_id"]), ("200 applied", &json!(user)));
    let read = shim.read_credits("team%2F7%20%C3%A4");
    assert_eq!((&read.json()["user_id"], &read.json()["credits_balance"]), (&json!(user), &json!(480)));
    assert_eq!(shim.read_credits("team/7").status, 404, "two segments");
}

#[test]
fn a_locked_account_is_503_and_keeps_no_other_user_waiting() {
    let database = Database::with_catalog();
    let shim = with_token(&database).with("DATABASE_LOCK_TIMEOUT", "1").start();
    let mut books = database.connect();
    books.grant(ANN, 1000, "gift");
    books.grant(BOB, 1000, "gift");
    let mut holder = database.connect();
    holder.run("begin");
    holder.spend(ANN, 1, "held");
    thread::scope(|scope| {
        let shim = &shim;
        let waiting: Vec<_> = (0..20)
            .map(|n| {
                let body = json!({"user": ANN, "amount": 1, "request_id": format!("job-{n}")});
                scope.spawn(move || shim.serve("spend", &body))
            })
            .collect();
        until("her spends wait", || {
            let locked = "select count(*) from pg_stat_activity where datname = current_database()
                and application_name = 'stripe-credits' and wait_event_type = 'Lock'";
            books.one::<i64>(locked, &[]) > 0
        });
        for n in 0..20 {
            let since = Instant::now();
            let body = json!({"user": BOB, "amount": 1, "request_id": format!("job-{n}")});
            assert_eq!(shim.serve("spend", &body).summary(), "200 applied");
            assert!(since.elapsed() < PROMPT, "Bob waits");
        }
        for answer in waiting.into_iter().map(|waiting| waiting.join().expect("an answer")) {
            assert_eq!(answer.summary(), "503 database_locked");
            assert_eq!(answer.headers["retry-after"], "10");
        }
    });
    holder.run("commit");
    let again = shim.serve("spend", &json!({"user": ANN, "amount": 1, "request_id": "job-0"}));
    assert_eq!(again.summary(), "200 applied");
    assert_eq!((books.balance(ANN), books.balance(BOB)), (998, 980));
}

#[test]
fn each_request_is_logged_and_counted_by_its_route() {
    let database = Database::with_catalog();
    let shim = with_token(&database).start();
    database.connect().grant(ANN, 100, "gift");
    let body = json!({"user": ANN, "amount": 30, "request_id": "job", "description": "a secret wish"});
    assert_eq!(shim.serve("spend", &body).summary(), "200 applied");
    let line = shim.requests("/service/spend", 1).remove(0);
    assert_eq!(
        (&line["level"], &line["user_id"], &line["request_id"]),
        (&json!("INFO"), &json!(ANN), &json!("job"))
    );
    assert_eq!(
        (&line["outcome"], &line["credits"], &line["status"]),
        (&json!("applied"), &json!(-30), &json!(200))
    );
    assert!(line["ms"].is_number());
    shim.read_credits(&ANN.to_string());
    assert_eq!(shim.requests("/service/credits/{user}", 1)[0]["user_id"], json!(ANN));
    let bad = json!({"user": ANN, "amount": 1, "request_id": "job-2", "expires_at": "a secret day"});
    assert_eq!(shim.serve("grant", &bad).summary(), "400 invalid_call");
    let line = shim.requests("/service/grant", 1).remove(0);
    assert_eq!((&line["level"], &line["reason"]), (&json!("WARN"), &json!("invalid_call")));
    let count = |route: &str| shim.metric("stripe_credits_requests_total", &[("route", route)]);
    assert_eq!((count("/service/spend"), count("/service/credits/{user}")), (1, 1));
    assert!(!shim.text().contains("secret"), "bodies are not logged");
    let large = vec![b' '; 2 << 20];
    assert_eq!(shim.bearing("POST", "/service/spend", SERVICE_TOKEN, &large).summary(), "413 body_too_large");
}

#[test]
fn what_a_server_spends_shows_at_once_also_where_balances_are_cached() {
    let (database, redis) = (Database::with_catalog(), FakeRedis::start());
    let shim = with_token(&database).with("REDIS_URL", &redis.url()).with("CREDITS_MAX_AGE", "600").start();
    assert_eq!(shim.deliver(&paid_pack("cs_1", ANN).completed("evt_1")).summary(), "200 applied");
    assert_eq!(shim.get_as(ANN, "/credits").json()["credits_balance"], 500);
    assert_eq!(shim.serve("spend", &json!({"user": ANN, "amount": 30, "request_id": "job"})).status, 200);
    assert_eq!(shim.get_as(ANN, "/credits").json()["credits_balance"], 470);
    assert_eq!(shim.read_credits(&ANN.to_string()).json()["credits_balance"], 470);
}
