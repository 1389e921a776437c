//! `GET /credits`: the user's tier and balances.

use hyper::header::{CACHE_CONTROL, HeaderValue};
use uuid::Uuid;

use crate::app::App;
use crate::error::Error;
use crate::routes::request::Reply;
use crate::routes::user::AuthenticatedRequest;

/// The row of `billing.my_credits()`; zeros before the first grant.
pub(crate) async fn show(app: &App, request: &AuthenticatedRequest) -> Result<Reply, Error> {
    let mut reply = Reply::done(credits(app, request.user.id()).await?);
    // The balances are private, and outdated by the next spend.
    reply.response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(reply)
}

async fn credits(app: &App, user: Uuid) -> Result<String, Error> {
    let Some(cache) = &app.cache else {
        return Ok(app.database.credits(user).await?);
    };
    if let Some(credits) = cache.credits(user).await {
        return Ok(credits);
    }
    let credits = app.database.credits(user).await?;
    cache.store_credits(user, &credits).await;
    Ok(credits)
}
