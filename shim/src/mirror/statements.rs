//! What is run in the mirror. Accounts come as `billing.mirror_rows` returns them, an array of JSON, and are read there as rows
//! of the mirror's own tables, by the names of their columns.

/// The columns of `user_credits` and of `credit_transactions`, with their types: those of the views in `billing_fdw`.
pub(crate) const CREDITS: [(&str, &str); 18] = [
    ("user_id", "uuid primary key"),
    ("subscription_tier", "text not null"),
    ("subscription_status", "text not null"),
    ("credits_balance", "bigint not null"),
    ("subscription_credits_balance", "bigint not null"),
    ("purchased_credits_balance", "bigint not null"),
    ("promotional_credits_balance", "bigint not null"),
    ("monthly_credits_per_cycle", "bigint not null"),
    ("monthly_credits_used", "bigint not null"),
    ("bonus_credits_total", "bigint not null"),
    ("bonus_credits_used", "bigint not null"),
    ("cycle_start_at", "timestamptz"),
    ("cycle_end_at", "timestamptz"),
    ("debt", "bigint not null"),
    ("stripe_customer_id", "text"),
    ("stripe_subscription_id", "text"),
    ("stripe_price_id", "text"),
    ("version", "bigint not null"),
];
pub(crate) const TRANSACTIONS: [(&str, &str); 16] = [
    ("user_id", "uuid not null"),
    ("id", "bigint not null"),
    ("operation_id", "bigint not null"),
    ("transaction_type", "text not null"),
    ("amount", "bigint not null"),
    ("grant_id", "bigint"),
    ("pool", "text"),
    ("balance_after", "bigint not null"),
    ("description", "text"),
    ("metadata", "jsonb"),
    ("stripe_event_id", "text"),
    ("stripe_checkout_session_id", "text"),
    ("stripe_payment_intent_id", "text"),
    ("stripe_invoice_id", "text"),
    ("request_id", "text"),
    ("created_at", "timestamptz not null"),
];

/// The statements, as texts.
pub(super) struct Sql {
    /// Writes accounts ($1) of which the mirror has a lower version or none, and removes forgotten users. Returns of how many
    /// it has a higher version.
    pub(super) write: String,
    /// Lists what accounts ($1) and the mirror's rows after a user ($2) up to a user ($3), or of some users ($4), differ in.
    pub(super) differences: String,
    /// Writes accounts ($1) of users ($2) of which the mirror still has these versions ($3). Returns how many.
    pub(super) repair: String,
}

impl Sql {
    pub(super) fn new() -> Self {
        Self { write: write(), differences: differences(), repair: repair() }
    }
}

fn names(columns: &[(&'static str, &str)], table: &str) -> String {
    let names: Vec<String> = columns.iter().map(|(name, _)| format!("{table}{name}")).collect();
    names.join(", ")
}

/// The accounts of $1.
const INCOMING: &str = "incoming as materialized (
    select (i.value ->> 'user_id')::uuid as user_id, (i.value ->> 'is_forgotten')::boolean as is_forgotten,
        (i.value ->> 'version')::bigint as version, (i.value ->> 'waits_seconds')::float8 as waits_seconds,
        -- A forgotten user has neither.
        nullif(i.value -> 'credits', 'null') as credits, nullif(i.value -> 'transactions', 'null') as transactions
    from jsonb_array_elements(($1::text)::jsonb) i
)";

/// Writes the rows of `user_credits` of incoming accounts, if `condition` holds of the row `m` that is there.
fn written(condition: &str) -> String {
    let (all, incoming) = (names(&CREDITS, ""), names(&CREDITS, "r."));
    let excluded = names(&CREDITS, "excluded.");
    format!(
        "written as (
             insert into billing_mirror.user_credits as m ({all}, mirrored_at)
             select {incoming}, clock_timestamp()
             from incoming i
             cross join lateral jsonb_populate_record(null::billing_mirror.user_credits, i.credits) r
             where not i.is_forgotten
             order by i.user_id
             on conflict (user_id) do update set ({all}, mirrored_at) = ({excluded}, excluded.mirrored_at)
             where {condition}
             returning m.user_id
         )"
    )
}

