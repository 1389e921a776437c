//! The console over HTTP: who gets in, what a form may do and how often, and that nothing stored becomes part of a page.

use serde_json::json;
use stripe_credits_tests::app::{SERVICE_TOKEN, as_service, command, without_stripe};
use stripe_credits_tests::console::{Support, said};
use stripe_credits_tests::fake_stripe::FakeStripe;
use stripe_credits_tests::shim::{Setup, Shim};
use stripe_credits_tests::subscription::{PRO, renewal, subscription};
use stripe_credits_tests::{ANN, BOB, Database, paid_pack, session};

fn setup(database: &Database) -> Setup {
    without_stripe(database).with("SERVICE_TOKEN", SERVICE_TOKEN).with("CONSOLE", "on")
}

fn start(database: &Database) -> (Shim, Support) {
    let shim = setup(database).start();
    let support = Support::signed_in(shim.operators_address(), SERVICE_TOKEN);
    (shim, support)
}

/// The routes of the console: method and path.
const ROUTES: [(&str, &str); 9] = [
    ("GET", "/console"),
    ("GET", "/console/style.css"),
    ("GET", "/console/sign-in"),
    ("POST", "/console/sign-in"),
    ("POST", "/console/sign-out"),
    ("POST", "/console/attribute"),
    ("POST", "/console/retry"),
    ("POST", "/console/adjust"),
    ("POST", "/console/refund"),
];

#[test]
fn the_console_is_off_by_default_and_never_on_the_public_listener() {
    let database = Database::with_catalog();
    let off = without_stripe(&database).with("SERVICE_TOKEN", SERVICE_TOKEN).start();
    let on = setup(&database).start();
    for (method, path) in ROUTES {
        for address in [off.address(), off.operators_address(), on.address()] {
            assert_eq!(Support::at(address).ask(method, path, &[], "").status, 404, "{method} {path}");
        }
        let is_there = Support::at(on.operators_address()).ask(method, path, &[], "").status;
        assert_ne!(is_there, 404, "{method} {path}");
    }
    // What was on that listener still is.
    assert_eq!(on.ops("/healthz").status, 200);
    let refused = without_stripe(&database).with("CONSOLE", "on").calling(&["serve"]).run();
    assert_eq!(refused.code, Some(64), "{refused:?}");
    assert!(refused.stderr.contains("CONSOLE: is on, and whoever uses it signs in"), "{refused:?}");
}

#[test]
fn who_is_not_signed_in_sees_and_does_nothing() {
    let database = Database::with_catalog();
    let mut books = database.connect();
    books.buy(ANN, "cs_1");
    let shim = setup(&database).start();
    let stranger = Support::at(shim.operators_address());
    let answer = stranger.get("/console?q=cs_1");
    assert_eq!((answer.status, answer.headers["location"].as_str()), (303, "/console/sign-in?q=cs_1"));
    let page = stranger.get("/console/sign-in?q=cs_1").body;
    assert!(page.contains("name=\"q\" value=\"cs_1\""), "what was looked for comes along: {page}");
    for path in ["/console/attribute", "/console/retry", "/console/adjust", "/console/refund"] {
        let fields = [("user", ANN.to_string()), ("amount", "5".into()), ("direction", "give".into())];
        assert_eq!(stranger.send(path, &fields).headers["location"], "/console/sign-in", "{path}");
    }
    for (name, token) in [("Grace", "wrong"), ("Grace", ""), ("Grace", &SERVICE_TOKEN[1..])] {
        let refused = stranger.send("/console/sign-in", &[("name", name), ("token", token)]);
        assert_eq!(refused.status, 401, "{token}");
        assert!(said(&refused.body).contains("not the service token"), "{}", refused.body);
        assert!(!refused.headers.contains_key("set-cookie"));
        assert!(refused.body.contains("value=\"Grace\""), "the name need not be typed again");
    }
    for name in ["", "  ", "a\nb", &"x".repeat(101)] {
        let refused = stranger.send("/console/sign-in", &[("name", name), ("token", SERVICE_TOKEN)]);
        assert_eq!(refused.status, 400, "{name:?}");
    }
    for cookie in ["x", "e30.AAAA", SERVICE_TOKEN] {
        let cookie = format!("stripe_credits_console={cookie}");
        let answer = stranger.ask("GET", "/console", &[("Cookie", &cookie)], "");
        assert_eq!(answer.status, 303, "{cookie}");
    }
    assert_eq!(books.ledger(ANN), ["purchase 500"]);
    assert!(!shim.text().contains(SERVICE_TOKEN) && !shim.text().contains(&SERVICE_TOKEN[1..]));
}

