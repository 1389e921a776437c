//! The first twelve scenarios of docs/scenarios.md, played with objects that Stripe makes in test mode.
//!
//! What Stripe would post is read from its list of events, signed with a secret of our own and posted to a shim of our own,
//! so that no endpoint has to be reachable from outside, and an event can come late, twice or at once.
//! Packs are sold on invoices and by a payment intent, which a test card pays without anybody; only a checkout session has
//! to be paid by a person.

pub mod api;

use std::thread;
use std::time::Duration;

use postgres::Client;
use serde_json::{Value, json};
use uuid::Uuid;

use self::api::Api;
use crate::http::{self, Answer};
use crate::stripe_event::{SIGNATURE_HEADER, sign};
use crate::token::hs256;
use crate::{Error, Result};

/// What the pack grants, and what it costs in cents.
const PACK_CREDITS: i64 = 500;
const PACK_CENTS: &str = "1000";
/// What a signup grants.
const SIGNUP_CREDITS: i64 = 500;
/// How long a person has to pay.
const BUYERS_PATIENCE: Duration = Duration::from_mins(15);

/// What the scenarios are played with.
pub struct Shop<'a> {
    /// Stripe.
    pub stripe: &'a Api,
    /// Where the shim listens, without a path.
    pub shim: &'a str,
    /// What deliveries are signed with.
    pub webhook_secret: &'a str,
    /// What the app's tokens are signed with (HS256).
    pub jwt_secret: &'a str,
    /// Whether somebody pays a checkout session when asked to.
    pub has_buyer: bool,
}

/// How a scenario ended.
#[derive(Debug, PartialEq, Eq)]
pub enum Ended {
    /// As it must.
    Passed,
    /// It was not played, because a person has to pay.
    LeftOut,
    /// Otherwise than it must.
    Failed(String),
}

/// A scenario that was played.
#[derive(Debug)]
pub struct Played {
    /// Its number in docs/scenarios.md.
    pub number: u8,
    /// What it is about, and what must stand afterwards.
    pub title: &'static str,
    /// How it ended.
    pub ended: Ended,
}

/// The prices that were made at Stripe for this run.
struct Prices {
    product: String,
    pack: String,
    shirt: String,
}

type Scenario = fn(&mut Play<'_>) -> Result<Option<()>>;

/// Every scenario: its number, its title, and how it is played; `None` is left out.
const SCENARIOS: [(u8, &str, Scenario); 12] = [
    (1, "a signup, called twice: 500 credits, once", |play| play.signup()),
    (2, "a paid pack, delivered three times at once: 500 credits, once", |play| play.three_at_once()),
    (3, "two events of one payment: 500 credits, once", |play| play.two_events()),
    (4, "the browser's reconcile races the webhook: 500 credits, once", |play| play.reconcile_races()),
    (5, "another user's reconcile: 403, and the owner is credited", |play| play.another_user()),
    (6, "an unpaid session, which expires: no credits", |play| play.unpaid()),
    (7, "a payment without a user: parked, and applied once its customer is known", |play| {
        play.unknown_user()
    }),
    (8, "a price that the catalog lacks: 500 to Stripe, and applied once it is loaded", |play| {
        play.unknown_price()
    }),
    (9, "three of a pack: 1,500 credits", |play| play.three_packs()),
    (10, "a pack beside a T-shirt: 500 credits; a T-shirt alone: none", |play| play.shirt()),
    (11, "20 % tax, and a coupon of 30 %: 500 credits each", |play| play.tax_and_coupon()),
    (12, "the catalog says 600 after the sale, before it is paid: 500 credits", |play| {
        play.catalog_changes()
    }),
];

/// Plays every scenario, with a database without a catalog as a role that may do everything, and tells each as it ends.
pub fn play(shop: &Shop<'_>, database: Client, mut tell: impl FnMut(&Played)) -> Result<Vec<Played>> {
    let prices = Prices::make(shop.stripe)?;
    let mut play = Play { shop, database, prices };
    play.load_catalog(PACK_CREDITS, &[])?;
    let mut all = Vec::new();
    for (number, title, scenario) in SCENARIOS {
        let ended = match scenario(&mut play) {
            Ok(Some(())) => Ended::Passed,
            Ok(None) => Ended::LeftOut,
            Err(Error::Interrupted) => return Err(Error::Interrupted),
            Err(fault) => Ended::Failed(fault.to_string()),
        };
        let played = Played { number, title, ended };
        tell(&played);
        all.push(played);
    }
    Ok(all)
}

impl Prices {
    fn make(stripe: &Api) -> Result<Self> {
        let product = id(&stripe.post("/v1/products", &[("name", "Credits of the checklist")])?)?;
        let pack = price(stripe, &product)?;
        let shirt = price(stripe, &product)?;
        Ok(Self { product, pack, shirt })
    }
}

/// A price of $10, sold once.
fn price(stripe: &Api, product: &str) -> Result<String> {
    id(&stripe
        .post("/v1/prices", &[("product", product), ("currency", "usd"), ("unit_amount", PACK_CENTS)])?)
}

/// The id of what Stripe made.
fn id(object: &Value) -> Result<String> {
    let id = object["id"].as_str().map(str::to_owned);
    id.ok_or_else(|| Error::Unmet("what Stripe made has no id".to_owned()))
}

struct Play<'a> {
    shop: &'a Shop<'a>,
    database: Client,
    prices: Prices,
}

