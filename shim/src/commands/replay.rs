//! `replay EVENT_ID`: applies one event again, as Stripe has it now, or as the inbox kept it.

use crate::commands::repair::Repair;
use crate::commands::report::left;
use crate::config::Environment;
use crate::error::Error;
use crate::event::Event;
use crate::stripe::client::StripeError;

/// Applies the event and prints the outcome.
pub(crate) async fn run(event_id: &str, environment: &Environment) -> Result<(), Error> {
    let repair = Repair::open(environment).await?;
    let event = find(&repair, event_id).await?;
    let outcome = repair.apply(&event).await?;
    println!("{}", outcome.json());
    match left(&Ok(outcome)) {
        Some(_) => Err(Error::Findings(1)),
        None => Ok(()),
    }
}

async fn find(repair: &Repair, event_id: &str) -> Result<Event, Error> {
    // Only Stripe's own ids are paths of its API; the inbox keeps others, such as a reconcile's.
    let is_stripes = event_id.starts_with("evt_")
        && event_id.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    if is_stripes {
        match repair.stripe.get(&format!("/v1/events/{event_id}")).await {
            Ok(answer) => return Ok(Event::told(&answer.object)?),
            Err(StripeError::NotFound) => {}
            Err(error) => return Err(error.into()),
        }
    }
    match repair.database.kept_event(event_id).await? {
        Some(text) => Ok(Event::kept(text)?),
        None => Err(Error::UnknownEvent(event_id.to_owned())),
    }
}
