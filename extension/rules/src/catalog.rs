//! The catalog: what prices are worth and which policies apply, as a JSON document that a founder writes.
//!
//! [`read`] checks all of it and names the path of the first fault. [`changes`] says what loading it would change.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::marker::PhantomData;

use chrono::{DateTime, Utc};
use serde::Deserialize;
use serde::de::{self, Deserializer, MapAccess, Visitor, value::MapAccessDeserializer};
use uuid::Uuid;

use crate::amount::Credits;
use crate::calendar::{self, MAX_PARTS, Span, Time};
use crate::crossing::{LowCredits, MAX_THRESHOLDS, Thresholds};
use crate::reason::Reason;
use crate::stripe::MAX_ID_BYTES;
use crate::text_enum::text_enum;
use crate::top_up::{AtMost, AutoTopUp};

/// A checked catalog.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Catalog {
    /// Everything that is not per price.
    pub settings: Settings,
    /// By the id of the price, or of the product that stands for all of its prices.
    pub prices: BTreeMap<String, Price>,
}

/// What applies to the whole install.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Whose events have an effect.
    pub scope: Scope,
    /// Promotional credits that a new user gets once.
    pub signup_credits: Credits,
    /// What becomes of credits that were spent before they were reversed.
    pub reversal_policy: ReversalPolicy,
    /// Whether a payment of nothing grants.
    pub no_payment_required: NoPaymentRequired,
    /// Monthly credits for users without a plan.
    pub free_plan: Option<FreePlan>,
    /// In which texts that are not UUIDs name users (rule 11); `None`: only UUIDs name users.
    pub user_namespace: Option<Uuid>,
    /// The balances of which the app wants to be told.
    pub low_credits: LowCredits,
    /// How many days ahead the app wants to be told that credits expire; `None`: never.
    pub expiring_days: Option<ExpiringDays>,
    /// What is bought for users who allow it, when their credits run low; `None`: nothing.
    pub auto_top_up: Option<AutoTopUp>,
}

/// How many days ahead the app is told that credits expire: 1 to [`ExpiringDays::MAX`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ExpiringDays(u16);

impl ExpiringDays {
    /// The longest time ahead, in days.
    pub const MAX: u16 = 366;

    /// `None` outside 1 to [`ExpiringDays::MAX`].
    #[must_use]
    pub fn new(days: i64) -> Option<ExpiringDays> {
        let days = u16::try_from(days).ok()?;
        (1..=ExpiringDays::MAX).contains(&days).then_some(ExpiringDays(days))
    }

    /// The number of days.
    #[must_use]
    pub fn get(self) -> u16 {
        self.0
    }
}

impl<'de> Deserialize<'de> for ExpiringDays {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let days = i64::deserialize(deserializer)?;
        let fault = || de::Error::custom(format!("{days} is not from 1 to {} days", ExpiringDays::MAX));
        ExpiringDays::new(days).ok_or_else(fault)
    }
}

/// What has an effect (rule 12): not a test event in a live install, not a foreign account's, and no payment that was
/// made before the books began.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scope {
    /// Whether this install takes real money: Stripe's live mode.
    pub livemode: bool,
    /// The connected account whose events have an effect; `None`: only events without an account have one.
    pub stripe_account: Option<String>,
    /// The first moment whose payments count here; those before were credited elsewhere. `None`: all count.
    pub begins_at: Option<Time>,
}

impl Scope {
    /// Why an event of this mode and account has no effect, or `None` if it may have one. Never final: it is judged
    /// again by changed settings.
    #[must_use]
    pub fn excludes(&self, livemode: bool, account: Option<&str>) -> Option<Reason> {
        if livemode != self.livemode {
            Some(Reason::Livemode)
        } else if account != self.stripe_account.as_deref() {
            Some(Reason::Account)
        } else {
            None
        }
    }

    /// Why a payment that was made at `made_at` has no effect, or `None` if it may have one. As little final as
    /// [`Scope::excludes`].
    #[must_use]
    pub fn excludes_payment(&self, made_at: Time) -> Option<Reason> {
        (self.begins_at? > made_at).then_some(Reason::BeforeBooks)
    }
}

