//! The catalog and the settings loaded with it.

use std::time::Duration;

use stripe_credits_rules::amount::Credits;
use stripe_credits_rules::calendar::Span;
use stripe_credits_rules::catalog::{Names, PriceKind};
use tokio_postgres::Row;

use crate::database::{Database, DatabaseError, PROBE_TIMEOUT, READ_TIMEOUT, column};

/// How long loading a catalog may take: it updates every subscription whose price has changed.
const CATALOG_TIMEOUT: Duration = Duration::from_mins(10);

/// The effect of loading a catalog on one price.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct PriceChange {
    pub(crate) price_id: String,
    pub(crate) change: String,
}

/// A price of the catalog.
#[derive(Debug)]
pub(crate) struct CatalogPrice {
    /// Of a price, or of a product that stands for all of its prices.
    pub(crate) price_id: String,
    pub(crate) names: Names,
    pub(crate) kind: PriceKind,
    /// The key of its plan or pack, such as `pro`.
    pub(crate) key: String,
    /// Of one billing interval, of one part, or of one piece.
    pub(crate) credits: Credits,
    /// The billing interval that the credits are for.
    pub(crate) every: Span,
    pub(crate) drip: Option<Span>,
    pub(crate) is_retired: bool,
}

/// What the catalog says of a price of a plan or a pack.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Offer {
    pub(crate) kind: OfferKind,
    /// The key of its plan or pack, such as `pro`.
    pub(crate) key: String,
    /// Of several plans of a user, the highest rank names the tier.
    pub(crate) rank: i32,
    /// Of one billing interval, or of one part.
    pub(crate) credits: Credits,
    /// The billing interval that the credits are for.
    pub(crate) every: Span,
    pub(crate) drip: Option<Span>,
    pub(crate) is_retired: bool,
}

/// What a price buys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum OfferKind {
    Pack,
    Plan,
}

impl Database {
    /// Every price of the catalog in its current version.
    pub(crate) async fn prices(&self) -> Result<Vec<CatalogPrice>, DatabaseError> {
        let sql = "select distinct on (p.price_id) p.price_id, p.names, p.kind, p.key, p.retired,
                (12 * extract(year from p.every) + extract(month from p.every))::text, extract(day from p.every)::text,
                (12 * extract(year from p.drip) + extract(month from p.drip))::text, extract(day from p.drip)::text,
                p.credits
            from billing.prices p
            where p.valid_from <= statement_timestamp() order by p.price_id, p.valid_from desc";
        let rows = self.query(sql, &[], READ_TIMEOUT).await?;
        let price = |row: &Row| {
            Ok(CatalogPrice {
                price_id: column(row, 0)?,
                names: names(row, 1)?,
                kind: price_kind(row, 2)?,
                key: column(row, 3)?,
                credits: Credits(column(row, 9)?),
                is_retired: column(row, 4)?,
                every: span(row, 5)?.unwrap_or(Span::Months(1)),
                drip: span(row, 7)?,
            })
        };
        rows.iter().map(price).collect()
    }

