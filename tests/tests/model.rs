//! Thousands of random operations on the database and on a plain model of the rules, compared after each of them.
//!
//! The model knows the rules of money (5, 8, 9 and what a reservation is) and nothing of events, locks, rows or SQL. Every
//! run of a seed is the same; a failure names the seed and the operations that led to it.

use std::collections::BTreeMap;

use serde_json::Value;
use stripe_credits_tests::chance::Chance;
use stripe_credits_tests::money_back::{charge, dispute, refund};
use stripe_credits_tests::{Connection, Database, Event, Outcome, catalog, paid_pack, user};
use uuid::Uuid;

const STEPS: usize = 700;
const BOOKS_EVERY: usize = 50;
const USERS: usize = 3;
const PACK: i64 = 500;
/// What every session costs.
const CHARGED: i64 = 1000;
const NEVER: i64 = i64::MAX;

/// One lot of credits. What is counted nowhere was spent, or is held.
struct Lot {
    source: String,
    bought: bool,
    amount: i64,
    remaining: i64,
    lapsed: i64,
    taken: i64,
    settled: i64,
    /// In which order lots lapse.
    lapses: i64,
    dead: bool,
}

/// What is known of a payment's money, and what is owed of its credits.
#[derive(Default)]
struct Payment {
    lot: Option<usize>,
    refunds: BTreeMap<String, (i64, bool)>,
    counted: i64,
    disputes: BTreeMap<String, (i64, Money)>,
    owed: i64,
}

/// Where a dispute's money is; it only rises.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Money {
    Untouched,
    Withdrawn,
    Reinstated,
}

enum Request {
    Spent(i64),
    Held { amount: i64, drawn: Vec<(usize, i64)> },
    Committed { amount: i64, kept: i64 },
    Ended { amount: i64 },
}

#[derive(Default)]
struct Person {
    lots: Vec<Lot>,
    payments: BTreeMap<String, Payment>,
    requests: BTreeMap<String, Request>,
    debt: i64,
    /// The policy: what was spent before it was reversed is written off.
    forgiven: bool,
}

impl Payment {
    /// Rule 5.
    fn target(&self, granted: i64) -> i64 {
        let sum = |failed| {
            self.refunds.values().filter(|refund| refund.1 == failed).map(|refund| refund.0).sum::<i64>()
        };
        let refunded = sum(false).max(self.counted - sum(true)).max(0);
        let withdrawn: i64 = self
            .disputes
            .values()
            .filter(|dispute| dispute.1 == Money::Withdrawn)
            .map(|dispute| dispute.0)
            .sum();
        granted * CHARGED.min(refunded + withdrawn) / CHARGED
    }
}

impl Person {
    fn available(&self) -> i64 {
        self.lots.iter().map(|lot| lot.remaining).sum()
    }

    fn pools(&self) -> (i64, i64, i64) {
        let pool =
            |bought| self.lots.iter().filter(|lot| lot.bought == bought).map(|lot| lot.remaining).sum();
        (pool(true), pool(false), self.debt)
    }

    /// Rule 8: what would be lost soonest, promotional before purchased, oldest.
    fn draw(&mut self, amount: i64) -> Vec<(usize, i64)> {
        let mut order: Vec<usize> = (0..self.lots.len()).collect();
        order.sort_by_key(|index| (self.lots[*index].lapses, self.lots[*index].bought, *index));
        let mut left = amount;
        let mut drawn = Vec::new();
        for index in order {
            let part = left.min(self.lots[index].remaining);
            if part > 0 {
                self.lots[index].remaining -= part;
                left -= part;
                drawn.push((index, part));
            }
        }
        assert_eq!(left, 0, "the caller has looked");
        drawn
    }

    /// What follows every operation: the dead lapse, and what is there repays.
    fn settle(&mut self) {
        for lot in self.lots.iter_mut().filter(|lot| lot.dead) {
            lot.lapsed += lot.remaining;
            lot.remaining = 0;
        }
        let repaid = self.debt.min(self.available());
        self.debt -= repaid;
        for (index, part) in self.draw(repaid) {
            self.lots[index].settled += part;
        }
    }

