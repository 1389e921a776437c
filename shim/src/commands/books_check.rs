//! `books check`: proves the books with `validate_credits_consistency()`, and keeps the result for the metrics.

use serde_json::json;

use crate::commands::report::Report;
use crate::config::{DatabaseConfig, Environment};
use crate::database::Database;
use crate::database::operations::{BOOKS_CHECK, BooksFault};
use crate::error::Error;

/// Prints each user whose books differ.
pub(crate) async fn run(environment: &Environment) -> Result<(), Error> {
    let database = Database::new(&DatabaseConfig::read(environment)?);
    let mut report = Report::new();
    for BooksFault { user_id, detail } in prove(&database).await? {
        report.finding(&format!("{user_id}  {detail}"));
    }
    if !report.has_findings() {
        report.print("the books are right");
    }
    report.finish()
}

/// The users whose books differ; their number and the time are kept.
pub(crate) async fn prove(database: &Database) -> Result<Vec<BooksFault>, Error> {
    let faults = database.books_faults().await?;
    let position = json!({"faults": faults.len()}).to_string();
    database.move_cursor(BOOKS_CHECK, Some(&position)).await?;
    Ok(faults)
}
