//! The hash of each ledger row: over the row itself and over the hash of the row before it of that user. The account keeps the
//! last one. Whoever changes, removes or inserts a row behind the ledger's back would have to change all later ones and the
//! account too, and then differs from every copy of a hash that was noted elsewhere.

use sha2::{Digest as _, Sha256};
use stripe_credits_rules::calendar::Time;
use uuid::Uuid;

use super::Fault;
use crate::pg::convert::uuid_datum;
use crate::pg::json::Json;
use crate::pg::sql::{Row, Sql, reading};

/// The first byte of what is hashed: which encoding follows.
const ENCODING: u8 = 1;

/// Stands for the length of a null.
const NULL: u32 = u32::MAX;

/// How many rows are in memory at a time while all are checked.
const ROWS_AT_A_TIME: i64 = 10_000;

/// The hash of a ledger row.
pub(super) type RowHash = Vec<u8>;

/// A ledger row, without its hash.
pub(super) struct LedgerRow<'a> {
    pub(super) user: Uuid,
    pub(super) id: i64,
    pub(super) operation_id: i64,
    pub(super) transaction_type: &'a str,
    pub(super) amount: i64,
    pub(super) grant_id: Option<i64>,
    pub(super) pool: Option<&'a str>,
    pub(super) balance_after: i64,
    pub(super) description: Option<&'a str>,
    /// As Postgres stores it.
    pub(super) metadata: Option<&'a [u8]>,
    pub(super) stripe_event_id: Option<&'a str>,
    pub(super) stripe_checkout_session_id: Option<&'a str>,
    pub(super) stripe_payment_intent_id: Option<&'a str>,
    pub(super) stripe_invoice_id: Option<&'a str>,
    pub(super) request_id: Option<&'a str>,
    pub(super) created_at: Time,
    pub(super) recorded_at: Time,
}

impl LedgerRow<'_> {
    /// SHA-256 over the version of the encoding, the hash of the row before (empty for the first row) and all columns in the
    /// table's order. Each has its length in front, as four bytes, or that of a null; numbers are eight bytes, times are
    /// microseconds since 1970; all big-endian.
    pub(super) fn hash(&self, previous: &[u8]) -> RowHash {
        let mut hash = Encoder(Sha256::new());
        hash.0.update([ENCODING]);
        hash.bytes(previous);
        hash.bytes(self.user.as_bytes());
        hash.number(self.id);
        hash.number(self.operation_id);
        hash.bytes(self.transaction_type.as_bytes());
        hash.number(self.amount);
        hash.opt(self.grant_id.map(i64::to_be_bytes).as_ref().map(<[u8; 8]>::as_slice));
        hash.text(self.pool);
        hash.number(self.balance_after);
        hash.text(self.description);
        hash.opt(self.metadata);
        hash.text(self.stripe_event_id);
        hash.text(self.stripe_checkout_session_id);
        hash.text(self.stripe_payment_intent_id);
        hash.text(self.stripe_invoice_id);
        hash.text(self.request_id);
        hash.number(self.created_at.timestamp_micros());
        hash.number(self.recorded_at.timestamp_micros());
        hash.0.finalize().to_vec()
    }
}

struct Encoder(Sha256);

impl Encoder {
    fn bytes(&mut self, bytes: &[u8]) {
        let length = u32::try_from(bytes.len()).expect("a value of Postgres is shorter than 1 GB");
        self.0.update(length.to_be_bytes());
        self.0.update(bytes);
    }

    fn opt(&mut self, bytes: Option<&[u8]>) {
        match bytes {
            Some(bytes) => self.bytes(bytes),
            None => self.0.update(NULL.to_be_bytes()),
        }
    }

    fn text(&mut self, text: Option<&str>) {
        self.opt(text.map(str::as_bytes));
    }

    fn number(&mut self, number: i64) {
        self.bytes(&number.to_be_bytes());
    }
}

/// Of all users: the ledger rows whose hash is not that of the row and the one before it, and the last ones that the account
/// does not name.
pub(crate) fn chain_faults() -> Vec<Fault> {
    let (mut faults, mut last) = (Vec::new(), Checked { user: Uuid::nil(), id: 0, hash: RowHash::new() });
    loop {
        let batch = reading(|sql| check_batch(sql, &last, &mut faults));
        let Some(checked) = batch else { return faults };
        last = checked;
    }
}

/// The last row that was checked.
struct Checked {
    user: Uuid,
    id: i64,
    hash: RowHash,
}

/// Checks the next rows. Returns the last of them, if there are any.
fn check_batch(sql: &mut Sql, after: &Checked, faults: &mut Vec<Fault>) -> Option<Checked> {
    let rows = sql.query(
        "select t.user_id, t.id, t.operation_id, t.transaction_type, t.amount, t.grant_id, t.pool, t.balance_after,
                t.description, t.metadata, t.stripe_event_id, t.stripe_checkout_session_id, t.stripe_payment_intent_id,
                t.stripe_invoice_id, t.request_id, t.created_at, t.recorded_at, t.hash,
                case when a.last_transaction_id = t.id then a.last_hash end
         from (
             select * from billing.credit_transactions where (user_id, id) > ($1, $2) order by user_id, id limit $3
         ) t left join billing.accounts a using (user_id)
         order by t.user_id, t.id",
        &[uuid_datum(after.user).into(), after.id.into(), ROWS_AT_A_TIME.into()],
    );
    let mut last: Option<Checked> = None;
    for mut row in rows {
        let before = last.as_ref().unwrap_or(after);
        let checked = check(&mut row, before, faults);
        last = Some(checked);
    }
    last
}

fn check(row: &mut Row, before: &Checked, faults: &mut Vec<Fault>) -> Checked {
    let (user, id, operation_id): (Uuid, i64, i64) = (row.get(), row.get(), row.get());
    let transaction_type: String = row.get();
    let (amount, grant_id, pool): (i64, Option<i64>, Option<String>) =
        (row.get(), row.get_opt(), row.get_opt());
    let (balance_after, description): (i64, Option<String>) = (row.get(), row.get_opt());
    let metadata = row.get_opt().map(Json::bytes);
    let mut text = || row.get_opt::<String>();
    let (event_id, session_id, intent_id) = (text(), text(), text());
    let (invoice_id, request_id) = (text(), text());
    let ledger_row = LedgerRow {
        user,
        id,
        operation_id,
        transaction_type: &transaction_type,
        amount,
        grant_id,
        pool: pool.as_deref(),
        balance_after,
        description: description.as_deref(),
        metadata: metadata.as_deref(),
        stripe_event_id: event_id.as_deref(),
        stripe_checkout_session_id: session_id.as_deref(),
        stripe_payment_intent_id: intent_id.as_deref(),
        stripe_invoice_id: invoice_id.as_deref(),
        request_id: request_id.as_deref(),
        created_at: row.get(),
        recorded_at: row.get(),
    };
    let hash: RowHash = row.get();
    let noted: Option<RowHash> = row.get_opt();
    let previous: &[u8] = if before.user == user { &before.hash } else { &[] };
    let mut fault = |text| faults.push(Fault { user, place: id, text });
    if hash != ledger_row.hash(previous) {
        fault(format!("ledger row {id}: its hash is not that of the row and the one before it"));
    }
    if noted.is_some_and(|noted| noted != hash) {
        fault(format!("ledger row {id}: by the account the last hash is another"));
    }
    Checked { user, id, hash }
}