#[test]
fn attempts_to_sign_in_are_limited_and_who_is_in_works_on() {
    let database = Database::with_catalog();
    let (shim, support) = start(&database);
    let stranger = Support::at(shim.operators_address());
    let wrong = || stranger.send("/console/sign-in", &[("name", "x"), ("token", "wrong")]);
    let answers: Vec<_> = (0..25).map(|_| wrong()).collect();
    let last = answers.last().expect("some");
    assert_eq!(last.status, 429, "{}", last.body);
    assert!(last.headers["retry-after"].parse::<u64>().is_ok_and(|seconds| seconds <= 61));
    assert_eq!(support.get("/console").status, 200);
}

#[test]
fn the_session_is_a_cookie_that_holds_no_token_and_every_page_keeps_to_itself() {
    let database = Database::with_catalog();
    let shim = setup(&database).start();
    let support = Support::at(shim.operators_address());
    let fields = [("name", "Grace"), ("token", SERVICE_TOKEN), ("q", "cs_1")];
    let answer = support.send("/console/sign-in", &fields);
    assert_eq!(answer.headers["location"], "/console?q=cs_1");
    let cookie = &answer.headers["set-cookie"];
    for part in ["; HttpOnly", "; SameSite=Strict", "; Path=/console", "; Max-Age=43200"] {
        assert!(cookie.contains(part), "{cookie}");
    }
    assert!(!cookie.contains(SERVICE_TOKEN) && !cookie.contains("Secure"), "{cookie}");
    let body = "name=Grace&token=".to_owned() + SERVICE_TOKEN;
    let by_tls = support.ask("POST", "/console/sign-in", &[("X-Forwarded-Proto", "https")], &body);
    assert!(by_tls.headers["set-cookie"].contains("; Secure"));
    for path in ["/console", "/console?q=cs_none", "/console/sign-in", "/console/style.css"] {
        let headers = support.get(path).headers;
        for (name, value) in [
            (
                "content-security-policy",
                "default-src 'none'; style-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
            ),
            ("x-frame-options", "DENY"),
            ("x-content-type-options", "nosniff"),
            ("referrer-policy", "no-referrer"),
            ("cache-control", "no-store"),
        ] {
            assert_eq!(headers[name], value, "{path}: {name}");
        }
    }
    let page = support.get("/console").body;
    let form = support.fill(&page, "/console/sign-out", &[]);
    let foreign = support.send("/console/sign-out", &[("form_token", "x")]);
    assert_eq!(foreign.status, 403);
    let fields: Vec<(&str, &str)> =
        form.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    assert_eq!(support.send("/console/sign-out", &fields).headers["location"], "/console/sign-in");
    assert_eq!(support.get("/console").status, 303);
}

