//! Everything that can go wrong. The log's text (`Display`), the client's text, the metric's label, the HTTP status
//! and the exit code of one failure all come from the same variant.

use std::time::Duration;

use hyper::StatusCode;
use thiserror::Error;

use crate::auth::token::AuthError;
use crate::body::{BODY_READ_TIMEOUT, MAX_BODY_BYTES};
use crate::config::Fault;
use crate::database::describe;
use crate::signature::SignatureError;
use crate::stripe::client::StripeError;

/// A command did its work, and something it named is left for a person: as diff and grep answer.
pub(crate) const EXIT_FINDINGS: u8 = 1;
/// Usage or configuration is wrong (`EX_USAGE` of sysexits.h).
pub(crate) const EXIT_USAGE: u8 = 64;
/// The input is wrong (`EX_DATAERR`).
pub(crate) const EXIT_DATA: u8 = 65;
/// Something outside is not there (`EX_UNAVAILABLE`).
pub(crate) const EXIT_UNAVAILABLE: u8 = 69;
/// A fault of our own (`EX_SOFTWARE`).
pub(crate) const EXIT_INTERNAL: u8 = 70;

/// How long a client is asked to wait, in seconds, when something outside is away.
pub(crate) const RETRY_AFTER_SECONDS: u32 = 10;

