//! `load_catalog` makes the database say what the document says, or nothing changes and the fault's path is named.

use std::collections::BTreeMap;
use std::thread;

use serde_json::{Value, json};
use stripe_credits_tests::{ANN, Connection, Database, catalog, paid_pack};

/// The catalog with the value at a JSON pointer replaced.
fn with(pointer: &str, value: Value) -> Value {
    let mut catalog = catalog();
    let (parent, field) = pointer.rsplit_once('/').expect("a pointer begins with /");
    match catalog.pointer_mut(parent).expect("the pointer's parent is in the sample") {
        Value::Array(list) => list[field.parse::<usize>().expect("an index")] = value,
        Value::Object(map) => {
            map.insert(field.to_owned(), value);
        }
        other => panic!("{pointer} leads into {other}"),
    }
    catalog
}

fn rows(c: &mut Connection) -> Vec<String> {
    c.column(
        "select p::text from billing.prices p union all select s::text from billing.settings s order by 1",
        &[],
    )
}

#[test]
fn the_sample_says_what_the_scenarios_say() {
    let db = Database::new();
    let mut c = db.connect();
    let changes = c.load_catalog(&catalog());
    let added = ["price_max", "price_pack", "price_pro", "price_pro_year", "price_roll", "price_tshirt"];
    assert_eq!(changes, added.map(|price| (price.to_owned(), "added".to_owned())).into());
    let prices: Vec<String> = c.column(
        "select concat_ws(' ', price_id, kind, key, credits, rank, renewal, max_rollover, every, drip) from billing.prices
         order by price_id",
        &[],
    );
    assert_eq!(
        prices,
        [
            "price_max plan max 30000 2 reset 0 1 mon",
            "price_pack pack pack_500 500 0 reset 0 1 mon",
            "price_pro plan pro 10000 1 reset 0 1 mon",
            "price_pro_year plan pro 10000 1 reset 0 1 year 1 mon",
            "price_roll plan roll 1000 0 rollover 500 1 mon",
            "price_tshirt not_credits price_tshirt 0 0 reset 0 1 mon",
        ]
    );
    let settings: String = c.one(
        "select concat_ws(' ', livemode, signup_credits, reversal_policy, no_payment_required, free_plan_key)
         from billing.settings",
        &[],
    );
    assert_eq!(settings, "f 500 debt grant");
}

#[test]
fn loading_a_catalog_twice_changes_nothing() {
    let db = Database::with_catalog();
    let mut c = db.connect();
    let before = c.column::<String>("select p::text from billing.prices p order by 1", &[]);
    let changes = c.load_catalog(&catalog());
    assert!(changes.values().all(|change| change == "unchanged"), "{changes:?}");
    assert_eq!(c.column::<String>("select p::text from billing.prices p order by 1", &[]), before);
}

#[test]
fn two_loads_of_one_catalog_at_once_add_it_once() {
    let db = Database::new();
    let loads = stripe_credits_tests::together(&db, vec![|c: &mut Connection| c.load_catalog(&catalog()); 4]);
    let added = loads.iter().filter(|load| load["price_pack"] == "added").count();
    assert_eq!(added, 1, "{loads:?}");
    assert_eq!(
        db.connect().one::<i64>("select count(*) from billing.prices where price_id = 'price_pack'", &[]),
        1
    );
}

