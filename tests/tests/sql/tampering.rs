//! Rule 14: whoever changes the books behind the ledger's back is found, and what was changed is named.

use serde_json::json;
use stripe_credits_tests::payments::top_up;
use stripe_credits_tests::plans::plan_database;
use stripe_credits_tests::refunds::refunded;
use stripe_credits_tests::subscription::{PRO, invoice, line, months_after, period, renewal, subscription};
use stripe_credits_tests::{ANN, BOB, Connection, Database, paid_pack};

const DAY: i64 = 86_400;

/// A database in which Ann has grants of every kind, a debt that was settled, spends and reservations.
fn with_books() -> Database {
    let db = Database::with_catalog();
    let mut c = db.connect();
    c.apply(&paid_pack("cs_1", ANN).completed("evt_1")); // grant 1, row 1
    c.spend(ANN, 100, "job-1"); // row 2
    c.grant(ANN, 50, "gift"); // grant 2, row 3
    c.spend(ANN, 70, "job-2"); // rows 4 and 5
    c.reserve(ANN, 40, "job-3"); // row 6
    c.commit(ANN, "job-3", Some(30)); // row 7
    c.reserve(ANN, 5, "job-4"); // row 8
    c.refund_spend(ANN, "job-1", "refund-1", Some(10)); // row 9
    c.adjust(ANN, -15, "ticket-1"); // row 10
    c.apply(&paid_pack("cs_b", BOB).completed("evt_b"));
    c.sign_up(BOB);
    db
}

/// Begins a transaction in which nothing keeps a superuser from changing the books.
fn begin_tampering(c: &mut Connection) {
    c.run(
        "begin;
         alter table billing.credit_transactions disable trigger user",
    );
}

/// What `validate_credits_consistency()` says of Ann after a tampering, which is undone.
fn found(c: &mut Connection, tampering: &str) -> String {
    begin_tampering(c);
    c.run(tampering);
    let faults: Vec<String> = c.column(
        "select detail from billing.validate_credits_consistency() where user_id = $1 and detail is not null",
        &[&ANN],
    );
    c.run("rollback");
    faults.join("")
}

