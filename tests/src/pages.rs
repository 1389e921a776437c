//! The app's own web server: examples/return-flow as it is, on an origin of its own, but for where its shim is.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::CONTENT_TYPE;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tokio::sync::oneshot;

/// What is served.
const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/return-flow");

/// A running web server. Dropped, it is gone: the port is closed and its thread has ended.
pub struct Pages {
    address: SocketAddr,
    shim_url: Arc<Mutex<String>>,
    stop: Option<oneshot::Sender<()>>,
    server: Option<JoinHandle<()>>,
}

impl Pages {
    /// Listens on a port of its own; its pages know no shim yet.
    pub fn start() -> Pages {
        let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
        let address = listener.local_addr().expect("a bound socket has an address");
        listener.set_nonblocking(true).expect("a socket can be non-blocking");
        let shim_url = Arc::new(Mutex::new(String::new()));
        let (stop, stopped) = oneshot::channel();
        let shared = shim_url.clone();
        let server = thread::spawn(move || run(listener, &shared, stopped));
        Pages { address, shim_url, stop: Some(stop), server: Some(server) }
    }

    /// Its origin, for `CORS_ORIGINS`.
    pub fn origin(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The address of a page: `path` such as `/index.html?checkout=cancel`.
    pub fn url(&self, path: &str) -> String {
        self.origin() + path
    }

    /// From now on the pages' configuration names this shim.
    pub fn configure(&self, shim_url: &str) {
        shim_url.clone_into(&mut self.shim_url.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

impl Drop for Pages {
    fn drop(&mut self) {
        self.stop.take();
        if let Some(server) = self.server.take() {
            let _ = server.join();
        }
    }
}

fn run(listener: std::net::TcpListener, shim_url: &Arc<Mutex<String>>, stopped: oneshot::Receiver<()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let listener = TcpListener::from_std(listener).expect("a listener for this runtime");
        tokio::select! {
            () = serve(listener, shim_url) => {}
            // An error is the sender's drop, which is how it is stopped.
            _ = stopped => {}
        }
    });
    // Dropping the runtime ends every connection; a browser opens some ahead of time, and leaves them idle.
}

async fn serve(listener: TcpListener, shim_url: &Arc<Mutex<String>>) {
    loop {
        let Ok((stream, _)) = listener.accept().await else { continue };
        let shim_url = shim_url.clone();
        let service = service_fn(move |request: Request<Incoming>| {
            let answer = answer(request.uri().path(), &shim_url);
            async move { Ok::<_, Infallible>(answer) }
        });
        tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
    }
}

fn answer(path: &str, shim_url: &Mutex<String>) -> Response<Full<Bytes>> {
    let name = path.trim_start_matches('/');
    let content = if name == "config.js" {
        let shim_url = shim_url.lock().unwrap_or_else(PoisonError::into_inner);
        Some(format!("export const shimUrl = '{shim_url}';\n").into_bytes())
    } else {
        // Its names are known; nothing of a path reaches the disk.
        let is_file = !name.is_empty()
            && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-".contains(&byte));
        is_file.then(|| std::fs::read(Path::new(FOLDER).join(name)).ok()).flatten()
    };
    let kind = match name.rsplit_once('.') {
        Some((_, "js")) => "text/javascript",
        Some((_, "css")) => "text/css",
        _ => "text/html",
    };
    let status = if content.is_some() { StatusCode::OK } else { StatusCode::NOT_FOUND };
    let answer = Response::builder().status(status).header(CONTENT_TYPE, kind);
    answer.body(Full::from(content.unwrap_or_default())).expect("a status and a type")
}
