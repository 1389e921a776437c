//! `/service/…`: an app's own servers move and read credits by HTTP, if they cannot open a connection to Postgres. The
//! same functions as in SQL, with the same answers and the same idempotency.
//!
//! A request bears one of `SERVICE_TOKEN`; without that setting these routes do not exist. There is no CORS, because the
//! token belongs into no browser.

use std::sync::Arc;
use std::time::Instant;

use hyper::body::Incoming;
use hyper::header::{CACHE_CONTROL, HeaderMap, HeaderValue};
use hyper::{Method, Request};
use percent_encoding::percent_decode_str;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;
use uuid::Uuid;

use crate::app::App;
use crate::body::HeldBody;
use crate::connections::Connection;
use crate::database::DatabaseError;
use crate::error::Error;
use crate::outcome::Outcome;
use crate::response::{Response, error_response};
use crate::routes::request::{LogFields, Reply, ReplyFuture, read_object, report};
use crate::stripe::idempotency;

/// How long a reservation lasts that does not say, in seconds: as in SQL.
const DEFAULT_TTL_SECONDS: i64 = 15 * 60;
/// What ends the path of a route about one user; the path of a request has the user in its place.
const USER_SEGMENT: &str = "{user}";

/// A route for an app's servers.
pub(crate) struct ServiceRoute {
    pub(crate) method: Method,
    /// It may end with [`USER_SEGMENT`].
    pub(crate) path: &'static str,
    pub(crate) handler: ServiceHandler,
}

pub(crate) type ServiceHandler =
    for<'a> fn(&'a App, &'a ServiceRequest, &'a mut LogFields) -> ReplyFuture<'a>;

/// A request of a server of the app.
pub(crate) struct ServiceRequest {
    headers: HeaderMap,
    path: String,
    body: HeldBody,
}

/// Whose credits a call moves, and what makes it the same as an earlier one.
struct Call {
    user: Uuid,
    request_id: String,
}