#[test]
fn a_faulty_catalog_names_the_path_of_its_fault_and_changes_nothing() {
    let cases: Vec<(&str, Value)> = vec![
        ("sighnup_credits", with("/sighnup_credits", json!(5))),
        ("plans[0].credit", with("/plans/0/credit", json!(5))),
        ("plans[0].prices[1].driip", with("/plans/0/prices/1/driip", json!("1 month"))),
        ("packs[0].colour", with("/packs/0/colour", json!("red"))),
        ("free_plan.evry", with("/free_plan", json!({"key": "free", "credits": 5, "evry": "1 month"}))),
        ("livemode", with("/livemode", json!("false"))),
        ("livemode", with("/livemode", Value::Null)),
        ("signup_credits", with("/signup_credits", json!(-1))),
        ("signup_credits", with("/signup_credits", json!(1.5))),
        ("signup_credits", with("/signup_credits", json!("500"))),
        ("signup_credits", with("/signup_credits", json!(1_000_000_000_001_i64))),
        ("packs[0].credits", with("/packs/0/credits", json!(-500))),
        ("packs[0].credits", with("/packs/0/credits", json!(0))),
        ("packs[0].credits", with("/packs/0/credits", json!(500.5))),
        ("packs[0].credits", with("/packs/0/credits", json!("500"))),
        ("packs[0].credits", with("/packs/0/credits", Value::Null)),
        ("packs[0].credits", with("/packs/0/credits", json!(true))),
        ("plans[1].credits", with("/plans/1/credits", json!([30000]))),
        ("plans[0].rank", with("/plans/0/rank", json!(3_000_000_000_i64))),
        ("plans[0].trial_credits", with("/plans/0/trial_credits", json!(-1))),
        ("plans[0].renewal", with("/plans/0/renewal", json!("sometimes"))),
        ("plans[0].renewal", with("/plans/0/max_rollover", json!(500))),
        ("plans[2].renewal", with("/plans/2/max_rollover", json!(0))),
        ("plans[0].plan_change", with("/plans/0/plan_change", json!("never"))),
        ("plans[0].cancellation", with("/plans/0/cancellation", json!(7))),
        ("plans[0].prices[1].drip", with("/plans/0/prices/1/drip", json!("monthly"))),
        ("plans[0].prices[1].drip", with("/plans/0/prices/1/drip", json!("0 days"))),
        ("packs[0].expires_after", with("/packs/0/expires_after", json!("-30 days"))),
        ("packs[0].expires_after", with("/packs/0/expires_after", json!("101 years"))),
        ("packs[0].expires_after", with("/packs/0/expires_after", json!(30))),
        ("packs[0].prices[0]", with("/packs/0/prices/0", json!("price_pro"))),
        ("packs[0].prices[0]", with("/packs/0/prices/0", json!(""))),
        ("packs[0].prices[0]", with("/packs/0/prices/0", json!(" price_pack"))),
        ("packs[0].prices[0]", with("/packs/0/prices/0", json!("p".repeat(256)))),
        (
            "packs[0].prices[0].drip",
            with("/packs/0/prices/0", json!({"id": "price_pack", "drip": "1 month"})),
        ),
        ("plans[0].prices[0]", with("/plans/0/prices/0", json!({"every": "1 month"}))),
        ("plans[0].prices[1].drip", with("/plans/0/prices/1/every", json!("2 weeks"))),
        ("plans[0].plan_change", with("/plans/0/plan_change", json!("at_renewal"))),
        ("begins_at", with("/begins_at", json!("yesterday"))),
        ("user_namespace", with("/user_namespace", json!("clerk"))),
        ("packs[0].prices", with("/packs/0/prices", json!("price_pack"))),
        ("packs[0].key", with("/packs/0/key", json!("pro"))),
        ("packs[0].key", with("/packs/0/key", json!("  "))),
        ("plans[1].key", with("/plans/1/key", json!("pro"))),
        ("not_credits[0]", with("/not_credits", json!(["price_pack"]))),
        ("not_credits[1]", with("/not_credits", json!(["price_tshirt", "price_tshirt"]))),
        ("reversal_policy", with("/reversal_policy", json!("forget"))),
        ("no_payment_required", with("/no_payment_required", json!("maybe"))),
        ("stripe_account", with("/stripe_account", json!(""))),
        ("stripe_account", with("/stripe_account", json!(7))),
        ("free_plan.every", with("/free_plan", json!({"key": "free", "credits": 5, "every": "often"}))),
        ("free_plan.key", with("/free_plan", json!({"key": "", "credits": 5}))),
        ("plans", with("/plans", json!({}))),
        ("plans[0]", with("/plans/0", json!("pro"))),
        ("packs[0]", with("/packs/0", json!({"key": "p", "prices": []}))),
        ("catalog", json!([])),
        ("catalog", json!("catalog")),
        ("catalog", json!({})),
        ("catalog", Value::Null),
    ];
    let db = Database::with_catalog();
    let mut c = db.connect();
    let before = c.everything();
    for (path, document) in cases {
        c.run("begin");
        let fault = c.refusal(&format!("select * from billing.load_catalog('{document}')"));
        c.run("rollback");
        assert_eq!(fault.code, "22023", "{path}: {fault:?}");
        assert_eq!(fault.detail, format!("path = {path}"), "{document}: {fault:?}");
        assert!(fault.message.contains(path), "{fault:?}");
    }
    assert_eq!(c.everything(), before);
}

