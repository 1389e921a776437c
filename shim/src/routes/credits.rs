//! `GET /credits`: the tier and the balances of the user who asks.

use hyper::header::{CACHE_CONTROL, HeaderValue};
use uuid::Uuid;

use crate::app::App;
use crate::error::Error;
use crate::routes::user::{Asked, Reply};

/// Answers the row of `billing.my_credits()`; to whom nothing was granted yet, zeros.
pub(crate) async fn show(app: &App, asked: &Asked) -> Result<Reply, Error> {
    let mut reply = Reply::done(credits(app, asked.user.id()).await?);
    // It is one user's, and old as soon as something is spent.
    reply.response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(reply)
}

async fn credits(app: &App, user: Uuid) -> Result<String, Error> {
    let Some(cache) = &app.cache else {
        return Ok(app.database.credits(user).await?);
    };
    if let Some(kept) = cache.credits(user).await {
        return Ok(kept);
    }
    let credits = app.database.credits(user).await?;
    cache.keep_credits(user, &credits).await;
    Ok(credits)
}
