//! The server: connections, routes, and a shutdown that finishes what it has taken.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{ALLOW, CONTENT_TYPE, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use secrecy::SecretString;
use serde_json::json;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::auth::token::{Auth, AuthError};
use crate::cache::Cache;
use crate::config::{Pages, ServeConfig, StripeMode};
use crate::database::Database;
use crate::error::{Error, RETRY_AFTER_SECONDS};
use crate::metrics::Metrics;
use crate::routes::cors::Cors;
use crate::routes::health;
use crate::routes::user::{self, Route};
use crate::routes::webhook;
use crate::stripe::client::StripeApi;

/// How long a request's head may take, and a connection may idle between two requests.
const HEADER_READ_TIMEOUT: Duration = Duration::from_secs(10);
/// What is read from a connection at once, in bytes, and so the longest head.
const MAX_BUFFER_BYTES: usize = 16 * 1024;
/// How long a shutdown waits for the requests it has taken.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(25);
/// Connections the kernel may keep waiting for us. With std's 128, a burst beyond them would wait a second or more,
/// for its handshakes to be sent again.
const BACKLOG: u32 = 4096;
/// How long to let be when the process has no file descriptor left for a new connection.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// A response whose body is ready.
pub(crate) type Response = hyper::Response<Full<Bytes>>;

/// What every request may use.
pub(crate) struct App {
    pub(crate) database: Database,
    pub(crate) stripe: Option<StripeApi>,
    /// Of the Stripe key, where there is one.
    pub(crate) mode: Option<StripeMode>,
    pub(crate) webhook_secrets: Vec<SecretString>,
    /// What proves the app's tokens, where that is configured.
    pub(crate) auth: Option<Auth>,
    pub(crate) cors: Cors,
    pub(crate) pages: Pages,
    /// Redis, where there is one. Nothing depends on it.
    pub(crate) cache: Option<Cache>,
    pub(crate) metrics: Metrics,
}

impl App {
    /// Stripe, for a route that cannot do without.
    pub(crate) fn stripe(&self) -> Result<&StripeApi, Error> {
        self.stripe.as_ref().ok_or(Error::MissingSettings(vec!["STRIPE_SECRET_KEY"]))
    }
}

/// Takes the address, which a process that just ended may have left in TIME_WAIT.
pub(crate) fn listen(address: SocketAddr) -> std::io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// Serves on `listener` until `shutdown`, then finishes what it has taken.
pub(crate) async fn run(
    listener: TcpListener,
    config: ServeConfig,
    shutdown: impl Future<Output = ()>,
) -> Result<(), Error> {
    let database = Database::new(&config.database)?;
    let metrics = Metrics::new();
    let app = Arc::new(App {
        database,
        stripe: config.stripe.as_ref().map(|stripe| StripeApi::new(stripe, metrics.stripe_calls())),
        mode: config.stripe.as_ref().map(|stripe| stripe.mode),
        webhook_secrets: config.webhook_secrets,
        auth: config.auth.as_ref().map(Auth::new),
        cors: Cors::new(config.cors_origins),
        pages: config.pages,
        cache: config.redis.as_ref().map(Cache::new).transpose()?,
        metrics,
    });
    match check_mode(&app.database, app.mode).await {
        Err(error @ Error::ModeConflict { .. }) => return Err(error),
        // It will be back, and until then deliveries are answered 503; /readyz compares the modes again.
        Err(error) => tracing::warn!(%error, "the settings' livemode could not be read"),
        Ok(()) => {}
    }
    let address = listener.local_addr().map_err(Error::Listen)?;
    tracing::info!(%address, "listening");

    let connections = GracefulShutdown::new();
    let permits = Arc::new(Semaphore::new(config.max_connections));
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

/// Refuses to mix test keys with live books, and the other way round.
pub(crate) async fn check_mode(database: &Database, mode: Option<StripeMode>) -> Result<(), Error> {
    let Some(mode) = mode else { return Ok(()) };
    match database.livemode().await? {
        Some(livemode) if livemode != (mode == StripeMode::Live) => Err(Error::ModeConflict { livemode }),
        _ => Ok(()),
    }
}

/// The next connection, once there is room for it; until then it waits in the kernel's queue.
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
    // An answer is one small write: sending it at once matters more than filling packets.
    let _ = stream.set_nodelay(true);
    let app = app.clone();
    // Boxed, because hyper keeps room for the future on every connection, idle ones too.
    let service = service_fn(move |request| Box::pin(respond(app.clone(), request)));
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

async fn respond(app: Arc<App>, request: Request<Incoming>) -> Result<Response, Infallible> {
    let response = route(app, request).await;
    Ok(response.unwrap_or_else(|error| error_response(&error)))
}

async fn route(app: Arc<App>, request: Request<Incoming>) -> Result<Response, Error> {
    match (request.uri().path(), request.method()) {
        ("/webhooks/stripe", &Method::POST) => Ok(webhook::deliver(app, request).await),
        ("/webhooks/stripe", _) => Err(Error::MethodNotAllowed("POST")),
        ("/healthz", &Method::GET) => Ok(health::alive()),
        ("/readyz", &Method::GET) => health::ready(&app).await,
        ("/metrics", &Method::GET) => health::scrape(&app).await,
        ("/healthz" | "/readyz" | "/metrics", _) => Err(Error::MethodNotAllowed("GET")),
        (path, _) => match Route::at(path) {
            Some(route) => Ok(user::answer(app, route, request).await),
            None => Err(Error::NotFound),
        },
    }
}

/// A response that is JSON.
pub(crate) fn json_response(status: StatusCode, json: String) -> Response {
    let mut response = Response::new(json.into());
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// The response that says an error: `{"error":{"code":…,"message":…}}`, or what the app's older clients know.
pub(crate) fn error_response(error: &Error) -> Response {
    let body = match error {
        Error::Auth(_) => json!({"code": error.status().as_u16(), "message": error.client_text()}),
        Error::MissingSettings(missing) => json!({"error": "Configuration error", "missing": missing}),
        _ => json!({"error": {"code": error.label(), "message": error.client_text()}}),
    };
    let mut response = json_response(error.status(), body.to_string());
    let headers = response.headers_mut();
    match error {
        Error::MethodNotAllowed(allowed) => {
            headers.insert(ALLOW, HeaderValue::from_static(allowed));
        }
        Error::Auth(AuthError::Missing) => {
            headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        Error::Auth(_) => {
            headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static(r#"Bearer error="invalid_token""#));
        }
        _ => {}
    }
    if error.status() == StatusCode::SERVICE_UNAVAILABLE {
        headers.insert(RETRY_AFTER, HeaderValue::from(RETRY_AFTER_SECONDS));
    }
    response
}