/// What is on an invoice: a price and how many of it.
type Line<'a> = (&'a str, u32);

impl Play<'_> {
    fn signup(&mut self) -> Result<Option<()>> {
        let user = Uuid::new_v4();
        for _ in 0..2 {
            self.database.execute("select billing.grant_signup_credits($1)", &[&user])?;
        }
        self.balance_is(user, SIGNUP_CREDITS)
    }

    fn three_at_once(&mut self) -> Result<Option<()>> {
        let user = Uuid::new_v4();
        let invoice = self.sell(Some(user), &[(&self.prices.pack.clone(), 1)], &[])?;
        let event = self.shop.stripe.event("invoice.paid", &invoice)?;
        let outcomes = thread::scope(|scope| {
            let tasks: Vec<_> = (0..3).map(|_| scope.spawn(|| self.shop.deliver(&event))).collect();
            tasks
                .into_iter()
                .map(|task| task.join().expect("a delivery does not panic"))
                .collect::<Result<Vec<_>>>()
        })?;
        let applied = outcomes.iter().filter(|answer| outcome(answer) == "applied").count();
        must(applied == 1 && outcomes.iter().all(|answer| answer.status == 200), || format!("{outcomes:?}"))?;
        self.balance_is(user, PACK_CREDITS)
    }

    fn two_events(&mut self) -> Result<Option<()>> {
        let user = Uuid::new_v4();
        let invoice = self.sell(Some(user), &[(&self.prices.pack.clone(), 1)], &[])?;
        for event_type in ["invoice.paid", "invoice.payment_succeeded"] {
            self.deliver_as(event_type, &invoice, 200)?;
        }
        self.balance_is(user, PACK_CREDITS)
    }

    fn reconcile_races(&mut self) -> Result<Option<()>> {
        if !self.shop.has_buyer {
            return Ok(None);
        }
        let user = Uuid::new_v4();
        let session = self.paid_session(user)?;
        let event = self.shop.stripe.event("checkout.session.completed", &session)?;
        let (reconciled, delivered) = thread::scope(|scope| {
            let reconciled = scope.spawn(|| self.shop.reconcile(user, &session));
            let delivered = self.shop.deliver(&event);
            (reconciled.join().expect("a request does not panic"), delivered)
        });
        for answer in [reconciled?, delivered?] {
            must(answer.status == 200 && total(&answer) == PACK_CREDITS, || format!("{answer:?}"))?;
        }
        self.balance_is(user, PACK_CREDITS)
    }

    fn another_user(&mut self) -> Result<Option<()>> {
        if !self.shop.has_buyer {
            return Ok(None);
        }
        let (owner, other) = (Uuid::new_v4(), Uuid::new_v4());
        let session = self.paid_session(owner)?;
        let answer = self.shop.reconcile(other, &session)?;
        must(answer.status == 403, || format!("{answer:?}"))?;
        self.balance_is(other, 0)?;
        self.deliver_as("checkout.session.completed", &session, 200)?;
        self.balance_is(owner, PACK_CREDITS)
    }

    fn unpaid(&mut self) -> Result<Option<()>> {
        let user = Uuid::new_v4();
        let (session, _) = self.checkout(user)?;
        let answer = self.shop.reconcile(user, &session)?;
        must(answer.status == 409, || format!("{answer:?}"))?;
        self.shop.stripe.post(&format!("/v1/checkout/sessions/{session}/expire"), &[])?;
        self.deliver_as("checkout.session.expired", &session, 200)?;
        self.balance_is(user, 0)
    }

    fn unknown_user(&mut self) -> Result<Option<()>> {
        let user = Uuid::new_v4();
        let customer = self.customer()?;
        let invoice = self.draft(&customer, &[(&self.prices.pack.clone(), 1)], &[])?;
        self.pay(&invoice)?;
        let answer = self.deliver_as("invoice.paid", &invoice, 200)?;
        must(outcome(&answer) == "parked", || format!("{answer:?}"))?;
        self.database.execute("select billing.attribute($1, $2)", &[&customer, &user])?;
        self.balance_is(user, PACK_CREDITS)
    }

    fn unknown_price(&mut self) -> Result<Option<()>> {
        let user = Uuid::new_v4();
        let new = price(self.shop.stripe, &self.prices.product)?;
        let intent = self.top_up(user, &new)?;
        self.deliver_as("payment_intent.succeeded", &intent, 500)?;
        self.balance_is(user, 0)?;
        self.load_catalog(PACK_CREDITS, &[&new])?;
        self.balance_is(user, PACK_CREDITS)
    }

    fn three_packs(&mut self) -> Result<Option<()>> {
        let user = Uuid::new_v4();
        let invoice = self.sell(Some(user), &[(&self.prices.pack.clone(), 3)], &[])?;
        self.deliver_as("invoice.paid", &invoice, 200)?;
        self.balance_is(user, 3 * PACK_CREDITS)
    }

    fn shirt(&mut self) -> Result<Option<()>> {
        let (pack, shirt) = (self.prices.pack.clone(), self.prices.shirt.clone());
        let (both, alone) = (Uuid::new_v4(), Uuid::new_v4());
        let invoice = self.sell(Some(both), &[(&pack, 1), (&shirt, 1)], &[])?;
        self.deliver_as("invoice.paid", &invoice, 200)?;
        self.balance_is(both, PACK_CREDITS)?;
        let invoice = self.sell(Some(alone), &[(&shirt, 1)], &[])?;
        let answer = self.deliver_as("invoice.paid", &invoice, 200)?;
        must(outcome(&answer) == "ignored", || format!("{answer:?}"))?;
        self.balance_is(alone, 0)
    }

    fn tax_and_coupon(&mut self) -> Result<Option<()>> {
        let stripe = self.shop.stripe;
        let rate = [("display_name", "VAT"), ("percentage", "20"), ("inclusive", "false")];
        let rate = id(&stripe.post("/v1/tax_rates", &rate)?)?;
        let coupon = id(&stripe.post("/v1/coupons", &[("percent_off", "30"), ("duration", "once")])?)?;
        for field in [("default_tax_rates[0]", rate.as_str()), ("discounts[0][coupon]", coupon.as_str())] {
            let user = Uuid::new_v4();
            let invoice = self.sell(Some(user), &[(&self.prices.pack.clone(), 1)], &[field])?;
            self.deliver_as("invoice.paid", &invoice, 200)?;
            self.balance_is(user, PACK_CREDITS)?;
        }
        Ok(Some(()))
    }

    fn catalog_changes(&mut self) -> Result<Option<()>> {
        let user = Uuid::new_v4();
        let customer = self.customer()?;
        let named = user.to_string();
        let invoice =
            self.draft(&customer, &[(&self.prices.pack.clone(), 1)], &[("metadata[user_id]", &named)])?;
        self.load_catalog(PACK_CREDITS + 100, &[])?;
        self.pay(&invoice)?;
        self.deliver_as("invoice.paid", &invoice, 200)?;
        let result = self.balance_is(user, PACK_CREDITS);
        self.load_catalog(PACK_CREDITS, &[])?;
        result
    }

    /// A pack of so many credits for the pack's price and these, and the T-shirt, which grants nothing.
    fn load_catalog(&mut self, credits: i64, more: &[&str]) -> Result<()> {
        let mut packs = vec![json!({"key": "pack", "credits": credits, "prices": [self.prices.pack]})];
        packs.extend((1..).zip(more).map(
            |(number, price)| json!({"key": format!("pack_{number}"), "credits": credits, "prices": [price]}),
        ));
        let document = json!({
            "livemode": false, "signup_credits": SIGNUP_CREDITS, "packs": packs, "not_credits": [self.prices.shirt],
        });
        self.database.execute("select billing.load_catalog($1)", &[&document])?;
        Ok(())
    }

    /// A customer with a card that pays.
    fn customer(&self) -> Result<String> {
        let card = "pm_card_visa";
        let form = [("payment_method", card), ("invoice_settings[default_payment_method]", card)];
        id(&self.shop.stripe.post("/v1/customers", &form)?)
    }

    /// An invoice that nobody has paid yet.
    fn draft(&self, customer: &str, lines: &[Line<'_>], fields: &[(&str, &str)]) -> Result<String> {
        let stripe = self.shop.stripe;
        let form = [("customer", customer), ("auto_advance", "false")];
        let invoice = id(&stripe.post("/v1/invoices", &[&form, fields].concat())?)?;
        for (price, quantity) in lines {
            let quantity = quantity.to_string();
            let item = [
                ("customer", customer),
                ("invoice", invoice.as_str()),
                ("pricing[price]", *price),
                ("quantity", quantity.as_str()),
            ];
            stripe.post("/v1/invoiceitems", &item)?;
        }
        Ok(invoice)
    }

    fn pay(&self, invoice: &str) -> Result<()> {
        self.shop.stripe.post(&format!("/v1/invoices/{invoice}/finalize"), &[])?;
        let paid = self.shop.stripe.post(&format!("/v1/invoices/{invoice}/pay"), &[])?;
        must(paid["status"] == "paid", || format!("{invoice} is {}", paid["status"]))
    }

    /// A paid invoice of a new customer, whose metadata name the user.
    fn sell(&self, user: Option<Uuid>, lines: &[Line<'_>], fields: &[(&str, &str)]) -> Result<String> {
        let customer = self.customer()?;
        let user = user.map(|user| user.to_string());
        let named = user.as_deref().map(|user| ("metadata[user_id]", user));
        let fields: Vec<_> = named.into_iter().chain(fields.iter().copied()).collect();
        let invoice = self.draft(&customer, lines, &fields)?;
        self.pay(&invoice)?;
        Ok(invoice)
    }

    /// A payment intent that a saved card has paid, and whose metadata name a user and a price.
    fn top_up(&self, user: Uuid, price: &str) -> Result<String> {
        let (customer, user) = (self.customer()?, user.to_string());
        let form = [
            ("amount", PACK_CENTS),
            ("currency", "usd"),
            ("customer", customer.as_str()),
            ("payment_method", "pm_card_visa"),
            ("payment_method_types[0]", "card"),
            ("confirm", "true"),
            ("metadata[user_id]", user.as_str()),
            ("metadata[price_id]", price),
        ];
        let intent = self.shop.stripe.post("/v1/payment_intents", &form)?;
        must(intent["status"] == "succeeded", || format!("the payment intent is {}", intent["status"]))?;
        id(&intent)
    }

    /// A checkout session of the pack for a user, by the shim: its id and its page.
    fn checkout(&self, user: Uuid) -> Result<(String, String)> {
        let answer = self.shop.ask(user, "/checkout", &json!({"price_id": self.prices.pack}))?;
        let body = body(&answer);
        match (body["session_id"].as_str(), body["url"].as_str()) {
            (Some(session), Some(url)) => Ok((session.to_owned(), url.to_owned())),
            _ => Err(Error::Unmet(format!("POST /checkout was answered {answer:?}"))),
        }
    }

    /// The same, once a person has paid it.
    fn paid_session(&self, user: Uuid) -> Result<String> {
        let (session, url) = self.checkout(user)?;
        println!(
            "      pay this with the card 4242 4242 4242 4242, any date in the future, any code:\n      {url}"
        );
        let path = format!("/v1/checkout/sessions/{session}");
        let stripe = self.shop.stripe;
        stripe.wait_for("the payment", BUYERS_PATIENCE, || {
            Ok((stripe.get(&path)?["payment_status"] == "paid").then_some(()))
        })?;
        Ok(session)
    }

    /// Delivers the event of this type about an object; the answer must have this status.
    fn deliver_as(&self, event_type: &str, object_id: &str, status: u16) -> Result<Answer> {
        let answer = self.shop.deliver(&self.shop.stripe.event(event_type, object_id)?)?;
        must(answer.status == status, || format!("{event_type} of {object_id} was answered {answer:?}"))?;
        Ok(answer)
    }

    fn balance_is(&mut self, user: Uuid, expected: i64) -> Result<Option<()>> {
        let sql = "select coalesce(sum(c.credits_balance), 0)::bigint from billing.user_credits c where c.user_id = $1";
        let balance: i64 = self.database.query_one(sql, &[&user])?.get(0);
        must(balance == expected, || format!("the balance is {balance}, and must be {expected}"))?;
        Ok(Some(()))
    }
}

impl Shop<'_> {
    /// Posts an event to the shim as Stripe would.
    fn deliver(&self, event: &Value) -> Result<Answer> {
        let body = event.to_string();
        let signature = sign(self.webhook_secret, crate::stripe_event::unix_now(), body.as_bytes());
        http::post(&format!("{}/webhooks/stripe", self.shim), &[(SIGNATURE_HEADER, &signature)], &body)
    }

    fn reconcile(&self, user: Uuid, session: &str) -> Result<Answer> {
        self.ask(user, "/reconcile-stripe-credit-pack", &json!({"session_id": session}))
    }

    /// A request of one of the app's users.
    fn ask(&self, user: Uuid, path: &str, body: &Value) -> Result<Answer> {
        let bearer = format!("Bearer {}", hs256(self.jwt_secret, user));
        http::post(&format!("{}{path}", self.shim), &[("Authorization", &bearer)], &body.to_string())
    }
}

fn must(is_so: bool, fault: impl FnOnce() -> String) -> Result<()> {
    if is_so { Ok(()) } else { Err(Error::Unmet(fault())) }
}

fn body(answer: &Answer) -> Value {
    serde_json::from_str(&answer.body).unwrap_or_default()
}

fn outcome(answer: &Answer) -> String {
    body(answer)["outcome"].as_str().unwrap_or_default().to_owned()
}

fn total(answer: &Answer) -> i64 {
    body(answer)["remaining_total"].as_i64().unwrap_or_default()
}