    /// The plans and packs on sale, as JSON.
    pub(crate) async fn on_sale(&self) -> Result<String, DatabaseError> {
        let sql = "with latest as (
                select distinct on (p.price_id) p.* from billing.prices p
                where p.valid_from <= statement_timestamp() order by p.price_id, p.valid_from desc),
            offers as (
                select l.kind, l.key, l.name, l.credits, l.rank,
                    coalesce(json_agg(l.price_id order by l.price_id) filter (where l.names = 'price'), '[]') as prices,
                    coalesce(json_agg(json_build_object('price_id', a.price_id, 'currency', a.currency,
                        'unit_amount', a.unit_amount, 'interval', a.recurring_interval,
                        'interval_count', a.interval_count) order by a.price_id)
                        filter (where a.price_id is not null), '[]') as amounts
                from latest l left join billing.price_amounts a using (price_id)
                where not l.retired and l.kind in ('plan', 'pack')
                group by l.kind, l.key, l.name, l.credits, l.rank)
            select json_build_object(
                'plans', coalesce(
                    json_agg(json_build_object('key', o.key, 'name', o.name, 'credits', o.credits, 'rank', o.rank,
                        'prices', o.prices, 'amounts', o.amounts) order by o.rank, o.key) filter (where o.kind = 'plan'), '[]'),
                'packs', coalesce(
                    json_agg(json_build_object('key', o.key, 'name', o.name, 'credits', o.credits,
                        'prices', o.prices, 'amounts', o.amounts) order by o.credits, o.key) filter (where o.kind = 'pack'), '[]'))::text
            from offers o";
        self.query_value(sql, &[], READ_TIMEOUT).await
    }

    /// What the catalog says of a price, by its own row, else by its product's: the product's also if only the price's
    /// own is retired. None for a price that it does not know, or that is worth no credits.
    pub(crate) async fn offer(
        &self,
        price_id: &str,
        product_id: Option<&str>,
    ) -> Result<Option<Offer>, DatabaseError> {
        // A price's id stands for an unknown product: of a product there is no row by that name.
        let sql = "select p.kind, p.key, p.rank, p.credits, p.retired,
                (12 * extract(year from p.every) + extract(month from p.every))::text, extract(day from p.every)::text,
                (12 * extract(year from p.drip) + extract(month from p.drip))::text, extract(day from p.drip)::text
            from (values ('price', $1::text), ('product', coalesce(nullif($2::text, ''), $1::text))) named (names, id)
            cross join lateral billing.resolve_price(named.id) p
            where p.names = named.names order by p.retired, p.names = 'product' limit 1";
        let rows = self.query(sql, &[price_id, product_id.unwrap_or_default()], READ_TIMEOUT).await?;
        let Some(row) = rows.first() else { return Ok(None) };
        let kind = match price_kind(row, 0)? {
            PriceKind::Plan => OfferKind::Plan,
            PriceKind::Pack => OfferKind::Pack,
            PriceKind::NotCredits => return Ok(None),
        };
        Ok(Some(Offer {
            kind,
            key: column(row, 1)?,
            rank: column(row, 2)?,
            credits: Credits(column(row, 3)?),
            is_retired: column(row, 4)?,
            every: span(row, 5)?.unwrap_or(Span::Months(1)),
            drip: span(row, 7)?,
        }))
    }

    /// Whether the catalog sells all prices of a product, so that a price may be on sale that it does not name.
    pub(crate) async fn sells_products(&self) -> Result<bool, DatabaseError> {
        let sql = "select exists (
                select from billing.prices p cross join lateral billing.resolve_price(p.price_id) now
                where p.names = 'product' and now.names = 'product' and not now.retired and now.kind <> 'not_credits')";
        self.query_value(sql, &[], READ_TIMEOUT).await
    }

    /// The price that auto top-up charges; none if the catalog has no auto top-up.
    pub(crate) async fn auto_top_up_price(&self) -> Result<Option<String>, DatabaseError> {
        let sql =
            "select s.auto_top_up ->> 'price_id' from billing.settings s where s.auto_top_up is not null";
        self.query_optional(sql, &[], READ_TIMEOUT).await
    }

    /// Loads a catalog document.
    pub(crate) async fn load_catalog(&self, document: &str) -> Result<Vec<PriceChange>, DatabaseError> {
        let sql = "select price_id, change from billing.load_catalog(($1::text)::jsonb)";
        let rows = self.query(sql, &[document], CATALOG_TIMEOUT).await?;
        let change = |row: &Row| Ok(PriceChange { price_id: column(row, 0)?, change: column(row, 1)? });
        rows.iter().map(change).collect()
    }

    /// Stores what prices cost at Stripe, given a JSON array of them.
    pub(crate) async fn store_price_amounts(&self, prices: &str) -> Result<(), DatabaseError> {
        let sql = "select billing.store_price_amounts(($1::text)::jsonb)";
        self.query(sql, &[prices], READ_TIMEOUT).await.map(drop)
    }

    /// The livemode of the settings; none before a catalog is loaded.
    pub(crate) async fn livemode(&self) -> Result<Option<bool>, DatabaseError> {
        self.query_optional("select livemode from billing.settings", &[], PROBE_TIMEOUT).await
    }
}

fn names(row: &Row, index: usize) -> Result<Names, DatabaseError> {
    let text: String = column(row, index)?;
    Names::parse(&text).ok_or_else(|| DatabaseError::UnexpectedAnswer(format!("{text} names nothing")))
}

/// A span of the catalog from two columns, its months and its days; none if they are null.
fn span(row: &Row, index: usize) -> Result<Option<Span>, DatabaseError> {
    let number = |index| {
        let text: Option<String> = column(row, index)?;
        let fault =
            |_| DatabaseError::UnexpectedAnswer("an interval of the catalog is no whole number".to_owned());
        text.map(|text| text.parse::<u32>().map_err(fault)).transpose()
    };
    Ok(match (number(index)?, number(index + 1)?) {
        (Some(0), Some(days)) => Some(Span::Days(days)),
        (Some(months), Some(_)) => Some(Span::Months(months)),
        _ => None,
    })
}

fn price_kind(row: &Row, index: usize) -> Result<PriceKind, DatabaseError> {
    let text: String = column(row, index)?;
    PriceKind::parse(&text)
        .ok_or_else(|| DatabaseError::UnexpectedAnswer(format!("{text} is not a kind of price")))
}