/// Whatever keeps a request or a command from being done.
#[derive(Debug, Error)]
pub(crate) enum Error {
    #[error("there is nothing here")]
    NotFound,
    #[error("only {0} is allowed here")]
    MethodNotAllowed(&'static str),
    #[error("the body is larger than {MAX_BODY_BYTES} bytes")]
    BodyTooLarge,
    #[error("the body did not arrive within {} seconds", BODY_READ_TIMEOUT.as_secs())]
    BodyTimeout,
    #[error("the body could not be read to its end")]
    BodyUnreadable,
    #[error(transparent)]
    Signature(#[from] SignatureError),
    #[error("the body is not a Stripe event: {0}")]
    MalformedBody(String),

    #[error(transparent)]
    Auth(#[from] AuthError),
    #[error("the keys that sign the app's tokens could not be fetched")]
    KeysUnavailable,
    #[error("a setting is missing: {}", .0.join(", "))]
    MissingSettings(Vec<&'static str>),
    #[error("the origin is not one of CORS_ORIGINS")]
    OriginNotAllowed,
    // What is wrong with it may be somebody's secret: the log says only that, the client reads the rest.
    #[error("the request was not understood")]
    MalformedRequest(String),
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
    #[error("nothing was bought yet, so Stripe has nothing to show")]
    NoCustomer,
    #[error("{0}")]
    Gateway(StripeError),

    #[error("the database is unreachable: {0}")]
    DatabaseUnavailable(String),
    #[error("the connection to the database was lost: {}", describe(.0))]
    ConnectionLost(tokio_postgres::Error),
    #[error("the database did not answer within {} seconds", .0.as_secs())]
    DatabaseTimeout(Duration),
    #[error("the transaction met another one: {}", describe(.0))]
    Conflict(tokio_postgres::Error),
    #[error("the database cannot take this: {}", describe(.0))]
    Data(tokio_postgres::Error),
    #[error("the database failed: {}", describe(.0))]
    Database(tokio_postgres::Error),
    #[error("the database's answer was not understood: {0}")]
    UnexpectedAnswer(String),
    #[error("the extension stripe_credits is not installed in this database")]
    ExtensionMissing,
    #[error(transparent)]
    Stripe(#[from] StripeError),

    #[error("the configuration is wrong\n{}", one_a_line(.0))]
    Configuration(Vec<Fault>),
    #[error("STRIPE_SECRET_KEY: its mode contradicts the database's settings, whose livemode is {livemode}")]
    ModeConflict { livemode: bool },
    #[error("cannot listen: {0}")]
    Listen(std::io::Error),
    #[error("cannot read {0}")]
    Input(String),
    #[error("{0}")]
    Document(String),
    #[error("neither Stripe nor the inbox knows the event {0}; Stripe keeps events for 30 days")]
    UnknownEvent(String),
    #[error("the database has no catalog yet: load one with `stripe-credits catalog push FILE`")]
    NoCatalog,
    #[error("left for a person, and named on stdout: {0}")]
    Findings(usize),
    #[error("no shim answers at {0}")]
    ShimUnreachable(String),
    #[error("the shim answered {0}")]
    ShimRefused(StatusCode),
    #[error("internal error: {0}")]
    Internal(String),
}

impl Error {
    /// The failure's name, for metrics and for clients that tell failures apart.
    pub(crate) fn label(&self) -> &'static str {
        match self {
            Self::NotFound => "not_found",
            Self::MethodNotAllowed(_) => "method_not_allowed",
            Self::BodyTooLarge => "body_too_large",
            Self::BodyTimeout => "body_timeout",
            Self::BodyUnreadable => "body_unreadable",
            Self::Signature(signature) => signature.label(),
            Self::MalformedBody(_) => "malformed_body",
            Self::Auth(auth) => auth.label(),
            Self::KeysUnavailable => "token_keys_unavailable",
            Self::MissingSettings(_) => "missing_settings",
            Self::OriginNotAllowed => "origin_not_allowed",
            Self::MalformedRequest(_) => "malformed_request",
            Self::NotASession => "not_a_session",
            Self::UnknownSession => "unknown_session",
            Self::WrongMode(_) => "wrong_mode",
            Self::InvalidPrice => "INVALID_PRICE",
            Self::AlreadySubscribed => "already_subscribed",
            Self::NoSubscription => "no_subscription",
            Self::NoCustomer => "no_customer",
            Self::DatabaseUnavailable(_) => "database_unavailable",
            Self::ConnectionLost(_) => "database_connection_lost",
            Self::DatabaseTimeout(_) => "database_timeout",
            Self::Conflict(_) => "database_conflict",
            Self::Data(_) => "database_data",
            Self::Database(_) => "database_error",
            Self::UnexpectedAnswer(_) => "unexpected_answer",
            Self::ExtensionMissing => "extension_missing",
            Self::Stripe(stripe) | Self::Gateway(stripe) => stripe.label(),
            Self::ModeConflict { .. } => "mode_conflict",
            Self::Configuration(_)
            | Self::Listen(_)
            | Self::Input(_)
            | Self::Document(_)
            | Self::UnknownEvent(_)
            | Self::NoCatalog
            | Self::Findings(_)
            | Self::ShimUnreachable(_)
            | Self::ShimRefused(_) => "command",
            Self::Internal(_) => "internal",
        }
    }

    /// Stripe failed while an app's request needed it. The app's client asked, so it learns that the fault lies
    /// behind us.
    pub(crate) fn at_gateway(self) -> Self {
        match self {
            Self::Stripe(error) => Self::Gateway(error),
            other => other,
        }
    }

    /// Whether it lies in what was worked on, so that the next may be worked on.
    pub(crate) fn is_of_one_object(&self) -> bool {
        matches!(
            self,
            Self::Data(_)
                | Self::MalformedBody(_)
                | Self::UnexpectedAnswer(_)
                | Self::Stripe(StripeError::Refused { .. } | StripeError::Malformed(_))
        )
    }

    /// The status an HTTP client gets. 503 promises that a retry may succeed and comes with Retry-After.
    pub(crate) fn status(&self) -> StatusCode {
        match self {
            Self::NotFound => StatusCode::NOT_FOUND,
            Self::MethodNotAllowed(_) => StatusCode::METHOD_NOT_ALLOWED,
            Self::BodyTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::BodyTimeout => StatusCode::REQUEST_TIMEOUT,
            Self::BodyUnreadable
            | Self::Signature(_)
            | Self::MalformedBody(_)
            | Self::MalformedRequest(_)
            | Self::NotASession
            | Self::UnknownSession
            | Self::WrongMode(_)
            | Self::InvalidPrice => StatusCode::BAD_REQUEST,
            Self::Auth(_) => StatusCode::UNAUTHORIZED,
            Self::OriginNotAllowed => StatusCode::FORBIDDEN,
            Self::AlreadySubscribed | Self::NoSubscription | Self::NoCustomer => StatusCode::CONFLICT,
            Self::Gateway(StripeError::Declined(_)) => StatusCode::PAYMENT_REQUIRED,
            Self::DatabaseUnavailable(_)
            | Self::ConnectionLost(_)
            | Self::DatabaseTimeout(_)
            | Self::Conflict(_)
            | Self::ExtensionMissing
            | Self::KeysUnavailable
            | Self::ModeConflict { .. }
            | Self::Stripe(_)
            | Self::Gateway(StripeError::RateLimited | StripeError::Busy) => StatusCode::SERVICE_UNAVAILABLE,
            Self::Gateway(_) => StatusCode::BAD_GATEWAY,
            _ => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    /// What an HTTP client reads: a client's own fault in full, ours without its insides.
    pub(crate) fn client_text(&self) -> String {
        match self {
            Self::DatabaseUnavailable(_)
            | Self::ConnectionLost(_)
            | Self::DatabaseTimeout(_)
            | Self::Conflict(_) => "the database could not be reached in time, try again".to_owned(),
            Self::Auth(auth) => auth.client_text().to_owned(),
            Self::MalformedRequest(fault) => format!("the request was not understood: {fault}"),
            Self::Gateway(StripeError::Declined(_)) => "the payment was declined".to_owned(),
            Self::Gateway(StripeError::Refused { .. } | StripeError::NotFound) => {
                "Stripe refused this".to_owned()
            }
            Self::Stripe(_) | Self::Gateway(_) => "Stripe's API could not be asked, try again".to_owned(),
            Self::ExtensionMissing | Self::KeysUnavailable | Self::ModeConflict { .. } => self.to_string(),
            _ if self.status().is_server_error() => "internal error".to_owned(),
            _ => self.to_string(),
        }
    }

    /// How the process ends when this ended a command.
    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            Self::Findings(_) => EXIT_FINDINGS,
            Self::Configuration(_) | Self::ModeConflict { .. } | Self::Input(_) | Self::NoCatalog => {
                EXIT_USAGE
            }
            Self::Stripe(StripeError::Unauthorized(_)) => EXIT_USAGE,
            Self::Data(_) | Self::Document(_) | Self::UnknownEvent(_) => EXIT_DATA,
            Self::ShimRefused(status) if status.is_client_error() => EXIT_DATA,
            Self::Listen(_) | Self::ShimUnreachable(_) | Self::ShimRefused(_) => EXIT_UNAVAILABLE,
            _ if self.status() == StatusCode::SERVICE_UNAVAILABLE => EXIT_UNAVAILABLE,
            _ => EXIT_INTERNAL,
        }
    }
}

fn one_a_line(faults: &[Fault]) -> String {
    let lines: Vec<String> = faults.iter().map(|fault| format!("  {fault}")).collect();
    lines.join("\n")
}

/// An error with its causes, on one line: the crates below us leave the cause out of their own text.
pub(crate) fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_reads_its_own_fault_and_none_of_our_insides() {
        let malformed = Error::MalformedBody("no id".to_owned());
        assert_eq!(malformed.client_text(), "the body is not a Stripe event: no id");
        let away = Error::DatabaseUnavailable("connection refused by 10.0.0.7".to_owned());
        assert!(!away.client_text().contains("10.0.0.7"));
        assert!(away.to_string().contains("10.0.0.7"));
        let answer = Error::UnexpectedAnswer("secret".to_owned());
        assert_eq!(answer.client_text(), "internal error");
    }

    #[test]
    fn what_may_pass_is_503_and_what_cannot_is_not() {
        assert_eq!(Error::DatabaseTimeout(Duration::from_secs(1)).status(), StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(Error::Stripe(StripeError::RateLimited).status(), StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(Error::Internal(String::new()).status(), StatusCode::INTERNAL_SERVER_ERROR);
        assert_eq!(Error::Signature(SignatureError::Mismatch).status(), StatusCode::BAD_REQUEST);
        assert_eq!(Error::BodyTooLarge.status(), StatusCode::PAYLOAD_TOO_LARGE);
    }

    #[test]
    fn exit_codes_are_those_of_sysexits() {
        assert_eq!(Error::Configuration(Vec::new()).exit_code(), EXIT_USAGE);
        assert_eq!(Error::Document(String::new()).exit_code(), EXIT_DATA);
        assert_eq!(Error::DatabaseUnavailable(String::new()).exit_code(), EXIT_UNAVAILABLE);
        assert_eq!(Error::ShimRefused(StatusCode::BAD_REQUEST).exit_code(), EXIT_DATA);
        assert_eq!(Error::ShimRefused(StatusCode::BAD_GATEWAY).exit_code(), EXIT_UNAVAILABLE);
        assert_eq!(Error::Internal(String::new()).exit_code(), EXIT_INTERNAL);
    }
}
