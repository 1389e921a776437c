//! Tables `settings` and `prices`, which only `load_catalog` writes.

use std::collections::BTreeMap;

use pgrx::datum::TimestampWithTimeZone;
use stripe_credits_rules::calendar::Time;
use stripe_credits_rules::catalog::{
    Cancellation, Catalog, Change, FreePlan, Item, Names, NoPaymentRequired, PlanChange, Price, PriceKind,
    Renewal, ReversalPolicy, Scope, Settings, Stored, changes,
};

use crate::pg::convert::{clock, timestamp, uuid_datum};
use crate::pg::sql::{Row, Sql};

/// The settings, or `None` before the first catalog.
pub(crate) fn settings(sql: &mut Sql) -> Option<Settings> {
    sql.query_opt(
        "select livemode, stripe_account, begins_at, signup_credits, reversal_policy, no_payment_required,
                user_namespace, free_plan_key, free_plan_name, free_plan_credits, free_plan_every
         from billing.settings",
        &[],
    )
    .map(|mut row| Settings {
        scope: Scope { livemode: row.get(), stripe_account: row.get_opt(), begins_at: row.get_opt() },
        signup_credits: row.get(),
        reversal_policy: row.parse(ReversalPolicy::parse),
        no_payment_required: row.parse(NoPaymentRequired::parse),
        user_namespace: row.get_opt(),
        free_plan: row.get_opt().map(|key| FreePlan {
            key,
            name: row.get_opt(),
            credits: row.get(),
            every: row.get(),
        }),
    })
}

/// When the catalog was loaded last, the same one again included.
pub(crate) fn loaded_at(sql: &mut Sql) -> Option<Time> {
    sql.query_opt("select loaded_at from billing.settings", &[]).map(|mut row| row.get())
}

/// The columns that [`price`] reads, in its order.
macro_rules! price_columns {
    () => {
        "price_id, names, kind, key, name, credits, rank, every, drip, renewal, max_rollover, plan_change, cancellation, \
         trial_credits, first_purchase_bonus, expires_after"
    };
}

/// The kinds that an invoice's line may be of.
const ANY_KIND: &[PriceKind] = &[PriceKind::Plan, PriceKind::Pack, PriceKind::NotCredits];

/// The kinds that a payment may be for which no subscription is.
const SOLD_ONCE: &[PriceKind] = &[PriceKind::Pack, PriceKind::NotCredits];

/// The price of each item at a time, for an invoice's lines or a subscription. A pack's key stands for its newest price
/// that was on sale.
pub(crate) fn prices_in_force<'a>(
    sql: &mut Sql,
    items: impl IntoIterator<Item = &'a Item>,
    at: Time,
) -> BTreeMap<Item, Price> {
    prices_of_kinds(sql, items, at, ANY_KIND)
}

/// The price of each item at a time, for a payment without a subscription: what was listed as a plan then, and is
/// listed as a pack or `not_credits` since, was that all along.
pub(crate) fn prices_sold_once<'a>(
    sql: &mut Sql,
    items: impl IntoIterator<Item = &'a Item>,
    at: Time,
) -> BTreeMap<Item, Price> {
    prices_of_kinds(sql, items, at, SOLD_ONCE)
}

fn prices_of_kinds<'a>(
    sql: &mut Sql,
    items: impl IntoIterator<Item = &'a Item>,
    at: Time,
    kinds: &[PriceKind],
) -> BTreeMap<Item, Price> {
    let mut found = BTreeMap::new();
    for item in items {
        let price = match item {
            // Who names an id alone may mean either.
            Item::Price(id) => {
                of_id(sql, id, &[Names::Price, Names::Product], at, kinds).map(|found| found.price)
            }
            Item::Line { price, product } => of_line(sql, price, product, at, kinds),
            Item::Pack(key) => of_pack(sql, key, at),
            Item::Unpriced => None,
        };
        found.extend(price.map(|price| (item.clone(), price)));
    }
    found
}

/// A row found for a time.
struct Found {
    price: Price,
    retired: bool,
    /// Whether it was in force at that time, and does not only stand for the time before it.
    in_force: bool,
}

/// The price's own row, else its product's. A retired price gives way to a product that was on sale then: the founder
/// has put all of the product's prices in the price's place.
fn of_line(sql: &mut Sql, price_id: &str, product_id: &str, at: Time, kinds: &[PriceKind]) -> Option<Price> {
    let own = of_id(sql, price_id, &[Names::Price], at, kinds);
    if own.as_ref().is_some_and(|own| !own.retired) {
        return own.map(|own| own.price);
    }
    let of_product = of_id(sql, product_id, &[Names::Product], at, kinds);
    let replaces = own.is_none() || of_product.as_ref().is_some_and(|found| found.in_force && !found.retired);
    let chosen = if replaces { of_product } else { own };
    chosen.map(|found| found.price)
}

