//! The app's server: it spends, reserves and refunds spends over connections of its own, and repeats each call with
//! the same request id until it has an answer. Now and then it gives up, and never learns what became of the call.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant};

use postgres::types::ToSql;
use postgres::{Client, Config, NoTls};
use uuid::Uuid;
use xtask::{Result, signals};

use super::progress::{PATIENCE, Progress};
use super::stripe::USERS;
use super::verdict::Request;
use crate::seeds::Rng;
use crate::tokens::token;
use crate::user;
use crate::wire::{Wire, request};

/// How long opening a connection may take.
const CONNECT_LIMIT: Duration = Duration::from_secs(5);
/// How long the app's server rests after each call, and after one without an answer.
const PACE: Duration = Duration::from_millis(20);
const RETRY: Duration = Duration::from_millis(50);
/// Of so many calls without an answer, one is not repeated.
const GIVES_UP: usize = 5;
/// How often upkeep runs.
const UPKEEP: Duration = Duration::from_millis(500);
/// The most that is spent at once, in credits.
const MAX_SPEND: i64 = 120;

/// One worker of the app's server.
pub(super) struct App {
    name: usize,
    rng: Rng,
    database_url: String,
    shim: SocketAddr,
    client: Option<Client>,
    /// What was spent and can still be given back: the user, the request and how much of it.
    spent: Vec<(Uuid, String, i64)>,
    pub(super) requests: Vec<Request>,
    pub(super) tally: Tally,
}

/// What a worker did.
#[derive(Default)]
pub(super) struct Tally {
    /// Answers, by call and outcome.
    pub(super) answers: BTreeMap<String, u64>,
    /// Calls that were repeated because there was no answer, and those that were given up.
    pub(super) repeated: u64,
    pub(super) given_up: u64,
    /// Balances that were read over HTTP.
    pub(super) reads: u64,
}

impl App {
    pub(super) fn new(seed: u64, name: usize, database_url: &str, shim: SocketAddr) -> App {
        App {
            name,
            // Apart from those of the senders.
            rng: Rng::new(!seed.wrapping_add(name as u64)),
            database_url: database_url.to_owned(),
            shim,
            client: None,
            spent: Vec::new(),
            requests: Vec::new(),
            tally: Tally::default(),
        }
    }

    /// Calls until the run is over.
    pub(super) fn run(&mut self, progress: &Progress) -> Result<()> {
        while !progress.is_over() {
            let user = user(1 + self.rng.below(USERS) as u128);
            let id = format!("job-{}-{}", self.name, self.requests.len());
            match self.rng.below(10) {
                0..=3 => self.spend(user, id)?,
                4..=6 => self.reserve(user, id)?,
                7..=8 => self.refund(id)?,
                _ => self.read(user),
            }
            thread::sleep(PACE);
        }
        self.client = None;
        Ok(())
    }

    fn spend(&mut self, user: Uuid, id: String) -> Result<()> {
        let amount = self.rng.between(1, MAX_SPEND);
        let answer = self.call("spend_credits($1, $2, $3)", &[&user, &amount, &id])?;
        if answer == Some(true) {
            self.spent.push((user, id.clone(), amount));
        }
        self.asked(user, id, &possible(answer, -amount));
        Ok(())
    }

    /// A reservation that is committed for less, released, or runs out.
    fn reserve(&mut self, user: Uuid, id: String) -> Result<()> {
        let amount = self.rng.between(1, MAX_SPEND);
        let end = self.rng.below(3);
        let lasts = if end == 0 { "1 second" } else { "1 day" };
        let reserve = "reserve_credits($1, $2, $3, ($4::text)::interval)";
        let answer = self.call(reserve, &[&user, &amount, &id, &lasts])?;
        let sums = match (answer, end) {
            // What has run out is as if it had never been, whether it was there or not.
            (Some(false), _) | (_, 0) => vec![0],
            (None, _) => vec![0, -amount],
            (Some(true), 1) => {
                let committed = self.rng.between(1, amount);
                match self.call("commit_reservation($1, $2, $3)", &[&user, &id, &committed])? {
                    Some(true) => {
                        self.spent.push((user, id.clone(), committed));
                        vec![-committed]
                    }
                    Some(false) => vec![-amount],
                    None => vec![-committed, -amount],
                }
            }
            (Some(true), _) => match self.call("release_reservation($1, $2)", &[&user, &id])? {
                Some(true) => vec![0],
                Some(false) => vec![-amount],
                None => vec![0, -amount],
            },
        };
        self.asked(user, id, &sums);
        Ok(())
    }

