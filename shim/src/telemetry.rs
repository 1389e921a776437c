//! Logs: one JSON object a line, on stdout.

use tracing::Level;
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

/// Starts logging what is of `level` or graver.
pub(crate) fn init(level: Level) {
    let json = tracing_subscriber::fmt::layer().json().flatten_event(true).with_current_span(false);
    tracing_subscriber::registry().with(LevelFilter::from_level(level)).with(json).init();
}
