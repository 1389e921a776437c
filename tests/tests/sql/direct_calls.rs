//! The functions that the app's own server and operators call by SQL: purchases, grants, and the errors of wrong calls.

use stripe_credits_tests::concurrency::{blocked, together};
use stripe_credits_tests::stripe::CREATED;
use stripe_credits_tests::{ANN, BOB, Connection, Database, catalog, paid_pack, session, user};

use serde_json::{Value, json};

/// `MAX_CREDITS` of the rules: the most that one call may move.
const MOST: i64 = 1_000_000_000_000;

#[test]
fn a_direct_purchase_grants_what_the_caller_says_once() {
    let db = Database::with_catalog();
    let mut c = db.connect();
    let first = c.purchase(ANN, 750, "evt_1", "cs_1");
    assert_eq!(
        (first.summary().as_str(), first.credits, first.remaining_purchased),
        ("applied", 750, Some(750))
    );
    let again = c.purchase(ANN, 750, "evt_2", "cs_1");
    assert_eq!((again.summary().as_str(), again.credits), ("already_applied", 0));
    assert_eq!(c.ledger(ANN), ["purchase 750"]);
}

#[test]
fn a_direct_purchase_needs_no_catalog() {
    let db = Database::new();
    let mut c = db.connect();
    assert_eq!(c.purchase(ANN, 500, "evt_1", "cs_1").summary(), "applied");
    assert_eq!(c.ledger(ANN), ["purchase 500"]);
}

#[test]
fn webhook_reconcile_and_direct_call_in_every_order_are_one_purchase() {
    let paid = paid_pack("cs_1", ANN).with("customer", "cus_1");
    let calls: [&dyn Fn(&mut Connection) -> String; 3] =
        [&|c| c.apply(&paid.completed("evt_1")).summary(), &|c| c.reconcile(&paid, ANN).summary(), &|c| {
            c.purchase(ANN, 500, "evt_direct", "cs_1").summary()
        }];
    for order in [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]] {
        let db = Database::with_catalog();
        let mut c = db.connect();
        let outcomes: Vec<String> = order.iter().map(|call| calls[*call](&mut c)).collect();
        assert_eq!(outcomes, ["applied", "already_applied", "already_applied"], "{order:?}");
        assert_eq!(c.ledger(ANN), ["purchase 500"]);
    }
}

#[test]
fn webhook_and_direct_call_with_both_transactions_open_are_one_purchase() {
    let paid = paid_pack("cs_1", ANN).with("customer", "cus_1");
    let webhook = |c: &mut Connection| c.apply(&paid.completed("evt_1")).summary();
    let direct = |c: &mut Connection| c.purchase(ANN, 500, "evt_direct", "cs_1").summary();
    for webhook_first in [true, false] {
        let db = Database::with_catalog();
        let outcomes =
            if webhook_first { blocked(&db, webhook, direct) } else { blocked(&db, direct, webhook) };
        assert_eq!((outcomes.0.as_str(), outcomes.1.as_str()), ("applied", "already_applied"));
        assert_eq!(db.connect().ledger(ANN), ["purchase 500"]);
    }
}

#[test]
fn the_same_session_for_another_user_or_amount_is_a_conflict() {
    for by_webhook in [true, false] {
        let db = Database::with_catalog();
        let mut c = db.connect();
        if by_webhook {
            c.apply(&paid_pack("cs_1", ANN).completed("evt_1"));
        } else {
            c.purchase(ANN, 500, "evt_1", "cs_1");
        }
        let before = c.everything();
        assert_eq!(c.purchase(BOB, 500, "evt_2", "cs_1").summary(), "rejected conflict");
        assert_eq!(c.purchase(ANN, 499, "evt_3", "cs_1").summary(), "rejected conflict");
        assert_eq!(c.everything(), before, "a refusal leaves no trace");
        assert_eq!(c.apply(&paid_pack("cs_1", BOB).completed("evt_4")).summary(), "rejected conflict");
        assert_eq!(c.ledger(ANN), ["purchase 500"]);
        assert_eq!(c.ledger(BOB), [""; 0]);
    }
}

