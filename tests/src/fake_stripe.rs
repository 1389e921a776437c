//! A fake Stripe API: a small HTTP server with the shapes of Stripe's current API, faults on demand, and a record of the
//! requests.
//!
//! A route is one arm of [`route`]; what it answers comes from the [`Books`], which a test fills. Whatever is not
//! there is answered as Stripe answers it, so that a wrong path shows as a 404 in the record, not as a hang.

mod invoices;
pub mod payments;
mod subscriptions;

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll};
use std::time::Duration;

use chrono::{DateTime, Utc};
use http_body_util::{BodyExt as _, Collected, Full, combinators::BoxBody};
use hyper::body::{Body, Bytes, Frame, Incoming};
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, DATE, HeaderValue, RETRY_AFTER};
use hyper::{Method, Request, Response, StatusCode};
use serde_json::{Value, json};
use tokio::sync::watch;

use crate::http_server::HttpServer;

/// The secret key that this Stripe accepts.
pub const KEY: &str = "sk_test_of_the_fake_stripe";
/// Stripe's own page size where a request names none, and the largest it may name.
const DEFAULT_PAGE: usize = 10;
const MAX_PAGE: usize = 100;
/// How often a checkout session is read before a buyer pays it, where there is one.
const READS_BEFORE_PAYMENT: u32 = 3;
/// How many event types one request may name.
const MAX_TYPES: usize = 20;

/// A running fake. Dropped, it is gone.
pub struct FakeStripe {
    server: HttpServer,
    state: Arc<Mutex<State>>,
}

/// A request that it received.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordedRequest {
    /// `GET`, `POST` or `DELETE`.
    pub method: String,
    /// The path with its query.
    pub path: String,
    /// The header `Stripe-Version`.
    pub version: Option<String>,
    /// Whether there was an `Authorization` header. Its value is not recorded: it is a secret.
    pub has_authorization: bool,
    /// The header `Idempotency-Key`.
    pub idempotency_key: Option<String>,
    /// The body, for what posts one.
    pub body: String,
}

impl RecordedRequest {
    /// The fields of the form that was posted.
    #[must_use]
    pub fn form(&self) -> BTreeMap<String, String> {
        form_urlencoded::parse(self.body.as_bytes()).into_owned().collect()
    }

    /// What was asked, such as `POST /v1/checkout/sessions`, with its query.
    #[must_use]
    pub fn line(&self) -> String {
        format!("{} {}", self.method, self.path)
    }
}

/// What it does instead of answering normally.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// 429, `rate_limit`.
    RateLimited,
    /// 500, `api_error`.
    Failing,
    /// 401, as for a key that was revoked.
    Unauthorized,
    /// 404, `resource_missing`.
    Missing,
    /// 402, `card_declined`.
    Declined,
    /// 400, `parameter_invalid_empty`.
    Refused,
    /// 409, as while the same request is still being worked on.
    Busy,
    /// The request is never answered.
    Silent,
    /// The connection is closed without an answer.
    Cut,
    /// The connection is closed in the middle of the answer's body.
    CutInBody,
    /// 200 with a body that is not JSON, as from a proxy in between.
    Garbage,
    /// A normal answer, after a delay.
    Slow(Duration),
    /// A normal answer, once [`FakeStripe::release`] is called.
    Held,
}