    /// Gives back a part of something that was spent.
    fn refund(&mut self, id: String) -> Result<()> {
        if self.spent.is_empty() {
            return Ok(());
        }
        let (user, spend, rest) = self.spent.swap_remove(self.rng.below(self.spent.len()));
        let amount = self.rng.between(1, rest);
        let answer = self.call("refund_spend($1, $2, $3, $4)", &[&user, &spend, &id, &amount])?;
        self.asked(user, id, &possible(answer, amount));
        Ok(())
    }

    /// A user looks at the balance, which may come from Redis.
    fn read(&mut self, user: Uuid) {
        self.tally.reads += 1;
        let bearer = format!("Bearer {}", token(user));
        let bytes = request("GET", "/credits", &[("Authorization", &bearer)], b"");
        // Whatever it is answered: what it says is not money.
        let _ = Wire::try_open(self.shim).and_then(|mut wire| wire.send(&bytes).and_then(|()| wire.answer()));
    }

    fn asked(&mut self, user: Uuid, id: String, sums: &[i64]) {
        self.requests.push(Request { id, user, sums: sums.to_vec() });
    }

    /// Whether the call was done (or had been done before), and not rejected; `None` if there was no answer.
    fn call(&mut self, call: &str, args: &[&(dyn ToSql + Sync)]) -> Result<Option<bool>> {
        let sql = format!("select outcome, coalesce(reason, '') from billing.{call}");
        let since = Instant::now();
        loop {
            signals::check()?;
            match query(&mut self.client, &self.database_url, &sql, args) {
                Ok(row) => {
                    let (outcome, reason): (String, String) = (row.get(0), row.get(1));
                    let function = call.split('(').next().unwrap_or_default();
                    let summary = format!("{function}: {outcome} {reason}");
                    *self.tally.answers.entry(summary).or_default() += 1;
                    return Ok(Some(outcome != "rejected"));
                }
                Err(error) if since.elapsed() > PATIENCE => return Err(error),
                Err(_) => {}
            }
            self.client = None;
            if self.rng.once_in(GIVES_UP) {
                self.tally.given_up += 1;
                return Ok(None);
            }
            self.tally.repeated += 1;
            thread::sleep(RETRY);
        }
    }
}

/// What the ledger may hold of a call of this amount.
fn possible(answer: Option<bool>, amount: i64) -> Vec<i64> {
    match answer {
        Some(true) => vec![amount],
        Some(false) => vec![0],
        None => vec![0, amount],
    }
}

/// What runs from cron in production: it posts what is due by time, and judges again what is parked.
pub(super) fn upkeep(progress: &Progress, database_url: &str) {
    let mut client = None;
    while !progress.is_over() {
        for sql in ["select billing.run_due()", "select count(*) from billing.retry_parked()"] {
            // What fails now is done the next time.
            if query(&mut client, database_url, sql, &[]).is_err() {
                client = None;
            }
        }
        thread::sleep(UPKEEP);
    }
}

fn query(
    client: &mut Option<Client>,
    database_url: &str,
    sql: &str,
    args: &[&(dyn ToSql + Sync)],
) -> Result<postgres::Row> {
    let client = if let Some(client) = client {
        client
    } else {
        let mut config: Config = database_url.parse()?;
        client.insert(config.connect_timeout(CONNECT_LIMIT).connect(NoTls)?)
    };
    Ok(client.query_one(sql, args)?)
}
