//! `catalog push FILE`: loads a catalog document into the database, applies the parked events that it makes due, and
//! reads from Stripe what the prices cost, to be shown.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::Read as _;
use std::path::Path;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use stripe_credits_rules::catalog::{Names, PriceKind};
use tokio::time::sleep;

use crate::app::check_mode;
use crate::config::{PushConfig, StripeConfig};
use crate::database::catalog::{CatalogPrice, PriceChange};
use crate::database::{Database, DatabaseError, describe};
use crate::error::Error;
use crate::stripe::client::{StripeClient, StripeError};
use crate::stripe::objects;

/// How long locks are tried for, each time shortly, because every delivery waits behind a load that waits.
const LOCK_PATIENCE: Duration = Duration::from_secs(30);
/// The pause before the next try, in which deliveries are served.
const LOCK_PAUSE: Duration = Duration::from_secs(1);

/// Loads the document and prints the changes.
pub(crate) async fn run(file: &Path, config: &PushConfig) -> Result<(), Error> {
    let document = read(file)?;
    let database = Database::new(&config.database);
    match with_patience(async || database.load_catalog(&document).await).await {
        Ok(changes) => {
            print!("{}", report(&changes));
            apply_due(&database).await;
            if let Some(stripe) = &config.stripe
                && let Err(error) = store_amounts(&database, stripe).await
            {
                // The catalog is loaded, and no credits depend on amounts.
                eprintln!("what the prices cost could not be read, so GET /catalog may not show it: {error}");
            }
            Ok(())
        }
        // The database reports a fault in the document as a data error with its path.
        Err(DatabaseError::Data(fault)) => Err(Error::Document(with_detail(&fault))),
        Err(error) => Err(error.into()),
    }
}

/// Stores what the prices on sale cost at Stripe. Of a product that stands for all of its prices there is no one amount.
async fn store_amounts(database: &Database, config: &StripeConfig) -> Result<(), Error> {
    check_mode(database, config.mode).await?;
    let stripe = StripeClient::with_retries(config);
    let is_sold = |price: &CatalogPrice| {
        price.names == Names::Price && !price.is_retired && price.kind != PriceKind::NotCredits
    };
    let mut found = Vec::new();
    for price in database.prices().await?.into_iter().filter(is_sold) {
        match stripe.get(&objects::path("prices", &price.price_id)).await {
            Ok(object) => found.push(object.read::<Amount>()?),
            Err(StripeError::NotFound | StripeError::Refused { .. }) => {
                eprintln!("{}: Stripe has no such price", price.price_id);
            }
            Err(error) => return Err(error.into()),
        }
    }
    let amounts = serde_json::to_string(&found).map_err(|fault| Error::Internal(fault.to_string()))?;
    Ok(database.store_price_amounts(&amounts).await?)
}

/// What a price costs: of Stripe's object, what is shown.
#[derive(Deserialize, Serialize)]
struct Amount {
    id: String,
    currency: Option<String>,
    /// In the currency's smallest unit; none if it has tiers, or parts of that unit.
    unit_amount: Option<i64>,
    recurring: Option<Interval>,
}

#[derive(Deserialize, Serialize)]
struct Interval {
    interval: String,
    interval_count: u32,
}

/// Applies the parked events that are due, a batch at a time.
async fn apply_due(database: &Database) {
    let mut applied = 0;
    let fault = loop {
        match with_patience(async || database.retry_due().await).await {
            Ok(0) => break None,
            Ok(events) => applied += events,
            Err(error) => break Some(error),
        }
    };
    if applied > 0 {
        println!("{applied} more parked events were judged again");
    }
    if let Some(error) = fault {
        // The catalog is loaded, and nothing is lost.
        eprintln!("`serve` and billing.run_due() judge the other parked events again: {error}");
    }
}

/// Tries again while a lock is not had.
async fn with_patience<T>(attempt: impl AsyncFn() -> Result<T, DatabaseError>) -> Result<T, DatabaseError> {
    let since = Instant::now();
    loop {
        match attempt().await {
            Err(DatabaseError::Locked(_)) if since.elapsed() < LOCK_PATIENCE => sleep(LOCK_PAUSE).await,
            result => return result,
        }
    }
}

fn read(file: &Path) -> Result<String, Error> {
    let bytes = if file == Path::new("-") {
        let mut bytes = Vec::new();
        std::io::stdin().read_to_end(&mut bytes).map(|_| bytes)
    } else {
        std::fs::read(file)
    };
    let bytes = bytes.map_err(|fault| Error::Input(format!("{}: {fault}", file.display())))?;
    String::from_utf8(bytes).map_err(|_| Error::Document(format!("{}: is not UTF-8", file.display())))
}

fn with_detail(fault: &tokio_postgres::Error) -> String {
    let Some(fault) = fault.as_db_error() else {
        return describe(fault);
    };
    match fault.detail() {
        Some(detail) => format!("{}\n{detail}", fault.message()),
        None => fault.message().to_owned(),
    }
}

/// A table of prices and changes, and a line of totals.
fn report(changes: &[PriceChange]) -> String {
    let width = changes.iter().map(|change| change.price_id.len()).max().unwrap_or(0).max("PRICE".len());
    let mut counts = BTreeMap::from([("added", 0), ("changed", 0), ("retired", 0), ("unchanged", 0)]);
    let mut text = format!("{:width$}  CHANGE\n", "PRICE");
    for PriceChange { price_id, change } in changes {
        let _ = writeln!(text, "{price_id:width$}  {change}");
        *counts.entry(change).or_default() += 1;
    }
    let counts: Vec<String> = counts.iter().map(|(change, count)| format!("{count} {change}")).collect();
    let _ = writeln!(text, "\n{}", counts.join(", "));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_report_lists_each_price_and_the_totals() {
        let change = |price_id: &str, change: &str| PriceChange {
            price_id: price_id.to_owned(),
            change: change.to_owned(),
        };
        let changes = [change("price_pack_500", "added"), change("price_pro", "unchanged")];
        let expected = "\
PRICE           CHANGE
price_pack_500  added
price_pro       unchanged

1 added, 0 changed, 0 retired, 1 unchanged
";
        assert_eq!(report(&changes), expected);
    }
}
