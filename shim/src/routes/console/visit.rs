//! One request of the console: its session, what its address and its form hold, and the responses with the headers that keep
//! the page to itself.

use hyper::StatusCode;
use hyper::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, COOKIE, HeaderMap, HeaderName, HeaderValue,
    LOCATION, REFERRER_POLICY, SET_COOKIE, X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS,
};
use maud::Markup;
use serde::{Deserialize, Serialize};

use crate::auth::session::{SESSION_SECONDS, Session};
use crate::response::Response;

/// The cookies: of the session, and of what the next page says.
const SESSION_COOKIE: &str = "stripe_credits_console";
const NOTICE_COOKIE: &str = "stripe_credits_notice";
/// How long the next page may take to be asked for, in seconds.
const NOTICE_SECONDS: u64 = 60;
/// The longest notice, in characters: a cookie has 4096 bytes.
const MAX_NOTICE_CHARS: usize = 400;

/// No script, no picture, no frame, nothing of another origin; forms go nowhere else.
const POLICY: &str =
    "default-src 'none'; style-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'";

/// What came of an action, for the next page to say.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Notice {
    pub(crate) is_done: bool,
    pub(crate) text: String,
}

/// One request.
pub(crate) struct Visit {
    pub(crate) session: Option<Session>,
    pub(crate) notice: Option<Notice>,
    /// The fields of the address, or of the form that was sent.
    fields: Vec<(String, String)>,
    /// Whether the browser came by TLS, as the proxy says.
    is_secure: bool,
}

/// What a page is drawn with, for somebody who is signed in.
pub(crate) struct Desk<'a> {
    pub(crate) session: &'a Session,
    pub(crate) notice: Option<&'a Notice>,
    /// What was searched for.
    pub(crate) query: &'a str,
}

impl Notice {
    /// Something was done.
    pub(crate) fn done(text: impl Into<String>) -> Self {
        Self { is_done: true, text: text.into() }
    }

    /// Nothing was done, for this reason.
    pub(crate) fn refused(text: impl Into<String>) -> Self {
        Self { is_done: false, text: text.into() }
    }
}

impl Visit {
    /// Reads a request: its headers, and the query of its address or its form.
    pub(crate) fn read(
        headers: &HeaderMap,
        encoded: &[u8],
        session: impl FnOnce(&str) -> Option<Session>,
    ) -> Self {
        let session = cookie(headers, SESSION_COOKIE).and_then(session);
        let notice = session
            .as_ref()
            .zip(cookie(headers, NOTICE_COOKIE))
            .and_then(|(session, sealed)| serde_json::from_str(&session.unseal(sealed)?).ok());
        let fields = form_urlencoded::parse(encoded).into_owned().collect();
        let is_secure = headers.get("x-forwarded-proto").is_some_and(|proto| proto == "https");
        Self { session, notice, fields, is_secure }
    }

    /// A field without the blanks around it; empty if it was not sent.
    pub(crate) fn field(&self, name: &str) -> &str {
        self.fields.iter().find(|(key, _)| key == name).map_or("", |(_, value)| value.trim())
    }

    /// Whether a form was sent by a page of this session.
    pub(crate) fn is_of(&self, session: &Session) -> bool {
        session.sent(self.field("form_token"))
    }

    /// Goes on at the start or at what was searched for, with a session that has just begun.
    pub(crate) fn signed_in(&self, session: &Session) -> Response {
        let mut response = to_search(self.field("q"), "");
        self.set_cookie(&mut response, SESSION_COOKIE, session.cookie(), SESSION_SECONDS);
        response
    }

    /// Goes to the sign-in page without a session.
    pub(crate) fn signed_out(&self) -> Response {
        let mut response = redirect("/console/sign-in");
        self.set_cookie(&mut response, NOTICE_COOKIE, "", 0);
        self.set_cookie(&mut response, SESSION_COOKIE, "", 0);
        response
    }

    /// Goes to the sign-in page, and from there to what was searched for.
    pub(crate) fn to_sign_in(&self) -> Response {
        redirect(&format!("/console/sign-in{}", query(self.field("q"))))
    }

