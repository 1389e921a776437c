//! The state that all requests share, built once from the configuration.

use std::sync::Arc;

use hyper::header::HeaderValue;
use secrecy::SecretString;
use stripe_credits_rules::reason::Reason;
use stripe_credits_rules::verdict::VerdictName;
use tracing_appender::non_blocking::ErrorCounter;

use crate::auth::service::ServiceTokens;
use crate::auth::token::Authenticator;
use crate::body::Bodies;
use crate::cache::Cache;
use crate::config::{ReturnUrls, ServeConfig, StripeMode};
use crate::connections::Connections;
use crate::database::{Database, DatabaseError};
use crate::endpoint::Endpoint;
use crate::error::Error;
use crate::limits::{Turns, UserRates};
use crate::metrics::Metrics;
use crate::mirror::Mirror;
use crate::outcome::Outcome;
use crate::streams::Streams;
use crate::stripe::client::StripeClient;
use crate::telemetry::Log;

/// The connections, keys and settings of a running server.
pub(crate) struct App {
    pub(crate) database: Database,
    /// For webhooks.
    pub(crate) stripe: Option<StripeClient>,
    /// For users' requests, with their share of Stripe's rate limit.
    stripe_for_users: Option<StripeClient>,
    /// The mode of the Stripe key, if there is one.
    pub(crate) mode: Option<StripeMode>,
    pub(crate) webhook_secrets: Vec<SecretString>,
    pub(crate) auth: Option<Authenticator>,
    /// Of the app's servers; without them, the routes for those do not exist.
    pub(crate) service_tokens: Option<ServiceTokens>,
    /// The origins whose pages may read the app's routes.
    pub(crate) cors_origins: Vec<HeaderValue>,
    pub(crate) return_urls: ReturnUrls,
    /// Optional: nothing depends on it.
    pub(crate) cache: Option<Cache>,
    /// Where the app is told what happens.
    pub(crate) endpoint: Option<Endpoint>,
    /// The app's own database, in which accounts are mirrored.
    pub(crate) mirror: Option<Mirror>,
    /// The pages that listen for the same.
    pub(crate) streams: Streams,
    pub(crate) metrics: Metrics,
    /// The lines that the log dropped.
    pub(crate) dropped_lines: ErrorCounter,
    pub(crate) connections: Arc<Connections>,
    pub(crate) bodies: Bodies,
    /// One user's requests at once.
    pub(crate) user_turns: Arc<Turns>,
    /// One user's requests that ask Stripe.
    pub(crate) user_rates: UserRates,
}

/// How many requests of one user are handled at once; further ones wait for their turn.
const USER_REQUESTS_AT_ONCE: usize = 2;

/// A setting that some routes need and that the configuration may lack.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Setting {
    TokenKeys,
    StripeKey,
    CheckoutSuccess,
    CheckoutCancel,
    PortalReturn,
}

impl App {
    /// Prepares the connections; none is opened yet.
    pub(crate) fn new(config: ServeConfig, connections: Arc<Connections>, log: &Log) -> Result<Self, Error> {
        let metrics = Metrics::new();
        let stripe = config.stripe.as_ref();
        Ok(Self {
            database: Database::new(&config.database),
            stripe: stripe.map(|stripe| StripeClient::new(stripe, metrics.stripe_calls())),
            stripe_for_users: stripe.map(|stripe| StripeClient::for_users(stripe, metrics.stripe_calls())),
            mode: stripe.map(|stripe| stripe.mode),
            webhook_secrets: config.webhook_secrets,
            auth: config.auth.as_ref().map(Authenticator::new),
            service_tokens: config.service_tokens.as_deref().map(ServiceTokens::new),
            cors_origins: config.cors_origins,
            return_urls: config.return_urls,
            cache: config.redis.as_ref().map(|redis| Cache::new(redis, metrics.redis_calls())).transpose()?,
            endpoint: config.events.as_ref().map(Endpoint::new),
            mirror: config.mirror.as_ref().map(Mirror::new),
            streams: Streams::default(),
            metrics,
            dropped_lines: log.dropped(),
            connections,
            bodies: Bodies::new(),
            user_turns: Turns::new(USER_REQUESTS_AT_ONCE),
            user_rates: UserRates::per_minute(config.user_requests_per_minute),
        })
    }

