//! A small HTTP server on a port and a thread of its own: what the shim and the browser talk to.

use std::convert::Infallible;
use std::error::Error;
use std::net::SocketAddr;
use std::thread::{self, JoinHandle};

use hyper::body::{Body, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tokio::sync::oneshot;

/// A running server. Dropped, it is gone: the port is closed and its thread has ended.
pub struct HttpServer {
    address: SocketAddr,
    stop: Option<oneshot::Sender<Infallible>>,
    thread: Option<JoinHandle<()>>,
}

impl HttpServer {
    /// Answers each request by `respond`; on its error hyper closes the connection without an answer.
    ///
    /// # Panics
    /// Where the machine has no port or thread left.
    pub fn start<F, R, B, E>(respond: F) -> HttpServer
    where
        F: Fn(Request<Incoming>) -> R + Clone + Send + 'static,
        R: Future<Output = Result<Response<B>, E>> + Send + 'static,
        B: Body<Data: Send, Error: Error + Send + Sync> + Send + 'static,
        E: Error + Send + Sync + 'static,
    {
        let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
        let address = listener.local_addr().expect("a bound socket has an address");
        listener.set_nonblocking(true).expect("a socket can be non-blocking");
        let (stop, stopped) = oneshot::channel();
        let thread = thread::spawn(move || {
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(async {
                let listener = TcpListener::from_std(listener).expect("a listener for this runtime");
                tokio::select! {
                    () = serve(listener, respond) => {}
                    // An error is the sender's drop, which is how it is stopped.
                    _ = stopped => {}
                }
            });
            // Dropping the runtime ends every connection, idle ones and those that wait for an answer included.
        });
        HttpServer { address, stop: Some(stop), thread: Some(thread) }
    }

    /// Its origin, such as `http://127.0.0.1:40000`.
    pub fn origin(&self) -> String {
        format!("http://{}", self.address)
    }
}

impl Drop for HttpServer {
    fn drop(&mut self) {
        self.stop.take();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

async fn serve<F, R, B, E>(listener: TcpListener, respond: F)
where
    F: Fn(Request<Incoming>) -> R + Clone + Send + 'static,
    R: Future<Output = Result<Response<B>, E>> + Send + 'static,
    B: Body<Data: Send, Error: Error + Send + Sync> + Send + 'static,
    E: Error + Send + Sync + 'static,
{
    loop {
        // An accept that fails is a connection that went away by itself.
        let Ok((stream, _)) = listener.accept().await else { continue };
        let service = service_fn(respond.clone());
        tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
    }
}
