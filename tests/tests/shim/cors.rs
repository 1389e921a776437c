//! Which pages may read the answers: those of the configured origins, and no others.

use stripe_credits_tests::app::{ORIGIN, USER_ROUTES, without_stripe};
use stripe_credits_tests::shim::Shim;
use stripe_credits_tests::tokens::token;
use stripe_credits_tests::wire::{Answer, request};
use stripe_credits_tests::{ANN, Database};

/// The route that needs no user.
const CATALOG: (&str, &str) = ("GET", "/catalog");

fn preflight(shim: &Shim, method: &str, path: &str, origin: &str) -> Answer {
    let headers = [
        ("Origin", origin),
        ("Access-Control-Request-Method", method),
        ("Access-Control-Request-Headers", "authorization,content-type"),
    ];
    shim.ask("OPTIONS", path, &headers, b"")
}

fn allowed(answer: &Answer) -> Option<&str> {
    answer.headers.get("access-control-allow-origin").map(String::as_str)
}

#[test]
fn a_preflight_of_a_configured_origin_is_allowed_at_every_route_without_a_token() {
    let database = Database::with_catalog();
    let shim =
        without_stripe(&database).with("CORS_ORIGINS", "http://localhost:5173, https://app.test").start();
    for (method, path) in USER_ROUTES.into_iter().chain([CATALOG]) {
        for origin in [ORIGIN, "http://localhost:5173"] {
            let answer = preflight(&shim, method, path, origin);
            assert_eq!((answer.status, &*answer.body), (204, ""), "{path}");
            assert_eq!(allowed(&answer), Some(origin), "{path}");
            assert_eq!(answer.headers["access-control-allow-methods"], method, "{path}");
            let headers = &answer.headers["access-control-allow-headers"];
            for needed in [
                "authorization",
                "content-type",
                "idempotency-key",
                "last-event-id",
                "apikey",
                "x-client-info",
            ] {
                assert!(headers.split(", ").any(|header| header == needed), "{path}: {headers}");
            }
            assert_eq!(answer.headers["vary"], "Origin", "{path}");
            assert!(answer.headers["access-control-max-age"].parse::<u32>().is_ok());
            assert!(!answer.headers.contains_key("access-control-allow-credentials"), "{path}");
        }
    }
}

#[test]
fn any_other_origin_is_refused_however_alike() {
    let database = Database::with_catalog();
    let shim = without_stripe(&database).start();
    for origin in [
        "https://evil.test",
        "http://app.test",
        "https://app.test:8443",
        "https://app.test.evil.test",
        "https://sub.app.test",
        "https://APP.test",
        "https://app.test/",
        "null",
        "*",
        "",
    ] {
        let answer = preflight(&shim, "POST", "/checkout", origin);
        assert_eq!(answer.summary(), "403 origin_not_allowed", "{origin}");
        assert_eq!(allowed(&answer), None, "{origin}");
        let bearer = format!("Bearer {}", token(ANN));
        let answer = shim.ask("GET", "/credits", &[("Origin", origin), ("Authorization", &bearer)], b"");
        // A server may send an Origin too; CORS does not concern it.
        assert_eq!((answer.status, allowed(&answer)), (200, None), "{origin}");
        assert_eq!(answer.headers["vary"], "Origin");
    }
}

#[test]
fn a_page_can_read_refusals_too() {
    let database = Database::with_catalog();
    let shim = without_stripe(&database).start();
    for (method, path) in USER_ROUTES.into_iter().chain([CATALOG]) {
        let answer = shim.ask(method, path, &[("Origin", ORIGIN)], b"{}");
        assert!(matches!((path, answer.status), ("/catalog", 200) | (_, 401 | 500)), "{path}: {answer:?}");
        assert_eq!(allowed(&answer), Some(ORIGIN), "{path}");
        assert_eq!(answer.headers["access-control-expose-headers"], "etag, retry-after", "{path}");
        let wrong = shim.ask("PUT", path, &[("Origin", ORIGIN)], b"{}");
        assert_eq!((wrong.status, allowed(&wrong)), (405, Some(ORIGIN)), "{path}");
        // OPTIONS that is no preflight.
        assert_eq!(shim.ask("OPTIONS", path, &[("Origin", ORIGIN)], b"").status, 405, "{path}");
    }
}

#[test]
fn what_is_outside_the_apps_routes_is_readable_by_no_page() {
    let database = Database::with_catalog();
    let shim = without_stripe(&database).start();
    for (path, status) in [("/webhooks/stripe", 405), ("/metrics", 404), ("/healthz", 404), ("/readyz", 404)]
    {
        let answer = preflight(&shim, "POST", path, ORIGIN);
        assert_eq!((answer.status, allowed(&answer)), (status, None), "{path}");
    }
    let mut operator = shim.connect_as_operator();
    operator.send(&request("GET", "/metrics", &[("Origin", ORIGIN)], b"")).expect("the shim reads");
    assert_eq!(allowed(&operator.answer().expect("the shim answers")), None);
}

#[test]
fn without_configured_origins_no_page_reads_anything() {
    let database = Database::with_catalog();
    let shim = without_stripe(&database).without("CORS_ORIGINS").start();
    assert_eq!(preflight(&shim, "GET", "/credits", ORIGIN).summary(), "403 origin_not_allowed");
    let answer = shim.ask("GET", "/catalog", &[("Origin", ORIGIN)], b"");
    assert_eq!((answer.status, allowed(&answer)), (200, None));
    assert!(!answer.headers.contains_key("vary"));
}