    /// The verifier of user tokens, for a route that needs it.
    pub(crate) fn auth(&self) -> Result<&Authenticator, Error> {
        self.auth.as_ref().ok_or_else(|| Setting::TokenKeys.missing())
    }

    /// The Stripe client for users' requests, for a route that needs it.
    pub(crate) fn stripe(&self) -> Result<&StripeClient, Error> {
        self.stripe_for_users.as_ref().ok_or_else(|| Setting::StripeKey.missing())
    }

    /// Whether a setting is present.
    pub(crate) fn has(&self, setting: Setting) -> bool {
        match setting {
            Setting::TokenKeys => self.auth.is_some(),
            Setting::StripeKey => self.stripe.is_some(),
            Setting::CheckoutSuccess => self.return_urls.checkout_success.is_some(),
            Setting::CheckoutCancel => self.return_urls.checkout_cancel.is_some(),
            Setting::PortalReturn => self.return_urls.portal_return.is_some(),
        }
    }

    /// See [`check_mode`]; without a Stripe key there is no mode to compare.
    pub(crate) async fn check_mode(&self) -> Result<(), Error> {
        match self.mode {
            Some(mode) => check_mode(&self.database, mode).await,
            None => Ok(()),
        }
    }

    /// Whether a delivery could be applied now: the database takes writes, has the extension, lets this role use it, and
    /// has the mode of the Stripe key. Returns the extension's version.
    pub(crate) async fn check_ready(&self) -> Result<String, Error> {
        let readiness = self.database.readiness().await?;
        if readiness.is_read_only {
            return Err(DatabaseError::ReadOnly("it is a standby, or set to read only".to_owned()).into());
        }
        let version = readiness.version.ok_or(DatabaseError::ExtensionMissing)?;
        if !readiness.may_apply {
            return Err(DatabaseError::NotAllowed.into());
        }
        self.mode.map_or(Ok(()), |mode| compare_modes(readiness.livemode, mode))?;
        Ok(version)
    }

    /// Counts an unknown price, whichever way the payment came, and updates Redis, if there is one, after an event was
    /// applied.
    pub(crate) async fn after_commit(&self, outcome: &Outcome, event_id: &str) {
        if outcome.verdict() == VerdictName::Parked && outcome.reason() == Some(Reason::UnknownPrice) {
            self.metrics.unknown_price_hit();
        }
        if let Some(cache) = &self.cache {
            cache.after_commit(&self.database, outcome, event_id).await;
        }
    }
}

impl Setting {
    /// The environment variable.
    pub(crate) fn variable(self) -> &'static str {
        match self {
            Self::TokenKeys => "JWT_SECRET or JWKS_URL",
            Self::StripeKey => "STRIPE_SECRET_KEY",
            Self::CheckoutSuccess => "CHECKOUT_SUCCESS_URL",
            Self::CheckoutCancel => "CHECKOUT_CANCEL_URL",
            Self::PortalReturn => "PORTAL_RETURN_URL",
        }
    }

    /// The error for this setting being absent.
    pub(crate) fn missing(self) -> Error {
        Error::MissingSettings(vec![self.variable()])
    }
}

/// Rejects a test key with a live database, and a live key with a test one. Before a catalog is loaded the database
/// has no mode.
pub(crate) async fn check_mode(database: &Database, mode: StripeMode) -> Result<(), Error> {
    compare_modes(database.livemode().await?, mode)
}

/// See [`check_mode`].
pub(crate) fn compare_modes(livemode: Option<bool>, mode: StripeMode) -> Result<(), Error> {
    match livemode {
        Some(livemode) if livemode != (mode == StripeMode::Live) => Err(Error::ModeConflict { livemode }),
        _ => Ok(()),
    }
}
