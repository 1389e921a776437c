//! `catalog push FILE`: loads a catalog document into the database.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::Read as _;
use std::path::Path;

use crate::config::DatabaseConfig;
use crate::database::catalog::PriceChange;
use crate::database::{Database, DatabaseError, describe};
use crate::error::Error;

/// Loads the document and prints the changes.
pub(crate) async fn run(file: &Path, config: &DatabaseConfig) -> Result<(), Error> {
    let document = read(file)?;
    let database = Database::new(config);
    match database.load_catalog(&document).await {
        Ok(changes) => {
            print!("{}", report(&changes));
            Ok(())
        }
        // The database reports a fault in the document as a data error with its path.
        Err(DatabaseError::Data(fault)) => Err(Error::Document(with_detail(&fault))),
        Err(error) => Err(error.into()),
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
