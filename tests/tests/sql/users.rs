//! Rule 11: which user a text names. Only UUIDs do, unless the catalog has a `user_namespace`; then any text does, by
//! every door the same.

use serde_json::{Value, json};
use stripe_credits_tests::payments::top_up;
use stripe_credits_tests::stripe::CREATED;
use stripe_credits_tests::subscription::{PRO, renewal, subscription};
use stripe_credits_tests::{
    ANN, BOB, Connection, Database, Event, Session, catalog, event, nothing_fetched, session,
};
use uuid::Uuid;

const NAMESPACE: &str = "6ba7b811-9dad-11d1-80b4-00c04fd430c8";
const NAME: &str = "user_2abc";

fn catalog_in(namespace: &Value) -> Value {
    let mut catalog = catalog();
    catalog["user_namespace"] = namespace.clone();
    catalog
}

fn database() -> Database {
    let db = Database::new();
    db.connect().load_catalog(&catalog_in(&json!(NAMESPACE)));
    db
}

fn user_id(c: &mut Connection, text: &str) -> Option<Uuid> {
    c.one("select billing.user_id($1)", &[&text])
}

#[test]
fn scenario_70_a_text_is_one_user_by_every_door() {
    let db = database();
    let mut c = db.connect();
    let user = user_id(&mut c, NAME).expect("a user");
    assert_eq!(user.get_version_num(), 5);
    let pack = || session("cs_1").metadata("user_id", format!(" {NAME} ")).metadata("price_id", "price_pack");
    let applied = c.apply(&pack().completed("evt_1"));
    assert_eq!((applied.summary().as_str(), applied.user_id), ("applied", Some(user)));
    assert_eq!(c.reconcile(&pack(), user).summary(), "already_applied");
    let referred = session("cs_2").with("client_reference_id", NAME).metadata("price_id", "price_pack");
    assert_eq!(c.apply(&referred.completed("evt_2")).user_id, Some(user));
    let mut state = subscription("sub_1", "price_pro").json().clone();
    state["metadata"] = json!({"userId": NAME});
    let created = stripe_credits_tests::event("evt_3", "customer.subscription.created", state);
    assert_eq!(c.apply(&created).user_id, Some(user));
    c.apply(&renewal("in_0", "sub_1", PRO, 0).paid("evt_4"));
    assert_eq!(c.balance(user), 11_000);
    let seen: i64 = c.one(
        "select credits_balance from (select set_config('request.jwt.claims', $1, true) offset 0) as claims (set),
             lateral (select credits_balance from billing.my_credits() where claims.set is not null) as mine",
        &[&json!({"sub": NAME}).to_string()],
    );
    assert_eq!(seen, 11_000, "the token's sub names the same user");
}

#[test]
fn scenario_70_a_uuid_is_itself_in_a_namespace_too() {
    let db = database();
    let mut c = db.connect();
    assert_eq!(user_id(&mut c, &format!(" {ANN}\n")), Some(ANN));
    assert_eq!(user_id(&mut c, &ANN.simple().to_string().to_uppercase()), Some(ANN));
    assert_eq!(c.refusal("select billing.user_id(' ')").code, "22023");
    assert_eq!(c.refusal("select billing.user_id(null)").code, "22004");
}

#[test]
fn without_a_namespace_only_uuids_name_users() {
    let db = Database::with_catalog();
    let mut c = db.connect();
    assert_eq!(user_id(&mut c, NAME), None);
    assert_eq!(user_id(&mut c, &ANN.to_string()), Some(ANN));
    let named = session("cs_1").metadata("user_id", NAME).metadata("userId", format!(" {BOB}"));
    let named = named.metadata("price_id", "price_pack");
    assert_eq!(c.apply(&named.completed("evt_1")).user_id, Some(BOB), "a text that names nobody is no user");
    let unnamed = session("cs_2").with("client_reference_id", NAME).metadata("price_id", "price_pack");
    assert_eq!(c.apply(&unnamed.completed("evt_2")).summary(), "parked unknown_user");
    c.run(&format!("set request.jwt.claims = '{}'", json!({"sub": NAME})));
    assert_eq!(c.one::<Option<Uuid>>("select billing.current_user_id()", &[]), None);
}