/// One price, or all prices of one product, with the policies of the plan or pack that they sell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Price {
    /// `price_…`, or the product's id, `prod_…`, if it stands for all prices of that product.
    pub price_id: String,
    /// Which of the two `price_id` is. Merchants may choose both ids, so their spelling does not tell.
    pub names: Names,
    /// Whether it is a plan, a pack, or neither.
    pub kind: PriceKind,
    /// The catalog key of its plan or pack.
    pub key: String,
    /// For people to read.
    pub name: String,
    /// For a quantity of one.
    pub credits: Credits,
    /// Of several plans, the one with the highest rank names the tier.
    pub rank: i32,
    /// The billing interval that `credits` are for, if Stripe does not say it.
    pub every: Span,
    /// The credits of a longer period are granted in parts, one per span; `credits` is what one part holds.
    pub drip: Option<Span>,
    /// What a renewal does to the credits that are left.
    pub renewal: Renewal,
    /// The most credits that a renewal leaves.
    pub max_rollover: Credits,
    /// What a change to a smaller plan takes at once.
    pub plan_change: PlanChange,
    /// What a cancellation does to the credits that are left.
    pub cancellation: Cancellation,
    /// Granted for a trial, once per user.
    pub trial_credits: Credits,
    /// Granted on top of the first purchase, once per user.
    pub first_purchase_bonus: Credits,
    /// How long a pack's credits last.
    pub expires_after: Option<Span>,
}

/// The key by which a price is looked up.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Item {
    /// A Stripe price id, whose product is not known.
    Price(String),
    /// A Stripe price id and its product's: worth what the catalog says of the price, else of the product.
    Line {
        /// `price_…`.
        price: String,
        /// `prod_…`.
        product: String,
    },
    /// A catalog key of a pack.
    Pack(String),
    /// A line without a price id, which no catalog can know.
    Unpriced,
}

impl Item {
    /// What a line bills, by its price and, if the line says it, its product.
    #[must_use]
    pub fn line(price: String, product: Option<String>) -> Item {
        match product {
            Some(product) => Item::Line { price, product },
            None => Item::Price(price),
        }
    }

    /// What people call it: its price id, or its pack's key.
    #[must_use]
    pub fn name(&self) -> &str {
        match self {
            Item::Price(name) | Item::Line { price: name, .. } | Item::Pack(name) => name,
            Item::Unpriced => "(none)",
        }
    }
}

text_enum! {
    /// What the id of a [`Price`] names.
    #[derive(Default)]
    Names {
        /// One price.
        #[default]
        Price => "price",
        /// A product: all of its prices that the catalog does not name themselves.
        Product => "product",
    }
}
text_enum! {
    /// What a price sells.
    #[derive(Default)]
    PriceKind {
        /// A subscription's plan.
        Plan => "plan",
        /// Credits, sold once.
        #[default]
        Pack => "pack",
        /// Something else than credits.
        NotCredits => "not_credits",
    }
}
text_enum! {
    /// What becomes of credits that were spent before they were reversed.
    #[derive(Default)]
    ReversalPolicy {
        /// They are owed, and the next grant repays them.
        #[default]
        Debt => "debt",
        /// They are written off.
        Forgive => "forgive",
    }
}
text_enum! {
    /// Whether a payment of nothing, because of a 100 % discount, grants.
    #[derive(Default)]
    NoPaymentRequired {
        /// It grants as if it had been paid.
        #[default]
        Grant => "grant",
        /// It grants nothing.
        Ignore => "ignore",
    }
}
text_enum! {
    /// What a renewal does to the credits that are left of the previous period.
    #[derive(Default)]
    Renewal {
        /// They are set aside.
        #[default]
        Reset => "reset",
        /// Up to `max_rollover` of them stay.
        Rollover => "rollover",
    }
}
text_enum! {
    /// What a change to a smaller plan, by the subscription's status alone, takes of the running period.
    #[derive(Default)]
    PlanChange {
        /// At once, all but the smaller plan's credits.
        #[default]
        Reset => "reset",
        /// Nothing before the period ends.
        Keep => "keep",
    }
}
text_enum! {
    /// What becomes of a plan's credits when its subscription is canceled.
    #[derive(Default)]
    Cancellation {
        /// They stay until they are spent.
        #[default]
        Keep => "keep",
        /// They expire at the end of the period.
        Expire => "expire",
    }
}

/// Monthly credits for users without a plan.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FreePlan {
    /// The tier of a user without a plan.
    pub key: String,
    /// For people to read.
    pub name: Option<String>,
    /// Credits per span.
    pub credits: Credits,
    /// How often they are granted.
    #[serde(default = "one_month")]
    pub every: Span,
}

fn one_month() -> Span {
    Span::Months(1)
}

fn one_year() -> Span {
    Span::Months(12)
}

