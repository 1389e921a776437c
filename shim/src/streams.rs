//! The pages that listen: a stream of events each, fed by one poller for all of them.
//!
//! The poller reads the outbox for the users who listen, one statement for all, and sends each stream what comes after the
//! last event that it was sent. A stream whose reader does not keep up is ended: its page comes back and names the last
//! event that it has.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use hyper::body::Bytes;
use tokio::sync::Notify;
use tokio::sync::mpsc::{self, Receiver, Sender};
use tokio::time::sleep;
use uuid::Uuid;

use crate::database::Database;
use crate::database::outbox::AppEvent;

/// How many streams there may be.
const MAX_STREAMS: usize = 1000;
/// How many streams one user may have: open pages.
const MAX_STREAMS_OF_A_USER: usize = 5;
/// How many events may wait for a stream's reader.
const MAX_WAITING: usize = 128;
/// How often the outbox is read while somebody listens.
const POLL: Duration = Duration::from_secs(1);
/// How often each stream is sent a comment, so that proxies and pages know that it lives.
const HEARTBEAT: Duration = Duration::from_secs(15);
/// What a stream begins with: how long a page waits before it comes back, in milliseconds.
const BEGINNING: &str = "retry: 2000\n\n";
const COMMENT: &str = ": still here\n\n";

/// All streams.
#[derive(Default)]
pub(crate) struct Streams {
    open: Mutex<Open>,
    opened: Notify,
}

#[derive(Default)]
struct Open {
    streams: BTreeMap<u64, Stream>,
    next_id: u64,
    /// The process is about to end.
    is_closed: bool,
}

struct Stream {
    user: Uuid,
    /// The number of the last event that it was sent.
    after: i64,
    sender: Sender<Bytes>,
    ends_at: Instant,
}

/// Why a stream was not opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refused {
    /// The user has as many as a user may have.
    User,
    /// There are as many as there may be, or the process is about to end.
    Full,
}

impl Streams {
    /// Opens a stream of a user's events after the one with this number, until a time.
    pub(crate) fn open(&self, user: Uuid, after: i64, ends_at: Instant) -> Result<Receiver<Bytes>, Refused> {
        let mut open = self.lock();
        open.streams.retain(|_, stream| !stream.sender.is_closed());
        if open.is_closed || open.streams.len() >= MAX_STREAMS {
            return Err(Refused::Full);
        }
        if open.streams.values().filter(|stream| stream.user == user).count() >= MAX_STREAMS_OF_A_USER {
            return Err(Refused::User);
        }
        let (sender, receiver) = mpsc::channel(MAX_WAITING);
        sender.try_send(Bytes::from_static(BEGINNING.as_bytes())).expect("it is empty");
        let id = open.next_id;
        open.next_id += 1;
        open.streams.insert(id, Stream { user, after, sender, ends_at });
        drop(open);
        self.opened.notify_one();
        Ok(receiver)
    }

    /// How many there are.
    pub(crate) fn count(&self) -> usize {
        self.lock().streams.values().filter(|stream| !stream.sender.is_closed()).count()
    }

    /// Ends all streams, and lets no more be opened.
    pub(crate) fn close(&self) {
        let mut open = self.lock();
        open.is_closed = true;
        open.streams.clear();
    }

    /// Feeds the streams without an end.
    pub(crate) async fn feed(&self, database: &Database) {
        let mut heartbeat_at = Instant::now() + HEARTBEAT;
        loop {
            let asked = self.asked();
            if asked.is_empty() {
                self.opened.notified().await;
                continue;
            }
            match database.events_after(&asked).await {
                Ok(events) => events.iter().for_each(|event| self.send(event)),
                Err(error) => tracing::debug!(%error, "events could not be read for streams"),
            }
            if heartbeat_at <= Instant::now() {
                self.send_all(&Bytes::from_static(COMMENT.as_bytes()));
                heartbeat_at = Instant::now() + HEARTBEAT;
            }
            tokio::select! {
                () = sleep(POLL) => {}
                () = self.opened.notified() => {}
            }
        }
    }

