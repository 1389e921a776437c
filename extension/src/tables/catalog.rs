//! Tables `settings` and `prices`: what `load_catalog` writes and every door reads.

use std::collections::BTreeMap;

use pgrx::datum::TimestampWithTimeZone;
use stripe_credits_rules::calendar::Time;
use stripe_credits_rules::catalog::{
    Cancellation, Catalog, Change, FreePlan, Item, NoPaymentRequired, PlanChange, Price, PriceKind, Renewal,
    ReversalPolicy, Scope, Settings, Stored, changes,
};

use crate::pg::convert::{clock, timestamp};
use crate::pg::sql::{Row, Sql};

/// The settings, or `None` before the first catalog.
pub(crate) fn settings(sql: &mut Sql) -> Option<Settings> {
    sql.query_opt(
        "select livemode, stripe_account, signup_credits, reversal_policy, no_payment_required,
                free_plan_key, free_plan_name, free_plan_credits, free_plan_every
         from billing.settings",
        &[],
    )
    .map(|mut row| Settings {
        scope: Scope { livemode: row.get(), stripe_account: row.get_opt() },
        signup_credits: row.get(),
        reversal_policy: row.parse(ReversalPolicy::parse),
        no_payment_required: row.parse(NoPaymentRequired::parse),
        free_plan: row.get_opt().map(|key| FreePlan {
            key,
            name: row.get_opt(),
            credits: row.get(),
            every: row.get(),
        }),
    })
}

/// The columns that [`price`] reads, in its order.
macro_rules! price_columns {
    () => {
        "price_id, kind, key, name, credits, rank, drip, renewal, max_rollover, plan_change, cancellation, \
         trial_credits, first_purchase_bonus, expires_after"
    };
}

/// The row in force at $2 among those found: before a price's first row, its first.
macro_rules! in_force {
    () => {
        " order by valid_from <= $2 desc, case when valid_from <= $2 then valid_from end desc, valid_from, price_id limit 1"
    };
}

/// What each item was worth at a time. A pack's key stands for the first of its prices.
pub(crate) fn prices_in_force<'a>(
    sql: &mut Sql,
    items: impl IntoIterator<Item = &'a Item>,
    at: Time,
) -> BTreeMap<Item, Price> {
    const BY_ID: &str =
        concat!("select ", price_columns!(), " from billing.prices where price_id = $1", in_force!());
    const BY_KEY: &str = concat!(
        "select ",
        price_columns!(),
        " from billing.prices where key = $1 and kind = 'pack'",
        in_force!()
    );
    let mut prices = BTreeMap::new();
    for item in items {
        let (statement, named) = match item {
            Item::Price(price_id) => (BY_ID, price_id),
            Item::Pack(key) => (BY_KEY, key),
            Item::Unpriced => continue,
        };
        let row = sql.query_opt(statement, &[named.as_str().into(), timestamp(at).into()]);
        prices.extend(row.map(|mut row| (item.clone(), price(&mut row))));
    }
    prices
}

/// Makes the tables say what the catalog says. The caller holds the catalog's lock alone.
pub(crate) fn load(sql: &mut Sql, catalog: &Catalog) -> Vec<(String, Change)> {
    let now = timestamp(clock());
    save_settings(sql, &catalog.settings, now);
    let mut answer = Vec::new();
    for (price_id, (change, wanted)) in changes(&stored(sql), &catalog.prices) {
        if change != Change::Unchanged {
            save_price(sql, &wanted, now);
        }
        answer.push((price_id, change));
    }
    answer
}

fn stored(sql: &mut Sql) -> BTreeMap<String, Stored> {
    let rows = sql.query(
        concat!(
            "select distinct on (price_id) ",
            price_columns!(),
            ", retired from billing.prices order by price_id, valid_from desc"
        ),
        &[],
    );
    rows.map(|mut row| {
        let price = price(&mut row);
        (price.price_id.clone(), Stored { price, retired: row.get() })
    })
    .collect()
}

fn price(row: &mut Row) -> Price {
    Price {
        price_id: row.get(),
        kind: row.parse(PriceKind::parse),
        key: row.get(),
        name: row.get(),
        credits: row.get(),
        rank: row.get(),
        drip: row.get_opt(),
        renewal: row.parse(Renewal::parse),
        max_rollover: row.get(),
        plan_change: row.parse(PlanChange::parse),
        cancellation: row.parse(Cancellation::parse),
        trial_credits: row.get(),
        first_purchase_bonus: row.get(),
        expires_after: row.get_opt(),
    }
}

fn save_settings(sql: &mut Sql, settings: &Settings, now: TimestampWithTimeZone) {
    let free = settings.free_plan.as_ref();
    sql.execute(
        "insert into billing.settings (livemode, stripe_account, signup_credits, reversal_policy,
             no_payment_required, free_plan_key, free_plan_name, free_plan_credits, free_plan_every, loaded_at)
         values ($1, $2, $3, $4, $5, $6, $7, $8, $9::interval, $10)
         on conflict (singleton) do update set
             (livemode, stripe_account, signup_credits, reversal_policy, no_payment_required,
              free_plan_key, free_plan_name, free_plan_credits, free_plan_every, loaded_at)
             = (excluded.livemode, excluded.stripe_account, excluded.signup_credits, excluded.reversal_policy,
                excluded.no_payment_required, excluded.free_plan_key, excluded.free_plan_name,
                excluded.free_plan_credits, excluded.free_plan_every, excluded.loaded_at)",
        &[
            settings.scope.livemode.into(),
            settings.scope.stripe_account.as_deref().into(),
            settings.signup_credits.0.into(),
            settings.reversal_policy.as_str().into(),
            settings.no_payment_required.as_str().into(),
            free.map(|free| free.key.as_str()).into(),
            free.map(|free| free.name.as_deref().unwrap_or(&free.key)).into(),
            free.map(|free| free.credits.0).into(),
            free.map(|free| free.every.to_string()).into(),
            now.into(),
        ],
    );
}

/// A new row in force from now on, or from just after the row before it where the clock has not moved.
fn save_price(sql: &mut Sql, wanted: &Stored, now: TimestampWithTimeZone) {
    let price = &wanted.price;
    sql.execute(
        "insert into billing.prices (price_id, valid_from, kind, key, name, credits, rank, drip, renewal,
             max_rollover, plan_change, cancellation, trial_credits, first_purchase_bonus, expires_after, retired)
         select $1, greatest($2, max(p.valid_from) + interval '1 microsecond'), $3, $4, $5, $6, $7, $8::interval,
             $9, $10, $11, $12, $13, $14, $15::interval, $16
         from billing.prices p where p.price_id = $1",
        &[
            price.price_id.as_str().into(),
            now.into(),
            price.kind.as_str().into(),
            price.key.as_str().into(),
            price.name.as_str().into(),
            price.credits.0.into(),
            price.rank.into(),
            price.drip.map(|span| span.to_string()).into(),
            price.renewal.as_str().into(),
            price.max_rollover.0.into(),
            price.plan_change.as_str().into(),
            price.cancellation.as_str().into(),
            price.trial_credits.0.into(),
            price.first_purchase_bonus.0.into(),
            price.expires_after.map(|span| span.to_string()).into(),
            wanted.retired.into(),
        ],
    );
}
