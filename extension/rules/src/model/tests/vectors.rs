//! The vectors: one customer's history each, with the numbers that must stand after every step.

use std::fs;
use std::path::PathBuf;

use serde_json::Value;

use super::super::{Books, Customer, Outcome, Step};
use crate::vectors;

const DAY: i64 = 86_400;
/// November 1st 2023: months of 30 days that end with the calendar's.
const IN_NOVEMBER: i64 = 1_698_796_800;
/// December 3rd 2023: months of 30 days that end before the calendar's, which has 31.
const IN_DECEMBER: i64 = IN_NOVEMBER + 32 * DAY;

#[derive(Clone, Copy)]
enum Clock {
    /// The database's time is each step's.
    Moves,
    /// All facts lie in the past.
    Stands,
}

fn happens(step: &Value, base: i64) -> Step {
    if let Some(amount) = step["spend"].as_i64() {
        return Step::Spend {
            request_id: step["request_id"].as_str().expect("a request id").to_owned(),
            amount,
        };
    }
    if step["deliver"].is_object() {
        Step::Deliver(vectors::at_base(&step["deliver"], base))
    } else {
        Step::Look
    }
}

fn numbers(books: &Books) -> [i64; 5] {
    [books.balance, books.debt, books.subscription, books.purchased, books.promotional]
}

/// The first step after which the numbers differ, if one does.
fn play(vector: &Value, base: i64, clock: Clock) -> Result<(), String> {
    let mut customer = Customer::new(&vector["catalog"]);
    let last = vector["last"].as_i64().expect("seconds");
    for (number, step) in vector["steps"].as_array().expect("steps").iter().enumerate() {
        let now = match clock {
            Clock::Moves => base + step["at"].as_i64().expect("seconds"),
            Clock::Stands => base + last + 1,
        };
        let is_rejected = step["outcome"].as_str() == Some("rejected");
        let expected = if is_rejected { Outcome::Rejected } else { Outcome::Applied };
        let outcome = customer.apply(now, &happens(step, base));
        let books = customer.books();
        let are = numbers(&books);
        let names = ["balance", "debt", "subscription", "purchased", "promotional"];
        let expect = vectors::expected(vector, number);
        let must = names.map(|name| expect[name].as_i64().expect("credits"));
        if (outcome, are) != (expected, must) {
            return Err(format!("step {number}: {outcome:?} {are:?}, not {expected:?} {must:?}: {books:#?}"));
        }
    }
    Ok(())
}

#[test]
fn every_vector_is_played_with_its_numbers_after_each_step() {
    let mut failed = Vec::new();
    for (_, vector) in vectors::all() {
        let plays = match (vector["base"].as_i64(), vector["clock"].as_str()) {
            (Some(base), Some("moves")) => vec![(base, Clock::Moves)],
            (Some(base), _) => vec![(base, Clock::Stands), (base, Clock::Moves)],
            (None, _) => [IN_NOVEMBER, IN_DECEMBER]
                .into_iter()
                .flat_map(|base| [(base, Clock::Stands), (base, Clock::Moves)])
                .collect(),
        };
        for (base, clock) in plays {
            if let Err(difference) = play(&vector, base, clock) {
                failed.push(format!("{} at {base}: {difference}", vector["name"]));
            }
        }
    }
    assert!(failed.is_empty(), "{} differ:\n{}", failed.len(), failed.join("\n"));
}

/// Shapes from 2017 to the current API, as other projects recorded them. They name no price of ours.
#[test]
fn real_payloads_are_read_and_grant_nothing() {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../../shared/stripe-events");
    let Ok(files) = fs::read_dir(folder) else {
        eprintln!("skipped: the payloads are not here");
        return;
    };
    let mut customer = Customer::new(&serde_json::json!({"livemode": false}));
    for file in files.map(|file| file.expect("a file").path()) {
        if file.extension().is_some_and(|extension| extension == "json") {
            let event = serde_json::from_str(&fs::read_to_string(file).expect("a file")).expect("JSON");
            customer.apply(IN_NOVEMBER, &Step::Deliver(event));
        }
    }
    assert_eq!(numbers(&customer.books()), [0; 5]);
}

/// "Where no spend stands between two deliveries, they may be swapped or doubled: the last step's numbers stay", "while
/// no debt arises (from what a debt is settled depends on when it is known)".
#[test]
fn deliveries_between_two_spends_may_come_in_reverse_and_twice() {
    let mut compared = 0;
    for (_, vector) in vectors::all() {
        // When all is delivered after it has happened, time alone changes what a history with a moving clock leaves.
        if vector["clock"].as_str() == Some("moves") {
            continue;
        }
        let steps: Vec<&Value> = vector["steps"].as_array().expect("steps").iter().collect();
        let mut shuffled = Vec::new();
        for run in steps.split_inclusive(|step| step["spend"].is_i64()) {
            let spends = usize::from(run[run.len() - 1]["spend"].is_i64());
            let (deliveries, spend) = run.split_at(run.len() - spends);
            shuffled.extend(deliveries.iter().rev().chain(deliveries).chain(spend));
        }
        if let (Some(left), Some(right)) = (without_debt(&vector, &steps), without_debt(&vector, &shuffled)) {
            assert_eq!(left, right, "{}", vector["name"]);
            compared += 1;
        }
    }
    assert!(compared > 25, "only {compared} histories have no debt");
}

/// What the steps leave, unless a debt arose on their way.
fn without_debt(vector: &Value, steps: &[&Value]) -> Option<[i64; 5]> {
    let base = vector["base"].as_i64().unwrap_or(IN_NOVEMBER);
    let now = base + vector["last"].as_i64().expect("seconds") + 1;
    let mut customer = Customer::new(&vector["catalog"]);
    let mut spent = 0;
    for step in steps {
        if customer.apply(now, &happens(step, base)) == Outcome::Applied {
            spent += step["spend"].as_i64().unwrap_or(0);
        }
        let books = customer.books();
        // What was drawn other than by spends has settled a debt.
        let drawn: i64 = books.grants.iter().map(|grant| grant.drawn).sum();
        if books.debt > 0 || drawn != spent {
            return None;
        }
    }
    Some(numbers(&customer.books()))
}
