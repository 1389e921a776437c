//! The server: accepts connections, and shuts down after the requests that it has accepted.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::app::App;
use crate::config::ServeConfig;
use crate::error::Error;
use crate::routes;

/// How long the headers of a request may take to arrive, and a connection may be idle between requests.
const HEADER_READ_TIMEOUT: Duration = Duration::from_secs(10);
/// The read buffer of a connection, in bytes, which also limits the headers of a request.
const MAX_BUFFER_BYTES: usize = 16 * 1024;
/// How long a shutdown waits for the requests that were accepted.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(25);
/// The kernel's accept queue, in connections. With std's 128, a larger burst would wait a second or more for its
/// handshakes to be retransmitted.
const BACKLOG: u32 = 4096;
/// The pause after a failed accept, such as one for lack of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Binds the address, also when a process that just ended left it in TIME_WAIT.
pub(crate) fn listen(address: SocketAddr) -> std::io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// Serves on `listener` until `shutdown`, then finishes the requests that were accepted.
pub(crate) async fn run(
    listener: TcpListener,
    config: ServeConfig,
    shutdown: impl Future<Output = ()>,
) -> Result<(), Error> {
    let max_connections = config.max_connections;
    let app = Arc::new(App::new(config)?);
    match app.check_mode().await {
        Err(error @ Error::ModeConflict { .. }) => return Err(error),
        // While the database is down deliveries are answered 503; /readyz compares the modes again.
        Err(error) => tracing::warn!(%error, "the settings' livemode could not be read"),
        Ok(()) => {}
    }
    let address = listener.local_addr().map_err(Error::Listen)?;
    tracing::info!(%address, "listening");

    let connections = GracefulShutdown::new();
    let permits = Arc::new(Semaphore::new(max_connections));
    tokio::pin!(shutdown);
    loop {
        tokio::select! {
            (stream, permit) = accept(&listener, &permits) => serve_connection(stream, permit, &app, &connections),
            () = &mut shutdown => break,
        }
    }
    drop(listener);
    tracing::info!(connections = connections.count(), "draining");
    if tokio::time::timeout(DRAIN_TIMEOUT, connections.shutdown()).await.is_ok() {
        tracing::info!("stopped");
    } else {
        tracing::warn!("stopped with requests unanswered; Stripe will send theirs again");
    }
    Ok(())
}

/// Resolves when the process is asked to stop, by SIGTERM or SIGINT.
pub(crate) fn termination() -> Result<impl Future<Output = ()>, Error> {
    let listen = |kind| signal(kind).map_err(|fault| Error::Internal(fault.to_string()));
    let mut terminate = listen(SignalKind::terminate())?;
    let mut interrupt = listen(SignalKind::interrupt())?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}

/// The next connection, once fewer than the maximum are open; until then it waits in the kernel's queue.
async fn accept(listener: &TcpListener, permits: &Arc<Semaphore>) -> (TcpStream, OwnedSemaphorePermit) {
    let permit = permits.clone().acquire_owned().await.expect("the semaphore is never closed");
    loop {
        match listener.accept().await {
            Ok((stream, _)) => return (stream, permit),
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

fn serve_connection(
    stream: TcpStream,
    permit: OwnedSemaphorePermit,
    app: &Arc<App>,
    connections: &GracefulShutdown,
) {
    // A response is one small write: sending it at once matters more than filling packets.
    let _ = stream.set_nodelay(true);
    let app = app.clone();
    // Boxed, because hyper reserves the size of the future for every connection, idle ones too.
    let service = service_fn(move |request| {
        let response = routes::respond(app.clone(), request);
        Box::pin(async { Ok::<_, Infallible>(response.await) })
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_READ_TIMEOUT)
        .max_buf_size(MAX_BUFFER_BYTES)
        .serve_connection(TokioIo::new(stream), service);
    let connection = connections.watch(connection);
    tokio::spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!(%error, "a connection ended early");
        }
        drop(permit);
    });
}
