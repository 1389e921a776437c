//! The real shim as a process: start it with an environment, talk HTTP to it, read its log, stop it.

use std::collections::BTreeMap;
use std::io::{self, BufRead as _, BufReader, Read, Write as _};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use hmac::{Hmac, KeyInit as _, Mac as _};
use serde_json::Value;
use sha2::Sha256;
use xtask::process;

use crate::database::setting;
use crate::fake_stripe::{self, FakeStripe};
use crate::stripe::Event;
use crate::wire::{self, Answer, Wire};

/// The secret that signs, unless a test says otherwise.
pub const SECRET: &str = "whsec_of_the_tests";
/// How long a condition may take to become true on a slow machine.
const PATIENCE: Duration = Duration::from_mins(1);
/// How long a command may take: some go through ten thousand objects.
const COMMAND_PATIENCE: Duration = Duration::from_mins(5);
/// How often a condition is looked at.
const POLL: Duration = Duration::from_millis(10);
/// How long to wait before sending again what was not answered 200; hours at the real Stripe.
const STRIPE_WAITS: Duration = Duration::from_millis(50);

/// A shim that is still to be started: its arguments and its whole environment.
#[derive(Debug, Clone)]
pub struct Setup {
    arguments: Vec<String>,
    environment: BTreeMap<String, String>,
    stdin: String,
}

/// How a command ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ended {
    /// The exit code; none where a signal ended it.
    pub code: Option<i32>,
    /// What it wrote to stdout.
    pub stdout: String,
    /// What it wrote to stderr.
    pub stderr: String,
    /// The most memory it had resident, in kilobytes.
    pub peak_memory: u64,
}

/// A running `stripe-credits console`. Dropped, it is killed.
pub struct ConsoleCommand {
    child: Child,
    /// Where it listens.
    pub address: SocketAddr,
}

impl ConsoleCommand {
    /// Asks it to stop, as Ctrl-C does, and returns its exit code.
    pub fn interrupt(mut self) -> Option<i32> {
        let pid = self.child.id().to_string();
        let sent = Command::new("kill").args(["-INT", &pid]).status().expect("kill is there");
        assert!(sent.success(), "{sent}");
        process::wait_for(&mut self.child, COMMAND_PATIENCE).expect("it ends").code()
    }
}

impl Drop for ConsoleCommand {
    fn drop(&mut self) {
        process::kill(&mut self.child);
    }
}

/// A shim that serves. Dropped, it is killed; after a failure it shows its log.
pub struct Shim(xtask::shim::Shim);

impl Setup {
    /// `stripe-credits` with these arguments and nothing in its environment.
    pub fn command(arguments: &[&str]) -> Setup {
        Setup {
            arguments: arguments.iter().map(|argument| (*argument).to_owned()).collect(),
            environment: BTreeMap::new(),
            stdin: String::new(),
        }
    }

    /// `stripe-credits serve` before this database, on a port of its own, without a Stripe key.
    pub fn serve(database_url: &str) -> Setup {
        Setup::command(&["serve"])
            .with("DATABASE_URL", database_url)
            .with("STRIPE_WEBHOOK_SECRET", SECRET)
            .with("LISTEN", "127.0.0.1:0")
            .with("OPS_LISTEN", "127.0.0.1:0")
    }

    /// Another command in the same environment.
    #[must_use]
    pub fn calling(mut self, arguments: &[&str]) -> Setup {
        self.arguments = Setup::command(arguments).arguments;
        self
    }

    /// With a variable.
    #[must_use]
    pub fn with(mut self, name: &str, value: &str) -> Setup {
        self.environment.insert(name.to_owned(), value.to_owned());
        self
    }

    /// Without a variable.
    #[must_use]
    pub fn without(mut self, name: &str) -> Setup {
        self.environment.remove(name);
        self
    }

    /// With the fake Stripe's address and key.
    #[must_use]
    pub fn with_stripe(self, stripe: &FakeStripe) -> Setup {
        self.with("STRIPE_API_BASE", &stripe.base()).with("STRIPE_SECRET_KEY", fake_stripe::KEY)
    }

    /// With this on its stdin.
    #[must_use]
    pub fn with_stdin(mut self, stdin: &str) -> Setup {
        stdin.clone_into(&mut self.stdin);
        self
    }

    /// Starts it; it listens when this returns.
    pub fn start(self) -> Shim {
        assert_eq!(self.arguments, ["serve"]);
        let environment: Vec<_> =
            self.environment.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        Shim(xtask::shim::Shim::start(&binary(), &environment).unwrap_or_else(|error| panic!("{error}")))
    }

