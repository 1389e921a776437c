//! The shim as its users run it: the built binary, configured by its environment, on a port of its own.

use std::io::{BufRead as _, BufReader, Read};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::Value;

use crate::signals::{self, POLL};
use crate::{Error, Result, process};

/// How long the shim may take until it listens, and until it has finished what it had taken on.
const START_LIMIT: Duration = Duration::from_secs(30);
const STOP_LIMIT: Duration = Duration::from_mins(1);

/// A running `stripe-credits serve`; dropped, it is killed.
#[derive(Debug)]
pub struct Shim {
    server: Child,
    addresses: Addresses,
    lines: Arc<Mutex<Vec<String>>>,
}

/// Where a shim listens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Addresses {
    everyone: SocketAddr,
    operators: SocketAddr,
}

impl Shim {
    /// Starts the binary with this environment and no other; `LISTEN` and `OPS_LISTEN` are free ports of 127.0.0.1 unless given.
    ///
    /// It listens when this returns. A shim that ends instead (64: its configuration is wrong) is an error that
    /// carries its status and its output.
    pub fn start(binary: &Path, environment: &[(&str, &str)]) -> Result<Self> {
        let mut command = process::server_command(binary, None, "TERM");
        command
            .arg("serve")
            .env("LISTEN", "127.0.0.1:0")
            .env("OPS_LISTEN", "127.0.0.1:0")
            .envs(environment.iter().copied());
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut server = process::serve(command)?;

        let lines = Arc::default();
        let (sender, addresses) = channel();
        if let (Some(stdout), Some(stderr)) = (server.stdout.take(), server.stderr.take()) {
            drain(stdout, Arc::clone(&lines), sender.clone());
            drain(stderr, Arc::clone(&lines), sender);
        }
        match listening(&mut server, &addresses) {
            Ok(addresses) => Ok(Self { server, addresses, lines }),
            Err(Error::NotServing { server: name, reason, .. }) => {
                process::kill(&mut server);
                Err(Error::NotServing { server: name, reason, log: log_of(&lines).join("\n") })
            }
            Err(interrupted) => {
                process::kill(&mut server);
                Err(interrupted)
            }
        }
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.addresses.everyone
    }

    /// Where it listens for operators.
    #[must_use]
    pub fn operators_address(&self) -> SocketAddr {
        self.addresses.operators
    }

    /// The URL of one of its routes, given as `/path`.
    #[must_use]
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.addresses.everyone)
    }

    /// The URL of a route for operators, given as `/path`.
    #[must_use]
    pub fn operators_url(&self, path: &str) -> String {
        format!("http://{}{path}", self.addresses.operators)
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.server.id()
    }

    /// Every line it has logged so far.
    #[must_use]
    pub fn log(&self) -> Vec<String> {
        log_of(&self.lines)
    }

    /// Asks it to finish what it has taken on and to end (SIGTERM), and waits until it has.
    pub fn terminate(&mut self) -> Result<ExitStatus> {
        self.ask_to_end();
        process::wait_for(&mut self.server, STOP_LIMIT).ok_or_else(|| {
            Error::Unmet(format!("the shim still ran {} s after SIGTERM", STOP_LIMIT.as_secs()))
        })
    }

    /// Sends SIGTERM and returns at once, for tests that watch what happens meanwhile.
    pub fn ask_to_end(&self) {
        process::signal(&self.server, Signal::TERM);
    }

    /// Ends it with SIGKILL, as a crash would.
    pub fn kill(&mut self) {
        process::kill(&mut self.server);
    }
}

impl Drop for Shim {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Keeps reading, so that the shim never blocks on a full pipe, and passes on the address from its log.
fn drain(pipe: impl Read + Send + 'static, lines: Arc<Mutex<Vec<String>>>, addresses: Sender<Addresses>) {
    thread::spawn(move || {
        for line in BufReader::new(pipe).lines().map_while(std::result::Result::ok) {
            if let Some(listening) = listening_addresses(&line) {
                // Only the first line of that is waited for.
                let _ = addresses.send(listening);
            }
            lines.lock().unwrap_or_else(PoisonError::into_inner).push(line);
        }
    });
}

fn listening(server: &mut Child, addresses: &Receiver<Addresses>) -> Result<Addresses> {
    let start = Instant::now();
    let reason = loop {
        match addresses.recv_timeout(POLL) {
            Ok(addresses) => return Ok(addresses),
            // Both pipes are closed and read to the end.
            Err(RecvTimeoutError::Disconnected) => {
                let status = process::wait_for(server, START_LIMIT);
                break status
                    .map_or("it closed its output".to_owned(), |status| format!("it ended with {status}"));
            }
            Err(RecvTimeoutError::Timeout) => signals::check()?,
        }
        if start.elapsed() > START_LIMIT {
            break format!("it did not listen within {} s", START_LIMIT.as_secs());
        }
    };
    Err(Error::NotServing { server: "the shim", reason, log: String::new() })
}

/// The addresses in the log line whose message is `listening`; tracing's JSON keeps them under `fields` or on top.
fn listening_addresses(line: &str) -> Option<Addresses> {
    let line: Value = serde_json::from_str(line).ok()?;
    let text = |name| line.get(name).or_else(|| line.get("fields")?.get(name)).and_then(Value::as_str);
    if text("message") != Some("listening") {
        return None;
    }
    let address = |name| text(name)?.parse().ok();
    Some(Addresses { everyone: address("address")?, operators: address("operators")? })
}

fn log_of(lines: &Mutex<Vec<String>>) -> Vec<String> {
    lines.lock().unwrap_or_else(PoisonError::into_inner).clone()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_addresses_are_found_on_top_and_under_fields_and_nowhere_else() {
        let address = |port| SocketAddr::from(([127, 0, 0, 1], port));
        let expected = Some(Addresses { everyone: address(4242), operators: address(4243) });
        let fields = r#""message":"listening","address":"127.0.0.1:4242","operators":"127.0.0.1:4243""#;
        assert_eq!(listening_addresses(&format!(r#"{{"level":"INFO",{fields}}}"#)), expected);
        assert_eq!(listening_addresses(&format!(r#"{{"level":"INFO","fields":{{{fields}}}}}"#)), expected);
        assert_eq!(listening_addresses(r#"{"message":"delivery","address":"127.0.0.1:4242"}"#), None);
        assert_eq!(listening_addresses("not JSON"), None);
    }

    #[test]
    fn a_program_that_ends_instead_of_listening_is_an_error_with_its_output() {
        let error = Shim::start(Path::new("/bin/ls"), &[]).unwrap_err().to_string();
        assert!(error.contains("exit status: 2") && error.contains("'serve'"), "{error}");
    }
}
