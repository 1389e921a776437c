//! `/console` on the operators' listener: the page for the person who answers "I paid and got nothing". Off unless `CONSOLE` is
//! on; who signs in shows a token of `SERVICE_TOKEN`.
//!
//! It is HTML without scripts. What it shows are answers of the database's `explain_…` functions, which psql and
//! `stripe-credits explain` give too; what it changes it changes by the functions that everyone calls. A form is answered with
//! a redirect, so that a reload sends nothing again, and carries a request id, so that a double press counts once.

mod pages;
mod inbox;
mod books;
mod forms;
mod frame;
mod actions;
mod picture;
mod known;
mod visit;
mod words;

use std::sync::Arc;
use std::time::Instant;

use hyper::body::Incoming;
use hyper::header::RETRY_AFTER;
use hyper::{Method, Request, StatusCode};
use stripe_credits_rules::stripe::MAX_ID_BYTES;
use uuid::Uuid;

pub(crate) use self::actions::Action;
use self::actions::{Refused, perform};
use self::forms::Wanted;
use self::known::{Event, Foreseen, KnownId, KnownUser};
use self::visit::{Desk, Notice, Visit, page_response, protect, style};
use crate::app::App;
use crate::auth::AuthError;
use crate::auth::session::{MAX_NAME_BYTES, Session};
use crate::clock::unix_now;
use crate::error::Error;
use crate::response::{Response, error_response};
use crate::routes::request::{LogFields, Reply, record};

/// A route of the console.
pub(crate) struct ConsoleRoute {
    pub(crate) method: Method,
    pub(crate) path: &'static str,
    pub(crate) purpose: Purpose,
}

/// What a route is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    Style,
    /// Asks for the token.
    Ask,
    SignIn,
    SignOut,
    Show,
    Act(Action),
}

/// Responds to one request.
pub(crate) async fn respond(
    app: Arc<App>,
    route: &'static ConsoleRoute,
    request: Request<Incoming>,
) -> Response {
    let started = Instant::now();
    // In a task of its own, a request is finished and logged also if the client disconnects.
    let task = tokio::spawn(async move {
        let mut fields = LogFields::default();
        let result = handle(&app, route, request, &mut fields).await;
        record(&app, route.path, &fields, &result, started);
        let mut response = result.map_or_else(|error| failure(&error), |reply| reply.response);
        protect(&mut response);
        response
    });
    task.await.unwrap_or_else(|panic| error_response(&Error::Internal(panic.to_string())))
}

/// The page for an error, with the headers that its JSON would have.
fn failure(error: &Error) -> Response {
    let mut response = page_response(error.status(), pages::failed(error.status(), &error.client_text()));
    if let Some(retry_after) = error_response(error).headers().get(RETRY_AFTER) {
        response.headers_mut().insert(RETRY_AFTER, retry_after.clone());
    }
    response
}

async fn handle(
    app: &App,
    route: &ConsoleRoute,
    request: Request<Incoming>,
    fields: &mut LogFields,
) -> Result<Reply, Error> {
    if request.method() != route.method {
        return Err(Error::MethodNotAllowed);
    }
    let (head, incoming) = request.into_parts();
    // A browser says so if a form is another site's; the form's own token says it too.
    let is_foreign = head.headers.get("sec-fetch-site").is_some_and(|site| site != "same-origin");
    if head.method == Method::POST && is_foreign {
        return Err(Error::ForeignForm);
    }
    let tokens = app.service_tokens.as_ref().ok_or(Error::NotFound)?;
    let body = if head.method == Method::POST { Some(app.bodies.read(incoming).await?) } else { None };
    let encoded = body.as_ref().map_or(head.uri.query().unwrap_or_default().as_bytes(), |body| &body.bytes);
    let visit = Visit::read(&head.headers, encoded, |cookie| Session::resume(tokens, cookie, unix_now()));
    match route.purpose {
        Purpose::Style => Ok(Reply::of(style())),
        Purpose::Ask => {
            Ok(Reply::of(page_response(StatusCode::OK, pages::sign_in(visit.field("q"), "", None))))
        }
        Purpose::SignIn => sign_in(app, &visit, fields),
        Purpose::SignOut => Ok(Reply::of(match &visit.session {
            Some(session) if !visit.is_of(session) => return Err(Error::ForeignForm),
            _ => visit.signed_out(),
        })),
        Purpose::Show => match &visit.session {
            Some(session) => Ok(Reply::of(show(app, &visit, session).await?)),
            None => Ok(Reply::of(visit.to_sign_in())),
        },
        Purpose::Act(action) => match &visit.session {
            Some(session) => act(app, action, &visit, session, fields).await,
            None => Ok(Reply::of(visit.to_sign_in())),
        },
    }
}