/// Each tampering with Ann's books, and what names it.
const TAMPERINGS: &[(&str, &[&str])] = &[
    // Two ledger rows changed so that they make up for each other, of one grant and of two.
    (
        "update billing.credit_transactions set amount = amount + case id when 2 then 1 else -1 end where id in (2, 6)",
        &["ledger row 2: its balance_after is 400, but 500 + -99 is 401", "ledger row 6: its balance_after"],
    ),
    (
        "update billing.credit_transactions set amount = amount + case id when 1 then 1 else -1 end where id in (1, 3)",
        &[
            "ledger row 1: its balance_after",
            "grant 1: 340 remain, its ledger rows sum to 341",
            "grant 2: 0 remain",
        ],
    ),
    // The same with the balances between them, so that rows and grants agree: the grant's amount does not.
    (
        "update billing.credit_transactions set
             amount = amount + case id when 1 then 1 when 2 then -1 else 0 end,
             balance_after = balance_after + case id when 1 then 1 else 0 end where user_id = :ann",
        &["grant 1: its amount is 500, its parts are 340 and 161 were drawn"],
    ),
    (
        "update billing.credit_transactions set balance_after = 1 where id = 4",
        &["ledger row 4: its balance_after is 1"],
    ),
    (
        "update billing.credit_transactions set grant_id = 2 where id = 2",
        &["grant 1: 340 remain", "grant 2: 0 remain"],
    ),
    (
        "update billing.credit_transactions set pool = 'promotional' where id = 2",
        &["ledger row 2 is of pool promotional"],
    ),
    (
        "delete from billing.credit_transactions where id = 2",
        &["ledger row 3 follows row 1", "grant 1: 340 remain"],
    ),
    (
        "delete from billing.credit_transactions where id = 10",
        &["the last ledger row is 9, by the account it is 10"],
    ),
    (
        "insert into billing.credit_transactions
             (user_id, id, operation_id, transaction_type, amount, grant_id, pool, balance_after, created_at, recorded_at, hash)
         values (:ann, 11, 11, 'grant', 7, 7, 'purchased', 352, now(), now(), '')",
        &["ledger row 11: grant 7 does not exist", "the last ledger row is 11, by the account it is 10"],
    ),
    // Each row was recorded after the one before it.
    (
        "update billing.credit_transactions set recorded_at = recorded_at - interval '1 day' where user_id = :ann and id = 4",
        &["ledger row 4: it was recorded at", "but the row before it at"],
    ),
    (
        "update billing.accounts set last_recorded_at = 'epoch' where user_id = :ann",
        &["ledger row 10: it was recorded at", "but the account's last row at"],
    ),
    // What was given is what the ledger gave.
    (
        "update billing.credit_grants set amount = amount + 5, expired = expired + 5 where user_id = :ann and id = 2",
        &["grant 2: its amount is 55, the ledger gave it 50"],
    ),
    (
        "update billing.credit_grants set owed = 5, drawn = drawn + 5 where user_id = :ann and id = 2",
        &["but the grants owe 5"],
    ),
    (
        "update billing.credit_grants set settled = 5 where user_id = :ann and id = 2",
        &["grant 2: 5 of it settled debt, by its ledger rows 0"],
    ),
    // Credits moved between two grants, with the account's pools.
    (
        "update billing.credit_grants set remaining = remaining + case id when 1 then -10 else 10 end
         where user_id = :ann;
         update billing.accounts set purchased_credits = purchased_credits - 10,
             promotional_credits = promotional_credits + 10 where user_id = :ann",
        &["grant 1: 330 remain, its ledger rows sum to 340", "grant 2: 10 remain, its ledger rows sum to 0"],
    ),
    (
        "delete from billing.credit_grants where user_id = :ann and id = 2",
        &["grant 2 is missing", "ledger row 3: grant 2"],
    ),
    (
        "delete from billing.credit_grants where user_id = :ann and id = 2;
         update billing.accounts set last_grant_id = 1 where user_id = :ann",
        &["ledger row 3: grant 2 does not exist"],
    ),
    (
        "update billing.credit_grants set amount = 501 where user_id = :ann and id = 1",
        &["grant 1: its amount is 501"],
    ),
    (
        "update billing.credit_grants set expired = 5 where user_id = :ann and id = 1",
        &["grant 1: its amount is 500"],
    ),
    ("update billing.accounts set last_grant_id = 1", &["grant 2: by the account the last one is 1"]),
    ("delete from billing.payments where source_id = 'cs_1'", &["ledger row 1: payment cs_1 does not exist"]),
    (
        "update billing.payments set source_id = 'cs_2' where source_id = 'cs_1'",
        &["ledger row 1: payment cs_1"],
    ),
    (
        "update billing.payments set user_id = :bob where source_id = 'cs_1'",
        &["ledger row 1: payment cs_1 belongs to user c0de0000-0000-4000-8000-000000000002"],
    ),
    (
        "delete from billing.reservations where request_id = 'job-3'",
        &["ledger row 6: reservation job-3 does not exist"],
    ),
    (
        "insert into billing.reservations values (:ann, 'job-9', 10, 0, 'held', null, now(), now(), now())",
        &["reservation job-9 has no ledger row"],
    ),
    (
        "update billing.reservations set amount = 6 where request_id = 'job-4'",
        &["reservation job-4: held held, 6 and 0"],
    ),
    (
        "update billing.reservations set committed = 31 where request_id = 'job-3'",
        &["reservation job-3: committed held"],
    ),
    (
        "update billing.reservations set status = 'released' where request_id = 'job-4'",
        &["reservation job-4: released"],
    ),
    (
        "update billing.accounts set purchased_credits = 341 where user_id = :ann",
        &["the cached balance is 341", "pools"],
    ),
    ("update billing.accounts set debt = 1 where user_id = :ann", &["the cached debt is 1, the ledger's 0"]),
    ("delete from billing.accounts where user_id = :ann", &["there is no account"]),
];

