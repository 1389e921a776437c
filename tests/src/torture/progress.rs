//! What all threads of a run share: how far it has come, and whether it ends.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use xtask::{Error, Result, signals};

/// How long everything may take to work again, on a slow machine.
pub(super) const PATIENCE: Duration = Duration::from_mins(1);
/// How often a condition is looked at.
const POLL: Duration = Duration::from_millis(10);

/// The deliveries that were answered 200 so far.
pub(super) struct Progress {
    acknowledged: AtomicUsize,
    /// When the latest of them was sent.
    latest: Mutex<Instant>,
    is_over: AtomicBool,
}

impl Progress {
    pub(super) fn new() -> Progress {
        Progress {
            acknowledged: AtomicUsize::new(0),
            latest: Mutex::new(Instant::now()),
            is_over: AtomicBool::new(false),
        }
    }

    /// A delivery that was sent then was answered 200.
    pub(super) fn acknowledge(&self, sent: Instant) {
        let mut latest = self.latest.lock().unwrap_or_else(PoisonError::into_inner);
        *latest = sent.max(*latest);
        drop(latest);
        self.acknowledged.fetch_add(1, Ordering::Relaxed);
    }

    /// Nothing new is begun from now on.
    pub(super) fn end(&self) {
        self.is_over.store(true, Ordering::Relaxed);
    }

    pub(super) fn is_over(&self) -> bool {
        self.is_over.load(Ordering::Relaxed)
    }

    /// Waits until so many more deliveries were answered 200.
    pub(super) fn wait_for(&self, more: usize) -> Result<()> {
        let aim = self.acknowledged.load(Ordering::Relaxed) + more;
        until("deliveries are acknowledged", || Ok(self.acknowledged.load(Ordering::Relaxed) >= aim))
    }

    /// Waits until a delivery that was sent after `end` was answered 200.
    pub(super) fn wait_for_recovery(&self, end: Instant) -> Result<()> {
        let latest = || *self.latest.lock().unwrap_or_else(PoisonError::into_inner);
        until("deliveries are acknowledged again", || Ok(latest() > end))
    }
}

/// Ends the run when it is dropped, so that no thread works on after another's failure.
pub(super) struct EndOnDrop<'a>(pub(super) &'a Progress);

impl Drop for EndOnDrop<'_> {
    fn drop(&mut self) {
        self.0.end();
    }
}

/// Waits until a condition is true, by polling.
pub(super) fn until(what: &str, mut condition: impl FnMut() -> Result<bool>) -> Result<()> {
    let since = Instant::now();
    while !condition()? {
        signals::check()?;
        if since.elapsed() > PATIENCE {
            return Err(Error::Unmet(format!("not within {} s: {what}", PATIENCE.as_secs())));
        }
        thread::sleep(POLL);
    }
    Ok(())
}
