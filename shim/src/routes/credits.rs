//! `GET /credits`: the user's tier and balances; for older clients `POST /credits` with the action `status` too.

use hyper::header::{CACHE_CONTROL, HeaderValue};
use serde::Deserialize;
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

/// What an older client asks for; nothing is `status`.
#[derive(Deserialize)]
struct Asked {
    action: Option<String>,
}

/// The same as [`show`] for the action `status`; there is no other.
pub(crate) async fn act(app: &App, request: &AuthenticatedRequest) -> Result<Reply, Error> {
    let Asked { action } = request.read()?;
    match action.as_deref() {
        None | Some("status") => show(app, request).await,
        Some(_) => Err(Error::MalformedRequest("the only action is status".to_owned())),
    }
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
