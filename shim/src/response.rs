//! HTTP responses: JSON bodies, and errors as clients read them.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use http_body_util::Full;
use hyper::StatusCode;
use hyper::body::{Body as HttpBody, Bytes, Frame, SizeHint};
use hyper::header::{CONTENT_TYPE, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE};
use serde_json::json;
use tokio::sync::mpsc::Receiver;

use crate::auth::AuthError;
use crate::error::Error;

/// The Retry-After of every 503, in seconds.
const RETRY_AFTER_SECONDS: u64 = 10;
/// The Retry-After for a user's request that found the share of Stripe's limit used up, in seconds: the share is one of a
/// second.
const RETRY_AFTER_SHARE_SECONDS: u64 = 2;

/// A response.
pub(crate) type Response = hyper::Response<Body>;

/// The body of a response.
#[derive(Debug)]
pub(crate) enum Body {
    /// All of it.
    Whole(Full<Bytes>),
    /// What comes, until its sender is gone.
    Stream(Receiver<Bytes>),
}

impl Default for Body {
    fn default() -> Self {
        Self::Whole(Full::default())
    }
}

impl From<String> for Body {
    fn from(text: String) -> Self {
        Self::Whole(text.into())
    }
}

impl HttpBody for Body {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        match self.get_mut() {
            Self::Whole(body) => Pin::new(body).poll_frame(context),
            Self::Stream(receiver) => receiver.poll_recv(context).map(|bytes| Some(Ok(Frame::data(bytes?)))),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Whole(body) => body.is_end_stream(),
            Self::Stream(_) => false,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(body) => body.size_hint(),
            Self::Stream(_) => SizeHint::default(),
        }
    }
}

/// A JSON response.
pub(crate) fn json_response(status: StatusCode, json: String) -> Response {
    let mut response = Response::new(json.into());
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// The response for an error: `{"error":{"code":…,"message":…}}`; in two cases the form that older clients of the app
/// expect.
pub(crate) fn error_response(error: &Error) -> Response {
    let status = error.status();
    let body = match error {
        Error::Auth(_) if matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) => {
            json!({"code": status.as_u16(), "message": error.client_text()})
        }
        Error::MissingSettings(missing) => json!({"error": "Configuration error", "missing": missing}),
        _ => json!({"error": {"code": error.label(), "message": error.client_text()}}),
    };
    let mut response = json_response(status, body.to_string());
    let headers = response.headers_mut();
    match error {
        Error::Auth(AuthError::Missing) => {
            headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        Error::Auth(_) if status == StatusCode::UNAUTHORIZED => {
            headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static(r#"Bearer error="invalid_token""#));
        }
        _ => {}
    }
    let retry_after = match error {
        Error::TooManyRequests { retry_after } | Error::TooManySignIns { retry_after } => {
            Some(retry_after.as_secs() + 1)
        }
        _ if status == StatusCode::TOO_MANY_REQUESTS => Some(RETRY_AFTER_SHARE_SECONDS),
        _ if status == StatusCode::SERVICE_UNAVAILABLE => Some(RETRY_AFTER_SECONDS),
        _ => None,
    };
    if let Some(seconds) = retry_after {
        headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
    }
    response
}
