//! Every vector on a database, step by step: extension/rules/tests/vectors/README.md says what a vector is.

use serde_json::{Value, json};
use stripe_credits_rules::vectors::{all, at_base, expected};
use stripe_credits_tests::connection::Connection;
use stripe_credits_tests::database::Database;
use uuid::Uuid;

const DAY: i64 = 86_400;

/// A base for vectors that name none, and one from which months of 30 days cross months of 31 and of 28.
const BASES: [i64; 2] = [1_700_000_000, 1_700_000_000 + 47 * DAY];

/// What the account shows, as a vector writes it.
fn balances(c: &mut Connection, user: Uuid) -> Value {
    let row = c
        .query_opt(
            "select credits_balance, debt, subscription_credits_balance, purchased_credits_balance,
                    promotional_credits_balance
             from billing.user_credits where user_id = $1",
            &[&user],
        )
        .expect("balances");
    let column = |index: usize| row.as_ref().map_or(0, |row| row.get::<_, i64>(index));
    json!({
        "balance": column(0), "debt": column(1), "total": column(0) - column(1),
        "subscription": column(2), "purchased": column(3), "promotional": column(4),
    })
}

/// The test clock of a vector's customer.
const CLOCK: &str = "clock_1";

/// What clock a vector is played by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Clock {
    /// A test clock, which stands at each step's time.
    Moves,
    /// The database's: all of it was long ago.
    Stands,
}

/// Lets the test clock stand at a time.
fn advance(c: &mut Connection, step: usize, at: i64) {
    c.apply_json(&json!({
        "id": format!("evt_clock_{step}"), "object": "event", "type": "test_helpers.test_clock.ready", "created": at,
        "livemode": false,
        "data": { "object": { "id": CLOCK, "object": "test_helpers.test_clock", "frozen_time": at } },
    }));
}

/// Plays a vector. Returns the first step whose numbers differ.
fn play(c: &mut Connection, vector: &Value, base: i64, clock: Clock) -> Option<String> {
    let user = Uuid::parse_str(vector["user"].as_str().expect("a user")).expect("a UUID");
    c.load_catalog(&vector["catalog"]);
    for (index, step) in vector["steps"].as_array().expect("steps").iter().enumerate() {
        let mut answer = None;
        if clock == Clock::Moves {
            advance(c, index, base + step["at"].as_i64().expect("at"));
            c.run_due();
        }
        if step["deliver"].is_object() {
            let mut event = at_base(&step["deliver"], base);
            let kind = event["data"]["object"]["object"].as_str().map(str::to_owned);
            if clock == Clock::Moves && matches!(kind.as_deref(), Some("invoice" | "subscription")) {
                event["data"]["object"]["test_clock"] = CLOCK.into();
            }
            let outcome = c.apply_json(&event);
            if outcome.outcome == "needs_fetch" || outcome.outcome == "rejected" {
                return Some(format!("step {index}: {} {:?}", outcome.summary(), outcome.details));
            }
            answer = Some(outcome.summary());
        }
        if let Some(amount) = step["spend"].as_i64() {
            let request = step["request_id"].as_str().expect("a request id");
            let outcome = c.spend(user, amount, request).outcome;
            if step["outcome"] != *outcome {
                return Some(format!("step {index}: spending {amount} was {outcome}"));
            }
        }
        let faults = c.faults();
        if !faults.is_empty() {
            return Some(format!("step {index} ({answer:?}): {faults:?}"));
        }
        let got = balances(c, user);
        let expected = expected(vector, index);
        if got != expected {
            let grants = c.column::<String>(
                "select concat_ws(' ', item, 'amount', amount, 'drawn', drawn, 'remaining', remaining, 'pending', pending,
                     'aside', set_aside, 'expired', expired, 'owed', owed)
                 from billing.credit_grants order by id",
                &[],
            );
            let grants = grants.join("\n  ");
            return Some(format!("step {index} ({answer:?}): {got}, not {expected}\n  {grants}"));
        }
    }
    None
}

#[test]
fn every_vector_stands_after_every_step() {
    let only = std::env::var("STRIPE_CREDITS_VECTOR").unwrap_or_default();
    let vectors = all();
    assert_eq!(vectors.len(), 85);
    let mut wrong = Vec::new();
    for (name, vector) in vectors.iter().filter(|(name, _)| name.contains(&only)) {
        let bases = vector["base"].as_i64().map_or(BASES.to_vec(), |base| vec![base]);
        for base in bases {
            let database = Database::new();
            if let Some(difference) = play(&mut database.connect(), vector, base, Clock::Moves) {
                wrong.push(format!("{name} from {base}: {difference}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{} differ:\n{}", wrong.len(), wrong.join("\n"));
}

/// Credits in parts, and those of a canceled subscription, go with time, also where the rest may have been long ago.
fn goes_with_time(vector: &Value) -> bool {
    vector["steps"].to_string().contains("price_pro_year")
        || vector["catalog"].to_string().contains(r#""cancellation":"expire""#)
}

#[test]
fn every_vector_that_may_be_long_ago_stands_after_every_step() {
    let mut wrong = Vec::new();
    for (name, vector) in all().iter().filter(|(_, v)| v["clock"] == "any" && !goes_with_time(v)) {
        let base = vector["base"].as_i64().unwrap_or(BASES[1]);
        let database = Database::new();
        if let Some(difference) = play(&mut database.connect(), vector, base, Clock::Stands) {
            wrong.push(format!("{name} from {base}: {difference}"));
        }
    }
    assert!(wrong.is_empty(), "{} differ:\n{}", wrong.len(), wrong.join("\n"));
}