/// Where it stops answering: at a request whose line ends so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stop {
    /// Nothing is done, and nothing answered.
    Before(&'static str),
    /// What was asked is done, and nothing answered.
    After(&'static str),
}

/// What it has: objects and lists, by the path that reads them.
#[derive(Debug, Default)]
struct Books {
    objects: BTreeMap<String, Value>,
    lists: BTreeMap<String, Vec<Value>>,
    /// Whether the cards of all customers are declined from now on.
    declines_cards: bool,
    /// Whether a buyer pays each checkout session, at the third time that it is read; how often each was.
    has_buyers: bool,
    reads: BTreeMap<String, u32>,
    /// By idempotency key: what was posted, and the answer.
    replays: BTreeMap<String, (String, StatusCode, Value)>,
    made: usize,
}

#[derive(Debug, Default)]
struct State {
    books: Books,
    faults: Vec<Fault>,
    lasting_fault: Option<Fault>,
    later_fault: Option<(usize, Fault)>,
    stop: Option<Stop>,
    /// Whether a request came to the stop.
    is_stopped: bool,
    /// Whether held answers are given now.
    is_released: watch::Sender<bool>,
    date: Option<HeaderValue>,
    asked: Vec<RecordedRequest>,
}

impl FakeStripe {
    /// Listens on a port of its own.
    #[must_use]
    pub fn start() -> Self {
        let state = Arc::new(Mutex::new(State::default()));
        let shared = state.clone();
        let server = HttpServer::start(move |request| respond(shared.clone(), request));
        Self { server, state }
    }

    /// The value for `STRIPE_API_BASE`.
    #[must_use]
    pub fn base(&self) -> String {
        self.server.origin()
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        let origin = self.base();
        origin.trim_start_matches("http://").parse().expect("an origin is its scheme and its address")
    }

    /// Stripe has this checkout session. Its line items are a list of their own: those given before, or the one that
    /// its metadata names.
    ///
    /// # Panics
    /// Where the object has no id.
    pub fn knows_session(&self, session: Value) {
        let id = session["id"].as_str().expect("a session has an id").to_owned();
        let path = format!("/v1/checkout/sessions/{id}");
        let mut state = self.state();
        let text = |key: &str| session["metadata"][key].as_str();
        let quantity = text("quantity").and_then(|text| text.parse().ok()).unwrap_or(1);
        let named = text("price_id").map(|price| line_item(0, price, quantity));
        state.books.lists.entry(format!("{path}/line_items")).or_insert_with(|| named.into_iter().collect());
        state.books.objects.insert(path, session);
    }

    /// Stripe has this session with these line items: a price and how many of it, each.
    pub fn knows_line_items(&self, session_id: &str, items: &[(&str, u32)]) {
        self.knows_session(json!({
            "id": session_id, "object": "checkout.session", "livemode": false, "mode": "payment",
            "status": "complete", "payment_status": "paid", "metadata": {},
        }));
        self.knows_line_items_of(session_id, items);
    }

    /// The line items of a session that Stripe has: a price and how many of it, each.
    pub fn knows_line_items_of(&self, session_id: &str, items: &[(&str, u32)]) {
        let items =
            items.iter().enumerate().map(|(index, (price, quantity))| line_item(index, price, *quantity));
        self.state()
            .books
            .lists
            .insert(format!("/v1/checkout/sessions/{session_id}/line_items"), items.collect());
    }

    /// Any JSON at any path.
    pub fn knows_at(&self, path: &str, object: Value) {
        self.state().books.objects.insert(path.to_owned(), object);
    }

    /// Stripe has this subscription.
    ///
    /// # Panics
    /// Where the object has no id.
    pub fn knows_subscription(&self, subscription: Value) {
        let id = subscription["id"].as_str().expect("a subscription has an id").to_owned();
        self.state().books.objects.insert(format!("/v1/subscriptions/{id}"), subscription);
    }

    /// Stripe sells these: a price, its product, cents and the interval, each.
    pub fn sells(&self, prices: &[(&str, &str, i64, &str)]) {
        for (id, product, cents, interval) in prices {
            self.knows_at(
                &format!("/v1/prices/{id}"),
                json!({
                    "id": id, "object": "price", "active": true, "currency": "usd", "livemode": false,
                    "product": product, "type": "recurring", "unit_amount": cents, "metadata": {},
                    "recurring": {"interval": interval, "interval_count": 1, "usage_type": "licensed"},
                }),
            );
        }
    }

    /// Stripe has this invoice.
    ///
    /// # Panics
    /// Where the object has no id.
    pub fn knows_invoice(&self, invoice: Value) {
        let id = invoice["id"].as_str().expect("an invoice has an id").to_owned();
        self.state().books.objects.insert(format!("/v1/invoices/{id}"), invoice);
    }

    /// Stripe has this invoice's lines, in pages.
    pub fn knows_invoice_lines(&self, invoice_id: &str, lines: Vec<Value>) {
        self.state().books.lists.insert(format!("/v1/invoices/{invoice_id}/lines"), lines);
    }

    /// Stripe has these, newest first: a whole list, such as `/v1/events`, of which a query filters and pages cut.
    pub fn knows_list(&self, path: &str, objects: Vec<Value>) {
        let mut state = self.state();
        for object in &objects {
            let id = object["id"].as_str().unwrap_or_default();
            state.books.objects.insert(format!("{path}/{id}"), object.clone());
        }
        state.books.lists.insert(path.to_owned(), objects);
    }

    /// Stripe has these payments of invoices.
    pub fn knows_invoice_payments(&self, payments: Vec<Value>) {
        self.state().books.lists.insert("/v1/invoice_payments".to_owned(), payments);
    }

    /// What Stripe has at a path now.
    #[must_use]
    pub fn object(&self, path: &str) -> Option<Value> {
        self.state().books.objects.get(path).cloned()
    }

    /// Declines all cards from now on.
    pub fn decline_cards(&self) {
        self.state().books.declines_cards = true;
    }

    /// A buyer pays each checkout session, a moment after it was made.
    pub fn has_buyers(&self) {
        self.state().books.has_buyers = true;
    }

    /// The next requests fail, one after the other, in this order.
    pub fn fail_next(&self, faults: impl IntoIterator<Item = Fault>) {
        self.state().faults.extend(faults);
    }

    /// So many requests are answered normally, and every later one fails until [`FakeStripe::recover`].
    pub fn fail_after(&self, requests: usize, fault: Fault) {
        let mut state = self.state();
        let answered = state.asked.len();
        state.later_fault = Some((answered + requests, fault));
    }

    /// Every request fails until [`FakeStripe::recover`].
    pub fn fail(&self, fault: Fault) {
        self.state().lasting_fault = Some(fault);
    }

    /// Stops answering there, until [`FakeStripe::recover`]. Requests that were stopped are never answered.
    pub fn stop(&self, stop: Stop) {
        let mut state = self.state();
        (state.stop, state.is_stopped) = (Some(stop), false);
    }

    /// Whether a request came to the stop.
    #[must_use]
    pub fn is_stopped(&self) -> bool {
        self.state().is_stopped
    }

    /// Gives the answers that [`Fault::Held`] holds, and holds none from now on.
    pub fn release(&self) {
        self.state().is_released.send_replace(true);
    }

    /// Everything works again.
    pub fn recover(&self) {
        let mut state = self.state();
        state.lasting_fault = None;
        state.later_fault = None;
        state.stop = None;
        state.faults.clear();
    }

    /// Stripe's clock stands here: the `Date` of every answer, such as `Thu, 02 Aug 2018 10:10:20 GMT`.
    ///
    /// # Panics
    /// Where the text cannot stand in a header.
    pub fn set_date(&self, date: &str) {
        self.state().date = Some(HeaderValue::from_str(date).expect("a date is ASCII"));
    }

    /// Everything asked so far, in order of arrival.
    #[must_use]
    pub fn asked(&self) -> Vec<RecordedRequest> {
        self.state().asked.clone()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        locked(&self.state)
    }
}

/// <https://docs.stripe.com/api/checkout/sessions/line_items>
fn line_item(index: usize, price: &str, quantity: u32) -> Value {
    let amount = 1000 * u64::from(quantity);
    json!({
        "id": format!("li_{index}"), "object": "item", "currency": "usd", "quantity": quantity,
        "amount_subtotal": amount, "amount_total": amount, "amount_discount": 0, "amount_tax": 0,
        "description": price,
        "price": {
            "id": price, "object": "price", "active": true, "currency": "usd", "livemode": false,
            "product": "prod_of_the_fake", "type": "one_time", "unit_amount": 1000, "metadata": {},
        },
    })
}

type Answer = Response<BoxBody<Bytes, std::io::Error>>;

/// Hyper closes the connection on an error, without an answer.
async fn respond(state: Arc<Mutex<State>>, request: Request<Incoming>) -> Result<Answer, Cut> {
    let (head, body) = request.into_parts();
    let body = body.collect().await.map(Collected::to_bytes).unwrap_or_default();
    let header = |name: &str| head.headers.get(name)?.to_str().ok().map(str::to_owned);
    let key = header(AUTHORIZATION.as_str());
    let (fault, date) = {
        let mut state = locked(&state);
        state.asked.push(RecordedRequest {
            method: head.method.to_string(),
            path: head.uri.to_string(),
            version: header("stripe-version"),
            has_authorization: key.is_some(),
            idempotency_key: header("idempotency-key"),
            body: String::from_utf8_lossy(&body).into_owned(),
        });
        let later = state.later_fault.filter(|(good, _)| state.asked.len() > *good).map(|(_, fault)| fault);
        let fault = if state.faults.is_empty() {
            state.lasting_fault.or(later)
        } else {
            Some(state.faults.remove(0))
        };
        (fault, state.date.clone())
    };
    let good = || {
        if key.as_deref() != Some(&format!("Bearer {KEY}")) {
            return unauthorized();
        }
        let (path, query) = (head.uri.path(), head.uri.query().unwrap_or_default());
        let body = str::from_utf8(&body).unwrap_or_default();
        let request = Posted { path, body, key: header("idempotency-key"), now: now(date.as_ref()) };
        let books = &mut locked(&state).books;
        if head.method == Method::POST {
            post(books, &request)
        } else {
            if books.has_buyers {
                let reads = books.reads.entry(path.to_owned()).or_default();
                *reads += 1;
                if *reads == READS_BEFORE_PAYMENT {
                    invoices::pay_session(books, path, request.now);
                }
            }
            route(books, &head.method, path, query)
        }
    };
    let line = format!("{} {}", head.method, head.uri.path());
    let stop = locked(&state).stop.filter(|stop| match stop {
        Stop::Before(end) | Stop::After(end) => line.ends_with(end),
    });
    if let Some(stop) = stop {
        if matches!(stop, Stop::After(_)) {
            let _ = good();
        }
        locked(&state).is_stopped = true;
        std::future::pending::<()>().await;
    }
    let mut answer = match fault {
        None => good(),
        Some(Fault::Slow(late)) => {
            tokio::time::sleep(late).await;
            good()
        }
        Some(Fault::Held) => {
            let mut is_released = locked(&state).is_released.subscribe();
            // An error is the sender's drop, with the whole server.
            let _ = is_released.wait_for(|is_released| *is_released).await;
            good()
        }
        Some(Fault::RateLimited) => {
            error(StatusCode::TOO_MANY_REQUESTS, "rate_limit", "Request rate limit exceeded.")
        }
        Some(Fault::Failing) => error(StatusCode::INTERNAL_SERVER_ERROR, "", "An unknown error occurred."),
        Some(Fault::Unauthorized) => unauthorized(),
        Some(Fault::Missing) => missing(head.uri.path()),
        Some(Fault::Declined) => {
            error(StatusCode::PAYMENT_REQUIRED, "card_declined", "Your card was declined.")
        }
        Some(Fault::Refused) => {
            error(StatusCode::BAD_REQUEST, "parameter_invalid_empty", "You passed an empty string.")
        }
        Some(Fault::Busy) => error(
            StatusCode::CONFLICT,
            "idempotency_key_in_use",
            "There is currently another in-progress request.",
        ),
        Some(Fault::Silent) => std::future::pending().await,
        Some(Fault::Cut) => return Err(Cut),
        Some(Fault::CutInBody) => Response::new(Truncated::Begins.boxed()),
        Some(Fault::Garbage) => json_answer(StatusCode::OK, "<html>It works!</html>".to_owned()),
    };
    let is_kept = matches!(fault, Some(Fault::Failing | Fault::Declined));
    if let (true, &Method::POST, Some(key)) = (is_kept, &head.method, header("idempotency-key")) {
        answer = keep(&state, key, &head.uri.to_string(), &body, answer).await;
    }
    if let Some(date) = date {
        answer.headers_mut().insert(DATE, date);
    }
    Ok(answer)
}

/// The routes that read. A new one is a new arm.
fn route(books: &Books, method: &Method, path: &str, query: &str) -> Answer {
    let segments: Vec<&str> = path.split('/').skip(1).collect();
    match (method, segments.as_slice()) {
        (&Method::GET, ["v1", "checkout", "sessions", _]) => session(books, path, query),
        (&Method::GET, ["v1", "subscriptions", _]) => match books.objects.get(path) {
            Some(found) => {
                let found = subscriptions::expanded(books, found, query);
                json_answer(StatusCode::OK, found.to_string())
            }
            None => missing(path),
        },
        (
            &Method::GET,
            ["v1", "invoices" | "prices" | "events" | "customers" | "payment_intents", _]
            | ["v1", "test_helpers", "test_clocks", _],
        ) => object(books, path),
        (
            &Method::GET,
            [
                "v1",
                "events" | "prices" | "subscriptions" | "invoices" | "refunds" | "disputes"
                | "webhook_endpoints",
            ]
            | ["v1", "billing_portal", "configurations"]
            | ["v1", "checkout", "sessions"],
        ) => filtered(books, path, query),
        (
            &Method::GET,
            ["v1", "checkout", "sessions", _, "line_items"]
            | ["v1", "invoices", _, "lines"]
            | ["v1", "customers", _, "payment_methods"],
        ) => list(books, path, query),
        (&Method::GET, ["v1", "invoice_payments"]) => invoice_payments(books, path, query),
        _ => unrecognized(method, path),
    }
}

/// What a client posts.
struct Posted<'a> {
    path: &'a str,
    body: &'a str,
    key: Option<String>,
    /// Stripe's clock, in seconds since 1970.
    now: i64,
}

