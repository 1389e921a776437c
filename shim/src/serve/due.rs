//! Applies parked events that are due: those that the last load of the catalog, or a link of a customer, left for later.

use std::time::Duration;

use crate::database::Database;

/// How often it is looked whether something is due: what a person waits for after a load of the catalog.
const POLL: Duration = Duration::from_secs(5);

/// Applies without an end, a transaction a batch. Deliveries are served between two of them, and those that wait for one
/// wait for less than their limit.
pub(super) async fn apply(database: &Database) {
    loop {
        match database.retry_due().await {
            Ok(0) => tokio::time::sleep(POLL).await,
            Ok(events) => tracing::info!(events, "parked events that were due were judged again"),
            Err(error) => {
                // Deliveries say the same louder.
                tracing::debug!(%error, "parked events that are due could not be judged again");
                tokio::time::sleep(POLL).await;
            }
        }
    }
}
