//! Tables `settings` and `prices`, which only `load_catalog` writes. What they say is kept per connection.

use std::collections::BTreeMap;
use std::rc::Rc;

use pgrx::datum::TimestampWithTimeZone;
use pgrx::pg_sys;
use stripe_credits_rules::amount::Credits;
use stripe_credits_rules::calendar::Time;
use stripe_credits_rules::catalog::{
    Cancellation, Catalog, Change, ExpiringDays, FreePlan, Item, Names, NoPaymentRequired, PlanChange, Price,
    PriceKind, Renewal, ReversalPolicy, Scope, Settings, Stored, changes,
};
use stripe_credits_rules::crossing::{self, Crossing};
use stripe_credits_rules::price_history::{PriceHistory, Version};
use stripe_credits_rules::top_up::AutoTopUp;

use crate::pg::cached::Cached;
use crate::pg::convert::{clock, timestamp, uuid_datum};
use crate::pg::json::Json;
use crate::pg::sql::{Row, Sql};

thread_local! {
    static SETTINGS: Cached<Settings> = const { Cached::new() };
    static PRICES: Cached<PriceHistory> = const { Cached::new() };
}

/// The settings, or `None` before the first catalog.
pub(crate) fn settings(sql: &mut Sql) -> Option<Settings> {
    let settings = SETTINGS.with(|cached| cached.get(|| read_settings(sql)))?;
    Some(Settings::clone(&settings))
}

/// What a change of the balance of a user of a tier crosses, by the catalog's thresholds.
pub(crate) fn crossing(sql: &mut Sql, tier: &str, before: Credits, after: Credits) -> Option<Crossing> {
    let settings = SETTINGS.with(|cached| cached.get(|| read_settings(sql)));
    let thresholds = settings.as_ref().map_or(&[][..], |settings| settings.low_credits.of(tier));
    crossing::crossing(thresholds, before, after)
}

/// What is bought for users who allow it, when their credits run low.
pub(crate) fn auto_top_up(sql: &mut Sql) -> Option<AutoTopUp> {
    SETTINGS.with(|cached| cached.get(|| read_settings(sql)))?.auto_top_up.clone()
}

/// When the catalog was loaded last, the same one again included.
pub(crate) fn loaded_at(sql: &mut Sql) -> Option<Time> {
    sql.query_opt("select loaded_at from billing.settings", &[]).map(|mut row| row.get())
}

/// The price of each item at a time, for an invoice's lines or a subscription.
pub(crate) fn prices_in_force<'a>(
    sql: &mut Sql,
    items: impl IntoIterator<Item = &'a Item>,
    at: Time,
) -> BTreeMap<Item, Price> {
    let history = history(sql);
    items.into_iter().filter_map(|item| Some((item.clone(), history.in_force(item, at)?.clone()))).collect()
}

/// The price of each item at a time, for a payment without a subscription.
pub(crate) fn prices_sold_once<'a>(
    sql: &mut Sql,
    items: impl IntoIterator<Item = &'a Item>,
    at: Time,
) -> BTreeMap<Item, Price> {
    let history = history(sql);
    items.into_iter().filter_map(|item| Some((item.clone(), history.sold_once(item, at)?.clone()))).collect()
}

/// When the rows of a price and of its product change, in order: between two of these times, [`prices_in_force`] says the
/// same of a line.
pub(crate) fn changes_of(sql: &mut Sql, price_id: Option<&str>, product_id: Option<&str>) -> Vec<Time> {
    history(sql).changes_of([price_id, product_id].into_iter().flatten())
}

fn history(sql: &mut Sql) -> Rc<PriceHistory> {
    PRICES.with(|cached| cached.get(|| read_prices(sql))).unwrap_or_default()
}

