//! Random operations on the database and on the plain model of `rules/`, compared after each of them: in sequence,
//! concurrently with other users' operations, and concurrently on one user, where some order of them must explain the result.
//!
//! The model knows the rules of money and nothing of events, locks, rows or SQL. Every run of a seed is the same; a failure
//! names the seed and the operations that led to it.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use serde_json::json;
use stripe_credits_rules::catalog::{Cancellation, PlanChange, ReversalPolicy};
use stripe_credits_rules::model::{
    Among, Bill, Books, Money, Operation, PACK_CENTS, PERIOD, Person, Policies, SubscriptionFacts,
    TRIAL_CREDITS,
};
use stripe_credits_tests::permutations::orders;
use stripe_credits_tests::refunds::{charge, dispute, refund};
use stripe_credits_tests::seeds::Rng;
use stripe_credits_tests::subscription::{invoice, invoice_payment, line, plans_with, subscription};
use stripe_credits_tests::{Connection, Database, Event, Outcome, nothing_fetched, paid_pack, user};
use uuid::Uuid;

/// Users under each set of policies, each with a history of their own.
const PEOPLE: u64 = 14;
/// Operations of a history.
const STEPS: usize = 60;
/// Histories at once.
const CROWD: u64 = 4;
/// Users with concurrent operations, how often, and how many each time.
const HURRIED: u64 = 6;
const BATCHES: usize = 10;
const AT_ONCE: usize = 4;
/// Starts of periods that are over, and of periods that are not.
const PAST: i64 = 1_000_000_000;
const FUTURE: i64 = 4_000_000_000;
/// The model's time: anything between the two.
const NOW: i64 = 1_800_000_000;

/// Multiplies the number of users: `STRIPE_CREDITS_MODEL_TIMES`.
fn people() -> u64 {
    let times = std::env::var("STRIPE_CREDITS_MODEL_TIMES");
    PEOPLE * times.map_or(1, |times| times.parse::<u64>().expect("a number"))
}

/// A database whose catalog has these policies.
fn database(policies: Policies) -> Database {
    let word = |keep| if keep { "keep" } else { "expire" };
    let mut catalog = plans_with(&json!({
        "trial_credits": TRIAL_CREDITS,
        "cancellation": word(policies.cancellation == Cancellation::Keep),
        "plan_change": if policies.plan_change == PlanChange::Reset { "reset" } else { "keep" },
    }));
    let forgives = policies.reversal == ReversalPolicy::Forgive;
    catalog["reversal_policy"] = if forgives { "forgive" } else { "debt" }.into();
    let db = Database::new();
    db.connect().load_catalog(&catalog);
    db
}

fn all_policies() -> Vec<Policies> {
    let mut all = Vec::new();
    for reversal in [ReversalPolicy::Debt, ReversalPolicy::Forgive] {
        for cancellation in [Cancellation::Keep, Cancellation::Expire] {
            for plan_change in [PlanChange::Reset, PlanChange::Keep] {
                all.push(Policies { reversal, cancellation, plan_change });
            }
        }
    }
    all
}

/// Delivers like a shim without a Stripe key. A reversal is recorded before Stripe is asked about it: if its purchase comes
/// before the answer, nothing is left to do.
fn deliver(c: &mut Connection, event: &Event) -> Outcome {
    let outcome = c.apply(event);
    if outcome.outcome != "needs_fetch" {
        return outcome;
    }
    let answered = c.apply_fetched(event, &nothing_fetched());
    assert!(
        ["ignored unknown_payment", "already_applied"].contains(&answered.summary().as_str()),
        "{answered:?}"
    );
    Outcome { outcome: "ignored".into(), reason: Some("unknown_payment".into()), ..outcome }
}

fn intent(source: &str) -> String {
    format!("pi_{}", &source[3..])
}

/// A user in the database and in the model.
struct Walk {
    id: Uuid,
    name: String,
    rng: Rng,
    /// The model: every state that explains what was seen. One, unless concurrent operations leave more than one open.
    people: Vec<Person>,
    starts_at: i64,
    delivered: Vec<Event>,
    done: Vec<String>,
}

impl Walk {
    fn new(policies: Policies, seed: u64) -> Walk {
        let mut rng = Rng::new(seed);
        let name = format!("p{seed:03}x");
        let starts_at = *rng.one_of(&[PAST, FUTURE]);
        Walk {
            id: user(u128::from(seed) + 1),
            people: vec![Person::new(&name, policies, starts_at, NOW)],
            name,
            rng,
            starts_at,
            delivered: Vec::new(),
            done: vec![format!("{policies:?}, seed {seed}, from {starts_at}")],
        }
    }

