//! The app's side: what a browser or a server asks for with its user's token. One request, from its head to its
//! answer, its log line and its count; what each route does is in a module of its own.

use std::sync::Arc;
use std::time::{Duration, Instant};

use hyper::body::{Bytes, Incoming};
use hyper::header::HeaderMap;
use hyper::{Method, Request, StatusCode};
use serde::de::DeserializeOwned;
use uuid::Uuid;

use crate::auth::token::User;
use crate::body;
use crate::commands::catalog_push as catalog;
use crate::error::Error;
use crate::metrics::milliseconds;
use crate::outcome::Outcome;
use crate::routes::reconcile::{self, Checkout};
use crate::routes::{checkout, credits, subscription};
use crate::serve::{App, Response, error_response, json_response};

/// The setting that every route but the catalog's cannot do without.
const JWT: &str = "JWT_SECRET or JWKS_URL";

/// What can be asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Route {
    ReconcilePack,
    ReconcileSubscription,
    Credits,
    Catalog,
    Checkout,
    ChangeSubscription,
    PreviewChange,
    CancelSubscription,
    Portal,
}

/// One request of a proven user.
pub(crate) struct Asked {
    pub(crate) user: User,
    pub(crate) headers: HeaderMap,
    body: Bytes,
}

/// An answer, and what the log and the metrics say of it.
pub(crate) struct Reply {
    pub(crate) response: Response,
    outcome: &'static str,
    reason: Option<String>,
    credits: Option<i64>,
}

/// What a request turned out to be about, for its log line, however it ends.
#[derive(Default)]
pub(crate) struct Subject {
    user_id: Option<Uuid>,
    pub(crate) session_id: Option<String>,
    pub(crate) price_id: Option<String>,
}

impl Route {
    const ALL: [Self; 9] = [
        Self::ReconcilePack,
        Self::ReconcileSubscription,
        Self::Credits,
        Self::Catalog,
        Self::Checkout,
        Self::ChangeSubscription,
        Self::PreviewChange,
        Self::CancelSubscription,
        Self::Portal,
    ];

    /// The route at a path.
    pub(crate) fn at(path: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|route| route.path() == path)
    }

    fn path(self) -> &'static str {
        match self {
            Self::ReconcilePack => "/reconcile-stripe-credit-pack",
            Self::ReconcileSubscription => "/reconcile-stripe-checkout",
            Self::Credits => "/credits",
            Self::Catalog => "/catalog",
            Self::Checkout => "/checkout",
            Self::ChangeSubscription => "/subscription/change",
            Self::PreviewChange => "/subscription/preview-change",
            Self::CancelSubscription => "/subscription/cancel",
            Self::Portal => "/portal",
        }
    }

    fn method(self) -> Method {
        match self {
            Self::Credits | Self::Catalog => Method::GET,
            _ => Method::POST,
        }
    }

    /// The variables that this route cannot do without, and that are not set.
    fn missing_settings(self, app: &App) -> Vec<&'static str> {
        let mut missing = Vec::new();
        let mut need = |variable, is_set: bool| {
            if !is_set {
                missing.push(variable);
            }
        };
        if self != Self::Catalog {
            need(JWT, app.auth.is_some());
        }
        if !matches!(self, Self::Catalog | Self::Credits) {
            need("STRIPE_SECRET_KEY", app.stripe.is_some());
        }
        if self == Self::Checkout {
            need("CHECKOUT_SUCCESS_URL", app.pages.checkout_success.is_some());
            need("CHECKOUT_CANCEL_URL", app.pages.checkout_cancel.is_some());
        }
        if self == Self::Portal {
            need("PORTAL_RETURN_URL", app.pages.portal_return.is_some());
        }
        missing
    }
}

/// Answers one request.
pub(crate) async fn answer(app: Arc<App>, route: Route, request: Request<Incoming>) -> Response {
    let started = Instant::now();
    let headers = request.headers().clone();
    let mut response = if let Some(preflight) = app.cors.preflight(&request, &route.method()) {
        preflight.unwrap_or_else(|error| error_response(&error))
    } else {
        let app = app.clone();
        // In a task of its own a request goes on to its end, its log line included, when the client hangs up.
        let task = tokio::spawn(async move {
            let mut subject = Subject::default();
            let result = handle(&app, route, request, &mut subject).await;
            report(&app, route, &subject, result, started)
        });
        task.await.unwrap_or_else(|panic| error_response(&Error::Internal(panic.to_string())))
    };
    app.cors.admit(&headers, &mut response);
    response
}

