//! The parsers of URLs: of servers, of origins and of the app's pages.

use std::fmt;
use std::net::IpAddr;

use hyper::Uri;
use hyper::header::HeaderValue;

/// The URL of a page of the app. It is checked, and kept as text because of its fragment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ReturnUrl(String);

impl ReturnUrl {
    /// The URL with `query` added to its query.
    pub(crate) fn with_query(&self, query: &str) -> String {
        let (page, fragment) =
            self.0.split_once('#').map_or((&*self.0, None), |(page, rest)| (page, Some(rest)));
        let separator = if page.contains('?') { '&' } else { '?' };
        let fragment = fragment.map(|fragment| format!("#{fragment}")).unwrap_or_default();
        format!("{page}{separator}{query}{fragment}")
    }
}

impl fmt::Display for ReturnUrl {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

pub(super) fn return_url(text: &str) -> Result<ReturnUrl, String> {
    // hyper's Uri has no fragment, and a page of an app that routes by fragment has one.
    server_url(text.split('#').next().unwrap_or_default())?;
    if text.bytes().all(|byte| byte.is_ascii_graphic()) {
        Ok(ReturnUrl(text.to_owned()))
    } else {
        Err("holds a character that must be escaped in a URL".to_owned())
    }
}

/// https to any host; http only to a loopback host, for tests and development: keys, tokens and session ids would
/// travel in the clear.
pub(super) fn server_url(text: &str) -> Result<Uri, String> {
    let uri: Uri = text.parse().map_err(|_| "is not a URL".to_owned())?;
    let (Some(scheme), Some(host)) = (uri.scheme_str(), uri.host()) else {
        return Err("is not a URL with a scheme and a host".to_owned());
    };
    match scheme {
        "https" => Ok(uri),
        "http" if is_loopback(host) => Ok(uri),
        "http" => Err("must be https, or http to a loopback host".to_owned()),
        _ => Err("must be https".to_owned()),
    }
}

pub(super) fn api_base(text: &str) -> Result<Uri, String> {
    match server_url(text)? {
        uri if uri.query().is_some() => Err("must not have a query".to_owned()),
        uri => Ok(uri),
    }
}

/// Origins as browsers write them: a scheme, a host, and a port unless it is the default, in lower case, nothing
/// else.
pub(super) fn origins(text: &str) -> Result<Vec<HeaderValue>, String> {
    let origin = |part: &str| {
        let origin = part.trim();
        if origin.contains('*') {
            return Err("must name each origin, without *".to_owned());
        }
        let uri = server_url(origin)?;
        let port = uri.port_u16().map(|port| format!(":{port}")).unwrap_or_default();
        let written =
            format!("{}://{}{port}", uri.scheme_str().unwrap_or_default(), uri.host().unwrap_or_default());
        let is_default = matches!(
            (uri.scheme_str(), uri.port_u16()),
            (Some("https"), Some(443)) | (Some("http"), Some(80))
        );
        if written != origin || written.to_ascii_lowercase() != written || is_default {
            return Err("must be origins as browsers send them, such as https://app.example, without a path"
                .to_owned());
        }
        HeaderValue::from_str(origin).map_err(|_| "is not ASCII".to_owned())
    };
    text.split(',').map(origin).collect()
}

fn is_loopback(host: &str) -> bool {
    let address = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || address.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn http_to_stripe_is_for_loopback_only() {
        for base in ["https://api.stripe.com", "http://127.0.0.1:9", "http://[::1]:9", "http://localhost:9"] {
            assert!(api_base(base).is_ok(), "{base}");
        }
        for base in
            ["http://10.0.0.1", "http://localhost.evil.example", "ftp://127.0.0.1", "stripe", "https://x?y"]
        {
            assert!(api_base(base).is_err(), "{base}");
        }
    }

    #[test]
    fn an_origin_is_what_a_browser_would_send() {
        for good in [
            "https://app.example",
            "http://localhost:5173",
            "https://a.example,https://b.example:8443",
            "http://[::1]:3000",
        ] {
            assert!(origins(good).is_ok(), "{good}");
        }
        for wrong in [
            "*",
            "null",
            "https://app.example/",
            "https://app.example:443",
            "https://App.example",
            "app.example",
            "https://app.example,",
            "https://u@app.example",
            "https://*.app.example",
            "http://app.example",
        ] {
            assert!(origins(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_page_keeps_its_query_and_its_fragment() {
        let back = |page_text| return_url(page_text).unwrap().with_query("x={Y}");
        assert_eq!(back("https://app.example"), "https://app.example?x={Y}");
        assert_eq!(back("https://app.example/back?a=b"), "https://app.example/back?a=b&x={Y}");
        assert_eq!(back("https://app.example/#/back"), "https://app.example/?x={Y}#/back");
        for wrong in
            ["", "back", "https://app.example/a b", "javascript:alert(1)", "https://app.example/\u{e9}"]
        {
            assert!(return_url(wrong).is_err(), "{wrong}");
        }
    }
}