    fn grant(&mut self, source: &str, bought: bool, amount: i64, lapses: i64) -> usize {
        self.lots.push(Lot {
            source: source.to_owned(),
            bought,
            amount,
            remaining: amount,
            lapsed: 0,
            taken: 0,
            settled: 0,
            lapses,
            dead: false,
        });
        self.lots.len() - 1
    }

    /// Rules 5 and 9 for one payment: whether anything changed.
    fn reverse(&mut self, session: &str) -> bool {
        let Some(payment) = self.payments.get_mut(session) else { return false };
        let Some(index) = payment.lot else { return false };
        let lot = &mut self.lots[index];
        let target = payment.target(lot.amount);
        // What is gone with a lapse counts as given back, and what was taken of it before can no longer return.
        let (gone, taken) = if lot.dead { (lot.lapsed + lot.taken, 0) } else { (lot.lapsed, lot.taken) };
        let back = target.min(gone + taken + lot.remaining);
        let more_taken = (back - gone).max(0) - taken;
        let owed = if self.forgiven { 0 } else { target - back };
        let changed = more_taken != 0 || owed != payment.owed;
        lot.remaining -= more_taken;
        lot.taken += more_taken;
        let more = owed - payment.owed;
        payment.owed = owed;
        self.debt += more;
        // A debt below nothing was settled: it comes back to what settled it, the latest first.
        let mut overpaid = (-self.debt).max(0);
        self.debt = self.debt.max(0);
        for lot in self.lots.iter_mut().rev() {
            let part = overpaid.min(lot.settled);
            lot.settled -= part;
            lot.remaining += part;
            overpaid -= part;
        }
        assert_eq!(overpaid, 0);
        changed
    }

    fn buy(&mut self, session: &str, worth: i64) -> &'static str {
        let known = self.payments.entry(session.to_owned()).or_default().lot;
        let missing = worth - known.map_or(0, |index| self.lots[index].amount);
        if missing > 0 {
            if let Some(index) = known {
                self.lots[index].amount += missing;
                self.lots[index].remaining += missing;
            } else {
                let index = self.grant(session, true, missing, NEVER);
                self.payments.get_mut(session).expect("just made").lot = Some(index);
            }
        }
        let changed = self.reverse(session) || missing > 0;
        self.settle();
        if changed { "applied" } else { "already_applied" }
    }

    fn money_moved(&mut self, session: &str, what: impl FnOnce(&mut Payment)) -> &'static str {
        let payment = self.payments.entry(session.to_owned()).or_default();
        what(payment);
        if payment.lot.is_none() {
            return "ignored unknown_payment";
        }
        let changed = self.reverse(session);
        self.settle();
        if changed { "applied" } else { "already_applied" }
    }

    fn take(&mut self, request: &str, amount: i64, hold: bool) -> &'static str {
        let same = match self.requests.get(request) {
            None => None,
            Some(Request::Spent(before)) => Some(!hold && *before == amount),
            Some(
                Request::Held { amount: before, .. }
                | Request::Committed { amount: before, .. }
                | Request::Ended { amount: before },
            ) => Some(hold && *before == amount),
        };
        match same {
            Some(true) => return "already_applied",
            Some(false) => return "rejected conflict",
            None if amount > self.available() => return "rejected insufficient_credits",
            None => {}
        }
        let drawn = self.draw(amount);
        let made = if hold { Request::Held { amount, drawn } } else { Request::Spent(amount) };
        self.requests.insert(request.to_owned(), made);
        "applied"
    }

    /// Ends a held request with `kept` of it spent.
    fn end(&mut self, request: &str, kept: i64) {
        let Some(Request::Held { amount, drawn }) = self.requests.remove(request) else {
            panic!("it is held")
        };
        let mut left = kept;
        let mut touched = Vec::new();
        for (index, part) in drawn {
            let keep = left.min(part);
            left -= keep;
            self.lots[index].remaining += part - keep;
            touched.push(self.lots[index].source.clone());
        }
        touched.sort();
        for source in touched {
            self.reverse(&source);
        }
        self.settle();
        let ended = if kept > 0 { Request::Committed { amount, kept } } else { Request::Ended { amount } };
        self.requests.insert(request.to_owned(), ended);
    }

    fn commit(&mut self, request: &str, amount: Option<i64>) -> &'static str {
        match self.requests.get(request) {
            None | Some(Request::Spent(_)) => "rejected unknown_reservation",
            Some(Request::Ended { .. }) => "rejected reservation_ended",
            Some(Request::Committed { amount: all, kept }) if amount.unwrap_or(*all) == *kept => {
                "already_applied"
            }
            Some(Request::Committed { .. }) => "rejected conflict",
            Some(Request::Held { amount: all, .. }) if amount.unwrap_or(*all) > *all => {
                "rejected exceeds_reservation"
            }
            Some(Request::Held { amount: all, .. }) => {
                let kept = amount.unwrap_or(*all);
                self.end(request, kept);
                "applied"
            }
        }
    }

    fn release(&mut self, request: &str) -> &'static str {
        match self.requests.get(request) {
            None | Some(Request::Spent(_)) => "rejected unknown_reservation",
            Some(Request::Ended { .. }) => "already_applied",
            Some(Request::Committed { .. }) => "rejected conflict",
            Some(Request::Held { .. }) => {
                self.end(request, 0);
                "applied"
            }
        }
    }
}