/// When the rows of a price and of its product change, in order: between two of these times, [`prices_in_force`] says the
/// same of a line.
pub(crate) fn changes_of(sql: &mut Sql, price_id: Option<&str>, product_id: Option<&str>) -> Vec<Time> {
    let rows = sql.query(
        "select valid_from from billing.prices where price_id in ($1, $2) order by valid_from",
        &[price_id.into(), product_id.into()],
    );
    rows.map(|mut row| row.get()).collect()
}

/// The row of an id in force at a time; before its first row, that one. If its kind does not fit, the first later row
/// whose kind does, because what was wrong when it was sold can be corrected since.
fn of_id(sql: &mut Sql, id: &str, names: &[Names], at: Time, kinds: &[PriceKind]) -> Option<Found> {
    let names: Vec<&str> = names.iter().map(|names| names.as_str()).collect();
    let kinds: Vec<&str> = kinds.iter().map(|kind| kind.as_str()).collect();
    sql.query_opt(
        concat!(
            "select ",
            price_columns!(),
            ", retired, valid_from <= $2 from billing.prices
             where price_id = $1 and names = any ($3) and valid_from >= coalesce(
                 (select max(p.valid_from) from billing.prices p where p.price_id = $1 and p.valid_from <= $2),
                 '-infinity')
             order by kind = any ($4) desc, valid_from
             limit 1"
        ),
        &[id.into(), timestamp(at).into(), names.into(), kinds.into()],
    )
    .map(|mut row| Found { price: price(&mut row), retired: row.get(), in_force: row.get() })
}

/// The newest price of a pack that was on sale; one that is on sale since, rather than one that was retired then.
fn of_pack(sql: &mut Sql, key: &str, at: Time) -> Option<Price> {
    sql.query_opt(
        concat!(
            "select ", price_columns!(), " from billing.prices p
             where key = $1 and kind = 'pack' and not exists (
                 select from billing.prices q
                 where q.price_id = p.price_id and q.valid_from > p.valid_from and q.valid_from <= $2)
             order by retired, valid_from <= $2 desc, case when valid_from <= $2 then valid_from end desc, valid_from,
                 price_id
             limit 1"
        ),
        &[key.into(), timestamp(at).into()],
    )
    .map(|mut row| price(&mut row))
}

/// Stores a catalog, and returns how each price changed. The caller holds the catalog's lock exclusively.
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
        names: row.parse(Names::parse),
        kind: row.parse(PriceKind::parse),
        key: row.get(),
        name: row.get(),
        credits: row.get(),
        rank: row.get(),
        every: row.get(),
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
             no_payment_required, free_plan_key, free_plan_name, free_plan_credits, free_plan_every, loaded_at,
             begins_at, user_namespace)
         values ($1, $2, $3, $4, $5, $6, $7, $8, $9::interval, $10, $11, $12)
         on conflict (singleton) do update set
             (livemode, stripe_account, begins_at, signup_credits, reversal_policy, no_payment_required,
              user_namespace, free_plan_key, free_plan_name, free_plan_credits, free_plan_every, loaded_at)
             = (excluded.livemode, excluded.stripe_account, excluded.begins_at, excluded.signup_credits,
                excluded.reversal_policy, excluded.no_payment_required, excluded.user_namespace, excluded.free_plan_key, excluded.free_plan_name,
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
            settings.scope.begins_at.map(timestamp).into(),
            settings.user_namespace.map(uuid_datum).into(),
        ],
    );
}

/// Inserts a price's row, in force from now on, or from just after its last row if the clock has not moved since.
fn save_price(sql: &mut Sql, wanted: &Stored, now: TimestampWithTimeZone) {
    let price = &wanted.price;
    sql.execute(
        "insert into billing.prices (price_id, valid_from, kind, key, name, credits, rank, drip, renewal,
             max_rollover, plan_change, cancellation, trial_credits, first_purchase_bonus, expires_after, retired,
             names, every)
         select $1, greatest($2, max(p.valid_from) + interval '1 microsecond'), $3, $4, $5, $6, $7, $8::interval,
             $9, $10, $11, $12, $13, $14, $15::interval, $16, $17, $18::interval
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
            price.names.as_str().into(),
            price.every.to_string().into(),
        ],
    );
}
