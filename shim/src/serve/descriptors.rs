//! The limit of open files, which every connection counts against.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Files beside connections: the listeners, the log, connections to Stripe, Redis and the key server, trusted certificates
/// while they are read.
const OTHER_FILES: usize = 256;
/// Fewer HTTP connections than this are not worth serving: the limit is set by mistake, and the log says so.
const MIN_CONNECTIONS: usize = 16;

/// Raises the limit as far as these connections need and the system lets it. Returns how many HTTP connections there may
/// be: fewer than asked for if the limit stays too low, so that accepting one never fails.
pub(super) fn reserve(max_connections: usize, pool_size: usize) -> usize {
    let beside = pool_size + OTHER_FILES;
    let wanted = u64::try_from(max_connections + beside).unwrap_or(u64::MAX);
    let limit = getrlimit(Resource::Nofile);
    if limit.current.is_none_or(|current| current >= wanted) {
        return max_connections;
    }
    let raised = limit.maximum.map_or(wanted, |maximum| maximum.min(wanted));
    let current = match setrlimit(Resource::Nofile, Rlimit { current: Some(raised), maximum: limit.maximum })
    {
        Ok(()) => raised,
        Err(_) => limit.current.unwrap_or(wanted),
    };
    let possible = usize::try_from(current).unwrap_or(usize::MAX).saturating_sub(beside).max(MIN_CONNECTIONS);
    if possible >= max_connections {
        return max_connections;
    }
    tracing::warn!(
        max_connections = possible,
        wanted = max_connections,
        open_files = current,
        "the limit of open files allows fewer connections than MAX_CONNECTIONS"
    );
    possible
}