/// A database, the model beside it, and what was done to both.
struct Run {
    c: Connection,
    chance: Chance,
    people: Vec<Person>,
    delivered: Vec<(usize, Event)>,
    count: usize,
    done: Vec<String>,
}

impl Run {
    fn new(db: &Database, seed: u64) -> Run {
        let forgiven = seed.is_multiple_of(4);
        let people = (0..USERS).map(|_| Person { forgiven, ..Person::default() }).collect();
        Run {
            c: db.connect(),
            chance: Chance::new(seed),
            people,
            delivered: Vec::new(),
            count: 0,
            done: Vec::new(),
        }
    }

    fn fresh(&mut self, prefix: &str) -> String {
        self.count += 1;
        format!("{prefix}_{:06}", self.count)
    }

    /// A session of this person's, mostly one that was seen before.
    fn session(&mut self, who: usize) -> String {
        let known: Vec<String> = self.people[who].payments.keys().cloned().collect();
        if known.is_empty() || self.chance.once_in(6) {
            self.fresh("cs")
        } else {
            self.chance.one_of(&known).clone()
        }
    }

    /// A request of this person's, mostly a new one.
    fn request(&mut self, who: usize) -> String {
        let known: Vec<String> = self.people[who].requests.keys().cloned().collect();
        if known.is_empty() || !self.chance.once_in(8) {
            self.fresh("job")
        } else {
            self.chance.one_of(&known).clone()
        }
    }

    /// A held request where there is one.
    fn held(&mut self, who: usize) -> Option<String> {
        let held = |request: &Request| matches!(request, Request::Held { .. });
        let ids: Vec<String> =
            self.people[who].requests.iter().filter(|r| held(r.1)).map(|r| r.0.clone()).collect();
        (!ids.is_empty()).then(|| self.chance.one_of(&ids).clone())
    }

    /// The outcome says what the model says, and where it stands.
    fn says(&mut self, who: usize, what: &str, said: &Outcome, expected: &str) {
        self.done.push(format!("{what}: {}", said.said()));
        assert_eq!(said.said(), expected, "{what}");
        if let (Some(purchased), Some(promotional), Some(debt)) =
            (said.remaining_purchased, said.remaining_promotional, said.debt)
        {
            assert_eq!((purchased, promotional, debt), self.people[who].pools(), "{what}: the outcome");
        }
    }

