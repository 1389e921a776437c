//! HTTP/1.1 by hand over a TcpStream: a client that can stop in the middle, drip, send wrong lengths and hang up.

use std::collections::BTreeMap;
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

use serde_json::Value;

/// How long an answer may take; longer than every limit of the shim's.
const PATIENCE: Duration = Duration::from_secs(40);

/// One connection to a server.
pub struct Wire {
    stream: TcpStream,
    unread: Vec<u8>,
}

/// One answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The status.
    pub status: u16,
    /// The headers, their names in lower case.
    pub headers: BTreeMap<String, String>,
    /// The body.
    pub body: String,
}

impl Wire {
    /// Connects.
    pub fn open(address: SocketAddr) -> Wire {
        Wire::try_open(address).unwrap_or_else(|fault| panic!("no connection to {address}: {fault}"))
    }

    /// Connects to an address where the shim may not listen any more.
    ///
    /// # Errors
    /// The system's.
    pub fn try_open(address: SocketAddr) -> io::Result<Wire> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        Ok(Wire { stream, unread: Vec::new() })
    }

    /// Writes bytes as they are.
    ///
    /// # Errors
    /// The system's: the other side may have hung up.
    pub fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes)
    }

    /// Closes the sending half; answers can still be read.
    pub fn ends_sending(&self) {
        // It may have hung up already.
        let _ = self.stream.shutdown(Shutdown::Write);
    }

    /// Reads one answer.
    ///
    /// # Errors
    /// The system's; `UnexpectedEof` if the connection ends before the answer does.
    pub fn answer(&mut self) -> io::Result<Answer> {
        let head_end = loop {
            if let Some(at) = self.unread.windows(4).position(|window| window == b"\r\n\r\n") {
                break at;
            }
            self.read_some()?;
        };
        let head = String::from_utf8_lossy(&self.unread[..head_end]).into_owned();
        let (status_line, fields) = head.split_once("\r\n").unwrap_or((&head, ""));
        let status = status_line.split(' ').nth(1).and_then(|status| status.parse().ok());
        let headers: BTreeMap<String, String> = fields
            .lines()
            .filter_map(|line| line.split_once(": "))
            .map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()))
            .collect();
        let length: usize = headers.get("content-length").map_or(0, |text| text.parse().expect("a length"));
        let end = head_end + 4 + length;
        while self.unread.len() < end {
            self.read_some()?;
        }
        let body = String::from_utf8_lossy(&self.unread[head_end + 4..end]).into_owned();
        self.unread.drain(..end);
        Ok(Answer { status: status.expect("a status line"), headers, body })
    }

    /// Whether nothing at all comes back for this long.
    pub fn is_silent_for(&mut self, time: Duration) -> bool {
        self.stream.set_read_timeout(Some(time)).expect("a time above zero");
        let silent = self.read_some().is_err_and(|fault| is_timeout(&fault));
        self.stream.set_read_timeout(Some(PATIENCE)).expect("a time above zero");
        silent
    }

    /// Reads until a text has come, and returns everything up to its end.
    ///
    /// # Errors
    /// The system's; `UnexpectedEof` if the connection ends before the text comes.
    pub fn read_until(&mut self, text: &str) -> io::Result<String> {
        loop {
            let found = self.unread.windows(text.len()).position(|window| window == text.as_bytes());
            if let Some(at) = found {
                let read = self.unread.drain(..at + text.len()).collect::<Vec<u8>>();
                return Ok(String::from_utf8_lossy(&read).into_owned());
            }
            self.read_some()?;
        }
    }

    /// Reads until the other side hangs up: the bytes that it sent.
    pub fn until_closed(&mut self) -> Vec<u8> {
        loop {
            match self.read_some() {
                Ok(()) => {}
                Err(fault) if is_timeout(&fault) => panic!("the connection was never closed"),
                Err(_) => return std::mem::take(&mut self.unread),
            }
        }
    }

    fn read_some(&mut self) -> io::Result<()> {
        let mut chunk = [0; 16 * 1024];
        match self.stream.read(&mut chunk)? {
            0 => Err(ErrorKind::UnexpectedEof.into()),
            read => {
                self.unread.extend_from_slice(&chunk[..read]);
                Ok(())
            }
        }
    }
}

impl Answer {
    /// The body as JSON.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|fault| panic!("{fault}: {self:?}"))
    }

    /// The status with outcome, reason or error code in one line, such as `200 applied`, `500 parked unknown_price` or
    /// `400 signature_mismatch`.
    pub fn summary(&self) -> String {
        let json = self.json();
        let word = |path: &str| json.pointer(path).and_then(Value::as_str).unwrap_or_default().to_owned();
        let words = [self.status.to_string(), word("/outcome"), word("/reason"), word("/error/code")];
        words.into_iter().filter(|word| !word.is_empty()).collect::<Vec<_>>().join(" ")
    }
}

/// A whole request with its length.
pub fn request(method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Vec<u8> {
    let length = body.len().to_string();
    let mut bytes = head(method, path, &[headers, &[("Content-Length", length.as_str())]].concat());
    bytes.extend_from_slice(body);
    bytes
}

/// A request's head, to its blank line.
pub fn head(method: &str, path: &str, headers: &[(&str, &str)]) -> Vec<u8> {
    let mut head = format!("{method} {path} HTTP/1.1\r\nHost: shim.test\r\n");
    for (name, value) in headers {
        head.extend([name, ": ", value, "\r\n"]);
    }
    head.push_str("\r\n");
    head.into_bytes()
}

/// A body cut into chunks of `size`, as `Transfer-Encoding: chunked` carries it.
pub fn chunked(body: &[u8], size: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    for chunk in body.chunks(size) {
        bytes.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
        bytes.extend_from_slice(chunk);
        bytes.extend_from_slice(b"\r\n");
    }
    bytes.extend_from_slice(b"0\r\n\r\n");
    bytes
}

fn is_timeout(fault: &io::Error) -> bool {
    matches!(fault.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut)
}
