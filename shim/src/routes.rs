//! Every route: its method, its path and its handler, in one table.

mod webhook;
mod health;
mod reconcile;
mod credits;
mod events;
mod catalog;
mod subscription;
mod checkout;
mod choice;
mod service;
mod user;
mod request;
mod cors;

use std::pin::Pin;
use std::sync::Arc;

use hyper::body::Incoming;
use hyper::header::{ACCESS_CONTROL_REQUEST_METHOD, ALLOW, HeaderValue};
use hyper::{Method, Request, StatusCode};

use self::service::{ServiceHandler, ServiceRoute};
use self::user::{PublicHandler, UserHandler, UserRoute};
use crate::app::{App, Setting};
use crate::error::Error;
use crate::response::{Response, error_response};

/// The settings of a route that acts for a user at Stripe.
const USER_AT_STRIPE: &[Setting] = &[Setting::TokenKeys, Setting::StripeKey];

static ROUTES: [Route; 20] = [
    plain(Method::POST, "/webhooks/stripe", |app, request| Box::pin(webhook::deliver(app, request))),
    public(Method::GET, "/catalog", |app, headers| Box::pin(catalog::show(app, headers))),
    user(Method::GET, "/credits", &[Setting::TokenKeys], |app, request, _| {
        Box::pin(credits::show(app, request))
    }),
    user(Method::POST, "/credits", &[Setting::TokenKeys], |app, request, _| {
        Box::pin(credits::act(app, request))
    }),
    user(Method::GET, "/events", &[Setting::TokenKeys], |app, request, _| {
        Box::pin(events::listen(app, request))
    }),
    user(Method::POST, "/reconcile-stripe-credit-pack", USER_AT_STRIPE, |app, request, fields| {
        Box::pin(reconcile::pack(app, request, fields))
    }),
    user(Method::POST, "/reconcile-stripe-checkout", USER_AT_STRIPE, |app, request, fields| {
        Box::pin(reconcile::subscription(app, request, fields))
    }),
    user(
        Method::POST,
        "/checkout",
        &[Setting::TokenKeys, Setting::StripeKey, Setting::CheckoutSuccess, Setting::CheckoutCancel],
        |app, request, fields| Box::pin(checkout::begin(app, request, fields)),
    ),
    user(
        Method::POST,
        "/portal",
        &[Setting::TokenKeys, Setting::StripeKey, Setting::PortalReturn],
        |app, request, _| Box::pin(checkout::portal(app, request)),
    ),
    user(Method::POST, "/subscription/change", USER_AT_STRIPE, |app, request, fields| {
        Box::pin(subscription::change(app, request, fields))
    }),
    user(Method::POST, "/subscription/preview-change", USER_AT_STRIPE, |app, request, fields| {
        Box::pin(subscription::preview(app, request, fields))
    }),
    user(Method::POST, "/subscription/cancel", USER_AT_STRIPE, |app, request, _| {
        Box::pin(subscription::cancel(app, request))
    }),
    service(Method::POST, "/service/spend", |app, request, fields| {
        Box::pin(service::spend(app, request, fields))
    }),
    service(Method::POST, "/service/reserve", |app, request, fields| {
        Box::pin(service::reserve(app, request, fields))
    }),
    service(Method::POST, "/service/commit", |app, request, fields| {
        Box::pin(service::commit(app, request, fields))
    }),
    service(Method::POST, "/service/release", |app, request, fields| {
        Box::pin(service::release(app, request, fields))
    }),
    service(Method::POST, "/service/refund", |app, request, fields| {
        Box::pin(service::refund(app, request, fields))
    }),
    service(Method::POST, "/service/grant", |app, request, fields| {
        Box::pin(service::grant(app, request, fields))
    }),
    service(Method::POST, "/service/auto-top-up", |app, request, fields| {
        Box::pin(service::set_auto_top_up(app, request, fields))
    }),
    service(Method::GET, "/service/credits/{user}", |app, request, fields| {
        Box::pin(service::credits(app, request, fields))
    }),
];

/// What operators ask, on a listener of their own.
static OPERATORS: [Route; 3] = [
    plain(Method::GET, "/healthz", |_, _| Box::pin(async { Ok(health::alive()) })),
    plain(Method::GET, "/readyz", |app, _| Box::pin(async move { Ok(health::ready(&app).await) })),
    plain(Method::GET, "/metrics", |app, _| Box::pin(async move { health::scrape(&app).await })),
];