    fn deliver(&mut self, who: usize, event: Event, expected: &str) {
        let object: Value = event.json()["data"]["object"].clone();
        let what = format!(
            "{who} {} {} {} {}",
            event.json()["type"],
            object["id"],
            object["payment_intent"],
            object["amount"]
        );
        let said = self.c.apply(&event);
        self.says(who, &what, &said, expected);
        self.delivered.push((who, event));
    }

    fn step(&mut self) {
        let who = self.chance.below(USERS);
        let id = user(who as u128 + 1);
        match self.chance.below(24) {
            0..=2 => self.purchase(who, id),
            3 => {
                let (source, days) = (self.fresh("gift"), self.chance.between(1, 20));
                let amount = self.chance.between(1, 300);
                let lapses = if self.chance.once_in(2) { days } else { NEVER };
                let said = if lapses == NEVER {
                    self.c.grant(id, amount, &source)
                } else {
                    // The same day is the same moment, so that ties are broken by the rules.
                    self.c.call(
                        "grant_credits($1, $2, $3, p_expires_at => date_trunc('day', now()) + make_interval(days => $4 + 1))",
                        &[&id, &amount, &source, &i32::try_from(days).expect("small")],
                    )
                };
                self.people[who].grant(&source, false, amount, lapses);
                self.people[who].settle();
                self.says(who, &format!("{who} grant {source} {amount}"), &said, "applied");
            }
            4..=8 => self.spend(who, id, false),
            9..=11 => self.spend(who, id, true),
            12..=13 => {
                let Some(request) = self.held(who) else { return };
                let amount = (!self.chance.once_in(3)).then(|| self.chance.between(1, 200));
                let said = self.c.commit(id, &request, amount);
                let expected = self.people[who].commit(&request, amount);
                self.says(who, &format!("{who} commit {request} {amount:?}"), &said, expected);
            }
            14 => {
                let request = if self.chance.once_in(4) { Some(self.request(who)) } else { self.held(who) };
                let Some(request) = request else { return };
                let said = self.c.release(id, &request);
                let expected = self.people[who].release(&request);
                self.says(who, &format!("{who} release {request}"), &said, expected);
            }
            15 => {
                let request = self.request(who);
                let said = self.c.commit(id, &request, Some(1));
                let expected = self.people[who].commit(&request, Some(1));
                self.says(who, &format!("{who} commit {request} 1"), &said, expected);
            }
            16 => self.run_out(who, id),
            17 => self.lapse(who, id),
            18..=20 => self.refund(who),
            21 => self.dispute(who),
            22 => {
                let session = self.session(who);
                let amount = self.chance.between(0, CHARGED);
                let event = charge(&session.replace("cs_", "pi_"), CHARGED, amount);
                let event = event.event(&self.fresh("evt"), "charge.refunded");
                let expected = self.people[who]
                    .money_moved(&session, |payment| payment.counted = payment.counted.max(amount));
                self.deliver(who, event, expected);
            }
            _ => self.redeliver(),
        }
    }

    fn purchase(&mut self, who: usize, id: Uuid) {
        let session = self.session(who);
        let dead = |lot: usize| self.people[who].lots[lot].dead;
        // Only here can evidence come with another lapse than its lot has by now: no more is said of a lot that lapsed.
        let lapsed =
            self.people[who].payments.get(&session).and_then(|payment| payment.lot).is_some_and(dead);
        let quantity = if lapsed { 1 } else { self.chance.between(1, 3) };
        let paid = paid_pack(&session, id).lines(&[("price_pack", quantity)]);
        let event = paid.completed(&self.fresh("evt"));
        let expected = self.people[who].buy(&session, PACK * quantity);
        self.deliver(who, event, expected);
    }

