//! Requests over connections that stay open, as many a second as are answered.

use std::io::{BufRead, BufReader, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use uuid::Uuid;
use xtask::stripe_event::{Event, SIGNATURE_HEADER};
use xtask::{Error, Result};

use super::ROUND_SECONDS;

/// What a load came to.
pub(super) struct Load {
    /// Answers a second.
    pub(super) rate: f64,
    /// Half of the answers came within this time.
    pub(super) p50: Duration,
    /// All but one in a hundred came within this time.
    pub(super) p99: Duration,
}

/// Sends what `request` makes over this many connections.
pub(super) fn run(
    address: SocketAddr,
    connections: usize,
    request: &(dyn Fn() -> String + Sync),
) -> Result<Load> {
    let end = Instant::now() + Duration::from_secs(ROUND_SECONDS);
    let latencies = thread::scope(|scope| {
        let workers: Vec<_> =
            (0..connections).map(|_| scope.spawn(move || send(address, request, end))).collect();
        let joined = workers.into_iter().map(|worker| worker.join().unwrap_or_else(|_| Err(died())));
        joined.collect::<Result<Vec<_>>>()
    })?;
    let mut latencies: Vec<Duration> = latencies.into_iter().flatten().collect();
    latencies.sort_unstable();
    let at = |percent: usize| latencies.get(latencies.len() * percent / 100).copied().unwrap_or_default();
    let rate = f64::from(u32::try_from(latencies.len()).unwrap_or(u32::MAX))
        / Duration::from_secs(ROUND_SECONDS).as_secs_f64();
    Ok(Load { rate, p50: at(50), p99: at(99) })
}

fn died() -> Error {
    Error::Unmet("a load worker panicked".to_owned())
}

/// A purchase's webhook, signed now.
pub(super) fn webhook(user: Uuid, secret: &str) -> String {
    let event = Event::checkout_completed(user, "price_pack");
    let signature = (SIGNATURE_HEADER, &*event.signature(secret));
    post("/webhooks/stripe", signature, &event.body)
}

/// A spend of one credit by a server of the app.
pub(super) fn service_spend(user: Uuid, token: &str) -> String {
    let body = format!(r#"{{"user":"{user}","amount":1,"request_id":"{}"}}"#, Uuid::new_v4());
    post("/service/spend", ("Authorization", &format!("Bearer {token}")), &body)
}

fn post(path: &str, (name, value): (&str, &str), body: &str) -> String {
    format!(
        "POST {path} HTTP/1.1\r\nHost: shim\r\n{name}: {value}\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

fn send(address: SocketAddr, request: &(dyn Fn() -> String + Sync), end: Instant) -> Result<Vec<Duration>> {
    let socket = |error| Error::Unmet(format!("the shim's connection: {error}"));
    let stream = TcpStream::connect(address).map_err(socket)?;
    stream.set_nodelay(true).map_err(socket)?;
    let mut answers = BufReader::new(stream.try_clone().map_err(socket)?);
    let mut stream = stream;
    let mut latencies = Vec::new();
    while Instant::now() < end {
        let request = request();
        let sent = Instant::now();
        stream.write_all(request.as_bytes()).map_err(socket)?;
        read_applied(&mut answers).map_err(socket)?;
        latencies.push(sent.elapsed());
    }
    Ok(latencies)
}

/// Reads one answer, which has to be 200 and `applied`.
fn read_applied(answers: &mut impl BufRead) -> std::io::Result<()> {
    let mut length = 0;
    let mut status = String::new();
    answers.read_line(&mut status)?;
    loop {
        let mut header = String::new();
        answers.read_line(&mut header)?;
        let Some((name, value)) = header.trim_end().split_once(':') else { break };
        if name.eq_ignore_ascii_case("content-length") {
            length = value.trim().parse().unwrap_or(0);
        }
    }
    let mut body = vec![0; length];
    answers.read_exact(&mut body)?;
    let body = String::from_utf8_lossy(&body);
    if status.starts_with("HTTP/1.1 200") && body.contains("\"applied\"") {
        Ok(())
    } else {
        Err(std::io::Error::other(format!("{}: {body}", status.trim_end())))
    }
}
