//! What an app reads: a user's credits, and what is on sale.

use std::thread;

use serde_json::{Value, json};
use stripe_credits_tests::app::without_stripe;
use stripe_credits_tests::shim::Shim;
use stripe_credits_tests::tokens::sha256;
use stripe_credits_tests::{ANN, BOB, Database, catalog, paid_pack, user};
use uuid::Uuid;

fn credits(shim: &Shim, user: Uuid) -> Value {
    let answer = shim.get_as(user, "/credits");
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.json()
}

#[test]
fn a_user_reads_their_balances_and_one_without_an_account_reads_zeros() {
    let database = Database::with_catalog();
    let shim = without_stripe(&database).start();
    let mut books = database.connect();
    assert_eq!(
        shim.deliver(&paid_pack("cs_1", ANN).with("customer", "cus_1").completed("evt_1")).summary(),
        "200 applied"
    );
    books.sign_up(ANN);
    books.grant(BOB, 7, "gift");

    let anns = credits(&shim, ANN);
    assert_eq!(anns["user_id"], json!(ANN));
    assert_eq!(anns["credits_balance"], 1000);
    assert_eq!(anns["purchased_credits_balance"], 500);
    assert_eq!(anns["promotional_credits_balance"], 500);
    assert_eq!(anns["subscription_credits_balance"], 0);
    assert_eq!(anns["subscription_tier"], "free");
    assert_eq!(anns["stripe_customer_id"], "cus_1");
    assert_eq!(credits(&shim, BOB)["credits_balance"], 7);
    let unowned = credits(&shim, user(3));
    assert_eq!(unowned["user_id"], json!(user(3)));
    assert_eq!((&unowned["credits_balance"], &unowned["debt"]), (&json!(0), &json!(0)));
    assert_eq!(unowned["subscription_tier"], "free");
    assert_eq!(books.one::<i64>("select count(*) from billing.accounts", &[]), 2);

    // What my_credits() answers, column by column, as PostgREST shows it.
    books.run(&format!("select set_config('request.jwt.claims', '{{\"sub\": \"{ANN}\"}}', false)"));
    let row: Value = books.one("select to_jsonb(c) from billing.my_credits() c", &[]);
    assert_eq!(anns, row);
}

#[test]
fn a_balance_is_never_cached_in_between() {
    let database = Database::with_catalog();
    let shim = without_stripe(&database).start();
    let answer = shim.get_as(ANN, "/credits");
    assert_eq!(answer.headers["cache-control"], "no-store");
    assert_eq!(answer.headers["content-type"], "application/json");
}

/// What clients of an edge function named `credits` send.
#[test]
fn older_clients_post_the_action_status_and_no_other() {
    let database = Database::with_catalog();
    database.connect().grant(ANN, 7, "gift");
    let shim = without_stripe(&database).start();
    let shown = credits(&shim, ANN);
    assert_eq!(shown["credits_balance"], 7);
    for body in [json!({"action": "status"}), json!({"action": "status", "limit": 50}), json!({})] {
        let answer = shim.post_as(ANN, "/credits", &body);
        assert_eq!((answer.status, answer.json()), (200, shown.clone()), "{body}");
        assert_eq!(answer.headers["cache-control"], "no-store");
    }
    for action in [json!("admin_adjust_bonus"), json!(""), json!(7), json!(["status"])] {
        let answer = shim.post_as(ANN, "/credits", &json!({"action": action, "amount": 500}));
        assert_eq!(answer.status, 400, "{action}: {answer:?}");
    }
    let unsigned = shim.ask("POST", "/credits", &[], b"{\"action\": \"status\"}");
    assert_eq!(unsigned.status, 401, "{unsigned:?}");
    let other = shim.ask("DELETE", "/credits", &[], b"");
    assert_eq!((other.status, &*other.headers["allow"]), (405, "GET, POST"));
    assert_eq!(database.connect().balance(ANN), 7);
}

#[test]
fn the_users_identity_does_not_stay_in_the_connection() {
    let database = Database::with_catalog();
    let mut books = database.connect();
    for n in 1..=8 {
        books.grant(user(n), i64::try_from(n).expect("a small number"), "gift");
    }
    // One connection for all.
    let shim = without_stripe(&database).with("DATABASE_POOL_SIZE", "1").start();
    thread::scope(|scope| {
        for n in 1..=8 {
            let shim = &shim;
            scope.spawn(move || {
                for _ in 0..20 {
                    let json = credits(shim, user(n));
                    assert_eq!((&json["user_id"], &json["credits_balance"]), (&json!(user(n)), &json!(n)));
                }
            });
        }
    });
}

#[test]
fn the_catalog_shows_what_is_on_sale_without_a_token_and_nothing_else() {
    let database = Database::with_catalog();
    let shim = without_stripe(&database).start();
    let answer = shim.get("/catalog");
    assert_eq!(answer.status, 200);
    assert_eq!(
        answer.json(),
        json!({
            "plans": [
                {"key": "roll", "name": "Roll", "credits": 1000, "rank": 0, "prices": ["price_roll"], "amounts": []},
                {"key": "pro", "name": "Pro", "credits": 10_000, "rank": 1, "prices": ["price_pro", "price_pro_year"],
                    "amounts": []},
                {"key": "max", "name": "Max", "credits": 30_000, "rank": 2, "prices": ["price_max"], "amounts": []},
            ],
            "packs": [{"key": "pack_500", "name": "500 credits", "credits": 500, "prices": ["price_pack"], "amounts": []}],
        })
    );
    assert_eq!(answer.headers["cache-control"], "public, max-age=60");

    let tag = &answer.headers["etag"];
    assert_eq!(*tag, format!("\"{}\"", sha256(&answer.body)));
    let again = |tag: &str| shim.ask("GET", "/catalog", &[("If-None-Match", tag)], b"");
    let known = again(tag);
    assert_eq!((known.status, &*known.body, &known.headers["etag"]), (304, "", tag));
    assert_eq!(again("\"something else\"").status, 200);

    // Retired, and changed.
    let mut document = catalog();
    document["packs"] = json!([]);
    document["plans"][0]["credits"] = json!(12_000);
    document["plans"][0]["prices"] = json!(["price_pro"]);
    database.connect().load_catalog(&document);
    let changed = again(tag);
    assert_eq!(changed.status, 200);
    assert_ne!(changed.headers["etag"], *tag);
    assert_eq!(changed.json()["packs"], json!([]));
    let pro = &changed.json()["plans"][1];
    assert_eq!((&pro["credits"], &pro["prices"]), (&json!(12_000), &json!(["price_pro"])));
}

#[test]
fn before_there_is_a_catalog_nothing_is_on_sale() {
    let database = Database::new();
    let shim = without_stripe(&database).start();
    assert_eq!(shim.get("/catalog").json(), json!({"plans": [], "packs": []}));
}