#[test]
fn numbers_that_json_would_round_are_refused_with_their_path() {
    let db = Database::with_catalog();
    let mut c = db.connect();
    let before = c.everything();
    for number in
        ["12345678901234567890123456", "9223372036854775808", "1e400", "5e2", "500.0", "-0.1", "1e-400"]
    {
        let document =
            catalog().to_string().replacen("\"credits\":500,", &format!("\"credits\":{number},"), 1);
        assert!(document.contains(number), "{document}");
        // Postgres's jsonb writes 5e2 as 500 and keeps 500.0 as it is.
        let answer = c.attempt(&format!("begin; select * from billing.load_catalog('{document}')"));
        c.run("rollback");
        match answer {
            Ok(()) => assert_eq!(number, "5e2", "{number} was taken"),
            Err(fault) => {
                assert_eq!(
                    (fault.code.as_str(), fault.detail.as_str()),
                    ("22023", "path = packs[0].credits"),
                    "{fault:?}"
                );
            }
        }
    }
    assert_eq!(c.everything(), before);
}

#[test]
fn a_changed_price_gets_a_new_row_from_now_on_and_the_old_one_stays() {
    let db = Database::with_catalog();
    let mut c = db.connect();
    let mut wanted = catalog();
    wanted["packs"][0]["credits"] = 600.into();
    let changes = c.load_catalog(&wanted);
    let others: BTreeMap<_, _> = changes.iter().filter(|(_, change)| *change != "unchanged").collect();
    assert_eq!(others, [(&"price_pack".to_owned(), &"changed".to_owned())].into());
    let credits: Vec<i64> =
        c.column("select credits from billing.prices where price_id = 'price_pack' order by valid_from", &[]);
    assert_eq!(credits, [500, 600]);
    let at = |c: &mut Connection, time: &str| -> i64 {
        c.one(&format!("select credits from billing.resolve_price('price_pack', {time})"), &[])
    };
    let first = "(select min(valid_from) from billing.prices where price_id = 'price_pack')";
    let second = "(select max(valid_from) from billing.prices where price_id = 'price_pack')";
    assert_eq!(at(&mut c, "'2000-01-01'"), 500, "before its first row a price is worth its first row");
    assert_eq!(at(&mut c, first), 500);
    assert_eq!(at(&mut c, &format!("{second} - interval '1 microsecond'")), 500);
    assert_eq!(at(&mut c, second), 600, "from the very moment on");
    assert_eq!(at(&mut c, "clock_timestamp()"), 600);
}

#[test]
fn a_price_that_changes_twice_in_one_transaction_keeps_both_rows() {
    let db = Database::with_catalog();
    let mut c = db.connect();
    c.run("begin");
    for credits in [600, 700, 800] {
        assert_eq!(c.load_catalog(&with("/packs/0/credits", json!(credits)))["price_pack"], "changed");
    }
    c.run("commit");
    let credits: Vec<i64> =
        c.column("select credits from billing.prices where price_id = 'price_pack' order by valid_from", &[]);
    assert_eq!(credits, [500, 600, 700, 800]);
}

#[test]
fn what_is_absent_is_retired_and_may_return() {
    let db = Database::with_catalog();
    let mut c = db.connect();
    let without = with("/packs", json!([]));
    assert_eq!(c.load_catalog(&without)["price_pack"], "retired");
    assert_eq!(c.load_catalog(&without)["price_pack"], "unchanged", "retired already");
    assert!(c.one::<bool>("select retired from billing.resolve_price('price_pack')", &[]));
    assert_eq!(c.one::<i64>("select credits from billing.resolve_price('price_pack')", &[]), 500);
    c.refusal("select billing.assert_known_price('price_pack')");
    assert_eq!(c.load_catalog(&catalog())["price_pack"], "changed");
    c.run("select billing.assert_known_price('price_pack')");
    assert_eq!(c.one::<i64>("select count(*) from billing.prices where price_id = 'price_pack'", &[]), 3);
    assert_eq!(c.apply(&paid_pack("cs_1", ANN).completed("evt_1")).credits, 500);
}

#[test]
fn a_price_may_become_another_plans_or_no_credits_at_all() {
    let db = Database::with_catalog();
    let mut c = db.connect();
    let mut wanted = with("/packs", json!([]));
    wanted["not_credits"] = json!(["price_tshirt", "price_pack"]);
    assert_eq!(c.load_catalog(&wanted)["price_pack"], "changed");
    let now: i64 = c.one("select ceil(extract(epoch from clock_timestamp()))::bigint", &[]);
    let later = paid_pack("cs_1", ANN).with("created", now).completed("evt_1");
    assert_eq!(c.apply(&later).summary(), "ignored not_credits");
    let earlier = paid_pack("cs_2", ANN).completed("evt_2");
    assert_eq!(c.apply(&earlier).summary(), "applied", "as in force when the session was made");
    assert_eq!(c.ledger(ANN), ["purchase 500"]);
}

