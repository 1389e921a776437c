//! Deliveries that wait at the same moment go to the database together: one statement, one transaction, one commit.
//!
//! A few lanes take what waits, each whenever it is free, so that nothing waits for a batch to fill: a delivery that finds a
//! free lane goes alone and at once. A lane waits for a lock of another transaction for a moment only. If it does not get it,
//! or if an event of a batch makes the statement fail, each of its deliveries is told to go alone, which it does outside the
//! lanes: so a locked account or an event that cannot be stored keeps no other delivery back.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Mutex, mpsc, oneshot};
use tokio_postgres::types::Type;

use crate::outcome::Outcome;
use crate::statements::{DatabaseError, Statements, column};

/// How many events go to the database together at most.
const MAX_BATCH: usize = 32;
/// How many deliveries are taken in before a lane takes them: more wait outside.
const QUEUE_LENGTH: usize = 1024;
/// How long a lane waits for a lock: longer than an event takes, and not long for the others of its batch.
const LOCK_TIMEOUT: Duration = Duration::from_millis(50);
/// Applies one event, in a batch or alone: one text, so that a connection prepares it once.
pub(crate) const ONE: &str = "select json_strip_nulls(to_json(result))::text
    from billing.apply_stripe_event_text($1::text) as result";
const SEVERAL: &str = "select json_strip_nulls(to_json(result))::text
    from billing.apply_stripe_events($1::text[]) as result";

/// Where deliveries wait for a lane.
pub(crate) struct Batches {
    queue: mpsc::Sender<Waiting>,
}

/// A delivery, and where its answer goes.
struct Waiting {
    event: String,
    answer: oneshot::Sender<Answer>,
}

/// What became of a delivery in a batch.
enum Answer {
    Done(Outcome),
    Failed(DatabaseError),
    /// Nothing, and alone it may be applied.
    GoAlone,
}

/// One connection's worth of deliveries at a time.
struct Lane {
    statements: Statements,
    begin: String,
    limit: Duration,
    queue: Arc<Mutex<mpsc::Receiver<Waiting>>>,
}

impl Batches {
    /// Starts so many lanes, which end with this. `begin` makes what begins a transaction with a time-out for locks; a
    /// statement may take as long as `limit`.
    pub(crate) fn start(
        statements: &Statements,
        lanes: usize,
        begin: impl Fn(Duration) -> String,
        limit: Duration,
    ) -> Self {
        let (sender, receiver) = mpsc::channel(QUEUE_LENGTH);
        let queue = Arc::new(Mutex::new(receiver));
        for _ in 0..lanes {
            let lane = Lane {
                statements: statements.clone(),
                begin: begin(LOCK_TIMEOUT),
                limit,
                queue: queue.clone(),
            };
            tokio::spawn(lane.serve());
        }
        Self { queue: sender }
    }

    /// Applies an event in the next batch. `None` if it has to go alone.
    pub(crate) async fn apply(&self, event: &str) -> Option<Result<Outcome, DatabaseError>> {
        let (sender, answer) = oneshot::channel();
        self.queue.send(Waiting { event: event.to_owned(), answer: sender }).await.ok()?;
        match answer.await.ok()? {
            Answer::Done(outcome) => Some(Ok(outcome)),
            Answer::Failed(error) => Some(Err(error)),
            Answer::GoAlone => None,
        }
    }
}

impl Lane {
    async fn serve(self) {
        loop {
            let mut batch = Vec::new();
            self.queue.lock().await.recv_many(&mut batch, MAX_BATCH).await;
            if batch.is_empty() {
                return;
            }
            // Of a request that has gone, Stripe sends the event again.
            batch.retain(|waiting| !waiting.answer.is_closed());
            self.apply(batch).await;
        }
    }

    /// Applies a batch, and answers each of its deliveries.
    async fn apply(&self, batch: Vec<Waiting>) {
        let events: Vec<&str> = batch.iter().map(|waiting| waiting.event.as_str()).collect();
        let result = match events.as_slice() {
            [] => return,
            [event] => self.statements.run(&self.begin, ONE, &[(event, Type::TEXT)], self.limit).await,
            events => {
                self.statements.run(&self.begin, SEVERAL, &[(&events, Type::TEXT_ARRAY)], self.limit).await
            }
        };
        let rows = match result {
            Ok(rows) if rows.len() == batch.len() => rows,
            other => {
                let error = other.err();
                for waiting in batch {
                    waiting.reply(failure(error.as_ref()));
                }
                return;
            }
        };
        for (waiting, row) in batch.into_iter().zip(&rows) {
            let outcome = column(row, 0).and_then(|json| {
                Outcome::parse(json).map_err(|fault| DatabaseError::UnexpectedAnswer(fault.to_string()))
            });
            waiting.reply(outcome.map_or_else(Answer::Failed, Answer::Done));
        }
    }
}

impl Waiting {
    fn reply(self, answer: Answer) {
        // The request may have gone; what was applied stays applied.
        let _ = self.answer.send(answer);
    }
}

/// What each delivery of a failed batch is told.
fn failure(error: Option<&DatabaseError>) -> Answer {
    match error {
        // The next statement would find the database as this one did.
        Some(DatabaseError::Unavailable(reason)) => {
            Answer::Failed(DatabaseError::Unavailable(reason.clone()))
        }
        Some(DatabaseError::Timeout(limit)) => Answer::Failed(DatabaseError::Timeout(*limit)),
        _ => Answer::GoAlone,
    }
}
