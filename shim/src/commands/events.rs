//! `events dead` and `events replay`: what could not be delivered to the app's endpoint, and delivering it again.

use crate::config::DatabaseConfig;
use crate::database::Database;
use crate::database::outbox::AppEvent;
use crate::error::Error;

/// Prints the dead events, a line of JSON each.
pub(crate) async fn dead(config: &DatabaseConfig) -> Result<(), Error> {
    let dead = Database::new(config).dead_events().await?;
    for event in &dead {
        println!("{event}");
    }
    match dead.len() {
        0 => Ok(()),
        count => Err(Error::Findings(count)),
    }
}

/// Makes one event pending again, delivered or not; without an id, all that are dead. `serve` delivers them.
pub(crate) async fn replay(id: Option<&str>, config: &DatabaseConfig) -> Result<(), Error> {
    let event = id
        .map(|id| AppEvent::parse_id(id).ok_or_else(|| Error::UnknownAppEvent(id.to_owned())))
        .transpose()?;
    let replayed = Database::new(config).replay_events(event).await?;
    match id {
        Some(id) if replayed == 0 => Err(Error::UnknownAppEvent(id.to_owned())),
        _ => {
            println!("{replayed} to be delivered again");
            Ok(())
        }
    }
}
