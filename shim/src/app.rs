//! What every request may use, made once from the configuration.

use hyper::header::HeaderValue;
use secrecy::SecretString;

use crate::auth::token::Auth;
use crate::cache::Cache;
use crate::config::{Pages, ServeConfig, StripeMode};
use crate::database::Database;
use crate::error::Error;
use crate::metrics::Metrics;
use crate::outcome::Outcome;
use crate::stripe::client::StripeApi;

/// The connections, keys and settings of a running server.
pub(crate) struct App {
    pub(crate) database: Database,
    pub(crate) stripe: Option<StripeApi>,
    /// Of the Stripe key, where there is one.
    pub(crate) mode: Option<StripeMode>,
    pub(crate) webhook_secrets: Vec<SecretString>,
    pub(crate) auth: Option<Auth>,
    /// The origins whose pages may read the app's routes.
    pub(crate) cors_origins: Vec<HeaderValue>,
    pub(crate) pages: Pages,
    /// Redis, where there is one. Nothing depends on it.
    pub(crate) cache: Option<Cache>,
    pub(crate) metrics: Metrics,
}

/// A setting that a route needs and that the configuration may lack.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Setting {
    TokenKeys,
    StripeKey,
    CheckoutSuccess,
    CheckoutCancel,
    PortalReturn,
}

impl App {
    /// Prepares every connection; none is opened yet.
    pub(crate) fn new(config: ServeConfig) -> Result<Self, Error> {
        let metrics = Metrics::new();
        let stripe = config.stripe.as_ref();
        Ok(Self {
            database: Database::new(&config.database),
            stripe: stripe.map(|stripe| StripeApi::new(stripe, metrics.stripe_calls())),
            mode: stripe.map(|stripe| stripe.mode),
            webhook_secrets: config.webhook_secrets,
            auth: config.auth.as_ref().map(Auth::new),
            cors_origins: config.cors_origins,
            pages: config.pages,
            cache: config.redis.as_ref().map(|redis| Cache::new(redis, metrics.redis_calls())).transpose()?,
            metrics,
        })
    }

    /// What proves users' tokens, for a route that cannot do without.
    pub(crate) fn auth(&self) -> Result<&Auth, Error> {
        self.auth.as_ref().ok_or_else(|| Setting::TokenKeys.missing())
    }

    /// Stripe, for a route that cannot do without.
    pub(crate) fn stripe(&self) -> Result<&StripeApi, Error> {
        self.stripe.as_ref().ok_or_else(|| Setting::StripeKey.missing())
    }

    /// Whether a setting is there.
    pub(crate) fn has(&self, setting: Setting) -> bool {
        match setting {
            Setting::TokenKeys => self.auth.is_some(),
            Setting::StripeKey => self.stripe.is_some(),
            Setting::CheckoutSuccess => self.pages.checkout_success.is_some(),
            Setting::CheckoutCancel => self.pages.checkout_cancel.is_some(),
            Setting::PortalReturn => self.pages.portal_return.is_some(),
        }
    }

    /// Refuses to mix test keys with live books, and the other way round.
    pub(crate) async fn check_mode(&self) -> Result<(), Error> {
        match self.mode {
            Some(mode) => check_mode(&self.database, mode).await,
            None => Ok(()),
        }
    }

    /// Tells Redis, where there is one, what an event came to.
    pub(crate) async fn after_commit(&self, outcome: &Outcome, event_id: &str) {
        if let Some(cache) = &self.cache {
            cache.after_commit(&self.database, outcome, event_id).await;
        }
    }
}

impl Setting {
    /// Its name in the environment.
    pub(crate) fn variable(self) -> &'static str {
        match self {
            Self::TokenKeys => "JWT_SECRET or JWKS_URL",
            Self::StripeKey => "STRIPE_SECRET_KEY",
            Self::CheckoutSuccess => "CHECKOUT_SUCCESS_URL",
            Self::CheckoutCancel => "CHECKOUT_CANCEL_URL",
            Self::PortalReturn => "PORTAL_RETURN_URL",
        }
    }

    /// The error that names it as missing.
    pub(crate) fn missing(self) -> Error {
        Error::MissingSettings(vec![self.variable()])
    }
}

/// Refuses to mix a test key with live books, and the other way round; without a catalog the books have no mode yet.
pub(crate) async fn check_mode(database: &Database, mode: StripeMode) -> Result<(), Error> {
    match database.livemode().await? {
        Some(livemode) if livemode != (mode == StripeMode::Live) => Err(Error::ModeConflict { livemode }),
        _ => Ok(()),
    }
}
