//! `GET /events`: the user's events as they happen, as Server-Sent Events. A page resumes with `Last-Event-ID`.

use std::time::{Duration, Instant};

use hyper::body::Bytes;
use hyper::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderMap, HeaderValue};
use tokio::sync::mpsc::Receiver;

use crate::app::App;
use crate::clock::unix_now;
use crate::error::Error;
use crate::response::{Body, Response};
use crate::routes::request::Reply;
use crate::routes::user::AuthenticatedRequest;
use crate::streams::Refused;

/// The number of the last event that a page has.
const LAST_EVENT_ID: &str = "last-event-id";
/// The Retry-After for a page whose user has too many.
const RETRY_AFTER_TOO_MANY: Duration = Duration::from_secs(30);

/// Opens the stream. It ends when the token or the connection does, whichever is first; the page then comes back with the
/// token that it has by then.
pub(crate) async fn listen(app: &App, request: &AuthenticatedRequest) -> Result<Reply, Error> {
    let user = request.user.id();
    let last = app.database.last_event(user).await?;
    // One that is not there yet would hide what is to come.
    let after = last_event_id(&request.headers)?.map_or(last, |after| after.min(last));
    let token_lasts = Duration::from_secs(request.user.expires_at().saturating_sub(unix_now()));
    let ends_at = Instant::now() + token_lasts.min(request.connection_lasts());
    let events = app.streams.open(user, after, ends_at).map_err(|refused| match refused {
        Refused::User => Error::TooManyRequests { retry_after: RETRY_AFTER_TOO_MANY },
        Refused::Full => Error::Overloaded,
    })?;
    Ok(Reply::of(stream(events)))
}

fn last_event_id(headers: &HeaderMap) -> Result<Option<i64>, Error> {
    let Some(value) = headers.get(LAST_EVENT_ID) else { return Ok(None) };
    let number = value.to_str().ok().and_then(|text| text.trim().parse().ok()).filter(|number| *number >= 0);
    let fault = || Error::MalformedRequest("Last-Event-ID is no id of an event".to_owned());
    number.map(Some).ok_or_else(fault)
}

fn stream(events: Receiver<Bytes>) -> Response {
    let mut response = Response::new(Body::Stream(events));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    // nginx would keep events until it has a buffer of them.
    headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
    response
}
