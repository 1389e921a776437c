//! Request bodies, limited in size and in time, and all that are in memory together limited in size.

use std::sync::Arc;
use std::time::Duration;

use http_body_util::BodyExt as _;
use hyper::body::{Body as _, Bytes, Incoming};
use thiserror::Error;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

/// The maximum size of a body, in bytes; Stripe's largest events are a tenth of it.
const MAX_BODY_BYTES: usize = 1024 * 1024;
/// How long a body may take to arrive.
const BODY_READ_TIMEOUT: Duration = Duration::from_secs(10);
/// How much of a body that is too large is read and discarded before the response, in bytes: a client that writes all
/// of it before it reads would otherwise see a reset connection instead of a 413.
const MAX_DISCARDED_BYTES: u64 = 8 * 1024 * 1024;

/// What all bodies together may hold in memory, in bytes, not counting the first bytes of each.
const MAX_HELD_BYTES: usize = 64 * 1024 * 1024;
/// The first bytes of a body, which are not counted: so many hold most of Stripe's events, so that these are taken also
/// while others have used up what is counted. How many bodies there are is limited by the number of connections.
const FREE_BYTES: usize = 16 * 1024;

/// The memory for bodies.
pub(crate) struct Bodies(Arc<Semaphore>);

/// A body in memory, whose part of the memory for bodies is given back when this is dropped.
pub(crate) struct HeldBody {
    pub(crate) bytes: Bytes,
    _held: Option<OwnedSemaphorePermit>,
}

/// Why a body could not be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub(crate) enum BodyError {
    #[error("the body is larger than {MAX_BODY_BYTES} bytes")]
    TooLarge,
    #[error("the body did not arrive within {} seconds", BODY_READ_TIMEOUT.as_secs())]
    Timeout,
    #[error("the body could not be read to its end")]
    Unreadable,
    #[error("there is no memory for this body now")]
    NoMemory,
}

impl BodyError {
    /// The failure's name, for metrics and clients.
    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::TooLarge => "body_too_large",
            Self::Timeout => "body_timeout",
            Self::Unreadable => "body_unreadable",
            Self::NoMemory => "body_no_memory",
        }
    }
}

impl Bodies {
    /// All of the memory.
    pub(crate) fn new() -> Self {
        Self(Arc::new(Semaphore::new(MAX_HELD_BYTES)))
    }

    /// Reads the whole body.
    pub(crate) async fn read(&self, body: Incoming) -> Result<HeldBody, BodyError> {
        timeout(BODY_READ_TIMEOUT, self.read_bounded(body)).await.map_err(|_| BodyError::Timeout)?
    }

    async fn read_bounded(&self, mut body: Incoming) -> Result<HeldBody, BodyError> {
        if body.size_hint().lower() > MAX_BODY_BYTES as u64 {
            discard(&mut body).await;
            return Err(BodyError::TooLarge);
        }
        // Counted as it arrives: who only announces a large body takes nothing from others.
        let (mut bytes, mut held) = (Vec::new(), None);
        while let Some(frame) = body.frame().await {
            let Ok(data) = frame.map_err(|_| BodyError::Unreadable)?.into_data() else { continue };
            if bytes.len() + data.len() > MAX_BODY_BYTES {
                drop((bytes, held));
                discard(&mut body).await;
                return Err(BodyError::TooLarge);
            }
            let before = bytes.len().max(FREE_BYTES);
            bytes.extend_from_slice(&data);
            self.hold(&mut held, bytes.len().saturating_sub(before))?;
        }
        Ok(HeldBody { bytes: bytes.into(), _held: held })
    }

    /// Adds so many bytes to what a body holds.
    fn hold(&self, held: &mut Option<OwnedSemaphorePermit>, bytes: usize) -> Result<(), BodyError> {
        let bytes = u32::try_from(bytes).map_err(|_| BodyError::TooLarge)?;
        let more = self.0.clone().try_acquire_many_owned(bytes).map_err(|_| BodyError::NoMemory)?;
        match held {
            Some(held) => held.merge(more),
            None => *held = Some(more),
        }
        Ok(())
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
