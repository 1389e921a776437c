//! `run-due`: posts what is due by time, for schedulers that have no SQL client.

use crate::config::DatabaseConfig;
use crate::database::Database;
use crate::error::Error;

/// Posts everything that is due, a batch at a time, and prints how much it was.
pub(crate) async fn run(config: &DatabaseConfig) -> Result<(), Error> {
    let database = Database::new(config);
    let mut posted = 0;
    loop {
        match database.run_due().await? {
            0 => break,
            batch => posted += batch,
        }
    }
    println!("accounts and parked events that were due: {posted}");
    Ok(())
}
