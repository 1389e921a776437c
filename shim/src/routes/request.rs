//! What the requests of an app's users and of its servers have in common: a body that is a JSON object, a reply, one
//! log line and one count.

use std::pin::Pin;
use std::time::{Duration, Instant};

use hyper::StatusCode;
use serde::de::DeserializeOwned;
use uuid::Uuid;

use crate::app::App;
use crate::error::Error;
use crate::outcome::Outcome;
use crate::response::{Response, error_response, json_response};
use crate::telemetry::milliseconds;

pub(crate) type ReplyFuture<'a> = Pin<Box<dyn Future<Output = Result<Reply, Error>> + Send + 'a>>;

/// A response, with its fields for the log and the metrics.
pub(crate) struct Reply {
    pub(crate) response: Response,
    outcome: &'static str,
    reason: Option<&'static str>,
    credits: Option<i64>,
}

/// What a request is about, collected for its log line also if it fails.
#[derive(Default)]
pub(crate) struct LogFields {
    pub(crate) user_id: Option<Uuid>,
    pub(crate) session_id: Option<String>,
    pub(crate) payment_intent_id: Option<String>,
    /// One, or several separated by commas.
    pub(crate) price_id: Option<String>,
    /// What makes a server's call the same as an earlier one.
    pub(crate) request_id: Option<String>,
    /// Who acts by the console.
    pub(crate) by: Option<String>,
}

/// Deserializes a body; an empty one is an empty object.
pub(crate) fn read_object<T: DeserializeOwned>(body: &[u8]) -> Result<T, Error> {
    let body = body.trim_ascii();
    let body = if body.is_empty() { b"{}" } else { body };
    // serde reads a struct from an array as well.
    if !body.starts_with(b"{") {
        return Err(Error::MalformedRequest("the body is not a JSON object".to_owned()));
    }
    serde_json::from_slice(body).map_err(|fault| Error::MalformedRequest(fault.to_string()))
}

impl Reply {
    /// 200 with this JSON.
    pub(crate) fn done(json: String) -> Self {
        Self::of(json_response(StatusCode::OK, json))
    }

    /// A response that is not an outcome.
    pub(crate) fn of(response: Response) -> Self {
        Self { response, outcome: "done", reason: None, credits: None }
    }

    /// An outcome, in the form for the user.
    pub(crate) fn outcome(status: StatusCode, outcome: &Outcome) -> Self {
        Self::with_json(status, outcome, outcome.json_without_details())
    }

    /// An outcome as the database returned it, for a server of the app.
    pub(crate) fn whole_outcome(outcome: &Outcome) -> Self {
        Self::with_json(StatusCode::OK, outcome, outcome.json().to_owned())
    }

    /// A response that lets nobody in, for this reason.
    pub(crate) fn refused(response: Response, reason: &'static str) -> Self {
        Self { response, outcome: "refused", reason: Some(reason), credits: None }
    }

    /// A response that says what came of a form: an outcome, or that it was not filled in right.
    pub(crate) fn answered(response: Response, outcome: Option<&Outcome>) -> Self {
        let Some(outcome) = outcome else {
            return Self { response, outcome: "refused", reason: None, credits: None };
        };
        Self {
            response,
            outcome: outcome.verdict().as_str(),
            reason: outcome.reason_label(),
            credits: outcome.credits(),
        }
    }

    fn with_json(status: StatusCode, outcome: &Outcome, json: String) -> Self {
        Self {
            response: json_response(status, json),
            outcome: outcome.verdict().as_str(),
            reason: outcome.reason_label(),
            credits: outcome.credits(),
        }
    }
}

/// Counts and logs a request of the route with this path, and returns its response.
pub(crate) fn report(
    app: &App,
    route: &'static str,
    fields: &LogFields,
    result: Result<Reply, Error>,
    started: Instant,
) -> Response {
    record(app, route, fields, &result, started);
    result.map_or_else(|error| error_response(&error), |reply| reply.response)
}

/// Counts and logs a request of the route with this path.
pub(crate) fn record(
    app: &App,
    route: &'static str,
    fields: &LogFields,
    result: &Result<Reply, Error>,
    started: Instant,
) {
    let took = started.elapsed();
    let (outcome, reason) = match result {
        Ok(reply) => (reply.outcome, reply.reason),
        Err(error) => ("error", Some(error.label())),
    };
    app.metrics.request(route, outcome, reason, took);
    log(route, fields, result, took);
}

/// Logs one line: an error if an operator should look at it, a warning if it is the client's fault.
fn log(route: &'static str, fields: &LogFields, result: &Result<Reply, Error>, took: Duration) {
    let reply = result.as_ref().ok();
    let error = result.as_ref().err();
    let status = result.as_ref().map_or_else(Error::status, |reply| reply.response.status());
    macro_rules! line {
        ($level:ident) => {
            tracing::$level!(
                route,
                user_id = fields.user_id.map(tracing::field::display),
                session_id = fields.session_id,
                payment_intent_id = fields.payment_intent_id,
                price_id = fields.price_id,
                request_id = fields.request_id,
                by = fields.by,
                credits = reply.and_then(|reply| reply.credits),
                outcome = reply.map_or("error", |reply| reply.outcome),
                reason = reply.and_then(|reply| reply.reason).or(error.map(Error::label)),
                error = error.map(tracing::field::display),
                status = status.as_u16(),
                ms = milliseconds(took),
                "request"
            )
        };
    }
    if status.is_server_error() {
        line!(error);
    } else if status.is_client_error() {
        line!(warn);
    } else {
        line!(info);
    }
}
