//! What support asks: whose something is, what each line of a payment is worth and why, what a grant was drawn for.

use serde_json::{Value, json};
use stripe_credits_tests::refunds::refunded;
use stripe_credits_tests::subscription::{PRO, invoice, line, period, renewal, subscription};
use stripe_credits_tests::{ANN, BOB, Connection, Database, Session, paid_pack, session};
use uuid::Uuid;

fn of_mail(session: Session, address: &str) -> Session {
    session.with("customer_details", json!({"email": address, "name": "Ann Example"}))
}

/// What is found, as `kind user event`, with `-` for what is not known.
fn found(c: &mut Connection, text: &str) -> Vec<String> {
    c.column(
        "select concat_ws(' ', f.found_as, case f.user_id when $2 then 'ann' when $3 then 'bob' else '-' end, f.event_id)
         from billing.find_users($1) f",
        &[&text, &ANN, &BOB],
    )
}

fn explain(c: &mut Connection, call: &str) -> Value {
    c.one(&format!("select billing.{call}"), &[])
}

#[test]
fn a_user_is_found_by_every_id_of_theirs() {
    let db = Database::with_catalog();
    let mut c = db.connect();
    c.apply(&paid_pack("cs_1", ANN).with("customer", "cus_1").completed("evt_1"));
    c.apply(&subscription("sub_1", "price_pro").of(ANN).created("evt_2"));
    c.apply(&renewal("in_0", "sub_1", PRO, 0).paid("evt_3"));
    c.apply(&refunded("re_1", "pi_1", 100).with("id", "evt_4"));
    c.sign_up(BOB);
    for (text, expected) in [
        (ANN.to_string().as_str(), vec!["user ann"]),
        (BOB.to_string().to_uppercase().as_str(), vec!["user bob"]),
        ("cus_1", vec!["customer ann"]),
        ("  cs_1 ", vec!["payment ann", "event ann evt_1"]),
        ("pi_1", vec!["payment ann"]),
        ("in_0", vec!["payment ann", "event ann evt_3"]),
        ("sub_1", vec!["subscription ann", "event ann evt_2"]),
        ("re_1", vec!["money back ann", "event ann evt_4"]),
        ("evt_1", vec!["event ann evt_1"]),
        ("cs_none", vec![]),
        ("nobody", vec![]),
        ("'; drop table x", vec![]),
    ] {
        assert_eq!(found(&mut c, text), expected, "{text}");
    }
}

#[test]
fn what_is_nobodys_yet_is_found_by_its_customer_and_its_address() {
    let db = Database::with_catalog();
    let mut c = db.connect();
    let bought = session("cs_1").metadata("price_id", "price_pack").with("customer", "cus_1");
    c.apply(&of_mail(bought, "Ann@Example.com").completed("evt_1"));
    assert_eq!(found(&mut c, "cus_1"), ["event - evt_1"]);
    assert_eq!(found(&mut c, "ann@example.com"), ["e-mail - evt_1"]);
    assert_eq!(explain(&mut c, "explain_id('ann@example.com')")["found"][0]["customer_id"], "cus_1");
    c.attribute("cus_1", ANN);
    assert_eq!(found(&mut c, "ann@example.com"), ["e-mail ann evt_1"]);
    assert_eq!(found(&mut c, "cus_1"), ["customer ann"]);
}