/// A fault of a catalog document.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{path}: {fault}")]
pub struct Fault {
    /// Such as `plans[0].prices[1].drip`.
    pub path: String,
    /// For people to read.
    pub fault: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    livemode: bool,
    stripe_account: Option<String>,
    #[serde(default)]
    signup_credits: Credits,
    #[serde(default)]
    reversal_policy: ReversalPolicy,
    #[serde(default)]
    no_payment_required: NoPaymentRequired,
    free_plan: Option<FreePlan>,
    #[serde(default, deserialize_with = "rfc3339")]
    begins_at: Option<Time>,
    user_namespace: Option<Uuid>,
    #[serde(default)]
    low_credits: Thresholds,
    expiring_days: Option<ExpiringDays>,
    auto_top_up: Option<AutoTopUpEntry>,
    #[serde(default)]
    plans: Vec<PlanEntry>,
    #[serde(default)]
    not_credits: Vec<IdOr<SoldEntry>>,
    #[serde(default)]
    packs: Vec<PackEntry>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PlanEntry {
    key: String,
    name: Option<String>,
    rank: Option<i32>,
    credits: Credits,
    prices: Vec<IdOr<PlanPriceEntry>>,
    renewal: Option<Renewal>,
    #[serde(default)]
    max_rollover: Credits,
    #[serde(default)]
    plan_change: PlanChange,
    #[serde(default)]
    cancellation: Cancellation,
    #[serde(default)]
    trial_credits: Credits,
    #[serde(default)]
    first_purchase_bonus: Credits,
    low_credits: Option<Thresholds>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PackEntry {
    key: String,
    name: Option<String>,
    credits: Credits,
    prices: Vec<IdOr<SoldEntry>>,
    expires_after: Option<Span>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct AutoTopUpEntry {
    pack: String,
    below: Credits,
    at_most: AtMost,
}

/// What is sold: a price, or all prices of a product.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SoldEntry {
    id: Option<String>,
    product: Option<String>,
}

/// A plan's price: what is sold, and how it is billed.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PlanPriceEntry {
    id: Option<String>,
    product: Option<String>,
    every: Option<Span>,
    drip: Option<Span>,
}

impl From<&str> for SoldEntry {
    fn from(price_id: &str) -> SoldEntry {
        SoldEntry { id: Some(price_id.to_owned()), product: None }
    }
}

impl From<&str> for PlanPriceEntry {
    fn from(price_id: &str) -> PlanPriceEntry {
        PlanPriceEntry { id: Some(price_id.to_owned()), product: None, every: None, drip: None }
    }
}

/// An entry that may be written as its price's id.
struct IdOr<T>(T);

/// By hand, so that a fault inside the object keeps its path; serde's untagged enums lose it.
impl<'de, T: Deserialize<'de> + for<'a> From<&'a str>> Deserialize<'de> for IdOr<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct IdOrObject<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de> + for<'a> From<&'a str>> Visitor<'de> for IdOrObject<T> {
            type Value = IdOr<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a price id, or an object with id or product")
            }

            fn visit_str<E: de::Error>(self, id: &str) -> Result<IdOr<T>, E> {
                Ok(IdOr(T::from(id)))
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<IdOr<T>, A::Error> {
                T::deserialize(MapAccessDeserializer::new(map)).map(IdOr)
            }
        }
        deserializer.deserialize_any(IdOrObject(PhantomData))
    }
}

/// A time such as `"2026-01-01T00:00:00Z"`, to the second: Stripe's times have no fractions.
fn rfc3339<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Time>, D::Error> {
    let Some(text) = Option::<String>::deserialize(deserializer)? else { return Ok(None) };
    let time = DateTime::parse_from_rfc3339(&text).ok().map(|time| time.with_timezone(&Utc));
    let in_bounds = time.filter(|time| calendar::from_unix(time.timestamp()) == Some(*time));
    let fault = || de::Error::custom(format!("{text:?} is not a time such as \"2026-01-01T00:00:00Z\""));
    in_bounds.map(Some).ok_or_else(fault)
}

/// Reads and checks a catalog document.
///
/// # Errors
/// The first [`Fault`], with its path: a field unknown or missing or of another type, an amount that is not a whole
/// number in bounds, a price or key named twice, policies that contradict each other.
pub fn read(text: &str) -> Result<Catalog, Fault> {
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let document: Document = serde_path_to_error::deserialize(&mut deserializer).map_err(|error| {
        let path = error.path().to_string();
        // "." is the document itself, and a field without a name has no path either.
        let is_named = !matches!(path.as_str(), "" | ".");
        fault_at(if is_named { path } else { "catalog".into() }, error.into_inner().to_string())
    })?;
    deserializer.end().map_err(|error| fault_at("catalog", error.to_string()))?;
    let low_credits =
        LowCredits { default: thresholds("low_credits", document.low_credits)?, plans: BTreeMap::new() };
    let mut reader = Reader { keys: BTreeSet::new(), prices: BTreeMap::new(), low_credits };
    if let Some(free) = &document.free_plan {
        reader.key("free_plan.key", &free.key)?;
    }
    for (index, plan) in document.plans.into_iter().enumerate() {
        reader.plan(index, plan)?;
    }
    for (index, pack) in document.packs.into_iter().enumerate() {
        reader.pack(index, pack)?;
    }
    for (index, IdOr(sold)) in document.not_credits.into_iter().enumerate() {
        let name = sold.id.clone().or(sold.product.clone()).unwrap_or_default();
        let price = Price::selling(PriceKind::NotCredits, &name, &name, Credits::ZERO);
        reader.price(&format!("not_credits[{index}]"), sold, price)?;
    }
    if let Some(account) = &document.stripe_account {
        named("stripe_account", account)?;
        if document.auto_top_up.is_some() {
            // Its payments are made with the platform's key, and so are none of the connected account's.
            return Err(fault_at(
                "auto_top_up",
                "charges the key's own account, which a stripe_account is not",
            ));
        }
    }
    let auto_top_up = document.auto_top_up.map(|entry| reader.auto_top_up(entry)).transpose()?;
    Ok(Catalog {
        settings: Settings {
            scope: Scope {
                livemode: document.livemode,
                stripe_account: document.stripe_account,
                begins_at: document.begins_at,
            },
            signup_credits: document.signup_credits,
            reversal_policy: document.reversal_policy,
            no_payment_required: document.no_payment_required,
            free_plan: document.free_plan,
            user_namespace: document.user_namespace,
            low_credits: reader.low_credits,
            expiring_days: document.expiring_days,
            auto_top_up,
        },
        prices: reader.prices,
    })
}

