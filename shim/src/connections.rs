//! The HTTP connections that are open: how many there may be, and which of them give way when there are too many.
//!
//! What a connection asks for is known only once its head was read, and who asks only once a signature or a token was
//! verified. So no connection is refused when it comes. If all places are taken, the one gives way that has gone longest
//! without a verified request: one that is idle, or sends its head or its body slowly, or does not read its response.
//! A verified request keeps its place until it is answered, and users' requests may hold only a part of the places, so
//! that there is always one for a webhook.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout};

/// How long every connection may go without a verified request before it may have to give way.
const GRACE: Duration = Duration::from_secs(1);
/// How often a connection that may give way is looked for while none may.
const EVICTION_POLL: Duration = Duration::from_millis(50);
/// The age from which a connection is closed after its next response.
const MAX_AGE: Duration = Duration::from_mins(5);
/// Users' requests may hold all places but one of so many.
const RESERVED_PART: usize = 4;

/// The places for connections.
pub(crate) struct Connections {
    places: Arc<Semaphore>,
    users: Arc<Semaphore>,
    next_id: AtomicU64,
    open: Mutex<BTreeMap<u64, Arc<Connection>>>,
}

/// One connection, in the extensions of each of its requests.
pub(crate) struct Connection {
    opened_at: Instant,
    state: Mutex<State>,
    evicted: Notify,
}

enum State {
    /// Without a verified request since then.
    Unverified(Instant),
    /// A webhook whose signature was verified, or a user's request with that user's place.
    Verified(#[expect(dead_code, reason = "held until the response")] Option<OwnedSemaphorePermit>),
    Evicted,
}

/// A connection's place, given back when this is dropped.
pub(crate) struct Place {
    connections: Arc<Connections>,
    id: u64,
    pub(crate) connection: Arc<Connection>,
    _permit: OwnedSemaphorePermit,
}

impl Connections {
    /// Places for so many connections.
    pub(crate) fn new(max: usize) -> Arc<Self> {
        Arc::new(Self {
            places: Arc::new(Semaphore::new(max)),
            users: Arc::new(Semaphore::new((max - max / RESERVED_PART).max(1))),
            next_id: AtomicU64::new(0),
            open: Mutex::default(),
        })
    }

    /// A place for a connection that was accepted; if all are taken, as soon as one gives way.
    pub(crate) async fn place(self: &Arc<Self>) -> Place {
        let permit = loop {
            let free = self.places.clone().try_acquire_owned();
            if let Ok(permit) = free {
                break permit;
            }
            self.evict_one();
            let acquired = timeout(EVICTION_POLL, self.places.clone().acquire_owned()).await;
            if let Ok(permit) = acquired {
                break permit.expect("the semaphore is never closed");
            }
        };
        let connection = Arc::new(Connection {
            opened_at: Instant::now(),
            state: Mutex::new(State::Unverified(Instant::now())),
            evicted: Notify::new(),
        });
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        self.lock_open().insert(id, connection.clone());
        Place { connections: self.clone(), id, connection, _permit: permit }
    }

    /// Ends the connection that has gone longest without a verified request, if that is long enough.
    fn evict_one(&self) {
        let open = self.lock_open();
        let longest =
            open.values().filter_map(|connection| Some((connection.unverified_since()?, connection)));
        if let Some((since, connection)) = longest.min_by_key(|(since, _)| *since)
            && since.elapsed() >= GRACE
        {
            *connection.lock_state() = State::Evicted;
            connection.evicted.notify_one();
        }
    }

    /// Keeps a user's place for the request of a connection; false if users hold all of theirs.
    pub(crate) fn admit_user(&self, connection: &Connection) -> bool {
        let Ok(permit) = self.users.clone().try_acquire_owned() else { return false };
        connection.verified(Some(permit));
        true
    }

    fn lock_open(&self) -> MutexGuard<'_, BTreeMap<u64, Arc<Connection>>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Connection {
    /// The signature of its request was verified.
    pub(crate) fn admit_webhook(&self) {
        self.verified(None);
    }

    /// Its request was answered. Returns whether it is old enough to be closed then.
    pub(crate) fn answered(&self) -> bool {
        let mut state = self.lock_state();
        if !matches!(*state, State::Evicted) {
            *state = State::Unverified(Instant::now());
        }
        self.opened_at.elapsed() >= MAX_AGE
    }

    /// How long it stays open at least, if it does not have to give way.
    pub(crate) fn lasts(&self) -> Duration {
        MAX_AGE.saturating_sub(self.opened_at.elapsed())
    }

    /// Resolves when it has to give way.
    pub(crate) async fn evicted(&self) {
        self.evicted.notified().await;
    }

    fn verified(&self, permit: Option<OwnedSemaphorePermit>) {
        let mut state = self.lock_state();
        if !matches!(*state, State::Evicted) {
            *state = State::Verified(permit);
        }
    }

    fn unverified_since(&self) -> Option<Instant> {
        match *self.lock_state() {
            State::Unverified(since) => Some(since),
            State::Verified(_) | State::Evicted => None,
        }
    }

    fn lock_state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.connections.lock_open().remove(&self.id);
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    #[test]
    fn users_never_hold_the_last_place() {
        for (max, users) in [(1, 1), (2, 2), (4, 3), (2048, 1536)] {
            assert_eq!(Connections::new(max).users.available_permits(), users, "{max}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_of_the_greatest_age_is_closed_after_its_next_response() {
        let connections = Connections::new(1);
        let place = connections.place().await;
        place.connection.admit_webhook();
        assert!(!place.connection.answered());
        advance(MAX_AGE / 2).await;
        place.connection.admit_webhook();
        assert!(!place.connection.answered(), "half as old");
        advance(MAX_AGE / 2).await;
        place.connection.admit_webhook();
        assert!(place.connection.answered());
    }

    #[tokio::test]
    async fn the_longest_unverified_gives_way_and_a_verified_one_does_not() {
        let connections = Connections::new(2);
        let verified = connections.place().await;
        verified.connection.admit_webhook();
        let idle = connections.place().await;
        let (third, ()) = tokio::join!(connections.place(), async {
            idle.connection.evicted().await;
            drop(idle);
        });
        assert!(verified.connection.unverified_since().is_none());
        assert!(third.connection.unverified_since().is_some());
        assert_eq!(connections.lock_open().len(), 2);
    }
}