#[test]
fn an_address_is_found_wherever_objects_have_it_but_not_of_who_was_forgotten() {
    let db = Database::with_catalog();
    let mut c = db.connect();
    let mail = "ann@example.com";
    let places: [(&str, Value); 4] = [
        ("customer_email", json!(mail)),
        ("email", json!(mail)),
        ("receipt_email", json!(mail)),
        ("billing_details", json!({"email": mail})),
    ];
    for (n, (field, value)) in places.into_iter().enumerate() {
        c.run("begin");
        c.apply(&paid_pack("cs_1", ANN).with(field, value).completed(&format!("evt_{n}")));
        assert_eq!(found(&mut c, mail), [format!("e-mail ann evt_{n}")], "{field}");
        assert_eq!(found(&mut c, "nn@example.com"), [""; 0], "{field}");
        c.run("rollback");
    }
    c.apply(&of_mail(paid_pack("cs_1", ANN), mail).completed("evt_1"));
    c.apply(&of_mail(paid_pack("cs_2", BOB), mail).completed("evt_2"));
    assert_eq!(found(&mut c, mail).len(), 2);
    c.call("forget_user($1)", &[&ANN]);
    assert_eq!(found(&mut c, mail), ["e-mail bob evt_2"]);
    // An event of theirs that somehow kept the address does not give them away.
    c.run("update billing.stripe_events set payload = jsonb_set(payload::jsonb, '{data,object,email}', '\"ann@example.com\"')");
    assert_eq!(found(&mut c, mail), ["e-mail bob evt_2"]);
    c.run("update billing.stripe_events set first_received_at = now() - interval '91 days'");
    assert_eq!(found(&mut c, mail), [""; 0], "only the latest events are read");
}

#[test]
fn each_line_of_a_payment_says_what_it_is_worth_and_why() {
    let db = Database::with_catalog();
    let mut c = db.connect();
    c.apply(&subscription("sub_1", "price_pro").of(ANN).created("evt_1"));
    let bill = renewal("in_0", "sub_1", PRO, 0)
        .line(line("price_tshirt", 2500, period(0)))
        .line(line("price_pro", 100, period(0)).without_price());
    c.apply(&bill.paid("evt_2"));
    let lines = explain(&mut c, "payment_lines('in_0')");
    let said: Vec<String> = lines
        .as_array()
        .expect("lines")
        .iter()
        .map(|line| format!("{} {} {}", line["price_id"], line["worth"], line["why"].as_str().expect("why")))
        .collect();
    assert_eq!(
        said,
        [
            "\"price_pro\" 10000 pays for a period: 10000 credits by the catalog",
            "\"price_tshirt\" null the catalog lists it in not_credits: it grants nothing",
            "null null it names no price, and grants nothing",
        ]
    );
    assert_eq!((&lines[0]["amount"], &lines[0]["name"]), (&json!(PRO.1), &json!("Pro")));
    c.apply(&paid_pack("cs_1", ANN).completed("evt_3"));
    let pack = explain(&mut c, "payment_lines('cs_1')");
    assert_eq!((&pack[0]["price_id"], &pack[0]["worth"]), (&json!("price_pack"), &json!(500)));
    assert_eq!(pack[0]["why"], "what the session's metadata say was bought");
    // The same lines wherever the payment is explained, by whichever of its names.
    assert_eq!(explain(&mut c, "explain_id('pi_1')")["lines"], pack);
    let page = explain(&mut c, &format!("explain_user('{ANN}')"));
    assert_eq!(page["payments"][0]["lines"], pack, "{page:#}");
}

#[test]
fn a_discount_a_trial_and_a_proration_say_what_decides() {
    let db = Database::with_catalog();
    let mut c = db.connect();
    c.apply(&subscription("sub_1", "price_pro").of(ANN).created("evt_1"));
    let why = |c: &mut Connection, id: &str, line| {
        c.run("begin");
        c.apply(&invoice(id, "sub_1").line(line).paid(&format!("evt_{id}")));
        let lines = explain(c, &format!("payment_lines('{id}')"));
        c.run("rollback");
        lines[0]["why"].as_str().unwrap_or_default().split(':').next().unwrap_or_default().to_owned()
    };
    let of = |amount| line("price_pro", amount, period(0));
    assert_eq!(why(&mut c, "in_1", of(2000).quantity(3)), "pays for a period");
    assert_eq!(
        why(&mut c, "in_2", of(2000).discounted(2000)),
        "a discount took all of it, so the catalog's no_payment_required decides"
    );
    assert_eq!(why(&mut c, "in_3", of(0)), "costs nothing, and grants the plan's trial credits once");
    assert_eq!(why(&mut c, "in_4", of(900).prorated()), "pays for part of a period, and grants that share");
    assert_eq!(
        why(&mut c, "in_5", of(-900).prorated()),
        "gives back time that was billed, and takes that share of the period's credits"
    );
}

