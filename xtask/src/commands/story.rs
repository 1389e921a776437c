//! The story of the demo: each request, its answer and the ledger rows that it appended, with every answer checked.

use std::fmt::Debug;
use std::fs;

use serde_json::{Value, json};
use uuid::Uuid;
use xtask::http::{self, Answer};
use xtask::stripe_event::{Event, Line, SIGNATURE_HEADER, Subscription};
use xtask::workspace::sample_catalog;
use xtask::{Error, Result};

use super::service::Service;
use super::transcript::{Transcript, inbox_table, ledger_table, shortened};

/// What catalog.example.json gives for a signup and for its pack.
const SIGNUP_CREDITS: i64 = 500;
const PACK_CREDITS: i64 = 500;
const PACK_PRICE: &str = "price_pack";
/// A pack that catalog.example.json does not know yet.
const NEW_PACK_CREDITS: i64 = 1200;
const NEW_PACK_PRICE: &str = "price_new_pack";
/// Its plans, and what a month of each costs here, in cents; the third one is bought as an add-on.
const PRO_CREDITS: i64 = 10_000;
const PRO_PRICE: &str = "price_pro";
const PRO_CENTS: i64 = 10_000;
const MAX_CREDITS: i64 = 30_000;
const MAX_PRICE: &str = "price_max";
const MAX_CENTS: i64 = 30_000;
const ADD_ON_CREDITS: i64 = 1_000;
const ADD_ON_PRICE: &str = "price_roll";
const ADD_ON_CENTS: i64 = 1_000;
/// The days of the subscription's life: its renewal, half of that month, four fifths of it, and its end.
const RENEWAL: u64 = 30;
const UPGRADE: u64 = 45;
const ADDITION: u64 = 54;
const END: u64 = 56;
/// What the user spends at once, and what is reserved for a job that then needs less.
const SPENT: i64 = 2000;
const RESERVED: i64 = 150;
const COMMITTED: i64 = 100;
/// What the transcript has instead of what differs from run to run.
const STABLE_URL: &str = "http://127.0.0.1:8787/webhooks/stripe";
const STABLE_SIGNATURE: &str = "t=1700000000,v1=…";
const STABLE_USERS: [&str; 2] =
    ["00000000-0000-4000-8000-000000000001", "00000000-0000-4000-8000-000000000002"];

/// One user's first minutes.
pub(crate) struct Story<'a> {
    service: &'a Service,
    database: postgres::Client,
    user: Uuid,
    /// The last ledger row that was shown.
    shown: i64,
    transcript: Transcript,
}

impl<'a> Story<'a> {
    /// About a new user.
    pub(crate) fn new(service: &'a Service) -> Result<Self> {
        let (user, mut transcript) = (Uuid::new_v4(), Transcript::default());
        transcript.replace(&user.to_string(), STABLE_USERS[0]);
        transcript.replace(&service.webhook_url(), STABLE_URL);
        Ok(Self { service, database: service.connect()?, user, shown: 0, transcript })
    }

    /// Plays it to the end; an unexpected answer or balance ends it with an error.
    pub(crate) fn play(mut self) -> Result<Transcript> {
        self.transcript.print(&format!(
            "\nThe user {} of an app that sells credits through Stripe,\nwhich posts its events to {}",
            self.user,
            self.service.webhook_url()
        ));
        let mut balance = SIGNUP_CREDITS;
        self.signup(balance)?;

        self.transcript.title(2, "A pack is bought: Stripe posts checkout.session.completed");
        let pack = Event::checkout_completed(self.user, PACK_PRICE);
        balance += PACK_CREDITS;
        self.deliver(&pack, 200, "applied")?;
        self.ledger(balance)?;

        self.transcript.title(3, "Stripe delivers the same event again");
        self.deliver(&pack, 200, "already_applied")?;
        self.ledger(balance)?;

        self.transcript.title(4, "A forged purchase, signed with another secret");
        self.forge()?;
        self.ledger(balance)?;

        self.transcript.title(
            5,
            "A pack is bought at a price that is not in the catalog: kept, and answered 500 so that Stripe retries",
        );
        let new_pack = Event::checkout_completed(self.user, NEW_PACK_PRICE);
        self.deliver(&new_pack, 500, "parked")?;
        self.ledger(balance)?;

        self.transcript.title(6, "The price is added to the catalog, and the parked event applies itself");
        balance += NEW_PACK_CREDITS;
        self.add_the_price()?;
        self.ledger(balance)?;

        self.transcript.title(7, "Stripe's second try of that delivery");
        self.deliver(&new_pack, 200, "already_applied")?;
        self.ledger(balance)?;

        self.spending(&mut balance)?;
        self.refund(&pack, balance)?;
        self.subscription()?;
        self.inbox()?;
        self.proof()?;
        Ok(self.transcript)
    }