    fn spend(&mut self, who: usize, id: Uuid, hold: bool) {
        let request = self.request(who);
        let amount = match self.people[who].requests.get(&request) {
            Some(
                Request::Spent(amount)
                | Request::Held { amount, .. }
                | Request::Committed { amount, .. }
                | Request::Ended { amount },
            ) if self.chance.once_in(2) => *amount,
            _ => self.chance.between(1, 400),
        };
        let said =
            if hold { self.c.reserve(id, amount, &request) } else { self.c.spend(id, amount, &request) };
        let expected = self.people[who].take(&request, amount, hold);
        let what = if hold { "reserve" } else { "spend" };
        self.says(who, &format!("{who} {what} {request} {amount}"), &said, expected);
    }

    fn run_out(&mut self, who: usize, id: Uuid) {
        let Some(request) = self.held(who) else { return };
        // Where nothing of a reversal is outstanding. Where something is, scenarios_reversals.rs says what is read.
        let person = &self.people[who];
        let outstanding = |payment: &Payment| {
            let reversed = payment.lot.is_some_and(|lot| payment.target(person.lots[lot].amount) > 0);
            payment.owed > 0 || (person.forgiven && reversed)
        };
        let free = person.debt == 0 && !person.payments.values().any(outstanding);
        self.done.push(format!("{who} runs out: {request}"));
        self.c.runs_out_now(id, &request);
        self.people[who].end(&request, 0);
        if free {
            let (purchased, promotional, debt) = self.people[who].pools();
            let read = self.c.reads(id);
            assert_eq!(read, (purchased + promotional, debt), "read before it is posted");
        }
        self.posts_time(id);
    }

    fn lapse(&mut self, who: usize, id: Uuid) {
        let live: Vec<usize> =
            (0..self.people[who].lots.len()).filter(|index| !self.people[who].lots[*index].dead).collect();
        if live.is_empty() {
            return;
        }
        let index = *self.chance.one_of(&live);
        let source = self.people[who].lots[index].source.clone();
        self.done.push(format!("{who} lapses: {source}"));
        self.c.lapses_now(id, &source);
        self.people[who].lots[index].dead = true;
        self.people[who].settle();
        self.compare(id, who, "read before it is posted");
        self.posts_time(id);
    }

    /// By the sweep, or by an access that does nothing else.
    fn posts_time(&mut self, id: Uuid) {
        if self.chance.once_in(2) {
            assert_eq!(self.c.run_due(), 1);
        } else {
            assert_eq!(self.c.release(id, "nobody's").said(), "rejected unknown_reservation");
        }
    }

    fn refund(&mut self, who: usize) {
        let session = self.session(who);
        let intent = session.replace("cs_", "pi_");
        let known: Vec<(String, i64)> = self.people[who]
            .payments
            .get(&session)
            .map(|payment| payment.refunds.iter().map(|(id, refund)| (id.clone(), refund.0)).collect())
            .unwrap_or_default();
        let new = known.is_empty() || self.chance.once_in(3);
        let (refund_id, amount) = if new {
            let amount = if self.chance.once_in(3) { CHARGED } else { self.chance.between(1, 700) };
            (self.fresh("re"), amount)
        } else {
            self.chance.one_of(&known).clone()
        };
        let fails = self.chance.once_in(if new { 8 } else { 2 });
        let status = if fails { *self.chance.one_of(&["failed", "canceled"]) } else { "succeeded" };
        let event_type = if fails { "refund.failed" } else { "refund.updated" };
        let event =
            refund(&refund_id, &intent, amount).with("status", status).event(&self.fresh("evt"), event_type);
        let expected = self.people[who].money_moved(&session, |payment| {
            let known = payment.refunds.entry(refund_id).or_insert((amount, fails));
            known.1 |= fails;
        });
        self.deliver(who, event, expected);
    }

