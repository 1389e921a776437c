//! One request of an app's user: CORS, the settings that the route needs, the token, the body and the handler.

use std::sync::Arc;
use std::time::{Duration, Instant};

use hyper::body::Incoming;
use hyper::header::HeaderMap;
use hyper::{Method, Request};
use serde::de::DeserializeOwned;
use uuid::Uuid;

use crate::app::{App, Setting};
use crate::auth::token::User;
use crate::body::HeldBody;
use crate::connections::Connection;
use crate::error::Error;
use crate::limits::{Party, Turn};
use crate::response::{Response, error_response};
use crate::routes::cors;
use crate::routes::request::{LogFields, Reply, ReplyFuture, read_object, report};

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

/// A request with its user.
pub(crate) struct AuthenticatedRequest {
    pub(crate) user: User,
    pub(crate) headers: HeaderMap,
    body: HeldBody,
    connection: Option<Arc<Connection>>,
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
            report(&app, route.path, &fields, result, started)
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
        return Err(Error::MethodNotAllowed);
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
            let connection = head.extensions.get::<Arc<Connection>>().cloned();
            if let Some(connection) = &connection
                && !app.connections.admit_user(connection)
            {
                return Err(Error::Overloaded);
            }
            let _turn = turn(app, route, user.id()).await?;
            let body = app.bodies.read(incoming).await?;
            let request = AuthenticatedRequest { user, headers: head.headers, body, connection };
            handler(app, &request, fields).await
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
    /// How long its connection stays open.
    pub(crate) fn connection_lasts(&self) -> Duration {
        self.connection.as_ref().map_or(Duration::ZERO, |connection| connection.lasts())
    }

    /// Deserializes the body; an empty one is an empty object.
    pub(crate) fn read<T: DeserializeOwned>(&self) -> Result<T, Error> {
        read_object(&self.body.bytes)
    }
}