/// The status and the body of an answer.
type Made = (StatusCode, Value);

/// Stripe's clock: where it stands, or the real one.
fn now(date: Option<&HeaderValue>) -> i64 {
    let standing = date.and_then(|date| DateTime::parse_from_rfc2822(date.to_str().ok()?).ok());
    standing.map_or_else(|| Utc::now().timestamp(), |standing| standing.timestamp())
}

impl Posted<'_> {
    fn form(&self) -> BTreeMap<String, String> {
        form_urlencoded::parse(self.body.as_bytes()).into_owned().collect()
    }
}

/// What is posted twice under one key is done once, and answered twice; something else under the same key is refused.
/// <https://docs.stripe.com/api/idempotent_requests>
fn post(books: &mut Books, request: &Posted) -> Answer {
    let content = format!("{} {}", request.path, request.body);
    match request.key.as_ref().and_then(|key| books.replays.get(key)) {
        Some((earlier, status, answer)) if *earlier == content => {
            return json_answer(*status, answer.to_string());
        }
        Some(_) => {
            return error(
                StatusCode::BAD_REQUEST,
                "",
                "Keys for idempotent requests can only be used with the same parameters.",
            );
        }
        None => {}
    }
    let Some((status, answer)) = change(books, request) else {
        return unrecognized(&Method::POST, request.path);
    };
    if let Some(key) = &request.key {
        books.replays.insert(key.clone(), (content, status, answer.clone()));
    }
    json_answer(status, answer.to_string())
}