impl Price {
    /// A price with every policy at its default.
    fn selling(kind: PriceKind, key: &str, name: &str, credits: Credits) -> Price {
        Price {
            price_id: String::new(),
            names: Names::default(),
            kind,
            key: key.to_owned(),
            name: name.to_owned(),
            credits,
            rank: 0,
            every: one_month(),
            drip: None,
            renewal: Renewal::default(),
            max_rollover: Credits::ZERO,
            plan_change: PlanChange::default(),
            cancellation: Cancellation::default(),
            trial_credits: Credits::ZERO,
            first_purchase_bonus: Credits::ZERO,
            expires_after: None,
        }
    }
}

struct Reader {
    keys: BTreeSet<String>,
    prices: BTreeMap<String, Price>,
    low_credits: LowCredits,
}

impl Reader {
    fn plan(&mut self, index: usize, plan: PlanEntry) -> Result<(), Fault> {
        let path = format!("plans[{index}]");
        self.key(&format!("{path}.key"), &plan.key)?;
        let rollover = plan.max_rollover > Credits::ZERO;
        let renewal = plan.renewal.unwrap_or(if rollover { Renewal::Rollover } else { Renewal::Reset });
        if rollover != (renewal == Renewal::Rollover) {
            let fault = "renewal \"rollover\" needs a max_rollover above 0, and \"reset\" one of 0";
            return Err(fault_at(format!("{path}.renewal"), fault));
        }
        let name = plan.name.as_deref().unwrap_or(&plan.key);
        let rank = plan.rank.unwrap_or_else(|| i32::try_from(index).unwrap_or(i32::MAX));
        let sold = Price {
            rank,
            renewal,
            max_rollover: plan.max_rollover,
            plan_change: plan.plan_change,
            cancellation: plan.cancellation,
            trial_credits: plan.trial_credits,
            first_purchase_bonus: plan.first_purchase_bonus,
            ..Price::selling(PriceKind::Plan, &plan.key, name, plan.credits)
        };
        named(&format!("{path}.name"), name)?;
        if let Some(low_credits) = plan.low_credits {
            let low_credits = thresholds(&format!("{path}.low_credits"), low_credits)?;
            self.low_credits.plans.insert(plan.key, low_credits);
        }
        for (at, IdOr(entry)) in plan.prices.into_iter().enumerate() {
            let path = format!("{path}.prices[{at}]");
            let PlanPriceEntry { id, product, every, drip } = entry;
            let every = every.unwrap_or(if drip.is_some() { one_year() } else { one_month() });
            if drip.is_some_and(|drip| drip.is_longer_than(every)) {
                return Err(fault_at(
                    format!("{path}.drip"),
                    "longer than the interval that it divides, every",
                ));
            }
            if drip.is_some_and(|drip| every.most_parts(drip) > MAX_PARTS) {
                return Err(fault_at(
                    format!("{path}.drip"),
                    format!("every has more than {MAX_PARTS} of it"),
                ));
            }
            self.price(&path, SoldEntry { id, product }, Price { every, drip, ..sold.clone() })?;
        }
        Ok(())
    }

    fn pack(&mut self, index: usize, pack: PackEntry) -> Result<(), Fault> {
        let path = format!("packs[{index}]");
        self.key(&format!("{path}.key"), &pack.key)?;
        if pack.credits == Credits::ZERO {
            return Err(fault_at(format!("{path}.credits"), "a pack of 0 credits sells nothing"));
        }
        let name = pack.name.as_deref().unwrap_or(&pack.key);
        named(&format!("{path}.name"), name)?;
        let sold = Price {
            expires_after: pack.expires_after,
            ..Price::selling(PriceKind::Pack, &pack.key, name, pack.credits)
        };
        for (at, IdOr(entry)) in pack.prices.into_iter().enumerate() {
            self.price(&format!("{path}.prices[{at}]"), entry, sold.clone())?;
        }
        Ok(())
    }