    /// The events of an operation; none if it is not Stripe's. The last one is the operation's own.
    fn events(&self, operation: &Operation, number: u64) -> Vec<Event> {
        let evt = format!("evt_{}_{number}", self.name);
        let event = match operation {
            Operation::Buy { session, packs } => {
                paid_pack(session, self.id).lines(&[("price_pack", *packs)]).completed(&evt)
            }
            Operation::Refund { source, refund: id, cents, failed } => {
                let refund = refund(id, &intent(source), *cents);
                match failed {
                    true => refund.with("status", "failed").event(&evt, "refund.failed"),
                    false => refund.event(&evt, "refund.updated"),
                }
            }
            Operation::Count { source, cents } => {
                charge(&intent(source), PACK_CENTS.max(*cents), *cents).event(&evt, "charge.refunded")
            }
            Operation::Dispute { source, dispute: id, cents, money } => {
                let (status, event_type) = match money {
                    Money::Untouched => ("warning_needs_response", "charge.dispute.created"),
                    Money::Withdrawn => ("under_review", "charge.dispute.funds_withdrawn"),
                    Money::Reinstated => ("won", "charge.dispute.closed"),
                };
                dispute(id, &intent(source), *cents, status).event(&evt, event_type)
            }
            Operation::Change { subscription, at, facts } => self.change(*subscription, *at, *facts, &evt),
            Operation::Pay(bill) => return self.pays(bill, &evt),
            _ => return Vec::new(),
        };
        vec![event]
    }

    fn change(&self, number: usize, at: i64, facts: SubscriptionFacts, evt: &str) -> Event {
        let start = self.starts_at + PERIOD * facts.period;
        let object = subscription(&format!("sub_{}_{number}", self.name), facts.plan.price_id())
            .of(self.id)
            .with("customer", format!("cus_{}", self.name))
            .with("cancel_at_period_end", facts.cancel_at_period_end)
            .with("trial_end", facts.trial_end)
            .status(facts.status())
            .during((start, start + PERIOD));
        match facts.ended_at {
            Some(ended_at) => object.deleted(evt, ended_at),
            None => object.updated(evt, at),
        }
    }

    /// In either shape; in the newer one another event names the payment intent.
    fn pays(&self, bill: &Bill, evt: &str) -> Vec<Event> {
        let line = line(bill.plan.price_id(), bill.cents, bill.period);
        let object = invoice(&bill.id, &format!("sub_{}_{}", self.name, bill.subscription))
            .of(self.id)
            .with("customer", format!("cus_{}", self.name))
            .line(if bill.mid_period { line.prorated() } else { line })
            .paid_at(bill.at);
        let object = if bill.mid_period { object.mid_period() } else { object };
        let paid_by = intent(&bill.id);
        if bill.at % 2 == 0 {
            vec![object.older().with("payment_intent", paid_by).paid(evt)]
        } else {
            vec![invoice_payment(&format!("{evt}_by"), &bill.id, &paid_by), object.paid(evt)]
        }
    }

    /// Carries out an operation on the database.
    fn carry_out(&self, c: &mut Connection, operation: &Operation, number: u64) -> Option<Outcome> {
        let id = self.id;
        let outcome = match operation {
            Operation::Grant { request, amount, expires_at: None } => c.grant(id, *amount, request),
            Operation::Grant { request, amount, expires_at: Some(expires_at) } => c.call(
                "grant_credits($1, $2, $3, p_expires_at => to_timestamp($4::bigint))",
                &[&id, amount, request, expires_at],
            ),
            Operation::Spend { request, amount } => c.spend(id, *amount, request),
            Operation::Reserve { request, amount } => c.reserve(id, *amount, request),
            Operation::Commit { request, amount } => c.commit(id, request, *amount),
            Operation::Release { request } => c.release(id, request),
            Operation::RunOut { request } => {
                c.expire_reservation(id, request);
                return None;
            }
            Operation::Expiry { source } => {
                c.expire_grants(id, source);
                return None;
            }
            _ => self.events(operation, number).iter().map(|event| deliver(c, event)).last()?,
        };
        Some(outcome)
    }