/// Stripe repeats its failures under a key, too.
async fn keep(state: &Mutex<State>, key: String, path: &str, body: &[u8], failure: Answer) -> Answer {
    let status = failure.status();
    let text = failure.into_body().collect().await.map(Collected::to_bytes).unwrap_or_default();
    let json: Value = serde_json::from_slice(&text).unwrap_or_default();
    let content = format!("{path} {}", String::from_utf8_lossy(body));
    locked(state).books.replays.entry(key).or_insert_with(|| (content, status, json.clone()));
    json_answer(status, json.to_string())
}

/// The routes that change something. A new one is a new arm.
fn change(books: &mut Books, request: &Posted) -> Option<Made> {
    let Posted { path, now, .. } = *request;
    let form = &request.form();
    let segments: Vec<&str> = path.split('/').skip(1).collect();
    books.made += 1;
    let made = books.made;
    let answer = match segments.as_slice() {
        ["v1", "checkout", "sessions"] => {
            let id = format!("cs_test_made_{made}");
            let session = made_session(&id, form);
            let price = form.get("line_items[0][price]").map(String::as_str).unwrap_or_default();
            let quantity =
                form.get("line_items[0][quantity]").and_then(|text| text.parse().ok()).unwrap_or(1);
            let path = format!("{path}/{id}");
            books.lists.insert(format!("{path}/line_items"), vec![line_item(0, price, quantity)]);
            books.objects.insert(path, session.clone());
            session
        }
        ["v1", "webhook_endpoints"] => {
            // Only the answer to this request has the secret.
            let types = form_urlencoded::parse(request.body.as_bytes())
                .filter(|(name, _)| name == "enabled_events[]");
            let endpoint = json!({
                "id": format!("we_made_{made}"), "object": "webhook_endpoint", "livemode": false, "status": "enabled",
                "url": form.get("url"), "api_version": form.get("api_version"),
                "enabled_events": types.map(|(_, event_type)| event_type.into_owned()).collect::<Vec<_>>(),
            });
            books.lists.entry((*path).to_owned()).or_default().insert(0, endpoint.clone());
            let mut answer = endpoint;
            answer["secret"] = json!(format!("whsec_made_{made}"));
            answer
        }
        ["v1", "billing_portal", "sessions"] => json!({
            "id": format!("bps_{made}"), "object": "billing_portal.session", "livemode": false,
            "customer": form.get("customer"), "return_url": form.get("return_url"),
            "url": format!("https://billing.stripe.test/session/{made}"),
        }),
        ["v1", "payment_intents"] if form.get("confirm").is_none_or(|confirm| confirm != "true") => {
            return Some(payments::create(books, form, now, made));
        }
        ["v1", "payment_intents", _, "confirm"] => {
            return payments::confirm(books, path.trim_end_matches("/confirm"), now);
        }
        ["v1", "payment_intents", _, "cancel"] => {
            return payments::cancel(books, path.trim_end_matches("/cancel"));
        }
        ["v1", "invoices", "create_preview"] => return Some(subscriptions::preview(books, form, now, made)),
        ["v1", "subscriptions", _] => return Some(subscriptions::update(books, path, form, now, made)),
        ["v1", "subscription_schedules"] => return Some(subscriptions::schedule(books, form, made)),
        ["v1", "subscription_schedules", _] => {
            return Some(subscriptions::update_schedule(books, path, form));
        }
        ["v1", "subscription_schedules", _, "release"] => {
            return Some(subscriptions::release(books, path.trim_end_matches("/release")));
        }
        _ if books.declines_cards && invoices::charges_a_card(request.path) => {
            let error =
                json!({"type": "card_error", "code": "card_declined", "message": "Your card was declined."});
            return Some((StatusCode::PAYMENT_REQUIRED, json!({"error": error})));
        }
        _ => invoices::change(books, request, form, made)?,
    };
    Some((StatusCode::OK, answer))
}

