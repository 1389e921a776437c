//! Transactions that overlap, without sleeps: a barrier starts them together, and pg_stat_activity shows when one waits for
//! the other.

use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};

use crate::connection::Connection;
use crate::database::Database;

/// How long a condition on the server may take to become true on a slow machine.
const PATIENCE: Duration = Duration::from_secs(30);

/// Waits until a condition on the server is true, by asking it again and again.
pub fn waits_for(connection: &mut Connection, condition: &str) {
    let since = Instant::now();
    while !connection.one::<bool>(condition, &[]) {
        assert!(since.elapsed() < PATIENCE, "this did not become true: {condition}");
        thread::yield_now();
    }
}

/// Runs `first` in a transaction and, while that is open, `second` on a connection of its own, which must wait for a
/// lock of the first; then commits the first. Returns what both returned.
pub fn blocked<A, B: Send>(
    database: &Database,
    first: impl FnOnce(&mut Connection) -> A,
    second: impl FnOnce(&mut Connection) -> B + Send,
) -> (A, B) {
    blocked_until("commit", database, first, second)
}

/// The same, with another statement than commit to end the first transaction.
pub fn blocked_until<A, B: Send>(
    end: &str,
    database: &Database,
    first: impl FnOnce(&mut Connection) -> A,
    second: impl FnOnce(&mut Connection) -> B + Send,
) -> (A, B) {
    let (mut one, mut other, mut observer) = (database.connect(), database.connect(), database.connect());
    let pid = other.pid();
    one.run("begin");
    let outcome = first(&mut one);
    thread::scope(|scope| {
        let waiting = scope.spawn(move || {
            other.run("begin");
            let outcome = second(&mut other);
            other.run("commit");
            outcome
        });
        waits_for(
            &mut observer,
            &format!(
                "select exists (select from pg_stat_activity where pid = {pid} and wait_event_type = 'Lock')"
            ),
        );
        one.run(end);
        (outcome, waiting.join().expect("the second transaction"))
    })
}

/// Runs each work on a connection of its own, all started at one barrier. Returns what each returned, in order.
pub fn together<T: Send, F: FnOnce(&mut Connection) -> T + Send>(
    database: &Database,
    works: Vec<F>,
) -> Vec<T> {
    let barrier = Barrier::new(works.len());
    thread::scope(|scope| {
        let running: Vec<_> = works
            .into_iter()
            .map(|work| {
                let mut connection = database.connect();
                let barrier = &barrier;
                scope.spawn(move || {
                    barrier.wait();
                    work(&mut connection)
                })
            })
            .collect();
        running.into_iter().map(|thread| thread.join().expect("each of the connections")).collect()
    })
}