    fn step(&mut self, c: &mut Connection) {
        let number = self.rng.number();
        if self.rng.once_in(16) && !self.delivered.is_empty() {
            return self.redeliver(c);
        }
        let Some(operation) = self.people[0].choose(number, Among::Everything) else { return };
        self.done.push(format!("{operation:?}"));
        let exact = match &operation {
            Operation::RunOut { request } => self.people.iter().all(|person| person.returns_whole(request)),
            _ => true,
        };
        let outcome = self.carry_out(c, &operation, number);
        let words = outcome.as_ref().map_or("applied".to_owned(), Outcome::summary);
        let seen = format!("the database answered {words}");
        self.can_be(&seen, |person| person.apply(&operation) == words);
        let Some(outcome) = outcome else {
            if exact {
                self.compare(c, "read before it is posted");
            }
            return self.posts_time(c);
        };
        if let (Some(subscription), Some(purchased), Some(promotional), Some(debt)) = (
            outcome.remaining_subscription,
            outcome.remaining_purchased,
            outcome.remaining_promotional,
            outcome.debt,
        ) {
            let left = ([subscription, purchased, promotional], debt);
            self.can_be(&format!("left {left:?}"), |person| {
                let books = person.books();
                left == (books.pools, books.debt)
            });
        }
        self.delivered.extend(self.events(&operation, number));
    }

    /// Drops the states that do not explain what was seen; at least one must.
    fn can_be(&mut self, seen: &str, mut person_says: impl FnMut(&mut Person) -> bool) {
        let first = self.people[0].clone();
        self.people.iter_mut().for_each(|person| person.names_like(&first));
        self.people.retain_mut(|person| person_says(person));
        assert!(!self.people.is_empty(), "{seen}, but the model: {:?}", first.books());
    }

    /// Posts what time has caused, by a sweep or by an access that does nothing else. A sweep skips locked accounts.
    fn posts_time(&mut self, c: &mut Connection) {
        if self.rng.once_in(2) || c.run_due() == 0 {
            assert_eq!(c.release(self.id, "unknown").summary(), "rejected unknown_reservation");
        }
    }

    /// Delivers an earlier event again: it must change nothing, whatever happened since.
    fn redeliver(&mut self, c: &mut Connection) {
        let event = self.rng.one_of(&self.delivered).clone();
        let outcome = c.deliver(&event);
        self.done.push(format!("again {}: {}", event.id(), outcome.summary()));
        assert!(
            ["already_applied", "ignored"].contains(&outcome.outcome.as_str()),
            "a redelivery: {outcome:?}"
        );
        assert_eq!(outcome.credits, 0, "a redelivery: {outcome:?}");
    }

    /// Reads without posting. What remains of each grant is not read: expiry may have to be posted first.
    fn read(&self, c: &mut Connection) -> Books {
        let read = "select subscription_credits_balance, purchased_credits_balance, promotional_credits_balance, debt,
                        subscription_tier, subscription_status
                    from billing.user_credits where user_id = $1";
        let Some(row) = c.query_opt(read, &[&self.id]).expect("it is read") else {
            return Books {
                pools: [0; 3],
                debt: 0,
                grants: Vec::new(),
                tier: ("free".into(), "none".into()),
            };
        };
        let (pools, tier) = ([row.get(0), row.get(1), row.get(2)], (row.get(4), row.get(5)));
        Books { pools, debt: row.get(3), grants: Vec::new(), tier }
    }

    fn compare(&mut self, c: &mut Connection, when: &str) {
        let read = self.read(c);
        self.can_be(&format!("{when}, {read:?}"), |person| {
            read == Books { grants: Vec::new(), ..person.books() }
        });
    }

    fn compare_grants(&mut self, c: &mut Connection) {
        let remains = "select source_id, remaining from billing.credit_grants where user_id = $1 order by id";
        let rows = c.query(remains, &[&self.id]).expect("it is read");
        let grants: Vec<(String, i64)> = rows.iter().map(|row| (row.get(0), row.get(1))).collect();
        self.can_be(&format!("what remains is {grants:?}"), |person| person.books().grants == grants);
    }

    /// Runs a step; if it fails, prints the operations that led to it.
    fn with_history<T>(&mut self, what: impl FnOnce(&mut Walk) -> T) -> T {
        catch_unwind(AssertUnwindSafe(|| what(self))).unwrap_or_else(|panic| {
            let last = self.done.len().saturating_sub(80);
            eprintln!("{}\n...\n{}", self.done[0], self.done[last..].join("\n"));
            resume_unwind(panic)
        })
    }