#[test]
fn a_form_of_another_site_or_session_does_nothing() {
    let database = Database::with_catalog();
    let mut books = database.connect();
    books.sign_up(ANN);
    let (shim, support) = start(&database);
    let other = Support::signed_in(shim.operators_address(), SERVICE_TOKEN);
    let filled = [("direction", "give"), ("amount", "5"), ("reason", "a reason")];
    let page = support.page(&ANN.to_string());
    let form = support.fill(&page, "/console/adjust", &filled);
    let fields: Vec<(&str, &str)> =
        form.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    let without: Vec<_> = fields.iter().copied().filter(|(name, _)| *name != "form_token").collect();
    assert_eq!(support.send("/console/adjust", &without).status, 403, "no form token");
    let empty: Vec<_> = without.iter().copied().chain([("form_token", "")]).collect();
    assert_eq!(support.send("/console/adjust", &empty).status, 403, "an empty one");
    assert_eq!(other.send("/console/adjust", &fields).status, 403, "another session's");
    let body = form_body(&fields);
    for site in ["cross-site", "same-site", "none"] {
        let answer = support.ask("POST", "/console/adjust", &[("Sec-Fetch-Site", site)], &body);
        assert_eq!(answer.status, 403, "{site}");
        assert!(answer.body.starts_with("<!DOCTYPE html>"), "{}", answer.body);
    }
    assert_eq!(support.ask("GET", "/console/adjust", &[], "").status, 405);
    assert_eq!(books.ledger(ANN), ["signup 500"]);
    assert_eq!(
        support.ask("POST", "/console/adjust", &[("Sec-Fetch-Site", "same-origin")], &body).status,
        303
    );
    assert_eq!(books.ledger(ANN), ["signup 500", "adjustment 5"]);
}

fn form_body(fields: &[(&str, &str)]) -> String {
    form_urlencoded::Serializer::new(String::new()).extend_pairs(fields).finish()
}

#[test]
fn a_correction_and_a_refund_count_once_and_the_ledger_says_why_and_who() {
    let database = Database::with_catalog();
    let mut books = database.connect();
    books.buy(ANN, "cs_1");
    books.call("spend_credits($1, 30, 'job 1&x=y', 'one picture')", &[&ANN]);
    let (shim, support) = start(&database);
    let page = support.page(&ANN.to_string());
    let give = support.fill(
        &page,
        "/console/adjust",
        &[("direction", "give"), ("amount", "25"), ("reason", "we are sorry")],
    );
    assert_eq!(support.press("/console/adjust", &give), "Gave 25 credits. The balance is 495 now.");
    let twice = "This form was sent before, and counts once. Nothing was done twice.";
    assert_eq!(support.press("/console/adjust", &give), twice);
    // The same form with another amount, as after the back button.
    let changed: Vec<(String, String)> = give
        .iter()
        .map(|(name, value)| (name.clone(), if name == "amount" { "26".to_owned() } else { value.clone() }))
        .collect();
    assert!(
        support
            .press("/console/adjust", &changed)
            .starts_with("Not done: this form was sent before with other values")
    );
    let take = support.fill(
        &page,
        "/console/adjust",
        &[("direction", "take"), ("amount", "5"), ("reason", "too much")],
    );
    assert_eq!(
        take.iter().find(|(name, _)| name == "request_id"),
        give.iter().find(|(name, _)| name == "request_id")
    );
    let page = support.page(&ANN.to_string());
    let take = support.fill(
        &page,
        "/console/adjust",
        &[("direction", "take"), ("amount", "5"), ("reason", "too much")],
    );
    assert_eq!(support.press("/console/adjust", &take), "Took 5 credits. The balance is 490 now.");

    assert!(page.contains("&amp;refund=job+1%26x%3Dy"), "{page}");
    let form = support.get(&format!("/console?q={ANN}&refund=job+1%26x%3Dy")).body;
    let back = support.fill(&form, "/console/refund", &[("amount", "10"), ("reason", "it was blurred")]);
    assert_eq!(
        support.press("/console/refund", &back),
        "Gave back 10 credits of job 1&x=y. The balance is 500 now."
    );
    assert_eq!(support.press("/console/refund", &back), twice);
    let rest = support.fill(
        &support.get(&format!("/console?q={ANN}&refund=job+1%26x%3Dy")).body,
        "/console/refund",
        &[("amount", ""), ("reason", "the rest")],
    );
    assert_eq!(
        support.press("/console/refund", &rest),
        "Gave back 20 credits of job 1&x=y. The balance is 520 now."
    );
    let none = support.fill(
        &support.get(&format!("/console?q={ANN}&refund=job+1%26x%3Dy")).body,
        "/console/refund",
        &[("amount", ""), ("reason", "more")],
    );
    assert!(
        support.press("/console/refund", &none).starts_with("Not done: of job 1&x=y less than that is left")
    );

    let rows: Vec<String> = books.column(
        "select concat_ws('|', transaction_type, amount, description, metadata ->> 'by', metadata ->> 'spend_request_id')
         from billing.credit_transactions where user_id = $1 order by id",
        &[&ANN],
    );
    assert_eq!(
        rows,
        [
            "purchase|500|500 credits",
            "spend|-30|one picture",
            "adjustment|25|we are sorry|Grace Support",
            "adjustment|-5|too much|Grace Support",
            "spend_refund|10|it was blurred|Grace Support|job 1&x=y",
            "spend_refund|20|the rest|Grace Support|job 1&x=y",
        ]
    );
    // What is said of a form is said once, and a reload sends nothing.
    assert_eq!(said(&support.page(&ANN.to_string())), "");
    let lines = shim.requests("/console/adjust", 4);
    let outcomes: Vec<&str> = lines.iter().filter_map(|line| line["outcome"].as_str()).collect();
    assert_eq!(outcomes, ["applied", "already_applied", "rejected", "applied"]);
    assert_eq!((&lines[0]["user_id"], &lines[0]["by"]), (&json!(ANN), &json!("Grace Support")));
    assert!(lines[0]["request_id"].as_str().is_some_and(|id| id.starts_with("console-")));
    assert!(!shim.text().contains("we are sorry"), "a reason is the ledger's");
}