/// <https://docs.stripe.com/api/checkout/sessions/create>
fn made_session(id: &str, form: &BTreeMap<String, String>) -> Value {
    let metadata: BTreeMap<&str, &String> = form
        .iter()
        .filter_map(|(name, value)| Some((name.strip_prefix("metadata[")?.strip_suffix(']')?, value)))
        .collect();
    json!({
        "id": id, "object": "checkout.session", "livemode": false, "created": crate::stripe::CREATED,
        "mode": form.get("mode"), "status": "open", "payment_status": "unpaid", "payment_intent": null,
        "customer": form.get("customer"), "customer_email": form.get("customer_email"),
        "client_reference_id": form.get("client_reference_id"), "metadata": metadata,
        "amount_total": 1000, "currency": "usd",
        "success_url": form.get("success_url"), "cancel_url": form.get("cancel_url"),
        "url": format!("https://checkout.stripe.test/c/pay/{id}"),
    })
}

fn unrecognized(method: &Method, path: &str) -> Answer {
    error(StatusCode::NOT_FOUND, "url_invalid", &format!("Unrecognized request URL ({method}: {path})."))
}

/// A session with what the query wants expanded. Of the line items Stripe shows the first page, and says whether it
/// is all.
fn session(books: &Books, path: &str, query: &str) -> Answer {
    let Some(session) = books.objects.get(path) else {
        return missing(path);
    };
    let mut session = session.clone();
    for (_, field) in form_urlencoded::parse(query.as_bytes()).filter(|(name, _)| name == "expand[]") {
        let expanded = match &*field {
            "line_items" => {
                let path = format!("{path}/line_items");
                let items = books.lists.get(&path).map(Vec::as_slice).unwrap_or_default();
                let page = &items[..items.len().min(DEFAULT_PAGE)];
                Some(
                    json!({"object": "list", "data": page, "has_more": page.len() < items.len(), "url": path}),
                )
            }
            "subscription" | "invoice" => {
                let id = session[&*field].as_str().unwrap_or_default();
                books.objects.get(&format!("/v1/{field}s/{id}")).cloned()
            }
            _ => {
                return error(
                    StatusCode::BAD_REQUEST,
                    "",
                    &format!("This property cannot be expanded ({field})."),
                );
            }
        };
        if let Some(expanded) = expanded {
            session[&*field] = expanded;
        }
    }
    json_answer(StatusCode::OK, session.to_string())
}