/// Enters the ledger rows of the accounts that were written.
fn entered(on_conflict: &str) -> String {
    let (all, incoming) = (names(&TRANSACTIONS, ""), names(&TRANSACTIONS, "r."));
    format!(
        "entered as (
             insert into billing_mirror.credit_transactions as t ({all})
             select {incoming}
             from written w
             join incoming i using (user_id)
             cross join lateral jsonb_populate_recordset(
                 null::billing_mirror.credit_transactions, i.transactions) r
             on conflict (user_id, id) do {on_conflict}
         )"
    )
}

fn write() -> String {
    let (written, entered) = (written("excluded.version > m.version"), entered("nothing"));
    format!(
        "with {INCOMING}, {written}, {entered}, too_old as (
             delete from billing_mirror.credit_transactions t
             using written w join incoming i using (user_id)
             where t.user_id = w.user_id and t.id < coalesce(
                 (i.transactions -> 0 ->> 'id')::bigint, 9223372036854775807)
         ), forgotten as (
             delete from billing_mirror.user_credits m using incoming i where i.is_forgotten and m.user_id = i.user_id
         ), forgotten_transactions as (
             delete from billing_mirror.credit_transactions t using incoming i
             where i.is_forgotten and t.user_id = i.user_id
         )
         select count(*) from incoming i join billing_mirror.user_credits m using (user_id)
         where not i.is_forgotten and m.version > i.version"
    )
}

fn differences() -> String {
    let ledger = "coalesce((
        select jsonb_agg(to_jsonb(t) order by t.id) from billing_mirror.credit_transactions t
        where t.user_id = u.user_id), '[]')";
    format!(
        "with {INCOMING}, users as (
             select i.user_id from incoming i
             union
             select m.user_id from (
                 select c.user_id from billing_mirror.user_credits c
                 union
                 select t.user_id from billing_mirror.credit_transactions t
             ) m
             where case when $4 = '' then ($2 = '' or m.user_id > nullif($2, '')::uuid)
                 and ($3 = '' or m.user_id <= nullif($3, '')::uuid) else m.user_id = any (nullif($4, '')::uuid[]) end
         ), compared as (
             select u.user_id, i.version, m.version as mirror_version, i.waits_seconds,
                 m.user_id is not null as is_there, coalesce(not i.is_forgotten, false) as is_wanted,
                 to_jsonb(m) - 'mirrored_at' is distinct from to_jsonb(r) - 'mirrored_at' as is_other,
                 {ledger} is distinct from coalesce((
                     select jsonb_agg(to_jsonb(e) order by e.id)
                     from jsonb_populate_recordset(null::billing_mirror.credit_transactions, i.transactions) e
                 ), '[]') as has_other_rows
             from users u
             left join incoming i using (user_id)
             left join lateral jsonb_populate_record(null::billing_mirror.user_credits, i.credits) r
                 on not i.is_forgotten
             left join billing_mirror.user_credits m on m.user_id = u.user_id
         )
         select c.user_id::text,
             case when not c.is_wanted then 'surplus' when not c.is_there then 'missing'
                 when c.is_other then 'other credits' else 'other ledger rows' end,
             case when c.is_wanted then c.version end, c.mirror_version, c.waits_seconds
         from compared c
         where case when c.is_wanted then c.is_other or c.has_other_rows else c.is_there or c.has_other_rows end
         order by c.user_id"
    )
}

fn repair() -> String {
    let (all, excluded) = (names(&TRANSACTIONS, ""), names(&TRANSACTIONS, "excluded."));
    let written =
        written("m.version is not distinct from (select s.version from seen s where s.user_id = m.user_id)");
    let entered = entered(&format!("update set ({all}) = ({excluded})"));
    format!(
        "with seen as materialized (
             select s.user_id, s.version from unnest(($2::text)::uuid[], ($3::text)::bigint[]) s (user_id, version)
         ), {INCOMING}, unwanted as (
             select s.user_id, s.version from seen s
             where not exists (select from incoming i where i.user_id = s.user_id and not i.is_forgotten)
         ), {written}, {entered}, removed as (
             delete from billing_mirror.user_credits m using unwanted u
             where m.user_id = u.user_id and m.version = u.version
         ), too_old as (
             delete from billing_mirror.credit_transactions t
             using (
                 select w.user_id, i.transactions from written w join incoming i using (user_id)
                 union all
                 select u.user_id, '[]' from unwanted u
             ) k
             where t.user_id = k.user_id and not exists (
                 select from jsonb_array_elements(k.transactions) e where (e.value ->> 'id')::bigint = t.id)
         )
         select (select count(*) from written) + (select count(*) from unwanted)"
    )
}
