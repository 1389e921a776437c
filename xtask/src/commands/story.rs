//! The story of the demo: what is sent, what is answered and what the ledger says, with every answer checked.

use std::fmt::Debug;
use std::fs;

use comfy_table::presets::UTF8_FULL_CONDENSED;
use comfy_table::{CellAlignment, Table};
use postgres::Row;
use serde_json::{Value, json};
use uuid::Uuid;
use xtask::http::{self, Answer};
use xtask::stripe_event::{Event, SIGNATURE_HEADER, Subscription};
use xtask::workspace::sample_catalog;
use xtask::{Error, Result};

use super::service::Service;

/// What catalog.example.json gives for a signup and for its pack.
const SIGNUP_CREDITS: i64 = 500;
const PACK_CREDITS: i64 = 500;
const PACK_PRICE: &str = "price_pack";
/// A pack that catalog.example.json does not know yet.
const NEW_PACK_CREDITS: i64 = 1200;
const NEW_PACK_PRICE: &str = "price_new_pack";
/// Its two plans.
const PRO_CREDITS: i64 = 10_000;
const PRO_PRICE: &str = "price_pro";
const MAX_CREDITS: i64 = 30_000;
const MAX_PRICE: &str = "price_max";
/// What the user spends at once, and what is held for a job that then needs less.
const SPENT: i64 = 2000;
const RESERVED: i64 = 150;
const COMMITTED: i64 = 100;
/// How much of an id is shown.
const ID_CHARACTERS: usize = 16;

/// One user's first minutes.
pub(crate) struct Story<'a> {
    service: &'a Service,
    database: postgres::Client,
    user: Uuid,
    /// The last ledger row that was shown.
    shown: i64,
}

impl<'a> Story<'a> {
    /// About a new user.
    pub(crate) fn new(service: &'a Service) -> Result<Self> {
        Ok(Self { service, database: service.connect()?, user: Uuid::new_v4(), shown: 0 })
    }

    /// Plays it to the end; an answer or a balance that is not what the story says ends it with an error.
    pub(crate) fn tell(mut self) -> Result<()> {
        println!("\nThe user {} of an app that sells credits through Stripe,", self.user);
        println!("which posts its events to {}", self.service.webhook_url());
        let mut balance = SIGNUP_CREDITS;
        self.signup(balance)?;

        title(2, "A pack is bought: Stripe posts checkout.session.completed");
        let pack = Event::checkout_completed(self.user, PACK_PRICE);
        balance += PACK_CREDITS;
        self.deliver(&pack, 200, "applied")?;
        self.ledger(balance)?;

        title(3, "Stripe delivers the same event again");
        self.deliver(&pack, 200, "already_applied")?;
        self.ledger(balance)?;

        title(4, "Somebody forges a purchase, without the secret");
        self.forge()?;
        self.ledger(balance)?;

        title(
            5,
            "A pack is bought whose price the catalog does not know: kept, and Stripe is told to try again",
        );
        let new_pack = Event::checkout_completed(self.user, NEW_PACK_PRICE);
        self.deliver(&new_pack, 500, "parked")?;
        self.ledger(balance)?;

        title(6, "The catalog learns the price, and what was parked applies itself");
        balance += NEW_PACK_CREDITS;
        self.teach_the_price()?;
        self.ledger(balance)?;

        title(7, "Stripe's second try of that delivery");
        self.deliver(&new_pack, 200, "already_applied")?;
        self.ledger(balance)?;

        self.spending(&mut balance)?;
        self.refund(&pack, balance)?;
        self.subscription()?;
        self.inbox()?;
        self.proof()
    }

    /// Credits are spent, and held for a job.
    fn spending(&mut self, balance: &mut i64) -> Result<()> {
        title(
            8,
            "The user spends: what would be lost soonest first, here the promotional credits, then the oldest pack",
        );
        self.call("spend_credits", &format!("{SPENT}, 'job-1', 'a large picture'"))?;
        *balance -= SPENT;
        self.ledger(*balance)?;

        title(9, "Credits are held for a job; it needs fewer, and the rest comes back");
        self.call("reserve_credits", &format!("{RESERVED}, 'job-2'"))?;
        self.call("commit_reservation", &format!("'job-2', {COMMITTED}"))?;
        *balance -= COMMITTED;
        self.ledger(*balance)
    }