    /// The users who listen, each with the number after which events are wanted, once the streams are gone that are over.
    fn asked(&self) -> Vec<(Uuid, i64)> {
        let mut open = self.lock();
        let now = Instant::now();
        open.streams.retain(|_, stream| !stream.sender.is_closed() && stream.ends_at > now);
        let mut asked: BTreeMap<Uuid, i64> = BTreeMap::new();
        for stream in open.streams.values() {
            let after = asked.entry(stream.user).or_insert(stream.after);
            *after = stream.after.min(*after);
        }
        asked.into_iter().collect()
    }

    fn send(&self, event: &AppEvent) {
        let text = format!("id: {}\nevent: {}\ndata: {}\n\n", event.number, event.r#type, event.json());
        let text = Bytes::from(text);
        let wants = |stream: &Stream| Some(stream.user) == event.user_id && stream.after < event.number;
        self.lock().streams.retain(|_, stream| {
            if !wants(stream) {
                return true;
            }
            stream.after = event.number;
            stream.sender.try_send(text.clone()).is_ok()
        });
    }

    fn send_all(&self, text: &Bytes) {
        self.lock().streams.retain(|_, stream| stream.sender.try_send(text.clone()).is_ok());
    }

    fn lock(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::value::RawValue;

    use super::*;

    fn event(user: Uuid, number: i64) -> AppEvent {
        AppEvent {
            id: format!("{user}_{number}"),
            r#type: "credits.granted".to_owned(),
            timestamp: "2026-01-01T00:00:00.000000Z".to_owned(),
            user_id: Some(user),
            data: RawValue::from_string("{}".to_owned()).expect("JSON"),
            number,
        }
    }

    fn received(stream: &mut Receiver<Bytes>) -> Vec<String> {
        let mut all = Vec::new();
        while let Ok(bytes) = stream.try_recv() {
            all.push(
                String::from_utf8(bytes.to_vec())
                    .expect("text")
                    .lines()
                    .next()
                    .unwrap_or_default()
                    .to_owned(),
            );
        }
        all
    }

    #[test]
    fn each_stream_has_its_users_events_after_its_last_once() {
        let (streams, later) = (Streams::default(), Instant::now() + Duration::from_mins(1));
        let (ann, bob) = (Uuid::from_u128(1), Uuid::from_u128(2));
        let mut from_start = streams.open(ann, 0, later).expect("room");
        let mut resumed = streams.open(ann, 1, later).expect("room");
        let mut other = streams.open(bob, 5, later).expect("room");
        assert_eq!(streams.asked(), [(ann, 0), (bob, 5)]);
        for number in [1, 2, 2] {
            streams.send(&event(ann, number));
        }
        assert_eq!(received(&mut from_start), ["retry: 2000", "id: 1", "id: 2"]);
        assert_eq!(received(&mut resumed), ["retry: 2000", "id: 2"]);
        assert_eq!(received(&mut other), ["retry: 2000"]);
        assert_eq!(streams.asked(), [(ann, 2), (bob, 5)]);
    }

    #[test]
    fn a_user_has_so_many_streams_and_those_that_are_gone_do_not_count() {
        let (streams, later) = (Streams::default(), Instant::now() + Duration::from_mins(1));
        let ann = Uuid::from_u128(1);
        let mut open: Vec<_> =
            (0..MAX_STREAMS_OF_A_USER).map(|_| streams.open(ann, 0, later).expect("room")).collect();
        assert_eq!(streams.open(ann, 0, later).err(), Some(Refused::User));
        assert!(streams.open(Uuid::from_u128(2), 0, later).is_ok());
        open.pop();
        assert!(streams.open(ann, 0, later).is_ok());
        streams.close();
        assert_eq!((streams.open(ann, 0, later).err(), streams.count()), (Some(Refused::Full), 0));
    }

    #[test]
    fn a_stream_that_is_over_or_does_not_keep_up_ends() {
        let streams = Streams::default();
        let (ann, bob) = (Uuid::from_u128(1), Uuid::from_u128(2));
        let over = streams.open(ann, 0, Instant::now()).expect("room");
        let slow = streams.open(bob, 0, Instant::now() + Duration::from_mins(1)).expect("room");
        assert_eq!(streams.asked(), [(bob, 0)]);
        for number in 1..=i64::try_from(MAX_WAITING).expect("a count") {
            streams.send(&event(bob, number));
        }
        assert_eq!(streams.asked(), []);
        drop((over, slow));
    }
}