#[test]
fn a_form_that_is_not_filled_in_right_says_how_and_does_nothing() {
    let database = Database::with_catalog();
    let mut books = database.connect();
    books.buy(ANN, "cs_1");
    let (_shim, support) = start(&database);
    let page = support.page(&ANN.to_string());
    let tried = |fields: &[(&str, &str)]| {
        support.press("/console/adjust", &support.fill(&page, "/console/adjust", fields))
    };
    for (direction, amount, reason, expected) in [
        ("", "5", "x", "say whether to give or to take."),
        ("give", "", "x", "enter how many credits."),
        ("give", "0", "x", "enter the amount as a whole number above 0."),
        ("give", "-5", "x", "enter the amount as a whole number above 0."),
        ("give", "1.5", "x", "enter the amount as a whole number above 0."),
        ("give", "9999999999999", "x", "enter the amount as a whole number above 0."),
        ("give", "5", " ", "enter a reason. It is kept in the ledger."),
        ("give", "5", &"x".repeat(4097), "the reason is too long for the ledger."),
        ("take", "501", "x", "the user has fewer than 501 credits. Take at most what the balance is."),
    ] {
        let fields = [("direction", direction), ("amount", amount), ("reason", reason)];
        assert_eq!(tried(&fields), format!("Not done: {expected}"), "{direction} {amount}");
    }
    let forged: Vec<(String, String)> = support
        .fill(&page, "/console/adjust", &[("direction", "give"), ("amount", "5"), ("reason", "x")])
        .into_iter()
        .map(|(name, value)| if name == "request_id" { (name, "cs_1".to_owned()) } else { (name, value) })
        .collect();
    assert!(support.press("/console/adjust", &forged).starts_with("Not done: load the page again"));
    let wrong = support.fill(&page, "/console/attribute", &[("stripe_id", "pi_1")]);
    assert!(support.press("/console/attribute", &wrong).starts_with("Not done: enter a checkout session"));
    assert_eq!(books.ledger(ANN), ["purchase 500"]);
}

