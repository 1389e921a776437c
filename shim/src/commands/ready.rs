//! `ready`: whether a running shim would apply a delivery now, for health checks of containers that have no other program.

use hyper::Request;

use crate::commands::exchange::print_answer;
use crate::config::{self, Environment};
use crate::error::Error;

/// Asks `/readyz` and prints the answer; not ready is a failure.
pub(crate) async fn run(environment: &Environment) -> Result<(), Error> {
    let url = format!("http://{}/readyz", config::read_ops_listen(environment)?);
    print_answer(&url, Request::builder(), Vec::new()).await
}