#[test]
fn whatever_is_changed_in_the_books_is_found_and_named() {
    let db = with_books();
    let mut c = db.connect();
    assert_eq!(found(&mut c, "select"), "", "the books agree before");
    let mut unseen = Vec::new();
    for (tampering, names) in TAMPERINGS {
        let by = tampering.replace(":ann", &format!("'{ANN}'")).replace(":bob", &format!("'{BOB}'"));
        let by = by.replace("where id", &format!("where user_id = '{ANN}' and id"));
        let detail = found(&mut c, &by);
        if !names.iter().all(|name| detail.contains(name)) {
            unseen.push(format!("{tampering}\n    {detail}"));
        }
    }
    assert!(unseen.is_empty(), "{}", unseen.join("\n"));
    assert_eq!(found(&mut c, "select"), "", "the books agree afterwards");
}

/// A database in which Ann has credits of every kind that only facts explain: a trial, a bonus, months, a year in parts, a
/// pack bought twice of which a part came back, and one on the invoice of a plan.
fn with_worth() -> Database {
    let db = plan_database(&json!({ "trial_credits": 300, "first_purchase_bonus": 200 }));
    let mut c = db.connect();
    let now = c.unix_now();
    c.apply(&subscription("sub_1", "price_pro").of(ANN).created("evt_1"));
    c.apply(&renewal("in_0", "sub_1", PRO, 0).paid("evt_2"));
    c.apply(
        &renewal("in_1", "sub_1", PRO, 1)
            .line(line("price_pack", 1_000, period(1)).billed_once())
            .paid("evt_3"),
    );
    c.apply(&subscription("sub_t", "price_seat").of(ANN).created("evt_t"));
    let trial = line("price_seat", 0, (now - 10 * DAY, now + 10 * DAY));
    c.apply(&invoice("in_t", "sub_t").line(trial).paid("evt_t1"));
    c.apply(&subscription("sub_y", "price_pro_year").of(ANN).created("evt_y"));
    let year = line("price_pro_year", 120_000, (now - 10 * DAY, months_after(now - 10 * DAY, 12)));
    c.apply(&invoice("in_y", "sub_y").line(year).paid("evt_y1"));
    c.apply(&paid_pack("cs_1", ANN).completed("evt_4"));
    c.apply(&refunded("re_1", "pi_1", 500));
    c.spend(ANN, 20, "job-1");
    db
}

/// Adds to the amount of a grant and to everything that follows from it: what is left, its last ledger row, the
/// account's pool.
fn amount_changed(grants: &str) -> String {
    format!(
        "create temporary table changed on commit drop as
             select g.id, g.pool, g.remaining > 0 as spendable, (
                 select max(t.id) from billing.credit_transactions t where t.user_id = g.user_id and t.grant_id = g.id)
                 as row_id
             from billing.credit_grants g where g.user_id = '{ANN}' and {grants} order by id desc limit 1;
         update billing.credit_grants g set amount = amount + 7,
             remaining = remaining + case when c.spendable then 7 else 0 end,
             pending = pending + case when not c.spendable and g.pending > 0 then 7 else 0 end,
             set_aside = set_aside + case when not c.spendable and g.pending = 0 then 7 else 0 end
         from changed c where g.user_id = '{ANN}' and g.id = c.id;
         update billing.credit_transactions t set
             amount = amount + case when t.id = c.row_id then 7 else 0 end, balance_after = balance_after + 7
         from changed c where t.user_id = '{ANN}' and c.spendable and t.id >= c.row_id;
         update billing.accounts a set
             subscription_credits = subscription_credits + case when c.pool = 'subscription' then 7 else 0 end,
             purchased_credits = purchased_credits + case when c.pool = 'purchased' then 7 else 0 end,
             promotional_credits = promotional_credits + case when c.pool = 'promotional' then 7 else 0 end
         from changed c where a.user_id = '{ANN}' and c.spendable"
    )
}

/// Grants of [`with_worth`] whose amount is changed together with everything that follows from it, and what names that.
const WORTHS: &[(&str, &str)] = &[
    ("source_id = 'trial'", "the facts of trial of trial are worth 300"),
    ("source_id = 'first_purchase_bonus'", "are worth 200"),
    ("stripe_subscription_id = 'sub_1' and remaining > 0", "of sub_1 are worth 10000"),
    ("stripe_subscription_id = 'sub_1' and set_aside > 0", "of sub_1 are worth 10000"),
    ("stripe_subscription_id = 'sub_y' and pending > 0", "of sub_y are worth 10000"),
    ("stripe_subscription_id = 'sub_y' and remaining > 0", "of sub_y are worth 10000"),
    ("source_id = 'in_1'", "the facts of price_pack of in_1 are worth 500"),
    ("source_id = 'cs_1'", "but it bought 500, of which 250 is left"),
];

