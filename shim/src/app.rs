//! The state that all requests share, built once from the configuration.

use hyper::header::HeaderValue;
use secrecy::SecretString;

use crate::auth::token::Authenticator;
use crate::cache::Cache;
use crate::config::{ReturnUrls, ServeConfig, StripeMode};
use crate::database::Database;
use crate::error::Error;
use crate::metrics::Metrics;
use crate::outcome::Outcome;
use crate::stripe::client::StripeClient;

/// The connections, keys and settings of a running server.
pub(crate) struct App {
    pub(crate) database: Database,
    pub(crate) stripe: Option<StripeClient>,
    /// The mode of the Stripe key, if there is one.
    pub(crate) mode: Option<StripeMode>,
    pub(crate) webhook_secrets: Vec<SecretString>,
    pub(crate) auth: Option<Authenticator>,
    /// The origins whose pages may read the app's routes.
    pub(crate) cors_origins: Vec<HeaderValue>,
    pub(crate) return_urls: ReturnUrls,
    /// Optional: nothing depends on it.
    pub(crate) cache: Option<Cache>,
    pub(crate) metrics: Metrics,
}

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
    pub(crate) fn new(config: ServeConfig) -> Result<Self, Error> {
        let metrics = Metrics::new();
        let stripe = config.stripe.as_ref();
        Ok(Self {
            database: Database::new(&config.database),
            stripe: stripe.map(|stripe| StripeClient::new(stripe, metrics.stripe_calls())),
            mode: stripe.map(|stripe| stripe.mode),
            webhook_secrets: config.webhook_secrets,
            auth: config.auth.as_ref().map(Authenticator::new),
            cors_origins: config.cors_origins,
            return_urls: config.return_urls,
            cache: config.redis.as_ref().map(|redis| Cache::new(redis, metrics.redis_calls())).transpose()?,
            metrics,
        })
    }

    /// The verifier of user tokens, for a route that needs it.
    pub(crate) fn auth(&self) -> Result<&Authenticator, Error> {
        self.auth.as_ref().ok_or_else(|| Setting::TokenKeys.missing())
    }

    /// The Stripe client, for a route that needs it.
    pub(crate) fn stripe(&self) -> Result<&StripeClient, Error> {
        self.stripe.as_ref().ok_or_else(|| Setting::StripeKey.missing())
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

    /// Updates Redis, if there is one, after an event was applied.
    pub(crate) async fn after_commit(&self, outcome: &Outcome, event_id: &str) {
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
    match database.livemode().await? {
        Some(livemode) if livemode != (mode == StripeMode::Live) => Err(Error::ModeConflict { livemode }),
        _ => Ok(()),
    }
}