    /// Starts `stripe-credits console`, which prints where it is.
    pub fn start_console(self) -> ConsoleCommand {
        let mut command = process::server_command(&binary(), None, "KILL");
        command.args(self.arguments).envs(self.environment);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::inherit());
        let mut child = process::serve(command).unwrap_or_else(|error| panic!("{error}"));
        let mut lines = BufReader::new(child.stdout.take().expect("piped above")).lines();
        let printed = lines.next().expect("a line").expect("text in UTF-8");
        // What it logs is read on, so that it never waits for that.
        thread::spawn(move || lines.for_each(drop));
        let address = printed.strip_prefix("http://").and_then(|rest| rest.strip_suffix("/console"));
        let address = address.and_then(|address| address.parse().ok());
        ConsoleCommand { child, address: address.unwrap_or_else(|| panic!("no address: {printed}")) }
    }

    /// Runs it to its end, which must come by itself.
    pub fn run(self) -> Ended {
        let mut command = process::server_command(&binary(), None, "KILL");
        command.args(self.arguments).envs(self.environment);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = process::serve(command).unwrap_or_else(|error| panic!("{error}"));
        let mut stdin = child.stdin.take().expect("piped above");
        // A command that does not read its stdin closes it.
        let _ = stdin.write_all(self.stdin.as_bytes());
        drop(stdin);
        let (mut stdout, mut stderr) = (child.stdout.take(), child.stderr.take());
        let text = |pipe: &mut dyn Read| {
            let mut text = String::new();
            pipe.read_to_string(&mut text).map(|_| text).expect("text in UTF-8")
        };
        thread::scope(|scope| {
            let stdout = scope.spawn(|| text(stdout.as_mut().expect("piped above")));
            let stderr = scope.spawn(|| text(stderr.as_mut().expect("piped above")));
            let mut status = None;
            let mut peak_memory = 0;
            let since = Instant::now();
            while status.is_none() && since.elapsed() < COMMAND_PATIENCE {
                thread::sleep(POLL);
                peak_memory = peak_memory.max(peak_memory_of(child.id()));
                status = child.try_wait().expect("a child of ours");
            }
            // Both fail only if it has ended.
            let _ = child.kill();
            let _ = child.wait();
            let (stdout, stderr) = (stdout.join().expect("its stdout"), stderr.join().expect("its stderr"));
            let status = status.unwrap_or_else(|| panic!("it did not end: {stdout}{stderr}"));
            Ended { code: status.code(), stdout, stderr, peak_memory }
        })
    }
}

/// The most memory that a process has had resident, in kilobytes; 0 if it has ended.
fn peak_memory_of(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let peak =
        status.lines().find_map(|line| line.strip_prefix("VmHWM:")?.trim().strip_suffix(" kB")?.parse().ok());
    peak.unwrap_or(0)
}

/// The built binary, named by `cargo xtask test`.
fn binary() -> PathBuf {
    setting("STRIPE_CREDITS_SHIM").into()
}

