//! `GET /catalog`: the plans and packs on sale, for anyone.

use hyper::StatusCode;
use hyper::body::Bytes;
use hyper::header::{CACHE_CONTROL, ETAG, HeaderMap, HeaderValue, IF_NONE_MATCH};
use sha2::{Digest as _, Sha256};

use crate::app::App;
use crate::error::Error;
use crate::response::{Response, json_response};
use crate::routes::request::Reply;

/// Caches may keep the catalog for a minute, so a pricing page may show a change a minute late.
const CACHE_POLICY: HeaderValue = HeaderValue::from_static("public, max-age=60");

/// The plans and packs on sale; 304 if the client has them already.
pub(crate) async fn show(app: &App, request: &HeaderMap) -> Result<Reply, Error> {
    let json = app.database.on_sale().await?;
    let tag = format!("\"{:x}\"", Bytes::copy_from_slice(&Sha256::digest(&json)));
    let is_known = request.get_all(IF_NONE_MATCH).iter().any(|known| names(known, &tag));
    let mut response = if is_known {
        let mut response = Response::default();
        *response.status_mut() = StatusCode::NOT_MODIFIED;
        response
    } else {
        json_response(StatusCode::OK, json)
    };
    let headers = response.headers_mut();
    headers.insert(ETAG, HeaderValue::from_str(&tag).expect("quoted hex"));
    headers.insert(CACHE_CONTROL, CACHE_POLICY);
    Ok(Reply::of(response))
}

/// Whether an If-None-Match names this tag, possibly marked as weak by a proxy that compressed the body.
fn names(if_none_match: &HeaderValue, tag: &str) -> bool {
    let Ok(known) = if_none_match.to_str() else { return false };
    known.split(',').map(str::trim).any(|known| known == "*" || known.trim_start_matches("W/") == tag)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn if_none_match_may_name_the_tag_alone_in_a_list_or_weakly() {
        let names = |text| names(&HeaderValue::from_static(text), "\"a1\"");
        assert!(names("\"a1\"") && names("W/\"a1\"") && names("\"b2\", \"a1\"") && names("*"));
        assert!(!names("\"b2\"") && !names("a1") && !names(""));
    }
}