    /// What is charged has to be clear: of a pack with several prices, or all prices of a product, it is not.
    fn auto_top_up(&self, entry: AutoTopUpEntry) -> Result<AutoTopUp, Fault> {
        let AutoTopUpEntry { pack, below, at_most } = entry;
        let is_sold = |price: &&Price| price.kind == PriceKind::Pack && price.key == pack;
        let prices: Vec<&Price> = self.prices.values().filter(is_sold).collect();
        let price = match prices[..] {
            [price] if price.names == Names::Price => price,
            [] => return Err(fault_at("auto_top_up.pack", format!("no pack with a price is {pack:?}"))),
            _ => {
                let fault = format!("{pack:?} is not sold at one price, by its id: name a pack that is");
                return Err(fault_at("auto_top_up.pack", fault));
            }
        };
        if !(Credits(1)..=price.credits).contains(&below) {
            let fault = "not from 1 to the pack's credits: a top-up would not lift the balance to it";
            return Err(fault_at("auto_top_up.below", fault));
        }
        Ok(AutoTopUp { price_id: price.price_id.clone(), credits: price.credits, pack, below, at_most })
    }

    fn key(&mut self, path: &str, key: &str) -> Result<(), Fault> {
        named(path, key)?;
        if self.keys.insert(key.to_owned()) {
            Ok(())
        } else {
            Err(fault_at(path, format!("{key:?} is used twice")))
        }
    }

    fn price(&mut self, path: &str, sold: SoldEntry, price: Price) -> Result<(), Fault> {
        let (price_id, names) = match (sold.id, sold.product) {
            (Some(id), None) => (id, Names::Price),
            (None, Some(id)) => (id, Names::Product),
            (None, None) => return Err(fault_at(path, "names neither the id of a price nor a product")),
            (Some(_), Some(_)) => return Err(fault_at(path, "names both the id of a price and a product")),
        };
        named(path, &price_id)?;
        if self.prices.contains_key(&price_id) {
            return Err(fault_at(path, format!("{price_id:?} is used twice")));
        }
        self.prices.insert(price_id.clone(), Price { price_id, names, ..price });
        Ok(())
    }
}

/// Thresholds of a balance, highest first.
fn thresholds(path: &str, mut thresholds: Thresholds) -> Result<Thresholds, Fault> {
    thresholds.sort_unstable_by_key(|threshold| Reverse(*threshold));
    if thresholds.last() == Some(&Credits::ZERO) {
        return Err(fault_at(path, "a threshold of 0: that nothing is left is told without one"));
    }
    if thresholds.windows(2).any(|two| two[0] == two[1]) {
        return Err(fault_at(path, "names a threshold twice"));
    }
    if thresholds.len() > MAX_THRESHOLDS {
        return Err(fault_at(path, format!("more than {MAX_THRESHOLDS} thresholds")));
    }
    Ok(thresholds)
}

fn named(path: &str, text: &str) -> Result<(), Fault> {
    if text.trim() != text || text.is_empty() {
        Err(fault_at(path, format!("{text:?} is blank or has blanks around it")))
    } else if text.len() > MAX_ID_BYTES {
        Err(fault_at(path, format!("longer than {MAX_ID_BYTES} bytes")))
    } else {
        Ok(())
    }
}

fn fault_at(path: impl Into<String>, fault: impl Into<String>) -> Fault {
    Fault { path: path.into(), fault: fault.into() }
}

/// A price as the database has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    /// From its latest row.
    pub price: Price,
    /// Whether it is no longer sold.
    pub retired: bool,
}

text_enum! {
    /// What loading a catalog does to one price.
    Change {
        /// It is new.
        Added => "added",
        /// From now on it is worth something else, or it is on sale again.
        Changed => "changed",
        /// It is no longer sold. A payment for it still grants.
        Retired => "retired",
        /// Nothing.
        Unchanged => "unchanged",
    }
}