    /// Credits are spent, and reserved for a job.
    fn spending(&mut self, balance: &mut i64) -> Result<()> {
        self.transcript.title(
            8,
            "The user spends: first the credits that expire soonest, here the promotional ones, then the oldest pack",
        );
        self.call("spend_credits", &format!("{SPENT}, 'job-1', 'a large picture'"))?;
        *balance -= SPENT;
        self.ledger(*balance)?;

        self.transcript.title(9, "Credits are reserved for a job; it needs fewer, and the rest comes back");
        self.call("reserve_credits", &format!("{RESERVED}, 'job-2'"))?;
        self.call("commit_reservation", &format!("'job-2', {COMMITTED}"))?;
        *balance -= COMMITTED;
        self.ledger(*balance)
    }

    /// The first pack's money goes back after its credits were spent.
    fn refund(&mut self, pack: &Event, mut balance: i64) -> Result<()> {
        self.transcript.title(
            10,
            "The first pack is refunded after its credits were spent: the remaining balance settles part of the debt",
        );
        self.deliver(&pack.refund("refund.created", "succeeded"), 200, "applied")?;
        balance -= PACK_CREDITS;
        self.ledger(balance)?;

        self.transcript.title(11, "The next pack settles the rest of the debt first");
        self.deliver(&Event::checkout_completed(self.user, PACK_PRICE), 200, "applied")?;
        balance += PACK_CREDITS;
        self.ledger(balance)?;

        self.transcript.title(12, "The bank rejects the refund: the settled credits come back");
        self.deliver(&pack.refund("refund.failed", "failed"), 200, "applied")?;
        balance += PACK_CREDITS;
        self.ledger(balance)
    }

    /// Another user's subscription, from its first payment to its end.
    fn subscription(&mut self) -> Result<()> {
        (self.user, self.shown) = (Uuid::new_v4(), 0);
        self.transcript.replace(&self.user.to_string(), STABLE_USERS[1]);
        self.transcript.print(&format!("\nAnother user, {}, subscribes.", self.user));
        let subscription = Subscription::of(self.user);
        let month = [Line { item: 1, price: PRO_PRICE, cents: PRO_CENTS, is_proration: false }];

        self.transcript.title(
            13,
            "A first purchase sends three events in any order; those that arrive before their user is known are parked",
        );
        self.deliver(&subscription.paid(&month, 0, "subscription_create"), 200, "parked")?;
        let created = subscription.state("customer.subscription.created", "active", &[PRO_PRICE], 0);
        self.deliver(&created, 200, "parked")?;
        self.deliver(&subscription.session(), 200, "ignored")?;
        self.ledger(PRO_CREDITS)?;

        self.transcript.title(
            14,
            "Some credits are spent, then the renewal is paid: a new month's credits, and none of the last month's",
        );
        self.call("spend_credits", &format!("{SPENT}, 'job-3'"))?;
        self.deliver(&subscription.paid(&month, RENEWAL, "subscription_cycle"), 200, "applied")?;
        self.ledger(PRO_CREDITS)?;

        let balance = self.changes(&subscription)?;

        self.transcript.title(18, "The subscription is canceled: paid credits stay until they are spent");
        let items = [MAX_PRICE, ADD_ON_PRICE];
        let ended = subscription.state("customer.subscription.deleted", "canceled", &items, END);
        self.deliver(&ended, 200, "applied")?;
        self.ledger(balance)
    }

