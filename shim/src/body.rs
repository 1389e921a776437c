//! A request's body: bounded in size and in time, whoever sends it.

use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use hyper::body::{Body as _, Bytes, Incoming};
use std::time::Duration;
use tokio::time::timeout;

use crate::error::Error;

/// The largest body taken, in bytes; Stripe's largest events are a tenth of it.
pub(crate) const MAX_BODY_BYTES: usize = 1024 * 1024;
/// How long a body may take to arrive.
pub(crate) const BODY_READ_TIMEOUT: Duration = Duration::from_secs(10);
/// How much of a body that is too large is read and dropped before the refusal, in bytes: a client that writes all
/// before it reads would else see a reset connection instead of a 413.
const MAX_DISCARDED_BYTES: u64 = 8 * 1024 * 1024;

/// The whole body.
pub(crate) async fn read(body: Incoming) -> Result<Bytes, Error> {
    timeout(BODY_READ_TIMEOUT, read_bounded(body)).await.map_err(|_| Error::BodyTimeout)?
}

async fn read_bounded(mut body: Incoming) -> Result<Bytes, Error> {
    if body.size_hint().lower() > MAX_BODY_BYTES as u64 {
        discard(&mut body).await;
        return Err(Error::BodyTooLarge);
    }
    match Limited::new(&mut body, MAX_BODY_BYTES).collect().await {
        Ok(collected) => Ok(collected.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => {
            discard(&mut body).await;
            Err(Error::BodyTooLarge)
        }
        Err(_) => Err(Error::BodyUnreadable),
    }
}

/// Reads what is left of a body and keeps none of it.
async fn discard(body: &mut Incoming) {
    let mut left = MAX_DISCARDED_BYTES;
    if body.size_hint().lower() > left {
        return;
    }
    while let Some(Ok(frame)) = body.frame().await {
        let bytes = frame.data_ref().map_or(0, Bytes::len) as u64;
        let Some(rest) = left.checked_sub(bytes) else {
            return;
        };
        left = rest;
    }
}