#[test]
fn settings_follow_the_document_and_stay_one_row() {
    let db = Database::with_catalog();
    let mut c = db.connect();
    let mut wanted =
        with("/free_plan", json!({"key": "free", "name": "Free", "credits": 5, "every": "1 month"}));
    wanted["signup_credits"] = 0.into();
    wanted["stripe_account"] = "acct_1".into();
    wanted["reversal_policy"] = "forgive".into();
    c.load_catalog(&wanted);
    let settings: String = c.one(
        "select concat_ws(' ', stripe_account, signup_credits, reversal_policy, free_plan_key, free_plan_credits,
                free_plan_every) from billing.settings",
        &[],
    );
    assert_eq!(settings, "acct_1 0 forgive free 5 1 mon");
    let outcome = c.sign_up(ANN);
    assert_eq!((outcome.summary().as_str(), outcome.credits), ("applied", 5), "the free plan's first month");
    assert_eq!(c.ledger(ANN), ["grant 5"]);
    c.load_catalog(&catalog());
    assert_eq!(c.sign_up(ANN).summary(), "already_applied", "signup is once per user, whatever it was worth");
    assert_eq!(c.one::<i64>("select count(*) from billing.settings", &[]), 1);
    let before = rows(&mut c).len();
    c.refusal("insert into billing.settings select * from billing.settings");
    assert_eq!(rows(&mut c).len(), before);
}

#[test]
fn a_pack_key_means_the_price_that_was_its_own_when_the_session_was_made() {
    let db = Database::with_catalog();
    let mut c = db.connect();
    let keyed = |session: &str, created: i64| {
        stripe_credits_tests::session(session).of(ANN).metadata("pack", "pack_500").with("created", created)
    };
    c.load_catalog(&with("/packs/0/prices", json!(["price_dearer"])));
    let now: i64 = c.one("select ceil(extract(epoch from clock_timestamp()))::bigint", &[]);
    c.apply(&keyed("cs_1", now).completed("evt_1"));
    assert_eq!(
        c.one::<String>("select item from billing.credit_grants where source_id = 'cs_1'", &[]),
        "price_dearer",
        "price_pack is retired: its key names the price that is on sale"
    );
    c.apply(&keyed("cs_2", 1_760_000_000).completed("evt_2"));
    assert_eq!(
        c.one::<String>("select item from billing.credit_grants where source_id = 'cs_2'", &[]),
        "price_pack"
    );
}

/// What a session made before the first catalog is worth, by its metadata's `field`.
fn sold_before(c: &mut Connection, session_id: &str, field: &str, value: &str) -> String {
    let session = stripe_credits_tests::session(session_id).of(ANN).metadata(field, value);
    c.apply(&session.completed(&format!("evt_{session_id}"))).summary()
}

#[test]
fn scenario_62_a_pack_listed_as_a_plan_when_it_was_sold_heals_when_corrected() {
    let db = Database::new();
    let mut c = db.connect();
    let mut wrong = with("/packs", json!([]));
    wrong["plans"]
        .as_array_mut()
        .expect("plans")
        .push(json!({"key": "oops", "credits": 7, "prices": ["price_pack"]}));
    c.load_catalog(&wrong);
    assert_eq!(sold_before(&mut c, "cs_1", "price_id", "price_pack"), "parked unknown_price");
    c.load_catalog(&catalog());
    assert_eq!(c.inbox("evt_cs_1").as_deref(), Some("applied"));
    assert_eq!(c.ledger(ANN), ["purchase 500"]);
    c.load_catalog(&with("/packs/0/credits", json!(600)));
    assert_eq!(sold_before(&mut c, "cs_2", "price_id", "price_pack"), "applied");
    assert_eq!(c.ledger(ANN), ["purchase 500", "purchase 500"], "by the first row that is a pack");
}

#[test]
fn scenario_62_a_retired_price_under_the_same_key_never_wins() {
    let db = Database::new();
    let mut c = db.connect();
    let pack = |price: &str, credits: i64| {
        with("/packs", json!([{"key": "pack_500", "credits": credits, "prices": [price]}]))
    };
    c.load_catalog(&pack("price_old", 100));
    c.load_catalog(&with("/packs", json!([])));
    let now: i64 = c.one("select ceil(extract(epoch from clock_timestamp()))::bigint", &[]);
    let sold =
        stripe_credits_tests::session("cs_1").of(ANN).metadata("pack", "pack_500").with("created", now);
    c.load_catalog(&pack("price_pack", 500));
    c.apply(&sold.completed("evt_1"));
    assert_eq!(c.ledger(ANN), ["purchase 500"]);
}