/// Settings first, then the token, then the body: a stranger's bytes are not read.
async fn handle(
    app: &App,
    route: Route,
    request: Request<Incoming>,
    subject: &mut Subject,
) -> Result<Reply, Error> {
    if *request.method() != route.method() {
        let allowed = if route.method() == Method::GET { "GET" } else { "POST" };
        return Err(Error::MethodNotAllowed(allowed));
    }
    let missing = route.missing_settings(app);
    if !missing.is_empty() {
        return Err(Error::MissingSettings(missing));
    }
    let (head, incoming) = request.into_parts();
    if route == Route::Catalog {
        return catalog::show(app, &head.headers).await;
    }
    let auth = app.auth.as_ref().ok_or(Error::MissingSettings(vec![JWT]))?;
    let user = auth.authenticate(&head.headers).await?;
    subject.user_id = Some(user.id());
    let body = body::read(incoming).await?;
    let asked = Asked { user, headers: head.headers, body };
    match route {
        Route::ReconcilePack => reconcile::answer(app, Checkout::Pack, &asked, subject).await,
        Route::ReconcileSubscription => reconcile::answer(app, Checkout::Subscription, &asked, subject).await,
        Route::Credits => credits::answer(app, &asked.user).await,
        Route::Catalog => unreachable!("it is public, and was answered before"),
        Route::Checkout => checkout::begin(app, &asked, subject).await,
        Route::ChangeSubscription => subscription::change(app, &asked, subject).await,
        Route::PreviewChange => subscription::preview(app, &asked, subject).await,
        Route::CancelSubscription => subscription::cancel(app, &asked).await,
        Route::Portal => checkout::portal(app, &asked).await,
    }
}

impl Asked {
    /// The body's fields that are wanted; no body is an empty object.
    pub(crate) fn read<T: DeserializeOwned>(&self) -> Result<T, Error> {
        let body = self.body.trim_ascii();
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

    /// A response that is no database's outcome.
    pub(crate) fn of(response: Response) -> Self {
        Self { response, outcome: "done", reason: None, credits: None }
    }

    /// An outcome of the database's, for the user whom it concerns.
    pub(crate) fn outcome(status: StatusCode, outcome: &Outcome) -> Self {
        Self {
            response: json_response(status, outcome.json_without_details()),
            outcome: outcome.verdict().label(),
            reason: outcome.reason().map(str::to_owned),
            credits: outcome.credits(),
        }
    }
}

/// Counts and logs a request, and makes its answer.
fn report(
    app: &App,
    route: Route,
    subject: &Subject,
    result: Result<Reply, Error>,
    started: Instant,
) -> Response {
    let took = started.elapsed();
    let (outcome, reason) = match &result {
        Ok(reply) => (reply.outcome, reply.reason.as_deref()),
        Err(error) => ("error", Some(error.label())),
    };
    app.metrics.request(route.path(), outcome, reason, took);
    log(route, subject, &result, took);
    result.map_or_else(|error| error_response(&error), |reply| reply.response)
}

/// One line a request. An error is what a person should look at, a warning is the client's doing.
fn log(route: Route, subject: &Subject, result: &Result<Reply, Error>, took: Duration) {
    let reply = result.as_ref().ok();
    let error = result.as_ref().err();
    let status = result.as_ref().map_or_else(Error::status, |reply| reply.response.status());
    macro_rules! line {
        ($level:ident) => {
            tracing::$level!(
                route = route.path(),
                user_id = subject.user_id.map(tracing::field::display),
                session_id = subject.session_id,
                price_id = subject.price_id,
                credits = reply.and_then(|reply| reply.credits),
                outcome = reply.map_or("error", |reply| reply.outcome),
                reason = reply.and_then(|reply| reply.reason.as_deref()).or(error.map(Error::label)),
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
