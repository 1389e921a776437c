//! Two transactions open at once, without sleeping: a barrier to start together, a look into pg_stat_activity to know
//! that one waits for the other.

use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};

use crate::connection::Connection;
use crate::database::Database;

/// How long a condition of the server may take to come true on a slow machine.
const PATIENCE: Duration = Duration::from_secs(30);

/// Waits until a condition on the server is true, by asking it again and again.
pub fn waits_for(connection: &mut Connection, condition: &str) {
    let since = Instant::now();
    while !connection.one::<bool>(condition, &[]) {
        assert!(since.elapsed() < PATIENCE, "this did not come true: {condition}");
        thread::yield_now();
    }
}

/// Runs `first` in a transaction and, while that is open, `second` on a connection of its own, which must come to wait
/// for a lock of the first; then commits the first. Answers what both said.
pub fn blocked<A, B: Send>(
    database: &Database,
    first: impl FnOnce(&mut Connection) -> A,
    second: impl FnOnce(&mut Connection) -> B + Send,
) -> (A, B) {
    blocked_until("commit", database, first, second)
}

/// The same with another end of the first transaction than its commit.
pub fn blocked_until<A, B: Send>(
    end: &str,
    database: &Database,
    first: impl FnOnce(&mut Connection) -> A,
    second: impl FnOnce(&mut Connection) -> B + Send,
) -> (A, B) {
    let (mut one, mut other, mut observer) = (database.connect(), database.connect(), database.connect());
    let pid = other.pid();
    one.run("begin");
    let said = first(&mut one);
    thread::scope(|scope| {
        let waiting = scope.spawn(move || {
            other.run("begin");
            let said = second(&mut other);
            other.run("commit");
            said
        });
        waits_for(
            &mut observer,
            &format!(
                "select exists (select from pg_stat_activity where pid = {pid} and wait_event_type = 'Lock')"
            ),
        );
        one.run(end);
        (said, waiting.join().expect("the second transaction"))
    })
}

/// Runs each work on a connection of its own, all started at one barrier. Answers what each said, in order.
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