#[test]
fn one_payment_intent_under_two_sessions_is_one_purchase() {
    let with_intent = |c: &mut Connection, user, amount: i64, session: &str| {
        c.call("apply_stripe_credit_pack_purchase($1, $2, 'evt', $3, 'pi_1')", &[&user, &amount, &session])
            .summary()
    };
    let db = Database::with_catalog();
    let mut c = db.connect();
    assert_eq!(with_intent(&mut c, ANN, 500, "cs_1"), "applied");
    assert_eq!(with_intent(&mut c, ANN, 500, "cs_2"), "already_applied");
    assert_eq!(with_intent(&mut c, ANN, 600, "cs_2"), "rejected conflict");
    assert_eq!(with_intent(&mut c, BOB, 500, "cs_2"), "rejected conflict");
    assert_eq!(c.apply(&paid_pack("cs_1", ANN).completed("evt_1")).summary(), "already_applied");
    let twin = paid_pack("cs_3", ANN).with("payment_intent", "pi_1");
    assert_eq!(c.apply(&twin.completed("evt_3")).summary(), "already_applied");
    assert_eq!(c.ledger(ANN), ["purchase 500"]);
}

#[test]
fn a_direct_purchase_for_an_unknown_user_links_its_customer() {
    let db = Database::with_catalog();
    let mut c = db.connect();
    let unowned = session("cs_1").metadata("price_id", "price_pack").with("customer", "cus_1");
    c.apply(&unowned.completed("evt_1"));
    let outcome = c.call(
        "apply_stripe_credit_pack_purchase($1, 500, 'evt_2', 'cs_2', p_customer_id => 'cus_1')",
        &[&ANN],
    );
    assert_eq!((outcome.summary().as_str(), outcome.remaining_total), ("applied", Some(1000)));
    assert_eq!(c.ledger(ANN), ["purchase 500", "purchase 500"]);
}

#[test]
fn the_older_name_answers_in_its_older_shape() {
    let db = Database::with_catalog();
    let mut c = db.connect();
    c.sign_up(ANN);
    let call = "select billing.admin_apply_stripe_credit_pack_purchase($1, 500, 'evt_1', 'cs_1')";
    let first: Value = c.one(call, &[&ANN]);
    assert_eq!(
        first,
        json!({"ok": true, "already_applied": false, "remaining_monthly": 0, "remaining_bonus": 1000, "reason": null})
    );
    let again: Value = c.one(call, &[&ANN]);
    assert_eq!((&again["ok"], &again["already_applied"]), (&json!(true), &json!(true)));
    let refused: Value = c.one(call, &[&BOB]);
    assert_eq!((&refused["ok"], &refused["reason"]), (&json!(false), &json!("conflict")));
    assert_eq!(c.ledger(ANN), ["signup 500", "purchase 500"]);
}

#[test]
fn grant_credits_counts_once_per_request_id() {
    let db = Database::with_catalog();
    let mut c = db.connect();
    assert_eq!(c.grant(ANN, 40, "thanks-1").summary(), "applied");
    assert_eq!(c.grant(ANN, 40, "thanks-1").summary(), "already_applied");
    assert_eq!(c.grant(ANN, 41, "thanks-1").summary(), "rejected conflict");
    let other_expiry = c.call(
        "grant_credits($1, 40, 'thanks-1', p_expires_at => clock_timestamp() + interval '1 day')",
        &[&ANN],
    );
    assert_eq!(other_expiry.summary(), "rejected conflict");
    assert_eq!(c.grant(BOB, 40, "thanks-1").summary(), "applied", "a request id is the user's own");
    assert_eq!(c.ledger(ANN), ["grant 40"]);
    assert_eq!(
        c.one::<String>(
            "select request_id || ' ' || pool from billing.credit_transactions where user_id = $1",
            &[&ANN]
        ),
        "thanks-1 promotional"
    );
}

#[test]
fn grant_credits_of_one_request_id_on_ten_connections_at_once_counts_once() {
    let db = Database::with_catalog();
    let outcomes = together(&db, vec![|c: &mut Connection| c.grant(ANN, 40, "thanks-1").summary(); 10]);
    assert_eq!(outcomes.iter().filter(|outcome| *outcome == "applied").count(), 1, "{outcomes:?}");
    assert_eq!(db.connect().ledger(ANN), ["grant 40"]);
}

#[test]
fn a_request_id_named_like_a_session_or_a_signup_grants_its_own() {
    let db = Database::with_catalog();
    let mut c = db.connect();
    c.grant(ANN, 1, "signup");
    c.grant(ANN, 2, "cs_1");
    c.sign_up(ANN);
    c.apply(&paid_pack("cs_1", ANN).completed("evt_1"));
    assert_eq!(c.ledger(ANN), ["grant 1", "grant 2", "signup 500", "purchase 500"]);
}