#[test]
fn a_payment_that_waits_for_its_user_finds_it_when_the_namespace_is_loaded() {
    let db = Database::with_catalog();
    let mut c = db.connect();
    let pack = session("cs_1").metadata("user_id", NAME).metadata("price_id", "price_pack");
    assert_eq!(c.apply(&pack.completed("evt_1")).summary(), "parked unknown_user");
    c.load_catalog(&catalog_in(&json!(NAMESPACE)));
    let user = user_id(&mut c, NAME).expect("a user");
    assert_eq!(c.ledger(user), ["purchase 500"]);
}

fn customer(event_id: &str, created: i64, metadata: &Value) -> Event {
    let object = json!({"id": "cus_1", "object": "customer", "livemode": false, "metadata": metadata});
    let kind = if event_id == "evt_created" { "customer.created" } else { "customer.updated" };
    event(event_id, kind, object).with("created", created)
}

#[test]
fn a_customers_metadata_links_it_and_what_waits_for_its_user_is_applied() {
    let db = Database::with_catalog();
    let mut c = db.connect();
    let pack = session("cs_1").with("customer", "cus_1").metadata("price_id", "price_pack");
    assert_eq!(c.apply(&pack.completed("evt_1")).summary(), "parked unknown_user");
    let nameless = customer("evt_created", CREATED, &json!({}));
    assert_eq!(c.apply(&nameless).summary(), "ignored unknown_user");
    let named = customer("evt_named", CREATED + 1, &json!({"user_id": ANN.to_string()}));
    assert_eq!(c.twice(&named), "applied");
    assert_eq!(c.ledger(ANN), ["purchase 500"]);
    let older = customer("evt_older", CREATED, &json!({"user_id": BOB.to_string()}));
    assert_eq!(c.apply(&older).summary(), "already_applied", "the later word stands");
    let next = session("cs_2").with("customer", "cus_1").metadata("price_id", "price_pack");
    assert_eq!(c.apply(&next.completed("evt_2")).user_id, Some(ANN));
}

#[test]
fn an_account_that_is_a_customer_is_linked_and_attributed_like_one() {
    let db = Database::with_catalog();
    let mut c = db.connect();
    let pack = |id: &str| {
        let pack = session(id).with("customer", Value::Null).with("customer_account", "acct_1");
        pack.metadata("price_id", "price_pack")
    };
    let asked = c.apply(&pack("cs_1").completed("evt_1"));
    assert_eq!(asked.to_fetch, Some(vec!["/v2/core/accounts/acct_1".into()]), "no event tells its metadata");
    let parked = c.apply_fetched(&pack("cs_1").completed("evt_1"), &nothing_fetched());
    assert_eq!(parked.summary(), "parked unknown_user");
    assert_eq!(c.attribute("acct_1", ANN).credits, 500);
    assert_eq!(c.apply(&pack("cs_2").completed("evt_2")).user_id, Some(ANN));
    let named = pack("cs_3").with("customer_account", "acct_2").of(BOB);
    assert_eq!(c.apply(&named.completed("evt_3")).user_id, Some(BOB));
    assert_eq!(
        c.apply(&pack("cs_4").with("customer_account", "acct_2").completed("evt_4")).user_id,
        Some(BOB)
    );
    assert_eq!(c.ledger(ANN), ["purchase 500"; 2]);
}

