//! The app's own web server: examples/return-flow as it is, on an origin of its own, with the built client beside it; only
//! its `config.js` is generated.

use std::convert::Infallible;
use std::future::ready;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::CONTENT_TYPE;
use hyper::{Request, Response, StatusCode};

use crate::database::setting;
use crate::http_server::HttpServer;

/// What is served.
const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/return-flow");
/// Where the page finds the client.
const CLIENT: &str = "stripe-credits/";

/// A running web server. Dropped, it is gone.
pub struct Pages {
    server: HttpServer,
    shim_url: Arc<Mutex<String>>,
}

impl Pages {
    /// Listens on a port of its own; its pages know no shim yet.
    pub fn start() -> Pages {
        let shim_url = Arc::new(Mutex::new(String::new()));
        let shared = shim_url.clone();
        let server = HttpServer::start(move |request: Request<Incoming>| {
            ready(Ok::<_, Infallible>(answer(request.uri().path(), &shared)))
        });
        Pages { server, shim_url }
    }

    /// Its origin, for `CORS_ORIGINS`.
    pub fn origin(&self) -> String {
        self.server.origin()
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

fn answer(path: &str, shim_url: &Mutex<String>) -> Response<Full<Bytes>> {
    let name = path.trim_start_matches('/');
    let content = if name == "config.js" {
        let shim_url = shim_url.lock().unwrap_or_else(PoisonError::into_inner);
        Some(format!("export const shimUrl = '{shim_url}';\n").into_bytes())
    } else {
        let (folder, name) = match name.strip_prefix(CLIENT) {
            Some(name) => (Path::new(&setting("STRIPE_CREDITS_TYPESCRIPT")).join("dist"), name),
            None => (FOLDER.into(), name),
        };
        // Only plain file names: no path from a request reaches the disk.
        let is_file = !name.is_empty()
            && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-".contains(&byte));
        is_file.then(|| std::fs::read(folder.join(name)).ok()).flatten()
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
