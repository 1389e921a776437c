//! One request of an app's user: CORS, the settings that the route needs, the token, the body, the handler, the log
//! line and the count.

use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hyper::body::Incoming;
use hyper::header::HeaderMap;
use hyper::{Method, Request, StatusCode};
use serde::de::DeserializeOwned;
use uuid::Uuid;

use crate::app::{App, Setting};
use crate::auth::token::User;
use crate::body::HeldBody;
use crate::connections::Connection;
use crate::error::Error;
use crate::limits::{Party, Turn};
use crate::outcome::Outcome;
use crate::response::{Response, error_response, json_response};
use crate::routes::cors;
use crate::telemetry::milliseconds;

/// A route for an app's users.
pub(crate) struct UserRoute {
    pub(crate) method: Method,
    pub(crate) path: &'static str,
    /// Without these settings the route answers only which are missing, in this order.
    pub(crate) needs: &'static [Setting],
    pub(crate) handler: Handler,
}

/// What handles the request.
pub(crate) enum Handler {
    /// For anyone: neither token nor body is read.
    Public(PublicHandler),
    /// For the user of the request's token.
    User(UserHandler),
}

pub(crate) type PublicHandler = for<'a> fn(&'a App, &'a HeaderMap) -> ReplyFuture<'a>;
pub(crate) type UserHandler =
    for<'a> fn(&'a App, &'a AuthenticatedRequest, &'a mut LogFields) -> ReplyFuture<'a>;
type ReplyFuture<'a> = Pin<Box<dyn Future<Output = Result<Reply, Error>> + Send + 'a>>;

/// A request with its user.
pub(crate) struct AuthenticatedRequest {
    pub(crate) user: User,
    pub(crate) headers: HeaderMap,
    body: HeldBody,
}

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
    user_id: Option<Uuid>,
    pub(crate) session_id: Option<String>,
    pub(crate) price_id: Option<String>,
}

/// Responds to one request.
pub(crate) async fn respond(
    app: Arc<App>,
    route: &'static UserRoute,
    request: Request<Incoming>,
) -> Response {
    let started = Instant::now();
    let headers = request.headers().clone();
    let preflight = cors::preflight(&app.cors_origins, &request, &route.method);
    let mut response = if let Some(preflight) = preflight {
        preflight.unwrap_or_else(|error| error_response(&error))
    } else {
        let app = app.clone();
        // In a task of its own, a request is finished and logged also if the client disconnects.
        let task = tokio::spawn(async move {
            let mut fields = LogFields::default();
            let result = handle(&app, route, request, &mut fields).await;
            report(&app, route, &fields, result, started)
        });
        task.await.unwrap_or_else(|panic| error_response(&Error::Internal(panic.to_string())))
    };
    cors::admit(&app.cors_origins, &headers, &mut response);
    response
}

/// Checks the settings, then the token, and only then reads the body: an unauthenticated one is not read.
async fn handle(
    app: &App,
    route: &UserRoute,
    request: Request<Incoming>,
    fields: &mut LogFields,
) -> Result<Reply, Error> {
    if request.method() != route.method {
        return Err(Error::MethodNotAllowed(route.method.clone()));
    }
    let missing: Vec<&str> =
        route.needs.iter().filter(|setting| !app.has(**setting)).map(|setting| setting.variable()).collect();
    if !missing.is_empty() {
        return Err(Error::MissingSettings(missing));
    }
    let (head, incoming) = request.into_parts();
    match route.handler {
        Handler::Public(handler) => handler(app, &head.headers).await,
        Handler::User(handler) => {
            let token = app.auth()?.authenticate(&head.headers).await?;
            let id = app.database.user_id(token.sub()).await?;
            let user = token.into_user(id)?;
            fields.user_id = Some(user.id());
            if let Some(connection) = head.extensions.get::<Arc<Connection>>()
                && !app.connections.admit_user(connection)
            {
                return Err(Error::Overloaded);
            }
            let _turn = turn(app, route, user.id()).await?;
            let body = app.bodies.read(incoming).await?;
            handler(app, &AuthenticatedRequest { user, headers: head.headers, body }, fields).await
        }
    }
}

/// The user's turn, within the user's rate if the route asks Stripe.
async fn turn(app: &App, route: &UserRoute, user: Uuid) -> Result<Turn, Error> {
    if route.needs.contains(&Setting::StripeKey) {
        app.user_rates.check(user).map_err(|retry_after| Error::TooManyRequests { retry_after })?;
    }
    let turn = app.user_turns.take(vec![Party::User(user.to_string())]).await;
    turn.ok_or(Error::TooManyRequests { retry_after: Duration::ZERO })
}

impl AuthenticatedRequest {
    /// Deserializes the body; an empty one is an empty object.
    pub(crate) fn read<T: DeserializeOwned>(&self) -> Result<T, Error> {
        let body = self.body.bytes.trim_ascii();
        let body = if body.is_empty() { b"{}" } else { body };
        // serde reads a struct from an array as well.
        if !body.starts_with(b"{") {
            return Err(Error::MalformedRequest("the body is not a JSON object".to_owned()));
        }
        serde_json::from_slice(body).map_err(|fault| Error::MalformedRequest(fault.to_string()))
    }
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
        Self {
            response: json_response(status, outcome.json_without_details()),
            outcome: outcome.verdict().as_str(),
            reason: outcome.reason_label(),
            credits: outcome.credits(),
        }
    }
}

/// Counts and logs a request, and returns its response.
fn report(
    app: &App,
    route: &UserRoute,
    fields: &LogFields,
    result: Result<Reply, Error>,
    started: Instant,
) -> Response {
    let took = started.elapsed();
    let (outcome, reason) = match &result {
        Ok(reply) => (reply.outcome, reply.reason),
        Err(error) => ("error", Some(error.label())),
    };
    app.metrics.request(route.path, outcome, reason, took);
    log(route, fields, &result, took);
    result.map_or_else(|error| error_response(&error), |reply| reply.response)
}

/// Logs one line: an error if an operator should look at it, a warning if it is the client's fault.
fn log(route: &UserRoute, fields: &LogFields, result: &Result<Reply, Error>, took: Duration) {
    let reply = result.as_ref().ok();
    let error = result.as_ref().err();
    let status = result.as_ref().map_or_else(Error::status, |reply| reply.response.status());
    macro_rules! line {
        ($level:ident) => {
            tracing::$level!(
                route = route.path,
                user_id = fields.user_id.map(tracing::field::display),
                session_id = fields.session_id,
                price_id = fields.price_id,
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