enum Route {
    /// For Stripe and operators.
    Plain { method: Method, path: &'static str, handler: PlainHandler },
    /// For the app's users: with CORS, a log line and a count.
    User(UserRoute),
    /// For the app's servers: with a log line and a count.
    Service(ServiceRoute),
}

type PlainHandler =
    fn(Arc<App>, Request<Incoming>) -> Pin<Box<dyn Future<Output = Result<Response, Error>> + Send>>;

const fn plain(method: Method, path: &'static str, handler: PlainHandler) -> Route {
    Route::Plain { method, path, handler }
}

const fn public(method: Method, path: &'static str, handler: PublicHandler) -> Route {
    Route::User(UserRoute { method, path, needs: &[], handler: user::Handler::Public(handler) })
}

const fn user(method: Method, path: &'static str, needs: &'static [Setting], handler: UserHandler) -> Route {
    Route::User(UserRoute { method, path, needs, handler: user::Handler::User(handler) })
}

const fn service(method: Method, path: &'static str, handler: ServiceHandler) -> Route {
    Route::Service(ServiceRoute { method, path, handler })
}

/// Routes one request of Stripe's, of the app's users or of its servers to its handler.
pub(crate) async fn respond(app: Arc<App>, request: Request<Incoming>) -> Response {
    respond_by(&ROUTES, app, request).await
}

/// Routes one request of an operator to its handler.
pub(crate) async fn respond_to_operator(app: Arc<App>, request: Request<Incoming>) -> Response {
    respond_by(&OPERATORS, app, request).await
}

async fn respond_by(routes: &'static [Route], app: Arc<App>, request: Request<Incoming>) -> Response {
    let Some(route) = find(routes, &app, &request) else {
        return error_response(&Error::NotFound);
    };
    let methods = (request.method() != route.method()).then(|| methods(routes, route.path()));
    let result = match route {
        Route::Plain { .. } if methods.is_some() => Err(Error::MethodNotAllowed),
        Route::Plain { handler, .. } => handler(app, request).await,
        Route::User(route) => Ok(user::respond(app, route, request).await),
        Route::Service(route) => Ok(service::respond(app, route, request).await),
    };
    let mut response = result.unwrap_or_else(|error| error_response(&error));
    if let Some(methods) = methods.filter(|_| response.status() == StatusCode::METHOD_NOT_ALLOWED) {
        response.headers_mut().insert(ALLOW, methods);
    }
    response
}

/// The methods of a path, for the header Allow.
fn methods(routes: &[Route], path: &str) -> HeaderValue {
    let methods = routes.iter().filter(|route| route.path() == path).map(|route| route.method().as_str());
    HeaderValue::from_str(&methods.collect::<Vec<_>>().join(", ")).expect("methods are tokens")
}

/// The route of a request's path and method; if its path has only other methods, one of these, which refuses it.
fn find<B>(routes: &'static [Route], app: &App, request: &Request<B>) -> Option<&'static Route> {
    // A preflight asks on behalf of another method.
    let asked = request.headers().get(ACCESS_CONTROL_REQUEST_METHOD);
    let asked = asked.filter(|_| request.method() == Method::OPTIONS).map(HeaderValue::as_bytes);
    let method = asked.unwrap_or_else(|| request.method().as_str().as_bytes());
    let of_path = || routes.iter().filter(|route| route.serves(request.uri().path(), app));
    of_path().find(|route| route.method().as_str().as_bytes() == method).or_else(|| of_path().next())
}

impl Route {
    fn method(&self) -> &Method {
        match self {
            Self::Plain { method, .. } => method,
            Self::User(route) => &route.method,
            Self::Service(route) => &route.method,
        }
    }

    /// As it is written in the table and in openapi.yaml.
    fn path(&self) -> &'static str {
        match self {
            Self::Plain { path, .. } => path,
            Self::User(route) => route.path,
            Self::Service(route) => route.path,
        }
    }

    /// Whether a request for this path is one for this route.
    fn serves(&self, requested: &str, app: &App) -> bool {
        match self {
            Self::Plain { .. } | Self::User(_) => self.path() == requested,
            Self::Service(route) => app.service_tokens.is_some() && route.serves(requested),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// The methods and paths in openapi.yaml: its keys at the first and at the second level below `paths`.
    fn documented() -> BTreeSet<String> {
        let document = include_str!("../../openapi.yaml");
        let paths = document.split_once("\npaths:\n").expect("paths").1;
        let mut path = "";
        let mut routes = BTreeSet::new();
        for line in paths.lines().take_while(|line| line.is_empty() || line.starts_with(' ')) {
            let key = line.trim_start().strip_suffix(':').unwrap_or_default();
            match line.len() - line.trim_start().len() {
                2 => path = key,
                4 => drop(routes.insert(format!("{} {path}", key.to_uppercase()))),
                _ => {}
            }
        }
        routes
    }

    #[test]
    fn the_routes_are_those_of_the_document() {
        let routes = ROUTES.iter().chain(&OPERATORS);
        let routes: BTreeSet<String> =
            routes.map(|route| format!("{} {}", route.method(), route.path())).collect();
        assert_eq!(routes, documented());
    }

    #[test]
    fn the_documents_reasons_are_those_of_the_rules() {
        let rules = include_str!("../../extension/rules/src/reason.rs");
        let rules: BTreeSet<&str> = rules
            .lines()
            .filter_map(|line| {
                line.split_once("=> \"")?.1.strip_suffix("\",").filter(|_| line.starts_with("        "))
            })
            .collect();
        let document = include_str!("../../openapi.yaml");
        let schema =
            document.split_once("description: Why it was ignored, parked or rejected.").expect("a schema").1;
        let listed = schema.lines().skip(2).map_while(|line| line.strip_prefix("            - "));
        assert_eq!(listed.filter(|reason| *reason != "null").collect::<BTreeSet<_>>(), rules);
    }
}