#[test]
fn a_change_with_all_that_follows_from_it_is_not_what_its_facts_are_worth() {
    let db = with_worth();
    let mut c = db.connect();
    assert_eq!(found(&mut c, "select"), "", "the books agree before");
    let mut unseen = Vec::new();
    for (grants, name) in WORTHS {
        let detail = found(&mut c, &amount_changed(grants));
        if !detail.contains(name) {
            unseen.push(format!("{grants}\n    {detail}"));
        }
    }
    assert!(unseen.is_empty(), "{}", unseen.join("\n"));
}

/// Each tampering with the facts under Ann's grants, and what names it.
const FACTS: &[(&str, &str)] = &[
    ("delete from billing.invoice_lines where source_id = 'in_1'", "are worth 0"),
    ("update billing.invoice_lines set quantity = 2 where source_id = 'in_0'", "are worth 20000"),
    (
        "update billing.invoice_lines set user_id = :bob where source_id = 'in_1'",
        "is missing, its facts are worth",
    ),
    ("update billing.payments set paid_at = null where source_id = 'in_y'", "are worth 0"),
    (
        "update billing.invoice_lines set paid_at = paid_at - interval '1 day' where source_id = 'in_1'",
        "line 1 of in_1: it was paid at",
    ),
    ("update billing.payments set user_id = :bob where source_id = 'in_1'", "payment in_1 belongs to user"),
    (
        "update billing.subscriptions set user_id = :bob where subscription_id = 'sub_1'",
        "line 1 of in_1 counts for user",
    ),
    ("update billing.payments set worth = 600 where source_id = 'cs_1'", "payment cs_1 is worth 600"),
    ("update billing.credit_grants set bought = 600 where source_id = 'cs_1'", "payment cs_1 is worth 500"),
    ("update billing.payments set amount_reversed = 0 where source_id = 'cs_1'", "of which 500 is left"),
    ("delete from billing.reversals where reversal_id = 're_1'", "payment cs_1: 500 of 1000 came back"),
    (
        "update billing.reversals set amount = 1000 where reversal_id = 're_1'",
        "by its reversals 1000 of 1000",
    ),
    (
        "insert into billing.payments (source_id, source_type, user_id, worth, evidence, paid_at, created_at)
         values ('cs_2', 'checkout_session', :ann, 500, 'lines', now(), now())",
        "payment cs_2 is worth 500, its grants say that it bought 0",
    ),
];

#[test]
fn facts_that_are_changed_under_their_grants_are_found_and_named() {
    let db = with_worth();
    let mut c = db.connect();
    let mut unseen = Vec::new();
    for (tampering, name) in FACTS {
        let by = tampering.replace(":ann", &format!("'{ANN}'")).replace(":bob", &format!("'{BOB}'"));
        begin_tampering(&mut c);
        c.run(&by);
        let detail = c.faults().join("\n");
        c.run("rollback");
        if !detail.contains(name) {
            unseen.push(format!("{tampering}\n    {detail}"));
        }
    }
    assert!(unseen.is_empty(), "{}", unseen.join("\n"));
}

#[test]
fn a_tampering_with_one_users_books_names_nobody_else() {
    let db = with_books();
    let mut c = db.connect();
    begin_tampering(&mut c);
    c.run("update billing.credit_grants set amount = amount + 1 where source_id = 'cs_1'");
    let named: Vec<uuid::Uuid> = c.column("select user_id from billing.validate_credits_consistency()", &[]);
    assert_eq!(named, [ANN]);
    let row: String = c.one(
        "select concat_ws(' ', stored_balance, calculated_balance, difference)
         from billing.validate_credits_consistency()",
        &[],
    );
    assert_eq!(row, "340 340 0", "the balances agree all the same");
    c.run("rollback");
}

