//! Everything that can end a request or a command, in one enum: the log's text (`Display`), the client's text, the
//! metric's label, the HTTP status and the exit code of a failure come from the same variant.
//!
//! The modules below define their own errors, and [`enum@Error`] wraps them: [`BodyError`], [`SignatureError`] and
//! [`MalformedEvent`] from reading a request, [`AuthError`] from authenticating its user, [`DatabaseError`] from
//! every statement, [`StripeError`] from every call of Stripe's API, [`ConfigError`] from reading the configuration.
//! A failed call of Stripe's API is `Stripe` for webhooks and commands, which are retried (503), and `BadGateway` for
//! a user's request (502). Routes and commands add the variants that belong to one of them.

use std::net::SocketAddr;
use std::time::Duration;

use hyper::StatusCode;
use thiserror::Error;

use crate::auth::AuthError;
use crate::body::BodyError;
use crate::config::ConfigError;
use crate::database::DatabaseError;
use crate::event::MalformedEvent;
use crate::signature::SignatureError;
use crate::stripe::client::StripeError;

/// A command succeeded and printed something that needs a person, in the manner of diff and grep.
pub(crate) const EXIT_FINDINGS: u8 = 1;
/// Usage or configuration is wrong (`EX_USAGE` of sysexits.h).
pub(crate) const EXIT_USAGE: u8 = 64;
/// The input is wrong (`EX_DATAERR`).
pub(crate) const EXIT_DATA: u8 = 65;
/// Stripe, the database or the shim is unavailable (`EX_UNAVAILABLE`).
pub(crate) const EXIT_UNAVAILABLE: u8 = 69;
/// An internal error (`EX_SOFTWARE`).
pub(crate) const EXIT_INTERNAL: u8 = 70;

