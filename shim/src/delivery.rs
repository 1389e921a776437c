//! One event into the database: as it came, or with what Stripe says of it, or as far as it can be stored.

use crate::database::{Database, DatabaseError};
use crate::error::Error;
use crate::event::Event;
use crate::fetch;
use crate::outcome::{Outcome, Verdict};
use crate::stripe::client::StripeApi;

/// Has the database apply the event.
pub(crate) async fn apply(
    database: &Database,
    stripe: Option<&StripeApi>,
    event: &Event,
) -> Result<Outcome, Error> {
    let result = apply_whole(database, stripe, event).await;
    let Err(error @ Error::Database(DatabaseError::Data(_))) = &result else {
        return result;
    };
    // Only a body that jsonb cannot hold will never do better; any other fault is worth Stripe's retries.
    if database.can_store(event).await? {
        return result;
    }
    tracing::error!(event_id = event.id(), %error, "Postgres cannot store this event; recorded without its data");
    Ok(database.apply_stripe_event(&event.without_data()).await?)
}

async fn apply_whole(
    database: &Database,
    stripe: Option<&StripeApi>,
    event: &Event,
) -> Result<Outcome, Error> {
    let outcome = database.apply_stripe_event(event).await?;
    if outcome.verdict() != Verdict::NeedsFetch {
        return Ok(outcome);
    }
    // The database has recorded the event by now: a failure from here on loses nothing.
    let fetched = fetch::fetch(stripe, outcome.to_fetch()).await?;
    answered(database.apply_stripe_event_with(event, &fetched).await?)
}

/// What applying the event would come to; nothing is written.
pub(crate) async fn explain(
    database: &Database,
    stripe: &StripeApi,
    event: &Event,
) -> Result<Outcome, Error> {
    let outcome = database.explain_event(event, None).await?;
    if outcome.verdict() != Verdict::NeedsFetch {
        return Ok(outcome);
    }
    let fetched = fetch::fetch(Some(stripe), outcome.to_fetch()).await?;
    answered(database.explain_event(event, Some(&fetched)).await?)
}

fn answered(outcome: Outcome) -> Result<Outcome, Error> {
    if outcome.verdict() == Verdict::NeedsFetch {
        return Err(DatabaseError::UnexpectedAnswer("it asks again for what was fetched".to_owned()).into());
    }
    Ok(outcome)
}
