//! A TCP forwarder on a port of its own: the address of a server that can move to another one and be cut off, as a
//! virtual address or a DNS name is in production.

use std::collections::BTreeMap;
use std::io;
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};

use crate::{Error, Result};

/// A running forwarder. Dropped, its port is closed and so is every connection through it.
#[derive(Debug)]
pub struct Forwarder {
    address: SocketAddr,
    state: Arc<Mutex<State>>,
    acceptor: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct State {
    /// Where new connections go; `None`: each is closed at once.
    target: Option<SocketAddr>,
    has_ended: bool,
    /// How many connections there were, which numbers them.
    accepted: u64,
    /// What is open: the client's side and the server's.
    open: BTreeMap<u64, [TcpStream; 2]>,
}

impl Forwarder {
    /// Listens on a port of 127.0.0.1.
    pub fn start(target: SocketAddr) -> Result<Self> {
        let socket = |error: io::Error| Error::Unmet(format!("the forwarder's socket: {error}"));
        let listener = TcpListener::bind(("127.0.0.1", 0)).map_err(socket)?;
        let address = listener.local_addr().map_err(socket)?;
        let state = Arc::new(Mutex::new(State { target: Some(target), ..State::default() }));
        let shared = Arc::clone(&state);
        let acceptor = thread::spawn(move || accept(&listener, &shared));
        Ok(Self { address, state, acceptor: Some(acceptor) })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Closes every connection; new ones go to `target`, or are closed at once if there is none.
    pub fn point_at(&self, target: Option<SocketAddr>) {
        let mut state = locked(&self.state);
        state.target = target;
        state.close_all();
    }
}

impl Drop for Forwarder {
    fn drop(&mut self) {
        self.point_at(None);
        locked(&self.state).has_ended = true;
        // The acceptor looks at that at its next connection.
        let _ = TcpStream::connect(self.address);
        if let Some(acceptor) = self.acceptor.take() {
            let _ = acceptor.join();
        }
    }
}

impl State {
    fn close_all(&mut self) {
        for stream in std::mem::take(&mut self.open).into_values().flatten() {
            // It may have been closed already. Its two threads end by this.
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

fn accept(listener: &TcpListener, state: &Arc<Mutex<State>>) {
    for client in listener.incoming().flatten() {
        if locked(state).has_ended {
            return;
        }
        let state = Arc::clone(state);
        // A connection may break at any time, which is what both of its sides expect.
        thread::spawn(move || forward(client, &state));
    }
}

/// Carries the bytes of one connection in both directions until either side ends it.
fn forward(client: TcpStream, state: &Mutex<State>) -> io::Result<()> {
    let target = locked(state).target.ok_or(io::ErrorKind::ConnectionRefused)?;
    let server = TcpStream::connect(target)?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let (mut from_client, mut to_server) = (client.try_clone()?, server.try_clone()?);
    let (mut from_server, mut to_client) = (server.try_clone()?, client.try_clone()?);
    let number = {
        let mut state = locked(state);
        if state.target != Some(target) {
            return Err(io::ErrorKind::ConnectionReset.into());
        }
        state.accepted += 1;
        let number = state.accepted;
        state.open.insert(number, [client, server]);
        number
    };
    let up = thread::spawn(move || carry(&mut from_client, &mut to_server));
    carry(&mut from_server, &mut to_client);
    let _ = up.join();
    locked(state).open.remove(&number);
    Ok(())
}

/// Copies until the source ends or either side breaks, and then closes both.
fn carry(from: &mut TcpStream, to: &mut TcpStream) {
    let _ = io::copy(from, to);
    let _ = from.shutdown(Shutdown::Both);
    let _ = to.shutdown(Shutdown::Both);
}

fn locked(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::time::{Duration, Instant};

    use super::*;

    /// How long a port may stay open after its forwarder is gone.
    const PATIENCE: Duration = Duration::from_secs(10);

    /// A server that greets each connection with a letter and then returns what it gets.
    fn server(letter: u8) -> SocketAddr {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let address = listener.local_addr().unwrap();
        thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                stream.write_all(&[letter]).unwrap();
                let mut answers = stream.try_clone().unwrap();
                thread::spawn(move || io::copy(&mut stream, &mut answers));
            }
        });
        address
    }

    fn greeted(forwarder: &Forwarder) -> (TcpStream, io::Result<u8>) {
        let mut stream = TcpStream::connect(forwarder.address()).unwrap();
        let mut letter = [0];
        let read = stream.read_exact(&mut letter).map(|()| letter[0]);
        (stream, read)
    }

    #[test]
    fn connections_are_carried_cut_and_moved() {
        let forwarder = Forwarder::start(server(b'a')).unwrap();
        let (mut first, letter) = greeted(&forwarder);
        assert_eq!(letter.unwrap(), b'a');
        first.write_all(b"echo").unwrap();
        let mut echo = [0; 4];
        first.read_exact(&mut echo).unwrap();
        assert_eq!(&echo, b"echo");

        forwarder.point_at(None);
        assert!(first.read_exact(&mut echo).is_err(), "what was open is closed");
        assert!(greeted(&forwarder).1.is_err(), "nothing new is carried");

        forwarder.point_at(Some(server(b'b')));
        assert_eq!(greeted(&forwarder).1.unwrap(), b'b');
        let address = forwarder.address();
        drop(forwarder);
        // A child that another test starts has a copy of the socket between its fork and its exec.
        let since = Instant::now();
        while TcpStream::connect(address).is_ok() {
            assert!(since.elapsed() < PATIENCE, "the port is closed");
            thread::yield_now();
        }
    }
}
