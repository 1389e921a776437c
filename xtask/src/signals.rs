//! Ctrl-C and SIGTERM as an early return, so that everything started is dropped, and so ended, in the usual way.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, LazyLock};
use std::thread;
use std::time::Duration;

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use crate::{Error, Result};

/// How often a wait looks whether it should end.
pub(crate) const POLL: Duration = Duration::from_millis(20);

static INTERRUPTED: LazyLock<Arc<AtomicBool>> = LazyLock::new(Arc::default);

/// From here on these signals no longer end the process; every wait of this crate returns [`Error::Interrupted`].
pub fn listen() -> Result<()> {
    for signal in [SIGINT, SIGTERM, SIGHUP] {
        signal_hook::flag::register(signal, Arc::clone(&INTERRUPTED))
            .map_err(|error| Error::Unmet(format!("signal {signal} cannot be handled: {error}")))?;
    }
    Ok(())
}

/// An error once a signal has come.
pub fn check() -> Result<()> {
    if INTERRUPTED.load(Ordering::Relaxed) { Err(Error::Interrupted) } else { Ok(()) }
}

/// Returns when a signal has come.
pub fn wait() {
    while check().is_ok() {
        thread::sleep(POLL);
    }
}
