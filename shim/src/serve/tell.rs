//! Tells the app: claims events of the outbox, posts them to its endpoint and records what came of each.
//!
//! Several shims may do so: a claimed event is this shim's for a lease, and of each user only the first that is not
//! delivered can be claimed. No connection to Postgres is held while the endpoint is asked. What this process had when it
//! was killed is delivered after the lease, by whichever shim; so an event may come twice, and never not at all.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::watch;

use crate::app::App;
use crate::database::outbox::{Attempt, Claimed};
use crate::metrics::DELIVERED;
use crate::serve::claims;
use crate::telemetry::milliseconds;

/// How many events are posted at once.
const MAX_AT_ONCE: usize = 8;
/// How long to wait after each failed attempt, in seconds, as Standard Webhooks suggests; after the last of these, a
/// little over three days after the first attempt, the event is dead.
const RETRY_AFTER_SECONDS: [u64; 9] = [5, 300, 1_800, 7_200, 18_000, 36_000, 50_400, 72_000, 86_400];

/// Delivers until it is asked to stop, then ends the deliveries that have begun.
pub(super) async fn run(app: Arc<App>, stop: watch::Receiver<bool>) {
    if app.endpoint.is_none() {
        return;
    }
    let delivering = app.clone();
    claims::work(
        stop,
        MAX_AT_ONCE,
        |room| claim(&app, room),
        move |claimed| deliver(delivering.clone(), claimed),
    )
    .await;
}

async fn claim(app: &App, room: usize) -> Vec<Claimed> {
    app.database.claim_events(room).await.unwrap_or_else(|error| {
        // Deliveries of Stripe's say the same louder.
        tracing::debug!(%error, "events could not be claimed");
        Vec::new()
    })
}

async fn deliver(app: Arc<App>, claimed: Claimed) {
    let Some(endpoint) = &app.endpoint else { return };
    let started = Instant::now();
    let attempt = match endpoint.post(&claimed.event).await {
        Ok(()) => Attempt::Delivered,
        Err(error) => {
            Attempt::Failed { error: error.to_string(), retry_after_seconds: retry_after(claimed.attempts) }
        }
    };
    report(&app, &claimed, &attempt, started.elapsed());
    if let Err(error) = app.database.finish_event(&claimed, &attempt).await {
        // After its lease it is delivered again.
        tracing::warn!(%error, event_id = claimed.event.id, "what came of an event could not be recorded");
    }
}

/// How long to wait after so many attempts.
fn retry_after(attempts: i32) -> Option<u64> {
    let place = usize::try_from(attempts).ok()?.checked_sub(1)?;
    RETRY_AFTER_SECONDS.get(place).copied()
}

fn report(app: &App, claimed: &Claimed, attempt: &Attempt, took: Duration) {
    let Claimed { event, attempts, age_seconds } = claimed;
    let (result, error, retry_after) = match attempt {
        Attempt::Delivered => (DELIVERED, None, None),
        Attempt::Failed { error, retry_after_seconds: None } => ("dead", Some(error), None),
        Attempt::Failed { error, retry_after_seconds } => ("failed", Some(error), *retry_after_seconds),
    };
    app.metrics.told(&event.r#type, result, Duration::from_secs_f64(age_seconds.max(0.0)));
    macro_rules! line {
        ($level:ident) => {
            tracing::$level!(
                event_id = event.id,
                r#type = event.r#type,
                user_id = event.user_id.map(tracing::field::display),
                attempts,
                result,
                error,
                retry_after,
                ms = milliseconds(took),
                "told"
            )
        };
    }
    match result {
        DELIVERED => line!(info),
        "dead" => line!(error),
        _ => line!(warn),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attempts_go_on_over_days_and_end() {
        assert_eq!(
            (retry_after(0), retry_after(1), retry_after(9), retry_after(10)),
            (None, Some(5), Some(86_400), None)
        );
        let days = RETRY_AFTER_SECONDS.iter().sum::<u64>() / 86_400;
        assert_eq!(days, 3);
    }
}
