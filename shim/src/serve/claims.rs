//! Works on what a shim claims in the database: so many at once, until the shim is asked to stop.

use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::sleep;

/// How often it is looked whether there is something to claim, while there is nothing.
const POLL: Duration = Duration::from_secs(1);

/// Claims as many as there is room for, and works on each, until it is asked to stop. Then it ends the work that has begun.
pub(super) async fn work<C, Claiming, Working>(
    mut stop: watch::Receiver<bool>,
    max_at_once: usize,
    claim: impl Fn(usize) -> Claiming,
    work_on: impl Fn(C) -> Working,
) where
    Claiming: Future<Output = Vec<C>>,
    Working: Future<Output = ()> + Send + 'static,
{
    // Each in a task of its own, so that it goes on while more are claimed: it may hold the connection that this needs.
    let mut running = JoinSet::new();
    while !*stop.borrow() {
        let room = max_at_once - running.len();
        let claimed = if room > 0 { claim(room).await } else { Vec::new() };
        let is_idle = claimed.len() < room;
        for claimed in claimed {
            running.spawn(work_on(claimed));
        }
        tokio::select! {
            _ = stop.changed() => {}
            Some(_) = running.join_next() => {}
            () = sleep(POLL), if is_idle => {}
        }
    }
    while running.join_next().await.is_some() {}
}