    /// The first pack's money goes back after its credits were spent.
    fn refund(&mut self, pack: &Event, mut balance: i64) -> Result<()> {
        title(
            10,
            "The first pack is refunded, though its credits are spent: what there is settles some of the debt",
        );
        self.deliver(&pack.refund("refund.created", "succeeded"), 200, "applied")?;
        balance -= PACK_CREDITS;
        self.ledger(balance)?;

        title(11, "The next pack settles the rest of the debt first");
        self.deliver(&Event::checkout_completed(self.user, PACK_PRICE), 200, "applied")?;
        balance += PACK_CREDITS;
        self.ledger(balance)?;

        title(12, "The bank refuses the refund: what was settled comes back");
        self.deliver(&pack.refund("refund.failed", "failed"), 200, "applied")?;
        balance += PACK_CREDITS;
        self.ledger(balance)
    }

    /// Another user's subscription, from its first payment to its end.
    fn subscription(&mut self) -> Result<()> {
        (self.user, self.shown) = (Uuid::new_v4(), 0);
        println!("\nAnother user, {}, subscribes.", self.user);
        let subscription = Subscription::of(self.user);

        title(
            13,
            "A first purchase sends three events in any order; those that come before their user is known wait",
        );
        self.deliver(&subscription.paid(PRO_PRICE, 0, "subscription_create"), 200, "parked")?;
        self.deliver(
            &subscription.state("customer.subscription.created", "active", PRO_PRICE, 0),
            200,
            "parked",
        )?;
        self.deliver(&subscription.session(), 200, "ignored")?;
        self.ledger(PRO_CREDITS)?;

        title(
            14,
            "Some are spent, and the renewal is paid: the next month's credits, and nothing of the last",
        );
        self.call("spend_credits", &format!("{SPENT}, 'job-3'"))?;
        self.deliver(&subscription.paid(PRO_PRICE, 1, "subscription_cycle"), 200, "applied")?;
        self.ledger(PRO_CREDITS)?;

        title(15, "An upgrade in mid-period: the status alone grants nothing, its paid invoice does");
        self.deliver(
            &subscription.state("customer.subscription.updated", "active", MAX_PRICE, 1),
            200,
            "applied",
        )?;
        self.ledger(PRO_CREDITS)?;
        self.deliver(&subscription.paid(MAX_PRICE, 1, "subscription_update"), 200, "applied")?;
        self.ledger(MAX_CREDITS)?;

        title(16, "It is canceled: what was paid for stays until it is spent");
        self.deliver(
            &subscription.state("customer.subscription.deleted", "canceled", MAX_PRICE, 1),
            200,
            "applied",
        )?;
        self.ledger(MAX_CREDITS)
    }

    fn signup(&mut self, balance: i64) -> Result<()> {
        title(1, "A signup: the app's server calls the database");
        self.call("grant_signup_credits", "")?;
        self.ledger(balance)
    }

    /// Calls a function for the user, as the app's server does.
    fn call(&mut self, function: &str, arguments: &str) -> Result<()> {
        let comma = if arguments.is_empty() { "" } else { ", " };
        let call = format!("billing.{function}('{}'{comma}{arguments})", self.user);
        sent(&format!("select * from {call}"));
        let outcome: Value =
            self.database.query_one(&format!("select to_jsonb(o) from {call} o"), &[])?.get(0);
        answered(&summary(&outcome));
        expect("the outcome", &word(&outcome, "outcome"), &"applied")
    }

    /// Posts an event as Stripe does.
    fn deliver(&self, event: &Event, status: u16, outcome: &str) -> Result<()> {
        let answer = self.post(event, &event.signature(self.service.webhook_secret()))?;
        let said: Value = serde_json::from_str(&answer.body).unwrap_or_default();
        answered(&format!("{}, {}", answer.status, summary(&said)));
        expect("the status", &answer.status, &status)?;
        expect("the outcome", &word(&said, "outcome"), &outcome)
    }

    fn forge(&self) -> Result<()> {
        let event = Event::checkout_completed(self.user, PACK_PRICE);
        let answer = self.post(&event, &event.signature("whsec_a_guess"))?;
        answered(&format!("{}, {}", answer.status, answer.body.trim()));
        expect("the status", &answer.status, &400)
    }

    fn post(&self, event: &Event, signature: &str) -> Result<Answer> {
        sent(&format!("{}  {SIGNATURE_HEADER}: {}", short(&event.id), short(signature)));
        http::post(&self.service.webhook_url(), &[(SIGNATURE_HEADER, signature)], &event.body)
    }