#[test]
fn an_expiry_in_the_past_is_a_wrong_call() {
    let db = Database::with_catalog();
    let mut c = db.connect();
    for expiry in ["clock_timestamp() - interval '1 second'", "'-infinity'"] {
        let refusal = c.refusal(&format!(
            "select billing.grant_credits('{ANN}', 40, 'thanks-1', p_expires_at => {expiry})"
        ));
        assert_eq!(refusal.code, "22023", "{refusal:?}");
        assert!(
            refusal.message.contains("p_expires_at") && refusal.detail.contains("p_expires_at"),
            "{refusal:?}"
        );
    }
    assert_eq!(c.ledger(ANN), [""; 0]);
    let never = c.call("grant_credits($1, 40, 'thanks-1', p_expires_at => 'infinity')", &[&ANN]);
    assert_eq!((never.summary().as_str(), c.balance(ANN)), ("applied", 40));
}

/// Makes a user's expiring grants expire a minute ago, without waiting for it.
fn expire(c: &mut Connection) {
    c.run(
        "update billing.credit_grants g set (expires_at, priority_at) = (ago.at, ago.at)
         from (select clock_timestamp() - interval '1 minute' as at) ago where g.expires_at is not null;
         update billing.accounts set next_due_at = clock_timestamp() - interval '1 minute'
         where next_due_at is not null",
    );
}

#[test]
fn an_expired_grant_is_gone_when_read_and_run_due_posts_exactly_that() {
    let db = Database::with_catalog();
    let mut c = db.connect();
    c.sign_up(ANN);
    c.call("grant_credits($1, 40, 'lent', p_expires_at => clock_timestamp() + interval '1 day')", &[&ANN]);
    assert_eq!((c.balance(ANN), c.one::<i64>("select billing.run_due()", &[])), (540, 0));
    expire(&mut c);
    assert_eq!(c.balance(ANN), 500, "gone at read time");
    let mut browser = db.connect_as("authenticated");
    browser.run(&format!("set request.jwt.claims = '{{\"sub\": \"{ANN}\"}}'"));
    assert_eq!(browser.one::<i64>("select credits_balance from billing.user_credits", &[]), 500);
    assert_eq!(c.ledger(ANN), ["signup 500", "grant 40"], "nothing was posted yet");
    db.check_books();
    assert_eq!(c.one::<i64>("select billing.run_due()", &[]), 1);
    assert_eq!(c.ledger(ANN), ["signup 500", "grant 40", "expiry -40"]);
    assert_eq!(c.one::<i64>("select billing.run_due()", &[]), 0);
    assert_eq!(c.balance(ANN), 500);
}

#[test]
fn any_operation_posts_expiries_and_its_own_net_change_separately() {
    let db = Database::with_catalog();
    let mut c = db.connect();
    c.call("grant_credits($1, 40, 'lent', p_expires_at => clock_timestamp() + interval '1 day')", &[&ANN]);
    expire(&mut c);
    let outcome = c.apply(&paid_pack("cs_1", ANN).completed("evt_1"));
    assert_eq!((outcome.credits, outcome.remaining_total), (500, Some(500)));
    assert_eq!(c.ledger(ANN), ["grant 40", "expiry -40", "purchase 500"]);
    let operations: Vec<i64> =
        c.column("select operation_id from billing.credit_transactions order by id", &[]);
    assert_eq!(operations, [1, 2, 3]);
}

#[test]
fn the_same_request_after_its_grant_has_expired_is_still_the_same() {
    let db = Database::with_catalog();
    let mut c = db.connect();
    c.call("grant_credits($1, 40, 'lent', p_expires_at => clock_timestamp() + interval '1 day')", &[&ANN]);
    expire(&mut c);
    let again = c.call(
        "grant_credits($1, 40, 'lent', p_expires_at => (select expires_at from billing.credit_grants))",
        &[&ANN],
    );
    assert_eq!((again.summary().as_str(), again.remaining_total), ("already_applied", Some(0)));
    assert_eq!(c.ledger(ANN), ["grant 40", "expiry -40"]);
}

