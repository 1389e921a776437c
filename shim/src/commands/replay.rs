//! `replay EVENT_ID`: applies one event again, from Stripe's API or, if Stripe no longer has it, from the inbox.

use crate::commands::repair::Repair;
use crate::commands::report::needs_person;
use crate::config::Environment;
use crate::error::Error;
use crate::event::Event;
use crate::stripe::client::StripeError;
use crate::stripe::path::is_id;

/// Applies the event and prints the outcome.
pub(crate) async fn run(event_id: &str, environment: &Environment) -> Result<(), Error> {
    let repair = Repair::open(environment).await?;
    let event = find(&repair, event_id).await?;
    let outcome = repair.apply(&event).await?;
    println!("{}", outcome.json());
    match needs_person(&Ok(outcome)) {
        Some(_) => Err(Error::Findings(1)),
        None => Ok(()),
    }
}

async fn find(repair: &Repair, event_id: &str) -> Result<Event, Error> {
    // The inbox also has synthetic events, whose ids are not paths of Stripe's API.
    let is_stripe_id = event_id.starts_with("evt_") && is_id(event_id);
    if is_stripe_id {
        match repair.stripe.get(&format!("/v1/events/{event_id}")).await {
            Ok(object) => return Ok(Event::from_api(&object.json)?),
            Err(StripeError::NotFound) => {}
            Err(error) => return Err(error.into()),
        }
    }
    match repair.database.inbox_event(event_id).await? {
        Some(text) => Ok(Event::from_inbox(&text)?),
        None => Err(Error::UnknownEvent(event_id.to_owned())),
    }
}
