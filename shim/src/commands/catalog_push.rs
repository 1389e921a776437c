//! `catalog push FILE`: loads a catalog document into the database, and applies the parked events that it makes due.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::Read as _;
use std::path::Path;
use std::time::{Duration, Instant};

use tokio::time::sleep;

use crate::config::DatabaseConfig;
use crate::database::catalog::PriceChange;
use crate::database::{Database, DatabaseError};
use crate::error::Error;
use crate::statements::describe;

/// How long locks are tried for, each time shortly, because every delivery waits behind a load that waits.
const LOCK_PATIENCE: Duration = Duration::from_secs(30);
/// The pause before the next try, in which deliveries are served.
const LOCK_PAUSE: Duration = Duration::from_secs(1);

/// Loads the document and prints the changes.
pub(crate) async fn run(file: &Path, config: &DatabaseConfig) -> Result<(), Error> {
    let document = read(file)?;
    let database = Database::new(config);
    match with_patience(async || database.load_catalog(&document).await).await {
        Ok(changes) => {
            print!("{}", report(&changes));
            apply_due(&database).await;
            Ok(())
        }
        // The database reports a fault in the document as a data error with its path.
        Err(DatabaseError::Data(fault)) => Err(Error::Document(with_detail(&fault))),
        Err(error) => Err(error.into()),
    }
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