#[test]
fn i_paid_and_got_nothing_is_answered_from_an_address_to_the_credits() {
    let database = Database::with_catalog();
    let mut books = database.connect();
    let unowned = session("cs_1").metadata("price_id", "price_pack").with("customer", "cus_1");
    books.apply(&unowned.with("customer_details", json!({"email": "ann@example.com"})).completed("evt_1"));
    books.sign_up(ANN);
    let (shim, support) = start(&database);
    let waiting = support.get("/console").body;
    assert!(waiting.contains("evt_1") && waiting.contains("unknown user"), "{waiting}");
    let found = support.page("ann@example.com");
    assert!(found.contains("nobody’s yet") && found.contains("/console?q=cus_1"), "{found}");
    let page = support.page("evt_1");
    assert!(page.contains("If it came now: ") && page.contains("parked, unknown user."), "{page}");
    let retry = support.fill(&page, "/console/retry", &[]);
    let said = support.press("/console/retry", &retry);
    assert!(
        said.starts_with("evt_1 still waits. Neither the metadata nor the customer name a user."),
        "{said}"
    );
    let form = support.get("/console?q=cus_1&attribute=cus_1").body;
    let unknown = support.fill(&form, "/console/attribute", &[("user", "ann")]);
    assert!(support.press("/console/attribute", &unknown).starts_with("Not done: enter the user's id"));
    let attribute = support.fill(&form, "/console/attribute", &[("user", &ANN.to_string())]);
    let said = support.press("/console/attribute", &attribute);
    assert_eq!(said, "cus_1 is this user's now. Credits: +500. The balance is 1,000 now.");
    assert_eq!(books.ledger(ANN), ["signup 500", "purchase 500"]);
    assert_eq!(
        support.press("/console/attribute", &attribute),
        "cus_1 was this user's already. Nothing changed."
    );
    let page = support.page("ann@example.com");
    assert!(page.contains(&format!("User <span class=\"id\">{ANN}")), "now it leads to the user: {page}");
    let line = &shim.requests("/console/attribute", 3)[1];
    assert_eq!((&line["outcome"], &line["by"]), (&json!("applied"), &json!("Grace Support")));
    assert_eq!(support.page(&ANN.to_string()).matches("Nothing waits.").count(), 1);
}

#[test]
fn an_event_that_waited_for_a_price_is_applied_by_trying_again() {
    let database = Database::with_catalog();
    let mut books = database.connect();
    books.apply(
        &paid_pack("cs_1", ANN)
            .with("customer", "cus_1")
            .metadata("price_id", "price_new")
            .completed("evt_1"),
    );
    books.run("update billing.stripe_events set first_received_at = now() - interval '3 days'");
    let (_shim, support) = start(&database);
    let page = support.page("evt_1");
    assert!(page.contains("price_new"), "{page}");
    assert!(support.get("/console").body.contains("<strong>3 days</strong>"));
    let retry = support.fill(&page, "/console/retry", &[]);
    assert!(
        support
            .press("/console/retry", &retry)
            .starts_with("evt_1 still waits. Add the price to the catalog")
    );
    books.run(
        "insert into billing.prices select (jsonb_populate_record(p, '{\"price_id\": \"price_new\"}')).*
         from billing.prices p where price_id = 'price_pack'",
    );
    assert_eq!(
        support.press("/console/retry", &retry),
        "evt_1 is applied. Credits: +500. The balance is 500 now."
    );
    assert_eq!(support.press("/console/retry", &retry), "evt_1 was applied before, and counts once.");
    assert_eq!(books.ledger(ANN), ["purchase 500"]);
    let gone: Vec<(String, String)> = retry
        .into_iter()
        .map(|(name, value)| if name == "event_id" { (name, "evt_none".to_owned()) } else { (name, value) })
        .collect();
    assert_eq!(support.press("/console/retry", &gone), "Not done: the inbox has no such event any more.");
}

#[test]
fn a_page_says_what_was_paid_for_what_and_why_as_the_terminal_does() {
    let database = Database::with_catalog();
    let mut books = database.connect();
    books.apply(&subscription("sub_1", "price_pro").of(ANN).created("evt_1"));
    books.apply(&renewal("in_0", "sub_1", PRO, 0).paid("evt_2"));
    books.spend(ANN, 40, "job-1");
    books.reserve(ANN, 5, "job-2");
    let (_shim, support) = start(&database);
    let page = support.page("in_0");
    for shown in [
        "9,955",
        "pays for a period: 10000 credits by the catalog",
        "What became of <span class=\"id\">in_0</span>",
        "<strong>−40</strong>",
        "From 9,955 on ",
        "Reservations that are held",
        "All times are in UTC.",
    ] {
        assert!(page.contains(shown), "{shown}: {page}");
    }
    let ended = command(&["explain", "in_0"], &database, &FakeStripe::start()).run();
    assert!(ended.stdout.contains("why=pays for a period: 10000 credits by the catalog"), "{ended:?}");
    let nothing = support.page("cs_none");
    assert!(nothing.contains("Nothing is known of <span class=\"id\">cs_none</span>"), "{nothing}");
    assert!(support.page(&BOB.to_string()).contains("Nothing is known of this user"));
    for odd in ["%", "\0", &"x".repeat(300), "@", "' or 1=1 --"] {
        assert!(support.page(odd).contains("Nothing is known of"), "{odd:?}");
    }
}