#[test]
fn an_account_that_is_a_customer_is_fetched_once_for_its_user() {
    let db = Database::with_catalog();
    let mut c = db.connect();
    let pack = |id: &str| {
        let pack = session(id).with("customer", Value::Null).with("customer_account", "acct_1");
        pack.metadata("price_id", "price_pack")
    };
    let event = pack("cs_1").completed("evt_1");
    let account = |metadata: Value| {
        let account =
            json!({ "id": "acct_1", "object": "v2.core.account", "livemode": false, "metadata": metadata });
        json!({ "as_of": CREATED + 60, "objects": [account] })
    };
    assert_eq!(c.apply(&event).summary(), "needs_fetch");
    assert_eq!(c.apply_fetched(&event, &account(json!({}))).summary(), "parked unknown_user");
    assert_eq!(c.apply_fetched(&event, &account(json!({ "user_id": ANN }))).summary(), "applied");
    assert_eq!(c.apply(&pack("cs_2").completed("evt_2")).user_id, Some(ANN), "it is linked");
    assert_eq!(c.ledger(ANN), ["purchase 500"; 2]);
}

/// A pack's session that names a customer and the account that it is.
fn pack_of_both(session_id: &str) -> Session {
    let pack = session(session_id).with("customer", "cus_1").with("customer_account", "acct_1");
    pack.metadata("price_id", "price_pack")
}

/// The same that names one of them.
fn pack_of(session_id: &str, name: &str) -> Session {
    let (field, other) = match name {
        "cus_1" => ("customer", "customer_account"),
        _ => ("customer_account", "customer"),
    };
    pack_of_both(session_id).with(field, name).with(other, Value::Null)
}

#[test]
fn an_object_that_names_a_customer_and_its_account_links_both() {
    for (kind, linking) in [
        ("a session", pack_of_both("cs_1").of(ANN).completed("evt_1")),
        (
            "a subscription",
            subscription("sub_1", "price_pro")
                .of(ANN)
                .with("customer", "cus_1")
                .with("customer_account", "acct_1")
                .created("evt_1"),
        ),
        (
            "a payment intent",
            top_up("pi_1", ANN)
                .with("customer", "cus_1")
                .with("customer_account", "acct_1")
                .event("evt_1", "payment_intent.succeeded"),
        ),
    ] {
        let db = Database::with_catalog();
        let mut c = db.connect();
        assert_eq!(c.apply_fetched(&linking, &nothing_fetched()).summary(), "applied", "{kind}");
        assert_eq!(names_of(&mut c, ANN), ["acct_1", "cus_1"], "{kind} links both at once");
        for (n, name) in ["cus_1", "acct_1"].into_iter().enumerate() {
            let later = pack_of(&format!("cs_later_{n}"), name).completed(&format!("evt_later_{n}"));
            assert_eq!(c.apply(&later).user_id, Some(ANN), "{kind}: {name}");
        }
    }
}

#[test]
fn an_object_that_moves_a_customer_to_another_user_moves_both_of_its_names() {
    let later = CREATED + 100;
    for (kind, moving) in [
        ("a session", pack_of_both("cs_2").of(BOB).with("created", later).completed("evt_2")),
        (
            "a subscription",
            subscription("sub_1", "price_pro")
                .of(BOB)
                .with("customer", "cus_1")
                .with("customer_account", "acct_1")
                .updated("evt_2", later),
        ),
        (
            "the customer itself",
            event(
                "evt_2",
                "customer.updated",
                json!({
                    "id": "cus_1", "object": "customer", "livemode": false, "customer_account": "acct_1",
                    "metadata": {"user_id": BOB},
                }),
            )
            .with("created", later),
        ),
    ] {
        let db = Database::with_catalog();
        let mut c = db.connect();
        c.apply(&pack_of_both("cs_1").of(ANN).completed("evt_1"));
        assert_eq!(c.apply(&moving).summary(), "applied", "{kind}");
        assert_eq!(names_of(&mut c, BOB), ["acct_1", "cus_1"], "{kind}");
        c.apply(&pack_of("cs_3", "acct_1").completed("evt_3"));
        assert_eq!(c.ledger(ANN), ["purchase 500"], "{kind}: what was paid before stays");
        assert_eq!(c.ledger(BOB).last().map(String::as_str), Some("purchase 500"), "{kind}: by the account");
    }
}

