//! Every row that the catalog ever had of its prices, and which of them is in force at a time (rule 4).

use std::cmp::Reverse;
use std::collections::BTreeMap;

use crate::calendar::Time;
use crate::catalog::{Item, Names, Price, PriceKind, Stored};

/// The kinds that an invoice's line may be of.
const ANY_KIND: &[PriceKind] = &[PriceKind::Plan, PriceKind::Pack, PriceKind::NotCredits];

/// The kinds that a payment may be for which no subscription is.
const SOLD_ONCE: &[PriceKind] = &[PriceKind::Pack, PriceKind::NotCredits];

/// What a price was worth from a time on, until its next row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Version {
    /// Since when.
    pub valid_from: Time,
    /// What it says.
    pub stored: Stored,
}

/// The rows of every price.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PriceHistory {
    /// By the price's or product's id, in the order of their times.
    by_id: BTreeMap<String, Vec<Version>>,
}

impl FromIterator<Version> for PriceHistory {
    fn from_iter<I: IntoIterator<Item = Version>>(versions: I) -> PriceHistory {
        let mut by_id: BTreeMap<String, Vec<Version>> = BTreeMap::new();
        for version in versions {
            by_id.entry(version.stored.price.price_id.clone()).or_default().push(version);
        }
        for versions in by_id.values_mut() {
            versions.sort_by_key(|version| version.valid_from);
        }
        PriceHistory { by_id }
    }
}

impl PriceHistory {
    /// Whether the catalog never had a price.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.by_id.is_empty()
    }

    /// The latest row of each price.
    #[must_use]
    pub fn latest(&self) -> BTreeMap<String, Stored> {
        let last = |versions: &Vec<Version>| versions.last().map(|version| version.stored.clone());
        self.by_id.iter().filter_map(|(id, versions)| Some((id.clone(), last(versions)?))).collect()
    }

    /// When the rows of these prices and products change, in order.
    #[must_use]
    pub fn changes_of<'a>(&self, ids: impl IntoIterator<Item = &'a str>) -> Vec<Time> {
        let versions = ids.into_iter().filter_map(|id| self.by_id.get(id)).flatten();
        let mut changes: Vec<Time> = versions.map(|version| version.valid_from).collect();
        changes.sort_unstable();
        changes
    }

    /// The price of an invoice's line or a subscription's item at a time. A pack's key stands for its newest price that was on
    /// sale.
    #[must_use]
    pub fn in_force(&self, item: &Item, at: Time) -> Option<&Price> {
        self.of_kinds(item, at, ANY_KIND)
    }

    /// The price of what a payment without a subscription bought at a time: what was listed as a plan then, and is listed as a
    /// pack or `not_credits` since, was that all along.
    #[must_use]
    pub fn sold_once(&self, item: &Item, at: Time) -> Option<&Price> {
        self.of_kinds(item, at, SOLD_ONCE)
    }

    fn of_kinds(&self, item: &Item, at: Time, kinds: &[PriceKind]) -> Option<&Price> {
        let found = match item {
            // Who names an id alone may mean either.
            Item::Price(id) => self.of_id(id, &[Names::Price, Names::Product], at, kinds),
            Item::Line { price, product } => self.of_line(price, product, at, kinds),
            Item::Pack(key) => self.of_pack(key, at),
            Item::Unpriced => None,
        };
        found.map(|version| &version.stored.price)
    }

    /// The price's own row, else its product's. A retired price gives way to a product that was on sale then: the founder has
    /// put all of the product's prices in the price's place.
    fn of_line(&self, price_id: &str, product_id: &str, at: Time, kinds: &[PriceKind]) -> Option<&Version> {
        let own = self.of_id(price_id, &[Names::Price], at, kinds);
        if own.is_some_and(|own| !own.stored.retired) {
            return own;
        }
        let of_product = self.of_id(product_id, &[Names::Product], at, kinds);
        let was_on_sale = |version: &Version| version.valid_from <= at && !version.stored.retired;
        if own.is_none() || of_product.is_some_and(was_on_sale) { of_product } else { own }
    }

    /// The row of an id in force at a time; before its first row, that one. If its kind does not fit, the first later row
    /// whose kind does, because what was wrong when it was sold can be corrected since.
    fn of_id(&self, id: &str, names: &[Names], at: Time, kinds: &[PriceKind]) -> Option<&Version> {
        let versions = self.by_id.get(id)?;
        let later = versions[in_force_at(versions, at)..].iter();
        let mut meant = later.filter(|version| names.contains(&version.stored.price.names));
        let fits = |version: &&Version| kinds.contains(&version.stored.price.kind);
        meant.clone().find(fits).or_else(|| meant.next())
    }

    /// The newest price of a pack that was on sale; one that is on sale since, rather than one that was retired then.
    fn of_pack(&self, key: &str, at: Time) -> Option<&Version> {
        let candidates = self.by_id.values().flat_map(|versions| &versions[in_force_at(versions, at)..]);
        let is_of_pack = |price: &Price| price.key == key && price.kind == PriceKind::Pack;
        candidates.filter(|version| is_of_pack(&version.stored.price)).min_by_key(|version| {
            let Version { valid_from, stored: Stored { price, retired } } = version;
            let was_there = *valid_from <= at;
            (*retired, !was_there, Reverse(was_there.then_some(*valid_from)), *valid_from, &price.price_id)
        })
    }
}