#[test]
fn a_product_is_a_row_of_the_catalog_like_a_price() {
    let db = Database::new();
    let mut c = db.connect();
    let mut document = with("/plans/0/prices", json!([{"product": "prod_pro", "every": "3 months"}]));
    document["not_credits"] = json!([{"product": "prod_shirt"}]);
    assert_eq!(c.load_catalog(&document)["prod_pro"], "added");
    assert_eq!(c.load_catalog(&document)["prod_pro"], "unchanged");
    let row = |c: &mut Connection, id: &str| -> String {
        c.one("select concat_ws(' ', names, kind, key, every) from billing.resolve_price($1)", &[&id])
    };
    assert_eq!(row(&mut c, "prod_pro"), "product plan pro 3 mons");
    assert_eq!(row(&mut c, "prod_shirt"), "product not_credits prod_shirt 1 mon");
    c.run("select billing.assert_known_price('prod_pro')");
    document["plans"][0]["prices"] = json!([{"id": "price_pro"}]);
    assert_eq!(c.load_catalog(&document)["prod_pro"], "retired");
    c.refusal("select billing.assert_known_price('prod_pro')");
}

/// The pack's credits by the catalog that a connection keeps, seen by a purchase of a new session.
fn bought(c: &mut Connection, session_id: &str) -> i64 {
    c.apply(&paid_pack(session_id, ANN).completed(&format!("evt_{session_id}"))).credits
}

#[test]
fn a_price_that_one_connection_changes_counts_on_the_others_with_their_next_event() {
    let db = Database::with_catalog();
    let (mut one, mut other) = (db.connect(), db.connect());
    // Both keep the catalog by now.
    assert_eq!([bought(&mut one, "cs_1"), bought(&mut other, "cs_2")], [500, 500]);
    assert_eq!([bought(&mut one, "cs_3"), bought(&mut other, "cs_4")], [500, 500]);
    // By hand, because a load changes what is sold from now on only.
    one.run("update billing.prices set credits = 600 where price_id = 'price_pack'");
    assert_eq!([bought(&mut one, "cs_5"), bought(&mut other, "cs_6")], [600, 600]);
    one.load_catalog(&with("/livemode", json!(true)));
    assert_eq!(other.apply(&paid_pack("cs_7", ANN).completed("evt_cs_7")).summary(), "ignored livemode");
    one.load_catalog(&catalog());
    one.run("delete from billing.prices where price_id = 'price_pack'");
    assert_eq!(other.apply(&paid_pack("cs_8", ANN).completed("evt_cs_8")).summary(), "parked unknown_price");
    db.connect().load_catalog(&catalog());
    assert_eq!(other.balance(ANN), 4 * 500 + 2 * 600 + 500);
}

#[test]
fn a_load_that_is_rolled_back_counts_within_its_transaction_only() {
    let db = Database::with_catalog();
    let mut c = db.connect();
    assert_eq!([bought(&mut c, "cs_1"), bought(&mut c, "cs_2")], [500, 500]);
    c.run("begin");
    c.load_catalog(&with("/livemode", json!(true)));
    assert_eq!(c.apply(&paid_pack("cs_3", ANN).completed("evt_cs_3")).summary(), "ignored livemode");
    c.run("rollback");
    assert_eq!(bought(&mut c, "cs_3"), 500);
    assert_eq!(c.balance(ANN), 1_500);
}

#[test]
fn an_event_that_waits_for_a_load_counts_by_what_was_loaded() {
    let db = Database::with_catalog();
    let (mut loads, mut waits) = (db.connect(), db.connect());
    assert_eq!([bought(&mut waits, "cs_1"), bought(&mut waits, "cs_2")], [500, 500]);
    let pid = waits.pid();
    loads.run("begin");
    loads.load_catalog(&with("/livemode", json!(true)));
    let outcome = thread::scope(|scope| {
        let waiting = scope.spawn(|| waits.apply(&paid_pack("cs_3", ANN).completed("evt_cs_3")));
        let is_waiting = format!(
            "select exists (select from pg_stat_activity where pid = {pid} and wait_event_type = 'Lock')"
        );
        stripe_credits_tests::waits_for(&mut db.connect(), &is_waiting);
        loads.run("commit");
        waiting.join().expect("the event")
    });
    assert_eq!(outcome.summary(), "ignored livemode");
    assert_eq!(waits.balance(ANN), 1_000);
}
