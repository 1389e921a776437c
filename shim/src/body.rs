//! Request bodies, limited in size and in time.

use std::time::Duration;

use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use hyper::body::{Body as _, Bytes, Incoming};
use thiserror::Error;
use tokio::time::timeout;

/// The maximum size of a body, in bytes; Stripe's largest events are a tenth of it.
const MAX_BODY_BYTES: usize = 1024 * 1024;
/// How long a body may take to arrive.
const BODY_READ_TIMEOUT: Duration = Duration::from_secs(10);
/// How much of a body that is too large is read and discarded before the response, in bytes: a client that writes all
/// of it before it reads would otherwise see a reset connection instead of a 413.
const MAX_DISCARDED_BYTES: u64 = 8 * 1024 * 1024;

/// Why a body could not be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub(crate) enum BodyError {
    #[error("the body is larger than {MAX_BODY_BYTES} bytes")]
    TooLarge,
    #[error("the body did not arrive within {} seconds", BODY_READ_TIMEOUT.as_secs())]
    Timeout,
    #[error("the body could not be read to its end")]
    Unreadable,
}

impl BodyError {
    /// The failure's name, for metrics and clients.
    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::TooLarge => "body_too_large",
            Self::Timeout => "body_timeout",
            Self::Unreadable => "body_unreadable",
        }
    }
}

/// Reads the whole body.
pub(crate) async fn read(body: Incoming) -> Result<Bytes, BodyError> {
    timeout(BODY_READ_TIMEOUT, read_bounded(body)).await.map_err(|_| BodyError::Timeout)?
}

async fn read_bounded(mut body: Incoming) -> Result<Bytes, BodyError> {
    if body.size_hint().lower() > MAX_BODY_BYTES as u64 {
        discard(&mut body).await;
        return Err(BodyError::TooLarge);
    }
    match Limited::new(&mut body, MAX_BODY_BYTES).collect().await {
        Ok(collected) => Ok(collected.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => {
            discard(&mut body).await;
            Err(BodyError::TooLarge)
        }
        Err(_) => Err(BodyError::Unreadable),
    }
}

/// Reads and discards the rest of a body.
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
