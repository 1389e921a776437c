//! One request to a running shim, for the commands that ask it something.

use std::time::Duration;

use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Bytes;
use hyper::http::request;
use hyper::{Request, StatusCode};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;

use crate::error::Error;
use crate::telemetry::with_causes;
use crate::tls;

/// How long a connection may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long the response may take; longer than the shim's time-out for the database.
const RESPONSE_TIMEOUT: Duration = Duration::from_mins(1);
/// The largest response printed, in bytes.
const MAX_RESPONSE_BYTES: usize = 1024 * 1024;

/// Sends a request with this body to a URL, prints the status and the body of the response; a status other than 2xx is a failure.
pub(super) async fn print_answer(url: &str, request: request::Builder, body: Vec<u8>) -> Result<(), Error> {
    let request = request.uri(url).body(Full::new(Bytes::from(body)));
    let request = request.map_err(|fault| Error::ShimUnreachable(format!("{url}: {fault}")))?;
    let (status, body) = exchange(request).await?;
    println!("{status}\n{body}");
    if status.is_success() { Ok(()) } else { Err(Error::ShimRefused(status)) }
}

async fn exchange(request: Request<Full<Bytes>>) -> Result<(StatusCode, String), Error> {
    let url = request.uri().clone();
    let unreachable = |why: &str| Error::ShimUnreachable(format!("{url}: {why}"));
    let client = Client::builder(TokioExecutor::new()).build(tls::https_connector(CONNECT_TIMEOUT));
    let exchange = async {
        let response = client.request(request).await.map_err(|error| unreachable(&with_causes(&error)))?;
        let status = response.status();
        let body = Limited::new(response.into_body(), MAX_RESPONSE_BYTES)
            .collect()
            .await
            .map_err(|error| unreachable(&with_causes(&*error)))?;
        Ok((status, String::from_utf8_lossy(&body.to_bytes()).into_owned()))
    };
    tokio::time::timeout(RESPONSE_TIMEOUT, exchange).await.map_err(|_| unreachable("no answer in time"))?
}
