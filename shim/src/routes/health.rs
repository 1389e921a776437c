//! `GET /healthz`, `/readyz` and `/metrics`: liveness, readiness and metrics. What the database is asked for is kept for a
//! short time and asked once at a time, so that no number of probes and scrapes is a load.

use std::sync::Arc;
use std::time::{Duration, Instant};

use hyper::StatusCode;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use serde_json::json;
use tokio::sync::Mutex;

use crate::app::App;
use crate::error::Error;
use crate::metrics::{self, Now};
use crate::response::{Response, error_response, json_response};
use crate::status::{Status, WaitingAccounts, WaitingEvents};

/// How old a readiness may be that is answered.
const READINESS_MAX_AGE: Duration = Duration::from_secs(1);
/// How old the database's status may be that is answered.
const STATUS_MAX_AGE: Duration = Duration::from_secs(5);

/// The extension's version, or why a delivery could not be applied.
static READINESS: Kept<Result<String, Arc<Error>>> = Kept::none();
static STATUS: Kept<Option<Status>> = Kept::none();
static WAITING_ACCOUNTS: Kept<Option<WaitingAccounts>> = Kept::none();
static WAITING_EVENTS: Kept<Option<WaitingEvents>> = Kept::none();

/// The last answer to a question. While it is asked again, whoever else asks waits for the same answer.
struct Kept<T>(Mutex<Option<(Instant, T)>>);

impl<T: Clone> Kept<T> {
    const fn none() -> Self {
        Self(Mutex::const_new(None))
    }

    async fn get(&self, max_age: Duration, ask: impl Future<Output = T>) -> T {
        let mut kept = self.0.lock().await;
        if let Some((at, answer)) = &*kept
            && at.elapsed() < max_age
        {
            return answer.clone();
        }
        let answer = ask.await;
        *kept = Some((Instant::now(), answer.clone()));
        answer
    }
}

/// The process is alive.
pub(crate) fn alive() -> Response {
    json_response(StatusCode::OK, json!({"ok": true}).to_string())
}

/// A delivery could be applied now.
pub(crate) async fn ready(app: &App) -> Response {
    let ask = async {
        app.check_ready().await.map_err(|error| {
            tracing::warn!(%error, "not ready");
            Arc::new(error)
        })
    };
    match READINESS.get(READINESS_MAX_AGE, ask).await {
        Ok(version) => {
            json_response(StatusCode::OK, json!({"ready": true, "extension": version}).to_string())
        }
        Err(error) => error_response(&error),
    }
}

/// The metrics, without those from the database while it is down.
pub(crate) async fn scrape(app: &App) -> Result<Response, Error> {
    let ask = async { app.database.status().await.ok() };
    let status = STATUS.get(STATUS_MAX_AGE, ask).await;
    // Without an endpoint nothing is delivered, and nothing waits.
    let waiting_events = if app.endpoint.is_some() {
        let count = async { app.database.waiting_events().await.ok() };
        WAITING_EVENTS.get(STATUS_MAX_AGE, count).await
    } else {
        None
    };
    let waiting_accounts = if app.mirror.is_some() {
        let count = async { app.database.waiting_for_mirror().await.ok() };
        WAITING_ACCOUNTS.get(STATUS_MAX_AGE, count).await
    } else {
        None
    };
    let now = Now {
        pool: app.database.pool_status(),
        dropped_lines: app.dropped_lines.dropped_lines(),
        status,
        waiting_events,
        waiting_accounts,
        streams: app.streams.count(),
    };
    let text = app
        .metrics
        .render(&now)
        .map_err(|_| Error::Internal("the metrics could not be written".to_owned()))?;
    let mut response = Response::new(text.into());
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(metrics::CONTENT_TYPE));
    Ok(response)
}
