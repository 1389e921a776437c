//! CORS: which origins may read the responses. They are configured and compared exactly, without wildcards.
//! Credentials are never allowed, because the token is in a header.

use hyper::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_METHOD, HeaderMap,
    HeaderValue, ORIGIN, VARY,
};
use hyper::{Method, Request, StatusCode};

use crate::error::Error;
use crate::response::Response;

/// The headers that a page may send; Supabase's client adds `apikey` and `x-client-info` to every request.
const ALLOWED_HEADERS: HeaderValue = HeaderValue::from_static(
    "authorization, content-type, idempotency-key, last-event-id, apikey, x-client-info",
);
/// The headers that a page may read.
const EXPOSED_HEADERS: HeaderValue = HeaderValue::from_static("etag, retry-after");
/// How long a browser may cache a preflight's response, in seconds: the maximum of Chromium.
const MAX_AGE_SECONDS: u16 = 7200;

/// The response to a preflight for a route of this method, if the request is a preflight.
pub(crate) fn preflight<B>(
    origins: &[HeaderValue],
    request: &Request<B>,
    method: &Method,
) -> Option<Result<Response, Error>> {
    let headers = request.headers();
    if request.method() != Method::OPTIONS || !headers.contains_key(ACCESS_CONTROL_REQUEST_METHOD) {
        return None;
    }
    Some(allowed(origins, headers).map(|_| preflight_response(method)).ok_or(Error::OriginNotAllowed))
}

/// Lets a page read the response if its origin is one of `origins`.
pub(crate) fn admit(origins: &[HeaderValue], request: &HeaderMap, response: &mut Response) {
    if origins.is_empty() {
        return;
    }
    // A shared cache must not serve one origin's response to another.
    response.headers_mut().append(VARY, HeaderValue::from_static("Origin"));
    if let Some(origin) = allowed(origins, request) {
        response.headers_mut().insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
        response.headers_mut().insert(ACCESS_CONTROL_EXPOSE_HEADERS, EXPOSED_HEADERS);
    }
}

fn allowed<'a>(origins: &'a [HeaderValue], request: &HeaderMap) -> Option<&'a HeaderValue> {
    let origin = request.get(ORIGIN)?;
    origins.iter().find(|allowed| *allowed == origin)
}

fn preflight_response(method: &Method) -> Response {
    let mut response = Response::default();
    *response.status_mut() = StatusCode::NO_CONTENT;
    let headers = response.headers_mut();
    let method = HeaderValue::from_str(method.as_str()).expect("a method is a token");
    headers.insert(ACCESS_CONTROL_ALLOW_METHODS, method);
    headers.insert(ACCESS_CONTROL_ALLOW_HEADERS, ALLOWED_HEADERS);
    headers.insert(ACCESS_CONTROL_MAX_AGE, HeaderValue::from(MAX_AGE_SECONDS));
    response
}
