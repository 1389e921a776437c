//! Keeps the mirror up to date, if there is one. Where it is away, nothing else notices.

use std::time::{Duration, Instant};

use tokio::time::sleep;

use crate::app::App;
use crate::error::Error;
use crate::mirror::Copied;

/// How often it is looked whether something changed, while nothing has.
const POLL: Duration = Duration::from_secs(1);
/// How long to wait after the first failure, and at most: the wait doubles with each that follows.
const FIRST_WAIT: Duration = Duration::from_secs(1);
const LONGEST_WAIT: Duration = Duration::from_secs(30);

/// Copies without an end. It may be stopped anywhere: what is not marked as mirrored is copied again.
pub(super) async fn run(app: &App) {
    let Some(mirror) = &app.mirror else { return std::future::pending().await };
    let mut trouble: Option<Trouble> = None;
    loop {
        let wait = match mirror.copy_due(&app.database).await {
            Ok(copied) => {
                if let Some(trouble) = trouble.take() {
                    let seconds = trouble.since.elapsed().as_secs();
                    tracing::info!(seconds, "the mirror is kept up to date again");
                }
                let Copied { mirrored, ahead, refused, .. } = copied;
                app.metrics.mirrored([("mirrored", mirrored), ("ahead", ahead), ("refused", refused)]);
                report(&copied);
                // What it refuses, or lets wait because it is ahead, is tried again no sooner than the rest.
                if copied.is_full && copied.mirrored > 0 { Duration::ZERO } else { POLL }
            }
            Err(error) => {
                app.metrics.mirror_failed(error.label());
                trouble.get_or_insert_with(Trouble::new).goes_on(&error)
            }
        };
        sleep(wait).await;
    }
}

fn report(copied: &Copied) {
    if copied.ahead > 0 {
        let accounts = copied.ahead;
        tracing::warn!(
            accounts,
            "the mirror has newer versions than the books, which were restored: stripe-credits mirror check --repair"
        );
    }
}

/// Since when the mirror has not been written, and what was logged last.
struct Trouble {
    since: Instant,
    label: Option<&'static str>,
    wait: Duration,
}

impl Trouble {
    fn new() -> Self {
        Self { since: Instant::now(), label: None, wait: FIRST_WAIT }
    }

    /// Logs a failure unless the last one was the same. Returns how long to wait.
    fn goes_on(&mut self, error: &Error) -> Duration {
        if self.label.replace(error.label()) != Some(error.label()) {
            tracing::warn!(%error, "the mirror is not kept up to date");
        }
        let wait = self.wait;
        self.wait = (wait * 2).min(LONGEST_WAIT);
        wait
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_waits_twice_as_long_after_each_failure_and_at_most_half_a_minute() {
        let mut trouble = Trouble::new();
        let waits: Vec<u64> = (0..7).map(|_| trouble.goes_on(&Error::NoMirror).as_secs()).collect();
        assert_eq!(waits, [1, 2, 4, 8, 16, 30, 30]);
    }
}
