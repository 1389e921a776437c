//! `GET /healthz`, `/readyz` and `/metrics`: liveness, readiness and metrics.

use std::sync::Arc;

use hyper::StatusCode;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use serde_json::json;

use crate::app::App;
use crate::database::DatabaseError;
use crate::error::Error;
use crate::metrics;
use crate::response::{Response, json_response};

/// The process is alive.
pub(crate) fn alive() -> Response {
    json_response(StatusCode::OK, json!({"ok": true}).to_string())
}

/// The database answers, has the extension, and has the mode of the Stripe key.
pub(crate) async fn ready(app: Arc<App>) -> Result<Response, Error> {
    let version = app.database.extension_version().await?.ok_or(DatabaseError::ExtensionMissing)?;
    app.check_mode().await?;
    Ok(json_response(StatusCode::OK, json!({"ready": true, "extension": version}).to_string()))
}

/// The metrics, without those from the database while it is down.
pub(crate) async fn scrape(app: Arc<App>) -> Result<Response, Error> {
    let parked_events = app.database.parked_events().await.ok();
    let text = app
        .metrics
        .render(&app.database.pool_status(), parked_events)
        .map_err(|_| Error::Internal("the metrics could not be written".to_owned()))?;
    let mut response = Response::new(text.into());
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(metrics::CONTENT_TYPE));
    Ok(response)
}