// Unknown fields are refused: without a misspelt `amount`, all of a reservation would be committed.

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Spend {
    user: String,
    request_id: Option<String>,
    amount: i64,
    description: Option<String>,
    metadata: Option<Box<RawValue>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Reserve {
    user: String,
    request_id: Option<String>,
    amount: i64,
    ttl_seconds: Option<i64>,
    description: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Commit {
    user: String,
    request_id: Option<String>,
    amount: Option<i64>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Release {
    user: String,
    request_id: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Refund {
    user: String,
    spend_request_id: String,
    request_id: Option<String>,
    amount: Option<i64>,
    reason: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Grant {
    user: String,
    request_id: Option<String>,
    amount: i64,
    description: Option<String>,
    expires_at: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct AutoTopUp {
    user: String,
    enabled: bool,
}

impl ServiceRoute {
    /// Whether a request for this path is one for this route.
    pub(crate) fn serves(&self, path: &str) -> bool {
        match self.path.strip_suffix(USER_SEGMENT) {
            None => self.path == path,
            Some(start) => {
                path.strip_prefix(start).is_some_and(|user| !user.is_empty() && !user.contains('/'))
            }
        }
    }
}

/// Responds to one request.
pub(crate) async fn respond(
    app: Arc<App>,
    route: &'static ServiceRoute,
    request: Request<Incoming>,
) -> Response {
    let started = Instant::now();
    // In a task of its own, a request is finished and logged also if the client disconnects.
    let task = tokio::spawn(async move {
        let mut fields = LogFields::default();
        let result = handle(&app, route, request, &mut fields).await;
        report(&app, route.path, &fields, result, started)
    });
    task.await.unwrap_or_else(|panic| error_response(&Error::Internal(panic.to_string())))
}

/// Checks the token, and only then reads the body: an unauthenticated one is not read.
async fn handle(
    app: &App,
    route: &ServiceRoute,
    request: Request<Incoming>,
    fields: &mut LogFields,
) -> Result<Reply, Error> {
    if request.method() != route.method {
        return Err(Error::MethodNotAllowed);
    }
    let (head, incoming) = request.into_parts();
    app.service_tokens.as_ref().ok_or(Error::NotFound)?.authenticate(&head.headers)?;
    if let Some(connection) = head.extensions.get::<Arc<Connection>>()
        && !app.connections.admit_user(connection)
    {
        return Err(Error::Overloaded);
    }
    let body = app.bodies.read(incoming).await?;
    let request = ServiceRequest { headers: head.headers, path: head.uri.path().to_owned(), body };
    (route.handler)(app, &request, fields).await
}

/// Spends credits.
pub(crate) async fn spend(
    app: &App,
    request: &ServiceRequest,
    fields: &mut LogFields,
) -> Result<Reply, Error> {
    let body: Spend = request.read()?;
    if body.metadata.as_ref().is_some_and(|metadata| !metadata.get().starts_with('{')) {
        return Err(Error::MalformedRequest("metadata is not a JSON object".to_owned()));
    }
    let Call { user, request_id } = request.call(app, &body.user, body.request_id, fields).await?;
    let (description, metadata) = (body.description.as_deref(), body.metadata.as_deref());
    let spent = app.database.spend_credits(user, body.amount, &request_id, description, metadata).await;
    answer(app, user, spent).await
}

/// Reserves credits.
pub(crate) async fn reserve(
    app: &App,
    request: &ServiceRequest,
    fields: &mut LogFields,
) -> Result<Reply, Error> {
    let body: Reserve = request.read()?;
    let Call { user, request_id } = request.call(app, &body.user, body.request_id, fields).await?;
    let (ttl, description) = (body.ttl_seconds.unwrap_or(DEFAULT_TTL_SECONDS), body.description.as_deref());
    let reserved = app.database.reserve_credits(user, body.amount, &request_id, ttl, description).await;
    answer(app, user, reserved).await
}

/// Ends a reservation with all or part of it spent.
pub(crate) async fn commit(
    app: &App,
    request: &ServiceRequest,
    fields: &mut LogFields,
) -> Result<Reply, Error> {
    let body: Commit = request.read()?;
    let Call { user, request_id } = request.call(app, &body.user, body.request_id, fields).await?;
    answer(app, user, app.database.commit_reservation(user, &request_id, body.amount).await).await
}

/// Ends a reservation with nothing of it spent.
pub(crate) async fn release(
    app: &App,
    request: &ServiceRequest,
    fields: &mut LogFields,
) -> Result<Reply, Error> {
    let body: Release = request.read()?;
    let Call { user, request_id } = request.call(app, &body.user, body.request_id, fields).await?;
    answer(app, user, app.database.release_reservation(user, &request_id).await).await
}

/// Gives back all or part of what a spend drew.
pub(crate) async fn refund(
    app: &App,
    request: &ServiceRequest,
    fields: &mut LogFields,
) -> Result<Reply, Error> {
    let body: Refund = request.read()?;
    let Call { user, request_id } = request.call(app, &body.user, body.request_id, fields).await?;
    let (spend, reason) = (&body.spend_request_id, body.reason.as_deref());
    let refunded = app.database.refund_spend(user, spend, &request_id, body.amount, reason, None).await;
    answer(app, user, refunded).await
}

/// Grants promotional credits.
pub(crate) async fn grant(
    app: &App,
    request: &ServiceRequest,
    fields: &mut LogFields,
) -> Result<Reply, Error> {
    let body: Grant = request.read()?;
    let Call { user, request_id } = request.call(app, &body.user, body.request_id, fields).await?;
    let (description, expires_at) = (body.description.as_deref(), body.expires_at.as_deref());
    let granted = app.database.grant_credits(user, body.amount, &request_id, description, expires_at).await;
    answer(app, user, granted).await
}

/// Turns auto top-up on or off for a user.
pub(crate) async fn set_auto_top_up(
    app: &App,
    request: &ServiceRequest,
    fields: &mut LogFields,
) -> Result<Reply, Error> {
    let body: AutoTopUp = request.read()?;
    let user = known_user(app, &body.user, fields).await?;
    answer(app, user, app.database.set_auto_top_up(user, body.enabled).await).await
}

/// A user's tier and balances, always from the database: the row of `billing.my_credits()`.
pub(crate) async fn credits(
    app: &App,
    request: &ServiceRequest,
    fields: &mut LogFields,
) -> Result<Reply, Error> {
    let segment = request.path.rsplit('/').next().unwrap_or_default();
    let user = percent_decode_str(segment).decode_utf8().map_err(|_| Error::UnknownUser)?;
    let user = known_user(app, &user, fields).await?;
    let mut reply = Reply::done(app.database.credits(user).await?);
    reply.response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(reply)
}

impl ServiceRequest {
    /// Deserializes the body.
    fn read<T: DeserializeOwned>(&self) -> Result<T, Error> {
        read_object(&self.body.bytes)
    }

    /// Whom and which request the body and the headers name.
    async fn call(
        &self,
        app: &App,
        user: &str,
        request_id: Option<String>,
        fields: &mut LogFields,
    ) -> Result<Call, Error> {
        let request_id = request_id_of(&self.headers, request_id)?;
        fields.request_id = Some(request_id.clone());
        Ok(Call { user: known_user(app, user, fields).await?, request_id })
    }
}

/// The request id that the body or `Idempotency-Key` has; if both have one, it must be the same.
fn request_id_of(headers: &HeaderMap, in_body: Option<String>) -> Result<String, Error> {
    let malformed = |fault: &str| Err(Error::MalformedRequest(fault.to_owned()));
    let mut keys = headers.get_all(idempotency::HEADER).iter();
    let in_header = match keys.next().map(HeaderValue::to_str) {
        None => None,
        Some(Ok(key)) if keys.next().is_none() => Some(key.to_owned()),
        Some(_) => return malformed("Idempotency-Key must be one header, in ASCII"),
    };
    match (in_body, in_header) {
        (Some(body), Some(header)) if body != header => {
            malformed("request_id and Idempotency-Key are not the same")
        }
        (Some(request_id), _) | (None, Some(request_id)) => Ok(request_id),
        (None, None) => malformed("there is neither a request_id nor an Idempotency-Key"),
    }
}

/// The user that a server names as tokens' `sub` does.
async fn known_user(app: &App, name: &str, fields: &mut LogFields) -> Result<Uuid, Error> {
    let user = app.database.user_id(name).await?.ok_or(Error::UnknownUser)?;
    fields.user_id = Some(user);
    Ok(user)
}

/// The row that SQL returns. A call that is wrong in itself is the client's fault, in Postgres's words.
async fn answer(app: &App, user: Uuid, outcome: Result<Outcome, DatabaseError>) -> Result<Reply, Error> {
    let outcome = outcome.map_err(|error| match &error {
        DatabaseError::Data(fault) => match fault.as_db_error() {
            Some(fault) => Error::InvalidCall(fault.message().to_owned()),
            None => error.into(),
        },
        _ => error.into(),
    })?;
    if let Some(cache) = &app.cache {
        cache.forget_credits(user).await;
    }
    Ok(Reply::whole_outcome(&outcome))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request_id(keys: &[&'static str], in_body: Option<&str>) -> Option<String> {
        let headers: HeaderMap = keys
            .iter()
            .map(|key| (idempotency::HEADER.parse().unwrap(), HeaderValue::from_static(key)))
            .collect();
        request_id_of(&headers, in_body.map(str::to_owned)).ok()
    }

    #[test]
    fn a_request_is_named_by_its_body_or_its_header_or_by_both_alike() {
        assert_eq!(request_id(&[], Some("a")).as_deref(), Some("a"));
        assert_eq!(request_id(&["a"], None).as_deref(), Some("a"));
        assert_eq!(request_id(&["a"], Some("a")).as_deref(), Some("a"));
        assert_eq!(request_id(&["b"], Some("a")), None);
        assert_eq!(request_id(&["a", "a"], None), None);
        assert_eq!(request_id(&[], None), None);
    }

    #[test]
    fn a_path_about_a_user_has_one_more_segment() {
        let route = |path| ServiceRoute {
            method: Method::GET,
            path,
            handler: |_, _, _| Box::pin(async { Err(Error::NotFound) }),
        };
        let credits = route("/service/credits/{user}");
        assert!(credits.serves("/service/credits/7") && credits.serves("/service/credits/a%2Fb"));
        assert!(!credits.serves("/service/credits/") && !credits.serves("/service/credits/a/b"));
        assert!(!credits.serves("/service/credits"));
        assert!(
            route("/service/spend").serves("/service/spend") && !route("/service/spend").serves("/service")
        );
    }
}
