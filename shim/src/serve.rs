//! The server: accepts connections of everyone and of operators, applies what is due, and shuts down after the requests
//! that it has accepted.

mod descriptors;
mod due;
mod mirror;
mod tell;
mod top_up;
mod claims;

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use hyper::Request;
use hyper::body::Incoming;
use hyper::header::{CONNECTION, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio_io_timeout::TimeoutStream;

use crate::app::App;
use crate::config::ServeConfig;
use crate::connections::{Connections, Place};
use crate::error::Error;
use crate::response::Response;
use crate::routes;
use crate::telemetry::Log;

/// How long the headers of a request may take to arrive, and a connection may be idle between requests.
const HEADER_READ_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a response may wait for its reader to take any of it.
const WRITE_TIMEOUT: Duration = Duration::from_secs(10);
/// How old a connection may become. Before that, at `connections::MAX_AGE`, it is closed after a response.
const CONNECTION_TIMEOUT: Duration = Duration::from_mins(6);
/// The connections of operators: probes and scrapers.
const MAX_OPS_CONNECTIONS: usize = 64;
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
fn listen(address: SocketAddr) -> std::io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// Serves until `shutdown`, then finishes the requests that were accepted.
pub(crate) async fn run(
    mut config: ServeConfig,
    log: &Log,
    shutdown: impl Future<Output = ()>,
) -> Result<(), Error> {
    config.max_connections = descriptors::reserve(config.max_connections, config.database.pool_size);
    let (public, operators) = (
        Listener::bind(config.listen, config.max_connections)?,
        Listener::bind(config.ops_listen, MAX_OPS_CONNECTIONS)?,
    );
    let app = Arc::new(App::new(config, public.connections.clone(), log)?);
    match app.check_mode().await {
        Err(error @ Error::ModeConflict { .. }) => return Err(error),
        // While the database is down deliveries are answered 503; /readyz compares the modes again.
        Err(error) => tracing::warn!(%error, "the settings' livemode could not be read"),
        Ok(()) => {}
    }
    let (address, for_operators) = (public.address()?, operators.address()?);
    tracing::info!(%address, operators = %for_operators, "listening");

    let graceful = GracefulShutdown::new();
    let (stop, stopped) = watch::channel(false);
    let telling = tokio::spawn(tell::run(app.clone(), stopped.clone()));
    let topping_up = tokio::spawn(top_up::run(app.clone(), stopped));
    tokio::select! {
        () = public.serve(&app, &graceful, |app, request| Box::pin(routes::respond(app, request))) => {}
        () = operators.serve(&app, &graceful, |app, request| Box::pin(routes::respond_to_operator(app, request))) => {}
        () = due::apply(&app.database) => {}
        () = mirror::run(&app) => {}
        () = app.streams.feed(&app.database) => {}
        () = shutdown => {}
    }
    drop((public, operators));
    app.streams.close();
    let _ = stop.send(true);
    tracing::info!(connections = graceful.count(), "draining");
    // What the app is being told is told to the end: otherwise it would be told again after its lease.
    let drained = async { tokio::join!(graceful.shutdown(), telling, topping_up) };
    if tokio::time::timeout(DRAIN_TIMEOUT, drained).await.is_ok() {
        tracing::info!("stopped");
    } else {
        tracing::warn!("stopped with requests unanswered; Stripe will send theirs again");
    }
    Ok(())
}

/// Serves only the console until `shutdown`, and prints where.
pub(crate) async fn run_console(
    config: ServeConfig,
    log: &Log,
    shutdown: impl Future<Output = ()>,
) -> Result<(), Error> {
    let support = Listener::bind(config.listen, MAX_OPS_CONNECTIONS)?;
    let app = Arc::new(App::new(config, support.connections.clone(), log)?);
    app.check_mode().await?;
    println!("http://{}/console", support.address()?);
    let graceful = GracefulShutdown::new();
    tokio::select! {
        () = support.serve(&app, &graceful, |app, request| Box::pin(routes::respond_to_support(app, request))) => {}
        () = shutdown => {}
    }
    drop(support);
    // Whoever has not had an answer by then loads the page again: each form counts once.
    let _ = tokio::time::timeout(DRAIN_TIMEOUT, graceful.shutdown()).await;
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

/// How requests are answered.
type Respond = fn(Arc<App>, Request<Incoming>) -> Pin<Box<dyn Future<Output = Response> + Send>>;

/// An address where connections are accepted, and the places for them.
struct Listener {
    listener: TcpListener,
    connections: Arc<Connections>,
}

impl Listener {
    fn bind(address: SocketAddr, max_connections: usize) -> Result<Self, Error> {
        let listener = listen(address).map_err(|fault| Error::Listen { address, fault })?;
        Ok(Self { listener, connections: Connections::new(max_connections) })
    }

    fn address(&self) -> Result<SocketAddr, Error> {
        self.listener.local_addr().map_err(|fault| Error::Internal(fault.to_string()))
    }

    /// Accepts connections without an end.
    async fn serve(&self, app: &Arc<App>, graceful: &GracefulShutdown, respond: Respond) {
        loop {
            match self.listener.accept().await {
                // While there is no place for it, further ones wait in the kernel's queue.
                Ok((stream, _)) => {
                    let place = self.connections.place().await;
                    serve_connection(stream, place, app, graceful, respond);
                }
                Err(error) => {
                    tracing::warn!(%error, "a connection could not be accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }
}

fn serve_connection(
    stream: TcpStream,
    place: Place,
    app: &Arc<App>,
    graceful: &GracefulShutdown,
    respond: Respond,
) {
    // A response is one small write: sending it at once matters more than filling packets.
    let _ = stream.set_nodelay(true);
    let mut stream = TimeoutStream::new(stream);
    stream.set_write_timeout(Some(WRITE_TIMEOUT));
    let (app, connection) = (app.clone(), place.connection.clone());
    // Boxed, because hyper reserves the size of the future for every connection, idle ones too.
    let service = service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(connection.clone());
        let (response, connection) = (respond(app.clone(), request), connection.clone());
        Box::pin(async move {
            let mut response = response.await;
            if connection.answered() {
                response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
            }
            Ok::<_, Infallible>(response)
        })
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_READ_TIMEOUT)
        .max_buf_size(MAX_BUFFER_BYTES)
        .serve_connection(TokioIo::new(Box::pin(stream)), service);
    let served = graceful.watch(served);
    tokio::spawn(async move {
        tokio::select! {
            result = served => if let Err(error) = result {
                tracing::debug!(%error, "a connection ended early");
            },
            () = place.connection.evicted() => tracing::debug!("a connection gave way to another"),
            () = tokio::time::sleep(CONNECTION_TIMEOUT) => tracing::debug!("a connection was too old"),
        }
    });
}
