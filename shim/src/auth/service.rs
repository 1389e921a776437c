//! Authentication of an app's own servers by a shared token.

use hyper::header::HeaderMap;
use secrecy::{ExposeSecret as _, SecretString};
use sha2::digest::Output;
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;

use crate::auth::AuthError;
use crate::auth::token::bearer;

/// The tokens that servers may send: several while one replaces another. Only their hashes are kept, so that a
/// comparison takes the same time for a token of any length.
pub(crate) struct ServiceTokens(Vec<Output<Sha256>>);

impl ServiceTokens {
    /// Prepares the tokens.
    pub(crate) fn new(tokens: &[SecretString]) -> Self {
        Self(tokens.iter().map(|token| Sha256::digest(token.expose_secret())).collect())
    }

    /// Whether the request's bearer token is one of them, in constant time.
    pub(crate) fn authenticate(&self, headers: &HeaderMap) -> Result<(), AuthError> {
        self.recognize(bearer(headers)?).map(drop).ok_or(AuthError::ServiceToken)
    }

    /// The hash of the token that this is, in constant time.
    pub(crate) fn recognize(&self, sent: &str) -> Option<&Output<Sha256>> {
        let sent = Sha256::digest(sent);
        let is_known = |token: &Output<Sha256>| bool::from(token.as_slice().ct_eq(sent.as_slice()));
        // Not `find`, which ends at the first that fits.
        self.0.iter().fold(None, |known, token| if is_known(token) { Some(token) } else { known })
    }

    /// The hashes of all tokens.
    pub(crate) fn hashes(&self) -> impl Iterator<Item = &Output<Sha256>> {
        self.0.iter()
    }
}

#[cfg(test)]
mod tests {
    use hyper::header::{AUTHORIZATION, HeaderValue};

    use super::*;

    #[test]
    fn only_a_whole_token_of_the_list_is_accepted() {
        let tokens = ServiceTokens::new(&["first-token", "second-token"].map(SecretString::from));
        let with = |value: &'static str| {
            tokens.authenticate(&HeaderMap::from_iter([(AUTHORIZATION, HeaderValue::from_static(value))]))
        };
        assert_eq!(with("Bearer first-token"), Ok(()));
        assert_eq!(with("Bearer second-token"), Ok(()));
        for wrong in
            ["Bearer first-toke", "Bearer first-tokens", "Bearer first-token,second-token", "Bearer x"]
        {
            assert_eq!(with(wrong), Err(AuthError::ServiceToken), "{wrong}");
        }
        assert_eq!(with("Basic first-token"), Err(AuthError::Malformed));
        assert_eq!(tokens.authenticate(&HeaderMap::new()), Err(AuthError::Missing));
    }
}
