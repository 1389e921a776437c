//! The sessions of the console: what a support person's browser holds after they have shown a service token.
//!
//! A session is a cookie with its end, a random number and the person's name, signed with a key that is made of the token.
//! So nothing is remembered here, every shim with the same token takes it, and it ends with the token.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use serde::{Deserialize, Serialize};
use sha2::Sha256;
use sha2::digest::Output;
use uuid::Uuid;

use crate::auth::service::ServiceTokens;

/// How long a session lasts, in seconds: a working day.
pub(crate) const SESSION_SECONDS: u64 = 12 * 60 * 60;
/// The longest name of a person, in bytes: the ledger keeps it.
pub(crate) const MAX_NAME_BYTES: usize = 100;
/// The longest cookie that is looked at, in bytes.
const MAX_COOKIE_BYTES: usize = 1024;

/// What a signature is for, so that none of one kind passes for another.
const OF_SESSION: &str = "session";
const OF_FORM: &str = "form";
const OF_NOTICE: &str = "notice";

/// A signed-in support person.
pub(crate) struct Session {
    /// The hash of the token with which they signed in.
    key: Output<Sha256>,
    cookie: String,
    /// What they call themselves: for the ledger and the log.
    pub(crate) name: String,
}

#[derive(Serialize, Deserialize)]
struct Content {
    /// Seconds since 1970.
    ends_at: u64,
    name: String,
    /// Makes each session's signatures its own.
    nonce: Uuid,
}

impl Session {
    /// Signs somebody in who sent this token; `None` if it is none of ours.
    pub(crate) fn begin(tokens: &ServiceTokens, token: &str, name: &str, now: u64) -> Option<Self> {
        let key = *tokens.recognize(token)?;
        let content =
            Content { ends_at: now + SESSION_SECONDS, name: name.to_owned(), nonce: Uuid::new_v4() };
        let content = URL_SAFE_NO_PAD.encode(serde_json::to_vec(&content).expect("texts and numbers"));
        let cookie = format!("{content}.{}", encoded(signature(&key, OF_SESSION, &content)));
        Some(Self { key, cookie, name: name.to_owned() })
    }

    /// The session of a cookie; `None` if it has ended, or was not made by [`Self::begin`] with one of these tokens.
    pub(crate) fn resume(tokens: &ServiceTokens, cookie: &str, now: u64) -> Option<Self> {
        if cookie.len() > MAX_COOKIE_BYTES {
            return None;
        }
        let (encoded, signed) = cookie.split_once('.')?;
        let signed = URL_SAFE_NO_PAD.decode(signed).ok()?;
        let is_of = |key: &&Output<Sha256>| signature(key, OF_SESSION, encoded).verify_slice(&signed).is_ok();
        let key = *tokens.hashes().find(is_of)?;
        let content: Content = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(encoded).ok()?).ok()?;
        (now < content.ends_at).then(|| Self { key, cookie: cookie.to_owned(), name: content.name })
    }

    /// The value of the cookie.
    pub(crate) fn cookie(&self) -> &str {
        &self.cookie
    }

    /// What every form of this session carries, so that no other site can send one.
    pub(crate) fn form_token(&self) -> String {
        encoded(signature(&self.key, OF_FORM, &self.cookie))
    }

    /// Whether a form was of this session.
    pub(crate) fn sent(&self, form_token: &str) -> bool {
        let signed = URL_SAFE_NO_PAD.decode(form_token).unwrap_or_default();
        signature(&self.key, OF_FORM, &self.cookie).verify_slice(&signed).is_ok()
    }

    /// A text for the next page of this session, as a cookie.
    pub(crate) fn seal(&self, text: &str) -> String {
        let content = URL_SAFE_NO_PAD.encode(text);
        let signed = signature(&self.key, OF_NOTICE, &format!("{}.{content}", self.cookie));
        format!("{content}.{}", encoded(signed))
    }

    /// The text that [`Self::seal`] made a cookie of.
    pub(crate) fn unseal(&self, cookie: &str) -> Option<String> {
        let (content, signed) = cookie.split_once('.')?;
        let signed = URL_SAFE_NO_PAD.decode(signed).ok()?;
        signature(&self.key, OF_NOTICE, &format!("{}.{content}", self.cookie)).verify_slice(&signed).ok()?;
        String::from_utf8(URL_SAFE_NO_PAD.decode(content).ok()?).ok()
    }
}

fn signature(key: &Output<Sha256>, of: &str, text: &str) -> Hmac<Sha256> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("a key of any length");
    mac.update(of.as_bytes());
    mac.update(b".");
    mac.update(text.as_bytes());
    mac
}

fn encoded(signature: Hmac<Sha256>) -> String {
    URL_SAFE_NO_PAD.encode(signature.finalize().into_bytes())
}

#[cfg(test)]
mod tests {
    use secrecy::SecretString;

    use super::*;

    const NOW: u64 = 1_800_000_000;

    fn tokens(tokens: &[&str]) -> ServiceTokens {
        ServiceTokens::new(&tokens.iter().map(|token| SecretString::from(*token)).collect::<Vec<_>>())
    }

    #[test]
    fn a_session_begins_with_a_token_and_ends_with_it_and_after_its_time() {
        let both = tokens(&["old-token", "new-token"]);
        assert!(Session::begin(&both, "old-toke", "Grace", NOW).is_none());
        let session = Session::begin(&both, "old-token", "Grace", NOW).unwrap();
        assert!(!session.cookie().contains("old-token"));
        let resumed = |tokens: &ServiceTokens, now| Session::resume(tokens, session.cookie(), now);
        assert_eq!(resumed(&both, NOW + SESSION_SECONDS - 1).unwrap().name, "Grace");
        assert!(resumed(&both, NOW + SESSION_SECONDS).is_none());
        assert!(resumed(&tokens(&["new-token"]), NOW).is_none(), "its token was rotated away");
    }

    #[test]
    fn no_changed_cookie_is_a_session() {
        let tokens = tokens(&["token"]);
        let cookie = Session::begin(&tokens, "token", "Grace", NOW).unwrap().cookie().to_owned();
        for at in 0..cookie.len() {
            let mut changed = cookie.clone().into_bytes();
            changed[at] = if changed[at] == b'A' { b'B' } else { b'A' };
            let changed = String::from_utf8(changed).unwrap();
            // The last character of base64 has bits that stand for nothing.
            let resumed = Session::resume(&tokens, &changed, NOW);
            assert!(resumed.is_none() || at == cookie.len() - 1, "{at}");
        }
        for none in ["", ".", "a.b", &"a".repeat(5000)] {
            assert!(Session::resume(&tokens, none, NOW).is_none(), "{none}");
        }
    }

    #[test]
    fn forms_and_notices_are_of_one_session_only() {
        let tokens = tokens(&["token"]);
        let begin = || Session::begin(&tokens, "token", "Grace", NOW).unwrap();
        let (one, other) = (begin(), begin());
        assert!(one.sent(&one.form_token()));
        assert!(!one.sent(&other.form_token()) && !one.sent("") && !one.sent("…"));
        let notice = one.seal("Gave 5 credits – done");
        assert_eq!(one.unseal(&notice).as_deref(), Some("Gave 5 credits – done"));
        assert_eq!(other.unseal(&notice), None);
        // A session's own signature is none of a form's or a notice's.
        let signed = one.cookie().split_once('.').unwrap().1;
        assert!(!one.sent(signed));
        assert_eq!(one.unseal(one.cookie()), None);
    }
}