#[test]
fn run_due_takes_its_limit_in_the_order_of_users_and_leaves_busy_accounts_alone() {
    let db = Database::with_catalog();
    let mut c = db.connect();
    for n in 1..=4 {
        c.call(
            "grant_credits($1, 40, 'lent', p_expires_at => clock_timestamp() + interval '1 day')",
            &[&user(n)],
        );
    }
    expire(&mut c);
    let mut busy = db.connect();
    busy.run(&format!("begin; select from billing.accounts where user_id = '{ANN}' for update"));
    assert_eq!(c.one::<i64>("select billing.run_due(2)", &[]), 2);
    assert_eq!(c.ledger(user(2)), ["grant 40", "expiry -40"]);
    assert_eq!(c.ledger(user(3)), ["grant 40", "expiry -40"]);
    assert_eq!(c.ledger(ANN), ["grant 40"]);
    busy.run("commit");
    assert_eq!(c.one::<i64>("select billing.run_due()", &[]), 2);
    assert_eq!(c.ledger(ANN), ["grant 40", "expiry -40"]);
}

#[test]
fn a_packs_expiry_counts_from_the_session_and_is_posted_when_it_has_passed() {
    let db = Database::new();
    let mut c = db.connect();
    let mut catalog = catalog();
    catalog["packs"][0]["expires_after"] = "30 days".into();
    c.load_catalog(&catalog);
    let now: i64 = c.one("select floor(extract(epoch from clock_timestamp()))::bigint", &[]);
    c.apply(&paid_pack("cs_1", ANN).with("created", now - 86_400).completed("evt_1"));
    assert_eq!(
        c.one::<i64>("select extract(epoch from expires_at)::bigint from billing.credit_grants", &[]),
        now + 29 * 86_400
    );
    assert_eq!(c.balance(ANN), 500);
    expire(&mut c);
    assert_eq!(c.balance(ANN), 0);
    assert_eq!(c.one::<i64>("select billing.run_due()", &[]), 1);
    assert_eq!(c.ledger(ANN), ["purchase 500", "expiry -500"]);
    assert_eq!(c.apply(&paid_pack("cs_1", ANN).completed("evt_2")).summary(), "already_applied");
    assert_eq!(c.balance(ANN), 0);
}

#[test]
fn a_pack_that_arrives_after_its_expiry_is_granted_and_expires_at_once() {
    let db = Database::new();
    let mut c = db.connect();
    let mut catalog = catalog();
    catalog["packs"][0]["expires_after"] = "30 days".into();
    c.load_catalog(&catalog);
    let late = c.apply(&paid_pack("cs_1", ANN).with("created", CREATED).completed("evt_1"));
    assert_eq!(late.summary(), "applied");
    assert_eq!(late.remaining_total, Some(0));
    assert_eq!(c.ledger(ANN), ["purchase 500", "expiry -500"]);
    assert_eq!(late.credits, 0, "credits is the net change");
}

#[test]
fn more_than_an_account_can_hold_is_rejected_and_leaves_the_books_alone() {
    let db = Database::with_catalog();
    let mut c = db.connect();
    let full = i64::MAX - 100;
    c.run(&format!(
        "insert into billing.credit_grants (user_id, id, source_id, item, pool, amount, remaining, spendable, draw_rank, made_after,
             created_at)
             values ('{ANN}', 1, 'x', 'x', 'purchased', {full}, {full}, true, 3, 0, now());
         insert into billing.credit_transactions
             (user_id, id, operation_id, transaction_type, amount, grant_id, pool, balance_after, created_at, recorded_at, hash)
             values ('{ANN}', 1, 1, 'import', {full}, 1, 'purchased', {full}, now(), now(), '');
         insert into billing.accounts
             (user_id, purchased_credits, last_grant_id, last_transaction_id, last_recorded_at, created_at, updated_at)
             values ('{ANN}', {full}, 1, 1, now(), now(), now())"
    ));
    c.rehash(ANN);
    assert_eq!(c.grant(ANN, 101, "one too many").summary(), "rejected out_of_range");
    assert_eq!(c.purchase(ANN, 101, "evt_1", "cs_1").summary(), "rejected out_of_range");
    assert_eq!(c.sign_up(ANN).summary(), "rejected out_of_range");
    assert_eq!(c.apply(&paid_pack("cs_2", ANN).completed("evt_2")).summary(), "rejected out_of_range");
    assert_eq!(c.inbox("evt_2").as_deref(), Some("rejected out_of_range"));
    assert_eq!(c.grant(ANN, 100, "the last").summary(), "applied");
    assert_eq!(c.balance(ANN), i64::MAX);
}

/// A public function's argument, as pg_proc has it.
#[derive(Clone)]
struct Argument {
    function: String,
    name: String,
    data_type: String,
    default: Option<String>,
}

/// Texts that may be blank: a description may be anything, and a body that is no event is an outcome.
const FREE_TEXT: &[&str] = &["p_description", "body"];