impl Shim {
    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.0.address()
    }

    /// Where it listens for operators.
    pub fn operators_address(&self) -> SocketAddr {
        self.0.operators_address()
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.0.pid()
    }

    /// A new connection.
    pub fn connect(&self) -> Wire {
        Wire::open(self.address())
    }

    /// An event, signed now.
    pub fn deliver(&self, event: &Event) -> Answer {
        deliver(self.address(), event).expect("the shim answers")
    }

    /// Bytes, signed now.
    pub fn deliver_bytes(&self, body: &[u8]) -> Answer {
        self.post(body, &[&signature(SECRET, unix_now(), body)])
    }

    /// Bytes with these signature headers.
    pub fn post(&self, body: &[u8], signatures: &[&str]) -> Answer {
        let headers: Vec<_> = signatures.iter().map(|value| ("Stripe-Signature", *value)).collect();
        self.ask("POST", "/webhooks/stripe", &headers, body)
    }

    /// A GET.
    pub fn get(&self, path: &str) -> Answer {
        self.ask("GET", path, &[], b"")
    }

    /// A GET of an operator.
    pub fn ops(&self, path: &str) -> Answer {
        let mut wire = self.connect_as_operator();
        wire.send(&wire::request("GET", path, &[], b"")).expect("the shim reads");
        wire.answer().expect("the shim answers")
    }

    /// A new connection of an operator.
    pub fn connect_as_operator(&self) -> Wire {
        Wire::open(self.0.operators_address())
    }

    /// Any request, on a connection of its own.
    pub fn ask(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
        let mut wire = self.connect();
        wire.send(&wire::request(method, path, headers, body)).expect("the shim reads");
        wire.answer().expect("the shim answers")
    }

    /// The sum of a counter's samples that carry these labels.
    pub fn metric(&self, name: &str, labels: &[(&str, &str)]) -> u64 {
        let text = self.ops("/metrics").body;
        text.lines()
            .filter_map(|line| line.rsplit_once(' '))
            .filter(|(series, _)| series.split('{').next() == Some(name))
            .filter(|(series, _)| {
                labels.iter().all(|(label, value)| series.contains(&format!("{label}=\"{value}\"")))
            })
            .map(|(_, value)| value.parse::<u64>().expect("a count"))
            .sum()
    }

    /// Everything it wrote so far, on stdout and stderr.
    pub fn text(&self) -> String {
        self.0.log().join("\n")
    }

    /// Its log so far; every line must be JSON.
    pub fn log(&self) -> Vec<Value> {
        let parse =
            |line: &String| serde_json::from_str(line).unwrap_or_else(|fault| panic!("{fault}: {line}"));
        self.0.log().iter().map(parse).collect()
    }

    /// The log's lines of an event's deliveries, once there are so many.
    pub fn deliveries(&self, event_id: &str, count: usize) -> Vec<Value> {
        self.logged(count, |line| line["message"] == "delivery" && line["event_id"] == event_id)
    }

    /// The log's lines that are `wanted`, once there are so many.
    pub fn logged(&self, count: usize, wanted: impl Fn(&Value) -> bool) -> Vec<Value> {
        let mut found = Vec::new();
        until("the log has the lines", || {
            found = self.log();
            found.retain(|line| wanted(line));
            found.len() >= count
        });
        assert_eq!(found.len(), count, "{found:#?}");
        found
    }

    /// Sends SIGTERM and waits until the log says that the shim is draining.
    pub fn ask_to_stop(&self) {
        self.0.ask_to_end();
        self.logged(1, |line| line["message"] == "draining");
    }

    /// Waits until it has ended after [`Shim::ask_to_stop`].
    pub fn ended(&mut self) -> ExitStatus {
        self.0.terminate().unwrap_or_else(|error| panic!("{error}"))
    }

    /// Sends SIGKILL, and waits for the end.
    pub fn kill(&mut self) {
        self.0.kill();
    }
}

impl Drop for Shim {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("the shim wrote:\n{}", self.text());
        }
    }
}

/// Sends an event, signed now, to an address where the shim may not listen any more.
///
/// # Errors
/// Nothing listens there, or the connection ended before the answer.
pub fn deliver(address: SocketAddr, event: &Event) -> io::Result<Answer> {
    let body = event.json().to_string();
    let mut wire = Wire::try_open(address)?;
    wire.send(&webhook(body.as_bytes()))?;
    wire.answer()
}

/// A whole delivery's bytes, signed now.
pub fn webhook(body: &[u8]) -> Vec<u8> {
    let signature = signature(SECRET, unix_now(), body);
    wire::request("POST", "/webhooks/stripe", &[("Stripe-Signature", &signature)], body)
}

/// Sends an event again and again, as Stripe does, until it is answered 200. Returns every status; 0 stands for a
/// connection that was refused or cut.
pub fn deliver_until_taken(address: impl Fn() -> SocketAddr, event: &Event) -> Vec<u16> {
    let since = Instant::now();
    let mut statuses = Vec::new();
    loop {
        let status = deliver(address(), event).map_or(0, |answer| answer.status);
        statuses.push(status);
        if status == 200 {
            return statuses;
        }
        assert!(since.elapsed() < PATIENCE, "{} is not taken: {statuses:?}", event.id());
        thread::sleep(STRIPE_WAITS);
    }
}

/// The value of `Stripe-Signature` as Stripe makes it.
pub fn signature(secret: &str, timestamp: u64, body: &[u8]) -> String {
    format!("t={timestamp},v1={}", v1(secret, &timestamp.to_string(), body))
}

/// One v1: hex of HMAC-SHA256 over the timestamp's text, a dot and the body.
pub fn v1(secret: &str, timestamp: &str, body: &[u8]) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).expect("a key of any length");
    mac.update(timestamp.as_bytes());
    mac.update(b".");
    mac.update(body);
    mac.finalize().into_bytes().iter().fold(String::new(), |hex, byte| hex + &format!("{byte:02x}"))
}

/// Seconds since 1970.
pub fn unix_now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock after 1970").as_secs()
}

/// Waits until a condition is true, by polling.
pub fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let since = Instant::now();
    while !condition() {
        assert!(since.elapsed() < PATIENCE, "this did not become true: {what}");
        thread::sleep(POLL);
    }
}
