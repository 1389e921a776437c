//! Constraints and triggers: a superuser tries to break each of them.

use stripe_credits_tests::{ANN, Database, paid_pack};

/// What the grant of a pack, of which nothing was drawn, must not be changed to.
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
    "amount = -1",
    "amount = amount - 1",
    "drawn = 1",
    "moved = 1",
    "moved = -1",
    "remaining = amount + 1",
    "pending = 1",
    "set_aside = 1",
    "expired = 1",
    "settled = 1",
    "owed = 1",
    "remaining = 0, drawn = amount, settled = amount + 1",
    "remaining = 0, drawn = amount, owed = 1",
    "stripe_subscription_id = 'sub_1'",
    "stripe_subscription_id = 'sub_1', period_start = now()",
    "stripe_subscription_id = 'sub_1', period_end = now()",
    "period_start = now(), period_end = now()",
    "stripe_item_id = 'si_1'",
    "part_start = now()",
];

const ACCOUNTS: &[&str] =
    &["subscription_credits = -1", "purchased_credits = -1", "promotional_credits = -1", "debt = -1"];

/// Columns of a ledger row as they may be, and each with a value that it must not have.
const LEDGER: &[(&str, &str)] = &[
    ("id", "0"),
    ("operation_id", "0"),
    ("operation_id", "100"),
    ("transaction_type", "'gift'"),
    ("amount", "0"),
    ("pool", "'debt'"),
    ("pool", "null"),
    ("grant_id", "null"),
];

#[test]
fn grants_and_accounts_that_do_not_add_up_are_refused() {
    let db = Database::with_catalog();
    let mut c = db.connect();
    assert_eq!(c.apply(&paid_pack("cs_1", ANN).completed("evt_1")).summary(), "applied");
    for (table, changes) in [("credit_grants", GRANTS), ("accounts", ACCOUNTS)] {
        for change in changes {
            let fault = c.refusal(&format!("update billing.{table} set {change}"));
            assert_eq!(fault.code, "23514", "{change}: {fault:?}");
        }
    }
    // What may be, so that it is not the statement that is refused.
    for change in [
        "remaining = 0, drawn = amount, settled = amount",
        "remaining = amount - 1, drawn = 2, moved = -1",
        "remaining = 0, amount = -1, owed = 1",
        "stripe_subscription_id = 'sub_1', stripe_item_id = 'si_1', period_start = now(), period_end = now()",
    ] {
        c.run(&format!("begin; update billing.credit_grants set {change}; rollback"));
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
            "insert into billing.credit_transactions (user_id, balance_after, created_at, hash, {}) values ('{ANN}', 1, now(), '', {})",
            names.join(", "),
            values.join(", ")
        )
    };
    for fault in LEDGER {
        let refusal = c.refusal(&insert(*fault));
        assert_eq!(refusal.code, "23514", "{fault:?}: {refusal:?}");
    }
    c.run(&format!("begin; {}; rollback", insert(("amount", "1"))));
}
