//! Random histories of a customer at Stripe, billed by the simulator of `rules/`, on the database: after each step it says what
//! the model says, a second implementation of the rules; no customer gains by whatever they do, and no honest one loses.
//!
//! Every run of a seed is the same; a failure names the seed and what happened until then.

use std::panic::{AssertUnwindSafe, catch_unwind};

use serde_json::{Value, json};
use stripe_credits_rules::model::{Customer, Outcome, Step as ModelStep, Users};
use stripe_credits_rules::simulator::{
    Api, BillingMode, Books, CHANGES, Choice, DAY, EVERYTHING, Event, HONEST, Happening, Kind, Months,
    Policies, Settings, Step, catalog, clock_event, exploit, history, honest,
};
use stripe_credits_tests::connection::Connection;
use stripe_credits_tests::database::Database;
use stripe_credits_tests::seeds::Rng;
use uuid::Uuid;

/// Histories of each test; `STRIPE_CREDITS_MODEL_TIMES` multiplies them, from the seed `STRIPE_CREDITS_MODEL_FIRST` on.
const HISTORIES: u64 = 12;
/// Operations of a history at most.
const OPERATIONS: i64 = 9;

fn seeds() -> std::ops::Range<u64> {
    let number = |name, default| {
        std::env::var(name).map_or(default, |number| number.parse::<u64>().expect("a number"))
    };
    let first = number("STRIPE_CREDITS_MODEL_FIRST", 0);
    first..first + HISTORIES * number("STRIPE_CREDITS_MODEL_TIMES", 1)
}

/// What is simulated, by a seed.
struct Simulation {
    settings: Settings,
    mode: BillingMode,
    policies: Policies,
    choices: Vec<Choice>,
    rng: Rng,
}

impl Simulation {
    fn new(seed: u64) -> Simulation {
        let mut rng = Rng::new(seed);
        let (mode, api) = *rng.one_of(&[
            (BillingMode::Classic, Api::Older),
            (BillingMode::Classic, Api::Current),
            (BillingMode::Flexible, Api::Current),
        ]);
        // Flexible billing bills by the second, and months of one length keep that comparable with credits by the month.
        let months = if mode == BillingMode::Flexible { Months::Even } else { Months::Calendar };
        let begins_at = Settings::default().begins_at + rng.between(0, 400) * DAY;
        let mut byte = || u8::try_from(rng.below(256)).expect("below 256");
        let choices = (0..OPERATIONS).map(|_| [byte(), byte(), byte(), byte()]).collect();
        let policies = Policies {
            plan_change: rng.one_of::<&str>(&["reset", "keep"]),
            cancellation: rng.one_of::<&str>(&["keep", "expire"]),
            reversal_policy: "debt",
        };
        let settings = Settings { begins_at, api, months, has_test_clock: true, ..Settings::default() };
        Simulation { settings, mode, policies, choices, rng }
    }

    fn history(&self, menu: &[Kind]) -> Vec<Happening> {
        history(self.settings.clone(), self.mode, menu, &self.choices)
    }
}

/// The database as the keeper of one customer's books.
struct Player {
    c: Connection,
    settings: Settings,
    user: Uuid,
    clock: i64,
    _database: Database,
}

impl Player {
    fn new(simulation: &Simulation) -> Player {
        let database = Database::new();
        let mut c = database.connect();
        c.load_catalog(&catalog(simulation.policies));
        let user = Uuid::parse_str(&simulation.settings.user_id).expect("a UUID");
        Player { c, settings: simulation.settings.clone(), user, clock: 0, _database: database }
    }

    /// Lets the customer's test clock stand at a time.
    fn pass_to(&mut self, at: i64) {
        if at > self.clock {
            self.clock = at;
            self.c.apply_json(&clock_event(&self.settings, at).body);
            self.c.run_due();
        }
    }

    fn deliver(&mut self, event: &Event) {
        let outcome = self.c.apply_json(&event.body);
        assert!(!["rejected", "needs_fetch"].contains(&outcome.outcome.as_str()), "{event:?}: {outcome:?}");
        self.prove();
    }

    /// Fails unless the books prove themselves.
    fn prove(&mut self) {
        assert_eq!(self.c.faults(), [""; 0]);
    }

    fn books(&mut self) -> Books {
        let books = self.c.query_opt(
            "select credits_balance, debt from billing.user_credits where user_id = $1",
            &[&self.user],
        );
        let books = books.expect("the read model");
        books.map_or(Books::default(), |row| Books { balance: row.get(0), debt: row.get(1) })
    }

