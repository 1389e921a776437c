//! What one customer, one user or all users together may take of what everybody shares: connections to Postgres, and
//! requests to Stripe's API.

use std::collections::HashMap;
use std::num::NonZeroU32;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use governor::clock::{Clock as _, DefaultClock};
use governor::state::keyed::HashMapStateStore;
use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;
use uuid::Uuid;

/// How long work waits for others of the same customer or user to end.
const TURN_TIMEOUT: Duration = Duration::from_secs(5);
/// How many users' rates are remembered before those are forgotten that are below their limit again.
const MAX_REMEMBERED_USERS: usize = 10_000;

/// Whom a piece of work concerns.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Party {
    /// A Stripe customer.
    Customer(String),
    /// What an app calls a user.
    User(String),
    /// Everyone whose events name neither.
    Unnamed,
}

/// Lets only so many pieces of work of each party run at once. Further ones wait here, where they hold no connection.
pub(crate) struct Turns {
    per_party: usize,
    running: Mutex<HashMap<Party, Arc<Semaphore>>>,
}

/// The turn of one piece of work, which ends when this is dropped.
pub(crate) struct Turn {
    turns: Arc<Turns>,
    held: Vec<(Party, OwnedSemaphorePermit)>,
}

impl Turns {
    /// For so many pieces of work at once of each customer and each user, and of all that name neither.
    pub(crate) fn new(per_party: usize) -> Arc<Self> {
        Arc::new(Self { per_party, running: Mutex::default() })
    }

    /// Waits for a turn of every party; none if it does not come in time.
    pub(crate) async fn take(self: &Arc<Self>, mut parties: Vec<Party>) -> Option<Turn> {
        // In one order, so that no two wait for each other.
        parties.sort();
        parties.dedup();
        let mut turn = Turn { turns: self.clone(), held: Vec::new() };
        let take_all = async {
            for party in parties {
                let permit = self.of(&party).acquire_owned().await.expect("the semaphore is never closed");
                turn.held.push((party, permit));
            }
        };
        timeout(TURN_TIMEOUT, take_all).await.ok().map(|()| turn)
    }

    fn of(&self, party: &Party) -> Arc<Semaphore> {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        running.entry(party.clone()).or_insert_with(|| Arc::new(Semaphore::new(self.per_party))).clone()
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut running = self.turns.running.lock().unwrap_or_else(PoisonError::into_inner);
        for (party, permit) in self.held.drain(..) {
            drop(permit);
            // Nobody else holds a permit or waits for one.
            if running.get(&party).is_some_and(|semaphore| Arc::strong_count(semaphore) == 1) {
                running.remove(&party);
            }
        }
    }
}

/// The rate at which users' requests may ask Stripe, all together. The rest of Stripe's own limit is for webhooks.
pub(crate) struct StripeShare(DefaultDirectRateLimiter);

impl StripeShare {
    /// So many requests a second.
    pub(crate) fn per_second(requests: NonZeroU32) -> Self {
        Self(RateLimiter::direct(Quota::per_second(requests)))
    }

    /// Whether one more request is within the share; if so it is counted.
    pub(crate) fn admits(&self) -> bool {
        self.0.check().is_ok()
    }
}

/// The rate at which the console's sign-in may be tried, by everyone together: nobody guesses a token, and nobody fills the log
/// with attempts.
pub(crate) struct SignIns(DefaultDirectRateLimiter);

impl SignIns {
    /// So many attempts a minute.
    pub(crate) fn per_minute(attempts: NonZeroU32) -> Self {
        Self(RateLimiter::direct(Quota::per_minute(attempts)))
    }

    /// Counts an attempt, or returns how long to wait.
    pub(crate) fn check(&self) -> Result<(), Duration> {
        let clock = DefaultClock::default();
        self.0.check().map_err(|early| early.wait_time_from(clock.now()))
    }
}

/// The rate at which each user may make requests that ask Stripe.
pub(crate) struct UserRates(RateLimiter<Uuid, HashMapStateStore<Uuid>, DefaultClock>);

impl UserRates {
    /// So many requests a minute.
    pub(crate) fn per_minute(requests: NonZeroU32) -> Self {
        Self(RateLimiter::hashmap(Quota::per_minute(requests)))
    }

    /// Counts a request, or returns how long the user has to wait.
    pub(crate) fn check(&self, user: Uuid) -> Result<(), Duration> {
        if self.0.len() > MAX_REMEMBERED_USERS {
            self.0.retain_recent();
            self.0.shrink_to_fit();
        }
        let clock = DefaultClock::default();
        self.0.check_key(&user).map_err(|early| early.wait_time_from(clock.now()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn customer(name: &str) -> Party {
        Party::Customer(name.to_owned())
    }

    #[tokio::test(start_paused = true)]
    async fn a_party_has_so_many_turns_and_others_have_their_own() {
        let turns = Turns::new(2);
        let one = turns.take(vec![customer("a"), Party::User("u".to_owned())]).await;
        let two = turns.take(vec![customer("a")]).await;
        assert!(one.is_some() && two.is_some());
        assert!(turns.take(vec![customer("a")]).await.is_none(), "a third");
        assert!(turns.take(vec![customer("b")]).await.is_some());
        assert!(turns.take(vec![Party::Unnamed]).await.is_some());
        drop(one);
        assert!(turns.take(vec![customer("a")]).await.is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_is_remembered_of_who_has_no_work() {
        let turns = Turns::new(1);
        let turn = turns.take(vec![customer("a"), Party::User("u".to_owned())]).await;
        // One that gave up leaves nothing behind, either.
        assert!(turns.take(vec![customer("a"), customer("b")]).await.is_none());
        assert_eq!(turns.running.lock().unwrap().len(), 2);
        drop(turn);
        assert!(turns.running.lock().unwrap().is_empty());
    }

    #[test]
    fn a_user_above_the_rate_learns_how_long_to_wait_and_others_do_not_wait() {
        let rates = UserRates::per_minute(NonZeroU32::new(3).unwrap());
        let (ann, bob) = (Uuid::from_u128(1), Uuid::from_u128(2));
        assert!((0..3).all(|_| rates.check(ann).is_ok()));
        let wait = rates.check(ann).unwrap_err();
        assert!(wait > Duration::from_secs(15) && wait <= Duration::from_secs(20), "{wait:?}");
        assert!(rates.check(bob).is_ok());
    }
}