fn object(books: &Books, path: &str) -> Answer {
    match books.objects.get(path) {
        Some(object) => json_answer(StatusCode::OK, object.to_string()),
        None => missing(path),
    }
}

/// A page of all objects of a kind that pass the query's filters; no list at all is an empty one.
fn filtered(books: &Books, path: &str, query: &str) -> Answer {
    let pairs: Vec<(String, String)> = form_urlencoded::parse(query.as_bytes()).into_owned().collect();
    let types: Vec<&String> =
        pairs.iter().filter(|(name, _)| name == "types[]").map(|(_, value)| value).collect();
    if types.len() > MAX_TYPES {
        return error(StatusCode::BAD_REQUEST, "", "Array types exceeds maximum 20 allowed elements.");
    }
    let passes = |object: &&Value| {
        let is_of_type = types.is_empty() || types.iter().any(|event_type| object["type"] == **event_type);
        is_of_type
            && pairs.iter().all(|(name, value)| match name.as_str() {
                "created[gte]" => object["created"].as_i64() >= value.parse().ok(),
                "created[lte]" => object["created"].as_i64() <= value.parse().ok(),
                "type" => object["type"] == **value,
                "active" => object["active"].as_bool() == value.parse().ok(),
                "status" => value == "all" || object["status"] == **value,
                "subscription" => object["subscription"] == **value,
                _ => true,
            })
    };
    let all = books.lists.get(path).map(Vec::as_slice).unwrap_or_default();
    let objects: Vec<&Value> = all.iter().filter(passes).collect();
    if !pairs.iter().any(|(name, value)| name == "expand[]" && value == "data.subscription") {
        return page(path, query, &objects);
    }
    let expanded = |object: &Value| {
        let id = object["subscription"].as_str().unwrap_or_default();
        let subscription = books.objects.get(&format!("/v1/subscriptions/{id}"));
        let mut object = object.clone();
        object["subscription"] = subscription.cloned().unwrap_or_default();
        object
    };
    let objects: Vec<Value> = objects.into_iter().map(expanded).collect();
    page(path, query, &objects.iter().collect::<Vec<_>>())
}