/// The names of customers that are linked to a user.
fn names_of(c: &mut Connection, user: Uuid) -> Vec<String> {
    c.column("select customer_id::text from billing.customers where user_id = $1 order by 1", &[&user])
}

#[test]
fn what_links_either_name_of_a_customer_applies_what_waited_under_the_other() {
    for (waits_under, linked) in
        [("both", "acct_1"), ("both", "cus_1"), ("cus_1", "acct_1"), ("acct_1", "cus_1")]
    {
        for by in ["attribute", "an event"] {
            let db = Database::with_catalog();
            let mut c = db.connect();
            // That the two are one is known from a session of theirs, which is worth nothing.
            let known = pack_of_both("cs_known").with("payment_status", "unpaid").completed("evt_known");
            c.apply_fetched(&known, &nothing_fetched());
            let waiting =
                if waits_under == "both" { pack_of_both("cs_1") } else { pack_of("cs_1", waits_under) };
            let parked = c.apply_fetched(&waiting.completed("evt_1"), &nothing_fetched());
            assert_eq!(parked.summary(), "parked unknown_user", "{waits_under}");
            if by == "attribute" {
                assert_eq!(c.attribute(linked, ANN).summary(), "applied");
            } else {
                c.apply(&pack_of("cs_2", linked).with("payment_status", "unpaid").of(ANN).completed("evt_2"));
            }
            while c.one::<i64>("select billing.retry_due()", &[]) > 0 {}
            assert_eq!(c.ledger(ANN), ["purchase 500"], "{waits_under} waits, {by} links {linked}");
            assert_eq!(
                names_of(&mut c, ANN),
                ["acct_1", "cus_1"],
                "{waits_under} waits, {by} links {linked}"
            );
        }
    }
}

#[test]
fn of_a_customer_whose_account_is_linked_a_new_event_applies_at_once() {
    let db = Database::with_catalog();
    let mut c = db.connect();
    let known = pack_of_both("cs_known").with("payment_status", "unpaid").completed("evt_known");
    c.apply_fetched(&known, &nothing_fetched());
    c.apply(&pack_of("cs_1", "acct_1").of(ANN).completed("evt_1"));
    assert_eq!(c.apply(&pack_of("cs_2", "cus_1").completed("evt_2")).user_id, Some(ANN));
    assert_eq!(c.ledger(ANN), ["purchase 500"; 2]);
}

#[test]
fn the_account_of_a_customer_is_fetched_for_its_user() {
    let db = Database::with_catalog();
    let mut c = db.connect();
    let event = pack_of_both("cs_1").completed("evt_1");
    assert_eq!(c.apply(&event).to_fetch, Some(vec!["/v2/core/accounts/acct_1".into()]));
    let account = json!({ "id": "acct_1", "object": "v2.core.account", "metadata": { "user_id": ANN } });
    let fetched = json!({ "as_of": CREATED + 60, "objects": [account] });
    assert_eq!(c.apply_fetched(&event, &fetched).summary(), "applied");
    assert_eq!(c.apply(&pack_of("cs_2", "cus_1").completed("evt_2")).user_id, Some(ANN));
}

#[test]
fn the_namespace_stays_once_there_are_accounts() {
    let db = database();
    let mut c = db.connect();
    c.load_catalog(&catalog_in(&json!(Uuid::NAMESPACE_OID)));
    c.sign_up(ANN);
    for other in [json!(NAMESPACE), Value::Null] {
        let fault = c.refusal(&format!("select * from billing.load_catalog('{}')", catalog_in(&other)));
        assert_eq!((fault.code.as_str(), fault.detail.as_str()), ("22023", "path = user_namespace"));
    }
    c.load_catalog(&catalog_in(&json!(Uuid::NAMESPACE_OID)));
}