    /// The books as the model counts them: what a recurring pack bills ahead it counts at once, the product when its time comes.
    fn books_and_to_come(&mut self) -> Books {
        let to_come: i64 = self.c.one(
            "select coalesce(sum(pending), 0)::bigint from billing.credit_grants where user_id = $1 and pool = 'purchased'",
            &[&self.user],
        );
        let books = self.books();
        Books { balance: books.balance + to_come, ..books }
    }

    fn play(&mut self, step: Step<'_>) -> Books {
        self.pass_to(step.at());
        match step {
            Step::Deliver(event) => self.deliver(event),
            Step::Spend { amount, number, .. } => {
                let outcome = self.c.spend(self.user, amount, &format!("spend-{number}"));
                assert_eq!(outcome.outcome, "applied", "{amount} are there");
            }
            Step::Look { .. } => {}
        }
        self.books()
    }
}

/// Runs a test for each seed, and names the seeds that fail.
fn for_each_seed(test: impl Fn(u64)) {
    let fails = |seed: &u64| {
        let failed = catch_unwind(AssertUnwindSafe(|| test(*seed))).is_err();
        if failed {
            eprintln!("seed {seed}");
        }
        failed
    };
    let failing: Vec<u64> = seeds().filter(fails).collect();
    assert_eq!(failing, [0; 0], "the seeds that fail");
}

#[test]
fn however_a_customer_acts_no_more_is_drawn_than_the_kept_money_pays_for() {
    for_each_seed(|seed| {
        let simulation = Simulation::new(seed);
        let mut player = Player::new(&simulation);
        let found = exploit(&simulation.history(EVERYTHING), |step| player.play(step));
        assert!(found.is_ok(), "{}", found.expect_err("a violation"));
    });
}

#[test]
fn who_pays_and_renews_always_has_the_whole_amount() {
    for_each_seed(|seed| {
        let mut simulation = Simulation::new(seed);
        simulation.mode = BillingMode::Classic;
        let mut player = Player::new(&simulation);
        let found = honest(&simulation.history(HONEST), &[255, 100, 0], |step| player.play(step));
        assert!(found.is_ok(), "{}", found.expect_err("a violation"));
    });
}

/// What the account is asked for beside Stripe's events.
fn request(rng: &mut Rng, number: usize, balance: i64) -> ModelStep {
    let request_id = format!("request-{number}");
    let earlier = |rng: &mut Rng| format!("request-{}", rng.below(number + 1));
    let amount = (balance * rng.between(1, 4) / 4).max(1);
    match rng.below(6) {
        0 => ModelStep::Reserve { request_id, amount, seconds: rng.between(1, 30) * DAY },
        1 => ModelStep::Commit { request_id: earlier(rng), amount: None },
        2 => ModelStep::Release { request_id: earlier(rng) },
        3 => ModelStep::RefundSpend { spend_request_id: earlier(rng), request_id, amount: None },
        _ => ModelStep::Spend { request_id, amount },
    }
}

impl Player {
    /// Makes a request of the model's. Returns the outcome.
    fn ask(&mut self, step: &ModelStep) -> Outcome {
        let (c, user) = (&mut self.c, self.user);
        let outcome = match step {
            ModelStep::Look => return Outcome::Applied,
            ModelStep::Spend { request_id, amount } => c.spend(user, *amount, request_id),
            ModelStep::Reserve { request_id, amount, seconds } => c.call(
                "reserve_credits($1, $2, $3, make_interval(secs => $4))",
                &[&user, amount, request_id, &f64::from(i32::try_from(*seconds).expect("days"))],
            ),
            ModelStep::Commit { request_id, amount } => {
                c.call("commit_reservation($1, $2, $3)", &[&user, request_id, amount])
            }
            ModelStep::Release { request_id } => c.call("release_reservation($1, $2)", &[&user, request_id]),
            ModelStep::RefundSpend { spend_request_id, request_id, amount } => {
                c.refund_spend(user, spend_request_id, request_id, *amount)
            }
            other => panic!("{other:?} is no request"),
        };
        self.prove();
        match outcome.outcome.as_str() {
            "applied" => Outcome::Applied,
            "already_applied" => Outcome::AlreadyApplied,
            "rejected" => Outcome::Rejected,
            other => panic!("{step:?} was {other}"),
        }
    }
}

