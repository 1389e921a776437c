//! The app's side: the shim with all that an app configures, and its users' requests.

use serde_json::Value;
use uuid::Uuid;

use crate::connection::Connection;
use crate::database::Database;
use crate::fake_stripe::{FakeStripe, Fault};
use crate::shim::{Setup, Shim};
use crate::tokens::{AUDIENCE, ISSUER, JWT_SECRET, token};
use crate::wire::Answer;

/// The app's origin.
pub const ORIGIN: &str = "https://app.test";
/// The page that Stripe returns to after a checkout.
pub const SUCCESS_URL: &str = "https://app.test/billing?tab=credits";
/// The page that Stripe returns to after a canceled checkout.
pub const CANCEL_URL: &str = "https://app.test/pricing";
/// The page that the customer portal returns to.
pub const RETURN_URL: &str = "https://app.test/account#billing";

/// What the app's servers send.
pub const SERVICE_TOKEN: &str = "service-token-of-the-tests-0123456789";

/// The routes that need a user: method and path.
pub const USER_ROUTES: [(&str, &str); 9] = [
    ("GET", "/credits"),
    ("GET", "/events"),
    ("POST", "/reconcile-stripe-credit-pack"),
    ("POST", "/reconcile-stripe-checkout"),
    ("POST", "/checkout"),
    ("POST", "/subscription/change"),
    ("POST", "/subscription/preview-change"),
    ("POST", "/subscription/cancel"),
    ("POST", "/portal"),
];

/// What may go wrong at Stripe, and how these routes answer it.
pub const STRIPE_FAULTS: [(Fault, &str); 8] = [
    (Fault::Failing, "502 stripe_failed"),
    (Fault::Unauthorized, "502 stripe_unauthorized"),
    (Fault::Cut, "502 stripe_unreachable"),
    (Fault::CutInBody, "502 stripe_unreachable"),
    (Fault::Garbage, "502 stripe_malformed_answer"),
    (Fault::Refused, "502 stripe_refused"),
    (Fault::Busy, "503 stripe_busy"),
    (Fault::RateLimited, "503 stripe_rate_limited"),
];

/// A shim that acts as Supabase's service role and has every setting of the app's side.
pub fn app(database: &Database, stripe: &FakeStripe) -> Setup {
    without_stripe(database).with_stripe(stripe)
}

/// An operator's command, with the same role and Stripe key.
pub fn command(arguments: &[&str], database: &Database, stripe: &FakeStripe) -> Setup {
    Setup::command(arguments).with("DATABASE_URL", &as_service(database)).with_stripe(stripe)
}

/// The URL of a database, for its service role, as in production.
pub fn as_service(database: &Database) -> String {
    format!("{}?options=-c%20role%3Dservice_role", database.url())
}

/// The same as [`app`] without a Stripe key.
pub fn without_stripe(database: &Database) -> Setup {
    Setup::serve(&as_service(database))
        .with("JWT_SECRET", JWT_SECRET)
        .with("JWT_AUDIENCE", AUDIENCE)
        .with("JWT_ISSUER", ISSUER)
        .with("CORS_ORIGINS", ORIGIN)
        .with("CHECKOUT_SUCCESS_URL", SUCCESS_URL)
        .with("CHECKOUT_CANCEL_URL", CANCEL_URL)
        .with("PORTAL_RETURN_URL", RETURN_URL)
        // More than a person asks, as tests do.
        .with("USER_REQUESTS_PER_MINUTE", "10000")
        .with("STRIPE_USER_REQUESTS_PER_SECOND", "10000")
}

/// Writes into the books that a user has a live subscription to `price_pro`. However it got there, the shim reads
/// it.
pub fn subscribe(books: &mut Connection, user: Uuid, subscription_id: &str) {
    books.sign_up(user);
    books.run(&format!(
        "insert into billing.subscriptions (subscription_id, user_id, customer_id, price_id, tier, status, quantity,
             current_period_start, current_period_end, cancel_at_period_end, as_of, seen_at, known_at,
             created_at, updated_at)
         values ('{subscription_id}', '{user}', 'cus_ann', 'price_pro', 'pro', 'active', 1,
             now(), now() + interval '30 days', false, now(), now(), now(), now(), now());
         update billing.accounts set tier = 'pro', subscription_status = 'active' where user_id = '{user}'"
    ));
}

impl Shim {
    /// A user's GET.
    pub fn get_as(&self, user: Uuid, path: &str) -> Answer {
        self.bearing("GET", path, &token(user), b"")
    }

    /// A user's POST.
    pub fn post_as(&self, user: Uuid, path: &str, body: &Value) -> Answer {
        self.bearing("POST", path, &token(user), body.to_string().as_bytes())
    }

    /// A request with this bearer token, valid or not.
    pub fn bearing(&self, method: &str, path: &str, token: &str, body: &[u8]) -> Answer {
        self.ask(method, path, &[("Authorization", &format!("Bearer {token}"))], body)
    }

    /// A call of the app's server, such as `spend`.
    pub fn serve(&self, call: &str, body: &Value) -> Answer {
        self.bearing("POST", &format!("/service/{call}"), SERVICE_TOKEN, body.to_string().as_bytes())
    }

    /// What the app's server reads of a user, who is named as in a path.
    pub fn read_credits(&self, user: &str) -> Answer {
        self.bearing("GET", &format!("/service/credits/{user}"), SERVICE_TOKEN, b"")
    }

    /// The log's lines of a route's requests, once there are so many.
    pub fn requests(&self, route: &str, count: usize) -> Vec<Value> {
        self.logged(count, |line| line["message"] == "request" && line["route"] == route)
    }
}
