//! Authentication: of an app's user and of an app's server by a bearer token, of a support person by a session.

pub(crate) mod session;
pub(crate) mod service;
pub(crate) mod token;
mod jwks;
mod verifier;

use thiserror::Error;

/// Why a request has no authenticated sender.
#[derive(Debug, Error, Clone, Copy, PartialEq, Eq)]
pub(crate) enum AuthError {
    #[error("there is no Authorization header")]
    Missing,
    #[error("the Authorization header holds no bearer token")]
    Malformed,
    #[error("the token's algorithm is none of ours, or not its key's")]
    Algorithm,
    #[error("the token's key is not known")]
    UnknownKey,
    #[error("the token's signature does not match")]
    Signature,
    #[error("the token has expired")]
    Expired,
    #[error("the token does not say until when it is valid")]
    NoExpiry,
    #[error("the token is not valid yet")]
    Immature,
    #[error("the token is for another audience")]
    Audience,
    #[error("the token is of another issuer")]
    Issuer,
    #[error("the token's sub is not a UUID")]
    Subject,
    #[error("the token's role is not the one that JWT_ROLE says")]
    Role,
    #[error("the token is none of SERVICE_TOKEN")]
    ServiceToken,
    #[error("the keys that sign the app's tokens could not be fetched")]
    KeysUnavailable,
}

impl AuthError {
    /// The failure's name, for metrics and logs. Clients do not get it, because it would help to forge a token.
    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::Missing => "token_missing",
            Self::Malformed => "token_malformed",
            Self::Algorithm => "token_algorithm",
            Self::UnknownKey => "token_unknown_key",
            Self::Signature => "token_signature",
            Self::Expired => "token_expired",
            Self::NoExpiry => "token_no_expiry",
            Self::Immature => "token_immature",
            Self::Audience => "token_audience",
            Self::Issuer => "token_issuer",
            Self::Subject => "token_subject",
            Self::Role => "token_role",
            Self::ServiceToken => "service_token",
            Self::KeysUnavailable => "token_keys_unavailable",
        }
    }

    /// The text for clients, in Supabase's words.
    pub(crate) fn client_text(self) -> &'static str {
        match self {
            Self::Missing => "Missing Authorization header",
            Self::KeysUnavailable => "the keys that sign the app's tokens could not be fetched",
            Self::Role => "Authorization failed",
            Self::ServiceToken => "Invalid service token",
            _ => "Invalid JWT",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_learns_that_a_token_is_missing_or_wrong_and_nothing_more() {
        assert_eq!(AuthError::Missing.client_text(), "Missing Authorization header");
        for error in [AuthError::Expired, AuthError::Signature, AuthError::UnknownKey, AuthError::Subject] {
            assert_eq!(error.client_text(), "Invalid JWT");
        }
    }
}