#[test]
fn a_grant_says_what_it_was_drawn_for_and_a_correction_why_and_by_whom() {
    let db = Database::with_catalog();
    let mut c = db.connect();
    c.buy(ANN, "cs_1");
    c.call("spend_credits($1, 30, 'job-1', 'one picture')", &[&ANN]);
    c.call("refund_spend($1, 'job-1', 'ticket-1', 10, 'it was blurred', 'Grace Support')", &[&ANN]);
    c.call("adjust_credits($1, -5, 'ticket-2', 'counted twice', 'Grace Support')", &[&ANN]);
    c.call("adjust_credits($1, 7, 'ticket-3', 'we are sorry', 'Grace Support')", &[&ANN]);
    let rows: Vec<String> = c.column(
        "select concat_ws('|', transaction_type, amount, description, metadata) from billing.credit_transactions
         where user_id = $1 and id > 2 order by id",
        &[&ANN],
    );
    assert_eq!(
        rows,
        [
            r#"spend_refund|10|it was blurred|{"by": "Grace Support", "spend_request_id": "job-1"}"#,
            r#"adjustment|-5|counted twice|{"by": "Grace Support"}"#,
            r#"adjustment|7|we are sorry|{"by": "Grace Support"}"#,
        ]
    );
    let page = explain(&mut c, &format!("explain_user('{ANN}')"));
    let pack = page["grants"].as_array().expect("grants").iter().find(|grant| grant["source_id"] == "cs_1");
    let drawn: Vec<String> = pack.expect("the pack")["drawn_for"]
        .as_array()
        .expect("draws")
        .iter()
        .map(|draw| format!("{} {} {}", draw["amount"], draw["request_id"], draw["description"]))
        .collect();
    assert_eq!(
        drawn,
        [
            "-5 \"ticket-2\" \"counted twice\"",
            "10 \"ticket-1\" \"it was blurred\"",
            "-30 \"job-1\" \"one picture\""
        ]
    );
    assert_eq!(page["balances"].as_array().expect("days").last().expect("a day")["balance"], 482);
    // Given back once, whoever asks again: the first reason and name stand.
    let again = c.call("refund_spend($1, 'job-1', 'ticket-1', 10, 'again', 'Bob')", &[&ANN]);
    assert_eq!(again.summary(), "already_applied");
    let rest = c.call("refund_spend($1, 'job-1', 'ticket-4', null, 'the rest')", &[&ANN]);
    assert_eq!(rest.credits, 20, "what was given back with a reason counts as given back");
}

#[test]
fn what_waits_is_listed_in_the_order_it_came_and_the_balance_by_days() {
    let db = Database::with_catalog();
    let mut c = db.connect();
    for n in 1..=3 {
        c.apply(
            &paid_pack(&format!("cs_{n}"), ANN)
                .metadata("price_id", "price_new")
                .completed(&format!("evt_{n}")),
        );
    }
    c.run("update billing.stripe_events set first_received_at = now() - interval '2 days' where event_id = 'evt_2'");
    let ids = |c: &mut Connection, call: &str| -> Vec<Value> {
        explain(c, call).as_array().expect("a list").iter().map(|row| row["event_id"].clone()).collect()
    };
    assert_eq!(ids(&mut c, "explain_waiting()"), ["evt_2", "evt_1", "evt_3"]);
    assert_eq!(ids(&mut c, "explain_waiting(1)"), ["evt_2"]);
    assert_eq!(
        explain(&mut c, &format!("explain_user('{}')", Uuid::nil()))["balances"],
        json!([]),
        "nothing is known of this user"
    );
}
