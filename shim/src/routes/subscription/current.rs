//! The user's own subscription, as Stripe has it now.

use stripe_credits_rules::subscription::Status;
use stripe_credits_rules::user::METADATA_KEYS;
use uuid::Uuid;

use crate::app::App;
use crate::error::Error;
use crate::stripe::client::{StripeError, StripeObject};
use crate::stripe::objects::{self, Subscription, TestClock};

/// A subscription, and the time at Stripe.
pub(crate) struct Current {
    pub(crate) object: StripeObject,
    pub(crate) subscription: Subscription,
    /// In seconds since 1970: of a customer's test clock, if it lives by one.
    pub(crate) now: u64,
}

impl Current {
    /// The subscription that determines the user's tier. The books say which one it is, and Stripe that it still runs and
    /// is still this user's.
    pub(crate) async fn read(app: &App, user: Uuid) -> Result<Self, Error> {
        let id = app.database.live_subscription(user).await?.ok_or(Error::NoSubscription)?;
        let path = format!("{}?expand[]=schedule&expand[]=latest_invoice", path(&id));
        let object = app.stripe()?.get(&path).await.map_err(|error| match error {
            StripeError::NotFound => Error::NoSubscription,
            error => Error::BadGateway(error),
        })?;
        let subscription: Subscription = object.read().map_err(Error::BadGateway)?;
        let runs = Status::parse(&subscription.status).is_some_and(Status::names_tier);
        if !runs || named_user(app, &subscription).await?.is_some_and(|named| named != user) {
            return Err(Error::NoSubscription);
        }
        let now = time(app, &subscription, object.as_of).await?;
        Ok(Self { object, subscription, now })
    }
}

/// The path of a subscription.
pub(crate) fn path(id: &str) -> String {
    objects::path("subscriptions", id)
}

/// The user that the subscription names: the server's latest word, which the books may not know yet.
async fn named_user(app: &App, subscription: &Subscription) -> Result<Option<Uuid>, Error> {
    for text in METADATA_KEYS.iter().filter_map(|key| subscription.metadata.get(*key)) {
        if let Some(user) = app.database.user_id(text).await? {
            return Ok(Some(user));
        }
    }
    Ok(None)
}

/// The time that Stripe bills the customer by.
async fn time(app: &App, subscription: &Subscription, as_of: u64) -> Result<u64, Error> {
    let Some(clock_id) = &subscription.test_clock else { return Ok(as_of) };
    let clock = app.stripe()?.get(&objects::path("test_helpers/test_clocks", clock_id)).await;
    let TestClock { frozen_time } = clock.and_then(|clock| clock.read()).map_err(Error::BadGateway)?;
    Ok(frozen_time)
}