#[test]
fn after_every_step_the_database_says_what_the_model_says() {
    for_each_seed(|seed| {
        let mut simulation = Simulation::new(seed);
        let mut player = Player::new(&simulation);
        let mut model = Customer::new(&catalog(simulation.policies));
        let mut log = Vec::new();
        for (number, happening) in simulation.history(CHANGES).iter().enumerate() {
            log.push(format!("{} {}", happening.at, happening.what));
            for event in &happening.events {
                player.play(Step::Deliver(event));
                model.apply(event.at, &ModelStep::Deliver(event.body.clone()));
                compare(&mut player, &model, &log, &event.event_type);
            }
            player.pass_to(happening.at);
            model.apply(happening.at, &ModelStep::Look);
            compare(&mut player, &model, &log, "time");
            let step = request(&mut simulation.rng, number, player.books().balance);
            log.push(format!("{step:?}"));
            // What a call that changes nothing is called is tested elsewhere.
            let applied = |outcome| outcome == Outcome::Applied;
            let applied = (applied(player.ask(&step)), applied(model.apply(happening.at, &step)));
            assert_eq!(applied.0, applied.1, "{}", log.join("\n"));
            compare(&mut player, &model, &log, "a request");
        }
    });
}

fn compare(player: &mut Player, model: &Customer, log: &[String], after: &str) {
    let (books, model) = (player.books_and_to_come(), model.books());
    assert_eq!(
        (books.balance, books.debt),
        (model.balance, model.debt),
        "after {after} the database differs from the model: {model:#?}\n{}",
        log.join("\n")
    );
}

/// What an event bills or lists, in one line of a log.
fn in_short(event: &Value) -> String {
    let object = &event["data"]["object"];
    let lines = object["lines"]["data"].as_array().into_iter().flatten().map(|line| {
        let parent = &line["parent"]["subscription_item_details"];
        let price = line["pricing"]["price_details"]["price"].as_str().or(line["price"]["id"].as_str());
        let item = parent["subscription_item"].as_str().or(line["subscription_item"].as_str());
        let (start, end) = (&line["period"]["start"], &line["period"]["end"]);
        let proration =
            if parent["proration"] == true || line["proration"] == true { " prorated" } else { "" };
        format!("{item:?} {price:?} x{} at {} [{start}, {end}]{proration}", line["quantity"], line["amount"])
    });
    let items = object["items"]["data"].as_array().into_iter().flatten();
    let items = items.map(|item| format!("{} {} x{}", item["id"], item["price"]["id"], item["quantity"]));
    let all: Vec<String> = lines.chain(items).collect();
    format!("{} {} {}", object["id"], object["status"], all.join(", "))
}

/// Users beside the one whom the simulated metadata name.
const OTHERS: [&str; 3] = [
    "00000000-0000-4000-8000-000000000002",
    "00000000-0000-4000-8000-000000000003",
    "00000000-0000-4000-8000-000000000004",
];

/// The database as the keeper of the books of several users, among whom the customer's subscriptions move.
struct Movers {
    player: Player,
    model: Users,
    users: Vec<String>,
    /// Whom the app's server names now.
    named: String,
    log: Vec<String>,
}

impl Movers {
    fn new(simulation: &Simulation, others: &[&str]) -> Movers {
        let mut player = Player::new(simulation);
        let others = others.iter().map(|user| (*user).to_owned());
        let users: Vec<String> = std::iter::once(simulation.settings.user_id.clone()).chain(others).collect();
        let names: Vec<&str> = users.iter().map(String::as_str).collect();
        let model = Users::new(&catalog(simulation.policies), &names);
        let clock = clock_event(&simulation.settings, simulation.settings.begins_at);
        player.pass_to(simulation.settings.begins_at);
        // All live by the customer's clock from the beginning.
        for (number, user) in users.iter().enumerate() {
            let customer = json!({
                "id": format!("cus_of_user_{number}"), "object": "customer", "livemode": false,
                "metadata": {"user_id": user}, "test_clock": clock.body["data"]["object"]["id"],
            });
            player.c.apply_json(&json!({
                "id": format!("evt_of_user_{number}"), "object": "event", "type": "customer.created",
                "api_version": "2024-06-20", "created": simulation.settings.begins_at, "livemode": false,
                "pending_webhooks": 1, "data": {"object": customer},
            }));
        }
        Movers { named: users[0].clone(), player, model, users, log: Vec::new() }
    }

    /// An event as it comes from Stripe once the server has named another user.
    fn deliver(&mut self, event: &Event) {
        let text = event.body.to_string().replace(&self.users[0], &self.named);
        let body: Value = serde_json::from_str(&text).expect("JSON");
        self.log.push(format!("{} {} names {}: {}", event.at, event.event_type, self.named, in_short(&body)));
        self.player.play(Step::Deliver(&Event { body: body.clone(), ..event.clone() }));
        self.model.deliver(event.at, &body);
        self.compare();
    }

