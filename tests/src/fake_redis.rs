//! A fake Redis on a port of its own, which can be slow, empty, wrong or gone on demand.

use std::collections::BTreeMap;
use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

/// A running fake. Dropped, it closes every connection.
pub struct FakeRedis {
    address: SocketAddr,
    state: Arc<Mutex<State>>,
}

/// How it behaves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Behaviour {
    /// Like a Redis.
    Good,
    /// Every answer is delayed by this much.
    Slow(Duration),
    /// Every GET answers this.
    Lying(String),
    /// Every command is an error, as on a replica or while it loads.
    Failing,
    /// Every GET is answered with bytes that do not end.
    Flooding,
    /// Every connection is closed at once.
    Gone,
}

/// A value and its time to live, in seconds.
pub type Kept = (String, Option<u64>);

struct State {
    behaviour: Behaviour,
    has_ended: bool,
    values: BTreeMap<String, Kept>,
    commands: Vec<String>,
    /// How many bytes a flood brought until the connection was closed.
    flooded: Option<usize>,
}

impl FakeRedis {
    /// Listens on a port of its own.
    ///
    /// # Panics
    /// Where the machine has no port left.
    pub fn start() -> FakeRedis {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
        let address = listener.local_addr().expect("a bound socket has an address");
        let state = State {
            behaviour: Behaviour::Good,
            has_ended: false,
            values: BTreeMap::new(),
            commands: Vec::new(),
            flooded: None,
        };
        let state = Arc::new(Mutex::new(state));
        let shared = state.clone();
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if locked(&shared).has_ended {
                    return;
                }
                let state = shared.clone();
                // A connection may break at any time.
                thread::spawn(move || serve(stream, &state));
            }
        });
        FakeRedis { address, state }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The value for `REDIS_URL`.
    pub fn url(&self) -> String {
        format!("redis://{}", self.address)
    }

    /// Changes how it behaves.
    pub fn behave(&self, behaviour: Behaviour) {
        self.state().behaviour = behaviour;
    }

    /// What is kept under a key, and for how long.
    pub fn kept(&self, key: &str) -> Option<Kept> {
        self.state().values.get(key).cloned()
    }

    /// Keeps a value.
    pub fn keep(&self, key: &str, value: &str) {
        self.state().values.insert(key.to_owned(), (value.to_owned(), None));
    }

    /// How many bytes a flood brought, once it has ended.
    pub fn flooded(&self) -> Option<usize> {
        self.state().flooded
    }

    /// Keeps nothing any more.
    pub fn flush(&self) {
        self.state().values.clear();
    }

    /// How often a command was sent.
    pub fn count(&self, command: &str) -> usize {
        self.state().commands.iter().filter(|heard| *heard == command).count()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        locked(&self.state)
    }
}

impl Drop for FakeRedis {
    fn drop(&mut self) {
        self.behave(Behaviour::Gone);
        self.state().has_ended = true;
        // Its thread looks at that at the next connection.
        let _ = TcpStream::connect(self.address);
    }
}

/// <https://redis.io/docs/latest/develop/reference/protocol-spec/>
fn serve(stream: TcpStream, state: &Mutex<State>) -> io::Result<()> {
    let mut answers = stream.try_clone()?;
    let mut commands = BufReader::new(stream);
    loop {
        let command = read(&mut commands)?;
        if locked(state).behaviour == Behaviour::Flooding
            && command.first().is_some_and(|name| name == "GETRANGE")
        {
            let taken = flood(&mut answers);
            locked(state).flooded = Some(taken);
            return Ok(());
        }
        let (answer, late) = {
            let mut state = locked(state);
            let late = match &state.behaviour {
                Behaviour::Gone => return Ok(()),
                Behaviour::Slow(late) => Some(*late),
                _ => None,
            };
            (answer(&mut state, &command), late)
        };
        if let Some(late) = late {
            thread::sleep(late);
        }
        answers.write_all(answer.as_bytes())?;
    }
}

/// Answers with a string that does not end. Returns how many bytes were taken.
fn flood(answers: &mut TcpStream) -> usize {
    let mut taken = 0;
    if answers.write_all(b"$1000000000000\r\n").is_ok() {
        while let Ok(written) = answers.write(&[b'x'; 1 << 14]) {
            taken += written;
        }
    }
    taken
}

/// An array of strings, each with its length.
fn read(commands: &mut BufReader<TcpStream>) -> io::Result<Vec<String>> {
    let parts = number(commands)?;
    (0..parts)
        .map(|_| {
            let mut text = vec![0; number(commands)? + 2];
            commands.read_exact(&mut text)?;
            Ok(String::from_utf8_lossy(&text[..text.len() - 2]).into_owned())
        })
        .collect()
}

fn number(commands: &mut BufReader<TcpStream>) -> io::Result<usize> {
    let mut line = String::new();
    commands.read_line(&mut line)?;
    line.trim_start_matches(['*', '$']).trim_end().parse().map_err(|_| io::ErrorKind::UnexpectedEof.into())
}

fn answer(state: &mut State, command: &[String]) -> String {
    let words: Vec<&str> = command.iter().map(String::as_str).collect();
    state.commands.push(words.first().map(|word| word.to_uppercase()).unwrap_or_default());
    let text = |text: &str| format!("${}\r\n{text}\r\n", text.len());
    match (&state.behaviour, words.as_slice()) {
        (Behaviour::Failing, _) => "-LOADING Redis is loading the dataset in memory\r\n".to_owned(),
        (Behaviour::Lying(lie), ["GETRANGE", _, _, _]) => text(lie),
        (_, ["GETRANGE", key, "0", last]) => {
            let value = state.values.get(*key).map_or("", |(value, _)| value);
            let last: usize = last.parse().expect("a position");
            text(value.get(..=last).unwrap_or(value))
        }
        (_, ["SET", key, value, "EX", seconds]) => {
            let kept = ((*value).to_owned(), seconds.parse().ok());
            state.values.insert((*key).to_owned(), kept);
            "+OK\r\n".to_owned()
        }
        (_, ["DEL", key]) => format!(":{}\r\n", i32::from(state.values.remove(*key).is_some())),
        _ => "+OK\r\n".to_owned(),
    }
}

fn locked(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}