#[test]
fn a_grant_of_a_part_to_come_that_is_deleted_is_missing() {
    let db = Database::with_catalog();
    let mut c = db.connect();
    c.apply(&subscription("sub_1", "price_pro").of(ANN).created("evt_1"));
    c.apply(&renewal("in_0", "sub_1", PRO, 0).paid("evt_2"));
    c.apply(&renewal("in_1", "sub_1", PRO, 1).paid("evt_3"));
    c.spend(ANN, 300, "job-1");
    c.apply(&paid_pack("cs_1", ANN).completed("evt_4"));
    c.apply(&refunded("re_1", "pi_1", 500));
    assert_eq!(found(&mut c, "select"), "");
    assert!(found(&mut c, "delete from billing.credit_grants where id = 1").contains("grant 1 is missing"));
    let gone = "delete from billing.payments where source_id = 'in_1'";
    assert!(found(&mut c, gone).contains("payment in_1 does not exist"), "{}", found(&mut c, gone));
}

#[test]
fn a_top_up_whose_payment_is_deleted_is_named_by_its_payment_intent() {
    let db = Database::with_catalog();
    let mut c = db.connect();
    c.deliver(&top_up("pi_1", ANN).event("evt_1", "payment_intent.succeeded"));
    assert_eq!(c.ledger(ANN), ["purchase 500"]);
    assert_eq!(found(&mut c, "select"), "");
    let gone = found(&mut c, "delete from billing.payments where source_id = 'pi_1'");
    assert!(gone.contains("ledger row 1: payment pi_1 does not exist"), "{gone}");
}

#[test]
fn of_many_faults_the_first_ones_are_named_and_the_others_counted() {
    let db = with_books();
    let mut c = db.connect();
    for n in 0..40 {
        c.grant(ANN, 1, &format!("gift-{n}"));
    }
    let detail = found(&mut c, "update billing.credit_transactions set balance_after = 2 * id + 10000");
    assert!(detail.contains("ledger row 1: its balance_after is 10002"), "{detail}");
    assert!(detail.ends_with("; and 90 more"), "{detail}");
}

/// A ledger of Ann's without anything that a call wrote into `metadata`.
fn with_ledger() -> Database {
    let db = Database::with_catalog();
    let mut c = db.connect();
    c.apply(&paid_pack("cs_1", ANN).completed("evt_1"));
    c.spend(ANN, 100, "job-1");
    c.spend(ANN, 70, "job-2");
    c.grant(ANN, 50, "gift");
    c.spend(ANN, 5, "job-3");
    db
}

/// What nothing but the hashes says: rows in which the sums, the balances and the references still agree.
const CHAINED: &[(&str, &str)] = &[
    // Credits between two spends of one grant, with the balance between them.
    (
        "update billing.credit_transactions set
             amount = amount + case id when 2 then 1 when 3 then -1 else 0 end,
             balance_after = balance_after + case id when 2 then 1 else 0 end where id in (2, 3)",
        "ledger row 2: its hash",
    ),
    ("update billing.credit_transactions set description = 'another' where id = 1", "ledger row 1: its hash"),
    ("update billing.credit_transactions set metadata = '{\"job\": 1}' where id = 2", "ledger row 2: its hash"),
    ("update billing.credit_transactions set operation_id = 1 where id = 2", "ledger row 2: its hash"),
    ("update billing.credit_transactions set transaction_type = 'import' where id = 4", "ledger row 4: its hash"),
    ("update billing.credit_transactions set stripe_event_id = 'evt_2' where id = 1", "ledger row 1: its hash"),
    ("update billing.credit_transactions set stripe_payment_intent_id = null where id = 1", "ledger row 1: its hash"),
    ("update billing.credit_transactions set stripe_invoice_id = 'in_1' where id = 3", "ledger row 3: its hash"),
    ("update billing.credit_transactions set request_id = 'job-9' where id = 3", "ledger row 3: its hash"),
    (
        "update billing.credit_transactions set created_at = created_at - interval '1 microsecond' where id = 5",
        "ledger row 5: its hash",
    ),
    // What two texts say together is not what says it.
    (
        "update billing.credit_transactions set request_id = null, stripe_invoice_id = 'job-2' where id = 3",
        "ledger row 3: its hash",
    ),
    // The rows of a grant removed with it, and the later ones counted anew.
    (
        "delete from billing.credit_transactions where user_id = :ann and id in (4);
         update billing.credit_transactions set id = 4, operation_id = 4, balance_after = balance_after - 50 where id = 5;
         update billing.credit_grants set amount = 0, remaining = 0, drawn = 0 where user_id = :ann and id = 2;
         update billing.accounts set last_transaction_id = 4, promotional_credits = 0 where user_id = :ann",
        "ledger row 4: its hash",
    ),
    // The last row removed, and the spend with it.
    (
        "delete from billing.credit_transactions where id = 5;
         update billing.credit_grants set remaining = remaining + 5, drawn = drawn - 5 where user_id = :ann and id = 2;
         update billing.accounts set last_transaction_id = 4, promotional_credits = promotional_credits + 5
         where user_id = :ann",
        "ledger row 4: by the account the last hash is another",
    ),
    ("update billing.credit_transactions set hash = sha256(hash) where id = 3", "ledger row 4: its hash"),
    ("update billing.accounts set last_hash = '' where user_id = :ann", "ledger row 5: by the account the last hash"),
];