/// Begins a session for whoever has a token.
fn sign_in(app: &App, visit: &Visit, fields: &mut LogFields) -> Result<Reply, Error> {
    app.sign_ins.check().map_err(|retry_after| Error::TooManySignIns { retry_after })?;
    let tokens = app.service_tokens.as_ref().ok_or(Error::NotFound)?;
    let name = visit.field("name");
    let again = |status, text: &str| {
        page_response(status, pages::sign_in(visit.field("q"), name, Some(&Notice::refused(text))))
    };
    if name.is_empty() || name.len() > MAX_NAME_BYTES || name.chars().any(char::is_control) {
        let text = "Enter your name, in fewer than 60 letters: what you do is kept with it.";
        return Ok(Reply::of(again(StatusCode::BAD_REQUEST, text)));
    }
    match Session::begin(tokens, visit.field("token"), name, unix_now()) {
        Some(session) => {
            fields.by = Some(session.name.clone());
            Ok(Reply::of(visit.signed_in(&session)))
        }
        None => Ok(Reply::refused(
            again(
                StatusCode::UNAUTHORIZED,
                "This is not the service token. Ask whoever runs the console for it.",
            ),
            AuthError::ServiceToken.label(),
        )),
    }
}

/// Does what a form says, and goes back to the page that it was on.
async fn act(
    app: &App,
    action: Action,
    visit: &Visit,
    session: &Session,
    fields: &mut LogFields,
) -> Result<Reply, Error> {
    if !visit.is_of(session) {
        return Err(Error::ForeignForm);
    }
    match perform(app, action, visit, &session.name, fields).await? {
        Ok((outcome, notice)) => Ok(Reply::answered(visit.answered(session, &notice), Some(&outcome))),
        Err(Refused(text)) => Ok(Reply::answered(visit.answered(session, &Notice::refused(text)), None)),
    }
}

/// What is known of what is searched for; of nothing, what waits.
async fn show(app: &App, visit: &Visit, session: &Session) -> Result<Response, Error> {
    let query = visit.field("q");
    let desk = Desk { session, notice: visit.notice.as_ref(), query };
    let wanted = match (visit.field("attribute"), visit.field("refund")) {
        ("", "") => Wanted::Nothing,
        ("", spend) => Wanted::Refund(spend.to_owned()),
        (id, _) => Wanted::Attribute(id.to_owned()),
    };
    if query.is_empty() {
        let waiting: Vec<Event> = app.database.explain_waiting().await?;
        return Ok(visit.page(StatusCode::OK, pages::start(&desk, &waiting)));
    }
    if query.len() > MAX_ID_BYTES || query.contains('\0') {
        return Ok(visit.page(StatusCode::OK, pages::nothing(&desk)));
    }
    if let Ok(user) = Uuid::try_parse(query) {
        let user: KnownUser = app.database.explain_user(user).await?;
        return Ok(visit.page(StatusCode::OK, pages::user(&desk, &user, None, &wanted)));
    }
    let known: KnownId = app.database.explain_id(query).await?;
    let now = would_come(app, &known).await?;
    let page = match known.users().as_slice() {
        [user] => {
            let user: KnownUser = app.database.explain_user(*user).await?;
            pages::user(&desk, &user, Some((&known, now.as_deref())), &wanted)
        }
        [] if !known.is_an_object() && known.found.is_empty() => pages::nothing(&desk),
        _ => pages::found(&desk, &known, now.as_deref(), &wanted),
    };
    Ok(visit.page(StatusCode::OK, page))
}

/// What would come of an event that waits if it came now, as a sentence; none if the id is not such an event's.
async fn would_come(app: &App, known: &KnownId) -> Result<Option<String>, Error> {
    let Some(event) = known.events.iter().find(|event| event.event_id == known.id && event.waits()) else {
        return Ok(None);
    };
    let now: Option<Foreseen> = app.database.explain_inbox_event(&event.event_id).await?;
    Ok(now.map(|now| now.sentence()))
}
