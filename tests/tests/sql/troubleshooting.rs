//! docs/troubleshooting.md: each of its queries runs as it stands there, and finds what it is for.

use postgres::SimpleQueryMessage;
use stripe_credits_tests::refunds::refunded;
use stripe_credits_tests::stripe::nothing_fetched;
use stripe_credits_tests::subscription::{month, subscription};
use stripe_credits_tests::{BOB, Connection, Database, paid_pack, session};
use uuid::Uuid;
use xtask::workspace::root;

/// The user of the page's examples.
const USER: &str = "5f2c0d8e-93a1-4c7b-8d15-2b6f0c1e9a47";
/// How a query begins that finds nothing while all is well.
const NO_ROW: &str = "-- No row";

/// The page's queries, each with the title of its section.
fn queries() -> Vec<(String, String)> {
    let page = std::fs::read_to_string(root().join("docs/troubleshooting.md")).expect("the page is read");
    let mut queries = Vec::new();
    for section in page.split("\n## ").skip(1) {
        let title = section.lines().next().unwrap_or_default().to_owned();
        let blocks = section.split("```sql\n").skip(1).filter_map(|block| block.split("```").next());
        queries.extend(blocks.map(|query| (title.clone(), query.to_owned())));
    }
    queries
}

/// A database with every symptom of the page, except books that differ and rights that were changed.
fn with_symptoms() -> (Database, Connection) {
    let database = Database::with_catalog();
    let mut books = database.connect();
    let user: Uuid = USER.parse().expect("a UUID");
    let waits = session("cs_test_a1").metadata("price_id", "price_pack").with("customer", "cus_ann");
    assert_eq!(books.apply(&waits.completed("evt_a1")).summary(), "parked unknown_user");
    // Stripe sent it again.
    books.apply(&waits.completed("evt_a1"));
    let unpriced = session("cs_test_b1").of(user).metadata("price_id", "price_new").completed("evt_b1");
    assert_eq!(books.apply(&unpriced).summary(), "parked unknown_price");
    let bare = session("cs_test_c1").of(user).completed("evt_c1");
    books.apply(&bare);
    assert_eq!(books.apply_fetched(&bare, &nothing_fetched()).summary(), "parked unfetched");
    books.apply(&paid_pack("cs_test_p1", user).completed("evt_p1"));
    books.apply(
        &subscription("sub_1", "price_pro").of(user).with("customer", "cus_bea").updated("evt_s1", month(0)),
    );
    // Spent, and then the money came back.
    books.apply(&paid_pack("cs_test_d1", BOB).completed("evt_d1"));
    books.call("spend_credits($1, 500, 'job-1', 'a picture')", &[&BOB]);
    let intent: String = books.one(
        "select name from billing.payment_names where kind = 'payment_intent' and source_id = 'cs_test_d1'",
        &[],
    );
    books.apply(&refunded("re_d1", &intent, 1000));
    (database, books)
}

#[test]
fn every_query_of_the_troubleshooting_page_runs_and_finds_its_symptom() {
    let (_database, mut books) = with_symptoms();
    let queries = queries();
    assert!(queries.len() >= 12, "{queries:#?}");
    for (title, query) in queries {
        let answer = books.simple_query(&query).unwrap_or_else(|fault| panic!("{title}: {fault:?}\n{query}"));
        let rows = answer.iter().filter(|message| matches!(message, SimpleQueryMessage::Row(_))).count();
        assert_eq!(rows == 0, query.starts_with(NO_ROW), "{title}: {rows} rows\n{query}");
    }
    // The page's cures were among them.
    assert_eq!(books.inbox("evt_a1").as_deref(), Some("applied"));
    let adjusted: i64 =
        books.one("select count(*) from billing.credit_transactions where request_id = 'ticket-20'", &[]);
    assert!(adjusted > 0);
}

#[test]
fn the_queries_that_find_nothing_while_all_is_well_find_what_is_not() {
    let (mut database, mut books) = with_symptoms();
    database.breaks_its_books();
    books.run("update billing.accounts set purchased_credits = purchased_credits + 7");
    books.run("grant select on billing.accounts to public");
    let mut found = 0;
    // That nobody waits for a lock is the third of them.
    for (title, query) in queries().into_iter().filter(|(_, query)| query.starts_with(NO_ROW)) {
        if query.contains("pg_blocking_pids") {
            continue;
        }
        let answer = books.simple_query(&query).unwrap_or_else(|fault| panic!("{title}: {fault:?}"));
        let rows = answer.iter().filter(|message| matches!(message, SimpleQueryMessage::Row(_))).count();
        assert!(rows > 0, "{title}");
        found += 1;
    }
    assert_eq!(found, 2);
}