/// A page of a list that is an object's own.
fn list(books: &Books, path: &str, query: &str) -> Answer {
    match books.lists.get(path) {
        Some(items) => page(path, query, &items.iter().collect::<Vec<_>>()),
        None => missing(path),
    }
}

/// A page, as Stripe cuts them: `limit`, and `starting_after` an id.
fn page(path: &str, query: &str, items: &[&Value]) -> Answer {
    let parameter = |name: &str| {
        query
            .split('&')
            .find_map(|pair| pair.split_once('=').filter(|(key, _)| *key == name))
            .map(|(_, value)| value)
    };
    let Ok(limit) = parameter("limit").map_or(Ok(DEFAULT_PAGE), str::parse) else {
        return error(StatusCode::BAD_REQUEST, "parameter_invalid_integer", "Invalid integer: limit");
    };
    let start = match parameter("starting_after") {
        None => Some(0),
        Some(id) => items.iter().position(|item| item["id"] == id).map(|index| index + 1),
    };
    let Some(rest) = start.and_then(|start| items.get(start..)) else {
        return missing(path);
    };
    let page = &rest[..limit.clamp(1, MAX_PAGE).min(rest.len())];
    let body = json!({"object": "list", "data": page, "has_more": page.len() < rest.len(), "url": path});
    json_answer(StatusCode::OK, body.to_string())
}

