//! CORS: which browsers' pages may read our answers. Origins are configured and compared whole; there is no wildcard,
//! and no cookie is ever asked for, because the token is in a header.

use hyper::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_METHOD, HeaderMap,
    HeaderValue, ORIGIN, VARY,
};
use hyper::{Method, Request, StatusCode};

use crate::error::Error;
use crate::response::Response;

/// What a page may send along; `apikey` and `x-client-info` are what Supabase's client adds to everything.
const ALLOWED_HEADERS: HeaderValue =
    HeaderValue::from_static("authorization, content-type, idempotency-key, apikey, x-client-info");
/// What a page may read beside the body.
const EXPOSED_HEADERS: HeaderValue = HeaderValue::from_static("etag, retry-after");
/// How long a browser may remember an answer to a preflight, in seconds; the longest that Chromium keeps.
const MAX_AGE_SECONDS: u16 = 7200;

/// The answer to a preflight, if the request is one: a browser asks before it sends what is `method` at this path.
pub(crate) fn preflight<B>(
    origins: &[HeaderValue],
    request: &Request<B>,
    method: &Method,
) -> Option<Result<Response, Error>> {
    let headers = request.headers();
    if request.method() != Method::OPTIONS || !headers.contains_key(ACCESS_CONTROL_REQUEST_METHOD) {
        return None;
    }
    Some(allowed(origins, headers).map(|_| allowance(method)).ok_or(Error::OriginNotAllowed))
}

/// Lets the page that sent `request` read the response, if its origin is one of `origins`.
pub(crate) fn admit(origins: &[HeaderValue], request: &HeaderMap, response: &mut Response) {
    if origins.is_empty() {
        return;
    }
    // A cache in between must not give one origin's answer to another.
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

fn allowance(method: &Method) -> Response {
    let mut response = Response::default();
    *response.status_mut() = StatusCode::NO_CONTENT;
    let headers = response.headers_mut();
    let method = HeaderValue::from_str(method.as_str()).expect("a method is a token");
    headers.insert(ACCESS_CONTROL_ALLOW_METHODS, method);
    headers.insert(ACCESS_CONTROL_ALLOW_HEADERS, ALLOWED_HEADERS);
    headers.insert(ACCESS_CONTROL_MAX_AGE, HeaderValue::from(MAX_AGE_SECONDS));
    response
}
