//! What the tables themselves refuse, and what only `validate_credits_consistency()` finds: a superuser tries each of it.

use stripe_credits_tests::{ANN, Connection, Database, paid_pack};

/// What the grant of a pack, of which nothing was drawn, must not be changed to: domains refuse it.
const GRANTS: &[&str] = &[
    "id = 0",
    "source_id = ''",
    "item = ''",
    "pool = 'debt'",
    "drawn = -1, remaining = amount + 1",
    "drawn = amount + 1, remaining = -1",
    "drawn = amount + 1, pending = -1, remaining = 0",
    "drawn = amount + 1, set_aside = -1, remaining = 0",
    "drawn = amount + 1, expired = -1, remaining = 0",
    "settled = -1",
    "owed = -1",
];

/// What its columns must not say together: for a CHECK that would be read anew by every statement that writes a grant, so
/// `validate_credits_consistency()` finds it.
const CONTRADICTIONS: &[(&str, &str)] = &[
    ("amount = -1", "its amount is -1"),
    ("amount = amount - 1", "its amount is 499"),
    ("drawn = 1", "its amount is 500"),
    ("moved = 1", "its amount is 500"),
    ("moved = -1", "its amount is 500"),
    ("remaining = amount + 1", "its amount is 500"),
    ("pending = 1", "its amount is 500"),
    ("set_aside = 1", "its amount is 500"),
    ("expired = 1", "its amount is 500"),
    ("settled = 1", "0 were drawn of 500, of which 1 settled debt and 0 are owed"),
    ("owed = 1", "0 were drawn of 500, of which 0 settled debt and 1 are owed"),
    (
        "remaining = 0, drawn = amount, settled = amount + 1",
        "500 were drawn of 500, of which 501 settled debt",
    ),
    (
        "remaining = 0, drawn = amount, owed = 1",
        "500 were drawn of 500, of which 0 settled debt and 1 are owed",
    ),
    ("spendable = false", "by spendable and draw_rank"),
    ("draw_rank = 1", "by spendable and draw_rank"),
    ("stripe_subscription_id = 'sub_1'", "do not go together"),
    ("stripe_subscription_id = 'sub_1', period_start = now()", "do not go together"),
    ("stripe_subscription_id = 'sub_1', period_end = now()", "do not go together"),
    ("period_start = now(), period_end = now()", "do not go together"),
    ("stripe_item_id = 'si_1'", "do not go together"),
    ("part_start = now()", "do not go together"),
    ("matters_until = now()", "by matters_until"),
    ("kept = 0", "moved_with and kept do not go together"),
    ("moved_with = 'sub_1'", "moved_with and kept do not go together"),
];

const ACCOUNTS: &[&str] =
    &["subscription_credits = -1", "purchased_credits = -1", "promotional_credits = -1", "debt = -1"];

/// Columns of a ledger row as they may be, and each with a value that it must not have.
const LEDGER: &[(&str, &str)] = &[
    ("id", "0"),
    ("operation_id", "0"),
    ("transaction_type", "'gift'"),
    ("amount", "0"),
    ("pool", "'debt'"),
];

#[test]
fn grants_and_accounts_below_nothing_are_refused() {
    let db = Database::with_catalog();
    let mut c = db.connect();
    assert_eq!(c.apply(&paid_pack("cs_1", ANN).completed("evt_1")).summary(), "applied");
    for (table, changes) in [("credit_grants", GRANTS), ("accounts", ACCOUNTS)] {
        for change in changes {
            let fault = c.refusal(&format!("update billing.{table} set {change}"));
            assert_eq!(fault.code, "23514", "{change}: {fault:?}");
        }
    }
}

#[test]
fn a_grant_whose_columns_contradict_each_other_is_found() {
    let db = Database::with_catalog();
    let mut c = db.connect();
    assert_eq!(c.apply(&paid_pack("cs_1", ANN).completed("evt_1")).summary(), "applied");
    let faults = |c: &mut Connection| -> Vec<String> {
        c.column("select fault from billing.grant_faults() where user_id = $1", &[&ANN])
    };
    assert_eq!(faults(&mut c), [""; 0]);
    for (change, fault) in CONTRADICTIONS {
        c.run(&format!("begin; update billing.credit_grants set {change}"));
        let found = faults(&mut c);
        assert!(found.iter().any(|found| found.contains(fault)), "{change}: {found:?}");
        let names: Vec<String> = c.column("select detail from billing.validate_credits_consistency()", &[]);
        assert!(names.iter().any(|detail| detail.contains("grant 1: ")), "{change}: {names:?}");
        c.run("rollback");
    }
}

#[test]
fn a_payment_with_a_worth_and_no_evidence_is_found() {
    let db = Database::with_catalog();
    let mut c = db.connect();
    assert_eq!(c.apply(&paid_pack("cs_1", ANN).completed("evt_1")).summary(), "applied");
    for change in ["evidence = null", "worth = null"] {
        c.run(&format!("begin; update billing.payments set {change}"));
        let names: Vec<String> = c.column("select detail from billing.validate_credits_consistency()", &[]);
        assert!(
            names.iter().any(|detail| detail.contains("payment cs_1 has a worth")),
            "{change}: {names:?}"
        );
        c.run("rollback");
    }
}

#[test]
fn ledger_rows_of_nothing_and_of_no_kind_are_refused() {
    let db = Database::with_catalog();
    let mut c = db.connect();
    let insert = |(column, value): (&str, &str)| {
        let mut row = [
            ("id", "99"),
            ("operation_id", "99"),
            ("transaction_type", "'bonus'"),
            ("amount", "1"),
            ("pool", "'promotional'"),
            ("grant_id", "1"),
        ];
        for (name, kept) in &mut row {
            if *name == column {
                *kept = value;
            }
        }
        let [names, values] = [row.map(|(name, _)| name), row.map(|(_, value)| value)];
        format!(
            "insert into billing.credit_transactions (user_id, balance_after, created_at, recorded_at, hash, {})
             values ('{ANN}', 1, now(), now(), '', {})",
            names.join(", "),
            values.join(", ")
        )
    };
    for fault in LEDGER {
        let refusal = c.refusal(&insert(*fault));
        assert_eq!(refusal.code, "23514", "{fault:?}: {refusal:?}");
    }
    c.run(&format!("begin; {}; rollback", insert(("amount", "1"))));
    // What two columns must not say together is found.
    for (change, fault) in [
        (("operation_id", "100"), "ledger row 99 is of operation 100, which begins later"),
        (("pool", "null"), "ledger row 99 names a pool and no grant, or a grant and no pool"),
        (("grant_id", "null"), "ledger row 99 names a pool and no grant, or a grant and no pool"),
    ] {
        c.run(&format!("begin; {}", insert(change)));
        let names: Vec<String> = c.column("select detail from billing.validate_credits_consistency()", &[]);
        assert!(names.iter().any(|detail| detail.contains(fault)), "{change:?}: {names:?}");
        c.run("rollback");
    }
}