/// Arguments whose null is documented.
const NULL_IS_DEFAULT: &[(&str, &str)] = &[
    ("my_transactions", "p_limit"),
    ("my_payments", "p_limit"),
    ("spend_credits", "p_metadata"),
    // A caller may not know the customer.
    ("apply_subscription_state", "p_customer_id"),
    ("apply_stripe_subscription_state", "p_customer_id"),
];

/// Every argument of every public function: whatever is new is in here.
fn arguments(c: &mut Connection) -> Vec<Argument> {
    let query = "
        select p.proname::text, a.name, format_type(a.type, null),
               case when a.ordinal > p.pronargs - p.pronargdefaults
                   then btrim((regexp_split_to_array(pg_get_function_arguments(p.oid), ', (?=[a-z_]+ )'))[a.ordinal]) end
        from pg_proc p
        cross join lateral unnest(p.proargnames[1:p.pronargs], p.proargtypes::oid[])
            with ordinality as a (name, type, ordinal)
        where p.pronamespace = 'billing'::regnamespace
            and p.prorettype not in ('trigger'::regtype, 'event_trigger'::regtype)
            -- what the others check their arguments with, what the view is made of, what my_credits() posts by, what the
            -- installation's scripts call
            and p.proname not in ('require_given', 'require_positive', 'require_not_negative', 'require_named', 'lots_by',
                'balances_by', 'settle_account', 'older_answer', 'account_time', 'set_rights')
        order by 1, a.ordinal";
    c.query(query, &[])
        .expect("pg_proc can be read")
        .iter()
        .map(|row| {
            let default: Option<String> = row.get(3);
            Argument {
                function: row.get(0),
                name: row.get(1),
                data_type: row.get(2),
                default: default.map(|text| text.split(" DEFAULT ").nth(1).unwrap_or_default().to_owned()),
            }
        })
        .collect()
}

/// A right value for an argument, as an SQL expression.
fn right(argument: &Argument) -> String {
    match (argument.name.as_str(), argument.data_type.as_str()) {
        ("event", "jsonb") => format!("'{}'", paid_pack("cs_right", ANN).completed("evt_right").json()),
        ("session", "jsonb") => format!("'{}'", paid_pack("cs_right", ANN).json()),
        ("catalog", "jsonb") => format!("'{}'", catalog()),
        ("p_amounts", "jsonb") => {
            r#"'[{"id": "price_right", "currency": "eur", "unit_amount": 500}]'"#.into()
        }
        (_, "jsonb") => "'{}'".into(),
        ("p_stripe_id", _) => "'cus_right'".into(),
        ("p_price_id", _) => "'price_pack'".into(),
        ("p_status", _) => "'active'".into(),
        ("p_pool", _) => "'purchased'".into(),
        ("p_state", _) => "'paid'".into(),
        ("p_cycle_start", _) => "'2099-12-01'".into(),
        (_, "text[]") => format!("array['{}']", paid_pack("cs_right", ANN).completed("evt_right").json()),
        (_, "uuid[]") => format!("array['{ANN}'::uuid]"),
        (_, "bigint[]") => "array[5::bigint]".into(),
        (_, "boolean") => "true".into(),
        ("p_client", "regrole") => "'authenticated'".into(),
        ("p_service", "regrole") => "'service_role'".into(),
        (_, "text") => "'right'".into(),
        (_, "uuid") => format!("'{ANN}'"),
        (_, "bigint" | "integer") => "5".into(),
        (_, "interval") => "'1 hour'".into(),
        (_, "timestamp with time zone") => "'2100-01-01'".into(),
        (name, data_type) => panic!("{}: say what a right {name} {data_type} is", argument.function),
    }
}