    /// Pushes the sample catalog with one more pack in it.
    fn teach_the_price(&self) -> Result<()> {
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
        sent("stripe-credits catalog push catalog.json");
        answered(self.service.push_catalog(document.path())?.trim_end());
        Ok(())
    }

    /// Prints what the step appended to the user's ledger, whose balance must now be this.
    fn ledger(&mut self, balance: i64) -> Result<()> {
        let rows = self.database.query(
            "select id, transaction_type, coalesce(pool, 'debt'), amount, balance_after,
                    coalesce(stripe_checkout_session_id, stripe_invoice_id, request_id, ''), coalesce(stripe_event_id, '')
             from billing.credit_transactions where user_id = $1 and id > $2 order by id",
            &[&self.user, &self.shown],
        )?;
        if !rows.is_empty() {
            println!("{}", ledger_table(&rows));
        }
        self.shown = rows.last().map_or(self.shown, |row| row.get(0));
        let statement = "select credits_balance, debt from billing.user_credits where user_id = $1";
        let row = self.database.query_one(statement, &[&self.user])?;
        let (credits, debt): (i64, i64) = (row.get(0), row.get(1));
        let unchanged = if rows.is_empty() { "the ledger is unchanged: " } else { "" };
        let owed = if debt == 0 { String::new() } else { format!(", debt {debt}") };
        println!("   {unchanged}balance {credits}{owed}");
        if let Some(row) = rows.last() {
            expect("the ledger's balance", &row.get::<_, i64>(4), &balance)?;
        }
        expect("the user's balance", &(credits - debt), &balance)
    }

    /// Prints what the database kept of Stripe's events: the forged one is not there.
    fn inbox(&mut self) -> Result<()> {
        println!("\nThe inbox: every event with what became of it");
        let rows = self.database.query(
            "select event_id, type, outcome, attempts::text from billing.stripe_events order by first_received_at",
            &[],
        )?;
        let mut table = table(&["event", "type", "outcome", "attempts"]);
        for row in &rows {
            table.add_row([id_of(row, 0), text(row, 1), text(row, 2), text(row, 3)]);
        }
        println!("{table}");
        expect("the number of events in the inbox", &rows.len(), &12)
    }

    /// Has the books prove themselves.
    fn proof(&mut self) -> Result<()> {
        println!("\nThe proof: select * from billing.validate_credits_consistency()");
        let faults = self.database.query("select * from billing.validate_credits_consistency()", &[])?;
        expect("the number of accounts whose balance is not the sum of their ledger", &faults.len(), &0)?;
        println!("no rows: every balance is the sum of its ledger\n");
        Ok(())
    }
}

fn ledger_table(rows: &[Row]) -> Table {
    let mut table = table(&["id", "type", "pool", "amount", "balance", "paid by, or request", "event"]);
    for row in rows {
        let amount = format!("{:+}", row.get::<_, i64>(3));
        let (id, after) = (row.get::<_, i64>(0).to_string(), row.get::<_, i64>(4).to_string());
        table.add_row([id, text(row, 1), text(row, 2), amount, after, id_of(row, 5), id_of(row, 6)]);
    }
    for column in [0, 3, 4] {
        if let Some(column) = table.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table
}

fn title(step: u32, text: &str) {
    println!("\n{step}. {text}");
}

fn sent(text: &str) {
    println!("   sent      {text}");
}

fn answered(text: &str) {
    // Of several lines, the later ones under the first.
    let mut label = "answered";
    for line in text.lines().filter(|line| !line.is_empty()) {
        println!("   {label:8}  {line}");
        label = "";
    }
}

fn expect<T: PartialEq + Debug>(what: &str, actual: &T, expected: &T) -> Result<()> {
    if actual == expected {
        Ok(())
    } else {
        Err(Error::Unmet(format!("{what} is {actual:?} where the story says {expected:?}")))
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

fn table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(UTF8_FULL_CONDENSED).set_header(header.iter().copied());
    table
}

fn text(row: &Row, column: usize) -> String {
    row.get(column)
}

fn id_of(row: &Row, column: usize) -> String {
    short(row.get(column))
}

fn short(id: &str) -> String {
    match id.char_indices().nth(ID_CHARACTERS) {
        Some((end, _)) => format!("{}…", &id[..end]),
        None => id.to_owned(),
    }
}