    /// Goes back to what was searched for, which then says what came of the form.
    pub(crate) fn answered(&self, session: &Session, notice: &Notice) -> Response {
        let mut notice = notice.clone();
        if let Some((end, _)) = notice.text.char_indices().nth(MAX_NOTICE_CHARS) {
            notice.text.truncate(end);
            notice.text.push('…');
        }
        let sealed = session.seal(&serde_json::to_string(&notice).expect("a text and a truth"));
        let mut response = to_search(self.field("q"), "#notice");
        self.set_cookie(&mut response, NOTICE_COOKIE, &sealed, NOTICE_SECONDS);
        response
    }

    /// A page; what it says of the last form it says once.
    pub(crate) fn page(&self, status: StatusCode, page: Markup) -> Response {
        let mut response = page_response(status, page);
        if self.notice.is_some() {
            self.set_cookie(&mut response, NOTICE_COOKIE, "", 0);
        }
        response
    }

    fn set_cookie(&self, response: &mut Response, name: &str, value: &str, seconds: u64) {
        let secure = if self.is_secure { "; Secure" } else { "" };
        let cookie =
            format!("{name}={value}; Path=/console; Max-Age={seconds}; HttpOnly; SameSite=Strict{secure}");
        response.headers_mut().append(SET_COOKIE, HeaderValue::from_str(&cookie).expect("base64 and words"));
    }
}

fn cookie<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    let texts = headers.get_all(COOKIE).iter().filter_map(|value| value.to_str().ok());
    let mut pairs = texts.flat_map(|text| text.split(';')).filter_map(|pair| pair.trim().split_once('='));
    pairs.find(|(key, _)| *key == name).map(|(_, value)| value)
}

/// A page.
pub(crate) fn page_response(status: StatusCode, page: Markup) -> Response {
    let mut response = Response::new(page.into_string().into());
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
    response
}

/// The stylesheet of every page.
pub(crate) fn style() -> Response {
    let mut response = Response::new(include_str!("style.css").to_owned().into());
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/css; charset=utf-8"));
    response
}

fn query(searched: &str) -> String {
    match searched {
        "" => String::new(),
        _ => format!(
            "?{}",
            form_urlencoded::Serializer::new(String::new()).append_pair("q", searched).finish()
        ),
    }
}

fn to_search(searched: &str, fragment: &str) -> Response {
    redirect(&format!("/console{}{fragment}", query(searched)))
}

/// Redirects to a path of the console, by GET, so that a reload sends no form again.
fn redirect(location: &str) -> Response {
    let mut response = Response::default();
    *response.status_mut() = StatusCode::SEE_OTHER;
    response.headers_mut().insert(LOCATION, HeaderValue::from_str(location).expect("percent-encoded"));
    response
}

/// Adds what keeps a response to the browser that asked for it.
pub(crate) fn protect(response: &mut Response) {
    let headers = response.headers_mut();
    let mut set = |name: HeaderName, value| headers.insert(name, HeaderValue::from_static(value));
    set(CONTENT_SECURITY_POLICY, POLICY);
    set(X_FRAME_OPTIONS, "DENY");
    set(X_CONTENT_TYPE_OPTIONS, "nosniff");
    set(REFERRER_POLICY, "no-referrer");
    set(CACHE_CONTROL, "no-store");
    set(HeaderName::from_static("cross-origin-opener-policy"), "same-origin");
    set(HeaderName::from_static("cross-origin-resource-policy"), "same-origin");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_searched_for_leads_nowhere_but_to_the_console() {
        for (searched, location) in [
            ("", "/console#notice"),
            ("cs_1", "/console?q=cs_1#notice"),
            ("//evil.example", "/console?q=%2F%2Fevil.example#notice"),
            ("a\r\nSet-Cookie: b=c", "/console?q=a%0D%0ASet-Cookie%3A+b%3Dc#notice"),
        ] {
            assert_eq!(to_search(searched, "#notice").headers()[LOCATION], location, "{searched:?}");
        }
    }

    #[test]
    fn a_cookie_is_found_among_others() {
        let headers = HeaderMap::from_iter([
            (COOKIE, HeaderValue::from_static("a=1; stripe_credits_consoles=2")),
            (COOKIE, HeaderValue::from_static("stripe_credits_console=3=4")),
        ]);
        assert_eq!(cookie(&headers, SESSION_COOKIE), Some("3=4"));
        assert_eq!(cookie(&headers, NOTICE_COOKIE), None);
    }
}