#[test]
fn a_row_that_is_changed_removed_or_inserted_breaks_the_chain_of_hashes() {
    let db = with_ledger();
    let mut c = db.connect();
    assert_eq!(found(&mut c, "select"), "", "the books agree before");
    let mut unseen = Vec::new();
    for (tampering, name) in CHAINED {
        let by = tampering.replace(":ann", &format!("'{ANN}'"));
        let by = by.replace("where id", &format!("where user_id = '{ANN}' and id"));
        let detail = found(&mut c, &by);
        if !detail.contains(name) {
            unseen.push(format!("{tampering}\n    {detail}"));
        }
    }
    assert!(unseen.is_empty(), "{}", unseen.join("\n"));
}

#[test]
fn the_hashes_are_what_their_description_says() {
    let db = with_ledger();
    let mut c = db.connect();
    let hashes = "select hash from billing.credit_transactions order by id";
    let before: Vec<Vec<u8>> = c.column(hashes, &[]);
    c.rehash(ANN);
    assert_eq!(c.column::<Vec<u8>>(hashes, &[]), before);
    assert_eq!(c.one::<Vec<u8>>("select last_hash from billing.accounts", &[]), before[4]);
}

#[test]
fn whoever_computes_all_hashes_anew_differs_from_those_that_were_noted() {
    let mut db = with_ledger();
    db.breaks_its_books();
    let mut c = db.connect();
    c.run("create table noted as select user_id, last_transaction_id as id, last_hash as hash from billing.accounts");
    c.spend(ANN, 1, "job-4");
    let changed = "select count(*) from noted n left join billing.credit_transactions t using (user_id, id)
         where n.id > 0 and t.hash is distinct from n.hash";
    assert_eq!(c.one::<i64>(changed, &[]), 0, "what was noted stays");
    c.run(
        "alter table billing.credit_transactions disable trigger user;
         update billing.credit_transactions set description = 'another' where id = 1",
    );
    c.rehash(ANN);
    assert_eq!(c.faults(), [""; 0], "the books agree");
    assert_eq!(c.one::<i64>(changed, &[]), 1);
}

#[test]
fn metadata_of_every_shape_keeps_its_hash() {
    let db = Database::with_catalog();
    let mut c = db.connect();
    c.grant(ANN, 1_000, "gift");
    let shapes = [
        "{}",
        "[]",
        "null",
        "1",
        r#""text""#,
        "1e400",
        "-0.00",
        r#"{"b": [1, {"a": null}], "a": "\u00e9\u20ac"}"#,
        "1e1000",
    ];
    for (number, shape) in shapes.iter().enumerate() {
        let call = format!("spend_credits($1, 1, $2, null, '{shape}')");
        assert_eq!(c.call(&call, &[&ANN, &format!("job-{number}")]).summary(), "applied", "{shape}");
    }
    // As a column's value, which may be compressed or out of line.
    c.run("create table jobs as select jsonb_build_object('long', repeat('x', 50000), 'n', n) as job from generate_series(1, 3) n");
    c.run(&format!(
        "select billing.spend_credits('{ANN}', 1, 'long-' || (job ->> 'n'), null, job) from jobs"
    ));
    assert_eq!(c.faults(), [""; 0]);
}
