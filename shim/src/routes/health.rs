//! What the shim says of itself: alive, ready, and its metrics.

use std::sync::Arc;

use hyper::StatusCode;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use serde_json::json;

use crate::app::App;
use crate::database::DatabaseError;
use crate::error::Error;
use crate::metrics;
use crate::response::{Response, json_response};

/// The process answers.
pub(crate) fn alive() -> Response {
    json_response(StatusCode::OK, json!({"ok": true}).to_string())
}

/// The database answers, has the extension, and keeps books of the Stripe key's mode.
pub(crate) async fn ready(app: Arc<App>) -> Result<Response, Error> {
    let version = app.database.extension_version().await?.ok_or(DatabaseError::ExtensionMissing)?;
    app.check_mode().await?;
    Ok(json_response(StatusCode::OK, json!({"ready": true, "extension": version}).to_string()))
}

/// The metrics. Those that only the database knows are left out while it is away.
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