/// Where the row is that is in force at a time, or the first one.
fn in_force_at(versions: &[Version], at: Time) -> usize {
    versions.partition_point(|version| version.valid_from <= at).saturating_sub(1)
}

#[cfg(test)]
mod tests {
    use crate::amount::Credits;
    use crate::calendar::Span;
    use crate::catalog::{Cancellation, PlanChange, Renewal};

    use super::*;

    fn at(seconds: i64) -> Time {
        Time::from_timestamp(seconds, 0).expect("a time")
    }

    fn version(
        id: &str,
        names: Names,
        kind: PriceKind,
        key: &str,
        credits: i64,
        from: i64,
        retired: bool,
    ) -> Version {
        let price = Price {
            price_id: id.to_owned(),
            names,
            kind,
            key: key.to_owned(),
            name: key.to_owned(),
            credits: Credits(credits),
            rank: 0,
            every: Span::Months(1),
            drip: None,
            renewal: Renewal::Reset,
            max_rollover: Credits::ZERO,
            plan_change: PlanChange::Reset,
            cancellation: Cancellation::Keep,
            trial_credits: Credits::ZERO,
            first_purchase_bonus: Credits::ZERO,
            expires_after: None,
        };
        Version { valid_from: at(from), stored: Stored { price, retired } }
    }

    fn pack(id: &str, credits: i64, from: i64, retired: bool) -> Version {
        version(id, Names::Price, PriceKind::Pack, "pack", credits, from, retired)
    }

    fn credits(price: Option<&Price>) -> Option<i64> {
        price.map(|price| price.credits.0)
    }

    #[test]
    fn a_price_is_worth_what_its_row_said_when_it_was_sold() {
        let history: PriceHistory =
            [pack("price_a", 600, 200, false), pack("price_a", 500, 100, false)].into_iter().collect();
        let worth = |time| credits(history.sold_once(&Item::Price("price_a".to_owned()), at(time)));
        assert_eq!(
            [worth(50), worth(100), worth(199), worth(200)],
            [Some(500), Some(500), Some(500), Some(600)]
        );
        assert_eq!(credits(history.sold_once(&Item::Price("price_b".to_owned()), at(150))), None);
    }

    #[test]
    fn a_kind_that_was_wrong_when_it_was_sold_gives_way_to_the_first_that_fits() {
        let plan = version("price_a", Names::Price, PriceKind::Plan, "plan", 9, 100, false);
        let history: PriceHistory =
            [plan, pack("price_a", 500, 200, false), pack("price_a", 700, 300, false)].into_iter().collect();
        let item = Item::Price("price_a".to_owned());
        assert_eq!(credits(history.sold_once(&item, at(150))), Some(500));
        assert_eq!(credits(history.in_force(&item, at(150))), Some(9));
    }

    #[test]
    fn a_line_is_worth_its_product_if_the_price_is_unknown_or_retired() {
        let product = |from| version("prod_a", Names::Product, PriceKind::Pack, "pack", 800, from, false);
        let line = Item::line("price_a".to_owned(), Some("prod_a".to_owned()));
        let of_product: PriceHistory = [product(100)].into_iter().collect();
        assert_eq!(credits(of_product.in_force(&line, at(150))), Some(800));
        let retired = [pack("price_a", 500, 100, false), pack("price_a", 500, 200, true), product(200)];
        let history: PriceHistory = retired.into_iter().collect();
        assert_eq!(credits(history.in_force(&line, at(150))), Some(500));
        assert_eq!(credits(history.in_force(&line, at(250))), Some(800));
        let not_yet: PriceHistory = [pack("price_a", 500, 100, true), product(300)].into_iter().collect();
        assert_eq!(credits(not_yet.in_force(&line, at(250))), Some(500));
    }

    #[test]
    fn a_packs_key_means_its_newest_price_on_sale() {
        let rows = [
            pack("price_a", 500, 100, false),
            pack("price_b", 600, 200, false),
            pack("price_b", 600, 300, true),
            pack("price_c", 700, 400, false),
        ];
        let history: PriceHistory = rows.into_iter().collect();
        let worth = |time| credits(history.in_force(&Item::Pack("pack".to_owned()), at(time)));
        // Before any row, the first; once the newest is retired, an older one that is still sold.
        assert_eq!(
            [worth(50), worth(150), worth(250), worth(350), worth(450)].map(|worth| worth.unwrap_or(0)),
            [500, 500, 600, 500, 700]
        );
        assert_eq!(credits(history.in_force(&Item::Pack("other".to_owned()), at(450))), None);
    }
}