/// Values of an argument that make the call wrong in itself, with the SQLSTATE they must raise.
fn wrongs(argument: &Argument) -> Vec<(String, &'static str)> {
    let Argument { function, name, .. } = argument;
    let mut wrongs = Vec::new();
    let may_be_null = argument.default.as_deref().is_some_and(|default| default.starts_with("NULL"))
        || NULL_IS_DEFAULT.contains(&(function, name));
    if !may_be_null {
        wrongs.push(("null".into(), "22004"));
    }
    match argument.data_type.as_str() {
        "text" if name == "p_status" => wrongs.push(("'fine'".into(), "22023")),
        "text" if name == "p_pool" => wrongs.push(("'monthly'".into(), "22023")),
        "text" if name == "p_state" => wrongs.push(("'requested'".into(), "22023")),
        "text" if !FREE_TEXT.contains(&name.as_str()) => {
            wrongs.extend(["''", "'  '", "E'\\t\\n'"].map(|blank| (blank.into(), "22023")));
        }
        "bigint" if function == "adjust_credits" => {
            wrongs.push(("0".into(), "22023"));
            wrongs.extend(
                [MOST + 1, -MOST - 1, i64::MAX, i64::MIN].map(|amount| (amount.to_string(), "22003")),
            );
        }
        // Money, not credits.
        "bigint" if name == "p_amount" && function == "name_payment_intent" => {
            wrongs.extend(["0", "-1"].map(|amount| (amount.into(), "22023")));
        }
        "bigint" if name == "p_amount" => {
            wrongs.extend(["0", "-1", "-9223372036854775808"].map(|amount| (amount.into(), "22023")));
            wrongs.extend([MOST + 1, i64::MAX].map(|amount| (amount.to_string(), "22003")));
        }
        "integer" if name == "p_ledger_rows" => wrongs.push(("-1".into(), "22023")),
        "bigint[]" => wrongs.push(("array[]::bigint[]".into(), "22023")),
        "integer" if !NULL_IS_DEFAULT.contains(&(function, name)) => {
            wrongs.extend(["0", "-1"].map(|limit| (limit.into(), "22023")));
        }
        "jsonb" if name == "p_amounts" => wrongs.push(("'{}'".into(), "22023")),
        "interval" => wrongs.push(("'-1 hour'".into(), "22023")),
        "timestamp with time zone" if name.starts_with("p_cycle_") => {
            wrongs.extend(["'infinity'", "'-infinity'"].map(|never| (never.into(), "22023")));
        }
        _ => {}
    }
    wrongs
}

#[test]
fn every_wrong_argument_raises_a_sqlstate_and_a_detail_that_names_the_value() {
    let db = Database::with_catalog();
    let mut c = db.connect();
    let arguments = arguments(&mut c);
    assert!(arguments.len() > 30, "pg_proc was read: {}", arguments.len());
    let mut faults = Vec::new();
    let mut checked = 0;
    for argument in &arguments {
        let call = |value: &str| {
            let list: Vec<String> = arguments
                .iter()
                .filter(|other| other.function == argument.function)
                .map(|other| {
                    let value = if other.name == argument.name { value.to_owned() } else { right(other) };
                    format!("{} => {value}", other.name)
                })
                .collect();
            format!("select * from billing.{}({})", argument.function, list.join(", "))
        };
        let mut attempt = |value: &str| {
            c.run("begin");
            let answer = c.attempt(&call(value));
            c.run("rollback");
            answer
        };
        if let Err(fault) = attempt(&right(argument)) {
            panic!("{}: a right call: {fault:?}", argument.function);
        }
        for (value, code) in wrongs(argument) {
            checked += 1;
            let place = format!("{}({} => {value})", argument.function, argument.name);
            match attempt(&value) {
                Ok(()) => faults.push(format!("{place}: no error, not {code}")),
                Err(fault) if fault.code != code => {
                    faults.push(format!("{place}: {} {}, not {code}", fault.code, fault.message));
                }
                Err(fault) if !fault.message.contains(&argument.name) => {
                    faults
                        .push(format!("{place}: the message does not name the argument: {}", fault.message));
                }
                Err(fault) if !fault.detail.contains(&argument.name) => {
                    faults.push(format!("{place}: the DETAIL does not name the value: {:?}", fault.detail));
                }
                Err(_) => {}
            }
        }
    }
    assert!(checked > 50, "only {checked} wrong calls were made");
    assert!(faults.is_empty(), "{} wrong calls raise no error:\n{}", faults.len(), faults.join("\n"));
}

#[test]
fn a_wrong_call_writes_nothing() {
    let db = Database::with_catalog();
    let mut c = db.connect();
    c.sign_up(ANN);
    let before = c.everything();
    for call in [
        format!("grant_credits('{ANN}', 0, 'x')"),
        format!("grant_credits('{ANN}', {}, 'x')", MOST + 1),
        format!("apply_stripe_credit_pack_purchase('{ANN}', 5, 'x', ' ')"),
        format!("attribute('nothing of Stripe', '{ANN}')"),
        format!("attribute('pi_1', '{ANN}')"),
    ] {
        c.refusal(&format!("select * from billing.{call}"));
    }
    assert_eq!(c.everything(), before);
}