/// The difference between the database and a document: by price id, the change, and the row to write.
#[must_use]
pub fn changes(
    stored: &BTreeMap<String, Stored>,
    wanted: &BTreeMap<String, Price>,
) -> BTreeMap<String, (Change, Stored)> {
    let mut changes = BTreeMap::new();
    for (price_id, price) in wanted {
        let change = match stored.get(price_id) {
            None => Change::Added,
            Some(now) if !now.retired && now.price == *price => Change::Unchanged,
            Some(_) => Change::Changed,
        };
        changes.insert(price_id.clone(), (change, Stored { price: price.clone(), retired: false }));
    }
    for (price_id, now) in stored {
        if !wanted.contains_key(price_id) {
            let change = if now.retired { Change::Unchanged } else { Change::Retired };
            changes.insert(price_id.clone(), (change, Stored { price: now.price.clone(), retired: true }));
        }
    }
    changes
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn document() -> Value {
        json!({
            "livemode": false, "stripe_account": null, "signup_credits": 500,
            "reversal_policy": "debt", "no_payment_required": "grant",
            "free_plan": { "key": "free", "name": "Free", "credits": 5, "every": "1 month" },
            "plans": [{
                "key": "pro", "name": "Pro", "rank": 1, "credits": 10000,
                "prices": ["price_pro", { "id": "price_pro_year", "drip": "1 month" }],
                "renewal": "reset", "max_rollover": 0, "plan_change": "reset", "cancellation": "keep",
                "trial_credits": 0, "first_purchase_bonus": 0
            }],
            "not_credits": ["price_tshirt"],
            "packs": [{
                "key": "pack_500", "name": "500 credits", "credits": 500, "prices": ["price_pack"],
                "expires_after": null
            }]
        })
    }

    fn fault(pointer: &str, value: Value) -> Fault {
        let mut document = document();
        let (parent, field) = pointer.rsplit_once('/').expect("a pointer");
        match document.pointer_mut(parent).expect("a place") {
            Value::Object(object) => {
                object.insert(field.into(), value);
            }
            Value::Array(array) => array[field.parse::<usize>().expect("an index")] = value,
            _ => panic!("no container"),
        }
        read(&document.to_string()).expect_err(pointer)
    }

    #[test]
    fn the_designs_document_reads_whole() {
        let catalog = read(&document().to_string()).expect("a catalog");
        assert_eq!(catalog.prices.len(), 4);
        assert_eq!(catalog.prices["price_pro_year"].drip, Some(Span::Months(1)));
        assert_eq!(catalog.settings.free_plan.map(|free| free.every), Some(Span::Months(1)));
    }

    #[test]
    fn every_policy_is_optional() {
        let catalog = read(r#"{"livemode": true, "plans": [{"key": "p", "credits": 1, "prices": ["x"]}]}"#);
        let price = &catalog.expect("a catalog").prices["x"];
        assert_eq!((price.renewal, price.plan_change), (Renewal::Reset, PlanChange::Reset));
        assert_eq!((price.cancellation, price.name.as_str()), (Cancellation::Keep, "p"));
    }

    #[test]
    fn a_fault_names_its_path() {
        for (pointer, value, path) in [
            ("/surprise", json!(1), "surprise"),
            ("/livemode", json!("no"), "livemode"),
            ("/signup_credits", json!(-1), "signup_credits"),
            ("/signup_credits", json!(1.5), "signup_credits"),
            ("/signup_credits", json!("500"), "signup_credits"),
            ("/reversal_policy", json!("mercy"), "reversal_policy"),
            ("/free_plan/every", json!("1 moon"), "free_plan.every"),
            ("/free_plan/key", json!("pro"), "plans[0].key"),
            ("/plans/0/surprise", json!(1), "plans[0].surprise"),
            ("/plans/0/prices/1", json!({ "id": "y", "drip": "0 days" }), "plans[0].prices[1].drip"),
            ("/plans/0/prices/1", json!({ "id": "y", "drop": "1 month" }), "plans[0].prices[1].drop"),
            ("/plans/0/prices/1", json!(7), "plans[0].prices[1]"),
            ("/plans/0/prices/1", json!("price_pack"), "packs[0].prices[0]"),
            ("/plans/0/max_rollover", json!(5), "plans[0].renewal"),
            ("/plans/0/renewal", json!("rollover"), "plans[0].renewal"),
            ("/packs/0/credits", json!(0), "packs[0].credits"),
            ("/packs/0/key", json!(" pack"), "packs[0].key"),
            ("/packs/0/prices/0", json!(""), "packs[0].prices[0]"),
            ("/not_credits/0", json!("price_pro"), "not_credits[0]"),
            ("/stripe_account", json!(" "), "stripe_account"),
            ("/plans/0/plan_change", json!("at_renewal"), "plans[0].plan_change"),
            ("/plans/0/prices/0", json!({}), "plans[0].prices[0]"),
            ("/plans/0/prices/0", json!({ "id": "y", "product": "prod_1" }), "plans[0].prices[0]"),
            ("/plans/0/prices/0", json!({ "product": " " }), "plans[0].prices[0]"),
            ("/plans/0/prices/0", json!({ "id": "y", "every": "often" }), "plans[0].prices[0].every"),
            (
                "/plans/0/prices/0",
                json!({ "id": "y", "every": "1 month", "drip": "5 weeks" }),
                "plans[0].prices[0].drip",
            ),
            ("/plans/0/prices/0", json!({ "id": "y", "drip": "2 years" }), "plans[0].prices[0].drip"),
            (
                "/plans/0/prices/0",
                json!({ "id": "y", "every": "4 years", "drip": "1 day" }),
                "plans[0].prices[0].drip",
            ),
            (
                "/plans/0/prices/0",
                json!({ "id": "y", "every": "1300 days", "drip": "1 day" }),
                "plans[0].prices[0].drip",
            ),
            ("/packs/0/prices/0", json!({ "id": "y", "every": "1 month" }), "packs[0].prices[0].every"),
            ("/packs/0/prices/0", json!({ "product": "price_pro" }), "packs[0].prices[0]"),
            ("/not_credits/0", json!({ "product": 7 }), "not_credits[0].product"),
            ("/begins_at", json!("2026-01-01"), "begins_at"),
            ("/begins_at", json!("2026-01-01T00:00:00.5Z"), "begins_at"),
            ("/begins_at", json!("1969-12-31T23:59:59Z"), "begins_at"),
            ("/begins_at", json!(1_767_225_600), "begins_at"),
            ("/user_namespace", json!("clerk"), "user_namespace"),
            ("/auto_top_up", json!({ "pack": "pack_500", "below": 100 }), "auto_top_up"),
            ("/auto_top_up", top_up("pack_500", 0, "3 per month"), "auto_top_up.below"),
            ("/auto_top_up", top_up("pack_500", 501, "3 per month"), "auto_top_up.below"),
            ("/auto_top_up", top_up("pack_500", 100, "3 per hour"), "auto_top_up.at_most"),
            ("/auto_top_up", top_up("pack_500", 100, "0 per month"), "auto_top_up.at_most"),
            ("/auto_top_up", top_up("pack_9", 100, "3 per month"), "auto_top_up.pack"),
            ("/auto_top_up", top_up("pro", 100, "3 per month"), "auto_top_up.pack"),
            ("/low_credits", json!([100, -1]), "low_credits[1]"),
            ("/low_credits", json!([100, 0]), "low_credits"),
            ("/plans/0/low_credits", json!([5, 9, 5]), "plans[0].low_credits"),
            ("/plans/0/low_credits", json!([1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11]), "plans[0].low_credits"),
            ("/expiring_days", json!(0), "expiring_days"),
            ("/expiring_days", json!(367), "expiring_days"),
        ] {
            assert_eq!(fault(pointer, value).path, path, "{pointer}");
        }
    }

    #[test]
    fn a_price_says_how_often_it_is_billed_or_it_is_monthly_and_yearly_in_parts() {
        let prices = json!([
            "a", { "id": "b", "every": "3 months" }, { "id": "c", "drip": "1 month" },
            { "id": "d", "every": "3 months", "drip": "1 month" }, { "product": "prod_e", "every": "1 year" },
        ]);
        let document = json!({
            "livemode": false, "plans": [{ "key": "p", "credits": 1, "prices": prices }],
            "packs": [{ "key": "k", "credits": 1, "prices": ["f", { "id": "g" }, { "product": "prod_h" }] }],
            "not_credits": ["i", { "product": "prod_j" }],
        });
        let prices = read(&document.to_string()).expect("a catalog").prices;
        let billing = |id: &str| (prices[id].every, prices[id].drip);
        assert_eq!(billing("a"), (Span::Months(1), None));
        assert_eq!(billing("b"), (Span::Months(3), None));
        assert_eq!(billing("c"), (Span::Months(12), Some(Span::Months(1))));
        assert_eq!(billing("d"), (Span::Months(3), Some(Span::Months(1))));
        assert_eq!(billing("prod_e"), (Span::Months(12), None));
        let products = prices.values().filter(|price| price.names == Names::Product);
        let products: Vec<_> = products.map(|price| (price.price_id.as_str(), price.kind)).collect();
        assert_eq!(
            products,
            [("prod_e", PriceKind::Plan), ("prod_h", PriceKind::Pack), ("prod_j", PriceKind::NotCredits)]
        );
    }

    #[test]
    fn the_books_begin_at_a_moment_and_users_have_a_namespace() {
        let mut document = document();
        document["begins_at"] = json!("2026-01-01T01:00:00+01:00");
        document["user_namespace"] = json!("6ba7b810-9dad-11d1-80b4-00c04fd430c8");
        let settings = read(&document.to_string()).expect("a catalog").settings;
        assert_eq!(settings.scope.begins_at, calendar::from_unix(1_767_225_600));
        assert_eq!(settings.user_namespace, Some(Uuid::NAMESPACE_DNS));
    }

    #[test]
    fn an_app_says_which_balances_it_wants_to_be_told_of_for_all_users_and_by_plan() {
        let mut document = document();
        let settings = |document: &Value| read(&document.to_string()).expect("a catalog").settings;
        assert_eq!(settings(&document).low_credits, LowCredits::default());
        assert_eq!(settings(&document).expiring_days, None);
        (document["low_credits"], document["expiring_days"]) = (json!([5, 50]), json!(7));
        document["plans"][0]["low_credits"] = json!([1000]);
        let told = settings(&document);
        assert_eq!(told.low_credits.of("free"), [Credits(50), Credits(5)], "highest first");
        assert_eq!(told.low_credits.of("pro"), [Credits(1000)]);
        assert_eq!(told.expiring_days.map(ExpiringDays::get), Some(7));
    }

    fn top_up(pack: &str, below: i64, at_most: &str) -> Value {
        json!({ "pack": pack, "below": below, "at_most": at_most })
    }

    #[test]
    fn auto_top_up_charges_the_one_price_of_its_pack() {
        let mut document = document();
        document["auto_top_up"] = top_up("pack_500", 500, "3 per month");
        let settings = read(&document.to_string()).expect("a catalog").settings;
        let expected = AutoTopUp {
            pack: "pack_500".into(),
            price_id: "price_pack".into(),
            credits: Credits(500),
            below: Credits(500),
            at_most: "3 per month".parse().expect("a limit"),
        };
        assert_eq!(settings.auto_top_up.as_ref(), Some(&expected));
        let stored = serde_json::to_string(&expected).expect("JSON");
        assert_eq!(serde_json::from_str::<AutoTopUp>(&stored).expect("the same"), expected);

        for prices in [json!(["price_pack", "price_pack_eur"]), json!([{ "product": "prod_1" }]), json!([])] {
            document["packs"][0]["prices"] = prices;
            let fault = read(&document.to_string()).expect_err("what is charged is not clear");
            assert_eq!(fault.path, "auto_top_up.pack");
        }
        document["packs"][0]["prices"] = json!(["price_pack"]);
        document["stripe_account"] = json!("acct_1");
        let fault = read(&document.to_string()).expect_err("its payments would not count");
        assert_eq!(fault.path, "auto_top_up");
    }

    #[test]
    fn only_payments_since_the_books_began_are_in_scope() {
        let at = |seconds| calendar::from_unix(seconds).expect("a time");
        let scope = |begins_at| Scope { livemode: false, stripe_account: None, begins_at };
        assert_eq!(scope(Some(at(100))).excludes_payment(at(99)), Some(Reason::BeforeBooks));
        assert_eq!(scope(Some(at(100))).excludes_payment(at(100)), None);
        assert_eq!(scope(None).excludes_payment(at(0)), None);
    }

    #[test]
    fn a_number_too_long_for_an_integer_is_refused_not_rounded() {
        let text = document().to_string().replace("10000", "10000000000000000000000001");
        assert_eq!(read(&text).expect_err("too long").path, "plans[0].credits");
        for not_a_catalog in ["", "null", "[]", "{\"livemode\": false} x", "{\"\"", "{\"\": 1}"] {
            assert_eq!(read(not_a_catalog).expect_err(not_a_catalog).path, "catalog", "{not_a_catalog:?}");
        }
        assert!(read("{}").is_err());
    }

    #[test]
    fn loading_twice_changes_nothing_and_absence_retires() {
        let wanted = read(&document().to_string()).expect("a catalog").prices;
        let first = changes(&BTreeMap::new(), &wanted);
        assert!(first.values().all(|(change, _)| *change == Change::Added));
        let stored: BTreeMap<_, _> = first.into_iter().map(|(id, (_, stored))| (id, stored)).collect();
        assert!(changes(&stored, &wanted).values().all(|(change, _)| *change == Change::Unchanged));
        let retired = changes(&stored, &BTreeMap::new());
        assert!(retired.values().all(|(change, now)| *change == Change::Retired && now.retired));
        let stored: BTreeMap<_, _> = retired.into_iter().map(|(id, (_, stored))| (id, stored)).collect();
        assert!(changes(&stored, &BTreeMap::new()).values().all(|(change, _)| *change == Change::Unchanged));
        assert!(
            changes(&stored, &wanted).values().all(|(change, _)| *change == Change::Changed),
            "on sale again"
        );
    }

    #[test]
    fn only_events_of_our_mode_and_account_are_in_scope() {
        let ours = Scope { livemode: true, stripe_account: None, begins_at: None };
        assert_eq!(ours.excludes(true, None), None);
        assert_eq!(ours.excludes(false, None), Some(Reason::Livemode));
        assert_eq!(ours.excludes(true, Some("acct_1")), Some(Reason::Account));
        let connected = Scope { livemode: true, stripe_account: Some("acct_1".into()), begins_at: None };
        assert_eq!(connected.excludes(true, Some("acct_1")), None);
        assert_eq!(connected.excludes(true, Some("acct_2")), Some(Reason::Account));
        assert_eq!(connected.excludes(true, None), Some(Reason::Account));
    }
}