    /// An operator gives all subscriptions to a user.
    fn attribute(&mut self, at: i64, user: &str) {
        let subscriptions: Vec<String> =
            self.player.c.column("select subscription_id::text from billing.subscriptions order by 1", &[]);
        for subscription in subscriptions {
            self.log.push(format!("{at} {subscription} is attributed to {user}"));
            let user_id = Uuid::parse_str(user).expect("a UUID");
            assert!(self.player.c.attribute(&subscription, user_id).ok);
            self.player.prove();
            self.model.attribute(at, &subscription, user);
            self.compare();
        }
    }

    fn ask(&mut self, at: i64, user: &str, step: &ModelStep) {
        self.log.push(format!("{at} {user}: {step:?}"));
        self.player.user = Uuid::parse_str(user).expect("a UUID");
        let applied = (self.player.ask(step), self.model.ask(at, user, step));
        let applied = (applied.0 == Outcome::Applied, applied.1 == Outcome::Applied);
        assert_eq!(applied.0, applied.1, "{}", self.log.join("\n"));
        self.compare();
    }

    fn compare(&mut self) {
        for user in self.users.clone() {
            self.player.user = Uuid::parse_str(&user).expect("a UUID");
            let (books, model) = (self.player.books_and_to_come(), self.model.books(&user));
            assert!(
                (books.balance, books.debt) == (model.balance, model.debt),
                "the database differs from the model for {user}: {books:?}, not {model:#?}\n{}\n{}",
                self.log.join("\n"),
                self.ledgers(),
            );
        }
    }

    /// Every ledger row of these users, in the order in which they were made.
    fn ledgers(&mut self) -> String {
        let rows: Vec<String> = self.player.c.column(
            "select concat_ws(' ', extract(epoch from t.created_at)::bigint, right(t.user_id::text, 1), t.transaction_type,
                 t.amount, coalesce(g.item, g.source_id))
             from billing.credit_transactions t left join billing.credit_grants g on (g.user_id, g.id) = (t.user_id, t.grant_id)
             order by t.recorded_at, t.id",
            &[],
        );
        rows.join("\n")
    }
}

/// What happens to subscriptions, the app's calls of whoever has or had them, and what comes of it after each.
fn play(
    simulation: &mut Simulation,
    movers: &mut Movers,
    mut asks: impl FnMut(&mut Movers, &mut Rng, usize, i64),
) {
    for (number, happening) in simulation.history(CHANGES).iter().enumerate() {
        for event in &happening.events {
            movers.deliver(event);
        }
        movers.log.push(format!("{} {}", happening.at, happening.what));
        movers.player.pass_to(happening.at);
        asks(movers, &mut simulation.rng, number, happening.at);
    }
}

/// A user, and what there is to spend: time has passed in the model too.
fn somebody(movers: &mut Movers, rng: &mut Rng, at: i64) -> (String, i64) {
    let user = rng.one_of(&movers.users).clone();
    movers.ask(at, &user, &ModelStep::Look);
    movers.player.user = Uuid::parse_str(&user).expect("a UUID");
    let balance = movers.player.books().balance;
    (user, balance)
}

#[test]
fn subscriptions_that_move_on_from_user_to_user_are_split_as_the_model_says() {
    for_each_seed(|seed| {
        let mut simulation = Simulation::new(seed);
        let mut movers = Movers::new(&simulation, &OTHERS);
        let mut next = 1;
        play(&mut simulation, &mut movers, |movers, rng, number, at| {
            let (user, balance) = somebody(movers, rng, at);
            movers.ask(at, &user, &request(rng, number, balance));
            let Some(user) = movers.users.get(next).cloned() else { return };
            match rng.below(3) {
                0 => movers.named = user,
                1 => movers.attribute(at, &user),
                _ => return,
            }
            next += 1;
        });
    });
}

#[test]
fn subscriptions_that_come_back_are_split_as_the_model_says() {
    for_each_seed(|seed| {
        let mut simulation = Simulation::new(seed);
        let mut movers = Movers::new(&simulation, &OTHERS[..1]);
        play(&mut simulation, &mut movers, |movers, rng, number, at| {
            let (user, balance) = somebody(movers, rng, at);
            if balance > 0 {
                let amount = rng.between(1, balance + 1);
                movers.ask(at, &user, &ModelStep::Spend { request_id: format!("request-{number}"), amount });
            }
            match rng.below(4) {
                0 => movers.named = rng.one_of(&movers.users).clone(),
                1 => {
                    let user = rng.one_of(&movers.users).clone();
                    movers.attribute(at, &user);
                }
                _ => {}
            }
        });
    });
}
