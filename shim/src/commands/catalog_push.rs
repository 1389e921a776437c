//! The catalog: `catalog push FILE` makes the database's say what a document says, `GET /catalog` shows what is on
//! sale.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::Read as _;
use std::path::Path;

use hyper::StatusCode;
use hyper::body::Bytes;
use hyper::header::{CACHE_CONTROL, ETAG, HeaderMap, HeaderValue, IF_NONE_MATCH};
use sha2::{Digest as _, Sha256};

use crate::config::DatabaseConfig;
use crate::database::{Database, PriceChange, describe};
use crate::error::Error;
use crate::routes::user::Reply;
use crate::serve::{App, Response, json_response};

/// How long anybody may keep the catalog: as long, a change may go unnoticed on a pricing page.
const CACHE_POLICY: HeaderValue = HeaderValue::from_static("public, max-age=60");

/// Loads the document and prints what it changed.
pub(crate) async fn push(file: &Path, config: &DatabaseConfig) -> Result<(), Error> {
    let document = read(file)?;
    let database = Database::new(config)?;
    match database.load_catalog(&document).await {
        Ok(changes) => {
            print!("{}", report(&changes));
            Ok(())
        }
        // The document's faults come as errors of the database that name their path.
        Err(Error::Data(fault)) => Err(Error::Document(with_detail(&fault))),
        Err(error) => Err(error),
    }
}

/// Answers the plans and packs on sale, or that they are what the client has already.
pub(crate) async fn show(app: &App, request: &HeaderMap) -> Result<Reply, Error> {
    let json = app.database.on_sale().await?;
    let tag = format!("\"{:x}\"", Bytes::copy_from_slice(&Sha256::digest(&json)));
    let is_known = request.get_all(IF_NONE_MATCH).iter().any(|known| names(known, &tag));
    let mut response = if is_known {
        let mut response = Response::default();
        *response.status_mut() = StatusCode::NOT_MODIFIED;
        response
    } else {
        json_response(StatusCode::OK, json)
    };
    let headers = response.headers_mut();
    headers.insert(ETAG, HeaderValue::from_str(&tag).expect("quoted hex"));
    headers.insert(CACHE_CONTROL, CACHE_POLICY);
    Ok(Reply::of(response))
}

/// Whether an If-None-Match names this tag; a proxy that changed the bytes' form has marked it weak.
fn names(if_none_match: &HeaderValue, tag: &str) -> bool {
    let Ok(known) = if_none_match.to_str() else { return false };
    known.split(',').map(str::trim).any(|known| known == "*" || known.trim_start_matches("W/") == tag)
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

/// A table of prices and changes, and a line that sums them up.
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
    fn a_client_names_what_it_has_alone_among_others_or_weakly() {
        let names = |text| names(&HeaderValue::from_static(text), "\"a1\"");
        assert!(names("\"a1\"") && names("W/\"a1\"") && names("\"b2\", \"a1\"") && names("*"));
        assert!(!names("\"b2\"") && !names("a1") && !names(""));
    }

    #[test]
    fn the_report_lists_each_price_and_sums_up() {
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
