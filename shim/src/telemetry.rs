//! Logs, one JSON object a line on stdout, and the form of errors and durations in them.
//!
//! A thread of its own writes them, so that a reader that stalls stops no request: what does not fit between is dropped,
//! and counted.

use std::sync::mpsc::channel;
use std::time::Duration;

use tracing::Level;
use tracing_appender::non_blocking::{ErrorCounter, NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

/// The lines that wait for the reader of stdout, at most; a line has half a kilobyte.
const MAX_WAITING_LINES: usize = 4096;

/// How long the end of the process waits for the reader of stdout.
const END_TIMEOUT: Duration = Duration::from_secs(2);

/// The log: dropped, it is written to its end, if its reader takes it in time.
pub(crate) struct Log {
    dropped: ErrorCounter,
    writer: Option<WorkerGuard>,
}

impl Drop for Log {
    fn drop(&mut self) {
        let writer = self.writer.take();
        let (end, ended) = channel();
        // In a thread that is left behind if the reader stalls: the guard itself would write to stdout then.
        std::thread::spawn(move || {
            drop(writer);
            let _ = end.send(());
        });
        let _ = ended.recv_timeout(END_TIMEOUT);
    }
}

/// Starts logging at `level` and above.
pub(crate) fn init(level: Level) -> Log {
    let (lines, writer) = NonBlockingBuilder::default()
        .lossy(true)
        .buffered_lines_limit(MAX_WAITING_LINES)
        .thread_name("log")
        .finish(std::io::stdout());
    let dropped = lines.error_counter();
    let json = tracing_subscriber::fmt::layer()
        .json()
        .flatten_event(true)
        .with_current_span(false)
        .with_writer(lines);
    tracing_subscriber::registry().with(LevelFilter::from_level(level)).with(json).init();
    Log { dropped, writer: Some(writer) }
}

impl Log {
    /// Counts the lines that were dropped.
    pub(crate) fn dropped(&self) -> ErrorCounter {
        self.dropped.clone()
    }
}

/// An error with its causes, on one line: hyper and tokio-postgres leave the cause out of their own text.
pub(crate) fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

/// Milliseconds, rounded to the microsecond so that they are readable.
pub(crate) fn milliseconds(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1e6).round() / 1e3
}
