//! The vectors: one customer's history each, with the numbers that must stand after every step.

use std::fs;
use std::path::PathBuf;

use serde_json::Value;

use super::super::{Customer, Outcome, Step};

const DAY: i64 = 86_400;
/// November 1st 2023: months of 30 days that end with the calendar's.
const IN_NOVEMBER: i64 = 1_698_796_800;
/// December 3rd 2023: months of 30 days that end before the calendar's, which has 31.
const IN_DECEMBER: i64 = IN_NOVEMBER + 32 * DAY;

/// Where the vectors are: in the repository, else beside it.
fn folder() -> Option<PathBuf> {
    let here = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    let folders = [here.join("tests/vectors"), here.join("../../../shared/spec/vectors")];
    folders.into_iter().find(|folder| folder.is_dir())
}

fn vectors() -> Vec<Value> {
    let Some(folder) = folder() else {
        eprintln!("skipped: the vectors are not here");
        return Vec::new();
    };
    let mut files: Vec<_> = fs::read_dir(folder).expect("a folder").map(|file| file.expect("a file").path()).collect();
    files.retain(|file| file.extension().is_some_and(|extension| extension == "json"));
    files.sort();
    let read = |file| serde_json::from_str(&fs::read_to_string(file).expect("a file")).expect("JSON");
    files.iter().map(read).collect()
}

/// Every `{"t": n}` stands for the time base + n.
fn at_base(value: &Value, base: i64) -> Value {
    match value {
        Value::Object(fields) if fields.len() == 1 && fields.contains_key("t") => {
            (base + fields["t"].as_i64().expect("seconds")).into()
        }
        Value::Object(fields) => {
            Value::Object(fields.iter().map(|(key, value)| (key.clone(), at_base(value, base))).collect())
        }
        Value::Array(values) => values.iter().map(|value| at_base(value, base)).collect(),
        other => other.clone(),
    }
}

#[derive(Clone, Copy)]
enum Clock {
    /// The database's time is each step's.
    Moves,
    /// All facts lie in the past.
    Stands,
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
        let (happens, expected) = match step["spend"].as_i64() {
            Some(amount) => {
                let request_id = step["request_id"].as_str().expect("a request id").to_owned();
                let applied = step["outcome"].as_str() == Some("applied");
                let outcome = if applied { Outcome::Applied } else { Outcome::Rejected };
                (Step::Spend { request_id, amount }, outcome)
            }
            None if step["deliver"].is_object() => {
                (Step::Deliver(at_base(&step["deliver"], base)), Outcome::Applied)
            }
            None => (Step::Look, Outcome::Applied),
        };
        let outcome = customer.apply(now, &happens);
        let books = customer.books();
        let are = [books.balance, books.debt, books.subscription, books.purchased, books.promotional];
        let names = ["balance", "debt", "subscription", "purchased", "promotional"];
        let must = names.map(|name| step["expect"][name].as_i64().expect("credits"));
        if (outcome, are) != (expected, must) {
            return Err(format!("step {number}: {outcome:?} {are:?}, not {expected:?} {must:?}: {books:#?}"));
        }
    }
    Ok(())
}

#[test]
fn every_vector_is_played_with_its_numbers_after_each_step() {
    let mut failed = Vec::new();
    for vector in vectors() {
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

#[test]
fn show_one() {
    let Ok(name) = std::env::var("SHOW") else { return };
    for vector in vectors().iter().filter(|v| v["name"] == name.as_str()) {
        let base = std::env::var("BASE").map_or(vector["base"].as_i64().unwrap_or(IN_NOVEMBER), |b| b.parse().unwrap());
        let mut customer = Customer::new(&vector["catalog"]);
        for step in vector["steps"].as_array().unwrap() {
            let now = base + step["at"].as_i64().unwrap();
            let happens = if let Some(amount) = step["spend"].as_i64() { Step::Spend { request_id: step["request_id"].as_str().unwrap().into(), amount } } else if step["deliver"].is_object() { Step::Deliver(at_base(&step["deliver"], base)) } else { Step::Look };
            customer.apply(now, &happens);
            let b = customer.books();
            eprintln!("{:.3}d {} -> bal {} debt {} (must {} {})", step["at"].as_i64().unwrap() as f64 / 86400.0, step["deliver"]["type"], b.balance, b.debt, step["expect"]["balance"], step["expect"]["debt"]);
            for g in &b.grants { if let super::super::Key::Period { stream, start, end, part, is_below_zero, .. } = &g.key { eprintln!("      {} [{:.3},{:.3}] part {:?} below {} worth {} drawn {} left {}", stream.item.as_deref().unwrap_or("-"), (start-base) as f64/86400.0, (end-base) as f64/86400.0, part.map(|p| (p-base) as f64/86400.0), is_below_zero, g.worth, g.drawn, g.left) } else { eprintln!("      {:?} worth {} drawn {} left {}", g.key, g.worth, g.drawn, g.left) } }
        }
    }
}