    /// An upgrade, an add-on, and money back. Returns the balance after them.
    fn changes(&mut self, subscription: &Subscription) -> Result<i64> {
        let rest = |item, price, cents| Line { item, price, cents, is_proration: true };

        self.transcript.title(
            15,
            "An upgrade at half time: the new status grants nothing; its paid invoice charges and credits half a month",
        );
        let upgraded = subscription.state("customer.subscription.updated", "active", &[MAX_PRICE], UPGRADE);
        self.deliver(&upgraded, 200, "applied")?;
        self.ledger(PRO_CREDITS)?;
        let lines = [rest(1, PRO_PRICE, -PRO_CENTS / 2), rest(1, MAX_PRICE, MAX_CENTS / 2)];
        self.deliver(&subscription.paid(&lines, UPGRADE, "subscription_update"), 200, "applied")?;
        let mut balance = PRO_CREDITS - PRO_CREDITS / 2 + MAX_CREDITS / 2;
        self.ledger(balance)?;

        self.transcript.title(
            16,
            "An add-on becomes a second item of the subscription, for the last fifth of the month",
        );
        let items = [MAX_PRICE, ADD_ON_PRICE];
        let added = subscription.state("customer.subscription.updated", "active", &items, ADDITION);
        self.deliver(&added, 200, "applied")?;
        self.ledger(balance)?;
        let add_on =
            subscription.paid(&[rest(2, ADD_ON_PRICE, ADD_ON_CENTS / 5)], ADDITION, "subscription_update");
        self.deliver(&add_on, 200, "applied")?;
        balance += ADD_ON_CREDITS / 5;
        self.ledger(balance)?;

        self.transcript.title(
            17,
            "A credit note gives back half of what the add-on cost, and takes half of its credits",
        );
        self.deliver(&add_on.credit_note(ADD_ON_CENTS / 10), 200, "applied")?;
        balance -= ADD_ON_CREDITS / 10;
        self.ledger(balance)?;
        Ok(balance)
    }

    fn signup(&mut self, balance: i64) -> Result<()> {
        self.transcript.title(1, "A signup: the app's server calls the database");
        self.call("grant_signup_credits", "")?;
        self.ledger(balance)
    }

    /// Calls a function for the user, as the app's server does.
    fn call(&mut self, function: &str, arguments: &str) -> Result<()> {
        let comma = if arguments.is_empty() { "" } else { ", " };
        let call = format!("billing.{function}('{}'{comma}{arguments})", self.user);
        self.transcript.sent(&format!("select * from {call}"));
        let outcome: Value =
            self.database.query_one(&format!("select to_jsonb(o) from {call} o"), &[])?.get(0);
        self.transcript.answered(&summary(&outcome));
        expect("the outcome", &word(&outcome, "outcome"), &"applied")
    }

    /// Posts an event as Stripe does.
    fn deliver(&mut self, event: &Event, status: u16, outcome: &str) -> Result<()> {
        let answer = self.post(event, &event.signature(self.service.webhook_secret()))?;
        let outcome_row: Value = serde_json::from_str(&answer.body).unwrap_or_default();
        self.transcript.answered(&format!("{}, {}", answer.status, summary(&outcome_row)));
        expect("the status", &answer.status, &status)?;
        expect("the outcome", &word(&outcome_row, "outcome"), &outcome)
    }

    fn forge(&mut self) -> Result<()> {
        let event = Event::checkout_completed(self.user, PACK_PRICE);
        let answer = self.post(&event, &event.signature("whsec_a_guess"))?;
        self.transcript.answered(&format!("{}, {}", answer.status, answer.body.trim()));
        expect("the status", &answer.status, &400)
    }

    fn post(&mut self, event: &Event, signature: &str) -> Result<Answer> {
        let shown = shortened(signature);
        self.transcript.replace_id(&event.id);
        self.transcript.replace_id(&event.object_id);
        self.transcript.replace(&shown, STABLE_SIGNATURE);
        self.transcript.sent(&format!("{}  {SIGNATURE_HEADER}: {shown}", shortened(&event.id)));
        http::post(&self.service.webhook_url(), &[(SIGNATURE_HEADER, signature)], &event.body)
    }