/// What ends a request or a command.
#[derive(Debug, Error)]
pub(crate) enum Error {
    #[error("there is nothing here")]
    NotFound,
    // routes.rs, which knows the others, names them in the header Allow.
    #[error("this method is not allowed here")]
    MethodNotAllowed,
    #[error(transparent)]
    Body(#[from] BodyError),
    #[error(transparent)]
    Signature(#[from] SignatureError),
    #[error(transparent)]
    MalformedEvent(#[from] MalformedEvent),

    #[error(transparent)]
    Auth(#[from] AuthError),
    #[error("a setting is missing: {}", .0.join(", "))]
    MissingSettings(Vec<&'static str>),
    #[error("the origin is not one of CORS_ORIGINS")]
    OriginNotAllowed,
    // The fault may quote a secret from the body: the client reads it, the log does not.
    #[error("the request was not understood")]
    MalformedRequest(String),
    #[error("the user is no UUID, and without a user_namespace in the catalog it can be nothing else")]
    UnknownUser,
    // Postgres's message may quote an argument: the client reads it, the log does not.
    #[error("the call is wrong in itself")]
    InvalidCall(String),
    #[error("this is not the id of a checkout session")]
    NotASession,
    #[error("Stripe knows no such checkout session")]
    UnknownSession,
    #[error("the checkout session is not of mode {0}")]
    WrongMode(&'static str),
    #[error("this price is not on sale here")]
    InvalidPrice,
    #[error("there is a subscription already; it can be changed")]
    AlreadySubscribed,
    #[error("there is no subscription")]
    NoSubscription,
    #[error("the subscription is set to end; it has to be renewed before this change")]
    SubscriptionEnds,
    #[error("the preview is out of date; ask for a new one")]
    PreviewExpired,
    #[error("nothing was bought yet, so Stripe has nothing to show")]
    NoCustomer,
    #[error("{0}")]
    BadGateway(StripeError),
    #[error("too many requests of this user")]
    TooManyRequests {
        /// How long the user has to wait.
        retry_after: Duration,
    },
    #[error("too many requests at once")]
    Overloaded,

    #[error(transparent)]
    Database(#[from] DatabaseError),
    #[error(transparent)]
    Stripe(#[from] StripeError),
    #[error("STRIPE_SECRET_KEY: its mode contradicts the database's settings, whose livemode is {livemode}")]
    ModeConflict { livemode: bool },

    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error("cannot listen on {address}: {fault}")]
    Listen { address: SocketAddr, fault: std::io::Error },
    #[error("cannot read {0}")]
    Input(String),
    #[error("{0}")]
    Document(String),
    #[error("neither Stripe nor the inbox knows the event {0}; Stripe keeps events for 30 days")]
    UnknownEvent(String),
    #[error("the outbox has no event {0}: an id is as in webhook-id, and kept for 30 days")]
    UnknownAppEvent(String),
    #[error("the database has no catalog yet: load one with `stripe-credits catalog push FILE`")]
    NoCatalog,
    #[error("left for a person, and named on stdout: {0}")]
    Findings(usize),
    #[error("no shim answers at {0}")]
    ShimUnreachable(String),
    #[error("the shim answered {0}")]
    ShimRefused(StatusCode),
    #[error("the mirror: {0}")]
    Mirror(DatabaseError),
    #[error("the mirror's tables do not exist: stripe-credits mirror init")]
    NoMirror,
    #[error("the mirror's database has another encoding than UTF8")]
    MirrorEncoding,
    #[error("internal error: {0}")]
    Internal(String),
}

impl Error {
    /// The failure's name, for metrics and clients.
    pub(crate) fn label(&self) -> &'static str {
        match self {
            Self::NotFound => "not_found",
            Self::MethodNotAllowed => "method_not_allowed",
            Self::Body(body) => body.label(),
            Self::Signature(signature) => signature.label(),
            Self::MalformedEvent(_) => "malformed_body",
            Self::Auth(auth) => auth.label(),
            Self::MissingSettings(_) => "missing_settings",
            Self::OriginNotAllowed => "origin_not_allowed",
            Self::MalformedRequest(_) => "malformed_request",
            Self::UnknownUser => "unknown_user",
            Self::InvalidCall(_) => "invalid_call",
            Self::NotASession => "not_a_session",
            Self::UnknownSession => "unknown_session",
            Self::WrongMode(_) => "wrong_mode",
            Self::InvalidPrice => "INVALID_PRICE",
            Self::AlreadySubscribed => "already_subscribed",
            Self::NoSubscription => "no_subscription",
            Self::SubscriptionEnds => "subscription_ends",
            Self::PreviewExpired => "preview_expired",
            Self::NoCustomer => "no_customer",
            Self::TooManyRequests { .. } => "too_many_requests",
            Self::Overloaded => "overloaded",
            Self::Database(database) | Self::Mirror(database) => database.label(),
            Self::NoMirror => "no_mirror",
            Self::Stripe(stripe) | Self::BadGateway(stripe) => stripe.label(),
            Self::ModeConflict { .. } => "mode_conflict",
            Self::Config(_)
            | Self::Listen { .. }
            | Self::Input(_)
            | Self::Document(_)
            | Self::UnknownEvent(_)
            | Self::UnknownAppEvent(_)
            | Self::NoCatalog
            | Self::Findings(_)
            | Self::ShimUnreachable(_)
            | Self::MirrorEncoding
            | Self::ShimRefused(_) => "command",
            Self::Internal(_) => "internal",
        }
    }

    /// For a user's request: a failure of Stripe's is reported as one behind this server.
    pub(crate) fn into_bad_gateway(self) -> Self {
        match self {
            Self::Stripe(error) => Self::BadGateway(error),
            other => other,
        }
    }

    /// Whether the failure concerns only the object that was processed, so that a command can go on with the next.
    pub(crate) fn concerns_one_object(&self) -> bool {
        matches!(
            self,
            Self::Database(DatabaseError::Data(_) | DatabaseError::UnexpectedAnswer(_))
                | Self::MalformedEvent(_)
                | Self::Stripe(StripeError::Refused { .. } | StripeError::Malformed(_))
        )
    }

    /// The HTTP status. 503 means that a retry may succeed, and comes with Retry-After.
    pub(crate) fn status(&self) -> StatusCode {
        match self {
            Self::NotFound => StatusCode::NOT_FOUND,
            Self::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
            Self::Body(BodyError::TooLarge) => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Body(BodyError::Timeout) => StatusCode::REQUEST_TIMEOUT,
            Self::Body(BodyError::Unreadable)
            | Self::Signature(_)
            | Self::MalformedEvent(_)
            | Self::MalformedRequest(_)
            | Self::UnknownUser
            | Self::InvalidCall(_)
            | Self::NotASession
            | Self::UnknownSession
            | Self::WrongMode(_)
            | Self::InvalidPrice => StatusCode::BAD_REQUEST,
            Self::Auth(AuthError::KeysUnavailable) => StatusCode::SERVICE_UNAVAILABLE,
            Self::Auth(AuthError::Role) | Self::OriginNotAllowed => StatusCode::FORBIDDEN,
            Self::Auth(_) => StatusCode::UNAUTHORIZED,
            Self::AlreadySubscribed
            | Self::NoSubscription
            | Self::SubscriptionEnds
            | Self::PreviewExpired
            | Self::NoCustomer => StatusCode::CONFLICT,
            Self::TooManyRequests { .. } | Self::BadGateway(StripeError::OverShare) => {
                StatusCode::TOO_MANY_REQUESTS
            }
            Self::BadGateway(StripeError::Declined(_)) => StatusCode::PAYMENT_REQUIRED,
            Self::Database(error) | Self::Mirror(error) if error.is_transient() => {
                StatusCode::SERVICE_UNAVAILABLE
            }
            Self::Body(BodyError::NoMemory)
            | Self::Overloaded
            | Self::Database(DatabaseError::ExtensionMissing | DatabaseError::NotAllowed)
            | Self::ModeConflict { .. }
            | Self::Stripe(_)
            | Self::BadGateway(StripeError::RateLimited | StripeError::Busy) => {
                StatusCode::SERVICE_UNAVAILABLE
            }
            Self::BadGateway(_) => StatusCode::BAD_GATEWAY,
            _ => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    /// The text for an HTTP client: its own faults in full, internal ones without details.
    pub(crate) fn client_text(&self) -> String {
        match self {
            Self::Database(DatabaseError::Locked(_)) => "others are changing the same, try again".to_owned(),
            Self::Database(error) if error.is_transient() => {
                "the database could not be reached in time, try again".to_owned()
            }
            Self::Auth(auth) => auth.client_text().to_owned(),
            Self::MalformedRequest(fault) => format!("the request was not understood: {fault}"),
            Self::InvalidCall(message) => message.clone(),
            Self::BadGateway(StripeError::OverShare) => {
                "too many requests of all users, try again".to_owned()
            }
            Self::BadGateway(StripeError::Declined(code)) => format!("the payment was declined ({code})"),
            // A code is a word of Stripe's: it quotes nothing that was sent.
            Self::BadGateway(StripeError::Refused { code, .. }) => format!("Stripe refused this ({code})"),
            Self::BadGateway(StripeError::NotFound) => "Stripe refused this".to_owned(),
            Self::Stripe(_) | Self::BadGateway(_) => "Stripe's API could not be asked, try again".to_owned(),
            Self::Database(DatabaseError::ExtensionMissing | DatabaseError::NotAllowed)
            | Self::Body(BodyError::NoMemory)
            | Self::Overloaded
            | Self::ModeConflict { .. } => self.to_string(),
            _ if self.status().is_server_error() => "internal error".to_owned(),
            _ => self.to_string(),
        }
    }

    /// The exit code of a command that failed with this.
    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            Self::Findings(_) => EXIT_FINDINGS,
            Self::Config(_)
            | Self::ModeConflict { .. }
            | Self::Input(_)
            | Self::NoCatalog
            | Self::NoMirror
            | Self::MirrorEncoding
            | Self::Stripe(StripeError::Unauthorized(_)) => EXIT_USAGE,
            Self::Database(DatabaseError::Data(_))
            | Self::Document(_)
            | Self::UnknownEvent(_)
            | Self::UnknownAppEvent(_) => EXIT_DATA,
            Self::ShimRefused(status) if status.is_client_error() => EXIT_DATA,
            Self::Listen { .. } | Self::ShimUnreachable(_) | Self::ShimRefused(_) => EXIT_UNAVAILABLE,
            _ if self.status() == StatusCode::SERVICE_UNAVAILABLE => EXIT_UNAVAILABLE,
            _ => EXIT_INTERNAL,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Environment, ServeConfig};

    #[test]
    fn a_client_reads_its_own_fault_and_no_internals() {
        let late = Error::from(BodyError::Timeout);
        assert_eq!(late.client_text(), "the body did not arrive within 10 seconds");
        let away = Error::from(DatabaseError::Unavailable("connection refused by 10.0.0.7".to_owned()));
        assert!(!away.client_text().contains("10.0.0.7"));
        assert!(away.to_string().contains("10.0.0.7"));
        let answer = Error::from(DatabaseError::UnexpectedAnswer("secret".to_owned()));
        assert_eq!(answer.client_text(), "internal error");
    }

    #[test]
    fn transient_failures_are_503_and_others_are_not() {
        let timeout = DatabaseError::Timeout(Duration::from_secs(1));
        assert_eq!(Error::from(timeout).status(), StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(Error::Auth(AuthError::KeysUnavailable).status(), StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(Error::Stripe(StripeError::RateLimited).status(), StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(Error::Internal(String::new()).status(), StatusCode::INTERNAL_SERVER_ERROR);
        assert_eq!(Error::Signature(SignatureError::Mismatch).status(), StatusCode::BAD_REQUEST);
        assert_eq!(Error::Body(BodyError::TooLarge).status(), StatusCode::PAYLOAD_TOO_LARGE);
    }

    #[test]
    fn exit_codes_are_those_of_sysexits() {
        let empty = ServeConfig::read(&Environment::of(&[])).unwrap_err();
        assert_eq!(Error::from(empty).exit_code(), EXIT_USAGE);
        assert_eq!(Error::Document(String::new()).exit_code(), EXIT_DATA);
        let away = DatabaseError::Unavailable(String::new());
        assert_eq!(Error::from(away).exit_code(), EXIT_UNAVAILABLE);
        assert_eq!(Error::ShimRefused(StatusCode::BAD_REQUEST).exit_code(), EXIT_DATA);
        assert_eq!(Error::ShimRefused(StatusCode::BAD_GATEWAY).exit_code(), EXIT_UNAVAILABLE);
        assert_eq!(Error::Internal(String::new()).exit_code(), EXIT_INTERNAL);
    }
}