    fn dispute(&mut self, who: usize) {
        let session = self.session(who);
        let intent = session.replace("cs_", "pi_");
        let known = self.people[who]
            .payments
            .get(&session)
            .and_then(|payment| payment.disputes.iter().next().map(|(id, dispute)| (id.clone(), dispute.0)));
        let (dispute_id, amount) =
            known.unwrap_or_else(|| (self.fresh("dp"), self.chance.between(1, CHARGED)));
        let (status, event_type, money) = *self.chance.one_of(&[
            ("warning_needs_response", "charge.dispute.created", Money::Untouched),
            ("needs_response", "charge.dispute.created", Money::Withdrawn),
            ("under_review", "charge.dispute.funds_withdrawn", Money::Withdrawn),
            ("lost", "charge.dispute.closed", Money::Withdrawn),
            ("won", "charge.dispute.closed", Money::Reinstated),
            ("won", "charge.dispute.funds_reinstated", Money::Reinstated),
        ]);
        let event = dispute(&dispute_id, &intent, amount, status).event(&self.fresh("evt"), event_type);
        let expected = self.people[who].money_moved(&session, |payment| {
            let known = payment.disputes.entry(dispute_id).or_insert((amount, money));
            known.1 = known.1.max(money);
        });
        self.deliver(who, event, expected);
    }

    /// Anything that Stripe said before, again: it must change nothing, whatever happened since.
    fn redeliver(&mut self) {
        if self.delivered.is_empty() {
            return;
        }
        let (who, event) = self.chance.one_of(&self.delivered).clone();
        let said = self.c.apply(&event);
        self.done.push(format!("{who} again {}: {}", event.id(), said.said()));
        let unchanged = ["already_applied", "ignored unknown_payment"].contains(&said.said().as_str());
        assert!(unchanged, "a redelivery: {said:?}");
    }

    fn compare(&mut self, id: Uuid, who: usize, when: &str) {
        let rows = self
            .c
            .query(
                "select purchased_credits_balance, promotional_credits_balance, debt from billing.user_credits
                 where user_id = $1",
                &[&id],
            )
            .expect("a row");
        let stands = rows.first().map_or((0, 0, 0), |row| (row.get(0), row.get(1), row.get(2)));
        assert_eq!(stands, self.people[who].pools(), "user {who}, {when}: purchased, promotional, debt");
    }

    fn compare_all(&mut self) {
        for who in 0..USERS {
            let id = user(who as u128 + 1);
            self.compare(id, who, "after the step");
            let mut grants: Vec<String> =
                self.people[who].lots.iter().map(|lot| format!("{} {}", lot.source, lot.remaining)).collect();
            let mut held = self.c.grants(id);
            grants.sort();
            held.sort();
            assert_eq!(held, grants, "user {who}: what remains of each grant");
        }
    }
}

fn walk(seed: u64) {
    let db = Database::with_catalog();
    let mut run = Run::new(&db, seed);
    if run.people[0].forgiven {
        let mut forgiving = catalog();
        forgiving["reversal_policy"] = "forgive".into();
        run.c.load_catalog(&forgiving);
    }
    for step in 1..=STEPS {
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            run.step();
            run.compare_all();
            if step % BOOKS_EVERY == 0 {
                db.check_books();
            }
        }));
        if let Err(panic) = outcome {
            let last = run.done.len().saturating_sub(60);
            eprintln!("seed {seed}, step {step}; the last operations: {:#?}", &run.done[last..]);
            std::panic::resume_unwind(panic);
        }
    }
}

/// How many walks there are: a few by default, as many as one has patience for with `STRIPE_CREDITS_MODEL_SEEDS`.
fn seeds() -> u64 {
    std::env::var("STRIPE_CREDITS_MODEL_SEEDS").map_or(8, |seeds| seeds.parse().expect("a number of seeds"))
}

#[test]
fn odd_seeds_do_on_the_database_what_they_do_on_the_model() {
    (1..=seeds()).step_by(2).for_each(walk);
}

#[test]
fn even_seeds_do_on_the_database_what_they_do_on_the_model() {
    (2..=seeds()).step_by(2).for_each(walk);
}