    /// Pushes the sample catalog with one more pack in it.
    fn add_the_price(&mut self) -> Result<()> {
        let sample = sample_catalog();
        let text = fs::read_to_string(&sample).map_err(Error::file(&sample))?;
        let mut catalog: Value = serde_json::from_str(&text)
            .map_err(|error| Error::Unmet(format!("{}: {error}", sample.display())))?;
        if let Some(packs) = catalog.get_mut("packs").and_then(Value::as_array_mut) {
            packs.push(json!({
                "key": "pack_1200",
                "name": "1200 credits",
                "credits": NEW_PACK_CREDITS,
                "prices": [NEW_PACK_PRICE],
            }));
        }
        let document = tempfile::Builder::new().prefix("catalog-").suffix(".json").tempfile();
        let document = document.map_err(Error::file("a temporary file"))?;
        fs::write(document.path(), catalog.to_string()).map_err(Error::file(document.path()))?;
        self.transcript.sent("stripe-credits catalog push catalog.json");
        self.transcript.answered(self.service.push_catalog(document.path())?.trim_end());
        Ok(())
    }

    /// Prints the ledger rows that the step appended for the user, and checks the new balance.
    fn ledger(&mut self, balance: i64) -> Result<()> {
        let rows = self.database.query(
            "select id, transaction_type, coalesce(pool, 'debt'), amount, balance_after,
                    coalesce(stripe_checkout_session_id, stripe_invoice_id, request_id, ''), coalesce(stripe_event_id, '')
             from billing.credit_transactions where user_id = $1 and id > $2 order by id",
            &[&self.user, &self.shown],
        )?;
        if !rows.is_empty() {
            self.transcript.print(&ledger_table(&rows).to_string());
        }
        self.shown = rows.last().map_or(self.shown, |row| row.get(0));
        let statement = "select credits_balance, debt from billing.user_credits where user_id = $1";
        let row = self.database.query_one(statement, &[&self.user])?;
        let (credits, debt): (i64, i64) = (row.get(0), row.get(1));
        let unchanged = if rows.is_empty() { "the ledger is unchanged: " } else { "" };
        let owed = if debt == 0 { String::new() } else { format!(", debt {debt}") };
        self.transcript.print(&format!("   {unchanged}balance {credits}{owed}"));
        if let Some(row) = rows.last() {
            expect("the ledger's balance", &row.get::<_, i64>(4), &balance)?;
        }
        expect("the user's balance", &(credits - debt), &balance)
    }

    /// Prints the events that the database kept: the forged one is not among them.
    fn inbox(&mut self) -> Result<()> {
        self.transcript.print("\nThe inbox: every event and its outcome");
        let rows = self.database.query(
            "select event_id, type, outcome, attempts::text from billing.stripe_events order by first_received_at",
            &[],
        )?;
        self.transcript.print(&inbox_table(&rows).to_string());
        expect("the number of events in the inbox", &rows.len(), &15)
    }

    /// Has the books prove themselves.
    fn proof(&mut self) -> Result<()> {
        self.transcript.print("\nThe proof: select * from billing.validate_credits_consistency()");
        let faults = self.database.query("select * from billing.validate_credits_consistency()", &[])?;
        expect("the number of inconsistent accounts", &faults.len(), &0)?;
        self.transcript.print("no rows: every balance is the sum of its ledger\n");
        Ok(())
    }
}

fn expect<T: PartialEq + Debug>(what: &str, actual: &T, expected: &T) -> Result<()> {
    if actual == expected {
        Ok(())
    } else {
        Err(Error::Unmet(format!("{what} is {actual:?} instead of {expected:?}")))
    }
}

/// An outcome in a few words: `applied, +500 credits`, `parked: unknown_price`.
fn summary(outcome: &Value) -> String {
    let mut text = word(outcome, "outcome").to_owned();
    if let Some(reason) = outcome.get("reason").and_then(Value::as_str) {
        text.push_str(": ");
        text.push_str(reason);
    }
    match outcome.get("credits").and_then(Value::as_i64) {
        Some(credits) if credits != 0 => format!("{text}, {credits:+} credits"),
        _ => text,
    }
}

fn word<'a>(outcome: &'a Value, field: &str) -> &'a str {
    outcome.get(field).and_then(Value::as_str).unwrap_or_default()
}