fn read_settings(sql: &mut Sql) -> Option<(pg_sys::Oid, Settings)> {
    let mut row = sql.query_opt(
        "select tableoid, livemode, stripe_account, begins_at, signup_credits, reversal_policy, no_payment_required,
                user_namespace, free_plan_key, free_plan_name, free_plan_credits, free_plan_every, low_credits::text,
                expiring_days, auto_top_up::text
         from billing.settings",
        &[],
    )?;
    let table = row.get();
    let settings = Settings {
        scope: Scope { livemode: row.get(), stripe_account: row.get_opt(), begins_at: row.get_opt() },
        signup_credits: row.get(),
        reversal_policy: row.parse(ReversalPolicy::parse),
        no_payment_required: row.parse(NoPaymentRequired::parse),
        user_namespace: row.get_opt(),
        free_plan: free_plan(&mut row),
        low_credits: serde_json::from_str(&row.get::<String>()).expect("only load_catalog writes it"),
        expiring_days: row.get_opt().and_then(|days: i32| ExpiringDays::new(days.into())),
        auto_top_up: row
            .get_opt()
            .map(|text: String| serde_json::from_str(&text).expect("only load_catalog writes it")),
    };
    Some((table, settings))
}

fn free_plan(row: &mut Row) -> Option<FreePlan> {
    let columns = (row.get_opt(), row.get_opt(), row.get_opt(), row.get_opt());
    let (Some(key), name, Some(credits), Some(every)) = columns else { return None };
    Some(FreePlan { key, name, credits, every })
}

fn read_prices(sql: &mut Sql) -> Option<(pg_sys::Oid, PriceHistory)> {
    let rows = sql.query(
        "select tableoid, price_id, names, kind, key, name, credits, rank, every, drip, renewal, max_rollover, plan_change,
                cancellation, trial_credits, first_purchase_bonus, expires_after, retired, valid_from
         from billing.prices",
        &[],
    );
    let mut table = None;
    let history: PriceHistory = rows
        .map(|mut row| {
            table = Some(row.get());
            let stored = Stored { price: price(&mut row), retired: row.get() };
            Version { stored, valid_from: row.get() }
        })
        .collect();
    Some((table?, history))
}

/// Stores a catalog, and returns how each price changed. The caller holds the catalog's lock exclusively.
pub(crate) fn load(sql: &mut Sql, catalog: &Catalog) -> Vec<(String, Change)> {
    let now = timestamp(clock());
    save_settings(sql, &catalog.settings, now);
    let mut answer = Vec::new();
    for (price_id, (change, wanted)) in changes(&history(sql).latest(), &catalog.prices) {
        if change != Change::Unchanged {
            save_price(sql, &wanted, now);
        }
        answer.push((price_id, change));
    }
    answer
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
    let low_credits = serde_json::to_string(&settings.low_credits).expect("its keys are text");
    let auto_top_up = settings.auto_top_up.as_ref();
    let auto_top_up = auto_top_up.map(|top_up| serde_json::to_string(top_up).expect("texts and numbers"));
    sql.execute(
        "insert into billing.settings (livemode, stripe_account, signup_credits, reversal_policy,
             no_payment_required, free_plan_key, free_plan_name, free_plan_credits, free_plan_every, loaded_at,
             begins_at, user_namespace, low_credits, expiring_days, auto_top_up)
         values ($1, $2, $3, $4, $5, $6, $7, $8, $9::interval, $10, $11, $12, $13, $14, $15)
         on conflict (singleton) do update set
             (livemode, stripe_account, begins_at, signup_credits, reversal_policy, no_payment_required,
              user_namespace, free_plan_key, free_plan_name, free_plan_credits, free_plan_every, loaded_at,
              low_credits, expiring_days, auto_top_up)
             = (excluded.livemode, excluded.stripe_account, excluded.begins_at, excluded.signup_credits,
                excluded.reversal_policy, excluded.no_payment_required, excluded.user_namespace, excluded.free_plan_key, excluded.free_plan_name,
                excluded.free_plan_credits, excluded.free_plan_every, excluded.loaded_at,
                excluded.low_credits, excluded.expiring_days, excluded.auto_top_up)",
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
            Json::from_text(&low_credits).into(),
            settings.expiring_days.map(|days| i32::from(days.get())).into(),
            auto_top_up.as_deref().map(Json::from_text).into(),
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