/// The invoices that a payment intent paid.
fn invoice_payments(books: &Books, path: &str, query: &str) -> Answer {
    let asked = form_urlencoded::parse(query.as_bytes()).find(|(name, _)| name == "payment[payment_intent]");
    let paid_by = asked.map(|(_, payment_intent)| payment_intent.into_owned());
    let all = books.lists.get(path).map_or(&[][..], Vec::as_slice);
    let of_it: Vec<&Value> = all
        .iter()
        .filter(|payment| payment["payment"]["payment_intent"].as_str() == paid_by.as_deref())
        .collect();
    let body = json!({"object": "list", "data": of_it, "has_more": false, "url": path});
    json_answer(StatusCode::OK, body.to_string())
}

fn unauthorized() -> Answer {
    error(StatusCode::UNAUTHORIZED, "", "Invalid API Key provided: sk_test_*******")
}

fn missing(path: &str) -> Answer {
    let id = path.split('/').nth(4).unwrap_or(path);
    error(StatusCode::NOT_FOUND, "resource_missing", &format!("No such checkout.session: '{id}'"))
}

/// An error in Stripe's shape.
fn error(status: StatusCode, code: &str, message: &str) -> Answer {
    let kind = if status.is_server_error() { "api_error" } else { "invalid_request_error" };
    let mut error = json!({"type": kind, "message": message});
    if !code.is_empty() {
        error["code"] = code.into();
        error["doc_url"] = format!("https://stripe.com/docs/error-codes/{}", code.replace('_', "-")).into();
    }
    let mut answer = json_answer(status, json!({"error": error}).to_string());
    if status == StatusCode::TOO_MANY_REQUESTS {
        answer.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
    }
    answer
}

fn json_answer(status: StatusCode, body: String) -> Answer {
    let mut answer = Response::new(Full::from(body).map_err(|never: Infallible| match never {}).boxed());
    *answer.status_mut() = status;
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    answer
}

fn locked(state: &Mutex<State>) -> MutexGuard<'_, State> {
    // A panic elsewhere leaves nothing half-written here.
    state.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// A connection that ends without an answer.
#[derive(Debug, thiserror::Error)]
#[error("cut, as ordered")]
struct Cut;

/// A body that begins, is on its way, and is cut off.
enum Truncated {
    Begins,
    IsFlushed,
    IsCut,
}

impl Body for Truncated {
    type Data = Bytes;
    type Error = std::io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, std::io::Error>>> {
        match *self {
            Self::Begins => {
                *self = Self::IsFlushed;
                Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(b"{\"object\": \"li")))))
            }
            Self::IsFlushed => {
                // Hyper sends what it has when a body has nothing more for now.
                *self = Self::IsCut;
                context.waker().wake_by_ref();
                Poll::Pending
            }
            Self::IsCut => Poll::Ready(Some(Err(std::io::ErrorKind::ConnectionReset.into()))),
        }
    }
}