#[test]
fn nothing_that_is_stored_becomes_part_of_a_page() {
    let database = Database::with_catalog();
    let mut books = database.connect();
    let evil = "\"><script>alert(1)</script><img src=x onerror=alert(2)>'";
    let paid = paid_pack("cs_1", ANN).with("customer", evil).with("id", format!("cs_{evil}"));
    books.apply(&paid.with("payment_intent", format!("pi_{evil}")).completed(&format!("evt_{evil}")));
    books.call("spend_credits($1, 5, $2, $3)", &[&ANN, &format!("job{evil}"), &evil]);
    books.call("reserve_credits($1, 5, $2, '1 hour', $3)", &[&ANN, &format!("held{evil}"), &evil]);
    books.call("adjust_credits($1, 5, $2, $3, $3)", &[&ANN, &format!("ticket{evil}"), &evil]);
    books.apply(&paid_pack("cs_2", ANN).metadata("price_id", evil).with("customer", evil).completed("evt_2"));
    books.run(&format!("update billing.prices set name = $evil${evil}$evil$"));
    let shim = setup(&database).start();
    let support = Support::at(shim.operators_address());
    support.send("/console/sign-in", &[("name", evil), ("token", SERVICE_TOKEN)]);
    let user = ANN.to_string();
    let forms = [
        format!("/console?q={user}&refund=%22%3E%3Cscript%3Ealert(1)%3C/script%3E"),
        "/console?q=evt_2&attribute=%22%3E%3Cscript%3Ealert(1)%3C/script%3E".to_owned(),
        "/console/sign-in?q=%22%3E%3Cscript%3Ealert(1)%3C/script%3E".to_owned(),
    ];
    let mut pages: Vec<String> = forms.iter().map(|path| support.get(path).body).collect();
    pages.extend([
        support.get("/console").body,
        support.page(evil),
        support.page(&user),
        support.page(&format!("cs_{evil}")),
    ]);
    let refused = support.send("/console/sign-in", &[("name", evil), ("token", "wrong"), ("q", evil)]);
    pages.push(refused.body);
    for page in &pages {
        assert!(
            page.contains("&lt;script&gt;") && !page.contains("<script") && !page.contains("<img"),
            "{page}"
        );
    }
}

#[test]
fn the_command_serves_the_console_alone_on_this_machine() {
    let database = Database::with_catalog();
    let mut books = database.connect();
    books.sign_up(ANN);
    let command = |arguments: &[&str]| {
        let with = Setup::command(&[&["console"], arguments].concat()).with("SERVICE_TOKEN", SERVICE_TOKEN);
        with.with("DATABASE_URL", &as_service(&database))
    };
    let console = command(&[]).start_console();
    let support = Support::signed_in(console.address, SERVICE_TOKEN);
    assert!(support.page(&ANN.to_string()).contains("signup"));
    for path in ["/healthz", "/metrics", "/catalog", "/credits", "/webhooks/stripe", "/"] {
        assert_eq!(support.get(path).status, 404, "{path}");
    }
    assert_eq!(console.interrupt(), Some(0));
    let beyond = command(&["--listen", "0.0.0.0:0"]).run();
    assert_eq!(beyond.code, Some(64), "{beyond:?}");
    assert!(beyond.stderr.contains("is not of loopback"), "{beyond:?}");
    let without = command(&[]).without("SERVICE_TOKEN").run();
    assert_eq!(without.code, Some(64), "{without:?}");
    assert!(without.stderr.contains("SERVICE_TOKEN: is not set"), "{without:?}");
}