    /// Operations that come at once, at most one of them of the subscription: the model needs those in order.
    fn several(&mut self) -> Vec<(u64, Operation)> {
        let mut several = Vec::new();
        for n in 0..AT_ONCE {
            let number = self.rng.number();
            let operation = match n {
                0 => self.people[0].choose_of_subscription(number),
                _ => self.people[0].choose(number, Among::AtOnce),
            };
            several.extend(operation.map(|operation| (number, operation)));
        }
        several
    }

    /// Carries out operations at once, each on a connection of its own. Some order of them must give the same outcomes in the
    /// model.
    fn at_once(&mut self, connections: &mut [Connection]) {
        let several = self.several();
        self.done.push(format!("at once: {several:?}"));
        let barrier = Barrier::new(several.len());
        let walk = &*self;
        let outcomes: Vec<String> = thread::scope(|scope| {
            let work = |((number, operation), c): (&(u64, Operation), &mut Connection)| {
                barrier.wait();
                walk.carry_out(c, operation, *number).expect("it is not of time").summary()
            };
            let running: Vec<_> =
                several.iter().zip(connections).map(|one| scope.spawn(move || work(one))).collect();
            running.into_iter().map(|thread| thread.join().expect("each of the connections")).collect()
        });
        self.done.push(format!("{outcomes:?}"));
        let before = std::mem::take(&mut self.people);
        for order in orders(several.len()) {
            for mut person in before.iter().cloned() {
                person.names_like(&before[0]);
                let same = order.iter().all(|at| person.apply(&several[*at].1) == outcomes[*at]);
                if same && !self.people.contains(&person) {
                    self.people.push(person);
                }
            }
        }
        assert!(!self.people.is_empty(), "no order of these says so");
        for (number, operation) in &several {
            self.delivered.extend(self.events(operation, *number));
        }
    }

    fn history(&mut self, c: &mut Connection) {
        for _ in 0..STEPS {
            self.with_history(|walk| {
                walk.step(c);
                walk.compare(c, "after the step");
                walk.compare_grants(c);
            });
        }
    }
}

/// One history after the other.
fn histories(policies: impl IntoIterator<Item = Policies>) {
    for policies in policies {
        let db = database(policies);
        let mut c = db.connect();
        for seed in 1..=people() {
            Walk::new(policies, seed).history(&mut c);
            db.check_books();
        }
    }
}

#[test]
fn under_policy_debt_whatever_happens_the_database_says_what_the_model_says() {
    histories(all_policies().into_iter().filter(|policies| policies.reversal == ReversalPolicy::Debt));
}

#[test]
fn under_policy_forgive_whatever_happens_the_database_says_what_the_model_says() {
    histories(all_policies().into_iter().filter(|policies| policies.reversal == ReversalPolicy::Forgive));
}

#[test]
fn with_others_and_a_sweep_at_once_every_user_ends_as_the_model_says() {
    for (round, policies) in (0..).zip(all_policies()) {
        let db = database(policies);
        let (db, over) = (&db, &AtomicBool::new(false));
        thread::scope(|scope| {
            scope.spawn(move || {
                let mut c = db.connect();
                while !over.load(Ordering::Relaxed) {
                    c.run_due();
                    c.run("select count(*) from billing.retry_parked()");
                }
            });
            let seeds = (1..=CROWD).map(|n| 1000 + round * CROWD + n);
            let crowd: Vec<_> = seeds
                .map(|seed| scope.spawn(move || Walk::new(policies, seed).history(&mut db.connect())))
                .collect();
            let ended: Vec<_> = crowd.into_iter().map(thread::ScopedJoinHandle::join).collect();
            over.store(true, Ordering::Relaxed);
            for ended in ended {
                ended.unwrap_or_else(|panic| resume_unwind(panic));
            }
        });
        db.check_books();
    }
}

#[test]
fn what_comes_at_once_on_one_account_ends_as_in_some_order_of_it() {
    for (round, policies) in (0..).zip(all_policies()) {
        let db = database(policies);
        let mut connections: Vec<Connection> = (0..AT_ONCE).map(|_| db.connect()).collect();
        for seed in (1..=HURRIED).map(|n| 2000 + round * HURRIED + n) {
            let mut walk = Walk::new(policies, seed);
            for _ in 0..BATCHES {
                walk.with_history(|walk| {
                    walk.step(&mut connections[0]);
                    walk.at_once(&mut connections);
                    walk.compare(&mut connections[0], "after the batch");
                    walk.compare_grants(&mut connections[0]);
                });
                db.check_books();
            }
        }
    }
}
