//! Applies one event: as received, together with the Stripe objects that the database asks for, or without its data
//! if Postgres cannot store it.

use stripe_credits_rules::verdict::VerdictName;

use crate::database::{Database, DatabaseError};
use crate::error::Error;
use crate::event::Event;
use crate::fetch;
use crate::outcome::Outcome;
use crate::stripe::client::StripeClient;

/// Applies the event.
pub(crate) async fn apply(
    database: &Database,
    stripe: Option<&StripeClient>,
    event: &Event,
) -> Result<Outcome, Error> {
    let result = apply_with_fetched(database, stripe, event).await;
    let Err(error @ Error::Database(DatabaseError::Data(_))) = &result else {
        return result;
    };
    // Only a body that jsonb cannot store fails every time; any other fault may pass with Stripe's next attempt.
    if database.can_store(event).await? {
        return result;
    }
    tracing::error!(event_id = event.id(), %error, "Postgres cannot store this event; recorded without its data");
    Ok(database.apply_stripe_event(&event.without_data()).await?)
}

async fn apply_with_fetched(
    database: &Database,
    stripe: Option<&StripeClient>,
    event: &Event,
) -> Result<Outcome, Error> {
    let outcome = database.apply_stripe_event(event).await?;
    if outcome.verdict() != VerdictName::NeedsFetch {
        return Ok(outcome);
    }
    // The event is in the inbox by now: a failure from here on loses nothing.
    let fetched = fetch::fetch(stripe, outcome.to_fetch()).await?;
    decided(database.apply_stripe_event_with(event, &fetched).await?)
}

/// The outcome that applying the event would have; nothing is written.
pub(crate) async fn explain(
    database: &Database,
    stripe: &StripeClient,
    event: &Event,
) -> Result<Outcome, Error> {
    let outcome = database.explain_event(event, None).await?;
    if outcome.verdict() != VerdictName::NeedsFetch {
        return Ok(outcome);
    }
    let fetched = fetch::fetch(Some(stripe), outcome.to_fetch()).await?;
    decided(database.explain_event(event, Some(&fetched)).await?)
}

fn decided(outcome: Outcome) -> Result<Outcome, Error> {
    if outcome.verdict() == VerdictName::NeedsFetch {
        return Err(DatabaseError::UnexpectedAnswer("it asks again for what was fetched".to_owned()).into());
    }
    Ok(outcome)
}
